"""Questions to a toolkit, on plain arrays, in its own interpreter.

    python adapters.py PEER simulate|beamform|image GIVEN.npz ANSWER.npz REPEATS

simulate   scatterers to RF (n_transmits, n_elements, n_samples), sample 0 when the first element fires
beamform   IQ to the compounded complex image (nz, nx), all elements
image      scatterers to B-mode in dB, by the toolkit's own steps, all elements

A toolkit that shares nothing between transmits is timed on one, `transmits_timed`, and says so.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from beamform import SPEED_OF_SOUND, run_pymust, run_ultraspy, run_ustb

DYNAMIC_RANGE = 60  # dB


def once_and_again(run, repeats: int) -> dict:
    """Time a first call, which compiles, then up to `repeats` more, until 40 s are over."""
    seconds = []
    while not seconds or (len(seconds) <= repeats and sum(wall for wall, _ in seconds) < 40):
        start, cpu = time.perf_counter(), time.process_time()
        answer = run()
        seconds.append((time.perf_counter() - start, time.process_time() - cpu))
    return {"answer": answer, "seconds": seconds, "first_call_seconds": seconds[0][0]}


def transmits_of(case) -> list[int]:
    """Return which transmits a toolkit that shares nothing between them simulates: one, unless the case wants all."""
    return list(range(len(case.delays))) if getattr(case, "every_transmit", False) else [0]


def peak_memory() -> float:
    """Largest resident memory of this process, MB; getrusage would count what its parent held when it forked."""
    try:
        with open("/proc/self/status", encoding="utf-8") as lines:
            return next(int(line.split()[1]) / 1e3 for line in lines if line.startswith("VmHWM"))
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


# --- ussim -----------------------------------------------------------------------------------------------------------


def ussim_acquisition(case):
    """Return the acquisition of a case and its scatterers."""
    import ussim

    acquisition = ussim.Acquisition(
        ussim.load_probe(str(case.probe)),
        ussim.PlaneWaves(np.atleast_1d(case.angles)),
        ussim.Medium(SPEED_OF_SOUND, float(case.attenuation)),
        n_subelements="must",
    )
    return acquisition, ussim.Scatterers(case.x, case.z, case.reflectivity)


def ussim_simulate(case, repeats: int) -> dict:
    """All transmits in one call."""
    import ussim

    acquisition, scatterers = ussim_acquisition(case)
    return once_and_again(lambda: ussim.simulate(scatterers, acquisition, engine="cpu").samples, repeats)


def ussim_beamform(case, repeats: int) -> dict:
    """All elements (f-number 0)."""
    import ussim

    acquisition = ussim.Acquisition(ussim.load_probe(str(case.probe)), ussim.PlaneWaves(case.angles))
    iq = ussim.IQData(case.samples, acquisition, float(case.sampling_frequency), float(case.frequency))
    grid = ussim.ImageGrid(x=case.x, z=case.z)
    return once_and_again(lambda: ussim.delay_and_sum(iq, grid, 0, engine="cpu"), repeats)


def ussim_image(case, repeats: int) -> dict:
    """Simulate, demodulate, delay and sum, compress."""
    import ussim

    acquisition, scatterers = ussim_acquisition(case)
    grid = ussim.ImageGrid(x=case.grid_x, z=case.grid_z)

    def run():
        iq = ussim.demodulate(ussim.simulate(scatterers, acquisition, engine="cpu"))
        return decibels(ussim.delay_and_sum(iq, grid, 0, engine="cpu"))

    return once_and_again(run, repeats)


# --- PyMUST ----------------------------------------------------------------------------------------------------------


def must_parameters(case):
    """Return MUST's parameters of a case."""
    import pymust

    param = pymust.getparam(str(case.probe))
    param.fs, param.c = float(case.sampling_frequency), SPEED_OF_SOUND
    param.attenuation, param.fnumber = float(case.attenuation), 0
    options = pymust.utils.Options()
    options.dBThresh, options.ParPool = float(case.threshold_db), False
    return pymust, param, options


def must_rf(case, transmits):
    """RF of some transmits, one after the other."""
    pymust, param, options = must_parameters(case)
    rf = [
        pymust.simus(case.x, case.z, case.reflectivity, case.delays[i : i + 1], param, options)[0].T for i in transmits
    ]
    n = min(record.shape[1] for record in rf)
    return np.stack([record[:, :n] for record in rf])


def pymust_simulate(case, repeats: int) -> dict:
    """One transmit after the other."""
    transmits = transmits_of(case)
    return once_and_again(lambda: must_rf(case, transmits), repeats) | {"transmits_timed": len(transmits)}


def pymust_image(case, repeats: int) -> dict:
    """Run simus, rf2iq, and a matrix per transmit."""
    pymust, param, _ = must_parameters(case)
    x, z = np.meshgrid(case.grid_x, case.grid_z)

    def run():
        compound = 0
        for i, record in enumerate(must_rf(case, range(len(case.delays)))):
            iq = pymust.rf2iq(record.T, param)
            matrix = pymust.dasmtx(1j * np.array(iq.shape), x, z, case.delays[i : i + 1], param)
            compound = compound + (matrix @ iq.flatten(order="F")).reshape(x.shape, order="F")
        return decibels(compound)

    return once_and_again(run, repeats)


# --- FastSIMUS -------------------------------------------------------------------------------------------------------


def fastsimus_simulate(case, repeats: int) -> dict:
    """One transmit after the other; compiled before it is timed."""
    import fast_simus
    import jax.numpy as jnp
    from fast_simus import transducer_presets

    parameters = getattr(transducer_presets, str(case.probe).replace("-", "_"))()
    medium = fast_simus.MediumParams(attenuation=float(case.attenuation))
    points = jnp.asarray(np.stack([case.x, case.z], axis=-1), dtype=jnp.float32)
    reflectivity = jnp.asarray(case.reflectivity, dtype=jnp.float32)
    options = {"fs": float(case.sampling_frequency), "db_thresh": float(case.threshold_db)}
    transmits = transmits_of(case)

    def one(delays):
        answer = fast_simus.simus(points, reflectivity, jnp.asarray(delays, jnp.float32), parameters, medium, **options)
        return np.asarray(answer.rf).T

    def run():
        rf = [one(case.delays[i]) for i in transmits]
        n = min(record.shape[1] for record in rf)
        return np.stack([record[:, :n] for record in rf])

    return once_and_again(run, repeats) | {"transmits_timed": len(transmits)}


# --- zea -------------------------------------------------------------------------------------------------------------


def zea_geometry(case) -> np.ndarray:
    """Return the elements' positions."""
    nothing = np.zeros(len(case.element_x))
    return np.stack([case.element_x, nothing, nothing], axis=-1).astype(np.float32)


def zea_rf(case):
    """Return a function that simulates all transmits: its pulse and spreading are its own."""
    os.environ["KERAS_BACKEND"] = "jax"
    import jax
    from zea.simulator import simulate_rf

    n_transmits = len(case.delays)
    fixed = {
        "probe_geometry": zea_geometry(case),
        "apply_lens_correction": False,
        "lens_thickness": 1e-3,
        "lens_sound_speed": 1000.0,
        "sound_speed": SPEED_OF_SOUND,
        "n_ax": int(case.n_samples),
        "center_frequency": float(case.frequency),
        "sampling_frequency": float(case.sampling_frequency),
        "t0_delays": case.delays.astype(np.float32),
        "initial_times": np.zeros(n_transmits, np.float32),
        "element_width": float(case.element_width),
        "attenuation_coef": float(case.attenuation),
        "tx_apodizations": np.ones_like(case.delays, dtype=np.float32),
        "t_peak": np.zeros(n_transmits, np.float32),
        "scatter_exponent": 0.0,
    }
    compiled = jax.jit(lambda where, how_much: simulate_rf(where, how_much, **fixed))
    points = np.stack([case.x, np.zeros_like(case.x), case.z], axis=-1).astype(np.float32)
    magnitudes = case.reflectivity.astype(np.float32)
    return lambda: np.asarray(compiled(points, magnitudes))


def zea_das(case, grid_x, grid_z, channels: int):
    """Return a function of data (n_transmits, n_samples, n_elements, channels): delays, interpolation, sum."""
    os.environ["KERAS_BACKEND"] = "jax"
    import jax
    from zea.beamform.beamformer import tof_correction

    x, z = np.meshgrid(grid_x, grid_z)
    pixels = np.stack([x.ravel(), np.zeros(x.size), z.ravel()], axis=-1).astype(np.float32)
    n_transmits = len(case.delays)
    fixed = {
        "sound_speed": SPEED_OF_SOUND,
        "probe_geometry": zea_geometry(case),
        "sampling_frequency": float(case.sampling_frequency),
        "demodulation_frequency": float(case.frequency),
        "f_number": 0.0,
        "t_peak": np.zeros(1, np.float32),
        "apply_lens_correction": False,
    }

    @jax.jit
    def one(record, delays, angle, part):
        aligned = tof_correction(
            record[None],
            part,
            t0_delays=delays[None],
            tx_apodizations=np.ones((1, len(case.element_x)), np.float32),
            initial_times=np.zeros(1, np.float32),
            polar_angles=angle[None],
            focus_distances=np.zeros(1, np.float32),
            transmit_origins=np.zeros((1, 3), np.float32),
            **fixed,
        )
        return aligned.sum(axis=(0, 2))

    delays, angles = case.delays.astype(np.float32), np.asarray(case.angles, np.float32)

    def run(data):
        # By parts of the image, as its own pipeline does with `patches`: whole, the aligned samples are gigabytes.
        image = 0
        for i in range(n_transmits):
            image = image + np.concatenate([one(data[i], delays[i], angles[i], part) for part in np.split(pixels, 16)])
        image = image[:, 0] + 1j * image[:, 1] if channels == 2 else image[:, 0]
        return np.asarray(image).reshape(x.shape)

    return run


def zea_simulate(case, repeats: int) -> dict:
    """All transmits in one call."""
    run = zea_rf(case)
    return once_and_again(lambda: run()[..., 0].transpose(0, 2, 1), repeats)


def zea_beamform(case, repeats: int) -> dict:
    """One transmit after the other, summed."""
    data = np.stack([case.samples.real, case.samples.imag], axis=-1).transpose(0, 2, 1, 3).astype(np.float32)
    run = zea_das(case, case.x, case.z, 2)
    return once_and_again(lambda: run(data), repeats)


def zea_image(case, repeats: int) -> dict:
    """Simulate, delay and sum RF, the envelope by Hilbert's transform along depth."""
    from scipy.signal import hilbert

    simulate, beamform = zea_rf(case), zea_das(case, case.grid_x, case.grid_z, 1)
    return once_and_again(lambda: decibels(hilbert(beamform(simulate()), axis=0)), repeats)


# --- vbeam -----------------------------------------------------------------------------------------------------------


def vbeam_beamform(case, repeats: int) -> dict:
    """Sum over elements with no apodization; compiled by JAX."""
    from vbeam.fastmath import backend_manager

    backend_manager.active_backend = "jax"
    import jax
    import jax.numpy as jnp
    from spekk import Spec
    from vbeam.apodization import NoApodization
    from vbeam.beamformers import get_das_beamformer
    from vbeam.core import ElementGeometry, WaveData
    from vbeam.data_importers import SignalForPointSetup
    from vbeam.interpolation import FastInterpLinspace
    from vbeam.scan import linear_scan
    from vbeam.wavefront import PlaneWavefront, ReflectedWavefront

    nothing, angles = np.zeros(len(case.element_x)), jnp.asarray(case.angles)
    geometry = jnp.asarray(np.stack([case.element_x, nothing, nothing], axis=-1), jnp.float32)
    # Its time zero is when the front passes the origin; ours when the first element fires.
    lead = np.abs(np.sin(case.angles)) * case.element_x[-1] / SPEED_OF_SOUND
    n = len(case.angles)
    setup = SignalForPointSetup(
        sender=ElementGeometry(jnp.zeros(3, jnp.float32), 0.0, 0.0),
        point_position=None,
        receiver=ElementGeometry(geometry, jnp.zeros(len(geometry)), jnp.zeros(len(geometry))),
        signal=jnp.asarray(case.samples),
        transmitted_wavefront=PlaneWavefront(),
        reflected_wavefront=ReflectedWavefront(),
        speed_of_sound=jnp.float32(SPEED_OF_SOUND),
        wave_data=WaveData(azimuth=angles, elevation=jnp.zeros(n), source=jnp.zeros((n, 3)), t0=jnp.asarray(-lead)),
        interpolate=FastInterpLinspace(0.0, 1 / float(case.sampling_frequency), case.samples.shape[2]),
        modulation_frequency=jnp.float32(case.frequency),
        apodization=NoApodization(),
        spec=Spec(
            {
                "signal": ["transmits", "receivers", "signal_time"],
                "receiver": ["receivers"],
                "point_position": ["points"],
                "wave_data": ["transmits"],
            }
        ),
        scan=linear_scan(jnp.asarray(case.x), jnp.asarray(case.z)),
    )
    options = {"compensate_for_apodization_overlap": False, "log_compress": False, "scan_convert": False}
    beamformer = jax.jit(get_das_beamformer(setup, **options))
    return once_and_again(lambda: np.asarray(beamformer(**setup.data)).T, repeats)


# --- those of benchmarks/beamform.py ---------------------------------------------------------------------------------


def known(run):
    """Return an adapter of benchmarks/beamform.py in this file's words."""

    def adapter(case, repeats: int) -> dict:
        found = run(case, repeats)
        found["answer"] = found.pop("image")
        return found

    return adapter


def decibels(image) -> np.ndarray:
    """Return the envelope in dB under its peak, clipped."""
    envelope = np.abs(image)
    return np.maximum(20 * np.log10(np.maximum(envelope, 1e-30) / envelope.max()), -DYNAMIC_RANGE)


TASKS = {
    "simulate": {
        "ussim": ussim_simulate,
        "pymust": pymust_simulate,
        "fastsimus": fastsimus_simulate,
        "zea": zea_simulate,
    },
    "beamform": {
        "ussim": ussim_beamform,
        "pymust": known(run_pymust),
        "vbeam": vbeam_beamform,
        "zea": zea_beamform,
        "ustb": known(run_ustb),
        "ultraspy": known(run_ultraspy),
    },
    "image": {"ussim": ussim_image, "pymust": pymust_image, "zea": zea_image},
}


def main(peer: str, task: str, given: str, answer: str, repeats: str) -> None:
    """Answer one question."""
    case = SimpleNamespace(**np.load(given))
    with np.errstate(all="ignore"):
        found = TASKS[task][peer](case, int(repeats))
    np.savez(answer, **(found | {"version": version(peer), "peak_memory_mb": peak_memory()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
