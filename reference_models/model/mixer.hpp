// SPDX-License-Identifier: Apache-2.0
// The token mixer of a block: what differs between the model families.
#pragma once
#include "nvfp4/reference_models/diagnostics/finite.hpp"
#include "nvfp4/reference_models/linear/linear.hpp"
#include "nvfp4/reference_models/model/parameters.hpp"

#include <functional>

namespace nvfp4::models {

/// A tensor of the last forward pass, on the device.
template <class T> struct Activation {
  std::string name; ///< module path, e.g. "model.layers.0.attn.q_proj" for that module's output
  std::vector<int64_t> shape;
  const T *data;
};

/// One linear layer as its backward pass sees it.
template <class T> struct LinearObservation {
  const LinearWeight<T> *weight;
  std::string_view role;
  int64_t layer, rows;
  const T *input;       // (rows, in)
  const T *output_grad; // (rows, out)
  const LinearRecipe *recipe;
  // of an operator inside a mixer
  uint64_t stream = 0, weight_stream = 0; ///< linear/operator_products.hpp
  int64_t sequence = 0;                   ///< of the micro-batch
};

/// What a block needs of its model.
template <class T> struct BlockContext {
  Backend<T> &backend;
  OperandEngine *engine;
  const Recipe &recipe;
  const ModelConfig &config;
  Parameters<T> &parameters;
  int64_t layer, batch, length;

  [[nodiscard]] int64_t rows() const { return batch * length; }
  /// The linear layer `role` whose parameters stand at path + ".weight" and, if there, path + ".bias";
  /// `number` is its own within the block.
  [[nodiscard]] LinearWeight<T> linear(const std::string &role, const std::string &path, int number) const;
  /// Linear layers of the mixer with one input, by their modules' names in the family's row.
  [[nodiscard]] std::unique_ptr<LinearGroup<T>>
  linears(std::initializer_list<std::string_view> modules) const;
};

/// What a recipe with mixers in BF16 runs: the definitions' shapes of a model, and the unit.
[[nodiscard]] bf16_gla::Shape bf16_gla_shape(const ModelConfig &config, int64_t batch, int64_t length);
[[nodiscard]] tensorcore::AttentionShape bf16_attention_shape(const ModelConfig &config, int64_t batch,
                                                              int64_t length);
[[nodiscard]] const Unit &mixer_unit(const Recipe &recipe);
/// Throws Error, naming the recipe, where it wants mixers that this model cannot have.
void check_mixers(const ModelConfig &config, const Recipe &recipe, int64_t batch, int64_t length,
                  bool double_precision);

/// Where in a sequence a matrix of an operator inside a mixer stands; -1: it is of the whole sequence, or
/// chunk.
struct OperatorPart {
  int64_t chunk = -1, sub_chunk = -1;
  auto operator<=>(const OperatorPart &) const = default;
};

/// What a model wants to know of the inside of its mixers.
template <class T> struct MixerHooks {
  FiniteWatch<T> *watch = nullptr; ///< is shown what quantized products read and make, which would hide NaN
  /// Called with what lies between such products, as Model::tracer.
  std::function<void(const std::string &module, StepTensor what, std::vector<int64_t> shape, const T *data)>
      trace = {};
  /// Called in backward for every head with the matrices of each operator inside the mixer
  /// (family/mixer_operators.hpp).
  std::function<void(const LinearObservation<T> &)> observer = {};
  /// Called with each such matrix as soon as a product has read or made it, head after head of a sequence's
  /// part: x, w and y in forward, dy, dx and dw in backward. What is added to something is shown as the sum.
  std::function<void(int64_t layer, std::string_view role, StepTensor what, OperatorPart part, const T *data,
                     int64_t rows, int64_t cols)>
      matrix = {};
  /// Whether somebody looks at those matrices.
  [[nodiscard]] bool wants_operators() const { return bool(observer) || bool(matrix); }
};

template <class T> class Mixer {
public:
  virtual ~Mixer() = default;
  /// y (rows, hidden) from x (rows, hidden), which must stay until backward.
  virtual void forward(const StepContext &step, const T *x, T *y) = 0;
  /// dx (rows, hidden) from dy; parameter gradients are added to.
  virtual void backward(const StepContext &step, const T *x, const T *dy, T *dx) = 0;
  /// Calls f(group, input, output gradients) for every group of linear layers; the gradients are those of the
  /// last backward pass, null before one.
  virtual void
  groups(const std::function<void(LinearGroup<T> &, const T *input, std::span<const T *const>)> &f) = 0;
  /// Appends this mixer's tensors of the last forward pass.
  virtual void activations(std::vector<Activation<T>> &out) const = 0;
  /// Logits of the last forward pass, by sequence and head; empty where there is no softmax.
  [[nodiscard]] virtual std::vector<AttentionMoments> attention_moments() { return {}; }
  MixerHooks<T> hooks;

protected:
  /// Traces the activations but for the last `behind`, which products inside the mixer are still to make.
  void trace_activations(size_t behind) const {
    std::vector<Activation<T>> all; // in the order of computation
    activations(all);
    for (size_t i = 0; i + behind < all.size(); ++i)
      hooks.trace(all[i].name, StepTensor::output, all[i].shape, all[i].data);
  }
};

/// Scratch that all layers share: used within one call only. Sized by the largest request.
template <class T> class Scratch {
public:
  explicit Scratch(Backend<T> &backend) : backend_(&backend) {}
  /// At least n elements; the request is made while the model is built.
  void reserve(size_t slot, int64_t n) {
    if (slots_.size() <= slot) slots_.resize(slot + 1);
    if (slots_[slot].size() < n) slots_[slot].reset(*backend_, n);
  }
  [[nodiscard]] T *operator[](size_t slot) const { return slots_[slot].data(); }

private:
  Backend<T> *backend_;
  std::vector<Array<T>> slots_;
};

/// The mixer of the configuration's family.
template <class T> std::unique_ptr<Mixer<T>> make_mixer(const BlockContext<T> &context, Scratch<T> &scratch);
template <class T> std::unique_ptr<Mixer<T>> make_gla(const BlockContext<T> &context, Scratch<T> &scratch);
template <class T>
std::unique_ptr<Mixer<T>> make_attention(const BlockContext<T> &context, Scratch<T> &scratch);
template <class T> std::unique_ptr<Mixer<T>> make_delta(const BlockContext<T> &context, Scratch<T> &scratch);
template <class T> std::unique_ptr<Mixer<T>> make_slots(const BlockContext<T> &context, Scratch<T> &scratch);
template <class T> std::unique_ptr<Mixer<T>> make_scan(const BlockContext<T> &context, Scratch<T> &scratch);

} // namespace nvfp4::models
