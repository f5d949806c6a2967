// SPDX-License-Identifier: Apache-2.0
// nvfp4 report DIR... -o report.html: one self-contained page about training runs.
#include "nvfp4/golden/io/message.hpp"
#include "nvfp4/reference_models/report/report.hpp"
#include "nvfp4/version.hpp"
#include "tools/nvfp4/terminal.hpp"
#include "tools/nvfp4/verbs.hpp"

#include <fmt/core.h>
#include <memory>

namespace nvfp4::tool {
namespace {

struct Options {
  std::vector<std::string> folders;
  std::string out;
  bool json = false;
};

int report(const Options &o) {
  Progress progress("report");
  const models::WrittenReport made = models::write_report(o.folders, o.out, NVFP4_VERSION_STRING,
                                                          [&](double f) { progress.show(f); });
  progress.done();
  const auto &[runs, sorted, orderings, bytes] = made;
  if (o.json) {
    fmt::print("{}\n", models::report_json(made, o.out));
    return kEqual;
  }
  for (const models::Ordering &x : orderings)
    fmt::print("{:<13} {} {}{}\n", to_string(x.verdict), x.number, x.claim,
               x.where.empty() ? "" : " (" + x.where + ")");
  for (const std::string &difference : sorted.differences)
    fmt::print("NOT ALIKE     {}\n", io::printable(difference, 2000));
  for (const models::Duplicate &d : sorted.duplicates) fmt::print("DUPLICATE     {}\n", d.text());
  for (const models::RunData &r : runs)
    if (r.diverged)
      fmt::print(
          "DIVERGED      {} at step {}, last finite loss {}: left out of losses, gaps and orderings{}\n",
          io::printable(r.folder), r.diverged->step,
          r.diverged->last_finite_step > 0 ? fmt::format("{:.4f}", r.diverged->last_finite_loss)
                                           : std::string("none"),
          r.diverged->first ? "; first not finite: " + r.diverged->first->text() : "");
  for (const models::RunData &r : runs)
    if (!r.not_finite.empty())
      fmt::print("NOT FINITE    {}: {}{}\n", io::printable(r.folder), r.not_finite.front().text(),
                 r.not_finite.size() > 1 ? fmt::format("; {} more", r.not_finite.size() - 1) : "");
  fmt::print("{}: {} run{}, losses, {} orderings, tensors and their provenance\n", o.out, runs.size(),
             runs.size() == 1 ? "" : "s", orderings.size());
  return kEqual;
}

} // namespace

void register_report(Command &app, int &exit_code) {
  Command *verb =
      app.add_subcommand("report", "One HTML page about training runs: losses, gaps, tensors, orderings");
  auto o = std::make_shared<Options>();
  verb->add_option("folders", o->folders, "Folders of runs, or of experiments")->required();
  verb->add_option("-o,--output", o->out, "The page to write")->required();
  verb->add_flag("--json", o->json, "Machine-readable output: the orderings with their numbers");
  verb->footer("Example: nvfp4 report runs/gla-tiny-bf16-1 runs/gla-tiny-chon-1 -o report.html");
  verb->callback([o, &exit_code] { exit_code = report(*o); });
}

} // namespace nvfp4::tool
