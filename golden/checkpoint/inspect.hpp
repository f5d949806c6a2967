// SPDX-License-Identifier: Apache-2.0
// What a checkpoint's weights look like from their bytes alone, and what is wrong with them.
#pragma once
#include "nvfp4/golden/checkpoint/weight.hpp"

#include <functional>

namespace nvfp4::checkpoint {

/// Of the values of a weight. Moments are over the finite values, summed in their order.
struct ValueStatistics {
  int64_t elements = 0, nan = 0, infinity = 0, zero = 0;
  double mean = 0, rms = 0;
  double kurtosis =
      0; ///< fourth central moment over the squared second: 3 for a normal distribution; NaN without spread
  double amax = 0;
  struct Channel {
    int64_t column = 0;
    double amax = 0;
  };
  std::vector<Channel>
      largest; ///< the three input channels (columns) with the largest magnitude, the largest first
};

/// Of the blocks of a block-scaled weight.
struct BlockStatistics {
  int64_t blocks = 0;
  int64_t zero_blocks = 0;     ///< all codes are 0
  int64_t scale_underflow = 0; ///< scale of value 0 although codes are not 0
  int64_t scale_saturated = 0; ///< the format's largest number
  int64_t scale_nan = 0;
  int64_t scale_negative = 0; ///< sign bit set: software negates the block, tensor cores ignore the bit
  int64_t zero_codes = 0;     ///< in blocks that are not zero_blocks: flushed elements, and what was 0
  int64_t largest_codes = 0;  ///< of the largest magnitude
  int64_t scale_padding = 0;  ///< bytes of the 128x4 layout's padding that are not 0
  std::map<int, int64_t> scale_exponents; ///< blocks by floor(log2(scale)); zero and NaN scales are left out
};

/// Something about a weight that a consumer will trip over, or a remark.
struct Finding {
  std::string tensor;
  std::string kind; ///< stable, for machines
  std::string text;
  bool wrong = true;
};

struct WeightReport {
  const Weight *weight = nullptr;
  std::optional<ValueStatistics> values; ///< nothing where the weight cannot be decoded
  std::optional<BlockStatistics> blocks;
};

/// Called with the part that is done.
using Progress = std::function<void(double)>;

/// Statistics of one weight and what its own bytes show to be wrong, appended to `findings`.
[[nodiscard]] WeightReport inspect_weight(const Weight &w, std::vector<Finding> &findings, int threads = 0);

/// What only several tensors together show: orphans, missing input scales, fused modules whose global scales
/// differ, tensors that an index leaves out.
[[nodiscard]] std::vector<Finding> inspect_together(const Checkpoint &checkpoint, const Weights &weights);

/// One line of what a checkpoint is: "2 shards of safetensors, modelopt NVFP4 (hf_quant_config.json)".
[[nodiscard]] std::string describe(const Checkpoint &checkpoint);

} // namespace nvfp4::checkpoint
