// SPDX-License-Identifier: Apache-2.0
// Recipes' mixer rules in Mamba-2: chunks as composed by hand from quantize and gemm, FP32 products as the
// whole kernels, and the same bits on any thread and instruction set.
#include "nvfp4/reference_models/family/mixer_operators.hpp"
#include "tests/reference_models/model/products_support.hpp"

namespace nvfp4::test {
namespace {

ModelConfig scan_model() {
  ModelConfig c = small_model("mamba2");
  c.kv_heads = c.heads;
  c.key_dim = c.value_dim = 88; // 22 a head
  c.state = 20;
  return c;
}

struct Head {
  Floats x, dt, g, grad; // (tokens, value), (tokens), (tokens), (tokens, value)
  float skip;
  Floats y, dx, ddt, dg, terms;
};

/// One sequence, row-major: what the mixer gets, and what it must give.
struct Sequence {
  int64_t tokens, state, value;
  Floats c, b; // (tokens, state)
  std::vector<Head> heads;
  Floats dc, db;
};

/// The scan of a sequence by hand; `key` is of (number, product, use, head, chunk).
template <class Key, class Linear> void by_hand(Sequence &s, const Linear &linear, const Key &key) {
  using enum Axis;
  const int64_t N = s.state, V = s.value, chunks = (s.tokens + 63) / 64;
  const LinearRecipe qk = linear("attn.qk"), av = linear("attn.av"), read = linear("attn.state_read"),
                     update = linear("attn.state_update");
  struct Part {                            // of a head
    Floats d, reads, leaves, ut, a, state; // leaves (N, n), ut (V, n)
  };
  struct Chunk {
    int64_t first, n;
    Floats c, b, products;
    std::vector<Part> parts;
  };
  std::vector<Chunk> all;
  std::vector<Floats> states(s.heads.size(), zeros(N * V));
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    Chunk x{chunk * 64, std::min<int64_t>(64, s.tokens - chunk * 64), {}, {}, {}, {}};
    const int64_t n = x.n;
    x.c = rows_of(s.c, x.first, n, N);
    x.b = rows_of(s.b, x.first, n, N);
    x.products = product(qk.fprop, x.c, n, row, key(0, 0, 0, 0, chunk), x.b, n, row, key(0, 0, 1, 0, chunk));
    for (size_t h = 0; h < s.heads.size(); ++h) {
      Head &head = s.heads[h];
      const auto of = [&](int number, int use) { return key(number, 0, use, int64_t(h), chunk); };
      Part p{decays_by_hand(rows_of(head.g, x.first, n, 1), n),
             zeros(n * N),
             zeros(n * N),
             zeros(n * V),
             zeros(n * n),
             states[h]};
      const auto d = [&](int64_t i, int64_t j) { return p.d[size_t(i * (n + 1) + j)]; };
      for (int64_t i = 0; i < n; ++i) {
        for (int64_t e = 0; e < N; ++e) {
          p.reads[size_t(i * N + e)] = x.c[size_t(i * N + e)] * d(i, 0);
          p.leaves[size_t(e * n + i)] = x.b[size_t(i * N + e)] * d(n - 1, i + 1);
        }
        for (int64_t e = 0; e < V; ++e)
          p.ut[size_t(e * n + i)] = head.dt[size_t(x.first + i)] * head.x[size_t((x.first + i) * V + e)];
        for (int64_t j = 0; j <= i; ++j) p.a[size_t(i * n + j)] = x.products[size_t(i * n + j)] * d(i, j + 1);
      }
      Floats y = product(read.fprop, p.reads, n, row, of(3, 0), transposed(p.state, N), V, row, of(3, 1));
      y = product(av.fprop, p.a, n, row, of(2, 0), p.ut, V, row, of(2, 1), y);
      for (size_t i = 0; i < y.size(); ++i) y[i] = y[i] + head.skip * head.x[size_t(x.first * V) + i];
      head.y.insert(head.y.end(), y.begin(), y.end());
      if (chunk + 1 < chunks) {
        for (float &v : states[h]) v = d(n - 1, 0) * v;
        states[h] = product(update.fprop, p.leaves, N, row, of(4, 0), p.ut, V, row, of(4, 1), states[h]);
      }
      x.parts.push_back(p);
    }
    all.push_back(x);
  }
  std::vector<Floats> grads(s.heads.size(), zeros(N * V)); // of the states, transposed
  s.dc = s.db = zeros(s.tokens * N);
  for (Head &h : s.heads) {
    h.dx = zeros(s.tokens * V);
    h.ddt = h.dg = h.terms = zeros(s.tokens);
  }
  for (int64_t chunk = chunks - 1; chunk >= 0; --chunk) {
    const Chunk &x = all[size_t(chunk)];
    const int64_t n = x.n;
    Floats dc = zeros(n * N), db = dc, dproducts = zeros(n * n);
    for (size_t h = 0; h < s.heads.size(); ++h) {
      Head &head = s.heads[h];
      const Part &p = x.parts[h];
      const auto of = [&](int number, int made, int use) {
        return key(number, made, use, int64_t(h), chunk);
      };
      const auto d = [&](int64_t i, int64_t j) { return p.d[size_t(i * (n + 1) + j)]; };
      const Floats ds = transposed(grads[h], V), dy = rows_of(head.grad, x.first, n, V),
                   st = transposed(p.state, N);
      Floats dut =
          product(update.wgrad, ds, N, col, of(4, 2, 0), p.leaves, N, col, of(4, 2, 1), zeros(n * V));
      dut = product(av.wgrad, dy, n, col, of(2, 2, 0), p.a, n, col, of(2, 2, 1), dut);
      const Floats da = product(av.dgrad, dy, n, row, of(2, 1, 0), p.ut, V, col, of(2, 1, 1));
      Floats dreads = product(read.dgrad, dy, n, row, of(3, 1, 0), st, V, col, of(3, 1, 1));
      const Floats dleaves = product(update.dgrad, ds, N, row, of(4, 1, 0), p.ut, V, col, of(4, 1, 1));
      Floats pairs = zeros(n * n), reading, leaving, whole_terms;
      for (int64_t i = 0; i < n; ++i) {
        for (int64_t j = 0; j <= i; ++j) {
          const auto at = size_t(i * n + j);
          const float decayed = da[at] * d(i, j + 1);
          dproducts[at] = dproducts[at] + decayed;
          pairs[at] = decayed * x.products[at];
        }
        Floats steps, skips, of_reads, of_leaves;
        for (int64_t e = 0; e < V; ++e) {
          const auto at = size_t((x.first + i) * V + e);
          const float du = dut[size_t(e * n + i)], dye = dy[size_t(i * V + e)];
          steps.push_back(du * head.x[at]);
          skips.push_back(dye * head.x[at]);
          head.dx[at] = du * head.dt[size_t(x.first + i)] + head.skip * dye;
        }
        head.ddt[size_t(x.first + i)] = warp_sum(steps);
        head.terms[size_t(x.first + i)] = warp_sum(skips);
        for (int64_t e = 0; e < N; ++e) {
          const auto at = size_t(i * N + e);
          dreads[at] = dreads[at] * d(i, 0);
          const float left = dleaves[size_t(e * n + i)] * d(n - 1, i + 1);
          dc[at] = dc[at] + dreads[at];
          db[at] = db[at] + left;
          of_reads.push_back(x.c[at] * dreads[at]);
          of_leaves.push_back(x.b[at] * left);
        }
        reading.push_back(warp_sum(of_reads));
        leaving.push_back(warp_sum(of_leaves));
      }
      for (int64_t e = 0; e < N; ++e) {
        Floats terms;
        for (int64_t v = 0; v < V; ++v) terms.push_back(p.state[size_t(e * V + v)] * ds[size_t(e * V + v)]);
        whole_terms.push_back(warp_sum(terms));
      }
      const float whole = warp_sum(whole_terms) * d(n - 1, 0);
      const Floats passed = passed_by_hand(pairs, n);
      for (int64_t gate = 0; gate < n; ++gate) {
        float sum = whole;
        for (int64_t i = gate; i < n; ++i) sum = sum + reading[size_t(i)];
        for (int64_t j = 0; j < gate; ++j) sum = sum + leaving[size_t(j)];
        head.dg[size_t(x.first + gate)] = sum + passed[size_t(gate)];
      }
      for (float &v : grads[h]) v = d(n - 1, 0) * v;
      if (chunk > 0)
        grads[h] = product(read.wgrad, dy, n, col, of(3, 2, 0), p.reads, n, col, of(3, 2, 1), grads[h]);
    }
    dc =
        product(qk.dgrad, dproducts, n, row, key(0, 1, 0, 0, chunk), x.b, n, col, key(0, 1, 1, 0, chunk), dc);
    db =
        product(qk.wgrad, dproducts, n, col, key(0, 2, 0, 0, chunk), x.c, n, col, key(0, 2, 1, 0, chunk), db);
    std::copy(dc.begin(), dc.end(), s.dc.begin() + x.first * N);
    std::copy(db.begin(), db.end(), s.db.begin() + x.first * N);
  }
}

/// Mamba-2's scan of block 0 by hand, against the model's y and the gradient of what in_proj made, through
/// the model's own kernels of convolution and gates.
void compare(const Recipe &recipe, int64_t batch, int64_t length) {
  const ModelConfig c = scan_model();
  Step step(c, recipe, batch, length);
  step.run();
  const Recipe bound = recipe.for_family("mamba2");
  const int64_t N = c.state, V = c.value_head(), inner = c.value_dim, width = inner + 2 * N,
                chunks = (length + 63) / 64, rows = batch * length, projected = inner + width + c.heads;
  const std::string path = mixer_path(c, 0);
  Model<float> &model = step.model;
  const auto value = [&](const char *name) { return model.parameters().value(path + name); };
  const Floats &xbc = step.seen.at(path + "conv1d");
  Floats y(size_t(rows * inner)), dxbc(xbc.size()), ddt(size_t(rows * c.heads)), dg(ddt.size()),
      terms(ddt.size());
  const auto columns = [&](const Floats &from, int64_t s, int64_t stride, int64_t first, int64_t n) {
    Floats out;
    for (int64_t t = s * length; t < (s + 1) * length; ++t)
      for (int64_t e = 0; e < n; ++e) out.push_back(from[size_t(t * stride + first + e)]);
    return out;
  };
  const auto put = [&](const Floats &from, int64_t s, int64_t stride, int64_t first, Floats &to) {
    const int64_t n = int64_t(from.size()) / length;
    for (int64_t t = 0; t < length; ++t)
      for (int64_t e = 0; e < n; ++e)
        to[size_t((s * length + t) * stride + first + e)] = from[size_t(t * n + e)];
  };
  for (int64_t s = 0; s < batch; ++s) {
    Sequence sequence{length, N,  V, columns(xbc, s, width, inner + N, N), columns(xbc, s, width, inner, N),
                      {},     {}, {}};
    for (int64_t h = 0; h < c.heads; ++h)
      sequence.heads.push_back({columns(xbc, s, width, h * V, V),
                                columns(step.seen.at(path + "dt"), s, c.heads, h, 1),
                                columns(step.seen.at(path + "gate"), s, c.heads, h, 1),
                                columns(step.seen.at(path + "scan.output_grad"), s, inner, h * V, V),
                                value("D")[h],
                                {},
                                {},
                                {},
                                {},
                                {}});
    by_hand(
        sequence, [&](const char *role) { return bound.resolve(role, 0, c.layers); },
        [&](int number, int made, int use, int64_t head, int64_t chunk) {
          return operator_key_by_hand(number, made, use, ((s * c.heads + head) * chunks + chunk) * 4);
        });
    put(sequence.db, s, width, inner, dxbc);
    put(sequence.dc, s, width, inner + N, dxbc);
    for (int64_t h = 0; h < c.heads; ++h) {
      const Head &head = sequence.heads[size_t(h)];
      put(head.y, s, inner, h * V, y);
      put(head.dx, s, width, h * V, dxbc);
      put(head.ddt, s, c.heads, h, ddt);
      put(head.dg, s, c.heads, h, dg);
      put(head.terms, s, c.heads, h, terms);
    }
  }
  CHECK(same_bits(step.seen.at(path + "scan"), y));
  Backend<float> &backend = *step.backend;
  const Floats &made = step.seen.at(path + "in_proj");
  Floats before, raw;
  for (int64_t s = 0; s < batch; ++s) {
    const Floats some = columns(made, s, projected, inner, width),
                 gates = columns(made, s, projected, inner + width, c.heads);
    before.insert(before.end(), some.begin(), some.end());
    raw.insert(raw.end(), gates.begin(), gates.end());
  }
  Floats din(xbc.size()), dw(size_t(width * kTaps)), dconvolved(xbc.size()), draw(ddt.size()),
      spare(ddt.size());
  ConvolutionBackward<float>{rows,
                             length,
                             width,
                             dxbc.data(),
                             before.data(),
                             value("conv1d.weight"),
                             din.data(),
                             dw.data(),
                             dconvolved.data(),
                             value("conv1d.bias")}
      .run_on(backend);
  backend.run(ScanGateBackward<float>{rows, c.heads, ddt.data(), dg.data(),
                                      step.seen.at(path + "gate").data(), gate_input(step, path, raw).data(),
                                      value("A_log"), value("dt_bias"), draw.data(), spare.data()});
  const Floats &grad = step.seen.at("0.attn.in_proj.output_grad");
  Floats got_in, got_raw;
  for (int64_t s = 0; s < batch; ++s) {
    const Floats some = columns(grad, s, projected, inner, width),
                 gates = columns(grad, s, projected, inner + width, c.heads);
    got_in.insert(got_in.end(), some.begin(), some.end());
    got_raw.insert(got_raw.end(), gates.begin(), gates.end());
  }
  CHECK(same_bits(got_in, din));
  CHECK(same_bits(got_raw, draw));
  Floats dskip(size_t(c.heads));
  backend.run(AccumulateColumns<float>{rows, c.heads, terms.data(), dskip.data()});
  const float *const skip_grad = model.parameters().gradient(path + "D");
  CHECK(same_bits(Floats(skip_grad, skip_grad + c.heads), dskip));
}

} // namespace

TEST_CASE("products inside Mamba-2 are quantize and gemm composed by hand", "[model]") {
  struct Case {
    const char *recipe, *linear;
    std::vector<std::string> roles;
  };
  for (const Case &c :
       {Case{"nvfp4", "nvfp4", {"*"}}, Case{"nvfp4-plain", "nvfp4", {"attn.state_*"}},
        Case{"mxfp4-sr-rht", "mxfp4", {"attn.qk", "attn.av"}}, Case{"mxfp8", "mxfp8", {"attn.state_read"}},
        Case{"nvfp4", "nvfp4", {"attn.qk", "attn.state_update"}}, Case{"bf16", "bf16", {"*"}}}) {
    CAPTURE(c.recipe, c.roles);
    compare(with_mixer_rules(c.recipe, c.linear, c.roles), 2, 150); // two chunks, and one of 22 tokens
  }
  Recipe rest = with_mixer_rules("nvfp4", "nvfp4", {"attn.qk", "attn.av"});
  for (auto &[name, linear] : rest.linears) linear.wgrad.output = FormatId::bf16;
  compare(rest, 1, 80);
  compare(load_recipe("nvfp4+mixer_rules=nvfp4+gate_inputs=fp8"), 1, 80);
}

TEST_CASE("FP32 products inside Mamba-2 have the bits of its kernels", "[model]") {
  check_fp32_products(scan_model(), [](const std::string &role, int64_t length) {
    return (length + 63) / 64 * (role == "attn.qk" ? 1 : 4); // B and C are those of all heads
  });
}

TEST_CASE("products inside Mamba-2 do not depend on threads or instruction set", "[model]") {
  check_same_everywhere(scan_model());
}

} // namespace nvfp4::test
