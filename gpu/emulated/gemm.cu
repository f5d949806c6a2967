// SPDX-License-Identifier: Apache-2.0
// The front of the products: checks, padding of K, the choice of an engine, and the definition, one thread
// per output.
#include "nvfp4/gpu/emulated/gemm_detail.cuh"

namespace nvfp4::cuda {
namespace {

__global__ void definition_kernel(UnitRule rule, DeviceOperand a, DeviceOperand b, GemmOutput out,
                                  Accumulation accumulation, TilesLeft tiles) {
  const int64_t o = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (o >= a.rows * b.rows) return;
  const int64_t i = o / b.rows, j = o % b.rows;
  if (!tiles.has(i, j)) return;
  const int bits_a = format(rule.a).storage_bits, bits_b = format(rule.b).storage_bits;
  DotOperands op{{a.codes + i * a.padded_k * bits_a / 8, bits_a},
                 {b.codes + j * b.padded_k * bits_b / 8, bits_b}};
  if (rule.scale_block != 0) {
    op.scale_a = a.scales + i * rule.scale_row(a.padded_k);
    op.scale_b = b.scales + j * rule.scale_row(b.padded_k);
  }
  uint64_t start = 0;
  if (out.start != nullptr)
    start = rule.acc == FormatId::f64 ? static_cast<const uint64_t *>(out.start)[o]
                                      : static_cast<const uint32_t *>(out.start)[o];
  write_output(out, rule.acc, b.rows, i, j, dot(rule, op, a.padded_k, start, accumulation));
}

std::string shape(const DeviceOperand &x) {
  return "[" + std::to_string(x.rows) + ", " + std::to_string(x.k) + "] " + format(x.format).name;
}

void check_operands(const UnitRule &rule, const DeviceOperand &a, const DeviceOperand &b,
                    const GemmOutput &out) {
  if (a.format != rule.a || b.format != rule.b)
    throw Error(std::string("cuda::gemm: the unit multiplies ") + format(rule.a).name + " by " +
                format(rule.b).name + ", got " + shape(a) + " and " + shape(b));
  if (a.k != b.k || a.rows < 0 || b.rows < 0 || a.k < 0)
    throw Error("cuda::gemm: A and B need the same K, got " + shape(a) + " and " + shape(b));
  for (const DeviceOperand *x : {&a, &b}) {
    const int multiple = rule.scale_block != 0                 ? rule.scale_block
                         : format(x->format).storage_bits == 4 ? 2
                                                               : 1;
    if (x->padded_k < x->k || x->padded_k % multiple != 0)
      throw Error("cuda::gemm: padded K must be a multiple of " + std::to_string(multiple) +
                  " and at least K, got " + std::to_string(x->padded_k) + " for " + shape(*x));
    if ((x->scales != nullptr) != (rule.scale_block != 0) && x->rows * x->k > 0)
      throw Error(rule.scale_block != 0 ? "cuda::gemm: the unit needs block scales for both operands"
                                        : "cuda::gemm: the unit takes no block scales");
  }
  const bool f64 = rule.acc == FormatId::f64;
  const bool fits = out.accumulators ||
                    (f64 ? out.out == FormatId::f64
                         : out.out == FormatId::f32 || out.out == FormatId::bf16 || out.out == FormatId::f16);
  if (!fits)
    throw Error(std::string("cuda::gemm: the unit cannot write ") + format(out.out).name +
                " output; choose " + (f64 ? "f64" : "f32, bf16 or f16"));
  if (out.beta != 0.0f && out.c == nullptr && !out.accumulators)
    throw Error("cuda::gemm: beta is not 0, but C is null");
}

void run_definition(const UnitRule &rule, const DeviceOperand &a, const DeviceOperand &b,
                    const GemmOutput &output, Accumulation accumulation, const TilesLeft &tiles,
                    cudaStream_t stream) {
  if (a.padded_k != b.padded_k) throw Error("cuda::gemm: A and B need the same padded K");
  definition_kernel<<<blocks_for(a.rows * b.rows, 128), 128, 0, stream>>>(rule, a, b, output, accumulation,
                                                                          tiles);
  check_launch("definition_kernel");
}

} // namespace

void gemm_definition(const UnitRule &rule, const DeviceOperand &a, const DeviceOperand &b,
                     const GemmOutput &output, Accumulation accumulation, GemmWorkspace &workspace,
                     cudaStream_t stream) {
  check_operands(rule, a, b, output);
  if (a.rows * b.rows == 0) return;
  DeviceOperand x = pad_operand(rule, a, workspace.codes_a, workspace.scales_a, stream);
  DeviceOperand y = pad_operand(rule, b, workspace.codes_b, workspace.scales_b, stream);
  run_definition(rule, x, y, output, accumulation, {}, stream);
}

void gemm(const UnitRule &rule, const DeviceOperand &a, const DeviceOperand &b, const GemmOutput &output,
          Accumulation accumulation, GemmWorkspace &workspace, cudaStream_t stream, Fp4Paths *paths) {
  check_operands(rule, a, b, output);
  if (a.rows * b.rows == 0) return;
  if (output.start != nullptr) return gemm_definition(rule, a, b, output, accumulation, workspace, stream);
  if (rule.family == Family::gst_fdpa && a.padded_k > 0) {
    prepare_fp4(rule, a, workspace.a, stream);
    prepare_fp4(rule, b, workspace.b, stream);
    gemm_fp4(rule, workspace.a, workspace.b, output, accumulation, stream, paths);
    return;
  }
  const DeviceOperand x = pad_operand(rule, a, workspace.codes_a, workspace.scales_a, stream);
  const DeviceOperand y = pad_operand(rule, b, workspace.codes_b, workspace.scales_b, stream);
  if (gemm_native(rule, x, y, output, workspace, stream)) return;
  TilesLeft left;
  static_cast<void>(gemm_parts(rule, x, y, output, workspace, left, stream, paths));
  if (!gemm_fdpa(rule, x, y, output, left, stream))
    run_definition(rule, x, y, output, accumulation, left, stream);
}

} // namespace nvfp4::cuda
