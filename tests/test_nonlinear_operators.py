"""Operators that are not linear: their laws, what single ones must compute, and which samplers take them."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from measurements import DEVIANCES
from PIL import Image
from tables import NONLINEAR

import operators as op
import recon
from recon.errors import ConfigError
from recon.posteriors import POSTERIORS
from recon.priors import Prior
from recon.registry.objects import sampler_class

NONLINEAR = NONLINEAR | DEVIANCES
ALL = pytest.mark.parametrize("make", NONLINEAR.values(), ids=NONLINEAR)
EXACT = [
    name
    for name in NONLINEAR
    if name in ("nonlinear blur", "clipping, exact", "poisson deviance") or "phase" in name
]


def images(a: op.Operator, rows: int = 2, seed: int = 0) -> torch.Tensor:
    """Between 0 and 1 and a little beyond, away from kinks."""
    generator = torch.Generator().manual_seed(seed)
    x = 1.4 * torch.rand(rows, *a.domain, generator=generator, dtype=torch.float64) - 0.2
    return torch.complex(x, x.flip(-1)) if a.complex_domain else x


@ALL
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_keeps_the_laws(make, dtype):
    assert "derivative is finite" in op.check(make(), dtype=dtype)


@pytest.mark.parametrize("name", sorted(set(NONLINEAR) - {"jpeg, half blocks"}))
def test_what_it_measures_is_what_it_can_measure(name):
    a = NONLINEAR[name]()
    y = a(images(a))
    torch.testing.assert_close(a.masked(y), y)
    kept = a.masked(y + torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(1)))
    torch.testing.assert_close(a.masked(kept), kept)


@pytest.mark.parametrize("name", EXACT)
def test_the_derivative_is_exact(name):
    a = NONLINEAR[name]()
    x = images(a, 1).requires_grad_()
    torch.autograd.gradcheck(a.forward, (x,))
    torch.autograd.gradgradcheck(a.forward, (x,), fast_mode=True)


@ALL
def test_its_lipschitz_bounds_the_derivative(make):
    a = make()
    if a.lipschitz is None:
        assert isinstance(a, op.base.Chain)
        return
    x = images(a, 1).clamp(0.05, 1) if not a.complex_domain else images(a, 1)
    v = images(a, 1, seed=3) - 0.5
    for _ in range(30):
        _, push = torch.func.jvp(a.forward, (x,), (v / v.norm(),))
        at = x.clone().requires_grad_()
        (v,) = torch.autograd.grad(a(at), at, push)
    bound = a.lipschitz
    if isinstance(a, op.NonlinearBlur | op.PoissonDeviance):
        bound = 4 * bound  # stated of pictures, and near the counts: this is noise
    assert float(v.norm()) ** 0.5 <= bound * (1 + 1e-9)


def test_the_straight_through_derivative_is_the_one_that_is_stated():
    for a, factor in ((NONLINEAR["jpeg, 4:4:4"](), 1.0), (NONLINEAR["clipping"](), 2.0)):
        x, w = images(a), images(a, seed=5)
        x.requires_grad_()
        torch.testing.assert_close(torch.autograd.grad(a(x), x, w)[0], factor * w, rtol=0, atol=1e-5)
    a = NONLINEAR["jpeg"]()
    x = images(a).requires_grad_()
    gray = images(a, seed=5)[:, :1].expand(-1, 3, -1, -1)  # no chroma: nothing is lost
    torch.testing.assert_close(torch.func.jvp(a.forward, (x,), (gray,))[1], gray, rtol=0, atol=1e-5)


@pytest.mark.parametrize("quality", [5, 30, 80])
@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_what_pillow_decodes(quality, channels):
    """But for its 8-bit chroma, by which coefficients near half a step are rounded the other way."""
    ramp = np.indices((24, 33)).sum(0).astype(float)
    rng = np.random.default_rng(0)
    waves = [120 + 40 * np.sin(ramp / k) + rng.normal(0, 8, ramp.shape) for k in (3, 5, 7)[:channels]]
    pixels = np.stack(waves, -1).clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels if channels == 3 else pixels[..., 0]).save(
        file, "JPEG", quality=quality, subsampling=0
    )
    theirs = np.asarray(Image.open(file)).astype(float).reshape(pixels.shape)
    x = torch.as_tensor(pixels).permute(2, 0, 1)[None].double() / 255
    a = op.JPEG((channels, 24, 33), quality, "4:4:4").to(torch.float64)
    ours = 255 * a(x).clamp(0, 1)[0].permute(1, 2, 0).numpy()
    lost, apart = (np.sqrt(np.mean((other - theirs) ** 2)) for other in (pixels, ours))
    assert lost > 5 and apart < (0.2 if channels == 1 else 0.35) * lost


def test_nonlinear_blur_blurs_light():
    a = op.NonlinearBlur(op.gaussian_kernel(1.0, 5), (1, 16, 16))
    flat = torch.full((1, 1, 16, 16), 0.3)
    torch.testing.assert_close(a(flat), flat)
    point = torch.zeros(1, 1, 16, 16)
    point[..., 8, 8] = 1
    assert a(point).sum() > 2 * op.Blur(op.gaussian_kernel(1.0, 5), (1, 16, 16))(point).sum()
    half = op.degradations.exposure.response(torch.tensor([0.0, 0.5, 1.0]))
    torch.testing.assert_close(half, torch.tensor([0.0, 0.735357, 1.0]), rtol=0, atol=1e-5)


def test_the_deviance_is_the_poisson_likelihood():
    inner = op.Inpainting(torch.ones(4, 5, dtype=torch.float64))
    counts = torch.arange(20.0, dtype=torch.float64).view(1, 4, 5)
    a = op.PoissonDeviance(inner, counts, 30.0, 2.0)
    x = images(inner, 1).abs()
    exact = torch.distributions.Poisson(30 * x + 2).log_prob(counts).sum()
    best = torch.distributions.Poisson(counts.clamp_min(1e-30)).log_prob(counts).sum()
    torch.testing.assert_close(a(x).square().sum() / 2, best - exact)
    close = (counts[None] * (1 + 1e-7) - 2) / 30  # no digits are lost near the counts
    torch.testing.assert_close(
        a(close)[..., 3:], (counts.sqrt() * 1e-7)[None, ..., 3:], rtol=1e-6, atol=1e-12
    )
    assert a(-5 * x).isfinite().all()


def test_counts_and_impulses_are_measurements_with_noise_of_their_own():
    a = op.Inpainting(torch.ones(4, 5, dtype=torch.float64))
    counts = torch.tensor([0.0, 4.0, 100.0, 9.0, 1.0], dtype=torch.float64).expand(1, 1, 4, 5)
    problem = recon.Problem(a, counts / 50, op.poisson_deviation(counts, 50.0))
    torch.testing.assert_close(problem.y[0, 0, 0, 1:], torch.tensor([2.0, 10.0, 3.0, 1.0]).double())
    hit = counts[0] == 4
    problem = recon.Problem(a, counts / 50, op.impulse_deviation(hit, 0.1))
    assert problem.measurements == 16 and (problem.y[0][hit] == 0).all()
    for call in (lambda: op.impulse_deviation(hit, 0.0), lambda: op.poisson_deviation(counts, -1.0)):
        with pytest.raises(op.OperatorError):
            call()
    with pytest.raises(op.OperatorError, match="0 or more"):
        op.PoissonDeviance(a, counts[0] - 1, 50.0)


def test_phase_retrieval_sees_no_shift_turn_or_sign():
    a = op.PhaseRetrieval((1, 6, 6))
    x = torch.zeros(1, 1, 6, 6, dtype=torch.float64)
    x[..., 1:4, 1:5] = images(op.Identity((1, 3, 4)), 1)
    for other in (-x, x.roll(1, -1), x.flip(-1, -2)):
        torch.testing.assert_close(a(other), a(x))
    torch.testing.assert_close(a(x).square().sum(), x.square().sum())


SMOOTH = Prior(lambda x, s: x * (0.1 / (0.1 + s**2)) + 0.5 * s**2 / (0.1 + s**2), sigma_max=5.0, data_var=0.1)
TAKES = {
    name for name in POSTERIORS if name != "prior" and not getattr(sampler_class(name), "linear_only", False)
}


PAIRS = [
    (name, operator)
    for name in sorted(TAKES)
    for operator in ("nonlinear blur", "jpeg", "clipping", "phase retrieval")
]
PAIRS += [(name, "poisson") for name in sorted(TAKES - {"reddiff"})]


@pytest.mark.parametrize(("name", "operator"), PAIRS)
def test_samplers_for_any_operator_come_nearer_to_the_data(name, operator):
    if operator == "poisson":
        inner = op.Blur(op.gaussian_kernel(0.5, 3).double(), (1, 6, 6))
        counts = (100 * inner(images(inner, 1).clamp(0.1, 1)))[0].round()
        problem = recon.Problem(op.PoissonDeviance(inner, counts, 100.0), torch.zeros_like(counts)[None], 1.0)
    else:
        a = NONLINEAR[operator]()
        problem = recon.Problem(a, a.masked(a(images(a, 1).clamp(0, 1))), 0.05)
    found = recon.sample(problem, SMOOTH, name, steps=10, samples=4).samples[0]
    left = problem.repeated(4).residual(found)
    before = problem.residual(torch.full_like(found[:1], 0.5))
    assert left.median() < 0.9 * before


@pytest.mark.parametrize("name", sorted(set(POSTERIORS) - TAKES - {"prior"}))
def test_samplers_for_linear_operators_refuse_the_others(name):
    a = NONLINEAR["jpeg"]()

    def never(x, sigma):
        raise AssertionError("a network call")

    with pytest.raises(ConfigError, match="not linear"):
        recon.sample(recon.Problem(a, a(images(a, 1)), 0.05), Prior(never, data_var=0.1), name, steps=3)
