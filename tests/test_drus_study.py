"""The numerical study of the DRUSvar paper, as `benchmarks/drus_study.py` runs it."""

import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from conftest import REPOSITORY  # noqa: E402

from irsde import drus  # noqa: E402
from irsde.drus import phantoms  # noqa: E402

sys.path.append(str(REPOSITORY / "benchmarks"))
import drus_separable as study  # noqa: E402


@pytest.mark.parametrize("taps", [7, 6])
def test_observations_of_the_study_are_the_papers(taps):
    config = study.StudyConfig(n=256, taps=taps)
    echo = phantoms.occlusion(phantoms.paper_grid()).map(phantoms.paper_grid())
    noises = []
    for realization, level in ((0, 0.02), (0, 0.35), (1, 0.35)):
        operator, reflectivity, y, noise_std = study.observe(config, realization, level)
        assert np.abs(reflectivity).max() == pytest.approx(4)  # not in [-1, 1]: the exponent's scale matters
        assert not reflectivity[echo == 0].any()
        assert 0.8 < reflectivity[echo == 1].std() < 1.05  # 4 over the largest of 48,000 normals
        clean = operator.apply(torch.as_tensor(reflectivity, dtype=torch.float32)).numpy()
        assert 0.195 < clean.std() / np.abs(clean).max() < 0.225
        assert noise_std == pytest.approx(level * np.abs(clean).max(), rel=1e-6)
        noises.append((y - clean) / noise_std)
    assert noises[0].std() == pytest.approx(1, abs=0.01)
    for noise in noises[1:]:  # one noise for all levels and realisations
        np.testing.assert_allclose(noise, noises[0], atol=1e-4)


def test_study_orders_the_methods():
    config = study.StudyConfig(levels=(0.08,), n_realizations=1, n=80, n_samples=6, steps=25)
    entry = study.run(config, drus.LocalVariancePrior())["curves"][0]["methods"]
    contrast = [entry[method]["gCNR"]["mean"] for method in study.METHODS]
    assert contrast == sorted(contrast)  # |y| < DRUSmean < DRUSvar
    assert entry["DRUSvar"]["SNR"]["mean"] > entry["DRUSmean"]["SNR"]["mean"]
    targets = study.StudyConfig(layout="scatterers", levels=(0.018,), n_realizations=1, n=80, n_samples=2, steps=5)
    assert study.run(targets, drus.LocalVariancePrior())["curves"][0]["methods"]["y"]["lateral FWHM [mm]"]["n"] > 0


def test_spread_of_the_samples_grows_with_echogenicity():
    fit = study.fit_beta(0.08, drus.LocalVariancePrior(), n=64, n_strips=4)
    assert fit["sd"] == sorted(fit["sd"], reverse=True)
    assert (
        0.2 < fit["beta"] < 2
    )  # a regime, not a law: between 0 and 1 for an exact denoiser, more where dark is emptied
