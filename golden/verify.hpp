// SPDX-License-Identifier: Apache-2.0
// Compares golden files with the emulator (or its oracle) and says what was compared.
#pragma once
#include "nvfp4/emulator/cpu/isa.hpp"
#include "nvfp4/emulator/tensorcore/unit.hpp"
#include "nvfp4/golden/text.hpp"

#include <memory>
#include <optional>

namespace nvfp4::golden {

/// Digests already computed: forms such as f16 and f16x2 share one rule, and two sources may hold the same conversion.
/// Give one to several calls to compute each digest once. Safe to share between threads.
class DigestCache;
[[nodiscard]] std::shared_ptr<DigestCache> make_digest_cache();

struct VerifyOptions {
  bool oracle = false;     ///< use the multiprecision oracle for MMA cases and conversions
  bool full = false;       ///< all chunks of exhaustive digests, not a sample of them
  Accumulation accumulation = Accumulation::mmasim;
  std::shared_ptr<DigestCache> digests = {};
  std::optional<Isa> isa = {}; ///< of the quantizer, instead of the best that the CPU has
};

/// The outcome for one file.
struct Verdict {
  std::string subject; ///< unit, conversion or convention
  uint64_t cases = 0;
  uint64_t mismatches = 0;
  std::string first; ///< the first mismatch: line, class, expected and computed word
};

/// Compares one golden file. Throws Error on a file that cannot be read or names something unknown.
[[nodiscard]] Verdict verify_file(const std::string &path, const VerifyOptions &options);

/// Compares one parsed text file.
[[nodiscard]] Verdict verify_text(const TextFile &file, const VerifyOptions &options);

} // namespace nvfp4::golden
