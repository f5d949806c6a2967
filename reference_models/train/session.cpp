// SPDX-License-Identifier: Apache-2.0
// Devices by name. The CPU is always there; programs register others, so that the models depend on none.
#include "nvfp4/reference_models/train/session.hpp"
#include "nvfp4/golden/io/message.hpp"

#include <map>

namespace nvfp4::models {
namespace {

std::map<std::string, DeviceFactory> &devices() {
  static std::map<std::string, DeviceFactory> all;
  return all;
}

} // namespace

Session make_cpu_session(int threads, std::optional<Isa> isa) {
  Session s;
  s.backend = make_cpu_backend(threads, isa);
  s.engine = make_cpu_operand_engine(threads, isa);
  return s;
}

Session make_device(const std::string &name, int threads) {
  const auto at = devices().find(name);
  if (at != devices().end()) return at->second(threads);
  if (name == "cpu") return make_cpu_session(threads);
  if (name == "cuda")
    throw NoDevice("this build has no CUDA: it was configured without it; use --device cpu");
  throw Error("--device " + io::in_quotes(name) + " is unknown: expected cpu or cuda");
}

void register_device(const std::string &name, DeviceFactory factory) { devices()[name] = std::move(factory); }

Session make_session(const std::string &device, int threads, const ModelConfig &config, const Recipe &recipe,
                     int64_t batch, int64_t length, bool training) {
  Session session = make_device(device, threads);
  session.model = std::make_unique<Model<float>>(*session.backend, session.engine.get(), config, recipe,
                                                 batch, length, training);
  return session;
}

} // namespace nvfp4::models
