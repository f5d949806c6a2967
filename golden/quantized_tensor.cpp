// SPDX-License-Identifier: Apache-2.0
// What the files of quantized tensors say beside codes and scales.
#include "nvfp4/golden/quantized_tensor.hpp"

#include "nvfp4/golden/io/json.hpp"
#include "nvfp4/golden/quantized_file.hpp"

#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

namespace nvfp4::golden {
namespace {

/// The shape that was quantized: as the metadata has it when it fits, else the matrix.
std::vector<int64_t> original_shape(const io::TensorFile &file, const BlockScaled &q) {
  const std::vector<int64_t> matrix = matrix_shape(q);
  const auto it = file.metadata.find("shape");
  if (it == file.metadata.end()) return matrix;
  const auto lengths = io::find_json(it->second);
  if (!lengths || !lengths->is_array() || lengths->empty() || lengths->size() > 64) return matrix;
  std::vector<int64_t> shape;
  for (const auto &length : *lengths) {
    if (!length.is_number_unsigned()) return matrix;
    shape.push_back(int64_t(length.get<uint64_t>()));
  }
  const std::optional<int64_t> count = io::element_count(shape);
  return count && *count == q.rows * q.k && shape.back() == matrix[1] ? shape : matrix;
}

uint64_t whole_number(const io::TensorFile &file, const char *key, const std::string &text) {
  uint64_t v = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), v);
  if (error != std::errc() || end != text.data() + text.size())
    throw Error(file.source + ": metadata '" + key + "' = '" + text.substr(0, 40) +
                "' is not a whole number");
  return v;
}

} // namespace

std::vector<int64_t> matrix_shape(const BlockScaled &q) {
  return q.axis == Axis::row ? std::vector<int64_t>{q.rows, q.k} : std::vector<int64_t>{q.k, q.rows};
}

io::TensorFile to_file(const QuantizedTensor &t) {
  io::TensorFile file = to_file(t.scaled);
  file.metadata["tensor"] = t.name;
  file.metadata["shape"] = io::shape_text(t.shape.empty() ? matrix_shape(t.scaled) : t.shape);
  file.metadata["rounding"] = std::string(to_string(t.rounding));
  if (t.rounding != ElementRounding::nearest) {
    file.metadata["seed"] = std::to_string(t.key.seed);
    file.metadata["offset"] = std::to_string(t.key.offset);
  }
  return file;
}

QuantizedTensor quantized_tensor(const io::TensorFile &file) {
  const auto meta = [&](const char *key, const char *otherwise) {
    const auto it = file.metadata.find(key);
    return it == file.metadata.end() ? std::string(otherwise) : it->second;
  };
  QuantizedTensor t;
  t.scaled = from_file(file);
  t.name = meta("tensor", "data");
  t.shape = original_shape(file, t.scaled);
  t.rounding = parse_enum<ElementRounding>(meta("rounding", "rne"));
  t.key = {whole_number(file, "seed", meta("seed", "0")), whole_number(file, "offset", meta("offset", "0"))};
  return t;
}

int block_rows_of(const Convention &c, int64_t rows, int64_t length) {
  const int block = c.rule.block;
  if (rows == 1 && (length == block || length == 16)) return 1;
  if (rows == block && length == block) return block;
  const std::string text = std::to_string(block);
  throw Error("block " + std::to_string(rows) + "x" + std::to_string(length) + ": convention '" +
              std::string(c.name) + "' has 1x" + text + " and " + text + "x" + text);
}

std::string statistics_json(const QuantizeStatistics &s) {
  nlohmann::ordered_json j = {{"elements", s.elements},
                              {"nan", s.nan},
                              {"infinity", s.infinity},
                              {"blocks", s.blocks},
                              {"zero_blocks", s.zero_blocks},
                              {"scale_underflow", s.scale_underflow},
                              {"scale_saturated", s.scale_saturated},
                              {"scale_nan", s.scale_nan},
                              {"saturated", s.saturated},
                              {"flushed", s.flushed},
                              {"snr_db", nullptr},
                              {"left_out_of_snr", s.left_out}};
  // JSON has no Inf and no NaN: null without noise or without anything to compare
  if (std::isfinite(s.snr_db())) j["snr_db"] = std::round(1000.0 * s.snr_db()) / 1000.0;
  return j.dump();
}

} // namespace nvfp4::golden
