"""Muon: momentum with orthogonalised updates for convolution kernels, Adam for everything else."""

from __future__ import annotations

import torch
from torch import Tensor


class Muon(torch.optim.Optimizer):
    """``W <- W - lr sqrt(max(1, rows/cols)) orth(momentum)`` for convolution kernels.

    Kernels are seen as (out, in * height * width); ``orth`` is five Newton-Schulz steps. All other
    parameters (biases, the conditioning on the noise level) take Adam steps of ``lr_vectors``.
    ``torch.optim.Muon`` takes no convolution kernels, hence this one. Source: Jordan et al. (2024).
    """

    def __init__(self, parameters, lr: float = 0.02, lr_vectors: float = 1e-3, momentum: float = 0.95):
        super().__init__(parameters, dict(lr=lr, lr_vectors=lr_vectors, momentum=momentum))

    @torch.no_grad()
    def step(self, closure=None):
        """Update every parameter that has a gradient; ``closure`` is not used."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["step"] = torch.zeros(())
                    state["first"] = torch.zeros_like(p)
                    if p.ndim < 4:
                        state["second"] = torch.zeros_like(p)
                state["step"] += 1
                first = state["first"]
                if p.ndim == 4:
                    first.lerp_(p.grad, 1 - group["momentum"])
                    look_ahead = p.grad.lerp(first, group["momentum"]).flatten(1)
                    rows, columns = look_ahead.shape
                    rate = group["lr"] * max(1.0, rows / columns) ** 0.5
                    p.sub_(rate * orthogonalised(look_ahead).view_as(p))
                else:
                    n = state["step"].item()
                    first.lerp_(p.grad, 0.1)
                    state["second"].lerp_(p.grad.square(), 0.01)
                    denominator = (state["second"] / (1 - 0.99**n)).sqrt() + 1e-8
                    p.sub_(group["lr_vectors"] * first / (1 - 0.9**n) / denominator)


def orthogonalised(matrix: Tensor) -> Tensor:
    """Nearest matrix with singular values near 1, by the quintic Newton-Schulz iteration."""
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = wide / (wide.norm() + 1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x
