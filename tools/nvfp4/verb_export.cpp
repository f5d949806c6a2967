// SPDX-License-Identifier: Apache-2.0
// nvfp4 export: a checkpoint in another container.
#include "nvfp4/golden/io/message.hpp"
#include "nvfp4/reference_models/pretrained/trained_layers.hpp"
#include "tools/nvfp4/terminal.hpp"
#include "tools/nvfp4/verbs.hpp"

#include <fmt/core.h>
#include <memory>

namespace nvfp4::tool {
namespace {

using namespace checkpoint;

struct Options {
  std::string source, out, to, recipe;
  ExportOptions how;
  bool json = false;
};

int run(Options o) {
  o.how.target = parse_enum<Target>(o.to);
  tool::Progress progress("export");
  o.how.progress = [&](double part) { progress.show(part); };
  const Checkpoint source = open_checkpoint(o.source);
  if (!o.recipe.empty()) o.how.quantizers = models::pretrained::recipe_quantizers(source, models::load_recipe(o.recipe));
  const ExportReport r = export_checkpoint(source, o.out, o.how);
  progress.done();
  if (o.json) {
    fmt::print("{}\n", to_json(r, o.out));
    return kEqual;
  }
  fmt::print("{}: {} weights carried, {} quantized, {} dequantized, {} tensors copied\n",
             io::printable(o.out), r.carried, r.quantized, r.dequantized, r.copied);
  if (r.inverted > 0)
    fmt::print("{} global scales became their reciprocals; the words they were stand in the metadata\n",
               r.inverted);
  if (r.values_apart > 0)
    fmt::print("{} weights have FP32 values that differ in a rounding, because the global scale is "
               "stored or applied otherwise (--exact refuses)\n",
               r.values_apart);
  if (r.rounded > 0) fmt::print("{} numbers were rounded to BF16\n", r.rounded);
  for (const std::string &note : r.notes) fmt::print("note: {}\n", note);
  return kEqual;
}

} // namespace

void register_export(Command &app, int &exit_code) {
  auto *verb =
      app.add_subcommand("export", "A checkpoint in another container, codes and block scales untouched");
  auto o = std::make_shared<Options>();
  verb->add_option("source", o->source, "What nvfp4 inspect reads")->required();
  verb->add_option("-o,--output", o->out, "A folder to be made, or a .gguf file")->required();
  verb->add_option("--to", o->to, name_list<Target>())->required();
  verb->add_option(
      "--convention", o->how.convention,
      "Quantizes numbers by it (default where the source has no quantized weight: the container's own)");
  verb->add_option("--recipe", o->recipe,
                   "Instead: quantizes weights as this recipe's forward products do, tiles and layers kept in BF16 "
                   "included; refused for what no container says (rotation, the Hot-Channel Patch)");
  verb->add_option("--tensor", o->how.tensors,
                   "Which matrices are quantized, by name (default: '*proj.weight', '*.w[123].weight')");
  verb->add_flag("--exact", o->how.exact,
                 "Refuse where a reconstructed FP32 value changes because the global scale is stored or "
                 "applied otherwise");
  verb->add_option("--threads", o->how.threads, "Threads (default: all)")->check(NotNegative{});
  verb->add_flag("--json", o->json, "One line of JSON");
  verb->footer("Example: nvfp4 export model-bf16 -o model-nvfp4 --to modelopt --convention te");
  verb->callback([o, &exit_code] { exit_code = run(*o); });
}

} // namespace nvfp4::tool
