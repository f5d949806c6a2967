// SPDX-License-Identifier: Apache-2.0
// Operands of products on the device, and the comparison of a product with the CPU's.
#pragma once
#include "nvfp4/emulator/gemm/gemm.hpp"
#include "nvfp4/gpu/check/check.hpp"
#include "nvfp4/gpu/emulated/gemm.hpp"

namespace nvfp4::crosscheck {

using golden::dense_operand;
using golden::fp4_operand;
using golden::Fp4Kind;
using golden::HostOperand;
using golden::kDenseKinds;
using golden::kFp4Kinds;
using golden::read_products;
using golden::RecordedProduct;
using golden::repeated;

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

void print_paths(const char *what, const cuda::Fp4Paths &paths);

/// Accumulators of both machines, word by word; chains from `start`, one word each, or from +0.
[[nodiscard]] Tally compare_product(const Unit &unit, const HostOperand &a, const HostOperand &b,
                                    Accumulation accumulation, const std::string &what,
                                    cuda::GemmWorkspace &workspace, cuda::Fp4Paths *paths,
                                    const std::vector<uint64_t> &start = {});

} // namespace nvfp4::crosscheck
