// SPDX-License-Identifier: Apache-2.0
// Progress and colour.
#include "tools/nvfp4/terminal.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <unistd.h>

namespace nvfp4::tool {

std::string duration_text(double seconds) {
  const auto s = static_cast<long long>(std::ceil(std::min(seconds, 1e12)));
  if (s < 60) return std::to_string(s) + " s";
  if (s < 3600)
    return std::to_string(s / 60) + " min" + (s % 60 == 0 ? "" : " " + std::to_string(s % 60) + " s");
  if (s < 172800)
    return std::to_string(s / 3600) + " h" +
           (s / 60 % 60 == 0 ? "" : " " + std::to_string(s / 60 % 60) + " min");
  return std::to_string(s / 86400) + " days";
}

std::optional<std::string> ProgressPace::at(double seconds, double fraction) {
  if (seconds < next_ || !(fraction < 1)) return std::nullopt;
  next_ = terminal_ ? seconds + 0.25 : std::max(seconds, next_) + std::min(std::max(seconds, 2.0), 60.0);
  std::string text = label_ + ": " + std::to_string(int(100 * std::max(fraction, 0.0))) + " %";
  if (fraction > 0) text += ", about " + duration_text(seconds * (1 - fraction) / fraction) + " left";
  return text;
}

Progress::Progress(const std::string &label)
    : terminal_(isatty(STDERR_FILENO) != 0), pace_(label, terminal_) {}

void Progress::show(double fraction) {
  const std::scoped_lock lock(mutex_);
  if (done_) return;
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start_;
  const std::optional<std::string> text = pace_.at(elapsed.count(), fraction);
  if (!text) return;
  std::fprintf(stderr, terminal_ ? "\r%s\033[K" : "nvfp4: %s\n", text->c_str());
  std::fflush(stderr);
  drawn_ = terminal_;
}

void Progress::clear() {
  const std::scoped_lock lock(mutex_);
  if (drawn_) {
    std::fputs("\r\033[K", stderr);
    std::fflush(stderr);
  }
  drawn_ = false;
}

void Progress::done() {
  clear();
  const std::scoped_lock lock(mutex_);
  done_ = true;
}

std::string verdict_line(const std::string &text, Verdict verdict) {
  const char *const off = std::getenv("NO_COLOR"), *const kind = std::getenv("TERM");
  const bool plain = (off != nullptr && *off != 0) || isatty(STDOUT_FILENO) == 0 ||
                     (kind != nullptr && std::string_view(kind) == "dumb");
  if (plain) return text;
  return (verdict == Verdict::good ? "\033[32m" : "\033[31m") + text + "\033[0m";
}

} // namespace nvfp4::tool
