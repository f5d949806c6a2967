// SPDX-License-Identifier: Apache-2.0
// Which arithmetic does cuBLASLt's epilogue D = alpha * acc + beta * C use? K = 16, so the accumulator is one
// instruction and known exactly; each output is compared with the candidates below.
#include "nvfp4/emulator/formats/bf16.hpp"
#include "nvfp4/emulator/tensorcore/catalogue.hpp"
#include "nvfp4/emulator/tensorcore/execute.hpp"
#include "nvfp4/gpu/check/hopper.hpp"
#include "nvfp4/gpu/probes/cublaslt.hpp"
#include "nvfp4/gpu/probes/cublaslt_run.hpp"

#include <cmath>
#include <cstring>
#include <random>

namespace nvfp4::probe {
namespace {

constexpr int kM = 128, kN = 128, kK = 16;

struct Counts {
  int64_t outputs = 0, fma_of_alpha = 0, fma_of_beta_c = 0, two_roundings = 0;
};

/// Runs one product with FP32 or BF16 C and D, and counts which candidate each output equals.
Counts run(cublasLtHandle_t handle, FormatId out, float alpha, float beta, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<uint16_t> a(kM * kK), b(kN * kK);
  for (uint16_t &x : a) x = bf16_word(normal(random));
  for (uint16_t &x : b) x = bf16_word(normal(random));
  const size_t width = out == FormatId::bf16 ? 2 : 4;
  std::vector<uint8_t> c(kM * kN * width);
  for (size_t i = 0; i < kM * kN; ++i) {
    const uint64_t word = encode(out, 3.0f * normal(random));
    std::memcpy(c.data() + i * width, &word, width);
  }
  cuda::DeviceBuffer da, db, dc, dd(int64_t(c.size()));
  da.upload(a), db.upload(b), dc.upload(c);
  // column-major: A^T (K x M), B (K x N), D (M x N); element (i, j) of D at j * M + i
  cublasLtMatmulDesc_t op;
  cublasLtMatrixLayout_t la, lb, lc;
  ok(cublasLtMatmulDescCreate(&op, CUBLAS_COMPUTE_32F, CUDA_R_32F), "descriptor");
  const cublasOperation_t transpose = CUBLAS_OP_T;
  ok(cublasLtMatmulDescSetAttribute(op, CUBLASLT_MATMUL_DESC_TRANSA, &transpose, sizeof transpose),
     "transpose");
  ok(cublasLtMatrixLayoutCreate(&la, CUDA_R_16BF, kK, kM, kK), "layout");
  ok(cublasLtMatrixLayoutCreate(&lb, CUDA_R_16BF, kK, kN, kK), "layout");
  ok(cublasLtMatrixLayoutCreate(&lc, out == FormatId::bf16 ? CUDA_R_16BF : CUDA_R_32F, kM, kN, kM), "layout");
  ok(cublasLtMatmul(handle, op, &alpha, da.as<void>(), la, db.as<void>(), lb, &beta, dc.as<void>(), lc,
                    dd.as<void>(), lc, nullptr, nullptr, 0, nullptr),
     "cublasLtMatmul");
  const std::vector<uint8_t> d = dd.download<uint8_t>(int64_t(c.size()));
  cublasLtMatrixLayoutDestroy(la), cublasLtMatrixLayoutDestroy(lb), cublasLtMatrixLayoutDestroy(lc);
  cublasLtMatmulDescDestroy(op);

  const UnitRule &rule = find_unit("sm_90:mma.m16n8k16.f32.bf16").rule;
  Counts counts;
  for (int j = 0; j < kN; ++j)
    for (int i = 0; i < kM; ++i) {
      const auto row = [](const std::vector<uint16_t> &x, int r) {
        return CodeView{reinterpret_cast<const uint8_t *>(x.data() + r * kK), 16};
      };
      const float acc = bit_cast<float>(uint32_t(fdpa(rule, row(a, i), row(b, j), kK, 0)));
      const int64_t at = int64_t(j) * kM + i;
      const float source = value_f32(out, CodeView{c.data(), int(width) * 8}[at]);
      const uint64_t got = CodeView{d.data(), int(width) * 8}[at];
      const auto is = [&](float y) { return got == encode(out, y, Rounding::nearest_even, Overflow::ieee); };
      ++counts.outputs;
      counts.fma_of_alpha += is(std::fma(alpha, acc, beta * source));
      counts.fma_of_beta_c += is(std::fma(beta, source, alpha * acc));
      counts.two_roundings += is(alpha * acc + beta * source);
    }
  return counts;
}

} // namespace

int64_t epilogue_arithmetic() {
  crosscheck::require_hopper();
  cublasLtHandle_t handle;
  ok(cublasLtCreate(&handle), "cublasLtCreate");
  std::printf("output outputs fma(alpha,acc,beta*C) fma(beta,C,alpha*acc) alpha*acc+beta*C\n");
  int64_t others = 0;
  for (const FormatId out : {FormatId::f32, FormatId::bf16})
    for (unsigned seed = 1; seed <= 4; ++seed) {
      std::mt19937 random(seed);
      const float alpha = std::uniform_real_distribution<float>(0.3f, 3.0f)(random);
      const float beta = std::uniform_real_distribution<float>(-2.0f, 2.0f)(random);
      const Counts c = run(handle, out, alpha, beta, seed);
      std::printf("%-6s %7lld %21lld %21lld %16lld\n", format(out).name, static_cast<long long>(c.outputs),
                  static_cast<long long>(c.fma_of_alpha), static_cast<long long>(c.fma_of_beta_c),
                  static_cast<long long>(c.two_roundings));
      others += c.outputs - c.fma_of_alpha;
    }
  cublasLtDestroy(handle);
  return others;
}

} // namespace nvfp4::probe
