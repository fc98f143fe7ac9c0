"""Seconds to restore an image of 256 x 256 on a CPU: the shipped model, and samplers in five steps, run in four ways.

float32 as `irsde.restore` runs it; channels_last; bfloat16 (autocast) with channels_last; ONNX Runtime on the file that
`irsde export` writes. Weights do not matter to the time: the samplers are of preset "small" and untrained. The fastest of
some calls and the median of their processor time are kept: on a busy machine they say what the median of the clock does not.
Set OMP_WAIT_POLICY=PASSIVE on such a machine: threads that wait by spinning take the time of those that they wait for.

    python benchmarks/irsde_speed.py                    # results/irsde_speed.json and .md
    python benchmarks/irsde_speed.py --threads 1 2 --repeats 9
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import timing
import torch

import irsde
from irsde.config import TrainConfig
from irsde.data import Normalization
from irsde.network import Model, build_network, build_sde
from irsde.onnx_export import export, noise_of
from irsde.sample import Sampling, restore

SIZE = 256
MODELS = {  # name -> (settings of an untrained run, or None: the shipped model; how it samples)
    "despeckler (shipped)": (None, Sampling()),
    "U-Net, small": ({"method": "unet"}, Sampling()),
    "IR-SDE, small, 5 steps": ({"method": "irsde"}, Sampling(5, "ddim")),
    "flow, small, 5 steps": ({"method": "flow"}, Sampling(5)),
    "PMRF, small, 5 steps": ({"method": "pmrf"}, Sampling(5)),
}
WAYS = ("float32", "channels_last", "bfloat16", "ONNX Runtime")


def main() -> None:
    """Time every model every way, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", nargs="+", type=int, default=(1, 2))
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--models", nargs="+", choices=sorted(MODELS), default=list(MODELS))
    arguments = parser.parse_args()
    lq = np.random.default_rng(0).random((SIZE, SIZE)).astype(np.float32)
    rows = []
    for name in arguments.models:
        settings, sampling = MODELS[name]
        for threads in arguments.threads:
            for way in WAYS:
                seconds = timing.time_calls(calls(way, model_of(settings), sampling, lq, threads), arguments.repeats)
                rows.append({"model": name, "threads": threads, "way": way, **seconds})
                print(f"{name}, {threads} threads, {way}: {seconds['min_s']:.3f} s", flush=True)
    rows = kept(rows)
    record = {"machine": timing.machine(("torch", "onnxruntime")), "pixels": [SIZE, SIZE], "runs": rows}
    timing.write_result(timing.RESULTS / "irsde_speed.json", record)
    (timing.RESULTS / "irsde_speed.md").write_text(table(rows), encoding="utf-8")


def kept(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return these rows, and those of other models or threads that were measured before."""
    path = timing.RESULTS / "irsde_speed.json"
    before = json.loads(path.read_text(encoding="utf-8"))["runs"] if path.exists() else []
    new = {(row["model"], row["threads"]) for row in rows}
    together = rows + [row for row in before if (row["model"], row["threads"]) not in new]
    order = list(MODELS)
    return sorted(together, key=lambda row: (order.index(row["model"]), row["threads"], WAYS.index(row["way"])))


def model_of(settings: dict[str, Any] | None) -> Model:
    """Return the shipped model, or an untrained one."""
    if settings is None:
        return irsde.load("despeckler", device="cpu")
    torch.manual_seed(0)
    config = TrainConfig.create(store="none", preset="small", **settings)
    process = build_sde(config)
    return Model(config, build_network(config, process).eval().requires_grad_(False), process, Normalization())


def calls(way: str, model: Model, sampling: Sampling, lq: np.ndarray, threads: int) -> Callable[[], Any]:
    """Return what restores the image once, that way."""
    torch.set_num_threads(threads)
    if way == "ONNX Runtime":
        return exported(model, sampling, lq, threads)
    if way != "float32":
        model.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run() -> np.ndarray:
        with torch.autocast("cpu", torch.bfloat16, enabled=way == "bfloat16"):
            return restore(model, lq, sampling.steps, sampling.sampler, mask=None)

    return run


def exported(model: Model, sampling: Sampling, lq: np.ndarray, threads: int) -> Callable[[], Any]:
    """Return what runs the model's file."""
    with tempfile.TemporaryDirectory() as folder:
        draws = int(export(model, Path(folder) / "model.onnx", sampling)["noise_draws"])
        content = (Path(folder) / "model.onnx").read_bytes()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    given = {"image": lq[None, None]}
    if draws:
        given["noise"] = noise_of(0, draws, (SIZE, SIZE))
    return lambda: session.run(None, given)


def table(rows: list[dict[str, Any]]) -> str:
    """Return the fastest call of each way, s, as Markdown; processor seconds in brackets."""
    lines = [f"| {SIZE} x {SIZE} | threads | " + " | ".join(WAYS) + " |", "|---|---:|" + "---:|" * len(WAYS)]
    for name, threads in dict.fromkeys((row["model"], row["threads"]) for row in rows):
        own = {row["way"]: row for row in rows if (row["model"], row["threads"]) == (name, threads)}
        cells = [f"{own[way]['min_s']:.3f} s ({own[way]['cpu_s']:.2f})" for way in WAYS]
        lines.append(f"| {name} | {threads} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
