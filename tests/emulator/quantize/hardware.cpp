// SPDX-License-Identifier: Apache-2.0
// Bytes that a real GPU produced. Source: meyowu/nvfp4-doctor @5b63512,
// experiments/E004-qwen3-layer-capture/replay-single-projection.json (RTX 5080, vLLM 0.27.1, FlashInfer
// 0.6.16.post3).
#include "nvfp4/golden/io/sha256.hpp"
#include "tests/catch.hpp"
#include "tests/emulator/quantize/support.hpp"

using namespace nvfp4;
using namespace nvfp4::test;

TEST_CASE("an RTX 5080's codes and swizzled scales", "[quantize]") {
  Matrix m(16, 4096);
  std::vector<uint16_t> words;
  for (int64_t i = 0; i < 16 * 4096; ++i) {
    const float v = float(i % 257 - 128) / 512.0f;
    words.push_back(uint16_t(encode(FormatId::bf16, v)));
    m.x[size_t(i)] = value_f32(FormatId::bf16, words.back());
  }
  const auto digest = [](const auto &bytes) { return io::sha256_hex(std::as_bytes(std::span(bytes))); };
  REQUIRE(digest(words) == "740622d338ffdb95f5103e99ee5a77bf78340be5f80ebe9f577357c7cfadae63");
  for (const char *name : {"flashinfer", "vllm"}) {
    CAPTURE(name);
    const BlockScaled q = quantize_as(
        m, name,
        {.layout = ScaleLayout::tiled_128x4, .source = FormatId::bf16, .global_scale = 7864.3203125f});
    CHECK(digest(q.codes) == "4155280879724f8895d117c4bb1370423709d7b34b6d5e3794dffea3ae065ed8");
    CHECK(digest(q.scales) == "73032a5982cdcca8e03680900c80725725c9b330d52c9b1452119af120a3f936");
  }
  // What this tensor cannot tell apart: exact reciprocals in the other order, and division.
  for (const char *name : {"flashinfer-exact", "compressed-tensors"}) {
    CAPTURE(name);
    const BlockScaled q = quantize_as(m, name, {.global_scale = 7864.3203125f});
    CHECK(digest(q.codes) == "4155280879724f8895d117c4bb1370423709d7b34b6d5e3794dffea3ae065ed8");
  }
}
