// SPDX-License-Identifier: Apache-2.0
// Units, dot products and matrix products from C.
#include "tools/c_api/guard.hpp"
#include "nvfp4/emulator/names.hpp"
#include "nvfp4/emulator/tensorcore/execute.hpp"
#include "nvfp4/version.hpp"

using namespace nvfp4;
using namespace nvfp4::c_api;

const char *nvfp4_version(void) { return NVFP4_VERSION_STRING; }

nvfp4_status nvfp4_find_unit(const char *name, nvfp4_unit *unit, nvfp4_message *message) {
  return guarded(message, [&] {
    const Unit &found = find_unit(given_text(name, "name"));
    const UnitRule &r = found.rule;
    given(unit, "unit") = {name_of(r.a),
                           name_of(r.b),
                           name_of(r.acc),
                           r.scale_block == 0 ? nullptr : name_of(r.scale),
                           r.scale_block,
                           r.k,
                           to_string(found.evidence).data()};
    return NVFP4_OK;
  });
}

nvfp4_status nvfp4_mma(const char *unit_name, const char *accumulation_name, int64_t n, int64_t k,
                       const void *a, const void *b, const uint8_t *scale_a, const uint8_t *scale_b,
                       const void *c, void *d, nvfp4_message *message) {
  return guarded(message, [&] {
    const UnitRule &rule = find_unit(given_text(unit_name, "unit")).rule;
    const Accumulation accumulation =
        accumulation_name == nullptr ? Accumulation::mmasim : parse_enum<Accumulation>(accumulation_name);
    if (k <= 0 || k % rule.k != 0)
      throw Error("k is " + std::to_string(k) +
                  "; expected a positive multiple of the unit's K = " + std::to_string(rule.k));
    const int bits_a = format(rule.a).storage_bits, bits_b = format(rule.b).storage_bits,
              bits = format(rule.acc).storage_bits;
    const int64_t bytes_a = row_bytes(n, k, bits_a, "a"), bytes_b = row_bytes(n, k, bits_b, "b");
    const int64_t scales = rule.scale_row(k);
    if (n == 0) return NVFP4_OK;
    const auto *codes_a = &given(static_cast<const uint8_t *>(a), "a");
    const auto *codes_b = &given(static_cast<const uint8_t *>(b), "b");
    auto *out = &given(static_cast<uint8_t *>(d), "d");
    if (rule.scale_block != 0) {
      given(scale_a, "scale_a");
      given(scale_b, "scale_b");
    } else if (scale_a != nullptr || scale_b != nullptr) {
      throw Error(std::string("unit ") + unit_name + " takes no scales; scale_a and scale_b must be NULL");
    }
#pragma omp parallel for schedule(dynamic, 64)
    for (int64_t i = 0; i < n; ++i) {
      const DotOperands op{{codes_a + i * bytes_a, bits_a},
                           {codes_b + i * bytes_b, bits_b},
                           scale_a == nullptr ? nullptr : scale_a + i * scales,
                           scale_b == nullptr ? nullptr : scale_b + i * scales};
      const uint64_t start = c == nullptr ? 0 : CodeView{static_cast<const uint8_t *>(c), bits}[i];
      const uint64_t word = dot(rule, op, k, start, accumulation);
      std::memcpy(out + i * bits / 8, &word, size_t(bits / 8));
    }
    return NVFP4_OK;
  });
}

nvfp4_status nvfp4_gemm(const nvfp4_product *product, const nvfp4_operand *a, const nvfp4_operand *b, void *d,
                        int64_t d_stride, nvfp4_message *message) {
  return guarded(message, [&] {
    const nvfp4_product &p = given(product, "product");
    const Unit &unit = unit_of(p);
    const GemmPlan plan(unit, options_of(p, unit));
    const GemmOperand left = operand(given(a, "a"), unit, Side::a),
                      right = operand(given(b, "b"), unit, Side::b);
    const int64_t m = left.rows, n = right.rows;
    const int out_bits = format(plan.options().out).storage_bits,
              acc_bits = format(unit.rule.acc).storage_bits;
    const int c_bits = unit.rule.acc == FormatId::f64 ? 64 : 32;

    std::vector<uint8_t> c, start;
    GemmInputs in;
    if (p.c != nullptr)
      in.c = c = gather(p.c, m, row_bytes(m, n, c_bits, "product.c"), p.c_stride, "product.c");
    if (p.start != nullptr)
      in.start = start =
          gather(p.start, m, row_bytes(m, n, acc_bits, "product.start"), p.start_stride, "product.start");
    if (p.bias != nullptr) in.bias = {p.bias, size_t(n)};
    if (p.row_factors != nullptr) in.row_factors = {p.row_factors, size_t(m)};
    if (p.column_factors != nullptr) in.column_factors = {p.column_factors, size_t(n)};
    plan.check(left, right, in);
    const GemmResult result = plan.run(left, right, in);
    scatter(result.words, d, m, row_bytes(m, n, out_bits, "d"), d_stride, "d");
    return NVFP4_OK;
  });
}
