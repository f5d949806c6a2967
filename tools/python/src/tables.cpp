// SPDX-License-Identifier: Apache-2.0
// What there is: units, conversions, conventions, recipes, golden files.
#include "nvfp4/golden/catalogue_json.hpp"
#include "nvfp4/golden/io/file.hpp"
#include "nvfp4/golden/manifest.hpp"
#include "nvfp4/golden/text_columns.hpp"
#include "nvfp4/reference_models/recipe/recipe.hpp"
#include "tools/python/src/arguments.hpp"

namespace nvfp4::python {
namespace {

/// Names and JSON, every field written out.
std::vector<std::tuple<std::string, std::string>> recipes() {
  std::vector<std::tuple<std::string, std::string>> list;
  for (const std::string_view name : models::builtin_recipes())
    list.emplace_back(std::string(name), models::to_json(models::load_recipe(std::string(name))));
  for (const models::RecipeVariation &v : models::recipe_variations())
    list.emplace_back(std::string(v.name), models::to_json(models::load_recipe(std::string(v.name))));
  return list;
}

using GoldenFile =
    std::tuple<std::string, std::string, std::string, std::string, std::string, uint64_t, std::string>;

/// The folder, and its files: file, kind, subject, provenance, source, cases, sha256.
std::tuple<std::string, std::vector<GoldenFile>> golden_files(const std::string &folder) {
  const golden::Manifest manifest = golden::read_manifest(golden::find_golden_folder(folder));
  std::vector<GoldenFile> list;
  for (const golden::Entry &e : manifest.entries)
    list.emplace_back(e.file, e.kind, e.subject, std::string(to_string(e.provenance)), e.source, e.cases,
                      e.sha256);
  return {manifest.folder, std::move(list)};
}

FileResult read_file(const std::string &path) {
  return give(path.ends_with(".txt") ? golden::to_tensors(golden::read_text(path)) : io::read_tensors(path));
}

} // namespace

void bind_tables(Module &m) {
  m.def<golden::units_json>("units", "match");
  m.def<golden::conversions_json>("conversions", "match");
  m.def<golden::conventions_json>("conventions", "match");
  m.def<recipes>("recipes");
  m.def<golden_files>("golden_files", "folder");
  m.def<golden::file_sha256>("file_sha256", "file");
  m.def<read_file>("read_file", "file");
}

} // namespace nvfp4::python
