// SPDX-License-Identifier: Apache-2.0
// A decoder-only language model: embedding, blocks of mixer and SwiGLU MLP with RMSNorm before each, final
// norm, head. Forward and hand-written backward for one fixed batch shape. T = double is the twin for
// gradient checks.
#pragma once
#include "nvfp4/reference_models/diagnostics/finite.hpp"
#include "nvfp4/reference_models/model/mixer.hpp"

#include <map>

namespace nvfp4::models {

template <class T> class Model {
public:
  /// batch sequences of `length` tokens. `engine` may be null under recipes of FP32 alone. Throws Error for
  /// impossible shapes.
  Model(Backend<T> &backend, OperandEngine *engine, const ModelConfig &config, const Recipe &recipe,
        int64_t batch, int64_t length, bool training);
  ~Model();
  Model(const Model &) = delete;
  Model &operator=(const Model &) = delete;

  /// tokens (batch, length + 1): inputs [:, :-1], targets [:, 1:]; weights (batch, length) of the targets,
  /// empty: all 1. Throws Error for a token outside the vocabulary.
  void set_tokens(std::span<const int32_t> tokens, std::span<const float> weights = {});
  /// Activations and logits.
  void forward(const StepContext &step);
  /// Sum of the weights of the targets.
  [[nodiscard]] double total_weight() const { return total_weight_; }
  /// Weighted sum of cross-entropies in nats. With factor > 0 the logits are replaced by the sum's gradients
  /// times that.
  [[nodiscard]] double loss_sum(double factor);
  /// Weighted mean of this batch, loss_sum over total_weight; gradient_scale likewise.
  [[nodiscard]] double loss(double gradient_scale);
  /// Adds to the parameters' gradients; after loss(gradient_scale > 0).
  void backward(const StepContext &step);

  [[nodiscard]] Parameters<T> &parameters() { return *parameters_; }
  [[nodiscard]] const ModelConfig &config() const { return config_; }
  [[nodiscard]] int64_t batch() const { return batch_; }
  [[nodiscard]] int64_t length() const { return length_; }
  [[nodiscard]] const T *logits() const { return logits_.data(); } // (batch, length, vocabulary)
  /// After parameters were written: what was quantized from them is void.
  void parameters_changed();

  /// Tensors of the last forward pass.
  [[nodiscard]] std::vector<Activation<T>> activations() const;
  /// Softmax logits of a layer in the last forward pass, by sequence and head; empty for linear attention.
  [[nodiscard]] std::vector<AttentionMoments> attention_moments(int64_t layer);
  /// Called in forward with the outputs (rows, hidden) that no activation keeps: attn.o_proj and
  /// mlp.down_proj, or as the family calls the first.
  std::function<void(int64_t layer, std::string_view role, const T *output)> output_observer;
  /// Called after each block's backward for each of its linear layers, and for the head.
  std::function<void(const LinearObservation<T> &)> observer;
  /// Called in backward with each linear layer's own dgrad (rows, in), see LinearGroup::show_input_grads.
  std::function<void(const LinearWeight<T> &, const T *input_grad)> input_grad_observer;
  /// Called in backward for every sequence and head with the matrices of each operator inside mixers; weight
  /// and input are those of one head, gradients of weights null. ruled: only of blocks for which the recipe
  /// has mixer rules; the others' mixers run product by product from then on, with the same bits.
  void observe_operators(std::function<void(const LinearObservation<T> &)> show, bool ruled = false);
  /// Likewise with single matrices, in forward too: see MixerHooks::matrix.
  void observe_matrices(decltype(MixerHooks<T>::matrix) show);
  /// Whether all that linear layers read and made was finite since the last call, x, y and dy: what comes
  /// after them may hide it, since quantization makes numbers of NaN, and gates of infinities.
  [[nodiscard]] bool finite() { return watch_.finite(); }
  /// Called with every tensor of forward and backward as soon as it is there: a module's path and what the
  /// tensor is to it. Those of a mixer come when all of its pass is done.
  std::function<void(const std::string &module, StepTensor what, std::vector<int64_t> shape, const T *data)>
      tracer;
  /// HCP's state by layer, "0.attn.q_proj" of fprop and "0.attn.q_proj.dgrad"; layers that have none are not
  /// in it.
  [[nodiscard]] std::map<std::string, HotChannels> hot_channels();
  /// From now on linear layers are what the recipe makes of them at this step, counted from 0 (LinearGroup::at_step).
  void at_step(int64_t step);
  /// Amaxes that linear layers hold between steps, as "LAYER.ROLE.PRODUCT.a" or ".b".
  [[nodiscard]] std::map<std::string, float> held_amaxes();
  /// Takes those whose layers hold amaxes under this model's recipe; the others are ignored.
  void set_held_amaxes(const std::map<std::string, float> &held);
  /// Those of `state` whose layers have HCP under this model's recipe.
  [[nodiscard]] std::map<std::string, HotChannels>
  hot_channel_layers(const std::map<std::string, HotChannels> &state);
  /// Throws Error for a layer that has no HCP under this recipe, and for indices outside its channels.
  void set_hot_channels(const std::map<std::string, HotChannels> &state);

private:
  struct Block;
  using GroupVisitor = std::function<void(LinearGroup<T> &, const T *, std::span<const T *const>)>;
  void observe(LinearGroup<T> &group, const T *input, std::span<const T *const> grads);
  void visit_all(const GroupVisitor &f);
  /// d_x_ (rows, hidden) from that of the block's output to that of what its MLP was added to.
  void mlp_backward(const StepContext &step, Block &block);
  void trace(const std::string &module, StepTensor what, const T *data, int64_t width);
  void trace_linears(LinearGroup<T> &group, std::span<const T *const> grads);

  Backend<T> &backend_;
  ModelConfig config_;
  Recipe recipe_;
  int64_t batch_, length_;
  std::unique_ptr<Parameters<T>> parameters_;
  Scratch<T> mixer_scratch_;
  FiniteWatch<T> watch_;
  std::vector<std::unique_ptr<Block>> blocks_;
  std::unique_ptr<LinearGroup<T>> head_;
  Array<T> final_norm_, final_rstd_, logits_, row_loss_, weights_;
  Array<T> branch_, d_x_, d_branch_, d_inner_, d_gate_, d_up_, terms_; // shared by the blocks
  Array<int32_t> tokens_, targets_, starts_, positions_;
  double total_weight_ = 0;
  std::vector<float> host_weights_;
};

} // namespace nvfp4::models
