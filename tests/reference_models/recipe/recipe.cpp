// SPDX-License-Identifier: Apache-2.0
// Recipes: round trips through JSON, what is refused, and which layer takes what.
#include "nvfp4/reference_models/recipe/recipe.hpp"
#include "nvfp4/golden/io/sha256.hpp"
#include "nvfp4/reference_models/family/family.hpp"
#include "tests/catch.hpp"

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>

namespace nvfp4::test {
namespace {

using namespace nvfp4::models;

std::string replaced(std::string text, const std::string &what, const std::string &with) {
  const size_t at = text.find(what);
  REQUIRE(at != std::string::npos);
  return text.replace(at, what.size(), with);
}

std::string error_of(const std::string &json) {
  try {
    (void)parse_recipe(json, "r.json");
  } catch (const Error &e) {
    const std::string what = e.what();
    CHECK(what.find('\n') == std::string::npos);
    return what;
  }
  return "accepted";
}

/// Formats of fprop by role: 'b' bf16, 'n' nvfp4, 'f' f32, 'm' mxfp4, 'x' mxfp8; upper case with the patch.
std::string table(const std::string &name, const std::string &family, int64_t layer, int64_t layers) {
  const Recipe r = load_recipe(name).for_family(family);
  std::string out;
  for (const std::string_view role : linear_roles(find_family(family))) {
    const LinearRecipe l = r.resolve(std::string(role), role == "lm_head" ? layers : layer, layers);
    const char letter = "fbnmx"[size_t(l.fprop.a.format)];
    out += char(l.hcp.enabled ? letter - 'a' + 'A' : letter);
    CHECK(l.fprop.a.format == l.wgrad.b.format); // protection covers all three products
    CHECK(l.fprop.a.format == l.dgrad.b.format);
  }
  return out;
}

} // namespace

TEST_CASE("every built-in recipe survives a round trip", "[recipe]") {
  CHECK(builtin_recipes().size() == 9);
  for (const std::string_view name : builtin_recipes()) {
    CAPTURE(name);
    const Recipe r = load_recipe(std::string(name));
    CHECK(r.name == name);
    CHECK_FALSE(r.description.empty());
    const std::string json = to_json(r);
    const Recipe again = parse_recipe(json, "again");
    CHECK(again == r);
    CHECK(to_json(again) == json);
  }
}

TEST_CASE("the text of the built-in recipes is that of stored runs and slices", "[recipe]") {
  io::Sha256 digest;
  for (const std::string_view name : builtin_recipes()) {
    const std::string json = to_json(load_recipe(std::string(name)));
    digest.add(std::as_bytes(std::span(json)));
  }
  CHECK(digest.hex() == "4ceaf773fb5c32d867975a7efb02a4117b07b5053c8b29f2191434d90741cbf4");
}

TEST_CASE("recipes written before a field came are those with its default", "[recipe]") {
  const Recipe r = load_recipe("chon");
  CHECK(to_json(parse_recipe(replaced(to_json(r), "\"mixers\": \"f32\",", ""), "old")) == to_json(r));
}

TEST_CASE("fields that are not the default survive a round trip", "[recipe]") {
  Recipe r = load_recipe("chon");
  r.source = FormatId::f32;
  r.accumulation = Accumulation::nadpe;
  r.units["nvfp4"] = "sm_120:mma.m16n8k64.f32.mxf4nvf4.ue4m3.block16";
  LinearRecipe &l = r.linears["nvfp4"];
  l.hcp = {.enabled = true,
           .k = 64,
           .period = 7,
           .start = 3,
           .kernel = HcpRecipe::Kernel::dual,
           .side = HcpRecipe::Side::weight,
           .residual = HcpRecipe::Residual::bf16,
           .choice = HcpRecipe::Choice::blocks,
           .reblock = HcpRecipe::Reblock::whole_blocks,
           .dgrad = true};
  l.fprop.unit = "sm_100:tcgen05.k64.f32.mxf4nvf4.ue4m3.block16";
  l.dgrad.a.rounding = ElementRounding::sr_exact;
  l.wgrad.output = FormatId::bf16;
  r.linears["plain"] = load_recipe("nvfp4-plain").linears.at("nvfp4");
  r.mixer_rules.push_back({.roles = {"attn.qk"}, .families = {"qwen3"}, .last = 0.5, .use = "bf16"});
  r.mixer_rules.push_back({.roles = {"attn.*"}, .first = 1, .use = "plain"});
  r.rules.push_back({.roles = {"mlp.*"}, .families = {"gla"}, .first = 2, .last = 0.25, .use = "bf16"});
  CHECK(parse_recipe(to_json(r), "again") == r);
}

TEST_CASE("recipes are read from files", "[recipe]") {
  const std::string path = "./recipe_test.tmp.json";
  std::ofstream(path) << to_json(load_recipe("hcp"));
  CHECK(load_recipe(path) == load_recipe("hcp"));
  const std::string folder = "./recipe_test+mixers=x.tmp", inside = folder + "/r.json";
  std::filesystem::create_directory(folder);
  std::filesystem::copy_file(path, inside, std::filesystem::copy_options::overwrite_existing);
  CHECK(load_recipe(inside) == load_recipe("hcp"));
  CHECK(load_recipe(inside + "+mixers=bf16") == load_recipe("hcp+mixers=bf16"));
  std::filesystem::remove_all(folder);
  CHECK_THROWS_WITH(load_recipe("hcp+mixers=f16"), Catch::Contains("expected +mixers=bf16 or +mixers=f32"));
  std::remove(path.c_str());
  CHECK_THROWS_WITH(load_recipe(path), Catch::Contains(path));
  CHECK_THROWS_WITH(load_recipe("hpc"), Catch::Contains("unknown recipe 'hpc'") && Catch::Contains("chon"));
}

TEST_CASE("what has no meaning is refused with key and place", "[recipe]") {
  const std::string good = to_json(load_recipe("hcp"));
  CHECK(error_of(good) == "accepted");
  const auto refuses = [&](const std::string &what, const std::string &with, const std::string &expected) {
    CAPTURE(what, with);
    CHECK_THAT(error_of(replaced(good, what, with)), Catch::Contains(expected));
  };
  refuses("\"period\"", "\"perod\"", "r.json.linears.nvfp4.hcp: unknown key 'perod'");
  refuses("\"source\"", "\"sauce\"", "r.json: unknown key 'sauce'");
  refuses("\"block_rows\": 16", "\"block_rows\": 8",
          "linears.nvfp4.fprop.b: expected block_rows 1 or 16, got 8");
  refuses("\"convention\": \"te\"", "\"convention\": \"tee\"", "unknown quantization convention 'tee'");
  refuses("\"convention\": \"te\"", "\"convention\": \"mxfp4\"", "does not give nvfp4");
  refuses("\"convention\": \"te\"", "\"convention\": \"row-scaled\"", "scale per row");
  refuses("\"rounding\": \"sr-carry8\"", "\"rounding\": \"sr\"", "a: 'rounding' takes one of rne, sr-carry8");
  refuses("\"hadamard\": true", "\"hadamard\": false", "wgrad: both operands are rotated or none");
  refuses("\"fraction\": 0.0625", "\"fraction\": 2", "hcp: 'fraction' takes a number from 0 to 1, got 2");
  refuses("\"fraction\": 0.0625", "\"fraction\": 0.0625, \"k\": 16", "not both");
  refuses("\"fraction\": 0.0625", "\"k\": 24", "k is a multiple of 16");
  refuses("\"residual\": \"nvfp4\"", "\"residual\": \"bf16\"", "need kernel 'dual'");
  refuses("\"reblock\": \"requantize\"", "\"reblock\": \"whole-blocks\"", "needs choice 'blocks'");
  refuses("\"period\": 50", "\"period\": 0", "at least 1");
  refuses("\"period\": 50", "\"period\": 1.5", "whole number");
  refuses("sm_90:wgmma.k16.f32.bf16", "sm_90:wgmma.k16.f32.bf61", "unknown unit");
  refuses("sm_90:wgmma.k16.f32.bf16", "sm_90:wgmma.k16.f32.f16", "does not take these operands");
  refuses("\"default\": \"nvfp4\"", "\"default\": \"fp4\"", "'fp4' is not among its linears");
  refuses("\"use\": \"head\"", "\"use\": \"tail\"", "rules[1].use: 'tail'");
  refuses("\"lm_head\"", "\"lm_haed\"", "matches no linear layer");
  refuses("\"last\": 0.15", "\"last\": 1.5", "number of blocks");
  refuses("\"last\": 0.15", "\"last\": 0.15, \"families\": [\"glaa\"]", "unknown family 'glaa'");
  const auto rule = [](const std::string &fields) {
    return "\"mixer_rules\": [{" + fields + "}], \"rules\"";
  };
  refuses("\"rules\"", rule(R"("roles": ["attn.q_proj"], "use": "bf16")"),
          "r.json.mixer_rules[0].roles: 'attn.q_proj' matches no operator inside a mixer (attn.qk, attn.pv, "
          "attn.av, ...)");
  refuses("\"rules\"", rule(R"("roles": ["*"], "use": "nvfp4")"),
          "r.json.mixer_rules[0].use: 'nvfp4' has the Hot-Channel Patch, which is for linear layers");
  refuses("\"rules\"", rule(R"("roles": ["*"], "use": "fp5")"), "mixer_rules[0].use: 'fp5' is not among");
  refuses("\"rules\"", rule(R"("roles": ["*"])"), "mixer_rules[0]");
  refuses("\"rules\"", R"("mixer_rules": {}, "rules")", "mixer_rules: expected a list");
  refuses("\"lm_head\"", "\"attn.qk\"", "matches no linear layer");
  refuses("\"name\": \"hcp\",", "\"name\": \"hcp\", \"name\": \"x\",", "stands twice");
  refuses("\"output\": \"bf16\"", "\"output\": \"f16\"", "fprop: 'output' takes one of bf16, f32");
  CHECK_THAT(error_of(good.substr(0, good.size() / 2)), Catch::Contains("r.json: expected JSON"));
  CHECK_THAT(error_of("[]"), Catch::Contains("expected an object"));
  CHECK_THAT(error_of(R"({"name": "x", "linears": {}, "default": "y"})"),
             Catch::Contains("at least one linear"));
  CHECK_THAT(error_of(R"({"name": "x", "linears": {"l": {"fprop": {"a": "bf16", "b": "nvfp4"},
                          "dgrad": {"a": "bf16", "b": "bf16"}, "wgrad": {"a": "bf16", "b": "bf16"}}}, "default": "l"})"),
             Catch::Contains("l.fprop: expected operands of one format"));
}

TEST_CASE("which layer takes what", "[recipe]") {
  // the family's layers of the mixer, gate up down where it has an MLP, lm_head; block 0 of 4 and the last
  // one
  for (const ModelFamily *f : families()) {
    const std::string family(f->name);
    CAPTURE(family);
    const size_t blocks = linear_roles(*f).size() - 1;
    const auto all = [&](char block, char head) { return std::string(blocks, block) + head; };
    CHECK(table("fp32", family, 0, 4) == all('f', 'f'));
    CHECK(table("bf16", family, 0, 4) == all('b', 'b'));
    CHECK(table("nvfp4-plain", family, 3, 4) == all('n', 'b'));
    CHECK(table("nvfp4", family, 0, 4) == all('n', 'b'));
    CHECK(table("hcp", family, 2, 4) == all('N', 'b'));
    CHECK(table("mxfp4-sr-rht", family, 0, 4) == all('m', 'b'));
    CHECK(table("mxfp8", family, 3, 4) == all('x', 'b'));
    for (const char *recipe : {"nvfp4", "hcp", "post-qk", "chon", "mxfp4-sr-rht"})
      CHECK(table(recipe, family, 3, 4) == all('b', 'b'));
  }
  // Nemotron 3's choice: projections of attention, Mamba-2's output, the last blocks
  CHECK(table("nvfp4-nemotron3", "qwen3", 1, 4) == "bbbbnnnb");
  CHECK(table("nvfp4-nemotron3", "llama", 1, 4) == "bbbbnnnb");
  CHECK(table("nvfp4-nemotron3", "mamba2", 1, 4) == "nbb");
  CHECK(table("nvfp4-nemotron3", "gla", 1, 4) == "nnnnnnnnnnb");
  CHECK(table("nvfp4-nemotron3", "gla", 3, 4) == "bbbbbbbbbbb");
  CHECK(table("post-qk", "gla", 0, 4) == "nnnnbbbnnnb"); // q k v g gk.0 gk.1 o, gate up down, lm_head
  CHECK(table("chon", "gla", 0, 4) == "NNNNbbbNNNb");
  CHECK(table("chon", "qwen3", 1, 4) == "NNbNNNNb"); // q k v o
  CHECK(table("chon", "qwen2.5", 1, 4) == "NNbNNNNb");
  CHECK(table("chon", "llama", 1, 4) == "NNbNNNNb");  // by the rules for qwen2.5
  CHECK(table("chon", "gdn", 2, 4) == "NNNbbNbNNNb"); // q k v a b g o
  CHECK(table("chon", "gsa", 2, 4) == "NNNbbNNNb");   // q k v f o, by the rule for GLA
  CHECK(table("chon", "mamba2", 2, 8) == "Nbb");      // in_proj out_proj, and no MLP
}

TEST_CASE("a recipe names what gates read and what all products inside mixers use", "[recipe]") {
  const Recipe plain = load_recipe("nvfp4"), both = load_recipe("nvfp4+mixer_rules=nvfp4+gate_inputs=mxfp8");
  CHECK(to_json(plain).find("gate_inputs") == std::string::npos);
  CHECK(both.gate_inputs.convention == "mxfp8-e4m3");
  CHECK(both.mixer_rules == std::vector<RecipeRule>{{.use = "nvfp4"}});
  CHECK(both.kv_cache.format == OperandFormat::f32);
  CHECK(parse_recipe(to_json(both), "again") == both);
  const Recipe other = load_recipe("nvfp4+gate_inputs=fp8+mixer_rules=bf16").for_family("gsa");
  CHECK(other.resolve("attn.slot_scores", 0, 4).fprop.a.format == OperandFormat::bf16);
  CHECK(other.gate_inputs == OperandRecipe{.format = OperandFormat::fp8});
  CHECK_THROWS_WITH(load_recipe("nvfp4+mixer_rules=nvfp5"),
                    Catch::Contains("expected +mixer_rules= and the name of one of its linears"));
  CHECK_THROWS_WITH(load_recipe("hcp+mixer_rules=" + load_recipe("hcp").default_linear),
                    Catch::Contains("Hot-Channel Patch"));
  const auto with = [&](const std::string &fields) {
    return parse_recipe(replaced(to_json(plain), "\"rules\"", fields + ", \"rules\""), "r");
  };
  CHECK(with(R"("gate_inputs": {"format": "nvfp4", "convention": "row-scaled"})").gate_inputs.convention ==
        "row-scaled");
  CHECK_THROWS_WITH(with(R"("gate_inputs": {"format": "nvfp4", "rounding": "sr-te"})"),
                    Catch::Contains("r.gate_inputs: what is stored is rounded to nearest"));
  Recipe product = plain;
  product.linears.at("nvfp4").fprop.a = {.format = OperandFormat::fp8};
  CHECK_THROWS_WITH(check_recipe(product, "r"),
                    Catch::Contains("r.linears.nvfp4.fprop.a.format: fp8 has one scale a tensor"));
}

TEST_CASE("a recipe names the format of a KV cache", "[recipe]") {
  const Recipe plain = load_recipe("nvfp4"), cached = load_recipe("nvfp4+kv_cache=nvfp4");
  CHECK(plain.kv_cache.format == OperandFormat::f32);
  CHECK(to_json(plain).find("kv_cache") == std::string::npos); // younger than many a recipe on disk
  CHECK(cached.name == "nvfp4+kv_cache=nvfp4");
  CHECK(cached.kv_cache.convention == "te");
  CHECK(parse_recipe(to_json(cached), "again") == cached);
  CHECK(load_recipe("chon+mixers=bf16+kv_cache=mxfp8").kv_cache.convention == "mxfp8-e4m3");
  CHECK(load_recipe("chon+mixers=bf16+kv_cache=mxfp8").mixers == FormatId::bf16);
  CHECK(load_recipe("chon+kv_cache=bf16+mixers=bf16").kv_cache.format == OperandFormat::bf16);
  CHECK(load_recipe("chon+kv_cache=fp8").kv_cache == OperandRecipe{.format = OperandFormat::fp8});
  CHECK_THROWS_WITH(load_recipe("chon+kv_cache=fp4"),
                    Catch::Contains("+kv_cache= and one of f32, bf16, nvfp4, mxfp4, mxfp8, fp8, block-scaled or simulated"));
  const auto with = [&](const std::string &operand) {
    return parse_recipe(replaced(to_json(plain), "\"rules\"", "\"kv_cache\": " + operand + ", \"rules\""),
                        "r");
  };
  CHECK(with(R"({"format": "nvfp4", "convention": "row-scaled"})").kv_cache.convention == "row-scaled");
  for (const char *wrong :
       {R"({"format": "nvfp4", "block_rows": 16})", R"({"format": "nvfp4", "hadamard": true})",
        R"({"format": "nvfp4", "rounding": "sr-te"})"})
    CHECK_THROWS_WITH(with(wrong), Catch::Contains("r.kv_cache: what is stored is rounded to nearest"));
  CHECK_THROWS_WITH(with(R"({"format": "mxfp4", "convention": "te"})"),
                    Catch::Contains("r.kv_cache: convention 'te' does not give mxfp4"));
}

TEST_CASE("operators inside mixers take the last mixer rule, and no other", "[recipe]") {
  Recipe r = load_recipe("nvfp4");
  r.mixer_rules = {{.roles = {"attn.*"}, .families = {"qwen2.5"}, .use = "nvfp4"},
                   {.roles = {"attn.pv"}, .last = 0.25, .use = "bf16"}};
  check_recipe(r, "test");
  const auto format = [&](const char *family, const char *role, int64_t layer) {
    return r.for_family(family).resolve(role, layer, 4).dgrad.b.format;
  };
  CHECK(format("qwen2.5", "attn.pv", 0) == OperandFormat::nvfp4);
  CHECK(format("llama", "attn.qk", 3) == OperandFormat::nvfp4);
  CHECK(format("qwen2.5", "attn.pv", 3) == OperandFormat::bf16);
  CHECK(format("qwen3", "attn.pv", 3) == OperandFormat::bf16);
  CHECK(format("qwen3", "attn.qk", 3) == OperandFormat::f32);
  CHECK(r.for_family("qwen3").resolve("attn.qk", 0, 4).all_f32());
  CHECK_FALSE(r.for_family("qwen3").has_mixer_rule("attn.pv", 2, 4));
  CHECK(r.for_family("llama").has_mixer_rule("attn.qk", 2, 4));
  r.mixers = FormatId::bf16;
  CHECK(format("qwen3", "attn.qk", 3) == OperandFormat::bf16);
  CHECK(r.for_family("qwen3").resolve("attn.qk", 0, 4).fprop.output == FormatId::f32);
  CHECK_FALSE(r.for_family("qwen3").resolve("attn.qk", 0, 4).fprop.unit.empty());
}

TEST_CASE("first and last blocks by number and by fraction", "[recipe]") {
  const auto protected_blocks = [](double first, double last, int64_t layers) {
    Recipe r = load_recipe("nvfp4");
    r.rules = {{.first = first, .last = last, .use = "bf16"}};
    std::string out;
    for (int64_t layer = 0; layer <= layers; ++layer)
      out += r.resolve("mlp.up_proj", layer, layers).fprop.a.format == OperandFormat::bf16 ? 'b' : 'n';
    return out; // one more letter: the head's place, which such rules never reach
  };
  CHECK(protected_blocks(0, 0.15, 2) == "nbn");
  CHECK(protected_blocks(0, 0.15, 4) == "nnnbn");
  CHECK(protected_blocks(0, 0.15, 12) == "nnnnnnnnnnbbn"); // 1.8
  CHECK(protected_blocks(0, 0.15, 24) == "nnnnnnnnnnnnnnnnnnnnbbbbn");
  CHECK(protected_blocks(1, 2, 5) == "bnnbbn");
  CHECK(protected_blocks(0.5, 0, 4) == "bbnnn");
  CHECK(protected_blocks(9, 0, 3) == "bbbn");
}

TEST_CASE("blocks that options keep in BF16 leave rules alone that count from a later step", "[recipe]") {
  Recipe r = load_recipe("nvfp4");
  r.rules = {{.first = 1, .from = 5, .use = "bf16"}, {.last = 0.5, .use = "bf16"}};
  keep_in_bf16(r, -1, 1);
  REQUIRE(r.rules.size() == 2);
  CHECK(r.rules[0].from == 5);
  CHECK(r.rules[0].first == 1);
  CHECK(r.rules[1].last == 1);
  CHECK(r.changes());
  CHECK_FALSE(load_recipe("nvfp4").changes());
}

TEST_CASE("the head keeps FP32 outputs, weight gradients too", "[recipe]") {
  for (const char *name : {"bf16", "nvfp4", "chon", "mxfp8"}) {
    const Recipe r = load_recipe(name).for_family("gla");
    CHECK(r.resolve("lm_head", 4, 4).fprop.output == FormatId::f32);
    CHECK(r.resolve("mlp.up_proj", 0, 4).fprop.output == FormatId::bf16);
    CHECK(r.resolve("mlp.up_proj", 0, 4).wgrad.output == FormatId::f32);
  }
  CHECK_THROWS_WITH(load_recipe("chon").resolve("lm_head", 4, 4), Catch::Contains("for_family"));
  CHECK_THROWS_WITH(load_recipe("chon").for_family("mamba"), Catch::Contains("gla, qwen3"));
  CHECK(load_recipe("nvfp4").resolve("attn.v_proj", 0, 4).fprop.unit ==
        "sm_100:tcgen05.k64.f32.mxf4nvf4.ue4m3.block16");
}

TEST_CASE("the nvfp4 recipe is NVIDIA's", "[recipe]") {
  const LinearRecipe l = load_recipe("nvfp4").resolve("mlp.up_proj", 0, 4);
  CHECK((l.fprop.a.block_rows == 1 && l.fprop.a.rounding == ElementRounding::nearest && !l.fprop.a.hadamard));
  CHECK((l.fprop.b.block_rows == 16 && l.fprop.b == l.dgrad.b &&
         l.fprop.b.rounding == ElementRounding::nearest));
  CHECK(
      (l.dgrad.a.rounding == ElementRounding::sr_carry8 && !l.dgrad.a.hadamard && l.dgrad.a.block_rows == 1));
  CHECK((l.wgrad.a.rounding == ElementRounding::sr_carry8 && l.wgrad.a.hadamard));
  CHECK((l.wgrad.b.rounding == ElementRounding::nearest && l.wgrad.b.hadamard));
  CHECK(l.fprop.a.convention == "te");
  CHECK(l.source == FormatId::bf16);
}

TEST_CASE("how many channels the patch keeps", "[recipe]") {
  const HcpRecipe h{.enabled = true};
  CHECK(h.channels(128) == 16);
  CHECK(h.channels(384) == 32);
  CHECK(h.channels(2048) == 128);
  CHECK(h.channels(16) == 16);
  CHECK(h.channels(8) == 8);
  CHECK(HcpRecipe{}.channels(128) == 0);
  CHECK((HcpRecipe{.enabled = true, .k = 0}.channels(128)) == 0);
  CHECK((HcpRecipe{.enabled = true, .k = 64}.channels(48)) == 48);
}

} // namespace nvfp4::test
