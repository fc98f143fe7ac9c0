"""Calibration: numbers of a scanner found again in its recordings, what cannot be told, bad input."""

from __future__ import annotations

import functools
import re
import tomllib
from dataclasses import replace

import numpy as np
import pytest
from wire_phantoms import PROBE, WIRES, Scanner

import ussim
from ussim.calibration import fit, views
from ussim.calibration.model import Model
from ussim.calibration.parameters import PARAMETERS, Belief, Values
from ussim.calibration.wires import find_wires
from ussim.commands import console
from ussim.commands.cli import cli

NUMBERS = tuple(PARAMETERS)


@functools.cache
def calibrated(seed: int) -> tuple[Scanner, ussim.Calibration]:
    scanner = Scanner.drawn(seed)
    return scanner, ussim.calibrate(scanner.recording(seed))


# --- the model is the simulator --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def silent():
    """A recording without noise, its truth, and the model at it."""
    scanner = Scanner.drawn(0, pulse_phase=0.0)
    rf = scanner.recording(0, snr_db=200.0)
    nominal = views.fixed_firing(rf.acquisition)
    values = Values(**{name: getattr(scanner, name) for name in NUMBERS})
    x, z = WIRES.T
    windows = views.cut(rf, nominal, x, z, values.speed_of_sound, values.time_zero)
    state = fit.State(values, x, z, np.ones(len(x)), scanner.gains, scanner.delays)
    model = fit.with_transmit_gains(Model(nominal, windows, rf.start_times, rf.sampling_frequency), state)
    now = fit.with_delays(fit.subdivided(model, state), scanner.delays)
    amplitudes, gains = fit.solve_linear(now, now.echoes(values, x, z), state)
    return model, now, replace(state, amplitudes=amplitudes, gains=gains)


def test_the_model_at_the_truth_is_what_the_simulator_gives(silent):
    model, now, state = silent
    clean = fit.without_others(fit.subdivided(model, state), state, model.views.samples)
    residual = fit.residual(now.seeing(clean.views.samples), now.echoes(state.values, state.x, state.z), state)
    # windows leave out 3e-3 of a pulse; other wires' edge waves, 2 % here, are simulated within as much
    assert np.linalg.norm(residual) < 5e-3 * np.linalg.norm(model.views.samples)
    own = fit.residual(now, now.echoes(state.values, state.x, state.z), state)
    assert np.linalg.norm(own) > 2 * np.linalg.norm(residual)


def test_derivatives_are_those_of_the_echoes(silent):
    _, model, state = silent
    _, by = model.derivatives(state.values, state.x, state.z, NUMBERS)
    for name in NUMBERS:
        size = {"time_zero": 3e-10, "speed_of_sound": 1e-5}.get(name, 3e-4)
        up, down = (state.values.put({name: state.values.get(name) + s * size}) for s in (1, -1))
        central = (model.echoes(up, state.x, state.z) - model.echoes(down, state.x, state.z)) / (2 * size)
        assert np.linalg.norm(by[name] - central) < 2e-3 * np.linalg.norm(central), name  # one-sided steps of 1e-4


def test_the_joint_normal_equations_are_those_of_the_whole_jacobian(silent):
    """Assembled by blocks; checked against a dense Jacobian of a few columns of each kind."""
    _, model, state = silent
    jacobian = fit.Jacobian.of(model, state, NUMBERS)
    belief = Belief(Values.of(model.acquisition), 1 / PROBE.center_frequency)
    normal = fit.Normal.of(jacobian, state, NUMBERS, True, belief, 0.0)
    full = jacobian.columns(jacobian.x, jacobian.z, jacobian.amplitude)
    columns = [full[..., i] for i in range(full.shape[-1])]
    for own, elements in ((jacobian.gain, normal.gains), (jacobian.delay, normal.delays)):
        for e in elements:
            column = np.zeros(own.shape)
            column[:, e] = own[:, e]
            columns.append(column)
    dense = np.array([column.ravel() for column in columns])
    np.testing.assert_allclose(normal.matrix, dense @ dense.T, atol=1e-9 * normal.matrix.max())
    np.testing.assert_allclose(normal.gradient, dense @ jacobian.residual.ravel(), atol=1e-9 * normal.matrix.max())


# --- wires: the numbers ----------------------------------------------------------------------------------------------


def test_wires_are_found_where_they_are():
    rf = Scanner(speed_of_sound=1540.0, time_zero=0.0, pulse_phase=0.0).recording(0)
    found = find_wires(rf)
    for x, z in WIRES:
        assert np.hypot(found.x - x, found.z - z).min() < 0.2e-3  # a wavelength is 0.3 mm


@pytest.mark.parametrize("seed", range(3))
def test_every_number_is_found_within_2_percent_and_its_uncertainty(seed):
    scanner, found = calibrated(seed)
    for name, estimate in found.estimates.items():
        truth = getattr(scanner, name)
        assert estimate.told
        assert estimate.value == pytest.approx(truth, rel=0.02), name
        # two standard deviations hold 95 %; of the 7 x 3 numbers here the farthest of three may be outside of one of them
        assert abs(estimate.value - truth) < 1.75 * estimate.uncertainty, name
    alive = scanner.gains > 0
    np.testing.assert_allclose(found.gains[alive], scanner.gains[alive], rtol=0.02)
    # 2 % of a period: delays have no scale of their own
    np.testing.assert_allclose(found.delays[alive], scanner.delays[alive], atol=0.02 / PROBE.center_frequency)
    assert found.dead.tolist() == np.flatnonzero(~alive).tolist()
    for name, spread in (("gains", found.gain_uncertainty), ("delays", found.delay_uncertainty)):
        inside = np.abs(getattr(found, name) - getattr(scanner, name))[alive] < spread[alive]
        assert inside.mean() > 0.85, name  # 95 % of 38, three standard deviations of that count below
    assert found.misfit == pytest.approx(found.noise, rel=0.1)


@pytest.mark.slow
def test_uncertainties_cover_the_truth_as_often_as_they_say():
    """20 seeds: of 20 intervals of 95 % 16 or more hold the truth (a binomial law gives fewer once in 400)."""
    inside = {name: 0 for name in NUMBERS}
    elements = []
    for seed in range(20):
        scanner, found = calibrated(seed)
        for name in NUMBERS:
            estimate, truth = found.estimates[name], getattr(scanner, name)
            assert estimate.value == pytest.approx(truth, rel=0.02), (seed, name)
            inside[name] += abs(estimate.value - truth) < estimate.uncertainty
        alive = scanner.gains > 0
        elements.append(np.abs(found.gains - scanner.gains)[alive] < found.gain_uncertainty[alive])
        elements.append(np.abs(found.delays - scanner.delays)[alive] < found.delay_uncertainty[alive])
    assert min(inside.values()) >= 16, inside
    assert sum(inside.values()) > 0.88 * 20 * len(NUMBERS)
    assert 0.88 < np.mean(elements) < 0.99


def test_the_fitted_acquisition_simulates_the_recording():
    """The pulse with its phase, delays, dead elements and firing times are all in it."""
    scanner, found = calibrated(0)
    clean = scanner.recording(0, snr_db=200.0)
    state = found.pictures["state"]
    made = ussim.simulate(ussim.Scatterers(state.x, state.z, state.amplitudes), found.acquisition, engine="cpu")
    samples = made.samples * np.nan_to_num(found.gains)[None, :, None]
    rate, element, transmit = made.sampling_frequency, 20, 1
    time = found.start_time[transmit] + np.arange(clean.samples.shape[-1]) / clean.sampling_frequency
    expected = np.interp(time, np.arange(samples.shape[-1]) / rate, samples[transmit, element], left=0, right=0)
    recorded = clean.samples[transmit, element]
    match = (expected @ recorded) / np.linalg.norm(expected) / np.linalg.norm(recorded)
    assert match > 0.98  # linear interpolation of five samples per period costs 1 %


def test_gains_of_receivers_alone_are_told_from_those_of_elements():
    scanner = Scanner.drawn(1, sends_as_hears=False)
    found = ussim.calibrate(scanner.recording(1))
    assert not found.pictures["sends_as_hears"]
    assert calibrated(0)[1].pictures["sends_as_hears"]
    np.testing.assert_allclose(found.gains, scanner.gains, atol=0.02)


def sequences():
    """Probes and waves of all kinds, and by how much the wires' places are stretched to lie in their field."""
    phased = ussim.load_probe("P4-2v")
    angles = np.deg2rad([-8.0, 0.0, 8.0])
    return {
        "phased, diverging": (phased, ussim.DivergingWaves(tilts=angles, width=np.deg2rad(60)), (3, 2.5)),
        "convex, plane": (ussim.load_probe("C5-2v"), ussim.PlaneWaves(angles), (3, 2.2)),
        "synthetic aperture": (phased, ussim.SyntheticAperture(), (3, 2.5)),
        "focused scan": (phased, ussim.focused_scan(phased, 40e-3, 33, 2.0), (3, 2.5)),
    }


@pytest.mark.slow
@pytest.mark.parametrize("kind", sequences())
def test_other_arrays_and_waves(kind):
    probe, waves, stretch = sequences()[kind]
    nominal = ussim.Acquisition(probe, waves, sampling_frequency=5 * probe.center_frequency)
    truth = Values(1.04 * probe.center_frequency, 0.92 * probe.bandwidth, 1.3, 0.0, 1500.0, 0.4e-6, 0.3)
    true = replace(
        nominal,
        probe=replace(probe, center_frequency=truth.center_frequency, bandwidth=truth.bandwidth),
        waves=ussim.CustomTransmits(nominal.transmit_delays, nominal.transmit_weights),
        medium=ussim.Medium(truth.speed_of_sound, truth.attenuation_db_cm_mhz),
        n_cycles=truth.n_cycles,
    )
    x, z = (WIRES * stretch).T
    rf = ussim.simulate(ussim.Scatterers(x, z, np.ones(len(x))), true, engine="cpu")
    noise = 0.1 * np.sqrt(np.mean(rf.samples**2)) * np.random.default_rng(0).standard_normal(rf.samples.shape)
    recorded = ussim.RFData((rf.samples + noise).astype(np.float32), nominal, rf.sampling_frequency, truth.time_zero)
    found = ussim.calibrate(recorded)
    assert len(found.wires) >= 5
    for name, estimate in found.estimates.items():
        assert estimate.told, name
        assert abs(estimate.value - getattr(truth, name)) < 1.75 * estimate.uncertainty, name


# --- what cannot be told ---------------------------------------------------------------------------------------------


def test_what_one_wire_does_not_tell_is_named():
    scanner = Scanner()
    rf = scanner.recording(0, wires=WIRES[2:3], angles=(0.0,))
    found = ussim.calibrate(rf)
    untold = {name for name, estimate in found.estimates.items() if not estimate.told}
    assert untold == {"speed_of_sound", "time_zero"}  # one curvature and one arrival for them and the depth
    for name, estimate in found.estimates.items():
        assert abs(estimate.value - getattr(scanner, name)) < 1.5 * estimate.uncertainty, name
        assert any(line.startswith(estimate.words) for line in found.cannot_tell) or estimate.told
        assert str(estimate).endswith("not told") != estimate.told


def test_a_measured_response_is_not_fitted_over():
    rf = Scanner(bandwidth=0.7, center_frequency=5e6).recording(0)
    plain = ussim.Acquisition(PROBE, ussim.PlaneWaves(0.0))
    time, pulse = ussim.pulse(plain, ways=1)
    measured = replace(rf.acquisition, impulse_response=ussim.ImpulseResponse(pulse, 1 / (time[1] - time[0])))
    found = ussim.calibrate(replace(rf, acquisition=measured))
    assert (
        found.estimates["bandwidth"].held
        == found.estimates["center_frequency"].held
        == "the file gives the impulse response"
    )


# --- speckle ---------------------------------------------------------------------------------------------------------


@functools.cache
def from_speckle(seed: int) -> tuple[Scanner, ussim.Calibration]:
    scanner = Scanner.drawn(seed, n_cycles=1.0, pulse_phase=0.0, time_zero=0.0)
    return scanner, ussim.calibrate(scanner.speckle(seed), "speckle")


@pytest.mark.parametrize("seed", range(2))
def test_speckle_tells_band_speed_attenuation_and_dead_elements(seed):
    scanner, found = from_speckle(seed)
    for name in ("center_frequency", "bandwidth", "speed_of_sound", "attenuation_db_cm_mhz"):
        estimate, truth = found.estimates[name], getattr(scanner, name)
        assert estimate.told, name
        assert abs(estimate.value - truth) < 1.5 * estimate.uncertainty, name
    assert found.estimates["center_frequency"].value == pytest.approx(scanner.center_frequency, rel=0.02)
    assert found.estimates["speed_of_sound"].value == pytest.approx(scanner.speed_of_sound, rel=0.005)
    assert found.dead.tolist() == [7, 30]
    inside = np.abs(found.gains - scanner.gains) < 2 * found.gain_uncertainty
    assert inside.mean() > 0.8


def test_speckle_says_what_it_does_not_tell():
    _, found = from_speckle(0)
    for name in ("n_cycles", "pulse_phase", "time_zero"):
        estimate = found.estimates[name]
        assert estimate.held
        assert not estimate.told
        assert estimate.value == estimate.start
    one = ussim.calibrate(Scanner.drawn(0, n_cycles=1.0, time_zero=0.0).speckle(0, angles=(0.0,)), "speckle")
    assert "several transmits" in one.estimates["speed_of_sound"].held  # one wave on speckle: as bright at any speed
    assert one.estimates["speed_of_sound"].value == 1540.0
    assert any(line.startswith("speed of sound: held") for line in one.cannot_tell)


def test_a_report_of_speckle_has_its_pictures(tmp_path):
    _, found = from_speckle(0)
    found.save_report(tmp_path / "r.html")
    found.save_probe(tmp_path / "p.toml")
    assert (tmp_path / "r.html").read_text().count("data:image/png;base64,") == 3
    assert replace(ussim.load_probe(tmp_path / "p.toml"), path="") == found.probe


def test_a_real_recording_ends_with_what_it_can_and_cannot_tell(shared, tmp_path):
    """A rotating disk under one plane wave, sampled at 4/3 of the carrier: speckle, no wires."""
    path = shared / "data" / "us_channel" / "pymust_PWI_disk.mat"
    if not path.is_file():
        pytest.skip("needs the recording of a disk in the shared reference data")
    rf = ussim.load_channel_data(path)
    found = ussim.calibrate(rf, "speckle")
    assert found.estimates["center_frequency"].value == pytest.approx(5e6, rel=0.04)  # as in the file
    assert found.estimates["bandwidth"].told
    for name in ("speed_of_sound", "time_zero", "attenuation_db_cm_mhz", "n_cycles"):
        assert not found.estimates[name].told
    found.save_report(tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    assert "What it cannot tell" in text
    assert "this speckle is as bright at any speed" in text
    with pytest.raises(ussim.DataError, match="not those of a point"):
        ussim.calibrate(rf, "wires")


def test_a_slow_or_demodulated_recording_is_the_same_where_its_band_is_whole():
    """Band-pass sampling at 4/3 of the carrier, and IQ: the samples between come back."""
    from ussim.calibration.recording import as_rf, usable_band

    scanner = Scanner(center_frequency=5e6, bandwidth=0.15, pulse_phase=0.0, time_zero=0.0, attenuation_db_cm_mhz=0.0)
    narrow = replace(PROBE, bandwidth=0.15)
    fast = scanner.recording(0, wires=WIRES[:2], snr_db=200.0, angles=(0.0,), probe=narrow)  # at 25 MHz
    iq = ussim.demodulate(fast, 5e6, 0.9)
    again = as_rf(iq)
    inner = np.s_[..., 20:-20]  # filters have edges
    error = np.linalg.norm((again.samples - fast.samples)[inner]) / np.linalg.norm(fast.samples[inner])
    assert error < 0.01
    slow = replace(fast, samples=fast.samples[..., ::4], sampling_frequency=fast.sampling_frequency / 4)  # 6.25 MHz
    again = as_rf(slow)
    factor = round(again.sampling_frequency / slow.sampling_frequency)
    assert again.sampling_frequency >= 20e6
    error = np.linalg.norm((again.samples[..., ::factor] - slow.samples)[inner]) / np.linalg.norm(slow.samples[inner])
    assert error < 0.03
    low, high = usable_band(slow)
    assert 3.75e6 < low < 5e6 < high < 6.25e6  # images of the carrier are 2.5 MHz away


# --- files and commands ----------------------------------------------------------------------------------------------


def test_the_toml_is_a_probe_and_keeps_what_was_measured(tmp_path):
    _, found = calibrated(0)
    found.save_probe(tmp_path / "p.toml")
    probe = ussim.load_probe(tmp_path / "p.toml")
    assert replace(probe, path="") == found.probe  # to the last bit
    table = tomllib.loads((tmp_path / "p.toml").read_text())["calibration"]
    for name, estimate in found.estimates.items():
        assert table[name] == estimate.value
        assert table[f"{name}_uncertainty"] == estimate.uncertainty
    assert table["dead_elements"] == [7, 30]
    np.testing.assert_allclose(table["element_gains"], found.gains, rtol=1e-3)
    assert table["cannot_tell"] == list(found.cannot_tell)


def test_a_calibration_that_is_no_table_is_refused(tmp_path):
    _, found = calibrated(0)
    found.save_probe(tmp_path / "p.toml")
    text = (tmp_path / "p.toml").read_text().partition("[imaging]")[0]
    (tmp_path / "p.toml").write_text(text + "calibration = 3\n")
    with pytest.raises(ussim.ProbeError, match="calibration: expected a table"):
        ussim.load_probe(tmp_path / "p.toml")


def test_the_report_says_each_number_and_shows_pictures(tmp_path):
    _, found = calibrated(0)
    found.save_report(tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    for estimate in found.estimates.values():
        assert estimate.words in text
    assert text.count("data:image/png;base64,") == 4
    assert "Dead elements, from 0: 7, 30." in text
    assert not re.search(r'(src|href)="(?!data:)', text)  # one file, nothing fetched


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """run(*arguments): exit code, stdout, stderr of `ussim ...` in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        code = console.run(cli, "ussim", [str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_the_command_writes_a_probe_that_datagen_builds_with(run, tmp_path):
    from datagen import Recipe

    Scanner(pulse_phase=0.0).recording(0, wires=WIRES[::2], angles=(0.0,)).save("wires.npz")
    code, out, _ = run(
        "calibrate", "wires.npz", "--name", "mine", "--no-element-delays", "-o", "p.toml", "--report", "r.html"
    )
    assert code == 0
    assert "center frequency: 5.3" in out
    assert "cannot tell:" in out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.toml", "r.html", "wires.npz"]
    (probe,) = Recipe(source="demo", probes=("p.toml",)).load_probes()
    assert probe.name == "mine"
    assert probe.center_frequency == pytest.approx(5.3e6, rel=0.02)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("none.npz",), 3, "none.npz: no such file or directory"),
        (("text.npz",), 3, "expected channel data"),
        (("noise.npz",), 3, "noise.npz: expected wires"),
        (("zeros.npz",), 3, "zeros.npz: expected echoes, got zeros only"),
        (("noise.npz", "-o", "p.txt"), 2, "expected a name ending in .toml"),
        (("noise.npz", "--report", "r.png"), 2, "expected a name ending in .html"),
        (("noise.npz", "-o", "no/p.toml"), 3, "cannot be written"),
        (("noise.npz", "--phantom", "cheese"), 2, "cheese"),
        (("noise.npz", "--frames", "3"), 2, "--frames: expected"),
        (("noise.npz", "--phantom", "speckle"), 3, "noise.npz: expected speckle"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(run, tmp_path, arguments, code, words):
    acquisition = ussim.Acquisition(PROBE, ussim.PlaneWaves(0.0))
    noise = np.random.default_rng(0).standard_normal((1, 40, 800)).astype(np.float32)
    ussim.RFData(noise, acquisition, 20e6).save("noise.npz")
    ussim.RFData(0 * noise, acquisition, 20e6).save("zeros.npz")
    (tmp_path / "text.npz").write_text("hello")
    got, out, err = run("calibrate", *arguments)
    assert got == code
    (line,) = [line for line in err.splitlines() if not line.endswith(" ...")]
    assert words in line.lower()
    assert out == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["noise.npz", "text.npz", "zeros.npz"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rf: replace(rf, samples=np.where(np.arange(rf.samples.shape[-1]) == 5, np.nan, rf.samples)), "finite"),
        (lambda rf: replace(rf, samples=rf.samples[None]), "one record"),
    ],
)
def test_what_is_no_recording_is_refused(change, words):
    rf = Scanner().recording(0, wires=WIRES[:1], angles=(0.0,))
    with pytest.raises(ussim.DataError, match=words):
        ussim.calibrate(change(rf))


def test_an_unknown_phantom_is_refused():
    with pytest.raises(ValueError, match="phantom: expected one of wires, speckle"):
        ussim.calibrate(Scanner().recording(0, wires=WIRES[:1], angles=(0.0,)), "cheese")
