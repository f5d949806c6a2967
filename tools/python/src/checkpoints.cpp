// SPDX-License-Identifier: Apache-2.0
// Checkpoints as people hold them: opened once, looked at tensor by tensor, inspected, exported.
#include "nvfp4/golden/checkpoint/inspection.hpp"
#include "nvfp4/golden/io/message.hpp"
#include "nvfp4/reference_models/pretrained/alike.hpp"
#include "nvfp4/reference_models/pretrained/trained_layers.hpp"
#include "tools/python/src/arguments.hpp"

#include <algorithm>

namespace nvfp4::python {
namespace {

using namespace checkpoint;

struct Opened {
  Checkpoint checkpoint;
  Weights weights;

  explicit Opened(const std::string &path)
      : checkpoint(open_checkpoint(path)), weights(find_weights(checkpoint)) {}

  [[nodiscard]] const Weight &weight(const std::string &name) const {
    const auto it = std::ranges::find(weights.all, name, &Weight::name);
    if (it == weights.all.end())
      throw Error(io::printable(checkpoint.path) + " has no weight " + io::in_quotes(name));
    if (!it->decodable)
      throw Error("weight " + io::in_quotes(name) + ": " +
                  (it->faults.empty() ? "its type is not decoded here" : it->faults.front()));
    return *it;
  }
};
using Held = std::shared_ptr<Opened>;

Held open(const std::string &path) { return std::make_shared<Opened>(path); }

/// Path, what it is in one line, files, metadata.
std::tuple<std::string, std::string, std::vector<std::string>, std::map<std::string, std::string>>
facts(const Held &c) {
  return {c->checkpoint.path, describe(c->checkpoint), c->checkpoint.files, c->checkpoint.metadata};
}

/// Name, type, shape of each stored tensor.
std::vector<std::tuple<std::string, std::string, std::vector<int64_t>>> tensors(const Held &c) {
  std::vector<std::tuple<std::string, std::string, std::vector<int64_t>>> list;
  for (const StoredTensor &t : c->checkpoint.tensors) list.emplace_back(t.name, t.type, t.shape);
  return list;
}

/// Name, kind, shape, what it is stored as, global and input scale, why it cannot be decoded, whether it can,
/// whether it has block scales.
using WeightFacts =
    std::tuple<std::string, std::string, std::vector<int64_t>, std::string, std::optional<double>,
               std::optional<double>, std::vector<std::string>, bool, bool>;

std::vector<WeightFacts> weights(const Held &c) {
  std::vector<WeightFacts> list;
  for (const Weight &w : c->weights.all) {
    std::optional<double> global, input;
    if (w.decodable && w.global != nullptr) global = global_word(w, 0);
    if (w.decodable)
      if (const std::optional<float> word = input_word(w, 0)) input = *word;
    list.emplace_back(w.name, w.kind(), w.container != nullptr ? shape_of(w) : w.codes->shape, w.codes->type,
                      global, input, w.faults, w.decodable, w.is_block_scaled());
  }
  return list;
}

/// A copy of a stored tensor; bytes where its type is none of safetensors'.
ArrayResult tensor(const Held &c, const std::string &name) {
  const StoredTensor *const t = c->checkpoint.find(name);
  if (t == nullptr) throw Error(io::printable(c->checkpoint.path) + " has no tensor " + io::in_quotes(name));
  const bool known = t->dtype && io::info(*t->dtype).bits >= 8;
  return give(io::Tensor{name,
                         known ? *t->dtype : io::DType::u8,
                         known ? t->shape : std::vector<int64_t>{int64_t(t->bytes.size())},
                         {t->bytes.begin(), t->bytes.end()}});
}

void check_rows(const Weight &w, int64_t index, int64_t first, int64_t count) {
  if (index < 0 || index >= w.batch)
    throw Error("index is " + std::to_string(index) + "; the weight has " + std::to_string(w.batch) +
                (w.batch == 1 ? " matrix" : " matrices"));
  if (first < 0 || count < 0 || first > w.rows || count > w.rows - first)
    throw Error("rows " + std::to_string(first) + " to " + std::to_string(first + count) +
                ": the weight has " + std::to_string(w.rows));
}

/// All rows of matrix `index`.
std::shared_ptr<QuantizedTensor> quantized(const Held &c, const std::string &name, int64_t index) {
  const Weight &w = c->weight(name);
  check_rows(w, index, 0, 0);
  if (!w.is_block_scaled())
    throw Error("weight " + io::in_quotes(name) + " is " + w.kind() +
                ", which has no block scales; use values()");
  auto made = std::make_shared<QuantizedTensor>();
  made->scaled = block_scaled(w, index, 0, w.rows);
  made->name = name;
  made->shape = golden::matrix_shape(made->scaled);
  return made;
}

/// FP32 (count, k); count -1: to the last row.
ArrayResult values(const Held &c, const std::string &name, int64_t index, int64_t first, int64_t count,
                   int threads, const Progress &progress) {
  const Weight &w = c->weight(name);
  if (count == -1) count = w.rows - first;
  check_rows(w, index, first, count);
  std::vector<float> all;
  const int64_t some =
      std::max<int64_t>(128, (int64_t{1} << 21) / std::max<int64_t>(1, w.k)); // rows at a time
  for (int64_t done = 0; done == 0 || done < count; done += some) {
    const std::vector<float> rows =
        checkpoint::values(w, index, first + done, std::min(some, count - done), threads);
    if (done == 0) all.reserve(size_t(count * w.k));
    all.insert(all.end(), rows.begin(), rows.end());
    progress(count == 0 ? 1 : double(std::min(count, done + some)) / double(count));
  }
  return {"F32", {count, w.k}, give(std::move(all))};
}

/// How many findings are wrong, text, JSON.
std::tuple<int64_t, std::string, std::string> inspect(const Held &c, const std::string &tensor,
                                                      const std::string &against,
                                                      const std::string &convention, int threads,
                                                      std::optional<bool> details, const Progress &progress) {
  const Inspection found =
      checkpoint::inspect(c->checkpoint, c->weights, {tensor, against, convention, threads, progress});
  return {found.wrong, to_text(c->checkpoint, found, details.value_or(found.lines.size() <= 4)),
          to_json(c->checkpoint, found)};
}

std::string export_to(const Held &c, const std::string &output, const std::string &to,
                      const std::string &convention, const std::string &recipe, const std::string &names,
                      bool exact, int threads, const Progress &progress) {
  ExportOptions options{parse_enum<Target>(to), convention, names, {}, exact, threads, progress};
  if (!recipe.empty())
    options.quantizers = models::pretrained::recipe_quantizers(c->checkpoint, models::load_recipe(recipe));
  return to_json(export_checkpoint(c->checkpoint, output, options), output);
}

/// JSON of inspect --recipe.
std::string alike(const Held &c, const std::string &masters, const std::string &recipe, const std::string &tensor,
                  int threads, const Progress &progress) {
  return to_json(models::pretrained::compare_alike(c->checkpoint, open_checkpoint(masters),
                                                   models::load_recipe(recipe), {tensor, threads, progress}));
}

} // namespace

void bind_checkpoints(Module &m) {
  m.def<open>("checkpoint_open", "path");
  m.def<facts>("checkpoint_facts", "checkpoint");
  m.def<tensors>("checkpoint_tensors", "checkpoint");
  m.def<weights>("checkpoint_weights", "checkpoint");
  m.def<tensor>("checkpoint_tensor", "checkpoint name");
  m.def<quantized>("checkpoint_quantized", "checkpoint name index");
  m.def<values>("checkpoint_values", "checkpoint name index first count threads progress");
  m.def<inspect>("checkpoint_inspect", "checkpoint tensor against convention threads details progress");
  m.def<alike>("checkpoint_alike", "checkpoint masters recipe tensor threads progress");
  m.def<export_to>("checkpoint_export", "checkpoint output to convention recipe tensor exact threads progress");
}

} // namespace nvfp4::python
