// SPDX-License-Identifier: Apache-2.0
// Golden text files and the provenance lines they open with.
#include "nvfp4/gpu/capture/golden_file.hpp"

#include "nvfp4/gpu/capture/cuda_check.hpp"

#include <ctime>
#include <filesystem>

namespace nvfp4::gpu {

std::string hex(uint64_t value, int digits) {
  std::string text(size_t(digits), '0');
  for (int i = digits - 1; i >= 0; --i, value >>= 4) text[size_t(i)] = "0123456789abcdef"[value & 0xF];
  return text;
}

static std::string version(int number) {
  return std::to_string(number / 1000) + "." + std::to_string(number % 1000 / 10);
}

/// "580.65.06" from the kernel module's version line, or nothing.
static std::string module_version() {
  std::ifstream in("/proc/driver/nvidia/version");
  std::string word;
  while (in >> word)
    if (word.find('.') != std::string::npos && word.find_first_not_of("0123456789.") == std::string::npos)
      return word;
  return "";
}

Provenance provenance_of_device() {
  Provenance p;
  int id = 0, driver = 0;
  cudaDeviceProp properties{};
  cuda_check(cudaGetDevice(&id), "cudaGetDevice");
  cuda_check(cudaGetDeviceProperties(&properties, id), "cudaGetDeviceProperties");
  cuda_check(cudaDriverGetVersion(&driver), "cudaDriverGetVersion");
  p.device = properties.name;
  const std::string module = module_version();
  p.driver = (module.empty() ? "" : module + " ") + "(CUDA " + version(driver) + ")";
  p.toolkit = "CUDA " + version(CUDART_VERSION) + " (nvcc " + nvcc_version() + ")";
  const std::time_t now = std::time(nullptr);
  char date[16] = "";
  std::strftime(date, sizeof date, "%Y-%m-%d", std::gmtime(&now));
  p.date = date;
  return p;
}

GoldenFile::GoldenFile(const std::string &directory, const std::string &name, const std::string &kind,
                       const std::vector<std::pair<std::string, std::string>> &fields,
                       const Provenance &provenance, const std::string &columns) {
  std::string file = name;
  for (char &c : file)
    if (c == ':') c = '.';
  std::filesystem::create_directories(directory);
  path_ = directory + "/" + file + ".txt";
  out_.open(path_);
  out_ << "# nvfp4 golden 1\n# kind: " << kind << "\n";
  for (const auto &[key, value] : fields) out_ << "# " << key << ": " << value << "\n";
  out_ << "# provenance: hardware\n# device: " << provenance.device << "\n# driver: " << provenance.driver
       << "\n# toolkit: " << provenance.toolkit << "\n# date: " << provenance.date << "\n";
  if (!provenance.note.empty()) out_ << "# note: " << provenance.note << "\n";
  out_ << "# columns: " << columns << "\n";
  if (!out_) throw std::runtime_error("cannot write " + path_);
}

void GoldenFile::line(const std::string &text) {
  out_ << text << '\n';
  ++lines_;
}

int64_t GoldenFile::close() {
  out_.close();
  if (!out_) throw std::runtime_error("cannot write " + path_);
  return lines_;
}

} // namespace nvfp4::gpu
