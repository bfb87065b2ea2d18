"""The laws of an operator, measured: ``check(A)`` raises `LawBroken` with the law and its error."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .base import Linear, Operator
from .errors import LawBroken


def check(
    operator: Operator,
    dtype: torch.dtype | None = None,
    batch: int = 3,
    seed: int = 0,
    tol: float | None = None,
) -> dict[str, float]:
    """Measure ``operator`` against its laws with zero-mean probes; law -> relative error, the worst row.

    All operators: finite, dtype and device kept, input untouched, rows of a batch independent,
    differentiable. `Linear` ones also: linear, ``<A x, y> = <x, A^H y>``, adjoint = the one that
    autograd derives, adjoint's own derivative = A, normal = adjoint(forward), and, where there is a
    closed form, ``(A^H A + w I) solve_normal(b, w) = b``.

    Probes are of the operator's own precision, or of ``dtype``, to which the operator is then converted
    (float64 is the sharpest test). The bound ``tol`` is 1e-12 in float64 and 1e-5 below by default.
    Raises `LawBroken`.
    """
    dtype = dtype or operator.dtype
    if tol is None:
        tol = 1e-12 if dtype == torch.float64 else 1e-5
    return Check(operator.to(dtype), dtype, batch * operator.images, seed, tol).run()


class Check:
    """One run of `check`: the probes, the bound and the errors measured so far."""

    def __init__(self, operator: Operator, dtype: torch.dtype, batch: int, seed: int, tol: float):
        self.operator, self.dtype, self.batch, self.tol = operator, dtype, batch, tol
        self.generator = torch.Generator().manual_seed(seed)
        self.report: dict[str, float] = {}

    def run(self) -> dict[str, float]:
        """Measure every law; law -> relative error of the worst row. Raises `LawBroken` at the first broken one."""
        a, batch = self.operator, self.batch
        x = self.probe(batch, a.domain, a.complex_domain)
        y = self.probe(batch, a.codomain, a.complex_codomain)
        with torch.no_grad():
            image = self.same_kind("forward", a.forward, x, y)
            self.independent("forward", a.forward, x, image)
        if isinstance(a, Linear):
            self.linear(a, x, y, image)
        else:
            self.differentiable(a, x, y)
        return self.report

    def linear(self, a: Linear, x: Tensor, y: Tensor, image: Tensor) -> None:
        """The laws of a linear operator, from probes x (batch, *domain), y (batch, *codomain) and ``image = A x``."""
        with torch.no_grad():
            other = self.probe(self.batch, a.domain, a.complex_domain)
            b, c = (0.7 - 1.1j, -0.4 + 0.3j) if a.complex_domain else (0.7, -1.1)
            expected = b * image + c * a.forward(other)
            self.equal(
                "linear", a.forward(b * x + c * other), expected, "A(b x + c z) must be b A x + c A z."
            )
            back = self.same_kind("adjoint", a.adjoint, y, x)
            self.independent("adjoint", a.adjoint, y, back)
            size = norm(image) * norm(y) + norm(x) * norm(back)
            self.keep(
                "<A x, y> = <x, A^H y>", (dot(image, y) - dot(x, back)).abs(), size, "adjoint() is not A^H."
            )
            normal = self.same_kind("normal", a.normal, x, x)
            self.equal("normal = adjoint(forward)", normal, a.adjoint(image), "normal() is not A^H A.")
            solved = a.solve_normal(x, 0.5)
            if solved is not None:
                residual = a.normal(solved) + 0.5 * solved
                self.equal(
                    "solve_normal inverts A^H A + w I", residual, x, "solve_normal() is not its inverse."
                )
        derived = self.derived("forward is differentiable", lambda t: Linear.adjoint(a, t), y)
        self.equal(
            "adjoint = autograd's adjoint", back, derived, "adjoint() is not A^H, or forward() is cut."
        )
        probe = y.detach().requires_grad_()
        twice = self.derived(
            "adjoint is differentiable", lambda t: torch.autograd.grad(a.adjoint(t), t, x)[0], probe
        )
        self.equal(
            "adjoint is differentiable",
            twice,
            image,
            "Its derivative must be A: build adjoint of torch calls.",
        )

    def differentiable(self, a: Operator, x: Tensor, y: Tensor) -> None:
        """An operator that is not linear has a finite derivative: ``J^T y`` at x."""
        probe = x.detach().requires_grad_()
        gradient = self.derived(
            "forward is differentiable", lambda t: torch.autograd.grad(a.forward(t), t, y)[0], probe
        )
        self.keep("derivative is finite", (~gradient.isfinite()).flatten(1).sum(1), 1, "")

    def derived(self, law: str, derivative: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
        """``derivative(at)``; raises `LawBroken` with what autograd says where there is none."""
        try:
            return derivative(at).detach()
        except RuntimeError as error:
            hint = f"Use differentiable torch calls on the input itself. Autograd says: {error}"
            raise LawBroken(law, float("inf"), self.tol, hint) from error

    def probe(self, rows: int, shape: tuple[int, ...], is_complex: bool) -> Tensor:
        """(rows, *shape) of independent standard normal numbers, on the operator's device."""
        dtype = self.dtype.to_complex() if is_complex else self.dtype
        return torch.randn(rows, *shape, dtype=dtype, generator=self.generator).to(self.operator.device)

    def same_kind(self, name: str, call: Callable[[Tensor], Tensor], given: Tensor, like: Tensor) -> Tensor:
        """``call(given)``, which must look ``like`` that and leave its input as it was."""
        before = given.clone()
        out = call(given)
        wrong = float("inf")
        self.keep(f"{name} leaves its input untouched", norm(given - before), norm(before), "Work on a copy.")
        kind = f"is {out.dtype} {tuple(out.shape)}, must be {like.dtype} {tuple(like.shape)}."
        if out.shape != like.shape or out.dtype != like.dtype or out.device != like.device:
            raise LawBroken(f"{name} keeps shape, dtype and device", wrong, 0.0, f"The result {kind}")
        self.keep(
            f"{name} is finite", (~out.isfinite()).flatten(1).sum(1), 1, "NaN or infinity in the result."
        )
        return out

    def independent(self, name: str, call: Callable[[Tensor], Tensor], given: Tensor, out: Tensor) -> None:
        """Row i must not feel the other rows, nor how many they are."""
        law = f"{name}: rows of a batch are independent"
        for i in range(self.batch):
            others = given.flip(0) * 3
            others[i] = given[i]
            self.equal(law, call(others)[i : i + 1], out[i : i + 1], "A row changed with its batch mates.")
            if self.operator.images == 1:
                alone = call(given[i : i + 1])
                self.equal(law, alone, out[i : i + 1], "A row alone differs from the same row in a batch.")

    def equal(self, law: str, got: Tensor, expected: Tensor, hint: str) -> None:
        """Record the law by the error of ``got`` relative to ``expected``, row by row."""
        self.keep(law, norm(got - expected), norm(expected), hint)

    def keep(self, law: str, error: Tensor, size: Tensor | float, hint: str) -> None:
        """Record the worst row's ``error / size``; where the size is zero, the error itself."""
        size = torch.as_tensor(size, dtype=self.dtype, device=error.device)
        worst = float((error / torch.where(size > 0, size, 1)).max())
        self.report[law] = max(worst, self.report.get(law, 0.0))
        if not worst <= self.tol:
            raise LawBroken(law, worst, self.tol, hint)


def dot(a: Tensor, b: Tensor) -> Tensor:
    """``Re <a, b>`` of each row."""
    return (a.conj() * b).real.flatten(1).sum(1)


def norm(a: Tensor) -> Tensor:
    """Euclidean norm of each row, (rows,), real."""
    return a.flatten(1).norm(dim=1).to(a.dtype.to_real())
