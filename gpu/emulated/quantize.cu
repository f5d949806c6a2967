// SPDX-License-Identifier: Apache-2.0
// The order of a quantization on the device: maxima, second level, blocks. The blocks of what the fast
// kernels do not cover are computed here by the shared text, one thread per block.
#include "nvfp4/gpu/emulated/quantize_define.cuh"
#include "nvfp4/gpu/emulated/quantize_level.cuh"
#include "nvfp4/gpu/emulated/quantize_tile.cuh"

#include <algorithm>

namespace nvfp4::cuda {
namespace {

/// The maximum of a matrix; grid.y strides over rows, or the matrix is dense and one long row. Four at a time
/// where alignment allows.
__global__ void amax_kernel(const float *x, int64_t rows, int64_t k, int64_t stride, bool vectors,
                            bool per_row, const __grid_constant__ LevelEnd end) {
  AmaxWords *const out = end.maxima;
  const int64_t first = int64_t(blockIdx.x) * blockDim.x + threadIdx.x,
                step = int64_t(gridDim.x) * blockDim.x;
  Amax a;
  for (int64_t r = blockIdx.y; r < rows; r += gridDim.y) {
    const float *const row = x + r * stride;
    if (vectors) {
      const float4 *const v = reinterpret_cast<const float4 *>(row);
      int64_t i = first;
      for (; i + 3 * step < k / 4; i += 4 * step) { // four loads in flight
        const float4 q[4] = {v[i], v[i + step], v[i + 2 * step], v[i + 3 * step]};
#pragma unroll
        for (int j = 0; j < 4; ++j) a.add(q[j].x), a.add(q[j].y), a.add(q[j].z), a.add(q[j].w);
      }
      for (; i < k / 4; i += step) {
        const float4 q = v[i];
        a.add(q.x), a.add(q.y), a.add(q.z), a.add(q.w);
      }
    } else {
      for (int64_t i = first; i < k; i += step) a.add(row[i]);
    }
    if (!per_row) continue;
    a = warp_merged(a);
    if (threadIdx.x % 32 == 0) merge_into(&out[r], a);
    a = {};
  }
  if (per_row) return;
  a = warp_merged(a);
  if (threadIdx.x % 32 == 0 && (a.nan || a.number)) merge_into(out, a);
  end_level(end);
}

/// The maximum of every column, a thread each; grid.y strides over rows.
__global__ void column_maxima_kernel(const float *x, int64_t rows, int64_t cols, int64_t stride,
                                     AmaxWords *out) {
  const int64_t c = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (c >= cols) return;
  Amax a;
  for (int64_t r = blockIdx.y; r < rows; r += gridDim.y) a.add(x[r * stride + c]);
  merge_into(&out[c], a);
}

/// Levels of the tensor or of its rows; the maxima they came from are zeros again. `left`: as in LevelEnd.
__global__ void globals_kernel(Rule rule, FormatId source, const __grid_constant__ LevelSource level,
                               AmaxWords *maxima, int64_t count, GlobalScale *out, uint32_t *left) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i == 0 && left != nullptr) *left = 0;
  if (i >= count) return;
  out[i] = level_of(rule, source, level, maxima[i]);
  maxima[i] = {};
}

/// All blocks, or those that tiles left.
__global__ void definition_kernel(const __grid_constant__ TileJob t, int64_t blocks) {
  const QuantizeJob &job = t.job;
  const int64_t count = job.left == nullptr ? blocks : job.left[0], step = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step)
    define_block(t, job.left == nullptr ? i : job.left[1 + i]);
}

/// Zeros for `count` rows, or for one tensor.
AmaxWords *zeros(DeviceBuffer &maxima, int64_t count, cudaStream_t stream) {
  const int64_t bytes = std::max(count, kMaxima) * int64_t(sizeof(AmaxWords));
  if (bytes > maxima.size()) {
    maxima.reserve(bytes);
    check(cudaMemsetAsync(maxima.as<void>(), 0, size_t(bytes), stream), "clearing maxima");
  }
  return maxima.as<AmaxWords>();
}

/// `end` is for one maximum; the matrix is not empty.
void find_maxima(const float *x, int64_t rows, int64_t k, int64_t stride, bool per_row, const LevelEnd &end,
                 cudaStream_t stream) {
  if (!per_row && stride == k) {
    k *= rows;
    stride = k;
    rows = 1;
  }
  const bool vectors = k % 4 == 0 && stride % 4 == 0 && reinterpret_cast<uintptr_t>(x) % 16 == 0;
  const unsigned across = unsigned(std::clamp<int64_t>((k / (vectors ? 16 : 4) + 255) / 256, 1, 2048));
  const unsigned down = unsigned(std::clamp<int64_t>(4096 / across, 1, std::min<int64_t>(rows, 32768)));
  amax_kernel<<<dim3(across, down), 256, 0, stream>>>(x, rows, k, stride, vectors, per_row, end);
  check_launch("amax_kernel");
}

/// The maximum is zeros again.
__global__ void amax_value_kernel(AmaxWords *maxima, float *out) {
  *out = maxima->amax().value(AmaxNan::ignore);
  *maxima = {};
}

/// The CPU's checks and the description of the result, from a matrix with the right k and no rows.
BlockScaled describe(int64_t rows, int64_t cols, int64_t stride, const Convention &convention,
                     const QuantizeOptions &options) {
  if (rows < 0 || cols < 0 || stride < cols)
    throw Error("cuda::quantize: expected a matrix with stride >= columns, got " + std::to_string(rows) +
                " x " + std::to_string(cols) + ", stride " + std::to_string(stride));
  const bool turned = options.axis == Axis::col;
  QuantizeOptions linear = options;
  linear.layout = ScaleLayout::linear;
  linear.threads = 1;
  BlockScaled info =
      nvfp4::quantize({nullptr, turned ? rows : 0, turned ? 0 : cols, cols}, convention, linear);
  info.rows = turned ? cols : rows;
  info.layout = options.layout;
  return info;
}

void find_column_maxima(const TileJob &t, AmaxWords *maxima, cudaStream_t stream) {
  const int64_t cols = t.job.rows;
  column_maxima_kernel<<<dim3(blocks_for(cols, 128), unsigned(std::min<int64_t>(t.present, 64))), 128, 0,
                         stream>>>(t.job.x, t.present, cols, t.job.stride, maxima);
  check_launch("column_maxima_kernel");
}

void define_blocks(const TileJob &t, int64_t blocks, cudaStream_t stream) {
  // what tiles left is usually nothing, and known to the device only
  const unsigned most = t.job.left == nullptr ? 1u << 20 : 512;
  const unsigned grid = unsigned(std::min<int64_t>(most, (blocks + 63) / 64));
  definition_kernel<<<grid, 64, 0, stream>>>(t, blocks);
  check_launch("definition_kernel");
}

} // namespace

namespace {

/// What is asked for, as kernels see it, and the description of the result; memory is to come.
struct Planned {
  TileJob t;
  LevelSource level;
  /// Without a second level, and where no factor reads its place (1), the maximum is only reported.
  bool reported_only;
  int64_t levels, scale_size;
};

Planned plan(const float *x, int64_t rows, int64_t cols, int64_t stride, const Convention &convention,
             const QuantizeOptions &options, DeviceBlockScaled &out, const float *device_amax,
             const Intake &intake) {
  const Rule &rule = convention.rule;
  const int64_t padded_rows = rows + intake.zero_rows;
  if (intake.zero_rows != 0 && (intake.zero_rows < 0 || options.axis != Axis::col))
    throw Error("cuda::quantize: rows of zeros are for Axis::col, got " + std::to_string(intake.zero_rows));
  if (format(rule.element).storage_bits > 8)
    throw Error("convention '" + std::string(convention.name) + "' has elements of 16 bits, which the CPU alone writes; quantize there");
  out.info = describe(padded_rows, cols, stride, convention, options);
  if (device_amax != nullptr &&
      (options.global_amax || options.global_scale || !has_tensor_level(rule)))
    throw Error("cuda::quantize: device_amax goes with conventions that take an amax, and without another");
  const BlockScaled &info = out.info;
  const bool turned = options.axis == Axis::col, tiled = options.layout == ScaleLayout::tiled_128x4;
  Planned p{.t = {.job = {.rule = rule,
                          .rounding = options.rounding,
                          .key = options.key,
                          .source = options.source,
                          .random_by_column = turned,
                          .tiled_scales = tiled,
                          .block_rows = info.block_rows,
                          .x = x,
                          .rows = info.rows,
                          .k = info.k,
                          .stride = stride,
                          .padded_k = info.padded_k,
                          .globals = nullptr,
                          .codes = nullptr,
                          .scales = nullptr,
                          .maxima = nullptr,
                          .left = nullptr},
                  .turned = turned,
                  .rounds = intake.round_to_bf16,
                  .rotates = options.hadamard,
                  .aligned = stride % 4 == 0 && reinterpret_cast<uintptr_t>(x) % 16 == 0,
                  .signs = options.sign_mask,
                  .present = rows},
            .level = {.from = options.global_scale     ? GlobalFrom::word
                              : options.global_amax    ? GlobalFrom::amax
                              : device_amax != nullptr ? GlobalFrom::device_amax
                                                       : GlobalFrom::maxima,
                      .given = options.global_scale.value_or(options.global_amax.value_or(0.0f)),
                      .device_amax = device_amax,
                      .rounds = intake.round_to_bf16 && !options.hadamard},
            .reported_only = false,
            .levels = rule.per_row ? info.rows : 1,
            .scale_size = tiled ? scale_size_128x4(info.rows, info.scale_cols())
                                 : info.rows * info.scale_cols()};
  const bool level_read = rule.scaling != Scaling::exponent && rule.scaling != Scaling::exponent_one &&
                          rule.scaling != Scaling::exponent_normal && rule.scaling != Scaling::search &&
                          rule.scaling != Scaling::bf16_reciprocal &&
                          rule.scaling != Scaling::divide_bf16_reciprocal;
  p.reported_only = !has_level(rule) && !level_read && !rule.per_row && info.rows * info.k != 0;
  out.per_row = rule.per_row;
  out.globals.reserve(std::max<int64_t>(p.levels, 1) * int64_t(sizeof(GlobalScale)));
  out.codes.reserve(info.rows * info.row_bytes());
  out.scales.reserve(p.scale_size);
  p.t.job.globals = out.globals.as<GlobalScale>();
  p.t.job.codes = out.codes.as<uint8_t>();
  p.t.job.scales = out.scales.as<uint8_t>();
  return p;
}

void run(Planned &p, DeviceBlockScaled &out, cudaStream_t stream) {
  TileJob &t = p.t;
  QuantizeJob &job = t.job;
  const Rule &rule = job.rule;
  const int64_t blocks = (job.rows + job.block_rows - 1) / job.block_rows * job.blocks();
  const bool empty = job.rows * job.k == 0, as_it_is = !t.turned && !t.rotates && !t.rounds;
  const bool tiles = !empty && tiles_cover(t) && blocks < int64_t{1} << 32;
  uint32_t *left = nullptr; // emptied where the level is written, or apart where that comes last
  if (tiles) {
    out.left.reserve((blocks + 1) * int64_t(sizeof(uint32_t)));
    left = out.left.as<uint32_t>();
  }
  AmaxWords *const maxima = zeros(out.maxima, rule.per_row ? p.levels : 1, stream);
  const auto write_levels = [&](uint32_t *empties) {
    if (p.levels == 0) return;
    globals_kernel<<<blocks_for(p.levels, 128), 128, 0, stream>>>(rule, job.source, p.level, maxima, p.levels,
                                                                  out.globals.as<GlobalScale>(), empties);
    check_launch("globals_kernel");
  };
  if (!p.reported_only) {
    LevelEnd end{rule, job.source, p.level, maxima, out.globals.as<GlobalScale>(), left};
    const int64_t looked_at = t.rotates || !t.turned ? job.rows * job.k : job.rows * t.present;
    const bool finds = p.level.from == GlobalFrom::maxima && looked_at > 0;
    if (rule.per_row) end.out = nullptr;
    if (finds && t.rotates && rule.per_row) {
      rotated_row_maxima(t, maxima, stream);
    } else if (finds && t.rotates) {
      rotated_maximum(t, end, stream);
    } else if (finds && rule.per_row && t.turned) {
      find_column_maxima(t, maxima, stream);
    } else if (finds) {
      find_maxima(job.x, t.turned ? t.present : job.rows, t.turned ? job.rows : job.k, job.stride,
                  rule.per_row, end, stream);
    }
    if (!finds || end.out == nullptr) write_levels(left);
  }
  if (job.tiled_scales && p.scale_size > 0)
    check(cudaMemsetAsync(job.scales, 0, size_t(p.scale_size), stream), "clearing scales");
  if (empty) return;
  if (p.reported_only) job.maxima = maxima; // the fast kernels find the maximum on their way
  if (!as_it_is || !quantize_fast(job, stream)) {
    if (tiles) {
      job.left = left;
      if (p.reported_only) check(cudaMemsetAsync(left, 0, sizeof(uint32_t), stream), "clearing a list");
      quantize_tiles(t, stream);
    }
    define_blocks(t, blocks, stream);
  }
  if (p.reported_only) write_levels(nullptr);
}

} // namespace

void quantize(const float *x, int64_t rows, int64_t cols, int64_t stride, const Convention &convention,
              const QuantizeOptions &options, DeviceBlockScaled &out, cudaStream_t stream,
              const float *device_amax, const Intake &intake) {
  Planned p = plan(x, rows, cols, stride, convention, options, out, device_amax, intake);
  run(p, out, stream);
}

int64_t quantize_all(std::span<const QuantizeRequest> requests, DeviceBuffer &maxima, DeviceBuffer &left,
                     cudaStream_t stream) {
  std::vector<SmallJob> small;
  for (const QuantizeRequest &r : requests) {
    DeviceBlockScaled &out = *r.out;
    Planned p = plan(r.x, r.rows, r.cols, r.stride, *r.convention, r.options, out, nullptr, r.intake);
    if (quantizes_small(p.t)) {
      out.left.reserve((p.t.job.rows * p.t.job.blocks() + 1) * int64_t(sizeof(uint32_t)));
      p.t.job.left = out.left.as<uint32_t>();
      small.push_back({p.t, p.level, out.globals.as<GlobalScale>()});
      continue;
    }
    std::swap(out.maxima, maxima);
    std::swap(out.left, left);
    run(p, out, stream);
    std::swap(out.maxima, maxima);
    std::swap(out.left, left);
  }
  quantize_small(small, stream);
  return int64_t(small.size());
}

void amax(const float *x, int64_t rows, int64_t cols, int64_t stride, float *out, DeviceBuffer &scratch,
          cudaStream_t stream) {
  AmaxWords *const maxima = zeros(scratch, 1, stream);
  if (rows * cols > 0)
    find_maxima(x, rows, cols, stride, false, {.maxima = maxima, .out = nullptr}, stream);
  amax_value_kernel<<<1, 1, 0, stream>>>(maxima, out);
  check_launch("amax_value_kernel");
}

BlockScaled DeviceBlockScaled::download(cudaStream_t stream) const {
  BlockScaled q = info;
  q.codes = codes.download<uint8_t>(q.rows * q.row_bytes(), stream);
  q.scales = scales.download<uint8_t>(
      q.layout == ScaleLayout::linear ? q.rows * q.scale_cols() : scale_size_128x4(q.rows, q.scale_cols()),
      stream);
  const std::vector<GlobalScale> g = globals.download<GlobalScale>(per_row ? q.rows : 1, stream);
  q.row_amax.clear();
  if (per_row) {
    for (const GlobalScale &s : g) q.row_amax.push_back(s.amax);
  } else {
    q.global_amax = g[0].amax;
    q.global_encode = g[0].encode;
    q.global_decode = g[0].decode;
  }
  return q;
}

} // namespace nvfp4::cuda
