// SPDX-License-Identifier: Apache-2.0
// Names of the accumulation models and of evidence, as written in files, options and tables.
#pragma once
#include "nvfp4/emulator/tensorcore/unit.hpp"

#include <string>
#include <string_view>

namespace nvfp4 {

[[nodiscard]] constexpr std::string_view to_string(Accumulation a) {
  return a == Accumulation::mmasim ? "mmasim" : a == Accumulation::nadpe ? "nadpe" : "exact";
}
[[nodiscard]] constexpr std::string_view to_string(Evidence e) {
  return e == Evidence::hardware ? "hardware" : e == Evidence::published ? "published" : "inferred";
}
[[nodiscard]] constexpr std::string_view to_string(Family f) {
  switch (f) {
  case Family::fdpa: return "fdpa";
  case Family::st_fdpa: return "st-fdpa";
  case Family::gst_fdpa: return "gst-fdpa";
  case Family::expanded_fp8: return "expanded-fp8";
  case Family::fma: return "fma";
  }
  return "";
}
[[nodiscard]] constexpr std::string_view to_string(Output o) {
  switch (o) {
  case Output::rz_f32: return "RZ-FP32";
  case Output::rz_e8m13: return "RZ-E8M13";
  case Output::rne_f16: return "RNE-FP16";
  case Output::rne_f64: return "RNE-FP64";
  }
  return "";
}

/// The model of a name; throws Error.
[[nodiscard]] inline Accumulation parse_accumulation(std::string_view name) {
  for (const Accumulation a : {Accumulation::mmasim, Accumulation::nadpe, Accumulation::exact})
    if (name == to_string(a)) return a;
  throw Error("unknown accumulation model '" + std::string(name) + "'; choose mmasim, nadpe or exact");
}

} // namespace nvfp4
