// SPDX-License-Identifier: Apache-2.0
// Options as a command line, a child with two pipes, and its log as it grows.
#include "tools/nvfp4/train_process.hpp"
#include "nvfp4/emulator/config.hpp"
#include "nvfp4/golden/io/json.hpp"
#include "nvfp4/golden/io/posix.hpp"
#include "nvfp4/reference_models/train/fields.hpp"
#include "nvfp4/reference_models/train/options.hpp"
#include "tools/nvfp4/verbs.hpp"

#include <array>
#include <csignal>
#include <fstream>
#include <limits>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ; // NOLINT: POSIX has it so

namespace nvfp4::tool {
namespace {

using models::Fields, models::StepReport, models::TrainOptions, models::TrainResult;

/// Everything, so that a resumed run takes nothing from its run.json.
std::vector<std::string> command_line(const TrainOptions &options) {
  std::vector<std::string> words = {"nvfp4", "train", "--json"};
  const nlohmann::ordered_json values = models::options_to_json(options);
  models::each_field(models::kTrainFields, [&](const auto &f) {
    const auto &value = values[f.name];
    std::string flag = f.option();
    flag = flag.substr(flag.rfind(',') + 1); // npos + 1 is 0
    if (value.is_boolean()) {
      if (value.template get<bool>()) words.push_back(flag);
    } else if (value.is_string()) {
      if (!value.template get<std::string>().empty())
        words.push_back(flag + "=" + value.template get<std::string>());
    } else {
      words.push_back(flag + "=" + value.dump());
    }
  });
  return words;
}

/// The environment, with the GPU that the child sees.
std::vector<std::string> environment(const std::string &gpu) {
  std::vector<std::string> variables;
  for (char **v = environ; *v != nullptr; ++v)
    if (gpu.empty() || !std::string_view(*v).starts_with("CUDA_VISIBLE_DEVICES=")) variables.emplace_back(*v);
  if (!gpu.empty()) variables.push_back("CUDA_VISIBLE_DEVICES=" + gpu);
  return variables;
}

std::vector<char *> pointers(std::vector<std::string> &texts) {
  std::vector<char *> out;
  for (std::string &t : texts) out.push_back(t.data());
  out.push_back(nullptr);
  return out;
}

struct Pipe {
  Pipe() {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) throw Error("cannot make a pipe: " + io::errno_text(errno));
    from = ends[0];
    to = ends[1];
  }
  ~Pipe() {
    ::close(from);
    if (to >= 0) ::close(to);
  }
  Pipe(const Pipe &) = delete;
  Pipe &operator=(const Pipe &) = delete;
  int from, to;
  std::string text; ///< read so far
};

/// Steps that the log has, from the next line on.
class LogReader {
public:
  LogReader(const TrainOptions &o, const std::function<void(const StepReport &)> &on_step)
      : path_(o.out + "/log.jsonl"), steps_(o.steps), on_step_(on_step) {
    if (o.resume) read([](const StepReport &) {}); // what is there already
  }
  void read() { read(on_step_); }

private:
  void read(const std::function<void(const StepReport &)> &take) {
    std::ifstream log(path_, std::ios::binary);
    log.seekg(std::streamoff(place_));
    for (std::string line; std::getline(log, line) && !log.eof(); place_ += line.size() + 1) {
      const auto json = nlohmann::ordered_json::parse(line, nullptr, false);
      if (json.is_discarded() || !json.is_object()) continue;
      StepReport r;
      r.steps = steps_;
      r.step = json.value("step", int64_t{0});
      if (json.contains("loss") && json["loss"].is_number()) r.loss = json["loss"].get<float>();
      r.tokens_per_second = json.value("tokens_per_s", 0.0);
      if (r.step <= last_) continue; // a resumed run had cut its log
      last_ = r.step;
      if (take) take(r);
    }
  }
  std::string path_;
  int64_t steps_, last_ = 0;
  const std::function<void(const StepReport &)> &on_step_;
  size_t place_ = 0;
};

TrainResult result_of(const std::string &text, int status, const std::string &errors) {
  const int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  TrainResult r;
  if (code == kEqual || code == kNotFinite) {
    const std::string where = "what nvfp4 train printed: ";
    const Fields f(io::parse_json(text, where), where, "");
    r.steps = f.count("steps", 0);
    r.final_loss = f.real("final_loss");
    r.smoothed_loss = f.real("smoothed_loss");
    r.validation_loss = f.real("validation_loss");
    r.bits_per_byte = f.has("bits_per_byte") ? f.real("bits_per_byte") : 0;
    r.diverged = f.has("diverged") ? f.count("diverged", 0) : 0;
    r.last_finite_loss = f.optional_real("last_finite_loss");
    r.parameter_digest = f.text("digest");
    if (f.has("not_finite")) r.not_finite = models::not_finite_of(f.object("not_finite"));
    return r;
  }
  if (code == 128 + SIGTERM || code == 128 + SIGINT || code == 128 + SIGHUP) {
    r.interrupted = true;
    return r;
  }
  std::string last; // of the lines that are no progress
  for (size_t at = 0; at < errors.size();) {
    const size_t end = std::min(errors.find('\n', at), errors.size());
    const std::string line = errors.substr(at, end - at);
    if (line.starts_with("nvfp4: ") && !line.starts_with("nvfp4: train: ")) last = line.substr(7);
    at = end + 1;
  }
  throw Error(!last.empty()         ? last
              : WIFSIGNALED(status) ? std::string("the process of the run was ended by signal ") +
                                          std::to_string(WTERMSIG(status))
                                    : "the process of the run ended with code " + std::to_string(code));
}

} // namespace

TrainResult train_in_process(const TrainOptions &asked,
                             const std::function<void(const StepReport &)> &on_step,
                             const std::function<bool()> &stop) {
  TrainOptions options = asked;
  std::string gpu;
  if (options.device.starts_with("cuda:")) {
    gpu = options.device.substr(5);
    options.device = "cuda";
  }
  std::vector<std::string> words = command_line(options), variables = environment(gpu);
  const std::vector<char *> arguments = pointers(words), values = pointers(variables);
  Pipe out, err;
  LogReader log(options, on_step);
  const pid_t parent = ::getpid(), child = ::fork();
  if (child < 0) throw Error("cannot start a process: " + io::errno_text(errno));
  if (child == 0) {  // nothing but calls that are safe here until exec
    ::setpgid(0, 0); // Ctrl-C comes through this process, once
    ::prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (::getppid() != parent) ::_exit(128 + SIGTERM);
    ::dup2(out.to, STDOUT_FILENO);
    ::dup2(err.to, STDERR_FILENO);
    ::execve("/proc/self/exe", arguments.data(), values.data());
    ::_exit(127);
  }
  for (Pipe *p : {&out, &err}) {
    ::close(p->to);
    p->to = -1;
  }
  bool told = false;
  for (std::array<pollfd, 2> open = {{{out.from, POLLIN, 0}, {err.from, POLLIN, 0}}};
       open[0].fd >= 0 || open[1].fd >= 0;) {
    (void)::poll(open.data(), open.size(), 200);
    for (size_t i = 0; i < 2; ++i) {
      if (open[i].fd < 0 || open[i].revents == 0) continue;
      std::array<char, 4096> bytes{};
      const ssize_t n = io::retry([&] { return ::read(open[i].fd, bytes.data(), bytes.size()); });
      if (n > 0)
        (i == 0 ? out : err).text.append(bytes.data(), size_t(n));
      else
        open[i].fd = -1;
    }
    if (!told && stop && stop()) {
      told = true;
      ::kill(child, SIGTERM);
    }
    log.read();
  }
  int status = 0;
  (void)io::retry([&] { return ::waitpid(child, &status, 0); });
  log.read();
  return result_of(out.text, status, err.text);
}

} // namespace nvfp4::tool
