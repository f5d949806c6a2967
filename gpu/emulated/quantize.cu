// SPDX-License-Identifier: Apache-2.0
// The order of a quantization on the device: turn and rotate, maxima, second level, blocks. The blocks of
// what the fast kernels do not cover are computed here by the shared text, one thread per block.
#include "gpu/emulated/quantize_detail.cuh"

#include <algorithm>

namespace nvfp4::cuda {
namespace {

constexpr int kTile = 16, kMaxBlock = 32;

/// y (cols, rows) = x (rows, cols) transposed, through 32 x 32 tiles.
__global__ void transpose_kernel(const float *x, int64_t rows, int64_t cols, int64_t stride, float *y) {
  __shared__ float tile[32][33];
  const int64_t c = int64_t(blockIdx.x) * 32 + threadIdx.x;
  for (int64_t first = int64_t(blockIdx.y) * 32; first < rows; first += int64_t(gridDim.y) * 32) {
    __syncthreads();
    for (int i = int(threadIdx.y); i < 32; i += 8)
      if (first + i < rows && c < cols) tile[i][threadIdx.x] = x[(first + i) * stride + c];
    __syncthreads();
    for (int i = int(threadIdx.y); i < 32; i += 8) {
      const int64_t r = int64_t(blockIdx.x) * 32 + i;
      if (r < cols && first + threadIdx.x < rows) y[r * rows + first + threadIdx.x] = tile[threadIdx.x][i];
    }
  }
}

/// rotate16 in FP32 where that is exact: 8 significant bits, exponents at most 12 apart and 4 bits of growth
/// make 24. False, x untouched, where it is not, or where subnormals, NaN or Inf come near. README.md has the
/// reasons.
__device__ inline bool rotate16_fast(float (&x)[kHadamardSize], uint16_t signs) {
  float y[kHadamardSize];
  uint32_t low = 0x7FFFFFFF, high = 0;
#pragma unroll
  for (int i = 0; i < kHadamardSize; ++i) {
    const uint32_t w = bit_cast<uint32_t>(x[i]), rounded = (w + 0x7FFF + (w >> 16 & 1)) & 0xFFFF0000u;
    if ((w & 0x7FFFFFFF) >= 0x7F000000u) high = 0x7FFFFFFF;
    const uint32_t magnitude = rounded & 0x7FFFFFFF;
    high = max(high, magnitude);
    low = min(low, magnitude == 0 ? 0x7FFFFFFFu : magnitude);
    y[i] = bit_cast<float>(rounded ^ (uint32_t(signs >> i & 1) << 31));
  }
  if (high >= 0x7E000000u || low < 0x10000000u || (high != 0 && (high >> 23) - (low >> 23) > 12))
    return false;
#pragma unroll
  for (int step = 1; step < kHadamardSize; step *= 2)
#pragma unroll
    for (int i = 0; i < kHadamardSize; ++i)
      if ((i & step) == 0) {
        const float a = y[i], b = y[i + step];
        y[i] = a + b;
        y[i + step] = a - b;
      }
#pragma unroll
  for (int i = 0; i < kHadamardSize; ++i) {
    const uint32_t w = bit_cast<uint32_t>(y[i] == 0.0f ? 0.0f : y[i] * 0.25f);
    x[i] = bit_cast<float>((w + 0x7FFF + (w >> 16 & 1)) & 0xFFFF0000u);
  }
  return true;
}

/// Rotates groups of 16 along k, from x to the dense y (they may be the same).
__global__ void rotate_kernel(const float *x, int64_t rows, int64_t k, int64_t stride, bool vectors,
                              uint16_t signs, float *y) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, groups = k / kHadamardSize;
  if (i >= rows * groups) return;
  const int64_t r = i / groups, at = i % groups * kHadamardSize;
  float g[kHadamardSize];
  const float *const from = x + r * stride + at;
#pragma unroll
  for (int j = 0; j < kHadamardSize; j += 4) {
    if (vectors) {
      const float4 v = *reinterpret_cast<const float4 *>(from + j);
      g[j] = v.x, g[j + 1] = v.y, g[j + 2] = v.z, g[j + 3] = v.w;
    } else {
      g[j] = from[j], g[j + 1] = from[j + 1], g[j + 2] = from[j + 2], g[j + 3] = from[j + 3];
    }
  }
  if (!rotate16_fast(g, signs)) rotate16(g, signs);
#pragma unroll
  for (int j = 0; j < kHadamardSize; j += 4) // y is dense with k a multiple of 16
    *reinterpret_cast<float4 *>(y + r * k + at + j) = make_float4(g[j], g[j + 1], g[j + 2], g[j + 3]);
}

__device__ inline void merge_into(AmaxWords *to, const Amax &a) {
  atomicMax(&to->word, a.word);
  if (a.nan) atomicMax(&to->nan, 1u);
  if (a.number) atomicMax(&to->number, 1u);
}

__device__ inline Amax warp_merged(Amax a) {
  a.word = __reduce_max_sync(0xFFFFFFFF, a.word);
  a.nan = __any_sync(0xFFFFFFFF, a.nan) != 0;
  a.number = __any_sync(0xFFFFFFFF, a.number) != 0;
  return a;
}

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

/// The maximum of every 16 x block tile; a half-warp per tile, a row per lane.
__global__ void tile_maxima_kernel(const float *x, int64_t rows, int64_t k, int64_t stride, int block,
                                   AmaxNan nan, uint32_t *out) {
  const int64_t columns = (k + block - 1) / block, tiles = (rows + kTile - 1) / kTile * columns;
  const int64_t tile = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) / kTile, lane = threadIdx.x % kTile;
  Amax a;
  if (tile < tiles) {
    const int64_t r = tile / columns * kTile + lane, from = tile % columns * block;
    if (r < rows)
      for (int64_t i = from; i < min(k, from + block); ++i) a.add(x[r * stride + i]);
  }
  uint32_t flags = uint32_t(a.nan) | uint32_t(a.number) << 1;
  for (int d = 1; d < kTile; d *= 2) {
    a.word = max(a.word, __shfl_xor_sync(0xFFFFFFFF, a.word, d));
    flags |= __shfl_xor_sync(0xFFFFFFFF, flags, d);
  }
  a.nan = (flags & 1) != 0;
  a.number = (flags & 2) != 0;
  if (lane == 0 && tile < tiles) out[tile] = bit_cast<uint32_t>(a.value(nan));
}

/// Where the second level comes from.
enum class GlobalFrom : uint8_t { maxima, amax, device_amax, word };

__global__ void globals_kernel(Rule rule, FormatId source, GlobalFrom from, float given,
                               const float *device_amax, const AmaxWords *maxima, int64_t count,
                               GlobalScale *out) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  out[i] = from == GlobalFrom::word   ? global_from_word(rule, given)
           : from == GlobalFrom::amax ? global_from_amax(rule, given, source)
           : from == GlobalFrom::maxima
               ? global_from_amax(rule, maxima[i].amax().value(rule.amax_nan), source)
               : global_from_amax(rule, *device_amax, source);
}

__device__ inline uint32_t random_bits(const QuantizeJob &job, int64_t r, int64_t i) {
  if (job.rounding == ElementRounding::nearest) return 0;
  const uint64_t index = job.random_index(r, i);
  return job.rounding == ElementRounding::sr_exact ? job.key.bits32(index) : job.key.bits8(index);
}

/// Codes of one candidate scale; the error where four-over-six asks for it. As emulator/quantize/strip.hpp.
template <int strip>
__device__ float encode_block(const QuantizeJob &job, const GlobalScale &global, int64_t first_row, int rows,
                              int64_t first, int width, const BlockScale &scale,
                              uint8_t (&codes)[strip][kMaxBlock]) {
  float sums[strip] = {};
  for (int r = 0; r < rows; ++r)
    for (int i = 0; i < width; ++i) {
      const float x = job.x[(first_row + r) * job.stride + first + i];
      codes[r][i] =
          encode_element(job.rule, x, scale, job.rounding, random_bits(job, first_row + r, first + i));
      if (job.rule.four_over_six != FourOverSix::off)
        sums[r] = add_error(job.rule, sums[r], codes[r][i], x, scale, global.amax);
    }
  for (int half = strip / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) sums[i] = sums[i] + sums[i + half];
  return sums[0];
}

/// One thread per block of 1 or 16 rows, by the definition.
template <int strip> __global__ void definition_kernel(const __grid_constant__ QuantizeJob job) {
  const Rule &rule = job.rule;
  const int64_t index = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, columns = job.scale_cols();
  if (index >= (job.rows + strip - 1) / strip * columns) return;
  const int64_t first_row = index / columns * strip, b = index % columns, first = b * rule.block;
  const int rows = int(min(int64_t(strip), job.rows - first_row)),
            width = int(min(int64_t(rule.block), job.k - first));
  Amax amax;
  for (int r = 0; r < rows; ++r)
    for (int i = 0; i < width; ++i) amax.add(job.x[(first_row + r) * job.stride + first + i]);
  const GlobalScale global = job.globals[rule.per_row ? first_row : 0];
  const float bmax = amax.value(rule.amax_nan);
  uint8_t codes[strip][kMaxBlock] = {};
  BlockScale scale = block_scale(rule, bmax, global, job.source);
  const float error = encode_block<strip>(job, global, first_row, rows, first, width, scale, codes);
  if (rule.four_over_six != FourOverSix::off) {
    uint8_t wider[strip][kMaxBlock] = {};
    const BlockScale four = block_scale(rule, bmax, global, job.source, true);
    if (encode_block<strip>(job, global, first_row, rows, first, width, four, wider) < error) {
      scale = four;
      for (int r = 0; r < strip; ++r)
        for (int i = 0; i < kMaxBlock; ++i) codes[r][i] = wider[r][i];
    }
  }
  const bool nibbles = format(rule.element).storage_bits == 4;
  for (int r = 0; r < rows; ++r) {
    job.scales[job.scale_at(first_row + r, b)] = scale.code;
    uint8_t *const to = job.codes + ((first_row + r) * job.padded_k + first) / (nibbles ? 2 : 1);
    if (nibbles)
      for (int i = 0; i < rule.block; i += 2) to[i / 2] = uint8_t(codes[r][i] | codes[r][i + 1] << 4);
    else
      for (int i = 0; i < rule.block; ++i) to[i] = codes[r][i];
  }
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

} // namespace

void quantize(const float *x, int64_t rows, int64_t cols, int64_t stride, const Convention &convention,
              const QuantizeOptions &options, DeviceBlockScaled &out, cudaStream_t stream,
              const float *device_amax) {
  const Rule &rule = convention.rule;
  out.info = describe(rows, cols, stride, convention, options);
  if (device_amax != nullptr &&
      (options.global_amax || options.global_scale || rule.per_row || rule.global == GlobalRule::none))
    throw Error("cuda::quantize: device_amax goes with conventions that take an amax, and without another");
  const BlockScaled &info = out.info;
  const bool turned = options.axis == Axis::col;
  const float *source = x;
  if (turned || options.hadamard) out.panel.reserve(info.rows * info.k * 4);
  if (turned && rows * cols > 0) {
    const dim3 grid(blocks_for(cols, 32), unsigned(std::min<int64_t>((rows + 31) / 32, 65535)));
    transpose_kernel<<<grid, dim3(32, 8), 0, stream>>>(x, rows, cols, stride, out.panel.as<float>());
    check_launch("transpose_kernel");
    source = out.panel.as<float>();
    stride = info.k;
  }
  if (options.hadamard && info.rows * info.k > 0) {
    rotate_kernel<<<blocks_for(info.rows * info.k / kHadamardSize, 128), 128, 0, stream>>>(
        source, info.rows, info.k, stride, stride % 4 == 0 && reinterpret_cast<uintptr_t>(source) % 16 == 0,
        options.sign_mask, out.panel.as<float>());
    check_launch("rotate_kernel");
    source = out.panel.as<float>();
    stride = info.k;
  }

  out.per_row = rule.per_row;
  const int64_t count = rule.per_row ? info.rows : 1;
  const GlobalFrom from = options.global_scale     ? GlobalFrom::word
                          : options.global_amax    ? GlobalFrom::amax
                          : device_amax != nullptr ? GlobalFrom::device_amax
                                                   : GlobalFrom::maxima;
  out.globals.reserve(std::max<int64_t>(count, 1) * int64_t(sizeof(GlobalScale)));
  const auto write_globals = [&](bool find) {
    if (find) find_maxima(source, info.rows, info.k, stride, rule.per_row, out.maxima, stream);
    if (count == 0) return;
    globals_kernel<<<blocks_for(count, 128), 128, 0, stream>>>(
        rule, options.source, from, options.global_scale.value_or(options.global_amax.value_or(0.0f)),
        device_amax, out.maxima.as<AmaxWords>(), count, out.globals.as<GlobalScale>());
    check_launch("globals_kernel");
  };
  // without a second level the maximum is only reported, and the fast kernels find it on their way
  const bool reported_only = rule.global == GlobalRule::none && !rule.per_row && info.rows * info.k > 0;
  if (!reported_only) write_globals(from == GlobalFrom::maxima);

  const bool tiled = options.layout == ScaleLayout::tiled_128x4;
  const int64_t scale_bytes =
      tiled ? scale_size_128x4(info.rows, info.scale_cols()) : info.rows * info.scale_cols();
  out.codes.reserve(info.rows * info.row_bytes());
  out.scales.reserve(scale_bytes);
  if (tiled && scale_bytes > 0)
    check(cudaMemsetAsync(out.scales.as<void>(), 0, size_t(scale_bytes), stream), "clearing scales");
  const int64_t blocks = (info.rows + info.block_rows - 1) / info.block_rows * info.scale_cols();
  if (blocks == 0) return;
  QuantizeJob job{rule,
                  options.rounding,
                  options.key,
                  options.source,
                  turned,
                  tiled,
                  info.block_rows,
                  source,
                  info.rows,
                  info.k,
                  stride,
                  info.padded_k,
                  out.globals.as<GlobalScale>(),
                  nullptr,
                  out.codes.as<uint8_t>(),
                  out.scales.as<uint8_t>(),
                  nullptr};
  if (info.block_rows == kTile && rule.four_over_six == FourOverSix::off && rule.scaling != Scaling::search) {
    out.maxima.reserve(blocks * 4);
    tile_maxima_kernel<<<blocks_for(blocks * kTile, 128), 128, 0, stream>>>(
        source, info.rows, info.k, stride, info.block, rule.amax_nan, out.maxima.as<uint32_t>());
    check_launch("tile_maxima_kernel");
    job.tile_maxima = out.maxima.as<uint32_t>();
  }
  if (reported_only) {
    out.maxima.reserve(int64_t(sizeof(AmaxWords)));
    check(cudaMemsetAsync(out.maxima.as<void>(), 0, sizeof(AmaxWords), stream), "clearing maxima");
    job.maxima = out.maxima.as<AmaxWords>();
  }
  const bool done = quantize_fast(job, stream);
  if (reported_only) write_globals(!done);
  if (done) return;
  if (info.block_rows == kTile)
    definition_kernel<kTile><<<blocks_for(blocks, 64), 64, 0, stream>>>(job);
  else
    definition_kernel<1><<<blocks_for(blocks, 128), 128, 0, stream>>>(job);
  check_launch("definition_kernel");
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
