"""The store on disk: readable by others, whole or not there at all, damage found and named."""

import csv
import json
import warnings
import zlib

import numpy as np
import pytest
import zarr

from datagen import Recipe
from datagen.store import layout, read, write
from datagen.store.location import LocalStorage, open_storage
from ussim.errors import DataError

PROBES = ("PA4-2/20", "C5-2v")
SIZE, PER_SHARD = 16, 16  # two chunks of eight a shard


def images(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (n, SIZE, SIZE), dtype=np.uint8)


def shard(index: int, n: int) -> tuple[dict, list]:
    arrays = {"hq": images(n, index)} | {layout.lq_key(name): images(n, 10 + index) for name in PROBES}
    arrays[layout.mask_key(PROBES[1])] = images(n, 20 + index) > 100
    return arrays, [{"id": f"{index}-{i}", "seed": 2**62 + i, "set_aside": ""} for i in range(n)]


def described(n_samples: int) -> layout.Attributes:
    return layout.Attributes(
        recipe=Recipe(source="demo", probes=PROBES, size=SIZE).resolve("cpu"),
        recipe_digest="0",
        source="demo",
        licence="",
        citation="",
        sources=(),
        probes={name: layout.array_name(name) for name in PROBES},
        n_samples=n_samples,
        n_shards=2,
        samples_per_shard=PER_SHARD,
    )


def create(storage, n_samples: int = 20) -> list[dict]:
    """A finished store of two shards, the second one not full."""
    mask = np.ones((SIZE, SIZE), bool)
    write.create(storage, described(n_samples), {PROBES[0]: mask, PROBES[1]: None})
    records = [write.write_shard(storage, i, *shard(i, n), PER_SHARD) for i, n in enumerate((16, n_samples - 16))]
    write.finish(storage, len(records))
    return records


@pytest.fixture
def storage(tmp_path):
    storage = open_storage(tmp_path / "pairs.zarr")
    create(storage)
    return storage


def test_zarr_reads_it_without_this_package(storage):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        group = zarr.open_group(storage.url, mode="r")
        assert sorted(name for name, _ in group.members(max_depth=None)) == [
            "hq", "lq", "lq/C5-2v", "lq/PA4-2_20", "lq/x_C5-2v", "lq/x_PA4-2_20", "lq/z_C5-2v", "lq/z_PA4-2_20",
            "mask", "mask/C5-2v", "mask/PA4-2_20",
        ]  # fmt: skip
        array = group["hq"]
        assert (array.shape, array.dtype, array.shards) == ((20, SIZE, SIZE), np.uint8, (PER_SHARD, SIZE, SIZE))
        assert array.metadata.dimension_names == ("sample", "z", "x")
        for i, n in enumerate((16, 4)):
            arrays, _ = shard(i, n)
            for key, expected in arrays.items():
                assert (group[key][16 * i : 16 * i + n] == expected).all()
        assert group["mask/PA4-2_20"].shape == (SIZE, SIZE)
        assert group["lq/PA4-2_20"].attrs["probe"] == "PA4-2/20"
        assert group.attrs["complete"]


def test_the_standard_library_reads_the_samples(storage):
    with open(f"{storage.url}/samples.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows[:2]] == ["0-0", "0-1"]
    assert int(rows[0]["crc32_hq"]) == zlib.crc32(images(16, 0)[0])
    assert int(rows[3]["crc32_PA4-2_20"]) == zlib.crc32(images(16, 10)[3])


def test_what_is_written_is_read_with_its_types(storage):
    rows = read.read_samples(storage)
    assert rows[0]["seed"] == 2**62
    assert rows[0]["set_aside"] == ""
    table = [{"id": "1", "x": 0.5, "n": None}]
    assert layout.parse_table(layout.format_table(table)) == table


def test_a_url_holds_the_same_store(storage):
    remote = open_storage("memory://bucket/pairs.zarr")
    create(remote)
    assert read.read_attributes(remote).digest == read.read_attributes(storage).digest
    assert (read.open_group(remote)["hq"][:] == read.open_group(storage)["hq"][:]).all()
    remote.delete()
    assert not remote.exists()


def test_an_unfinished_store_is_refused(tmp_path):
    storage = open_storage(tmp_path / "pairs.zarr")
    with pytest.raises(layout.StoreError, match="no store of pairs"):
        read.require_complete(storage)
    write.create(storage, described(20), {})
    with pytest.raises(layout.StoreError, match=r"unfinished \(0 of 2 shards\).*--resume"):
        read.open_group(storage)


def test_another_zarr_group_is_not_a_store(tmp_path):
    zarr.create_group(tmp_path / "other.zarr")
    with pytest.raises(layout.StoreError, match="not one that"):
        read.read_attributes(open_storage(tmp_path / "other.zarr"))


def test_reopening_takes_back_that_it_is_complete(storage):
    write.reopen(storage)
    with pytest.raises(layout.StoreError, match="unfinished"):
        read.require_complete(storage)
    assert "digest" not in read.read_document(storage)


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_damage_to_a_file_is_found(storage, damage):
    record = read.read_record(storage, 1)
    assert read.damaged_files(storage, record) == []
    path = LocalStorage(storage.url).folder / "lq/C5-2v/c/1/0/0"
    content = bytearray(path.read_bytes())
    if damage == "remove":
        path.unlink()
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes(content if damage == "flip" else content[:-5])
    assert read.damaged_files(storage, record) == ["lq/C5-2v/c/1/0/0"]


def test_half_a_record_is_none(storage):
    path = LocalStorage(storage.url).folder / "build/shards/000001.json"
    path.write_text(path.read_text()[:100])
    assert read.read_record(storage, 1) is None
    path.unlink()
    assert read.read_record(storage, 1) is None


def test_a_damaged_chunk_spares_the_others(storage):
    content = bytearray(storage.read("hq/c/0/0/0"))
    content[10] ^= 0xFF
    decoded = read.decode_shard(bytes(content), "hq", (SIZE, SIZE), PER_SHARD)
    expected = images(16, 0)
    whole = [
        isinstance(image, np.ndarray) and (image == true).all() for image, true in zip(decoded, expected, strict=True)
    ]
    assert not all(whole[:8])
    assert all(whole[8:])


def test_the_digest_does_not_depend_on_the_shards(tmp_path):
    digests = []
    for per_shard in (4, 20):
        records = []
        for first in range(0, 20, per_shard):
            some = images(20, 0)[first : first + per_shard]
            rows = [{"id": str(first + i)} for i in range(len(some))]
            storage = open_storage(tmp_path / f"{per_shard}.zarr")
            records.append(write.write_shard(storage, len(records), {"hq": some}, rows, per_shard))
        digests.append(layout.gather(records).digest({}))
    assert digests[0] == digests[1]


def test_shards_grow_with_the_dataset():
    sizes = [layout.shard_size(n) for n in (1, 12, 129, 1000, 10**6)]
    assert sizes == [1, 1, 2, 8, 64]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    storage = LocalStorage(tmp_path)
    storage.write("a", b"old")

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        storage.write("a", b"new")
    assert storage.read("a") == b"old"
    assert not list((tmp_path / "build/tmp").iterdir())


def test_one_build_at_a_time(tmp_path):
    first, second = LocalStorage(tmp_path), LocalStorage(tmp_path)
    with first.exclusively(), pytest.raises(DataError, match="another build"), second.exclusively():
        pass
    with second.exclusively():
        pass


def test_the_attributes_are_plain_json(storage):
    document = json.loads((LocalStorage(storage.url).folder / "zarr.json").read_text())
    assert document["attributes"]["digest"] == read.read_attributes(storage).digest
