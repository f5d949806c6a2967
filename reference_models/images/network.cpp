// SPDX-License-Identifier: Apache-2.0
// The layers one after the other, and back.
#include "nvfp4/reference_models/images/network.hpp"

#include <algorithm>
#include <cmath>

namespace nvfp4::models {
namespace {

/// Of a weight's N(0, std).
double spread(const ParameterSpec &p) {
  int64_t inputs = 1;
  for (size_t i = 1; i < p.shape.size(); ++i) inputs *= p.shape[i];
  return std::sqrt((p.name == "head.weight" ? 1.0 : 2.0) / double(inputs));
}

template <class T> LinearWeight<T> member_of(Parameters<T> &parameters, const std::string &path, const std::string &role,
                                             int64_t layer, int64_t layers, uint64_t id) {
  return {.role = role, .layer = layer, .layers = layers, .weight = parameters.value(path + ".weight"),
          .weight_grad = parameters.gradient(path + ".weight"), .id = id};
}

} // namespace

/// Batch normalization with ReLU of (rows, width).
template <class T> struct ImageNetwork<T>::Norm {
  std::string path;
  int64_t width;
  Array<T> mean, rstd, sums, y;

  Norm(Backend<T> &b, std::string p, int64_t w, int64_t rows)
      : path(std::move(p)), width(w), mean(b, w), rstd(b, w), sums(b, 2 * w), y(b, rows * w) {}
};

template <class T> struct ImageNetwork<T>::Block {
  std::string path;
  Convolution<T> convolution;
  Array<T> z; ///< what it makes
  Norm norm;
  bool pools;
  Array<T> pooled;
  const T *x = nullptr; ///< its input

  Block(Backend<T> &b, OperandEngine *e, const std::string &p, const ConvolutionShape &s, const LinearWeight<T> &weight,
        const Recipe &recipe, int64_t images, bool last)
      : path(p), convolution(b, e, s, weight, recipe), z(b, images * s.out_pixels() * s.outputs),
        norm(b, p + ".norm", s.outputs, images * s.out_pixels()), pools(last) {
    if (pools) pooled.reset(b, images * (s.out_height() / 2) * (s.out_width() / 2) * s.outputs);
  }
};

/// The hidden layer or the head.
template <class T> struct ImageNetwork<T>::Dense {
  std::string path;
  int64_t in, out;
  LeveledWeight<T> weight;
  LinearGroup<T> group;
  Array<T> z;
  std::optional<Norm> norm;
  const T *x = nullptr;

  Dense(Backend<T> &b, OperandEngine *e, std::string p, LinearWeight<T> m, const Recipe &recipe, int64_t images, bool normed)
      : path(std::move(p)), in(m.in), out(m.out),
        weight(b, m.weight, m.in * m.out, recipe.resolve(m.role, m.layer, m.layers).weights),
        group(b, e, {leveled(m)}, without_levels(recipe)), z(b, images * m.out) {
    if (normed) norm.emplace(b, path + ".norm", m.out, images);
  }
  LinearWeight<T> leveled(LinearWeight<T> m) const {
    m.weight = weight.data();
    return m;
  }
};

template <class T>
ImageNetwork<T>::ImageNetwork(Backend<T> &backend, OperandEngine *engine, const ImageConfig &config, const Recipe &recipe,
                              int64_t batch, bool training)
    : backend_(&backend), config_(config), batch_(batch),
      parameters_((check(config), backend), parameter_list(config), training), watch_(backend),
      images_(backend, batch * config.height * config.width * config.channels), logits_(backend, batch * config.classes),
      losses_(backend, batch), ones_(backend, batch), labels_(backend, batch) {
  const std::vector<T> ones(size_t(batch), T(1));
  backend.upload(ones_.data(), ones.data(), ones.size() * sizeof(T));
  const int64_t layers = config.layers();
  ConvolutionShape shape{.height = config.height, .width = config.width, .channels = config.channels};
  int64_t layer = 0, largest = batch * config.classes;
  for (size_t b = 0; b < config.widths.size(); ++b)
    for (int64_t i = 0; i < config.convolutions; ++i, ++layer) {
      shape.outputs = config.widths[b];
      const std::string path = convolution_path(int64_t(b), i);
      const bool last = i + 1 == config.convolutions;
      blocks_.push_back(std::make_unique<Block>(
          backend, engine, path, shape, member_of(parameters_, path + ".conv", "conv", layer, layers, uint64_t(16 * layer)),
          recipe, batch, last));
      largest = std::max(largest, batch * shape.pixels() * std::max(shape.channels, shape.outputs));
      shape.channels = shape.outputs;
      if (last) shape.height /= 2, shape.width /= 2;
    }
  if (config.hidden > 0) {
    LinearWeight<T> m = member_of(parameters_, "fc", "fc", layer, layers, uint64_t(16 * layer));
    m.in = config.features(), m.out = config.hidden;
    hidden_ = std::make_unique<Dense>(backend, engine, "fc", m, recipe, batch, true);
    largest = std::max(largest, batch * config.hidden);
  }
  LinearWeight<T> m = member_of(parameters_, "head", "lm_head", layers, layers, uint64_t(16 * layers + 15));
  m.in = config.hidden > 0 ? config.hidden : config.features(), m.out = config.classes;
  m.bias = parameters_.value("head.bias"), m.bias_grad = parameters_.gradient("head.bias");
  head_ = std::make_unique<Dense>(backend, engine, "head", m, recipe, batch, false);
  if (training)
    for (Array<T> &g : gradients_) g.reset(backend, largest);
}

template <class T> ImageNetwork<T>::~ImageNetwork() = default;

template <class T> void ImageNetwork<T>::initialise(uint64_t seed) {
  uint64_t number = 0;
  for (const ParameterSpec &p : parameters_.list()) {
    const std::vector<float> values = initial_values(p, spread(p), seed, number++);
    const std::vector<T> converted(values.begin(), values.end());
    backend_->upload(parameters_.value(p.name), converted.data(), converted.size() * sizeof(T));
  }
  parameters_changed();
}

template <class T> void ImageNetwork<T>::parameters_changed() {
  for (const auto &b : blocks_) b->convolution.weights_changed();
  for (Dense *d : {hidden_.get(), head_.get()})
    if (d != nullptr) {
      d->weight.update();
      d->group.weights_changed();
    }
}

template <class T> void ImageNetwork<T>::set_images(std::span<const float> pixels, std::span<const int32_t> labels) {
  count_ = int64_t(labels.size());
  if (count_ < 1 || count_ > batch_ || int64_t(pixels.size()) != count_ * config_.height * config_.width * config_.channels)
    throw Error("expected 1 to " + std::to_string(batch_) + " images of this network's size, got " + std::to_string(count_));
  for (const int32_t label : labels)
    if (label < 0 || label >= config_.classes)
      throw Error("expected labels of 0 to " + std::to_string(config_.classes - 1) + ", got " + std::to_string(label));
  const std::vector<T> converted(pixels.begin(), pixels.end());
  backend_->upload(images_.data(), converted.data(), converted.size() * sizeof(T));
  backend_->upload(labels_.data(), labels.data(), labels.size() * sizeof(int32_t));
  host_labels_.assign(labels.begin(), labels.end());
}

template <class T> void ImageNetwork<T>::norm_forward(Norm &n, bool training, int64_t rows, const T *x) {
  const T epsilon = T(config_.norm_epsilon);
  T *const mean = parameters_.value(n.path + ".running_mean"), *const variance = parameters_.value(n.path + ".running_var");
  if (training)
    backend_->run(BatchStatistics<T>{rows, n.width, epsilon, T(config_.momentum), x, n.mean.data(), n.rstd.data(), mean, variance});
  else
    backend_->run(StoredStatistics<T>{n.width, epsilon, mean, variance, n.mean.data(), n.rstd.data()});
  backend_->run(BatchNormForward<T>{rows, n.width, x, n.mean.data(), n.rstd.data(), parameters_.value(n.path + ".weight"),
                                    parameters_.value(n.path + ".bias"), n.y.data()});
  watch_.add(n.y.data(), rows * n.width);
}

/// dy becomes dx.
template <class T> void ImageNetwork<T>::norm_backward(Norm &n, int64_t rows, const T *x, T *dy) {
  backend_->run(BatchNormSums<T>{rows, n.width, dy, n.y.data(), x, n.mean.data(), n.rstd.data(), n.sums.data(),
                                 parameters_.gradient(n.path + ".weight"), parameters_.gradient(n.path + ".bias")});
  backend_->run(BatchNormBackward<T>{rows, n.width, dy, n.y.data(), x, n.mean.data(), n.rstd.data(),
                                     parameters_.value(n.path + ".weight"), n.sums.data(), dy});
  watch_.add(dy, rows * n.width);
  watch_.flush(); // its memory is used again
}

template <class T> ImageOutcome ImageNetwork<T>::forward(const StepContext &step) {
  const T *x = images_.data();
  watch_.add(x, count_ * config_.height * config_.width * config_.channels);
  for (const auto &b : blocks_) {
    const ConvolutionShape &s = b->convolution.shape();
    const int64_t rows = count_ * s.out_pixels();
    b->x = x;
    b->convolution.forward(step, x, count_, b->z.data());
    watch_.add(b->z.data(), rows * s.outputs);
    norm_forward(b->norm, step.training, rows, b->z.data());
    x = b->norm.y.data();
    if (!b->pools) continue;
    backend_->run(MaxPoolForward<T>{count_, s.out_height(), s.out_width(), s.outputs, x, b->pooled.data()});
    x = b->pooled.data();
  }
  if (hidden_) {
    T *const out[] = {hidden_->z.data()};
    hidden_->x = x;
    hidden_->group.forward(step, x, count_, out);
    watch_.add(out[0], count_ * hidden_->out);
    norm_forward(*hidden_->norm, step.training, count_, out[0]);
    x = hidden_->norm->y.data();
  }
  T *const out[] = {head_->z.data()};
  head_->x = x;
  head_->group.forward(step, x, count_, out);
  watch_.add(out[0], count_ * config_.classes);
  watch_.flush();
  backend_->run(CrossEntropy<T>{count_, config_.classes, head_->z.data(), labels_.data(), ones_.data(), T(1.0 / double(count_)),
                                losses_.data(), logits_.data()});
  ImageOutcome outcome;
  for (const T loss : to_host(*backend_, losses_.data(), count_)) outcome.loss += double(loss);
  const std::vector<T> z = logits();
  for (int64_t i = 0; i < count_; ++i) {
    const auto row = z.begin() + long(i * config_.classes);
    outcome.correct += std::max_element(row, row + long(config_.classes)) - row == host_labels_[size_t(i)];
  }
  return outcome;
}

template <class T> std::vector<T> ImageNetwork<T>::logits() const {
  return to_host(*backend_, head_->z.data(), count_ * config_.classes);
}

template <class T> void ImageNetwork<T>::backward(const StepContext &step) {
  const auto through = [&](Dense &d, const T *dy, T *dx) {
    const T *const from[] = {dy};
    d.group.backward(step, d.x, count_, from, dx);
  };
  T *g = gradients_[0].data(), *other = gradients_[1].data();
  through(*head_, logits_.data(), g);
  if (hidden_) {
    norm_backward(*hidden_->norm, count_, hidden_->z.data(), g);
    through(*hidden_, g, other);
    std::swap(g, other);
  }
  for (auto at = blocks_.rbegin(); at != blocks_.rend(); ++at) {
    Block &b = **at;
    const ConvolutionShape &s = b.convolution.shape();
    if (b.pools) {
      backend_->run(MaxPoolBackward<T>{count_, s.out_height(), s.out_width(), s.outputs, g, b.norm.y.data(), other});
      std::swap(g, other);
    }
    norm_backward(b.norm, count_ * s.out_pixels(), b.z.data(), g);
    const bool first = at + 1 == blocks_.rend();
    b.convolution.backward(step, b.x, count_, g, first ? nullptr : other);
    std::swap(g, other);
  }
}

template <class T> std::optional<NotFinite> ImageNetwork<T>::first_not_finite() const {
  if constexpr (std::is_same_v<T, float>) {
    const auto look = [&](const T *data, std::vector<int64_t> shape, const std::string &path, StepTensor what) {
      int64_t n = 1;
      for (const int64_t length : shape) n *= length;
      return find_not_finite(to_host(*backend_, data, n), path, what, std::move(shape));
    };
    for (const ParameterSpec &p : parameters_.list())
      if (auto found = look(parameters_.value(p.name), p.shape, p.name, StepTensor::weight)) return found;
    if (auto found = look(images_.data(), {count_, config_.height, config_.width, config_.channels}, "images", StepTensor::input))
      return found;
    for (const auto &b : blocks_) {
      const ConvolutionShape &s = b->convolution.shape();
      const std::vector<int64_t> shape = {count_, s.out_height(), s.out_width(), s.outputs};
      if (auto found = look(b->z.data(), shape, b->path + ".conv", StepTensor::output)) return found;
      if (auto found = look(b->norm.y.data(), shape, b->path + ".norm", StepTensor::output)) return found;
    }
    for (const Dense *d : {hidden_.get(), head_.get()})
      if (d != nullptr)
        if (auto found = look(d->z.data(), {count_, d->out}, d->path, StepTensor::output)) return found;
    if (parameters_.training())
      for (const ParameterSpec &p : parameters_.list())
        if (auto found = look(parameters_.gradient(p.name), p.shape, p.name, StepTensor::weight_grad)) return found;
  }
  return std::nullopt;
}

template <class T> std::map<std::string, HotChannels> ImageNetwork<T>::hot_channels() const {
  std::map<std::string, HotChannels> out;
  const auto note = [&](const std::string &path, const HotChannels &hot) {
    if (!hot.indices.empty()) out[path] = hot;
  };
  for (const auto &b : blocks_) note(b->path + ".conv", b->convolution.hot_channels());
  for (const Dense *d : {hidden_.get(), head_.get()})
    if (d != nullptr) note(d->path, d->group.hot_channels(0));
  return out;
}

template <class T> void ImageNetwork<T>::set_hot_channels(const std::map<std::string, HotChannels> &state) {
  std::map<std::string, HotChannels> left = state;
  const auto take = [&](const std::string &path, const auto &set) {
    const auto at = left.find(path);
    set(at == left.end() ? HotChannels{} : at->second);
    left.erase(path);
  };
  for (const auto &b : blocks_)
    take(b->path + ".conv", [&](HotChannels hot) { b->convolution.set_hot_channels(std::move(hot)); });
  for (Dense *d : {hidden_.get(), head_.get()})
    if (d != nullptr) take(d->path, [&](HotChannels hot) { d->group.set_hot_channels(0, std::move(hot)); });
  if (!left.empty()) throw Error("hot channels of '" + left.begin()->first + "', which this network does not have");
}

template class ImageNetwork<float>;
template class ImageNetwork<double>;

} // namespace nvfp4::models
