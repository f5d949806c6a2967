// SPDX-License-Identifier: Apache-2.0
// The two devices, made once, and the comparison.
#include "nvfp4/gpu/check/sides.hpp"
#include "nvfp4/gpu/models/backend.hpp"
#include "nvfp4/gpu/models/operand_engine.hpp"

#include <cstring>

namespace nvfp4::crosscheck {

Tally both_sides(const std::function<void(Side &)> &work, uint64_t seed) {
  static const auto cpu = models::make_cpu_backend(), gpu = cuda::make_cuda_backend();
  static const auto cpu_engine = models::make_cpu_operand_engine(),
                    gpu_engine = cuda::make_cuda_operand_engine();
  Side x(*cpu, *cpu_engine, seed), y(*gpu, *gpu_engine, seed);
  work(x);
  work(y);
  const auto want = x.written(), got = y.written();
  Tally t;
  for (size_t i = 0; i < want.size(); ++i) {
    const size_t width = want[i].width, n = want[i].bytes.size() / width;
    t.values += n;
    const auto word = [width](const std::vector<uint8_t> &bytes, size_t j) {
      uint64_t w = 0;
      std::memcpy(&w, bytes.data() + j * width, width);
      return w;
    };
    const bool untouched = !got[i].before.empty() && got[i].bytes == got[i].before;
    for (size_t j = 0; j < n; ++j) {
      const uint64_t a = word(want[i].bytes, j), b = word(got[i].bytes, j);
      if (a == b) continue;
      char text[240];
      std::snprintf(text, sizeof text, "seed %llu, %s, element %zu of %zu: GPU %llx, CPU %llx%s",
                    static_cast<unsigned long long>(seed), want[i].name.c_str(), j, n, static_cast<unsigned long long>(b),
                    static_cast<unsigned long long>(a), untouched ? "; the GPU wrote nothing there" : "");
      t.mismatch(text);
    }
  }
  return t;
}

} // namespace nvfp4::crosscheck
