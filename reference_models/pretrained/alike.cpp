// SPDX-License-Identifier: Apache-2.0
// The recipe's quantizer on each master, and the search of golden/checkpoint/against.hpp for what the
// server's was where bytes differ.
#include "nvfp4/reference_models/pretrained/alike.hpp"

#include "nvfp4/emulator/formats/bf16.hpp"
#include "nvfp4/emulator/quantize/quantize.hpp"
#include "nvfp4/golden/checkpoint/against.hpp"
#include "nvfp4/golden/io/message.hpp"
#include "nvfp4/reference_models/diagnostics/finite.hpp"
#include "nvfp4/reference_models/pretrained/trained_layers.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <bit>
#include <fnmatch.h>

namespace nvfp4::models::pretrained {
namespace {

using checkpoint::Weight;

struct Pair {
  const Weight *served, *master;
  ModulePlace place;
};

std::vector<Pair> pairs_of(const checkpoint::Weights &served, const checkpoint::Weights &masters,
                           const AlikeOptions &o) {
  std::vector<Pair> pairs;
  for (const Weight &w : served.all) {
    const auto place = linear_place(w.name);
    if (!place || (!o.tensor.empty() && fnmatch(o.tensor.c_str(), w.name.c_str(), 0) != 0)) continue;
    const auto at = std::find_if(masters.all.begin(), masters.all.end(),
                                 [&](const Weight &m) { return m.name == w.name; });
    if (at == masters.all.end()) throw Error("the trainer's weights have no tensor " + io::printable(w.name));
    for (const Weight *one : {&w, &*at})
      if (!one->decodable || one->batch != 1)
        throw Error("tensor " + io::printable(one->name) + ": " +
                    (one->faults.empty() ? "expected one matrix of numbers or known codes, got " + one->kind()
                                         : one->faults[0]));
    if (at->container)
      throw Error("tensor " + io::printable(at->name) + ": a trainer's weight is numbers, got " + at->kind());
    if (at->rows != w.rows || at->k != w.k)
      throw Error("tensor " + io::printable(w.name) + ": served as " +
                  io::shape_text(std::vector<int64_t>{w.rows, w.k}) + ", trained as " +
                  io::shape_text(std::vector<int64_t>{at->rows, at->k}));
    pairs.push_back({&w, &*at, *place});
  }
  if (pairs.empty())
    throw Error("no linear layer to compare: expected names such as model.layers.0.self_attn.q_proj.weight");
  return pairs;
}

std::string quantizer_text(const OperandRecipe &o) {
  if (o.convention.empty()) return std::string(to_string(o.format));
  return o.convention + (o.block_rows > 1 ? ", 16x16 tiles" : "") + (o.hadamard ? ", rotated" : "") +
         (o.rounding != ElementRounding::nearest ? ", " + std::string(to_string(o.rounding)) : "") +
         (has_level(find_convention(o.convention).rule) ? ", own amax" : "");
}

/// Numbers on both sides: the words in BF16.
void compare_numbers(AlikeLine &line, const Pair &p, FormatId source, const AlikeOptions &o) {
  const std::vector<float> a = checkpoint::values(*p.master, 0, 0, p.master->rows, o.threads),
                           b = checkpoint::values(*p.served, 0, 0, p.served->rows, o.threads);
  for (size_t i = 0; i < a.size(); ++i) {
    const float trained = source == FormatId::bf16 ? round_to_bf16(a[i]) : a[i],
                served = source == FormatId::bf16 ? round_to_bf16(b[i]) : b[i];
    line.codes += std::bit_cast<uint32_t>(trained) != std::bit_cast<uint32_t>(served);
  }
  line.alike = line.codes == 0;
  if (!line.alike)
    line.why =
        std::to_string(line.codes) + " of " + std::to_string(a.size()) + " numbers differ: other weights";
}

/// What the search says of the server's bytes, against the recipe's quantizer.
std::string reason(const Pair &p, const OperandRecipe &trained, bool rounded_first,
                   const checkpoint::Weights &masters, const AlikeOptions &o, std::string &served) {
  checkpoint::AgainstOptions against;
  against.threads = o.threads;
  float fused = checkpoint::largest_magnitude(*p.master, o.threads);
  for (const std::string &other : checkpoint::fused_with(p.master->name))
    for (const Weight &w : masters.all)
      if (w.name == other && w.decodable)
        fused = std::max(fused, checkpoint::largest_magnitude(w, o.threads));
  against.fused_amax = fused;
  const checkpoint::Comparison c = checkpoint::compare_with(*p.served, *p.master, against);
  if (!c.refused.empty()) return c.refused;
  if (c.equal.empty()) {
    served = "no known quantizer of these weights";
    return (c.closest ? "the closest is " + c.closest->text() + ", which differs in " +
                            std::to_string(c.closest->codes_differing) + " codes and " +
                            std::to_string(c.closest->scales_differing) + " scales"
                      : std::string("nothing comes near")) +
           (c.explanation.empty() ? "; the masters may not be what was quantized" : ": " + c.explanation);
  }
  // of those that give the bytes, the one that shares most with the recipe
  const Convention *const own = &find_convention(trained.convention);
  const auto apart = [&](const checkpoint::Reproduction &r) {
    return (&find_convention(r.convention) != own) * 4 + (r.block_rows != trained.block_rows) * 2 +
           (r.amax != "own");
  };
  const checkpoint::Reproduction &r = *std::min_element(
      c.equal.begin(), c.equal.end(), [&](const auto &a, const auto &b) { return apart(a) < apart(b); });
  served = r.text();
  std::string why;
  const auto add = [&](const std::string &text) { why.append(why.empty() ? "" : "; ").append(text); };
  if (&find_convention(r.convention) != own) {
    std::string names;
    for (const checkpoint::Reproduction &other : c.equal)
      if (apart(other) == apart(r)) names.append(names.empty() ? "" : " or ").append(other.convention);
    add("convention " + names + ", trained with " + std::string(own->name));
  }
  if (r.block_rows != trained.block_rows)
    add(r.block_rows > 1 ? "served in 16x16 tiles, trained in 1x16 blocks"
                         : "served in 1x16 blocks, trained in 16x16 tiles");
  if (r.amax == "fused") add("served with the amax of the fused modules, trained with the weight's own");
  if (r.amax == "stored") add("served with a given global scale, trained with the weight's own amax");
  if (trained.hadamard) add("trained rotated, served as it is");
  if (rounded_first) add("trained weights are rounded to bf16 first, served ones were not");
  if (!r.global_equal) add("the stored global scale is not the one of that amax");
  return why.empty() ? "the global scale's word differs" : why;
}

void compare_pair(AlikeLine &line, const Pair &p, const LinearRecipe &linear,
                  const checkpoint::Weights &masters, const AlikeOptions &o) {
  const OperandRecipe &trained = linear.fprop.b;
  line.trained = quantizer_text(trained);
  line.served = p.served->kind();
  const bool quantizes = !trained.convention.empty();
  if (!quantizes && !p.served->container) return compare_numbers(line, p, linear.source, o);
  if (quantizes != bool(p.served->container)) {
    line.why = quantizes ? "trained in " + std::string(to_string(trained.format)) + ", served as numbers"
                         : "trained in " + std::string(to_string(trained.format)) + ", served quantized";
    return;
  }
  const Rule &rule = find_convention(trained.convention).rule;
  if (!p.served->is_block_scaled() || rule.element != p.served->container->element ||
      rule.scale != p.served->container->scale || rule.block != p.served->container->block) {
    line.why = "trained in " + std::string(to_string(trained.format)) + ", served in another format";
    return;
  }
  std::vector<float> x = checkpoint::values(*p.master, 0, 0, p.master->rows, o.threads);
  bool rounded = false;
  if (linear.source == FormatId::bf16)
    for (float &v : x) {
      rounded |= std::bit_cast<uint32_t>(v) != std::bit_cast<uint32_t>(round_to_bf16(v));
      v = round_to_bf16(v);
    }
  const BlockScaled made =
      quantize({x.data(), p.master->rows, p.master->k}, find_convention(trained.convention),
               {.block_rows = trained.block_rows,
                .hadamard = trained.hadamard,
                .source = linear.source,
                .threads = o.threads});
  const BlockScaled stored = checkpoint::block_scaled(*p.served, 0, 0, p.served->rows);
  for (int64_t r = 0; r < stored.rows; ++r) {
    for (int64_t i = 0; i < stored.k; ++i) line.codes += stored.code_word(r, i) != made.code_word(r, i);
    for (int64_t b = 0; b < stored.blocks(); ++b)
      line.scales += stored.scale_code(r, b) != made.scale_code(r, b);
  }
  const auto word = [](float v) { return std::bit_cast<uint32_t>(v); };
  const bool divides = p.served->container->global_use == checkpoint::GlobalUse::divides;
  const bool global = !p.served->global || (divides ? word(made.global_encode) == word(stored.global_encode)
                                                    : word(made.global_decode) == word(stored.global_decode));
  line.alike = line.codes == 0 && line.scales == 0 && global;
  if (!line.alike) line.why = reason(p, trained, rounded, masters, o, line.served);
}

} // namespace

Alike compare_alike(const checkpoint::Checkpoint &served, const checkpoint::Checkpoint &masters,
                    const Recipe &recipe, const AlikeOptions &options) {
  const checkpoint::Weights of_served = checkpoint::find_weights(served),
                            of_masters = checkpoint::find_weights(masters);
  const std::vector<Pair> pairs = pairs_of(of_served, of_masters, options);
  const TrainedLayers layers(of_served, recipe);
  Alike out;
  out.family = layers.recipe().family;
  for (const Pair &p : pairs) {
    AlikeLine line{.name = p.served->name};
    compare_pair(line, p, layers.resolve(p.place), of_masters, options);
    out.differing += !line.alike;
    out.lines.push_back(std::move(line));
    if (options.progress) options.progress(double(out.lines.size()) / double(pairs.size()));
  }
  return out;
}

std::string to_text(const Alike &a) {
  std::string text;
  for (const AlikeLine &l : a.lines) {
    text += l.name + ": ";
    if (l.alike) {
      text += "alike (" + l.trained + ")\n";
      continue;
    }
    text += "DIFFERS: " + l.why + "\n    trained: " + l.trained + "; served: " + l.served;
    if (l.scales > 0 || l.codes > 0)
      text += "; " + std::to_string(l.codes) + " codes and " + std::to_string(l.scales) + " scales differ";
    text += "\n";
  }
  const auto n = int64_t(a.lines.size());
  return text + (a.differing == 0 ? "alike: all " + std::to_string(n) + " linear layers\n"
                                  : "not alike: " + std::to_string(a.differing) + " of " + std::to_string(n) +
                                        " linear layers differ\n");
}

std::string to_json(const Alike &a) {
  nlohmann::ordered_json j = {
      {"family", a.family}, {"differing", a.differing}, {"layers", nlohmann::ordered_json::array()}};
  for (const AlikeLine &l : a.lines)
    j["layers"].push_back({{"tensor", l.name},
                           {"alike", l.alike},
                           {"trained", l.trained},
                           {"served", l.served},
                           {"codes_differing", l.codes},
                           {"scales_differing", l.scales},
                           {"why", l.why}});
  return j.dump();
}

} // namespace nvfp4::models::pretrained
