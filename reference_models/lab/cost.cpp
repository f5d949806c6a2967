// SPDX-License-Identifier: Apache-2.0
// Sums over layers and products.
#include "nvfp4/reference_models/lab/cost.hpp"

#include "nvfp4/emulator/quantize/convention.hpp"
#include "nvfp4/emulator/tensorcore/catalogue.hpp"
#include "nvfp4/reference_models/linear/product_recipe.hpp"

#include <cmath>
#include <limits>

namespace nvfp4::models {
namespace {

bool is_block_scaled(const OperandRecipe &o) { return !o.convention.empty(); }

/// Bits an element of one copy. A simulated one counts as what it stands for.
double bits_of(const OperandRecipe &o) {
  if (!is_block_scaled(o)) return o.format == OperandFormat::f32 ? 32 : 16;
  const Rule &r = find_convention(o.convention).rule;
  return double(format(r.element).storage_bits) + double(format(r.scale).storage_bits) / double(r.block);
}

/// Of a tensor that two products read.
double bits_of(const OperandRecipe &first, const OperandRecipe &second) {
  if (is_block_scaled(first) || is_block_scaled(second) || first.format != second.format)
    return bits_of(first) + bits_of(second);
  return bits_of(first);
}

/// A butterfly of n values is n log2 n additions, and a multiplication each.
double rotation_of(const OperandRecipe &o) { return o.hadamard ? std::log2(double(o.hadamard_size)) + 1 : 0; }

double random_bits_of(const OperandRecipe &o) {
  if (o.scale_correction == ScaleCorrection::eden) return 32.0 / 16; // a word a block
  switch (o.rounding) {
  case ElementRounding::nearest: return 0;
  case ElementRounding::sr_carry8:
  case ElementRounding::sr_te:
  case ElementRounding::sr_mid8: return 8;
  case ElementRounding::sr_exact: break;
  }
  return 32;
}

/// What a quantized mean adds to a product of m x n outputs, as a part of it: its row meets the other operand once, and in wgrad,
/// where it is the same for all tokens, the sums over tokens do, which are products with a row of ones.
double of_means(const GemmRecipe &g, Product p, int64_t m, int64_t n) {
  const auto splits = [](const OperandRecipe &o) { return o.mean == MeanSplit::quantized; };
  if (p != Product::wgrad) return splits(g.a) ? 1 / double(m) : 0;
  return (splits(g.a) ? 1 / double(m) : 0) + (splits(g.b) ? 1 / double(n) : 0);
}

double time_of(const GemmRecipe &g) {
  constexpr double kBf16 = 16; ///< K of its instruction
  if (g.a.format == OperandFormat::f32) return std::numeric_limits<double>::quiet_NaN();
  return kBf16 / double(find_unit(g.unit).rule.k);
}

} // namespace

RecipeCost recipe_cost(const Recipe &recipe, const std::vector<LabOperator> &operators) {
  RecipeCost c;
  double xs = 0, ws = 0, dys = 0, macs = 0, copies = 0;
  for (const LabOperator &o : operators) {
    const LinearRecipe l = recipe.resolve(o.role, o.layer, o.layers);
    const double x = double(o.rows * o.in), w = double(o.out * o.in), dy = double(o.rows * o.out);
    c.x += x * bits_of(l.fprop.a, l.wgrad.b);
    c.weight += w * bits_of(l.fprop.b, l.dgrad.b);
    c.dy += dy * bits_of(l.dgrad.a, l.wgrad.a);
    xs += x;
    ws += w;
    dys += dy;
    for (const auto &[operand, elements] : {std::pair(&l.fprop.a, x),
                                            {&l.fprop.b, w},
                                            {&l.dgrad.a, dy},
                                            {&l.dgrad.b, w},
                                            {&l.wgrad.a, dy},
                                            {&l.wgrad.b, x}}) {
      if (!is_block_scaled(*operand)) continue;
      copies += elements;
      c.rotations += elements * rotation_of(*operand);
      c.random_bits += elements * random_bits_of(*operand);
    }
    for (const Product p : enumerators<Product>()) {
      const double product = double(o.rows) * w; // every product has as many
      const double contraction = double(p == Product::fprop ? o.in : p == Product::dgrad ? o.out : o.rows);
      const bool patched = l.hcp.enabled && (p == Product::fprop || (p == Product::dgrad && l.hcp.dgrad));
      const double segments = !patched ? 0 : l.hcp.side == HcpRecipe::Side::both ? 2 : 1;
      const double more = segments * double(patched ? l.hcp.channels(int64_t(contraction)) : 0) / contraction +
                          of_means(gemm_of(l, p), p, p == Product::wgrad ? o.out : o.rows, p == Product::fprop ? o.out : o.in);
      const bool bf16 = l.hcp.residual == HcpRecipe::Residual::bf16;
      const double time = time_of(gemm_of(l, p));
      c.tensor_time += product * (time + more * (bf16 ? 1.0 : time));
      c.multiply_adds += product * (1 + more);
      macs += product;
    }
  }
  c.x /= xs;
  c.weight /= ws;
  c.dy /= dys;
  c.tensor_time /= macs;
  c.multiply_adds /= macs;
  if (copies > 0) c.rotations /= copies, c.random_bits /= copies;
  return c;
}

void write_cost(Measures &to, const std::string &label, const RecipeCost &c) {
  const std::string name = "cost/" + label + "/";
  to.add(name + "bits.x", c.x);
  to.add(name + "bits.w", c.weight);
  to.add(name + "bits.dy", c.dy);
  to.add(name + "tensor_time", c.tensor_time);
  to.add(name + "multiply_adds", c.multiply_adds);
  to.add(name + "rotations", c.rotations);
  to.add(name + "random_bits", c.random_bits);
}

} // namespace nvfp4::models
