// SPDX-License-Identifier: Apache-2.0
// nvfp4 golden capture: golden vectors of the GPU of this machine.
#include "tools/nvfp4/verbs.hpp"
#if NVFP4_CUDA
#include "nvfp4/gpu/capture/capture.hpp"
#endif

#include <iostream>
#include <memory>

namespace nvfp4::tool {
namespace {

struct Options {
  std::string match, out = "capture";
  int tiles = 0;
  uint64_t seed = 1;
};

int capture([[maybe_unused]] const Options &o) {
#if NVFP4_CUDA
  gpu::CaptureOptions c;
  c.out_dir = o.out;
  c.only = o.match;
  c.seed = o.seed;
  if (o.tiles > 0) c.tiles = o.tiles;
  return gpu::capture(c, std::cerr);
#else
  std::cerr << "nvfp4: this build has no CUDA; configure with nvcc on the PATH, or build gpu/capture alone "
               "(gpu/capture/README.md)\n";
  return kNoDevice;
#endif
}

} // namespace

void register_golden_capture(Command &golden, int &exit_code) {
  Command *verb =
      golden.add_subcommand("capture", "Run this machine's GPU and write hardware vectors; exit code 3 without one");
  auto o = std::make_shared<Options>();
  verb->add_option("--out", o->out, "Folder to write (default: capture)");
  verb->add_option("--match", o->match, "Only units whose name contains this text");
  verb->add_option("--seed", o->seed, "Seed of the inputs");
  verb->add_option("--tiles", o->tiles, "Tiles of each input class")->check(Range{1, 10000});
  verb->callback([o, &exit_code] { exit_code = capture(*o); });
}

} // namespace nvfp4::tool
