// SPDX-License-Identifier: Apache-2.0
// Hugging Face folders: a pass with every tensor, the loss over data, new tokens.
#include "nvfp4/reference_models/pretrained/generate.hpp"
#include "tools/python/src/arguments.hpp"

namespace nvfp4::python {
namespace {

using namespace nvfp4::models;

/// Recipe, preset, whether it is rotated and patched, convention of inputs, keys and values, threads, seed.
using How = std::tuple<std::string, std::string, bool, bool, std::string, std::string, int, uint64_t>;

pretrained::RunOptions options_of(const std::string &folder, const How &how) {
  const auto &[recipe, preset, rotate, patch, activations, kv, threads, seed] = how;
  return {folder, recipe, preset, rotate, patch, activations, kv, threads, seed, {}};
}

std::vector<int32_t> ids(const std::string &name, const ArrayArg &array) {
  const io::Tensor t = to_tensor(name, array);
  const std::span<const int32_t> all = t.as<int32_t>();
  return {all.begin(), all.end()};
}

bool is_pretrained(const std::string &path) { return pretrained::is_pretrained(path); }

std::tuple<std::string, FileResult> forward(const std::string &folder, const ArrayArg &tokens, const How &how,
                                            const Progress &progress) {
  pretrained::RunOptions o = options_of(folder, how);
  o.progress = progress;
  pretrained::Forward pass = pretrained::run_forward(o, to_file("tokens", tokens));
  return {pretrained::to_json(pass, ""), give(std::move(pass.tensors))};
}

/// validation: a fraction, and files in its place where that is not empty.
std::string evaluate(const std::string &folder, const std::string &data, const How &how, double validation,
                     const std::string &validation_data, int64_t batch, int64_t sequence, int64_t batches,
                     int64_t bos, const Progress &progress) {
  if (batch < 1 || sequence < 1 || batches < 1)
    throw Error("batch, sequence and batches: expected at least 1, got " + std::to_string(batch) + ", " +
                std::to_string(sequence) + " and " + std::to_string(batches));
  pretrained::RunOptions o = options_of(folder, how);
  o.progress = progress;
  const std::unique_ptr<DataSource> source = open_data(data, validation, sequence, validation_data);
  return to_json(pretrained::run_eval(o, *source, batch, sequence, batches, bos));
}

/// JSON, the new tokens, the logits that each was chosen from or nothing.
std::tuple<std::string, ArrayResult, std::optional<ArrayResult>>
generate(const std::string &folder, const ArrayArg &prompt, const How &how, int64_t count, double temperature,
         bool recompute, bool keep_logits, const Progress &progress) {
  pretrained::GenerateOptions g;
  g.prompt = ids("tokens", prompt);
  g.tokens = count;
  g.temperature = temperature;
  g.seed = std::get<7>(how);
  g.cache = !recompute;
  int64_t done = 0;
  g.token = [&](int32_t) { progress(double(++done) / double(count)); };
  pretrained::Session session = pretrained::open_session(options_of(folder, how), true);
  session.decoder->progress = [&](double f) { progress((double(done) + f) / double(count)); }; // long prompts
  pretrained::Generated made = pretrained::generate(session, g, keep_logits);
  const std::string json = to_json(made);
  std::optional<ArrayResult> logits;
  if (keep_logits) {
    std::vector<float> all;
    for (const std::vector<float> &row : made.logits) all.insert(all.end(), row.begin(), row.end());
    logits = {
        "F32", {int64_t(made.logits.size()), session.decoder->config().vocabulary}, give(std::move(all))};
  }
  const auto n = int64_t(made.tokens.size());
  return {json, ArrayResult{"I32", {n}, give(std::move(made.tokens))}, logits};
}

} // namespace

void bind_pretrained(Module &m) {
  m.def<is_pretrained>("is_pretrained", "path");
  m.def<forward>("folder_forward", "folder tokens options progress");
  m.def<evaluate>("folder_evaluate",
                  "folder data options validation validation_data batch sequence batches bos progress");
  m.def<generate>("folder_generate", "folder tokens options new temperature recompute logits progress");
}

} // namespace nvfp4::python
