// SPDX-License-Identifier: Apache-2.0
// The probe builder and the probes about width: alignment bits, the floor of the largest exponent, rounding
// of the result, and how an instruction chains along K.
#include "nvfp4/gpu/capture/probes.hpp"

#include "nvfp4/gpu/capture/run_tiles.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

namespace nvfp4::gpu {

ProbeBuilder::ProbeBuilder(const MmaKind &kind, std::string name) : kind_(kind) {
  probe_.name = std::move(name);
  probe_.a.resize(size_t(kind.k));
  probe_.b.resize(size_t(kind.k));
  const uint8_t one = kind.scale == Element::ue8m0 ? 0x7F : 0x38;
  probe_.scale_a.assign(size_t(scales_per_row(kind)), one);
  probe_.scale_b.assign(size_t(scales_per_row(kind)), one);
}

ProbeBuilder &ProbeBuilder::product(int k, double a, double b) {
  ok_ = ok_ && k < kind_.k && encode_exact(format_of(kind_.a), a, probe_.a[size_t(k)]) &&
        encode_exact(format_of(kind_.b), b, probe_.b[size_t(k)]);
  return *this;
}

ProbeBuilder &ProbeBuilder::power(int k, int exponent, bool negative) {
  const ElementFormat &a = format_of(kind_.a), &b = format_of(kind_.b);
  const int low = std::max(a.bottom(), exponent - b.max_exponent());
  const int high = std::min(a.max_exponent(), exponent - b.bottom());
  if (low > high) return ok_ = false, *this;
  const int half = std::clamp(exponent / 2, low, high);
  return product(k, std::ldexp(negative ? -1.0 : 1.0, half), std::ldexp(1.0, exponent - half));
}

ProbeBuilder &ProbeBuilder::codes(int k, uint64_t a, uint64_t b) {
  if (k >= kind_.k) return ok_ = false, *this;
  probe_.a[size_t(k)] = a;
  probe_.b[size_t(k)] = b;
  return *this;
}

ProbeBuilder &ProbeBuilder::c(double value) {
  ok_ = ok_ && encode_exact(format_of(kind_.acc), value, probe_.c);
  return *this;
}

ProbeBuilder &ProbeBuilder::c_code(uint64_t code) {
  probe_.c = code;
  return *this;
}

ProbeBuilder &ProbeBuilder::scales(int block, uint8_t a, uint8_t b) {
  if (block >= int(probe_.scale_a.size())) return ok_ = false, *this;
  probe_.scale_a[size_t(block)] = a;
  probe_.scale_b[size_t(block)] = b;
  return *this;
}

namespace {

std::string numbered(const char *stem, int n) { return stem + std::to_string(n); }

/// P1 to P5, P8, P11 of the list of open questions, and the sweeps that generalise them.
void named_probes(const MmaKind &x, const std::function<void(const ProbeBuilder &)> &add) {
  const bool half = x.acc == Element::f16;
  if (!half) {
    add(ProbeBuilder(x, "P1").product(0, 0x1p-75, 0x1p-74).product(1, -0x1p-79, 0x1p-79));
    add(ProbeBuilder(x, "P2").product(0, 0x1p-75, 0x1p-74).product(1, -0x1p-80, 0x1p-79));
    add(ProbeBuilder(x, "P8.e13").power(0, 0).power(1, -13));
    add(ProbeBuilder(x, "P8.e14").power(0, 0).power(1, -14));
    add(ProbeBuilder(x, "P7").c(1 + 0x1p-20));
    add(ProbeBuilder(x, "P9").c(1 + 0x1p-23));
    add(ProbeBuilder(x, "P11").product(0, 0x1p127, 1).product(1, 0x1p127, 1));
  } else {
    add(ProbeBuilder(x, "P3").product(0, 0x1p-12, 0x1p-13).product(1, 0x1p-24, 0x1p-23));
    add(ProbeBuilder(x, "P4").product(0, 0x1p-12, 0x1p-13).product(1, 0x1p-24, 0x1p-24));
    add(ProbeBuilder(x, "P5").c(0x1p-23).product(0, 0x1p-12, 0x1p-13).product(1, 0x1p-20, 0x1p-20));
    add(ProbeBuilder(x, "P7").c(1 + 0x1p-10));
    add(ProbeBuilder(x, "P11").power(0, 15).power(1, 15));
    add(ProbeBuilder(x, "P11.65520").c(65504).power(0, 4)); // exactly half-way: Inf by ties-to-even
    add(ProbeBuilder(x, "P11.65519").c(65504).power(0, 4).power(1, -4, true));
  }
}

/// The smallest accumulator number against ever smaller terms: where they vanish tells the floor of the
/// exponent.
void floor_probes(const MmaKind &x, const std::function<void(const ProbeBuilder &)> &add) {
  const int bottom = format_of(x.acc).bottom();
  if (x.acc ==
      Element::f16) { // nearest even: a tie at half the smallest number, broken upwards by any kept term
    for (int e = 26; e <= 64; ++e)
      add(ProbeBuilder(x, numbered("floor.tie.e", e)).power(0, bottom - 1).power(1, -e));
    for (int e = 26; e <= 64; ++e)
      add(ProbeBuilder(x, numbered("floor.subnormal_c.e", e)).c(0x1p-23).power(0, bottom - 1).power(1, -e));
    return;
  }
  for (int j = 1; j <= 30; ++j) // truncation: a kept negative term pulls the smallest number down to 0
    add(ProbeBuilder(x, numbered("floor.e", j - bottom)).power(0, bottom).power(1, bottom - j, true));
  for (int j = 1; j <= 30; ++j)
    add(ProbeBuilder(x, numbered("floor.c.e", j - bottom))
            .c(std::ldexp(1.0, bottom))
            .power(1, bottom - j, true));
}

/// 1 - 1 + 2^-e with each of the three terms as C in turn, and sums that round at every distance.
void align_probes(const MmaKind &x, const std::function<void(const ProbeBuilder &)> &add) {
  const int widest = format_of(x.acc).mantissa_bits + 33;
  for (int e = 8; e <= widest; ++e) {
    const double small = std::ldexp(1.0, -e);
    add(ProbeBuilder(x, numbered("align.product.e", e)).power(0, 0).power(1, 0, true).power(2, -e));
    add(ProbeBuilder(x, numbered("align.big_c.e", e)).c(1).power(1, 0, true).power(2, -e));
    add(ProbeBuilder(x, numbered("align.small_c.e", e)).c(small).power(0, 0).power(1, 0, true));
    add(ProbeBuilder(x, numbered("round.up.e", e)).c(1).power(0, -e));
    add(ProbeBuilder(x, numbered("round.down.e", e)).c(1).power(0, -e, true));
    add(ProbeBuilder(x, numbered("round.negative.e", e)).c(-1).power(0, -e, true));
    add(ProbeBuilder(x, numbered("round.product.e", e)).power(0, 0).power(1, -e, true));
    add(ProbeBuilder(x, numbered("round.two.e", e)).c(1).power(0, -e).power(1, -e)); // two lost halves
  }
  // Products in [2, 4) are aligned by their factors' exponents, not by their own: 1.5 * 1.5 counts as
  // exponent 0.
  for (int e = 8; e <= 40; ++e)
    add(ProbeBuilder(x, numbered("align.carry.e", e))
            .product(0, 1.5, 1.5)
            .product(1, -1.5, 1.5)
            .power(2, -e));
}

/// A big term at k = 0, its negative at k = i, a small term at the end (or at the start, with the pair behind
/// it): it survives exactly when it does not meet the big one in a step.
void link_probes(const MmaKind &x, const std::function<void(const ProbeBuilder &)> &add) {
  const ElementFormat &a = format_of(x.a), &b = format_of(x.b), &acc = format_of(x.acc);
  const int big = std::min(a.max_exponent() + b.max_exponent(), std::min(acc.max_exponent(), 60) - 1);
  const int small = std::max({a.bottom() + b.bottom(), acc.bottom(), -60});
  for (int i = 1; i < x.k - 1; ++i) {
    add(ProbeBuilder(x, numbered("link.last.k", i)).power(0, big).power(i, big, true).power(x.k - 1, small));
    add(ProbeBuilder(x, numbered("link.first.k", i)).power(0, small).power(i, big).power(x.k - 1, big, true));
  }
  for (int i = 1; i < x.k; ++i)
    add(ProbeBuilder(x, numbered("link.c.k", i)).power(0, big).power(i, big, true).c(std::ldexp(1.0, small)));
}

/// The same products in other orders: a fused step cannot tell them apart, a chain can.
void order_probes(const MmaKind &x, std::vector<Probe> &out) {
  for (int base = 0; base < 8; ++base) {
    const Tile tile = generate(x, InputClass::wide, ScaleClass::similar, 0x0DE2, base);
    std::vector<int> order(size_t(x.k));
    std::iota(order.begin(), order.end(), 0);
    const auto put = [&](const char *name) {
      Probe p = ProbeBuilder(x, "order." + std::to_string(base) + "." + name).probe();
      for (int k = 0; k < x.k; ++k) {
        p.a[size_t(k)] = get_element(tile.a, x.a_bits, order[size_t(k)]);
        p.b[size_t(k)] = get_element(tile.b, x.b_bits, order[size_t(k)]);
      }
      p.c = get_element(tile.c, x.acc_bits, 0);
      out.push_back(std::move(p));
    };
    put("identity");
    std::reverse(order.begin(), order.end());
    put("reverse");
    std::rotate(order.begin(), order.begin() + x.k / 2, order.end());
    put("halves");
    std::stable_sort(order.begin(), order.end(), [](int p, int q) { return p % 2 < q % 2; });
    put("even_odd");
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [](int p, int q) { return (p % 4 < 2) < (q % 4 < 2); });
    put("pairs");
  }
}

} // namespace

void add_width_probes(const MmaKind &x, std::vector<Probe> &out) {
  const auto add = [&](const ProbeBuilder &p) {
    if (p.ok()) out.push_back(p.probe());
  };
  named_probes(x, add);
  floor_probes(x, add);
  align_probes(x, add);
  link_probes(x, add);
  order_probes(x, out);
}

std::vector<Probe> probes_for(const MmaKind &kind) {
  std::vector<Probe> out;
  add_width_probes(kind, out);
  add_special_probes(kind, out);
  if (kind.scale_block) add_scale_probes(kind, out);
  return out;
}

} // namespace nvfp4::gpu
