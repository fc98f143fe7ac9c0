"""Pairs per second of a training loop from a bucket, against the same store on a local disk.

    python benchmarks/object_store.py [--pairs 2048] [-o benchmarks/results/object_store.json]

A store of 256 x 256 images as hard to compress as simulated ones is copied into an S3 server on this machine (moto, which
itself takes processor time) and read in shuffled batches of 32 by a torch DataLoader: in this process, and by two workers
that fetch ahead. Both sides must give the same pairs. The first pass counts, as workers keep decoded shards (64 MiB each)
and would read little in a second. Excluded: the start of the workers, what they fetched ahead in it, and the network.
"""

from __future__ import annotations

import argparse
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
from build_dataset import _speckle_store
from timing import RESULTS, machine, write_result

from datagen import Pairs, open_pairs

BATCH = 32
AHEAD = 2  # batches that each worker fetches ahead (prefetch_factor)


def main() -> None:
    """Measure, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=2048)
    parser.add_argument("-o", "--out", type=Path, default=RESULTS / "object_store.json")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="datagen-object-store-"))
    port = _free_port()
    server = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        result = compare(folder / "pairs.zarr", arguments.pairs, f"http://127.0.0.1:{port}")
    finally:
        server.kill()
        server.wait()
        shutil.rmtree(folder)
    write_result(arguments.out, {"machine": machine(("numpy", "zarr", "torch", "s3fs", "moto")), **result})
    print(result)


def compare(path: Path, n_pairs: int, endpoint: str) -> dict[str, Any]:
    """Return pairs per second from a disk and from a bucket."""
    import s3fs

    options = {"key": "a", "secret": "b", "endpoint_url": endpoint}
    _wait_for(endpoint)
    _speckle_store(path, n_pairs)
    files = s3fs.S3FileSystem(**options)
    files.mkdir("data")
    files.put(str(path), "data/pairs.zarr", recursive=True)
    sides = {"disk": open_pairs(path), "bucket": open_pairs("s3://data/pairs.zarr", storage_options=options)}
    for index in (0, n_pairs - 1):
        for ours, theirs in zip(*(pairs[index] for pairs in sides.values()), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    opened = time.perf_counter()
    open_pairs("s3://data/pairs.zarr", storage_options=options)
    return {
        "pairs": n_pairs,
        "samples_per_shard": sides["disk"].samples_per_shard,
        "open_bucket_s": time.perf_counter() - opened,
        "pairs_per_s": {
            side: {f"{workers} workers": rate(pairs, workers) for workers in (0, 2)} for side, pairs in sides.items()
        },
    }


def rate(pairs: Pairs, workers: int) -> float:
    """Return pairs per second of shuffled batches, from the first batch on."""
    from torch.utils.data import DataLoader

    dataset = pairs.torch(dtype="uint8")
    batches = dataset.batches(BATCH, seed=0, n_workers=workers)
    context: dict[str, Any] = {"multiprocessing_context": "spawn", "prefetch_factor": AHEAD} if workers else {}
    data = DataLoader(dataset, batch_sampler=batches, num_workers=workers, **context)
    skipped = 1 + workers * AHEAD  # made while the workers started
    count, started = 0, 0.0
    for i, (hq, _lq) in enumerate(data):
        if i < skipped:
            started = time.perf_counter()
        else:
            count += len(hq)
    return count / (time.perf_counter() - started)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def _wait_for(endpoint: str, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(endpoint, timeout=5).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


if __name__ == "__main__":
    main()
