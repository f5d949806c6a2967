// SPDX-License-Identifier: Apache-2.0
// Word statistics in one pass, in order, so that sums do not depend on threads.
#include "nvfp4/golden/diagnosis/compare.hpp"

#include "nvfp4/emulator/formats/code_view.hpp"
#include "nvfp4/emulator/formats/codec.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

namespace nvfp4::diagnosis {
namespace {

/// Position of a finite word on the line of all values.
int64_t place(const Format &f, uint64_t word) {
  const int64_t magnitude = int64_t(word & f.magnitude_mask());
  return f.has_sign && ((word >> f.field_bits()) & 1) != 0 ? -magnitude : magnitude;
}

int bin_of(uint64_t ulp) { return std::min(ulp <= 1 ? int(ulp) : msb(ulp - 1) + 2, Comparison::kBins - 1); }

} // namespace

Comparison compare(FormatId type, int64_t rows, int64_t cols, std::span<const uint8_t> got,
                   std::span<const uint8_t> want, const std::function<void(double)> &progress) {
  const Format f = format(type);
  const CodeView x{got.data(), f.storage_bits}, y{want.data(), f.storage_bits};
  Comparison s;
  s.total = rows * cols;
  std::vector<bool> cols_hit(static_cast<size_t>(cols));
  double ulps = 0, difference = 0, norm = 0;
  int64_t finite = 0, nonzero = 0;
  for (int64_t i = 0; i < rows; ++i) {
    bool row_hit = false;
    for (int64_t j = 0; j < cols; ++j) {
      const int64_t at = i * cols + j;
      if (progress && at % (1 << 18) == 0) progress(double(at) / double(s.total));
      const uint64_t p = x[at], q = y[at];
      const Class cp = decode(f, p).cls, cq = decode(f, q).cls;
      const bool both_finite =
          cp != Class::nan && cq != Class::nan && cp != Class::infinity && cq != Class::infinity;
      const double vp = value(type, p), vq = value(type, q);
      if (both_finite) {
        norm += vq * vq;
        ++s.finite_pairs;
        nonzero += vq != 0 ? 1 : 0;
      }
      if (p == q) {
        s.nan_same += cp == Class::nan ? 1 : 0;
        continue;
      }
      row_hit = cols_hit[size_t(j)] = true;
      if (s.differing++ == 0) {
        s.first = at;
        s.first_got = p;
        s.first_want = q;
      }
      if (cp == Class::nan && cq == Class::nan)
        ++s.nan_words;
      else if (cp == Class::nan)
        ++s.nan_got;
      else if (cq == Class::nan)
        ++s.nan_missing;
      else if (!both_finite)
        ++s.infinities;
      if (!both_finite) continue;
      ++finite;
      if (cp == Class::zero && cq == Class::zero) ++s.zero_signs;
      const int64_t a = place(f, p), b = place(f, q);
      const uint64_t ulp = a > b ? uint64_t(a) - uint64_t(b) : uint64_t(b) - uint64_t(a);
      if (s.max_ulp_at < 0 || ulp > s.max_ulp) {
        s.max_ulp = ulp;
        s.max_ulp_at = at;
      }
      ulps += double(ulp);
      ++s.bins[size_t(bin_of(ulp))];
      difference += (vp - vq) * (vp - vq);
      if (vq != 0) s.max_relative = std::max(s.max_relative, std::fabs(vp - vq) / std::fabs(vq));
    }
    s.rows_hit += row_hit ? 1 : 0;
  }
  s.cols_hit = std::count(cols_hit.begin(), cols_hit.end(), true);
  s.mean_ulp = finite != 0 ? ulps / double(finite) : s.differing == 0 ? 0 : NAN;
  if (nonzero == 0 && s.differing != 0) s.max_relative = NAN;
  s.distance = s.finite_pairs == 0 && s.total != 0 ? NAN : norm > 0 ? std::sqrt(difference / norm) : difference > 0 ? INFINITY : 0;
  if (progress) progress(1);
  return s;
}

std::string bin_text(int bin) {
  if (bin <= 2) return std::to_string(bin);
  const std::string from = std::to_string((uint64_t{1} << (bin - 2)) + 1);
  return bin == Comparison::kBins - 1 ? "> " + std::to_string(uint64_t{1} << (bin - 2))
                                      : from + "-" + std::to_string(uint64_t{1} << (bin - 1));
}

} // namespace nvfp4::diagnosis
