"""One line at the bottom of a terminal that says how far work is; messages go above it, on lines of their own.

What is said is chosen by the width of the terminal: count and time always, then what the work is, a note, a bar.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.text import Text

LEAST_BAR, LARGEST_BAR = 8, 40  # cells
LEAST_WORDS = 6  # cells of a description that is cut short
_shown: list[Bar] = []


class Bar:
    """The line of one piece of work; `start` it, `update` it, `stop` it."""

    def __init__(self, description: str, total: int = 0, done: int = 0, counted: bool = True) -> None:
        """Describe work of `total` steps (0: not known).

        `done` steps were finished before and do not count in the time left. A share is shown where steps are not `counted`.
        """
        from rich.console import Console
        from rich.live import Live

        self.description, self.total, self.done, self.note, self.counted = description, total, done, "", counted
        self._first, self._started = done, time.monotonic()
        self._updated = self._started
        # What is written to stderr by others goes above the line too. Results on stdout are no business of it.
        self._live = Live(
            self, console=Console(stderr=True), refresh_per_second=10, redirect_stdout=False, redirect_stderr=True
        )

    def start(self) -> Bar:
        """Show the line."""
        self._live.start()
        _shown.append(self)
        return self

    def stop(self) -> None:
        """Leave the line as it is last."""
        if self in _shown:
            _shown.remove(self)
        self._live.stop()

    def update(self, done: int, total: int, note: str = "") -> None:
        """Say how many steps are done of how many."""
        self.done, self.total, self.note, self._updated = done, total, note, time.monotonic()

    def say(self, text: str) -> None:
        """Print a message above the line."""
        self._live.console.print(text, markup=False, highlight=False, emoji=False, soft_wrap=True)

    def timing(self) -> str:
        """Return the time left where it can be told, else the time so far."""
        now, fresh = time.monotonic(), self.done - self._first
        if self.total and self.done < self.total and fresh > 0:
            left = (self._updated - self._started) / fresh * (self.total - self.done) - (now - self._updated)
            return f"{clock(left)} left"
        return clock(now - self._started)

    def counts(self) -> tuple[str, ...]:
        """Return how far it is, in long and in short."""
        if not self.total:
            return (str(self.done) if self.counted and self.done else "",)
        share = f"{100 * self.done // self.total} %"
        return (f"{self.done}/{self.total}", share) if self.counted else (share,)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        from rich.text import Text

        ending, line = ("...", "-") if options.ascii_only else ("…", "━")
        width = options.max_width
        before, cells, after = layout(width, self.description, self.counts(), self.timing(), self.note, ending)
        full = round(cells * min(self.done / self.total, 1)) if self.total else 0
        bar = Text.assemble((line * full, "green"), (line * (cells - full), "bright_black"))
        pieces = [piece for piece in (Text(before), bar, Text(after)) if piece]
        yield Text(" ", no_wrap=True, overflow="crop").join(pieces)


def say(text: str) -> bool:
    """Print a message above the line that is shown; False where none is."""
    if not _shown:
        return False
    _shown[-1].say(text)
    return True


def close() -> None:
    """Stop every line that is shown, as that of work which an error ended."""
    for bar in reversed(_shown.copy()):
        bar.stop()


def layout(
    width: int, description: str, counts: Sequence[str], timing: str, note: str, ending: str = "…"
) -> tuple[str, int, str]:
    """Return what fits into `width` cells: the text before the bar, the cells of the bar (0: none), the text after it.

    Count and time come first, in their longest form that fits; then the description, cut short if need be; then as much of
    the note as fits, by its commas; then the bar.
    """
    from rich.cells import cell_len, set_cell_size

    clocked = timing.removesuffix(" left")
    forms = [f"{count} {words}".strip() for count in counts for words in (timing, clocked)] + [counts[-1] or clocked]
    after = next((form for form in forms if cell_len(form) <= width), set_cell_size(forms[-1], max(width, 0)))
    free = width - cell_len(after) - 1
    before = description if cell_len(description) <= free else ""
    if not before and free >= LEAST_WORDS:
        before = set_cell_size(description, free - len(ending)).rstrip() + ending
    free -= cell_len(before) + 1 if before else 0
    pieces = note.split(", ") if note and before == description else []
    while pieces and cell_len(", ".join(pieces)) > free:
        pieces.pop()
    if pieces:
        after = f"{after} {', '.join(pieces)}"
        free -= cell_len(", ".join(pieces)) + 1
    return before, min(free, LARGEST_BAR) if free >= LEAST_BAR and before else 0, after


def clock(seconds: float) -> str:
    """Return a time span in a few cells: "0:00:42", "1262:12:04"."""
    whole = max(0, round(seconds))
    return f"{whole // 3600}:{whole % 3600 // 60:02d}:{whole % 60:02d}"
