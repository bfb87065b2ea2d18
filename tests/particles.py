"""Thousands of particles at once, and what their weighted cloud says of a posterior."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from worlds import last

from recon import Problem


class Bulk:
    """Noise from one generator, for thousands of particles: `Noise` seeds every row by itself."""

    def __init__(self, seed: int, samples: int):
        self.generator, self.samples = torch.Generator().manual_seed(seed), samples

    def at(self, step: int):
        def draw(like: Tensor, stream: str = "step") -> Tensor:
            return torch.randn(like.shape, dtype=torch.float64, generator=self.generator)

        return draw


class Cloud(NamedTuple):
    x: Tensor  # (B, S, n)
    w: Tensor  # (B, S)
    log_z: Tensor  # (B,)

    @property
    def mean(self) -> Tensor:
        """Averaged over the images, which are repetitions."""
        return torch.einsum("bs,bsn->n", self.w, self.x) / len(self.x)

    @property
    def covariance(self) -> Tensor:
        d = self.x - torch.einsum("bs,bsn->bn", self.w, self.x)[:, None]
        return torch.einsum("bs,bsi,bsj->ij", self.w, d, d) / len(self.x)


def particles(posterior, solver, levels, samples: int, images: int = 1, seed: int = 0) -> Cloud:
    """Walk ``samples`` particles for each of ``images`` repetitions of the posterior's problem."""
    problem = posterior.problem
    A, y = problem.A, problem.y.repeat(images, *[1] * (problem.y.ndim - 1))
    sampler = posterior.given(Problem(A, y, problem.sigma).repeated(samples))
    noise = Bulk(seed, samples)
    x = levels[0] * noise.at(-1)(torch.empty(images * samples, *A.domain))
    with torch.no_grad():
        state = last(sampler.run(solver, levels, x, noise))
    log_w = state.log_w.view(images, samples)
    log_z = state.memo.log_z.view(images, samples)[:, 0] + log_w.logsumexp(1) - math.log(samples)
    return Cloud(state.x.reshape(images, samples, -1), log_w.softmax(1), log_z)
