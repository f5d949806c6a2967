// SPDX-License-Identifier: Apache-2.0
// nvfp4 inspect: what a checkpoint holds, how its weights look, and what is wrong with them.
#include "nvfp4/emulator/quantize/convention.hpp"
#include "nvfp4/golden/checkpoint/against.hpp"
#include "nvfp4/golden/checkpoint/inspect.hpp"
#include "nvfp4/golden/io/message.hpp"
#include "tools/nvfp4/terminal.hpp"
#include "tools/nvfp4/verbs.hpp"

#include <cmath>
#include <fmt/core.h>
#include <fnmatch.h>
#include <memory>
#include <nlohmann/json.hpp>

namespace nvfp4::tool {
namespace {

using namespace checkpoint;
using Json = nlohmann::ordered_json;

struct Options {
  std::string path, tensor = "*", against, convention;
  int threads = 0;
  bool json = false, details = false;
};

/// One weight, and what it was held against.
struct Line {
  WeightReport report;
  std::optional<Comparison> comparison;
};

struct Result {
  std::vector<Line> lines;
  std::vector<Finding> findings;
  int64_t wrong = 0;
};

Json number(double v) {
  return std::isfinite(v) ? Json(v) : Json(std::isnan(v) ? "NaN" : v > 0 ? "Inf" : "-Inf");
}

std::vector<int64_t> shape_of(const Weight &w) {
  return w.batch > 1 ? std::vector<int64_t>{w.batch, w.rows, w.k} : std::vector<int64_t>{w.rows, w.k};
}

/// What a checkpoint is held against: its weights by name, and their amax where it was asked for.
class Original {
public:
  explicit Original(const std::string &path)
      : checkpoint_(open_checkpoint(path)), weights_(find_weights(checkpoint_)) {
    for (const Weight &w : weights_.all) by_name_[w.name] = &w;
  }

  Comparison compare(const Weight &mine, const Options &o) {
    const auto it = by_name_.find(mine.name);
    if (it == by_name_.end()) return {.refused = "the original has no such tensor"};
    AgainstOptions options{o.convention, {}, o.threads};
    float fused = 0;
    for (const std::string &name : fused_with(mine.name))
      if (const auto other = by_name_.find(name); other != by_name_.end() && other->second->decodable)
        fused = std::max(fused, amax(*other->second, o.threads));
    if (fused > 0 && it->second->decodable)
      options.fused_amax = std::max(fused, amax(*it->second, o.threads));
    return compare_with(mine, *it->second, options);
  }

private:
  Checkpoint checkpoint_;
  Weights weights_;
  std::map<std::string, const Weight *> by_name_;
  std::map<std::string, float> amax_;

  float amax(const Weight &w, int threads) {
    const auto it = amax_.find(w.name);
    return it != amax_.end() ? it->second : amax_[w.name] = largest_magnitude(w, threads);
  }
};

void judge(const Weight &w, const Comparison &c, const Options &o, std::vector<Finding> &findings) {
  if (!c.refused.empty())
    findings.push_back({w.name, "against", c.refused, true});
  else if (w.is_block_scaled() && w.batch == 1 && c.equal.empty())
    findings.push_back({w.name, "not_reproduced",
                        (o.convention.empty() ? "no convention" : o.convention + " does not") +
                            std::string(o.convention.empty() ? " gives its bytes" : " give its bytes") +
                            (c.closest ? "; closest is " + c.closest->text() + " with " +
                                             std::to_string(c.closest->codes_differing) + " codes and " +
                                             std::to_string(c.closest->scales_differing) + " scales different"
                                       : "") +
                            (c.explanation.empty() ? "" : ". Its first rows: " + c.explanation),
                        !o.convention.empty()});
}

Result inspect(const Checkpoint &c, const Weights &weights, const Options &o) {
  Result result;
  std::unique_ptr<Original> original = o.against.empty() ? nullptr : std::make_unique<Original>(o.against);
  int64_t total = 0, done = 0;
  tool::Progress progress("inspect");
  for (const Weight &w : weights.all) total += w.elements();
  for (const Weight &w : weights.all) {
    done += w.elements();
    if (fnmatch(o.tensor.c_str(), w.name.c_str(), 0) != 0) continue;
    Line line{inspect_weight(w, result.findings, o.threads), {}};
    if (original && w.container && w.decodable) {
      line.comparison = original->compare(w, o);
      judge(w, *line.comparison, o, result.findings);
    }
    result.lines.push_back(std::move(line));
    progress.show(total > 0 ? double(done) / double(total) : 1.0);
  }
  progress.done();
  if (result.lines.empty() && !weights.all.empty())
    throw Error("--tensor '" + o.tensor + "': none of the " + std::to_string(weights.all.size()) +
                " tensors of " + io::printable(o.path) + " has such a name");
  for (Finding &f : inspect_together(c, weights))
    if (fnmatch(o.tensor.c_str(), f.tensor.c_str(), 0) == 0 || f.tensor.empty())
      result.findings.push_back(std::move(f));
  for (const Finding &f : result.findings) result.wrong += f.wrong;
  return result;
}

Json to_json(const Reproduction &r) {
  return {{"convention", r.convention},
          {"amax", r.amax},
          {"block_rows", r.block_rows},
          {"codes_differing", r.codes_differing},
          {"scales_differing", r.scales_differing},
          {"global_equal", r.global_equal}};
}

Json to_json(const Line &line) {
  const Weight &w = *line.report.weight;
  Json j = {{"name", w.name},
            {"kind", w.kind()},
            {"shape", w.container ? shape_of(w) : w.codes->shape},
            {"stored_as", w.codes->type}};
  if (w.global && w.decodable) j["global_scale"] = number(global_word(w, 0));
  if (w.decodable)
    if (const auto input = input_word(w, 0)) j["input_scale"] = number(*input);
  if (const auto &v = line.report.values) {
    j["values"] = {{"elements", v->elements},         {"nan", v->nan},
                   {"infinity", v->infinity},         {"zero", v->zero},
                   {"mean", number(v->mean)},         {"rms", number(v->rms)},
                   {"kurtosis", number(v->kurtosis)}, {"amax", number(v->amax)}};
    for (const auto &channel : v->largest)
      j["values"]["largest_channels"].push_back({{"column", channel.column}, {"amax", number(channel.amax)}});
  }
  if (const auto &b = line.report.blocks) {
    j["blocks"] = {{"blocks", b->blocks},
                   {"zero", b->zero_blocks},
                   {"scale_underflow", b->scale_underflow},
                   {"scale_saturated", b->scale_saturated},
                   {"scale_nan", b->scale_nan},
                   {"scale_negative", b->scale_negative},
                   {"zero_codes", b->zero_codes},
                   {"largest_codes", b->largest_codes},
                   {"scale_padding", b->scale_padding}};
    for (const auto &[exponent, count] : b->scale_exponents)
      j["blocks"]["scale_exponents"][std::to_string(exponent)] = count;
  }
  if (const auto &c = line.comparison; c && c->refused.empty()) {
    j["against"] = {{"snr_db", number(c->snr_db)},
                    {"flushed", c->flushed},
                    {"not_finite", c->not_finite},
                    {"equal", Json::array()}};
    for (const Reproduction &r : c->equal) j["against"]["equal"].push_back(to_json(r));
    if (c->closest) j["against"]["closest"] = to_json(*c->closest);
    if (!c->explanation.empty()) j["against"]["explanation"] = c->explanation;
  }
  return j;
}

void print_json(const Checkpoint &c, const Result &result) {
  Json j = {{"path", c.path},        {"what", describe(c)},       {"files", c.files},
            {"wrong", result.wrong}, {"findings", Json::array()}, {"weights", Json::array()}};
  for (const Finding &f : result.findings)
    j["findings"].push_back({{"tensor", f.tensor}, {"kind", f.kind}, {"text", f.text}, {"wrong", f.wrong}});
  for (const Line &line : result.lines) j["weights"].push_back(to_json(line));
  fmt::print("{}\n", j.dump(-1, ' ', false, Json::error_handler_t::replace));
}

std::string percent(int64_t part, int64_t of) {
  return of ? fmt::format("{:.3g} %", 100.0 * double(part) / double(of)) : "-";
}

void print_details(const Line &line) {
  if (const auto &v = line.report.values) {
    fmt::print("    mean {:.4g}, rms {:.4g}, largest channels", v->mean, v->rms);
    for (const auto &channel : v->largest) fmt::print(" {} ({:.4g})", channel.column, channel.amax);
    fmt::print("\n");
  }
  if (const auto &b = line.report.blocks) {
    fmt::print("    {} blocks: {} of zeros, {} with scale 0 over codes, {} with the largest scale; {} of the "
               "codes in the others are 0, {} the largest\n",
               b->blocks, b->zero_blocks, b->scale_underflow, b->scale_saturated,
               percent(b->zero_codes, line.report.values->elements),
               percent(b->largest_codes, line.report.values->elements));
    fmt::print("    scales by power of two:");
    for (const auto &[exponent, count] : b->scale_exponents) fmt::print(" 2^{}: {}", exponent, count);
    fmt::print("\n");
  }
}

void print_comparison(const Comparison &c) {
  if (!c.refused.empty()) return;
  fmt::print("    SNR {:.2f} dB, {} elements flushed to 0", c.snr_db, c.flushed);
  if (c.not_finite) fmt::print(", {} not finite", c.not_finite);
  for (size_t i = 0; i < c.equal.size(); ++i)
    fmt::print("{}{}{}", i ? ", " : "; bytes of ", c.equal[i].text(),
               c.equal[i].global_equal ? "" : " (global scale apart)");
  fmt::print("\n");
}

void print_text(const Checkpoint &c, const Result &result, bool details) {
  fmt::print("{}: {}\n\n", io::printable(c.path), describe(c));
  size_t width = 6;
  for (const Line &line : result.lines)
    width = std::max(width, io::printable(line.report.weight->name).size());
  fmt::print("{:{}}  {:<24}  {:>18}  {:>11}  {:>10}  {:>8}\n", "weight", width, "kind", "shape", "global",
             "amax", "kurtosis");
  for (const Line &line : result.lines) {
    const Weight &w = *line.report.weight;
    const auto &v = line.report.values;
    fmt::print("{:{}}  {:<24}  {:>18}  {:>11}  {:>10}  {:>8}\n", io::printable(w.name), width,
               io::printable(w.kind()), io::shape_text(w.container ? shape_of(w) : w.codes->shape),
               w.global && w.decodable ? fmt::format("{:.5g}", global_word(w, 0)) : "-",
               v ? fmt::format("{:.4g}", v->amax) : "-",
               v && std::isfinite(v->kurtosis) ? fmt::format("{:.2f}", v->kurtosis) : "-");
    if (details) print_details(line);
    if (line.comparison) print_comparison(*line.comparison);
  }
  fmt::print("\n");
  for (const Finding &f : result.findings)
    fmt::print("{}: {}{}\n", f.wrong ? "WRONG" : "note",
               f.tensor.empty() ? "" : io::printable(f.tensor) + " ", f.text);
  if (result.wrong == 0) fmt::print("nothing wrong found in {} weights\n", result.lines.size());
}

int run(const Options &o) {
  if (!o.convention.empty()) {
    if (o.against.empty()) throw Error("--convention: needs --against, the weights that were quantized");
    (void)find_convention(o.convention);
  }
  const Checkpoint c = open_checkpoint(o.path);
  const Weights weights = find_weights(c);
  const Result result = inspect(c, weights, o);
  o.json ? print_json(c, result) : print_text(c, result, o.details || result.lines.size() <= 4);
  return result.wrong ? kMismatch : kEqual;
}

} // namespace

void register_inspect(CLI::App &app, int &exit_code) {
  auto *verb = app.add_subcommand("inspect", "What a checkpoint holds, and what is wrong with it");
  auto o = std::make_shared<Options>();
  verb->add_option("path", o->path,
                   "Hugging Face folder, model.safetensors.index.json, .safetensors or .gguf")
      ->required();
  verb->add_option("--tensor", o->tensor, "Only weights whose names match, such as '*.mlp.*' (quote it)");
  verb->add_option(
      "--against", o->against,
      "The checkpoint before quantization: SNR of each weight, and which convention gives its bytes");
  verb->add_option("--convention", o->convention,
                   "With --against: the one convention that must give them; exit code 1 if it does not");
  verb->add_option("--threads", o->threads, "Threads (default: all)")->check(CLI::NonNegativeNumber);
  verb->add_flag("--details", o->details,
                 "Channels, blocks and scales of each weight; the default for up to four");
  verb->add_flag("--json", o->json, "One line of JSON");
  verb->footer("Exit code 1 if anything is wrong. Containers: golden/checkpoint/README.md.\nExample: nvfp4 "
               "inspect model-nvfp4 --against model-bf16");
  verb->callback([o, &exit_code] { exit_code = run(*o); });
}

} // namespace nvfp4::tool
