"""Resolution of a posterior sampler on the channel data beside DDRM, with one prior: widths, contrast, speckle, seconds.

Points and echo-free discs; channel data by `ussim.simulate` of scatterers anywhere, one plane wave, white noise of 0.3 of
their rms. DAS, DENO and DRUS by both samplers, and a bound: the same chains told the true map. Seconds are processor time
of one core for all images of a sampler, DAS and DENO among them: a machine that is busy does not change them much.

    python benchmarks/drus_samplers.py --prior drus-prior
    python benchmarks/drus_samplers.py --prior priors/a --cases points --pixels 256 128 --samples 20
    python benchmarks/drus_samplers.py --prior drus-prior --seconds       # two steps of two samples at two sizes, alone

Results: benchmarks/results/drus_samplers.json, and a picture of each case beside it.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np

from irsde.drus import daps, ddrm, imaging, priors
from irsde.drus.build import operator as build_operator
from irsde.drus.channels import channel_model
from irsde.drus.recordings import single
from ussim.show.figures import save_figure

RESULTS = Path(__file__).parent / "results"
CASES = {"points": "scatterers", "discs": "occlusion"}
SIZES = ((128, 128), (256, 128))  # of --seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prior", default="local", help='a prior of `irsde drus-train`, or "local" (no network)')
    parser.add_argument("--cases", nargs="+", choices=sorted(CASES), default=sorted(CASES))
    parser.add_argument("--pixels", nargs=2, type=int, default=(128, 64), help="rows and columns")
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--steps", type=int, default=daps.STEPS, help="of daps; DDRM takes 50")
    parser.add_argument("--seconds", action="store_true", help="the time of a step alone, for 128 x 128 and 256 x 128")
    arguments = parser.parse_args()
    prior = priors.LocalVariancePrior() if arguments.prior == "local" else priors.load_prior(arguments.prior)
    path = RESULTS / "drus_samplers.json"
    record = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    record["machine"] = {"processor": platform.processor() or platform.machine(), "cores": 1}
    if arguments.seconds:
        record["seconds"] = {f"{n} x {m}": step_seconds((n, m), prior) for n, m in SIZES}
    else:
        for name in arguments.cases:
            record[name] = compare(name, prior, arguments)
            path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def compare(name: str, prior: Any, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return scores and seconds of every method on a case; its picture is saved."""
    shape = (arguments.pixels[0], arguments.pixels[1])
    case = imaging.phantom_case(CASES[name], shape=shape, noise=0.3, n_transmits=1)
    images: dict[str, np.ndarray] = {}
    seconds = {}
    for sampler in imaging.SAMPLERS:
        steps = arguments.steps if sampler == "daps" else None
        started = time.process_time()
        result = imaging.reconstruct(case, prior, n_samples=arguments.samples, sampler=sampler, steps=steps)
        seconds[sampler] = round(time.process_time() - started, 1)
        kept = ("DAS, 1 transmit", "DENO") if sampler == "ddrm" else ()
        images |= {name: result.images[name] for name in kept}
        images |= {f"{kind}, {sampler}": result.images[kind] for kind in ("DRUSmean", "DRUSvar")}
        told = imaging.with_analytic_prior(case, result, steps=steps)
        images |= {f"{kind}, {sampler}": image for kind, image in told.items()}
    scores = imaging.score(case, images)
    print(imaging.score_table(scores), flush=True)
    print(f"seconds of one core: {seconds}", flush=True)
    save_figure(imaging.comparison_figure(images, case.grid, case.name), RESULTS / f"drus_samplers_{name}.png")
    options = {key: getattr(arguments, key) for key in ("prior", "samples", "steps")}
    kept_scores = {
        method: {key: None if math.isnan(value) else round(value, 4) for key, value in row.items()}
        for method, row in scores.items()
    }
    return {"pixels": shape, **options, "seconds": seconds, "scores": kept_scores}


def step_seconds(shape: tuple[int, int], prior: Any) -> dict[str, float]:
    """Return the processor's seconds per sample and step of both samplers, and of what each prepares."""
    case = imaging.phantom_case("occlusion", shape=shape, noise=0.3, n_transmits=1)
    rf = single(case.rf)
    times = {}

    def timed(name: str, run: Any) -> Any:
        started = time.process_time()
        answer = run()
        times[name] = round(time.process_time() - started, 3)
        return answer

    model = timed("daps, once", lambda: channel_model(rf, case.grid))
    rng = np.random.default_rng(0)
    mean, variance = np.zeros(model.grid.shape), np.full(model.grid.shape, model.scale**2)
    daps.draw(model, mean, variance, rng)  # compiled
    timed("daps, draw by the delay form", lambda: daps.draw(model, mean, variance, rng, exact=False))
    timed("daps, exact draw", lambda: daps.draw(model, mean, variance, rng))
    x = rng.standard_normal((1, *model.grid.shape))
    timed("daps, prior", lambda: daps._denoised(prior, x, 1.0, 1, "cpu"))
    operator = build_operator(rf.acquisition, case.grid)
    by = rng.standard_normal(case.grid.shape).astype(np.float32)
    timed("ddrm, 5 steps", lambda: ddrm.sample(operator, by, prior, 1, 5, noise_level=0.3))
    exact = np.mean(daps.noise_levels(prior.sigmas, daps.STEPS)[:-1] < daps.EXACT_BELOW)
    draw = exact * times["daps, exact draw"] + (1 - exact) * times["daps, draw by the delay form"]
    times["daps, 10 samples of 20 steps"] = round(times["daps, once"] + 200 * (draw + times["daps, prior"]), 1)
    times["ddrm, 10 samples of 50 steps"] = round(100 * times["ddrm, 5 steps"], 1)
    return times


if __name__ == "__main__":
    main()
