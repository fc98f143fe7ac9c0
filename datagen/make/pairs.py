"""High-quality images and one way of imaging them -> the simulated B-modes: the only module that simulates.

    hq ─► scatterers ─► channel data ─► receive chain ─► IQ ─► delay-and-sum ─► envelope ─► log ─► lq

The square image is stretched onto the probe's field of view whatever its size in the patient, as in the paper: what is
learnt is the look of speckle, not anatomy at scale. A field drawn smaller (`zoom`) shows the same image with larger speckle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ..identity import stable_hash
from ..plan.formats import Rules, rules_of
from ..plan.resolved import Settings
from ..sources.scene import Scene

if TYPE_CHECKING:
    import ussim

MOST_LOST_DB = 200.0  # on the way through tissue, or gained: more leaves float32
ENVELOPE_FLOOR_DB = -120.0  # of what is kept of an envelope: what is weaker, or nothing at all, is kept as this
TGC_SLIDERS = 8  # of a scanner's panel
TGC_STREAM = 4  # of a sample's hardware seed: 1 to 3 are those of `ussim.imperfections`
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
    # Pixels around the field that scatter too, z and x: a smaller field has tissue beyond its borders.
    margin: tuple[int, int] = (0, 0)

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
    envelope: np.ndarray | None = None  # (size, size) float16, dB of LQ's white; where it is kept


@lru_cache(maxsize=8)
def make_imager(settings: Settings) -> Imager:
    """Acquisition, grid and field of view of some settings; raises ValueError where they contradict each other."""
    import ussim
    from ussim.physics import shortest_wavelength
    from ussim.simulation import record_length

    probe = settings.probe
    medium = ussim.Medium(
        settings.speed_of_sound, settings.attenuation_db_cm_mhz, backscatter_exponent=settings.backscatter_exponent
    )
    waves = ussim.imaging_waves(
        probe,
        settings.transmit,
        settings.n_transmits,
        None if settings.max_angle_deg is None else np.deg2rad(settings.max_angle_deg),
        None if settings.width_deg is None else np.deg2rad(settings.width_deg),
    )
    rules = rules_of(settings.format)
    how: dict[str, Any] = {"n_subelements": rules.n_subelements, "n_cycles": settings.n_cycles, **_unknown(settings)}
    acquisition = ussim.Acquisition(probe, waves, medium, **how)
    believed = settings.speed_of_sound * (1 + settings.speed_of_sound_error)
    # The scanner steers with the speed it believes in; the waves travel at the medium's.
    acquisition = ussim.with_steering_speed(acquisition, believed)
    grid = settings.grid(acquisition)
    wavelength = shortest_wavelength(probe.center_frequency, probe.bandwidth, medium.speed_of_sound)
    return Imager(
        settings=settings,
        rules=rules,
        acquisition=acquisition,
        speed_of_sound=believed,
        grid=grid,
        n_samples=record_length(acquisition, grid),
        mean_distance=settings.mean_distance_wavelengths * wavelength,
        margin=_margin(grid, acquisition) if settings.zoom > 1 else (0, 0),
    )


def _unknown(settings: Settings) -> dict[str, Any]:
    """Return the parts of an acquisition that its scanner does not know."""
    import ussim

    parts: dict[str, Any] = {}
    seed = settings.hardware_seed
    if settings.aberration_ns:
        length = settings.aberration_length_mm
        parts["aberration"] = ussim.PhaseScreen(settings.aberration_ns / 1e9, length / 1e3, seed)
    if settings.gain_spread_db or settings.dead_fraction:
        parts["element_errors"] = ussim.ElementErrors(
            settings.gain_spread_db, dead_fraction=settings.dead_fraction, seed=seed
        )
    return parts


@lru_cache(maxsize=8)
def receive_chain(settings: Settings) -> ussim.ReceiveChain:
    """Return the receive chain of some settings; its noise and jitter have seeds of each sample."""
    import ussim

    curve, probe = None, settings.probe
    if settings.tgc_spread_db:
        rng = np.random.default_rng([settings.hardware_seed, TGC_STREAM])
        assert probe.imaging is not None  # or there would be no grid
        depths = np.linspace(0.0, probe.imaging.z[1], TGC_SLIDERS)
        curve = ussim.TimeGain(depths, settings.tgc_spread_db * rng.standard_normal(TGC_SLIDERS))
    return ussim.ReceiveChain(
        snr_db=settings.snr_db,
        noise_bandwidth=settings.noise_bandwidth,
        time_gain=curve,
        compensation=settings.tgc,
        jitter=settings.jitter_ns / 1e9,
        n_bits=settings.n_bits,
        headroom_db=settings.headroom_db,
    )


def _margin(grid: ussim.ImageGrid, acquisition: ussim.Acquisition) -> tuple[int, int]:
    """Return pixels in z and x over which what lies outside a field is heard in it: twice the size of a point's echo."""
    from ussim.imaging import echo_size

    probe, speed = acquisition.probe, acquisition.medium.speed_of_sound
    height, width = echo_size(probe, speed)
    aperture = float(np.ptp(probe.element_x)) + probe.element_width
    width = max(width, speed / probe.center_frequency * float(grid.z[-1]) / aperture)
    height *= max(1.0, acquisition.n_cycles)
    steps = (float(grid.z[1] - grid.z[0]), float(grid.x[1] - grid.x[0]))
    return int(np.ceil(2 * height / steps[0])), int(np.ceil(2 * width / steps[1]))


def simulate_pair(hq: np.ndarray | Scene, imager: Imager, seed: int) -> Pair:
    """Return the B-mode of an image, pixel for pixel on the grid of the image.

    Parameters
    ----------
    hq : (size, size) uint8, or with what else shapes an image of it.
    seed : of this image under this probe; scatterers and noise have streams of their own, so that adding noise moves no
        scatterer.
    """
    return simulate_pairs([hq], imager, [seed])[0]


def simulate_pairs(hqs: Sequence[np.ndarray | Scene], imager: Imager, seeds: Sequence[int]) -> list[Pair]:
    """`simulate_pair` of several images: the same bytes, on a card as many together as its memory holds.

    Channel data and images stay on the card, from scatterers to B-modes, which come home in one copy.
    """
    scenes = [hq if isinstance(hq, Scene) else Scene(hq) for hq in hqs]
    for hq in (scene.hq for scene in scenes):
        if hq.shape != imager.grid.shape or hq.dtype != np.uint8:
            raise ValueError(f"hq: expected uint8 of shape {imager.grid.shape}, got {hq.dtype} of shape {hq.shape}")
    pairs: list[Pair] = []
    while len(pairs) < len(scenes):
        part = slice(len(pairs), len(pairs) + _n_together(imager))
        pairs += _simulate(scenes[part], imager, seeds[part])
    return pairs


def probe_seed(seed: int, probe_name: str) -> int:
    """Seed of a sample under one probe: two probes see different speckle, and adding a probe changes no other's."""
    return int(np.random.SeedSequence([seed, stable_hash(probe_name)]).generate_state(1, np.uint64)[0] >> 1)


def draw_seed(seed: int, draw: int) -> int:
    """Seed of one of a sample's draws of scatterers: the first is the sample's own, whatever the number of draws."""
    if draw == 0:
        return seed
    return int(np.random.SeedSequence([seed, stable_hash("draw"), draw]).generate_state(1, np.uint64)[0] >> 1)


def _n_together(imager: Imager) -> int:
    """Images to simulate at once: one on the CPU, on a card those that take at most half of what is free."""
    from ussim.engines import get_engine

    acquisition = imager.acquisition
    record = acquisition.n_transmits * acquisition.probe.n_elements * imager.n_samples
    return get_engine(imager.settings.engine).batch_size(BYTES_A_SAMPLE * record)


def channel_data(
    scenes: Sequence[Scene], imager: Imager, seeds: Sequence[int]
) -> tuple[ussim.RFData, list[ussim.Scatterers]]:
    """Return the channel data that LQ images are beamformed from, a stack as received, and the scatterers drawn."""
    import ussim

    settings = imager.settings
    streams = [np.random.SeedSequence(seed).spawn(2) for seed in seeds]  # of scatterers, of noise
    media = [
        scatterers_of(scene, imager, np.random.default_rng(stream))
        for scene, (stream, _) in zip(scenes, streams, strict=True)
    ]
    rf = ussim.simulate_stack(media, imager.acquisition, settings.engine, n_samples=imager.n_samples)
    ussim.apply_receive_chain(rf, receive_chain(settings), seeds=[stream for _, stream in streams], in_place=True)
    return rf, media


def beamformed(rf: ussim.RFData, imager: Imager) -> Any:
    """Return the envelopes of a stack of channel data, (k, size, size), where the engine computes."""
    import ussim

    settings = imager.settings
    return ussim.envelope_image(
        ussim.demodulate(rf),
        imager.grid,
        imager.rules.f_number(settings.f_number, settings.probe, imager.speed_of_sound),
        fine=imager.rules.fine,
        speed_of_sound=imager.speed_of_sound,
        engine=settings.engine,
    )


def displayed(envelopes: Any, settings: Settings) -> np.ndarray:
    """Return the LQ images of a stack of envelopes, (k, size, size) uint8."""
    import ussim
    from ussim.arrays import to_numpy

    # White is `gain` below the brightest echo; what lies above is white too.
    span = settings.dynamic_range_db + settings.gain_db
    bmodes = to_numpy(ussim.log_compress(envelopes, span, per_image=True)) if span > 0 else np.zeros(envelopes.shape)
    if settings.gain_db:
        bmodes = np.minimum(bmodes * np.float32(span / settings.dynamic_range_db), 1)
    return np.round(bmodes * 255).astype(np.uint8)


def _simulate(scenes: Sequence[Scene], imager: Imager, seeds: Sequence[int]) -> list[Pair]:
    """Pairs as one stack, which stays where the engine computes until the B-modes are there."""
    import ussim
    from ussim.arrays import to_numpy

    settings = imager.settings
    rf, media = channel_data(scenes, imager, seeds)
    images = beamformed(rf, imager)
    del rf
    lqs = displayed(images, settings)
    kept: list[np.ndarray | None] = [None] * len(lqs)
    if "envelope" in settings.keep:
        compressed = to_numpy(ussim.log_compress(images, -ENVELOPE_FLOOR_DB, per_image=True))
        kept = list(envelope_db(compressed, settings.gain_db))
    return [Pair(lq, len(medium), kept[i]) for i, (lq, medium) in enumerate(zip(lqs, media, strict=True))]


def envelope_db(compressed: np.ndarray, gain_db: float) -> np.ndarray:
    """Return an envelope compressed over -ENVELOPE_FLOOR_DB as what is kept of it: dB of LQ's white, float16."""
    decibels = (compressed - np.float32(1)) * np.float32(-ENVELOPE_FLOOR_DB) + np.float32(gain_db)
    return np.maximum(decibels, np.float32(ENVELOPE_FLOOR_DB)).astype(np.float16)


def scatterers_of(scene: Scene, imager: Imager, rng: np.random.Generator) -> ussim.Scatterers:
    """Draw the scatterers of a scene over the field, and over the margin of a field that was made smaller."""
    import ussim

    settings = imager.settings
    image, grid = scene.hq, imager.grid
    rows, columns = imager.margin
    if rows or columns:  # the tissue goes on beyond the border, as in a mirror
        image = np.pad(image, ((rows, rows), (columns, columns)), mode="symmetric")
        grid = ussim.ImageGrid(x=_beyond(grid.x, columns), z=_beyond(grid.z, rows))
    span = settings.dynamic_range_db if settings.scatterer_range_db is None else settings.scatterer_range_db
    # Where some tissue is denser than the recipe's, all are drawn as densely, and thinned.
    most = 1.0 if scene.density is None else max(1.0, float(scene.density.max()))
    distance = imager.mean_distance / np.sqrt(most)
    drawn = ussim.scatterers_from_image(image, grid, imager.acquisition, rng, distance, span)
    return drawn if scene.is_plain else _as_in(scene, drawn, imager, rng, most)


def _beyond(axis: np.ndarray, count: int) -> np.ndarray:
    """Return an axis with so many more pixels at either end."""
    step = axis[1] - axis[0]
    return np.concatenate([axis[0] - step * np.arange(count, 0, -1), axis, axis[-1] + step * np.arange(1, count + 1)])


def _as_in(
    scene: Scene, drawn: ussim.Scatterers, imager: Imager, rng: np.random.Generator, most: float
) -> ussim.Scatterers:
    """Return the scatterers of a scene: as dense as it says, with its single points, weaker behind what absorbs."""
    import ussim

    grid = imager.grid
    x, z, reflectivity = drawn.x, drawn.z, drawn.reflectivity
    if scene.density is not None:
        density = scene.density[_nearest(z, grid.z), _nearest(x, grid.x)]
        kept = rng.random(x.size) * most < density
        # Fewer scatterers of the same echo strength together.
        x, z, reflectivity = x[kept], z[kept], reflectivity[kept] / np.sqrt(density[kept])
    if scene.points is not None and len(scene.points):
        n = len(scene.hq)
        px, pz = (
            np.interp(share * n - 0.5, np.arange(n), axis)
            for share, axis in ((scene.points[:, 0], grid.x), (scene.points[:, 1], grid.z))
        )
        front = ~imager.acquisition.probe.is_behind(px, pz)
        x, z = np.concatenate([x, px[front]]), np.concatenate([z, pz[front]])
        reflectivity = np.concatenate([reflectivity, 10 ** (scene.points[front, 2] / 20)])
    if scene.loss is not None:
        reflectivity = reflectivity * 10 ** (-lost_db(scene.loss, x, z, imager) / 20)
    return ussim.Scatterers(x, z, reflectivity)


def lost_db(loss: np.ndarray, x: np.ndarray, z: np.ndarray, imager: Imager) -> np.ndarray:
    """Return what echoes from some points lose on their way, dB, along the beam that each lies on.

    Twice the loss along a ray from the beams' origin, at the probe's center frequency: straight down for a linear array,
    from the center of curvature of a convex one, from the middle of a phased one. Rays end at the borders of the field.

    Parameters
    ----------
    loss : (size, size), dB/cm/MHz on the pixels of the field.
    x, z : m, of points.
    """
    from scipy.ndimage import map_coordinates

    from ussim.phantoms import beam_apex

    grid, probe = imager.grid, imager.settings.probe
    apex = beam_apex(probe)
    n = 2 * max(loss.shape)
    if apex is None:
        across, along = grid.x, np.linspace(grid.z[0], grid.z[-1], n)
        places = (along[:, None] + 0 * across, across + 0 * along[:, None])
        u, v = x, z
    else:
        corner_x, corner_z = np.meshgrid(grid.x, grid.z[[0, -1]] - apex)
        angle, reach = np.arctan2(corner_x, corner_z), np.hypot(corner_x, corner_z)
        nearest = float(np.abs(grid.z[0] - apex)) if grid.x[0] <= 0 <= grid.x[-1] else float(reach.min())
        across, along = np.linspace(angle.min(), angle.max(), n), np.linspace(nearest, reach.max(), n)
        places = (apex + along[:, None] * np.cos(across), along[:, None] * np.sin(across))
        u, v = np.arctan2(x, z - apex), np.hypot(x, z - apex)
    pixels = [_pixel(place, axis) for place, axis in zip(places, (grid.z, grid.x), strict=True)]
    on_rays = map_coordinates(loss, pixels, order=1, mode="constant", cval=0.0)
    step_cm = 100 * (along[1] - along[0])
    total = np.cumsum(on_rays, axis=0, dtype=np.float64) - on_rays / 2  # up to the middle of each step
    found = map_coordinates(total, [_pixel(v, along), _pixel(u, across)], order=1, mode="nearest")
    return np.clip(2 * probe.center_frequency / 1e6 * step_cm * found, -MOST_LOST_DB, MOST_LOST_DB)


def _pixel(place: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Return places along an even axis, in pixels."""
    return (place - axis[0]) / (axis[1] - axis[0])


def _nearest(place: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Index of the nearest pixel of an even axis; beyond its ends as in a mirror."""
    n = axis.size
    index = np.rint((place - axis[0]) / (axis[1] - axis[0])).astype(int)
    index = np.where(index < 0, -1 - index, index)
    return np.clip(np.where(index >= n, 2 * n - 1 - index, index), 0, n - 1)
