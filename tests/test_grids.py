"""Grids: right ends, right count, strictly falling, and the formulas of the sources."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recon import grids
from recon.errors import ConfigError

NAMES = pytest.mark.parametrize("name", grids.GRIDS)


@NAMES
@given(steps=st.integers(1, 200), low=st.floats(1e-4, 1.0), ratio=st.floats(1.5, 1e5))
def test_n_levels_and_zero_strictly_falling(name, steps, low, ratio):
    levels = grids.GRIDS[name](steps, low * ratio, low)
    assert len(levels) == steps + 1 and levels[-1] == 0.0
    assert all(type(s) is float and math.isfinite(s) for s in levels)
    assert all(a > b for a, b in pairwise(levels))
    assert levels[0] == pytest.approx(low * ratio, rel=1e-12)
    if steps > 1:
        assert levels[-2] == pytest.approx(low, rel=1e-9)
    assert grids.validated(levels) == levels


def test_karras_values():
    """Karras et al. 2022, eq. 5 with rho 7: the sixth of 18 levels from 80 to .002."""
    levels = grids.karras(18)
    expected = (80 ** (1 / 7) + 5 / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    assert levels[5] == pytest.approx(expected, rel=1e-14)
    assert levels[1] == pytest.approx(57.585984, rel=1e-7) and levels[16] == pytest.approx(
        0.0075283, rel=1e-4
    )
    steps = [b - a for a, b in pairwise(s ** (1 / 7) for s in levels[:-1])]
    assert max(steps) - min(steps) < 1e-12


def test_karras_of_rho_1_is_linear_and_of_large_rho_exponential():
    for a, b in zip(grids.karras(9, 5.0, 0.1, rho=1.0), grids.linear(9, 5.0, 0.1), strict=True):
        assert a == pytest.approx(b, rel=1e-12)
    for a, b in zip(grids.karras(9, 5.0, 0.1, rho=1e5), grids.exponential(9, 5.0, 0.1), strict=True):
        assert a == pytest.approx(b, rel=1e-3)


def test_exponential_is_uniform_in_log():
    ratios = [b / a for a, b in pairwise(grids.exponential(7, 30.0, 0.2)[:-1])]
    assert max(ratios) - min(ratios) < 1e-14


def test_linear_is_uniform():
    gaps = [a - b for a, b in pairwise(grids.linear(7, 30.0, 0.2)[:-1])]
    assert max(gaps) - min(gaps) < 1e-12


@NAMES
@pytest.mark.parametrize("arguments", [(0, 80.0, 0.002), (-3, 80.0, 0.002), (5, 0.1, 0.2), (5, 1.0, 1.0), (5, 1.0, 0.0), (5, math.inf, 0.1), (5, math.nan, 0.1)])  # fmt: skip
def test_refusals(name, arguments):
    with pytest.raises(ConfigError):
        grids.GRIDS[name](*arguments)


@pytest.mark.parametrize("levels", [[], [1.0], [1.0, 1.0], [1.0, 2.0], [2.0, 1.0, -0.1], [math.inf, 1.0], [2.0, math.nan, 0.0], [math.nan, 1.0]])  # fmt: skip
def test_grids_that_cannot_be_walked(levels):
    with pytest.raises(ConfigError, match="cannot be walked"):
        grids.validated(levels)


def test_a_users_own_levels_become_floats():
    assert grids.validated((3, 2, 1)) == [3.0, 2.0, 1.0]
