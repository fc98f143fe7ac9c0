"""The `irsde` command: what it writes, what it says, and how it ends."""

from __future__ import annotations

import errno
import re
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import trees
from click.testing import CliRunner
from PIL import Image
from speckle_pairs import SpecklePairs

import datagen
from irsde import presets, recipes
from irsde.cli import cli, run
from irsde.config import PRESETS, TrainConfig
from irsde.network import build_network, load

SETTINGS = ["--preset", "tiny", "--patch-size", "32", "--batch-size", "2", "--n-steps", "10", "--device", "cpu",
            "--checkpoint-every", "2", "--log-every", "1"]  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A path that `datagen.open_pairs` opens as two probes' synthetic pairs."""
    path = tmp_path_factory.mktemp("data") / "pairs.zarr"
    path.mkdir()
    (path / "zarr.json").write_text("{}")

    def open_pairs(url, probe=None):
        known = ("L11-5v", "C5-2v")
        names = known if probe is None else ([probe] if isinstance(probe, str) else probe)
        pairs = SpecklePairs(n=4, seed=len(names[0]), probe=names[0])
        pairs.probes = tuple(names)
        return pairs

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datagen, "open_pairs", open_pairs, raising=False)
        yield path


def train(store, out, *options):
    return run(["train", "--data", str(store), "--out", str(out), "--steps", "2", *SETTINGS, *options])


@pytest.fixture(scope="module")
def trained(store, tmp_path_factory):
    """A run that tests only read."""
    out = tmp_path_factory.mktemp("runs") / "a"
    assert train(store, out, "--probe", "L11-5v", "--fold", "1") == 0
    return out


def test_train_prints_the_run_folder_and_resumes(store, tmp_path, capsys):
    out = tmp_path / "a"
    assert train(store, out, "--fold", "1") == 0
    assert str(out) in capsys.readouterr().out
    assert run(["train", "--out", str(out), "--resume", "--steps", "4"]) == 0
    assert load(out).step == 4
    assert load(out).config.fold == 1


def test_fine_tuning_takes_network_and_diffusion_from_the_initial_run(store, trained, tmp_path, capsys):
    out = tmp_path / "mine"
    arguments = ["train", "--data", str(store), "--init", str(trained), "--out", str(out), "--steps", "1"]
    assert (
        run([*arguments, "--patch-size", "32", "--batch-size", "2", "--device", "cpu", "--learning-rate", "1e-5"]) == 0
    )
    assert f"starting from the averaged weights of {trained}, step 2\n" in capsys.readouterr().err
    model = load(out)
    assert (model.config.preset, model.config.n_steps, model.config.learning_rate) == ("tiny", 10, 1e-5)
    assert model.details["init"] == {"run": str(trained), "step": 2}
    assert run(["train", "--out", str(out), "--resume", "--steps", "2"]) == 0
    assert load(out).step == 2


def test_train_on_several_stores(store, tmp_path, monkeypatch, capsys):
    other = tmp_path / "other.zarr"
    other.mkdir()
    out = tmp_path / "both"
    assert train(store, out, "--data", str(other)) == 0
    record = load(out).details
    assert record["training_pairs"] == 16
    assert [place["absolute"] for place in record["stores"]] == [str(store), str(other)]
    monkeypatch.chdir(tmp_path)
    assert run(["train", "--out", "both", "--resume", "--steps", "3"]) == 0
    assert load(out).config.stores == (str(store), str(other))


def test_without_a_graphics_card_the_default_preset_ends(store, tmp_path, capsys, monkeypatch):
    """The 700,000 steps of "paper" are a hundred days of a CPU."""
    import irsde.training

    begun = []
    monkeypatch.setattr(irsde.training, "train", lambda config, out, resume: begun.append(config) or out)
    arguments = ["train", "--data", str(store), "--out", str(tmp_path / "x")]
    assert run([*arguments, "--device", "cpu"]) == 0
    assert capsys.readouterr().err == (
        "preset small, as there is no graphics card to use: 20,000 steps, hours; --preset paper takes months\n"
    )
    with monkeypatch.context() as patch:
        patch.setattr("irsde.network.pick_device", lambda name: torch.device("cuda"))
        assert run(arguments) == 0
    assert capsys.readouterr().err == "preset paper, as there is a graphics card\n"
    assert run([*arguments, "--preset", "tiny"]) == 0
    assert capsys.readouterr().err == ""
    assert [(c.preset, c.steps) for c in begun] == [("small", 20_000), ("paper", 700_000), ("tiny", 4_000)]


@pytest.mark.parametrize("recipe", recipes.RECIPES)
def test_a_recipe_keeps_its_network_and_says_what_that_takes(store, tmp_path, capsys, monkeypatch, recipe):
    import irsde.training

    begun = []
    monkeypatch.setattr(irsde.training, "train", lambda config, out, resume: begun.append(config) or out)
    arguments = ["train", "--data", str(store), "--out", str(tmp_path / "x"), "--recipe", recipe]
    assert run([*arguments, "--device", "cpu"]) == 0
    assert "700,000 steps, and no graphics card to use: months; --preset tiny" in capsys.readouterr().err
    assert recipes.changes(begun[-1].to_dict()) == {}
    assert run([*arguments, "--device", "cpu", "--preset", "tiny", "--n-steps", "20", "--statistics", "echoes"]) == 0
    assert capsys.readouterr().err == ""
    assert set(recipes.changes(begun[-1].to_dict())) == {"preset", "n_steps", "statistics"}
    with monkeypatch.context() as patch:
        patch.setattr("irsde.network.pick_device", lambda name: torch.device("cuda"))
        assert run(arguments) == 0
    assert capsys.readouterr().err == ""


def test_a_trained_recipe_is_said_restored_and_measured(store, tmp_path, capsys):
    out = tmp_path / "paper"
    assert train(store, out, "--recipe", "paper", "--fold", "0", "--probe", "L11-5v") == 0
    said = capsys.readouterr().err
    assert "recipe paper: left open by the source, values of IR-SDE's public configuration: " in said
    assert "recipe paper: not followed in preset paper -> tiny" in said
    assert run(["restore", str(out), str(store), "-o", str(tmp_path / "r"), "--limit", "1", "--steps", "2"]) == 0
    arguments = ["evaluate", str(out), "--data", str(store), "--probe", "L11-5v", "--fold", "0", "--no-baselines"]
    assert run([*arguments, "--steps", "2", "--pixels", "all", "-o", str(tmp_path / "t.md")]) == 0
    table = (tmp_path / "t.md").read_text()
    assert "over all pixels" in table
    assert "told HQ mean and std" in table  # the upper bound of its normalization


def test_help_of_train_says_recipes():
    said = " ".join(CliRunner().invoke(cli, ["train", "--help"], terminal_width=300).output.split())
    for name, recipe in recipes.RECIPES.items():
        assert f"{name} {recipe.source}; preset paper, max sigma 0.0392157, sigma unit grey, normalization " in said


def test_help_of_train_says_defaults_and_presets():
    said = " ".join(CliRunner().invoke(cli, ["train", "--help"], terminal_width=300).output.split())
    for words in (
        "Optimizer steps. [default: paper 700,000, small 20,000, tiny 4,000]",
        "--patch-size N Pixels, a multiple of 8. [default: paper 128, small 64, tiny 64]",
        "[default: paper with a graphics card, else small]",
        "Way back from --normalization own. [default: lq]",
        "Also turn by 90 degrees (speckle is anisotropic). [default: off]",
        "small 3.6 M parameters; hours on a CPU; learning rate 0.0005, schedule cosine, steps 20,000, patch size 64, batch",
    ):
        assert words in said, words
    for option in cli.commands["train"].params:
        known = presets.default_of(presets.OPTIONS.get(option.name, option.name))
        assert known is None or (option.help and not option.help.startswith("[")), option.name


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_of_the_size_that_help_says(preset):
    with torch.device("meta"):
        network = build_network(TrainConfig.create(store="x", preset=preset))
    n_parameters = sum(p.numel() for p in network.parameters())
    said = float(presets.SIZES[preset].split(" M ")[0])
    assert said == pytest.approx(n_parameters / 1e6, rel=0.05)


def test_train_on_all_probes_of_a_store(store, tmp_path):
    assert train(store, tmp_path / "b") == 0
    assert load(tmp_path / "b").details["probes"] == ["L11-5v", "C5-2v"]
    assert load(tmp_path / "b").details["training_pairs"] == 8


def test_train_takes_settings_from_a_file(store, tmp_path):
    (tmp_path / "c.toml").write_text(f'store = "{store}"\npreset = "tiny"\nmax_sigma = 0.7\nn_steps = 20\n')
    arguments = ["train", "--config", str(tmp_path / "c.toml"), "--out", str(tmp_path / "c"), "--steps", "1", *SETTINGS]
    assert run(arguments) == 0
    config = load(tmp_path / "c").config
    assert (config.max_sigma, config.n_steps) == (0.7, 10)  # an option wins over the file


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["train", "--out", "{tmp}/x"], 2, "--data STORE"),
        (["train", "--data", "{tmp}/none.zarr", "--out", "{tmp}/x", "--method", "gan"], 2, "gan"),
        (["train", "--data", "{store}", "--out", "{tmp}/x", "--preset", "tiny", "--patch-size", "30"], 2, "multiple of 8"),
        (["train", "--data", "{store}", "--out", "{tmp}/x", "--preset", "tiny", "--fold", "9"], 3, "fold 9"),
        (["train", "--data", "{store}", "--out", "{run}"], 2, "--resume"),
        (["train", "--out", "{run}", "--resume", "--max-sigma", "0.9"], 5, "--max-sigma"),
        (["train", "--data", "{store}", "--out", "{tmp}/x", "--preset", "tiny", "--device", "cuda:77"], 6, "--device cpu"),
        (["train", "--data", "{store}", "--out", "{tmp}/x", "--init", "{run}", "--preset", "small"], 2,
         "use --method irsde --preset tiny"),
        (["train", "--data", "{store}", "--out", "{tmp}/x", "--init", "{tmp}"], 3, "not a run folder"),
        (["train", "--data", "{store}", "--out", "{tmp}/x", "--init", "{run}", "--fold", "0"], 3,
         "of those held out now; hold out the fold that it held out, or none"),
        (["restore", "{run}", "-o", "{tmp}/x.png"], 2, "image"),
        (["restore", "{run}", "{tmp}/none.png", "-o", "{tmp}/x.png"], 3, "no such file"),
        (["restore", "{tmp}", "{png}", "-o", "{tmp}/x.png"], 3, "not a run folder"),
        (["restore", "{run}", "{png}", "-o", "{tmp}/x.gif"], 2, ".png, .npy, .nii or .nii.gz"),
        (["restore", "{run}", "{png}", "-o", "{png}"], 2, "is the input"),
        (["restore", "{run}", "{npy}", "-o", "{tmp}/x.png"], 3,
         "got 3 acquired slices; choose one with --slice 0 to 2, or restore all of them with -o NAME.npy or -o NAME.nii.gz"),
        (["restore", "{run}", "{npy}", "-o", "{tmp}/x.png", "--slice", "3"], 3, "there are 0 to 2"),
        (["restore", "{run}", "{npy}", "-o", "{tmp}/x.nii", "--plane", "coronal"], 3, "choose from acquired"),
        (["restore", "{run}", "{npy}", "-o", "{tmp}/x.nii", "--limit", "2"], 2, "--limit are of a pairs store"),
        (["restore", "{run}", "{npy}", "-o", "{tmp}/stack.npy", "--samples", "2"], 2, "is the input"),
        (["restore", "{run}", "{store}", "-o", "{tmp}/r", "--slice", "2"], 2, "of a volume, got a pairs store"),
        (["restore", "{run}", "{png}", "-o", "{tmp}/x.png", "--steps", "11"], 2, "between 1 and 10"),
        (["restore", "{run}", "{store}", "-o", "{store}"], 2, "is an input"),
        (["restore", "{run}", "{store}", "-o", "{run}/samples"], 2, "lies in one"),
        (["evaluate", "{run}", "-o", "{tmp}/t.md"], 2, "--data STORE, --real FOLDER or --lesions N"),
        (["evaluate", "{run}", "--data", "{store}", "-o", "{tmp}/t.CSV"], 2, "CSV and PNG go beside it"),
        (["evaluate", "{run}", "--data", "{store}", "-o", "{tmp}/t.md", "--torch-model", "net={tmp}/t.csv"], 2,
         "is the input"),
        (["drus", "{npy}", "-o", "{tmp}/x.json"], 2, "picture name"),
        (["drus", "{png}", "-o", "{png}"], 2, "is the input"),
        (["drus", "{json}", "-o", "{tmp}/recording.png"], 2, "is the input"),
        (["evaluate", "{run}", "--data", "{store}", "-o", "{tmp}/t.md", "--torch-model", "x"], 2, "NAME=FILE"),
        (["evaluate", "{run}", "--data", "{store}", "-o", "{tmp}/t.md", "--onnx-model", "x"], 2, "--onnx-model: expe"),
        (["evaluate", "{run}", "--data", "{store}", "-o", "{tmp}/t.md", "--onnx-model", "x=x.pt"], 2, "a file .onnx"),
        (["export", "{run}", "-o", "{tmp}/x.pt"], 2, "ends in .onnx"),
        (["export", "{png}", "-o", "{tmp}/x.onnx"], 3, "not a run folder"),
        (["export", "{run}", "-o", "{tmp}/x.onnx", "--steps", "11"], 2, "between 1 and 10"),
        (["evaluate", "{run}", "--data", "{store}", "-o", "{tmp}/t.md"], 3, "trained on subject"),
        (["evaluate", "{run}", "--data", "{store}", "--fold", "1", "-o", "{tmp}/t.md", "--lpips-backbone", "x.pth"], 3,
         "x.pth"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line_and_a_code(trained, store, tmp_path, capsys, arguments, code, said):
    png = tmp_path / "image.png"
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(png)
    npy = tmp_path / "stack-variance.npy"
    np.save(npy, np.zeros((3, 32, 32), np.uint8))
    (tmp_path / "recording.json").write_text("{}")
    places = {
        "json": tmp_path / "recording.json",
        "tmp": tmp_path,
        "store": store,
        "run": trained,
        "png": png,
        "npy": npy,
    }
    capsys.readouterr()
    assert run([a.format(**places) for a in arguments]) == code
    message = capsys.readouterr().err.strip().splitlines()
    assert said in message[-1]
    assert "Traceback" not in "".join(message)
    assert not (tmp_path / "x").exists()  # nothing is left of a run that did not begin


def test_restore_png_and_npy(trained, tmp_path, capsys):
    lq = SpecklePairs(n=1)[0][1]
    np.save(tmp_path / "lq.npy", lq)
    Image.fromarray(np.round(lq * 255).astype(np.uint8)).save(tmp_path / "lq.png")
    for name in ("lq.npy", "lq.png"):
        out = tmp_path / f"clean-{name}"
        assert run(["restore", str(trained), str(tmp_path / name), "-o", str(out), "--steps", "3"]) == 0
        assert str(out) in capsys.readouterr().out
    clean = np.load(tmp_path / "clean-lq.npy")
    assert clean.shape == lq.shape
    assert np.abs(clean - np.asarray(Image.open(tmp_path / "clean-lq.png")) / 255).mean() < 0.05


def test_restore_reads_dicom_and_nifti(trained, tmp_path, shared):
    nifti = shared / "data" / "mri_nifti" / "abdomen_totalseg_example_mr_3mm.nii.gz"
    dicom = sorted((shared / "data" / "mri_dicom" / "knee_mese_te1").glob("*.dcm"))[0]
    for source, options in ((nifti, ["--slice", "3"]), (dicom, [])):
        out = tmp_path / "out.npy"
        assert (
            run(["restore", str(trained), str(source), "-o", str(out), "--steps", "1", "--tile", "64", *options]) == 0
        )
        assert np.load(out).ndim == 2


def test_restore_with_samples_writes_variance_and_uncertainty(trained, tmp_path):
    np.save(tmp_path / "lq.npy", SpecklePairs(n=1)[0][1])
    arguments = ["restore", str(trained), str(tmp_path / "lq.npy"), "-o", str(tmp_path / "c.png"), "--steps", "2"]
    assert run([*arguments, "--samples", "3"]) == 0
    assert np.load(tmp_path / "c-variance.npy").max() > 0
    assert (tmp_path / "c-uncertainty.png").exists()


def test_restore_with_several_runs_is_an_ensemble(trained, store, tmp_path):
    assert train(store, tmp_path / "b", "--seed", "1") == 0
    np.save(tmp_path / "lq.npy", SpecklePairs(n=1)[0][1])
    arguments = [str(trained), str(tmp_path / "b"), str(tmp_path / "lq.npy"), "-o", str(tmp_path / "c.npy")]
    assert run(["restore", *arguments, "--steps", "2", "--sampler", "ddim"]) == 0
    assert np.load(tmp_path / "c-variance.npy").max() > 0


def test_restore_a_volume_and_one_of_its_slices(trained, tmp_path, capsys):
    volume = trees.write_nifti(tmp_path / "v.nii.gz", "PIL", shape=(8, 32, 24), spacing=(6.0, 1.6, 1.6))
    arguments = ["restore", str(trained), str(volume), "--steps", "2", "--samples", "2", "-o"]
    assert run([*arguments, str(tmp_path / "clean.nii.gz")]) == 0
    said = capsys.readouterr()
    assert said.out == f"{tmp_path / 'clean.nii.gz'}\n"
    assert "8 coronal slices of 32 x 24 pixels; 0 and 1 are" in said.err
    assert "restoring: 16/16" in said.err
    before, clean, variance = (nib.load(tmp_path / f"{name}.nii.gz") for name in ("v", "clean", "clean-variance"))
    assert clean.shape == variance.shape == before.shape
    np.testing.assert_allclose(clean.affine, before.affine, atol=1e-5)  # float32 in the file
    assert variance.get_fdata().max() > 0

    assert run([*arguments, str(tmp_path / "clean.npy")]) == 0
    stack = np.load(tmp_path / "clean.npy")
    assert stack.shape == np.load(tmp_path / "clean-variance.npy").shape == (8, 32, 24)
    assert run([*arguments, str(tmp_path / "one.npy"), "--slice", "3"]) == 0
    np.testing.assert_allclose(np.load(tmp_path / "one.npy"), stack[3], atol=1e-4)  # sums in another order: 2e-7 seen


def test_restore_reads_a_series_and_a_multi_frame_file(trained, tmp_path):
    trees.write_series(tmp_path / "s", n_slices=2)
    trees.write_enhanced(tmp_path / "e.dcm", n_slices=3)
    for source, shape in (("s", (64, 64, 2)), ("e.dcm", (64, 64, 3))):
        assert (
            run(["restore", str(trained), str(tmp_path / source), "-o", str(tmp_path / "o.nii"), "--steps", "1"]) == 0
        )
        assert nib.load(tmp_path / "o.nii").shape == shape


def test_restore_a_store_into_a_folder(trained, store, tmp_path):
    arguments = ["restore", str(trained), str(store), "-o", str(tmp_path / "r"), "--steps", "1", "--limit", "2"]
    assert run(arguments) == 0
    assert sorted(p.name for p in (tmp_path / "r").iterdir()) == ["000000.png", "000001.png"]


def test_a_store_with_samples_is_restored_in_batches_and_summed_up(trained, store, tmp_path, capsys, monkeypatch):
    import irsde.sample

    sizes = []
    together = irsde.sample.restore_batch
    monkeypatch.setattr(
        irsde.sample,
        "restore_batch",
        lambda model, images, *a, **k: sizes.append(len(images)) or together(model, images, *a, **k),
    )
    arguments = ["restore", str(trained), str(store), "--steps", "1", "--samples", "2", "-o"]
    assert run([*arguments, str(tmp_path / "r"), "--tile", "128"]) == 0  # four images of 64 x 64 fill a tile
    assert sizes == [4, 4]
    lines = capsys.readouterr().err.splitlines()
    assert lines[0][9:].startswith("restoring: 8/8")
    assert lines[1] == "4 images restored"
    assert re.fullmatch(
        r"largest standard deviation over 2 members, of an image: median \S+, at most \S+ \(00000\d\.png\)", lines[2]
    )
    assert len(lines) == 3
    assert run([*arguments, str(tmp_path / "one"), "--tile", "64"]) == 0
    assert sizes[2:] == [1] * 8
    names = sorted(path.name for path in (tmp_path / "r").iterdir())
    assert len(names) == 12
    for name in names:  # the same noise for the same image, alone or among others; sums in another order
        if name.endswith(".npy"):
            np.testing.assert_allclose(np.load(tmp_path / "r" / name), np.load(tmp_path / "one" / name), atol=1e-5)


def test_a_full_disk_names_the_restored_image(trained, store, tmp_path, capsys, monkeypatch):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    np.save(tmp_path / "lq.npy", SpecklePairs(n=1)[0][1])
    monkeypatch.setattr(np, "save", full)
    monkeypatch.setattr(Image.Image, "save", full)
    for source, target, named in (
        ("lq.npy", "c.npy", "c.npy"),
        ("lq.npy", "c.png", "c.png"),
        (store, "r", "r/000000.png"),
    ):
        arguments = ["restore", str(trained), str(tmp_path / source), "-o", str(tmp_path / target), "--steps", "1"]
        assert run(arguments) == 3
        assert f"{tmp_path / named}: no space left on device" in capsys.readouterr().err
        assert not (tmp_path / named).exists()


def test_restoring_a_store_never_sees_its_hq_images(trained, store, tmp_path, monkeypatch):
    """HQ images changed past recognition; what is written does not change by a bit."""

    class Spoiled(SpecklePairs):
        def __getitem__(self, i):
            hq, lq = super().__getitem__(i)
            return np.flip(1 - hq), lq

    written = []
    for name, kind in (("before", SpecklePairs), ("after", Spoiled)):
        pairs = kind(n=2)
        monkeypatch.setattr(datagen, "open_pairs", lambda url, probe=None, pairs=pairs: pairs)
        out = tmp_path / name
        assert run(["restore", str(trained), str(store), "-o", str(out), "--steps", "2", "--samples", "2"]) == 0
        written.append({path.name: path.read_bytes() for path in out.iterdir()})
    assert len(written[0]) == 6  # mean, variance and standard deviation of two images
    assert written[0] == written[1]


def test_evaluate_writes_its_table(trained, store, tmp_path, capsys):
    out = tmp_path / "table.md"
    arguments = ["evaluate", str(trained), "--data", str(store), "--probe", "L11-5v", "--probe", "C5-2v", "--fold", "1"]
    assert run([*arguments, "-o", str(out), "--steps", "3", "--steps", "1", "--limit", "1", "--no-baselines"]) == 0
    assert str(out) in capsys.readouterr().out
    text = out.read_text()
    assert "## L11-5v: 1 images" in text
    assert "## C5-2v: 1 images" in text
    assert "| a | 1 |" in text


def test_evaluate_runs_without_a_model(store, tmp_path):
    arguments = ["evaluate", "--data", str(store), "-o", str(tmp_path / "t.md"), "--limit", "1", "--probe", "L11-5v"]
    assert run(arguments) == 0
    assert "| SRAD |" in (tmp_path / "t.md").read_text()


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from irsde.cli import run; codes = [run([*c, '--help']) for c in ([], ['train'], ['restore'], "
        "['evaluate'], ['export'], ['drus'], ['drus-train'])]; "
        "heavy = {'torch', 'diffusers', 'numpy', 'scipy', 'matplotlib'}; "
        "print(codes, heavy & set(sys.modules))"
    )
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip().endswith("[0, 0, 0, 0, 0, 0, 0] set()"), done.stdout[-300:] + done.stderr[-300:]
