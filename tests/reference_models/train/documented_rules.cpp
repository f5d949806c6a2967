// SPDX-License-Identifier: Apache-2.0
// Rules of a training step as README.md of reference_models states them, written again from there: keys of
// random words, learning rate, which parameters decay.
#include "nvfp4/reference_models/linear/random_key.hpp"
#include "nvfp4/reference_models/model/model.hpp"
#include "nvfp4/reference_models/train/schedule.hpp"
#include "tests/catch.hpp"

#include <cmath>
#include <map>
#include <numbers>
#include <set>

using namespace nvfp4;
using namespace nvfp4::models;

namespace {

/// Steele, Lea, Flood 2014: the first output of splitmix64 from this state.
uint64_t first_of_splitmix(uint64_t state) {
  uint64_t z = state + 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

} // namespace

TEST_CASE("keys of random words are those of the document", "[rules]") {
  CHECK(first_of_splitmix(0) == 0xE220A8397B1DCDAFu); // published: the generator's first word from seed 0
  for (const uint64_t seed : {uint64_t(0), uint64_t(1), ~uint64_t(0)})
    for (const uint64_t layer : {0u, 22u, 463u})
      for (uint64_t product = 0; product < 3; ++product)
        for (uint64_t use = 0; use < 3; ++use) {
          const RandomKey key = random_key(seed, layer, Product(product), RandomUse(use), 299, 3);
          CHECK(key.seed == first_of_splitmix(seed) + 16 * layer + 4 * product + use);
          CHECK(key.offset == 299 * (uint64_t(1) << 24) + 3);
        }
}

TEST_CASE("layers have the numbers of the document", "[rules]") {
  const std::map<std::string, uint64_t> positions = {
      {"q_proj", 0},    {"k_proj", 1}, {"v_proj", 2}, {"g_proj", 3},     {"gk_proj.0", 4}, {"a_proj", 4},
      {"gk_proj.1", 5}, {"b_proj", 5}, {"f_proj", 4}, {"in_proj", 0}, {"out_proj", 6}, {"o_proj", 6}, {"gate_proj", 12}, {"up_proj", 13},  {"down_proj", 14}};
  for (const ModelFamily *f : families()) {
    const std::string family(f->name);
    CAPTURE(family);
    const ModelConfig config = find_model(family, "tiny");
    const auto backend = make_cpu_backend(1);
    Model<float> model(*backend, nullptr, config, load_recipe("fp32"), 1, 8, true);
    int64_t seen = 0;
    model.observer = [&](const LinearObservation<float> &o) {
      ++seen;
      const std::string role(o.role);
      CAPTURE(role);
      if (role == "lm_head")
        CHECK(o.weight->id == 16 * uint64_t(config.layers) + 15);
      else
        CHECK(o.weight->id == 16 * uint64_t(o.layer) + positions.at(role.substr(role.find('.') + 1)));
    };
    model.set_tokens(std::vector<int32_t>{1, 2, 3, 4, 5, 6, 7, 8, 9});
    model.forward({});
    (void)model.loss(1.0);
    model.backward({});
    CHECK(seen == int64_t(linear_roles(*f).size() - 1) * config.layers + 1);
  }
}

TEST_CASE("groups are those of the document, in its order", "[rules]") {
  const std::map<std::string, std::string> of_input = {{"gla", "q_proj k_proj v_proj g_proj gk_proj.0"},
                                                       {"qwen3", "q_proj k_proj v_proj"},
                                                       {"qwen2.5", "q_proj k_proj v_proj"},
                                                       {"llama", "q_proj k_proj v_proj"},
                                                       {"gdn", "q_proj k_proj v_proj g_proj a_proj b_proj"},
                                                       {"gsa", "q_proj k_proj v_proj f_proj"},
                                                       {"mamba2", "in_proj"}};
  CHECK(of_input.size() == families().size());
  for (const auto &[family, expected] : of_input) {
    CAPTURE(family);
    const auto backend = make_cpu_backend(1);
    Model<float> model(*backend, nullptr, find_model(family, "tiny"), load_recipe("fp32"), 1, 8, true);
    std::map<const float *, std::string> groups; // layers of the first block, by what they read
    model.observer = [&](const LinearObservation<float> &o) {
      const std::string role(o.role);
      if (o.layer != 0) return;
      std::string &names = groups[o.input];
      names += (names.empty() ? "" : " ") + role.substr(role.find('.') + 1);
    };
    model.set_tokens(std::vector<int32_t>{1, 2, 3, 4, 5, 6, 7, 8, 9});
    model.forward({});
    (void)model.loss(1.0);
    model.backward({});
    std::set<std::string> seen;
    for (const auto &[input, names] : groups) CHECK(seen.insert(names).second);
    std::set<std::string> all = {expected, std::string(find_family(family).output)};
    if (find_family(family).has_mlp()) all.insert({"gate_proj up_proj", "down_proj"});
    if (family == "gla") all.insert("gk_proj.1");
    CHECK(seen == all);
  }
}

TEST_CASE("the learning rate is that of the document", "[rules]") {
  for (const int64_t steps : {1, 19, 20, 39, 400})
    for (const double last : {0.0, 0.1, 1.0}) {
      const double peak = 3e-4;
      const int64_t warmup = steps / 20;
      for (int64_t s = 1; s <= steps; ++s) {
        const double expected =
            s <= warmup
                ? peak * double(s) / double(warmup)
                : last * peak +
                      (peak - last * peak) *
                          (1 + std::cos(std::numbers::pi * double(s - warmup) / double(steps - warmup))) / 2;
        CHECK(double(learning_rate(Schedule::cosine, peak, last, -1, steps, s)) ==
              Approx(expected).epsilon(1e-7).margin(1e-19));
      }
    }
}

TEST_CASE("what decays is what the document says", "[rules]") {
  for (const ModelFamily *f : families())
    for (const ParameterSpec &p : parameter_list(preset(*f, "tiny"))) {
      CAPTURE(f->name, p.name);
      const bool linear = p.name.find("_proj") != std::string::npos && p.name.ends_with(".weight");
      const bool embedding = p.name == "model.embeddings.weight" || p.name == "model.embed_tokens.weight" ||
                             p.name == "backbone.embeddings.weight";
      CHECK(p.decay == (linear || embedding || p.name == "lm_head.weight"));
      if (p.name.find("conv") != std::string::npos) CHECK_FALSE(p.decay);
    }
}
