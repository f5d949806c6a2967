// SPDX-License-Identifier: Apache-2.0
// The GGUF reader and the start of a file. Every count is held against what is left of the file before
// anything is made of that size.
#include "nvfp4/golden/checkpoint/gguf.hpp"
#include "nvfp4/golden/io/message.hpp"

#include <algorithm>
#include <array>
#include <set>

namespace nvfp4::checkpoint {
namespace {

using io::DType;

constexpr std::array kTypes{
    GgufType{0, "F32", 1, 4, DType::f32, true},
    GgufType{1, "F16", 1, 2, DType::f16, true},
    GgufType{2, "Q4_0", 32, 18, {}, false},
    GgufType{3, "Q4_1", 32, 20, {}, false},
    GgufType{6, "Q5_0", 32, 22, {}, false},
    GgufType{7, "Q5_1", 32, 24, {}, false},
    GgufType{8, "Q8_0", 32, 34, {}, true},
    GgufType{9, "Q8_1", 32, 40, {}, false}, // two FP32 sums in the reference package, two FP16 in ggml (36)
    GgufType{10, "Q2_K", 256, 84, {}, false},
    GgufType{11, "Q3_K", 256, 110, {}, false},
    GgufType{12, "Q4_K", 256, 144, {}, false},
    GgufType{13, "Q5_K", 256, 176, {}, false},
    GgufType{14, "Q6_K", 256, 210, {}, false},
    GgufType{15, "Q8_K", 256, 292, {}, false},
    GgufType{16, "IQ2_XXS", 256, 66, {}, false},
    GgufType{17, "IQ2_XS", 256, 74, {}, false},
    GgufType{18, "IQ3_XXS", 256, 98, {}, false},
    GgufType{19, "IQ1_S", 256, 50, {}, false},
    GgufType{20, "IQ4_NL", 32, 18, {}, false},
    GgufType{21, "IQ3_S", 256, 110, {}, false},
    GgufType{22, "IQ2_S", 256, 82, {}, false},
    GgufType{23, "IQ4_XS", 256, 136, {}, false},
    GgufType{24, "I8", 1, 1, DType::i8, true},
    GgufType{25, "I16", 1, 2, DType::i16, true},
    GgufType{26, "I32", 1, 4, DType::i32, true},
    GgufType{27, "I64", 1, 8, DType::i64, true},
    GgufType{28, "F64", 1, 8, DType::f64, true},
    GgufType{29, "IQ1_M", 256, 56, {}, false},
    GgufType{30, "BF16", 1, 2, DType::bf16, true},
    GgufType{34, "TQ1_0", 256, 54, {}, false},
    GgufType{35, "TQ2_0", 256, 66, {}, false},
    GgufType{39, "MXFP4", 32, 17, {}, true},
    GgufType{40, "NVFP4", 64, 36, {}, true},
    GgufType{41, "Q1_0", 128, 18, {}, false},
};

constexpr std::string_view kMagic = "GGUF";
/// Bytes of the scalar types of values, by their number; 0 for strings (8) and arrays (9).
constexpr uint8_t kValueBytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
constexpr uint32_t kUint32 = 4, kString = 8, kArray = 9;
constexpr uint64_t kMostAlignment = 1 << 20;

class Reader {
public:
  Reader(std::span<const std::byte> bytes, const std::string &source) : bytes_(bytes), source_(source) {}

  [[nodiscard]] size_t position() const { return at_; }
  [[nodiscard]] size_t left() const { return bytes_.size() - at_; }
  [[noreturn]] void fail(const std::string &what) const { throw Error(io::printable(source_) + ": " + what); }

  std::span<const std::byte> take(uint64_t size, const char *what) {
    if (size > left())
      fail(std::string("expected ") + what + " of " + std::to_string(size) + " bytes at byte " +
           std::to_string(at_) + ", but only " + std::to_string(left()) +
           " are left: the file is cut short or damaged");
    at_ += size_t(size);
    return bytes_.subspan(at_ - size_t(size), size_t(size));
  }
  template <class T> T number(const char *what) {
    T value;
    std::memcpy(&value, take(sizeof(T), what).data(), sizeof(T));
    return value;
  }
  std::string string(const char *what) {
    const auto text = take(number<uint64_t>("the length of a string"), what);
    return {reinterpret_cast<const char *>(text.data()), text.size()};
  }
  /// A count of things that take at least `least` bytes each.
  uint64_t count(const char *what, uint64_t least) {
    const auto n = number<uint64_t>(what);
    if (n > left() / least)
      fail(std::string(what) + " is " + std::to_string(n) + ", more than the " + std::to_string(left()) +
           " bytes that are left can hold");
    return n;
  }
  /// A value of a scalar type, by its number.
  double value(uint32_t type) {
    constexpr const char *what = "a value";
    switch (type) {
    case 0: return number<uint8_t>(what);
    case 1: return number<int8_t>(what);
    case 2: return number<uint16_t>(what);
    case 3: return number<int16_t>(what);
    case 4: return number<uint32_t>(what);
    case 5: return number<int32_t>(what);
    case 6: return double(number<float>(what));
    case 7: return number<uint8_t>(what) != 0;
    case 10: return double(number<uint64_t>(what));
    case 11: return double(number<int64_t>(what));
    default: return number<double>(what);
    }
  }
  void skip_value(uint32_t type, int depth) {
    if (type >= std::size(kValueBytes))
      fail("a value has type " + std::to_string(type) + ", expected 0 to 12");
    if (type == kString) {
      (void)take(number<uint64_t>("the length of a string"), "a string");
    } else if (type == kArray) {
      if (depth == 4) fail("arrays stand in each other more than 4 deep");
      const auto inner = number<uint32_t>("the type of an array");
      if (inner >= std::size(kValueBytes))
        fail("an array has type " + std::to_string(inner) + ", expected 0 to 12");
      const uint8_t size = kValueBytes[inner];
      const uint64_t n = count("the length of an array", size ? size : inner == kString ? 8 : 12);
      if (size)
        (void)take(n * size, "an array");
      else
        for (uint64_t i = 0; i < n; ++i) skip_value(inner, depth + 1);
    } else {
      (void)take(kValueBytes[type], "a value");
    }
  }

private:
  std::span<const std::byte> bytes_;
  const std::string &source_;
  size_t at_ = 0;
};

void read_pairs(Reader &in, GgufFile &file) {
  std::set<std::string> keys;
  for (uint64_t i = 0; i < file.pair_count; ++i) {
    const std::string key = in.string("a key");
    if (!keys.insert(key).second) in.fail("the key " + io::in_quotes(key) + " stands there twice");
    const auto type = in.number<uint32_t>("the type of a value");
    if (key == "general.alignment") {
      if (type != kUint32) in.fail("general.alignment: expected a UINT32, got type " + std::to_string(type));
      file.alignment = in.number<uint32_t>("the alignment");
      if (file.alignment == 0 || (file.alignment & (file.alignment - 1)) != 0 ||
          file.alignment > kMostAlignment)
        in.fail("general.alignment: expected a power of two up to " + std::to_string(kMostAlignment) +
                ", got " + std::to_string(file.alignment));
    } else if (type == kString) {
      file.strings[key] = in.string("a string");
    } else if (type < std::size(kValueBytes) && kValueBytes[type] != 0) {
      file.numbers[key] = in.value(type);
    } else {
      in.skip_value(type, 0);
    }
  }
}

/// Bytes of a tensor; its row must hold whole blocks.
uint64_t data_bytes(const GgufType &type, const StoredTensor &t, const Reader &in) {
  const auto count = io::element_count(t.shape);
  int64_t bytes = 0;
  if (!count || __builtin_mul_overflow(*count / type.block, int64_t(type.bytes), &bytes))
    in.fail(prefix(t) + "shape " + io::shape_text(t.shape) + " has more elements than 64 bits can count");
  const int64_t row = t.shape.empty() ? 1 : t.shape.back();
  if (row % type.block != 0)
    in.fail(prefix(t) + std::string(type.name) + " has blocks of " + std::to_string(type.block) +
            ", but rows of " + std::to_string(row));
  return uint64_t(bytes);
}

struct Place {
  uint64_t begin, end;
  size_t tensor;
};

} // namespace

std::span<const GgufType> gguf_types() { return kTypes; }

const GgufType *find_gguf_type(std::string_view name) {
  const auto it =
      std::find_if(kTypes.begin(), kTypes.end(), [&](const GgufType &t) { return t.name == name; });
  return it == kTypes.end() ? nullptr : &*it;
}

GgufFile parse_gguf(std::span<const std::byte> bytes, const std::string &source) {
  Reader in(bytes, source);
  const auto magic = in.take(kMagic.size(), "the magic");
  if (std::string_view(reinterpret_cast<const char *>(magic.data()), magic.size()) != kMagic)
    in.fail("expected a GGUF file, which starts with GGUF");
  GgufFile file;
  file.version = in.number<uint32_t>("the version");
  if (file.version != 2 && file.version != 3)
    in.fail("expected GGUF version 2 or 3, little endian, got " + std::to_string(file.version));
  const uint64_t tensor_count = in.count("the number of tensors", 24);
  file.pair_count = in.count("the number of key-value pairs", 13);
  const size_t pairs_begin = in.position();
  read_pairs(in, file);
  file.pairs = bytes.subspan(pairs_begin, in.position() - pairs_begin);

  std::set<std::string> names;
  std::vector<Place> places;
  if (tensor_count > in.left() / 24)
    in.fail("the number of tensors is " + std::to_string(tensor_count) +
            ", more than the rest of the file can hold");
  for (uint64_t i = 0; i < tensor_count; ++i) {
    StoredTensor t;
    t.name = in.string("a tensor's name");
    if (!names.insert(t.name).second) in.fail("the tensor " + io::in_quotes(t.name) + " stands there twice");
    const auto axes = in.number<uint32_t>("a number of axes");
    if (axes > 4) in.fail(prefix(t) + "expected at most 4 axes, got " + std::to_string(axes));
    for (uint32_t axis = 0; axis < axes; ++axis) {
      const auto length = in.number<uint64_t>("the length of an axis");
      if (length > uint64_t(INT64_MAX)) in.fail(prefix(t) + "an axis has length " + std::to_string(length));
      t.shape.insert(t.shape.begin(), int64_t(length));
    }
    const auto id = in.number<uint32_t>("a tensor's type");
    const auto type =
        std::find_if(kTypes.begin(), kTypes.end(), [&](const GgufType &row) { return row.id == id; });
    if (type == kTypes.end())
      in.fail(prefix(t) + "its type is number " + std::to_string(id) +
              " of ggml, which is not known here; see nvfp4 inspect --help");
    t.type = type->name;
    t.dtype = type->dtype;
    const auto begin = in.number<uint64_t>("a tensor's offset");
    const uint64_t size = data_bytes(*type, t, in);
    if (begin % file.alignment != 0)
      in.fail(prefix(t) + "its offset " + std::to_string(begin) + " is no multiple of the alignment " +
              std::to_string(file.alignment));
    if (begin > bytes.size() || size > bytes.size() - begin)
      in.fail(prefix(t) + "its " + std::to_string(size) + " bytes at " + std::to_string(begin) +
              " go beyond the file: it is cut short or damaged");
    places.push_back({begin, begin + size, size_t(i)});
    file.tensors.push_back(std::move(t));
  }
  const size_t data =
      (in.position() + size_t(file.alignment) - 1) / size_t(file.alignment) * size_t(file.alignment);
  for (const Place &p : places) {
    StoredTensor &t = file.tensors[p.tensor];
    if (p.end > p.begin && (data > bytes.size() || p.end > bytes.size() - data))
      in.fail(prefix(t) + "its " + std::to_string(p.end - p.begin) + " bytes at " + std::to_string(p.begin) +
              " of the data go beyond the file: it is cut short or damaged");
    if (p.end > p.begin) t.bytes = bytes.subspan(data + size_t(p.begin), size_t(p.end - p.begin));
  }
  std::sort(places.begin(), places.end(), [](const Place &a, const Place &b) { return a.begin < b.begin; });
  uint64_t used = 0;
  for (const Place &p : places) {
    if (p.begin == p.end) continue;
    if (p.begin < used) in.fail(prefix(file.tensors[p.tensor]) + "its data overlap those of another tensor");
    used = p.end;
  }
  return file;
}

namespace {

template <class T> void put(std::string &out, T value) {
  out.append(reinterpret_cast<const char *>(&value), sizeof value);
}
void put(std::string &out, std::string_view text) {
  put(out, uint64_t(text.size()));
  out += text;
}

} // namespace

std::string gguf_start(const GgufFile &file, std::string_view destination) {
  std::string out(kMagic);
  put(out, uint32_t(3));
  put(out, uint64_t(file.tensors.size()));
  put(out, file.pair_count);
  out.append(reinterpret_cast<const char *>(file.pairs.data()), file.pairs.size());
  uint64_t offset = 0;
  for (const StoredTensor &t : file.tensors) {
    const GgufType *type = find_gguf_type(t.type);
    if (!type || t.shape.size() > 4 || t.name.size() > 63) // GGML_MAX_NAME is 64 with the final zero
      throw Error(io::message_prefix(destination, t.name) +
                  "GGUF holds types of ggml, up to 4 axes and names of up to 63 bytes, got " + t.type + " " +
                  io::shape_text(t.shape));
    put(out, std::string_view(t.name));
    put(out, uint32_t(t.shape.size()));
    for (auto length = t.shape.rbegin(); length != t.shape.rend(); ++length) put(out, uint64_t(*length));
    put(out, type->id);
    put(out, offset);
    const auto bytes = uint64_t(t.elements() / type->block * type->bytes);
    offset += (bytes + file.alignment - 1) / file.alignment * file.alignment;
  }
  out.resize((out.size() + file.alignment - 1) / file.alignment * file.alignment, '\0');
  return out;
}

std::string gguf_pairs(std::span<const std::pair<std::string, std::string>> pairs) {
  std::string out;
  for (const auto &[key, value] : pairs) {
    put(out, std::string_view(key));
    put(out, kString);
    put(out, std::string_view(value));
  }
  return out;
}

} // namespace nvfp4::checkpoint
