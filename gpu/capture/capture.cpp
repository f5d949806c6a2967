// SPDX-License-Identifier: Apache-2.0
// Runs every matrix unit of the device on generated tiles and directed probes, and stores a few outputs of
// each tile.
#include "nvfp4/gpu/capture/capture.hpp"

#include "nvfp4/gpu/capture/convert.hpp"
#include "nvfp4/gpu/capture/cuda_check.hpp"
#include "nvfp4/gpu/capture/engines.hpp"
#include "nvfp4/gpu/capture/golden_file.hpp"
#include "nvfp4/gpu/capture/probes.hpp"
#include "nvfp4/gpu/capture/run_tiles.hpp"

#include <algorithm>
#include <ostream>

namespace nvfp4::gpu {
namespace {

/// Tiles of one kind, laid end to end as run_tiles wants them.
struct Batch {
  const MmaKind &kind;
  Tile all;
  std::vector<uint8_t> d;
  int64_t count = 0;

  void append(const Tile &t) {
    const auto join = [](std::vector<uint8_t> &to, const std::vector<uint8_t> &from) {
      to.insert(to.end(), from.begin(), from.end());
    };
    join(all.a, t.a);
    join(all.b, t.b);
    join(all.scale_a, t.scale_a);
    join(all.scale_b, t.scale_b);
    join(all.c, t.c);
    ++count;
  }
  void run() {
    d.resize(all.c.size());
    run_tiles(kind, count, all.a.data(), all.b.data(), all.scale_a.data(), all.scale_b.data(), all.c.data(),
              d.data());
  }
};

/// The line of output (i, j) of tile t: class, row of A, column of B, scales, C, D.
std::string case_line(const Batch &batch, const std::string &name, int64_t t, int i, int j) {
  const MmaKind &x = batch.kind;
  const auto vector_hex = [](std::span<const uint8_t> buffer, Element e, int64_t first, int count) {
    const ElementFormat &f = format_of(e);
    std::string text;
    for (int k = 0; k < count; ++k) text += hex(get_element(buffer, f.bits, first + k), f.digits());
    return text;
  };
  const int64_t row = t * x.m + i, column = t * x.n + j, output = row * x.n + j;
  const int scales = scales_per_row(x);
  std::string text = name + " " + vector_hex(batch.all.a, x.a, row * x.k, x.k) + " " +
                     vector_hex(batch.all.b, x.b, column * x.k, x.k) + " ";
  if (scales)
    text += vector_hex(batch.all.scale_a, x.scale, row * scales, scales) + " " +
            vector_hex(batch.all.scale_b, x.scale, column * scales, scales) + " ";
  return text + vector_hex(batch.all.c, x.acc, output, 1) + " " + vector_hex(batch.d, x.acc, output, 1);
}

void write_classes(const MmaKind &x, const CaptureOptions &options, GoldenFile &file) {
  constexpr int per_tile = 8; // one output in every column, rows spread over the tile
  for (int c = 0; c < kInputClasses; ++c) {
    const InputClass input = InputClass(c);
    if (!applies(x, input)) continue;
    Batch batch{x, {}, {}};
    for (int index = 0; index < options.tiles; ++index)
      batch.append(generate(x, input, ScaleClass(index % kScaleClasses), options.seed, index));
    batch.run();
    for (int64_t t = 0; t < batch.count; ++t) {
      std::string name = name_of(input);
      if (x.scale_block) name += std::string("/") + name_of(ScaleClass(t % kScaleClasses));
      for (int q = 0; q < per_tile; ++q) {
        const int spread = x.m / per_tile;
        file.line(case_line(batch, name, t, q * spread + int(t) % spread, (q + int(t)) % x.n));
      }
    }
  }
}

/// Probes run one to a tile, at a row and column that move from probe to probe; the rest of the tile is zero.
void write_probes(const MmaKind &x, GoldenFile &file) {
  const std::vector<Probe> probes = probes_for(x);
  Batch batch{x, {}, {}};
  const auto row_of = [&](size_t p) { return int(p * 5 % size_t(x.m)); };
  const auto column_of = [&](size_t p) { return int(p * 3 % size_t(x.n)); };
  for (size_t p = 0; p < probes.size(); ++p) {
    Tile t = empty_tile(x);
    const int i = row_of(p), j = column_of(p), scales = scales_per_row(x);
    for (int k = 0; k < x.k; ++k) {
      set_element(t.a, x.a_bits, int64_t(i) * x.k + k, probes[p].a[size_t(k)]);
      set_element(t.b, x.b_bits, int64_t(j) * x.k + k, probes[p].b[size_t(k)]);
    }
    for (int s = 0; s < scales; ++s) {
      t.scale_a[size_t(i * scales + s)] = probes[p].scale_a[size_t(s)];
      t.scale_b[size_t(j * scales + s)] = probes[p].scale_b[size_t(s)];
    }
    set_element(t.c, x.acc_bits, int64_t(i) * x.n + j, probes[p].c);
    batch.append(t);
  }
  batch.run();
  for (size_t p = 0; p < probes.size(); ++p)
    file.line(case_line(batch, "probe:" + probes[p].name, int64_t(p), row_of(p), column_of(p)));
}

/// Kinds that Hopper and earlier have. The others had only been compiled and read as SASS when this was
/// written.
bool exists_on_hopper(const MmaKind &x) {
  return x.engine != Engine::tcgen05 && x.spelling == Spelling::dense;
}

void capture_unit(const MmaKind &x, const CaptureOptions &options, const Provenance &provenance,
                  std::ostream &log) {
  GoldenFile file(options.out_dir, x.unit, "mma", {{"unit", x.unit}}, provenance,
                  x.scale_block ? "class a b scale_a scale_b c d" : "class a b c d");
  write_classes(x, options, file);
  write_probes(x, file);
  log << x.unit << ": " << file.close() << " cases" << std::endl;
}

} // namespace

int capture(const CaptureOptions &options, std::ostream &log) {
  std::string current = "device query";
  try {
    const std::string arch = device_arch();
    const Provenance provenance = provenance_of_device();
    Provenance untried = provenance;
    untried.note = "the code that captured this had never run on hardware as of 2026-11";
    log << "device: " << provenance.device << " (" << arch << "), driver " << provenance.driver << ", "
        << kinds_for_device().size() << " matrix units" << std::endl;
    if (device_features() & kWgmma) {
      current = "wgmma with A in registers";
      log << current << (wgmma_register_a_agrees() ? ": same bits" : ": DIFFERENT BITS") << std::endl;
    }
    for (const MmaKind &x : kinds_for_device()) {
      current = x.unit;
      if (current.find(options.only) != std::string::npos)
        capture_unit(x, options, exists_on_hopper(x) ? provenance : untried, log);
    }
    for (const Conversion &x : conversions()) {
      if ((x.features & device_features()) != x.features) continue;
      current = arch + ":" + x.name;
      const bool on_hopper = (x.features & (kCvtSm100 | kCvtNarrow | kCvtRs)) == 0;
      if (current.find(options.only) != std::string::npos)
        capture_conversion(x, options, on_hopper ? provenance : untried, log);
    }
    return 0;
  } catch (const NoDevice &e) {
    log << "no suitable device: " << e.what() << std::endl;
    return 3;
  } catch (const std::exception &e) {
    log << "error in " << current << ": " << e.what() << std::endl;
    return 1;
  }
}

} // namespace nvfp4::gpu
