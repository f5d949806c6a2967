// SPDX-License-Identifier: Apache-2.0
// Comparisons of gpu/blackwell's kernels with the emulator on the CPU. With the hardware's instructions: not
// yet run.
#pragma once
#include "nvfp4/emulator/tensorcore/catalogue.hpp"
#include "nvfp4/gpu/blackwell/gemm.hpp"

#include <optional>
#include <vector>

namespace nvfp4::cuda::blackwell {

enum class KernelId : uint8_t { sm100, sm120 };
[[nodiscard]] const char *name_of(KernelId id);

/// The kernel that the device and this build have.
[[nodiscard]] std::optional<KernelId> native_kernel();
/// The same; throws models::NoDevice where there is none.
[[nodiscard]] KernelId require_native_kernel();
/// The device's unit of a kernel ("sm_100:tcgen05...."); where the device is of another kind, sm_100's or
/// sm_120's own.
[[nodiscard]] const Unit &unit_of(KernelId id, bool mxfp4);

/// An FP4 operand on the host: codes (rows, padded_k / 2), linear scales (rows, padded_k / block).
struct HostOperand {
  int64_t rows = 0, k = 0, padded_k = 0;
  std::vector<uint8_t> codes, scales;
};

/// What a GEMM on the device gives.
struct GemmCall {
  KernelId kernel = KernelId::sm100;
  Engine engine = Engine::hardware;
  ScaleLayout layout = ScaleLayout::linear;
  FormatId out = FormatId::f32;
  float alpha = 1.0f, beta = 0.0f;
};
[[nodiscard]] std::vector<uint8_t> run_gemm(const GemmCall &call, const UnitRule &rule, const HostOperand &a,
                                            const HostOperand &b, const std::vector<float> &c);

/// Each prints a line per case to stdout and returns the number of mismatching words (under `mmasim` for
/// products).
[[nodiscard]] int64_t check_gemm(KernelId kernel, Engine engine, int64_t largest);
[[nodiscard]] int64_t check_quantize();
/// The directed vectors through the GEMM, beside the predictions of the three models.
[[nodiscard]] int64_t check_directed(KernelId kernel, Engine engine);
/// Finds and prints the order of cvt.rs's random bits; 1 when no order explains the device.
[[nodiscard]] int64_t check_rbits();

/// Directed vectors, order of random bits, quantization, products up to `largest`, on the hardware;
/// mismatches.
[[nodiscard]] int64_t check_all(int64_t largest);
/// Products and directed vectors of both kernels on any GPU, with the instruction in software; mismatches.
[[nodiscard]] int64_t simulate(int64_t largest);

/// Golden files in `directory`: the K = 64 directed vectors and random dot products as the GEMM kernel
/// answers them, then everything that gpu/capture records of FP4 instructions and conversions. Returns
/// capture()'s code.
[[nodiscard]] int capture_golden(KernelId kernel, const std::string &directory);

} // namespace nvfp4::cuda::blackwell
