// SPDX-License-Identifier: Apache-2.0
// Decides for each weight whether it is carried, quantized, dequantized or copied, and refuses what cannot
// be.
#include "nvfp4/golden/checkpoint/export_plan.hpp"
#include "nvfp4/emulator/formats/bf16.hpp"
#include "nvfp4/emulator/quantize/quantize.hpp"
#include "nvfp4/golden/checkpoint/against.hpp"
#include "nvfp4/golden/io/message.hpp"
#include "nvfp4/golden/quantized_file.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fnmatch.h>
#include <set>

namespace nvfp4::checkpoint {
namespace {

template <class T> std::vector<std::byte> to_bytes(std::span<const T> values) {
  std::vector<std::byte> bytes(values.size_bytes());
  if (!bytes.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

std::string hex_word(float v) {
  char text[16];
  std::snprintf(text, sizeof text, "%08x", std::bit_cast<uint32_t>(v));
  return text;
}

/// Blocks of GGUF from codes in order of k.
std::vector<std::byte> pack_half_low(const BlockScaled &q, const GgufType &type) {
  const int group = type.block / q.block, half = q.block / 2;
  std::vector<std::byte> out(size_t(q.rows * (q.k / type.block) * type.bytes));
  auto *to = reinterpret_cast<uint8_t *>(out.data());
  for (int64_t r = 0; r < q.rows; ++r)
    for (int64_t first = 0; first < q.k; first += type.block, to += type.bytes)
      for (int b = 0; b < group; ++b) {
        const int64_t k = first + b * q.block;
        to[b] = uint8_t(q.scale_code(r, k / q.block));
        for (int i = 0; i < half; ++i)
          to[group + b * half + i] = uint8_t(q.code(r, k + i) | q.code(r, k + half + i) << 4);
      }
  return out;
}

class Planner {
public:
  Planner(const Checkpoint &c, const Weights &weights, const ExportOptions &o, ExportReport &report)
      : c_(c), weights_(weights), o_(o), report_(report) {
    for (const Weight &w : weights.all) by_name_[w.name] = &w;
    family_ = o.target == Target::modelopt ? "modelopt"
              : o.target == Target::gguf   ? "gguf"
                                           : "compressed-tensors";
  }

  Plan run() {
    choose_convention();
    if (!weights_.orphans.empty())
      refuse(weights_.orphans.front()->name, "is a scale of no weight; nvfp4 inspect says more");
    for (const Weight &w : weights_.all) {
      if (!w.faults.empty()) refuse(w.name, w.faults.front());
      if (o_.target == Target::hf_bf16)
        dequantize_weight(w);
      else if (w.container)
        carry(w);
      else if (const std::optional<WeightQuantizer> q = quantizer_of(w))
        quantize_weight(w, *q);
      else
        copy(w);
    }
    if (o_.quantizers && report_.quantized == 0)
      throw Error("the recipe quantizes no weight of " + io::printable(c_.path) +
                  "; --to hf-bf16 writes BF16");
    if (!o_.tensors.empty() && report_.quantized == 0)
      throw Error("--tensor '" + o_.tensors + "': no matrix of numbers has such a name");
    return std::move(plan_);
  }

private:
  const Checkpoint &c_;
  const Weights &weights_;
  const ExportOptions &o_;
  ExportReport &report_;
  Plan plan_;
  std::map<std::string, const Weight *> by_name_;
  std::map<std::string, float> amax_;
  std::shared_ptr<std::pair<const Weight *, BlockScaled>> last_ =
      std::make_shared<std::pair<const Weight *, BlockScaled>>();
  std::string_view family_;
  const Convention *convention_ = nullptr;

  [[noreturn]] void refuse(const std::string &name, const std::string &why) const {
    throw Error(io::message_prefix(c_.path, name) + why);
  }

  /// The row of the target's family for a format.
  const Container *row_for(FormatId element, FormatId scale, int block) const {
    for (const Container &row : containers())
      if (row.family == family_ && row.scale_shape == ScaleShape::blocks && row.element == element &&
          row.scale == scale && row.block == block)
        return row.name == "modelopt-mxfp4" ? nullptr : &row; // there it stands for FP8 inputs
    return nullptr;
  }

  void choose_convention() {
    if (o_.target == Target::hf_bf16) {
      if (!o_.convention.empty() || !o_.tensors.empty() || o_.quantizers)
        throw Error("--to hf-bf16 writes BF16: it takes no --convention, no --recipe and no --tensor");
      return;
    }
    if (o_.quantizers && !o_.convention.empty()) throw Error("give --recipe or --convention, not both");
    if (o_.quantizers) return;
    const bool quantized = std::any_of(weights_.all.begin(), weights_.all.end(),
                                       [](const Weight &w) { return w.container != nullptr; });
    if (o_.convention.empty() && (quantized || weights_.all.empty())) return;
    convention_ =
        &find_convention(o_.convention.empty() ? row_for(FormatId::e2m1, FormatId::ue4m3, 16)->convention
                                               : std::string_view(o_.convention));
    (void)container_for(*convention_);
  }

  /// The target's row for what a convention makes; refuses one that it does not hold.
  const Container &container_for(const Convention &convention) const {
    const Rule &rule = convention.rule;
    const Container *const to = rule.per_row ? nullptr : row_for(rule.element, rule.scale, rule.block);
    if (!to)
      throw Error("convention " + std::string(convention.name) + " makes " +
                  (rule.per_row ? "one global scale a row"
                                : std::string(format(rule.element).name) + " with " +
                                      format(rule.scale).name + " scales per " + std::to_string(rule.block)) +
                  ", which --to " + std::string(to_string(o_.target)) + " does not hold");
    return *to;
  }

  /// What quantizes a weight; nothing: it stays as it is.
  std::optional<WeightQuantizer> quantizer_of(const Weight &w) const {
    if (!w.decodable || w.container || w.codes->shape.size() != 2) return std::nullopt;
    const bool named = o_.tensors.empty() || fnmatch(o_.tensors.c_str(), w.name.c_str(), 0) == 0;
    if (o_.quantizers) return named ? o_.quantizers(w.name) : std::nullopt;
    if (!convention_ || !named) return std::nullopt;
    const WeightQuantizer q{.convention = std::string(convention_->name)};
    if (!o_.tensors.empty()) return q;
    for (const std::string_view end : {"proj.weight", ".w1.weight", ".w2.weight", ".w3.weight"})
      if (w.name.ends_with(end)) return q;
    return std::nullopt;
  }

  void add(std::string name, std::string type, std::vector<int64_t> shape, std::function<Bytes()> bytes) {
    if (!names_.insert(name).second) refuse(name, "two tensors of the result would have this name");
    plan_.items.push_back({std::move(name), std::move(type), std::move(shape), std::move(bytes)});
  }
  std::set<std::string> names_;

  void copy(const Weight &w) {
    const StoredTensor &t = *w.codes;
    if (o_.target == Target::gguf && !find_gguf_type(t.type)) refuse(t.name, "GGUF has no type " + t.type);
    if (o_.target != Target::gguf && !t.dtype)
      refuse(t.name, t.type + " is not decoded here and safetensors cannot hold it");
    if (t.name.ends_with(".weight") && t.shape.size() == 2)
      plan_.plain_modules.push_back(t.name.substr(0, t.name.size() - 7));
    ++report_.copied;
    add(t.name, t.type, t.shape, [&t] { return Bytes{{}, t.bytes}; });
  }

  /// Numbers of a scale that multiplies on one side and divides on the other.
  std::vector<float> words(const StoredTensor &from, const std::string &to_name, bool invert) {
    std::vector<float> out(size_t(from.elements()));
    std::memcpy(out.data(), from.bytes.data(), from.bytes.size());
    const auto kept = c_.metadata.find(kWordKey + from.name);
    if (!invert && kept != c_.metadata.end()) plan_.words[kWordKey + to_name] = kept->second;
    if (!invert) return out;
    std::string text;
    for (size_t i = 0; i < out.size(); ++i) {
      text += hex_word(out[i]);
      float inverse = 1.0f / out[i];
      if (kept != c_.metadata.end() && kept->second.size() == 8 * out.size()) { // the way back
        const auto word =
            std::bit_cast<float>(uint32_t(std::strtoul(kept->second.substr(8 * i, 8).c_str(), nullptr, 16)));
        if (std::bit_cast<uint32_t>(1.0f / word) == std::bit_cast<uint32_t>(out[i])) inverse = word;
      }
      out[i] = inverse;
    }
    if (std::any_of(out.begin(), out.end(), [](float v) { return !(std::isfinite(v) && v > 0); }))
      refuse(from.name, "a scale has no finite positive reciprocal, which --to " +
                            std::string(to_string(o_.target)) + " stores");
    if (kept == c_.metadata.end()) plan_.words[kWordKey + to_name] = text;
    return out;
  }

  /// What a code is reconstructed to by the software of a container.
  static float value(const Container &row, uint8_t code, uint8_t scale, float word) {
    const bool divides = row.global_use == GlobalUse::divides;
    const GlobalScale g{std::nanf(""), divides ? word : 1.0f / word, divides ? 1.0f / word : word};
    const float v = decode_element(find_convention(row.convention).rule, code, scale, 0,
                                   row.global_use == GlobalUse::after ? GlobalScale{} : g);
    return row.global_use == GlobalUse::after ? v * word : v;
  }

  /// Whether any value that stands in the weight is another after the move.
  bool apart(const Weight &w, const Container &to, std::span<const float> out) const {
    for (int64_t index = 0; index < w.batch; ++index) {
      bool seen[256] = {};
      const BlockScaled q = block_scaled(w, index, 0, w.rows);
      for (const uint8_t s : q.scales) seen[s] = true;
      const float from = global_word(w, index), there = out.size() > 1 ? out[size_t(index)] : out.front();
      for (int s = 0; s < 256; ++s)
        for (uint8_t code = 1; seen[s] && code < 8; ++code)
          if (const float a = value(*w.container, code, uint8_t(s), from),
              b = value(to, code, uint8_t(s), there);
              std::bit_cast<uint32_t>(a) != std::bit_cast<uint32_t>(b) && !(std::isnan(a) && std::isnan(b)))
            return true;
    }
    return false;
  }

  /// Whether any value that codes of a convention can have is another as the container's software reads them.
  static bool apart(const Rule &rule, const GlobalScale &g, const Container &to, float word) {
    for (int s = 0; s < 256; ++s)
      for (uint8_t code = 1; code < 8; ++code)
        if (const float a = decode_element(rule, code, uint8_t(s), 0, g), b = value(to, code, uint8_t(s), word);
            std::bit_cast<uint32_t>(a) != std::bit_cast<uint32_t>(b) && !(std::isnan(a) && std::isnan(b)))
          return true;
    return false;
  }

  void check_scales(const Weight &w, const Container &to) const {
    if (to.family != "gguf" || w.container->family == "gguf") return;
    for (int64_t index = 0; index < w.batch; ++index)
      for (const uint8_t s : block_scaled(w, index, 0, w.rows).scales)
        if (to.scale == FormatId::ue8m0 ? s == 255 : s >= 0x7F)
          refuse(w.name, "a block scale is NaN or has the sign bit, which GGUF reads as a number");
  }

  std::string base_of(const Weight &w) const {
    return w.name.ends_with(".weight") ? w.name.substr(0, w.name.size() - 7) : w.name;
  }

  void add_words(const Weight &w, const StoredTensor *from, std::string_view suffix, bool invert, bool global,
                 const Container &to) {
    if (suffix.empty() || (!from && !(global && to.needs_global))) return;
    const std::string name = base_of(w) + std::string(suffix);
    const std::vector<float> out = from ? words(*from, name, invert) : std::vector<float>{1.0f};
    if (global && from) {
      report_.inverted += invert;
      if (const bool differs = apart(w, to, out); differs && o_.exact)
        refuse(w.name, "its global scale " +
                           std::string(invert ? "has to be inverted" : "is applied elsewhere") +
                           " and some values then differ in FP32; leave out --exact to accept that");
      else
        report_.values_apart += differs;
    }
    const std::vector<int64_t> shape =
        to.family == "modelopt" ? std::vector<int64_t>{} : std::vector<int64_t>{int64_t(out.size())};
    add(name, "F32", shape, [out] { return Bytes{to_bytes(std::span(out)), {}}; });
  }

  /// Codes and block scales of a container's row. `make` gives matrix `index`.
  void add_codes(const Weight &w, const Container &to, const std::function<BlockScaled(int64_t)> &make) {
    if (plan_.container && plan_.container != &to && to.family != "gguf")
      refuse(w.name, "becomes " + std::string(to.name) + ", others " + std::string(plan_.container->name) +
                         ": what is written says one format for all; --tensor chooses layers of one");
    plan_.container = &to;
    plan_.all_inputs = plan_.all_inputs && w.input;
    if (to.family == "gguf") {
      const GgufType &type = *find_gguf_type(to.code_types.front());
      if (w.k % type.block != 0)
        refuse(w.name, std::string(type.name) + " of GGUF needs rows of a multiple of " +
                           std::to_string(type.block) + " elements, got " + std::to_string(w.k));
      std::vector<int64_t> shape{w.rows, w.k};
      if (w.batch > 1) shape.insert(shape.begin(), w.batch);
      add(w.name, std::string(type.name), shape, [make, &type, batch = w.batch] {
        Bytes out;
        for (int64_t index = 0; index < batch; ++index) {
          const auto part = pack_half_low(make(index), type);
          out.made.insert(out.made.end(), part.begin(), part.end());
        }
        return out;
      });
      return;
    }
    if (w.batch > 1)
      refuse(w.name, "holds " + std::to_string(w.batch) + " stacked matrices; --to " +
                         std::string(to_string(o_.target)) + " stores one a weight");
    add(base_of(w) + std::string(to.codes), "U8", {w.rows, w.k / 2}, [make] {
      return Bytes{to_bytes(std::span<const uint8_t>(make(0).codes)), {}};
    });
    add(base_of(w) + std::string(to.scales), std::string(to.scale_types.front()), {w.rows, w.k / to.block},
        [make] {
          return Bytes{to_bytes(std::span<const uint8_t>(make(0).scales)), {}};
        });
  }

  void carry(const Weight &w) {
    const Container *to = w.is_block_scaled() && w.container->packing != Packing::bytes
                              ? row_for(*w.container->element, *w.container->scale, w.container->block)
                              : nullptr;
    if (!to)
      refuse(w.name, "is " + w.kind() + ", whose codes --to " + std::string(to_string(o_.target)) +
                         " cannot hold as they are; --to hf-bf16 dequantizes it");
    check_scales(w, *to);
    ++report_.carried;
    plan_.converted = plan_.converted || to != w.container;
    add_codes(w, *to, [&w](int64_t index) { return block_scaled(w, index, 0, w.rows); });
    const auto divides = [](GlobalUse use) { return use == GlobalUse::divides; };
    add_words(w, w.global, to->global, divides(w.container->global_use) != divides(to->global_use), true,
              *to);
    add_words(w, w.input, to->input, divides(w.container->input_use) != divides(to->input_use), false, *to);
  }

  float amax_of(const Weight &w) {
    const auto it = amax_.find(w.name);
    return it != amax_.end() ? it->second : amax_[w.name] = largest_magnitude(w, o_.threads);
  }

  void quantize_weight(const Weight &w, const WeightQuantizer &how) {
    const Convention &convention = find_convention(how.convention);
    const Container &to = container_for(convention);
    if (w.k % to.block != 0)
      refuse(w.name, "rows of " + std::to_string(w.k) + " elements are no whole number of blocks of " +
                         std::to_string(to.block) + "; --tensor chooses what is quantized");
    QuantizeOptions q;
    q.block_rows = how.block_rows;
    const FormatId stored = *golden::format_of(*w.codes->dtype);
    q.source = stored == FormatId::bf16 || stored == FormatId::f16 ? stored : FormatId::f32;
    const bool rounds = how.source == FormatId::bf16 && q.source != FormatId::bf16;
    if (how.source) q.source = *how.source;
    q.threads = o_.threads;
    const bool none = !has_tensor_level(convention.rule);
    if (!none) {
      q.global_amax = amax_of(w);
      if (rounds) q.global_amax = round_to_bf16(*q.global_amax); // rounding keeps the order
      for (const std::string &name : how.fused_amax ? fused_with(w.name) : std::vector<std::string>{})
        if (const auto it = by_name_.find(name); it != by_name_.end() && quantizer_of(*it->second))
          q.global_amax = std::max(*q.global_amax, amax_of(*it->second));
    }
    // codes and scales of a weight are asked for one after the other
    const auto make = [&w, q, rounds, convention = &convention, last = last_](int64_t) {
      if (last->first != &w) {
        std::vector<float> x = values(w, 0, 0, w.rows, q.threads);
        for (float &v : x)
          if (rounds) v = round_to_bf16(v);
        *last = {&w, quantize({x.data(), w.rows, w.k}, *convention, q)};
      }
      return last->second;
    };
    ++report_.quantized;
    plan_.converted = true;
    add_codes(w, to, make);
    if (to.global.empty() || (none && !to.needs_global)) return;
    const GlobalScale g = none ? GlobalScale{} : global_from_amax(convention.rule, *q.global_amax, q.source);
    const std::string name = base_of(w) + std::string(to.global);
    float word = to.global_use == GlobalUse::divides ? g.encode : g.decode;
    if (to.global_use == GlobalUse::divides && stores_decode(convention.rule)) {
      word = 1.0f / g.decode; // the convention has p alone
      if (!(std::isfinite(word) && word > 0))
        refuse(w.name, "its global scale has no finite positive reciprocal, which --to " +
                           std::string(to_string(o_.target)) + " stores");
      const bool differs = apart(convention.rule, g, to, word);
      if (differs && o_.exact)
        refuse(w.name, "the global scale of " + std::string(convention.name) +
                           " has to be inverted and some values then differ in FP32; leave out --exact to accept that");
      ++report_.inverted;
      report_.values_apart += differs;
      plan_.words[kWordKey + name] = hex_word(g.decode);
    }
    const std::vector<int64_t> shape =
        to.family == "modelopt" ? std::vector<int64_t>{} : std::vector<int64_t>{1};
    add(name, "F32", shape, [word] {
      return Bytes{to_bytes(std::span(&word, 1)), {}};
    });
  }

  void dequantize_weight(const Weight &w) {
    if (!w.decodable) {
      if (w.container || !w.codes->dtype) refuse(w.name, w.codes->type + " is not decoded here");
      return copy(w);
    }
    report_.dequantized += w.container != nullptr;
    plan_.converted = plan_.converted || w.container;
    if (!w.container && w.codes->type == "BF16") return copy(w);
    std::vector<int64_t> shape = w.container ? std::vector<int64_t>{w.rows, w.k} : w.codes->shape;
    if (w.container && w.batch > 1) shape.insert(shape.begin(), w.batch);
    add(w.name, "BF16", shape, [&w, &report = report_, threads = o_.threads] {
      Bytes out;
      const int64_t step = rows_at_once(w);
      for (int64_t index = 0; index < w.batch; ++index)
        for (int64_t first = 0; first < w.rows; first += step) {
          std::vector<uint16_t> row;
          for (const float v : values(w, index, first, std::min(step, w.rows - first), threads)) {
            row.push_back(bf16_word(v));
            report.rounded += !std::isnan(v) && bf16_value(row.back()) != v;
          }
          const auto part = to_bytes(std::span<const uint16_t>(row));
          out.made.insert(out.made.end(), part.begin(), part.end());
        }
      return out;
    });
  }
};

} // namespace

Plan plan_export(const Checkpoint &source, const Weights &weights, const ExportOptions &options,
                 ExportReport &report) {
  return Planner(source, weights, options, report).run();
}

} // namespace nvfp4::checkpoint
