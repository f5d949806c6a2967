// SPDX-License-Identifier: Apache-2.0
// The layouts that gpu/blackwell's kernels use, held against a second transcription of the PTX ISA 9.1: a
// simulated warp loads fragments and scales as the kernel does, and a simulated tensor core reads them as the
// ISA says.
#include "nvfp4/gpu/blackwell/fragments.hpp"
#include "tests/catch.hpp"

#include <array>
#include <vector>

using namespace nvfp4;
using namespace nvfp4::cuda::blackwell;

namespace {

// ---- The ISA, transcribed independently of fragments.hpp -------------------------------------------------

struct At {
  int row, k;
};
/// 9.7.14.5.11: element i (0..31) of a lane's fragment of A, and i (0..15) of B.
At isa_a(int lane, int i) {
  const int group = lane >> 2, in_group = lane % 4;
  const bool upper = (0 <= i && i < 8) || (16 <= i && i < 24);
  return {upper ? group : group + 8, i < 16 ? in_group * 8 + (i & 7) : in_group * 8 + (i & 7) + 32};
}
At isa_b(int lane, int i) {
  const int group = lane >> 2, in_group = lane % 4;
  return {group, i < 8 ? in_group * 8 + (i & 7) : in_group * 8 + (i & 7) + 32};
}
At isa_d(int lane, int i) {
  const int group = lane >> 2, in_group = lane % 4;
  return {i < 2 ? group : group + 8, in_group * 2 + (i & 1)};
}
/// 9.7.14.3: the lane that supplies the scales of row m (column n) under a thread selector.
int isa_scale_lane_a(int m, int thread_id) { return 4 * (m % 8) + 2 * thread_id + m / 8; }
int isa_scale_lane_b(int n, int thread_id) { return 4 * n + thread_id; }
/// Swizzle<3,4,3> of 9.7.16.3.3: bits 4 to 6 of an address xor its bits 7 to 9.
int swizzle_128(int address) { return address ^ ((address >> 7 & 7) << 4); }
/// ldmatrix (9.7.14.5.15): register j of a lane, from the addresses that the lanes passed.
template <class Address> int ldmatrix_byte(Address address, int lane, int j) {
  return address(8 * j + lane / 4) + 4 * (lane % 4);
}

/// A tile's byte at row r, byte b of 128 carries the word (r, b), so that every byte's origin is known.
struct Tile {
  std::vector<int> origin = std::vector<int>(size_t(kTileBytes), -1);
  Tile() {
    for (int row = 0; row < kTileRows; ++row)
      for (int chunk = 0; chunk < kRowBytes / kChunkBytes; ++chunk)
        for (int b = 0; b < kChunkBytes; ++b) {
          int &to = origin.at(size_t(tile_offset(row, chunk) + b));
          REQUIRE(to == -1); // no two bytes in one place
          to = row * kRowBytes + chunk * kChunkBytes + b;
        }
  }
  [[nodiscard]] int row(int byte) const { return origin.at(size_t(byte)) / kRowBytes; }
  [[nodiscard]] int column(int byte) const { return origin.at(size_t(byte)) % kRowBytes; }
};

} // namespace

TEST_CASE("a tile's swizzle is the canonical one and fills the tile", "[blackwell]") {
  const Tile tile;
  for (const int origin : tile.origin) REQUIRE(origin >= 0);
  for (int row = 0; row < kTileRows; ++row)
    for (int step = 0; step < kStepsPerTile; ++step)
      for (int chunk = 0; chunk < 2; ++chunk) {
        // ((8,m),(T,2k)):((8T,SBO),(1,T)) in bytes, from the start address that the descriptor of the step
        // gives
        const uint64_t descriptor = operand_descriptor(0, step);
        const int start = int(descriptor & 0x3FFF) << 4, stride = int(descriptor >> 32 & 0x3FFF) << 4;
        const int linear = start + row % 8 * 128 + row / 8 * stride + chunk * 16;
        REQUIRE(swizzle_128(linear) == tile_offset(row, 2 * step + chunk));
      }
}

TEST_CASE("mma fragments: every element of A and B lands where the ISA reads it", "[blackwell]") {
  const Tile tile;
  for (int step = 0; step < kStepsPerTile; ++step)
    for (int row = 0; row < kTileRows; row += 16) {
      std::array<std::array<int, 64>, 16> seen_a{}, seen_b{};
      for (int lane = 0; lane < 32; ++lane) {
        const auto address_a = [&](int l) { return ldmatrix_a(l, row, step); };
        for (int i = 0; i < 32; ++i) {
          const int byte = ldmatrix_byte(address_a, lane, i / 8) + i % 8 / 2;
          const At at = isa_a(lane, i);
          REQUIRE(tile.row(byte) == row + at.row);
          REQUIRE(2 * tile.column(byte) + i % 2 ==
                  kStepK * step + at.k); // the even element is the low nibble
          ++seen_a[size_t(at.row)][size_t(at.k)];
        }
        const auto address_b = [&](int l) { return ldmatrix_b(l, row, step); };
        for (int fragment = 0; fragment < 2; ++fragment)
          for (int i = 0; i < 16; ++i) {
            const int byte = ldmatrix_byte(address_b, lane, 2 * fragment + i / 8) + i % 8 / 2;
            const At at = isa_b(lane, i);
            REQUIRE(tile.row(byte) == row + 8 * fragment + at.row);
            REQUIRE(2 * tile.column(byte) + i % 2 == kStepK * step + at.k);
            ++seen_b[size_t(8 * fragment + at.row)][size_t(at.k)];
          }
      }
      for (const auto &seen : {seen_a, seen_b})
        for (const auto &line : seen)
          for (const int count : line) REQUIRE(count == 1);
    }
}

TEST_CASE("ldmatrix addresses of a matrix lie in different banks", "[blackwell]") {
  for (int step = 0; step < kStepsPerTile; ++step)
    for (int j = 0; j < 4; ++j)
      for (const bool a : {true, false}) {
        int banks = 0;
        for (int lane = 8 * j; lane < 8 * j + 8; ++lane) {
          const int byte = a ? ldmatrix_a(lane, 32, step) : ldmatrix_b(lane, 32, step);
          REQUIRE(byte % 16 == 0);
          banks |= 1 << (byte / 16 % 8);
        }
        REQUIRE(banks == 0xFF);
      }
}

TEST_CASE("mma outputs: every (row, column) is held exactly once", "[blackwell]") {
  // 8 warps of 4 x 4 fragments, as gemm_sm120.cu places them
  std::vector<int> seen(size_t(kTileRows * kTileRows));
  for (int warp = 0; warp < 8; ++warp)
    for (int fragment = 0; fragment < 16; ++fragment)
      for (int lane = 0; lane < 32; ++lane)
        for (int i = 0; i < 4; ++i) {
          const Position p = d_position(lane, i);
          const At at = isa_d(lane, i);
          REQUIRE(p.row == at.row);
          REQUIRE(p.col == at.k);
          const int row = warp / 4 * 64 + fragment / 4 * 16 + p.row,
                    col = warp % 4 * 32 + fragment % 4 * 8 + p.col;
          ++seen.at(size_t(row * kTileRows + col));
        }
  for (const int count : seen) REQUIRE(count == 1);
}

TEST_CASE("mma scales: the selected lane and bytes hold the row's scales of the step", "[blackwell]") {
  for (const int block : {16, 32}) {
    const int per_step = scales_per_step(block), cols = kTileK / block;
    REQUIRE(per_step == kStepK / block);
    // the K piece's scales as the 128x4 layout stores them: value = row * cols + column
    std::vector<int> scales(size_t(scale_size_128x4(kTileRows, cols)), -1);
    for (int row = 0; row < kTileRows; ++row)
      for (int col = 0; col < cols; ++col)
        scales.at(size_t(scale_offset_128x4(row, col, cols))) = row * cols + col;
    for (const int value : scales) REQUIRE(value >= 0);
    for (int step = 0; step < kStepsPerTile; ++step) {
      const int base = scale_tile(step, block) * kScaleTileBytes, byte = scale_byte(step, block);
      REQUIRE((block == 16 ? byte == 0 : byte == 0 || byte == 2)); // table 37
      const auto word = [&](int lane, int first) { return base + scale_word_of_lane(lane, first); };
      for (int warp_row = 0; warp_row < kTileRows; warp_row += 64)
        for (int fragment = 0; fragment < 4; ++fragment)
          for (int m = 0; m < 16; ++m) {
            const int lane = isa_scale_lane_a(m, thread_id_a(fragment));
            const int at = word(lane, warp_row + 32 * (fragment / 2));
            REQUIRE(at % 4 == 0);
            for (int s = 0; s < per_step; ++s)
              REQUIRE(scales.at(size_t(at + byte + s)) ==
                      (warp_row + 16 * fragment + m) * cols + step * per_step + s);
          }
      for (int warp_col = 0; warp_col < kTileRows; warp_col += 32)
        for (int fragment = 0; fragment < 4; ++fragment)
          for (int n = 0; n < 8; ++n) {
            const int lane = isa_scale_lane_b(n, thread_id_b(fragment));
            const int at = word(lane, warp_col);
            for (int s = 0; s < per_step; ++s)
              REQUIRE(scales.at(size_t(at + byte + s)) ==
                      (warp_col + 8 * fragment + n) * cols + step * per_step + s);
          }
    }
  }
}

TEST_CASE("tcgen05 scales: the copied tile is lane = row % 32, column = row / 32", "[blackwell]") {
  // tcgen05.cp.32x128b reads 32 rows of 16 bytes: 8 rows are contiguous, groups of 8 stand the stride offset
  // apart
  const uint64_t descriptor = scale_descriptor(0);
  const int stride = int(descriptor >> 32 & 0x3FFF) << 4;
  REQUIRE(descriptor >> 61 == 0);
  for (int lane = 0; lane < 32; ++lane)
    for (int column = 0; column < kScaleColumns; ++column) {
      const int from = lane % 8 * 16 + lane / 8 * stride + column * 4, row = 32 * column + lane;
      REQUIRE(from == scale_word_offset(row));
      for (int s = 0; s < 4; ++s) REQUIRE(from + s == scale_offset_128x4(row, s, 4));
    }
}

TEST_CASE("tcgen05 descriptors have the fields of tables 40 and 44", "[blackwell]") {
  const auto field = [](uint64_t word, int low, int bits) {
    return int(word >> low & ((uint64_t{1} << bits) - 1));
  };
  const uint64_t d = operand_descriptor(0x2C400, 3);
  REQUIRE(field(d, 0, 14) == (0x2C460 & 0x3FFFF) >> 4);
  REQUIRE(field(d, 32, 14) == 1024 >> 4);
  REQUIRE(field(d, 46, 3) == 1);
  REQUIRE(field(d, 49, 3) == 0); // tiles start on 1024-byte boundaries
  REQUIRE(field(d, 52, 9) == 0); // relative leading offset; fixed zeros
  REQUIRE(field(d, 61, 3) == 2); // 128-byte swizzle
  for (const bool ue8m0 : {false, true})
    for (const int id : {0, 2}) {
      const uint32_t i = instruction_descriptor(128, 128, ue8m0, id);
      REQUIRE(field(i, 0, 4) == 0);
      REQUIRE(field(i, 4, 2) == id);
      REQUIRE(field(i, 6, 1) == 0);
      REQUIRE(field(i, 7, 3) == 1);
      REQUIRE(field(i, 10, 2) == 1);
      REQUIRE(field(i, 12, 5) == 0);
      REQUIRE(field(i, 17, 6) == 128 / 8);
      REQUIRE(field(i, 23, 1) == int(ue8m0));
      REQUIRE(field(i, 24, 3) == 0);
      REQUIRE(field(i, 27, 2) == 1);
      REQUIRE(field(i, 29, 2) == id);
      REQUIRE(field(i, 31, 1) == 0);
    }
}
