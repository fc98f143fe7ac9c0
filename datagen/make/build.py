"""A build from recipe to finished store, in this process or on a Dask cluster. Dask appears in this file only.

    plan ─► create | resume | overwrite ─► shards, each one task that owns its files ─► finish

A task gets a small description of its shard and returns the shard's record; images never travel. Which shards exist is read
from their records, so a build that was stopped, however it was stopped, goes on where it was.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ussim.commands import console
from ussim.errors import ChangedError, DataError, ExistsError

from ..plan.formats import FORMAT, format_of
from ..plan.recipe import Recipe, array_name, differences
from ..plan.samples import Plan, make_plan
from ..sources import get_source
from ..sources.base import under_terms
from ..store import layout as store
from ..store.location import LocalStorage, Storage, open_storage
from .pairs import make_imager, resolve_engine
from .shards import HOPELESS, Job, Made, Streak, blank_sample, finish_shard, log, make_jobs, make_sample, make_shard

TOPIC = "datagen-samples"  # of the events by which workers say how far they are
SMALL_SHARE = 0.05  # of the samples: with more than these set aside a dataset is not what was asked for
IN_FLIGHT = 3  # shards a worker thread has waiting for it: enough never to idle, few enough to stay small


@dataclass(frozen=True)
class Summary:
    """What a build did."""

    url: str
    n_samples: int
    n_built: int  # by this run
    set_aside: tuple[tuple[str, str], ...]  # (sample, reason)
    unreadable: tuple[tuple[str, str], ...]  # (volume, reason)
    skipped: dict[str, int]  # images left out, by reason
    notes: tuple[str, ...]
    n_subjects: int
    n_volumes: int
    folds: int
    seconds: float
    digest: str
    sources: tuple[str, ...] = ()
    probes: tuple[str, ...] = ()

    @property
    def is_incomplete(self) -> bool:
        """Whether more than SMALL_SHARE of the samples were set aside."""
        return len(self.set_aside) > SMALL_SHARE * self.n_samples


class Watcher:
    """What a build says while it is at work; this one says nothing."""

    def message(self, text: str) -> None:
        """Something worth a line."""

    def reading(self, done: int, total: int) -> None:
        """`done` of `total` volumes have been read."""

    def begin(self, total: int, done: int) -> None:
        """`total` samples are to be had, `done` of which are there."""

    def progress(self, done: int, set_aside: int) -> None:
        """`done` samples are there, `set_aside` of them without images."""

    def end(self) -> None:
        """The last sample is there, or the build was stopped."""


@dataclass
class Workers:
    """Where the shards are made: a Dask client, or this process."""

    client: Any = None
    numba_threads: int | None = None  # a task's share, where tasks share a process


def build(
    recipe: Recipe,
    out: str | Path,
    client: Any = None,
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    watcher: Watcher | None = None,
) -> Summary:
    """Build a dataset.

    Parameters
    ----------
    out : folder or fsspec URL of the store.
    client : a dask.distributed.Client to work on; None = `workers` or `scheduler`, else this process.
    workers : local worker processes (threads where `scheduler` is "threads"), each with its share of the cores.
    scheduler : "threads", "processes", the address of a scheduler, or the path of a scheduler file.
    resume : go on with a store of the same recipe: missing, cut short or complete.
    overwrite : delete a store that is there.

    Raises
    ------
    DataError, RecipeError, ussim.ProbeError, ussim.EngineError
        The data, the recipe, or the machine will not do.
    ExistsError
        Something is at `out` already.
    ChangedError
        `resume`, but what is there was built from another recipe, other data or by another engine.
    OSError
        The store cannot be written.
    """
    started = time.time()
    watcher = watcher or Watcher()
    storage = open_storage(out)
    _check_output(storage, resume, overwrite)
    if overwrite:
        _check_inputs_survive(recipe, storage)
    with _workers(recipe, client, workers, scheduler, watcher) as crew:
        engine = _resolve_engine(recipe, crew)
        plan = make_plan(
            recipe,
            engine,
            lambda function, refs: _map_volumes(crew, function, refs, watcher),
            _format(storage) if resume else FORMAT,
        )
        _check_output(storage, resume, overwrite)  # reading may have taken long
        if overwrite and storage.exists():
            storage.delete()
        jobs = _jobs(recipe, plan, storage.url)
        if not storage.exists() or store.is_begun(storage):
            _create(storage, recipe, plan, jobs, _attributes(recipe, plan, jobs))
        with storage.exclusively():
            return _build(storage, recipe, plan, jobs, crew, watcher, started)


def _jobs(recipe: Recipe, plan: Plan, url: str, samples_per_shard: int | None = None) -> list[Job]:
    per_shard = samples_per_shard or recipe.samples_per_shard or store.shard_size(len(plan.samples))
    return make_jobs(plan.record, plan.samples, url, per_shard, recipe.sam2_checkpoint)


def local_engine(recipe: Recipe) -> str:
    """What the recipe's engine comes to on this machine."""
    return resolve_engine(recipe.engine)


# --- the store -------------------------------------------------------------------------------------------------------


def _check_output(storage: Storage, resume: bool, overwrite: bool) -> None:
    """Refuse, before the work, what would be refused after it."""
    if resume and overwrite:
        raise ExistsError("--resume and --overwrite exclude each other: go on with the store, or start it again")
    storage.check_writable()
    if not storage.exists() or store.is_begun(storage):
        return
    try:
        attributes = store.read_attributes(storage)
    except store.StoreError as error:
        raise ExistsError(f"{error}; it is left alone: choose another --out") from None
    if not (resume or overwrite):
        state = "a finished store" if attributes.get("complete") else "an unfinished store"
        verb = "--resume to check and keep it" if attributes.get("complete") else "--resume to finish it"
        raise ExistsError(f"{storage.url}: {state} is here already; give {verb}, or --overwrite to start again")


def _check_inputs_survive(recipe: Recipe, storage: Storage) -> None:
    """Refuse to delete a store that holds what the new one is made of."""
    if not isinstance(storage, LocalStorage):
        return
    files = [Path(probe.path) for probe in recipe.load_probes() if probe.path]
    for path in (*recipe.roots(), *files):
        if console.is_inside(path, storage.folder):
            raise ExistsError(f"{storage.url}: --overwrite would delete the input {path}; choose another --out")


def _format(storage: Storage) -> int:
    """The format of the store that is gone on with, of new ones where there is none yet."""
    if not storage.exists() or store.is_begun(storage):
        return FORMAT
    return format_of(store.read_attributes(storage)["recipe"])


def _create(storage: Storage, recipe: Recipe, plan: Plan, jobs: Sequence[Job], attributes: dict[str, Any]) -> None:
    """All of a store but the shards and what is made of them."""
    settings = jobs[0].settings
    masks = {s.probe.name: None if recipe.randomize is not None else make_imager(s).mask() for s in settings}
    store.create(
        storage,
        attributes,
        len(plan.samples),
        recipe.size,
        jobs[0].samples_per_shard,
        masks,
    )


def _attributes(recipe: Recipe, plan: Plan, jobs: Sequence[Job]) -> dict[str, Any]:
    """What the group says of itself."""
    own = [get_source(name) for name in recipe.source]
    # Files "of one's own" that look like a collection are under that one's terms.
    sources = [under_terms(source, root) for source, root in zip(own, recipe.roots(), strict=True)]
    return {
        "recipe": plan.record,
        "recipe_digest": plan.digest,
        "source": ", ".join(recipe.source),
        "licence": "; ".join(source.licence for source in sources),
        "citation": "; ".join(source.citation for source in sources),
        "sources": [
            {
                "name": name,
                "title": source.title,
                "licence": source.licence,
                "citation": source.citation,
                "terms": source.terms,
                "redistributable": source.redistributable,
            }
            for name, source in zip(recipe.source, sources, strict=True)
        ],
        "probes": {settings.probe.name: array_name(settings.probe.name) for settings in jobs[0].settings},
        "n_samples": len(plan.samples),
        "n_shards": len(jobs),
        "samples_per_shard": jobs[0].samples_per_shard,
        "subject_rules": list(plan.subject_rules),
        "skipped": plan.skipped,
        "unreadable": [f"{volume}: {reason}" for volume, reason in plan.unreadable],
        "versions": store.versions(),
    }


def _build(
    storage: Storage,
    recipe: Recipe,
    plan: Plan,
    jobs: Sequence[Job],
    crew: Workers,
    watcher: Watcher,
    started: float,
) -> Summary:
    attributes = store.read_attributes(storage)
    _check_unchanged(storage, attributes, plan)
    if attributes["samples_per_shard"] != jobs[0].samples_per_shard:  # not part of the recipe: go on as it was begun
        jobs = _jobs(recipe, plan, storage.url, attributes["samples_per_shard"])
    storage.clean()
    there = {}  # samples of each whole shard
    for job in jobs:
        if _is_whole(storage, job):
            there[job.index] = len(job.samples)
    todo = [job for job in jobs if job.index not in there]
    if todo:
        store.reopen(storage)
    n_before = sum(there.values())
    log(storage.url, "begin", samples=len(plan.samples), there=n_before, recipe_digest=plan.digest)
    watcher.begin(len(plan.samples), n_before)
    count = _Count(there, watcher)
    streak = Streak(of_one_volume=plan.n_volumes == 1)
    try:
        for record in _run(todo, crew, count):
            count.finished(record)
            if len(count.set_aside) == count.done - n_before >= min(HOPELESS, len(plan.samples)):
                sample, reason = count.set_aside[0]
                raise DataError(
                    f"{storage.url}: all of the first {len(count.set_aside)} samples failed; {sample}: {reason}"
                )
            for row in record["rows"]:
                streak.add(row)
    except OSError as error:
        raise _disk_error(error, storage) from None
    finally:
        watcher.end()
    total = attributes.get("digest", "")
    if todo or not store.is_whole(storage, len(jobs)):
        store.reopen(storage)
        _create(storage, recipe, plan, jobs, attributes)  # in case it is there that something was lost
        total = store.finish(storage, len(jobs), attributes | {"n_set_aside": len(count.set_aside)})
    set_aside = tuple(sorted(count.set_aside))
    seconds = time.time() - started
    log(storage.url, "end", built=len(plan.samples) - n_before, seconds=round(seconds, 3), digest=total)
    storage.clean()
    return Summary(
        url=storage.url,
        n_samples=len(plan.samples),
        n_built=len(plan.samples) - n_before,
        set_aside=set_aside,
        unreadable=plan.unreadable,
        skipped=plan.skipped,
        notes=plan.notes,
        n_subjects=len(plan.subjects),
        n_volumes=plan.n_volumes,
        folds=plan.folds,
        seconds=seconds,
        digest=total,
        sources=recipe.source,
        probes=tuple(attributes["probes"]),
    )


def _check_unchanged(storage: Storage, attributes: dict[str, Any], plan: Plan) -> None:
    if attributes["recipe_digest"] == plan.digest:
        return
    changed = differences(attributes["recipe"], plan.record)
    what = "; ".join(changed) if changed else "the files of the source changed, or some came or went"
    raise ChangedError(f"{storage.url}: resume refused: {what}; build elsewhere, or start again with --overwrite")


def _is_whole(storage: Storage, job: Job) -> bool:
    """Whether a shard is there with all its files as written, and with all its samples: those that were set aside are given
    another chance."""
    record = store.read_record(storage, job.index)
    return (
        record is not None
        and [row["id"] for row in record["rows"]] == [sample.id for sample in job.samples]
        and not any(row["set_aside"] for row in record["rows"])
        and not store.damaged_files(storage, record)
    )


def _disk_error(error: OSError, storage: Storage) -> Exception:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DataError(
            f"{storage.url}: no space left on the device; free some and run the same command with --resume: "
            "what is written stays"
        )
    return error


class _Count:
    """How many samples are there: of finished shards, and as far as workers said, of those at work."""

    def __init__(self, there: dict[int, int], watcher: Watcher) -> None:
        self.watcher = watcher
        self.done = sum(there.values())
        self.set_aside: list[tuple[str, str]] = []  # (sample, reason)
        self.partial: dict[int, int] = {}
        self.closed = set(there)
        self.lock = threading.Lock()  # workers are heard in a thread of the client's

    def working(self, shard: int, done: int) -> None:
        """A shard at work has `done` samples."""
        with self.lock:
            if shard not in self.closed:
                self.partial[shard] = done
                self._say()

    def finished(self, record: dict[str, Any]) -> None:
        """A shard is there."""
        with self.lock:
            self.closed.add(record["shard"])
            self.partial.pop(record["shard"], None)
            self.done += len(record["rows"])
            self.set_aside += [(row["id"], row["set_aside"]) for row in record["rows"] if row["set_aside"]]
            self._say()

    def _say(self) -> None:
        self.watcher.progress(self.done + sum(self.partial.values()), len(self.set_aside))


# --- Dask ------------------------------------------------------------------------------------------------------------


@contextmanager
def _workers(
    recipe: Recipe, client: Any, workers: int | None, scheduler: str | None, watcher: Watcher
) -> Iterator[Workers]:
    """Where to work, made for the occasion unless a client was given."""
    if client is not None:
        yield Workers(client)
        return
    if workers is None and scheduler is None:
        yield Workers()
        return
    import logging

    from distributed import Client

    for name in ("distributed", "bokeh"):  # what a closing cluster says of its own end is no news
        logging.getLogger(name).setLevel(logging.CRITICAL)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    n_workers = workers or cores
    share = max(1, cores // n_workers)
    if scheduler is not None and scheduler not in ("threads", "processes"):
        with _connect(scheduler) as connected:
            _announce(connected, watcher)
            yield Workers(connected)
        return
    with _local_cluster(recipe, n_workers, share, scheduler == "threads") as cluster, Client(cluster) as local:
        _announce(local, watcher)
        yield Workers(local, share if scheduler == "threads" else None)


@contextmanager
def _local_cluster(recipe: Recipe, n_workers: int, share: int, threads: bool) -> Iterator[Any]:
    """Worker processes of one thread each, or one process of threads; one worker a GPU where the engine is CUDA."""
    from distributed import LocalCluster

    if local_engine(recipe).startswith("cuda") and not threads:
        try:
            from dask_cuda import LocalCUDACluster
        except ImportError:
            raise DataError(
                "workers with the engine cuda need the package dask-cuda (one worker a GPU): pip install dask-cuda, or "
                "leave --workers out to use one GPU"
            ) from None
        with LocalCUDACluster(n_workers=n_workers, threads_per_worker=1) as cluster:
            yield cluster
        return
    environment = {name: str(share) for name in ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    with LocalCluster(
        n_workers=1 if threads else n_workers,
        threads_per_worker=n_workers if threads else 1,
        processes=not threads,
        dashboard_address="127.0.0.1:0",
        **({} if threads else {"env": environment, "preload": [__name__]}),
    ) as cluster:
        yield cluster


def dask_setup(_worker: Any) -> None:
    """Called by Dask in each worker process of a local cluster: ctrl-C, which reaches the whole group, is the build's to
    handle, and what a worker says of being stopped is no news."""
    import logging
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.disable(logging.ERROR)


@contextmanager
def _connect(scheduler: str) -> Iterator[Any]:
    """A client of a scheduler at an address or described by a file."""
    from distributed import Client

    path = Path(scheduler)
    if "://" not in scheduler and not path.is_file():
        raise DataError(
            'scheduler: expected "threads", "processes", an address such as tcp://host:8786 or the path of a scheduler '
            f"file, got {scheduler!r}"
        )
    try:
        client = Client(scheduler_file=str(path)) if path.is_file() else Client(scheduler, timeout=10)
    except (OSError, ValueError) as error:
        raise DataError(f"scheduler {scheduler}: no answer: {error}") from None
    with client:
        if not client.scheduler_info()["workers"]:
            try:
                client.wait_for_workers(1, timeout=60)
            except TimeoutError:
                raise DataError(
                    f"scheduler {scheduler}: no worker came within 60 s; start `dask worker` first"
                ) from None
        yield client


def _announce(client: Any, watcher: Watcher) -> None:
    from importlib.util import find_spec

    threads = sum(client.nthreads().values())
    note = "" if find_spec("bokeh") else " (shows once the package bokeh is installed)"
    watcher.message(f"{threads} workers at {client.scheduler.address}; dashboard {client.dashboard_link}{note}")


def _resolve_engine(recipe: Recipe, crew: Workers) -> str:
    """What the recipe's engine comes to where the work is done."""
    if crew.client is None:
        return local_engine(recipe)
    return crew.client.submit(resolve_engine, recipe.engine, pure=False).result()


def _map_volumes(crew: Workers, function: Callable, refs: Iterable[Any], watcher: Watcher) -> Iterator[Any]:
    """`map`, on the workers where there are any, in order, a few volumes ahead."""
    refs = list(refs)
    if crew.client is None:
        for done, ref in enumerate(refs, start=1):
            yield function(ref)
            watcher.reading(done, len(refs))
        return
    ahead = 2 * max(1, sum(crew.client.nthreads().values()))
    waiting: deque[Any] = deque()
    following = iter(refs)
    done = 0
    try:
        for ref in following:
            waiting.append(crew.client.submit(function, ref, pure=False))
            if len(waiting) < ahead:
                continue
            yield waiting.popleft().result()
            done += 1
            watcher.reading(done, len(refs))
        while waiting:
            yield waiting.popleft().result()
            done += 1
            watcher.reading(done, len(refs))
    finally:
        for future in waiting:
            future.cancel()


def _run(jobs: Sequence[Job], crew: Workers, count: _Count) -> Iterator[dict[str, Any]]:
    """The records of some shards, as they come."""
    if crew.client is None:
        for job in jobs:
            yield make_shard(job, lambda done, shard=job.index: count.working(shard, done))  # type: ignore[misc]
        return
    yield from _run_on_cluster(jobs, crew, count)


def _run_on_cluster(jobs: Sequence[Job], crew: Workers, count: _Count) -> Iterator[dict[str, Any]]:
    from distributed import as_completed

    client = crew.client
    client.subscribe_topic(TOPIC, lambda event: count.working(*event[1]))
    waiting = iter(jobs)
    futures: dict[Any, Job] = {}
    completed = as_completed()

    def submit() -> None:
        job = next(waiting, None)
        if job is not None:
            future = client.submit(_shard_task, job, crew.numba_threads, pure=False, retries=1)
            futures[future] = job
            completed.add(future)

    try:
        for _ in range(IN_FLIGHT * max(1, sum(client.nthreads().values()))):
            submit()
        for future in completed:
            job = futures.pop(future)
            yield _outcome(future, job, crew)
            future.release()
            submit()
    finally:
        client.unsubscribe_topic(TOPIC)
        if futures:
            client.cancel(list(futures), force=True)


def _outcome(future: Any, job: Job, crew: Workers) -> dict[str, Any]:
    """The record that a task came back with; a shard that keeps killing its workers is made sample by sample."""
    from distributed import CancelledError, KilledWorker

    try:
        record = future.result()
    except KilledWorker:  # also of a shard that was done, where its worker died before it could say so
        return _make_apart(job, crew)
    except CancelledError:
        raise DataError("the scheduler was lost; start it again and run the same command with --resume") from None
    if isinstance(record, Exception):
        raise record
    return record


def _make_apart(job: Job, crew: Workers) -> dict[str, Any]:
    """A shard, each sample a task of its own: the one that kills its worker is set aside, the others are not."""
    from distributed import KilledWorker

    started = time.time()
    made: list[Made] = []
    for sample in job.samples:
        try:
            made.append(crew.client.submit(make_sample, sample, job, pure=False).result())
        except KilledWorker:
            made.append(blank_sample(sample, job, "its worker died each time it was tried (out of memory?)"))
    return finish_shard(job, made, started)


def _shard_task(job: Job, numba_threads: int | None) -> dict[str, Any] | Exception:
    """A shard, on a worker; the error of its card as a value: raised, Dask would try again, perhaps on that card."""
    from distributed import get_worker

    from ussim import EngineError

    if numba_threads is not None:
        import numba

        numba.set_num_threads(numba_threads)  # of this thread: the others have their own share
    worker = get_worker()
    try:
        return make_shard(job, lambda done: worker.log_event(TOPIC, (job.index, done)))
    except EngineError as error:
        return EngineError(f"worker {worker.name}: {error}")
