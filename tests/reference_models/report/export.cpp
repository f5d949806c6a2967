// SPDX-License-Identifier: Apache-2.0
// Runs as CSV and as TensorBoard's event files: every number comes back, and every checksum holds.
#include "nvfp4/reference_models/report/export.hpp"
#include "tests/catch.hpp"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

using namespace nvfp4;
using namespace nvfp4::models;

namespace {

RunData made() {
  RunData run;
  run.folder = "runs/a, \"b\"";
  run.log = {{1, 256, 5.5, 1e-3, 1.25, 128, {}},
             {2, 512, std::nan(""), 0.1, std::numeric_limits<double>::infinity(), 256, 5.25}};
  TensorRecord t;
  t.step = 2;
  t.layer = -1;
  t.op = "lm_head";
  t.kind = TensorKind::weight;
  t.kurtosis = 1.0 / 3;
  t.block_max = t.block_p99 = std::nan("");
  t.scale_underflows = 0.25;
  t.saturated = std::nan("");
  run.tensors = {t};
  run.residual = {{2, 1, 120, 0.5, 3, 1.5}};
  run.gates = {{2, 3, -8, 4, 8}};
  return run;
}

template <class T> T word(std::string_view bytes, size_t at) {
  T x;
  REQUIRE(at + sizeof x <= bytes.size());
  std::memcpy(&x, bytes.data() + at, sizeof x);
  return x;
}

uint32_t unmasked(uint32_t masked) {
  const uint32_t rotated = masked - 0xA282EAD8u;
  return rotated >> 17 | rotated << 15;
}

/// The data of the records, each with both checksums right.
std::vector<std::string> records(std::string_view file) {
  std::vector<std::string> out;
  for (size_t at = 0; at < file.size();) {
    const auto length = word<uint64_t>(file, at);
    REQUIRE(unmasked(word<uint32_t>(file, at + 8)) == crc32c(file.substr(at, 8)));
    REQUIRE(at + 12 + length + 4 <= file.size());
    out.emplace_back(file.substr(at + 12, length));
    REQUIRE(unmasked(word<uint32_t>(file, at + 12 + length)) == crc32c(out.back()));
    at += 12 + length + 4;
  }
  return out;
}

} // namespace

TEST_CASE("CRC-32C has the values of RFC 3720", "[export]") {
  CHECK(crc32c(std::string(32, '\0')) == 0x8A9136AA);
  CHECK(crc32c(std::string(32, '\xFF')) == 0x62A8AB43);
  CHECK(crc32c("123456789") == 0xE3069283);
  CHECK(crc32c("") == 0);
}

TEST_CASE("CSV of logs and diagnostics", "[export]") {
  CHECK(log_csv({made()}) == "run,step,tokens,loss,learning_rate,gradient_norm,tokens_per_s,validation_loss,"
                             "gradient_norm_deviations\n"
                             "\"runs/a, \"\"b\"\"\",1,256,5.5,0.001,1.25,128,,nan\n"
                             "\"runs/a, \"\"b\"\"\",2,512,nan,0.1,nan,256,5.25,nan\n");
  CHECK(diagnostics_csv({made()}) == "run,step,layer,operator,quantity,value\n"
                                     "\"runs/a, \"\"b\"\"\",2,-1,lm_head,weight_kurtosis,0.3333333333333333\n"
                                     "\"runs/a, \"\"b\"\"\",2,-1,lm_head,weight_block_kurtosis_max,nan\n"
                                     "\"runs/a, \"\"b\"\"\",2,-1,lm_head,weight_block_kurtosis_p99,nan\n"
                                     "\"runs/a, \"\"b\"\"\",2,-1,lm_head,weight_top1,0\n"
                                     "\"runs/a, \"\"b\"\"\",2,-1,lm_head,weight_ftz,0\n"
                                     "\"runs/a, \"\"b\"\"\",2,-1,lm_head,weight_snr_db,0\n"
                                     "\"runs/a, \"\"b\"\"\",2,-1,lm_head,weight_scale_underflows,0.25\n"
                                     "\"runs/a, \"\"b\"\"\",2,-1,lm_head,weight_largest_scales,0\n"
                                     "\"runs/a, \"\"b\"\"\",2,-1,lm_head,weight_saturated,nan\n"
                                     "\"runs/a, \"\"b\"\"\",2,1,residual,residual_largest,120\n"
                                     "\"runs/a, \"\"b\"\"\",2,1,residual,residual_median,0.5\n"
                                     "\"runs/a, \"\"b\"\"\",2,1,residual,residual_massive,3\n"
                                     "\"runs/a, \"\"b\"\"\",2,1,residual,residual_growth,1.5\n"
                                     "\"runs/a, \"\"b\"\"\",2,3,gate,gate_min,-8\n"
                                     "\"runs/a, \"\"b\"\"\",2,3,gate,gate_max,4\n"
                                     "\"runs/a, \"\"b\"\"\",2,3,gate,gate_top1,8\n");
  CHECK(log_csv({}) == "run,step,tokens,loss,learning_rate,gradient_norm,tokens_per_s,validation_loss,"
                       "gradient_norm_deviations\n");
}

TEST_CASE("event files: a version, then a record a step and a measure", "[export]") {
  const std::vector<std::string> all = records(event_file(made()));
  REQUIRE(all.size() == 1 + 2 + 9 + 4 + 3);
  CHECK(all[0] == std::string("\x09\0\0\0\0\0\0\0\0\x10\0\x1A\x0D"
                              "brain.Event:2",
                              26));
  // step 1 at 2 s: 256 tokens at 128 a second
  CHECK(all[1][0] == '\x09');
  CHECK(word<double>(all[1], 1) == 2.0);
  CHECK(all[1].substr(9, 3) == "\x10\x01\x2A");
  CHECK(word<double>(all[2], 1) == 3.0);
  const std::string tag = "train/loss", value = "\x0A\x0A" + tag + "\x15";
  const size_t at = all[1].find(value);
  REQUIRE(at != std::string::npos);
  CHECK(word<float>(all[1], at + value.size()) == 5.5f);
  CHECK(all[1].find("validation/loss") == std::string::npos);
  CHECK(all[2].find("validation/loss") != std::string::npos);
  CHECK(all[3].find("diagnostics/weight_kurtosis/-1.lm_head") != std::string::npos);
  CHECK(word<double>(all[3], 1) == 3.0); // of its step
}
