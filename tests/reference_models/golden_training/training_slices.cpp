// SPDX-License-Identifier: Apache-2.0
// Files of golden training slices: what is read is what is written, damage is named, and a repetition finds
// the first step that differs. (That all recorded slices repeat is ctest golden_training.)
#include "nvfp4/reference_models/golden_training/training_slices.hpp"
#include "tests/golden/io/support.hpp"

#include "nvfp4/golden/manifest.hpp"
#include "nvfp4/reference_models/train/fields.hpp"

#include <algorithm>

using namespace nvfp4;
using namespace nvfp4::models;

namespace {

std::string training_folder() { return golden::find_golden_folder() + "/training"; }

std::string replaced(std::string text, const std::string &what, const std::string &with) {
  const size_t at = text.find(what);
  REQUIRE(at != std::string::npos);
  return text.replace(at, what.size(), with);
}

} // namespace

TEST_CASE("every recorded file is read and written word for word", "[golden_training]") {
  for (const ModelFamily *family : families()) {
    const std::string path = training_folder() + "/" + std::string(family->name) + ".json";
    CAPTURE(path);
    const std::string text = read_text(path);
    const std::vector<TrainingSlice> slices = parse_training_slices(text, path);
    CHECK(training_slices_json(slices) == text);
    REQUIRE(slices.size() == builtin_recipes().size());
    for (size_t i = 0; i < slices.size(); ++i) {
      CHECK(slices[i].options.recipe == builtin_recipes()[i]);
      CHECK(slices[i].options.model == family->name);
      CHECK(slices[i].steps.size() == 20);
    }
  }
  CHECK(read_training_slices(training_folder(), "tiny chon").size() == families().size());
}

TEST_CASE("products inside mixers have recorded files of their own", "[golden_training]") {
  const std::string folder = training_folder() + "/../mixers/training";
  for (const ModelFamily *family : families()) {
    const std::string path = folder + "/" + std::string(family->name) + ".json", text = read_text(path);
    CAPTURE(path);
    const std::vector<TrainingSlice> slices = parse_training_slices(text, path);
    CHECK(training_slices_json(slices) == text);
    const std::vector<StepsOptions> runs = mixer_product_runs(family->name, 5);
    REQUIRE(slices.size() == runs.size());
    for (size_t i = 0; i < slices.size(); ++i) {
      CHECK(slices[i].options.model == runs[i].model);
      CHECK(slices[i].options.recipe == runs[i].recipe);
      CHECK(slices[i].options.batch == runs[i].batch);
      CHECK(slices[i].options.sequence == runs[i].sequence);
      CHECK(slices[i].steps.size() == size_t(runs[i].steps));
    }
  }
}

TEST_CASE("a repetition finds the first step that differs", "[golden_training]") {
  std::vector<TrainingSlice> slices = read_training_slices(training_folder(), "gla tiny nvfp4-plain");
  REQUIRE(slices.size() == 1);
  TrainingSlice slice = slices[0];
  slice.steps.resize(4);
  slice.options.steps = 4;
  CHECK(repeat(slice).identical());
  TrainingSlice loss = slice, digest = slice;
  loss.steps[2].loss ^= 1;
  CHECK(repeat(loss, "cpu", 1).equal == 2);
  digest.steps[3].digest[15] ^= 1;
  const SliceRepetition got = repeat(digest);
  CHECK(got.equal == 3);
  CHECK_FALSE(got.identical());
  CHECK(step_text(got.steps[3]) == step_text(slice.steps[3]));
}

TEST_CASE("damaged files of training slices are named with what is wrong", "[golden_training]") {
  const std::string good = read_text(training_folder() + "/gla.json");
  const auto refuses = [&](const std::string &what, const std::string &with, const std::string &why) {
    CAPTURE(what, with);
    const std::string bad = replaced(good, what, with);
    io::check_message(io::error_of([&] { (void)parse_training_slices(bad, "a/gla.json"); }),
                      {"a/gla.json: ", why});
  };
  refuses("nvfp4-training-slices", "training-slices", "expected format nvfp4-training-slices");
  refuses("\"version\": 1", "\"version\": 2", "version 1");
  refuses("\"batch\": 4", "\"batch\": \"4\"", "'batch' takes a whole number of at least 1");
  refuses("\"batch\": 4", "\"batch\": 0", "'batch' takes a whole number of at least 1, got 0");
  refuses("\"batch\"", "\"bath\"", "unknown key 'bath'");
  refuses("\"seed\": 1,", "", "expected model, size, data, batch");
  refuses("\"40b1c84a\"", "\"40b1c84\"", "slice 0: loss_hex: expected 8 hexadecimal digits");
  refuses("\"40b1c84a\",", "", "as many losses as digests, got 19 and 20");
  refuses("\"recipe\": \"fp32\"", "\"recipe\": 32", "slice 0: recipe: expected a string");
  refuses("\"slices\": [", "\"slice\": [", "'slices'");
  CHECK_THROWS_WITH(parse_training_slices(good.substr(0, good.size() / 2), "f"),
                    Catch::Contains("f: expected JSON"));
  CHECK_THROWS_WITH(read_training_slices("nowhere/training"), Catch::Contains("--dir"));
  CHECK_THROWS_WITH(read_training_slices(training_folder(), "rwkv"),
                    Catch::Contains("no training slice matches 'rwkv'"));
}
