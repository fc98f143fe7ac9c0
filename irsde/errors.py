"""Errors of this package alone; those that it shares are `ussim.errors`."""

from __future__ import annotations

from ussim.errors import UssimError


class MetricUnavailable(UssimError, RuntimeError):
    """A metric that needs a file or a package which is not here; the message says which."""
