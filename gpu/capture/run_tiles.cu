// SPDX-License-Identifier: Apache-2.0
// run_tiles: moves host tiles to the device in batches, picks the engine, brings D back. Also asks the loaded
// device code which instruction families it was compiled with.
#include "nvfp4/gpu/capture/cuda_check.hpp"
#include "nvfp4/gpu/capture/engines.hpp"
#include "nvfp4/gpu/capture/features.cuh"
#include "nvfp4/gpu/capture/golden_file.hpp"

#include <algorithm>
#include <string>

namespace nvfp4::gpu {
namespace {

__global__ void report_features(uint32_t *out) {
  *out = (CAPTURE_HAS_MMA16 ? kMma16 : 0) | (CAPTURE_HAS_MMA_FP8 ? kMmaFp8 : 0) |
         (CAPTURE_HAS_F64_WIDE ? kMmaF64Wide : 0) | (CAPTURE_HAS_WGMMA ? kWgmma : 0) |
         (CAPTURE_HAS_TCGEN05 ? kTcgen05 : 0) | (CAPTURE_HAS_MMA_BLOCK ? kMmaBlock : 0) |
         (CAPTURE_HAS_CVT_NARROW ? kCvtNarrow : 0) | (CAPTURE_HAS_CVT_RS ? kCvtRs : 0) |
         (CAPTURE_HAS_CVT_SM90 ? kCvtSm90 : 0) | (CAPTURE_HAS_CVT_SM100 ? kCvtSm100 : 0);
}

struct Device {
  std::string arch;
  uint32_t features = 0;
  std::vector<MmaKind> kinds;
};

Device query() {
  int count = 0;
  if (const cudaError_t status = cudaGetDeviceCount(&count); status != cudaSuccess || count == 0)
    throw NoDevice(std::string("no CUDA device: ") + cudaGetErrorString(status));
  int id = 0, major = 0, minor = 0;
  cuda_check(cudaGetDevice(&id), "cudaGetDevice");
  cuda_check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, id), "compute capability");
  cuda_check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, id), "compute capability");
  Device x;
  x.arch = "sm_" + std::to_string(major * 10 + minor);
  const DeviceBuffer word(sizeof(uint32_t));
  report_features<<<1, 1>>>(static_cast<uint32_t *>(word.data()));
  const cudaError_t launched = cudaGetLastError();
  if (launched == cudaErrorNoKernelImageForDevice || launched == cudaErrorInvalidDeviceFunction ||
      launched == cudaErrorUnsupportedPtxVersion)
    throw NoDevice("this build has no code for the device's architecture " + x.arch);
  cuda_check(launched, "launch of feature query");
  cuda_check(cudaDeviceSynchronize(), "feature query");
  word.download(&x.features, sizeof x.features);
  x.kinds = kinds_for(x.arch, x.features);
  return x;
}

const Device &device() {
  static const Device x = query();
  return x;
}

bool launch(const MmaKind &kind, const TileArgs &args) {
  if (kind.engine == Engine::wgmma) return launch_wgmma(kind, args);
  if (kind.engine == Engine::tcgen05) return launch_tcgen05(kind, args);
  if (kind.a == Element::f64) return launch_mma_f64(kind, args);
  if (kind.scale_block) return launch_mma_block(kind, args);
  if (kind.spelling == Spelling::f8f6f4) return launch_mma_f8f6f4(kind, args);
  return launch_mma_dense(kind, args) || launch_mma_fp8(kind, args);
}

} // namespace

std::string nvcc_version() {
  return std::to_string(__CUDACC_VER_MAJOR__) + "." + std::to_string(__CUDACC_VER_MINOR__) + "." +
         std::to_string(__CUDACC_VER_BUILD__);
}

const char *device_arch() { return device().arch.c_str(); }
uint32_t device_features() { return device().features; }
std::span<const MmaKind> kinds_for_device() { return device().kinds; }

void run_tiles(const MmaKind &kind, int64_t tiles, const void *a, const void *b, const void *scale_a,
               const void *scale_b, const void *c, void *d) {
  if (tiles <= 0) return;
  const int64_t scales_a = int64_t(kind.m) * scales_per_row(kind),
                scales_b = int64_t(kind.n) * scales_per_row(kind);
  const int64_t widest = std::max({a_bytes(kind), b_bytes(kind), c_bytes(kind)});
  const int64_t batch = std::min(tiles, (int64_t{64} << 20) / widest);
  const DeviceBuffer da(batch * a_bytes(kind)), db(batch * b_bytes(kind)), dc(batch * c_bytes(kind)),
      dd(batch * c_bytes(kind)), dsa(batch * scales_a), dsb(batch * scales_b);
  const auto at = [](const void *p, int64_t bytes) { return static_cast<const uint8_t *>(p) + bytes; };
  for (int64_t first = 0; first < tiles; first += batch) {
    const int64_t count = std::min(batch, tiles - first);
    da.upload(at(a, first * a_bytes(kind)), count * a_bytes(kind));
    db.upload(at(b, first * b_bytes(kind)), count * b_bytes(kind));
    dc.upload(at(c, first * c_bytes(kind)), count * c_bytes(kind));
    if (kind.scale_block) {
      dsa.upload(at(scale_a, first * scales_a), count * scales_a);
      dsb.upload(at(scale_b, first * scales_b), count * scales_b);
    }
    const TileArgs args{count, da.data(), db.data(), dsa.data(), dsb.data(), dc.data(), dd.data()};
    if (!launch(kind, args)) throw CudaError(std::string("no kernel for unit ") + kind.unit);
    cuda_check(cudaDeviceSynchronize(), kind.unit);
    dd.download(static_cast<uint8_t *>(d) + first * c_bytes(kind), count * c_bytes(kind));
  }
}

} // namespace nvfp4::gpu
