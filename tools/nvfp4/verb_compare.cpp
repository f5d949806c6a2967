// SPDX-License-Identifier: Apache-2.0
// nvfp4 compare: two files of tensors, quantized tensors, checkpoints, logs, or two folders of them.
#include "nvfp4/golden/comparison/compare_files.hpp"
#include "tools/nvfp4/paths.hpp"
#include "tools/nvfp4/terminal.hpp"
#include "tools/nvfp4/verbs.hpp"

#include <fmt/core.h>
#include <memory>

namespace nvfp4::tool {
namespace {

using golden::FileComparison;

struct Options {
  std::string a, b;
  golden::CompareOptions compare;
  bool all = false, json = false;
};

int run(const Options &o) {
  Progress progress("compare");
  golden::CompareOptions options = o.compare;
  options.progress = [&](double f) { progress.show(f); };
  const FileComparison c = golden::compare_files(input_path(o.a), input_path(o.b), options);
  progress.done();
  if (o.json)
    fmt::print("{}\n", golden::to_json(c));
  else
    fmt::print("{}", with_verdict(golden::to_text(c, o.all), c.equal() ? Verdict::good : Verdict::bad));
  return c.equal() ? kEqual : kMismatch;
}

} // namespace

void register_compare(Command &app, int &exit_code) {
  Command *verb = app.add_subcommand(
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
