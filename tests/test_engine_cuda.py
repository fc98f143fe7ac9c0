"""The engine for NVIDIA cards, without one: its kernels compiled as C++ and run on the host (tests/host_cuda), and compiled
by nvcc or NVRTC. The same cases run on a card with `pytest -m gpu`.

Tolerance of RF, 1e-4 relative L2: float32 with phases relative to the cell's reference gives 1e-5 to 3e-5, of which the
window's tail is 2e-5.
"""

import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.signal import butter, lfilter_zi

import ussim
from ussim import physics
from ussim.arrays import to_numpy
from ussim.beamform import transmit_time
from ussim.beamforming.apertures import automatic_f_number
from ussim.beamforming.weights import beam_weights
from ussim.beamforming.windows import WINDOWS
from ussim.engines import get_engine
from ussim.engines.cpu import beamform as cpu_beamform
from ussim.engines.cuda import cupy as cuda
from ussim.engines.cuda import simulate, structs
from ussim.engines.cuda.backend import read_source
from ussim.engines.cuda.beamform import ANY_SIZES, frames_at_once
from ussim.engines.cuda.engine import GpuEngine
from ussim.engines.cuda.simulate import Tuning, choose_sizes
from ussim.engines.reference import ENGINE as reference
from ussim.errors import EngineError
from ussim.interpolation import INTERPOLATIONS
from ussim.plan import Beamforming, FilterLaw, audible, make_plan

HOST_CUDA = Path(__file__).parent / "host_cuda"
PROBES = ("L11-5v", "L12-3v", "C5-2v", "P4-2v")
RF_TOLERANCE = 1e-4
DAS_TOLERANCE = 2e-6  # float32 sums of some hundred values, delays exact to 1e-6 of a sample: 3e-7 seen
ARCHITECTURES = (75, 80, 86, 89, 90)


@pytest.fixture(scope="session")
def host(tmp_path_factory):
    """The kernels compiled as C++."""
    sys.path.insert(0, str(HOST_CUDA))
    from backend import HostBackend, find_compiler

    if find_compiler() is None:
        pytest.skip("needs a C++ compiler")
    return GpuEngine(HostBackend(tmp_path_factory.mktemp("kernels")))


@pytest.fixture(params=["host", pytest.param("card", marks=pytest.mark.gpu)])
def engine(request):
    """The engine on the host, and on a card where there is one."""
    if request.param == "host":
        return request.getfixturevalue("host")
    if not cuda.device_count():
        pytest.skip(f"needs an NVIDIA card: {cuda.cuda_report()['problem']}")
    return cuda.engine(0)


def relative_error(value, expected):
    return np.linalg.norm(to_numpy(value) - expected) / np.linalg.norm(expected)


def four_waves(probe, medium):
    """A plane, a diverging and a focused wave and one of elements 3, 4, 5, ... each second off, as one sequence."""
    kinds = [
        ussim.PlaneWaves(np.deg2rad(7)),
        ussim.DivergingWaves(x=2e-3, z=min(probe.center_of_curvature, -10e-3) if not probe.is_flat else -10e-3),
        ussim.FocusedWaves(x=5e-3, z=30e-3),
    ]
    delays = np.concatenate([kind.delays(probe, medium) for kind in kinds] + [np.full((1, probe.n_elements), np.nan)])
    delays[3, 3::2] = np.linspace(0, 2e-6, probe.n_elements)[3::2] ** 2 * 4e5
    return ussim.CustomTransmits(delays)


def some_scatterers(probe, n=9, seed=0):
    """1 mm from the array, at the field's edges, and in a cluster in the middle: few cells."""
    rng = np.random.default_rng(seed)
    (x0, x1), (z0, z1) = probe.imaging.x, probe.imaging.z
    front = 0.0 if probe.is_flat else probe.radius + probe.center_of_curvature
    x = np.concatenate([[0.3e-3, x0, x1], rng.uniform(-2e-3, 2e-3, n - 3)])
    z = np.concatenate([[front + 1e-3, z1, z0 + 5e-3], rng.uniform(0.5, 0.55, n - 3) * z1])
    return ussim.Scatterers(x, z, rng.normal(size=n))


def simulate_both(engine, scatterers, acquisition, n_samples=None, start_sample=0):
    plan = make_plan(acquisition)
    heard = audible(scatterers, acquisition)
    if n_samples is None:
        longest = plan.longest_distance(heard.x, heard.z)
        n_samples = int(plan.echo_end(longest) * acquisition.sampling_frequency) + 1
    arguments = (heard, plan, n_samples, start_sample)
    return engine.simulate(*arguments), reference.simulate(*arguments)


# --- formulas --------------------------------------------------------------------------------------------------------

FORMULAS = """
extern "C" __global__ void formulas(const float* dx, const float* dz, const float* angle, float baffle, float width, int n,
                                    float* out) {
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        const float distance = sqrtf(dx[i] * dx[i] + dz[i] * dz[i]);
        const float2 theta = incidence(dx[i], dz[i], distance, sinf(angle[i]), cosf(angle[i]));
        out[4 * i] = theta.x;
        out[4 * i + 1] = theta.y;
        out[4 * i + 2] = obliquity(theta.y, baffle);
        out[4 * i + 3] = directivity(theta.x, width);
    }
}
"""


@pytest.mark.parametrize("baffle", [0.0, 1.75, np.inf])
def test_formulas_are_those_of_physics(host, baffle):
    rng = np.random.default_rng(4)
    dx, dz, angle = (rng.uniform(-1, 1, 500).astype(np.float32) for _ in range(3))
    out = np.empty((500, 4), np.float32)
    launch = host.backend.kernels_of_source(read_source("physics.cuh") + FORMULAS, {})
    launch("formulas", (1,), 32, dx, dz, angle, np.float32(baffle), np.float32(2.6), np.int32(500), out)
    dx, dz, angle = (a.astype(np.float64) for a in (dx, dz, angle))
    sine, cosine = physics.incidence(dx, dz, np.sin(angle), np.cos(angle))
    expected = [sine, cosine, physics.obliquity(cosine, baffle), physics.directivity(sine, 2.6)]
    np.testing.assert_allclose(out, np.stack(expected, axis=1), atol=1e-6)  # float32


def test_formulas_come_in_the_order_of_physics():
    names = re.findall(r"^def (\w+)", Path(physics.__file__).read_text(), flags=re.MULTILINE)
    transcribed = re.findall(r"^__device__ inline \w+ (\w+)\(", read_source("physics.cuh"), flags=re.MULTILINE)
    shared = ["incidence", "obliquity", "directivity", "elevation_beam"]
    assert [name for name in transcribed if name in names] == shared
    assert [name for name in names if name in transcribed] == shared


# --- simulation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROBES)
@pytest.mark.parametrize("attenuation", [0.0, 0.7])
def test_echoes_equal_the_reference(engine, name, attenuation):
    probe, medium = ussim.load_probe(name), ussim.Medium(attenuation_db_cm_mhz=attenuation)
    acquisition = ussim.Acquisition(probe, four_waves(probe, medium), medium)
    echoes, expected = simulate_both(engine, some_scatterers(probe), acquisition)
    for transmit in range(4):
        assert relative_error(echoes[transmit], expected[transmit]) < RF_TOLERANCE


OPTIONS = {
    "full_frequency_directivity": {"full_frequency_directivity": True},
    "rigid baffle": {"baffle": "rigid"},
    "impedance ratio": {"baffle": 1.75},
    "three cycles": {"n_cycles": 3},
    "chirp": {"n_cycles": 6, "frequency_sweep": 2e6},
    "receive delays": {"receive_delays": np.linspace(0, 1.7e-6, 24)},
    "four sub-elements": {"n_subelements": 4},
    "sampled faster": {"sampling_frequency": 20e6},
    "backscatter": {"medium": ussim.Medium(1540.0, 0.3, backscatter_exponent=4.0)},
    "aberration": {"aberration": ussim.PhaseScreen(60e-9, 2e-3, seed=3)},
    "element errors": {"element_errors": ussim.ElementErrors(3.0, dead=(5,), dead_fraction=0.1)},
}


@pytest.fixture
def small_array():
    """24 elements: less than a warp's lanes."""
    return ussim.Probe("small", 3e6, 0.7, 24, 0.3e-3, 0.25e-3)


def test_an_odd_number_of_channels(engine):
    probe = ussim.Probe("odd", 3e6, 0.7, 33, 0.3e-3, 0.25e-3)
    acquisition = ussim.Acquisition(probe, ussim.PlaneWaves(np.deg2rad([-5, 0, 5])))
    rng = np.random.default_rng(3)
    scatterers = ussim.Scatterers(rng.uniform(-4e-3, 4e-3, 12), rng.uniform(1e-3, 20e-3, 12), rng.normal(size=12))
    echoes, expected = simulate_both(engine, scatterers, acquisition)
    assert relative_error(echoes, expected) < RF_TOLERANCE


@pytest.mark.parametrize("option", OPTIONS)
def test_options_equal_the_reference(engine, small_array, option):
    settings = dict(OPTIONS[option])
    probe = replace(small_array, baffle=settings.pop("baffle", "soft"))
    apodization = np.hanning(24) + 0.1
    waves = ussim.PlaneWaves(np.deg2rad([-5, 12]), apodization=apodization)
    acquisition = ussim.Acquisition(probe, waves, **{"medium": ussim.Medium(attenuation_db_cm_mhz=0.3)} | settings)
    rng = np.random.default_rng(1)
    scatterers = ussim.Scatterers(rng.uniform(-4e-3, 4e-3, 12), rng.uniform(1e-3, 20e-3, 12), rng.normal(size=12))
    echoes, expected = simulate_both(engine, scatterers, acquisition)
    assert relative_error(echoes, expected) < RF_TOLERANCE


def test_many_transmits_go_in_groups(engine, small_array):
    acquisition = ussim.Acquisition(small_array, ussim.PlaneWaves(np.deg2rad(np.linspace(-20, 20, 35))))
    assert choose_sizes(make_plan(acquisition), 48 * 1024)["TRANSMITS"] == 12
    scatterers = ussim.Scatterers([0.0, 1e-3], [10e-3, 12e-3], [1.0, -1.0])
    echoes, expected = simulate_both(engine, scatterers, acquisition)
    assert relative_error(echoes, expected) < RF_TOLERANCE


def test_simultaneous_laws_add_up(engine, small_array):
    delays = np.stack([np.linspace(0, 1e-6, 24), np.linspace(1e-6, 0, 24)])[None]
    acquisition = ussim.Acquisition(small_array, ussim.CustomTransmits(delays))
    echoes, expected = simulate_both(engine, ussim.Scatterers([1e-3], [15e-3], [1.0]), acquisition)
    assert relative_error(echoes, expected) < RF_TOLERANCE


def test_a_record_may_start_late_and_end_early(engine, small_array):
    acquisition = ussim.Acquisition(small_array, ussim.PlaneWaves(0.0))
    scatterers = ussim.Scatterers([0.0, 2e-3], [10e-3, 14e-3], [1.0, 0.5])
    echoes, expected = simulate_both(engine, scatterers, acquisition, n_samples=77, start_sample=150)
    assert echoes.shape == (1, 24, 77)
    assert relative_error(echoes, expected) < RF_TOLERANCE


def test_every_block_shape_gives_the_same(host, small_array):
    acquisition = ussim.Acquisition(small_array, ussim.PlaneWaves(np.deg2rad([-5, 0, 5])))
    scatterers = ussim.Scatterers(np.linspace(-1e-3, 1e-3, 70), np.full(70, 10e-3), np.ones(70))  # more than a tile
    for tuning in (Tuning(1, 2, 2), Tuning(1, 4, 6), Tuning(2, 2, 6), Tuning(2, 4, 1)):
        echoes, expected = simulate_both(GpuEngine(host.backend, tuning), scatterers, acquisition)
        assert relative_error(echoes, expected) < RF_TOLERANCE


def test_a_medium_does_not_depend_on_the_others_or_on_memory(engine, small_array):
    """To the byte: a dataset made image by image, in batches, or on a smaller card is one dataset."""
    medium = ussim.Medium(attenuation_db_cm_mhz=0.5)
    acquisition = ussim.Acquisition(small_array, ussim.PlaneWaves(np.deg2rad([-5, 5])), medium)
    plan = make_plan(acquisition)
    rng = np.random.default_rng(2)
    media = [
        ussim.Scatterers(rng.uniform(-6e-3, 6e-3, n), rng.uniform(2e-3, 30e-3, n), rng.normal(size=n))
        for n in (25, 0, 3)
    ]
    together = to_numpy(engine.simulate_batch(media, plan, 700))
    for k, scatterers in enumerate(media):
        np.testing.assert_array_equal(to_numpy(engine.simulate(scatterers, plan, 700)), together[k])
    np.testing.assert_array_equal(to_numpy(engine.simulate_batch(media, plan, 700, max_memory=400e3)), together)
    assert not together[1].any()


def test_the_next_media_are_cut_while_the_card_is_at_work(host, small_array, monkeypatch):
    plan = make_plan(ussim.Acquisition(small_array, ussim.PlaneWaves(0.0)))
    done = []
    cut, queue = simulate.Simulator._cut, host.backend.inverse_transform
    monkeypatch.setattr(simulate.Simulator, "_cut", lambda self, media: done.append("cut") or cut(self, media))
    monkeypatch.setattr(host.backend, "inverse_transform", lambda *each: done.append("queue") or queue(*each))
    monkeypatch.setattr(host.backend, "mark", lambda: lambda: done.append("wait"))
    media = [ussim.Scatterers([0.0], [10e-3], [1.0])] * (3 * simulate.IMAGES)
    host.simulate_batch(media, plan, 400)
    assert done == ["cut", "queue"] * 3 + ["wait"]  # for the first, so that ctrl-C is heard


def test_the_band_of_a_plan_is_found_once(small_array, monkeypatch):
    found = []
    spectrum = physics.excitation_spectrum
    monkeypatch.setattr(physics, "excitation_spectrum", lambda f, *rest: found.append(len(f)) or spectrum(f, *rest))
    plan = make_plan(ussim.Acquisition(small_array, ussim.PlaneWaves(0.0)))
    bands = [plan.band() for _ in range(3)]
    assert len(found) == 1
    assert bands[0] == bands[1] == bands[2] == plan.band(plan.acquisition.threshold_db)
    low, high = plan.band(-6.0)
    assert bands[0][0] < low < high < bands[0][1]
    assert len(found) == 2


def test_equal_acquisitions_share_tables_and_others_do_not(host, small_array):
    def simulate(**settings):
        acquisition = ussim.Acquisition(small_array, ussim.PlaneWaves(0.1), **settings)
        host.simulate(ussim.Scatterers([0.0], [10e-3], [1.0]), make_plan(acquisition), 400)
        return next(reversed(host._simulators.values()))

    first = simulate()
    assert simulate() is first
    changes = [{"n_cycles": 2}, {"medium": ussim.Medium(1500.0)}, {"receive_delays": np.full(24, 1e-7)}]
    changes += [
        {"transmit_frequency": 4.1e6},
        {"waveform": (np.ones(9), 50e6)},
        {"impulse_response": (np.ones(9), 50e6)},
    ]
    for change in changes:
        assert simulate(**change) is not first


def test_crowded_and_distant_scatterers(engine, small_array):
    """More than one cell's worth at one place, and one so far that a table of all squares between would be too large."""
    acquisition = ussim.Acquisition(small_array, ussim.PlaneWaves(0.0), n_subelements=1)
    plan = make_plan(acquisition)
    point = ussim.Scatterers(np.zeros(1), np.full(1, 5e-3), np.full(1, 1300.0))
    crowd = ussim.Scatterers(np.zeros(1300), np.full(1300, 5e-3), np.ones(1300))
    alone, crowded = (to_numpy(engine.simulate(s, plan, 400)) for s in (point, crowd))
    assert relative_error(crowded, alone) < 1e-5  # 1300 float32 sums
    far = ussim.Scatterers([0.0, 9.0], [5e-3, 9.0], [1300.0, 1.0])
    assert relative_error(engine.simulate(far, plan, 400), alone) < RF_TOLERANCE


def test_too_little_memory_says_what_would_do(engine, small_array):
    plan = make_plan(ussim.Acquisition(small_array, ussim.PlaneWaves(0.0)))
    scatterers = ussim.Scatterers([0.0], [10e-3], [1.0])
    with pytest.raises(EngineError, match=r"largest cell needs \d+ MB"):
        engine.simulate(scatterers, plan, 400, max_memory=1e3)
    with pytest.raises(EngineError, match=r"give at most \d+ media at once"):
        engine.simulate_batch([scatterers] * 3, plan, 10**11)


@pytest.mark.parametrize("name", ["P4-2v", "C5-2v"])
def test_pressure_equals_the_reference(engine, name):
    probe = ussim.load_probe(name)
    acquisition = ussim.Acquisition(probe, four_waves(probe, ussim.Medium()), ussim.Medium(attenuation_db_cm_mhz=0.3))
    plan = make_plan(acquisition)
    grid = ussim.ImageGrid(x=np.linspace(-20e-3, 20e-3, 5), z=np.linspace(-1e-3, 60e-3, 6))
    pressure, expected = (to_numpy(e.pressure_field(plan, grid, -60.0)) for e in (engine, reference))
    assert not pressure[:, 0].any()
    # Two steps of the same integral over frequency, cut where |S B| is -60 dB: 1e-3 of the energy of its weakest pixels.
    np.testing.assert_allclose(pressure, expected, rtol=2e-3)


# --- beamforming -----------------------------------------------------------------------------------------------------


def beamforming(acquisition, grid, interpolation="linear", iq=True, f_number=None, normalize=False):
    probe, c = acquisition.probe, acquisition.medium.speed_of_sound
    return Beamforming(
        acquisition=acquisition,
        grid=grid,
        speed_of_sound=c,
        sampling_frequency=acquisition.sampling_frequency,
        start_time=1e-6,
        demodulation_frequency=0.97 * probe.center_frequency if iq else 0.0,
        f_number=automatic_f_number(probe, c) if f_number is None else f_number,
        interpolation=INTERPOLATIONS[interpolation],
        normalize=normalize,
    )


def some_channels(acquisition, n_samples, n_frames, iq, seed=0):
    rng = np.random.default_rng(seed)
    shape = (n_frames, acquisition.n_transmits, acquisition.probe.n_elements, n_samples)
    samples = rng.normal(size=shape).astype(np.float32)
    return samples + 1j * rng.normal(size=shape).astype(np.float32) if iq else samples


@pytest.mark.parametrize("name", PROBES)
@pytest.mark.parametrize("iq", [True, False])
def test_delay_and_sum_equals_the_reference(engine, name, iq):
    probe = ussim.load_probe(name)
    delays = np.linspace(0, 3e-7, probe.n_elements)
    waves = four_waves(probe, ussim.Medium())
    acquisition = ussim.Acquisition(probe, waves, receive_delays=delays)
    grid = ussim.ImageGrid.for_acquisition(acquisition, (15, 18))
    n_samples = int(1.7 * grid.z[-1] / 1540 * acquisition.sampling_frequency)  # some pixels are outside the record
    samples = some_channels(acquisition, n_samples, 3, iq)
    images = to_numpy(engine.delay_and_sum(samples, beamforming(acquisition, grid, iq=iq)))
    assert images.dtype == (np.complex64 if iq else np.float32)
    law = beamforming(acquisition, grid, iq=iq)
    for k, frame in enumerate(samples):
        assert relative_error(images[k], reference.delay_and_sum(frame, law)) < DAS_TOLERANCE


@pytest.mark.parametrize("iq", [True, False])
def test_delay_and_sum_of_masked_channels_equals_the_reference(engine, small_array, iq):
    waves = ussim.PlaneWaves(np.deg2rad(np.linspace(-20, 20, 18)))
    rng = np.random.default_rng(0)
    grid = ussim.ImageGrid(x=np.linspace(-5e-3, 5e-3, 40), z=np.linspace(0, 20e-3, 9))
    for mask in (np.arange(24) < 12, (rng.random((18, 24)) < 0.4) & (np.arange(24) != 3)):
        acquisition = ussim.Acquisition(small_array, waves, receive_mask=mask)
        samples = some_channels(acquisition, 400, 3, iq)
        samples[:, ~acquisition.receiving] = np.nan  # never read
        images, expected = (
            to_numpy(e.delay_and_sum(samples, beamforming(acquisition, grid, iq=iq, normalize=True)))
            for e in (engine, reference)
        )
        assert relative_error(images, expected) < DAS_TOLERANCE


@pytest.mark.parametrize(
    "options",
    [
        {"transmit_frequency": 4e6, "n_cycles": 3},
        {"waveform": (np.hanning(40), 50e6)},
        {"impulse_response": (np.hanning(33) * np.cos(0.9 * np.arange(33)), 20e6)},
    ],
)
def test_other_excitations_equal_the_reference(engine, small_array, options):
    acquisition = ussim.Acquisition(small_array, ussim.PlaneWaves(0.1), ussim.Medium(1540.0, 0.4), **options)
    plan = make_plan(acquisition)
    scatterers = ussim.Scatterers([0.0, 1e-3], [10e-3, 12e-3], [1.0, -0.5])
    rf, expected = (to_numpy(e.simulate(scatterers, plan, 500)) for e in (engine, reference))
    assert relative_error(rf, expected) < RF_TOLERANCE


def test_continuous_wave_equals_the_reference(engine, small_array):
    acquisition = ussim.Acquisition(small_array, ussim.PlaneWaves(0.1), n_cycles=np.inf)
    grid = ussim.ImageGrid(x=np.linspace(-5e-3, 5e-3, 5), z=np.linspace(1e-3, 20e-3, 9))
    fields = [to_numpy(e.pressure_field(make_plan(acquisition), grid, -60.0)) for e in (engine, reference)]
    np.testing.assert_allclose(*fields, rtol=1e-6)  # float32 of the same numbers


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_interpolations_equal_the_reference(engine, small_array, interpolation):
    acquisition = ussim.Acquisition(small_array, ussim.FocusedWaves(x=[0.0, 2e-3], z=[10e-3, 8e-3]))
    grid = ussim.ImageGrid(x=np.linspace(-5e-3, 5e-3, 40), z=np.linspace(0, 20e-3, 9))
    samples = some_channels(acquisition, 400, 1, True)[0]
    law = beamforming(acquisition, grid, interpolation, f_number=0.0, normalize=True)
    image, expected = engine.delay_and_sum(samples, law), reference.delay_and_sum(samples, law)
    assert relative_error(image, expected) < 1e-5  # the interpolation table's steps: 1e-6 a weight


def test_delay_and_sum_of_many_transmits_and_simultaneous_laws(engine, small_array):
    many = ussim.PlaneWaves(np.deg2rad(np.linspace(-20, 20, 35)))
    laws = ussim.CustomTransmits(np.stack([np.linspace(0, 1e-6, 24), np.linspace(1e-6, 0, 24)])[None])
    grid = ussim.ImageGrid(x=np.linspace(-5e-3, 5e-3, 10), z=np.linspace(1e-3, 20e-3, 9))
    for waves in (many, laws):
        acquisition = ussim.Acquisition(small_array, waves)
        samples = some_channels(acquisition, 400, 1, True)[0]
        image = engine.delay_and_sum(samples, beamforming(acquisition, grid))
        expected = reference.delay_and_sum(samples, beamforming(acquisition, grid))
        assert relative_error(image, expected) < DAS_TOLERANCE


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("iq", [True, False])
def test_windows_over_the_aperture_equal_the_reference(engine, iq, masked):
    probe = replace(ussim.load_probe("C5-2v"), n_elements=24)
    mask = (np.random.default_rng(1).random((3, 24)) < 0.6) & (np.arange(24) != 3) if masked else None
    acquisition = ussim.Acquisition(probe, ussim.PlaneWaves(np.deg2rad([-10, 0, 10])), receive_mask=mask)
    grid = ussim.ImageGrid(x=np.linspace(-15e-3, 15e-3, 40), z=np.linspace(-1e-3, 30e-3, 9))
    samples = some_channels(acquisition, 700, 2, iq)
    gains = np.random.default_rng(2).uniform(0, 2, 24).round()  # some of them 0
    rows = ("hann", None, 1.2), ("tukey", None, 0.7), ("boxcar", gains, 0.0), ("blackman", gains, 1.0)
    for window, weights, f_number in rows:  # to normalize by windows alone would divide by their rounded ends, nearly 0
        law = beamforming(acquisition, grid, iq=iq, f_number=f_number, normalize=window == "boxcar")
        law = replace(law, window=WINDOWS[window], gains=weights)
        images, expected = to_numpy(engine.delay_and_sum(samples, law)), reference.delay_and_sum(samples, law)
        assert relative_error(images, expected) < 2 * DAS_TOLERANCE  # the window in float32 beside: 1e-7 a weight


@pytest.mark.parametrize("kind", ["polar", "line of points", "volume of points"])
def test_any_grid_equals_the_reference(engine, small_array, kind):
    acquisition = ussim.Acquisition(small_array, ussim.FocusedWaves(x=[0.0, 2e-3], z=[10e-3, 8e-3]))
    rng = np.random.default_rng(0)
    shape = (37,) if kind == "line of points" else (3, 4, 5)
    points = ussim.PointGrid(rng.uniform(-5e-3, 5e-3, shape), rng.uniform(-1e-3, 20e-3, shape))
    polar = ussim.PolarGrid(np.linspace(4e-3, 20e-3, 9), np.linspace(-0.5, 0.5, 40), apex=-3e-3)
    grid = polar if kind == "polar" else points
    samples = some_channels(acquisition, 400, 2, True)
    for compounding in ("coherent", "none"):
        law = replace(beamforming(acquisition, grid), weights=beam_weights(acquisition, grid), compounding=compounding)
        images, expected = to_numpy(engine.delay_and_sum(samples, law)), reference.delay_and_sum(samples, law)
        assert images.shape == expected.shape == ((2, 2, *grid.shape) if compounding == "none" else (2, *grid.shape))
        assert expected.any()
        assert relative_error(images, expected) < DAS_TOLERANCE


@pytest.mark.parametrize("transmits", [1, 3])
@pytest.mark.parametrize("n_frames", [1, 2, 7, 17])
def test_frames_together_are_those_one_by_one(engine, small_array, transmits, n_frames):
    acquisition = ussim.Acquisition(small_array, ussim.PlaneWaves(np.linspace(0, 0.1, transmits)))
    grid = ussim.ImageGrid(x=np.linspace(-5e-3, 5e-3, 9), z=np.linspace(1e-3, 20e-3, 5))
    samples = some_channels(acquisition, 300, n_frames, True)
    images = to_numpy(engine.delay_and_sum(samples, beamforming(acquisition, grid)))
    for frame, image in zip(samples, images, strict=True):
        np.testing.assert_array_equal(to_numpy(engine.delay_and_sum(frame, beamforming(acquisition, grid))), image)


def test_frames_of_a_thread_are_as_many_as_pay():
    assert [frames_at_once(n, 1) for n in (0, 1, 2, 3, 5, 16, 17, 100)] == [1, 1, 2, 2, 4, 16, 8, 16]
    assert [frames_at_once(n, 15) for n in (1, 2, 3, 16)] == [1, 2, 2, 2]
    assert max(frames_at_once(n, m) * m for n in range(40) for m in range(1, 17)) <= 32


@pytest.mark.parametrize("interpolation", ["linear", "lanczos3"])
def test_nothing_is_read_beside_the_records(host, small_array, interpolation):
    """Records end where the image does not, sample for sample: a NaN on either side would show."""
    probe = replace(small_array, n_elements=2)
    acquisition = ussim.Acquisition(probe, ussim.PlaneWaves(0.0))
    grid = ussim.ImageGrid(x=[0.0], z=np.linspace(0, 5e-3, 1500))
    for n_samples in (1, 2, 3, 8, 60):
        around = np.full((2 * n_samples + 40,), np.nan, np.complex64)
        samples = around[20:-20].reshape(1, 2, n_samples)
        samples[...] = some_channels(acquisition, n_samples, 1, True)[0]
        law = beamforming(acquisition, grid, interpolation, f_number=0.0)
        image = host.delay_and_sum(samples, law)
        assert relative_error(image, reference.delay_and_sum(samples, law)) < 1e-5


def test_combinations_of_elements_are_refused_in_one_line(engine, small_array):
    acquisition = ussim.Acquisition(small_array, ussim.PlaneWaves(0.0))
    grid = ussim.ImageGrid(x=[0.0], z=[10e-3])
    law = replace(beamforming(acquisition, grid), combination=ussim.MinimumVariance())
    with pytest.raises(ussim.EngineError, match='combine "mv" is computed on the CPU: use engine="cpu"'):
        engine.delay_and_sum(some_channels(acquisition, 400, 1, True), law)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("compounding", ["coherent", "incoherent", "none"])
@pytest.mark.parametrize("iq", [True, False])
def test_weights_and_compounding_equal_the_reference(engine, small_array, iq, compounding, weighted, normalize):
    acquisition = ussim.Acquisition(small_array, ussim.FocusedWaves(x=np.linspace(-4e-3, 4e-3, 19), z=9e-3))
    grid = ussim.ImageGrid(x=np.linspace(-5e-3, 5e-3, 40), z=np.linspace(-1e-3, 20e-3, 9))
    weights = beam_weights(acquisition, grid)
    assert not weights.flags.writeable
    samples = some_channels(acquisition, 400, 3, iq)
    for values in (weights, weights.copy(), -weights) if weighted else (None,):
        law = beamforming(acquisition, grid, iq=iq, normalize=normalize)
        law = replace(law, weights=values, compounding=compounding)
        images, expected = to_numpy(engine.delay_and_sum(samples, law)), reference.delay_and_sum(samples, law)
        assert images.shape == expected.shape == ((3, 19, *grid.shape) if compounding == "none" else (3, *grid.shape))
        assert images.dtype == (np.complex64 if iq and compounding != "incoherent" else np.float32)
        assert relative_error(images, expected) < DAS_TOLERANCE


@pytest.mark.parametrize("n_samples", [1, 2, 19, 300])
@pytest.mark.parametrize("cutoff", [0.02, 0.19, 0.5])
@pytest.mark.parametrize("double_cost", [2, 64])  # of a card for computing, and of one for games
def test_filter_equals_the_cpu_engine(engine, n_samples, cutoff, double_cost, monkeypatch):
    monkeypatch.setattr(engine.backend, "double_cost", double_cost)
    samples = np.random.default_rng(0).normal(size=(2, 3, n_samples)).astype(np.float32)
    numerator, denominator = butter(5, cutoff)
    carrier = 2 * np.exp(-0.7j * np.arange(n_samples))
    law = FilterLaw(carrier, numerator, denominator, lfilter_zi(numerator, denominator), min(18, n_samples - 1))
    expected = np.empty((6, n_samples), np.complex64)
    cpu_beamform.mix_and_filter(samples.reshape(6, n_samples), *law, expected)
    # the carrier and what lies between the passes are float32
    assert relative_error(engine.mix_and_filter(samples, law), expected.reshape(samples.shape)) < 2e-6


# --- the whole line --------------------------------------------------------------------------------------------------


@pytest.fixture
def cupy_on_host(host):
    """`import cupy` finds a stand-in over the host's kernels: `ussim.engines.cuda` itself runs."""
    from cupy_on_host import install

    undo = install(host.backend.folder)
    yield
    undo()


def _cupy_error(module, name, base=RuntimeError):
    return type(name, (base,), {"__module__": module})


DEVICE_ERRORS = {
    "runtime": _cupy_error("cupy_backends.cuda.api.runtime", "CUDARuntimeError")(
        "cudaErrorIllegalAddress: illegal access"
    ),
    "driver": _cupy_error("cupy_backends.cuda.api.driver", "CUDADriverError")(
        "CUDA_ERROR_LAUNCH_FAILED: launch failed"
    ),
    "cufft": _cupy_error("cupy.cuda.cufft", "CuFFTError")("CUFFT_INTERNAL_ERROR"),
    "no libcufft": ImportError("libcufft.so.11: cannot open shared object file: No such file or directory"),
}


@pytest.mark.parametrize("error", DEVICE_ERRORS.values(), ids=DEVICE_ERRORS)
@pytest.mark.parametrize("where", ["kernel", "transform", "copy home", "copy of a result", "image", "memory"])
def test_an_error_of_the_card_is_an_engine_error_wherever_it_surfaces(
    cupy_on_host, small_array, monkeypatch, error, where
):
    """Kernels run asynchronously: what one of them did may be reported by any later call."""
    import cupy

    acquisition = ussim.Acquisition(small_array, ussim.PlaneWaves([0.0]))
    scatterers = ussim.Scatterers([0.0], [8e-3], [1.0])
    grid = ussim.ImageGrid(x=np.linspace(-1e-3, 1e-3, 3), z=np.linspace(5e-3, 9e-3, 5))
    card = cuda.engine(0)
    rf = ussim.simulate(scatterers, acquisition, "cuda")
    image = ussim.delay_and_sum(ussim.demodulate(rf), grid, engine="cuda")

    def fail(*arguments, **options):
        raise error

    calls = {
        "kernel": (card.backend, "kernels", lambda: ussim.delay_and_sum(rf, grid, engine="cuda")),
        "transform": (card.backend, "inverse_transform", lambda: ussim.simulate(scatterers, acquisition, "cuda")),
        "copy home": (card.backend, "to_host", lambda: transmit_time(acquisition, grid.x, 8e-3, engine="cuda")),
        "copy of a result": (cupy.ndarray, "get", rf.to_numpy),
        "image": (cupy.ndarray, "max", lambda: ussim.log_compress(image)),
        "memory": (card.backend, "free_memory", card.free_memory),
    }
    owner, name, call = calls[where]
    monkeypatch.setattr(owner, name, fail)
    with pytest.raises(EngineError, match=r'the card failed .*engine="cpu"'):
        call()


def test_errors_of_others_are_not_the_cards(cupy_on_host):
    from ussim.arrays import device_errors

    for error in (RuntimeError("dictionary changed size"), ValueError("cupy"), OSError("disk full"), MemoryError()):
        with pytest.raises(type(error)) as raised, device_errors("cuda"):
            raise error
        assert raised.value is error


@pytest.fixture(params=["host", pytest.param("card", marks=pytest.mark.gpu)])
def card(request):
    """engine="cuda" works: on a card, or on the stand-in."""
    if request.param == "host":
        request.getfixturevalue("cupy_on_host")
    elif not cuda.device_count():
        pytest.skip(f"needs an NVIDIA card: {cuda.cuda_report()['problem']}")


def test_a_real_scanner_is_the_same_on_the_card(card, small_array):
    """Everything between echoes and samples: the same noise, gains and times, whatever simulates."""
    acquisition = ussim.Acquisition(
        small_array,
        ussim.PlaneWaves(np.deg2rad([-5, 5])),
        ussim.Medium(1540.0, 0.5, backscatter_exponent=2.0),
        receive_mask=np.arange(24) != 11,
        aberration=ussim.PhaseScreen(40e-9, 2e-3),
        element_errors=ussim.ElementErrors(2.0, dead=(4,)),
        receive_chain=ussim.ReceiveChain(25.0, None, ussim.TimeGain([0.0, 20e-3], [0.0, 12.0]), True, 1e-9, 24),
    )
    media = [ussim.Scatterers([0.0, 2e-3], [9e-3, 14e-3], [1.0, level]) for level in (-1.0, 0.5)]
    expected = ussim.simulate_stack(media, acquisition, "reference", n_samples=600)
    got = ussim.simulate_stack(media, acquisition, "cuda", n_samples=600)
    assert type(got.samples).__module__.startswith("cupy")
    assert relative_error(got.samples, expected.samples) < RF_TOLERANCE
    assert not to_numpy(got.samples)[:, :, 11].any()
    coarse = replace(acquisition, receive_chain=replace(acquisition.receive_chain, n_bits=8))
    coded = to_numpy(ussim.simulate_stack(media, coarse, "cuda", n_samples=600).samples)
    step = np.abs(to_numpy(got.samples)).max(axis=(1, 2, 3), keepdims=True) / 2**7
    np.testing.assert_allclose(coded / step, np.rint(coded / step), atol=1e-3)


def test_image_to_bmode_stays_on_the_card(card, small_array):
    acquisition = ussim.Acquisition(small_array, ussim.PlaneWaves(np.deg2rad([-5, 5])))
    grid = ussim.ImageGrid(x=np.linspace(-4e-3, 4e-3, 20), z=np.linspace(5e-3, 15e-3, 24))
    image = np.random.default_rng(0).random((8, 8))
    scatterers = ussim.scatterers_from_image(image, grid, acquisition, mean_distance=1.5e-3)
    assert get_engine("auto") is get_engine("cuda") is get_engine("cuda:0")
    assert get_engine("auto").name == "cuda"
    rf = ussim.simulate(scatterers, acquisition)
    iq = ussim.demodulate(rf)
    picture = ussim.log_compress(ussim.delay_and_sum(iq, grid))
    for array in (rf.samples, iq.samples, picture):
        assert type(array).__module__.partition(".")[0] == "cupy"
    host_rf = rf.to_numpy()
    assert type(host_rf.samples) is np.ndarray
    expected = ussim.simulate(scatterers, acquisition, engine="reference")
    assert relative_error(host_rf.samples, expected.samples) < RF_TOLERANCE
    expected_iq = ussim.demodulate(expected)
    assert relative_error(iq.to_numpy().samples, expected_iq.samples) < RF_TOLERANCE
    expected_picture = ussim.log_compress(ussim.delay_and_sum(expected_iq, grid, engine="reference"))
    # -40 dB is 1e-2 of the peak: an error of 1e-4 there is 1 % of the value, 0.09 dB of 40
    np.testing.assert_allclose(to_numpy(picture), expected_picture, atol=3e-3)
    first, second = ussim.simulate_batch([scatterers, scatterers], acquisition)
    np.testing.assert_array_equal(to_numpy(first.samples), host_rf.samples)
    np.testing.assert_array_equal(to_numpy(second.samples), host_rf.samples)
    assert ussim.delay_and_sum(rf, grid, engine="cpu").dtype == np.float32  # data on the card, work on the host


def test_a_stack_stays_on_the_card_and_gives_each_mediums_image(card, small_array):
    acquisition = ussim.Acquisition(small_array, ussim.PlaneWaves(np.deg2rad([-5, 5])))
    grid = ussim.ImageGrid(x=np.linspace(-4e-3, 4e-3, 20), z=np.linspace(5e-3, 15e-3, 24))
    rng = np.random.default_rng(3)
    media = [ussim.Scatterers(rng.uniform(-4e-3, 4e-3, n), rng.uniform(5e-3, 15e-3, n), np.ones(n)) for n in (9, 5, 2)]

    rf = ussim.simulate_stack(media, acquisition, "cuda")
    assert rf.samples.shape[:3] == (3, 2, 24)
    assert rf.samples.base is None or type(rf.samples.base) is np.ndarray  # whole, no copy of slices
    iq = ussim.demodulate(rf)
    images = ussim.delay_and_sum(iq, grid)
    pictures = ussim.log_compress(images, per_image=True)
    for array in (rf.samples, iq.samples, images, pictures):
        assert type(array).__module__.partition(".")[0] == "cupy"
    for record, image, picture in zip(ussim.simulate_batch(media, acquisition, "cuda"), images, pictures, strict=True):
        alone = ussim.delay_and_sum(ussim.demodulate(record), grid)
        np.testing.assert_array_equal(to_numpy(image), to_numpy(alone))
        np.testing.assert_array_equal(to_numpy(picture), to_numpy(ussim.log_compress(alone)))


def test_a_nan_on_the_card_is_told_of_the_image_not_of_each_step(card, small_array):
    acquisition = ussim.Acquisition(small_array, ussim.PlaneWaves(0.0))
    grid = ussim.ImageGrid(x=np.linspace(-4e-3, 4e-3, 5), z=np.linspace(5e-3, 15e-3, 6))
    rf = ussim.simulate(ussim.Scatterers([0.0], [10e-3], [1.0]), acquisition, "cuda")
    rf.samples[0, 12, 100] = np.nan
    iq = ussim.demodulate(rf)  # of a host array it raises
    image = ussim.delay_and_sum(iq, grid)
    for picture in (image, abs(image)):
        with pytest.raises(ValueError, match="expected a finite image, got NaN"):
            ussim.log_compress(picture)
    with pytest.raises(ValueError, match="negative values: an RF image"):
        ussim.log_compress(get_engine("cuda").to_device(np.full((4, 4), -1.0, np.float32)))


def test_plans_of_many_acquisitions_are_kept_within_a_bound(card, monkeypatch):
    backend = get_engine("cuda").backend
    monkeypatch.setattr(backend, "_transforms", type(backend._transforms)())
    made = []
    plan = cuda._cupy().cuda.cufft.Plan1d
    monkeypatch.setattr(cuda._cupy().cuda.cufft, "Plan1d", lambda *sizes: made.append(sizes) or plan(*sizes))
    xp = backend.array_module

    def transform(n, rows):
        backend.inverse_transform(
            xp.zeros((rows, n // 2 + 1), dtype=np.complex64), xp.zeros((rows, n), dtype=np.float32)
        )

    sizes = [(n, rows) for n in range(100, 150) for rows in (1, 2, 3)]  # of three or four probes
    for _ in range(2):
        for n, rows in sizes:
            transform(n, rows)
    assert len(made) == len(sizes)
    monkeypatch.setattr(cuda, "WORK_AREAS", sum(cuda._work_area(plan) for plan in backend._transforms.values()) // 2)
    transform(100, 4)
    assert 1 < len(backend._transforms) < len(sizes)
    assert next(reversed(backend._transforms))[:2] == (100, 4)


def test_masks_filters_and_bare_lines_on_the_card_are_those_of_the_host(card, small_array):
    mask = np.stack([np.arange(24) < 12, np.arange(24) >= 6])
    waves = ussim.PlaneWaves(np.deg2rad([-5, 5]))
    acquisition = ussim.Acquisition(small_array, waves, frequency_sweep=2e6, n_cycles=20, receive_mask=mask)
    rf = ussim.simulate(ussim.Scatterers([0.0], [10e-3], [1.0]), acquisition, "cuda")
    assert not to_numpy(rf.samples)[~mask].any()
    assert to_numpy(rf.samples)[mask].any(axis=-1).all()
    for data in (rf, ussim.demodulate(rf)):
        short = ussim.matched_filter(data)
        assert type(short.samples).__module__.partition(".")[0] == "cupy"
        assert relative_error(short.samples, ussim.matched_filter(data.to_numpy()).samples) < 1e-5  # float32 transforms
    lines = ussim.demodulate(rf.samples[0], 3e6, 0.7, sampling_frequency=rf.sampling_frequency)
    assert type(lines).__module__.partition(".")[0] == "cupy"
    # float32 carriers and the same filter
    assert relative_error(lines, ussim.demodulate(rf, bandwidth=0.7).to_numpy().samples[0]) < 1e-6


def test_pairs_made_together_are_those_made_one_by_one(card, monkeypatch):
    from datagen.make import pairs

    settings = pairs.Settings(
        probe=ussim.load_probe("P4-2v"),
        engine="cuda",
        size=16,
        n_transmits=2,
        mean_distance_wavelengths=9.0,
        attenuation_db_cm_mhz=0.3,
        snr_db=20.0,
        tgc=True,
    )
    imager = pairs.make_imager(settings)
    hqs = list(np.random.default_rng(0).integers(100, 256, (3, 16, 16), dtype=np.uint8))
    together = pairs.simulate_pairs(hqs, imager, [7, 8, 9])
    monkeypatch.setattr(pairs, "_n_together", lambda imager: 2)
    on_the_host = pairs.make_imager(replace(settings, engine="cpu"))
    halves = pairs.simulate_pairs(hqs, imager, [7, 8, 9])
    for k, (hq, pair, half) in enumerate(zip(hqs, together, halves, strict=True)):
        alone = pairs.simulate_pair(hq, imager, 7 + k)
        np.testing.assert_array_equal(pair.lq, alone.lq)
        np.testing.assert_array_equal(half.lq, alone.lq)
        assert pair.n_scatterers == half.n_scatterers == alone.n_scatterers > 20
        expected = pairs.simulate_pair(hq, on_the_host, 7 + k).lq
        assert np.abs(pair.lq.astype(int) - expected).max() <= 2  # 0.3 % of 255 (see above), and rounding


def test_a_shard_is_made_in_batches_on_a_card(card, tmp_path, monkeypatch):
    for package in ("pydantic", "zarr"):  # a machine with a card need not have what only datagen uses
        pytest.importorskip(package)
    from datasets import fast_recipe, write_stacks

    from datagen.make import shards
    from datagen.make.build import build

    root = write_stacks(tmp_path / "stacks")
    simulate, calls = shards.simulate_pairs, []
    monkeypatch.setattr(shards, "simulate_pairs", lambda hqs, *rest: calls.append(len(hqs)) or simulate(hqs, *rest))
    recipe = fast_recipe(root, limit=3, samples_per_shard=3, engine="cuda")
    together = build(recipe, tmp_path / "together.zarr")
    assert calls == [3]
    monkeypatch.setattr(shards, "BATCH", 1)
    assert build(recipe, tmp_path / "alone.zarr").digest == together.digest
    assert calls == [3, 1, 1, 1]


@pytest.mark.slow
def test_benchmark_runs_to_its_end(tmp_path):
    """Its dry run, on the stand-in: all parts but the peers give a result."""
    import json

    output = tmp_path / "gpu.json"
    script = HOST_CUDA.parents[1] / "benchmarks" / "gpu.py"
    subprocess.run([sys.executable, str(script), "--host", "--tune", "--output", str(output)], check=True)
    result = json.loads(output.read_text())
    parts = [*result["frames"], result["kernels"], *result["tuning"], result["delay_and_sum_disk"]]
    assert not [part["failed"] for part in parts if "failed" in part]


def test_report_names_the_card(card):
    report = cuda.cuda_report()
    assert report["problem"] is None
    assert {"name", "compute_capability", "memory", "free_memory"} <= report["devices"][0].keys()
    assert cuda.device_count() >= 1


def test_doctor_shows_the_card_and_checks_it(card):
    from ussim.commands import doctor

    shown = doctor._cuda()
    assert shown.state == doctor.OK
    assert "compute capability" in shown.detail
    assert [f.state for f in doctor._engine_agrees("cuda")] == [doctor.OK, doctor.OK]


def test_a_card_that_is_not_there(card):
    with pytest.raises(EngineError, match=r'"cuda:99": no such device, there is cuda:0'):
        get_engine("cuda:99")


# --- what is missing is said -----------------------------------------------------------------------------------------


def test_missing_cupy_names_the_extra(monkeypatch):
    cuda.engine.cache_clear()
    monkeypatch.setattr(cuda, "find_spec", lambda name: None)
    with pytest.raises(EngineError, match=r"needs CuPy, which is not installed: pip install \"ussim\[cuda13\]"):
        get_engine("cuda")
    assert cuda.device_count() == 0
    assert get_engine("auto").name == "cpu"
    assert "CuPy" in cuda.cuda_report()["problem"]


def test_missing_driver_is_named(cupy_on_host, monkeypatch):
    monkeypatch.setattr(cuda, "_has_driver", lambda: False)
    with pytest.raises(EngineError, match="no NVIDIA driver found"):
        get_engine("cuda")
    assert cuda.device_count() == 0


def test_missing_device_is_named(cupy_on_host, monkeypatch):
    import cupy

    monkeypatch.setattr(cupy.cuda.runtime, "getDeviceCount", lambda: 0)
    with pytest.raises(EngineError, match="finds no NVIDIA device"):
        get_engine("cuda")

    def fail():
        raise RuntimeError("cudaErrorInsufficientDriver")

    monkeypatch.setattr(cupy.cuda.runtime, "getDeviceCount", fail)
    with pytest.raises(EngineError, match=r"the driver answers .cudaErrorInsufficientDriver"):
        get_engine("cuda:0")
    assert cuda.device_count() == 0
    assert "cudaErrorInsufficientDriver" in cuda.cuda_report()["problem"]


def test_missing_compiler_is_an_engine_error(cupy_on_host, small_array, monkeypatch):
    import cupy

    def fail(self):
        raise RuntimeError("CuPy failed to load libnvrtc.so.13")

    monkeypatch.setattr(cupy.RawModule, "compile", fail)
    acquisition = ussim.Acquisition(small_array, ussim.PlaneWaves(0.0))
    with pytest.raises(EngineError, match=r"simulate.cu could not be compiled \(CuPy failed to load libnvrtc"):
        ussim.simulate(ussim.Scatterers([0.0], [10e-3], [1.0]), acquisition, "cuda")


def test_out_of_memory_on_the_card_is_an_engine_error(host, small_array, monkeypatch):
    def fail(*arguments):
        raise MemoryError("Out of memory allocating 8 bytes")

    monkeypatch.setattr(host.backend, "inverse_transform", fail)
    plan = make_plan(ussim.Acquisition(small_array, ussim.PlaneWaves(0.0)))
    with pytest.raises(EngineError, match=r"out of memory .* MB are free"):
        host.simulate(ussim.Scatterers([0.0], [10e-3], [1.0]), plan, 400)


def test_unknown_engines_are_refused():
    for name in ("cuda:", "cuda:x", "cpu:1", "opencl"):
        with pytest.raises(EngineError, match="expected one of"):
            get_engine(name)


# --- compilers -------------------------------------------------------------------------------------------------------

SIMULATE = {"TRANSMITS": 15, "POINTS": 2, "FREQUENCIES": 2, "GROUPS": 6, "INNER": 3, "N_SUB": 2, "FULL_DIRECTIVITY": 0}
FILES = {
    "simulate.cu": (
        SIMULATE,
        SIMULATE | {"TRANSMITS": 1, "FREQUENCIES": 4, "GROUPS": 3, "N_SUB": 4, "FULL_DIRECTIVITY": 1},
    ),
    "beamform.cu": (
        ANY_SIZES | {"TRANSMITS": 15, "FRAMES": 2},
        ANY_SIZES
        | {"TRANSMITS": 4, "FRAMES": 4, "TAPS": 6, "LINEAR": 0, "IQ": 0, "MASKED": 1, "WEIGHTED": 1, "COMPOUNDING": 2}
        | {"COMPENSATED": 1},
    ),
}


@pytest.mark.parametrize("file", FILES)
def test_kernels_compile_for_every_card(file, tmp_path):
    """By nvcc to machine code, which also finds shared memory or registers that a card does not have."""
    nvcc = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
    if nvcc is None:
        pytest.skip("needs nvcc")
    source = tmp_path / file
    source.write_text(read_source(file))
    for sizes, architectures in zip(FILES[file], (ARCHITECTURES, ARCHITECTURES[:1]), strict=True):
        targets = [f"-gencode=arch=compute_{n},code=sm_{n}" for n in architectures]
        command = [nvcc, "--threads=2", *targets, *cuda.compile_options(sizes), "-Werror=all-warnings", "-fatbin"]
        done = subprocess.run([*command, "-o", str(tmp_path / "out"), str(source)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[:3000]


@pytest.mark.parametrize("file", FILES)
def test_kernels_compile_by_nvrtc(file):
    """As the engine compiles them, where CuPy is installed; it needs no card."""
    pytest.importorskip("cupy")
    from cupy.cuda import nvrtc

    for sizes in FILES[file]:
        for architecture in ARCHITECTURES:
            program = nvrtc.createProgram(read_source(file), file, (), ())
            options = [*cuda.compile_options(sizes), "-ftz=true", "--device-as-default-execution-space"]  # as CuPy adds
            try:
                nvrtc.compileProgram(program, [*options, f"--gpu-architecture=sm_{architecture}"])
                assert nvrtc.getCUBIN(program)
            except nvrtc.NVRTCError:
                pytest.fail(nvrtc.getProgramLog(program))
            finally:
                nvrtc.destroyProgram(program)


def test_blocks_fit_any_card():
    """Shared memory and threads of `transmit` and `receive`, whatever the probe and the number of transmits."""
    for name in ussim.probe_names():
        for n_transmits in (1, 5, 15, 16, 17, 64, 128):
            for n_sub in (None, 1, 8, 40):
                waves = ussim.PlaneWaves(np.linspace(-0.1, 0.1, n_transmits))
                plan = make_plan(ussim.Acquisition(ussim.load_probe(name), waves, n_subelements=n_sub))
                sizes = choose_sizes(plan, 48 * 1024)
                chunk = sizes["GROUPS"] * sizes["FREQUENCIES"]
                # Two blocks of `__launch_bounds__(THREADS, 2)` in the least shared memory of a multiprocessor, 64 KiB.
                assert sizes["INNER"] * 8 * chunk * (sizes["TRANSMITS"] + 32 * sizes["POINTS"]) <= 24 * 1024
                assert sizes["TRANSMITS"] * sizes["POINTS"] * sizes["FREQUENCIES"] <= 64  # complex sums a thread
                assert -(-n_transmits // sizes["TRANSMITS"]) == -(-n_transmits // 16)
    plan = make_plan(ussim.Acquisition(ussim.load_probe("L11-5v"), ussim.PlaneWaves(0.0), n_subelements=500))
    assert choose_sizes(plan, 48 * 1024)["INNER"] == 3  # however many: they are summed one by one
    with pytest.raises(EngineError, match=r"frequencies=8, groups=16\) takes 66560 bytes of shared memory"):
        choose_sizes(plan, 48 * 1024, Tuning(2, 8, 16))


def test_barriers_that_only_some_threads_reach_are_found(host):
    """The stand-in for a card is worth its name."""
    source = 'extern "C" __global__ void broken(int n) { if (threadIdx.x < n) __syncthreads(); }'
    launch = host.backend.kernels_of_source(source, {})
    launch("broken", (1,), 64, np.int32(64))
    with pytest.raises(RuntimeError, match="only some threads"):
        launch("broken", (1,), 64, np.int32(32))


def test_start_times_of_each_transmit_on_the_card(card, small_array):
    """From RF on the card to the image: as the reference has it."""
    acquisition = ussim.Acquisition(small_array, ussim.PlaneWaves(np.deg2rad([-5, 0, 5]), time_reference="center"))
    grid = ussim.ImageGrid(x=np.linspace(-4e-3, 4e-3, 20), z=np.linspace(5e-3, 15e-3, 24))
    scatterers = ussim.Scatterers([1e-3, -2e-3], [9e-3, 12e-3], [1.0, 1.0])
    rf = replace(ussim.simulate(scatterers, acquisition, "cuda"), start_time=[-1e-6, 0.3e-6, 2.2e-6])
    iq = ussim.demodulate(rf)
    assert type(iq.samples).__module__.partition(".")[0] == "cupy"
    for data in (rf, iq):
        host = data.to_numpy()
        np.testing.assert_array_equal(host.start_time, rf.start_time)
        expected = ussim.delay_and_sum(host, grid, engine="reference")
        assert relative_error(ussim.delay_and_sum(data, grid), expected) < 1e-5
    expected_iq = ussim.demodulate(rf.to_numpy())
    assert relative_error(iq.samples, expected_iq.samples) < 1e-5


@pytest.mark.parametrize(
    ("file", "name", "struct"),
    [
        ("simulate.cu", "Box", structs.BOX),
        ("simulate.cu", "Sight", structs.SIGHT),
        ("simulate.cu", "Physics", structs.PHYSICS),
        ("beamform.cu", "Position", structs.POSITION),
        ("beamform.cu", "Element", structs.ELEMENT),
        ("beamform.cu", "Das", structs.DAS),
    ],
)
def test_tables_are_the_structs_that_the_kernels_declare(file, name, struct):
    body = re.search(rf"struct (?:__align__\(\d+\) )?{name} {{(.*?)}};", read_source(file), re.DOTALL)[1]
    kinds = {"int": "int32", "float": "float32", "Position": structs.POSITION}
    declared = [
        (field.partition("[")[0], np.dtype(kinds[kind]), int(field.partition("[")[2].rstrip("]") or 1))
        for kind, fields in re.findall(r"(\w+) ([^;]+);", re.sub(r"//.*", "", body))
        for field in re.split(r",\s*", fields)
    ]
    assert declared == [(field, kind[0].base, int(np.prod(kind[0].shape))) for field, kind in struct.fields.items()]
    assert struct.itemsize == sum(kind.itemsize * n for _, kind, n in declared)  # no gaps
