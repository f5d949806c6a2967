// SPDX-License-Identifier: Apache-2.0
// Equality of contents first, names for what is not equal second.
#include "nvfp4/reference_models/report/groups.hpp"

#include "nvfp4/golden/io/message.hpp"

#include <algorithm>
#include <set>

namespace nvfp4::models {
namespace {

/// Behind the names of recipes whose mixers run in BF16.
constexpr std::string_view kMixers = "+mixers=bf16";

int rank_of(const std::string &recipe) {
  constexpr std::string_view order[] = {"fp32",         "bf16", "mxfp8",   "nvfp4-plain", "nvfp4",
                                        "mxfp4-sr-rht", "hcp",  "post-qk", "chon"};
  const auto at = std::find(std::begin(order), std::end(order), recipe);
  return int(at - std::begin(order));
}

/// Names for distinct contents, by the keys in which they are not all equal.
class Names {
public:
  void add(const RunContent &content) {
    if (std::find(contents_.begin(), contents_.end(), content) == contents_.end())
      contents_.push_back(content);
  }

  /// " [steps 400, clip 0]", or nothing where there is one content only.
  [[nodiscard]] std::string suffix(const RunContent &content) const {
    if (contents_.size() < 2) return {};
    const std::string text = described(content);
    size_t same = 0, number = 0;
    for (const RunContent &other : contents_)
      if (described(other) == text) {
        ++same;
        if (other == content) number = same;
      }
    return " [" + text + (same > 1 ? ", no. " + std::to_string(number) : "") + "]";
  }

  /// "steps (400, 800) and clip (0, 1)"; empty where there is one content only.
  [[nodiscard]] std::string differences() const {
    std::string text;
    for (const std::string &key : keys()) {
      std::set<std::string> values;
      for (const RunContent &c : contents_) values.insert(value(c, key));
      text += (text.empty() ? "" : ", ") + key + " (";
      for (const std::string &v : values) text += (v == *values.begin() ? "" : "; ") + v;
      text += ")";
    }
    return text;
  }

private:
  static std::string value(const RunContent &content, const std::string &key) {
    const auto at = content.find(key);
    return at == content.end() ? "none" : at->second;
  }

  [[nodiscard]] std::vector<std::string> keys() const {
    std::set<std::string> all;
    std::vector<std::string> out;
    for (const RunContent &c : contents_)
      for (const auto &[key, unused] : c) all.insert(key);
    for (const std::string &key : all)
      if (std::any_of(contents_.begin(), contents_.end(),
                      [&](const RunContent &c) { return value(c, key) != value(contents_.front(), key); }))
        out.push_back(key);
    return out;
  }

  /// By the first three keys: names stand in tables.
  [[nodiscard]] std::string described(const RunContent &content) const {
    std::string text;
    size_t shown = 0;
    for (const std::string &key : keys())
      if (shown++ < 3) text += (text.empty() ? "" : ", ") + key + " " + value(content, key);
    return text;
  }

  std::vector<RunContent> contents_;
};

/// What a group's recipe is called by: its content, and how far its runs are.
RunContent recipe_of(const RunData &run) {
  RunContent content = run.recipe_content;
  content["step reached"] = std::to_string(run.last_step());
  return content;
}

int64_t first_difference(const RunData &a, const RunData &b) {
  for (size_t i = 0; i < std::min(a.log.size(), b.log.size()); ++i)
    if (a.log[i].loss != b.log[i].loss) return a.log[i].step;
  return 0;
}

} // namespace

std::string Duplicate::text() const {
  return io::printable(run->folder) + ": the same run as " + io::printable(kept->folder) + ", left out" +
         (differs_at > 0 ? "; BUT their losses differ from step " + std::to_string(differs_at) +
                               " on, which those of the same run do not"
                         : "");
}

RunGroups sort_runs(const std::vector<RunData> &runs) {
  RunGroups out;
  std::map<std::string, Names> sections; // by model
  for (const RunData &run : runs)
    if (!run.diverged) sections[run.model].add(run.setting);
  std::map<std::pair<std::string, std::string>, Names> recipes; // by section and recipe
  const auto plain = [&](const RunData &run) { return run.model + sections[run.model].suffix(run.setting); };
  std::map<std::string, bool> all_mixers; // by section: every recipe's mixers run in BF16
  for (const RunData &run : runs)
    if (!run.diverged)
      all_mixers.try_emplace(plain(run), true).first->second &= run.recipe.ends_with(kMixers);
  const auto section = [&](const RunData &run) {
    const std::string name = plain(run);
    return all_mixers[name] ? name + ", mixers in BF16" : name;
  };
  const auto called = [&](const RunData &run) {
    return all_mixers[plain(run)] ? run.recipe.substr(0, run.recipe.size() - kMixers.size()) : run.recipe;
  };
  for (const RunData &run : runs)
    if (!run.diverged) recipes[{section(run), called(run)}].add(recipe_of(run));

  for (const RunData &run : runs) {
    if (run.diverged) continue;
    const std::string model = section(run),
                      recipe = called(run) + recipes[{model, called(run)}].suffix(recipe_of(run));
    auto at = std::find_if(out.groups.begin(), out.groups.end(),
                           [&](const RunGroup &g) { return g.model == model && g.recipe == recipe; });
    if (at == out.groups.end()) at = out.groups.insert(at, {model, recipe, {}});
    const auto twin = std::find_if(at->runs.begin(), at->runs.end(),
                                   [&](const RunData *other) { return other->seed == run.seed; });
    if (twin != at->runs.end())
      out.duplicates.push_back({&run, *twin, first_difference(run, **twin)});
    else
      at->runs.push_back(&run);
  }
  for (RunGroup &g : out.groups)
    std::stable_sort(g.runs.begin(), g.runs.end(), [](auto *a, auto *b) { return a->seed < b->seed; });
  std::stable_sort(out.groups.begin(), out.groups.end(), [](const RunGroup &a, const RunGroup &b) {
    if (a.model != b.model) return a.model < b.model;
    const auto rank = [](const RunGroup &g) {
      return rank_of(g.recipe.substr(0, g.recipe.find_first_of("+ ")));
    };
    const int x = rank(a), y = rank(b);
    return x != y ? x < y : a.recipe < b.recipe;
  });
  for (const auto &[model, names] : sections)
    if (const std::string text = names.differences(); !text.empty())
      out.differences.push_back(model + ": kept apart by " + text);
  for (const auto &[name, names] : recipes)
    if (const std::string text = names.differences(); !text.empty())
      out.differences.push_back(name.first + " under " + name.second + ": kept apart by " + text);
  return out;
}

} // namespace nvfp4::models
