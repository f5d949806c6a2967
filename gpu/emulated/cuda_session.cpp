// SPDX-License-Identifier: Apache-2.0
// Backend and operand engine of a CUDA device for a session.
#include "gpu/emulated/cuda_session.hpp"
#include "gpu/emulated/cuda_backend.hpp"
#include "gpu/emulated/cuda_operand_engine.hpp"
#include "reference_models/train/session.hpp"

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
