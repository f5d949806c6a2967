// SPDX-License-Identifier: Apache-2.0
// Tasks of a product: operands, hot channels, patches, the products themselves.
#include "nvfp4/reference_models/linear/patched_product.hpp"

#include "nvfp4/reference_models/linear/linear.hpp"
#include "nvfp4/reference_models/linear/product_recipe.hpp"

#include <algorithm>

namespace nvfp4::models {
namespace {

using Kernel = HcpRecipe::Kernel;

/// Segments of operand a behind (or beside) its main columns; operand b has the other one at the same place.
std::vector<Segment> segments_of_a(HcpRecipe::Side side) {
  if (side == HcpRecipe::Side::activation) return {Segment::residual};
  if (side == HcpRecipe::Side::weight) return {Segment::value};
  return {Segment::residual, Segment::value};
}

Segment partner(Segment s) { return s == Segment::value ? Segment::residual : Segment::value; }

} // namespace

void Stages::clear() {
  quantize.clear();
  patch.clear();
  for (std::vector<GemmTask> &m : multiply) m.clear();
}

void Stages::multiply_all(OperandEngine &engine) {
  for (const std::vector<GemmTask> &m : multiply)
    if (!m.empty()) engine.multiply(m);
}

PatchedProduct::PatchedProduct(Backend<float> &backend, OperandEngine &engine, const LinearRecipe &recipe,
                               Product product, uint64_t layer_id)
    : backend_(&backend), engine_(&engine), linear_(recipe), gemm_(gemm_of(recipe, product)),
      hcp_(recipe.hcp),
      hcp_on_(hcp_.enabled && (product == Product::fprop || (product == Product::dgrad && hcp_.dgrad))),
      product_(product), layer_(layer_id) {
  if (gemm_.a.format == OperandFormat::f32) return;
  unit_ = &find_unit(gemm_.unit);
  if (hcp_on_ && hcp_.residual == HcpRecipe::Residual::bf16) bf16_unit_ = &find_unit(linear_.bf16_unit);
  if (product != Product::wgrad) weight_ = engine.make_operand(); // wgrad's operands change with each call
  if (hcp_on_)
    for (std::unique_ptr<Operand> &p : patch_b_) p = engine.make_operand();
}

RandomKey PatchedProduct::key(RandomUse use, int64_t micro_batch) const {
  // what is decoded from dgrad's copy of dy meets that copy's words
  const bool of_dgrad = product_ == Product::wgrad && use == RandomUse::operand_a && gemm_.a.decoded;
  RandomKey key = random_key(seed_, layer_, of_dgrad ? Product::dgrad : product_, use, step_, micro_batch);
  key.seed += part_ << 40;
  return key;
}

SignWords PatchedProduct::signs(const OperandRecipe &operand) const {
  return rotation_signs(operand.hadamard_signs, seed_, product_, step_);
}

bool PatchedProduct::holds(const OperandRecipe &operand) const {
  return linear_.amax_period > 1 && has_global_scale(operand);
}

bool PatchedProduct::amax_is_due(size_t side) const {
  return training_ &&
         (!held_[side] || (refreshes_amaxes_ && micro_batch_ == 0 && step_ % linear_.amax_period == 0));
}

void PatchedProduct::hold_amaxes() {
  for (const auto &[side, operand, q] : {std::tuple(size_t{0}, &gemm_.a, a_), {size_t{1}, &gemm_.b, b_}})
    if (holds(*operand) && amax_is_due(side)) held_[side] = engine_->global_amax(*q); // of a shared copy too
}

void PatchedProduct::take_state(const PatchedProduct &before) {
  if (gemm_ == before.gemm_) set_held_amaxes(before.held_);
  if (hcp_on_ && before.hcp_on_ && hcp_ == before.hcp_) set_hot_channels(before.hot_);
}

void PatchedProduct::set_held_amaxes(const HeldAmaxes &held) {
  if (holds(gemm_.a)) held_[0] = held[0];
  if (holds(gemm_.b)) held_[1] = held[1];
}

void PatchedProduct::begin(const StepContext &step, const Source &a, const Source &b) {
  seed_ = step.seed;
  part_ = step.part;
  step_ = step.step;
  micro_batch_ = step.micro_batch;
  training_ = step.training;
  refreshes_amaxes_ = step.refreshes_amaxes;
  from_a_ = a;
  from_b_ = b;
}

QuantizeTask PatchedProduct::task_of_a() const {
  QuantizeTask task{nullptr,      &gemm_.a,     linear_.source,
                    unit_,        from_a_.data, from_a_.rows,
                    from_a_.cols, from_a_.axis, key(RandomUse::operand_a, micro_batch_),
                    true};
  task.signs = signs(gemm_.a);
  task.part = gemm_.a.mean == MeanSplit::quantized ? OperandPart::residual : OperandPart::whole;
  if (holds(gemm_.a) && !amax_is_due(0)) task.global_amax = held_[0];
  return task;
}

QuantizeTask PatchedProduct::task_of_b(bool of_data) const {
  QuantizeTask task{nullptr,      &gemm_.b,     linear_.source,
                    unit_,        from_b_.data, from_b_.rows,
                    from_b_.cols, from_b_.axis, key(RandomUse::operand_b, of_data ? micro_batch_ : 0),
                    of_data};
  task.signs = signs(gemm_.b);
  task.part = gemm_.b.mean == MeanSplit::quantized ? OperandPart::residual : OperandPart::whole;
  if (holds(gemm_.b) && !amax_is_due(1)) task.global_amax = held_[1];
  return task;
}

void PatchedProduct::quantize_a(Stages &stages, Operand &into, bool fill) {
  a_ = &into;
  if (!fill) return;
  stages.quantize.push_back(task_of_a());
  stages.quantize.back().out = a_;
}

void PatchedProduct::quantize_b(Stages &stages) {
  const bool fill = !weight_valid_;
  quantize_into_b(stages, *weight_, fill, false);
  weight_valid_ = true;
}

void PatchedProduct::quantize_shared_b(Stages &stages, Operand &into, bool fill) {
  quantize_into_b(stages, into, fill, true);
}

void PatchedProduct::quantize_into_b(Stages &stages, Operand &into, bool fill, bool of_data) {
  b_ = &into;
  if (!fill) return;
  stages.quantize.push_back(task_of_b(of_data));
  stages.quantize.back().out = b_;
}

void PatchedProduct::quantize_mean_of_a(Stages &stages, const PatchedProduct &owner, size_t &temporaries) {
  if (gemm_.a.mean != MeanSplit::quantized) return;
  mean_a_ = &owner == this ? &engine_->temporary(temporaries++) : owner.mean_a_;
  if (&owner != this) return;
  stages.quantize.push_back(task_of_a());
  stages.quantize.back().out = mean_a_;
  stages.quantize.back().part = OperandPart::mean;
}

void PatchedProduct::quantize_mean_of_b(Stages &stages, const PatchedProduct &owner, size_t &temporaries) {
  if (gemm_.b.mean != MeanSplit::quantized) return;
  mean_b_ = &owner == this ? &engine_->temporary(temporaries++) : owner.mean_b_;
  if (&owner != this) return;
  stages.quantize.push_back(task_of_b(true));
  stages.quantize.back().out = mean_b_;
  stages.quantize.back().part = OperandPart::mean;
}

void PatchedProduct::weights_changed() { weight_valid_ = patch_b_valid_ = false; }

std::vector<float> PatchedProduct::scores() const {
  if (!hcp_on_) throw Error("scores of a product without the Hot-Channel Patch");
  const int64_t n = contraction;
  std::vector<float> scores(static_cast<size_t>(n), 0.0f);
  if (hcp_.choice == HcpRecipe::Choice::random) {
    const RandomKey words = key(RandomUse::channel_choice, 0);
    for (int64_t j = 0; j < n; ++j) scores[size_t(j)] = float(words.bits32(uint64_t(j)) >> 8);
  } else {
    Array<float> device(*backend_, n);
    const auto read = [&] { return to_host(*backend_, device.data(), n); };
    if (hcp_.choice == HcpRecipe::Choice::magnitude) {
      engine_->column_maxima(linear_.source, from_a_.data, from_a_.rows, from_a_.cols, from_a_.axis,
                             device.data());
      scores = read();
    } else {
      engine_->column_errors(*a_, linear_.source, from_a_.data, from_a_.rows, from_a_.cols, from_a_.axis,
                             device.data());
      scores = read();
      engine_->column_errors(*b_, linear_.source, from_b_.data, from_b_.rows, from_b_.cols, from_b_.axis,
                             device.data());
      const std::vector<float> of_weight = read();
      for (size_t j = 0; j < scores.size(); ++j) scores[j] += of_weight[j];
    }
  }
  return scores;
}

std::vector<int32_t> PatchedProduct::select(std::span<const float> scores) const {
  const int64_t k = hcp_.channels(contraction);
  return hcp_.choice == HcpRecipe::Choice::blocks ? largest_blocks(scores, k) : largest_channels(scores, k);
}

/// Puts the channels where the engine reads them, unless they are there: a GPU would finish all it has first.
void PatchedProduct::adopt() {
  patch_b_valid_ = false;
  const auto n = int64_t(hot_.indices.size());
  if (n == 0 || on_device_ == hot_.indices) return;
  if (device_channels_.size() < n) device_channels_.reset(*backend_, n);
  on_device_.clear();
  backend_->upload(device_channels_.data(), hot_.indices.data(), size_t(n) * sizeof(int32_t));
  on_device_ = hot_.indices;
}

void PatchedProduct::set_hot_channels(HotChannels state) {
  const auto k = int64_t(state.indices.size());
  const bool known = std::all_of(state.indices.begin(), state.indices.end(),
                                 [this](int32_t j) { return j >= 0 && j < contraction; });
  if (!known || (k > 0 && (!hcp_on_ || k > hcp_.channels(contraction))) ||
      (!state.scores.empty() && int64_t(state.scores.size()) != contraction))
    throw Error("hot channels do not fit the layer: expected at most " +
                std::to_string(hcp_on_ ? hcp_.channels(contraction) : 0) + " of " +
                std::to_string(contraction) + " channels, got " + std::to_string(k));
  hot_ = std::move(state);
  adopt();
}

PatchTask PatchedProduct::patch_task(Operand &out, const Operand &main, const Source &from,
                                     std::vector<Segment> segments) const {
  const bool bf16 = hcp_.residual == HcpRecipe::Residual::bf16;
  return {.out = &out,
          .main = &main,
          .source = linear_.source,
          .unit = bf16 ? bf16_unit_ : unit_,
          .x = from.data,
          .axis = from.axis,
          .channels = device_channels_.data(),
          .count = int64_t(hot_.indices.size()),
          .segments = std::move(segments),
          .append = hcp_.kernel == Kernel::single,
          .bf16 = bf16,
          .whole_blocks = hcp_.reblock == HcpRecipe::Reblock::whole_blocks};
}

void PatchedProduct::choose_and_patch(Stages &stages, size_t &temporaries) {
  if (hcp_on_ && training_ && micro_batch_ == 0 && choice_is_due(hcp_, step_)) {
    std::vector<float> of_channels = scores();
    hot_ = {select(of_channels), std::move(of_channels), step_};
    adopt();
  }
  if (!patching()) return;
  const std::vector<Segment> of_a = segments_of_a(hcp_.side);
  std::vector<Segment> of_b;
  for (const Segment s : of_a) of_b.push_back(partner(s));
  const size_t parts = hcp_.kernel == Kernel::single ? 1 : of_a.size();
  for (size_t i = 0; i < parts; ++i) {
    const auto part = [&](const std::vector<Segment> &all) {
      return parts == 1 ? all : std::vector<Segment>{all[i]};
    };
    patch_a_[i] = &engine_->temporary(temporaries++);
    stages.patch.push_back(patch_task(*patch_a_[i], *a_, from_a_, part(of_a)));
    if (!patch_b_valid_) stages.patch.push_back(patch_task(*patch_b_[i], *b_, from_b_, part(of_b)));
  }
  patch_b_valid_ = true;
}

/// fprop and dgrad: the mean's product, then the residual's. wgrad: D_R^T X_R, M_D^T X_R, D_R^T M_X, M_D^T M_X. Each is added to
/// the sum of those before it by fma(alpha, acc, sum); bias and rounding to the output follow the last.
void PatchedProduct::multiply_means(Stages &stages, float *out, const float *bias, Epilogue::Into into) const {
  std::vector<std::array<const Operand *, 2>> pairs;
  if (product_ == Product::wgrad) {
    for (const Operand *const b : {static_cast<const Operand *>(b_), static_cast<const Operand *>(mean_b_)})
      for (const Operand *const a : {static_cast<const Operand *>(a_), static_cast<const Operand *>(mean_a_)})
        if (a != nullptr && b != nullptr) pairs.push_back({a, b});
  } else {
    pairs = {{mean_a_, b_}, {a_, b_}};
  }
  for (size_t i = 0; i < pairs.size(); ++i) {
    const bool last = i + 1 == pairs.size();
    const Epilogue how{i == 0 ? into : Epilogue::Into::accumulate, last && gemm_.output == FormatId::bf16};
    stages.multiply[i].push_back({pairs[i][0], pairs[i][1], unit_, linear_.accumulation, out, last ? bias : nullptr, how});
  }
}

void PatchedProduct::multiply(Stages &stages, float *out, const float *bias, Epilogue::Into into) const {
  if (mean_a_ != nullptr || mean_b_ != nullptr) return multiply_means(stages, out, bias, into);
  const bool bf16 = gemm_.output == FormatId::bf16;
  const auto task = [&](const Operand *a, const Operand *b, const Unit *unit, Epilogue::Into how, bool last) {
    return GemmTask{a, b, unit, linear_.accumulation, out, last ? bias : nullptr, {how, last && bf16}};
  };
  if (!patching()) {
    stages.multiply[0].push_back(task(a_, b_, unit_, into, true));
    return;
  }
  if (hcp_.kernel == Kernel::single) {
    stages.multiply[0].push_back(task(patch_a_[0], patch_b_[0].get(), unit_, into, true));
    return;
  }
  const size_t parts = segments_of_a(hcp_.side).size();
  const Unit *unit = hcp_.residual == HcpRecipe::Residual::bf16 ? bf16_unit_ : unit_;
  stages.multiply[0].push_back(task(a_, b_, unit_, into, false));
  for (size_t i = 0; i < parts; ++i)
    stages.multiply[i + 1].push_back(
        task(patch_a_[i], patch_b_[i].get(), unit, Epilogue::Into::accumulate, i + 1 == parts));
}

MemberProducts::MemberProducts(Backend<float> &backend, OperandEngine &engine, const LinearRecipe &recipe,
                               const WeightShape &shape)
    : fprop(backend, engine, recipe, Product::fprop, shape.id),
      dgrad(backend, engine, recipe, Product::dgrad, shape.id),
      wgrad(backend, engine, recipe, Product::wgrad, shape.id) {
  fprop.contraction = shape.in;
  dgrad.contraction = shape.out;
}

void MemberProducts::weights_changed() {
  fprop.weights_changed();
  dgrad.weights_changed();
}

void MemberProducts::take_state(const MemberProducts &before) {
  for (const auto &[mine, theirs] : {std::pair(&fprop, &before.fprop), {&dgrad, &before.dgrad}, {&wgrad, &before.wgrad}})
    mine->take_state(*theirs);
}

} // namespace nvfp4::models
