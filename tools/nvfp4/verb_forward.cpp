// SPDX-License-Identifier: Apache-2.0
// nvfp4 init and nvfp4 forward: checkpoints to start from, and every tensor of one pass, to compare with
// other programs.
#include "nvfp4/golden/io/message.hpp"
#include "nvfp4/reference_models/fields/json.hpp"
#include "nvfp4/reference_models/train/first_not_finite.hpp"
#include "nvfp4/reference_models/train/session.hpp"
#include "tools/environment.hpp"
#include "tools/nvfp4/numbers.hpp"
#include "tools/nvfp4/verbs.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <memory>

namespace nvfp4::tool {
namespace {

using namespace nvfp4::models;

struct InitOptions {
  std::string model = "gla", size = "tiny", sizes, out;
  uint64_t seed = 1;
};

int run_init(const InitOptions &o) {
  const ModelConfig config = find_model(o.model, o.size, o.sizes);
  check_memory(config, 1, 1, false, 1);
  const std::unique_ptr<Backend<float>> backend = make_cpu_backend(0, asked_isa());
  Parameters<float> parameters(*backend, config, false);
  initialise(parameters, config, o.seed);
  save_checkpoint(o.out, parameters, config, "", {}, false);
  fmt::print("{} {}: {} parameters, seed {}, written to {}\n", config.family->name, config.name,
             parameter_count(config), o.seed, o.out);
  return kEqual;
}

struct ForwardOptions {
  std::string checkpoint, recipe = "bf16", tokens, dump, model, size = "tiny", device = "cpu";
  bool gradients = false, json = false;
  int threads = 0;
  uint64_t seed = 1;
};

int run_forward(const ForwardOptions &o) {
  const Checkpoint checkpoint = read_checkpoint(o.checkpoint);
  if (!checkpoint.config && o.model.empty())
    throw Error(checkpoint.source + ": does not say which model it is: give --model and --size");
  const ModelConfig config = o.model.empty() ? *checkpoint.config : find_model(o.model, o.size);
  const io::TensorFile input = io::read_tensors(o.tokens);
  if (input.tensors.size() != 1)
    throw Error(io::printable(o.tokens) + ": expected one tensor of tokens, got " +
                std::to_string(input.tensors.size()));
  const io::Tensor &ids = input.tensors.front();
  if (ids.dtype != io::DType::i32 || ids.shape.size() != 2 || ids.shape[0] < 1 || ids.shape[1] < 2)
    throw Error(io::printable(o.tokens) + ": expected int32 tokens of shape [B, T + 1], got " +
                std::string(io::info(ids.dtype).safetensors) + " " + io::shape_text(ids.shape));
  const int64_t batch = ids.shape[0], length = ids.shape[1] - 1;
  Session session =
      make_session(o.device, o.threads, config, load_recipe(o.recipe), batch, length, o.gradients);
  Model<float> &model = *session.model;
  load_checkpoint(checkpoint, model.parameters(), config, false);
  model.parameters_changed();
  const std::map<std::string, HotChannels> known = model.hot_channel_layers(checkpoint.state.hot_channels);
  model.set_hot_channels(known);
  StepContext step;
  step.seed = o.seed;
  step.training = known.empty(); // nothing stored: choose the hot channels on this input
  io::TensorFile out;
  const auto keep = [&](const std::string &name, std::vector<int64_t> shape, const float *data) {
    int64_t n = 1;
    for (const int64_t s : shape) n *= s;
    out.tensors.push_back(io::Tensor::from(name, std::move(shape), to_host(*session.backend, data, n)));
  };
  model.output_observer = [&](int64_t layer, std::string_view role, const float *output) {
    const std::string module = role.starts_with("attn.")
                                   ? mixer_path(config, layer) + std::string(role.substr(5))
                                   : block_path(layer) + std::string(role);
    keep("act/" + module, {batch, length, config.hidden}, output);
  };
  FiniteTracer tracer(model);
  model.set_tokens(ids.as<int32_t>(o.tokens));
  model.forward(step);
  keep("logits", {batch, length, config.vocabulary}, model.logits());
  for (const Activation<float> &a : model.activations()) keep("act/" + a.name, a.shape, a.data);
  const double loss = model.loss(o.gradients ? 1.0 : 0.0);
  out.tensors.push_back(io::Tensor::from("loss", {}, std::vector<float>{float(loss)}));
  if (o.gradients) {
    model.backward(step);
    for (const ParameterSpec &p : model.parameters().list()) {
      keep("grad/" + p.name, p.shape, model.parameters().gradient(p.name));
      tracer.look(p.name, StepTensor::weight_grad, p.shape, model.parameters().gradient(p.name));
    }
  }
  out.metadata["model"] = to_json(config);
  out.metadata["recipe"] = to_json(load_recipe(o.recipe));
  io::write_tensors(o.dump, out);
  const std::optional<NotFinite> &first = tracer.first();
  nlohmann::ordered_json sick = nlohmann::ordered_json::array();
  for (const io::Tensor &t : out.tensors)
    if (const auto n = find_not_finite(t.as<float>(), t.name, StepTensor::output, t.shape))
      sick.push_back({{"tensor", t.name}, {"nan", n->nan}, {"inf", n->inf}, {"first", n->first}});
  if (o.json) {
    nlohmann::ordered_json j = {{"loss", loss}, {"tensors", out.tensors.size()}, {"output", o.dump}};
    if (first) j["not_finite"] = fields_to_json(kNotFiniteFields, *first);
    if (first) j["not_finite_tensors"] = sick;
    fmt::print("{}\n", j.dump());
  } else {
    fmt::print("loss {:.6f} nats per token; {} tensors in {}\n", loss, out.tensors.size(), o.dump);
    if (first)
      fmt::print("NOT FINITE: {}; {} of the tensors written are not finite\n", first->text(), sick.size());
  }
  return first ? kNotFinite : kEqual;
}

} // namespace

void register_init(CLI::App &app, int &exit_code) {
  auto *verb = app.add_subcommand("init", "Write a fresh checkpoint");
  auto o = std::make_shared<InitOptions>();
  verb->add_option("--model", o->model, family_names() + ", or a JSON file")->capture_default_str();
  verb->add_option("--size", o->size, "Preset of the family")->capture_default_str();
  verb->add_option("--set", o->sizes, "Changes to the preset, e.g. hidden=256,layers=6");
  verb->add_option("--seed", o->seed, "Of the initial values")->capture_default_str();
  verb->add_option("-o,--output", o->out, "Checkpoint (.safetensors)")->required();
  verb->footer("Example: nvfp4 init --model gla --size tiny --seed 1 -o c.safetensors");
  verb->callback([o, &exit_code] { exit_code = run_init(*o); });
}

void register_forward(CLI::App &app, int &exit_code) {
  auto *verb = app.add_subcommand("forward", "Run a checkpoint on given tokens and write every tensor");
  auto o = std::make_shared<ForwardOptions>();
  verb->add_option("--checkpoint", o->checkpoint,
                   "Written by train or init, or a PyTorch model's safetensors")
      ->required();
  verb->add_option("--recipe", o->recipe, "Built-in name or JSON file")->capture_default_str();
  verb->add_option("--tokens", o->tokens, "int32 [B, T + 1]: inputs [:, :-1], targets [:, 1:]")->required();
  verb->add_option("--dump", o->dump, "Output: logits, loss, act/MODULE, grad/PARAMETER")->required();
  verb->add_flag("--grads", o->gradients, "Also the gradients of the mean loss");
  verb->add_option("--model", o->model, "Where the checkpoint does not say: family or JSON file");
  verb->add_option("--size", o->size, "Preset")->capture_default_str();
  verb->add_option("--seed", o->seed, "Of stochastic rounding")->capture_default_str();
  add_threads(*verb, o->threads);
  verb->add_option("--device", o->device, "cpu or cuda")->capture_default_str();
  verb->add_flag("--json", o->json, "One line of JSON");
  verb->footer("Exit code 4: a parameter or a tensor on the way is not finite; the first is named.\n"
               "Example: nvfp4 forward --checkpoint c.safetensors --recipe chon --tokens t.npy --dump "
               "out.safetensors --grads");
  verb->callback([o, &exit_code] { exit_code = run_forward(*o); });
}

} // namespace nvfp4::tool
