// SPDX-License-Identifier: Apache-2.0
// One batch of quantizations and one of products for all heads.
#include "nvfp4/reference_models/linear/operator_products.hpp"

#include <algorithm>

namespace nvfp4::models {
namespace {

/// One side of a product: a matrix, and along what it is contracted.
struct Side {
  const float *data;
  int64_t rows, cols;
  Axis axis;
  uint64_t stream;

  [[nodiscard]] View<const float> view() const { return {data, cols, 1}; }
};

struct Sides {
  Side a, b;
};

Sides sides(Product product, const OperatorMatrices &m) {
  const Side x{m.x, m.rows, m.in, Axis::row, m.stream}, w{m.w, m.out, m.in, Axis::row, m.w_stream},
      dy{m.dy, m.rows, m.out, Axis::row, m.stream};
  const auto turned = [](Side s) {
    s.axis = Axis::col;
    return s;
  };
  switch (product) {
  case Product::fprop: return {x, w};
  case Product::dgrad: return {dy, turned(w)};
  case Product::wgrad: return {turned(dy), turned(x)};
  }
  return {};
}

} // namespace

RandomKey operator_key(uint64_t run_seed, uint64_t id, Product product, RandomUse use, uint64_t stream,
                       int64_t step, int64_t micro_batch) {
  RandomKey key = random_key(run_seed, id, product, use, step, micro_batch);
  key.seed += (1 + stream) << 40;
  return key;
}

OperatorProducts::OperatorProducts(Backend<float> &backend, OperandEngine *engine, LinearRecipe recipe,
                                   uint64_t id)
    : backend_(&backend), engine_(engine), recipe_(std::move(recipe)), id_(id) {
  if (engine_ == nullptr && !recipe_.all_f32()) throw Error("products inside a mixer need an operand engine");
  if (engine_ != nullptr) engine_->check_supported(recipe_);
}

void OperatorProducts::run(const StepContext &step, Product product, std::span<const OperatorMatrices> of,
                           std::span<float *const> to, bool adds) const {
  const GemmRecipe &gemm = product == Product::fprop   ? recipe_.fprop
                           : product == Product::dgrad ? recipe_.dgrad
                                                       : recipe_.wgrad;
  if (gemm.a.format == OperandFormat::f32) {
    for (size_t i = 0; i < of.size(); ++i) {
      const auto [a, b] = sides(product, of[i]);
      const bool a_turned = a.axis == Axis::col, b_turned = b.axis == Axis::col;
      const int64_t m = a_turned ? a.cols : a.rows, k = a_turned ? a.rows : a.cols,
                    n = b_turned ? b.cols : b.rows;
      backend_->run(Matmul<float>{m,
                                  n,
                                  k,
                                  a_turned ? a.view().transposed() : a.view(),
                                  b_turned ? b.view() : b.view().transposed(),
                                  {to[i], n, 1},
                                  adds});
    }
    return;
  }
  const Unit &unit = find_unit(gemm.unit);
  std::vector<QuantizeTask> tasks;
  std::vector<GemmTask> products;
  size_t used = 0;
  const auto quantized = [&](const Side &s, const OperandRecipe &operand, RandomUse use) -> const Operand * {
    for (const QuantizeTask &t : tasks)
      if (t.x == s.data && t.recipe == &operand) return t.out; // heads that share w
    Operand &out = engine_->temporary(used++);
    // what is decoded from dgrad's copy of dy meets that copy's words
    const bool of_dgrad = product == Product::wgrad && use == RandomUse::operand_a && operand.decoded;
    tasks.push_back({&out, &operand, recipe_.source, &unit, s.data, s.rows, s.cols, s.axis,
                     operator_key(step.seed, id_, of_dgrad ? Product::dgrad : product, use, s.stream, step.step, step.micro_batch)});
    tasks.back().signs = rotation_signs(operand.hadamard_signs, step.seed, product, step.step);
    return &out;
  };
  using enum Epilogue::Into;
  const bool rounds = gemm.output == FormatId::bf16;
  const Epilogue epilogue =
      adds ? Epilogue{rounds ? add_rounded : accumulate, rounds} : Epilogue{overwrite, rounds};
  for (size_t i = 0; i < of.size(); ++i) {
    const auto [a, b] = sides(product, of[i]);
    const Operand *const left = quantized(a, gemm.a, RandomUse::operand_a), *const right = quantized(
                                                                                b, gemm.b,
                                                                                RandomUse::operand_b);
    products.push_back({left, right, &unit, recipe_.accumulation, to[i], nullptr, epilogue});
  }
  engine_->quantize(tasks);
  engine_->multiply(products);
}

} // namespace nvfp4::models
