// SPDX-License-Identifier: Apache-2.0
// Whether a trainer's weights and a server's become the same bytes, and what is said where they do not.
#include "tests/catch.hpp"
#include "tests/reference_models/pretrained/support.hpp"

#include "nvfp4/golden/checkpoint/export.hpp"
#include "nvfp4/reference_models/pretrained/alike.hpp"
#include "nvfp4/reference_models/pretrained/trained_layers.hpp"

using namespace nvfp4;
using namespace nvfp4::models;
using namespace nvfp4::test;

namespace {

using pretrained::Alike;

Alike compare(const std::string &served, const std::string &masters, const std::string &recipe,
              const std::string &tensor = {}) {
  return pretrained::compare_alike(checkpoint::open_checkpoint(served), checkpoint::open_checkpoint(masters),
                                   load_recipe(recipe), {.tensor = tensor});
}

const pretrained::AlikeLine &line(const Alike &a, const std::string &name) {
  for (const auto &l : a.lines)
    if (l.name == name) return l;
  throw Error("no line " + name);
}

} // namespace

TEST_CASE("trainer and server are compared layer by layer", "[pretrained][alike]") {
  const TemporaryFolder folder;
  const Sizes sizes{.vocabulary = 97,
                    .hidden = 64,
                    .layers = 2,
                    .heads = 4,
                    .kv_heads = 2,
                    .head_dim = 16,
                    .intermediate = 96};
  const Json config = config_of("Qwen3ForCausalLM", sizes);
  write_folder(folder.path / "masters", config, in_bf16(tensors_of(config)));
  const std::string masters = (folder.path / "masters").string();
  const auto served = [&](const std::string &convention, checkpoint::Target target,
                          const std::string &only = {}) {
    const std::string to =
        (folder.path / (convention + only.substr(0, only.find('*')))).string() + std::to_string(int(target));
    if (!std::filesystem::exists(to)) {
      checkpoint::ExportOptions o;
      o.target = target, o.convention = convention, o.tensors = only;
      (void)checkpoint::export_checkpoint(checkpoint::open_checkpoint(masters), to, o);
    }
    return to;
  };
  const std::string te = served("te", checkpoint::Target::modelopt);

  SECTION("the masters themselves") {
    const Alike a = compare(masters, masters, "bf16");
    CHECK(a.differing == 0);
    CHECK(a.lines.size() == 15); // with lm_head
    CHECK(a.family == "qwen3");
  }
  SECTION("the same convention: all but the modules that export fuses and the head") {
    const Alike a = compare(te, masters, "nvfp4-plain");
    CHECK(line(a, "model.layers.0.self_attn.o_proj.weight").alike);
    CHECK(line(a, "model.layers.1.mlp.down_proj.weight").alike);
    CHECK(line(a, "lm_head.weight").alike);
    int64_t fused = 0;
    for (const auto &l : a.lines)
      if (!l.alike) {
        ++fused;
        CHECK(l.why.find("served with the amax of the fused modules") != std::string::npos);
        CHECK(l.why.find("convention") == std::string::npos);
      }
    CHECK(fused == a.differing);
    CHECK(fused >= 6); // of q, k, v and of gate and up all but the largest
    CHECK(fused <= 6);
  }
  SECTION("tiles and blocks that training keeps in BF16") {
    const Alike a = compare(te, masters, "nvfp4");
    CHECK(line(a, "model.layers.0.self_attn.o_proj.weight").why ==
          "served in 1x16 blocks, trained in 16x16 tiles");
    CHECK(line(a, "model.layers.1.self_attn.o_proj.weight").why == "trained in bf16, served quantized");
    CHECK(line(a, "model.layers.0.self_attn.o_proj.weight").scales > 0);
  }
  SECTION("another convention") {
    const Alike a = compare(served("te-4over6", checkpoint::Target::modelopt), masters, "nvfp4-plain");
    const std::string &why = line(a, "model.layers.0.self_attn.o_proj.weight").why;
    CAPTURE(why);
    CHECK(why.find("te-4over6") < why.find(", trained with te")); // beside others that give the same bytes
  }
  SECTION("another format, and numbers") {
    CHECK(line(compare(served("mxfp4", checkpoint::Target::compressed_tensors), masters, "nvfp4-plain"),
               "model.layers.0.mlp.up_proj.weight")
              .why == "trained in nvfp4, served in another format");
    CHECK(line(compare(masters, masters, "nvfp4-plain"), "model.layers.0.mlp.up_proj.weight").why ==
          "trained in nvfp4, served as numbers");
  }
  SECTION("other weights") {
    Json other = config;
    io::TensorFile tensors = tensors_of(config, 0.05f);
    write_folder(folder.path / "others", other, in_bf16(tensors));
    // numbers that BF16 does not hold: export does not round them first
    write_folder(folder.path / "wide", config, tensors_of(config));
    checkpoint::ExportOptions o;
    o.convention = "te";
    const std::string wide = (folder.path / "wide").string(), of_wide = (folder.path / "of_wide").string();
    (void)checkpoint::export_checkpoint(checkpoint::open_checkpoint(wide), of_wide, o);
    CHECK(line(compare(of_wide, wide, "nvfp4-plain"), "model.layers.0.self_attn.o_proj.weight").why ==
          "trained weights are rounded to bf16 first, served ones were not");
    const Alike a = compare(te, (folder.path / "others").string(), "nvfp4-plain", "*o_proj*");
    REQUIRE(a.lines.size() == 2);
    CHECK(a.differing == 2);
    CHECK(a.lines[0].served == "no known quantizer of these weights");
    CHECK_THROWS_AS(compare(te, masters, "nvfp4-plain", "*nothing*"), Error);
    std::erase_if(tensors.tensors,
                  [](const io::Tensor &t) { return t.name == "model.layers.1.mlp.up_proj.weight"; });
    write_folder(folder.path / "fewer", other, tensors);
    CHECK_THROWS_WITH(compare(te, (folder.path / "fewer").string(), "nvfp4-plain"),
                      "the trainer's weights have no tensor model.layers.1.mlp.up_proj.weight");
  }
}

TEST_CASE("an export by a recipe has the recipe's bytes", "[pretrained][alike]") {
  const TemporaryFolder folder;
  const Json config = config_of("LlamaForCausalLM", {.hidden = 64, .layers = 6, .intermediate = 96});
  write_folder(folder.path / "masters", config, tensors_of(config)); // numbers that BF16 does not hold
  const std::string masters = (folder.path / "masters").string();
  int count = 0;
  const auto write = [&](checkpoint::Target target, const Recipe &recipe) {
    const checkpoint::Checkpoint source = checkpoint::open_checkpoint(masters);
    checkpoint::ExportOptions o;
    o.target = target;
    o.quantizers = pretrained::recipe_quantizers(source, recipe);
    const std::string to = (folder.path / std::to_string(count++)).string();
    (void)checkpoint::export_checkpoint(source, to, o);
    return to;
  };
  using enum checkpoint::Target;
  for (const char *recipe : {"nvfp4-plain", "nvfp4"})
    for (const checkpoint::Target target : {modelopt, compressed_tensors}) {
      const std::string served = write(target, load_recipe(recipe));
      const Alike a = compare(served, masters, recipe);
      INFO(recipe << pretrained::to_text(a));
      CHECK(a.lines.size() == 43);
      // a divisor that is not the convention's own word is all that may differ
      CHECK(a.differing == 0);
      for (const auto &l : a.lines) CHECK(l.codes + l.scales == 0);
    }
  CHECK(compare(write(compressed_tensors, load_recipe("mxfp4-sr-rht")), masters, "mxfp4-sr-rht").differing == 0);

  const auto of = [](const Json &one, const Json &other) {
    const Json bf16 = {{"a", "bf16"}, {"b", "bf16"}};
    const auto linear = [&](const Json &operand) {
      return Json{{"fprop", {{"a", operand}, {"b", operand}}}, {"dgrad", bf16}, {"wgrad", bf16}};
    };
    return parse_recipe(Json{{"name", "made"},
                             {"linears", {{"one", linear(one)}, {"other", linear(other)}}},
                             {"default", "one"},
                             {"rules", {{{"roles", {"mlp.down_proj"}}, {"use", "other"}}}}}
                            .dump(),
                        "made");
  };
  CHECK_THROWS_WITH(write(modelopt, of({{"format", "nvfp4"}, {"hadamard", true}}, "nvfp4")),
                    Catch::Contains("a server would not rotate its inputs"));
  CHECK_THROWS_WITH(write(compressed_tensors, of("nvfp4", "mxfp4")), Catch::Contains("one format for all"));
  CHECK_THROWS_WITH(write(modelopt, of("mxfp4", "mxfp4")), Catch::Contains("does not hold"));
  CHECK_THROWS_WITH(write(modelopt, load_recipe("hcp")), Catch::Contains("no container holds"));
  CHECK_THROWS_WITH(write(modelopt, load_recipe("bf16")), Catch::Contains("quantizes no weight"));
}
