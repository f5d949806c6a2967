// SPDX-License-Identifier: Apache-2.0
// nvfp4 completion bash | zsh | fish: a script for the shell, which asks the program itself what may come
// next.
#include "nvfp4/emulator/config.hpp"
#include "tools/nvfp4/known_values.hpp"
#include "tools/nvfp4/verbs.hpp"

#include <cstdio>
#include <memory>

namespace nvfp4::tool {
namespace {

// Bash cuts words at ':', which names of units have: the line is cut at blanks here, and what stands before
// the last ':' is taken off the answers again.
constexpr const char *kBash = R"sh(# bash completion for nvfp4; in a shell: source <(nvfp4 completion bash)
_nvfp4() {
  local line=${COMP_LINE:0:COMP_POINT} words word found
  read -ra words <<<"$line"
  case $line in *[[:space:]]) words+=("") ;; esac
  word=${words[-1]}
  COMPREPLY=()
  while IFS= read -r found; do
    case $word in *:*) found=${found#"${word%"${word##*:}"}"} ;; esac
    COMPREPLY+=("$(printf '%q' "$found")")
  done < <("${words[0]}" completion words -- "${words[@]:1}" 2>/dev/null)
}
complete -o default -F _nvfp4 nvfp4
)sh";

constexpr const char *kZsh = R"sh(#compdef nvfp4
# zsh completion for nvfp4; in a shell: source <(nvfp4 completion zsh)
_nvfp4() {
  local -a found
  found=("${(@f)$("${words[1]}" completion words -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
  if [[ -n "${found[1]}" ]]; then compadd -a found; else _files; fi
}
if [[ "${funcstack[1]}" == _nvfp4 ]]; then _nvfp4 "$@"; else compdef _nvfp4 nvfp4; fi
)sh";

constexpr const char *kFish = R"sh(# fish completion for nvfp4; in a shell: nvfp4 completion fish | source
function __nvfp4_words
    set -l before (commandline -opc)
    set -l found ($before[1] completion words -- $before[2..-1] (commandline -ct) 2>/dev/null)
    if test (count $found) -gt 0
        printf '%s\n' $found
    else
        __fish_complete_path (commandline -ct)
    end
end
complete -c nvfp4 -f -a '(__nvfp4_words)'
)sh";

struct Options {
  std::vector<std::string> words;
};

} // namespace

void register_completion(Command &app, int &) {
  Command *verb =
      app.add_subcommand("completion", "A script that completes verbs, options and names in your shell");
  verb->require_subcommand(1);
  for (const auto &[name, script] : {std::pair{"bash", kBash}, {"zsh", kZsh}, {"fish", kFish}})
    verb->add_subcommand(name, std::string("The script for ") + name)->callback([text = script] {
      std::fputs(text, stdout);
    });
  auto o = std::make_shared<Options>();
  Command *words = verb->add_subcommand("words", "What may follow: the scripts ask this");
  words->add_option("words", o->words,
                    "The words after the program's name, behind --; the last one is completed");
  words->callback([o, &app] {
    for (const std::string &c : completions(app.cli(), o->words)) std::printf("%s\n", c.c_str());
  });
  verb->footer("Example: source <(nvfp4 completion bash)\n"
               "An installation has the scripts where the shells look for them.");
}

} // namespace nvfp4::tool
