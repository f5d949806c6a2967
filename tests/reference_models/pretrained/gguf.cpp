// SPDX-License-Identifier: Apache-2.0
// GGUF files in the names and order of llama.cpp's converter: the words of the Hugging Face folder that they
// were made of.
#include "tests/catch.hpp"
#include "tests/reference_models/pretrained/support.hpp"

#include "nvfp4/emulator/quantize/quantize.hpp"
#include "nvfp4/golden/checkpoint/export.hpp"
#include "nvfp4/golden/checkpoint/gguf.hpp"

using namespace nvfp4;
using namespace nvfp4::models;
using namespace nvfp4::test;

namespace {

template <class T> void put(std::string &out, T value) {
  out.append(reinterpret_cast<const char *>(&value), sizeof value);
}
void put_text(std::string &out, const std::string &text) {
  put(out, uint64_t(text.size()));
  out += text;
}

struct Pairs {
  std::string bytes;
  uint64_t count = 0;
  void text(const std::string &key, const std::string &value) {
    put_text(bytes, key), put(bytes, uint32_t(8)), put_text(bytes, value), ++count;
  }
  void whole(const std::string &key, uint32_t value) {
    put_text(bytes, key), put(bytes, uint32_t(4)), put(bytes, value), ++count;
  }
  void real(const std::string &key, float value) {
    put_text(bytes, key), put(bytes, uint32_t(6)), put(bytes, value), ++count;
  }
  void words(const std::string &key, const std::vector<std::string> &list) {
    put_text(bytes, key), put(bytes, uint32_t(9)), put(bytes, uint32_t(8)), put(bytes, uint64_t(list.size()));
    for (const std::string &w : list) put_text(bytes, w);
    ++count;
  }
};

Pairs pairs_of(const std::string &name, const Json &config) {
  Pairs p;
  p.text("general.architecture", name);
  const auto whole = [&](const char *key, const char *from) {
    p.whole(name + "." + key, config.at(from).get<uint32_t>());
  };
  whole("embedding_length", "hidden_size");
  whole("block_count", "num_hidden_layers");
  whole("attention.head_count", "num_attention_heads");
  whole("attention.head_count_kv", "num_key_value_heads");
  whole("attention.key_length", "head_dim");
  whole("attention.value_length", "head_dim");
  whole("feed_forward_length", "intermediate_size");
  whole("context_length", "max_position_embeddings");
  p.real(name + ".attention.layer_norm_rms_epsilon", config.at("rms_norm_eps").get<float>());
  p.real(name + ".rope.freq_base", config.at("rope_theta").get<float>());
  if (config.contains("sliding_window")) whole("attention.sliding_window", "sliding_window");
  p.words("tokenizer.ggml.tokens", {"a", "b"});
  return p;
}

std::string gguf_name(const std::string &name, bool gemma) {
  const std::map<std::string, std::string> whole = {{"model.embed_tokens.weight", "token_embd.weight"},
                                                    {"model.norm.weight", "output_norm.weight"},
                                                    {"lm_head.weight", "output.weight"}};
  if (const auto at = whole.find(name); at != whole.end()) return at->second;
  const std::map<std::string, std::string> modules = {
      {"input_layernorm", "attn_norm"},
      {"self_attn.q_proj", "attn_q"},
      {"self_attn.k_proj", "attn_k"},
      {"self_attn.v_proj", "attn_v"},
      {"self_attn.o_proj", "attn_output"},
      {"self_attn.q_norm", "attn_q_norm"},
      {"self_attn.k_norm", "attn_k_norm"},
      {"post_attention_layernorm", gemma ? "post_attention_norm" : "ffn_norm"},
      {"pre_feedforward_layernorm", "ffn_norm"},
      {"post_feedforward_layernorm", "post_ffw_norm"},
      {"mlp.gate_proj", "ffn_gate"},
      {"mlp.up_proj", "ffn_up"},
      {"mlp.down_proj", "ffn_down"}};
  const size_t layer = std::string("model.layers.").size(), dot = name.find('.', layer),
               part = name.rfind('.');
  return "blk." + name.substr(layer, dot - layer) + "." + modules.at(name.substr(dot + 1, part - dot - 1)) +
         name.substr(part);
}

/// Rows as convert_hf_to_gguf.py permutes them: (heads, 2, dim / 2) to (heads, dim / 2, 2).
std::vector<float> turned(std::span<const float> x, int64_t heads, int64_t dim, int64_t width) {
  std::vector<float> out;
  for (int64_t h = 0; h < heads; ++h)
    for (int64_t j = 0; j < dim / 2; ++j)
      for (int64_t t = 0; t < 2; ++t) {
        const auto row = x.subspan(size_t((h * dim + t * (dim / 2) + j) * width), size_t(width));
        out.insert(out.end(), row.begin(), row.end());
      }
  return out;
}

/// Blocks of 32 in MXFP4: a scale byte, then element j low and j + 16 high.
std::string mxfp4(std::vector<float> x, int64_t rows, int64_t k) {
  for (float &v : x) v = round_to_bf16(v);
  const BlockScaled q = quantize({x.data(), rows, k}, find_convention("mxfp4"), {.source = FormatId::bf16});
  std::string out;
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t b = 0; b < k / 32; ++b) {
      out += char(q.scale_code(r, b));
      for (int64_t i = 0; i < 16; ++i) out += char(q.code(r, 32 * b + i) | q.code(r, 32 * b + 16 + i) << 4);
    }
  return out;
}

void write_gguf(const std::string &path, const std::string &name, const Json &config,
                const io::TensorFile &tensors, const Pairs &pairs, bool fp4 = false) {
  const bool gemma = name == "gemma3";
  const int64_t dim = config.at("head_dim").get<int64_t>();
  checkpoint::GgufFile file;
  file.pairs = std::as_bytes(std::span(pairs.bytes));
  file.pair_count = pairs.count;
  std::vector<std::string> data;
  for (const io::Tensor &t : tensors.tensors) {
    std::vector<float> x(t.as<float>().begin(), t.as<float>().end());
    const int64_t width = t.shape.size() == 2 ? t.shape[1] : 1;
    const bool q = t.name.find("q_proj") != std::string::npos, k = t.name.find("k_proj") != std::string::npos;
    if (name == "llama" && (q || k))
      x = turned(x, config.at(q ? "num_attention_heads" : "num_key_value_heads").get<int64_t>(), dim, width);
    if (gemma && t.shape.size() == 1)
      for (float &v : x) v = v + 1.0f;
    std::string bytes;
    const bool matrix = t.shape.size() == 2, codes = fp4 && t.name.ends_with("proj.weight");
    if (codes)
      bytes = mxfp4(x, t.shape[0], t.shape[1]);
    else
      for (const float v : x) matrix ? put(bytes, bf16_word(v)) : put(bytes, v);
    file.tensors.push_back({gguf_name(t.name, gemma),
                            codes    ? "MXFP4"
                            : matrix ? "BF16"
                                     : "F32",
                            {},
                            t.shape,
                            {}});
    data.push_back(bytes);
  }
  std::string out = checkpoint::gguf_start(file, path);
  for (const std::string &d : data) {
    out += d;
    out.resize((out.size() + 31) / 32 * 32, '\0');
  }
  write_text(path, out);
}

/// Matrices in BF16, vectors in FP32, as the converter keeps them.
io::TensorFile mixed(const io::TensorFile &file) {
  io::TensorFile out = in_bf16(file);
  for (size_t i = 0; i < out.tensors.size(); ++i)
    if (out.tensors[i].shape.size() == 1) out.tensors[i] = file.tensors[i];
  return out;
}

struct Kind {
  const char *gguf, *architecture;
};
constexpr Kind kKinds[] = {{"llama", "LlamaForCausalLM"},
                           {"qwen2", "Qwen2ForCausalLM"},
                           {"qwen3", "Qwen3ForCausalLM"},
                           {"gemma3", "Gemma3ForCausalLM"}};

Json config_for(const Kind &kind) {
  Json config = config_of(kind.architecture, {.hidden = 64, .layers = 7, .head_dim = 32, .intermediate = 96});
  if (config.contains("sliding_window")) { // what llama.cpp does not read from the file
    config["sliding_window_pattern"] = 6;
    config["query_pre_attn_scalar"] = 32;
  }
  return config;
}

} // namespace

TEST_CASE("a GGUF file has the words of the folder it was made of", "[pretrained][gguf]") {
  const TemporaryFolder folder;
  for (const Kind &kind : kKinds) {
    INFO(kind.gguf);
    const Json config = config_for(kind);
    const io::TensorFile tensors = tensors_of(config);
    const std::string own = (folder.path / kind.gguf).string(), file = own + ".gguf", fp4 = own + "-fp4.gguf";
    write_folder(own, config, mixed(tensors));
    write_gguf(file, kind.gguf, config, tensors, pairs_of(kind.gguf, config));
    for (const char *recipe : {"bf16", "fp32"}) {
      const Seen a = seen_by({.folder = own, .recipe = recipe}),
                 b = seen_by({.folder = file, .recipe = recipe});
      CHECK(a.size() == b.size());
      for (const auto &[name, words] : a) {
        INFO(name);
        CHECK(equal_words(words, b.at(name)));
      }
    }
    // codes: their values in BF16, or inputs quantized as asked
    write_gguf(fp4, kind.gguf, config, tensors, pairs_of(kind.gguf, config), true);
    const std::string stored = own + "-stored";
    checkpoint::ExportOptions o;
    o.target = checkpoint::Target::compressed_tensors, o.convention = "mxfp4";
    (void)checkpoint::export_checkpoint(checkpoint::open_checkpoint(own), stored, o);
    for (const char *activations : {"none", "mxfp4"})
      CHECK(equal_words(seen_by({.folder = fp4, .activations = activations}).at("lm_head"),
                        seen_by({.folder = stored, .activations = activations}).at("lm_head")));
    CHECK(equal_words(seen_by({.folder = fp4}).at("lm_head"),
                      seen_by({.folder = fp4, .activations = "none"}).at("lm_head")));
  }
}

TEST_CASE("GGUF files that are not run are refused in one line", "[pretrained][gguf]") {
  const TemporaryFolder folder;
  const Kind kind = kKinds[0];
  const Json config = config_for(kind);
  const io::TensorFile tensors = tensors_of(config);
  const std::string path = (folder.path / "m.gguf").string();
  const auto refused = [&](const std::function<void(Pairs &, io::TensorFile &)> &change,
                           const std::string &part) {
    Pairs p = pairs_of("llama", config);
    io::TensorFile t = tensors;
    change(p, t);
    write_gguf(path, "llama", config, t, p);
    CHECK_THROWS_WITH(seen_by({.folder = path}), Catch::Contains(part) && !Catch::Contains("\n"));
  };
  refused([](Pairs &p, auto &) { p.whole("llama.expert_count", 8); }, "has stacked experts");
  refused([](Pairs &p, auto &) { p.whole("llama.rope.dimension_count", 16); }, "rope.dimension_count is 16");
  refused([](Pairs &p,
             auto &) { p.text("llama.rope.scaling.type", "yarn"), p.real("llama.rope.scaling.factor", 4); },
          "rotary scaling 'yarn' is not done here");
  refused([](Pairs &p, auto &) { p.bytes[p.bytes.find("block_count")] = 'x'; },
          "expected the number llama.block_count");
  refused([](Pairs &p, auto &) { p.bytes.replace(p.bytes.find("llama", 8), 5, "gpt-2"); },
          "general.architecture is");
  refused([](Pairs &, io::TensorFile &t) { t.tensors.erase(t.tensors.begin() + 5); },
          "has no tensor model.layers.0");
  write_text(path, "no GGUF file");
  CHECK_THROWS_WITH(seen_by({.folder = path}), !Catch::Contains("\n"));
}
