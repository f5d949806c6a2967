// SPDX-License-Identifier: Apache-2.0
#include "nvfp4/reference_models/report/svg_text.hpp"

#include "nvfp4/reference_models/report/svg.hpp"

#include <fmt/core.h>

namespace nvfp4::models {
namespace {

constexpr double kTitleFace = 15.8 / 12; // the title's face beside the one that text_width() knows

} // namespace

std::string escape(std::string_view in) {
  std::string out;
  for (const char c : in) switch (c) {
    case '&': out += "&amp;"; break;
    case '<': out += "&lt;"; break;
    case '>': out += "&gt;"; break;
    case '"': out += "&quot;"; break;
    case '\'': out += "&#39;"; break;
    default: out += static_cast<unsigned char>(c) < 0x20 || c == 0x7F ? ' ' : c;
    }
  return out;
}

double text_width(std::string_view text) {
  double width = 0;
  for (const char c : text)
    if ((static_cast<unsigned char>(c) & 0xC0) != 0x80)
      width += c == '.' || c == ',' || c == ' ' || c == 'i' || c == 'l' ? 3.8
               : c == '%' || c == 'm'                                   ? 11.5
                                                                        : 7.2;
  return width;
}

std::vector<std::string> wrapped(std::string_view what, double width) {
  std::vector<std::string> lines;
  while (!what.empty()) {
    size_t end = 0, space = 0; // space: where it breaks best
    while (end < what.size()) {
      size_t next = end + 1;
      while (next < what.size() && (static_cast<unsigned char>(what[next]) & 0xC0) == 0x80) ++next;
      if (end > 0 && text_width(what.substr(0, next)) > width) break;
      end = next;
      if (end < what.size() && (what[end] == ' ' || what[end - 1] == '-')) space = end;
    }
    if (end < what.size() && space > 0) end = space;
    lines.emplace_back(what.substr(0, end));
    while (end < what.size() && what[end] == ' ') ++end;
    what.remove_prefix(end);
  }
  return lines;
}

std::string title_lines(std::string_view title, double width, double &y) {
  std::string out;
  for (const std::string &l : wrapped(title, width / kTitleFace)) {
    out += text_at(0, y + 14, l, "class=\"title\"");
    y += 18;
  }
  return out;
}

std::string text_at(double x, double y, std::string_view what, std::string_view attributes) {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" {}>{}</text>\n", x, y, attributes, escape(what));
}

} // namespace nvfp4::models
