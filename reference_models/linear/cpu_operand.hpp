// SPDX-License-Identifier: Apache-2.0
// An operand on the CPU: what the emulator's GEMM reads, and what is needed to read values back. Internal to
// the CPU engine; the functions run on the calling thread and `threads` more.
#pragma once
#include "nvfp4/emulator/gemm/gemm.hpp"
#include "nvfp4/reference_models/linear/operand_engine.hpp"

namespace nvfp4::models::cpu {

class CpuOperand final : public Operand {
public:
  GemmOperand packed;    ///< the segments of a patch stand behind the main columns
  BlockScaled quantized; ///< of quantized operands; codes and scales are moved into `packed` where they fit
};

/// Memory that a thread uses again and again.
struct Workspace {
  std::vector<float> rounded, gathered, decoded;
  BlockScaled first; ///< fprop's copy, of operands that are quantized from what it decodes to
  std::optional<Isa> isa = {};         ///< instead of the best that the CPU has
  const float *rounded_from = nullptr; ///< what `rounded` was made from, within one batch
  BlockScaled segment;
};

void quantize(const QuantizeTask &task, Workspace &workspace, int threads);
/// The codes and scales of a block-scaled operand, or of the task's part of one, alone; `out`, `unit` and what they hold are not read.
void quantize_blocks(BlockScaled &q, const QuantizeTask &task, Workspace &workspace, int threads);
/// The same of values in the source type instead of the task's tensor, by a convention instead of its own.
void quantize_values(BlockScaled &q, const float *x, const QuantizeTask &task, const Convention &convention, Workspace &workspace,
                     int threads);
/// What a simulated operand holds before it is rounded to BF16, in the tensor's orientation, with what fills up a rotation's last
/// group; a rotation stays.
[[nodiscard]] Rotated simulated_values(const QuantizeTask &task, Workspace &workspace, int threads);
void patch(const PatchTask &task, Workspace &workspace);

/// x as the recipe's source type has it: x itself, or a rounded copy in the workspace.
[[nodiscard]] const float *rounded(FormatId source, const float *x, int64_t n, Workspace &workspace);

/// The first `width` columns of an NVFP4 operand as FP32, (rows, width).
void read_values(const CpuOperand &q, int64_t width, std::vector<float> &out);

} // namespace nvfp4::models::cpu
