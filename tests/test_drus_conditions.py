"""What is known of a recording's physics: by its file, by the user, from the echoes; and the field it is imaged on."""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
h5py = pytest.importorskip("h5py")

import ussim  # noqa: E402
from irsde import drus  # noqa: E402
from irsde.drus import acoustics, conditions, ddrm, imaging, recordings, regions  # noqa: E402
from irsde.drus.attenuation import estimate_attenuation  # noqa: E402
from irsde.drus.build import acquisition_digest  # noqa: E402
from irsde.drus.conditions import Asked  # noqa: E402

PROBE = replace(ussim.load_probe("L11-4v"), n_elements=64)
FIELD = ussim.ImageGrid(x=np.linspace(-8e-3, 8e-3, 72), z=10e-3 + 0.1109e-3 * np.arange(236))
CHANNEL_NOISE = 0.01  # of the rms


def speckle(attenuation, x=8e-3, discs=True, n=14_000, below=1.0):
    """RF of even speckle 8 to 38 mm deep with two discs, about 4 scatterers a resolution cell, in a lossy medium; what is
    deeper than 23 mm times `below`."""
    rng = np.random.default_rng(1)
    points = rng.uniform([-x - 1e-3, 8e-3], [x + 1e-3, 38e-3], (n, 2))
    reflectivity = rng.standard_normal(n)
    for center in ((0.0, 15e-3), (0.0, 30e-3)) if discs else ():
        reflectivity[np.hypot(*(points - center).T) < 2e-3] = 0
    reflectivity[points[:, 1] > 23e-3] *= below
    medium = ussim.Medium(1540.0, attenuation)
    acquisition = ussim.Acquisition(PROBE, ussim.PlaneWaves(0.0, time_reference="center"), medium, n_cycles=2.5)
    rf = ussim.simulate(ussim.Scatterers(*points.T, reflectivity), acquisition, n_samples=1250)
    noise = CHANNEL_NOISE * rf.samples.std() * rng.standard_normal(rf.samples.shape, dtype=np.float32)
    return replace(rf, samples=rf.samples + noise)


@pytest.fixture(scope="module")
def recorded():
    """recorded(attenuation): such RF, made once."""
    made = {}

    def of(attenuation):
        if attenuation not in made:
            made[attenuation] = speckle(attenuation)
        return made[attenuation]

    return of


def unsaid(rf):
    """The same RF in a medium of which nothing is said."""
    return replace(rf, acquisition=replace(rf.acquisition, medium=ussim.Medium(1540.0)))


def picmus(rf, path, without=()):
    """The RF as PICMUS keeps it."""
    fields = {
        "data/real": rf.samples,
        "data/imag": 0 * rf.samples,
        "angles": [0.0],
        "sampling_frequency": [rf.sampling_frequency],
        "sound_speed": [1540.0],
        "initial_time": [float(rf.start_time)],
        "modulation_frequency": [0.0],
        "probe_geometry": np.stack([PROBE.element_x, 0 * PROBE.element_x, PROBE.element_z]),
    }
    with h5py.File(path, "w") as file:
        for name, values in fields.items():
            if name not in without:
                file[f"US/US_DATASET0000/{name}"] = values
    return path


def must(rf, path, **more):
    """The RF as MUST's examples keep it."""
    from scipy.io import savemat

    param = {"fs": rf.sampling_frequency, "fc": PROBE.center_frequency, "pitch": PROBE.pitch, "Nelements": 64, **more}
    savemat(path, {"RF": rf.samples[0].T, "param": param})
    return path


# --- attenuation from the echoes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("attenuation", [0.0, 0.3, 0.5, 0.7])
def test_attenuation_is_found_in_the_echoes(recorded, attenuation):
    found = estimate_attenuation(unsaid(recorded(attenuation)), FIELD)
    # 150 blocks of 1 dB over 22 mm, 44 mm there and back: 0.01; edge waves and the pulse's changing color add to that.
    assert found.fit == pytest.approx(attenuation, abs=0.06)
    assert found.error < 0.1
    assert found.is_trusted


def test_what_the_acquisition_says_does_not_change_the_estimate(recorded):
    rf = recorded(0.5)
    assert estimate_attenuation(rf, FIELD) == estimate_attenuation(unsaid(rf), FIELD)


def test_echoes_that_do_not_tell_are_not_trusted():
    points = ussim.Scatterers([-3e-3, 0.0, 4e-3], [14e-3, 22e-3, 31e-3], np.ones(3))
    acquisition = ussim.Acquisition(PROBE, ussim.PlaneWaves(0.0), n_cycles=2.5)
    rf = ussim.simulate(points, acquisition, n_samples=1250)
    settled = conditions.attenuated(rf, FIELD, frozenset(), Asked())
    (fact,) = settled.facts
    assert (fact.value, fact.source) == (0.0, "default")
    assert "--attenuation" in settled.warnings[0]
    few = ussim.ImageGrid(FIELD.x[:4], FIELD.z[:4])
    assert not estimate_attenuation(rf, few).is_trusted
    silent = replace(rf, samples=np.zeros_like(rf.samples))
    assert not estimate_attenuation(silent, FIELD).is_trusted


@pytest.mark.parametrize("lower_db", [-20.0, 20.0])
def test_layers_that_differ_are_not_taken_for_attenuation(lower_db):
    """A step of 20 dB over 22 mm would pass for 0.9 dB/cm/MHz, the same in every strip along x."""
    rf = speckle(0.0, discs=False, below=10 ** (lower_db / 20))
    assert not estimate_attenuation(rf, FIELD).is_trusted


@pytest.mark.parametrize("kind", ["picmus", "must", "must that states it", "npz"])
def test_attenuation_of_every_kind_of_file(recorded, kind, tmp_path):
    rf = recorded(0.5)
    path = {
        "picmus": lambda: picmus(rf, tmp_path / "a.hdf5"),
        "must": lambda: must(rf, tmp_path / "a.mat"),
        "must that states it": lambda: must(rf, tmp_path / "a.mat", attenuation=0.5, t0=0.0),
        "npz": lambda: rf.save(tmp_path / "a.npz") or tmp_path / "a.npz",
    }[kind]()
    found = recordings.open_recording(path)
    states = kind in ("must that states it", "npz")
    assert (recordings.ATTENUATION in found.stated) == states
    if kind == "must":
        assert recordings.TIME_ZERO not in found.stated
        assert any("bandwidth 75 %" in words for words in found.assumed)
    if kind == "picmus":
        assert any("2.5 cycles" in words for words in found.assumed)
    asked = conditions.attenuated(found.rf, FIELD, found.stated, Asked(attenuation_db_cm_mhz=0.4))
    assert asked.rf.acquisition.medium.attenuation_db_cm_mhz == 0.4
    assert asked.facts[0].source == "option"
    settled = conditions.attenuated(found.rf, FIELD, found.stated, Asked())
    fact = settled.facts[0]
    assert fact.source == ("file" if states else "estimate")
    # A .mat says nothing of the pulse (2.5 cycles here, 1 by default), whose band the estimate goes by.
    assert fact.value == pytest.approx(0.5, abs=1e-9 if states else 0.1)
    assert settled.rf.acquisition.medium.attenuation_db_cm_mhz == fact.value
    again = conditions.attenuated(found.rf, FIELD, found.stated, Asked(estimate=True))
    assert again.facts[0].source == "estimate"


def test_a_file_that_says_0_is_held_against_the_echoes(recorded):
    stated = frozenset({recordings.ATTENUATION})
    settled = conditions.attenuated(unsaid(recorded(0.5)), FIELD, stated, Asked())
    assert settled.facts[0].value == 0
    assert settled.facts[0].source == "file"
    assert "--attenuation estimate" in settled.warnings[0]
    assert not conditions.attenuated(recorded(0.0), FIELD, stated, Asked()).warnings


# --- time gain, clock, lens ----------------------------------------------------------------------------------------------


def test_time_gain_of_the_recorder_is_taken_out(recorded):
    rf = unsaid(recorded(0.3))
    n = rf.samples.shape[-1]
    amplified = replace(rf, samples=rf.samples * np.float32(10) ** (np.linspace(0, 40, n, dtype=np.float32) / 20))
    recording = recordings.Recording(amplified, frozenset())
    settled = conditions.clocked(recording, Asked(tgc_db=40.0))
    np.testing.assert_allclose(settled.rf.samples, rf.samples, rtol=1e-5)
    # Untold, echoes rise with depth: 40 dB over 46 mm are 0.8 dB/cm/MHz.
    fooled = conditions.attenuated(amplified, FIELD, frozenset(), Asked())
    assert fooled.facts[0].value == 0
    assert "--tgc-db" in fooled.warnings[0]


def test_time_zero_and_lens_put_a_point_where_it_is(tmp_path):
    lens, late = 0.4e-6, 3e-6
    acquisition = ussim.Acquisition(PROBE, ussim.PlaneWaves(0.0, time_reference="center"), n_cycles=2.5)
    rf = ussim.simulate(ussim.Scatterers([0.0], [20e-3], [1.0]), acquisition, n_samples=900)
    file = picmus(replace(rf, start_time=0.0), tmp_path / "a.hdf5", without=("initial_time", "sound_speed"))
    found = recordings.open_picmus(file)
    assert recordings.TIME_ZERO not in found.stated
    assert any("speed of sound 1540" in words for words in found.assumed)
    # A recorder that began `late` after the firing, behind a lens: the same echoes, 2 lens late on a clock moved by late.
    shifted = round((late - 2 * lens) * rf.sampling_frequency)
    samples = np.roll(found.rf.samples, -shifted, axis=-1)
    late = shifted / rf.sampling_frequency + 2 * lens
    moved = recordings.Recording(replace(found.rf, samples=samples), found.stated)
    settled = conditions.clocked(moved, Asked(time_zero=late, lens_delay=lens))
    grid = ussim.ImageGrid(x=np.linspace(-1e-3, 1e-3, 11), z=20e-3 + np.linspace(-1e-3, 1e-3, 81))
    image = np.abs(ussim.delay_and_sum(ussim.demodulate(settled.rf), grid, 1.4))
    row, column = np.unravel_index(image.argmax(), image.shape)
    assert abs(1e3 * grid.z[row] - 20) < 0.05
    assert grid.x[column] == pytest.approx(0, abs=0.2e-3)
    assert {fact.name: fact.source for fact in settled.facts}["lens"] == "option"
    lines = conditions.in_lines(conditions.clocked(found, Asked()).facts, found.assumed)
    assert "--time-zero-us" in lines
    assert "--lens-us" in lines
    assert "--tgc-db" in lines
    assert "speed of sound 1540 m/s" in lines


# --- apertures and operators ---------------------------------------------------------------------------------------------


def test_window_of_das_is_tukeys():
    """The window at each pixel is what an element alone contributes there."""
    acquisition = ussim.Acquisition(PROBE, ussim.PlaneWaves(0.0))
    samples = np.zeros((1, 64, 1000), dtype=np.complex64)
    samples[0, 32] = 1
    iq = ussim.IQData(samples, acquisition, acquisition.sampling_frequency, PROBE.center_frequency)
    grid = ussim.ImageGrid(x=np.linspace(-8e-3, 8e-3, 161), z=np.array([20e-3]))
    found = imaging.windowed_das(iq, grid, 1.75)[0]
    x, z = (axis.ravel() for axis in grid.mesh())
    expected = acoustics._apodization(acquisition, x, z, 1.75)[:, 32]
    np.testing.assert_allclose(found, expected, atol=0.5 / imaging.WINDOW_STEPS + 0.02)  # stairs of so many steps
    assert found.max() == pytest.approx(1, abs=1e-5)


def test_operators_are_named_by_what_shapes_them():
    grid = ussim.ImageGrid(np.linspace(-1e-3, 1e-3, 4), np.linspace(8e-3, 10e-3, 5))
    waves = ussim.PlaneWaves([-0.1, 0.0, 0.1])
    acquisition = ussim.Acquisition(PROBE, waves)
    name = acquisition_digest(acquisition, grid, 1)
    called = replace(acquisition, probe=replace(PROBE, name="another", source="elsewhere", imaging=None))
    others = replace(acquisition, waves=ussim.CustomTransmits(acquisition.transmit_delays[1, 0]))
    assert acquisition_digest(called, grid, 1) == acquisition_digest(others, grid, 0) == name
    assert acquisition_digest(acquisition, grid, 0) != name
    assert acquisition_digest(acquisition, grid, 1, f_number=1.75) != name
    aperture = [
        (echo.apodization > 0).sum()
        for f in (1.4, 2.8)
        for echo in [acoustics.echo_model(acquisition, grid, f_number=f)]
    ]
    assert aperture[0] > 1.5 * aperture[1]
    with pytest.raises(ValueError, match="f_number"):
        drus.echo_model(acquisition, grid, f_number=0.0)


def test_attenuation_leaves_the_operators_diagonal_as_it_is():
    """B holds a time gain against the loss in H: what errs in proportion to the echoes errs alike at all depths."""
    grid = ussim.ImageGrid(np.array([-5e-3, 0.0, 5e-3]), np.linspace(10e-3, 46e-3, 13))
    diagonals = []
    for attenuation in (0.0, 0.5):
        model = acoustics.echo_model(
            ussim.Acquisition(PROBE, ussim.PlaneWaves(0.0), ussim.Medium(1540.0, attenuation), n_cycles=2.5), grid
        )
        pixels = np.arange(model.n_pixels)
        diagonals.append(np.diag(model.matrix(pixels, pixels)).reshape(grid.shape))
    change = diagonals[1] / diagonals[0]
    # 19 dB of loss from top to bottom; elements off the axis lie farther than the nearest, by which the gain goes.
    assert np.abs(20 * np.log10(change / change[0, 1])).max() < 1.0


def test_one_transmit_keeps_its_mask():
    mask = np.ones((3, 64), dtype=bool)
    mask[1, 5] = False
    acquisition = ussim.Acquisition(PROBE, ussim.PlaneWaves([-0.1, 0.0, 0.1]), receive_mask=mask)
    rf = ussim.RFData(np.zeros((3, 64, 8), np.float32), acquisition, acquisition.sampling_frequency)
    one = recordings.single(rf).acquisition
    assert one.n_transmits == 1
    np.testing.assert_array_equal(one.receiving, mask[1:2])


# --- chains --------------------------------------------------------------------------------------------------------------


def grid_of(by):
    return ussim.ImageGrid(np.arange(by.shape[1]) * 1e-4, 0.01 + np.arange(by.shape[0]) * 1e-4)


class Coupled(drus.LocalVariancePrior):
    """A prior of three channels that keeps what it was shown."""

    channels = 3

    def __init__(self):
        super().__init__()
        self.shown = []

    def denoise_coupled(self, x, sigma):
        self.shown.append(tuple(x.shape))
        return self.denoise(x.mean(dim=1), sigma)[:, None].expand_as(x)


def test_chains_are_averaged_and_coupled_by_a_network_of_as_many_channels():
    by = np.random.default_rng(0).standard_normal((24, 20)).astype(np.float32)
    operator, options = drus.operator(None, grid_of(by), "identity"), {"steps": 6, "noise_level": 0.5, "scale": 1.0}
    alone = ddrm.sample(operator, by, drus.LocalVariancePrior(), n_samples=24, **options)
    np.testing.assert_array_equal(
        alone[:2], ddrm.sample(operator, by, drus.LocalVariancePrior(), 2, chains=1, **options)
    )
    three = ddrm.sample(operator, by, drus.LocalVariancePrior(), n_samples=24, chains=3, **options)
    assert three.shape == alone.shape
    assert three.var(axis=0).mean() == pytest.approx(
        alone.var(axis=0).mean() / 3, rel=0.2
    )  # independent: 24 x 480 values
    prior = Coupled()
    together = ddrm.sample(operator, by, prior, n_samples=4, chains=3, batch_size=6, **options)
    assert together.shape == (4, 24, 20)
    assert set(prior.shown) == {(2, 3, 24, 20)}
    ddrm.sample(operator, by, prior := Coupled(), n_samples=2, chains=2, **options)
    assert not prior.shown  # two chains and three channels: each chain alone
    with pytest.raises(ValueError, match="chains"):
        ddrm.sample(operator, by, drus.LocalVariancePrior(), chains=0)


def test_noise_level_of_deno_is_the_authors_for_their_sets():
    assert imaging.authors_denoise_level("contrast_speckle_expe_dataset_rf") == 0.025
    assert imaging.authors_denoise_level("resolution_distorsion_simu_dataset_iq") == 0.11
    assert imaging.authors_denoise_level("carotid_long_expe_dataset_rf") == 0.05
    assert imaging.authors_denoise_level("twin") is None


# --- field and counts ----------------------------------------------------------------------------------------------------

DISCS = np.array([[-0.1e-3, 14.9e-3], [-0.1e-3, 42.8e-3]])


def phantom():
    return recordings.PicmusPhantom(
        occlusions=DISCS,
        occlusion_radii=np.full(2, 2.25e-3),
        roi_centers=np.array([[-8e-3, 21e-3], [8e-3, 21e-3], [0.0, 36e-3]]),
        roi_sizes=np.broadcast_to([4.96e-3, 2.64e-3], (3, 2)),
        targets=np.zeros((0, 2)),
        lateral_resolution=0.62e-3,
    )


def silence(n_samples, start_time=0.0):
    acquisition = ussim.Acquisition(ussim.load_probe("L11-4v"), ussim.PlaneWaves(0.0))
    samples = np.zeros((1, 128, n_samples), np.float32)
    return ussim.RFData(samples, acquisition, acquisition.sampling_frequency, start_time)


def test_default_field_is_the_authors_and_holds_both_discs():
    rf = silence(1400)  # 52 mm
    shape = imaging.default_shape(rf)
    case = imaging.recording_case("twin", rf, phantom(), shape)
    np.testing.assert_allclose(1e3 * case.grid.z[[0, -1]], [10, 46], atol=0.12)  # to a pixel
    np.testing.assert_allclose(1e3 * case.grid.x[[0, -1]], [-18, 18], atol=0.23)
    rng = np.random.default_rng(0)
    images = {"a": np.abs(rng.standard_normal(shape)), "b": np.abs(rng.standard_normal(shape))}
    scores = imaging.score(case, images)
    table = imaging.score_table(scores)
    assert "gCNR (2 of 2 discs)" in table
    assert "SNR (3 of 3 regions)" in table
    assert imaging.unscored(scores) == []


def test_field_is_no_deeper_than_the_recording():
    rf = silence(600, 5e-6)  # 3.85 mm to 26.0 mm
    case = imaging.recording_case("short", rf, None, imaging.default_shape(rf))
    assert 1e3 * case.grid.z[0] == pytest.approx(3.9, abs=0.2)
    assert 1e3 * case.grid.z[-1] == pytest.approx(26.0, abs=0.2)
    fine = replace(rf.acquisition, probe=replace(rf.acquisition.probe, center_frequency=20e6), sampling_frequency=80e6)
    many = imaging.default_shape(ussim.RFData(np.zeros((1, 128, 6000), np.float32), fine, 80e6))
    assert np.prod(many) <= imaging.MOST_PIXELS


def test_field_about_a_given_depth_stays_within_the_recording():
    rf = silence(1400)  # 51.8 mm
    for middle, depth in ((15e-3, 30e-3), (28e-3, 36e-3), (45e-3, 13.5e-3)):
        grid = imaging.recording_case("near", rf, None, imaging.default_shape(rf, middle), middle).grid
        assert grid.z[-1] - grid.z[0] == pytest.approx(depth, abs=0.5e-3)
        assert imaging.unrecorded(rf, grid) == ""
    shallow = imaging.phantom_shape(rf.acquisition, 15e-3)
    assert imaging.imaging_grid(rf.acquisition, shallow, 15e-3).z[0] > 0
    assert imaging.phantom_shape(rf.acquisition) == imaging.field_shape(rf.acquisition, *imaging.FIELD)


def test_field_beyond_the_recording_is_said():
    rf = silence(600, 5e-6)  # 3.85 mm to 26.0 mm
    for middle, rows in ((28e-3, 100), (14e-3, 240)):
        words = imaging.unrecorded(rf, imaging.imaging_grid(rf.acquisition, (rows, 40), middle))
        assert "from 3.9 to 26.0 mm" in words


def test_what_lies_outside_the_field_is_counted():
    rf = silence(1400)
    case = imaging.recording_case("twin", rf, phantom(), (256, 128), 26e-3)  # 12 to 40 mm: the upper disc alone
    scores = imaging.score(case, {"a": np.abs(np.random.default_rng(0).standard_normal(case.grid.shape))})
    assert "gCNR (1 of 2 discs)" in imaging.score_table(scores)
    assert imaging.unscored(scores) == ["1 of 2 discs"]
    none = imaging.recording_case("twin", rf, phantom(), (40, 40), 28e-3)
    scores = imaging.score(none, {"a": np.ones(none.grid.shape)})
    assert "n/a" in imaging.score_table(scores)
    assert "2 of 2 discs" in imaging.unscored(scores)
    points = imaging.Case("p", rf, case.grid, targets=np.array([[0.0, 28e-3], [0.0, 60e-3]]))
    spot = np.exp(-((case.grid.mesh()[0]) ** 2 + (case.grid.mesh()[1] - 28e-3) ** 2) / (2 * 0.3e-3**2))
    assert "(1 of 2 points)" in imaging.score_table(imaging.score(points, {"DAS": spot}))


def test_bins_of_gcnr_are_an_option():
    case = imaging.recording_case("twin", silence(1400), phantom(), (326, 163))
    image = np.abs(np.random.default_rng(0).standard_normal(case.grid.shape))
    read = [imaging.score(case, {"a": image}, bins)["a"]["gCNR"] for bins in (regions.GCNR_BINS, 64, 256)]
    assert read[0] == read[1] < read[2]  # finer histograms overlap less
