"""Scatterers that move, and the frames of a sequence in which every transmit fires at its own time.

    moving = ussim.MovingScatterers(x, z, reflectivity, velocity_x, velocity_z)
    frames = ussim.simulate_frames(moving, acquisition, n_frames=16, prf=4000.0)     RFData (16, n_transmits, ...)

Positions are held while a transmit's echoes travel (a few tens of µs): what is left out, the Doppler shift of the pulse
itself, is 2 v / c of its frequency, 1e-3 at 0.77 m/s. From transmit to transmit everything moves.

The engines know nothing of this: each transmit is a simulation of its own, of the scatterers where they are then. What the
transmits of one frame share when nothing moves, the way to the elements and back, is computed for each of them
(docs/doppler.md has the cost). What does not move is therefore kept apart and simulated once for the whole sequence: echoes
add.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike

from .acquisition import Acquisition
from .arrays import device_of, to_numpy
from .doors import check_count, own
from .engines import get_engine
from .plan import audible, make_plan
from .reach import check_reach
from .receive import apply_receive_chain
from .shown import Shown
from .simulation import simulate, simulate_stack
from .transmits import CustomTransmits
from .types import RFData, Scatterers

LARGEST_SPEED = 0.1  # of the speed of sound: positions are held while echoes travel


@runtime_checkable
class Motion(Protocol):
    """Scatterers for `simulate_frames`: where they are at any time, and those that never move.

    Attributes
    ----------
    still : Scatterers or None
        Those that never move, simulated once; None where there are none.
    """

    @property
    def still(self) -> Scatterers | None:
        """Scatterers that never move, simulated once; None where there are none."""
        ...

    def at(self, time: float) -> Scatterers:
        """Return the scatterers that move where they are at a time: the same ones whenever it is asked.

        Parameters
        ----------
        time : float
            s.

        Returns
        -------
        Scatterers
        """
        ...


@dataclass(frozen=True, eq=False, repr=False)
class MovingScatterers(Shown):
    """Point scatterers with constant velocities. Those behind the array give no echo while they are there.

    Attributes
    ----------
    x, z : np.ndarray
        (n,) lateral position and depth at time 0, m.
    reflectivity : np.ndarray
        (n,) amplitude, of either sign, without unit.
    velocity_x, velocity_z : np.ndarray
        (n,) m/s, to the right and away from the array; one number serves all.
    y : np.ndarray, optional
        (n,) elevation at time 0, m, as that of `Scatterers`; none by default.
    velocity_y : np.ndarray, optional
        (n,) m/s, in elevation; one number serves all; 0 by default.
    still : Scatterers or None
        Those whose velocity is 0.

    Raises
    ------
    ValueError
        The arrays are not one-dimensional, of one length and finite.
    """

    x: np.ndarray
    z: np.ndarray
    reflectivity: np.ndarray
    velocity_x: np.ndarray
    velocity_z: np.ndarray
    y: np.ndarray | None = None
    velocity_y: np.ndarray | None = None

    if TYPE_CHECKING:  # lists and numbers become arrays

        def __init__(
            self,
            x: ArrayLike,
            z: ArrayLike,
            reflectivity: ArrayLike,
            velocity_x: ArrayLike,
            velocity_z: ArrayLike,
            y: ArrayLike | None = None,
            velocity_y: ArrayLike | None = None,
        ) -> None: ...

    def __post_init__(self) -> None:
        placed = Scatterers(self.x, self.z, self.reflectivity, self.y)
        for name in ("x", "z", "reflectivity", "y"):
            object.__setattr__(self, name, getattr(placed, name))
        if self.y is None and self.velocity_y is not None:
            raise ValueError("MovingScatterers: velocity_y: expected a y (elevation, m) beside it, got none")
        names = ("velocity_x", "velocity_z") if self.velocity_y is None else ("velocity_x", "velocity_z", "velocity_y")
        for name in names:
            given: np.ndarray = own(f"MovingScatterers: {name}", getattr(self, name))
            if given.shape not in ((), placed.x.shape) or not np.isfinite(given).all():
                raise ValueError(
                    f"MovingScatterers: {name}: expected finite m/s, one or {placed.x.shape}, got shape {given.shape}"
                )
            object.__setattr__(self, name, np.broadcast_to(given, placed.x.shape))

    def __len__(self) -> int:
        return len(self.x)

    @property
    def still(self) -> Scatterers | None:
        """Those whose velocity is 0; None where all move."""
        kept = self._rests
        y = None if self.y is None else self.y[kept]
        return Scatterers(self.x[kept], self.z[kept], self.reflectivity[kept], y) if kept.any() else None

    def at(self, time: float) -> Scatterers:
        """Return those that move, where they are at a time.

        Parameters
        ----------
        time : float
            s; at 0 they are at `x` and `z`.

        Returns
        -------
        Scatterers
        """
        kept = ~self._rests
        x = self.x[kept] + time * self.velocity_x[kept]
        z = self.z[kept] + time * self.velocity_z[kept]
        if self.y is None:
            return Scatterers(x, z, self.reflectivity[kept])
        y = self.y[kept] if self.velocity_y is None else self.y[kept] + time * self.velocity_y[kept]
        return Scatterers(x, z, self.reflectivity[kept], y)

    @property
    def _rests(self) -> np.ndarray:
        rests: np.ndarray = (self.velocity_x == 0) & (self.velocity_z == 0)
        if self.velocity_y is not None:
            rests &= self.velocity_y == 0
        return rests


@dataclass(frozen=True)
class _Function:
    """A function of time as a `Motion`."""

    at: Callable[[float], Scatterers]
    still: Scatterers | None = None


def firing_times(n_frames: int, n_transmits: int, prf: float, frame_interval: float | None = None) -> np.ndarray:
    """Return when each transmit of a sequence fires: one after the other, frame after frame.

    Parameters
    ----------
    n_frames : int
        Number of frames, at least 1.
    n_transmits : int
        Transmits per frame.
    prf : float
        Pulse repetition frequency: transmits per second, Hz.
    frame_interval : float, optional
        From the first transmit of a frame to that of the next, s; n_transmits / prf by default, without a pause.

    Returns
    -------
    np.ndarray
        (n_frames, n_transmits) s; the first transmit fires at 0.

    Raises
    ------
    ValueError
        A value is out of range, or a frame does not end before the next begins.
    """
    check_count("n_frames", n_frames)
    check_count("n_transmits", n_transmits)
    if not (math.isfinite(prf) and prf > 0):
        raise ValueError(f"prf: expected transmits per second above 0, Hz, got {prf!r}")
    shortest = n_transmits / prf
    interval = shortest if frame_interval is None else frame_interval
    if not (math.isfinite(interval) and interval >= shortest * (1 - 1e-9)):
        raise ValueError(
            f"frame_interval: expected at least n_transmits / prf ({shortest:g} s), so that transmits follow each "
            f"other, got {interval!r}"
        )
    return np.arange(n_frames)[:, None] * interval + np.arange(n_transmits) / prf


def simulate_frames(
    moving: Motion | Callable[[float], Scatterers],
    acquisition: Acquisition,
    n_frames: int,
    prf: float,
    engine: str = "auto",
    max_memory: float | None = None,
    n_samples: int | None = None,
    *,
    still: Scatterers | None = None,
    frame_interval: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> RFData:
    """Simulate the frames of a sequence over scatterers that move: each transmit sees them where they are when it fires.

    Parameters
    ----------
    moving : MovingScatterers, Motion or callable
        What moves: `MovingScatterers`, a phantom of `ussim.flow`, or a function that returns `Scatterers` for a time in s,
        the same ones whenever it is asked.
    acquisition : Acquisition
        Of one frame: probe, waves, medium and sampling.
    n_frames : int
        Number of frames.
    prf : float
        Pulse repetition frequency: transmits per second, Hz. Frames follow each other without a pause, prf / n_transmits per
        second, unless `frame_interval` says otherwise.
    engine : str
        As in `simulate`.
    max_memory : float, optional
        Bytes, as in `simulate`.
    n_samples : int, optional
        Length of the records; until the last echo of all frames has passed by default.
    still : Scatterers, optional
        More scatterers, which do not move: simulated once.
    frame_interval : float, optional
        From the first transmit of a frame to that of the next, s, where there is a pause.
    progress : callable, optional
        Called in the calling thread with the transmits done and their total.

    Returns
    -------
    RFData
        Samples (n_frames, n_transmits, n_elements, n_samples), `firing_times` (n_frames, n_transmits) and with them
        `frame_rate`; `demodulate` and `delay_and_sum` take the stack whole.

    Raises
    ------
    ValueError
        A value is out of range, or as `simulate`.
    EngineError
        As `simulate`.
    """
    chain = acquisition.receive_chain
    if chain is not None:  # comes after echoes have been added up, once
        acquisition = replace(acquisition, receive_chain=None)
    motion = moving if isinstance(moving, Motion) else _Function(moving)
    if isinstance(motion, MovingScatterers):
        _check_speed(motion, acquisition)
    times = firing_times(n_frames, acquisition.n_transmits, prf, frame_interval)
    rests = _together([medium for medium in (motion.still, still) if medium is not None])
    if len(rests):
        _together([rests, motion.at(float(times[0, 0]))])  # both with an elevation, or none
    length = _record_length(motion, rests, acquisition, times) if n_samples is None else n_samples
    once = simulate(rests, acquisition, engine, max_memory, length).samples
    with device_of(once):
        records = once[None].repeat(n_frames, axis=0)
        done = 0
        for frames, transmit, samples in _parts(motion, acquisition, times, engine, max_memory, length):
            records[frames, transmit] += samples[:, 0]
            done += len(samples)
            if progress is not None and done < times.size:
                progress(done, times.size)
    if progress is not None:
        progress(times.size, times.size)
    echoes = RFData(records, acquisition, acquisition.sampling_frequency, firing_times=times)
    return echoes if chain is None else apply_receive_chain(echoes, chain, in_place=True)


def one_transmit(acquisition: Acquisition, transmit: int) -> Acquisition:
    """Return the acquisition of one transmit of a sequence, its firing times on the same clock.

    Parameters
    ----------
    acquisition : Acquisition
        Of the sequence.
    transmit : int
        Its number, from 0.

    Returns
    -------
    Acquisition
        n_transmits is 1.

    Raises
    ------
    ValueError
        The transmit is silent.
    """
    if acquisition.n_transmits == 1 and transmit == 0:
        return acquisition
    chosen = slice(transmit, transmit + 1)
    waves = CustomTransmits(acquisition.transmit_delays[chosen], acquisition.transmit_weights[chosen])
    mask = None if acquisition.receive_mask is None else acquisition.receiving[chosen]
    return replace(acquisition, waves=waves, receive_mask=mask)


def _parts(
    motion: Motion,
    acquisition: Acquisition,
    times: np.ndarray,
    engine: str,
    max_memory: float | None,
    n_samples: int,
) -> Iterator[tuple[slice, int, np.ndarray]]:
    """Simulate what moves, one transmit of as many frames at once as the engine gains by: (frames, transmit, samples)."""
    n_frames, n_transmits = times.shape
    size = 4.0 * acquisition.probe.n_elements * n_samples
    together = max(1, get_engine(engine).batch_size(size))
    for transmit in range(n_transmits):
        if not (acquisition.transmit_weights[transmit] * acquisition.element_gains).any():
            continue  # silent, or of dead elements alone: it records nothing
        alone = one_transmit(acquisition, transmit)
        for first in range(0, n_frames, together):
            frames = slice(first, min(first + together, n_frames))
            media = [motion.at(float(time)) for time in times[frames, transmit]]
            if any(len(medium) for medium in media):
                yield frames, transmit, simulate_stack(media, alone, engine, max_memory, n_samples).samples


def _check_speed(moving: MovingScatterers, acquisition: Acquisition) -> None:
    """Refuse what moves while its echoes travel, as nothing does that is told in m/s."""
    speed = np.hypot(moving.velocity_x, moving.velocity_z)
    if moving.velocity_y is not None:
        speed = np.hypot(speed, moving.velocity_y)
    fastest = float(speed.max(initial=0.0))
    limit = LARGEST_SPEED * acquisition.medium.speed_of_sound
    if fastest > limit:
        raise ValueError(
            f"velocity: expected m/s of at most a tenth of the speed of sound ({limit:g}), got {fastest:g} "
            "(mm/s? divide them by 1000)"
        )


def _together(media: list[Scatterers]) -> Scatterers:
    """Return scatterers of several media as one, in host memory."""
    if len({medium.y is None for medium in media}) > 1:
        raise ValueError(
            "still: expected a y (elevation, m) where the scatterers that move have one, and none otherwise"
        )
    names = ("x", "z", "reflectivity", "y")[: 3 if not media or media[0].y is None else 4]
    return Scatterers(
        *(
            np.concatenate([to_numpy(getattr(medium, name)) for medium in media]) if media else np.zeros(0)
            for name in names
        )
    )


def _record_length(motion: Motion, rests: Scatterers, acquisition: Acquisition, times: np.ndarray) -> int:
    """Return samples from time 0 until the last echo of the sequence has passed."""
    plan = make_plan(acquisition, motion.at(float(times[0, 0])).y is not None)
    longest = 0.0
    for medium in (rests, *(motion.at(float(time)) for time in times.ravel())):
        heard = audible(medium, acquisition)
        check_reach("Scatterers", heard.x, heard.z, acquisition, heard.y)
        longest = max(longest, plan.longest_distance(heard.x, heard.z, heard.y))
    return max(1, math.ceil(plan.echo_end(longest) * acquisition.sampling_frequency))
