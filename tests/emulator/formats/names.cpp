// SPDX-License-Identifier: Apache-2.0
// Names of enumerators: printed, read back, listed.
#include "nvfp4/emulator/tensorcore/unit.hpp"
#include "tests/catch.hpp"

using namespace nvfp4;

namespace {

template <class E> void check_round_trip(size_t count) {
  CHECK(enumerators<E>().size() == count);
  for (const E e : enumerators<E>()) {
    CHECK_FALSE(to_string(e).empty());
    CHECK(parse_enum<E>(to_string(e)) == e);
  }
  CHECK(to_string(E(count)).empty());
}

} // namespace

TEST_CASE("names of enumerators come back as the enumerators", "[formats][names]") {
  check_round_trip<Family>(6);
  check_round_trip<Output>(5);
  check_round_trip<Accumulation>(4);
  check_round_trip<Evidence>(4);
  CHECK(to_string(Family::gst_fdpa) == "gst-fdpa");
  CHECK(to_string(Accumulation::tcgen05_model) == "tcgen05-model");
  CHECK(find_enum<Evidence>("Hardware") == std::nullopt);
  CHECK(name_list<Evidence>() == "hardware, published, inferred or defined");
}

TEST_CASE("an unknown name is answered by those that exist", "[formats][names]") {
  std::string message;
  try {
    (void)parse_enum<Accumulation>("nadp");
  } catch (const Error &e) {
    message = e.what();
  }
  CHECK(message == "unknown accumulation model 'nadp'; choose mmasim, nadpe, exact or tcgen05-model");
}
