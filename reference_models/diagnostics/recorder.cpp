// SPDX-License-Identifier: Apache-2.0
// Lines are collected for a step and appended at once; a crash leaves at most half a line, which truncation
// removes.
#include "nvfp4/reference_models/diagnostics/recorder.hpp"

#include "nvfp4/golden/io/json.hpp"
#include "nvfp4/golden/io/message.hpp"
#include "nvfp4/golden/io/safetensors.hpp"
#include "nvfp4/golden/io/stream.hpp"
#include "nvfp4/reference_models/diagnostics/finite.hpp"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

namespace nvfp4::models {
namespace {

using Json = nlohmann::ordered_json;
constexpr const char *kMaxPrefix = "channel_max/", *kMeanPrefix = "channel_mean/";

std::string jsonl_path(const std::string &dir) { return dir + "/diagnostics.jsonl"; }
std::string tensors_path(const std::string &dir) { return dir + "/diagnostics.safetensors"; }

/// Seven digits say all that a measure of a sample knows; not finite becomes null.
Json number(double value) {
  if (!std::isfinite(value)) return nullptr;
  char text[32];
  std::snprintf(text, sizeof text, "%.7g", value);
  return std::strtod(text, nullptr);
}

void write_text(const std::string &path, std::string_view text) {
  io::write_file_atomically(path, std::as_bytes(std::span(text)));
}

/// Adds what of x is not finite; the measures of the line are then null or leave it out.
void add_not_finite(Json &j, MatrixView<const float> x) {
  FiniteScan all;
  for (int64_t r = 0; r < x.rows; ++r) {
    const FiniteScan row = scan_finite({x.row(r), size_t(x.cols)});
    if (all.finite() && !row.finite()) all.first = r * x.cols + row.first;
    all.nan += row.nan;
    all.inf += row.inf;
  }
  if (all.finite()) return;
  j["not_finite"] = {{"nan", all.nan},
                     {"inf", all.inf},
                     {"first", {all.first / x.cols, all.first % x.cols}},
                     {"shape", {x.rows, x.cols}}};
}

/// The step of a line of diagnostics.jsonl, or nothing.
std::optional<int64_t> step_of(std::string_view line) {
  const auto json = io::find_json(line);
  if (!json || !json->is_object()) return {};
  const auto at = json->find("step");
  if (at == json->end() || !at->is_number_integer()) return {};
  return at->get<int64_t>();
}

std::string lines_until(const std::string &path, int64_t step) {
  if (!std::filesystem::exists(path)) return {};
  const auto bytes = io::read_file(path);
  const std::string_view text(reinterpret_cast<const char *>(bytes.data()), bytes.size());
  std::string kept;
  size_t line_number = 1;
  for (size_t at = 0; at < text.size(); ++line_number) {
    const size_t end = text.find('\n', at);
    if (end == std::string_view::npos) break; // half a line
    const std::string_view line = text.substr(at, end - at);
    const auto recorded = step_of(line);
    if (!recorded)
      throw Error(io::printable(path) + " line " + std::to_string(line_number) +
                  ": expected a JSON object with a step, got " + io::in_quotes(line) +
                  ": remove the file or the line");
    if (*recorded <= step) kept.append(line).push_back('\n');
    at = end + 1;
  }
  return kept;
}

std::vector<std::byte> tensors_until(const std::string &path, int64_t step) {
  if (!std::filesystem::exists(path)) return {};
  io::TensorFile file = read_channel_file(path);
  const auto stored = file.elements<int64_t>("steps");
  const std::vector<int64_t> steps(stored.begin(), stored.end()); // the tensor itself is cut below
  const auto rows = std::count_if(steps.begin(), steps.end(), [&](int64_t s) { return s <= step; });
  if (rows == int64_t(steps.size())) return io::read_file(path);
  if (rows == 0) return {};
  for (io::Tensor &t : file.tensors) { // steps are stored in increasing order
    if (t.shape.empty() || t.shape[0] != int64_t(steps.size()))
      throw Error(io::message_prefix(path, t.name) + "expected a row for each recorded step, got shape " +
                  io::shape_text(t.shape) + ": remove the file");
    const size_t row_bytes = t.data.size() / size_t(t.shape[0]);
    t.shape[0] = rows;
    t.data.resize(size_t(rows) * row_bytes);
  }
  return io::to_safetensors(file);
}

/// Makes a file that is there have these bytes.
void leave(const std::string &path, std::span<const std::byte> bytes) {
  if (std::filesystem::exists(path) && !std::ranges::equal(io::read_file(path), bytes))
    io::write_file_atomically(path, bytes);
}

} // namespace

io::TensorFile read_channel_file(const std::string &path) {
  try {
    io::TensorFile file = io::read_tensors(path);
    const io::Tensor &steps = file.at("steps");
    if (steps.shape.size() != 1)
      throw Error(io::message_prefix(path, steps.name) + "expected a list, got shape " +
                  io::shape_text(steps.shape));
    (void)steps.as<int64_t>(path);
    return file;
  } catch (const io::SystemError &) { // removing a file that cannot be read is no cure
    throw;
  } catch (const Error &error) {
    throw Error(std::string(error.what()) + "; remove the file");
  }
}

Recorder::Recorder(std::string dir) : dir_(std::move(dir)) { load(); }

void Recorder::load() {
  const std::string path = tensors_path(dir_);
  if (!std::filesystem::exists(path)) return;
  const io::TensorFile file = read_channel_file(path);
  const auto steps = file.elements<int64_t>("steps");
  steps_.assign(steps.begin(), steps.end());
  for (const io::Tensor &t : file.tensors) {
    const bool max = t.name.starts_with(kMaxPrefix), mean = t.name.starts_with(kMeanPrefix);
    if (!max && !mean) continue;
    if (t.shape.size() != 2 || t.shape[0] != int64_t(steps_.size()))
      throw Error(io::message_prefix(path, t.name) + "expected " + std::to_string(steps_.size()) +
                  " rows, one a recorded step, got shape " + io::shape_text(t.shape) + "; remove the file");
    Channels &c = channels_[t.name.substr(std::string_view(max ? kMaxPrefix : kMeanPrefix).size())];
    c.count = t.shape[1];
    const auto values = t.as<float>(path);
    (max ? c.max : c.mean).assign(values.begin(), values.end());
  }
  for (auto &[name, c] : channels_) pad(c, steps_.size());
}

void Recorder::pad(Channels &c, size_t rows) const {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  c.max.resize(rows * size_t(c.count), nan);
  c.mean.resize(rows * size_t(c.count), nan);
}

void Recorder::begin_step(int64_t step) {
  if (open_) throw Error("diagnostics: step " + std::to_string(step_) + " was not ended");
  if (!steps_.empty() && step <= steps_.back())
    throw Error(io::printable(dir_) + ": diagnostics of step " + std::to_string(step) +
                " come after those of step " + std::to_string(steps_.back()) +
                ": truncate them before a run is resumed");
  step_ = step;
  open_ = true;
  lines_.clear();
  steps_.push_back(step);
}

void Recorder::tensor(int layer, std::string_view op, TensorKind kind, MatrixView<const float> x,
                      const OperandInfo &info) {
  const Kurtosis k = kurtosis(x);
  const ChannelMagnitudes m = channel_magnitudes(x);
  const auto top = top_channels(m.max, std::max<int64_t>(16, hot_channel_count(x.cols)));
  const QuantizationError e = quantization_error(x, find_convention(info.convention), info.block_rows);

  Json j = {{"step", step_}, {"type", "tensor"}, {"layer", layer}, {"op", op}, {"kind", to_string(kind)}};
  j["rows"] = x.rows;
  j["channels"] = x.cols;
  j["kurtosis"] = number(k.tensor);
  j["block_kurtosis"] = {{"max", number(k.block_max)},
                         {"p99", number(k.block_p99)},
                         {"mean", number(k.block_mean)},
                         {"blocks", k.blocks}};
  Json values = Json::array();
  for (const int64_t c : top) values.push_back(number(double(m.max[size_t(c)])));
  const auto hot = std::min<int64_t>(hot_channel_count(x.cols), int64_t(top.size()));
  j["hot"] = hot; // the hot set is the first of these
  j["top"] = top;
  j["top_max"] = values;
  j["convention"] = info.convention;
  j["block_rows"] = info.block_rows;
  j["quantized"] = info.quantized;
  j["ftz"] = number(e.ftz);
  j["ftz_all"] = number(e.ftz_all);
  j["snr_db"] = number(e.snr_db);
  j["blocks"] = e.blocks;
  j["scale_underflows"] = e.scale_underflows;
  j["largest_scales"] = e.largest_scales;
  j["saturated"] = e.saturated;
  if (e.noise == 0) j["exact"] = true;
  add_not_finite(j, x);
  lines_ += j.dump() + "\n";

  if (kind != TensorKind::activation) return;
  Channels &c = channels_[std::to_string(layer) + "." + std::string(op)];
  if (c.count == 0) c.count = x.cols;
  if (c.count != x.cols)
    throw Error("diagnostics: the input of " + std::string(op) + " had " + std::to_string(c.count) +
                " channels, now " + std::to_string(x.cols));
  pad(c, steps_.size() - 1);
  c.max.insert(c.max.end(), m.max.begin(), m.max.end());
  c.mean.insert(c.mean.end(), m.mean.begin(), m.mean.end());
}

void Recorder::output(int layer, std::string_view op, MatrixView<const float> y) {
  const ChannelMagnitudes m = channel_magnitudes(y);
  const auto top = top_channels(m.max, 1);
  Json j = {{"step", step_}, {"type", "output"}, {"layer", layer}, {"op", op}, {"channels", y.cols}};
  j["channel"] = top.empty() ? Json(nullptr) : Json(top[0]);
  j["top1"] = top.empty() ? Json(nullptr) : number(double(m.max[size_t(top[0])]));
  add_not_finite(j, y);
  lines_ += j.dump() + "\n";
}

void Recorder::attention(int layer, double entropy, double logit_max, double logit_kurtosis, double sink,
                         double sink_heads) {
  lines_ += Json{{"step", step_},
                 {"type", "attention"},
                 {"layer", layer},
                 {"entropy", number(entropy)},
                 {"logit_max", number(logit_max)},
                 {"logit_kurtosis", number(logit_kurtosis)},
                 {"sink", number(sink)},
                 {"sink_heads", number(sink_heads)}}
                .dump() +
            "\n";
}

void Recorder::residual(int layer, MatrixView<const float> x) {
  const MassiveActivations m = massive_activations(x);
  Json j = {{"step", step_},
            {"type", "residual"},
            {"layer", layer},
            {"largest", number(m.largest)},
            {"median", number(m.median)},
            {"massive", m.count},
            {"row", m.row},
            {"channel", m.channel}};
  if (layer >= 0) j["growth"] = number(m.largest / residual_);
  residual_ = m.largest;
  add_not_finite(j, x);
  lines_ += j.dump() + "\n";
}

void Recorder::gate(int layer, double min, double max, double top1) {
  lines_ += Json{{"step", step_},      {"type", "gate"},     {"layer", layer},
                 {"min", number(min)}, {"max", number(max)}, {"top1", number(top1)}}
                .dump() +
            "\n";
}

void Recorder::swiglu(int layer, double mean_abs, double p99_abs, double weighted) {
  lines_ += Json{{"step", step_},
                 {"type", "swiglu"},
                 {"layer", layer},
                 {"mean_abs", number(mean_abs)},
                 {"p99_abs", number(p99_abs)},
                 {"weighted", number(weighted)}}
                .dump() +
            "\n";
}

void Recorder::end_step() {
  if (!open_) throw Error("diagnostics: no step was begun");
  open_ = false;
  for (auto &[name, c] : channels_) pad(c, steps_.size());
  const std::string path = jsonl_path(dir_);
  std::FILE *const file = std::fopen(path.c_str(), "ab");
  const bool written = file && std::fwrite(lines_.data(), 1, lines_.size(), file) == lines_.size();
  const int code = errno;
  if (!file || std::fclose(file) != 0 || !written)
    throw Error(io::printable(path) + ": cannot append: " + io::errno_text(code));
}

void Recorder::save() const {
  if (steps_.empty()) return;
  const auto rows = int64_t(steps_.size());
  io::TensorStream stream;
  std::vector<std::span<const std::byte>> bytes;
  const auto add = [&](std::string name, std::vector<int64_t> shape, const auto &values) {
    stream.tensors.push_back({std::move(name),
                              io::dtype_of<typename std::decay_t<decltype(values)>::value_type>(),
                              std::move(shape)});
    bytes.push_back(std::as_bytes(std::span(values)));
  };
  stream.metadata["format"] = "nvfp4 diagnostics 1";
  add("steps", {rows}, steps_);
  for (const auto &[name, c] : channels_) {
    add(kMaxPrefix + name, {rows, c.count}, c.max);
    add(kMeanPrefix + name, {rows, c.count}, c.mean);
  }
  stream.bytes = [&](size_t i) { return bytes[i]; };
  io::write_safetensors(tensors_path(dir_), stream);
}

Recorder::Kept Recorder::read_until(const std::string &dir, int64_t step) {
  return {lines_until(jsonl_path(dir), step), tensors_until(tensors_path(dir), step)};
}

void Recorder::keep(const std::string &dir, const Kept &kept) {
  leave(jsonl_path(dir), std::as_bytes(std::span(kept.lines)));
  if (kept.tensors.empty())
    std::filesystem::remove(tensors_path(dir));
  else
    leave(tensors_path(dir), kept.tensors);
}

void write_sensitivity(const std::string &dir, std::span<const SensitivityRecord> records) {
  Json list = Json::array();
  for (const SensitivityRecord &r : records)
    list.push_back({{"op", r.op},
                    {"score", number(r.score)},
                    {"loss", number(r.loss)},
                    {"baseline", number(r.baseline)},
                    {"parameters", r.parameters}});
  write_text(dir + "/sensitivity.json", list.dump(1) + "\n");
}

} // namespace nvfp4::models
