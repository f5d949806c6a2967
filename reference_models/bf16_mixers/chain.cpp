// SPDX-License-Identifier: Apache-2.0
// Chains of a unit's instructions: dot.hpp's where it has the unit's bits, else through the exact GEMM, which
// plans and packs for every call.
#include "nvfp4/reference_models/bf16_mixers/chain.hpp"

#include "nvfp4/emulator/config.hpp"
#include "nvfp4/emulator/gemm/gemm.hpp"
#include "nvfp4/reference_models/bf16_mixers/dot.hpp"

namespace nvfp4::models {

std::vector<float> chain(const Unit &unit, const ChainOperand &a, const ChainOperand &b) {
  if (unit.rule.a != FormatId::bf16 || unit.rule.b != FormatId::bf16 || unit.rule.acc != FormatId::f32)
    throw Error("unit " + unit.name() +
                ": a chain here needs BF16 operands and FP32 accumulators, such as "
                "sm_90:mma.m16n8k16.f32.bf16");
  if (a.k != b.k) throw Error("chain: A has K = " + std::to_string(a.k) + ", B has " + std::to_string(b.k));
  if (tensorcore::has_dot_bits(unit.rule)) {
    tensorcore::DotOperand left, right;
    left.left({a.words.data(), a.k}, a.rows, a.k);
    right.right({b.words.data(), b.k}, b.rows, b.k);
    std::vector<float> out(size_t(a.rows * b.rows));
    accumulate(left, right, out.data(), b.rows);
    return out;
  }
  const auto bytes = [](const ChainOperand &x) {
    return std::span(reinterpret_cast<const uint8_t *>(x.words.data()), 2 * x.words.size());
  };
  GemmOptions options;
  options.threads = 1;
  std::vector<uint64_t> words(size_t(a.rows * b.rows));
  GemmPlan(unit, options)
      .accumulate(pack_operand(unit, Side::a, a.rows, a.k, bytes(a)),
                  pack_operand(unit, Side::b, b.rows, b.k, bytes(b)), words);
  std::vector<float> out(words.size());
  for (size_t i = 0; i < out.size(); ++i) out[i] = bit_cast<float>(uint32_t(words[i]));
  return out;
}

} // namespace nvfp4::models
