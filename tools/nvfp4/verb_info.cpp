// SPDX-License-Identifier: Apache-2.0
// nvfp4 info: the catalogue of units, the conversions, the quantization presets, this machine.
#include "nvfp4/emulator/formats/conversion.hpp"
#include "nvfp4/emulator/nearest.hpp"
#include "nvfp4/emulator/quantize/convention.hpp"
#include "nvfp4/emulator/tensorcore/products.hpp"
#include "nvfp4/golden/catalogue_json.hpp"
#include "nvfp4/version.hpp"
#include "tools/nvfp4/verbs.hpp"

#include <fmt/core.h>
#include <memory>
#include <nlohmann/json.hpp>
#include <omp.h>

namespace nvfp4::tool {
namespace {

using Json = nlohmann::ordered_json;

struct Options {
  bool units = false, products = false, conversions = false, conventions = false, json = false;
  std::string match;
};

/// Rows of a table whose names have the text asked for; Error with the nearest names where there are none.
template <class Rows, class NameOf> auto matching(const Rows &rows, const Options &o, const char *what, NameOf name_of) {
  std::vector<const typename Rows::value_type *> found;
  for (const auto &row : rows)
    if (std::string(name_of(row)).find(o.match) != std::string::npos) found.push_back(&row);
  if (found.empty())
    throw Error("info --match '" + o.match + "': no " + what + " has it in its name" + suggestion_among(o.match, rows, name_of));
  return found;
}

void print_products(const Options &o) {
  Json list = Json::array();
  for (const Product *p : matching(products(), o, "product", [](const Product &x) { return x.name; })) {
    if (o.json)
      list.push_back({{"product", p->name}, {"arch", p->arch}, {"multiplies", kinds_of(p->arch)}});
    else
      fmt::print("{:<24} {:<7} {}\n", p->name, p->arch, kinds_of(p->arch));
  }
  if (o.json) fmt::print("{}\n", list.dump(1));
}

void print_units(const Options &o) {
  const auto found = matching(catalogue(), o, "unit", [](const Unit &u) { return u.name(); });
  if (o.json) return void(fmt::print("{}\n", golden::units_json(o.match)));
  fmt::print("{:<58} {:<12} {:>3} {:>4} {:>3} {:>5} {:<9} {}\n", "unit", "family", "K", "step", "F", "floor",
             "output", "evidence");
  for (const Unit *const row : found) {
    const Unit &u = *row;
    const UnitRule &r = u.rule;
    if (r.family == Family::fma)
      fmt::print("{:<58} {:<12} {:>3} {:>4} {:>3} {:>5} {:<9} {}\n", u.name(), to_string(r.family), r.k, r.link, "-",
                 "-", to_string(r.output), to_string(u.evidence));
    else
      fmt::print("{:<58} {:<12} {:>3} {:>4} {:>3} {:>5} {:<9} {}\n", u.name(), to_string(r.family), r.k, r.link,
                 r.fraction_bits, r.floor, to_string(r.output), to_string(u.evidence));
  }
}

void print_conversions(const Options &o) {
  const auto found = matching(conversions(), o, "conversion", [](const Conversion &x) { return x.name; });
  if (o.json) return void(fmt::print("{}\n", golden::conversions_json(o.match)));
  for (const Conversion *const c : found) fmt::print("{}\n", c->name);
}

void print_conventions(const Options &o) {
  const auto found = matching(conventions(), o, "convention", [](const Convention &x) { return x.name; });
  if (o.json) return void(fmt::print("{}\n", golden::conventions_json(o.match)));
  for (const Convention *const row : found) {
    const Convention &c = *row;
    fmt::print("{:<22} {} / {} per {} {:<12} {}; true for: {}\n", c.name, format(c.rule.element).name,
               format(c.rule.scale).name, c.rule.block, to_string(c.evidence), c.source, c.versions);
  }
}

void print_summary(const Options &o) {
  const size_t units = catalogue().size(), presets = conventions().size(), casts = conversions().size();
  if (o.json) {
    const Json j = {
        {"version", NVFP4_VERSION_STRING}, {"units", units},     {"conversions", casts},
        {"conventions", presets},          {"cuda", NVFP4_CUDA}, {"threads", omp_get_max_threads()}};
    fmt::print("{}\n", j.dump(1));
    return;
  }
  fmt::print("nvfp4 {}: {} units, {} conversions, {} quantization conventions; GPU capture {}; {} threads\n",
             NVFP4_VERSION_STRING, units, casts, presets, NVFP4_CUDA ? "built in" : "not built",
             omp_get_max_threads());
  fmt::print("List them with nvfp4 info --units | --products | --conversions | --conventions [--match TEXT] [--json].\n");
}

} // namespace

void register_info(Command &app, int &) {
  Command *verb = app.add_subcommand("info", "List units, conversions and conventions, with their evidence");
  auto o = std::make_shared<Options>();
  verb->add_flag("--units", o->units, "The catalogue: architecture x instruction");
  verb->add_flag("--products", o->products, "Products that --unit knows, and what each multiplies: RTX5090:nvfp4, H100:bf16");
  verb->add_flag("--conversions", o->conversions, "Conversion instructions");
  verb->add_flag("--conventions", o->conventions, "Quantization presets");
  verb->add_option("--match", o->match, "Only names that contain this text");
  verb->add_flag("--json", o->json, "Machine-readable output");
  verb->footer("Exit code 2 where nothing has the text of --match in its name.\nExample: nvfp4 info --units --match sm_120 --json");
  verb->callback([o] {
    if (o->units + o->products + o->conversions + o->conventions > 1)
      throw Error("info: choose one of --units, --products, --conversions and --conventions");
    if (o->units) print_units(*o);
    else if (o->products) print_products(*o);
    else if (o->conversions) print_conversions(*o);
    else if (o->conventions) print_conventions(*o);
    else print_summary(*o);
  });
}

} // namespace nvfp4::tool
