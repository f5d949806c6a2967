// SPDX-License-Identifier: Apache-2.0
// The order of operations of a pass, as model/model.cpp and model/attention_mixer.cpp have it.
#include "nvfp4/reference_models/pretrained/decoder.hpp"

#include "nvfp4/emulator/formats/bf16.hpp"
#include "nvfp4/emulator/numerics/elementary.hpp"
#include "nvfp4/reference_models/model/kv_cache.hpp"
#include "nvfp4/reference_models/model/stored_values.hpp"
#include "nvfp4/reference_models/model/stored_values.hpp"
#include "nvfp4/reference_models/train/session.hpp"

#include <algorithm>

namespace nvfp4::models::pretrained {
namespace {

/// Outputs of the head that are computed at a time, where its product is one of numbers.
constexpr int64_t kHeadRows = 8192;

DecoderOptions bound(DecoderOptions o, const DecoderConfig &c) {
  Recipe &r = o.serving.recipe;
  r = r.for_family(std::string(c.architecture->family));
  if (!r.mixer_rules.empty() || r.mixers != FormatId::f32)
    throw Error("recipe '" + r.name +
                "' has products inside mixers, which pretrained models compute in FP32; use mixers f32 and "
                "no mixer_rules");
  check_gate_inputs(r, find_family(r.family), false);
  if (o.kv.name != KvFormat{}.name && r.kv_cache.format != OperandFormat::f32)
    throw Error("recipe '" + r.name + "' has a kv_cache: leave out --kv " + std::string(o.kv.name) +
                ", or take the recipe without it");
  check_gate_inputs(r, find_family(r.family), false);
  return o;
}

Recipe bf16_recipe(const DecoderConfig &c) {
  return load_recipe("bf16").for_family(std::string(c.architecture->family));
}

} // namespace

KvCache::KvCache(Backend<float> &backend, const DecoderConfig &config, int64_t sequences, int64_t room)
    : batch(sequences), capacity(room), keys(size_t(config.layers)), values(size_t(config.layers)) {
  for (std::vector<Array<float>> *all : {&keys, &values})
    for (Array<float> &a : *all) a.reset(backend, batch * capacity * config.kv_width());
}

struct Decoder::Buffers {
  int64_t rows = 0, positions = 0, logits = 0;
  Array<float> x, normed, middle, branch, q, k, v, o, gate, up, inner, rstd, final_norm, logits_data, chunk;
  Array<float> keys, values, read_k, read_v; ///< of one layer, where there is no cache
  Array<float> cosine, sine, local_cosine, local_sine;
};

struct Decoder::Place {
  const Pass *pass;
  int64_t batch, length, past, rows;
};

Decoder::Decoder(const ModelFiles &files, const DecoderOptions &options)
    : files_(files), config_(files.config()), options_(bound(options, config_)), backend_(), engine_(),
      engines_([&]() -> Engines {
        Session session = make_device("cpu", options_.serving.threads);
        backend_ = std::move(session.backend);
        engine_ = std::move(session.engine);
        return {*backend_, *engine_, files_, options_.serving, bf16_recipe(config_)};
      }()),
      buffers_(std::make_unique<Buffers>()) {
  (void)products(); // throws for what cannot be computed
  for (int64_t layer = 0; layer < config_.layers; ++layer)
    kv_scales_.push_back(options_.kv.scaled() ? files_.kv_scales(layer) : KvScales{});
}

Decoder::~Decoder() = default;

std::vector<std::string> Decoder::products() const {
  std::vector<std::pair<std::string, int64_t>> counts; // in the order of the model
  const auto count = [&](int64_t layer, const LinearName &name) {
    const LayerPlan p = Linears::plan(engines_, layer, name);
    const std::string text =
        p.weights + " weights, inputs " + p.inputs + (p.unit.empty() ? "" : ", on " + p.unit);
    for (auto &[known, n] : counts)
      if (known == text) {
        ++n;
        return;
      }
    counts.emplace_back(text, 1);
  };
  for (int64_t layer = 0; layer < config_.layers; ++layer)
    for (const LinearName &n : {kQuery, kKey, kValue, kOutput, kGate, kUp, kDown}) count(layer, n);
  count(config_.layers, kHead);
  std::vector<std::string> lines;
  for (const auto &[text, n] : counts)
    lines.push_back(std::to_string(n) + (n == 1 ? " layer: " : " layers: ") + text);
  return lines;
}

bool Decoder::has_hot_channels() const {
  return std::any_of(hot_.begin(), hot_.end(), [](const auto &group) {
    return std::any_of(group.second.begin(), group.second.end(),
                       [](const HotChannels &h) { return !h.indices.empty(); });
  });
}

void Decoder::look(const std::string &module, StepTensor what, std::vector<int64_t> shape,
                   const float *data) {
  if (not_finite_) return;
  int64_t n = 1;
  for (const int64_t length : shape) n *= length;
  not_finite_ = find_not_finite({data, size_t(n)}, module, what, std::move(shape));
}

void Decoder::tensor(const Place &p, const std::string &module, const Array<float> &data, int64_t width) {
  const std::vector<int64_t> shape{p.batch, p.length, width};
  look(module, StepTensor::output, shape, data.data());
  if (show) show(module, shape, data.data());
}

const Array<float> &Decoder::vector(const std::string &name, bool plus_one) {
  Array<float> &a = vectors_[name];
  if (a.size() > 0) return a;
  std::vector<float> values = files_.values(name);
  look(name, StepTensor::weight, {int64_t(values.size())}, values.data());
  if (plus_one)
    for (float &v : values) v = 1.0f + v;
  a.reset(*backend_, int64_t(values.size()));
  backend_->upload(a.data(), values.data(), values.size() * sizeof(float));
  return a;
}

void Decoder::norm(int64_t rows, int64_t cols, const std::string &name, const float *x, float *y) {
  const Array<float> &weight = vector(name, files_.adds_one_to_norms());
  backend_->run(
      RmsNormForward<float>{rows, cols, float(config_.epsilon), x, weight.data(), y, buffers_->rstd.data()});
}

void Decoder::linears(const Place &p, int64_t layer, std::span<const LinearName> names, const float *x,
                      std::span<float *const> y) {
  const std::string key = std::to_string(layer) + "." + std::string(names.front().role);
  std::unique_ptr<Linears> &kept = kept_[key];
  const bool fresh = kept == nullptr;
  if (fresh) kept = std::make_unique<Linears>(engines_, layer, names);
  if (!not_finite_) not_finite_ = kept->not_finite();
  StepContext step = p.pass->step;
  const auto known = hot_.find(key);
  step.training = step.training && known == hot_.end();
  if (fresh && known != hot_.end()) kept->set_hot_channels(known->second);
  kept->forward(step, x, p.rows, y);
  if (known == hot_.end()) hot_[key] = kept->hot_channels();
  if (options_.keep)
    kept->forget_numbers();
  else
    kept.reset();
}

void Decoder::make_rope(int64_t positions) {
  Buffers &b = *buffers_;
  if (positions <= b.positions) return;
  const auto fill = [&](const Rotary &r, Array<float> &cosine, Array<float> &sine) {
    const RopeTable<float> table = rope_table<float>(positions, config_.head_dim, r.base, r.scaling);
    for (const auto &[array, values] : {std::pair{&cosine, &table.cosine}, std::pair{&sine, &table.sine}}) {
      array->reset(*backend_, int64_t(values->size()));
      backend_->upload(array->data(), values->data(), values->size() * sizeof(float));
    }
  };
  fill(config_.rotary, b.cosine, b.sine);
  fill(config_.local_rotary, b.local_cosine, b.local_sine);
  b.positions = positions;
}

void Decoder::reserve(const Place &p) {
  Buffers &b = *buffers_;
  make_rope(p.pass->cache != nullptr ? p.pass->cache->capacity : p.length);
  const int64_t logits = p.batch * (p.pass->last_only ? 1 : p.length);
  if (logits > b.logits) {
    b.logits_data.reset(*backend_, logits * config_.vocabulary);
    b.chunk.reset(*backend_, logits * std::min(kHeadRows, config_.vocabulary));
    b.logits = logits;
  }
  if (const int64_t own = p.pass->cache == nullptr ? p.rows * config_.kv_width() : 0; own > b.keys.size())
    for (Array<float> *a : {&b.keys, &b.values}) a->reset(*backend_, own);
  if (p.rows <= b.rows) return;
  for (Array<float> *a : {&b.x, &b.normed, &b.middle, &b.branch, &b.final_norm})
    a->reset(*backend_, p.rows * config_.hidden);
  for (Array<float> *a : {&b.q, &b.o}) a->reset(*backend_, p.rows * config_.query_width());
  for (Array<float> *a : {&b.k, &b.v}) a->reset(*backend_, p.rows * config_.kv_width());
  for (Array<float> *a : {&b.gate, &b.up, &b.inner}) a->reset(*backend_, p.rows * config_.intermediate);
  b.rstd.reset(*backend_, p.rows * config_.heads);
  b.rows = p.rows;
}

void Decoder::embed(const Place &p) {
  Buffers &b = *buffers_;
  for (int64_t r = 0; r < p.rows; ++r) {
    const int32_t token = p.pass->tokens[size_t(r)];
    if (token < 0 || token >= config_.vocabulary)
      throw Error("token " + std::to_string(token) + " at [" + std::to_string(r / p.length) + ", " +
                  std::to_string(r % p.length) + "]: expected 0 to " +
                  std::to_string(config_.vocabulary - 1));
    const std::vector<float> row = files_.values(kEmbedding, token, 1);
    backend_->upload(b.x.data() + r * config_.hidden, row.data(), row.size() * sizeof(float));
  }
  if (config_.architecture->scaled_embedding) {
    float scale = numerics::sqrt(float(config_.hidden));
    const checkpoint::Weight &table = files_.weight(kEmbedding);
    if (!table.container && table.codes->dtype == io::DType::bf16) scale = round_to_bf16(scale);
    if (!table.container && table.codes->dtype == io::DType::f16)
      scale = value_f32(FormatId::f16, encode(FormatId::f16, scale, Rounding::nearest_even, Overflow::ieee));
    backend_->run(Scale<float>{p.rows * config_.hidden, scale, b.x.data()});
  }
  tensor(p, "model.embed_tokens", b.x, config_.hidden);
}

const float *Decoder::kept(const Place &p, float scale, const Array<float> &x, Array<float> &room) {
  const DecoderConfig &c = config_;
  const Recipe &recipe = options_.serving.recipe;
  const bool by_recipe = recipe.kv_cache.format != OperandFormat::f32;
  if (!by_recipe && options_.kv.convention.empty()) return x.data();
  if (room.size() < x.size()) room.reset(*backend_, x.size());
  if (by_recipe)
    read_cached(*backend_, recipe, p.batch, p.length, c.kv_heads, c.head_dim, x.data(), room.data());
  else
    keep_in_blocks(*backend_, options_.kv, scale, recipe.source, p.rows * c.kv_heads, c.head_dim, x.data(),
                   room.data());
  return room.data();
}

void Decoder::attention(const Place &p, int64_t layer, const std::string &path) {
  Buffers &b = *buffers_;
  const DecoderConfig &c = config_;
  float *const projected[] = {b.q.data(), b.k.data(), b.v.data()};
  const LinearName names[] = {kQuery, kKey, kValue};
  linears(p, layer, names, b.normed.data(), projected);
  tensor(p, path + "q_proj", b.q, c.query_width());
  tensor(p, path + "k_proj", b.k, c.kv_width());
  tensor(p, path + "v_proj", b.v, c.kv_width());
  if (c.architecture->qk_norm) {
    norm(p.rows * c.heads, c.head_dim, path + "q_norm.weight", b.q.data(), b.q.data());
    norm(p.rows * c.kv_heads, c.head_dim, path + "k_norm.weight", b.k.data(), b.k.data());
  }
  const bool local = c.local[size_t(layer)];
  const int64_t first = p.past * (c.head_dim / 2); // of the tables
  const auto rope = [&](int64_t heads) {
    return RopeShape<float>{p.rows,
                            p.length,
                            heads,
                            c.head_dim,
                            (local ? b.local_cosine : b.cosine).data() + first,
                            (local ? b.local_sine : b.sine).data() + first};
  };
  backend_->run(RopeForward<float>{rope(c.heads), b.q.data(), b.q.data()});
  backend_->run(RopeForward<float>{rope(c.kv_heads), b.k.data(), b.k.data()});
  tensor(p, path + "q_rotated", b.q, c.query_width());
  tensor(p, path + "k_rotated", b.k, c.kv_width());
  const KvScales &scales = kv_scales_[size_t(layer)];
  const float *const k = kept(p, scales.k, b.k, b.read_k), *const v = kept(p, scales.v, b.v, b.read_v);
  KvCache *const cache = p.pass->cache;
  const CachedAttentionShape<float> shape{
      {p.batch, p.length, c.heads, c.kv_heads, c.head_dim, 1.0f / numerics::sqrt(float(c.query_scalar))},
      p.past,
      cache != nullptr ? cache->capacity : p.length,
      local ? c.window : 0};
  float *const keys = (cache != nullptr ? cache->keys[size_t(layer)] : b.keys).data(),
               *const values = (cache != nullptr ? cache->values[size_t(layer)] : b.values).data();
  backend_->run(KvStore<float>{shape, k, v, keys, values, options_.kv.rounding, scales.k, scales.v});
  backend_->run(CachedAttention<float>{shape, b.q.data(), keys, values, b.o.data()});
  tensor(p, path + "attention", b.o, c.query_width());
  float *const out[] = {b.branch.data()};
  const LinearName output[] = {kOutput};
  linears(p, layer, output, b.o.data(), out);
  tensor(p, path + "o_proj", b.branch, c.hidden);
}

void Decoder::block(const Place &p, int64_t layer) {
  Buffers &b = *buffers_;
  const Architecture &a = *config_.architecture;
  const std::string path = ModelFiles::block(layer);
  const int64_t d = config_.hidden, n = p.rows * d, inner = config_.intermediate;
  const auto normed = [&](const char *name, const Array<float> &x, Array<float> &y) {
    norm(p.rows, d, path + name + ".weight", x.data(), y.data());
    tensor(p, path + name, y, d);
  };
  normed("input_layernorm", b.x, b.normed);
  attention(p, layer, path + "self_attn.");
  if (a.sandwich) normed("post_attention_layernorm", b.branch, b.branch);
  backend_->run(Add<float>{n, b.x.data(), b.branch.data(), b.middle.data()});
  tensor(p, path + "middle", b.middle, d);
  normed(a.sandwich ? "pre_feedforward_layernorm" : "post_attention_layernorm", b.middle, b.normed);
  float *const wide[] = {b.gate.data(), b.up.data()};
  const LinearName names[] = {kGate, kUp};
  linears(p, layer, names, b.normed.data(), wide);
  tensor(p, path + "mlp.gate_proj", b.gate, inner);
  tensor(p, path + "mlp.up_proj", b.up, inner);
  if (a.activation == GateActivation::silu)
    backend_->run(SwigluForward<float>{p.rows * inner, b.gate.data(), b.up.data(), b.inner.data()});
  else
    backend_->run(GegluForward<float>{p.rows * inner, b.gate.data(), b.up.data(), b.inner.data()});
  tensor(p, path + (a.activation == GateActivation::silu ? "mlp.swiglu" : "mlp.geglu"), b.inner, inner);
  float *const out[] = {b.branch.data()};
  const LinearName down[] = {kDown};
  linears(p, layer, down, b.inner.data(), out);
  tensor(p, path + "mlp.down_proj", b.branch, d);
  if (a.sandwich) normed("post_feedforward_layernorm", b.branch, b.branch);
  backend_->run(Add<float>{n, b.middle.data(), b.branch.data(), b.x.data()});
  tensor(p, "model.layers." + std::to_string(layer), b.x, d);
}

void Decoder::head(const Place &p) {
  Buffers &b = *buffers_;
  const int64_t d = config_.hidden, vocabulary = config_.vocabulary;
  Place rows = p;
  if (p.pass->last_only && p.length > 1) {
    for (int64_t s = 0; s < p.batch; ++s)
      backend_->copy(b.x.data() + s * d, b.x.data() + ((s + 1) * p.length - 1) * d,
                     size_t(d) * sizeof(float));
    rows.length = 1;
    rows.rows = p.batch;
  }
  norm(rows.rows, d, kFinalNorm, b.x.data(), b.final_norm.data());
  tensor(rows, "model.norm", b.final_norm, d);
  const LinearName names[] = {kHead};
  const LayerPlan plan = Linears::plan(engines_, config_.layers, kHead);
  const bool numbers = plan.inputs == "bf16" || plan.inputs == "f32"; // each output for itself
  if (!numbers || options_.keep || vocabulary <= kHeadRows) {
    float *const logits[] = {b.logits_data.data()};
    linears(rows, config_.layers, names, b.final_norm.data(), logits);
  } else {
    for (int64_t first = 0; first < vocabulary; first += kHeadRows) {
      const int64_t count = std::min(kHeadRows, vocabulary - first);
      Linears part(engines_, config_.layers, names, first, count);
      if (!not_finite_) not_finite_ = part.not_finite();
      float *const out[] = {b.chunk.data()};
      part.forward(p.pass->step, b.final_norm.data(), rows.rows, out);
      for (int64_t r = 0; r < rows.rows; ++r)
        backend_->copy(b.logits_data.data() + r * vocabulary + first, b.chunk.data() + r * count,
                       size_t(count) * sizeof(float));
    }
  }
  tensor(rows, "lm_head", b.logits_data, vocabulary);
}

std::span<const float> Decoder::forward(const Pass &pass) {
  if (pass.batch < 1 || pass.length < 1 || int64_t(pass.tokens.size()) != pass.batch * pass.length)
    throw Error("expected tokens of shape [" + std::to_string(pass.batch) + ", " +
                std::to_string(pass.length) + "], got " + std::to_string(pass.tokens.size()) + " of them");
  const int64_t past = pass.cache != nullptr ? pass.cache->tokens : 0;
  if (pass.cache != nullptr && (pass.cache->batch != pass.batch || past + pass.length > pass.cache->capacity))
    throw Error("the cache has room for " + std::to_string(pass.cache->capacity) + " tokens of " +
                std::to_string(pass.cache->batch) + " sequences; got " + std::to_string(past + pass.length) +
                " of " + std::to_string(pass.batch));
  if (pass.cache != nullptr && !is_token_by_token(options_.serving.recipe.kv_cache))
    throw Error(
        "recipe '" + options_.serving.recipe.name +
        "' has a kv_cache, whose scales are taken over a whole sequence: take the recipe without it and "
        "--kv, or give --recompute");
  if (past + pass.length > config_.positions)
    throw Error("a sequence of " + std::to_string(past + pass.length) +
                " tokens: the model has max_position_embeddings " + std::to_string(config_.positions));
  const Place p{&pass, pass.batch, pass.length, past, pass.batch * pass.length};
  reserve(p);
  embed(p);
  const double steps = double(config_.layers) + 1;
  for (int64_t layer = 0; layer < config_.layers; ++layer) {
    block(p, layer);
    if (progress) progress(double(layer + 1) / steps);
  }
  head(p);
  if (progress) progress(1);
  if (pass.cache != nullptr) pass.cache->tokens += pass.length;
  return {buffers_->logits_data.data(),
          size_t(pass.batch * (pass.last_only ? 1 : pass.length) * config_.vocabulary)};
}

} // namespace nvfp4::models::pretrained
