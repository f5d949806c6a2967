// SPDX-License-Identifier: Apache-2.0
// What is wrong between tensors: scales without weights, weights without scales, fused modules that disagree.
#include "nvfp4/golden/checkpoint/inspect.hpp"
#include "nvfp4/golden/io/message.hpp"

#include <algorithm>
#include <set>

namespace nvfp4::checkpoint {
namespace {

/// "model.layers.0.self_attn.q_proj.weight" as ("model.layers.0.self_attn", "q_proj").
std::pair<std::string, std::string> module_of(const Weight &w) {
  std::string base = w.name;
  if (base.ends_with(".weight")) base.resize(base.size() - 7);
  const size_t dot = base.rfind('.');
  return dot == std::string::npos ? std::pair{std::string(), base}
                                  : std::pair{base.substr(0, dot), base.substr(dot + 1)};
}

/// The first byte difference between scales of a tensor each; one of them may lack it.
bool same_words(const StoredTensor *a, const StoredTensor *b) {
  if (!a || !b) return a == b;
  return std::ranges::equal(a->bytes, b->bytes);
}

void check_fused(const Weights &weights, std::vector<Finding> &findings) {
  std::map<std::string, std::map<std::string, const Weight *>> modules;
  for (const Weight &w : weights.all) {
    if (!w.container || (!w.global && !w.input)) continue;
    const auto [parent, leaf] = module_of(w);
    modules[parent][leaf] = &w;
  }
  for (const auto &[parent, members] : modules)
    for (const FusedGroup &group : fused_groups()) {
      std::vector<const Weight *> there;
      for (const std::string_view name : group.members)
        if (const auto it = members.find(std::string(name)); it != members.end()) there.push_back(it->second);
      for (size_t i = 1; i < there.size(); ++i) {
        const auto differ = [&](const StoredTensor *a, const StoredTensor *b, const char *what,
                                const char *kind) {
          if (same_words(a, b)) return;
          findings.push_back({there[i]->name, kind,
                              std::string("its ") + what + " scale is not that of " +
                                  io::in_quotes(there[0]->name) +
                                  ", with which serving software fuses it and then uses one for both",
                              true});
        };
        differ(there[0]->global, there[i]->global, "global", "fused_global_scales");
        differ(there[0]->input, there[i]->input, "input", "fused_input_scales");
      }
    }
}

/// Where the configuration asks for stored input scales, or other weights of the container have them.
void check_inputs(const Checkpoint &c, const Weights &weights, std::vector<Finding> &findings) {
  std::set<const Container *> with;
  for (const Weight &w : weights.all)
    if (w.input) with.insert(w.container);
  for (const Weight &w : weights.all) {
    if (!w.container || w.input || w.container->input.empty()) continue;
    if (c.config.static_inputs && w.container->family != "gguf" && w.container->family != "torchao")
      findings.push_back({w.name, "missing_input_scale",
                          "has no input scale, which " + c.config.source + " (" + c.config.method + " " +
                              c.config.algorithm + ") asks for",
                          true});
    else if (with.contains(w.container))
      findings.push_back(
          {w.name, "missing_input_scale",
           "has no input scale, but other weights of " + std::string(w.container->name) + " have one", true});
  }
}

} // namespace

std::vector<Finding> inspect_together(const Checkpoint &c, const Weights &weights) {
  std::vector<Finding> findings;
  for (const StoredTensor *t : weights.orphans)
    findings.push_back(
        {t->name, "orphan", "is a scale of no weight: the codes are missing or of another type", true});
  for (const std::string &name : c.not_in_index)
    findings.push_back({name, "not_in_index", "stands in a shard, but not in the index", true});
  check_inputs(c, weights, findings);
  check_fused(weights, findings);
  bool quantized = std::any_of(weights.all.begin(), weights.all.end(),
                               [](const Weight &w) { return w.container || !w.faults.empty(); });
  if (!c.config.method.empty() && !quantized && weights.orphans.empty())
    findings.push_back({"", "not_quantized",
                        c.config.source + " says " + c.config.method + ", but no weight is quantized", true});
  return findings;
}

std::string describe(const Checkpoint &c) {
  std::string text;
  const auto architecture = c.metadata.find("general.architecture");
  if (c.gguf)
    text = "GGUF version " + std::to_string(c.gguf->version) +
           (architecture == c.metadata.end() ? "" : ", " + io::printable(architecture->second, 60));
  else
    text = std::to_string(c.files.size()) + (c.files.size() == 1 ? " file" : " shards") + " of safetensors";
  if (!c.config.method.empty())
    text += ", " + io::printable(c.config.method, 60) +
            (c.config.algorithm.empty() ? "" : " " + io::printable(c.config.algorithm, 60)) + " (" +
            c.config.source + ")";
  return text;
}

} // namespace nvfp4::checkpoint
