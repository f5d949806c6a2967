// SPDX-License-Identifier: Apache-2.0
// Each weight by itself, beside the weight that it was made from, and all of them together.
#include "nvfp4/golden/checkpoint/inspection.hpp"
#include "nvfp4/emulator/quantize/convention.hpp"
#include "nvfp4/golden/io/message.hpp"

#include <fnmatch.h>
#include <memory>

namespace nvfp4::checkpoint {
namespace {

/// What a checkpoint is held against: its weights by name, and their amax where it was asked for.
class Original {
public:
  explicit Original(const std::string &path)
      : checkpoint_(open_checkpoint(path)), weights_(find_weights(checkpoint_)) {
    for (const Weight &w : weights_.all) by_name_[w.name] = &w;
  }

  Comparison compare(const Weight &mine, const InspectionOptions &o) {
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

void judge(const Weight &w, const Comparison &c, const InspectionOptions &o, std::vector<Finding> &findings) {
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

} // namespace

Inspection inspect(const Checkpoint &c, const Weights &weights, const InspectionOptions &o) {
  if (!o.convention.empty()) {
    if (o.against.empty()) throw Error("--convention: needs --against, the weights that were quantized");
    (void)find_convention(o.convention);
  }
  Inspection result;
  std::unique_ptr<Original> original = o.against.empty() ? nullptr : std::make_unique<Original>(o.against);
  int64_t total = 0, done = 0;
  for (const Weight &w : weights.all) total += w.elements();
  for (const Weight &w : weights.all) {
    done += w.elements();
    if (fnmatch(o.tensor.c_str(), w.name.c_str(), 0) != 0) continue;
    Inspection::Line line{inspect_weight(w, result.findings, o.threads), {}};
    if (original && w.container && w.decodable) {
      line.comparison = original->compare(w, o);
      judge(w, *line.comparison, o, result.findings);
    }
    result.lines.push_back(std::move(line));
    if (o.progress) o.progress(total > 0 ? double(done) / double(total) : 1.0);
  }
  if (result.lines.empty() && !weights.all.empty())
    throw Error("--tensor '" + o.tensor + "': none of the " + std::to_string(weights.all.size()) +
                " tensors of " + io::printable(c.path) + " has such a name");
  for (Finding &f : inspect_together(c, weights))
    if (fnmatch(o.tensor.c_str(), f.tensor.c_str(), 0) == 0 || f.tensor.empty())
      result.findings.push_back(std::move(f));
  for (const Finding &f : result.findings) result.wrong += f.wrong;
  return result;
}

std::vector<int64_t> shape_of(const Weight &w) {
  return w.batch > 1 ? std::vector<int64_t>{w.batch, w.rows, w.k} : std::vector<int64_t>{w.rows, w.k};
}

} // namespace nvfp4::checkpoint
