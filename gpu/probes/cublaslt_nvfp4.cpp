// SPDX-License-Identifier: Apache-2.0
// Does cuBLASLt's NVFP4 GEMM (VEC16_UE4M3, 128x4 scales) give the words of the emulator's unit of the GPU at
// hand? And with --directed: which model of FP4 accumulation do the vectors of gpu/blackwell/directed.hpp
// choose? Needs a Blackwell GPU; compiled, not yet run.
#include "nvfp4/emulator/gemm/gemm.hpp"
#include "nvfp4/emulator/quantize/quantize.hpp"
#include "nvfp4/gpu/blackwell/directed.hpp"
#include "nvfp4/gpu/probes/cublaslt.hpp"
#include "nvfp4/gpu/probes/cublaslt_run.hpp"
#include "nvfp4/reference_models/backend/backend.hpp"

#include <algorithm>
#include <array>
#include <iterator>
#include <random>

namespace nvfp4::probe {
namespace {

using namespace cuda::blackwell;

constexpr size_t kWorkspace = size_t{64} << 20;
constexpr auto kModels = enumerators<Accumulation>();
using Counts = std::array<int64_t, kModels.size()>; ///< of each model; mmasim, the default, is the first

/// An operand on the host: codes (rows, k / 2), linear scales (rows, k / 16).
struct Operand {
  int64_t rows, k;
  std::vector<uint8_t> codes, scales;
};

/// D (M,N) = alpha A (M,K) B (N,K)^T. cuBLASLt is column-major: D^T (N,M) = B * A^T, so its A is our B.
class Fp4Matmul {
public:
  Fp4Matmul(int64_t m, int64_t n, int64_t k, bool bf16) {
    ok(cublasLtCreate(&handle_), "cublasLtCreate");
    ok(cublasLtMatmulDescCreate(&op_, CUBLAS_COMPUTE_32F, CUDA_R_32F), "descriptor");
    const cublasOperation_t transpose = CUBLAS_OP_T;
    set(CUBLASLT_MATMUL_DESC_TRANSA, transpose);
    const cublasLtMatmulMatrixScale_t mode = CUBLASLT_MATMUL_MATRIX_SCALE_VEC16_UE4M3;
    set(CUBLASLT_MATMUL_DESC_A_SCALE_MODE, mode), set(CUBLASLT_MATMUL_DESC_B_SCALE_MODE, mode);
    ok(cublasLtMatrixLayoutCreate(&b_, CUDA_R_4F_E2M1, uint64_t(k), uint64_t(n), k), "layout");
    ok(cublasLtMatrixLayoutCreate(&a_, CUDA_R_4F_E2M1, uint64_t(k), uint64_t(m), k), "layout");
    ok(cublasLtMatrixLayoutCreate(&d_, bf16 ? CUDA_R_16BF : CUDA_R_32F, uint64_t(n), uint64_t(m), n),
       "layout");
    workspace_.reserve(int64_t(kWorkspace));
  }
  ~Fp4Matmul() {
    cublasLtMatrixLayoutDestroy(a_), cublasLtMatrixLayoutDestroy(b_), cublasLtMatrixLayoutDestroy(d_);
    cublasLtMatmulDescDestroy(op_);
    cublasLtDestroy(handle_);
  }
  Fp4Matmul(const Fp4Matmul &) = delete;
  Fp4Matmul &operator=(const Fp4Matmul &) = delete;

  /// Scale pointers belong to the descriptor: set before heuristics() and run().
  void scales(const uint8_t *a, const uint8_t *b) {
    set(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, b), set(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, a);
  }
  [[nodiscard]] std::vector<cublasLtMatmulAlgo_t> heuristics() const {
    cublasLtMatmulPreference_t preference;
    ok(cublasLtMatmulPreferenceCreate(&preference), "preference");
    ok(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &kWorkspace,
                                            sizeof kWorkspace),
       "workspace");
    cublasLtMatmulHeuristicResult_t found[16] = {};
    int count = 0;
    const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(handle_, op_, b_, a_, d_, d_, preference,
                                                                 int(std::size(found)), found, &count);
    cublasLtMatmulPreferenceDestroy(preference);
    std::vector<cublasLtMatmulAlgo_t> algos;
    for (int i = 0; status == CUBLAS_STATUS_SUCCESS && i < count; ++i)
      if (found[i].state == CUBLAS_STATUS_SUCCESS) algos.push_back(found[i].algo);
    return algos;
  }
  [[nodiscard]] bool run(const cublasLtMatmulAlgo_t &algo, float alpha, const uint8_t *a, const uint8_t *b,
                         void *d) {
    const float zero = 0.0f;
    const bool done = cublasLtMatmul(handle_, op_, &alpha, b, b_, a, a_, &zero, d, d_, d, d_, &algo,
                                     workspace_.as<void>(), kWorkspace, nullptr) == CUBLAS_STATUS_SUCCESS;
    if (done) cuda::check(cudaDeviceSynchronize(), "cublasLtMatmul");
    return done;
  }

private:
  template <class T> void set(cublasLtMatmulDescAttributes_t what, const T &value) {
    ok(cublasLtMatmulDescSetAttribute(op_, what, &value, sizeof value), "descriptor attribute");
  }
  cublasLtHandle_t handle_ = nullptr;
  cublasLtMatmulDesc_t op_ = nullptr;
  cublasLtMatrixLayout_t a_ = nullptr, b_ = nullptr, d_ = nullptr;
  cuda::DeviceBuffer workspace_;
};

int split_of(const cublasLtMatmulAlgo_t &algo) {
  int parts = 0;
  size_t written = 0;
  cublasLtMatmulAlgoConfigGetAttribute(&algo, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &parts, sizeof parts,
                                       &written);
  return parts;
}

/// Both operands on the device, scales in 128x4 tiles, and the results of every algorithm offered.
struct Results {
  std::vector<int> split;
  std::vector<std::vector<uint8_t>> words; // (M,N) of the output type
};
Results multiply(const Operand &a, const Operand &b, float alpha, bool bf16) {
  cuda::DeviceBuffer codes_a, codes_b, scales_a, scales_b, d;
  codes_a.upload(a.codes), codes_b.upload(b.codes);
  scales_a.upload(tile_scales(a.scales, a.rows, a.k / 16)),
      scales_b.upload(tile_scales(b.scales, b.rows, b.k / 16));
  const int64_t bytes = a.rows * b.rows * (bf16 ? 2 : 4);
  d.reserve(bytes);
  Fp4Matmul matmul(a.rows, b.rows, a.k, bf16);
  matmul.scales(scales_a.as<uint8_t>(), scales_b.as<uint8_t>());
  Results results;
  for (const cublasLtMatmulAlgo_t &algo : matmul.heuristics()) {
    cuda::check(cudaMemset(d.as<void>(), 0xFF, size_t(bytes)), "cudaMemset");
    if (!matmul.run(algo, alpha, codes_a.as<uint8_t>(), codes_b.as<uint8_t>(), d.as<void>())) continue;
    results.split.push_back(split_of(algo));
    results.words.push_back(d.download<uint8_t>(bytes));
  }
  if (results.words.empty()) throw Error("cuBLASLt offers no NVFP4 algorithm for this shape");
  return results;
}

Operand random_operand(int64_t rows, int64_t k, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> x(size_t(rows * k));
  for (float &v : x) v = normal(random);
  BlockScaled q = quantize({x.data(), rows, k, k}, find_convention("te"));
  return {rows, k, std::move(q.codes), std::move(q.scales)};
}

/// Words that differ from the emulator's under each model.
Counts mismatches(const Unit &unit, const Operand &a, const Operand &b, float alpha, bool bf16,
                  const std::vector<uint8_t> &got) {
  const GemmOperand pa = make_operand(unit, Side::a, RawCodes{a.rows, a.k, a.codes},
                                      RawScales(a.scales, ScaleLayout::linear)),
                    pb = make_operand(unit, Side::b, RawCodes{b.rows, b.k, b.codes},
                                      RawScales(b.scales, ScaleLayout::linear));
  Counts wrong{};
  for (size_t i = 0; i < kModels.size(); ++i) {
    GemmOptions options;
    options.alpha = alpha;
    options.out = bf16 ? FormatId::bf16 : FormatId::f32;
    options.accumulation = kModels[i];
    const GemmResult want = GemmPlan(unit, options).run(pa, pb);
    const size_t width = bf16 ? 2 : 4;
    for (size_t at = 0; at < got.size(); at += width)
      wrong[i] += std::equal(got.begin() + int64_t(at), got.begin() + int64_t(at + width),
                             want.words.begin() + int64_t(at))
                      ? 0
                      : 1;
  }
  return wrong;
}

int64_t compare(const Unit &unit) {
  std::printf("m n k output alpha split-k outputs mismatches:");
  for (const Accumulation model : kModels) std::printf(" %s", std::string(to_string(model)).c_str());
  std::printf("\n");
  int64_t differ = 0;
  const int64_t shapes[][3] = {
      {128, 128, 64}, {128, 256, 512}, {256, 384, 4096}, {1024, 1024, 2048}, {16, 4096, 4096}};
  for (const auto &[m, n, k] : shapes)
    for (const bool bf16 : {false, true})
      for (const float alpha : {1.0f, 0.37f}) {
        const Operand a = random_operand(m, k, 1), b = random_operand(n, k, 2);
        const Results results = multiply(a, b, alpha, bf16);
        for (size_t i = 0; i < results.words.size(); ++i) {
          const Counts wrong = mismatches(unit, a, b, alpha, bf16, results.words[i]);
          differ += wrong[0];
          std::printf("%lld %lld %lld %s %g %d %lld", (long long)m, (long long)n, (long long)k,
                      bf16 ? "bf16" : "f32", alpha, results.split[i], (long long)(m * n));
          for (const int64_t count : wrong) std::printf(" %lld", (long long)count);
          std::printf("\n");
        }
      }
  return differ;
}

int64_t directed(const Unit &unit) {
  return ask_directed(unit.rule, [&](const DirectedOperands &o) {
    return multiply({o.rows, o.k, o.codes_a, o.scales_a}, {o.rows, o.k, o.codes_b, o.scales_b}, 1.0f, false).words.front();
  });
}

} // namespace

int64_t nvfp4_words(bool directed_vectors_only) {
  int devices = 0, major = 0, minor = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0 ||
      cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0) != cudaSuccess ||
      cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0) != cudaSuccess || major < 10)
    throw models::NoDevice("no suitable device: needs a GPU of compute capability 10.0 or newer");
  const std::string arch = "sm_" + std::to_string(10 * major + minor);
  const Unit &unit =
      find_unit(arch + (major == 12 ? ":mma.m16n8k64" : ":tcgen05.k64") + ".f32.mxf4nvf4.ue4m3.block16");
  std::printf("unit %s, cuBLASLt %zu\n", unit.name().c_str(), cublasLtGetVersion());
  return directed_vectors_only ? directed(unit) : compare(unit);
}

} // namespace nvfp4::probe
