"""Channel data as OpenH-RF takes them: zea HDF5 files, a data card, a licence, a manifest, and how to make images of them.

    manifest.json                  a row for each file: digest, sample, probe, split
    <PROBE>/<key>.hdf5             RF of one pair, simulated again from its HQ image and its seed
    <PROBE>/pipeline.yaml          zea's steps from RF to B-mode, and
    <PROBE>/reconstruct.py         the script that runs them

What is written is beamformed and held against the stored LQ image: a file whose image is another is an error.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ussim import __version__
from ussim.errors import DataError
from ussim.io.formats.zea import VERSION

from ...make.pairs import beamformed, channel_data, displayed, draw_seed, make_imager, probe_seed
from ...make.verify import TOLERANCE, find_refs
from ...plan.resolved import Settings, array_name
from ...plan.samples import Sample, scene_of
from ...sources import get_source
from ...sources.scene import Scene
from ...store.write import versions
from .card import Page, describe
from .items import Item, Shown

MANIFEST = "manifest.json"
TEMPLATES = Path(__file__).parent.parent / "templates"
LICENCE = "CC-BY-4.0"  # the one that OpenH-RF takes


def write(shown: Shown, out: Path, on_pair: Callable[[int, int], None]) -> Page:
    """Simulate the channel data of each pair again, and write a file for each."""
    scenes = Scenes(shown)
    rows = []
    for done, item in enumerate(shown.items(), start=1):
        settings = shown.pairs.settings(item.index)
        name = f"{item.probe}/{item.drawn}.hdf5"
        (out / name).parent.mkdir(exist_ok=True)
        rows.append(_write_file(out / name, item, settings, scenes(item)) | {"path": name} | item.facts)
        on_pair(done, len(shown))
    for settings in shown.pairs.recipe.settings:
        _write_pipeline(out, settings)
    manifest = {
        "format": f"zea {VERSION}",
        "written_by": f"ussim {__version__}",
        "source": shown.pairs.attributes["source"],
        "licence": [licence.spdx or licence.text for licence in shown.licences],
        "store_digest": shown.pairs.attributes["digest"],
        "recipe_digest": shown.pairs.attributes["recipe_digest"],
        "recipe": _seeds_as_text(shown.pairs.attributes["recipe"]),
        "versions": versions(),
        "files": rows,
    }
    (out / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    first = rows[0]
    return Page(
        files="`<PROBE>/<key>.hdf5`: zea files, one for each pair; `manifest.json` has a row for each: SHA-256, sample, "
        "seed (as text), fold and split. `pipeline.yaml` and `reconstruct.py` beside them make B-modes with zea.",
        example=(
            "from ussim import ImageGrid, demodulate, envelope_image, load_channel_data, log_compress",
            f'rf = load_channel_data("{shown.name}/{first["path"]}")',
            f"grid = ImageGrid.for_acquisition(rf.acquisition, x=({first['x_min_mm']:g}e-3, {first['x_max_mm']:g}e-3), "
            f"z=({first['z_min_mm']:g}e-3, {first['z_max_mm']:g}e-3))",
            "bmode = log_compress(envelope_image(demodulate(rf), grid), 40)",
        ),
        sections=_sections(shown, rows),
        tags=("rf", "channel-data"),
        licence_file="LICENCE",
    )


class Scenes:
    """Scenes that echoes are simulated from: its HQ image, or where that does not say all, its source's."""

    def __init__(self, shown: Shown) -> None:
        recipe = shown.pairs.recipe
        self.cutting = recipe.cutting
        painted = recipe.to_dict().get("tissues") is not None  # what labels are as tissue is not in their grey levels
        self.of_source = painted or any(get_source(name).makes_images for name in recipe.source)
        self.refs = find_refs(recipe, shown.root) if self.of_source else {}
        self._rows = {str(row["id"]): row for row in shown.stored.samples} if self.of_source else {}

    def __call__(self, item: Item) -> Scene:
        """Return what a pair's echoes are simulated from; raises DataError where its source is not what it was."""
        if not self.of_source:
            return Scene(item.images["hq"])
        row = self._rows[str(item.facts["id"])]
        ref = self.refs.get((str(row["source"]), str(row["volume"])))
        if ref is None:
            raise DataError(f"{row['id']}: the volume {row['volume']!r} is not in the source any more")
        return scene_of(Sample.of_row(row, ref), self.cutting)


def _write_file(path: Path, item: Item, settings: Settings, scene: Scene) -> dict[str, Any]:
    """Write the channel data of a pair; returns what the manifest says of the file."""
    imager = make_imager(settings)
    seed = draw_seed(int(str(item.facts["seed"]), 0), int(item.facts.get("draw", 0)))
    rf, _ = channel_data([scene], imager, [probe_seed(seed, settings.probe.name)])
    again = displayed(beamformed(rf, imager), settings)[0].astype(np.int16)
    difference = int(np.abs(again - item.images["lq"].astype(np.int16)).max())
    if difference > TOLERANCE:
        raise DataError(
            f"{item.facts['id']}: its channel data make another image than the store has, by up to {difference} grey "
            "levels: built with another version or engine? `datagen verify --resimulate` says more"
        )
    rf.save(path)
    with path.open("rb") as file:
        total = hashlib.file_digest(file, "sha256").hexdigest()
    frames, transmits, elements, samples = rf.samples.shape
    shape = [frames, transmits, samples, elements, 1]
    return {"sha256": total, "bytes": path.stat().st_size, "raw_data": shape, "lq_differs_by": difference}


def _write_pipeline(out: Path, settings: Settings) -> None:
    """Write zea's steps to a B-mode, over the field of the store's images."""
    folder = out / array_name(settings.probe.name)
    if not folder.is_dir():
        return
    grid = settings.grid()
    text = (TEMPLATES / "pipeline.yaml").read_text(encoding="utf-8")
    numbers = {
        "SIZE_X": len(grid.x), "SIZE_Z": len(grid.z), "RANGE_DB": f"{settings.dynamic_range_db:g}",
        "X0": f"{grid.x[0]:.6g}", "X1": f"{grid.x[-1]:.6g}", "Z0": f"{grid.z[0]:.6g}", "Z1": f"{grid.z[-1]:.6g}",
    }  # fmt: skip
    for name, number in numbers.items():
        text = text.replace(f"${name}$", str(number))
    (folder / "pipeline.yaml").write_text(text, encoding="utf-8")
    (folder / "reconstruct.py").write_bytes((TEMPLATES / "reconstruct.py.txt").read_bytes())


def _sections(shown: Shown, rows: list[dict[str, Any]]) -> tuple[tuple[str, str], ...]:
    """Return what an OpenH-RF data card says beside the rest."""
    recipe = shown.pairs.recipe
    sources = ", ".join(source.title for source in shown.pairs.sources)
    probes = "\n".join(
        f"- {each.probe.name}: {each.probe.n_elements} elements of pitch {1e3 * each.probe.pitch:.4g} mm, "
        f"{each.probe.center_frequency / 1e6:.4g} MHz"
        for each in recipe.settings
    )
    n_bytes = sum(row["bytes"] for row in rows)
    splits = ", ".join(f"{split} {sum(row['split'] == split for row in rows)}" for split in shown.splits)
    subjects = len({(row["source"], row["subject"]) for row in rows})
    gain = "with the time gain that compensates the attenuation" if recipe.tgc else "without time gain"
    noise = f"white noise at {recipe.snr_db:g} dB" if recipe.snr_db is not None else "no noise"
    drawn = () if recipe.randomize is None else recipe.randomize.names
    also = f"; drawn for each file: {', '.join(drawn)}" if drawn else ""
    aberration = "" if "aberration_ns" in drawn else ", no aberration"
    terms = [licence.spdx or licence.text for licence in shown.licences]
    fits = (
        "" if terms == [LICENCE] else f" OpenH-RF takes {LICENCE} alone: this dataset is not one for it as it stands."
    )
    fields = ("name", "shape", "dtype", "units", "description")
    shape = "1, n_transmits, n_samples, n_elements, 1"
    table = [
        ("tracks/track_0/data/raw_data", f"({shape})", "float32", "-", "RF"),
        ("tracks/track_0/scan/t0_delays", "(n_transmits, n_elements)", "float32", "s", "firing times"),
        ("tracks/track_0/scan/initial_times", "(n_transmits,)", "float32", "s", "time of the first sample"),
        ("tracks/track_0/scan/sampling_frequency", "()", "float32", "Hz", "samples per second"),
        ("probe/probe_geometry", "(n_elements, 3)", "float32", "m", "element positions"),
    ]
    lines = [" | ".join(each) for each in (fields, ("---",) * 5, *table)]
    return (
        ("Dataset Description", describe(shown)),
        ("Dataset Contributors", shown.creator or "Not named."),
        ("Dataset Creation Date", datetime.datetime.now(datetime.UTC).strftime("%m/%d/%Y")),
        ("License / Terms of Use", f"{'; '.join(terms)}.{fits}"),
        ("Intended Usage", "Beamforming, speckle reduction and image formation from channel data with a known target."),
        (
            "Dataset Characterization",
            f"Data collection: simulated with ussim {__version__} (the frequency-domain model of MUST) from {sources}. "
            "Labeling: the target is the image that the scatterers were drawn from. Acquisition systems:\n\n" + probes,
        ),
        (
            "Dataset Format",
            f"zea HDF5 {VERSION}; what is stored is what the images were beamformed from: {noise}, {gain}{also}.",
        ),
        (
            "Dataset Quantification",
            f"{len(rows)} files ({splits}), {n_bytes / 1e9:.3g} GB. In each:\n\n"
            + "\n".join(f"| {row} |" for row in lines),
        ),
        ("Subject Metadata", f"{subjects} subjects, simulated images of them; nothing else is known here."),
        (
            "Data Validation",
            "Each file was beamformed and held against the stored image; `lq_differs_by` in the manifest is in grey levels.",
        ),
        (
            "Known Issues",
            f"Simulations in two dimensions, linear, single scattering, one speed of sound: no reverberation{aberration}.",
        ),
        ("Ethical Considerations", "No new data of persons; the terms of the images' sources hold. Not for diagnosis."),
    )


def _seeds_as_text(recipe: dict[str, Any]) -> dict[str, Any]:
    return recipe | {"seed": f"{recipe['seed']:#018x}"}
