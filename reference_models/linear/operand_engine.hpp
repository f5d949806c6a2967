// SPDX-License-Identifier: Apache-2.0
// What linear layers ask of a device: quantize operands, multiply them on a tensor core's arithmetic, and the
// steps of the Hot-Channel Patch. Pointers are the device's; results do not depend on the device. Work comes
// in batches of independent tasks.
#pragma once
#include "nvfp4/emulator/gemm/epilogue.hpp"
#include "nvfp4/emulator/quantize/quantize.hpp"
#include "nvfp4/emulator/tensorcore/catalogue.hpp"
#include "nvfp4/reference_models/linear/rotation.hpp"
#include "nvfp4/reference_models/recipe/recipe.hpp"

#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace nvfp4::models {

/// One side of a product, (rows, contraction), in the form that the engine's products read. Reused: filling
/// it again costs no memory where it is large enough.
class Operand {
public:
  virtual ~Operand() = default;
};

/// What of x an operand holds. Of MeanSplit::quantized x is two operands: x less its mean over rows in each column, and that mean
/// in each row.
enum class OperandPart : uint8_t { whole, residual, mean };

/// Fills `out` from x (rows, cols): as (rows, cols) for Axis::row, as (cols, rows) for Axis::col.
struct QuantizeTask {
  Operand *out;
  const OperandRecipe *recipe;
  FormatId source;  ///< bf16: x is rounded to it first
  const Unit *unit; ///< that will read it
  const float *x;
  int64_t rows, cols;
  Axis axis;
  RandomKey key; ///< of stochastic rounding; rows are padded with zeros to 16 for a rotation along them
  bool of_data = false;                  ///< x or dy, not a weight
  std::optional<float> global_amax = {}; ///< instead of x's own, where the convention has a global scale
  SignWords signs = kFixedSigns;         ///< of a rotation
  OperandPart part = OperandPart::whole;

  /// How it is quantized, of a format that has a convention.
  [[nodiscard]] QuantizeOptions options() const {
    return {.axis = axis,
            .block_rows = recipe->block_rows,
            .rounding = recipe->rounding,
            .key = key,
            .hadamard = recipe->hadamard,
            .sign_mask = uint16_t(signs[0]),
            .source = source,
            .global_amax = global_amax};
  }
};

/// What of an operand's hot channels a segment holds: the quantized values, or x minus them.
enum class Segment : uint8_t { value, residual };

/// Fills `out` with hot channels of `main`, an operand that was quantized along rows: main's own columns
/// first where `append` says so, then the segments in order, each from a block boundary on, quantized 1x16 to
/// nearest with main's global scale. bf16: instead BF16 values, without main.
struct PatchTask {
  Operand *out;
  const Operand *main;
  FormatId source;  ///< as when main was quantized
  const Unit *unit; ///< that will read `out`
  const float *x;   ///< what main was quantized from
  Axis axis;        ///< and how: hot channels are columns of x for row, rows of x for col
  const int32_t *channels;
  int64_t count;
  std::vector<Segment> segments;
  bool append, bf16;
  bool
      whole_blocks; ///< channels are whole blocks of 16, whose codes and scales are copied for Segment::value
};

/// out (rows of a, rows of b) from a b^T: see epilogue.hpp.
struct GemmTask {
  const Operand *a, *b;
  const Unit *unit;
  Accumulation accumulation;
  float *out;
  const float *bias; ///< (rows of b) or null
  Epilogue epilogue;
};

class OperandEngine {
public:
  virtual ~OperandEngine() = default;
  [[nodiscard]] virtual std::unique_ptr<Operand> make_operand() = 0;

  /// Error for a recipe with operands that this engine does not make: asked of all of a run before its first step.
  virtual void check_supported(const LinearRecipe &) const {}

  virtual void quantize(std::span<const QuantizeTask> tasks) = 0;
  virtual void patch(std::span<const PatchTask> tasks) = 0;
  virtual void multiply(std::span<const GemmTask> tasks) = 0;

  /// The global amax of a quantized operand, which ranks may reduce. An engine without it throws Error.
  [[nodiscard]] virtual float global_amax(const Operand &) const {
    throw Error("recipes with amax all-ranks need an engine that tells an operand's amax; use amax rank");
  }

  /// mean over an operand's rows of |x - quantized x|, for each column of its contraction (kernels/hcp.hpp's
  /// order).
  virtual void column_errors(const Operand &q, FormatId source, const float *x, int64_t rows, int64_t cols,
                             Axis axis, float *means) = 0;
  /// max over an operand's rows of |x|, likewise.
  virtual void column_maxima(FormatId source, const float *x, int64_t rows, int64_t cols, Axis axis,
                             float *maxima) = 0;

  /// Operands for use within one call of a layer, shared by all layers.
  [[nodiscard]] Operand &temporary(size_t index) {
    while (temporaries_.size() <= index) temporaries_.push_back(make_operand());
    return *temporaries_[index];
  }

private:
  std::vector<std::unique_ptr<Operand>> temporaries_;
};

/// On the CPU: the emulator. threads 0: all, isa: instead of the best that the CPU has. Neither changes a
/// bit.
[[nodiscard]] std::unique_ptr<OperandEngine> make_cpu_operand_engine(int threads = 0,
                                                                     std::optional<Isa> isa = {});

} // namespace nvfp4::models
