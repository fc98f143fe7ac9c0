"""Make the folder of the shipped despeckler from a run: tone curves, float16 weights, record, card.

    python benchmarks/shipped_model.py runs/shipped/run --examples runs/shipped/examples.npz

The card quotes benchmarks/results/shipped/gate.md, which benchmarks/shipped_gate.py writes of the folder made here.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from irsde import load, models, restore
from irsde.config import FREE_ON_RESUME
from irsde.shipped.examples import load_examples
from irsde.shipped.lessons import prepare
from irsde.shipped.tone import displayed, fit_tones

CARD = """# despeckler

Restores B-mode pictures to their expected image: what a picture would be on average over draws of speckle, in its own grey
levels. One pass of a small residual U-Net about a smoothed copy of the picture ({parameters:,} parameters, float16).

    irsde restore image.png -o clean.png

## Training data and licences

Simulated by this package (two draws of speckle each; probes C5-2v, L11-5v, L12-3v, P4-2v; half of the fields zoomed 1.5 to 5
times; 3 to 15 transmits; scatterer contrast 30 to 65 dB) from procedural phantoms and from MRI that may be passed on, by the
licences that the repositories or packages state which ship the files (none ships one of the data alone). {counts}

| subject | source | licence as stated |
|---|---|---|
| abdomen-pydicom | pydicom, examples_overlay.dcm | MIT |
| brain-nibabel | nibabel, example4d.nii.gz | MIT |
| knee | gattia/pymskt, MESE T2, echo 1 | MIT |
| brain-mni | MNI ICBM152 T1 template (nilearn) | BSD-3; the template's permissive notice |
| brain-dipy | dipy, T1 coronal slice | BSD-3 |
| abdomen-totalsegmentator | TotalSegmentator, example MR | Apache-2.0 |
| phantom | `ussim.phantoms` | Apache-2.0, this package |

No clinical ultrasound was trained on. The weights have this package's licence, Apache-2.0.

## Recipe and command

Recipe `shipped`, {steps} steps; SHA-256 of the training examples begins {digest}.

    python benchmarks/shipped_examples.py -o runs/shipped/examples.npz
    {command}
    python benchmarks/shipped_model.py runs/shipped/run --examples runs/shipped/examples.npz

Target, augmentation and loss: docs/shipped.md. The table, misses named: benchmarks/results/shipped/gate.md.

## What it is not for

Not for diagnosis, and not a medical device. Not for measuring texture, or anything else that is in the speckle: that is what
it takes away. Not for color Doppler or M-mode. What is fainter than about 4 dB, or narrower than a few grains of speckle,
may be lost: look at the picture beside the result, or take --strength 0.5. gCNR rises by smoothing alone: it proves nothing
here.
`--tone mri` fits pictures of 40 dB as `datagen build` simulates them, not a scanner's.
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--examples", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=models.HOME / models.DEFAULT)
    arguments = parser.parse_args()
    model = load(arguments.run, device="cpu")
    examples = load_examples(arguments.examples)
    tests = examples.select(lambda example: example.split == "test")
    curves = fit_tones(partial(restore, model, mask=None), displayed(tests, prepare(tests)))
    details = dict(model.details or {})
    details.pop("stores", None)  # places of the machine that trained
    object.__setattr__(model, "details", details)
    trained = examples.select(lambda example: example.split == "train")
    subjects = sorted({example.subject for example in trained.plan})
    counts = ", ".join(f"{s} {sum(example.subject == s for example in trained.plan)}" for s in subjects)
    summary = "B-mode pictures to their expected image, in their own grey levels"
    folder = model.save_pretrained(arguments.out, kind="despeckler", summary=summary, tone={"mri": curves})
    processes = int(details.get("processes", 1))
    changes = (details.get("recipe") or {}).get("not_followed", {})
    command = "irsde" if processes == 1 else f"torchrun --nproc_per_node {processes} -m irsde"
    command += " train --recipe shipped --data runs/shipped/examples.npz --out runs/shipped/run"
    command += "".join(
        f" --{name.replace('_', '-')} {value['run']}" for name, value in changes.items() if name not in FREE_ON_RESUME
    )
    card = CARD.format(
        parameters=sum(p.numel() for p in model.network.parameters()), steps=f"{model.step:,}",
        digest=trained.digest(), command=command, counts=f"Examples: {counts}.",
    )  # fmt: skip
    (folder / models.CARD).write_text(card, encoding="utf-8")
    print(folder)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
