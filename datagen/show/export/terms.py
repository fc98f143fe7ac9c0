"""Licences of an export: which hold, by their SPDX names, and whether there may be an export at all."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ussim.errors import DataError

from ...store.layout import Terms

OWN = ("nifti", "dicom", "npy", "image")  # sources of the user's own files: who owns them says what may be done
# Licences of data, as spdx.org/licenses has them; hubs know them by the same names in small letters.
SPDX = (
    "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC-BY-3.0", "CC-BY-4.0", "CC-BY-NC-3.0", "CC-BY-NC-4.0",
    "CC-BY-NC-ND-4.0", "CC-BY-NC-SA-3.0", "CC-BY-NC-SA-4.0", "CC-BY-ND-4.0", "CC-BY-SA-3.0", "CC-BY-SA-4.0", "CC0-1.0",
    "CDLA-Permissive-1.0", "CDLA-Permissive-2.0", "CDLA-Sharing-1.0", "MIT", "ODC-By-1.0", "ODbL-1.0", "PDDL-1.0",
)  # fmt: skip


class LicenceError(DataError):
    """The source forbids what was asked for."""


@dataclass(frozen=True)
class Licence:
    """A licence that images are passed on under."""

    text: str  # as the source or the user names it
    spdx: str | None  # None: not one of SPDX

    @property
    def link(self) -> str:
        """Address of its text; "" where it has no public one."""
        return f"https://spdx.org/licenses/{self.spdx}.html" if self.spdx else ""


def licence_of(text: str) -> Licence:
    """Return a licence by its name, "CC BY-NC 4.0" and "cc-by-nc-4.0" alike; a remark in brackets is no part of the name."""
    plain = _plain(text.partition("(")[0])
    return Licence(text, next((name for name in SPDX if _plain(name) == plain), None))


def check_licence(sources: Sequence[Terms], licence: str | None) -> list[Licence]:
    """Return the licences that the images are passed on under; raises LicenceError where they may not be."""
    licences = set()
    for source in sources:
        if source.name in OWN:
            licences.add(licence or source.licence)
        elif source.redistributable:
            licences.add(source.licence)
        else:
            raise LicenceError(
                f"{source.title}: export refused: its images, and what is simulated from them, may not be passed on "
                f"({source.licence}; {source.terms})"
            )
    return [licence_of(text) for text in sorted(licences)]


def licence_text(licences: Sequence[Licence], sources: Sequence[Terms]) -> str:
    """Return what the licence file of an export says."""
    lines = ["The images of this dataset, and what was simulated from them, are passed on under:", ""]
    for licence in licences:
        lines.append(f"  {licence.text}")
        lines += [f"  SPDX-License-Identifier: {licence.spdx}", f"  {licence.link}"] if licence.spdx else []
    lines += ["", "Where the images come from:", ""]
    for source in sources:
        lines.append(f"  {source.title}: {source.licence}. {source.terms}")
        lines += [f"  Cite: {source.citation}"] if source.citation else []
    return "\n".join([*lines, ""])


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9.]", "", name.lower())
