// SPDX-License-Identifier: Apache-2.0
// Logs are hashed as they grow, the other files whole.
#include "nvfp4/reference_models/train/checksums.hpp"

#include "nvfp4/golden/io/file.hpp"
#include "nvfp4/golden/io/posix.hpp"

#include <filesystem>

namespace nvfp4::models {
namespace {

using Json = Fields::Json;

constexpr const char *kFile = "checksums.json";
constexpr const char *kSeal = "checksum";
constexpr const char *kGrowing[] = {"log.jsonl", "diagnostics.jsonl"};
constexpr const char *kTensors = "diagnostics.safetensors", *kSensitivity = "sensitivity.json";
constexpr const char *kAdvice =
    "; restore the file, or remove checksums.json to continue without these checks";

std::string sha256_of(std::string_view text) { return io::sha256_hex(std::as_bytes(std::span(text))); }

} // namespace

Json sealed(Json object) {
  object[kSeal] = sha256_of(object.dump());
  return object;
}

void check_seal(Json &object, const std::string &where, const std::string &advice) {
  const auto at = object.is_object() ? object.find(kSeal) : object.end();
  if (at == object.end()) return;
  const Json stored = *at;
  object.erase(kSeal);
  if (stored != Json(sha256_of(object.dump())))
    throw Error(where + "is not as it was written: its checksum is another" + advice);
}

FileSum sum_of(std::span<const std::byte> bytes) { return {bytes.size(), io::sha256_hex(bytes)}; }

/// A file whose end is not hashed yet.
struct Checksums::Growing {
  std::string path;
  io::Sha256 hash = {};
  uint64_t bytes = 0;

  /// Of all that is there now, once it is on the disk.
  FileSum sum() {
    const io::Descriptor fd(io::open_file(path, O_RDONLY));
    if (fd.get() < 0) io::fail(path, "cannot open", errno);
    if (io::retry([&] { return ::fdatasync(fd.get()); }) != 0) io::fail(path, "cannot write", errno);
    std::vector<std::byte> chunk(1 << 16);
    for (;;) {
      const ssize_t n =
          io::retry([&] { return ::pread(fd.get(), chunk.data(), chunk.size(), off_t(bytes)); });
      if (n < 0) io::fail(path, "cannot read", errno);
      if (n == 0) return {bytes, hash.hex_so_far()};
      hash.add(std::span(chunk).first(size_t(n)));
      bytes += uint64_t(n);
    }
  }
};

Checksums::Checksums(std::string folder) : folder_(std::move(folder)) {
  for (const char *name : kGrowing) {
    growing_[name] = std::make_unique<Growing>();
    growing_[name]->path = folder_ + "/" + name;
  }
  const std::string path = folder_ + "/" + kFile, where = io::printable(path) + ": ";
  if (!std::filesystem::exists(path)) return;
  Json json = parse_json(read_text(path), where, kAdvice);
  check_seal(json, where, kAdvice);
  const Fields file(std::move(json), where, kAdvice);
  if (file.count("version", 1) != 1) throw Error(where + "expected version 1; use the release that wrote it");
  const Fields steps = file.object("steps");
  for (const auto &[step, files] : steps.json().items()) {
    const Fields list(files, where + "step " + step + ": ", kAdvice);
    const bool number =
        !step.empty() && step.size() < 16 && step.find_first_not_of("0123456789") == step.npos;
    if (!number) throw Error(where + "expected numbers of steps, got " + io::in_quotes(step) + kAdvice);
    for (const auto &[name, unused] : list.json().items()) {
      const Fields sum = list.object(name.c_str());
      noted_[std::stoll(step)][name] = {uint64_t(sum.count("bytes", 0)), sum.digits("sha256", 64)};
    }
  }
}

Checksums::~Checksums() = default;

void Checksums::save(int64_t step) { write(step, true); }
void Checksums::save_without_sensitivity(int64_t step) { write(step, false); }

void Checksums::write(int64_t step, bool sensitivity) {
  const auto there = [&](const char *name) { return std::filesystem::exists(folder_ + "/" + name); };
  Files now;
  for (const auto &[name, file] : growing_)
    if (there(name.c_str())) now[name] = file->sum();
  for (const char *name : {kTensors, kSensitivity})
    if (there(name) && (sensitivity || name != kSensitivity))
      now[name] = sum_of(io::read_file(folder_ + "/" + name));
  std::erase_if(noted_, [&](const auto &entry) { return entry.first > step; }); // of before it was resumed
  noted_[step] = std::move(now);
  while (noted_.size() > 2) noted_.erase(noted_.begin());
  Json json = {{"version", 1}, {"steps", Json::object()}};
  for (const auto &[number, files] : noted_)
    for (const auto &[name, sum] : files)
      json["steps"][std::to_string(number)][name] = {{"bytes", sum.bytes}, {"sha256", sum.sha256}};
  const std::string text = sealed(std::move(json)).dump(1) + "\n";
  io::write_file_atomically(folder_ + "/" + kFile, std::as_bytes(std::span(text)));
}

void Checksums::verify(int64_t step, const std::map<std::string, FileSum> &kept) {
  if (step == 0 || noted_.empty()) return noted_.clear();
  const auto refuse = [&](const std::string &name, const std::string &what) {
    throw Error(io::printable(folder_ + "/" + name) + ": " + what + kAdvice);
  };
  const auto at = noted_.find(step);
  if (at == noted_.end()) refuse(kFile, "has no checksums of step " + std::to_string(step));
  for (const auto &[name, sum] : kept)
    if (sum.bytes > 0 && name != kSensitivity && !at->second.contains(name))
      refuse(name, "was not there at step " + std::to_string(step));
  for (const auto &[name, sum] : at->second) {
    const auto mine = kept.find(name);
    if (mine == kept.end() || mine->second.bytes != sum.bytes)
      refuse(name, "expected " + std::to_string(sum.bytes) + " bytes of up to step " + std::to_string(step) +
                       ", got " + std::to_string(mine == kept.end() ? 0 : mine->second.bytes));
    if (mine->second.sha256 != sum.sha256)
      refuse(name,
             "is not as the run wrote it up to step " + std::to_string(step) + ": its checksum is another");
  }
  std::erase_if(noted_, [&](const auto &entry) { return entry.first != step; });
}

} // namespace nvfp4::models
