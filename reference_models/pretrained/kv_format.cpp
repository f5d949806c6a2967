// SPDX-License-Identifier: Apache-2.0
// The rows. nvfp4 is ModelOpt's format of a cache: k_scale and v_scale are amax / 2688
// (NVIDIA/Model-Optimizer torch/export/quant_utils.py, get_kv_cache_scaling_factor, 0.47).
#include "nvfp4/reference_models/pretrained/kv_format.hpp"

#include "nvfp4/emulator/formats/bf16.hpp"
#include "nvfp4/emulator/quantize/dequantize.hpp"
#include "nvfp4/emulator/quantize/quantize.hpp"
#include "nvfp4/golden/io/message.hpp"

#include <algorithm>
#include <array>

namespace nvfp4::models::pretrained {
namespace {

constexpr std::array kFormats{
    KvFormat{},
    KvFormat{"bf16", KvRounding::bf16},
    KvFormat{"e4m3", KvRounding::e4m3},
    KvFormat{"nvfp4", KvRounding::none, "modelopt"},
};

} // namespace

const KvFormat &find_kv_format(std::string_view name) {
  const auto at =
      std::find_if(kFormats.begin(), kFormats.end(), [&](const KvFormat &f) { return f.name == name; });
  if (at == kFormats.end())
    throw Error("--kv " + io::in_quotes(std::string(name)) + ": expected f32, bf16, e4m3 or nvfp4");
  return *at;
}

void keep_in_blocks(Backend<float> &backend, const KvFormat &format, float scale, FormatId source,
                    int64_t rows, int64_t dim, const float *x, float *to) {
  std::vector<float> all = to_host(backend, x, rows * dim);
  if (source == FormatId::bf16)
    for (float &v : all) v = round_to_bf16(v);
  QuantizeOptions options;
  options.global_scale = scale;
  options.source = source;
  all = dequantize(quantize({all.data(), rows, dim}, find_convention(format.convention), options));
  backend.upload(to, all.data(), all.size() * sizeof(float));
}

bool is_token_by_token(const OperandRecipe &kv_cache) {
  if (kv_cache.format == OperandFormat::fp8) return false; // one scale for all tokens of a head
  if (kv_cache.convention.empty()) return true;
  const Rule &rule = find_convention(kv_cache.convention).rule;
  return !has_tensor_level(rule); // a level of each row, or of parts of it, is a token's own
}

} // namespace nvfp4::models::pretrained
