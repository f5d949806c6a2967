// SPDX-License-Identifier: Apache-2.0
// What the module is made of: one file and one function for each area.
#pragma once
#include "tools/python/src/python.hpp"

namespace nvfp4::python {

void bind_tables(Module &m);   ///< units, conversions, conventions, recipes, golden files
void bind_quantize(Module &m); ///< quantized tensors
void bind_product(Module &m);  ///< convert, mma, gemm
void bind_check(Module &m);   ///< check, check_quantized, compare
void bind_checkpoints(Module &m);
void bind_models(Module &m); ///< train, forward, report
void bind_pretrained(Module &m); ///< Hugging Face folders: forward, evaluate, generate
void bind_linear(Module &m); ///< layers of nvfp4.torch
void bind_device(Module &m); ///< of the CUDA module: quantization and products in a GPU's memory

inline constexpr void (*binders[])(Module &) = {bind_tables,      bind_quantize, bind_product, bind_check,
                                                bind_checkpoints, bind_models,   bind_pretrained, bind_linear};

} // namespace nvfp4::python
