"""The loop that every training runs: crops, loss, optimiser, moving average, checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ..io import refuse_overwriting
from ..io.lock import WriteLock
from ..io.whole import writing
from .checkpoint import load_checkpoint, save_checkpoint
from .muon import Muon
from .settings import MATRIX_PRECISIONS, Training
from .sets import load_sets
from .views import augmented_views

Loss = Callable[[Tensor, Tensor, torch.Generator], Tensor]
"""Of crops (B, C, crop, crop) and the generator of this step's draws: (B,)."""
Publish = Callable[[Mapping[str, Tensor], int, float], None]
"""Given the averaged weights, the steps, and the seconds so far: write weights and card."""


def train_network(
    config: Training,
    network: nn.Module,
    loss: Loss,
    publish: Publish,
    *,
    reads: Sequence[str | Path] = (),
    log: Callable[[object], object] = print,
) -> Path:
    """Run a training, or go on with one that was interrupted; returns its folder.

    Everything is kept in ``out/checkpoint.safetensors``, written whole every few minutes; starting
    again goes on from it, with the same draws a run without a break would have made. ``reads`` are files
    that the training reads besides its data. Raises `OutputError` where another run trains into this
    folder, or weights would be written over what is read.
    """
    out, checkpoint = Path(config.out), config.checkpoint
    written = [checkpoint, config.weights, config.weights.with_suffix(".json")]
    refuse_overwriting(written, [*config.files, *reads])
    with writing(checkpoint, (OSError,)):
        out.mkdir(parents=True, exist_ok=True)
        lock = WriteLock(checkpoint)
    try:
        take_steps(config, network, loss, publish, log)
    except KeyboardInterrupt:
        kept = (
            f"goes on from {checkpoint}" if checkpoint.is_file() else "starts again: nothing was written yet"
        )
        log(f"Interrupted. The same command {kept}.")
        raise
    finally:
        lock.release()
    return out


def take_steps(
    config: Training,
    network: nn.Module,
    loss: Loss,
    publish: Publish,
    log: Callable[[object], object],
) -> None:
    """Train until the training has its length, saving and publishing as it goes."""
    device, checkpoint = next(network.parameters()).device, config.checkpoint
    slices = load_sets(config.root, config.sets, config.percentile)
    average = {name: p.detach().clone() for name, p in network.named_parameters()}
    optimizer = Muon(network.parameters(), lr=config.lr, lr_vectors=config.lr_vectors)
    step, elapsed = 0, 0.0
    if config.init is not None and not checkpoint.is_file():
        tensors = load_file(config.init)
        with torch.no_grad():
            for name, p in network.named_parameters():
                p.copy_(tensors[name])
                average[name].copy_(p)
    if checkpoint.is_file():
        step, elapsed = load_checkpoint(checkpoint, network, average, optimizer)
        log(f"going on from step {step} ({elapsed / 60:.1f} minutes) of {checkpoint}")
    network.train()
    saved = started = time.monotonic()
    before, recent = elapsed, []

    def progress() -> float:
        if "steps" in config.length:
            return step / config.length["steps"]
        return elapsed / (60 * config.length["minutes"])

    while progress() < 1:
        fall = min(1.0, (1 - progress()) / (1 - config.decay_from))
        rate = min(1.0, (step + 1) / config.warmup_steps) * fall
        for group in optimizer.param_groups:
            group["lr"], group["lr_vectors"] = config.lr * rate, config.lr_vectors * rate
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        index = slices.draw(config.batch, generator)
        clean = augmented_views([slices.images[i] for i in index], config, generator).to(device)
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, MATRIX_PRECISIONS[config.precision], config.precision != "float32"):
            value = loss(clean, slices.sigma_from[index], generator).mean()
        value.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), config.clip)
        optimizer.step()
        decay = min(config.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            for name, p in network.named_parameters():
                average[name].lerp_(p, 1 - decay)
        step += 1
        elapsed = before + time.monotonic() - started
        recent.append(value.item())
        if time.monotonic() - saved > 60 * config.checkpoint_minutes or progress() >= 1:
            saved = time.monotonic()
            save_checkpoint(checkpoint, network, average, optimizer, step, elapsed)
            publish(average, step, elapsed)
            log(f"step {step}  {elapsed / 60:.1f} min  loss {sum(recent) / len(recent):.4g}  lr x{rate:.2f}")
            recent.clear()
