// SPDX-License-Identifier: Apache-2.0
// Backend and operand engine of a CUDA device for a session.
#include "nvfp4/gpu/models/session.hpp"
#include "nvfp4/gpu/models/backend.hpp"
#include "nvfp4/gpu/models/operand_engine.hpp"
#include "nvfp4/reference_models/train/session.hpp"

namespace nvfp4::cuda {

void register_cuda_device(Timeline *timeline) {
  models::register_device("cuda", [timeline](int) {
    models::Session s;
    s.backend = make_cuda_backend(timeline);
    s.engine = make_cuda_operand_engine({.timeline = timeline});
    return s;
  });
}

} // namespace nvfp4::cuda
