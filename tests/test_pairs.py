"""One image to one pair: what noise, gain, attenuation and a wrong speed of sound do, and what they leave alone."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

import datagen
import ussim
from datagen.make.pairs import Settings, make_imager, probe_seed, simulate_pair
from datagen.plan.randomize import Ranges

SETTINGS = Settings(
    probe=ussim.load_probe("P4-2v"), engine="cpu", size=48, n_transmits=3, mean_distance_wavelengths=2.0
)


def pair(hq=None, seed=0, **changes):
    hq = np.full((48, 48), 200, np.uint8) if hq is None else hq
    return simulate_pair(hq, make_imager(dataclasses.replace(SETTINGS, **changes)), seed)


@pytest.fixture(scope="module")
def plain():
    return pair().lq


def test_the_same_seed_gives_the_same_bytes(plain):
    assert (pair().lq == plain).all()
    assert (pair(seed=1).lq != plain).any()


def test_the_brightest_pixel_is_white_and_dark_tissue_is_darker():
    hq = np.full((48, 48), 230, np.uint8)
    hq[:, :24] = 90
    lq = pair(hq).lq
    assert lq.max() == 255
    # 140 grey levels of 255 are 22 dB of 40; speckle is averaged over half an image.
    assert lq[8:, 30:44].mean() - lq[8:, 4:18].mean() > 90


def test_little_noise_moves_no_scatterer(plain):
    noisy = pair(snr_db=60.0).lq.astype(int)
    assert (noisy != plain).any()
    assert np.abs(noisy - plain)[plain > 80].max() < 26  # 60 dB below the echoes: tenths of a dB on what is bright


def test_strong_noise_fills_the_black():
    hq = np.zeros((48, 48), np.uint8)
    hq[20:28, 20:28] = 255
    quiet, loud = pair(hq).lq, pair(hq, snr_db=-20.0).lq
    assert loud[:, :10].mean() > quiet[:, :10].mean() + 30


def test_time_gain_undoes_attenuation(plain):
    def far_over_near(lq):
        return lq[36:].mean() - lq[:12].mean()

    lost = pair(attenuation_db_cm_mhz=0.5).lq
    mended = pair(attenuation_db_cm_mhz=0.5, tgc=True).lq
    # 2 x 4 cm at 2.7 MHz and 0.5 dB/cm/MHz: 11 dB, 70 grey levels; what the pulse loses of its top is not given back.
    assert far_over_near(lost) < far_over_near(plain) - 40
    assert abs(far_over_near(mended) - far_over_near(plain)) < 20


def test_a_wrong_speed_of_sound_shifts_depth():
    hq = np.zeros((48, 48), np.uint8)
    hq[22:26, 22:26] = 255

    def depth(lq):
        weights = 10 ** (40 / 10 * (lq / 255.0 - 1))  # power
        return (weights.sum(axis=1) * np.arange(48)).sum() / weights.sum()

    def shift(seed):
        dense = {"seed": seed, "mean_distance_wavelengths": 0.7}
        return depth(pair(hq, speed_of_sound_error=0.05, **dense).lq) - depth(pair(hq, **dense).lq)

    imager = make_imager(SETTINGS)
    expected = 0.05 * imager.grid.z[24] / (imager.grid.z[1] - imager.grid.z[0])  # an echo is taken for 5 % deeper
    # Speckle moves the center of a target by some tenths of a pixel: the mean of four is within 0.2 of what is expected.
    assert abs(np.mean([shift(seed) for seed in range(4)]) - expected) < 0.4


def test_a_coarse_field_is_nearly_the_exact_one():
    imager = make_imager(
        dataclasses.replace(SETTINGS, size=96, transmit="plane", max_angle_deg=2.0)
    )  # leaves corners dark
    exact, coarse = imager.mask(), imager.mask(4)
    assert 0.1 < exact.mean() < 0.95
    assert (exact != coarse).mean() < 0.03  # along the edges


def test_drawn_settings_are_what_is_simulated():
    ranges = Ranges(center_frequency_fraction=(0.05, 0.05), bandwidth_fraction=(-0.1, -0.1), f_number=(2, 2))
    drawn = SETTINGS.with_drawn(ranges.draw(np.random.default_rng(0)))
    assert drawn.probe.center_frequency == pytest.approx(1.05 * SETTINGS.probe.center_frequency)
    assert drawn.probe.bandwidth == pytest.approx(0.9 * SETTINGS.probe.bandwidth)
    assert drawn.f_number == 2
    assert drawn.transmit == SETTINGS.transmit


def test_each_probe_has_a_stream_of_its_own():
    pairs = [(seed, name) for seed in (0, 1, 2) for name in ussim.probe_names()]
    assert len({probe_seed(*pair) for pair in pairs}) == len(pairs)
    assert all(probe_seed(*pair) == probe_seed(*pair) for pair in pairs)


def test_what_modules_say_of_themselves_is_so():
    """`make.pairs`: the only module that simulates; `store.torch_data`: torch is imported there and in `plan.segment`."""
    root = Path(datagen.__file__).parent
    sources = {path.relative_to(root).as_posix(): path.read_text(encoding="utf-8") for path in root.rglob("*.py")}

    def found(pattern):
        return {name for name, source in sources.items() if re.search(pattern, source, re.MULTILINE)}

    assert "the only module that simulates" in sources["make/pairs.py"].splitlines()[0]
    assert found(r"ussim\.(simulate\w*|demodulate|delay_and_sum|envelope_image)\(") == {"make/pairs.py"}
    assert "imports torch but the" in sources["store/torch_data.py"]
    assert found(r"^\s*(import|from) (torch|torchvision)\b") == {"store/torch_data.py", "plan/segment.py"}


def test_a_wrong_image_is_refused():
    with pytest.raises(ValueError, match="expected uint8 of shape"):
        pair(np.zeros((48, 47), np.uint8))
    with pytest.raises(ValueError, match="expected uint8"):
        pair(np.zeros((48, 48)))
