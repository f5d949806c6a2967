// SPDX-License-Identifier: Apache-2.0
// JSON that anybody may have written: what is read, and one line for what is not.
#include "nvfp4/golden/io/json.hpp"
#include "nvfp4/golden/io/message.hpp"
#include "tests/golden/io/support.hpp"

using namespace nvfp4;
using namespace nvfp4::io;

namespace {

std::string nested(int depth, const char *open, const char *inside, const char *close) {
  std::string text;
  for (int i = 0; i < depth; ++i) text += open;
  text += inside;
  for (int i = 0; i < depth; ++i) text += close;
  return text;
}
std::string refusal(std::string_view text) {
  return error_of([&] { (void)parse_json(text, "f: ", "; mend it"); });
}

} // namespace

TEST_CASE("JSON of any depth is refused before it is a tree", "[io]") {
  CHECK(parse_json(nested(max_json_depth, "[", "", "]"), "f: ").is_array());
  CHECK(parse_json(nested(max_json_depth, "{\"a\":", "1", "}"), "f: ").is_object());
  for (const int depth : {max_json_depth + 1, 80'000, 1'000'000}) {
    check_message(refusal(nested(depth, "[", "", "]")),
                  {"f: expected JSON of at most 64 objects", "; mend it"});
    check_message(refusal(nested(depth, "{\"a\":", "1", "}")), {"f: expected JSON of at most 64"});
    check_message(refusal(nested(depth, "[", "", "")), {"f: expected JSON of at most 64"});
    check_message(refusal(nested(depth, "{\"a\":[", "1", "")), {"f: expected JSON of at most 64"});
  }
}

TEST_CASE("what is no JSON gets one line", "[io]") {
  check_message(refusal(""), {"f: expected JSON, got nothing; mend it"});
  check_message(refusal("{\"a\":1"), {"f: expected JSON, which breaks off, got '{\"a\":1'"});
  check_message(refusal("{\n\"a\":1,\n}"), {"f: expected JSON (line 3), got"});
  for (const char *number : {"1e400", "-1e400", "1e999999999999"}) {
    check_message(refusal(std::string("{\"a\":") + number + "}"),
                  {std::string("f: expected numbers that FP64 can hold, got '") + number + "'; mend it"});
    CHECK_FALSE(find_json(number));
  }
  for (const char *text :
       {"{\"a\":\"\xFF\"}", "\"\xC0\xAF\"", "\"\xED\xA0\x80\"", "\xFF", "nan", "{} {}", "01", "+1", "'a'"})
    check_message(refusal(text), {"f: expected JSON, got"});
  check_message(refusal("{\"a\":1,\"b\":{\"a\":2,\"a\":3}}"),
                {"f: the key 'a' stands twice in an object; mend it"});
  CHECK(find_json("{\"a\":{\"a\":1},\"b\":[{\"a\":1},{\"a\":1}]}")); // each in an object of its own
  CHECK(find_json("1e-400")); // rounds to 0, as every small number rounds
  CHECK((*find_json("{\"b\":1,\"a\":2}")).dump() == "{\"b\":1,\"a\":2}");
}

TEST_CASE("UTF-8 is told from what is not", "[io]") {
  for (const char *text : {"", "plain\n", "\xC2\x80", "\xC3\xA9", "\xE2\x80\xA8", "\xF0\x9F\x98\x80"})
    CHECK(is_utf8(text));
  CHECK(is_utf8(std::string(3, '\0')));
  for (const char *text : {"\x80", "\xC0\xAF", "\xC3", "\xE2\x80", "\xED\xA0\x80", "\xF4\x90\x80\x80",
                           "a\xFF", "\xF8\x88\x80\x80\x80"})
    CHECK_FALSE(is_utf8(text));
}
