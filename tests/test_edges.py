"""What users meet at the edges: units of NIfTI, names of probes, one subject alone."""

import numpy as np
import pytest
from datasets import fast_recipe, write_stacks
from trees import write_nifti

from datagen.make.build import build
from datagen.plan.samples import make_plan
from datagen.sources import get_source
from ussim import ProbeError, load_probe
from ussim.commands import console


@pytest.mark.parametrize(("unit", "factor"), [("meter", 1e-3), ("mm", 1.0), ("micron", 1e3), ("unknown", 1.0)])
@pytest.mark.parametrize("forms", [(1, 0), (0, 1), (1, 1), (0, 0)])
def test_the_unit_of_a_nifti_header_counts(tmp_path, unit, factor, forms):
    import nibabel as nib

    plain = nib.load(write_nifti(tmp_path / "plain.nii"))
    affine = plain.affine.copy()
    affine[:3] *= factor
    image = nib.Nifti1Image(np.asarray(plain.dataobj), affine)
    image.header.set_xyzt_units(unit)
    image.set_sform(affine, forms[0])
    image.set_qform(affine, forms[1])
    nib.save(image, tmp_path / "other.nii")
    (tmp_path / "plain.nii").unlink()
    source = get_source("nifti")
    (ref,) = source.find(tmp_path)
    volume = source.load(ref)
    assert volume.spacing == pytest.approx((1.6, 1.6, 6.0), rel=1e-3)
    assert not [note for note in volume.notes if "differ" in note or "pixdim" in note]


def test_a_unit_that_makes_voxels_of_meters_is_not_believed(tmp_path):
    import nibabel as nib

    image = nib.load(write_nifti(tmp_path / "plain.nii"))
    image.header.set_xyzt_units("meter")
    nib.save(image, tmp_path / "other.nii.gz")
    (tmp_path / "plain.nii").unlink()
    source = get_source("nifti")
    volume = source.load(source.find(tmp_path)[0])
    assert volume.spacing == pytest.approx((1.6, 1.6, 6.0))
    assert any("voxels of 6 m by the unit in the header" in note for note in volume.notes)


@pytest.mark.parametrize("name", ["", " ", ".", "..", "zarr.json", "c", "a/../b", "/a", "a/", "tab\there", "n" * 101])
def test_a_probe_that_nothing_can_be_named_after_is_refused_where_it_is_read(tmp_path, name):
    from dataclasses import replace

    probe = load_probe("L11-5v")
    with pytest.raises(ProbeError, match="name: expected a word"):
        replace(probe, name=name)
    lines = (f"name = {name!r}".replace("'", '"'), "center_frequency = 5e6", "bandwidth = 0.6", "n_elements = 64")
    (tmp_path / "odd.toml").write_text("\n".join((*lines, "pitch = 3e-4", "element_width = 2.8e-4")))
    with pytest.raises(ProbeError, match="name: expected a word"):
        load_probe(tmp_path / "odd.toml")


def test_one_subject_alone_cannot_be_split_and_is_said_to_be(tmp_path, capsys):
    from datagen.cli import _print_summary

    root = write_stacks(tmp_path / "stacks", 1)
    plan = make_plan(fast_recipe(root).resolve("cpu"))
    assert plan.recipe.folds == 1
    assert "all samples are of one subject: no split into training and test is possible" in plan.notes
    summary = build(fast_recipe(root, limit=1), tmp_path / "pairs.zarr")
    _print_summary(summary, [], "pairs.zarr")
    shown = capsys.readouterr()
    assert "; 1 fold;" in shown.out
    assert "no split into training and test" in shown.err


def test_a_clock_that_jumps_makes_no_negative_times(tmp_path, monkeypatch):
    import json
    import time

    now = iter(range(10**9, 0, -3600))
    monkeypatch.setattr(time, "time", lambda: float(next(now)))
    root, store = write_stacks(tmp_path / "stacks"), tmp_path / "pairs.zarr"
    assert build(fast_recipe(root, limit=2), store).seconds > 0
    entries = [json.loads(line) for line in (store / "build" / "log.jsonl").read_text().splitlines()]
    assert all(entry.get("seconds", 0) >= 0 for entry in entries)


@pytest.mark.parametrize("command", [["report"], ["preview"]])
def test_a_path_that_cannot_be_written_is_exit_code_3(tmp_path, command):
    from datagen.cli import cli

    root, store = write_stacks(tmp_path / "stacks"), tmp_path / "pairs.zarr"
    build(fast_recipe(root, limit=1), store)
    suffix = ".html" if command == ["report"] else ".png"
    for out in (tmp_path / "absent" / f"out{suffix}", store / "zarr.json" / f"out{suffix}"):
        assert console.run(cli, "datagen", [*command, str(store), "-o", str(out)]) == console.ExitCode.DATA


def test_a_variant_is_told_with_the_size_of_its_own_pixels(tmp_path):
    from datagen.plan.augment import Augmentation, apply_augmentation
    from datagen.store import read
    from datagen.store.location import open_storage

    write_nifti(tmp_path / "mri" / "one.nii", shape=(64, 64, 12), spacing=(1.6, 1.6, 1.6))
    recipe = fast_recipe(tmp_path / "mri", limit=6, augmentations=2, source="nifti", planes="axial", patches=False)
    build(recipe, tmp_path / "pairs.zarr")
    rows = read.read_samples(open_storage(tmp_path / "pairs.zarr"))
    variants = [row for row in rows if row["augmentation"]]
    assert variants
    for row in rows:
        plain = (row["box_row1"] - row["box_row0"]) * 1.6 / 16
        told = [row[f"augmentation_{name}"] for name in ("flip", "quarter_turns", "angle_deg", "scale")]
        if not row["augmentation"]:
            assert told == [None] * 4
            assert row["hq_pixel_row_mm"] == pytest.approx(plain, rel=1e-5)
            continue
        turn = np.radians(row["augmentation_angle_deg"])
        side = row["augmentation_scale"] / (abs(np.cos(turn)) + abs(np.sin(turn)))
        assert row["hq_pixel_row_mm"] == pytest.approx(plain * side, rel=1e-5)
        # A ramp over the image, sampled by the variant, grows by one pixel of the size told per pixel.
        ramp = np.tile(np.arange(64, dtype=np.float32), (64, 1))
        made = apply_augmentation(ramp, Augmentation(angle=turn, scale=row["augmentation_scale"]), 16)
        steps = np.hypot(np.diff(made, axis=1)[8, 8], np.diff(made, axis=0)[8, 8])
        assert steps * 1.6 == pytest.approx(row["hq_pixel_row_mm"] * 64 / (row["box_row1"] - row["box_row0"]), rel=0.02)
    assert build(recipe, tmp_path / "pairs.zarr", resume=True).n_built == 0


def test_a_store_of_variants_of_before_is_gone_on_with_as_it_was_begun(tmp_path, monkeypatch):
    from datagen.make import build as pipeline

    recipe = fast_recipe(write_stacks(tmp_path / "stacks"), limit=3, augmentations=1)
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "format_for", lambda augmentations, newest: newest)
        digest = build(recipe, tmp_path / "pairs.zarr").digest
    (tmp_path / "pairs.zarr" / "build" / "shards" / "000001.json").unlink()
    assert build(recipe, tmp_path / "pairs.zarr", resume=True).digest == digest


def test_inspect_says_the_size_of_volumes_and_not_the_terms_of_their_owner(tmp_path):
    from trees import write_series

    from datagen.sources.inspect import inspect

    write_nifti(tmp_path / "nifti" / "one.nii")
    np.save(tmp_path / "one.npy", np.zeros((5, 64, 60)))
    write_series(tmp_path / "dicom", SeriesDescription="AX T1")
    said = {
        "nifti": ("nifti", "64 x 64 x 12, 1.6 x 1.6 x 6 mm"),
        "one.npy": ("npy", "5 x 64 x 60"),
        "dicom": ("dicom", "64 x 64 x 5, 1.6 x 1.6 x 6 mm, AX T1"),
    }
    for folder, (source, size) in said.items():
        found = inspect(tmp_path / folder)
        assert (found.source, found.sizes) == (source, ((size, 1),))
        text = "\n".join(found.lines())
        assert f"  size: {size} (1 volume)" in text
        assert "licence" not in text
        assert found.as_dict()["licence"]  # a program may want it
    write_nifti(tmp_path / "UMD_123456_001" / "one.nii")
    assert "licence: " in "\n".join(inspect(tmp_path / "UMD_123456_001").lines())


def test_the_report_says_what_is_odd_about_volumes(tmp_path):
    from datagen.show.report import write_report

    root, store = write_stacks(tmp_path / "stacks"), tmp_path / "pairs.zarr"
    build(fast_recipe(root, limit=3), store)
    write_report(store, tmp_path / "report.html", 1)
    assert "no voxel size in the file: pixels taken as square (" in (tmp_path / "report.html").read_text()
    (store / "volumes.csv").unlink()  # as in stores from before there was one
    write_report(store, tmp_path / "report.html", 1)
