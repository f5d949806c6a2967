// SPDX-License-Identifier: Apache-2.0
// A pretrained decoder, forward alone: embedding, blocks, head, layer by layer from the mapped files. What a
// training family has as well gives that model's words under the same recipe.
#pragma once
#include "nvfp4/reference_models/pretrained/kv_format.hpp"
#include "nvfp4/reference_models/pretrained/linears.hpp"

#include <functional>

namespace nvfp4::models::pretrained {

/// Keys and values of `tokens` tokens of each of `batch` sequences, of all layers.
class KvCache {
public:
  /// Room for `capacity` tokens.
  KvCache(Backend<float> &backend, const DecoderConfig &config, int64_t batch, int64_t capacity);

  int64_t batch, capacity, tokens = 0;
  std::vector<Array<float>> keys, values; ///< a layer each; kernels/cached_attention.hpp has the order
};

struct DecoderOptions {
  ServingOptions serving;
  KvFormat kv = {}; ///< of keys and values before attention reads them, with a cache and without
  /// Operands stay in memory from one pass to the next (generation); else one layer is there at a time.
  bool keep = false;
};

class Decoder {
public:
  /// `files` must outlive it. Error for recipes with products inside mixers, for a kv_cache beside `kv`, and
  /// for scales of the cache that are none.
  Decoder(const ModelFiles &files, const DecoderOptions &options);
  ~Decoder();
  Decoder(const Decoder &) = delete;
  Decoder &operator=(const Decoder &) = delete;

  /// What a pass computes.
  struct Pass {
    std::span<const int32_t> tokens; // (batch, length)
    int64_t batch = 1, length = 0;
    KvCache *cache = nullptr; ///< the tokens follow those in it and are added; null: they begin
    bool last_only = false;   ///< logits of the last token of each sequence alone
    StepContext step = {};
  };
  /// (batch, length or 1, vocabulary), valid until the next pass. Error for tokens outside the vocabulary,
  /// and where a sequence gets longer than the cache or max_position_embeddings.
  std::span<const float> forward(const Pass &pass);

  /// Called with every tensor as soon as it is there: a module's path, its shape.
  std::function<void(const std::string &module, std::vector<int64_t> shape, const float *data)> show;
  std::function<void(double)> progress; ///< of a pass; what it throws ends the work
  /// The first weight or tensor since the decoder was made that has NaN or Inf.
  [[nodiscard]] const std::optional<NotFinite> &not_finite() const { return not_finite_; }
  /// How the linear layers are computed, a line for each way: "21 layers: F32 weights, inputs bf16, on UNIT".
  [[nodiscard]] std::vector<std::string> products() const;
  /// Whether HCP's channels were chosen.
  [[nodiscard]] bool has_hot_channels() const;

  [[nodiscard]] const DecoderConfig &config() const { return config_; }
  [[nodiscard]] Backend<float> &backend() { return *backend_; }

private:
  struct Buffers;
  struct Place; ///< of a pass's rows

  void look(const std::string &module, StepTensor what, std::vector<int64_t> shape, const float *data);
  void tensor(const Place &p, const std::string &module, const Array<float> &data, int64_t width);
  /// y[i] of linear layers that share an input.
  void linears(const Place &p, int64_t layer, std::span<const LinearName> names, const float *x,
               std::span<float *const> y);
  void norm(int64_t rows, int64_t cols, const std::string &name, const float *x, float *y);
  void embed(const Place &p);
  void block(const Place &p, int64_t layer);
  void attention(const Place &p, int64_t layer, const std::string &path);
  /// What is kept of keys or values: x itself, or `room` with it in blocks.
  const float *kept(const Place &p, float scale, const Array<float> &x, Array<float> &room);
  void head(const Place &p);
  const Array<float> &vector(const std::string &name, bool plus_one);
  void reserve(const Place &p);
  void make_rope(int64_t positions);

  const ModelFiles &files_;
  DecoderConfig config_;
  DecoderOptions options_;
  std::unique_ptr<Backend<float>> backend_;
  std::unique_ptr<OperandEngine> engine_;
  Engines engines_;
  std::unique_ptr<Buffers> buffers_;
  std::map<std::string, Array<float>> vectors_;
  std::vector<KvScales> kv_scales_; ///< by layer
  std::map<std::string, std::unique_ptr<Linears>> kept_;
  std::map<std::string, std::vector<HotChannels>> hot_;
  std::optional<NotFinite> not_finite_;
};

} // namespace nvfp4::models::pretrained
