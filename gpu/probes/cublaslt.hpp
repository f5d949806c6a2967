// SPDX-License-Identifier: Apache-2.0
// Questions to cuBLASLt, each answered on stdout. They need a build with the library.
#pragma once
#include <cstdint>
#include <string>

namespace nvfp4::probe {

/// In which order does it accumulate on Hopper? Returns the outputs that the model does not explain; with
/// `dump`, the first outputs of each kind of those are written to that file.
[[nodiscard]] int64_t accumulation_order(const std::string &dump);
/// Which arithmetic does its epilogue D = alpha * acc + beta * C use? Returns the outputs that differ from
/// fma(alpha, acc, beta * C).
[[nodiscard]] int64_t epilogue_arithmetic();
/// Speed of the exact Hopper GEMMs beside its first heuristic choice.
void hopper_speed();
/// Does its NVFP4 GEMM give the words of the emulator's unit of the GPU at hand? Returns the differences.
/// `directed`: which model of FP4 accumulation do the directed vectors choose? Not yet run. Throws
/// models::NoDevice below compute capability 10.0.
[[nodiscard]] int64_t nvfp4_words(bool directed);

} // namespace nvfp4::probe
