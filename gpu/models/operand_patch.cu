// SPDX-License-Identifier: Apache-2.0
// The Hot-Channel Patch's operands: hot channels of a quantized operand gathered, their residuals taken and
// quantized again, a thread per row and block of 16, in one pass over memory.
#include "nvfp4/gpu/models/operand.hpp"
#include "nvfp4/gpu/emulated/quantize_elements.cuh"

namespace nvfp4::cuda {
namespace {

using models::PatchTask;
using models::Segment;

constexpr int kThreads = 128, kBlock = 16, kMostSegments = 2;

/// What gathering reads, and where segments go.
struct Source {
  Rule rule;
  const uint8_t *codes, *scales; ///< of main
  int64_t row_bytes, scale_cols, rows;
  const GlobalScale *global;
  const float *x;
  int64_t x_row, x_col;
  bool rounds;
  const int32_t *channels;
  int64_t count;
};
struct Target {
  uint8_t *codes, *scales;
  int64_t row_bytes, scale_cols, column; ///< elements before the first segment
  int segments;
  bool residual[kMostSegments], copied[kMostSegments];
};

/// The quantized value of channel c in row r, or what it lacks of x.
__device__ inline float gather_value(const Source &s, int64_t r, int32_t c, bool residual) {
  const uint32_t code = s.codes[r * s.row_bytes + c / 2] >> (4 * (c % 2)) & 15u;
  // twice the magnitudes of E2M1, a nibble each; the sign bit is kept for -0
  const float magnitude = float(0xC8643210u >> (4 * (code & 7)) & 15u) * 0.5f;
  const float v = bit_cast<float>(bit_cast<uint32_t>(magnitude) | (code >> 3) << 31);
  const float q =
      decode_values(s.rule, v, value_f32(s.rule.scale, s.scales[r * s.scale_cols + c / kBlock]), *s.global);
  if (!residual) return q;
  const float x = s.x[r * s.x_row + c * s.x_col];
  return (s.rounds ? round_to_bf16(x) : x) - q;
}

__global__ void __launch_bounds__(kThreads)
    patch_kernel(const __grid_constant__ Source s, const __grid_constant__ Target t) {
  const int64_t blocks = (s.count + kBlock - 1) / kBlock, a_row = blocks * t.segments;
  const int64_t index = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (index >= s.rows * a_row) return;
  const int64_t r = index / a_row;
  const int part = int(index % a_row / blocks);
  const int64_t first = index % blocks * kBlock, at = t.column + part * blocks * kBlock + first;
  const int32_t *const channels = s.channels + first;
  uint2 *const to = reinterpret_cast<uint2 *>(t.codes + r * t.row_bytes + at / 2);
  uint8_t *const to_scale = t.scales + r * t.scale_cols + at / kBlock;
  if (t.copied[part]) { // channels are a whole block of main
    const int32_t from = channels[0];
    *to = *reinterpret_cast<const uint2 *>(s.codes + r * s.row_bytes + from / 2);
    *to_scale = s.scales[r * s.scale_cols + from / kBlock];
    return;
  }
  const bool residual = t.residual[part];
  float x[kBlock];
  Amax amax;
#pragma unroll
  for (int i = 0; i < kBlock; ++i) {
    const bool there = first + i < s.count;
    x[i] = there ? gather_value(s, r, channels[i], residual) : 0.0f;
    if (there) amax.add(x[i]);
  }
  const Rule &rule = s.rule;
  const GlobalScale global = global_from_amax(rule, s.global->amax, FormatId::f32);
  const BlockScale scale = block_scale(rule, amax.value(rule.amax_nan), global, FormatId::f32);
  uint32_t packed[2] = {};
#pragma unroll
  for (int i = 0; i < kBlock; ++i) {
    const float y = detail::meet(rule, x[i], scale.factor);
    uint32_t code = element_code<FormatId::e2m1, ElementRounding::nearest>(y, 0);
    if (rule.negative_zero == NegativeZero::drop_exact && y == 0.0f) code = 0;
    if (y != y) code = detail::nan_code(rule, rule.element, x[i]);
    if (scale.skipped || first + i >= s.count) code = 0;
    packed[i / 8] |= code << (4 * (i % 8));
  }
  *to = make_uint2(packed[0], packed[1]);
  *to_scale = scale.code;
}

/// (rows, count) values of one segment.
__global__ void gather_kernel(const __grid_constant__ Source s, bool residual, float *out) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= s.rows * s.count) return;
  out[i] = gather_value(s, i / s.count, s.channels[i % s.count], residual);
}

void copy_rows(uint8_t *to, int64_t to_stride, const uint8_t *from, int64_t from_stride, int64_t width,
               int64_t rows, cudaStream_t stream) {
  if (width * rows == 0) return;
  check(cudaMemcpy2DAsync(to, size_t(to_stride), from, size_t(from_stride), size_t(width), size_t(rows),
                          cudaMemcpyDeviceToDevice, stream),
        "copying columns");
}

} // namespace

void patch(const PatchTask &task, PatchWorkspace &workspace, cudaStream_t stream) {
  CudaOperand &out = static_cast<CudaOperand &>(*task.out);
  const CudaOperand &main = static_cast<const CudaOperand &>(*task.main);
  const BlockScaled &q = main.q.info;
  const Rule &rule = find_convention(q.convention).rule;
  const int64_t rows = q.rows, segments = int64_t(task.segments.size());
  const bool by_row = task.axis == Axis::row;
  const Source source{rule,
                      main.q.codes.as<uint8_t>(),
                      main.q.scales.as<uint8_t>(),
                      q.row_bytes(),
                      q.scale_cols(),
                      rows,
                      main.q.global(),
                      task.x,
                      by_row ? q.k : 1,
                      by_row ? 1 : rows,
                      task.source == FormatId::bf16,
                      task.channels,
                      task.count};
  out.fp4_ready = false;
  const auto gather = [&](Segment segment) {
    workspace.gathered.reserve(rows * task.count * 4);
    if (rows * task.count == 0) return;
    gather_kernel<<<blocks_for(rows * task.count, kThreads), kThreads, 0, stream>>>(
        source, segment == Segment::residual, workspace.gathered.as<float>());
    check_launch("gather_kernel");
  };
  if (task.bf16) {
    if (segments != 1) throw Error("a BF16 patch has one segment");
    gather(task.segments[0]);
    pack_bf16(task.unit->rule, workspace.gathered.as<float>(), rows, task.count, Axis::row, out, stream);
    return;
  }
  if (segments > kMostSegments) throw Error("a patch has at most two segments");
  const int64_t width = (task.count + kBlock - 1) / kBlock * kBlock, own = task.append ? q.padded_k : 0;
  out.scaled = true;
  BlockScaled &info = out.q.info;
  info.convention = q.convention;
  info.element = q.element;
  info.scale = q.scale;
  info.block = q.block;
  info.block_rows = 1;
  info.rows = rows;
  info.k = info.padded_k = own + segments * width;
  info.layout = ScaleLayout::linear;
  out.q.per_row = false;
  out.q.codes.reserve(rows * info.row_bytes());
  out.q.scales.reserve(rows * info.scale_cols());
  out.q.globals.reserve(int64_t(sizeof(GlobalScale)));
  check(cudaMemcpyAsync(out.q.globals.as<void>(), main.q.globals.as<void>(), sizeof(GlobalScale),
                        cudaMemcpyDeviceToDevice, stream),
        "copying a global scale");
  uint8_t *const codes = out.q.codes.as<uint8_t>(), *const scales = out.q.scales.as<uint8_t>();
  if (task.append) {
    copy_rows(codes, info.row_bytes(), source.codes, source.row_bytes, own / 2, rows, stream);
    copy_rows(scales, info.scale_cols(), source.scales, source.scale_cols, own / kBlock, rows, stream);
  }
  if (rows * width == 0) return;
  const auto is_copy = [&](Segment s) { return task.whole_blocks && s == Segment::value; };
  if (rule.four_over_six == FourOverSix::off && rule.scaling != Scaling::search &&
      rule.ties == Ties::even && has_tensor_level(rule) && q.row_bytes() % 8 == 0) {
    Target target{codes, scales, info.row_bytes(), info.scale_cols(), own, int(segments), {}, {}};
    for (size_t i = 0; i < task.segments.size(); ++i) {
      target.residual[i] = task.segments[i] == Segment::residual;
      target.copied[i] = is_copy(task.segments[i]);
    }
    patch_kernel<<<blocks_for(rows * width / kBlock * segments, kThreads), kThreads, 0, stream>>>(source,
                                                                                                  target);
    check_launch("patch_kernel");
    return;
  }
  // conventions with another way to choose a scale: through memory, by the quantization itself
  int64_t column = own;
  for (const Segment segment : task.segments) {
    if (is_copy(segment)) {
      Target target{codes, scales, info.row_bytes(), info.scale_cols(), column, 1, {false}, {true}};
      patch_kernel<<<blocks_for(rows * width / kBlock, kThreads), kThreads, 0, stream>>>(source, target);
      check_launch("patch_kernel");
    } else {
      gather(segment);
      quantize(workspace.gathered.as<float>(), rows, task.count, task.count, find_convention(q.convention),
               {.threads = 1}, workspace.segment, stream,
               has_tensor_level(rule) ? &main.q.global()->amax : nullptr);
      const BlockScaled &part = workspace.segment.info;
      copy_rows(codes + column / 2, info.row_bytes(), workspace.segment.codes.as<uint8_t>(), part.row_bytes(),
                part.row_bytes(), rows, stream);
      copy_rows(scales + column / kBlock, info.scale_cols(), workspace.segment.scales.as<uint8_t>(),
                part.scale_cols(), part.scale_cols(), rows, stream);
    }
    column += width;
  }
}

} // namespace nvfp4::cuda
