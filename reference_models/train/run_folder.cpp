// SPDX-License-Identifier: Apache-2.0
// JSON and POSIX files of a run.
#include "nvfp4/reference_models/train/run_folder.hpp"

#include "nvfp4/emulator/config.hpp"
#include "nvfp4/golden/io/file.hpp"
#include "nvfp4/golden/io/message.hpp"
#include "nvfp4/reference_models/fields/json.hpp"
#include "nvfp4/reference_models/recipe/recipe.hpp"
#include "nvfp4/reference_models/train/checksums.hpp"
#include "nvfp4/reference_models/train/fields.hpp"
#include "nvfp4/reference_models/train/options.hpp"

#include <bit>
#include <cerrno>
#include <cstdio>
#include <fcntl.h>
#include <filesystem>
#include <sys/file.h>
#include <unistd.h>

namespace nvfp4::models {
namespace {

using Json = nlohmann::ordered_json;

Json description(const RunDescription &run) {
  TrainOptions options = run.options;
  options.resume = false;
  Json j;
  j["version"] = 1;
  j["model"] = Json::parse(to_json(run.model));
  j["recipe"] = Json::parse(run.recipe);
  j["options"] = options_to_json(options);
  j["data"] = {{"description", run.data}, {"sha256", run.data_digest}};
  j["parameters"] = parameter_count(run.model);
  return j;
}

/// run.json, checked against its own checksum.
Json stored_run(const std::string &folder) {
  const std::string file = folder + "/run.json", where = io::printable(file) + ": ";
  Json json = parse_json(read_text(file), where, kRestoreRun);
  const Fields fields(json, where, kRestoreRun);
  if (fields.count("version", 1) != 1)
    throw Error(where + "expected the description of a run, version 1; use the release that wrote it");
  check_seal(json, where, kRestoreRun);
  return json;
}

void write_run_json(const std::string &folder, Json json) {
  const std::string text = sealed(std::move(json)).dump(2) + "\n";
  io::write_file_atomically(folder + "/run.json", std::as_bytes(std::span(text)));
}

TrainOptions options_of(const Json &json, const std::string &folder) {
  const std::string where = io::printable(folder) + "/run.json: ";
  TrainOptions options;
  const Fields stored = Fields(json, where, kRestoreRun).object("options");
  for (const auto &[key, value] : stored.json().items()) set_option(options, key, value, where, kRestoreRun);
  return options;
}

/// A recipe as this release writes it; an older one wrote fewer fields.
Json rewritten(const Json &recipe, const std::string &where) {
  try {
    return Json::parse(to_json(parse_recipe(recipe.dump(), where + "recipe")));
  } catch (const Error &error) {
    throw Error(error.what() + std::string(kRestoreRun));
  }
}

/// "linears.x.hcp.k: 4 here, 8 there" of the first place where two trees differ; a name that differs too
/// comes last.
std::string tree_difference(const Json &here, const Json &there, const std::string &path) {
  if (here == there) return {};
  if (here.is_object() && there.is_object())
    for (const bool names : {false, true}) {
      Json keys = here; // of both
      keys.update(there);
      for (const auto &[key, unused] : keys.items()) {
        if ((key == "name") != names) continue;
        const std::string difference =
            tree_difference(here.value(key, Json()), there.value(key, Json()), path + "." + key);
        if (!difference.empty()) return difference;
      }
    }
  return path + ": " + shown(here) + " here, " + shown(there) + " there";
}

std::string difference_between(const RunDescription &run, const Json &stored, const std::string &folder) {
  const std::string where = io::printable(folder) + "/run.json: ";
  const Fields fields(stored, where, kRestoreRun);
  const std::string different =
      first_difference(run.options, fields.object("options").json(), where, kRestoreRun);
  if (!different.empty()) return different;
  const Json mine = description(run), recipe = rewritten(fields.object("recipe").json(), where);
  for (const auto &[key, value] :
       {std::pair<std::string, Json>("model", fields.object("model").json()), {"recipe", recipe}})
    if (value != mine[key])
      return "its " + key + " is not the one given: " + tree_difference(mine[key], value, key);
  if (fields.object("data").text("sha256") != run.data_digest)
    return "its data is not the one given: " + shown(run.data) + " here, " +
           shown(fields.object("data").json().value("description", Json())) + " there, with other contents";
  return {};
}

FileSum whole(const std::string &path) {
  return std::filesystem::exists(path) ? sum_of(io::read_file(path)) : FileSum{};
}

[[noreturn]] void fail(const std::string &path, const char *what) {
  throw Error(std::string(what) + " " + io::printable(path) + ": " + io::errno_text(errno));
}

} // namespace

void check_not_of_run(const std::string &output, const std::string &folder) {
  for (const char *file : kRunFiles)
    if (io::is_same_file(output, folder + "/" + file))
      throw Error(io::printable(output) + ": is a file of the run in " + io::printable(folder) +
                  ": give what is written another name");
}

std::string read_run_json(const std::string &folder) {
  if (std::error_code code; !std::filesystem::exists(folder + "/run.json", code))
    throw Error(io::printable(folder) + " holds no run to continue (no run.json): start it without --resume");
  return stored_run(folder).dump();
}

TrainOptions read_options(const std::string &folder) {
  const Json stored = Json::parse(read_run_json(folder));
  if (stored.value("kind", Json()) == "images")
    throw Error(io::printable(folder) + " is a run of a convolutional network: continue it with nvfp4 cnn --resume");
  return options_of(stored, folder);
}

std::string difference_from(const RunDescription &run, const std::string &folder) {
  return difference_between(run, stored_run(folder), folder);
}

RunFolder::RunFolder(const std::string &path, const RunDescription &run, bool resume)
    : RunFolder(path,
                RunRecord{description(run).dump(), run.options.data,
                          [run, path](const std::string &stored) {
                            return difference_between(run, Json::parse(stored), path);
                          }},
                resume) {}

RunFolder::RunFolder(const std::string &path, RunRecord run, bool resume) : path_(path), run_(std::move(run)) {
  if (path.empty()) throw Error("expected a folder for the run (--out DIR)");
  const auto check_there = [&] {
    std::error_code code;
    const bool there = std::filesystem::exists(path + "/run.json", code);
    if (there && !resume)
      throw Error(io::printable(path) +
                  " already holds a run: continue it with --resume, or choose another folder");
    for (const char *file : kRunFiles)
      if (!there && !resume && std::filesystem::file_size(path + "/" + file, code) > 0 && !code)
        throw Error(io::printable(path) + " holds " + file +
                    " of a run without its run.json: restore it, or choose another folder");
    if (!there && resume)
      throw Error(io::printable(path) + " holds no run to continue (no run.json): start it without --resume");
  };
  check_there(); // before the folder is made
  for (const char *file : kRunFiles)
    if (io::is_same_file(run_.data, path + "/" + file))
      throw Error(io::printable(run_.data) +
                  ": the data is a file of the run: give another --data or --out");
  std::error_code code;
  std::filesystem::create_directories(path, code);
  if (code) throw Error("cannot make the folder " + io::printable(path) + ": " + code.message());
  const std::string log = path + "/log.jsonl";
  log_ = ::open(log.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
  if (log_ < 0) fail(log, "cannot open");
  try {
    if (::flock(log_, LOCK_EX | LOCK_NB) != 0)
      throw Error(io::printable(path) +
                  " is being written by another process: wait for it, or choose another folder");
    check_there(); // who had the lock before may have made it
    if (resume) {
      const Json stored = stored_run(path);
      const std::string different = run_.difference(stored.dump());
      if (!different.empty()) throw Error(io::printable(path) + " holds another run: " + different);
      const Json before = stored.value("options", Json::object()), now = Json::parse(run_.json)["options"];
      for (const char *key : {"steps", "data", "validation_data"})
        again_ = again_ || before.value(key, Json()) != now[key];
      checksums_ = std::make_unique<Checksums>(path);
    } else {
      checksums_ = std::make_unique<Checksums>(path);
      write_run_json(path, Json::parse(run_.json));
    }
  } catch (...) {
    ::close(log_);
    throw;
  }
  for (const auto &entry : std::filesystem::directory_iterator(path, code)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(".nvfp4-") && name.ends_with(".tmp")) std::filesystem::remove(entry.path(), code);
  }
}

void RunFolder::note_files(int64_t step) { checksums_->save(step); }

RunFolder::~RunFolder() {
  if (log_ >= 0) ::close(log_);
}

std::vector<float> RunFolder::go_back(int64_t step, const Digests &state) {
  const std::string file = path_ + "/log.jsonl";
  const std::string text = read_text(file), advice = "; start the run again in another folder";
  std::vector<float> losses;
  Digests logged = state;
  size_t keep = 0;
  while (int64_t(losses.size()) < step) {
    const size_t end = text.find('\n', keep);
    if (end == std::string::npos)
      throw Error(io::printable(file) + ": expected " + std::to_string(step) +
                  " steps, as the checkpoint has, got " + std::to_string(losses.size()) + advice);
    const auto number = int64_t(losses.size() + 1);
    const std::string where = io::printable(file) + " line " + std::to_string(number) + ": ";
    const Fields line(parse_json(std::string_view(text).substr(keep, end - keep), where, advice), where,
                      advice);
    if (line.count("step", 1) != number)
      throw Error(where + "expected the record of that step, got that of step " +
                  std::to_string(line.count("step", 1)) + advice);
    losses.push_back(std::bit_cast<float>(uint32_t(line.word("loss_hex", 8))));
    logged = {line.digits("digest", 16),
              line.has("state_digest") ? line.digits("state_digest", 16) : state.state};
    keep = end + 1;
  }
  if (logged != state)
    throw Error(io::printable(checkpoint()) + ": its state is not the one that log.jsonl has for step " +
                std::to_string(step) + advice);
  const Recorder::Kept kept = Recorder::read_until(path_, step);
  checksums_->verify(step, {{"log.jsonl", sum_of(std::as_bytes(std::span(text).first(keep)))},
                            {"diagnostics.jsonl", sum_of(std::as_bytes(std::span(kept.lines)))},
                            {"diagnostics.safetensors", sum_of(kept.tensors)},
                            {"sensitivity.json", whole(path_ + "/sensitivity.json")}});
  if (::ftruncate(log_, off_t(keep)) != 0) fail(file, "cannot shorten");
  Recorder::keep(path_, kept);
  if (step > 0) checksums_->save(step);
  if (again_) {
    Json stored = stored_run(path_), mine = Json::parse(run_.json);
    for (const char *key : {"steps", "schedule_steps", "data", "validation_data"})
      stored["options"][key] = mine["options"][key];
    stored["data"] = mine["data"];
    write_run_json(path_, std::move(stored));
    again_ = false;
  }
  return losses;
}

void RunFolder::sensitivity(std::span<const SensitivityRecord> records, int64_t step) {
  checksums_->save_without_sensitivity(step);
  write_sensitivity(path_, records);
  checksums_->save(step);
}

void RunFolder::log(const StepReport &report, const Digests &digests) {
  char hex[9];
  std::snprintf(hex, sizeof hex, "%08x", std::bit_cast<uint32_t>(report.loss));
  Json j;
  j["step"] = report.step;
  j["tokens"] = report.tokens;
  j["loss"] = report.loss;
  j["loss_hex"] = hex;
  j["lr"] = report.learning_rate;
  j["grad_norm"] = report.gradient_norm;
  j["tokens_per_s"] = double(int64_t(report.tokens_per_second * 10)) / 10;
  j["digest"] = digests.parameters;
  j["state_digest"] = digests.state;
  if (!report.finite()) j["diverged"] = true;
  if (report.not_finite) j["not_finite"] = fields_to_json(kNotFiniteFields, *report.not_finite);
  if (report.validation_loss) j["val_loss"] = *report.validation_loss;
  if (report.validation_accuracy) j["val_accuracy"] = *report.validation_accuracy;
  const std::string line = j.dump() + "\n";
  for (size_t done = 0; done < line.size();) {
    const ssize_t n = ::write(log_, line.data() + done, line.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail(path_ + "/log.jsonl", "cannot write");
    done += size_t(n);
  }
}

FolderLock::FolderLock(const std::string &path, bool shared) {
  fd_ = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd_ < 0) fail(path, "cannot open");
  if (::flock(fd_, (shared ? LOCK_SH : LOCK_EX) | LOCK_NB) != 0 && errno == EWOULDBLOCK) { // some file systems have no such locks
    ::close(fd_);
    throw Error(io::printable(path) +
                " is being written by another process: wait for it, or choose another folder");
  }
}

FolderLock::~FolderLock() { ::close(fd_); }

} // namespace nvfp4::models
