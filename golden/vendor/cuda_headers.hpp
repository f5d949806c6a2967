// SPDX-License-Identifier: Apache-2.0
// The conversions that CUDA's own headers offer on the host, under the names of our table. Needs the CUDA headers,
// no GPU and no nvcc. Internal.
#pragma once
#include "nvfp4/emulator/formats/codec.hpp"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp4.h>
#include <cuda_fp6.h>
#include <cuda_fp8.h>
#include <string_view>

namespace nvfp4::golden {

struct VendorConversion {
  std::string_view name;
  uint64_t (*convert)(uint32_t word); ///< the input word of the conversion's source format
};

namespace vendor {
inline float f(uint32_t w) { return bit_cast<float>(w); }
inline __half_raw h(uint32_t w) { return __half_raw{uint16_t(w)}; }
inline __nv_bfloat16_raw b(uint32_t w) { return __nv_bfloat16_raw{uint16_t(w)}; }
inline uint64_t word(__half x) { return __half_raw(x).x; }
inline uint64_t word(__nv_bfloat16 x) { return __nv_bfloat16_raw(x).x; }
} // namespace vendor

/// All 2^32 inputs are meaningful for these.
inline constexpr VendorConversion kFromF32[] = {
    {"cvt.rn.satfinite.e2m1x2.f32", [](uint32_t w) -> uint64_t { return __nv_cvt_float_to_fp4(vendor::f(w), __NV_E2M1, cudaRoundNearest); }},
    {"cvt.rn.satfinite.e3m2x2.f32", [](uint32_t w) -> uint64_t { return __nv_cvt_float_to_fp6(vendor::f(w), __NV_E3M2, cudaRoundNearest); }},
    {"cvt.rn.satfinite.e2m3x2.f32", [](uint32_t w) -> uint64_t { return __nv_cvt_float_to_fp6(vendor::f(w), __NV_E2M3, cudaRoundNearest); }},
    {"cvt.rn.satfinite.e4m3x2.f32", [](uint32_t w) -> uint64_t { return __nv_cvt_float_to_fp8(vendor::f(w), __NV_SATFINITE, __NV_E4M3); }},
    {"cvt.rn.satfinite.e5m2x2.f32", [](uint32_t w) -> uint64_t { return __nv_cvt_float_to_fp8(vendor::f(w), __NV_SATFINITE, __NV_E5M2); }},
    {"nosat.e4m3.f32", [](uint32_t w) -> uint64_t { return __nv_cvt_float_to_fp8(vendor::f(w), __NV_NOSAT, __NV_E4M3); }},
    {"nosat.e5m2.f32", [](uint32_t w) -> uint64_t { return __nv_cvt_float_to_fp8(vendor::f(w), __NV_NOSAT, __NV_E5M2); }},
    {"cvt.rz.satfinite.ue8m0x2.f32", [](uint32_t w) -> uint64_t { return __nv_cvt_float_to_e8m0(vendor::f(w), __NV_SATFINITE, cudaRoundZero); }},
    {"cvt.rz.ue8m0x2.f32", [](uint32_t w) -> uint64_t { return __nv_cvt_float_to_e8m0(vendor::f(w), __NV_NOSAT, cudaRoundZero); }},
    {"cvt.rp.satfinite.ue8m0x2.f32", [](uint32_t w) -> uint64_t { return __nv_cvt_float_to_e8m0(vendor::f(w), __NV_SATFINITE, cudaRoundPosInf); }},
    {"cvt.rp.ue8m0x2.f32", [](uint32_t w) -> uint64_t { return __nv_cvt_float_to_e8m0(vendor::f(w), __NV_NOSAT, cudaRoundPosInf); }},
    {"cvt.rn.f16.f32", [](uint32_t w) { return vendor::word(__float2half_rn(vendor::f(w))); }},
    {"cvt.rz.f16.f32", [](uint32_t w) { return vendor::word(__float2half_rz(vendor::f(w))); }},
    {"cvt.rm.f16.f32", [](uint32_t w) { return vendor::word(__float2half_rd(vendor::f(w))); }},
    {"cvt.rp.f16.f32", [](uint32_t w) { return vendor::word(__float2half_ru(vendor::f(w))); }},
    {"cvt.rn.bf16.f32", [](uint32_t w) { return vendor::word(__float2bfloat16_rn(vendor::f(w))); }},
    {"cvt.rz.bf16.f32", [](uint32_t w) { return vendor::word(__float2bfloat16_rz(vendor::f(w))); }},
    {"cvt.rm.bf16.f32", [](uint32_t w) { return vendor::word(__float2bfloat16_rd(vendor::f(w))); }},
    {"cvt.rp.bf16.f32", [](uint32_t w) { return vendor::word(__float2bfloat16_ru(vendor::f(w))); }},
};

/// Inputs of 16 bits or fewer; the count says how many codes there are.
struct SmallVendorConversion {
  VendorConversion conversion;
  uint32_t inputs;
};
inline constexpr SmallVendorConversion kFromNarrow[] = {
    {{"cvt.rn.satfinite.e4m3x2.f16x2", [](uint32_t w) -> uint64_t { return __nv_cvt_halfraw_to_fp8(vendor::h(w), __NV_SATFINITE, __NV_E4M3); }}, 65536},
    {{"cvt.rn.satfinite.e5m2x2.f16x2", [](uint32_t w) -> uint64_t { return __nv_cvt_halfraw_to_fp8(vendor::h(w), __NV_SATFINITE, __NV_E5M2); }}, 65536},
    {{"cvt.rz.ue8m0x2.bf16x2", [](uint32_t w) -> uint64_t { return __nv_cvt_bfloat16raw_to_e8m0(vendor::b(w), __NV_NOSAT, cudaRoundZero); }}, 65536},
    {{"cvt.rz.satfinite.ue8m0x2.bf16x2", [](uint32_t w) -> uint64_t { return __nv_cvt_bfloat16raw_to_e8m0(vendor::b(w), __NV_SATFINITE, cudaRoundZero); }}, 65536},
    {{"cvt.rp.ue8m0x2.bf16x2", [](uint32_t w) -> uint64_t { return __nv_cvt_bfloat16raw_to_e8m0(vendor::b(w), __NV_NOSAT, cudaRoundPosInf); }}, 65536},
    {{"cvt.rp.satfinite.ue8m0x2.bf16x2", [](uint32_t w) -> uint64_t { return __nv_cvt_bfloat16raw_to_e8m0(vendor::b(w), __NV_SATFINITE, cudaRoundPosInf); }}, 65536},
    {{"cvt.rn.f16x2.e2m1x2", [](uint32_t w) -> uint64_t { return __nv_cvt_fp4_to_halfraw(__nv_fp4_storage_t(w), __NV_E2M1).x; }}, 16},
    {{"cvt.rn.f16x2.e3m2x2", [](uint32_t w) -> uint64_t { return __nv_cvt_fp6_to_halfraw(__nv_fp6_storage_t(w), __NV_E3M2).x; }}, 64},
    {{"cvt.rn.f16x2.e2m3x2", [](uint32_t w) -> uint64_t { return __nv_cvt_fp6_to_halfraw(__nv_fp6_storage_t(w), __NV_E2M3).x; }}, 64},
    {{"cvt.rn.f16x2.e4m3x2", [](uint32_t w) -> uint64_t { return __nv_cvt_fp8_to_halfraw(__nv_fp8_storage_t(w), __NV_E4M3).x; }}, 256},
    {{"cvt.rn.f16x2.e5m2x2", [](uint32_t w) -> uint64_t { return __nv_cvt_fp8_to_halfraw(__nv_fp8_storage_t(w), __NV_E5M2).x; }}, 256},
    {{"cvt.rn.bf16x2.ue8m0x2", [](uint32_t w) -> uint64_t { return __nv_cvt_e8m0_to_bf16raw(__nv_fp8_storage_t(w)).x; }}, 256},
};

} // namespace nvfp4::golden
