"""Influence of the rest of a picture on the echoes that a network restores: border, caption, tile; before and after.

Trains two `tiny` networks on the same simulated pairs and seed, from the MRI of the shared reference data:

    plain      statistics of the whole image, nothing pasted onto the patches: as training was
    overlays   statistics of the echoes, borders, captions, rulers and sectors pasted on: as training is

and restores images of a subject that neither saw, by the deterministic sampler, in three ways:

    before     the plain network over the whole picture, tiles normalized each by itself: as restoring was
    restoring  the plain network over the echo area, tiles with common statistics
    training   the network trained with overlays, over the echo area

Rows are differences, in grey levels of [0, 1], of the echoes' result with and without what the row names; `another seed`
is what the sampler's own noise does. Reported too: what becomes of the caption, and the PSNR on pictures without any.

    python benchmarks/irsde_invariance.py
    python benchmarks/irsde_invariance.py --training-steps 20 --every 60 --large 300 --images 1 \\
        --work runs/smoke --out runs/smoke/results
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import numpy as np
from irsde_learning import REPOSITORY, Tee
from irsde_tables import TESTING, TRAINING, build_pairs
from scipy import ndimage
from timing import machine, write_result

from irsde import sample
from irsde.clinic.overlays import Overlay, caption
from irsde.config import TrainConfig
from irsde.data import open_store, whole
from irsde.evaluation import metrics
from irsde.network import load
from irsde.sample import restore
from irsde.training import train
from ussim.commands import console

PROBES = ("L11-5v", "C5-2v")
TILES = (128, 256, 512)
UNSEEN = 6  # images of the unseen subject that are simulated for each probe
AWAY = 12  # pixels from a caption: nearer ones see it through the network's own field of view
NETWORKS: dict[str, dict[str, Any]] = {
    "plain": {"statistics": "image", "overlays": 0.0},
    "overlays": {},
}
WAYS = {"before": ("plain", False), "restoring": ("plain", True), "training": ("overlays", True)}
Restore = Callable[..., np.ndarray]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared" / "data")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "runs" / "irsde_invariance")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "benchmarks" / "results" / "irsde_invariance")
    parser.add_argument("--every", type=int, default=20, help="take every n-th slice to learn from")
    parser.add_argument("--images", type=int, default=2, help="of the unseen subject, for each probe")
    parser.add_argument(
        "--large", type=int, default=768, help="pixels on a side of the image that is restored in tiles"
    )
    parser.add_argument("--training-steps", type=int, default=300, help="of each network")
    parser.add_argument("--steps", type=int, default=5, help="of the sampler")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    with open(arguments.work / "log.txt", "a", encoding="utf-8") as log, redirect_stderr(Tee(sys.stderr, log)):
        return run(arguments)


def run(arguments: argparse.Namespace) -> int:
    large = build_pairs(arguments, "large", TESTING, PROBES[:1], size=arguments.large, limit=1)
    learnt = build_pairs(arguments, "train", TRAINING, PROBES, every=arguments.every)
    unseen = build_pairs(arguments, "test", TESTING, PROBES, size=192, limit=UNSEEN)
    models = {name: trained(arguments, learnt, name, **settings) for name, settings in NETWORKS.items()}
    subsets = [whole(pairs) for pairs in open_store(str(unseen), PROBES)]
    pairs = [subset[i] for subset in subsets for i in range(min(arguments.images, len(subset)))]
    big = whole(open_store(str(large), PROBES[:1])[0])[0][1]
    rows: dict[str, dict[str, float]] = {}
    for name, (network, is_now) in WAYS.items():
        with tiles_of_their_own(is_now):
            options = {"steps": arguments.steps, "sampler": "ddim", "mask": "auto" if is_now else None}
            rows[name] = measured(
                lambda lq, o=options, m=models[network], **more: restore(m, lq, **o | more), pairs, big
            )
        console.note(f"{name}: {rows[name]}")
    table = as_table(rows, arguments)
    (arguments.out / "table.md").write_text(table, encoding="utf-8")
    write_result(arguments.out / "summary.json", {
        "command": command(arguments),
        "seeds": {"pairs": 0, "training": 0, "sampler": 0, "another seed": 1, "captions": "0, number of the image"},
        "networks": {name: {"preset": "tiny", "steps": arguments.training_steps, **settings}
                     for name, settings in NETWORKS.items()},
        "sampler": {"name": "ddim", "steps": arguments.steps},
        "images": {"small": len(pairs), "large": list(big.shape)},
        "rows": rows,
        "machine": machine(("ussim", "torch", "diffusers", "numpy")),
    })  # fmt: skip
    console.result(str(arguments.out / "table.md"))
    return 0


def command(arguments: argparse.Namespace) -> str:
    """Return what gives these figures, apart from where files lie and on which device."""
    names = ("every", "images", "large", "training_steps", "steps")
    options = [f"--{name.replace('_', '-')} {getattr(arguments, name)}" for name in names]
    return " ".join(["python benchmarks/irsde_invariance.py", *options])


def measured(run: Restore, pairs: list[tuple[np.ndarray, np.ndarray]], big: np.ndarray) -> dict[str, float]:
    """Return the rows of one way to restore."""
    found: dict[str, list[float]] = {}
    for k, (hq, lq) in enumerate(pairs):
        alone = run(lq)
        picture, inside = bordered(lq)
        text = drawn_caption(lq.shape, k)
        written = text.paste(lq)
        far = ndimage.distance_transform_edt(text.opacity == 0) > AWAY
        in_border, _ = bordered(lq, drawn_caption((2 * lq.shape[0], 2 * lq.shape[1]), k))
        for name, value in {
            "another seed": rms(run(lq, seed=1) - alone),
            "another seed, mean": abs(mean(run(lq, seed=1) - alone)),
            "border of 75 %": abs(mean(run(picture)[inside] - alone)),
            "border of 75 % with a caption": abs(mean(run(in_border)[inside] - alone)),
            "white caption over the echoes": rms((run(written) - alone)[far]),
            "caption itself": float(np.abs(run(written) - written)[text.opacity == 1].mean()),
            "PSNR, dB": metrics.psnr(alone, hq),
        }.items():
            found.setdefault(name, []).append(value)
    untiled = run(big, tile=max(big.shape))
    for tile in TILES:
        if tile < max(big.shape):
            found[f"tiles of {tile}"] = [rms(run(big, tile=tile, overlap=min(64, tile // 4)) - untiled)]
    found["another seed, large image"] = [rms(run(big, tile=max(big.shape), seed=1) - untiled)]
    return {name: round(float(np.mean(values)), 4) for name, values in found.items()}


def bordered(image: np.ndarray, text: Overlay | None = None) -> tuple[np.ndarray, tuple[slice, slice]]:
    """Return a picture of which a black border, with or without a caption, takes 75 %; and where the image lies in it."""
    nz, nx = image.shape
    picture = np.zeros((2 * nz, 2 * nx), np.float32)
    if text is not None:
        picture = text.paste(picture)
    inside = slice(nz // 2, nz // 2 + nz), slice(nx // 2, nx // 2 + nx)
    picture[inside] = image
    return picture, inside


def drawn_caption(shape: tuple[int, int], k: int) -> Overlay:
    """White lines of text, one draw for each image."""
    text = caption(shape, np.random.default_rng([0, k]))
    return Overlay(text.opacity, np.ones(shape, np.float32))


def rms(difference: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(difference, dtype=np.float64))))


def mean(difference: np.ndarray) -> float:
    return float(np.mean(difference, dtype=np.float64))


@contextmanager
def tiles_of_their_own(is_now: bool):
    """Without common statistics of tiles, as it was, unless `is_now`."""
    before = sample.GATHERINGS
    sample.GATHERINGS = before if is_now else 0
    try:
        yield
    finally:
        sample.GATHERINGS = before


def trained(arguments: argparse.Namespace, store: Path, name: str, **settings: Any) -> Any:
    """Return a network; taken from the run folder if it is there."""
    config = TrainConfig.create(
        store=str(store),
        probes=PROBES,
        preset="tiny",
        steps=arguments.training_steps,
        warmup=min(200, arguments.training_steps // 5),
        validate_every=0,
        device=arguments.device,
        **settings,
    )
    train(config, arguments.work / name, resume=True)
    return load(arguments.work / name, device=arguments.device)


def as_table(rows: dict[str, dict[str, float]], arguments: argparse.Namespace) -> str:
    lines = [
        "# What else in a picture changes the restored echoes",
        "",
        "| difference of the echoes' result, grey levels of [0, 1] | " + " | ".join(rows) + " |",
        "|---|" + "---:|" * len(rows),
    ]
    for name in next(iter(rows.values())):
        digits = 2 if "dB" in name else 4
        lines.append(f"| {name} | " + " | ".join(f"{values[name]:.{digits}f}" for values in rows.values()) + " |")
    lines += [
        "",
        "*before*: statistics of the whole image in training and restoring, each tile by its own, nothing pasted. "
        "*restoring*: the same network over the echo area, tiles with common statistics. *training*: a network trained "
        "with the field's statistics and overlays, restoring the same. Borders: absolute difference of the mean; captions, "
        "tiles and seeds: RMS. Caption itself: mean absolute change of its pixels. "
        f"Networks of preset tiny, {arguments.training_steps} steps; sampler ddim, {arguments.steps} steps; the same noise "
        "in both images of a difference where they have one size.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
