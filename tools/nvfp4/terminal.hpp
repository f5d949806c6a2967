// SPDX-License-Identifier: Apache-2.0
// What a person sees while and after the program works: progress with the time left, and a coloured verdict.
#pragma once
#include <chrono>
#include <mutex>
#include <optional>
#include <string>

namespace nvfp4::tool {

/// "8 s", "3 min 20 s", "2 h 5 min": a duration as one reads it.
[[nodiscard]] std::string duration_text(double seconds);

/// When progress is shown and in which words: nothing before two seconds; then on a terminal four times a
/// second, elsewhere after 2, 4, 8, ... seconds and then every minute.
class ProgressPace {
public:
  ProgressPace(std::string label, bool terminal) : label_(std::move(label)), terminal_(terminal) {}
  /// What to show `seconds` after the start with `fraction` of the work done, or nothing.
  [[nodiscard]] std::optional<std::string> at(double seconds, double fraction);

private:
  std::string label_;
  bool terminal_;
  double next_ = 2;
};

/// Progress of one piece of work, on stderr: a line that is drawn anew on a terminal, a new line now and then
/// elsewhere. Any thread may call it.
class Progress {
public:
  explicit Progress(const std::string &label);
  ~Progress() { done(); }
  Progress(const Progress &) = delete;
  Progress &operator=(const Progress &) = delete;
  /// 0 <= fraction <= 1.
  void show(double fraction);
  /// Clears the line, so that something else can be printed; it comes back when its time comes.
  void clear();
  /// Clears the line; nothing is shown after it.
  void done();

private:
  std::mutex mutex_;
  bool terminal_, drawn_ = false, done_ = false;
  ProgressPace pace_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

enum class Verdict { good, bad };
/// The line in green or red where stdout is a terminal that shows colours and NO_COLOR is not set; else as it
/// is.
[[nodiscard]] std::string verdict_line(const std::string &text, Verdict verdict);

} // namespace nvfp4::tool
