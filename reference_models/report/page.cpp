// SPDX-License-Identifier: Apache-2.0
// Style: system fonts, colours after Okabe and Ito (told apart by colour-blind readers), darker on light
// paper and lighter on dark.
#include "nvfp4/reference_models/report/page.hpp"

#include <cctype>

namespace nvfp4::models {
namespace {

// k0 fp32, k1 bf16, k2 nvfp4, k3 chon, k4 hcp, k5 post-qk, k6 nvfp4-plain, k7 mxfp4-sr-rht, k8 mxfp8, k9
// others
constexpr std::string_view kStyle = R"css(
:root{color-scheme:light dark;--paper:#fff;--ink:#1c2126;--soft:#59636e;--rule:#c4cbd3;--grid:#e8ebef;--panel:#f6f7f9;
--c0:#8a6d3b;--c1:#3d454d;--c2:#c24e00;--c3:#0067a8;--c4:#00805c;--c5:#a8437f;--c6:#8f7400;--c7:#5a4fcf;--c8:#2f8f9d;--c9:#8c5a3c;
--l0:#f1f5f3;--l1:#dff0e3;--l2:#c3e6d5;--l3:#97d5c9;--l4:#65bfc4;--l5:#3fa3c1;--l6:#2b83b5;--l7:#2a62a1;--l8:#28458a;--l9:#1b2a63;
--good:#00694b;--bad:#a83a00;--none:#59636e}
@media (prefers-color-scheme:dark){:root{--paper:#14181c;--ink:#e4e8ec;--soft:#9ba7b3;--rule:#4a545e;--grid:#262d34;--panel:#1c2227;
--c0:#cfb27a;--c1:#d7dde3;--c2:#ff8f4a;--c3:#5cb8f2;--c4:#35c79c;--c5:#ea94c4;--c6:#e2c53d;--c7:#a59cff;--c8:#6fd0de;--c9:#d29d7c;
--l0:#182127;--l1:#16323f;--l2:#174a56;--l3:#1b646a;--l4:#2b8076;--l5:#4f9c7d;--l6:#80b783;--l7:#b5d08c;--l8:#e3e59b;--l9:#fff7bd;
--good:#4cd0a2;--bad:#ff9d66;--none:#9ba7b3}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
main{max-width:1260px;margin:0 auto;padding:28px 24px 60px}
h1{font-size:26px;line-height:1.25;margin:0 0 6px}
h2{font-size:19px;margin:44px 0 6px;padding-top:14px;border-top:1px solid var(--rule)}
p{max-width:80ch;margin:6px 0;overflow-wrap:anywhere}
.soft{color:var(--soft)}
.notice{background:var(--panel);border-left:4px solid var(--c2);padding:10px 14px;margin:16px 0;max-width:88ch}
.figures{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(590px,100%),1fr));gap:22px 26px;margin-top:16px}
.figures.small{grid-template-columns:repeat(auto-fill,minmax(min(340px,100%),1fr))}
.small svg{max-width:430px}
figure{margin:0;min-width:0}
figcaption{font-size:13px;color:var(--soft);max-width:76ch;margin-top:2px;overflow-wrap:anywhere}
a{color:var(--c3)}
.narrow,.hint{display:none}
svg{display:block;width:100%;max-width:720px;height:auto;overflow:visible;font:12px system-ui,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
svg svg{overflow:hidden}
.title{font-size:14px;font-weight:600;fill:var(--ink)}
.axis{font-size:12px;fill:var(--soft)}.tick{font-size:11px;fill:var(--soft)}.label{font-size:12px;fill:var(--ink)}
.note{font-size:11px;fill:var(--soft);stroke:var(--paper);stroke-width:4px;paint-order:stroke}
.grid{stroke:var(--grid);stroke-width:1}.rule{stroke:var(--rule);stroke-width:1}
.reference{stroke:var(--soft);stroke-width:1;stroke-dasharray:2 4}
.whisker{stroke:var(--ink);stroke-width:1.2}
.line{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}.dash{stroke-dasharray:6 5}
.faint{stroke-width:.8;opacity:.28}.band{stroke:none;opacity:.16}.ink{stroke:var(--ink)}.pale{opacity:.5}
.scroll{overflow-x:auto;margin-top:12px;background:linear-gradient(90deg,var(--paper) 30%,transparent) 0 0/48px 100% no-repeat local,
linear-gradient(270deg,var(--paper) 30%,transparent) 100% 0/48px 100% no-repeat local,
linear-gradient(90deg,var(--rule),transparent) 0 0/14px 100% no-repeat scroll,
linear-gradient(270deg,var(--rule),transparent) 100% 0/14px 100% no-repeat scroll}
table{border-collapse:collapse;font-size:13.5px;min-width:640px}
th,td{text-align:left;vertical-align:top;padding:6px 16px 6px 0;border-bottom:1px solid var(--grid);max-width:44ch;overflow-wrap:break-word}
th{font-weight:600;color:var(--soft);border-bottom:1px solid var(--rule);white-space:nowrap}
td:first-child{min-width:18ch}.number{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.held{color:var(--good);font-weight:600;white-space:nowrap}.failed{color:var(--bad);font-weight:600;white-space:nowrap}
.absent{color:var(--none);white-space:nowrap}
.open{font-weight:600;white-space:nowrap}
@media (max-width:639px){main{padding:20px 16px 48px}h1{font-size:22px}
.wide{display:none}.narrow,.hint{display:block}.hint{font-size:12px;color:var(--soft);margin:12px 0 -8px}}
)css";

} // namespace

std::string page(std::string_view title, std::string_view body) {
  std::string colors;
  for (int i = 0; i < 10; ++i) {
    const std::string k = std::to_string(i);
    colors += "path.k" + k + "{stroke:var(--c" + k + ")}.band.k" + k + ",.bar.k" + k + ",.dot.k" + k +
              ",.ink" + k + "{fill:var(--c" + k + ")}.level" + k + "{fill:var(--l" + k + ")}\n";
  }
  std::string out = "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>"
                    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n<title>";
  out += escape(title);
  out += "</title>\n<style>";
  out += kStyle;
  out += colors + ".band{stroke:none!important}</style></head>\n<body><main>\n";
  out += body;
  return out + "</main></body></html>\n";
}

std::string figure(const Drawing &chart, std::string_view caption) {
  if (chart.empty()) return {};
  std::string data;
  for (const char c : chart.csv) switch (c) {
    case '%': data += "%25"; break;
    case '#': data += "%23"; break;
    case '"': data += "%22"; break;
    case '\n': data += "%0A"; break;
    default: data += c;
    }
  std::string file;
  for (const char c : chart.title) file += std::isalnum(static_cast<unsigned char>(c)) != 0 ? c : '-';
  const std::string shown =
      chart.narrow.empty()
          ? chart.wide
          : "<div class=\"wide\">" + chart.wide + "</div><div class=\"narrow\">" + chart.narrow + "</div>";
  return "<figure>" + shown + "<figcaption>" + escape(caption) + " <a download=\"" + file +
         ".csv\" href=\"data:text/csv;charset=utf-8," + escape(data) +
         "\">Numbers (CSV)</a></figcaption></figure>\n";
}

std::string figures(const std::vector<std::string> &list, bool small) {
  std::string all;
  for (const std::string &f : list) all += f;
  return all.empty()
             ? ""
             : (small ? "<div class=\"figures small\">\n" : "<div class=\"figures\">\n") + all + "</div>\n";
}

std::string section(std::string_view heading, std::string_view introduction, const std::string &content,
                    std::string_view nothing) {
  std::string out = "<section><h2>" + escape(heading) + "</h2>\n";
  if (content.empty()) return out + "<p class=\"soft\">" + escape(nothing) + "</p></section>\n";
  if (!introduction.empty()) out += "<p>" + escape(introduction) + "</p>\n";
  return out + content + "</section>\n";
}

std::string table(const std::vector<std::string> &head, const std::vector<std::vector<std::string>> &rows,
                  size_t numbers_from) {
  const auto row = [&](const std::vector<std::string> &cells, const char *tag) {
    std::string out = "<tr>";
    for (size_t i = 0; i < cells.size(); ++i)
      out += std::string("<") + tag + (i >= numbers_from ? " class=\"number\">" : ">") + cells[i] + "</" +
             tag + ">";
    return out + "</tr>\n";
  };
  std::string out = "<p class=\"hint\">The table is wider than the screen: scroll it sideways.</p>\n"
                    "<div class=\"scroll\" tabindex=\"0\"><table><thead>" +
                    row(head, "th") + "</thead><tbody>\n";
  for (const auto &cells : rows) out += row(cells, "td");
  return out + "</tbody></table></div>\n";
}

} // namespace nvfp4::models
