"""Write docs/reference/cli.md from the commands themselves: arguments, options, defaults and help.

python -m tests.support.cli_page     write the page
page() -> its text; tests/test_docs.py compares it with the file
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from cli.main import app

PAGE = Path(__file__).resolve().parents[2] / "docs/reference/cli.md"
TOP = """# The command line

`resight COMMAND --help` prints the same text: `python -m tests.support.cli_page` writes this page from the commands.
Results go to standard output, messages to standard error. [Exit codes](exit-codes.md) are the same for all commands.
Almost every command has `--format table|json|csv`, default `table`; the tables below leave it out.
"""
FORMAT = "output format; json and csv are for programs"


def commands() -> Iterator[tuple[str, Any]]:
    """Yield the name and the definition of each command, groups resolved."""
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        below = getattr(command, "commands", None)
        if below is None:
            yield name, command
        else:
            yield from ((f"{name} {inner}", of) for inner, of in below.items())


def page() -> str:
    groups: dict[str, list[str]] = {}
    for name, _ in commands():
        group, _, inner = name.rpartition(" ")
        link = f"[{inner}](#resight-{name.replace(' ', '-')})"
        groups.setdefault(group, []).append(link)
    listed = [f"- {group} {' · '.join(links)}".replace("  ", " ") for group, links in groups.items()]
    sections = ("\n".join(_section(*one)) for one in commands())
    return "\n".join([TOP, *listed, "", *sections]).rstrip("\n") + "\n"


def _section(name: str, command: Any) -> Iterator[str]:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    words = " ".join(map(_placeholder, arguments))
    text, _, example = inspect.cleandoc(command.help).partition("Example: ")
    yield f"## resight {name}\n"
    yield from (" ".join(part.split()) + "\n" for part in text.strip().split("\n\n"))
    yield "```sh"
    yield f"resight {name} {words}".strip() + " [OPTIONS]" * (len(arguments) < len(command.params))
    yield from [" ".join(example.split())] if example else []
    yield "```\n"
    if listed := [p for p in command.params if p.help != FORMAT]:
        yield "| argument or option | default | meaning |\n|---|---|---|"
        context = command.make_context(name, [], resilient_parsing=True)
        yield from (_row(p, context) for p in listed)
        yield ""


def _row(parameter: Any, context: Any) -> str:
    if parameter.param_type_name == "argument":
        name = re.sub(r"^\[(.*)\]$", r"\1", _placeholder(parameter))
    else:
        name = ", ".join((*parameter.opts, *parameter.secondary_opts))
        name += "" if parameter.is_flag else f" {_kind(parameter, context)}"
    meaning = _code(parameter.help or "") + _range(parameter)
    return f"| `{_cell(name)}` | {_default(parameter)} | {_cell(meaning)} |"


def _placeholder(argument: Any) -> str:
    name = argument.metavar or argument.name.upper()
    name += "..." * (argument.nargs == -1)
    return name if argument.required or name.startswith("[") else f"[{name}]"


def _kind(parameter: Any, context: Any) -> str:
    """Return the type of a value: its choices, or one word."""
    kind = re.sub(r"^list\[(.*)\]$", r"\1", parameter.display_type(context).strip("<>"))
    return kind if "|" in kind else kind.split()[0].upper()


def _range(parameter: Any) -> str:
    match parameter.min, parameter.max:
        case None, None:
            return ""
        case low, None:
            return f"; {low} or more"
        case None, high:
            return f"; at most {high}"
        case low, high:
            return f"; {low} to {high}"


def _default(parameter: Any) -> str:
    value = parameter.default
    if parameter.required:
        return "required"
    if isinstance(value, bool):  # a flag, as the command line writes it
        value = next(iter(parameter.opts if value else parameter.secondary_opts), None)
    return "" if value in (None, "", []) else f"`{_cell(str(value))}`"


def _code(text: str) -> str:
    """Keep words that Markdown would take for markup, such as globs and <names>, as code."""
    return re.sub(r"(?<![`\w])('[^']*\*[^']*'|\S*[<*]\S*)", r"`\1`", text)


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


if __name__ == "__main__":
    PAGE.write_text(page())
