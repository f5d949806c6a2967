// SPDX-License-Identifier: Apache-2.0
// nvfp4 compare: two files of tensors, quantized tensors, checkpoints, logs, or two folders of them.
#include "nvfp4/golden/comparison/compare_files.hpp"
#include "nvfp4/golden/io/message.hpp"
#include "tools/nvfp4/paths.hpp"
#include "tools/nvfp4/terminal.hpp"
#include "tools/nvfp4/verbs.hpp"

#include <fmt/core.h>
#include <memory>

namespace nvfp4::tool {
namespace {

using golden::FileComparison;
using golden::PartComparison;

struct Options {
  std::string a, b;
  golden::CompareOptions compare;
  bool all = false, json = false;
};

constexpr size_t kShown = 20;

std::string name_of(const PartComparison &p) { return io::printable(p.name, 40); }

void print_parts(const std::vector<PartComparison> &parts, bool all) {
  size_t shown = 0, left = 0;
  for (const PartComparison &p : parts) {
    if (p.equal() && !all) continue;
    if (shown == kShown && !all) {
      ++left;
      continue;
    }
    if (shown++ == 0)
      fmt::print("\n{:<42} {:>12} {:>12} {:>12} {:>11} {:>11}  {}\n", "tensor", "elements", "differing",
                 "max ulp", "max rel", "distance", "first at");
    if (!p.unlike.empty()) {
      fmt::print("{:<42} {}\n", name_of(p), p.unlike);
      continue;
    }
    const diagnosis::Comparison &w = p.words;
    const bool distances = p.measured && w.differing != 0;
    fmt::print("{:<42} {:>12} {:>12} {:>12} {:>11} {:>11}  {}\n", name_of(p), w.total, w.differing,
               distances && !p.by_value ? std::to_string(w.max_ulp) : "-",
               distances ? fmt::format("{:.3g}", w.max_relative) : "-",
               distances ? fmt::format("{:.3g}", w.distance) : "-",
               w.first < 0 ? "-" : io::shape_text(p.index(w.first)));
    if (p.by_value) fmt::print("{:<42} {} against {}: compared by value\n", "", p.a_type, p.b_type);
    if (w.nan_same + w.nan_words + w.nan_got + w.nan_missing + w.infinities != 0)
      fmt::print("{:<42} NaN on both sides {} with the same bits, {} with others; only in A {}, only in B "
                 "{}; Inf against "
                 "another value {}\n",
                 "", w.nan_same, w.nan_words, w.nan_got, w.nan_missing, w.infinities);
  }
  if (left != 0) fmt::print("{} more tensors differ (--all, --json)\n", left);
}

void print_values(const char *what, const std::vector<golden::ValueDifference> &list, bool all) {
  if (list.empty()) return;
  fmt::print("\n{}\n", what);
  for (size_t i = 0; i < list.size() && (all || i < kShown); ++i)
    fmt::print("  {}: {} against {}\n", io::printable(list[i].key, 60),
               io::printable(list[i].a.value_or("nothing"), 60),
               io::printable(list[i].b.value_or("nothing"), 60));
  if (!all && list.size() > kShown) fmt::print("  and {} more (--all)\n", list.size() - kShown);
}

void print_text(const FileComparison &c, bool all) {
  fmt::print("{}\n", verdict_line(golden::verdict_of(c), c.equal() ? Verdict::good : Verdict::bad));
  print_parts(c.parts, all);
  if (c.json) {
    if (!c.json->keys.empty()) fmt::print("\n{:<40} {:>10} {:>11}\n", "key", "differing", "max rel");
    for (const auto &[key, d] : c.json->keys)
      fmt::print("{:<40} {:>10} {:>11.3g}\n", io::printable(key, 40), d.count, d.max_relative);
    if (c.json->times != 0) fmt::print("{} times differ as well (they do not count)\n", c.json->times);
  }
  print_values("metadata that differ (they do not count)", c.metadata, all);
  for (const FileComparison &f : c.files) {
    fmt::print("\n{}: ", io::printable(f.a.substr(f.a.rfind('/') + 1)));
    print_text(f, all);
  }
}

int run(const Options &o) {
  Progress progress("compare");
  golden::CompareOptions options = o.compare;
  options.progress = [&](double f) { progress.show(f); };
  const FileComparison c = golden::compare_files(input_path(o.a), input_path(o.b), options);
  progress.done();
  if (o.json)
    fmt::print("{}\n", golden::to_json(c));
  else
    print_text(c, o.all);
  return c.equal() ? kEqual : kMismatch;
}

} // namespace

void register_compare(CLI::App &app, int &exit_code) {
  CLI::App *verb = app.add_subcommand(
      "compare", "Are two tensors, quantized files, checkpoints, logs or folders equal, and where not");
  auto o = std::make_shared<Options>();
  verb->add_option("a", o->a, "A file (.npy, .safetensors, .json, .jsonl), - for standard input, or a folder")
      ->required();
  verb->add_option("b", o->b, "Another of the same kind; a quantized file may meet a dense one")->required();
  verb->add_option("--a-tensor", o->compare.a_tensor,
                   "One tensor of A's file (default: all, paired by name)");
  verb->add_option("--b-tensor", o->compare.b_tensor, "One tensor of B's file (default: of the same name)");
  verb->add_flag("--all", o->all, "List equal tensors too, and everything that differs");
  verb->add_flag("--json", o->json, "One line of JSON");
  verb->footer("Words are compared. NaN with the same bits are equal, and their number is said; NaN with "
               "other bits differ, as do\n"
               "+0 and -0. Tensors of other types are compared by value and count as different. Metadata, "
               "and times in logs, are\n"
               "listed and do not count. Exit code 0: equal; 1: something differs; 2: bad input.\n"
               "Example: nvfp4 compare mine.q.safetensors reference.q.safetensors\n"
               "Example: nvfp4 compare runs/a/checkpoint.safetensors runs/b/checkpoint.safetensors --json");
  verb->callback([o, &exit_code] { exit_code = run(*o); });
}

} // namespace nvfp4::tool
