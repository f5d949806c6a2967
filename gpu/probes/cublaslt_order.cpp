// SPDX-License-Identifier: Apache-2.0
// In which order does cuBLASLt accumulate on Hopper? Every algorithm that its heuristics offer for a set of
// shapes, and the same algorithms with K split by hand, against models built from the CPU's exact wgmma
// chains. The model:
//   K is cut into `split` parts of ceil(ceil(K / step) / split) steps, step = 64 for BF16 and 128 for FP8;
//   a part is one chain of wgmma from +0; or, for FP8 without fast accumulation, chains of 128 elements from
//   +0 whose results are added in FP32 (nearest even) in increasing K; parts are added in FP32 in increasing
//   K; then one rounding to the output, whatever the reduction scheme.
// Rows that are not 16-byte aligned go to kernels that chain mma.m16n8k8: see model_of().
// Controls: one plain chain, and the same sums in decreasing K.
#include "nvfp4/gpu/check/hopper.hpp"
#include "nvfp4/gpu/probes/cublaslt.hpp"
#include "nvfp4/gpu/probes/cublaslt_model.hpp"
#include "nvfp4/gpu/probes/cublaslt_run.hpp"

#include <map>
#include <set>

namespace nvfp4::probe {
namespace {

/// What algorithms of the same outcome have in common, and which they are.
struct Group {
  int algorithms = 0;
  std::set<int> ids, tiles, stages, clusters, reductions;
};

std::string list(const std::set<int> &x) {
  std::string s;
  for (const int i : x) s += (s.empty() ? "" : ",") + std::to_string(i);
  return s;
}

class Study {
public:
  Study(const Problem &p, Values values)
      : p_(p), bf16_(p.type == CUDA_R_16BF), format_(bf16_ ? FormatId::bf16 : FormatId::e4m3),
        a_(make(format_, p.m, p.k, values, 1)), b_(make(format_, p.n, p.k, values, 2)) {
    da_.upload(a_.bytes);
    db_.upload(b_.bytes);
    std::printf("%s %s%s output, %lld x %lld x %lld, %s\n", bf16_ ? "bf16" : "e4m3",
                bf16_                 ? ""
                : p.fast_accumulation ? "fast accumulation, "
                                      : "promotion, ",
                p.out == CUDA_R_16BF ? "bf16" : "f32", (long long)p.m, (long long)p.n, (long long)p.k,
                values == Values::normal ? "normal" : "staggered");
  }

  /// Outputs that the model does not explain, over all algorithms.
  int64_t run(FILE *dump) {
    Matmul library(p_);
    const std::vector<cublasLtMatmulAlgo_t> offered = library.heuristics();
    std::vector<cublasLtMatmulAlgo_t> algos = offered;
    if (p_.m * p_.n <= 1 << 20)
      for (size_t i = 0; i < std::min<size_t>(offered.size(), 4); ++i)
        for (const int split : {2, 3, 4, 5, 8, 16})
          for (const uint32_t scheme : {1u, 2u, 4u}) {
            cublasLtMatmulAlgo_t algo = offered[i];
            if (library.split(algo, split, scheme)) algos.push_back(algo);
          }
    std::map<std::string, Group> groups; // ordered by what is printed
    int64_t unexplained = 0;
    for (size_t i = 0; i < algos.size(); ++i) {
      const Config c = Matmul::config(algos[i]);
      const std::vector<float> d = product(library, algos[i]);
      if (d.empty()) continue;
      const Model one_chain = model_of(66, format_, true, p_.k, 1);
      const Model model = model_of(c.id, format_, p_.fast_accumulation, p_.k, c.split);
      const int64_t plain = different(d, outputs(one_chain)), fails = different(d, outputs(model));
      Model back = model;
      back.reversed = true;
      const bool affordable = p_.m * p_.n * p_.k <= int64_t{1} << 31 && back.chain < p_.k;
      char text[200];
      std::snprintf(text, sizeof text,
                    "%s split-k %2d: outputs %lld, differ from one chain %lld, from the model %lld, from "
                    "its reverse %s",
                    i < offered.size() ? "offered" : "by hand", std::max(c.split, 1), (long long)d.size(),
                    (long long)plain, (long long)fails,
                    affordable ? std::to_string(different(d, outputs(back))).c_str() : "-");
      Group &g = groups[text];
      ++g.algorithms;
      g.ids.insert(c.id), g.tiles.insert(c.tile), g.stages.insert(c.stages), g.clusters.insert(c.cluster);
      g.reductions.insert(c.reduction);
      unexplained += fails;
      if (fails != 0 && dump != nullptr && g.algorithms == 1) {
        std::fprintf(stderr, "dump: %s [%s] at %ld\n", text, c.text().c_str(), std::ftell(dump));
        std::fwrite(d.data(), 4, std::min<size_t>(d.size(), 1 << 16), dump);
      }
    }
    for (const auto &[text, g] : groups)
      std::printf("  %s [%d algorithms: id %s tile %s stages %s cluster %s reduction %s]\n", text.c_str(),
                  g.algorithms, list(g.ids).c_str(), list(g.tiles).c_str(), list(g.stages).c_str(),
                  list(g.clusters).c_str(), list(g.reductions).c_str());
    std::fflush(stdout);
    return unexplained;
  }

private:
  const std::vector<float> &outputs(const Model &m) {
    auto &known = models_[m];
    if (known.empty()) known = predict(m, a_, b_, p_.out == CUDA_R_16BF);
    return known;
  }
  std::vector<float> product(Matmul &library, const cublasLtMatmulAlgo_t &algo) {
    const bool narrow = p_.out == CUDA_R_16BF;
    const int64_t count = p_.m * p_.n;
    dd_.reserve(count * 4);
    cuda::check(cudaMemset(dd_.as<void>(), 0xFF, size_t(count) * 4), "cudaMemset");
    if (!library.run(algo, da_.as<void>(), db_.as<void>(), dd_.as<void>())) return {};
    if (!narrow) return dd_.download<float>(count);
    const std::vector<uint16_t> words = dd_.download<uint16_t>(count);
    std::vector<float> d(words.size());
    for (size_t i = 0; i < d.size(); ++i) d[i] = bf16_value(words[i]);
    return d;
  }

  Problem p_;
  bool bf16_;
  FormatId format_;
  Codes a_, b_;
  cuda::DeviceBuffer da_, db_, dd_;
  std::map<Model, std::vector<float>> models_;
};

} // namespace

int64_t accumulation_order(const std::string &dump) {
  crosscheck::require_hopper();
  FILE *const file = dump.empty() ? nullptr : std::fopen(dump.c_str(), "wb");
  if (!dump.empty() && file == nullptr) throw Error(dump + ": cannot be written");
  std::printf("cuBLASLt %zu\n", cublasLtGetVersion());
  int64_t unexplained = 0;
  const auto study = [&](const Problem &p, Values values) { unexplained += Study(p, values).run(file); };
  for (int kind = 0; kind < 3; ++kind) {
    const cudaDataType_t type = kind == 0 ? CUDA_R_16BF : CUDA_R_8F_E4M3;
    const bool fast = kind == 2;
    const int64_t shapes[][3] = {{64, 64, 4096},   {256, 256, 4096},   {128, 128, 16384}, {384, 512, 2048},
                                 {200, 264, 1040}, {1024, 1024, 1024}, {16, 4096, 4096},  {48, 1024, 8192}};
    for (const auto &s : shapes)
      for (const Values values : {Values::normal, Values::staggered})
        study({type, fast, s[0], s[1], s[2]}, values);
    study({type, fast, 1024, 3072, 4096}, Values::staggered);
    study({type, fast, 4096, 4096, 4096}, Values::staggered);
    study({type, fast, 8192, 8192, 8192}, Values::normal);
  }
  for (const Values values : {Values::normal, Values::staggered}) {
    study({CUDA_R_16BF, false, 256, 256, 4096, CUDA_R_16BF}, values);
    study({CUDA_R_16BF, false, 384, 512, 2048, CUDA_R_16BF}, values);
    // rows that are not 16-byte aligned, and vectors
    study({CUDA_R_16BF, false, 255, 263, 1035}, values);
    study({CUDA_R_16BF, false, 1024, 1024, 1025}, values);
    study({CUDA_R_16BF, false, 1, 1024, 4096}, values);
    study({CUDA_R_16BF, false, 1024, 1, 4096}, values);
  }
  std::printf("total: %lld outputs unexplained\n", (long long)unexplained);
  if (file != nullptr) std::fclose(file);
  return unexplained;
}

} // namespace nvfp4::probe
