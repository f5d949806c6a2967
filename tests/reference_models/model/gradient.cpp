// SPDX-License-Identifier: Apache-2.0
// Whole models: the FP64 twin's gradients against central differences of its loss, and FP32 against FP64.
// Sizes, names and presets.
#include "nvfp4/reference_models/model/model.hpp"
#include "tests/catch.hpp"

#include <cmath>

using namespace nvfp4::models;

namespace {

ModelConfig small_config(const ModelFamily &family) {
  ModelConfig c = preset(family, "tiny");
  const bool softmax = family.mixer == MixerKind::attention;
  c.vocabulary = 37;
  c.hidden = 24;
  c.layers = 2;
  c.heads = 2;
  c.kv_heads = softmax ? 1 : 2;
  c.key_dim = 16;
  c.value_dim = softmax ? 16 : 24;
  c.intermediate = 40;
  c.slots = 6;
  c.state = 10;
  c.init_std = 0.3; // larger than in training, so that no gradient is lost in rounding
  return c;
}

std::vector<int32_t> some_tokens(const ModelConfig &c, int64_t batch, int64_t length) {
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < batch * (length + 1); ++i)
    tokens.push_back(int32_t((i * i * 7 + i * 3 + 5) % c.vocabulary));
  return tokens;
}

template <class T> struct Twin {
  std::unique_ptr<Backend<T>> backend;
  Model<T> model;

  Twin(std::unique_ptr<Backend<T>> b, const ModelConfig &c, int64_t batch, int64_t length)
      : backend(std::move(b)), model(*backend, nullptr, c, load_recipe("fp32"), batch, length, true) {
    initialise(model.parameters(), c, 9);
    model.parameters_changed();
    std::vector<float> weights(size_t(batch * length), 1.0f);
    weights[1] = 0.0f; // a target that does not count
    model.set_tokens(some_tokens(c, batch, length), weights);
  }
  double loss() {
    model.parameters_changed();
    model.forward({});
    return model.loss(0);
  }
  void backward() {
    model.parameters_changed();
    model.forward({});
    (void)model.loss(1.0);
    model.backward({});
  }
};

} // namespace

TEST_CASE("gradients of every parameter agree with central differences in FP64", "[model]") {
  const ModelFamily &family = *families()[GENERATE(range(size_t{0}, families().size()))];
  const bool tie = GENERATE(true, false);
  ModelConfig c = small_config(family);
  c.tie = tie;
  INFO(family.name << (tie ? ", tied" : ", untied"));
  Twin<double> twin(make_double_backend(1), c, 2, 19);
  twin.backward();
  for (const ParameterSpec &p : twin.model.parameters().list()) {
    double *value = twin.model.parameters().value(p.name);
    const double *gradient = twin.model.parameters().gradient(p.name);
    double largest = 1e-3; // the scale against which errors count
    for (int64_t i = 0; i < p.count(); ++i) largest = std::max(largest, std::fabs(gradient[i]));
    for (int64_t n = 0; n < 3; ++n) {
      const int64_t i = (n * 7919 + 3) % p.count();
      const double kept = value[i], h = 1e-5;
      value[i] = kept + h;
      const double above = twin.loss();
      value[i] = kept - h;
      const double below = twin.loss();
      value[i] = kept;
      const double expected = (above - below) / (2 * h);
      INFO(p.name << "[" << i << "]: " << gradient[i] << " against " << expected);
      CHECK(std::fabs(gradient[i] - expected) < 2e-6 * largest);
    }
  }
}

TEST_CASE("FP32 gradients follow FP64's", "[model]") {
  const ModelFamily &family = *families()[GENERATE(range(size_t{0}, families().size()))];
  ModelConfig c = small_config(family);
  INFO(family.name);
  Twin<double> wide(make_double_backend(1), c, 2, 70);
  Twin<float> narrow(make_cpu_backend(2), c, 2, 70);
  wide.backward();
  narrow.backward();
  for (const ParameterSpec &p : wide.model.parameters().list()) {
    const double *expected = wide.model.parameters().gradient(p.name);
    const float *got = narrow.model.parameters().gradient(p.name);
    double error = 0, norm = 0;
    for (int64_t i = 0; i < p.count(); ++i) {
      error += (double(got[i]) - expected[i]) * (double(got[i]) - expected[i]);
      norm += expected[i] * expected[i];
    }
    INFO(p.name << ": relative error " << std::sqrt(error / norm));
    CHECK(error < norm * 1e-8);
  }
}

namespace {

/// Gates that reset: those of every second channel or head are strong.
template <class T> void strengthen_gates(Twin<T> &twin, const ModelConfig &c) {
  for (const ParameterSpec &p : twin.model.parameters().list()) {
    T *const value = twin.model.parameters().value(p.name);
    for (int64_t i = 0; i < p.count(); i += 2) {
      if (p.name.ends_with("gk_proj.1.bias")) value[i] = T(-7.5 * c.gate_normalizer);
      if (p.name.ends_with("A_log")) value[i] = T(2);
      if (p.name.ends_with("f_proj.weight")) value[i] = T(-20);
      if (p.name.ends_with("dt_bias")) value[i] = T(1);
    }
  }
}

/// The largest error of a gradient, over the largest value of its tensor, and whose it is.
struct Worst {
  double error = 0;
  std::string parameter;
};

Worst worst_gradient(const ModelConfig &c, bool strong) {
  Twin<double> wide(make_double_backend(1), c, 2, 100);
  Twin<float> narrow(make_cpu_backend(1), c, 2, 100);
  if (strong) {
    strengthen_gates(wide, c);
    strengthen_gates(narrow, c);
  }
  for (const ParameterSpec &p : wide.model.parameters().list()) // the same words
    for (int64_t i = 0; i < p.count(); ++i)
      wide.model.parameters().value(p.name)[i] = double(narrow.model.parameters().value(p.name)[i]);
  wide.backward();
  narrow.backward();
  Worst worst;
  for (const ParameterSpec &p : wide.model.parameters().list()) {
    const double *const expected = wide.model.parameters().gradient(p.name);
    const float *const got = narrow.model.parameters().gradient(p.name);
    double error = 0, size = 0;
    for (int64_t i = 0; i < p.count(); ++i) {
      error = std::max(error, std::fabs(double(got[i]) - expected[i]));
      size = std::max(size, std::fabs(expected[i]));
    }
    if (!(error / size <= worst.error)) worst = {error / size, p.name};
  }
  return worst;
}

} // namespace

TEST_CASE("FP32 gradients of every family are as near to FP64's as README.md says", "[model]") {
  struct Bound {
    std::string_view family;
    double usual, strong; ///< of 100 tokens, with the gates of initial values and with resets
  };
  const Bound kBounds[] = {
      {"gla", 1e-5, 1e-5}, {"qwen3", 1e-5, 1e-5}, {"qwen2.5", 2e-5, 2e-5}, {"gdn", 2e-5, 4e-5}, {"llama", 1e-5, 1e-5},
      {"gsa", 1e-5, 2e-4}, {"mamba2", 1e-5, 1e-5}};
  CHECK(std::size(kBounds) == families().size());
  for (const Bound &bound : kBounds) {
    const ModelConfig c = small_config(find_family(std::string(bound.family)));
    for (const bool strong : {false, true}) {
      const Worst worst = worst_gradient(c, strong);
      INFO(bound.family << (strong ? ", strong gates: " : ": ") << worst.parameter << " " << worst.error);
      CHECK(worst.error < (strong ? bound.strong : bound.usual));
    }
  }
}

TEST_CASE("presets have the sizes that their names promise", "[model]") {
  const auto millions = [](const char *family, const char *size) {
    return double(parameter_count(preset(find_family(family), size))) / 1e6;
  };
  CHECK(millions("gla", "tiny") == Approx(0.9).margin(0.05));
  CHECK(millions("gla", "small") == Approx(5.0).margin(0.5));
  CHECK(millions("gla", "gla-340m") == Approx(341.7).margin(0.05));
  CHECK(millions("gla", "gla-1.3b") == Approx(1365.5).margin(0.05));
  CHECK(millions("gsa", "gsa-340m") == Approx(347.4).margin(0.05));
  CHECK(millions("mamba2", "mamba2-370m") == Approx(368.3).margin(0.05));
  CHECK(millions("qwen3", "qwen3-0.6b") == Approx(596.0).margin(0.1));
  CHECK(millions("qwen3", "qwen3-1.7b") == Approx(1720.6).margin(0.1));
  for (const ModelFamily *family : families()) {
    const ModelConfig c = preset(*family, "tiny");
    CHECK_NOTHROW(check(c));
    CHECK(config_from_json(to_json(c), "test") == c);
    CHECK(parameter_count(c) < 1'000'000);
  }
}

TEST_CASE("parameters are named as in flash-linear-attention and transformers", "[model]") {
  const auto has = [](const char *family, const std::string &name) {
    for (const ParameterSpec &p : parameter_list(preset(find_family(family), "tiny")))
      if (p.name == name) return true;
    return false;
  };
  CHECK(has("gla", "model.layers.0.attn.gk_proj.1.bias"));
  CHECK(has("gla", "model.layers.3.attn.g_norm_swish_gate.weight"));
  CHECK(has("qwen3", "model.layers.0.self_attn.q_norm.weight"));
  CHECK_FALSE(has("qwen2.5", "model.layers.0.self_attn.q_norm.weight"));
  CHECK(has("qwen2.5", "model.layers.0.self_attn.v_proj.bias"));
  CHECK(has("gdn", "model.layers.0.attn.A_log"));
  CHECK(has("gsa", "model.layers.0.attn.f_proj.weight"));
  CHECK(has("gsa", "model.layers.3.attn.g_norm.weight"));
  for (const char *name : {"embeddings.weight", "layers.0.norm.weight", "layers.7.mixer.in_proj.weight",
                           "layers.7.mixer.conv1d.bias", "layers.7.mixer.D", "layers.7.mixer.norm.weight",
                           "layers.7.mixer.out_proj.weight", "norm_f.weight"})
    CHECK(has("mamba2", std::string("backbone.") + name));
}

TEST_CASE("impossible models are refused in one line", "[model]") {
  const auto refused = [](const char *json, const char *why) {
    try {
      (void)config_from_json(json, "m.json");
    } catch (const nvfp4::Error &e) {
      INFO(e.what());
      CHECK(std::string(e.what()).find(why) != std::string::npos);
      return;
    }
    FAIL("accepted " << json);
  };
  refused("[]", "JSON object");
  refused("{}", "family");
  refused(R"({"family":"rnn"})", "gla, qwen3");
  refused(R"({"family":"gla","hiden":3})", "hiden");
  refused(R"({"family":"gla","hidden":"3"})", "'hidden' takes a whole number");
  refused(R"({"family":"gla","heads":3})", "multiple");
  refused(R"({"family":"qwen3","kv_heads":3})", "kv_heads");
  refused(R"({"family":"gsa","value_dim":64})", "value_dim = 64 to be hidden = 128");
  refused(R"({"family":"gla","layers":0})", "'layers' takes a whole number from 1 to 4096, got 0");
}
