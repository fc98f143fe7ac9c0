"""Common parts of the command lines of `ussim`, `datagen` and `irsde`: exit codes, one-line errors, progress, option types.

Results go to stdout or to files, messages to stderr. On a terminal long work shows a bar with the time left, elsewhere
plain lines with the time of day, one in ten seconds at first, fewer later. Heavy imports happen inside functions: every
`--help` stays fast.

    def main() -> None:
        sys.exit(console.run(cli, "ussim"))
"""

from __future__ import annotations

import logging
import math
import os
import shutil
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import Any

import click

from ..errors import DataError, ExitCode, UssimError
from ..extras import missing
from ..near import did_you_mean, hint
from . import bars
from .encoding import use_nearest
from .stopping import Terminated, terminable

PACKAGES = ("ussim", "datagen", "irsde")
PICTURES = (".png", ".pdf", ".svg")
NUMBERS = ".mat"  # in place of a picture with its numbers beside it
PLAIN_INTERVAL = 10.0  # s between the first progress lines when stderr is not a terminal
GROWTH, LONGEST_INTERVAL = 0.1, 600.0  # then a tenth of the time so far, at most so many s
_quiet = False
_is_loading = False  # a line that will be wiped is on the terminal
_at_work = 0  # pieces of work whose progress is plain lines: messages among them have the time of day
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
    global _at_work
    use_nearest()
    set_verbose(False)
    set_quiet(False)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            try:
                with terminable():
                    outcome = command.main(arguments, prog_name=name, standalone_mode=False)
            finally:
                bars.close()  # before the last message: a line that is drawn again would come after it
                _loaded()
                _at_work = 0
        sys.stdout.flush()
        return int(outcome) if isinstance(outcome, int) else ExitCode.DONE
    except click.exceptions.NoArgsIsHelpError as error:
        _tell(error.format_message())
        return ExitCode.USAGE
    except Terminated:
        _tell(f"{name}: terminated; {interrupted}")
        return ExitCode.TERMINATED
    except (KeyboardInterrupt, click.Abort):
        _tell(f"{name}: interrupted; {interrupted}")
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
        text = one_line(reason)
        more = "; this is a defect, -v shows where" if code == ExitCode.UNEXPECTED else hint(text)
        _tell(f"{where}: error: {text}{more}")
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
    _loaded()
    if not (sys.stdout.isatty() and bars.say(text)):  # a terminal that shows a bar is written to above it
        click.echo(text)


def note(text: str) -> None:
    """Print a message to stderr, above the bar where one is shown; with -q nothing."""
    if not is_quiet():
        _tell(text)


def _tell(text: str) -> None:
    """Print to stderr what -q does not silence: errors and warnings."""
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    _loaded()
    if not bars.say(text):
        click.echo(f"{time.strftime('%H:%M:%S')} {text}" if _at_work else text, err=True)


def loading(text: str) -> None:
    """Show on a terminal what is awaited, as imports that take seconds; the first thing said or drawn wipes it."""
    global _is_loading
    if has_bar():
        columns = shutil.get_terminal_size().columns
        sys.stderr.write(f"{text}..."[: columns - 1])
        sys.stderr.flush()
        _is_loading = True


def _loaded() -> None:
    """Wipe the line of `loading`."""
    global _is_loading
    if _is_loading:
        _is_loading = False
        sys.stderr.write("\r\x1b[2K")
        sys.stderr.flush()


def warn(text: str) -> None:
    """Print a warning to stderr."""
    _tell(f"warning: {text}")


def set_quiet(quiet: bool) -> None:
    """Leave out messages and progress; errors and warnings stay."""
    global _quiet
    _quiet = quiet


def is_quiet() -> bool:
    """Return whether -q was given."""
    return _quiet


def has_bar() -> bool:
    """Return whether progress is a bar: on a terminal that can draw one (TERM=dumb cannot)."""
    return sys.stderr.isatty() and os.environ.get("TERM", "") != "dumb" and not is_quiet()


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
        _tell(f"{record.name}: {record.getMessage()}")


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    warn(" ".join(str(message).split()))


# --- progress --------------------------------------------------------------------------------------------------------


class Progress:
    """Progress of `total` steps with an estimate of the time left; use as a context manager and call `advance`.

    A bar when stderr is a terminal, otherwise lines with the time of day, ever fewer of them, and one at the end.
    `total` may be set again on the way; 0 is not known yet.
    """

    def __init__(self, description: str, total: int, done: int = 0) -> None:
        """`done`: steps that an earlier run has finished; they do not count in the estimate."""
        self.description, self.total, self.done = description, total, done
        self._first = done
        self._bar: bars.Bar | None = None

    def __enter__(self) -> Progress:
        global _at_work
        self._started = self._printed = time.monotonic()
        if has_bar():
            _loaded()
            self._bar = bars.Bar(self.description, self.total, self.done).start()
        else:
            _at_work += 1
        return self

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Count finished steps; `note` is shown beside them (a loss, a name)."""
        self.done += steps
        if self._bar is not None:
            self._bar.update(self.done, self.total, note)
        elif self.done != self.total and _is_due(self._started, self._printed):  # the last line is printed at the end
            self._print(note)

    def __exit__(self, *_: object) -> None:
        global _at_work
        if self._bar is not None:
            self._bar.stop()
        else:
            self._print("")
            _at_work = max(0, _at_work - 1)

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
    _loaded()
    bar = bars.Bar(description + estimate).start()
    try:
        yield
    finally:
        bar.stop()


@contextmanager
def tracking(description: str, expected: float | None = None) -> Iterator[Callable[[int, int], None]]:
    """One step that reports its share done: call what this gives with the parts done and their total.

    A bar with the time left on a terminal; elsewhere a line at the beginning, and ever fewer with the time of day.
    `expected` is an estimate in seconds, where there is one before the step begins.
    """
    if expected is not None:
        description = f"{description} (about {duration(expected)})"
    if not has_bar():
        note(description)
        yield _plain_reporter(description)
        return
    _loaded()
    bar = bars.Bar(description, counted=False).start()
    try:
        yield bar.update
        bar.update(max(bar.total, 1), max(bar.total, 1))
    finally:
        bar.stop()


def _is_due(started: float, printed: float) -> bool:
    """Return whether another plain line is due: after ten seconds at first, later after a tenth of the time so far."""
    now = time.monotonic()
    return now - printed >= min(max(PLAIN_INTERVAL, GROWTH * (now - started)), LONGEST_INTERVAL)


def _plain_reporter(description: str) -> Callable[[int, int], None]:
    started = printed = time.monotonic()

    def report(done: int, total: int) -> None:
        nonlocal printed
        now = time.monotonic()
        if done and done < total and _is_due(started, printed):
            printed = now
            left = (now - started) / done * (total - done)
            clock = "" if _at_work else f"{time.strftime('%H:%M:%S')} "
            note(f"{clock}{description}: {100 * done / total:.0f} %, {duration(left)} left")

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


def verbose_option(command: Any) -> Any:
    """Add -v and -q to a command."""
    verbose = click.option(
        "-v",
        "--verbose",
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=lambda _context, _option, value: set_verbose(True) if value else None,
        help="Say more; show the traceback of an error.",
    )
    quiet = click.option(
        "-q",
        "--quiet",
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=lambda _context, _option, value: set_quiet(True) if value else None,
        help="Say nothing but results, warnings and errors.",
    )
    return verbose(quiet(command))


class ProbeType(click.ParamType):  # type: ignore[type-arg]  # generic in newer releases alone
    """A preset's name in any case, or a path to a TOML file; the value is the `Probe`."""

    name = "probe"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        """Turn what was typed into the value."""
        if not isinstance(value, str):
            return value
        from ..errors import DataError
        from ..probes import ProbeError, load_probe, one_row

        try:
            probe = load_probe(value)
            one_row(probe, value)
            return probe
        except ValueError as error:
            if isinstance(error, ProbeError) and Path(value).is_file():  # the value is right, what lies there is not
                raise DataError(str(error)) from None
            self.fail(str(error), parameter, context)

    def shell_complete(self, context: click.Context, parameter: click.Parameter, incomplete: str) -> list[Any]:
        """Return the presets that begin as typed, else files."""
        return _completed(_presets(), incomplete, files=True)


class NameType(click.ParamType):  # type: ignore[type-arg]  # generic in newer releases alone
    """The name of one of some things, completed by the shell; the value is that name, checked by the library."""

    def __init__(self, name: str, known: Callable[[], Iterable[str]]) -> None:
        self.name, self._known = name, known

    def shell_complete(self, context: click.Context, parameter: click.Parameter, incomplete: str) -> list[Any]:
        """Return the names that begin as typed."""
        return _completed(self._known(), incomplete)


def _presets() -> list[str]:
    """Return the names of the probes that come with the package."""
    from ..probes import probe_names

    return probe_names()


PROBE_NAME = NameType("probe", _presets)


class StoreType(click.ParamType):  # type: ignore[type-arg]  # generic in newer releases alone
    """A folder or URL of a store of pairs; the shell completes folders."""

    name = "store"

    def shell_complete(self, context: click.Context, parameter: click.Parameter, incomplete: str) -> list[Any]:
        """Return what tells the shell to complete folders."""
        from click.shell_completion import CompletionItem

        return [CompletionItem(incomplete, type="dir")]


def _completed(known: Iterable[str], incomplete: str, files: bool = False) -> list[Any]:
    """Return the names that begin as typed, in any case; files where none does and there may be some."""
    from click.shell_completion import CompletionItem

    found = [CompletionItem(name) for name in known if name.casefold().startswith(incomplete.casefold())]
    return found or ([CompletionItem(incomplete, type="file")] if files else [])


class EngineType(click.ParamType):  # type: ignore[type-arg]  # generic in newer releases alone
    """The name of an engine; the value is that name."""

    name = "engine"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> str:
        """Turn what was typed into the value."""
        from ..engines import ENGINES

        base, _, index = str(value).partition(":")
        if base not in {*ENGINES, "cuda"} or (":" in str(value) and not (base == "cuda" and index.isdigit())):
            known = ", ".join(dict.fromkeys((*ENGINES, "cuda", "cuda:N")))
            near = did_you_mean(base, (*ENGINES, "cuda"))
            self.fail(f"{value!r}: expected one of {known}{near}", parameter, context)
        return str(value)

    def shell_complete(self, context: click.Context, parameter: click.Parameter, incomplete: str) -> list[Any]:
        """Return the engines that begin as typed."""
        from ..engines import ENGINES

        return _completed(dict.fromkeys((*ENGINES, "cuda")), incomplete)


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

    def shell_complete(self, context: click.Context, parameter: click.Parameter, incomplete: str) -> list[Any]:
        """Return the phantoms that begin as typed."""
        from ..phantoms import KINDS

        return _completed(KINDS, incomplete)


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


def check_picture(
    path: Path, *inputs: Path, beside: str | None = None, others: Sequence[Path] = (), bare: bool = False
) -> Path:
    """Return the path of a picture, if it and the file with the suffix `beside` next to it can be written.

    `others` are what the command writes too, and with `bare` the picture alone.
    """
    from ..volumes.own import bare_path

    others = [*others, *([bare_path(path)] if bare else [])]
    check_output(path, *inputs)
    has_numbers = beside == ".npz"
    if has_numbers and path.suffix.lower() == NUMBERS:
        check_outputs([path, *others], inputs)
        return path
    if path.suffix.lower() not in PICTURES:
        numbers = f", or {NUMBERS} for the numbers alone" if has_numbers else ""
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
