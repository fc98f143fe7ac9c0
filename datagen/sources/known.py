"""A known collection stays known: its repeats, its look-alikes, and archives that were left packed."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from ussim.volumes.files import relative, sha256_of, subfolders, walk
from ussim.volumes.volume import Skipped, VolumeRef

# Names of folders (or of archives) by which a collection is known, whatever the case. Each pattern matches a whole name.
SIGNATURES = {
    "mrnet": r"mrnet([-_ ]?v?1(\.0)?)?",
    "brainmetshare": r"brainmetshare([-_]?3)?|stanford_release_brainmask|mets_stanford_releasemask_\w+|mets_\d{3}",
    "duke-breast": r"duke-breast-cancer-mri|breast_mri_\d{3}",
    "umd": r"umd_\d{6}_\d{3}",
    "duke-liver": r"duke[-_ ]?liver([-_ ].*)?",
}
LOOKS_LIKE = (
    "looks like {collection}: its terms hold for what is made of it; --source {collection} with its root, if it is"
)
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".7z", ".rar")


def looks_like(root: Path) -> str:
    """Return the collection that folders on the way to `root`, or up to three levels below it, are named after, or ""."""
    names = [part for part in root.resolve().parts[-4:]]
    level = [root]
    for _ in range(3):
        level = [child for folder in level for child in subfolders(folder)][:2000]
        names += [folder.name for folder in level]
    for collection, pattern in SIGNATURES.items():
        if any(re.fullmatch(rf"({pattern})( ?\(\d+\)| - copy)?", name, re.IGNORECASE) for name in names):
            return collection
    # MRNet's tree, renamed at the top.
    for folder in (root, root.parent, root.parent.parent, *subfolders(root)):
        lower = {child.name.lower() for child in subfolders(folder)}
        if lower & {"train", "valid", "val"} and any(
            {"axial", "coronal", "sagittal"} <= {plane.name.lower() for plane in subfolders(child)}
            for child in subfolders(folder)
        ):
            return "mrnet"
    return ""


def archives(root: Path) -> list[Skipped]:
    """Return the packed archives under a folder: nothing looks into them, so they are named."""
    return [
        Skipped(relative(path, root), "packed archive, not looked into: unpack it")
        for path in walk(root)
        if path.name.lower().endswith(ARCHIVES)
    ]


def without_repeats(root: Path, refs: Iterable[VolumeRef]) -> tuple[list[VolumeRef], list[Skipped]]:
    """Keep the first volume of each name; the others are skipped with both paths, and whether they are the same bytes."""
    kept: dict[str, VolumeRef] = {}
    skipped = []
    for ref in refs:
        first = kept.setdefault(ref.name, ref)
        if first is ref:
            continue
        here, there = (relative(one.paths[0], root) for one in (ref, first))
        same = sha256_of(ref.paths) == sha256_of(first.paths)
        reason = "a copy of" if same else "other data under the name of"
        skipped.append(Skipped(here, f"{reason} {there}", f"{reason} another file"))
    return list(kept.values()), skipped


def without_copies(root: Path, refs: Sequence[VolumeRef]) -> tuple[list[VolumeRef], list[Skipped]]:
    """Keep the first of files that are equal byte by byte; the others are skipped with both paths.

    Only files of one size are read, and of those only what begins alike to the end.
    """
    alike: dict[tuple[int, bytes], list[VolumeRef]] = defaultdict(list)
    sizes: dict[int, list[VolumeRef]] = defaultdict(list)
    for ref in refs:
        if len(ref.paths) == 1:
            sizes[Path(ref.paths[0]).stat().st_size].append(ref)
    for size, group in sizes.items():
        for ref in group if len({ref.paths[0] for ref in group}) > 1 else ():
            with open(ref.paths[0], "rb") as file:
                alike[size, file.read(65536)].append(ref)
    copies: dict[str, str] = {}
    for group in alike.values():
        first: dict[str, str] = {}
        paths = list(dict.fromkeys(ref.paths[0] for ref in group))
        for path in paths if len(paths) > 1 else ():
            original = first.setdefault(sha256_of((path,)), path)
            if original != path:
                copies[path] = original
    kept = [ref for ref in refs if ref.paths[0] not in copies or len(ref.paths) > 1]
    skipped = [
        Skipped(relative(path, root), f"a copy of {relative(original, root)}", "a copy of another file")
        for path, original in copies.items()
    ]
    return kept, skipped
