"""The posterior of a random walk through any linear operator, by Gibbs sampling of the scales of its increments.

``x = L u`` (sums), ``y = A x + n``. Given the scales w of its increments, u is Gaussian: mean, covariance and draws are
exact, and what is averaged over the chain are those means and covariances (Rao and Blackwell).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .chains import LENGTH, RandomWalk, seeded

JUMP_MOVES = 16  # a sweep: jumps that try another place nearby
CDF_LEVELS = torch.tensor([0.005, *(0.025 * k for k in range(1, 40)), 0.995], dtype=torch.float64)


class ExactPosterior(NamedTuple):
    """What is known of p(x | y) for measurements y (P, m)."""

    mean: Tensor  # (P, n)
    error: Tensor  # (P, n): standard error of the mean, from the independent chains
    variance: Tensor  # (P, n)
    quantiles: Tensor  # (levels, P, n), at `CDF_LEVELS`


class Conditional(NamedTuple):
    """p(u | w, y) of a batch: ``gain = W H^T S^-1``, ``S = H W H^T + sigma^2``, ``H = A L``; and ``ln N(y; 0, S)``."""

    gain: Tensor  # (B, n, m)
    log_evidence: Tensor  # (B,), up to a constant


def conditional(H: Tensor, w: Tensor, y: Tensor, sigma: float) -> Conditional:
    """For scales w (B, n), zeros included, and y (B, m)."""
    seen = H * w[:, None]
    S = seen @ H.T + sigma**2 * torch.eye(len(H), dtype=w.dtype)
    factor = torch.linalg.cholesky(S)
    gain = torch.cholesky_solve(seen, factor).mT
    misfit = torch.linalg.solve_triangular(factor, y[..., None], upper=False)[..., 0]
    volume = factor.diagonal(dim1=1, dim2=2).log().sum(1)
    return Conditional(gain, -misfit.square().sum(1) / 2 - volume)


def gibbs(
    chain: RandomWalk, A: Tensor, y: Tensor, sigma: float, sweeps: int, chains: int, seed: int = 0
) -> ExactPosterior:
    """The posterior for each of y (P, m) by ``chains`` chains of ``sweeps``, the first fifth of which is left out.

    ``A`` (m, n), float64. Increments that may be 0 are found by Metropolis steps on the evidence
    ``N(y; 0, H W H^T + sigma^2)`` with u integrated out: an increment switched on or off at every place, and jumps moved.
    """
    problems, sums = len(y), torch.tril(torch.ones(LENGTH, LENGTH, dtype=torch.float64))
    H, rows = A @ sums, y.repeat_interleave(chains, 0)
    like = torch.empty(len(rows), LENGTH, dtype=torch.float64)
    means, squares, drawn = torch.zeros_like(like), torch.zeros_like(like), []
    with seeded(seed):
        w, kept = chain.scales(like), 0
        jumped = torch.rand_like(like) < chain.jumps
        jumped[:, 0] = True
        for sweep in range(sweeps):
            if chain.jumps < 1:
                jumped = Jumps(chain, H, rows, sigma, w).swept(jumped)
            scales = w * jumped
            gain = conditional(H, scales, rows, sigma).gain
            u = scales.sqrt() * torch.randn_like(like)
            misfit = rows - u @ H.T - sigma * torch.randn_like(rows)
            u = u + (gain @ misfit[..., None])[..., 0]
            if sweep >= sweeps // 5:
                mean = (gain @ rows[..., None])[..., 0].cumsum(1)
                rest = torch.diag_embed(scales) - gain @ (H * scales[:, None])
                variance = (sums @ rest @ sums.T).diagonal(dim1=1, dim2=2)
                means, squares, kept = means + mean, squares + variance + mean.square(), kept + 1
                drawn.append(u.cumsum(1).view(problems, chains, LENGTH))
            w = chain.scales_given(u)
    each = (means / kept).view(problems, chains, LENGTH)
    mean = each.mean(1)
    variance = (squares / kept).view(problems, chains, LENGTH).mean(1) - mean.square()
    quantiles = torch.quantile(torch.cat(drawn, 1), CDF_LEVELS, dim=1)
    return ExactPosterior(mean, each.std(1) / chains**0.5, variance, quantiles)


class Jumps(NamedTuple):
    """Metropolis steps on which increments are not 0."""

    chain: RandomWalk
    H: Tensor
    y: Tensor
    sigma: float
    w: Tensor

    def log_density(self, jumped: Tensor) -> Tensor:
        """``ln p(jumped | y)`` (B,), up to a constant."""
        odds = torch.tensor(self.chain.jumps / (1 - self.chain.jumps)).log()
        evidence = conditional(self.H, self.w * jumped, self.y, self.sigma).log_evidence
        return evidence + odds * jumped.sum(1)

    def swept(self, jumped: Tensor) -> Tensor:
        """Every place but the first switched once, then `JUMP_MOVES` moves."""
        row, density = torch.arange(len(jumped)), self.log_density(jumped)
        for step in range(LENGTH - 1 + JUMP_MOVES):
            proposed = jumped.clone()
            if step < LENGTH - 1:
                proposed[:, step + 1] = ~jumped[:, step + 1]
            else:  # the contents of two places nearby are exchanged
                place = torch.randint(1, LENGTH, row.shape)
                other = place + torch.randint(1, 4, row.shape)
                other = torch.where(other < LENGTH, other, place)
                proposed[row, place], proposed[row, other] = jumped[row, other], jumped[row, place]
            new = self.log_density(proposed)
            accepted = torch.rand_like(new).log() < new - density
            density = torch.where(accepted, new, density)
            jumped = torch.where(accepted[:, None], proposed, jumped)
        return jumped
