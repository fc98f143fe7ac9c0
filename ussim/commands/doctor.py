"""Checks of `ussim doctor`: whether this machine and installation can do the work, and how fast they are."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

OK, NOTE, FAIL = "ok", "note", "FAIL"
LARGEST_ERROR = 1e-4  # of an engine's RF from the reference's, relative L2: what the engines promise


@dataclass(frozen=True)
class Finding:
    """One line of the report. "note" is nothing wrong: something optional that is absent."""

    subject: str
    state: str  # OK, NOTE or FAIL
    detail: str

    def __str__(self) -> str:
        return f"{self.state:<4}  {self.subject:<22}  {self.detail}"


def examine() -> Iterator[Finding]:
    """Everything there is to check, as it is found."""
    yield Finding("Python", OK, f"{platform.python_version()}, {platform.platform()}")
    yield from _packages()
    yield from _processor()
    yield _memory()
    yield _cuda()
    yield from _demo_data()
    yield from _codecs()
    yield _presets()
    yield from _engines_agree()


def healthy(findings: list[Finding]) -> bool:
    """Return whether nothing that the CPU work needs is missing or wrong."""
    return all(finding.state != FAIL for finding in findings)


# --- the installation ------------------------------------------------------------------------------------------------


def _packages() -> Iterator[Finding]:
    """Yield the distribution's own requirements, and which extras are installed."""
    try:
        requirements = importlib.metadata.requires("ussim") or []
        yield Finding("ussim", OK, importlib.metadata.version("ussim"))
    except importlib.metadata.PackageNotFoundError:
        yield Finding("ussim", FAIL, "not installed (imported from a folder): pip install .")
        return
    from packaging.requirements import Requirement

    extras: dict[str, list[Requirement]] = {}
    for requirement in map(Requirement, requirements):
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", str(requirement.marker or ""))
        if extra:
            extras.setdefault(extra[1], []).append(requirement)
        elif requirement.marker is None or requirement.marker.evaluate():
            version = _version(requirement.name)
            fits = version is not None and requirement.specifier.contains(version, prereleases=True)
            advice = f"{version or 'missing'}, needed {requirement}: pip install '{requirement}'"
            yield Finding(requirement.name, OK if fits else FAIL, f"{version}" if fits else advice)
    for extra_name, wanted in extras.items():
        names = [
            requirement.name for requirement in wanted if requirement.name != "ussim"
        ]  # "all" is made of the others
        missing = [name for name in names if _version(name) is None]
        if missing:
            advice = f"not installed ({', '.join(missing)}): pip install 'ussim[{extra_name}]'"
            yield Finding(f"extra {extra_name}", NOTE, advice)
        elif names:
            yield Finding(f"extra {extra_name}", OK, ", ".join(f"{name} {_version(name)}" for name in names))


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _presets() -> Finding:
    from ..probes import ProbeError, load_probe, probe_names

    try:
        probes = [load_probe(name) for name in probe_names()]
    except ProbeError as error:
        return Finding("probe presets", FAIL, str(error))
    if not probes:
        return Finding("probe presets", FAIL, "none found: the installation is incomplete")
    return Finding("probe presets", OK, f"{len(probes)}: {', '.join(probe.name for probe in probes)}")


def _demo_data() -> Iterator[Finding]:
    """Real MRI that ordinary dependencies ship: what `datagen build --source demo` reads."""
    for package, name, find in (
        ("pydicom", "examples_overlay.dcm", _pydicom_example),
        ("nibabel", "example4d.nii.gz", _nibabel_example),
    ):
        path = find(name)
        if path:
            yield Finding(f"demo data ({package})", OK, name)
        else:
            detail = (
                f"{name} is not in this copy of {package}; for `--source demo`: pip install --force-reinstall {package}"
            )
            yield Finding(f"demo data ({package})", NOTE, detail)


def _pydicom_example(name: str) -> str | None:
    try:
        from pydicom.data import get_testdata_file

        path = get_testdata_file(name, download=False)
        return path if isinstance(path, str) else None
    except (ImportError, OSError, ValueError):
        return None


def _nibabel_example(name: str) -> str | None:
    spec = importlib.util.find_spec("nibabel")  # its module that knows the folder imports pytest, which few have
    if spec is None or spec.origin is None:
        return None
    path = os.path.join(os.path.dirname(spec.origin), "tests", "data", name)
    return path if os.path.isfile(path) else None


def _codecs() -> Iterator[Finding]:
    """Compressed DICOM that can be read here."""
    try:
        from pydicom.pixels import get_decoder
        from pydicom.uid import UID, JPEG2000Lossless, JPEGBaseline8Bit, JPEGLosslessSV1, JPEGLSLossless, RLELossless
    except ImportError as error:
        yield Finding("DICOM codecs", FAIL, f"pydicom cannot be used: {error}")
        return
    # What the ordinary dependencies bring.
    for syntax in (RLELossless, JPEG2000Lossless, JPEGBaseline8Bit, JPEGLosslessSV1, JPEGLSLossless):
        decoder = get_decoder(syntax)
        name = f"DICOM {UID(syntax).name.partition(',')[0].partition('(')[0].strip()}"[:22]
        if decoder.is_available:
            yield Finding(name, OK, ", ".join(decoder.available_plugins))
        else:
            yield Finding(
                name,
                FAIL,
                "no decoder: pip install python-gdcm pylibjpeg pylibjpeg-openjpeg",
            )


# --- the machine -----------------------------------------------------------------------------------------------------


def _processor() -> Iterator[Finding]:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        from llvmlite import binding

        features = binding.get_host_cpu_features()
        wide = [name for name in ("avx512f", "avx2", "fma", "neon", "sve") if features.get(name)]
        yield Finding(
            "processor",
            OK,
            f"{binding.get_host_cpu_name()}, {usable} usable cores, {' '.join(wide) or 'no vector units known'}",
        )
        from ..engines.cpu.threads import n_threads

        yield Finding("kernel threads", OK, f"{n_threads()} (NUMBA_NUM_THREADS sets them)")
        yield _kernels()
    except (ImportError, RuntimeError, OSError) as error:
        yield Finding("processor", FAIL, f"LLVM (llvmlite, Numba) cannot be used: {error}")


def _kernels() -> Finding:
    """Return who compiles the CPU engine here: by the smallest of its kernels."""
    from ..engines.cpu.kernels import extreme_arrivals

    try:
        extreme_arrivals.by_llvm()
    except ImportError as error:
        return Finding("kernels", NOTE, f"compiled here by Numba, half a minute once: {error}")
    return Finding("kernels", OK, "as shipped, their machine code made here by LLVM")


def _memory() -> Finding:
    """Return what is free, within a container's limit where there is one."""
    import psutil

    memory = psutil.virtual_memory()
    total, free = memory.total, memory.available
    for limit_file, used_file in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        try:
            limit_bytes, used_bytes = (int(Path(file).read_text(encoding="utf-8")) for file in (limit_file, used_file))
        except (OSError, ValueError):  # no such control group, or "max": no limit
            continue
        total, free = min(total, limit_bytes), min(free, max(limit_bytes - used_bytes, 0))
    state = OK if free > 1e9 else NOTE
    return Finding("memory", state, f"{free / 1e9:.1f} GB free of {total / 1e9:.1f} GB")


def _cuda() -> Finding:
    from ..engines.cuda.cupy import cuda_report

    report = cuda_report()
    if report["problem"]:
        return Finding("CUDA", NOTE, f'{" ".join(report["problem"].split())} (as "auto" does here)')
    cards = ", ".join(
        f"{card['name']} (compute capability {card['compute_capability']}, {card['free_memory'] / 1e9:.0f} of "
        f"{card['memory'] / 1e9:.0f} GB free)"
        for card in report["devices"]
    )
    versions = f"driver for CUDA {report['driver']}, CuPy {report['cupy']}, NVRTC {report['nvrtc']}"
    return Finding("CUDA", OK, f"{cards}; {versions}")


def _engines_agree() -> Iterator[Finding]:
    """Yield a small simulation by each engine of this machine and by the reference.

    The error between them, and what it took.
    """
    from ..engines.cuda.cupy import device_count

    for engine in ("cpu", "cuda") if device_count() else ("cpu",):
        yield from _engine_agrees(engine)


def _engine_agrees(engine: str) -> Iterator[Finding]:
    import numpy as np

    import ussim

    rng = np.random.default_rng(0)
    probe = ussim.load_probe("P4-2v")
    acquisition = ussim.Acquisition(probe, ussim.imaging_waves(probe, n_transmits=3))
    scatterers = ussim.Scatterers(rng.uniform(-0.02, 0.02, 100), rng.uniform(0.03, 0.05, 100), rng.rayleigh(size=100))
    try:
        started = time.perf_counter()
        ussim.simulate(scatterers, acquisition, engine).to_numpy()
        first = time.perf_counter() - started
        started = time.perf_counter()
        rf = ussim.simulate(scatterers, acquisition, engine).to_numpy().samples
        again = time.perf_counter() - started
        expected = ussim.simulate(scatterers, acquisition, "reference", n_samples=rf.shape[-1]).samples
    except Exception as error:  # anything that stops the engines is the finding
        yield Finding(f"engine {engine}", FAIL, f"{type(error).__name__}: {' '.join(str(error).split())}")
        return
    difference = float(np.linalg.norm(rf - expected) / np.linalg.norm(expected))
    state = OK if difference <= LARGEST_ERROR else FAIL
    yield Finding(
        f"engine {engine}", state, f"{difference:.1e} from the reference (at most {LARGEST_ERROR:g} expected)"
    )
    yield Finding(
        f"engine {engine} speed",
        OK,
        f"100 scatterers x 3 transmits: {again:.3f} s (the first time {first:.1f} s)",
    )
