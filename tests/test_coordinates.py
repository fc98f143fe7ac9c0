"""Millimeters of a store: its coordinates in the words of xarray and OME-Zarr, the grid and facts of each pair."""

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import strangers
import zarr
from datasets import PROBE, fast_recipe, write_stacks

import datagen
from datagen.make.build import build
from datagen.make.pairs import make_imager
from datagen.make.verify import verify
from datagen.store import coordinates, layout
from datagen.store.location import open_storage

CONVEX = "C5-2v"
ZOOM = {"randomize": {"zoom": [1.0, 4.0]}}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_stacks(tmp_path_factory.mktemp("stacks"), n_subjects=2, n_slices=1)


def built(root, path, **changes):
    build(fast_recipe(root, limit=2, **changes), path)
    return path


@pytest.fixture(scope="module", params=[(PROBE,), (PROBE, CONVEX)], ids=["one probe", "two probes"])
def path(request, root, tmp_path_factory):
    return built(root, tmp_path_factory.mktemp("built") / "pairs.zarr", probes=request.param)


def test_coordinates_are_the_pixels_of_the_simulation_in_mm(path):
    pairs = datagen.open_pairs(path)
    group = zarr.open_group(path / "lq", mode="r")
    for settings in pairs.recipe.settings:
        name = settings.probe.name
        array, grid = group[name], make_imager(settings).grid
        assert array.metadata.dimension_names == ("sample", "z", "x")
        for axis in ("z", "x"):
            key = axis if len(pairs.probes) == 1 else f"{axis}_{name}"
            assert group[key].metadata.dimension_names == (axis,)
            assert group[key].attrs["units"] == "mm"
            np.testing.assert_array_equal(group[key][:], 1e3 * getattr(grid, axis))
            assert (key in array.attrs.get("coordinates", "").split()) == (len(pairs.probes) > 1)


def test_ome_says_where_a_pixel_lies(path):
    pairs = datagen.open_pairs(path)
    ome = zarr.open_group(path / "lq", mode="r").attrs["ome"]
    assert ome["version"] == "0.5"
    assert [image["name"] for image in ome["multiscales"]] == list(pairs.probes)
    for image, settings in zip(ome["multiscales"], pairs.recipe.settings, strict=True):
        assert [axis["name"] for axis in image["axes"]] == ["sample", "z", "x"]
        assert [axis.get("unit") for axis in image["axes"]] == [None, "millimeter", "millimeter"]
        (dataset,) = image["datasets"]
        assert dataset["path"] == layout.array_name(settings.probe.name)
        scale, translation = (each[each["type"]] for each in dataset["coordinateTransformations"])
        grid = settings.grid()
        placed = np.multiply(scale, [1, 5, 7]) + translation
        np.testing.assert_allclose(placed, [1, 1e3 * grid.z[5], 1e3 * grid.x[7]], rtol=1e-12)


def test_draws_are_a_channel_to_ome(root, tmp_path):
    path = built(root, tmp_path / "pairs.zarr", speckle_draws=2, keep=("envelope",))
    ome = zarr.open_group(path / "lq", mode="r").attrs["ome"]["multiscales"][0]
    assert [axis.get("type") for axis in ome["axes"]] == ["time", "channel", "space", "space"]
    assert len(ome["datasets"][0]["coordinateTransformations"][0]["scale"]) == 4
    envelopes = zarr.open_group(path / "envelope", mode="r")
    np.testing.assert_array_equal(envelopes["z"][:], zarr.open_group(path / "lq", mode="r")["z"][:])


def test_fields_that_are_drawn_have_no_coordinates_but_grids(root, tmp_path):
    path = built(root, tmp_path / "pairs.zarr", **ZOOM)
    assert sorted(zarr.open_group(path / "lq", mode="r").array_keys()) == [PROBE]
    assert "ome" not in zarr.open_group(path / "lq", mode="r").attrs
    pairs = datagen.open_pairs(path)
    widths = set()
    for index, row in enumerate(pairs.samples):
        grid = pairs.grid(index)
        assert 1e3 * (grid.x[1] - grid.x[0]) == pytest.approx(row[f"lq_pixel_x_mm_{PROBE}"], rel=1e-5)  # six digits
        widths.add(round(float(np.ptp(grid.x)), 9))
    assert len(widths) == 2


def test_no_digest_hears_of_it(path, root, tmp_path, monkeypatch):
    attributes = datagen.open_pairs(path).attributes
    monkeypatch.setattr(coordinates.ResolvedRecipe, "fields_are_fixed", property(lambda recipe: False))
    old = built(root, tmp_path / "old.zarr", probes=tuple(attributes["probes"]))
    before = datagen.open_pairs(old).attributes
    assert (before["digest"], before["recipe_digest"]) == (attributes["digest"], attributes["recipe_digest"])


def test_a_store_without_coordinates_opens_is_whole_and_is_resumed(root, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(coordinates.ResolvedRecipe, "fields_are_fixed", property(lambda recipe: False))
        path = built(root, tmp_path / "pairs.zarr")
    assert not (path / "lq" / "z").exists()
    assert datagen.open_pairs(path).grid(0).shape == (16, 16)
    assert verify(path).faults == ()
    assert build(fast_recipe(root, limit=2), path, resume=True).n_built == 0
    assert verify(path).faults == ()
    assert not (path / "lq" / "z").exists()


@pytest.mark.parametrize("name", ["lq/z/zarr.json", "lq/x/c/0", "lq/zarr.json"])
def test_a_changed_coordinate_is_found_and_made_again(root, tmp_path, name):
    path = built(root, tmp_path / "pairs.zarr")
    file = path / name
    whole = file.read_bytes()
    file.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    assert any(name in fault for fault in verify(path).faults)
    build(fast_recipe(root, limit=2), path, resume=True)
    assert file.read_bytes() == whole
    assert verify(path).faults == ()


def test_what_is_known_of_a_pair(path):
    pairs = datagen.open_pairs(path)
    for index, row in enumerate(pairs.samples):
        facts, name = pairs.metadata(index), row["probe"]
        grid = pairs.grid(index)
        assert {key: facts[key] for key in ("id", "subject", "fold", "seed", "probe", "crc32_hq")} == {
            key: row[key] for key in ("id", "subject", "fold", "seed", "probe", "crc32_hq")
        }
        assert facts["scatterers"] == row[f"scatterers_{name}"]
        assert facts["crc32_lq"] == row[f"crc32_{name}"]
        assert facts["z_max_mm"] == pytest.approx(1e3 * grid.z[-1])
        assert not [key for key in facts for probe in pairs.probes if key.endswith(probe)]
        json.dumps(facts)
    assert pairs.metadata(-1) == pairs.metadata(len(pairs) - 1)
    with pytest.raises(IndexError):
        pairs.metadata(len(pairs))


def test_a_probe_whose_name_ends_as_another_s_keeps_its_own(root, tmp_path):
    text = (Path(__file__).parents[1] / "probes" / f"{PROBE.lower()}.toml").read_text(encoding="utf-8")
    assert f'"{PROBE}"' in text
    files = []
    for name in ("b", "a_b"):
        file = tmp_path / f"{name}.toml"
        file.write_text(text.replace(f'"{PROBE}"', f'"{name}"'))
        files.append(str(file))
    path = built(root, tmp_path / "pairs.zarr", probes=tuple(files))
    pairs = datagen.open_pairs(path)
    for index, row in enumerate(pairs.samples):
        assert pairs.metadata(index)["crc32_lq"] == row[f"crc32_{row['probe']}"]


XARRAY = """
import json, warnings
warnings.simplefilter("error")
import xarray
data = xarray.open_zarr("pairs.zarr", group="lq")
image = data["P4-2v"]
first = float(image.z[0]) if "z" in image.coords else None
print(json.dumps([sorted(map(str, image.coords)), first, image.z.attrs.get("units")]))
"""


def test_xarray_shows_millimeters(path, tmp_path):
    shutil.copytree(path, tmp_path / "pairs.zarr")
    names, first, units = strangers.run(XARRAY, tmp_path, "xarray")
    pairs = datagen.open_pairs(path)
    if len(pairs.probes) == 1:
        assert names == ["x", "z"]
        assert first == pytest.approx(1e3 * pairs.grid(0).z[0])
        assert units == "mm"
    else:
        assert {f"x_{PROBE}", f"z_{PROBE}"} <= set(names)


def test_a_store_in_memory_has_them_too(root):
    url = "memory://coordinates/pairs.zarr"
    storage = open_storage(url)
    build(fast_recipe(root, limit=2), url)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert datagen.open_pairs(url).grid(0).shape == (16, 16)
    assert verify(url).faults == ()
    storage.delete()
