// SPDX-License-Identifier: Apache-2.0
// Which tensors a configuration asks for, and whether the files have just those.
#include "nvfp4/reference_models/pretrained/model_files.hpp"

#include "nvfp4/golden/io/file.hpp"
#include "nvfp4/golden/io/json.hpp"
#include "nvfp4/golden/io/message.hpp"
#include "nvfp4/reference_models/pretrained/gguf_model.hpp"

#include <cmath>
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

using Json = nlohmann::ordered_json;

/// A scheme of compressed-tensors for 8-bit floats as a row of fp8_inputs(), or null.
const Fp8Inputs *fp8_scheme(const Json &scheme) {
  if (scheme.value("num_bits", Json()) != 8 || scheme.value("type", Json()) != "float") return nullptr;
  const Json strategy = scheme.value("strategy", Json());
  const bool dynamic = scheme.value("dynamic", Json()) == true;
  if (strategy == "tensor") return find_fp8_inputs(dynamic ? "fp8-tensor" : "fp8-static");
  if (!dynamic) return nullptr;
  if (strategy == "token") return find_fp8_inputs("fp8-token");
  return strategy == "group" && scheme.value("group_size", Json()) == 128 ? find_fp8_inputs("fp8-group128")
                                                                          : nullptr;
}

/// quantization_config of ModelOpt's later form and of compressed-tensors.
InputQuantization of_groups(const Json &groups) {
  InputQuantization found;
  size_t with = 0;
  bool one = true;
  for (const Json &group : groups) {
    if (!group.is_object() || !group.contains("input_activations") || !group["input_activations"].is_object())
      continue;
    ++with;
    const Fp8Inputs *const fp8 = fp8_scheme(group["input_activations"]);
    one = one && (!fp8 || !found.fp8 || fp8 == found.fp8);
    if (fp8) found.fp8 = fp8;
  }
  if (!one) found.fp8 = nullptr;
  using enum InputQuantization::Kind;
  found.kind = with == groups.size() ? some : with == 0 ? none : unknown;
  return found;
}

InputQuantization input_quantization(const Json &config, const checkpoint::QuantizationConfig &q) {
  using enum InputQuantization::Kind;
  if (q.method == "modelopt") {
    if (q.algorithm == "NVFP4") return {some};
    if (q.algorithm == "FP8") return {some, find_fp8_inputs("fp8-static")};
    if (q.algorithm == "FP8_PER_CHANNEL_PER_TOKEN") return {some, find_fp8_inputs("fp8-token")};
    if (q.algorithm.starts_with("W4A16") || q.algorithm == "FP8_PB_WO") return {none};
  }
  for (const char *key : {"quantization_config", "compression_config"}) {
    const auto at = config.find(key);
    if (at == config.end() || !at->is_object()) continue;
    if (q.method == "fp8") { // Hugging Face's and vLLM's own
      const Json scheme = at->value("activation_scheme", Json());
      const char *const dynamic = q.block_cols == 128 ? "fp8-group128"
                                  : q.block_cols == 0 ? "fp8-tensor"
                                                      : "";
      if (scheme == "static") return {some, find_fp8_inputs("fp8-static")};
      if (scheme == "dynamic") return {some, find_fp8_inputs(dynamic)};
    }
    if (!at->contains("config_groups")) continue;
    const Json &groups = (*at)["config_groups"];
    if (groups.is_object() && !groups.empty()) return of_groups(groups);
  }
  return {};
}

} // namespace

std::string head_weight(const DecoderConfig &config) { return config.tied ? kEmbedding : "lm_head.weight"; }

std::string ModelFiles::block(int64_t layer) { return "model.layers." + std::to_string(layer) + "."; }

void ModelFiles::read_config(const std::string &path) {
  const fs::path folder = path.ends_with(".index.json") ? fs::path(path).parent_path() : fs::path(path);
  const std::string file = (folder / "config.json").string(), where = io::printable(file) + ": ";
  std::error_code error;
  if (!fs::exists(file, error))
    throw Error(io::printable(path) +
                ": expected a folder with config.json and .safetensors files, or a .gguf file, got a folder "
                "without config.json");
  if (const auto size = fs::file_size(file, error); error || int64_t(size) > kMostConfig)
    throw Error(where + "expected a JSON file of at most 16 MiB");
  const std::vector<std::byte> bytes = io::read_file(file);
  const std::string_view text(reinterpret_cast<const char *>(bytes.data()), bytes.size());
  config_ = parse_decoder_config(text, where);
  files_ = checkpoint::open_checkpoint(path);
  if (files_.gguf)
    throw Error(io::printable(path) + ": holds a GGUF file; name that file, or expected .safetensors");
  inputs_ = input_quantization(io::parse_json(text, where), files_.config);
}

ModelFiles::ModelFiles(const std::string &path) : path_(path) {
  if (path.ends_with(".gguf")) {
    files_ = checkpoint::open_checkpoint(path);
    const std::string where = io::printable(path) + ": ";
    if (!files_.gguf) throw Error(where + "expected a GGUF file");
    config_ = parse_decoder_config(gguf_config(files_, where), where);
    inputs_ = {InputQuantization::Kind::none};
  } else {
    read_config(path);
  }
  weights_ = checkpoint::find_weights(files_);
  for (const Weight &w : weights_.all) {
    const auto name = files_.gguf ? gguf_parameter(files_, w.name) : text_name(config_, w.name);
    if (name && !by_name_.emplace(*name, &w).second)
      throw Error(io::printable(path) + ": two tensors are " + io::printable(*name));
  }
  check_tensors();
}

bool ModelFiles::adds_one_to_norms() const { return config_.architecture->one_plus_norm && !files_.gguf; }

std::vector<int64_t> ModelFiles::stored_rows(const std::string &name) const {
  const size_t part = name.rfind('.');
  const std::string module = name.substr(0, part);
  if (!has_turned_heads(files_) || !(module.ends_with(".q_proj") || module.ends_with(".k_proj"))) return {};
  const int64_t dim = config_.head_dim, half = dim / 2,
                rows = module.ends_with(".q_proj") ? config_.query_width() : config_.kv_width();
  std::vector<int64_t> order;
  for (int64_t row = 0; row < rows; ++row)
    order.push_back(row / dim * dim + row % half * 2 + row % dim / half);
  return order;
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

KvScales ModelFiles::kv_scales(int64_t layer) const {
  KvScales scales;
  for (const auto &[letter, scale] : {std::pair{"k", &scales.k}, std::pair{"v", &scales.v}})
    for (const std::string &module :
         {std::string("self_attn."), std::string("self_attn.") + letter + "_proj."}) {
      const std::string name = block(layer) + module + letter + "_scale";
      if (!has(name)) continue;
      const Weight &w = weight(name);
      if (!w.decodable || w.elements() != 1)
        throw Error(io::printable(path_) + ": tensor " + name + ": expected one number, got " + w.kind() +
                    " " + io::shape_text(w.codes->shape));
      *scale = values(name).front();
      if (!(std::isfinite(*scale) && *scale > 0))
        throw Error(io::printable(path_) + ": tensor " + name + ": expected a scale above 0, got " +
                    std::to_string(*scale));
    }
  return scales;
}

std::vector<float> ModelFiles::values(const std::string &name, int64_t first, int64_t count,
                                      int threads) const {
  const Weight &w = weight(name);
  const bool vector = !w.container && w.codes->shape.size() < 2;
  const std::vector<int64_t> order = stored_rows(name);
  const int64_t all = vector ? 1 : w.rows, rows = count < 0 ? all : count;
  std::vector<float> out;
  if (order.empty()) {
    out = checkpoint::values(w, 0, first, rows, threads);
  } else {
    const std::vector<float> stored = checkpoint::values(w, 0, 0, all, threads);
    const int64_t width = vector ? 1 : w.k, wanted = vector ? w.k : rows;
    for (int64_t r = 0; r < wanted; ++r)
      out.insert(out.end(), stored.begin() + order[size_t(first + r)] * width,
                 stored.begin() + (order[size_t(first + r)] + 1) * width);
  }
  if (!w.container && w.rows > 0 && order.empty()) {
    const auto row = w.codes->bytes.size() / size_t(w.rows);
    checkpoint::MappedFile::forget(w.codes->bytes.subspan(size_t(first) * row, size_t(rows) * row));
  } else {
    checkpoint::MappedFile::forget(w.codes->bytes);
  }
  return out;
}

BlockScaled ModelFiles::block_scaled(const std::string &name, int64_t first, int64_t count) const {
  const Weight &w = weight(name);
  const std::vector<int64_t> order = stored_rows(name);
  BlockScaled q = checkpoint::block_scaled(w, 0, order.empty() ? first : 0, order.empty() ? count : w.rows);
  if (!order.empty()) {
    const BlockScaled stored = q;
    q.rows = count;
    q.codes.resize(size_t(count * q.row_bytes()));
    q.scales.resize(size_t(count * q.scale_cols()));
    for (int64_t r = 0; r < count; ++r) {
      const int64_t from = order[size_t(first + r)];
      std::copy_n(stored.codes.begin() + from * q.row_bytes(), q.row_bytes(),
                  q.codes.begin() + r * q.row_bytes());
      std::copy_n(stored.scales.begin() + from * q.scale_cols(), q.scale_cols(),
                  q.scales.begin() + r * q.scale_cols());
    }
  }
  checkpoint::MappedFile::forget(w.codes->bytes);
  return q;
}

} // namespace nvfp4::models::pretrained
