// SPDX-License-Identifier: Apache-2.0
// Gives stored tensors to the rows of the container table and holds their shapes against each other.
#include "nvfp4/golden/checkpoint/weight.hpp"
#include "nvfp4/golden/io/message.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <set>

namespace nvfp4::checkpoint {
namespace {

bool is_one_of(std::string_view type, const TypeNames &names) {
  return !type.empty() && std::find(names.begin(), names.end(), type) != names.end();
}

int64_t product(std::span<const int64_t> lengths) { return io::element_count(lengths).value_or(0); }
int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

/// "0._weight" is what torchao makes of "0.weight".
std::string torchao_name(const std::string &base) {
  const size_t dot = base.rfind("._");
  return dot == std::string::npos ? base : base.substr(0, dot + 1) + base.substr(dot + 2);
}

/// torchao's flag of a tensor that its scales lie in 128x4 tiles.
bool is_swizzled(const Checkpoint &c, const std::string &name) {
  const auto it = c.metadata.find(name);
  if (it == c.metadata.end() || it->second.size() > 1 << 16) return false;
  const auto j = nlohmann::json::parse(it->second, nullptr, false);
  if (!j.is_object() || !j.contains("_data") || !j["_data"].is_object()) return false;
  return j["_data"].value("is_swizzled_scales", nlohmann::json()) == true;
}

class Finder {
public:
  explicit Finder(const Checkpoint &c) : c_(c) {}

  Weights find() {
    Weights out;
    for (const StoredTensor &t : c_.tensors) {
      Weight w = from(t);
      if (!w.container) continue;
      for (const StoredTensor *part : {w.codes, w.scales, w.global, w.input})
        if (part) used_.insert(part);
      out.all.push_back(std::move(w));
    }
    for (const StoredTensor &t : c_.tensors) {
      if (used_.contains(&t)) continue;
      if (is_scale(t.name))
        out.orphans.push_back(&t);
      else
        out.all.push_back(plain(t));
    }
    std::stable_sort(out.all.begin(), out.all.end(),
                     [](const Weight &a, const Weight &b) { return a.codes < b.codes; });
    return out;
  }

private:
  const Checkpoint &c_;
  std::set<const StoredTensor *> used_;

  static bool is_scale(std::string_view name) {
    constexpr std::string_view endings[] = {".weight_scale", ".weight_scale_2",     ".weight_global_scale",
                                            ".input_scale",  ".input_global_scale", ".weight_scale_inv",
                                            "_weight_scale", "_per_tensor_scale"};
    return std::any_of(std::begin(endings), std::end(endings),
                       [&](std::string_view e) { return name.ends_with(e); });
  }

  const StoredTensor *part(const std::string &base, std::string_view suffix) const {
    return suffix.empty() ? nullptr : c_.find(base + std::string(suffix));
  }

  Weight from(const StoredTensor &t) const {
    Weight w;
    const bool gguf = c_.gguf.has_value();
    for (const Container &row : containers()) {
      const bool suffix = t.name.ends_with(row.codes);
      if ((row.family == "gguf") != gguf || (!suffix && !gguf) || !is_one_of(t.type, row.code_types))
        continue;
      const std::string base = t.name.substr(0, t.name.size() - (suffix ? row.codes.size() : 0));
      const StoredTensor *scales = part(base, row.scales);
      if (!row.scales.empty() && (!scales || !is_one_of(scales->type, row.scale_types))) continue;
      w.container = &row;
      w.codes = &t;
      w.scales = scales;
      w.global = part(base, row.global);
      w.input = part(base, row.input);
      w.name = gguf                      ? t.name
               : row.family == "torchao" ? torchao_name(base)
               : row.family == "gpt-oss" ? base
                                         : base + ".weight";
      break;
    }
    if (w.container) measure(w);
    return w;
  }

  static Weight plain(const StoredTensor &t) {
    Weight w;
    w.name = t.name;
    w.codes = &t;
    w.k = t.shape.empty() ? 1 : t.shape.back();
    w.rows = w.k == 0 ? 0 : t.elements() / w.k;
    const bool number = t.dtype && (*t.dtype == io::DType::f32 || *t.dtype == io::DType::f16 ||
                                    *t.dtype == io::DType::bf16 || *t.dtype == io::DType::f64 ||
                                    *t.dtype == io::DType::f8_e4m3 || *t.dtype == io::DType::f8_e5m2);
    w.decodable = number && w.elements() == t.elements();
    const bool packed = t.name.ends_with(".weight_packed") || t.name.ends_with("_qdata") ||
                        t.name.ends_with("_blocks") || (t.type == "U8" && t.name.ends_with(".weight"));
    if (packed) w.faults.push_back("codes without block scales of a type that goes with them");
    return w;
  }

  void measure(Weight &w) const {
    const Container &row = *w.container;
    std::vector<int64_t> shape = w.codes->shape;
    const auto fault = [&](std::string text) { w.faults.push_back(std::move(text)); };
    if (row.family == "gpt-oss") { // (..., rows, blocks, bytes)
      if (shape.size() < 3 || shape.back() != row.block / 2)
        return fault("expected codes (..., rows, blocks, " + std::to_string(row.block / 2) + "), got " +
                     io::shape_text(shape));
      const int64_t bytes = shape.back();
      shape.pop_back();
      shape.back() *= bytes;
    }
    if (w.codes->elements() == 0) return fault("has no elements: " + io::shape_text(shape));
    if (shape.size() < 2) return fault("expected codes of two axes or more, got " + io::shape_text(shape));
    const bool packed = row.packing == Packing::even_low && w.codes->type != "F4";
    w.k = shape.back() * (packed ? 2 : 1);
    w.rows = shape[shape.size() - 2];
    w.batch = product(std::span(shape).first(shape.size() - 2));
    const size_t before = w.faults.size();
    if (row.scale_shape == ScaleShape::blocks && w.k % row.block != 0)
      fault("rows of " + std::to_string(w.k) + " elements are no whole number of blocks of " +
            std::to_string(row.block));
    else if (w.scales)
      row.scale_shape == ScaleShape::blocks ? measure_blocks(w) : measure_dense(w);
    for (const auto &[tensor, what] : {std::pair{w.global, "global"}, std::pair{w.input, "input"}})
      if (tensor &&
          (tensor->dtype != io::DType::f32 || (tensor->elements() != 1 && tensor->elements() != w.batch)))
        fault(std::string("expected the ") + what + " scale to be F32, one" +
              (w.batch > 1 ? " or " + std::to_string(w.batch) : "") + ", got " + tensor->type + " " +
              io::shape_text(tensor->shape));
    w.decodable = w.faults.size() == before;
  }

  void measure_blocks(Weight &w) const {
    const int64_t cols = w.k / w.container->block;
    std::vector<int64_t> shape = w.scales->shape;
    if (shape.size() < 2) {
      w.faults.push_back("expected block scales (..., rows, blocks), got " + io::shape_text(shape));
      return;
    }
    const int64_t batch = product(std::span(shape).first(shape.size() - 2));
    const int64_t rows = shape[shape.size() - 2], blocks = shape.back();
    const bool padded = batch == w.batch && rows == round_up(w.rows, 128) && blocks == round_up(cols, 4);
    // torchao tiles the rows of all matrices together, and shows a tile of 512 bytes as 32 x 16
    const bool tiles = batch == w.batch && (batch == 1 || w.rows % 128 == 0) &&
                       rows == round_up(w.rows, 128) / 4 && blocks == round_up(cols, 4) * 4;
    if (w.container->family == "torchao" && tiles && is_swizzled(c_, w.name)) {
      w.layout = ScaleLayout::tiled_128x4;
    } else if (batch != w.batch || rows != w.rows || blocks != cols) {
      std::string text = "expected block scales of " + io::shape_text(std::vector<int64_t>{w.rows, cols}) +
                         " for " + std::to_string(w.k) + " elements a row, got " +
                         io::shape_text(w.scales->shape);
      if (padded)
        text += ": the padded shape of the 128x4 layout, which this container does not store";
      else if (blocks * 32 == w.k || blocks * 16 == w.k)
        text += ": blocks of " + std::to_string(w.k / blocks) + ", not " + std::to_string(w.container->block);
      w.faults.push_back(text);
    }
  }

  /// One scale a tensor, a row, or a tile: from the shape of the scales and, for tiles, what the container
  /// says.
  void measure_dense(Weight &w) const {
    const std::vector<int64_t> &shape = w.scales->shape;
    const int64_t block_rows = c_.config.block_rows ? c_.config.block_rows : 128,
                  block_cols = c_.config.block_cols ? c_.config.block_cols : 128;
    const int64_t count = w.scales->elements(), matrix = count / std::max<int64_t>(w.batch, 1);
    const bool whole = matrix * w.batch == count;
    if (count == 1 || (whole && matrix == 1)) {
      w.tile_rows = w.rows, w.tile_cols = w.k;
    } else if (whole && shape.size() >= 2 && shape.back() == (w.k + block_cols - 1) / block_cols &&
               shape[shape.size() - 2] == (w.rows + block_rows - 1) / block_rows) {
      w.tile_rows = block_rows, w.tile_cols = block_cols;
    } else if (whole && matrix == w.rows) {
      w.tile_rows = 1, w.tile_cols = w.k;
    } else {
      w.faults.push_back("expected one scale for the tensor, one a row, or one a tile of " +
                         std::to_string(block_rows) + "x" + std::to_string(block_cols) + " of " +
                         io::shape_text(std::vector<int64_t>{w.rows, w.k}) + ", got " +
                         io::shape_text(shape));
    }
  }
};

} // namespace

Weights find_weights(const Checkpoint &checkpoint) { return Finder(checkpoint).find(); }

} // namespace nvfp4::checkpoint
