// SPDX-License-Identifier: Apache-2.0
// Each claim becomes differences that should be positive, one a run or a pair of runs; their mean gives the
// verdict.
#include "nvfp4/reference_models/report/orderings.hpp"

#include <algorithm>
#include <cmath>
#include <fmt/core.h>
#include <map>

namespace nvfp4::models {
namespace {

/// An excess kurtosis that 256 Gaussian values practically never show (their standard error is 0.3). A block
/// with one hot channel reaches 11, with one hot element 251.
constexpr double kSpike = 5;

bool is_gla(const RunGroup &g) { return g.runs[0]->has(MixerKind::gla); }
bool is_softmax(const RunGroup &g) { return g.runs[0]->has(MixerKind::attention); }

/// "2.31 ± 0.12 (n = 3)".
std::string text_of(const Estimate &e, const char *unit = "") {
  return e.half_width ? fmt::format("{} ± {}{} (n = {})", number_text(e.mean, 3),
                                    number_text(*e.half_width, 2), unit, e.n)
                      : fmt::format("{}{} (n = {})", number_text(e.mean, 3), unit, e.n);
}

/// Verdict and numbers from the differences that should be positive.
void judge(Ordering &o, const std::vector<double> &differences, std::string numbers,
           const std::string &missing) {
  std::vector<double> finite;
  for (const double d : differences)
    if (std::isfinite(d)) finite.push_back(d);
  if (finite.empty()) {
    o.measured = missing;
    return;
  }
  const Estimate e = estimate(finite);
  o.verdict = !e.excludes_zero() ? Verdict::not_settled : e.mean > 0 ? Verdict::held : Verdict::not_held;
  o.measured = std::move(numbers) + "; difference " + text_of(e);
  if (const auto needed = values_to_exclude_zero(e); needed && o.verdict == Verdict::not_settled)
    o.measured += fmt::format("; about {} would settle it, if it goes on so", *needed);
  if (finite.size() < differences.size())
    o.measured += fmt::format("; {} without a number", differences.size() - finite.size());
}

double mean_of(const RunGroup &g, const std::function<double(const RunData &)> &value) {
  std::vector<double> values;
  for (const RunData *run : g.runs) values.push_back(value(*run));
  return mean(values);
}

double activation_kurtosis(const RunData &run) {
  return late_value(run, TensorKind::activation, &TensorRecord::kurtosis, true);
}
double ftz(const RunData &run, TensorKind kind) {
  return 100 * late_value(run, kind, &TensorRecord::ftz, false);
}

/// 1: lighter tails in linear attention.
void tails(std::vector<Ordering> &out, const std::vector<RunGroup> &groups,
           const std::vector<std::string> &models) {
  Ordering o{1,  "Per-tensor activation kurtosis is lower in GLA than in softmax attention",
             "", {},
             "", "Fig. 1: GLA below Qwen2.5, no number known"};
  bool any = false;
  for (const std::string &a : models)
    for (const std::string &b : models) {
      const RunGroup &gla = reference_group(groups, a), *const sa = find_group(groups, b, gla.recipe);
      if (!is_gla(gla) || !sa || !is_softmax(*sa)) continue;
      any = true;
      Ordering one = o;
      one.where = a + " and " + b;
      std::vector<double> d;
      for (const auto &[x, y] : pairs_of(gla, *sa))
        d.push_back(activation_kurtosis(*y) - activation_kurtosis(*x));
      judge(one, d,
            fmt::format("late median over operators under {}: {} in {}, {} in {}", gla.recipe,
                        number_text(mean_of(gla, activation_kurtosis), 3), a,
                        number_text(mean_of(*sa, activation_kurtosis), 3), b),
            "no diagnostics in runs of equal seed and length");
      out.push_back(one);
    }
  if (any) return;
  o.measured = "needs a GLA and a softmax run under one recipe";
  out.push_back(o);
}

/// 2: spikes in blocks everywhere.
void spikes(std::vector<Ordering> &out, const std::vector<RunGroup> &groups,
            const std::vector<std::string> &models) {
  for (const std::string &model : models) {
    const RunGroup &g = reference_group(groups, model);
    Ordering o{2,  "16x16 blocks have spikes, whatever the architecture",  model, {},
               "", "Fig. 4: in every architecture tested, no number known"};
    double largest = std::nan("");
    std::vector<double> d;
    for (const RunData *run : g.runs) {
      double most = std::nan("");
      for (const TensorRecord &t : run->tensors)
        if (t.kind == TensorKind::activation && t.layer >= 0 && std::isfinite(t.block_max))
          most = std::fmax(most, t.block_max);
      largest = std::fmax(largest, most);
      d.push_back(most - kSpike);
    }
    judge(
        o, d,
        fmt::format("largest block kurtosis of activations under {}: {} (one spike alone gives 251, one hot "
                    "channel 11; counted from {}, a choice)",
                    g.recipe, number_text(largest, 3), kSpike),
        "no diagnostics");
    out.push_back(o);
  }
}

/// A claim that a line of a run rises (sign 1) or falls (sign -1) from the first to the last third of the
/// records.
void trend(std::vector<Ordering> &out, const RunGroup &g, Ordering o, double sign, const std::string &what,
           const std::function<std::vector<Point>(const RunData &)> &line, const std::string &missing) {
  std::vector<double> d, early, late;
  for (const RunData *run : g.runs)
    if (const auto t = trend_of(line(*run))) {
      d.push_back(sign * (t->late - t->early));
      early.push_back(t->early);
      late.push_back(t->late);
    }
  judge(o, d,
        fmt::format("{} under {}: {} early, {} late", what, g.recipe, number_text(mean(early), 3),
                    number_text(mean(late), 3)),
        missing);
  out.push_back(std::move(o));
}

/// 4: flushing.
void flushing(std::vector<Ordering> &out, const std::vector<RunGroup> &groups,
              const std::vector<std::string> &models) {
  const auto act = [](const RunData &r) { return ftz(r, TensorKind::activation); };
  const auto weight = [](const RunData &r) { return ftz(r, TensorKind::weight); };
  for (const std::string &model : models) {
    Ordering o{
        4, "More activations than weights are flushed to zero", model, {}, "", "always so, no number known"};
    const RunGroup *const g = find_group(groups, model, "nvfp4") ? find_group(groups, model, "nvfp4")
                                                                 : &reference_group(groups, model);
    std::vector<double> d;
    for (const RunData *run : g->runs) d.push_back(act(*run) - weight(*run));
    judge(o, d,
          fmt::format("late mean over operators under {}: {} % of activations, {} % of weights", g->recipe,
                      number_text(mean_of(*g, act), 3), number_text(mean_of(*g, weight), 3)),
          "no diagnostics");
    out.push_back(o);

    Ordering lower{
        4, "CHON flushes fewer activations than NVFP4", model, {}, "", "so reported, no number known"};
    const RunGroup *const chon = find_group(groups, model, "chon"), *const nvfp4 =
                                                                        find_group(groups, model, "nvfp4");
    std::vector<double> pairs;
    if (chon && nvfp4)
      for (const auto &[x, y] : pairs_of(*chon, *nvfp4)) pairs.push_back(act(*y) - act(*x));
    judge(lower, pairs,
          pairs.empty()
              ? ""
              : fmt::format(
                    "{} % under chon, {} % under nvfp4, counted on the main operand: what a residual puts "
                    "back does not count",
                    number_text(mean_of(*chon, act), 3), number_text(mean_of(*nvfp4, act), 3)),
          "needs nvfp4 and chon runs of equal seed and length, with diagnostics");
    out.push_back(lower);
  }
}

/// 5: the gate's pre-activation is the largest output.
void gates(std::vector<Ordering> &out, const std::vector<RunGroup> &groups,
           const std::vector<std::string> &models) {
  for (const std::string &model : models) {
    const RunGroup &g = reference_group(groups, model);
    if (!is_gla(g)) continue;
    Ordering o{5,     "The largest output in GLA is gk_proj's",
               model, {},
               "",    "Fig. 6b: far above other operators; pre-activations from about −120 to 80"};
    std::vector<double> d, gate_mean, other_mean;
    std::string other_op;
    bool outputs = true;
    for (const RunData *run : g.runs) {
      if (run->gates.empty()) continue;
      outputs &= !run->outputs.empty();
      std::map<std::string, std::vector<double>> by_op; // mean top-1 over layers and late steps
      const int64_t from = late_start(*run);
      if (!run->outputs.empty()) {
        for (const OutputRecord &r : run->outputs)
          if (r.layer >= 0 && r.step >= from && !r.op.starts_with("attn.gk_proj"))
            by_op[r.op].push_back(r.top1);
      } else {
        for (const TensorRecord &r : run->tensors)
          if (r.layer >= 0 && r.step >= from && r.kind == TensorKind::activation)
            by_op[r.op].push_back(r.top1);
      }
      std::vector<double> gate;
      for (const GateRecord &r : run->gates)
        if (r.step >= from) gate.push_back(r.top1);
      double most = -1;
      for (const auto &[op, values] : by_op)
        if (mean(values) > most) most = mean(values), other_op = op;
      if (gate.empty() || most < 0) continue;
      d.push_back(mean(gate) - most);
      gate_mean.push_back(mean(gate));
      other_mean.push_back(most);
    }
    judge(o, d,
          fmt::format("late mean top-1 under {}: {} for gk_proj's output, {} for the largest other {} ({})",
                      g.recipe, number_text(mean(gate_mean), 3), number_text(mean(other_mean), 3),
                      outputs ? "output" : "operator's input, as outputs were not recorded", other_op),
          "no diagnostics of the gate");
    out.push_back(o);
  }
}

/// 6: which operator suffers most and least.
void sensitivity(std::vector<Ordering> &out, const std::vector<RunGroup> &groups,
                 const std::vector<std::string> &models) {
  for (const std::string &model : models) {
    const RunGroup &any = reference_group(groups, model);
    const PaperFigures paper = any.runs[0]->paper();
    if (paper.most_sensitive.empty()) continue;
    std::map<std::string, std::vector<double>> scores;
    std::vector<const RunData *> scored;
    if (const RunGroup *const g = scored_group(groups, model))
      for (const RunData *run : g->runs) {
        if (run->sensitivity.size() > 1) scored.push_back(run);
        for (const SensitivityRecord &r : run->sensitivity)
          if (r.parameters > 0) scores[r.op].push_back(r.score); // the table's operators are linear layers
      }
    std::vector<std::pair<double, std::string>> order;
    for (const auto &[op, values] : scores) order.emplace_back(mean(values), op);
    std::sort(order.rbegin(), order.rend());
    const auto add = [&](const char *claim, std::string_view role, bool first, std::string_view score) {
      const std::string op(role);
      Ordering o{6,     fmt::format(fmt::runtime(claim), op),
                 model, {},
                 "",    fmt::format("Table 3: {} {}", op.starts_with("attn.") ? op.substr(5) : op, score)};
      std::vector<double> d; // to the nearest rival
      for (const RunData *run : scored) {
        double own = std::nan(""), rival = std::nan("");
        for (const SensitivityRecord &r : run->sensitivity) {
          if (r.parameters == 0) continue;
          if (r.op == op)
            own = r.score;
          else
            rival = first ? std::fmax(rival, r.score) : std::fmin(rival, r.score);
        }
        d.push_back(first ? own - rival : rival - own);
      }
      const auto at = std::find_if(order.begin(), order.end(), [&](const auto &x) { return x.second == op; });
      judge(o, d,
            at == order.end()
                ? ""
                : fmt::format("mean score {}, number {} of {}; first {} with {}, last {} with {}",
                              number_text(at->first, 3), at - order.begin() + 1, order.size(),
                              order.front().second, number_text(order.front().first, 3), order.back().second,
                              number_text(order.back().first, 3)),
            "no sensitivity scores of it: train with --sensitivity");
      out.push_back(o);
    };
    add("{} is the most sensitive operator", paper.most_sensitive, true, paper.most_score);
    add("{} is the least sensitive operator", paper.least_sensitive, false, paper.least_score);
  }
}

/// 7: losses.
void losses(std::vector<Ordering> &out, const std::vector<RunGroup> &groups,
            const std::vector<std::string> &models) {
  for (const std::string &model : models) {
    const auto compare = [&](const char *claim, const char *low, const char *high, const char *paper) {
      Ordering o{7, claim, model, {}, "", paper};
      const RunGroup *const a = find_group(groups, model, low), *const b = find_group(groups, model, high);
      std::vector<double> d, lows, highs;
      if (a && b)
        for (const auto &[x, y] : pairs_of(*a, *b)) {
          const auto p = losses_of(*x), q = losses_of(*y);
          if (!p || !q) continue;
          const bool validated = p->validation && q->validation;
          lows.push_back(validated ? *p->validation : p->smoothed);
          highs.push_back(validated ? *q->validation : q->smoothed);
          d.push_back(highs.back() - lows.back());
        }
      judge(o, d,
            fmt::format("{} under {}, {} under {}, nats per token", number_text(mean(lows), 5), low,
                        number_text(mean(highs), 5), high),
            fmt::format("needs {} and {} runs of equal seed and length", low, high));
      out.push_back(o);
    };
    compare("Loss: BF16 below CHON", "bf16", "chon", "gap 0.588 % (GLA-1.3B, 60 B tokens; Table 2)");
    compare("Loss: CHON below NVFP4", "chon", "nvfp4", "gap 0.939 % against 0.588 % (Table 2)");
  }
}

} // namespace

std::vector<Ordering> judge_orderings(const std::vector<RunGroup> &groups) {
  std::vector<Ordering> out;
  const std::vector<std::string> models = models_of(groups);
  tails(out, groups, models);
  spikes(out, groups, models);
  for (const std::string &model : models)
    trend(
        out, reference_group(groups, model),
        {3,
         "Hot channels drift early and stay late: Jaccard rises",
         model,
         {},
         "",
         "Figs. 5 and 8: early is steps 400 to 5,400, late from about 15,000"},
        1, "Jaccard of hot sets of neighbouring records",
        [](const RunData &r) { return persistence(r, true); }, "fewer than 4 recorded steps");
  flushing(out, groups, models);
  gates(out, groups, models);
  sensitivity(out, groups, models);
  losses(out, groups, models);
  bool softmax = false;
  for (const std::string &model : models) {
    const RunGroup &g = reference_group(groups, model);
    if (!is_softmax(g)) continue;
    softmax = true;
    const char *const missing = "fewer than 3 records of the attention";
    trend(
        out, g, {8, "Softmax entropy falls", model, {}, "", "Fig. 7, no number known"}, -1, "entropy in nats",
        [](const RunData &r) { return layer_mean(r.attention, &AttentionRecord::entropy); }, missing);
    trend(
        out, g, {8, "The largest logit rises", model, {}, "", "Fig. 7: from about 4 to about 10"}, 1,
        "largest logit",
        [](const RunData &r) { return layer_mean(r.attention, &AttentionRecord::logit_max); }, missing);
    trend(
        out, g, {8, "The kurtosis of logits rises", model, {}, "", "Fig. 7, no number known"}, 1,
        "excess kurtosis of logits",
        [](const RunData &r) { return layer_mean(r.attention, &AttentionRecord::logit_kurtosis); }, missing);
  }
  if (!softmax)
    out.push_back({8, "Softmax entropy falls, largest logit and kurtosis rise", "", Verdict::not_measured,
                   "needs a softmax run", "Fig. 7: largest logit from about 4 to about 10"});
  for (const std::string &model : models)
    trend(
        out, reference_group(groups, model),
        {9, "Rows of W_up and W_gate align", model, {}, "", "growing, no number known"}, 1, "mean |cosine|",
        [](const RunData &r) { return layer_mean(r.swiglu, &SwigluRecord::mean_abs); },
        "fewer than 3 records of SwiGLU");
  return out;
}

} // namespace nvfp4::models
