"""Simulation: check and prepare in float64, hand the work to an engine, label what comes back.

The way of a call, each hop to one place and none back:

    simulate ─► plan.make_plan ─► engines.get_engine ─► Engine.simulate ─► kernels (`engines.cpu.kernels`, `simulate.cu`)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from .acquisition import Acquisition
from .arrays import to_numpy
from .engines import get_engine
from .plan import Plan, audible, make_plan
from .reach import check_reach
from .receive import apply_receive_chain, as_heard
from .types import ImageGrid, RFData, Scatterers

LATEST = 2**26  # samples from time 0 to any echo, a kilometer at 30 MHz: tables of so many still fit in memory
LOWEST_SAMPLING_RATIO = 4.0  # f_s / f_c: the band reaches 2 f_c


def simulate(
    scatterers: Scatterers,
    acquisition: Acquisition,
    engine: str = "auto",
    max_memory: float | None = None,
    n_samples: int | None = None,
    start_time: float = 0.0,
    progress: Callable[[int, int], None] | None = None,
) -> RFData:
    """Simulate channel data of point scatterers: the model of `ussim.physics` (SIMUS, Garcia 2022).

    Equal to MUST's `simus` in sign and time zero: time is that of the firing delays (`acquisition.transmit_delays`), which
    are 0 at the first element that fires unless the waves have another `time_reference` or delays of one's own. Pulses are
    centered: the echo of a point has the middle of its pulse at delay + way there and back / c. The scale is the integral
    over frequency, which does not depend on the record length; MUST's is this one divided by its FFT length.

    Scatterers with a y are simulated in three dimensions, as MUST's `simus` with one: focusing in elevation by the elements'
    height and lens, amplitudes as 1/distance (MUST evaluates its beam in elevation at one frequency in twenty, this one at
    all: 0.5 to 3 % between the two, more in short records).

    Parameters
    ----------
    scatterers : Scatterers
        Positions, m, and reflectivities.
    acquisition : Acquisition
        Probe, waves, medium and sampling.
    engine : str
        "auto" (the fastest here, the default), "cpu", "cuda" (an NVIDIA card; "cuda:1" the second one), or "reference"
        (float64, literal: the oracle).
    max_memory : float, optional
        Bytes of working memory that the engine may take beside the result; None is the engine's own bound.
    n_samples : int, optional
        Length of the record; until the last echo has passed by default.
    start_time : float
        Time of the first sample, s: at least 0, a multiple of the sampling period; 0 by default.
    progress : callable, optional
        Called in the calling thread with the steps done and their total, from time to time and when all are done; what it
        raises ends the work and comes out here.

    Returns
    -------
    RFData
        Samples (n_transmits, n_elements, n_samples) float32 (reference: float64; cuda: on the card, see
        `RFData.to_numpy`).

    Raises
    ------
    ValueError
        The sampling frequency is below 4 f_c, n_samples or start_time is out of range, or there is a y and the probe has no
        element_height.
    EngineError
        No such engine, or the budget cannot hold the smallest piece of work.
    """
    machine = get_engine(engine)
    plan = _checked_plan(acquisition, [scatterers])
    start_sample = _start_sample(start_time, acquisition)
    heard = audible(scatterers, acquisition)
    check_reach("Scatterers", heard.x, heard.z, acquisition, heard.y)
    _check_reach(plan, [heard])
    if n_samples is None:
        n_samples = max(1, _record_length(plan, [heard]) - start_sample)
    elif n_samples < 1:
        raise ValueError(f"n_samples: expected at least 1, got {n_samples}")
    samples = machine.simulate(heard, plan, int(n_samples), start_sample, max_memory, progress)
    return _received(as_heard(samples, acquisition), acquisition, start_sample)


def simulate_batch(
    media: Sequence[Scatterers],
    acquisition: Acquisition,
    engine: str = "auto",
    max_memory: float | None = None,
    n_samples: int | None = None,
) -> list[RFData]:
    """Simulate many media under one acquisition: on a graphics card all at once, as memory allows.

    The records are as long as the longest needs, so that they stack. A medium's record does not depend on the others.

    Parameters
    ----------
    media : sequence of Scatterers
        One medium per record.
    acquisition : Acquisition
        Probe, waves, medium and sampling.
    engine : str
        As in `simulate`.
    max_memory : float, optional
        Bytes, as in `simulate`.
    n_samples : int, optional
        Length of the records; as long as the longest needs by default.

    Returns
    -------
    list of RFData
        As of `simulate`, one per medium.

    Raises
    ------
    ValueError
        As `simulate`.
    EngineError
        As `simulate`.
    """
    records = _simulate_all(media, acquisition, engine, max_memory, n_samples)
    if len(records) == 0:
        return []
    whole = _received(records, acquisition)
    return [replace(whole, samples=samples) for samples in whole.samples]


def simulate_stack(
    media: Sequence[Scatterers],
    acquisition: Acquisition,
    engine: str = "auto",
    max_memory: float | None = None,
    n_samples: int | None = None,
) -> RFData:
    """Simulate many media into one stack of records, which `demodulate` and `delay_and_sum` take whole.

    Parameters
    ----------
    media : sequence of Scatterers
        One medium per record.
    acquisition : Acquisition
        Probe, waves, medium and sampling.
    engine : str
        As in `simulate`.
    max_memory : float, optional
        Bytes, as in `simulate`.
    n_samples : int, optional
        Length of the records; as long as the longest needs by default.

    Returns
    -------
    RFData
        Samples (n_media, n_transmits, n_elements, n_samples): on a card the one array that they were computed in.

    Raises
    ------
    ValueError
        There is no medium, or as `simulate`.
    EngineError
        As `simulate`.
    """
    if len(media) == 0:
        raise ValueError("media: expected at least one, got none")
    records = _simulate_all(media, acquisition, engine, max_memory, n_samples)
    return _received(records, acquisition)


def pressure_field(
    acquisition: Acquisition,
    grid: ImageGrid,
    threshold_db: float = -60.0,
    engine: str = "auto",
    max_memory: float | None = None,
    progress: Callable[[int, int], None] | None = None,
    y: float | None = None,
) -> np.ndarray:
    """Compute the RMS acoustic pressure of each transmit: MUST's `pfield` (Garcia 2022).

    sqrt(width Σ_f |P|² df), spectral components below `threshold_db` left out; 0 behind the array. With `y` in three
    dimensions, and without the factor width, as MUST.

    Parameters
    ----------
    acquisition : Acquisition
        Probe, waves, medium and sampling.
    grid : ImageGrid
        Points of the field, m.
    threshold_db : float
        dB relative to the strongest component, -60 by default.
    engine : str
        As in `simulate`.
    max_memory : float, optional
        Bytes, as in `simulate`.
    progress : callable, optional
        As in `simulate`.
    y : float, optional
        Elevation of the plane of the grid, m: the field has three dimensions then, 0 being the middle of the beam. Needs a
        probe with an element_height. Two dimensions by default.

    Returns
    -------
    np.ndarray
        (n_transmits, nz, nx), in the model's own unit.

    Raises
    ------
    ValueError
        A value is out of range.
    EngineError
        No such engine or device, or not enough memory.
    """
    if not (math.isfinite(threshold_db) and threshold_db < 0):
        raise ValueError(f"threshold_db: expected dB below 0, got {threshold_db!r}")
    if grid.y is not None:
        if y is not None:
            raise ValueError("y: expected none beside a grid that has elevations of its own")
        plane = ImageGrid(grid.x, grid.z)
        planes = [
            to_numpy(pressure_field(acquisition, plane, threshold_db, engine, max_memory, progress, float(y)))
            for y in grid.y
        ]
        return np.stack(planes, axis=2)
    if y is None and acquisition.probe.is_matrix:
        y = 0.0
    if y is not None and not math.isfinite(y):
        raise ValueError(f"y: expected finite meters, got {y!r}")
    check_reach("grid", grid.x, grid.z, acquisition, None if y is None else np.array([y]))
    lowest = LOWEST_SAMPLING_RATIO * acquisition.probe.center_frequency
    if acquisition.sampling_frequency < lowest:  # of what is recorded; the field's own band needs this many
        acquisition = replace(acquisition, sampling_frequency=lowest)
    plan = make_plan(acquisition, y is not None)
    x, z = (axis.ravel() for axis in np.meshgrid(grid.x[[0, -1]], grid.z[[0, -1]]))
    _check_reach(plan, [Scatterers(x, z, np.ones(4), None if y is None else np.full(4, y))])
    return get_engine(engine).pressure_field(plan, grid, threshold_db, max_memory, progress, 0.0 if y is None else y)


def record_length(acquisition: Acquisition, grid: ImageGrid) -> int:
    """Return samples that hold every echo from inside a grid: what a dataset passes as `n_samples`, so that frames stack."""
    x, z = np.meshgrid(grid.x[[0, -1]], grid.z[[0, -1]])  # the corners are farthest from any element
    return _record_length(make_plan(acquisition), [Scatterers(x.ravel(), z.ravel(), np.ones(4))])


def _simulate_all(
    media: Sequence[Scatterers],
    acquisition: Acquisition,
    engine: str,
    max_memory: float | None,
    n_samples: int | None,
) -> np.ndarray:
    """Return the records (n_media, n_transmits, n_elements, n_samples)."""
    machine = get_engine(engine)
    plan = _checked_plan(acquisition, media)
    heard = [audible(scatterers, acquisition) for scatterers in media]
    for medium in heard:
        check_reach("Scatterers", medium.x, medium.z, acquisition, medium.y)
    _check_reach(plan, heard)
    if n_samples is None:
        n_samples = max(1, _record_length(plan, heard))
    elif n_samples < 1:
        raise ValueError(f"n_samples: expected at least 1, got {n_samples}")
    return as_heard(machine.simulate_batch(heard, plan, int(n_samples), 0, max_memory), acquisition)


def _received(samples: np.ndarray, acquisition: Acquisition, start_sample: int = 0) -> RFData:
    """Return the echoes (..., n_transmits, n_elements, n_samples) that elements heard as channel data; in place."""
    rate = acquisition.sampling_frequency
    chain, start = acquisition.receive_chain, start_sample / rate
    if chain is None:
        return RFData(samples, acquisition, rate, start)
    return apply_receive_chain(
        RFData(samples, replace(acquisition, receive_chain=None), rate, start), chain, in_place=True
    )


def _checked_plan(acquisition: Acquisition, media: Sequence[Scatterers]) -> Plan:
    """Return the plan of media that have a y, all of them or none."""
    elevated = {medium.y is not None for medium in media}
    if len(elevated) > 1:
        raise ValueError("media: expected a y (elevation, m) with all of them or with none, got both kinds")
    ratio = acquisition.sampling_frequency / acquisition.probe.center_frequency
    if ratio < LOWEST_SAMPLING_RATIO * (1 - 1e-9):
        raise ValueError(
            f"sampling_frequency: expected at least 4 center_frequency ({4 * acquisition.probe.center_frequency:g} Hz) to "
            f"simulate, got {acquisition.sampling_frequency:g} Hz"
        )
    return make_plan(acquisition, True in elevated)


def _check_reach(plan: Plan, media: Sequence[Scatterers]) -> None:
    """Refuse echoes that come later, or elements that fire earlier, than the engines can count samples."""
    with np.errstate(over="ignore", invalid="ignore"):
        longest = max((plan.longest_distance(medium.x, medium.z, medium.y) for medium in media), default=0.0)
        times = np.abs(plan.delays).max() + np.abs(plan.receive_delays).max()
        way = 2 * longest / plan.acquisition.medium.speed_of_sound
        samples = float((way + times) * plan.acquisition.sampling_frequency)
    if not samples <= LATEST:  # NaN and infinity too
        raise ValueError(
            f"simulate: an echo would come {samples:.3g} samples after time 0, expected at most {LATEST:.3g}: positions are "
            "in m, delays in s, speeds in m/s"
        )


def _start_sample(start_time: float, acquisition: Acquisition) -> int:
    position = start_time * acquisition.sampling_frequency
    if not (
        math.isfinite(position)
        and 0 <= position <= LATEST
        and abs(position - round(position)) < 1e-6 * max(position, 1)
    ):
        raise ValueError(
            "start_time: expected a multiple of the sampling period "
            f"({1 / acquisition.sampling_frequency:g} s) of at least 0, got {start_time!r} s"
        )
    return round(position)


def _record_length(plan: Plan, media: Sequence[Scatterers]) -> int:
    """Return samples from time 0 until the last echo has passed."""
    longest = max((plan.longest_distance(medium.x, medium.z, medium.y) for medium in media), default=0.0)
    return math.ceil(plan.echo_end(longest) * plan.acquisition.sampling_frequency)
