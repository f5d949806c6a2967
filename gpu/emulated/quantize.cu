// SPDX-License-Identifier: Apache-2.0
// The order of a quantization on the device: maxima, second level, blocks. The blocks of what the fast
// kernels do not cover are computed here by the shared text, one thread per block.
#include "nvfp4/gpu/emulated/quantize_tile.cuh"

#include <algorithm>

namespace nvfp4::cuda {
namespace {

constexpr int kTile = 16;
constexpr int kMaxBlock = 128;

/// The maximum of a matrix; grid.y strides over rows, or the matrix is dense and one long row. Four at a time
/// where alignment allows.
__global__ void amax_kernel(const float *x, int64_t rows, int64_t k, int64_t stride, bool vectors,
                            bool per_row, AmaxWords *out) {
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

/// Where the second level comes from.
enum class GlobalFrom : uint8_t { maxima, amax, device_amax, word };

/// `rounds`: the maxima are of a matrix that is rounded to BF16 afterwards, which commutes with a maximum.
__global__ void globals_kernel(Rule rule, FormatId source, GlobalFrom from, float given, bool rounds,
                               const float *device_amax, const AmaxWords *maxima, int64_t count,
                               GlobalScale *out) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  float amax = given;
  if (from == GlobalFrom::device_amax) amax = *device_amax;
  if (from == GlobalFrom::maxima) {
    amax = maxima[i].amax().value(rule.amax_nan);
    if (rounds) amax = bf16_low(bf16_pair(amax, 0.0f));
  }
  out[i] = from == GlobalFrom::word ? global_from_word(rule, given) : level_from_amax(rule, amax, source);
}

__device__ inline uint32_t random_bits(const QuantizeJob &job, int64_t r, int64_t i) {
  if (job.rounding == ElementRounding::nearest) return 0;
  const uint64_t index = job.random_index(r, i);
  return job.rounding == ElementRounding::sr_exact ? job.key.bits32(index) : job.key.bits8(index);
}

/// Values [first, first + width) of output row r, as the job wants them.
__device__ void read_block(const TileJob &t, int64_t r, int64_t first, int width, float (&x)[kMaxBlock]) {
  for (int i = 0; i < width; ++i) {
    const int64_t k = first + i;
    const float v = !t.turned       ? t.job.x[r * t.job.stride + k]
                    : k < t.present ? t.job.x[k * t.job.stride + r]
                                    : 0.0f;
    x[i] = t.rounds && !t.rotates ? bf16_low(bf16_pair(v, 0.0f)) : v;
  }
  if (!t.rotates) return; // k is a multiple of 16, and so are blocks
  for (int i = 0; i < width; i += kHadamardSize) {
    float group[kHadamardSize];
    for (int j = 0; j < kHadamardSize; ++j) group[j] = x[i + j];
    rotate16(group, t.signs);
    for (int j = 0; j < kHadamardSize; ++j) x[i + j] = group[j];
  }
}

/// The code of x, element i of row r of the block that starts at `first`. As emulator/quantize/strip.hpp.
__device__ uint8_t code_of(const TileJob &t, int64_t r, int64_t first, int i, float x, const BlockScale &scale) {
  const Rule &rule = t.job.rule;
  return encode_element(rule, x, element_scale(rule, scale, i), t.job.rounding, random_bits(t.job, r, first + i));
}

/// The error of a candidate scale.
__device__ float error_of(const TileJob &t, const GlobalScale &global, int64_t first_row, int rows, int64_t first,
                          int width, const BlockScale &scale) {
  float sums[kTile] = {};
  for (int r = 0; r < rows; ++r) {
    float x[kMaxBlock];
    read_block(t, first_row + r, first, width, x);
    for (int i = 0; i < width; ++i)
      sums[r] = add_error(t.job.rule, sums[r], code_of(t, first_row + r, first, i, x[i], scale), x[i], scale, global.amax);
  }
  if (t.job.block_rows > 1)
    for (int half = kTile / 2; half > 0; half /= 2)
      for (int i = 0; i < half; ++i) sums[i] = sums[i] + sums[i + half];
  return sums[0];
}

/// The level of the part of row r that the block at `first` lies in.
__device__ GlobalScale level_of_part(const TileJob &t, int64_t r, int64_t first) {
  const QuantizeJob &job = t.job;
  const Rule &rule = job.rule;
  const int64_t from = first / rule.outer_block * rule.outer_block, to = min(job.k, from + rule.outer_block);
  Amax amax;
  for (int64_t at = from; at < to; at += rule.block) {
    float x[kMaxBlock];
    const int width = int(min(int64_t(rule.block), to - at));
    read_block(t, r, at, width, x);
    for (int i = 0; i < width; ++i) amax.add(x[i]);
  }
  return global_from_amax(rule, amax.value(rule.amax_nan), job.source);
}

/// Block `index` by the definition.
__device__ void define_block(const TileJob &t, int64_t index) {
  const QuantizeJob &job = t.job;
  const Rule &rule = job.rule;
  const int64_t columns = job.blocks();
  const int64_t first_row = index / columns * job.block_rows, b = index % columns, first = b * rule.block;
  const int rows = int(min(int64_t(job.block_rows), job.rows - first_row)),
            width = int(min(int64_t(rule.block), job.k - first));
  float x[kMaxBlock];
  Amax amax;
  for (int r = 0; r < rows; ++r) {
    read_block(t, first_row + r, first, width, x);
    for (int i = 0; i < width; ++i) amax.add(x[i]);
  }
  const GlobalScale global =
      rule.outer_block != 0 ? level_of_part(t, first_row, first) : job.globals[rule.per_row ? first_row : 0];
  const float bmax = amax.value(rule.amax_nan);
  if (job.maxima != nullptr) {
    atomicMax(bmax == bmax ? &job.maxima->number : &job.maxima->nan, 1u);
    if (bmax == bmax) atomicMax(&job.maxima->word, bit_cast<uint32_t>(bmax));
  }
  BlockScale scale = block_scale(rule, bmax, global, job.source);
  if (format(rule.scale).extra == ScaleExtra::exponents) scale = with_exponents(rule, scale, x, width); // of one row
  if (rule.four_over_six != FourOverSix::off) {
    const BlockScale second = block_scale(rule, bmax, global, job.source, true);
    if (error_of(t, global, first_row, rows, first, width, second) <
        error_of(t, global, first_row, rows, first, width, scale))
      scale = second;
  }
  const bool nibbles = format(rule.element).storage_bits == 4;
  for (int r = 0; r < rows; ++r) {
    for (int i = 0, bytes = scale_bytes(rule.scale); i < bytes; ++i)
      job.scales[job.scale_at(first_row + r, b * bytes + i)] = scale_byte(scale.code, i);
    if (rows > 1) read_block(t, first_row + r, first, width, x);
    const auto code = [&](int i) { return i < width ? code_of(t, first_row + r, first, i, x[i], scale) : uint8_t{0}; };
    uint8_t *const to = job.codes + ((first_row + r) * job.padded_k + first) / (nibbles ? 2 : 1);
    if (nibbles)
      for (int i = 0; i < rule.block; i += 2) to[i / 2] = uint8_t(code(i) | code(i + 1) << 4);
    else
      for (int i = 0; i < rule.block; ++i) to[i] = code(i);
  }
}

/// All blocks, or those that tiles left.
__global__ void definition_kernel(const __grid_constant__ TileJob t, int64_t blocks) {
  const QuantizeJob &job = t.job;
  const int64_t count = job.left == nullptr ? blocks : job.left[0], step = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step)
    define_block(t, job.left == nullptr ? i : job.left[1 + i]);
}

void find_maxima(const float *x, int64_t rows, int64_t k, int64_t stride, bool per_row, DeviceBuffer &maxima,
                 cudaStream_t stream) {
  const int64_t count = per_row ? rows : 1;
  maxima.reserve(count * int64_t(sizeof(AmaxWords)));
  check(cudaMemsetAsync(maxima.as<void>(), 0, size_t(count) * sizeof(AmaxWords), stream), "clearing maxima");
  if (rows * k == 0) return;
  if (!per_row && stride == k) {
    k *= rows;
    stride = k;
    rows = 1;
  }
  const bool vectors = k % 4 == 0 && stride % 4 == 0 && reinterpret_cast<uintptr_t>(x) % 16 == 0;
  const unsigned across = unsigned(std::clamp<int64_t>((k / (vectors ? 16 : 4) + 255) / 256, 1, 2048));
  const unsigned down = unsigned(std::clamp<int64_t>(4096 / across, 1, std::min<int64_t>(rows, 32768)));
  amax_kernel<<<dim3(across, down), 256, 0, stream>>>(x, rows, k, stride, vectors, per_row,
                                                      maxima.as<AmaxWords>());
  check_launch("amax_kernel");
}

__global__ void amax_value_kernel(const AmaxWords *maxima, float *out) {
  *out = maxima->amax().value(AmaxNan::ignore);
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

void find_column_maxima(const TileJob &t, DeviceBuffer &maxima, cudaStream_t stream) {
  const int64_t cols = t.job.rows;
  maxima.reserve(cols * int64_t(sizeof(AmaxWords)));
  check(cudaMemsetAsync(maxima.as<void>(), 0, size_t(cols) * sizeof(AmaxWords), stream), "clearing maxima");
  if (cols * t.present == 0) return;
  column_maxima_kernel<<<dim3(blocks_for(cols, 128), unsigned(std::min<int64_t>(t.present, 64))), 128, 0,
                         stream>>>(t.job.x, t.present, cols, t.job.stride, maxima.as<AmaxWords>());
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

void quantize(const float *x, int64_t rows, int64_t cols, int64_t stride, const Convention &convention,
              const QuantizeOptions &options, DeviceBlockScaled &out, cudaStream_t stream,
              const float *device_amax, const Intake &intake) {
  const Rule &rule = convention.rule;
  const int64_t padded_rows = rows + intake.zero_rows;
  if (intake.zero_rows != 0 && (intake.zero_rows < 0 || options.axis != Axis::col))
    throw Error("cuda::quantize: rows of zeros are for Axis::col, got " + std::to_string(intake.zero_rows));
  out.info = describe(padded_rows, cols, stride, convention, options);
  if (device_amax != nullptr &&
      (options.global_amax || options.global_scale || rule.per_row || !has_level(rule)))
    throw Error("cuda::quantize: device_amax goes with conventions that take an amax, and without another");
  const BlockScaled &info = out.info;
  const bool turned = options.axis == Axis::col, tiled = options.layout == ScaleLayout::tiled_128x4;
  TileJob t{.job = {.rule = rule,
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
            .present = rows};
  QuantizeJob &job = t.job;
  const bool empty = info.rows * info.k == 0;

  out.per_row = rule.per_row;
  const int64_t count = rule.per_row ? info.rows : 1;
  const GlobalFrom from = options.global_scale     ? GlobalFrom::word
                          : options.global_amax    ? GlobalFrom::amax
                          : device_amax != nullptr ? GlobalFrom::device_amax
                                                   : GlobalFrom::maxima;
  out.globals.reserve(std::max<int64_t>(count, 1) * int64_t(sizeof(GlobalScale)));
  const auto write_globals = [&](bool find) {
    if (find && t.rotates) {
      out.maxima.reserve(2 * int64_t(sizeof(AmaxWords)));
      check(cudaMemsetAsync(out.maxima.as<void>(), 0, 2 * sizeof(AmaxWords), stream), "clearing maxima");
      rotated_maximum(t, out.maxima.as<AmaxWords>(), stream);
    } else if (find && rule.per_row && turned) {
      find_column_maxima(t, out.maxima, stream);
    } else if (find) {
      find_maxima(x, rows, cols, stride, rule.per_row, out.maxima, stream);
    }
    if (count == 0) return;
    globals_kernel<<<blocks_for(count, 128), 128, 0, stream>>>(
        rule, options.source, from, options.global_scale.value_or(options.global_amax.value_or(0.0f)),
        t.rounds && !t.rotates, device_amax, out.maxima.as<AmaxWords>(), count,
        out.globals.as<GlobalScale>());
    check_launch("globals_kernel");
  };
  // without a second level, and where no factor reads its place (1), the maximum is only reported, and the
  // fast kernels find it on their way
  const bool level_read = rule.scaling != Scaling::exponent && rule.scaling != Scaling::exponent_one &&
                          rule.scaling != Scaling::exponent_normal && rule.scaling != Scaling::search &&
                          rule.scaling != Scaling::bf16_reciprocal && rule.scaling != Scaling::divide_bf16_reciprocal;
  const bool reported_only = !has_level(rule) && !level_read && !rule.per_row && !empty;
  if (!reported_only) write_globals(from == GlobalFrom::maxima);

  const int64_t scale_size =
      tiled ? scale_size_128x4(info.rows, info.scale_cols()) : info.rows * info.scale_cols();
  out.codes.reserve(info.rows * info.row_bytes());
  out.scales.reserve(scale_size);
  if (tiled && scale_size > 0)
    check(cudaMemsetAsync(out.scales.as<void>(), 0, size_t(scale_size), stream), "clearing scales");
  if (empty) return;
  job.globals = out.globals.as<GlobalScale>();
  job.codes = out.codes.as<uint8_t>();
  job.scales = out.scales.as<uint8_t>();
  if (reported_only) {
    out.maxima.reserve(int64_t(sizeof(AmaxWords)));
    check(cudaMemsetAsync(out.maxima.as<void>(), 0, sizeof(AmaxWords), stream), "clearing maxima");
    job.maxima = out.maxima.as<AmaxWords>();
  }
  const bool as_it_is = !t.turned && !t.rotates && !t.rounds;
  if (!as_it_is || !quantize_fast(job, stream)) {
    const int64_t blocks = (info.rows + info.block_rows - 1) / info.block_rows * info.blocks();
    if (tiles_cover(t) && blocks < int64_t{1} << 32) {
      out.left.reserve((blocks + 1) * int64_t(sizeof(uint32_t)));
      job.left = out.left.as<uint32_t>();
      check(cudaMemsetAsync(job.left, 0, sizeof(uint32_t), stream), "clearing a list");
      quantize_tiles(t, stream);
    }
    define_blocks(t, blocks, stream);
  }
  if (reported_only) write_globals(false);
}

void amax(const float *x, int64_t rows, int64_t cols, int64_t stride, float *out, DeviceBuffer &scratch,
          cudaStream_t stream) {
  find_maxima(x, rows, cols, stride, false, scratch, stream);
  amax_value_kernel<<<1, 1, 0, stream>>>(scratch.as<AmaxWords>(), out);
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
