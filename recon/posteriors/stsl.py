"""STSL: between the solver's steps, gradient steps of the state on the misfit and the trace of the score's Jacobian."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from operators.krylov import inner

from ..errors import ConfigError, unknown
from ..inversion import ddim_inversion, positive
from ..latent import Decoded
from ..noise import Draw
from ..problem import Problem
from ..solvers.base import Solver
from ..state import Move, State
from .base import Posterior
from .shared.jacobian import per_row, residual_and_pull, with_pullback
from .shared.norms import inverse_squares, is_measurable, row_norms
from .shared.restarts import refuse_warmup
from .usual import Usual

TRACE_WEIGHTS = ("paper", "bound")
PROBE_LAWS = ("gaussian", "rademacher")
PROBE_SCALES = ("paper", "small")
STSL_STARTS = ("inversion", "noise")
STSL_FORMS = ("norm", "squared", "auto")

Setting = Callable[[float], float] | float


class STSL(Posterior):
    """``x <- x - grad_x (lam ||y - A D(x, s)||^2 + w v^T (score(x + h v) - score(x)) / h)``, at every level s > 0.

    ``inner`` such steps at s_0 and after every step of the solver, each with a probe v of its own. The
    second term estimates ``w tr Hess ln p_s``, the part of the conditional covariance that the first-order
    term leaves out. Any differentiable operator; the solver sees the prior's ``D``.

    ``lam``: a number, or a function of sigma; default ``zeta / ||y - A D||`` of each row, so that a step is
    ``2 zeta grad ||y - A D||``: zeta = .5 is `DPS`'s 1. ``form="squared"``: ``lam = zeta / (2 ||A||^2)``, a step on the
    misfit itself in units of the operator (``lipschitz`` of a nonlinear one), stable for zeta < 2;
    "auto" is that where the size of A is known and neither zeta nor lam is given. ``trace_weight``: "paper", ``w = eta / d``, d real
    numbers an image; "bound", ``w = lam ||A||^2 s^4``, which bounds the covariance's share of the
    likelihood (linear operators; eta is not used). ``eta=0`` leaves out the term and its network call.
    ``probes``: "gaussian" or "rademacher". ``scale``: "paper", h = 1; "small", ``h = min(1, c s)``; or a
    function of sigma. ``init``: "inversion" takes ``A^H y``, as a clean image (in a latent space its encoding), up
    the levels of the walk by DDIM: the samples of an image then differ by their probes and by
    the solver's noise only; "noise" keeps the start it is given.

    Traps: with h = 1 the term is the trace averaged over N(x, I), not at x, and the probe is much larger than a
    small s; a state of the paper is ``x / sqrt(1 + s^2)``, so that its unit probe is ``scale=lambda s: (1 + s^2)
    ** .5``. The paper's weight divides differences of D by ``s^2``: below its own lowest level (.03)
    it grows without bound, where "bound" vanishes. On the shipped brain prior (MRI, 20 levels, one image)
    the relative error is .166 without the term; with the paper's weight .231 where the levels end at
    .002, .170 where they end at .03, and 1.2 with "small" probes; with "bound" .165. Differences of scores are
    taken in the state's own precision, float32 or better; under a network in half precision a small h
    is lost in rounding. The steps move the state under the solver: a multistep solver restarts each time, and is of
    order one. Biased as DPS is; on a Gaussian prior the second term vanishes for every probe. The paper counts
    one of the two network calls of an inner step.
    Source: Rout et al., Beyond First-Order Tweedie, CVPR 2024, algorithm 1; no released code.
    """

    needs_problem = True
    usual = Usual(
        {"inner": 2, "form": "auto", "eta": 0.0, "init": "noise"},
        "euler",
        highest=5.0,
        lowest=0.065,
    )
    knob = "Lower zeta (or lam), or leave the second-order term out (eta=0)."
    level_calls = 11
    own_start = True

    def __init__(
        self,
        prior=None,
        problem: Problem | None = None,
        *,
        inner: int = 5,
        form: str = "norm",
        zeta: Setting | None = None,
        lam: Setting | None = None,
        trace_weight: str = "paper",
        eta: float = 0.02,
        probes: str = "gaussian",
        scale: str | Callable[[float], float] = "paper",
        c: float = 0.1,
        init: str = "inversion",
    ):
        if inner < 1:
            raise ConfigError(f"inner is {inner}.", "STSL takes at least one gradient step a level.", "Use inner=5.")  # fmt: skip
        for name, value, known in (
            ("trace weight", trace_weight, TRACE_WEIGHTS),
            ("kind of probes", probes, PROBE_LAWS),
            ("start of STSL", init, STSL_STARTS),
            ("form of STSL", form, STSL_FORMS),
        ):
            if value not in known:
                raise unknown(name, value, known)
        if not callable(scale) and scale not in PROBE_SCALES:
            raise unknown("scale of the probes", scale, PROBE_SCALES)
        if not (c > 0 and math.isfinite(c)):
            raise ConfigError(f"c is {c}.", "The probes are of size min(1, c sigma).", "Use c=.1.")
        if not (eta >= 0 and math.isfinite(eta)):
            raise ConfigError(f"eta is {eta}.", "It weighs the second-order term.", "Use .02, or 0 to leave it out.")  # fmt: skip
        self.inner, self.form, self.lam = inner, form, lam
        self.zeta, self.zeta_given = 1.0 if zeta is None else zeta, zeta is not None
        self.trace_weight, self.eta, self.probes, self.scale, self.c = trace_weight, eta, probes, scale, c
        self.second_order = trace_weight == "bound" or eta > 0
        self.init, self.own_start = init, init == "inversion"
        self.level_calls = (2 if self.second_order else 1) * inner + self.own_start
        self.levels: list[float] | None = None  # of the walk: `prepared`
        super().__init__(prior, problem)

    # --- checks ------------------------------------------------------------------------------------------

    def check_problem(self, problem: Problem) -> None:
        """Refuses options that need a linear operator; computes its norm where the trace's weight has it."""
        super().check_problem(problem)
        A = problem.A
        if self.own_start and not (A.linear or (isinstance(A, Decoded) and A.A.linear)):
            raise ConfigError(
                f"STSL was given {A!r}, which is not linear.",
                "It starts from A^H y, which a nonlinear operator does not have.",
                'Use init="noise".',
            )
        given = self.zeta_given or self.lam is not None
        self.step = None  # of the norm's form
        if self.form == "squared" or (self.form == "auto" and is_measurable(problem) and not given):
            self.step = inverse_squares(problem)
        if self.trace_weight == "bound":
            if not A.linear:
                raise ConfigError(
                    f"STSL was given {A!r}, which is not linear.",
                    'trace_weight="bound" weighs by the norm of the operator.',
                    'Use trace_weight="paper".',
                )
            self.norm_squared = row_norms(problem).square()

    def pair(self, solver: Solver) -> None:
        """Refuses solvers that start with Runge-Kutta steps; warns where a multistep one loses its order."""
        super().pair(solver)
        refuse_warmup("STSL", solver)

    # --- the walk ----------------------------------------------------------------------------------------

    def prepared(self, solver: Solver, grid: list[float], samples: int) -> STSL:
        """A copy that knows the levels which its inversion climbs."""
        return self.copied(levels=grid)

    def start(self, state: State, draw: Draw) -> State:
        """The inversion's end, or the given start, after ``inner`` gradient steps."""
        x = self.inverted(state.x) if self.own_start else state.x
        return replace(state, x=self.descended(x, state.sigma, draw))

    def correct(self, state: State, move: Move, draw: Draw) -> State:
        """``inner`` gradient steps at every level above 0; ``past=()``, since they move the state."""
        if state.sigma == 0:
            return state
        return replace(state, x=self.descended(state.x, state.sigma, draw), past=())

    def inverted(self, like: Tensor) -> Tensor:
        """``A^H y``, noised to the lowest level by the network's own noise, and taken up to the first level."""
        if self.levels is None:
            raise ConfigError(
                "STSL starts by inversion over the levels of its walk, and does not know them.",
                "They are given by run, which prepares a sampler for one walk.",
                'Call posterior.run(solver, grid, x, noise), or use init="noise".',
            )
        A = self.problem.A
        image = A.start_from(self.problem.y) if isinstance(A, Decoded) else self.problem.backprojection
        image = image.to(like)
        lowest = positive(self.levels)[-1]
        lifted = 2 * image - self.prior(image, lowest)  # x + s eps, eps = (x - D(x, s)) / s
        return deque(ddim_inversion(self.prior, lifted, self.levels), maxlen=1).pop().x

    def descended(self, x: Tensor, sigma: float, draw: Draw) -> Tensor:
        """``x`` after the gradient steps of one level."""
        for k in range(self.inner):
            x = x - self.gradient(x, sigma, self.probe(x, draw, k) if self.second_order else None)
        return x

    def probe(self, x: Tensor, draw: Draw, k: int) -> Tensor:
        """v, of unit variance per real component."""
        v = draw(x, f"probe {k}")
        return v if self.probes == "gaussian" else signs(v)

    def gradient(self, x: Tensor, sigma: float, v: Tensor | None) -> Tensor:
        """Of the loss at x, by row: ``-2 lam J^T A^H r + w (J(x + h v) - J(x))^T v / (h s^2)``; no second term without v.

        The scores' other part, ``v^T v / s^2``, does not depend on x. One graph is alive at a time.
        """
        prior, pull = with_pullback(self.prior, x, sigma)
        r, descent = residual_and_pull(self.problem.A, prior, self.problem.y)
        lam = self.weight(r, sigma, prior)
        fit = descent * (2 * lam)
        if v is None:
            return -pull(fit)
        h = self.reach(sigma)
        push = v * (self.trace(lam, sigma, x) / (h * sigma**2))
        at_x = pull(fit + push)
        return with_pullback(self.prior, x.add(v, alpha=h), sigma)[1](push) - at_x

    # --- coefficients ------------------------------------------------------------------------------------

    def weight(self, r: Tensor, sigma: float, like: Tensor) -> Tensor | float:
        """lam: as it was given, or by the form (rows, 1, ...)."""
        if self.lam is not None:
            return setting_at(self.lam, sigma)
        if self.step is not None:
            return self.step * (setting_at(self.zeta, sigma) / 2)
        length = inner(r, r).sqrt()
        return per_row(setting_at(self.zeta, sigma) / torch.where(length > 0, length, 1), like)

    def trace(self, lam: Tensor | float, sigma: float, x: Tensor) -> Tensor | float:
        """w, the weight of the trace."""
        if self.trace_weight == "bound":
            return lam * self.norm_squared * sigma**4
        return self.eta / (math.prod(x.shape[1:]) * (2 if x.is_complex() else 1))

    def reach(self, sigma: float) -> float:
        """h, the length of a probe's step."""
        if callable(self.scale):
            return float(self.scale(sigma))
        return 1.0 if self.scale == "paper" else min(1.0, self.c * sigma)


def setting_at(setting: Setting, sigma: float) -> float:
    """The value at ``sigma`` of a number or a function of sigma."""
    return float(setting(sigma)) if callable(setting) else setting


def signs(v: Tensor) -> Tensor:
    """+1 or -1 for each real component."""
    if v.is_complex():
        return torch.view_as_complex(signs(torch.view_as_real(v)))
    return torch.where(v >= 0, 1.0, -1.0).to(v.dtype)
