"""Damaged and hostile files in a folder of good ones: set aside with name and reason, in bounded memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import hostile
import pytest

SCRIPT = Path(hostile.__file__)
# Volumes of the size claimed would take 9 GB and more; what reads them, with its libraries, takes a tenth of a gigabyte,
# and a file may unpack to a quarter of the 4 GB allowed.
MOST = 1.4e9
GOOD = {"nifti": {"good"}, "npy": {"good"}, "image": {"good"}}
# Odd, and read all the same: a slice whose orientation says nothing is a bare slice.
READ = {"orientation of zeros", "parallel orientation", "position of words", "16 bit named 7"}


def outcomes(source: str, count: int = 0, seed: int = 0) -> list[dict]:
    """What a process of its own makes of the files; it fails on any traceback, and on anything said to stderr."""
    repository = str(SCRIPT.parents[1])
    process = subprocess.run(
        [sys.executable, str(SCRIPT), source, str(count), str(seed)],
        env=os.environ | {"PYTHONPATH": repository},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not process.stderr, process.stderr[-3000:]
    assert process.returncode == 0
    return [json.loads(line) for line in process.stdout.splitlines()]


@pytest.mark.parametrize("source", hostile.FILES)
def test_a_hostile_file_is_set_aside_by_name_and_the_good_ones_are_built(source):
    for outcome in outcomes(source):
        name = outcome["name"]
        built = {volume for volume in outcome["built"] if not volume.startswith("bad")}
        assert built == GOOD[source] if source in GOOD else len(built) == 1, outcome
        if name not in READ:
            assert any("bad" in text for text in outcome["set aside"]), outcome
        assert outcome["peak"] < MOST, (name, outcome["peak"] / 1e9)


@pytest.mark.parametrize("source", hostile.FILES)
@pytest.mark.parametrize("count", [75, pytest.param(2500, marks=pytest.mark.slow)])
def test_files_with_random_faults_stop_nothing(source, count):
    (outcome,) = outcomes(source, count, seed=19)
    good = {volume for volume in outcome["built"] if "bad" not in volume}
    assert good, outcome["set aside"]
    assert outcome["skipped"]  # some were damaged beyond use
    assert outcome["peak"] < MOST


def test_a_volume_is_held_against_the_memory_allowed(tmp_path, monkeypatch):
    from datagen.sources import get_source
    from ussim.errors import ConfigError, DataError
    from ussim.volumes.budget import limited_memory, max_memory

    hostile.good("nifti", tmp_path)  # 64 x 64 x 12 of 2 bytes, and 8 bytes per value beside them: 0.49 MB
    source = get_source("nifti")
    (ref,) = source.find(tmp_path)
    with limited_memory(0.5e6):
        assert source.load(ref).voxels.shape == (64, 64, 12)
    with limited_memory(0.49e6):
        with pytest.raises(DataError, match=r"64 x 64 x 12 values need about .*--max-memory"):
            source.load(ref)
        with pytest.raises(DataError, match=r"good.nii.gz: 64 x 64 x 12 values"):
            source.find(tmp_path)
    monkeypatch.setenv("USSIM_MAX_MEMORY", "2.5")
    assert max_memory() == 2.5e9
    monkeypatch.setenv("USSIM_MAX_MEMORY", "much")
    with pytest.raises(ConfigError, match="USSIM_MAX_MEMORY: expected GB above 0, got 'much'"):
        max_memory()


def test_the_memory_allowed_changes_no_recipe():
    from datagen import Recipe

    plain, limited = (Recipe(source="nifti", root=".", probes="C5-2v", max_memory=allowed) for allowed in (None, 2.0))
    assert limited.resolve("cpu").inputs.max_memory == 2e9
    assert plain.resolve("cpu").digest == limited.resolve("cpu").digest


@pytest.mark.parametrize("source", hostile.FILES)
def test_what_cannot_be_opened_costs_itself_alone(source, tmp_path, monkeypatch):
    from datagen.sources.inspect import inspect

    hostile.good(source, tmp_path)
    suffix = {"nifti": ".nii", "dicom": ".dcm", "npy": ".npy", "image": ".png"}[source]
    (tmp_path / f"loop{suffix}").symlink_to(tmp_path / f"loop{suffix}")  # opening it is an error for whoever asks
    (tmp_path / "closed").mkdir()
    scandir = os.scandir

    def refused(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    found = inspect(tmp_path)
    assert found.source == source
    assert found.n_volumes == 1
    assert ("folder cannot be opened: Permission denied", 1, "closed") in found.skipped
    assert any(path == f"loop{suffix}" and "symbolic links" in reason for reason, _, path in found.skipped)


def test_a_name_that_is_not_utf_8_is_written_so_that_it_can_be_read(tmp_path):
    import shutil

    from datagen import Recipe
    from datagen.plan.samples import make_plan
    from datagen.store.layout import format_table
    from ussim.commands import console

    hostile.good("npy", tmp_path)
    latin = tmp_path / os.fsdecode(b"genou gauche \xe9t\xe9.npy")
    shutil.move(tmp_path / "good.npy", latin)
    (tmp_path / os.fsdecode(b"cass\xe9.npy")).write_bytes(b"nothing")
    plan = make_plan(Recipe(source="npy", root=str(tmp_path), probes="L11-5v", size=32).resolve("cpu"))
    assert {sample.ref.name for sample in plan.samples} == {"genou gauche %E9t%E9"}
    assert "left out npy: cass%E9.npy: not an .npy file of numbers (np.save writes one)" in plan.notes
    format_table([sample.row(32, 1) for sample in plan.samples]).encode()
    console.result(str(latin))  # not ours to rename: escaped


@pytest.mark.parametrize(("source", "code"), [("npy", 4), ("nifti", 0), ("image", 4), ("dicom", 0)])
def test_a_build_of_a_folder_with_hostile_files_ends_as_documented(source, code, tmp_path, capsys):
    """Everything hostile at once: 0 where headers told, 4 where a volume turned out so when it was read."""
    from datasets import PROBE

    from datagen import open_pairs
    from datagen.cli import cli
    from ussim.commands import console

    hostile.good(source, tmp_path / "in")
    for number, write in enumerate(hostile.FILES[source].values()):
        (tmp_path / "in" / str(number)).mkdir()
        write(tmp_path / "in" / str(number))
    given = ["--source", source, "--root", str(tmp_path / "in"), "--probe", PROBE, "--size", "16", "--angles", "1"]
    given += ["--mean-distance-wavelengths", "8", "--min-tissue", "0.02", "-o", str(tmp_path / "pairs.zarr")]
    assert console.run(cli, "datagen", ["build", *given]) == code, capsys.readouterr().err
    assert "Traceback" not in capsys.readouterr().err
    assert any("bad" not in str(row["volume"]) for row in open_pairs(tmp_path / "pairs.zarr").samples)
