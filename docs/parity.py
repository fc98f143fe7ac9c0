"""The page beside MUST: tables and pictures of ours against PyMUST's golden arrays (python docs/parity.py)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import ussim

DOCS = Path(__file__).resolve().parent
GOLDEN = DOCS.parent / "tests" / "fixtures"
PROBES = ("L11-5v", "L12-3v", "C5-2v", "P4-2v")
LAWS = {
    "plane_-10deg": ("plane wave, -10°", ussim.PlaneWaves(np.deg2rad(-10))),
    "plane_+0deg": ("plane wave, 0°", ussim.PlaneWaves(0.0)),
    "plane_+10deg": ("plane wave, 10°", ussim.PlaneWaves(np.deg2rad(10))),
    "focus_x5mm_z30mm": ("focus at (5, 30) mm", ussim.FocusedWaves(x=5e-3, z=30e-3)),
    "circular_tilt+10deg_width60deg": (
        "diverging, tilt 10°, 60° wide",
        ussim.DivergingWaves(tilts=np.deg2rad(10), width=np.deg2rad(60)),
    ),
}
OPTIONS = {  # of MUST -> (words, baffle, arguments of Acquisition; a string names a golden array)
    "FullFrequencyDirectivity": ("directivity at each frequency", "soft", {"full_frequency_directivity": True}),
    "baffle_rigid": ("rigid baffle", "rigid", {}),
    "baffle_1p75": ("baffle of impedance ratio 1.75", 1.75, {}),
    "TXnow3": ("three cycles", "soft", {"n_cycles": 3}),
    "ElementSplitting1": ("one part per element", "soft", {"n_subelements": 1}),
    "ElementSplitting4": ("four parts per element", "soft", {"n_subelements": 4}),
    "TXapodization_hann": ("Hann apodization on transmit", "soft", {"apodization": "TXapodization_hann"}),
    "RXdelay_ramp": ("receive delays of 0 to 1 µs", "soft", {"receive_delays": "RXdelay_ramp"}),
    "dBThresh_m60": ("spectrum cut at -60 dB", "soft", {"threshold_db": -60}),
    "fs_5fc": ("five samples per period", "soft", {"sampling_frequency": 5 * 7.6e6}),
    "delaysNaN_first32": ("32 elements off", "soft", {"delays": "delays_NaN"}),
}

HEAD = """# Beside MUST

What this package computes and what [MUST](https://www.biomecardio.com/MUST)'s algorithm computes, on the
golden arrays that come with the tests
(PyMUST 0.1.9 with float64 in place of float32; [how they are made](../tests/fixtures/README.md)). Every number
and picture here is written by
`python docs/parity.py`. The tests hold the same arrays to 1e-4 ([reliability](reliability.md)).

An *error* is a relative L2 norm, |ours - MUST's| / |MUST's|. `reference` is our float64 engine, `cpu` the fast
one in float32. For these comparisons
elements are cut as MUST cuts them (`n_subelements="must"`); by default ours are cut more finely.
"""


def load(name: str) -> dict[str, np.ndarray]:
    """Return the golden arrays of one file."""
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return dict(arrays)


def error(got: np.ndarray, expected: np.ndarray) -> float:
    """Return the relative L2 error."""
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))


def channel_data(arrays: dict, tag: str, acquisition: ussim.Acquisition, engine: str) -> tuple[np.ndarray, np.ndarray]:
    """Return our RF in MUST's scale and MUST's, (n_channels, n_samples): tests/test_reference.py has the scale."""
    n_samples = int(arrays[f"RFlen_{tag}"])
    scatterers = ussim.Scatterers(arrays["scat_x"], arrays["scat_z"], arrays["scat_RC"])
    rf = ussim.simulate(scatterers, acquisition, engine=engine, n_samples=n_samples)
    expected = arrays[f"RFf64_{tag}"].T
    ratio = round(acquisition.sampling_frequency / acquisition.probe.center_frequency)
    (n_fft,) = (n for n in (2 * n_samples - 1, 2 * n_samples) if n % ratio == 0)
    return rf.samples[0][arrays["channels"]] / n_fft, expected


def rf_table() -> str:
    """Return the table of channel data, every probe, transmit and attenuation."""
    lines = ["| probe | transmit | dB/cm/MHz | `reference` | `cpu` |", "|---|---|---|---|---|"]
    for probe in PROBES:
        arrays = load(f"simus2d_{probe}")
        for law, (words, waves) in LAWS.items():
            for attenuation in ("0", "0.5"):
                tag = f"{law}_att{attenuation}"
                if f"RFf64_{tag}" not in arrays:
                    continue
                medium = ussim.Medium(attenuation_db_cm_mhz=float(attenuation))
                acquisition = ussim.Acquisition(ussim.load_probe(probe), waves, medium, n_subelements="must")
                errors = [error(*channel_data(arrays, tag, acquisition, engine)) for engine in ("reference", "cpu")]
                lines.append(f"| {probe} | {words} | {attenuation} | {errors[0]:.1e} | {errors[1]:.1e} |")
    return "\n".join(lines)


def option_table() -> str:
    """Return the table of channel data with one option of MUST at a time."""
    arrays = load("simus2d_options_L11-5v")
    lines = ["| option | `reference` | `cpu` |", "|---|---|---|"]
    for tag, (words, baffle, given) in OPTIONS.items():
        settings = {key: arrays[v].ravel() if isinstance(v, str) else v for key, v in given.items()}
        probe = replace(ussim.load_probe("L11-5v"), baffle=baffle)
        waves = ussim.PlaneWaves(np.deg2rad(7), apodization=settings.pop("apodization", None))
        if "delays" in settings:
            waves = ussim.CustomTransmits(settings.pop("delays"))
        acquisition = ussim.Acquisition(probe, waves, **({"n_subelements": "must"} | settings))
        errors = [error(*channel_data(arrays, tag, acquisition, engine)) for engine in ("reference", "cpu")]
        lines.append(f"| {words} | {errors[0]:.1e} | {errors[1]:.1e} |")
    return "\n".join(lines)


def panels(axes: np.ndarray, ours: np.ndarray, must: np.ndarray, extent: list[float], limit: float) -> None:
    """Draw two magnitudes and their difference, all in dB of MUST's peak."""
    peak = np.abs(must).max()
    for axis, values, lowest in zip(axes, (must, ours, ours - must), (limit, limit, -140.0), strict=True):
        level = 20 * np.log10(np.maximum(np.abs(values) / peak, 1e-9))
        picture = axis.imshow(
            level, vmin=lowest, vmax=0, cmap="magma" if lowest == limit else "viridis", extent=extent, aspect="auto"
        )
        axis.tick_params(labelsize=6)
        axis.figure.colorbar(picture, ax=axis, fraction=0.08).ax.tick_params(labelsize=6)


def fields() -> tuple[plt.Figure, str]:
    """Return the picture and the table of pressure fields."""
    laws = ("plane_+10deg", "focus_x5mm_z30mm")
    figure, axes = plt.subplots(len(PROBES), 6, figsize=(12, 8), layout="constrained")
    lines = ["| probe | transmit | error | largest difference, dB of the peak |", "|---|---|---|---|"]
    for row, name in zip(axes, PROBES, strict=True):
        arrays = load(f"pulse_pfield_{name}")
        x, z = arrays["px"][0], arrays["pz"][:, 0]
        for place, law in enumerate(laws):
            waves = ussim.CustomTransmits(arrays[f"delays_{law}"])
            acquisition = ussim.Acquisition(ussim.load_probe(name), waves, n_subelements="must")
            ours = ussim.pressure_field(acquisition, ussim.ImageGrid(x, z))[0]
            must = arrays[f"pfield_P_{law}"]
            panels(row[3 * place : 3 * place + 3], ours, must, [1e3 * v for v in (x[0], x[-1], z[-1], z[0])], -30.0)
            largest = 20 * np.log10(np.abs(ours - must).max() / must.max())
            lines.append(f"| {name} | {LAWS[law][0]} | {error(ours, must):.1e} | {largest:.0f} |")
        row[0].set_ylabel(f"{name}\nz [mm]", fontsize=8)
    for place, law in enumerate(laws):
        for axis, words in zip(axes[0, 3 * place :], ("MUST", "ussim", "difference"), strict=False):
            axis.set_title(f"{LAWS[law][0]}\n{words} [dB]", fontsize=8)
    return figure, "\n".join(lines)


def images() -> tuple[plt.Figure, str]:
    """Return the picture and the table of beamformed images."""
    laws = ("plane_+0deg", "plane_+10deg")
    figure, axes = plt.subplots(len(PROBES), 6, figsize=(12, 8), layout="constrained")
    lines = ["| probe | transmit | data | interpolation | f-number | error |", "|---|---|---|---|---|---|"]
    for row, name in zip(axes, PROBES, strict=True):
        arrays, probe = load(f"beamform_{name}"), ussim.load_probe(name)
        grid = ussim.ImageGrid(x=arrays["grid_x"][0], z=arrays["grid_z"][:, 0])
        for place, law in enumerate(laws):
            acquisition = ussim.Acquisition(probe, ussim.CustomTransmits(arrays[f"delays_{law}"]))
            rf = ussim.RFData(arrays[f"RFin_{law}"].T[None], acquisition, 4 * probe.center_frequency)
            iq = ussim.demodulate(rf)
            for key, must in arrays.items():
                if not key.startswith((f"DAS_IQ_{law}", f"DAS_RF_{law}")) or "lanczos5" in key:
                    continue  # PyMUST's lanczos5 has the window of lanczos3
                _, kind, _, _, method, said = key.split("_")
                said = said.removeprefix("fnumber")
                number = float(arrays["fnumber_auto"]) if said == "auto" else float(said)
                ours = ussim.delay_and_sum(iq if kind == "IQ" else rf, grid, number, interpolation=method)
                lines.append(f"| {name} | {LAWS[law][0]} | {kind} | {method} | {said} | {error(ours, must):.1e} |")
                if key.endswith("IQ_" + law + "_linear_fnumberauto"):
                    extent = [1e3 * v for v in (grid.x[0], grid.x[-1], grid.z[-1], grid.z[0])]
                    panels(row[3 * place : 3 * place + 3], ours, must, extent, -40.0)
        row[0].set_ylabel(f"{name}\nz [mm]", fontsize=8)
    for place, law in enumerate(laws):
        for axis, words in zip(axes[0, 3 * place :], ("MUST", "ussim", "difference"), strict=False):
            axis.set_title(f"{LAWS[law][0]}\n{words} [dB]", fontsize=8)
    return figure, "\n".join(lines)


def traces() -> plt.Figure:
    """Return one channel of each transmit on each probe: MUST's, ours, and the difference in dB."""
    figure, axes = plt.subplots(len(PROBES), len(LAWS), figsize=(13, 7.5), layout="constrained")
    for row, name in zip(axes, PROBES, strict=True):
        arrays = load(f"simus2d_{name}")
        for axis, (law, (words, waves)) in zip(row, LAWS.items(), strict=True):
            if f"RFf64_{law}_att0" not in arrays:
                axis.set_axis_off()
                continue
            acquisition = ussim.Acquisition(ussim.load_probe(name), waves, n_subelements="must")
            ours, must = channel_data(arrays, f"{law}_att0", acquisition, "cpu")
            t = 1e6 * np.arange(must.shape[-1]) / acquisition.sampling_frequency
            peak = np.abs(must[1]).max()
            for values, color, label in ((must[1], "tab:blue", "MUST"), (ours[1] - must[1], "tab:red", "difference")):
                level = 20 * np.log10(np.maximum(np.abs(values) / peak, 1e-9))
                axis.plot(t, level, color=color, linewidth=0.6, label=label)
            axis.set(ylim=(-160, 5))
            axis.tick_params(labelsize=6)
            axis.set_title(f"{name}, {words}", fontsize=8)
        row[0].set_ylabel("|RF| [dB]", fontsize=8)
    axes[0, 0].legend(fontsize=6)
    for axis in axes[-1]:
        axis.set_xlabel("time [µs]", fontsize=8)
    return figure


def save(figure: plt.Figure, name: str) -> None:
    """Write one picture, small: WebP."""
    figure.savefig(DOCS / "images" / f"{name}.webp", dpi=90, pil_kwargs={"quality": 70, "method": 6})
    plt.close(figure)


def page(field_rows: str, image_rows: str) -> str:
    """Return docs/parity.md."""
    return f"""{HEAD}
## Channel data

20 scatterers, four elements of each probe. What is left of it is MUST's fade of samples below -100 dB of the
peak, which we do not reproduce, and
its frequency step at the ends of the band.

![One channel of MUST's and the difference, in dB](images/parity-rf.webp)

{rf_table()}

L11-5v, a plane wave at 7°, one option at a time:

{option_table()}

## Pressure fields

RMS pressure, the spectrum cut at -60 dB as MUST's `pfield` does. MUST's map is in float32; its step in frequency differs.

![Pressure fields of MUST, ours, and the difference in dB](images/parity-pressure.webp)

{field_rows}

## Beamformed images

Both beamform the same RF, rounded to 9 bits; ours with the `cpu` engine.

![Images of MUST, ours, and the difference in dB](images/parity-images.webp)

{image_rows}

## What MUST does and we do not

- MUST multiplies by its step in frequency, so that its RF depends on the length of its record; ours is the integral.
- MUST's `genscat` in Python draws other amplitudes than MUST's in MATLAB; ours has a law of its own ([the
physics](physics.md#speckle)).
- PyMUST's `lanczos5` has the window of `lanczos3`; ours is the wider one.
"""


def main() -> None:
    """Write the page and its pictures."""
    field_figure, field_rows = fields()
    image_figure, image_rows = images()
    save(field_figure, "parity-pressure")
    save(image_figure, "parity-images")
    save(traces(), "parity-rf")
    (DOCS / "parity.md").write_text(page(field_rows, image_rows), encoding="utf-8")


if __name__ == "__main__":
    main()
