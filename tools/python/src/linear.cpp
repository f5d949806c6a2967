// SPDX-License-Identifier: Apache-2.0
// Linear layers under a recipe for nvfp4.torch: one object a layer, memory with each call. Tensors are FP32,
// dense, in the memory of the layer's device, and Python keeps them alive.
#include "nvfp4/golden/io/file.hpp"
#include "nvfp4/golden/io/message.hpp"
#include "nvfp4/reference_models/family/family.hpp"
#include "nvfp4/reference_models/linear/linear_layer.hpp"
#include "nvfp4/reference_models/slice/replay.hpp"
#include "nvfp4/reference_models/train/session.hpp"
#include "tools/environment.hpp"
#include "tools/python/src/bind.hpp"

#include <algorithm>

namespace nvfp4::python {

/// Gets the address and the number of FP32 values of this rank, and overwrites them with those of all ranks.
class ReduceCall : public Callback {
public:
  explicit ReduceCall(PyObject *callable) : Callback(callable) {}
  void operator()(std::span<float> values) const {
    call("Kn", static_cast<unsigned long long>(reinterpret_cast<uintptr_t>(values.data())),
         Py_ssize_t(values.size()));
  }
};
/// Empty of None: a rank by itself.
template <> struct From<models::Reduce> {
  static models::Reduce get(PyObject *o) {
    if (o == Py_None) return {};
    return ReduceCall(o);
  }
};

namespace {

using namespace nvfp4::models;
using Layer = std::shared_ptr<LinearLayer>;
using Step = std::tuple<uint64_t, int64_t, int64_t>; // seed, step, micro-batch

/// What layers of one device and number of threads share.
std::shared_ptr<LayerDevice> linear_device(const std::string &name, int threads) {
  Session session = make_device(name, threads);
  auto device = std::make_shared<LayerDevice>();
  device->backend = std::move(session.backend);
  device->engine = std::move(session.engine);
  return device;
}

Recipe recipe_of(const std::string &name_or_json, const std::string &family) {
  const Recipe recipe =
      name_or_json.starts_with("{") ? parse_recipe(name_or_json, "recipe") : load_recipe(name_or_json);
  return family.empty() ? recipe : recipe.for_family(family);
}

Layer linear_layer(const std::shared_ptr<LayerDevice> &device, const std::string &recipe,
                   const std::string &family, const std::string &role, int64_t layer, int64_t layers,
                   uint64_t id, int64_t in, int64_t out) {
  return std::make_shared<LinearLayer>(device, LayerPlace{role, layer, layers, id, in, out},
                                       recipe_of(recipe, family));
}

/// Hot channels of fprop and of dgrad, how they are chosen, and whether amaxes are reduced.
std::tuple<int64_t, int64_t, std::string, bool> linear_facts(const Layer &layer) {
  const LinearRecipe &r = layer->recipe();
  return {layer->channels(Product::fprop), layer->channels(Product::dgrad),
          std::string(to_string(r.hcp.choice)), r.amax == AmaxScope::all_ranks};
}

/// What the products take: formats of fprop, dgrad and wgrad.
std::vector<std::string> linear_formats(const Layer &layer) {
  const LinearRecipe &r = layer->recipe();
  std::vector<std::string> formats;
  for (const GemmRecipe *g : {&r.fprop, &r.dgrad, &r.wgrad}) formats.emplace_back(to_string(g->a.format));
  return formats;
}

bool linear_choice_is_due(const Layer &layer, int64_t step) { return layer->choice_is_due(step); }

StepContext context(const Step &s) {
  return {.seed = std::get<0>(s), .step = std::get<1>(s), .micro_batch = std::get<2>(s)};
}
template <class T> T *memory(const Address &a) { return reinterpret_cast<T *>(a.data); }

Memory linear_scores(const Layer &layer, const Step &step, const std::string &product, Address data,
                     int64_t rows, Address weight, const Reduce &reduce) {
  return give(layer->scores(parse_enum<Product>(product), context(step), memory<const float>(data), rows,
                            memory<const float>(weight), reduce));
}

Memory linear_select(const Layer &layer, const std::string &product, Address scores, int64_t channels) {
  return give(layer->select(parse_enum<Product>(product), scores.view<float>(channels)));
}

void linear_forward(const Layer &layer, const Step &step, Address x, int64_t rows, uint64_t contents,
                    Address weight, Address bias, Address channels, int64_t count, Address y,
                    const Reduce &reduce) {
  layer->forward(context(step),
                 {memory<const float>(x), rows, memory<const float>(weight), memory<const float>(bias),
                  channels.view<int32_t>(count), contents},
                 memory<float>(y), reduce);
}

void linear_backward(const Layer &layer, const Step &step, Address x, int64_t rows, uint64_t contents,
                     Address weight, Address channels, int64_t count, Address dy, Address dx, Address dw,
                     Address db, const Reduce &reduce) {
  layer->backward(context(step),
                  {memory<const float>(x), rows, memory<const float>(weight), nullptr,
                   channels.view<int32_t>(count), contents},
                  memory<const float>(dy), {memory<float>(dx), memory<float>(dw), memory<float>(db)}, reduce);
}

/// The name, and the text of a recipe that another process reads: a built-in one's name, else JSON.
std::tuple<std::string, std::string> linear_recipe(const std::string &name_or_json,
                                                   const std::string &family) {
  const Recipe recipe = recipe_of(name_or_json, family);
  const auto builtin = builtin_recipes();
  const bool known = std::ranges::find(builtin, name_or_json) != builtin.end();
  return {recipe.name, known ? name_or_json : to_json(recipe)};
}

/// JSON with every field.
std::string linear_recipe_json(const std::string &name_or_json) {
  return to_json(recipe_of(name_or_json, ""));
}

/// Of a file of nvfp4.torch's record(): name, first index, recorded and repeated word there, how many differ
/// of how many.
std::vector<std::tuple<std::string, std::string, std::string, std::string, int64_t, int64_t>>
linear_replay(const std::string &path, int threads, const Progress &progress) {
  const OperatorRuns runs = parse_operator_runs(io::read_tensors(path), io::printable(path));
  const Identity identity =
      replay_identically(runs, {.threads = threads, .isa = tool::asked_isa(), .progress = progress});
  std::vector<std::tuple<std::string, std::string, std::string, std::string, int64_t, int64_t>> out;
  for (const Mismatch &m : identity.mismatches)
    out.emplace_back(m.name, io::shape_text(m.index), m.recorded, m.replayed, m.differing, m.count);
  return out;
}

/// Roles of a family's linear layers, and their numbers within a block, which key random words.
std::vector<std::tuple<std::string, int>> linear_numbers(const std::string &family) {
  std::vector<std::tuple<std::string, int>> out;
  for (const MixerParameter &p : find_family(family).parameters)
    if (p.linear >= 0) out.emplace_back("attn." + std::string(p.module), p.linear);
  for (const SharedLinear &l : kSharedLinears)
    if (find_family(family).has_mlp() || !l.role.starts_with("mlp.")) out.emplace_back(l.role, l.number);
  return out;
}

} // namespace

void bind_linear(Module &m) {
  m.def<linear_device>("linear_device", "device threads");
  m.def<linear_layer>("linear_layer", "device recipe family role layer layers id in_features out_features");
  m.def<linear_facts>("linear_facts", "layer");
  m.def<linear_formats>("linear_formats", "layer");
  m.def<linear_choice_is_due>("linear_choice_is_due", "layer step");
  m.def<linear_scores>("linear_scores", "layer step product data rows weight reduce");
  m.def<linear_select>("linear_select", "layer product scores channels");
  m.def<linear_forward>("linear_forward", "layer step x rows contents weight bias channels count y reduce");
  m.def<linear_backward>("linear_backward",
                         "layer step x rows contents weight channels count dy dx dw db reduce");
  m.def<linear_recipe>("linear_recipe", "recipe family");
  m.def<linear_recipe_json>("linear_recipe_json", "recipe");
  m.def<linear_replay>("linear_replay", "path threads progress");
  m.def<linear_numbers>("linear_numbers", "family");
}

} // namespace nvfp4::python
