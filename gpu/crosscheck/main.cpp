// SPDX-License-Identifier: Apache-2.0
// nvfp4-crosscheck-gpu: compares gpu/emulated with the CPU library, word by word, and times it. Exit code 0
// equal, 1 mismatch, 2 bad call, 3 no GPU.
#include "gpu/crosscheck/check.hpp"

#include <cstdlib>
#include <cstring>

namespace {

constexpr const char *kUsage =
    "usage: nvfp4-crosscheck-gpu [elements] [mma] [quantize] [gemm] [large] [brief] [time]\n"
    "         [--tiles N] [--match TEXT] [--repeats N] [--size N]\n"
    "Without names: elements, mma, quantize, gemm. large and brief are gemm with 4096^3 products or the "
    "smallest only.\n"
    "--tiles: tiles of 16 x 8 outputs per unit and class (default 8).\n"
    "--match: units whose name contains TEXT. --repeats: rounds of the quantization check. --size: of the "
    "timed product\n"
    "(default 8192). Example: nvfp4-crosscheck-gpu mma --match wgmma --tiles 64\n";

int run(int argc, char **argv) {
  using namespace nvfp4::crosscheck;
  bool elements = false, mma = false, quantize = false, gemm = false, large = false, brief = false,
       time = false;
  int tiles = 8, repeats = 1, size = 8192;
  std::string match;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const char *const value = i + 1 < argc ? argv[i + 1] : nullptr;
    const auto number = [&](int &to) {
      if (value == nullptr || std::atoi(value) <= 0) throw nvfp4::Error(word + " takes a positive number");
      to = std::atoi(value);
      ++i;
    };
    if (word == "elements")
      elements = true;
    else if (word == "mma")
      mma = true;
    else if (word == "quantize")
      quantize = true;
    else if (word == "gemm")
      gemm = true;
    else if (word == "large")
      large = gemm = true;
    else if (word == "brief")
      brief = gemm = true;
    else if (word == "time")
      time = true;
    else if (word == "--tiles")
      number(tiles);
    else if (word == "--repeats")
      number(repeats);
    else if (word == "--size")
      number(size);
    else if (word == "--match" && value != nullptr)
      match = value, ++i;
    else if (word == "--help" || word == "-h")
      return std::fputs(kUsage, stdout), 0;
    else
      throw nvfp4::Error("unknown argument '" + word + "'; see --help");
  }
  if (!(elements || mma || quantize || gemm || time)) elements = mma = quantize = gemm = true;
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::fputs("nvfp4-crosscheck-gpu: no suitable device\n", stderr);
    return 3;
  }
  Tally all;
  if (elements) all.add(check_elements());
  if (mma) all.add(check_mma(tiles, match));
  if (quantize) all.add(check_quantize(repeats));
  if (gemm) all.add(check_gemm(large, brief));
  if (time) all.add(time_all(size));
  all.print("total");
  return all.mismatches == 0 ? 0 : 1;
}

} // namespace

int main(int argc, char **argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception &e) {
    std::fprintf(stderr, "nvfp4-crosscheck-gpu: %s\n", e.what());
    return 2;
  }
}
