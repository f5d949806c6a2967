// SPDX-License-Identifier: Apache-2.0
// Recomputes golden text files, case by case.
#include "nvfp4/golden/verify.hpp"

#include "nvfp4/emulator/formats/conversion.hpp"
#include "nvfp4/emulator/gemm/gemm_oracle.hpp"
#include "nvfp4/emulator/oracle/oracle.hpp"
#include "nvfp4/emulator/tensorcore/catalogue.hpp"
#include "nvfp4/golden/verify_quantize.hpp"

#include <map>
#include <mutex>
#include <optional>
#include <tuple>

namespace nvfp4::golden {

class DigestCache {
public:
  uint64_t get(const Conversion &c, uint32_t chunk) {
    const Key key{c.to, c.from, c.rounding, c.overflow, c.relu, c.nan, chunk};
    {
      const std::lock_guard lock(mutex_);
      if (const auto it = digests_.find(key); it != digests_.end()) return it->second;
    }
    const uint64_t digest = conversion_digest(c, chunk);
    const std::lock_guard lock(mutex_);
    return digests_[key] = digest;
  }

private:
  using Key = std::tuple<FormatId, FormatId, Rounding, Overflow, bool, NanRule, uint32_t>;
  std::mutex mutex_;
  std::map<Key, uint64_t> digests_;
};

std::shared_ptr<DigestCache> make_digest_cache() { return std::make_shared<DigestCache>(); }

namespace {

/// Adds the verdicts of rows that threads judge in any order; keeps the mismatch of the lowest row.
class Tally {
public:
  explicit Tally(std::string subject) { verdict_.subject = std::move(subject); }
  void mismatch(size_t row, const std::string &text) {
    const std::lock_guard lock(mutex_);
    ++verdict_.mismatches;
    if (verdict_.first.empty() || row < first_row_) {
      verdict_.first = text;
      first_row_ = row;
    }
  }
  void fail(const Error &error) {
    const std::lock_guard lock(mutex_);
    if (!error_) error_ = error;
  }
  [[nodiscard]] Verdict finish(size_t cases) {
    if (error_) throw *error_;
    verdict_.cases = cases;
    return verdict_;
  }

private:
  std::mutex mutex_;
  Verdict verdict_;
  size_t first_row_ = 0;
  std::optional<Error> error_;
};

Verdict verify_mma(const TextFile &file, const VerifyOptions &options) {
  const Unit &unit = find_unit(file.require("unit"));
  const UnitRule &rule = unit.rule;
  const std::string model = file.get("accumulation");
  const Accumulation accumulation = model.empty() ? options.accumulation : parse_enum<Accumulation>(model);
  const bool scaled = rule.scale_block != 0;
  const size_t ca = file.column("a"), cb = file.column("b"), cc = file.column("c"), cd = file.column("d");
  const size_t csa = scaled ? file.column("scale_a") : 0, csb = scaled ? file.column("scale_b") : 0;
  const int bits_a = format(rule.a).storage_bits, bits_b = format(rule.b).storage_bits;
  const int bits_c = format(rule.acc).storage_bits;
  Tally tally(unit.name());
#pragma omp parallel for schedule(dynamic, 64)
  for (size_t r = 0; r < file.rows.size(); ++r) {
    try {
      const auto &row = file.rows[r];
      const std::string where = file.path + ": case " + std::to_string(r + 1);
      const std::vector<uint64_t> a = parse_hex_words(row[ca], bits_a, where), b = parse_hex_words(row[cb], bits_b, where);
      const uint64_t c = parse_hex_words(row[cc], bits_c, where).front();
      const uint64_t d = parse_hex_words(row[cd], bits_c, where).front();
      if (a.size() != b.size() || a.size() % size_t(rule.k) != 0)
        throw Error(where + ": K of a and b must be equal and a multiple of " + std::to_string(rule.k));
      const std::vector<uint8_t> pa = pack_words(a, bits_a), pb = pack_words(b, bits_b);
      std::vector<uint8_t> sa, sb;
      if (scaled) {
        const int bits = format(rule.scale).storage_bits;
        sa = pack_words(parse_hex_words(row[csa], bits, where), bits);
        sb = pack_words(parse_hex_words(row[csb], bits, where), bits);
        if (int64_t(sa.size()) != rule.scale_row(int64_t(a.size())) || sb.size() != sa.size())
          throw Error(where + ": wrong number of scales");
      }
      const DotOperands op{{pa.data(), bits_a}, {pb.data(), bits_b}, sa.data(), sb.data()};
      const uint64_t got = options.oracle ? oracle_dot(rule, op, int64_t(a.size()), accumulation, c)
                                          : dot(rule, op, int64_t(a.size()), c, accumulation);
      if (got != d)
        tally.mismatch(r, "case " + std::to_string(r + 1) + " (" + row[0] + "): expected " + hex_word(d, bits_c) +
                              ", computed " + hex_word(got, bits_c));
    } catch (const Error &error) {
      tally.fail(error);
    }
  }
  return tally.finish(file.rows.size());
}

oracle::Rounding oracle_rounding(Rounding r) {
  switch (r) {
  case Rounding::nearest_even: return oracle::Rounding::rn;
  case Rounding::toward_zero: return oracle::Rounding::rz;
  case Rounding::upward: return oracle::Rounding::rp;
  case Rounding::downward: return oracle::Rounding::rm;
  case Rounding::nearest_away: break;
  }
  return oracle::Rounding::rna;
}

Verdict verify_convert(const TextFile &file, const VerifyOptions &options) {
  const Conversion &c = find_conversion(file.require("conversion"));
  const size_t in = file.column("in"), out = file.column("out");
  const int in_bits = format(c.from).storage_bits == 4 ? 8 : format(c.from).storage_bits;
  const int out_bits = format(c.to).storage_bits == 4 ? 8 : format(c.to).storage_bits;
  Tally tally(std::string(c.name));
  for (size_t r = 0; r < file.rows.size(); ++r) {
    const std::string where = file.path + ": case " + std::to_string(r + 1);
    const auto widen = [&](size_t column) {
      uint64_t word = 0; // 4-bit codes may be written with one digit or two
      if (file.rows[r][column].size() > 16) throw Error(where + ": a word has at most 16 digits");
      for (const uint64_t digit : parse_hex_words(file.rows[r][column], 4, where)) word = word << 4 | digit;
      return word;
    };
    const uint64_t word = widen(in), want = widen(out);
    const bool by_oracle = options.oracle && !c.relu;
    const uint64_t got = by_oracle ? oracle::convert(c.to, c.from, word, oracle_rounding(c.rounding),
                                                     c.overflow == Overflow::satfinite)
                                   : c(word);
    if (got != want)
      tally.mismatch(r, "input " + hex_word(word, in_bits) + ": expected " + hex_word(want, out_bits) +
                            ", computed " + hex_word(got, out_bits));
  }
  return tally.finish(file.rows.size());
}

Verdict verify_convert_digest(const TextFile &file, const VerifyOptions &options) {
  const Conversion &c = find_conversion(file.require("conversion"));
  const size_t chunk = file.column("chunk"), digest = file.column("digest");
  Tally tally(std::string(c.name));
  std::vector<size_t> rows; // the sample: around 1 and at the top, both signs
  for (size_t r = 0; r < file.rows.size(); ++r)
    if (options.full || r % 64 == 63 || r + 1 == file.rows.size()) rows.push_back(r); // chunks 3f, 7f, bf, ff
#pragma omp parallel for schedule(dynamic, 1)
  for (size_t i = 0; i < rows.size(); ++i) {
    try {
      const auto &row = file.rows[rows[i]];
      const std::string where = file.path + ": chunk " + row[chunk];
      uint64_t number = 0;
      for (const uint64_t digit : parse_hex_words(row[chunk], 4, where)) number = number << 4 | digit;
      if (number > 0xFF || row[chunk].size() > 2) throw Error(where + ": chunks are 00 to ff");
      const uint64_t want = parse_hex_words(row[digest], 64, where).front();
      const uint64_t got =
          options.digests ? options.digests->get(c, uint32_t(number)) : conversion_digest(c, uint32_t(number));
      if (got != want)
        tally.mismatch(rows[i], "some input " + hex_word(number, 8) + "xxxxxx converts differently");
    } catch (const Error &error) {
      tally.fail(error);
    }
  }
  return tally.finish(rows.size() << 24);
}

} // namespace

Verdict verify_text(const TextFile &file, const VerifyOptions &options) {
  if (file.rows.empty()) throw Error(file.path + ": holds no cases");
  const std::string kind = file.require("kind");
  if (kind == "mma") return verify_mma(file, options);
  if (kind == "convert") return verify_convert(file, options);
  if (kind == "convert-digest") return verify_convert_digest(file, options);
  throw Error(file.path + ": unknown kind '" + kind + "'");
}

Verdict verify_file(const std::string &path, const VerifyOptions &options) {
  if (path.ends_with(".safetensors")) return verify_quantize(path, options.isa);
  return verify_text(read_text(path), options);
}

} // namespace nvfp4::golden
