"""The name that was meant, for messages about one that is not known."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable
from pathlib import Path


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return " (did you mean 'x'?)" of the known name nearest to one mistyped, "" where none is near."""
    by_letters = {other.casefold(): other for other in known}
    near = difflib.get_close_matches(name.casefold(), by_letters, n=1)
    return f" (did you mean {by_letters[near[0]]!r}?)" if near else ""


_ABSENT = re.compile(r"^(?:.*?: )??(\S[^:]*?)(?:: no such file| does not exist|: not a run folder|: no store of pairs)")
_NO_CHOICE = re.compile(r"'([^']*)' is not one of ('.*')\.?$")


def hint(text: str) -> str:
    """Return what an error about an absent file, or a word that is no choice, was probably meant to be; "" where unknown."""
    if absent := _ABSENT.match(text):
        return near_file(absent[1])
    if choice := _NO_CHOICE.search(text):
        return did_you_mean(choice[1], re.findall(r"'([^']*)'", choice[2]))
    return ""


def near_file(path: str) -> str:
    """Return " (did you mean 'x'?)" of the file or folder whose name is nearest to that of a path which is not there."""
    wanted = Path(path)
    if "://" in path or wanted.exists():
        return ""
    try:
        with os.scandir(wanted.parent) as entries:
            names = [entry.name for entry in entries]
    except OSError:
        return ""
    near = did_you_mean(wanted.name, names)
    return near.replace("'", f"'{wanted.parent}{os.sep}", 1) if near and str(wanted.parent) != "." else near
