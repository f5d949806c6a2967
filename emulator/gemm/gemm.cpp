// SPDX-License-Identifier: Apache-2.0
// The product's front: what must fit, the choice of an engine, the definition output by output, and the
// epilogue over what the engines deliver.
#include "nvfp4/emulator/gemm/gemm.hpp"

#include "nvfp4/emulator/cpu/choose_isa.hpp"
#include "nvfp4/emulator/gemm/alpha_grid.hpp"
#include "nvfp4/emulator/gemm/engine.hpp"
#include "nvfp4/emulator/gemm/epilogue_row.hpp"
#include "nvfp4/emulator/gemm/gemm_oracle.hpp"
#include "nvfp4/emulator/tensorcore/execute.hpp"

#include <algorithm>
#include <cstring>
#include <omp.h>

namespace nvfp4 {
namespace {

/// The definition, output by output: emit(i, j, accumulator word).
template <class Emit> void run_reference(const gemm::Job &job, bool oracle, Emit emit) {
  const int64_t outputs = job.rows * job.cols;
  constexpr int64_t tile = 256; // outputs a thread takes at a time
  const int64_t tiles = (outputs + tile - 1) / tile;
  LoopProgress progress(job.progress, tiles);
#pragma omp parallel for schedule(dynamic) num_threads(job.threads)
  for (int64_t t = 0; t < tiles; ++t) {
    if (progress.stopped()) continue;
    for (int64_t o = t * tile; o < std::min(outputs, (t + 1) * tile); ++o) {
      const int64_t i = job.first + o / job.cols, j = job.first_col + o % job.cols;
      const DotOperands op{job.a->row(i), job.b->row(j), job.a->row_scales(i), job.b->row_scales(j)};
      const uint64_t start = job.start_word(i, j);
      emit(i, j,
           oracle ? oracle_dot(*job.rule, op, job.a->padded_k, job.accumulation, start)
                  : dot(*job.rule, op, job.a->padded_k, start, job.accumulation));
    }
    progress.finished(omp_get_thread_num());
  }
  progress.finish();
}

/// Runs a job on the best engine; `sink` takes tiles of FP32 words, `emit` single words.
template <class Emit>
GemmReport run_job(gemm::Job job, const GemmOptions &options, gemm::Sink sink, Emit emit) {
  const Isa isa = choose_isa(options.isa); // one that the CPU lacks is an error for every unit
  const int64_t outputs = job.rows * job.cols;
  if (!options.oracle && isa != Isa::scalar && outputs != 0) {
    std::atomic<int64_t> by_definition{0};
    gemm::Job cut = job;
    cut.by_definition = &by_definition;
    // a thread should have at least four million multiply-adds, some tens of microseconds
    const double work = double(job.rows) * double(job.cols) * double(job.a->k);
    cut.threads = int(std::clamp(work / double(1 << 22), 1.0, double(job.threads)));
    if (gemm::run_fp4(cut, isa, sink)) return {GemmEngine::fp4_vector, isa, by_definition};
    if (gemm::run_fdpa(cut, isa, sink)) return {GemmEngine::fdpa_vector, isa, by_definition};
    if (gemm::run_exact(cut, sink)) return {GemmEngine::exact_vector, isa, by_definition};
  }
  run_reference(job, options.oracle, emit);
  if (options.oracle) return {GemmEngine::oracle, Isa::scalar, 0};
  return {GemmEngine::definition, Isa::scalar, outputs};
}

int thread_count(const GemmOptions &options) {
  return options.threads > 0 ? options.threads : omp_get_max_threads();
}

/// A catalogue's unit as it is, a copy of any other.
std::shared_ptr<const Unit> hold(const Unit &unit) {
  const std::span<const Unit> rows = catalogue();
  const bool lasts = !std::less<>()(&unit, rows.data()) && std::less<>()(&unit, rows.data() + rows.size());
  return lasts ? std::shared_ptr<const Unit>(std::shared_ptr<void>(), &unit)
               : std::make_shared<const Unit>(unit);
}

/// Words to start from; no data: from +0.
CodeView words_of(std::span<const std::byte> words, int bits) {
  return {words.empty() ? nullptr : reinterpret_cast<const uint8_t *>(words.data()), bits};
}

FormatId c_format(const UnitRule &rule) { return rule.acc == FormatId::f64 ? FormatId::f64 : FormatId::f32; }

/// Throws Error unless the inputs fit an output of (m, n).
void check_inputs(const Unit &unit, const GemmOptions &o, const GemmInputs &in, const GemmOperand &a,
                  const GemmOperand &b, int64_t m, int64_t n) {
  const auto bytes = [&](const char *name, size_t got, FormatId id) {
    if (got != size_t(m * n) * size_t(format(id).storage_bits / 8))
      throw Error(std::string(name) + " must be " + gemm::shape_text(m, n) + " " + format(id).name + ", " +
                  std::to_string(m * n * format(id).storage_bits / 8) + " bytes, got " + std::to_string(got));
  };
  const auto vector = [](const char *name, size_t got, int64_t want) {
    if (got != 0 && got != size_t(want))
      throw Error(std::string(name) + " must have " + std::to_string(want) + " values, got " +
                  std::to_string(got));
  };
  if (!in.start.empty()) bytes("the accumulators that chains start from", in.start.size(), unit.rule.acc);
  if (o.beta != 0.0f) bytes("C, which beta multiplies,", in.c.size(), c_format(unit.rule));
  vector("bias", in.bias.size(), n);
  vector("row factors", in.row_factors.size(), m);
  vector("column factors", in.column_factors.size(), n);
  const bool by_row = !a.row_factors.empty() || !b.row_factors.empty();
  const bool given = !in.row_factors.empty() || !in.column_factors.empty();
  if (o.beta != 0.0f && (by_row || given))
    throw Error(
        "beta has no meaning with " +
        std::string(by_row ? "row-scaled operands, whose scales are" : "row or column factors, which are") +
        " applied after the GEMM");
  if (by_row && given)
    throw Error("row and column factors do not go with row-scaled operands, which bring their own");
  if (!o.groups.empty() && !b.row_factors.empty())
    throw Error("a grouped product does not take a B with a global scale per row");
}

/// Rows of A and of B that each group multiplies.
struct Group {
  int64_t first, rows, first_col, cols;
};

std::vector<Group> groups_of(const std::vector<int64_t> &rows, const GemmOperand &a, const GemmOperand &b) {
  if (rows.empty()) return {{0, a.rows, 0, b.rows}};
  const auto count = int64_t(rows.size());
  if (b.rows % count != 0)
    throw Error("B has " + std::to_string(b.rows) + " rows, which " + std::to_string(count) +
                " groups do not divide evenly");
  std::vector<Group> groups;
  int64_t first = 0;
  for (const int64_t n : rows) {
    if (n < 0) throw Error("a group has " + std::to_string(n) + " rows");
    groups.push_back({first, n, int64_t(groups.size()) * (b.rows / count), b.rows / count});
    first += n;
  }
  if (first != a.rows)
    throw Error("the groups have " + std::to_string(first) + " rows, A has " + std::to_string(a.rows));
  return groups;
}

/// The epilogue of one group: where its outputs go and what they meet.
struct Target {
  const GemmOptions *options;
  const GemmInputs *in;
  const float *row_factors, *column_factors; ///< null: none
  const AlphaGrid *alphas;
  FormatId acc;
  int64_t first_col, n;
  uint8_t *words;
  size_t width;

  /// Whether outputs meet alpha alone, the same for all.
  [[nodiscard]] bool plain() const {
    return alphas->single() && options->beta == 0.0f && row_factors == nullptr && column_factors == nullptr &&
           in->bias.empty();
  }

  static void store(const void *context, int64_t i, int64_t j, int64_t rows, int64_t cols,
                    const uint32_t *words, int64_t stride) {
    const Target &t = *static_cast<const Target *>(context);
    if (t.plain()) {
      const gemm::RowTerms terms{.out = t.options->out, .alpha = t.alphas->at(i, j).alpha};
      uint8_t *to = t.words + size_t(i * t.n + j - t.first_col) * t.width;
      for (int64_t r = 0; r < rows; ++r, to += size_t(t.n) * t.width)
        gemm::epilogue_row(words + r * stride, cols, terms, to);
      return;
    }
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < cols;) {
        const auto [alpha, end] = t.alphas->at(i + r, j + c);
        const int64_t n = std::min(cols, end - j) - c, column = j + c - t.first_col,
                      o = (i + r) * t.n + column;
        const gemm::RowTerms terms{t.options->out,
                                   alpha,
                                   t.options->beta,
                                   t.options->beta != 0.0f ? t.in->c.data() + 4 * o : nullptr,
                                   t.row_factors == nullptr ? nullptr : t.row_factors + i + r,
                                   t.column_factors == nullptr ? nullptr : t.column_factors + column,
                                   t.in->bias.empty() ? nullptr : t.in->bias.data() + column};
        gemm::epilogue_row(words + r * stride + c, n, terms, t.words + size_t(o) * t.width);
        c += n;
      }
  }

  void finish(int64_t i, int64_t j, uint64_t acc_word) const {
    const int64_t column = j - first_col, o = i * n + column;
    OutputTerms terms{.out = options->out, .alpha = alphas->at(i, j).alpha, .beta = options->beta};
    if (terms.beta != 0.0f) terms.c = CodeView{in->c.data(), acc == FormatId::f64 ? 64 : 32}[o];
    float factor = 1.0f;
    if (row_factors != nullptr || column_factors != nullptr) {
      factor = joint_factor(row_factors == nullptr ? nullptr : row_factors + i,
                            column_factors == nullptr ? nullptr : column_factors + column);
      terms.factor = &factor;
    }
    if (!in->bias.empty()) terms.bias = in->bias.data() + column;
    const uint64_t word = finish_output(terms, acc, acc_word);
    std::memcpy(words + size_t(o) * width, &word, width);
  }
};

} // namespace

float GemmResult::f32(int64_t i, int64_t j) const {
  const int bits = nvfp4::format(format).storage_bits;
  return float(value(format, CodeView{words.data(), bits}[i * n + j]));
}

GemmPlan::GemmPlan(const Unit &unit, GemmOptions options) : unit_(hold(unit)), options_(std::move(options)) {
  const bool f64 = unit.rule.acc == FormatId::f64;
  const FormatId out = options_.out;
  const bool fits =
      f64 ? out == FormatId::f64 : out == FormatId::f32 || out == FormatId::bf16 || out == FormatId::f16;
  if (!fits)
    throw Error("unit " + unit.name() + " cannot write " + format(out).name + " output; choose " +
                (f64 ? "f64" : "f32, bf16 or f16"));
}

GemmReport GemmPlan::accumulate(const GemmOperand &a, const GemmOperand &b, std::span<uint64_t> acc,
                                std::span<const uint64_t> start) const {
  check_operands(*unit_, a, b);
  if (!options_.groups.empty()) throw Error("accumulators of a grouped product: use run()");
  if (int64_t(acc.size()) != a.rows * b.rows || (!start.empty() && start.size() != acc.size()))
    throw Error("accumulators must be " + gemm::shape_text(a.rows, b.rows) + ", got " + std::to_string(acc.size()) +
                (start.empty() ? "" : " and as start " + std::to_string(start.size())));
  const gemm::Job job{&unit_->rule,
                      options_.accumulation,
                      &a,
                      &b,
                      thread_count(options_),
                      &options_.progress,
                      0,
                      a.rows,
                      0,
                      b.rows,
                      words_of(std::as_bytes(start), 64)};
  struct Words {
    uint64_t *acc;
    int64_t n;
  } const to{acc.data(), b.rows};
  const auto store = [](const void *context, int64_t i, int64_t j, int64_t rows, int64_t cols,
                        const uint32_t *words, int64_t stride) {
    const Words &w = *static_cast<const Words *>(context);
    for (int64_t r = 0; r < rows; ++r) std::copy_n(words + r * stride, cols, w.acc + (i + r) * w.n + j);
  };
  return run_job(job, options_, {store, &to},
                 [&](int64_t i, int64_t j, uint64_t word) { acc[size_t(i * b.rows + j)] = word; });
}

GemmReport GemmPlan::accumulate_rows(const GemmOperand &a, const GemmOperand &b, int64_t first, int64_t rows,
                                     AccumulatorSink sink) const {
  check_operands(*unit_, a, b);
  if (unit_->rule.acc != FormatId::f32)
    throw Error("unit " + unit_->name() + " does not accumulate in FP32 words");
  if (first < 0 || rows < 0 || first + rows > a.rows) throw Error("A does not have these rows");
  const gemm::Job job{
      &unit_->rule, options_.accumulation, &a, &b, thread_count(options_), nullptr, first, rows, 0, b.rows};
  return run_job(job, options_, sink, [&](int64_t i, int64_t j, uint64_t word) {
    const uint32_t accumulator = uint32_t(word);
    sink.store(sink.context, i, j, 1, 1, &accumulator, 1);
  });
}

void GemmPlan::check(const GemmOperand &a, const GemmOperand &b, const GemmInputs &in) const {
  check_operands(*unit_, a, b);
  check_inputs(*unit_, options_, in, a, b, a.rows, groups_of(options_.groups, a, b).front().cols);
  (void)AlphaGrid(a, b, options_.alpha, options_.alpha_rule);
}

GemmResult GemmPlan::run(const GemmOperand &a, const GemmOperand &b, const GemmInputs &in) const {
  check_operands(*unit_, a, b);
  const std::vector<Group> groups = groups_of(options_.groups, a, b);
  const int64_t n = groups.front().cols;
  check_inputs(*unit_, options_, in, a, b, a.rows, n);
  const size_t width = size_t(format(options_.out).storage_bits / 8);
  GemmResult d{options_.out, a.rows, n, std::vector<uint8_t>(size_t(a.rows * n) * width), {}};
  const AlphaGrid alphas(a, b, options_.alpha, options_.alpha_rule);
  const auto factors = [](std::span<const float> given, const std::vector<float> &own) {
    return !given.empty() ? given.data() : !own.empty() ? own.data() : nullptr;
  };
  int64_t by_definition = 0, done = 0;
  for (const Group &g : groups) {
    const Target target{&options_,
                        &in,
                        factors(in.row_factors, a.row_factors),
                        factors(in.column_factors, b.row_factors),
                        &alphas,
                        unit_->rule.acc,
                        g.first_col,
                        n,
                        d.words.data(),
                        width};
    const std::function<void(double)> progress = [&](double f) {
      options_.progress((double(done) + f * double(g.rows)) / double(a.rows));
    };
    const gemm::Job job{&unit_->rule,
                        options_.accumulation,
                        &a,
                        &b,
                        thread_count(options_),
                        options_.progress ? &progress : nullptr,
                        g.first,
                        g.rows,
                        g.first_col,
                        g.cols,
                        words_of(std::as_bytes(in.start), format(unit_->rule.acc).storage_bits)};
    const GemmReport report = run_job(job, options_, {Target::store, &target},
                                      [&](int64_t i, int64_t j, uint64_t acc) { target.finish(i, j, acc); });
    by_definition += report.by_definition;
    done += g.rows;
    if (g.rows != 0) d.report = report; // a group without rows has no engine
  }
  d.report.by_definition = by_definition;
  return d;
}

} // namespace nvfp4
