// SPDX-License-Identifier: Apache-2.0
// A block of threads' tile of 256 blocks, a thread per block, for every convention, axis and rotation: scale
// and codes in FP32 arithmetic. Blocks where that does not apply are listed for the definition. Internal to
// the kernels that quantize by tiles.
#pragma once
#include "nvfp4/gpu/emulated/quantize_elements.cuh"
#include "nvfp4/gpu/emulated/quantize_tile.cuh"

namespace nvfp4::cuda {

/// What a block needs besides scale and rounding.
enum class Way : uint8_t { plain, four_over_six, search };

/// Steps of a rule that a kernel is compiled for: what its blocks and elements would ask of the job else.
struct Steps {
  ScaleOrder order;
  ScaleRounding rounding;
  Scaling scaling;
  bool flush = false;
  FourOverSix candidates = FourOverSix::off;
  bool fused_error = false;

  [[nodiscard]] constexpr bool are_of(const Rule &r) const {
    return r.order == order && r.scale_rounding == rounding && r.scaling == scaling && r.flush == flush &&
           r.four_over_six == candidates && r.fused_error == fused_error;
  }
};

/// The job's rule, of which the compiler knows element and block, and `steps` if it is told them.
template <FormatId element_id, int block_size, Way kind = Way::plain, Steps... steps> struct AnyRule {
  static constexpr FormatId element = element_id;
  static constexpr int block = block_size;
  static constexpr Way way = kind;
  __device__ static Rule of(const QuantizeJob &job) {
    Rule r = job.rule;
    r.element = element;
    r.block = block;
    (know(r, steps), ...);
    return r;
  }

private:
  __device__ static void know(Rule &r, const Steps &s) {
    r.order = s.order;
    r.scale_rounding = s.rounding;
    r.scaling = s.scaling;
    r.flush = s.flush;
    r.four_over_six = s.candidates;
    r.fused_error = s.fused_error;
  }
};
/// A rule of which the compiler knows everything: TransformerEngine's.
struct TeRule {
  static constexpr FormatId element = FormatId::e2m1;
  static constexpr int block = 16;
  static constexpr Way way = Way::plain;
  __device__ static constexpr Rule of(const QuantizeJob &) { return {}; }
};

template <FormatId element> constexpr int kCodeBits = element == FormatId::e2m1 ? 4 : 8;
template <ElementRounding rounding>
constexpr bool kEightBits = rounding == ElementRounding::sr_carry8 || rounding == ElementRounding::sr_te;

/// Lane q of four holds words 0..3 of its own call; afterwards v[i] is word q of lane i's call.
__device__ inline void transpose4(uint32_t (&v)[4], int q) {
#pragma unroll
  for (int d = 1; d < 4; d *= 2) {
    const bool upper = (q & d) != 0;
#pragma unroll
    for (int i = 0; i < 4; ++i)
      if ((i & d) == 0) {
        const uint32_t got = __shfl_xor_sync(kAllLanes, upper ? v[i] : v[i + d], d);
        (upper ? v[i] : v[i + d]) = got;
      }
  }
}

constexpr int kNoise = 544; ///< bytes of a warp: two tiles of 16 x 16, 16 bytes apart in banks

/// Random bits of a block: bytes in words, or a word each. Calls of Philox along a row serve one block; those
/// of a turned source serve 16 (4) neighbouring lanes, which share them.
template <int block, bool eight_bits>
__device__ inline void load_random(const TileJob &t, const Place &p, [[maybe_unused]] uint8_t *noise,
                                   uint32_t (&random)[eight_bits ? block / 4 : block]) {
  const QuantizeJob &job = t.job;
  constexpr int per_call = eight_bits ? 16 : 4;
  const int64_t first = p.column * block;
  if (!job.random_by_column) {
    const uint64_t call = uint64_t(p.row * job.k + first) / per_call;
#pragma unroll
    for (int h = 0; h < block / per_call; ++h) {
      const PhiloxBlock b = job.key.block(call + h);
#pragma unroll
      for (int i = 0; i < 4; ++i) random[4 * h + i] = b.word[i];
    }
    return;
  }
  const int q = int(threadIdx.x) % per_call; // rows are a multiple of per_call
#pragma unroll
  for (int h = 0; h < block / per_call; ++h) {
    const PhiloxBlock b =
        job.key.block(uint64_t((first + h * per_call + q) * job.rows + p.row - q) / per_call);
    uint32_t v[4] = {b.word[0], b.word[1], b.word[2], b.word[3]};
    if constexpr (eight_bits) {
      uint8_t *const half = noise + threadIdx.x / 32 * kNoise + (threadIdx.x & 16) * 17;
      __syncwarp();
#pragma unroll
      for (int i = 0; i < 16; ++i) half[i * 16 + q] = uint8_t(v[i / 4] >> (8 * (i % 4)));
      __syncwarp();
      const uint4 own = *reinterpret_cast<const uint4 *>(half + q * 16);
      v[0] = own.x, v[1] = own.y, v[2] = own.z, v[3] = own.w;
    } else {
      transpose4(v, q);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) random[4 * h + i] = v[i];
  }
}

/// A block under a candidate scale of four over six: nearest codes without signs, and the error as add_error
/// has it, for M = 256. Errors are the same on both sides of zero, so magnitudes serve. A code's value is a power of two,
/// or 1.5 times one, and the value's decoding, far from the ends of FP32, that power times the decoding of 1 or of 1.5.
struct Candidate {
  uint32_t words[2] = {};
  float error = 0.0f;

  __device__ Candidate(const Rule &rule, const float (&x)[16], const BlockScale &scale, float amax) {
    const float one = divide_by_1536(scale.value * amax), one_and_half = divide_by_1536((1.5f * scale.value) * amax);
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      const float t = fminf(fabsf(x[i] * scale.factor), 6.0f);
      // as in nearest_code: the low bits of the sum are the code, and what is above m is the value
      const float m = t < 2.0f ? 4194304.0f : t < 4.0f ? 8388610.0f : 16777224.0f, sum = __fadd_rn(t, m);
      words[i / 8] |= (bit_cast<uint32_t>(sum) & 7) << (4 * (i % 8));
      const uint32_t value = bit_cast<uint32_t>(__fadd_rn(sum, -m));
      // the product is exact, so that the fused sum is the decoding less |x|
      const float d = __fmaf_rn(bit_cast<float>(value & 0x7F800000u), (value & 0x400000u) != 0 ? one_and_half : one, -fabsf(x[i]));
      if (rule.four_over_six == FourOverSix::mae)
        error = error + fabsf(d);
      else
        error = rule.fused_error ? __fmaf_rn(d, d, error) : error + d * d;
    }
  }
};

/// Their signs, where E2M1's codes have them.
[[nodiscard]] __device__ inline uint32_t eight_signs(const float *x) {
  uint32_t signs = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i) signs |= bit_cast<uint32_t>(x[i]) >> 31 << (4 * i + 3);
  return signs;
}

/// nearest_by_search for bmax < 2^20 d: the middle between two neighbours is exact, and belongs to the
/// smaller.
[[nodiscard]] __device__ inline uint32_t search_code(float x, const float (&middle)[7]) {
  const float magnitude = fabsf(x);
  const bool four = magnitude > middle[3], two = magnitude > (four ? middle[5] : middle[1]);
  const float last = four ? (two ? middle[6] : middle[4]) : (two ? middle[2] : middle[0]);
  const uint32_t code = (four ? 4 : 0) + (two ? 2 : 0) + (magnitude > last ? 1 : 0);
  return code == 0 ? 0 : code | bit_cast<uint32_t>(x) >> 31 << 3;
}

/// x becomes x times (or over) the factor. Subnormal results have code 0 whether they are flushed or not.
template <int block> __device__ inline void meet(const Rule &rule, float (&x)[block], float factor) {
  if (divides(rule.scaling)) {
#pragma unroll
    for (float &v : x) v = detail::divide(rule.flush, v, factor);
  } else if (rule.flush) {
#pragma unroll
    for (float &v : x) asm("mul.ftz.f32 %0, %0, %1;" : "+f"(v) : "f"(factor));
  } else {
#pragma unroll
    for (float &v : x) v = v * factor;
  }
}

template <int count> __device__ inline void copy_words(void *to, const uint32_t *from) {
  if constexpr (count == 2)
    *static_cast<uint2 *>(to) = make_uint2(from[0], from[1]);
  else
#pragma unroll
    for (int i = 0; i < count; i += 4)
      static_cast<uint4 *>(to)[i / 4] = make_uint4(from[i], from[i + 1], from[i + 2], from[i + 3]);
}

/// Codes and scales of a tile. Those of a turned source change places first, so that a column's codes are
/// written side by side. Every thread comes here; nobody reads the tile any more after the first barrier.
template <int count>
__device__ inline void store_tile(const TileJob &t, float *tile, Place p, int block, const uint32_t *words,
                                  uint8_t scale) {
  const QuantizeJob &job = t.job;
  uint32_t own[count];
#pragma unroll
  for (int i = 0; i < count; ++i) own[i] = words[i];
  if (t.turned) {
    constexpr int pitch = kTileBlocks * count + (count == 2 ? 2 : 4), scale_pitch = kTileBlocks + 4;
    uint32_t *const codes = reinterpret_cast<uint32_t *>(tile);
    uint8_t *const scales = reinterpret_cast<uint8_t *>(codes + kTileColumns * pitch);
    const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32;
    const int column = int(threadIdx.x) / kTileBlocks, b = int(threadIdx.x) % kTileBlocks;
    __syncthreads();
    copy_words<count>(codes + lane * pitch + warp * count, words);
    scales[lane * scale_pitch + warp] = scale;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < count; ++i) own[i] = codes[column * pitch + b * count + i];
    scale = scales[column * scale_pitch + b];
    p.row = int64_t(blockIdx.x) * kTileColumns + column;
    p.column = int64_t(blockIdx.y) * kTileBlocks + b;
    p.exists = p.row < job.rows && p.column * block < job.k;
  }
  if (!p.exists) return;
  const int64_t columns = job.padded_k / block, at = p.row * columns + p.column;
  job.scales[job.tiled_scales ? scale_offset_128x4(p.row, p.column, columns) : at] = scale;
  copy_words<count>(job.codes + at * (4 * count), own);
}

/// Blocks of threads on a multiprocessor, where registers for them suffice.
template <class R, ElementRounding rounding>
constexpr int kResident = rounding == ElementRounding::sr_exact ? (R::block == 16 ? 4 : 2)
                          : R::block == 16                      ? (R::way == Way::plain ? 5 : 4)
                                                                : 3;

/// A block of threads' tile.
template <class R, ElementRounding rounding> __device__ __forceinline__ void quantize_tile(const TileJob &t) {
  constexpr int block = R::block, bits = kCodeBits<R::element>, count = block * bits / 32;
  constexpr bool eight_bits = kEightBits<rounding>, draws = rounding != ElementRounding::nearest;
  __shared__ alignas(16) float tile[kTileFloats<block>];
  __shared__ alignas(16) uint8_t noise[eight_bits ? kTileThreads / 32 * kNoise : 16];
  const QuantizeJob &job = t.job;
  const Rule rule = R::of(job);
  load_tile<block>(t, tile);
  int tile_row, tile_block;
  const Place p = place_of<block>(t, tile_row, tile_block);
  float x[block];
  const bool fetched = fetch_block<block>(t, tile, tile_row, tile_block, x);
  uint32_t word = largest_word<block>(x);
  const bool tiles = job.block_rows != 1;
  if (tiles)
    for (int d = 8; d > 0; d /= 2) word = max(word, __shfl_xor_sync(kAllLanes, word, d));
  const float bmax = bit_cast<float>(word);
  const GlobalScale global =
      rule.global == GlobalRule::none ? GlobalScale{} : job.globals[rule.per_row && p.exists ? p.row : 0];
  BlockScale scale;
  bool redo = !fetched || word >= 0x7F800000u || !level_usable(global);
  redo = fast_scale(rule, bmax, global, job.source, false, scale) || redo;
  uint32_t words[count] = {};
  if constexpr (R::way == Way::four_over_six) {
    BlockScale four;
    redo = fast_scale(rule, bmax, global, job.source, true, four) || redo || rule.e4m3_max != 256.0f ||
           !(global.amax >= 0x1p-60f && global.amax <= 0x1p60f) || rule.flush ||
           divides(rule.scaling) ||
           rule.negative_zero == NegativeZero::drop_exact;
    const Candidate by_six(rule, x, scale, global.amax), by_four(rule, x, four, global.amax);
    float six_error = by_six.error, four_error = by_four.error;
    if (tiles)
      for (int d = 8; d > 0; d /= 2) {
        six_error = six_error + __shfl_xor_sync(kAllLanes, six_error, d);
        four_error = four_error + __shfl_xor_sync(kAllLanes, four_error, d);
      }
    const bool to_four = four_error < six_error;
    if (to_four) scale = four;
#pragma unroll
    for (int i = 0; i < count; ++i)
      words[i] = (to_four ? by_four.words[i] : by_six.words[i]) | eight_signs(x + 8 * i);
  }
  if constexpr (R::way == Way::search) redo = redo || (scale.factor > 0.0f && bmax >= 0x1p20f * scale.factor);

  [[maybe_unused]] uint32_t random[!draws ? 1 : eight_bits ? block / 4 : block];
  if constexpr (draws) load_random<block, eight_bits>(t, p, noise, random);
  if constexpr (R::way == Way::search) {
    float middle[7];
#pragma unroll
    for (int i = 0; i < 7; ++i) {
      constexpr float twice[7] = {1, 3, 5, 7, 10, 14, 20};
      middle[i] = scale.factor > 0.0f ? twice[i] * 0.5f * scale.factor : kFltMax;
    }
#pragma unroll
    for (int i = 0; i < block; ++i) words[i / 8] |= search_code(x[i], middle) << (4 * (i % 8));
  } else if constexpr (R::way == Way::plain) {
    meet(rule, x, scale.factor);
    if (draws && rule.negative_zero == NegativeZero::drop_exact)
#pragma unroll
      for (float &v : x) v = v + 0.0f;
#pragma unroll
    for (int i = 0; i < block; i += 8) {
      if constexpr (eight_bits && R::element == FormatId::e2m1) {
        words[i / 8] = eight_codes<rounding>(x + i, random + i / 4);
      } else {
#pragma unroll
        for (int j = i; j < i + 8; ++j) {
          uint32_t own = 0;
          if constexpr (draws)
            own = eight_bits ? random[j / 4] >> (8 * (j % 4)) & 0xFF : random[eight_bits ? 0 : j];
          uint32_t code = element_code<R::element, rounding>(x[j], own);
          if (!draws && rule.negative_zero == NegativeZero::drop_exact && x[j] == 0.0f) code = 0;
          words[j * bits / 32] |= code << (j * bits % 32);
        }
      }
    }
  }
  if (job.maxima != nullptr) report_maximum(job.maxima, bmax, p.exists && !redo);
  if (redo && p.exists && (!tiles || threadIdx.x % 16 == 0))
    job.left[1 + atomicAdd(job.left, 1u)] =
        uint32_t((tiles ? p.row / kTileRows : p.row) * (job.k / block) + p.column);
  store_tile<count>(t, tile, p, block, words, scale.code);
}

/// Rows of a dense matrix may be cut where a tile ends.
template <int block> [[nodiscard]] TileJob flattened(const TileJob &t) {
  TileJob flat = t;
  const QuantizeJob &job = t.job;
  constexpr int64_t width = 16 * block;
  if (!t.turned && job.block_rows == 1 && job.stride == job.k && !job.tiled_scales && !job.rule.per_row &&
      !job.random_by_column && job.rows * job.k % width == 0) {
    flat.job.rows = job.rows * job.k / width;
    flat.job.k = flat.job.padded_k = flat.job.stride = width;
  }
  return flat;
}

/// launch.run<R, rounding>().
template <class R, class Launch> void launch_rounding(ElementRounding rounding, const Launch &launch) {
  using enum ElementRounding;
  switch (rounding) {
  case nearest: return launch.template run<R, nearest>();
  case sr_carry8: return launch.template run<R, sr_carry8>();
  case sr_exact: return launch.template run<R, sr_exact>();
  case sr_te:
    if constexpr (R::element == FormatId::e2m1) return launch.template run<R, sr_te>();
    break;
  case sr_mid8: break; // by the definition: tiles_cover()
  }
  throw Error("quantize: no tile kernel rounds " + std::string(format(R::element).name) + " by " +
              std::string(to_string(rounding)));
}

/// With the kernel that is compiled for the rule's steps; false if there is none.
template <FormatId element, int block, Way way, Steps... known, class Launch>
[[nodiscard]] bool launch_known(const Rule &r, const Launch &launch) {
  const auto take = [&]<Steps steps>() {
    if (r.element != element || r.block != block || !steps.are_of(r)) return false;
    launch.template run<AnyRule<element, block, way, steps>, ElementRounding::nearest>();
    return true;
  };
  return (take.template operator()<known>() || ...);
}

/// The steps of conventions in use, nearest; the others, and stochastic rounding, ask the job.
template <class Launch> [[nodiscard]] bool launch_known(const Rule &r, const Launch &launch) {
  using O = ScaleOrder;
  using R = ScaleRounding;
  using S = Scaling;
  using enum FourOverSix;
  if (r.four_over_six != off)
    return launch_known<FormatId::e2m1, 16, Way::four_over_six,
                        Steps{O::sixth_by_encode, R::cap_largest, S::inverse_capped, false, mae},
                        Steps{O::sixth_by_encode, R::cap_largest, S::inverse_capped, false, mse},
                        Steps{O::sixth_by_encode, R::plain, S::inverse_capped, false, mae},
                        Steps{O::sixth_by_encode, R::plain, S::inverse_capped, false, mse, true}>(r, launch);
  if (r.scaling == S::search)
    return launch_known<FormatId::e2m1, 16, Way::search, Steps{O::sixth, R::ggml, S::search}>(r, launch);
  if (quantizing_part(r) == quantizing_part(Rule{})) return false; // TeRule knows more
  return launch_known<FormatId::e2m1, 16, Way::plain, Steps{O::amax_by_encode_sixth, R::cap_flt_max, S::inverse_capped},
                      Steps{O::sixth_by_encode, R::cap_flt_max, S::inverse_capped},
                      Steps{O::encode_by_amax_k6, R::plain, S::inverse, true},
                      Steps{O::encode_by_amax_k6, R::plain, S::inverse},
                      Steps{O::amax_by_six_decode, R::clamp_tiny, S::divide},
                      Steps{O::source_sixth, R::eighth_if_zero, S::divide_encode},
                      Steps{O::sixth_by_decode, R::clamp_normal, S::inverse_decode}>(r, launch) ||
         launch_known<FormatId::e2m1, 32, Way::plain, Steps{O::amax_by_inverse_max, R::power_up, S::exponent_one, true},
                      Steps{O::exponent_floor, R::power_exact, S::exponent}>(r, launch) ||
         launch_known<FormatId::e4m3, 32, Way::plain, Steps{O::amax_by_inverse_max, R::power_up, S::exponent},
                      Steps{O::exponent_floor, R::power_exact, S::exponent}>(r, launch);
}

/// With the kernel of the rule and the rounding.
template <class Launch> void launch_rule(const Rule &r, ElementRounding rounding, const Launch &launch) {
  using enum FormatId;
  if (rounding == ElementRounding::nearest && launch_known(r, launch)) return;
  if (r.block == 32 && r.element == e2m1) return launch_rounding<AnyRule<e2m1, 32>>(rounding, launch);
  if (r.element == e4m3) return launch_rounding<AnyRule<e4m3, 32>>(rounding, launch);
  if (r.element == e5m2) return launch_rounding<AnyRule<e5m2, 32>>(rounding, launch);
  if (r.four_over_six != FourOverSix::off)
    return launch.template run<AnyRule<e2m1, 16, Way::four_over_six>, ElementRounding::nearest>();
  if (r.scaling == Scaling::search)
    return launch.template run<AnyRule<e2m1, 16, Way::search>, ElementRounding::nearest>();
  if (quantizing_part(r) == quantizing_part(Rule{})) return launch_rounding<TeRule>(rounding, launch);
  launch_rounding<AnyRule<e2m1, 16>>(rounding, launch);
}

} // namespace nvfp4::cuda
