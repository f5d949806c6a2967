// SPDX-License-Identifier: Apache-2.0
// nvfp4 generate: new tokens from a Hugging Face folder or a .gguf file, in exact arithmetic.
#include "nvfp4/golden/io/file.hpp"
#include "nvfp4/golden/io/message.hpp"
#include "nvfp4/reference_models/pretrained/generate.hpp"
#include "tools/nvfp4/numbers.hpp"
#include "tools/nvfp4/pretrained_options.hpp"
#include "tools/nvfp4/terminal.hpp"
#include "tools/nvfp4/verbs.hpp"

#include <fmt/format.h>

#include <memory>

namespace nvfp4::tool {
namespace {

using namespace nvfp4::models;

struct Options {
  std::string folder, tokens, output;
  PretrainedFlags flags;
  pretrained::GenerateOptions generate;
  bool recompute = false, json = false;
  int threads = 0;
};

/// int32 of shape [T] or [1, T].
std::vector<int32_t> read_prompt(const std::string &path) {
  const io::TensorFile file = io::read_tensors(path);
  const bool one = file.tensors.size() == 1;
  const io::Tensor *t = one ? &file.tensors.front() : nullptr;
  if (!one || t->dtype != io::DType::i32 || t->shape.empty() || t->shape.size() > 2 ||
      (t->shape.size() == 2 && t->shape[0] != 1))
    throw Error(io::printable(path) + ": expected one tensor of int32 tokens of shape [T] or [1, T], got " +
                (one ? std::string(io::info(t->dtype).safetensors) + " " + io::shape_text(t->shape)
                     : std::to_string(file.tensors.size()) + " tensors"));
  const std::span<const int32_t> ids = t->as<int32_t>(path);
  return {ids.begin(), ids.end()};
}

int run(const Options &o) {
  if (!pretrained::is_pretrained(o.folder))
    throw Error(io::printable(o.folder) +
                ": expected a Hugging Face folder with config.json and .safetensors files, or a .gguf file");
  const pretrained::RunOptions options = of_folder(o.flags, o.folder, "", "cpu", o.threads);
  pretrained::GenerateOptions g = o.generate;
  g.prompt = read_prompt(o.tokens);
  g.cache = !o.recompute;
  Progress progress("generate");
  int64_t done = 0;
  g.token = [&](int32_t) { progress.show(double(++done) / double(g.tokens)); };
  pretrained::Session session = pretrained::open_session(options, true);
  const pretrained::Generated made = pretrained::generate(session, g);
  progress.done();
  if (!o.output.empty()) {
    io::TensorFile file;
    file.tensors.push_back(io::Tensor::from("tokens", {int64_t(made.tokens.size())}, made.tokens));
    io::write_tensors(o.output, file);
  }
  if (o.json) {
    fmt::print("{}\n", to_json(made));
  } else {
    fmt::print("{}\n", fmt::join(made.tokens, " "));
    if (made.not_finite) fmt::print("NOT FINITE: {}\n", made.not_finite->text());
  }
  return made.not_finite ? kNotFinite : kEqual;
}

} // namespace

void register_generate(Command &app, int &exit_code) {
  auto *verb = app.add_subcommand("generate", "New tokens from a Hugging Face folder or a .gguf file");
  auto o = std::make_shared<Options>();
  verb->add_option("folder", o->folder, "config.json and .safetensors files, or a .gguf file: Llama, Qwen2.5, Qwen3, Gemma 3")
      ->required();
  verb->add_option("--tokens", o->tokens, "The prompt: int32 [T] (.npy or .safetensors)")->required();
  verb->add_option("--new", o->generate.tokens, "New tokens at most")
      ->capture_default_str()
      ->check(Range{int64_t{1}, int64_t{1} << 24});
  verb->add_option("--temperature", o->generate.temperature, "0: the largest logit")
      ->capture_default_str()
      ->check(Range{0.0, 1e6});
  verb->add_option("--seed", o->generate.seed, "With a temperature")->capture_default_str();
  verb->add_option("--recipe", o->flags.recipe, "Built-in name or JSON file (default bf16)");
  add_folder_options(*verb, o->flags);
  verb->add_flag("--recompute", o->recompute, "Without a cache: every token from a pass over all before it");
  verb->add_option("-o,--output", o->output, "The new tokens (.npy)");
  add_threads(*verb, o->threads);
  verb->add_flag("--json", o->json, "One line of JSON");
  verb->footer(
      "Prints the ids of the new tokens. Exit code 4: a weight or a tensor on the way is not finite; the "
      "first is named.\nExample: nvfp4 generate qwen3-0.6b --tokens prompt.npy --new 20");
  verb->callback([o, &exit_code] { exit_code = run(*o); });
}

} // namespace nvfp4::tool
