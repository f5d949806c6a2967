// SPDX-License-Identifier: Apache-2.0
// What sources that touch files need of POSIX: descriptors that close themselves, calls that a signal
// interrupts, the one line of a failure. Internal.
#pragma once
#include "nvfp4/emulator/config.hpp"
#include "nvfp4/golden/io/message.hpp"

#include <cerrno>
#include <fcntl.h>
#include <string>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

namespace nvfp4::io {

/// "out.npy: cannot write: No space left on device".
[[noreturn]] inline void fail(const std::string &path, const char *what, int code) {
  throw SystemError((path.empty() ? "''" : printable(path)) + ": " + what + ": " + errno_text(code));
}

/// A file descriptor that closes itself.
class Descriptor {
public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(const Descriptor &) = delete;
  Descriptor &operator=(const Descriptor &) = delete;
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  [[nodiscard]] int get() const { return fd_; }
  /// Closes now; false with errno set if that fails, as it may where writes are delayed.
  [[nodiscard]] bool close() { return ::close(std::exchange(fd_, -1)) == 0; }

private:
  int fd_;
};

template <class Call> auto retry(Call call) {
  auto result = call();
  while (result < 0 && errno == EINTR) result = call();
  return result;
}

inline int open_file(const std::string &path, int flags, mode_t mode = 0) {
  return retry([&] { return ::open(path.c_str(), flags | O_CLOEXEC, mode); });
}

} // namespace nvfp4::io
