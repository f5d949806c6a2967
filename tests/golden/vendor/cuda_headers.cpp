// SPDX-License-Identifier: Apache-2.0
// Our conversions against the host functions of CUDA's headers: every 16-bit and narrower input, and FP32 inputs as a
// sample, or all 2^32 of them with NVFP4_EXHAUSTIVE=1. The full set is also covered by digests of the headers' outputs,
// which need no headers (golden_verify_full).
#include "nvfp4/emulator/formats/conversion.hpp"
#include "nvfp4/golden/vendor/cuda_headers.hpp"
#include "tests/catch.hpp"

#include <cstdlib>
#include <string>

using namespace nvfp4;

TEST_CASE("FP32 conversions equal CUDA's host functions", "[cuda-headers]") {
  // 251 is prime: the sample meets every exponent and every pattern of low bits
  const uint64_t stride = std::getenv("NVFP4_EXHAUSTIVE") != nullptr ? 1 : 251;
  for (const golden::VendorConversion &vendor : golden::kFromF32) {
    const Conversion &ours = find_conversion(vendor.name);
    uint64_t mismatches = 0, first = ~uint64_t{0};
#pragma omp parallel for reduction(+ : mismatches) reduction(min : first) schedule(dynamic, 1 << 16)
    for (uint64_t i = 0; i < (uint64_t{1} << 32) / stride; ++i) {
      const uint32_t word = uint32_t(i * stride);
      if (vendor.convert(word) == ours(word)) continue;
      ++mismatches;
      first = std::min<uint64_t>(first, word);
    }
    INFO(vendor.name << ": first differing input " << std::hex << first);
    CHECK(mismatches == 0);
  }
}

TEST_CASE("narrow conversions equal CUDA's host functions on every input", "[cuda-headers]") {
  for (const golden::SmallVendorConversion &vendor : golden::kFromNarrow) {
    const Conversion &ours = find_conversion(vendor.conversion.name);
    for (uint32_t word = 0; word < vendor.inputs; ++word) {
      INFO(vendor.conversion.name << " input " << std::hex << word);
      REQUIRE(vendor.conversion.convert(word) == ours(word));
    }
  }
}
