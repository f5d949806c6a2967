// SPDX-License-Identifier: Apache-2.0
// Headers say where tokens lie and how wide they are; what is read is widened to 32 bits.
#include "nvfp4/reference_models/data/tokens.hpp"
#include "nvfp4/golden/io/message.hpp"
#include "nvfp4/golden/io/npy.hpp"
#include "nvfp4/golden/io/sha256.hpp"
#include "nvfp4/reference_models/data/data_file.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <glob.h>
#include <limits>
#include <set>

namespace nvfp4::models {
namespace {

static_assert(std::endian::native == std::endian::little);

enum class TokenType : uint8_t { uint16, uint32, int32, int64 };

constexpr size_t width(TokenType type) {
  return type == TokenType::uint16 ? 2 : type == TokenType::int64 ? 8 : 4;
}
constexpr const char *name_of(TokenType type) {
  constexpr const char *names[] = {"uint16", "uint32", "int32", "int64"};
  return names[size_t(type)];
}

constexpr int64_t kLargestId = std::numeric_limits<int32_t>::max() - 1; // a vocabulary is one more

int64_t token_at(const uint8_t *at, TokenType type) {
  const auto load = [at]<class T>(T value) {
    std::memcpy(&value, at, sizeof value);
    return int64_t(value);
  };
  switch (type) {
  case TokenType::uint16: return load(uint16_t{});
  case TokenType::uint32: return load(uint32_t{});
  case TokenType::int32: return load(int32_t{});
  case TokenType::int64: return load(int64_t{});
  }
  return -1;
}

/// Where the tokens of a file lie: from `begin` to its end.
struct Layout {
  TokenType type = TokenType::uint16;
  size_t begin = 0;
};

template <class T> T number_at(std::span<const uint8_t> bytes, size_t offset) {
  T value{};
  std::memcpy(&value, bytes.data() + offset, sizeof value);
  return value;
}

/// The type behind a name, taken off it: "a.bin:uint32" -> uint32.
std::optional<TokenType> take_type(std::string_view &name) {
  for (const TokenType type : {TokenType::uint16, TokenType::uint32}) {
    const std::string suffix = std::string(":") + name_of(type);
    if (!name.ends_with(suffix)) continue;
    name.remove_suffix(suffix.size());
    return type;
  }
  return {};
}

/// The index beside a Megatron file: tokens of all sequences must lie in a row and fill the file.
Layout megatron_layout(const DataFile &file, const std::string &index_path) {
  const DataFile index(index_path, "Megatron index");
  constexpr size_t kHeader = 9 + 8 + 1 + 8 + 8;
  std::vector<uint8_t> header(std::min(index.size(), kHeader));
  index.read(0, header);
  if (header.size() < kHeader || std::memcmp(header.data(), "MMIDIDX\0\0", 9) != 0)
    refuse_data(index_path, "expected a Megatron index, which starts with MMIDIDX; remove it if " +
                                io::printable(file.path()) + " is none of Megatron's");
  if (const auto version = number_at<uint64_t>(header, 9); version != 1)
    refuse_data(index_path, "expected version 1 of Megatron's index, got " + std::to_string(version));
  const uint8_t code = header[17];
  if (code != 4 && code != 8)
    refuse_data(index_path,
                "expected tokens of type 8 (uint16) or 4 (int32), got type " + std::to_string(code));
  const TokenType type = code == 8 ? TokenType::uint16 : TokenType::int32;
  const auto sequences = number_at<uint64_t>(header, 18), documents = number_at<uint64_t>(header, 26);
  if (sequences > index.size() / 12 || documents > index.size() / 8 ||
      kHeader + sequences * 12 + documents * 8 > index.size())
    refuse_data(index_path, "truncated: " + std::to_string(sequences) + " sequences and " +
                                std::to_string(documents) + " documents do not fit into " +
                                count_of(index.size(), "byte"));
  uint64_t place = 0;
  constexpr uint64_t kAtOnce = 1 << 16;
  std::vector<uint8_t> lengths, pointers;
  for (uint64_t first = 0; first < sequences; first += kAtOnce) {
    const size_t n = size_t(std::min(kAtOnce, sequences - first));
    lengths.resize(n * 4);
    pointers.resize(n * 8);
    index.read(kHeader + size_t(first) * 4, lengths);
    index.read(kHeader + size_t(sequences) * 4 + size_t(first) * 8, pointers);
    for (size_t i = 0; i < n; ++i) {
      const auto length = number_at<int32_t>(lengths, i * 4);
      if (length < 0 || number_at<int64_t>(pointers, i * 8) != int64_t(place))
        refuse_data(index_path, "sequence " + std::to_string(first + i) +
                                    " does not lie behind the one before it: expected sequences in a row");
      place += uint64_t(length) * width(type);
    }
  }
  if (place != file.size())
    refuse_data(file.path(), "expected " + count_of(place, "byte") + ", as " + io::printable(index_path) +
                                 " says, got " + std::to_string(file.size()));
  return {type, 0};
}

Layout npy_layout(const DataFile &file) {
  std::vector<uint8_t> start(std::min<size_t>(file.size(), 1 << 17));
  file.read(0, start);
  const io::NpyHeader header =
      io::parse_npy_header(std::as_bytes(std::span(start)), file.size(), file.path());
  Layout layout{TokenType::uint16, header.data_offset};
  switch (header.dtype) {
  case io::DType::u16: layout.type = TokenType::uint16; break;
  case io::DType::u32: layout.type = TokenType::uint32; break;
  case io::DType::i32: layout.type = TokenType::int32; break;
  case io::DType::i64: layout.type = TokenType::int64; break;
  default:
    refuse_data(file.path(), "expected tokens as uint16, uint32, int32 or int64, got " +
                                 std::string(io::info(header.dtype).npy));
  }
  if (header.fortran_order && std::ranges::count_if(header.shape, [](int64_t n) { return n != 1; }) > 1)
    refuse_data(file.path(), "expected an array in C order, got one in Fortran order");
  return layout;
}

Layout bin_layout(const DataFile &file, std::optional<TokenType> asked) {
  const std::string index = file.path().substr(0, file.path().size() - 3) + "idx";
  if (::access(index.c_str(), F_OK) == 0) return megatron_layout(file, index);
  constexpr size_t kHeader = 256 * sizeof(int32_t);
  std::vector<uint8_t> start(std::min(file.size(), kHeader));
  file.read(0, start);
  const auto header = [&](size_t i) {
    return start.size() < i * 4 + 4 ? 0 : number_at<int32_t>(start, i * 4);
  };
  Layout layout{asked.value_or(TokenType::uint16), 0};
  for (const auto &[magic, version, type] :
       {std::tuple{20240520, 1, TokenType::uint16}, {20240801, 7, TokenType::uint32}}) {
    if (header(0) != magic) continue;
    if (header(1) != version)
      refuse_data(file.path(), "expected version " + std::to_string(version) + " of llm.c's format " +
                                   std::to_string(magic) + ", got " + std::to_string(header(1)));
    const uint64_t there = file.size() < kHeader ? 0 : (file.size() - kHeader) / width(type);
    if (file.size() < kHeader || header(2) < 0 || uint64_t(header(2)) != there ||
        (file.size() - kHeader) % width(type) != 0)
      refuse_data(
          file.path(),
          "its header says " + std::to_string(uint32_t(header(2))) + " tokens, but " +
              count_of(there, "token") + " and " +
              count_of(file.size() < kHeader ? file.size() : (file.size() - kHeader) % width(type), "byte") +
              " are there: the shard is broken");
    return {type, kHeader};
  }
  if (file.size() % width(layout.type) != 0)
    refuse_data(file.path(), "expected " + std::string(name_of(layout.type)) +
                                 " tokens without a header, got " + count_of(file.size(), "byte") +
                                 ", which is no multiple of " + std::to_string(width(layout.type)));
  return layout;
}

class TokenFiles final : public TokenStream {
public:
  explicit TokenFiles(const std::string &spec) : name_(spec) {
    std::string_view files = spec;
    const std::optional<TokenType> asked = take_type(files);
    for (const std::string &path : token_files(std::string(files))) {
      if (!names_tokens(path)) refuse_data(path, "expected a token file, .bin or .npy, like the others");
      auto file = std::make_unique<DataFile>(path, "token");
      const Layout layout = path.ends_with(".npy") ? npy_layout(*file) : bin_layout(*file, asked);
      if (asked && layout.type != *asked)
        refuse_data(path, std::string("holds ") + name_of(layout.type) + ", expected " + name_of(*asked) +
                              " as the name says");
      if (!shards_.empty() && layout.type != type_)
        refuse_data(path, std::string("holds ") + name_of(layout.type) + ", but " +
                              io::printable(shards_.front().file->path()) + " " + name_of(type_) +
                              ": expected one type in all shards");
      type_ = layout.type;
      const uint64_t count = (file->size() - layout.begin) / width(type_);
      shards_.push_back({std::move(file), layout.begin, size_, count});
      size_ += count;
    }
  }

  uint64_t size() const override { return size_; }
  bool bytes() const override { return false; }
  std::string name() const override { return name_; }

  void read(uint64_t first, std::span<int32_t> out) const override {
    auto shard = std::ranges::upper_bound(shards_, first, {}, &Shard::first) - 1;
    std::vector<uint8_t> bytes;
    while (!out.empty()) {
      const uint64_t from = first - shard->first;
      const size_t n = size_t(std::min<uint64_t>(out.size(), shard->count - from));
      bytes.resize(n * width(type_));
      shard->file->read(shard->begin + size_t(from) * width(type_), bytes);
      for (size_t i = 0; i < n; ++i) out[i] = checked(*shard, from + i, &bytes[i * width(type_)]);
      out = out.subspan(n);
      first += n;
      ++shard;
    }
  }

  void check_unchanged() const override {
    for (const Shard &s : shards_) s.file->check_unchanged();
  }

  int32_t largest() const override {
    look();
    return largest_;
  }
  std::string digest() const override {
    look();
    return digest_;
  }

private:
  struct Shard {
    std::unique_ptr<DataFile> file;
    size_t begin = 0;   ///< of the tokens in it, bytes
    uint64_t first = 0; ///< its first token's place in the row
    uint64_t count = 0;
  };

  int32_t checked(const Shard &shard, uint64_t place, const uint8_t *at) const {
    const int64_t token = token_at(at, type_);
    if (token < 0 || token > kLargestId)
      refuse_data(shard.file->path(), "token " + std::to_string(place) + " is " + std::to_string(token) +
                                          ": expected an id from 0 to below 2^31 - 1");
    return int32_t(token);
  }

  /// Reads everything once: the largest token, and the digest, of all tokens as uint32.
  void look() const {
    const std::lock_guard lock(mutex_);
    if (!digest_.empty()) return;
    io::Sha256 hash;
    int32_t largest = 0;
    std::vector<int32_t> tokens;
    for (const Shard &shard : shards_) {
      uint64_t place = 0;
      // headers are of a multiple of 4 bytes, but not of npy, so pieces start where the tokens do
      shard.file->each_piece(shard.begin, [&](std::span<const uint8_t> piece) {
        tokens.resize(piece.size() / width(type_));
        for (size_t i = 0; i < tokens.size(); ++i) {
          tokens[i] = checked(shard, place + i, &piece[i * width(type_)]);
          largest = std::max(largest, tokens[i]);
        }
        place += tokens.size();
        hash.add(std::as_bytes(std::span(tokens)));
      });
      (void)shard.file->digest(); // by which a change is noticed
    }
    largest_ = largest;
    digest_ = hash.hex();
  }

  std::string name_;
  std::vector<Shard> shards_;
  TokenType type_ = TokenType::uint16;
  uint64_t size_ = 0;
  mutable std::mutex mutex_;
  mutable std::string digest_;
  mutable int32_t largest_ = 0;
};

} // namespace

bool names_tokens(std::string_view spec) {
  (void)take_type(spec);
  return spec.ends_with(".bin") || spec.ends_with(".npy");
}

std::vector<std::string> token_files(const std::string &spec) {
  if (::access(spec.c_str(), F_OK) == 0) return {spec};
  std::vector<std::string> files;
  for (size_t at = 0; at <= spec.size();) {
    const size_t comma = std::min(spec.find(',', at), spec.size());
    const std::string part = spec.substr(at, comma - at);
    at = comma + 1;
    if (part.find_first_of("*?[") == std::string::npos || ::access(part.c_str(), F_OK) == 0) {
      files.push_back(part);
      continue;
    }
    glob_t found{};
    const int code = ::glob(part.c_str(), GLOB_NOSORT | GLOB_ERR, nullptr, &found);
    std::vector<std::string> names;
    if (code == 0) names.assign(found.gl_pathv, found.gl_pathv + found.gl_pathc);
    ::globfree(&found);
    if (names.empty()) refuse_data(part, "no file has such a name");
    std::ranges::sort(names);
    files.insert(files.end(), names.begin(), names.end());
  }
  std::set<std::string> seen;
  for (const std::string &f : files)
    if (!seen.insert(f).second) refuse_data(f, "stands there twice: expected each shard once");
  return files;
}

std::unique_ptr<TokenStream> open_token_stream(const std::string &spec) {
  return std::make_unique<TokenFiles>(spec);
}

} // namespace nvfp4::models
