"""Methods that are compared: filters, trained models, means and ensembles of them, and network files of any origin."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irsde.data import GREY_LEVEL, DataError, Subset
from irsde.echo_area import echo_area
from irsde.evaluation.baselines import BASELINES, ToneCurve, fit_tone_curve, tune
from irsde.evaluation.foreign import load_torch_model
from irsde.evaluation.results import Image, Result

FIT_PAIRS = 24  # training pairs that filters are tuned on


@dataclass(frozen=True)
class Method:
    """A named way to restore an LQ image.

    `run` takes the image, then what is marked: its probe's field (`has_field`), the seed of its noise (`draws`), the HQ
    image (`reads_hq`: upper bounds, told what they should find).
    """

    name: str
    run: Callable[..., Image]
    steps: int | None = None
    note: str = ""
    draws: bool = False
    reads_hq: bool = False
    has_field: bool = False


@dataclass(frozen=True)
class Members:
    """Several restorations of an LQ image as one method: `run` gives mean and variance from image, seed and field."""

    run: Callable[[Image, int, NDArray[np.bool_] | None], tuple[Image, Image]]
    steps: int
    sampler: str


def comparison(
    models: Sequence[Any],
    steps: Sequence[int | None],
    sampler: str | None,
    samples: int,
    baselines: bool,
    fit: Sequence[Subset],
    torch_models: Sequence[tuple[str, str | Path]],
    trust: bool,
    result: Result,
    mask: str | None,
    fidelities: Sequence[float] = (1.0,),
) -> list[Method]:
    """Return all methods of a comparison; what cannot run is named in the result."""
    methods = [Method("LQ", lambda lq: lq)]
    if baselines:
        pairs = _fit_pairs(fit)
        for name, baseline in BASELINES.items():
            if baseline.lacks:
                result.not_run.append(f"{name}: {baseline.lacks}")
                continue
            settings = tune(baseline, pairs) if pairs else baseline.settings[0]
            note = ", ".join([*(f"{k} {v}" for k, v in settings.items()), *filter(None, [baseline.note])])
            methods.append(Method(name, lambda lq, b=baseline, s=settings: b(lq, **s), note=note))
        if pairs:
            curve: ToneCurve = fit_tone_curve(pairs)
            methods.append(Method("median + fitted tone curve", curve, note=f"size {curve.size}"))
    for name, path in torch_models:
        methods.append(Method(name, load_torch_model(path, trust)))
        digest = "a run" if Path(path).is_dir() else f"SHA-256 {sha256(Path(path))}"
        result.sources.append(f"{name}: {Path(path).name}, {digest}")
    for model in models:
        methods += _model_methods(model, steps, sampler, samples, mask, fidelities)
        result.sources.append(
            f"{model.name}: step {model.step}, {(model.details or {}).get('parameters', 0):,} parameters"
        )
    return methods


def _model_methods(
    model: Any,
    steps: Sequence[int | None],
    sampler: str | None,
    samples: int,
    mask: str | None,
    fidelities: Sequence[float],
) -> list[Method]:
    from irsde.sample import Sampling, draw_samples, field_mask, restore, restore_normalized

    def seen(field: NDArray[np.bool_] | None) -> Any:
        return mask if field is None else field_mask(model, field)

    if not model.is_diffusion:
        name = f"{model.name} ({model.config.method})"
        return [Method(name, lambda lq, field=None: restore(model, lq, mask=seen(field)), has_field=True)]
    methods = []
    sampler = sampler_of(model, sampler)
    for count, fidelity in product(steps, fidelities):
        n = count or model.sde.default_steps
        methods.append(Method(
            model.name,
            lambda lq, seed, field=None, n=n, f=fidelity: restore(
                model, lq, n, sampler, seed, mask=seen(field), fidelity=f
            ),
            n, sampler if fidelity == 1 else f"{sampler}, fidelity {fidelity:g}", draws=True, has_field=True,
        ))  # fmt: skip
    n = steps[0] or model.sde.default_steps
    if samples > 1:
        options: dict[str, Any] = {"steps": n, "sampler": sampler}
        methods.append(Method(
            f"{model.name}, mean of {samples} samples",
            lambda lq, seed, field=None: draw_samples(model, lq, samples, seed, mask=seen(field), **options).mean(axis=0),
            n, sampler, draws=True, has_field=True,
        ))  # fmt: skip
    if model.normalization.kind == "own":
        told = replace(model.normalization, inverse="oracle")

        def upper_bound(lq: Image, seed: int, hq: Image, field: NDArray[np.bool_] | None = None) -> Image:
            area = echo_area(lq, seen(field))
            z = restore_normalized(model, area.cut(lq)[None], [seed], Sampling(n, sampler))[0]
            restored = np.array(lq, np.float32)
            area.put(restored, told.output(z, area.cut(lq), area.cut(hq)))
            return restored

        name = f"{model.name}, told HQ mean and std"
        methods.append(Method(name, upper_bound, n, "upper bound", draws=True, reads_hq=True, has_field=True))
    return methods


def sampler_of(model: Any, asked: str | None) -> str:
    """Return the sampler that is asked for where the model's process takes it, else the process's own."""
    return asked if asked and asked in model.sde.samplers else str(model.sde.default_sampler)


def ensembles(models: Sequence[Any], steps: int | None, sampler: str | None, n_seeds: int) -> dict[str, Members]:
    """Mean and variance over models, over models with the same noise, and over seeds of one model."""
    from irsde.sample import field_mask, mean_and_variance, restore

    def run(members: Sequence[tuple[Any, int]]) -> Callable[..., tuple[Image, Image]]:
        """Models, each with what is added to the seed of its noise."""
        return lambda lq, seed, field: mean_and_variance(
            [restore(m, lq, steps, sampler_of(m, sampler), seed + k, mask=field_mask(m, field)) for m, k in members]
        )

    runs = {
        f"ensemble of {len(models)}": run([(m, k) for k, m in enumerate(models)]),
        f"ensemble of {len(models)}, same noise": run([(m, 0) for m in models]),
        f"{models[0].name}, {n_seeds} seeds": run([(models[0], k) for k in range(n_seeds)]),
    }
    first = models[0].sde
    return {
        name: Members(run, steps or first.default_steps, sampler_of(models[0], sampler)) for name, run in runs.items()
    }


def without_subjects(subsets: Sequence[Subset], subjects: set[str]) -> list[Subset]:
    """Return the subsets without the pairs of some subjects."""
    left = [s.select([i for i, subject in enumerate(s.subjects) if subject not in subjects]) for s in subsets]
    if any(map(len, subsets)) and not any(map(len, left)):
        raise DataError("the pairs to tune filters on are all of subjects that are tested on; give others")
    return left


def _fit_pairs(fit: Sequence[Subset]) -> list[tuple[Image, Image]]:
    everywhere = [(subset, i) for subset in fit for i in range(len(subset))]
    chosen = np.unique(np.linspace(0, len(everywhere) - 1, min(FIT_PAIRS, len(everywhere))).astype(int))
    pairs = [everywhere[k][0][everywhere[k][1]] for k in chosen] if everywhere else []
    return [pair for pair in pairs if np.std(pair[1]) >= GREY_LEVEL]


def sha256(path: Path) -> str:
    """Return the digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
