"""Grids: right ends, right count, strictly falling, and the formulas of the sources."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recon import grids
from recon.errors import ConfigError
from recon.processes import VP, Cosine, Discrete

NAMES = pytest.mark.parametrize("name", grids.GRIDS)


@NAMES
@given(steps=st.integers(1, 200), low=st.floats(1e-4, 1.0), ratio=st.floats(1.5, 1e5))
def test_n_levels_and_zero_strictly_falling(name, steps, low, ratio):
    levels = grids.GRIDS[name](steps, low * ratio, low)
    assert len(levels) == steps + 1 and levels[-1] == 0.0
    assert all(type(s) is float and math.isfinite(s) for s in levels)
    assert all(a > b for a, b in pairwise(levels))
    assert levels[0] == low * ratio
    if steps > 1:
        assert levels[-2] == low
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


def test_aliases_are_the_same_function():
    for alias, name in (
        ("edm", "karras"),
        ("rho-power", "karras"),
        ("logsnr", "exponential"),
        ("vp", "time"),
    ):
        assert grids.GRIDS[alias] is grids.GRIDS[name]


def test_rho_power_is_karras():
    """DEIS's rule, sigma linear in ``sigma^(1/7)``, by hand."""
    roots = [s ** (1 / 7) for s in grids.GRIDS["rho-power"](11, 60.0, 0.01)[:-1]]
    gaps = [a - b for a, b in pairwise(roots)]
    assert max(gaps) - min(gaps) < 1e-13


def test_polyexponential():
    """k-diffusion: ``ln sigma = ramp^rho (ln smax - ln smin) + ln smin``, ramp from 1 to 0."""
    levels = grids.polyexponential(9, 20.0, 0.05, rho=2.5)
    for i in range(9):
        log = (1 - i / 8) ** 2.5 * (math.log(20) - math.log(0.05)) + math.log(0.05)
        assert levels[i] == pytest.approx(math.exp(log), rel=1e-12)
    assert grids.polyexponential(9, 20.0, 0.05) == grids.exponential(9, 20.0, 0.05)
    with pytest.raises(ConfigError, match="do not fall strictly"):
        grids.polyexponential(500, 20.0, 0.05, rho=9.0)


def test_time_is_k_diffusions_vp():
    """``sigma(t) = sqrt(exp(B_d t^2 / 2 + B_min t) - 1)``, t uniform from 1 to .001."""

    def sigma(t):
        return math.sqrt(math.expm1(19.9 * t * t / 2 + 0.1 * t))

    levels = grids.GRIDS["vp"](10, sigma(1.0), sigma(1e-3))
    for i in range(10):
        assert levels[i] == pytest.approx(sigma(1 - i / 9 * (1 - 1e-3)), rel=1e-10)


@pytest.mark.parametrize(("name", "power"), [("time", 1.0), ("quadratic", 2.0)])
def test_uniform_in_a_power_of_time(name, power):
    process = Cosine()
    levels = grids.GRIDS[name](8, 30.0, 0.01, process=process)
    gaps = [a - b for a, b in pairwise(process.time(s) ** (1 / power) for s in levels[:-1])]
    assert max(gaps) - min(gaps) < 1e-12
    again = grids.time_power(8, 30.0, 0.01, power=3.0)
    gaps = [a - b for a, b in pairwise(VP().time(s) ** (1 / 3) for s in again[:-1])]
    assert max(gaps) - min(gaps) < 1e-12
    with pytest.raises(ConfigError, match="Cosine was asked"):
        grids.GRIDS[name](8, 300.0, 0.01, process=process)


@pytest.mark.parametrize("shift", [0.5, 1.0, 3.0])
def test_flow_shift(shift):
    """``t -> k t / (1 + (k - 1) t)`` of uniform times; the ends are those asked for."""
    high, low = 80.0 / shift, 0.002 / shift  # where the unshifted times begin and end
    start, end = high / (1 + high), low / (1 + low)
    levels = grids.flow_shift(12, 80.0, 0.002, shift=shift)
    for i in range(12):
        t = start + i / 11 * (end - start)
        t = shift * t / (1 + (shift - 1) * t)
        assert levels[i] / (1 + levels[i]) == pytest.approx(t, rel=1e-12)
    with pytest.raises(ConfigError, match="shift"):
        grids.flow_shift(12, shift=0.0)


@pytest.mark.parametrize(("name", "table"), [("ays-sd15", grids.AYS_SD15), ("ays-sdxl", grids.AYS_SDXL), ("ays-svd", grids.AYS_SVD)])  # fmt: skip
def test_align_your_steps(name, table):
    grid = grids.GRIDS[name]
    assert grid(10, table[0], table[-1])[:-1] == pytest.approx(table, rel=1e-12)
    between = grid(
        19, table[0], table[-1]
    )  # every second is a level of the table, the others geometric means
    assert between[:-1:2] == pytest.approx(table, rel=1e-12)
    assert between[1:-1:2] == pytest.approx([math.sqrt(a * b) for a, b in pairwise(table)], rel=1e-12)
    logs = [math.log(s) for s in grid(10, 80.0, 0.002)[:-1]]  # stretched: affine in ln sigma
    own = [math.log(s) for s in table]
    ratios = [(a - b) / (c - d) for (a, b), (c, d) in zip(pairwise(logs), pairwise(own), strict=True)]
    assert max(ratios) - min(ratios) < 1e-12


# --- integer labels of a table -----------------------------------------------------------------------------


def labels(levels: list[float], process: Discrete) -> list[float]:
    count = len(process.alphas_cumprod)
    return [count * process.time(s) - 1 for s in levels[:-1]]


@pytest.mark.parametrize(
    ("spacing", "steps", "offset", "expected"),
    [
        ("trailing", 5, 0, [999, 799, 599, 399, 199]),
        ("trailing", 7, 0, [999, 856, 713, 570, 428, 285, 142]),
        ("trailing", 1, 0, [999]),
        ("leading", 5, 0, [800, 600, 400, 200, 0]),
        ("leading", 5, 1, [801, 601, 401, 201, 1]),
        ("leading", 7, 0, [852, 710, 568, 426, 284, 142, 0]),
        ("linspace", 5, 0, [999, 749, 500, 250, 0]),
    ],
)
def test_integer_spacings(spacing, steps, offset, expected):
    """The labels of diffusers' DDIM and DDPM schedulers on 1000 training steps."""
    levels = grids.discrete(steps, spacing=spacing, offset=offset)
    assert labels(levels, Discrete.linear()) == pytest.approx(expected, abs=1e-6)
    assert levels[-1] == 0.0 and grids.validated(levels) == levels


@pytest.mark.parametrize("spacing", grids.SPACINGS)
@given(steps=st.integers(1, 60))
def test_integer_spacings_fall(spacing, steps):
    process = Discrete(tuple(0.95 ** (n + 1) for n in range(60)))
    levels = grids.discrete(steps, process, spacing)
    assert len(levels) == steps + 1 and grids.validated(levels) == levels
    assert all(abs(label - round(label)) < 1e-9 for label in labels(levels, process))


@pytest.mark.parametrize(
    "options", [{"steps": 0}, {"steps": 1001}, {"steps": 5, "spacing": "karras"}, {"steps": 5, "spacing": "leading", "offset": 300}, {"steps": 5, "spacing": "leading", "offset": -1}]
)  # fmt: skip
def test_integer_spacings_refuse(options):
    with pytest.raises(ConfigError):
        grids.discrete(**options)


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
