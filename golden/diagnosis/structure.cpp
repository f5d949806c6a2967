// SPDX-License-Identifier: Apache-2.0
// Masks by class of word, described by the smallest pattern of rectangles; places by hashes of rows, columns
// and tiles.
#include "nvfp4/golden/diagnosis/structure.hpp"

#include "nvfp4/emulator/formats/code_view.hpp"
#include "nvfp4/emulator/formats/codec.hpp"

#include <algorithm>
#include <cstdio>
#include <functional>
#include <unordered_map>

namespace nvfp4::diagnosis {
namespace {

using Mask = std::vector<bool>;

struct Matrix {
  FormatId type;
  int64_t rows, cols;
  CodeView got, want;

  [[nodiscard]] bool differs(int64_t at) const { return got[at] != want[at]; }
  [[nodiscard]] std::string place(int64_t at) const {
    return "(" + std::to_string(at / cols) + ", " + std::to_string(at % cols) + ")";
  }
};

/// Whether every output of a rectangle pattern is in the mask.
bool full(const Matrix &m, const Mask &mask, const Indices &rows, const Indices &cols) {
  for (const int64_t i : rows)
    for (const int64_t j : cols)
      if (!mask[size_t(i * m.cols + j)]) return false;
  return true;
}

/// "4 of 16 tiles of 64 x 64, the first at (64, 0)": the largest square tiles that are wholly in `mask` or
/// wholly free of `bad`; nothing where there are none.
std::string tiles_of(const Matrix &m, const Mask &bad, const Mask &mask) {
  for (int64_t t = 256; t >= 8; t /= 2) {
    if (t > m.rows || t > m.cols) continue;
    int64_t tiles = 0, hit = 0, first = -1;
    bool fits = true;
    for (int64_t i = 0; fits && i < m.rows; i += t)
      for (int64_t j = 0; fits && j < m.cols; j += t) {
        bool any_bad = false, all = true;
        for (int64_t r = i; r < std::min(m.rows, i + t); ++r)
          for (int64_t c = j; c < std::min(m.cols, j + t); ++c) {
            any_bad = any_bad || bad[size_t(r * m.cols + c)];
            all = all && mask[size_t(r * m.cols + c)];
          }
        fits = !any_bad || all;
        ++tiles;
        if (any_bad && hit++ == 0) first = i * m.cols + j;
      }
    if (fits && tiles > 1)
      return std::to_string(hit) + " of " + std::to_string(tiles) + " tiles of " + std::to_string(t) + " x " +
             std::to_string(t) + ", the first at " + m.place(first) + ",";
  }
  return "";
}

/// Where `bad` outputs lie; `mask` has those in addition that may be counted in (both words alike). Fills the
/// fact's place and text: "<place> <verb> <what>".
Fact located(const Matrix &m, std::string kind, const std::string &what, const Mask &bad, const Mask &mask) {
  Fact f{std::move(kind), "", {}, {}, std::count(bad.begin(), bad.end(), true), -1, 0};
  Mask row_full(size_t(m.rows), true), col_full(size_t(m.cols), true), row_hit(size_t(m.rows)),
      col_hit(size_t(m.cols));
  int64_t first = -1;
  for (int64_t i = 0; i < m.rows; ++i)
    for (int64_t j = 0; j < m.cols; ++j) {
      const size_t at = size_t(i * m.cols + j);
      if (!mask[at]) row_full[size_t(i)] = col_full[size_t(j)] = false;
      if (!bad[at]) continue;
      row_hit[size_t(i)] = col_hit[size_t(j)] = true;
      if (first < 0) first = int64_t(at);
    }
  f.first = first;
  const Indices hit_rows = members(row_hit), hit_cols = members(col_hit);
  const auto say = [&](const std::string &where, bool one) {
    f.text = where + (one ? " is " : " are ") + what;
  };
  Indices all_rows(size_t(m.rows)), all_cols(size_t(m.cols));
  for (int64_t i = 0; i < m.rows; ++i) all_rows[size_t(i)] = i;
  for (int64_t j = 0; j < m.cols; ++j) all_cols[size_t(j)] = j;
  const auto whole = [](const Indices &hit, const Mask &complete) {
    return std::all_of(hit.begin(), hit.end(), [&](int64_t i) { return complete[size_t(i)]; });
  };
  const bool by_rows = whole(hit_rows, row_full), by_cols = whole(hit_cols, col_full);
  if (std::all_of(row_full.begin(), row_full.end(), [](bool b) { return b; })) {
    f.rows = all_rows, f.cols = all_cols;
    f.text = "D is " + what + " everywhere";
  } else if (by_rows) {
    f.rows = hit_rows, f.cols = all_cols;
    say(describe(f.rows, m.rows, "row"), f.rows.size() == 1);
  } else if (by_cols) {
    f.rows = all_rows, f.cols = hit_cols;
    say(describe(f.cols, m.cols, "column"), f.cols.size() == 1);
  } else if (f.outputs == 1) {
    f.rows = hit_rows, f.cols = hit_cols;
    say("output " + m.place(first), true);
  } else if (full(m, mask, hit_rows, hit_cols)) {
    f.rows = hit_rows, f.cols = hit_cols;
    say(describe(f.rows, m.rows, "row") + " of " + describe(f.cols, m.cols, "column"), false);
  } else {
    // whole rows and whole columns together
    bool cross = true;
    for (int64_t i = 0; cross && i < m.rows; ++i)
      for (int64_t j = 0; cross && j < m.cols; ++j)
        cross = !bad[size_t(i * m.cols + j)] || (row_full[size_t(i)] && row_hit[size_t(i)]) ||
                (col_full[size_t(j)] && col_hit[size_t(j)]);
    Indices rows, cols;
    for (const int64_t i : hit_rows)
      if (row_full[size_t(i)]) rows.push_back(i);
    for (const int64_t j : hit_cols)
      if (col_full[size_t(j)]) cols.push_back(j);
    const std::string tiles = cross ? "" : tiles_of(m, bad, mask);
    if (cross)
      say(describe(rows, m.rows, "row") + ", and " + describe(cols, m.cols, "column"), false);
    else if (!tiles.empty())
      say(tiles, false);
    else
      say(std::to_string(f.outputs) + " outputs in " + describe(hit_rows, m.rows, "row") + " and " +
              describe(hit_cols, m.cols, "column") + ", the first at " + m.place(first) + ",",
          false);
  }
  return f;
}

std::string word_text(const Matrix &m, uint64_t word) {
  char text[64];
  std::snprintf(text, sizeof text, "%0*llx (%.9g)", format(m.type).storage_bits / 4, (unsigned long long)word,
                value(m.type, word));
  return text;
}

/// Outputs that are not numbers, zeros, and one word again and again.
void add_classes(const Matrix &m, Structure &s) {
  const Format f = format(m.type);
  const int64_t n = m.rows * m.cols;
  int64_t differing = 0;
  for (int64_t at = 0; at < n; ++at) differing += m.differs(at) ? 1 : 0;
  struct Kind {
    const char *kind, *what;
    Class cls;
  };
  for (const Kind &k : {Kind{"nan", "NaN", Class::nan},
                        {"infinity", "Inf", Class::infinity},
                        {"zero", "zero", Class::zero}}) {
    Mask bad(static_cast<size_t>(n)), mask(static_cast<size_t>(n));
    bool any = false;
    for (int64_t at = 0; at < n; ++at) {
      if (decode(f, m.got[at]).cls != k.cls) continue;
      mask[size_t(at)] = true;
      // zeros of the other sign and other NaN words are no pattern
      if (decode(f, m.want[at]).cls == k.cls && (k.cls != Class::infinity || !m.differs(at))) continue;
      bad[size_t(at)] = any = true;
    }
    if (!any) continue;
    Fact fact = located(m, k.kind, k.what, bad, mask);
    // zeros here and there come up by themselves; a NaN does not
    if (k.cls == Class::zero && (fact.outputs < 4 || (fact.rows.empty() && fact.outputs * 8 < differing)))
      continue;
    if (k.cls == Class::zero && fact.outputs >= 8) {
      bool relu = true;
      for (int64_t at = 0; relu && at < n; ++at) {
        const double want = value(m.type, m.want[at]);
        relu = bad[size_t(at)] ? want < 0 : !(want < 0) || decode(f, m.got[at]).cls == Class::zero;
      }
      if (relu)
        fact.text = "the " + std::to_string(fact.outputs) +
                    " outputs that should be negative are zero, as under ReLU";
    }
    s.facts.push_back(std::move(fact));
    for (int64_t at = 0; at < n; ++at)
      if (bad[size_t(at)]) s.covered[size_t(at)] = true;
  }
  Mask missing(static_cast<size_t>(n)), wanted_nan(static_cast<size_t>(n));
  bool any_missing = false;
  for (int64_t at = 0; at < n; ++at) {
    wanted_nan[size_t(at)] = decode(f, m.want[at]).cls == Class::nan;
    missing[size_t(at)] =
        wanted_nan[size_t(at)] && !s.covered[size_t(at)] && decode(f, m.got[at]).cls != Class::nan;
    if (missing[size_t(at)]) s.covered[size_t(at)] = any_missing = true;
  }
  if (any_missing)
    s.facts.push_back(located(m, "nan-missing", "a number where NaN is expected", missing, wanted_nan));
  // a word that makes up an eighth of them survives among sixteen counters (Misra and Gries)
  constexpr size_t counters = 16;
  std::vector<std::pair<uint64_t, int64_t>> counts;
  int64_t left = 0;
  const auto each_open = [&](auto visit) {
    for (int64_t at = 0; at < n; ++at)
      if (m.differs(at) && !s.covered[size_t(at)]) visit(m.got[at]);
  };
  each_open([&](uint64_t word) {
    ++left;
    const auto found =
        std::find_if(counts.begin(), counts.end(), [&](const auto &c) { return c.first == word; });
    if (found != counts.end())
      ++found->second;
    else if (counts.size() < counters)
      counts.emplace_back(word, 1);
    else
      for (size_t c = counts.size(); c-- > 0;)
        if (--counts[c].second == 0) counts.erase(counts.begin() + long(c));
  });
  for (auto &c : counts) c.second = 0;
  each_open([&](uint64_t word) {
    for (auto &c : counts) c.second += c.first == word ? 1 : 0;
  });
  const auto most = std::max_element(counts.begin(), counts.end(), [](const auto &x, const auto &y) {
    return x.second != y.second ? x.second < y.second : x.first > y.first;
  });
  if (most == counts.end() || most->second < 16) return;
  int64_t wanted = 0;
  for (int64_t at = 0; at < n; ++at) wanted += m.want[at] == most->first ? 1 : 0;
  // a word that results have too, or one of many that come up by chance in a small format, says nothing
  if (most->second < 8 * wanted || most->second * 8 < left) return;
  Mask bad(static_cast<size_t>(n)), mask(static_cast<size_t>(n));
  for (int64_t at = 0; at < n; ++at) {
    mask[size_t(at)] = m.got[at] == most->first;
    bad[size_t(at)] = mask[size_t(at)] && m.differs(at);
    if (bad[size_t(at)]) s.covered[size_t(at)] = true;
  }
  s.facts.push_back(located(m, "constant", "the one word " + word_text(m, most->first), bad, mask));
}

uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
  return x ^ (x >> 31);
}

/// Hash of words at first, first + stride, ...; `ordered` or as a bag.
uint64_t hash_line(const CodeView &words, int64_t first, int64_t count, int64_t stride, bool ordered) {
  uint64_t h = 0x9E3779B97F4A7C15;
  for (int64_t i = 0; i < count; ++i) {
    const uint64_t w = mix(words[first + i * stride] + 0x632BE59BD9B4E019);
    h = ordered ? mix(h ^ w) : h + w;
  }
  return h;
}

bool has_two_words(const CodeView &words, int64_t first, int64_t count, int64_t stride) {
  for (int64_t i = 1; i < count; ++i)
    if (words[first + i * stride] != words[first]) return true;
  return false;
}

/// to[x] = which line of the reference line x holds, -1: none of them. Lines that are right hold themselves.
std::vector<int64_t> sources(const Matrix &m, bool rows, bool ordered) {
  const int64_t lines = rows ? m.rows : m.cols, length = rows ? m.cols : m.rows, stride = rows ? 1 : m.cols,
                step = rows ? m.cols : 1;
  std::unordered_map<uint64_t, int64_t> by_hash;
  std::vector<uint64_t> want(static_cast<size_t>(lines));
  for (int64_t x = lines; x-- > 0;) {
    want[size_t(x)] = hash_line(m.want, x * step, length, stride, ordered);
    by_hash[want[size_t(x)]] = x;
  }
  std::vector<int64_t> to(size_t(lines), -1);
  for (int64_t x = 0; x < lines; ++x) {
    const uint64_t h = hash_line(m.got, x * step, length, stride, ordered);
    if (h == want[size_t(x)])
      to[size_t(x)] = x;
    else if (const auto found = by_hash.find(h);
             found != by_hash.end() && has_two_words(m.got, x * step, length, stride))
      to[size_t(x)] = found->second;
  }
  return to;
}

/// A rule of places by name: where line x of n, in groups of g, comes from. -1: the rule has no meaning for
/// it.
struct Permutation {
  const char *text; ///< % stands for g
  int64_t (*from)(int64_t x, int64_t n, int64_t g);
  bool grouped;
};
constexpr Permutation kPermutations[] = {
    {"the two halves are exchanged",
     [](int64_t x, int64_t n, int64_t) { return n % 2 == 0 ? (x + n / 2) % n : -1; }, false},
    {"they run from the last to the first", [](int64_t x, int64_t n, int64_t) { return n - 1 - x; }, false},
    {"in every % the two halves are exchanged",
     [](int64_t x, int64_t, int64_t g) { return x / g * g + (x % g + g / 2) % g; }, true},
    {"in every % the two halves are interleaved (h, h + 1/2, ...), as for rotary embedding",
     [](int64_t x, int64_t, int64_t g) { return x / g * g + x % g / 2 + (x % 2) * (g / 2); }, true},
    {"in every % even ones come first, then odd ones: an interleaving undone, as for rotary embedding",
     [](int64_t x, int64_t, int64_t g) { return x / g * g + x % g % (g / 2) * 2 + x % g / (g / 2); }, true},
    {"in every % they run from the last to the first",
     [](int64_t x, int64_t, int64_t g) { return x / g * g + g - 1 - x % g; }, true},
};

std::string name_of(const std::vector<int64_t> &to) {
  const int64_t n = int64_t(to.size());
  const auto fits = [&](const Permutation &p, int64_t g) {
    for (int64_t x = 0; x < n; ++x)
      if (to[size_t(x)] >= 0 && p.from(x, n, g) != to[size_t(x)]) return false;
    return true;
  };
  for (const Permutation &p : kPermutations) {
    if (!p.grouped && fits(p, n)) return p.text;
    for (int64_t g = n; p.grouped && g >= 4; --g)
      if (n % g == 0 && g % 2 == 0 && fits(p, g)) {
        std::string text = p.text;
        return text.replace(text.find('%'), 1, std::to_string(g));
      }
  }
  return "";
}

/// "row 3 holds what belongs in row 5, ..." of the lines that hold another.
std::string mapping_text(const std::vector<int64_t> &to, const std::string &what) {
  const int64_t n = int64_t(to.size());
  Indices moved;
  for (int64_t x = 0; x < n; ++x)
    if (to[size_t(x)] >= 0 && to[size_t(x)] != x) moved.push_back(x);
  if (moved.size() == 2 && to[size_t(moved[0])] == moved[1] && to[size_t(moved[1])] == moved[0])
    return what + "s " + std::to_string(moved[0]) + " and " + std::to_string(moved[1]) + " are exchanged";
  if (const std::string named = moved.size() > 2 ? name_of(to) : ""; !named.empty())
    return what + "s are right but in another place: " + named;
  const int64_t shift = to[size_t(moved[0])] - moved[0];
  const bool shifted =
      std::all_of(moved.begin(), moved.end(), [&](int64_t x) { return to[size_t(x)] - x == shift; });
  if (shifted) {
    Indices from;
    for (const int64_t x : moved) from.push_back(x + shift);
    return describe(moved, n, what) + (moved.size() == 1 ? " holds" : " hold") + " what belongs in " +
           describe(from, n, what);
  }
  std::string text = std::to_string(moved.size()) + " " + what + "s are right but in another place:";
  for (size_t i = 0; i < moved.size() && i < 3; ++i)
    text += std::string(i == 0 ? " " : ", ") + what + " " + std::to_string(moved[i]) + " holds " + what +
            " " + std::to_string(to[size_t(moved[i])]);
  return text + (moved.size() > 3 ? ", ..." : "");
}

void cover(const Matrix &m, Structure &s, Fact f, const std::function<bool(int64_t, int64_t)> &explained) {
  f.outputs = 0;
  for (int64_t i = 0; i < m.rows; ++i)
    for (int64_t j = 0; j < m.cols; ++j) {
      const size_t at = size_t(i * m.cols + j);
      if (!m.differs(int64_t(at)) || s.covered[at] || !explained(i, j)) continue;
      s.covered[at] = true;
      ++f.outputs;
    }
  if (f.outputs != 0) s.facts.push_back(std::move(f));
}

int64_t moved_of(const std::vector<int64_t> &to) {
  int64_t moved = 0;
  for (size_t x = 0; x < to.size(); ++x) moved += to[x] >= 0 && to[x] != int64_t(x) ? 1 : 0;
  return moved;
}

/// Lines of one kind in another place.
bool add_moved_lines(const Matrix &m, Structure &s, bool rows) {
  if ((rows ? m.cols : m.rows) < 4) return false;
  const std::vector<int64_t> to = sources(m, rows, true);
  if (moved_of(to) == 0) return false;
  const std::string what = rows ? "row" : "column";
  cover(m, s, {what + "s-moved", mapping_text(to, what), {}, {}, 0, -1, 0}, [&](int64_t i, int64_t j) {
    const int64_t from = to[size_t(rows ? i : j)];
    return from >= 0 && m.got[i * m.cols + j] == m.want[rows ? from * m.cols + j : i * m.cols + from];
  });
  return true;
}

/// Rows and columns both in another place: lines keep the bag of their words.
void add_moved_outputs(const Matrix &m, Structure &s) {
  if (m.rows < 4 || m.cols < 4) return;
  const std::vector<int64_t> rows = sources(m, true, false), cols = sources(m, false, false);
  if (moved_of(rows) == 0 || moved_of(cols) == 0) return;
  cover(m, s,
        {"outputs-moved",
         mapping_text(rows, "row") + ", and " + mapping_text(cols, "column"),
         {},
         {},
         0,
         -1,
         0},
        [&](int64_t i, int64_t j) {
          const int64_t r = rows[size_t(i)], c = cols[size_t(j)];
          return r >= 0 && c >= 0 && m.got[i * m.cols + j] == m.want[r * m.cols + c];
        });
}

uint64_t hash_tile(const CodeView &words, int64_t cols, int64_t i, int64_t j, int64_t t) {
  uint64_t h = 0;
  for (int64_t r = i; r < i + t; ++r) h = mix(h ^ hash_line(words, r * cols + j, t, 1, true));
  return h;
}

/// Square tiles that hold another tile of the reference, or repeat a tile of D.
void add_moved_tiles(const Matrix &m, Structure &s) {
  for (int64_t t = 128; t >= 8; t /= 2) {
    if (t > m.rows || t > m.cols || (m.rows / t) * (m.cols / t) < 2) continue;
    std::unordered_map<uint64_t, int64_t> wanted, seen;
    for (int64_t i = 0; i + t <= m.rows; i += t)
      for (int64_t j = 0; j + t <= m.cols; j += t)
        wanted.emplace(hash_tile(m.want, m.cols, i, j, t), i * m.cols + j);
    std::unordered_map<int64_t, int64_t> from; ///< corner of a tile -> corner of what it holds
    Indices alike;
    for (int64_t i = 0; i + t <= m.rows; i += t)
      for (int64_t j = 0; j + t <= m.cols; j += t) {
        const int64_t corner = i * m.cols + j;
        bool open = false;
        for (int64_t r = i; r < i + t; ++r)
          for (int64_t c = j; c < j + t; ++c)
            open = open || (m.differs(r * m.cols + c) && !s.covered[size_t(r * m.cols + c)]);
        if (!open || !has_two_words(m.got, corner, t, 1)) continue;
        const uint64_t h = hash_tile(m.got, m.cols, i, j, t);
        if (const auto found = wanted.find(h); found != wanted.end() && found->second != corner)
          from[corner] = found->second;
        else if (const auto [first, fresh] = seen.emplace(h, corner); !fresh)
          alike.insert(alike.end(), {first->second, corner});
      }
    std::sort(alike.begin(), alike.end());
    alike.erase(std::unique(alike.begin(), alike.end()), alike.end());
    const std::string size = std::to_string(t) + " x " + std::to_string(t);
    const auto corner_of = [&](int64_t i, int64_t j) { return i / t * t * m.cols + j / t * t; };
    if (!from.empty()) {
      int64_t first = -1;
      for (const auto &[corner, source] : from)
        if (first < 0 || corner < first) first = corner;
      cover(
          m, s,
          {"tiles-moved",
           (from.size() == 1 ? "the tile of " : std::to_string(from.size()) + " tiles of ") + size +
               (from.size() == 1 ? " at " + m.place(first) + " holds what belongs at " + m.place(from[first])
                                 : " are right but in another place: the one at " + m.place(first) +
                                       " holds what belongs at " + m.place(from[first])),
           {},
           {},
           0,
           -1,
           0},
          [&](int64_t i, int64_t j) { return from.count(corner_of(i, j)) != 0; });
    }
    if (!alike.empty())
      cover(m, s,
            {"tiles-alike",
             std::to_string(alike.size()) + " tiles of " + size + " repeat one another, the first at " +
                 m.place(alike.front()) + ": not what belongs in any",
             {},
             {},
             0,
             -1,
             0},
            [&](int64_t i, int64_t j) {
              return std::binary_search(alike.begin(), alike.end(), corner_of(i, j));
            });
    if (!from.empty() || !alike.empty()) return;
  }
}

int64_t open_outputs(const Matrix &m, const Structure &s) {
  int64_t left = 0;
  for (int64_t at = 0; at < m.rows * m.cols; ++at) left += m.differs(at) && !s.covered[size_t(at)] ? 1 : 0;
  return left;
}

/// Tiles written column by column in their places, where that accounts for every output that is left; the smallest size.
/// A D that is transposed as a whole is a hypothesis, not this.
void add_transposed_tiles(const Matrix &m, Structure &s) {
  for (int64_t t = 4; t <= 128; t *= 2) {
    if (t > m.rows || t > m.cols || (m.rows / t) * (m.cols / t) < 2) continue;
    const auto source = [&](int64_t i, int64_t j) { // of a place in a whole tile; -1 outside
      const int64_t r = i / t * t, c = j / t * t;
      return r + t > m.rows || c + t > m.cols ? -1 : (r + j % t) * m.cols + c + i % t;
    };
    int64_t tiles = 0, first = -1;
    bool all = true;
    for (int64_t r = 0; all && r < m.rows; r += t)
      for (int64_t c = 0; all && c < m.cols; c += t) {
        bool open = false;
        for (int64_t i = r; all && i < std::min(m.rows, r + t); ++i)
          for (int64_t j = c; all && j < std::min(m.cols, c + t); ++j) {
            const int64_t at = i * m.cols + j, from = source(i, j);
            if (!m.differs(at) || s.covered[size_t(at)]) continue;
            open = true;
            all = from >= 0 && m.got[at] == m.want[from];
          }
        if (open && tiles++ == 0) first = r * m.cols + c;
      }
    if (!all || tiles == 0) continue;
    const std::string size = std::to_string(t) + " x " + std::to_string(t);
    cover(m, s,
          {"tiles-transposed",
           tiles == 1 ? "the tile of " + size + " at " + m.place(first) + " is transposed"
                      : std::to_string(tiles) + " tiles of " + size + " are transposed, the first at " + m.place(first),
           {},
           {},
           0,
           -1,
           0},
          [&](int64_t i, int64_t j) {
            const int64_t from = source(i, j);
            return from >= 0 && m.got[i * m.cols + j] == m.want[from];
          });
    return;
  }
}

} // namespace

Structure structure_of(FormatId type, int64_t rows, int64_t cols, std::span<const uint8_t> got,
                       std::span<const uint8_t> want) {
  const int bits = format(type).storage_bits;
  const Matrix m{type, rows, cols, {got.data(), bits}, {want.data(), bits}};
  Structure s;
  s.covered.resize(size_t(rows * cols));
  add_classes(m, s);
  if (open_outputs(m, s) != 0) {
    const bool by_rows = add_moved_lines(m, s, true), by_cols = add_moved_lines(m, s, false);
    if (!by_rows && !by_cols) add_moved_outputs(m, s);
    if (open_outputs(m, s) != 0) add_moved_tiles(m, s);
    if (open_outputs(m, s) != 0) add_transposed_tiles(m, s);
  }
  s.left = open_outputs(m, s);
  return s;
}

} // namespace nvfp4::diagnosis
