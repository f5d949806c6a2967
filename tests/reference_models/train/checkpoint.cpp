// SPDX-License-Identifier: Apache-2.0
// Checkpoints survive the disk bit for bit and are refused when they do not fit; a few steps give the same
// words on any number of threads; the optimizer is AdamW.
#include "nvfp4/golden/io/safetensors.hpp"
#include "nvfp4/reference_models/train/optimizer.hpp"
#include "nvfp4/reference_models/train/steps.hpp"
#include "tests/catch.hpp"
#include "tests/temporary_folder.hpp"

#include <cmath>
#include <cstring>
#include <filesystem>
#include <sys/resource.h>
#include <unistd.h>

using namespace nvfp4::models;
namespace io = nvfp4::io;

namespace {

using Folder = nvfp4::test::TemporaryFolder;

/// Most memory that this process ever held.
int64_t peak_kilobytes() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss;
}

std::string refusal(const std::function<void()> &f) {
  try {
    f();
  } catch (const nvfp4::Error &e) {
    return e.what();
  }
  return "accepted";
}

} // namespace

TEST_CASE("a checkpoint comes back bit for bit", "[train]") {
  const Folder folder;
  const ModelConfig c = preset(find_family("gla"), "tiny");
  const auto backend = make_cpu_backend(1);
  Parameters<float> saved(*backend, c, true), loaded(*backend, c, true);
  initialise(saved, c, 4);
  for (int64_t i = 0; i < saved.total(); ++i) saved.first_moments()[i] = float(i % 97) * 1e-3f;
  CheckpointState state;
  state.step = 12;
  state.tokens = 3072;
  state.hot_channels["0.attn.q_proj"] = {{3, 1, 2}, {0.5f, 0.25f, 0.125f}, 10};
  save_checkpoint(folder.file("c.safetensors"), saved, c, "", state, true);
  const Checkpoint back = read_checkpoint(folder.file("c.safetensors"));
  REQUIRE(back.config.has_value());
  CHECK(*back.config == c);
  CHECK(back.state.step == 12);
  CHECK(back.state.tokens == 3072);
  CHECK(back.state.hot_channels.at("0.attn.q_proj").indices == std::vector<int32_t>{3, 1, 2});
  CHECK(back.state.hot_channels.at("0.attn.q_proj").chosen_at == 10);
  load_checkpoint(back, loaded, c, true);
  Optimizer<float> a(saved, {}, {}), b(loaded, {}, {});
  CHECK(a.digest(12) == b.digest(12));
  CHECK(a.digest(12) != a.digest(13));
  loaded.values()[5] = std::nextafter(loaded.values()[5], 9.0f);
  CHECK(a.digest(12) != b.digest(12));
}

TEST_CASE("the digest of the state tells every part of it", "[train]") {
  const std::map<std::string, HotChannels> hot = {{"0.attn.q_proj", {{3, 1}, {0.5f, 0.25f}, 10}},
                                                  {"1.mlp.up_proj", {{2}, {1.0f}, 10}}};
  const std::string digest = "0123456789abcdef", whole = state_digest(digest, 512, hot);
  // computed from the definition by another program
  CHECK(state_digest(digest, 512, {}) == "da5639c957038fae");
  CHECK(whole == "13dbe94e78d28b12");
  CHECK(state_digest("0123456789abcdee", 512, hot) != whole);
  CHECK(state_digest(digest, 513, hot) != whole);
  const auto with = [&](const std::function<void(HotChannels &)> &change) {
    auto other = hot;
    change(other.at("0.attn.q_proj"));
    return state_digest(digest, 512, other);
  };
  CHECK(with([](HotChannels &) {}) == whole);
  CHECK(with([](HotChannels &h) { std::swap(h.indices[0], h.indices[1]); }) != whole);
  CHECK(with([](HotChannels &h) { h.scores[1] = std::nextafter(0.25f, 1.0f); }) != whole);
  CHECK(with([](HotChannels &h) { h.chosen_at = 20; }) != whole);
}

TEST_CASE("checkpoints that do not fit are refused", "[train]") {
  const Folder folder;
  const ModelConfig tiny = preset(find_family("gla"), "tiny"), other = preset(find_family("qwen3"), "tiny");
  const auto backend = make_cpu_backend(1);
  Parameters<float> parameters(*backend, tiny, true), wrong(*backend, other, true);
  initialise(parameters, tiny, 4);
  const std::string path = folder.file("c.safetensors");
  save_checkpoint(path, parameters, tiny, "", {}, false);
  CHECK(refusal([&] {
          load_checkpoint(read_checkpoint(path), parameters, tiny, true);
        }).find("no optimizer state") != std::string::npos);
  CHECK(refusal([&] { load_checkpoint(read_checkpoint(path), wrong, other, false); }).find("expected") !=
        std::string::npos);
  io::TensorFile fewer = io::read_tensors(path);
  fewer.tensors.erase(fewer.tensors.begin() + 5);
  const Checkpoint changed = parse_checkpoint(io::TensorReader(fewer), "fewer");
  CHECK(refusal([&] { load_checkpoint(changed, parameters, tiny, false); }).find("does not have") !=
        std::string::npos);
  io::TensorFile file = io::read_tensors(path);
  file.metadata["version"] = "2";
  io::write_tensors(path, file);
  CHECK(refusal([&] { (void)read_checkpoint(path); }).find("version") != std::string::npos);
  file.metadata.clear();
  io::Tensor head = file.at("model.embeddings.weight");
  head.name = "lm_head.weight";
  file.tensors.push_back(head);
  io::write_tensors(path, file); // as another program writes it, with the tied head stored
  CHECK_NOTHROW(load_checkpoint(read_checkpoint(path), parameters, tiny, false));
  file.tensors.back().data[5] ^= std::byte{1};
  io::write_tensors(path, file);
  CHECK(refusal([&] {
          load_checkpoint(read_checkpoint(path), parameters, tiny, false);
        }).find("differs from the embedding") != std::string::npos);
}

TEST_CASE("tensor streams write what the whole file would be, and hold one tensor at a time", "[train]") {
  const Folder folder;
  const std::string path = folder.file("s.safetensors");
  io::TensorStream small;
  small.metadata = {{"k", "v"}};
  small.tensors = {
      {"bytes", io::DType::u8, {3}}, {"empty", io::DType::f64, {0}}, {"words", io::DType::u32, {2}}};
  const std::vector<std::vector<std::byte>> content = {
      std::vector(3, std::byte{7}), {}, std::vector(8, std::byte{9})};
  small.bytes = [&](size_t i) { return std::span(content[i]); };
  io::write_safetensors(path, small);
  const std::vector<std::byte> old = io::read_file(path);
  CHECK(old == io::to_safetensors(io::collect(small)));
  const io::TensorReader reader(path);
  REQUIRE(reader.headers().size() == 3);
  for (size_t i = 0; i < 3; ++i) CHECK(reader.read(i) == reader.read_all().tensors[i]);

  // what fails half-way leaves the old file and nothing else
  small.bytes = [&](size_t i) {
    if (i == 0) throw nvfp4::Error("no more");
    return std::span(content[i]);
  };
  CHECK(refusal([&] { io::write_safetensors(path, small); }) == "no more");
  small.bytes = [&](size_t) { return std::span(content[2]); };
  CHECK(refusal([&] { io::write_safetensors(path, small); }).find("bytes of its shape") != std::string::npos);
  CHECK(io::read_file(path) == old);
  CHECK(std::distance(std::filesystem::directory_iterator(folder.path), {}) == 1);

  // a file that another replaces stays the one that was opened; one that was cut is noticed
  io::write_tensors(path, io::TensorFile{});
  CHECK(reader.read(1).data == content[2]); // the largest elements come first
  io::write_tensors(path, io::collect({small.tensors, {}, [&](size_t i) { return std::span(content[i]); }}));
  const io::TensorReader cut(path);
  std::filesystem::resize_file(path, std::filesystem::file_size(path) - 1);
  CHECK(refusal([&] { (void)cut.read_all(); }).find("shorter") != std::string::npos);
  CHECK(refusal([&] { (void)io::TensorReader(path); }).find("s.safetensors") != std::string::npos);

  // 128 MB through memory of one tensor
  io::TensorStream large;
  const std::vector<float> part(1 << 20, 1.5f);
  for (int i = 0; i < 32; ++i)
    large.tensors.push_back({"t" + std::to_string(i), io::DType::f32, {int64_t(part.size())}});
  large.bytes = [&](size_t) { return std::as_bytes(std::span(part)); };
  const int64_t before = peak_kilobytes();
  io::write_safetensors(folder.file("large.safetensors"), large);
  const io::TensorReader back(folder.file("large.safetensors"));
  for (size_t i = 0; i < back.headers().size(); ++i) CHECK(back.read(i).as<float>()[12345] == 1.5f);
  CHECK(peak_kilobytes() - before < 24 << 10);
}

TEST_CASE("AdamW as published, with decay of matrices only", "[train]") {
  ModelConfig c = preset(find_family("gla"), "tiny");
  const auto backend = make_double_backend(1);
  Parameters<double> p(*backend, c, true);
  initialise(p, c, 1);
  const std::string matrix = "model.layers.0.attn.q_proj.weight", vector = "model.norm.weight";
  const double w = p.value(matrix)[7], n = p.value(vector)[7];
  p.gradient(matrix)[7] = 0.5;
  p.gradient(vector)[7] = -0.25;
  Optimizer<double> optimizer(p, {0.9, 0.95, 1e-8, 0.1, 0.0}, {});
  CHECK(optimizer.step(1, 0.25f) == Approx(std::sqrt(0.5 * 0.5 + 0.25 * 0.25)));
  // after one step the bias-corrected moments are g and g^2
  CHECK(p.value(matrix)[7] == Approx(w - 0.25 * 0.1 * w - 0.25 * 0.5 / (0.5 + 1e-8)));
  CHECK(p.value(vector)[7] == Approx(n + 0.25 * 0.25 / (0.25 + 1e-8)));
  CHECK(p.gradient(matrix)[7] == 0.0);
}

TEST_CASE("steps give the same words on any number of threads", "[train]") {
  StepsOptions o;
  o.steps = 3;
  o.batch = 2;
  o.sequence = 32;
  o.recipe = "chon";
  o.model = GENERATE(as<std::string>{}, "gla", "qwen3", "gdn", "gsa", "mamba2");
  o.threads = 1;
  const std::vector<StepRecord> one = run_steps(o);
  o.threads = 3;
  CHECK(run_steps(o) == one);
  o.seed = 2;
  CHECK(run_steps(o) != one);
}
