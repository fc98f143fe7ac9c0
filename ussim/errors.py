"""The errors of the three packages, and the exit code that each ends a command with.

An error's message is one line that says what was expected, what came and what to do. Every error of `ussim`, `datagen` and
`irsde` that a user can cause is a `UssimError`, so that a caller can catch all of them at once, and a `ValueError` or a
`RuntimeError` besides, as code that knows nothing of this package expects.
"""

from __future__ import annotations

import enum


class ExitCode(enum.IntEnum):
    """Exit code of a command."""

    DONE = 0
    UNEXPECTED = 1  # a defect of the program
    USAGE = 2  # wrong option or value on the command line
    DATA = 3  # bad or missing data, a file that cannot be read or written
    PARTIAL = 4  # finished, with samples set aside
    CHANGED = 5  # resume refused: the recipe changed
    DEVICE = 6  # no such device, a device that failed, out of memory, or a package that is not installed
    INCOMPLETE = 7  # finished, with more than a small share of the samples set aside
    INTERRUPTED = 130  # ctrl-C
    TERMINATED = 143  # SIGTERM


class UssimError(Exception):
    """An error that a user can cause and mend.

    Attributes
    ----------
    exit_code : the exit code of a command that ends with it, `ExitCode`.
    """

    exit_code: int = ExitCode.UNEXPECTED


class ConfigError(UssimError, ValueError):
    """A setting that cannot be: the message names it, what was expected and what came."""

    exit_code = ExitCode.USAGE


class DataError(UssimError, ValueError):
    """Data that is missing or cannot be used: the message names the file, what was expected, what came and what to do."""

    exit_code = ExitCode.DATA


class DeviceError(UssimError, RuntimeError):
    """No such engine or device, a device that failed, or not enough memory: the message says what to use instead."""

    exit_code = ExitCode.DEVICE


class MissingPackageError(UssimError, ImportError):
    """A package that is not installed, or cannot be imported: the message says which, and what installs it."""

    exit_code = ExitCode.DEVICE


class EngineError(DeviceError):
    """No such engine or device, or not enough memory: the message says what to use instead."""


class ExistsError(UssimError, ValueError):
    """There is something at the output, and neither resuming nor overwriting was asked for."""

    exit_code = ExitCode.USAGE


class ChangedError(UssimError, RuntimeError):
    """Output made with other settings or from other data: resuming would mix the two."""

    exit_code = ExitCode.CHANGED
