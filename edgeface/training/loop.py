"""The training loop: one process on a CPU or GPU, or several under ``torchrun``."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import cv2
import torch
from torch import distributed, nn
from torch.utils.data import DataLoader, Sampler

from edgeface.errors import TrainingError
from edgeface.nets import DetectorNet
from edgeface.training.checkpoint import (
    LAST,
    AveragedWeights,
    load_checkpoint,
    load_initial_weights,
    save_checkpoint,
    transfer_weights,
)
from edgeface.training.dataset import Batch, FaceDataset, Root, collate
from edgeface.training.device import has_bf16, join_processes
from edgeface.training.guards import check_finite, check_run
from edgeface.training.log import LogRow, TrainingLog
from edgeface.training.objectives import BatchTargets, Losses, TrainingStep, build_objective
from edgeface.training.optimizers import build_optimizers
from edgeface.training.recipe import Phase, Recipe


@dataclass(frozen=True)
class Settings:
    """How a run is executed; what it learns is the recipe's.

    Attributes:
        output: folder of the checkpoint, weights, recipe, log and plot.
        resume: go on from the folder's checkpoint.
        weights: initial weights of the net or of its backbone, in safetensors form.
        transfer: instead, weights of another net; those whose name and shape fit are taken.
        teacher: a trained net whose answers are learnt too.
        device: "cpu", "cuda" or "cuda:N".
        workers: processes that make samples; 0 makes them in the training process.
        compiled: run the net through ``torch.compile``.
        save_minutes: time between checkpoints.
        log_steps: steps between rows of the log.
    """

    output: Path
    resume: bool = False
    weights: Path | None = None
    transfer: Path | None = None
    teacher: DetectorNet | None = None
    device: str = "cpu"
    workers: int = 1
    compiled: bool = False
    save_minutes: float = 5.0
    log_steps: int = 20


class _Numbers(Sampler[list[int]]):
    """Batches of consecutive sample numbers, this process's share of each step."""

    def __init__(self, first_sample: int, first_step: int, phase: Phase, world: int, rank: int):
        self._steps = range(first_step, phase.steps)
        self._first_sample, self._batch = first_sample, phase.batch
        self._rank, self._share = rank, phase.batch // world

    def __iter__(self) -> Iterator[list[int]]:
        for step in self._steps:
            start = self._first_sample + step * self._batch + self._rank * self._share
            yield list(range(start, start + self._share))

    def __len__(self) -> int:
        return len(self._steps)


def train(
    net: DetectorNet,
    roots: Sequence[Root],
    recipe: Recipe,
    settings: Settings,
    on_checkpoint: Callable[[DetectorNet, int], dict[str, float]] | None = None,
    progress: Callable[[int, str], None] = lambda _done, _text: None,
) -> DetectorNet:
    """Train a net and return it with its averaged weights.

    Args:
        net: the preset to train; changed in place.
        roots: pictures and their weights in the mix.
        recipe: what to do.
        settings: where and how to do it.
        on_checkpoint: called with the averaged net and the step at every checkpoint; the figures
            it returns go to the log.
        progress: called after each logged step with the steps done and a line of text.

    Raises:
        CheckpointError: the initial weights do not fit.
        TrainingError: bad recipe or checkpoint, anchors that no face can match, or a loss or
            gradient that is not finite; the message names the pictures of that batch, and the
            last checkpoint stays.
    """
    check_run(net, roots, recipe)
    objective = build_objective(net, recipe, settings.teacher)
    world, rank = join_processes(settings.device)
    for phase in recipe.phases:
        if phase.batch % world:
            raise TrainingError(
                f"expected batches that {world} processes can share, got {phase.batch}"
            )
    device = torch.device(settings.device)
    if not settings.resume:
        if settings.weights is not None:
            load_initial_weights(settings.weights, net)
        elif settings.transfer is not None:
            transfer_weights(settings.transfer, net)
        elif recipe.fixed_layers:
            raise TrainingError(
                "expected initial weights for a recipe that fixes the backbone's first layers, got "
                "none; name a checkpoint of the net or its backbone (--weights), or set the "
                "recipe's fixed_layers to false"
            )
    step_module = TrainingStep(net, objective)
    step_module.to(device).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizers = build_optimizers(step_module, recipe)
    average = AveragedWeights(net, recipe.average)
    start = 0
    if settings.resume:
        start = load_checkpoint(settings.output, step_module, average, optimizers)
    elif (settings.output / LAST).exists():
        raise TrainingError(
            f"expected a folder without a run in it, but {settings.output / LAST} exists; "
            "resume that run or choose another folder"
        )
    settings.output.mkdir(parents=True, exist_ok=True)
    recipe.save(settings.output / "recipe.json")
    log = TrainingLog(settings.output, keep_until=start)

    model: nn.Module = step_module
    if settings.compiled:
        for part in (net.backbone, net.neck, net.context, net.head):
            part.compile()
    if world > 1:
        model = nn.parallel.DistributedDataParallel(step_module)

    def save(step: int) -> None:
        save_checkpoint(settings.output, step_module, average, optimizers, step)
        figures: dict[str, float] = {}
        if on_checkpoint is not None:
            averaged = _averaged_copy(net, average)
            figures = on_checkpoint(averaged, step)
        log.checkpoint(step, figures)

    saved = started = time.monotonic()
    samples_done = 0
    for step, phase, batch in _batches(net, roots, recipe, settings, start, world, rank):
        learning_rate = recipe.learning_rate_at(step)
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
        losses = _losses(model, batch, device)
        check_finite("loss", losses.total, step, batch)
        losses.total.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(step_module.parameters(), recipe.clip)
        check_finite("gradient", norm, step, batch)
        for optimizer in optimizers:
            optimizer.step()
        average.update(net)
        samples_done += phase.batch
        done = step + 1
        if rank == 0 and (done % settings.log_steps == 0 or done == recipe.steps):
            speed = samples_done / (time.monotonic() - started)
            row = LogRow(
                step=done,
                size=phase.size,
                learning_rate=learning_rate,
                loss=losses.total.item(),
                terms={name: value.item() for name, value in losses.terms.items()},
                gradient_norm=norm.item(),
                samples_per_second=speed,
            )
            log.step(row)
            progress(done, f"loss {row.loss:.3f}, {speed:.0f} samples/s")
        if rank == 0 and (
            done == recipe.steps or time.monotonic() - saved > settings.save_minutes * 60
        ):
            save(done)
            saved = time.monotonic()
    if world > 1:
        distributed.destroy_process_group()
    net.load_state_dict(average.state)
    return net.eval()


def _averaged_copy(net: DetectorNet, average: AveragedWeights) -> DetectorNet:
    averaged = copy.deepcopy(net)
    averaged.load_state_dict(average.state)
    return averaged.eval()


def _batches(
    net: DetectorNet,
    roots: Sequence[Root],
    recipe: Recipe,
    settings: Settings,
    start: int,
    world: int,
    rank: int,
) -> Iterator[tuple[int, Phase, Batch]]:
    """Yield (step, phase, batch) from the step ``start`` on."""
    first_step = first_sample = 0
    for phase in recipe.phases:
        skipped = min(max(start - first_step, 0), phase.steps)
        if skipped < phase.steps:
            loader = DataLoader(
                FaceDataset(roots, net.anchors, recipe, phase),
                batch_sampler=_Numbers(first_sample, skipped, phase, world, rank),
                num_workers=settings.workers,
                collate_fn=collate,
                worker_init_fn=_start_worker,
                pin_memory=settings.device.startswith("cuda"),
                prefetch_factor=4 if settings.workers else None,
            )
            for offset, batch in enumerate(loader):
                yield first_step + skipped + offset, phase, batch
        first_step += phase.steps
        first_sample += phase.steps * phase.batch


def _start_worker(_number: int) -> None:
    """Keep OpenCV from starting a thread per core in each worker."""
    cv2.setNumThreads(0)


def _losses(model: nn.Module, batch: Batch, device: torch.device) -> Losses:
    images = batch.images.to(device, non_blocking=True).permute(0, 3, 1, 2)
    targets = BatchTargets(*(tensor.to(device, non_blocking=True) for tensor in batch.targets))
    with torch.autocast(device.type, torch.bfloat16) if has_bf16(device) else nullcontext():
        losses: Losses = model(images.float(), targets)
    return losses
