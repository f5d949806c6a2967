// SPDX-License-Identifier: Apache-2.0
// nvfp4 log: logs and diagnostics of runs as CSV and for TensorBoard.
#include "nvfp4/golden/io/file.hpp"
#include "nvfp4/golden/io/message.hpp"
#include "nvfp4/reference_models/report/export.hpp"
#include "nvfp4/reference_models/train/run_folder.hpp"
#include "tools/nvfp4/terminal.hpp"
#include "tools/nvfp4/verbs.hpp"

#include <filesystem>
#include <fmt/core.h>
#include <memory>
#include <set>

namespace nvfp4::tool {
namespace {

struct Options {
  std::vector<std::string> folders;
  std::string log, diagnostics, tensorboard;
};

void write(const std::string &path, const std::string &text) {
  io::write_file_atomically(path, std::as_bytes(std::span(text)));
}

int run(const Options &o) {
  if (o.log.empty() && o.diagnostics.empty() && o.tensorboard.empty())
    throw Error("expected what to write: --csv FILE, --diagnostics FILE or --tensorboard FOLDER");
  const std::vector<std::string> folders = models::find_runs(o.folders);
  for (const std::string &folder : folders)
    for (const std::string &out : {o.log, o.diagnostics}) models::check_not_of_run(out, folder);
  std::vector<models::RunData> runs;
  Progress progress("log");
  for (size_t i = 0; i < folders.size(); ++i) {
    runs.push_back(models::read_run(folders[i]));
    progress.show(double(i + 1) / double(folders.size()));
  }
  progress.done();
  if (!o.log.empty()) write(o.log, models::log_csv(runs));
  if (!o.diagnostics.empty()) write(o.diagnostics, models::diagnostics_csv(runs));
  if (!o.tensorboard.empty()) {
    std::set<std::string> names;
    for (const models::RunData &r : runs) {
      const std::filesystem::path folder = std::filesystem::path(r.folder).lexically_normal();
      std::string name = (folder.has_filename() ? folder : folder.parent_path()).filename().string();
      while (!names.insert(name).second) name += "_";
      const std::filesystem::path out = std::filesystem::path(o.tensorboard) / name;
      std::error_code code;
      std::filesystem::create_directories(out, code);
      if (code) throw Error("cannot make the folder " + io::printable(out.string()) + ": " + code.message());
      write((out / "events.out.tfevents.0.nvfp4").string(), models::event_file(r));
    }
  }
  fmt::print("{} run{} exported\n", runs.size(), runs.size() == 1 ? "" : "s");
  return kEqual;
}

} // namespace

void register_log(Command &app, int &exit_code) {
  Command *verb = app.add_subcommand("log", "Logs and diagnostics of runs as CSV and for TensorBoard");
  auto o = std::make_shared<Options>();
  verb->add_option("folders", o->folders, "Folders of runs, or of experiments")->required();
  verb->add_option("--csv", o->log, "CSV to write: a line a step");
  verb->add_option("--diagnostics", o->diagnostics, "CSV to write: a line a measure");
  verb->add_option("--tensorboard", o->tensorboard, "Folder to write, with one of each run in it");
  verb->footer(
      "Example: nvfp4 log runs --csv log.csv --tensorboard events   # then: tensorboard --logdir events");
  verb->callback([o, &exit_code] { exit_code = run(*o); });
}

} // namespace nvfp4::tool
