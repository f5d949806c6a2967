// SPDX-License-Identifier: Apache-2.0
// nvfp4-gpu probe: questions to cuBLASLt.
#include "nvfp4/gpu/probes/cublaslt.hpp"
#include "nvfp4/gpu/program/program.hpp"

#include <memory>

namespace nvfp4::crosscheck {

void register_probes(CLI::App &app, int &exit_code) {
  CLI::App *const verb = app.add_subcommand("probe", "Questions to cuBLASLt");
  verb->require_subcommand(1);
  const auto code = [](int64_t differ) { return differ == 0 ? int(kEqual) : int(kMismatch); };
  auto dump = std::make_shared<std::string>();
  CLI::App *const order =
      verb->add_subcommand("cublaslt-order", "In which order does it accumulate on Hopper?");
  order->add_option("--dump", *dump, "File for the first outputs that the model does not explain");
  order->callback([dump, code, &exit_code] { exit_code = code(probe::accumulation_order(*dump)); });
  verb->add_subcommand("cublaslt-epilogue", "Which arithmetic has its epilogue?")
      ->callback([code, &exit_code] { exit_code = code(probe::epilogue_arithmetic()); });
  verb->add_subcommand("cublaslt-speed", "The exact Hopper GEMMs beside its own")->callback([] {
    probe::hopper_speed();
  });
  auto directed = std::make_shared<bool>(false);
  CLI::App *const words =
      verb->add_subcommand("cublaslt-nvfp4", "Its NVFP4 GEMM against this GPU's unit (Blackwell)");
  words->add_flag("--directed", *directed, "Which accumulation model do the directed vectors choose?");
  words->callback([directed, code, &exit_code] { exit_code = code(probe::nvfp4_words(*directed)); });
}

} // namespace nvfp4::crosscheck
