"""What one command writes, the next one reads, or refuses by name with what to use instead: a table of them."""

from __future__ import annotations

import importlib
import json
import re

import numpy as np
import pytest
from PIL import Image

import ussim
from ussim.commands import console
from ussim.volumes.reading import read_image

PROGRAMS = {"ussim": "ussim.commands.cli", "datagen": "datagen.cli", "irsde": "irsde.cli"}


def run(line, capsys=None):
    """Run a command line in this process: (exit code, stdout, stderr)."""
    program, *arguments = line.split()
    code = console.run(importlib.import_module(PROGRAMS[program]).cli, program, arguments)
    return (code, *(capsys.readouterr() if capsys else ("", "")))


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A folder with what every command wrote."""
    folder = tmp_path_factory.mktemp("handover")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        rng = np.random.default_rng(0)
        np.save("phantom.npy", rng.random((40, 40)).astype(np.float32))
        (folder / "mri").mkdir()
        disc = np.hypot(*np.mgrid[-48:48, -48:48]) < 40
        (folder / "others").mkdir()
        for name in ("mri/a.npy", "others/b.npy"):
            np.save(name, (disc * (100 + 100 * rng.random((2, 96, 96)))).astype(np.uint8))
        common = "--angles 1 --size 40 --width-mm 10 --depth-mm 5 15 --engine cpu"
        lines = [
            f"ussim render phantom.npy {common} --channel-data echoes.npz --bare -o render.png",
            f"ussim render phantom.npy {common} --channel-data rf.mat -o render.mat",
            f"ussim render phantom.npy {common} --channel-data rf.hdf5 -o drawn.pdf",
            f"ussim render phantom.npy {common} -o drawn.svg",
            "ussim beamform echoes.npz --size 40 --width-mm 10 --depth-mm 5 15 --engine cpu --bare -o beamform.png",
            "ussim field --size 32 --engine cpu -o field.png",
            "ussim field --size 32 --engine cpu -o field.mat",
            "ussim probes L11-5v -o probe.png",
            "ussim convert echoes.npz echoes.mat",
            "datagen build --source npy --root mri --probe L11-5v --size 32 --limit 2 --angles 1 --engine cpu "
            "--out pairs.zarr",
            "datagen build --source npy --root others --probe L11-5v --size 32 --limit 2 --angles 1 --engine cpu "
            "--out unseen.zarr",
            "datagen preview pairs.zarr --rows 1 -o pairs.png",
            "datagen export pairs.zarr --format png --license CC0-1.0 -o exported",
            "datagen export pairs.zarr --format nifti --license CC0-1.0 -o volumes",
            "irsde train --data pairs.zarr --preset tiny --patch-size 32 --batch-size 2 --n-steps 4 --device cpu --steps 1 "
            "--out run",
            "irsde restore run render_bare.png --device cpu -o restored.png",
            "irsde restore run render.npz --device cpu --samples 2 -o restored.npy",
            "irsde calibrate-intervals run --data unseen.zarr --samples 2 --steps 1 --device cpu -o intervals.json",
            "irsde restore run render_bare.png --device cpu --interval intervals.json -o bounded.npy",
            "irsde drus echoes.npz --attenuation 0 --samples 2 --steps 2 --pixels 32 32 --center-depth-mm 10 --device cpu "
            "-o drus.png",
        ]
        for line in lines:
            assert run(line)[0] == 0, line
        next((folder / "exported" / "train" / "hq").iterdir()).rename("exported.png")
        next((folder / "volumes").rglob("*.nii.gz")).rename("exported.nii.gz")
        next(path for path in folder.glob("bounded*lower*")).rename("lower.npy")
        yield folder


# what reads: command line with FILE in it
READERS = {
    "render": "ussim render FILE --angles 1 --size 32 --width-mm 10 --depth-mm 5 15 --engine cpu -o out.png",
    "beamform": "ussim beamform FILE --size 32 --width-mm 10 --depth-mm 5 15 --engine cpu -o out.png",
    "inspect": "datagen inspect FILE",
    "restore": "irsde restore run FILE --device cpu --steps 1 -o out.npy",
    "drus": "irsde drus FILE --attenuation 0 --samples 2 --steps 2 --pixels 32 32 --center-depth-mm 10 --device cpu "
    "-o out.png",
}
FIGURE = {
    "render": "a figure with axes, not an image: use",
    "beamform": "got another kind of file",
    "inspect": "a figure with axes, not an image",
    "restore": "a figure with axes, not an image: use",
    "drus": "got another kind of file",
}
DRAWING = FIGURE | {
    "render": "a drawing, not an image: use drawn.npz",
    "inspect": "no MRI found",
    "restore": "a drawing, not an image: use drawn.npz",
}
PICTURE = {
    "render": None,
    "beamform": "got another kind of file",
    "inspect": None,
    "restore": None,
    "drus": "got another",
}
BMODE = {
    "render": None,
    "beamform": "a B-mode, not channel data",
    "inspect": "no MRI found",
    "restore": None,
    "drus": "a B-mode, not channel data",
}
ECHOES = {
    "render": "channel data, not an image: `ussim beamform`",
    "beamform": None,
    "inspect": "no MRI found",
    "restore": "channel data, not an image: `ussim beamform`",
    "drus": None,
}
FIELD = {
    "render": "the pressure field of a transmit, not an image",
    "beamform": "the pressure field of a transmit, not channel data",
    "inspect": "no MRI found",
    "restore": "the pressure field of a transmit, not an image",
    "drus": "the pressure field of a transmit, not channel data",
}
DRUS = {
    "render": "several images in linear amplitude",
    "beamform": "images of `irsde drus`, not channel data",
    "inspect": "no MRI found",
    "restore": "several images in linear amplitude",
    "drus": "images of `irsde drus`, not channel data",
}
ARRAY = {
    "render": None,
    "beamform": "holds arrays alone",
    "inspect": None,
    "restore": None,
    "drus": "holds arrays alone",
}
OUTPUTS = {
    "render.png": FIGURE,
    "drawn.pdf": DRAWING,
    "drawn.svg": DRAWING,
    "beamform.png": FIGURE,
    "field.png": FIGURE,
    "probe.png": FIGURE,
    "pairs.png": FIGURE,
    "pairs.zarr/preview/L11-5v.png": FIGURE,
    "drus.png": FIGURE,
    "render_bare.png": PICTURE,
    "beamform_bare.png": PICTURE,
    "exported.png": PICTURE,
    "restored.png": PICTURE,
    "restored-uncertainty.png": PICTURE,
    "restored.npy": ARRAY,
    "exported/preview.png": FIGURE,
    "exported.nii.gz": PICTURE,
    "lower.npy": ARRAY,
    "render.npz": BMODE,
    "render.mat": BMODE,
    "beamform.npz": BMODE,
    "echoes.npz": ECHOES,
    "rf.mat": ECHOES,
    "rf.hdf5": ECHOES,
    "field.npz": FIELD,
    "field.mat": FIELD,
    "drus.npz": DRUS,
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("output", OUTPUTS)
def test_what_one_writes_another_reads_or_names(here, capsys, monkeypatch, output, reader):
    monkeypatch.chdir(here)
    refused = OUTPUTS[output][reader]
    code, _, err = run(READERS[reader].replace("FILE", output), capsys)
    if refused is None:
        assert code == 0, err
    else:
        assert code == 3, err
        assert refused in err.splitlines()[-1]
        assert "Traceback" not in err


@pytest.mark.parametrize("reader", ["render", "restore"])
def test_a_figure_names_what_lies_beside_it(here, capsys, monkeypatch, reader):
    monkeypatch.chdir(here)
    for figure, beside in {"render.png": "render_bare.png", "drawn.pdf": "drawn.npz"}.items():
        _, _, err = run(READERS[reader].replace("FILE", figure), capsys)
        assert err.rstrip().endswith(f"use {beside}")


def test_figures_of_ours_count_as_no_volumes(here, capsys, tmp_path):
    import shutil

    for name in ("render.png", "field.png", "render_bare.png"):
        shutil.copy(here / name, tmp_path / name)
    code, out, _ = run(f"datagen inspect {tmp_path} --json", capsys)
    assert code == 0
    found = json.loads(out)
    assert found["n_volumes"] == 1
    assert sum(count for reason, count, _ in found["skipped"] if "a figure with axes" in reason) == 2


def test_the_picture_alone_has_the_pixels(here):
    bmode = np.load(here / "render.npz")["bmode"]
    with Image.open(here / "render_bare.png") as picture:
        alone = np.asarray(picture)
    assert alone.dtype == np.uint8
    assert np.array_equal(alone, np.rint(255 * bmode).astype(np.uint8))
    # 8 bits: half a grey level
    assert np.abs(read_image(here / "render_bare.png") - read_image(here / "render.npz")).max() <= 0.5 / 255 + 1e-6


def test_a_matlab_file_holds_the_same_image(here):
    assert np.array_equal(read_image(here / "render.mat"), read_image(here / "render.npz"))


@pytest.mark.parametrize("size", [0, 100, 200, 2000])
def test_a_matlab_file_cut_short_is_one_line(here, tmp_path, size):
    (tmp_path / "x.mat").write_bytes((here / "render.mat").read_bytes()[:size])
    with pytest.raises(ussim.DataError, match=re.escape(str(tmp_path / "x.mat"))):
        read_image(tmp_path / "x.mat")


def test_figures_name_their_program(here):
    for name in ("render.png", "field.png", "pairs.png", "drus.png"):
        with Image.open(here / name) as figure:
            assert figure.info["Software"] == "ussim"
    assert b"/Creator (ussim)" in (here / "drawn.pdf").read_bytes()
    assert (
        "ussim"
        in (here / "drawn.svg").read_text(encoding="utf-8").partition("<metadata>")[2].partition("</metadata>")[0]
    )


def test_the_images_of_drus_are_kept(here):
    with np.load(here / "drus.npz") as archive:
        settings = json.loads(str(archive["settings"]))
        assert settings["samples"] == 2
        assert next(iter(settings["images"].values())) == "DAS, 1 transmit"
        for name in settings["images"]:
            assert archive[name].shape == (32, 32)
            assert (archive[name] >= 0).all()
            assert archive[name].max() > 0
        assert 1e3 * archive["z"].mean() == pytest.approx(10)
        assert archive["x"].shape == archive["z"].shape == (32,)


def test_an_evaluation_keeps_its_images(here, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(here)
    line = f"irsde evaluate --data pairs.zarr --limit 1 --save {tmp_path}/kept -o {tmp_path}/table.md"
    assert run(line, capsys)[0] == 0
    kept = sorted(path.relative_to(tmp_path / "kept").as_posix() for path in (tmp_path / "kept").rglob("*.npy"))
    assert "L11-5v/HQ/000000.npy" in kept
    assert "L11-5v/LQ/000000.npy" in kept
    assert len(kept) > 4  # classical filters too
    images = {name: np.load(tmp_path / "kept" / name) for name in kept}
    assert {(image.shape, image.dtype.name) for image in images.values()} == {((32, 32), "float32")}
    code, _, err = run(f"irsde evaluate --data pairs.zarr --save pairs.zarr/kept -o {tmp_path}/table.md", capsys)
    assert code == 2
    assert "lies in one" in err


@pytest.mark.parametrize("damage", ["cut", "empty", "wide", "words"])
def test_a_damaged_bmode_is_one_line(tmp_path, damage):
    path = tmp_path / "x.npz"
    np.savez_compressed(path, bmode=np.zeros((8, 8), np.float32), settings=np.array("{}"))
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:100])
    if damage == "empty":
        path.write_bytes(b"")
    if damage == "wide":
        np.savez_compressed(path, bmode=np.zeros((1, 1, 8, 8)), settings=np.array("{}"))
    if damage == "words":
        np.savez_compressed(path, bmode=np.array(["a"]), settings=np.array("{}"))
    with pytest.raises(ussim.DataError, match=re.escape(str(path))):
        read_image(path)


def test_images_of_drus_are_no_matlab_file(here, capsys, monkeypatch):
    monkeypatch.chdir(here)
    code, _, err = run("irsde drus echoes.npz --attenuation 0 -o drus.mat", capsys)
    assert code == 2
    assert "drus.mat: expected a picture name" in err
