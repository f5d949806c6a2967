// SPDX-License-Identifier: Apache-2.0
// The epilogue's names in the models' namespace, for includers that have not moved to
// emulator/gemm/epilogue.hpp.
#pragma once
#include "nvfp4/emulator/gemm/epilogue.hpp"

namespace nvfp4::models {
using nvfp4::Epilogue, nvfp4::finish, nvfp4::to_bf16;
} // namespace nvfp4::models
