"""The processes that train one network together, as ``torchrun`` starts them, and what they agree on."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed, nn

from ..errors import ConfigError

LONGEST_WAIT = timedelta(days=1)  # while the first writes, judges the weights, or makes images of k-space


@dataclass(frozen=True)
class Team:
    """Process ``rank`` of ``count``, and its device. A training without torchrun is a team of one.

    Each process computes the gradient of its own part of every batch (`share`); the gradients are averaged over all
    (`average`), so that the networks stay alike and are that of one process with the whole batch.
    """

    device: torch.device
    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes and speaks for all."""
        return self.rank == 0

    def share(self, batch: int) -> range:
        """The rows of a batch that are this process's; raises `ConfigError` where they cannot be dealt evenly."""
        if batch % self.count:
            raise ConfigError(
                f"A batch of {batch} cannot be shared by {self.count} processes.",
                "Each computes as many crops as the others.",
                f"Set batch to a multiple of {self.count}.",
            )
        return range(self.rank, batch, self.count)

    def alike(self, network: nn.Module) -> None:
        """Give every process the first one's parameters."""
        if self.count > 1:
            for parameter in network.parameters():
                distributed.broadcast(parameter.detach(), 0)

    def average(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by its mean over the processes."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        if self.count == 1 or not gradients:
            return
        together = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(together)
        together /= self.count
        for gradient, mean in zip(gradients, together.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))

    def agreed(self, value: float) -> float:
        """The first process's ``value``."""
        if self.count == 1:
            return value
        said = torch.tensor(value, dtype=torch.float64, device=self.device)
        distributed.broadcast(said, 0)
        return said.item()

    def wait(self) -> None:
        """Until all are here."""
        self.agreed(0.0)


def speaks_for_all() -> bool:
    """Whether this process is the first of its team, or one by itself; known without joining the others."""
    return os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK", "0") == "0"


@contextmanager
def joined() -> Iterator[Team]:
    """The team of this process: the one that torchrun's environment names, else a team of one, on a GPU if there is one.

    Raises `ConfigError` where there are fewer GPUs than processes.
    """
    cuda, count = torch.cuda.is_available(), int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Team(torch.device("cuda" if cuda else "cpu"))
        return
    rank, local = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    if cuda and local >= torch.cuda.device_count():
        raise ConfigError(
            f"Process {local} of this machine has no GPU of its own.",
            f"There are {torch.cuda.device_count()}.",
            f"Use torchrun --nproc-per-node {torch.cuda.device_count()}.",
        )
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if cuda else "gloo", timeout=LONGEST_WAIT)
    try:
        yield Team(device, rank, count)
    finally:
        distributed.destroy_process_group()
