"""What --overwrite of a training deletes: the run, whole, that nobody works at; nothing of anything else."""

from __future__ import annotations

import json

import pytest

from irsde.data import DataError
from irsde.run_folder import start_again
from irsde.run_lock import hold
from ussim.errors import ExistsError

RUN = {"format": 1, "config": {}}
PRIOR = {"iterations": 10, "channels": [8]}


@pytest.fixture
def folder(tmp_path):
    """A folder with the files named, whose record is `record`."""

    def make(record, *names):
        for name in names:
            path = tmp_path / "run" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("")
        (tmp_path / "run").mkdir(exist_ok=True)
        text = record if isinstance(record, str) else json.dumps(record)
        (tmp_path / "run" / "config.json").write_text(text)
        return tmp_path / "run"

    return make


def again(run, keep=()):
    start_again(run, keep, lambda text: None)


@pytest.mark.parametrize(
    ("record", "names"),
    [
        (RUN, ("checkpoints/000010/ema.safetensors", "metrics.csv", "samples/000010.png", "tensorboard/events")),
        (RUN, ("metrics.csv", "intervals.json", ".config.json.part")),  # calibrated; cut off in the midst of writing
        (PRIOR, ("checkpoint.pt", "unet/config.json", "scheduler/scheduler_config.json", "log.jsonl")),
        (PRIOR, ()),
    ],
)
def test_a_run_is_deleted_whole(folder, record, names):
    run = folder(record, *names)
    again(run)
    assert not run.exists()


@pytest.mark.parametrize(
    ("record", "name"),
    [(RUN, "thesis.tex"), (RUN, ".git/config"), ({"name": "of another program"}, "metrics.csv"), ("{", "metrics.csv")],
)
def test_what_is_of_no_run_stays(folder, record, name):
    run = folder(record, name)
    before = sorted(run.rglob("*"))
    with pytest.raises(ExistsError, match=r"holds .*, which is of no run; delete the folder by hand"):
        again(run)
    assert sorted(run.rglob("*")) == before


@pytest.mark.parametrize("link", [False, True])
def test_what_the_new_run_is_made_of_stays(folder, tmp_path, link):
    run = folder(RUN, "checkpoints/000010/ema.safetensors")
    kept = run
    if link:
        kept = tmp_path / "link"
        kept.symlink_to(run, target_is_directory=True)
    with pytest.raises(ExistsError, match="which the new run needs"):
        again(run, [kept])
    assert (run / "checkpoints").is_dir()


def test_a_run_at_work_stays(folder):
    run = folder(RUN, "metrics.csv")
    with hold(run, lambda text: None), pytest.raises(DataError):
        again(run)
    assert (run / "metrics.csv").exists()


def test_a_folder_without_a_run_is_left_to_the_training(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    again(tmp_path)
    assert (tmp_path / "notes.txt").exists()


def test_the_command_line_begins_again(tmp_path, monkeypatch, capsys):
    """What the run is to learn from is kept; --resume and --overwrite exclude each other; one process alone may delete."""
    from irsde.cli import cli
    from ussim.commands import console

    monkeypatch.chdir(tmp_path)
    words = ["train", "--data", "run/pairs.zarr", "--preset", "tiny", "--out", "run", "--overwrite"]
    (tmp_path / "run" / "pairs.zarr").mkdir(parents=True)
    (tmp_path / "run" / "config.json").write_text(json.dumps(RUN))
    assert console.run(cli, "irsde", words) != 0
    assert (tmp_path / "run" / "config.json").exists()
    assert console.run(cli, "irsde", [*words, "--resume"]) == 2
    assert "exclude each other" in capsys.readouterr().err
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert console.run(cli, "irsde", words) == 2
    assert "delete it before" in capsys.readouterr().err
