// SPDX-License-Identifier: Apache-2.0
// Runs a computation on a rectangle of outputs. Chains of unchanged instructions go through the GEMM engine,
// the rest through plain loops.
#include "nvfp4/emulator/gemm/epilogue.hpp"
#include "nvfp4/golden/diagnosis/computation.hpp"

#include <algorithm>
#include <cmath>
#include <omp.h>

namespace nvfp4::diagnosis {
namespace {

using Indices = std::span<const int64_t>;

int thread_count(const Problem &p) { return p.threads > 0 ? p.threads : omp_get_max_threads(); }

/// Some rows of an operand, elements [first, last) along K.
RawOperand cut(const RawOperand &o, Indices rows, int64_t first, int64_t last) {
  RawOperand part = o;
  part.rows = int64_t(rows.size());
  part.k = last - first;
  part.codes.assign(size_t(part.rows * part.row_bytes()), 0);
  part.scales.assign(size_t(part.rows * part.blocks()), 0);
  for (int64_t r = 0; r < part.rows; ++r) {
    std::copy_n(o.codes.begin() + rows[size_t(r)] * o.row_bytes() + first * o.bits() / 8, part.row_bytes(),
                part.codes.begin() + r * part.row_bytes());
    if (o.block != 0)
      std::copy_n(o.scales.begin() + rows[size_t(r)] * o.blocks() + first / o.block, part.blocks(),
                  part.scales.begin() + r * part.blocks());
  }
  return part;
}

GemmOperand pack(const Unit &unit, Side side, const RawOperand &o) {
  if (o.format != (side == Side::a ? unit.rule.a : unit.rule.b) || o.block != unit.rule.scale_block)
    throw Error("operand does not fit unit " + unit.name());
  return make_operand(unit, side, RawCodes{o.rows, o.k, o.codes}, RawScales(o.scales, ScaleLayout::linear));
}

uint64_t c_word(const Problem &p, const Epilogue &e, int64_t i, int64_t j) {
  const int bits = p.unit->rule.acc == FormatId::f64 ? 64 : 32;
  return CodeView{p.c.data(), bits}[e.column_major_c ? j * p.m() + i : i * p.n() + j];
}

/// Values times block scales, (rows, k).
std::vector<float> scaled_values(const RawOperand &o, bool with_scales) {
  std::vector<float> v(size_t(o.rows * o.k));
  for (int64_t r = 0; r < o.rows; ++r) {
    const CodeView row = o.row(r);
    for (int64_t i = 0; i < o.k; ++i) {
      const float x = value_f32(o.format, row[i]);
      const bool scale = with_scales && o.block != 0;
      v[size_t(r * o.k + i)] =
          scale ? x * value_f32(o.scale, o.scales[size_t(r * o.blocks() + i / o.block)]) : x;
    }
  }
  return v;
}

/// Products of values of at most 12 significant bits and of moderate exponents are exact, so fma is multiply
/// and add.
bool exact_products(const RawOperand &o) {
  const auto bits = [](FormatId id) { return format(id).mantissa_bits + 1; };
  return bits(o.format) + (o.block != 0 ? bits(o.scale) : 0) <= 12 && format(o.format).exponent_bits <= 5 &&
         (o.block == 0 || o.scale == FormatId::ue4m3);
}

/// acc (rows of a, rows of b) += products over K in order, FP32.
void add_products(const RawOperand &a, const RawOperand &b, int threads, std::vector<float> &acc) {
  const std::vector<float> x = scaled_values(a, true), y = scaled_values(b, true);
  std::vector<float> yt(y.size()); // (k, n)
  const int64_t n = b.rows;
  for (int64_t j = 0; j < n; ++j)
    for (int64_t i = 0; i < b.k; ++i) yt[size_t(i * n + j)] = y[size_t(j * b.k + i)];
  const bool exact = exact_products(a) && exact_products(b);
#pragma omp parallel for schedule(dynamic) num_threads(threads)
  for (int64_t r = 0; r < a.rows; ++r) {
    float *row = acc.data() + r * n;
    for (int64_t i = 0; i < a.k; ++i) {
      const float v = x[size_t(r * a.k + i)], *w = yt.data() + i * n;
      if (exact)
        for (int64_t j = 0; j < n; ++j) row[j] += v * w[j];
      else
        for (int64_t j = 0; j < n; ++j) row[j] = std::fma(v, w[j], row[j]);
    }
  }
}

/// acc += exact sum of a block's products times the product of its scales, one fma a block.
void add_blocks(const RawOperand &a, const RawOperand &b, int threads, std::vector<float> &acc) {
  const std::vector<float> x = scaled_values(a, false), y = scaled_values(b, false);
  const int64_t n = b.rows;
#pragma omp parallel for schedule(dynamic) num_threads(threads)
  for (int64_t r = 0; r < a.rows; ++r)
    for (int64_t j = 0; j < n; ++j)
      for (int64_t s = 0; s < a.blocks(); ++s) {
        float sum = 0; // exact for FP4: quarters below 2^11
        for (int64_t i = s * a.block; i < std::min(a.k, (s + 1) * a.block); ++i)
          sum += x[size_t(r * a.k + i)] * y[size_t(j * b.k + i)];
        const float scales = value_f32(a.scale, a.scales[size_t(r * a.blocks() + s)]) *
                             value_f32(b.scale, b.scales[size_t(j * b.blocks() + s)]);
        float &to = acc[size_t(r * n + j)];
        to = std::fma(sum, scales, to);
      }
}

/// Accumulators of one slice along K.
std::vector<uint64_t> accumulate(const Problem &p, const Computation &c, Indices rows, Indices cols,
                                 int64_t first, int64_t last) {
  const RawOperand a = cut(*c.a, rows, first, last), b = cut(*c.b, cols, first, last);
  const Chain &chain = c.chain;
  const int64_t n = b.rows;
  std::vector<uint64_t> acc(size_t(a.rows * n));
  const auto start = [&](int64_t o) {
    return chain.start_from_c ? c_word(p, c.epilogue, rows[size_t(o / n)], cols[size_t(o % n)]) : uint64_t{0};
  };
  if (chain.arithmetic != Arithmetic::unit) {
    std::vector<float> sums(acc.size());
    for (size_t o = 0; o < sums.size(); ++o) sums[o] = bit_cast<float>(uint32_t(start(int64_t(o))));
    chain.arithmetic == Arithmetic::fma_f32 ? add_products(a, b, thread_count(p), sums)
                                            : add_blocks(a, b, thread_count(p), sums);
    for (size_t o = 0; o < sums.size(); ++o)
      acc[o] = sums[o] != sums[o] ? 0x7FFFFFFF : bit_cast<uint32_t>(sums[o]);
    return acc;
  }
  const GemmOperand pa = pack(chain.unit, Side::a, a), pb = pack(chain.unit, Side::b, b);
  if (chain.finish == Finish::as_unit) {
    std::vector<uint64_t> starts(chain.start_from_c ? acc.size() : 0);
    for (size_t o = 0; o < starts.size(); ++o) starts[o] = start(int64_t(o));
    const FormatId out = chain.unit.rule.acc == FormatId::f64 ? FormatId::f64 : FormatId::f32;
    GemmPlan(chain.unit, {.out = out, .accumulation = chain.accumulation, .threads = p.threads, .isa = p.isa})
        .accumulate(pa, pb, acc, starts);
    return acc;
  }
#pragma omp parallel for schedule(dynamic, 16) num_threads(thread_count(p))
  for (int64_t o = 0; o < int64_t(acc.size()); ++o) {
    const int64_t i = o / n, j = o % n;
    acc[size_t(o)] = run_steps(chain.unit.rule, {pa.row(i), pb.row(j), pa.row_scales(i), pb.row_scales(j)},
                               pa.padded_k, start(o), chain.accumulation, chain.finish, [](const Step &) {});
  }
  return acc;
}

void add(FormatId acc, std::vector<uint64_t> &to, const std::vector<uint64_t> &from) {
  for (size_t o = 0; o < to.size(); ++o)
    to[o] = acc == FormatId::f64 ? bit_cast<uint64_t>(bit_cast<double>(to[o]) + bit_cast<double>(from[o]))
                                 : add_accumulators(acc, to[o], from[o]);
}

/// All slices, combined.
std::vector<uint64_t> accumulate(const Problem &p, const Computation &c, Indices rows, Indices cols) {
  const int64_t k = c.a->k, slice = c.chain.slice;
  if (slice == 0 || slice >= k) return accumulate(p, c, rows, cols, 0, k);
  const FormatId acc = c.chain.unit.rule.acc;
  std::vector<std::vector<uint64_t>> parts;
  for (int64_t first = 0; first < k; first += slice) {
    std::vector<uint64_t> part = accumulate(p, c, rows, cols, first, std::min(k, first + slice));
    if (c.chain.alpha_on_partials)
      for (uint64_t &w : part) w = bit_cast<uint32_t>(c.epilogue.alpha * value_f32(acc, w));
    if (c.chain.combine == Combine::sequential && !parts.empty())
      add(acc, parts.front(), part);
    else
      parts.push_back(std::move(part));
  }
  if (c.chain.combine == Combine::reversed) {
    std::reverse(parts.begin(), parts.end());
    for (size_t i = 1; i < parts.size(); ++i) add(acc, parts.front(), parts[i]);
  }
  while (c.chain.combine == Combine::pairwise && parts.size() > 1) {
    for (size_t i = 0; i + 1 < parts.size(); i += 2) {
      add(acc, parts[i], parts[i + 1]);
      if (i != 0) parts[i / 2] = std::move(parts[i]);
    }
    if (parts.size() % 2 != 0) parts[parts.size() / 2] = std::move(parts.back());
    parts.resize((parts.size() + 1) / 2);
  }
  return std::move(parts.front());
}

/// The library's epilogue (emulator/gemm/epilogue.hpp), or that of a mistake.
uint64_t finish(const Epilogue &e, FormatId acc_format, uint64_t acc, uint64_t c, const float *factor) {
  if (acc_format == FormatId::f64)
    return finish_output({.alpha = e.alpha, .beta = e.beta, .c = c, .factor = factor}, acc_format, acc);
  const auto through = [](FormatId type, float y) { return value_f32(type, round_output(type, y)); };
  float x = accumulator_value(acc_format, acc);
  if (e.round_acc) x = through(*e.round_acc, x);
  const float source = bit_cast<float>(uint32_t(c));
  float y = e.unfused && e.beta != 0.0f ? e.alpha * x + e.beta * source : blend(e.alpha, x, e.beta, source);
  y = adjust(y, factor, nullptr);
  if (e.round_twice) y = through(*e.round_twice, y);
  const Format round = format(e.round), f32 = format(FormatId::f32);
  const uint64_t code =
      e.truncate ? convert(round, f32, bit_cast<uint32_t>(y), Rounding::toward_zero, Overflow::ieee)
                 : round_output(e.round, y);
  return e.round == e.word ? code
         : e.round == FormatId::bf16
             ? code << 16 // as a cast keeps a NaN
             : convert(format(e.word), round, code, Rounding::nearest_even, Overflow::ieee);
}

void store(std::vector<uint8_t> &words, size_t at, uint64_t word, size_t width) {
  std::memcpy(words.data() + at * width, &word, width);
}

/// D written column by column: the word at (i, j) of a row-major reader is output (f % M, f / M), f = i * N +
/// j.
std::vector<uint8_t> evaluate_column_major(const Problem &p, Computation c, Indices rows, Indices cols) {
  c.epilogue.column_major_d = false;
  const int64_t m = p.m(), n = p.n();
  const size_t width = size_t(format(p.word).storage_bits / 8);
  std::vector<int64_t> from_rows, from_cols;
  for (const int64_t i : rows)
    for (const int64_t j : cols) {
      from_rows.push_back((i * n + j) % m);
      from_cols.push_back((i * n + j) / m);
    }
  const auto unique = [](std::vector<int64_t> v) {
    std::sort(v.begin(), v.end());
    v.erase(std::unique(v.begin(), v.end()), v.end());
    return v;
  };
  const auto at = [](const std::vector<int64_t> &v, int64_t x) {
    return std::lower_bound(v.begin(), v.end(), x) - v.begin();
  };
  const std::vector<int64_t> r = unique(from_rows), q = unique(from_cols);
  const std::vector<uint8_t> all = evaluate(p, c, r, q);
  std::vector<uint8_t> words(from_rows.size() * width);
  for (size_t o = 0; o < from_rows.size(); ++o)
    std::memcpy(words.data() + o * width,
                all.data() + size_t(at(r, from_rows[o]) * int64_t(q.size()) + at(q, from_cols[o])) * width,
                width);
  return words;
}

} // namespace

Computation reference_computation(const Problem &p) {
  Computation c;
  c.a = std::make_shared<const RawOperand>(p.a.raw);
  c.b = std::make_shared<const RawOperand>(p.b.raw);
  c.chain.unit = *p.unit;
  c.chain.accumulation = p.accumulation;
  c.epilogue = {.alpha = total_alpha(p), .beta = p.beta, .round = p.round, .word = p.word};
  if (p.a.scaled) c.epilogue.row_a = p.a.scaled->row_amax;
  if (p.b.scaled) c.epilogue.row_b = p.b.scaled->row_amax;
  return c;
}

std::vector<uint8_t> evaluate(const Problem &p, const Computation &c, Indices rows, Indices cols) {
  if (c.epilogue.column_major_d) return evaluate_column_major(p, c, rows, cols);
  const Epilogue &e = c.epilogue;
  const FormatId acc_format = c.chain.unit.rule.acc;
  const size_t width = size_t(format(e.word).storage_bits / 8);
  const int64_t n = int64_t(cols.size());
  std::vector<uint8_t> words(rows.size() * cols.size() * width);
  Epilogue last = e;
  if (c.chain.alpha_on_partials && c.chain.slice != 0 && c.chain.slice < c.a->k) last.alpha = 1.0f;
  constexpr size_t band = 256; // rows at a time bound the memory of accumulators
  for (size_t first = 0; first < rows.size(); first += band) {
    const Indices some = rows.subspan(first, std::min(band, rows.size() - first));
    const std::vector<uint64_t> acc = accumulate(p, c, some, cols);
#pragma omp parallel for num_threads(thread_count(p))
    for (int64_t o = 0; o < int64_t(acc.size()); ++o) {
      const int64_t i = some[size_t(o / n)], j = cols[size_t(o % n)];
      const uint64_t source = e.beta != 0.0f ? c_word(p, e, i, j) : 0;
      const float *const left = e.row_a.empty() ? nullptr : &e.row_a[size_t(i)],
                         *const right = e.row_b.empty() ? nullptr : &e.row_b[size_t(j)];
      const float factor = left == nullptr && right == nullptr ? 1.0f : joint_factor(left, right);
      store(words, first * cols.size() + size_t(o),
            finish(last, acc_format, acc[size_t(o)], source,
                   left == nullptr && right == nullptr ? nullptr : &factor),
            width);
    }
  }
  return words;
}

} // namespace nvfp4::diagnosis
