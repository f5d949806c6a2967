// SPDX-License-Identifier: Apache-2.0
// Devices by name. The CPU is always there; programs register others, so that the models depend on none.
#include "nvfp4/reference_models/train/session.hpp"
#include "nvfp4/golden/io/message.hpp"

#include <cstdio>
#include <map>
#include <unistd.h>

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

void check_memory(const ModelConfig &c, int64_t batch, int64_t length, bool training, int64_t micro_batches) {
  const double rows = double(batch) * double(length);
  const double parameters = double(parameter_count(c)) * (training ? 4 : 1);
  const double activations =
      rows * (double(c.layers) *
                  (c.family->has_mlp() ? 4 * double(c.hidden) + 3 * double(c.intermediate) : 2 * double(c.hidden)) +
              double(c.vocabulary));
  const double tokens = 2 * rows * double(micro_batches); // and their weights
  const double needed = 4 * (parameters + activations + tokens);
  const double there = double(::sysconf(_SC_PHYS_PAGES)) * double(::sysconf(_SC_PAGESIZE));
  const auto gib = [](double bytes) {
    char text[32];
    std::snprintf(text, sizeof text, "%.4g GiB", bytes / 0x1p30);
    return std::string(text);
  };
  if (needed > there)
    throw Error("a model of " + std::to_string(parameter_count(c)) + " parameters with " +
                std::to_string(micro_batches) + " x " + std::to_string(batch) + " x " +
                std::to_string(length) + " tokens needs at least " + gib(needed) + ", this machine has " +
                gib(there) + ": give a smaller model, --batch or --sequence");
}

Session make_session(const std::string &device, int threads, const ModelConfig &config, const Recipe &recipe,
                     int64_t batch, int64_t length, bool training) {
  check(config);
  if (device == "cpu") check_memory(config, batch, length, training, 1);
  Session session = make_device(device, threads);
  session.model = std::make_unique<Model<float>>(*session.backend, session.engine.get(), config, recipe,
                                                 batch, length, training);
  return session;
}

} // namespace nvfp4::models
