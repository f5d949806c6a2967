// SPDX-License-Identifier: Apache-2.0
// Products of units with 32 products a step and 25 fraction bits (FP8, FP6, FP4 and MXFP8 of Blackwell):
// tensor cores sum the products of large elements and the others apart, both exactly, and say whether a step
// cuts anything; outputs in which it does are done over by a warp, four at a time. Tiles with too many of
// those, NaN, Inf or far exponents are left to other kernels. README.md says why the bits are the
// definition's.
#include "nvfp4/gpu/emulated/gemm_parts.cuh"

namespace nvfp4::cuda {
namespace {

constexpr int kThreads = 512, kStages = 3;
constexpr int kPiece = 32;               ///< rows and columns of a warp
constexpr int kFragmentOutputs = 128; ///< 16 x 8
constexpr int kPitch = kPartsBytes + 16; ///< of a row in shared memory: eight rows meet eight groups of banks

/// A step of one operand's rows of a tile.
struct Panel {
  uint8_t parts[kPartsTile * kPitch];
  float largest[kPartsTile], least[kPartsTile];
  PartNorms norms[kPartsTile / 8];
};
struct Stage {
  Panel a, b;
};

struct PartsJob {
  PartsView a, b;
  int64_t m, n;
  float limit; ///< high_limit()
  GemmOutput out;
  uint8_t *left; ///< (tiles)
  Fp4Paths *paths;
};

__device__ inline void copy_16(uint32_t to, const void *from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}

/// Brings step t of a tile's rows.
__device__ inline void fetch(const PartsView &x, int64_t first, int64_t t, Panel &to) {
  const uint32_t parts = uint32_t(__cvta_generic_to_shared(to.parts));
  constexpr int kPieces = kPartsBytes / 16;
#pragma unroll
  for (int i = int(threadIdx.x); i < kPartsTile * kPieces; i += kThreads)
    copy_16(parts + i / kPieces * kPitch + i % kPieces * 16,
            x.parts + ((first + i / kPieces) * x.steps + t) * kPartsBytes + i % kPieces * 16);
  const int i = int(threadIdx.x), vectors = kPartsTile / 4;
  if (i < vectors)
    copy_16(uint32_t(__cvta_generic_to_shared(to.largest + 4 * i)),
            x.largest + t * x.padded_rows + first + 4 * i);
  else if (i < 2 * vectors)
    copy_16(uint32_t(__cvta_generic_to_shared(to.least + 4 * (i - vectors))),
            x.least + t * x.padded_rows + first + 4 * (i - vectors));
  else if (i < 2 * vectors + kPartsTile / 16)
    copy_16(uint32_t(__cvta_generic_to_shared(to.norms + 2 * (i - 2 * vectors))),
            x.norms + (t * x.padded_rows + first) / 8 + 2 * (i - 2 * vectors));
}

__device__ inline void load_matrices(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}

__device__ inline void multiply(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
               "{%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// Elements i to i + 3 of a row's step, i a multiple of 4.
__device__ inline float4 elements(const Panel &p, int row, int i) {
  const uint2 *const words = reinterpret_cast<const uint2 *>(p.parts + row * kPitch + 2 * i);
  const uint2 high = words[0], low = words[kPartBytes / 8];
  const uint32_t first = high.x | low.x, second = high.y | low.y; // one of them is zero
  return {bit_cast<float>(first << 16), bit_cast<float>(first & 0xFFFF0000u), bit_cast<float>(second << 16),
          bit_cast<float>(second & 0xFFFF0000u)};
}

/// The step of one output with every cut; four products a lane, eight lanes an output.
__device__ inline float repaired_step(const Stage &s, int row, int col, float acc) {
  const int first = int(threadIdx.x) % 8 * 4;
  const float4 x = elements(s.a, row, first), y = elements(s.b, col, first);
  const float least_a = s.a.least[row], least_b = s.b.least[col];
  const auto power = [&](float u, float v) { return field_power(u, least_a) * field_power(v, least_b); };
  float top = fmaxf(fmaxf(power(x.x, y.x), power(x.y, y.y)), fmaxf(power(x.z, y.z), power(x.w, y.w)));
#pragma unroll
  for (int d = 1; d < 8; d *= 2) top = fmaxf(top, __shfl_xor_sync(0xFFFFFFFF, top, d));
  top = fmaxf(top, leading_power(acc));
  const float lift = lift_of(top == 0.0f ? 1.0f : top);
  // a term has 27 bits and a sign: four of them fit an integer, 32 do not, their halves do
  const int terms = cut_term(x.x * y.x, lift) + cut_term(x.y * y.y, lift) + cut_term(x.z * y.z, lift) +
                    cut_term(x.w * y.w, lift);
  int high = terms >> 8, low = terms & 255;
#pragma unroll
  for (int d = 1; d < 8; d *= 2) {
    high += __shfl_xor_sync(0xFFFFFFFF, high, d);
    low += __shfl_xor_sync(0xFFFFFFFF, low, d);
  }
  return top == 0.0f ? 0.0f : sum_of_terms(int64_t(high) * 256 + low + cut_term(acc, lift), top);
}

/// An output to be done over: its accumulator, then its new one, and lane * 4 + e of the fragment.
struct Repair {
  float acc;
  int at;
};

/// The outputs of a fragment whose bit in `bad` is set, done over, four at a time; `list` is the warp's.
__device__ __noinline__ float4 repaired(const Stage &s, int row, int col, uint32_t bad, float4 before,
                                        float4 after, Repair *list) {
  const int lane = int(threadIdx.x) % 32;
  const float acc[4] = {before.x, before.y, before.z, before.w};
  float result[4] = {after.x, after.y, after.z, after.w};
  int place[4], count = 0;
#pragma unroll
  for (int e = 0; e < 4; ++e) {
    const bool mine = (bad >> e & 1) != 0;
    const uint32_t lanes = __ballot_sync(0xFFFFFFFF, mine);
    place[e] = count + __popc(lanes & ((1u << lane) - 1));
    count += __popc(lanes);
    if (mine) list[place[e]] = {acc[e], lane * 4 + e};
  }
  __syncwarp();
  for (int first = 0; first < count; first += 4) {
    const Repair r = list[min(first + lane / 8, count - 1)];
    const int owner = r.at / 4, e = r.at % 4;
    const float value =
        repaired_step(s, row + owner / 4 + e / 2 * 8, col + owner % 4 * 2 + e % 2, r.acc);
    if (lane % 8 == 0 && first + lane / 8 < count) list[first + lane / 8].acc = value;
  }
  __syncwarp();
#pragma unroll
  for (int e = 0; e < 4; ++e)
    if ((bad >> e & 1) != 0) result[e] = list[place[e]].acc;
  __syncwarp();
  return {result[0], result[1], result[2], result[3]};
}

/// A bit for each fragment, rows of 16 by columns of 8, in which the tensor core's sums are exact.
__device__ inline uint32_t exact_fragments(const Stage &s, int row, int col, float limit) {
  const int f = int(threadIdx.x) % 8, i = row / 8 + f / 4 * 2;
  const PartNorms x = s.a.norms[i], x8 = s.a.norms[i + 1];
  const PartNorms a{fmaxf(x.whole, x8.whole), fmaxf(x.low, x8.low)}, b = s.b.norms[col / 8 + f % 4];
  return __ballot_sync(0xFFFFFFFF, sums_are_exact(a, b, limit));
}

/// A step of a warp's 32 x 32 outputs: acc[row tile][column tile][of a thread]. The number of this thread's
/// repaired ones.
__device__ inline uint32_t step_of_warp(const Stage &s, int row, int col, float limit,
                                        float (&acc)[2][4][4], Repair *list) {
  const int lane = int(threadIdx.x) % 32;
  const uint32_t exact = exact_fragments(s, row, col, limit);
  const uint32_t at_a = uint32_t(__cvta_generic_to_shared(s.a.parts)) + (row + lane % 16) * kPitch +
                        lane / 16 * 16,
                 at_b = uint32_t(__cvta_generic_to_shared(s.b.parts)) + (col + lane % 8) * kPitch +
                        lane / 8 * 16;
  uint32_t count = 0;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    uint32_t a[3][2][4]; // part, half of K
#pragma unroll
    for (int part = 0; part < 3; ++part)
#pragma unroll
      for (int half = 0; half < 2; ++half)
        load_matrices(a[part][half], at_a + i * 16 * kPitch + part * kPartBytes + half * 32);
    const float power_a[2] = {s.a.largest[row + 16 * i + lane / 4], s.a.largest[row + 16 * i + lane / 4 + 8]};
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      uint32_t b[3][4], all[4];
#pragma unroll
      for (int part = 0; part < 3; ++part) load_matrices(b[part], at_b + j * 8 * kPitch + part * kPartBytes);
#pragma unroll
      for (int r = 0; r < 4; ++r) all[r] = b[0][r] | b[1][r]; // one of them is zero
      float high[4] = {}, low[4] = {}, inverse[4] = {};
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        multiply(high, a[0][half], b[0][2 * half], b[0][2 * half + 1]);
        multiply(low, a[0][half], b[1][2 * half], b[1][2 * half + 1]);
        multiply(inverse, a[2][half], b[2][2 * half], b[2][2 * half + 1]);
        multiply(low, a[1][half], all[2 * half], all[2 * half + 1]);
      }
      const float2 power_b = *reinterpret_cast<const float2 *>(s.b.largest + col + 8 * j + lane % 4 * 2);
      float result[4];
      uint32_t bad = (exact >> (4 * i + j) & 1) != 0 ? 0 : 15;
#pragma unroll
      for (int e = 0; e < 4; ++e)
        if (!fused_step(power_a[e / 2] * (e % 2 == 0 ? power_b.x : power_b.y), high[e], low[e], inverse[e],
                        acc[i][j][e], result[e]))
          bad |= 1u << e;
      if (__any_sync(0xFFFFFFFF, bad != 0)) {
        const float *const c = acc[i][j];
        const float4 r = repaired(s, row + 16 * i, col + 8 * j, bad, {c[0], c[1], c[2], c[3]},
                                  {result[0], result[1], result[2], result[3]}, list);
        count += uint32_t(__popc(bad));
        result[0] = r.x, result[1] = r.y, result[2] = r.z, result[3] = r.w;
      }
#pragma unroll
      for (int e = 0; e < 4; ++e) acc[i][j][e] = result[e];
    }
  }
  return count;
}

/// Whether all exponents of a tile's rows and columns are within what the kernel vouches for.
__device__ inline bool within_range(const PartsJob &job, int64_t row, int64_t col) {
  __shared__ int extremes[4]; // -smallest and largest, of A and of B
  if (threadIdx.x < 4) extremes[threadIdx.x] = -0x4000;
  __syncthreads();
  if (threadIdx.x < 2 * kPartsTile) {
    const int of_b = int(threadIdx.x) / kPartsTile, i = int(threadIdx.x) % kPartsTile;
    const int2 e = of_b != 0 ? job.b.exponents[col + i] : job.a.exponents[row + i];
    atomicMax(&extremes[2 * of_b], e.x);
    atomicMax(&extremes[2 * of_b + 1], e.y);
  }
  __syncthreads();
  const int smallest_a = extremes[0], largest_a = extremes[1], smallest_b = extremes[2],
            largest_b = extremes[3];
  return max(max(smallest_a, largest_a), max(smallest_b, largest_b)) < kPartsFurthest &&
         smallest_a + smallest_b <= -kPartsLowest && largest_a + largest_b <= kPartsHighest;
}

__global__ void __launch_bounds__(kThreads, 1) parts_product_kernel(const __grid_constant__ PartsJob job) {
  extern __shared__ __align__(16) uint8_t shared[];
  Stage *const stages = reinterpret_cast<Stage *>(shared);
  const int64_t tile_row = int64_t(blockIdx.y) * kPartsTile, tile_col = int64_t(blockIdx.x) * kPartsTile;
  uint8_t &left = job.left[int64_t(blockIdx.y) * gridDim.x + blockIdx.x];
  if (!within_range(job, tile_row, tile_col)) {
    if (threadIdx.x == 0) left = 1;
    return;
  }
  const int warp = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32;
  Repair *const list = reinterpret_cast<Repair *>(stages + kStages) + warp * kFragmentOutputs;
  const int row = warp % 4 * kPiece, col = warp / 4 * kPiece, steps = int(job.a.steps);
  const auto bring = [&](int t) {
    if (t < steps) {
      fetch(job.a, tile_row, t, stages[t % kStages].a);
      fetch(job.b, tile_col, t, stages[t % kStages].b);
    }
    asm volatile("cp.async.commit_group;" ::: "memory");
  };
  for (int t = 0; t < kStages - 1; ++t) bring(t);
  float acc[2][4][4] = {};
  uint32_t repairs = 0;  // of this thread
  bool given_up = false; // a third of a warp's outputs had to be repaired: other kernels are faster
  for (int t = 0; t < steps; ++t) {
    asm volatile("cp.async.wait_group %0;" ::"n"(kStages - 2) : "memory");
    // this step has arrived for all, and all have left the stage that is filled next
    given_up =
        __syncthreads_or(3 * __reduce_add_sync(0xFFFFFFFF, repairs) > uint32_t(t * kPiece * kPiece)) != 0;
    if (given_up) break;
    bring(t + kStages - 1);
    repairs += step_of_warp(stages[t % kStages], row, col, job.limit, acc, list);
  }
  if (threadIdx.x == 0) left = given_up ? 1 : 0;
  if (job.paths != nullptr) repairs = __reduce_add_sync(0xFFFFFFFF, repairs);
  if (job.paths != nullptr && lane == 0) {
    if (warp == 0) atomicAdd(given_up ? &job.paths->tiles_mixed : &job.paths->tiles_framed, 1ull);
    atomicAdd(&job.paths->repaired, repairs);
    if (!given_up) atomicAdd(&job.paths->framed, uint64_t(steps) * kPiece * kPiece - repairs);
  }
  if (given_up) return;
#pragma unroll
  for (int i = 0; i < 2; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int64_t r = tile_row + row + 16 * i + lane / 4 + e / 2 * 8,
                      c = tile_col + col + 8 * j + lane % 4 * 2 + e % 2;
        if (r < job.m && c < job.n)
          write_apart(job.out, FormatId::f32, job.n, r, c, bit_cast<uint32_t>(acc[i][j][e]));
      }
}

} // namespace

bool gemm_parts(const UnitRule &rule, const DeviceOperand &a, const DeviceOperand &b,
                const GemmOutput &output, GemmWorkspace &workspace, TilesLeft &left, cudaStream_t stream,
                Fp4Paths *paths) {
  const bool scaled = rule.family == Family::st_fdpa;
  if ((rule.family != Family::fdpa && !scaled) || rule.scale_block != (scaled ? kPartsLink : 0) ||
      rule.link != kPartsLink || rule.fraction_bits != kPartsFraction || rule.output != Output::rz_f32 ||
      format(rule.a).code_bits > 8 || format(rule.b).code_bits > 8 || rule.floor > kPartsLowest - 10 ||
      a.padded_k == 0)
    return false;
  constexpr int kShared = kStages * int(sizeof(Stage)) + kThreads / 32 * kFragmentOutputs * int(sizeof(Repair));
  int device = 0, shared = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  check(cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
        "cudaDeviceGetAttribute");
  const dim3 tiles(blocks_for(b.rows, kPartsTile), blocks_for(a.rows, kPartsTile));
  if (shared < kShared + 1024 || tiles.y > 65535) return false;
  prepare_parts(rule, a, workspace.parts_a, stream);
  prepare_parts(rule, b, workspace.parts_b, stream);
  workspace.left.reserve(int64_t(tiles.x) * tiles.y);
  static_assert(TilesLeft::kTile == kPartsTile);
  left = {workspace.left.as<uint8_t>(), int64_t(tiles.x)};
  check(cudaFuncSetAttribute(parts_product_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kShared),
        "shared memory of the FP8 product");
  parts_product_kernel<<<tiles, kThreads, kShared, stream>>>(
      {view_of(workspace.parts_a), view_of(workspace.parts_b), a.rows, b.rows,
       high_limit(format(rule.a).mantissa_bits, format(rule.b).mantissa_bits), output,
       workspace.left.as<uint8_t>(), paths});
  check_launch("parts_product_kernel");
  return true;
}

} // namespace nvfp4::cuda
