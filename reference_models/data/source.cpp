// SPDX-License-Identifier: Apache-2.0
// Decides between text and task.
#include "nvfp4/reference_models/data/source.hpp"
#include "nvfp4/emulator/config.hpp"
#include "nvfp4/golden/io/message.hpp"
#include "nvfp4/reference_models/data/tasks.hpp"
#include "nvfp4/reference_models/data/text.hpp"

namespace nvfp4::models {

std::unique_ptr<DataSource> open_data(const std::string &spec, double validation_fraction, int64_t sequence,
                                      const std::string &validation) {
  if (sequence < 1 || sequence > max_sequence)
    throw Error("expected a sequence of 1 to " + std::to_string(max_sequence) + " tokens, got " +
                std::to_string(sequence));
  if (spec.starts_with(task_prefix) && !validation.empty())
    throw Error("a task makes its own validation data: expected no files for it beside " +
                io::in_quotes(spec));
  if (spec.starts_with(task_prefix)) return open_task(spec, sequence);
  return open_text(spec, validation_fraction, sequence, validation);
}

} // namespace nvfp4::models
