// SPDX-License-Identifier: Apache-2.0
// What the tests of training slices share: a folder, a recorded slice, the one line of a refusal.
#pragma once
#include "nvfp4/golden/io/message.hpp"
#include "nvfp4/reference_models/slice/record.hpp"
#include "nvfp4/reference_models/slice/replay.hpp"
#include "tests/catch.hpp"

#include <filesystem>
#include <stdlib.h>

namespace nvfp4::test {

using namespace nvfp4::models;

struct SliceFolder {
  std::filesystem::path path;
  SliceFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "nvfp4-slice-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw Error("cannot create " + name);
    path = name;
  }
  ~SliceFolder() { std::filesystem::remove_all(path); }
  SliceFolder(const SliceFolder &) = delete;
  SliceFolder &operator=(const SliceFolder &) = delete;
  [[nodiscard]] std::string file(const char *name) const { return (path / name).string(); }
};

/// A request for a step of the copy task with a small model from its initial values.
inline RecordRequest small_request(const SliceFolder &folder, const std::string &family,
                                   const std::string &recipe) {
  const ModelConfig config = find_model(family, "tiny");
  const auto backend = make_cpu_backend(1);
  Parameters<float> parameters(*backend, config, false);
  initialise(parameters, config, 7);
  RecordRequest r;
  r.checkpoint = folder.file("c.safetensors");
  r.output = folder.file("s.safetensors");
  save_checkpoint(r.checkpoint, parameters, config, "", {}, false);
  r.recipe = recipe;
  r.step = 2;
  r.options.data = "task:copy,vocab=200";
  r.options.batch = 2;
  r.options.sequence = 32;
  r.options.threads = 1;
  return r;
}

inline Slice read_slice(const std::string &path) {
  return parse_slice(io::read_tensors(path), io::printable(path));
}

/// The message of the Error that f throws, which must be one line; "accepted" if it throws none.
template <class F> std::string refusal(F &&f) {
  try {
    f();
  } catch (const Error &e) {
    const std::string message = e.what();
    CHECK(message.find('\n') == std::string::npos);
    return message;
  }
  return "accepted";
}

} // namespace nvfp4::test
