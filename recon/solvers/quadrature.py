"""Weights of multistep methods: the integral of an interpolating polynomial against a density."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from numpy.polynomial.legendre import leggauss

POINTS, SHARES = (values.tolist() for values in leggauss(24))


def adams_weights(
    nodes: Sequence[float], start: float, end: float, density: Callable[[float], float]
) -> list[float]:
    """``w_j = int_start^end density(u) L_j(u) du``, L_j the Lagrange polynomials of ``nodes``.

    24-point Gauss-Legendre in Python floats: exact to rounding for the densities of this package
    (``exp(c u)`` with ``|c (end - start)|`` up to 20, constants, d sigma / dt).
    """
    half, middle = (end - start) / 2, (end + start) / 2
    weights = [0.0] * len(nodes)
    for point, share in zip(POINTS, SHARES, strict=True):
        u = middle + half * point
        mass = half * share * density(u)
        for j, node in enumerate(nodes):
            value = mass
            for k, other in enumerate(nodes):
                if k != j:
                    value *= (u - other) / (node - other)
            weights[j] += value
    return weights
