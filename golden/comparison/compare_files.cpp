// SPDX-License-Identifier: Apache-2.0
// Reads both sides and pairs what belongs together.
#include "nvfp4/golden/comparison/compare_files.hpp"

#include "nvfp4/emulator/quantize/dequantize.hpp"
#include "nvfp4/golden/io/message.hpp"
#include "nvfp4/golden/io/stream.hpp"
#include "nvfp4/golden/quantized_file.hpp"

#include <algorithm>
#include <filesystem>

namespace nvfp4::golden {
namespace {

namespace fs = std::filesystem;

std::string text_of(const std::string &path) {
  const std::vector<std::byte> bytes = io::read_file(path);
  return {reinterpret_cast<const char *>(bytes.data()), bytes.size()};
}

bool is_quantized(const io::TensorReader &file) {
  io::TensorFile head;
  head.metadata = file.metadata();
  return is_block_scaled(head);
}

/// Which tensor of a file has the name; Error lists the names.
size_t place_of(const io::TensorReader &file, const std::string &name, const std::string &path) {
  std::string names;
  for (size_t i = 0; i < file.headers().size(); ++i) {
    if (file.headers()[i].name == name) return i;
    if (names.size() < 200) names += (names.empty() ? "" : ", ") + file.headers()[i].name;
  }
  throw Error(io::printable(path) + ": has no tensor " + io::in_quotes(name) + "; there are " +
              io::printable(names, 300));
}

void refuse_absurd(const io::TensorHeader &t, const std::string &path) {
  io::Tensor empty{t.name, t.dtype, t.shape, {}};
  if (t.bytes(path) == 0) check_empty(empty, path);
}

PartComparison compare_one(const io::TensorReader &a, size_t i, const io::TensorReader &b, size_t j,
                           const FileComparison &c, const std::function<void(double)> &progress) {
  refuse_absurd(a.headers()[i], c.a);
  refuse_absurd(b.headers()[j], c.b);
  PartComparison part = compare_tensors(a.read(i), b.read(j), progress);
  if (a.headers()[i].name != b.headers()[j].name) part.name += " : " + b.headers()[j].name;
  return part;
}

/// A quantized tensor's values against a dense one.
PartComparison compare_mixed(const io::TensorFile &quantized, const io::Tensor &dense, bool quantized_first,
                             const std::function<void(double)> &progress) {
  const BlockScaled q = from_file(quantized);
  io::Tensor values = io::Tensor::from(
      "values", q.axis == Axis::row ? std::vector{q.rows, q.k} : std::vector{q.k, q.rows}, dequantize(q));
  if (dense.shape.size() > 2 && io::element_count(dense.shape) == io::element_count(values.shape) &&
      dense.shape.back() == values.shape.back())
    values.shape = dense.shape; // quantize flattens leading axes
  return quantized_first ? compare_tensors(values, dense, progress)
                         : compare_tensors(dense, values, progress);
}

void compare_dense(FileComparison &c, const io::TensorReader &a, const io::TensorReader &b,
                   const CompareOptions &options) {
  std::vector<std::pair<size_t, size_t>> pairs;
  const auto &x = a.headers(), &y = b.headers();
  if (!options.a_tensor.empty() || !options.b_tensor.empty()) {
    const std::string &first = options.a_tensor.empty() ? options.b_tensor : options.a_tensor;
    const std::string &second = options.b_tensor.empty() ? options.a_tensor : options.b_tensor;
    pairs.emplace_back(place_of(a, first, c.a), place_of(b, second, c.b));
  } else if (x.size() == 1 && y.size() == 1) {
    pairs.emplace_back(0, 0);
  } else {
    std::map<std::string, size_t> places;
    for (size_t j = 0; j < y.size(); ++j) places[y[j].name] = j;
    for (size_t i = 0; i < x.size(); ++i) {
      const auto at = places.find(x[i].name);
      if (at == places.end()) {
        c.only_a.push_back(x[i].name);
        continue;
      }
      pairs.emplace_back(i, at->second);
      places.erase(at);
    }
    for (const auto &[name, place] : places) c.only_b.push_back(name);
  }
  double total = 1, done = 0;
  for (const auto &[i, j] : pairs) total += double(x[i].bytes(c.a));
  for (const auto &[i, j] : pairs) {
    const auto bytes = double(x[i].bytes(c.a));
    c.parts.push_back(compare_one(a, i, b, j, c, [&](double f) {
      if (options.progress) options.progress((done + f * bytes) / total);
    }));
    done += bytes;
  }
}

void compare_tensor_files(FileComparison &c, const CompareOptions &options) {
  const io::TensorReader a(c.a), b(c.b);
  c.metadata = compare_metadata(a.metadata(), b.metadata());
  const bool qa = is_quantized(a), qb = is_quantized(b);
  if (qa && !options.a_tensor.empty())
    throw Error(io::printable(c.a) + ": holds one quantized tensor; leave out the name " +
                io::in_quotes(options.a_tensor));
  if (qb && !options.b_tensor.empty())
    throw Error(io::printable(c.b) + ": holds one quantized tensor; leave out the name " +
                io::in_quotes(options.b_tensor));
  if (qa && qb) {
    c.parts = compare_quantized(from_file(a.read_all()), from_file(b.read_all()), options.progress);
  } else if (qa || qb) {
    const io::TensorFile dense = (qa ? b : a).read_all();
    c.parts.push_back(compare_mixed((qa ? a : b).read_all(),
                                    choose_tensor(dense, qa ? options.b_tensor : options.a_tensor), qa,
                                    options.progress));
  } else {
    compare_dense(c, a, b, options);
  }
}

void compare_folders(FileComparison &c, const CompareOptions &options) {
  std::map<std::string, std::pair<bool, bool>> names;
  for (const bool first : {true, false})
    for (const fs::directory_entry &entry : fs::directory_iterator(first ? c.a : c.b)) {
      const std::string ending = entry.path().extension().string();
      if (!entry.is_regular_file() ||
          (ending != ".json" && ending != ".jsonl" && ending != ".npy" && ending != ".safetensors"))
        continue;
      auto &sides = names[entry.path().filename().string()];
      (first ? sides.first : sides.second) = true;
    }
  if (names.empty())
    throw Error(io::printable(c.a) + ": no .json, .jsonl, .npy or .safetensors file in it or in " +
                io::printable(c.b));
  for (const auto &[name, sides] : names) {
    if (!sides.second) c.only_a.push_back(name);
    if (!sides.first) c.only_b.push_back(name);
    if (sides.first && sides.second)
      c.files.push_back(
          compare_files((fs::path(c.a) / name).string(), (fs::path(c.b) / name).string(), options));
  }
}

} // namespace

bool FileComparison::equal() const {
  const auto same = [](const auto &x) { return x.equal(); };
  return only_a.empty() && only_b.empty() && (!json || json->equal()) &&
         std::all_of(parts.begin(), parts.end(), same) && std::all_of(files.begin(), files.end(), same);
}

int64_t FileComparison::nan_same() const {
  int64_t n = 0;
  for (const PartComparison &p : parts) n += p.words.nan_same;
  for (const FileComparison &f : files) n += f.nan_same();
  return n;
}

FileComparison compare_files(const std::string &a, const std::string &b, const CompareOptions &options) {
  FileComparison c{a, b};
  std::error_code ignored;
  const bool folder_a = fs::is_directory(a, ignored), folder_b = fs::is_directory(b, ignored);
  if (folder_a != folder_b)
    throw Error(io::printable(folder_a ? a : b) + " is a folder and " + io::printable(folder_a ? b : a) +
                " is not; name the file in it");
  if (folder_a) {
    compare_folders(c, options);
    return c;
  }
  const auto ending = fs::path(a).extension(), other = fs::path(b).extension();
  const auto is_json = [](const fs::path &e) { return e == ".json" || e == ".jsonl"; };
  if (is_json(ending) != is_json(other) || (is_json(ending) && ending != other))
    throw Error(io::printable(a) + " and " + io::printable(b) +
                ": expected two files of one kind, both .json, both .jsonl or both tensors");
  if (is_json(ending))
    c.json = compare_json(text_of(a), text_of(b), ending == ".jsonl", a, b);
  else
    compare_tensor_files(c, options);
  return c;
}

} // namespace nvfp4::golden
