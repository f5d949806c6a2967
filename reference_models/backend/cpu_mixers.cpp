// SPDX-License-Identifier: Apache-2.0
// The definitions of tensorcore/ as the CPU's BF16 mixers.
#include "nvfp4/reference_models/backend/bf16_mixers.hpp"
#include "nvfp4/reference_models/bf16_mixers/dot.hpp"
#include "nvfp4/reference_models/linear/epilogue.hpp"

#include <algorithm>
#include <omp.h>

namespace nvfp4::models {
namespace {

/// The definitions take as many threads as OpenMP offers: the backend's number, until the end of the scope.
class Threads {
public:
  explicit Threads(int n) : before_(omp_get_max_threads()) { omp_set_num_threads(n); }
  ~Threads() { omp_set_num_threads(before_); }
  Threads(const Threads &) = delete;
  Threads &operator=(const Threads &) = delete;

private:
  int before_;
};

void round_into(std::vector<uint16_t> &words, const float *x, int64_t n) {
  words.resize(size_t(n));
  uint16_t *const to = words.data();
  for (int64_t i = 0; i < n; ++i) to[i] = uint16_t(bit_cast<uint32_t>(to_bf16(x[i])) >> 16);
}

void copy_out(const std::vector<float> &from, float *to) { std::copy(from.begin(), from.end(), to); }

class CpuGla final : public Bf16Gla {
public:
  CpuGla(const bf16_gla::Shape &shape, const Unit &unit, int threads, Isa isa)
      : shape_(shape), unit_(unit), threads_(threads), isa_(isa) {
    bf16_gla::check(shape);
  }

  void forward(const float *q, const float *k, const float *v, const float *g, float *o) override {
    round_into(q_, q, shape_.keys());
    round_into(k_, k, shape_.keys());
    round_into(v_, v, shape_.values());
    const Threads threads(threads_);
    saved_ = bf16_gla::forward(shape_, inputs(g), unit_, isa_);
    copy_out(saved_.o, o);
  }

  void backward(const float *g, const float *grad_o, float *dq, float *dk, float *dv, float *dg) override {
    round_into(grad_, grad_o, shape_.values());
    const Threads threads(threads_);
    const bf16_gla::Backward out = bf16_gla::backward(shape_, inputs(g), grad_, saved_, unit_, isa_);
    copy_out(out.dq, dq);
    copy_out(out.dk, dk);
    copy_out(out.dv, dv);
    copy_out(out.dg, dg);
  }

private:
  [[nodiscard]] bf16_gla::Inputs inputs(const float *g) const {
    return {q_, k_, v_, {g, size_t(shape_.keys())}};
  }

  bf16_gla::Shape shape_;
  const Unit &unit_;
  int threads_;
  Isa isa_;
  std::vector<uint16_t> q_, k_, v_, grad_;
  bf16_gla::Forward saved_;
};

class CpuAttention final : public Bf16Attention {
public:
  CpuAttention(const tensorcore::AttentionShape &shape, int threads, Isa isa)
      : shape_(shape), threads_(threads), isa_(isa) {
    check_shape("attention", shape);
  }

  void forward(const float *q, const float *k, const float *v, float *o) override {
    round_into(q_, q, shape_.q_elements());
    round_into(k_, k, shape_.kv_elements());
    round_into(v_, v, shape_.kv_elements());
    const Threads threads(threads_);
    saved_ = attention_forward(shape_, q_, k_, v_, isa_);
    copy_out(saved_.o32, o);
  }

  void backward(const float *grad_o, float *dq, float *dk, float *dv) override {
    round_into(grad_, grad_o, shape_.q_elements());
    const Threads threads(threads_);
    const tensorcore::AttentionGradients out =
        attention_backward(shape_, q_, k_, v_, saved_.o, saved_.lse2, grad_, isa_);
    copy_out(out.q, dq);
    copy_out(out.k, dk);
    copy_out(out.v, dv);
  }

private:
  tensorcore::AttentionShape shape_;
  int threads_;
  Isa isa_;
  std::vector<uint16_t> q_, k_, v_, grad_;
  tensorcore::AttentionOutput saved_;
};

} // namespace

void require_hopper_bits(const char *caller, const Unit &unit) {
  if (!tensorcore::has_dot_bits(unit.rule))
    throw Error(std::string(caller) + ": needs a unit with the bits of sm_90:wgmma.k16.f32.bf16, got " +
                unit.name() + "; set units.bf16 of the recipe");
}

std::unique_ptr<Bf16Gla> make_cpu_bf16_gla(const bf16_gla::Shape &shape, const Unit &unit, int threads,
                                           Isa isa) {
  return std::make_unique<CpuGla>(shape, unit, threads, isa);
}

std::unique_ptr<Bf16Attention> make_cpu_bf16_attention(const tensorcore::AttentionShape &shape,
                                                       const Unit &unit, int threads, Isa isa) {
  require_hopper_bits("attention with mixers bf16", unit);
  return std::make_unique<CpuAttention>(shape, threads, isa);
}

} // namespace nvfp4::models
