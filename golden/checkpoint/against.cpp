// SPDX-License-Identifier: Apache-2.0
// Quantizes the original under each convention of the weight's format: a sample of rows first, all of them
// for those that give the sample's bytes.
#include "nvfp4/golden/checkpoint/against.hpp"
#include "nvfp4/emulator/quantize/quantize.hpp"
#include "nvfp4/golden/diagnosis/quantizer_check.hpp"
#include "nvfp4/golden/io/message.hpp"
#include "nvfp4/golden/quantized_file.hpp"

#include <algorithm>
#include <bit>
#include <cmath>

namespace nvfp4::checkpoint {
namespace {

constexpr int64_t kSampleRows = 64;

struct Trial {
  const Convention *convention;
  QuantizeOptions options;
  std::string amax;
};

bool same_word(float a, float b) { return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b); }

std::vector<Trial> trials(const Weight &mine, const Weight &original, const AgainstOptions &o, float own) {
  std::vector<Trial> all;
  const FormatId stored = golden::format_of(*original.codes->dtype).value_or(FormatId::f32);
  for (const Convention &c : conventions()) {
    if (c.rule.element != mine.container->element || c.rule.scale != mine.container->scale ||
        c.rule.block != mine.container->block || c.rule.per_row)
      continue;
    if (!o.convention.empty() && &c != &find_convention(o.convention)) continue;
    for (const int block_rows : {1, 16}) {
      if (block_rows == 16 && (!c.can.tiles || c.rule.block != 16)) continue;
      QuantizeOptions q;
      q.block_rows = block_rows;
      q.source = stored == FormatId::bf16 || stored == FormatId::f16 ? stored : FormatId::f32;
      q.threads = o.threads;
      if (has_tensor_level(c.rule)) q.global_amax = own;
      all.push_back({&c, q, "own"});
      if (!has_tensor_level(c.rule)) continue;
      if (o.fused_amax && *o.fused_amax != own) {
        q.global_amax = *o.fused_amax;
        all.push_back({&c, q, "fused"});
      }
      const bool takes_p = stores_decode(c.rule), takes_s = takes_encode(c.rule);
      const bool divides = mine.container->global_use == GlobalUse::divides;
      if (mine.global && (divides ? takes_s : takes_p)) {
        q.global_amax.reset();
        q.global_scale = global_word(mine, 0);
        all.push_back({&c, q, "stored"});
      }
    }
  }
  return all;
}

/// Compares the rows that both have.
void count_differences(Reproduction &r, const BlockScaled &mine, const BlockScaled &made) {
  for (int64_t row = 0; row < mine.rows; ++row) {
    for (int64_t i = 0; i < mine.k; ++i) r.codes_differing += mine.code_word(row, i) != made.code_word(row, i);
    for (int64_t b = 0; b < mine.blocks(); ++b)
      r.scales_differing += mine.scale_code(row, b) != made.scale_code(row, b);
  }
}

std::optional<Reproduction> attempt(const Trial &t, const Weight &mine, const BlockScaled &q,
                                    std::span<const float> x) {
  BlockScaled made;
  try {
    quantize_into(made, {x.data(), q.rows, q.k}, *t.convention, t.options);
  } catch (const Error &) { // an amax or a word that the convention cannot take
    return std::nullopt;
  }
  Reproduction r{std::string(t.convention->name), t.amax, t.options.block_rows};
  count_differences(r, q, made);
  if (mine.global && mine.container->global_use != GlobalUse::after)
    r.global_equal = mine.container->global_use == GlobalUse::divides
                         ? same_word(made.global_encode, q.global_encode)
                         : same_word(made.global_decode, q.global_decode);
  return r;
}

bool closer(const Reproduction &a, const Reproduction &b) {
  return a.codes_differing + a.scales_differing < b.codes_differing + b.scales_differing;
}

/// What the diagnosis of quantizers says of the sample, taken as the closest convention's.
std::string explain(const Trial &t, BlockScaled mine, std::span<const float> x) {
  try {
    BlockScaled made;
    quantize_into(made, {x.data(), mine.rows, mine.k}, *t.convention, t.options);
    mine.convention = t.convention->name;
    mine.block_rows = t.options.block_rows;
    mine.source = t.options.source;
    mine.global_amax = made.global_amax, mine.global_encode = made.global_encode,
    mine.global_decode = made.global_decode;
    diagnosis::QuantizerProblem p;
    p.source = {mine.rows, mine.k, {x.begin(), x.end()}};
    p.mine = std::move(mine);
    p.convention = t.convention;
    p.global_amax = t.options.global_amax;
    p.threads = t.options.threads;
    return diagnosis::check_quantizer(p).verdict;
  } catch (const Error &) {
    return {};
  }
}

void find_conventions(Comparison &out, const Weight &mine, const Weight &original, const AgainstOptions &o) {
  const float own = largest_magnitude(original, o.threads);
  const int64_t sample = std::min(kSampleRows, mine.rows);
  const BlockScaled few = block_scaled(mine, 0, 0, sample);
  const std::vector<float> few_values = values(original, 0, 0, sample, o.threads);
  std::optional<Trial> best;
  std::optional<Reproduction> best_few;
  BlockScaled all;
  std::vector<float> all_values;
  const auto whole = [&](const Trial &t) {
    if (all_values.empty()) {
      all = block_scaled(mine, 0, 0, mine.rows);
      all_values = values(original, 0, 0, mine.rows, o.threads);
    }
    return attempt(t, mine, all, all_values);
  };
  for (const Trial &t : trials(mine, original, o, own)) {
    const bool known = std::any_of(out.equal.begin(), out.equal.end(),
                                   [&](const Reproduction &r) { return r.convention == t.convention->name; });
    const std::optional<Reproduction> r = attempt(t, mine, few, few_values);
    if (!r || known) continue;
    if (r->bytes_equal())
      if (const auto w = whole(t); w && w->bytes_equal()) {
        out.equal.push_back(*w);
        continue;
      }
    if (!best_few || closer(*r, *best_few)) best = t, best_few = r;
  }
  if (!out.equal.empty() || !best) return;
  out.closest = whole(*best);
  out.explanation = explain(*best, few, few_values);
}

} // namespace

std::string Reproduction::text() const {
  return convention + (block_rows > 1 ? " with 16x16 tiles" : "") +
         (amax == "own"     ? ""
          : amax == "fused" ? ", amax of the fused modules"
                            : ", with the stored global scale");
}

float largest_magnitude(const Weight &w, int threads) {
  float amax = 0;
  const int64_t step = rows_at_once(w);
  for (int64_t index = 0; index < w.batch; ++index)
    for (int64_t first = 0; first < w.rows; first += step)
      for (const float v : values(w, index, first, std::min(step, w.rows - first), threads))
        if (std::isfinite(v)) amax = std::max(amax, std::fabs(v));
  return amax;
}

std::vector<std::string> fused_with(const std::string &name) {
  constexpr std::string_view ending = ".weight";
  if (!name.ends_with(ending)) return {};
  const std::string base = name.substr(0, name.size() - ending.size());
  const size_t dot = base.rfind('.') + 1; // 0 where there is none
  const std::string leaf = base.substr(dot);
  std::vector<std::string> out;
  for (const FusedGroup &group : fused_groups())
    if (std::find(group.members.begin(), group.members.end(), leaf) != group.members.end())
      for (const std::string_view member : group.members)
        if (!member.empty() && member != leaf)
          out.push_back(base.substr(0, dot) + std::string(member) + std::string(ending));
  return out;
}

Comparison compare_with(const Weight &mine, const Weight &original, const AgainstOptions &o) {
  Comparison out;
  if (!original.decodable || original.container || mine.batch * mine.rows != original.batch * original.rows ||
      mine.k != original.k) {
    out.refused = "the original is " + original.kind() + " " + io::shape_text(original.codes->shape) +
                  "; expected numbers of " +
                  io::shape_text(std::vector<int64_t>{mine.batch * mine.rows, mine.k});
    return out;
  }
  double signal = 0, noise = 0;
  const int64_t step = rows_at_once(mine);
  for (int64_t index = 0; index < mine.batch; ++index)
    for (int64_t first = 0; first < mine.rows; first += step) {
      const int64_t count = std::min(step, mine.rows - first), row = index * mine.rows + first;
      Weight flat = original;
      flat.batch = 1, flat.rows = original.batch * original.rows;
      const std::vector<float> x = values(flat, 0, row, count, o.threads),
                               y = values(mine, index, first, count, o.threads);
      for (size_t i = 0; i < x.size(); ++i) {
        if (!std::isfinite(x[i]) || !std::isfinite(y[i])) {
          ++out.not_finite;
          continue;
        }
        const double difference = double(x[i]) - double(y[i]);
        signal += double(x[i]) * double(x[i]);
        noise += difference * difference;
        out.flushed += x[i] != 0 && y[i] == 0;
      }
    }
  out.snr_db = 10 * std::log10(signal / noise);
  if (mine.is_block_scaled() && mine.batch == 1) find_conventions(out, mine, original, o);
  return out;
}

} // namespace nvfp4::checkpoint
