// SPDX-License-Identifier: Apache-2.0
// A backend and an operand engine that pass every call on and add up the time by operation.
#pragma once
#include "nvfp4/reference_models/backend/backend.hpp"
#include "nvfp4/reference_models/linear/operand_engine.hpp"
#include "tools/bench/yardstick.hpp"

#include <map>
#include <string>

namespace nvfp4::bench {

/// Seconds by operation.
using Profile = std::map<std::string, double>;

class Stopwatch {
public:
  Stopwatch(Profile &profile, const char *name) : profile_(profile), name_(name), begin_(now()) {}
  ~Stopwatch() { profile_[name_] += now() - begin_; }
  Stopwatch(const Stopwatch &) = delete;
  Stopwatch &operator=(const Stopwatch &) = delete;

private:
  Profile &profile_;
  const char *name_;
  double begin_;
};

/// Passes on and adds up, likewise.
class ProfilingGla final : public models::Bf16Gla {
public:
  ProfilingGla(std::unique_ptr<models::Bf16Gla> inner, Profile &profile)
      : inner_(std::move(inner)), profile_(profile) {}
  void forward(const float *q, const float *k, const float *v, const float *g, float *o) override {
    const Stopwatch watch(profile_, "GLA forward, BF16");
    inner_->forward(q, k, v, g, o);
  }
  void backward(const float *g, const float *grad_o, float *dq, float *dk, float *dv, float *dg) override {
    const Stopwatch watch(profile_, "GLA backward, BF16");
    inner_->backward(g, grad_o, dq, dk, dv, dg);
  }

private:
  std::unique_ptr<models::Bf16Gla> inner_;
  Profile &profile_;
};

class ProfilingAttention final : public models::Bf16Attention {
public:
  ProfilingAttention(std::unique_ptr<models::Bf16Attention> inner, Profile &profile)
      : inner_(std::move(inner)), profile_(profile) {}
  void forward(const float *q, const float *k, const float *v, float *o) override {
    const Stopwatch watch(profile_, "attention forward, BF16");
    inner_->forward(q, k, v, o);
  }
  void backward(const float *grad_o, float *dq, float *dk, float *dv) override {
    const Stopwatch watch(profile_, "attention backward, BF16");
    inner_->backward(grad_o, dq, dk, dv);
  }

private:
  std::unique_ptr<models::Bf16Attention> inner_;
  Profile &profile_;
};

class ProfilingBackend final : public models::Backend<float> {
public:
  ProfilingBackend(models::Backend<float> &inner, Profile &profile) : inner_(inner), profile_(profile) {}

  void *allocate(size_t bytes) override { return inner_.allocate(bytes); }
  void release(void *memory) noexcept override { inner_.release(memory); }
  void upload(void *device, const void *host, size_t bytes) override { inner_.upload(device, host, bytes); }
  void download(void *host, const void *device, size_t bytes) override {
    inner_.download(host, device, bytes);
  }
  void copy(void *to, const void *from, size_t bytes) override { inner_.copy(to, from, bytes); }
  void zero(void *device, size_t bytes) override { inner_.zero(device, bytes); }
  bool shares_memory() const override { return inner_.shares_memory(); }

#define NVFP4_PROFILE(Kernel)                                                                                \
  void run(const models::Kernel<float> &kernel) override {                                                   \
    const Stopwatch watch(profile_, #Kernel);                                                                \
    inner_.run(kernel);                                                                                      \
  }
  NVFP4_MODEL_KERNELS(NVFP4_PROFILE)
#undef NVFP4_PROFILE

  std::unique_ptr<models::Bf16Gla> make_bf16_gla(const models::bf16_gla::Shape &shape,
                                                 const Unit &unit) override {
    return std::make_unique<ProfilingGla>(inner_.make_bf16_gla(shape, unit), profile_);
  }
  std::unique_ptr<models::Bf16Attention> make_bf16_attention(const models::tensorcore::AttentionShape &shape,
                                                             const Unit &unit) override {
    return std::make_unique<ProfilingAttention>(inner_.make_bf16_attention(shape, unit), profile_);
  }

private:
  models::Backend<float> &inner_;
  Profile &profile_;
};

class ProfilingEngine final : public models::OperandEngine {
public:
  ProfilingEngine(models::OperandEngine &inner, Profile &profile) : inner_(inner), profile_(profile) {}

  std::unique_ptr<models::Operand> make_operand() override { return inner_.make_operand(); }
  void check_supported(const models::LinearRecipe &recipe) const override { inner_.check_supported(recipe); }
  void quantize(std::span<const models::QuantizeTask> tasks) override {
    const Stopwatch watch(profile_, "quantize operands");
    inner_.quantize(tasks);
  }
  void patch(std::span<const models::PatchTask> tasks) override {
    const Stopwatch watch(profile_, "HCP gather, residual, requantize");
    inner_.patch(tasks);
  }
  void multiply(std::span<const models::GemmTask> tasks) override {
    const Stopwatch watch(profile_, tasks.empty()                                  ? "nothing"
                                    : tasks.front().unit->rule.a == FormatId::bf16 ? "GEMM bf16"
                                                                                   : "GEMM fp4, fp8");
    inner_.multiply(tasks);
  }
  void column_errors(const models::Operand &q, FormatId source, const float *x, int64_t rows, int64_t cols,
                     Axis axis, float *means) override {
    const Stopwatch watch(profile_, "HCP scores");
    inner_.column_errors(q, source, x, rows, cols, axis, means);
  }
  void column_maxima(FormatId source, const float *x, int64_t rows, int64_t cols, Axis axis,
                     float *maxima) override {
    const Stopwatch watch(profile_, "HCP scores");
    inner_.column_maxima(source, x, rows, cols, axis, maxima);
  }

private:
  models::OperandEngine &inner_;
  Profile &profile_;
};

} // namespace nvfp4::bench
