// SPDX-License-Identifier: Apache-2.0
// Copies of data that one layer quantized and the next would quantize again: layers that callers run one by
// one, as q, k and v, have the same input. A LayerDevice has them.
#pragma once
#include "nvfp4/reference_models/linear/operand_engine.hpp"

#include <array>
#include <memory>

namespace nvfp4::models {

/// The last copies that were made for an engine. The caller numbers what data holds: equal numbers say equal
/// words.
class DataCopies {
public:
  explicit DataCopies(OperandEngine &engine) : engine_(&engine) {}

  /// Where the copy stands that the task, without its `out`, makes of data `contents` (not 0). fill: it is
  /// not there, and the task has to run before another call of find.
  [[nodiscard]] Operand &find(uint64_t contents, const QuantizeTask &task, bool &fill);
  /// Forgets all, as after a task that failed.
  void clear();

private:
  struct Copy {
    uint64_t contents = 0; ///< 0: nothing
    OperandRecipe recipe = {};
    FormatId source = FormatId::f32;
    const Unit *unit = nullptr;
    int64_t rows = 0, cols = 0;
    Axis axis = Axis::row;
    RandomKey key = {}; ///< 0 where no random word decides
    SignWords signs = kFixedSigns;
    std::unique_ptr<Operand> operand = {};

    [[nodiscard]] bool is(const Copy &o) const {
      return contents == o.contents && recipe == o.recipe && source == o.source && unit == o.unit &&
             rows == o.rows && cols == o.cols && axis == o.axis && key.seed == o.key.seed &&
             key.offset == o.key.offset && signs == o.signs;
    }
  };

  OperandEngine *engine_;
  std::array<Copy, 2> copies_ = {}; ///< the one asked for last stands first; two recipes may share data
};

} // namespace nvfp4::models
