// SPDX-License-Identifier: Apache-2.0
// A comparison as people read it.
#include "nvfp4/golden/comparison/compare_files.hpp"
#include "nvfp4/golden/io/message.hpp"

#include <fmt/format.h>

namespace nvfp4::golden {
namespace {

using Out = std::back_insert_iterator<std::string>;

template <class... T> void print(Out out, fmt::format_string<T...> text, T &&...values) {
  fmt::format_to(out, text, std::forward<T>(values)...);
}

constexpr size_t kShown = 20;

std::string name_of(const PartComparison &p) { return io::printable(p.name, 40); }

void print_parts(Out out, const std::vector<PartComparison> &parts, bool all) {
  size_t shown = 0, left = 0;
  for (const PartComparison &p : parts) {
    if (p.equal() && !all) continue;
    if (shown == kShown && !all) {
      ++left;
      continue;
    }
    if (shown++ == 0)
      print(out, "\n{:<42} {:>12} {:>12} {:>12} {:>11} {:>11}  {}\n", "tensor", "elements", "differing",
            "max ulp", "max rel", "distance", "first at");
    if (!p.unlike.empty()) {
      print(out, "{:<42} {}\n", name_of(p), p.unlike);
      continue;
    }
    const diagnosis::Comparison &w = p.words;
    const bool distances = p.measured && w.differing != 0;
    print(out, "{:<42} {:>12} {:>12} {:>12} {:>11} {:>11}  {}\n", name_of(p), w.total, w.differing,
          distances && !p.by_value ? std::to_string(w.max_ulp) : "-",
          distances ? fmt::format("{:.3g}", w.max_relative) : "-",
          distances ? fmt::format("{:.3g}", w.distance) : "-",
          w.first < 0 ? "-" : io::shape_text(p.index(w.first)));
    if (p.by_value) print(out, "{:<42} {} against {}: compared by value\n", "", p.a_type, p.b_type);
    if (w.nan_same + w.nan_words + w.nan_got + w.nan_missing + w.infinities != 0)
      print(out,
            "{:<42} NaN on both sides {} with the same bits, {} with others; only in A {}, only in B "
            "{}; Inf against "
            "another value {}\n",
            "", w.nan_same, w.nan_words, w.nan_got, w.nan_missing, w.infinities);
  }
  if (left != 0) print(out, "{} more tensors differ (--all, --json)\n", left);
}

void print_values(Out out, const char *what, const std::vector<ValueDifference> &list, bool all) {
  if (list.empty()) return;
  print(out, "\n{}\n", what);
  for (size_t i = 0; i < list.size() && (all || i < kShown); ++i)
    print(out, "  {}: {} against {}\n", io::printable(list[i].key, 60),
          io::printable(list[i].a.value_or("nothing"), 60), io::printable(list[i].b.value_or("nothing"), 60));
  if (!all && list.size() > kShown) print(out, "  and {} more (--all)\n", list.size() - kShown);
}

void print_text(Out out, const FileComparison &c, bool all) {
  print(out, "{}\n", verdict_of(c));
  print_parts(out, c.parts, all);
  if (c.json) {
    if (!c.json->keys.empty()) print(out, "\n{:<40} {:>10} {:>11}\n", "key", "differing", "max rel");
    for (const auto &[key, d] : c.json->keys)
      print(out, "{:<40} {:>10} {:>11.3g}\n", io::printable(key, 40), d.count, d.max_relative);
    if (c.json->times != 0) print(out, "{} times differ as well (they do not count)\n", c.json->times);
  }
  print_values(out, "metadata that differ (they do not count)", c.metadata, all);
  for (const FileComparison &f : c.files) {
    print(out, "\n{}: ", io::printable(f.a.substr(f.a.rfind('/') + 1)));
    print_text(out, f, all);
  }
}

} // namespace

std::string to_text(const FileComparison &c, bool all) {
  std::string text;
  print_text(std::back_inserter(text), c, all);
  return text;
}

} // namespace nvfp4::golden
