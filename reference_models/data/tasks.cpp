// SPDX-License-Identifier: Apache-2.0
// What each task generates, token by token.
#include "nvfp4/reference_models/data/tasks.hpp"
#include "nvfp4/emulator/config.hpp"

#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

namespace nvfp4::models {
namespace {

void require(bool ok, const std::string &task, const std::string &expected) {
  if (!ok) throw Error(task + ": expected " + expected);
}

std::string text(int64_t n) { return std::to_string(n); }

/// `count` different numbers out of [first, first + range), in random order.
std::vector<int32_t> draw_distinct(RandomSequence &random, int64_t first, int64_t range, int64_t count) {
  std::vector<int32_t> all(static_cast<size_t>(range));
  std::iota(all.begin(), all.end(), int32_t(first));
  for (size_t i = 0; i < size_t(count); ++i) std::swap(all[i], all[i + random.below(all.size() - i)]);
  all.resize(size_t(count));
  return all;
}

/// `count` different slots out of [0, slots), one after the other, each with a weight of 1 / (slot + 1) among
/// those left.
std::vector<size_t> draw_slots(RandomSequence &random, size_t slots, size_t count) {
  std::vector<uint64_t> weight(slots);
  for (size_t x = 0; x < slots; ++x) weight[x] = (uint64_t{1} << 32) / (x + 1);
  uint64_t total = std::accumulate(weight.begin(), weight.end(), uint64_t{0});
  std::vector<size_t> drawn;
  while (drawn.size() < count) {
    uint64_t place = random.below(total);
    size_t x = 0;
    while (place >= weight[x]) place -= weight[x++];
    total -= std::exchange(weight[x], 0);
    drawn.push_back(x);
  }
  return drawn;
}

} // namespace

Task copy_task(int64_t length, int64_t vocab, int64_t sequence) {
  const std::string name = "task:copy,length=" + text(length) + ",vocab=" + text(vocab);
  require(vocab >= 3, name, "vocab of at least 3 (one symbol, separator, padding)");
  require(length >= 1 && 2 * length <= sequence, name,
          "a length of 1 to half the sequence of " + text(sequence) + " tokens");
  const auto half = size_t(length);
  return {name, int(vocab),
          [half, vocab](RandomSequence &random, std::span<int32_t> tokens, std::span<float> weights) {
            std::ranges::fill(tokens, int32_t(vocab - 1));
            std::ranges::fill(weights, 0.0f);
            const size_t width = 2 * half + 1;
            for (size_t start = 0; start + width <= tokens.size(); start += width) {
              const auto symbols = tokens.subspan(start, half);
              for (int32_t &symbol : symbols) symbol = int32_t(random.below(uint64_t(vocab - 2)));
              tokens[start + half] = int32_t(vocab - 2);
              std::ranges::copy(symbols, tokens.subspan(start + half + 1, half).begin());
              std::ranges::fill(weights.subspan(start + half, half), 1.0f);
            }
          }};
}

Task mqar_task(int64_t pairs, int64_t vocab, int64_t sequence) {
  const std::string name = "task:mqar,pairs=" + text(pairs) + ",vocab=" + text(vocab);
  const int64_t first_value = vocab / 2;
  require(pairs >= 1 && pairs < first_value, name,
          "1 to " + text(first_value - 1) + " pairs (the keys that vocab has), or a larger vocab");
  require(4 * pairs <= sequence + 1, name,
          "a sequence of at least " + text(4 * pairs - 1) + " tokens, got " + text(sequence));
  return {name, int(vocab),
          [pairs, vocab, first_value](RandomSequence &random, std::span<int32_t> tokens,
                                      std::span<float> weights) {
            std::ranges::fill(tokens, 0);
            std::ranges::fill(weights, 0.0f);
            const auto keys = draw_distinct(random, 1, first_value - 1, pairs);
            const auto values = draw_distinct(random, first_value, vocab - first_value, pairs);
            const size_t bindings = 2 * keys.size();
            const auto slots = draw_slots(random, (tokens.size() - bindings) / 2, keys.size());
            for (size_t i = 0; i < keys.size(); ++i) {
              const size_t query = bindings + 2 * slots[i];
              tokens[2 * i] = tokens[query] = keys[i];
              tokens[2 * i + 1] = tokens[query + 1] = values[i];
              weights[query] = 1.0f; // of the target tokens[query + 1]
            }
          }};
}

Task dyck_task(int64_t kinds, int64_t depth, int64_t sequence) {
  const std::string name = "task:dyck,kinds=" + text(kinds) + ",depth=" + text(depth);
  require(sequence >= 2, name, "a sequence of at least 2 tokens, got " + text(sequence));
  return {name, int((2 * kinds + 15) / 16 * 16),
          [kinds, depth](RandomSequence &random, std::span<int32_t> tokens, std::span<float> weights) {
            std::vector<int32_t> open;
            for (size_t t = 0; t < tokens.size(); ++t) {
              const bool closes = open.size() == size_t(depth) || (!open.empty() && random.below(2) == 0);
              if (closes) {
                tokens[t] = int32_t(kinds) + open.back();
                open.pop_back();
              } else {
                tokens[t] = int32_t(random.below(uint64_t(kinds)));
                open.push_back(tokens[t]);
              }
              if (t > 0) weights[t - 1] = closes ? 1.0f : 0.0f;
            }
          }};
}

} // namespace nvfp4::models
