"""Examples that the shipped model learns from: images simulated twice or more, their envelope kept in decibels.

    plan(volumes, counts) ─► [Example, ...] ─► simulate ─► save ─► load_examples

An example is one high-quality image under one probe and field, with several draws of speckle. Half of the fields are zoomed,
as clinical pictures show fewer and larger grains of speckle than a probe's whole field does.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ussim.errors import DataError

PROBES = ("C5-2v", "L11-5v", "L12-3v", "P4-2v")
PHANTOMS = ("lesions", "liver", "layers", "muscle", "vessel", "calcifications", "heart", "fetus", "cysts")
SIZE = 128  # pixels a side
ZOOM = (1.5, 5.0)  # of half of the fields
TRANSMITS = (3, 15)
CONTRAST = (30.0, 65.0)  # dB of scatterer amplitude between white and black
PHANTOM_RANGE = 60.0  # dB from white to black of a phantom's grey image
LESION_SHARE = 0.4  # of the phantoms: what is lost first is faint discs
SCALES = (0.5, 1.0)  # side of a random cut, of the square slice
FLOOR = 1e-6  # of the largest envelope: -120 dB, less is silence


@dataclass(frozen=True)
class Example:
    """Parts of one example.

    Attributes
    ----------
    subject : whose image it is; "phantom" of procedural ones.
    image : number of the slice, or the kind of phantom.
    probe : name of the probe.
    zoom : side of the probe's field over that of this one.
    n_transmits : waves that are compounded.
    contrast : dB of scatterer amplitude between white and black.
    seed : of cut, field and speckle.
    split : "train" or "test"; tests have the probe's own settings, or zoom 2.5.
    """

    subject: str
    image: str
    probe: str
    zoom: float
    n_transmits: int
    contrast: float
    seed: int
    split: str


@dataclass(frozen=True, eq=False)
class Examples:
    """Simulated examples.

    Attributes
    ----------
    plan : n examples.
    hq : (n, nz, nx) uint8, the grey images.
    envelope_db : (n, draws, nz, nx) float16, 0 dB the largest of each draw.
    """

    plan: tuple[Example, ...]
    hq: NDArray[np.uint8]
    envelope_db: NDArray[np.float16]

    def __len__(self) -> int:
        return len(self.plan)

    def select(self, keep: Callable[[Example], bool]) -> Examples:
        """Return the examples for which `keep` is true."""
        chosen = [i for i, example in enumerate(self.plan) if keep(example)]
        return Examples(tuple(self.plan[i] for i in chosen), self.hq[chosen], self.envelope_db[chosen])

    def digest(self) -> str:
        """SHA-256 of plan and arrays, the first 16 hexadecimal digits."""
        text = json.dumps([asdict(example) for example in self.plan]).encode()
        return hashlib.sha256(text + self.hq.tobytes() + self.envelope_db.tobytes()).hexdigest()[:16]


def plan(
    slices: Mapping[str, int], counts: Mapping[str, int], n_phantoms: int, n_tests: int, seed: int
) -> list[Example]:
    """Draw examples: of each subject `counts` to train on and `n_tests` to test on per probe and field.

    Parameters
    ----------
    slices : subject -> how many slices it has.
    """
    rng = np.random.default_rng(seed)
    drawn: list[Example] = []

    def add(subject: str, image: str, probe: str, **given: Any) -> None:
        own: dict[str, Any] = {
            "zoom": float(rng.uniform(*ZOOM)) if rng.random() < 0.5 else 1.0,
            "n_transmits": int(rng.integers(TRANSMITS[0], TRANSMITS[1] + 1)),
            "contrast": float(rng.uniform(*CONTRAST)),
            "seed": int(rng.integers(2**31)),
            "split": "train",
        }
        drawn.append(Example(subject, image, probe, **(own | given)))

    for subject, n_slices in slices.items():
        order = rng.permutation(n_slices)
        for k in range(counts.get(subject, 0)):
            add(subject, str(order[k % n_slices]), PROBES[k % len(PROBES)])
    for k in range(n_phantoms):
        kind = "lesions" if rng.random() < LESION_SHARE else str(rng.choice(PHANTOMS[1:]))
        add("phantom", kind, PROBES[k % len(PROBES)])
    own = {"n_transmits": 15, "contrast": 40.0, "split": "test"}
    for subject, n_slices in slices.items():
        places = np.linspace(0.35, 0.65, n_tests) * (n_slices - 1)
        for probe in PROBES:
            for place in places:
                for zoom in (1.0, 2.5):
                    add(subject, str(round(float(place))), probe, zoom=zoom, **own)
    for k in range(4):
        for probe in PROBES:
            add("phantom", "lesion sheet", probe, zoom=(1.0, 2.0)[k % 2], **own)
    return drawn


def slices_of(path: Path, planes: Sequence[str] | None = None, every: int = 1) -> list[NDArray[np.uint8]]:
    """Return the square slices of a volume in 8-bit grey, (256, 256) each."""
    from datagen.plan.slices import hq_slices
    from ussim.volumes.reading import open_volume

    return [found.image for found in hq_slices(open_volume(path), planes, every, min_tissue=0.2)]


def simulate(
    wanted: Sequence[Example],
    slices: Mapping[str, Sequence[NDArray[np.uint8]]],
    n_draws: int = 2,
    advance: Callable[[int], None] = lambda n: None,
) -> Examples:
    """Simulate examples, one after the other; each depends on its own entry of the plan alone."""
    hq = np.zeros((len(wanted), SIZE, SIZE), np.uint8)
    envelope = np.zeros((len(wanted), n_draws, SIZE, SIZE), np.float16)
    for i, example in enumerate(wanted):
        hq[i], envelope[i] = _simulate(example, slices.get(example.subject, ()), n_draws)
        advance(i + 1)
    return Examples(tuple(wanted), hq, envelope)


def _simulate(
    example: Example, slices: Sequence[NDArray[np.uint8]], n_draws: int
) -> tuple[NDArray[np.uint8], NDArray[np.float16]]:
    import ussim

    rng = np.random.default_rng(example.seed)
    probe = ussim.load_probe(example.probe)
    waves = ussim.imaging_waves(probe, n_transmits=example.n_transmits)
    acquisition = ussim.Acquisition(probe, waves, ussim.Medium())
    grid = _field(acquisition, example.zoom, rng)
    if example.subject == "phantom":
        hq = _phantom(example, grid, probe)
    else:
        hq = _cut(slices[int(example.image)], rng, example.split == "train")
    draws = []
    for _ in range(n_draws):
        scatterers = ussim.scatterers_from_image(hq, grid, acquisition, rng, dynamic_range_db=example.contrast)
        image = ussim.envelope_image(ussim.demodulate(ussim.simulate(scatterers, acquisition)), grid)
        draws.append(20 * np.log10(np.maximum(image / image.max(), FLOOR)))
    return hq, np.stack(draws).astype(np.float16)


def _field(acquisition: Any, zoom: float, rng: np.random.Generator) -> Any:
    """Return the grid of a part of the probe's field, anywhere in it."""
    import ussim

    imaging = acquisition.probe.imaging
    extents = []
    for low, high in (imaging.x, imaging.z):
        side = (high - low) / zoom
        start = low + rng.random() * (high - low - side)
        extents.append((start, start + side))
    return ussim.ImageGrid.for_acquisition(acquisition, (SIZE, SIZE), *extents)


def _cut(image: NDArray[np.uint8], rng: np.random.Generator, random: bool) -> NDArray[np.uint8]:
    """Return a square cut of a slice, turned and mirrored, in the size of an example; the whole slice where not random."""
    from datagen.plan.slices import resize, to_uint8

    if random:
        side = round(rng.uniform(*SCALES) * min(image.shape))
        row, column = (int(rng.integers(n - side + 1)) for n in image.shape)
        image = np.rot90(image[row : row + side, column : column + side], int(rng.integers(4)))
        image = image[:, :: 1 if rng.random() < 0.5 else -1]
    return to_uint8(resize(image.astype(np.float32) / 255, (SIZE, SIZE)))


def _phantom(example: Example, grid: Any, probe: Any) -> NDArray[np.uint8]:
    from datagen.plan.slices import resize, to_uint8
    from ussim import phantoms

    x, z = ((float(axis[0]), float(axis[-1])) for axis in (grid.x, grid.z))
    if example.image == "lesion sheet":
        return to_uint8(lesion_sheet(SIZE)[0])
    phantom = phantoms.make(example.image, x, z, example.seed % 2**31, 256, phantoms.beam_apex(probe))
    return to_uint8(resize(phantom.image(PHANTOM_RANGE), (SIZE, SIZE)))


SHEET_LEVELS = (-4.0, -8.0, -16.0)  # dB about the tissue
SHEET_TISSUE = 0.6  # grey level; a test's contrast is 40 dB


def lesion_sheet(size: int) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    """Draw discs of known contrast in uniform tissue, for tests: grey image, and where which disc is.

    Returns
    -------
    The grey levels (size, size), and labels: 0 tissue, k the disc of `SHEET_LEVELS[k - 1]`.
    """
    z, x = np.indices((size, size)) / (size - 1)
    grey, labels = np.full((size, size), SHEET_TISSUE, np.float32), np.zeros((size, size), np.int8)
    for row in range(3):
        for column in range(3):
            k = (row + column) % 3
            inside = np.hypot(z - 0.2 - 0.3 * row, x - 0.2 - 0.3 * column) < 0.09
            grey[inside] = SHEET_TISSUE + SHEET_LEVELS[k] / 40
            labels[inside] = k + 1
    return grey, labels


def save(path: Path, examples: Examples) -> None:
    """Write examples to one .npz file, whole or not at all."""
    from ussim.io.atomic import replacing

    text = json.dumps([asdict(example) for example in examples.plan])
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, plan=np.array(text), hq=examples.hq, envelope_db=examples.envelope_db)


def load_examples(path: Path) -> Examples:
    """Read what `save` wrote; raises DataError."""
    try:
        with np.load(path, allow_pickle=False) as file:
            planned = tuple(Example(**entry) for entry in json.loads(str(file["plan"])))
            return Examples(planned, file["hq"], file["envelope_db"])
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise DataError(f"{path}: expected examples that benchmarks/shipped_examples.py wrote ({error})") from None


def joined(parts: Iterable[Examples]) -> Examples:
    """Return examples one after the other."""
    parts = list(parts)
    return Examples(
        tuple(example for part in parts for example in part.plan),
        np.concatenate([part.hq for part in parts]),
        np.concatenate([part.envelope_db for part in parts]),
    )
