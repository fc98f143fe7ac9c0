"""Rules that tell anatomy from what is derived from it or drawn on it: tables on names, headers and voxels.

Label maps are never images. Derived images (phase, maps, projections, subtractions) are skipped unless they are asked for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .files import stem

GE_IMAGE_KIND = 0x0043102F  # GE's private "image type": 0 magnitude, 1 phase, 2 real, 3 imaginary
_GE_KINDS = {1: "phase image", 2: "real part", 3: "imaginary part"}


@dataclass(frozen=True)
class Rule:
    """One kind of image that is not plain anatomy, by the words that DICOM and file names have for it."""

    reason: str
    values: frozenset[str]  # whole values of ImageType, FrameType or ComplexImageComponent, upper case
    names: str = ""  # regular expression of a whole word in a file's name or folder


def _rule(reason: str, values: str, names: str = "") -> Rule:
    return Rule(reason, frozenset(value.strip() for value in values.split(",")), names)


DERIVED = (
    _rule("phase image", "P, PHASE, PHASE MAP, PHASE_MAP", r"ph|phase|part-phase"),
    _rule("real part", "R, REAL", r"real|part-real"),
    _rule("imaginary part", "I, IMAGINARY", r"imaginary|imag|part-imag"),
    _rule("field map", "FIELD_MAP, FIELD MAP, B0 MAP, B0, B1, B1 MAP", r"fieldmap(hz)?|phasediff|b0map|b1map|fmap"),
    _rule("velocity map", "VELOCITY, VELOCITY MAP", r"velocity"),
    _rule("fractional anisotropy map", "FA", r"fa"),
    _rule("diffusion coefficient map", "ADC, ADC_UNSPECIFIED, DIFFUSION_ANISO, EADC, EXP_ADC", r"e?adc|colfa"),
    _rule("trace image", "TRACEW, TRACE, DIFFUSION_TRACE", r"tracew?"),
    _rule(
        "perfusion map",
        "CBF, CBV, MTT, TTP, RCBF, RCBV, RELCBF, RELCBV, RELMTT, PERFUSION_MAP, PBP, GBP",
        r"r?cbf|r?cbv|mtt|ttp|tmax",
    ),
    _rule("subtraction", "SUBTRACT, SUBTRACTION, SUB", r"subtraction|subtract"),
    _rule(
        "T1, T2 or other quantitative map",
        "T1 MAP, T2 MAP, T2_STAR MAP, T2STAR MAP, T1_MAP, T2_MAP, T2STAR_MAP, R2_MAP, R2STAR_MAP, R2 MAP, R2_STAR MAP",
        r"(t1|t2|t2star|r1|r2|r2star)-?_?map|qsm",
    ),
    _rule("projection (MIP)", "PROJECTION IMAGE, MIP, MNIP, MAX_IP, MIN_IP, MAXIP, MINIP", r"mip|minip|maxip"),
    _rule("reformatted (MPR)", "MPR, REFORMATTED, CPR", r"mpr|cpr"),
    _rule("screen save", "SCREEN SAVE, SCREENSAVE", r"screen-?save|screenshot"),
    _rule("parametric map", "PARAMETRIC_MAP, T_TEST", r"zstat\d*|tstat\d*"),
)
# Parametric Map Storage, by its SOP class rather than its ImageType.
_PARAMETRIC_CLASSES = ("1.2.840.10008.5.1.4.1.1.30",)

_LABEL_FOLDER = re.compile(
    r"labels?[-_ ]?(tr|ts|val)?|masks?|seg(mentation)?s?|annotations?|ground[-_ ]?truth|gt|contours?|rois?",
    re.IGNORECASE,
)
_LABEL_NAME = re.compile(
    r"(^|[_.\- ])(seg|segm|segmentation|mask|label|labels|labelmap|gt|roi|dseg|probseg|aseg|aparc([+.].*)?|"
    r"(brain|lesion|tumou?r|organ|liver|head)[-_]?(mask|seg)|parcellation|wmparc|ribbon)([+_.\- ]|$)",
    re.IGNORECASE,
)
_WARP_NAME = re.compile(
    r"(^|[_.\- ])(warp|inversewarp|\d?(inverse)?warp|xfm|displacement|deformation|jacobian)([_.\- ]|$)", re.IGNORECASE
)
# NIfTI intent codes that say what the numbers are: nifti1.h, NIFTI_INTENT_*.
_INTENTS = {
    1002: "label map, by its NIfTI intent",
    1003: "label map, by its NIfTI intent",
    1004: "matrices, by its NIfTI intent",
    1005: "matrices, by its NIfTI intent",
    1006: "displacement field, by its NIfTI intent",
    1007: "vector field, by its NIfTI intent",
    1008: "points, by its NIfTI intent",
    1009: "triangles, by its NIfTI intent",
    1010: "quaternions, by its NIfTI intent",
}


def label_reason(shown: str) -> str:
    """Return why the path of a file (relative to the root) makes it a label map or a warp, or ""."""
    *folders, name = shown.split("/")
    if _LABEL_NAME.search(
        name.split(".")[0]
        if name.lower().endswith((".nii.gz", ".hdr.gz", ".mgh.gz", ".npy"))
        else name.rpartition(".")[0]
    ):
        return "label map, by its name"
    if any(_LABEL_FOLDER.fullmatch(folder) for folder in folders):
        return "label map, by its folder"
    return "warp, by its name" if _WARP_NAME.search(name.partition(".")[0]) else ""


def derived_by_name(shown: str) -> str:
    """Return which derived image a file is by the last words of its name, or by a BIDS fmap folder; "" where none.

    Only what follows the last underscores counts, as dcm2niix writes it (`_ph`, `_ADC`): `fa_kim_t1` is of somebody.
    """
    *folders, name = shown.split("/")
    if any(folder.lower() == "fmap" for folder in folders):
        return "field map, by its folder"
    words = re.sub(r"(\.(nii|hdr|mgh))?(\.gz)?$|\.\w+$", "", name).lower().split("_")[1:]
    for rule in DERIVED:
        if any(re.fullmatch(rule.names, word) for word in words[-2:]) or "_".join(words[-2:]) in ("t1_map", "t2_map"):
            return f"{rule.reason}, by its name"
    return ""


def derived_by_sidecar(path: Path) -> str:
    """Return which derived image the JSON beside a NIfTI file says it is, or ""."""
    sidecar = path.with_name(stem(path) + ".json")
    if not sidecar.is_file():
        return ""
    try:
        said = json.loads(sidecar.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    if not isinstance(said, dict):
        return ""
    reason = derived_by_type([*_texts(said.get("ImageType")), *_texts(said.get("ComplexImageComponent"))])
    return f"{reason}, by its JSON sidecar" if reason else ""


def derived_by_intent(code: int) -> str:
    """Return what a NIfTI intent code makes of a file, or "" for plain images: statistics are 2 to 24."""
    return _INTENTS.get(code) or ("statistical map, by its NIfTI intent" if 2 <= code <= 24 else "")


def derived_by_type(values: Iterable[str]) -> str:
    """Return which derived image the values of ImageType (or FrameType, ComplexImageComponent) name, or "".

    The first two values (ORIGINAL or DERIVED, PRIMARY or SECONDARY) decide nothing: many archives write DERIVED for
    images that were only resampled or anonymized.
    """
    upper = [str(value).strip().upper() for value in values]
    for rule in DERIVED:
        if rule.values & set(upper):
            return rule.reason
    return ""


def derived_by_header(header: Any) -> str:
    """Return which derived image a whole DICOM file is, or "". Multi-frame files say it per frame: see `frame_type`."""
    if str(header.get("SOPClassUID", "")) in _PARAMETRIC_CLASSES:
        return "parametric map"
    if int(header.get("NumberOfFrames") or 1) > 1 and header.get("PerFrameFunctionalGroupsSequence"):
        return ""
    component = _texts(header.get("ComplexImageComponent"))
    return derived_by_type([*_texts(header.get("ImageType")), *component]) or _by_ge(header)


def _by_ge(header: Any) -> str:
    element = header.get(GE_IMAGE_KIND)
    value = getattr(element, "value", None)
    if isinstance(value, bytes):  # implicit VR: nobody said that it is a number
        value = int.from_bytes(value[:2], "little", signed=True)
    try:
        return _GE_KINDS.get(int(value), "")  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return ""


def looks_like_labels(voxels: np.ndarray) -> str:
    """Return the evidence that voxels are a label map (few whole values in large even regions), or "".

    A look at about 200,000 voxels in runs along the last axis; an image, even of 8 bits, has more values than 32 and
    equal neighbors in its background only.
    """
    flat = voxels.reshape(-1, voxels.shape[-1])
    sample = np.asarray(flat[:: max(1, flat.size // 200_000)])
    values = np.unique(sample)
    if not 2 <= len(values) <= 32 or (values != np.rint(values)).any():
        return ""
    inside = sample != values[0]
    pairs = inside[:, 1:] & inside[:, :-1]
    n_pairs = int(np.count_nonzero(pairs))
    equal = int(np.count_nonzero(pairs & (sample[:, 1:] == sample[:, :-1])))
    if n_pairs < 100 or equal < 0.85 * n_pairs:
        return ""
    return f"looks like a label map: {len(values)} whole values in large even regions"


def _texts(value: Any) -> list[str]:
    if value is None:
        return []
    if isinstance(value, str):
        return [value]
    try:
        return [str(item) for item in value]
    except TypeError:
        return [str(value)]
