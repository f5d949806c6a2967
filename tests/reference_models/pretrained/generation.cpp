// SPDX-License-Identifier: Apache-2.0
// New tokens: the words of logits with a cache and without, the rule of sampling, and the memory of a pass.
#include "tests/catch.hpp"
#include "tests/reference_models/pretrained/support.hpp"

#include "nvfp4/golden/checkpoint/export.hpp"
#include "nvfp4/reference_models/pretrained/generate.hpp"

#include <cmath>
#include <cstring>

using namespace nvfp4;
using namespace nvfp4::models;
using namespace nvfp4::test;

namespace {

using pretrained::GenerateOptions;

pretrained::Generated tokens_of(const pretrained::RunOptions &o, bool cache, double temperature = 0) {
  pretrained::Session s = pretrained::open_session(o, true);
  return pretrained::generate(
      s, {.prompt = some_tokens(8, 9, 97), .tokens = 8, .temperature = temperature, .cache = cache}, true);
}

bool same(const pretrained::Generated &a, const pretrained::Generated &b) {
  if (a.tokens != b.tokens || a.logits.size() != b.logits.size()) return false;
  for (size_t i = 0; i < a.logits.size(); ++i)
    if (std::memcmp(a.logits[i].data(), b.logits[i].data(), a.logits[i].size() * 4) != 0) return false;
  return true;
}

int64_t memory(const char *key) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with(key)) return std::stoll(line.substr(std::strlen(key) + 1)) << 10;
  return 0;
}

} // namespace

TEST_CASE("generation with a cache has the words of generation without", "[pretrained][generate]") {
  const TemporaryFolder folder;
  const Sizes sizes{.vocabulary = 97,
                    .hidden = 64,
                    .layers = 3,
                    .heads = 4,
                    .kv_heads = 2,
                    .head_dim = 16,
                    .intermediate = 96};
  for (const char *architecture : {"Qwen3ForCausalLM", "Gemma3ForCausalLM"}) {
    const std::string dense = (folder.path / architecture).string(), stored = dense + "-mxfp4";
    const Json config = config_of(architecture, sizes);
    write_folder(dense, config, in_bf16(tensors_of(config)));
    checkpoint::ExportOptions o;
    o.target = checkpoint::Target::compressed_tensors, o.convention = "mxfp4";
    (void)checkpoint::export_checkpoint(checkpoint::open_checkpoint(dense), stored, o);
    INFO(architecture);
    for (const double temperature : {0.0, 0.7}) {
      CHECK(same(tokens_of({.folder = dense}, true, temperature),
                 tokens_of({.folder = dense}, false, temperature)));
      // formats whose scales depend on a block alone; a dynamic global scale is one of all tokens of a pass
      CHECK(same(tokens_of({.folder = dense, .preset = "mxfp4"}, true, temperature),
                 tokens_of({.folder = dense, .preset = "mxfp4"}, false, temperature)));
      CHECK(same(tokens_of({.folder = stored, .activations = "mxfp4"}, true, temperature),
                 tokens_of({.folder = stored, .activations = "mxfp4"}, false, temperature)));
    }
    CHECK(tokens_of({.folder = dense}, true, 0.7).tokens != tokens_of({.folder = dense}, true).tokens);
  }
}

TEST_CASE("tokens are chosen by the documented rule", "[pretrained][generate]") {
  const std::vector<float> logits = {1.0f, 3.0f, -INFINITY, 3.0f, 2.0f};
  CHECK(pretrained::choose_token(logits, 0, 1, 0) == 1); // the first of equals
  std::vector<int> counts(5, 0);
  for (int64_t position = 0; position < 4000; ++position) {
    const int32_t t = pretrained::choose_token(logits, 1.0, 5, position);
    const double u = double(philox4x32_10({{uint32_t(position), 0, 0, 0}}, 5, 0).word[0] >> 8) / 16777216.0;
    const double p[] = {std::exp(-2.0), 1, 0, 1, std::exp(-1.0)};
    double sum = 0, whole = p[0] + p[1] + p[3] + p[4];
    int32_t want = 0;
    for (; want < 5; ++want)
      if ((sum += p[want] / whole) > u) break;
    CHECK(t == want);
    ++counts[size_t(t)];
  }
  CHECK(counts[2] == 0);
  CHECK(std::abs(counts[1] / 4000.0 - 1 / (2 + std::exp(-2.0) + std::exp(-1.0))) < 0.03);
  CHECK(pretrained::choose_token(logits, 1e-6, 7, 3) == pretrained::choose_token(logits, 1e-6, 7, 3));
}

TEST_CASE("generation stops at the end token and refuses what does not fit", "[pretrained][generate]") {
  const TemporaryFolder folder;
  Json config = config_of("LlamaForCausalLM", {});
  write_folder(folder.path / "a", config, tensors_of(config));
  const std::string a = (folder.path / "a").string();
  const std::vector<int32_t> all = tokens_of({.folder = a}, true).tokens;
  REQUIRE(all.size() == 8);
  config["eos_token_id"] = {all[2], 96};
  write_folder(folder.path / "b", config, tensors_of(config));
  const auto first = std::find(all.begin(), all.end(), all[2]) - all.begin() + 1;
  CHECK(tokens_of({.folder = (folder.path / "b").string()}, true).tokens.size() == size_t(first));
  pretrained::Session s = pretrained::open_session({.folder = a}, true);
  CHECK_THROWS_WITH(pretrained::generate(s, {.prompt = {}}),
                    "expected a prompt of at least one token, got none");
  CHECK_THROWS_WITH(pretrained::generate(s, {.prompt = {1}, .tokens = 513}),
                    "a prompt of 1 and 513 new tokens: the model has max_position_embeddings 512");
}

namespace {

/// The most memory that a pass takes, over the size of the file it reads.
double memory_of_pass(bool keep) {
  const TemporaryFolder folder;
  const Json config = config_of("LlamaForCausalLM", {.vocabulary = 8192,
                                                     .hidden = 256,
                                                     .layers = 24,
                                                     .heads = 4,
                                                     .kv_heads = 2,
                                                     .head_dim = 64,
                                                     .intermediate = 1024});
  {
    const io::TensorFile tensors = in_bf16(tensors_of(config));
    write_folder(folder.path, config, tensors);
  }
  const auto file = int64_t(std::filesystem::file_size(folder.path / "model.safetensors"));
  REQUIRE(file > 50'000'000);
  { std::ofstream("/proc/self/clear_refs") << "5"; }
  const int64_t before = memory("VmRSS:");
  pretrained::Session s =
      pretrained::open_session({.folder = folder.path.string(), .preset = "te", .threads = 1}, keep);
  const std::vector<int32_t> tokens = some_tokens(3, 8, 8192);
  (void)s.decoder->forward({.tokens = tokens, .length = 8});
  return double(memory("VmHWM:") - before) / double(file);
}

} // namespace

TEST_CASE("a pass holds one layer at a time", "[pretrained][memory]") {
  if (memory("VmHWM:") == 0) return; // not Linux
  CHECK(memory_of_pass(false) < 0.5);
}

TEST_CASE("generation holds operands and no numbers", "[pretrained][memory]") {
  if (memory("VmHWM:") == 0) return;
  CHECK(memory_of_pass(true) < 1); // of NVFP4 weights and a BF16 head; numbers would be twice the file
}
