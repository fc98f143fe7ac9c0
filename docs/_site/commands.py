"""The reference of the command lines, from the click commands themselves."""

from __future__ import annotations

import re
from importlib import import_module
from textwrap import dedent

import click


def cell(text: str) -> str:
    """Return text as it may stand in a table; click's columns are joined, and names in capitals are no HTML."""
    return (
        " ".join(text.split())
        .replace("|", "\\|")
        .replace("[", "\\[")
        .replace("<", "&lt;")
        .replace("*", "\\*")
        .replace("_", "\\_")
    )


def prose(text: str) -> str:
    """Return a docstring of click as Markdown: what follows its mark of unwrapped text is code."""
    parts = []
    for part in re.split(r"\n\s*\n", dedent(text).strip()):
        lines = part.split("\n")
        if "\b" in lines[0]:
            parts.append("```text\n" + dedent("\n".join(lines[1:])) + "\n```")
        else:
            parts.append(cell(part))
    return "\n\n".join(parts)


def options(command: click.Command, context: click.Context) -> str:
    """Return the table of a command's options."""
    records = [parameter.get_help_record(context) for parameter in command.get_params(context)]
    rows = [
        f"| `{' '.join(record[0].split()).replace('|', '¦')}` | {cell(record[1])} |" for record in records if record
    ]
    return "\n".join(["| option | what |", "|---|---|", *rows])


def reference(module: str, program: str) -> str:
    """Return the Markdown of all commands of a program."""
    group = import_module(module).cli
    top = click.Context(group, info_name=program)
    parts = [f"## {program}", prose(group.help or "")]
    for name in group.list_commands(top):
        command = group.get_command(top, name)
        context = click.Context(command, info_name=name, parent=top)
        usage = command.get_usage(context).removeprefix("Usage: ")
        parts += [
            f"### {program} {name}",
            f"```text\n{usage}\n```",
            prose(command.help or ""),
            options(command, context),
        ]
    return "\n\n".join(parts)
