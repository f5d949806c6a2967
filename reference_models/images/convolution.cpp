// SPDX-License-Identifier: Apache-2.0
// Parts of patches, one after the other, through groups of linear layers.
#include "nvfp4/reference_models/images/convolution.hpp"

#include "nvfp4/emulator/quantize/convention.hpp"
#include "nvfp4/reference_models/linear/product_recipe.hpp"

#include <algorithm>
#include <cmath>

namespace nvfp4::models {
namespace {

/// The amax of two parts of a tensor, of those of the parts: NaN as the convention has it for the whole.
float joined(AmaxNan rule, float a, float b) {
  if (rule == AmaxNan::propagate && (std::isnan(a) || std::isnan(b))) return std::isnan(a) ? a : b;
  return std::isnan(a) ? b : std::isnan(b) ? a : std::max(a, b);
}

} // namespace

Taps ConvolutionShape::taps_of_input() const {
  return {.height = height, .width = width, .rows = out_height(), .cols = out_width(), .kernel_rows = kernel,
          .kernel_cols = kernel, .mul = stride, .sign = 1, .off = -padding, .div = 1};
}

Taps ConvolutionShape::taps_of_output() const {
  return {.height = out_height(), .width = out_width(), .rows = height, .cols = width, .kernel_rows = kernel,
          .kernel_cols = kernel, .mul = 1, .sign = -1, .off = padding, .div = stride};
}

void ConvolutionShape::check() const {
  const auto covered = [this](int64_t length) {
    return length + 2 * padding >= kernel && ((length + 2 * padding - kernel) / stride) * stride + kernel - padding >= length;
  };
  if (height < 1 || width < 1 || channels < 1 || outputs < 1 || kernel < 1 || stride < 1 || padding < 0 ||
      padding >= kernel || stride > kernel || !covered(height) || !covered(width))
    throw Error("expected a convolution whose patches cover its images, got " + std::to_string(height) + " x " +
                std::to_string(width) + " x " + std::to_string(channels) + " to " + std::to_string(outputs) + ", kernel " +
                std::to_string(kernel) + ", stride " + std::to_string(stride) + ", padding " + std::to_string(padding));
}

template <class T> struct Convolution<T>::Impl {
  /// A layer of some columns of patches: their weight gradients and scores.
  struct Columns {
    Array<T> weight, gradient; // (outputs, width)
    LinearGroup<T> group;
  };

  Backend<T> &backend;
  OperandEngine *engine;
  ConvolutionShape shape;
  LinearWeight<T> member;
  LeveledWeight<T> weight;
  Array<T> turned; // (K', channels), made when backward first needs it
  LinearGroup<T> fprop, dgrad;
  std::map<int64_t, Columns> columns; ///< by width
  Array<T> part;                      ///< the patches at hand
  std::unique_ptr<Operand> probe;     ///< of which an amax is asked
  bool turned_valid = false;

  Impl(Backend<T> &b, OperandEngine *e, const ConvolutionShape &s, LinearWeight<T> w, const Recipe &recipe)
      : backend(b), engine(e), shape(checked(s)), member(sized(w, s)),
        weight(b, w.weight, s.outputs * s.patch(), recipe.resolve(w.role, w.layer, w.layers).weights),
        turned(b, s.turned_patch() * s.channels), fprop(b, e, {forward_member()}, without_levels(recipe)),
        dgrad(b, e, {turned_member()}, without_levels(recipe)) {
    const LinearRecipe &r = fprop.recipe(0);
    if (r.hcp.enabled && r.hcp.dgrad)
      throw Error("recipe '" + recipe.name + "' patches dgrad, which a convolution has no form of: drop hcp.dgrad");
    if (r.wgrad.b.rounding != ElementRounding::nearest)
      throw Error("recipe '" + recipe.name + "' rounds x of wgrad stochastically, which a convolution has no random words "
                  "for: use rne there");
    if (engine != nullptr) probe = engine->make_operand();
    for (int64_t first = 0; first < s.patch(); first += kPartColumns) {
      const int64_t width = std::min(kPartColumns, s.patch() - first);
      if (columns.contains(width)) continue;
      Array<T> weights(b, s.outputs * width), gradients(b, s.outputs * width);
      LinearWeight<T> m = member;
      m.in = width, m.weight = weights.data(), m.weight_grad = gradients.data(), m.bias = nullptr, m.bias_grad = nullptr;
      columns.emplace(width, Columns{weights, gradients, LinearGroup<T>(b, e, {m}, without_levels(recipe))});
    }
  }

  static const ConvolutionShape &checked(const ConvolutionShape &s) {
    s.check();
    return s;
  }
  static LinearWeight<T> sized(LinearWeight<T> w, const ConvolutionShape &s) {
    w.in = s.patch(), w.out = s.outputs;
    return w;
  }
  LinearWeight<T> forward_member() const {
    LinearWeight<T> m = member;
    m.weight = weight.data(), m.weight_grad = nullptr, m.bias_grad = nullptr;
    return m;
  }
  LinearWeight<T> turned_member() const {
    LinearWeight<T> m = member;
    m.in = shape.channels, m.out = shape.turned_patch(), m.weight = turned.data();
    m.bias = nullptr, m.weight_grad = nullptr, m.bias_grad = nullptr;
    return m;
  }

  T *room(int64_t n) {
    if (part.size() < n) part.reset(backend, n);
    return part.data();
  }
  void gather(const Taps &taps, int64_t channels, int64_t first_row, int64_t rows, int64_t first_col, int64_t cols,
              const T *from) {
    backend.run(GatherPatches<T>{taps, channels, first_row, rows, first_col, cols, from, room(rows * cols)});
  }
  /// Parts of rows: take(first, rows, number).
  template <class Take> static void each_rows(int64_t rows, Take take) {
    for (int64_t first = 0; first < rows; first += kPartRows)
      take(first, std::min(kPartRows, rows - first), uint64_t(first / kPartRows));
  }
  template <class Take> void each_columns(Take take) {
    for (int64_t first = 0; first < shape.patch(); first += kPartColumns) {
      const int64_t width = std::min(kPartColumns, shape.patch() - first);
      take(first, width, columns.at(width));
    }
  }

  /// The global amax of a matrix as an operand is quantized.
  float amax_of(const OperandRecipe &operand, const std::string &unit, const T *data, int64_t rows, int64_t cols, Axis axis) {
    if constexpr (std::is_same_v<T, float>) {
      OperandRecipe nearest = operand; // random words change no amax
      nearest.rounding = ElementRounding::nearest;
      const QuantizeTask task{probe.get(), &nearest, fprop.recipe(0).source, &find_unit(unit), data, rows, cols, axis,
                              RandomKey{}, true};
      engine->quantize({&task, 1});
      return engine->global_amax(*probe);
    }
    return 0;
  }
  /// Of all patches of an image's pixels (rows, channels). Without a rotation it is that of the pixels, for each is in a
  /// patch; zeros of the padding count where nothing else is a number.
  float amax_of_patches(const OperandRecipe &operand, const std::string &unit, const T *data, int64_t rows, int64_t channels) {
    const float amax = amax_of(operand, unit, data, rows, channels, Axis::row);
    const bool alone = find_convention(operand.convention).rule.amax_nan == AmaxNan::unless_all;
    return std::isnan(amax) && alone && shape.padding > 0 ? 0.0f : amax;
  }
  /// Of patches that are rotated along their rows: part by part.
  float amax_of_rows(const GemmRecipe &gemm, const Taps &taps, int64_t channels, int64_t rows, int64_t cols, const T *from) {
    const AmaxNan rule = find_convention(gemm.a.convention).rule.amax_nan;
    float all = 0;
    each_rows(rows, [&](int64_t first, int64_t n, uint64_t number) {
      gather(taps, channels, first, n, 0, cols, from);
      const float own = amax_of(gemm.a, gemm.unit, part.data(), n, cols, Axis::row);
      all = number == 0 ? own : joined(rule, all, own);
    });
    return all;
  }

  void set_amax_of_rows(LinearGroup<T> &group, const GemmRecipe &gemm, const Taps &taps, int64_t channels, int64_t rows,
                        int64_t cols, const T *from, int64_t pixels) {
    if (!has_global_scale(gemm.a)) return;
    const float amax = gemm.a.hadamard ? amax_of_rows(gemm, taps, channels, rows, cols, from)
                                       : amax_of_patches(gemm.a, gemm.unit, from, pixels, channels);
    group.set_amax(room(std::min(kPartRows, rows) * cols), amax);
  }

  void forward(const StepContext &step, const T *x, int64_t images, T *y) {
    const int64_t rows = images * shape.out_pixels(), k = shape.patch();
    const Taps taps = shape.taps_of_input();
    const LinearRecipe &r = fprop.recipe(0);
    room(std::min(kPartRows, rows) * k);
    if (step.training && step.micro_batch == 0 && r.hcp.enabled && choice_is_due(r.hcp, step.step))
      choose(step, x, images);
    set_amax_of_rows(fprop, r.fprop, taps, shape.channels, rows, k, x, images * shape.pixels());
    each_rows(rows, [&](int64_t first, int64_t n, uint64_t number) {
      gather(taps, shape.channels, first, n, 0, k, x);
      T *const out[] = {y + first * shape.outputs};
      fprop.forward(of_part(step, number), part.data(), n, out);
    });
    fprop.set_amax(part.data(), {});
  }

  static StepContext of_part(StepContext step, uint64_t number) {
    step.part = number;
    step.training = false; // hot channels are chosen from all parts, before
    return step;
  }

  void choose(const StepContext &step, const T *x, int64_t images) {
    if constexpr (std::is_same_v<T, float>) {
      const int64_t rows = images * shape.out_pixels();
      const LinearRecipe &r = fprop.recipe(0);
      std::vector<float> scores;
      if (r.hcp.choice == HcpRecipe::Choice::random) { // of no data, but by the number of a column among all
        gather(shape.taps_of_input(), shape.channels, 0, 1, 0, shape.patch(), x);
        scores = fprop.scores(0, Product::fprop, step, part.data(), 1);
      } else {
        const bool scaled = has_global_scale(r.fprop.a);
        const float of_x = scaled ? amax_of_patches(r.fprop.a, r.fprop.unit, x, images * shape.pixels(), shape.channels) : 0,
                    of_w = scaled ? amax_of(r.fprop.b, r.fprop.unit, weight.data(), shape.outputs, shape.patch(), Axis::row) : 0;
        room(rows * std::min(kPartColumns, shape.patch()));
        each_columns([&](int64_t first, int64_t width, Columns &c) {
          gather(shape.taps_of_input(), shape.channels, 0, rows, first, width, x);
          backend.run(CopyColumns<T>{shape.outputs, width, weight.data() + first, shape.patch(), c.weight.data(), width});
          c.group.weights_changed();
          c.group.set_amax(part.data(), of_x);
          c.group.set_amax(c.weight.data(), of_w);
          const std::vector<float> own = c.group.scores(0, Product::fprop, step, part.data(), rows);
          scores.insert(scores.end(), own.begin(), own.end());
          c.group.set_amax(part.data(), {});
        });
      }
      fprop.set_hot_channels(0, {fprop.select(0, Product::fprop, scores), std::move(scores), step.step});
    }
  }

  void backward(const StepContext &step, const T *x, int64_t images, const T *dy, T *dx) {
    const LinearRecipe &r = fprop.recipe(0);
    if (dx != nullptr) {
      if (!turned_valid)
        backend.run(TurnFilters<T>{shape.outputs, shape.taps(), shape.channels, weight.data(), turned.data()});
      turned_valid = true;
      const int64_t rows = images * shape.pixels(), k = shape.turned_patch();
      const Taps taps = shape.taps_of_output();
      room(std::min(kPartRows, rows) * k);
      set_amax_of_rows(dgrad, r.dgrad, taps, shape.outputs, rows, k, dy, images * shape.out_pixels());
      each_rows(rows, [&](int64_t first, int64_t n, uint64_t number) {
        gather(taps, shape.outputs, first, n, 0, k, dy);
        const T *const from[] = {part.data()};
        dgrad.backward(of_part(step, number), nullptr, n, from, dx + first * shape.channels);
      });
      dgrad.set_amax(part.data(), {});
    }
    const int64_t rows = images * shape.out_pixels();
    if (member.bias_grad != nullptr) backend.run(AccumulateColumns<T>{rows, shape.outputs, dy, member.bias_grad});
    if (member.weight_grad != nullptr) weight_gradient(step, x, images, dy);
  }

  void weight_gradient(const StepContext &step, const T *x, int64_t images, const T *dy) {
    const GemmRecipe &gemm = fprop.recipe(0).wgrad;
    const int64_t rows = images * shape.out_pixels();
    const Taps taps = shape.taps_of_input();
    room(rows * std::min(kPartColumns, shape.patch()));
    std::optional<float> amax;
    if (has_global_scale(gemm.b)) {
      if (!gemm.b.hadamard) {
        amax = amax_of_patches(gemm.b, gemm.unit, x, images * shape.pixels(), shape.channels);
      } else {
        const AmaxNan rule = find_convention(gemm.b.convention).rule.amax_nan;
        each_columns([&](int64_t first, int64_t width, Columns &) {
          gather(taps, shape.channels, 0, rows, first, width, x);
          const float own = amax_of(gemm.b, gemm.unit, part.data(), rows, width, Axis::col);
          amax = amax ? joined(rule, *amax, own) : own;
        });
      }
    }
    each_columns([&](int64_t first, int64_t width, Columns &c) {
      gather(taps, shape.channels, 0, rows, first, width, x);
      T *const whole = member.weight_grad + first;
      backend.run(CopyColumns<T>{shape.outputs, width, whole, shape.patch(), c.gradient.data(), width});
      c.group.set_amax(part.data(), amax);
      const T *const from[] = {dy};
      c.group.backward(of_part(step, 0), part.data(), rows, from, nullptr);
      c.group.set_amax(part.data(), {});
      backend.run(CopyColumns<T>{shape.outputs, width, c.gradient.data(), width, whole, shape.patch()});
    });
  }
};

template <class T>
Convolution<T>::Convolution(Backend<T> &backend, OperandEngine *engine, const ConvolutionShape &shape,
                            LinearWeight<T> weight, const Recipe &recipe)
    : impl_(std::make_unique<Impl>(backend, engine, shape, std::move(weight), recipe)) {}
template <class T> Convolution<T>::~Convolution() = default;
template <class T> Convolution<T>::Convolution(Convolution &&) noexcept = default;

template <class T> void Convolution<T>::forward(const StepContext &step, const T *x, int64_t images, T *y) {
  impl_->forward(step, x, images, y);
}
template <class T>
void Convolution<T>::backward(const StepContext &step, const T *x, int64_t images, const T *dy, T *dx) {
  impl_->backward(step, x, images, dy, dx);
}
template <class T> void Convolution<T>::weights_changed() {
  impl_->weight.update();
  impl_->turned_valid = false;
  impl_->fprop.weights_changed();
  impl_->dgrad.weights_changed();
}
template <class T> const ConvolutionShape &Convolution<T>::shape() const { return impl_->shape; }
template <class T> const LinearRecipe &Convolution<T>::recipe() const { return impl_->fprop.recipe(0); }
template <class T> const HotChannels &Convolution<T>::hot_channels() const { return impl_->fprop.hot_channels(0); }
template <class T> void Convolution<T>::set_hot_channels(HotChannels state) {
  impl_->fprop.set_hot_channels(0, std::move(state));
}

template class Convolution<float>;
template class Convolution<double>;

} // namespace nvfp4::models
