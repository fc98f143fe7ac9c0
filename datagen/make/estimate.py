"""Estimate of a build: samples and bytes, counted, and time, measured on one sample."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from ussim.errors import DataError

from ..plan.recipe import Recipe
from ..plan.samples import Plan, make_plan
from ..store import layout
from .cluster import Workers
from .progress import Watcher
from .shards import Job, make_sample


@dataclass(frozen=True)
class Estimate:
    """Figures of a build."""

    plan: Plan
    n_full: int
    n_patches: int
    n_bytes: float
    seconds_a_sample: float  # in one process
    timed: str  # the sample that was timed


def estimate(recipe: Recipe, watcher: Watcher | None = None) -> Estimate:
    """Plan a build and simulate one of its samples; nothing is written."""
    here = Workers(watcher or Watcher())
    resolved = recipe.resolve(here.engine(recipe.engine))
    plan = make_plan(resolved, here.map)
    job = Job("", 0, (), plan.recipe, 1)
    sample = plan.samples[len(plan.samples) // 2]
    for _ in range(2):  # the first one compiles
        started = time.perf_counter()
        made = make_sample(sample, job)
        seconds = time.perf_counter() - started
    if made.row["set_aside"]:
        raise DataError(f"{sample.id}: {made.row['set_aside']}")
    per_shard = recipe.samples_per_shard or layout.shard_size(len(plan.samples))
    n_bytes = sum(
        len(layout.encode_array(np.repeat(image[None], per_shard, axis=0), per_shard)) / per_shard
        for image in made.images.values()
    )
    n_full = sum(sample.kind == "full" for sample in plan.samples)
    return Estimate(
        plan=plan,
        n_full=n_full,
        n_patches=len(plan.samples) - n_full,
        n_bytes=n_bytes * len(plan.samples),
        seconds_a_sample=seconds,
        timed=sample.id,
    )
