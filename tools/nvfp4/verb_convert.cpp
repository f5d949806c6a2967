// SPDX-License-Identifier: Apache-2.0
// nvfp4 convert: numbers through one named conversion instruction, element by element.
#include "nvfp4/golden/convert_tensor.hpp"
#include "nvfp4/golden/io/file.hpp"
#include "nvfp4/golden/quantized_file.hpp"
#include "tools/nvfp4/paths.hpp"
#include "tools/nvfp4/several.hpp"
#include "tools/nvfp4/terminal.hpp"
#include "tools/nvfp4/verbs.hpp"

#include <algorithm>
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
  const std::string output = output_path(o.out, o.json);
  const io::TensorFile file = io::read_tensors(input_path(o.in));
  std::vector<const io::Tensor *> inputs;
  if (is_pattern(o.tensor)) {
    std::vector<io::TensorHeader> headers;
    for (const io::Tensor &t : file.tensors) headers.push_back({t.name, t.dtype, t.shape});
    for (const Chosen &c : choose(headers, o.tensor, file.source)) inputs.push_back(&file.tensors[c.index]);
  } else {
    inputs.push_back(&golden::choose_tensor(file, o.tensor));
  }
  double total = 0, before = 0;
  for (const io::Tensor *t : inputs) total += double(t->data.size());
  Progress progress("convert");
  io::TensorFile result;
  result.metadata = {{"conversion", std::string(conversion.name)}, {"format", format(conversion.to).name}};
  for (const io::Tensor *const in : inputs) {
    const auto share = [&](double f) { progress.show((before + f * double(in->data.size())) / std::max(total, 1.0)); };
    auto [tensor, counts] = golden::convert_tensor(conversion, *in, file.source, o.values, share);
    result.tensors.push_back(std::move(tensor));
    before += double(in->data.size());
    progress.clear();
    if (o.json) {
      fmt::print("{}\n", nlohmann::ordered_json{{"conversion", conversion.name},
                                                {"tensor", in->name},
                                                {"shape", in->shape},
                                                {"from", format(conversion.from).name},
                                                {"to", format(conversion.to).name},
                                                {"nan_in", counts.nan_in},
                                                {"infinity_in", counts.infinity_in},
                                                {"nan_out", counts.nan_out},
                                                {"infinity_out", counts.infinity_out},
                                                {"output", o.out}}
                             .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
    } else if (counts.nan_in + counts.infinity_in + counts.nan_out + counts.infinity_out > 0) {
      fmt::print(stderr, "nvfp4: {}: {} NaN and {} Inf went in, {} NaN and {} Inf came out\n", in->name, counts.nan_in,
                 counts.infinity_in, counts.nan_out, counts.infinity_out);
    }
  }
  io::write_tensors(output, result);
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
  verb->add_option("--tensor", o->tensor, "Which tensor of a file with several; '*.weight': all like it, into one file");
  verb->add_flag("--values", o->values, "Write the values of the codes as F32 instead");
  verb->add_flag("--json", o->json, "One line of JSON about the result, NaN and Inf counted");
  verb->footer("Example: nvfp4 convert x.npy -o x8.safetensors --cvt cvt.rn.satfinite.e4m3x2.f32");
  verb->callback([o, &exit_code] { exit_code = run(*o); });
}

} // namespace nvfp4::tool
