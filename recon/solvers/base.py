"""The contract of a solver: one step between two noise levels, its memory in and out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from torch import Tensor

from ..errors import ConfigError
from ..noise import Draw
from ..state import Estimate, Past, Step

Denoise = Callable[[Tensor, float], Estimate]
"""What a solver is shown: ``denoise(x, sigma)``, pure; a posterior's, with its memo bound. Each call costs."""

FORMS = ("data", "noise")
"""What an exponential method interpolates: the denoised image, or the noise."""


class Solver:
    """A numerical method: the step from one noise level to the next. `recon.walk` owns the loop.

    A subclass gives `advance`, and `step` where it does something before the first evaluation. It declares:

    ``order``: global order on a smooth problem (weak order where stochastic); 0 where more steps do not
    converge to it. ``evals``: calls of ``denoise`` a step. ``warmup``: those of the first steps, and of the
    first after a restart, where they differ. ``nodes``: evaluations that a multistep method combines.
    ``stochastic``: whether it adds noise. ``kernel``: whether ``N(mean, std^2)`` is all of its randomness.

    A solver object is configuration: it is not changed by a walk, and one object may serve several at once. All
    that it remembers travels in ``past``. Two rules keep every method right under every posterior: the step
    starts at ``est.x0 + sigma * est.eps``, and what is differenced or remembered is ``est.slope`` or ``est.eps``.
    """

    order: int = 1
    evals: int = 1
    warmup: tuple[int, ...] = ()
    nodes: int = 1
    stochastic: bool = False
    kernel: bool = True
    reference: ClassVar[str] = ""

    def step(self, denoise: Denoise, x: Tensor, sigma: float, target: float, past: Past, draw: Draw) -> Step:
        """The transition kernel ``N(mean, std^2)`` from ``x`` at ``sigma`` to ``target``, ``0 <= target < sigma``.

        (`recon.inversion` takes deterministic steps upwards, too.)

        x (rows, *domain), real or complex; levels are Python floats, the same for all rows, and coefficients are
        computed from them in float64. ``mean`` has the shape, dtype and device of x; ``std`` is a float, per
        real component: the walk adds ``std * draw(mean)``, not the solver. ``draw(like, stream)`` gives the unit
        noise of this step, for a method that needs noise inside it (``kernel`` is then False).

        ``past`` is the ``past`` of the step before, newest first, its tensors with a row for each row of x, so
        that `State.take` can permute them. It is ``()`` at the start of a walk, and after a step at which the posterior
        moved the state or changed what ``denoise`` says: then the method starts anew, at order one or by
        ``warmup``.

        Pure: no argument and no attribute is changed. Raises nothing of its own: what cannot be solved is refused by
        `check_levels` before the first evaluation. Here: the first evaluation, and the step to 0, which is the
        denoised image whatever the method; else `advance`.
        """
        est = denoise(x, sigma)
        if target == 0:
            return Step(est.x0, 0.0, est)
        return self.advance(denoise, x, est, sigma, target, past, draw)

    def advance(
        self,
        denoise: Denoise,
        x: Tensor,
        est: Estimate,
        sigma: float,
        target: float,
        past: Past,
        draw: Draw,
    ) -> Step:
        """The method's own step to ``target > 0``, given the first evaluation ``est = denoise(x, sigma)``.

        As `step` in shapes, dtypes and purity. Further evaluations are ``denoise(point, level)`` at points of its
        own. The returned `Step` carries ``est`` itself (what the posterior is shown in ``correct``), and ``past`` for
        the next step: only what that needs.
        """
        raise NotImplementedError

    def calls(self, steps: int) -> int:
        """Evaluations of a walk of ``steps`` steps, the last of them to 0, without restarts."""
        first = self.warmup[: steps - 1]
        return sum(first) + self.evals * (steps - 1 - len(first)) + 1

    def raised(self, sigma: float) -> float:
        """The level at which the first evaluation of a step from ``sigma`` is made: higher where noise is added first.

        It is this one that must lie in the range the prior was trained for.
        """
        return sigma

    def check_levels(self, levels: Sequence[float], eps: float) -> None:
        """Raise `ConfigError` for a grid this method cannot walk, such as levels its process does not have.

        ``levels`` fall, and may end at 0; ``eps`` is the relative rounding of the state's dtype. Called before
        the first evaluation.
        """


def as_solver(given: Any) -> Solver:
    """A solver as it is; an object that has ``step`` alone, with the defaults of `Solver` for all that it lacks.

    Raises `ConfigError` for an object without a ``step``.
    """
    if isinstance(given, Solver):
        return given
    kind = type(given)
    if not callable(getattr(given, "step", None)):
        raise ConfigError(
            f"{kind.__name__} is not a solver.",
            "It has no step(denoise, x, sigma, target, past, draw).",
            "Write a class with that method, such as examples/your_solver.py, or a subclass of recon.solvers.Solver.",
        )
    made = object.__new__(completed(kind, Solver))
    slots = [name for each in kind.__mro__ for name in getattr(each, "__slots__", ())]
    for name in [*slots, *getattr(given, "__dict__", ())]:
        if hasattr(given, name):
            object.__setattr__(made, name, getattr(given, name))
    return made


def completed(kind: type, base: type) -> type:
    """A class of the user's own with what it lacks of ``base``: itself where it is derived from that."""
    if issubclass(kind, base):
        return kind
    return type(kind.__name__, (kind, base), {"__module__": kind.__module__, "__doc__": kind.__doc__})


def least_steps(solver: Solver) -> int:
    """The fewest steps in which a solver reaches its order: the number of evaluations it combines, else its order."""
    return solver.nodes if solver.nodes > 1 else solver.order


def euler(est: Estimate, target: float) -> Tensor:
    """``x0 + t eps``: the step of order one that every method starts from."""
    return est.x0.add(est.eps, alpha=target)


def differences(mean: Tensor, values: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """``mean + sum_j w_j (v_j - v_0)``, j = 1, 2, ..."""
    if not weights:
        return mean
    mean = mean.add(values[0], alpha=-sum(weights))
    for value, weight in zip(values[1:], weights, strict=True):
        mean = mean.add_(value, alpha=weight)
    return mean
