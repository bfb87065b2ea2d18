"""What a step leaves alone: stationary laws of Langevin correctors, and the level that churn climbs to."""

from __future__ import annotations

import math

import pytest
import torch
from worlds import ANISOTROPIC, Injected, affine_walk, identity_denoiser, random, slopes

from recon.noise import Noise
from recon.posteriors import Posterior
from recon.processes import VE, VP, Flow, SubVP
from recon.solvers import EDM, PredictorCorrector
from recon.state import Estimate, Step

PROCESSES = {"VE": VE(), "VP": VP(), "sub-VP": SubVP(), "flow": Flow()}
C = ANISOTROPIC.covariance.diagonal()


def diagonal(x, sigma):
    return ANISOTROPIC.mean + C / (C + sigma**2) * (x - ANISOTROPIC.mean)


SEE = identity_denoiser(diagonal)


def kept(process, s: float, t: float) -> float:
    """``(a_s / a_t)^2``, the share 1 - beta of the released corrector."""
    return (process.scale(process.time(s)) / process.scale(process.time(t))) ** 2


# --- Langevin ----------------------------------------------------------------------------------------------


class Corrector:
    """The corrector of ``solver`` at one level as a step of its own, so that `affine_walk` can probe it."""

    def __init__(self, solver: PredictorCorrector, sigma: float, target: float):
        self.solver, self.sigma, self.target = solver, sigma, target

    def step(self, denoise, x, sigma, target, past, draw) -> Step:
        x = self.solver.corrected(denoise, x, self.sigma, self.target, draw)
        return Step(x, 0.0, denoise(x, self.sigma))


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
@pytest.mark.parametrize("steps", [1, 3])
def test_ald_is_stationary_at_s_over_one_minus_d_over_2s(process, steps):
    """Unadjusted Langevin with a fixed step d on N(m, S): ``S / (1 - d / (2 S))``, by its affine recursion."""
    sigma, target, snr = 0.7, 0.6, 0.3
    solver = PredictorCorrector(corrector="ald", snr=snr, corrector_steps=steps, process=process)
    law = affine_walk(Posterior(diagonal), Corrector(solver, sigma, target), [sigma, target], (3,))
    d = 2 * kept(process, sigma, target) * (snr * sigma) ** 2
    S = C + sigma**2
    mean, covariance = torch.zeros(3, dtype=torch.float64), torch.eye(3, dtype=torch.float64)
    for _ in range(2000):
        mean, covariance = law.moments(mean, covariance)
    torch.testing.assert_close(mean, ANISOTROPIC.mean, rtol=0, atol=1e-10)
    torch.testing.assert_close(covariance, (S / (1 - d / (2 * S))).diag(), rtol=0, atol=1e-10)


def test_many_levels_with_ald_settle_at_its_stationary_law():
    """Why a predictor-corrector has order 0: near the end many correctors outweigh the many small predictors."""
    end, snr = 1.0, 0.5
    d = 2 * (snr * end) ** 2
    S = C + end**2
    errors = []
    for n in (64, 128, 256):
        grid = [4 * (end / 4) ** (i / n) for i in range(n + 1)]
        solver = PredictorCorrector(corrector="ald", snr=snr)
        law = affine_walk(Posterior(diagonal), solver, grid, (3,))
        mean, covariance = law.moments(ANISOTROPIC.mean, ANISOTROPIC.marginal(grid[0]))
        torch.testing.assert_close(mean, ANISOTROPIC.mean, rtol=0, atol=1e-12)
        errors.append(float((covariance.diagonal() - S / (1 - d / (2 * S))).abs().max()))
    assert slopes(errors)[-1] >= 0.85, errors
    assert errors[-1] < 0.1 * float((S / (1 - d / (2 * S)) - S).min())


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
@pytest.mark.parametrize("batch_norms", [False, True], ids=["own norms", "batch's norms"])
@pytest.mark.parametrize("is_complex", [False, True], ids=["real", "complex"])
def test_langevin_is_the_released_one(process, batch_norms, is_complex):
    """``z <- z + d q + sqrt(2 d) xi``, ``d = 2 alpha (snr |xi| / |q|)^2``, in z = a x with its score q."""

    def see(x, sigma):
        return Estimate.keep_state(x, sigma, x * (0.3 + 0.1j if is_complex else 0.3))

    s, t, snr = 1.3, 0.9, 0.2
    x, noise = (random(5, 2, 4, seed=k) for k in (1, 2))
    if is_complex:
        x, noise = (torch.complex(v, random(5, 2, 4, seed=9)) for v in (x, noise))
    a = process.scale(process.time(s))
    z, q = a * x, -see(x, s).eps / (a * s)
    above, below = (v.abs().square().sum((1, 2)).sqrt() for v in (noise, q))
    if batch_norms:
        above, below = above.mean(), below.mean()
    d = (2 * kept(process, s, t) * (snr * above / below) ** 2).reshape(-1, 1, 1)
    solver = PredictorCorrector(snr=snr, process=process, batch_norms=batch_norms)
    found = solver.corrected(see, x, s, t, lambda like, stream: noise)
    torch.testing.assert_close(a * found, z + d * q + (2 * d).sqrt() * noise, rtol=1e-12, atol=1e-12)


def test_corrector_steps_draw_their_own_noise_at_the_state_they_reached():
    asked, points = [], []

    def draw(like, stream="step"):
        asked.append(stream)
        return torch.ones_like(like)

    def see(x, sigma):
        points.append((x, sigma))
        return SEE(x, sigma)

    solver, x = PredictorCorrector(corrector_steps=3), random(2, 3)
    step = solver.step(see, x, 2.0, 1.0, (), draw)
    assert asked == ["langevin0", "langevin1", "langevin2"]  # the predictor's is the kernel's own
    assert [sigma for _, sigma in points] == [2.0] * 4 and points[0][0] is x
    assert len({float(point.sum()) for point, _ in points}) == 4
    bare = PredictorCorrector(corrector=None).step(SEE, points[-1][0], 2.0, 1.0, (), draw)
    assert torch.equal(step.mean, bare.mean) and step.std == bare.std
    points.clear()
    end = solver.step(see, x, 2.0, 0.0, (), draw)
    assert torch.equal(end.mean, diagonal(points[-1][0], 2.0)) and solver.calls(6) == 24


def test_a_row_without_score_stays_where_it_is():
    """Norms per sample: a blank row (eps = 0) takes no step, and has a gradient; its neighbour moves."""
    x = torch.stack([ANISOTROPIC.mean, ANISOTROPIC.mean + 1]).requires_grad_()
    found = PredictorCorrector().corrected(SEE, x, 1.0, 0.5, Noise(0, (0, 1)).at(0))
    assert torch.equal(found[0], x[0]) and float((found[1] - x[1]).detach().abs().max()) > 1e-3
    (gradient,) = torch.autograd.grad(found.sum(), x)
    assert torch.isfinite(gradient).all()


# --- churn -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("s_noise", [1.0, 1.007])
def test_churn_raises_the_variance_to_that_of_the_higher_level(s_noise):
    """``S(s) + s_noise^2 (s^^2 - s^2)``: for s_noise = 1 exactly ``S(s^)``, at which it asks the denoiser."""
    sigma, churn = 0.8, 0.3
    raised, solver = sigma * (1 + churn), EDM(churn=churn, s_noise=s_noise)

    class Climb:
        def step(self, denoise, x, sigma, target, past, draw) -> Step:
            seen = []

            def see(x, sigma):
                seen.append((x, sigma))
                return denoise(x, sigma)

            solver.step(see, x, sigma, target, past, draw)
            assert seen[0][1] == raised
            return Step(seen[0][0], 0.0, denoise(*seen[0]))

    law = affine_walk(Posterior(diagonal), Climb(), [sigma, 0.4], (3,))
    mean, covariance = law.moments(ANISOTROPIC.mean, ANISOTROPIC.marginal(sigma))
    torch.testing.assert_close(mean, ANISOTROPIC.mean, rtol=0, atol=1e-12)
    excess = (s_noise**2 - 1) * (raised**2 - sigma**2) * torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(covariance, ANISOTROPIC.marginal(raised) + excess, rtol=0, atol=1e-12)


def test_churn_outside_its_levels_is_nothing():
    solver, x = EDM(churn=0.3, s_min=0.5, s_max=2.0), random(2, 3)
    for sigma in (0.4, 2.1):
        source = Injected()
        step = solver.step(SEE, x, sigma, 0.3, (), source.at(0))
        assert not source.asked
        assert torch.equal(step.mean, EDM().step(SEE, x, sigma, 0.3, (), source.at(0)).mean)
    assert solver.raised(1.0) == pytest.approx(1.3) and math.isclose(solver.raised(2.1), 2.1)
