// SPDX-License-Identifier: Apache-2.0
// The GEMM's front: packing, checks, the choice of an engine, and the reference that runs the definition
// output by output.
#include "nvfp4/emulator/gemm/gemm.hpp"

#include "nvfp4/emulator/gemm/engine.hpp"
#include "nvfp4/emulator/gemm/epilogue.hpp"
#include "nvfp4/emulator/gemm/gemm_oracle.hpp"
#include "nvfp4/emulator/tensorcore/execute.hpp"

#include <algorithm>
#include <cstring>
#include <omp.h>

namespace nvfp4 {
namespace {

int64_t round_up(int64_t x, int64_t to) { return (x + to - 1) / to * to; }

/// 1.0 in a scale format.
uint8_t neutral_scale(FormatId scale) { return scale == FormatId::ue8m0 ? 127 : 0x38; }

std::string shape(int64_t rows, int64_t k) {
  return "[" + std::to_string(rows) + ", " + std::to_string(k) + "]";
}

/// Notes which shortcuts each row allows.
void scan(const UnitRule &rule, PackedOperand &p) {
  p.ranges.resize(size_t(p.rows));
#pragma omp parallel for if (p.rows * p.padded_k > (1 << 18))
  for (int64_t r = 0; r < p.rows; ++r) p.ranges[size_t(r)] = row_range(rule, p, r);
}

} // namespace

PackedOperand pack_operand(const Unit &unit, Side side, int64_t rows, int64_t k,
                           std::span<const uint8_t> codes, std::span<const uint8_t> scales) {
  const UnitRule &rule = unit.rule;
  PackedOperand p;
  p.format = side == Side::a ? rule.a : rule.b;
  p.rows = rows;
  p.k = k;
  p.padded_k = round_up(k, rule.k);
  p.scale_block = rule.scale_block;
  const int bits = format(p.format).storage_bits;
  const int64_t in_bytes = (k * bits + 7) / 8;
  const char *name = side == Side::a ? "A" : "B";
  if (rows < 0 || k < 0 || int64_t(codes.size()) != rows * in_bytes)
    throw Error(std::string("operand ") + name + ": " + shape(rows, k) + " " + format(p.format).name +
                " codes take " + std::to_string(rows * in_bytes) + " bytes, got " +
                std::to_string(codes.size()));
  p.codes.assign(size_t(rows * p.row_bytes()), 0);
  for (int64_t r = 0; r < rows; ++r) {
    uint8_t *out = p.codes.data() + r * p.row_bytes();
    if (in_bytes > 0) std::memcpy(out, codes.data() + r * in_bytes, size_t(in_bytes));
    if (bits == 4 && k % 2 != 0) out[in_bytes - 1] &= 0x0F;
  }
  if (rule.scale_block == 0) {
    if (!scales.empty())
      throw Error("unit " + unit.name() + " takes no scales, operand " + name + " has some");
    scan(rule, p);
    return p;
  }
  const int64_t in_blocks = (k + rule.scale_block - 1) / rule.scale_block;
  if (int64_t(scales.size()) != rows * in_blocks)
    throw Error(std::string("operand ") + name + ": unit " + unit.name() + " needs " +
                shape(rows, in_blocks) + " scales, got " + std::to_string(scales.size()) + " bytes");
  const int64_t out_blocks = p.padded_k / rule.scale_block;
  p.scales.assign(size_t(rows * out_blocks), neutral_scale(rule.scale));
  for (int64_t r = 0; r < rows; ++r)
    std::copy_n(scales.begin() + r * in_blocks, in_blocks, p.scales.begin() + r * out_blocks);
  scan(rule, p);
  return p;
}

float GemmResult::f32(int64_t i, int64_t j) const {
  const int bits = nvfp4::format(format).storage_bits;
  return float(value(format, CodeView{words.data(), bits}[i * n + j]));
}

GemmPlan::GemmPlan(const Unit &unit, const GemmOptions &options) : unit_(&unit), options_(options) {
  const bool f64 = unit.rule.acc == FormatId::f64;
  const FormatId out = options.out;
  const bool fits =
      f64 ? out == FormatId::f64 : out == FormatId::f32 || out == FormatId::bf16 || out == FormatId::f16;
  if (!fits)
    throw Error("unit " + unit.name() + " cannot write " + format(out).name + " output; choose " +
                (f64 ? "f64" : "f32, bf16 or f16"));
}

namespace {

/// Throws Error unless the operands belong to the unit and to each other.
void check_operands(const Unit &unit, const PackedOperand &a, const PackedOperand &b) {
  const UnitRule &rule = unit.rule;
  if (a.format != rule.a || b.format != rule.b || a.scale_block != rule.scale_block ||
      b.scale_block != rule.scale_block)
    throw Error("operands were not packed for unit " + unit.name());
  if (a.k != b.k)
    throw Error("A has K = " + std::to_string(a.k) + ", B has K = " + std::to_string(b.k) +
                "; they must be equal");
}

/// The definition, output by output: emit(o, accumulator word).
template <class Emit> void run_reference(const gemm::Job &job, bool oracle, Emit emit) {
  const int64_t n = job.b->rows, outputs = job.rows * n;
  constexpr int64_t tile = 256; // outputs a thread takes at a time
  const int64_t tiles = (outputs + tile - 1) / tile;
  gemm::Progress progress(job.progress, tiles);
#pragma omp parallel for schedule(dynamic) num_threads(job.threads)
  for (int64_t t = 0; t < tiles; ++t) {
    for (int64_t o = t * tile; o < std::min(outputs, (t + 1) * tile); ++o) {
      const int64_t i = job.first + o / n, j = o % n;
      const DotOperands op{job.a->row(i), job.b->row(j), job.a->row_scales(i), job.b->row_scales(j)};
      emit(o, oracle ? oracle_dot(*job.rule, op, job.a->padded_k, job.accumulation)
                     : dot(*job.rule, op, job.a->padded_k, 0, job.accumulation));
    }
    progress.finished(omp_get_thread_num());
  }
}

/// Whether a vector engine took the job.
bool run_engine(gemm::Job job, bool oracle, gemm::Sink sink) {
  const Isa isa = choose_isa(); // a wrong NVFP4_ISA is an error for every unit
  if (oracle || isa == Isa::scalar || job.rows == 0 || job.b->rows == 0) return false;
  for (const PackedOperand *p : {job.a, job.b}) // an operand that pack_operand() did not make
    if (int64_t(p->ranges.size()) != p->rows) return false;
  // a thread should have at least four million multiply-adds, some tens of microseconds
  const double work = double(job.rows) * double(job.b->rows) * double(job.a->k);
  job.threads = int(std::clamp(work / double(1 << 22), 1.0, double(job.threads)));
  return gemm::run_fp4(job, isa, sink) || gemm::run_fdpa(job, isa, sink);
}

int thread_count(const GemmOptions &options) {
  return options.threads > 0 ? options.threads : omp_get_max_threads();
}

} // namespace

void GemmPlan::accumulate(const PackedOperand &a, const PackedOperand &b, std::span<uint64_t> acc,
                          void (*progress)(double)) const {
  check_operands(*unit_, a, b);
  if (int64_t(acc.size()) != a.rows * b.rows) throw Error("accumulator has the wrong size");
  const gemm::Job job{&unit_->rule, options_.accumulation, &a, &b, thread_count(options_), progress, 0,
                      a.rows};
  struct Target {
    uint64_t *acc;
    int64_t n;
  } const target{acc.data(), b.rows};
  const auto store = [](const void *context, int64_t i, int64_t j, int64_t rows, int64_t cols,
                        const uint32_t *words, int64_t stride) {
    const Target &to = *static_cast<const Target *>(context);
    for (int64_t r = 0; r < rows; ++r) std::copy_n(words + r * stride, cols, to.acc + (i + r) * to.n + j);
  };
  if (run_engine(job, options_.oracle, {store, &target})) return;
  run_reference(job, options_.oracle, [&](int64_t o, uint64_t word) { acc[size_t(o)] = word; });
}

void GemmPlan::accumulate_rows(const PackedOperand &a, const PackedOperand &b, int64_t first, int64_t rows,
                               AccumulatorSink sink) const {
  check_operands(*unit_, a, b);
  if (unit_->rule.acc != FormatId::f32)
    throw Error("unit " + unit_->name() + " does not accumulate in FP32 words");
  if (first < 0 || rows < 0 || first + rows > a.rows) throw Error("A does not have these rows");
  const gemm::Job job{&unit_->rule, options_.accumulation, &a, &b, thread_count(options_), nullptr, first,
                      rows};
  if (run_engine(job, options_.oracle, sink)) return;
  run_reference(job, options_.oracle, [&](int64_t o, uint64_t word) {
    const uint32_t accumulator = uint32_t(word);
    sink.store(sink.context, first + o / b.rows, o % b.rows, 1, 1, &accumulator, 1);
  });
}

GemmResult GemmPlan::run(const PackedOperand &a, const PackedOperand &b, std::span<const uint8_t> c,
                         void (*progress)(double)) const {
  check_operands(*unit_, a, b);
  const size_t outputs = size_t(a.rows * b.rows), width = size_t(format(options_.out).storage_bits / 8);
  const FormatId acc_format = unit_->rule.acc;
  const FormatId c_format = acc_format == FormatId::f64 ? FormatId::f64 : FormatId::f32;
  const size_t c_width = c_format == FormatId::f64 ? 8 : 4;
  if (options_.beta != 0.0f && c.size() != outputs * c_width)
    throw Error("C must be " + shape(a.rows, b.rows) + " " + format(c_format).name + " when beta is not 0");
  GemmResult d{options_.out, a.rows, b.rows, std::vector<uint8_t>(outputs * width)};

  const gemm::Job job{&unit_->rule, options_.accumulation, &a, &b, thread_count(options_), progress, 0,
                      a.rows};
  struct Target {
    const GemmOptions *options;
    const uint8_t *c;
    uint8_t *words;
    int64_t n;
    size_t width;
  } const target{&options_, c.data(), d.words.data(), b.rows, width};
  const auto store = [](const void *context, int64_t i, int64_t j, int64_t rows, int64_t cols,
                        const uint32_t *words, int64_t stride) {
    const Target &to = *static_cast<const Target *>(context);
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t o = (i + r) * to.n + j;
      const uint8_t *source = to.options->beta != 0.0f ? to.c + 4 * o : nullptr;
      gemm::epilogue_row(words + r * stride, cols, *to.options, source, to.words + size_t(o) * to.width);
    }
  };
  if (run_engine(job, options_.oracle, {store, &target})) return d;
  const CodeView c_view{c.data(), int(c_width) * 8};
  run_reference(job, options_.oracle, [&](int64_t o, uint64_t acc) {
    const double source = options_.beta != 0.0f ? value(c_format, c_view[o]) : 0.0;
    const uint64_t word = epilogue(acc_format, acc, options_, source);
    std::memcpy(d.words.data() + size_t(o) * width, &word, width);
  });
  return d;
}

} // namespace nvfp4
