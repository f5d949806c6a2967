// SPDX-License-Identifier: Apache-2.0
// The table of one vector type V. Included by the files of one instruction set each.
#pragma once
#include "tests/emulator/simd/operations.hpp"

namespace nvfp4::test {
namespace {

template <class V> struct OperationTable {
  using F = typename V::F;
  using I = typename V::I;
  using D = typename V::D;
  using In = SimdInput;
  using Out = SimdOutput;

  static I ints(const uint32_t *at) { return V::load_i(reinterpret_cast<const uint8_t *>(at)); }
  static F floats(const uint32_t *at) { return V::load_f(reinterpret_cast<const uint8_t *>(at)); }
  static const uint8_t *bytes(const uint32_t *at) { return reinterpret_cast<const uint8_t *>(at); }
  static void put(Out &out, int i, F x) { V::store(reinterpret_cast<float *>(out.word + i), x); }
  static void put(Out &out, int i, I x) { put(out, i, V::as_float(x)); }
  static void put(Out &out, int i, D low, D high) {
    V::store(out.wide + i, low);
    V::store(out.wide + i + V::lanes / 2, high);
  }

  template <class Op> static void on_floats(const In &in, Out &out, Op op) {
    for (int i = 0; i < 16; i += V::lanes)
      put(out, i, op(floats(in.x + i), floats(in.y + i), floats(in.z + i)));
  }
  template <class Op> static void on_ints(const In &in, Out &out, Op op) {
    for (int i = 0; i < 16; i += V::lanes) put(out, i, op(ints(in.x + i), ints(in.y + i), ints(in.z + i)));
  }

  // clang-format off
  static constexpr SimdOperation list[] = {
    {"add", [](const In &in, Out &out) { on_floats(in, out, [](F x, F y, F) { return V::add(x, y); }); }},
    {"mul", [](const In &in, Out &out) { on_floats(in, out, [](F x, F y, F) { return V::mul(x, y); }); }},
    {"fma", [](const In &in, Out &out) { on_floats(in, out, [](F x, F y, F z) { return V::fma(x, y, z); }); }},
    {"magnitude", [](const In &in, Out &out) { on_floats(in, out, [](F x, F, F) { return V::magnitude(x); }); }},
    {"max_magnitude", [](const In &in, Out &out) { on_floats(in, out, [](F x, F y, F) { return V::max_magnitude(V::magnitude(x), y); }); }},
    {"add_truncated", [](const In &in, Out &out) { on_floats(in, out, [](F x, F y, F) { return V::add_truncated(x, y); }); }},
    {"add_truncated wide", [](const In &in, Out &out) { on_floats(in, out, [](F x, F y, F) {
       return V::narrow_truncated(V::add_truncated(V::widen_low(x), V::widen_low(y)), V::add_truncated(V::widen_high(x), V::widen_high(y))); }); }},
    {"to_float", [](const In &in, Out &out) { on_ints(in, out, [](I x, I, I) { return V::to_float(x); }); }},
    {"where nonzero float", [](const In &in, Out &out) { on_floats(in, out, [](F x, F y, F z) {
       return V::where(V::nonzero(x), V::as_int(y), V::as_int(z)); }); }},
    {"where both", [](const In &in, Out &out) { on_ints(in, out, [](I x, I y, I z) { return V::where(V::both(V::nonzero(x), V::nonzero(y)), z, x); }); }},
    {"add int", [](const In &in, Out &out) { on_ints(in, out, [](I x, I y, I) { return V::add(x, y); }); }},
    {"sub int", [](const In &in, Out &out) { on_ints(in, out, [](I x, I y, I) { return V::sub(x, y); }); }},
    {"max int", [](const In &in, Out &out) { on_ints(in, out, [](I x, I y, I) { return V::max(x, y); }); }},
    {"add_saturated8", [](const In &in, Out &out) { on_ints(in, out, [](I x, I y, I) { return V::add_saturated8(x, y); }); }},
    {"max8", [](const In &in, Out &out) { on_ints(in, out, [](I x, I y, I) { return V::max8(x, y); }); }},
    {"count_bits", [](const In &in, Out &out) { on_ints(in, out, [](I x, I, I) { return V::count_bits(x); }); }},
    {"even_bytes_times16", [](const In &in, Out &out) { on_ints(in, out, [](I x, I, I) { return V::even_bytes_times16(x); }); }},
    {"odd_bytes_times16", [](const In &in, Out &out) { on_ints(in, out, [](I x, I, I) { return V::odd_bytes_times16(x); }); }},
    {"middle_of_binade", [](const In &in, Out &out) { for (int i = 0; i < 16; i += V::lanes) { // y without its sign, x below it
       const I high = V::template shift_right<1>(ints(in.y + i));
       alignas(64) double first[V::lanes / 2], second[V::lanes / 2];
       V::store(first, V::middle_of_binade(V::join_first(ints(in.x + i), high)));
       V::store(second, V::middle_of_binade(V::join_second(ints(in.x + i), high)));
       for (int j = 0; j < V::lanes / 2; ++j) {
         out.wide[i + 4 * (j / 2) + j % 2] = first[j];
         out.wide[i + 4 * (j / 2) + j % 2 + 2] = second[j];
       } } }},
    {"join", [](const In &in, Out &out) { for (int i = 0; i < 16; i += V::lanes) {
       alignas(64) double first[V::lanes / 2], second[V::lanes / 2];
       V::store(first, V::join_first(ints(in.x + i), ints(in.y + i)));
       V::store(second, V::join_second(ints(in.x + i), ints(in.y + i)));
       for (int j = 0; j < V::lanes / 2; ++j) {
         out.wide[i + 4 * (j / 2) + j % 2] = first[j];
         out.wide[i + 4 * (j / 2) + j % 2 + 2] = second[j];
       } } }},
    {"high_words", [](const In &in, Out &out) { on_ints(in, out, [](I x, I y, I z) {
       return V::bit_xor(V::high_words(V::join_first(x, y), V::join_second(x, y)), z); }); }},
    {"bit_and wide", [](const In &in, Out &out) { on_ints(in, out, [](I x, I y, I z) {
       return V::high_words(V::bit_and(V::join_first(z, x), V::join_first(z, y)), V::bit_and(V::join_second(z, x), V::join_second(z, y))); }); }},
    {"spread_d", [](const In &in, Out &out) { on_ints(in, out, [&](I, I, I) {
       return V::high_words(V::spread_d(bytes(in.x + 4)), V::spread_d(bytes(in.y + 6))); }); }},
    {"narrow", [](const In &in, Out &out) { on_floats(in, out, [](F x, F y, F) {
       return V::narrow(V::sub(V::widen_first(x), V::widen_first(y)), V::sub(V::widen_second(x), V::widen_second(y))); }); }},
    {"bits", [](const In &in, Out &out) { on_ints(in, out, [](I x, I y, I z) { return V::bit_xor(V::bit_and(x, y), z); }); }},
    {"shift_left", [](const In &in, Out &out) { on_ints(in, out, [](I x, I, I) { return V::template shift_left<23>(x); }); }},
    {"shift_right", [](const In &in, Out &out) { on_ints(in, out, [](I x, I, I) { return V::template shift_right<23>(x); }); }},
    {"shift_right_signed", [](const In &in, Out &out) { on_ints(in, out, [](I x, I, I) { return V::template shift_right_signed<16>(x); }); }},
    {"magnitude8", [](const In &in, Out &out) { on_ints(in, out, [](I x, I, I) { return V::magnitude8(x); }); }},
    {"one_where_differs8", [](const In &in, Out &out) { on_ints(in, out, [](I x, I, I) { return V::one_where_differs8(x, 12); }); }},
    {"spread", [](const In &in, Out &out) { on_ints(in, out, [&](I, I, I) {
       return V::add(V::add(V::spread_i(bytes(in.x) + 8), V::as_int(V::spread_f(bytes(in.y) + 20))), V::add(V::broadcast(-7), V::spread_byte(-3))); }); }},
    // signed bytes of y and of z, those of y with the offset; started at minus the offset's share
    {"dot", [](const In &in, Out &out) {
       for (int i = 0; i < 16; i += V::lanes) {
         typename V::Dot sum = V::dot_zero(), offset = sum;
         V::dot(sum, ints(in.y + i), ints(in.z + i));
         V::dot(offset, V::spread_byte(V::kByteOffset), ints(in.z + i));
         put(out, i, V::total(V::dot_sub(sum, offset)));
       } }},
    {"dot with start", [](const In &in, Out &out) {
       typename V::Bytes a; // one row of 16: the same four words for all lanes
       __builtin_memcpy(&a, in.z, 16);
       const int32_t word = V::dot_start_word(V::dot_start_add(V::zero_bytes(), a));
       for (int i = 0; i < 16; i += V::lanes) {
         typename V::Dot sum = V::dot_start(reinterpret_cast<const uint8_t *>(&word));
         for (int q = 0; q < 4; ++q) V::dot(sum, ints(in.y + i), V::spread_i(bytes(in.z + q)));
         put(out, i, V::total(sum));
       } }},
    {"lookup_nibbles", [](const In &in, Out &out) {
       alignas(16) int8_t table[16];
       __builtin_memcpy(table, in.y, 16);
       for (int h = 0; h < 4; ++h) {
         const typename V::Bytes x = V::add8(V::lookup_nibbles(table, bytes(in.x + 2 * h)), 5);
         if (h % 2 == 0) {
           V::store(reinterpret_cast<uint8_t *>(out.word + 4 * h), x);
           continue;
         }
         out.word[4 * h] = uint32_t(V::template word<0>(x));
         out.word[4 * h + 1] = uint32_t(V::template word<1>(x));
         out.word[4 * h + 2] = uint32_t(V::template word<2>(x));
         out.word[4 * h + 3] = uint32_t(V::template word<3>(x));
       } }},
    {"widen", [](const In &in, Out &out) { for (int i = 0; i < 16; i += V::lanes) {
       const F x = floats(in.x + i), y = floats(in.y + i);
       put(out, i, V::mul(V::widen_low(x), V::widen_low(y)), V::mul(V::widen_high(x), V::widen_high(y))); } }},
    {"fma wide", [](const In &in, Out &out) { for (int i = 0; i < 16; i += V::lanes) {
       const F x = floats(in.x + i), y = floats(in.y + i), z = floats(in.z + i);
       put(out, i, V::fma(V::widen_low(x), V::widen_low(y), V::widen_low(z)), V::fma(V::widen_high(x), V::widen_high(y), V::widen_high(z))); } }},
    {"whole", [](const In &in, Out &out) { for (int i = 0; i < 16; i += V::lanes) {
       const F x = floats(in.x + i);
       put(out, i, V::whole(V::mul(V::widen_low(x), V::broadcast(0.375))), V::whole(V::mul(V::widen_high(x), V::broadcast(0.375)))); } }},
    {"power", [](const In &in, Out &out) { for (int i = 0; i < 16; i += V::lanes) {
       const I e = V::template shift_right_signed<24>(ints(in.x + i));
       put(out, i, V::power(V::extend_low(e), 35), V::power(V::extend_high(e), 35)); } }},
    {"power_negated", [](const In &in, Out &out) { for (int i = 0; i < 16; i += V::lanes) {
       const I e = V::template shift_right_signed<24>(ints(in.x + i));
       put(out, i, V::power_negated(V::extend_low(e), 35), V::power_negated(V::extend_high(e), 35)); } }},
  };
  // clang-format on

  static constexpr SimdOperations table{list,           int(sizeof list / sizeof list[0]),
                                        V::kByteOffset, V::kEmbeddedRounding,
                                        V::nearest,     V::toward_zero,
                                        V::inexact,     V::mode_toward_zero};
};

} // namespace
} // namespace nvfp4::test
