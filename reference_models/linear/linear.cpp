// SPDX-License-Identifier: Apache-2.0
// The order of work in a group of linear layers: quantize, choose and patch hot channels, multiply, add up.
#include "nvfp4/reference_models/linear/linear.hpp"

#include "nvfp4/emulator/quantize/hadamard.hpp"
#include "nvfp4/reference_models/linear/data_copies.hpp"
#include "nvfp4/reference_models/linear/patched_product.hpp"
#include "nvfp4/reference_models/linear/product_recipe.hpp"

#include <algorithm>
#include <utility>

namespace nvfp4::models {
namespace {

/// Views for the f32 products.
template <class T> View<const T> matrix(const T *data, int64_t cols) { return {data, cols, 1}; }

bool is_f32(const GemmRecipe &g) { return g.a.format == OperandFormat::f32; }

} // namespace

template <class T> struct LinearGroup<T>::Impl {
  Backend<T> &backend;
  OperandEngine *engine;
  std::vector<LinearWeight<T>> members;
  std::vector<LinearRecipe> recipes;
  std::vector<MemberProducts> products; ///< empty when all is f32
  std::vector<Array<float>> terms;      ///< dgrads of the members but the first
  std::optional<Recipe> changing; ///< where its rules depend on the step
  Stages stages;
  FiniteWatch<T> *watch = nullptr;
  std::function<void(std::span<float>)> reduce;
  std::function<void(const LinearWeight<T> &, const T *)> show;
  std::vector<std::pair<const T *, float>> amaxes; ///< by what they are of
  DataCopies *copies = nullptr; // of the caller's, and x's number there; 0: x is not shared
  uint64_t contents = 0;

  Impl(Backend<T> &b, OperandEngine *e, std::vector<LinearWeight<T>> m, const Recipe &recipe)
      : backend(b), engine(e), members(std::move(m)), terms(members.size()) {
    if (members.empty()) throw Error("a group of linear layers needs a member");
    for (const LinearWeight<T> &w : members)
      if (w.in != members[0].in)
        throw Error("linear layers of a group must share their input; " + w.role + " does not");
    // a recipe with a rule from a part of a run says so at the first step behind 0
    if (recipe.changes()) changing = recipe;
    for (const int64_t step : recipe.phases())
      for (const LinearWeight<T> &w : members) check(recipe.name, w, recipe.resolve(w.role, w.layer, w.layers, step));
    take(recipe, 0);
  }

  void check(const std::string &recipe, const LinearWeight<T> &w, const LinearRecipe &linear) const {
    if (linear.weights != WeightLevels::none)
      throw Error("recipe '" + recipe + "' changes the weights of " + w.role + ", which nvfp4 cnn alone does");
    if (linear.all_f32()) return;
    if (std::is_same_v<T, double>)
      throw Error("recipe '" + recipe + "' cannot run in double precision; only fp32 can");
    if (engine == nullptr) throw Error("recipe '" + recipe + "' needs an operand engine for " + w.role);
    const auto check_rotation = [&](const GemmRecipe &g, const char *product, int64_t contraction) {
      if (g.a.hadamard && g.a.hadamard_size == kHadamardSize && contraction % kHadamardSize != 0)
        throw Error("recipe '" + recipe + "' rotates groups of 16 in " + product + " of " + w.role + ", which contracts " +
                    std::to_string(contraction) + " elements; expected a multiple of 16, or hadamard false there");
    };
    if (changing) { // else the first step says so
      check_rotation(linear.fprop, "fprop", w.in);
      check_rotation(linear.dgrad, "dgrad", w.out);
    }
    engine->check_supported(linear);
  }

  /// The recipes of a step, and the products where a recipe is another than before.
  void take(const Recipe &recipe, int64_t step) {
    std::vector<LinearRecipe> now;
    for (const LinearWeight<T> &w : members) now.push_back(recipe.resolve(w.role, w.layer, w.layers, step));
    if (now == recipes) return;
    const std::vector<MemberProducts> before = std::exchange(products, {});
    recipes = std::move(now);
    if constexpr (std::is_same_v<T, float>) {
      if (std::ranges::all_of(recipes, &LinearRecipe::all_f32)) return;
      for (size_t i = 0; i < members.size(); ++i) {
        products.emplace_back(backend, *engine, recipes[i], WeightShape{members[i].in, members[i].out, members[i].id});
        if (!before.empty()) products[i].take_state(before[i]);
      }
    }
  }

  void at_step(int64_t step) {
    if (changing) take(*changing, step);
  }

  void forward(const StepContext &step, const T *x, int64_t rows, std::span<T *const> y) {
    if constexpr (std::is_same_v<T, float>)
      if (!products.empty()) engine_forward(step, x, rows, y);
    for (size_t i = 0; i < members.size(); ++i) {
      const LinearWeight<T> &w = members[i];
      if (!is_f32(recipes[i].fprop)) continue;
      backend.run(Matmul<T>{
          rows, w.out, w.in, matrix(x, w.in), matrix(w.weight, w.in).transposed(), {y[i], w.out, 1}, false});
      if (w.bias != nullptr) backend.run(AddBias<T>{rows, w.out, w.bias, y[i]});
    }
    if (watch == nullptr) return;
    watch->add(x, rows * members[0].in);
    for (size_t i = 0; i < members.size(); ++i) watch->add(y[i], rows * members[i].out);
    watch->flush();
  }

  void backward(const StepContext &step, const T *x, int64_t rows, std::span<const T *const> dy, T *dx) {
    if constexpr (std::is_same_v<T, float>)
      if (!products.empty()) engine_backward(step, x, rows, dy, dx);
    for (size_t i = 0; i < members.size(); ++i) {
      const LinearWeight<T> &w = members[i];
      const bool f32 = is_f32(recipes[i].dgrad);
      if (dx != nullptr && f32)
        backend.run(
            Matmul<T>{rows, w.in, w.out, matrix(dy[i], w.out), matrix(w.weight, w.in), {dx, w.in, 1}, i > 0});
      if (dx != nullptr && show) show_term(i, f32 || i == 0, dx);
      if (dx != nullptr && !f32 && i > 0) add_term(rows * w.in, i, dx);
      if (w.weight_grad != nullptr && is_f32(recipes[i].wgrad))
        backend.run(Matmul<T>{w.out,
                              w.in,
                              rows,
                              matrix(dy[i], w.out).transposed(),
                              matrix(x, w.in),
                              {w.weight_grad, w.in, 1},
                              true});
      if (w.bias_grad != nullptr) backend.run(AccumulateColumns<T>{rows, w.out, dy[i], w.bias_grad});
      if (watch != nullptr) watch->add(dy[i], rows * w.out);
    }
    if (watch != nullptr) watch->flush();
  }

  void add_term(int64_t n, size_t i, T *dx) {
    if constexpr (std::is_same_v<T, float>) backend.run(Add<T>{n, dx, terms[i].data(), dx});
  }

  void show_term(size_t i, bool in_dx, const T *dx) {
    if constexpr (std::is_same_v<T, float>)
      show(members[i], in_dx ? dx : terms[i].data());
    else
      show(members[i], dx); // all is f32
  }

  /// The first member whose copy of x is made the same way as member i's.
  size_t owner(size_t i, GemmRecipe LinearRecipe::*gemm, OperandRecipe GemmRecipe::*operand) const {
    const GemmRecipe &mine = recipes[i].*gemm;
    for (size_t j = 0; j < i; ++j) {
      if (gemm == &LinearRecipe::wgrad && members[j].weight_grad == nullptr) continue; // makes no copy
      if ((recipes[j].*gemm).*operand == mine.*operand && (recipes[j].*gemm).unit == mine.unit) return j;
    }
    return i;
  }

  /// Where a copy of x goes; fill: it is not there.
  Operand &copy_of_x(const QuantizeTask &task, size_t &used, bool &fill) {
    fill = true;
    return contents == 0 || task.part != OperandPart::whole ? engine->temporary(used++) : copies->find(contents, task, fill);
  }

  bool on_engine_wgrad(size_t i) const {
    return members[i].weight_grad != nullptr && !is_f32(recipes[i].wgrad);
  }

  /// Quantizes the tasks, and those of data again whose global amax `reduce` changes.
  void quantize(std::vector<QuantizeTask> &tasks) {
    if constexpr (std::is_same_v<T, float>)
      for (QuantizeTask &t : tasks)
        for (const auto &[data, amax] : amaxes)
          if (t.x == data && has_global_scale(*t.recipe)) t.global_amax = amax;
    engine->quantize(tasks);
    if (!reduce || recipes[0].amax != AmaxScope::all_ranks) return;
    std::vector<QuantizeTask> of_data;
    std::vector<float> own;
    for (const QuantizeTask &t : tasks) {
      if (!t.of_data || !has_global_scale(*t.recipe)) continue;
      own.push_back(engine->global_amax(*t.out));
      of_data.push_back(t);
    }
    if (of_data.empty()) return;
    std::vector<float> all = own;
    reduce(all);
    std::vector<QuantizeTask> again;
    for (size_t i = 0; i < own.size(); ++i) {
      if (bit_cast<uint32_t>(all[i]) == bit_cast<uint32_t>(own[i])) continue;
      of_data[i].global_amax = all[i];
      again.push_back(of_data[i]);
    }
    engine->quantize(again);
  }

  std::vector<float> scores(size_t i, Product product, const StepContext &step, const T *data, int64_t rows) {
    if constexpr (std::is_same_v<T, float>) {
      const bool fprop = product == Product::fprop;
      if (!products.empty() && product != Product::wgrad) {
        const LinearWeight<T> &w = members[i];
        PatchedProduct &p = fprop ? products[i].fprop : products[i].dgrad;
        stages.clear();
        p.begin(step, {data, rows, fprop ? w.in : w.out, Axis::row},
                {w.weight, w.out, w.in, fprop ? Axis::row : Axis::col});
        p.quantize_a(stages, engine->temporary(0), true);
        p.quantize_b(stages);
        quantize(stages.quantize);
        return p.scores();
      }
    }
    throw Error("scores of a product without the Hot-Channel Patch");
  }

  void engine_forward(const StepContext &step, const T *x, int64_t rows, std::span<T *const> y) {
    if constexpr (std::is_same_v<T, float>) {
      stages.clear();
      size_t used = 0;
      for (size_t i = 0; i < members.size(); ++i) {
        if (is_f32(recipes[i].fprop)) continue;
        PatchedProduct &p = products[i].fprop;
        const LinearWeight<T> &w = members[i];
        const size_t own = owner(i, &LinearRecipe::fprop, &GemmRecipe::a);
        p.begin(step, {x, rows, w.in, Axis::row}, {w.weight, w.out, w.in, Axis::row});
        bool fill = false;
        Operand &of_x = own == i ? copy_of_x(p.task_of_a(), used, fill) : products[own].fprop.a();
        p.quantize_a(stages, of_x, fill);
        p.quantize_mean_of_a(stages, products[own].fprop, used);
        p.quantize_b(stages);
      }
      quantize(stages.quantize);
      for (size_t i = 0; i < members.size(); ++i)
        if (!is_f32(recipes[i].fprop)) products[i].fprop.hold_amaxes();
      for (size_t i = 0; i < members.size(); ++i)
        if (!is_f32(recipes[i].fprop)) products[i].fprop.choose_and_patch(stages, used);
      engine->patch(stages.patch);
      for (size_t i = 0; i < members.size(); ++i)
        if (!is_f32(recipes[i].fprop))
          products[i].fprop.multiply(stages, y[i], members[i].bias, Epilogue::Into::overwrite);
      stages.multiply_all(*engine);
    }
  }

  void engine_backward(const StepContext &step, const T *x, int64_t rows, std::span<const T *const> dy,
                       T *dx) {
    if constexpr (std::is_same_v<T, float>) {
      stages.clear();
      size_t used = 0;
      for (size_t i = 0; i < members.size(); ++i) {
        const LinearWeight<T> &w = members[i];
        if (dx != nullptr && !is_f32(recipes[i].dgrad)) {
          PatchedProduct &p = products[i].dgrad;
          p.begin(step, {dy[i], rows, w.out, Axis::row}, {w.weight, w.out, w.in, Axis::col});
          p.quantize_a(stages, engine->temporary(used++), true);
          p.quantize_mean_of_a(stages, p, used);
          p.quantize_b(stages);
        }
        if (!on_engine_wgrad(i)) continue;
        const size_t own = owner(i, &LinearRecipe::wgrad, &GemmRecipe::b);
        PatchedProduct &p = products[i].wgrad;
        p.begin(step, {dy[i], rows, w.out, Axis::col}, {x, rows, w.in, Axis::col});
        p.quantize_a(stages, engine->temporary(used++), true);
        p.quantize_mean_of_a(stages, p, used);
        bool fill = false;
        Operand &of_x = own == i ? copy_of_x(p.task_of_shared_b(), used, fill) : products[own].wgrad.b();
        p.quantize_shared_b(stages, of_x, fill);
        p.quantize_mean_of_b(stages, products[own].wgrad, used);
      }
      quantize(stages.quantize);
      for (size_t i = 0; i < members.size(); ++i) {
        if (dx != nullptr && !is_f32(recipes[i].dgrad)) products[i].dgrad.hold_amaxes();
        if (on_engine_wgrad(i)) products[i].wgrad.hold_amaxes();
      }
      for (size_t i = 0; i < members.size(); ++i)
        if (dx != nullptr && !is_f32(recipes[i].dgrad)) products[i].dgrad.choose_and_patch(stages, used);
      engine->patch(stages.patch);
      for (size_t i = 0; i < members.size(); ++i) {
        const int64_t n = rows * members[i].in;
        if (dx != nullptr && !is_f32(recipes[i].dgrad)) {
          if (i > 0 && terms[i].size() < n) terms[i].reset(backend, n);
          products[i].dgrad.multiply(stages, i > 0 ? terms[i].data() : dx, nullptr,
                                     Epilogue::Into::overwrite);
        }
        if (on_engine_wgrad(i)) {
          const bool rounds = recipes[i].wgrad.output == FormatId::bf16;
          products[i].wgrad.multiply(stages, members[i].weight_grad, nullptr,
                                     rounds ? Epilogue::Into::add_rounded : Epilogue::Into::accumulate);
        }
      }
      stages.multiply_all(*engine);
    }
  }
};

template <class T>
LinearGroup<T>::LinearGroup(Backend<T> &backend, OperandEngine *engine, std::vector<LinearWeight<T>> members,
                            const Recipe &recipe)
    : impl_(std::make_unique<Impl>(backend, engine, std::move(members), recipe)) {}
template <class T> LinearGroup<T>::~LinearGroup() = default;
template <class T> LinearGroup<T>::LinearGroup(LinearGroup &&) noexcept = default;

template <class T>
void LinearGroup<T>::forward(const StepContext &step, const T *x, int64_t rows, std::span<T *const> y) {
  impl_->forward(step, x, rows, y);
}

template <class T>
void LinearGroup<T>::backward(const StepContext &step, const T *x, int64_t rows, std::span<const T *const> dy,
                              T *dx) {
  impl_->backward(step, x, rows, dy, dx);
}

template <class T> void LinearGroup<T>::weights_changed() {
  for (MemberProducts &p : impl_->products) p.weights_changed();
}

template <class T> void LinearGroup<T>::set_memory(size_t member, const LinearWeight<T> &memory) {
  LinearWeight<T> &w = impl_->members.at(member);
  w.weight = memory.weight;
  w.bias = memory.bias;
  w.weight_grad = memory.weight_grad;
  w.bias_grad = memory.bias_grad;
  weights_changed();
}

template <class T>
std::vector<float> LinearGroup<T>::scores(size_t member, Product product, const StepContext &step,
                                          const T *data, int64_t rows) {
  return impl_->scores(member, product, step, data, rows);
}

template <class T>
std::vector<int32_t> LinearGroup<T>::select(size_t member, Product product,
                                            std::span<const float> scores) const {
  if (impl_->products.empty() || product == Product::wgrad) return {};
  const MemberProducts &p = impl_->products.at(member);
  return (product == Product::fprop ? p.fprop : p.dgrad).select(scores);
}

template <class T> void LinearGroup<T>::reduce_amaxes(std::function<void(std::span<float>)> reduce) {
  impl_->reduce = std::move(reduce);
}

template <class T> void LinearGroup<T>::set_amax(const T *data, std::optional<float> amax) {
  std::erase_if(impl_->amaxes, [data](const auto &known) { return known.first == data; });
  if (amax) impl_->amaxes.emplace_back(data, *amax);
}

template <class T> void LinearGroup<T>::share_data(DataCopies &copies, uint64_t contents) {
  impl_->copies = &copies;
  impl_->contents = contents;
}

template <class T>
void LinearGroup<T>::show_input_grads(std::function<void(const LinearWeight<T> &, const T *)> show) {
  impl_->show = std::move(show);
}

template <class T> void LinearGroup<T>::at_step(int64_t step) { impl_->at_step(step); }

template <class T> auto LinearGroup<T>::held_amaxes(size_t member) const -> HeldAmaxes {
  if (impl_->products.empty()) return {};
  const MemberProducts &p = impl_->products.at(member);
  return {p.fprop.held_amaxes(), p.dgrad.held_amaxes(), p.wgrad.held_amaxes()};
}

template <class T> void LinearGroup<T>::set_held_amaxes(size_t member, const HeldAmaxes &held) {
  if (impl_->products.empty()) return;
  MemberProducts &p = impl_->products.at(member);
  for (const auto &[product, of] : {std::pair(&p.fprop, &held[0]), {&p.dgrad, &held[1]}, {&p.wgrad, &held[2]}})
    product->set_held_amaxes(*of);
}

template <class T> void LinearGroup<T>::watch(FiniteWatch<T> *watch) { impl_->watch = watch; }

template <class T> std::span<const LinearWeight<T>> LinearGroup<T>::members() const { return impl_->members; }
template <class T> const LinearRecipe &LinearGroup<T>::recipe(size_t member) const {
  return impl_->recipes.at(member);
}

template <class T> const HotChannels &LinearGroup<T>::hot_channels(size_t member, Product product) const {
  static const HotChannels none;
  if (impl_->products.empty() || product == Product::wgrad) return none;
  const MemberProducts &p = impl_->products.at(member);
  return (product == Product::fprop ? p.fprop : p.dgrad).hot_channels();
}

template <class T> void LinearGroup<T>::set_hot_channels(size_t member, HotChannels state, Product product) {
  if (impl_->products.empty() || product == Product::wgrad) {
    if (!state.indices.empty()) throw Error("hot channels for a layer without the Hot-Channel Patch");
    return;
  }
  MemberProducts &p = impl_->products.at(member);
  (product == Product::fprop ? p.fprop : p.dgrad).set_hot_channels(std::move(state));
}

template class LinearGroup<float>;
template class LinearGroup<double>;

} // namespace nvfp4::models
