"""Silent transmits add nothing, and no input that is accepted makes a kernel read beyond its arrays."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import ussim
from ussim.arrays import to_numpy
from ussim.commands import steps
from ussim.engines import get_engine
from ussim.interpolation import INTERPOLATIONS
from ussim.plan import Beamforming

PROBE = ussim.Probe("small", 3e6, 0.7, 32, 0.3e-3, 0.25e-3)
N = PROBE.n_elements
GRID = ussim.ImageGrid(x=np.linspace(-4e-3, 4e-3, 21), z=np.linspace(4e-3, 16e-3, 24))
POINT = ussim.Scatterers([1e-3], [10e-3], [1.0])
SILENT = np.repeat([[1.0], [0.0], [1.0]], N, axis=1)  # the second of three transmits
OFF = np.where(np.arange(N) < 20, np.nan, 0.0)
WEIGHTS_OF_OFF = np.where(np.arange(N) < 20, 1.0, 0.0)  # where OFF does not fire
SEQUENCES = {
    "plane, weights 0": ussim.PlaneWaves([-0.1, 0.0, 0.1], apodization=SILENT),
    "focused, weights 0": ussim.FocusedWaves(x=[-1e-3, 0.0, 1e-3], z=12e-3, apodization=SILENT),
    "off by NaN, the rest by weights": ussim.CustomTransmits(
        np.stack([np.zeros(N), OFF, np.linspace(0, 1e-7, N)]), np.stack([np.ones(N), WEIGHTS_OF_OFF, np.ones(N)])
    ),
    "off by NaN": ussim.CustomTransmits(np.stack([np.zeros(N), np.full(N, np.nan), np.linspace(0, 1e-7, N)])),
}


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    """Where the card's kernels are compiled, once for all tests."""
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture(params=["cpu", "reference", "cuda"])
def engine(request, kernels):
    """Each engine; the card's on the host."""
    if request.param != "cuda":
        yield request.param
        return
    host_cuda = str(Path(__file__).parent / "host_cuda")
    if host_cuda not in sys.path:
        sys.path.insert(0, host_cuda)
    from backend import find_compiler
    from cupy_on_host import install

    if find_compiler() is None:
        pytest.skip("needs a C++ compiler")
    undo = install(kernels)
    yield "cuda"
    undo()


def records(acquisition, iq=True):
    rng = np.random.default_rng(0)
    samples = rng.standard_normal((acquisition.n_transmits, N, 300)).astype(np.float32)
    if not iq:
        return ussim.RFData(samples, acquisition, 12e6)
    return ussim.IQData(samples + 1j * samples[..., ::-1], acquisition, 12e6, 3e6)


@pytest.mark.parametrize("iq", [True, False])
@pytest.mark.parametrize("name", SEQUENCES)
def test_a_silent_transmit_adds_nothing_to_an_image(engine, name, iq):
    """Whatever noise its record holds: the image is that of the other transmits."""
    data = records(ussim.Acquisition(PROBE, SEQUENCES[name]), iq)
    image = to_numpy(ussim.delay_and_sum(data, GRID, engine=engine))
    without = steps.select_transmits(data, [0, 2])
    expected = ussim.delay_and_sum(without, GRID, engine="reference")
    assert np.linalg.norm(image - expected) < 1e-5 * np.linalg.norm(expected)  # float32


@pytest.mark.parametrize("name", SEQUENCES)
def test_a_silent_transmit_sends_nothing(engine, name):
    acquisition = ussim.Acquisition(PROBE, SEQUENCES[name])
    rf = to_numpy(ussim.simulate(POINT, acquisition, engine).samples)
    assert not rf[1].any()
    assert rf[0].any()
    assert rf[2].any()
    if engine != "cuda":  # whose kernels would be compiled once more
        pressure = ussim.pressure_field(acquisition, GRID, engine=engine)
        assert not pressure[1].any()
        assert pressure[2].all()


def test_a_walking_aperture_beyond_the_array_is_imaged():
    """F/2.5, beams beyond both ends of the array: the outermost have no element."""
    probe = ussim.load_probe("L11-5v")
    x, z = np.linspace(-26e-3, 26e-3, 13), 20e-3
    aperture = (np.abs(probe.element_x - x[:, None]) <= z / 5).astype(float)
    assert not aperture[[0, -1]].any()
    acquisition = ussim.Acquisition(probe, ussim.FocusedWaves(x=x, z=np.full(13, z), apodization=aperture))
    iq = ussim.demodulate(ussim.simulate(ussim.Scatterers([x[6]], [z], [1.0]), acquisition))
    grid = ussim.ImageGrid(x=np.linspace(-2e-3, 2e-3, 41), z=np.linspace(18e-3, 22e-3, 81))
    image = np.abs(ussim.delay_and_sum(iq, grid))
    row, column = np.unravel_index(image.argmax(), image.shape)
    assert abs(grid.x[column] - x[6]) < 0.2e-3
    assert abs(grid.z[row] - z) < 0.1e-3


@pytest.mark.parametrize(
    "make",
    [
        lambda: ussim.PlaneWaves([0.0, 0.1], apodization=np.zeros(N)),
        lambda: ussim.FocusedWaves(x=[0.0, 1e-3], z=10e-3, apodization=np.zeros((2, N))),
        lambda: ussim.CustomTransmits(OFF, WEIGHTS_OF_OFF),
    ],
)
def test_all_transmits_silent_is_one_clear_error(make):
    with pytest.raises(ValueError, match=r"expected a transmit that fires, got none: .* apodization 0"):
        ussim.Acquisition(PROBE, make())


def test_images_summed_by_magnitude_leave_the_silent_out():
    data = records(ussim.Acquisition(PROBE, SEQUENCES["plane, weights 0"]))
    picture = steps.beamform_bmode(data, GRID, 60.0, "incoherent")
    without = steps.select_transmits(data, [0, 2])
    np.testing.assert_array_equal(picture, steps.beamform_bmode(without, GRID, 60.0, "incoherent"))


@pytest.mark.parametrize("start_time", [np.nan, np.inf, -np.inf, [0.0, np.nan, 0.0], [0.0, 1e-6], "soon"])
def test_a_start_time_that_is_none_is_refused(start_time):
    data = records(ussim.Acquisition(PROBE, SEQUENCES["off by NaN"]))
    for record in (data, ussim.RFData(data.samples.real, data.acquisition, 12e6)):
        with pytest.raises(ValueError, match=r"start_time: expected finite seconds|could not convert"):
            replace(record, start_time=start_time)


def test_positions_in_a_record_are_bounded_whatever_the_delays():
    """What kernels index with: never far outside the record, and the same where the echo falls into it."""
    delays = np.where(np.arange(N) < 16, 0.0, 0.3)  # s, millions of samples
    laws = ussim.CustomTransmits(np.stack([np.zeros(N), delays, np.full(N, -0.3)])[:, None])
    law = Beamforming(
        acquisition=ussim.Acquisition(PROBE, laws),
        grid=GRID,
        speed_of_sound=1540.0,
        sampling_frequency=12e6,
        start_time=np.array([0.0, 0.0, 5e-6]),
        demodulation_frequency=3e6,
        f_number=0.0,
        interpolation=INTERPOLATIONS["lanczos5"],
        normalize=False,
    )
    x, z = GRID.mesh()
    positions = law.transmit_samples(x, z, 300, get_engine("reference").arrival_bounds)
    assert (positions > -1000).all()
    assert (positions < 1400).all()
    expected = law.transmit_times(x, z, get_engine("reference").arrival_bounds)[0] * 12e6 + law.interpolation.shift
    np.testing.assert_allclose(positions[0], expected, atol=1e-9)


@pytest.mark.parametrize("engine", ["cpu", "cuda"])
def test_extreme_inputs_give_a_result_or_an_error(engine, kernels):
    """In a process of its own: before, a dozen of these ended it with a segmentation fault."""
    script = Path(__file__).parent / "extreme_inputs.py"
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", str(script), engine, str(kernels)],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert len(lines) > 70
    images = [line for line in lines if line.startswith("image")]
    assert len(images) > 20
    # Weights and sums of float32 may overflow; an image of finite samples does not.
    assert [line for line in images if line.endswith(": not finite")] == []
