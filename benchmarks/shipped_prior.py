"""The prior that comes with the package, of a run of `irsde drus-train`: float16 weights, its settings and its card.

irsde drus-train --out runs/prior --data mixture --variance --channels 16,32,64,96 --groups 8 --learning-rate 1e-3
irsde drus-train --out runs/prior-2 --init runs/prior ...        # the card says with which numbers
python benchmarks/shipped_prior.py runs/prior-2
python benchmarks/drus_samplers.py                  # what it gives: results/drus_samplers.json and pictures
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from irsde import models
from irsde.drus import mixture, priors
from irsde.drus.train import DATA, LOG, PriorConfig

SUMMARY = "reflectivity of points and tissue, for `irsde drus`"
CARD = """# reflectivity

What DRUS takes reflectivity for before it has heard an echo: a denoiser of maps of points and speckled tissue that also
says, pixel by pixel, how sure it is (a U-Net of {parameters:,} parameters, float16). `irsde drus` uses it where no other is
named.

    irsde drus channel_data.npz -o drus.png

## Training data and licences

Maps drawn anew for every batch, {size} x {size} pixels: white Gaussian noise under an echogenicity, or scatterers that lie
between the pixels. Shares: {shares}. Shapes, layers and points are drawn at random.
The first command below ran with points 30 %, points in speckle 15 %, shapes 30 %, phantoms 25 %; no maps of tissue alone.

| source | licence |
|---|---|
| shapes, layers and points of `irsde.drus`, phantoms of `ussim.phantoms` | Apache-2.0, this package |
| slices of MRI that pydicom ships | MIT |

No recording and no clinical ultrasound was trained on, nor the test phantoms of `irsde drus --phantom`. The weights have
this package's licence, Apache-2.0.

## Recipe and command

{iterations} iterations of {batch} maps each; loss at the end {loss:.3f}.

    {command}
    python benchmarks/shipped_prior.py {last}

What it resolves, beside delay-and-sum, DDRM and the bound that knows the map: docs/drus.md and
benchmarks/results/drus_samplers.json.

## What it is not for

Not for diagnosis, and not a medical device. Not for a grid whose axial step does not hold the carrier as `irsde drus` has it
(half a cycle to one cycle per row). Smooth bright surfaces, neither points nor speckled tissue, were not in its training:
what it makes of them is not known.
"""


def main() -> None:
    """Write the folder of a run's prior."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, default=models.HOME / models.PRIOR)
    arguments = parser.parse_args()
    runs = chain(arguments.run)
    config = runs[-1]
    last = json.loads((arguments.run / LOG).read_text(encoding="utf-8").splitlines()[-1])
    prior = priors.load_prior(arguments.run)
    commands = [command_of(run, i) for i, run in enumerate(runs)]
    iterations = [run.iterations for run in runs]
    training = {"data": DATA[config.data], "iterations": iterations, "loss": last["loss"], "commands": commands}
    folder = priors.save_prior(prior, arguments.out, summary=SUMMARY, training=training)
    card = CARD.format(
        parameters=sum(p.numel() for p in prior.network.parameters()),
        size=config.size,
        shares=", ".join(f"{name} {100 * share:.0f} %" for name, share in mixture.SHARES.items()),
        iterations=" + ".join(map(str, iterations)),
        batch=config.batch_size,
        loss=last["loss"],
        command="\n    ".join(commands),
        last=name_of(len(runs) - 1),
    )
    (folder / models.CARD).write_text(card, encoding="utf-8")
    print(folder)


def chain(run: Path) -> list[PriorConfig]:
    """Return the settings of a run and of those that it began with, first to last."""
    config = PriorConfig(**_tuples(json.loads((run / "config.json").read_text(encoding="utf-8"))))
    return [*(chain(Path(config.init)) if config.init else []), config]


def name_of(i: int) -> str:
    """Return the folder of the i-th run of a chain, as the card calls it."""
    return f"runs/prior-{i + 1}"


def command_of(config: PriorConfig, i: int) -> str:
    """Return the command that trains the i-th prior of a chain."""
    options = {
        "out": name_of(i),
        **({"init": name_of(i - 1)} if i else {}),
        "channels": ",".join(map(str, config.channels)),
        "groups": config.groups,
        "learning-rate": f"{config.learning_rate:g}",
        "iterations": config.iterations,
        "seed": config.seed,
        "data": config.data,
    }
    command = " ".join(["irsde drus-train", *(f"--{name} {value}" for name, value in options.items())])
    return command + (" --variance" if config.variance else "")


def _tuples(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}


if __name__ == "__main__":
    main()
