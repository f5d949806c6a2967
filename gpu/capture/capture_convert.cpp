// SPDX-License-Identifier: Apache-2.0
// Writes the golden files of one conversion: chosen inputs line by line, and digests over every f32 input.
#include "nvfp4/gpu/capture/convert.hpp"
#include "nvfp4/gpu/capture/cuda_check.hpp"
#include "nvfp4/gpu/capture/run_tiles.hpp"

#include <ostream>

namespace nvfp4::gpu {
namespace {

int source_digits(Source s) {
  switch (s) {
  case Source::f32: return 8;
  case Source::f16:
  case Source::bf16: return 4;
  case Source::code4: return 1;
  default: return 2;
  }
}

/// One line a group: all elements of an instruction concatenated, element a first, because they share rbits.
void write_stochastic(const Conversion &x, const CaptureOptions &options, GoldenFile &file) {
  const StochasticInputs inputs = stochastic_inputs(x, options.seed);
  const std::vector<uint32_t> out = run_conversion(x, inputs.in, inputs.rbits);
  for (size_t g = 0; g < inputs.rbits.size(); ++g) {
    std::string in_text, out_text;
    for (size_t e = g * size_t(x.elements); e < (g + 1) * size_t(x.elements); ++e) {
      in_text += hex(inputs.in[e], 8);
      out_text += hex(out[e], x.out_bits / 4);
    }
    file.line(in_text + " " + hex(inputs.rbits[g], 8) + " " + out_text);
  }
}

void write_plain(const Conversion &x, const CaptureOptions &options, GoldenFile &file) {
  const std::vector<uint32_t> in = conversion_inputs(x.source, x.name, options.seed);
  const std::vector<uint32_t> out = run_conversion(x, in, {});
  for (size_t i = 0; i < in.size(); ++i)
    file.line(hex(in[i], source_digits(x.source)) + " " + hex(out[i], x.out_bits / 4));
}

void write_digests(const Conversion &x, GoldenFile &file) {
  const DeviceBuffer sums(256 * sizeof(uint64_t));
  uint64_t host[256] = {};
  cuda_check(cudaMemset(sums.data(), 0, sizeof host), "cudaMemset");
  for (uint32_t chunk = 0; chunk < 256; ++chunk)
    x.digest(chunk, static_cast<uint64_t *>(sums.data()) + chunk);
  cuda_check(cudaDeviceSynchronize(), x.name);
  sums.download(host, sizeof host);
  for (uint32_t chunk = 0; chunk < 256; ++chunk) file.line(hex(chunk, 2) + " " + hex(host[chunk], 16));
}

} // namespace

void capture_conversion(const Conversion &x, const CaptureOptions &options, const Provenance &provenance,
                        std::ostream &log) {
  const std::string unit = std::string(device_arch()) + ":" + x.name;
  const std::vector<std::pair<std::string, std::string>> fields = {{"conversion", x.name},
                                                                   {"arch", device_arch()}};
  GoldenFile file(options.out_dir, unit, "convert", fields, provenance,
                  x.stochastic ? "in rbits out" : "in out");
  if (x.stochastic)
    write_stochastic(x, options, file);
  else
    write_plain(x, options, file);
  log << unit << ": " << file.close() << " cases";
  if (x.digest) {
    GoldenFile digests(options.out_dir, unit + ".digest", "convert-digest", fields, provenance,
                       "chunk digest");
    write_digests(x, digests);
    log << ", " << digests.close() << " digests over all 2^32 inputs";
  }
  log << std::endl;
}

} // namespace nvfp4::gpu
