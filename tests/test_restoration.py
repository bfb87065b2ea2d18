"""Restoration processes as priors: tables, released updates, starts, and every solver on the recentred state."""

from __future__ import annotations

import math
from itertools import accumulate, pairwise

import pytest
import torch
from worlds import Matrix, affine_walk, identity_denoiser, last, random, random_complex, slopes

import operators as op
import recon
from recon import grids
from recon.errors import ConfigError
from recon.noise import Noise
from recon.posteriors import Posterior
from recon.processes import Process
from recon.restoration import RDDM, MeanReverting, Resfusion, ResShift, RestorationPrior
from recon.restoration.base import LIMIT
from recon.solvers import DDIM, DEIS, SOLVERS, Ancestral, Euler, MRSampler
from recon.walk import walk

PROCESSES = {
    "ir-sde": MeanReverting(),
    "ir-sde, linear": MeanReverting("linear", sigma_inf=10 / 255),
    "ir-sde, constant": MeanReverting("constant", timesteps=20, sigma_inf=1.0),  # its end is beyond e^5
    "resshift": ResShift(),
    "resshift, 4 steps": ResShift(timesteps=4, low=0.2),
    "rddm": RDDM(),
    "rddm, 10 labels": RDDM(timesteps=10, total=1.0),
    "resfusion": Resfusion(),
    "resfusion, 1000": Resfusion(1000),
}
FOUR = {name: PROCESSES[name] for name in ("ir-sde", "resshift", "rddm", "resfusion")}
all_processes = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
four_processes = pytest.mark.parametrize("process", FOUR.values(), ids=FOUR)

MEAN = torch.tensor([0.3, -0.7, 1.1], dtype=torch.float64)
VARIANCE = torch.tensor([0.04, 0.5, 2.0], dtype=torch.float64)
Y = torch.tensor([[0.6, -1.5, 0.2]], dtype=torch.float64)


def exact(process, predicts: str = "noise", mean=MEAN, variance=VARIANCE):
    """The network that E[x0 | z, y] makes of ``x0 | y ~ N(mean, variance)``, by regression on z."""

    def network(z, y, label):
        t = float(label[0]) + 1 - process.first
        a, b, s = process.scale(t), process.anchor(t), process.std(t)
        misfit = (z - b * y - a * mean) / (a * a * variance + s * s)
        x0, e = mean + a * variance * misfit, s * misfit
        if predicts == "pair":
            return y - x0, e
        if predicts == "velocity":
            return a * process.sigma_inf * e - s / process.sigma_inf * (x0 - y)
        if predicts == "resnoise":
            alpha = ((1 - process.level(t)) / (1 - process.level(max(t - 1, 0.0)))) ** 2
            return e + (1 - math.sqrt(alpha)) * s / (1 - alpha) * (y - x0)
        return {"data": x0, "noise": e, "residual": y - x0}[predicts]

    return network


def denoiser(x, sigma, mean=MEAN, variance=VARIANCE):
    return mean + variance / (variance + sigma**2) * (x - mean)


def flow(x, sigma, target, mean=MEAN, variance=VARIANCE):
    return mean + ((variance + target**2) / (variance + sigma**2)).sqrt() * (x - mean)


def silent(like, stream="step"):
    return torch.zeros_like(like)


# --- processes ---------------------------------------------------------------------------------------------


def released(process) -> tuple[list[float], list[float], list[float]]:
    """(a, b, s) at t = 0, 1, ..., end, by the released tables, with their loops."""
    if isinstance(process, MeanReverting):
        n = process.timesteps
        if process.schedule == "cosine":
            x = torch.linspace(0, n + 2, n + 3, dtype=torch.float64)
            kept = torch.cos((x / (n + 2) + 0.008) / 1.008 * math.pi * 0.5) ** 2
            thetas = 1 - (kept / kept[0])[1:-1]
        elif process.schedule == "linear":
            scale = 1000 / (n + 1)
            thetas = torch.linspace(scale * 0.0001, scale * 0.02, n + 1, dtype=torch.float64)
        else:
            thetas = torch.ones(n + 1, dtype=torch.float64)
        summed = torch.cumsum(thetas, 0) - thetas[0]
        dt = -math.log(process.eps) / summed[-1]
        a = torch.exp(-summed * dt)
        return a, 1 - a, process.sigma_inf * torch.sqrt(1 - torch.exp(-2 * summed * dt))
    if isinstance(process, ResShift):
        n = process.timesteps
        first = min(process.low / process.kappa, process.low)
        increaser = math.exp(1 / (n - 1) * math.log(process.high / first))
        power = torch.linspace(0, 1, n, dtype=torch.float64) ** process.power * (n - 1)
        root = torch.cat([torch.zeros(1, dtype=torch.float64), increaser**power * first])
        return 1 - root**2, root**2, process.kappa * root
    if isinstance(process, RDDM):
        n = process.timesteps
        x = torch.arange(1, n + 1, dtype=torch.float64)
        abar = torch.cat([torch.zeros(1, dtype=torch.float64), (x.flip(0) / x.sum()).cumsum(0)])
        bbar2 = torch.cat([torch.zeros(1, dtype=torch.float64), (x / x.sum() * process.total).cumsum(0)])
        return 1 - abar, abar, bbar2.sqrt()
    n = process.timesteps
    betas = [1000 / n * (1e-4 + i / (n - 1) * (0.02 - 1e-4)) for i in range(n)]
    roots = [math.sqrt(v) for v in accumulate((1 - b for b in betas), lambda p, q: p * q) if v > 0]
    below = next(i for i, r in enumerate(roots) if r <= 0.5)
    if 0.5 - roots[below] > 0.01:
        roots = [*roots[:below], 0.5]
    end = min(range(len(roots)), key=lambda i: abs(roots[i] - 0.5)) + 1
    r = torch.tensor([1.0, *roots[:end]], dtype=torch.float64)
    return 2 * r - 1, 1 - r, (1 - r**2).sqrt()


@all_processes
def test_the_tables_are_the_released_ones(process):
    a, b, s = released(process)
    assert process.end == len(a) - 1
    for t in range(len(a)):
        found = (process.scale(t), process.anchor(t), process.std(t))
        assert found == pytest.approx((float(a[t]), float(b[t]), float(s[t])), rel=1e-12, abs=1e-12)


def test_labels_and_defaults():
    assert MeanReverting().label(100) == 100 and MeanReverting().label(1) == 1  # 1 to T
    assert RDDM().label(1000) == 999 and RDDM().label(1) == 0  # 0 to T - 1
    assert RDDM().label(0.4) == 0 and RDDM().label(2.5) == 1.5  # none below the first
    assert MeanReverting().scale(100) == pytest.approx(0.005, rel=1e-12)
    assert Resfusion().end == 5 and Resfusion().scale(5) == 0.0
    assert RDDM().scale(1000) == 0.0 and RDDM().std(1000) == pytest.approx(0.1)
    assert ResShift().level(15) == pytest.approx(0.99) and ResShift().level(1) == pytest.approx(0.02)


@all_processes
def test_time_and_sigma_are_inverse_and_the_rates_right(process: Process):
    grid = [process.end * (k + 1 / math.e) / 97 for k in range(97)]
    levels = [process.sigma(t) for t in grid]
    assert all(low < high for low, high in pairwise(levels))
    for t, sigma in zip(grid, levels, strict=True):
        assert process.time(sigma) == pytest.approx(t, abs=1e-10 * process.end)
        if sigma < LIMIT:
            h = 1e-5 * t
            for f, rate in zip((process.scale, process.std), process.rates(t), strict=True):
                assert (f(t + h) - f(t - h)) / (2 * h) == pytest.approx(rate, rel=1e-5)
    assert process.time(0.0) == pytest.approx(0.0, abs=1e-12)


def test_beyond_its_end_a_process_refuses():
    with pytest.raises(ConfigError, match="asked for sigma"):
        MeanReverting().time(40.0)
    assert MeanReverting().time(MeanReverting().sigma(100) * (1 + 1e-12)) == 100.0


@pytest.mark.parametrize(
    "make",
    [
        lambda: MeanReverting("cos"),
        lambda: MeanReverting(eps=0.0),
        lambda: ResShift(timesteps=1),
        lambda: ResShift(high=1.0),
        lambda: RDDM(total=0.0),
        lambda: Resfusion(3),
        lambda: RDDM(timesteps=10).levels(11),
    ],
)
def test_processes_that_are_refused(make):
    with pytest.raises(ConfigError):
        make()


def test_their_own_grids():
    assert MeanReverting().levels(100) == [MeanReverting().sigma(t) for t in range(100, -1, -1)]
    assert RDDM().levels(5) == [RDDM().sigma(t) for t in (800, 600, 400, 200, 0)]  # the start made the first
    assert Resfusion().levels(5) == [Resfusion().sigma(t) for t in (4, 3, 2, 1, 0)]


# --- released one-step updates, in z ------------------------------------------------------------------------


def stepped(process, solver, z, y, D, t: int, target: int):
    """Mean and std in z of our step between two labels, D given."""
    x, s = (z - process.anchor(t) * y) / process.scale(t), process.sigma(t)
    step = solver.step(identity_denoiser(lambda *_: D), x, s, process.sigma(target), (), silent)
    a = process.scale(target)
    return a * step.mean + process.anchor(target) * y, a * step.std


def irsde(process, z, y, D, t, _, eta):
    a, _, s = released(process)
    A, B, C = a[t] / a[t - 1], a[t], a[t - 1]
    if eta == 0:
        return C * D + (1 - C) * y + s[t - 1] * (z - (1 - B) * y - B * D) / s[t], 0.0
    mean = A * (1 - C**2) / (1 - B**2) * (z - y) + C * (1 - A**2) / (1 - B**2) * (D - y) + y
    return mean, process.sigma_inf * torch.sqrt((1 - A**2) * (1 - C**2) / (1 - B**2))


def resshift(process, z, y, D, t, _, eta):
    _, b, s = released(process)
    if eta == 0:
        e = (z - (1 - b[t]) * D - b[t] * y) / s[t]
        return (1 - b[t - 1]) * D + b[t - 1] * y + s[t - 1] * e, 0.0
    mean = b[t - 1] / b[t] * z + (b[t] - b[t - 1]) / b[t] * D
    return mean, process.kappa * torch.sqrt(b[t - 1] / b[t] * (b[t] - b[t - 1]))


def rddm(process, z, y, D, t, target, eta):
    _, b, s = released(process)
    residual = y - D
    noise = (z - D - b[t] * residual) / s[t]
    q2 = eta * (s[t] ** 2 - s[target] ** 2) * s[target] ** 2 / s[t] ** 2
    mean = z - (b[t] - b[target]) * residual - (s[t] - torch.sqrt(s[target] ** 2 - q2)) * noise
    return mean, math.sqrt(q2)


def resfusion(process, z, y, D, t, _, eta):
    _, b, _ = released(process)
    hat, hat_next = (1 - b[t]) ** 2, (1 - b[t - 1]) ** 2
    alpha, residual = hat / hat_next, y - D
    std = torch.sqrt((1 - hat_next) / (1 - hat) * (1 - alpha))
    mean = torch.sqrt(alpha) * (1 - hat_next) * (z - residual)
    mean = (mean + torch.sqrt(hat_next) * (1 - alpha) * (D - residual)) / (1 - hat) + residual
    return mean, std


@pytest.mark.parametrize(
    "process, update, eta, pairs",
    [
        ("ir-sde", irsde, 1.0, [(100, 99), (50, 49), (2, 1)]),
        ("ir-sde", irsde, 0.0, [(100, 99), (50, 49), (2, 1)]),
        ("ir-sde, linear", irsde, 1.0, [(100, 99), (50, 49), (2, 1)]),
        ("resshift", resshift, 1.0, [(15, 14), (8, 7), (2, 1)]),
        ("resshift", resshift, 0.0, [(15, 14), (8, 7), (2, 1)]),
        ("resshift, 4 steps", resshift, 1.0, [(4, 3), (2, 1)]),
        ("rddm", rddm, 1.0, [(999, 998), (800, 600), (2, 1)]),
        ("rddm", rddm, 0.3, [(999, 998), (800, 600), (2, 1)]),
        ("rddm", rddm, 0.0, [(999, 998), (800, 600), (2, 1)]),
        ("rddm, 10 labels", rddm, 0.3, [(9, 6), (6, 1)]),
        ("resfusion", resfusion, 1.0, [(4, 3), (3, 2), (2, 1)]),
        ("resfusion, 1000", resfusion, 1.0, [(367, 366), (100, 99), (2, 1)]),
    ],
)
def test_released_updates_are_our_kernel(process, update, eta, pairs):
    """RDDM's eta multiplies the variance, ours the standard deviation."""
    process = PROCESSES[process]
    z, y, D = random(4, 3, seed=1), random(4, 3, seed=2), random(4, 3, seed=3)
    for t, target in pairs:
        solver = Ancestral(eta=math.sqrt(eta), process=process) if eta else DDIM()
        mean, std = stepped(process, solver, z, y, D, t, target)
        expected, noise = update(process, z, y, D, t, target, eta)
        torch.testing.assert_close(mean, expected, rtol=1e-12, atol=1e-12)
        assert std == pytest.approx(float(noise), rel=1e-12, abs=1e-14)


def test_a_resnoise_network_takes_the_released_step():
    """Resfusion's formula 33: ``z' = (z - beta / sqrt(1 - abar) n) / sqrt(alpha)``, of the network's own output."""
    process = PROCESSES["resfusion"]
    z, y, n = random(4, 3, seed=1), random(4, 3, seed=2), random(4, 3, seed=3)
    prior = RestorationPrior(lambda *_: n, process, y, "resnoise")
    for t in (4, 3, 2):
        hat, hat_next = (1 - process.anchor(t)) ** 2, (1 - process.anchor(t - 1)) ** 2
        alpha = hat / hat_next
        D = prior((z - process.anchor(t) * y) / process.scale(t), process.sigma(t))
        mean, _ = stepped(process, Ancestral(process=process), z, y, D, t, t - 1)
        expected = (z - (1 - alpha) / math.sqrt(1 - hat) * n) / math.sqrt(alpha)
        torch.testing.assert_close(mean, expected, rtol=1e-12, atol=1e-12)
    s, r = process.std(1), 1 - process.anchor(1)  # and the last one, to D
    D = prior((z - process.anchor(1) * y) / process.scale(1), process.sigma(1))
    torch.testing.assert_close(D, (z - s * n) / r, rtol=1e-12, atol=1e-12)


# --- the prior ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "process, predicts",
    [pytest.param(p, k, id=f"{name}, {k}") for name, p in PROCESSES.items() for k in p.kinds],
)
def test_every_prediction_gives_the_same_denoiser(process, predicts):
    prior = RestorationPrior(exact(process, predicts), process, Y, predicts)
    x = random(4, 3, seed=5)
    for t in (1.0, 1.7, 0.3 * process.end, 0.8 * process.end - 0.01):
        sigma = process.sigma(t)
        torch.testing.assert_close(prior(x, sigma), denoiser(x, sigma), rtol=1e-10, atol=1e-10)


@four_processes
def test_complex_images_and_gradients(process):
    y, mean = random_complex(2, 3, seed=1), random_complex(3, seed=2)
    prior = RestorationPrior(exact(process, "data", mean), process, y, "data", data_var=0.5)
    x = random_complex(6, 3, seed=3).requires_grad_()
    clean = prior(x, 1.3)
    torch.testing.assert_close(clean, denoiser(x, 1.3, mean), rtol=1e-10, atol=1e-10)
    (slope,) = torch.autograd.grad(torch.view_as_real(clean).sum(), x)
    torch.testing.assert_close(slope, ((1 + 1j) * VARIANCE / (VARIANCE + 1.3**2)).expand(6, 3))
    assert prior.data_var == 0.5 and not hasattr(RestorationPrior(None, process, y), "data_var")


def test_rows_meet_their_own_image():
    """Image-major rows, also when few fit through the network at a time."""
    y, seen = random(3, 2, seed=4), []

    def network(z, y, label):
        seen.append((len(z), label.dtype, float(label[0])))
        return y

    for chunk in (None, 4):
        prior = RestorationPrior(network, MeanReverting(), y, "data", chunk=chunk)
        assert torch.equal(prior(random(9, 2), 1.0), y.repeat_interleave(3, 0))
    assert [rows for rows, _, _ in seen] == [9, 4, 4, 1]
    t = MeanReverting().time(1.0)
    RestorationPrior(network, MeanReverting(), y, "data", labels="nearest")(random(3, 2), 1.0)
    assert seen[0] == (9, torch.float64, pytest.approx(t)) and seen[-1] == (3, torch.int64, round(t))


def test_wrong_shapes_and_settings_are_refused():
    y, process = random(2, 3), MeanReverting()
    prior = RestorationPrior(exact(process), process, y)
    for x in (random(3, 3), random(2, 4), random(2, 1, 3)):
        with pytest.raises(ConfigError, match="The state is"):
            prior(x, 1.0)
        with pytest.raises(ConfigError, match="The state is"):
            prior.start(x)
    with pytest.raises(ConfigError, match="The state is"):
        RestorationPrior(exact(process), process, random_complex(2, 3))(random(2, 3), 1.0)
    for wrong in (lambda z, y, label: z[:1], lambda z, y, label: (z, z)):
        with pytest.raises(ConfigError, match="a tensor of that shape"):
            RestorationPrior(wrong, process, y)(y, 1.0)
    with pytest.raises(ConfigError, match="two tensors"):
        RestorationPrior(lambda z, y, label: (z,), process, y, "pair")(y, 1.0)
    for options in ({"predicts": "resnoise"}, {"predicts": "x0"}, {"labels": "some"}, {"chunk": 0}):
        with pytest.raises(ConfigError):
            RestorationPrior(exact(process), process, y, **options)
    with pytest.raises(ConfigError, match="velocity"):  # named among what a MeanReverting network predicts
        RestorationPrior(exact(process), process, y, "x0")


# --- starts ------------------------------------------------------------------------------------------------


@all_processes
def test_the_start_is_the_degraded_image_plus_noise(process):
    """In z as in their table: y, or sqrt(abar) y, plus the noise of the end."""
    noise = random(4, 3, seed=6)
    prior = RestorationPrior(exact(process, "data"), process, Y, "data")
    x, sigma = prior.start(noise)
    end = process.end
    assert sigma == prior.sigma_max == min(process.sigma(end), LIMIT)
    strength = process.sigma_inf if isinstance(process, MeanReverting) else process.std(end)
    z = (process.scale(end) + process.anchor(end)) * Y + strength * noise
    if process.sigma(end) <= LIMIT:
        own = process.scale(end) * x + process.anchor(end) * Y
        torch.testing.assert_close(own, z, rtol=1e-12, atol=1e-12)
    else:  # the data-form step from there
        D = exact(process, "data")(z, Y, torch.tensor([process.label(end)], dtype=torch.float64))
        e = (z - process.anchor(end) * Y - process.scale(end) * D) / process.std(end)
        torch.testing.assert_close(x, D + sigma * e, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("predicts", ["data", "residual", "pair", "noise"])
def test_a_start_without_x_is_exact_for_a_point_mass(predicts):
    """x0 known: the first step lands on ``x0 + sigma noise``, at any level; one call, none for a noise network."""
    for process in (RDDM(), RDDM(timesteps=10), Resfusion()):
        network = exact(process, predicts, variance=torch.zeros(3, dtype=torch.float64))
        prior, noise, calls = RestorationPrior(network, process, Y, predicts), random(4, 3, seed=7), []
        for sigma in (None, 3.0, process.sigma(1)):

            def asked(x, level, calls=calls, prior=prior):
                calls.append(level)
                return prior(x, level)

            x, landed = prior.start(noise, sigma, asked)
            assert landed == (sigma or LIMIT)
            centre = Y if predicts == "noise" else MEAN  # what a noise network cannot say
            torch.testing.assert_close(x, centre + landed * noise, rtol=1e-12, atol=1e-10)
        assert calls == ([] if predicts == "noise" else [math.inf] * 3)


def test_levels_that_a_walk_cannot_begin_at():
    direct = RestorationPrior(exact(ResShift()), ResShift(), Y)
    for sigma in (3.0, 2 * direct.sigma_max):
        with pytest.raises(ConfigError, match="The walk begins at"):
            direct.start(random(2, 3), sigma)
    with pytest.raises(ConfigError, match="The walk begins at"):
        RestorationPrior(exact(RDDM(), "data"), RDDM(), Y, "data").start(random(2, 3), 200.0)


# --- MR Sampler --------------------------------------------------------------------------------------------


def explicit_mu(process, network, mu, kind, form, nodes, levels, x, noises):
    """Section by section as released: coefficients in the full state, with the terms in mu. Full state in and out."""
    memory: list[tuple[torch.Tensor, float]] = []
    ratio = [(1 / math.sqrt(1 + (v / process.sigma_inf) ** 2), v) for v in levels]
    points = [(a, a * v, -math.log(v)) for a, v in ratio]
    for index, ((a, s, lam), (a1, s1, lam1)) in enumerate(pairwise(points)):
        label = torch.full((len(x),), process.time(s / a), dtype=torch.float64)
        e = network(x, mu, label)
        model = e if form == "noise" else (x - (1 - a) * mu - s * e) / a
        memory.insert(0, (model, lam))
        used, h = memory[: min(nodes, len(memory))], lam1 - lam
        D0 = used[0][0]
        D1 = D2 = torch.zeros_like(D0)
        if len(used) > 1:
            r0 = (lam - used[1][1]) / h
            D1 = d0 = (D0 - used[1][0]) / r0
            if len(used) > 2:
                r1 = (used[1][1] - used[2][1]) / h
                d1 = (used[1][0] - used[2][0]) / r1
                D1, D2 = d0 + r0 / (r0 + r1) * (d0 - d1), (d0 - d1) / (r0 + r1)
        if form == "noise":
            p1 = math.expm1(h)
            p2, p3 = p1 / h - 1, (p1 / h - 1) / h - 0.5
            step = p1 * D0 + p2 * D1 + p3 * D2
            x = a1 / a * x - (2 if kind == "sde" else 1) * s1 * step + mu * (1 - a1 / a)
            if kind == "sde":
                x = x + s1 * math.sqrt(math.expm1(2 * h)) * noises[index]
        elif kind == "ode":
            p1 = math.expm1(-h)
            p2 = p1 / h + 1
            x = s1 / s * x - a1 * (p1 * D0 - p2 * D1 + (p2 / h - 0.5) * D2)
            x = x + mu * (1 - s1 / s + s1 / s * a - a1)
        else:
            p1 = -math.expm1(-2 * h)
            x = s1 / s * math.exp(-h) * x + a1 * p1 * D0 + a1 * (1 - p1 / (2 * h)) * D1
            x = x + s1 * math.sqrt(p1) * noises[index]
            x = x + mu * (1 - a1 / a * math.exp(-2 * h) - a1 * p1)
    return x


@pytest.mark.parametrize("predicts", ["noise", "velocity"])
@pytest.mark.parametrize(
    "kind, form, nodes",
    [(k, f, n) for k, f in (("ode", "data"), ("ode", "noise")) for n in (1, 2, 3)]
    + [(k, f, n) for k, f in (("sde", "data"), ("sde", "noise")) for n in (1, 2)],
)
def test_terms_in_mu_are_the_recentred_state(kind, form, nodes, predicts):
    process, mu = MeanReverting(sigma_inf=0.7), random(5, 3, seed=1)
    levels = [60.0, 31.0, 14.0, 6.5, 2.1, 0.9, 0.2, 0.05]
    prior = RestorationPrior(exact(process, predicts), process, mu, predicts)
    solver = MRSampler(kind, form, nodes, "official")
    x, noise = random(5, 3, seed=2), Noise(0, range(5))
    draws = [noise.at(i)(x) for i in range(len(levels) - 1)]
    a, a_end = (1 / math.sqrt(1 + (v / process.sigma_inf) ** 2) for v in (levels[0], levels[-1]))
    recentred = last(walk(Posterior(prior), solver, levels, (x - (1 - a) * mu) / a, noise)).x
    full = explicit_mu(process, exact(process), mu, kind, form, nodes, levels, x, draws)
    torch.testing.assert_close(a_end * recentred + (1 - a_end) * mu, full, rtol=1e-12, atol=1e-12)


OU = MeanReverting(sigma_inf=0.7)


def lam_levels(steps: int, top: float = 58.0, bottom: float = 0.17) -> list[float]:
    return [top * (bottom / top) ** (i / steps) for i in range(steps + 1)]


@pytest.mark.parametrize("predicts", ["noise", "velocity"])
@pytest.mark.parametrize(
    "form, nodes, rule, order, bound",
    [
        ("data", 1, "exact", 1, 2e-2),
        ("noise", 1, "exact", 1, 2e-2),
        ("data", 2, "exact", 2, 3e-4),
        ("noise", 2, "exact", 2, 3e-4),
        ("data", 3, "exact", 3, 3e-6),
        ("noise", 3, "exact", 3, 3e-6),
        ("data", 3, "official", 2, 1e-4),
        ("noise", 3, "official", 2, 1e-4),
    ],
)
def test_mr_sampler_on_the_ornstein_uhlenbeck_process(form, nodes, rule, order, bound, predicts):
    """Gaussian x0, exact network, history primed: error against the closed-form flow."""
    see = identity_denoiser(RestorationPrior(exact(OU, predicts), OU, Y, predicts))
    errors = []
    for n in (32, 64, 128, 256):
        grid, solver, past = lam_levels(n), MRSampler("ode", form, nodes, rule), ()
        spread = (VARIANCE + grid[0] ** 2).sqrt()
        x = start = MEAN + torch.arange(-2.0, 3.0, dtype=torch.float64)[:, None] * spread
        for index, (s, t) in enumerate(pairwise(grid)):
            if index < nodes:
                x = flow(start, grid[0], s)
            step = solver.step(see, x, s, t, past, silent)
            x, past = step.mean, step.past
        errors.append(float((x - flow(start, grid[0], grid[-1])).abs().max()))
    assert solver.order == order
    assert order - 0.15 <= slopes(errors)[-1] <= order + 0.35, errors
    assert errors[-1] <= bound, errors


@pytest.mark.parametrize(
    "form, nodes, order, bound",
    [
        ("data", 1, 1, 6e-2),
        ("data", 2, 2, 2e-3),
        ("data", 3, 2, 5e-4),
        ("noise", 1, 1, 2.5e-3),
        ("noise", 2, 2, 6e-4),
    ],
)
def test_mr_sampler_has_the_law_of_the_ornstein_uhlenbeck_process(form, nodes, order, bound):
    """Reverse SDE: mean and covariance by the exact affine map of the walk, from the exact marginal."""
    prior = RestorationPrior(exact(OU), OU, Y)
    errors = []
    for n in (32, 64, 128, 256):
        grid = lam_levels(n)
        law = affine_walk(Posterior(prior), MRSampler("sde", form, nodes), grid, (3,))
        mean, covariance = law.moments(MEAN, (VARIANCE + grid[0] ** 2).diag())
        torch.testing.assert_close(mean, MEAN, rtol=0, atol=1e-10)
        errors.append(float((covariance.diagonal() - VARIANCE - grid[-1] ** 2).abs().max()))
    assert order - 0.15 <= slopes(errors)[-1] <= order + 0.35, errors
    assert errors[-1] <= bound, errors


@pytest.mark.parametrize("nodes", [1, 2, 3])
@pytest.mark.parametrize("kind", ["sde", "ode"])
def test_a_point_mass_is_found_on_any_grid(kind, nodes):
    point = torch.zeros(3, dtype=torch.float64)
    for process in FOUR.values():
        prior = RestorationPrior(exact(process, "data", variance=point), process, Y, "data")
        x, levels = random(4, 3, seed=8), [39.0, 3.0, 0.4, 0.0]
        end = last(walk(Posterior(prior), MRSampler(kind, nodes=nodes), levels, x, Noise(0, range(4)))).x
        torch.testing.assert_close(end, MEAN.expand(4, 3), rtol=0, atol=1e-12)


def test_settings_of_mr_sampler():
    assert MRSampler().stochastic and MRSampler().order == 2 and not MRSampler("ode").stochastic
    for options in ({"kind": "pde"}, {"form": "velocity"}, {"rule": "midpoint"}, {"nodes": 4}, {"nodes": 0}):
        with pytest.raises(ConfigError):
            MRSampler(**options)


# --- through recon.sample ----------------------------------------------------------------------------------

IDENTITY = recon.Problem(op.Identity((3,)), Y.repeat(2, 1), 0.1)
BOTH = Y.repeat(2, 1)


def begun(process, noise, top: float, y=BOTH, samples: int = 1):
    """Where a walk begins, by hand: x at ``top`` for the exact network."""
    y, end = y.repeat_interleave(samples, 0), process.end
    if process.sigma(end) <= LIMIT:
        strength = process.sigma_inf if isinstance(process, MeanReverting) else process.std(end)
        return y + strength / process.scale(end) * noise
    z = (process.scale(end) + process.anchor(end)) * y + process.std(end) * noise
    a, s = process.scale(end), process.std(end)
    rest = z - process.anchor(end) * y
    D = MEAN + a * VARIANCE / (a * a * VARIANCE + s * s) * (rest - a * MEAN)
    return D + top * (rest - a * D) / s


@four_processes
@pytest.mark.parametrize("solver", ["unipc2", "dpm++2m", "deis-t2", "heun", "euler", "mrs ode", "own clock"])
def test_solvers_restore(process, solver):
    """The degraded image plus noise is carried along the exact flow, whatever the solver."""
    predicts = "pair" if isinstance(process, RDDM) else "data"
    prior = RestorationPrior(exact(process, predicts), process, BOTH, predicts)
    others = {"mrs ode": MRSampler("ode"), "own clock": DEIS(process=process)}
    method, steps = others[solver] if solver in others else SOLVERS[solver](), 60
    result = recon.sample(IDENTITY, prior, "prior", method, steps, samples=3, seed=4, grid="exponential")
    noise = Noise(4, (0, 1), 3)(torch.zeros(6, 3, dtype=torch.float64), -1, "start")
    x = begun(process, noise, prior.sigma_max, samples=3)
    expected = denoiser(flow(x, prior.sigma_max, prior.sigma_min), prior.sigma_min)
    bound = 0.15 if solver == "euler" else 0.015
    assert float((result.samples.flatten(0, 1) - expected).abs().max()) < bound
    started = 0 if process.sigma(process.end) <= LIMIT else 1
    walked = 2 * steps - 1 if solver == "heun" else steps
    assert result.network_calls == walked + started


@four_processes
@pytest.mark.parametrize("solver", ["sde-dpm++2m", "mrs", "ancestral"])
def test_stochastic_solvers_restore(process, solver):
    """Mean and variance of the answer, from the degraded image, by the walk's exact affine map and by 400 samples."""
    predicts = "pair" if isinstance(process, RDDM) else "data"
    prior = RestorationPrior(exact(process, predicts), process, Y, predicts)
    method = Ancestral(process=process) if solver == "ancestral" else SOLVERS[solver]()
    grid = grids.exponential(60, prior.sigma_max, prior.sigma_min)
    law = affine_walk(Posterior(prior), method, grid, (3,))
    zero = begun(process, torch.zeros(1, 3, dtype=torch.float64), grid[0], Y)[0]
    gains = torch.stack([begun(process, row[None], grid[0], Y)[0] - zero for row in torch.eye(3).double()])
    mean, covariance = law.moments(zero, gains.T @ gains)
    # from y + top noise the reverse SDE forgets all but v / (v + top^2) of y - m; ResShift's kernel, less
    forgotten = MEAN + VARIANCE / (VARIANCE + grid[0] ** 2) * (zero - MEAN)
    torch.testing.assert_close(mean, forgotten, rtol=0, atol=0.01 if solver == "ancestral" else 1e-10)
    denoised = VARIANCE**2 / (VARIANCE + grid[-2] ** 2)  # the last step is to D
    bound = 0.2 if solver == "ancestral" else 0.05
    torch.testing.assert_close(covariance.diagonal(), denoised, rtol=bound, atol=0)
    n = 400
    problem = recon.Problem(op.Identity((3,)), Y, 0.1)
    found = recon.sample(problem, prior, "prior", method, 60, samples=n, grid="exponential").samples[0]
    spread = covariance.diagonal()
    assert bool(((found.mean(0) - mean).abs() < 4 * (spread / n).sqrt()).all())
    assert bool(((found.var(0) / spread - 1).abs() < 4 * math.sqrt(2 / n)).all())


def test_the_released_walks():
    """On the model's own labels: as many calls as labels asked for, the one of the start among them."""
    for process, solver, steps in (
        (RDDM(), Euler(), 5),
        (Resfusion(), Ancestral(process=Resfusion()), 5),
        (ResShift(), Ancestral(process=ResShift()), 15),
        (MeanReverting(), Ancestral(process=MeanReverting()), 100),
    ):
        asked = []
        network = exact(process, "data")

        def listening(z, y, label, network=network, asked=asked):
            asked.append(float(label[0]) if label.dtype.is_floating_point else int(label[0]))
            return network(z, y, label)

        prior = RestorationPrior(listening, process, Y, "data", labels="nearest")
        problem = recon.Problem(op.Identity((3,)), Y, 0.1)
        result = recon.sample(problem, prior, "prior", solver, samples=2, grid=prior.levels(steps))
        assert result.network_calls == steps == len(asked)
        assert asked == [round(process.end * k / steps) - 1 + process.first for k in range(steps, 0, -1)]


def test_rddm_in_five_steps_by_hand():
    """The whole released ddim walk, eta = 0, from the same noise."""
    process, steps = RDDM(), 5
    prior = RestorationPrior(exact(process, "pair"), process, Y, "pair")
    problem = recon.Problem(op.Identity((3,)), Y, 0.1)
    result = recon.sample(problem, prior, "prior", "euler", samples=1, grid=prior.levels(steps), seed=9)
    noise = Noise(9, (0,), 1)(torch.zeros(1, 3, dtype=torch.float64), -1, "start")
    _, b, s = released(process)
    z = Y + 0.1 * noise
    for t, target in pairwise(range(1000, -1, -200)):
        residual, e = exact(process, "pair")(z, Y, torch.tensor([t - 1.0], dtype=torch.float64))
        if target == 0:
            z = z - b[t] * residual - s[t] * e
        else:
            z = z - (b[t] - b[target]) * residual - (s[t] - s[target]) * e
    torch.testing.assert_close(result.samples[0], z, rtol=1e-10, atol=1e-10)


def test_a_prior_for_other_images_is_refused():
    """Also where the number of rows would allow it."""
    prior = RestorationPrior(exact(RDDM(), "data"), RDDM(), random(3, 3), "data")
    for batch in (1, 2, 6):
        problem = recon.Problem(op.Identity((3,)), random(batch, 3), 0.1)
        with pytest.raises(ConfigError, match="restores 3 degraded images"):
            recon.sample(problem, prior, "prior", samples=3)


def test_data_consistency_on_top():
    """A restoration model as the prior of DDS: the exact posterior of the isotropic Gaussian it knows."""
    process, v = Resfusion(), 0.5
    variance = torch.full((3,), v, dtype=torch.float64)
    A, n = Matrix(random(2, 3, seed=8)), 400
    y = random(1, 2, seed=9)
    prior = RestorationPrior(exact(process, "data", variance=variance), process, Y, "data", data_var=v)
    sampler = recon.POSTERIORS["dds"](prior, keep="state", steps=8, tol=0.0)
    found = recon.sample(recon.Problem(A, y, 0.3), prior, sampler, "mrs", 60, n, grid="exponential").samples[
        0
    ]
    precision = torch.eye(3, dtype=torch.float64) / v + A.matrix.T @ A.matrix / 0.09
    covariance = torch.linalg.inv(precision)
    mean = covariance @ (MEAN / v + A.matrix.T @ y[0] / 0.09)
    spread = covariance.diagonal()
    assert bool(((found.mean(0) - mean).abs() < 4 * (spread / n).sqrt()).all())
    assert bool(((found.var(0) / spread - 1).abs() < 4 * math.sqrt(2 / n) + 0.02).all())


def test_a_warm_start_of_ones_own_goes_before_the_priors():
    process = ResShift()
    prior = RestorationPrior(exact(process, "data"), process, BOTH, "data")
    still = RestorationPrior(lambda z, y, label: y, process, BOTH, "data")
    init = random(2, 3, seed=3)
    result = recon.sample(IDENTITY, still, "prior", "euler", 3, 1, init=init, sigma_start=0.3, grid=None)
    assert torch.equal(result.samples[:, 0], BOTH)
    with pytest.raises(ConfigError, match="The walk begins at"):
        recon.sample(IDENTITY, prior, "prior", "euler", 3, sigma_start=0.3)
    with pytest.raises(ConfigError, match="The walk begins at"):
        recon.sample(IDENTITY, prior, "prior", "euler", grid=[0.3, 0.1, 0.0])
    assert (
        recon.sample(IDENTITY, prior, "prior", "euler", grid=[prior.sigma_max, 0.1, 0.0]).network_calls == 2
    )


def test_the_start_belongs_to_its_image():
    """An image's samples depend neither on its batch nor on their number."""
    process, y = RDDM(), random(3, 3, seed=2)
    network = exact(process, "data")

    def samples(rows, count, images):
        prior = RestorationPrior(network, process, y[rows], "data")
        problem = recon.Problem(op.Identity((3,)), y[rows], 0.1)
        return recon.sample(problem, prior, "prior", "mrs", 8, count, images=images).samples

    whole, alone = samples(slice(None), 3, (5, 6, 7)), samples(slice(1, 2), 2, (6,))
    torch.testing.assert_close(alone[0], whole[1, :2], rtol=1e-12, atol=1e-12)
