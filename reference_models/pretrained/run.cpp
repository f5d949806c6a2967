// SPDX-License-Identifier: Apache-2.0
// Recipes of presets, and passes over tokens and data.
#include "nvfp4/reference_models/pretrained/run.hpp"

#include "nvfp4/golden/io/message.hpp"
#include "nvfp4/reference_models/fields/json.hpp"
#include "nvfp4/reference_models/pretrained/trained_layers.hpp"

#include <cmath>

namespace nvfp4::models::pretrained {
namespace {

Recipe recipe_of(const RunOptions &o) {
  if (!o.preset.empty() && !o.recipe.empty()) throw Error("give --recipe or --preset, not both");
  if (o.preset.empty() && (o.rotate || o.patch))
    throw Error("--rotate and --patch change a preset: give --preset");
  if (!o.preset.empty()) return preset_recipe(o.preset, o.rotate, o.patch);
  const Recipe recipe = load_recipe(o.recipe.empty() ? "bf16" : o.recipe);
  check_constant(recipe);
  return recipe;
}

} // namespace

Recipe preset_recipe(const std::string &name, bool rotate, bool patch) {
  const Convention &c = find_convention(name);
  const char *format = c.rule.scale == FormatId::ue4m3                                       ? "nvfp4"
                       : c.rule.scale == FormatId::ue8m0 && c.rule.element == FormatId::e2m1 ? "mxfp4"
                       : c.rule.scale == FormatId::ue8m0                                     ? "mxfp8"
                                                                                             : nullptr;
  if (format == nullptr)
    throw Error("convention '" + std::string(c.name) +
                "' gives a format that no recipe has; expected one of NVFP4, MXFP4 or MXFP8");
  using Json = nlohmann::ordered_json;
  const Json operand = {{"format", format}, {"convention", c.name}, {"hadamard", rotate}};
  const Json bf16 = {{"a", "bf16"}, {"b", "bf16"}};
  Json head = {
      {"fprop", {{"a", "bf16"}, {"b", "bf16"}, {"output", "f32"}}}, {"dgrad", bf16}, {"wgrad", bf16}};
  Json serve = {{"fprop", {{"a", operand}, {"b", operand}}}, {"dgrad", bf16}, {"wgrad", bf16}};
  if (patch) serve["hcp"] = Json::object();
  const Json recipe = {
      {"name", std::string(c.name) + (rotate ? "+rotation" : "") + (patch ? "+hcp" : "")},
      {"description", "every linear layer of the blocks by this convention, the head in BF16"},
      {"linears", {{"serve", serve}, {"head", head}}},
      {"default", "serve"},
      {"rules", Json::array({{{"roles", {"lm_head"}}, {"use", "head"}}})}};
  return parse_recipe(recipe.dump(), "preset " + std::string(c.name));
}

Session open_session(const RunOptions &o, bool keep) {
  Session s;
  DecoderOptions options;
  options.serving = {recipe_of(o), o.activations, o.threads};
  options.kv = find_kv_format(o.kv);
  options.keep = keep;
  s.recipe = options.serving.recipe;
  s.files = std::make_unique<ModelFiles>(o.folder);
  s.decoder = std::make_unique<Decoder>(*s.files, options);
  return s;
}

double loss_sum(Decoder &decoder, std::span<const float> logits, std::span<const int32_t> targets,
                std::span<const float> weights) {
  const int64_t rows = int64_t(targets.size()), vocabulary = decoder.config().vocabulary;
  for (const int32_t t : targets)
    if (t < 0 || t >= vocabulary)
      throw Error("target " + std::to_string(t) + ": expected 0 to " + std::to_string(vocabulary - 1));
  std::vector<float> each(targets.size());
  decoder.backend().run(CrossEntropy<float>{rows, vocabulary, logits.data(), targets.data(), weights.data(),
                                            0.0f, each.data(), nullptr});
  double sum = 0;
  for (size_t r = 0; r < each.size(); ++r)
    if (weights[r] != 0.0f) sum += double(each[r]) * double(weights[r]);
  return sum;
}

namespace {

/// (B, T + 1) to inputs and targets (B, T).
struct Batch {
  std::vector<int32_t> inputs, targets;
};
Batch split(std::span<const int32_t> tokens, int64_t batch, int64_t length) {
  Batch b;
  for (int64_t s = 0; s < batch; ++s)
    for (int64_t t = 0; t < length; ++t) {
      b.inputs.push_back(tokens[size_t(s * (length + 1) + t)]);
      b.targets.push_back(tokens[size_t(s * (length + 1) + t + 1)]);
    }
  return b;
}

} // namespace

Forward run_forward(const RunOptions &o, const io::TensorFile &input) {
  const std::string where = io::printable(input.source) + ": ";
  if (input.tensors.size() != 1)
    throw Error(where + "expected one tensor of tokens, got " + std::to_string(input.tensors.size()));
  const io::Tensor &ids = input.tensors.front();
  if (ids.dtype != io::DType::i32 || ids.shape.size() != 2 || ids.shape[0] < 1 || ids.shape[1] < 2)
    throw Error(where + "expected int32 tokens of shape [B, T + 1], got " +
                std::string(io::info(ids.dtype).safetensors) + " " + io::shape_text(ids.shape));
  const int64_t batch = ids.shape[0], length = ids.shape[1] - 1;
  Session s = open_session(o);
  Forward out;
  s.decoder->show = [&](const std::string &module, std::vector<int64_t> shape, const float *data) {
    int64_t n = 1;
    for (const int64_t l : shape) n *= l;
    out.tensors.tensors.push_back(io::Tensor::from(module == "lm_head" ? "logits" : "act/" + module,
                                                   std::move(shape), std::vector<float>(data, data + n)));
  };
  s.decoder->progress = o.progress;
  const Batch b = split(ids.as<int32_t>(input.source), batch, length);
  StepContext step;
  step.seed = o.seed;
  const std::span<const float> logits =
      s.decoder->forward({.tokens = b.inputs, .batch = batch, .length = length, .step = step});
  const std::vector<float> weights(b.targets.size(), 1.0f);
  out.loss = loss_sum(*s.decoder, logits, b.targets, weights) / double(b.targets.size());
  out.tensors.tensors.push_back(io::Tensor::from("loss", {}, std::vector<float>{float(out.loss)}));
  out.tensors.metadata["architecture"] = s.decoder->config().architecture->name;
  out.tensors.metadata["recipe"] = to_json(s.recipe);
  out.products = s.decoder->products();
  out.not_finite = s.decoder->not_finite();
  return out;
}

namespace {

std::string line_of(nlohmann::ordered_json j, const std::optional<NotFinite> &not_finite) {
  if (not_finite) j["not_finite"] = fields_to_json(kNotFiniteFields, *not_finite);
  return j.dump();
}

} // namespace

std::string to_json(const Forward &pass, const std::string &output) {
  return line_of({{"loss", pass.loss},
                  {"tensors", pass.tensors.tensors.size()},
                  {"output", output},
                  {"products", pass.products}},
                 pass.not_finite);
}

const char *hot_channels_text(const EvalResult &r) {
  return r.hot_channels ? "chosen on the first batch" : "none";
}

std::string to_json(const EvalResult &r) {
  return line_of({{"loss", r.loss},
                  {"perplexity", std::exp(r.loss)},
                  {"tokens", r.tokens},
                  {"recipe", r.recipe},
                  {"hot_channels", hot_channels_text(r)},
                  {"products", r.products}},
                 r.not_finite);
}

EvalResult run_eval(const RunOptions &o, const DataSource &data, int64_t batch, int64_t sequence,
                    int64_t batches, int64_t bos) {
  Session s = open_session(o);
  EvalResult out;
  if (data.vocabulary() > s.decoder->config().vocabulary)
    throw Error("the data has tokens up to " + std::to_string(data.vocabulary() - 1) +
                ", the model's vocabulary is " + std::to_string(s.decoder->config().vocabulary));
  if (data.bytes() && s.decoder->config().vocabulary != data.vocabulary())
    throw Error("the data is a text, and a token of this model is no byte: make tokens of it with "
                "tools/tokens --tokenizer and the folder's tokenizer.json");
  std::vector<int32_t> tokens(size_t(batch * (sequence + 1)));
  std::vector<float> weights(size_t(batch * sequence));
  double sum = 0, weight = 0;
  for (int64_t i = 0; i < batches; ++i) {
    data.validation_batch(i, batch, sequence, tokens, weights);
    Batch b = split(tokens, batch, sequence);
    for (int64_t r = 0; bos >= 0 && r < batch; ++r) b.inputs[size_t(r * sequence)] = int32_t(bos);
    StepContext step;
    step.seed = o.seed;
    step.training = i == 0; // chooses the hot channels
    step.refreshes_amaxes = false;
    s.decoder->progress = [&](double f) {
      if (o.progress) o.progress((double(i) + f) / double(batches));
    };
    const auto logits =
        s.decoder->forward({.tokens = b.inputs, .batch = batch, .length = sequence, .step = step});
    sum += loss_sum(*s.decoder, logits, b.targets, weights);
    for (const float w : weights) weight += double(w);
  }
  out.loss = weight > 0 ? sum / weight : 0;
  out.tokens = batches * batch * sequence;
  out.recipe = s.recipe.name;
  out.hot_channels = s.decoder->has_hot_channels();
  out.products = s.decoder->products();
  out.not_finite = s.decoder->not_finite();
  return out;
}

} // namespace nvfp4::models::pretrained
