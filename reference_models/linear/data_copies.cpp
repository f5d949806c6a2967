// SPDX-License-Identifier: Apache-2.0
// A search among two.
#include "nvfp4/reference_models/linear/data_copies.hpp"

#include <algorithm>

namespace nvfp4::models {

Operand &DataCopies::find(uint64_t contents, const QuantizeTask &task, bool &fill) {
  const bool random = task.recipe->rounding != ElementRounding::nearest ||
                      task.recipe->scale_correction != ScaleCorrection::none;
  Copy wanted{.contents = contents,
              .recipe = *task.recipe,
              .source = task.source,
              .unit = task.unit,
              .rows = task.rows,
              .cols = task.cols,
              .axis = task.axis,
              .key = random ? task.key : RandomKey{},
              .signs = task.signs};
  auto at = std::find_if(copies_.begin(), copies_.end(), [&](const Copy &c) { return c.is(wanted); });
  fill = at == copies_.end();
  if (fill) {
    at = copies_.end() - 1;
    wanted.operand = at->operand ? std::move(at->operand) : engine_->make_operand();
    *at = std::move(wanted);
  }
  std::rotate(copies_.begin(), at, at + 1);
  return *copies_.front().operand;
}

void DataCopies::clear() {
  for (Copy &c : copies_) c.contents = 0;
}

} // namespace nvfp4::models
