// SPDX-License-Identifier: Apache-2.0
// Words of a tensor, and names of its place.
#include "nvfp4/reference_models/diagnostics/finite.hpp"
#include "nvfp4/golden/io/tensor.hpp"
#include "nvfp4/reference_models/family/family.hpp"

#include <algorithm>
#include <bit>
#include <charconv>

namespace nvfp4::models {
namespace {

std::string_view product_of(StepTensor what) {
  switch (what) {
  case StepTensor::output: return "fprop";
  case StepTensor::weight_grad: return "wgrad";
  case StepTensor::input_grad: return "dgrad";
  default: return {};
  }
}

} // namespace

FiniteScan scan_finite(std::span<const float> values) {
  FiniteScan s;
  for (size_t i = 0; i < values.size(); ++i) {
    const uint32_t magnitude = std::bit_cast<uint32_t>(values[i]) & 0x7FFFFFFFu;
    if (magnitude < 0x7F800000u) continue;
    if (s.first < 0) s.first = int64_t(i);
    ++(magnitude == 0x7F800000u ? s.inf : s.nan);
  }
  return s;
}

ModulePlace module_place(std::string_view name) {
  for (const std::string_view part : {".weight", ".bias"})
    if (name.ends_with(part)) name.remove_suffix(part.size());
  ModulePlace place{-1, std::string(name)};
  const ModuleNames *modules = nullptr;
  for (const ModelFamily *f : families())
    if (name.starts_with(std::string(f->modules.blocks) + ".") &&
        (modules == nullptr || name.find("." + std::string(f->modules.mixer) + ".") != std::string_view::npos))
      modules = &f->modules;
  if (modules == nullptr) return place;
  name.remove_prefix(modules->blocks.size() + 1);
  const size_t dot = name.find('.');
  const std::string_view number = name.substr(0, dot);
  int64_t layer = -1;
  if (std::from_chars(number.data(), number.data() + number.size(), layer).ec != std::errc()) return place;
  place.layer = layer;
  place.role = dot == std::string_view::npos ? std::string() : std::string(name.substr(dot + 1));
  if (const std::string mixer = std::string(modules->mixer) + "."; place.role.starts_with(mixer))
    place.role.replace(0, mixer.size(), "attn.");
  if (place.role == "attn.gk_proj") place.role += ".1"; // the low-rank pair's output has the pair's name
  return place;
}

std::optional<NotFinite> find_not_finite(std::span<const float> values, const std::string &tensor,
                                         StepTensor what, std::vector<int64_t> shape) {
  const FiniteScan scan = scan_finite(values);
  if (scan.finite()) return std::nullopt;
  NotFinite n;
  n.tensor = tensor;
  n.what = what;
  const ModulePlace place = module_place(tensor);
  n.layer = place.layer;
  if (std::ranges::find(linear_roles(), place.role) != linear_roles().end()) {
    n.op = place.role;
    if (!tensor.ends_with(".bias")) n.product = product_of(what);
  }
  n.nan = scan.nan;
  n.inf = scan.inf;
  n.first.resize(shape.size());
  int64_t rest = scan.first;
  for (size_t d = shape.size(); d-- > 0; rest /= shape[d]) n.first[d] = rest % shape[d];
  n.shape = std::move(shape);
  return n;
}

int64_t NotFinite::elements() const {
  int64_t n = 1;
  for (const int64_t length : shape) n *= length;
  return n;
}

std::string count_text(const NotFinite &n) {
  std::string text;
  if (n.nan > 0) text = std::to_string(n.nan) + " NaN";
  if (n.inf > 0) text += (text.empty() ? "" : " and ") + std::to_string(n.inf) + " Inf";
  return text + " of " + std::to_string(n.elements()) + ", first at " + io::shape_text(n.first);
}

std::string NotFinite::text() const {
  std::string where;
  if (step >= 0) where = "step " + std::to_string(step) + ": ";
  if (micro_batch > 0) where += "micro-batch " + std::to_string(micro_batch) + ": ";
  return where + std::string(to_string(what)) + " of " + tensor +
         (product.empty() ? "" : " (" + product + ")") + ": " + count_text(*this);
}

} // namespace nvfp4::models
