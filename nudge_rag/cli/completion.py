"""``completion``: a script for the shell, made from the parser, so that it is never out of date."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from nudge_rag.cli.outcome import Outcome

__all__ = ["add_commands", "walk_parsers"]

BASH = """\
# bash completion for nudge-rag: eval "$(nudge-rag completion bash)"
_nudge_rag() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} path="" word
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        case " {commands} " in *" ${{path:+$path/}}$word "*) path=${{path:+$path/}}$word ;; esac
    done
    local words=""
    case "$path" in
{cases}
    esac
    COMPREPLY=($(compgen -W "$words" -- "$current"))
    if [ ${{#COMPREPLY[@]}} -eq 0 ]; then COMPREPLY=($(compgen -f -- "$current")); fi
}}
complete -o filenames -F _nudge_rag nudge-rag
"""
ZSH = """\
#compdef nudge-rag
# zsh completion for nudge-rag: eval "$(nudge-rag completion zsh)"
autoload -U +X bashcompinit && bashcompinit
"""


def add_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the parser."""
    parser = commands.add_parser("completion", help="print a completion script for a shell", parents=[common])
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))
    parser.set_defaults(run=_completion)


def _completion(arguments: argparse.Namespace) -> Outcome:
    """Print the script."""
    parser = arguments.parser
    script = _fish(parser) if arguments.shell == "fish" else _bash(parser)
    if arguments.shell == "zsh":
        script = ZSH + script
    return Outcome(script.rstrip("\n"), {"shell": arguments.shell, "script": script})


def walk_parsers(parser: argparse.ArgumentParser, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Return every parser with the commands that lead to it."""
    yield path, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, child in action.choices.items():
                yield from walk_parsers(child, (*path, name))


def _words(parser: argparse.ArgumentParser) -> list[str]:
    words: list[str] = []
    for action in parser._actions:
        words += [option for option in action.option_strings if option.startswith("--")]
        if action.choices is not None and not action.option_strings:
            words += [str(choice) for choice in action.choices]
    return words


def _bash(parser: argparse.ArgumentParser) -> str:
    parsers = list(walk_parsers(parser))
    cases = [f'        "{"/".join(path)}") words="{" ".join(_words(one))}" ;;' for path, one in parsers]
    return BASH.format(commands=" ".join("/".join(path) for path, _ in parsers if path), cases="\n".join(cases))


def _fish(parser: argparse.ArgumentParser) -> str:
    lines = ["# fish completion for nudge-rag: nudge-rag completion fish | source"]
    for path, one in walk_parsers(parser):
        seen = " and ".join(f"__fish_seen_subcommand_from {name}" for name in path) or "__fish_use_subcommand"
        condition = seen.replace(" and ", "; and ")
        for action in one._actions:
            if isinstance(action, argparse._SubParsersAction):
                for name in action.choices:
                    unseen = f"; and not __fish_seen_subcommand_from {' '.join(action.choices)}" if path else ""
                    lines.append(f"complete -c nudge-rag -f -n '{condition}{unseen}' -a {name}")
            for option in action.option_strings:
                if option.startswith("--"):
                    takes = "" if action.nargs == 0 else " -r"
                    choices = f" -f -a '{' '.join(map(str, action.choices))}'" if action.choices and takes else ""
                    lines.append(f"complete -c nudge-rag -n '{condition}' -l {option[2:]}{takes}{choices}")
    return "\n".join(lines) + "\n"
