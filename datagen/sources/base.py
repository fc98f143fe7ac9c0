"""Base of every source: a name, its license and terms, where its volumes are, and how one is loaded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from ussim.errors import DataError
from ussim.volumes.volume import Found, Volume, VolumeRef

from .scene import Label, Scene


class NothingFound(DataError):
    """A folder in which a source finds nothing of its own, as opposed to something wrong with it."""

    reason = ""  # why the first of the files that looked right cannot be used


@dataclass(frozen=True)
class Selection:
    """Choice of what is taken from a folder of one's own, and whose it is: the part of a recipe that `find` needs."""

    subjects: str | None = None  # regular expression or CSV file; None = the rules of `sources.subjects`
    frames: str | int = "first"  # of several at one place: "first", "all", or so many
    include_derived: bool = False  # phase images, maps, projections and the like
    # Of what is made, not found: how many, of which seed, of which kinds (None: all).
    count: int | None = None
    seed: int = 0
    kinds: tuple[str, ...] | None = None


def frames_asked(value: str | int) -> str | int:
    """Return "first", "all" or a number from 1; raises DataError for anything else."""
    text = str(value)
    number: str | int = int(text) if text.isascii() and text.isdigit() else value
    if number in ("first", "all") or (isinstance(number, int) and number >= 1):
        return number
    raise DataError(f"frames: expected first, all or a number from 1, got {value!r}")


def frames_chosen(count: int, frames: str | int) -> list[int]:
    """Return which of `count` images of the same slices are taken: the first, all, or so many spread evenly."""
    if frames == "all":
        return list(range(count))
    wanted = 1 if frames == "first" else min(int(frames), count)
    return [index * count // wanted for index in range(wanted)]


class Source(ABC):
    """One collection of MRI. An adapter knows the layout on disk; the rest of the package does not.

    `find` is cheap (names and headers, no voxels), deterministic and sorted; files it cannot use come back in
    `.skipped` with reasons. `load` reads one volume. Both raise DataError.
    """

    name: str
    title: str
    licence: str
    citation: str
    terms: str  # what the user agreed to, in a sentence or two
    redistributable: bool  # may derived images be passed on?
    layout: str  # what is expected under the root
    where: str = ""  # where to obtain it
    folders: tuple[str, ...] = ()  # names a download usually has, looked for in . and ./data
    default_planes: tuple[str, ...] = ()  # () = each volume's planes of near-square pixels
    needs_root: bool = True
    makes_images: bool = False  # of nothing that is cut into slices: `scene` and `identity` are its own
    is_labels: bool = False  # whether its volumes are label maps, from which tissues make images
    side: int = 0  # pixels of an image that is made
    labels: tuple[Label, ...] = ()  # of a source whose images come with labels: what they are called
    selection: Selection = Selection()

    @abstractmethod
    def find(self, root: str | Path | None) -> Found:
        """Every usable volume under `root`; raises DataError, saying what was expected, where there is none."""

    @abstractmethod
    def load(self, ref: VolumeRef) -> Volume:
        """Read one volume."""

    def scene(self, ref: VolumeRef, dynamic_range_db: float) -> Scene | None:
        """Return the image of a volume that is made, not cut, at its own size; None where slices are cut of it."""
        return None

    def identity(self, ref: VolumeRef) -> str:
        """Return the SHA-256 of what an image is made of; "" where it is cut from files, which have their own."""
        return ""

    def base(self, root: str | Path | None) -> Path:
        """`root` as a path that exists; raises DataError where it does not."""
        if root is None:
            raise DataError(f"{self.name}: no root given; expected {self.layout}")
        path = Path(root).expanduser()
        if not path.exists():
            raise DataError(f"{self.name}: {path} does not exist; expected {self.layout}")
        return path

    def some(self, root: str | Path, found: Found) -> Found:
        """`found`, or a DataError that says what was expected where it is empty."""
        if not found:
            raise self.nothing_found(root, found)
        return found

    def nothing_found(self, root: str | Path, found: Found | None = None) -> DataError:
        """Return the error of an empty search: what was expected, and the first reason why what is there does not do."""
        reason = ""
        if found is not None and found.skipped:
            first = found.skipped[0]
            reason = f"{len(found.skipped)} skipped, the first: {first.path}: {first.reason}"
        shown = f" ({reason})" if reason else ""
        error = NothingFound(f"{self.name}: no usable volume in {root}{shown}; expected {self.layout}")
        error.reason = reason
        return error
