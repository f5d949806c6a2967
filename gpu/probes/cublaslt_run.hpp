// SPDX-License-Identifier: Apache-2.0
// Runs D (M,N) = A (M,K) * B (N,K)^T through every algorithm that cuBLASLt's heuristics offer for it, and
// through the same algorithms with K split by hand. For the probes.
#pragma once
#include "nvfp4/gpu/device/device.hpp"

#include <cublasLt.h>

#include <cstdio>
#include <string>
#include <vector>

namespace nvfp4::probe {

struct Problem {
  cudaDataType_t type;    ///< of both operands
  bool fast_accumulation; ///< CUBLASLT_MATMUL_DESC_FAST_ACCUM; meaningful for FP8
  int64_t m, n, k;
  cudaDataType_t out = CUDA_R_32F;
};

/// The configuration of an algorithm, as cublasLtMatmulAlgoConfigGetAttribute tells it.
struct Config {
  int id = 0, tile = 0, stages = 0, split = 0, reduction = 0, swizzle = 0, custom = 0;
  uint16_t inner = 0, cluster = 0;
  [[nodiscard]] std::string text() const {
    char s[160];
    std::snprintf(
        s, sizeof s,
        "algo %d tile %d stages %d inner %d cluster %d swizzle %d custom %d split-k %d reduction %d", id,
        tile, stages, int(inner), int(cluster), swizzle, custom, split, reduction);
    return s;
  }
};

inline void ok(cublasStatus_t status, const char *what) {
  if (status != CUBLAS_STATUS_SUCCESS)
    throw Error(std::string("cuBLASLt: ") + what + ": " + cublasLtGetStatusString(status));
}

/// Layouts and descriptor of one problem. cuBLASLt is column-major: its A is ours, transposed; its D is D^T,
/// so the operands change places: D^T (N,M) = B * A^T.
class Matmul {
public:
  explicit Matmul(const Problem &p) {
    ok(cublasLtCreate(&handle_), "cublasLtCreate");
    ok(cublasLtMatmulDescCreate(&op_, CUBLAS_COMPUTE_32F, CUDA_R_32F), "descriptor");
    const cublasOperation_t transpose = CUBLAS_OP_T;
    ok(cublasLtMatmulDescSetAttribute(op_, CUBLASLT_MATMUL_DESC_TRANSA, &transpose, sizeof transpose),
       "transpose");
    const int8_t fast = p.fast_accumulation;
    if (p.type != CUDA_R_16BF)
      ok(cublasLtMatmulDescSetAttribute(op_, CUBLASLT_MATMUL_DESC_FAST_ACCUM, &fast, sizeof fast),
         "fast accumulation");
    ok(cublasLtMatrixLayoutCreate(&b_, p.type, uint64_t(p.k), uint64_t(p.n), p.k), "layout");
    ok(cublasLtMatrixLayoutCreate(&a_, p.type, uint64_t(p.k), uint64_t(p.m), p.k), "layout");
    ok(cublasLtMatrixLayoutCreate(&d_, p.out, uint64_t(p.n), uint64_t(p.m), p.n), "layout");
  }
  ~Matmul() {
    cublasLtMatrixLayoutDestroy(a_), cublasLtMatrixLayoutDestroy(b_), cublasLtMatrixLayoutDestroy(d_);
    cublasLtMatmulDescDestroy(op_);
    cublasLtDestroy(handle_);
  }
  Matmul(const Matmul &) = delete;
  Matmul &operator=(const Matmul &) = delete;

  [[nodiscard]] std::vector<cublasLtMatmulAlgo_t> heuristics() const {
    cublasLtMatmulPreference_t preference;
    ok(cublasLtMatmulPreferenceCreate(&preference), "preference");
    ok(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &kWorkspace,
                                            sizeof kWorkspace),
       "workspace");
    std::vector<cublasLtMatmulHeuristicResult_t> found(256);
    int count = 0;
    const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(handle_, op_, b_, a_, d_, d_, preference,
                                                                 int(found.size()), found.data(), &count);
    cublasLtMatmulPreferenceDestroy(preference);
    std::vector<cublasLtMatmulAlgo_t> algos;
    for (int i = 0; status == CUBLAS_STATUS_SUCCESS && i < count; ++i)
      if (found[size_t(i)].state == CUBLAS_STATUS_SUCCESS) algos.push_back(found[size_t(i)].algo);
    return algos;
  }

  /// The algorithm with K split by hand; false where it cannot.
  [[nodiscard]] bool split(cublasLtMatmulAlgo_t &algo, int parts, uint32_t reduction) const {
    cublasLtMatmulAlgoConfigSetAttribute(&algo, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &parts, sizeof parts);
    cublasLtMatmulAlgoConfigSetAttribute(&algo, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, &reduction,
                                         sizeof reduction);
    cublasLtMatmulHeuristicResult_t result{};
    return cublasLtMatmulAlgoCheck(handle_, op_, b_, a_, d_, d_, &algo, &result) == CUBLAS_STATUS_SUCCESS &&
           result.workspaceSize <= kWorkspace;
  }

  /// False where the library refuses.
  [[nodiscard]] bool run(const cublasLtMatmulAlgo_t &algo, const void *a, const void *b, void *d,
                         cudaStream_t stream = nullptr) {
    const float one = 1, zero = 0;
    if (workspace_.size() == 0) {
      workspace_.reserve(int64_t(kWorkspace));
      cuda::check(cudaMemset(workspace_.as<void>(), 0, kWorkspace), "cudaMemset");
    }
    return cublasLtMatmul(handle_, op_, &one, b, b_, a, a_, &zero, d, d_, d, d_, &algo, workspace_.as<void>(),
                          kWorkspace, stream) == CUBLAS_STATUS_SUCCESS;
  }

  [[nodiscard]] static Config config(const cublasLtMatmulAlgo_t &algo) {
    Config c;
    const auto get = [&](cublasLtMatmulAlgoConfigAttributes_t what, auto &to) {
      size_t written;
      cublasLtMatmulAlgoConfigGetAttribute(&algo, what, &to, sizeof to, &written);
    };
    get(CUBLASLT_ALGO_CONFIG_ID, c.id), get(CUBLASLT_ALGO_CONFIG_TILE_ID, c.tile);
    get(CUBLASLT_ALGO_CONFIG_STAGES_ID, c.stages), get(CUBLASLT_ALGO_CONFIG_SPLITK_NUM, c.split);
    get(CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, c.reduction),
        get(CUBLASLT_ALGO_CONFIG_CTA_SWIZZLING, c.swizzle);
    get(CUBLASLT_ALGO_CONFIG_CUSTOM_OPTION, c.custom), get(CUBLASLT_ALGO_CONFIG_INNER_SHAPE_ID, c.inner);
    get(CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID, c.cluster);
    return c;
  }

private:
  static constexpr size_t kWorkspace = size_t{64} << 20;
  cublasLtHandle_t handle_ = nullptr;
  cublasLtMatmulDesc_t op_ = nullptr;
  cublasLtMatrixLayout_t a_ = nullptr, b_ = nullptr, d_ = nullptr;
  cuda::DeviceBuffer workspace_;
};

} // namespace nvfp4::probe
