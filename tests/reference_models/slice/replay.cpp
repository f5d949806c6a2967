// SPDX-License-Identifier: Apache-2.0
// A slice holds the trainer's own step, is repeated bit for bit on any number of threads, and shows where a
// bit differs.
#include "nvfp4/reference_models/family/mixer_operators.hpp"
#include "nvfp4/reference_models/linear/linear_layer.hpp"
#include "nvfp4/reference_models/linear/operator_products.hpp"
#include "nvfp4/reference_models/train/forward.hpp"
#include "tests/reference_models/slice/support.hpp"

#include <bit>
#include <fstream>

namespace nvfp4::test {
namespace {

io::Tensor &tensor(Slice &slice, std::string_view name) {
  for (io::Tensor &t : slice.result.tensors)
    if (t.name == name) return t;
  throw Error("the slice has no " + std::string(name));
}

} // namespace

TEST_CASE("a recorded step is the trainer's", "[slice]") {
  const SliceFolder folder;
  TrainOptions o;
  o.recipe = "chon";
  o.data = "task:copy,vocab=200";
  o.out = folder.file("run");
  o.steps = 5;
  o.batch = 2;
  o.sequence = 32;
  o.accumulation = 2;
  o.seed = 9;
  o.checkpoint_every = 2;
  o.diagnostics_every = 0;
  o.eval_batches = 1;
  o.threads = 1;
  std::vector<StepReport> reports;
  const TrainResult result = train(o, [&](const StepReport &r) {
    reports.push_back(r);
    if (r.step == 2)
      std::filesystem::copy(o.out, folder.file("half"), std::filesystem::copy_options::recursive);
  });
  RecordRequest r;
  r.checkpoint = folder.file("half") + "/checkpoint.safetensors";
  r.output = folder.file("s.safetensors");
  const auto options = options_beside(r.checkpoint);
  REQUIRE(options.has_value());
  r.options = *options;
  for (const int64_t step : {3, 5}) {
    r.step = step;
    const RecordReport report = record_slice(r);
    CHECK(report.from == 2);
    CHECK(report.moments);
    CHECK(report.waiting.empty());
    CHECK(report.recipe == "chon");
    const StepReport &trained = reports[size_t(step) - 1];
    CHECK(std::bit_cast<uint32_t>(report.result.loss) == std::bit_cast<uint32_t>(trained.loss));
    CHECK(float(report.result.gradient_norm) == trained.gradient_norm);
  }
  CHECK(read_slice(r.output).result.digest == result.parameter_digest);
  CHECK(replay_identically(read_slice(r.output), {}).mismatches.empty());
}

TEST_CASE("a slice is repeated bit for bit on any number of threads", "[slice]") {
  const SliceFolder folder;
  const std::string patched = folder.file("dgrad.json");
  {
    // the patch in dgrad too: its channels are part of the state
    Recipe hcp = load_recipe("hcp");
    hcp.name = "hcp-dgrad";
    hcp.linears.at("nvfp4").hcp.dgrad = true;
    std::ofstream(patched) << to_json(hcp);
  }
  for (const auto &[family, recipe] : {std::pair<std::string, std::string>{"gla", "chon"},
                                       {"qwen3", patched},
                                       {"gdn", "nvfp4"},
                                       {"gsa", "chon"},
                                       {"mamba2", "chon"},
                                       {"llama", "mxfp8"},
                                       {"qwen2.5", "fp32"}}) {
    CAPTURE(family, recipe);
    RecordRequest r = small_request(folder, family, recipe);
    r.options.accumulation = 2;
    r.gradients = true;
    const ModelConfig config = find_model(family, "tiny");
    for (const std::string &role : linear_roles(*config.family))
      for (const char *kind : {".input", ".output", ".output_grad", ".input_grad"})
        r.taps.push_back(role + kind);
    const RecordReport report = record_slice(r);
    CHECK_FALSE(report.moments);
    const Slice slice = read_slice(r.output);
    const size_t linears = size_t(config.layers) * (linear_roles(*config.family).size() - 1) + 1;
    REQUIRE(slice.result.tensors.size() == 4 * linears + parameter_list(config).size());
    CHECK(slice.result.digest == report.result.digest);
    for (const int threads : {1, 2}) {
      const Identity identity = replay_identically(slice, {"cpu", threads});
      CHECK(identity.mismatches.empty());
      CHECK(identity.tensors == int64_t(slice.result.tensors.size()));
      CHECK(identity.values > 4 * parameter_count(config) / 5);
    }
  }
}

TEST_CASE("every input gradient is its layer's dgrad of the recorded output gradient", "[slice]") {
  const SliceFolder folder;
  for (const auto &[family, recipe] : {std::pair<std::string, std::string>{"gla", "chon"},
                                       {"gdn", "nvfp4"},
                                       {"gsa", "nvfp4"},
                                       {"llama", "mxfp4-sr-rht"},
                                       {"qwen3", "fp32"}}) {
    CAPTURE(family, recipe);
    RecordRequest r = small_request(folder, family, recipe);
    const ModelConfig config = find_model(family, "tiny");
    const std::vector<std::string> roles = linear_roles(*config.family);
    for (const std::string &role : roles)
      for (const char *kind : {".output_grad", ".input_grad"}) r.taps.push_back(role + kind);
    record_slice(r);
    Slice slice = read_slice(r.output);
    const io::TensorFile before = slice.before.tensors.read_all();
    const auto values = [](const io::Tensor &t) {
      const std::span<const float> words = t.as<float>();
      return std::vector<float>(words.begin(), words.end());
    };
    const auto weight = [&](const std::string &name) {
      for (const io::Tensor &t : before.tensors)
        if (t.name == name) return values(t);
      return std::vector<float>();
    };
    auto device = std::make_shared<LayerDevice>();
    device->backend = make_cpu_backend(1);
    device->engine = make_cpu_operand_engine(1);
    const Recipe bound = load_recipe(recipe).for_family(family);
    const int64_t rows = r.options.batch * r.options.sequence;
    for (int64_t layer = 0; layer <= config.layers; ++layer)
      for (const std::string &role : roles) {
        const bool head = role == "lm_head";
        if (head != (layer == config.layers)) continue;
        const std::string tap = "tap/" + Tap{Tap::Kind::input_grad, layer, role}.name(config);
        INFO(tap);
        const std::vector<float> shown = values(tensor(slice, tap)),
                                 dy = values(tensor(slice, tap.substr(0, tap.size() - 10) + "output_grad")),
                                 w = weight((head ? std::string(config.family->modules.embedding)
                                                  : linear_path(config, layer, role)) +
                                            ".weight");
        const auto out = int64_t(dy.size()) / rows, in = int64_t(shown.size()) / rows;
        REQUIRE(int64_t(w.size()) == out * in);
        int number = -1;
        for (const SharedLinear &l : kSharedLinears)
          if (l.role == role) number = l.number;
        if (number < 0) number = config.family->find_linear(role.substr(5))->linear;
        LinearLayer alone(device,
                          {role, layer, config.layers, uint64_t(layer * kLinearsPerBlock + number), in, out},
                          bound);
        std::vector<float> x(size_t(rows * in), 0.5f), dx(size_t(rows * in));
        const bool later = recipe == "fp32" && role != "attn.q_proj" && role != "attn.o_proj" &&
                           role != "mlp.gate_proj" && role != "mlp.down_proj" && !head;
        if (later) continue; // a sum with other layers' terms
        alone.backward({r.options.seed, r.step - 1, 0, true}, {x.data(), rows, w.data(), nullptr, {}},
                       dy.data(), {dx.data(), nullptr, nullptr});
        CHECK(std::equal(dx.begin(), dx.end(), shown.begin(), [](float a, float b) {
          return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b);
        }));
      }
  }
}

TEST_CASE("one flipped bit is found and named", "[slice]") {
  const SliceFolder folder;
  RecordRequest r = small_request(folder, "gla", "nvfp4");
  r.taps = {"layers.1.attn.o_proj.input", "mlp.down_proj.output_grad",
            "model.layers.0.attn.gk_proj.1.output"};
  r.gradients = true;
  record_slice(r);
  const Slice slice = read_slice(r.output);
  CHECK(replay_identically(slice, {}).mismatches.empty());

  Slice changed = slice;
  io::Tensor &tap = tensor(changed, "tap/layers.1.attn.o_proj.input");
  REQUIRE(tap.shape == std::vector<int64_t>{2, 32, 128});
  const size_t at = (1 * 32 + 3) * 128 + 5;
  tap.data[4 * at] ^= std::byte{1};
  std::vector<Mismatch> found = replay_identically(changed, {}).mismatches;
  REQUIRE(found.size() == 1);
  CHECK(found[0].name == "tap/layers.1.attn.o_proj.input");
  CHECK(found[0].index == std::vector<int64_t>{1, 3, 5});
  CHECK(found[0].differing == 1);
  CHECK(found[0].count == 2 * 32 * 128);
  CHECK((std::stoul(found[0].recorded, nullptr, 16) ^ std::stoul(found[0].replayed, nullptr, 16)) == 1);

  changed = slice;
  tensor(changed, "grad/model.layers.2.attn.g_norm_swish_gate.weight").data[7] ^= std::byte{0x80};
  changed.result.loss = std::bit_cast<float>(std::bit_cast<uint32_t>(changed.result.loss) ^ 1);
  found = replay_identically(changed, {}).mismatches;
  REQUIRE(found.size() == 2);
  CHECK(found[0].name == "loss"); // the step comes to it first
  CHECK(found[1].name == "grad/model.layers.2.attn.g_norm_swish_gate.weight");
  CHECK(found[1].index == std::vector<int64_t>{1});

  // another state, another step: a weight of block 1 changes what comes after it, and nothing before
  const auto change = [&](const char *name, size_t byte, std::byte bits) {
    changed = slice;
    io::TensorFile file = slice.before.tensors.read_all();
    for (io::Tensor &t : file.tensors)
      if (t.name == name) t.data[byte] ^= bits;
    changed.before.tensors = io::TensorReader(file);
  };
  change("model.layers.1.mlp.up_proj.weight", 3, std::byte{0x7F});
  found = replay_identically(changed, {}).mismatches;
  REQUIRE_FALSE(found.empty());
  CHECK(found[0].name == "loss");
  CHECK(found.back().name == "state after the step");
  // a moment shows in the state alone
  change("optimizer.m.model.norm.weight", 2, std::byte{0x40});
  found = replay_identically(changed, {}).mismatches;
  REQUIRE(found.size() == 1);
  CHECK(found[0].name == "state after the step");
}

TEST_CASE("other recipes on the same step", "[slice]") {
  const SliceFolder folder;
  record_slice(small_request(folder, "gla", "chon"));
  const Slice slice = read_slice(folder.file("s.safetensors"));
  std::vector<ComparedRecipe> recipes;
  for (const char *name : {"chon", "nvfp4", "bf16", "hcp"}) recipes.push_back({load_recipe(name)});
  const Comparison c = compare_recipes(slice, recipes, false, {});
  const ModelConfig config = preset(find_family("gla"), "tiny");
  CHECK(c.operators == config.layers * int64_t(linear_roles(*config.family).size() - 1) + 1);
  CHECK(c.outcomes[0].same_bits);
  CHECK_FALSE(c.outcomes[1].same_bits);
  CHECK(std::bit_cast<uint32_t>(c.outcomes[0].loss) == std::bit_cast<uint32_t>(slice.result.loss));
  CHECK(std::bit_cast<uint32_t>(c.outcomes[2].loss) == std::bit_cast<uint32_t>(c.bf16_loss));
  REQUIRE(c.errors[0].size() == 3 * linear_roles(*config.family).size());
  for (size_t i = 0; i < c.errors[0].size(); ++i) {
    const OperatorError &chon = c.errors[0][i], &nvfp4 = c.errors[1][i], &bf16 = c.errors[2][i],
                        &hcp = c.errors[3][i];
    CAPTURE(chon.role, int(chon.product), chon.format, nvfp4.format);
    CHECK(bf16.sums.against_bf16 == 0);
    CHECK(bf16.sums.relative_to_exact() < 0.003); // half a unit in BF16's last place, or FP32's
    if (chon.role == "lm_head") continue;
    CHECK(nvfp4.sums.relative_to_exact() > 0.05);
    const bool protected_role = chon.role == "attn.o_proj" || chon.role.starts_with("attn.gk_proj");
    if (protected_role) CHECK(chon.sums.relative_to_exact() < 0.05 * nvfp4.sums.relative_to_exact());
    if (chon.product == Product::fprop)
      CHECK(hcp.sums.relative_to_exact() < nvfp4.sums.relative_to_exact());
    else if (!protected_role)
      CHECK(chon.sums.against_exact == nvfp4.sums.against_exact);
  }
  // each layer by itself adds up to the same
  const Comparison layers = compare_recipes(slice, {recipes[1]}, true, {"cpu", 2});
  double sum = 0;
  int64_t rows = 0;
  for (const OperatorError &e : layers.errors[0])
    if (e.role == "mlp.down_proj" && e.product == Product::wgrad) {
      sum += e.sums.against_exact;
      ++rows;
    }
  CHECK(rows == config.layers);
  for (const OperatorError &e : c.errors[1])
    if (e.role == "mlp.down_proj" && e.product == Product::wgrad)
      CHECK(e.sums.against_exact == Approx(sum).epsilon(1e-12));
}

TEST_CASE("operators inside mixers are measured where a recipe has rules for them", "[slice]") {
  const SliceFolder folder;
  const std::string file = folder.file("pv.json");
  Recipe pv = load_recipe("nvfp4");
  pv.name = "pv";
  pv.mixer_rules.push_back({.roles = {"attn.pv"}, .last = 0.5, .use = "nvfp4"});
  std::ofstream(file) << to_json(pv);
  RecordRequest r = small_request(folder, "qwen3", file);
  r.options.accumulation = 2;
  for (const char *kind : {"input", "weight", "output", "output_grad", "input_grad", "weight_grad"})
    for (const char *role : {"layers.1.attn.qk.", "layers.2.attn.pv."})
      r.taps.push_back(std::string(role) + kind);
  record_slice(r);
  Slice slice = read_slice(r.output);
  for (const int threads : {1, 2}) CHECK(replay_identically(slice, {"cpu", threads}).mismatches.empty());
  using Shape = std::vector<int64_t>; // micro-batches * sequences * heads
  const io::Tensor &q = tensor(slice, "tap/layers.1.attn.qk.input"),
                   &k = tensor(slice, "tap/layers.1.attn.qk.weight"),
                   &scores = tensor(slice, "tap/layers.1.attn.qk.output");
  CHECK(q.shape == Shape{2 * 2 * 4, 32, 32});
  CHECK(k.shape == Shape{2 * 2 * 2, 32, 32});
  CHECK(tensor(slice, "tap/layers.2.attn.pv.weight_grad").shape == Shape{2 * 2 * 2, 32, 32});
  CHECK(tensor(slice, "tap/layers.2.attn.pv.input_grad").shape == Shape{2 * 2 * 4, 32, 32});
  for (const size_t at :
       {size_t(0), size_t(13 * 1024 + 5 * 32 + 30)}) { // masked or not, in FP32: head, row, column
    const size_t head = at / 1024, i = at / 32 % 32, j = at % 32;
    float sum = 0;
    for (size_t d = 0; d < 32; ++d)
      sum =
          std::fma(q.as<float>()[head * 1024 + i * 32 + d], k.as<float>()[head / 2 * 1024 + j * 32 + d], sum);
    CHECK(std::bit_cast<uint32_t>(scores.as<float>()[at]) == std::bit_cast<uint32_t>(sum));
  }
  const Comparison c = compare_recipes(slice, {{pv}, {load_recipe("nvfp4")}}, false, {});
  CHECK(c.outcomes[0].same_bits);
  CHECK_FALSE(c.outcomes[1].same_bits);
  const auto find = [&](size_t recipe, const char *role, Product product) {
    for (const OperatorError &e : c.errors[recipe])
      if (e.role == role && e.product == product) return e;
    throw Error("no row");
  };
  for (const Product p : {Product::fprop, Product::dgrad, Product::wgrad}) {
    CHECK(find(0, "attn.pv", p).format == "f32 x2, nvfp4 x2");
    CHECK(find(0, "attn.pv", p).layers == 4);
    CHECK(find(0, "attn.pv", p).sums.relative_to_exact() > 0.02);
    CHECK(find(0, "attn.pv", p).sums.relative_to_exact() < 0.3);
    CHECK(find(0, "attn.qk", p).format == "f32");
    CHECK(find(0, "attn.qk", p).sums.relative_to_exact() < 4e-3); // BF16's rounding of its operands
    CHECK(find(1, "attn.pv", p).format == "f32");
    CHECK(find(1, "mlp.up_proj", p).sums.against_exact == find(0, "mlp.up_proj", p).sums.against_exact);
  }
  CHECK(find(0, "attn.pv", Product::fprop).sums.outputs == 4 * 2 * 2 * 4 * 32 * 32); // layers ... rows, width
  const Comparison without = compare_recipes(slice, {{load_recipe("nvfp4")}}, false, {});
  for (const OperatorError &e : without.errors[0]) CHECK(e.role != "attn.pv");
}

TEST_CASE("taps of chunked operators are what their products read and made", "[slice]") {
  for (const std::string family : {"gdn", "gla", "gsa", "mamba2"}) {
    CAPTURE(family);
    const SliceFolder folder;
    const std::string file = folder.file("r.json");
    Recipe recipe = load_recipe("nvfp4");
    recipe.name = "inside";
    recipe.mixer_rules.push_back({.roles = {"attn.*"}, .last = 0.5, .use = "nvfp4"});
    std::ofstream(file) << to_json(recipe);
    RecordRequest r = small_request(folder, family, file);
    r.options.sequence = 80; // a chunk and one of 16 tokens
    const ModelConfig config = find_model(family, "tiny");
    const std::vector<std::string> roles = mixer_operator_roles(*config.family);
    for (const std::string &role : roles)
      for (const char *kind : {"input", "weight", "output", "output_grad", "input_grad", "weight_grad"})
        r.taps.push_back("layers.2." + role + "." + kind); // by rule
    r.taps.push_back("layers.0.attn.av.output");           // in FP32
    r.taps.push_back("layers.0.attn.av.input");
    r.taps.push_back("layers.0.attn.av.weight");
    r.taps.push_back("layers.0.attn.state_read.output");
    record_slice(r);
    Slice slice = read_slice(r.output);
    for (const int threads : {1, 2}) {
      const Identity identity = replay_identically(slice, {"cpu", threads});
      CHECK(identity.mismatches.empty());
      CHECK(identity.tensors == int64_t(slice.result.tensors.size()));
    }
    const auto has = [&](const std::string &name) {
      return std::any_of(slice.result.tensors.begin(), slice.result.tensors.end(),
                         [&](const io::Tensor &t) { return t.name == "tap/layers." + name; });
    };
    CHECK(has("2.attn.state_update.input_grad.chunk0"));
    CHECK_FALSE(has("2.attn.state_update.input_grad.chunk1")); // of the last chunk
    CHECK(has("2.attn.state_read.weight_grad.chunk1"));
    CHECK_FALSE(has("2.attn.state_read.weight_grad.chunk0"));
    CHECK(has("2.attn.qk.output.chunk0") == (family != "gla"));
    CHECK(has("2.attn.qk.output.chunk0.sub3") == (family == "gla"));
    CHECK(has("2.attn.slot_scores.weight_grad.chunk0.sub3") == (family == "gsa"));
    CHECK_FALSE(has("2.attn.qk.output.chunk1.sub1")); // 16 tokens have no earlier ones
    const auto tap = [&](const std::string &name) -> const io::Tensor & {
      return tensor(slice, "tap/layers." + name);
    };
    using Shape = std::vector<int64_t>; // sequences * heads, rows, cols
    const int64_t heads = 2 * config.heads, dv = config.value_head(),
                  dk = family == "gsa"      ? config.slots
                       : family == "mamba2" ? config.state
                                            : config.key_head();
    CHECK(tap("2.attn.state_read.weight.chunk1").shape == Shape{heads, dv, dk});
    CHECK(tap("2.attn.av.input.chunk1").shape == Shape{heads, 16, 16});
    CHECK(tap("2.attn.state_update.output.chunk0").shape == Shape{heads, dk, dv});
    {
      const auto a = tap("0.attn.av.input.chunk1").as<float>(),
                 w = tap("0.attn.av.weight.chunk1").as<float>(),
                 from = tap("0.attn.state_read.output.chunk1").as<float>(),
                 made = tap("0.attn.av.output.chunk1").as<float>();
      int64_t others = 0;
      for (int64_t h = 0; h < heads; ++h)
        for (int64_t i = 0; i < 16; ++i)
          for (int64_t e = 0; e < dv; ++e) {
            float sum = from[size_t((h * 16 + i) * dv + e)]; // FP32 chains go on
            for (int64_t j = 0; j < 16; ++j)
              sum = std::fma(a[size_t((h * 16 + i) * 16 + j)], w[size_t((h * dv + e) * 16 + j)], sum);
            others +=
                std::bit_cast<uint32_t>(sum) != std::bit_cast<uint32_t>(made[size_t((h * 16 + i) * dv + e)]);
          }
      CHECK(others == 0);
    }
    // by rule: the recorded operands through the operator alone give the recorded products
    const auto backend = make_cpu_backend(1);
    const auto engine = make_cpu_operand_engine(1);
    const Recipe bound = recipe.for_family(family);
    const auto repeats = [&](const std::string &role, Product product, const std::string &made, bool add) {
      CAPTURE(role, int(product));
      const MixerOperator &row = mixer_operator(config.family->mixer, role);
      const OperatorProducts alone(*backend, engine.get(), bound.resolve(role, 2, config.layers),
                                   uint64_t(2 * kLinearsPerBlock + row.number));
      const std::string name = "2." + role + ".", part = ".chunk1";
      const io::Tensor &x = tap(name + "input" + part), &w = tap(name + "weight" + part),
                       &dy = tap(name + "output_grad" + part), &y = tap(name + made + part);
      const int64_t rows = x.shape[1], in = x.shape[2], out = w.shape[1], n = y.shape[1] * y.shape[2];
      for (int64_t h = 0; h < heads; ++h) {
        const auto stream = uint64_t((h * 2 + 1) * 4);
        const OperatorMatrices of{rows,
                                  in,
                                  out,
                                  x.as<float>().data() + h * rows * in,
                                  w.as<float>().data() + h * out * in,
                                  dy.as<float>().data() + h * rows * out,
                                  stream,
                                  stream};
        std::vector<float> got(static_cast<size_t>(n), 0.0f);
        float *const to[] = {got.data()};
        alone.run({r.options.seed, r.step - 1, 0, true}, product, {&of, 1}, to, add);
        const float *const recorded = y.as<float>().data() + h * n;
        CHECK(std::equal(got.begin(), got.end(), recorded, [](float a, float b) {
          return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b);
        }));
      }
    };
    repeats("attn.state_read", Product::fprop, "output", false);
    repeats("attn.state_read", Product::dgrad, "input_grad", false);
    repeats("attn.av", Product::dgrad, "input_grad", false);
    if (family == "gsa") {
      repeats("attn.qk", Product::fprop, "output", false);
      repeats("attn.state_read_keys", Product::fprop, "output", false);
      repeats("attn.state_read_keys", Product::dgrad, "input_grad", false);
    }
    if (family == "gdn") {
      repeats("attn.qk", Product::fprop, "output", false);
      repeats("attn.kk", Product::fprop, "output", false);
      repeats("attn.state_recall", Product::dgrad, "input_grad", false);
    }
    // a tensor that the step does not make, a name that is none, and a tap without tensors
    Slice more = slice;
    more.result.tensors.push_back(
        io::Tensor::from("tap/layers.2.attn.av.input.chunk7", {1}, std::vector{1.0f}));
    CHECK(refusal([&] { (void)replay_identically(more, {}); }).find("chunk7") != std::string::npos);
    RecordRequest wrong = r;
    wrong.taps = {"attn.av.inputs"};
    CHECK(refusal([&] { record_slice(wrong); }).find("attn.state_update") != std::string::npos);
    wrong.taps = {"attn.state_update.input"};
    wrong.options.sequence = 64;
    CHECK(refusal([&] { record_slice(wrong); }).find("sequences of 64 tokens") != std::string::npos);
  }
}

TEST_CASE("a pass shows the operators inside mixers", "[slice]") {
  for (const auto &[family, mixed] : {std::pair{"gla", "attn.gla"},
                                      {"gdn", "attn.delta"},
                                      {"gsa", "attn.gsa"},
                                      {"qwen3", "self_attn.attention"}}) {
    CAPTURE(family);
    const SliceFolder folder;
    ForwardOptions o;
    o.checkpoint = small_request(folder, family, "nvfp4").checkpoint;
    o.recipe = "nvfp4";
    o.gradients = true;
    io::TensorFile tokens;
    std::vector<int32_t> ids(2 * 71);
    for (size_t i = 0; i < ids.size(); ++i) ids[i] = int32_t(i * i % 97);
    tokens.tensors.push_back(io::Tensor::from("tokens", {2, 71}, ids));
    const ForwardPass plain = run_forward(o, tokens);
    o.operators = true;
    const ForwardPass pass = run_forward(o, tokens);
    REQUIRE(pass.tensors.tensors.size() > plain.tensors.tensors.size());
    for (const io::Tensor &t : plain.tensors.tensors) CHECK(pass.tensors.at(t.name).data == t.data);
    for (size_t i = plain.tensors.tensors.size(); i < pass.tensors.tensors.size(); ++i)
      CHECK(pass.tensors.tensors[i].name.starts_with("tap/layers."));
    const bool softmax = std::string(family) == "qwen3";
    const auto whole = pass.tensors.elements<float>(std::string("act/model.layers.1.") + mixed);
    const io::Tensor &part =
        pass.tensors.at(softmax ? "tap/layers.1.attn.pv.output" : "tap/layers.1.attn.av.output.chunk1");
    const int64_t heads = part.shape[0] / 2, rows = part.shape[1], width = part.shape[2], first = 70 - rows;
    REQUIRE(rows == (softmax ? 70 : 6));
    int64_t others = 0;
    for (int64_t s = 0; s < 2; ++s)
      for (int64_t h = 0; h < heads; ++h)
        for (int64_t i = 0; i < rows; ++i)
          for (int64_t e = 0; e < width; ++e)
            others += std::bit_cast<uint32_t>(
                          part.as<float>()[size_t((((s * heads + h) * rows) + i) * width + e)]) !=
                      std::bit_cast<uint32_t>(whole[size_t(((s * 70 + first + i) * heads + h) * width + e)]);
    CHECK(others == 0);
    if (!softmax) continue;
    o.recipe = "nvfp4+mixers=bf16";
    CHECK(refusal([&] { (void)run_forward(o, tokens); }) != "accepted");
  }
}

TEST_CASE("a unit in place of the recipe's", "[slice]") {
  const SliceFolder folder;
  record_slice(small_request(folder, "gla", "nvfp4"));
  const Slice slice = read_slice(folder.file("s.safetensors"));
  const Recipe own = parse_recipe(slice.before.recipe, "slice");
  const Recipe consumer = with_unit(own, "sm_120:mma.m16n8k64.f32.mxf4nvf4.ue4m3.block16");
  CHECK(consumer != own);
  CHECK(with_unit(own, own.units.at("nvfp4")) == own);
  CHECK(compare_recipes(slice, {{consumer, false}}, false, {}).outcomes[0].loss > 0);
  CHECK(refusal([&] {
          (void)with_unit(own, "sm_100:tcgen05.k32.f32.mxf8f6f4.e4m3.e4m3.ue8m0.block32");
        }).find("mxfp8") != std::string::npos);
  CHECK(refusal([&] { (void)with_unit(own, "sm_90:wgmma.k16.f16.f16"); }) != "accepted");
  CHECK(refusal([&] { (void)with_unit(own, "sm_1:nothing"); }) != "accepted");
}

} // namespace nvfp4::test
