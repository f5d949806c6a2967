// SPDX-License-Identifier: Apache-2.0
// nvfp4 record and nvfp4 replay: one training step in a file, repeated bit for bit or under other recipes.
#include "nvfp4/golden/io/message.hpp"
#include "nvfp4/reference_models/slice/record.hpp"
#include "nvfp4/reference_models/slice/replay.hpp"
#include "nvfp4/reference_models/train/options.hpp"
#include "tools/environment.hpp"
#include "tools/nvfp4/field_options.hpp"
#include "tools/nvfp4/numbers.hpp"
#include "tools/nvfp4/terminal.hpp"
#include "tools/nvfp4/verbs.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <memory>

namespace nvfp4::tool {
namespace {

using namespace nvfp4::models;
using Json = nlohmann::ordered_json;

std::string loss_word(float loss) { return fmt::format("{:08x}", std::bit_cast<uint32_t>(loss)); }

/// "a,b" as two; empty parts are dropped.
std::vector<std::string> split(const std::string &text) {
  std::vector<std::string> out(1);
  for (const char c : text)
    if (c == ',')
      out.emplace_back();
    else
      out.back() += c;
  std::erase(out, "");
  return out;
}

Json facts(const NotFinite &n) { return fields_to_json(kNotFiniteFields, n); }

struct RecordOptions {
  RecordRequest request;
  TrainOptions flags;
  std::vector<std::pair<std::string, Option *>> given; ///< fields of `flags` by name
  std::string taps;
  bool json = false;
};

int run_record(RecordOptions &o) {
  RecordRequest &r = o.request;
  const bool continues = read_checkpoint(r.checkpoint).optimizer;
  if (const auto own = continues ? options_beside(r.checkpoint) : std::nullopt) {
    r.options = *own;
  } else {
    r.options.steps = std::max(r.options.steps, r.step);
  }
  const Json flags = options_to_json(o.flags);
  for (const auto &[name, option] : o.given)
    if (option->count() > 0) set_option(r.options, name, flags.at(name), "");
  r.options.device = o.flags.device;
  r.options.threads = o.flags.threads;
  r.taps = split(o.taps);
  Progress progress("record");
  const RecordReport report =
      record_slice(r, [&](int64_t step) { progress.show(double(step) / double(r.step)); });
  progress.done();
  const StepResult &result = report.result;
  const std::optional<NotFinite> &sick =
      report.not_finite_before ? report.not_finite_before : result.not_finite;
  const int exit_code = sick ? kNotFinite : kEqual;
  if (o.json) {
    Json j = {{"step", r.step},
              {"recipe", report.recipe},
              {"loss", result.loss},
              {"loss_hex", loss_word(result.loss)},
              {"gradient_norm", result.gradient_norm},
              {"digest", result.digest},
              {"tensors", result.tensors.size()},
              {"output", r.output}};
    if (sick) j["not_finite"] = facts(*sick);
    fmt::print("{}\n", j.dump());
    return exit_code;
  }
  fmt::print("step {} under {}: loss {:.6f} ({}), gradient norm {:.6g}, state {}\n", r.step, report.recipe,
             result.loss, loss_word(result.loss), result.gradient_norm, result.digest);
  fmt::print("  from step {}{}, {} taps and gradients, written to {}\n", report.from,
             report.moments ? "" : " without the optimizer's moments (taken as zero)", result.tensors.size(),
             r.output);
  if (!report.waiting.empty())
    fmt::print("  note: the Hot-Channel Patch of {} layers had no channels yet at this step (first: {})\n",
               report.waiting.size(), report.waiting.front());
  if (sick) fmt::print("NOT FINITE: {}\n", sick->text());
  return exit_code;
}

struct ReplayOptions {
  std::string slice, recipe, against, unit, family;
  Place place;
  bool layers = false, json = false;
};

std::string index_text(const Mismatch &m) { return m.index.empty() ? "" : io::shape_text(m.index); }

void print_mismatches(const Identity &i) {
  if (i.mismatches.empty()) return;
  fmt::print("{:<44} {:>20} {:>16} {:>16} {:>10} of {}\n", "differs", "first at", "recorded", "replayed",
             "values", "all");
  for (const Mismatch &m : i.mismatches)
    fmt::print("{:<44} {:>20} {:>16.16} {:>16.16} {:>10} of {}\n", m.name, index_text(m), m.recorded,
               m.replayed, m.differing, m.count);
}

void print_identity(const ReplayOptions &o, const Slice &slice, const Identity &i) {
  const std::string what = fmt::format("{}: step {} under {}", o.slice, slice.step.step,
                                       parse_recipe(slice.before.recipe, slice.before.source).name);
  if (i.mismatches.empty()) {
    fmt::print("{}: identical\n  loss {:.6f} ({}), state {}; {} tensors, {} values compared\n", what,
               i.replayed.loss, loss_word(i.replayed.loss), i.replayed.digest, i.tensors, i.values);
    if (i.replayed.not_finite) fmt::print("NOT FINITE: {}\n", i.replayed.not_finite->text());
    return;
  }
  fmt::print("{}: NOT identical, first at {}\n", what, i.mismatches.front().name);
  print_mismatches(i);
  if (i.replayed.not_finite) fmt::print("NOT FINITE: {}\n", i.replayed.not_finite->text());
}

Json identity_json(const Identity &i) {
  Json list = Json::array();
  for (const Mismatch &m : i.mismatches)
    list.push_back({{"name", m.name},
                    {"index", m.index},
                    {"recorded", m.recorded},
                    {"replayed", m.replayed},
                    {"differing", m.differing},
                    {"of", m.count}});
  Json j = {{"identical", i.mismatches.empty()},
            {"loss", i.replayed.loss},
            {"loss_hex", loss_word(i.replayed.loss)},
            {"digest", i.replayed.digest},
            {"tensors", i.tensors},
            {"values", i.values},
            {"mismatches", list}};
  if (i.replayed.not_finite) j["not_finite"] = facts(*i.replayed.not_finite);
  return j;
}

std::string decibels(double relative) { return fmt::format("{:.1f}", signal_to_noise(relative)); }

/// "nvfp4 (1 of 2)" where the other layers are left out.
std::string format_text(const OperatorError &e) {
  const auto out = int64_t(e.not_finite_layers.size());
  if (out == 0) return e.format;
  return out == e.layers ? e.format + " (not finite)"
                         : fmt::format("{} ({} of {})", e.format, e.layers - out, e.layers);
}

bool all_finite(const Comparison &c) {
  bool finite = true;
  for (const RecipeOutcome &r : c.outcomes) finite = finite && !r.not_finite;
  for (const std::vector<NotFinite> &list : c.not_finite) finite = finite && list.empty();
  return finite;
}

void print_not_finite(const Comparison &c, const std::vector<ComparedRecipe> &recipes) {
  std::vector<std::string> said;
  for (size_t i = 0; i < recipes.size(); ++i)
    for (const NotFinite &n : c.not_finite[i]) {
      const std::string text = n.text();
      if (std::find(said.begin(), said.end(), text) != said.end()) continue;
      said.push_back(text);
      const bool result =
          n.what != StepTensor::input && n.what != StepTensor::weight && n.what != StepTensor::output_grad;
      fmt::print("NOT FINITE{}: {}\n", result ? " under " + recipes[i].recipe.name : "", text);
    }
  if (!said.empty()) fmt::print("Layers with such tensors are left out of the rows over all layers.\n");
}

std::string operator_name(const OperatorError &e, int64_t head) {
  return e.layer < 0 || e.layer >= head ? e.role : fmt::format("{}.{}", e.layer, e.role);
}

/// One row an operator and product; with a second recipe, the ratio of the errors against exact arithmetic.
void print_errors(const Comparison &c, const std::vector<ComparedRecipe> &recipes, int64_t head,
                  const char *operands) {
  fmt::print("Error of each product alone, on {}: relative RMS against BF16 and against exact arithmetic\n"
             "(FP64 product of BF16-rounded operands), and signal to noise against exact.\n",
             operands);
  const bool two = recipes.size() > 1;
  fmt::print("{:<20} {:<6}", "", "");
  fmt::print(" | {:<{}}", recipes.front().recipe.name, two ? 49 : 0);
  if (two) fmt::print(" | {}", recipes.back().recipe.name);
  fmt::print("\n{:<20} {:<6}", "operator", "");
  for (size_t i = 0; i < recipes.size(); ++i)
    fmt::print(" | {:<20} {:>9} {:>9} {:>8}", "format", "to BF16", "to exact", "dB");
  fmt::print("{}\n", two ? " | ratio" : "");
  for (size_t row = 0; row < c.errors.front().size(); ++row) {
    const OperatorError &first = c.errors[0][row];
    fmt::print("{:<20} {:<6}", operator_name(first, head), to_string(first.product));
    for (const std::vector<OperatorError> &errors : c.errors) {
      const ErrorSums &s = errors[row].sums;
      fmt::print(" | {:<20} {:>9.3g} {:>9.3g} {:>8}", format_text(errors[row]), s.relative_to_bf16(),
                 s.relative_to_exact(), decibels(s.relative_to_exact()));
    }
    if (two) {
      const double other = c.errors[1][row].sums.relative_to_exact();
      fmt::print(" | {}", other == 0 ? std::string("-")
                                     : fmt::format("{:.3g}", first.sums.relative_to_exact() / other));
    }
    fmt::print("\n");
  }
  print_not_finite(c, recipes);
}

Json comparison_json(const Comparison &c, const std::vector<ComparedRecipe> &recipes, int64_t head) {
  Json out = Json::array();
  for (size_t i = 0; i < recipes.size(); ++i) {
    Json one = {{"recipe", recipes[i].recipe.name}};
    if (!c.outcomes.empty()) {
      one["loss"] = c.outcomes[i].loss;
      one["loss_hex"] = loss_word(c.outcomes[i].loss);
      one["gradient_norm"] = c.outcomes[i].gradient_norm;
      one["same_bits"] = c.outcomes[i].same_bits;
      if (c.outcomes[i].not_finite) one["step_not_finite"] = facts(*c.outcomes[i].not_finite);
    }
    Json operators = Json::array();
    for (const OperatorError &e : c.errors[i]) {
      Json row = {{"operator", e.role}, {"product", to_string(e.product)}, {"format", e.format}};
      if (e.layer >= 0 && e.layer < head) row["layer"] = e.layer;
      row["relative_to_bf16"] = e.sums.relative_to_bf16();
      row["relative_to_exact"] = e.sums.relative_to_exact();
      const double db = signal_to_noise(e.sums.relative_to_exact());
      row["snr_db"] = std::isfinite(db) ? Json(db) : Json(nullptr);
      row["outputs"] = e.sums.outputs;
      if (!e.not_finite_layers.empty()) row["not_finite_layers"] = e.not_finite_layers;
      operators.push_back(std::move(row));
    }
    one["operators"] = std::move(operators);
    Json sick = Json::array();
    for (const NotFinite &n : c.not_finite[i]) sick.push_back(facts(n));
    if (!sick.empty()) one["not_finite"] = std::move(sick);
    out.push_back(std::move(one));
  }
  return out;
}

int replay_runs(const ReplayOptions &o, io::TensorFile file) {
  const OperatorRuns runs = parse_operator_runs(std::move(file), io::printable(o.slice));
  const Identity identity = replay_identically(runs, o.place);
  const int exit_code = identity.mismatches.empty() ? kEqual : kMismatch;
  if (o.json) {
    Json json = {{"slice", o.slice}, {"recorded_under", runs.recipe.name}, {"operators", runs.runs.size()}};
    json.update(identity_json(identity));
    for (const char *of_a_step : {"loss", "loss_hex", "digest"}) json.erase(of_a_step);
    fmt::print("{}\n", json.dump());
    return exit_code;
  }
  fmt::print("{}: {} operators under {}: {}", o.slice, runs.runs.size(), runs.recipe.name,
             identity.mismatches.empty() ? "identical" : "NOT identical, first at ");
  if (identity.mismatches.empty())
    fmt::print("\n  {} tensors, {} values compared\n", identity.tensors, identity.values);
  else
    fmt::print("{}\n", identity.mismatches.front().name);
  print_mismatches(identity);
  return exit_code;
}

int replay_operators(const ReplayOptions &o, const io::TensorFile &file) {
  const bool runs = has_operator_runs(file);
  if (runs && o.recipe.empty()) return replay_runs(o, file);
  OperatorFile operators =
      runs ? operators_of_runs(file, io::printable(o.slice)) : parse_operators(file, io::printable(o.slice));
  if (!o.family.empty()) operators.family = o.family;
  if (o.recipe.empty()) throw Error(io::printable(o.slice) + ": has no recipe of its own: give --recipe");
  std::vector<ComparedRecipe> recipes = {{load_recipe(o.recipe)}};
  if (!o.against.empty()) recipes.push_back({load_recipe(o.against)});
  if (!o.unit.empty()) recipes[0].recipe = with_unit(recipes[0].recipe, o.unit);
  const Comparison c = compare_recipes(operators, recipes, o.layers, o.place);
  if (o.json) {
    fmt::print("{}\n", Json{{"slice", o.slice},
                            {"family", operators.family},
                            {"layers", operators.layers},
                            {"recipes", comparison_json(c, recipes, operators.layers)}}
                           .dump());
  } else {
    fmt::print("{}: {} operators of another program, {} layers, rules of family {}\n", o.slice, c.operators,
               operators.layers, operators.family);
    print_errors(c, recipes, operators.layers, "the recorded operands");
  }
  return all_finite(c) ? kEqual : kNotFinite;
}

int run_replay(ReplayOptions o) {
  Progress progress("replay");
  o.place.progress = [&](double f) { f < 1 ? progress.show(f) : progress.clear(); };
  io::TensorFile file = io::read_tensors(o.slice);
  const auto format = file.metadata.find("format");
  if (format == file.metadata.end() || format->second == "pt" || has_operator_runs(file))
    return replay_operators(o, file);
  if (!o.family.empty()) throw Error("--family is for operators of another program; a slice has a model");
  const Slice slice = parse_slice(std::move(file), io::printable(o.slice));
  const Recipe own = parse_recipe(slice.before.recipe, slice.before.source + ": recipe");
  Recipe recipe = o.recipe.empty() ? own : load_recipe(o.recipe);
  const bool other_recipe = recipe != own;
  if (!o.unit.empty()) recipe = with_unit(recipe, o.unit);
  const bool is_own = recipe == own;
  Json json = {{"slice", o.slice}, {"step", slice.step.step}, {"recorded_under", own.name}};
  int exit_code = kEqual;
  if (is_own) {
    const Identity identity = replay_identically(slice, o.place);
    if (identity.replayed.not_finite) exit_code = kNotFinite;
    if (!identity.mismatches.empty()) exit_code = kMismatch;
    if (!o.json) print_identity(o, slice, identity);
    json.update(identity_json(identity));
  }
  if (!is_own || !o.against.empty()) {
    std::vector<ComparedRecipe> recipes = {{recipe, other_recipe}};
    if (!o.unit.empty()) recipes[0].recipe.name += " on " + o.unit;
    if (!o.against.empty()) {
      const Recipe against = load_recipe(o.against);
      recipes.push_back({against, against != own});
    }
    const Comparison c = compare_recipes(slice, recipes, o.layers, o.place);
    if (exit_code == kEqual && !all_finite(c)) exit_code = kNotFinite;
    const int64_t head = slice.before.config->layers;
    json["recorded_loss"] = slice.result.loss;
    json["bf16_loss"] = c.bf16_loss;
    json["recipes"] = comparison_json(c, recipes, head);
    if (!o.json) {
      fmt::print("{}: step {}, recorded under {}: loss {:.6f}; under bf16 {:.6f}\n", o.slice, slice.step.step,
                 own.name, slice.result.loss, c.bf16_loss);
      for (const RecipeOutcome &r : c.outcomes)
        fmt::print("  under {}: loss {:.6f} ({}), gradient norm {:.6g}; bits of the recorded step: {}\n",
                   r.name, r.loss, loss_word(r.loss), r.gradient_norm, r.same_bits ? "the same" : "others");
      for (const RecipeOutcome &r : c.outcomes)
        if (r.not_finite) fmt::print("NOT FINITE under {}: {}\n", r.name, r.not_finite->text());
      print_errors(c, recipes, head, "the operands of one BF16 pass over the slice");
    }
  }
  if (o.json) fmt::print("{}\n", json.dump());
  return exit_code;
}

} // namespace

void register_record(Command &app, int &exit_code) {
  auto *verb = app.add_subcommand("record", "Record one training step: everything needed to repeat it");
  auto o = std::make_shared<RecordOptions>();
  RecordRequest &r = o->request;
  TrainOptions &f = o->flags;
  verb->add_option("--checkpoint", r.checkpoint, "Written by train or init, or a PyTorch model's safetensors")
      ->required();
  verb->add_option("--step", r.step, "Step to record, after the checkpoint's; steps up to it are run")
      ->required();
  verb->add_option("-o,--output", r.output, "Slice (.safetensors)")->required();
  verb->add_option("--recipe", r.recipe, "Default: the checkpoint's own, else nvfp4");
  verb->add_option("--tap", o->taps,
                   "Tensors to keep: [layers.N.]ROLE.input, .output, .output_grad or .input_grad, with commas between");
  verb->add_flag("--grads", r.gradients, "Also keep every parameter's gradient");
  const auto of_the_step = [](const auto &each) { return (each.marks & kRecorded) != 0; };
  add_fields(*verb, kTrainFields, f, of_the_step, [&](const auto &each, Option *option) {
    option->group(
        "The run; what is not given is as in the run.json beside the checkpoint, or, without one, as shown. "
        "--model and --size count only where the checkpoint does not say which model it is");
    o->given.emplace_back(each.name, option);
  });
  add_threads(*verb, f.threads);
  verb->add_option("--device", f.device, "cpu or cuda")->capture_default_str();
  verb->add_flag("--json", o->json, "One line of JSON");
  verb->footer("Exit code 4: the computation did not stay finite.\n"
               "Example: nvfp4 record --checkpoint runs/chon/checkpoint.safetensors --step 301 --tap "
               "attn.o_proj.input -o slice.safetensors");
  verb->callback([o, &exit_code] { exit_code = run_record(*o); });
}

void register_replay(Command &app, int &exit_code) {
  auto *verb = app.add_subcommand(
      "replay", "Repeat a recorded step: bit for bit, or under another recipe, operator by operator");
  auto o = std::make_shared<ReplayOptions>();
  verb->add_option("slice", o->slice,
                   "Written by record, or operators recorded in PyTorch (tools/record_slice.py)")
      ->required();
  verb->add_option("--recipe", o->recipe,
                   "Built-in name or JSON file; default: the slice's own, which must give the recorded bits");
  verb->add_option("--against", o->against, "A second recipe beside it in the table");
  verb->add_option("--unit", o->unit,
                   "Run the products whose format it takes on this unit (nvfp4 info --units)");
  verb->add_option("--family", o->family,
                   "For operators of another program: the family for the recipe's rules");
  verb->add_flag("--layers", o->layers, "Every layer by itself");
  verb->add_option("--device", o->place.device, "cpu or cuda")->capture_default_str();
  add_threads(*verb, o->place.threads);
  verb->add_flag("--json", o->json, "One line of JSON");
  verb->footer("Exit code 1: other bits than recorded; 4: the computation did not stay finite.\n"
               "Example: nvfp4 replay slice.safetensors --recipe chon --against nvfp4");
  verb->callback([o, &exit_code] {
    o->place.isa = asked_isa();
    exit_code = run_replay(*o);
  });
}

} // namespace nvfp4::tool
