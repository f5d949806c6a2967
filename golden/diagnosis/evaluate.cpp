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

using IndexSpan = std::span<const int64_t>;

int thread_count(const Problem &p) { return p.threads > 0 ? p.threads : omp_get_max_threads(); }

/// Some rows of an operand, elements [first, last) along K.
RawOperand cut(const RawOperand &o, IndexSpan rows, int64_t first, int64_t last) {
  RawOperand part = o;
  part.rows = int64_t(rows.size());
  part.k = last - first;
  part.codes.assign(size_t(part.rows * part.row_bytes()), 0);
  part.scales.assign(size_t(part.rows * part.scale_cols()), 0);
  for (int64_t r = 0; r < part.rows; ++r) {
    std::copy_n(o.codes.begin() + rows[size_t(r)] * o.row_bytes() + first * o.bits() / 8, part.row_bytes(),
                part.codes.begin() + r * part.row_bytes());
    if (o.block != 0)
      std::copy_n(o.scales.begin() + rows[size_t(r)] * o.scale_cols() + first / o.block * scale_bytes(o.scale),
                  part.scale_cols(), part.scales.begin() + r * part.scale_cols());
  }
  return part;
}

bool fits(const Unit &unit, Side side, const RawOperand &o) {
  return o.format == (side == Side::a ? unit.rule.a : unit.rule.b) && o.block == unit.rule.scale_block;
}

GemmOperand pack(const Unit &unit, Side side, const RawOperand &o) {
  if (!fits(unit, side, o)) throw Error("operand does not fit unit " + unit.name());
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
      const uint32_t scale = o.block != 0 ? o.scale_of(r, i) : 0;
      const float x = element_value(o.format, row[i], o.block != 0 && is_flagged(format(o.scale), scale));
      v[size_t(r * o.k + i)] = with_scales && o.block != 0 ? x * scale_value(o.scale, scale, int(i % o.block)) : x;
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

/// Chain of one output under scales whose products are rounded to the scale's format: A's carries the
/// product.
uint64_t folded_dot(const Reduction &r, const GemmOperand &a, const GemmOperand &b, int64_t i, int64_t j,
                    uint64_t start) {
  std::vector<uint8_t> products(size_t(a.scale_cols())),
      ones(size_t(a.scale_cols()), uint8_t(format(b.scale).one()));
  for (size_t s = 0; s < products.size(); ++s)
    products[s] = uint8_t(
        encode(a.scale, value_f32(a.scale, a.row_scales(i)[s]) * value_f32(b.scale, b.row_scales(j)[s])));
  return dot_finished(r.finish, r.unit.rule, {a.row(i), b.row(j), products.data(), ones.data()}, a.padded_k,
                      start, r.accumulation);
}

/// Accumulators of one part of K, from `start` or, where it is empty, from +0.
std::vector<uint64_t> accumulate(const Problem &p, const Computation &c, IndexSpan rows, IndexSpan cols,
                                 int64_t first, int64_t last, const std::vector<uint64_t> &start) {
  const RawOperand a = cut(*c.a, rows, first, last), b = cut(*c.b, cols, first, last);
  const Reduction &r = c.reduction;
  const int64_t n = b.rows;
  std::vector<uint64_t> acc(size_t(a.rows * n));
  if (r.arithmetic != Arithmetic::unit) {
    std::vector<float> sums(acc.size());
    for (size_t o = 0; o < start.size(); ++o) sums[o] = bit_cast<float>(uint32_t(start[o]));
    r.arithmetic == Arithmetic::fma_f32 ? add_products(a, b, thread_count(p), sums)
                                        : add_blocks(a, b, thread_count(p), sums);
    for (size_t o = 0; o < sums.size(); ++o)
      acc[o] = sums[o] != sums[o] ? 0x7FFFFFFF : bit_cast<uint32_t>(sums[o]);
    return acc;
  }
  const GemmOperand pa = pack(r.unit, Side::a, a), pb = pack(r.unit, Side::b, b);
  if (r.finish == Finish::as_unit && !r.fold_scales) {
    const FormatId out = r.unit.rule.acc == FormatId::f64 ? FormatId::f64 : FormatId::f32;
    (void)GemmPlan(r.unit, {.out = out, .accumulation = r.accumulation, .threads = p.threads, .isa = p.isa})
        .accumulate(pa, pb, acc, start);
    return acc;
  }
#pragma omp parallel for schedule(dynamic, 16) num_threads(thread_count(p))
  for (int64_t o = 0; o < int64_t(acc.size()); ++o) {
    const int64_t i = o / n, j = o % n;
    const uint64_t from = start.empty() ? 0 : start[size_t(o)];
    acc[size_t(o)] = r.fold_scales ? folded_dot(r, pa, pb, i, j, from)
                                   : dot_finished(r.finish, r.unit.rule,
                                                  {pa.row(i), pb.row(j), pa.row_scales(i), pb.row_scales(j)},
                                                  pa.padded_k, from, r.accumulation);
  }
  return acc;
}

/// An accumulator through a narrower type and back.
uint64_t through(FormatId acc, FormatId type, uint64_t word) {
  if (type == FormatId::f32 || acc == FormatId::f64) return word;
  const float x = accumulator_value(acc, word);
  const float y = value_f32(type, round_output(type, x));
  return acc == FormatId::f32 ? bit_cast<uint32_t>(y) : encode(acc, y);
}

uint64_t add(FormatId acc, uint64_t x, uint64_t y) {
  return acc == FormatId::f64 ? bit_cast<uint64_t>(bit_cast<double>(x) + bit_cast<double>(y))
                              : add_accumulators(acc, x, y);
}

/// All parts, joined.
std::vector<uint64_t> accumulate(const Problem &p, const Computation &c, IndexSpan rows, IndexSpan cols) {
  const Reduction &r = c.reduction;
  const int64_t k = c.a->k, n = int64_t(cols.size());
  std::vector<uint64_t> start(r.start_from_c ? rows.size() * cols.size() : 0);
  for (size_t o = 0; o < start.size(); ++o)
    start[o] = c_word(p, c.epilogue, rows[o / size_t(n)], cols[o % size_t(n)]);
  if (!r.split()) return accumulate(p, c, rows, cols, 0, k, start);
  std::vector<std::vector<uint64_t>> parts;
  for (size_t i = 0; i <= r.cuts.size(); ++i) {
    const int64_t first = i == 0 ? 0 : r.cuts[i - 1], last = i == r.cuts.size() ? k : r.cuts[i];
    std::vector<uint64_t> part =
        accumulate(p, c, rows, cols, first, last,
                   i == 0 || r.combine == Combine::carried ? start : std::vector<uint64_t>{});
    if (r.combine == Combine::carried) {
      if (i != r.cuts.size())
        for (uint64_t &w : part) w = through(r.unit.rule.acc, r.partial, w);
      start = part;
      parts.assign(1, std::move(part));
    } else {
      parts.push_back(std::move(part));
    }
  }
  if (r.combine == Combine::carried) return std::move(parts.front());
  std::vector<uint64_t> acc(parts.front().size()), of_one(parts.size());
  for (size_t o = 0; o < acc.size(); ++o) {
    for (size_t i = 0; i < parts.size(); ++i) of_one[i] = parts[i][o];
    acc[o] = join_parts(r, c.epilogue.alpha, of_one);
  }
  return acc;
}

/// The library's epilogue (emulator/gemm/epilogue.hpp), or that of a mistake.
uint64_t finish(const Epilogue &e, FormatId acc_format, uint64_t acc, uint64_t c, const float *factor) {
  if (acc_format == FormatId::f64)
    return finish_output({.alpha = e.alpha, .beta = e.beta, .c = c, .factor = factor}, acc_format, acc);
  const auto rounded = [](FormatId type, float y) { return value_f32(type, round_output(type, y)); };
  float x = accumulator_value(acc_format, acc);
  if (e.round_acc) x = rounded(*e.round_acc, x);
  const float source = bit_cast<float>(uint32_t(c));
  float y = e.unfused && e.beta != 0.0f ? e.alpha * x + e.beta * source : blend(e.alpha, x, e.beta, source);
  y = adjust(y, factor, nullptr);
  const auto truncated = [](FormatId to, float v) {
    return convert(format(to), format(FormatId::f32), bit_cast<uint32_t>(v), Rounding::toward_zero,
                   Overflow::ieee);
  };
  if (e.round_twice)
    y = e.truncate_first ? value_f32(*e.round_twice, truncated(*e.round_twice, y))
                         : rounded(*e.round_twice, y);
  if (e.drop_sign) y = std::fabs(y);
  const Format round = format(e.round);
  const uint64_t code = e.truncate ? truncated(e.round, y) : round_output(e.round, y);
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
std::vector<uint8_t> evaluate_column_major(const Problem &p, Computation c, IndexSpan rows, IndexSpan cols) {
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

std::vector<int64_t> cuts_every(int64_t slice, int64_t k) {
  std::vector<int64_t> cuts;
  for (int64_t at = slice; at < k; at += slice) cuts.push_back(at);
  return cuts;
}

uint64_t join_parts(const Reduction &r, float alpha, std::vector<uint64_t> parts) {
  const FormatId acc = r.unit.rule.acc;
  const auto sum = [&](uint64_t x, uint64_t y) {
    const uint64_t s = add(acc, x, y);
    return r.round_sums ? through(acc, r.partial, s) : s;
  };
  if (r.fused_alpha) {
    float total = 0;
    for (const uint64_t w : parts) total = std::fma(alpha, accumulator_value(acc, w), total);
    return bit_cast<uint32_t>(total);
  }
  for (uint64_t &w : parts) {
    if (r.alpha_on_partials) w = bit_cast<uint32_t>(alpha * accumulator_value(acc, w));
    w = through(acc, r.partial, w);
  }
  if (r.combine == Combine::reversed) std::reverse(parts.begin(), parts.end());
  while (r.combine == Combine::pairwise && parts.size() > 1) {
    for (size_t i = 0; i < parts.size(); i += 2)
      parts[i / 2] = i + 1 < parts.size() ? sum(parts[i], parts[i + 1]) : parts[i];
    parts.resize((parts.size() + 1) / 2);
  }
  for (size_t i = 1; i < parts.size(); ++i) parts[0] = sum(parts[0], parts[i]);
  return parts[0];
}

uint64_t output_word(const Problem &p, const Epilogue &e, FormatId acc_format, uint64_t acc, int64_t i,
                     int64_t j) {
  const uint64_t source = e.beta != 0.0f ? c_word(p, e, i, j) : 0;
  const float *const left = e.row_a.empty() ? nullptr : &e.row_a[size_t(i)], *const right =
                                                                                 e.row_b.empty()
                                                                                     ? nullptr
                                                                                     : &e.row_b[size_t(j)];
  const float factor = left == nullptr && right == nullptr ? 1.0f : joint_factor(left, right);
  return finish(e, acc_format, acc, source, left == nullptr && right == nullptr ? nullptr : &factor);
}

namespace {

/// What a quantized tensor says of itself, without its codes and scales.
std::optional<BlockScaled> without_bytes(const std::optional<BlockScaled> &q) {
  if (!q) return std::nullopt;
  return BlockScaled{q->convention,    q->element,  q->scale,    q->block,       q->block_rows,
                     q->rows,          q->k,        q->padded_k, q->axis,        q->source,
                     q->layout,        {},          {},          q->global_amax, q->global_encode,
                     q->global_decode, q->row_amax, q->hadamard, q->sign_mask};
}

} // namespace

SmallComputation cut_out(const Problem &p, const Computation &c, IndexSpan rows, IndexSpan cols) {
  // not the operands, which may be large
  SmallComputation s{
      {p.unit, p.accumulation, {}, {}, p.alpha, p.beta, p.alpha_rule, {}, p.round, p.word, p.threads, p.isa},
      c};
  s.problem.a.scaled = without_bytes(p.a.scaled);
  s.problem.b.scaled = without_bytes(p.b.scaled);
  s.computation.a = std::make_shared<const RawOperand>(cut(*c.a, rows, 0, c.a->k));
  s.computation.b = std::make_shared<const RawOperand>(cut(*c.b, cols, 0, c.b->k));
  const auto pick = [](std::vector<float> &factors, IndexSpan of) {
    if (factors.empty()) return;
    std::vector<float> some;
    for (const int64_t r : of) some.push_back(factors[size_t(r)]);
    factors = std::move(some);
  };
  pick(s.computation.epilogue.row_a, rows);
  pick(s.computation.epilogue.row_b, cols);
  if (!p.c.empty()) {
    const size_t width = p.unit->rule.acc == FormatId::f64 ? 8 : 4;
    for (const int64_t i : rows)
      for (const int64_t j : cols) {
        const auto at = p.c.begin() + (i * p.n() + j) * int64_t(width);
        s.problem.c.insert(s.problem.c.end(), at, at + int64_t(width));
      }
  }
  s.problem.a.raw = *s.computation.a;
  s.problem.b.raw = *s.computation.b;
  return s;
}

double cost(const Computation &c, int64_t outputs) {
  const Reduction &r = c.reduction;
  const double products = double(outputs) * double(c.a->k), dot_seconds = 4e-9, vector_seconds = 2e-11,
               fma_seconds = 3e-10;
  if (r.arithmetic == Arithmetic::fma_f32) return products * fma_seconds;
  const bool vector = r.finish == Finish::as_unit && !r.fold_scales && !r.start_from_c &&
                      r.combine != Combine::carried && r.unit.rule.acc == FormatId::f32 &&
                      r.arithmetic == Arithmetic::unit;
  return products * (!vector                                  ? dot_seconds
                     : r.unit.rule.family == Family::gst_fdpa ? vector_seconds
                                                              : 10 * vector_seconds);
}

bool fits(const Computation &c) {
  const Reduction &r = c.reduction;
  if (c.a->k != c.b->k) return false;
  if (r.arithmetic == Arithmetic::fma_f32) return true;
  if (r.arithmetic == Arithmetic::block_f32) return c.a->block != 0 && c.a->block == c.b->block;
  return fits(r.unit, Side::a, *c.a) && fits(r.unit, Side::b, *c.b);
}

Computation reference_computation(const Problem &p) {
  Computation c;
  c.a = std::make_shared<const RawOperand>(p.a.raw);
  c.b = std::make_shared<const RawOperand>(p.b.raw);
  c.reduction.unit = *p.unit;
  c.reduction.accumulation = p.accumulation;
  c.epilogue = {.alpha = total_alpha(p), .beta = p.beta, .round = p.round, .word = p.word};
  if (p.a.scaled) c.epilogue.row_a = p.a.scaled->row_amax;
  if (p.b.scaled) c.epilogue.row_b = p.b.scaled->row_amax;
  return c;
}

std::vector<uint8_t> evaluate(const Problem &p, const Computation &c, IndexSpan rows, IndexSpan cols) {
  if (c.epilogue.column_major_d) return evaluate_column_major(p, c, rows, cols);
  const Epilogue &e = c.epilogue;
  const FormatId acc_format = c.reduction.unit.rule.acc;
  const size_t width = size_t(format(e.word).storage_bits / 8);
  const int64_t n = int64_t(cols.size());
  std::vector<uint8_t> words(rows.size() * cols.size() * width);
  Epilogue last = e;
  if (c.reduction.alpha_on_partials && c.reduction.split()) last.alpha = 1.0f;
  constexpr size_t band = 256; // rows at a time bound the memory of accumulators
  for (size_t first = 0; first < rows.size(); first += band) {
    const IndexSpan some = rows.subspan(first, std::min(band, rows.size() - first));
    const std::vector<uint64_t> acc = accumulate(p, c, some, cols);
#pragma omp parallel for num_threads(thread_count(p))
    for (int64_t o = 0; o < int64_t(acc.size()); ++o) {
      store(words, first * cols.size() + size_t(o),
            output_word(p, last, acc_format, acc[size_t(o)], some[size_t(o / n)], cols[size_t(o % n)]),
            width);
    }
  }
  return words;
}

} // namespace nvfp4::diagnosis
