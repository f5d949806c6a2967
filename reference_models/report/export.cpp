// SPDX-License-Identifier: Apache-2.0
// One list of measures serves CSV and events.
#include "nvfp4/reference_models/report/export.hpp"
#include "nvfp4/reference_models/report/analysis.hpp"

#include <array>
#include <bit>
#include <charconv>
#include <cmath>
#include <fmt/core.h>

namespace nvfp4::models {
namespace {

std::string number(double x) { return std::isfinite(x) ? fmt::format("{}", x) : "nan"; }

/// Quoted where a comma, a quote or a line break stands in it.
std::string cell(const std::string &text) {
  if (text.find_first_of(",\"\n\r") == std::string::npos) return text;
  std::string out = "\"";
  for (const char c : text) out += c == '"' ? std::string("\"\"") : std::string(1, c);
  return out + "\"";
}

struct Measure {
  int64_t step = 0;
  int layer = 0;
  std::string op, quantity;
  double value = 0;
};

std::vector<Measure> measures(const RunData &run) {
  std::vector<Measure> out;
  for (const TensorRecord &t : run.tensors) {
    const std::string kind(to_string(t.kind));
    for (const auto &[name, value] :
         {std::pair("_kurtosis", t.kurtosis), std::pair("_block_kurtosis_max", t.block_max),
          std::pair("_block_kurtosis_p99", t.block_p99), std::pair("_top1", t.top1), std::pair("_ftz", t.ftz),
          std::pair("_snr_db", t.snr_db), std::pair("_scale_underflows", t.scale_underflows),
          std::pair("_largest_scales", t.largest_scales), std::pair("_saturated", t.saturated)})
      out.push_back({t.step, t.layer, t.op, kind + name, value});
  }
  for (const OutputRecord &r : run.outputs) out.push_back({r.step, r.layer, r.op, "output_top1", r.top1});
  for (const AttentionRecord &r : run.attention)
    for (const auto &[name, value] : {std::pair("entropy", r.entropy), std::pair("logit_max", r.logit_max),
                                      std::pair("logit_kurtosis", r.logit_kurtosis),
                                      std::pair("sink", r.sink), std::pair("sink_heads", r.sink_heads)})
      out.push_back({r.step, r.layer, "attention", std::string("attention_") + name, value});
  for (const ResidualRecord &r : run.residual)
    for (const auto &[name, value] : {std::pair("largest", r.largest), std::pair("median", r.median),
                                      std::pair("massive", r.massive), std::pair("growth", r.growth)})
      out.push_back({r.step, r.layer, "residual", std::string("residual_") + name, value});
  for (const GateRecord &r : run.gates)
    for (const auto &[name, value] :
         {std::pair("min", r.min), std::pair("max", r.max), std::pair("top1", r.top1)})
      out.push_back({r.step, r.layer, "gate", std::string("gate_") + name, value});
  for (const SwigluRecord &r : run.swiglu)
    for (const auto &[name, value] : {std::pair("mean_abs", r.mean_abs), std::pair("p99_abs", r.p99_abs),
                                      std::pair("weighted", r.weighted)})
      out.push_back({r.step, r.layer, "swiglu", std::string("swiglu_") + name, value});
  return out;
}

/// Protocol buffers, as far as an Event goes: a field's key is its number and how its value is written.
void put_varint(std::string &out, uint64_t x) {
  for (; x >= 128; x >>= 7) out += char(x | 128);
  out += char(x);
}
template <class T> void put_word(std::string &out, T x) {
  for (size_t i = 0; i < sizeof(T); ++i) out += char(x >> (8 * i) & 255);
}
void put_bytes(std::string &out, int field, std::string_view bytes) {
  put_varint(out, uint64_t(field) << 3 | 2);
  put_varint(out, bytes.size());
  out += bytes;
}

/// Event: 1 wall_time (double), 2 step (int64), 3 file_version (string), 5 summary.
std::string event(double seconds, int64_t step) {
  std::string out;
  put_varint(out, 1 << 3 | 1);
  put_word(out, std::bit_cast<uint64_t>(seconds));
  put_varint(out, 2 << 3 | 0);
  put_varint(out, uint64_t(step));
  return out;
}

/// Summary: 1 value; Value: 1 tag (string), 2 simple_value (float).
void put_scalar(std::string &summary, const std::string &tag, double x) {
  std::string value;
  put_bytes(value, 1, tag);
  put_varint(value, 2 << 3 | 5);
  put_word(value, std::bit_cast<uint32_t>(float(x)));
  put_bytes(summary, 1, value);
}

uint32_t masked_crc(std::string_view bytes) {
  const uint32_t crc = crc32c(bytes);
  return (crc >> 15 | crc << 17) + 0xA282EAD8u;
}

void put_record(std::string &out, const std::string &data) {
  std::string length;
  put_word(length, uint64_t(data.size()));
  out += length;
  put_word(out, masked_crc(length));
  out += data;
  put_word(out, masked_crc(data));
}

} // namespace

uint32_t crc32c(std::string_view bytes) {
  static const auto table = [] {
    std::array<uint32_t, 256> t{};
    for (uint32_t i = 0; i < 256; ++i) {
      t[i] = i;
      for (int bit = 0; bit < 8; ++bit) t[i] = t[i] >> 1 ^ (t[i] & 1 ? 0x82F63B78u : 0);
    }
    return t;
  }();
  uint32_t crc = ~0u;
  for (const char c : bytes) crc = crc >> 8 ^ table[(crc ^ uint8_t(c)) & 255];
  return ~crc;
}

std::string log_csv(const std::vector<RunData> &runs) {
  std::string out = "run,step,tokens,loss,learning_rate,gradient_norm,tokens_per_s,validation_loss,"
                    "gradient_norm_deviations\n";
  for (const RunData &run : runs) {
    const Spikes spikes = gradient_spikes(run);
    for (size_t i = 0; i < run.log.size(); ++i) {
      const LogLine &l = run.log[i];
      out += fmt::format("{},{},{},{},{},{},{},{},{}\n", cell(run.folder), l.step, l.tokens, number(l.loss),
                         number(l.learning_rate), number(l.gradient_norm), number(l.tokens_per_second),
                         l.validation_loss ? number(*l.validation_loss) : "", number(spikes.deviations[i]));
    }
  }
  return out;
}

std::string diagnostics_csv(const std::vector<RunData> &runs) {
  std::string out = "run,step,layer,operator,quantity,value\n";
  for (const RunData &run : runs)
    for (const Measure &m : measures(run))
      out += fmt::format("{},{},{},{},{},{}\n", cell(run.folder), m.step, m.layer, cell(m.op), m.quantity,
                         number(m.value));
  return out;
}

std::string event_file(const RunData &run) {
  std::string out, version = event(0, 0);
  put_bytes(version, 3, "brain.Event:2");
  put_record(out, version);
  double seconds = 0;
  int64_t tokens = 0;
  std::map<int64_t, double> times;
  const auto add = [&](double at, int64_t step, const std::string &summary) {
    std::string whole = event(at, step);
    put_bytes(whole, 5, summary);
    put_record(out, whole);
  };
  for (const LogLine &l : run.log) {
    if (l.tokens_per_second > 0) seconds += double(l.tokens - tokens) / l.tokens_per_second;
    tokens = l.tokens;
    times[l.step] = seconds;
    std::string summary;
    put_scalar(summary, "train/loss", l.loss);
    put_scalar(summary, "train/learning_rate", l.learning_rate);
    put_scalar(summary, "train/gradient_norm", l.gradient_norm);
    put_scalar(summary, "train/tokens_per_s", l.tokens_per_second);
    if (l.validation_loss) put_scalar(summary, "validation/loss", *l.validation_loss);
    add(seconds, l.step, summary);
  }
  for (const Measure &m : measures(run)) {
    std::string summary;
    put_scalar(summary, fmt::format("diagnostics/{}/{}.{}", m.quantity, m.layer, m.op), m.value);
    const auto at = times.find(m.step);
    add(at == times.end() ? 0 : at->second, m.step, summary);
  }
  return out;
}

} // namespace nvfp4::models
