// SPDX-License-Identifier: Apache-2.0
// Golden files of a Blackwell GPU: first the directed vectors that decide the open questions, as a whole GEMM
// answers them, then random dot products of the GEMM, then the instructions and conversions. Not yet run.
#include "nvfp4/gpu/blackwell/directed.hpp"
#include "nvfp4/gpu/capture/capture.hpp"
#include "nvfp4/gpu/capture/golden_file.hpp"
#include "nvfp4/gpu/check/blackwell.hpp"

#include <iostream>
#include <random>

namespace nvfp4::cuda::blackwell {
namespace {

std::string hex_codes(const std::vector<uint8_t> &codes, int digits) {
  std::string text;
  for (const uint8_t x : codes) text += gpu::hex(x, digits);
  return text;
}

/// Vectors of K = 64 through the kernel, one line each. From +0, so a line is one instruction's case.
void write_vectors(KernelId kernel, const Unit &unit, const std::vector<Directed> &vectors,
                   const std::string &name_class, gpu::GoldenFile &file) {
  const DirectedOperands o = directed_operands(vectors);
  GemmCall call;
  call.kernel = kernel;
  const std::vector<uint8_t> d = run_gemm(call, unit.rule, {o.rows, o.k, o.k, o.codes_a, o.scales_a},
                                          {o.rows, o.k, o.k, o.codes_b, o.scales_b}, {});
  for (size_t i = 0; i < vectors.size(); ++i) {
    const Directed &x = vectors[i];
    const uint64_t word = CodeView{d.data(), 32}[int64_t(i) * o.rows + int64_t(i)];
    file.line(name_class + x.name + " " + hex_codes(x.a, 1) + " " + hex_codes(x.b, 1) + " " +
              hex_codes(x.scale_a, 2) + " " + hex_codes(x.scale_b, 2) + " 00000000 " + gpu::hex(word, 8));
  }
}

std::vector<Directed> random_vectors(int count) {
  std::mt19937_64 random(11);
  std::vector<Directed> all;
  for (int i = 0; i < count; ++i) {
    Directed x;
    x.name = std::to_string(i);
    for (std::vector<uint8_t> *v : {&x.a, &x.b})
      for (int k = 0; k < 64; ++k) v->push_back(uint8_t(random() & 15));
    for (std::vector<uint8_t> *v : {&x.scale_a, &x.scale_b})
      for (int g = 0; g < 4; ++g) v->push_back(uint8_t(random() % (i % 2 == 0 ? 0x7F : 0x100)));
    all.push_back(std::move(x));
  }
  return all;
}

} // namespace

int capture_golden(KernelId kernel, const std::string &directory) {
  const Unit &unit = unit_of(kernel, false);
  gpu::Provenance provenance = gpu::provenance_of_device();
  provenance.note = std::string("by ") + name_of(kernel) + ", which had never run on hardware as of 2026-11";
  const auto open = [&](const std::string &what) {
    return gpu::GoldenFile(directory, unit.name() + "." + what, "mma", {{"unit", unit.name()}}, provenance,
                           "class a b scale_a scale_b c d");
  };
  std::vector<Directed> directed;
  for (Directed &x : directed_vectors())
    if (x.a.size() == 64) directed.push_back(std::move(x));
  gpu::GoldenFile first = open("directed");
  write_vectors(kernel, unit, directed, "probe:directed.", first);
  std::cout << unit.name() << ".directed: " << first.close() << " cases" << std::endl;
  gpu::GoldenFile second = open("gemm");
  write_vectors(kernel, unit, random_vectors(512), "gemm:", second);
  std::cout << unit.name() << ".gemm: " << second.close() << " cases" << std::endl;
  int code = 0;
  for (const char *only : {"mxf4", "e2m1", "ue8m0", "e4m3x2"}) {
    gpu::CaptureOptions options;
    options.out_dir = directory;
    options.only = only;
    code = std::max(code, gpu::capture(options, std::cout));
  }
  return code;
}

} // namespace nvfp4::cuda::blackwell
