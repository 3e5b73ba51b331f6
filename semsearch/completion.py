"""Completion for bash, zsh and fish: a script that the shell reads, made from the parser of the command line.

What a word completes to is said by the parser itself: the `choices` of an argument, or its metavar: DIR, FOLDER, FROM
and TO are folders, FILE and DATASET are files. The script is complete; no process is started when a person presses the
key.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from shlex import quote

__all__ = ["SHELLS", "completion"]

FOLDERS, FILES, NOTHING = ("DIR", "FOLDER", "FROM", "TO"), ("FILE", "DATASET"), ""


@dataclass(frozen=True, slots=True)
class _Argument:
    """An option with its names, or a positional argument with none; `values` is "dir", "file", "" or words."""

    names: tuple[str, ...]
    help: str
    values: str | tuple[str, ...] | None  # None: an option that takes no value


@dataclass(frozen=True, slots=True)
class _Command:
    name: str
    help: str
    arguments: tuple[_Argument, ...]

    @property
    def options(self) -> list[_Argument]:
        return [each for each in self.arguments if each.names]

    @property
    def positionals(self) -> list[_Argument]:
        return [each for each in self.arguments if not each.names]


def completion(parser: argparse.ArgumentParser, shell: str) -> str:
    """The script for "bash", "zsh" or "fish" that completes the words of a parser with subcommands."""
    return "\n".join([*SHELLS[shell](parser.prog, _command(parser), list(_commands(parser))), ""])


def _commands(parser: argparse.ArgumentParser) -> Iterator[_Command]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, each in action.choices.items():
                yield _command(each, helps.get(name, ""))


def _command(parser: argparse.ArgumentParser, help: str = "") -> _Command:
    arguments = [_argument(each) for each in parser._actions if not isinstance(each, argparse._SubParsersAction)]
    return _Command(parser.prog.split()[-1], help, tuple(arguments))


def _argument(action: argparse.Action) -> _Argument:
    values: str | tuple[str, ...] | None = NOTHING
    if action.nargs == 0:
        values = None
    elif action.choices is not None:
        values = tuple(map(str, action.choices))
    elif action.metavar in FOLDERS:
        values = "dir"
    elif action.metavar in FILES:
        values = "file"
    text = (action.help or "").replace("%%", "%")
    return _Argument(tuple(action.option_strings), text, values)


# ----------------------------------------------------------------------------------------------------------------- bash

_BASH = {"dir": 'COMPREPLY=($(compgen -d -- "$word"))', "file": 'COMPREPLY=($(compgen -f -- "$word"))'}


def _bash(prog: str, top: _Command, commands: list[_Command]) -> Iterator[str]:
    yield f'# {prog} for bash: eval "$({prog} completion bash)" in ~/.bashrc'
    yield f"_{prog}() {{"
    yield '    local word="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}" command=""'
    yield "    local IFS=$'\\n'"
    yield "    COMPREPLY=()"
    yield '    if [[ "$word" == "=" ]]; then word=""'  # bash splits --color=never in three
    yield '    elif [[ "$before" == "=" ]]; then before="${COMP_WORDS[COMP_CWORD-2]}"; fi'
    yield '    if (( COMP_CWORD > 1 )); then command="${COMP_WORDS[1]}"; fi'
    yield '    case "$command" in'
    yield '    "")'
    yield from _bash_words([each.name for each in commands] + _names(top), "        ")
    yield "        ;;"
    for command in commands:
        yield f"    {command.name})"
        yield '        case "$before" in'
        for values, names in _by_values(command.options).items():
            yield f"        {'|'.join(names)})"
            yield from _bash_values(values, "            ")
            yield "            return ;;"
        yield "        esac"
        yield '        if [[ "$word" == -* ]]; then'
        yield from _bash_words(_names(command), "            ")
        if command.positionals:
            yield "        else"
            yield from _bash_values(command.positionals[0].values, "            ")
        yield "        fi"
        yield "        ;;"
    yield "    esac"
    yield "}"
    yield f"complete -o filenames -F _{prog} {prog}"


def _by_values(options: list[_Argument]) -> dict[str | tuple[str, ...], list[str]]:
    """The options that take a value, by what it may be."""
    found: dict[str | tuple[str, ...], list[str]] = {}
    for option in options:
        if option.values is not None:
            found.setdefault(option.values, []).extend(option.names)
    return found


def _names(command: _Command) -> list[str]:
    return [name for option in command.options for name in option.names]


def _bash_words(words: list[str] | tuple[str, ...], indent: str) -> Iterator[str]:
    listed = "\\n".join(words)
    yield f"{indent}COMPREPLY=($(compgen -W $'{listed}' -- \"$word\"))"


def _bash_values(values: str | tuple[str, ...] | None, indent: str) -> Iterator[str]:
    if isinstance(values, tuple):
        yield from _bash_words(values, indent)
    else:
        yield indent + _BASH.get(values or NOTHING, ":")


# ------------------------------------------------------------------------------------------------------------------ zsh

_ZSH = {"dir": "_files -/", "file": "_files"}


def _zsh(prog: str, top: _Command, commands: list[_Command]) -> Iterator[str]:
    yield f"#compdef {prog}"
    yield f"# {prog} for zsh: {prog} completion zsh > ~/.zfunc/_{prog}, with that folder in $fpath; or eval the same"
    yield f"_{prog}() {{"
    yield '    local curcontext="$curcontext" state line'
    yield "    typeset -A opt_args"
    yield "    local -a commands=("
    for command in commands:
        yield "        " + quote(f"{command.name}:{command.help}")
    yield "    )"
    yield "    _arguments -C \\"
    for spec in _zsh_specs(top):
        yield f"        {spec} \\"
    yield "        '1:command:->command' '*::argument:->arguments'"
    yield "    case $state in"
    yield f"    command) _describe -t commands '{prog} command' commands ;;"
    yield "    arguments)"
    yield "        case $words[1] in"
    for command in commands:
        yield f"        {command.name}) _arguments \\"
        specs = [*_zsh_specs(command), *map(_zsh_positional, command.positionals)]
        yield " \\\n".join(f"            {spec}" for spec in specs)
        yield "            ;;"
    yield "        esac ;;"
    yield "    esac"
    yield "}"
    yield f'if [[ "$funcstack[1]" == _{prog} ]]; then _{prog} "$@"; else compdef _{prog} {prog}; fi'


def _zsh_specs(command: _Command) -> Iterator[str]:
    for option in command.options:
        for name in option.names:
            others = f"({' '.join(option.names)})" if len(option.names) > 1 else ""
            value = "" if option.values is None else f":value:{_zsh_values(option.values)}"
            yield quote(f"{others}{name}[{_zsh_text(option.help)}]{value}")


def _zsh_positional(argument: _Argument) -> str:
    return quote(f":{_zsh_text(argument.help)}:{_zsh_values(argument.values)}")


def _zsh_text(text: str) -> str:
    return "".join(f"\\{c}" if c in "[]:\\" else c for c in text)


def _zsh_values(values: str | tuple[str, ...] | None) -> str:
    return f"({' '.join(values)})" if isinstance(values, tuple) else _ZSH.get(values or NOTHING, " ")


# ----------------------------------------------------------------------------------------------------------------- fish

_FISH = {"dir": " -x -a '(__fish_complete_directories)'", "file": " -r -F"}


def _fish(prog: str, top: _Command, commands: list[_Command]) -> Iterator[str]:
    yield f"# {prog} for fish: {prog} completion fish > ~/.config/fish/completions/{prog}.fish"
    yield f"complete -c {prog} -f"
    first = f"complete -c {prog} -n __fish_use_subcommand"
    for command in commands:
        yield f"{first} -a {command.name} -d {_fish_quote(command.help)}"
    for option in top.options:
        yield first + _fish_option(option)
    for command in commands:
        inside = f"complete -c {prog} -n '__fish_seen_subcommand_from {command.name}'"
        for option in command.options:
            yield inside + _fish_option(option)
        for each in command.positionals[:1]:
            values = _fish_values(each.values)
            if values:
                yield inside + values


def _fish_option(option: _Argument) -> str:
    names = "".join(f" -l {name[2:]}" if name.startswith("--") else f" -s {name[1:]}" for name in option.names)
    values = "" if option.values is None else _fish_values(option.values) or " -x"
    return f"{names}{values} -d {_fish_quote(option.help)}"


def _fish_values(values: str | tuple[str, ...] | None) -> str:
    if isinstance(values, tuple):
        return f" -x -a {_fish_quote(' '.join(values))}"
    return _FISH.get(values or NOTHING, "")


def _fish_quote(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


SHELLS = {"bash": _bash, "zsh": _zsh, "fish": _fish}
