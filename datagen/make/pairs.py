"""High-quality images and one way of imaging them -> the simulated B-modes: the only module that simulates.

    hq ─► scatterers ─► channel data ─► + noise ─► time-gain compensation ─► IQ ─► delay-and-sum ─► envelope ─► log ─► lq

The square image is stretched onto the probe's field of view whatever its size in the patient, as in the paper: what is
learnt is the look of speckle, not anatomy at scale.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from ..identity import stable_hash
from ..plan.formats import Rules, rules_of
from ..plan.resolved import Settings

if TYPE_CHECKING:
    import ussim

BYTES_A_SAMPLE = 12  # of channel data on a card: RF (float32) and the IQ (complex64) made of it


@dataclass(frozen=True, eq=False)
class Imager:
    """Settings worked out: made once, used for every image."""

    settings: Settings
    rules: Rules  # those of the dataset's format
    acquisition: ussim.Acquisition
    speed_of_sound: float  # m/s, that the scanner steers and focuses with
    grid: ussim.ImageGrid
    n_samples: int  # of a record that holds every echo of the field
    mean_distance: float  # m

    @property
    def pixel_size_mm(self) -> tuple[float, float]:
        """(x, z) distance between the pixels of the simulated image."""
        return float(self.grid.x[1] - self.grid.x[0]) * 1e3, float(self.grid.z[1] - self.grid.z[0]) * 1e3

    def mask(self, step: int = 1) -> np.ndarray:
        """(size, size) bool, the pixels inside the field: of every `step`-th one, and what lies between interpolated."""
        from scipy.ndimage import map_coordinates

        import ussim

        # The last pixel of each axis is always among them.
        axes = [np.unique(np.r_[0 : axis.size : step, axis.size - 1]) for axis in (self.grid.z, self.grid.x)]
        coarse = ussim.field_mask(
            self.acquisition,
            ussim.ImageGrid(x=self.grid.x[axes[1]], z=self.grid.z[axes[0]]),
            self.rules.mask_f_number(self.settings.f_number, self.acquisition),
        )
        if step == 1:
            return np.asarray(coarse, dtype=bool)
        places = [np.interp(np.arange(axis[-1] + 1), axis, np.arange(axis.size)) for axis in axes]
        return map_coordinates(coarse.astype(np.float32), np.meshgrid(*places, indexing="ij"), order=1) > 0.5


@dataclass(frozen=True, eq=False)
class Pair:
    """A simulated image and what is worth recording of it."""

    lq: np.ndarray  # (size, size) uint8
    n_scatterers: int


@lru_cache(maxsize=8)
def make_imager(settings: Settings) -> Imager:
    """Acquisition, grid and field of view of some settings; raises ValueError where they contradict each other."""
    import ussim
    from ussim.physics import shortest_wavelength
    from ussim.simulation import record_length

    probe = settings.probe
    medium = ussim.Medium(settings.speed_of_sound, settings.attenuation_db_cm_mhz)
    waves = ussim.imaging_waves(
        probe,
        settings.transmit,
        settings.n_transmits,
        None if settings.max_angle_deg is None else np.deg2rad(settings.max_angle_deg),
        None if settings.width_deg is None else np.deg2rad(settings.width_deg),
    )
    rules = rules_of(settings.format)
    acquisition = ussim.Acquisition(probe, waves, medium, n_subelements=rules.n_subelements)
    believed = settings.speed_of_sound * (1 + settings.speed_of_sound_error)
    if settings.speed_of_sound_error:
        # The scanner steers with the speed it believes in; the waves travel at the medium's.
        delays = waves.delays(probe, dataclasses.replace(medium, speed_of_sound=believed))
        acquisition = ussim.Acquisition(probe, ussim.CustomTransmits(delays), medium, n_subelements=rules.n_subelements)
    grid = ussim.ImageGrid.for_acquisition(acquisition, shape=(settings.size, settings.size))
    wavelength = shortest_wavelength(probe.center_frequency, probe.bandwidth, medium.speed_of_sound)
    return Imager(
        settings=settings,
        rules=rules,
        acquisition=acquisition,
        speed_of_sound=believed,
        grid=grid,
        n_samples=record_length(acquisition, grid),
        mean_distance=settings.mean_distance_wavelengths * wavelength,
    )


def simulate_pair(hq: np.ndarray, imager: Imager, seed: int) -> Pair:
    """Return the B-mode of an image, pixel for pixel on the grid of the image.

    Parameters
    ----------
    hq : (size, size) uint8
    seed : of this image under this probe; scatterers and noise have streams of their own, so that adding noise moves no
        scatterer.
    """
    return simulate_pairs([hq], imager, [seed])[0]


def simulate_pairs(hqs: Sequence[np.ndarray], imager: Imager, seeds: Sequence[int]) -> list[Pair]:
    """`simulate_pair` of several images: the same bytes, on a card as many together as its memory holds.

    Channel data and images stay on the card, from scatterers to B-modes, which come home in one copy.
    """
    for hq in hqs:
        if hq.shape != imager.grid.shape or hq.dtype != np.uint8:
            raise ValueError(f"hq: expected uint8 of shape {imager.grid.shape}, got {hq.dtype} of shape {hq.shape}")
    pairs: list[Pair] = []
    while len(pairs) < len(hqs):
        part = slice(len(pairs), len(pairs) + _n_together(imager))
        pairs += _simulate(hqs[part], imager, seeds[part])
    return pairs


def probe_seed(seed: int, probe_name: str) -> int:
    """Seed of a sample under one probe: two probes see different speckle, and adding a probe changes no other's."""
    return int(np.random.SeedSequence([seed, stable_hash(probe_name)]).generate_state(1, np.uint64)[0] >> 1)


def _n_together(imager: Imager) -> int:
    """Images to simulate at once: one on the CPU, on a card those that take at most half of what is free."""
    from ussim.engines import get_engine

    acquisition = imager.acquisition
    record = acquisition.n_transmits * acquisition.probe.n_elements * imager.n_samples
    return get_engine(imager.settings.engine).batch_size(BYTES_A_SAMPLE * record)


def _simulate(hqs: Sequence[np.ndarray], imager: Imager, seeds: Sequence[int]) -> list[Pair]:
    """Pairs as one stack, which stays where the engine computes until the B-modes are there."""
    import ussim
    from ussim.arrays import to_numpy

    settings = imager.settings
    streams = [np.random.SeedSequence(seed).spawn(2) for seed in seeds]  # of scatterers, of noise
    media = [
        ussim.scatterers_from_image(
            hq,
            imager.grid,
            imager.acquisition,
            np.random.default_rng(stream),
            imager.mean_distance,
            settings.dynamic_range_db,
        )
        for hq, (stream, _) in zip(hqs, streams, strict=True)
    ]
    rf = ussim.simulate_stack(media, imager.acquisition, settings.engine, n_samples=imager.n_samples)
    _receive(rf, settings, [np.random.default_rng(stream) for _, stream in streams])
    images = ussim.envelope_image(
        ussim.demodulate(rf),
        imager.grid,
        imager.rules.f_number(settings.f_number, settings.probe, imager.speed_of_sound),
        fine=imager.rules.fine,
        speed_of_sound=imager.speed_of_sound,
        engine=settings.engine,
    )
    bmodes = to_numpy(ussim.log_compress(images, settings.dynamic_range_db, per_image=True))
    lqs = np.round(bmodes * 255).astype(np.uint8)
    return [Pair(lq, len(medium)) for lq, medium in zip(lqs, media, strict=True)]


def _receive(rf: ussim.RFData, settings: Settings, rngs: Sequence[np.random.Generator]) -> None:
    """Pass a stack of records through the receiver, in place.

    White noise at the given ratio of RMS amplitudes to each, from its own generator, then gain that grows with time.

    The noise is amplified with the echoes.
    """
    import ussim
    from ussim.arrays import device_of
    from ussim.engines import engine_of

    samples = rf.samples
    to_device = engine_of(samples).to_device
    with device_of(samples):
        for record, rng in zip(samples, rngs, strict=True):
            if settings.snr_db is not None:
                level = float((record.astype(np.float64) ** 2).mean()) ** 0.5 * 10 ** (-settings.snr_db / 20)
                record += to_device(level * rng.standard_normal(record.shape, dtype=np.float32)).astype(record.dtype)
    if settings.tgc:
        ussim.time_gain_compensation(rf, in_place=True)
