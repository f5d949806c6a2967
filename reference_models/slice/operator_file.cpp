// SPDX-License-Identifier: Apache-2.0
// Tensor names to layers, shapes against each other.
#include "nvfp4/reference_models/slice/operator_file.hpp"
#include "nvfp4/golden/io/message.hpp"
#include "nvfp4/reference_models/train/checkpoint.hpp"

#include <algorithm>
#include <array>
#include <map>

namespace nvfp4::models {
namespace {

constexpr std::array<std::string_view, 4> kPrefixes = {"input/", "weight/", "bias/", "output_grad/"};

bool is_number(std::string_view text) {
  return !text.empty() && text.size() < 7 && text.find_first_not_of("0123456789") == std::string_view::npos;
}

/// Role and layer of a module's path; layer -1 where it has no number.
std::pair<std::string, int64_t> place(const std::string &path) {
  for (size_t begin = 0; begin < path.size();) {
    const size_t dot = std::min(path.find('.', begin), path.size());
    const std::string part = path.substr(begin, dot - begin);
    begin = dot + 1;
    if (!is_number(part) || begin >= path.size()) continue;
    std::string role = path.substr(begin);
    if (role.starts_with("self_attn.")) role.erase(0, 5);
    return {role, std::stoll(part)};
  }
  return {path, -1};
}

std::string family_of(const std::vector<RecordedOperator> &operators) {
  std::vector<std::string> roles;
  for (const RecordedOperator &o : operators)
    if (std::find(roles.begin(), roles.end(), o.role) == roles.end()) roles.push_back(o.role);
  return std::string(guess_family(roles).name);
}

/// Rows of a tensor whose last dimension is a width.
int64_t rows_of(const io::Tensor &t, int64_t width, const char *what, const std::string &source) {
  if (t.shape.empty() || t.shape.back() != width || width < 1 || t.data.empty())
    throw Error(io::message_prefix(source, t.name) + "expected shape [..., " + std::to_string(width) +
                "] for the weight's " + what + ", got " + io::shape_text(t.shape));
  return io::element_count(t.shape).value_or(0) / width;
}

RecordedOperator read(const std::string &path, const std::array<const io::Tensor *, 4> &parts,
                      const std::string &source) {
  const auto [input, weight, bias, grad] = parts;
  for (const size_t needed : {0u, 1u})
    if (parts[needed] == nullptr)
      throw Error(source + ": expected tensor " + io::in_quotes(std::string(kPrefixes[needed]) + path) +
                  ", which the file does not have");
  if (weight->shape.size() != 2)
    throw Error(io::message_prefix(source, weight->name) + "expected shape [out, in], got " +
                io::shape_text(weight->shape));
  RecordedOperator o;
  o.path = path;
  std::tie(o.role, o.layer) = place(path);
  o.out = weight->shape[0];
  o.in = weight->shape[1];
  o.rows = rows_of(*input, o.in, "inputs", source);
  o.input = as_floats(*input, source);
  o.weight = as_floats(*weight, source);
  if (bias != nullptr) {
    if (bias->shape != std::vector<int64_t>{o.out})
      throw Error(io::message_prefix(source, bias->name) + "expected shape [" + std::to_string(o.out) +
                  "], got " + io::shape_text(bias->shape));
    o.bias = as_floats(*bias, source);
  }
  if (grad != nullptr) {
    if (rows_of(*grad, o.out, "outputs", source) != o.rows)
      throw Error(io::message_prefix(source, grad->name) + "expected " + std::to_string(o.rows) +
                  " rows, as the input has, got shape " + io::shape_text(grad->shape));
    o.output_grad = as_floats(*grad, source);
  }
  return o;
}

} // namespace

OperatorFile parse_operators(const io::TensorFile &file, const std::string &source) {
  std::map<std::string, std::array<const io::Tensor *, 4>> found;
  std::vector<std::string> order;
  for (const io::Tensor &t : file.tensors) {
    const auto prefix = std::find_if(kPrefixes.begin(), kPrefixes.end(),
                                     [&](std::string_view p) { return t.name.starts_with(p); });
    if (prefix == kPrefixes.end())
      throw Error(source +
                  ": expected a training slice, or input/PATH, weight/PATH, bias/PATH and output_grad/PATH; "
                  "got tensor " +
                  io::in_quotes(t.name));
    const std::string path = t.name.substr(prefix->size());
    if (!found.contains(path)) order.push_back(path);
    found[path][size_t(prefix - kPrefixes.begin())] = &t;
  }
  if (order.empty())
    throw Error(source + ": expected a training slice or recorded operators, got no tensors");
  OperatorFile out;
  for (const std::string &path : order) out.operators.push_back(read(path, found[path], source));
  const auto meta = [&](const char *key) {
    const auto at = file.metadata.find(key);
    return at == file.metadata.end() ? std::string() : at->second;
  };
  for (const RecordedOperator &o : out.operators) out.layers = std::max(out.layers, o.layer + 1);
  if (const std::string layers = meta("layers"); !layers.empty()) {
    if (!is_number(layers) || std::stoll(layers) < out.layers)
      throw Error(source + ": metadata \"layers\": expected a number of at least " +
                  std::to_string(out.layers) + ", got " + io::in_quotes(layers));
    out.layers = std::stoll(layers);
  }
  for (RecordedOperator &o : out.operators)
    if (o.layer < 0) o.layer = out.layers;
  out.family = meta("family").empty() ? family_of(out.operators) : meta("family");
  std::stable_sort(out.operators.begin(), out.operators.end(),
                   [](const auto &x, const auto &y) { return x.layer < y.layer; });
  return out;
}

} // namespace nvfp4::models
