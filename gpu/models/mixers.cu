// SPDX-License-Identifier: Apache-2.0
// Rounds q, k, v and grad_o to BF16 and calls the kernels of gpu/hopper. What backward needs stays in device
// memory that the mixer owns.
#include "nvfp4/gpu/models/mixers.hpp"

#include "nvfp4/gpu/device/bf16.cuh"
#include "nvfp4/gpu/device/device.hpp"
#include "nvfp4/gpu/hopper/attention.hpp"
#include "nvfp4/gpu/hopper/gla.hpp"

namespace nvfp4::cuda {
namespace {

constexpr int kThreads = 256;

/// Four elements a thread: heads are multiples of 16.
__global__ void bf16_words_kernel(const float *x, int64_t n, uint16_t *words) {
  const int64_t i = (int64_t(blockIdx.x) * kThreads + threadIdx.x) * 4;
  if (i >= n) return;
  const float4 v = *reinterpret_cast<const float4 *>(x + i);
  *reinterpret_cast<uint2 *>(words + i) = make_uint2(bf16_pair(v.x, v.y), bf16_pair(v.z, v.w));
}

/// An array of BF16 words, filled from FP32.
class Words {
public:
  Words(models::Backend<float> &backend, int64_t n) : words_(backend, n) {}
  const uint16_t *fill(const float *x) const {
    const int64_t n = words_.size();
    bf16_words_kernel<<<blocks_for(n / 4, kThreads), kThreads>>>(x, n, words_.data());
    check_launch("bf16_words_kernel");
    return words_.data();
  }
  [[nodiscard]] const uint16_t *data() const { return words_.data(); }

private:
  models::Array<uint16_t> words_;
};

void require_hopper(const Unit &unit) {
  int device = 0, major = 0, minor = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "compute capability");
  check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device), "compute capability");
  if (major != 9)
    throw models::NoDevice("mixers in BF16 need a GPU of compute capability 9.0, this one has " +
                           std::to_string(major) + "." + std::to_string(minor) +
                           "; use --device cpu, or a recipe with mixers f32");
  models::require_hopper_bits("mixers in BF16 on a GPU", unit);
}

void mark(Timeline *timeline, const char *name) {
  if (timeline != nullptr) timeline->mark(name);
}

class CudaGla final : public models::Bf16Gla {
public:
  CudaGla(models::Backend<float> &backend, const models::bf16_gla::Shape &shape, Timeline *timeline)
      : shape_(shape), timeline_(timeline), q_(backend, shape.keys()), k_(backend, shape.keys()),
        v_(backend, shape.values()), grad_(backend, shape.values()),
        memory_(backend, gla_workspace_bytes(shape, true)),
        work_(gla_workspace(shape, memory_.data(), true)) {}

  void forward(const float *q, const float *k, const float *v, const float *g, float *o) override {
    const GlaInputs in{q_.fill(q), k_.fill(k), v_.fill(v), g};
    mark(timeline_, "BF16 words");
    gla_forward(shape_, in, work_, o, nullptr, nullptr);
    mark(timeline_, "GLA forward, BF16");
  }

  void backward(const float *g, const float *grad_o, float *dq, float *dk, float *dv, float *dg) override {
    const uint16_t *const grad = grad_.fill(grad_o);
    mark(timeline_, "BF16 words");
    gla_backward(shape_, {q_.data(), k_.data(), v_.data(), g}, grad, work_, {dq, dk, dv, dg}, nullptr);
    mark(timeline_, "GLA backward, BF16");
  }

private:
  models::bf16_gla::Shape shape_;
  Timeline *timeline_;
  Words q_, k_, v_, grad_;
  models::Array<uint8_t> memory_;
  GlaWorkspace work_;
};

class CudaAttention final : public models::Bf16Attention {
public:
  CudaAttention(models::Backend<float> &backend, const models::tensorcore::AttentionShape &shape,
                Timeline *timeline)
      : shape_(shape), timeline_(timeline), q_(backend, shape.q_elements()), k_(backend, shape.kv_elements()),
        v_(backend, shape.kv_elements()), grad_(backend, shape.q_elements()), o_(backend, shape.q_elements()),
        lse2_(backend, shape.rows()) {}

  void forward(const float *q, const float *k, const float *v, float *o) override {
    const uint16_t *const qs = q_.fill(q), *const ks = k_.fill(k), *const vs = v_.fill(v);
    mark(timeline_, "BF16 words");
    attention_forward(shape_, qs, ks, vs, o_.data(), o, lse2_.data(), nullptr);
    mark(timeline_, "attention forward, BF16");
  }

  void backward(const float *grad_o, float *dq, float *dk, float *dv) override {
    const uint16_t *const grad = grad_.fill(grad_o);
    mark(timeline_, "BF16 words");
    attention_backward(shape_, q_.data(), k_.data(), v_.data(), o_.data(), lse2_.data(), grad, dq, dk, dv,
                       nullptr);
    mark(timeline_, "attention backward, BF16");
  }

private:
  models::tensorcore::AttentionShape shape_;
  Timeline *timeline_;
  Words q_, k_, v_, grad_;
  models::Array<uint16_t> o_;
  models::Array<float> lse2_;
};

} // namespace

std::unique_ptr<models::Bf16Gla> make_cuda_bf16_gla(models::Backend<float> &backend,
                                                    const models::bf16_gla::Shape &shape, const Unit &unit,
                                                    Timeline *timeline) {
  models::bf16_gla::check(shape);
  require_hopper(unit);
  return std::make_unique<CudaGla>(backend, shape, timeline);
}

std::unique_ptr<models::Bf16Attention>
make_cuda_bf16_attention(models::Backend<float> &backend, const models::tensorcore::AttentionShape &shape,
                         const Unit &unit, Timeline *timeline) {
  check_shape("attention", shape);
  require_hopper(unit);
  return std::make_unique<CudaAttention>(backend, shape, timeline);
}

} // namespace nvfp4::cuda
