"""Pictures of a calibration: recorded | simulated as images, echoes and spectra; gains and delays of the elements."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ..arrays import to_numpy
from ..beamform import log_compress
from ..demodulation import demodulate
from ..imaging import envelope_image
from ..show.figures import decibel_bar, image_row, new_figure, show_grey
from ..simulation import simulate
from ..types import ImageGrid, RFData, Scatterers
from .findings import Findings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Picture = tuple[str, str, "Figure"]
DYNAMIC_RANGE_DB = 50.0
SCATTERERS = 15_000
RECORDED, SIMULATED, DEAD = "#1f6feb", "#d1462f", "#999999"


def of_wires(calibration: Findings) -> Iterator[Picture]:
    """Yield title, words and figure of each picture."""
    yield (
        "Recorded | simulated",
        "Both beamformed with what was fitted. Circles: the wires of the fit. Simulated: those wires alone.",
        images(calibration),
    )
    yield (
        "Echoes of three wires",
        "One transmit: what each element recorded about the expected time, what is simulated, and their difference, on one "
        "grey scale. Grey columns are not used: dead, too faint, or not alone.",
        echoes(calibration),
    )
    yield ("Pulse and spectrum", "The mean over the windows: aligned by the simulated times.", pulses(calibration))
    yield ("Elements", "Bars: two standard deviations. Grey: dead.", elements(calibration))


def of_speckle(calibration: Findings) -> Iterator[Picture]:
    """Yield title, words and figure of each picture."""
    yield (
        "Recorded | simulated",
        "Both beamformed with what was fitted. Simulated: another draw of scatterers. Each row to its mean.",
        speckle_images(calibration),
    )
    yield (
        "Spectra and focus",
        "Left: power of the channels at some times, recorded (thin), fitted (where compared). Right: brightness of "
        "speckle by the speed of sound that the image is made with.",
        spectra(calibration),
    )
    yield (
        "Elements",
        "RMS of each channel beside its neighbors'. Bars: two standard deviations. Grey: dead.",
        elements(calibration),
    )


def speckle_images(calibration: Findings) -> Figure:
    """B-mode of the recording and of other speckle seen by the probe fitted, each row divided by its mean."""
    rf: RFData = calibration.pictures["rf"]
    fast = replace(calibration.acquisition, receive_mask=None)
    x, z = calibration.probe.imaging.x, calibration.pictures["grid"].z  # type: ignore[union-attr]
    grid = ImageGrid(x=np.linspace(x[0], x[1], 200), z=np.linspace(z[0], z[-1], 256))
    wavelength = fast.medium.speed_of_sound / fast.probe.center_frequency
    count = int(min(SCATTERERS, (x[1] - x[0]) * (z[-1] - z[0]) / (0.7 * wavelength) ** 2))
    rng = np.random.default_rng(0)
    points = Scatterers(rng.uniform(x[0], x[1], count), rng.uniform(z[0], z[-1], count), rng.standard_normal(count))
    made = simulate(points, fast, engine="cpu")
    recorded = RFData(to_numpy(rf.samples), calibration.acquisition, rf.sampling_frequency, calibration.start_time)
    figure, axes = image_row(grid, 2)
    for axis, data, title in zip(axes, (recorded, made), ("recorded", "simulated"), strict=True):
        picture = to_numpy(envelope_image(demodulate(data), grid, f_number=1.0, transmit_weights=None))
        picture = picture / np.maximum(picture.mean(axis=1, keepdims=True), 1e-30)
        show_grey(axis, log_compress(picture, 40.0), grid)
        axis.set_title(title)
    axes[1].set_ylabel("")
    decibel_bar(figure, axes[1], 40.0)
    return figure


def spectra(calibration: Findings) -> Figure:
    """Power by frequency at some times, recorded and fitted; brightness by speed of sound."""
    gates, model, level = (calibration.pictures[name] for name in ("spectra", "model", "level"))
    figure = new_figure(10.5, 3.6)
    left, right = figure.subplots(1, 2)
    power = 10 * np.log10(np.maximum(gates.power.mean(axis=1), 1e-300))
    fitted = np.where(level, 10 / np.log(10) * model, np.nan)
    seen = np.flatnonzero(level.any(axis=1))
    for i, g in enumerate(np.unique(seen[np.linspace(0, len(seen) - 1, min(4, len(seen))).astype(int)])):
        (line,) = left.plot(gates.frequency / 1e6, power[g] - power.max(), linewidth=0.8, color=f"C{i}")
        label = f"{1e6 * gates.time[g]:.0f} µs"
        left.plot(
            gates.frequency / 1e6, fitted[g] - power.max(), "--", linewidth=2, color=line.get_color(), label=label
        )
    left.set_xlabel("frequency [MHz]")
    left.set_ylabel("dB")
    left.legend(frameon=False)
    speed, brightness = calibration.pictures["sharpness"]
    right.plot(speed, 10 * np.log10(brightness / brightness.max()), ".-", color=RECORDED)
    right.axvline(calibration.estimates["speed_of_sound"].value, color=SIMULATED, linestyle="--")
    right.set_xlabel("speed of sound [m/s]")
    right.set_ylabel("brightness [dB]")
    return figure


def images(calibration: Findings) -> Figure:
    """B-mode of the recording and of its simulation."""
    rf: RFData = calibration.pictures["rf"]
    fast = calibration.acquisition
    grid = _about(calibration)
    recorded = RFData(to_numpy(rf.samples), fast, rf.sampling_frequency, calibration.start_time)
    state = calibration.pictures["state"]
    made = simulate(Scatterers(state.x, state.z, state.amplitudes), replace(fast, receive_mask=None), engine="cpu")
    made = replace(made, samples=to_numpy(made.samples) * np.nan_to_num(state.gains)[None, :, None].astype(np.float32))
    figure, axes = image_row(grid, 2)
    for axis, data, title in zip(axes, (recorded, made), ("recorded", "simulated"), strict=True):
        picture = envelope_image(demodulate(data), grid, f_number=1.0, transmit_weights=None)
        show_grey(axis, log_compress(to_numpy(picture), DYNAMIC_RANGE_DB), grid)
        axis.set_title(title)
    axes[0].plot(1e3 * state.x, 1e3 * state.z, "o", markersize=11, markerfacecolor="none", color=RECORDED)
    axes[1].set_ylabel("")
    decibel_bar(figure, axes[1], DYNAMIC_RANGE_DB)
    return figure


def _about(calibration: Findings) -> ImageGrid:
    """Return the grid on which wires were looked for, down to a little below the last of them."""
    grid = calibration.pictures["found"].grid
    deepest = min(grid.z[-1], calibration.wires[:, 1].max() + 5e-3)
    half = min(grid.x[-1], np.abs(calibration.wires[:, 0]).max() + 8e-3)
    shape = (320, max(64, int(320 * 2 * half / (deepest - grid.z[0]))))
    return ImageGrid(x=np.linspace(-half, half, shape[1]), z=np.linspace(grid.z[0], deepest, shape[0]))


def echoes(calibration: Findings) -> Figure:
    """Windows of the shallowest, a middle and the deepest wire: recorded, simulated, difference."""
    views, residual = calibration.pictures["model"].views, calibration.pictures["residual"]
    order = np.argsort(calibration.wires[:, 1])
    chosen = np.unique([0, len(order) // 2, len(order) - 1])
    figure = new_figure(10.5, 2.6 * len(chosen))
    axes = figure.subplots(len(chosen), 3, squeeze=False, sharex=True)
    rate = calibration.pictures["rf"].sampling_frequency
    for row, k in zip(axes, order[chosen], strict=True):
        mine = np.flatnonzero(views.wire == k)
        v = mine[len(mine) // 2]
        recorded = views.samples[v]
        top = np.abs(recorded).max()
        span = views.samples.shape[-1] / rate * 1e6 / 2
        for axis, block in zip(row, (recorded, recorded + residual[v], -residual[v]), strict=True):
            shown = np.where(views.used[v][:, None], block, np.nan).T
            axis.set_facecolor("0.8")
            axis.imshow(
                shown,
                aspect="auto",
                cmap="RdBu_r",
                vmin=-top,
                vmax=top,
                extent=(-0.5, shown.shape[1] - 0.5, span, -span),
            )
        x, z = 1e3 * calibration.wires[k]
        row[0].set_ylabel(f"({x:.1f}, {z:.1f}) mm\ntime [µs]")
    for axis, title in zip(axes[0], ("recorded", "simulated", "recorded - simulated"), strict=True):
        axis.set_title(title)
    for axis in axes[-1]:
        axis.set_xlabel("element")
    return figure


def pulses(calibration: Findings) -> Figure:
    """Mean pulse of the nearest wire and mean spectrum of all, recorded and simulated."""
    views, residual = calibration.pictures["model"].views, calibration.pictures["residual"]
    rate = calibration.pictures["rf"].sampling_frequency
    used = views.used
    figure = new_figure(10.5, 3.4)
    left, right = figure.subplots(1, 2)
    v, e = np.unravel_index(np.argmax(np.where(used, (views.samples**2).sum(axis=-1), -1)), used.shape)
    time = (np.arange(views.samples.shape[-1]) - views.samples.shape[-1] // 2) / rate * 1e6
    left.plot(time, views.samples[v, e], color=RECORDED, label="recorded")
    left.plot(time, (views.samples + residual)[v, e], "--", color=SIMULATED, label="simulated")
    left.set_xlabel("time [µs]")
    left.set_title(f"strongest echo: element {e}")
    left.legend(frameon=False)
    n = 8 * views.samples.shape[-1]
    frequency = np.fft.rfftfreq(n, 1 / rate) / 1e6
    curves = [
        np.sqrt((np.abs(np.fft.rfft(block[used], n, axis=-1)) ** 2).mean(axis=0))
        for block in (views.samples, views.samples + residual, residual)
    ]
    for curve, style, color, label in zip(
        curves, ("-", "--", ":"), (RECORDED, SIMULATED, "0.4"), ("recorded", "simulated", "difference"), strict=True
    ):
        right.plot(frequency, 20 * np.log10(np.maximum(curve / curves[0].max(), 1e-4)), style, color=color, label=label)
    right.set_ylim(-60, 3)
    right.set_xlim(0, 2.2 * calibration.probe.center_frequency / 1e6)
    right.set_xlabel("frequency [MHz]")
    right.set_ylabel("dB")
    right.set_title("echoes of all wires")
    right.legend(frameon=False)
    return figure


def elements(calibration: Findings) -> Figure:
    """Gains and delays by element."""
    with_delays = np.isfinite(calibration.delays).any()
    figure = new_figure(10.5, 2.6 * (1 + with_delays))
    axes = figure.subplots(1 + with_delays, 1, squeeze=False, sharex=True)[:, 0]
    number = np.arange(len(calibration.gains))
    rows = [(calibration.gains, calibration.gain_uncertainty, "gain / mean")]
    if with_delays:
        rows.append((1e9 * calibration.delays, 1e9 * calibration.delay_uncertainty, "delay [ns]"))
    for axis, (values, spread, label) in zip(axes, rows, strict=True):
        for e in calibration.dead:
            axis.axvspan(e - 0.5, e + 0.5, color=DEAD, alpha=0.5, linewidth=0)
        seen = np.isfinite(values)
        bars = np.where(np.isfinite(spread), spread, 0.0)
        axis.errorbar(number[seen], values[seen], bars[seen], fmt=".", color=RECORDED, elinewidth=0.8)
        axis.set_ylabel(label)
        axis.margins(x=0.01)
    axes[-1].set_xlabel("element")
    return figure
