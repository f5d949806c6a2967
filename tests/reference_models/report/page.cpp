// SPDX-License-Identifier: Apache-2.0
// The report of runs made up here: its numbers, its verdicts, its form as a document; and the folders it
// refuses.
#include "tests/golden/io/support.hpp"
#include "tests/temporary_folder.hpp"

#include "nvfp4/golden/io/file.hpp"
#include "nvfp4/reference_models/report/analysis.hpp"
#include "nvfp4/reference_models/report/report.hpp"
#include "nvfp4/reference_models/train/options.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fmt/core.h>
#include <fstream>
#include <unistd.h>

using namespace nvfp4;
using namespace nvfp4::models;
namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

namespace {

using Folder = test::TemporaryFolder;

/// A run whose loss lies `gap` percent above that of BF16 with the same seed.
std::string write_run(const Folder &folder, const std::string &family, const std::string &recipe,
                      uint64_t seed, double gap, bool diagnostics = true) {
  const std::string dir = (folder.path / (family + "-tiny-" + recipe + "-" + std::to_string(seed))).string();
  fs::create_directories(dir);
  TrainOptions o;
  o.model = family;
  o.recipe = recipe;
  o.seed = seed;
  o.steps = 120;
  o.data = "/somewhere/secret/bible & <psalms>.txt";
  std::ofstream(dir + "/run.json") << Json{
      {"version", 1},
      {"model", {{"family", family}, {"name", "tiny"}}},
      {"recipe", {{"name", recipe}}},
      {"options", options_to_json(o)},
      {"parameters", 913408}}.dump();
  std::ofstream log(dir + "/log.jsonl");
  const auto norm = [&](int step) { // one spike, under nvfp4
    return step == 100 && recipe == "nvfp4" ? 4.0 : 1.0 + 0.1 * (step % 2);
  };
  for (int step = 1; step <= 120; ++step) {
    const double loss = (2 + 0.1 * double(seed) + 3 * std::exp(-step / 20.0)) * (1 + gap / 100);
    Json line = {{"step", step},
                 {"tokens", step * 256},
                 {"loss", loss},
                 {"grad_norm", norm(step)},
                 {"tokens_per_s", 9000}};
    if (step == 120) line["val_loss"] = loss * 1.01;
    log << line.dump() << "\n";
  }
  log << "{\"step\":121,\"lo"; // a run that goes on has half a line
  if (!diagnostics) return dir;

  Recorder r(dir);
  for (int64_t step = 10; step <= 120; step += 10) {
    r.begin_step(step);
    for (int layer = 0; layer < 2; ++layer)
      for (const char *op : {"attn.o_proj", "attn.q_proj", "mlp.down_proj", "mlp.up_proj"}) {
        std::vector<float> x(32 * 128), w(32 * 128);
        for (size_t i = 0; i < x.size(); ++i) {
          x[i] = float(int(i * 7919 % 211) - 105) / 105.0f;
          w[i] = float(int(i * 104729 % 173) - 86) / 860.0f;
        }
        // hot channels: they move until step 60, then stay; larger in softmax attention, smaller under chon
        const int64_t hot = step <= 60 ? step * 13 % 128 : 77;
        const float size = (family == "gla" ? 6.0f : 30.0f) * (recipe == "chon" ? 0.5f : 1.0f);
        for (int64_t t = 0; t < 32; ++t) x[size_t(t * 128 + hot)] = size;
        r.tensor(layer, op, TensorKind::activation, {x.data(), 32, 128}, {});
        r.tensor(layer, op, TensorKind::weight, {w.data(), 32, 128}, {"te", 16, true});
      }
    if (family == "gla")
      r.gate(0, -8, 3, 8.0 + double(step));
    else
      r.attention(0, 3 - 0.001 * double(step), 4 + 0.01 * double(step), 1 - 0.001 * double(step), 0.3, 0.5);
    std::vector<float> stream(32 * 64, 0.25f);
    r.residual(-1, {stream.data(), 32, 64});
    for (int layer = 0; layer < 2; ++layer) { // one massive activation in block 1 of softmax attention
      stream[70] = float(layer + 1) * (family == "gla" ? 40.0f : 200.0f) + float(step);
      r.residual(layer, {stream.data(), 32, 64});
    }
    r.swiglu(0, 0.07 + 0.0001 * double(step), 0.2, 0.08);
    r.end_step();
  }
  r.save();
  return dir;
}

/// Every tag is closed in order and every attribute quoted, as in XML; the DOCTYPE aside.
std::string first_fault(const std::string &html) {
  std::vector<std::string> open;
  for (size_t at = html.find('\n'); (at = html.find('<', at)) != std::string::npos;) {
    const size_t end = html.find('>', at);
    if (end == std::string::npos) return "tag without an end";
    const std::string tag = html.substr(at + 1, end - at - 1);
    at = end;
    if (tag.find('<') != std::string::npos) return "unescaped <: " + tag;
    if (std::count(tag.begin(), tag.end(), '"') % 2) return "quotes: " + tag;
    const std::string name = tag.substr(0, tag.find_first_of(" /", 1));
    if (tag[0] == '/') {
      if (open.empty() || "/" + open.back() != tag) return "closes " + tag;
      open.pop_back();
    } else if (tag.back() != '/') {
      open.push_back(name);
    }
  }
  return open.empty() ? "" : "left open: " + open.back();
}

size_t count(const std::string &text, const std::string &part) {
  size_t n = 0;
  for (size_t at = 0; (at = text.find(part, at)) != std::string::npos; at += part.size()) ++n;
  return n;
}

std::string slurp(const std::string &path) {
  const auto bytes = io::read_file(path);
  return {reinterpret_cast<const char *>(bytes.data()), bytes.size()};
}

std::vector<RunData> read_all(const Folder &folder) {
  std::vector<RunData> runs;
  for (const std::string &f : find_runs({folder.path.string()})) runs.push_back(read_run(f));
  return runs;
}

Ordering ordering(const std::vector<Ordering> &list, const std::string &claim, const std::string &where) {
  for (const Ordering &o : list)
    if (o.claim.find(claim) != std::string::npos && o.where.find(where) != std::string::npos) return o;
  FAIL("no ordering " << claim << " of " << where);
  return list.front();
}

/// Two families, three recipes, three seeds, with diagnostics and one run's sensitivity scores.
void write_study(const Folder &folder) {
  for (const char *family : {"gla", "qwen3"})
    for (uint64_t seed = 1; seed <= 3; ++seed) {
      write_run(folder, family, "bf16", seed, 0);
      write_run(folder, family, "nvfp4", seed, 1.0 + 0.1 * double(seed));
      write_run(folder, family, "chon", seed, 0.5 + 0.1 * double(seed));
    }
  const SensitivityRecord scores[] = {{"attn.q_proj", 0.03, 2.1, 2, 1},
                                      {"attn.o_proj", 0.07, 2.2, 2, 1},
                                      {"mlp.down_proj", 0.01, 2.05, 2, 1},
                                      {"attn.pv", 9, 2.18, 2, 0}}; // inside a mixer: not in the paper's table
  write_sensitivity((folder.path / "gla-tiny-bf16-1").string(), scores);
}

/// The texts of a class in a drawing, without markup.
std::vector<std::string> texts_of(const std::string &svg, const std::string &css) {
  std::vector<std::string> all;
  const std::string open = "class=\"" + css;
  for (size_t at = 0; (at = svg.find(open, at)) != std::string::npos;) {
    const size_t from = svg.find('>', at) + 1, to = svg.find('<', from);
    all.push_back(svg.substr(from, to - from));
    at = to;
  }
  return all;
}

} // namespace

TEST_CASE("report: one well-formed page without anything outside it, with the numbers") {
  const Folder folder;
  write_study(folder);
  const std::vector<RunData> runs = read_all(folder);
  REQUIRE(runs.size() == 18);
  const std::string html = make_report(runs, "9.8.7");
  CHECK(first_fault(html).empty());
  for (const char *outside : {"http:", "https:", "src=", "@import", "url(", "<script", "<link"})
    CHECK(html.find(outside) == std::string::npos);
  const size_t links = count(html, "href=");
  CHECK(links >= 10);
  CHECK(links == count(html, "href=\"data:text/csv;charset=utf-8,"));
  CHECK(links == count(html, "<figure>")); // numbers behind every chart
  CHECK(html.find("prefers-color-scheme:dark") != std::string::npos);
  CHECK(count(html, "<svg viewBox") >= 20);
  // labels at the ends of curves say what the table says: its smoothed losses and gaps
  for (const char *label : {">nvfp4 1.200 %<", ">chon 0.700 %<"})
    CHECK(count(html, label) == 4); // models times widths
  for (const RunGroup &g : group_runs(runs)) {
    std::vector<double> smoothed;
    for (const RunData *r : g.runs) smoothed.push_back(losses_of(*r)->smoothed);
    CHECK(html.find(">" + g.recipe + " " + fmt::format("{:.4f}", estimate(smoothed).mean) + "<") !=
          std::string::npos);
  }
  for (const char *part :
       {"1.200 ± 0.248 %", "0.700 ± 0.248 %", "0.939 %", "0.588 %", "short runs", "120 steps",
        "30,720 tokens", "bible &amp; &lt;psalms&gt;.txt", "nvfp4 9.8.7", "913,408", "attn.o_proj", "Fig. 7"})
    CHECK(html.find(part) != std::string::npos);
  CHECK(html.find("secret") == std::string::npos); // the file's name, not its folder
  CHECK(html.find("nan") == std::string::npos);

  const std::vector<Ordering> o = judge_orderings(group_runs(runs));
  const auto verdict = [&](const char *claim, const char *where) {
    return ordering(o, claim, where).verdict;
  };
  CHECK(verdict("kurtosis is lower in GLA", "gla-tiny and qwen3-tiny") == Verdict::held);
  CHECK(verdict("blocks have spikes", "gla") == Verdict::held);
  CHECK(verdict("Hot channels drift", "gla") == Verdict::held);
  CHECK(verdict("More activations than weights", "qwen3") == Verdict::held);
  CHECK(verdict("CHON flushes fewer", "qwen3") == Verdict::held);
  CHECK(verdict("gk_proj", "gla") == Verdict::held); // 128 at the end, against hot inputs of 6
  CHECK(verdict("attn.o_proj is the most", "gla") == Verdict::not_settled); // by one run with scores
  CHECK(ordering(o, "attn.o_proj is the most", "gla").measured.find("number 1 of") != std::string::npos);
  CHECK(verdict("down_proj is the least", "gla") == Verdict::not_settled);
  CHECK(verdict("v_proj is the most", "qwen3") == Verdict::not_measured);
  CHECK(verdict("BF16 below CHON", "gla") == Verdict::held);
  CHECK(verdict("CHON below NVFP4", "qwen3") == Verdict::held);
  CHECK(verdict("entropy falls", "qwen3") == Verdict::held);
  CHECK(verdict("largest logit rises", "qwen3") == Verdict::held);
  CHECK(verdict("kurtosis of logits rises", "qwen3") == Verdict::not_held); // it falls in these runs
  CHECK(verdict("W_up and W_gate align", "gla") == Verdict::held);
}

TEST_CASE("report: other work's measures of outliers, in charts as in the table") {
  const Folder folder;
  write_study(folder);
  const std::vector<RunData> runs = read_all(folder);
  const std::string html = make_report(runs, "1");
  const std::vector<RunGroup> groups = group_runs(runs);
  const RunData &soft = *find_group(groups, "qwen3-tiny", "nvfp4")->runs[0],
                &gla = *find_group(groups, "gla-tiny", "bf16")->runs[0];
  CHECK(largest_activation(soft).back().y == 520); // 2 * 200 + 120
  CHECK(largest_activation(gla).back().y == 200);
  CHECK(massive_activation_count(soft).front().y == 1); // 210 and 410 over a median of 0.25: above 250
  CHECK(massive_activation_count(soft).back().y == 2);  // 320 and 520
  CHECK(massive_activation_count(gla).back().y == 0);
  REQUIRE(residual_by_depth(soft, &ResidualRecord::largest).size() == 2); // of steps 100, 110, 120
  CHECK(residual_by_depth(soft, &ResidualRecord::largest)[0].y == 310);
  CHECK(residual_by_depth(soft, &ResidualRecord::growth)[0].y == 310 / 0.25);
  CHECK(residual_by_depth(soft, &ResidualRecord::growth)[1].y == Approx(510.0 / 310).epsilon(1e-6));
  CHECK(gradient_spikes(soft).at == std::vector<size_t>{99});
  CHECK(gradient_spikes(gla).at.empty());
  CHECK(soft.attention.back().sink == 0.3);
  for (const TensorRecord &t : soft.tensors) CHECK(t.scale_underflows == 0);
  // the row of the table, and the same numbers at the ends of the lines, once for each width
  CHECK(html.find("<td>qwen3-tiny</td><td>nvfp4</td><td class=\"number\">520</td>") != std::string::npos);
  CHECK(html.find(">3 of 210<") != std::string::npos); // three seeds, 70 steps judged in each
  CHECK(html.find(">1.43<") != std::string::npos);
  CHECK(count(html, ">nvfp4 520<") == 2);
  CHECK(count(html, ">bf16 200<") == 2);
  CHECK(count(html, ">nvfp4 50<") == 2); // heads with a sink, %
  CHECK(html.find("Outliers as other work measures them") != std::string::npos);
  CHECK(count(html, ", spikes%22,100,4%0A") == 6); // a dot a run in the numbers behind the chart
  CHECK(html.find("e-10<") == std::string::npos);  // an axis of nothing but zeros ends at 1
  // an older record has none of it
  const std::string dir = write_run(folder, "gla", "hcp", 9, 0, false);
  std::ofstream(dir + "/diagnostics.jsonl")
      << R"({"step":1,"type":"attention","layer":0,"entropy":1,"logit_max":2,"logit_kurtosis":0})"
      << "\n";
  CHECK(std::isnan(read_run(dir).attention[0].sink));
  CHECK(first_fault(make_report({read_run(dir)}, "1")).empty());
}

TEST_CASE("report: orderings that the runs contradict or cannot settle are said to be so") {
  const Folder folder;
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    write_run(folder, "gla", "bf16", seed, 0, false);
    write_run(folder, "gla", "nvfp4", seed, 0.5, false);
    write_run(folder, "gla", "chon", seed,
              seed == 1   ? 2.0
              : seed == 2 ? 0.1
                          : 0.3,
              false); // worse on average, but by one seed
  }
  const std::vector<Ordering> o = judge_orderings(group_runs(read_all(folder)));
  const Ordering chon = ordering(o, "CHON below NVFP4", "gla");
  CHECK(chon.verdict == Verdict::not_settled);
  CHECK(chon.measured.find(" would settle it, if it goes on so") != std::string::npos);
  CHECK(ordering(o, "BF16 below CHON", "gla").verdict == Verdict::not_settled);
  CHECK(ordering(o, "blocks have spikes", "gla").verdict == Verdict::not_measured);
  CHECK(ordering(o, "GLA than in softmax", "").verdict == Verdict::not_measured);
  const std::string html = make_report(read_all(folder), "1");
  CHECK(first_fault(html).empty());
  CHECK(html.find("<span class=\"open\">not settled</span>") != std::string::npos);
  CHECK(html.find("No diagnostics of tensors") != std::string::npos);
}

TEST_CASE("report: one run, and runs that diverged or stopped early") {
  const Folder folder;
  const std::string dir = write_run(folder, "gla", "nvfp4", 1, 0, false);
  std::string html = make_report({read_run(dir)}, "1");
  CHECK(first_fault(html).empty());
  CHECK(html.find("no confidence intervals") != std::string::npos);
  CHECK(html.find("Without a BF16 run") != std::string::npos);

  std::ofstream(dir + "/log.jsonl") << "{\"step\":1,\"loss\":5.5}\n{\"step\":2,\"loss\":null}\n";
  html = make_report({read_run(dir)}, "1");
  CHECK(first_fault(html).empty());
  CHECK(html.find("Diverged runs") != std::string::npos);
  CHECK(html.find("5.5000") != std::string::npos); // of step 1
  CHECK(html.find("diverged and are left out") != std::string::npos);
  CHECK(html.find("1 run, which diverged.") != std::string::npos);
  html = make_report({read_run(dir), read_run(dir)}, "1");
  CHECK(html.find("2 runs, all of which diverged.") != std::string::npos);
  const std::string good = write_run(folder, "qwen3", "bf16", 1, 0, false);
  html = make_report({read_run(dir), read_run(good)}, "1");
  CHECK(html.find("2 runs of qwen3-tiny and gla-tiny under bf16 and nvfp4, 1 seed.") != std::string::npos);
  CHECK(html.find("had not reached their last step") == std::string::npos); // it stopped, which is said
  std::ofstream(dir + "/log.jsonl") << "{\"step\":1,\"loss\":5.5}\n";
  html = make_report({read_run(dir)}, "1");
  CHECK(html.find("had not reached their last step") != std::string::npos);
  CHECK(html.find("Diverged runs") == std::string::npos);
  fs::remove(dir + "/log.jsonl");
  CHECK(first_fault(make_report({read_run(dir)}, "1")).empty());
}

TEST_CASE("report: a diverged run counts nowhere, and its pairs neither") {
  const Folder folder;
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    write_run(folder, "gla", "bf16", seed, 0);
    write_run(folder, "gla", "nvfp4", seed, 1.0 + 0.1 * double(seed));
    write_run(folder, "gla", "chon", seed, 0.5 + 0.1 * double(seed));
  }
  const std::string chon = (folder.path / "gla-tiny-chon-2").string();
  const std::string tail =
      GENERATE(as<std::string>{}, R"({"step":121,"tokens":1,"loss":null,"grad_norm":1,"diverged":true})",
               R"({"step":121,"tokens":1,"loss":2.5,"grad_norm":null,"diverged":true})");
  {
    std::string log = slurp(chon + "/log.jsonl");
    log.resize(log.rfind('\n') + 1); // without its half line
    std::ofstream(chon + "/log.jsonl") << log << tail << "\n";
  }
  const std::vector<RunData> runs = read_all(folder);
  const auto bad =
      std::find_if(runs.begin(), runs.end(), [](const RunData &r) { return r.diverged.has_value(); });
  REQUIRE(bad != runs.end());
  CHECK(bad->diverged->step == 121);
  const bool gradient_only = tail.find("2.5") != std::string::npos;
  CHECK(bad->diverged->last_finite_step == (gradient_only ? 121 : 120));
  CHECK(bad->diverged->last_finite_loss == Approx(gradient_only ? 2.5 : bad->log[119].loss));
  const std::vector<RunGroup> groups = group_runs(runs);
  CHECK(find_group(groups, "gla-tiny", "chon")->runs.size() == 2);
  CHECK(find_group(groups, "gla-tiny", "bf16")->runs.size() == 3);
  const Ordering o = ordering(judge_orderings(groups), "CHON below NVFP4", "gla");
  CHECK(o.verdict == Verdict::held);
  INFO(o.measured);
  CHECK(o.measured.find("2)") != std::string::npos);
  const std::string html = make_report(runs, "1");
  CHECK(first_fault(html).empty());
  CHECK(html.find("1 of 9 runs diverged") != std::string::npos);
  CHECK(html.find("121 of 120") != std::string::npos);
  CHECK(html.find("diverged at 121") != std::string::npos);
  CHECK(html.find("0.700 ± 0.248") == std::string::npos); // the gap of three seeds
}

TEST_CASE("report: damaged files are refused with file, line, fault and advice") {
  const Folder folder;
  const std::string dir = write_run(folder, "gla", "bf16", 1, 0);
  const SensitivityRecord scores[] = {{"attn.q_proj", 0.03, 2.1, 2, 1}};
  write_sensitivity(dir, scores);
  (void)read_run(dir);
  const auto check = [&](const char *file, const std::string &content, std::vector<std::string> parts) {
    const std::string path = dir + "/" + file, good = slurp(path);
    std::ofstream(path) << content;
    parts.emplace_back(file);
    CAPTURE(file, content);
    io::check_message(io::error_of([&] { (void)read_run(dir); }), parts);
    std::ofstream(path) << good;
  };
  const std::string line1 = "{\"step\":1,\"loss\":5}\n";
  const auto log = [&](const std::string &line, std::vector<std::string> parts) {
    parts.insert(parts.end(), {"line 2: ", "cut the file before this line"});
    check("log.jsonl", line1 + line + "\n" + line1, parts);
  };
  log(R"({"step":2,"lo)", {"expected JSON", "breaks off"});
  log(R"({"step":2,"loss":5}})", {"expected JSON, got "}); // whole, with a brace too many
  log("", {"expected JSON, got nothing"});
  log("[]", {"expected a JSON object, got []"});
  log(R"({"loss":5})", {"expected the key \"step\""});
  log(R"({"step":2})", {"expected the key \"loss\""});
  log(R"({"step":1,"loss":5})", {"step: expected a whole number of at least 2, got 1"});
  log(R"({"step":1.5,"loss":5})", {"step: expected a whole number"});
  log(R"({"step":2,"loss":"5"})", {"loss: expected a number or null, got \"5\""});
  log(R"({"step":2,"loss":5,"tokens":-3})", {"tokens"});
  log(R"({"step":2,"loss":5,"diverged":1})", {"diverged: expected true or false"});
  log(std::string("\0\xFF", 2), {"expected JSON", "\\x00\\xff"});

  const std::string diagnostics = slurp(dir + "/diagnostics.jsonl");
  const std::string record = diagnostics.substr(0, diagnostics.find('\n'));
  for (const char *key : {"step", "type", "layer", "op", "kind", "channels", "kurtosis", "block_kurtosis",
                          "top", "top_max", "hot", "quantized", "ftz", "snr_db"}) {
    Json j = Json::parse(record);
    j.erase(key);
    check("diagnostics.jsonl", record + "\n" + j.dump() + "\n",
          {"line 2", "expected the key", key, "remove"});
    j[key] = {{"an", "object"}};
    check("diagnostics.jsonl", j.dump() + "\n", {"line 1", "remove"});
  }

  Json deep = Json::parse(record);
  deep["layer"] = int64_t{1} << 32;
  check("diagnostics.jsonl", deep.dump() + "\n",
        {"layer: expected a whole number of at least -1 and at most 2147483647, got 4294967296", "remove"});

  const std::string run = slurp(dir + "/run.json");
  for (const char *key : {"version", "model", "recipe", "options", "parameters"}) {
    Json j = Json::parse(run);
    j.erase(key);
    check("run.json", j.dump(), {"expected the key", key, "run it again"});
    j[key] = "text";
    check("run.json", j.dump(), {"expected", "got \"text\""});
  }
  check("run.json", "", {"expected JSON, got nothing"});
  check("run.json", "{\n\"version\": 1,\n\"model\": {", {"line 3", "breaks off"});
  check("run.json", "[1]", {"expected a JSON object"});
  Json later = Json::parse(run);
  later["version"] = 2;
  check("run.json", later.dump(), {"expected version 1", "release"});

  check("sensitivity.json", "", {"got nothing", "remove the file"});
  check("sensitivity.json", "{}", {"expected a list", "remove the file"});
  check("sensitivity.json", R"([{"op":"a"}])", {"score 1", "expected the key \"score\"", "remove the file"});
  const std::string tensors = slurp(dir + "/diagnostics.safetensors");
  check("diagnostics.safetensors", "", {"empty", "remove the file"});
  check("diagnostics.safetensors", tensors.substr(0, 100), {"truncated", "remove the file"});
  check("diagnostics.safetensors", tensors.substr(0, tensors.size() - 1), {"remove the file"});
  io::write_tensors(dir + "/other.safetensors", io::TensorFile{});
  check("diagnostics.safetensors", slurp(dir + "/other.safetensors"), {"'steps'", "remove the file"});
  (void)read_run(dir); // all is as it was
}

TEST_CASE("report: folders that are none are refused in one line") {
  const Folder folder;
  const std::string empty = (folder.path / "empty").string();
  fs::create_directories(empty);
  io::check_message(io::error_of([&] { (void)find_runs({empty}); }), {"empty", "no run.json"});
  io::check_message(io::error_of([&] { (void)find_runs({empty + "/nowhere"}); }),
                    {"nowhere", "expected the folder"});
  const std::string dir = write_run(folder, "gla", "bf16", 1, 0, false);
  CHECK(find_runs({dir, folder.path.string(), dir + "/."}).size() == 1); // the same run three times
  std::ofstream(dir + "/log.jsonl") << "{\"step\":1,\"loss\":5}\n[]\n";
  io::check_message(io::error_of([&] { (void)read_run(dir); }), {"log.jsonl line 2"});
  std::ofstream(dir + "/log.jsonl") << "{\"step\":\"one\",\"loss\":5}\n";
  io::check_message(io::error_of([&] { (void)read_run(dir); }), {"log.jsonl line 1"});
  std::ofstream(dir + "/log.jsonl") << "";
  std::ofstream(dir + "/sensitivity.json") << "{\"op\":3}";
  io::check_message(io::error_of([&] { (void)read_run(dir); }), {"sensitivity.json"});
  fs::remove(dir + "/sensitivity.json");
  std::ofstream(dir + "/run.json") << "{\"version\":1,\"model\":{\"family\":7}}";
  io::check_message(io::error_of([&] { (void)read_run(dir); }), {"run.json"});
  std::ofstream(dir + "/run.json") << "{";
  io::check_message(io::error_of([&] { (void)read_run(dir); }), {"run.json", "JSON"});
  CHECK_THROWS_AS(make_report({}, "1"), Error);
}

TEST_CASE("charts: ticks are round, numbers read well, text is escaped") {
  CHECK(round_ticks(0, 10, 5) == std::vector<double>{0, 2, 4, 6, 8, 10});
  CHECK(round_ticks(-0.3, 0.95, 5).front() == Approx(-0.2));
  CHECK(round_ticks(5, 5, 4) == std::vector<double>{5});
  CHECK(round_ticks(5, std::nextafter(5.0, 6.0), 4) == std::vector<double>{5});
  CHECK(round_ticks(-1e300, 1e300, 4).size() >= 3);
  CHECK(number_text(1234567.0) == "1,234,567");
  CHECK(number_text(0.0117, 3) == "0.0117");
  CHECK(number_text(2.5) == "2.5");
  CHECK(number_text(-42) == "\u221242");
  CHECK(number_text(0) == "0");
  CHECK(number_text(999999, 9) == "999,999");
  CHECK(number_text(100) == "100");
  CHECK(number_text(1e-7, 3) == "1e-07");
  CHECK(number_text(std::nan("")) == "not finite");
  CHECK(escape("<a href=\"x\">&'") == "&lt;a href=&quot;x&quot;&gt;&amp;&#39;");
  CHECK(line_chart({.title = "nothing", .series = {{.points = {{1, std::nan("")}}}}}).empty());
  CHECK(bar_chart({.title = "nothing", .groups = {}}).empty());
  CHECK(heat_map({"nothing", "", {}, 4, {}}).empty());
  const Drawing map = heat_map({"one", "", {1, 2}, 2, {1, 100, 1, 100}});
  CHECK(map.csv == "channel,step 1,step 2\n0,1,1\n1,100,100\n");
  const std::string &heat = map.wide;
  CHECK(heat.find("class=\"level9\" d=\"M0 1h2v1h-2z\"") !=
        std::string::npos); // one run of cells: channel 1, both steps
}

TEST_CASE(
    "charts: titles wrap, labels stand beside the curves or below, nothing is cut, numbers come along") {
  const std::string name =
      "a-model-with-a-name-that-somebody-made-very-long-340m-of-24-layers-and-2048-hidden";
  LineChart chart{.title = "Loss, " + name, .x_label = "step", .y_label = "loss, \"nats\""};
  chart.series = {{.name = "raw", .points = {{1, 9.5}, {2, 3}, {3, 2.5}}, .faint = true},
                  {.name = "smooth", .label = "nvfp4 2.5", .color = 2, .points = {{1, 4}, {2, 3}, {3, 2.5}}}};
  chart.bands = {{"spread", 2, {{1, 3, 5}}}};
  chart.rules = {{0.0, "BF16"}};
  const Drawing d = line_chart(chart);
  CHECK(first_fault("\n" + d.wide).empty());
  CHECK(first_fault("\n" + d.narrow).empty());
  for (const std::string &svg : {d.wide, d.narrow}) {
    std::string title;
    for (const std::string &l : texts_of(svg, "title")) title += l;
    std::erase(title, ' ');
    CHECK(title == "Loss," + name);
    for (const std::string &t : texts_of(svg, "tick"))
      CHECK((t.find('.') == std::string::npos ||
             svg.find("text-anchor=\"end\">" + t) != std::string::npos)); // y only
    CHECK(count(svg, ">BF16<") == 1);
    CHECK(count(svg, ">nvfp4 2.5<") == 1);
    // the raw line reaches into the plot: its top lies below the plot's upper edge
    const size_t raw = svg.find("faint\" d=\"M");
    REQUIRE(raw != std::string::npos);
    const std::string at = svg.substr(raw, 40);
    const size_t plot = svg.find("<svg x=");
    CHECK(std::stod(at.substr(at.find(' ', 10) + 1)) > std::stod(svg.substr(svg.find(" y=\"", plot) + 4)));
  }
  CHECK(texts_of(d.narrow, "title").size() > texts_of(d.wide, "title").size());
  CHECK(d.csv == "line,step,\"loss, "
                 "\"\"nats\"\"\"\nraw,1,9.5\nraw,2,3\nraw,3,2.5\nsmooth,1,4\nsmooth,2,3\nsmooth,3,2.5\n"
                 "\"spread, lowest\",1,3\n\"spread, highest\",1,5\nBF16,,0\n");
  const Drawing bars =
      bar_chart({.title = "Bars", .x_label = "%", .groups = {{name, {{"x", 1, 2.5, 0.5}, {"y", 2, NAN}}}}});
  CHECK(bars.csv == "group,bar,%,half width of the interval\n" + name + ",x,2.5,0.5\n" + name + ",y,nan,\n");
  CHECK(texts_of(bars.narrow, "label").size() > 4);
}

// For tests/tools/report_page_test.sh, which looks at the page in a browser.
TEST_CASE("report: write a page with long names", "[.page]") {
  const char *to = std::getenv("NVFP4_REPORT_PAGE");
  REQUIRE(to != nullptr);
  const Folder folder;
  write_study(folder);
  std::vector<RunData> runs = read_all(folder);
  for (RunData &r : runs)
    r.model += "-with-a-name-that-somebody-made-very-long-340m-of-24-layers-and-2048-hidden";
  std::ofstream(to) << make_report(runs, "9.8.7");
}
