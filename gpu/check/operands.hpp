// SPDX-License-Identifier: Apache-2.0
// Operands of products for the checks: codes and scales of named kinds, in host and device memory, and the
// comparison of a product with the CPU's.
#pragma once
#include "nvfp4/emulator/gemm/gemm.hpp"
#include "nvfp4/gpu/check/check.hpp"
#include "nvfp4/gpu/emulated/gemm.hpp"

namespace nvfp4::crosscheck {

/// Rows of codes along K, in the layout of DeviceOperand and of make_operand at once.
struct HostOperand {
  FormatId format;
  int64_t rows, k;
  std::vector<uint8_t> codes, scales;
};

/// On the device, with the buffers it lives in.
struct Resident {
  cuda::DeviceBuffer codes, scales;
  cuda::DeviceOperand operand;

  explicit Resident(const HostOperand &h) {
    codes.upload(h.codes);
    scales.upload(h.scales);
    operand = {
        h.format, h.rows, h.k, h.k, codes.as<uint8_t>(), h.scales.empty() ? nullptr : scales.as<uint8_t>()};
  }
};

/// What an FP4 operand looks like.
enum class Fp4Kind : uint8_t {
  quantized,  ///< codes of normal data, scales within a factor of three
  lognormal1, ///< block scales spread log-normally, sigma 1
  lognormal3, ///< sigma 3
  outliers,   ///< some blocks 2^8 above the rest, and some zero
  raw,        ///< any code under any scale that is not NaN
  nan_scales, ///< the same, NaN in some rows
  sparse,     ///< mostly zeros, rows and blocks of zeros among them
  tokens,     ///< some steps have an outlying block in every row, mild ones first, then strong ones
};
inline constexpr int kFp4Kinds = 8;
[[nodiscard]] HostOperand fp4_operand(const UnitRule &rule, Fp4Kind kind, int64_t rows, int64_t k,
                                      uint64_t seed);

/// Two operands of a product that a model made, NVFP4, as golden/operands holds them.
struct RecordedProduct {
  std::string name; ///< fprop, dgrad, wgrad
  HostOperand a, b;
};
/// Those of a file: tensors NAME.a.codes, NAME.a.scales, NAME.b.codes, NAME.b.scales. Throws Error where one
/// is missing or shapes do not fit.
[[nodiscard]] std::vector<RecordedProduct> read_products(const std::string &path);
/// The operand's rows, and steps along K, again and again up to this size.
[[nodiscard]] HostOperand repeated(const HostOperand &operand, int64_t rows, int64_t k);

/// Elements of any other unit: normal numbers; kind 1 spreads exponents, kind 2 adds NaN, Inf and zeros, kind
/// 3 fills the format's range, as quantizing to it does.
inline constexpr int kDenseKinds = 4;
[[nodiscard]] HostOperand dense_operand(const UnitRule &rule, bool second, int kind, int64_t rows, int64_t k,
                                        uint64_t seed);

void print_paths(const char *what, const cuda::Fp4Paths &paths);

/// Accumulators of both machines, word by word; chains from `start`, one word each, or from +0.
[[nodiscard]] Tally compare_product(const Unit &unit, const HostOperand &a, const HostOperand &b,
                                    Accumulation accumulation, const std::string &what,
                                    cuda::GemmWorkspace &workspace, cuda::Fp4Paths *paths,
                                    const std::vector<uint64_t> &start = {});

} // namespace nvfp4::crosscheck
