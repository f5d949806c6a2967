// SPDX-License-Identifier: Apache-2.0
// Finds the files of a checkpoint, holds the index against the shards, and reads what config.json says of
// quantization.
#include "nvfp4/golden/checkpoint/checkpoint.hpp"
#include "nvfp4/golden/io/file.hpp"
#include "nvfp4/golden/io/message.hpp"
#include "nvfp4/golden/io/safetensors.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <filesystem>

namespace nvfp4::checkpoint {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

constexpr const char *kIndex = "model.safetensors.index.json";
constexpr uint64_t kMostJson = 256 << 20;
constexpr int kMostDepth = 32;

json read_json(const fs::path &path) {
  const MappedFile file(path.string());
  if (file.bytes().size() > kMostJson)
    throw Error(io::printable(path.string()) + ": expected a JSON file of at most 256 MiB, got " +
                std::to_string(file.bytes().size()) + " bytes");
  const auto *text = reinterpret_cast<const char *>(file.bytes().data());
  bool deep = false;
  const auto shallow = [&](int depth, json::parse_event_t, json &) {
    deep = deep || depth > kMostDepth;
    return !deep;
  };
  const json j = json::parse(text, text + file.bytes().size(), shallow, false);
  if (deep || j.is_discarded() || !j.is_object())
    throw Error(io::printable(path.string()) + ": expected a JSON object, got " +
                (deep ? "one nested too deep" : "something else or broken JSON"));
  return j;
}

std::string text_of(const json &j, const char *key) {
  const auto it = j.find(key);
  return it != j.end() && it->is_string() ? it->get<std::string>() : "";
}

/// The member of that name if it is an object, else an empty one.
json object_of(const json &j, const char *key) {
  if (!j.is_object() || !j.contains(key) || !j[key].is_object()) return json::object();
  return j[key];
}

/// Inputs that compressed-tensors and ModelOpt's later form describe need a stored scale unless they are
/// dynamic.
bool has_static_inputs(const json &config) {
  const json groups = object_of(config, "config_groups");
  return std::any_of(groups.begin(), groups.end(), [](const json &group) {
    const json inputs = object_of(group, "input_activations");
    return inputs.contains("dynamic") && (inputs["dynamic"] == "local" || inputs["dynamic"] == false);
  });
}

void read_config(Checkpoint &c) {
  const fs::path folder = c.folder;
  const fs::path main = folder / "config.json", modelopt = folder / "hf_quant_config.json";
  std::error_code ignored;
  if (fs::exists(modelopt, ignored)) {
    const json q = object_of(read_json(modelopt), "quantization");
    c.config.source = modelopt.filename().string();
    c.config.method = "modelopt";
    c.config.algorithm = text_of(q, "quant_algo");
    c.config.kv_cache = !text_of(q, "kv_cache_quant_algo").empty();
    c.config.static_inputs =
        c.config.algorithm == "NVFP4" || c.config.algorithm == "FP8" || c.config.algorithm == "NVFP4_AWQ";
  }
  if (!fs::exists(main, ignored)) return;
  const json all = read_json(main);
  json q = object_of(all, "quantization_config");
  if (q.empty()) q = object_of(all, "compression_config");
  if (q.empty()) return;
  const json blocks = q.value("weight_block_size", json());
  if (blocks.is_array() && blocks.size() == 2 && blocks[0].is_number_unsigned() &&
      blocks[1].is_number_unsigned()) {
    c.config.block_rows = int64_t(std::min<uint64_t>(blocks[0].get<uint64_t>(), 1 << 20));
    c.config.block_cols = int64_t(std::min<uint64_t>(blocks[1].get<uint64_t>(), 1 << 20));
  }
  if (!c.config.source.empty()) return;
  c.config.source = "config.json";
  c.config.method = text_of(q, "quant_method");
  c.config.algorithm = text_of(q, c.config.method == "modelopt" ? "quant_algo" : "format");
  const json kv = q.value("kv_cache_scheme", json());
  c.config.kv_cache = !kv.is_null();
  c.config.static_inputs = has_static_inputs(q) || text_of(q, "activation_scheme") == "static";
}

void add_file(Checkpoint &c, const fs::path &path) {
  c.mapped.emplace_back(path.string());
  c.files.push_back(path.string());
  add_tensors(c, c.mapped.back().bytes(), path.string());
}

void read_index(Checkpoint &c, const fs::path &path) {
  const json index = read_json(path);
  const auto fail = [&](const std::string &what) { throw Error(io::printable(path.string()) + ": " + what); };
  const json map = object_of(index, "weight_map");
  if (map.empty()) fail("expected a weight_map of tensor names to files");
  std::map<std::string, std::vector<std::string>> shards;
  for (const auto &[name, file] : map.items()) {
    if (!file.is_string()) fail("weight_map: " + io::in_quotes(name) + " names no file");
    shards[file.get<std::string>()].push_back(name);
  }
  for (const auto &[file, names] : shards) {
    if (file.empty() || file.find('/') != std::string::npos || file.find('\\') != std::string::npos ||
        file == "." || file == "..")
      fail("weight_map names the file " + io::in_quotes(file) + "; expected files of its own folder");
    const size_t before = c.tensors.size();
    add_file(c, path.parent_path() / file);
    for (const std::string &name : names) {
      const auto it = c.by_name.find(name);
      if (it == c.by_name.end() || it->second < before)
        fail("the index says that " + io::in_quotes(file) + " holds " + io::in_quotes(name) +
             ", but it does not");
    }
  }
  for (const StoredTensor &t : c.tensors)
    if (!map.contains(t.name)) c.not_in_index.push_back(t.name);
}

std::vector<fs::path> files_of(const fs::path &folder, const char *extension) {
  std::vector<fs::path> found;
  for (const auto &entry : fs::directory_iterator(folder))
    if (entry.path().extension() == extension) found.push_back(entry.path());
  std::sort(found.begin(), found.end());
  return found;
}

void open_folder(Checkpoint &c, const fs::path &folder) {
  std::error_code ignored;
  const auto safetensors = files_of(folder, ".safetensors"), gguf = files_of(folder, ".gguf");
  if (fs::exists(folder / kIndex, ignored))
    read_index(c, folder / kIndex);
  else if (fs::exists(folder / "model.safetensors", ignored))
    add_file(c, folder / "model.safetensors");
  else if (!safetensors.empty())
    for (const fs::path &path : safetensors) add_file(c, path);
  else if (gguf.size() == 1)
    add_file(c, gguf.front());
  else
    throw Error(io::printable(folder.string()) + ": expected " + kIndex +
                ", .safetensors files or one .gguf file in it, got " +
                (gguf.empty() ? "none" : std::to_string(gguf.size()) + " .gguf files; name one"));
}

} // namespace

const StoredTensor *Checkpoint::find(const std::string &name) const {
  const auto it = by_name.find(name);
  return it == by_name.end() ? nullptr : &tensors[it->second];
}

void add_tensors(Checkpoint &c, std::span<const std::byte> bytes, const std::string &source) {
  const auto add = [&](StoredTensor t) {
    if (!c.by_name.emplace(t.name, c.tensors.size()).second)
      throw Error(io::message_prefix(source, t.name) + "stands in another file of the checkpoint already");
    c.tensors.push_back(std::move(t));
  };
  const std::string_view start(reinterpret_cast<const char *>(bytes.data()),
                               std::min<size_t>(bytes.size(), 9));
  if (start.starts_with("GGUF")) {
    if (!c.tensors.empty() || c.gguf) throw Error(io::printable(source) + ": a GGUF file must stand alone");
    GgufFile file = parse_gguf(bytes, source);
    for (StoredTensor &t : file.tensors) add(std::move(t));
    file.tensors.clear();
    c.metadata = file.strings;
    c.gguf = std::move(file);
    return;
  }
  if (start.starts_with("version "))
    throw Error(io::printable(source) + ": is a Git LFS pointer; fetch the file itself (git lfs pull)");
  if (!start.ends_with('{') && (start.starts_with("PK\3\4") || start.starts_with("\x80\2")))
    throw Error(
        io::printable(source) +
        ": expected .safetensors or .gguf, got a file of torch.save; convert it with safetensors first");
  const size_t size = io::safetensors_header_size(bytes, bytes.size(), source);
  if (size > bytes.size() - 8) throw Error(io::printable(source) + ": is cut short in its header");
  const std::string_view header(reinterpret_cast<const char *>(bytes.data()) + 8, size);
  const io::SafetensorsIndex index = io::parse_safetensors_header(header, bytes.size(), source);
  for (size_t i = 0; i < index.tensors.size(); ++i) {
    const io::TensorHeader &t = index.tensors[i];
    add({t.name, std::string(io::info(t.dtype).safetensors), t.dtype, t.shape,
         bytes.subspan(index.offsets[i], t.bytes(source))});
  }
  for (const auto &[name, dtype] : index.unknown) add({name, dtype, {}, {}, {}});
  c.metadata.insert(index.metadata.begin(), index.metadata.end());
}

Checkpoint open_checkpoint(const std::string &path) {
  Checkpoint c;
  c.path = path;
  const fs::path where(path);
  try {
    std::error_code error;
    if (fs::is_directory(where, error)) {
      c.folder = path;
      open_folder(c, where);
    } else if (path.ends_with(".index.json")) {
      c.folder = where.parent_path().empty() ? "." : where.parent_path().string();
      read_index(c, where);
    } else {
      add_file(c, where);
    }
    if (!c.folder.empty()) read_config(c);
  } catch (const fs::filesystem_error &error) {
    throw Error(io::printable(path) + ": " + error.code().message());
  }
  return c;
}

} // namespace nvfp4::checkpoint
