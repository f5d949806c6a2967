// SPDX-License-Identifier: Apache-2.0
// Devices by name.
#include "reference_models/train/session.hpp"
#include "golden/io/message.hpp"

namespace nvfp4::models {

Session make_session(const std::string &device, int threads, const ModelConfig &config, const Recipe &recipe,
                     int64_t batch, int64_t length, bool training) {
  if (device != "cpu") throw Error("--device " + io::in_quotes(device) + " is unknown: expected cpu");
  Session session;
  session.backend = make_cpu_backend(threads);
  session.engine = make_cpu_operand_engine(threads);
  session.model = std::make_unique<Model<float>>(*session.backend, session.engine.get(), config, recipe,
                                                 batch, length, training);
  return session;
}

} // namespace nvfp4::models
