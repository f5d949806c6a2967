// SPDX-License-Identifier: Apache-2.0
// Batches of tasks on the default stream, products of a batch on several that start after it and that it
// waits for. Buffers grow to the largest use and are kept.
#include "nvfp4/gpu/emulated/gemm_fp4_small.hpp"
#include "nvfp4/gpu/hopper/gemm_bf16.hpp"
#include "nvfp4/gpu/models/operand.hpp"
#include "nvfp4/gpu/models/operand_engine.hpp"
#include "nvfp4/gpu/models/team.cuh"
#include "nvfp4/reference_models/kernels/hcp.hpp"
#include "nvfp4/reference_models/linear/product_recipe.hpp"

#include <algorithm>
#include <array>

namespace nvfp4::cuda {
namespace {

using models::GemmTask;
using models::Operand;
using models::PatchTask;
using models::QuantizeTask;

/// An event without a time, destroyed with its owner.
class Event {
public:
  Event() { check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "cudaEventCreate"); }
  ~Event() { cudaEventDestroy(event_); }
  Event(const Event &) = delete;
  Event &operator=(const Event &) = delete;
  [[nodiscard]] cudaEvent_t get() const { return event_; }

private:
  cudaEvent_t event_ = nullptr;
};

const CudaOperand &operand(const Operand *o) { return static_cast<const CudaOperand &>(*o); }

class CudaOperandEngine final : public models::OperandEngine {
public:
  explicit CudaOperandEngine(const OperandEngineOptions &options)
      : options_(options), device_(device_shape()) {
    for (size_t i = 0; i < kLanes; ++i) lanes_[i].stream = streams_[i].get();
    int current = 0, major = 0, minor = 0;
    check(cudaGetDevice(&current), "cudaGetDevice");
    check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, current),
          "cudaDeviceGetAttribute");
    check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, current),
          "cudaDeviceGetAttribute");
    hopper_ = options.own_tensor_cores && major == 9 && minor == 0;
  }

  void check_supported(const models::LinearRecipe &recipe) const override {
    if (models::needs_cpu(recipe)) refuse();
  }

  std::unique_ptr<Operand> make_operand() override { return std::make_unique<CudaOperand>(); }

  void quantize(std::span<const QuantizeTask> tasks) override {
    requests_.clear();
    for (const QuantizeTask &t : tasks) {
      CudaOperand &out = static_cast<CudaOperand &>(*t.out);
      if (t.recipe->format != models::OperandFormat::bf16) {
        requests_.push_back(request(t, out));
        continue;
      }
      pack_bf16(t.unit->rule, t.x, t.rows, t.cols, t.axis, out, nullptr);
      mark("pack BF16");
    }
    quantize_all(requests_, maxima_, left_, nullptr);
    if (!requests_.empty()) mark("quantize");
  }

  void patch(std::span<const PatchTask> tasks) override {
    for (const PatchTask &t : tasks) cuda::patch(t, patches_, nullptr);
    if (!tasks.empty()) mark("patch");
  }

  void multiply(std::span<const GemmTask> tasks) override {
    prepare(tasks);
    // products of a batch do not depend on each other: small ones share a launch, others run side by side
    small_products_.clear();
    large_products_.clear();
    for (const GemmTask &t : tasks) {
      if (is_small(t))
        small_products_.push_back(small_product(t));
      else
        large_products_.push_back(&t);
    }
    const char *name = "FP4 product";
    for (size_t i = 0; i < large_products_.size(); ++i)
      name = multiply_one(*large_products_[i], i + 1 < large_products_.size() ? fork() : main_);
    gemm_fp4_small(small_products_, nullptr);
    join();
    if (!tasks.empty()) mark(name);
  }

  /// Waits for the default stream.
  [[nodiscard]] float global_amax(const Operand &q) const override {
    return operand(&q).q.globals.download<GlobalScale>(1)[0].amax;
  }

  void column_errors(const Operand &q, FormatId source, const float *x, int64_t rows, int64_t cols, Axis axis,
                     float *means) override {
    const CudaOperand &o = static_cast<const CudaOperand &>(q);
    const int64_t lines = o.rows(), width = axis == Axis::row ? cols : rows;
    values_.reserve(lines * width * 4);
    read_values(o, width, values_.as<float>(), nullptr);
    launch_teams(device_,
                 models::ColumnErrors<float>{
                     lines, width, view(source, x, rows, cols, axis), {values_.as<float>(), width, 1}, means},
                 "ColumnErrors");
    mark("column errors");
  }

  void column_maxima(FormatId source, const float *x, int64_t rows, int64_t cols, Axis axis,
                     float *maxima) override {
    const bool along = axis == Axis::row;
    launch_teams(device_,
                 models::ColumnMaxima<float>{along ? rows : cols, along ? cols : rows,
                                             view(source, x, rows, cols, axis), maxima},
                 "ColumnMaxima");
    mark("column maxima");
  }

private:
  /// x in the source type: x itself, or a rounded copy.
  const float *rounded(FormatId source, const float *x, int64_t n) {
    if (source != FormatId::bf16) return x;
    rounded_.reserve(n * 4);
    round_array_to_bf16(x, n, rounded_.as<float>(), nullptr);
    mark("round");
    return rounded_.as<float>();
  }

  models::View<const float> view(FormatId source, const float *x, int64_t rows, int64_t cols, Axis axis) {
    const float *const data = rounded(source, x, rows * cols);
    return axis == Axis::row ? models::View<const float>{data, cols, 1}
                             : models::View<const float>{data, 1, cols};
  }

  [[noreturn]] static void refuse() {
    throw Error(std::string("operands with ") + models::kNeedsCpu + " run on the CPU only; use device cpu");
  }

  /// A scaled operand is empty from here on.
  static QuantizeRequest request(const QuantizeTask &task, CudaOperand &out) {
    const models::OperandRecipe &recipe = *task.recipe;
    if (models::needs_cpu(recipe)) refuse();
    int64_t rows = task.rows;
    if (recipe.hadamard && task.axis == Axis::col)
      rows = (rows + kHadamardSize - 1) / kHadamardSize * kHadamardSize;
    out.scaled = true;
    out.fp4_ready = false;
    return {.x = task.x,
            .rows = task.rows,
            .cols = task.cols,
            .stride = task.cols,
            .convention = &find_convention(recipe.convention),
            .options = task.options(),
            .intake = {.round_to_bf16 = task.source == FormatId::bf16, .zero_rows = rows - task.rows},
            .out = &out.q};
  }

  /// A stream with what products need of their own. The main one is the default stream.
  struct Lane {
    cudaStream_t stream = nullptr;
    DeviceBuffer alpha;
    GemmWorkspace workspace;
  };
  static constexpr size_t kLanes = 4;

  /// A lane that starts after what is in the default stream.
  Lane &fork() {
    if (lanes_used_ == 0) check(cudaEventRecord(forked_.get(), nullptr), "cudaEventRecord");
    Lane &lane = lanes_[lanes_used_ % kLanes];
    if (lanes_used_++ < kLanes) check(cudaStreamWaitEvent(lane.stream, forked_.get()), "cudaStreamWaitEvent");
    return lane;
  }
  /// The default stream goes on after all lanes in use.
  void join() {
    for (size_t i = 0; i < std::min(lanes_used_, kLanes); ++i) {
      check(cudaEventRecord(joined_[i].get(), lanes_[i].stream), "cudaEventRecord");
      check(cudaStreamWaitEvent(nullptr, joined_[i].get()), "cudaStreamWaitEvent");
    }
    lanes_used_ = 0;
  }

  const char *multiply_one(const GemmTask &task, Lane &lane) {
    const CudaOperand &a = operand(task.a), &b = operand(task.b);
    const int64_t m = a.rows(), n = b.rows();
    if (m * n == 0) return "other product";
    if (!a.scaled && hopper_ && task.unit->name() == "sm_90:wgmma.k16.f32.bf16") {
      gemm_bf16(a.words.as<uint16_t>(), b.words.as<uint16_t>(), m, n, a.bf16_padded_k, a.bf16_padded_k,
                b.bf16_padded_k, 1.0f, task.bias, task.epilogue, task.out, lane.stream);
      return "BF16 product (wgmma)";
    }
    GemmOutput output = output_of(task);
    if (a.scaled) {
      lane.alpha.reserve(sizeof(float));
      global_alpha(a.q, b.q, 1.0f, lane.alpha.as<float>(), lane.stream);
      output.device_alpha = lane.alpha.as<float>();
    }
    const UnitRule &rule = task.unit->rule;
    const bool fp4 = a.fp4_ready;
    if (fp4)
      gemm_fp4(rule, a.fp4, b.fp4, output, task.accumulation, lane.stream);
    else
      gemm(rule, a.view(), b.view(), output, task.accumulation, lane.workspace, lane.stream);
    return fp4 ? "FP4 product" : "other product";
  }

  static GemmOutput output_of(const GemmTask &task) {
    GemmOutput output;
    output.d = task.out;
    output.finishes = true;
    output.epilogue = task.epilogue;
    output.bias = task.bias;
    return output;
  }

  static bool is_small(const GemmTask &task) {
    const CudaOperand &a = operand(task.a), &b = operand(task.b);
    return a.fp4_ready && b.fp4_ready && multiplies_small(a.fp4, b.fp4);
  }
  static SmallProduct small_product(const GemmTask &task) {
    const CudaOperand &a = operand(task.a), &b = operand(task.b);
    return {.rule = &task.unit->rule,
            .a = &a.fp4,
            .b = &b.fp4,
            .scaled_a = &a.q,
            .scaled_b = &b.q,
            .output = output_of(task),
            .accumulation = task.accumulation};
  }

  /// What the FP4 engine reads, once per filling of an operand.
  void prepare(std::span<const GemmTask> tasks) {
    small_requests_.clear();
    large_requests_.clear();
    for (const GemmTask &t : tasks)
      for (const Operand *each : {t.a, t.b}) {
        const CudaOperand &o = operand(each);
        const DeviceOperand view = o.view();
        if (o.fp4_ready || t.unit->rule.family != Family::gst_fdpa || view.padded_k == 0 || o.rows() == 0)
          continue;
        (prepares_small(view) ? small_requests_ : large_requests_).push_back({&t.unit->rule, view, &o.fp4});
        o.fp4_ready = true;
      }
    for (size_t i = 0; i < large_requests_.size(); ++i) {
      const PrepareRequest &r = large_requests_[i];
      prepare_fp4(*r.rule, r.operand, *r.out, i + 1 < large_requests_.size() ? fork().stream : main_.stream);
    }
    prepare_small(small_requests_, main_.stream);
    join();
    if (!small_requests_.empty() || !large_requests_.empty()) mark("prepare FP4");
  }

  void mark(const char *name) const {
    if (options_.timeline != nullptr) options_.timeline->mark(name);
  }

  OperandEngineOptions options_;
  DeviceShape device_;
  bool hopper_ = false;
  DeviceBuffer rounded_, left_, maxima_, values_; ///< left_ and maxima_ serve all operands
  std::vector<QuantizeRequest> requests_;
  std::vector<PrepareRequest> small_requests_, large_requests_;
  std::vector<SmallProduct> small_products_;
  std::vector<const GemmTask *> large_products_;
  PatchWorkspace patches_;
  Lane main_;
  std::array<Stream, kLanes> streams_;
  std::array<Lane, kLanes> lanes_;
  Event forked_;
  std::array<Event, kLanes> joined_;
  size_t lanes_used_ = 0;
};

} // namespace

std::unique_ptr<models::OperandEngine> make_cuda_operand_engine(const OperandEngineOptions &options) {
  return std::make_unique<CudaOperandEngine>(options);
}

} // namespace nvfp4::cuda
