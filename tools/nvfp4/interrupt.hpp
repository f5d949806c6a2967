// SPDX-License-Identifier: Apache-2.0
// Ctrl-C and SIGTERM for work that can stop and be continued.
#pragma once

namespace nvfp4::tool {

/// From its construction on, the first SIGINT, SIGTERM or SIGHUP is noted and said on stderr; a second ends
/// the process at once, as if nobody had caught it (128 + signal in a shell). A signal that is ignored, as
/// under nohup, stays so. One at a time.
class Interrupt {
public:
  Interrupt();
  ~Interrupt();
  Interrupt(const Interrupt &) = delete;
  Interrupt &operator=(const Interrupt &) = delete;

  /// The signal that came; 0: none.
  [[nodiscard]] static int signal();
  /// For a process that stopped because of it.
  [[nodiscard]] static int exit_code() { return 128 + signal(); }
};

} // namespace nvfp4::tool
