"""Processes: closed forms, ways back, rates; and the steps that need a process's clock, written out in its state z."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from worlds import ANISOTROPIC, Injected, identity_denoiser, random, random_levels, vp_scale, vp_sigma

from recon.errors import ConfigError
from recon.processes import VE, VP, Cosine, Discrete, Flow, Process, SubVP
from recon.solvers import Euler, FlowRK, PredictorCorrector

PROCESSES = {
    "VE": VE(),
    "VP": VP(),
    "VP, constant beta": VP(2.0, 2.0),
    "sub-VP": SubVP(),
    "cosine": Cosine(),
    "flow": Flow(),
    "discrete": Discrete.linear(),
}
EACH = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
TIMES = [1e-3, 0.013, 0.2, 0.5, 0.77, 0.985]
LEVELS = [10 ** (-3 + i / 8) for i in range(40)]  # .001 to 75
SILENT = Injected().at(0)


# --- scale, std, time --------------------------------------------------------------------------------------


@EACH
def test_sigma_is_std_over_scale(process: Process):
    for t in TIMES:
        assert process.sigma(t) == pytest.approx(process.std(t) / process.scale(t), rel=1e-12)


@EACH
def test_time_and_sigma_are_inverse(process: Process):
    for sigma in LEVELS:
        assert process.sigma(process.time(sigma)) == pytest.approx(sigma, rel=1e-10)
    for t in TIMES:
        assert process.time(process.sigma(t)) == pytest.approx(t, rel=1e-10)
    assert all(a < b for a, b in pairwise(process.time(s) for s in LEVELS))


@EACH
def test_the_clean_end(process: Process):
    start = process.time(0.0)
    assert start == (-math.inf if process == VE() else 0.0)
    assert process.scale(start) == 1.0 and process.std(start) == 0.0


@EACH
def test_a_bisection_agrees_with_the_closed_form(process: Process):
    for t in TIMES:
        sigma = process.sigma(t)
        assert Process.time(process, sigma) == pytest.approx(process.time(sigma), rel=1e-9)


def inside(process: Process) -> list[float]:
    """Times away from the corners of a table."""
    return [t + 0.0004 for t in TIMES] if isinstance(process, Discrete) else TIMES


@EACH
def test_rates_are_derivatives(process: Process):
    for t in inside(process):
        h = 1e-5 * min(t, 1 - t)
        rates = (*process.rates(t), process.sigma_rate(t))
        for rate, value in zip(rates, (process.scale, process.std, process.sigma), strict=True):
            slope = (value(t + h) - value(t - h)) / (2 * h)
            assert rate == pytest.approx(slope, rel=1e-6, abs=1e-9)


@EACH
def test_drift_and_diffusion_make_the_marginals(process: Process):
    """``d ln a / dt = f`` and ``d s^2 / dt = 2 f s^2 + g^2``."""
    for t in inside(process):
        h = 1e-5 * min(t, 1 - t)
        slope = (math.log(process.scale(t + h)) - math.log(process.scale(t - h))) / (2 * h)
        assert process.drift(t) == pytest.approx(slope, rel=1e-6, abs=1e-9)
        growth = (process.std(t + h) ** 2 - process.std(t - h) ** 2) / (2 * h)
        expected = growth - 2 * process.drift(t) * process.std(t) ** 2
        assert process.diffusion(t) == pytest.approx(expected, rel=1e-6)


@EACH
def test_preserving_is_a_square_sum_of_one(process: Process):
    for t in TIMES:
        total = process.scale(t) ** 2 + process.std(t) ** 2
        assert (total == pytest.approx(1.0, abs=1e-14)) == process.preserving


@EACH
def test_no_anchor_and_the_chains_own_noise(process: Process):
    assert process.anchor(0.4) == 0.0
    assert process.reverse_noise(2.0, 1.5) == pytest.approx(1.5 * math.sqrt(1 - 0.75**2), rel=1e-14)


# --- each by its source ------------------------------------------------------------------------------------


def test_ve_is_geometric():
    process = VE(0.01, 348.0)
    assert process.sigma(0.0) == 0.01 and process.sigma(1.0) == pytest.approx(348.0, rel=1e-14)
    assert process.sigma(0.5) == pytest.approx(math.sqrt(3.48), rel=1e-14)
    # in ln sigma the step of a VE knows nothing of its ends
    assert process.diffusion(0.3) / math.log(34800) == pytest.approx(2 * process.sigma(0.3) ** 2, rel=1e-14)


def test_vp_linear_values():
    """Song et al. 2021, eq. 33: ``ln a = -t^2 (B1 - B0) / 4 - t B0 / 2``; g^2 = beta(t), also at 0."""
    process = VP()
    for t in TIMES:
        assert process.scale(t) == pytest.approx(vp_scale(t), rel=1e-14)
        assert process.sigma(t) == pytest.approx(vp_sigma(t), rel=1e-10)
        assert process.diffusion(t) == pytest.approx(0.1 + 19.9 * t, rel=1e-13)
    assert process.diffusion(0.0) == pytest.approx(0.1, rel=1e-14)
    assert process.time(1e4) > 1  # beyond its end, if asked


def test_sub_vp_has_the_square_of_the_vp_std():
    """std 1 - a^2, not its root; ``g^2 = beta (1 - a^4)``: Song et al. 2021, eq. 13 and 29."""
    for t in TIMES:
        a = VP().scale(t)
        assert SubVP().scale(t) == a
        assert SubVP().std(t) == pytest.approx(1 - a * a, rel=1e-12)
        assert SubVP().std(t) == pytest.approx(VP().std(t) ** 2, rel=1e-12)
        assert SubVP().std(t) <= VP().std(t)
        assert SubVP().diffusion(t) == pytest.approx((0.1 + 19.9 * t) * (1 - a**4), rel=1e-12)
    assert SubVP().diffusion(0.0) == 0.0


def test_cosine_values_and_end():
    """Nichol, Dhariwal 2021, eq. 17; it ends at half log-SNR -5.1, beyond which it refuses."""
    process = Cosine()
    for t in TIMES:
        a = math.cos((t + 0.008) / 1.008 * math.pi / 2) / math.cos(0.008 / 1.008 * math.pi / 2)
        assert process.scale(t) == pytest.approx(a, rel=1e-14)
        assert process.std(t) == pytest.approx(math.sqrt(1 - a * a), rel=1e-9)
    assert process.end == pytest.approx(0.996088, abs=1e-6)
    assert math.log(process.sigma(process.end)) == pytest.approx(5.1, rel=1e-12)
    assert process.time(math.exp(5.1)) == pytest.approx(process.end, rel=1e-14)
    with pytest.raises(ConfigError, match="Cosine was asked for sigma 200"):
        process.time(200.0)


def test_flow_values():
    process = Flow()
    assert (process.scale(0.3), process.std(0.3), process.rates(0.3)) == (0.7, 0.3, (-1.0, 1.0))
    assert process.time(3.0) == 0.75 and process.sigma(1.0) == math.inf
    assert process.diffusion(0.6) == pytest.approx(2 * 0.6 / 0.4, rel=1e-14)


def test_the_ddpm_table():
    """Ho et al. 2020: beta from 1e-4 to .02 in 1000 steps; ``a_n^2`` are the cumulative products."""
    process = Discrete.linear()
    product = 1.0
    for n in range(1000):
        product *= 1 - (1e-4 + n / 999 * (0.02 - 1e-4))
        if n in (0, 1, 17, 500, 999):
            t = (n + 1) / 1000
            assert process.scale(t) ** 2 == pytest.approx(product, rel=1e-12)
            sigma = math.sqrt((1 - product) / product)
            assert process.sigma(t) == pytest.approx(sigma, rel=1e-11)
            assert 1000 * process.time(sigma) - 1 == pytest.approx(n, abs=1e-7)
    assert process.sigma(1.0) == pytest.approx(157.407, rel=1e-5)
    half = (math.log(process.scale(0.3)) + math.log(process.scale(0.301))) / 2
    assert math.log(process.scale(0.3005)) == pytest.approx(half, rel=1e-12)
    with pytest.raises(ConfigError, match="asked for sigma"):
        process.time(200.0)


@pytest.mark.parametrize("table", [(), (1.0, 0.5), (0.9, 0.9), (0.5, 0.6), (0.9, 0.0), (0.9, math.nan)])
def test_tables_that_are_none(table):
    with pytest.raises(ConfigError, match="alphas_cumprod"):
        Discrete(table)


# --- predictors of Score-SDE, in z -------------------------------------------------------------------------


def diagonal(x, sigma):
    c = ANISOTROPIC.covariance.diagonal()
    return ANISOTROPIC.mean + c / (c + sigma**2) * (x - ANISOTROPIC.mean)


def released(predictor: str, process: Process, z, q, t: float, end: float):
    """Mean and standard deviation of Song et al.'s predictors for z, from its score q; f and g of the SDE by hand."""
    a, dt = process.scale(t), t - end
    if isinstance(process, VE):
        drift, variance = 0.0 * z, process.sigma(t) ** 2 - process.sigma(end) ** 2
        g2 = 2 * process.sigma(t) ** 2 * math.log(process.high / process.low)
        f = 0.0
    else:
        beta = 0.1 + 19.9 * t
        f, g2 = -beta / 2, beta * (1 if type(process) is VP else 1 - a**4)
        share = 1 - (a / process.scale(end)) ** 2
        drift, variance = (math.sqrt(1 - share) - 1) * z, share
    if predictor == "euler-maruyama" or type(process) is SubVP:
        drift, variance = f * z * dt, g2 * dt
    if predictor == "ancestral":
        if isinstance(process, VE):
            s, e = process.sigma(t), process.sigma(end)
            return z + (s * s - e * e) * q, math.sqrt(e * e * (s * s - e * e) / (s * s))
        return (z + variance * q) / math.sqrt(1 - variance), math.sqrt(variance)
    if predictor == "flow":
        return z - drift + variance * q / 2, 0.0
    return z - drift + variance * q, math.sqrt(variance)


RELEASED = [
    (name, predictor)
    for name in ("VE", "VP", "sub-VP")
    for predictor in ("reverse-diffusion", "euler-maruyama", "ancestral", "flow")
    if (name, predictor) != ("sub-VP", "ancestral")
]


@pytest.mark.parametrize(("name", "predictor"), RELEASED)
def test_predictors_are_the_released_ones(name, predictor):
    process, x = PROCESSES[name], random(4, 3)
    solver = PredictorCorrector(predictor, corrector=None, process=process)
    for s, t in pairwise(random_levels(7, 3)):
        start, end = process.time(s), process.time(t)
        a, a_next = process.scale(start), process.scale(end)
        q = -(x - diagonal(x, s)) / s / (a * s)
        mean, std = released(predictor, process, a * x, q, start, end)
        step = solver.step(identity_denoiser(diagonal), x, s, t, (), SILENT)
        torch.testing.assert_close(a_next * step.mean, mean, rtol=1e-11, atol=1e-11)
        assert a_next * step.std == pytest.approx(std, rel=1e-10)


@pytest.mark.parametrize("process", [Flow(), Discrete.linear(), Cosine()], ids=["flow", "discrete", "cosine"])
def test_reverse_diffusion_takes_the_chains_own_transition(process: Process):
    """``z_t | z_t'`` has scale ``r = a / a'`` and variance ``s^2 - r^2 s'^2``; the step is ``(2 - r) z + G^2 q + G xi``."""
    x = random(4, 3)
    solver = PredictorCorrector(corrector=None, process=process)
    for s, t in pairwise(random_levels(7, 3)):
        start, end = process.time(s), process.time(t)
        a, a_next = process.scale(start), process.scale(end)
        variance = process.std(start) ** 2 - (a / a_next * process.std(end)) ** 2
        q = -(x - diagonal(x, s)) / s / (a * s)
        step = solver.step(identity_denoiser(diagonal), x, s, t, (), SILENT)
        expected = (2 - a / a_next) * a * x + variance * q
        torch.testing.assert_close(a_next * step.mean, expected, rtol=1e-11, atol=1e-11)
        assert a_next * step.std == pytest.approx(math.sqrt(variance), rel=1e-10)


@pytest.mark.parametrize("options", [{"predictor": "heun"}, {"corrector": "mala"}, {"snr": 0.0}, {"snr": math.nan}, {"corrector_steps": 0}])  # fmt: skip
def test_predictor_corrector_refuses(options):
    with pytest.raises(ConfigError):
        PredictorCorrector(**options)


def test_levels_beyond_the_process_are_refused():
    for solver in (PredictorCorrector(process=Cosine()), FlowRK(process=Cosine())):
        solver.check_levels([100.0, 1.0, 0.0], 1e-7)
        with pytest.raises(ConfigError, match="Its largest"):
            solver.check_levels([300.0, 1.0, 0.0], 1e-7)


# --- Runge-Kutta on a flow, in z ---------------------------------------------------------------------------


def velocity(process: Process, z, t: float):
    """``u = a_dot D + s_dot e``."""
    x, (a_rate, s_rate) = z / process.scale(t), process.rates(t)
    D = diagonal(x, process.sigma(t))
    return a_rate * D + s_rate * (x - D) / process.sigma(t)


def runge_kutta(method: str, u, z, t: float, dt: float):
    one = u(z, t)
    if method == "euler":
        return z + dt * one
    if method == "midpoint":
        return z + dt * u(z + dt / 2 * one, t + dt / 2)
    if method == "heun":
        return z + dt / 2 * (one + u(z + dt * one, t + dt))
    two = u(z + dt / 2 * one, t + dt / 2)
    three = u(z + dt / 2 * two, t + dt / 2)
    return z + dt / 6 * (one + 2 * two + 2 * three + u(z + dt * three, t + dt))


@pytest.mark.parametrize("method", ["euler", "midpoint", "heun", "rk4"])
@pytest.mark.parametrize("name", ["VP", "sub-VP", "cosine", "flow", "VE"])
def test_flow_steps_are_runge_kutta_on_the_velocity(name, method):
    process, x = PROCESSES[name], random(4, 3)
    for s, t in pairwise(random_levels(9, 6)):
        start, end = process.time(s), process.time(t)
        z = runge_kutta(
            method, lambda z, t: velocity(process, z, t), process.scale(start) * x, start, end - start
        )
        step = FlowRK(method, process=process).step(identity_denoiser(diagonal), x, s, t, (), SILENT)
        torch.testing.assert_close(process.scale(end) * step.mean, z, rtol=1e-11, atol=1e-11)
        assert step.std == 0.0 and step.past == ()


def test_flow_euler_is_euler():
    see, x = identity_denoiser(diagonal), random(4, 3)
    for s, t in pairwise([*random_levels(9, 6, top=80.0), 0.0]):
        step, euler = (solver.step(see, x, s, t, (), SILENT) for solver in (FlowRK(), Euler()))
        torch.testing.assert_close(step.mean, euler.mean, rtol=0, atol=1e-12)


def test_flow_refuses_an_unknown_method():
    with pytest.raises(ConfigError, match="euler, midpoint, heun, rk4"):
        FlowRK("dopri5")
