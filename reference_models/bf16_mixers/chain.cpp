// SPDX-License-Identifier: Apache-2.0
// Chains of a unit's instructions: dot.hpp's where it has the unit's bits, else through the exact GEMM, which
// packs for every call.
#include "nvfp4/reference_models/bf16_mixers/chain.hpp"

#include "nvfp4/emulator/config.hpp"
#include "nvfp4/emulator/gemm/gemm.hpp"
#include "nvfp4/reference_models/bf16_mixers/dot.hpp"

namespace nvfp4::models {

std::vector<float> chain(const ChainUnit &on, const ChainOperand &a, const ChainOperand &b) {
  const Unit &unit = on.unit;
  if (unit.rule.a != FormatId::bf16 || unit.rule.b != FormatId::bf16 || unit.rule.acc != FormatId::f32)
    throw Error("unit " + unit.name() +
                ": a chain here needs BF16 operands and FP32 accumulators, such as "
                "sm_90:mma.m16n8k16.f32.bf16");
  if (a.k != b.k) throw Error("chain: A has K = " + std::to_string(a.k) + ", B has " + std::to_string(b.k));
  std::vector<float> out(size_t(a.rows * b.rows));
  if (tensorcore::has_dot_bits(unit.rule)) {
    tensorcore::DotOperand left(on.isa), right(on.isa);
    left.left({a.words.data(), a.k}, a.rows, a.k);
    right.right({b.words.data(), b.k}, b.rows, b.k);
    accumulate(left, right, out.data(), b.rows);
    return out;
  }
  const auto operand = [&](Side side, const ChainOperand &x) {
    const auto *bytes = reinterpret_cast<const uint8_t *>(x.words.data());
    return make_operand(unit, side, RawCodes{x.rows, x.k, {bytes, 2 * x.words.size()}});
  };
  const GemmResult d = multiply(unit, operand(Side::a, a), operand(Side::b, b), {.threads = 1, .isa = on.isa});
  if (!out.empty()) std::memcpy(out.data(), d.words.data(), d.words.size());
  return out;
}

} // namespace nvfp4::models
