// SPDX-License-Identifier: Apache-2.0
// Makes the device "cuda" known to the models (reference_models/train/session.hpp).
#pragma once

namespace nvfp4::cuda {

class Timeline;

/// From then on make_session("cuda", ...) runs on the first GPU. With a timeline, which must outlive the
/// sessions, operations are timed.
void register_cuda_device(Timeline *timeline = nullptr);

} // namespace nvfp4::cuda
