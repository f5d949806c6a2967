// SPDX-License-Identifier: Apache-2.0
// Between slabs and safetensors.
#include "nvfp4/reference_models/train/checkpoint.hpp"
#include "nvfp4/emulator/formats/codec.hpp"
#include "nvfp4/golden/io/json.hpp"
#include "nvfp4/golden/io/message.hpp"
#include "nvfp4/golden/io/sha256.hpp"

#include <algorithm>
#include <array>

namespace nvfp4::models {
namespace {

constexpr const char *format_of(CheckpointKind kind) {
  return kind == CheckpointKind::language ? "nvfp4-checkpoint" : "nvfp4-image-checkpoint";
}
constexpr const char *kCheckpointVersion = "1";

int64_t to_number(const std::string &text, const std::string &source, const char *key) {
  if (text.empty() || text.size() > 18 || text.find_first_not_of("0123456789") != std::string::npos)
    throw Error(source + ": metadata \"" + key + "\": expected a whole number, got " + io::in_quotes(text));
  return std::stoll(text);
}

} // namespace

std::string state_digest(const std::string &digest, int64_t tokens,
                         const std::map<std::string, HotChannels> &hot_channels,
                         const std::map<std::string, float> &held_amaxes) {
  io::Sha256 hash;
  const auto add = [&](const auto &values) { hash.add(std::as_bytes(std::span(values))); };
  const auto number = [&](int64_t n) { add(std::array{n}); };
  add(digest);
  number(tokens);
  for (const auto &[name, hot] : hot_channels) {
    add(name);
    add(std::array{'\0'});
    number(hot.chosen_at);
    number(int64_t(hot.indices.size()));
    add(hot.indices);
    number(int64_t(hot.scores.size()));
    add(hot.scores);
  }
  for (const auto &[name, amax] : held_amaxes) {
    add(name);
    add(std::array{'\0'});
    add(std::array{amax});
  }
  return hash.hex().substr(0, 16);
}

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

io::TensorStream checkpoint_stream(const Parameters<float> &parameters, const ModelConfig &config,
                                   const std::string &recipe, const CheckpointState &state, bool optimizer) {
  return checkpoint_stream(parameters, CheckpointKind::language, to_json(config), recipe, state, optimizer);
}

io::TensorStream checkpoint_stream(const Parameters<float> &parameters, CheckpointKind kind, const std::string &model,
                                   const std::string &recipe, const CheckpointState &state, bool optimizer) {
  io::TensorStream stream;
  std::vector<const float *> device;              // of parameters and moments, which come first
  std::vector<std::span<const std::byte>> hosted; // of the rest
  const auto add = [&](std::string name, const ParameterSpec &p, const float *data) {
    stream.tensors.push_back({std::move(name), io::DType::f32, p.shape});
    device.push_back(data);
  };
  for (const ParameterSpec &p : parameters.list()) {
    add(p.name, p, parameters.value(p.name));
    if (!optimizer) continue;
    add("optimizer.m." + p.name, p, parameters.first_moment(p.name));
    add("optimizer.v." + p.name, p, parameters.second_moment(p.name));
  }
  nlohmann::json chosen = nlohmann::json::object();
  for (const auto &[name, hot] : state.hot_channels) {
    stream.tensors.push_back({"hcp." + name + ".indices", io::DType::i32, {int64_t(hot.indices.size())}});
    hosted.push_back(std::as_bytes(std::span(hot.indices)));
    stream.tensors.push_back({"hcp." + name + ".scores", io::DType::f32, {int64_t(hot.scores.size())}});
    hosted.push_back(std::as_bytes(std::span(hot.scores)));
    chosen[name] = hot.chosen_at;
  }
  stream.metadata = {{"format", format_of(kind)},
                     {"version", kCheckpointVersion},
                     {"model", model},
                     {"recipe", recipe},
                     {"step", std::to_string(state.step)},
                     {"tokens", std::to_string(state.tokens)},
                     {"optimizer", optimizer ? "adamw" : "none"},
                     {"hcp_chosen_at", chosen.dump()}};
  if (!state.held_amaxes.empty()) {
    nlohmann::json held = nlohmann::json::object();
    for (const auto &[name, amax] : state.held_amaxes) held[name] = bit_cast<uint32_t>(amax);
    stream.metadata["held_amaxes"] = held.dump();
  }
  stream.bytes = [&backend = parameters.backend(), sizes = stream.tensors, device = std::move(device),
                  hosted = std::move(hosted),
                  copy = std::vector<float>()](size_t i) mutable -> std::span<const std::byte> {
    if (i >= device.size()) return hosted[i - device.size()];
    const size_t count = sizes[i].bytes() / sizeof(float);
    if (backend.shares_memory()) return std::as_bytes(std::span(device[i], count));
    copy.resize(count);
    backend.download(copy.data(), device[i], count * sizeof(float));
    return std::as_bytes(std::span(copy));
  };
  return stream;
}

void save_checkpoint(const std::string &path, const Parameters<float> &parameters, const ModelConfig &config,
                     const std::string &recipe, const CheckpointState &state, bool optimizer) {
  io::write_safetensors(path, checkpoint_stream(parameters, config, recipe, state, optimizer));
}

Checkpoint read_checkpoint(const std::string &path, CheckpointKind kind) {
  return parse_checkpoint(io::TensorReader(path), io::printable(path), kind);
}

Checkpoint parse_checkpoint(io::TensorReader tensors, const std::string &source, CheckpointKind kind) {
  Checkpoint out;
  out.source = source;
  out.tensors = std::move(tensors);
  const std::map<std::string, std::string> &metadata = out.tensors.metadata();
  const auto get = [&](const char *key) {
    const auto at = metadata.find(key);
    return at == metadata.end() ? std::string() : at->second;
  };
  if (get("format") != format_of(kind)) {
    if (get("format") == format_of(CheckpointKind::images))
      throw Error(out.source + ": is a checkpoint of a network for images; use nvfp4 cnn");
    if (kind == CheckpointKind::images)
      throw Error(out.source + ": expected a checkpoint of nvfp4 cnn, got a file of format " + io::in_quotes(get("format")));
    if (!get("format").empty() && get("format") != "pt")
      throw Error(out.source + ": expected a checkpoint, got a file of format " +
                  io::in_quotes(get("format")));
    return out; // parameters of another program
  }
  if (get("version") != kCheckpointVersion)
    throw Error(out.source + ": expected a checkpoint of version " + kCheckpointVersion + ", got version " +
                io::in_quotes(get("version")) + "; use the release that wrote it");
  out.model = get("model");
  if (kind == CheckpointKind::language) out.config = config_from_json(out.model, out.source + ": model");
  out.recipe = get("recipe");
  out.state.step = to_number(get("step"), out.source, "step");
  out.state.tokens = to_number(get("tokens"), out.source, "tokens");
  out.optimizer = get("optimizer") == "adamw";
  const std::string where = out.source + ": metadata \"hcp_chosen_at\": ";
  const auto chosen = io::parse_json(get("hcp_chosen_at"), where);
  if (!chosen.is_object()) throw Error(where + "expected a JSON object");
  for (const auto &[name, step] : chosen.items()) {
    if (!step.is_number_integer())
      throw Error(where + "expected whole numbers");
    HotChannels hot;
    int found = 0;
    hot.chosen_at = step.get<int64_t>();
    for (size_t i = 0; i < out.tensors.headers().size(); ++i) {
      const std::string &tensor = out.tensors.headers()[i].name;
      if (tensor == "hcp." + name + ".indices") {
        const io::Tensor t = out.tensors.read(i);
        const auto values = t.as<int32_t>(out.source);
        hot.indices.assign(values.begin(), values.end());
        ++found;
      } else if (tensor == "hcp." + name + ".scores") {
        const io::Tensor t = out.tensors.read(i);
        const auto values = t.as<float>(out.source);
        hot.scores.assign(values.begin(), values.end());
        ++found;
      }
    }
    if (found != 2)
      throw Error(out.source + ": expected the tensors hcp." + io::printable(name, 60) +
                  ".indices and .scores");
    out.state.hot_channels[name] = std::move(hot);
  }
  if (const std::string text = get("held_amaxes"); !text.empty()) {
    const std::string at = out.source + ": metadata \"held_amaxes\": ";
    const auto held = io::parse_json(text, at);
    if (!held.is_object()) throw Error(at + "expected a JSON object");
    for (const auto &[name, word] : held.items()) {
      if (!word.is_number_unsigned() || word.get<uint64_t>() > 0xFFFFFFFFu) throw Error(at + "expected FP32 words");
      out.state.held_amaxes[name] = bit_cast<float>(word.get<uint32_t>());
    }
  }
  return out;
}

namespace {

/// Numbers of a file's tensors.
std::map<std::string, size_t> by_name(const io::TensorReader &file) {
  std::map<std::string, size_t> tensors;
  for (size_t i = 0; i < file.headers().size(); ++i) tensors[file.headers()[i].name] = i;
  return tensors;
}

/// tensors: those to be used.
void load(const Checkpoint &checkpoint, std::map<std::string, size_t> tensors, Parameters<float> &parameters, bool optimizer) {
  const io::TensorReader &file = checkpoint.tensors;
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
      const io::TensorHeader &t = file.headers()[at->second];
      if (t.shape != p.shape)
        throw Error(io::message_prefix(checkpoint.source, t.name) + "expected shape " +
                    io::shape_text(p.shape) + " of this model, got " + io::shape_text(t.shape));
      float *to = prefix.empty()             ? parameters.value(p.name)
                  : prefix == "optimizer.m." ? parameters.first_moment(p.name)
                                             : parameters.second_moment(p.name);
      const io::Tensor tensor = file.read(at->second);
      if (tensor.dtype == io::DType::f32) { // no second copy
        const auto values = tensor.as<float>(checkpoint.source);
        parameters.backend().upload(to, values.data(), values.size_bytes());
      } else {
        const std::vector<float> values = as_floats(tensor, checkpoint.source);
        parameters.backend().upload(to, values.data(), values.size() * sizeof(float));
      }
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

} // namespace

void load_checkpoint(const Checkpoint &checkpoint, Parameters<float> &parameters, bool optimizer) {
  load(checkpoint, by_name(checkpoint.tensors), parameters, optimizer);
}

void load_checkpoint(const Checkpoint &checkpoint, Parameters<float> &parameters, const ModelConfig &config,
                     bool optimizer) {
  const io::TensorReader &file = checkpoint.tensors;
  std::map<std::string, size_t> tensors = by_name(file);
  if (config.tie && tensors.contains("lm_head.weight")) {
    const auto table = tensors.find(embedding(config));
    if (table != tensors.end() &&
        file.read(table->second).data != file.read(tensors.at("lm_head.weight")).data)
      throw Error(io::message_prefix(checkpoint.source, "lm_head.weight") +
                  "differs from the embedding, to which this model ties it; use a model with \"tie\": false");
    tensors.erase("lm_head.weight");
  }
  load(checkpoint, std::move(tensors), parameters, optimizer);
}

} // namespace nvfp4::models
