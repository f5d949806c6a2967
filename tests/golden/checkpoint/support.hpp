// SPDX-License-Identifier: Apache-2.0
// Small made-up checkpoints of every container, and what their bytes mean, written down here a second time.
#pragma once
#include "tests/catch.hpp"

#include "nvfp4/golden/checkpoint/checkpoint.hpp"
#include "nvfp4/golden/io/file.hpp"

#include <cmath>
#include <filesystem>
#include <fstream>
#include <unistd.h>

namespace nvfp4::checkpoint {

namespace fs = std::filesystem;
using Bytes8 = std::vector<uint8_t>;

class Folder {
public:
  Folder() {
    static int count = 0;
    path_ = fs::temp_directory_path() /
            ("nvfp4-checkpoint-" + std::to_string(::getpid()) + "-" + std::to_string(count++));
    fs::create_directories(path_);
  }
  ~Folder() { fs::remove_all(path_); }
  [[nodiscard]] std::string operator/(const std::string &name) const { return (path_ / name).string(); }
  [[nodiscard]] std::string path() const { return path_.string(); }
  void text(const std::string &name, std::string_view content) const {
    std::ofstream(path_ / name, std::ios::binary) << content;
  }
  void tensors(const std::string &name, std::vector<io::Tensor> list,
               std::map<std::string, std::string> metadata = {}) const {
    io::write_tensors(*this / name, {std::move(list), std::move(metadata), {}, {}});
  }

private:
  fs::path path_;
};

inline std::string content(const std::string &path) {
  const auto bytes = io::read_file(path);
  return {reinterpret_cast<const char *>(bytes.data()), bytes.size()};
}

inline uint64_t mix(uint64_t x) {
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

/// Codes of (rows, k), one a byte, every fourth block all zeros of either sign.
inline Bytes8 made_codes(int64_t rows, int64_t k, int block, uint64_t seed) {
  Bytes8 codes(size_t(rows * k));
  for (size_t i = 0; i < codes.size(); ++i)
    codes[i] = uint8_t((mix(seed + i) & 15) & (i / size_t(block) % 4 == 3 ? 8 : 15));
  return codes;
}

/// UE4M3 scales: zero, the least subnormal, the largest, and others; no NaN.
inline Bytes8 made_scales(int64_t count, uint64_t seed) {
  constexpr uint8_t edges[] = {0x00, 0x01, 0x07, 0x08, 0x7E, 0x38};
  Bytes8 scales(static_cast<size_t>(count));
  for (size_t i = 0; i < scales.size(); ++i) scales[i] = i < 6 ? edges[i] : uint8_t(mix(seed + i) % 0x7F);
  return scales;
}

inline Bytes8 made_exponents(int64_t count, uint64_t seed) {
  Bytes8 scales(static_cast<size_t>(count));
  for (size_t i = 0; i < scales.size(); ++i) scales[i] = uint8_t(100 + mix(seed + i) % 40);
  return scales;
}

inline double e2m1(uint8_t code) {
  constexpr double magnitude[] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
  return code & 8 ? -magnitude[code & 7] : magnitude[code & 7];
}
inline double e4m3(uint8_t code) {
  const int exponent = code >> 3 & 15, fraction = code & 7;
  const double m = exponent ? std::ldexp(8 + fraction, exponent - 10) : std::ldexp(fraction, -9);
  return code & 0x80 ? -m : m;
}
inline double e8m0(uint8_t code) { return std::ldexp(1.0, code - 127); }

/// Element 2j in the low nibble of byte j.
inline Bytes8 even_low(const Bytes8 &codes) {
  Bytes8 out(codes.size() / 2);
  for (size_t i = 0; i < out.size(); ++i) out[i] = uint8_t(codes[2 * i] | codes[2 * i + 1] << 4);
  return out;
}

/// Blocks as ggml has them: `group` scales, then of each block the elements j and j + half in one byte.
inline Bytes8 ggml_blocks(const Bytes8 &codes, const Bytes8 &scales, int block, int group) {
  Bytes8 out;
  for (size_t b = 0; b < scales.size(); b += size_t(group)) {
    for (int g = 0; g < group; ++g) out.push_back(scales[b + size_t(g)]);
    for (int g = 0; g < group; ++g)
      for (int j = 0; j < block / 2; ++j) {
        const size_t at = (b + size_t(g)) * size_t(block) + size_t(j);
        out.push_back(uint8_t(codes[at] | codes[at + size_t(block) / 2] << 4));
      }
  }
  return out;
}

inline io::Tensor bits(std::string name, io::DType dtype, std::vector<int64_t> shape, const Bytes8 &words) {
  return io::Tensor::from_bits(std::move(name), dtype, std::move(shape), words);
}
inline io::Tensor number(std::string name, float value, std::vector<int64_t> shape = {}) {
  return io::Tensor::from(std::move(name), std::move(shape), std::vector<float>{value});
}

/// A GGUF file of tensors (name, type, shape, bytes).
struct GgufTensor {
  std::string name, type;
  std::vector<int64_t> shape;
  Bytes8 data;
};
inline std::string made_gguf(const std::vector<GgufTensor> &list) {
  GgufFile file;
  const std::string pairs =
      gguf_pairs(std::vector<std::pair<std::string, std::string>>{{"general.architecture", "qwen3"}});
  file.pairs = std::as_bytes(std::span(pairs));
  file.pair_count = 1;
  for (const GgufTensor &t : list) file.tensors.push_back({t.name, t.type, {}, t.shape, {}});
  std::string out = gguf_start(file, "made.gguf");
  for (const GgufTensor &t : list) {
    out.append(reinterpret_cast<const char *>(t.data.data()), t.data.size());
    out.resize((out.size() + 31) / 32 * 32, '\0');
  }
  return out;
}

/// The message of the Error that `call` has to throw: one line that holds `part`.
template <class Call> void check_refused(Call call, const std::string &part) {
  std::string message = "no error";
  try {
    call();
  } catch (const Error &error) {
    message = error.what();
  }
  INFO(message);
  CHECK(message.find('\n') == std::string::npos);
  CHECK(message.find(part) != std::string::npos);
}

} // namespace nvfp4::checkpoint
