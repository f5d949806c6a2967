// SPDX-License-Identifier: Apache-2.0
// Recomputes golden quantizer files, byte by byte or by digest.
#include "nvfp4/golden/verify_quantize.hpp"

#include "nvfp4/golden/io/file.hpp"
#include "nvfp4/golden/io/sha256.hpp"
#include "nvfp4/golden/quantize_case.hpp"
#include "nvfp4/golden/quantized_file.hpp"

#include <cstring>

namespace nvfp4::golden {
namespace {

/// The first byte that differs between a golden tensor and what was computed; empty when equal.
std::string difference(const io::Tensor &golden, const void *computed, size_t bytes) {
  if (golden.data.size() != bytes)
    return golden.name + " has " + std::to_string(golden.data.size()) + " bytes, computed " + std::to_string(bytes);
  for (size_t i = 0; i < bytes; ++i) {
    const unsigned want = unsigned(golden.data[i]), got = static_cast<const uint8_t *>(computed)[i];
    if (want != got) return golden.name + " byte " + std::to_string(i) + ": expected " + hex_word(want, 8) + ", computed " + hex_word(got, 8);
  }
  return {};
}

/// Outputs of which only the digest was published.
std::string compare_digests(const io::TensorFile &f, const std::string &name, const BlockScaled &q) {
  const std::pair<const char *, const std::vector<uint8_t> *> outputs[] = {{"codes", &q.codes}, {"block_scales", &q.scales}};
  for (const auto &[output, bytes] : outputs) {
    const auto want = f.metadata.find("sha256." + name + "." + output);
    if (want == f.metadata.end()) throw Error(f.source + ": metadata has no sha256 of " + name + "." + output);
    const std::string got = io::sha256_hex(std::as_bytes(std::span(*bytes)));
    if (got != want->second) return name + "." + output + ": expected sha256 " + want->second + ", computed " + got;
  }
  return {};
}

std::string compare(const io::TensorFile &f, const std::string &name, const BlockScaled &q) {
  if (f.find(name + ".codes") == nullptr) return compare_digests(f, name, q);
  std::string d = difference(f.at(name + ".block_scales"), q.scales.data(), q.scales.size());
  if (d.empty()) d = difference(f.at(name + ".codes"), q.codes.data(), q.codes.size());
  if (d.empty() && q.row_amax.empty()) d = difference(f.at(name + ".global_amax"), &q.global_amax, sizeof(float));
  if (d.empty() && !q.row_amax.empty()) d = difference(f.at(name + ".row_amax"), q.row_amax.data(), q.row_amax.size() * sizeof(float));
  return d;
}

} // namespace

Verdict verify_quantize(const std::string &path, std::optional<Isa> isa) {
  const io::TensorFile f = io::read_tensors(path);
  const auto subject = f.metadata.find("subject");
  if (subject == f.metadata.end()) throw Error(path + ": metadata has no 'subject': not a golden quantizer file");
  const Convention &convention = find_convention(subject->second);
  Verdict v;
  v.subject = convention.name;
  for (const auto &[key, text] : f.metadata) {
    if (!key.starts_with("case.")) continue;
    const std::string name = key.substr(5);
    QuantizeOptions options = options_from_json(text, path + ": " + key);
    options.isa = isa;
    const io::Tensor &input = f.at(name.substr(0, name.find('.')) + ".input");
    const DenseMatrix x = to_matrix(input, path);
    const BlockScaled q = quantize(MatrixView<const float>(x.values.data(), x.rows, x.cols), convention, options);
    ++v.cases;
    const std::string d = compare(f, name, q);
    if (d.empty()) continue;
    ++v.mismatches;
    if (v.first.empty()) v.first = "case " + name + ": " + d;
  }
  if (v.cases == 0) throw Error(path + ": holds no cases: metadata has no key 'case.INPUT.NAME'");
  return v;
}

} // namespace nvfp4::golden
