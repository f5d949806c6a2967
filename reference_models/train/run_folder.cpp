// SPDX-License-Identifier: Apache-2.0
// JSON and POSIX files of a run.
#include "nvfp4/reference_models/train/run_folder.hpp"
#include "nvfp4/emulator/config.hpp"
#include "nvfp4/golden/io/file.hpp"
#include "nvfp4/golden/io/message.hpp"
#include "nvfp4/reference_models/fields/json.hpp"
#include "nvfp4/reference_models/recipe/recipe.hpp"
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
  Json j;
  j["version"] = 1;
  j["model"] = Json::parse(to_json(run.model));
  j["recipe"] = Json::parse(run.recipe);
  j["options"] = options_to_json(run.options);
  j["data"] = {{"description", run.data}, {"sha256", run.data_digest}};
  j["parameters"] = parameter_count(run.model);
  return j;
}

/// A recipe as this release writes it; an older one wrote fewer fields.
Json rewritten(const Json &recipe, const std::string &where, const std::string &advice) {
  try {
    return Json::parse(to_json(parse_recipe(recipe.dump(), where + "recipe")));
  } catch (const Error &error) {
    throw Error(error.what() + advice);
  }
}

[[noreturn]] void fail(const std::string &path, const char *what) {
  throw Error(std::string(what) + " " + io::printable(path) + ": " + io::errno_text(errno));
}

} // namespace

RunFolder::RunFolder(const std::string &path, const RunDescription &run, bool resume) : path_(path) {
  if (path.empty()) throw Error("expected a folder for the run (--out DIR)");
  const std::string file = path + "/run.json";
  std::error_code code;
  const bool there = std::filesystem::exists(file, code);
  if (there && !resume)
    throw Error(io::printable(path) +
                " already holds a run: continue it with --resume, or choose another folder");
  if (!there && resume)
    throw Error(io::printable(path) + " holds no run to continue (no run.json): start it without --resume");
  const Json mine = description(run);
  if (there) {
    const std::string where = io::printable(file) + ": ",
                      advice = "; restore the file or start the run again in another folder";
    const Fields fields(parse_json(read_text(file), where, advice), where, advice);
    if (fields.count("version", 1) != 1)
      throw Error(where + "expected the description of a run, version 1; use the release that wrote it");
    const Json &stored = fields.json();
    const std::string different =
        first_difference(run.options, fields.object("options").json(), where, advice);
    if (!different.empty()) throw Error(io::printable(path) + " holds another run: " + different);
    const Json recipe = rewritten(fields.object("recipe").json(), where, advice);
    for (const char *key : {"model", "recipe", "data"})
      if (!stored.contains(key) || (key == std::string_view("recipe") ? recipe : stored[key]) != mine[key])
        throw Error(io::printable(path) + " holds another run: its " + key + " is not the one given");
  } else {
    std::filesystem::create_directories(path, code);
    if (code) throw Error("cannot make the folder " + io::printable(path) + ": " + code.message());
    const std::string text = mine.dump(2) + "\n";
    io::write_file_atomically(file, std::as_bytes(std::span(text.data(), text.size())));
  }
  const std::string log = path + "/log.jsonl";
  log_ = ::open(log.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
  if (log_ < 0) fail(log, "cannot open");
  if (::flock(log_, LOCK_EX | LOCK_NB) != 0)
    throw Error(io::printable(path) +
                " is being written by another process: wait for it, or choose another folder");
  for (const auto &entry : std::filesystem::directory_iterator(path, code)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(".nvfp4-") && name.ends_with(".tmp")) std::filesystem::remove(entry.path(), code);
  }
}

RunFolder::~RunFolder() {
  if (log_ >= 0) ::close(log_);
}

std::vector<float> RunFolder::truncate_log(int64_t step, const Digests &state) {
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
  if (::ftruncate(log_, off_t(keep)) != 0) fail(file, "cannot shorten");
  return losses;
}

void RunFolder::sync_log() const {
  if (::fdatasync(log_) != 0) fail(path_ + "/log.jsonl", "cannot write");
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
  const std::string line = j.dump() + "\n";
  for (size_t done = 0; done < line.size();) {
    const ssize_t n = ::write(log_, line.data() + done, line.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail(path_ + "/log.jsonl", "cannot write");
    done += size_t(n);
  }
}

} // namespace nvfp4::models
