"""The door of the engines: all of them have it, the public steps ask for nothing else."""

import ast
import inspect
from pathlib import Path

import numpy as np
import pytest

import ussim
from ussim.demodulation import filter_law
from ussim.engines import ENGINES, Engine, engine_of, get_engine
from ussim.engines.cuda.cupy import CudaEngine
from ussim.engines.cuda.engine import GpuEngine
from ussim.plan import make_plan

ROOT = Path(__file__).resolve().parents[1]
CLASSES = [type(get_engine("reference")), type(get_engine("cpu")), GpuEngine, CudaEngine]
METHODS = [name for name, member in vars(Engine).items() if inspect.isfunction(member) and not name.startswith("_")]
PROBE = ussim.Probe("eight", 5e6, 0.6, 8, 0.3e-3, 0.25e-3)
ACQUISITION = ussim.Acquisition(PROBE, ussim.PlaneWaves([0.0, 0.1]))
MEDIA = [ussim.Scatterers([0.0, 1e-3 * k], [5e-3, 6e-3], [1.0, -0.5]) for k in range(3)]
ASKED = {
    "name", "on_device", "simulate", "simulate_batch", "adjoint", "pressure_field", "delay_and_sum", "mix_and_filter",
    "arrival_bounds",
}  # fmt: skip


def test_the_door_has_what_the_steps_ask_for():
    assert set(METHODS) | set(Engine.__annotations__) >= ASKED


@pytest.mark.parametrize("kind", CLASSES)
def test_every_engine_has_the_same_door(kind):
    """The same arguments in the same order and with the same defaults, so that any call fits any engine."""
    assert Engine in kind.__mro__
    for name in METHODS:
        own, asked = (inspect.signature(getattr(c, name)).parameters.values() for c in (kind, Engine))
        assert [(p.name, p.kind, p.default) for p in own] == [(p.name, p.kind, p.default) for p in asked], name


@pytest.mark.parametrize("kind", CLASSES)
def test_every_engine_computes_for_itself(kind):
    """What the door leaves open has a body: a method that is inherited from there would return None."""
    with_body = {"simulate_batch", "batch_size", "to_device"}
    for name in set(METHODS) - with_body:
        assert getattr(kind, name) is not getattr(Engine, name), name


@pytest.mark.parametrize("name", ["cpu", "reference"])
def test_engines_on_the_host_say_so(name):
    engine = get_engine(name)
    assert isinstance(engine, Engine)
    assert engine.name == name
    assert not engine.on_device
    assert engine.array_module is np
    assert engine.batch_size(1e3) == 1
    assert engine is get_engine(name)


def test_arrays_in_host_memory_are_the_cpu_engines():
    assert engine_of(np.zeros(3)) is get_engine("cpu")
    assert "auto" in ENGINES


@pytest.mark.parametrize("name", ["cpu", "reference"])
def test_a_batch_is_its_media_one_after_the_other(name):
    engine, plan, steps = get_engine(name), make_plan(ACQUISITION), []
    batch = engine.simulate_batch(MEDIA, plan, 200, progress=lambda done, total: steps.append((done, total)))
    assert batch.shape == (3, 2, 8, 200)
    assert batch.dtype == engine.precision
    for record, medium in zip(batch, MEDIA, strict=True):
        np.testing.assert_array_equal(record, engine.simulate(medium, plan, 200))
    assert steps == [(1, 3), (2, 3), (3, 3)]
    assert engine.simulate_batch(MEDIA[:1], plan, 200).shape == (1, 2, 8, 200)
    none = engine.simulate_batch([], plan, 200)
    assert none.shape == (0, 2, 8, 200)
    assert none.dtype == engine.precision


def test_an_engine_of_ones_own_needs_no_batch():
    """One method is enough for `simulate_batch`, and no attribute tells the engine apart."""

    class Ones(Engine):
        name = "ones"

        def simulate(self, scatterers, plan, n_samples, start_sample=0, max_memory=None, progress=None):
            return np.full(plan.record_shape(n_samples), float(len(scatterers)), np.float32)

    np.testing.assert_array_equal(Ones().simulate_batch(MEDIA, make_plan(ACQUISITION), 4), np.full((3, 2, 8, 4), 2.0))


@pytest.mark.parametrize("n_samples", [1, 2, 40])
def test_the_reference_demodulates_as_the_cpu(n_samples):
    samples = np.random.default_rng(0).normal(size=(2, 3, n_samples))
    law = filter_law(5e6, 0.6, 20e6, 1e-6, n_samples)
    expected = get_engine("reference").mix_and_filter(samples, law)
    error = np.linalg.norm(get_engine("cpu").mix_and_filter(samples, law) - expected)
    assert error < 2e-6 * np.linalg.norm(expected)  # float32 between the passes
    assert expected.dtype == np.complex64


def test_no_step_sniffs_at_an_engine():
    """Capability is asked through the door: no `hasattr`, no `getattr`, no engine told by its name."""
    steps = ("simulation", "beamform", "demodulation", "compression", "operator", "receive")
    found = []
    for file in [*(ROOT / "ussim" / f"{name}.py" for name in steps), *(ROOT / "datagen" / "make").glob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            text = ast.unparse(node) if isinstance(node, ast.Call | ast.Compare) else ""
            sniffs = text.startswith(("hasattr(", "getattr(")) and any(
                w in text for w in ("engine", "module", "machine")
            )
            told = isinstance(node, ast.Compare) and ast.unparse(node.left).endswith(("engine.name", "machine.name"))
            if sniffs or told:
                found.append(f"{file.name}:{node.lineno}: {text}")
    assert not found
