// SPDX-License-Identifier: Apache-2.0
// The order of operations of a step. Each block keeps its input, the two normalised inputs and the MLP's
// inner values.
#include "nvfp4/reference_models/model/model.hpp"
#include "nvfp4/emulator/config.hpp"
#include "nvfp4/reference_models/model/kv_cache.hpp"
#include "nvfp4/reference_models/model/operator_products.hpp"
#include "nvfp4/reference_models/model/stored_values.hpp"

#include <algorithm>
#include <stdexcept>

namespace nvfp4::models {

template <class T>
LinearWeight<T> BlockContext<T>::linear(const std::string &role, const std::string &path, int number) const {
  LinearWeight<T> w;
  w.role = role;
  w.layer = layer;
  w.layers = config.layers;
  w.id = uint64_t(layer) * kLinearsPerBlock + uint64_t(number);
  for (const ParameterSpec &p : parameters.list()) {
    if (p.name == path + ".weight") {
      w.out = p.shape[0];
      w.in = p.shape[1];
      w.weight = parameters.value(p.name);
      w.weight_grad = parameters.gradient(p.name);
    } else if (p.name == path + ".bias") {
      w.bias = parameters.value(p.name);
      w.bias_grad = parameters.gradient(p.name);
    }
  }
  if (w.weight == nullptr) throw Error("the model has no parameter " + path + ".weight");
  return w;
}

template <class T>
std::unique_ptr<LinearGroup<T>>
BlockContext<T>::linears(std::initializer_list<std::string_view> modules) const {
  std::vector<LinearWeight<T>> members;
  for (const std::string_view module : modules) {
    const MixerParameter *row = config.family->find_linear(module);
    if (row == nullptr)
      throw std::logic_error("family " + std::string(config.family->name) + " has no linear layer " +
                             std::string(module));
    members.push_back(
        linear("attn." + std::string(module), mixer_path(config, layer) + std::string(module), row->linear));
  }
  return std::make_unique<LinearGroup<T>>(backend, engine, std::move(members), recipe);
}

template <class T> struct Model<T>::Block {
  Array<T> x, normed1, rstd1, middle, normed2, rstd2, gate, up, inner;
  const T *norm1 = nullptr, *norm2 = nullptr;
  T *norm1_grad = nullptr, *norm2_grad = nullptr;
  std::string path;
  std::unique_ptr<Mixer<T>> mixer;
  std::unique_ptr<LinearGroup<T>> wide, down;
};

template <class T> Model<T>::~Model() = default;

template <class T>
Model<T>::Model(Backend<T> &backend, OperandEngine *engine, const ModelConfig &config, const Recipe &recipe,
                int64_t batch, int64_t length, bool training)
    : backend_(backend), config_(config), recipe_(recipe.for_family(std::string(config.family->name))),
      batch_(batch), length_(length), mixer_scratch_(backend), watch_(backend) {
  check(config);
  if (batch < 1 || length < 1)
    throw Error("expected a batch and a sequence of at least 1, got " + std::to_string(batch) + " and " +
                std::to_string(length));
  check_mixers(config, recipe_, batch, length, std::is_same_v<T, double>);
  check_kv_cache(recipe_, *config.family, training, std::is_same_v<T, double>);
  check_gate_inputs(recipe_, *config.family, std::is_same_v<T, double>);
  parameters_ = std::make_unique<Parameters<T>>(backend, config, training);
  const int64_t rows = batch * length, d = config.hidden, inner = config.intermediate;
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    auto block = std::make_unique<Block>();
    const BlockContext<T> context{backend, engine, recipe_, config_, *parameters_, layer, batch, length};
    block->path = block_path(config, layer);
    const std::string first = mixer_norm(config, layer);
    block->norm1 = parameters_->value(first);
    block->norm1_grad = parameters_->gradient(first);
    for (Array<T> *a : {&block->x, &block->normed1}) a->reset(backend, rows * d);
    block->rstd1.reset(backend, rows);
    block->mixer = make_mixer(context, mixer_scratch_);
    block->mixer->hooks.watch = &watch_;
    block->mixer->hooks.trace = [this](const std::string &module, StepTensor what, std::vector<int64_t> shape,
                                       const T *data) {
      if (tracer) tracer(module, what, std::move(shape), data);
    };
    if (config.family->has_mlp()) {
      const std::string second = mlp_norm(config, layer);
      block->norm2 = parameters_->value(second);
      block->norm2_grad = parameters_->gradient(second);
      for (Array<T> *a : {&block->middle, &block->normed2}) a->reset(backend, rows * d);
      for (Array<T> *a : {&block->gate, &block->up, &block->inner}) a->reset(backend, rows * inner);
      block->rstd2.reset(backend, rows);
      const auto linear = [&](const SharedLinear &l) {
        return context.linear(std::string(l.role), block->path + std::string(l.role), l.number);
      };
      const auto &[gate, up, down, unused] = kSharedLinears;
      block->wide = std::make_unique<LinearGroup<T>>(
          backend, engine, std::vector<LinearWeight<T>>{linear(gate), linear(up)}, recipe_);
      block->down = std::make_unique<LinearGroup<T>>(backend, engine,
                                                     std::vector<LinearWeight<T>>{linear(down)}, recipe_);
    }
    blocks_.push_back(std::move(block));
  }
  const BlockContext<T> context{backend,      engine,        recipe_, config_,
                                *parameters_, config.layers, batch,   length};
  const SharedLinear &head = kSharedLinears.back();
  const std::string table(config.tie ? config.family->modules.embedding : head.role);
  head_ = std::make_unique<LinearGroup<T>>(
      backend, engine,
      std::vector<LinearWeight<T>>{context.linear(std::string(head.role), table, head.number)}, recipe_);
  for (Array<T> *a : {&final_norm_, &branch_}) a->reset(backend, rows * d);
  final_rstd_.reset(backend, rows);
  logits_.reset(backend, rows * config.vocabulary);
  for (Array<T> *a : {&row_loss_, &weights_}) a->reset(backend, rows);
  for (Array<int32_t> *a : {&tokens_, &targets_, &positions_}) a->reset(backend, rows);
  starts_.reset(backend, config.vocabulary + 1);
  visit_all([this](LinearGroup<T> &g, const T *, std::span<const T *const>) {
    g.watch(&watch_);
    g.show_input_grads([this](const LinearWeight<T> &w, const T *data) {
      if (input_grad_observer) input_grad_observer(w, data);
    });
  });
  if (!training) return;
  for (Array<T> *a : {&d_x_, &d_branch_, &terms_}) a->reset(backend, rows * d);
  if (config.family->has_mlp())
    for (Array<T> *a : {&d_inner_, &d_gate_, &d_up_}) a->reset(backend, rows * inner);
}

template <class T>
void Model<T>::set_tokens(std::span<const int32_t> tokens, std::span<const float> weights) {
  const int64_t rows = batch_ * length_;
  if (int64_t(tokens.size()) != batch_ * (length_ + 1))
    throw Error("expected tokens of shape [" + std::to_string(batch_) + ", " + std::to_string(length_ + 1) +
                "], got " + std::to_string(tokens.size()) + " of them");
  std::vector<int32_t> inputs, targets, starts(size_t(config_.vocabulary) + 1, 0),
      positions(static_cast<size_t>(rows));
  for (int64_t b = 0; b < batch_; ++b)
    for (int64_t t = 0; t <= length_; ++t) {
      const int32_t token = tokens[size_t(b * (length_ + 1) + t)];
      if (token < 0 || token >= config_.vocabulary)
        throw Error("token " + std::to_string(token) + " at [" + std::to_string(b) + ", " +
                    std::to_string(t) + "]: expected 0 to " + std::to_string(config_.vocabulary - 1));
      if (t < length_) inputs.push_back(token);
      if (t > 0) targets.push_back(token);
    }
  for (const int32_t token : inputs) ++starts[size_t(token) + 1];
  for (size_t v = 1; v < starts.size(); ++v) starts[v] += starts[v - 1];
  std::vector<int32_t> next(starts.begin(), starts.end() - 1);
  for (int64_t r = 0; r < rows; ++r) positions[size_t(next[size_t(inputs[size_t(r)])]++)] = int32_t(r);
  host_weights_.assign(size_t(rows), 1.0f);
  if (!weights.empty()) host_weights_.assign(weights.begin(), weights.end());
  total_weight_ = 0;
  for (const float w : host_weights_) total_weight_ += double(w);
  const std::vector<T> converted(host_weights_.begin(), host_weights_.end());
  backend_.upload(weights_.data(), converted.data(), converted.size() * sizeof(T));
  backend_.upload(tokens_.data(), inputs.data(), inputs.size() * 4);
  backend_.upload(targets_.data(), targets.data(), targets.size() * 4);
  backend_.upload(starts_.data(), starts.data(), starts.size() * 4);
  backend_.upload(positions_.data(), positions.data(), positions.size() * 4);
}

template <class T> void Model<T>::forward(const StepContext &step) {
  const int64_t rows = batch_ * length_, d = config_.hidden, n = rows * d;
  const auto epsilon = T(config_.norm_epsilon);
  const std::string table = embedding(config_);
  backend_.run(
      EmbeddingForward<T>{rows, d, tokens_.data(), parameters_->value(table), blocks_.front()->x.data()});
  const ModuleNames &names = config_.family->modules;
  trace(std::string(names.embedding), StepTensor::output, blocks_.front()->x.data(), d);
  for (size_t layer = 0; layer < blocks_.size(); ++layer) {
    Block &b = *blocks_[layer];
    backend_.run(RmsNormForward<T>{rows, d, epsilon, b.x.data(), b.norm1, b.normed1.data(), b.rstd1.data()});
    trace(b.path + std::string(names.mixer_norm), StepTensor::output, b.normed1.data(), d);
    b.mixer->forward(step, b.normed1.data(), branch_.data());
    if (output_observer) output_observer(int64_t(layer), config_.family->output_role(), branch_.data());
    if (tracer) {
      std::vector<Activation<T>> inside;
      b.mixer->activations(inside);
      for (const Activation<T> &a : inside) tracer(a.name, StepTensor::output, a.shape, a.data);
      trace(linear_path(config_, int64_t(layer), config_.family->output_role()), StepTensor::output,
            branch_.data(), d);
    }
    // the last block's output is needed only here: it may take the place of the branch
    T *out = layer + 1 < blocks_.size() ? blocks_[layer + 1]->x.data() : branch_.data();
    if (!config_.family->has_mlp()) {
      backend_.run(Add<T>{n, b.x.data(), branch_.data(), out});
      trace(b.path.substr(0, b.path.size() - 1), StepTensor::output, out, d);
      continue;
    }
    backend_.run(Add<T>{n, b.x.data(), branch_.data(), b.middle.data()});
    trace(b.path + "middle", StepTensor::output, b.middle.data(), d);
    backend_.run(
        RmsNormForward<T>{rows, d, epsilon, b.middle.data(), b.norm2, b.normed2.data(), b.rstd2.data()});
    trace(b.path + std::string(names.mlp_norm), StepTensor::output, b.normed2.data(), d);
    T *const wide[] = {b.gate.data(), b.up.data()};
    b.wide->forward(step, b.normed2.data(), rows, wide);
    trace(b.path + "mlp.gate_proj", StepTensor::output, b.gate.data(), config_.intermediate);
    trace(b.path + "mlp.up_proj", StepTensor::output, b.up.data(), config_.intermediate);
    backend_.run(SwigluForward<T>{rows * config_.intermediate, b.gate.data(), b.up.data(), b.inner.data()});
    trace(b.path + "mlp.swiglu", StepTensor::output, b.inner.data(), config_.intermediate);
    T *const down[] = {branch_.data()};
    b.down->forward(step, b.inner.data(), rows, down);
    if (output_observer) output_observer(int64_t(layer), "mlp.down_proj", branch_.data());
    trace(b.path + "mlp.down_proj", StepTensor::output, branch_.data(), d);
    backend_.run(Add<T>{n, b.middle.data(), branch_.data(), out});
    trace(b.path.substr(0, b.path.size() - 1), StepTensor::output, out, d);
  }
  backend_.run(RmsNormForward<T>{rows, d, epsilon, branch_.data(), parameters_->value(final_norm(config_)),
                                 final_norm_.data(), final_rstd_.data()});
  trace(std::string(names.final_norm), StepTensor::output, final_norm_.data(), d);
  T *const logits[] = {logits_.data()};
  head_->forward(step, final_norm_.data(), rows, logits);
  trace("lm_head", StepTensor::output, logits_.data(), config_.vocabulary);
}

template <class T> double Model<T>::loss_sum(double factor) {
  const int64_t rows = batch_ * length_;
  backend_.run(CrossEntropy<T>{rows, config_.vocabulary, logits_.data(), targets_.data(), weights_.data(),
                               T(factor), row_loss_.data(), factor > 0 ? logits_.data() : nullptr});
  trace("loss", StepTensor::loss, row_loss_.data(), 1);
  const std::vector<T> each = to_host(backend_, row_loss_.data(), rows);
  double sum = 0;
  for (size_t r = 0; r < each.size(); ++r)
    if (host_weights_[r] != 0.0f) sum += double(each[r]) * double(host_weights_[r]);
  return sum;
}

template <class T> double Model<T>::loss(double gradient_scale) {
  const double divisor = total_weight_ > 0 ? total_weight_ : 1.0;
  return loss_sum(gradient_scale / divisor) / divisor;
}

template <class T> void Model<T>::mlp_backward(const StepContext &step, Block &b) {
  const int64_t rows = batch_ * length_, d = config_.hidden;
  const T *const dx[] = {d_x_.data()};
  b.down->backward(step, b.inner.data(), rows, dx, d_inner_.data());
  if (observer) observe(*b.down, b.inner.data(), dx);
  trace_linears(*b.down, dx);
  trace(b.path + "mlp.down_proj", StepTensor::input_grad, d_inner_.data(), config_.intermediate);
  backend_.run(SwigluBackward<T>{rows * config_.intermediate, d_inner_.data(), b.gate.data(), b.up.data(),
                                 d_gate_.data(), d_up_.data()});
  const T *const wide[] = {d_gate_.data(), d_up_.data()};
  b.wide->backward(step, b.normed2.data(), rows, wide, d_branch_.data());
  if (observer) observe(*b.wide, b.normed2.data(), wide);
  trace_linears(*b.wide, wide);
  trace(b.path + "mlp.gate_proj and up_proj", StepTensor::input_grad, d_branch_.data(), d);
  backend_.run(RmsNormBackward<T>{rows, d, d_branch_.data(), b.middle.data(), b.norm2, b.rstd2.data(),
                                  d_x_.data(), d_x_.data(), terms_.data()});
  backend_.run(AccumulateColumns<T>{rows, d, terms_.data(), b.norm2_grad});
  trace(b.path + std::string(config_.family->modules.mlp_norm), StepTensor::input_grad, d_x_.data(), d);
}

template <class T> void Model<T>::backward(const StepContext &step) {
  const int64_t rows = batch_ * length_, d = config_.hidden;
  const ModuleNames &names = config_.family->modules;
  const T *const dlogits[] = {logits_.data()};
  head_->backward(step, final_norm_.data(), rows, dlogits, d_branch_.data());
  if (observer) observe(*head_, final_norm_.data(), dlogits);
  trace_linears(*head_, dlogits);
  trace("lm_head", StepTensor::input_grad, d_branch_.data(), d);
  // branch_ still holds the last block's output
  backend_.run(RmsNormBackward<T>{rows, d, d_branch_.data(), branch_.data(),
                                  parameters_->value(final_norm(config_)), final_rstd_.data(), nullptr,
                                  d_x_.data(), terms_.data()});
  backend_.run(AccumulateColumns<T>{rows, d, terms_.data(), parameters_->gradient(final_norm(config_))});
  trace(std::string(names.final_norm), StepTensor::input_grad, d_x_.data(), d);
  for (size_t layer = blocks_.size(); layer-- > 0;) {
    Block &b = *blocks_[layer];
    if (config_.family->has_mlp()) mlp_backward(step, b);
    b.mixer->backward(step, b.normed1.data(), d_x_.data(), d_branch_.data());
    if (observer)
      b.mixer->groups(
          [&](LinearGroup<T> &g, const T *x, std::span<const T *const> dy) { observe(g, x, dy); });
    if (tracer) { // backward goes through the groups from the last one
      std::vector<std::pair<LinearGroup<T> *, std::vector<const T *>>> groups;
      b.mixer->groups([&](LinearGroup<T> &g, const T *, std::span<const T *const> dy) {
        groups.insert(groups.begin(), {&g, std::vector<const T *>(dy.begin(), dy.end())});
      });
      for (const auto &[group, grads] : groups) trace_linears(*group, grads);
      trace(mixer_path(config_, int64_t(layer)).substr(0, mixer_path(config_, int64_t(layer)).size() - 1),
            StepTensor::input_grad, d_branch_.data(), d);
    }
    backend_.run(RmsNormBackward<T>{rows, d, d_branch_.data(), b.x.data(), b.norm1, b.rstd1.data(),
                                    d_x_.data(), d_x_.data(), terms_.data()});
    backend_.run(AccumulateColumns<T>{rows, d, terms_.data(), b.norm1_grad});
    trace(b.path + std::string(names.mixer_norm), StepTensor::input_grad, d_x_.data(), d);
  }
  const std::string table = embedding(config_);
  backend_.run(EmbeddingBackward<T>{config_.vocabulary, d, starts_.data(), positions_.data(), d_x_.data(),
                                    parameters_->gradient(table)});
}

template <class T>
void Model<T>::observe(LinearGroup<T> &group, const T *input, std::span<const T *const> grads) {
  const auto members = group.members();
  for (size_t i = 0; i < members.size(); ++i)
    observer({&members[i], members[i].role, members[i].layer, batch_ * length_, input, grads[i],
              &group.recipe(i)});
}

template <class T>
void Model<T>::observe_operators(std::function<void(const LinearObservation<T> &)> show, bool ruled) {
  for (int64_t layer = 0; layer < config_.layers; ++layer)
    if (!ruled || has_mixer_rules(recipe_, *config_.family, layer, config_.layers))
      blocks_[size_t(layer)]->mixer->hooks.observer = show;
}

template <class T> void Model<T>::observe_matrices(decltype(MixerHooks<T>::matrix) show) {
  for (auto &block : blocks_) block->mixer->hooks.matrix = show;
}

template <class T>
void Model<T>::trace(const std::string &module, StepTensor what, const T *data, int64_t width) {
  if (tracer) tracer(module, what, {batch_, length_, width}, data);
}

template <class T> void Model<T>::trace_linears(LinearGroup<T> &group, std::span<const T *const> grads) {
  if (!tracer) return;
  const auto members = group.members();
  for (size_t i = 0; i < members.size(); ++i) {
    const LinearWeight<T> &w = members[i];
    const std::string module = linear_path(config_, w.layer, w.role);
    trace(module, StepTensor::output_grad, grads[i], w.out);
    tracer(module, StepTensor::weight_grad, {w.out, w.in}, w.weight_grad);
  }
}

template <class T> void Model<T>::visit_all(const GroupVisitor &f) {
  for (auto &block : blocks_) {
    block->mixer->groups(f);
    if (!config_.family->has_mlp()) continue;
    f(*block->wide, nullptr, {});
    f(*block->down, nullptr, {});
  }
  f(*head_, nullptr, {});
}

template <class T> void Model<T>::parameters_changed() {
  visit_all([](LinearGroup<T> &g, const T *, std::span<const T *const>) { g.weights_changed(); });
}

template <class T> std::vector<Activation<T>> Model<T>::activations() const {
  std::vector<Activation<T>> out;
  const auto add = [&](const std::string &name, const Array<T> &a, int64_t width) {
    out.push_back({name, {batch_, length_, width}, a.data()});
  };
  const ModuleNames &names = config_.family->modules;
  add(std::string(names.embedding), blocks_.front()->x, config_.hidden);
  for (size_t layer = 0; layer < blocks_.size(); ++layer) {
    const Block &b = *blocks_[layer];
    if (layer > 0)
      add(blocks_[layer - 1]->path.substr(0, blocks_[layer - 1]->path.size() - 1), b.x, config_.hidden);
    add(b.path + std::string(names.mixer_norm), b.normed1, config_.hidden);
    b.mixer->activations(out);
    if (!config_.family->has_mlp()) continue;
    add(b.path + "middle", b.middle, config_.hidden);
    add(b.path + std::string(names.mlp_norm), b.normed2, config_.hidden);
    add(b.path + "mlp.gate_proj", b.gate, config_.intermediate);
    add(b.path + "mlp.up_proj", b.up, config_.intermediate);
    add(b.path + "mlp.swiglu", b.inner, config_.intermediate);
  }
  add(blocks_.back()->path.substr(0, blocks_.back()->path.size() - 1), branch_, config_.hidden);
  add(std::string(names.final_norm), final_norm_, config_.hidden);
  return out;
}

template <class T> std::vector<AttentionMoments> Model<T>::attention_moments(int64_t layer) {
  return blocks_.at(size_t(layer))->mixer->attention_moments();
}

namespace {

/// The products that the Hot-Channel Patch may be in.
constexpr Product kPatchable[] = {Product::fprop, Product::dgrad};

template <class T> std::string patch_name(const LinearWeight<T> &w, Product product) {
  return std::to_string(w.layer) + "." + w.role + (product == Product::dgrad ? ".dgrad" : "");
}

} // namespace

template <class T> std::map<std::string, HotChannels> Model<T>::hot_channels() {
  std::map<std::string, HotChannels> out;
  visit_all([&](LinearGroup<T> &g, const T *, std::span<const T *const>) {
    for (size_t i = 0; i < g.members().size(); ++i)
      for (const Product p : kPatchable)
        if (g.hot_channels(i, p).chosen_at >= 0) out[patch_name(g.members()[i], p)] = g.hot_channels(i, p);
  });
  return out;
}

template <class T>
std::map<std::string, HotChannels>
Model<T>::hot_channel_layers(const std::map<std::string, HotChannels> &state) {
  std::map<std::string, HotChannels> out;
  visit_all([&](LinearGroup<T> &g, const T *, std::span<const T *const>) {
    for (size_t i = 0; i < g.members().size(); ++i)
      for (const Product p : kPatchable) {
        const auto at = state.find(patch_name(g.members()[i], p));
        const HcpRecipe &hcp = g.recipe(i).hcp;
        if (at != state.end() && hcp.enabled && (p == Product::fprop || hcp.dgrad)) out.insert(*at);
      }
  });
  return out;
}

template <class T> void Model<T>::set_hot_channels(const std::map<std::string, HotChannels> &state) {
  size_t used = 0;
  visit_all([&](LinearGroup<T> &g, const T *, std::span<const T *const>) {
    for (size_t i = 0; i < g.members().size(); ++i)
      for (const Product p : kPatchable) {
        const LinearWeight<T> &w = g.members()[i];
        const auto at = state.find(patch_name(w, p));
        if (at == state.end()) continue;
        const int64_t channels = p == Product::fprop ? w.in : w.out;
        for (const int32_t channel : at->second.indices)
          if (channel < 0 || channel >= channels)
            throw Error("hot channels of " + at->first + ": expected 0 to " + std::to_string(channels - 1) +
                        ", got " + std::to_string(channel));
        g.set_hot_channels(i, at->second, p);
        ++used;
      }
  });
  if (used != state.size())
    throw Error("the checkpoint has hot channels of layers that this model does not have");
}

template <class T> void Model<T>::at_step(int64_t step) {
  visit_all([step](LinearGroup<T> &g, const T *, std::span<const T *const>) { g.at_step(step); });
}

namespace {

template <class T> std::string amax_name(const LinearWeight<T> &w, Product product, size_t side) {
  return std::to_string(w.layer) + "." + w.role + "." + std::string(to_string(product)) + (side == 0 ? ".a" : ".b");
}

} // namespace

template <class T> std::map<std::string, float> Model<T>::held_amaxes() {
  std::map<std::string, float> out;
  visit_all([&](LinearGroup<T> &g, const T *, std::span<const T *const>) {
    for (size_t i = 0; i < g.members().size(); ++i) {
      const auto held = g.held_amaxes(i);
      for (const Product p : enumerators<Product>())
        for (size_t side = 0; side < 2; ++side)
          if (held[size_t(p)][side]) out[amax_name(g.members()[i], p, side)] = *held[size_t(p)][side];
    }
  });
  return out;
}

template <class T> void Model<T>::set_held_amaxes(const std::map<std::string, float> &state) {
  visit_all([&](LinearGroup<T> &g, const T *, std::span<const T *const>) {
    for (size_t i = 0; i < g.members().size(); ++i) {
      typename LinearGroup<T>::HeldAmaxes held;
      for (const Product p : enumerators<Product>())
        for (size_t side = 0; side < 2; ++side)
          if (const auto at = state.find(amax_name(g.members()[i], p, side)); at != state.end())
            held[size_t(p)][side] = at->second;
      g.set_held_amaxes(i, held);
    }
  });
}

template struct BlockContext<float>;
template struct BlockContext<double>;
template class Model<float>;
template class Model<double>;

} // namespace nvfp4::models
