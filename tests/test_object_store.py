"""Stores in an S3 bucket: a server on this machine, reached through fsspec with options, as a hospital's own would be."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest
from datasets import PROBE, fast_recipe, write_stacks

import datagen
from datagen.make.verify import verify
from datagen.store import layout, read, write
from datagen.store.location import Address, open_storage
from ussim.errors import DataError

pytest.importorskip("s3fs", reason="needs s3fs and moto (the extra test)")
pytest.importorskip("moto", reason="needs s3fs and moto (the extra test)")

IMPATIENT = {"config_kwargs": {"retries": {"max_attempts": 0}, "connect_timeout": 2}}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture(scope="module")
def options():
    """Options of a server of one's own with the bucket "data"."""
    import s3fs

    port = free_port()
    command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    found = {"key": "a", "secret": "b", "endpoint_url": f"http://127.0.0.1:{port}"}
    try:
        deadline = time.monotonic() + 120
        while True:
            assert server.poll() is None, "the server ended"
            try:
                urllib.request.urlopen(found["endpoint_url"], timeout=5).close()
                break
            except OSError:
                assert time.monotonic() < deadline, "the server does not answer"
                time.sleep(0.2)
        s3fs.S3FileSystem(**found).mkdir("data")
        yield found
    finally:
        server.kill()
        server.wait()


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    return fast_recipe(write_stacks(tmp_path_factory.mktemp("stacks")), limit=12, samples_per_shard=4)


@pytest.fixture(scope="module")
def built(recipe, options):
    """URL and summary of a store in the bucket."""
    url = "s3://data/pairs.zarr"
    return url, datagen.build(recipe, url, storage_options=options)


def test_a_bucket_holds_the_same_pairs(recipe, built, options, tmp_path):
    url, summary = built
    assert summary.digest == datagen.build(recipe, tmp_path / "pairs.zarr").digest
    here = datagen.open_pairs(tmp_path / "pairs.zarr")
    there = datagen.open_pairs(url, probe=PROBE, storage_options=options)
    assert repr(there) == f"<Pairs {url}: 12 of {PROBE}>"
    for i in (0, 7):
        for mine, theirs in zip(here[i], there[i], strict=True):
            np.testing.assert_array_equal(mine, theirs)
    assert there.row(5) == here.row(5)
    copy = pickle.loads(pickle.dumps(there.select([3, 1])))  # as a DataLoader's worker has it
    np.testing.assert_array_equal(copy[0][1], here[3][1])
    np.testing.assert_array_equal(copy.read([0, 1])[0], here.read([3, 1])[0])
    np.testing.assert_array_equal(there.mask(0), here.mask(0))
    assert verify(Address(url, options)).faults == ()


def test_a_stopped_build_goes_on_in_a_bucket(recipe, built, options):
    url, summary = "s3://data/stopped.zarr", built[1]
    datagen.build(recipe, url, storage_options=options)
    storage = open_storage(url, options)
    write.reopen(storage)
    storage.remove(layout.record_key(1))
    storage.remove("hq/c/2/0/0")
    storage.remove("hq/c/2/0/0")  # of a file that is not there: nothing
    size = storage.sizes()
    assert size("hq/c/0/0/0") == len(storage.read("hq/c/0/0/0"))
    assert size("hq/c/2/0/0") is None
    again = datagen.build(recipe, url, resume=True, storage_options=options)
    assert again.n_built == 8
    assert again.digest == summary.digest


def test_records_are_fetched_together_and_in_order(built, options):
    storage = open_storage(built[0], options)
    keys = [layout.record_key(i) for i in (2, 0, 9, 1)]
    found = list(storage.read_many(keys))
    assert isinstance(found[2], FileNotFoundError)
    assert [found[i] for i in (0, 1, 3)] == [storage.read(keys[i]) for i in (0, 1, 3)]
    assert [record is None for record in read.each_record(storage, (0, 9))] == [False, True]
    assert b"".join(storage.read_parts(layout.SAMPLES)) == storage.read(layout.SAMPLES)


def test_a_table_that_fails_half_written_is_not_there(options):
    storage = open_storage("s3://data/half", options)

    def parts():
        yield b"a" * 100
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        storage.write_parts("table", parts())
    assert not storage.exists()
    storage.write_parts("table", iter([b"a" * 6_000_000, b"b"]))
    assert storage.read("table")[-2:] == b"ab"


def test_an_address_travels_with_its_options():
    address = pickle.loads(pickle.dumps(Address("s3://a/b", {"key": 1})))
    assert (address, address.options) == ("s3://a/b", {"key": 1})


@pytest.mark.parametrize("wrong", ["no store", "no bucket", "no server", "no such option"])
def test_errors_are_one_line(options, wrong):
    url, given = "s3://data/nothing.zarr", dict(options)
    if wrong == "no bucket":
        url = "s3://nobody/pairs.zarr"
    elif wrong == "no server":
        given |= {"endpoint_url": f"http://127.0.0.1:{free_port()}"} | IMPATIENT
    elif wrong == "no such option":
        given["colour"] = "red"
    with pytest.raises(DataError) as caught:
        datagen.open_pairs(url, storage_options=given)
    text = str(caught.value)
    assert "\n" not in text
    assert url in text
    assert {"no server": "cannot be reached", "no such option": "colour"}.get(wrong, "no store of pairs here") in text


def test_the_commands_take_the_options_from_the_environment(built, options):
    environment = os.environ | {f"FSSPEC_S3_{name.upper()}": value for name, value in options.items()}
    command = [sys.executable, "-m", "datagen", "info", built[0], "--digest"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == built[1].digest, done.stderr
