// SPDX-License-Identifier: Apache-2.0
// What gates read under a recipe that stores their inputs: quantize and dequantize of what their projections
// made; and refusals. Their gradients are in the tests of the products inside mixers.
#include "nvfp4/reference_models/model/stored_values.hpp"
#include "tests/reference_models/model/products_support.hpp"

namespace nvfp4::test {
namespace {

ModelConfig gated_model(const char *family) {
  ModelConfig c = small_model(family);
  c.kv_heads = c.heads;
  return c;
}

/// What is stored of x (rows, width), by hand.
Floats by_hand(const Floats &x, int64_t rows, const OperandRecipe &operand) {
  const Floats rounded = in_bf16(x);
  if (operand.convention.empty()) return rounded;
  return dequantize(quantize({rounded.data(), rows, int64_t(x.size()) / rows},
                             find_convention(operand.convention), {.source = FormatId::bf16}));
}

} // namespace

TEST_CASE("gates read what storing their inputs gives back", "[model]") {
  struct Case {
    const char *family, *made, *read;
  };
  for (const Case &f : {Case{"gla", "gk_proj", "gate_input"}, Case{"gdn", "a_proj", "gate_input"},
                        Case{"gdn", "b_proj", "beta_input"}, Case{"gsa", "f_proj", "gate_input"}})
    for (const OperandRecipe &operand :
         {OperandRecipe{OperandFormat::nvfp4, "te"}, OperandRecipe{OperandFormat::mxfp4, "mxfp4"},
          OperandRecipe{OperandFormat::bf16}}) {
      CAPTURE(f.family, f.made, operand.convention);
      const ModelConfig c = gated_model(f.family);
      Recipe recipe = load_recipe("fp32"); // whose projections give FP32
      recipe.gate_inputs = operand;
      recipe.source = FormatId::bf16;
      check_recipe(recipe, "test");
      Step step(c, recipe, 2, 21), plain(c, load_recipe("fp32"), 2, 21), threads(c, recipe, 2, 21, 3);
      step.run();
      plain.run();
      threads.run();
      const std::string path = "model.layers.0.attn.";
      CHECK(same_bits(step.seen.at(path + f.read), by_hand(step.seen.at(path + f.made), 42, operand)));
      CHECK_FALSE(plain.seen.contains(path + f.read));
      CHECK(step.digest() != plain.digest());
      CHECK(threads.digest() == step.digest());
    }
}

TEST_CASE("GLA's gates and their gradients are of what was stored", "[model]") {
  const ModelConfig c = gated_model("gla");
  Recipe recipe = load_recipe("nvfp4+gate_inputs=nvfp4");
  recipe.linears["f32"] = load_recipe("fp32").linears.at("f32");
  recipe.mixer_rules.push_back({.use = "f32"}); // the bits of the whole kernels, and their output's gradient
  Step step(c, recipe, 2, 70);
  step.run();
  const std::string path = "model.layers.0.attn.";
  const auto seen = [&](const char *name) { return step.seen.at(path + name).data(); };
  const Floats &read = step.seen.at(path + "gate_input");
  const auto n = int64_t(read.size());
  Floats g(read.size());
  step.backend->run(GateForward<float>{n, read.data(), g.data(), float(c.gate_normalizer)});
  CHECK(same_bits(step.seen.at(path + "gate"), g));
  const GlaShape<float> shape{
      2, 70, c.heads, c.key_head(), c.value_head(), 1.0f / numerics::sqrt(float(c.key_head()))};
  Floats o(step.seen.at(path + "gla").size()), saved(size_t(shape.saved())), states(size_t(shape.states())),
      dq(read.size()), dk(read.size()), dv(o.size()), dg(read.size());
  GlaForward<float>{shape, seen("q_proj"), seen("k_proj"), seen("v_proj"), g.data(), o.data(), saved.data()}
      .run_on(*step.backend);
  CHECK(same_bits(step.seen.at(path + "gla"), o));
  GlaBackward<float>{shape,          seen("gla.output_grad"),
                     seen("q_proj"), seen("k_proj"),
                     seen("v_proj"), dq.data(),
                     dk.data(),      dv.data(),
                     dg.data(),      saved.data(),
                     states.data()}
      .run_on(*step.backend);
  step.backend->run(GateBackward<float>{n, dg.data(), read.data(), dg.data(), float(c.gate_normalizer)});
  CHECK(same_bits(step.seen.at("0.attn.gk_proj.1.output_grad"), dg));
}

TEST_CASE("storing in BF16 what is BF16 changes nothing", "[model]") {
  for (const char *family : {"gla", "gdn", "gsa", "mamba2"}) {
    CAPTURE(family);
    const ModelConfig c = gated_model(family); // projections of `nvfp4` give BF16
    Step step(c, load_recipe("nvfp4+gate_inputs=bf16"), 2, 70), plain(c, load_recipe("nvfp4"), 2, 70);
    step.run();
    plain.run();
    CHECK(step.digest() == plain.digest());
  }
}

TEST_CASE("inputs of gates are refused where there are none", "[model]") {
  const auto refusal = [&](const char *family, const std::string &recipe) {
    try {
      const auto backend = make_cpu_backend(1);
      const auto engine = make_cpu_operand_engine(1);
      const Model<float> model(*backend, engine.get(), preset(find_family(family), "tiny"),
                               load_recipe(recipe), 1, 8, true);
    } catch (const Error &e) {
      return std::string(e.what());
    }
    return std::string("accepted");
  };
  CHECK(refusal("mamba2", "nvfp4+gate_inputs=mxfp8") == "accepted");
  CHECK(refusal("qwen3", "nvfp4+gate_inputs=mxfp8")
            .find("expected a family whose mixer has decays, got qwen3") != std::string::npos);
  CHECK(refusal("gla", "nvfp4+gate_inputs=fp4").find("+gate_inputs= and one of f32, bf16") !=
        std::string::npos);
  const auto doubles = make_double_backend(1);
  CHECK_THROWS_WITH(Model<double>(*doubles, nullptr, preset(find_family("gla"), "tiny"),
                                  load_recipe("fp32+gate_inputs=bf16"), 1, 8, true),
                    Catch::Contains("double precision"));
}

} // namespace nvfp4::test
