"""Training: pairs in, run folder out, resumable to the same loss.

    runs/a/
      config.json           the config, the normalization measured, subjects, parameters, versions
      metrics.csv           step, loss, learning rate, gradient norm, steps per second, held-out loss and PSNR
      tensorboard/          the same numbers
      samples/000500.png    LQ, restored, HQ, of held-out pairs where there are any
      checkpoints/000500/   weights, averaged weights, optimizer and random states; the newest two (see `irsde.checkpoints`)
      lock.json             who trains here now

What a step sees depends on the
seed and the step alone: a resumed run continues with the batches and noise it would have had.
"""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from irsde import recipes, run_folder
from irsde.checkpoints import (
    newest_checkpoint,
    read_checkpoint,
    read_state,
    read_tensors,
    set_aside_after,
    write_checkpoint,
)
from irsde.config import TrainConfig
from irsde.data import Augmentation, TrainingBatches, named
from irsde.initial import load_initial, load_mean
from irsde.lessons import Lessons, ResumeError, prepare
from irsde.network import METHODS, Model, build_network, build_sde, pick_device, read_record
from irsde.run_lock import RunLock, hold
from irsde.sample import restore
from ussim.commands import console
from ussim.errors import ExistsError, ExitCode, UssimError
from ussim.extras import needs

# ctrl-C; the end of a job's time or of a container; a terminal that closed, where there is such a signal
STOPS = [number for name in ("SIGINT", "SIGTERM", "SIGHUP") if (number := getattr(signal, name, None)) is not None]
PREVIEWS = 4  # images per sample sheet
PREVIEW_STEPS = 10


class TrainingDiverged(UssimError, RuntimeError):
    """The loss is no number any more."""

    exit_code = ExitCode.DATA


def train(
    config: TrainConfig,
    out: str | Path,
    resume: bool = False,
    pairs: Sequence[Any] | None = None,
    report: Callable[[str], None] | None = None,
) -> Path:
    """Train a model and return its run folder.

    `pairs`, one pairs object a probe, replaces opening `config.store`. `report` gets the few lines worth keeping (None:
    standard error), beside the progress bar. With `resume`, a run that is there goes on; one that is not, starts. Nothing is
    written before settings, pairs and the initial run are found to fit.

    Raises ExistsError if `out` holds something and `resume` is off, ResumeError if it was started with other settings or
    pairs, DataError for pairs that cannot be used, a folder in which another training is at work, or checkpoints of which
    none is whole, TrainingDiverged if the loss stops being finite. On ctrl-C, SIGTERM and SIGHUP, KeyboardInterrupt passes
    after a checkpoint is written.
    """
    for package in ("accelerate", "diffusers", "safetensors"):  # found missing now, not at the first checkpoint
        needs(package)
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    out = Path(out)
    report = report or console.note
    device = pick_device(config.device)
    if config.recipe == recipes.SHIPPED and pairs is None:
        from irsde.shipped.training import open_examples

        pairs = open_examples(config.stores, config.probes)
    record = _record_to_continue(config, out, resume)
    lessons = prepare(config, out, record, pairs, report)
    initial = mean = None
    if record is None or newest_checkpoint(out) is None:
        held_out = {s for subset in lessons.held_out for s in subset.subjects}
        initial, mean = load_initial(config, held_out, report), load_mean(config, held_out, report)
    # Accelerate keeps its mode for the whole process; a second training may ask for another.
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(
        mixed_precision=config.mixed_precision,
        gradient_accumulation_steps=config.gradient_accumulation,
        cpu=device.type == "cpu",
    )
    try:
        with hold(out, report) if accelerator.is_main_process else nullcontext() as lock:
            if lock and (out / "config.json").exists() != (record is not None):
                raise ExistsError(f"{out}: another training wrote this run meanwhile; go on with --resume")
            _Run(config, out, record, lessons, initial, mean, report, accelerator, lock).loop()
    finally:
        accelerator.free_memory()
    return out


class _Run:
    """One training in progress."""

    def __init__(
        self,
        config: TrainConfig,
        out: Path,
        record: dict[str, Any] | None,  # of the run to go on with
        lessons: Lessons,
        initial: Model | None,
        mean: Model | None,
        report: Callable[[str], None],
        accelerator: Any,
        lock: RunLock | None,
    ):
        self.config, self.out, self.report, self.accelerator, self.lock = config, out, report, accelerator, lock
        self.lessons, self.training, self.held_out = lessons, lessons.training, lessons.held_out
        self.normalization, self.origins = lessons.normalization, {"init": initial, "mean": mean}
        self.n_processes_before = (record or {}).get("processes")

        torch.manual_seed(config.seed)
        self.sde = build_sde(config, self.normalization)
        network = build_network(config, self.sde, self.normalization.difference_rms)
        if initial:
            network.load_state_dict(initial.network.state_dict())
        if mean:
            network.mean.load_state_dict(mean.network.state_dict())  # type: ignore[union-attr]
        if config.channels_last:
            network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.n_parameters = sum(p.numel() for p in network.parameters())
        self.optimizer = torch.optim.Adam(network.parameters(), config.learning_rate, config.betas)
        network, self.optimizer = accelerator.prepare(network, self.optimizer)
        self.raw = accelerator.unwrap_model(network)
        self.network: Any = torch.compile(network) if config.compile else network
        self.ema = {k: v.detach().clone() for k, v in self.raw.state_dict().items()}
        self.step = 0
        self.losses: list[Tensor] = []  # of the steps since the last row of metrics.csv
        if record:
            self._restore_checkpoint()
        elif accelerator.is_main_process:
            self._start_folder()
        self.main = accelerator.is_main_process

    # --- the loop ----------------------------------------------------------------------------------------------------

    def loop(self) -> None:
        config, writer = self.config, self._tensorboard()
        batches = self._batches()
        first, started, saved = self.step, time.monotonic(), self.step
        status = ""
        for line in [*recipes.lines(config.to_dict()), self._headline()]:
            self.report(line)
        with _finish_step_on_interrupt() as interrupted, console.Progress("training", config.steps, self.step) as bar:
            while self.step < config.steps and not interrupted:
                loss, norm = self._optimise(batches)
                if self.lock:
                    self.lock.beat()
                self._check_finite(loss, norm, saved)
                self.losses.append(loss.cpu())
                last = self.step == config.steps
                if self.step % config.log_every == 0 or last:
                    row = {
                        "step": self.step,
                        "loss": float(torch.stack(self.losses).mean()),
                        "learning_rate": self._rate(self.step - 1),
                        "gradient_norm": float(norm),
                        "steps_per_second": (self.step - first) / (time.monotonic() - started),
                    }
                    self.losses = []
                    if config.validate_every and (self.step % config.validate_every < config.log_every or last):
                        row |= self._validate()
                    self._log(row, writer)
                    status = f"loss {row['loss']:.4f}, {row['steps_per_second']:.2f} it/s"
                if self.step % config.checkpoint_every == 0 or last or interrupted:
                    self._save()
                    saved = self.step
                bar.advance(note=status)
        if writer:
            with run_folder.naming(self.out / "tensorboard"):
                writer.close()
        if interrupted:
            self.report(f"stopped after step {self.step}, which is saved; go on with --resume")
            raise KeyboardInterrupt

    def _check_finite(self, loss: Tensor, norm: Tensor, saved: int) -> None:
        """Raise TrainingDiverged, before the weights are saved, where a step gave NaN or infinity; name its pairs.

        With a gradient scaler (fp16) a gradient may overflow: such a step changes no weight.
        """
        scaled = self.accelerator.scaler is not None
        if torch.isfinite(loss) and (scaled or torch.isfinite(norm)):
            return
        what = f"the gradient is {float(norm)}" if torch.isfinite(loss) else f"the loss is {float(loss)}"
        last = f"the last checkpoint is of step {saved}" if saved else "there is no checkpoint yet"
        per_step = self.config.gradient_accumulation
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        numbers = [k * world + rank for k in range((self.step - 1) * per_step, self.step * per_step)]
        broken = [name for k in numbers for name in self.dataset.names(k, broken=True)]
        if broken:
            advice = f"Not finite: {named(broken)}"
        else:
            seen = named([name for k in numbers for name in self.dataset.names(k)])
            advice = f"It saw the pairs {seen}; look at them, or use a smaller --learning-rate, or --mixed-precision no"
        raise TrainingDiverged(f"{what} at step {self.step}; {last}. {advice}")

    def _optimise(self, batches: Any) -> tuple[Tensor, Tensor]:
        """One optimizer step over `gradient_accumulation` batches: mean loss, gradient norm."""
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate(self.step)
        self.network.train()
        total = torch.zeros((), device=self.accelerator.device)
        norm = torch.zeros(())
        for _ in range(self.config.gradient_accumulation):
            number, hq, lq = next(batches)
            with self.accelerator.accumulate(self.network):
                loss = self._loss(self.network, hq, lq, number)
                self.accelerator.backward(loss)
                if self.accelerator.sync_gradients:
                    limit = self.config.clip_norm or math.inf
                    norm = torch.as_tensor(self.accelerator.clip_grad_norm_(self.raw.parameters(), limit))
                self.optimizer.step()
                self.optimizer.zero_grad()
            total += loss.detach() / self.config.gradient_accumulation
        self.step += 1
        self._update_ema()
        return total, norm

    def _loss(self, network: nn.Module, hq: Tensor, lq: Tensor, number: int) -> Tensor:
        """Loss of one batch; its times and noise are drawn from the run's seed and the batch's number."""
        device = self.accelerator.device
        if hq.shape[1] == 2:  # lessons of the shipped model: the expected image and another draw
            from irsde.shipped.training import lesson_loss

            return lesson_loss(network(lq.to(device)), hq.to(device))
        method = METHODS[self.config.method]
        if method.loss is None:
            return (network(lq.to(device)) - hq.to(device)).abs().mean()
        generator = torch.Generator().manual_seed(
            int(np.random.SeedSequence([self.config.seed, 3, number]).generate_state(1)[0])
        )
        t = torch.randint(1, self.config.n_steps + 1, (len(hq),), generator=generator)
        noise = torch.randn(hq.shape, generator=generator).to(device)
        return method.loss(network, self.sde, self.config.loss, hq.to(device), lq.to(device), t, noise)

    def _batches(self) -> Any:
        """Yield (number, hq, lq) from the current step on; each process of several takes every n-th batch."""
        config, world, rank = self.config, self.accelerator.num_processes, self.accelerator.process_index
        augmentation = Augmentation(config.patch_size, config.flip_lateral, config.flip_axial, config.rotate)
        self.dataset: Any = TrainingBatches(
            self.training, self.normalization, augmentation, config.batch_size, config.seed, config.overlays
        )
        if config.recipe == recipes.SHIPPED:
            from irsde.shipped.training import LessonBatches

            self.dataset = LessonBatches(self.training, config.patch_size, config.batch_size, config.seed)
        start, stop = (n * config.gradient_accumulation for n in (self.step, config.steps))
        numbers = [k * world + rank for k in range(start, stop)]
        workers: dict[str, Any] = {}
        if config.workers:  # spawn: a forked worker may hang in a store its parent has read from
            workers = {"num_workers": config.workers, "multiprocessing_context": "spawn", "prefetch_factor": 4}
        loader = torch.utils.data.DataLoader(self.dataset, batch_size=None, sampler=numbers, **workers)
        return ((number, hq, lq) for number, (hq, lq) in zip(numbers, loader, strict=True))

    def _rate(self, step: int) -> float:
        """Learning rate of a step."""
        config, done = self.config, step / self.config.steps
        rate = config.learning_rate
        if config.schedule == "multistep":  # IR-SDE halves at 200, 400 and 600 of its 700 thousand steps
            rate *= 0.5 ** sum(done >= k / 7 for k in (2, 4, 6))
        elif config.schedule == "cosine":
            rate *= 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done))
        return rate * min(1.0, (step + 1) / (config.warmup + 1))

    @torch.no_grad()
    def _update_ema(self) -> None:
        """Update the moving average of the weights, short at first so that it does not remember the random start."""
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        for name, value in self.raw.state_dict().items():
            if value.is_floating_point():
                self.ema[name].lerp_(value, 1 - decay)
            else:
                self.ema[name].copy_(value)

    # --- what is seen of it ------------------------------------------------------------------------------------------

    def _validate(self) -> dict[str, float]:
        """Held-out loss and PSNR with the averaged weights, and a sample sheet (of training pairs if none are held out)."""
        if not self.main:
            return {}
        network = build_network(self.config, self.sde, self.normalization.difference_rms).to(self.accelerator.device)
        network.load_state_dict(self.ema)
        network.eval().requires_grad_(False)
        subsets = self.held_out or self.training
        size = self.config.patch_size
        batches = TrainingBatches(subsets, self.normalization, Augmentation(size, flip_lateral=False), 4, seed=1)
        with torch.no_grad():
            losses = [float(self._loss(network, *batches[k], number=k)) for k in range(4)]
        model = Model(self.config, network, self.sde, self.normalization)
        from irsde.evaluation.metrics import psnr

        shown = []
        for k in range(PREVIEWS):
            subset = subsets[k % len(subsets)]
            hq, lq = subset[(k * max(1, len(subset) // PREVIEWS)) % len(subset)]
            middle = tuple(slice((n - size) // 2, (n - size) // 2 + size) for n in hq.shape)
            hq, lq = hq[middle], lq[middle]
            steps = min(PREVIEW_STEPS, self.sde.default_steps)
            shown.append((lq, restore(model, lq, steps, self.sde.preview_sampler, mask=None), hq))
        run_folder.write_sheet(shown, self.out / "samples" / f"{self.step:06d}.png")
        if not self.held_out:
            return {}
        return {
            "held_out_loss": float(np.mean(losses)),
            "held_out_psnr": float(np.mean([psnr(r, hq) for _, r, hq in shown])),
        }

    def _headline(self) -> str:
        subjects = len({s for subset in self.training for s in subset.subjects})
        probes = ", ".join(dict.fromkeys(subset.probe or "?" for subset in self.training))
        n = sum(map(len, self.training))
        processes = f"{self.accelerator.num_processes} process{'es' if self.accelerator.num_processes > 1 else ''}"
        if self.accelerator.num_processes == 1 and os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("true", "1"):
            # Its launcher takes --num_processes and starts one.
            processes = "1 process (`accelerate launch --cpu` starts no more; torchrun --nproc_per_node N does)"
        if self.n_processes_before not in (None, self.accelerator.num_processes):
            processes += f" ({self.n_processes_before} when it began: other batches from here on)"
        return (
            f"{self.config.method} ({self.config.preset}, {self.n_parameters:,} parameters) on {n} pairs of {subjects} "
            f"subjects ({probes}), {processes} on {self.accelerator.device}; steps {self.step} to {self.config.steps}"
        )

    def _log(self, row: dict[str, float], writer: Any) -> None:
        if not self.main:
            return
        run_folder.append_row(self.out, row)
        if writer:
            with run_folder.naming(self.out / "tensorboard"):
                for name, value in row.items():
                    if name != "step":
                        writer.add_scalar(name, value, int(row["step"]))
        if "held_out_psnr" in row:
            self.report(
                f"step {row['step']}: loss {row['loss']:.4f}, held out {row['held_out_loss']:.4f} and "
                f"{row['held_out_psnr']:.2f} dB"
            )

    def _tensorboard(self) -> Any:
        if not self.accelerator.is_main_process:
            return None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self.report("no tensorboard here: metrics.csv only")
            return None
        return SummaryWriter(str(self.out / "tensorboard"), purge_step=self.step + 1)

    # --- the run folder ----------------------------------------------------------------------------------------------

    def _start_folder(self) -> None:
        run_folder.start(
            self.out, self.config, self.lessons, self.origins, self.n_parameters, self.accelerator.num_processes
        )

    def _save(self) -> None:
        """Write a checkpoint of this step, then remove all but the newest ones."""
        self.accelerator.wait_for_everyone()
        if not self.main:
            return
        state = {"step": self.step, "optimizer": self.optimizer.state_dict(), "random": torch.get_rng_state()}
        if self.losses:
            state["losses"] = torch.stack(self.losses)
        if self.accelerator.scaler is not None:
            state["scaler"] = self.accelerator.scaler.state_dict()
        write_checkpoint(self.out, self.step, self.raw.state_dict(), self.ema, state)

    def _restore_checkpoint(self) -> None:
        """Go on from the newest whole checkpoint; begin again where there is none yet."""
        checkpoint, read = read_checkpoint(self.out, _read_state, self.report)
        if checkpoint is None or read is None:  # interrupted before its first checkpoint
            self._start_folder()
            return
        weights, ema, state = read
        self.raw.load_state_dict(weights)
        for name, value in ema.items():
            self.ema[name].copy_(value)
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
        if self.accelerator.scaler is not None and "scaler" in state:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.step, self.losses = int(state["step"]), list(state.get("losses", ()))
        if self.step > self.config.steps:
            raise ResumeError(f"{self.out}: is at step {self.step} already, --steps asks for {self.config.steps}")
        if self.accelerator.is_main_process:
            set_aside_after(self.out, self.step)
            run_folder.drop_rows_after(self.out, self.step)


def _read_state(checkpoint: Path) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Any]]:
    """Weights, averaged weights and the state of the optimizer."""
    weights, ema = (read_tensors(checkpoint / f"{name}.safetensors") for name in ("weights", "ema"))
    return weights, ema, read_state(checkpoint / "state.pt")


@contextmanager
def _finish_step_on_interrupt() -> Iterator[list[int]]:
    """Fill the list on ctrl-C and on what ends a job or a terminal, in place of stopping in the middle of a step."""
    interrupted: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield interrupted
        return
    before = {number: signal.signal(number, lambda number, frame: interrupted.append(number)) for number in STOPS}
    try:
        yield interrupted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _record_to_continue(config: TrainConfig, out: Path, resume: bool) -> dict[str, Any] | None:
    """Return the record of the run in `out` if there is one to go on with."""
    if not (out / "config.json").exists():
        if newest_checkpoint(out) is not None:
            raise ExistsError(
                f"{out}: holds checkpoints of a run whose config.json is lost; put it back, or choose another --out"
            )
        if out.exists() and (not out.is_dir() or any(out.iterdir())) and not (out / "metrics.csv").exists():
            raise ExistsError(f"{out}: expected a run folder, an empty folder or none, found something else")
        return None
    if not resume:
        raise ExistsError(f"{out}: holds a run already; go on with --resume, or choose another --out")
    record = read_record(out)
    different = TrainConfig.from_record(record).differences(config)
    if different:
        raise ResumeError(f"{out}: was started with other settings ({'; '.join(different)}); choose another --out")
    return record
