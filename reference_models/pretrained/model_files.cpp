// SPDX-License-Identifier: Apache-2.0
// Which tensors a configuration asks for, and whether the files have just those.
#include "nvfp4/reference_models/pretrained/model_files.hpp"

#include "nvfp4/golden/io/file.hpp"
#include "nvfp4/golden/io/json.hpp"
#include "nvfp4/golden/io/message.hpp"

#include <filesystem>
#include <set>

namespace nvfp4::models::pretrained {
namespace {

using checkpoint::Weight;
namespace fs = std::filesystem;

constexpr int64_t kMostConfig = 16 << 20;

struct Expected {
  std::string name;
  std::vector<int64_t> shape;
};

std::vector<Expected> expected_tensors(const DecoderConfig &c) {
  std::vector<Expected> all = {{kEmbedding, {c.vocabulary, c.hidden}}, {kFinalNorm, {c.hidden}}};
  if (!c.tied) all.push_back({head_weight(c), {c.vocabulary, c.hidden}});
  const int64_t q = c.query_width(), kv = c.kv_width();
  const Architecture &a = *c.architecture;
  for (int64_t layer = 0; layer < c.layers; ++layer) {
    const std::string block = ModelFiles::block(layer);
    const auto linear = [&](const LinearName &n, int64_t out, int64_t in, bool bias) {
      all.push_back({block + std::string(n.module) + ".weight", {out, in}});
      if (bias) all.push_back({block + std::string(n.module) + ".bias", {out}});
    };
    const auto norm = [&](const char *name, int64_t width) {
      all.push_back({block + name + std::string(".weight"), {width}});
    };
    norm("input_layernorm", c.hidden);
    linear(kQuery, q, c.hidden, c.qkv_bias);
    linear(kKey, kv, c.hidden, c.qkv_bias);
    linear(kValue, kv, c.hidden, c.qkv_bias);
    linear(kOutput, c.hidden, q, c.o_bias);
    if (a.qk_norm)
      for (const char *name : {"self_attn.q_norm", "self_attn.k_norm"}) norm(name, c.head_dim);
    norm("post_attention_layernorm", c.hidden);
    if (a.sandwich)
      for (const char *name : {"pre_feedforward_layernorm", "post_feedforward_layernorm"})
        norm(name, c.hidden);
    linear(kGate, c.intermediate, c.hidden, c.mlp_bias);
    linear(kUp, c.intermediate, c.hidden, c.mlp_bias);
    linear(kDown, c.hidden, c.intermediate, c.mlp_bias);
  }
  return all;
}

/// A name in the files without the prefixes that models with other parts than text have; nothing for those
/// parts.
std::optional<std::string> text_name(const DecoderConfig &c, const std::string &name) {
  if (!c.architecture->nested) return name;
  for (const auto &[from, to] :
       {std::pair{"language_model.model.", "model."}, std::pair{"language_model.lm_head.", "lm_head."},
        std::pair{"model.language_model.", "model."}, std::pair{"lm_head.", "lm_head."}})
    if (name.starts_with(from)) return to + name.substr(std::string_view(from).size());
  return std::nullopt;
}

/// Buffers that old releases stored, and scales of a quantized KV cache, which is asked for separately.
bool may_be_left(const std::string &name) {
  return name.ends_with(".rotary_emb.inv_freq") || name.ends_with(".k_scale") || name.ends_with(".v_scale");
}

InputQuantization input_quantization(const nlohmann::ordered_json &config,
                                     const checkpoint::QuantizationConfig &q) {
  if (q.method == "modelopt" && q.algorithm == "NVFP4") return InputQuantization::some;
  if (q.method == "modelopt" && q.algorithm.starts_with("W4A16")) return InputQuantization::none;
  for (const char *key : {"quantization_config", "compression_config"}) {
    const auto at = config.find(key);
    if (at == config.end() || !at->is_object() || !at->contains("config_groups")) continue;
    const auto &groups = (*at)["config_groups"];
    if (!groups.is_object() || groups.empty()) continue;
    size_t with = 0;
    for (const auto &group : groups)
      with +=
          group.is_object() && group.contains("input_activations") && !group["input_activations"].is_null();
    return with == groups.size() ? InputQuantization::some
           : with == 0           ? InputQuantization::none
                                 : InputQuantization::unknown;
  }
  return InputQuantization::unknown;
}

} // namespace

std::string head_weight(const DecoderConfig &config) { return config.tied ? kEmbedding : "lm_head.weight"; }

std::string ModelFiles::block(int64_t layer) { return "model.layers." + std::to_string(layer) + "."; }

ModelFiles::ModelFiles(const std::string &path) : path_(path) {
  const fs::path folder = path.ends_with(".index.json") ? fs::path(path).parent_path() : fs::path(path);
  const std::string file = (folder / "config.json").string(), where = io::printable(file) + ": ";
  std::error_code error;
  if (!fs::exists(file, error))
    throw Error(io::printable(path) +
                ": expected a folder with config.json and .safetensors files, got one without config.json");
  if (const auto size = fs::file_size(file, error); error || int64_t(size) > kMostConfig)
    throw Error(where + "expected a JSON file of at most 16 MiB");
  const std::vector<std::byte> bytes = io::read_file(file);
  const std::string_view text(reinterpret_cast<const char *>(bytes.data()), bytes.size());
  config_ = parse_decoder_config(text, where);
  files_ = checkpoint::open_checkpoint(path);
  if (files_.gguf) throw Error(io::printable(path) + ": holds a GGUF file; expected .safetensors files");
  weights_ = checkpoint::find_weights(files_);
  inputs_ = input_quantization(io::parse_json(text, where), files_.config);
  for (const Weight &w : weights_.all)
    if (const auto name = text_name(config_, w.name)) by_name_.emplace(*name, &w);
  check_tensors();
}

void ModelFiles::check_tensors() {
  const std::string where = io::printable(path_) + ": ";
  std::set<std::string> known;
  for (const Expected &e : expected_tensors(config_)) {
    const auto at = by_name_.find(e.name);
    if (at == by_name_.end())
      throw Error(where + "has no tensor " + e.name + " of " + io::shape_text(e.shape) +
                  ", which a model of these sizes needs");
    const Weight &w = *at->second;
    if (!w.faults.empty()) throw Error(where + "tensor " + e.name + ": " + w.faults.front());
    const bool matrix = e.shape.size() == 2;
    const bool fits = w.container ? matrix && w.batch == 1 && w.rows == e.shape[0] && w.k == e.shape[1]
                                  : w.codes->shape == e.shape;
    if (!fits)
      throw Error(where + "tensor " + e.name + ": expected " + io::shape_text(e.shape) + ", got " + w.kind() +
                  " " + io::shape_text(w.container ? std::vector<int64_t>{w.rows, w.k} : w.codes->shape));
    if (!w.decodable)
      throw Error(where + "tensor " + e.name + ": expected numbers or a known container, got " + w.kind());
    parameters_ += w.elements();
    known.insert(e.name);
  }
  for (const auto &[name, w] : by_name_)
    if (!known.contains(name) && !may_be_left(name) && !(name == "lm_head.weight" && config_.tied))
      throw Error(where + "has the tensor " + io::printable(name) + ", which " +
                  std::string(config_.architecture->name) + " with these settings does not have");
}

const Weight &ModelFiles::weight(const std::string &name) const { return *by_name_.at(name); }

bool ModelFiles::has(const std::string &name) const { return by_name_.contains(name); }

std::vector<float> ModelFiles::values(const std::string &name, int64_t first, int64_t count,
                                      int threads) const {
  const Weight &w = weight(name);
  const bool vector = !w.container && w.codes->shape.size() < 2;
  const int64_t rows = count < 0 ? (vector ? 1 : w.rows) : count;
  std::vector<float> out = checkpoint::values(w, 0, first, rows, threads);
  if (!w.container && w.rows > 0) {
    const auto row = w.codes->bytes.size() / size_t(w.rows);
    checkpoint::MappedFile::forget(w.codes->bytes.subspan(size_t(first) * row, size_t(rows) * row));
  } else {
    checkpoint::MappedFile::forget(w.codes->bytes);
  }
  return out;
}

} // namespace nvfp4::models::pretrained
