"""Places where a build works: this process, or Dask, which appears in this file only.

A task gets a small description of its shard and returns the shard's record; images never travel.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ussim.commands.stopping import deferred
from ussim.errors import ConfigError, DataError, EngineError

from ..plan.resolved import engine_family
from ..store.layout import ShardRecord
from .progress import Count, Watcher
from .shards import Job, Made, blank_sample, finish_shard, make_sample, make_shard

if TYPE_CHECKING:
    from distributed import Client as Client
    from distributed import Future
    from distributed.deploy import LocalCluster, SpecCluster

Item = TypeVar("Item")
Result = TypeVar("Result")

DEADLY = "its worker died each time it was tried (out of memory?)"  # of a volume or a sample that is set aside
TOPIC = "datagen-samples"  # of the events by which workers say how far they are
CARD_THREADS = 3  # tasks of a worker with a card: what the host does for two goes on while the third keeps the card
PRELOAD = (__name__,)  # of each local worker process
IN_FLIGHT = 3  # shards a worker thread has waiting for it: enough never to idle, few enough to stay small


def resolve_engine(name: str) -> str:
    """Return what "auto" comes to on this machine; raises ussim.EngineError where there is no such engine or device."""
    from ussim.engines import get_engine

    found = get_engine(name).name
    return found if name == "auto" else name


class Workers:
    """The process at hand, which does one thing after the other.

    Parameters
    ----------
    watcher : told of each item that `map` has done.
    """

    def __init__(self, watcher: Watcher) -> None:
        self.watcher = watcher

    def engine(self, name: str) -> str:
        """Return what "auto" comes to where the work is done."""
        return resolve_engine(name)

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """`map`, in order."""
        everything = list(items)
        for done, item in enumerate(everything, start=1):
            yield function(item)
            self.watcher.reading(done, len(everything))

    def run(self, jobs: Iterable[Job], count: Count) -> Iterator[ShardRecord]:
        """Make some shards; yield their records as they come."""
        for job in jobs:
            yield make_shard(job, partial(count.working, job.index))


class Cluster(Workers):
    """The workers of a Dask client.

    Parameters
    ----------
    client : of the scheduler.
    watcher : told of each item that `map` has done.
    kernel_threads : a task's share, where tasks share a process.
    """

    def __init__(self, client: Client, watcher: Watcher, kernel_threads: int | None = None) -> None:
        super().__init__(watcher)
        self.client = client
        self.kernel_threads = kernel_threads

    @property
    def n_threads(self) -> int:
        """Tasks that are at work at the same time."""
        return max(1, sum(self.client.nthreads().values()))

    def engine(self, name: str) -> str:
        """Return what "auto" comes to on a worker."""
        return self.client.submit(resolve_engine, name, pure=False).result()

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """`map`, in order, a few items ahead."""
        everything = list(items)
        ahead = 2 * self.n_threads
        waiting: deque[Future] = deque()
        following = iter(everything)
        done = 0
        try:
            while done < len(everything):
                for item in following:
                    waiting.append(self.client.submit(function, item, pure=False))
                    if len(waiting) >= ahead:
                        break
                future = waiting.popleft()
                yield self._answer(function, everything[done], future)
                done += 1
                self.watcher.reading(done, len(everything))
        finally:
            for future in waiting:
                future.cancel()

    def _answer(self, function: Callable[[Item], Result], item: Item, future: Future) -> Result:
        """Return what became of an item; where it kills its workers, what the function has for one that is lost."""
        from distributed import CancelledError, KilledWorker
        from distributed.comm import CommClosedError

        try:
            return future.result()
        except KilledWorker:
            lost = getattr(function, "lost", None)
            if lost is None:
                raise
            return lost(item, DEADLY)
        except (CancelledError, CommClosedError):
            raise _lost_scheduler() from None

    def run(self, jobs: Iterable[Job], count: Count) -> Iterator[ShardRecord]:
        """Make some shards, each one task; yield their records as they come."""
        from distributed import as_completed
        from distributed.comm import CommClosedError

        client = self.client
        client.subscribe_topic(TOPIC, lambda event: count.working(*event[1]))
        waiting = iter(jobs)
        futures: dict[Future, Job] = {}
        completed = as_completed()

        def submit() -> None:
            job = next(waiting, None)
            if job is not None:
                future = client.submit(_shard_task, job, self.kernel_threads, pure=False, retries=1)
                futures[future] = job
                completed.add(future)

        try:
            for _ in range(IN_FLIGHT * self.n_threads):
                submit()
            for future in completed:
                job = futures.pop(future)
                yield self._outcome(future, job)
                future.release()
                submit()
        except CommClosedError:
            raise _lost_scheduler() from None
        finally:
            with suppress(CommClosedError):  # of a scheduler that is lost
                client.unsubscribe_topic(TOPIC)
                if futures:
                    client.cancel(list(futures), force=True)

    def _outcome(self, future: Future, job: Job) -> ShardRecord:
        """Return the record that a task came back with; a shard that keeps killing its workers is made sample by sample."""
        from distributed import CancelledError, KilledWorker

        try:
            record = future.result()
        except KilledWorker:  # also of a shard that was done, where its worker died before it could say so
            return self.make_apart(job)
        except CancelledError:
            raise _lost_scheduler() from None
        if isinstance(record, Exception):
            raise record
        return record

    def make_apart(self, job: Job) -> ShardRecord:
        """Make a shard, each sample a task of its own: the one that kills its worker is set aside, the others are not."""
        from distributed import KilledWorker

        started = time.monotonic()
        made: list[Made] = []
        for sample in job.samples:
            try:
                made.append(self.client.submit(make_sample, sample, job, pure=False).result())
            except KilledWorker:
                made.append(blank_sample(sample, job, DEADLY))
        return finish_shard(job, made, started)


@contextmanager
def open_workers(
    engine: str, client: Client | None, workers: int | None, scheduler: str | None, watcher: Watcher
) -> Iterator[Workers]:
    """Return where to work, made for the occasion unless a client was given.

    Parameters
    ----------
    engine : of the recipe. With CUDA local processes have a card each, as many as there are cards where neither `workers`
        nor `scheduler` is given.
    client, workers, scheduler : as `build` takes them.

    Raises
    ------
    ConfigError
        Workers are asked for, and a card by its number.
    EngineError
        There is no such engine or device, or there are fewer cards than workers.
    """
    if client is not None:
        yield Cluster(client, watcher)
        return
    cards = _cards(engine, workers) if scheduler in (None, "processes") else []
    if workers is None and scheduler is None and len(cards) < 2:
        yield Workers(watcher)
        return
    from distributed import Client

    _silence()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    n_workers = workers or len(cards) or cores
    share = max(1, cores // n_workers)
    if scheduler is not None and scheduler not in ("threads", "processes"):
        with _connect(scheduler) as connected, _noticing_lost_workers(connected, watcher):
            _announce(connected, watcher)
            yield Cluster(connected, watcher)
        return
    with ExitStack() as opened:
        with deferred():  # stopped half-started, Dask leaves processes behind and says so at length
            cluster = opened.enter_context(
                _card_cluster(cards[:n_workers], share)
                if cards
                else _local_cluster(n_workers, share, scheduler == "threads")
            )
            local = opened.enter_context(Client(cluster))
        _announce(local, watcher)
        task_share = max(1, share // CARD_THREADS) if cards else share if scheduler == "threads" else None
        yield Cluster(local, watcher, task_share)


def _cards(engine: str, workers: int | None) -> list[str]:
    """Return the cards for local processes, as CUDA_VISIBLE_DEVICES names them; none where the engine computes elsewhere."""
    if engine_family(engine) not in ("auto", "cuda"):
        return []
    if engine_family(engine) != engine:
        if workers is not None:
            raise ConfigError(
                f'engine "{engine}" is one card, workers have one each: give --engine cuda with --workers, or leave '
                "--workers out"
            )
        return []
    if engine_family(resolve_engine(engine)) != "cuda":
        return []
    from ussim.engines.cuda.cupy import device_count

    count = device_count()
    if workers is not None and workers > count:
        raise EngineError(
            f"--workers: expected at most one per card, {count}, got {workers}; leave it out for one on each card"
        )
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = [name.strip() for name in visible.split(",")] if visible else [str(index) for index in range(count)]
    return names[:count]


def _card_cluster(cards: list[str], share: int) -> SpecCluster:
    """Return a worker process per card, which sees no other."""
    from distributed import Nanny, Scheduler, SpecCluster
    from distributed.system import MEMORY_LIMIT

    options = {
        "host": "127.0.0.1",
        "nthreads": CARD_THREADS,
        "memory_limit": MEMORY_LIMIT // len(cards),
        "preload": list(PRELOAD),
    }
    workers = {
        number: {"cls": Nanny, "options": options | {"env": _environment(share) | {"CUDA_VISIBLE_DEVICES": card}}}
        for number, card in enumerate(cards)
    }
    scheduler = {"cls": Scheduler, "options": {"host": "127.0.0.1", "port": 0, "dashboard_address": "127.0.0.1:0"}}
    return SpecCluster(workers=workers, scheduler=scheduler)


def _local_cluster(n_workers: int, share: int, threads: bool) -> LocalCluster:
    """Return worker processes of one thread each, or one process of threads."""
    from distributed import LocalCluster

    return LocalCluster(
        n_workers=1 if threads else n_workers,
        threads_per_worker=n_workers if threads else 1,
        processes=not threads,
        dashboard_address="127.0.0.1:0",
        **({} if threads else {"env": _environment(share), "preload": list(PRELOAD)}),
    )


def _environment(share: int) -> dict[str, str]:
    """Return the variables by which the libraries of a worker process keep to its share of the cores."""
    return {name: str(share) for name in ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}


def _lost_scheduler() -> DataError:
    return DataError("the scheduler was lost; start it again and run the same command with --resume")


def dask_setup(_worker: Any) -> None:
    """Set up each worker process of a local cluster; called by Dask.

    Ctrl-C, which reaches the whole group, is the build's to handle, and what a worker says of being stopped is no news.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.disable(logging.ERROR)


@contextmanager
def _connect(scheduler: str) -> Iterator[Client]:
    """Yield a client of a scheduler at an address or described by a file."""
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


def _silence() -> None:
    """Keep to itself what Dask says of a cluster that is closing, and of a scheduler that is lost: one line says it here."""
    for name in ("distributed", "bokeh", "tornado", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    for name in list(logging.root.manager.loggerDict):  # Dask gives those below it levels of their own
        if name.startswith(("distributed.", "tornado.")):
            logging.getLogger(name).setLevel(logging.CRITICAL)


@contextmanager
def _noticing_lost_workers(client: Client, watcher: Watcher, interval: float = 5.0) -> Iterator[None]:
    """Say so where no worker of a scheduler of somebody else's is left, once each time, instead of waiting in silence."""
    ended = threading.Event()

    def look() -> None:
        lost = False
        while not ended.wait(interval):
            try:
                none_left = client.status == "running" and not client.nthreads()
            except Exception:  # the scheduler is lost: the work says so
                return
            if none_left and not lost:
                address = client.scheduler_info()["address"]
                watcher.message(f"no worker is left at {address}; waiting for one: `dask worker {address}` starts one")
            lost = none_left

    thread = threading.Thread(target=look, daemon=True, name="lost workers")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(interval)


def _announce(client: Client, watcher: Watcher) -> None:
    threads = sum(client.nthreads().values())
    note = "" if find_spec("bokeh") else " (shows once the package bokeh is installed)"
    watcher.message(
        f"{threads} workers at {client.scheduler_info()['address']}; dashboard {client.dashboard_link}{note}"
    )


def _now_and_then(tell: Callable[[int], None], interval: float = 0.5) -> Callable[[int], None]:
    """Return what tells how far a shard is, but not more often than every `interval` seconds: the scheduler hears it all."""
    last = time.monotonic()

    def told(done: int) -> None:
        nonlocal last
        if time.monotonic() - last >= interval:
            last = time.monotonic()
            tell(done)

    return told


def _shard_task(job: Job, kernel_threads: int | None) -> ShardRecord | Exception:
    """Return a shard, on a worker; the error of its card as a value: raised, Dask would try again, perhaps on that card."""
    from distributed import get_worker

    from ussim import EngineError

    if kernel_threads is not None:
        from ussim.engines.cpu.threads import share_of_this_thread

        share_of_this_thread(kernel_threads)
    worker = get_worker()
    try:
        return make_shard(job, _now_and_then(lambda done: worker.log_event(TOPIC, (job.index, done))))
    except EngineError as error:
        return EngineError(f"worker {worker.name}: {error}")
