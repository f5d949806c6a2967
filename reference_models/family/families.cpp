// SPDX-License-Identifier: Apache-2.0
// The list of families, and what is asked of all of them.
#include "nvfp4/emulator/config.hpp"
#include "nvfp4/emulator/nearest.hpp"
#include "nvfp4/golden/io/message.hpp"
#include "nvfp4/reference_models/family/config.hpp"

#include <algorithm>
#include <cstdio>
#include <tuple>

namespace nvfp4::models {

extern const ModelFamily kGla, kQwen3, kQwen25, kGdn, kLlama, kGsa, kMamba2;

namespace {

constexpr const ModelFamily *kFamilies[] = {&kGla, &kQwen3, &kQwen25, &kGdn, &kLlama, &kGsa, &kMamba2};

std::vector<std::string> mixer_roles(const ModelFamily &family) {
  std::vector<std::string> roles;
  for (const MixerParameter &p : family.parameters)
    if (p.linear >= 0) roles.push_back("attn." + std::string(p.module));
  return roles;
}

/// With the output projections, in which mixers end, behind all others of the mixers.
std::vector<std::string> roles_of_all() {
  std::vector<std::string> roles;
  for (const bool output : {false, true})
    for (const ModelFamily *f : kFamilies)
      for (std::string &role : mixer_roles(*f))
        if ((role == f->output_role()) == output && std::find(roles.begin(), roles.end(), role) == roles.end())
          roles.push_back(std::move(role));
  for (const SharedLinear &l : kSharedLinears) roles.emplace_back(l.role);
  return roles;
}

} // namespace

const MixerParameter *ModelFamily::find_linear(std::string_view module) const {
  const auto at = std::find_if(parameters.begin(), parameters.end(),
                               [&](const MixerParameter &p) { return p.linear >= 0 && p.module == module; });
  return at == parameters.end() ? nullptr : &*at;
}

std::span<const ModelFamily *const> families() { return kFamilies; }

const ModelFamily *family_or_null(std::string_view name) {
  for (const ModelFamily *f : kFamilies)
    if (f->name == name) return f;
  return nullptr;
}

const ModelFamily &find_family(std::string_view name) {
  if (const ModelFamily *family = family_or_null(name)) return *family;
  throw Error("unknown model family " + io::in_quotes(name) +
              suggestion_among(name, kFamilies, [](const ModelFamily *f) { return f->name; }) + "; expected one of " + family_names());
}

std::string family_names() {
  std::string names;
  for (const ModelFamily *f : kFamilies) names.append(names.empty() ? "" : ", ").append(f->name);
  return names;
}

std::vector<std::string> linear_roles(const ModelFamily &family) {
  std::vector<std::string> roles = mixer_roles(family);
  for (const SharedLinear &l : kSharedLinears)
    if (family.has_mlp() || !l.role.starts_with("mlp.")) roles.emplace_back(l.role);
  return roles;
}

std::span<const std::string> linear_roles() {
  static const std::vector<std::string> roles = roles_of_all();
  return roles;
}

const ModelFamily &guess_family(std::span<const std::string> roles) {
  const ModelFamily *best = nullptr;
  std::tuple<int64_t, bool, int64_t> fewest; // roles that it lacks, no MLP, roles that it has
  for (const ModelFamily *f : kFamilies) {
    const std::vector<std::string> own = linear_roles(*f);
    const auto lacks = std::count_if(roles.begin(), roles.end(), [&](const std::string &role) {
      return std::find(own.begin(), own.end(), role) == own.end();
    });
    const std::tuple<int64_t, bool, int64_t> count(lacks, !f->has_mlp(), int64_t(own.size()));
    if (best != nullptr && count >= fewest) continue;
    best = f;
    fewest = count;
  }
  return *best;
}

std::string family_table() {
  std::string table = "| family | mixer | presets | roles behind QK |\n|---|---|---|---|\n";
  for (const ModelFamily *f : kFamilies) {
    std::string presets, post_qk;
    for (const Preset &p : f->presets) {
      char millions[32];
      std::snprintf(millions, sizeof millions, " %.2f M", double(parameter_count(preset(*f, p.size))) / 1e6);
      presets += (presets.empty() ? "`" : ", `") + std::string(p.size) + "`" + millions;
    }
    for (const std::string_view role : f->post_qk)
      post_qk += (post_qk.empty() ? "`" : ", `") + std::string(role) + "`";
    table += "| `" + std::string(f->name) + "` | " + std::string(f->summary) + " | " + presets + " | " +
             post_qk + " |\n";
  }
  return table;
}

} // namespace nvfp4::models
