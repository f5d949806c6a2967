// SPDX-License-Identifier: Apache-2.0
// What a recipe changes or holds from step to step: rules that count from a step on, and held amaxes.
#include "tests/reference_models/linear/forwarding_engine.hpp"
#include "tests/reference_models/linear/support.hpp"

#include <algorithm>

namespace nvfp4::test {
namespace {

/// A recipe without blocks or a head of their own.
Recipe everywhere(const std::string &name) {
  Recipe r = load_recipe(name);
  std::erase_if(r.rules, [](const RecipeRule &rule) { return rule.last > 0 || rule.roles != std::vector<std::string>{"*"}; });
  return r;
}

} // namespace

TEST_CASE("rules count from their step on, parts of a run to the nearest step", "[steps]") {
  const Recipe r = load_recipe("nvfp4-bf16-end");
  const auto fprop = [](const Recipe &recipe, int64_t step, const char *role = "mlp.up_proj", int64_t layer = 0) {
    return recipe.resolve(role, layer, 4, step).fprop.a.format;
  };
  CHECK(r.phases() == std::vector<int64_t>{0});
  CHECK(fprop(r, 0) == OperandFormat::nvfp4);
  CHECK_THROWS_WITH(fprop(r, 1), Catch::Contains("nvfp4-bf16-end") && Catch::Contains("of a run's steps"));
  const Recipe bound = r.for_run(10); // 8.2
  CHECK(bound.phases() == std::vector<int64_t>{0, 8});
  CHECK(bound.for_run(1000) == bound);
  for (int64_t step = 0; step < 12; ++step)
    CHECK(fprop(bound, step) == (step < 8 ? OperandFormat::nvfp4 : OperandFormat::bf16));
  CHECK(bound.resolve("mlp.up_proj", 0, 4, 9).wgrad == bound.resolve("mlp.up_proj", 0, 4, 0).wgrad);
  // the last blocks and the head stay what they are
  CHECK(bound.resolve("mlp.up_proj", 3, 4, 9) == bound.resolve("mlp.up_proj", 3, 4, 0));
  CHECK(bound.resolve("lm_head", 4, 4, 9) == bound.resolve("lm_head", 4, 4, 0));
  CHECK(parse_recipe(to_json(bound), "again") == bound);
  CHECK(parse_recipe(to_json(r), "again") == r);
  CHECK(r.at_start().rules.size() == r.rules.size() - 1);

  const Recipe qaf = load_recipe("fp4-all-the-way").for_run(100);
  CHECK(qaf.resolve("mlp.up_proj", 0, 4, 89).dgrad.b.format == OperandFormat::nvfp4);
  CHECK(qaf.resolve("mlp.up_proj", 0, 4, 90).dgrad.b.format == OperandFormat::bf16);
  CHECK(qaf.resolve("mlp.up_proj", 0, 4, 90).fprop == qaf.resolve("mlp.up_proj", 0, 4, 0).fprop);

  Recipe wrong = r;
  wrong.mixer_rules.push_back({.from = 3, .use = "nvfp4"});
  CHECK_THROWS_WITH(check_recipe(wrong, "r"), Catch::Contains("r.mixer_rules[0].from"));
  std::string json = to_json(r);
  json.replace(json.find("0.82"), 4, "1.5");
  CHECK_THROWS_WITH(parse_recipe(json, "r"), Catch::Contains("rules[0]: 'from' takes a number of steps, or a fraction below 1"));
  json.replace(json.find("1.5"), 3, "-1");
  CHECK_THROWS_WITH(parse_recipe(json, "r"), Catch::Contains("from"));
}

TEST_CASE("an engine refuses what it cannot do before the first step, whichever step a rule counts from", "[steps]") {
  struct Refusing : ForwardingEngine {
    void check_supported(const LinearRecipe &l) const override {
      if (l.fprop.a.format == OperandFormat::bf16) throw Error("no BF16 here");
    }
  } engine;
  const auto backend = make_cpu_backend(1);
  Floats w(size_t(32 * 48));
  const auto make = [&](const Recipe &recipe) {
    const LinearGroup<float> group(*backend, &engine, {{.role = "mlp.up_proj", .layer = 0, .layers = 4, .in = 48, .out = 32, .weight = w.data()}},
                                   recipe);
  };
  CHECK_NOTHROW(make(uniform_recipe("nvfp4-bf16-end", "nvfp4")));
  CHECK_THROWS_WITH(make(uniform_recipe("nvfp4-bf16-end", "bf16-forward")), "no BF16 here");
  CHECK_THROWS_WITH(make(everywhere("nvfp4-bf16-end").for_run(10)), "no BF16 here"); // from step 8 on
}

TEST_CASE("a rotation that a layer has no groups for is refused before the first step where it comes later", "[steps]") {
  Recipe late = everywhere("nvfp4-bf16-end");
  late.linears["late"] = late.linears.at("bf16-forward");
  for (OperandRecipe *o : {&late.linears["late"].dgrad.a, &late.linears["late"].dgrad.b})
    *o = {.format = OperandFormat::nvfp4, .convention = "te", .hadamard = true};
  late.rules = {{.from = 5, .use = "late"}};
  const auto backend = make_cpu_backend(1);
  const auto engine = make_cpu_operand_engine(1);
  Floats w(size_t(32 * 48));
  const auto make = [&](int64_t out) {
    const LinearGroup<float> group(*backend, engine.get(), {{.role = "attn.b_proj", .layer = 0, .layers = 4, .in = 48, .out = out, .weight = w.data()}}, late);
  };
  CHECK_NOTHROW(make(32));
  CHECK_THROWS_WITH(make(2), Catch::Contains("rotates groups of 16 in dgrad of attn.b_proj, which contracts 2 elements"));
}

TEST_CASE("a layer is at each step what its rule says, bit for bit", "[steps]") {
  constexpr int64_t rows = 48, in = 80, out = 64;
  const Recipe changing = everywhere("nvfp4-bf16-end").for_run(10);
  const Recipe before = uniform_recipe("nvfp4-bf16-end", "nvfp4"), after = uniform_recipe("nvfp4-bf16-end", "bf16-forward");
  Group mine(changing, rows, in, {out, 32}), first(before, rows, in, {out, 32}), then(after, rows, in, {out, 32});
  for (int64_t s = 5; s < 10; ++s) {
    const StepContext step{3, s, 0, true};
    mine.layers->at_step(s);
    for (Group *g : {&mine, &first, &then}) {
      g->layers->weights_changed();
      g->forward(step);
      g->backward(step);
    }
    CAPTURE(s);
    // gradients add up over steps, so words of this one are compared
    CHECK((mine.y == first.y) == (s < 8));
    CHECK((mine.y == then.y) == (s >= 8));
    CHECK(mine.dx == first.dx); // the backward products are the same in both
  }
  CHECK(mine.weight_grads == first.weight_grads);
  mine.layers->at_step(2); // and back, as a replay may ask
  CHECK(mine.layers->recipe(0) == first.layers->recipe(0));

  // a fraction of an unknown run is refused by name
  Group unbound(everywhere("nvfp4-bf16-end"), rows, in, {out});
  CHECK_NOTHROW(unbound.layers->at_step(0));
  CHECK_THROWS_WITH(unbound.layers->at_step(1), Catch::Contains("nvfp4-bf16-end"));
}

TEST_CASE("hot channels stay over a change of other products, and go with the patch", "[steps]") {
  Recipe r = uniform_recipe("hcp", "nvfp4");
  r.linears["later"] = r.linears.at("nvfp4");
  r.linears.at("later").wgrad.a.rounding = ElementRounding::nearest;
  r.linears["plain"] = r.linears.at("nvfp4");
  r.linears.at("plain").hcp = {};
  r.rules = {{.from = 1, .use = "later"}, {.from = 3, .use = "plain"}};
  check_recipe(r, "r");
  Group g(r, 32, 64, {48});
  g.forward({3, 0, 0, true});
  const std::vector<int32_t> chosen = g.layers->hot_channels(0).indices;
  REQUIRE(chosen.size() == 16);
  g.layers->at_step(2);
  CHECK(g.layers->hot_channels(0).indices == chosen);
  CHECK(g.layers->hot_channels(0).chosen_at == 0);
  const Floats patched = (g.forward({3, 2, 0, true}), g.y[0]);
  g.layers->at_step(3);
  CHECK(g.layers->hot_channels(0).indices.empty());
  g.forward({3, 3, 0, true});
  CHECK(g.y[0] != patched);
}

TEST_CASE("held amaxes: taken when they fall due, used in between, each operand its own", "[steps]") {
  constexpr int64_t rows = 32, in = 64, out = 48;
  Recipe r = uniform_recipe("nvfp4", "nvfp4"), plain = r;
  r.amax_period = 3;
  Group held(r, rows, in, {out}), own(plain, rows, in, {out});
  const auto run = [&](Group &g, int64_t s, int64_t micro, bool training = true) {
    if (micro == 0) g.layers->weights_changed();
    g.forward({3, s, micro, training});
    if (training) g.backward({3, s, micro, training});
  };
  const auto scale = [&](float f) {
    for (Group *g : {&held, &own}) {
      for (float &v : g->x) v *= f;
      for (float &v : g->dy[0]) v *= f;
      for (float &v : g->weights[0]) v *= f;
    }
  };
  run(held, 0, 0);
  run(own, 0, 0);
  CHECK(held.digest() == own.digest()); // what is taken is used at once
  const auto amaxes = held.layers->held_amaxes(0);
  for (const auto &product : amaxes)
    for (const auto &a : product) REQUIRE(a.has_value());
  const auto largest = [&] {
    float m = 0;
    for (const float v : in_bf16(held.x)) m = std::max(m, std::abs(v));
    return m;
  };
  CHECK(*amaxes[0][0] == largest());
  CHECK(amaxes[0][0] != amaxes[2][1]); // of x as it is, and rotated

  // the next step's data are larger: their blocks saturate under the held amax
  scale(5.0f);
  run(held, 1, 0);
  run(own, 1, 0);
  CHECK(held.y != own.y);
  CHECK(held.layers->held_amaxes(0) == amaxes);
  {
    const GemmRecipe &g = held.layers->recipe(0).fprop;
    const auto by_hand = [&](const OperandRecipe &o, const Floats &v, int64_t n, float amax) {
      return quantize({v.data(), n, in}, find_convention(o.convention),
                      {.block_rows = o.block_rows, .source = FormatId::bf16, .global_amax = amax});
    };
    const Floats x = in_bf16(held.x), w = in_bf16(held.weights[0]);
    const BlockScaled a = by_hand(g.a, x, rows, *amaxes[0][0]), b = by_hand(g.b, w, out, *amaxes[0][1]);
    const Unit &unit = find_unit(g.unit);
    CHECK(held.y[0] == values_of(GemmPlan(unit, {.alpha = global_alpha(a, b, 1.0f, AlphaRule::by_convention), .out = g.output})
                                     .run(pack_by_hand(unit, Side::a, a), pack_by_hand(unit, Side::b, b), {})));
  }
  // a pass that does not train changes nothing and reads what is held
  const Floats trained = held.y[0];
  run(held, 1, 0, false);
  CHECK(held.y[0] == trained);
  CHECK(held.layers->held_amaxes(0) == amaxes);
  // falls due: the first micro-batch decides for the step
  run(held, 3, 0);
  const auto later = held.layers->held_amaxes(0);
  CHECK(*later[0][0] == largest());
  CHECK(*later[0][0] > 4 * *amaxes[0][0]);
  scale(0.25f);
  run(held, 3, 1);
  CHECK(held.layers->held_amaxes(0) == later);

  // state: another group that takes it goes on to the same words
  Group other(r, rows, in, {out});
  other.x = held.x;
  other.dy = held.dy;
  other.weight_grads[0] = held.weight_grads[0];
  std::ranges::copy(held.weights[0], other.weights[0].begin());
  other.bind(r);
  other.layers->set_held_amaxes(0, later);
  run(held, 4, 0);
  run(other, 4, 0);
  CHECK(other.digest() == held.digest());
  // other conventions hold nothing
  Recipe mx = uniform_recipe("mxfp4-sr-rht", "mxfp4");
  mx.amax_period = 3;
  Group none(mx, rows, in, {out});
  run(none, 0, 0);
  CHECK(none.layers->held_amaxes(0) == LinearGroup<float>::HeldAmaxes{});
  none.layers->set_held_amaxes(0, later);
  CHECK(none.layers->held_amaxes(0) == LinearGroup<float>::HeldAmaxes{});
  Recipe copies = load_recipe("nvfp4-decoded");
  copies.amax_period = 2;
  CHECK_THROWS_WITH(check_recipe(copies, "r"), Catch::Contains("decoded makes fprop's copy anew"));
}

} // namespace nvfp4::test
