"""Common parts of the command lines of `ussim`, `datagen` and `irsde`: exit codes, one-line errors, progress, option types.

Results go to stdout or to files, messages to stderr. On a terminal long work shows a bar with the time left, elsewhere
plain lines, one in ten seconds at most. Heavy imports happen inside functions: every `--help` stays fast.

    def main() -> None:
        sys.exit(console.run(cli, "ussim"))
"""

from __future__ import annotations

import logging
import math
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import Any

import click

from ..errors import DataError, ExitCode, UssimError
from ..extras import missing
from . import bars
from .encoding import use_nearest
from .stopping import Terminated, terminable

PACKAGES = ("ussim", "datagen", "irsde")
PICTURES = (".png", ".pdf", ".svg")
NUMBERS = ".mat"  # in place of a picture with its numbers beside it
PLAIN_INTERVAL = 10.0  # s between progress lines when stderr is not a terminal
SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 100, "show_default": True}


# --- running a command -----------------------------------------------------------------------------------------------


def run(
    command: click.Command,
    name: str,
    arguments: Sequence[str] | None = None,
    interrupted: str = "nothing half-written is left",
) -> int:
    """Run a click command and return its exit code; an error becomes one line on stderr.

    Parameters
    ----------
    name : the program's name, as the user types it.
    arguments : default `sys.argv[1:]`.
    interrupted : what is true after ctrl-C, said to the user.

    A command may return an exit code; returning None means done. `-v` adds the traceback.
    """
    use_nearest()
    set_verbose(False)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            try:
                with terminable():
                    outcome = command.main(arguments, prog_name=name, standalone_mode=False)
            finally:
                bars.close()  # before the last message: a line that is drawn again would come after it
        sys.stdout.flush()
        return int(outcome) if isinstance(outcome, int) else ExitCode.DONE
    except click.exceptions.NoArgsIsHelpError as error:
        note(error.format_message())
        return ExitCode.USAGE
    except Terminated:
        note(f"{name}: terminated; {interrupted}")
        return ExitCode.TERMINATED
    except (KeyboardInterrupt, click.Abort):
        note(f"{name}: interrupted; {interrupted}")
        return ExitCode.INTERRUPTED
    except BrokenPipeError:  # the reader of stdout left (`| head`): not an error, and nothing more can be written to it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.DONE
    except Exception as failure:
        if is_verbose():
            traceback.print_exc()
        reason = missing(failure) or failure
        code = exit_code(reason)
        where = reason.ctx.command_path if isinstance(reason, click.UsageError) and reason.ctx else name
        hint = "; this is a defect, -v shows where" if code == ExitCode.UNEXPECTED else ""
        note(f"{where}: error: {one_line(reason)}{hint}")
        return code


def exit_code(error: BaseException) -> int:
    """Return the exit code that an exception ends a command with: its own `exit_code` where it carries one."""
    if isinstance(error, click.FileError | OSError):
        return ExitCode.DATA
    if isinstance(error, click.ClickException):
        return ExitCode.USAGE
    own = getattr(error, "exit_code", None)
    if isinstance(own, int):
        return own
    if isinstance(error, MemoryError):
        return ExitCode.DEVICE
    return ExitCode.USAGE if isinstance(error, ValueError) else ExitCode.UNEXPECTED


def one_line(error: BaseException) -> str:
    """Return an exception as one line for the user."""
    if isinstance(error, click.ClickException):
        text = error.format_message()
    elif isinstance(error, OSError) and error.strerror:
        reason = error.strerror[0].lower() + error.strerror[1:]
        text = f"{error.filename}: {reason}" if error.filename is not None else reason
    elif isinstance(error, MemoryError):
        text = f"out of memory: {error}" if str(error) else "out of memory: try a smaller image or fewer scatterers"
    else:
        text = str(error) or type(error).__name__
        if not isinstance(error, ValueError | RuntimeError | UssimError):
            text = f"{type(error).__name__}: {text}"
    return " ".join(text.split())


# --- messages --------------------------------------------------------------------------------------------------------


def result(text: str) -> None:
    """Print a result to stdout; what no encoding has, of names of files that are not UTF-8, as escapes."""
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    if not (sys.stdout.isatty() and bars.say(text)):  # a terminal that shows a bar is written to above it
        click.echo(text)


def note(text: str) -> None:
    """Print a message to stderr, above the bar where one is shown."""
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    if not bars.say(text):
        click.echo(text, err=True)


def warn(text: str) -> None:
    """Print a warning to stderr."""
    note(f"warning: {text}")


def set_verbose(verbose: bool) -> None:
    """Show the packages' log (all of it, or warnings only) on stderr."""
    for package in PACKAGES:
        logger = logging.getLogger(package)
        logger.setLevel(logging.DEBUG if verbose else logging.WARNING)
        for handler in [h for h in logger.handlers if isinstance(h, _StderrHandler)]:
            logger.removeHandler(handler)
        logger.addHandler(_StderrHandler())


def is_verbose() -> bool:
    """Return whether -v was given."""
    return logging.getLogger(PACKAGES[0]).isEnabledFor(logging.DEBUG)


class _StderrHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        note(f"{record.name}: {record.getMessage()}")


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    warn(" ".join(str(message).split()))


# --- progress --------------------------------------------------------------------------------------------------------


class Progress:
    """Progress of `total` steps with an estimate of the time left; use as a context manager and call `advance`.

    A bar when stderr is a terminal, otherwise a line at most every `PLAIN_INTERVAL` seconds and one at the end.
    `total` may be set again on the way; 0 is not known yet.
    """

    def __init__(self, description: str, total: int, done: int = 0) -> None:
        """`done`: steps that an earlier run has finished; they do not count in the estimate."""
        self.description, self.total, self.done = description, total, done
        self._first = done
        self._bar: bars.Bar | None = None

    def __enter__(self) -> Progress:
        self._started = self._printed = time.monotonic()
        if sys.stderr.isatty():
            self._bar = bars.Bar(self.description, self.total, self.done).start()
        return self

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Count finished steps; `note` is shown beside them (a loss, a name)."""
        self.done += steps
        if self._bar is not None:
            self._bar.update(self.done, self.total, note)
        elif time.monotonic() - self._printed >= PLAIN_INTERVAL:
            self._print(note)

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        else:
            self._print("")

    def _print(self, extra: str) -> None:
        self._printed = time.monotonic()
        elapsed, fresh = self._printed - self._started, self.done - self._first
        share = f"/{self.total} ({100 * self.done / self.total:.0f} %)" if self.total else ""
        if self.done < self.total and fresh:
            timing = f", {duration(elapsed / fresh * (self.total - self.done))} left"
        else:
            timing = f", {duration(elapsed)}"
        note(f"{self.description}: {self.done}{share}{timing}{', ' + extra if extra else ''}")


@contextmanager
def working(description: str, expected: float | None = None) -> Iterator[None]:
    """One step of unknown length: a spinner with the time so far on a terminal, a line elsewhere.

    `expected` is an estimate in seconds, where there is one.
    """
    estimate = f" (about {duration(expected)})" if expected is not None else ""
    if not sys.stderr.isatty():
        note(f"{description}{estimate}")
        yield
        return
    bar = bars.Bar(description + estimate).start()
    try:
        yield
    finally:
        bar.stop()


@contextmanager
def tracking(description: str, expected: float | None = None) -> Iterator[Callable[[int, int], None]]:
    """One step that reports its share done: call what this gives with the parts done and their total.

    A bar with the time left on a terminal; elsewhere a line at the beginning, and one in `PLAIN_INTERVAL` seconds at most.
    `expected` is an estimate in seconds, where there is one before the step begins.
    """
    if expected is not None:
        description = f"{description} (about {duration(expected)})"
    if not sys.stderr.isatty():
        note(description)
        yield _plain_reporter(description)
        return
    bar = bars.Bar(description, counted=False).start()
    try:
        yield bar.update
        bar.update(max(bar.total, 1), max(bar.total, 1))
    finally:
        bar.stop()


def _plain_reporter(description: str) -> Callable[[int, int], None]:
    started = printed = time.monotonic()

    def report(done: int, total: int) -> None:
        nonlocal printed
        now = time.monotonic()
        if done and done < total and now - printed >= PLAIN_INTERVAL:
            printed = now
            left = (now - started) / done * (total - done)
            note(f"{description}: {100 * done / total:.0f} %, {duration(left)} left")

    return report


def duration(seconds: float) -> str:
    """Return a time span for people: "0.8 s", "2 min 10 s", "3 h 05 min"."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


# --- options ---------------------------------------------------------------------------------------------------------


def verbose_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add -v to a command."""
    return click.option(
        "-v",
        "--verbose",
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=lambda _context, _option, value: set_verbose(True) if value else None,
        help="Say more; show the traceback of an error.",
    )(command)


class ProbeType(click.ParamType):  # type: ignore[type-arg]  # generic in newer releases alone
    """A preset's name in any case, or a path to a TOML file; the value is the `Probe`."""

    name = "probe"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        """Turn what was typed into the value."""
        if not isinstance(value, str):
            return value
        from ..errors import DataError
        from ..probes import ProbeError, load_probe

        try:
            return load_probe(value)
        except ProbeError as error:
            if Path(value).is_file():  # the value is right, what lies there is not
                raise DataError(str(error)) from None
            self.fail(str(error), parameter, context)


class EngineType(click.ParamType):  # type: ignore[type-arg]  # generic in newer releases alone
    """The name of an engine; the value is that name."""

    name = "engine"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> str:
        """Turn what was typed into the value."""
        from ..engines import ENGINES

        base, _, index = str(value).partition(":")
        if base not in {*ENGINES, "cuda"} or (":" in str(value) and not (base == "cuda" and index.isdigit())):
            known = ", ".join(dict.fromkeys((*ENGINES, "cuda", "cuda:N")))
            self.fail(f"{value!r}: expected one of {known}", parameter, context)
        return str(value)


class PhantomType(click.ParamType):  # type: ignore[type-arg]  # generic in newer releases alone
    """The kind of a phantom; the value is its name."""

    name = "phantom"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> str:
        """Turn what was typed into the value."""
        from ..phantoms import check_name

        try:
            return check_name(str(value))
        except ValueError as error:
            self.fail(str(error), parameter, context)


class Number(click.ParamType):  # type: ignore[type-arg]  # generic in newer releases alone
    """A finite number, at least `minimum`, above `above`, below `below`, at most `maximum`."""

    name = "number"

    def __init__(
        self,
        minimum: float | None = None,
        above: float | None = None,
        below: float | None = None,
        maximum: float | None = None,
    ) -> None:
        self.minimum, self.above, self.below, self.maximum = minimum, above, below, maximum
        bounds = (("at least", minimum), ("above", above), ("below", below), ("at most", maximum))
        limits = " and ".join(f"{word} {bound:g}" for word, bound in bounds if bound is not None)
        self._expected = f"a number {limits}" if limits else "a finite number"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> float:
        """Turn what was typed into the value."""
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        wrong = (
            not math.isfinite(number)
            or (self.minimum is not None and number < self.minimum)
            or (self.above is not None and number <= self.above)
            or (self.below is not None and number >= self.below)
            or (self.maximum is not None and number > self.maximum)
        )
        if wrong:
            self.fail(f"expected {self._expected}, got {value}", parameter, context)
        return number


def check_output(path: Path, *inputs: Path) -> Path:
    """Return the path, if a file can be made there; found out before the work, not after it.

    Raises
    ------
    click.UsageError
        It is a folder, or one of the inputs.
    DataError
        Its folder is missing, or it cannot be written.
    """
    folder = path.parent
    if path.is_dir():
        raise click.UsageError(f"{path}: expected a file to write, got a folder")
    if not folder.is_dir():
        raise DataError(f"{path}: cannot be written: {folder} is not a folder")
    if not os.access(folder, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise DataError(f"{path}: cannot be written: permission denied")
    if any(_same_file(path, given) for given in inputs):
        raise click.UsageError(f"{path}: is the input; choose another output")
    return path


def check_outputs(outputs: Sequence[Path], inputs: Sequence[Path] = ()) -> None:
    """Check every file that a command will write, against its inputs and against each other, before the work.

    Raises
    ------
    click.UsageError
        As `check_output`, or two of the outputs are one file: the second would overwrite the first.
    """
    for path in outputs:
        check_output(path, *inputs)
    for one, other in combinations(outputs, 2):
        # Where names differ by case alone, some file systems have one file for both.
        alike = os.path.realpath(one).casefold() == os.path.realpath(other).casefold()
        if alike or _same_file(one, other):
            raise click.UsageError(
                f"{other}: would be written twice, as two outputs of this command"
                f"{'' if one == other else f' (the other one is {one})'}; give one of them another name"
            )


def check_picture(path: Path, *inputs: Path, beside: str | None = None, others: Sequence[Path] = ()) -> Path:
    """Return the path of a picture, if it and the file with the suffix `beside` next to it can be written.

    `others` are what the command writes too.
    """
    check_output(path, *inputs)
    if beside is not None and path.suffix.lower() == NUMBERS:
        check_outputs([path, *others], inputs)
        return path
    if path.suffix.lower() not in PICTURES:
        numbers = f", or {NUMBERS} for the numbers alone" if beside is not None else ""
        raise click.UsageError(f"{path}: expected a picture name ending in .png, .pdf or .svg{numbers}")
    check_outputs([path, *([] if beside is None else [path.with_suffix(beside)]), *others], inputs)
    return path


def is_inside(path: str | Path, folder: str | Path) -> bool:
    """Return whether a path is a folder or lies in it, whatever links lead there."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def _same_file(one: Path, other: Path) -> bool:
    """Return whether two paths are one file, by whatever names and links; both may be yet to be made."""
    if one.exists() and other.exists():
        return one.samefile(other)
    return os.path.realpath(one) == os.path.realpath(other)
