// SPDX-License-Identifier: Apache-2.0
// Diagnostics of the operators inside mixers: where a recipe has rules for them, and without a changed bit.
#include "nvfp4/reference_models/family/config.hpp"
#include "nvfp4/reference_models/recipe/recipe.hpp"
#include "nvfp4/reference_models/report/run_data.hpp"
#include "nvfp4/reference_models/train/trainer.hpp"
#include "tests/catch.hpp"
#include "tests/temporary_folder.hpp"

#include <fstream>
#include <set>

using namespace nvfp4::models;

TEST_CASE("operators inside mixers are measured in blocks with rules for them", "[train]") {
  struct Case {
    const char *family;
    std::set<std::string> operators;
    int64_t scores; ///< columns of the widest matrix of scores
  };
  for (const Case &c :
       {Case{"gdn",
             {"attn.qk", "attn.kk", "attn.av", "attn.state_read", "attn.state_update", "attn.state_recall"},
             64},
        Case{"gla", {"attn.qk", "attn.av", "attn.state_read", "attn.state_update"}, 64},
        Case{"gsa",
             {"attn.qk", "attn.slot_scores", "attn.state_read_keys", "attn.state_update_keys",
              "attn.slot_weights", "attn.av", "attn.state_read", "attn.state_update"},
             64},
        Case{"mamba2", {"attn.qk", "attn.av", "attn.state_read", "attn.state_update"}, 64},
        Case{"qwen3", {"attn.qk", "attn.pv"}, 80}}) {
    CAPTURE(c.family);
    const nvfp4::test::TemporaryFolder folder;
    const std::string file = (folder.path / "r.json").string();
    Recipe recipe = load_recipe("nvfp4");
    recipe.name = "inside";
    recipe.mixer_rules.push_back({.roles = {"attn.qk", "attn.state_*"}, .last = 0.5, .use = "nvfp4"});
    std::ofstream(file) << to_json(recipe);
    TrainOptions o;
    o.model = c.family;
    o.recipe = file;
    o.data = "task:copy,vocab=200";
    o.steps = 2;
    o.batch = 2;
    o.sequence = 80; // a chunk and one of 16 tokens
    o.eval_batches = 1;
    o.threads = 1;
    o.diagnostics_every = 1;
    o.out = (folder.path / "watched").string();
    const TrainResult watched = train(o);
    o.diagnostics_every = 0;
    o.out = (folder.path / "blind").string();
    CHECK(train(o).parameter_digest == watched.parameter_digest);
    const RunData run = read_run((folder.path / "watched").string());
    std::set<std::string> seen;
    const ModelConfig config = find_model(c.family, "tiny");
    for (const TensorRecord &t : run.tensors) {
      if (!c.operators.contains(t.op)) continue;
      seen.insert(t.op);
      CHECK(t.layer >= 2); // of four blocks
      CHECK(t.quantized == (t.op == "attn.qk" || t.op.starts_with("attn.state_")));
      CHECK(t.snr_db > 5);
      if (t.op == "attn.av" || t.op == "attn.pv") {
        if (t.kind == TensorKind::activation) CHECK(t.channels == c.scores);
        if (t.kind == TensorKind::gradient) CHECK(t.channels == config.value_head());
      }
    }
    CHECK(seen == c.operators);
  }
}
