// SPDX-License-Identifier: Apache-2.0
// A folder of a family that is trained here as well: the words of the training model, under every recipe that
// both run, and the cache's attention against the training kernel.
#include "tests/catch.hpp"
#include "tests/reference_models/pretrained/support.hpp"

#include "nvfp4/reference_models/train/forward.hpp"
#include "nvfp4/reference_models/train/session.hpp"

#include <bit>
#include <map>

using namespace nvfp4;
using namespace nvfp4::models;
using namespace nvfp4::test;

namespace {

struct TrainedFamily {
  const char *architecture, *family;
};
constexpr TrainedFamily kFamilies[] = {
    {"LlamaForCausalLM", "llama"}, {"Qwen2ForCausalLM", "qwen2.5"}, {"Qwen3ForCausalLM", "qwen3"}};

ModelConfig training_config(const TrainedFamily &f, const Sizes &s) {
  ModelConfig m = preset(find_family(f.family), "tiny");
  m.vocabulary = s.vocabulary, m.hidden = s.hidden, m.layers = s.layers, m.heads = s.heads,
  m.kv_heads = s.kv_heads;
  m.key_dim = m.value_dim = s.heads * s.head_dim;
  m.intermediate = s.intermediate, m.tie = s.tie;
  return m;
}

std::vector<float> training_logits(const ModelConfig &m, const io::TensorFile &tensors,
                                   const std::string &recipe, const std::vector<int32_t> &tokens,
                                   int64_t batch, int64_t length) {
  Session session = make_session("cpu", 1, m, load_recipe(recipe), batch, length, false);
  for (const ParameterSpec &p : session.model->parameters().list())
    for (const io::Tensor &t : tensors.tensors)
      if (t.name == p.name)
        session.backend->upload(session.model->parameters().value(p.name), t.as<float>().data(),
                                size_t(p.count()) * 4);
  session.model->parameters_changed();
  session.model->set_tokens(tokens);
  session.model->forward({.seed = 3});
  return to_host(*session.backend, session.model->logits(), batch * length * m.vocabulary);
}

std::vector<int32_t> inputs_of(const std::vector<int32_t> &tokens, int64_t batch, int64_t length) {
  std::vector<int32_t> in;
  for (int64_t b = 0; b < batch; ++b)
    in.insert(in.end(), tokens.begin() + b * (length + 1), tokens.begin() + b * (length + 1) + length);
  return in;
}

int64_t differing(std::span<const float> a, std::span<const float> b) {
  REQUIRE(a.size() == b.size());
  int64_t n = 0;
  for (size_t i = 0; i < a.size(); ++i) n += std::bit_cast<uint32_t>(a[i]) != std::bit_cast<uint32_t>(b[i]);
  return n;
}

} // namespace

TEST_CASE("a folder has the words of the training model of its family", "[pretrained]") {
  const int64_t batch = 2, length = 70; // two blocks of queries, the second ragged
  for (const TrainedFamily &f : kFamilies)
    for (const bool tie : {false, true}) {
      Sizes sizes;
      sizes.tie = tie;
      const TemporaryFolder folder;
      const Json config = config_of(f.architecture, sizes);
      const io::TensorFile tensors = tensors_of(config);
      write_folder(folder.path, config, tensors);
      const ModelConfig m = training_config(f, sizes);
      const std::vector<int32_t> tokens = some_tokens(9, batch * (length + 1), int32_t(sizes.vocabulary));
      const std::vector<int32_t> inputs = inputs_of(tokens, batch, length);
      for (const char *recipe : {"fp32", "bf16", "nvfp4", "nvfp4-plain", "chon", "mxfp8", "mxfp4-sr-rht", "bf16+kv_cache=nvfp4"}) {
        INFO(f.architecture << " " << recipe << (tie ? " tied" : ""));
        pretrained::Session s = pretrained::open_session({.folder = folder.path.string(), .recipe = recipe});
        StepContext step;
        step.seed = 3;
        const auto logits =
            s.decoder->forward({.tokens = inputs, .batch = batch, .length = length, .step = step});
        CHECK(differing(logits, training_logits(m, tensors, recipe, tokens, batch, length)) == 0);
        CHECK(!s.decoder->not_finite());
        CHECK(s.decoder->has_hot_channels() == (std::string(recipe) == "chon"));
      }
    }
}

TEST_CASE("a preset is a recipe of its convention", "[pretrained]") {
  const Recipe plain = load_recipe("nvfp4-plain"), preset = pretrained::preset_recipe("te", false, false);
  CHECK(preset.resolve("mlp.up_proj", 0, 2).fprop == plain.resolve("mlp.up_proj", 0, 2).fprop);
  CHECK(preset.resolve("lm_head", 2, 2).fprop == plain.resolve("lm_head", 2, 2).fprop);
  CHECK(pretrained::preset_recipe("te-4over6", false, true).resolve("mlp.up_proj", 0, 2).hcp.enabled);
  CHECK(pretrained::preset_recipe("modelopt", true, false).resolve("mlp.up_proj", 0, 2).fprop.a.hadamard);
  CHECK_THROWS_AS(pretrained::preset_recipe("row-scaled", false, false), Error);
  CHECK_THROWS_AS(pretrained::preset_recipe("amd-fp4", false, false), Error);
  CHECK_THROWS_AS(pretrained::preset_recipe("te", true, true), Error); // no patch of rotated operands
}
