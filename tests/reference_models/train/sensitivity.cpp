// SPDX-License-Identifier: Apache-2.0
// Sensitivity measures each linear layer and each operator inside the mixer alone.
#include "nvfp4/reference_models/data/source.hpp"
#include "nvfp4/reference_models/family/mixer_operators.hpp"
#include "nvfp4/reference_models/train/evaluate.hpp"
#include "nvfp4/reference_models/train/session.hpp"
#include "tests/catch.hpp"

using namespace nvfp4::models;

TEST_CASE("every operator is measured alone, those inside mixers by the gap itself", "[train]") {
  for (const char *name : {"llama", "gla", "gdn", "gsa", "mamba2"}) {
    CAPTURE(name);
    ModelConfig config = find_model(name, "tiny");
    config.layers = 1; // and two chunks, so that there is a state to read
    config.init_std = 0.1; // and something to read in it
    const std::unique_ptr<DataSource> data = open_data("task:copy,vocab=200", 0.05, 80);
    const Session session = make_session("cpu", 1, config, load_recipe("bf16"), 1, 80, false);
    initialise(session.model->parameters(), config, 2);
    session.model->parameters_changed();
    const std::vector<SensitivityRecord> records = sensitivity(*session.model, "cpu", 1, *data, 1, {});
    const std::vector<std::string> inside = mixer_operator_roles(*config.family);
    const bool gates = std::string(name) != "llama";
    CHECK(records.size() == linear_roles(*config.family).size() - 1 + inside.size() + size_t(gates));
    CHECK((records.back().op == "gate_inputs") == gates);
    for (const SensitivityRecord &r : records) {
      CAPTURE(r.op);
      CHECK(r.loss != r.baseline);
      CHECK((r.parameters == 0) == (mixer_operator_or_null(r.op) != nullptr || r.op == "gate_inputs"));
      if (r.parameters == 0) CHECK(r.score == Approx(100 * (r.loss - r.baseline) / r.baseline));
    }
  }
}
