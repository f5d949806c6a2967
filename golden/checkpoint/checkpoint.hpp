// SPDX-License-Identifier: Apache-2.0
// A checkpoint as people hold it: a Hugging Face folder, its index, one .safetensors or .gguf file. Opening
// it maps the files and reads their headers; tensors are looked at one by one.
#pragma once
#include "nvfp4/golden/checkpoint/gguf.hpp"
#include "nvfp4/golden/checkpoint/mapped_file.hpp"

#include <map>

namespace nvfp4::checkpoint {

/// What the JSON files beside the tensors say about quantization.
struct QuantizationConfig {
  std::string source;                     ///< file it stands in; empty where there is none
  std::string method;                     ///< quant_method: modelopt, compressed-tensors, fp8, mxfp4, ...
  std::string algorithm;                  ///< quant_algo of ModelOpt, format of compressed-tensors
  bool static_inputs = false;             ///< inputs are quantized by a scale that has to be stored
  bool kv_cache = false;                  ///< the KV cache is quantized
  int64_t block_rows = 0, block_cols = 0; ///< weight_block_size
};

struct Checkpoint {
  std::string path;
  std::string folder;             ///< of config.json; empty for a single file
  std::vector<std::string> files; ///< that hold tensors
  std::vector<MappedFile> mapped;
  std::vector<StoredTensor> tensors; ///< in the order of files, then of their headers; names are unique
  std::map<std::string, std::string> metadata; ///< of all .safetensors files; the strings of a GGUF file
  QuantizationConfig config;
  std::optional<GgufFile> gguf;          ///< of a GGUF file, without its tensors
  std::vector<std::string> not_in_index; ///< tensors of shards that the index does not name

  [[nodiscard]] const StoredTensor *find(const std::string &name) const;

  std::map<std::string, size_t> by_name = {};
};

/// Error in one line for what cannot be read: shards that are missing or cut short, an index that names
/// tensors which no shard has or files elsewhere, a name in two shards, JSON that is not what it should be.
[[nodiscard]] Checkpoint open_checkpoint(const std::string &path);

/// The tensors of one file from memory; for the fuzzer and for tests.
void add_tensors(Checkpoint &checkpoint, std::span<const std::byte> bytes, const std::string &source);

} // namespace nvfp4::checkpoint
