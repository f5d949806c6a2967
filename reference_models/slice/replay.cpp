// SPDX-License-Identifier: Apache-2.0
// Sessions from slices, and comparisons of what they give.
#include "nvfp4/reference_models/slice/replay.hpp"
#include "nvfp4/emulator/formats/conversion.hpp"
#include "nvfp4/golden/io/message.hpp"
#include "nvfp4/reference_models/model/operator_products.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>

namespace nvfp4::models {
namespace {

std::string hex(uint64_t word, int digits) {
  char text[17];
  std::snprintf(text, sizeof text, "%0*llx", digits, static_cast<unsigned long long>(word));
  return text;
}

/// A model in the slice's state before the step; HCP's channels are the caller's.
Session session_of(const Slice &slice, const Recipe &recipe, const Place &place) {
  const SliceStep &s = slice.step;
  Session session =
      make_session(place.device, place.threads, *slice.before.config, recipe, s.batch, s.sequence, true);
  load_checkpoint(slice.before, session.model->parameters(), *slice.before.config, true);
  session.model->parameters_changed();
  session.model->at_step(std::max<int64_t>(0, s.step - 2)); // as after the step before
  session.model->set_held_amaxes(slice.before.state.held_amaxes);
  return session;
}

/// What to record again. Throws Error for tensors that the model cannot have.
std::vector<Tap> recorded_taps(const Slice &slice, bool &gradients) {
  std::vector<std::string> names;
  const std::vector<ParameterSpec> parameters = parameter_list(*slice.before.config);
  for (const io::Tensor &t : slice.result.tensors) {
    if (t.dtype != io::DType::f32)
      throw Error(io::message_prefix(slice.before.source, t.name) + "expected F32, got " +
                  std::string(io::info(t.dtype).safetensors));
    if (t.name.starts_with("tap/")) {
      names.push_back(without_part(std::string_view(t.name).substr(4)));
      continue;
    }
    gradients = true;
    const std::string name = t.name.substr(5);
    if (std::none_of(parameters.begin(), parameters.end(),
                     [&](const ParameterSpec &p) { return p.name == name; }))
      throw Error(io::message_prefix(slice.before.source, t.name) +
                  "the model has no parameter of that name");
  }
  try {
    return parse_taps(names, *slice.before.config);
  } catch (const Error &error) {
    throw Error(slice.before.source + ": " + error.what());
  }
}

/// Words of a recorded tensor of `digits` hexadecimal digits and those of its repetition.
template <class Words>
void compare(const std::string &name, const std::vector<int64_t> &shape, const Words &a, const Words &b,
             int digits, Identity &out) {
  ++out.tensors;
  out.values += int64_t(a.size());
  Mismatch m{name, {}, {}, {}, 0, int64_t(a.size())};
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i] == b[i]) continue;
    if (m.differing++ > 0) continue;
    m.recorded = hex(a[i], digits);
    m.replayed = hex(b[i], digits);
    auto rest = int64_t(i);
    m.index.resize(shape.size());
    for (size_t d = m.index.size(); d-- > 0; rest /= shape[d]) m.index[d] = rest % shape[d];
  }
  if (m.differing > 0) out.mismatches.push_back(std::move(m));
}

void compare(const io::Tensor &recorded, const io::Tensor &replayed, const std::string &source,
             Identity &out) {
  if (recorded.shape != replayed.shape)
    throw Error(io::message_prefix(source, recorded.name) + "expected shape " +
                io::shape_text(replayed.shape) + " of this model, got " + io::shape_text(recorded.shape));
  compare(recorded.name, recorded.shape, recorded.as<uint32_t>(source), replayed.as<uint32_t>(), 8, out);
}

/// In the recorded tensor's type, as PyTorch converts to it: to nearest even, every NaN to 7fc0.
void compare(const io::Tensor &recorded, const std::vector<float> &replayed, Identity &out) {
  if (recorded.dtype == io::DType::f32) {
    const auto *const words = reinterpret_cast<const uint32_t *>(replayed.data());
    return compare(recorded.name, recorded.shape, recorded.as<uint32_t>(), std::span(words, replayed.size()),
                   8, out);
  }
  std::vector<uint16_t> words;
  for (const float v : replayed) words.push_back(std::isnan(v) ? uint16_t{0x7FC0} : bf16_word(v));
  compare(recorded.name, recorded.shape, recorded.as<uint16_t>(), std::span<const uint16_t>(words), 4, out);
}

void repeat(const OperatorRun &run, const Recipe &recipe, const std::shared_ptr<LayerDevice> &device,
            Identity &out) {
  const RecordedOperator &o = run.operands;
  LinearLayer layer(device, run.place, recipe);
  std::vector<float> y(size_t(o.rows * o.out)), dx(size_t(o.rows * o.in)), dw(o.weight.size()),
      db(size_t(o.out));
  const float *const bias = o.bias.empty() ? nullptr : o.bias.data();
  layer.forward(run.step, {o.input.data(), o.rows, o.weight.data(), bias, run.channels}, y.data());
  if (!o.output_grad.empty())
    layer.backward(run.step, {o.input.data(), o.rows, o.weight.data(), nullptr, run.dgrad_channels},
                   o.output_grad.data(), {dx.data(), dw.data(), db.data()});
  for (const io::Tensor &t : run.results) {
    const bool output = t.name.starts_with("output/"), input = t.name.starts_with("input_grad/"),
               weight = t.name.starts_with("weight_grad/");
    compare(t, output ? y : input ? dx : weight ? dw : db, out);
  }
}

RecipeOutcome whole_step(const Slice &slice, const ComparedRecipe &r, const Place &place,
                         const std::function<void(double)> &progress) {
  const Session session = session_of(slice, r.recipe, place);
  Model<float> &model = *session.model;
  const std::map<std::string, HotChannels> &state = slice.before.state.hot_channels;
  if (r.choose_channels)
    complete_hot_channels(model, r.recipe, slice.step, state);
  else
    model.set_hot_channels(model.hot_channel_layers(state));
  Optimizer<float> optimizer(model.parameters(), slice.step.adamw, r.recipe.optimizer);
  const StepResult result = run_step(model, optimizer, slice.step, {}, false, progress);
  const StepResult &recorded = slice.result;
  const bool same = std::bit_cast<uint32_t>(result.loss) == std::bit_cast<uint32_t>(recorded.loss) &&
                    result.gradients == recorded.gradients && result.digest == recorded.digest;
  return {r.recipe.name, result.loss, result.gradient_norm, same, result.not_finite};
}

std::vector<Recipe> bound(const std::vector<ComparedRecipe> &recipes, const std::string &family) {
  std::vector<Recipe> out;
  for (const ComparedRecipe &r : recipes) out.push_back(r.recipe.for_family(family));
  return out;
}

void collect(const OperatorMeter &meter, size_t recipes, bool by_layer, Comparison &out) {
  for (size_t i = 0; i < recipes; ++i) {
    out.errors.push_back(meter.errors(i, by_layer));
    out.not_finite.push_back(meter.not_finite(i));
  }
}

} // namespace

Identity replay_identically(const Slice &slice, const Place &place) {
  bool gradients = false;
  const std::vector<Tap> taps = recorded_taps(slice, gradients);
  const Recipe recipe = parse_recipe(slice.before.recipe, slice.before.source + ": recipe");
  const Session session = session_of(slice, recipe, place);
  session.model->set_hot_channels(slice.before.state.hot_channels);
  Optimizer<float> optimizer(session.model->parameters(), slice.step.adamw, recipe.optimizer);
  Identity out;
  out.replayed = run_step(*session.model, optimizer, slice.step, taps, gradients, place.progress);
  const StepResult &now = out.replayed, &then = slice.result;
  const auto number = [&](const char *name, const std::string &recorded, const std::string &replayed) {
    ++out.values;
    if (recorded != replayed) out.mismatches.push_back({name, {}, recorded, replayed, 1, 1});
  };
  for (const io::Tensor &t : then.tensors)
    if (std::none_of(now.tensors.begin(), now.tensors.end(),
                     [&](const io::Tensor &r) { return r.name == t.name; }))
      throw Error(io::message_prefix(slice.before.source, t.name) + "this step makes no such tensor");
  // loss stands between the forward pass and the gradients
  bool backward = false;
  const auto loss = [&] {
    if (!backward)
      number("loss", hex(std::bit_cast<uint32_t>(then.loss), 8), hex(std::bit_cast<uint32_t>(now.loss), 8));
    backward = true;
  };
  for (const io::Tensor &t : now.tensors) {
    if (without_part(t.name).ends_with("_grad") || t.name.starts_with("grad/")) loss();
    const auto at = std::find_if(then.tensors.begin(), then.tensors.end(),
                                 [&](const io::Tensor &r) { return r.name == t.name; });
    if (at != then.tensors.end()) compare(*at, t, slice.before.source, out);
  }
  loss();
  number("gradients (SHA-256)", then.gradients, now.gradients);
  number("gradient norm", hex(std::bit_cast<uint64_t>(then.gradient_norm), 16),
         hex(std::bit_cast<uint64_t>(now.gradient_norm), 16));
  number("state after the step", then.digest, now.digest);
  if (place.progress) place.progress(1.0);
  return out;
}

Identity replay_identically(const OperatorRuns &runs, const Place &place) {
  if (place.device != "cpu") throw Error("operators of another program are repeated with --device cpu");
  auto device = std::make_shared<LayerDevice>();
  device->backend = make_cpu_backend(place.threads, place.isa);
  device->engine = make_cpu_operand_engine(place.threads, place.isa);
  Identity out;
  for (const OperatorRun &run : runs.runs) {
    try {
      repeat(run, runs.recipe, device, out);
    } catch (const Error &error) {
      throw Error(run.operands.path + ": " + error.what());
    }
    if (place.progress) place.progress(double(&run - runs.runs.data() + 1) / double(runs.runs.size()));
  }
  return out;
}

Comparison compare_recipes(const Slice &slice, const std::vector<ComparedRecipe> &recipes, bool by_layer,
                           const Place &place) {
  const ModelConfig &config = *slice.before.config;
  Comparison out;
  const Session session = session_of(slice, load_recipe("bf16"), place);
  const std::vector<Recipe> ours = bound(recipes, std::string(config.family->name));
  OperatorMeter meter(*session.backend, *session.engine, ours, linear_roles(*config.family));
  const std::map<std::string, HotChannels> &state = slice.before.state.hot_channels;
  session.model->observer = [&](const LinearObservation<float> &o) {
    OperatorInput input{*o.weight, o.rows, o.input, o.output_grad, {}};
    const auto hot = state.find(std::to_string(o.layer) + "." + std::string(o.role));
    if (hot != state.end()) input.hot = hot->second;
    meter.measure(input, {slice.step.seed, slice.step.step - 1, 0, false});
    ++out.operators;
    if (place.progress) // their number is about ten a block
      place.progress(
          std::min(0.5, 0.05 * double(out.operators) / double(config.layers * slice.step.accumulation)));
  };
  const bool in_mixers =
      std::any_of(ours.begin(), ours.end(), [&](const Recipe &r) { return has_mixer_rules(r, config); });
  if (in_mixers)
    session.model->observe_operators([&](const LinearObservation<float> &o) {
      meter.measure({*o.weight, o.rows, o.input, o.output_grad, {}, o.stream, o.weight_stream},
                    {slice.step.seed, slice.step.step - 1, 0, false});
    });
  out.bf16_loss = float(accumulate_gradients(*session.model, slice.step));
  out.operators /= slice.step.accumulation;
  // operators are measured under each recipe, then each makes the step
  const auto share = [&](double from, double f) {
    if (place.progress) place.progress((from + f) / double(2 * recipes.size()));
  };
  for (size_t i = 0; i < recipes.size(); ++i)
    out.outcomes.push_back(
        whole_step(slice, recipes[i], place, [&](double f) { share(double(recipes.size() + i), f); }));
  collect(meter, recipes.size(), by_layer, out);
  if (place.progress) place.progress(1.0);
  return out;
}

Comparison compare_recipes(const OperatorFile &file, const std::vector<ComparedRecipe> &recipes,
                           bool by_layer, const Place &place) {
  Comparison out;
  if (place.device != "cpu") throw Error("operators of another program are measured with --device cpu");
  const std::unique_ptr<Backend<float>> backend = make_cpu_backend(place.threads, place.isa);
  const std::unique_ptr<OperandEngine> engine = make_cpu_operand_engine(place.threads, place.isa);
  OperatorMeter meter(*backend, *engine, bound(recipes, file.family));
  for (const RecordedOperator &o : file.operators) {
    const auto upload = [&](const std::vector<float> &values) {
      Array<float> array(*backend, int64_t(values.size()));
      backend->upload(array.data(), values.data(), values.size() * sizeof(float));
      return array;
    };
    const Array<float> x = upload(o.input), w = upload(o.weight), bias = upload(o.bias),
                       dy = upload(o.output_grad);
    OperatorInput input;
    input.weight.role = o.role;
    input.weight.layer = o.layer;
    input.weight.layers = file.layers;
    input.weight.in = o.in;
    input.weight.out = o.out;
    input.weight.weight = w.data();
    input.weight.bias = o.bias.empty() ? nullptr : bias.data();
    input.weight.id = uint64_t(out.operators);
    input.rows = o.rows;
    input.input = x.data();
    input.output_grad = o.output_grad.empty() ? nullptr : dy.data();
    meter.measure(input, {0, 0, 0, false});
    ++out.operators;
    if (place.progress) place.progress(double(out.operators) / double(file.operators.size()));
  }
  collect(meter, recipes.size(), by_layer, out);
  if (place.progress) place.progress(1.0);
  return out;
}

Recipe with_unit(Recipe recipe, const std::string &name) {
  const Unit &unit = find_unit(name);
  const UnitRule &u = unit.rule;
  const std::string format = u.scale_block == 0           ? "bf16"
                             : u.scale == FormatId::ue4m3 ? "nvfp4"
                             : u.a == FormatId::e2m1      ? "mxfp4"
                                                          : "mxfp8";
  bool used = false;
  for (auto &[key, linear] : recipe.linears)
    for (GemmRecipe *g : {&linear.fprop, &linear.dgrad, &linear.wgrad}) {
      if (to_string(g->a.format) != format) continue;
      used = true;
      g->unit.clear();
    }
  if (!used)
    throw Error("no product of recipe '" + recipe.name + "' has the format of unit " + unit.name() + " (" +
                format + ")");
  recipe.units[format] = unit.name();
  check_recipe(recipe, "recipe " + recipe.name + " with --unit");
  return recipe;
}

} // namespace nvfp4::models
