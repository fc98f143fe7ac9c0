"""Receive apodization and grids of any kind: what windows do to a point, where points and sectors lie."""

from dataclasses import replace

import numpy as np
import pytest
from test_beamform import random_iq, relative
from test_transmit_weights import focused

import ussim
from ussim.beamforming.scanlines import line_weights
from ussim.beamforming.windows import WINDOWS, resolve_apodization
from ussim.resolution import point_spread

MM = 1e-3


def plane(name="P4-2v", n=2, **options):
    return ussim.Acquisition(ussim.load_probe(name), ussim.PlaneWaves(np.linspace(-0.1, 0.1, n)), **options)


# --- windows ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WINDOWS)
def test_a_window_is_one_in_the_middle_and_falls_to_the_edge(name):
    from scipy.signal import windows

    place = np.linspace(-1, 1, 201)
    weights = WINDOWS[name].at(place)
    expected = windows.get_window(("tukey", 0.5) if name == "tukey" else name, 201, fftbins=False)
    np.testing.assert_allclose(weights, expected, atol=1e-12)


@pytest.mark.parametrize("engine", ["cpu", "reference"])
def test_a_window_moves_and_grows_with_the_pixel(engine):
    """One element alone: its weight at each pixel is the window at |x - x_e| / (z / 2F)."""
    acquisition = plane("L11-5v", 1)
    iq = random_iq(acquisition, 1500)
    element, f_number = 50, 1.5
    samples = np.zeros_like(iq.samples)
    samples[:, element] = iq.samples[:, element]
    alone = replace(iq, samples=samples)
    grid = ussim.ImageGrid(x=np.linspace(-15, 10, 40) * MM, z=np.linspace(5, 30, 20) * MM)
    x, z = grid.mesh()
    place = np.abs(x - acquisition.probe.element_x[element]) / (z / (2 * f_number))
    plain = ussim.delay_and_sum(alone, grid, f_number, engine=engine)
    assert ((plain != 0) == (place <= 1)).all()
    for name in ("hann", "tukey"):
        found = ussim.delay_and_sum(alone, grid, f_number, apodization=name, engine=engine)
        assert relative(found, plain * WINDOWS[name].at(np.minimum(place, 1))) < 1e-5


@pytest.mark.parametrize("probe", ["C5-2v", "L11-5v"])
def test_without_an_f_number_a_window_lies_over_the_array(probe):
    iq = random_iq(plane(probe, 1), 1500)
    n = iq.acquisition.probe.n_elements
    grid = ussim.ImageGrid(x=np.linspace(-10, 10, 9) * MM, z=np.linspace(20, 30, 5) * MM)
    weights = np.hanning(n + 2)[1:-1]  # near enough: their ends are half a pitch apart
    found = ussim.delay_and_sum(iq, grid, 0, apodization="hann", engine="cpu")
    assert relative(found, ussim.delay_and_sum(iq, grid, 0, apodization=weights, engine="cpu")) < 0.02
    by_hand = replace(iq, samples=iq.samples * WINDOWS["hann"].at((2 * np.arange(n) + 1 - n) / n)[:, None])
    assert relative(found, ussim.delay_and_sum(by_hand, grid, 0, engine="cpu")) < 1e-5


@pytest.mark.parametrize("engine", ["cpu", "reference"])
def test_a_normalized_image_of_equal_channels_does_not_know_the_window(engine):
    acquisition = plane(n=1)
    rf = ussim.RFData(np.ones((1, 64, 1500), np.float32), acquisition, acquisition.sampling_frequency)
    grid = ussim.ImageGrid(x=np.linspace(-5, 5, 9) * MM, z=np.linspace(20, 40, 7) * MM)
    for window in (None, "hann", "blackman", np.arange(64)):
        for f_number in (0.0, 1.0):
            found = ussim.delay_and_sum(rf, grid, f_number, apodization=window, normalize=True, engine=engine)
            np.testing.assert_allclose(found, 1, rtol=1e-5)


def test_windows_trade_width_for_side_lobes():
    acquisition = ussim.Acquisition(ussim.load_probe("L11-5v"), ussim.PlaneWaves(0.0))

    def measured(window):
        spread = point_spread(acquisition, 0.0, 25 * MM, 1.5, engine="cpu", apodization=window)
        width = spread.widths(-6)[0]
        beside = np.abs(spread.grid.x) > 1.6 * spread.widths(-20)[0]
        return width, spread.lateral[beside].max()

    widths, lobes = np.transpose([measured(window) for window in ("boxcar", "tukey", "hann")])
    assert (np.diff(widths) > 0).all()
    assert (np.diff(lobes) < 0).all()
    assert 1.4 < widths[2] / widths[0] < 1.9  # a Hann window is 1.65 times as wide as none at -6 dB
    assert lobes[2] < 0.5 * lobes[0]


@pytest.mark.parametrize("compounding", ["coherent", "incoherent", "none"])
@pytest.mark.parametrize("name", ["L11-5v", "C5-2v"])
def test_cpu_matches_the_reference(name, compounding):
    probe = ussim.load_probe(name)
    mask = np.random.default_rng(2).random((3, probe.n_elements)) > 0.3
    acquisition = plane(name, 3, receive_mask=mask)
    iq = random_iq(acquisition)
    grid = ussim.ImageGrid(x=np.linspace(-31, 29, 17) * MM, z=np.linspace(-2, 42, 13) * MM)
    weights = np.random.default_rng(1).uniform(0, 1, probe.n_elements).round(1)
    for options in ({"apodization": "hann"}, {"apodization": "tukey", "f_number": 0.0}, {"apodization": weights}):
        for normalize in (False, True) if options["apodization"] is weights else (False,):
            options |= {"compounding": compounding, "normalize": normalize}
            found, expected = (
                ussim.delay_and_sum(iq, grid, engine=engine, **options) for engine in ("cpu", "reference")
            )
            assert relative(found, expected) < 1e-5


@pytest.mark.parametrize(
    ("apodization", "message"),
    [
        (
            "hanning",
            "apodization: expected one of boxcar, hann, hamming, blackman, tukey, an array or None, got 'hanning'",
        ),
        (np.ones(3), r"apodization: expected weights of the 64 elements, got the shape \(3,\)"),
        (np.full(64, -1.0), "apodization: expected finite real weights of at least 0"),
        (np.full(64, np.nan), "apodization: expected finite real weights"),
        (np.full(64, 1e300), "apodization: expected finite real weights"),
        (np.ones(64) * 1j, "apodization: expected finite real weights"),
        (np.zeros(64), "not all of them 0"),
    ],
)
def test_bad_windows_are_refused(apodization, message):
    with pytest.raises(ValueError, match=message):
        ussim.delay_and_sum(random_iq(plane(), 20), ussim.ImageGrid(x=[0.0], z=[0.03]), apodization=apodization)


def test_the_plain_window_is_none():
    assert resolve_apodization("boxcar", ussim.load_probe("P4-2v"), 1.0) == (WINDOWS["boxcar"], None)
    iq = random_iq(plane(), 500)
    grid = ussim.ImageGrid(x=np.linspace(-5, 5, 9) * MM, z=np.linspace(10, 30, 7) * MM)
    same = [ussim.delay_and_sum(iq, grid, engine="cpu", apodization=name) for name in (None, "boxcar")]
    np.testing.assert_array_equal(*same)


# --- grids -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["cpu", "reference"])
@pytest.mark.parametrize("combine", ["sum", "cf"])
def test_points_are_beamformed_as_pixels_are(engine, combine):
    acquisition, _, _ = focused("P4-2v", 5)
    iq = random_iq(acquisition, 600)
    grid = ussim.ImageGrid(x=np.linspace(-15, 15, 12) * MM, z=np.linspace(-3, 60, 10) * MM)
    options = {"engine": engine, "combine": combine}
    for weights in ("beam", "line", np.arange(5.0)):
        for compounding in ("coherent", "incoherent", "none"):
            options |= {"transmit_weights": weights, "compounding": compounding}
            expected = ussim.delay_and_sum(iq, grid, **options)
            x, z = (axis.reshape(2, 5, 12) for axis in grid.mesh())
            found = ussim.delay_and_sum(iq, ussim.PointGrid(x, z), **options)
            assert found.shape == (*expected.shape[:-2], 2, 5, 12)
            assert relative(found.reshape(expected.shape), expected) < 1e-5
            few = ussim.PointGrid(x[1, ::2, 3], z[1, ::2, 3])
            if (isinstance(weights, str) and weights == "line") or compounding == "none":
                continue
            assert relative(ussim.delay_and_sum(iq, few, **options), found[1, ::2, 3]) < 1e-5


def test_scattered_points_and_long_lines_of_them(monkeypatch):
    from ussim.engines.cpu import beamform

    iq = random_iq(plane("L11-5v", 3), 1500)
    rng = np.random.default_rng(0)
    points = ussim.PointGrid(rng.uniform(-15 * MM, 15 * MM, 300), rng.uniform(-1 * MM, 200 * MM, 300))
    expected = ussim.delay_and_sum(iq, points, engine="reference")
    assert relative(ussim.delay_and_sum(iq, points, engine="cpu"), expected) < 1e-5
    monkeypatch.setattr(beamform, "BLOCK_VALUES", 3 * 70)  # cut within the row
    assert relative(ussim.delay_and_sum(iq, points, engine="cpu"), expected) < 1e-5


def test_scan_lines_are_the_same_at_points_and_pixels():
    for z in (np.full(7, 40 * MM), np.tile([20 * MM, 40 * MM], 4)[:7]):
        acquisition = ussim.Acquisition(
            ussim.load_probe("P4-2v"), ussim.FocusedWaves(np.linspace(-12, 12, 7).round(-1) * MM, z)
        )
        grid = ussim.ImageGrid(x=np.linspace(-40, 40, 41) * MM, z=np.linspace(5, 80, 11) * MM)
        at_points = line_weights(acquisition, ussim.PointGrid(*grid.mesh()))
        np.testing.assert_allclose(at_points, line_weights(acquisition, grid), atol=1e-6)


@pytest.mark.parametrize("engine", ["cpu", "reference"])
@pytest.mark.parametrize("name", ["C5-2v", "P4-2v"])
def test_a_polar_image_is_the_image_at_its_points(name, engine):
    acquisition = ussim.Acquisition(ussim.load_probe(name), ussim.imaging_waves(ussim.load_probe(name), n_transmits=3))
    polar = ussim.PolarGrid.for_acquisition(acquisition, (12, 9))
    iq = random_iq(acquisition, 1200)
    found = ussim.delay_and_sum(iq, polar, engine=engine)
    assert found.shape == polar.shape
    assert relative(found, ussim.delay_and_sum(iq, ussim.PointGrid(*polar.mesh()), engine="reference")) < 1e-5


@pytest.mark.parametrize("name", ["C5-2v", "P4-2v", "P6-3"])
def test_a_polar_image_has_no_blank(name):
    probe = ussim.load_probe(name)
    acquisition = ussim.Acquisition(probe, ussim.imaging_waves(probe))
    polar = ussim.PolarGrid.for_acquisition(acquisition, (32, 33))
    assert ussim.field_mask(acquisition, polar).all()
    wide = ussim.PolarGrid(polar.radius, 1.15 * polar.angle, polar.apex)
    if not probe.is_flat:  # it is as wide as the waves reach
        assert not ussim.field_mask(acquisition, wide).all()
    _, z = polar.mesh()
    face = probe.radius + probe.center_of_curvature if not probe.is_flat else 0.0
    assert z[:, 16].max() == pytest.approx(probe.imaging.z[1])  # as deep as the field of view
    assert z[:, 16].min() == pytest.approx(max(probe.imaging.z[0], face))
    rng = np.random.default_rng(0)
    n = 3000
    at = rng.uniform(0, 1, (2, n))
    r = polar.radius[0] + at[0] * np.ptp(polar.radius)
    a = polar.angle[0] + at[1] * np.ptp(polar.angle)
    cloud = ussim.Scatterers(r * np.sin(a), polar.apex + r * np.cos(a), rng.normal(size=n))
    few = ussim.Acquisition(probe, ussim.imaging_waves(probe, n_transmits=5))
    image = ussim.envelope_image(ussim.simulate(cloud, few, "cpu"), polar, engine="cpu")
    parts = image[2:-2, 1:-1].reshape(4, 7, -1, 31).mean(axis=(1, 2, 3)), np.array_split(image[2:-2], 4, axis=1)
    assert parts[0].min() > 0.1 * parts[0].max()
    corners = [part.mean() for part in parts[1]]
    assert min(corners) > 0.2 * max(corners)


def test_a_point_stays_in_its_place_from_polar_to_pixels():
    probe = ussim.load_probe("P4-2v")
    acquisition = ussim.Acquisition(probe, ussim.imaging_waves(probe, n_transmits=5))
    rf = ussim.simulate(ussim.Scatterers([8 * MM], [52 * MM], [1.0]), acquisition, "cpu")
    polar = ussim.PolarGrid.for_acquisition(acquisition, (301, 151))
    grid = ussim.ImageGrid.for_acquisition(acquisition, (256, 256))
    image = ussim.scan_convert(ussim.envelope_image(rf, polar, engine="cpu"), polar, grid)
    row, column = np.unravel_index(image.argmax(), image.shape)
    assert grid.x[column] == pytest.approx(8 * MM, abs=0.4 * MM)  # two pixels; an arc between two columns is 0.46 mm
    assert grid.z[row] == pytest.approx(52 * MM, abs=0.2 * MM)
    # Back on the polar grid it is what it was, but for two linear interpolations across an echo 2 pixels high.
    back = ussim.to_polar(image, grid, polar)
    assert (
        abs(int(back.max(axis=1).argmax()) - int(ussim.envelope_image(rf, polar, engine="cpu").max(axis=1).argmax()))
        <= 1
    )


def test_a_linear_probe_has_no_sector():
    with pytest.raises(ValueError, match="expected a convex or phased probe, got L11-5v"):
        ussim.PolarGrid.for_acquisition(plane("L11-5v"))
    acquisition = plane("P4-2v")
    given = ussim.PolarGrid.for_acquisition(acquisition, (3, 5), depth=(10 * MM, 20 * MM), angle=(-0.2, 0.3))
    np.testing.assert_allclose(given.radius, [0.01, 0.015, 0.02])
    np.testing.assert_allclose(given.angle[[0, -1]], [-0.2, 0.3])
    with pytest.raises(ValueError, match=r"depth: expected \(low, high\) with low < high"):
        ussim.PolarGrid.for_acquisition(acquisition, depth=(2.0, 1.0))
    bare = ussim.Acquisition(replace(ussim.load_probe("C5-2v"), imaging=None), ussim.PlaneWaves(0.0))
    with pytest.raises(ValueError, match="C5-2v has no default field of view"):
        ussim.PolarGrid.for_acquisition(bare)


@pytest.mark.parametrize(
    ("x", "z", "message"),
    [
        ([0.0, 1.0], [0.03], r"expected x and z of one shape, with values, got \(2,\) and \(1,\)"),
        ([], [], "with values"),
        (0.0, 0.03, r"with values, got \(\) and \(\)"),
        ([0.0], [np.inf], "z: expected finite positions in m"),
    ],
)
def test_what_are_no_points_is_refused(x, z, message):
    with pytest.raises(ValueError, match=message):
        ussim.PointGrid(x, z)


def test_points_have_no_cells_to_be_fine_in():
    iq = random_iq(plane(), 500)
    points = ussim.PointGrid([[0.0, 1 * MM]], [[30 * MM, 31 * MM]])
    expected = np.abs(ussim.delay_and_sum(iq, points, engine="cpu"))
    np.testing.assert_array_equal(ussim.envelope_image(iq, points, engine="cpu"), expected)
    with pytest.raises(ValueError, match=r"fine: expected \(1, 1\) of points, which have no cells, got \(2, 1\)"):
        ussim.envelope_image(iq, points, fine=(2, 1))


# --- transmit beamforming after the fact -----------------------------------------------------------------------------


def widths_over_depth(acquisition, depths, **options):
    """Lateral widths at -6 dB of points on the axis, each in its place."""
    found = []
    for depth in depths:
        spread = point_spread(acquisition, 0.0, depth, engine="cpu", **options)
        assert abs(spread.peak_x) < 0.1 * MM
        assert spread.peak_z == pytest.approx(depth, abs=0.1 * MM)
        found.append(spread.widths()[0])
    return np.array(found)


def test_retrospective_transmit_beamforming_and_synthetic_aperture_focus_at_all_depths():
    """A scan focused at 20 mm from wide apertures, as lines and after the fact; and from each element alone."""
    probe = ussim.load_probe("L11-5v")
    depths = np.array([10, 20, 32]) * MM
    x = probe.pitch * np.arange(-24, 25)
    on = np.abs(probe.element_x - x[:, None]) <= 20 * MM / 2 / 1.5
    scan = ussim.Acquisition(probe, ussim.FocusedWaves(x, np.full(49, 20 * MM), apodization=on.astype(float)))
    lines = widths_over_depth(scan, depths, transmit_weights="line")
    after = widths_over_depth(scan, depths)
    elements = np.arange(16, 112, 4)
    single = ussim.Acquisition(probe, ussim.SyntheticAperture(elements))
    synthetic = widths_over_depth(single, depths)
    assert (after[[0, 2]] < 0.85 * lines[[0, 2]]).all()  # off the focus
    assert after[1] < 2 * lines[1]  # at it the beams of a waist's width are added, up to the width of reception alone
    assert (synthetic[[0, 2]] < lines[[0, 2]]).all()
