// SPDX-License-Identifier: Apache-2.0
// Lists of fields: bounds at and beside their ends, values of another type or that would be cut, what is left
// out, and what messages say.
#include "nvfp4/reference_models/fields/table.hpp"
#include "tests/golden/io/support.hpp"

#include <cmath>
#include <limits>

using namespace nvfp4;
using namespace nvfp4::models;
using Json = nlohmann::ordered_json;

namespace {

enum class Color : uint8_t { red, green };
[[nodiscard]] constexpr auto names_of(Color) { return enum_names("color", "red", "green"); }

struct Things {
  int count = 3;
  uint64_t seed = 1;
  double rate = 0.5, part = 0.25;
  bool on = false;
  std::string name = "x";
  std::vector<std::string> list = {"*"};
  Color color = Color::green;
  FormatId type = FormatId::bf16;
};

constexpr auto kFields = std::tuple{
    field("count", &Things::count, "How many", from_to(1, 0x1p20)),
    field("seed", &Things::seed, "Of all"),
    field("rate", &Things::rate, "Above nothing", above(0)).as("--r,--rate"),
    field("part", &Things::part, "Of it", from_below(0, 1)).marked(2),
    field("on", &Things::on, "Whether"),
    field("name", &Things::name, "For people").marked(1),
    field("list", &Things::list, "Texts").marked(1),
    field("color_of_it", &Things::color, ": which"),
    field("type", &Things::type, ": which"),
};

std::string refusal(const char *key, const Json &value) {
  return io::error_of([&] {
    Things t;
    (void)set_field(kFields, t, key, value, "f: ", "; go");
  });
}

} // namespace

TEST_CASE("bounds have their ends or not, and never what is not finite", "[fields]") {
  const double inf = std::numeric_limits<double>::infinity();
  for (const Bounds &b : {Bounds{}, at_least(0), above(0), from_to(0, 1), from_below(0, 1), between(0, 1)})
    for (const double x : {inf, -inf, std::nan("")}) CHECK_FALSE(b.has(x));
  CHECK((at_least(0).has(0) && !at_least(0).has(-1e-300) && at_least(0).has(1e300)));
  CHECK((!above(0).has(0) && above(0).has(1e-300)));
  CHECK((from_to(0, 1).has(0) && from_to(0, 1).has(1) && !from_to(0, 1).has(std::nextafter(1.0, 2.0))));
  CHECK((from_below(0, 1).has(0) && !from_below(0, 1).has(1)));
  CHECK((!between(0, 1).has(0) && !between(0, 1).has(1) && between(0, 1).has(0.5)));
  CHECK(Bounds{}.text().empty());
  CHECK(from_to(1, 0x1p40).text() == " from 1 to 2^40");
  CHECK(from_below(0, 1).text() == " from 0 to below 1");
  CHECK(above(0.5).text() == " above 0.5");
}

TEST_CASE("a field takes its own type and nothing that would be cut", "[fields]") {
  CHECK(refusal("count", 1) == "no error");
  CHECK(refusal("count", 1 << 20) == "no error");
  CHECK(refusal("count", 0) == "f: 'count' takes a whole number from 1 to 2^20, got 0; go");
  CHECK(refusal("count", (1 << 20) + 1).find("takes a whole number") != std::string::npos);
  CHECK(refusal("count", 5000000000).find("got 5000000000") != std::string::npos);
  CHECK(refusal("count", 1.0).find("got 1.0") != std::string::npos);
  CHECK(refusal("count", true).find("got true") != std::string::npos);
  CHECK(refusal("seed", -1) == "f: 'seed' takes a whole number of at least 0, got -1; go");
  CHECK(refusal("seed", 18446744073709551615u) == "no error");
  CHECK(refusal("rate", 0) == "f: 'rate' takes a number above 0, got 0; go");
  CHECK(refusal("rate", 2) == "no error");
  CHECK(refusal("rate", nullptr).find("got null") != std::string::npos);
  CHECK(refusal("part", 1).find("from 0 to below 1") != std::string::npos);
  CHECK(refusal("on", 1) == "f: 'on' takes true or false, got 1; go");
  CHECK(refusal("name", Json::array()) == "f: 'name' takes a text, got []; go");
  CHECK(refusal("list", Json::array()) == "f: 'list' takes a list of texts, got []; go");
  CHECK(refusal("list", {"a", 1}).find("got [\"a\",1]") != std::string::npos);
  CHECK(refusal("color_of_it", "blue") == "f: 'color_of_it' takes one of red, green, got \"blue\"; go");
  CHECK(refusal("color_of_it", 0).find("got 0") != std::string::npos);
  CHECK(refusal("type", "f16") == "f: 'type' takes one of bf16, f32, got \"f16\"; go");
}

TEST_CASE("what is written is read back, and unknown keys are named", "[fields]") {
  Things t;
  t.count = 7;
  t.list = {"a", "b"};
  t.color = Color::red;
  t.type = FormatId::f32;
  const Json all = fields_to_json(kFields, t), short_form = fields_to_json(kFields, t, 1);
  CHECK(all.size() == 9);
  CHECK(
      short_form.dump() ==
      R"({"count":7,"seed":1,"rate":0.5,"part":0.25,"on":false,"list":["a","b"],"color_of_it":"red","type":"f32"})");
  Things back;
  read_fields(kFields, back, short_form, "f: ", {"count"});
  CHECK(fields_to_json(kFields, back) == all);
  const auto error = [](const Json &json, const std::vector<std::string> &required,
                        const std::vector<std::string> &others) {
    return io::error_of([&] {
      Things x;
      read_fields(kFields, x, json, "f: ", required, others);
    });
  };
  CHECK(error({{"also", 1}}, {}, {"also"}) == "no error");
  CHECK(error({{"cuont", 1}}, {}, {"also"}) ==
        "f: unknown key 'cuont'; expected count, seed, rate, part, on, name, list, color_of_it, type, also");
  CHECK(error(Json::object(), {"name"}, {}) == "f: expected the key 'name'");
  CHECK(error(Json::array(), {}, {}) == "f: expected an object, got []");
}

TEST_CASE("command lines and tables name fields as the list does", "[fields]") {
  CHECK(std::get<7>(kFields).option() == "--color-of-it");
  CHECK(std::get<2>(kFields).option() == "--r,--rate");
  Things t;
  check_bounds(kFields, t);
  t.part = std::nan("");
  CHECK(io::error_of([&] {
          check_bounds(kFields, t);
        }).starts_with("expected for --part a number from 0 to below 1, got "));
  const std::string table = field_table(kFields, Things(), true);
  CHECK(table.find("| `rate` | `--r,--rate` | `0.5` | Above nothing (a number above 0) |\n") !=
        std::string::npos);
  CHECK(table.find("| `color_of_it` | `--color-of-it` | `\"green\"` | red, green: which |\n") !=
        std::string::npos);
}
