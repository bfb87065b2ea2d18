"""The loop that every training runs: crops, loss, optimiser, moving average, checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from hashlib import blake2b
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import ConfigError, SamplingError
from ..io import refuse_overwriting
from ..io.lock import WriteLock
from ..io.whole import writing
from .checkpoint import Progress, load_checkpoint, save_checkpoint
from .settings import MATRIX_PRECISIONS, Training
from .slices import Slices, slices_of
from .team import Team
from .views import augmented_view

Loss = Callable[[Tensor, Tensor, Sequence[torch.Generator]], Tensor]
"""Of crops (B, C, crop, crop), the least noise level (B,) and the generator of each: (B,)."""
Publish = Callable[[Mapping[str, Tensor], int, float], None]
"""Given the averaged weights, the steps, and the seconds so far: write weights and card."""
Log = Callable[[object], object]


def silent(line: object) -> None:
    """What a process says that is not the first of its team."""


def train_network(
    config: Training,
    network: nn.Module,
    loss: Loss,
    publish: Publish,
    team: Team,
    *,
    reads: Sequence[str | Path] = (),
    log: Log = print,
) -> Path:
    """Run a training, or go on with one that was interrupted; returns its folder.

    Everything is kept in ``out/checkpoint.safetensors``, written whole every few minutes; starting
    again goes on from it, with the same draws a run without a break would have made. ``reads`` are files
    that the training reads besides its data. Of a ``team`` the first process writes. Raises `OutputError` where
    another run trains into this folder, or weights would be written over what is read, `SamplingError`
    where the loss is no longer finite.
    """
    out, checkpoint = Path(config.out), config.checkpoint
    written = [checkpoint, config.weights, config.weights.with_suffix(".json")]
    refuse_overwriting(written, [*config.files, *reads])
    team.share(config.batch)
    with ExitStack() as held:
        if team.first:
            with writing(checkpoint, (OSError,)):
                out.mkdir(parents=True, exist_ok=True)
                held.callback(WriteLock(checkpoint).release)
        try:
            take_steps(config, network, loss, publish, team, log)
        except KeyboardInterrupt:
            kept = (
                f"goes on from {checkpoint}"
                if checkpoint.is_file()
                else "starts again: nothing was written yet"
            )
            log(f"Interrupted. The same command {kept}.")
            raise
    return out


def take_steps(
    config: Training, network: nn.Module, loss: Loss, publish: Publish, team: Team, log: Log
) -> None:
    """Train until the training has its length, saving and publishing as it goes."""
    slices = slices_of(config, config.sets)
    run = Progress.of(network, config)
    if config.checkpoint.is_file():
        load_checkpoint(config.checkpoint, run)
        log(f"going on from step {run.step} ({run.elapsed / 60:.1f} minutes) of {config.checkpoint}")
    team.alike(network)
    network.train()
    saved = started = time.monotonic()
    before, recent = run.elapsed, []

    while (done := progress(config, run)) < 1:
        rate = learning_rate(config, run, done)
        recent.append(take_step(config, run, loss, slices, rate, team))
        run.elapsed = team.agreed(before + time.monotonic() - started)
        if time.monotonic() - saved > 60 * config.checkpoint_minutes or progress(config, run) >= 1:
            saved, mean = time.monotonic(), sum(recent) / len(recent)
            refuse_divergence(config, run.step, mean)
            if team.first:
                save_checkpoint(config.checkpoint, run)
                publish(run.average, run.step, run.elapsed)
            log(f"step {run.step}  {run.elapsed / 60:.1f} min  loss {mean:.4g}  lr x{rate:.2f}")
            recent.clear()


def progress(config: Training, run: Progress) -> float:
    """How much of its length a training has, from 0 to 1."""
    if "steps" in config.length:
        return run.step / config.length["steps"]
    return run.elapsed / (60 * config.length["minutes"])


def learning_rate(config: Training, run: Progress, done: float) -> float:
    """Set the learning rates of a step, and return by what they are multiplied: up at first, down to 0 at the end."""
    fall = min(1.0, (1 - done) / (1 - config.decay_from))
    rate = min(1.0, (run.step + 1) / config.warmup_steps) * fall
    for group in run.optimizer.param_groups:
        group["lr"], group["lr_vectors"] = config.lr * rate, config.lr_vectors * rate
    return rate


def take_step(config: Training, run: Progress, loss: Loss, slices: Slices, rate: float, team: Team) -> float:
    """One step of the optimiser and of the moving average; returns the loss."""
    network, device = run.network, team.device
    index = slices.draw(config.batch, generator_of(config.seed, run.step))
    rows = team.share(config.batch)
    draws = [generator_of(config.seed, run.step, row) for row in rows]
    views = [
        augmented_view(slices.images[index[row]], config, draw) for row, draw in zip(rows, draws, strict=True)
    ]
    lowest = slices.sigma_from[[index[row] for row in rows]]
    run.optimizer.zero_grad(set_to_none=True)
    with compiling(config.compile):
        with torch.autocast(device.type, MATRIX_PRECISIONS[config.precision], config.precision != "float32"):
            value = loss(torch.stack(views).to(device), lowest, draws).mean()
        run.scaler.scale(value).backward()
    team.average(network.parameters())
    run.scaler.unscale_(run.optimizer)
    nn.utils.clip_grad_norm_(network.parameters(), config.clip)
    run.scaler.step(run.optimizer)
    run.scaler.update()
    decay = min(config.ema, (1 + run.step) / (10 + run.step))
    with torch.no_grad():
        for name, p in network.named_parameters():
            run.average[name].lerp_(p, 1 - decay)
    run.step += 1
    return value.item()


def generator_of(*key: int) -> torch.Generator:
    """The random numbers of a step (seed, step), or of one row of its batch (seed, step, row), whoever computes it."""
    digest = blake2b(repr(key).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


@contextmanager
def compiling(asked: bool) -> Iterator[None]:
    """Turns what `torch.compile` raises where the machine cannot compile into a `ConfigError`."""
    if not asked:
        yield
        return
    from torch._dynamo.exc import TorchDynamoException

    try:
        yield
    except TorchDynamoException as error:
        reason = str(error).strip().splitlines()
        raise ConfigError(
            "torch.compile cannot compile the network on this machine.",
            f"{type(error).__name__}: {reason[0] if reason else 'no reason was given'}",
            "Install a C++ compiler (g++; for a GPU also triton), or set compile: false.",
        ) from error


def refuse_divergence(config: Training, step: int, loss: float) -> None:
    """Raises `SamplingError` for a loss that is not finite; what was written before stays."""
    if not math.isfinite(loss):
        raise SamplingError(
            f"The training diverged before step {step}: its loss is {loss}.",
            "The learning rate is too large for this network or its start.",
            f"Lower lr, now {config.lr:g}; the same command goes on from the last checkpoint, another --out starts again.",
        )
