"""Which transmits count where: foci found in firing times, beams, scan lines, compounding."""

import math
from dataclasses import replace

import numpy as np
import pytest
from test_beamform import peak_near, random_iq, relative

import ussim
from ussim.beamform import transmit_time
from ussim.beamforming.scanlines import line_weights
from ussim.beamforming.weights import beam_weights
from ussim.foci import has_foci, law_foci

MEDIUM = ussim.Medium()
DEPTHS = {"L11-5v": 24e-3, "C5-2v": 50e-3, "P4-2v": 40e-3}  # of the foci


def focused(name, n=9, f_number=None, waves="custom", spread=0.6):
    """Foci side by side, all elements on each or a walking aperture."""
    probe = ussim.load_probe(name)
    x, z = spread * probe.element_x[-1] * (np.arange(n) - (n - 1) / 2) / max((n - 1) / 2, 1), np.full(n, DEPTHS[name])
    on = np.ones((n, probe.n_elements), dtype=bool)
    if f_number is not None:
        on = np.abs(probe.element_x - x[:, None]) <= z[:, None] / (2 * f_number)
    delays = ussim.FocusedWaves(x, z).delays(probe, MEDIUM)
    if waves == "custom":
        return ussim.Acquisition(probe, ussim.CustomTransmits(np.where(on, delays, np.nan))), x, z
    return ussim.Acquisition(probe, ussim.FocusedWaves(x, z, apodization=on.astype(float))), x, z


# --- foci ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("f_number", [None, 2.5])
@pytest.mark.parametrize("name", DEPTHS)
def test_the_focus_is_found_in_the_firing_times(name, f_number):
    acquisition, x, z = focused(name, f_number=f_number)
    foci = law_foci(acquisition)[:, 0]
    assert np.abs(foci - np.stack([x, z], axis=1)).max() < 1e-9
    rounded = np.round(acquisition.transmit_delays[:, 0] * 100e6) / 100e6  # to a clock of 100 MHz
    foci = law_foci(replace(acquisition, waves=ussim.CustomTransmits(rounded)))[:, 0]
    # 5 ns is 8 um of way, and along the axis 8 um x 8 f# squared: 0.7 mm at f/3.4, an aperture cut by the array's end
    assert np.abs(foci - np.stack([x, z], axis=1)).max() < 0.7e-3


def waves_without_a_focus(probe):
    angles = np.deg2rad(np.linspace(-20, 20, 9))
    behind = np.full(5, -40e-3)
    yield ussim.PlaneWaves(angles)
    yield ussim.DivergingWaves(x=np.linspace(-5e-3, 5e-3, 5), z=behind)
    for step in (0.0, 1e-9, 1e-8):  # as given, and rounded to a clock
        for waves in (ussim.PlaneWaves(angles), ussim.DivergingWaves(x=np.linspace(-5e-3, 5e-3, 5), z=behind)):
            delays = waves.delays(probe, MEDIUM)
            yield ussim.CustomTransmits(np.round(delays / step) * step if step else delays)
    rng = np.random.default_rng(0)
    yield ussim.CustomTransmits(rng.uniform(0, 2e-6, (3, probe.n_elements)))  # coded excitation
    yield ussim.CustomTransmits(np.where(np.eye(probe.n_elements, dtype=bool), 0.0, np.nan))  # synthetic aperture
    yield ussim.CustomTransmits(np.where(np.arange(probe.n_elements) < 3, [0.0], np.nan))


@pytest.mark.parametrize("name", DEPTHS)
def test_other_waves_have_no_focus_and_count_everywhere(name):
    probe = ussim.load_probe(name)
    grid = ussim.ImageGrid(x=np.linspace(-5e-3, 5e-3, 7), z=np.linspace(5e-3, 9e-3, 5))
    for waves in waves_without_a_focus(probe):
        acquisition = ussim.Acquisition(probe, waves)
        assert not has_foci(acquisition)
        assert beam_weights(acquisition, grid) is None
        iq = random_iq(acquisition, 200)
        default = ussim.delay_and_sum(iq, grid)
        np.testing.assert_array_equal(default, ussim.delay_and_sum(iq, grid, transmit_weights=None))


@pytest.mark.parametrize("name", DEPTHS)
def test_a_walking_aperture_is_timed_as_the_focused_wave_that_it_is(name):
    """Beyond the focus too: the first arrival, of the nearer end, is up to 1 us early there."""
    grid = ussim.ImageGrid(x=np.linspace(-15e-3, 15e-3, 31), z=np.linspace(10e-3, 80e-3, 36))
    custom, focused_waves = (
        transmit_time(focused(name, 5, 2.5, kind)[0], *grid.mesh()) for kind in ("custom", "focused")
    )
    for one, other in zip(custom, focused_waves, strict=True):  # of two times 0: the first element that fires, or any
        np.testing.assert_allclose(one - one.min(), other - other.min(), atol=1e-12)


@pytest.mark.parametrize("depth", [15e-3, 24e-3, 38e-3])
def test_a_point_lands_in_its_place_under_a_walking_aperture(depth):
    acquisition, _, _ = focused("L11-5v", 3, 2.5, spread=0.05)
    scatterers = ussim.Scatterers([0.2e-3], [depth], [1.0])
    iq = ussim.demodulate(ussim.simulate(scatterers, acquisition, "cpu"))
    lateral, axial = peak_near(iq, 0.2e-3, depth)
    assert abs(lateral) <= 0.5
    assert abs(axial) <= 0.3


def test_simultaneous_foci_have_their_beams_each():
    probe = ussim.load_probe("P4-2v")
    x, z = np.array([-8e-3, 8e-3]), np.full(2, 40e-3)
    laws = ussim.FocusedWaves(x, z).delays(probe, MEDIUM)
    together = ussim.Acquisition(probe, ussim.CustomTransmits(laws[None]))
    assert np.abs(law_foci(together)[0] - np.stack([x, z], axis=1)).max() < 1e-9
    grid = ussim.ImageGrid(x=np.linspace(-15e-3, 15e-3, 61), z=np.linspace(10e-3, 80e-3, 36))
    alone = [beam_weights(ussim.Acquisition(probe, ussim.CustomTransmits(law)), grid)[0] for law in laws]
    np.testing.assert_allclose(beam_weights(together, grid)[0], np.maximum(*alone), atol=1e-6)


# --- beams -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("f_number", [None, 2.5])
@pytest.mark.parametrize("name", DEPTHS)
def test_a_beam_counts_on_its_axis_and_not_beside_its_focus(name, f_number):
    acquisition, _, z = focused(name, 1, f_number)
    grid = ussim.ImageGrid(x=np.linspace(-20e-3, 20e-3, 801), z=np.linspace(0.2, 2.2, 101) * z[0])
    weights = beam_weights(acquisition, grid)[0]
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights[:, 400], 1, atol=1e-3)  # the axis
    at_focus = weights[np.argmin(np.abs(grid.z - z[0]))]
    wavelength = 1540 / acquisition.probe.center_frequency
    assert not at_focus[np.abs(grid.x) > 8 * wavelength].any()  # 1.5 waists of at most f/2.5
    # A step of half a waist, 0.7 wavelengths x f#, takes the raised cosine over a half of its fall at most
    assert np.abs(np.diff(weights, axis=1)).max() < np.pi / 2 * 5e-5 / (0.7 * wavelength)
    assert (weights.sum(axis=1)[[0, -1]] > 3 * at_focus.sum()).all()


def test_the_edge_of_a_beam_follows_the_aperture():
    """Half the weight on the rays from the ends of the walking aperture."""
    acquisition, _, z = focused("L11-5v", 1, 2.5)
    law = acquisition.transmit_delays[0, 0]
    half = np.abs(acquisition.probe.element_x[~np.isnan(law)]).max()
    for depth in (6e-3, 50e-3):
        edge = half * abs(depth - z[0]) / z[0]
        weights = beam_weights(acquisition, ussim.ImageGrid(x=[-edge, 0.0, edge], z=[depth]))[0, 0]
        assert weights[[0, 2]] == pytest.approx(
            [0.5, 0.5], abs=0.02
        )  # the waist widens it: 0.55 mm against 3.6 and 5.2


def test_silent_transmits_count_nowhere():
    probe = ussim.load_probe("P4-2v")
    on = np.ones((2, probe.n_elements))
    on[1] = 0
    acquisition = ussim.Acquisition(probe, ussim.FocusedWaves(x=[0.0, 1e-3], z=[40e-3, 40e-3], apodization=on))
    grid = ussim.ImageGrid(x=np.linspace(-5e-3, 5e-3, 11), z=np.linspace(10e-3, 80e-3, 9))
    weights = beam_weights(acquisition, grid)
    assert weights[0].any()
    assert not weights[1].any()


def test_echoes_leave_less_clutter_beside_a_focus():
    """A point far from most foci: what its image leaves elsewhere, against its peak."""
    acquisition, _, _ = focused("L11-5v", 24, 2.5, spread=0.5)
    scatterers = ussim.Scatterers([0.0], [13e-3], [1.0])
    iq = ussim.demodulate(ussim.simulate(scatterers, acquisition, "cpu"))
    grid = ussim.ImageGrid(x=np.linspace(-6e-3, 6e-3, 121), z=np.linspace(11e-3, 20e-3, 181))
    x, z = grid.mesh()
    beside = np.hypot(x, z - 13e-3) > 2e-3

    def clutter_db(**options):
        image = np.abs(ussim.delay_and_sum(iq, grid, **options))
        return 20 * np.log10(np.sqrt((image[beside] ** 2).mean()) / image.max())

    everywhere, beam = clutter_db(transmit_weights=None), clutter_db()
    assert beam < everywhere - 6


# --- scan lines ------------------------------------------------------------------------------------------------------


def test_a_pixel_on_a_scan_line_is_that_transmits_own():
    probe = ussim.load_probe("L11-5v")
    x = 5 * probe.pitch * np.arange(-2, 3)  # between two elements, so that apertures lie evenly about their lines
    on = np.abs(probe.element_x - x[:, None]) <= 5e-3
    acquisition = ussim.Acquisition(probe, ussim.FocusedWaves(x, np.full(5, 24e-3), apodization=on.astype(float)))
    middle = (x[1] + x[2]) / 2
    grid = ussim.ImageGrid(x=[*x[:2], middle, *x[2:]], z=np.linspace(10e-3, 35e-3, 20))
    iq = random_iq(acquisition, 2000)
    lines = ussim.delay_and_sum(iq, grid, transmit_weights="line")
    alone = ussim.delay_and_sum(iq, grid, transmit_weights=None, compounding="none")
    for transmit, column in enumerate([0, 1, 3, 4, 5]):
        assert relative(lines[:, column], alone[transmit][:, column]) < 1e-6
    assert relative(lines[:, 2], (alone[1] + alone[2])[:, 2] / 2) < 1e-6


def test_line_weights_interpolate_and_end_with_the_lines():
    acquisition, x, _ = focused("P4-2v", 7, spread=0.8)  # lines from the array's middle: a sector
    grid = ussim.ImageGrid(x=np.linspace(-60e-3, 60e-3, 241), z=np.linspace(20e-3, 80e-3, 4))
    weights = line_weights(acquisition, grid)
    for row, z in enumerate(grid.z):
        lines = x * z / DEPTHS["P4-2v"]
        total = weights[:, row].sum(axis=0)
        inside = np.abs(grid.x) <= lines[-1]
        np.testing.assert_allclose(total[inside], 1, atol=1e-6)
        assert not total[np.abs(grid.x) > lines[-1] + 1.01 * (lines[1] - lines[0])].any()


def test_focal_zones_share_their_line_by_depth():
    probe = ussim.load_probe("L11-5v")
    x, z = np.repeat([-1e-3, 0.0, 1e-3], 2), np.tile([15e-3, 30e-3], 3)
    delays = ussim.FocusedWaves(x, z).delays(probe, MEDIUM)
    on = np.abs(probe.element_x - x[:, None]) <= z[:, None] / 6
    acquisition = ussim.Acquisition(probe, ussim.CustomTransmits(np.where(on, delays, np.nan)))
    weights = line_weights(acquisition, ussim.ImageGrid(x=[0.0], z=[10e-3, 20e-3, 25e-3, 40e-3]))[..., 0]
    np.testing.assert_allclose(weights[2], [1, 1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(weights[3], [0, 0, 1, 1], atol=1e-6)


@pytest.mark.parametrize("waves", [ussim.PlaneWaves([0.0, 0.1]), ussim.FocusedWaves(x=0.0, z=30e-3)])
def test_scan_lines_need_foci(waves):
    iq = random_iq(ussim.Acquisition(ussim.load_probe("P4-2v"), waves), 20)
    grid = ussim.ImageGrid(x=np.zeros(1), z=np.full(1, 20e-3))
    with pytest.raises(ValueError, match='"line" needs two scan lines at least'):
        ussim.delay_and_sum(iq, grid, transmit_weights="line")


# --- engines and compounding -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("compounding", ["coherent", "incoherent", "none"])
@pytest.mark.parametrize("weights", ["beam", "line", None, "array"])
def test_cpu_matches_the_reference(weights, compounding, normalize):
    acquisition, _, _ = focused("P4-2v", 37)  # groups of 16 and a rest
    iq = random_iq(acquisition, 500)
    grid = ussim.ImageGrid(x=np.linspace(-15e-3, 15e-3, 45), z=np.linspace(-3e-3, 60e-3, 20))
    if weights == "array":
        weights = np.random.default_rng(1).uniform(-1, 1, (37, *grid.shape))
        weights[np.abs(weights) < 0.7] = 0
        weights[:, :, :35] = 0  # tiles where nothing counts
    options = {"transmit_weights": weights, "compounding": compounding, "normalize": normalize}
    image, expected = (ussim.delay_and_sum(iq, grid, engine=engine, **options) for engine in ("cpu", "reference"))
    assert image.shape == expected.shape == ((37, *grid.shape) if compounding == "none" else grid.shape)
    assert image.dtype == (np.float32 if compounding == "incoherent" else np.complex64)
    assert expected.any()
    assert relative(image, expected) < 1e-5  # as without weights
    behind = acquisition.probe.is_behind(*grid.mesh())
    assert not image[..., behind].any()


@pytest.mark.parametrize("engine", ["cpu", "reference"])
def test_compounding_is_that_of_the_transmits_own_images(engine):
    acquisition, _, _ = focused("P4-2v", 5)
    iq = random_iq(acquisition, 500)
    rf = ussim.RFData(iq.samples.real.copy(), acquisition, iq.sampling_frequency)
    grid = ussim.ImageGrid(x=np.linspace(-15e-3, 15e-3, 20), z=np.linspace(5e-3, 60e-3, 20))
    for data in (iq, rf):
        alone = ussim.delay_and_sum(data, grid, compounding="none", engine=engine)
        assert alone.shape == (5, *grid.shape)
        assert relative(ussim.delay_and_sum(data, grid, engine=engine), alone.sum(axis=0)) < 1e-6
        everywhere = ussim.delay_and_sum(data, grid, compounding="none", transmit_weights=None, engine=engine)
        assert relative(alone, everywhere * beam_weights(acquisition, grid)) < 1e-6
    power = (np.abs(ussim.delay_and_sum(iq, grid, compounding="none", engine=engine)) ** 2).sum(axis=0)
    image = ussim.delay_and_sum(iq, grid, compounding="incoherent", engine=engine)
    assert relative(image, np.sqrt(power)) < 1e-6


@pytest.mark.parametrize("compounding", ["coherent", "incoherent", "none"])
@pytest.mark.parametrize("engine", ["cpu", "reference"])
def test_a_stack_gives_each_records_image(engine, compounding):
    acquisition, _, _ = focused("P4-2v", 3)
    records = [random_iq(acquisition, 300, seed=k) for k in range(2)]
    stack = replace(records[0], samples=np.stack([record.samples for record in records])[:, None])
    grid = ussim.ImageGrid(x=np.linspace(-15e-3, 15e-3, 20), z=np.linspace(5e-3, 15e-3, 9))
    images = ussim.delay_and_sum(stack, grid, compounding=compounding, engine=engine)
    for record, image in zip(records, images[:, 0], strict=True):
        alone = ussim.delay_and_sum(record, grid, compounding=compounding, engine=engine)
        np.testing.assert_array_equal(image, alone)


def test_rows_in_blocks_give_the_same_image(monkeypatch):
    from ussim.engines.cpu import beamform as cpu_beamform

    acquisition, _, _ = focused("P4-2v", 5)
    iq = random_iq(acquisition, 300)
    grid = ussim.ImageGrid(x=np.linspace(-15e-3, 15e-3, 20), z=np.linspace(5e-3, 45e-3, 64))
    whole = [ussim.delay_and_sum(iq, grid, compounding=c) for c in ("coherent", "none")]
    monkeypatch.setattr(cpu_beamform, "BLOCK_VALUES", 5 * 20 * 10)  # 10 rows
    for compounding, expected in zip(("coherent", "none"), whole, strict=True):
        image = ussim.delay_and_sum(iq, grid, compounding=compounding)
        assert relative(image, expected) < 1e-5  # other tiles: indices round otherwise


def test_one_weight_a_transmit_chooses_transmits():
    acquisition, _, _ = focused("P4-2v", 3)
    iq = random_iq(acquisition, 300)
    grid = ussim.ImageGrid(x=np.linspace(-15e-3, 15e-3, 20), z=np.linspace(5e-3, 15e-3, 9))
    alone = ussim.delay_and_sum(iq, grid, transmit_weights=None, compounding="none")
    chosen = ussim.delay_and_sum(iq, grid, transmit_weights=np.array([0.0, 2.0, 0.0]))
    assert relative(chosen, 2 * alone[1]) < 1e-6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"transmit_weights": "cone"}, 'transmit_weights: expected "beam", "line", None or an array, got \'cone\''),
        ({"transmit_weights": np.ones((2, 2))}, r"transmit_weights: expected the shape \(2, 1, 1\) or \(2,\), got"),
        ({"transmit_weights": np.array([1.0, math.nan])}, "transmit_weights: expected finite real numbers"),
        ({"transmit_weights": np.array([1.0, math.inf])}, "transmit_weights: expected finite real numbers"),
        ({"transmit_weights": np.array([1.0, 1e300])}, "transmit_weights: expected finite real numbers"),
        ({"transmit_weights": np.array([1.0, 1j])}, "transmit_weights: expected finite real numbers"),
        ({"compounding": "sum"}, "compounding: expected one of coherent, incoherent, none, got 'sum'"),
    ],
)
def test_bad_values_are_refused(options, message):
    iq = random_iq(ussim.Acquisition(ussim.load_probe("P4-2v"), ussim.PlaneWaves([0.0, 0.1])), n_samples=20)
    with pytest.raises(ValueError, match=message):
        ussim.delay_and_sum(iq, ussim.ImageGrid(x=np.zeros(1), z=np.ones(1)), **options)


def test_powers_of_rf_are_refused():
    iq = random_iq(ussim.Acquisition(ussim.load_probe("P4-2v"), ussim.PlaneWaves(0.0)), n_samples=20)
    rf = ussim.RFData(iq.samples.real.copy(), iq.acquisition, iq.sampling_frequency)
    with pytest.raises(ValueError, match="incoherent needs IQData"):
        ussim.delay_and_sum(rf, ussim.ImageGrid(x=np.zeros(1), z=np.ones(1)), compounding="incoherent")
