// SPDX-License-Identifier: Apache-2.0
// A generated task as a source of batches, and the reading of task:NAME,parameter=N.
#include "nvfp4/emulator/config.hpp"
#include "nvfp4/golden/io/message.hpp"
#include "nvfp4/golden/io/sha256.hpp"
#include "nvfp4/reference_models/data/tasks.hpp"

#include <algorithm>
#include <cassert>
#include <charconv>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

namespace nvfp4::models {
namespace {

class TaskSource final : public DataSource {
public:
  TaskSource(Task task, int64_t sequence) : task_(std::move(task)), sequence_(sequence) {}

  int vocabulary() const override { return task_.vocabulary; }
  bool bytes() const override { return false; }
  void training_batch(uint64_t seed, int64_t index, int64_t batch, int64_t sequence,
                      std::span<int32_t> tokens, std::span<float> weights) const override {
    fill(seed, DataStream::task_training, index, batch, sequence, tokens, weights);
  }
  void validation_batch(int64_t index, int64_t batch, int64_t sequence, std::span<int32_t> tokens,
                        std::span<float> weights) const override {
    fill(0, DataStream::task_validation, index, batch, sequence, tokens, weights);
  }
  std::string digest() const override { return io::sha256_hex(std::as_bytes(std::span(task_.name))); }
  std::string describe() const override {
    return task_.name + ": generated, vocabulary of " + std::to_string(task_.vocabulary);
  }

private:
  void fill(uint64_t seed, DataStream stream, int64_t index, int64_t batch, int64_t sequence,
            std::span<int32_t> tokens, std::span<float> weights) const {
    if (sequence != sequence_)
      throw Error(task_.name + ": opened for a sequence of " + std::to_string(sequence_) +
                  " tokens, asked for " + std::to_string(sequence));
    assert(index >= 0 && batch >= 0);
    assert(tokens.size() == size_t(batch * (sequence + 1)) && weights.size() == size_t(batch * sequence));
    const auto length = size_t(sequence);
    for (int64_t s = 0; s < batch; ++s) {
      RandomSequence random{item_key(seed, stream, uint64_t(index * batch + s))};
      task_.example(random, tokens.subspan(size_t(s) * (length + 1), length + 1),
                    weights.subspan(size_t(s) * length, length));
    }
  }

  Task task_;
  int64_t sequence_;
};

struct Parameter {
  std::string_view name;
  int64_t value, lowest, highest; ///< value: the default
};

/// A task's two parameters, and how it is made from them.
struct TaskKind {
  std::string_view name;
  Parameter parameters[2];
  Task (*make)(int64_t, int64_t, int64_t sequence);
};

constexpr int64_t most = 1 << 16;

/// The parts between commas, at least one.
std::vector<std::string_view> split(std::string_view text) {
  std::vector<std::string_view> parts;
  for (size_t comma; (comma = text.find(',')) != text.npos; text.remove_prefix(comma + 1))
    parts.push_back(text.substr(0, comma));
  parts.push_back(text);
  return parts;
}

std::optional<int64_t> whole_number(std::string_view text) {
  if (text.size() > 1 && text.starts_with('0')) return {};
  int64_t value = 0;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && stop == text.data() + text.size() ? std::optional(value) : std::nullopt;
}

} // namespace

std::unique_ptr<DataSource> open_task(const std::string &spec, int64_t sequence) {
  const TaskKind kinds[] = {
      {"copy", {{"length", sequence / 2, 1, max_sequence}, {"vocab", 32, 3, most}}, copy_task},
      {"mqar", {{"pairs", 8, 1, most}, {"vocab", 64, 4, most}}, mqar_task},
      {"dyck", {{"kinds", 4, 1, most / 2}, {"depth", 8, 1, max_sequence}}, dyck_task},
  };
  const auto parts = split(std::string_view(spec).substr(task_prefix.size()));
  const auto *found = std::ranges::find(kinds, parts[0], &TaskKind::name);
  if (found == std::end(kinds))
    throw Error("unknown task " + io::in_quotes(parts[0]) + ": expected task:copy, task:mqar or task:dyck");

  TaskKind kind = *found;
  auto &[first, second] = kind.parameters;
  const std::string task = "task:" + std::string(kind.name);
  bool given[2] = {};
  for (const std::string_view part : std::span(parts).subspan(1)) {
    const size_t equals = part.find('=');
    const size_t which = part.substr(0, equals) == first.name ? 0 : 1;
    Parameter &parameter = kind.parameters[which];
    if (equals == part.npos || part.substr(0, equals) != parameter.name)
      throw Error(task + ": expected " + std::string(first.name) + "=N or " + std::string(second.name) +
                  "=N, got " + io::in_quotes(part));
    if (std::exchange(given[which], true))
      throw Error(task + ": " + std::string(parameter.name) + " is given twice");
    const auto value = whole_number(part.substr(equals + 1));
    if (!value || *value < parameter.lowest || *value > parameter.highest)
      throw Error(task + ": expected " + std::string(parameter.name) + "=N with N from " +
                  std::to_string(parameter.lowest) + " to " + std::to_string(parameter.highest) + ", got " +
                  io::in_quotes(part));
    parameter.value = *value;
  }
  return std::make_unique<TaskSource>(kind.make(first.value, second.value, sequence), sequence);
}

} // namespace nvfp4::models
