// SPDX-License-Identifier: Apache-2.0
// Every kernel of the models on the same random inputs, GPU against CPU, word by word.
#include "nvfp4/gpu/check/sides.hpp"

namespace nvfp4::crosscheck {
namespace {

using namespace models;

/// Sizes of one round; the last is a whole chunk more than one block takes.
struct Sizes {
  int64_t batch, length, heads, kv_heads, key, value;
  [[nodiscard]] int64_t tokens() const { return batch * length; }
};
constexpr Sizes kSizes[] = {{1, 1, 1, 1, 8, 8},
                            {2, 37, 4, 2, 16, 32},
                            {1, 130, 6, 3, 64, 64},
                            {3, 200, 4, 1, 128, 256},
                            {1, 70, 2, 1, 256, 80}};

void elementwise(Side &s, const Sizes &z) {
  const int64_t n = z.tokens() * z.value, rows = z.tokens(), cols = z.value;
  s.run(Add<float>{n, s.in(n), s.in(n), s.out(n)});
  s.run(AddBias<float>{rows, cols, s.in(cols), s.out(n)});
  s.run(AccumulateColumns<float>{rows, cols, s.in(n), s.out(cols)});
  s.run(Scale<float>{n, 0.37f, s.out(n)});
  s.run(SquareSums<float>{n, s.in(n), s.out<double>(chunks(n))});
  s.run(DigestSums<float>{n, 12345, s.in(n), s.out<uint64_t>(chunks(n))});
  s.run(NotFiniteChunks<float>{2, {{s.in(n), n}, {s.special(n), n}}, s.out<uint64_t>(2 * chunks(n))});
  s.run(AdamW<float>{n, s.in(n), s.out(n), s.out(n), s.positive(n), 0.9f, 0.95f, 1e-8f, 2e-3f, 1e-4f, 1.7f,
                     2.3f, 0.8f});
  s.run(LargestChunks<float>{n, s.in(n), s.out(chunks(n))});
  s.run(LargestChunks<float>{n, s.special(n), s.out(chunks(n))});
  for (const KeptFormat f : {KeptFormat{3, -6, 448.0f}, KeptFormat{10, -14, 65504.0f}, KeptFormat{7, -126, 0.0f}}) {
    s.run(KeptScale<float>{n, f, s.positive(n), s.out(1)});
    s.run(Keep<float>{n, f, s.in(1), s.out(n)});
  }
  s.run(SwigluForward<float>{n, s.in(n, 4), s.in(n), s.out(n)});
  s.run(SwigluBackward<float>{n, s.in(n), s.in(n, 4), s.in(n), s.out(n), s.out(n)});
  s.run(GegluForward<float>{n, s.in(n, 4), s.in(n), s.out(n)});
  s.run(GateForward<float>{n, s.in(n, 8), s.out(n), 16.0f});
  s.run(GateBackward<float>{n, s.in(n), s.in(n, 8), s.out(n), 16.0f});
}

void norms(Side &s, const Sizes &z) {
  const int64_t rows = z.tokens(), cols = z.value, n = rows * cols;
  s.run(RmsNormForward<float>{rows, cols, 1e-6f, s.in(n), s.in(cols), s.out(n), s.out(rows)});
  s.run(RmsNormBackward<float>{rows, cols, s.in(n), s.in(n), s.in(cols), s.in(rows), s.in(n), s.out(n),
                               s.out(n)});
  s.run(RmsNormBackward<float>{rows, cols, s.in(n), s.in(n), s.in(cols), s.in(rows), nullptr, s.out(n),
                               s.out(n)});
  s.run(GatedNormForward<float>{rows, cols, 1e-6f, s.in(n), s.in(cols), s.in(n, 4), s.out(n), s.out(rows)});
  s.run(GatedNormBackward<float>{rows, cols, s.in(n), s.in(n), s.in(cols), s.in(n, 4), s.in(rows), s.out(n),
                                 s.out(n), s.out(n)});
  s.run(L2NormForward<float>{rows, cols, 1e-6f, s.in(n), s.out(n), s.out(rows)});
  s.run(L2NormBackward<float>{rows, cols, s.in(n), s.in(n), s.in(rows), s.out(n)});
}

void ends(Side &s, const Sizes &z) {
  const int64_t rows = z.tokens(), cols = z.value, vocabulary = 2 * cols + 3, n = rows * vocabulary;
  const std::vector<int32_t> tokens = s.integers(rows, int(vocabulary));
  std::vector<int32_t> starts(size_t(vocabulary) + 1), positions;
  for (int64_t v = 0; v < vocabulary; ++v) {
    for (int64_t r = 0; r < rows; ++r)
      if (tokens[size_t(r)] == v) positions.push_back(int32_t(r));
    starts[size_t(v) + 1] = int32_t(positions.size());
  }
  s.run(EmbeddingForward<float>{rows, cols, s.put(tokens), s.in(vocabulary * cols), s.out(rows * cols)});
  s.run(EmbeddingBackward<float>{vocabulary, cols, s.put(starts), s.put(positions), s.in(rows * cols),
                                 s.out(vocabulary * cols)});
  s.run(CrossEntropy<float>{rows, vocabulary, s.in(n, 4), s.put(tokens), s.positive(rows), 0.01f, s.out(rows),
                            s.out(n)});
  s.run(CrossEntropy<float>{rows, vocabulary, s.in(n, 4), s.put(tokens), s.positive(rows), 0.01f, s.out(rows),
                            nullptr});
}

/// All orientations, with and without what stands in c.
void products(Side &s, const Sizes &z) {
  const int64_t m = z.tokens(), n = z.value + 5, k = z.key + 9;
  for (const bool add : {false, true})
    for (const bool turned_a : {false, true})
      for (const bool turned_b : {false, true}) {
        const View<const float> a =
            turned_a ? View<const float>{s.in(m * k), 1, m} : View<const float>{s.in(m * k), k, 1};
        const View<const float> b =
            turned_b ? View<const float>{s.in(n * k), 1, k} : View<const float>{s.in(n * k), n, 1};
        s.run(Matmul<float>{m, n, k, a, b, {s.out(m * n), n, 1}, add});
      }
}

void gla(Side &s, const Sizes &z) {
  const GlaShape<float> shape{z.batch, z.length, z.heads, z.key, z.value, 0.125f};
  const int64_t n = z.tokens() * z.heads * z.key, m = z.tokens() * z.heads * z.value;
  const float *const q = s.in(n), *const k = s.in(n), *const v = s.in(m), *const g = s.gates(n);
  float *const saved = s.out(shape.saved());
  GlaForward<float>{shape, q, k, v, g, s.out(m), saved}.run_on(s);
  GlaBackward<float>{
      shape, s.in(m), q, k, v, s.out(n), s.out(n), s.out(m), s.out(n), saved, s.out(shape.states())}
      .run_on(s);
}

void attention(Side &s, const Sizes &z) {
  const AttentionShape<float> shape{z.batch, z.length, z.heads, z.kv_heads, z.key, 0.125f};
  const int64_t n = z.tokens() * z.heads * z.key, m = z.tokens() * z.kv_heads * z.key;
  const float *const q = s.in(n), *const k = s.in(m), *const v = s.in(m);
  float *const saved = s.out(shape.saved()), *const work = s.scratch(shape.work());
  AttentionForward<float>{shape, q, k, v, s.out(n), saved, work}.run_on(s);
  AttentionBackward<float>{shape, s.in(n), q, k, v, s.out(n), s.out(m), s.out(m), saved, work}.run_on(s);
  AttentionStatistics<float>{shape,
                             q,
                             k,
                             saved,
                             work,
                             s.out<AttentionMoments>(z.tokens() * z.heads),
                             s.out<AttentionMoments>(z.batch * z.heads)}
      .run_on(s);
  const RopeShape<float> rope{
      z.tokens(), z.length, z.heads, z.key, s.in(z.length * z.key / 2), s.in(z.length * z.key / 2)};
  s.run(RopeForward<float>{rope, q, s.out(n)});
  s.run(RopeBackward<float>{rope, q, s.out(n)});
}

/// New tokens behind cached ones, with and without a window, under every rounding of what is kept.
void cached(Side &s, const Sizes &z) {
  const AttentionShape<float> queries{z.batch, z.length, z.heads, z.kv_heads, z.key, 0.125f};
  const int64_t n = z.tokens() * z.heads * z.key, m = z.tokens() * z.kv_heads * z.key;
  for (const KvRounding rounding : {KvRounding::none, KvRounding::bf16, KvRounding::e4m3}) {
    const int64_t past = rounding == KvRounding::none ? 0 : 5, window = rounding == KvRounding::bf16 ? 7 : 0;
    const CachedAttentionShape<float> shape{queries, past, past + z.length + 3, window};
    float *const keys = s.out(shape.elements()), *const values = s.out(shape.elements());
    s.run(KvStore<float>{shape, s.in(m), s.in(m), keys, values, rounding, 0.25f, 0.5f});
    s.run(CachedAttention<float>{shape, s.in(n), keys, values, s.out(n)});
  }
}

void delta(Side &s, const Sizes &z) {
  const DeltaShape<float> shape{z.batch, z.length, z.heads, z.key, z.value, 0.125f};
  const int64_t rows = z.tokens(), n = rows * z.heads * z.key, m = rows * z.heads * z.value,
                h = rows * z.heads;
  const float *const q = s.in(n, 0.2f), *const k = s.in(n, 0.2f), *const v = s.in(m), *const g = s.gates(h),
                     *const beta = s.in(h, 0.3f);
  float *const saved = s.out(shape.saved()), *const work = s.scratch(shape.recurrence());
  DeltaForward<float>{shape, q, k, v, g, beta, s.out(m), saved}.run_on(s);
  DeltaBackward<float>{shape,    s.in(m),  q,        k,        v,        g,     beta,
                       s.out(n), s.out(n), s.out(m), s.out(h), s.out(h), saved, work}
      .run_on(s);
  const float *const a = s.in(h, 3), *const b = s.in(h, 3), *const log = s.in(z.heads),
                     *const bias = s.in(z.heads);
  s.run(DeltaGateForward<float>{rows, z.heads, a, b, log, bias, s.out(h), s.out(h)});
  s.run(DeltaGateBackward<float>{rows, z.heads, s.in(h), s.in(h), g, beta, a, log, bias, s.out(h), s.out(h),
                                 s.out(h)});
  const int64_t channels = z.value + 3;
  const float *const x = s.in(rows * channels), *const w = s.in(channels * kTaps);
  s.run(ConvolutionForward<float>{rows, z.length, channels, x, w, s.out(rows * channels)});
  ConvolutionBackward<float>{rows,
                             z.length,
                             channels,
                             s.in(rows * channels),
                             x,
                             w,
                             s.out(rows * channels),
                             s.out(channels * kTaps),
                             s.out(rows * channels)}
      .run_on(s);
}

void slots(Side &s, const Sizes &z) {
  const SlotShape<float> shape{z.batch, z.length, z.heads, z.key, z.key, z.value};
  const int64_t rows = z.tokens() * z.heads, n = rows * z.key, m = rows * z.value;
  s.run(SiluForward<float>{m, s.in(m, 4), s.out(m)});
  s.run(SiluBackward<float>{m, s.in(m), s.in(m, 4), s.out(m)});
  const float *const q = s.in(n), *const k = s.in(n), *const v = s.in(m), *const x = s.in(n, 8);
  float *const g = s.out(n), *const write = s.out(n), *const p = s.out(n),
               *const saved = s.out(shape.saved()), *const work = s.scratch(shape.work());
  s.run(SlotGateForward<float>{n, x, g, write, 8.0f});
  SlotForward<float>{shape, q, k, v, g, write, p, s.out(m), saved}.run_on(s);
  float *const dg1 = s.out(n), *const dg2 = s.out(n), *const ds1 = s.out(n), *const ds2 = s.out(n);
  SlotBackward<float>{shape,    s.in(m), q,   k,   v,   write,    p,     s.out(n), s.out(n),
                      s.out(m), dg1,     dg2, ds1, ds2, s.out(n), saved, work,     s.out(n)}
      .run_on(s);
  s.run(SlotGateBackward<float>{n, dg1, dg2, ds1, ds2, g, x, s.out(n), 8.0f});
}

void scan(Side &s, const Sizes &z) {
  const int64_t width = z.heads * z.value, row = width + 2 * z.key, rows = z.tokens(), h = rows * z.heads;
  const ScanShape<float> shape{z.batch, z.length, z.heads, z.key, z.value, row};
  const float *const x = s.in(rows * row), *const raw = s.in(h, 4), *const a_log = s.in(z.heads),
                     *const bias = s.in(z.heads), *const skip = s.in(z.heads);
  float *const dt = s.out(h), *const g = s.out(h), *const saved = s.out(shape.saved()),
               *const work = s.scratch(shape.states()), *const dx = s.out(rows * row), *const ddt = s.out(h),
               *const dg = s.out(h);
  s.run(ScanGateForward<float>{rows, z.heads, raw, a_log, bias, dt, g});
  ScanForward<float>{shape, x + width + z.key, x + width, x, dt, g, skip, s.out(rows * width), saved}.run_on(
      s);
  ScanBackward<float>{shape,
                      s.in(rows * width),
                      x + width + z.key,
                      x + width,
                      x,
                      dt,
                      skip,
                      dx + width + z.key,
                      dx + width,
                      dx,
                      ddt,
                      dg,
                      s.out(h),
                      saved,
                      work}
      .run_on(s);
  s.run(ScanGateBackward<float>{rows, z.heads, ddt, dg, g, raw, a_log, bias, s.out(h), s.out(h)});
  const float *const w = s.in(row * kTaps), *const offset = s.in(row);
  s.run(ConvolutionForward<float>{rows, z.length, row, x, w, s.out(rows * row), offset});
  s.run(ConvolutionSlopes<float>{rows, z.length, row, s.in(rows * row), x, w, s.out(rows * row), offset});
}

/// Images of heads x batch, z.length pixels high or so; as many channels as a head of a query has.
void images(Side &s, const Sizes &z) {
  const int64_t n = z.batch, height = 3 + z.length % 13, width = 2 + z.length % 7, channels = z.key + z.batch,
                pixels = n * height * width, all = pixels * channels;
  const float *const x = s.in(all), *const dy = s.in(all);
  for (const int64_t stride : {1, 2}) {
    const int64_t rows = (height - 1) / stride + 1, cols = (width - 1) / stride + 1;
    const Taps forward{height, width, rows, cols, 3, 3, stride, 1, -1, 1}, back{rows, cols, height, width, 3, 3, 1, -1, 1, stride};
    const int64_t count = n * rows * cols - 1, wide = 4 * channels + 3;
    s.run(GatherPatches<float>{forward, channels, 1, count, 2, wide, x, s.out(count * wide)});
    s.run(GatherPatches<float>{back, channels, 1, pixels - 1, 2, wide, dy, s.out((pixels - 1) * wide)});
  }
  s.run(TurnFilters<float>{z.heads, 9, channels, s.in(z.heads * 9 * channels), s.out(9 * z.heads * channels)});
  s.run(CopyColumns<float>{pixels, channels / 2, x + 1, channels, s.out(all), channels});
  float *const mean = s.out(channels), *const rstd = s.out(channels);
  s.run(BatchStatistics<float>{pixels, channels, 1e-5f, 0.1f, x, mean, rstd, s.out(channels), s.out(channels)});
  s.run(StoredStatistics<float>{channels, 1e-5f, s.in(channels), s.positive(channels), s.out(channels), s.out(channels)});
  const float *const weight = s.in(channels);
  float *const y = s.out(all), *const sums = s.out(2 * channels);
  s.run(BatchNormForward<float>{pixels, channels, x, mean, rstd, weight, s.in(channels), y});
  s.run(BatchNormSums<float>{pixels, channels, dy, y, x, mean, rstd, sums, s.out(channels), s.out(channels)});
  s.run(BatchNormBackward<float>{pixels, channels, dy, y, x, mean, rstd, weight, sums, s.out(all)});
  s.run(MaxPoolForward<float>{n, height, width, channels, x, s.out(n * (height / 2) * (width / 2) * channels)});
  s.run(MaxPoolBackward<float>{n, height, width, channels, dy, x, s.out(all)});
  s.run(SoftClip<float>{all, 3.0f, s.out(all)});
  s.run(LargestMagnitudes<float>{all, x, s.out(chunks(all))});
  s.run(FifteenLevels<float>{all, 0.2f, x, s.out(all)});
}

} // namespace

Tally check_kernels(const std::string &match) {
  Tally all;
  for (const auto &[name, work] :
       std::initializer_list<std::pair<const char *, void (*)(Side &, const Sizes &)>>{
           {"elementwise, optimizer, digest", elementwise},
           {"norms", norms},
           {"embedding and cross-entropy", ends},
           {"FP32 products", products},
           {"gated linear attention", gla},
           {"softmax attention and RoPE", attention},
           {"attention behind a cache", cached},
           {"gated delta rule and convolution", delta},
           {"gated slot attention", slots},
           {"Mamba-2's scan", scan},
           {"images and weights", images}}) {
    if (std::string(name).find(match) == std::string::npos) continue;
    Tally t;
    for (const Sizes &z : kSizes) t.add(both_sides([&](Side &s) { work(s, z); }, uint64_t(z.length)));
    t.print((std::string("kernels: ") + name).c_str());
    all.add(t);
  }
  return all;
}

} // namespace nvfp4::crosscheck
