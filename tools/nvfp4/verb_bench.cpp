// SPDX-License-Identifier: Apache-2.0
// nvfp4 bench: matrix products beside SGEMM and the machine's peaks, as a table or JSON, and compared with an
// older run. A slow machine is a result, never an error.
#include "nvfp4/golden/io/file.hpp"
#include "nvfp4/golden/io/json.hpp"
#include "nvfp4/golden/io/message.hpp"
#include "nvfp4/golden/manifest.hpp"
#include "tools/bench/gemm_suite.hpp"
#include "tools/bench/quantize_suite.hpp"
#include "tools/bench/train_suite.hpp"
#include "tools/bench/yardstick.hpp"
#include "tools/environment.hpp"
#include "tools/nvfp4/terminal.hpp"
#include "tools/nvfp4/verbs.hpp"

#include <algorithm>
#include <fmt/core.h>
#include <memory>
#include <nlohmann/json.hpp>
#include <omp.h>

namespace nvfp4::tool {
namespace {

using nlohmann::json;

struct Options {
  std::vector<std::string> works = {"nvfp4", "bf16", "quantize"};
  std::string compare, out;
  int64_t largest = 2048;
  std::vector<int> threads;
  int repeats = 7;
  bool json_output = false;
  bool train = false;
  bench::TrainShape shape = {};
  std::vector<std::string> recipes = {"fp32", "bf16", "nvfp4", "chon"};
};

/// The machine's yardsticks for one number of threads.
json yardsticks(int threads) {
  return {{"threads", threads},
          {"fma_peak", bench::fma_peak(threads)},
          {"vnni_peak", bench::vnni_peak(threads)},
          {"memcpy_gb_per_s", bench::memcpy_rate(threads)}};
}

json read_old(const std::string &path) {
  const std::string where = io::printable(path) + ": ",
                    advice = "; give the file that nvfp4 bench -o FILE wrote";
  const std::vector<std::byte> bytes = io::read_file(path);
  json old = io::parse_json({reinterpret_cast<const char *>(bytes.data()), bytes.size()}, where, advice);
  if (!old.is_object() || !old.contains("results") || !old["results"].is_array())
    throw Error(where + "expected the JSON of nvfp4 bench" + advice);
  return old;
}

/// The same work, shape and threads in an older run; null when it was not measured.
json find_result(const json &run, const json &key, const char *list = "results") {
  if (!run.contains(list) || !run[list].is_array()) return nullptr;
  for (const json &r : run[list])
    if (r.is_object() && r.value("work", json()) == key["work"] && r.value("shape", json()) == key["shape"] &&
        r.value("threads", json()) == key["threads"] && r.contains("ratio") && r["ratio"].is_number())
      return r;
  return nullptr;
}

/// Quantization, stochastic rounding and Hadamard beside memcpy.
json time_quantization(int threads, int repeats) {
  json rows = json::array();
  for (const bench::QuantizeWork &work : bench::quantize_works()) {
    bench::QuantizeBench one(work, bench::kMemoryShape, threads);
    std::vector<double> own, copy, ratio;
    for (int i = 0; i < repeats; ++i) {
      const bench::QuantizeSample s = one.sample();
      own.push_back(s.quantize);
      copy.push_back(s.copy);
      ratio.push_back(s.copy / s.quantize);
    }
    rows.push_back({{"work", work.name},
                    {"shape", bench::kMemoryShape.name},
                    {"threads", threads},
                    {"gb_per_s", one.bytes() * 1e-9 / bench::median(own)},
                    {"memcpy_gb_per_s", one.bytes() * 1e-9 / bench::median(copy)},
                    {"ratio", bench::median(ratio)}});
  }
  return rows;
}

void print_quantization(const json &rows, const json &old) {
  fmt::print("\n{:<36} {:>7} {:>10} {:>10} {:>7}{}\n", "quantization (bytes read)", "threads", "GB/s",
             "memcpy", "ratio", old.is_null() ? "" : "   old ratio");
  for (const json &r : rows) {
    fmt::print("{:<36} {:>7} {:>10.2f} {:>10.2f} {:>7.2f}", r["work"].get<std::string>(),
               r["threads"].get<int>(), r["gb_per_s"].get<double>(), r["memcpy_gb_per_s"].get<double>(),
               r["ratio"].get<double>());
    if (!old.is_null()) {
      const json before = find_result(old, r, "quantization");
      if (before.is_null())
        fmt::print("{:>12}", "-");
      else
        fmt::print("{:>12.2f}", before["ratio"].get<double>());
    }
    fmt::print("\n");
  }
}

void print(const json &run, const json &old) {
  const bool compare = !old.is_null();
  fmt::print("kernels {}, SGEMM by OpenBLAS {}\n", run["isa"].get<std::string>(),
             run["openblas"].get<std::string>());
  for (const json &y : run["yardsticks"])
    fmt::print("{} thread(s): FMA peak {:.1f} Gop/s, VNNI peak {:.1f} Gop/s, memcpy {:.1f} GB/s read\n",
               y["threads"].get<int>(), y["fma_peak"].get<double>(), y["vnni_peak"].get<double>(),
               y["memcpy_gb_per_s"].get<double>());
  fmt::print("\n{:<7} {:<24} {:>7} {:>10} {:>10} {:>7} {:>13} {:>9}{}\n", "work", "shape", "threads", "Gop/s",
             "SGEMM", "ratio", "range", "FMA peak", compare ? "   old ratio  change" : "");
  for (const json &r : run["results"]) {
    fmt::print("{:<7} {:<24} {:>7} {:>10.1f} {:>10.1f} {:>7.2f} {:>6.2f}-{:<6.2f} {:>8.2f}x",
               r["work"].get<std::string>(), r["shape"].get<std::string>(), r["threads"].get<int>(),
               r["gops"].get<double>(), r["sgemm_gops"].get<double>(), r["ratio"].get<double>(),
               r["ratio_low"].get<double>(), r["ratio_high"].get<double>(), r["of_fma_peak"].get<double>());
    if (compare) {
      const json before = find_result(old, r);
      if (before.is_null() || before["ratio"].get<double>() <= 0)
        fmt::print("{:>12}{:>8}", "-", "-");
      else
        fmt::print("{:>12.2f} {:>+6.0f}%", before["ratio"].get<double>(),
                   100 * (r["ratio"].get<double>() / before["ratio"].get<double>() - 1));
    }
    fmt::print("\n");
  }
}

/// Where recorded operands are, or nothing: a program without its golden set measures what it can make.
std::string golden_folder() {
  try {
    return golden::find_golden_folder(asked_golden_folder());
  } catch (const Error &) {
    return {};
  }
}

/// Training steps by recipe: tokens a second, and where a step's time goes.
int run_training(const Options &o) {
  json result = {{"version", 1},
                 {"isa", to_string(choose_isa(asked_isa()))},
                 {"openblas", bench::Blas::instance().core()},
                 {"model", o.shape.model},
                 {"size", o.shape.size},
                 {"batch", o.shape.batch},
                 {"sequence", o.shape.sequence},
                 {"training", json::array()}};
  const std::vector<int> threads = o.threads.empty() ? std::vector<int>{omp_get_max_threads()} : o.threads;
  if (!o.json_output)
    fmt::print(
        "{} {}, {} x {} tokens a step, kernels {}; SGEMM: OpenBLAS {} doing the step's products alone\n",
        o.shape.model, o.shape.size, o.shape.batch, o.shape.sequence, result["isa"].get<std::string>(),
        result["openblas"].get<std::string>());
  Progress progress("bench");
  for (size_t i = 0; i < threads.size(); ++i) {
    const int t = threads[i];
    const auto share = [&](double f) { progress.show((double(i) + f) / double(threads.size())); };
    const std::vector<bench::TrainTiming> timings =
        bench::time_training(o.shape, o.recipes, t, std::max(o.repeats, 20), share);
    progress.clear();
    if (!o.json_output)
      fmt::print("\n{:<14} {:>7} {:>10} {:>17} {:>14}\n", "recipe", "threads", "tokens/s", "quartiles",
                 "SGEMM / step");
    for (const bench::TrainTiming &timing : timings) {
      json profile = json::object();
      for (const auto &[name, ms] : timing.profile) profile[name] = ms;
      result["training"].push_back({{"recipe", timing.recipe},
                                    {"threads", t},
                                    {"tokens_per_s", timing.tokens_per_second},
                                    {"low", timing.low},
                                    {"high", timing.high},
                                    {"sgemm_ratio", timing.sgemm_ratio},
                                    {"profile_ms", profile}});
      if (!o.json_output)
        fmt::print("{:<14} {:>7} {:>10.0f} {:>8.0f}-{:<8.0f} {:>14.2f}\n", timing.recipe, t,
                   timing.tokens_per_second, timing.low, timing.high, timing.sgemm_ratio);
    }
    if (o.json_output) continue;
    for (const bench::TrainTiming &timing : timings) {
      fmt::print("\n{}: milliseconds a step\n", timing.recipe);
      for (const auto &[name, ms] : timing.profile)
        if (ms >= 0.05) fmt::print("  {:<36} {:>8.2f}\n", name, ms);
    }
  }
  if (!o.out.empty()) {
    const std::string text = result.dump(2) + "\n";
    io::write_file_atomically(o.out, std::as_bytes(std::span(text)));
  }
  if (o.json_output) fmt::print("{}\n", result.dump(2));
  return kEqual;
}

int run(const Options &o) {
  if (o.train) return run_training(o);
  const json old = o.compare.empty() ? json(nullptr) : read_old(o.compare);
  std::vector<int> threads = o.threads;
  if (threads.empty()) {
    threads = {1};
    if (omp_get_max_threads() > 1) threads.push_back(omp_get_max_threads());
  }
  const bench::Blas &blas = bench::Blas::instance();
  json result = {{"version", 1},
                 {"isa", to_string(choose_isa(asked_isa()))},
                 {"openblas", blas.core()},
                 {"repeats", o.repeats}};
  result["yardsticks"] = json::array();
  for (const int t : threads) result["yardsticks"].push_back(yardsticks(t));
  result["results"] = json::array();
  const std::vector<bench::Shape> shapes = bench::shapes(o.largest);
  const int64_t side = std::min<int64_t>(o.largest, 1024); // of the products of hard data
  const std::string golden = golden_folder();
  struct Planned {
    const bench::Work &work;
    const Unit &unit;
    std::vector<bench::DataClass> hard;
  };
  std::vector<Planned> plan;
  double done = 0, total = 0;
  for (const std::string &name : o.works) {
    if (name == "quantize") continue;
    const bench::Work &work = bench::find_work(name);
    const Unit &unit = find_unit(work.unit);
    plan.push_back({work, unit, bench::data_classes(unit, side, golden)});
    total += double(threads.size() * (shapes.size() + plan.back().hard.size()));
  }
  Progress progress("bench");
  for (const Planned &planned : plan) {
    const bench::Work &work = planned.work;
    const Unit &unit = planned.unit;
    const auto measure = [&](const GemmOperand &a, const GemmOperand &b, const bench::Shape &s) {
      for (size_t i = 0; i < threads.size(); ++i) {
        const bench::Timing t = bench::time_gemm(unit, a, b, s, threads[i], o.repeats);
        const double peak = result["yardsticks"][i]["fma_peak"];
        result["results"].push_back({{"work", work.name},
                                     {"unit", work.unit},
                                     {"shape", s.name},
                                     {"m", s.m},
                                     {"n", s.n},
                                     {"k", s.k},
                                     {"threads", threads[i]},
                                     {"gops", t.rate},
                                     {"sgemm_gops", t.sgemm},
                                     {"ratio", t.ratio},
                                     {"ratio_low", t.ratio_low},
                                     {"ratio_high", t.ratio_high},
                                     {"of_fma_peak", peak > 0 ? t.rate / peak : 0.0}});
        progress.show(++done / total);
      }
    };
    for (const bench::Shape &s : shapes) {
      const bench::Operands operands = bench::make_operands(unit, s);
      measure(operands.a, operands.b, s);
    }
    for (const bench::DataClass &data : planned.hard)
      measure(data.make(Side::a), data.make(Side::b),
              {(std::to_string(side) + " " + data.name).c_str(), side, side, side});
  }
  result["quantization"] = json::array();
  if (std::find(o.works.begin(), o.works.end(), "quantize") != o.works.end())
    for (const int t : threads)
      for (const json &row : time_quantization(t, o.repeats)) result["quantization"].push_back(row);
  if (!o.out.empty()) {
    const std::string text = result.dump(2) + "\n";
    io::write_file_atomically(o.out, std::as_bytes(std::span(text)));
  }
  if (o.json_output)
    fmt::print("{}\n", result.dump(2));
  else
    print(result, old);
  if (!o.json_output && !result["quantization"].empty()) print_quantization(result["quantization"], old);
  return kEqual;
}

} // namespace

void register_bench(Command &app, int &exit_code) {
  Command *verb = app.add_subcommand("bench", "Speed of matrix products beside SGEMM, of quantization "
                                               "beside memcpy, of training, and the machine's peaks");
  auto o = std::make_shared<Options>();
  verb->add_option("--work", o->works,
                   "nvfp4, mxfp4, bf16, fp16, fp8, mxfp8, quantize (default nvfp4, bf16, quantize)")
      ->delimiter(',');
  verb->add_option("--largest", o->largest, "Largest square, 256 to 4096 (default 2048)")
      ->check(Range{256, 4096});
  verb->add_option("--threads", o->threads, "Numbers of threads (default 1 and all); 0: all")
      ->delimiter(',')
      ->check(Range{0, 1024});
  verb->add_option("--repeats", o->repeats, "Interleaved repeats, medians are shown (default 7)")
      ->check(Range{1, 1000});
  verb->add_option("-o,--output", o->out, "Also write JSON to this file");
  verb->add_option("--compare", o->compare, "JSON of an older run: show its ratios and the change");
  verb->add_flag("--train", o->train, "Training steps by recipe instead, with a profile by operation");
  verb->add_option("--model", o->shape.model, "With --train: family or JSON file")->capture_default_str();
  verb->add_option("--size", o->shape.size, "With --train: preset")->capture_default_str();
  verb->add_option("--batch", o->shape.batch, "With --train: sequences a step")
      ->capture_default_str()
      ->check(Range{1, 1 << 16});
  verb->add_option("--sequence", o->shape.sequence, "With --train: tokens a sequence")
      ->capture_default_str()
      ->check(Range{2, 1 << 16});
  verb->add_option("--recipes", o->recipes, "With --train (default fp32, bf16, nvfp4, chon)")->delimiter(',');
  verb->add_flag("--json", o->json_output, "JSON on standard output instead of the table");
  verb->footer("Rates count a multiply-add as two operations. Ratios are to OpenBLAS SGEMM of the same shape "
               "in the same run.\n"
               "NVFP4_ISA=avx2 selects AVX2 kernels and OpenBLAS's Haswell kernels.\n"
               "Example: nvfp4 bench --work nvfp4 --largest 1024 -o today.json --compare yesterday.json");
  verb->callback([o, &exit_code] {
    for (int &threads : o->threads)
      if (threads == 0) threads = omp_get_max_threads();
    exit_code = run(*o);
  });
}

} // namespace nvfp4::tool
