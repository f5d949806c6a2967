// SPDX-License-Identifier: Apache-2.0
// nvfp4 convert: numbers through one named conversion instruction, element by element.
#include "nvfp4/emulator/formats/code_view.hpp"
#include "nvfp4/emulator/formats/conversion.hpp"
#include "nvfp4/golden/io/file.hpp"
#include "nvfp4/golden/quantized_file.hpp"
#include "tools/nvfp4/paths.hpp"
#include "tools/nvfp4/several.hpp"
#include "tools/nvfp4/terminal.hpp"
#include "tools/nvfp4/verbs.hpp"

#include <algorithm>
#include <fmt/core.h>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>

namespace nvfp4::tool {
namespace {

struct Options {
  std::string in, out, tensor, cvt;
  bool values = false, json = false;
};

/// The dtype that holds codes of a format; U8 (one code a byte) for those that safetensors cannot pack.
io::DType dtype_for(FormatId id) {
  switch (id) {
  case FormatId::f16: return io::DType::f16;
  case FormatId::bf16: return io::DType::bf16;
  case FormatId::f32:
  case FormatId::tf32: return io::DType::f32;
  case FormatId::f64: return io::DType::f64;
  case FormatId::e4m3: return io::DType::f8_e4m3;
  case FormatId::e5m2: return io::DType::f8_e5m2;
  case FormatId::ue8m0: return io::DType::f8_e8m0;
  default: return io::DType::u8;
  }
}

/// How many inputs and outputs were not numbers: what a conversion that saturates hides.
struct Counts {
  int64_t nan_in = 0, infinity_in = 0, nan_out = 0, infinity_out = 0;

  void add(const Format &from, uint64_t in, const Format &to, uint64_t out) {
    const Class x = decode(from, in).cls, y = decode(to, out).cls;
    nan_in += x == Class::nan;
    infinity_in += x == Class::infinity;
    nan_out += y == Class::nan;
    infinity_out += y == Class::infinity;
  }
};

/// The codes of a tensor, or their values; adds what was not a number to the counts.
io::Tensor convert_one(const Options &o, const Conversion &conversion, const io::Tensor &in, const std::string &file,
                       Counts &counts, const std::function<void(double)> &progress) {
  const Format from = format(conversion.from), to = format(conversion.to);
  golden::check_empty(in, file);
  const std::optional<FormatId> stored = golden::format_of(in.dtype);
  // codes of formats without a dtype of their own stand in U8, one a byte
  const bool raw = in.dtype == io::DType::u8 && dtype_for(from.id) == io::DType::u8;
  if (!raw && stored != from.id && !(from.id == FormatId::tf32 && stored == FormatId::f32))
    throw Error(io::message_prefix(file, in.name) + o.cvt + " reads " + from.name + ", got " +
                std::string(io::info(in.dtype).safetensors) + "; convert it to " + from.name + " first");
  const CodeView words{reinterpret_cast<const uint8_t *>(in.data.data()), int(io::info(in.dtype).bits)};
  const int64_t count = *io::element_count(in.shape);
  const size_t width = size_t(std::max<int>(to.storage_bits, 8)) / 8;
  io::Tensor out{in.name, dtype_for(to.id), in.shape, std::vector<std::byte>(size_t(count) * width)};
  std::vector<float> values(o.values ? size_t(count) : 0);
  for (int64_t i = 0; i < count; ++i) {
    if (i % (1 << 20) == 0) progress(double(i) / double(count));
    const uint64_t code = conversion(words[i]);
    counts.add(from, words[i], to, code);
    std::memcpy(out.data.data() + size_t(i) * width, &code, width);
    if (o.values) values[size_t(i)] = value_f32(to.id, code);
  }
  return o.values ? io::Tensor::from(in.name, in.shape, values) : out;
}

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
    Counts counts;
    const auto share = [&](double f) { progress.show((before + f * double(in->data.size())) / std::max(total, 1.0)); };
    result.tensors.push_back(convert_one(o, conversion, *in, file.source, counts, share));
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
