"""What the field transmits and hears: carrier, own waveform, measured response, continuous wave, masked channels, pulse
compression, lines without an array."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.signal import hilbert

import ussim
from ussim.commands.steps import select_transmits
from ussim.io.plain import OPTIONAL, acquisition_to_dict
from ussim.show.describe import describe_excitation

PROBE = ussim.Probe("small", 3e6, 0.7, 16, 0.3e-3, 0.25e-3)
WAVES = ussim.PlaneWaves(np.deg2rad([-4.0, 5.0]))
POINTS = ussim.Scatterers([0.5e-3, -1e-3], [14e-3, 19e-3], [1.0, 0.6])
ENGINES = ("cpu", "reference")
RF_TOLERANCE = 1e-4  # what the engines promise to each other


def acquisition(**options):
    return ussim.Acquisition(PROBE, options.pop("waves", WAVES), **options)


def simulate(engine="cpu", scatterers=POINTS, n_samples=600, **options):
    return ussim.simulate(scatterers, acquisition(**options), engine=engine, n_samples=n_samples)


def relative_error(value, expected):
    return np.linalg.norm(value - expected) / np.linalg.norm(expected)


def sine(frequency, n_cycles=1, rate=1e9):
    """Samples of a whole number of periods, centered on time 0 as the built-in sine is, and their rate."""
    half = int(n_cycles / frequency * rate / 2)
    return np.sin(2 * np.pi * frequency * np.arange(-half, half + 1) / rate), rate


def chirp(sweep=2e6, duration=15e-6, rate=100e6):
    half = int(duration * rate / 2)
    t = np.arange(-half, half + 1) / rate
    return np.sin(2 * np.pi * 3e6 * t + np.pi * sweep / duration * t**2), rate


def full_width(envelope, step):
    """Width of a peak at half its height."""
    above = np.flatnonzero(envelope > envelope.max() / 2)
    return (above[-1] - above[0] + 1) * step


# --- transmit frequency ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("frequency", [2.2e6, 3e6, 3.9e6])
def test_echoes_have_their_energy_at_the_transmit_frequency(engine, frequency):
    rf = simulate(engine, transmit_frequency=frequency, n_cycles=20, n_samples=900)
    spectrum = np.abs(np.fft.rfft(rf.samples, 16 * 900, axis=-1)).sum(axis=(0, 1))
    peak = np.argmax(spectrum) * rf.sampling_frequency / (16 * 900)
    # 20 cycles are 5 % wide; the slope of the probe's response and of the two echoes' sum move the peak by a part of it
    assert peak == pytest.approx(frequency, rel=0.02)


def test_the_carrier_given_is_the_default_one():
    assert np.array_equal(simulate().samples, simulate(transmit_frequency=3e6).samples)


def test_demodulation_follows_the_transmit_frequency():
    rf = simulate(transmit_frequency=2.4e6, n_cycles=6, n_samples=900)
    iq = ussim.demodulate(rf)
    assert iq.demodulation_frequency == 2.4e6
    channel = iq.samples[0, 8]
    middle = np.abs(channel) > 0.7 * np.abs(channel).max()
    turns = np.angle(channel[1:] * np.conj(channel[:-1]))[middle[1:]]  # a rest of carrier would turn the phase
    assert abs(np.median(turns)) * iq.sampling_frequency / (2 * np.pi) < 0.05e6  # 1 / 50 of the carrier
    grid = ussim.ImageGrid(np.linspace(-4e-3, 4e-3, 81), np.linspace(10e-3, 22e-3, 121))
    image = np.abs(ussim.delay_and_sum(iq, grid, f_number=0))
    row, column = np.unravel_index(np.argmax(image), image.shape)
    # within a third of the pulse's 2 mm and of the beam's 2 mm
    assert (grid.x[column], grid.z[row]) == pytest.approx((0.5e-3, 14e-3), abs=0.6e-3)


# --- the user's waveform ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("frequency", [None, 2.5e6])
def test_a_sampled_sine_is_the_built_in_one(engine, frequency):
    options = {} if frequency is None else {"transmit_frequency": frequency}
    expected = simulate(engine, **options).samples
    sampled = simulate(engine, waveform=sine(frequency or 3e6), **options).samples
    assert relative_error(sampled, expected) < RF_TOLERANCE


def test_several_periods_are_scaled_by_their_number():
    expected = simulate(n_cycles=3, n_samples=900).samples
    sampled = simulate(waveform=sine(3e6, 3), n_samples=900).samples
    assert relative_error(sampled, 3 * expected) < RF_TOLERANCE  # the built-in sine is divided by its length


@pytest.mark.parametrize("engine", ENGINES)
def test_waveforms_superpose(engine):
    rng = np.random.default_rng(0)
    a, b = (np.convolve(rng.normal(size=60), np.hanning(20)) for _ in range(2))
    rf = [simulate(engine, waveform=(w, 50e6)).samples for w in (a, b, 0.7 * a - 2 * b)]
    # Each is cut at -100 dB of its own spectrum's peak; the reference has nothing else, cpu the engines' promise.
    assert relative_error(rf[2], 0.7 * rf[0] - 2 * rf[1]) < RF_TOLERANCE


def test_a_late_waveform_gives_late_echoes():
    wave, rate = sine(3e6, rate=60e6)
    late = np.concatenate([np.zeros(20), wave])  # its middle is 10 samples later: 2 of the record's
    early = simulate(waveform=(wave, rate)).samples
    later = simulate(waveform=(late, rate)).samples
    assert relative_error(later[..., 2:], early[..., :-2]) < RF_TOLERANCE


@pytest.mark.parametrize(
    "options", [{"waveform": (np.ones(15), 40e6)}, {"waveform": chirp()}, {"transmit_frequency": 4e6}]
)
def test_fast_engine_equals_the_reference(options):
    medium = ussim.Medium(attenuation_db_cm_mhz=0.5)
    rf = [simulate(engine, medium=medium, n_samples=1000, **options).samples for engine in ENGINES]
    assert relative_error(rf[0], rf[1]) < RF_TOLERANCE


def test_the_pulse_shows_the_waveform():
    """A chirp's two-way pulse lasts as long as it does; a sampled sine's is the sine's."""
    t, wave = ussim.pulse(acquisition(waveform=sine(3e6)))
    expected_t, expected = ussim.pulse(acquisition())
    assert relative_error(np.interp(expected_t, t, wave, 0, 0), expected) < 1e-3  # cut where it falls below 1/1023
    t, wave = ussim.pulse(acquisition(waveform=chirp()), ways=1)
    assert full_width(np.abs(hilbert(wave)), t[1] - t[0]) == pytest.approx(15e-6, rel=0.2)  # its ends are off the band


# --- measured responses ----------------------------------------------------------------------------------------------


def response(rate=60e6):
    """A one-way response with a phase of its own."""
    t = (np.arange(161) - 80) / rate
    return np.exp(-((t * 1.9e6) ** 2)) * np.cos(2 * np.pi * (3.2e6 * t + 0.8e12 * t**2) + 0.7), rate


@pytest.mark.parametrize("engine", ENGINES)
def test_one_way_response_twice_is_the_two_way_one(engine):
    one, rate = response()
    two = ussim.ImpulseResponse(np.convolve(one, one), rate, ways=2)
    given = simulate(engine, impulse_response=(one, rate)).samples
    assert relative_error(simulate(engine, impulse_response=two).samples, given) < RF_TOLERANCE
    louder = simulate(engine, impulse_response=(1e3 * one, rate)).samples  # a measurement's scale means nothing
    assert relative_error(louder, given) < 1e-6


def test_the_models_own_response_measured_is_the_model():
    """The impulse response that B(f) has, sampled and given back."""
    rate, n = 48e6, 2001
    frequency = np.fft.rfftfreq(n, 1 / rate)
    from ussim.physics import probe_spectrum

    samples = np.fft.fftshift(np.fft.irfft(probe_spectrum(frequency, 3e6, 0.7), n))
    measured = simulate(impulse_response=(samples, rate)).samples
    assert relative_error(measured, simulate().samples) < 1e-3  # B(0) = -21 dB makes its tail longer than 40 µs


def test_pressure_of_a_two_way_response_is_that_of_the_one_way_one():
    grid = ussim.ImageGrid(np.linspace(-3e-3, 3e-3, 5), np.linspace(3e-3, 20e-3, 6))
    one, rate = response()
    symmetric = one + one[::-1]
    two = ussim.ImpulseResponse(np.convolve(symmetric, symmetric), rate, ways=2)
    fields = [ussim.pressure_field(acquisition(impulse_response=r), grid) for r in ((symmetric, rate), two)]
    np.testing.assert_allclose(fields[1], fields[0], rtol=1e-4)  # |B| is the same, and float32 sums


def test_a_response_beyond_the_models_band_is_refused():
    """Nothing is cut off in silence: a response about 5.5 MHz, or one whose rate is wrong by two."""
    t = (np.arange(81) - 40) / 60e6
    high = np.exp(-((t * 2e6) ** 2)) * np.cos(2 * np.pi * 5.5e6 * t)
    samples, rate = response()
    for wrong in ((high, 60e6), (samples, 2 * rate)):
        with pytest.raises(ValueError, match=r"^impulse_response: expected a spectrum that falls by 20 dB[^\n]*$"):
            simulate(impulse_response=wrong, transmit_frequency=4e6)


def test_the_field_is_that_of_the_elements_that_receive():
    """The left half listens: what only the right half could see, close to the array, is outside."""
    wide = ussim.Probe("wide", 3e6, 0.7, 64, 0.3e-3, 0.28e-3)
    grid = ussim.ImageGrid(np.linspace(-9e-3, 9e-3, 37), np.linspace(1e-3, 3e-3, 3))
    masks = [
        ussim.field_mask(ussim.Acquisition(wide, ussim.PlaneWaves(0.0), receive_mask=mask), grid, f_number=1.0)
        for mask in (None, np.arange(64) < 32)
    ]
    assert masks[0][:, 30].all()
    assert not masks[1][:, 30].any()
    assert np.array_equal(masks[0][:, :18], masks[1][:, :18])


# --- continuous wave -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
def test_continuous_wave_is_the_limit_of_long_pulses(engine):
    """Long pulses: sqrt(width ∫ |P|² df) -> sqrt(width / T) |P(f_0)|. Near fringes of 100 cycles differ by a per cent."""
    grid = ussim.ImageGrid(np.linspace(-4e-3, 4e-3, 9), np.linspace(4e-3, 20e-3, 7))
    one = ussim.PlaneWaves(0.0)
    field = ussim.pressure_field(acquisition(waves=one, n_cycles=np.inf, transmit_frequency=2.5e6), grid, engine=engine)
    long = ussim.pressure_field(
        acquisition(waves=one, n_cycles=100, transmit_frequency=2.5e6), grid, threshold_db=-60, engine=engine
    )
    np.testing.assert_allclose(long * np.sqrt(100 / 2.5e6), field, rtol=0.05, atol=0.02 * field.max())


def test_continuous_wave_has_nulls_where_two_elements_cancel():
    """Two elements 0.9 mm apart fed alike: the first null of a 3 MHz wave is where the ways differ by half a wavelength."""
    delays = np.full(16, np.nan)
    delays[[5, 8]] = 0.0
    only = acquisition(waves=ussim.CustomTransmits(delays), n_cycles=np.inf)
    apart, depth = PROBE.element_x[8] - PROBE.element_x[5], 60e-3
    middle = (PROBE.element_x[8] + PROBE.element_x[5]) / 2
    x = middle + np.linspace(8e-3, 32e-3, 481)
    field = ussim.pressure_field(only, ussim.ImageGrid(x, np.array([depth])))[0, 0]
    null = np.arcsin(1540 / 3e6 / 2 / apart)
    assert x[np.argmin(field)] - middle == pytest.approx(depth * np.tan(null), rel=0.005)  # far field: (apart / depth)²
    assert field.min() < 0.02 * field.max()


def test_continuous_wave_has_no_echoes():
    endless = acquisition(n_cycles=np.inf)
    for attempt in (lambda: ussim.simulate(POINTS, endless), lambda: ussim.pulse(endless)):
        with pytest.raises(ValueError, match=r"^n_cycles: a continuous wave \(inf\) has a pressure_field only[^\n]*$"):
            attempt()


# --- receive mask ----------------------------------------------------------------------------------------------------

HALF = np.arange(16) < 8
MASKS = {"elements": HALF, "per transmit": np.stack([HALF, np.arange(16) % 2 == 0])}
GRID = ussim.ImageGrid(np.linspace(-3e-3, 3e-3, 13), np.linspace(8e-3, 22e-3, 15))


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("engine", ENGINES)
def test_masked_channels_record_nothing_and_the_others_what_they_did(mask, engine):
    everything, masked = simulate(engine).samples, simulate(engine, receive_mask=MASKS[mask])
    live = np.broadcast_to(MASKS[mask], (2, 16))
    assert np.array_equal(masked.samples[live], everything[live])
    assert not masked.samples[~live].any()
    batch = ussim.simulate_batch([POINTS], masked.acquisition, engine, n_samples=600)[0]
    assert np.array_equal(batch.samples, masked.samples)


@pytest.mark.parametrize("engine", ENGINES)
def test_delay_and_sum_ignores_what_masked_channels_hold(engine):
    rf = simulate()
    for mask in MASKS.values():
        live = np.broadcast_to(mask, (2, 16))[..., None]
        law = replace(rf.acquisition, receive_mask=mask)
        noisy = replace(rf, samples=np.where(live, rf.samples, np.float32(np.nan)), acquisition=law)
        silent = replace(rf, samples=np.where(live, rf.samples, np.float32(0)))
        image, expected = (ussim.delay_and_sum(data, GRID, engine=engine) for data in (noisy, silent))
        assert relative_error(image, expected) < 1e-6  # the same sums


@pytest.mark.parametrize("engine", ENGINES)
def test_normalization_counts_live_elements(engine):
    """Channels that all record 1: the mean over live elements of each transmit is 1, so the image is n_transmits."""
    ones = np.ones((2, 16, 900), np.float32)
    for mask in (None, HALF, np.stack([HALF, ~HALF])):
        rf = ussim.RFData(ones, acquisition(receive_mask=mask), 12e6)
        image = ussim.delay_and_sum(rf, GRID, f_number=0, normalize=True, engine=engine)
        np.testing.assert_allclose(image, 2.0, rtol=1e-5)  # float32 sums of 32 ones


def test_selected_transmits_keep_their_masks():
    rf = simulate(receive_mask=MASKS["per transmit"])
    assert np.array_equal(select_transmits(rf, [1]).acquisition.receiving, MASKS["per transmit"][1:])
    assert np.array_equal(select_transmits(simulate(receive_mask=HALF), [1]).acquisition.receiving, HALF[None])


# --- pulse compression -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["built in", "sampled"])
@pytest.mark.parametrize("iq", [False, True])
def test_a_chirp_is_compressed_to_its_sweep_and_gains_in_noise(kind, iq):
    """A 15 µs chirp of 1.2 MHz, inside the probe's 2.1 MHz: some 18 times shorter. The filter's gain is the pulse's energy
    over its peak's: up to time x bandwidth = 12 dB, less what the probe's response takes of the sweep's ends."""
    sweep, duration = 1.2e6, 15e-6
    options = {"waveform": chirp(sweep, duration)}
    if kind == "built in":
        options = {"frequency_sweep": sweep, "n_cycles": duration * 3e6}
    point = ussim.Scatterers([0.0], [25e-3], [1.0])
    rf = simulate(scatterers=point, waves=ussim.PlaneWaves(0.0), n_samples=1000, sampling_frequency=24e6, **options)
    data = ussim.demodulate(rf) if iq else rf
    short = ussim.matched_filter(data)
    assert type(short) is type(data)
    assert short.samples.dtype == data.samples.dtype
    envelopes = [np.abs(d.samples[0, 8] if iq else hilbert(d.samples[0, 8])) for d in (data, short)]
    widths = [full_width(envelope, 1 / 24e6) for envelope in envelopes]
    assert widths[0] > 0.7 * duration
    assert widths[1] == pytest.approx(1.2 / sweep, rel=0.25)  # a flat band of that width: 1.21 / sweep at half height
    # The echo stays where it was: 25 mm there and back, within a quarter of the compressed pulse.
    assert np.argmax(envelopes[1]) / 24e6 == pytest.approx(50e-3 / 1540, abs=0.25 / sweep)
    noise = np.random.default_rng(0).normal(size=(1, 16, 1000)).astype(np.float32)
    filtered = ussim.matched_filter(replace(rf, samples=noise)).samples
    assert filtered.std() == pytest.approx(1.0, rel=0.1)  # 16 x 1000 samples, of which some hundreds are independent
    gain_db = 20 * np.log10(envelopes[1].max() / envelopes[0].max())
    # White noise over f_s / 2 = 12 MHz: 10 log10(2 x 12 MHz x duration / 2) = 22.6 dB for a flat pulse of peak 1.
    assert gain_db == pytest.approx(10 * np.log10(24e6 * duration / 2), abs=2.0)


def test_filtering_and_demodulating_commute():
    rf = simulate(frequency_sweep=1e6, n_cycles=20, n_samples=1200)
    a = ussim.matched_filter(ussim.demodulate(rf)).samples
    b = ussim.demodulate(ussim.matched_filter(rf)).samples
    inside = slice(100, -100)  # the low-pass extends the record at its ends
    assert relative_error(a[..., inside], b[..., inside]) < 1e-3  # its edge of band is another


def test_a_code_is_compressed():
    """A Barker code of 13 chips of one period: the main lobe a chip wide, side lobes 1/13 (-22 dB), two ways of the probe's
    band on top."""
    chips = np.array([1, 1, 1, 1, 1, -1, -1, 1, 1, -1, 1, -1, 1])
    period = np.sin(2 * np.pi * np.arange(32) / 32)
    options = {"waveform": (np.kron(chips, period), 96e6), "waves": ussim.PlaneWaves(0.0)}
    rf = simulate(scatterers=ussim.Scatterers([0.0], [25e-3], [1.0]), n_samples=900, **options)
    envelope = np.abs(hilbert(ussim.matched_filter(rf).samples[0, 8]))
    peak = int(np.argmax(envelope))
    assert full_width(envelope, 1 / 12e6) < 3 / 3e6
    far = np.abs(np.arange(900) - peak) > 12e6 * 2.5 / 3e6
    assert envelope[far].max() < 0.15 * envelope[peak]


def test_slow_rf_is_refused():
    rf = ussim.RFData(np.ones((2, 16, 64), np.float32), acquisition(), 5e6)
    with pytest.raises(ValueError, match=r"^sampling_frequency: expected at least [^\n]*: demodulate first$"):
        ussim.matched_filter(rf)


# --- lines without an array ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(600,), (2, 16, 600)])
def test_bare_lines_are_demodulated_as_channel_data(shape):
    rf = simulate()
    expected = ussim.demodulate(rf).samples
    lines = rf.samples if len(shape) == 3 else rf.samples[1, 3]
    given = ussim.demodulate(lines, sampling_frequency=12e6, center_frequency=3e6, bandwidth=0.7)
    assert given.shape == shape
    assert np.array_equal(given, expected if len(shape) == 3 else expected[1, 3])
    assert np.array_equal(given, ussim.demodulate(lines, 3e6, 0.7, sampling_frequency=12e6))


def test_bare_lines_of_any_kind_keep_their_envelope():
    t = np.arange(400) / 20e6
    line = np.exp(-(((t - 10e-6) / 1e-6) ** 2)) * np.cos(2 * np.pi * 5e6 * (t - 10e-6))
    for kind in (line.tolist(), line, np.round(1000 * line).astype(np.int16)):
        iq = ussim.demodulate(kind, sampling_frequency=20e6, center_frequency=5e6)
        envelope = np.abs(iq) / np.abs(iq).max()
        np.testing.assert_allclose(envelope, np.exp(-(((t - 10e-6) / 1e-6) ** 2)), atol=3e-3)  # int16: 1/1000
    shifted = ussim.demodulate(line, sampling_frequency=20e6, center_frequency=5e6, start_time=0.05e-6)
    iq = ussim.demodulate(line, sampling_frequency=20e6, center_frequency=5e6)
    np.testing.assert_allclose(shifted, iq * np.exp(-2j * np.pi * 0.25), atol=1e-5)  # a quarter period later


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ussim.demodulate(np.ones(9)), "sampling_frequency: lines without an array need it"),
        (
            lambda: ussim.demodulate(np.ones(9), sampling_frequency=4.0),
            "center_frequency: lines without an array need it",
        ),
        (lambda: ussim.demodulate(np.ones(9), 1.0, center_frequency=1.0, sampling_frequency=4.0), "give one of them"),
        (lambda: ussim.demodulate(np.ones(9) * 1j, 1.0, sampling_frequency=4.0), "expected RFData, or real lines"),
        (lambda: ussim.demodulate(np.float64(1), 1.0, sampling_frequency=4.0), "expected RFData, or real lines"),
        (lambda: ussim.demodulate(simulate(), sampling_frequency=4.0), "sampling_frequency: RFData brings its own"),
    ],
)
def test_what_lines_need_is_said(call, words):
    with pytest.raises(ValueError, match=words):
        call()


# --- values, files, words --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"transmit_frequency": 0.0}, "transmit_frequency: expected Hz between 0 and 2 center_frequency"),
        ({"transmit_frequency": 7e6}, "transmit_frequency: expected Hz between 0 and 2 center_frequency"),
        ({"transmit_frequency": np.nan}, "transmit_frequency: expected Hz"),
        (
            {"transmit_frequency": 1e6, "frequency_sweep": 3e6},
            "frequency_sweep: expected Hz between 0 and 2 transmit_freq",
        ),
        ({"n_cycles": np.nan}, "n_cycles: expected a number above 0"),
        ({"n_cycles": np.inf, "frequency_sweep": 1e6}, "n_cycles: a chirp has an end"),
        ({"waveform": np.ones(5)}, r"waveform: expected \(samples, rate\), got ndarray"),
        ({"waveform": (np.ones(5), 0.0)}, "waveform: .*rate in Hz above 0"),
        ({"waveform": (np.ones(5), 40.0)}, "waveform: expected a rate of at least 6e"),
        ({"waveform": (np.zeros(5), 40e6)}, "waveform: expected finite samples, not all 0"),
        ({"waveform": (np.array([1, np.nan]), 40e6)}, "waveform: expected finite samples"),
        ({"waveform": (np.ones((2, 5)), 40e6)}, "waveform: .*got shape"),
        ({"waveform": (np.ones(5) * 1j, 40e6)}, "waveform: .*real samples"),
        ({"waveform": sine(3e6), "n_cycles": 2}, "waveform: it is the whole excitation"),
        ({"waveform": sine(3e6), "frequency_sweep": 1e6}, "waveform: it is the whole excitation"),
        ({"impulse_response": (np.ones(5), 40e6, 3)}, r"impulse_response: expected \(samples, rate\)"),
        ({"receive_mask": np.ones(5)}, "receive_mask: expected True and False"),
        ({"receive_mask": np.full(16, 0.5)}, "receive_mask: expected True and False"),
        ({"receive_mask": np.ones((3, 16), bool)}, "receive_mask: expected True and False"),
        ({"receive_mask": np.zeros(16, bool)}, "receive_mask: expected at least one channel"),
    ],
)
def test_what_is_wrong_is_one_line(options, words):
    with pytest.raises(ValueError, match=words) as caught:
        acquisition(**options)
    assert "\n" not in str(caught.value)


def test_ways_are_one_or_two():
    with pytest.raises(ValueError, match="ways: expected 1 or 2"):
        ussim.ImpulseResponse(np.ones(5), 40e6, ways=3)


def test_values_are_copies_that_unpack():
    samples, rate = sine(3e6)
    mask = HALF.copy()
    given = acquisition(waveform=(samples, rate), receive_mask=mask)
    before = samples.copy()
    samples[:] = 0
    mask[:] = True
    kept, kept_rate = given.waveform
    assert np.array_equal(kept, before)
    assert kept_rate == rate
    assert np.array_equal(given.receive_mask, HALF)
    for array in (kept, given.receive_mask):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


@pytest.mark.parametrize(
    "options",
    [
        {"transmit_frequency": 2.7e6 + 1 / 3, "n_cycles": np.inf},
        {"waveform": sine(3e6, rate=1e8 / 3), "receive_mask": MASKS["per transmit"]},
        {"impulse_response": response(), "receive_mask": HALF},
        {"impulse_response": ussim.ImpulseResponse(*response(), ways=2)},
        {},
    ],
)
def test_an_acquisition_comes_back_from_its_file(tmp_path, options):
    given = acquisition(**options)
    ussim.RFData(np.zeros((2, 16, 9), np.float32), given, 12e6).save(tmp_path / "a.npz")
    read = ussim.load_channel_data(tmp_path / "a.npz").acquisition
    assert (read.transmit_frequency, read.n_cycles) == (given.transmit_frequency, given.n_cycles)
    for name in ("waveform", "impulse_response"):
        a, b = getattr(read, name), getattr(given, name)
        assert (a is None) == (b is None)
        assert a is None or (type(a) is type(b) and a.key == b.key)
    assert np.array_equal(read.receiving, given.receiving)
    plain = json.loads(json.dumps(acquisition_to_dict(given), allow_nan=False))
    assert acquisition_to_dict(read) == plain
    assert set(OPTIONAL) & set(plain) == set(options) - {"n_cycles"}  # what is not used is not written


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, ""),
        ({"n_cycles": 3}, ", 3-cycle sine"),
        ({"transmit_frequency": 2.5e6}, ", 1-cycle sine at 2.5 MHz"),
        ({"n_cycles": np.inf}, ", continuous wave"),
        ({"frequency_sweep": 1e6, "n_cycles": 30}, ", chirp of 1 MHz in 10 µs"),
        ({"waveform": (np.ones(120), 60e6)}, ", waveform of 2 µs"),
        ({"impulse_response": response()}, ", measured one-way response"),
        ({"impulse_response": ussim.ImpulseResponse(*response(), ways=2)}, ", measured pulse-echo response"),
        ({"receive_mask": HALF}, ", 8 of 16 elements receive"),
        ({"receive_mask": np.stack([HALF, np.arange(16) < 4])}, ", 4 to 8 of 16 elements receive"),
    ],
)
def test_the_summary_says_what_is_not_default(options, words):
    assert describe_excitation(acquisition(**options)) == words
