// SPDX-License-Identifier: Apache-2.0
// Writes what the plan says: a folder that appears under its name only when it is whole, or a GGUF file.
#include "nvfp4/golden/checkpoint/export_plan.hpp"
#include "nvfp4/golden/io/file.hpp"
#include "nvfp4/golden/io/message.hpp"
#include "nvfp4/golden/io/stream.hpp"
#include "nvfp4/version.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <filesystem>
#include <unistd.h>

namespace nvfp4::checkpoint {
namespace {

using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

constexpr uintmax_t kMostCopied = 64 << 20;

io::DType dtype_of_name(const std::string &type) {
  for (const io::DTypeInfo &row : io::dtype_table)
    if (row.safetensors == type) return row.dtype;
  throw Error("no dtype of safetensors is called '" + type + "'");
}

Json weights_scheme(const Container &c) {
  const bool nv = c.scale == FormatId::ue4m3;
  return {{"num_bits", 4},
          {"type", "float"},
          {"strategy", nv ? "tensor_group" : "group"},
          {"group_size", c.block},
          {"symmetric", true},
          {"dynamic", false},
          {"scale_dtype", nv ? "torch.float8_e4m3fn" : "torch.uint8"}};
}

/// quantization_config as vllm-project/compressed-tensors and transformers read it.
Json compressed_tensors_config(const Plan &plan) {
  const Container &c = *plan.container;
  const bool nv = c.scale == FormatId::ue4m3;
  const char *name = nv ? "nvfp4-pack-quantized" : "mxfp4-pack-quantized";
  Json group = {{"targets", {"Linear"}}, {"weights", weights_scheme(c)}, {"format", name}};
  if (nv && plan.all_inputs) {
    group["input_activations"] = weights_scheme(c);
    group["input_activations"]["dynamic"] = "local";
  }
  return {{"quant_method", "compressed-tensors"},
          {"format", name},
          {"quantization_status", "compressed"},
          {"config_groups", {{"group_0", group}}},
          {"ignore", plan.plain_modules}};
}

/// hf_quant_config.json as ModelOpt writes it, and its form in config.json.
std::pair<Json, Json> modelopt_config(const Plan &plan) {
  const char *algorithm = plan.all_inputs ? "NVFP4" : "W4A16_NVFP4";
  const Json producer = {{"name", "nvfp4"}, {"version", NVFP4_VERSION_STRING}};
  const Json scheme = {{"dynamic", false}, {"num_bits", 4}, {"type", "float"}, {"group_size", 16}};
  Json group;
  if (plan.all_inputs) group["input_activations"] = scheme;
  group["weights"] = scheme;
  group["targets"] = {"Linear"};
  const Json apart = {{"producer", producer},
                      {"quantization",
                       {{"quant_algo", algorithm},
                        {"kv_cache_quant_algo", nullptr},
                        {"group_size", 16},
                        {"exclude_modules", plan.plain_modules}}}};
  const Json inside = {{"config_groups", {{"group_0", group}}},
                       {"ignore", plan.plain_modules},
                       {"quant_algo", algorithm},
                       {"producer", producer},
                       {"quant_method", "modelopt"}};
  return {apart, inside};
}

void write_json(const fs::path &path, const Json &j) {
  const std::string text = j.dump(2) + "\n";
  io::write_file_atomically(path.string(), std::as_bytes(std::span(text)));
}

void write_configs(const Checkpoint &source, const Plan &plan, const fs::path &folder, const ExportOptions &o,
                   ExportReport &report) {
  const fs::path from = source.folder;
  std::error_code ignored;
  const bool has = !source.folder.empty() && fs::exists(from / "config.json", ignored);
  if (!plan.converted) { // the same container: what stands there is true still
    for (const char *name : {"config.json", "hf_quant_config.json"})
      if (!source.folder.empty() && fs::exists(from / name, ignored))
        fs::copy_file(from / name, folder / name);
    return;
  }
  Json config = Json::object();
  if (has) {
    const auto bytes = io::read_file((from / "config.json").string());
    config = Json::parse(reinterpret_cast<const char *>(bytes.data()),
                         reinterpret_cast<const char *>(bytes.data()) + bytes.size());
  } else {
    report.notes.push_back(
        "the source has no config.json: what is written says how it is quantized and nothing of the model");
  }
  config.erase("quantization_config");
  config.erase("compression_config");
  if (plan.container && o.target == Target::modelopt) {
    const auto [apart, inside] = modelopt_config(plan);
    write_json(folder / "hf_quant_config.json", apart);
    config["quantization_config"] = inside;
  } else if (plan.container) {
    config["quantization_config"] = compressed_tensors_config(plan);
  }
  if (o.target == Target::hf_bf16) config[config.contains("dtype") ? "dtype" : "torch_dtype"] = "bfloat16";
  if (source.config.kv_cache && plan.container)
    report.notes.push_back("what " + source.config.source +
                           " says of the KV cache is not carried; its scales stand under their own names");
  write_json(folder / "config.json", config);
}

/// Tokenizers, generation settings, templates, licences.
void copy_others(const Checkpoint &source, const fs::path &folder) {
  if (source.folder.empty()) return;
  constexpr std::array<std::string_view, 6> endings{".json", ".txt", ".model", ".jinja", ".md", ".py"};
  for (const auto &entry : fs::directory_iterator(source.folder)) {
    const std::string name = entry.path().filename().string();
    const std::string extension = entry.path().extension().string();
    if (!entry.is_regular_file() || name == "config.json" || name == "hf_quant_config.json" ||
        name.ends_with(".index.json"))
      continue;
    if ((std::find(endings.begin(), endings.end(), extension) != endings.end() || name == "LICENSE") &&
        entry.file_size() <= kMostCopied)
      fs::copy_file(entry.path(), folder / name);
  }
}

void write_tensors_file(const Plan &plan, const std::string &path, const ExportOptions &o) {
  io::TensorStream stream;
  stream.metadata = plan.words;
  stream.metadata["format"] = "pt";
  for (const Item &item : plan.items)
    stream.tensors.push_back({item.name, dtype_of_name(item.type), item.shape});
  Bytes held;
  size_t done = 0;
  stream.bytes = [&](size_t i) {
    if (o.progress) o.progress(double(done++) / double(plan.items.size()));
    held = plan.items[i].bytes();
    return held.view();
  };
  io::write_safetensors(path, stream);
}

} // namespace

void write_folder(const Checkpoint &source, const Plan &plan, const std::string &folder,
                  const ExportOptions &o, ExportReport &report) {
  write_configs(source, plan, folder, o, report);
  copy_others(source, folder);
  write_tensors_file(plan, (fs::path(folder) / "model.safetensors").string(), o);
}

void write_gguf(const Checkpoint &source, const Plan &plan, const std::string &path, const ExportOptions &o) {
  GgufFile file;
  std::string pairs;
  if (source.gguf) {
    file = *source.gguf;
  } else {
    const std::vector<std::pair<std::string, std::string>> words(plan.words.begin(), plan.words.end());
    pairs = gguf_pairs(words);
    file.pairs = std::as_bytes(std::span(pairs));
    file.pair_count = words.size();
  }
  for (const Item &item : plan.items) file.tensors.push_back({item.name, item.type, {}, item.shape, {}});
  const std::string start = gguf_start(file, path);
  io::stream_file_atomically(path, [&](const io::ByteSink &write) {
    write(std::as_bytes(std::span(start)));
    const std::vector<std::byte> zeros(file.alignment);
    for (size_t i = 0; i < plan.items.size(); ++i) {
      if (o.progress) o.progress(double(i) / double(plan.items.size()));
      const Bytes bytes = plan.items[i].bytes();
      write(bytes.view());
      const size_t over = bytes.view().size() % file.alignment;
      if (over) write(std::span(zeros).first(file.alignment - over));
    }
  });
}

ExportReport export_checkpoint(const Checkpoint &source, const std::string &destination,
                               const ExportOptions &o) {
  ExportReport report;
  const Weights weights = find_weights(source);
  const Plan plan = plan_export(source, weights, o, report);
  if (plan.items.empty()) throw Error(io::printable(source.path) + ": holds no tensor to export");
  if (o.target == Target::gguf) {
    write_gguf(source, plan, destination, o);
    if (!source.gguf)
      report.notes.push_back("tensors keep their names, and hyperparameters and tokenizer are not in the "
                             "file: llama.cpp's converter makes a model of it");
    return report;
  }
  const fs::path final(destination);
  std::error_code error;
  if (destination.empty() || fs::exists(final, error))
    throw Error(io::printable(destination) + ": exists already; expected the name of a folder to be made");
  const std::string temporary = destination + ".partial-" + std::to_string(::getpid());
  try {
    fs::create_directory(temporary);
    write_folder(source, plan, temporary, o, report);
    fs::rename(temporary, final);
  } catch (const fs::filesystem_error &e) {
    fs::remove_all(temporary, error);
    throw Error(io::printable(destination) + ": cannot write: " + e.code().message());
  } catch (const nlohmann::json::exception &) {
    fs::remove_all(temporary, error);
    throw Error(io::printable(source.folder) + ": config.json is not valid JSON");
  } catch (...) {
    fs::remove_all(temporary, error);
    throw;
  }
  return report;
}

std::string to_json(const ExportReport &report, const std::string &output) {
  return Json{{"output", output},
              {"carried", report.carried},
              {"quantized", report.quantized},
              {"dequantized", report.dequantized},
              {"copied", report.copied},
              {"inverted", report.inverted},
              {"values_apart", report.values_apart},
              {"rounded", report.rounded},
              {"notes", report.notes}}
      .dump(-1, ' ', false, Json::error_handler_t::replace);
}

} // namespace nvfp4::checkpoint
