// SPDX-License-Identifier: Apache-2.0
// FP32 kernels give the same words with every instruction set and number of threads; sums and products follow
// the order that kernels/team.hpp writes down.
#include "nvfp4/emulator/cpu/isa.hpp"
#include "nvfp4/reference_models/backend/cpu_backends.hpp"
#include "tests/reference_models/kernels/support.hpp"

#include <cstring>

using namespace nvfp4;
using namespace nvfp4::models;
using namespace nvfp4::test;

namespace {

using Floats = std::vector<float>;

struct Candidate {
  std::string name;
  std::unique_ptr<Backend<float>> backend;
};

/// Every instruction set that this CPU has, with 1, 2 and 3 threads. The first is the baseline with one.
std::vector<Candidate> candidates() {
  std::vector<Candidate> out;
  for (const int threads : {1, 2, 3}) {
    const std::string suffix = ", threads " + std::to_string(threads);
    out.push_back({"baseline" + suffix, make_baseline_backend(threads)});
#if defined(__x86_64__)
    if (supported(Isa::avx2))
      out.push_back({"avx2" + suffix, std::unique_ptr<Backend<float>>(new_avx2_backend(threads))});
    if (supported(Isa::avx512))
      out.push_back({"avx512" + suffix, std::unique_ptr<Backend<float>>(new_avx512_backend(threads))});
#endif
  }
  return out;
}

/// Results by name, as bytes.
struct Results {
  std::vector<std::pair<std::string, std::vector<unsigned char>>> items;

  template <class E> void add(const std::string &name, const std::vector<E> &values) {
    std::vector<unsigned char> bytes(values.size() * sizeof(E));
    std::memcpy(bytes.data(), values.data(), bytes.size());
    items.emplace_back(name, std::move(bytes));
  }
};

Floats unset(int64_t n) { return Floats(size_t(n), -777.0f); }

void run_elementwise(Backend<float> &backend, Results &out) {
  Random random(1);
  for (const int64_t n : {1, 15, 33, 4096, 4099, 9001}) {
    const Floats a = random.values<float>(n, -8, 8), b = random.values<float>(n, -8, 8),
                 c = random.values<float>(n);
    Floats x = unset(n), y = unset(n);
    const std::string size = " of " + std::to_string(n);
    backend.run(Add<float>{n, a.data(), b.data(), x.data()});
    out.add("Add" + size, x);
    backend.run(Scale<float>{n, 0.3f, x.data()});
    out.add("Scale" + size, x);
    backend.run(SwigluForward<float>{n, a.data(), b.data(), x.data()});
    out.add("SwigluForward" + size, x);
    backend.run(SwigluBackward<float>{n, c.data(), a.data(), b.data(), x.data(), y.data()});
    out.add("SwigluBackward dgate" + size, x);
    out.add("SwigluBackward dup" + size, y);
    backend.run(GateForward<float>{n, a.data(), x.data(), 16.0f});
    out.add("GateForward" + size, x);
    backend.run(GateBackward<float>{n, c.data(), a.data(), x.data(), 16.0f});
    out.add("GateBackward" + size, x);
    Floats value = a, m = c, v = Floats(size_t(n), 0.01f);
    backend.run(AdamW<float>{n, b.data(), value.data(), m.data(), v.data(), 0.9f, 0.95f, 1e-8f, 1e-3f, 1e-4f,
                             1.9f, 2.5f, 0.7f});
    out.add("AdamW value" + size, value);
    out.add("AdamW m" + size, m);
    out.add("AdamW v" + size, v);
    Floats largest(size_t(chunks(n) + 1));
    backend.run(LargestChunks<float>{n, a.data(), largest.data()});
    for (const KeptFormat f : {KeptFormat{3, -6, 448.0f}, KeptFormat{10, -14, 65504.0f}, KeptFormat{7, -126, 0.0f}}) {
      backend.run(KeptScale<float>{chunks(n), f, largest.data(), &largest.back()});
      out.add("LargestChunks, KeptScale" + size, largest);
      x = a;
      backend.run(Keep<float>{n, f, &largest.back(), x.data()});
      out.add("Keep" + size, x);
    }
    std::vector<double> squares(size_t(chunks(n)));
    backend.run(SquareSums<float>{n, a.data(), squares.data()});
    out.add("SquareSums" + size, squares);
    std::vector<uint64_t> digests(size_t(chunks(n)));
    backend.run(DigestSums<float>{n, 7, a.data(), digests.data()});
    out.add("DigestSums" + size, digests);
    std::vector<uint64_t> sick(size_t(2 * chunks(n)), 5);
    Floats some = a;
    some[size_t(n / 2)] = -std::numeric_limits<float>::infinity();
    some[size_t(n - 1)] = std::numeric_limits<float>::quiet_NaN();
    backend.run(NotFiniteChunks<float>{2, {{a.data(), n}, {some.data(), n}}, sick.data()});
    out.add("NotFiniteChunks" + size, sick);
  }
}

void run_rows(Backend<float> &backend, Results &out) {
  Random random(2);
  const std::pair<int64_t, int64_t> sizes[] = {{1, 1}, {15, 31}, {17, 64}, {65, 100}, {130, 33}};
  for (const auto &[rows, cols] : sizes) {
    const int64_t n = rows * cols;
    const std::string size = " of " + std::to_string(rows) + " x " + std::to_string(cols);
    const Floats x = random.values<float>(n, -3, 3), dy = random.values<float>(n),
                 gate = random.values<float>(n, -9, 9), weight = random.values<float>(cols, 0, 2);
    Floats y = unset(n), rstd = unset(rows), dx = unset(n), dgate = unset(n), terms = unset(n), sums = weight;
    backend.run(RmsNormForward<float>{rows, cols, 1e-6f, x.data(), weight.data(), y.data(), rstd.data()});
    out.add("RmsNormForward" + size, y);
    backend.run(RmsNormBackward<float>{rows, cols, dy.data(), x.data(), weight.data(), rstd.data(), y.data(),
                                       dx.data(), terms.data()});
    out.add("RmsNormBackward dx" + size, dx);
    out.add("RmsNormBackward terms" + size, terms);
    backend.run(AccumulateColumns<float>{rows, cols, terms.data(), sums.data()});
    out.add("AccumulateColumns" + size, sums);
    backend.run(AddBias<float>{rows, cols, weight.data(), y.data()});
    out.add("AddBias" + size, y);
    backend.run(GatedNormForward<float>{rows, cols, 1e-6f, x.data(), weight.data(), gate.data(), y.data(),
                                        rstd.data()});
    out.add("GatedNormForward" + size, y);
    backend.run(GatedNormBackward<float>{rows, cols, dy.data(), x.data(), weight.data(), gate.data(),
                                         rstd.data(), dx.data(), dgate.data(), terms.data()});
    out.add("GatedNormBackward dx" + size, dx);
    out.add("GatedNormBackward dgate" + size, dgate);
    out.add("GatedNormBackward terms" + size, terms);
    backend.run(L2NormForward<float>{rows, cols, 1e-6f, x.data(), y.data(), rstd.data()});
    out.add("L2NormForward" + size, y);
    backend.run(L2NormBackward<float>{rows, cols, dy.data(), y.data(), rstd.data(), dx.data()});
    out.add("L2NormBackward" + size, dx);

    std::vector<int32_t> tokens, starts{0}, positions;
    for (int64_t r = 0; r < rows; ++r) tokens.push_back(int32_t(random.below(cols)));
    for (int32_t v = 0; v < cols; ++v) {
      for (size_t r = 0; r < tokens.size(); ++r)
        if (tokens[r] == v) positions.push_back(int32_t(r));
      starts.push_back(int32_t(positions.size()));
    }
    const Floats table = random.values<float>(cols * cols), weights = random.values<float>(rows, 0, 1);
    Floats dtable = table;
    backend.run(EmbeddingForward<float>{rows, cols, tokens.data(), table.data(), y.data()});
    out.add("EmbeddingForward" + size, y);
    backend.run(
        EmbeddingBackward<float>{cols, cols, starts.data(), positions.data(), dy.data(), dtable.data()});
    out.add("EmbeddingBackward" + size, dtable);
    backend.run(CrossEntropy<float>{rows, cols, gate.data(), tokens.data(), weights.data(), 0.25f,
                                    rstd.data(), y.data()});
    out.add("CrossEntropy loss" + size, rstd);
    out.add("CrossEntropy dlogits" + size, y);
  }
}

void run_gla(Backend<float> &backend, Results &out) {
  Random random(3);
  for (const int64_t length : {1, 15, 64, 65, 130})
    for (const float low : {-0.5f, -20.0f}) {
      const GlaShape<float> s{2, length, 3, 20, 33, 0.25f};
      const int64_t nk = 2 * length * 3 * s.key, nv = 2 * length * 3 * s.value;
      const Floats q = random.values<float>(nk), k = random.values<float>(nk), v = random.values<float>(nv),
                   g = random.values<float>(nk, double(low), 0), grad_o = random.values<float>(nv);
      Floats o = unset(nv), saved = unset(s.saved()), work = unset(s.states());
      Floats dq = unset(nk), dk = unset(nk), dg = unset(nk), dv = unset(nv);
      const std::string size = " of length " + std::to_string(length) + " gates " + std::to_string(low);
      GlaForward<float>{s, q.data(), k.data(), v.data(), g.data(), o.data(), saved.data()}.run_on(backend);
      GlaBackward<float>{s,         grad_o.data(), q.data(),  k.data(),     v.data(),   dq.data(),
                         dk.data(), dv.data(),     dg.data(), saved.data(), work.data()}
          .run_on(backend);
      out.add("GlaForward" + size, o);
      out.add("GlaBackward dq" + size, dq);
      out.add("GlaBackward dk" + size, dk);
      out.add("GlaBackward dv" + size, dv);
      out.add("GlaBackward dg" + size, dg);
    }
}

void run_attention(Backend<float> &backend, Results &out) {
  Random random(4);
  for (const int64_t length : {1, 15, 64, 65, 130}) {
    const AttentionShape<float> s{2, length, 4, 2, 20, 0.25f};
    const int64_t nq = 2 * length * 4 * s.dim, nk = nq / 2;
    const Floats q = random.values<float>(nq, -2, 2), k = random.values<float>(nk, -2, 2),
                 v = random.values<float>(nk), grad_o = random.values<float>(nq),
                 cosine = random.values<float>(length * s.dim / 2),
                 sine = random.values<float>(length * s.dim / 2);
    Floats o = unset(nq), saved = unset(s.saved()), work = unset(s.work());
    Floats dq = unset(nq), dk = unset(nk), dv = unset(nk), turned = unset(nq), back = unset(nq);
    std::vector<AttentionMoments> rows(size_t(8 * length)), heads(8);
    const std::string size = " of length " + std::to_string(length);
    AttentionForward<float>{s, q.data(), k.data(), v.data(), o.data(), saved.data(), work.data()}.run_on(
        backend);
    AttentionStatistics<float>{s, q.data(), k.data(), saved.data(), work.data(), rows.data(), heads.data()}
        .run_on(backend);
    AttentionBackward<float>{s,         grad_o.data(), q.data(),  k.data(),     v.data(),
                             dq.data(), dk.data(),     dv.data(), saved.data(), work.data()}
        .run_on(backend);
    out.add("AttentionForward" + size, o);
    out.add("AttentionForward saved" + size, saved);
    out.add("AttentionStatistics" + size, heads);
    out.add("AttentionBackward dq" + size, dq);
    out.add("AttentionBackward dk" + size, dk);
    out.add("AttentionBackward dv" + size, dv);
    const RopeShape<float> rope{2 * length, length, 4, s.dim, cosine.data(), sine.data()};
    backend.run(RopeForward<float>{rope, q.data(), turned.data()});
    backend.run(RopeBackward<float>{rope, turned.data(), back.data()});
    out.add("RopeForward" + size, turned);
    out.add("RopeBackward" + size, back);
  }
}

void run_delta(Backend<float> &backend, Results &out) {
  Random random(5);
  for (const int64_t length : {1, 3, 15, 64, 65, 130}) {
    const DeltaShape<float> s{2, length, 3, 20, 33, 0.25f};
    const int64_t rows = 2 * length * 3, nk = rows * s.key, nv = rows * s.value, channels = 3 * s.key;
    const Floats q = random.values<float>(nk, -0.3, 0.3), k = random.values<float>(nk, -0.3, 0.3),
                 v = random.values<float>(nv), grad_o = random.values<float>(nv),
                 a = random.values<float>(rows, -4, 4), b = random.values<float>(rows, -4, 4),
                 a_log = random.values<float>(3, -2, 2.7), dt_bias = random.values<float>(3, -6, -2),
                 weight = random.values<float>(channels * kTaps);
    Floats g = unset(rows), beta = unset(rows), o = unset(nv), saved = unset(s.saved()),
           work = unset(s.recurrence());
    Floats dq = unset(nk), dk = unset(nk), dv = unset(nv), dg = unset(rows), dbeta = unset(rows),
           da = unset(rows), db = unset(rows), terms = unset(rows), y = unset(nk), dx = unset(nk),
           dz = unset(nk), dweight = weight;
    const std::string size = " of length " + std::to_string(length);
    backend.run(DeltaGateForward<float>{2 * length, 3, a.data(), b.data(), a_log.data(), dt_bias.data(),
                                        g.data(), beta.data()});
    DeltaForward<float>{s, q.data(), k.data(), v.data(), g.data(), beta.data(), o.data(), saved.data()}
        .run_on(backend);
    DeltaBackward<float>{s,         grad_o.data(), q.data(),     k.data(),   v.data(),
                         g.data(),  beta.data(),   dq.data(),    dk.data(),  dv.data(),
                         dg.data(), dbeta.data(),  saved.data(), work.data()}
        .run_on(backend);
    backend.run(DeltaGateBackward<float>{2 * length, 3, dg.data(), dbeta.data(), g.data(), beta.data(),
                                         a.data(), a_log.data(), dt_bias.data(), da.data(), db.data(),
                                         terms.data()});
    backend.run(ConvolutionForward<float>{2 * length, length, channels, q.data(), weight.data(), y.data()});
    ConvolutionBackward<float>{2 * length,    length,    channels,       k.data(), q.data(),
                               weight.data(), dx.data(), dweight.data(), dz.data()}
        .run_on(backend);
    const std::pair<const char *, Floats *> all[] = {{"DeltaGateForward g", &g},
                                                     {"DeltaGateForward beta", &beta},
                                                     {"DeltaForward", &o},
                                                     {"DeltaBackward dq", &dq},
                                                     {"DeltaBackward dk", &dk},
                                                     {"DeltaBackward dv", &dv},
                                                     {"DeltaBackward dg", &dg},
                                                     {"DeltaBackward dbeta", &dbeta},
                                                     {"DeltaGateBackward da", &da},
                                                     {"DeltaGateBackward db", &db},
                                                     {"DeltaGateBackward terms", &terms},
                                                     {"ConvolutionForward", &y},
                                                     {"ConvolutionBackward dx", &dx},
                                                     {"ConvolutionBackward dweight", &dweight}};
    for (const auto &[name, values] : all) out.add(name + size, *values);
  }
}

void run_slots(Backend<float> &backend, Results &out) {
  Random random(9);
  for (const int64_t length : {1, 3, 15, 64, 65, 130}) {
    const SlotShape<float> z{2, length, 3, 20, 17, 33};
    const int64_t rows = 2 * length * 3, nk = rows * z.key, nv = rows * z.value, ns = rows * z.slots;
    const Floats q = random.values<float>(nk, -2, 2), k = random.values<float>(nk),
                 x = random.values<float>(ns, -60, 20), v = random.values<float>(nv),
                 grad_o = random.values<float>(nv);
    Floats g = unset(ns), s = unset(ns), p = unset(ns), o = unset(nv), saved = unset(z.saved()),
           work = unset(z.work());
    Floats dq = unset(nk), dk = unset(nk), dv = unset(nv), dg1 = unset(ns), dg2 = unset(ns), ds1 = unset(ns),
           ds2 = unset(ns), dp = unset(ns), unused = unset(ns), dx = unset(ns), y = unset(nk), dy = unset(nk);
    const std::string size = " of length " + std::to_string(length);
    backend.run(SiluForward<float>{nk, q.data(), y.data()});
    backend.run(SiluBackward<float>{nk, k.data(), q.data(), dy.data()});
    backend.run(SlotGateForward<float>{ns, x.data(), g.data(), s.data(), 8.0f});
    SlotForward<float>{z, q.data(), k.data(), v.data(), g.data(), s.data(), p.data(), o.data(), saved.data()}
        .run_on(backend);
    SlotBackward<float>{z,          grad_o.data(), q.data(),  k.data(),     v.data(),    s.data(),
                        p.data(),   dq.data(),     dk.data(), dv.data(),    dg1.data(),  dg2.data(),
                        ds1.data(), ds2.data(),    dp.data(), saved.data(), work.data(), unused.data()}
        .run_on(backend);
    backend.run(SlotGateBackward<float>{ns, dg1.data(), dg2.data(), ds1.data(), ds2.data(), g.data(),
                                        x.data(), dx.data(), 8.0f});
    const std::pair<const char *, Floats *> all[] = {
        {"SiluForward", &y},         {"SiluBackward", &dy},       {"SlotGateForward g", &g},
        {"SlotGateForward s", &s},   {"SlotForward p", &p},       {"SlotForward o", &o},
        {"SlotBackward dq", &dq},    {"SlotBackward dk", &dk},    {"SlotBackward dv", &dv},
        {"SlotBackward dg 1", &dg1}, {"SlotBackward dg 2", &dg2}, {"SlotBackward ds 1", &ds1},
        {"SlotBackward ds 2", &ds2}, {"SlotBackward dp", &dp},    {"SlotGateBackward", &dx}};
    for (const auto &[name, values] : all) out.add(name + size, *values);
  }
}

void run_scan(Backend<float> &backend, Results &out) {
  Random random(10);
  for (const int64_t length : {1, 3, 15, 64, 65, 130}) {
    const ScanShape<float> z{2, length, 3, 20, 70, 3 * 70 + 40};
    const int64_t tokens = 2 * length, n = tokens * 3, nx = tokens * z.row, ny = n * z.value;
    const Floats x = random.values<float>(nx), raw = random.values<float>(n, -8, 8),
                 skip = random.values<float>(3), dy = random.values<float>(ny),
                 a_log = random.values<float>(3, 0, 2.7), dt_bias = random.values<float>(3, -6, -2),
                 weight = random.values<float>(z.row * kTaps), bias = random.values<float>(z.row);
    Floats dt = unset(n), g = unset(n), y = unset(ny), saved = unset(z.saved()), work = unset(z.states()),
           dx = unset(nx), ddt = unset(n), dg = unset(n), terms = unset(n), convolved = unset(nx),
           dz = unset(nx);
    const float *const b = x.data() + 210, *const c = b + 20;
    const std::string size = " of length " + std::to_string(length);
    backend.run(
        ScanGateForward<float>{tokens, 3, raw.data(), a_log.data(), dt_bias.data(), dt.data(), g.data()});
    ScanForward<float>{z, c, b, x.data(), dt.data(), g.data(), skip.data(), y.data(), saved.data()}.run_on(
        backend);
    ScanBackward<float>{z,
                        dy.data(),
                        c,
                        b,
                        x.data(),
                        dt.data(),
                        skip.data(),
                        dx.data() + 230,
                        dx.data() + 210,
                        dx.data(),
                        ddt.data(),
                        dg.data(),
                        terms.data(),
                        saved.data(),
                        work.data()}
        .run_on(backend);
    out.add("ScanBackward D" + size, terms);
    backend.run(ScanGateBackward<float>{tokens, 3, ddt.data(), dg.data(), g.data(), raw.data(), a_log.data(),
                                        dt_bias.data(), ddt.data(), terms.data()});
    backend.run(ConvolutionForward<float>{tokens, length, z.row, x.data(), weight.data(), convolved.data(),
                                          bias.data()});
    backend.run(ConvolutionSlopes<float>{tokens, length, z.row, convolved.data(), x.data(), weight.data(),
                                         dz.data(), bias.data()});
    const std::pair<const char *, Floats *> all[] = {{"ScanGateForward dt", &dt},
                                                     {"ScanGateForward g", &g},
                                                     {"ScanForward", &y},
                                                     {"ScanBackward dx", &dx},
                                                     {"ScanBackward dg", &dg},
                                                     {"ScanGateBackward", &ddt},
                                                     {"ScanGateBackward terms", &terms},
                                                     {"ConvolutionForward with bias", &convolved},
                                                     {"ConvolutionSlopes with bias", &dz}};
    for (const auto &[name, values] : all) out.add(name + size, *values);
  }
}

/// A matrix product's operands: a (m, k), b (k, n), each possibly stored transposed.
struct Product {
  int64_t m, n, k;
  bool a_transposed, b_transposed, add;
};

std::vector<Product> products() {
  std::vector<Product> out;
  int64_t variant = 0;
  for (const int64_t m : {1, 5, 6, 8, 13, 130})
    for (const int64_t n : {1, 15, 16, 17, 32, 33, 70})
      for (const int64_t k : {0, 1, 16, 127, 128, 129, 300}) {
        const int64_t bits = variant++ % 8;
        out.push_back({m, n, k, (bits & 1) != 0, (bits & 2) != 0, (bits & 4) != 0});
      }
  return out;
}

struct Operands {
  Floats a, b, c;
  View<const float> a_view, b_view;

  Operands(const Product &p, uint64_t seed) {
    Random random(seed);
    a = random.values<float>(p.m * p.k + 1);
    b = random.values<float>(p.k * p.n + 1);
    c = random.values<float>(p.m * (p.n + 3));
    a_view = p.a_transposed ? View<const float>{a.data(), 1, p.m} : View<const float>{a.data(), p.k};
    b_view = p.b_transposed ? View<const float>{b.data(), 1, p.k} : View<const float>{b.data(), p.n};
  }
};

void run_matmul(Backend<float> &backend, Results &out) {
  for (const Product &p : products()) {
    Operands x(p, 6);
    backend.run(Matmul<float>{p.m, p.n, p.k, x.a_view, x.b_view, {x.c.data(), p.n + 3}, p.add});
    out.add("Matmul " + std::to_string(p.m) + " " + std::to_string(p.n) + " " + std::to_string(p.k), x.c);
  }
}

/// 32 strided partial sums, then what each lane of a warp does with a butterfly of exchanges.
template <class E> E warp_sum(const std::vector<E> &terms) {
  E lanes[32] = {};
  for (size_t i = 0; i < terms.size(); ++i) lanes[i % 32] = lanes[i % 32] + terms[i];
  for (int mask = 16; mask > 0; mask /= 2) {
    E next[32];
    for (int l = 0; l < 32; ++l) next[l] = lanes[l] + lanes[l ^ mask];
    std::memcpy(lanes, next, sizeof lanes);
  }
  for (int l = 1; l < 32; ++l) REQUIRE(lanes[l] == lanes[0]);
  return lanes[0];
}

} // namespace

TEST_CASE("every instruction set and thread count gives the same words") {
  const auto all = candidates();
  const auto results = [](Backend<float> &backend) {
    Results out;
    run_elementwise(backend, out);
    run_rows(backend, out);
    run_gla(backend, out);
    run_attention(backend, out);
    run_delta(backend, out);
    run_slots(backend, out);
    run_scan(backend, out);
    run_matmul(backend, out);
    return out;
  };
  const Results expected = results(*all[0].backend);
  for (size_t i = 1; i < all.size(); ++i) {
    CAPTURE(all[i].name);
    const Results got = results(*all[i].backend);
    REQUIRE(got.items.size() == expected.items.size());
    for (size_t r = 0; r < got.items.size(); ++r) {
      CAPTURE(expected.items[r].first);
      CHECK(got.items[r].second == expected.items[r].second);
    }
  }
}

TEST_CASE("sums are 32 strided partial sums and a butterfly") {
  for (const Candidate &c : candidates()) {
    CAPTURE(c.name);
    Random random(7);
    for (const int64_t rows : {1, 31, 32, 33, 100, 1000}) {
      CAPTURE(rows);
      const int64_t cols = 21;
      const Floats x = random.values<float>(rows * cols), start = random.values<float>(cols);
      Floats sums = start;
      c.backend->run(AccumulateColumns<float>{rows, cols, x.data(), sums.data()});
      for (int64_t j = 0; j < cols; ++j) {
        Floats terms;
        for (int64_t r = 0; r < rows; ++r) terms.push_back(x[size_t(r * cols + j)]);
        CHECK(sums[size_t(j)] == start[size_t(j)] + warp_sum(terms));
      }
      // the sum over a row
      const Floats ones(size_t(rows), 1.0f), row = random.values<float>(rows);
      Floats y = unset(rows), rstd = unset(1), squares;
      for (float v : row) squares.push_back(v * v);
      c.backend->run(RmsNormForward<float>{1, rows, 0.25f, row.data(), ones.data(), y.data(), rstd.data()});
      CHECK(rstd[0] == 1.0f / std::sqrt(warp_sum(squares) / float(rows) + 0.25f));
      std::vector<double> wide, partial(1);
      for (float v : row) wide.push_back(double(v) * double(v));
      c.backend->run(SquareSums<float>{rows, row.data(), partial.data()});
      CHECK(partial[0] == warp_sum(wide));
    }
  }
}

TEST_CASE("a matrix product is one chain of fused multiply-adds an output") {
  for (const Candidate &c : candidates()) {
    CAPTURE(c.name);
    int64_t wrong = 0;
    for (const Product &p : products()) {
      Operands x(p, 8);
      const Floats start = x.c;
      c.backend->run(Matmul<float>{p.m, p.n, p.k, x.a_view, x.b_view, {x.c.data(), p.n + 3}, p.add});
      for (int64_t i = 0; i < p.m; ++i)
        for (int64_t j = 0; j < p.n + 3; ++j) {
          const size_t at = size_t(i * (p.n + 3) + j);
          float expected = p.add || j >= p.n ? start[at] : 0.0f; // nothing is written beside the rows
          if (j < p.n)
            for (int64_t q = 0; q < p.k; ++q) {
              const float a = x.a[size_t(p.a_transposed ? q * p.m + i : i * p.k + q)];
              const float b = x.b[size_t(p.b_transposed ? j * p.k + q : q * p.n + j)];
              expected = std::fma(a, b, expected);
            }
          wrong += x.c[at] != expected;
        }
    }
    CHECK(wrong == 0);
  }
}
