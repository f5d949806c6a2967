// SPDX-License-Identifier: Apache-2.0
// Results and places beside the operators of a file.
#include "nvfp4/reference_models/slice/operator_run.hpp"
#include "nvfp4/golden/io/message.hpp"
#include "nvfp4/reference_models/train/fields.hpp"

#include <algorithm>
#include <array>
#include <map>

namespace nvfp4::models {
namespace {

constexpr std::string_view kFormat = "nvfp4-operators", kVersion = "1";
constexpr std::array<std::string_view, 4> kResults = {"output/", "input_grad/", "weight_grad/", "bias_grad/"};
constexpr std::string_view kChannels = "hot_channels/", kDgradChannels = "hot_channels_dgrad/";

std::string metadata(const io::TensorFile &file, const char *key) {
  const auto at = file.metadata.find(key);
  return at == file.metadata.end() ? std::string() : at->second;
}

/// Takes the tensors that operators of other programs do not have out of the file, by name.
std::map<std::string, io::Tensor> take_results(io::TensorFile &file) {
  const auto is_ours = [](const io::Tensor &t) {
    const auto begins = [&](std::string_view prefix) { return t.name.starts_with(prefix); };
    return std::ranges::any_of(kResults, begins) || begins(kChannels) || begins(kDgradChannels);
  };
  std::map<std::string, io::Tensor> taken;
  std::vector<io::Tensor> rest;
  for (io::Tensor &t : file.tensors) {
    if (is_ours(t))
      taken.emplace(t.name, std::move(t));
    else
      rest.push_back(std::move(t));
  }
  file.tensors = std::move(rest);
  return taken;
}

std::vector<int32_t> take_channels(std::map<std::string, io::Tensor> &tensors, const std::string &name,
                                   const std::string &source) {
  const auto node = tensors.extract(name);
  if (node.empty()) return {};
  const auto values = node.mapped().as<int32_t>(source);
  return {values.begin(), values.end()};
}

/// A result of the operator, in the layer's shape or with leading dimensions of its own.
void take_result(std::map<std::string, io::Tensor> &tensors, std::string_view prefix, int64_t count,
                 const std::string &source, OperatorRun &run) {
  const auto node = tensors.extract(std::string(prefix) + run.operands.path);
  if (node.empty()) return;
  const io::Tensor &t = node.mapped();
  if (t.dtype != io::DType::f32 && t.dtype != io::DType::bf16)
    throw Error(io::message_prefix(source, t.name) + "expected F32 or BF16, got " +
                std::string(io::info(t.dtype).safetensors));
  if (io::element_count(t.shape).value_or(-1) != count)
    throw Error(io::message_prefix(source, t.name) + "expected " + std::to_string(count) +
                " values, as its layer makes, got shape " + io::shape_text(t.shape));
  run.results.push_back(t);
}

} // namespace

bool has_operator_runs(const io::TensorFile &file) { return metadata(file, "format") == kFormat; }

OperatorFile operators_of_runs(io::TensorFile file, const std::string &source) {
  (void)take_results(file);
  return parse_operators(file, source);
}

OperatorRuns parse_operator_runs(io::TensorFile file, const std::string &source) {
  if (!has_operator_runs(file) || metadata(file, "version") != kVersion)
    throw Error(source + ": expected operators of format " + std::string(kFormat) + " and version " +
                std::string(kVersion) + ", got " + io::in_quotes(metadata(file, "format")) + " and " +
                io::in_quotes(metadata(file, "version")));
  std::map<std::string, io::Tensor> results = take_results(file);
  OperatorFile operators = parse_operators(file, source);
  const std::string recipe = metadata(file, "recipe"), places = metadata(file, "operators");
  OperatorRuns out;
  out.recipe = parse_recipe(recipe, source + ": metadata \"recipe\"").for_family(operators.family);
  const std::string where = source + ": metadata \"operators\": ";
  const Fields all(parse_json(places, where), where);
  for (RecordedOperator &o : operators.operators) {
    const Fields f = all.object(o.path.c_str());
    OperatorRun run;
    run.place = {.role = f.text("role"),
                 .layer = f.count("layer", 0),
                 .layers = f.count("layers", 0),
                 .id = uint64_t(f.count("id", 0)),
                 .in = o.in,
                 .out = o.out};
    run.step = {.seed = f.seed("seed"),
                .step = f.count("step", 0),
                .micro_batch = f.count("micro_batch", 0, (1 << 24) - 1)};
    run.operands = std::move(o);
    const RecordedOperator &own = run.operands;
    run.channels = take_channels(results, std::string(kChannels) + own.path, source);
    run.dgrad_channels = take_channels(results, std::string(kDgradChannels) + own.path, source);
    const std::array<int64_t, 4> counts = {own.rows * own.out, own.rows * own.in, own.out * own.in, own.out};
    for (size_t i = 0; i < counts.size(); ++i) take_result(results, kResults[i], counts[i], source, run);
    const auto missing = [&](const char *what) {
      return Error(source + ": expected " + io::in_quotes(what + own.path) +
                   ", which the file does not have");
    };
    if (run.results.empty() || !run.results.front().name.starts_with(kResults[0])) throw missing("output/");
    if (run.results.size() > 1 && own.output_grad.empty()) throw missing("output_grad/");
    out.runs.push_back(std::move(run));
  }
  if (!results.empty())
    throw Error(source + ": tensor " + io::in_quotes(results.begin()->first) +
                " is of no operator of the file");
  return out;
}

} // namespace nvfp4::models
