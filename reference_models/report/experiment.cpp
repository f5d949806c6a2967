// SPDX-License-Identifier: Apache-2.0
// Reading the grid, running it, pairing its runs.
#include "nvfp4/reference_models/report/experiment.hpp"

#include "nvfp4/emulator/config.hpp"
#include "nvfp4/golden/io/file.hpp"
#include "nvfp4/golden/io/message.hpp"
#include "nvfp4/reference_models/recipe/recipe.hpp"
#include "nvfp4/reference_models/train/checksums.hpp"
#include "nvfp4/reference_models/train/evaluate.hpp"
#include "nvfp4/reference_models/train/fields.hpp"
#include "nvfp4/reference_models/train/options.hpp"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fmt/core.h>
#include <map>
#include <set>

namespace nvfp4::models {
namespace {

using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

void write_text(const std::string &path, std::string_view text) {
  io::write_file_atomically(path, std::as_bytes(std::span(text)));
}

/// The list under `key`, which must be there, not empty and without repetitions.
const Json &list_of(const Json &json, const char *key, const char *example, const std::string &where) {
  const auto at = json.find(key);
  if (at == json.end() || !at->is_array() || at->empty())
    throw Error(where + "expected a list under '" + key + "', such as " + example);
  std::set<std::string> seen;
  for (const Json &item : *at)
    if (!seen.insert(item.dump()).second)
      throw Error(where + "'" + key + "' has " + io::printable(item.dump(), 60) + " twice");
  return *at;
}

ExperimentModel model_of(const Json &json, const std::string &where) {
  ExperimentModel m;
  if (!json.is_object())
    throw Error(where +
                "an element of 'models' is an object such as {\"model\": \"gla\", \"size\": \"tiny\"}, got " +
                io::printable(json.dump(), 60));
  TrainOptions o;
  for (const auto &[key, value] : json.items()) {
    if (key != "model" && key != "size")
      throw Error(where + "unknown key " + io::in_quotes(key) +
                  " in 'models': only model and size stand there");
    set_option(o, key, value, where);
  }
  if (!json.contains("model")) throw Error(where + "an element of 'models' lacks 'model'");
  return {o.model, o.size};
}

/// "recipes/mine.json" -> "mine".
std::string stem(const std::string &name) {
  return name.find_first_of("/.") == std::string::npos || !name.ends_with(".json")
             ? name
             : fs::path(name).stem().string();
}

Json result_json(const TrainResult &r) {
  Json json = {{"steps", r.steps},
               {"final_loss", r.final_loss}, // null where not finite
               {"smoothed_loss", r.smoothed_loss},
               {"diverged", r.diverged},
               {"validation_loss", r.validation_loss},
               {"bits_per_byte", r.bits_per_byte},
               {"parameter_digest", r.parameter_digest}};
  if (r.diverged != 0) json["last_finite_loss"] = r.last_finite_loss;
  if (r.not_finite) json["not_finite"] = fields_to_json(kNotFiniteFields, *r.not_finite);
  return json;
}

TrainResult result_of(const Fields &f) {
  TrainResult r;
  r.steps = f.count("steps", 0);
  r.final_loss = f.real("final_loss");
  r.smoothed_loss = f.real("smoothed_loss");
  r.validation_loss = f.real("validation_loss");
  r.bits_per_byte = f.real("bits_per_byte");
  r.diverged = f.has("diverged") ? f.count("diverged", 0) : 0;
  r.last_finite_loss = f.optional_real("last_finite_loss");
  r.parameter_digest = f.text("parameter_digest");
  if (f.has("not_finite")) r.not_finite = not_finite_of(f.object("not_finite"));
  return r;
}

/// The result in the folder if the run there is done. Throws Error if it is another run.
bool finished(const TrainOptions &options, const DescribeFunction &describe, TrainResult &result) {
  const auto refuse = [&](const std::string &difference) {
    if (!difference.empty())
      throw Error(io::printable(options.out) + " holds a run with other options (" + difference +
                  "): give another 'out' or remove the folder");
  };
  if (describe) {
    const RunDescription run = describe(options);
    if (fs::exists(options.out + "/run.json")) refuse(difference_from(run, options.out));
  }
  const std::string path = options.out + "/result.json";
  if (!fs::exists(path)) return false;
  const std::string where = io::printable(path) + ": ", advice = "; remove the file to run it again";
  Json json = parse_json(read_text(path), where, advice);
  check_seal(json, where, advice);
  const Fields file(std::move(json), where, advice);
  refuse(first_difference(options, file.object("options").json(), where, advice));
  result = result_of(file.object("result"));
  return result.diverged != 0 || result.steps >= options.steps;
}

Json estimate_json(const Estimate &e) {
  return {
      {"n", e.n}, {"mean", e.mean}, {"half_width_95", e.half_width ? Json(*e.half_width) : Json(nullptr)}};
}

/// "2.7131 +- 0.0042 (3)".
std::string estimate_text(const Estimate &e, const char *unit, bool sign) {
  if (e.n == 0) return "-";
  if (!std::isfinite(e.mean)) return "not finite";
  const std::string mean =
      sign ? fmt::format("{:+.3f}{}", e.mean, unit) : fmt::format("{:.4f}{}", e.mean, unit);
  return e.half_width ? mean + (sign ? fmt::format(" +- {:.3f}", *e.half_width)
                                     : fmt::format(" +- {:.4f}", *e.half_width))
                      : mean;
}

} // namespace

Experiment parse_experiment(std::string_view text, const std::string &source) {
  const std::string where = io::printable(source) + ": ";
  const Json json = parse_json(text, where);
  if (!json.is_object())
    throw Error(where + "expected an object with models, recipes, seeds, out and training options");
  const std::set<std::string> lists = {"models", "recipes", "seeds", "out"};
  std::set<std::string> decided;
  each_field(kTrainFields, [&](const auto &f) {
    if ((f.marks & kGrid) != 0) decided.insert(f.name);
  });
  Experiment e;
  for (const auto &[key, value] : json.items()) {
    if (lists.contains(key)) continue;
    if (decided.contains(key))
      throw Error(where + "'" + key + "' is decided by the grid: 'models', 'recipes' and 'seeds' are lists");
    if (!set_option(e.base, key, value, where))
      throw Error(where + "unknown key " + io::in_quotes(key) + "; there are models, recipes, seeds, out, " +
                  field_names(kTrainFields, [](const auto &f) { return (f.marks & kGrid) == 0; }));
  }
  const auto out = json.find("out");
  if (out == json.end() || !out->is_string() || out->get<std::string>().empty())
    throw Error(where + "expected the folder of the results under 'out'");
  e.out = out->get<std::string>();
  for (const Json &m : list_of(json, "models", "[{\"model\": \"gla\", \"size\": \"tiny\"}]", where))
    e.models.push_back(model_of(m, where));
  for (const Json &r : list_of(json, "recipes", "[\"bf16\", \"nvfp4\", \"chon\"]", where)) {
    TrainOptions o;
    set_option(o, "recipe", r, where + "in 'recipes': ");
    e.recipes.push_back(o.recipe);
  }
  for (const Json &s : list_of(json, "seeds", "[1, 2, 3]", where)) {
    TrainOptions o;
    set_option(o, "seed", s, where + "in 'seeds': ");
    e.seeds.push_back(o.seed);
  }
  std::set<std::string> folders;
  for (const ExperimentModel &m : e.models)
    for (const std::string &r : e.recipes)
      if (!folders.insert(run_folder(e, m, r, e.seeds[0])).second)
        throw Error(where + "two runs would share the folder " +
                    io::in_quotes(run_folder(e, m, r, e.seeds[0])) + ": give files different names");
  return e;
}

std::string run_folder(const Experiment &e, const ExperimentModel &m, const std::string &recipe,
                       uint64_t seed) {
  return e.out + "/" + stem(m.model) + "-" + m.size + "-" + stem(recipe) + "-" + std::to_string(seed);
}

RunDescription describe_run(const TrainOptions &o) {
  check_options(o);
  Recipe recipe = load_recipe(o.recipe);
  if (o.bf16_first >= 0 || o.bf16_last >= 0) keep_in_bf16(recipe, o.bf16_first, o.bf16_last);
  const ModelConfig model = find_model(o.model, o.size, o.sizes);
  const std::unique_ptr<DataSource> data = open_data(o.data, o.validation, o.sequence, o.validation_data);
  check_vocabulary(*data, model);
  if (o.device == "cpu") check_memory(model, o.batch, o.sequence, true, o.accumulation);
  return {o, model, to_json(recipe), data->digest(), data->describe()};
}

ExperimentSummary run_experiment(const Experiment &e, const TrainFunction &train,
                                 const ExperimentProgress &progress, const DescribeFunction &describe,
                                 const ExperimentPlan &plan) {
  ExperimentSummary summary;
  for (const uint64_t seed : e.seeds)
    for (const ExperimentModel &m : e.models)
      for (const std::string &recipe : e.recipes) {
        ExperimentRun run{e.base, {}, false, {}};
        run.options.model = m.model;
        run.options.size = m.size;
        run.options.recipe = recipe;
        run.options.seed = seed;
        run.options.out = run_folder(e, m, recipe, seed);
        run.kept =
            finished(run.options, describe, run.result); // refuses a foreign folder before anything is run
        summary.runs.push_back(std::move(run));
      }
  fs::create_directories(e.out);
  const FolderLock lock(e.out);
  if (plan) plan(summary.runs);
  for (size_t i = 0; i < summary.runs.size(); ++i) {
    ExperimentRun &run = summary.runs[i];
    if (run.kept) continue;
    run.options.resume = fs::exists(run.options.out + "/run.json");
    fs::create_directories(run.options.out);
    try {
      run.result = train(run.options, [&](const StepReport &report) {
        if (progress) progress(i, summary.runs.size(), run.options, report);
      });
    } catch (const Error &error) {
      run.failure = error.what();
      continue;
    }
    if (run.result.interrupted) {
      summary.interrupted = true;
      return summary;
    }
    Json json = {
        {"version", 1}, {"options", options_to_json(run.options)}, {"result", result_json(run.result)}};
    write_text(run.options.out + "/result.json", sealed(std::move(json)).dump(1) + "\n");
  }
  summary.groups = summarize(e, summary.runs);
  write_text(e.out + "/summary.json", summary_json(summary));
  return summary;
}

std::vector<ExperimentGroup> summarize(const Experiment &e, const std::vector<ExperimentRun> &runs) {
  const auto find = [&](const ExperimentModel &m, const std::string &recipe,
                        uint64_t seed) -> const TrainResult * {
    for (const ExperimentRun &r : runs)
      if (r.options.model == m.model && r.options.size == m.size && r.options.recipe == recipe &&
          r.options.seed == seed && r.failure.empty())
        return &r.result;
    return nullptr;
  };
  std::vector<ExperimentGroup> groups;
  for (const ExperimentModel &m : e.models)
    for (const std::string &recipe : e.recipes) {
      ExperimentGroup g{m, recipe, {}, {}, {}, {}, {}, {}, {}};
      std::vector<double> last, smoothed, validation, smoothed_gap, validation_gap;
      for (const uint64_t seed : e.seeds) {
        const TrainResult *const r = find(m, recipe, seed), *const reference = find(m, "bf16", seed);
        if (!r) continue;
        if (r->diverged != 0) {
          g.diverged.push_back(seed);
          continue;
        }
        g.seeds.push_back(seed);
        last.push_back(r->final_loss);
        smoothed.push_back(r->smoothed_loss);
        validation.push_back(r->validation_loss);
        if (!reference || reference->diverged != 0 || recipe == "bf16") continue;
        smoothed_gap.push_back(relative_gap(r->smoothed_loss, reference->smoothed_loss));
        validation_gap.push_back(relative_gap(r->validation_loss, reference->validation_loss));
      }
      g.final_loss = estimate(last);
      g.smoothed_loss = estimate(smoothed);
      g.validation_loss = estimate(validation);
      g.smoothed_gap = estimate(smoothed_gap);
      g.validation_gap = estimate(validation_gap);
      groups.push_back(std::move(g));
    }
  return groups;
}

std::string summary_table(const ExperimentSummary &s) {
  std::string text =
      fmt::format("{:<16} {:<14} {:>5} {:>20} {:>20} {:>20} {:>20} {:>20}\n", "model", "recipe", "seeds",
                  "final loss", "smoothed loss", "validation loss", "gap to bf16", "validation gap");
  bool intervals = false;
  for (const ExperimentGroup &g : s.groups) {
    intervals |= g.smoothed_loss.half_width.has_value();
    text += fmt::format(
        "{:<16} {:<14} {:>5} {:>20} {:>20} {:>20} {:>20} {:>20}\n", g.model.model + "-" + g.model.size,
        g.recipe, g.seeds.size(), estimate_text(g.final_loss, "", false),
        estimate_text(g.smoothed_loss, "", false), estimate_text(g.validation_loss, "", false),
        estimate_text(g.smoothed_gap, " %", true), estimate_text(g.validation_gap, " %", true));
  }
  text += intervals ? "Losses in nats per token; +- is the 95 % confidence interval over seeds (Student's "
                      "t); gaps pair "
                      "runs of the same seed.\n"
                    : "Losses in nats per token; one seed has no confidence interval; gaps pair runs of the "
                      "same seed.\n";
  for (const ExperimentRun &r : s.runs)
    if (r.failure.empty() && r.result.diverged != 0)
      text += fmt::format("DIVERGED at step {}, last finite loss {}: {} is left out of losses and gaps{}\n",
                          r.result.diverged,
                          std::isfinite(r.result.last_finite_loss)
                              ? fmt::format("{:.4f}", r.result.last_finite_loss)
                              : std::string("unknown"),
                          io::printable(r.options.out),
                          r.result.not_finite ? "; first not finite: " + r.result.not_finite->text() : "");
  for (const ExperimentRun &r : s.runs)
    if (!r.failure.empty()) text += "failed: " + io::printable(r.options.out) + ": " + r.failure + "\n";
  return text;
}

std::string summary_json(const ExperimentSummary &s) {
  Json runs = Json::array(), groups = Json::array();
  for (const ExperimentRun &r : s.runs) {
    Json run = {{"folder", fs::path(r.options.out).filename().string()},
                {"model", r.options.model},
                {"size", r.options.size},
                {"recipe", r.options.recipe},
                {"seed", r.options.seed}};
    if (r.failure.empty())
      run["result"] = result_json(r.result);
    else
      run["failure"] = r.failure;
    runs.push_back(std::move(run));
  }
  for (const ExperimentGroup &g : s.groups)
    groups.push_back({{"model", g.model.model},
                      {"size", g.model.size},
                      {"recipe", g.recipe},
                      {"seeds", g.seeds},
                      {"diverged_seeds", g.diverged},
                      {"final_loss", estimate_json(g.final_loss)},
                      {"smoothed_loss", estimate_json(g.smoothed_loss)},
                      {"validation_loss", estimate_json(g.validation_loss)},
                      {"smoothed_gap_percent", estimate_json(g.smoothed_gap)},
                      {"validation_gap_percent", estimate_json(g.validation_gap)}});
  return Json{{"version", 1}, {"groups", groups}, {"runs", runs}}.dump(1) + "\n";
}

} // namespace nvfp4::models
