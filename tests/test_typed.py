"""What a type checker sees of the packages: a user's script is checked strictly, and no name of ours is Any to it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SCRIPT = """
from pathlib import Path

import numpy as np

import datagen
import irsde
import ussim

probe = ussim.load_probe("L11-5v")
acquisition = ussim.Acquisition(probe, ussim.PlaneWaves(np.array([0.0, 0.1])), ussim.Medium(1540.0, 0.5))
grid = ussim.ImageGrid.for_acquisition(acquisition, (64, 64))
phantom = ussim.phantoms.cysts()
scatterers = ussim.scatterers_from_image(phantom.image(), grid, acquisition, seed=0)
rf = ussim.simulate(scatterers, acquisition)
iq = ussim.demodulate(rf)
image = ussim.delay_and_sum(iq, grid)
grey = ussim.log_compress(image, 40.0)
field = ussim.pressure_field(acquisition, grid)
operator = ussim.imaging_operator(acquisition, grid)
back = operator.adjoint(rf)
waves = ussim.focused_scan(probe, 0.03)
names = ussim.probe_names()
recording = ussim.load_channel_data("echoes.npz")

recipe = datagen.Recipe(source="demo", probes=("L11-5v",))
summary = datagen.build(recipe, "pairs.zarr")
pairs = datagen.open_pairs("pairs.zarr")
fold = pairs.fold(0)
pair = pairs[0]
n_pairs = len(pairs)
sources = datagen.source_names()
source = datagen.get_source("demo")
ranges = datagen.Ranges()
probes = pairs.probes
resolved = recipe.resolve("cpu")

config = irsde.TrainConfig(store="pairs.zarr")
model = irsde.load("runs/a")
clean = irsde.restore(model, np.zeros((64, 64)), steps=5)
samples = irsde.draw_samples(model, np.zeros((64, 64)), 3)
mean, variance = irsde.ensemble([model, model], np.zeros((64, 64)))
sde = irsde.IRSDE()
times = sde.timesteps(5)
sampling = irsde.Sampling(5, "ddim")
score = irsde.metrics.psnr(clean, clean)
layer = irsde.ImagingLayer(operator)
network = irsde.build_network(config)
trained = irsde.train(config, Path("runs/b"))
"""
# Only of what we return: NumPy's own types say Any of an array's shape and dtype.
ARRAYS = re.compile(r"numpy\.ndarray\[[^\"]*\]|numpy\._typing[^\"]*|dict\[str, Any\]")


@pytest.mark.slow
def test_a_strictly_checked_script_sees_no_any(tmp_path):
    found = re.findall(r"^(\w+(?:, \w+)*) = ", SCRIPT, re.MULTILINE)
    names = [name for group in found for name in group.split(", ")]
    assert len(names) > 30
    script = tmp_path / "script.py"
    script.write_text(SCRIPT + "\n".join(f"reveal_type({name})" for name in names))
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--ignore-missing-imports"]
    checked = subprocess.run(
        [*command, f"--cache-dir={tmp_path / 'cache'}", str(script)],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "MYPYPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    lines = checked.stdout.splitlines()
    errors = [line for line in lines if ": error:" in line]
    assert not errors, "\n".join(errors)
    revealed = [found[1] for line in lines if (found := re.search(r'Revealed type is "(.*)"', line))]
    assert len(revealed) == len(names)
    for name, kind in zip(names, revealed, strict=True):
        assert "Any" not in ARRAYS.sub("", kind), (name, kind)
