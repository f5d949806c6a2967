// SPDX-License-Identifier: Apache-2.0
// The table of containers. Sources: NVIDIA/Model-Optimizer torch/export/{unified_export_hf,quant_utils}.py
// (0.47); vllm-project/compressed-tensors compressors/{nvfp4,mxfp4,naive_quantized} (0.20.1); openai/gpt-oss
// torch/weights.py; pytorch/ao prototype/safetensors (0.18); deepseek-ai/DeepSeek-V3
// inference/fp8_cast_bf16.py; ggml-org/ggml src/ggml-common.h, and llama.cpp pull request 20427 for the
// tensors named .scale.
#include "nvfp4/golden/checkpoint/container.hpp"

#include <algorithm>

namespace nvfp4::checkpoint {
namespace {

using enum FormatId;
using enum GlobalUse;
using enum Packing;
using enum ScaleShape;

constexpr TypeNames kFloats{"F32", "BF16", "F16"}, kExponents{"U8", "F8_E8M0"};

constexpr std::array kTable{
    Container{.name = "compressed-tensors-nvfp4",
              .family = "compressed-tensors",
              .codes = ".weight_packed",
              .global = ".weight_global_scale",
              .input = ".input_global_scale",
              .scale_types = {"F8_E4M3"},
              .scale = ue4m3,
              .block = 16,
              .global_use = divides,
              .input_use = divides,
              .needs_global = true,
              .convention = "compressed-tensors"},
    Container{.name = "compressed-tensors-mxfp4",
              .family = "compressed-tensors",
              .codes = ".weight_packed",
              .scale_types = kExponents,
              .scale = ue8m0,
              .block = 32,
              .convention = "mxfp4"},
    Container{.name = "modelopt-nvfp4",
              .family = "modelopt",
              .global = ".weight_scale_2",
              .input = ".input_scale",
              .scale_types = {"F8_E4M3"},
              .scale = ue4m3,
              .block = 16,
              .global_use = multiplies,
              .input_use = multiplies,
              .needs_global = true,
              .convention = "modelopt"},
    Container{.name = "modelopt-mxfp4",
              .family = "modelopt",
              .input = ".input_scale",
              .scale_types = kExponents,
              .scale = ue8m0,
              .block = 32,
              .input_use = multiplies,
              .convention = "mxfp4"},
    Container{.name = "fp8",
              .family = "fp8",
              .input = ".input_scale",
              .code_types = {"F8_E4M3"},
              .scale_types = kFloats,
              .element = e4m3,
              .scale_shape = dense,
              .packing = bytes,
              .input_use = multiplies},
    Container{.name = "deepseek-fp8",
              .family = "deepseek",
              .scales = ".weight_scale_inv",
              .code_types = {"F8_E4M3"},
              .scale_types = kFloats,
              .element = e4m3,
              .scale_shape = dense,
              .packing = bytes},
    Container{.name = "gpt-oss-mxfp4",
              .family = "gpt-oss",
              .codes = "_blocks",
              .scales = "_scales",
              .scale_types = kExponents,
              .scale = ue8m0,
              .block = 32,
              .convention = "mxfp4"},
    Container{.name = "torchao-nvfp4",
              .family = "torchao",
              .codes = "_qdata",
              .scales = "_scale",
              .global = "_per_tensor_scale",
              .input = "_act_per_tensor_scale",
              .code_types = {"U8", "F4"},
              .scale_types = {"F8_E4M3"},
              .scale = ue4m3,
              .block = 16,
              .global_use = multiplies,
              .input_use = multiplies,
              .convention = "torchao"},
    Container{.name = "torchao-mxfp4",
              .family = "torchao",
              .codes = "_qdata",
              .scales = "_scale",
              .code_types = {"U8", "F4"},
              .scale_types = {"F8_E8M0"},
              .scale = ue8m0,
              .block = 32,
              .convention = "mxfp4"},
    Container{.name = "torchao-mxfp8",
              .family = "torchao",
              .codes = "_qdata",
              .scales = "_scale",
              .code_types = {"F8_E4M3"},
              .scale_types = {"F8_E8M0"},
              .element = e4m3,
              .scale = ue8m0,
              .block = 32,
              .packing = bytes,
              .convention = "mxfp8-e4m3"},
    Container{.name = "torchao-float8",
              .family = "torchao",
              .codes = "_qdata",
              .scales = "_scale",
              .code_types = {"F8_E4M3"},
              .scale_types = kFloats,
              .element = e4m3,
              .scale_shape = dense,
              .packing = bytes},
    Container{.name = "gguf-nvfp4",
              .family = "gguf",
              .scales = "",
              .global = ".scale",
              .input = ".input_scale",
              .code_types = {"NVFP4"},
              .scale = ue4m3,
              .block = 16,
              .packing = half_low,
              .global_use = after,
              .input_use = multiplies,
              .convention = "ggml"},
    Container{.name = "gguf-mxfp4",
              .family = "gguf",
              .scales = "",
              .code_types = {"MXFP4"},
              .scale = ue8m0,
              .block = 32,
              .packing = half_low,
              .convention = "mxfp4"},
    Container{.name = "gguf-q8_0",
              .family = "gguf",
              .scales = "",
              .code_types = {"Q8_0"},
              .element = std::nullopt,
              .scale_shape = dense,
              .block = 32,
              .packing = bytes},
};

constexpr std::array kFused{
    FusedGroup{{"q_proj", "k_proj", "v_proj"}},
    FusedGroup{{"gate_proj", "up_proj", ""}},
    FusedGroup{{"w1", "w3", ""}},
};

} // namespace

std::span<const Container> containers() { return kTable; }

const Container *find_container(std::string_view name) {
  const auto it =
      std::find_if(kTable.begin(), kTable.end(), [&](const Container &c) { return c.name == name; });
  return it == kTable.end() ? nullptr : &*it;
}

std::span<const FusedGroup> fused_groups() { return kFused; }

} // namespace nvfp4::checkpoint
