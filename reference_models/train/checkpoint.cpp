// SPDX-License-Identifier: Apache-2.0
// Between slabs and safetensors.
#include "reference_models/train/checkpoint.hpp"
#include "emulator/formats/codec.hpp"
#include "golden/io/message.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>

namespace nvfp4::models {
namespace {

constexpr const char *kFormat = "nvfp4-checkpoint";
constexpr const char *kVersion = "1";

io::Tensor fetch(Backend<float> &backend, std::string name, const ParameterSpec &spec, const float *data) {
  const std::vector<float> values = to_host(backend, data, spec.count());
  return io::Tensor::from(std::move(name), spec.shape, values);
}

int64_t to_number(const std::string &text, const std::string &source, const char *key) {
  if (text.empty() || text.size() > 18 || text.find_first_not_of("0123456789") != std::string::npos)
    throw Error(source + ": metadata \"" + key + "\": expected a whole number, got " + io::in_quotes(text));
  return std::stoll(text);
}

} // namespace

std::vector<float> as_floats(const io::Tensor &tensor, const std::string &source) {
  switch (tensor.dtype) {
  case io::DType::f32: {
    const auto values = tensor.as<float>(source);
    return {values.begin(), values.end()};
  }
  case io::DType::bf16:
  case io::DType::f16: {
    const FormatId id = tensor.dtype == io::DType::bf16 ? FormatId::bf16 : FormatId::f16;
    std::vector<float> out;
    for (const uint16_t word : tensor.as<uint16_t>(source)) out.push_back(value_f32(id, word));
    return out;
  }
  default:
    throw Error(io::message_prefix(source, tensor.name) + "expected F32, BF16 or F16, got " +
                std::string(io::info(tensor.dtype).safetensors));
  }
}

io::TensorFile checkpoint_file(const Parameters<float> &parameters, const ModelConfig &config,
                               const std::string &recipe, const CheckpointState &state, bool optimizer) {
  io::TensorFile file;
  nlohmann::json chosen = nlohmann::json::object();
  for (const ParameterSpec &p : parameters.list()) {
    file.tensors.push_back(fetch(parameters.backend(), p.name, p, parameters.value(p.name)));
    if (!optimizer) continue;
    file.tensors.push_back(
        fetch(parameters.backend(), "optimizer.m." + p.name, p, parameters.first_moment(p.name)));
    file.tensors.push_back(
        fetch(parameters.backend(), "optimizer.v." + p.name, p, parameters.second_moment(p.name)));
  }
  for (const auto &[name, hot] : state.hot_channels) {
    file.tensors.push_back(
        io::Tensor::from("hcp." + name + ".indices", {int64_t(hot.indices.size())}, hot.indices));
    file.tensors.push_back(
        io::Tensor::from("hcp." + name + ".scores", {int64_t(hot.scores.size())}, hot.scores));
    chosen[name] = hot.chosen_at;
  }
  file.metadata["format"] = kFormat;
  file.metadata["version"] = kVersion;
  file.metadata["model"] = to_json(config);
  file.metadata["recipe"] = recipe;
  file.metadata["step"] = std::to_string(state.step);
  file.metadata["tokens"] = std::to_string(state.tokens);
  file.metadata["optimizer"] = optimizer ? "adamw" : "none";
  file.metadata["hcp_chosen_at"] = chosen.dump();
  return file;
}

void save_checkpoint(const std::string &path, const Parameters<float> &parameters, const ModelConfig &config,
                     const std::string &recipe, const CheckpointState &state, bool optimizer) {
  io::write_tensors(path, checkpoint_file(parameters, config, recipe, state, optimizer));
}

Checkpoint read_checkpoint(const std::string &path) {
  return parse_checkpoint(io::read_tensors(path), io::printable(path));
}

Checkpoint parse_checkpoint(io::TensorFile file, const std::string &source) {
  Checkpoint out;
  out.source = source;
  out.file = std::move(file);
  const auto get = [&](const char *key) {
    const auto at = out.file.metadata.find(key);
    return at == out.file.metadata.end() ? std::string() : at->second;
  };
  if (get("format") != kFormat) {
    if (!get("format").empty() && get("format") != "pt")
      throw Error(out.source + ": expected a checkpoint, got a file of format " +
                  io::in_quotes(get("format")));
    return out; // parameters of another program
  }
  if (get("version") != kVersion)
    throw Error(out.source + ": expected a checkpoint of version " + kVersion + ", got version " +
                io::in_quotes(get("version")) + "; use the release that wrote it");
  out.config = config_from_json(get("model"), out.source + ": model");
  out.recipe = get("recipe");
  out.state.step = to_number(get("step"), out.source, "step");
  out.state.tokens = to_number(get("tokens"), out.source, "tokens");
  out.optimizer = get("optimizer") == "adamw";
  const auto chosen = nlohmann::json::parse(get("hcp_chosen_at"), nullptr, false);
  if (!chosen.is_object()) throw Error(out.source + ": metadata \"hcp_chosen_at\": expected a JSON object");
  for (const auto &[name, step] : chosen.items()) {
    if (!step.is_number_integer())
      throw Error(out.source + ": metadata \"hcp_chosen_at\": expected whole numbers");
    HotChannels hot;
    hot.chosen_at = step.get<int64_t>();
    for (const io::Tensor &t : out.file.tensors) {
      if (t.name == "hcp." + name + ".indices") {
        const auto values = t.as<int32_t>(out.source);
        hot.indices.assign(values.begin(), values.end());
      } else if (t.name == "hcp." + name + ".scores") {
        const auto values = t.as<float>(out.source);
        hot.scores.assign(values.begin(), values.end());
      }
    }
    out.state.hot_channels[name] = std::move(hot);
  }
  return out;
}

void load_checkpoint(const Checkpoint &checkpoint, Parameters<float> &parameters, const ModelConfig &config,
                     bool optimizer) {
  std::map<std::string, const io::Tensor *> tensors;
  for (const io::Tensor &t : checkpoint.file.tensors) tensors[t.name] = &t;
  if (config.tie && tensors.contains("lm_head.weight")) {
    const auto table =
        tensors.find(config.softmax() ? "model.embed_tokens.weight" : "model.embeddings.weight");
    if (table != tensors.end() && table->second->data != tensors.at("lm_head.weight")->data)
      throw Error(io::message_prefix(checkpoint.source, "lm_head.weight") +
                  "differs from the embedding, to which this model ties it; use a model with \"tie\": false");
    tensors.erase("lm_head.weight");
  }
  if (optimizer && !checkpoint.optimizer)
    throw Error(checkpoint.source + ": has no optimizer state: it cannot continue a run, only start one");
  std::vector<std::string> missing;
  for (const ParameterSpec &p : parameters.list())
    for (const std::string prefix : {"", "optimizer.m.", "optimizer.v."}) {
      if (!prefix.empty() && !optimizer) {
        tensors.erase(prefix + p.name);
        continue;
      }
      const auto at = tensors.find(prefix + p.name);
      if (at == tensors.end()) {
        missing.push_back(prefix + p.name);
        continue;
      }
      const io::Tensor &t = *at->second;
      if (t.shape != p.shape)
        throw Error(io::message_prefix(checkpoint.source, t.name) + "expected shape " +
                    io::shape_text(p.shape) + " of this model, got " + io::shape_text(t.shape));
      const std::vector<float> values = as_floats(t, checkpoint.source);
      float *to = prefix.empty()             ? parameters.value(p.name)
                  : prefix == "optimizer.m." ? parameters.first_moment(p.name)
                                             : parameters.second_moment(p.name);
      parameters.backend().upload(to, values.data(), values.size() * sizeof(float));
      tensors.erase(at);
    }
  if (!missing.empty())
    throw Error(checkpoint.source + ": expected tensor " + io::in_quotes(missing.front()) +
                (missing.size() > 1 ? " and " + std::to_string(missing.size() - 1) + " more" : "") +
                ", which the file does not have");
  std::erase_if(tensors, [](const auto &t) { return t.first.starts_with("hcp."); });
  if (!tensors.empty())
    throw Error(checkpoint.source + ": tensor " + io::in_quotes(tensors.begin()->first) +
                " is not a parameter of this model; is it the right --model and --size?");
}

} // namespace nvfp4::models
