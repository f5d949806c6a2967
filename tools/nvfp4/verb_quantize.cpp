// SPDX-License-Identifier: Apache-2.0
// nvfp4 quantize and dequantize.
#include "nvfp4/emulator/quantize/dequantize.hpp"
#include "nvfp4/emulator/quantize/quantize.hpp"
#include "nvfp4/emulator/quantize/statistics.hpp"
#include "nvfp4/golden/io/file.hpp"
#include "nvfp4/golden/io/message.hpp"
#include "nvfp4/golden/io/stream.hpp"
#include "nvfp4/golden/quantized_file.hpp"
#include "nvfp4/golden/quantized_tensor.hpp"
#include "tools/environment.hpp"
#include "tools/nvfp4/numbers.hpp"
#include "tools/nvfp4/paths.hpp"
#include "tools/nvfp4/quantize_flags.hpp"
#include "tools/nvfp4/several.hpp"
#include "tools/nvfp4/terminal.hpp"
#include "tools/nvfp4/verbs.hpp"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fmt/core.h>
#include <memory>
#include <nlohmann/json.hpp>

namespace nvfp4::tool {
namespace {

struct Options {
  std::vector<std::string> inputs; ///< of dequantize
  std::string in, out, tensor, convention, block = "1x16", axis = "row", rounding = "rne", layout = "linear",
                                           dtype = "f32";
  std::optional<uint64_t> seed;
  uint64_t offset = 0;
  std::optional<float> amax, scale;
  bool hadamard = false, keep_rotation = false, json = false, stats = false, by_row = false;
};

nlohmann::ordered_json to_json(const QuantizeStatistics &s) {
  return nlohmann::ordered_json::parse(golden::statistics_json(s));
}

/// The statistics as lines, and per block row where asked.
void print_statistics(const QuantizeStatistics &s, const std::vector<QuantizeStatistics> &rows, bool by_row) {
  const auto line = [](const char *what, int64_t n, int64_t of) {
    fmt::print("{:<42} {:>12} of {}\n", what, n, of);
  };
  line("inputs NaN", s.nan, s.elements);
  line("inputs Inf", s.infinity, s.elements);
  line("blocks of zeros", s.zero_blocks, s.blocks);
  line("scales of value 0 over other numbers", s.scale_underflow, s.blocks);
  line("scales at the largest number", s.scale_saturated, s.blocks);
  line("scales NaN", s.scale_nan, s.blocks);
  line("elements beyond the largest code", s.saturated, s.elements);
  line("elements flushed to zero", s.flushed, s.elements);
  fmt::print("{:<42} {:>12.3f} dB", "signal-to-noise ratio", s.snr_db());
  if (s.left_out != 0) fmt::print(", {} elements that are not finite left out", s.left_out);
  fmt::print("\n");
  if (!by_row) return;
  fmt::print("{:>9} {:>7} {:>7} {:>9} {:>9} {:>9} {:>9} {:>9} {:>10}\n", "block row", "NaN", "Inf", "scale 0",
             "scale max", "scale NaN", "beyond", "flushed", "SNR dB");
  for (size_t r = 0; r < rows.size(); ++r)
    fmt::print("{:>9} {:>7} {:>7} {:>9} {:>9} {:>9} {:>9} {:>9} {:>10.3f}\n", r, rows[r].nan,
               rows[r].infinity, rows[r].scale_underflow, rows[r].scale_saturated, rows[r].scale_nan,
               rows[r].saturated, rows[r].flushed, rows[r].snr_db());
}

/// Quantizes one tensor of `file` into `out` and says what was asked for. It is the part of the work between
/// the fractions `from` and `to`.
void quantize_one(const Options &o, const Convention &convention, QuantizeOptions q, const io::Tensor &tensor,
                  const std::string &file, const std::string &out, Progress &progress, double from,
                  double to) {
  const golden::DenseMatrix x = golden::to_matrix(tensor, file);
  q.source = x.source;
  const double half = (to - from) / 2;
  q.progress = [&](double fraction) { progress.show(from + half * fraction); };
  const MatrixView<const float> view(x.values.data(), x.rows, x.cols);
  const golden::QuantizedTensor made{quantize(view, convention, q), tensor.name, tensor.shape, q.rounding,
                                     q.key};
  const BlockScaled &result = made.scaled;
  const std::vector<QuantizeStatistics> rows =
      quantize_statistics(view, result, 0, [&](double f) { progress.show(from + half * (1 + f)); });
  const QuantizeStatistics all = total(rows);
  io::write_tensors(out, golden::to_file(made));
  progress.clear();
  if (o.json) {
    nlohmann::ordered_json j = {{"rows", result.rows},
                                {"k", result.k},
                                {"convention", result.convention},
                                {"global_amax", result.global_amax},
                                {"output", out}};
    if (!result.row_amax.empty()) j.erase("global_amax");
    j["statistics"] = to_json(all);
    if (o.by_row)
      for (const QuantizeStatistics &row : rows) j["block_rows"].push_back(to_json(row));
    fmt::print("{}\n", j.dump());
  } else if (o.stats || o.by_row) {
    if (is_pattern(o.tensor)) fmt::print("{}\n", io::printable(tensor.name));
    print_statistics(all, rows, o.by_row);
  }
  if (all.made_nan())
    fmt::print(stderr,
               "nvfp4: convention '{}' makes {} of {} block scales NaN from this finite input, as the "
               "implementation does\n",
               convention.name, all.scale_nan, all.blocks);
}

int run_quantize(const Options &o) {
  const Convention &convention = find_convention(o.convention);
  QuantizeOptions q;
  q.isa = asked_isa();
  q.axis = parse_enum<Axis>(o.axis);
  q.block_rows = block_rows(o.block, convention);
  q.rounding = parse_enum<ElementRounding>(o.rounding);
  if (q.rounding != ElementRounding::nearest && !o.seed)
    throw Error("--rounding " + o.rounding + " needs --seed, so that the result can be replayed");
  q.key = {o.seed.value_or(0), o.offset};
  q.hadamard = o.hadamard;
  q.layout = parse_enum<ScaleLayout>(o.layout);
  q.global_amax = o.amax;
  q.global_scale = o.scale;
  const std::string input = input_path(o.in);
  if (!is_pattern(o.tensor)) {
    const std::string out = output_path(o.out, o.json || o.stats || o.by_row);
    const io::TensorFile in = io::read_tensors(input);
    Progress progress("quantize");
    quantize_one(o, convention, q, golden::choose_tensor(in, o.tensor), in.source, out, progress, 0, 1);
    return kEqual;
  }
  const io::TensorReader in(input);
  const std::vector<Chosen> chosen = choose(in.headers(), o.tensor, o.in);
  std::vector<double> bytes; // of the tensors up to each, for the time left
  for (const Chosen &c : chosen)
    bytes.push_back((bytes.empty() ? 0 : bytes.back()) + double(in.headers()[c.index].bytes(input)));
  Progress progress("quantize");
  for (size_t i = 0; i < chosen.size(); ++i) {
    const double all = std::max(bytes.back(), 1.0);
    quantize_one(o, convention, q, in.read(chosen[i].index), input, file_in(o.out, chosen[i].name), progress,
                 i == 0 ? 0 : bytes[i - 1] / all, bytes[i] / all);
  }
  return kEqual;
}

/// Writes the values of the tensor in the file `input` to `output`; `report` gets the fraction done.
void dequantize_one(const Options &o, const std::string &input, const std::string &output,
                    const std::function<void(double)> &report) {
  const io::TensorFile in = io::read_tensors(input);
  const golden::QuantizedTensor tensor = golden::quantized_tensor(in);
  const BlockScaled &q = tensor.scaled;
  DequantizeOptions options;
  options.undo_hadamard = !o.keep_rotation;
  options.progress = report;
  std::vector<float> y = dequantize(q, options);
  const std::vector<int64_t> &shape = tensor.shape;
  io::TensorFile out;
  if (o.dtype == "f32") {
    out.tensors.push_back(io::Tensor::from(tensor.name, shape, y));
  } else {
    const FormatId id = o.dtype == "bf16" ? FormatId::bf16 : FormatId::f16;
    std::vector<uint16_t> words;
    words.reserve(y.size());
    for (const float v : y) words.push_back(uint16_t(encode(id, v, Rounding::nearest_even, Overflow::ieee)));
    out.tensors.push_back(io::Tensor::from_bits(
        tensor.name, id == FormatId::bf16 ? io::DType::bf16 : io::DType::f16, shape, words));
  }
  io::write_tensors(output, out);
  if (o.json)
    fmt::print("{}\n",
               nlohmann::ordered_json{
                   {"shape", shape}, {"convention", q.convention}, {"dtype", o.dtype}, {"output", output}}
                   .dump());
}

int run_dequantize(const Options &o) {
  Progress progress("dequantize");
  if (o.inputs.size() == 1) {
    dequantize_one(o, input_path(o.inputs.front()), output_path(o.out, o.json),
                   [&](double f) { progress.show(f); });
    return kEqual;
  }
  std::vector<std::string> outputs;
  for (const std::string &input : o.inputs) {
    outputs.push_back(file_in(o.out, std::filesystem::path(input).stem().string()));
    if (std::find(outputs.begin(), outputs.end() - 1, outputs.back()) != outputs.end() - 1)
      throw Error("two of the files given would be written to " + io::printable(outputs.back()) +
                  "; dequantize them into folders of their own");
  }
  const auto count = double(o.inputs.size());
  for (size_t i = 0; i < o.inputs.size(); ++i) {
    dequantize_one(o, o.inputs[i], outputs[i], [&](double f) { progress.show((double(i) + f) / count); });
    progress.clear();
  }
  return kEqual;
}

} // namespace

void register_quantize(Command &app, int &exit_code) {
  Command *verb = app.add_subcommand("quantize", "Block-scale a tensor as a named implementation does");
  auto o = std::make_shared<Options>();
  verb->add_option("in", o->in, ".npy or .safetensors, F32, BF16, F16 or F64; - is standard input")
      ->required();
  verb->add_option("-o,--output", o->out,
                   "Output .safetensors: codes, block_scales, global_amax; - is standard output")
      ->required();
  verb->add_option(
      "--tensor", o->tensor,
      "Which tensor of a file with several; '*.weight': all like it, each into a file of the folder -o");
  verb->add_option("--convention", o->convention, "Preset (nvfp4 info --conventions)")->required();
  verb->add_option("--block", o->block, "1x16 or 16x16 (1x32 for MX, 1x64 for HiFloat4, 1x128 or 128x128 for FP8)");
  verb->add_option("--axis", o->axis, "row, or col for the columnwise copy, stored transposed")
      ->check(member<Axis>());
  verb->add_option("--rounding", o->rounding, name_list<ElementRounding>())->check(member<ElementRounding>());
  verb->add_option("--seed", o->seed, "Philox key for stochastic rounding");
  verb->add_option("--offset", o->offset, "Philox offset");
  verb->add_flag("--hadamard", o->hadamard, "16-point random Hadamard along the blocks first");
  verb->add_option("--scale-layout", o->layout, name_list<ScaleLayout>())->check(member<ScaleLayout>());
  add_fp32(*verb, "--global-amax", o->amax, "Use this amax instead of the tensor's own", 0.0f);
  add_fp32(*verb, "--global-scale", o->scale, "The stored global scale, for presets whose caller gives it",
           0.0f);
  verb->add_flag("--json", o->json, "One line of JSON about the result, statistics included");
  verb->add_flag("--stats", o->stats,
                 "Print what was not finite, what hit the ends of its format, and the noise");
  verb->add_flag("--stats-by-row", o->by_row, "The same for every block row");
  verb->footer("Example: nvfp4 quantize x.npy -o x.q.safetensors --convention te --block 1x16\n"
               "Example: nvfp4 quantize model.safetensors --tensor '*.weight' -o quantized/ --convention te");
  verb->callback([o, &exit_code] { exit_code = run_quantize(*o); });
}

void register_dequantize(Command &app, int &exit_code) {
  Command *verb = app.add_subcommand("dequantize", "Values of tensors that nvfp4 quantize wrote");
  auto o = std::make_shared<Options>();
  verb->add_option("in", o->inputs, "Files written by nvfp4 quantize; - is standard input")->required();
  verb->add_option("-o,--output", o->out,
                   "Output .npy or .safetensors; for several files a folder; - is standard output")
      ->required();
  verb->add_option("--dtype", o->dtype, "f32, bf16 or f16")->check(OneOf{{"f32", "bf16", "f16"}});
  verb->add_flag("--json", o->json, "One line of JSON about the result");
  verb->add_flag("--keep-rotation", o->keep_rotation, "Do not undo the Hadamard rotation");
  verb->footer("Example: nvfp4 dequantize x.q.safetensors -o x.npy\n"
               "Example: nvfp4 dequantize quantized/*.safetensors -o values/");
  verb->callback([o, &exit_code] { exit_code = run_dequantize(*o); });
}

} // namespace nvfp4::tool
