// SPDX-License-Identifier: Apache-2.0
// Generated tasks, judged by checkers that know only the documented layout: a copy is a copy, an answer is
// what its key was bound to, brackets are balanced. And the reading of task:NAME,parameter=N.
#include "tests/reference_models/data/support.hpp"

#include "nvfp4/reference_models/data/random.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

using namespace nvfp4;
using namespace nvfp4::models;

namespace {

using Row = std::vector<int32_t>;

/// Calls check(tokens, weights) for each of `rows` training examples.
template <class Check>
void for_each_example(const std::string &spec, int64_t sequence, int64_t rows, Check check) {
  const auto data = open_data(spec, 0.05, sequence);
  for (int64_t i = 0; i < rows; ++i) {
    INFO(spec << ", example " << i);
    const Batch b = training(*data, 11, i, 1, sequence);
    REQUIRE(std::ranges::all_of(b.tokens, [&](int32_t t) { return t >= 0 && t < data->vocabulary(); }));
    check(b.tokens, b.weights);
  }
}

std::string refusal(const std::string &spec, int64_t sequence = 64) {
  return io::error_of([&] { (void)open_data(spec, 0.05, sequence); });
}

} // namespace

TEST_CASE("copy: what follows the separator is what stood before it", "[data]") {
  const struct {
    const char *spec;
    int64_t sequence, length, vocab;
  } cases[] = {{"task:copy", 64, 32, 32},
               {"task:copy", 33, 16, 32},
               {"task:copy,length=5", 64, 5, 32},
               {"task:copy,vocab=3,length=1", 2, 1, 3},
               {"task:copy,length=32,vocab=4", 64, 32, 4}};
  for (const auto &c : cases) {
    const auto separator = int32_t(c.vocab - 2), padding = int32_t(c.vocab - 1);
    std::set<int32_t> symbols;
    for_each_example(c.spec, c.sequence, 60, [&](const Row &tokens, const std::vector<float> &weights) {
      Row history; // symbols since the last copy ended
      int64_t copied = -1, copies = 0;
      for (size_t t = 0; t < tokens.size(); ++t) {
        const bool counts = t > 0 && weights[t - 1] == 1.0f;
        if (t > 0) REQUIRE((weights[t - 1] == 1.0f || weights[t - 1] == 0.0f));
        REQUIRE(counts == (copied >= 0));
        if (copied >= 0) {
          REQUIRE(tokens[t] == history.at(size_t(copied)));
          if (++copied == c.length) copied = -1, history.clear(), ++copies;
        } else if (tokens[t] == separator) {
          REQUIRE(int64_t(history.size()) == c.length);
          copied = 0;
        } else if (tokens[t] == padding) {
          REQUIRE(history.empty());
          REQUIRE(int64_t(tokens.size() - t) < 2 * c.length + 1);
          REQUIRE(std::all_of(tokens.begin() + ptrdiff_t(t), tokens.end(),
                              [&](int32_t x) { return x == padding; }));
        } else {
          history.push_back(tokens[t]);
          symbols.insert(tokens[t]);
        }
      }
      REQUIRE(copied < 0);
      REQUIRE(copies == (c.sequence + 1) / (2 * c.length + 1));
    });
    CHECK(int64_t(symbols.size()) == c.vocab - 2); // all symbols occur
  }
}

TEST_CASE("mqar: every key is asked once and answered as it was bound", "[data]") {
  const struct {
    const char *spec;
    int64_t sequence, pairs, vocab;
  } cases[] = {{"task:mqar", 64, 8, 64},
               {"task:mqar,pairs=8,vocab=64", 31, 8, 64},
               {"task:mqar,pairs=16,vocab=35", 128, 16, 35},
               {"task:mqar,vocab=4,pairs=1", 3, 1, 4}};
  for (const auto &c : cases) {
    std::set<int32_t> all_keys, all_values;
    for_each_example(c.spec, c.sequence, 80, [&](const Row &tokens, const std::vector<float> &weights) {
      std::map<int32_t, int32_t> bound;
      std::set<int32_t> values;
      for (size_t i = 0; i < size_t(c.pairs); ++i) {
        const int32_t key = tokens[2 * i], value = tokens[2 * i + 1];
        REQUIRE((key >= 1 && key < c.vocab / 2));
        REQUIRE((value >= c.vocab / 2 && value < c.vocab));
        REQUIRE(bound.emplace(key, value).second);
        REQUIRE(values.insert(value).second);
        all_keys.insert(key), all_values.insert(value);
      }
      std::set<int32_t> asked;
      for (size_t t = 0; t < weights.size(); ++t) {
        if (weights[t] == 0.0f) continue;
        REQUIRE(weights[t] == 1.0f);
        REQUIRE(t >= size_t(2 * c.pairs));
        REQUIRE(tokens[t + 1] == bound.at(tokens[t]));
        REQUIRE(asked.insert(tokens[t]).second);
      }
      REQUIRE(int64_t(asked.size()) == c.pairs);
      const auto filler = std::count(tokens.begin() + 2 * c.pairs, tokens.end(), 0);
      REQUIRE(filler == c.sequence + 1 - 4 * c.pairs); // nothing else stands there
    });
    CHECK(int64_t(all_keys.size()) == c.vocab / 2 - 1);
    CHECK(int64_t(all_values.size()) == c.vocab - c.vocab / 2);
  }
}

TEST_CASE("mqar: queries stand where their weights say", "[data]") {
  // One query over 10 slots: slot x with probability (1 / (x + 1)) / H(10).
  constexpr int64_t rows = 6000;
  double harmonic = 0;
  for (int x = 1; x <= 10; ++x) harmonic += 1.0 / x;
  int64_t count[10] = {};
  for_each_example("task:mqar,pairs=1,vocab=16", 21, rows,
                   [&](const Row &tokens, const std::vector<float> &weights) {
                     const auto at = std::ranges::find(weights, 1.0f) - weights.begin();
                     REQUIRE(at % 2 == 0);
                     REQUIRE(tokens[size_t(at)] == tokens[0]);
                     ++count[(at - 2) / 2];
                   });
  for (int x = 0; x < 10; ++x) {
    const double p = 1 / (harmonic * (x + 1)), deviation = std::sqrt(double(rows) * p * (1 - p));
    INFO("slot " << x << ": " << count[x]);
    CHECK(std::abs(double(count[x]) - double(rows) * p) < 4 * deviation);
  }
}

TEST_CASE("dyck: balanced prefixes within their depth", "[data]") {
  const struct {
    const char *spec;
    int64_t sequence, kinds, depth;
    int vocabulary;
  } cases[] = {{"task:dyck", 64, 4, 8, 16},
               {"task:dyck,kinds=1,depth=1", 9, 1, 1, 16},
               {"task:dyck,kinds=20,depth=3", 100, 20, 3, 48},
               {"task:dyck,depth=1000000,kinds=8", 50, 8, 1000000, 16}};
  for (const auto &c : cases) {
    CHECK(open_data(c.spec, 0.05, c.sequence)->vocabulary() == c.vocabulary);
    std::set<int32_t> used;
    size_t deepest = 0;
    int64_t free_choices = 0, closed_freely = 0;
    for_each_example(c.spec, c.sequence, 100, [&](const Row &tokens, const std::vector<float> &weights) {
      Row open;
      for (size_t t = 0; t < tokens.size(); ++t) {
        used.insert(tokens[t]);
        REQUIRE(tokens[t] < 2 * c.kinds);
        const bool closes = tokens[t] >= c.kinds, free = !open.empty() && int64_t(open.size()) < c.depth;
        free_choices += free, closed_freely += free && closes;
        if (closes) {
          REQUIRE_FALSE(open.empty());
          REQUIRE(open.back() == tokens[t] - c.kinds);
          open.pop_back();
        } else {
          open.push_back(tokens[t]);
          REQUIRE(int64_t(open.size()) <= c.depth);
        }
        deepest = std::max(deepest, open.size());
        if (t > 0) REQUIRE(weights[t - 1] == (closes ? 1.0f : 0.0f));
      }
    });
    CHECK(int64_t(used.size()) == 2 * c.kinds);
    if (c.depth <= 8) CHECK(int64_t(deepest) == c.depth);
    CHECK(std::abs(double(closed_freely) - double(free_choices) / 2) <= 2 * std::sqrt(double(free_choices)));
  }
}

TEST_CASE("an example is a function of seed and number", "[data]") {
  for (const std::string spec : {"task:copy", "task:mqar", "task:dyck"}) {
    const auto data = open_data(spec, 0.05, 64), again = open_data(spec, 0.3, 64);
    CHECK_FALSE(data->bytes());
    const Batch once = training(*data, 4, 1'000'000'007, 3, 64);
    CHECK(training(*again, 4, 1'000'000'007, 3, 64) == once);
    CHECK(training(*data, 5, 1'000'000'007, 3, 64) != once);
    const Batch third = training(*data, 4, 3 * int64_t{1'000'000'007} + 2, 1, 64);
    CHECK(std::ranges::equal(third.tokens, std::span(once.tokens).last(65)));

    std::set<Row> rows; // no two examples alike, validation's included
    for (const uint64_t seed : {0u, 1u})
      for (int64_t i = 0; i < 100; ++i) rows.insert(training(*data, seed, i, 1, 64).tokens);
    for (int64_t i = 0; i < 100; ++i) rows.insert(validation(*data, i, 1, 64).tokens);
    CHECK(rows.size() == 300);
    CHECK(validation(*data, 8, 1, 64) == validation(*again, 8, 1, 64));

    Batch b = empty_batch(1, 32);
    io::check_message(io::error_of([&] { data->training_batch(1, 0, 1, 32, b.tokens, b.weights); }),
                      {"opened for a sequence of 64 tokens, asked for 32"});
  }
}

TEST_CASE("tasks are pinned", "[data]") {
  // Computed by a separate implementation in Python.
  const auto first = [](const char *spec, int64_t sequence) {
    return training(*open_data(spec, 0.05, sequence), 1, 0, 1, sequence).tokens;
  };
  CHECK(first("task:copy,length=4,vocab=16", 8) == Row{12, 1, 11, 3, 14, 12, 1, 11, 3});
  CHECK(first("task:mqar,pairs=2,vocab=16", 11) == Row{6, 13, 3, 12, 6, 13, 3, 12, 0, 0, 0, 0});
  CHECK(first("task:dyck,kinds=3,depth=2", 11) == Row{2, 2, 5, 1, 4, 1, 4, 5, 2, 5, 2, 5});
}

TEST_CASE("a task's digest is that of all its parameters", "[data]") {
  const auto digest = [](const char *spec, int64_t sequence = 64) {
    return open_data(spec, 0.05, sequence)->digest();
  };
  CHECK(digest("task:mqar") == digest("task:mqar,vocab=64,pairs=8"));
  CHECK(digest("task:mqar") != digest("task:mqar,pairs=7"));
  CHECK(digest("task:copy") == digest("task:copy,length=32"));
  CHECK(digest("task:copy") != digest("task:copy", 62));
  CHECK(digest("task:dyck") != digest("task:dyck,depth=7"));
  CHECK(digest("task:dyck").size() == 64);
  CHECK(open_data("task:mqar,pairs=3", 0.05, 64)->describe() ==
        "task:mqar,pairs=3,vocab=64: generated, vocabulary of 64");
}

TEST_CASE("bad tasks are refused with one line", "[data]") {
  io::check_message(refusal("task:sort"), {"unknown task 'sort'", "task:copy, task:mqar or task:dyck"});
  io::check_message(refusal("task:"), {"unknown task ''"});
  io::check_message(refusal("task:co\npy"), {"unknown task 'co\\x0apy'"});
  io::check_message(refusal("task:mqar,pears=8"), {"task:mqar: expected pairs=N or vocab=N, got 'pears=8'"});
  for (const char *part : {"", "pairs", "=8", "pairs 8"})
    io::check_message(refusal("task:mqar," + std::string(part)),
                      {"expected pairs=N or vocab=N, got '" + std::string(part)});
  io::check_message(refusal("task:mqar,pairs=8,"), {"got ''"});
  for (const char *value : {"", "0", "-1", "8.5", "1e3", "eight", " 8", "99999999999999999999"})
    io::check_message(refusal("task:mqar,pairs=" + std::string(value)),
                      {"expected pairs=N with N from 1 to 65536", value});
  io::check_message(refusal("task:dyck,depth=2,depth=3"), {"task:dyck: depth is given twice"});
  io::check_message(refusal("task:copy,length=33"),
                    {"task:copy,length=33,vocab=32: expected a length of 1 to half", "64"});
  io::check_message(refusal("task:copy", 1), {"expected a length of 1 to half the sequence of 1 tokens"});
  io::check_message(refusal("task:copy,vocab=2"), {"vocab=N with N from 3"});
  io::check_message(refusal("task:mqar,pairs=32"), {"1 to 31 pairs"});
  io::check_message(refusal("task:mqar,pairs=17"), {"a sequence of at least 67 tokens, got 64"});
  io::check_message(refusal("task:mqar,pairs=16", 62), {"a sequence of at least 63 tokens, got 62"});
  CHECK(refusal("task:mqar,pairs=16", 63) == "no error");
  io::check_message(refusal("task:dyck", 1), {"a sequence of at least 2 tokens, got 1"});
}
