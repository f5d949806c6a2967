// SPDX-License-Identifier: Apache-2.0
// A quantizer's codes, block scales and global scale against a convention: what differs, and which preset or
// which step of the rule explains every byte.
#pragma once
#include "nvfp4/emulator/quantize/convention.hpp"
#include "nvfp4/emulator/quantize/quantize.hpp"
#include "nvfp4/golden/diagnosis/problem.hpp"

#include <functional>

namespace nvfp4::diagnosis {

/// What a quantizer was asked to do, and what it gave.
struct QuantizerProblem {
  BlockScaled mine;
  SourceTensor source;
  const Convention *convention = nullptr; ///< what MINE should be; may be another than it names
  ElementRounding rounding = ElementRounding::nearest;
  RandomKey key = {};
  std::optional<float> global_amax = {}; ///< a calibrated one instead of the source's own
  int threads = 0;
  std::optional<Isa> isa = {};
  std::function<void(double)> progress = {}; ///< gets the fraction done, of single steps and then of pairs
};

/// A code or a scale that is not what it should be.
struct QuantizerDifference {
  int64_t row = 0, at = 0; ///< of the quantized tensor; `at` is an element's column, or a block's
  uint32_t got = 0, want = 0;
  double got_value = 0, want_value = 0; ///< of the codes alone
};

/// Differences of one kind. An element counts in blocks whose scale is right; the others are one kind of
/// their own.
struct QuantizerKind {
  std::string name;  ///< stable, for machines
  std::string title; ///< what it says
  int64_t count = 0;
};

/// A preset, a step or two steps, and what they leave.
struct QuantizerFinding {
  std::string name, title;
  bool preset = false;
  int64_t codes_left = 0, scales_left = 0; ///< over the whole tensor
};

struct QuantizerReport {
  std::string verdict; ///< one sentence
  std::string advice;  ///< what to do, or what to capture next; one sentence
  int64_t codes = 0, codes_differing = 0, scales = 0, scales_differing = 0;
  std::optional<QuantizerDifference> first_code, first_scale;
  std::string global; ///< empty where the global scale is equal
  int64_t source_nan = 0, source_infinity = 0, source_zero = 0, source_first_bad = -1; ///< index, row-major
  std::vector<QuantizerKind> kinds;
  std::vector<QuantizerFinding> explains; ///< every byte of codes and scales
  std::vector<QuantizerFinding> partial;  ///< the best of those that explain more than the convention does
  std::vector<std::string> ruled_out;     ///< names of the steps that do not explain all bytes
  int64_t tried = 0;                      ///< presets, steps and pairs

  [[nodiscard]] bool equal() const { return codes_differing == 0 && scales_differing == 0 && global.empty(); }
};

/// Throws Error where the shapes do not fit or the convention cannot make such a tensor.
[[nodiscard]] QuantizerReport check_quantizer(const QuantizerProblem &p);

} // namespace nvfp4::diagnosis
