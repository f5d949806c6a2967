// SPDX-License-Identifier: Apache-2.0
// The page that a person decides from: ranking, what each recipe buys and costs, where it breaks, claims, formats.
#include "nvfp4/reference_models/lab/lab.hpp"
#include "nvfp4/reference_models/lab/operand_error.hpp"
#include "nvfp4/reference_models/report/page.hpp"
#include "nvfp4/reference_models/report/report.hpp"
#include "nvfp4/reference_models/report/sections.hpp"

#include <algorithm>
#include <cmath>
#include <fmt/core.h>

namespace nvfp4::models {
namespace {

std::string number(double v, int digits = 3) { return std::isfinite(v) ? escape(number_text(v, digits)) : "–"; }

std::string cell(const Estimate &e, int decimals, const char *unit = "") {
  if (e.n == 0 || !std::isfinite(e.mean)) return "–";
  std::string out = fmt::format("{}{:.{}f}", e.mean < 0 ? "−" : "", std::fabs(e.mean), decimals);
  if (e.half_width) out += fmt::format(" ± {:.{}f}", *e.half_width, decimals);
  return out + unit;
}

double product(const Measures &m, const std::string &recipe, const char *product, const char *what) {
  return m.mean("product/" + recipe + "/" + product + "/" + what);
}

std::string breaks_of(const LabRow &row) {
  if (!row.broke.empty()) return "diverged at " + row.broke;
  return row.apart > 0 ? fmt::format("apart from step {}", row.apart) : "";
}

std::string ranking(const LabResult &r) {
  std::vector<std::vector<std::string>> rows;
  for (const LabRow &row : r.rows) {
    const std::string &n = row.recipe;
    const Measures &m = r.measures;
    rows.push_back({escape(n), n == r.reference ? "reference" : cell(row.gap, 3, " %"), cell(row.loss, 4),
                    number(product(m, n, "fprop", "error")), number(product(m, n, "dgrad", "error")),
                    number(product(m, n, "wgrad", "error")), number(m.mean("gradient/" + n + "/bias")),
                    number(m.mean("gradient/" + n + "/cosine"), 4),
                    number(m.mean("cost/" + n + "/tensor_time"), 2), escape(breaks_of(row))});
  }
  return table({"recipe", "gap", "validation loss", "fprop error", "dgrad error", "wgrad error", "gradient bias",
                "cosine", "tensor time", "where it breaks"},
               rows, 1);
}

std::string buys(const LabResult &r) {
  BarChart gaps{.title = "Gap of the validation loss", .x_label = "percent of " + r.reference + ", 95 % interval", .digits = 2};
  BarChart products{.title = "Error of the three products", .x_label = "relative L2 of one draw, real operands"};
  BarChart gradients{.title = "The whole gradient against FP32's", .x_label = "relative L2, bias and deviation"};
  static constexpr const char *kProducts[] = {"fprop", "dgrad", "wgrad"};
  for (const LabRow &row : r.rows) {
    if (row.recipe != r.reference && row.gap.n > 0)
      gaps.groups.push_back({row.recipe, {{"gap", recipe_color(row.recipe), row.gap.mean, row.gap.half_width}}});
    BarGroup three{row.recipe, {}};
    for (int p = 0; p < 3; ++p)
      if (const double e = product(r.measures, row.recipe, kProducts[p], "error"); std::isfinite(e))
        three.bars.push_back({kProducts[p], 1 + p, e, {}});
    if (!three.bars.empty()) products.groups.push_back(std::move(three));
    const Estimate bias = r.measures.estimate("gradient/" + row.recipe + "/bias"),
                   deviation = r.measures.estimate("gradient/" + row.recipe + "/deviation");
    if (bias.n > 0)
      gradients.groups.push_back({row.recipe, {{"bias", 2, bias.mean, {}}, {"deviation", 3, deviation.mean, {}, true}}});
  }
  return figures({figure(bar_chart(gaps), "Validation loss after the last step, each seed against the reference's run of that seed. "
                                          "An interval that holds 0 settles nothing."),
                  figure(bar_chart(products), "All linear layers together, on the operands of a step under bf16, against FP64 products "
                                              "of the BF16 operands."),
                  figure(bar_chart(gradients), "Over draws of the random words on the same batch. The bias is what the mean of "
                                               "infinitely many draws would be off.")});
}

std::string costs(const LabResult &r) {
  std::vector<std::vector<std::string>> rows;
  for (const LabRow &row : r.rows) {
    const auto of = [&](const char *what) { return number(r.measures.mean("cost/" + row.recipe + "/" + what), 3); };
    rows.push_back({escape(row.recipe), of("bits.x"), of("bits.w"), of("bits.dy"), of("tensor_time"), of("multiply_adds"),
                    of("rotations"), of("random_bits")});
  }
  return table({"recipe", "bits of x", "bits of W", "bits of dy", "tensor time", "multiply-adds", "rotation operations", "random bits"},
               rows, 1);
}

std::string where_it_breaks(const LabResult &r) {
  std::vector<std::vector<std::string>> rows;
  for (const LabRow &row : r.rows) {
    std::string seeds;
    for (const uint64_t s : row.diverged) seeds += (seeds.empty() ? "" : ", ") + std::to_string(s);
    const auto operator_of = [&](int p) { return row.weakest[size_t(p)].empty() ? std::string("–") : escape(row.weakest[size_t(p)]); };
    rows.push_back({escape(row.recipe), row.broke.empty() ? "no" : escape(row.broke + " (seeds " + seeds + ")"),
                    row.recipe == r.reference ? "reference"
                    : row.apart > 0           ? fmt::format("step {}", row.apart)
                                              : "–",
                    operator_of(0), operator_of(1), operator_of(2)});
  }
  return table({"recipe", "not finite", fmt::format("apart by {} % from", kApart), "weakest in fprop", "in dgrad", "in wgrad"}, rows, 6);
}

std::string claim_table(const LabResult &r) {
  static constexpr const char *kCss[] = {"absent", "held", "failed", "open"};
  std::vector<std::vector<std::string>> rows;
  for (const JudgedClaim &c : r.claims)
    rows.push_back({escape(c.claim->text),
                    fmt::format("<span class=\"{}\">{}</span>", kCss[size_t(c.verdict)], to_string(c.verdict)), escape(c.measured),
                    escape(c.claim->published), escape(c.claim->source)});
  return table({"claim", "verdict", "measured", "published", "source"}, rows, 9);
}

std::string preset_table(const LabResult &r) {
  const Measures &m = r.measures;
  std::vector<std::string> names = m.between("preset/", "/activation/error");
  std::ranges::stable_sort(names, {}, [&](const std::string &n) { return m.mean("preset/" + n + "/activation/error"); });
  std::vector<std::vector<std::string>> rows;
  for (const std::string &n : names) {
    std::vector<std::string> row = {escape(n)};
    for (const char *kind : {"activation", "weight", "gradient"}) row.push_back(number(m.mean("preset/" + n + "/" + kind + "/error")));
    for (const char *kind : {"activation", "gradient"}) {
      row.push_back(number(100 * m.mean("preset/" + n + "/" + kind + "/flushed")));
      row.push_back(number(100 * m.mean("preset/" + n + "/" + kind + "/saturated")));
    }
    rows.push_back(std::move(row));
  }
  return table({"convention", "activations", "weights", "gradients", "act. flushed, %", "act. beyond, %", "grad. flushed, %",
                "grad. beyond, %"},
               rows, 1);
}

std::string sweep_table(const LabResult &r) {
  const Measures &m = r.measures;
  std::vector<std::string> head = {"convention or rule"};
  for (const Distribution &d : distributions()) head.emplace_back(d.name);
  std::vector<std::string> names = m.between("sweep/gaussian/", "/error");
  std::ranges::stable_sort(names, {}, [&](const std::string &n) { return m.mean("sweep/gaussian/" + n + "/error"); });
  std::vector<std::vector<std::string>> rows;
  for (const std::string &n : names) {
    std::vector<std::string> row = {escape(n)};
    for (const Distribution &d : distributions()) row.push_back(number(m.mean("sweep/" + std::string(d.name) + "/" + n + "/error")));
    rows.push_back(std::move(row));
  }
  return table(head, rows, 1);
}

std::string crest_charts(const LabResult &r) {
  std::vector<std::string> all;
  for (const CrestPair &pair : crest_pairs()) {
    LineChart chart{.title = fmt::format("{} and {} by crest factor", pair.low, pair.high),
                    .x_label = "10 x crest factor of a block",
                    .y_label = "signal-to-noise ratio, dB"};
    int color = 2;
    for (const std::string_view convention : {pair.low, pair.high}) {
      Series s{.label = std::string(convention), .color = color++};
      const std::string prefix = "crest/" + std::string(convention) + "/";
      for (const std::string &x : r.measures.between(prefix, "")) s.points.push_back({10 * std::stod(x), r.measures.mean(prefix + x)});
      std::ranges::sort(s.points, {}, &Point::x);
      chart.series.push_back(std::move(s));
    }
    const Estimate at = r.measures.estimate("crossing/" + std::string(pair.name));
    all.push_back(figure(line_chart(chart), at.n > 0 ? "They change places at a crest factor of " + cell(at, 3) + "."
                                                     : "They do not change places."));
  }
  return figures(all);
}

std::string rate_chart(const LabResult &r) {
  if (r.options.rates.size() < 2) return {};
  LineChart chart{.title = "Validation loss by learning rate", .x_label = "log2 of the multiple of the learning rate, in quarters",
                  .y_label = "loss, nats per token"};
  std::vector<double> rates = r.options.rates;
  std::ranges::sort(rates);
  for (const LabRow &row : r.rows) {
    Series s{.label = row.recipe, .color = recipe_color(row.recipe), .dots = true};
    for (const double rate : rates)
      s.points.push_back({4 * std::log2(rate), r.measures.mean(fmt::format("rate/{:g}/{}", rate, row.recipe))});
    chart.series.push_back(std::move(s));
  }
  return figures({figure(line_chart(chart), "Mean over the seeds that stayed finite; a line that ends was left by all of them.")});
}

std::string headline(const LabResult &r) {
  const auto count = [&](Verdict v) { return std::ranges::count(r.claims, v, &JudgedClaim::verdict); };
  const auto settled = [](const LabRow &row) { return row.gap.excludes_zero(); };
  std::string text = fmt::format("{} recipes on {}, {} seeds of {} steps of {} x {} tokens of {}. ", r.rows.size(), r.model,
                                 r.options.seeds, r.options.steps, r.options.batch, r.options.sequence, r.data);
  text += fmt::format("{} of {} gaps to {} are settled. Of {} published claims {} held, {} did not, {} are not settled, {} were not measured.",
                      std::ranges::count_if(r.rows, settled), r.rows.size() - 1, r.reference, r.claims.size(), count(Verdict::held),
                      count(Verdict::not_held), count(Verdict::not_settled), count(Verdict::not_measured));
  return text;
}

} // namespace

std::string lab_page(const LabResult &r, const std::vector<RunData> &runs, const std::string &version) {
  const std::vector<RunGroup> groups = group_runs(runs);
  const std::string title = "FP4 lab";
  std::string body = "<h1>" + title + "</h1>\n<p>" + escape(headline(r)) + "</p>\n";
  body += "<p class=\"notice\">These are short runs of a small model. Gaps of so few steps order recipes by what they do to a young "
          "model; the published claims are of billions of tokens. What does not depend on training, errors, biases, costs, is exact "
          "for these operands.</p>\n";
  body += section("Ranking", "By the mean gap of the validation loss; intervals say what is settled. Errors are relative L2.", ranking(r), "");
  body += section("What each buys", "", buys(r), "No recipe was measured.");
  body += section("What each costs",
                  "Bits an element of all copies that the three products read; tensor-core time over BF16's, by the K of the "
                  "instructions; multiply-adds over those without a patch; rotation operations and random bits an element of a "
                  "quantized copy. Counted, not timed.",
                  costs(r), "");
  body += section("Where each breaks",
                  "Not finite: the step and the first tensor. Apart: the first step from which the smoothed loss stays that far above "
                  "the reference's. Weakest: the operator with the largest error among those that are not in BF16.",
                  where_it_breaks(r), "");
  body += section("Published claims", "Held and not held: the 95 % interval of the difference leaves out 0, or the number lies in or "
                                      "out of the published range.",
                  claim_table(r), "");
  body += section("Stability", "", rate_chart(r), "One learning rate was run; --rates 1,4,16 runs several.");
  body += section("Formats on this model's tensors",
                  "Every convention in blocks along the row, to nearest; +hadamard: rotated. Relative L2 over all linear layers, and "
                  "the parts of the elements that became 0 or lie beyond the largest value of their block.",
                  preset_table(r), "");
  body += section("Formats by crest factor", "Blocks of Gaussian values by their own crest factor, the largest magnitude over the RMS.",
                  crest_charts(r), "");
  std::string text;
  for (const Distribution &d : distributions()) text += (text.empty() ? "" : "; ") + std::string(d.name) + ": " + std::string(d.text);
  body += section("Formats on made-up data", "Relative L2. " + text + ".", sweep_table(r), "");
  body += loss_section(groups) + provenance_section(runs, version);
  return page(title, body);
}

} // namespace nvfp4::models
