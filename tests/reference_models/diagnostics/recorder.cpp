// SPDX-License-Identifier: Apache-2.0
// The records on disk: what stands in them, and that a run which is cut off anywhere continues without a
// trace.
#include "tests/golden/io/support.hpp"
#include "tests/temporary_folder.hpp"

#include "nvfp4/golden/io/file.hpp"
#include "nvfp4/golden/io/message.hpp"
#include "nvfp4/reference_models/diagnostics/recorder.hpp"

#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <unistd.h>

using namespace nvfp4;
using namespace nvfp4::models;
namespace fs = std::filesystem;
using Json = nlohmann::json;

namespace {

struct Folder : nvfp4::test::TemporaryFolder {
  [[nodiscard]] std::string text(const char *name) const {
    std::ifstream in(path / name, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
};

std::vector<Json> lines_of(const Folder &folder) {
  std::vector<Json> out;
  std::ifstream in(folder.path / "diagnostics.jsonl");
  for (std::string line; std::getline(in, line);) out.push_back(Json::parse(line));
  return out;
}

/// Values that depend on the step, with one hot channel.
std::vector<float> tensor_at(int64_t step, size_t n) {
  std::vector<float> v(n);
  for (size_t i = 0; i < n; ++i) v[i] = float((i * 37 + size_t(step) * 11) % 101) / 50.0f - 1.0f;
  for (size_t i = size_t(step % 7); i < n; i += 32) v[i] = 40.0f;
  return v;
}

void record(Recorder &r, int64_t step) {
  const auto x = tensor_at(step, 32 * 32);
  r.begin_step(step);
  r.tensor(0, "attn.q_proj", TensorKind::activation, {x.data(), 32, 32}, {});
  r.tensor(0, "attn.q_proj", TensorKind::weight, {x.data(), 32, 32}, {"te", 16, true});
  if (step >= 100)
    r.tensor(1, "mlp.down_proj", TensorKind::activation, {x.data(), 16, 64}, {"mxfp4", 1, false});
  r.output(0, "attn.q_proj", {x.data(), 32, 32});
  r.attention(0, 2.5, 4.25, std::numeric_limits<double>::quiet_NaN(), 0.25, 0.5);
  r.gate(0, -12.5, 3, 12.5);
  r.swiglu(0, 0.07, 0.2, 0.08);
  r.residual(-1, {x.data(), 32, 32});
  const std::vector<float> twice(32 * 32, 80.0f);
  r.residual(0, {twice.data(), 32, 32});
  r.end_step();
}

} // namespace

TEST_CASE("recorder: lines hold the measures, tensors hold the channels over the steps") {
  const Folder folder;
  Recorder r(folder.path.string());
  for (const int64_t step : {50, 100, 150}) record(r, step);
  r.save();

  const auto lines = lines_of(folder);
  REQUIRE(lines.size() == 8 + 9 + 9);
  const Json &first = lines[0];
  CHECK(first["step"] == 50);
  CHECK(first["type"] == "tensor");
  CHECK(first["op"] == "attn.q_proj");
  CHECK(first["kind"] == "activation");
  CHECK(first["channels"] == 32);
  CHECK(first["hot"] == 1);
  CHECK(first["top"].size() == 16);
  CHECK(first["top"][0] == 50 % 7);
  CHECK(first["top_max"][0] == 40.0);
  CHECK(first["quantized"] == true);
  const auto x = tensor_at(50, 32 * 32);
  CHECK(first["kurtosis"].get<double>() == Approx(kurtosis({x.data(), 32, 32}).tensor).epsilon(1e-6));
  CHECK(first["block_kurtosis"]["blocks"] == 4);
  const QuantizationError e = quantization_error({x.data(), 32, 32}, find_convention("te"), 1);
  CHECK(first["ftz"].get<double>() == Approx(e.ftz).epsilon(1e-6));
  CHECK(first["snr_db"].get<double>() == Approx(e.snr_db).epsilon(1e-6));
  CHECK(lines[1]["block_rows"] == 16);
  CHECK(lines[2]["type"] == "output");
  CHECK(lines[2]["top1"] == 40.0);
  CHECK(lines[3]["logit_kurtosis"].is_null()); // NaN
  CHECK(lines[4]["min"] == -12.5);
  CHECK(lines[3]["sink"] == 0.25);
  CHECK(lines[3]["sink_heads"] == 0.5);
  CHECK(lines[5]["p99_abs"] == 0.2);
  CHECK(lines[6]["largest"] == 40.0);
  CHECK_FALSE(lines[6].contains("growth"));
  CHECK(lines[7]["layer"] == 0);
  CHECK(lines[7]["growth"] == 2.0);
  CHECK(lines[7]["massive"] == 0);
  CHECK(first["blocks"] == 64);
  CHECK(first["saturated"] == e.saturated);

  const io::TensorFile file = io::read_tensors(folder.file("diagnostics.safetensors"));
  const auto steps = file.elements<int64_t>("steps");
  CHECK(std::vector<int64_t>(steps.begin(), steps.end()) == std::vector<int64_t>{50, 100, 150});
  CHECK(file.at("channel_max/0.attn.q_proj").shape == std::vector<int64_t>{3, 32});
  CHECK(file.elements<float>("channel_max/0.attn.q_proj")[50 % 7] == 40.0f);
  CHECK(file.at("channel_max/1.mlp.down_proj").shape == std::vector<int64_t>{3, 64});
  CHECK(std::isnan(file.elements<float>("channel_mean/1.mlp.down_proj")[0])); // not there at step 50
  CHECK(std::isfinite(file.elements<float>("channel_mean/1.mlp.down_proj")[64]));
}

TEST_CASE("recorder: a run that is cut off anywhere continues to the same bytes") {
  const Folder whole, cut;
  {
    Recorder r(whole.path.string());
    for (int64_t step = 50; step <= 300; step += 50) record(r, step);
    r.save();
  }
  const std::string expected = whole.text("diagnostics.jsonl"),
                    tensors = whole.text("diagnostics.safetensors");
  REQUIRE(expected.size() > 2000);
  // the checkpoint is of step 150; then steps 200 and 250 were recorded, and the crash left `bytes` of the
  // file
  std::string at_250;
  {
    Recorder r(cut.path.string());
    for (int64_t step = 50; step <= 150; step += 50) record(r, step);
    r.save();
    const size_t kept = cut.text("diagnostics.jsonl").size();
    for (int64_t step = 200; step <= 250; step += 50) record(r, step);
    at_250 = cut.text("diagnostics.jsonl");
    REQUIRE(at_250.size() > kept);
  }
  const std::string saved = cut.text("diagnostics.safetensors");
  size_t at_150 = expected.find("{\"step\":200");
  for (size_t bytes = at_150; bytes <= at_250.size(); bytes += 97) {
    std::ofstream(cut.path / "diagnostics.jsonl", std::ios::binary) << at_250.substr(0, bytes);
    std::ofstream(cut.path / "diagnostics.safetensors", std::ios::binary) << saved;
    Recorder::truncate_after(cut.path.string(), 150);
    REQUIRE(cut.text("diagnostics.jsonl") == expected.substr(0, at_150));
    Recorder r(cut.path.string());
    for (int64_t step = 200; step <= 300; step += 50) record(r, step);
    r.save();
    REQUIRE(cut.text("diagnostics.jsonl") == expected);
    REQUIRE(cut.text("diagnostics.safetensors") == tensors);
  }
  // tensors saved later than the checkpoint are cut too
  std::ofstream(cut.path / "diagnostics.safetensors", std::ios::binary) << tensors;
  Recorder::truncate_after(cut.path.string(), 150);
  CHECK(cut.text("diagnostics.safetensors") == saved);
  Recorder::truncate_after(cut.path.string(), 0);
  CHECK(cut.text("diagnostics.jsonl").empty());
  CHECK_FALSE(fs::exists(cut.path / "diagnostics.safetensors"));
  Recorder::truncate_after((cut.path / "nowhere").string(), 5); // nothing there: nothing to do
}

TEST_CASE("recorder: what is refused") {
  const Folder folder;
  {
    Recorder r(folder.path.string());
    record(r, 50);
    r.save();
    io::check_message(io::error_of([&] { r.begin_step(50); }), {"step 50", "truncate"});
    r.begin_step(60);
    io::check_message(io::error_of([&] { r.begin_step(70); }), {"step 60 was not ended"});
  }
  std::ofstream(folder.path / "diagnostics.jsonl") << "{\"step\":50}\nnonsense\n{\"step\":100}\n";
  io::check_message(io::error_of([&] { Recorder::truncate_after(folder.path.string(), 50); }),
                    {"diagnostics.jsonl line 2", "'nonsense'"});
  io::write_tensors(folder.file("diagnostics.safetensors"),
                    {{io::Tensor::from("steps", {2}, std::vector<int64_t>{1, 2}),
                      io::Tensor::from("channel_max/0.lm_head", {1, 4}, std::vector<float>(4))},
                     {},
                     ""});
  io::check_message(io::error_of([&] { Recorder r(folder.path.string()); }),
                    {"channel_max/0.lm_head", "[1, 4]"});
  // removing the file is advice for what is wrong in it, not for what cannot be read
  std::ofstream(folder.path / "diagnostics.safetensors") << "nonsense";
  io::check_message(io::error_of([&] { (void)read_channel_file(folder.file("diagnostics.safetensors")); }),
                    {"diagnostics.safetensors", "; remove the file"});
  for (const auto &[name, code] :
       {std::pair(folder.path.string(), EISDIR), std::pair(folder.file("nowhere.safetensors"), ENOENT)}) {
    const std::string path = name; // clang 16 captures no structured binding where OpenMP is on
    const std::string message = io::error_of([&] { (void)read_channel_file(path); });
    io::check_message(message, {path, io::errno_text(code)});
    CHECK(message.find("remove") == std::string::npos);
  }
}

TEST_CASE("sensitivity records are a list that JSON readers take") {
  const Folder folder;
  const SensitivityRecord records[] = {{"attn.o_proj", 0.058, 2.01, 2.0, 65536},
                                       {"mlp.down_proj", std::nan(""), std::nan(""), 2.0, 196608}};
  write_sensitivity(folder.path.string(), records);
  const Json j = Json::parse(folder.text("sensitivity.json"));
  REQUIRE(j.size() == 2);
  CHECK(j[0]["op"] == "attn.o_proj");
  CHECK(j[0]["score"] == 0.058);
  CHECK(j[1]["loss"].is_null());
  CHECK(j[1]["parameters"] == 196608);
}

TEST_CASE("a line about a tensor with NaN or Inf says so", "[recorder]") {
  const Folder folder;
  Recorder r(folder.path.string());
  auto x = tensor_at(1, 32 * 32);
  r.begin_step(1);
  r.tensor(0, "attn.q_proj", TensorKind::activation, {x.data(), 32, 32}, {});
  x[70] = std::nanf("");
  x[71] = -std::numeric_limits<float>::infinity();
  r.tensor(0, "attn.k_proj", TensorKind::weight, {x.data(), 32, 32}, {});
  r.output(0, "attn.o_proj", {x.data(), 32, 32});
  r.end_step();
  const auto lines = lines_of(folder);
  REQUIRE(lines.size() == 3);
  CHECK_FALSE(lines[0].contains("not_finite"));
  const Json facts = {{"nan", 1}, {"inf", 1}, {"first", {2, 6}}, {"shape", {32, 32}}};
  CHECK(lines[1].at("not_finite") == facts);
  CHECK(lines[1].at("kurtosis").is_null());
  CHECK(lines[1].at("snr_db").is_null());
  CHECK(lines[2].at("not_finite") == facts);
}
