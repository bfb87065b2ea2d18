"""DDS: conjugate gradients on the denoised image, warm-started from it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from operators.base import Linear
from operators.fourier import gaussian_kernel
from operators.krylov import cg, inner
from operators.pixels import Inpainting

from ..errors import ConfigError
from ..priors import about
from ..problem import Problem
from ..solvers.base import Solver
from ..state import Estimate
from .base import Posterior
from .shared.jacobian import Linearised, per_row, singular_tolerance
from .shared.proximal import Proximal
from .usual import Usual

REACH, NEAREST = 2.5, 0.01  # of the power around a pixel, and of the data's: how far an image may lie from D
AROUND = 2.0  # pixels, the standard deviation of the window that the power is a mean over
STEP_LENGTHS = (1.0, 0.5, 0.25, 0.0625, 0.015625)  # of a Gauss-Newton step


class DDS(Posterior):
    """``x0 = argmin ||A x - y||^2 + lambda(s) ||x - D||^2`` by ``steps`` CG steps from ``D = prior(x, s)``.

    That is ``(A^H A + lambda I) x0 = A^H y + lambda D``, solved in singular coordinates or the operator's closed
    form where it has one. A nonlinear operator is linearised ``newton`` times (Gauss-Newton):
    ``x += t (J^H J + lambda I)^-1 (J^H (y - A(x)) + lambda (D - x))`` from D, J = A'(x) by autograd, by
    ``steps`` CG steps each, and each row with the step length t of 1, 1/2, 1/4, 1/16, 1/64 that lowers the
    loss most, or 0.

    ``weight``: lambda as a function of sigma, or a number; default `matched` to the noise of the
    problem (``lambda = 0``, early-stopped CG, where that is 0). ``keep``: "noise" takes the next step
    with the network's noise (the paper), "state" recomputes it from x0, which for a matched weight is
    the exact posterior denoiser of an isotropic Gaussian prior. ``tol``: relative residual at which CG stops.

    ``variance``: "uniform", the same lambda in every pixel (the paper); "local", for complex images and a linear
    operator, at least what the power of D around a pixel asks for: ``x0 = argmin ||A x - y||^2 + sigma_y^2 sum_i |x_i - D_i|^2 / v_i`` with
    ``v_i = min(sigma_y^2 / lambda, (2.5 P_i)^2 + (d / 100)^2)``, P_i the root mean square of D around pixel i and d the
    standard deviation of the data. What undersampling folds into the dark is then not believed, while nothing that D
    shows is held back.
    Source: Chung, Lee, Ye, Decomposed Diffusion Sampler, ICLR 2024, algorithm 1.
    """

    needs_problem = True
    knob = "Give the prior more weight (weight), or take fewer CG steps (steps)."
    usual = Usual({"steps": 50}, "renoise", {"eta": 1.0}, highest=5.0, lowest=0.065)

    def __init__(
        self,
        prior=None,
        problem: Problem | None = None,
        *,
        weight: Callable[[float], float] | float | None = None,
        steps: int = 5,
        keep: str = "noise",
        tol: float = 1e-6,
        newton: int = 3,
        variance: str = "uniform",
    ):
        if variance not in ("uniform", "local"):
            raise ConfigError(f"variance is {variance!r}.", 'It is "uniform" (the paper) or "local".')
        if keep not in ("noise", "state"):
            raise ConfigError(f"keep is {keep!r}.", 'It is "noise" (the paper) or "state".')
        if steps < 1:
            raise ConfigError(f"steps is {steps}.", "DDS takes at least one CG step.", "Use steps=5.")
        if newton < 1:
            raise ConfigError(f"newton is {newton}.", "DDS linearises at least once.", "Use newton=3.")
        self.weight, self.steps, self.keep, self.tol, self.newton = weight, steps, keep, tol, newton
        self.variance = variance
        super().__init__(prior, problem)

    def check_problem(self, problem: Problem) -> None:
        """Prepares the solution in singular coordinates or closed form, where the operator has one."""
        super().check_problem(problem)
        fit = Proximal(problem, self.steps, self.tol) if problem.A.linear else None
        self.direct = fit if fit is not None and (fit.svd is not None or fit.closed_form) else None

    def pair(self, solver: Solver) -> None:
        """Warns of a deterministic solver on a mask: the data step moves the measured pixels alone.

        Those between them keep the noise they began with, and only a solver that draws them anew lets what was measured
        reach them.
        """
        super().pair(solver)
        if not solver.stochastic and self.problem is not None and isinstance(self.problem.A, Inpainting):
            warnings.warn(
                f"DDS with {type(solver).__name__} on a mask: pixels that were not measured keep the noise they began with. "
                'Take the solver "renoise", or the sampler mmps.',
                stacklevel=2,
            )

    def denoise(self, x: Tensor, sigma: float, memo: Any = None) -> Estimate:
        """The data step from the prior's image; one network call."""
        prior = self.prior(x, sigma)
        x0 = self.fit(prior, self.lam(sigma), memo)
        if self.keep == "state":
            return Estimate.keep_state(x, sigma, x0, prior)
        return Estimate.keep_noise(x, sigma, x0, prior)

    def lam(self, sigma: float) -> float:
        """lambda at this noise level."""
        if callable(self.weight):
            return float(self.weight(sigma))
        if self.weight is not None:
            return float(self.weight)
        return matched(self.problem.sigma, about(self.prior).data_var)(sigma)

    def fit(self, prior: Tensor, lam: float, memo: Any = None) -> Tensor:
        """``argmin_x ||A x - y||^2 + lam ||x - D||^2`` from D = ``prior`` (rows, *domain)."""
        if not self.problem.A.linear:
            return self.gauss_newton(prior, lam)
        normal, b = self.system(prior, memo)
        if lam == 0:
            return cg(normal, b, prior, self.steps, singular_tolerance(self.tol, b))
        if self.variance == "local" and self.problem.A.complex_domain:
            return self.local(prior, lam, normal, b)
        if self.direct is not None:
            return self.direct(prior, lam)
        return cg(lambda v: normal(v).add(v, alpha=lam), b + lam * prior, prior, self.steps, self.tol)

    def system(self, prior: Tensor, memo: Any) -> tuple[Callable[[Tensor], Tensor], Tensor]:
        """``A^H A`` and ``A^H y``: the normal equations without the prior."""
        return cast(Linear, self.problem.A).normal, self.problem.backprojection

    def local(self, prior: Tensor, lam: float, normal: Callable[[Tensor], Tensor], b: Tensor) -> Tensor:
        """The minimiser with a variance in each pixel, by CG in units of its standard deviation."""
        power = float(self.problem.sigma) ** 2
        least = NEAREST**2 * about(self.prior).data_var
        variance = (REACH**2 * power_around(prior) + least).clamp_max(power / lam)
        std = variance.sqrt()
        residual = std * (b - normal(prior))
        step = cg(lambda u: (std * normal(std * u)).add(u, alpha=power), residual, None, self.steps, self.tol)
        return prior + std * step

    def gauss_newton(self, prior: Tensor, lam: float) -> Tensor:
        """The same for a nonlinear A, with a line search in each row."""
        A, y, x = self.problem.A, self.problem.y, prior

        def loss(x: Tensor) -> Tensor:
            with torch.no_grad():
                r, change = A.forward(x) - y, x - prior
            return inner(r, r).flatten() + lam * inner(change, change).flatten()

        for _ in range(self.newton):
            J = Linearised.at(A, x, y)
            descent = J.pull(J.residual) + lam * (prior - x)
            direction = cg(lambda v, J=J: J.pull(J.push(v)) + lam * v, descent, None, self.steps, self.tol)
            base, least = x, loss(x)
            for length in STEP_LENGTHS:
                candidate = base + length * direction
                candidate_loss = loss(candidate)
                x = torch.where(per_row(candidate_loss < least, x), candidate, x)
                least = torch.minimum(candidate_loss, least)
        return x


def power_around(image: Tensor) -> Tensor:
    """``sum_c |x_c|^2``, over the channels of (rows, channels, ..., H, W), as a Gaussian mean around each pixel: (rows, 1, ..., H, W)."""
    power = image.abs().square().sum(1, keepdim=True)
    planes = power.flatten(0, -3)[:, None]
    kernel = gaussian_kernel(AROUND).to(power)[None, None]
    padded = F.pad(planes, (kernel.shape[-1] // 2,) * 4, mode="replicate")
    return F.conv2d(padded, kernel).view_as(power)


def constant(gamma: float) -> Callable[[float], float]:
    """The paper's weight, ``lambda = 1 / gamma`` at every level: of ``gamma/2 ||A x - y||^2 + 1/2 ||x - D||^2``."""
    return lambda sigma: 1.0 / gamma


def matched(sigma_y: float, data_var: float = 1.0) -> Callable[[float], float]:
    """``lambda = sigma_y^2 / r^2``, ``r^2 = s^2 v / (s^2 + v)``: exact for images of variance v, N(m, v I)."""
    return lambda sigma: sigma_y**2 * (1 / sigma**2 + 1 / data_var)
