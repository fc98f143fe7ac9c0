"""The reference engine: physics first, then the float64 MUST arrays.

`RFf64_*` were made by MUST's algorithm in float64. What is left between it and ours (1e-5 to 6e-5) is MUST's fade of samples
below -100 dB of the peak, which we do not reproduce, and its coarser frequency step near the -100 dB edges of the band.
"""

import numpy as np
import pytest

import ussim

PROBES = ("L11-5v", "L12-3v", "C5-2v", "P4-2v")
LAWS = ("plane_-10deg", "plane_+0deg", "plane_+10deg", "focus_x5mm_z30mm", "circular_tilt+10deg_width60deg")
GOLDEN_TOLERANCE = 1e-4


def waves(law):
    if law.startswith("plane"):
        return ussim.PlaneWaves(np.deg2rad(float(law[6:-3])))
    if law.startswith("focus"):
        return ussim.FocusedWaves(x=5e-3, z=30e-3)
    return ussim.DivergingWaves(tilts=np.deg2rad(10), width=np.deg2rad(60))


def relative_error(value, expected):
    return np.linalg.norm(value - expected) / np.linalg.norm(expected)


def simulate_like(golden, tag, scatterers, acquisition):
    """Return our RF on the golden channels in MUST's scale, and MUST's.

    MUST's irfft is not multiplied by n_fft df = f_s. It keeps the first half of the n_fft samples, whose number is f_s / f_c
    times the number of frequency steps up to f_c.
    """
    n_samples = int(golden[f"RFlen_{tag}"])
    rf = ussim.simulate(scatterers, acquisition, engine="reference", n_samples=n_samples)
    expected = golden[f"RFf64_{tag}"]
    ratio = round(acquisition.sampling_frequency / acquisition.probe.center_frequency)
    (n_fft,) = (n for n in (2 * n_samples - 1, 2 * n_samples) if n % ratio == 0)
    samples = rf.samples[0][golden["channels"]] / n_fft
    return samples, expected if expected.shape == samples.shape else expected.T


@pytest.mark.parametrize("name", PROBES)
@pytest.mark.parametrize("law", LAWS)
def test_rf_equals_must(golden, name, law):
    arrays = golden(f"simus2d_{name}")
    probe = ussim.load_probe(name)
    scatterers = ussim.Scatterers(arrays["scat_x"], arrays["scat_z"], arrays["scat_RC"])
    tags = [f"{law}_att{attenuation}" for attenuation in ("0", "0.5") if f"RFf64_{law}_att{attenuation}" in arrays]
    expected_count = {"plane": 2, "focus": 1, "circular": 2 * (name == "P4-2v")}  # circular: made for P4-2v only
    assert len(tags) == expected_count[law.split("_")[0]]
    for tag in tags:
        medium = ussim.Medium(attenuation_db_cm_mhz=float(tag.rpartition("att")[2]))
        acquisition = ussim.Acquisition(probe, waves(law), medium, n_subelements="must")
        samples, expected = simulate_like(arrays, tag, scatterers, acquisition)
        assert relative_error(samples, expected) < GOLDEN_TOLERANCE


OPTIONS = {
    "FullFrequencyDirectivity": {"full_frequency_directivity": True},
    "baffle_rigid": {"baffle": "rigid"},
    "baffle_1p75": {"baffle": 1.75},
    "TXnow3": {"n_cycles": 3},
    "ElementSplitting1": {"n_subelements": 1},
    "ElementSplitting4": {"n_subelements": 4},
    "TXapodization_hann": {"apodization": "TXapodization_hann"},
    "RXdelay_ramp": {"receive_delays": "RXdelay_ramp"},
    "dBThresh_m60": {"threshold_db": -60},
    "fs_5fc": {"sampling_frequency": 5 * 7.6e6},
    "delaysNaN_first32": {"delays": "delays_NaN"},
}


@pytest.mark.parametrize("option", OPTIONS)
def test_options_equal_must(golden, option):
    from dataclasses import replace

    arrays = golden("simus2d_options_L11-5v")
    settings = {
        key: arrays[value].ravel() if isinstance(value, str) and value in arrays else value
        for key, value in OPTIONS[option].items()
    }
    probe = replace(ussim.load_probe("L11-5v"), baffle=settings.pop("baffle", "soft"))
    apodization = settings.pop("apodization", None)
    sequence = ussim.PlaneWaves(np.deg2rad(7), apodization=apodization)
    if "delays" in settings:
        sequence = ussim.CustomTransmits(settings.pop("delays"))  # time from the law's zero, as MUST counts it
    acquisition = ussim.Acquisition(probe, sequence, **({"n_subelements": "must"} | settings))
    scatterers = ussim.Scatterers(arrays["scat_x"], arrays["scat_z"], arrays["scat_RC"])
    samples, expected = simulate_like(arrays, option, scatterers, acquisition)
    assert relative_error(samples, expected) < GOLDEN_TOLERANCE


@pytest.mark.parametrize("name", PROBES)
@pytest.mark.parametrize("ways", [1, 2])
def test_pulse_equals_must(golden, name, ways):
    """MUST counts time from its record's start, and keeps one sample more after the center than before it."""
    arrays = golden(f"pulse_pfield_{name}")
    t, pulse = ussim.pulse(ussim.Acquisition(ussim.load_probe(name), ussim.PlaneWaves(0.0)), ways)
    expected = arrays[f"getpulse_way{ways}"].ravel()
    from_center = (np.arange(expected.size) - (expected.size // 2 - 1)) * 1e-9
    np.testing.assert_allclose(np.interp(from_center, t, pulse, 0, 0), expected, atol=1.2e-3)  # it cuts at 1/1023


# --- physics ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_array():
    return ussim.Probe("small", 3e6, 0.7, 8, 0.3e-3, 0.25e-3)


def reference(scatterers, acquisition, **options):
    return ussim.simulate(scatterers, acquisition, engine="reference", **options).samples


def test_echo_arrives_after_the_way_there_and_back(small_array):
    acquisition = ussim.Acquisition(small_array, ussim.PlaneWaves(0.0), sampling_frequency=40e6)
    rf = reference(ussim.Scatterers([0.0], [20e-3], [1.0]), acquisition)
    from scipy.signal import hilbert

    for element, x in enumerate(small_array.element_x):
        there = (
            20e-3  # the front is flat: time of the nearest elements, within the pulse's period over 1.05 mm of aperture
        )
        expected = (there + np.hypot(x, 20e-3)) / 1540
        arrival = np.argmax(np.abs(hilbert(rf[0, element]))) / 40e6
        assert arrival == pytest.approx(expected, abs=1 / (4 * 3e6))


def test_rf_is_reciprocal(small_array):
    """Element 1 firing and 6 listening hears what 1 hears when 6 fires."""
    delays = np.full((2, 8), np.nan)
    delays[0, 1] = delays[1, 6] = 0.0
    acquisition = ussim.Acquisition(small_array, ussim.CustomTransmits(delays), ussim.Medium(attenuation_db_cm_mhz=0.5))
    rng = np.random.default_rng(0)
    scatterers = ussim.Scatterers(rng.uniform(-5e-3, 5e-3, 20), rng.uniform(1e-3, 30e-3, 20), rng.normal(size=20))
    rf = reference(scatterers, acquisition)
    np.testing.assert_allclose(rf[0, 6], rf[1, 1], rtol=0, atol=1e-12 * np.abs(rf).max())


def test_chirp_lasts_its_cycles_and_sweeps_its_band(small_array):
    """Instantaneous frequency runs over f_c ± sweep / 2 in n_cycles / f_c seconds; energy as the sine of that length."""
    from scipy.fft import irfft
    from scipy.signal import hilbert

    from ussim import physics

    n_cycles, sweep, rate, n = 60.0, 1e6, 100e6, 8192
    frequency = np.fft.rfftfreq(n, 1 / rate)
    wave = np.fft.fftshift(irfft(np.conj(physics.excitation_spectrum(frequency, 3e6, n_cycles, sweep)), n)) * rate
    sine = np.fft.fftshift(irfft(np.conj(physics.excitation_spectrum(frequency, 3e6, n_cycles)), n)) * rate
    time = (np.arange(n) - n // 2) / rate
    duration = n_cycles / 3e6
    inside = np.abs(time) < 0.4 * duration
    assert np.sum(wave**2) == pytest.approx(np.sum(sine**2), rel=1e-2)
    assert np.sum(wave[np.abs(time) < duration / 2] ** 2) > 0.99 * np.sum(wave**2)
    instantaneous = np.gradient(np.unwrap(np.angle(hilbert(wave)))) * rate / (2 * np.pi)
    expected = 3e6 + sweep / duration * time
    assert np.abs(instantaneous - expected)[inside].mean() < 0.02 * 3e6  # band edges ring by a per cent
    weak = physics.excitation_spectrum(frequency, 3e6, 1.0, 1e3)  # phase at the ends: 3e-4 rad
    np.testing.assert_allclose(weak, physics.excitation_spectrum(frequency, 3e6, 1.0), atol=2e-4)


def test_scatterers_behind_the_array_are_silent():
    convex = ussim.load_probe("C5-2v")
    acquisition = ussim.Acquisition(convex, ussim.PlaneWaves(0.0))
    apex = convex.center_of_curvature + convex.radius
    behind = ussim.Scatterers([0.0, 0.0], [-5e-3, apex - 1e-3], [1.0, 1.0])
    assert not reference(behind, acquisition, n_samples=500).any()
    assert reference(ussim.Scatterers([0.0], [apex + 1e-3], [1.0]), acquisition).any()


def test_sampling_below_four_times_the_centre_frequency_is_refused(small_array):
    acquisition = ussim.Acquisition(small_array, ussim.PlaneWaves(0.0), sampling_frequency=10e6)
    with pytest.raises(ValueError, match="expected at least 4 center_frequency"):
        ussim.simulate(ussim.Scatterers([0.0], [0.02], [1.0]), acquisition, engine="reference")
