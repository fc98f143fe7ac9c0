"""Matrix arrays: RF and firing times against MUST's simus3 and txdelay3, physics, engines, volumes, what refuses them."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import ussim
from ussim.engines import reference
from ussim.errors import EngineError
from ussim.io.plain import acquisition_from_dict, acquisition_to_dict
from ussim.plan import make_plan

FIXTURE = Path(__file__).parent / "fixtures" / "simus3_matrix.npz"
LAWS = {
    "plane_+8deg_-12deg": ussim.PlaneWaves(np.deg2rad(8.0), elevation_angles=np.deg2rad(-12.0)),
    "focus_x1mm_ym2mm_z12mm": ussim.FocusedWaves(x=1e-3, z=12e-3, y=-2e-3),
    "source_xm1mm_y0p5mm_zm6mm": ussim.DivergingWaves(x=-1e-3, z=-6e-3, y=0.5e-3),
}
TOML = """
name = "grid"
center_frequency = 3e6
bandwidth = 0.6
n_elements = 24
n_rows = 4
pitch = 0.4e-3
row_pitch = 0.6e-3
element_width = 0.35e-3
element_height = 0.55e-3
"""


def relative_error(value, expected):
    return float(np.linalg.norm(value - expected) / np.linalg.norm(expected))


@pytest.fixture
def grid_array(tmp_path):
    """An array of 6 x 4 elements, as the fixture has it, read from a file of one's own."""
    path = tmp_path / "grid.toml"
    path.write_text(TOML)
    return ussim.load_probe(path)


def cloud(n, seed=0, depth=20e-3):
    rng = np.random.default_rng(seed)
    x, y, z = rng.uniform(-5e-3, 5e-3, n), rng.uniform(-5e-3, 5e-3, n), rng.uniform(1e-3, depth, n)
    return ussim.Scatterers(x, z, rng.normal(size=n), y)


def samples(scatterers, acquisition, engine="reference", **options):
    return np.asarray(ussim.simulate(scatterers, acquisition, engine, **options).samples)


# --- against MUST ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("law", LAWS)
def test_firing_times_are_those_of_txdelay3(law, grid_array):
    arrays = np.load(FIXTURE)
    np.testing.assert_allclose(grid_array.element_x, arrays["elem_x"], atol=1e-12)
    np.testing.assert_allclose(grid_array.element_y, arrays["elem_y"], atol=1e-12)
    np.testing.assert_allclose(LAWS[law].delays(grid_array, ussim.Medium()), arrays[f"delays_{law}"], atol=1e-15)


@pytest.mark.parametrize("attenuation", [0.0, 0.5])
@pytest.mark.parametrize("law", LAWS)
def test_rf_is_that_of_simus3(law, attenuation, grid_array):
    """Times the sampling frequency: RF is the integral over frequency, MUST's an inverse transform."""
    arrays = np.load(FIXTURE)
    medium = ussim.Medium(attenuation_db_cm_mhz=attenuation)
    acquisition = ussim.Acquisition(grid_array, LAWS[law], medium, n_subelements="must")
    assert make_plan(acquisition).sub_x.shape == (24, 2)
    points = ussim.Scatterers(arrays["scat_x"], arrays["scat_z"], arrays["scat_RC"], arrays["scat_y"])
    expected = arrays[f"RFf64_{law}_att{attenuation:g}"].T * acquisition.sampling_frequency
    rf = samples(points, acquisition, n_samples=expected.shape[1])[0][arrays["channels"]]
    assert relative_error(rf, expected) < 1e-4  # MUST fades samples below -100 dB


# --- physics ---------------------------------------------------------------------------------------------------------


def test_turning_array_and_medium_by_a_quarter_turns_the_channels():
    across = ussim.MatrixProbe("a", 3e6, 0.6, 12, 0.4e-3, 0.3e-3, 0.5e-3, n_rows=3, row_pitch=0.6e-3)
    along = ussim.MatrixProbe("b", 3e6, 0.6, 12, 0.6e-3, 0.5e-3, 0.3e-3, n_rows=4, row_pitch=0.4e-3)
    points = cloud(9)
    turned = ussim.Scatterers(points.y, points.z, points.reflectivity, points.x)
    one = samples(points, ussim.Acquisition(across, ussim.PlaneWaves(0.1, elevation_angles=-0.2)), n_samples=500)
    two = samples(turned, ussim.Acquisition(along, ussim.PlaneWaves(-0.2, elevation_angles=0.1)), n_samples=500)
    as_one = two.reshape(1, 4, 3, -1).swapaxes(1, 2).reshape(one.shape)
    np.testing.assert_allclose(as_one, one, rtol=0, atol=1e-12 * np.abs(one).max())


def test_rf_is_reciprocal_and_mirrored(grid_array):
    delays = np.full((2, 24), np.nan)
    delays[0, 1] = delays[1, 20] = 0.0
    rf = samples(cloud(10), ussim.Acquisition(grid_array, ussim.CustomTransmits(delays)))
    np.testing.assert_allclose(rf[0, 20], rf[1, 1], rtol=0, atol=1e-12 * np.abs(rf).max())
    points = cloud(10)
    mirrored = ussim.Scatterers(points.x, points.z, points.reflectivity, -points.y)
    acquisition = ussim.Acquisition(grid_array, ussim.PlaneWaves(0.1))
    rf, other = samples(points, acquisition), samples(mirrored, acquisition)
    rows = other.reshape(1, 4, 6, -1)[:, ::-1].reshape(other.shape)
    np.testing.assert_allclose(rows, rf, rtol=0, atol=1e-12 * np.abs(rf).max())


def test_points_without_a_y_lie_in_the_middle(grid_array):
    points = cloud(8)
    acquisition = ussim.Acquisition(grid_array, ussim.PlaneWaves(0.0))
    flat = ussim.Scatterers(points.x, points.z, points.reflectivity)
    deep = ussim.Scatterers(points.x, points.z, points.reflectivity, np.zeros(8))
    for engine in ("reference", "cpu"):
        np.testing.assert_array_equal(samples(flat, acquisition, engine), samples(deep, acquisition, engine))


def test_the_pressure_is_highest_at_the_focus():
    probe = ussim.MatrixProbe("big", 3e6, 0.6, 256, 0.5e-3, 0.45e-3, 0.45e-3, n_rows=16, row_pitch=0.5e-3)
    acquisition = ussim.Acquisition(probe, ussim.FocusedWaves(x=1e-3, z=10e-3, y=-1.5e-3))
    volume = ussim.ImageGrid(
        x=np.linspace(-2e-3, 2e-3, 9), z=np.linspace(7e-3, 13e-3, 7), y=np.linspace(-3e-3, 3e-3, 9)
    )
    field = ussim.pressure_field(acquisition, volume, engine="cpu")
    assert field.shape == (1, 7, 9, 9)
    z, y, x = np.unravel_index(np.argmax(field[0]), volume.shape)
    assert (volume.x[x], volume.y[y]) == (pytest.approx(1e-3), pytest.approx(-1.5e-3))
    assert volume.z[z] == pytest.approx(10e-3, abs=1.1e-3)  # a focus lies a little before that of the times
    plane = ussim.ImageGrid(volume.x, volume.z)
    np.testing.assert_array_equal(ussim.pressure_field(acquisition, plane, engine="cpu", y=-1.5e-3), field[:, :, 2])


# --- engines ---------------------------------------------------------------------------------------------------------

OPTIONS = {
    "nothing": {},
    "full directivity": {"full_frequency_directivity": True},
    "sub-elements and delays": {"n_subelements": 2, "receive_delays": np.linspace(0, 1e-6, 24)},
    "three cycles": {"n_cycles": 3},
}


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("law", LAWS)
def test_the_cpu_engine_equals_the_reference(law, option, grid_array):
    """From 1 mm on and beside the array too: 3e-5 to 4e-5 seen."""
    acquisition = ussim.Acquisition(grid_array, LAWS[law], ussim.Medium(attenuation_db_cm_mhz=0.5), **OPTIONS[option])
    rf = samples(cloud(60), acquisition, "cpu")
    assert relative_error(rf, samples(cloud(60), acquisition, n_samples=rf.shape[-1])) < 1e-4


def test_the_cpu_engines_pressure_and_adjoint_are_the_references(grid_array):
    from ussim.engines.cpu.engine import ENGINE

    waves = ussim.PlaneWaves([0.1, 0.0], elevation_angles=[0.0, 0.2])
    plan = make_plan(ussim.Acquisition(grid_array, waves))
    grid = ussim.ImageGrid(x=np.linspace(-3e-3, 3e-3, 5), z=np.linspace(0.0, 20e-3, 6))
    expected = reference.ENGINE.pressure_field(plan, grid, -60.0, y=1e-3)
    assert relative_error(ENGINE.pressure_field(plan, grid, -60.0, y=1e-3), expected) < 1e-4
    record = np.random.default_rng(0).normal(size=(2, 24, 500))
    back = reference.ENGINE.adjoint(cloud(20), plan, record)
    assert (
        relative_error(ENGINE.adjoint(cloud(20), plan, record), back) < 5e-4
    )  # of noise: float32 sums of many samples


def test_a_card_refuses_to_simulate(grid_array, tmp_path):
    sys.path.insert(0, str(Path(__file__).parent / "host_cuda"))
    from backend import HostBackend, find_compiler

    from ussim.engines.cuda.engine import GpuEngine

    if find_compiler() is None:
        pytest.skip("needs a C++ compiler")
    engine, plan = GpuEngine(HostBackend(tmp_path)), make_plan(ussim.Acquisition(grid_array, ussim.PlaneWaves(0.0)))
    grid = ussim.ImageGrid(x=[0.0], z=[0.01])
    for call in (
        lambda: engine.simulate(cloud(3), plan, 100),
        lambda: engine.adjoint(cloud(3), plan, np.zeros((1, 24, 100))),
        lambda: engine.pressure_field(plan, grid, -60.0),
    ):
        with pytest.raises(EngineError, match="does not simulate matrix arrays"):
            call()


# --- volumes ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recording():
    """A point before an array of 12 x 10 elements: three plane waves and a focused one, demodulated."""
    probe = ussim.MatrixProbe("mid", 3e6, 0.6, 120, 0.3e-3, 0.25e-3, 0.25e-3, n_rows=10, row_pitch=0.3e-3)
    point = ussim.Scatterers([0.8e-3], [12e-3], [1.0], [-0.6e-3])
    sequences = {
        "plane": ussim.PlaneWaves([-0.1, 0.0, 0.15], elevation_angles=[0.1, 0.0, -0.1]),
        "focus": ussim.FocusedWaves(x=0.5e-3, z=9e-3, y=-0.5e-3),
        "source": ussim.DivergingWaves(x=0.0, z=-3e-3, y=1e-3),
    }
    made = {}
    for name, waves in sequences.items():
        acquisition = ussim.Acquisition(probe, waves)
        made[name] = ussim.demodulate(ussim.simulate(point, acquisition, "cpu"))
    return made


VOLUME = ussim.ImageGrid(
    x=np.linspace(-1.6e-3, 1.6e-3, 9), z=np.linspace(11e-3, 13e-3, 11), y=np.linspace(-1.8e-3, 1.8e-3, 7)
)


@pytest.mark.parametrize("name", ["plane", "focus", "source"])
@pytest.mark.parametrize("engine", ["cpu", "reference"])
def test_a_point_is_imaged_where_it_is(recording, name, engine):
    image = ussim.delay_and_sum(recording[name], VOLUME, engine=engine)
    assert image.shape == VOLUME.shape
    z, y, x = np.unravel_index(np.argmax(np.abs(image)), image.shape)
    assert (VOLUME.x[x], VOLUME.y[y], VOLUME.z[z]) == tuple(map(pytest.approx, (0.8e-3, -0.6e-3, 12e-3)))
    plane = ussim.delay_and_sum(recording[name], ussim.ImageGrid(VOLUME.x, VOLUME.z), engine=engine)
    np.testing.assert_allclose(plane, image[:, 3], rtol=1e-5, atol=1e-5 * np.abs(image).max())  # that of y = 0


def test_a_volume_is_the_sum_over_elements_at_their_distances(recording):
    """Written out: linear interpolation, f-number 1 along both sides of the array."""
    iq, f_number = recording["plane"], 1.0
    probe, speed, rate = iq.acquisition.probe, 1540.0, iq.sampling_frequency
    z, y, x = np.meshgrid(VOLUME.z, VOLUME.y, VOLUME.x, indexing="ij")
    ways = [
        np.sqrt((x - ex) ** 2 + (y - ey) ** 2 + z**2) for ex, ey in zip(probe.element_x, probe.element_y, strict=True)
    ]
    expected, count = np.zeros(VOLUME.shape, complex), np.zeros(VOLUME.shape)
    for a in range(3):
        sent = np.min(
            [way / speed + d for way, d in zip(ways, iq.acquisition.transmit_delays[a, 0], strict=True)], axis=0
        )
        for e, way in enumerate(ways):
            seen = np.abs(y - probe.element_y[e]) <= z / (2 * f_number)
            seen &= np.abs(x - probe.element_x[e]) <= np.hypot(z, y - probe.element_y[e]) / (2 * f_number)
            time = sent + way / speed
            trace = iq.samples[a, e]
            at = (time - iq.start_time) * rate
            value = np.interp(at, np.arange(trace.size), trace.real) + 1j * np.interp(
                at, np.arange(trace.size), trace.imag
            )
            expected += seen * value * np.exp(2j * np.pi * iq.demodulation_frequency * time)
            count += seen / 3
    for engine, tolerance in (("reference", 1e-9), ("cpu", 1e-5)):
        image = ussim.delay_and_sum(iq, VOLUME, f_number, interpolation="linear", normalize=False, engine=engine)
        assert relative_error(image, expected) < tolerance
        image = ussim.delay_and_sum(iq, VOLUME, f_number, interpolation="linear", normalize=True, engine=engine)
        assert relative_error(image, expected / count) < tolerance


@pytest.mark.parametrize("compounding", ["coherent", "incoherent", "none"])
def test_the_engines_agree_whatever_is_asked(recording, compounding):
    options = {"compounding": compounding, "apodization": "hann", "f_number": 0.7, "normalize": True}
    weights = np.random.default_rng(0).random((3, *VOLUME.shape))
    images = [
        ussim.delay_and_sum(recording["plane"], VOLUME, engine=engine, transmit_weights=weights, **options)
        for engine in ("reference", "cpu")
    ]
    assert images[0].shape == ((3, *VOLUME.shape) if compounding == "none" else VOLUME.shape)
    assert images[0].dtype == (np.float64 if compounding == "incoherent" else np.complex128)
    assert relative_error(images[1], images[0]) < 1e-5
    if compounding == "none":
        together = ussim.delay_and_sum(
            recording["plane"],
            VOLUME,
            engine="reference",
            transmit_weights=weights,
            **options | {"compounding": "coherent"},
        )
        np.testing.assert_allclose(images[0].sum(axis=0), together, atol=1e-12 * np.abs(together).max())


def test_channels_that_do_not_receive_are_left_out(recording):
    iq = recording["plane"]
    mask = np.ones(120, bool)
    mask[12:24] = mask[5] = False  # a whole row and one more
    masked = replace(iq, acquisition=replace(iq.acquisition, receive_mask=mask))
    silent = replace(iq, samples=iq.samples * mask[:, None])
    options = {"engine": "reference", "normalize": False}
    image = ussim.delay_and_sum(masked, VOLUME, **options)
    np.testing.assert_allclose(image, ussim.delay_and_sum(silent, VOLUME, **options), atol=1e-12 * np.abs(image).max())


# --- values ----------------------------------------------------------------------------------------------------------


def test_a_matrix_array_survives_a_file(grid_array, tmp_path):
    acquisition = ussim.Acquisition(replace(grid_array, path=""), LAWS["plane_+8deg_-12deg"])
    again = acquisition_from_dict(acquisition_to_dict(acquisition))
    assert again.key() == acquisition.key()
    assert isinstance(again.probe, ussim.MatrixProbe)
    rf = ussim.simulate(cloud(3), acquisition, "cpu")
    rf.save(tmp_path / "rf.npz")
    assert ussim.load_channel_data(tmp_path / "rf.npz").acquisition.key() == acquisition.key()
    assert (
        "n_rows"
        not in acquisition_to_dict(replace(acquisition, probe=ussim.load_probe("P4-2v"), waves=ussim.PlaneWaves(0.0)))[
            "probe"
        ]
    )


WRONG = {
    "n_rows = 4": ("n_rows = 5", "divides n_elements"),
    "row_pitch = 0.6e-3": ("row_pitch = 0.5e-3", "at most the row_pitch"),
    'name = "grid"': ('name = "grid"\nradius = 0.04', "a matrix array is flat"),
    "row_pitch = 0.6e-3\n": ("", "row_pitch: expected a value, got none"),
}


@pytest.mark.parametrize("right", WRONG)
def test_a_wrong_file_is_told_in_a_line(right, tmp_path):
    wrong, message = WRONG[right]
    path = tmp_path / "wrong.toml"
    path.write_text(TOML.replace(right, wrong))
    with pytest.raises(ussim.ProbeError, match=message):
        ussim.load_probe(path)


def test_waves_of_two_angles_need_rows():
    probe, medium = ussim.load_probe("P4-2v"), ussim.Medium()
    for waves in LAWS.values():
        with pytest.raises(ValueError, match="expected a matrix array"):
            waves.delays(probe, medium)
    with pytest.raises(ValueError, match="no such wave"):
        ussim.PlaneWaves(1.0, elevation_angles=1.0)
    with pytest.raises(ValueError, match="y: expected x and z"):
        ussim.DivergingWaves(tilts=0.0, width=1.0, y=0.0)


def test_what_is_of_one_row_refuses_a_matrix(grid_array, recording, tmp_path):
    acquisition = ussim.Acquisition(grid_array, ussim.PlaneWaves(0.0))
    rf = ussim.simulate(cloud(3), acquisition, "cpu")
    plane = ussim.ImageGrid(x=[0.0, 1e-3], z=[0.01, 0.011])
    calls = (
        lambda: ussim.field_mask(acquisition, plane),
        lambda: ussim.focused_scan(grid_array, 0.02),
        lambda: ussim.wave_field(acquisition, plane, [1e-6]),
        lambda: ussim.beam_directions(acquisition, plane),
        lambda: ussim.calibrate(rf),
        lambda: rf.save(tmp_path / "rf.mat"),
        lambda: grid_array.plot(),
    )
    for call in calls:
        with pytest.raises(ValueError, match="expected an array of one row, grid is a matrix array"):
            call()
    for wrong, message in (({"combine": "cf"}, 'expected "sum"'), ({"transmit_weights": "line"}, 'expected "beam"')):
        with pytest.raises(ValueError, match=message):
            ussim.delay_and_sum(recording["plane"], VOLUME, **wrong)
    with pytest.raises(ValueError, match="f_number above 0"):
        ussim.delay_and_sum(recording["plane"], VOLUME, 0, apodization="hann")


def test_what_is_of_one_plane_refuses_a_volume(recording):
    acquisition = ussim.Acquisition(ussim.load_probe("P4-2v"), ussim.PlaneWaves(0.0))
    rf = ussim.simulate(cloud(3), acquisition, "cpu")
    calls = (
        lambda: ussim.delay_and_sum(ussim.demodulate(rf), VOLUME),
        lambda: ussim.envelope_image(ussim.demodulate(rf), VOLUME),
        lambda: ussim.scatterers_from_image(np.ones((4, 4)), VOLUME, acquisition),
        lambda: ussim.imaging_operator(acquisition, VOLUME),
        lambda: VOLUME.plot(np.ones((4, 4))),
    )
    for call in calls:
        with pytest.raises(ValueError, match="expected a grid of one plane"):
            call()


def test_the_command_line_draws_no_matrix(grid_array, capsys):
    from ussim.commands import console
    from ussim.commands.cli import cli

    assert console.run(cli, "ussim", ["field", "--probe", grid_array.path]) == 2
    assert "expected an array of one row" in capsys.readouterr().err


def test_a_store_takes_no_matrix(grid_array):
    import datagen

    with pytest.raises(ValueError, match="grid is a matrix array: a store has planes"):
        datagen.Recipe(source="demo", probes=(grid_array.path,)).load_probes()
