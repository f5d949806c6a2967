// SPDX-License-Identifier: Apache-2.0
// The tensors of a file to be written, each made when its turn comes. Internal to the export.
#pragma once
#include "nvfp4/golden/checkpoint/export.hpp"

namespace nvfp4::checkpoint {

/// The bytes of `made`, or of the source's mapping.
struct Bytes {
  std::vector<std::byte> made = {};
  std::span<const std::byte> stored = {};
  [[nodiscard]] std::span<const std::byte> view() const {
    return made.empty() ? stored : std::span<const std::byte>(made);
  }
};

struct Item {
  std::string name, type;
  std::vector<int64_t> shape;
  std::function<Bytes()> bytes;
};

struct Plan {
  std::vector<Item> items;
  std::map<std::string, std::string>
      words; ///< metadata: scales before they were inverted, in hex, by kWordKey and name
  const Container *container = nullptr;   ///< of what is quantized in the result; nullptr: nothing
  std::vector<std::string> plain_modules; ///< matrices that stay numbers
  bool all_inputs = true;                 ///< every quantized weight has an input scale
  bool converted = false;                 ///< anything is not the source's byte for byte
};

inline constexpr const char *kWordKey = "nvfp4.inverted_from.";

/// Refuses with an Error before anything is written. `report` counts what the items will do.
[[nodiscard]] Plan plan_export(const Checkpoint &source, const Weights &weights, const ExportOptions &options,
                               ExportReport &report);

/// config.json and what stands beside it in `folder`, and model.safetensors.
void write_folder(const Checkpoint &source, const Plan &plan, const std::string &folder,
                  const ExportOptions &options, ExportReport &report);
void write_gguf(const Checkpoint &source, const Plan &plan, const std::string &path,
                const ExportOptions &options);

} // namespace nvfp4::checkpoint
