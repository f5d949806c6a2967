// SPDX-License-Identifier: Apache-2.0
// nvfp4 golden list | verify | generate: the golden vectors and their evidence.
#include "nvfp4/golden/generate.hpp"
#include "nvfp4/golden/manifest.hpp"
#include "nvfp4/golden/verify.hpp"
#include "nvfp4/emulator/tensorcore/unit.hpp"
#include "tools/environment.hpp"
#include "tools/nvfp4/terminal.hpp"
#include "tools/nvfp4/verbs.hpp"

#include <algorithm>
#include <filesystem>
#include <fmt/core.h>
#include <iostream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

namespace nvfp4::tool {
namespace {

using Json = nlohmann::ordered_json;
using golden::Entry;

struct Options {
  std::string dir, match, kind, provenance, file, accumulation = "mmasim";
  bool json = false, exact = false, full = false;
  int cases = 8;
  uint64_t seed = 1;
};

std::string folder(const Options &o) { return o.dir.empty() ? golden::find_golden_folder(asked_golden_folder()) : o.dir; }

bool wanted(const Options &o, const Entry &e) {
  return (e.subject + " " + e.file).find(o.match) != std::string::npos &&
         (o.kind.empty() || e.kind == o.kind) && (o.provenance.empty() || to_string(e.provenance) == o.provenance);
}

int list(const Options &o) {
  const golden::Manifest m = golden::read_manifest(folder(o));
  Json j = Json::array();
  if (std::none_of(m.entries.begin(), m.entries.end(), [&](const Entry &e) { return wanted(o, e); }))
    throw Error("golden list: no golden file matches");
  if (!o.json) fmt::print("{:<15} {:<16} {:>6}  {}\n", "kind", "provenance", "cases", "subject; source");
  for (const Entry &e : m.entries) {
    if (!wanted(o, e)) continue;
    if (o.json)
      j.push_back({{"file", e.file}, {"kind", e.kind}, {"subject", e.subject}, {"provenance", to_string(e.provenance)},
                   {"source", e.source}, {"cases", e.cases}, {"sha256", e.sha256}});
    else
      fmt::print("{:<15} {:<16} {:>6}  {}; {}\n", e.kind, to_string(e.provenance), e.cases, e.subject, e.source);
  }
  if (o.json) fmt::print("{}\n", j.dump(1));
  return kEqual;
}

/// Totals for one kind and provenance.
struct Total {
  uint64_t files = 0, cases = 0, mismatches = 0;
};

/// About how long a file takes, for the time left: chunks of 2^24 conversions, or single cases.
double work_in(const Entry &e, bool full) {
  if (e.kind == "convert-digest") return full ? 256 : 4;
  return 1e-4 * double(e.cases);
}

int verify(const Options &o) {
  const golden::VerifyOptions options{o.exact, o.full, parse_enum<Accumulation>(o.accumulation), golden::make_digest_cache(), asked_isa()};
  golden::Manifest m;
  if (o.file.empty()) m = golden::read_manifest(folder(o));
  else m.entries.push_back({o.file, "", "", golden::Provenance::model, "", 0, ""});
  std::map<std::pair<std::string, std::string>, Total> totals;
  uint64_t bad_files = 0, checked = 0;
  Json problems = Json::array();
  Progress progress("golden verify");
  const auto problem = [&](const std::string &file, const std::string &what) {
    ++bad_files;
    if (o.json) problems.push_back({{"file", file}, {"problem", what}});
    else {
      progress.clear();
      fmt::print("{}\n", verdict_line("MISMATCH " + file + ": " + what, Verdict::bad));
    }
  };
  double work = 0, done = 0;
  for (const Entry &e : m.entries)
    if (wanted(o, e)) work += work_in(e, o.full);
  for (size_t i = 0; i < m.entries.size(); ++i) {
    const Entry &e = m.entries[i];
    if (!wanted(o, e)) continue;
    const std::string path = o.file.empty() ? (std::filesystem::path(m.folder) / e.file).string() : e.file;
    if (!e.sha256.empty() && golden::file_sha256(path) != e.sha256) {
      problem(e.file, "sha256 differs from the manifest: the file was changed");
      continue;
    }
    const golden::Verdict v = golden::verify_file(path, options);
    Total &t = totals[{e.kind.empty() ? "file" : e.kind, e.kind.empty() ? "" : std::string(to_string(e.provenance))}];
    ++t.files;
    t.cases += v.cases;
    t.mismatches += v.mismatches;
    ++checked;
    if (v.mismatches != 0)
      problem(e.file, fmt::format("{} of {} cases of {} differ; {}", v.mismatches, v.cases, v.subject, v.first));
    done += work_in(e, o.full);
    progress.show(done / std::max(work, 1e-9));
  }
  progress.done();
  if (checked == 0 && bad_files == 0) throw Error("golden verify: no golden file matches");
  if (o.json) {
    Json groups = Json::array();
    for (const auto &[key, t] : totals)
      groups.push_back({{"kind", key.first}, {"provenance", key.second}, {"files", t.files}, {"cases", t.cases},
                        {"mismatches", t.mismatches}});
    fmt::print("{}\n", Json{{"groups", groups}, {"problems", problems}}.dump(1));
  } else {
    fmt::print("{:<15} {:<16} {:>6} {:>12} {:>11}\n", "kind", "evidence", "files", "cases", "mismatches");
    for (const auto &[key, t] : totals)
      fmt::print("{:<15} {:<16} {:>6} {:>12} {:>11}\n", key.first, key.second, t.files, t.cases, t.mismatches);
  }
  return bad_files == 0 ? kEqual : kMismatch;
}

int generate(const Options &o) {
  Progress progress("golden generate");
  const auto log = [&](const std::string &line) {
    progress.clear();
    if (!o.json) fmt::print("{}\n", line);
  };
  const size_t files = golden::generate({folder(o), o.cases, o.seed, o.match}, log, [&](double f) { progress.show(f); });
  if (o.json) fmt::print("{}\n", Json{{"files", files}}.dump());
  return kEqual;
}

} // namespace

Command *register_golden(Command &app, int &exit_code) {
  Command *verb = app.add_subcommand("golden", "Golden vectors: list them, recompute and compare, write");
  verb->require_subcommand(1);
  auto o = std::make_shared<Options>();
  const auto common = [&](Command *sub) {
    sub->add_option("--dir", o->dir, "Golden folder (default: the one of this project)");
    sub->add_option("--match", o->match, "Only files whose subject or path contains this text");
    sub->add_option("--kind", o->kind, "Only mma, convert, convert-digest or quantize")
        ->check(OneOf{{"mma", "convert", "convert-digest", "quantize"}});
    sub->add_flag("--json", o->json, "Machine-readable output");
  };
  std::vector<std::string> provenances;
  for (const golden::Provenance p : enumerators<golden::Provenance>()) provenances.emplace_back(to_string(p));
  Command *l = verb->add_subcommand("list", "Every golden file with its evidence");
  common(l);
  l->add_option("--provenance", o->provenance, name_list<golden::Provenance>())->check(OneOf{provenances});
  l->callback([o, &exit_code] { exit_code = list(*o); });

  Command *v = verb->add_subcommand("verify", "Recompute golden files and compare; exit code 1 on any mismatch");
  common(v);
  v->add_option("file", o->file, "One golden file instead of the whole set");
  v->add_option("--provenance", o->provenance, name_list<golden::Provenance>())->check(OneOf{provenances});
  v->add_option("--accumulation", o->accumulation, "FP4 model for files that name none (captures): " + name_list<Accumulation>());
  v->add_flag("--exact", o->exact, "Recompute with the multiprecision oracle (slow)");
  v->add_flag("--full", o->full, "All 2^32 inputs of the conversion digests instead of a sample");
  v->footer("Example: nvfp4 golden verify --provenance hardware");
  v->callback([o, &exit_code] { exit_code = verify(*o); });

  Command *g = verb->add_subcommand("generate", "Write model vectors again and rebuild the manifest");
  common(g);
  g->add_option("--cases", o->cases, "MMA cases of each input class")->check(Range{1, 100000});
  g->add_option("--seed", o->seed, "Seed of the inputs");
  g->callback([o, &exit_code] { exit_code = generate(*o); });
  return verb;
}

} // namespace nvfp4::tool
