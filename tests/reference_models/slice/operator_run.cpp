// SPDX-License-Identifier: Apache-2.0
// Operators that ran under a recipe of ours, from a file: repeated word by word, and what a file must have.
#include "nvfp4/reference_models/slice/replay.hpp"
#include "tests/catch.hpp"

namespace nvfp4::test {
namespace {

using namespace nvfp4::models;

constexpr int64_t kRows = 20, kIn = 48, kOut = 32;

std::vector<float> ramp(int64_t n, float scale) {
  std::vector<float> x;
  for (int64_t i = 0; i < n; ++i)
    x.push_back(scale * float((i * 37) % 101 - 50) * (i % 48 == 5 ? 90.0f : 1.0f));
  return x;
}

/// A file of one layer with HCP and a bias, as nvfp4.torch writes it.
io::TensorFile file() {
  const Recipe recipe = load_recipe("hcp").for_family("gla");
  const std::vector<float> x = ramp(kRows * kIn, 0.1f), w = ramp(kOut * kIn, 0.01f), b = ramp(kOut, 1.0f),
                           dy = ramp(kRows * kOut, 1e-3f);
  auto device = std::make_shared<LayerDevice>();
  device->backend = make_cpu_backend(1);
  device->engine = make_cpu_operand_engine(1);
  LinearLayer layer(device, {"mlp.up_proj", 1, 8, 29, kIn, kOut}, recipe);
  const StepContext step{.seed = 3, .step = 50, .micro_batch = 0};
  const std::vector<int32_t> hot =
      layer.select(Product::fprop, layer.scores(Product::fprop, step, x.data(), kRows, w.data()));
  std::vector<float> y(size_t(kRows * kOut)), dx(x.size()), dw(w.size()), db(b.size());
  layer.forward(step, {x.data(), kRows, w.data(), b.data(), hot}, y.data());
  layer.backward(step, {x.data(), kRows, w.data(), nullptr, {}}, dy.data(),
                 {dx.data(), dw.data(), db.data()});
  const std::string path = "model.layers.1.mlp.up_proj";
  io::TensorFile f;
  f.metadata = {
      {"format", "nvfp4-operators"},
      {"version", "1"},
      {"recipe", to_json(load_recipe("hcp"))},
      {"family", "gla"},
      {"layers", "8"},
      {"operators", R"({")" + path + R"(": {"role": "mlp.up_proj", "layer": 1, "layers": 8, "id": 29,
                  "seed": 3, "step": 50, "micro_batch": 0}})"}};
  f.tensors = {io::Tensor::from("input/" + path, {2, kRows / 2, kIn}, x),
               io::Tensor::from("weight/" + path, {kOut, kIn}, w),
               io::Tensor::from("bias/" + path, {kOut}, b),
               io::Tensor::from("output_grad/" + path, {2, kRows / 2, kOut}, dy),
               io::Tensor::from("output/" + path, {2, kRows / 2, kOut}, y),
               io::Tensor::from("input_grad/" + path, {2, kRows / 2, kIn}, dx),
               io::Tensor::from("weight_grad/" + path, {kOut, kIn}, dw),
               io::Tensor::from("bias_grad/" + path, {kOut}, db),
               io::Tensor::from("hot_channels/" + path, {int64_t(hot.size())}, hot)};
  return f;
}

std::string refusal(const std::function<void(io::TensorFile &)> &change) {
  io::TensorFile f = file();
  change(f);
  try {
    (void)replay_identically(parse_operator_runs(f, "f"), {});
  } catch (const Error &e) {
    return e.what();
  }
  return "not refused";
}

} // namespace

TEST_CASE("operators that ran under a recipe have their words again", "[slice]") {
  const io::TensorFile whole = file();
  CHECK(has_operator_runs(whole));
  const OperatorRuns runs = parse_operator_runs(whole, "f");
  REQUIRE(runs.runs.size() == 1);
  CHECK(runs.runs[0].place.id == 29);
  CHECK(runs.runs[0].channels.size() == 16);
  for (const int threads : {1, 3}) {
    const Identity same = replay_identically(runs, {.threads = threads});
    CHECK(same.mismatches.empty());
    CHECK(same.tensors == 4);
    CHECK(same.values == kRows * kOut + kRows * kIn + kOut * kIn + kOut);
  }
  // each result, and what it depends on
  for (const size_t at : {4u, 5u, 6u, 7u}) {
    io::TensorFile other = whole;
    other.tensors[at].data.back() ^= std::byte{1};
    const Identity changed = replay_identically(parse_operator_runs(other, "f"), {});
    REQUIRE(changed.mismatches.size() == 1);
    CHECK(changed.mismatches[0].name == whole.tensors[at].name);
    CHECK(changed.mismatches[0].differing == 1);
  }
  const auto differing = [&](const std::string &from, const std::string &to) {
    io::TensorFile other = whole;
    std::string &text = other.metadata["operators"];
    text.replace(text.find(from), from.size(), to);
    std::vector<std::string> names;
    for (const Mismatch &m : replay_identically(parse_operator_runs(other, "f"), {}).mismatches)
      names.push_back(m.name.substr(0, m.name.find('/')));
    return names;
  };
  const std::vector<std::string> stochastic = {"input_grad", "weight_grad"};
  CHECK(differing("\"id\": 29", "\"id\": 30") == stochastic);
  CHECK(differing("\"step\": 50", "\"step\": 51") == stochastic);
  CHECK(differing("\"micro_batch\": 0", "\"micro_batch\": 1") == stochastic);
  CHECK(differing("\"seed\": 3", "\"seed\": 4") == stochastic);
  io::TensorFile unpatched = whole;
  unpatched.tensors.pop_back();
  CHECK(replay_identically(parse_operator_runs(unpatched, "f"), {}).mismatches.size() == 1);
  CHECK(operators_of_runs(whole, "f").operators.size() == 1);
}

TEST_CASE("files of operators that do not fit are refused", "[slice]") {
  const auto says = [](const std::string &text) { return Catch::Contains(text); };
  CHECK_THAT(refusal([](io::TensorFile &f) { f.metadata["version"] = "2"; }), says("and version 1, got"));
  CHECK_THAT(refusal([](io::TensorFile &f) {
               std::string &places = f.metadata["operators"];
               places.replace(places.find("\"layer\": 1"), 10, "\"layer\": 7"); // in BF16, without a patch
             }),
             says("model.layers.1.mlp.up_proj: hot channels do not fit"));
  CHECK_THAT(refusal([](io::TensorFile &f) { f.metadata.erase("operators"); }), says("\"operators\""));
  CHECK_THAT(refusal([](io::TensorFile &f) { f.metadata["operators"] = "{}"; }),
             says("model.layers.1.mlp.up_proj"));
  CHECK_THAT(refusal([](io::TensorFile &f) { f.metadata["recipe"] = "{}"; }), says("metadata \"recipe\""));
  CHECK_THAT(refusal([](io::TensorFile &f) { f.metadata["family"] = "bert"; }), says("unknown model family"));
  CHECK_THAT(refusal([](io::TensorFile &f) { f.tensors[4].name += "x"; }), says("expected 'output/"));
  CHECK_THAT(refusal([](io::TensorFile &f) { f.tensors[8].name += "x"; }),
             says("is of no operator of the file"));
  CHECK_THAT(refusal([](io::TensorFile &f) { f.tensors.erase(f.tensors.begin() + 3); }),
             says("expected 'output_grad/"));
  CHECK_THAT(refusal([](io::TensorFile &f) { f.tensors.erase(f.tensors.begin()); }),
             says("expected tensor 'input/"));
  CHECK_THAT(refusal([](io::TensorFile &f) {
               f.tensors[6].shape = {kOut};
               f.tensors[6].data.resize(4 * kOut);
             }),
             says("expected 1536 values, as its layer makes, got shape [32]"));
  CHECK_THAT(refusal([](io::TensorFile &f) { f.tensors[8].dtype = io::DType::f32; }), says("hot_channels/"));
  CHECK_THAT(refusal([](io::TensorFile &f) { f.tensors[8].data[3] = std::byte{1}; }),
             says("hot channels do not fit"));
}

} // namespace nvfp4::test
