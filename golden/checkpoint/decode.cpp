// SPDX-License-Identifier: Apache-2.0
// From stored bytes to block-scaled tensors and to values. How a value is reconstructed stands with the
// convention that the container's row names; here bytes are only put in order, and dense scales multiply.
#include "nvfp4/emulator/formats/bf16.hpp"
#include "nvfp4/emulator/quantize/convention.hpp"
#include "nvfp4/emulator/quantize/dequantize.hpp"
#include "nvfp4/golden/checkpoint/weight.hpp"
#include "nvfp4/golden/quantized_file.hpp"

#include <algorithm>
#include <cstring>
#include <limits>

namespace nvfp4::checkpoint {
namespace {

const uint8_t *bytes_of(const StoredTensor &t) { return reinterpret_cast<const uint8_t *>(t.bytes.data()); }

/// A number of a plain tensor.
float number(const StoredTensor &t, int64_t i) {
  const FormatId id = *golden::format_of(*t.dtype);
  const CodeView words{bytes_of(t), format(id).storage_bits};
  return value_f32(id, words[i]);
}

/// Blocks of GGUF: `scales` scale bytes, then the codes of each block, its first half in the low nibbles.
void unpack_half_low(const Weight &w, const uint8_t *row, uint8_t *codes, uint8_t *scales) {
  const int block = w.container->block, half = block / 2;
  const GgufType &type = *find_gguf_type(w.codes->type);
  const int group = type.block / block;
  for (int64_t super = 0; super < w.k / type.block; ++super, row += type.bytes)
    for (int b = 0; b < group; ++b) {
      *scales++ = row[b];
      const uint8_t *in = row + group + b * half;
      const auto code = [&](int i) { return i < half ? in[i] & 15 : in[i - half] >> 4; };
      for (int i = 0; i < block; i += 2) *codes++ = uint8_t(code(i) | code(i + 1) << 4);
    }
}

std::vector<float> dense_values(const Weight &w, int64_t index, int64_t first, int64_t count) {
  std::vector<float> out(size_t(count * w.k));
  const bool q8 = w.codes->type == "Q8_0";
  const GgufType *type = q8 ? find_gguf_type("Q8_0") : nullptr;
  for (int64_t r = 0; r < count; ++r) {
    const int64_t row = index * w.rows + first + r;
    float *to = out.data() + r * w.k;
    if (!w.container && w.codes->dtype == io::DType::f32) {
      std::memcpy(to, bytes_of(*w.codes) + row * w.k * 4, size_t(w.k) * 4);
    } else if (!w.container && w.codes->dtype == io::DType::bf16) {
      const uint8_t *words = bytes_of(*w.codes) + row * w.k * 2;
      for (int64_t i = 0; i < w.k; ++i) to[i] = bf16_value(uint16_t(words[2 * i] | words[2 * i + 1] << 8));
    } else if (!w.container) {
      for (int64_t i = 0; i < w.k; ++i) to[i] = number(*w.codes, row * w.k + i);
    } else if (q8) { // FP16 d, then `block` INT8: v * d
      const uint8_t *in = bytes_of(*w.codes) + row * (w.k / type->block) * type->bytes;
      for (int64_t i = 0; i < w.k; ++i) {
        const uint8_t *block = in + i / type->block * type->bytes;
        uint16_t d;
        std::memcpy(&d, block, sizeof d);
        to[i] = float(int8_t(block[2 + i % type->block])) * value_f32(FormatId::f16, d);
      }
    } else {
      for (int64_t tile = 0; tile < w.k; tile += w.tile_cols) {
        const float scale = dense_scale(w, index, first + r, tile);
        for (int64_t i = tile; i < std::min(w.k, tile + w.tile_cols); ++i)
          to[i] = number(*w.codes, row * w.k + i) * scale;
      }
    }
  }
  return out;
}

} // namespace

float dense_scale(const Weight &w, int64_t index, int64_t row, int64_t col) {
  const int64_t cols = (w.k + w.tile_cols - 1) / w.tile_cols, rows = (w.rows + w.tile_rows - 1) / w.tile_rows;
  const int64_t at = (index * rows + row / w.tile_rows) * cols + col / w.tile_cols;
  return number(*w.scales, w.scales->elements() == 1 ? 0 : at);
}

float global_word(const Weight &w, int64_t index) {
  if (!w.global) return 1.0f;
  return number(*w.global, w.global->elements() == 1 ? 0 : index);
}

std::optional<float> input_word(const Weight &w, int64_t index) {
  if (!w.input || w.input->dtype != io::DType::f32 || w.input->elements() == 0) return std::nullopt;
  return number(*w.input, w.input->elements() == 1 ? 0 : std::min(index, w.input->elements() - 1));
}

int64_t rows_at_once(const Weight &w, int64_t bytes) {
  return std::clamp<int64_t>(bytes / 4 / std::max<int64_t>(w.k, 1), 1, std::max<int64_t>(w.rows, 1));
}

BlockScaled block_scaled(const Weight &w, int64_t index, int64_t first, int64_t count) {
  const Container &row = *w.container;
  BlockScaled q;
  q.convention = row.convention;
  q.element = *row.element;
  q.scale = *row.scale;
  q.block = row.block;
  q.rows = count;
  q.k = q.padded_k = w.k;
  q.codes.resize(size_t(count * q.row_bytes()));
  q.scales.resize(size_t(count * q.scale_cols()));
  const int64_t row0 = index * w.rows + first;
  if (row.packing == Packing::half_low) {
    const GgufType &type = *find_gguf_type(w.codes->type);
    const int64_t stored = w.k / type.block * type.bytes;
    for (int64_t r = 0; r < count; ++r)
      unpack_half_low(w, bytes_of(*w.codes) + (row0 + r) * stored, q.codes.data() + r * q.row_bytes(),
                      q.scales.data() + r * q.scale_cols());
  } else {
    std::copy_n(bytes_of(*w.codes) + row0 * q.row_bytes(), q.codes.size(), q.codes.data());
    const uint8_t *scales = bytes_of(*w.scales);
    if (w.layout == ScaleLayout::linear)
      std::copy_n(scales + row0 * q.scale_cols(), q.scales.size(), q.scales.data());
    else
      for (int64_t r = 0; r < count; ++r)
        for (int64_t b = 0; b < q.scale_cols(); ++b)
          q.scales[size_t(r * q.scale_cols() + b)] = scales[index * scale_size_128x4(w.rows, q.scale_cols()) +
                                                            scale_offset_128x4(first + r, b, q.scale_cols())];
  }
  q.global_amax = std::numeric_limits<float>::quiet_NaN(); // the scale is given
  const float g = global_word(w, index);
  if (row.global_use == GlobalUse::multiplies) q.global_decode = g, q.global_encode = 1.0f / g;
  if (row.global_use == GlobalUse::divides) q.global_encode = g, q.global_decode = 1.0f / g;
  return q;
}

std::vector<float> values(const Weight &w, int64_t index, int64_t first, int64_t count, int threads) {
  if (!w.decodable || first < 0 || count < 0 || first + count > w.rows || index < 0 || index >= w.batch)
    throw Error("weight '" + w.name + "': rows " + std::to_string(first) + " to " +
                std::to_string(first + count) + " cannot be decoded");
  if (!w.is_block_scaled()) return dense_values(w, index, first, count);
  DequantizeOptions options;
  options.threads = threads;
  std::vector<float> out = dequantize(block_scaled(w, index, first, count), options);
  if (w.container->global_use == GlobalUse::after && w.global) {
    const float g = global_word(w, index);
    for (float &v : out) v *= g;
  }
  return out;
}

} // namespace nvfp4::checkpoint
