// SPDX-License-Identifier: Apache-2.0
// Reads, rebuilds and writes manifest.json.
#include "nvfp4/golden/manifest.hpp"

#include "nvfp4/golden/io/file.hpp"
#include "nvfp4/golden/io/json.hpp"
#include "nvfp4/golden/io/safetensors.hpp"
#include "nvfp4/golden/io/sha256.hpp"
#include "nvfp4/golden/known_keys.hpp"
#include "nvfp4/golden/text.hpp"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>

namespace nvfp4::golden {
namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

namespace {

constexpr std::string_view kFormat = "nvfp4-golden-1";

/// What identifies a case source in one line, from the header keys that are there.
std::string source_line(const auto &get) {
  std::string line;
  for (const char *key : {"source", "device", "driver", "toolkit", "date"}) {
    const std::string v = get(key);
    if (v.empty()) continue;
    line += (line.empty() ? "" : ", ") + (std::string_view(key) == "driver" ? "driver " + v : v);
  }
  return line;
}

Entry describe(const fs::path &folder, const fs::path &path) {
  Entry e;
  e.file = fs::relative(path, folder).generic_string();
  e.sha256 = file_sha256(path.string());
  if (path.extension() == ".safetensors") {
    const io::TensorFile f = io::read_tensors(path.string());
    const auto get = [&](const std::string &key) {
      const auto it = f.metadata.find(key);
      return it == f.metadata.end() ? std::string() : it->second;
    };
    e.kind = get("kind");
    e.subject = get("subject");
    e.provenance = parse_enum<Provenance>(get("provenance"));
    e.source = source_line(get);
    e.cases = std::strtoull(get("cases").c_str(), nullptr, 10);
    return e;
  }
  const TextFile t = read_text(path.string());
  e.kind = t.require("kind");
  e.subject = t.require(e.kind == "mma" ? "unit" : "conversion");
  e.provenance = parse_enum<Provenance>(t.require("provenance"));
  e.source = source_line([&](const char *key) { return t.get(key); });
  e.cases = t.rows.size();
  return e;
}

std::string executable_folder() {
  std::error_code failed;
  const fs::path self = fs::read_symlink("/proc/self/exe", failed);
  return failed ? std::string() : self.parent_path().string();
}

} // namespace

std::string file_sha256(const std::string &path) { return io::sha256_hex(io::read_file(path)); }

std::string find_golden_folder(const std::string &named) {
  if (!named.empty()) {
    if (!fs::exists(fs::path(named) / "manifest.json"))
      throw Error("golden folder " + named + " holds no manifest.json; name another with --dir or NVFP4_GOLDEN_DIR");
    return named;
  }
  const std::string self = executable_folder();
  for (fs::path start : {fs::current_path(), fs::path(self)})
    for (fs::path p = start; !p.empty(); p = p.parent_path()) {
      if (fs::exists(p / "golden" / "manifest.json")) return (p / "golden").string();
      if (p == p.root_path()) break;
    }
  const fs::path installed = fs::path(self).parent_path() / "share" / "nvfp4" / "golden";
  if (fs::exists(installed / "manifest.json")) return installed.string();
  throw Error("no golden set found above this directory or the program; name its folder with --dir or "
              "NVFP4_GOLDEN_DIR");
}

Manifest read_manifest(const std::string &folder) {
  const std::string path = (fs::path(folder) / "manifest.json").string();
  const std::vector<std::byte> bytes = io::read_file(path);
  Manifest m;
  m.folder = folder;
  try {
    const Json j = io::parse_json({reinterpret_cast<const char *>(bytes.data()), bytes.size()}, path + ": ");
    if (j.at("format") != kFormat) throw Error(path + ": format is not '" + std::string(kFormat) + "'");
    check_known_keys(j, {"format", "files"}, path);
    for (const Json &e : j.at("files")) {
      check_known_keys(e, {"file", "kind", "subject", "provenance", "source", "cases", "sha256"}, path);
      m.entries.push_back({e.at("file"), e.at("kind"), e.at("subject"),
                           parse_enum<Provenance>(e.at("provenance").get<std::string>()), e.at("source"), e.at("cases"),
                           e.at("sha256")});
    }
  } catch (const nlohmann::json::exception &error) {
    throw Error(path + ": not a golden manifest: " + error.what());
  }
  return m;
}

Manifest scan_folder(const std::string &folder) {
  Manifest m;
  m.folder = folder;
  std::vector<fs::path> paths;
  for (const fs::directory_entry &e : fs::recursive_directory_iterator(fs::path(folder) / "vectors"))
    if (e.is_regular_file()) paths.push_back(e.path());
  std::sort(paths.begin(), paths.end());
  for (const fs::path &p : paths) m.entries.push_back(describe(folder, p));
  return m;
}

void write_manifest(const Manifest &manifest) {
  Json j;
  j["format"] = kFormat;
  j["files"] = Json::array();
  for (const Entry &e : manifest.entries)
    j["files"].push_back({{"file", e.file},
                          {"kind", e.kind},
                          {"subject", e.subject},
                          {"provenance", nvfp4::to_string(e.provenance)},
                          {"source", e.source},
                          {"cases", e.cases},
                          {"sha256", e.sha256}});
  const std::string text = j.dump(1) + "\n";
  io::write_file_atomically((fs::path(manifest.folder) / "manifest.json").string(), std::as_bytes(std::span(text)));
}

} // namespace nvfp4::golden
