// SPDX-License-Identifier: Apache-2.0
// Slices in and out of safetensors: a checkpoint with more tensors and two more JSON objects in its metadata.
// Numbers that decide bits are stored as words too, and the words count.
#include "nvfp4/reference_models/slice/slice.hpp"
#include "nvfp4/golden/io/message.hpp"
#include "nvfp4/reference_models/train/fields.hpp"

#include <bit>
#include <cmath>
#include <cstdio>

namespace nvfp4::models {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char *kFormat = "nvfp4-slice";
constexpr const char *kSliceVersion = "1";

template <class T> std::string hex(T value) {
  char text[17];
  if constexpr (sizeof(T) == 4)
    std::snprintf(text, sizeof text, "%08x", std::bit_cast<uint32_t>(value));
  else
    std::snprintf(text, sizeof text, "%016llx",
                  static_cast<unsigned long long>(std::bit_cast<uint64_t>(value)));
  return text;
}

/// One JSON object of the metadata.
Fields metadata_fields(const io::TensorFile &file, const char *key, const std::string &source) {
  const auto at = file.metadata.find(key);
  const std::string where = source + ": metadata \"" + key + "\": ";
  return {at != file.metadata.end() ? parse_json(at->second, where) : Json(), where};
}

/// Takes the tensor out of the file.
template <class T>
std::vector<T> take(io::TensorFile &file, const char *name, const std::vector<int64_t> &shape,
                    const std::string &source) {
  for (size_t i = 0; i < file.tensors.size(); ++i) {
    const io::Tensor &t = file.tensors[i];
    if (t.name != name) continue;
    if (t.shape != shape)
      throw Error(io::message_prefix(source, name) + "expected shape " + io::shape_text(shape) + ", got " +
                  io::shape_text(t.shape));
    const auto values = t.as<T>(source);
    std::vector<T> out(values.begin(), values.end());
    file.tensors.erase(file.tensors.begin() + int64_t(i));
    return out;
  }
  throw Error(source + ": expected tensor '" + name + "', which the file does not have");
}

SliceStep read_step(io::TensorFile &file, const std::string &source) {
  const Fields f = metadata_fields(file, "step_options", source);
  SliceStep s;
  s.step = f.count("step", 1);
  s.seed = f.seed("seed");
  s.accumulation = f.count("accumulation", 1);
  s.batch = f.count("batch", 1);
  s.sequence = f.count("sequence", 1);
  s.learning_rate = std::bit_cast<float>(uint32_t(f.word("learning_rate_hex", 8)));
  if (!std::isfinite(s.learning_rate) || s.learning_rate < 0)
    throw Error(source +
                ": metadata \"step_options\": learning_rate_hex: expected a finite number not below 0");
  s.adamw.beta1 = f.number("beta1", 0, 1);
  s.adamw.beta2 = f.number("beta2", 0, 1);
  s.adamw.epsilon = f.number("epsilon", 0, 1e9);
  s.adamw.weight_decay = f.number("weight_decay", 0, 1e9);
  s.adamw.clip = f.number("clip", 0, 1e300);
  s.tokens = take<int32_t>(file, "tokens", {s.accumulation, s.batch, s.sequence + 1}, source);
  s.weights = take<float>(file, "target_weights", {s.accumulation, s.batch, s.sequence}, source);
  return s;
}

} // namespace

void save_slice(const std::string &path, io::TensorFile before, const SliceStep &s, const StepResult &r) {
  before.metadata["format"] = kFormat;
  before.metadata["version"] = kSliceVersion;
  before.metadata["step_options"] = Json{
      {"step", s.step},
      {"seed", s.seed},
      {"accumulation", s.accumulation},
      {"batch", s.batch},
      {"sequence", s.sequence},
      {"learning_rate", s.learning_rate},
      {"learning_rate_hex", hex(s.learning_rate)},
      {"beta1", s.adamw.beta1},
      {"beta2", s.adamw.beta2},
      {"epsilon", s.adamw.epsilon},
      {"weight_decay", s.adamw.weight_decay},
      {"clip", s.adamw.clip}}.dump();
  before.metadata["result"] = Json{
      {"loss", r.loss},
      {"loss_hex", hex(r.loss)},
      {"gradient_norm", r.gradient_norm},
      {"gradient_norm_hex", hex(r.gradient_norm)},
      {"gradients_sha256", r.gradients},
      {"digest", r.digest}}.dump();
  before.tensors.push_back(io::Tensor::from("tokens", {s.accumulation, s.batch, s.sequence + 1}, s.tokens));
  before.tensors.push_back(
      io::Tensor::from("target_weights", {s.accumulation, s.batch, s.sequence}, s.weights));
  before.tensors.insert(before.tensors.end(), r.tensors.begin(), r.tensors.end());
  io::write_tensors(path, before);
}

bool is_slice(const io::TensorFile &file) {
  const auto at = file.metadata.find("format");
  return at != file.metadata.end() && at->second == kFormat;
}

Slice parse_slice(io::TensorFile file, const std::string &source) {
  const auto get = [&](const char *key) {
    const auto at = file.metadata.find(key);
    return at == file.metadata.end() ? std::string() : at->second;
  };
  if (!is_slice(file))
    throw Error(source + ": expected a training slice, got a file of format " + io::in_quotes(get("format")));
  if (get("version") != kSliceVersion)
    throw Error(source + ": expected a slice of version " + kSliceVersion + ", got version " +
                io::in_quotes(get("version")) + "; use the release that wrote it");
  Slice slice;
  slice.step = read_step(file, source);
  const Fields f = metadata_fields(file, "result", source);
  slice.result.loss = std::bit_cast<float>(uint32_t(f.word("loss_hex", 8)));
  slice.result.gradient_norm = std::bit_cast<double>(f.word("gradient_norm_hex", 16));
  slice.result.gradients = f.digits("gradients_sha256", 64);
  slice.result.digest = f.digits("digest", 16);
  std::vector<io::Tensor> rest;
  for (io::Tensor &t : file.tensors)
    (t.name.starts_with("tap/") || t.name.starts_with("grad/") ? slice.result.tensors : rest)
        .push_back(std::move(t));
  file.tensors = std::move(rest);
  file.metadata["format"] = "nvfp4-checkpoint"; // what is left is one
  slice.before = parse_checkpoint(io::TensorReader(std::move(file)), source);
  if (slice.before.state.step != slice.step.step - 1)
    throw Error(source + ": expected the state before step " + std::to_string(slice.step.step) +
                ", got that of step " + std::to_string(slice.before.state.step));
  if (slice.before.recipe.empty()) throw Error(source + ": metadata \"recipe\": expected a recipe, got none");
  return slice;
}

} // namespace nvfp4::models
