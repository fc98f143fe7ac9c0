"""The README's Python runs as it stands, and its pictures and links are there."""

import re
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_simulation_example():
    names = {}
    exec(BLOCKS[0], names)
    bmode, grid = names["bmode"], names["grid"]
    assert bmode.shape == (256, 256)
    x, z = grid.mesh()
    cyst = np.hypot(x, z - 25e-3) < 4e-3
    ring = (np.hypot(x, z - 25e-3) > 6e-3) & (np.hypot(x, z - 25e-3) < 10e-3)
    assert bmode[cyst].mean() < bmode[ring].mean() - 0.3  # a cyst is dark


def test_dataset_example(tmp_path, monkeypatch):
    import nibabel

    monkeypatch.chdir(tmp_path)
    (tmp_path / "mri").mkdir()
    row, column = np.mgrid[:64, :64]
    head = (1000 * (np.hypot(row - 32, column - 32) < 28)).astype(np.int16)
    head[20:30, 20:30] = 400
    volume = nibabel.Nifti1Image(np.repeat(head[:, :, None], 2, axis=2), np.diag([2.0, 2.0, 5.0, 1.0]))
    nibabel.save(volume, tmp_path / "mri" / "head.nii.gz")
    names = {}
    exec(BLOCKS[1], names)
    assert names["hq"].shape == names["lq"].shape == (256, 256)
    assert 0 <= names["lq"].min() < names["lq"].max() <= 1


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\((?!http)([^)#]+)\)", README))))
def test_local_links_lead_somewhere(target):
    assert (REPOSITORY / target).exists()
