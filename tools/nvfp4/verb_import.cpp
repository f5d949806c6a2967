// SPDX-License-Identifier: Apache-2.0
// nvfp4 import: codes, block scales and a global scale as a kernel or a checkpoint has them, into a quantized
// file.
#include "nvfp4/emulator/nearest.hpp"
#include "nvfp4/golden/import_quantized.hpp"
#include "nvfp4/golden/io/file.hpp"
#include "nvfp4/golden/io/message.hpp"
#include "nvfp4/golden/io/stream.hpp"
#include "nvfp4/golden/quantized_file.hpp"
#include "tools/nvfp4/paths.hpp"
#include "tools/nvfp4/quantize_flags.hpp"
#include "tools/nvfp4/several.hpp"
#include "tools/nvfp4/terminal.hpp"
#include "tools/nvfp4/verbs.hpp"

#include <charconv>
#include <fmt/core.h>
#include <memory>
#include <nlohmann/json.hpp>

namespace nvfp4::tool {
namespace {

struct Options {
  std::string in, codes, scales, global, out, block = "1x16", axis = "row", layout = "linear",
                                              nibbles = "low-first", global_is, source = "f32";
  golden::ImportOptions import;
  bool json = false;
};

/// A tensor of the common file, or the only one of a file of its own.
io::Tensor read_one(const std::optional<io::TensorReader> &file, const std::string &name, const Options &o) {
  if (!file) {
    const io::TensorFile own = io::read_tensors(input_path(name));
    io::Tensor t = golden::choose_tensor(own, "");
    t.name = name;
    return t;
  }
  for (size_t i = 0; i < file->headers().size(); ++i)
    if (file->headers()[i].name == name) return file->read(i);
  throw Error(io::printable(o.in) + ": has no tensor " + io::in_quotes(name) +
              suggestion_among(name, file->headers(), [](const io::TensorHeader &t) { return t.name; }));
}

/// The global scale: a number as it stands, or a tensor.
std::optional<io::Tensor> read_global(const std::optional<io::TensorReader> &file, const std::string &text,
                                      const Options &o) {
  if (text.empty()) return std::nullopt;
  float number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error == std::errc() && end == text.data() + text.size())
    return io::Tensor::from("--global", {1}, std::vector{number});
  return read_one(file, text, o);
}

void import_one(const std::optional<io::TensorReader> &file, const Options &o, const std::string &star,
                const std::string &out) {
  const io::Tensor codes = read_one(file, fill(o.codes, star), o),
                   scales = read_one(file, fill(o.scales, star), o);
  const std::optional<io::Tensor> global = read_global(file, fill(o.global, star), o);
  const BlockScaled q = golden::import_quantized(codes, scales, global ? &*global : nullptr, o.import);
  io::TensorFile result = golden::to_file(q);
  result.metadata["tensor"] = codes.name;
  result.metadata["imported"] = "true";
  io::write_tensors(out, result);
  if (o.json)
    fmt::print("{}\n", nlohmann::ordered_json{{"rows", q.rows},
                                              {"k", q.k},
                                              {"convention", q.convention},
                                              {"scale_layout", to_string(q.layout)},
                                              {"output", out}}
                           .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
}

int run(Options o) {
  const Convention &convention = find_convention(o.import.convention);
  o.import.layout = parse_enum<ScaleLayout>(o.layout);
  o.import.nibbles = parse_enum<golden::NibbleOrder>(o.nibbles);
  o.import.axis = parse_enum<Axis>(o.axis);
  o.import.block_rows = block_rows(o.block, convention);
  o.import.source = *find_format(o.source);
  if (!o.global.empty() && o.global_is.empty())
    throw Error("import: --global needs --global-is: " + name_list<golden::GlobalMeaning>());
  if (!o.global_is.empty()) o.import.global_is = parse_enum<golden::GlobalMeaning>(o.global_is);
  std::optional<io::TensorReader> file;
  if (!o.in.empty()) file.emplace(input_path(o.in));
  if (!is_pattern(o.codes)) {
    if (is_pattern(o.scales) || is_pattern(o.global))
      throw Error("import: --scales and --global take a '*' where --codes has one");
    import_one(file, o, "", output_path(o.out, o.json));
    return kEqual;
  }
  if (!file) throw Error("import: --codes " + o.codes + ": a '*' needs IN, the file whose tensors are meant");
  const std::vector<Chosen> chosen = choose(file->headers(), o.codes, o.in);
  Progress progress("import");
  for (size_t i = 0; i < chosen.size(); ++i) {
    import_one(file, o, chosen[i].star, file_in(o.out, chosen[i].star));
    progress.show(double(i + 1) / double(chosen.size()));
  }
  return kEqual;
}

} // namespace

void register_import(Command &app, int &exit_code) {
  Command *verb =
      app.add_subcommand("import", "Raw codes and scales of a kernel or checkpoint, into a quantized file");
  auto o = std::make_shared<Options>();
  verb->add_option(
      "in", o->in,
      "The file whose tensors --codes, --scales and --global name; without it they name files of one tensor");
  verb->add_option("--codes", o->codes, "Codes (rows, bytes): U8 with two FP4 codes a byte, or F4, or F8")
      ->required();
  verb->add_option("--scales", o->scales,
                   "Block scales: U8, F8_E4M3 or F8_E8M0 words, or values that are exactly such")
      ->required();
  verb->add_option("--global", o->global,
                   "Global scale: a number or a tensor; of row-scaled, an amax for each row");
  verb->add_option(
          "--global-is", o->global_is,
          "What it is: amax of the tensor, encode (a divisor of values, S), or decode (a multiplier, 1 / S)")
      ->check(member<golden::GlobalMeaning>());
  verb->add_option("-o,--output", o->out,
                   "Output .safetensors, as nvfp4 quantize writes it; a folder where names have a '*'")
      ->required();
  verb->add_option("--convention", o->import.convention, "Whose codes these are (nvfp4 info --conventions)")
      ->required();
  verb->add_option("--scale-layout", o->layout, "How the scales lie: " + name_list<ScaleLayout>())
      ->check(member<ScaleLayout>());
  verb->add_flag("--padded-scales", o->import.padded_scales,
                 "Linear scales stand in a matrix of whole 128x4 tiles (TransformerEngine)");
  verb->add_option("--nibbles", o->nibbles,
                   "Which code of a byte comes first: " + name_list<golden::NibbleOrder>())
      ->check(member<golden::NibbleOrder>());
  verb->add_flag("--unpacked", o->import.unpacked, "FP4 codes stand one a byte");
  verb->add_option("--k", o->import.k, "Length of a row without padding (default: all codes)")
      ->check(Range{int64_t{0}, int64_t{1} << 40});
  verb->add_option("--block", o->block, "1x16 or 16x16 (1x32, 32x32 for MX)");
  verb->add_option("--axis", o->axis, "row, or col for the columnwise copy, stored transposed")
      ->check(member<Axis>());
  verb->add_option("--source-dtype", o->source, "Type of the tensor that was quantized")
      ->check(OneOf{{"f32", "bf16", "f16"}});
  verb->add_flag("--hadamard", o->import.hadamard,
                 "The values are rotated by the 16-point Hadamard with TransformerEngine's signs");
  verb->add_flag("--json", o->json, "One line of JSON about each result");
  verb->footer(
      "Words are taken as they are. A convention decodes with one of amax, encode and decode; where another "
      "is given and does\n"
      "not lead to it exactly, that is said. The result is for gemm, check, compare and dequantize. "
      "golden/README.md has the format.\n"
      "Example (compressed-tensors): nvfp4 import model.safetensors --codes '*.weight_packed' --scales "
      "'*.weight_scale'\n"
      "  --global '*.weight_global_scale' --global-is encode --convention compressed-tensors -o quantized/\n"
      "Example: nvfp4 import --codes codes.npy --scales scales.npy --scale-layout 128x4 --global 0.25 "
      "--global-is amax\n"
      "  --convention te -o x.q.safetensors");
  verb->callback([o, &exit_code] { exit_code = run(*o); });
}

} // namespace nvfp4::tool
