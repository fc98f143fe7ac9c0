"""DRUS on recordings of a medium that attenuates: PICMUS twins with 0, 0.3 and 0.5 dB/cm/MHz.

A twin is a PICMUS data set made by `ussim.simulate`: one plane wave of L11-4v, speckle of even echogenicity with the two
discs and three speckle regions of the contrast phantom (4.5 mm at 14.9 and 42.8 mm), white channel noise of 1 % of the rms.
Each is written as PICMUS's HDF5, whose format has no field for the attenuation, and read as `irsde drus --picmus` does,
over the default field of 36 x 36 mm: with the attenuation estimated from the echoes, as free of attenuation, and as told;
and what other choices in the comparison with the paper change. No network: the prior is `LocalVariancePrior`. Not a timing.

    python benchmarks/drus_attenuation.py [--samples 20] [--out benchmarks/results]

Writes drus_attenuation.json after every case, and goes on with those that it lacks.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
from timing import machine

import ussim
from irsde.drus import conditions, ddrm, imaging, priors, recordings
from ussim.receive import time_gain_compensation

DISCS, RADIUS = np.array([[-0.1e-3, 14.9e-3], [-0.1e-3, 42.8e-3]]), 2.25e-3
REGIONS = np.array([[-8e-3, 21e-3], [8e-3, 21e-3], [0.0, 36e-3]])
EXTENT = np.array([[-20e-3, 6e-3], [20e-3, 50e-3]])  # m, x and z of the scatterers
PER_CELL, NOISE = 8, 0.01
ATTENUATIONS = (0.0, 0.3, 0.5)
SHOWN = ("DAS, 1 transmit", "DENO", "DRUSmean", "DRUSvar")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    path = arguments.out / "drus_attenuation.json"
    record = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"machine": machine(), "cases": {}}
    with tempfile.TemporaryDirectory() as folder:
        phantom = write_phantom(Path(folder) / "phantom.hdf5")
        for name, attenuation, asked, options in cases():
            if name in record["cases"]:
                continue
            file = write_twin(Path(folder) / f"twin_{attenuation}.hdf5", attenuation)
            record["cases"][name] = run(file, phantom, asked, **{"n_samples": arguments.samples, **options})
            path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
            print(name, json.dumps(record["cases"][name]), flush=True)


def cases():
    """Name, attenuation of the twin, what is said of it, and options of the reconstruction."""
    for attenuation in ATTENUATIONS:
        yield f"{attenuation}, estimated", attenuation, conditions.Asked(), {}
    yield "0.5, taken as 0", 0.5, conditions.Asked(attenuation_db_cm_mhz=0.0), {}
    yield "0.5, told", 0.5, conditions.Asked(attenuation_db_cm_mhz=0.5), {}
    gain = conditions.Asked(attenuation_db_cm_mhz=0.0, tgc_db=-27.0)
    yield "0.5, taken as 0, the authors' time gain", 0.5, gain, {}
    yield "0.0, told, three chains", 0.0, conditions.Asked(attenuation_db_cm_mhz=0.0), {"chains": 3}
    for level in (0.025, 0.16):
        yield (
            f"0.0, DENO's noise level {level}",
            0.0,
            conditions.Asked(attenuation_db_cm_mhz=0.0),
            {"denoise_level": level},
        )


def run(file: Path, phantom: Path, asked: conditions.Asked, **options) -> dict:
    """Return the attenuation used, the scores, those of fewer samples and finer bins, brightness over depth."""
    found = recordings.open_picmus(file)
    clocked = conditions.clocked(found, asked)
    shape = imaging.default_shape(clocked.rf)
    case = imaging.recording_case(file.stem, clocked.rf, recordings.read_picmus_phantom(phantom), shape)
    settled = conditions.attenuated(clocked.rf, case.grid, found.stated, asked)
    case = replace(case, rf=settled.rf)
    result = imaging.reconstruct(case, priors.LocalVariancePrior(), **options)
    images = {name: result.images[name] for name in SHOWN}
    images["DRUSvar, C = 10"] = ddrm.variance_image(result.samples[:10])  # samples do not depend on how many there are
    images["DAS, f-number 1.4"] = imaging.windowed_das(time_gain_compensation(case.rf), case.grid, 1.4)
    return {
        "attenuation": settled.facts[0].to_dict(),
        "operator_relative_residual": result.operator.relative_residual,
        "noise_level": result.noise_level,
        "scores": imaging.score(case, images),
        "gCNR by bins": {
            bins: {name: row["gCNR"] for name, row in imaging.score(case, images, bins).items()} for bins in (100, 256)
        },
        "bottom over top [dB]": {name: fall(image) for name, image in images.items()},
    }


def fall(image: np.ndarray) -> float:
    """20 log10 of the second lowest tenth of the rows over the second highest, of the values shown (a variance's too)."""
    rows = image.mean(axis=1)
    tenth = len(rows) // 10
    return float(20 * np.log10(rows[-2 * tenth : -tenth].mean() / rows[tenth : 2 * tenth].mean()))


def write_twin(path: Path, attenuation: float) -> Path:
    """Return the data set, of the same scatterers and the same noise whatever the attenuation."""
    if path.is_file():
        return path
    probe, rng = ussim.load_probe("L11-4v"), np.random.default_rng(0)
    acquisition = ussim.Acquisition(
        probe,
        ussim.PlaneWaves(0.0, time_reference="center"),
        ussim.Medium(1540.0, attenuation),
        n_cycles=recordings.PICMUS_CYCLES,
    )
    pulse = acquisition.n_cycles * 1540.0 / (2 * probe.center_frequency)
    cell = imaging.lateral_resolution(acquisition) * pulse
    points = rng.uniform(*EXTENT, (int(PER_CELL * np.prod(EXTENT[1] - EXTENT[0]) / cell), 2))
    reflectivity = rng.standard_normal(len(points))
    outside = np.all([np.hypot(*(points - disc).T) > RADIUS for disc in DISCS], axis=0)
    scatterers = ussim.Scatterers(*points[outside].T, reflectivity[outside])
    rf = ussim.simulate(scatterers, acquisition, n_samples=1400)
    rms = float(np.sqrt(np.mean(np.square(rf.samples, dtype=np.float64))))
    samples = rf.samples + NOISE * rms * rng.standard_normal(rf.samples.shape, dtype=np.float32)
    fields = {
        "data/real": samples,
        "data/imag": np.zeros_like(samples),
        "angles": [0.0],
        "sampling_frequency": [rf.sampling_frequency],
        "sound_speed": [1540.0],
        "initial_time": [float(rf.start_time)],
        "modulation_frequency": [0.0],
        "probe_geometry": np.stack([probe.element_x, 0 * probe.element_x, probe.element_z]),
    }
    return _write(path, fields)


def write_phantom(path: Path) -> Path:
    """Return the phantom file: where the scores are read."""
    fields = {
        "phantom_occlusionCenterX": DISCS[:, 0],
        "phantom_occlusionCenterZ": DISCS[:, 1],
        "phantom_occlusionDiameter": [2 * RADIUS] * len(DISCS),
        "phantom_RoiCenterX": REGIONS[:, 0],
        "phantom_RoiCenterZ": REGIONS[:, 1],
        "phantom_RoiPsfTimeX": [8.0] * len(REGIONS),
        "phantom_RoiPsfTimeZ": [6.0] * len(REGIONS),
        "phantom_lateralResolution": [0.62e-3],
        "phantom_axialResolution": [0.44e-3],
    }
    return _write(path, fields)


def _write(path: Path, fields: dict) -> Path:
    with h5py.File(path, "w") as file:
        group = file.create_group(recordings.PICMUS_GROUP)
        for name, values in fields.items():
            group[name] = values
    return path


if __name__ == "__main__":
    main()
