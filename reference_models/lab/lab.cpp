// SPDX-License-Identifier: Apache-2.0
// The order of work: runs, then parts, each kept in a file of its own; then what they say of each recipe.
#include "nvfp4/reference_models/lab/lab.hpp"

#include "nvfp4/golden/io/file.hpp"
#include "nvfp4/golden/io/message.hpp"
#include "nvfp4/reference_models/fields/json.hpp"
#include "nvfp4/reference_models/lab/cost.hpp"
#include "nvfp4/reference_models/lab/operand_error.hpp"
#include "nvfp4/reference_models/lab/operators.hpp"
#include "nvfp4/reference_models/linear/product_recipe.hpp"
#include "nvfp4/reference_models/report/analysis.hpp"
#include "nvfp4/reference_models/train/checksums.hpp"
#include "nvfp4/reference_models/train/options.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <fmt/core.h>
#include <limits>
#include <unistd.h>

namespace nvfp4::models {
namespace {

using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

void write_text(const std::string &path, std::string_view text) {
  io::write_file_atomically(path, std::as_bytes(std::span(text)));
}

Json measures_json(const Measures &m) {
  Json json = Json::object();
  for (const auto &[name, values] : m.all()) json[name] = values; // null where not finite
  return json;
}

Json options_json(const LabOptions &o) {
  Json json = fields_to_json(kLabFields, o);
  json["rates"] = o.rates;
  return json;
}

/// A file of measures that is whole, or nothing; Error where it is damaged.
std::optional<Measures> read_part(const std::string &path) {
  if (!fs::exists(path)) return {};
  const std::string where = io::printable(path) + ": ", advice = "; remove the file to measure it again";
  Json json = parse_json(read_text(path), where, advice);
  check_seal(json, where, advice);
  Measures m;
  const Fields file(Fields(std::move(json), where, advice).object("measures"));
  for (const auto &[name, values] : file.json().items())
    for (const double v : file.reals(name.c_str())) m.add(name, v);
  return m;
}

/// What a lab is made of once its options are read.
struct Plan {
  std::vector<std::string> recipes, labels;
  std::vector<Experiment> grids; ///< by learning rate
  std::string reference;
  std::string own_checkpoint; ///< of the run that --model names; empty: the reference's first run
  ModelConfig config;
};

Plan make_plan(const LabOptions &o) {
  check_bounds(kLabFields, o);
  if (o.rates.empty() || !std::ranges::all_of(o.rates, [](double r) { return above(0).has(r); }))
    throw Error("--rates: expected multiples of the learning rate, numbers above 0, such as 1,4");
  Plan plan;
  plan.recipes = lab_recipes(o.recipes);
  std::erase_if(plan.recipes, [&](const std::string &name) {
    bool cpu_only = false;
    for (const auto &[linear, l] : load_recipe(name).linears) cpu_only = cpu_only || needs_cpu(l);
    if (cpu_only && o.device != "cpu" && o.recipes != "all")
      throw Error("--recipes " + recipe_label(name) +
                  ": its operands (" + kNeedsCpu + ") are made on the CPU only; use --device cpu");
    return cpu_only && o.device != "cpu";
  });
  Experiment e;
  TrainOptions &t = e.base;
  ExperimentModel model;
  if (fs::is_directory(o.model)) {
    if (!fs::exists(o.model + "/run.json"))
      throw Error("--model " + io::in_quotes(o.model) +
                  ": expected FAMILY,SIZE, a JSON file or the folder of a run; it has no run.json");
    t = read_options(o.model);
    model = {o.model + "/run.json", t.size};
    plan.own_checkpoint = o.model + "/checkpoint.safetensors";
    if (!fs::exists(plan.own_checkpoint))
      throw Error(io::printable(o.model) + ": expected a run with a checkpoint.safetensors");
    t.sizes.clear();
    t.resume = false;
    t.bf16_first = t.bf16_last = -1;
    if (!o.data.empty()) t.data = o.data;
  } else {
    const size_t comma = o.model.find(',');
    model = {o.model.substr(0, comma), comma == std::string::npos ? "tiny" : o.model.substr(comma + 1)};
    if (!o.data.empty()) t.data = o.data;
    if (o.data.empty() && access(t.data.c_str(), R_OK) != 0)
      throw Error("the default text " + t.data + " is not there: make it with tools/corpus, or give --data");
  }
  t.steps = o.steps;
  t.schedule_steps = -1;
  t.batch = o.batch;
  t.sequence = o.sequence;
  t.accumulation = 1;
  t.device = o.device;
  t.threads = o.threads;
  t.eval_every = t.diagnostics_every = 0;
  t.eval_batches = 16;
  t.checkpoint_every = o.steps;
  plan.config = find_model(model.model, model.size);
  e.models = {model};
  e.recipes = plan.recipes;
  for (const std::string &r : plan.recipes) {
    plan.labels.push_back(recipe_label(r));
    (void)load_recipe(r).for_family(std::string(plan.config.family->name));
  }
  plan.reference = "bf16";
  e.reference = plan.reference;
  for (int64_t s = 1; s <= o.seeds; ++s) e.seeds.push_back(uint64_t(s));
  for (const double rate : o.rates) {
    e.base.learning_rate = o.learning_rate * rate;
    e.out = o.out + "/runs" + (rate == o.rates.front() ? "" : fmt::format("-rate-{:g}", rate));
    plan.grids.push_back(e);
  }
  return plan;
}

/// Refuses a folder that holds another lab, and says what this one is.
void claim_folder(const LabOptions &o) {
  const std::string path = o.out + "/options.json", where = io::printable(path) + ": ";
  const Json mine = options_json(o);
  if (fs::exists(path)) {
    const std::string advice = "; give another --out or remove the folder";
    Json json = parse_json(read_text(path), where, advice);
    check_seal(json, where, advice);
    for (const auto &[key, value] : mine.items()) {
      bool decides = key == "rates";
      each_field(kLabFields, [&, &name = key](const auto &f) {
        decides = decides || (name == f.name && (f.marks & kLabDecides) != 0);
      });
      if (decides && json["options"].value(key, Json()) != value)
        throw Error(io::printable(o.out) + " holds a lab with other options (" + key + ": " + shown(value) +
                    " here, " + shown(json["options"].value(key, Json())) + " there)" + advice);
    }
    return;
  }
  write_text(path, sealed({{"version", 1}, {"options", mine}}).dump(1) + "\n");
}

/// Seconds that the lab will take: training by the time of a few steps of each recipe, measuring by the same
/// steps.
std::string forecast(const LabOptions &o, const Plan &plan, const TrainFunction &train) {
  const std::string folder = o.out + "/.forecast-" + std::to_string(::getpid());
  double step = 0;
  for (const std::string &recipe : plan.recipes) {
    TrainOptions t = plan.grids.front().base;
    const ExperimentModel &m = plan.grids.front().models.front();
    t.model = m.model;
    t.size = m.size;
    t.recipe = recipe;
    std::vector<double> times = time_steps(t, 4, folder, train);
    std::error_code code;
    fs::remove_all(folder, code);
    if (times.empty()) continue;
    std::ranges::sort(times);
    step += times[times.size() / 2];
  }
  const double training = step * double(o.steps * o.seeds * int64_t(o.rates.size()));
  // a draw of the products and one of the gradient take about the time of 2.5 steps; the formats about 15 s a
  // seed
  const double measuring = step * 2.5 * double(o.draws * o.seeds) + 15.0 * double(o.seeds);
  return fmt::format("about {:.0f} min: {:.1f} min of training, {} recipes x {} seeds x {} steps{}, and "
                     "{:.1f} min of measuring; "
                     "by the time of steps 2 to 4 of each recipe",
                     std::ceil((training + measuring) / 60), training / 60, plan.recipes.size(), o.seeds,
                     o.steps, o.rates.size() > 1 ? fmt::format(" x {} learning rates", o.rates.size()) : "",
                     measuring / 60);
}

/// One part: measured, or read where it was before. False: stopped.
using Measure = std::function<Measures(const std::function<void(double)> &)>;
struct Part {
  std::string name; ///< of the file, and of the stage for people
  Measure measure;
};

/// loss/RECIPE and gap/RECIPE by seed; rate/FACTOR/RECIPE by seed where there are several rates;
/// apart/RECIPE.
void note_losses(Measures &to, const Plan &plan, const std::vector<ExperimentSummary> &grids,
                 const LabOptions &o) {
  for (size_t g = 0; g < grids.size(); ++g)
    for (const std::string &label : plan.labels)
      for (const uint64_t seed : plan.grids[g].seeds) {
        double loss = kNan, reference = kNan;
        for (const ExperimentRun &r : grids[g].runs) {
          if (r.options.seed != seed || !r.failure.empty() || r.result.diverged != 0) continue;
          if (recipe_label(r.options.recipe) == label) loss = r.result.validation_loss;
          if (recipe_label(r.options.recipe) == plan.reference) reference = r.result.validation_loss;
        }
        if (o.rates.size() > 1) to.add(fmt::format("rate/{:g}/{}", o.rates[g], label), loss);
        if (g > 0) continue;
        to.add("loss/" + label, loss);
        to.add("gap/" + label, relative_gap(loss, reference));
      }
}

/// The last step at which the mean gap is not above kApart, and one; 0 where that is the last of all.
int64_t apart_from(const std::vector<const RunData *> &runs, const std::vector<const RunData *> &references) {
  std::vector<std::vector<Point>> gaps;
  for (const RunData *const run : runs)
    for (const RunData *const reference : references) {
      if (run->seed != reference->seed) continue;
      const std::vector<Point> a = smoothed_loss(*run), b = smoothed_loss(*reference);
      std::vector<Point> gap;
      for (size_t i = 0; i < std::min(a.size(), b.size()); ++i)
        if (a[i].x == b[i].x) gap.push_back({a[i].x, relative_gap(a[i].y, b[i].y)});
      gaps.push_back(std::move(gap));
    }
  const std::vector<Point> gap = mean_over_runs(gaps);
  for (size_t i = gap.size(); i-- > 0;)
    if (!(gap[i].y > kApart)) return i + 1 == gap.size() ? 0 : int64_t(gap[i + 1].x);
  return gap.empty() ? 0 : int64_t(gap.front().x);
}

/// The operator with the largest error in a product, "mlp.down_proj (0.153)"; BF16's do not count.
std::string weakest_operator(const Measures &m, const std::string &label, Product product) {
  constexpr double kOfBf16 = 0.02; ///< above what BF16 does
  const std::string prefix = "product/" + label + "/" + std::string(to_string(product)) + "/";
  std::string worst;
  double most = kOfBf16;
  for (const std::string &role : m.between(prefix, "/error"))
    if (const double error = m.mean(prefix + role + "/error"); error > most) {
      most = error;
      worst = fmt::format("{} ({:.3g})", role, error);
    }
  return worst;
}

std::vector<LabRow> rows_of(const Plan &plan, const Measures &m, const ExperimentSummary &grid,
                            const std::vector<RunData> &runs) {
  std::vector<LabRow> rows;
  const auto of = [&](const std::string &label) {
    std::vector<const RunData *> out;
    for (size_t i = 0; i < runs.size(); ++i) // the grid's, in its order
      if (recipe_label(grid.runs[i].options.recipe) == label && !runs[i].diverged) out.push_back(&runs[i]);
    return out;
  };
  for (const std::string &label : plan.labels) {
    LabRow row{.recipe = label, .loss = m.estimate("loss/" + label), .gap = m.estimate("gap/" + label)};
    for (const ExperimentRun &r : grid.runs) {
      if (recipe_label(r.options.recipe) != label || (r.failure.empty() && r.result.diverged == 0)) continue;
      row.diverged.push_back(r.options.seed);
      if (!row.broke.empty()) continue;
      row.broke = !r.failure.empty()
                      ? r.failure
                      : fmt::format("step {}{}", r.result.diverged,
                                    r.result.not_finite ? ": " + r.result.not_finite->text() : "");
    }
    if (label != plan.reference) row.apart = apart_from(of(label), of(plan.reference));
    for (const Product p : enumerators<Product>()) row.weakest[size_t(p)] = weakest_operator(m, label, p);
    rows.push_back(std::move(row));
  }
  std::ranges::stable_sort(rows, [](const LabRow &a, const LabRow &b) {
    const auto key = [](const LabRow &r) { return std::isfinite(r.gap.mean) ? r.gap.mean : HUGE_VAL; };
    return key(a) < key(b);
  });
  return rows;
}

} // namespace

std::vector<std::string> lab_recipes(const std::string &option) {
  std::vector<std::string> out;
  if (option == "all" || option == "builtin") {
    for (const std::string_view name : builtin_recipes()) out.emplace_back(name);
    for (const RecipeVariation &v : recipe_variations())
      if (option == "all" && v.on_hardware) out.emplace_back(v.name);
  } else {
    for (size_t at = 0; at <= option.size();) {
      const size_t comma = std::min(option.find(',', at), option.size());
      if (comma == at)
        throw Error("--recipes: expected all, or names and files with commas between, got " +
                    io::in_quotes(option));
      out.push_back(option.substr(at, comma - at));
      at = comma + 1;
    }
  }
  for (size_t i = 0; i < out.size(); ++i)
    for (size_t j = 0; j < i; ++j)
      if (recipe_label(out[i]) == recipe_label(out[j]))
        throw Error("--recipes: " + io::in_quotes(recipe_label(out[i])) + " is there twice");
  // gaps are taken to BF16
  if (std::ranges::find(out, "bf16", recipe_label) == out.end()) out.insert(out.begin(), "bf16");
  return out;
}

LabResult run_lab(const LabOptions &o, const TrainFunction &train, const LabCallbacks &callbacks,
                  const std::string &version) {
  const Plan plan = make_plan(o);
  LabResult result{.options = o, .reference = plan.reference};
  const auto stopped = [&] { return callbacks.stop && callbacks.stop(); };
  const auto show = [&](const std::string &stage, double fraction) {
    if (callbacks.progress) callbacks.progress(stage, fraction);
  };
  // all runs are checked before the first; the data are the same for all
  TrainOptions first = plan.grids.front().base;
  first.model = plan.grids.front().models.front().model;
  first.size = plan.grids.front().models.front().size;
  const RunDescription about = describe_run(first);
  result.data = about.data;
  result.model = fmt::format("{}-{}, {} parameters", plan.config.family->name, plan.config.name,
                             parameter_count(plan.config));
  (void)make_device(o.device, o.threads); // refuses one that is not there before anything is written
  fs::create_directories(o.out + "/parts");
  const FolderLock lock(o.out);
  claim_folder(o);

  std::vector<ExperimentSummary> grids;
  std::optional<std::string> told;
  for (size_t g = 0; g < plan.grids.size(); ++g) {
    const std::string stage =
        "runs" + (g == 0 ? std::string() : fmt::format(" at {:g} times the learning rate", o.rates[g]));
    double done = 0, all = 1;
    const auto check = [&](const std::vector<ExperimentRun> &runs) {
      all = 0;
      for (const ExperimentRun &r : runs) all += r.kept ? 0 : double(o.steps);
      if (all > 0 && !told && callbacks.say) callbacks.say(*(told = forecast(o, plan, train)));
      return !stopped();
    };
    grids.push_back(run_experiment(
        plan.grids[g], train,
        [&](size_t, size_t, const TrainOptions &, const StepReport &) { show(stage, ++done / all); },
        [](const TrainOptions &t) { return describe_run(t); }, check));
    if (grids.back().interrupted || stopped()) {
      result.interrupted = true;
      return result;
    }
    for (const ExperimentRun &r : grids.back().runs)
      if (!r.failure.empty()) throw Error(io::printable(r.options.out) + ": " + r.failure);
  }
  note_losses(result.measures, plan, grids, o);

  TrainedModel trained{.config = plan.config};
  trained.checkpoint =
      !plan.own_checkpoint.empty()
          ? plan.own_checkpoint
          : run_folder(plan.grids.front(), plan.grids.front().models.front(), plan.reference, 1) +
                "/checkpoint.safetensors";
  const std::unique_ptr<DataSource> data =
      open_data(first.data, first.validation, o.sequence, first.validation_data);
  const int64_t behind = read_checkpoint(trained.checkpoint).state.step;
  for (int64_t b = 0; b < o.seeds; ++b) {
    StepInput input;
    input.step = behind + 1 + b;
    input.batch = o.batch;
    input.sequence = o.sequence;
    read_micro_batches(*data, input);
    trained.batches.push_back(std::move(input));
  }
  std::vector<std::vector<LabOperator>> operators; // by batch, recorded when a part first asks
  const auto recorded = [&](size_t batch) -> const std::vector<LabOperator> & {
    while (operators.size() <= batch)
      operators.push_back(record_operators(trained, operators.size(), o.device, o.threads));
    return operators[batch];
  };
  std::optional<LabDevice> device;
  std::vector<std::unique_ptr<ProductMeter>> meters; // with exact products, by batch
  const auto meter = [&](size_t batch) -> ProductMeter & {
    if (!device) device = make_lab_device(o.device, o.threads);
    (void)recorded(size_t(o.seeds) - 1); // all, since meters point at them
    while (meters.size() <= batch)
      meters.push_back(std::make_unique<ProductMeter>(*device, operators[meters.size()]));
    return *meters[batch];
  };

  std::vector<Part> parts;
  parts.push_back({"sweeps", [&](const auto &progress) { return sweep(int(o.seeds), o.threads, progress); }});
  parts.push_back(
      {"crest", [&](const auto &progress) { return crest_sweep(int(o.seeds), o.threads, progress); }});
  parts.push_back({"figures", [&](const auto &progress) {
                     return gaussian_figures(int(std::min<int64_t>(o.seeds, 3)),
                                             int(std::min<int64_t>(o.draws, 4)), o.device, o.threads,
                                             progress);
                   }});
  parts.push_back({"presets", [&](const auto &progress) {
                     Measures m;
                     for (int64_t b = 0; b < o.seeds; ++b) {
                       measure_presets(m, recorded(size_t(b)), o.threads);
                       progress(double(b + 1) / double(o.seeds));
                     }
                     return m;
                   }});
  for (size_t i = 0; i < plan.recipes.size(); ++i) {
    const std::string &label = plan.labels[i];
    parts.push_back({"recipe-" + label, [&, i](const auto &progress) {
                       const Recipe recipe =
                           load_recipe(plan.recipes[i]).at_start().for_family(std::string(plan.config.family->name));
                       Measures m;
                       write_cost(m, label, recipe_cost(recipe, recorded(0)));
                       for (size_t b = 0; b < size_t(o.seeds); ++b) {
                         measure_operands(m, "operand/" + label, recipe, recorded(b), o.threads);
                         meter(b).measure(m, "product/" + label, recipe, int(o.draws));
                         measure_gradient(m, label, recipe, trained, b, int(o.draws), o.device, o.threads);
                         progress(double(b + 1) / double(o.seeds));
                       }
                       return m;
                     }});
  }
  for (const Part &part : parts) {
    const std::string path = o.out + "/parts/" + part.name + ".json";
    std::optional<Measures> measured = read_part(path);
    if (!measured) {
      if (stopped()) {
        result.interrupted = true;
        return result;
      }
      measured = part.measure([&](double f) { show(part.name, f); });
      write_text(path, sealed({{"version", 1}, {"measures", measures_json(*measured)}}).dump(1) + "\n");
    }
    result.measures.merge(*measured);
  }

  std::vector<RunData> runs;
  for (const ExperimentRun &r : grids.front().runs) runs.push_back(read_run(r.options.out));
  result.rows = rows_of(plan, result.measures, grids.front(), runs);
  result.claims = judge_claims(result.measures);
  write_text(o.out + "/lab.json", lab_json(result));
  write_text(o.out + "/lab.html", lab_page(result, runs, version));
  return result;
}

namespace {

Json estimate_json(const Estimate &e) {
  return {
      {"n", e.n}, {"mean", e.mean}, {"half_width_95", e.half_width ? Json(*e.half_width) : Json(nullptr)}};
}

std::string interval(const Estimate &e, int decimals) {
  if (e.n == 0 || !std::isfinite(e.mean)) return "-";
  return fmt::format("{:+.{}f}", e.mean, decimals) +
         (e.half_width ? fmt::format(" +- {:.{}f}", *e.half_width, decimals) : "");
}

} // namespace

std::string lab_json(const LabResult &r) {
  Json recipes = Json::array(), claims = Json::array();
  for (const LabRow &row : r.rows) {
    Json j = {{"recipe", row.recipe},
              {"validation_loss", estimate_json(row.loss)},
              {"gap_percent", estimate_json(row.gap)},
              {"diverged_seeds", row.diverged},
              {"broke", row.broke},
              {"apart_from_step", row.apart}};
    for (const Product p : enumerators<Product>())
      j["weakest"][std::string(to_string(p))] = row.weakest[size_t(p)];
    recipes.push_back(std::move(j));
  }
  for (const JudgedClaim &c : r.claims)
    claims.push_back({{"claim", c.claim->text},
                      {"verdict", to_string(c.verdict)},
                      {"measured", c.measured},
                      {"published", c.claim->published},
                      {"source", c.claim->source}});
  return Json{{"version", 1},
              {"options", options_json(r.options)},
              {"model", r.model},
              {"data", r.data},
              {"reference", r.reference},
              {"recipes", recipes},
              {"claims", claims},
              {"measures", measures_json(r.measures)}}
             .dump(1) +
         "\n";
}

std::string lab_table(const LabResult &r) {
  const Measures &m = r.measures;
  std::string text = fmt::format("{:<4} {:<22} {:>18} {:>7} {:>7} {:>7} {:>9} {:>8} {:>6} {:>6}  {}\n", "",
                                 "recipe", "gap to " + r.reference + ", %", "fprop", "dgrad", "wgrad",
                                 "grad bias", "cosine", "bits x", "time", "where it breaks");
  int place = 0;
  for (const LabRow &row : r.rows) {
    const auto number = [&](const std::string &name, int decimals) {
      const double v = m.mean(name);
      return std::isfinite(v) ? fmt::format("{:.{}f}", v, decimals) : std::string("-");
    };
    const auto product = [&](const char *p) {
      return number("product/" + row.recipe + "/" + p + "/error", 3);
    };
    std::string breaks = !row.broke.empty() ? "DIVERGED " + row.broke
                         : row.apart > 0    ? fmt::format("apart from step {}", row.apart)
                                            : "";
    if (row.broke.empty() && !row.weakest[2].empty())
      breaks += (breaks.empty() ? "" : "; ") + ("wgrad of " + row.weakest[2]);
    text += fmt::format(
        "{:<4} {:<22} {:>18} {:>7} {:>7} {:>7} {:>9} {:>8} {:>6} {:>6}  {}\n", ++place, row.recipe,
        row.recipe == r.reference ? "reference" : interval(row.gap, 3), product("fprop"), product("dgrad"),
        product("wgrad"), number("gradient/" + row.recipe + "/bias", 3),
        number("gradient/" + row.recipe + "/cosine", 4), number("cost/" + row.recipe + "/bits.x", 2),
        number("cost/" + row.recipe + "/tensor_time", 2), breaks);
  }
  text += "gap: validation loss, paired by seed, +- 95 %. fprop, dgrad, wgrad: relative error of one draw on "
          "real operands. grad "
          "bias and\ncosine: of the whole gradient against fp32's. bits: of all copies of activations an "
          "element. time: of tensor "
          "cores, BF16 is 1.\n\n";
  for (const JudgedClaim &c : r.claims)
    text += fmt::format("{:<13} {}: {} (published: {})\n", to_string(c.verdict), c.claim->text, c.measured,
                        c.claim->published);
  return text;
}

} // namespace nvfp4::models
