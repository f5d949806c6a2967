// SPDX-License-Identifier: Apache-2.0
// nvfp4 convert: numbers through one named conversion instruction, element by element.
#include "nvfp4/golden/convert_tensor.hpp"
#include "nvfp4/golden/io/file.hpp"
#include "nvfp4/golden/quantized_file.hpp"
#include "tools/nvfp4/verbs.hpp"

#include <fmt/core.h>
#include <memory>
#include <nlohmann/json.hpp>

namespace nvfp4::tool {
namespace {

struct Options {
  std::string in, out, tensor, cvt;
  bool values = false, json = false;
};

int run(const Options &o) {
  const Conversion &conversion = find_conversion(o.cvt);
  const Format from = format(conversion.from), to = format(conversion.to);
  const io::TensorFile file = io::read_tensors(o.in);
  const io::Tensor &in = golden::choose_tensor(file, o.tensor);
  auto [out, counts] = golden::convert_tensor(conversion, in, file.source, o.values);
  io::TensorFile result;
  result.tensors.push_back(std::move(out));
  result.metadata = {{"conversion", std::string(conversion.name)}, {"format", to.name}};
  io::write_tensors(o.out, result);
  if (o.json) {
    fmt::print("{}\n", nlohmann::ordered_json{{"conversion", conversion.name},
                                              {"shape", in.shape},
                                              {"from", from.name},
                                              {"to", to.name},
                                              {"nan_in", counts.nan_in},
                                              {"infinity_in", counts.infinity_in},
                                              {"nan_out", counts.nan_out},
                                              {"infinity_out", counts.infinity_out},
                                              {"output", o.out}}
                           .dump());
  } else if (counts.nan_in + counts.infinity_in + counts.nan_out + counts.infinity_out > 0) {
    fmt::print(stderr, "nvfp4: {}: {} NaN and {} Inf went in, {} NaN and {} Inf came out\n", in.name, counts.nan_in,
               counts.infinity_in, counts.nan_out, counts.infinity_out);
  }
  return kEqual;
}

} // namespace

void register_convert(CLI::App &app, int &exit_code) {
  CLI::App *verb = app.add_subcommand("convert", "Numbers through one conversion instruction, bit for bit");
  auto o = std::make_shared<Options>();
  verb->add_option("in", o->in, ".npy or .safetensors of the type that the conversion reads; U8 holds one code a byte of "
                                "formats without a dtype")
      ->required();
  verb->add_option("-o,--output", o->out,
                   "Output: the codes, in the format's dtype or U8 (one code a byte) where there is none")
      ->required();
  verb->add_option("--cvt", o->cvt, "Conversion (nvfp4 info --conversions), such as cvt.rn.satfinite.e4m3x2.f32")
      ->required();
  verb->add_option("--tensor", o->tensor, "Which tensor of a file with several");
  verb->add_flag("--values", o->values, "Write the values of the codes as F32 instead");
  verb->add_flag("--json", o->json, "One line of JSON about the result, NaN and Inf counted");
  verb->footer("Example: nvfp4 convert x.npy -o x8.safetensors --cvt cvt.rn.satfinite.e4m3x2.f32");
  verb->callback([o, &exit_code] { exit_code = run(*o); });
}

} // namespace nvfp4::tool
