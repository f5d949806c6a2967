// SPDX-License-Identifier: Apache-2.0
// Linear layers forward and backward under every built-in recipe and every form of the Hot-Channel Patch, GPU
// against CPU: outputs, gradients and the chosen channels with their scores.
#include "nvfp4/gpu/check/sides.hpp"
#include "nvfp4/reference_models/linear/linear.hpp"

namespace nvfp4::crosscheck {
namespace {

using namespace models;

struct Shape {
  int64_t rows, in;
  std::vector<int64_t> outs;
};

void layers(Side &s, const Recipe &recipe, const Shape &z, bool bias) {
  std::vector<LinearWeight<float>> members;
  for (size_t i = 0; i < z.outs.size(); ++i) {
    LinearWeight<float> w;
    w.role = i == 0 ? "attn.q_proj" : i == 1 ? "mlp.down_proj" : "attn.o_proj";
    w.layers = 8;
    w.in = z.in;
    w.out = z.outs[i];
    w.weight = s.in(w.in * w.out, 0.05f);
    w.weight_grad = s.out(w.in * w.out);
    if (bias) {
      w.bias = s.in(w.out);
      w.bias_grad = s.out(w.out);
    }
    w.id = 7 + i;
    members.push_back(w);
  }
  const float *const x = s.in(z.rows * z.in);
  std::vector<float *> y;
  std::vector<const float *> dy;
  for (const int64_t n : z.outs) {
    y.push_back(s.out(z.rows * n));
    dy.push_back(s.in(z.rows * n, 1e-3f));
  }
  float *const dx = s.out(z.rows * z.in);
  LinearGroup<float> group(s.backend(), &s.engine(), std::move(members), recipe);
  for (int64_t step = 0; step < 2; ++step) { // the second uses the channels of the first
    const StepContext context{5, step, 0, true};
    group.weights_changed();
    group.forward(context, x, z.rows, y);
    group.backward(context, x, z.rows, dy, dx);
  }
  for (size_t i = 0; i < z.outs.size(); ++i)
    for (const Product p : {Product::fprop, Product::dgrad}) {
      const HotChannels &hot = group.hot_channels(i, p);
      float *const scores = s.out(int64_t(hot.scores.size()) + int64_t(hot.indices.size()));
      std::vector<float> all = hot.scores;
      for (const int32_t c : hot.indices) all.push_back(float(c));
      if (!all.empty()) s.backend().upload(scores, all.data(), all.size() * 4);
    }
}

struct Variant {
  const char *name;
  std::function<void(LinearRecipe &)> change;
};

/// fprop's operands, to nearest, a scale for each block of a row.
void set_convention(LinearRecipe &l, const char *name) {
  for (OperandRecipe *o : {&l.fprop.a, &l.fprop.b}) o->convention = name, o->block_rows = 1;
}

const std::vector<Variant> &variants() {
  using Hcp = HcpRecipe;
  static const std::vector<Variant> all = {
      {"dual", [](LinearRecipe &l) { l.hcp.kernel = Hcp::Kernel::dual; }},
      {"dual, BF16 residuals",
       [](LinearRecipe &l) { l.hcp.kernel = Hcp::Kernel::dual, l.hcp.residual = Hcp::Residual::bf16; }},
      {"activation side", [](LinearRecipe &l) { l.hcp.side = Hcp::Side::activation; }},
      {"weight side", [](LinearRecipe &l) { l.hcp.side = Hcp::Side::weight; }},
      {"by magnitude", [](LinearRecipe &l) { l.hcp.choice = Hcp::Choice::magnitude; }},
      {"random", [](LinearRecipe &l) { l.hcp.choice = Hcp::Choice::random; }},
      {"whole blocks",
       [](LinearRecipe &l) {
         l.hcp.choice = Hcp::Choice::blocks, l.hcp.reblock = Hcp::Reblock::whole_blocks;
       }},
      {"whole blocks, dual",
       [](LinearRecipe &l) {
         l.hcp.choice = Hcp::Choice::blocks, l.hcp.reblock = Hcp::Reblock::whole_blocks;
         l.hcp.kernel = Hcp::Kernel::dual;
       }},
      {"also in dgrad", [](LinearRecipe &l) { l.hcp.dgrad = true; }},
      {"four over six", [](LinearRecipe &l) { set_convention(l, "te-4over6"); }}, // the patch through memory
      // elements over what their scale was before it was rounded; with headroom; times a scale made by IEEE operations
      {"metis-nvfp4", [](LinearRecipe &l) { set_convention(l, "metis-nvfp4"); }},
      {"quartet2-eden", [](LinearRecipe &l) { set_convention(l, "quartet2-eden"); }},
      {"fouroversix-static", [](LinearRecipe &l) { set_convention(l, "fouroversix-static"); }},
      {"torchao", [](LinearRecipe &l) { set_convention(l, "torchao"); }}, // a dividing one that has a kernel of its own
  };
  return all;
}

} // namespace

Tally check_linear(const std::string &match) {
  Tally all;
  // of the last, x is more than what is quantized together
  const Shape shapes[] = {
      {33, 40, {24}}, {128, 128, {64, 384, 128}}, {100, 272, {96, 33}}, {64, 1024, {16}}, {480, 288, {48}}};
  const auto run = [&](const std::string &name, const Recipe &recipe) {
    if (name.find(match) == std::string::npos) return;
    Tally t;
    uint64_t seed = 1;
    for (const Shape &z : shapes)
      for (const bool bias : {false, true})
        t.add(both_sides([&](Side &s) { layers(s, recipe, z, bias); }, seed++));
    t.print(("linear: " + name).c_str());
    all.add(t);
  };
  for (const std::string_view name : builtin_recipes())
    run(std::string(name), load_recipe(std::string(name)).for_family("gla"));
  for (const Variant &v : variants()) {
    Recipe recipe = load_recipe("hcp").for_family("gla");
    v.change(recipe.linears.at(recipe.default_linear));
    check_recipe(recipe, v.name);
    run(std::string("hcp, ") + v.name, recipe);
  }
  return all;
}

} // namespace nvfp4::crosscheck
