// SPDX-License-Identifier: Apache-2.0
// Runs a checkpoint on given tokens and keeps every tensor.
#include "nvfp4/reference_models/train/forward.hpp"

#include "nvfp4/golden/io/message.hpp"
#include "nvfp4/reference_models/fields/json.hpp"
#include "nvfp4/reference_models/model/taps.hpp"
#include "nvfp4/reference_models/train/first_not_finite.hpp"
#include "nvfp4/reference_models/train/session.hpp"

#include <memory>

namespace nvfp4::models {

ForwardPass run_forward(const ForwardOptions &o, const io::TensorFile &input) {
  const Checkpoint checkpoint = read_checkpoint(o.checkpoint);
  if (!checkpoint.config && o.model.empty())
    throw Error(checkpoint.source + ": does not say which model it is: give --model and --size");
  const ModelConfig config = o.model.empty() ? *checkpoint.config : find_model(o.model, o.size);
  if (input.tensors.size() != 1)
    throw Error(io::printable(input.source) + ": expected one tensor of tokens, got " +
                std::to_string(input.tensors.size()));
  const io::Tensor &ids = input.tensors.front();
  if (ids.dtype != io::DType::i32 || ids.shape.size() != 2 || ids.shape[0] < 1 || ids.shape[1] < 2)
    throw Error(io::printable(input.source) + ": expected int32 tokens of shape [B, T + 1], got " +
                std::string(io::info(ids.dtype).safetensors) + " " + io::shape_text(ids.shape));
  const int64_t batch = ids.shape[0], length = ids.shape[1] - 1;
  Session session =
      make_session(o.device, o.threads, config, load_recipe(o.recipe), batch, length, o.gradients);
  Model<float> &model = *session.model;
  load_checkpoint(checkpoint, model.parameters(), config, false);
  model.parameters_changed();
  if (checkpoint.state.step > 0) model.at_step(checkpoint.state.step - 1); // as in its last step
  model.set_held_amaxes(checkpoint.state.held_amaxes);
  const std::map<std::string, HotChannels> known = model.hot_channel_layers(checkpoint.state.hot_channels);
  model.set_hot_channels(known);
  StepContext step;
  step.seed = o.seed;
  step.training = known.empty(); // nothing stored: choose the hot channels on this input
  step.refreshes_amaxes = false;
  ForwardPass pass;
  io::TensorFile &out = pass.tensors;
  const auto keep = [&](const std::string &name, std::vector<int64_t> shape, const float *data) {
    int64_t n = 1;
    for (const int64_t s : shape) n *= s;
    out.tensors.push_back(io::Tensor::from(name, std::move(shape), to_host(*session.backend, data, n)));
  };
  std::optional<TapCollector> inside;
  if (o.operators) inside.emplace(model, operator_taps(config, o.gradients));
  const auto layers = double(config.layers), share = o.gradients ? 1.0 / 3 : 1.0; // of forward, in the time
  model.output_observer = [&](int64_t layer, std::string_view role, const float *output) {
    keep("act/" + linear_path(config, layer, role), {batch, length, config.hidden}, output);
    if (o.progress && role == config.family->last_role()) o.progress(share * double(layer + 1) / layers);
  };
  FiniteTracer tracer(model);
  model.set_tokens(ids.as<int32_t>(input.source));
  model.forward(step);
  keep("logits", {batch, length, config.vocabulary}, model.logits());
  for (const Activation<float> &a : model.activations()) keep("act/" + a.name, a.shape, a.data);
  pass.loss = model.loss(o.gradients ? 1.0 : 0.0);
  out.tensors.push_back(io::Tensor::from("loss", {}, std::vector<float>{float(pass.loss)}));
  if (o.gradients) {
    model.observer = [&](const LinearObservation<float> &l) {
      keep("output_grad/" + linear_path(config, l.layer, l.role), {batch, length, l.weight->out},
           l.output_grad);
      if (o.progress && l.role == config.family->last_role())
        o.progress(share + (1 - share) * (1 - double(l.layer) / layers));
    };
    model.input_grad_observer = [&](const LinearWeight<float> &w, const float *data) {
      keep("input_grad/" + linear_path(config, w.layer, w.role), {batch, length, w.in}, data);
    };
    model.backward(step);
    for (const ParameterSpec &p : model.parameters().list()) {
      keep("grad/" + p.name, p.shape, model.parameters().gradient(p.name));
      tracer.look(p.name, StepTensor::weight_grad, p.shape, model.parameters().gradient(p.name));
    }
  }
  if (inside) {
    std::vector<io::Tensor> taps = inside->seen();
    if (taps.empty())
      throw Error("recipe '" + o.recipe +
                  "' runs its mixers whole, with BF16 operands: expected mixers f32 or rules for them");
    for (io::Tensor &t : taps) out.tensors.push_back(std::move(t));
  }
  out.metadata["model"] = to_json(config);
  out.metadata["recipe"] = to_json(load_recipe(o.recipe));
  pass.not_finite = tracer.first();
  for (const io::Tensor &t : out.tensors)
    if (const auto n = find_not_finite(t.as<float>(), t.name, StepTensor::output, t.shape))
      pass.not_finite_tensors.push_back({t.name, n->nan, n->inf, n->first});
  return pass;
}

std::string forward_json(const ForwardPass &pass, const std::string &output) {
  nlohmann::ordered_json j = {
      {"loss", pass.loss}, {"tensors", pass.tensors.tensors.size()}, {"output", output}};
  if (!pass.not_finite) return j.dump();
  j["not_finite"] = fields_to_json(kNotFiniteFields, *pass.not_finite);
  j["not_finite_tensors"] = nlohmann::ordered_json::array();
  for (const ForwardPass::NotFiniteTensor &t : pass.not_finite_tensors)
    j["not_finite_tensors"].push_back(
        {{"tensor", t.tensor}, {"nan", t.nan}, {"inf", t.inf}, {"first", t.first}});
  return j.dump();
}

} // namespace nvfp4::models
