"""Manual pages and shell completions of both programs, made from their parsers."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from attrs import frozen

from wazuh_comms_trio.cli import apid, tool

#: Usages are broken at this width, whatever the terminal's.
os.environ["COLUMNS"] = "80"
FILE_WORDS = ("FILE", "DIR")


@frozen
class Option:
    """``metavar``: of its value, None for one that takes none."""

    flags: tuple[str, ...]
    metavar: str | None
    choices: tuple[str, ...]
    help: str
    repeated: bool

    @property
    def is_file(self) -> bool:
        return self.metavar in FILE_WORDS


@frozen
class Command:
    """``path``: the words that name it, none for the program itself."""

    path: tuple[str, ...]
    help: str
    description: str
    usage: str
    options: tuple[Option, ...]
    positionals: tuple[Option, ...]
    children: tuple[Command, ...]

    def walk(self) -> Iterator[Command]:
        yield self
        for child in self.children:
            yield from child.walk()


def read_command(parser: argparse.ArgumentParser, path: tuple[str, ...] = (), help: str = "") -> Command:
    options, positionals, children = [], [], []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            children += [read_command(sub, (*path, name), helps.get(name, "")) for name, sub in action.choices.items()]
            continue
        named = Option(
            tuple(action.option_strings),
            None if action.nargs == 0 else str(action.metavar or action.dest.upper()),
            tuple(str(choice) for choice in action.choices or ()),
            (action.help or "") % {"default": action.default, "prog": parser.prog},
            action.nargs in ("*", "+") or isinstance(action, argparse._AppendAction),
        )
        (options if action.option_strings else positionals).append(named)
    usage = parser.format_usage().removeprefix("usage: ").replace("\n" + " " * len("usage: "), "\n")
    description = parser.description or ""
    return Command(path, help, description, usage, tuple(options), tuple(positionals), tuple(children))


def programs() -> dict[str, Command]:
    return {"wazuh-comms": read_command(tool.make_parser()), "wazuh-comms-apid": read_command(apid.make_parser())}


# --- manual pages


def _roff(text: str) -> str:
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("`", "")
    return "\n".join(f"\\&{line}" if line.startswith((".", "'")) else line for line in text.splitlines())


def _option_lines(options: Sequence[Option]) -> Iterator[str]:
    for option in options:
        words = option.flags or (option.metavar or "",)
        value = f" \\fI{_roff('|'.join(option.choices) or option.metavar or '')}\\fR" if option.metavar else ""
        head = ", ".join(f"\\fB{_roff(word)}\\fR" for word in words)
        yield ".TP"
        yield head + (value if option.flags else "") + (" ..." if option.repeated else "")
        yield _roff(option.help) or "\\&"


def manual(name: str, section: int, ends: Sequence[tuple[str, str]]) -> str:
    program = programs()[name]
    lines = [f'.TH {name.upper()} {section} "" "wazuh\\-comms\\-trio" "Wazuh communications API"', ".SH NAME"]
    lines += [f"{_roff(name)} \\- {_roff(program.description.rstrip('.'))}", ".SH SYNOPSIS", ".nf"]
    lines += [*_roff(program.usage.rstrip()).splitlines(), ".fi", ".SH OPTIONS", *_option_lines(program.options)]
    lines += [*_option_lines(program.positionals)]
    commands = [command for command in program.walk() if command.path and not command.children]
    if commands:
        lines.append(".SH COMMANDS")
    for command in commands:
        lines += [f".SS {_roff(' '.join(command.path))}", ".nf", *_roff(command.usage.rstrip()).splitlines(), ".fi"]
        lines += [_roff(command.description or command.help)]
        common = {option.flags for option in program.options}
        lines += _option_lines(command.positionals)
        lines += _option_lines([option for option in command.options if option.flags not in common])
    lines += [".SH EXIT STATUS"]
    for status, meaning in ends:
        lines += [".TP", f"\\fB{status}\\fR", _roff(meaning)]
    files = [("/etc/wazuh-server/wazuh-server.yml", "the configuration"), ("/var/lib/wazuh-comms", "embedded state")]
    lines.append(".SH FILES")
    for path, what in files:
        lines += [".TP", f"\\fI{_roff(path)}\\fR", what]
    other = next(each for each in ("wazuh-comms(1)", "wazuh-comms-apid(8)") if not each.startswith(f"{name}("))
    return "\n".join([*lines, ".SH SEE ALSO", f"\\fB{_roff(other[:-3])}\\fR{other[-3:]}", ""])


TOOL_ENDS = [
    ("0", "it is done"),
    ("1", "an error; the sentence is on stderr"),
    ("2", "misuse"),
    ("3", "status and reload: the daemon doesn't run"),
    ("78", "the configuration can't be used"),
    ("130", "interrupted"),
]
DAEMON_ENDS = [
    ("0", "it was stopped, or --check found nothing wrong"),
    ("1", "it couldn't start, or failed; the last lines of its log say why"),
    ("2", "misuse"),
    ("78", "the configuration can't be used; every problem is on stderr"),
]


# --- completions: each walks the words of the line to the command that they name, and offers what may follow it


def _name(command: Command) -> str:
    return " ".join(command.path)


def _with_value(program: Command) -> list[str]:
    """Options whose next word is a value."""
    return sorted(
        {flag for each in program.walk() for option in each.options if option.metavar for flag in option.flags}
    )


def _flags(command: Command) -> list[str]:
    return [flag for option in command.options for flag in option.flags]


def _values(command: Command) -> Iterator[tuple[str, Option]]:
    """Flag and option, where what the value may be is known."""
    for option in command.options:
        if option.choices or option.is_file:
            for flag in option.flags:
                yield flag, option


def bash() -> str:
    lines = ["# Completion for bash. Made by scripts/make-docs.", ""]
    for name, program in programs().items():
        function = f"_{name.replace('-', '_')}"
        paths = "|".join(f'"{_name(each)}"' for each in program.walk() if each.path) or '""'
        lines += [
            f"{function}() {{",
            "    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}",
            "    local command= word skip= next",
            "    COMPREPLY=()",
            '    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do',
            "        if [[ -n $skip ]]; then skip=; continue; fi",
            "        case $word in",
            f"        {'|'.join(_with_value(program))}) skip=yes ;;",
            "        -*) ;;",
            "        *)",
            '            next="${command:+$command }$word"',
            f"            case $next in {paths}) command=$next ;; esac",
            "            ;;",
            "        esac",
            "    done",
            '    case "$command:$previous" in',
        ]
        for each in program.walk():
            for flag, option in _values(each):
                offer = "-f --" if option.is_file else f'-W "{" ".join(option.choices)}" --'
                lines.append(f'    "{_name(each)}:{flag}") COMPREPLY=($(compgen {offer} "$current")); return ;;')
        lines += [
            "    esac",
            "    [[ -z $skip ]] || return",
            "    case $command in",
        ]
        for each in program.walk():
            words = " ".join([child.path[-1] for child in each.children])
            flags = " ".join(_flags(each))
            files = any(positional.is_file for positional in each.positionals)
            rest = (
                'COMPREPLY=($(compgen -f -- "$current"))'
                if files
                else f'COMPREPLY=($(compgen -W "{words}" -- "$current"))'
            )
            lines += [
                f'    "{_name(each)}")',
                f'        if [[ $current == -* ]]; then COMPREPLY=($(compgen -W "{flags}" -- "$current"))',
                f"        else {rest}; fi",
                "        ;;",
            ]
        lines += ["    esac", "}", f"complete -o filenames -F {function} {name}", ""]
    return "\n".join(lines)


def _zsh_text(text: str) -> str:
    return text.replace("'", "'\\''").replace("[", "\\[").replace("]", "\\]").replace(":", "\\:").replace("\n", " ")


def _zsh_arguments(command: Command) -> list[str]:
    arguments = []
    for option in command.options:
        value = ""
        if option.metavar:
            what = "_files" if option.is_file else f"({' '.join(option.choices)})" if option.choices else ""
            value = f":{_zsh_text(option.metavar)}:{what}"
        arguments += [
            f"'{'*' if option.repeated else ''}{flag}[{_zsh_text(option.help)}]{value}'" for flag in option.flags
        ]
    for number, positional in enumerate(command.positionals, 1):
        place = "*" if positional.repeated else str(number)
        arguments.append(f"'{place}:{_zsh_text(positional.metavar or '')}:{'_files' if positional.is_file else ''}'")
    return arguments


def zsh() -> str:
    names = programs()
    lines = [f"#compdef {' '.join(names)}", "# Completion for zsh. Made by scripts/make-docs.", ""]
    for name, program in names.items():
        for each in program.walk():
            function = "_" + "_".join([name, *each.path]).replace("-", "_")
            lines += [f"{function}() {{"]
            if each.children:
                lines += ["    local state line", "    local -a commands", "    commands=("]
                lines += [f"        '{child.path[-1]}:{_zsh_text(child.help)}'" for child in each.children]
                lines += ["    )", "    _arguments -C \\"]
                lines += [f"        {argument} \\" for argument in _zsh_arguments(each)]
                lines += ["        '1:command:->command' '*::argument:->argument'", "    case $state in"]
                lines += ["    command) _describe command commands ;;", "    argument)", "        case $line[1] in"]
                for child in each.children:
                    lines.append(f"        {child.path[-1]}) {function}_{child.path[-1].replace('-', '_')} ;;")
                lines += ["        esac", "        ;;", "    esac"]
            else:
                lines += [
                    "    _arguments \\",
                    *(f"        {argument} \\" for argument in _zsh_arguments(each)),
                    "        && return",
                ]
            lines += ["}", ""]
    lines += ["case $service in"]
    lines += [f'{name}) _{name.replace("-", "_")} "$@" ;;' for name in names]
    return "\n".join([*lines, "esac", ""])


def _fish_text(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", " ") + "'"


def fish(name: str) -> str:
    program = programs()[name]
    function = f"__{name.replace('-', '_')}_at"
    paths = " ".join(f"'{_name(each)}'" for each in program.walk() if each.path)
    lines = [
        "# Completion for fish. Made by scripts/make-docs.",
        "",
        f"function {function} --description 'Does the line name this command?'",
        "    set --local command ''",
        "    set --local skip no",
        "    for word in (commandline --tokenize --cut-at-cursor --current-process)[2..]",
        "        if test $skip = yes",
        "            set skip no",
        f"        else if contains -- $word {' '.join(_with_value(program))}",
        "            set skip yes",
        "        else if not string match --quiet -- '-*' $word",
        '            set --local next (string trim -- "$command $word")',
        f'            contains -- "$next" {paths or chr(39) * 2}; and set command $next',
        "        end",
        "    end",
        '    test "$command" = "$argv[1]"',
        "end",
        "",
        f"complete --command {name} --no-files",
    ]
    for each in program.walk():
        at = f"complete --command {name} --condition \"{function} '{_name(each)}'\""
        lines += [
            f"{at} --arguments {child.path[-1]} --description {_fish_text(child.help)}" for child in each.children
        ]
        if any(positional.is_file for positional in each.positionals):
            lines.append(f"{at} --force-files")
        for option in each.options:
            words = [
                f"--long-option {flag[2:]}" if flag.startswith("--") else f"--short-option {flag[1:]}"
                for flag in option.flags
            ]
            if option.metavar:
                words.append("--require-parameter" if option.is_file else "--exclusive")
            if option.is_file:
                words.append("--force-files")
            if option.choices:
                words.append(f"--arguments '{' '.join(option.choices)}'")
            lines.append(f"{at} {' '.join(words)} --description {_fish_text(option.help)}")
    return "\n".join([*lines, ""])


FILES: dict[str, Callable[[], str]] = {
    "share/man/man1/wazuh-comms.1": partial(manual, "wazuh-comms", 1, TOOL_ENDS),
    "share/man/man8/wazuh-comms-apid.8": partial(manual, "wazuh-comms-apid", 8, DAEMON_ENDS),
    "share/bash-completion/completions/wazuh-comms": bash,
    "share/zsh/site-functions/_wazuh-comms": zsh,
    "share/fish/vendor_completions.d/wazuh-comms.fish": partial(fish, "wazuh-comms"),
    "share/fish/vendor_completions.d/wazuh-comms-apid.fish": partial(fish, "wazuh-comms-apid"),
}
