// SPDX-License-Identifier: Apache-2.0
// Quantization by hardware conversions against the emulator's `te`, byte by byte, and the order of cvt.rs's
// random bits. Needs a Blackwell GPU; not yet run.
#include "nvfp4/gpu/blackwell/quantize_cvt.hpp"
#include "nvfp4/gpu/capture/run_tiles.hpp"
#include "nvfp4/gpu/check/blackwell.hpp"

#include <cstdio>
#include <limits>
#include <random>

namespace nvfp4::cuda::blackwell {
namespace {

std::vector<float> random_matrix(int64_t rows, int64_t cols, bool specials) {
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  std::vector<float> x(size_t(rows * cols));
  for (float &v : x) {
    v = normal(random);
    if (!specials) continue;
    const unsigned word = unsigned(random() % 64);
    if (word == 0) v = std::numeric_limits<float>::quiet_NaN();
    if (word == 1) v = -0.0f;
    if (word == 2) v = v * 1e-30f;
    if (word == 3) v = 6.0f * v;
  }
  return x;
}

int64_t run_case(int64_t rows, int64_t cols, bool specials, const CvtOptions &options) {
  const std::vector<float> x = random_matrix(rows, cols, specials);
  QuantizeOptions reference;
  reference.rounding = options.rounding, reference.key = options.key, reference.layout = options.layout;
  const BlockScaled want = quantize({x.data(), rows, cols}, find_convention("te"), reference);
  DeviceBuffer dx;
  dx.upload(x);
  DeviceBlockScaled q;
  quantize_cvt(dx.as<float>(), rows, cols, cols, options, q, nullptr);
  const BlockScaled got = q.download(nullptr);
  int64_t codes = 0, scales = 0;
  for (size_t i = 0; i < want.codes.size(); ++i) codes += got.codes[i] != want.codes[i];
  for (size_t i = 0; i < want.scales.size(); ++i) scales += got.scales[i] != want.scales[i];
  const bool global = bit_cast<uint32_t>(got.global_encode) != bit_cast<uint32_t>(want.global_encode);
  std::printf("quantize_cvt %5lld x %5lld %-8s %-7s %-6s mismatching bytes: codes %lld of %zu, scales %lld "
              "of %zu, S %d\n",
              (long long)rows, (long long)cols, specials ? "specials" : "normal",
              options.rounding == ElementRounding::nearest ? "nearest" : "carry8",
              options.layout == ScaleLayout::linear ? "linear" : "128x4", (long long)codes, want.codes.size(),
              (long long)scales, want.scales.size(), int(global));
  return codes + scales + int64_t(global);
}

} // namespace

int64_t check_quantize() {
  int64_t wrong = 0;
  std::optional<RbitsMap> order;
  if (gpu::device_features() & golden::cases::kCvtRs) order = device_rbits_map();
  for (const ElementRounding rounding : {ElementRounding::nearest, ElementRounding::sr_carry8}) {
    if (rounding == ElementRounding::sr_carry8 && !order) continue;
    CvtOptions options;
    options.rounding = rounding;
    options.key = {42, 7};
    if (order) options.rbits = *order;
    for (const ScaleLayout layout : {ScaleLayout::linear, ScaleLayout::tiled_128x4}) {
      options.layout = layout;
      wrong += run_case(1, 16, false, options);
      wrong += run_case(129, 77, true, options);
      wrong += run_case(512, 1024, true, options);
      wrong += run_case(4096, 4096, false, options);
    }
  }
  return wrong;
}

int64_t check_rbits() {
  if (!(gpu::device_features() & golden::cases::kCvtRs)) {
    std::printf("cvt.rs: this device has none\n");
    return 0;
  }
  const std::optional<RbitsMap> order = device_rbits_map();
  if (!order) {
    std::printf("cvt.rs.satfinite.e2m1x4: no order of 8 random bits an element explains the device\n");
    return 1;
  }
  constexpr char kPlaces[] = {'a', 'b', 'e', 'f'};
  for (size_t place = 0; place < 4; ++place) {
    std::printf("cvt.rs.satfinite.e2m1x4: %c takes, from weight 128 to 1, rbits", kPlaces[place]);
    for (size_t w = 8; w-- > 0;) std::printf(" %d", int(order->bit[place][w]));
    std::printf("\n");
  }
  std::printf("the published order of sm_103%s\n", *order == rbits_sm103() ? "" : ": NO");
  return 0;
}

} // namespace nvfp4::cuda::blackwell
