"""The tables of the despeckling paper at a size that two cores manage: what they look like, not what they can reach.

Trains `tiny` networks on B-modes of one probe (L11-5v), 128 x 128 pixels, from the MRI of the shared reference data, and
tests on a subject that none of them saw:

    methods   IR-SDE beside a supervised U-Net and DnCNN trained on the same pairs with as many steps, and filters
    steps     respaced (one network of T = 100, fewer steps) and retrained (T = 20), stochastic and deterministic
    probes    the network of one probe on images of four
    folds     5 networks of 5 folds against 5 seeds of one, and what the variance of each tells of the error

    python benchmarks/irsde_tables.py                    # all of it; a stopped run goes on where it was
    python benchmarks/irsde_tables.py --every 40 --training-steps 20 --test-images 2 --work runs/smoke \\
        --out runs/smoke/results                         # does it run

`benchmarks/irsde_learning.py` is the one long training. Stores and runs go to --work; tables, pictures and summary.json
to --out.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

from irsde_learning import REPOSITORY, Building, Tee, numbers
from timing import machine, write_result

import datagen
from irsde.config import TrainConfig
from irsde.data import Subset, open_store, whole
from irsde.evaluation.evaluate import evaluate
from irsde.evaluation.results import Result
from irsde.evaluation.table import write_report
from irsde.network import load
from irsde.training import train
from ussim.commands import console

TRAINED_ON = "L11-5v"
PROBES = (TRAINED_ON, "L12-3v", "C5-2v", "P4-2v")
FOLDS = 5
# Source -> folder and files with the names that they get here. A subject is a file; its fold is a hash of its name: with
# these names, each of the five has a fold of its own.
Files = dict[str, tuple[str, dict[str, str]]]
TRAINING: Files = {
    "nifti": (
        "mri_nifti",
        {
            "abdomen_totalseg_example_mr_3mm.nii.gz": "abdomen.nii.gz",
            "knee_mese_te1.nii.gz": "knee.nii.gz",
            "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz": "brain-template.nii.gz",
        },
    ),
    "npy": ("mri_npy", {"dipy_t1_coronal_slice.npy": "head.npy"}),
    "dicom": ("mri_dicom/codecs", {"emri_small.dcm": "emri_small.dcm"}),
}
TESTING: Files = {"nifti": ("mri_nifti", {"nibabel_example4d.nii.gz": "nibabel_example4d.nii.gz"})}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared" / "data")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "runs" / "irsde_tables")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "benchmarks" / "results" / "irsde_tables")
    parser.add_argument("--test-images", type=int, default=24, help="of the unseen subject, for each probe")
    parser.add_argument("--every", type=int, default=6, help="take every n-th slice to learn from")
    parser.add_argument("--training-steps", type=int, default=3000, help="of each network")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    with open(arguments.work / "log.txt", "a", encoding="utf-8") as log, redirect_stderr(Tee(sys.stderr, log)):
        return run(arguments)


def run(arguments: argparse.Namespace) -> int:
    learnt = build_pairs(arguments, "train", TRAINING, (TRAINED_ON,), every=arguments.every)
    unseen = build_pairs(arguments, "test", TESTING, PROBES, limit=arguments.test_images)
    training = whole(open_store(str(learnt), (TRAINED_ON,))[0])
    tests = {pairs.probes[0]: whole(pairs) for pairs in open_store(str(unseen), PROBES)}
    same = tests[TRAINED_ON]

    irsde = trained(arguments, learnt, "irsde")
    few = trained(arguments, learnt, "retrained-20", n_steps=20)
    supervised = [trained(arguments, learnt, name, method=name) for name in ("unet", "dncnn")]
    folds = [trained(arguments, learnt, f"fold{k}", fold=k) for k in range(FOLDS)]

    def measured(models: list[Any], subsets: list[Subset], **options: Any) -> Result:
        return evaluate(models, subsets, **{"baselines": False, "progress": True, **options})

    tables = {
        "methods": ("IR-SDE, supervised networks and filters", measured(
            [irsde, *supervised], [same], steps=(10,), samples=8, baselines=True, fit=[training]
        )),
        "steps": ("Step counts: respaced and retrained", joined(
            *(measured([irsde], [same], steps=(100, 50, 20, 10, 5), sampler=s) for s in ("posterior", "ddim")),
            *(measured([few], [same], steps=(20, 10, 5), sampler=s) for s in ("posterior", "ddim")),
        )),
        "probes": (f"Trained on {TRAINED_ON}, tested on four probes", measured(
            [irsde], list(tests.values()), steps=(10,), samples=8
        )),
        "folds": (f"{FOLDS} folds against {FOLDS} seeds", measured(folds, [same], steps=(10,), n_seeds=FOLDS)),
    }  # fmt: skip
    summary: dict[str, Any] = {
        "command": " ".join(["python", "benchmarks/irsde_tables.py", *sys.argv[1:]]),
        "training": {
            "pairs": len(training),
            "subjects": sorted(set(training.subjects)),
            "steps": arguments.training_steps,
            "preset": "tiny",
        },
        "test": {"images": len(same), "subjects": sorted(set(same.subjects))},
        "machine": machine(("ussim", "torch", "diffusers", "numpy")),
    }
    for name, (title, result) in tables.items():
        write_report(result, arguments.out / f"{name}.md", title)
        summary[name] = [{"probe": row.group, **numbers(row)} for row in result.rows]
        if result.uncertainty:
            summary["correlation"] = [
                {"members": u.name, **{kind: u.correlation(kind) for kind in ("pearson", "spearman")}}
                for u in result.uncertainty
            ]
        console.result(str(arguments.out / f"{name}.md"))
    write_result(arguments.out / "summary.json", summary)
    return 0


def build_pairs(
    arguments: argparse.Namespace,
    name: str,
    files: Files,
    probes: tuple[str, ...],
    **chosen: int,
) -> Path:
    """Return a pairs store of chosen files, one subject a file; finished if it is there."""
    roots = []
    for source, (folder, names) in files.items():
        root = arguments.work / "mri" / name / source
        root.mkdir(parents=True, exist_ok=True)
        for original, name_here in names.items():
            if not (root / name_here).is_symlink():
                (root / name_here).symlink_to((arguments.data / folder / original).resolve())
        roots.append(root)
    recipe = datagen.Recipe(
        source=tuple(files), root=tuple(roots), probes=probes, **({"size": 128, "seed": 0} | chosen)
    )  # fmt: skip
    store = arguments.work / f"{name}.zarr"
    summary = datagen.build(recipe, store, resume=True, watcher=Building())
    console.note(f"{store.name}: {summary.n_samples} pairs of {summary.n_subjects} subjects")
    return store


def trained(arguments: argparse.Namespace, store: Path, name: str, **settings: Any) -> Any:
    """Return a network, all with the same number of steps and the same schedule.

    Taken from the run folder if it is there.
    """
    config = TrainConfig.create(
        store=str(store),
        probes=(TRAINED_ON,),
        preset="tiny",
        steps=arguments.training_steps,
        mixed_precision="bf16",
        warmup=min(200, arguments.training_steps // 5),
        validate_every=0,
        device=arguments.device,
        **settings,
    )
    folder = arguments.work / name
    train(config, folder, resume=True)
    return load(folder, device=arguments.device)


def joined(first: Result, *others: Result) -> Result:
    """One table of several, the row of LQ once."""
    for other in others:
        first.rows += [row for row in other.rows if row.method != "LQ"]
        first.sources += [line for line in other.sources if line not in first.sources]
        for group, images in other.pictures.items():
            for shown, more in zip(first.pictures[group], images, strict=True):
                shown[-1:-1] = more[1:-1]
    return first


if __name__ == "__main__":
    sys.exit(main())
