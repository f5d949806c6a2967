// SPDX-License-Identifier: Apache-2.0
// The capture program: parses options, calls capture(). Build and options are described by --help.
#include "nvfp4/gpu/capture/capture.hpp"

#include <cstdlib>
#include <iostream>
#include <string_view>

static const char *const kHelp =
    "nvfp4-capture: record golden files of this GPU's tensor-core instructions and conversions\n"
    "  --out DIR     directory for the files (default golden-captured)\n"
    "  --tiles N     tiles per input class, 8 outputs each (default 13)\n"
    "  --seed N      seed of the generated inputs (default 1)\n"
    "  --only TEXT   only units and conversions whose name contains TEXT\n"
    "example: nvfp4-capture --out captured --only wgmma\n"
    "exit code: 0 done, 1 failed, 2 bad call, 3 no suitable device\n";

int main(int argc, char **argv) {
  nvfp4::gpu::CaptureOptions options;
  for (int i = 1; i < argc; ++i) {
    const std::string_view flag = argv[i];
    if (flag == "--help" || flag == "-h") return std::cout << kHelp, 0;
    if (i + 1 == argc)
      return std::cerr << "missing value, or unknown option: " << flag << "; see --help\n", 2;
    const char *value = argv[++i];
    if (flag == "--out")
      options.out_dir = value;
    else if (flag == "--tiles")
      options.tiles = std::atoi(value);
    else if (flag == "--seed")
      options.seed = std::strtoull(value, nullptr, 0);
    else if (flag == "--only")
      options.only = value;
    else
      return std::cerr << "unknown option " << flag << "; see --help\n", 2;
  }
  if (options.tiles < 1) return std::cerr << "--tiles must be at least 1\n", 2;
  return nvfp4::gpu::capture(options, std::cout);
}
