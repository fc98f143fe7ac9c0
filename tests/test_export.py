"""Exports: whole and equal to the store, read by the programs that they are for, refused where they must."""

import csv
import hashlib
import io
import json
import shutil
import tarfile

import nibabel
import numpy as np
import pytest
import strangers
import yaml
from datasets import PROBE, fast_recipe, write_stacks
from PIL import Image

import datagen
import ussim
from datagen.cli import cli
from datagen.make.build import build
from datagen.show.export import FORMATS, LicenceError, card, export
from datagen.show.export.items import Shown, key_of, sector_of
from datagen.show.export.terms import check_licence, licence_of
from datagen.show.preview import preview_png
from ussim.commands import console
from ussim.errors import DataError

CONVEX = "C5-2v"
DRAWN = {"randomize": {"speed_of_sound": [1500.0, 1580.0]}}
# Two probes; samples with draws, envelopes, labels; masks of their own.
KINDS = {
    "plain": {"probes": (PROBE, CONVEX)},
    "draws": {"speckle_draws": 2, "keep": ("envelope",)},
    "own masks": DRAWN,
    "labels": {"source": "phantom", "root": (), "phantoms": ("cysts",), "patches": False, "limit": 3},
}


PICTURES = {}


@pytest.fixture(autouse=True)
def _one_picture(monkeypatch):
    """One picture drawn, for all exports: drawing takes longer than all the rest."""

    def drawn(pairs, probe):
        if not PICTURES:
            PICTURES["first"] = preview_png(pairs, probe)
        return PICTURES["first"]

    monkeypatch.setattr(card, "preview_png", drawn)


@pytest.fixture(scope="module", params=KINDS)
def path(request, tmp_path_factory):
    """A small store of each kind."""
    folder = tmp_path_factory.mktemp("built")
    changes = {"limit": 4} | KINDS[request.param]
    root = changes.pop("root") if "root" in changes else write_stacks(folder / "stacks", n_subjects=4, n_slices=1)
    build(fast_recipe(root, **changes), folder / "pairs.zarr")
    return folder / "pairs.zarr"


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Four samples of two subjects under two probes."""
    folder = tmp_path_factory.mktemp("plain")
    recipe = fast_recipe(write_stacks(folder / "stacks", n_subjects=4, n_slices=1), limit=4, **KINDS["plain"])
    build(recipe, folder / "pairs.zarr")
    return folder / "pairs.zarr"


def image(path):
    return np.asarray(Image.open(path))


def expected(path):
    """Index and facts of every pair, by (id, probe, draw), and the pairs."""
    pairs = datagen.open_pairs(path).every_draw()
    known = [pairs.metadata(index) for index in range(len(pairs))]
    return pairs, {(row["id"], row["probe"], row.get("draw", 0)): index for index, row in enumerate(known)}


def place(row):
    return row["id"], row["probe"], int(row.get("draw") or 0)


def check(pairs, index, images):
    """Hold images of an export against the store."""
    hq, lq = (each[0] for each in pairs.read([index]))
    np.testing.assert_array_equal(images["hq"], hq)
    np.testing.assert_array_equal(images["lq"], lq)
    np.testing.assert_array_equal(images["mask"].astype(bool), pairs.mask(index))
    assert ("labels" in images) == pairs.has_labels
    if pairs.has_labels:
        np.testing.assert_array_equal(images["labels"], pairs.labels(index))
    assert ("envelope" in images) == ("envelope" in pairs.recipe.keep)
    if "envelope" in images:
        np.testing.assert_array_equal(images["envelope"], pairs.envelope(index))


def check_card(out, name="LICENSE"):
    text = (out / "README.md").read_text(encoding="utf-8")
    assert text.startswith("---\n")
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["task_categories"] == ["image-to-image"]
    assert "](preview.png)" in text
    assert (out / "preview.png").stat().st_size > 5000
    assert "```python" in text
    assert (out / name).read_text(encoding="utf-8").count("SPDX-License-Identifier") == 1
    return front


@pytest.mark.parametrize("kind", ["png", "webdataset"])
def test_files_hold_every_image(path, tmp_path, kind):
    out = export(path, tmp_path / "out", kind, licence="CC0-1.0")
    pairs, known = expected(path)
    seen = set()
    for row, images in (_pngs if kind == "png" else _tars)(out):
        check(pairs, known[place(row)], images)
        seen.add(place(row))
        assert int(row["seed"], 0) == pairs.samples[known[place(row)]]["seed"]
        assert (row["split"] == "test") == (int(row["fold"]) == 0 and pairs.n_folds > 1)
    assert seen == set(known)
    assert check_card(out)["license"] == "cc0-1.0"


def _pngs(out):
    for table in out.glob("*/metadata.csv"):
        with table.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                names = {name.removesuffix("_name").removesuffix("_file"): row[name] for name in row if "_file" in name}
                yield (
                    row,
                    {
                        kind: np.load(table.parent / name) if name.endswith("npy") else image(table.parent / name)
                        for kind, name in names.items()
                        if name
                    },
                )


def _tars(out):
    for path in out.glob("*.tar"):
        pairs = {}
        with tarfile.open(path) as tar:
            for entry in tar:
                key, suffix = entry.name.split(".", 1)
                content = tar.extractfile(entry).read()
                pairs.setdefault(key, {})[suffix] = content
        for files in pairs.values():
            row = json.loads(files.pop("json"))
            yield (
                row,
                {
                    suffix.partition(".")[0]: np.load(io.BytesIO(content))
                    if suffix.endswith("npy")
                    else image(io.BytesIO(content))
                    for suffix, content in files.items()
                },
            )


def test_a_tar_holds_so_many_pairs(plain, tmp_path, monkeypatch):
    monkeypatch.setattr("datagen.show.export.webdataset.PER_TAR", 3)
    out = export(plain, tmp_path / "tars", "webdataset", probe=PROBE)
    rows = datagen.open_pairs(plain, PROBE).samples
    assert {row["fold"] for row in rows} == {0, 1}
    for split in ("train", "test"):
        n = sum((row["fold"] == 0) == (split == "test") for row in rows)
        assert len(list(out.glob(f"{split}-*.tar"))) == -(-n // 3)


LOAD = """
import json, numpy as np
from datasets import load_dataset
found = {{}}
for split, pairs in load_dataset({name!r}, streaming={streaming}).items():
    for pair in pairs:
        key = "|".join((pair["id"], pair["probe"], str(pair.get("draw") or 0)))
        kinds = [kind for kind in ("hq", "lq", "mask", "labels", "hq_polar", "lq_polar") if pair.get(kind) is not None]
        found[key] = {{
            "split": split, "fold": pair["fold"], "subject": pair["subject"], "spacing": pair["lq_pixel_x_mm"],
            "seed": pair["seed"],
            "images": {{kind: np.asarray(pair[kind]).astype(int).tolist() for kind in kinds}},
            "envelope": np.asarray(pair["envelope"], float).tolist() if pair.get("envelope") is not None else None,
        }}
print(json.dumps(found))
"""


@pytest.mark.parametrize(
    ("kind", "streaming"), [("parquet", True), ("parquet", False), ("png", False), ("webdataset", True)]
)
def test_hugging_face_loads_pairs(plain, tmp_path, kind, streaming):
    pytest.importorskip("pyarrow")
    has_polar = kind != "webdataset"
    export(plain, tmp_path / "shared", kind, licence="CC-BY-4.0", polar=has_polar)
    _check_loaded(plain, strangers.run(_program(kind, streaming), tmp_path, "datasets"), has_polar)


def _program(kind, streaming):
    code = LOAD.format(name="shared", streaming=streaming)
    if kind == "webdataset":  # the row of a pair is one column there
        code = code.replace(
            "    for pair in pairs:\n",
            "    for pair in pairs:\n        pair = pair['json'] | {k.partition('.')[0]: v for k, v in pair.items()}\n",
        )
    return code


def _check_loaded(path, found, has_polar):
    pairs, known = expected(path)
    assert {tuple([*key.split("|")[:2], int(key.split("|")[2])]) for key in found} == set(known)
    for key, pair in found.items():
        name, probe, draw = key.split("|")
        index = known[name, probe, int(draw)]
        row = pairs.samples[index]
        images = {kind: np.array(values) for kind, values in pair["images"].items()}
        assert ("lq_polar" in images) == has_polar  # both are sector probes
        images = {kind: each for kind, each in images.items() if "polar" not in kind}
        if pair["envelope"] is not None:
            images["envelope"] = np.array(pair["envelope"])
        check(pairs, index, images)
        assert pair["split"] == ("test" if row["fold"] == 0 else "train")
        assert (pair["fold"], pair["subject"]) == (row["fold"], row["subject"])
        assert int(pair["seed"], 0) == row["seed"]
        assert float(pair["spacing"]) == pytest.approx(pairs.metadata(index)["lq_pixel_x_mm"])


def test_parquet_has_every_image_of_every_kind_of_store(path, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    out = export(path, tmp_path / "shared", "parquet", licence="CC-BY-4.0")
    pairs, known = expected(path)
    seen = set()
    for file in sorted(out.rglob("*.parquet")):
        for row in parquet.read_table(file).to_pylist():
            images = {kind: image(io.BytesIO(value["bytes"])) for kind, value in row.items() if isinstance(value, dict)}
            if "envelope" in row:
                images["envelope"] = np.array(row["envelope"])
            check(pairs, known[place(row)], images)
            seen.add(place(row))
    assert seen == set(known)
    front = check_card(out)
    assert front["license"] == ("cc0-1.0" if pairs.has_labels else "cc-by-4.0")  # phantoms have their own
    assert front["configs"][0]["config_name"] == "default"


def test_pandas_reads_parquet(plain, tmp_path):
    pytest.importorskip("pyarrow")
    export(plain, tmp_path / "shared", "parquet")
    code = """
import glob, json, pandas
table = pandas.concat(map(pandas.read_parquet, glob.glob("shared/data/*/*.parquet")))
print(json.dumps([sorted(table.id), str(table.slice.dtype), str(table.lq_pixel_x_mm.dtype)]))
"""
    ids, whole, decimal = strangers.run(code, tmp_path, "pandas", "pyarrow")
    assert ids == sorted(row["id"] for row in datagen.open_pairs(plain).samples)
    assert (whole, decimal) == ("int64", "float64")


def test_large_splits_are_several_files(plain, tmp_path, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("datagen.show.export.parquet.PER_FILE", 2)
    monkeypatch.setattr("datagen.show.export.parquet.PER_GROUP", 1)
    out = export(plain, tmp_path / "shared", "parquet", probe=PROBE)
    files = sorted(out.rglob("*.parquet"))
    sizes = [parquet.read_metadata(file).num_rows for file in files]
    assert sum(sizes) == 4
    assert max(sizes) <= 2
    for split in ("train", "test"):
        names = [file.name for file in files if file.name.startswith(split)]
        assert names == [f"{split}-{i:05d}-of-{len(names):05d}.parquet" for i in range(len(names))]
    croissant = json.loads((out / "croissant.json").read_text())
    listed = {each["contentUrl"]: each["sha256"] for each in croissant["distribution"] if "sha256" in each}
    assert listed == {file.relative_to(out).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    columns = {field["source"]["extract"]["column"] for field in croissant["recordSet"][0]["field"]}
    assert columns == set(parquet.read_schema(files[0]).names)
    for name in (
        "@context",
        "@type",
        "conformsTo",
        "name",
        "description",
        "license",
        "url",
        "creator",
        "datePublished",
    ):
        assert croissant[name], name


def test_croissant_is_read_by_its_own_library(plain, tmp_path):
    pytest.importorskip("pyarrow")
    export(plain, tmp_path / "shared", "parquet", probe=PROBE, creator="somebody", url="https://example.org/pairs")
    code = """
import json, mlcroissant
data = mlcroissant.Dataset(jsonld="shared/croissant.json")
rows = list(data.records(record_set="P4-2v"))
ids = sorted(row["P4-2v/id"].decode() for row in rows)
print(json.dumps([data.metadata.ctx.issues.report(), ids, rows[0]["P4-2v/lq"].size]))
"""
    issues, ids, size = strangers.run(code, tmp_path, "mlcroissant")
    assert issues == ""
    assert ids == sorted(row["id"] for row in datagen.open_pairs(plain, PROBE).samples)
    assert size == [16, 16]


# --- mm, polar, channel data -----------------------------------------------------------------------------------------


def test_nifti_lies_in_its_millimeters(path, tmp_path):
    out = export(path, tmp_path / "nifti", "nifti", licence="CC0-1.0")
    pairs, known = expected(path)
    with (out / "metadata.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {place(row) for row in rows} == set(known)
    for row in rows:
        index = known[place(row)]
        names = {
            kind: row[f"{kind}_file_name"]
            for kind in ("hq", "lq", "mask", "labels", "envelope")
            if f"{kind}_file_name" in row
        }
        files = {kind: nibabel.load(out / name) for kind, name in names.items()}
        images = {kind: np.asarray(file.dataobj)[:, 0].T for kind, file in files.items()}
        check(pairs, index, images)
        grid = pairs.grid(index)
        for kind in ("lq", "mask"):
            x, y, z = nibabel.affines.apply_affine(files[kind].affine, [[3, 0, 11]])[0]
            assert (x, y, z) == pytest.approx((1e3 * grid.x[3], 0, 1e3 * grid.z[11]), abs=1e-4)  # affines are float32
        facts = pairs.metadata(index)
        if facts["hq_pixel_row_mm"] is not None:
            assert files["hq"].header.get_zooms() == pytest.approx(
                (facts["hq_pixel_column_mm"], 1, facts["hq_pixel_row_mm"])
            )
            assert files["hq"].header.get_xyzt_units()[0] == "mm"
        else:
            assert files["hq"].header.get_xyzt_units()[0] == "unknown"
        assert files["lq"].header.get_xyzt_units()[0] == "mm"


def test_polar_images_are_those_of_sector_probes(plain):
    pairs = datagen.open_pairs(plain)
    shown = Shown(pairs, "name", check_licence(pairs.sources, "MIT"), 0, polar=True)
    for item in shown.items():
        settings = pairs.settings(item.index)
        assert ("lq_polar" in item.images) == (sector_of(settings) is not None)
        if "lq_polar" in item.images:
            polar = ussim.to_polar(item.images["lq"], pairs.grid(item.index), sector_of(settings))
            np.testing.assert_array_equal(item.images["lq_polar"], polar)
            sector = sector_of(settings)
            assert item.facts["polar_radius_max_mm"] == pytest.approx(1e3 * sector.radius[-1])
            assert np.deg2rad(item.facts["polar_angle_min_deg"]) == pytest.approx(sector.angle[0])
            assert item.facts["polar_apex_z_mm"] == pytest.approx(1e3 * sector.apex)
            assert ussim.to_polar(np.ones((16, 16), bool), pairs.grid(item.index), sector_of(settings)).all()


def test_channel_data_make_the_stored_images(path, tmp_path):
    out = export(path, tmp_path / "rf", "openh-rf", licence="CC-BY-4.0")
    pairs, known = expected(path)
    manifest = json.loads((out / "manifest.json").read_text())
    assert {place(row) for row in manifest["files"]} == set(known)
    assert len(list(out.rglob("*.hdf5"))) == len(known)
    for row in manifest["files"]:
        file = out / row["path"]
        assert hashlib.sha256(file.read_bytes()).hexdigest() == row["sha256"]
        rf = ussim.load_channel_data(file)
        settings = pairs.settings(known[place(row)])
        assert rf.samples.shape == (row["raw_data"][1], row["raw_data"][3], row["raw_data"][2])
        assert rf.acquisition.probe.n_elements == settings.probe.n_elements
        assert row["lq_differs_by"] == 0
    row = manifest["files"][0]  # one file read and beamformed as a stranger would
    index = known[place(row)]
    rf = ussim.load_channel_data(out / row["path"])
    bmode = ussim.log_compress(ussim.envelope_image(ussim.demodulate(rf), pairs.grid(index)), 40)
    lq = pairs[index][1]
    inside = pairs.mask(index) & (lq > 0)
    # zea keeps neither the f-number nor the recipe's rules: the same image, not the same grey levels.
    assert np.corrcoef(bmode[inside], lq[inside])[0, 1] > 0.98
    front = check_card(out, "LICENCE")
    assert front["license"] == ("cc0-1.0" if pairs.has_labels else "cc-by-4.0")  # phantoms have their own
    text = (out / "README.md").read_text(encoding="utf-8")
    for section in (
        "Dataset Description",
        "Intended Usage",
        "Dataset Quantification",
        "Known Issues",
        "Ethical Considerations",
        "Data Validation",
    ):
        assert f"\n## {section}\n" in text
    for folder in {file.parent for file in out.rglob("*.hdf5")}:
        steps = yaml.safe_load((folder / "pipeline.yaml").read_text())
        grid = pairs.grid(0) if len(pairs.probes) == 1 else None
        assert steps["parameters"]["grid_size_x"] == 16
        assert (
            grid is None
            or "zoom" in pairs.recipe.to_dict()
            or steps["parameters"]["zlims"] == pytest.approx(list(grid.z[[0, -1]]))
        )
        compile((folder / "reconstruct.py").read_text(), "reconstruct.py", "exec")


def test_channel_data_of_another_image_are_refused(plain, tmp_path, monkeypatch):
    from datagen.show.export import openh_rf

    monkeypatch.setattr(openh_rf, "probe_seed", lambda seed, name: 7)
    with pytest.raises(DataError, match="its channel data make another image than the store has"):
        export(plain, tmp_path / "rf", "openh-rf", probe=PROBE)
    assert not (tmp_path / "rf").exists()


# --- terms and refusals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FORMATS)
def test_a_source_that_forbids_it_is_not_exported(plain, tmp_path, capsys, kind):
    copy = shutil.copytree(plain, tmp_path / "pairs.zarr")
    document = json.loads((copy / "zarr.json").read_text())
    source = datagen.get_source("mrnet")
    document["attributes"]["sources"] = [
        {key: getattr(source, key) for key in ("name", "title", "licence", "citation", "terms", "redistributable")}
    ]
    (copy / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(LicenceError, match=r"MRNet.*refused.*may not be passed on"):
        export(copy, tmp_path / "out", kind, licence="CC0-1.0")
    code = console.run(cli, "datagen", ["export", str(copy), "--format", kind, "-o", str(tmp_path / "out")])
    assert code == 3
    *before, line = capsys.readouterr().err.strip().splitlines()
    assert "MRNet" in line
    assert "refused" in line
    assert not any("error" in other or "refused" in other for other in before)  # they are progress
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", FORMATS)
def test_a_failed_export_leaves_nothing(plain, tmp_path, monkeypatch, kind):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("datagen.show.export.card.write_picture", full)
    with pytest.raises(OSError, match="No space"):
        export(plain, tmp_path / "out", kind, probe=PROBE)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_is_one_line(plain, tmp_path, capsys):
    given = ["export", str(plain), "--format", "png", "-o", str(tmp_path / "png")]
    assert console.run(cli, "datagen", [*given, "--test-fold", "9"]) == 3
    assert "test_fold: expected 0 to" in capsys.readouterr().err
    assert console.run(cli, "datagen", given) == 0
    assert console.run(cli, "datagen", given) == 3
    assert "choose another folder" in capsys.readouterr().err


def test_each_sample_has_files_of_its_own():
    names = ("npy/a b/full", "npy/a_b/full", "npy/a__b/full", "npy/a/b/full", "npy/a.b/full")
    keys = [key_of({"id": name}) for name in names]
    assert len(set(keys)) == len(names)
    assert keys[1] == "npy__a_b__full"
    assert not [key for key in keys if not key.replace("-", "").replace("_", "").isalnum()]


@pytest.mark.parametrize(
    ("text", "spdx"),
    [
        ("CC BY-NC 4.0", "CC-BY-NC-4.0"),
        ("cc0-1.0", "CC0-1.0"),
        ("MIT (pydicom and nibabel, which ship the files)", "MIT"),
        ("as the owner of the files says", None),
        ("CC BY", None),
    ],
)
def test_licences_are_known_by_their_spdx_names(text, spdx):
    assert licence_of(text).spdx == spdx
    assert bool(licence_of(text).link) == (spdx is not None)


def test_a_licence_without_a_public_name_is_named(plain, tmp_path):
    out = export(plain, tmp_path / "png", "png", licence="ours, on request", probe=PROBE)
    front = yaml.safe_load((out / "README.md").read_text().split("---\n")[1])
    assert (front["license"], front["license_name"], front["license_link"]) == ("other", "ours, on request", "LICENSE")
    assert "ours, on request" in (out / "LICENSE").read_text()
