// SPDX-License-Identifier: Apache-2.0
// Reductions of records to points and numbers.
#include "nvfp4/reference_models/report/analysis.hpp"
#include "nvfp4/reference_models/family/mixer_operators.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

namespace nvfp4::models {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

double reduce(const std::vector<double> &values, bool use_median) {
  return use_median ? median(values) : mean(values);
}

bool counts(const TensorRecord &t, TensorKind kind) {
  return t.kind == kind && t.layer >= 0 && mixer_operator_or_null(t.op) == nullptr;
}

std::vector<Point> reduce_by(const std::map<int64_t, std::vector<double>> &values, bool use_median) {
  std::vector<Point> out;
  for (const auto &[x, list] : values) out.push_back({double(x), reduce(list, use_median)});
  return out;
}

std::span<const int64_t> set_of(const TensorRecord &t, bool hot) {
  return std::span(t.top).first(hot ? size_t(t.hot) : t.top.size());
}

} // namespace

std::vector<std::string> models_of(const std::vector<RunGroup> &groups) {
  std::vector<std::string> models;
  for (const RunGroup &g : groups)
    if (models.empty() || models.back() != g.model) models.push_back(g.model);
  return models;
}

const RunGroup *find_group(const std::vector<RunGroup> &groups, std::string_view model,
                           std::string_view recipe) {
  for (const RunGroup &g : groups)
    if (g.model == model && g.recipe == recipe) return &g;
  return nullptr;
}

const RunGroup &reference_group(const std::vector<RunGroup> &groups, std::string_view model) {
  if (const RunGroup *const bf16 = find_group(groups, model, "bf16")) return *bf16;
  return *std::find_if(groups.begin(), groups.end(), [&](const RunGroup &g) { return g.model == model; });
}

const RunGroup *scored_group(const std::vector<RunGroup> &groups, std::string_view model) {
  const auto scored = [](const RunGroup &g) {
    return std::any_of(g.runs.begin(), g.runs.end(),
                       [](const RunData *run) { return !run->sensitivity.empty(); });
  };
  const RunGroup &first = reference_group(groups, model);
  if (scored(first)) return &first;
  for (const RunGroup &g : groups)
    if (g.model == model && scored(g)) return &g;
  return nullptr;
}

double median(std::vector<double> values) {
  values.erase(std::remove_if(values.begin(), values.end(), [](double v) { return std::isnan(v); }),
               values.end());
  if (values.empty()) return kNan;
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  return values.size() % 2 ? values[half] : (values[half - 1] + values[half]) / 2;
}

double mean(const std::vector<double> &values) {
  double sum = 0;
  size_t n = 0;
  for (const double v : values)
    if (!std::isnan(v)) sum += v, ++n;
  return n ? sum / double(n) : kNan;
}

int64_t late_start(const RunData &run) {
  std::vector<int64_t> steps;
  for (const TensorRecord &t : run.tensors) steps.push_back(t.step);
  std::sort(steps.begin(), steps.end());
  steps.erase(std::unique(steps.begin(), steps.end()), steps.end());
  return steps.empty() ? 0 : steps[steps.size() - std::max<size_t>(1, steps.size() / 4)];
}

std::vector<Point> over_time(const RunData &run, TensorKind kind, TensorField field, bool use_median) {
  std::map<int64_t, std::vector<double>> values;
  for (const TensorRecord &t : run.tensors)
    if (counts(t, kind)) values[t.step].push_back(t.*field);
  return reduce_by(values, use_median);
}

std::vector<Point> by_depth(const RunData &run, TensorKind kind, TensorField field, bool use_median) {
  std::map<int64_t, std::vector<double>> values;
  const int64_t from = late_start(run);
  for (const TensorRecord &t : run.tensors)
    if (counts(t, kind) && t.step >= from) values[t.layer].push_back(t.*field);
  return reduce_by(values, use_median);
}

double late_value(const RunData &run, TensorKind kind, TensorField field, bool use_median) {
  std::vector<double> values;
  const int64_t from = late_start(run);
  for (const TensorRecord &t : run.tensors)
    if (counts(t, kind) && t.step >= from) values.push_back(t.*field);
  return reduce(values, use_median);
}

std::vector<Point> largest_activation(const RunData &run) {
  std::map<int64_t, double> largest;
  for (const ResidualRecord &r : run.residual)
    if (r.layer >= 0) {
      double &to = largest.try_emplace(r.step, r.largest).first->second;
      to = std::isnan(r.largest) || std::isnan(to) ? kNan : std::max(to, r.largest);
    }
  std::vector<Point> out;
  for (const auto &[step, value] : largest) out.push_back({double(step), value});
  return out;
}

std::vector<Point> massive_activation_count(const RunData &run) {
  std::map<int64_t, double> sums;
  for (const ResidualRecord &r : run.residual)
    if (r.layer >= 0) sums[r.step] += r.massive;
  std::vector<Point> out;
  for (const auto &[step, value] : sums) out.push_back({double(step), value});
  return out;
}

std::vector<Point> residual_by_depth(const RunData &run, double ResidualRecord::*field) {
  std::vector<int64_t> steps;
  for (const ResidualRecord &r : run.residual)
    if (steps.empty() || steps.back() != r.step) steps.push_back(r.step);
  if (steps.empty()) return {};
  const int64_t from = steps[steps.size() - std::max<size_t>(1, steps.size() / 4)];
  std::map<int64_t, std::vector<double>> values;
  for (const ResidualRecord &r : run.residual)
    if (r.layer >= 0 && r.step >= from) values[r.layer].push_back(r.*field);
  return reduce_by(values, true);
}

Spikes gradient_spikes(const RunData &run) {
  std::vector<double> norms;
  for (const LogLine &l : run.log) norms.push_back(l.gradient_norm);
  return find_spikes(norms);
}

std::vector<Point> mean_over_runs(const std::vector<std::vector<Point>> &lines) {
  std::map<double, std::vector<double>> at;
  size_t used = 0;
  for (const auto &line : lines) {
    used += line.empty() ? 0 : 1;
    for (const Point &p : line) at[p.x].push_back(p.y);
  }
  std::vector<Point> out;
  for (const auto &[x, values] : at)
    if (values.size() == used) out.push_back({x, mean(values)});
  return out;
}

std::optional<Trend> trend_of(const std::vector<Point> &points) {
  const size_t third = points.size() / 3;
  if (third == 0) return {};
  Trend t;
  for (size_t i = 0; i < third; ++i) {
    t.early += points[i].y / double(third);
    t.late += points[points.size() - 1 - i].y / double(third);
  }
  return std::isfinite(t.early) && std::isfinite(t.late) ? std::optional(t) : std::nullopt;
}

std::vector<Point> persistence(const RunData &run, bool hot) {
  std::map<std::pair<int, std::string>, const TensorRecord *> before;
  std::map<int64_t, std::vector<double>> values;
  for (const TensorRecord &t : run.tensors) {
    if (!counts(t, TensorKind::activation)) continue;
    const TensorRecord *&last = before[{t.layer, t.op}];
    if (last) values[t.step].push_back(jaccard(set_of(*last, hot), set_of(t, hot)));
    last = &t;
  }
  return reduce_by(values, false);
}

double random_persistence(const RunData &run, bool hot) {
  std::vector<double> values;
  for (const TensorRecord &t : run.tensors)
    if (counts(t, TensorKind::activation) && t.channels > 0) {
      const double k = double(set_of(t, hot).size()), n = double(t.channels);
      values.push_back(k * k / n / (2 * k - k * k / n)); // expected overlap k^2 / n over the expected union
    }
  return mean(values);
}

std::optional<Losses> losses_of(const RunData &run) {
  if (run.log.empty()) return {};
  Losses l;
  l.last = run.log.back().loss;
  const size_t tail = std::max<size_t>(1, run.log.size() / 10);
  for (size_t i = run.log.size() - tail; i < run.log.size(); ++i)
    l.smoothed += run.log[i].loss / double(tail);
  for (const LogLine &line : run.log)
    if (line.validation_loss) l.validation = line.validation_loss;
  return l;
}

std::vector<Point> smoothed_loss(const RunData &run) {
  std::vector<double> loss;
  for (const LogLine &l : run.log) loss.push_back(l.loss);
  const std::vector<double> smooth = centred_mean(loss, std::max<int64_t>(2, int64_t(run.log.size()) / 40));
  std::vector<Point> out;
  for (size_t i = 0; i < smooth.size(); ++i) out.push_back({double(run.log[i].step), smooth[i]});
  return out;
}

std::vector<std::pair<const RunData *, const RunData *>> pairs_of(const RunGroup &a, const RunGroup &b) {
  std::vector<std::pair<const RunData *, const RunData *>> pairs;
  for (const RunData *x : a.runs)
    for (const RunData *y : b.runs)
      if (x->seed == y->seed && x->last_step() == y->last_step()) pairs.emplace_back(x, y);
  return pairs;
}

} // namespace nvfp4::models
