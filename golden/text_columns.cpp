// SPDX-License-Identifier: Apache-2.0
// Columns of hex words to tensors.
#include "nvfp4/golden/text_columns.hpp"

#include "nvfp4/emulator/formats/conversion.hpp"
#include "nvfp4/emulator/tensorcore/catalogue.hpp"

#include <algorithm>

namespace nvfp4::golden {
namespace {

struct Column {
  std::string name;
  int bits;
  bool many = false; ///< words of a row, not one
};

std::vector<Column> columns_of(const TextFile &text) {
  const std::string kind = text.require("kind");
  if (kind == "mma") {
    const UnitRule &r = find_unit(text.require("unit")).rule;
    const int acc = format(r.acc).storage_bits;
    std::vector<Column> list{{"a", format(r.a).storage_bits, true}, {"b", format(r.b).storage_bits, true}};
    const int scale = format(r.scale).storage_bits;
    if (r.scale_block != 0) list.insert(list.end(), {{"scale_a", scale, true}, {"scale_b", scale, true}});
    list.insert(list.end(), {{"c", acc}, {"d", acc}});
    return list;
  }
  if (kind == "convert") {
    const Conversion &c = find_conversion(text.require("conversion"));
    return {{"in", std::max<int>(8, format(c.from).storage_bits)},
            {"out", std::max<int>(8, format(c.to).storage_bits)}};
  }
  if (kind == "convert-digest") return {{"chunk", 8}, {"digest", 64}};
  throw Error(text.path + ": unknown kind '" + kind + "'");
}

} // namespace

io::TensorFile to_tensors(const TextFile &text) {
  io::TensorFile file;
  file.source = text.path;
  file.metadata = {text.header.begin(), text.header.end()};
  const auto cases = int64_t(text.rows.size());
  for (const Column &column : columns_of(text)) {
    const size_t at = text.column(column.name);
    std::vector<uint8_t> bytes;
    size_t row_bytes = 0;
    for (size_t r = 0; r < text.rows.size(); ++r) {
      const std::string where = text.path + ": case " + std::to_string(r + 1);
      std::vector<uint64_t> words;
      if (column.many) {
        words = parse_hex_words(text.rows[r][at], column.bits, where);
      } else { // codes of few bits may be written with fewer digits
        words = {0};
        for (const uint64_t digit : parse_hex_words(text.rows[r][at], 4, where))
          words[0] = words[0] << 4 | digit;
      }
      const std::vector<uint8_t> packed = pack_words(words, column.bits);
      if (r == 0) row_bytes = packed.size();
      if (packed.size() != row_bytes)
        throw Error(where + ": is of another length than the first in column " + column.name);
      bytes.insert(bytes.end(), packed.begin(), packed.end());
    }
    const int word = std::max(8, column.bits);
    const io::DType dtype = word == 8    ? io::DType::u8
                            : word == 16 ? io::DType::u16
                            : word == 32 ? io::DType::u32
                                         : io::DType::u64;
    std::vector<int64_t> shape{cases};
    if (column.many) shape.push_back(int64_t(row_bytes) * 8 / word);
    file.tensors.push_back(io::Tensor::from_bits(column.name, dtype, shape, bytes));
  }
  return file;
}

} // namespace nvfp4::golden
