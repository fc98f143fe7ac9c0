"""The examples of MUST's documentation (biomecardio.com/MUST), by topic: each a script of at most 8 lines, what physics
says of its result, and the same example by PyMUST where that is installed (`-m peer`).

PyMUST works in float32 and leaves out what lies 60 dB (pressure) or 100 dB (RF) below its spectrum's peak: this is what the
tolerances leave room for. Sub-elements are counted as MUST counts them, one per shortest wavelength, so as to compare.
"""

import inspect
import warnings

import numpy as np
import pytest
from scipy.signal import hilbert
from scipy.spatial import cKDTree

import ussim

RADIUS = np.hypot(*np.meshgrid(np.linspace(-1, 1, 40), np.linspace(-1, 1, 40)))
HEART = np.where((RADIUS > 0.45) & (RADIUS < 0.75), 1.0, 0.1)  # a ring of muscle
RF_TOLERANCE = 2e-4  # PyMUST's float32 (up to 6e-5) and its fade of samples below -100 dB (up to 6e-5)
PRESSURE_TOLERANCE = 1e-3  # the frequency steps of two integrals whose integrand is cut at -60 dB


# --- the scripts -----------------------------------------------------------------------------------------------------


def quick_start():
    waves = ussim.DivergingWaves(tilts=np.deg2rad([-10, 0, 10]), width=np.deg2rad(60))
    acquisition = ussim.Acquisition(ussim.load_probe("P4-2v"), waves, n_subelements="must")
    wires = ussim.Scatterers(x=[0, -8e-3, 10e-3], z=[40e-3, 50e-3, 60e-3], reflectivity=[1, 1, 1])
    rf = ussim.simulate(wires, acquisition)
    grid = ussim.ImageGrid(x=np.linspace(-20e-3, 20e-3, 81), z=np.linspace(30e-3, 70e-3, 161))
    image = ussim.delay_and_sum(ussim.demodulate(rf), grid, f_number=0)
    return rf, grid, image, ussim.log_compress(image, dynamic_range_db=40)


def pfield_1_focused_phased_array():
    waves = ussim.FocusedWaves(x=20e-3, z=50e-3)
    acquisition = ussim.Acquisition(ussim.load_probe("P4-2v"), waves, n_subelements="must")
    grid = ussim.ImageGrid(x=np.linspace(-40e-3, 40e-3, 41), z=np.linspace(2e-3, 100e-3, 50))
    return acquisition, grid, ussim.pressure_field(acquisition, grid)


def pfield_2_circular_wave():
    waves = ussim.DivergingWaves(tilts=0.0, width=np.deg2rad(60))
    acquisition = ussim.Acquisition(ussim.load_probe("P4-2v"), waves, n_subelements="must")
    grid = ussim.ImageGrid(x=np.linspace(-40e-3, 40e-3, 41), z=np.linspace(2e-3, 100e-3, 50))
    return acquisition, grid, ussim.pressure_field(acquisition, grid)


def pfield_3_multi_line_transmit():
    probe = ussim.load_probe("P4-2v")
    foci = ussim.FocusedWaves(x=60e-3 * np.sin([-0.5, 0, 0.5]), z=60e-3 * np.cos([-0.5, 0, 0.5]))
    waves = ussim.CustomTransmits(foci.delays(probe, ussim.Medium())[None])
    acquisition = ussim.Acquisition(probe, waves, n_subelements="must")
    grid = ussim.ImageGrid(x=np.linspace(-40e-3, 40e-3, 41), z=np.linspace(2e-3, 100e-3, 50))
    return acquisition, grid, ussim.pressure_field(acquisition, grid)


def pfield_4_linear_sub_aperture():
    probe = ussim.load_probe("L11-5v")
    delays = ussim.FocusedWaves(x=-9.45e-3, z=20e-3).delays(probe, ussim.Medium())
    delays = np.where(np.arange(128) < 64, delays - delays[:, :64].min(), np.nan)  # the left half fires
    acquisition = ussim.Acquisition(probe, ussim.CustomTransmits(delays), n_subelements="must")
    grid = ussim.ImageGrid(x=np.linspace(-20e-3, 20e-3, 41), z=np.linspace(2e-3, 40e-3, 39))
    return acquisition, grid, ussim.pressure_field(acquisition, grid)


def pfield_5_convex_array():
    probe = ussim.load_probe("C5-2v")
    acquisition = ussim.Acquisition(probe, ussim.CustomTransmits(np.zeros(probe.n_elements)), n_subelements="must")
    grid = ussim.ImageGrid(x=np.linspace(-60e-3, 60e-3, 41), z=np.linspace(2e-3, 120e-3, 50))
    return acquisition, grid, ussim.pressure_field(acquisition, grid)


def pfield_6_continuous_wave():
    probe, waves = ussim.load_probe("P4-2v"), ussim.FocusedWaves(x=0.0, z=40e-3)
    acquisition = ussim.Acquisition(probe, waves, n_cycles=np.inf, n_subelements="must")
    grid = ussim.ImageGrid(x=np.linspace(-20e-3, 20e-3, 41), z=np.linspace(10e-3, 80e-3, 36))
    return acquisition, grid, ussim.pressure_field(acquisition, grid)


def pfield_7_apodized_and_attenuated():
    waves = ussim.PlaneWaves(angles=np.deg2rad(10), apodization=np.hanning(130)[1:-1])  # no end is 0
    medium = ussim.Medium(attenuation_db_cm_mhz=0.5)
    acquisition = ussim.Acquisition(ussim.load_probe("L11-5v"), waves, medium, n_subelements="must")
    grid = ussim.ImageGrid(x=np.linspace(-20e-3, 20e-3, 41), z=np.linspace(2e-3, 40e-3, 39))
    return acquisition, grid, ussim.pressure_field(acquisition, grid)


def txdelay_1_focus():
    return ussim.FocusedWaves(x=20e-3, z=50e-3).delays(ussim.load_probe("P4-2v"), ussim.Medium())


def txdelay_2_plane_waves():
    return ussim.PlaneWaves(angles=np.deg2rad([-20, 0, 10])).delays(ussim.load_probe("L11-5v"), ussim.Medium())


def txdelay_3_circular_waves():
    waves = ussim.DivergingWaves(tilts=np.deg2rad([-20, 0, 20]), width=np.deg2rad(60))
    return waves.delays(ussim.load_probe("P4-2v"), ussim.Medium())


def txdelay_4_convex_array():
    probe, medium = ussim.load_probe("C5-2v"), ussim.Medium()
    focused = ussim.FocusedWaves(x=5e-3, z=50e-3).delays(probe, medium)
    return np.concatenate([ussim.PlaneWaves(angles=np.deg2rad([-10, 0, 10])).delays(probe, medium), focused])


def rf_1_phased_array():
    waves = ussim.FocusedWaves(x=0.0, z=60e-3)
    acquisition = ussim.Acquisition(ussim.load_probe("P4-2v"), waves, n_subelements="must")
    points = ussim.Scatterers(x=np.zeros(6), z=np.linspace(20e-3, 90e-3, 6), reflectivity=np.ones(6))
    return points, ussim.simulate(points, acquisition)


def rf_2_plane_wave():
    acquisition = ussim.Acquisition(ussim.load_probe("L11-5v"), ussim.PlaneWaves(np.deg2rad(10)), n_subelements="must")
    points = ussim.Scatterers(x=[-6e-3, 0, 6e-3], z=[15e-3, 20e-3, 25e-3], reflectivity=[1, 2, 1])
    return points, ussim.simulate(points, acquisition)


def rf_3_convex_array():
    probe = ussim.load_probe("C5-2v")
    acquisition = ussim.Acquisition(probe, ussim.CustomTransmits(np.zeros(probe.n_elements)), n_subelements="must")
    points = ussim.Scatterers(x=[-25e-3, 0, 20e-3], z=[40e-3, 60e-3, 50e-3], reflectivity=[1, 1, 1])
    return points, ussim.simulate(points, acquisition)


def rf_4_heart_sector():
    waves = ussim.DivergingWaves(tilts=np.deg2rad([-15, 0, 15]), width=np.deg2rad(60))
    acquisition = ussim.Acquisition(ussim.load_probe("P4-2v"), waves, n_subelements="must")
    field = ussim.ImageGrid(x=np.linspace(-30e-3, 30e-3, 40), z=np.linspace(30e-3, 90e-3, 40))
    heart = ussim.scatterers_from_image(HEART, field, acquisition, seed=0, mean_distance=2e-3)
    rf = ussim.simulate(heart, acquisition)
    grid = ussim.ImageGrid(x=np.linspace(-35e-3, 35e-3, 60), z=np.linspace(25e-3, 95e-3, 80))
    return heart, rf, grid, ussim.delay_and_sum(ussim.demodulate(rf), grid, f_number=0)


def rf2iq_1_envelope_of_a_line():
    t = np.arange(1200) / 40e6
    line = np.exp(-(((t - 15e-6) / 0.6e-6) ** 2)) * np.sin(2 * np.pi * 5e6 * t)
    return t, line, ussim.demodulate(line, sampling_frequency=40e6, center_frequency=5e6, bandwidth=0.6)


def rf2iq_2_sampled_below_the_carrier():
    t = np.arange(240) / 6e6  # the band 4.25 to 5.75 MHz at 6 MHz
    line = np.exp(-(((t - 15e-6) / 1.5e-6) ** 2)) * np.sin(2 * np.pi * 5e6 * t)
    return t, line, ussim.demodulate(line, sampling_frequency=6e6, center_frequency=5e6, bandwidth=0.3)


def das_rf_and_iq():
    acquisition = ussim.Acquisition(ussim.load_probe("L11-5v"), ussim.PlaneWaves(np.deg2rad(5)), n_subelements="must")
    rf = ussim.simulate(ussim.Scatterers(x=[-4e-3, 5e-3], z=[18e-3, 22e-3], reflectivity=[1, 1]), acquisition)
    grid = ussim.ImageGrid(x=np.linspace(-8e-3, 8e-3, 65), z=np.linspace(15.03e-3, 25.03e-3, 101))
    iq = ussim.demodulate(rf)
    return rf, iq, grid, ussim.delay_and_sum(rf, grid, f_number=1.5), ussim.delay_and_sum(iq, grid, f_number=1.5)


def dasmtx_interpolations():
    acquisition = ussim.Acquisition(ussim.load_probe("C5-2v"), ussim.PlaneWaves(0.0), n_subelements="must")
    iq = ussim.demodulate(ussim.simulate(ussim.Scatterers(x=[3e-3], z=[45e-3], reflectivity=[1]), acquisition))
    grid = ussim.ImageGrid(x=np.linspace(-8e-3, 12e-3, 61), z=np.linspace(40e-3, 50e-3, 61))
    methods = ("nearest", "linear", "quadratic", "lanczos3")
    return iq, grid, {m: ussim.delay_and_sum(iq, grid, f_number=0, interpolation=m) for m in methods}


def getpulse_one_and_two_ways():
    acquisition = ussim.Acquisition(ussim.load_probe("P4-2v"), ussim.PlaneWaves(0.0))
    return [ussim.pulse(acquisition, ways=ways) for ways in (1, 2)]


def genscat_cardiac_scatterers():
    acquisition = ussim.Acquisition(ussim.load_probe("P4-2v"), ussim.PlaneWaves(0.0))
    grid = ussim.ImageGrid(x=np.linspace(-30e-3, 30e-3, 40), z=np.linspace(0, 60e-3, 40))
    return ussim.scatterers_from_image(HEART, grid, acquisition, seed=0)


# --- what physics says -----------------------------------------------------------------------------------------------


def peak(image, grid):
    row, column = np.unravel_index(np.argmax(np.abs(image)), image.shape)
    return grid.x[column], grid.z[row]


def near(image, grid, x, z, half):
    """The brightest pixel within `half` of a point."""
    columns, rows = np.flatnonzero(np.abs(grid.x - x) < half), np.flatnonzero(np.abs(grid.z - z) < half)
    part = np.abs(image)[np.ix_(rows, columns)]
    row, column = np.unravel_index(np.argmax(part), part.shape)
    return grid.x[columns[column]], grid.z[rows[row]]


def check_quick_start(rf, grid, image, picture):
    for x, z in ((0, 40e-3), (-8e-3, 50e-3), (10e-3, 60e-3)):
        assert near(image, grid, x, z, 4e-3) == pytest.approx((x, z), abs=0.6e-3)  # a pixel and a quarter of it
    assert picture.max() == 1.0


def check_focus(focus):
    def check(acquisition, grid, field):
        x, z = peak(field[0][grid.z > 0.6 * focus[1]], ussim.ImageGrid(grid.x, grid.z[grid.z > 0.6 * focus[1]]))
        # On the axis of the beam; before its focus, as weak focusing does: up to 40 % of the way.
        center = acquisition.probe.element_x[acquisition.transmit_weights[0] != 0].mean()
        on_axis = center + (focus[0] - center) * z / focus[1]
        assert x == pytest.approx(on_axis, abs=3e-3)
        assert 0.6 * focus[1] < z < 1.1 * focus[1]

    return check


def check_circular(acquisition, grid, field):
    """Alike on both sides, and even within 6 dB over ±20 degrees at 80 mm."""
    np.testing.assert_allclose(field[0], field[0][:, ::-1], rtol=1e-3)
    row = field[0][np.argmin(np.abs(grid.z - 80e-3))]
    middle = row[np.abs(grid.x) < 80e-3 * np.tan(np.deg2rad(20))]
    assert middle.min() > 0.5 * middle.max()


def check_multi_line(acquisition, grid, field):
    """Three beams: along the arc of the foci, maxima at -0.5, 0 and 0.5 rad, as focusing one by one has them."""
    angles = np.linspace(-0.6, 0.6, 61)
    rows = [np.argmin(np.abs(grid.z - z)) for z in 60e-3 * np.cos(angles)]
    columns = [np.argmin(np.abs(grid.x - x)) for x in 60e-3 * np.sin(angles)]
    along = field[0][rows, columns]
    beams = [along[np.abs(angles - a) < 0.06].max() for a in (-0.5, 0, 0.5)]
    gaps = [along[np.abs(angles - a) < 0.06].max() for a in (-0.25, 0.25)]
    assert min(beams) > 2 * max(gaps)


def check_convex(acquisition, grid, field):
    np.testing.assert_allclose(field[0], field[0][:, ::-1], rtol=2e-3)
    column = field[0][:, 20]
    x, z = grid.mesh()
    assert not field[0][acquisition.probe.is_behind(x, z)].any()
    # A cylindrical wave from the center of curvature: 1 / sqrt(r), within the ripple of the aperture's edge.
    far = grid.z > 60e-3
    scaled = column[far] * np.sqrt(grid.z[far] - acquisition.probe.center_of_curvature)
    assert np.ptp(scaled) < 0.2 * scaled.mean()


def check_apodized(acquisition, grid, field):
    """The beam goes where it is steered and weakens as the medium takes from it: 0.5 dB/cm/MHz at 5 to 7.6 MHz."""
    centroid = (field[0] ** 2 @ grid.x) / (field[0] ** 2).sum(axis=1)
    slope = np.polyfit(grid.z, centroid, 1)[0]
    assert slope == pytest.approx(np.tan(np.deg2rad(10)), rel=0.1)  # clipped at the grid's side
    power_db = 10 * np.log10((field[0] ** 2).sum(axis=1))
    loss = -np.polyfit(100 * grid.z[10:30], power_db[10:30], 1)[0]  # dB/cm
    assert 0.5 * 5 < loss < 0.5 * 7.6


def check_focus_delays(delays):
    probe = ussim.load_probe("P4-2v")
    arrival = delays[0] + np.hypot(probe.element_x - 20e-3, 50e-3) / 1540
    assert np.ptp(arrival) < 1e-15
    assert delays.min() == 0


def check_plane_delays(delays):
    pitch = ussim.load_probe("L11-5v").pitch
    steps = pitch * np.sin(np.deg2rad([-20, 0, 10])) / 1540
    np.testing.assert_allclose(np.diff(delays, axis=1), np.broadcast_to(steps[:, None], (3, 127)), atol=1e-15)


def check_circular_delays(delays):
    np.testing.assert_allclose(delays[0], delays[2][::-1], atol=1e-15)
    assert np.argmin(delays[1]) in (31, 32)  # the middle fires first


def check_convex_delays(delays):
    assert delays.shape == (4, 128)
    probe = ussim.load_probe("C5-2v")
    assert np.ptp(delays[3] + np.hypot(probe.element_x - 5e-3, probe.element_z - 50e-3) / 1540) < 1e-15
    fronts = delays[1] * 1540 - probe.element_z
    assert np.ptp(fronts) < 1e-12  # untilted: elements fire as the front, parallel to x, passes them


def check_echoes(points, rf):
    """Each point's echo comes back after the first arrival and the way to the middle element, within half a period of
    the pulse's center; a focused wave's center lags its first arrival by less than the pulse."""
    probe, rate = rf.acquisition.probe, rf.sampling_frequency
    middle = probe.n_elements // 2
    envelope = np.abs(hilbert(rf.samples[0, middle]))
    from ussim.beamform import transmit_time

    there = transmit_time(rf.acquisition, points.x, points.z)[0]
    back = np.hypot(points.x - probe.element_x[middle], points.z - probe.element_z[middle]) / 1540
    for time in there + back:
        first = round((time - 1 / probe.center_frequency) * rate)
        last = round((time + 1.5 / probe.center_frequency) * rate)
        local = envelope[first:last]
        around = np.r_[envelope[first - 40 : first - 15], envelope[last + 15 : last + 40]]
        assert local.max() > 3 * around.max()


def check_heart(heart, rf, grid, image):
    """The ring is brighter than the blood pool in it, by most of the 36 dB between their grey levels."""
    x, z = grid.mesh()
    radius = np.hypot(x, z - 60e-3) / 30e-3
    power = np.abs(image) ** 2
    muscle, pool = power[(radius > 0.5) & (radius < 0.7)].mean(), power[radius < 0.3].mean()
    assert 10 * np.log10(muscle / pool) > 10  # side lobes of three waves fill the pool to about -15 dB


def check_iq_line(tolerance):
    def check(t, line, iq):
        width = 0.6e-6 if t[1] < 1e-7 else 1.5e-6
        np.testing.assert_allclose(np.abs(iq), np.exp(-(((t - 15e-6) / width) ** 2)), atol=tolerance)

    return check


def check_das(rf, iq, grid, rf_image, iq_image):
    for x, z in ((-4e-3, 18e-3), (5e-3, 22e-3)):
        assert near(iq_image, grid, x, z, 2e-3) == pytest.approx((x, z), abs=0.26e-3)  # a column; two rows
    # The real part of IQ's sum is RF's but for linear interpolation between 4 samples per period, wrong by up to a fifth.
    assert np.corrcoef(rf_image.ravel(), iq_image.real.ravel())[0, 1] > 0.95


def check_interpolations(iq, grid, images):
    for image in images.values():
        assert peak(image, grid) == pytest.approx((3e-3, 45e-3), abs=0.5e-3)  # a pixel of 0.33 mm
    best = images["lanczos3"]
    errors = {m: np.linalg.norm(i - best) / np.linalg.norm(best) for m, i in images.items()}
    assert errors["quadratic"] < errors["linear"] < errors["nearest"]


def check_pulses(one, two):
    for t, wave in (one, two):
        assert np.abs(wave).max() == pytest.approx(1.0)
        spectrum = np.abs(np.fft.rfft(wave, 1 << 17))
        center = np.argmax(spectrum) / (1 << 17) / (t[1] - t[0])
        assert 0.83 * 2.72e6 < center < 2.72e6  # between the top of one period's spectrum, 0.84 f_c, and the response's
    assert two[0][-1] > one[0][-1]  # twice through the response lasts longer


def check_scatterers(scatterers):
    shortest = 1540 / (2.72e6 * (1 + 0.74 / 2))
    distance = cKDTree(np.stack([scatterers.x, scatterers.z], 1)).query(np.stack([scatterers.x, scatterers.z], 1), 2)[0]
    assert distance[:, 1].mean() == pytest.approx(shortest, rel=0.05)  # the law is an approximation for jittered grids
    assert len(scatterers) == pytest.approx(0.4 * 60e-3**2 / shortest**2, rel=0.05)
    radius = np.hypot(scatterers.x, scatterers.z - 30e-3) / 30e-3
    ring = scatterers.reflectivity[(radius > 0.5) & (radius < 0.7)]
    assert ring.mean() == pytest.approx(1.0, abs=0.05)  # Rayleigh of mean 1, some 4000 of them
    assert ring.mean() / ring.std() == pytest.approx(1.913, rel=0.05)


# --- the same by PyMUST ----------------------------------------------------------------------------------------------


def must_param(pymust, acquisition):
    """PyMUST's structure of an acquisition's probe and settings."""
    probe, medium = acquisition.probe, acquisition.medium
    param = pymust.getparam(probe.name)
    param.c, param.attenuation = medium.speed_of_sound, medium.attenuation_db_cm_mhz
    param.fs = acquisition.sampling_frequency
    param.TXnow = acquisition.n_cycles
    param.TXapodization = acquisition.transmit_weights[0] if acquisition.waves.apodization is not None else None
    if param.TXapodization is None:
        del param.TXapodization
    return param


def must_options(pymust, **values):
    options = pymust.utils.Options()
    options.ParPool = False
    for name, value in values.items():
        setattr(options, name, value)
    return options


def relative_error(value, expected):
    return np.linalg.norm(value - expected) / np.linalg.norm(expected)


def peer_field(pymust, acquisition, grid, field):
    x, z = grid.mesh()
    delays = acquisition.transmit_delays[0]
    expected = pymust.pfield(x, np.array([]), z, delays, must_param(pymust, acquisition), options=must_options(pymust))[
        0
    ]
    assert relative_error(field[0], expected) < PRESSURE_TOLERANCE


def peer_continuous(pymust, acquisition, grid, field):
    """PyMUST fails at TXnow = infinity; a million periods leave it one frequency, and its frequency step as a factor."""
    x, z = grid.mesh()
    param = must_param(pymust, acquisition)
    param.TXnow = 1e6
    options = must_options(pymust)
    expected = pymust.pfield(x, np.array([]), z, acquisition.transmit_delays[0], param, options=options)[0]
    assert relative_error(field[0] / np.linalg.norm(field[0]), expected / np.linalg.norm(expected)) < 1e-4  # float32


def peer_delays(laws):
    def compare(pymust, delays):
        expected = laws(pymust)
        expected = expected - np.nanmin(expected, axis=1, keepdims=True)
        np.testing.assert_allclose(delays, expected, rtol=0, atol=1e-13)  # float64 of times up to 1e-5

    return compare


def must_rf(pymust, points, acquisition, transmit=0):
    """PyMUST's RF (n_elements, n_samples)."""
    options = must_options(pymust, dBThresh=-100)
    delays = acquisition.transmit_delays[transmit]
    param = must_param(pymust, acquisition)
    return pymust.simus(points.x, points.z, points.reflectivity, delays, param, options)[0].T


def compare_rf(samples, expected):
    """Equal but for the scale: PyMUST's irfft is divided by its length, of which it keeps half (at 4 samples per period)."""
    n = min(samples.shape[-1], expected.shape[-1])
    ours, theirs = samples[:, :n], expected[:, :n]
    assert relative_error(ours / (2 * expected.shape[-1]), theirs) < RF_TOLERANCE


def peer_rf(pymust, points, rf):
    compare_rf(rf.samples[0], must_rf(pymust, points, rf.acquisition))


def must_image(pymust, rf, grid, f_number=0.0, method="linear", iq=True):
    """PyMUST's image (nz, nx) of our RF: rf2iq and dasmtx, compounded."""
    x, z = grid.mesh()
    image = 0
    for transmit, record in enumerate(rf.samples):
        param = must_param(pymust, rf.acquisition)
        param.fnumber = f_number
        signals = record.T.astype(np.float64)
        signals = pymust.rf2iq(signals, param) if iq else signals
        shape = np.array(signals.shape)
        matrix = pymust.dasmtx(
            1j * shape if iq else shape, x, z, rf.acquisition.transmit_delays[transmit], param, method
        )
        image = image + (matrix @ signals.flatten(order="F")).reshape(grid.shape, order="F")
    return image


IMAGE_TOLERANCE = 2e-5  # complex64 data and float32 sums; golden arrays agree to 1e-5


def peer_quick_start(pymust, rf, grid, image, picture):
    wires = ussim.Scatterers(x=[0, -8e-3, 10e-3], z=[40e-3, 50e-3, 60e-3], reflectivity=[1, 1, 1])
    for transmit in range(3):
        compare_rf(rf.samples[transmit], must_rf(pymust, wires, rf.acquisition, transmit))
    expected = must_image(pymust, rf, grid)
    assert relative_error(image, expected) < IMAGE_TOLERANCE
    levels = pymust.bmode(expected, 40).astype(int)
    assert np.abs(np.round(255 * picture) - levels).max() <= 1  # rounding to 8 bits


def peer_heart(pymust, heart, rf, grid, image):
    compare_rf(rf.samples[2], must_rf(pymust, heart, rf.acquisition, transmit=2))
    assert relative_error(image, must_image(pymust, rf, grid)) < IMAGE_TOLERANCE


def peer_iq_line(carrier, rate, bandwidth):
    def compare(pymust, t, line, iq):
        param = pymust.getparam("L11-5v")
        param.fc, param.fs, param.bandwidth = carrier, rate, bandwidth
        expected = pymust.rf2iq(line[:, None].copy(), param)[:, 0]
        assert relative_error(iq, expected) < 1e-6  # complex64 of the same float64 filter

    return compare


def peer_das(pymust, rf, iq, grid, rf_image, iq_image):
    assert relative_error(iq_image, must_image(pymust, rf, grid, 1.5)) < IMAGE_TOLERANCE
    assert relative_error(rf_image, must_image(pymust, rf, grid, 1.5, iq=False)) < IMAGE_TOLERANCE


def peer_interpolations(pymust, iq, grid, images):
    acquisition = iq.acquisition
    rf = ussim.simulate(ussim.Scatterers(x=[3e-3], z=[45e-3], reflectivity=[1]), acquisition)
    for method, image in images.items():
        assert relative_error(image, must_image(pymust, rf, grid, method=method)) < IMAGE_TOLERANCE


def peer_pulses(pymust, one, two):
    """PyMUST counts time from its record's start, and keeps one sample more after the center than before it."""
    for ways, (t, wave) in ((1, one), (2, two)):
        expected = pymust.getpulse(pymust.getparam("P4-2v"), ways)[0]
        time = (np.arange(expected.size) - (expected.size // 2 - 1)) * 1e-9
        np.testing.assert_allclose(np.interp(time, t, wave, 0, 0), expected, atol=1.2e-3)  # both cut at 1/1023


def peer_scatterers(pymust, scatterers):
    """As many, as far apart; its reflectivities follow another law than MUST's own (a fault of the port) and stay out."""
    np.random.seed(0)  # noqa: NPY002 - the generator that PyMUST draws from
    x, _, z, _ = pymust.genscat(np.array([60e-3, 60e-3]), pymust.getparam("P4-2v"), 255 * HEART)
    assert len(scatterers) == pytest.approx(len(x), rel=0.03)  # edges of the jittered grid
    distances = [
        cKDTree(np.stack(p, 1)).query(np.stack(p, 1), 2)[0][:, 1].mean() for p in ((x, z), (scatterers.x, scatterers.z))
    ]
    assert distances[1] == pytest.approx(distances[0], rel=0.03)  # spread of seeds: 1 %


def must_delays(name, *laws):
    """PyMUST's delays of some laws: (x, z) "focus", (tilt,) "plane", (tilt, width) "circular"."""

    def delays(pymust):
        rows = []
        for kind, *values in laws:
            param = pymust.getparam(name)
            rows.append(pymust.txdelay(*values, param) if kind == "focus" else pymust.txdelay(param, *values))
        return np.concatenate([np.atleast_2d(row) for row in rows])

    return peer_delays(delays)


EXAMPLES = {
    quick_start: (check_quick_start, peer_quick_start),
    pfield_1_focused_phased_array: (check_focus((20e-3, 50e-3)), peer_field),
    pfield_2_circular_wave: (check_circular, peer_field),
    pfield_3_multi_line_transmit: (check_multi_line, peer_field),
    pfield_4_linear_sub_aperture: (check_focus((-9.45e-3, 20e-3)), peer_field),
    pfield_5_convex_array: (check_convex, peer_field),
    pfield_6_continuous_wave: (check_focus((0.0, 40e-3)), peer_continuous),
    pfield_7_apodized_and_attenuated: (check_apodized, peer_field),
    txdelay_1_focus: (check_focus_delays, must_delays("P4-2v", ("focus", 20e-3, 50e-3))),
    txdelay_2_plane_waves: (
        check_plane_delays,
        must_delays("L11-5v", *(("plane", np.deg2rad(tilt)) for tilt in (-20, 0, 10))),
    ),
    txdelay_3_circular_waves: (
        check_circular_delays,
        must_delays("P4-2v", *(("circular", np.deg2rad(tilt), np.deg2rad(60)) for tilt in (-20, 0, 20))),
    ),
    txdelay_4_convex_array: (
        check_convex_delays,
        must_delays("C5-2v", *(("plane", np.deg2rad(tilt)) for tilt in (-10, 0, 10)), ("focus", 5e-3, 50e-3)),
    ),
    rf_1_phased_array: (check_echoes, peer_rf),
    rf_2_plane_wave: (check_echoes, peer_rf),
    rf_3_convex_array: (check_echoes, peer_rf),
    rf_4_heart_sector: (check_heart, peer_heart),
    rf2iq_1_envelope_of_a_line: (check_iq_line(2e-3), peer_iq_line(5e6, 40e6, 60)),
    rf2iq_2_sampled_below_the_carrier: (check_iq_line(2e-2), peer_iq_line(5e6, 6e6, 30)),
    das_rf_and_iq: (check_das, peer_das),
    dasmtx_interpolations: (check_interpolations, peer_interpolations),
    getpulse_one_and_two_ways: (check_pulses, peer_pulses),
    genscat_cardiac_scatterers: (check_scatterers, peer_scatterers),
}


def run(script):
    """The script's results, as a tuple."""
    result = script()
    return tuple(result) if isinstance(result, tuple | list) else (result,)


def names(scripts):
    return [script.__name__ for script in scripts]


@pytest.mark.parametrize("script", EXAMPLES, ids=names(EXAMPLES))
def test_example_does_what_physics_says(script):
    lines = [line for line in inspect.getsource(script).splitlines()[1:] if line.strip()]
    assert len(lines) <= 8
    EXAMPLES[script][0](*run(script))


@pytest.mark.peer
@pytest.mark.parametrize("script", EXAMPLES, ids=names(EXAMPLES))
def test_example_equals_pymust(script):
    pymust = pytest.importorskip("pymust")
    results = run(script)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyMUST's own
        EXAMPLES[script][1](pymust, *results)
