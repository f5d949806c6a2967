// SPDX-License-Identifier: Apache-2.0
// The handler does only what a handler may: one flag, one write, and the default action for the second
// signal.
#include "tools/nvfp4/interrupt.hpp"

#include <cerrno>
#include <csignal>
#include <string_view>
#include <unistd.h>

namespace nvfp4::tool {
namespace {

volatile std::sig_atomic_t came = 0;
bool terminal = false; ///< a line of progress has to be ended
constexpr int kSignals[] = {SIGINT, SIGTERM, SIGHUP};

extern "C" void note_signal(int signal);

/// Gives the signals that we caught their default action.
void let_go() {
  for (const int signal : kSignals) {
    struct sigaction now {};
    if (::sigaction(signal, nullptr, &now) == 0 && now.sa_handler == note_signal)
      (void)std::signal(signal, SIG_DFL);
  }
}

extern "C" void note_signal(int signal) {
  const int kept = errno;
  came = signal;
  let_go(); // the second one ends the process, whichever it is
  constexpr std::string_view text = "\nnvfp4: stopping after this step; once more ends at once\n";
  const std::string_view line = terminal ? text : text.substr(1);
  // nothing can be done where nobody reads it
  if (::write(STDERR_FILENO, line.data(), line.size()) < 0) errno = 0;
  errno = kept;
}

} // namespace

Interrupt::Interrupt() {
  came = 0;
  terminal = ::isatty(STDERR_FILENO) != 0;
  for (const int signal : kSignals) {
    struct sigaction action {
    }, before{};
    action.sa_handler = note_signal;
    action.sa_flags = SA_RESTART;
    if (::sigaction(signal, nullptr, &before) == 0 && before.sa_handler != SIG_IGN)
      (void)::sigaction(signal, &action, nullptr);
  }
}

Interrupt::~Interrupt() { let_go(); }

int Interrupt::signal() { return came; }

} // namespace nvfp4::tool
