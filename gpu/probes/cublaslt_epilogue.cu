// SPDX-License-Identifier: Apache-2.0
// Which arithmetic does cuBLASLt's epilogue D = alpha * acc + beta * C use? K = 16, so the accumulator is one HMMA and
// known exactly; each output is compared with the candidates below. Build:
//   nvcc -std=c++20 --fmad=false -O2 -arch=sm_90 -I. gpu/probes/cublaslt_epilogue.cu -lcublasLt -o epilogue
#include "nvfp4/emulator/tensorcore/execute.hpp"

#include <cublasLt.h>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

namespace {

void check(bool ok, const char *what) {
  if (ok) return;
  std::fprintf(stderr, "cublaslt_epilogue: %s failed\n", what);
  std::exit(1);
}

constexpr int kM = 128, kN = 128, kK = 16;

struct Counts {
  long outputs = 0, fma_of_beta_c = 0, fma_of_alpha = 0, two_roundings = 0;
};

/// Runs one product with FP32 or BF16 C and D, and counts which candidate each output equals.
Counts run(cublasLtHandle_t handle, bool bf16_out, float alpha, float beta, unsigned seed) {
  using namespace nvfp4;
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<uint16_t> a(kM * kK), b(kN * kK);
  for (uint16_t &x : a) x = uint16_t(encode(FormatId::bf16, normal(random)));
  for (uint16_t &x : b) x = uint16_t(encode(FormatId::bf16, normal(random)));
  const FormatId out = bf16_out ? FormatId::bf16 : FormatId::f32;
  const size_t width = bf16_out ? 2 : 4;
  std::vector<uint8_t> c(kM * kN * width), d(kM * kN * width);
  for (int i = 0; i < kM * kN; ++i) {
    const uint64_t word = encode(out, 3.0f * normal(random));
    memcpy(c.data() + i * width, &word, width);
  }
  void *da, *db, *dc, *dd;
  check(cudaMalloc(&da, a.size() * 2) == cudaSuccess && cudaMalloc(&db, b.size() * 2) == cudaSuccess &&
            cudaMalloc(&dc, c.size()) == cudaSuccess && cudaMalloc(&dd, d.size()) == cudaSuccess, "cudaMalloc");
  cudaMemcpy(da, a.data(), a.size() * 2, cudaMemcpyHostToDevice);
  cudaMemcpy(db, b.data(), b.size() * 2, cudaMemcpyHostToDevice);
  cudaMemcpy(dc, c.data(), c.size(), cudaMemcpyHostToDevice);
  // column-major: A^T (K x M), B (K x N), D (M x N); element (i, j) of D at j * M + i
  cublasLtMatmulDesc_t op;
  cublasLtMatrixLayout_t la, lb, lc;
  check(cublasLtMatmulDescCreate(&op, CUBLAS_COMPUTE_32F, CUDA_R_32F) == 0, "descriptor");
  const cublasOperation_t transpose = CUBLAS_OP_T;
  cublasLtMatmulDescSetAttribute(op, CUBLASLT_MATMUL_DESC_TRANSA, &transpose, sizeof transpose);
  const cudaDataType_t type = bf16_out ? CUDA_R_16BF : CUDA_R_32F;
  cublasLtMatrixLayoutCreate(&la, CUDA_R_16BF, kK, kM, kK);
  cublasLtMatrixLayoutCreate(&lb, CUDA_R_16BF, kK, kN, kK);
  cublasLtMatrixLayoutCreate(&lc, type, kM, kN, kM);
  check(cublasLtMatmul(handle, op, &alpha, da, la, db, lb, &beta, dc, lc, dd, lc, nullptr, nullptr, 0, nullptr) == 0,
        "cublasLtMatmul");
  check(cudaMemcpy(d.data(), dd, d.size(), cudaMemcpyDeviceToHost) == cudaSuccess, "copy");
  cudaFree(da), cudaFree(db), cudaFree(dc), cudaFree(dd);

  UnitRule rule{Family::fdpa, FormatId::bf16, FormatId::bf16, FormatId::f32, Output::rz_f32, 16, 16, 25, -133,
                FormatId::f32, 0, false};
  Counts counts;
  for (int j = 0; j < kN; ++j)
    for (int i = 0; i < kM; ++i) {
      const auto row = [](const std::vector<uint16_t> &x, int r) {
        return CodeView{reinterpret_cast<const uint8_t *>(x.data() + r * kK), 16};
      };
      const float acc = value_f32(FormatId::f32, fdpa(rule, row(a, i), row(b, j), kK, 0));
      const int64_t at = int64_t(j) * kM + i;
      const float source = value_f32(out, CodeView{c.data(), int(width) * 8}[at]);
      const uint64_t got = CodeView{d.data(), int(width) * 8}[at];
      ++counts.outputs;
      counts.fma_of_alpha += got == encode(out, fmaf(alpha, acc, beta * source), Rounding::nearest_even, Overflow::ieee);
      counts.fma_of_beta_c += got == encode(out, fmaf(beta, source, alpha * acc), Rounding::nearest_even, Overflow::ieee);
      counts.two_roundings += got == encode(out, alpha * acc + beta * source, Rounding::nearest_even, Overflow::ieee);
    }
  return counts;
}

} // namespace

int main() {
  cublasLtHandle_t handle;
  check(cublasLtCreate(&handle) == 0, "cublasLtCreate");
  std::printf("output outputs fma(alpha,acc,beta*C) fma(beta,C,alpha*acc) alpha*acc+beta*C\n");
  for (const bool bf16 : {false, true})
    for (unsigned seed = 1; seed <= 4; ++seed) {
      std::mt19937 random(seed);
      const float alpha = std::uniform_real_distribution<float>(0.3f, 3.0f)(random);
      const float beta = std::uniform_real_distribution<float>(-2.0f, 2.0f)(random);
      const Counts c = run(handle, bf16, alpha, beta, seed);
      std::printf("%-6s %7ld %21ld %21ld %16ld\n", bf16 ? "bf16" : "f32", c.outputs, c.fma_of_alpha, c.fma_of_beta_c,
                  c.two_roundings);
    }
}
