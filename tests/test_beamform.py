"""Delay-and-sum and log compression: where echoes land, MUST's arrays, the CPU engine against the literal one."""

import math
from dataclasses import replace

import numba
import numpy as np
import pytest

import ussim
from ussim import physics
from ussim.beamform import transmit_time
from ussim.beamforming.apertures import directivity_f_number
from ussim.interpolation import INTERPOLATIONS

ANGLES = np.deg2rad([-10.0, 0.0, 10.0])
TARGETS = {  # x, z in m: inside each probe's field, off its axis
    "L11-5v": (3.1e-3, 20.2e-3),
    "L12-3v": (-3.1e-3, 18.3e-3),
    "C5-2v": (8.2e-3, 45.1e-3),
    "P4-2v": (5.1e-3, 50.2e-3),
}


def echoes(acquisition, x, z):
    """Demodulated channel data of one scatterer."""
    scatterers = ussim.Scatterers(x=np.array([x]), z=np.array([z]), reflectivity=np.ones(1))
    return ussim.demodulate(ussim.simulate(scatterers, acquisition, engine="reference"))


def peak_near(iq, x, z, **options):
    """Position of the brightest pixel within two wavelengths of a point, relative to it, in wavelengths (lateral, axial)."""
    wavelength = iq.acquisition.medium.speed_of_sound / iq.acquisition.probe.center_frequency
    around = np.arange(-16, 17) / 8 * wavelength  # pixels of λ/8
    image = np.abs(ussim.delay_and_sum(iq, ussim.ImageGrid(x=x + around, z=z + around), **options))
    row, column = np.unravel_index(image.argmax(), image.shape)
    return around[column] / wavelength, around[row] / wavelength


def single_transmit(iq, i):
    """One transmit of an IQData of plane waves."""
    old = iq.acquisition
    waves = ussim.CustomTransmits(old.transmit_delays[i])
    acquisition = ussim.Acquisition(old.probe, waves, old.medium)
    return ussim.IQData(
        iq.samples[i : i + 1], acquisition, iq.sampling_frequency, iq.demodulation_frequency, iq.start_time
    )


def random_iq(acquisition, n_samples=700, start_time=0.0, seed=0):
    rng = np.random.default_rng(seed)
    shape = (acquisition.n_transmits, acquisition.probe.n_elements, n_samples)
    samples = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)
    f = acquisition.probe.center_frequency
    return ussim.IQData(samples, acquisition, 4 * f, f, start_time)


def relative(image, expected):
    return np.linalg.norm(image - expected) / np.linalg.norm(expected)


# --- a point lands where it is ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TARGETS)
def test_point_lands_in_its_place(name):
    acquisition = ussim.Acquisition(ussim.load_probe(name), ussim.PlaneWaves(ANGLES))
    iq = echoes(acquisition, *TARGETS[name])
    for data in (iq, single_transmit(iq, 0), single_transmit(iq, 2)):
        lateral, axial = peak_near(data, *TARGETS[name])
        assert abs(lateral) <= 0.5
        assert abs(axial) <= 0.3


def test_point_lands_in_its_place_with_diverging_waves():
    probe = ussim.load_probe("P4-2v")
    waves = ussim.DivergingWaves(tilts=np.deg2rad([-10.0, 0.0, 10.0]), width=np.deg2rad(75.0))
    iq = echoes(ussim.Acquisition(probe, waves), *TARGETS["P4-2v"])
    lateral, axial = peak_near(iq, *TARGETS["P4-2v"])
    assert abs(lateral) <= 0.5
    assert abs(axial) <= 0.3


@pytest.mark.parametrize("depth", [15e-3, 25e-3, 38e-3])
def test_point_lands_in_its_place_before_at_and_beyond_a_focus(depth):
    iq = echoes(ussim.Acquisition(ussim.load_probe("L11-5v"), ussim.FocusedWaves(x=1e-3, z=25e-3)), 1e-3, depth)
    lateral, axial = peak_near(iq, 1e-3, depth)
    assert abs(lateral) <= 0.5
    assert abs(axial) <= 0.3


def test_synthetic_aperture_focuses_when_compounded():
    probe = ussim.load_probe("P4-2v")
    iq = echoes(ussim.Acquisition(probe, ussim.SyntheticAperture()), *TARGETS["P4-2v"])
    lateral, axial = peak_near(iq, *TARGETS["P4-2v"])
    assert abs(lateral) <= 0.5
    assert abs(axial) <= 0.3
    x, z = TARGETS["P4-2v"]
    line = ussim.ImageGrid(x=x + np.linspace(-8e-3, 8e-3, 321), z=np.array([z]))

    def width(data):
        profile = np.abs(ussim.delay_and_sum(data, line, 0))[0]
        return np.count_nonzero(profile > profile.max() / 2)

    assert width(iq) < 0.8 * width(single_transmit(iq, 32))  # two-way: sinc² for sinc, 0.73 of the width


def test_receive_delays_are_taken_out():
    probe = ussim.load_probe("P4-2v")
    delays = np.linspace(0, 1.5e-6, probe.n_elements)
    acquisition = ussim.Acquisition(probe, ussim.PlaneWaves(np.zeros(1)), receive_delays=delays)
    lateral, axial = peak_near(echoes(acquisition, *TARGETS["P4-2v"]), *TARGETS["P4-2v"])
    assert abs(lateral) <= 0.5
    assert abs(axial) <= 0.3


def test_another_speed_of_sound_moves_the_target_in_depth():
    iq = echoes(ussim.Acquisition(ussim.load_probe("L11-5v"), ussim.PlaneWaves(np.zeros(1))), 0.0, 20e-3)
    _, axial = peak_near(iq, 0.0, 20e-3 * 1500 / 1540, speed_of_sound=1500.0)
    assert abs(axial) <= 0.5  # the lateral paths stretch a little less than the axial ones


# --- MUST ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["cpu", "reference"])
@pytest.mark.parametrize("name", TARGETS)
def test_matches_must(golden, name, engine):
    arrays, probe = golden(f"beamform_{name}"), ussim.load_probe(name)
    grid = ussim.ImageGrid(x=arrays["grid_x"][0], z=arrays["grid_z"][:, 0])
    automatic = float(arrays["fnumber_auto"])
    # MUST minimizes |sensitivity - 0.71| to within π/100 rad; ours is the root.
    assert directivity_f_number(probe, 1540.0) == pytest.approx(automatic, rel=0.02)
    compared = 0
    for law in ("plane_+0deg", "plane_+10deg"):
        acquisition = ussim.Acquisition(probe, ussim.CustomTransmits(arrays[f"delays_{law}"]))
        rf = ussim.RFData(arrays[f"RFin_{law}"].T[None], acquisition, 4 * probe.center_frequency)
        iq = ussim.demodulate(rf)
        for key, expected in arrays.items():
            if not key.startswith(("DAS_IQ_" + law, "DAS_RF_" + law)) or "lanczos5" in key:
                continue  # PyMUST's lanczos5 has the window of lanczos3
            _, kind, _, _, method, f_number = key.split("_")
            f_number = automatic if f_number == "fnumberauto" else float(f_number.removeprefix("fnumber"))
            image = ussim.delay_and_sum(iq if kind == "IQ" else rf, grid, f_number, interpolation=method, engine=engine)
            alike = np.full(image.shape, True)
            if engine == "cpu" and method == "nearest":
                # A delay within 1e-6 of the middle of two samples takes the other one: how the processor rounds decides.
                alike = np.abs(image - expected) < 1e-4 * np.abs(expected).max()
                assert (~alike).sum() <= 2, key
            # reference: IQ is rounded to complex64; cpu: float32, 1e-6 of a sample in delay
            assert relative(image[alike], expected[alike]) < (1e-7 if engine == "reference" else 1e-5), key
            compared += 1
        image = ussim.delay_and_sum(iq, grid, automatic, engine=engine)
        levels = np.floor(255 * ussim.log_compress(image, 40)).astype(int)
        assert np.abs(levels - arrays[f"bmode40dB_{law}"]).max() <= 1
    assert compared == 18


def test_long_interpolation_is_the_better_one():
    probe = ussim.load_probe("L11-5v")
    t = np.arange(200.0)
    at = np.linspace(50, 60, 101)
    tone = lambda t: np.cos(2 * np.pi * 0.11 * t)  # noqa: E731 (the edge of an IQ band at 4 samples per period)
    errors = {}
    for method, rule in INTERPOLATIONS.items():
        whole = np.floor(at + rule.shift).astype(int)
        weights = rule.weights(at + rule.shift - whole)
        taps = whole[:, None] + rule.first_tap + np.arange(rule.n_taps)
        errors[method] = np.abs((weights * tone(t)[taps]).sum(axis=1) - tone(at)).max()
    assert errors["nearest"] > errors["linear"] > errors["quadratic"]
    assert errors["lanczos3"] < errors["linear"]
    assert errors["lanczos5"] < 0.5 * errors["lanczos3"]
    assert probe.bandwidth / 8 < 0.11


# --- the engines agree -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", INTERPOLATIONS)
@pytest.mark.parametrize("name", TARGETS)
def test_cpu_matches_the_reference(name, method):
    probe = ussim.load_probe(name)
    n_transmits = 3 if method == "linear" else 2
    acquisition = ussim.Acquisition(
        probe,
        ussim.PlaneWaves(np.deg2rad(np.linspace(-10, 10, n_transmits))),
        receive_delays=np.linspace(0, 0.4e-6, probe.n_elements),
    )
    # Echoes of the grid begin before the record and end after it; pixels lie behind the array too.
    iq = random_iq(acquisition, start_time=12e-6)
    grid = ussim.ImageGrid(x=np.linspace(-31e-3, 29e-3, 37), z=np.linspace(-2e-3, 42e-3, 41))
    for f_number in (None, 0.0):
        expected = ussim.delay_and_sum(iq, grid, f_number, interpolation=method, engine="reference")
        image = ussim.delay_and_sum(iq, grid, f_number, interpolation=method, engine="cpu")
        assert image.dtype == np.complex64
        # float32 indices relative to the tile: 1e-5 of a sample at most. So one sample in 1e5 has another nearest
        # neighbor, an unrelated one in these random data: sqrt(2e-5) of the norm.
        assert relative(image, expected) < (1e-5 if method != "nearest" else 1e-2)
        behind = probe.is_behind(*grid.mesh())
        assert behind.any()
        assert not image[behind].any()


def test_cpu_matches_the_reference_on_rf_and_on_many_transmits():
    probe = ussim.load_probe("P4-2v")
    acquisition = ussim.Acquisition(
        probe, ussim.PlaneWaves(np.deg2rad(np.linspace(-12, 12, 19)))
    )  # 16 lanes and a rest
    iq = random_iq(acquisition)
    grid = ussim.ImageGrid(x=np.linspace(-15e-3, 15e-3, 70), z=np.linspace(5e-3, 40e-3, 50))
    expected = ussim.delay_and_sum(iq, grid, engine="reference")
    assert relative(ussim.delay_and_sum(iq, grid, engine="cpu"), expected) < 1e-5
    rf = ussim.RFData(iq.samples.real, acquisition, iq.sampling_frequency)
    image = ussim.delay_and_sum(rf, grid, engine="cpu", normalize=True)
    assert image.dtype == np.float32
    assert relative(image, ussim.delay_and_sum(rf, grid, engine="reference", normalize=True)) < 1e-5


def test_same_bytes_whatever_the_threads(monkeypatch):
    acquisition = ussim.Acquisition(ussim.load_probe("P4-2v"), ussim.PlaneWaves(ANGLES))
    iq = random_iq(acquisition)
    grid = ussim.ImageGrid(x=np.linspace(-15e-3, 15e-3, 90), z=np.linspace(5e-3, 40e-3, 90))
    images = set()
    for n_threads in (1, 2, 5):
        monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", n_threads)
        images.add(ussim.delay_and_sum(iq, grid).tobytes())
    assert len(images) == 1


@pytest.mark.parametrize("engine", ["cpu", "reference"])
def test_a_stack_gives_each_records_image(engine):
    """To the byte, through demodulation too; leading axes stay."""
    acquisition = ussim.Acquisition(ussim.load_probe("P4-2v"), ussim.PlaneWaves(ANGLES))
    iq = [random_iq(acquisition, 300, seed=k) for k in range(3)]
    rf = [ussim.RFData(record.samples.real, acquisition, record.sampling_frequency) for record in iq]
    grid = ussim.ImageGrid(x=np.linspace(-15e-3, 15e-3, 20), z=np.linspace(5e-3, 15e-3, 9))
    for records in (iq, rf):
        stack = replace(records[0], samples=np.stack([record.samples for record in records])[:, None])
        images = ussim.delay_and_sum(stack, grid, engine=engine)
        assert images.shape == (3, 1, *grid.shape)
        for record, image in zip(records, images[:, 0], strict=True):
            np.testing.assert_array_equal(image, ussim.delay_and_sum(record, grid, engine=engine))
    demodulated = ussim.demodulate(stack).samples
    for record, samples in zip(rf, demodulated[:, 0], strict=True):
        np.testing.assert_array_equal(samples, ussim.demodulate(record).samples)


def test_a_stack_is_simulated_medium_by_medium():
    acquisition = ussim.Acquisition(ussim.load_probe("P4-2v"), ussim.PlaneWaves(ANGLES))
    near, far = (ussim.Scatterers([0.0], [z], [1.0]) for z in (10e-3, 30e-3))
    stack = ussim.simulate_stack([near, far], acquisition, "cpu")
    for record, samples in zip(ussim.simulate_batch([near, far], acquisition, "cpu"), stack.samples, strict=True):
        np.testing.assert_array_equal(samples, record.samples)
    one = ussim.simulate(far, acquisition, "cpu").samples  # the longest: its length is the stack's
    np.testing.assert_array_equal(ussim.simulate_stack([far], acquisition, "cpu").samples, one[None])
    np.testing.assert_array_equal(stack.samples[1], one)
    assert ussim.simulate_batch([], acquisition, "cpu") == []
    with pytest.raises(ValueError, match="media: expected at least one"):
        ussim.simulate_stack([], acquisition, "cpu")


@pytest.mark.parametrize("shape", [(3, 64), (2, 64, 9), (3, 64, 0), (0, 3, 64, 9), (3, 3, 63, 9)])
def test_samples_of_another_shape_are_refused(shape):
    acquisition = ussim.Acquisition(ussim.load_probe("P4-2v"), ussim.PlaneWaves(ANGLES))
    with pytest.raises(
        ValueError, match=r"expected \(n_transmits, n_elements, n_samples\) = \(3, 64, ...\), or a stack"
    ):
        ussim.RFData(np.zeros(shape, np.float32), acquisition, 10e6)


def test_image_is_linear_in_the_data():
    acquisition = ussim.Acquisition(ussim.load_probe("P4-2v"), ussim.PlaneWaves(ANGLES))
    one, two = random_iq(acquisition, seed=1), random_iq(acquisition, seed=2)
    both = ussim.IQData(3 * one.samples + two.samples, acquisition, one.sampling_frequency, one.demodulation_frequency)
    grid = ussim.ImageGrid(x=np.linspace(-15e-3, 15e-3, 30), z=np.linspace(5e-3, 40e-3, 30))
    parts = 3 * ussim.delay_and_sum(one, grid) + ussim.delay_and_sum(two, grid)
    assert relative(ussim.delay_and_sum(both, grid), parts) < 2e-6  # float32 sums over 64 elements


def test_record_may_start_late():
    acquisition = ussim.Acquisition(ussim.load_probe("P4-2v"), ussim.PlaneWaves(ANGLES))
    iq = random_iq(acquisition)
    late = ussim.IQData(
        iq.samples[:, :, 40:], acquisition, iq.sampling_frequency, iq.demodulation_frequency, 40 / iq.sampling_frequency
    )
    grid = ussim.ImageGrid(x=np.linspace(-9e-3, 9e-3, 30), z=np.linspace(10e-3, 40e-3, 30))
    assert relative(ussim.delay_and_sum(late, grid), ussim.delay_and_sum(iq, grid)) < 1e-5


def test_normalization_divides_by_the_aperture():
    probe = ussim.load_probe("L11-5v")
    iq = random_iq(ussim.Acquisition(probe, ussim.PlaneWaves(np.zeros(1))))
    grid = ussim.ImageGrid(x=np.linspace(-17.03e-3, 17e-3, 21), z=np.linspace(3e-3, 15e-3, 23))
    x, z = grid.mesh()
    count = (np.abs(x[..., None] - probe.element_x) <= z[..., None] / 3).sum(axis=-1)
    plain = ussim.delay_and_sum(iq, grid, 1.5)
    normalized = ussim.delay_and_sum(iq, grid, 1.5, normalize=True)
    assert relative(normalized * count, plain) < 1e-6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"f_number": math.nan}, "f_number: expected a number of at least 0"),
        ({"f_number": -1.0}, "f_number: expected a number of at least 0"),
        ({"interpolation": "cubic"}, "interpolation: expected one of nearest, linear"),
        ({"speed_of_sound": 0.0}, "speed_of_sound: expected m/s above 0"),
    ],
)
def test_bad_values_are_refused(options, message):
    iq = random_iq(ussim.Acquisition(ussim.load_probe("P4-2v"), ussim.PlaneWaves(np.zeros(1))), n_samples=20)
    with pytest.raises(ValueError, match=message):
        ussim.delay_and_sum(iq, ussim.ImageGrid(x=np.zeros(1), z=np.ones(1)), **options)


# --- transmit times --------------------------------------------------------------------------------------------------


def test_plane_wave_arrives_along_its_direction():
    probe, angle = ussim.load_probe("L11-5v"), math.radians(8)
    acquisition = ussim.Acquisition(probe, ussim.PlaneWaves(np.array([angle])))
    x, z = np.array([0.0, 2e-3, -5e-3]), np.array([10e-3, 20e-3, 30e-3])
    first = probe.element_x[0] * math.sin(angle)  # fires first, at time 0
    expected = (x * math.sin(angle) + z * math.cos(angle) - first) / 1540
    # the nearest of sources a quarter pitch apart: late by (pitch/8)² cos² / (2 z c) at most
    assert transmit_time(acquisition, x, z)[0] == pytest.approx(expected, abs=2e-10)


@pytest.mark.parametrize("name", ["L11-5v", "C5-2v"])
def test_focused_time_passes_through_the_focus_without_a_jump(name):
    probe = ussim.load_probe(name)
    focus = np.array([2e-3, 35e-3])
    acquisition = ussim.Acquisition(probe, ussim.FocusedWaves(*focus[:, None]))
    at_focus = transmit_time(acquisition, *focus)[0]
    beam = np.array([2e-3, 35e-3 - (probe.element_z.max() - 0)])
    beam /= np.linalg.norm(beam)
    for step in (-8e-3, -1e-3, 1e-3, 8e-3):  # along the beam: time through the focus, before and beyond
        point = focus + step * beam
        assert transmit_time(acquisition, *point)[0] == pytest.approx(at_focus + step / 1540, abs=3e-9)
    # Around it, 0.05 mm a step: no step of time beyond what the way itself can change, with the blend's own slope.
    x, z = np.meshgrid(np.arange(-100, 101) * 5e-5 + focus[0], np.arange(-100, 101) * 5e-5 + focus[1])
    time = transmit_time(acquisition, x, z)[0]
    for axis in (0, 1):
        assert np.abs(np.diff(time, axis=axis)).max() < 2.5 * 5e-5 / 1540


def test_several_laws_at_once_each_serve_their_own_beam():
    probe = ussim.load_probe("P4-2v")
    foci = np.array([-20e-3, 20e-3]), np.array([50e-3, 50e-3])
    laws = ussim.FocusedWaves(*foci).delays(probe, ussim.Medium())
    together = ussim.Acquisition(probe, ussim.CustomTransmits(laws[None]))  # (1, 2, n_elements)
    for i in range(2):
        alone = ussim.Acquisition(probe, ussim.CustomTransmits(laws[i]))
        point = np.array([foci[0][i] * 0.9]), np.array([foci[1][i] * 0.9])
        assert transmit_time(together, *point)[0] == pytest.approx(transmit_time(alone, *point)[0], abs=1e-12)


def test_elements_that_are_off_send_nothing():
    probe = ussim.load_probe("L11-5v")
    delays = np.where(np.arange(128) < 32, np.nan, 0.0)
    weights = np.where(np.arange(128) >= 96, 0.0, 1.0)
    acquisition = ussim.Acquisition(probe, ussim.CustomTransmits(delays, apodization=weights))
    for x, element in ((-15e-3, 32), (15e-3, 95)):
        way = np.hypot(x - probe.element_x[element], 10e-3)
        assert transmit_time(acquisition, x, 10e-3)[0] == pytest.approx(way / 1540, abs=1e-12)


# --- log compression and the field -----------------------------------------------------------------------------------


def test_an_envelope_is_the_magnitude_of_iq_and_of_rf_images():
    z = np.arange(400)[:, None] * 10e-6
    shape = np.exp(-(((z - 2e-3) / 0.4e-3) ** 2)) * np.array([1.0, 0.5])
    phase = 2 * np.pi * 2 * 5e6 / 1540 * z
    np.testing.assert_allclose(ussim.envelope(shape * np.exp(1j * phase)), shape, atol=1e-12)
    rf = (shape * np.cos(phase)).astype(np.float32)
    found = ussim.envelope(np.stack([rf, -rf]))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [shape, shape], atol=1e-3)  # the band reaches below 0 Hz by e-7 of its energy
    np.testing.assert_allclose(ussim.log_compress(ussim.envelope(rf), 20), ussim.log_compress(shape, 20), atol=5e-3)
    with pytest.raises(ValueError, match="got the shape"):
        ussim.envelope(np.ones(3))
    for signed in (rf, rf.astype(np.float64), (100 * rf).astype(np.int16)):
        with pytest.raises(ValueError, match=r"an RF image\. Demodulate the channel data first"):
            ussim.log_compress(signed)


def test_log_compression_maps_decibels_to_grey():
    levels = ussim.log_compress(np.array([1.0, 0.1, 0.01, 0.001, 0.0]), 60)
    assert levels.dtype == np.float32
    assert levels == pytest.approx([1, 2 / 3, 1 / 3, 0, 0], abs=1e-6)
    assert not ussim.log_compress(np.zeros((4, 5), np.complex64)).any()
    for bad in (0.0, -40.0, math.nan):
        with pytest.raises(ValueError, match="dynamic_range_db"):
            ussim.log_compress(np.ones(3), bad)
    with pytest.raises(ValueError, match="finite image"):
        ussim.log_compress(np.array([1.0, np.nan]))


def test_log_compression_of_a_stack_is_by_the_whole_or_by_each_image():
    stack = np.random.default_rng(0).rayleigh(size=(4, 30, 31)).astype(np.float32)
    stack *= np.array([1, 0.1, 0, 7], np.float32)[:, None, None]  # an image of zeros among them
    each = ussim.log_compress(stack, per_image=True)
    assert each.dtype == np.float32
    for image, levels in zip(stack, each, strict=True):
        np.testing.assert_array_equal(levels, ussim.log_compress(image))
    assert not each[2].any()
    together = ussim.log_compress(stack)
    assert (together.max(axis=(1, 2))[:3] < 0.7).all()
    np.testing.assert_array_equal(together[3], each[3])
    with pytest.raises(ValueError, match=r"per_image: expected images \(..., nz, nx\)"):
        ussim.log_compress(np.ones(3), per_image=True)
    stack[1, 2, 3] = np.inf
    with pytest.raises(ValueError, match="finite image"):
        ussim.log_compress(stack, per_image=True)


def two_way_coverage(acquisition, x, z):
    """Transmitted energy times received energy at the center frequency, as an amplitude (Garcia 2022, eq. 11 and 12)."""
    probe = acquisition.probe
    k = physics.wavenumber(probe.center_frequency, acquisition.medium.speed_of_sound)
    dx, dz = x[:, None] - probe.element_x, z[:, None] - probe.element_z
    sine, cosine = physics.incidence(dx, dz, np.sin(probe.element_angle), np.cos(probe.element_angle))
    distance = np.maximum(np.hypot(dx, dz), np.pi / k)
    directivity = physics.directivity(sine, k * probe.element_width / 2)
    way = physics.obliquity(cosine, 0.0) * directivity * np.exp(1j * k * distance) / np.sqrt(distance)
    drive = np.exp(2j * np.pi * probe.center_frequency * acquisition.transmit_delays[:, 0])
    transmitted = (np.abs(way @ drive.T) ** 2).sum(axis=1)
    return np.sqrt(transmitted * (np.abs(way) ** 2).sum(axis=1))


@pytest.mark.parametrize("name", TARGETS)
def test_field_mask_follows_two_way_coverage(name):
    probe = ussim.load_probe(name)
    acquisition = ussim.Acquisition(probe, ussim.transmits.imaging_waves(probe))
    assert ussim.field_mask(acquisition, ussim.ImageGrid.for_acquisition(acquisition, (48, 48))).mean() > 0.95
    wide = ussim.ImageGrid(
        x=np.linspace(-1.6, 1.6, 81) * probe.imaging.x[1], z=np.linspace(-2e-3, 1.2 * probe.imaging.z[1], 80)
    )
    mask = ussim.field_mask(acquisition, wide)
    x, z = (axis.ravel() for axis in wide.mesh())
    behind = probe.is_behind(x, z).reshape(wide.shape)
    assert not mask[behind].any()
    coverage = np.where(behind, 0, two_way_coverage(acquisition, x, z).reshape(wide.shape))
    covered = coverage > 0.1 * np.median(coverage[mask])
    # What is in the mask is covered (seen: all but 0 to 2.5 %, grating lobes' gaps); the mask leaves out what an element
    # sees beyond the angle of the automatic f-number though the wave gets there (C5-2v, P4-2v: 13 %).
    assert (mask & ~covered).mean() < 0.03
    assert (mask == covered).mean() > 0.85
