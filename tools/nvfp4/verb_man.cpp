// SPDX-License-Identifier: Apache-2.0
// nvfp4 man: manual pages from the same description that --help prints.
#include "nvfp4/emulator/config.hpp"
#include "nvfp4/golden/io/file.hpp"
#include "nvfp4/version.hpp"
#include "tools/nvfp4/known_values.hpp"
#include "tools/nvfp4/verbs.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>
#include <filesystem>
#include <memory>

namespace nvfp4::tool {
namespace {

struct Options {
  std::vector<std::string> verb;
  std::string out;
};

/// Text for groff: no line begins a request, hyphens and backslashes are what they are.
std::string roff(const std::string &text) {
  std::string s;
  bool start = true;
  for (const char c : text) {
    if (start && (c == '.' || c == '\'')) s += "\\&";
    start = c == '\n';
    s += c == '\\' ? std::string("\\e") : c == '-' ? std::string("\\-") : std::string(1, c);
  }
  return s;
}

std::string upper(std::string s) {
  std::transform(s.begin(), s.end(), s.begin(), [](unsigned char c) { return char(std::toupper(c)); });
  return s;
}

std::vector<const CLI::App *> verbs_of(const CLI::App &app) {
  return app.get_subcommands([](const CLI::App *) { return true; });
}

/// "nvfp4 golden verify" with the given mark between its words.
std::string name_of(const CLI::App &app, char mark) {
  return app.get_parent() == nullptr ? "nvfp4" : name_of(*app.get_parent(), mark) + mark + app.get_name();
}

std::string placeholder(const CLI::Option &o) {
  const std::string type = o.get_type_name(), first = type.substr(0, type.find_first_of(": ["));
  return type.find('{') != std::string::npos ? "NAME" : first.empty() ? "VALUE" : first;
}

void add_option(std::string &page, const CLI::Option &o) {
  std::string names;
  if (o.get_positional() && o.get_lnames().empty()) {
    names = "\\fI" + roff(o.get_name(true)) + "\\fR";
  } else {
    for (const std::string &s : o.get_snames())
      names += (names.empty() ? "" : ", ") + ("\\fB" + roff("-" + s) + "\\fR");
    for (const std::string &l : o.get_lnames())
      names += (names.empty() ? "" : ", ") + ("\\fB" + roff("--" + l) + "\\fR");
    if (o.get_items_expected_max() > 0) names += " \\fI" + roff(placeholder(o)) + "\\fR";
  }
  page += ".TP\n" + names + "\n" + roff(o.get_description());
  if (o.get_type_name().find('{') != std::string::npos) {
    std::string list;
    for (const std::string &v : known_values(o)) list += (list.empty() ? "" : ", ") + v;
    page += "\n.br\nOne of " + roff(list) + ".";
  }
  if (!o.get_default_str().empty()) page += "\n.br\nDefault: " + roff(o.get_default_str()) + ".";
  if (o.get_required()) page += "\n.br\nRequired.";
  page += "\n";
}

/// The page of the program or of one verb.
std::string page_of(const CLI::App &app) {
  const std::string name = name_of(app, ' '), title = name_of(app, '-');
  std::string text = app.get_description();
  if (app.get_parent() == nullptr) text.erase(0, text.find(": ") + 2);
  const std::string first = text.substr(0, text.find('\n'));
  std::string page = ".TH \"" + upper(title) +
                     "\" 1 \"\" \"nvfp4 " NVFP4_VERSION_STRING "\" \"nvfp4\"\n.SH NAME\n" + roff(title) +
                     " \\- " + roff(first) + "\n.SH SYNOPSIS\n\\fB" + roff(name) + "\\fR";
  if (!verbs_of(app).empty()) page += " \\fIVERB\\fR";
  for (const CLI::Option *o : app.get_options())
    if (o->get_positional() && o->get_lnames().empty())
      page += o->get_required() ? " \\fI" + roff(o->get_name(true)) + "\\fR"
                                : " [\\fI" + roff(o->get_name(true)) + "\\fR]";
  page += " [\\fIOPTIONS\\fR]\n";
  if (first.size() < text.size())
    page += ".SH DESCRIPTION\n.nf\n" + roff(text.substr(first.size() + 1)) + "\n.fi\n";
  if (!verbs_of(app).empty()) page += ".SH VERBS\n";
  for (const CLI::App *verb : verbs_of(app)) {
    const std::string summary = verb->get_description();
    page += ".TP\n\\fB" + roff(name_of(*verb, '-')) + "\\fR(1)\n" +
            roff(summary.substr(0, summary.find('\n'))) + "\n";
  }
  page += ".SH OPTIONS\n";
  for (const CLI::Option *o : app.get_options()) add_option(page, *o);
  if (!app.get_footer().empty()) page += ".SH NOTES\n.nf\n" + roff(app.get_footer()) + "\n.fi\n";
  if (app.get_parent() != nullptr)
    page += ".SH EXIT STATUS\n0: done or equal; 1: mismatch; 2: bad call or input; 3: no suitable device; 4: "
            "the computation "
            "did not stay finite.\n.SH SEE ALSO\n\\fBnvfp4\\fR(1)\n";
  return page;
}

void write_pages(const CLI::App &app, const std::string &folder) {
  const std::string page = page_of(app);
  io::write_file_atomically((std::filesystem::path(folder) / (name_of(app, '-') + ".1")).string(),
                            std::as_bytes(std::span(page)));
  for (const CLI::App *verb : verbs_of(app)) write_pages(*verb, folder);
}

} // namespace

void register_man(Command &app, int &) {
  Command *verb = app.add_subcommand("man", "Manual pages, from the text of --help");
  auto o = std::make_shared<Options>();
  verb->add_option("verb", o->verb, "Whose page is printed: golden verify, say; without it the program's");
  verb->add_option("--out", o->out, "Write all pages into this folder instead");
  verb->footer("Example: nvfp4 man gemm | man -l -");
  verb->callback([o, &app] {
    if (!o->out.empty()) {
      std::filesystem::create_directories(o->out);
      write_pages(app.cli(), o->out);
      return;
    }
    const CLI::App *at = &app.cli();
    for (const std::string &word : o->verb) {
      const std::vector<const CLI::App *> verbs = verbs_of(*at);
      const auto found =
          std::find_if(verbs.begin(), verbs.end(), [&](const CLI::App *v) { return v->get_name() == word; });
      if (found == verbs.end()) throw Error("man: " + name_of(*at, ' ') + " has no verb '" + word + "'");
      at = *found;
    }
    std::fputs(page_of(*at).c_str(), stdout);
  });
}

} // namespace nvfp4::tool
