// SPDX-License-Identifier: Apache-2.0
// nvfp4 convert: numbers through one named conversion instruction, or into a format of one's own, element by element.
#include "nvfp4/golden/convert_tensor.hpp"
#include "nvfp4/golden/io/file.hpp"
#include "nvfp4/golden/quantized_file.hpp"
#include "tools/nvfp4/paths.hpp"
#include "tools/nvfp4/several.hpp"
#include "tools/nvfp4/terminal.hpp"
#include "tools/nvfp4/verbs.hpp"

#include <algorithm>
#include <fmt/core.h>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

namespace nvfp4::tool {
namespace {

struct Options {
  std::string in, out, tensor, cvt, to, rounding = "rne";
  uint64_t seed = 0, offset = 0;
  bool values = false, json = false, saturate = false;
};

/// What is done to each tensor, and how files and messages call it.
struct Work {
  std::function<golden::ConvertedTensor(const io::Tensor &, const std::string &, const std::function<void(double)> &)> run;
  std::map<std::string, std::string> metadata;
  nlohmann::ordered_json facts;
};

Work work_of(const Options &o) {
  if (o.to.empty() == o.cvt.empty())
    throw Error("convert: expected either --cvt, an instruction, or --to, a format");
  if (!o.cvt.empty()) {
    const Conversion &c = find_conversion(o.cvt);
    return {[&c, values = o.values](const io::Tensor &in, const std::string &file, const auto &share) {
              return golden::convert_tensor(c, in, file, values, share);
            },
            {{"conversion", std::string(c.name)}, {"format", format(c.to).name}},
            {{"conversion", c.name}, {"from", format(c.from).name}, {"to", format(c.to).name}}};
  }
  const golden::NumberConversion c{parse_number_format(o.to), parse_enum<NumberRounding>(o.rounding), o.saturate,
                                   {o.seed, o.offset}};
  std::map<std::string, std::string> metadata{{"format", o.to}, {"rounding", o.rounding}};
  if (o.saturate) metadata["saturate"] = "true";
  if (c.rounding == NumberRounding::stochastic)
    metadata["seed"] = std::to_string(o.seed), metadata["offset"] = std::to_string(o.offset);
  return {[c, values = o.values](const io::Tensor &in, const std::string &file, const auto &share) {
            return golden::convert_tensor(c, in, file, values, share);
          },
          metadata,
          {{"to", o.to}, {"rounding", o.rounding}, {"saturate", o.saturate}}};
}

int run(const Options &o) {
  const Work work = work_of(o);
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
  result.metadata = {work.metadata.begin(), work.metadata.end()};
  for (const io::Tensor *const in : inputs) {
    const auto share = [&](double f) { progress.show((before + f * double(in->data.size())) / std::max(total, 1.0)); };
    auto [tensor, counts] = work.run(*in, file.source, share);
    result.tensors.push_back(std::move(tensor));
    before += double(in->data.size());
    progress.clear();
    if (o.json) {
      nlohmann::ordered_json line = work.facts;
      line["tensor"] = in->name;
      line["shape"] = in->shape;
      line["nan_in"] = counts.nan_in;
      line["infinity_in"] = counts.infinity_in;
      line["nan_out"] = counts.nan_out;
      line["infinity_out"] = counts.infinity_out;
      line["output"] = o.out;
      fmt::print("{}\n", line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
    } else if (counts.nan_in + counts.infinity_in + counts.nan_out + counts.infinity_out > 0) {
      fmt::print(stderr, "nvfp4: {}: {} NaN and {} Inf went in, {} NaN and {} Inf came out\n", in->name, counts.nan_in,
                 counts.infinity_in, counts.nan_out, counts.infinity_out);
    }
  }
  io::write_tensors(output, result);
  return kEqual;
}

} // namespace

void register_convert(Command &app, int &exit_code) {
  Command *verb = app.add_subcommand("convert", "Numbers through one conversion instruction, or into any small format, bit for bit");
  auto o = std::make_shared<Options>();
  verb->add_option("in", o->in, ".npy or .safetensors of the type that the conversion reads; U8 holds one code a byte of "
                                "formats without a dtype")
      ->required();
  verb->add_option("-o,--output", o->out,
                   "Output: the codes, in the format's dtype or U8 (one code a byte) where there is none")
      ->required();
  verb->add_option("--cvt", o->cvt, "Conversion (nvfp4 info --conversions), such as cvt.rn.satfinite.e4m3x2.f32");
  verb->add_option("--to", o->to,
                   "Or a format of your own: e4m3, eXmY[:bias=N][:ieee|:nan|:finite|:fnuz][:unsigned], fixedN.F, positN[:es=E]");
  verb->add_option("--rounding", o->rounding, "Of --to: " + name_list<NumberRounding>());
  verb->add_flag("--saturate", o->saturate, "Of --to: what overflows becomes the largest number, not Inf or NaN");
  verb->add_option("--seed", o->seed, "Of the random words of sr");
  verb->add_option("--offset", o->offset, "The same, for several tensors under one seed");
  verb->add_option("--tensor", o->tensor, "Which tensor of a file with several; '*.weight': all like it, into one file");
  verb->add_flag("--values", o->values, "Write the values of the codes instead, as F32 (of --to: F64)");
  verb->add_flag("--json", o->json, "One line of JSON about the result, NaN and Inf counted");
  verb->footer("Examples: nvfp4 convert x.npy -o x8.safetensors --cvt cvt.rn.satfinite.e4m3x2.f32\n"
               "          nvfp4 convert x.npy -o y.npy --to posit8:es=0 --values\n"
               "          nvfp4 convert x.npy -o y.npy --to e3m4:nan --rounding sr --seed 1");
  verb->callback([o, &exit_code] { exit_code = run(*o); });
}

} // namespace nvfp4::tool
