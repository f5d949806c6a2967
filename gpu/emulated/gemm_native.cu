// SPDX-License-Identifier: Apache-2.0
// Products of units whose fused step is that of an instruction of Hopper, whatever their architecture: BF16,
// FP16 and TF32 of sm_90, 100, 103, 110, 120 and 121, with FP32 or FP16 accumulators, Hopper's own FP8, and FP8
// that ptxas expands into FP16. The
// catalogue's rows for sm_90 reproduce the instructions (golden/evidence/h200-check-units.txt); a row with
// equal numbers has equal bits.
#include "nvfp4/emulator/tensorcore/catalogue.hpp"
#include "nvfp4/gpu/emulated/gemm_detail.cuh"
#include "nvfp4/gpu/hopper/gemm_fp8.hpp"
#include "nvfp4/gpu/hopper/mma_tiles.cuh"

namespace nvfp4::cuda {
namespace {

struct Write {
  GemmOutput out;
  FormatId acc;
  int64_t n;
  __device__ void operator()(int64_t row, int64_t col, uint32_t word) const {
    write_apart(out, acc, n, row, col, word);
  }
};

__global__ void epilogue_kernel(Write write, int64_t rows, const uint32_t *accumulators) {
  const int64_t o = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (o < rows * write.n) write(o / write.n, o % write.n, accumulators[o]);
}

[[nodiscard]] bool is_hopper() {
  int device = 0, major = 0, minor = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "cudaDeviceGetAttribute");
  check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device), "cudaDeviceGetAttribute");
  return major == 9 && minor == 0;
}

/// Whether a unit's step is that of a Hopper instruction on the unit's formats.
[[nodiscard]] bool steps_as(const UnitRule &rule, const char *hopper_unit) {
  UnitRule theirs = step_of(find_unit(hopper_unit).rule);
  theirs.a = rule.a, theirs.b = rule.b;
  return step_of(rule) == theirs;
}

/// Accumulators of Hopper's FP8 wgmma, then the epilogue.
void multiply_fp8(const DeviceOperand &a, const DeviceOperand &b, const Write &write,
                  GemmWorkspace &workspace, cudaStream_t stream) {
  const int64_t outputs = a.rows * b.rows;
  const bool direct = write.out.accumulators;
  if (!direct) workspace.accumulators.reserve(outputs * 4);
  float *const to = direct ? static_cast<float *>(write.out.d) : workspace.accumulators.as<float>();
  gemm_fp8(a.format, b.format, a.codes, b.codes, a.rows, b.rows, a.padded_k, a.padded_k, b.padded_k, 1.0f,
           nullptr, {}, to, stream);
  if (direct) return;
  epilogue_kernel<<<blocks_for(outputs, 256), 256, 0, stream>>>(write, a.rows,
                                                                workspace.accumulators.as<uint32_t>());
  check_launch("epilogue_kernel");
}

} // namespace

bool gemm_native(const UnitRule &rule, const DeviceOperand &a, const DeviceOperand &b,
                 const GemmOutput &output, GemmWorkspace &workspace, cudaStream_t stream) {
  using namespace hopper::mma;
  if ((rule.family != Family::fdpa && rule.family != Family::expanded_fp8) || a.padded_k == 0 ||
      a.padded_k != b.padded_k || !is_hopper())
    return false;
  const Write write{output, rule.acc, b.rows};
  const auto run = [&](auto fragment) {
    const int64_t k = a.padded_k * format(rule.a).storage_bits / 16;
    const hopper::Operand left{a.codes, a.rows, k, k, 2}, right{b.codes, b.rows, k, k, 2};
    const hopper::AlignedOperand x(left, stream), y(right, stream);
    hopper::launch_mma<decltype(fragment)>(x.get(), y.get(), write, stream);
    return true;
  };
  const auto fp8 = [](FormatId f) { return f == FormatId::e4m3 || f == FormatId::e5m2; };
  if (fp8(rule.a) && fp8(rule.b)) {
    if (steps_as(rule, "sm_90:wgmma.k32.f32.e4m3")) {
      multiply_fp8(a, b, write, workspace, stream);
      return true;
    }
    const bool e4 = rule.a == FormatId::e4m3, same = rule.a == rule.b;
    const auto run_of = [&](auto f44, auto f55, auto f45, auto f54) {
      return same ? (e4 ? run(f44) : run(f55)) : (e4 ? run(f45) : run(f54));
    };
    if (steps_as(rule, "sm_90:mma.m16n8k32.f32.e4m3"))
      return run_of(E4m3K32(), E5m2K32(), E4m3E5m2K32(), E5m2E4m3K32());
    if (steps_as(rule, "sm_90:mma.m16n8k16.f32.e4m3"))
      return run_of(E4m3K16(), E5m2K16(), E4m3E5m2K16(), E5m2E4m3K16());
    if (steps_as(rule, "sm_90:mma.m16n8k32.f16.e4m3"))
      return run_of(E4m3AccK32(), E5m2AccK32(), E4m3E5m2AccK32(), E5m2E4m3AccK32());
    if (steps_as(rule, "sm_90:mma.m16n8k16.f16.e4m3"))
      return run_of(E4m3AccK16(), E5m2AccK16(), E4m3E5m2AccK16(), E5m2E4m3AccK16());
    return false;
  }
  if (rule.a != rule.b) return false;
  if (rule.a == FormatId::tf32) {
    if (steps_as(rule, "sm_90:mma.m16n8k8.f32.tf32")) return run(Tf32K8());
    if (steps_as(rule, "sm_90:mma.m16n8k4.f32.tf32")) return run(Tf32K4());
    return false;
  }
  const bool bf16 = rule.a == FormatId::bf16;
  if (!bf16 && rule.a != FormatId::f16) return false;
  if (steps_as(rule, "sm_90:mma.m16n8k16.f32.f16")) return bf16 ? run(Bf16K16()) : run(F16K16());
  if (steps_as(rule, "sm_90:mma.m16n8k8.f32.f16")) return bf16 ? run(Bf16K8()) : run(F16K8());
  if (steps_as(rule, "sm_90:mma.m16n8k16.f16.f16")) return run(F16AccK16());
  if (steps_as(rule, "sm_90:mma.m16n8k8.f16.f16")) return run(F16AccK8());
  return false;
}

} // namespace nvfp4::cuda
