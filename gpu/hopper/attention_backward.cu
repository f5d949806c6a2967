// SPDX-License-Identifier: Apache-2.0
// Attention backward: the row sums of grad_o * o, then the kernels of dk and dv and of dq. Scores are
// computed twice so that every gradient has one fixed order and no atomic operation.
#include "nvfp4/gpu/hopper/attention.hpp"

#include "nvfp4/emulator/numerics/reduce.hpp"
#include "nvfp4/gpu/hopper/attention_backward.cuh"

namespace nvfp4::cuda {
namespace {

using namespace hopper;

/// One warp a row: lane l sums elements l, l + 32, ..., then a butterfly. Rows behind the length get +Inf and
/// 0.
__global__ void prepare_kernel(int length, int padded, int heads, int dim, int64_t rows, const uint16_t *o,
                               const uint16_t *grad_o, const float *lse2, float *padded_lse2, float *d) {
  const int64_t row = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) / 32;
  const int lane = int(threadIdx.x & 31);
  if (row >= rows) return;
  const int64_t i = row % padded, head = row / padded % heads, sequence = row / padded / heads;
  float sum = 0.0f;
  if (i < length) {
    const int64_t at = ((sequence * length + i) * heads + head) * dim;
    for (int e = lane; e < dim; e += 32)
      sum = numerics::fma(bf16_value(grad_o[at + e]), bf16_value(o[at + e]), sum);
    for (int step = 16; step > 0; step /= 2) sum = sum + __shfl_xor_sync(~0u, sum, step);
  }
  if (lane != 0) return;
  d[row] = sum;
  padded_lse2[row] = i < length ? lse2[(sequence * heads + head) * length + i] : infinity();
}

} // namespace

void attention_backward(const AttentionShape &s, const uint16_t *q, const uint16_t *k, const uint16_t *v,
                        const uint16_t *o, const float *lse2, const uint16_t *grad_o, float *grad_q,
                        float *grad_k, float *grad_v, cudaStream_t stream) {
  check_attention("attention_backward", s, {q, k, v, o, grad_o, lse2, grad_q, grad_k, grad_v});
  const int64_t padded = (s.length + kBackwardBlock - 1) / kBackwardBlock * kBackwardBlock;
  const int64_t rows = s.batch * s.heads * padded;
  const StreamBuffer memory(8 * rows, stream);
  float *const padded_lse2 = memory.as<float>(), *const d = padded_lse2 + rows;
  prepare_kernel<<<blocks_for(rows, 8), 256, 0, stream>>>(int(s.length), int(padded), int(s.heads),
                                                          int(s.dim), rows, o, grad_o, lse2, padded_lse2, d);
  check_launch("attention backward, row sums");
  const Backward b{{},
                   int(s.length),
                   int(padded),
                   int(s.heads),
                   int(s.kv_heads),
                   int(s.group()),
                   s.causal,
                   s.logit_scale() * kLog2E,
                   s.logit_scale(),
                   padded_lse2,
                   d};
  launch_backward_kv(s, q, k, v, grad_o, b, grad_k, grad_v, stream);
  launch_backward_q(s, q, k, v, grad_o, b, grad_q, stream);
}

} // namespace nvfp4::cuda
