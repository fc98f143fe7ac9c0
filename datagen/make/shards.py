"""One shard of a dataset, from its samples' descriptions to files in place: a pure function of its job.

A sample that fails is tried again, then set aside: its images stay blank and its row says why. What is wrong with the
machine rather than with the sample (no space, no device, an interrupt) ends the shard, which is then as if never begun.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ussim.errors import DataError

from ..identity import stable_hash
from ..plan.resolved import ResolvedRecipe, array_name
from ..plan.samples import Sample, scene_of
from ..sources.scene import Scene
from ..store.layout import LABELS, Row, ShardRecord, Value, dtype_of, envelope_key, image_shape, lq_key, mask_key
from ..store.location import Storage, open_storage
from ..store.write import write_shard
from .pairs import draw_seed, make_imager, probe_seed, simulate_pairs

MASK_STEP = (
    4  # pixels between those at which a field that differs in every sample is worked out: it costs as much as imaging
)
ATTEMPTS = 3  # at a sample, before it is set aside
HOPELESS = 16  # samples that fail in a row, of more than one volume: the machine fails, not the samples
# Samples simulated together on a card: its kernels then outlast what the host does between them, the channel data stay
# below 1.5 GB for any preset probe, and little is done again where one sample fails.
BATCH = 16


@dataclass(frozen=True)
class Job:
    """Everything a worker needs to make one shard; small, picklable."""

    url: str  # of the store
    index: int  # of the shard
    samples: tuple[Sample, ...]
    recipe: ResolvedRecipe
    samples_per_shard: int
    recipe_digest: str = ""  # of the build: recorded with the shard


@dataclass(frozen=True, eq=False)
class Made:
    """One finished sample."""

    row: Row
    # "hq", "lq/..." (uint8), where they vary "mask/..." (bool), "envelope/..." (float16), "labels" (uint16): (size, size),
    # of several draws (draws, size, size)
    images: dict[str, np.ndarray]


class Streak:
    """Failures in a row, by which a failing machine is told from a failing sample.

    One damaged file fails by itself and is set aside. A library that vanished or a full scratch disk fails everything from
    then on, and a build that went on would set all of it aside.
    """

    def __init__(self, of_one_volume: bool = False) -> None:
        self._one_is_enough = of_one_volume  # the dataset has no second volume to compare with
        self._length = 0
        self._volumes: set[str] = set()

    def add(self, row: Row) -> None:
        """Count a finished sample.

        Raises
        ------
        DataError
            It is the last of HOPELESS failures in a row.
        """
        if not row["set_aside"]:
            self._length = 0
            self._volumes.clear()
            return
        self._length += 1
        self._volumes.add(str(row["volume"]))
        if self._length >= HOPELESS and (self._one_is_enough or len(self._volumes) > 1):
            raise DataError(
                f"{self._length} samples in a row failed, the last one {row['id']}: {row['set_aside']}; what was made "
                "before stays: mend the cause and run the same command with --resume"
            )


def make_shard(job: Job, on_sample: Callable[[int], None] = lambda done: None) -> ShardRecord:
    """Simulate the samples of a shard, put its files in place, and return its record.

    Parameters
    ----------
    on_sample : called with the number of samples done so far, after each.

    Raises
    ------
    DataError
        HOPELESS samples in a row fail, of more than one volume.
    ussim.EngineError
        The device fails.
    """
    started = time.monotonic()
    made: list[Made] = []
    streak = Streak()
    for sample in make_each(job.samples, job):
        made.append(sample)
        streak.add(sample.row)
        on_sample(len(made))
    return finish_shard(job, made, started)


def make_each(samples: Sequence[Sample], job: Job) -> Iterator[Made]:
    """Yield every sample, on a card BATCH of them simulated together, on the CPU one by one."""
    # Where settings are drawn for each sample, no two share what the engine prepares.
    together = job.recipe.randomize is None and any(on_device(settings.engine) for settings in job.recipe.settings)
    step = BATCH if together else 1
    for first in range(0, len(samples), step):
        yield from make_samples(samples[first : first + step], job)


def on_device(engine: str) -> bool:
    """Return whether an engine computes on a card; raises ussim.EngineError where there is no such engine or device."""
    from ussim.engines import get_engine

    return get_engine(engine).on_device


def finish_shard(job: Job, made: list[Made], started: float) -> ShardRecord:
    """Put the files of finished samples in place, log the time, and return the shard's record."""
    storage = open_storage(job.url)
    arrays = {key: np.stack([sample.images[key] for sample in made]) for key in made[0].images}
    record = write_shard(
        storage, job.index, arrays, [sample.row for sample in made], job.samples_per_shard, job.recipe_digest
    )
    entry = {"shard": job.index, "samples": len(made), "seconds": round(time.monotonic() - started, 3)}
    log(storage, "shard", **entry)
    return record


def make_samples(samples: Sequence[Sample], job: Job) -> Iterator[Made]:
    """Yield samples that share their settings, simulated together.

    Where one of them fails, one by one, which sets it aside.
    """
    if len(samples) > 1:
        try:
            yield from _make(samples, job)
            return
        except Exception:  # of too little memory for all of them, too
            pass
    yield from (make_sample(sample, job) for sample in samples)


def make_sample(sample: Sample, job: Job) -> Made:
    """One sample under every probe; set aside after ATTEMPTS failures."""
    from ussim import EngineError
    from ussim.arrays import device_errors

    for attempt in range(1, ATTEMPTS + 1):
        try:
            with device_errors(job.recipe.settings[0].engine):
                return _make([sample], job)[0]
        except EngineError:
            raise  # no such device, or a dead one: no sample would do better
        except Exception as error:
            if attempt == ATTEMPTS:
                return blank_sample(sample, job, f"{type(error).__name__}: {error}")
    raise AssertionError("unreachable")


def blank_sample(sample: Sample, job: Job, reason: str) -> Made:
    """Return the place of a sample that is set aside."""
    row = _row(sample, job) | {"set_aside": " ".join(reason.split())}
    keys = ["hq", *([LABELS] if job.recipe.has_labels else [])]
    for settings in job.recipe.settings:
        name = settings.probe.name
        row |= {f"{column}_{array_name(name)}": None for column in _simulated_columns(job)}
        keys += [lq_key(name), *([envelope_key(name)] if "envelope" in settings.keep else [])]
        keys += [mask_key(name)] if job.recipe.randomize is not None else []
    return Made(row, {key: np.zeros(image_shape(key, job.recipe), dtype_of(key)) for key in keys})


def _row(sample: Sample, job: Job) -> Row:
    """Return what the table says of a sample, but for what is simulated."""
    row: Row = sample.row(job.recipe.size, job.recipe.folds, job.recipe.tells_variants)
    draws = range(1, job.recipe.speckle_draws)
    return row | {f"seed_draw{draw}": draw_seed(sample.seed, draw) for draw in draws}


def _make(samples: Sequence[Sample], job: Job) -> list[Made]:
    """Return samples that share their settings, or one alone."""
    scenes = [scene_of(sample, job.recipe.cutting) for sample in samples]
    made = [Made(_row(sample, job), _still(scene, job)) for sample, scene in zip(samples, scenes, strict=True)]
    draws = job.recipe.speckle_draws
    for settings in job.recipe.settings:
        name = settings.probe.name
        seeds = [probe_seed(draw_seed(sample.seed, draw), name) for sample in samples for draw in range(draws)]
        drawn: dict[str, float] = {}
        masks: dict[str, np.ndarray] = {}
        if job.recipe.randomize is not None:
            seed = seeds[0]  # of one sample alone: its draws are heard by one machine
            drawn = job.recipe.randomize.draw(np.random.default_rng([seed, stable_hash("randomize")]))
            imager = make_imager(settings.with_drawn(drawn))
            masks = {mask_key(name): imager.mask(MASK_STEP)}
        else:
            imager = make_imager(settings)
        pixel_x, pixel_z = imager.pixel_size_mm
        values: Row = {"lq_pixel_x_mm": f"{pixel_x:.6g}", "lq_pixel_z_mm": f"{pixel_z:.6g}", **drawn}
        simulated = simulate_pairs([scene for scene in scenes for _ in range(draws)], imager, seeds)
        for i, sample in enumerate(made):
            own = simulated[i * draws : (i + 1) * draws]
            row = values | {"scatterers": own[0].n_scatterers}
            sample.row.update({f"{column}_{array_name(name)}": row[column] for column in _simulated_columns(job)})
            sample.images.update(masks | {lq_key(name): _drawn([pair.lq for pair in own])})
            envelopes = [pair.envelope for pair in own if pair.envelope is not None]
            sample.images.update({envelope_key(name): _drawn(envelopes)} if envelopes else {})
    return made


def _still(scene: Scene, job: Job) -> dict[str, np.ndarray]:
    """Return the images of a sample that no probe shapes."""
    images = {"hq": scene.hq if scene.points is None else scene.picture(job.recipe.dynamic_range_db)}
    if job.recipe.has_labels:
        images[LABELS] = np.zeros(scene.hq.shape, np.uint16) if scene.labels is None else scene.labels
    return images


def _drawn(images: list[np.ndarray]) -> np.ndarray:
    """Return the images of all draws, (draws, size, size); of one alone itself."""
    return np.stack(images) if len(images) > 1 else images[0]


def _simulated_columns(job: Job) -> tuple[str, ...]:
    """Return what the table says of a sample under one probe, `_<PROBE>` appended."""
    drawn = job.recipe.randomize.names if job.recipe.randomize is not None else ()
    return ("scatterers", "lq_pixel_x_mm", "lq_pixel_z_mm", *drawn)


def log(storage: Storage, event: str, **entry: Value) -> None:
    """Write a line in the store's log: what depends on the machine and the hour, and no digest covers."""
    line = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "host": platform.node(),
        "event": event,
        **entry,
    }
    storage.append("build/log.jsonl", json.dumps(line))
