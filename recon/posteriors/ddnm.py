"""DDNM: what the measurements say about the range of A^H, what the prior says about its null space."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError
from ..problem import Problem
from ..state import Estimate
from .base import Posterior
from .shared.norms import row_norms
from .shared.proximal import Proximal, refuse_no_steps
from .usual import Usual


class DDNM(Posterior):
    """``x0 = D + L A^+ (y - A D)``: the range of A^H from the measurements, its null space from the prior.

    ``plus=False``: ``L = 1``, for noiseless measurements; exact then for the prior N(m, v I). ``plus``
    (default where sigma_y > 0): ``L = min(1, s s_i / sigma_y)`` in singular coordinates, s_i the singular
    value: a measurement counts in full while the state is noisier than it, and less and less below. That
    is a denoiser, which any solver may walk, and which has a limit of small steps; sigma_y = 0 makes it ``L = 1``.
    ``keep``: "state" recomputes the noise from x0, "noise" keeps the network's, as the released code
    does: its DDNM step is ``plus=False, keep="noise"`` under ``renoise(.85)``; with ``renoise(1)`` both
    are the same.

    ``A^+`` by singular values where A has them (`operators.spectral`; below ``cutoff`` of the largest
    they count as null space), else, or with ``svd=False``, by ``steps`` CG steps on ``A^H A``, few
    of which regularise where A is ill conditioned and many fit its noise; there the s_i of L is ``||A||``
    for all, which trusts what A hardly measures as much as what it measures best.

    Traps: the released DDNM+ is a kernel, not a denoiser: its L is taken at the level the step goes to, and its
    noise is a measurement's own where there is one. That step is `DDRM`'s with ``eta_b = 1``, from
    ``start="noise"``; in the null space the two are this sampler's too. Its time travel is left out.
    Source: Wang, Yu, Zhang, Zero-Shot Image Restoration Using Denoising Diffusion Null-Space Model,
    ICLR 2023, algorithms 1 and 2, eq. 17 to 19.
    """

    needs_problem = True
    linear_only = True
    usual = Usual({}, "renoise", {"eta": 1.0}, highest=5.0, lowest=0.065)
    knob = "Null more singular values (a larger cutoff), or take fewer CG steps (steps)."

    def __init__(
        self,
        prior=None,
        problem: Problem | None = None,
        *,
        plus: bool | None = None,
        keep: str = "state",
        steps: int = 5,
        tol: float = 1e-6,
        svd: bool = True,
        cutoff: float = 1e-3,
    ):
        if keep not in ("state", "noise"):
            raise ConfigError(f"keep is {keep!r}.", 'It is "state" or "noise" (the released code).')
        refuse_no_steps("DDNM", steps)
        self.plus, self.keep = plus, keep
        self.steps, self.tol, self.svd, self.cutoff = steps, tol, svd, cutoff
        super().__init__(prior, problem)

    def check_problem(self, problem: Problem) -> None:
        """Prepares the projection and the singular values of L."""
        super().check_problem(problem)
        self.fit = Proximal(problem, self.steps, self.tol, self.cutoff, svd=self.svd, dense=True)
        self.noisy = problem.sigma > 0 and self.plus is not False
        if self.noisy:
            self.gain = row_norms(problem) if self.fit.svd is None else self.fit.s

    def denoise(self, x: Tensor, sigma: float, memo: Any = None) -> Estimate:
        """The prior's image with ``L`` of its misfit removed; one network call."""
        prior = self.prior(x, sigma)
        x0 = self.fit(prior, 0.0, self.share(sigma))
        keep = Estimate.keep_state if self.keep == "state" else Estimate.keep_noise
        return keep(x, sigma, x0, prior)

    def share(self, sigma: float) -> Tensor | float:
        """L for each singular coordinate, for each row (rows, 1, ...), or 1."""
        return torch.clamp(sigma / self.problem.sigma * self.gain, max=1) if self.noisy else 1.0
