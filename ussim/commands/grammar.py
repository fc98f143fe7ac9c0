"""Common parts of the commands of the three programs: spellings, help in sections, errors in the words of options.

`Group` makes commands of the class `Command`; one that stands alone is made by `@click.command(cls=grammar.Command)`. A test
walks all parameters of all commands (tests/test_grammar.py) and says of each that is out of line what to do. Only click is
imported here.
"""

from __future__ import annotations

import copy
import re
import shutil
from collections.abc import Callable
from typing import Any

import click

from ..errors import UssimError
from ..near import did_you_mean
from . import console

# Spellings of one option: a command that has one of them takes all. Help shows those that are not in `QUIET_SPELLINGS`.
SPELLINGS = (
    ("-o", "--out", "--output"),
    ("--license", "--licence"),
    ("--angles", "--transmits"),  # numbers of waves; where --transmits chooses some of them it has no other name
)
QUIET_SPELLINGS = {"--output", "--licence", "--lines"}
# Last part of an option's name -> what stands for its value in help. Other numbers name their unit themselves.
UNITS = {
    "mm": "MM", "cm": "CM", "db": "DB", "deg": "DEG", "mhz": "MHZ", "us": "US", "ns": "NS", "percent": "PERCENT", "gb": "GB",
    "wavelengths": "WAVELENGTHS", "s": "S", "ms": "MS", "dpi": "DPI",
}  # fmt: skip
MESSAGES = "Messages"
GENERAL = {"--help", "--verbose", "--quiet", "--version"}
# Names in the library -> in the options, where they are others than the option's with underscores.
FIELDS = {
    "n_transmits": "angles",
    "transmits": "angles",
    "probes": "probe",
    "store": "data",
    "attenuation_db_cm_mhz": "attenuation",
    "sources": "source",
    "n_subelements": "sub_elements",
    "depths": "depth_mm",
    "jitter": "jitter_ns",
    "rms_delay": "aberration_ns",
    "element_errors": "dead_percent",
}
LEAST_WIDTH = 20
NARROW = 60  # columns below which help stands under its option, not beside it


class Heading:
    """The heading of the options below it in a command's decorators; see `section`."""

    def __init__(self, title: str) -> None:
        self.title = title


def section(title: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Begin a section of a command's help: the options that stand below this decorator are under `title`."""

    def mark(command: Callable[..., Any]) -> Callable[..., Any]:
        if not hasattr(command, "__click_params__"):
            command.__click_params__ = []  # type: ignore[attr-defined]  # where click keeps them
        command.__click_params__.append(Heading(title))  # type: ignore[attr-defined]
        return command

    return mark


class Formatter(click.HelpFormatter):
    """Help as wide as the terminal, be it narrower than click's least of 50 columns."""

    def __init__(self, indent_increment: int = 2, width: int | None = None, max_width: int | None = None) -> None:
        if width is None:
            width = max(min(shutil.get_terminal_size().columns, max_width or 80) - 2, LEAST_WIDTH)
        super().__init__(indent_increment, width, max_width)


class Context(click.Context):
    """The context of a command, whose help `Formatter` writes."""

    formatter_class = Formatter


class Command(click.Command):
    """A command that takes every spelling of its options, and speaks of its options where the library names its fields."""

    context_class = Context

    def __init__(
        self, name: str | None, *, params: list[Any] | None = None, loads: str | None = None, **options: Any
    ) -> None:
        self.loads = loads  # the package whose import takes seconds, in words
        self.headings: dict[int, str] = {}  # id of an option -> its section
        title, kept = "", []
        for parameter in params or []:
            if isinstance(parameter, Heading):
                title = parameter.title
                continue
            kept.append(parameter)
            self.headings[id(parameter)] = title
        super().__init__(name, params=kept, **options)
        _complete(self)

    def get_params(self, context: click.Context) -> list[click.Parameter]:
        """Return the parameters, values named by their units."""
        parameters = super().get_params(context)
        for parameter in parameters:
            if isinstance(parameter, click.Option) and parameter.metavar is None:
                parameter.metavar = _metavar(parameter)
        return parameters

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, under their headings where there are some."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(context):
            if not isinstance(parameter, click.Option):
                continue  # usage and the text above name the arguments
            shown = copy.copy(parameter)
            shown.opts = [name for name in parameter.opts if name not in QUIET_SPELLINGS] or parameter.opts
            record = shown.get_help_record(context)
            if record is not None:
                sections.setdefault(self.section_of(parameter), []).append(record)
        for title in sorted(sections, key=lambda title: title == MESSAGES):
            with formatter.section(title):
                _write(formatter, sections[title])

    def section_of(self, parameter: click.Parameter) -> str:
        """Return the heading that help has a parameter under."""
        if not any(self.headings.values()):
            return "Options"
        is_general = GENERAL & set(parameter.opts)
        return MESSAGES if is_general else self.headings.get(id(parameter)) or "Options"

    def invoke(self, context: click.Context) -> Any:
        """Run the command; an error of a setting names the option that sets it."""
        console.loading(f"loading {self.loads}" if self.loads else f"{context.command_path} begins")
        try:
            return super().invoke(context)
        except (ValueError, UssimError) as error:
            if len(error.args) == 1 and isinstance(error.args[0], str):
                error.args = (in_options(error.args[0], context),)
            raise


class Group(click.Group):
    """A program: commands, -v and -q before them too, and the nearest command to one that is not known."""

    command_class = Command
    context_class = Context

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        console.verbose_option(self)

    def resolve_command(
        self, context: click.Context, arguments: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command; those of modules not imported yet are named in the error too."""
        name = arguments[0]
        if self.get_command(context, name) is None and not name.startswith("-") and not context.resilient_parsing:
            known = self.list_commands(context)
            raise click.UsageError(
                f"no command {name!r}{did_you_mean(name, known)}: there are {', '.join(known)}", context
            )
        return super().resolve_command(context, arguments)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands; what does not fit on a line goes on the next instead of being cut."""
        rows = []
        for name in self.list_commands(context):
            command = self.get_command(context, name)
            if command is not None and not command.hidden:
                rows.append((name, command.get_short_help_str(200)))
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, then the commands."""
        records = [p.get_help_record(context) for p in self.get_params(context)]
        with formatter.section("Options"):
            _write(formatter, [record for record in records if record])
        self.format_commands(context, formatter)


def in_options(text: str, context: click.Context) -> str:
    """Return an error of the library in the words of a command line: its options in place of fields and arguments.

    A field that a --config file sets keeps its name, which is the one in the file.
    """
    options = {p.name: p for p in context.command.params if isinstance(p, click.Option) and p.name}
    has_file = context.params.get("config") is not None

    def option(field: str) -> str | None:
        """Return the spelling of the option that sets a field; None where no option does."""
        name = field if field in options else FIELDS.get(field, "")
        found = options.get(name)
        if found is None and name:  # the parameter is called by another spelling of it
            found = next((p for p in options.values() if f"--{name}" in p.opts), None)
        if found is None:
            return None
        given = context.get_parameter_source(str(found.name)) is click.core.ParameterSource.COMMANDLINE
        return None if has_file and not given else _spelling(found, field)

    def begins(match: re.Match[str]) -> str:
        named = option(match[1])
        return f"{named}:" if named else match[0]

    def set_to(match: re.Match[str]) -> str:
        named = option(match[1])
        return f"{named} {match[2]}" if named else match[0]

    def within(match: re.Match[str]) -> str:
        return option(match[0]) or match[0]

    text = re.sub(r"^(\w+):", begins, text)
    text = re.sub(r"\b(\w+)=\"([^\"]+)\"", set_to, text)
    return re.sub(r"(?<![\w.\-/'\"])[a-z]+(?:_[a-z]+)+(?![\w./(='\"])", within, text)


def _spelling(parameter: click.Option, field: str) -> str:
    """Return how an option is written: as the field is called where that is a spelling of it, else its first long one."""
    same = f"--{field.replace('_', '-')}"
    long = [name for name in parameter.opts if name.startswith("--") and name not in QUIET_SPELLINGS]
    return same if same in parameter.opts else (long or parameter.opts)[0]


def _complete(command: click.Command) -> None:
    """Give options all of their spellings."""
    options = [p for p in command.params if isinstance(p, click.Option)]
    taken = {name for p in options for name in (*p.opts, *p.secondary_opts)}
    for option in options:
        for row in SPELLINGS:
            is_selection = "--transmits" in option.opts and not _counts(option)
            if set(row) & set(option.opts) and not is_selection:
                here = [name for name in row if name in option.opts or name not in taken]
                option.opts = [*here, *(name for name in option.opts if name not in here)]


def _counts(option: click.Option) -> bool:
    return isinstance(option.type, click.IntRange) or option.type is click.INT


def _metavar(option: click.Option) -> str | None:
    """Return what stands for the value of an option that does not say: its unit, or N of a whole number."""
    if option.is_flag or option.count or isinstance(option.type, click.Choice):
        return None
    if isinstance(option.type, click.Path):
        return "DIR" if not option.type.file_okay else "FILE"
    if _counts(option):
        return " ".join(["N"] * max(option.nargs, 1))
    if option.name in ("device", "engine", "probe"):
        return "NAME"
    last = max(option.opts, key=len).rpartition("-")[2]
    return UNITS.get(last) if option.nargs == 1 else None


def _write(formatter: click.HelpFormatter, rows: list[tuple[str, str]]) -> None:
    """Write options and what they are; in a narrow terminal below each other."""
    if formatter.width >= NARROW:
        formatter.write_dl(rows)
    else:
        formatter.write_dl(rows, col_max=8)
