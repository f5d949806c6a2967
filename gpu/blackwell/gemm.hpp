// SPDX-License-Identifier: Apache-2.0
// D = alpha * A * B^T + beta * C for NVFP4 and MXFP4 on Blackwell's own tensor cores: every accumulator is
// the chain of K = 64 instructions in increasing K from +0, never split. They take the operands of
// gpu/emulated/gemm.hpp, whose bits they are to reproduce. Compiled, inspected, and run with simulated
// instructions; not yet run on Blackwell.
#pragma once
#include "nvfp4/emulator/quantize/scale_layout.hpp"
#include "nvfp4/gpu/emulated/gemm.hpp"

namespace nvfp4::cuda::blackwell {

/// An operand as the tensor cores read it: rows padded to 128, K to 256 with zero codes, scales in 128x4
/// tiles over the padded shape.
struct NativeOperand {
  const uint8_t *codes = nullptr;  // (padded rows, row_bytes)
  const uint8_t *scales = nullptr; // 128x4 tiles
  int64_t rows = 0, padded_rows = 0, row_bytes = 0;
  int steps = 0; ///< instructions along K: ceil(k / 64); the padding beyond them is not multiplied
};

/// Memory that products may use; keep it between calls.
struct Workspace {
  DeviceBuffer codes_a, codes_b, scales_a, scales_b;
};

/// Pads and tiles an operand into the buffers; codes that need no padding stay where they are. `layout` is
/// that of operand.scales: rows and columns (rows, padded_k / scale_block). Scales of padded blocks inside a
/// step are 1.0.
[[nodiscard]] NativeOperand pack_native(const UnitRule &rule, const DeviceOperand &operand,
                                        ScaleLayout layout, DeviceBuffer &codes, DeviceBuffer &scales,
                                        cudaStream_t stream);

/// Who computes an instruction: the tensor core, or simulated.cuh on any GPU from sm_80, for checks of the
/// rest.
enum class Engine : uint8_t { hardware, simulated };

/// mma.sync.m16n8k64 kind::mxf4nvf4 (UE4M3 per 16) or kind::mxf4 (UE8M0 per 32). Needs a device of compute
/// capability 12.x and a build for its `a` architecture; Error otherwise, and where operands, rule and output
/// do not fit. D and C as in GemmOutput. Asynchronous on `stream`.
void gemm_sm120(const UnitRule &rule, const DeviceOperand &a, const DeviceOperand &b,
                const GemmOutput &output, Workspace &workspace, cudaStream_t stream,
                ScaleLayout layout = ScaleLayout::linear, Engine engine = Engine::hardware);

/// tcgen05.mma kind::mxf4nvf4.block16 (UE4M3 or UE8M0 per 16) or kind::mxf4.block32, 128 x 128 outputs a
/// block. Needs compute capability 10.x or 11.0 and a build for its `a` architecture.
void gemm_sm100(const UnitRule &rule, const DeviceOperand &a, const DeviceOperand &b,
                const GemmOutput &output, Workspace &workspace, cudaStream_t stream,
                ScaleLayout layout = ScaleLayout::linear, Engine engine = Engine::hardware);

/// What both kernels are given.
struct Product {
  UnitRule rule;
  NativeOperand a, b;
  GemmOutput out;
};
/// Checks that both kernels share, and the packing of both operands. `name` goes into messages.
[[nodiscard]] Product prepare(const char *name, const UnitRule &rule, const DeviceOperand &a,
                              const DeviceOperand &b, const GemmOutput &output, Workspace &workspace,
                              cudaStream_t stream, ScaleLayout layout);

} // namespace nvfp4::cuda::blackwell
