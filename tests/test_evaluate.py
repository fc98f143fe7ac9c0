"""The table: right numbers in right rows, nothing invented, no test on training subjects."""

from __future__ import annotations

import csv
import errno
import hashlib
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from speckle_pairs import SpecklePairs
from test_restore import make_model

from irsde.data import DataError, Normalization, split, whole
from irsde.evaluation import metrics
from irsde.evaluation.breast import read_breast
from irsde.evaluation.evaluate import evaluate, evaluate_real, of_speckle
from irsde.evaluation.methods import Method, load_torch_model
from irsde.evaluation.results import Result, Row, Uncertainty
from irsde.evaluation.table import write_report
from irsde.sample import ensemble
from irsde.stacks import image_seed

PAIRS = SpecklePairs(n=4, size=64)


@pytest.fixture(scope="module")
def result():
    models = [make_model(seed) for seed in (0, 1)]
    options = {
        "steps": (3, 2),
        "sampler": "ddim",
        "samples": 2,
        "n_seeds": 2,
        "fit": [whole(SpecklePairs(n=8, seed=8))],  # p0 and p1 are tested on: left out
    }
    return evaluate(models, [whole(PAIRS), whole(SpecklePairs(n=4, seed=3, probe="C5-2v"))], **options)


def row(result, method, group="L11-5v", steps=None):
    return next(r for r in result.rows if r.method == method and r.group == group and r.steps == steps)


def test_rows_hold_every_image_and_method(result):
    names = {(r.method, r.steps) for r in result.rows if r.group == "C5-2v"}
    assert {("LQ", None), ("median", None), ("m0", 3), ("m0", 2), ("m1", 3), ("m0, mean of 2 samples", 3)} <= names
    assert {("ensemble of 2", 3), ("ensemble of 2, same noise", 3), ("m0, 2 seeds", 3)} <= names
    assert ("median + fitted tone curve", None) in names
    for r in result.rows:
        assert len(r.values["psnr"]) == len(r.values["seconds"]) == 4


def test_filters_are_never_tuned_on_a_subject_that_is_tested():
    everyone, tests = whole(SpecklePairs(n=8, seed=8)), [whole(SpecklePairs(n=4))]
    others = everyone.select([i for i, s in enumerate(everyone.subjects) if s not in tests[0].subjects])
    tables = [evaluate([], tests, fit=[fit]) for fit in (everyone, others)]
    assert [r.note for r in tables[0].rows] == [r.note for r in tables[1].rows]
    assert [r.values["psnr"] for r in tables[0].rows] == [r.values["psnr"] for r in tables[1].rows]
    with pytest.raises(DataError, match="subjects that are tested on"):
        evaluate([], tests, fit=tests)


def test_the_lq_row_is_what_the_metrics_say(result):
    expected = [metrics.psnr(lq, hq) for hq, lq in PAIRS]
    assert row(result, "LQ").values["psnr"] == pytest.approx(expected)
    assert row(result, "LQ").values["ssim"] == pytest.approx([metrics.ssim(lq, hq) for hq, lq in PAIRS])


def test_every_image_has_noise_of_its_own():
    twice = SpecklePairs(n=2)
    twice._pairs[1] = twice._pairs[0]
    table = evaluate([make_model(0)], [whole(twice)], steps=(2,), samples=2, baselines=False)
    lq, single, averaged = (r.values["psnr"] for r in table.rows)
    assert lq[0] == lq[1]
    assert single[0] != single[1]
    assert averaged[0] != averaged[1]


def test_what_cannot_run_is_listed_and_has_no_numbers(result, tmp_path):
    assert any("AlexNet" in line for line in result.not_run)
    assert all("lpips" not in r.values for r in result.rows)
    text = write_report(result, tmp_path / "t.md")[0].read_text()
    assert "n/a" in text
    assert "Not run:" in text


@pytest.mark.parametrize("installed", [False, True])
def test_a_filter_has_a_row_where_its_package_is_there(tmp_path, monkeypatch, installed):
    """BM3D's package (its licence bars commercial use) is no dependency: here it is absent, or one that halves."""
    bm3d = ModuleType("bm3d")
    bm3d.__spec__ = ModuleSpec("bm3d", None)
    bm3d.bm3d = lambda image, sigma_psd, **options: image / 2
    monkeypatch.setitem(sys.modules, "bm3d", bm3d if installed else None)  # None: its import raises ImportError
    found = evaluate([], [whole(SpecklePairs(n=1))])
    text = write_report(found, tmp_path / "t.md")[0].read_text()
    assert any("bm3d" in line.lower() for line in found.not_run) != installed
    assert ("| BM3D" in text) == installed


def test_report_files(result, tmp_path):
    files = write_report(result, tmp_path / "table.md", "Tiny")
    assert {f.name for f in files} == {
        "table.md", "table.csv", "table-images-L11-5v.png", "table-images-C5-2v.png", "table-uncertainty.png",
    }  # fmt: skip
    text = files[0].read_text()
    assert f"| m0 | 3 | {row(result, 'm0', steps=3).mean('psnr'):.2f} ±" in text
    with open(files[1], newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) == sum(len(r.values["psnr"]) for r in result.rows)
    assert all(f.stat().st_size for f in files)


def test_mask_limits_what_is_measured():
    class HalfSeen(SpecklePairs):
        def mask(self, i):
            mask = super().mask(i)
            mask[:20] = False
            return mask

    pairs = HalfSeen(n=1)
    hq, lq = pairs[0]
    found = evaluate([], [whole(pairs)], baselines=False)
    assert found.rows[0].values["psnr"] == pytest.approx([metrics.psnr(lq[20:], hq[20:])])


def test_all_pixels_are_measured_when_asked(tmp_path):
    class HalfSeen(SpecklePairs):
        def mask(self, i):
            mask = super().mask(i)
            mask[:20] = False
            return mask

    pairs = HalfSeen(n=2)
    models = [make_model(0), make_model(1)]
    options = {"baselines": False, "steps": (2,), "n_seeds": 2}
    field, everything = (evaluate(models, [whole(pairs)], pixels=p, **options) for p in ("field", "all"))
    assert everything.rows[0].values["psnr"] == pytest.approx([metrics.psnr(lq, hq) for hq, lq in pairs._pairs])
    assert field.rows[0].values["psnr"] != everything.rows[0].values["psnr"]
    # What a network is shown does not depend on what is measured, and what is no echo is not changed.
    for a, b in zip(field.pictures["L11-5v"][0], everything.pictures["L11-5v"][0], strict=True):
        np.testing.assert_array_equal(a[1], b[1])
        if a[0] != "HQ" and not a[0].endswith("deviation"):
            np.testing.assert_array_equal(a[1][:20], pairs[0][1][:20])
    assert "over the pixels in the probe's field" in write_report(field, tmp_path / "a.md")[0].read_text()
    assert "over all pixels" in write_report(everything, tmp_path / "b.md")[0].read_text()
    with pytest.raises(ValueError, match="field, all"):
        evaluate([], [whole(pairs)], pixels="some")


def test_testing_on_training_subjects_is_refused():
    model = make_model()
    trained = whole(PAIRS)
    object.__setattr__(model, "details", {"training_subjects": sorted(set(split(PAIRS, 0)[0].subjects))})
    with pytest.raises(DataError, match="was trained on subject discs/p1"):
        evaluate([model], [trained], baselines=False)
    assert evaluate([model], [split(PAIRS, 0)[1]], baselines=False, steps=(1,)).rows


def test_own_normalisation_shows_its_upper_bound_as_such():
    model = make_model(normalization=Normalization("own", "lq"))
    found = evaluate([model], [whole(SpecklePairs(n=1))], baselines=False, steps=(2,))
    assert [r.note for r in found.rows if "told" in r.method] == ["upper bound"]


def test_no_method_sees_the_hq_images():
    """Every row's pictures, HQ images permuted, spoiled or not: the same to the last bit; but for what is told them."""

    class Permuted(SpecklePairs):
        def __getitem__(self, i):
            return np.flip(super().__getitem__((i + 1) % len(self))[0]) ** 2, super().__getitem__(i)[1]

    models = [make_model(), make_model(1, Normalization("own", "train_mean")), make_model(2, method="unet")]
    shown = []
    for pairs in (SpecklePairs(n=2), Permuted(n=2)):
        found = evaluate(models, [whole(pairs)], steps=(2,), samples=2, n_seeds=2)
        shown.append([dict(images) for images in found.pictures["L11-5v"]])
    assert len(shown[0][0]) > 12
    for before, after in zip(*shown, strict=True):
        for name in before:
            told = name == "HQ" or "told" in name
            assert np.array_equal(before[name], after[name]) != told, name


def test_uncertainty_is_of_members_and_error_of_their_mean(result):
    u = next(u for u in result.uncertainty if (u.name, u.group) == ("ensemble of 2", "L11-5v"))
    assert row(result, u.name, steps=3).values["psnr"] == pytest.approx(-10 * np.log10(u.error), abs=1e-4)
    hq, lq = PAIRS[0]
    models = [make_model(seed) for seed in (0, 1)]
    mean, variance = ensemble(models, lq, image_seed(0, 0), steps=3, sampler="ddim")
    assert u.error[0] == pytest.approx(np.mean((mean - hq) ** 2), rel=1e-4)
    assert u.variance[0] == pytest.approx(variance.mean(), rel=1e-4)


def test_correlations_and_their_intervals():
    rng = np.random.default_rng(0)
    x = rng.random(200)
    u = Uncertainty("members", "probe", x, x + 0.3 * rng.normal(size=200))
    r, low, high = u.correlation("pearson")
    assert r == pytest.approx(np.corrcoef(u.variance, u.error)[0, 1])
    assert low < r < high
    fisher = np.tanh(np.arctanh(r) + 1.96 / np.sqrt(197) * np.array([-1, 1]))  # for normal variables: near enough
    assert [low, high] == pytest.approx(fisher, abs=0.03)
    monotone = Uncertainty("members", "probe", x, np.exp(9 * x))
    assert monotone.correlation("spearman")[0] == pytest.approx(1)
    assert monotone.correlation("pearson")[0] < 0.95
    assert np.isnan(Uncertainty("members", "probe", x[:3], x[:3]).correlation("pearson")[0])


def test_torch_model_file_is_a_row_with_its_hash(tmp_path):
    class Half(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image / 2

    path = tmp_path / "half.pt2"
    torch.export.save(torch.export.export(Half(), (torch.rand(1, 1, 64, 64),)), path)
    found = evaluate([], [whole(PAIRS)], baselines=False, torch_models=[("half", path)], trust=True)
    hq, lq = PAIRS[0]
    assert found.rows[1].values["psnr"][0] == pytest.approx(metrics.psnr(lq / 2, hq), abs=1e-4)
    assert found.sources == [f"half: half.pt2, SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()}"]


def onnx_file(path, factor):
    """Write image -> factor * image of any size: the bytes of ONNX's protocol buffers, field by field."""

    def message(*fields):
        return b"".join(
            bytes([number << 3 | 2, len(value)]) + value if isinstance(value, bytes) else bytes([number << 3, value])
            for number, value in fields
        )

    def tensor(name, *sides):
        shape = message(*((1, message((2 if isinstance(side, bytes) else 1, side))) for side in sides))
        return message((1, name), (2, message((1, message((1, 1), (2, shape))))))

    values = (1, message((1, 1), (2, 1), (4, np.float32(factor).tobytes()), (8, b"factor")))
    node = message((1, b"image"), (1, b"factor"), (2, b"out"), (4, b"Mul"))
    image, out = (tensor(name, 1, 1, b"nz", b"nx") for name in (b"image", b"out"))
    graph = message((1, node), (2, b"graph"), (5, values[1]), (11, image), (12, out))
    path.write_bytes(message((1, 8), (7, graph), (8, message((1, b""), (2, 13)))))
    return path


def test_onnx_file_and_run_are_rows_without_trust(tmp_path):
    pytest.importorskip("onnxruntime")
    path = onnx_file(tmp_path / "half.onnx", 0.5)
    found = evaluate([], [whole(PAIRS)], baselines=False, torch_models=[("half", path)])
    hq, lq = PAIRS[0]
    assert found.rows[1].values["psnr"][0] == pytest.approx(metrics.psnr(lq / 2, hq), abs=1e-4)
    assert found.sources == [f"half: half.onnx, SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()}"]
    np.testing.assert_allclose(load_torch_model(path)(np.full((5, 7), 0.5, np.float32)), 0.25)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"half\.onnx: expected an ONNX network"):
        load_torch_model(path)
    with pytest.raises(FileNotFoundError):
        load_torch_model(tmp_path / "none.onnx")


def test_broken_torch_model_is_named(tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"model\.pt: expected a TorchScript"):
        load_torch_model(path, trust=True)


def write_case(folder, name, lesion=True, suffix="tumor"):
    rng = np.random.default_rng(0)
    image = rng.integers(60, 90, (96, 128), np.uint8)
    mask = np.zeros_like(image)
    mask[30:60, 40:80] = 255
    image[mask > 0] //= 3
    Image.fromarray(image).save(folder / f"{name}.png")
    if lesion:
        Image.fromarray(mask).save(folder / f"{name}_{suffix}.png")


def test_real_images_in_breast_layout(tmp_path):
    write_case(tmp_path, "case001")
    write_case(tmp_path, "case002", suffix="other1")
    write_case(tmp_path, "case003", lesion=False)
    assert [name for name, _, _ in read_breast(tmp_path)] == ["case001", "case002"]
    found = evaluate_real([make_model()], tmp_path, steps=(1,))
    lq = found.rows[0]
    assert len(lq.values["cnr"]) == 2
    assert lq.mean("gcnr") > 0.9
    median = next(r for r in found.rows if r.method == "median")
    assert median.mean("enl") > lq.mean("enl")
    assert median.mean("speckle_snr_db") > lq.mean("speckle_snr_db")
    report = write_report(found, tmp_path / "real.md")[0].read_text()
    assert "| LQ |" in report
    assert "log-compressed grey levels, not of amplitudes" in report


def test_patches_without_speckle_do_not_make_the_table(tmp_path):
    """White, black and captions beside the lesion gave an ENL of a million; the table says what was refused."""
    write_case(tmp_path, "case001")
    image = np.array(Image.open(tmp_path / "case001.png"))
    image[30:46, :16], image[30:46, 16:32], image[30:46, 80:96] = 255, 0, 70
    Image.fromarray(image).save(tmp_path / "case001.png")
    found = evaluate_real([], tmp_path, baselines=False)
    (row,) = found.rows
    assert row.mean("enl") < 1000
    assert row.median("enl") == row.mean("enl")
    report = write_report(found, tmp_path / "real.md")[0].read_text(encoding="utf-8")
    assert "the five calmest patches beside each lesion that show speckle; 3 of " in report
    assert "(1 black, 1 constant, 1 saturated)" in report
    assert f"{row.mean('enl'):.2f} ± 0.00 (median {row.median('enl'):.2f})" in report


def test_a_method_that_leaves_a_constant_has_no_enl():
    constant, region = np.full((32, 32), 0.5, np.float32), np.ones((32, 32), bool)
    assert all(np.isnan(value) for value in of_speckle(constant, region).values())
    varied = constant + 0.01 * np.random.default_rng(0).normal(size=(32, 32)).astype(np.float32)
    assert of_speckle(varied, region)["enl"] == pytest.approx(2500, rel=0.2)


def write_busi(folder, name, masks=("",), marked=255, shape=(96, 128)):
    """A case as BUSI has it: several masks, or one that marks nothing."""
    folder.mkdir(exist_ok=True)
    Image.fromarray(np.full((96, 128), 80, np.uint8)).convert("RGB").save(folder / f"{name}.png")
    for k, number in enumerate(masks):
        mask = np.zeros(shape, np.uint8)
        mask[30 * k : 30 * k + 20, 40:80] = marked
        Image.fromarray(mask).save(folder / f"{name}_mask{number}.png")


def test_masks_in_busi_layout(tmp_path):
    write_busi(tmp_path / "benign", "benign (1)", ("", "_1"))
    write_busi(tmp_path / "benign", "benign (10)", marked=1)
    write_busi(tmp_path / "malignant", "malignant (2)")
    write_busi(tmp_path / "normal", "normal (1)", marked=0)
    (tmp_path / "benign" / "._benign (1).png").write_bytes(b"of another system")
    cases = {name: lesion for name, _, lesion in read_breast(tmp_path)}
    assert list(cases) == ["benign/benign (1)", "benign/benign (10)", "malignant/malignant (2)"]
    assert [int(lesion.sum()) for lesion in cases.values()] == [1600, 800, 800]
    Image.fromarray(np.zeros((90, 128), np.uint8)).save(tmp_path / "benign" / "benign (10)_mask.png")
    with pytest.raises(DataError, match=r"benign \(10\)_mask.png: expected a mask of the image's shape"):
        list(read_breast(tmp_path))


def test_masks_of_other_names(tmp_path):
    for suffix in ("-seg", "-seg2", "_lesion"):
        write_case(tmp_path, "a", suffix="tumor")
        (tmp_path / "a_tumor.png").rename(tmp_path / f"a{suffix}.png")
    assert [name for name, _, _ in read_breast(tmp_path, ["-seg", "_lesion"])] == ["a"]
    with pytest.raises(DataError, match=r"NAME_tumor.png, NAME_other.png, NAME_mask.png beside it.*--mask-suffix"):
        list(read_breast(tmp_path))
    from irsde.cli import run

    command = ["evaluate", "--real", str(tmp_path), "--no-baselines", "-o", str(tmp_path / "t.md")]
    assert run([*command, "--mask-suffix", "_lesion"]) == 0
    assert "| LQ |" in (tmp_path / "t.md").read_text()
    assert run(command) == 3
    assert run(["evaluate", "--data", "x", "--mask-suffix", "_a", "-o", str(tmp_path / "t.md")]) == 2


def test_folder_without_cases_is_refused(tmp_path):
    with pytest.raises(DataError, match="found no such pair"):
        evaluate_real([], tmp_path)


def test_empty_rows_read_as_not_available(tmp_path):
    result = Result(rows=[Row("nothing", "probe", None, "")])
    assert np.isnan(result.rows[0].mean("psnr"))
    assert Method("m", lambda lq: lq).steps is None


class Odd(SpecklePairs):
    """Image 1 is black as LQ, 2 constant as HQ, 3 equal in both."""

    def __init__(self, black=(1,), constant=(2,), equal=(3,)):
        super().__init__(n=6)
        for i in black:
            self._pairs[i] = self._pairs[i][0], np.zeros((64, 64), np.float32)
        for i in constant:
            self._pairs[i] = np.full((64, 64), 0.5, np.float32), self._pairs[i][1]
        for i in equal:
            self._pairs[i] = self._pairs[i][1], self._pairs[i][1]


def test_odd_pairs_are_counted_and_spoil_no_mean(tmp_path, capsys):
    """A constant HQ image is fitted without error by a gain of zero: "inf ± nan" dB for every method."""
    odd = evaluate([make_model()], [whole(Odd())], steps=(1,), progress=True)
    plain = evaluate([make_model()], [whole(Odd((), (), ())).select([0, 4, 5])], steps=(1,))
    sentence = "1 pair left out, whose grey levels have a standard deviation below 1 of 255: L11-5v 1"
    assert sentence in capsys.readouterr().err
    for row in odd.rows:
        assert len(row.values["psnr"]) == 5
        assert all(np.isfinite([row.mean(name), row.std(name)]).all() for name in ("psnr", "ssim", "aligned_psnr"))
        assert np.isnan(row.values["aligned_psnr"][1])
    assert odd.rows[0].method == "LQ"
    assert odd.rows[0].mean("aligned_psnr") == pytest.approx(plain.rows[0].mean("aligned_psnr"))
    assert odd.rows[0].std("aligned_psnr") == pytest.approx(plain.rows[0].std("aligned_psnr"))
    write_report(odd, tmp_path / "t.md")
    text = (tmp_path / "t.md").read_text()
    assert "## L11-5v: 5 images" in text
    assert "aligned PSNR dB: 1 of 5 images left out, their HQ image is constant." in text
    assert "PSNR dB: 1 of 5 images left out of the mean of a method whose result equals HQ." in text
    assert f"Pairs without contrast:\n\n- {sentence}" in text
    assert "nan" not in text
    with open(tmp_path / "t.csv", newline="") as file:
        assert [r["aligned_psnr"] == "" for r in csv.DictReader(file)][:5] == [False, True, False, False, False]
    assert "left out" not in write_report(plain, tmp_path / "plain.md")[0].read_text()


def test_only_black_images_are_refused():
    with pytest.raises(DataError, match=r"no pairs to test on: 2 pairs left out, .*: L11-5v 0, L11-5v 1$"):
        evaluate([], [whole(Odd((0, 1))).select([0, 1])], baselines=False)
    kept = evaluate([], [whole(Odd((0, 1))).select([0, 1]), whole(SpecklePairs(n=2, probe="C5-2v"))], baselines=False)
    assert [row.group for row in kept.rows] == ["C5-2v"]


@pytest.mark.parametrize("what", ["csv", "md", "images", "uncertainty"])
def test_a_full_disk_names_the_file_of_a_report(result, tmp_path, monkeypatch, what):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    name = {"csv": "t.csv", "md": "t.md", "images": "t-images-L11-5v.png", "uncertainty": "t-uncertainty.png"}[what]
    (tmp_path / name).write_text("before")
    save = Figure.savefig
    if what == "csv":
        monkeypatch.setattr(csv, "writer", full)
    elif what == "md":
        monkeypatch.setattr(Path, "write_text", full)
    elif what == "images":
        monkeypatch.setattr(Image.Image, "save", full)
    else:
        monkeypatch.setattr(
            Figure, "savefig", lambda self, path, **o: full() if what in str(path) else save(self, path, **o)
        )
    with pytest.raises(OSError, match="No space left") as raised:
        write_report(result, tmp_path / "t.md")
    monkeypatch.undo()
    assert raised.value.filename == str(tmp_path / name)
    assert (tmp_path / name).read_text() == "before"
