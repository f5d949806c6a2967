// SPDX-License-Identifier: Apache-2.0
// Slices and requests that are refused, each with one line that says what was expected.
#include "tests/reference_models/slice/support.hpp"

#include <nlohmann/json.hpp>

#include <functional>

namespace nvfp4::test {
namespace {

using Json = nlohmann::json;

/// The refusal of a file after a change; replayed if it can be read.
std::string refused(const io::TensorFile &good, const std::function<void(io::TensorFile &)> &change) {
  io::TensorFile file = good;
  change(file);
  return refusal([&] { (void)replay_identically(parse_slice(std::move(file), "f"), {"cpu", 1}); });
}

void set(io::TensorFile &file, const char *object, const char *key, const Json &value) {
  Json j = Json::parse(file.metadata.at(object));
  if (value.is_discarded())
    j.erase(key);
  else
    j[key] = value;
  file.metadata[object] = j.dump();
}

io::Tensor &named(io::TensorFile &file, const std::string &name) {
  for (io::Tensor &t : file.tensors)
    if (t.name == name) return t;
  throw Error("no " + name);
}

} // namespace

TEST_CASE("malformed slices are refused", "[slice]") {
  const SliceFolder folder;
  RecordRequest r = small_request(folder, "gla", "chon");
  r.taps = {"layers.0.attn.o_proj.input"};
  record_slice(r);
  const io::TensorFile good = io::read_tensors(r.output);
  REQUIRE(refused(good, [](io::TensorFile &) {}) == "accepted");
  const auto check = [&](const std::string &expected, const std::function<void(io::TensorFile &)> &change) {
    const std::string message = refused(good, change);
    CAPTURE(expected);
    CHECK_THAT(message, Catch::StartsWith("f: ") && Catch::Contains(expected));
  };
  using File = io::TensorFile;
  check("got version '2'", [](File &f) { f.metadata["version"] = "2"; });
  check("expected a training slice, got a file of format 'nvfp4-checkpoint'",
        [](File &f) { f.metadata["format"] = "nvfp4-checkpoint"; });
  check("\"step_options\": expected a JSON object", [](File &f) { f.metadata.erase("step_options"); });
  check("\"result\": expected JSON, which breaks off", [](File &f) { f.metadata["result"] = "[1"; });
  check("\"result\": expected a JSON object", [](File &f) { f.metadata["result"] = "[1]"; });
  check("\"result\": expected JSON of at most 64 objects",
        [](File &f) { f.metadata["result"] = std::string(80'000, '['); });
  check("expected the key \"seed\"",
        [](File &f) { set(f, "step_options", "seed", Json(Json::value_t::discarded)); });
  check("batch: expected a whole number of at least 1, got 0",
        [](File &f) { set(f, "step_options", "batch", 0); });
  check("sequence: expected a whole number", [](File &f) { set(f, "step_options", "sequence", 1e300); });
  check("beta1: expected a number from", [](File &f) { set(f, "step_options", "beta1", "0.9"); });
  check("learning_rate_hex: expected 8 hexadecimal digits",
        [](File &f) { set(f, "step_options", "learning_rate_hex", "3a83"); });
  check("learning_rate_hex: expected a finite number",
        [](File &f) { set(f, "step_options", "learning_rate_hex", "7fc00000"); });
  check("digest: expected 16 hexadecimal digits", [](File &f) { set(f, "result", "digest", "XYZ"); });
  check("tokens': expected shape [1, 2, 65]", [](File &f) { set(f, "step_options", "sequence", 64); });
  check("expected the state before step 4, got that of step 1",
        [](File &f) { set(f, "step_options", "step", 4); });
  check("metadata \"recipe\": expected a recipe, got none", [](File &f) { f.metadata["recipe"] = ""; });
  check("recipe: expected JSON", [](File &f) { f.metadata["recipe"] = "{"; });
  check("expected tensor 'tokens'",
        [](File &f) { std::erase_if(f.tensors, [](const io::Tensor &t) { return t.name == "tokens"; }); });
  check("expected tensor 'optimizer.v.model.norm.weight'", [](File &f) {
    std::erase_if(f.tensors, [](const io::Tensor &t) { return t.name == "optimizer.v.model.norm.weight"; });
  });
  check("expected shape [128] of this model", [](File &f) { named(f, "model.norm.weight").shape = {64, 2}; });
  check("is not a parameter of this model",
        [](File &f) { f.tensors.push_back(io::Tensor::from("model.extra", {1}, std::vector<float>{1})); });
  check("has no optimizer state", [](File &f) { f.metadata["optimizer"] = "none"; });
  check("unknown tap 'attn.o_proj.inputs'; expected ROLE.input, ROLE.output, ROLE.output_grad or "
        "ROLE.input_grad, with "
        "layers.0. to layers.3.",
        [](File &f) { named(f, "tap/layers.0.attn.o_proj.input").name = "tap/attn.o_proj.inputs"; });
  check("expected shape [2, 32, 128] of this model", [](File &f) {
    named(f, "tap/layers.0.attn.o_proj.input").shape = {64, 128};
  });
  check("the model has no parameter of that name",
        [](File &f) { named(f, "tap/layers.0.attn.o_proj.input").name = "grad/model.none"; });
  check("expected F32", [](File &f) { named(f, "tap/layers.0.attn.o_proj.input").dtype = io::DType::i32; });
  CHECK_THAT(refused(good, [](File &f) { named(f, "tokens").data[1] = std::byte{1}; }),
             Catch::Contains("expected 0 to 255"));
  CHECK_THAT(refused(good, [](File &f) { named(f, "hcp.0.attn.q_proj.indices").data[3] = std::byte{0x80}; }),
             Catch::Contains("hot channels of 0.attn.q_proj"));
}

TEST_CASE("impossible recordings are refused and write nothing", "[slice]") {
  const SliceFolder folder;
  const RecordRequest good = small_request(folder, "qwen3", "nvfp4");
  const auto check = [&](const std::string &expected, const std::function<void(RecordRequest &)> &change) {
    RecordRequest r = good;
    change(r);
    CAPTURE(expected);
    CHECK_THAT(refusal([&] { (void)record_slice(r); }), Catch::Contains(expected));
    CHECK_FALSE(std::filesystem::exists(good.output));
  };
  for (const char *tap : {"attn.o_proj", "attn.o_proj.", ".input", "input", "layers.4.attn.o_proj.input",
                          "layers.x.attn.o_proj.input", "layers.0.lm_head.input", "attn.gk_proj.0.input",
                          "layers..attn.o_proj.input", "layers.-1.attn.o_proj.input"})
    check(std::string("unknown tap '") + tap + "'", [&](RecordRequest &r) { r.taps = {tap}; });
  check("ROLE is one of attn.q_proj, attn.k_proj, attn.v_proj, attn.o_proj, mlp.gate_proj, mlp.up_proj, "
        "mlp.down_proj, lm_head",
        [](RecordRequest &r) { r.taps = {"nothing"}; });
  check("after the checkpoint's, at least 1, got 0", [](RecordRequest &r) { r.step = 0; });
  check("--data FILE", [](RecordRequest &r) { r.options.data = ""; });
  check("--batch", [](RecordRequest &r) { r.options.batch = 0; });
  check("unknown recipe", [](RecordRequest &r) { r.recipe = "none"; });
  check("--device", [](RecordRequest &r) { r.options.device = "abacus"; });
  check("cannot", [](RecordRequest &r) { r.output = "/nonexistent/s.safetensors"; });
  check("none.safetensors", [](RecordRequest &r) { r.checkpoint = "none.safetensors"; });
}

TEST_CASE("taps are named with or without their layer", "[slice]") {
  const ModelConfig c = preset(find_family("gla"), "tiny");
  const auto names = [&](const std::vector<std::string> &wanted) {
    std::string out;
    for (const Tap &t : parse_taps(wanted, c)) out += t.name(c) + " ";
    return out;
  };
  CHECK(names({"mlp.up_proj.output"}) == "layers.0.mlp.up_proj.output layers.1.mlp.up_proj.output "
                                         "layers.2.mlp.up_proj.output layers.3.mlp.up_proj.output ");
  CHECK(names({"lm_head.output", "model.layers.1.attn.gk_proj.0.input", "layers.1.attn.gk_proj.0.input"}) ==
        "layers.1.attn.gk_proj.0.input lm_head.output ");
  CHECK(names({"layers.0.mlp.up_proj.output_grad", "layers.2.mlp.up_proj.output_grad",
               "layers.3.attn.q_proj.output"}) ==
        "layers.3.attn.q_proj.output layers.2.mlp.up_proj.output_grad layers.0.mlp.up_proj.output_grad ");
  CHECK(names({"layers.1.mlp.up_proj.input_grad", "layers.2.mlp.up_proj.input_grad",
               "layers.2.mlp.up_proj.output_grad"}) ==
        "layers.2.mlp.up_proj.output_grad layers.2.mlp.up_proj.input_grad layers.1.mlp.up_proj.input_grad ");
  CHECK(names({"layers.2.self_attn.q_proj.input"}) == "layers.2.attn.q_proj.input ");
  CHECK(names({}).empty());
  const ModelConfig softmax = preset(find_family("llama"), "tiny");
  CHECK(parse_taps(std::vector<std::string>{"attn.pv.weight_grad"}, softmax).size() == 4);
  for (const char *wrong : {"attn.v_proj.weight", "attn.qk.scores", "attn.qkv.input"})
    CHECK(refusal([&] {
            (void)parse_taps(std::vector<std::string>{wrong}, softmax);
          }).ends_with("which have .weight and .weight_grad too: attn.qk, attn.pv"));
  CHECK(refusal([&] {
          (void)parse_taps(std::vector<std::string>{"attn.pv.input"}, c);
        }).ends_with("attn.qk, attn.av, attn.state_read, attn.state_update"));
  CHECK(part_suffix({3, 1}) == ".chunk3.sub1");
  for (const char *part : {"", ".chunk3", ".chunk12.sub1"})
    CHECK(without_part(std::string("layers.1.attn.qk.input") + part) == "layers.1.attn.qk.input");
  CHECK(without_part("attn.qk.chunk.sub1") == "attn.qk.chunk");
}

} // namespace nvfp4::test
