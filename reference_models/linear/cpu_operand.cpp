// SPDX-License-Identifier: Apache-2.0
// Filling operands: rounding to the source type, quantization, packing for the GEMM, hot-channel segments.
#include "nvfp4/reference_models/linear/cpu_operand.hpp"

#include "nvfp4/emulator/cpu/multiversion.hpp"
#include "nvfp4/emulator/quantize/dequantize.hpp"
#include "nvfp4/emulator/quantize/global_alpha.hpp"
#include "nvfp4/reference_models/kernels/elementwise.hpp"
#include "nvfp4/reference_models/linear/random_key.hpp"
#include "nvfp4/reference_models/linear/scale_correction.hpp"

#include <algorithm>
#include <array>
#include <cstring>

namespace nvfp4::models::cpu {
namespace {

int64_t round_up(int64_t x, int64_t to) { return (x + to - 1) / to * to; }

NVFP4_MULTIVERSION void round_all(const float *x, int64_t n, float *y) {
  for (int64_t i = 0; i < n; ++i) y[i] = round_to_bf16(x[i]);
}

NVFP4_MULTIVERSION void round_row(const float *x, int64_t n, uint16_t *words) {
  for (int64_t i = 0; i < n; ++i) words[i] = bf16_word(x[i]);
}

/// BF16 words of x (rows, cols), or of its transpose.
void pack_bf16(CpuOperand &out, const UnitRule &unit, const float *x, int64_t rows, int64_t cols, Axis axis) {
  GemmOperand &p = out.packed;
  const bool transposed = axis == Axis::col;
  p.reshape(unit, Side::a, transposed ? cols : rows, transposed ? rows : cols);
  p.axis = axis;
  auto *const words = reinterpret_cast<uint16_t *>(p.codes.data());
  if (!transposed) {
    for (int64_t r = 0; r < rows; ++r) round_row(x + r * cols, cols, words + r * p.padded_k);
  } else {
    constexpr int64_t side = 32;
    alignas(64) uint16_t tile[side][side];
    for (int64_t r = 0; r < rows; r += side)
      for (int64_t c = 0; c < cols; c += side) {
        const int64_t height = std::min(side, rows - r), width = std::min(side, cols - c);
        for (int64_t i = 0; i < height; ++i) round_row(x + (r + i) * cols + c, width, tile[i]);
        for (int64_t j = 0; j < width; ++j)
          for (int64_t i = 0; i < height; ++i) words[(c + j) * p.padded_k + r + i] = tile[i][j];
      }
  }
  p.seal(unit, 1);
}

/// Copies the codes and scales of q to column `column` of p.
void copy_columns(const BlockScaled &q, GemmOperand &p, int64_t column) {
  const int64_t bits = format(p.format).storage_bits, blocks = p.padded_k / p.scale_block;
  for (int64_t r = 0; r < q.rows; ++r) {
    std::memcpy(p.codes.data() + r * p.row_bytes() + column * bits / 8, q.codes.data() + r * q.row_bytes(),
                size_t(q.row_bytes()));
    std::memcpy(p.scales.data() + r * blocks + column / p.scale_block, q.scales.data() + r * q.scale_cols(),
                size_t(q.scale_cols()));
  }
}

/// Reads values of a block-scaled operand: tables of what codes and scales stand for.
class Reader {
public:
  explicit Reader(const CpuOperand &o)
      : packed_(o.packed),
        rule_(find_convention(o.quantized.convention).rule), global_{o.quantized.global_amax,
                                                                     o.quantized.global_encode,
                                                                     o.quantized.global_decode} {
    const Values &v = values(rule_.scale);
    for (size_t s = 0; s < factors_.size(); ++s) factors_[s] = decode_values(rule_, 1.0f, v[s], global_);
  }
  [[nodiscard]] float operator()(const uint8_t *codes, const uint8_t *scales, int64_t c) const {
    const float v = elements_[size_t(codes[c / 2] >> (4 * (c % 2)) & 15)];
    const uint8_t scale = scales[c / 16];
    // 1 times a factor is the factor, unless the rule multiplies in another order
    if (rule_.decoding == Decoding::amax_divide || rule_.decoding == Decoding::value_decode)
      return decode_values(rule_, v, values(rule_.scale)[scale], global_);
    return v * factors_[scale];
  }
  [[nodiscard]] const uint8_t *codes(int64_t r) const {
    return packed_.codes.data() + r * packed_.row_bytes();
  }
  [[nodiscard]] const uint8_t *scales(int64_t r) const { return packed_.row_scales(r); }

private:
  using Values = std::array<float, 256>;
  static const Values &values(FormatId id) {
    const auto table = [](FormatId f) {
      Values t{};
      for (size_t c = 0; c < t.size(); ++c) t[c] = value_f32(f, c);
      return t;
    };
    static const Values e2m1 = table(FormatId::e2m1), ue4m3 = table(FormatId::ue4m3);
    return id == FormatId::e2m1 ? e2m1 : ue4m3;
  }
  const GemmOperand &packed_;
  const Rule &rule_;
  GlobalScale global_;
  const Values &elements_ = values(FormatId::e2m1);
  Values factors_{};
};

/// (rows, count) values of a segment.
void gather(const PatchTask &task, const CpuOperand &main, Segment segment, std::vector<float> &out) {
  const int64_t rows = main.packed.rows;
  const Reader read(main);
  const int64_t x_row = task.axis == Axis::row ? main.quantized.k : 1,
                x_col = task.axis == Axis::row ? 1 : rows;
  const bool rounds = task.source == FormatId::bf16;
  out.resize(size_t(rows * task.count));
  for (int64_t r = 0; r < rows; ++r) {
    const uint8_t *const codes = read.codes(r), *const scales = read.scales(r);
    float *const to = out.data() + r * task.count;
    for (int64_t i = 0; i < task.count; ++i) to[i] = read(codes, scales, task.channels[i]);
    if (segment == Segment::value) continue;
    for (int64_t i = 0; i < task.count; ++i) {
      const float x = task.x[r * x_row + task.channels[i] * x_col];
      to[i] = (rounds ? round_to_bf16(x) : x) - to[i];
    }
  }
}

/// Codes and scales of whole blocks, side by side.
void copy_blocks(const PatchTask &task, const GemmOperand &main, GemmOperand &p, int64_t column) {
  const int64_t blocks = p.padded_k / 16;
  for (int64_t r = 0; r < p.rows; ++r)
    for (int64_t i = 0; i < task.count; i += 16) {
      const int64_t from = task.channels[i];
      std::memcpy(p.codes.data() + r * p.row_bytes() + (column + i) / 2,
                  main.codes.data() + r * main.row_bytes() + from / 2, 8);
      p.scales[size_t(r * blocks + (column + i) / 16)] = main.row_scales(r)[from / 16];
    }
}

} // namespace

const float *rounded(FormatId source, const float *x, int64_t n, Workspace &workspace) {
  if (source != FormatId::bf16) return x;
  std::vector<float> &copy = workspace.rounded;
  if (workspace.rounded_from == x) return copy.data();
  if (int64_t(copy.size()) < n) copy.resize(size_t(n));
  round_all(x, n, copy.data());
  workspace.rounded_from = x;
  return copy.data();
}

void read_values(const CpuOperand &q, int64_t width, std::vector<float> &out) {
  const Reader read(q);
  out.resize(size_t(q.packed.rows * width));
  for (int64_t r = 0; r < q.packed.rows; ++r)
    for (int64_t c = 0; c < width; ++c) out[size_t(r * width + c)] = read(read.codes(r), read.scales(r), c);
}

namespace {

/// The mean over rows of each column: sums as of bias gradients, over the number of rows.
std::vector<float> column_means(const float *x, int64_t rows, int64_t cols) {
  std::vector<float> sums(size_t(cols), 0.0f);
  const AccumulateColumns<float> sum{rows, cols, x, sums.data()};
  for (int64_t i = 0; i < sum.teams(); ++i) sum(CpuTeam<Baseline, float>{}, i);
  for (float &s : sums) s = s / float(rows);
  return sums;
}

/// x less its means, each one FP32 operation.
std::vector<float> less_means(const float *x, int64_t rows, const std::vector<float> &means) {
  const size_t cols = means.size();
  std::vector<float> centred(size_t(rows) * cols);
  for (size_t i = 0; i < centred.size(); ++i) centred[i] = x[i] - means[i % cols];
  return centred;
}

/// The operand of a task whose tensor has the one row `of` in each of its rows: its codes and scales, again and again.
void repeat(const BlockScaled &of, const QuantizeTask &task, BlockScaled &q) {
  const bool along = task.axis == Axis::row;
  q.convention = of.convention;
  q.element = of.element;
  q.scale = of.scale;
  q.block = of.block;
  q.block_rows = 1;
  q.rows = along ? task.rows : task.cols;
  q.k = along ? task.cols : task.rows;
  q.padded_k = round_up(q.k, q.block);
  q.axis = task.axis;
  q.source = of.source;
  q.layout = ScaleLayout::linear;
  q.global_amax = of.global_amax;
  q.global_encode = of.global_encode;
  q.global_decode = of.global_decode;
  q.row_amax.clear();
  q.hadamard = false;
  q.codes.assign(size_t(q.rows * q.row_bytes()), 0);
  q.scales.resize(size_t(q.rows * q.scale_cols()));
  for (int64_t r = 0; r < q.rows; ++r) {
    uint8_t *const codes = q.codes.data() + r * q.row_bytes(), *const scales = q.scales.data() + r * q.scale_cols();
    if (along) {
      std::copy(of.codes.begin(), of.codes.end(), codes);
      std::copy(of.scales.begin(), of.scales.end(), scales);
      continue;
    }
    const uint8_t code = of.code(0, r); // of 4 bits, two to a byte
    std::fill_n(codes, q.k / 2, uint8_t(code * 0x11));
    if (q.k % 2 != 0) codes[q.k / 2] = code;
    std::fill_n(scales, q.scale_cols(), uint8_t(of.scale_code(0, r / of.block)));
  }
}

} // namespace

void quantize_blocks(BlockScaled &q, const QuantizeTask &task, Workspace &workspace, int threads) {
  const OperandRecipe &recipe = *task.recipe;
  const Convention &convention = find_convention(recipe.convention);
  const float *const x = rounded(task.source, task.x, task.rows * task.cols, workspace);
  if (task.part == OperandPart::whole) return quantize_values(q, x, task, convention, workspace, threads);
  const std::vector<float> means = column_means(x, task.rows, task.cols);
  if (task.part == OperandPart::residual)
    return quantize_values(q, less_means(x, task.rows, means).data(), task, convention, workspace, threads);
  QuantizeOptions options = task.options();
  options.axis = Axis::row;
  options.key = key_of_mean(task.key);
  options.threads = threads;
  options.isa = workspace.isa;
  quantize_into(workspace.first, {means.data(), 1, task.cols}, convention, options);
  repeat(workspace.first, task, q);
}

Rotated simulated_values(const QuantizeTask &task, Workspace &workspace, int threads) {
  // a copy that another product made lies along rows: fprop's, or dgrad's of dy
  const OperandRecipe own = *task.recipe;
  OperandRecipe made = own;
  QuantizeTask of = task;
  of.recipe = &made;
  if (own.decoded) {
    made.decoded = false;
    made.convention = own.first_convention;
    made.block_rows = own.first_block_rows;
    made.rounding = own.first_rounding;
    made.mean = own.first_mean;
    of.axis = Axis::row;
  }
  const float *x = rounded(task.source, task.x, task.rows * task.cols, workspace);
  std::vector<float> means, centred;
  if (made.mean == MeanSplit::kept) {
    means = column_means(x, task.rows, task.cols);
    centred = less_means(x, task.rows, means);
    x = centred.data();
  }
  BlockScaled &q = workspace.first;
  quantize_values(q, x, of, find_convention(made.convention), workspace, threads);
  // in the tensor's orientation
  Rotated y{of.axis == Axis::row ? q.rows : q.k, of.axis == Axis::row ? q.k : q.rows,
            dequantize(q, {.undo_hadamard = false, .threads = threads})};
  for (size_t i = 0; !means.empty() && i < y.values.size(); ++i) y.values[i] = y.values[i] + means[i % means.size()];
  return y;
}

void quantize_values(BlockScaled &q, const float *x, const QuantizeTask &task, const Convention &convention, Workspace &workspace,
                     int threads) {
  const OperandRecipe &recipe = *task.recipe;
  if (recipe.decoded) {
    quantize_into(workspace.first, {x, task.rows, task.cols}, find_convention(recipe.first_convention),
                  {.block_rows = recipe.first_block_rows, .source = task.source, .threads = threads, .isa = workspace.isa});
    workspace.decoded = dequantize(workspace.first, {.threads = threads});
    if (task.source == FormatId::bf16)
      round_all(workspace.decoded.data(), int64_t(workspace.decoded.size()), workspace.decoded.data());
    x = workspace.decoded.data();
  }
  int64_t rows = task.rows, cols = task.cols;
  QuantizeOptions options = task.options();
  options.threads = threads;
  options.isa = workspace.isa;
  Rotated turned;
  if (recipe.hadamard && recipe.hadamard_size != kHadamardSize) {
    turned = rotated(x, task.rows, task.cols, task.axis, recipe.hadamard_size, task.signs);
    x = turned.values.data();
    rows = turned.rows;
    cols = turned.cols;
    options.hadamard = false;
  } else if (recipe.hadamard && task.axis == Axis::col && rows % kHadamardSize != 0) {
    rows = round_up(rows, kHadamardSize);
    std::vector<float> &copy = recipe.decoded ? workspace.decoded : workspace.rounded;
    if (x == task.x) {
      copy.assign(x, x + task.rows * task.cols);
      workspace.rounded_from = nullptr;
    }
    copy.resize(std::max(copy.size(), size_t(rows * task.cols)));
    std::fill(copy.begin() + task.rows * task.cols, copy.begin() + rows * task.cols, 0.0f);
    x = copy.data();
  }
  quantize_into(q, {x, rows, cols}, convention, options);
  if (recipe.scale_correction == ScaleCorrection::eden) correct_scales(q, {x, rows, cols}, task.key);
}

void quantize(const QuantizeTask &task, Workspace &workspace, int threads) {
  CpuOperand &out = static_cast<CpuOperand &>(*task.out);
  const UnitRule &unit = task.unit->rule;
  if (task.recipe->format == OperandFormat::bf16) {
    pack_bf16(out, unit, task.x, task.rows, task.cols, task.axis);
    return;
  }
  if (task.recipe->format == OperandFormat::simulated) {
    const Rotated values = simulated_values(task, workspace, threads);
    pack_bf16(out, unit, values.values.data(), values.rows, values.cols, task.axis);
    out.quantized.global_amax = workspace.first.global_amax;
    return;
  }
  GemmOperand &p = out.packed;
  BlockScaled &q = out.quantized;
  std::swap(q.codes, p.codes); // the larger memory
  std::swap(q.scales, p.scales);
  quantize_blocks(q, task, workspace, threads);
  p.adopt(unit, Side::a, q, threads);
}

void patch(const PatchTask &task, Workspace &workspace) {
  CpuOperand &out = static_cast<CpuOperand &>(*task.out);
  const CpuOperand &main = static_cast<const CpuOperand &>(*task.main);
  const UnitRule &unit = task.unit->rule;
  const int64_t rows = main.packed.rows, segments = int64_t(task.segments.size());
  if (task.bf16) {
    if (segments != 1) throw Error("a BF16 patch has one segment");
    gather(task, main, task.segments[0], workspace.gathered);
    pack_bf16(out, unit, workspace.gathered.data(), rows, task.count, Axis::row);
    return;
  }
  const BlockScaled &q = main.quantized;
  const Convention &convention = find_convention(q.convention);
  const int64_t width = round_up(task.count, 16), own = task.append ? q.padded_k : 0;
  GemmOperand &p = out.packed;
  p.reshape(unit, Side::a, rows, own + segments * width);
  if (task.append)
    for (int64_t r = 0; r < rows; ++r) {
      std::memcpy(p.codes.data() + r * p.row_bytes(), main.packed.codes.data() + r * main.packed.row_bytes(),
                  size_t(own / 2));
      std::memcpy(p.scales.data() + r * p.scale_cols(), main.packed.row_scales(r), size_t(own / 16));
    }
  int64_t column = own;
  for (const Segment segment : task.segments) {
    if (task.whole_blocks && segment == Segment::value) {
      copy_blocks(task, main.packed, p, column);
    } else {
      gather(task, main, segment, workspace.gathered);
      QuantizeOptions options{.threads = 1, .isa = workspace.isa};
      if (has_tensor_level(convention.rule)) options.global_amax = q.global_amax;
      quantize_into(workspace.segment, {workspace.gathered.data(), rows, task.count}, convention, options);
      copy_columns(workspace.segment, p, column);
    }
    column += width;
  }
  p.seal(unit, 1);
  p.take_facts(q);
}

} // namespace nvfp4::models::cpu
