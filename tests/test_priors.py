"""Denoisers: every parametrisation of one network is one denoiser; wrappers change nothing but shapes."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch
from worlds import (
    ANISOTROPIC,
    BIMODAL,
    CORRELATED,
    GaussianWorld,
    MixtureWorld,
    flat,
    isotropic,
    random,
    random_complex,
    unflat,
)

import recon
from recon import grids
from recon.errors import ConfigError
from recon.networks.load import load_prior
from recon.priors import (
    Gaussian,
    Mixture,
    Prior,
    about,
    as_complex,
    chunked,
    discrete_label,
    flow,
    from_eps,
    from_flow,
    from_v,
    from_x0,
    slicewise,
    vp_scale,
)
from recon.runtime.runtime import Runtime
from recon.solvers import DDIM, SOLVERS, Euler, Heun

LEVELS = (0.01, 0.3, 2.0, 70.0)


def sub_vp_scale(sigma: float) -> float:
    """A process with ``s = 1 - a^2``: ``sigma = (1 - a^2) / a``, so a^2 + s^2 is not 1."""
    return 2 / (sigma + math.sqrt(sigma**2 + 4))


# --- parametrisations --------------------------------------------------------------------------------------


def networks(scale):
    """What networks of each kind trained on the Gaussian world give at (z = a x, label = ln sigma)."""

    def parts(z, label):
        assert label.shape == (len(z),) and bool((label == label[0]).all())
        sigma = math.exp(float(label[0]))
        x0 = ANISOTROPIC(z / scale(sigma), sigma)
        eps = (z / scale(sigma) - x0) / sigma
        return x0, eps, scale(sigma), scale(sigma) * sigma

    def v(z, label):
        x0, eps, a, s = parts(z, label)
        return a * eps - s * x0

    def velocity(z, t):
        t = float(t[0])
        x, sigma = z / (1 - t), t / (1 - t)
        x0 = ANISOTROPIC(x, sigma)
        return (x - x0) / sigma - x0

    return {
        "eps": from_eps(lambda z, label: parts(z, label)[1], math.log, scale),
        "v": from_v(v, math.log, scale),
        "x0": from_x0(lambda z, label: parts(z, label)[0], math.log, scale),
        "flow": from_flow(velocity),
    }


@pytest.mark.parametrize("scale", [vp_scale, lambda sigma: 1.0, sub_vp_scale], ids=["VP", "VE", "sub-VP"])
@pytest.mark.parametrize("kind", ["eps", "v", "x0", "flow"])
@pytest.mark.parametrize("sigma", LEVELS)
def test_parametrisations_are_one_denoiser(kind, scale, sigma):
    x = ANISOTROPIC.mean + random(4, 3) * (1 + sigma)
    torch.testing.assert_close(
        networks(scale)[kind](x, sigma), ANISOTROPIC(x, sigma), rtol=0, atol=1e-12 * (1 + sigma)
    )


class Answer:
    def __init__(self, sample):
        self.sample = sample


ANSWERS = {
    "an object": Answer,
    "a mapping": lambda t: {"sample": t},
    "a tuple": lambda t: (t,),
    "a variance": lambda t: torch.cat([t, torch.full_like(t, 7.0)], 1),
    "an object and a variance": lambda t: Answer(torch.cat([t, torch.full_like(t, 7.0)], 1)),
}


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["eps", "v", "x0", "flow"])
def test_what_a_network_may_return(kind, channels, answer):
    """An object with ``sample``, or twice the channels, gives what the bare prediction gives."""

    def make(network):
        return from_flow(network) if kind == "flow" else KINDS[kind](network, math.log)

    def bare(z, label):
        return torch.sin(3 * z) + label[:, None, None, None]

    x = random(2, channels, 4, 5)
    wrapped = make(lambda z, label: ANSWERS[answer](bare(z, label)))
    torch.testing.assert_close(wrapped(x, 0.7), make(bare)(x, 0.7), rtol=0, atol=0)


KINDS = {"eps": from_eps, "v": from_v, "x0": from_x0}


@pytest.mark.parametrize(
    "network, said",
    [
        (lambda z, t: z.repeat(1, 3, 1, 1), "returned (2, 3, 4, 5)"),
        (lambda z, t: z[..., 1:], "returned (2, 1, 4, 4)"),
        (lambda z, t: None, "returned a NoneType"),
        (lambda z, t: torch.distributions.Normal(0, 1), "returned a Normal"),
    ],
)
@pytest.mark.parametrize("kind", ["eps", "v", "x0", "flow"])
def test_what_a_network_may_not_return(kind, network, said):
    prior = from_flow(network) if kind == "flow" else KINDS[kind](network, math.log)
    with pytest.raises(ConfigError, match=re.escape(said)):
        prior(random(2, 1, 4, 5), 0.7)


def test_vp_scale():
    a, sigma = vp_scale(1.7), 1.7
    assert a * a + (a * sigma) ** 2 == pytest.approx(1, rel=1e-15)


def test_discrete_label_inverts_a_table():
    """DDPM's linear betas: sigma of row n gives n, between rows ``ln abar`` is interpolated, ends are clipped."""
    abar = torch.cumprod(1 - torch.linspace(1e-4, 2e-2, 1000, dtype=torch.float64), 0)
    sigmas = ((1 - abar) / abar).sqrt().tolist()
    label = discrete_label(abar)
    for n in (0, 1, 137, 998, 999):
        assert label(sigmas[n]) == pytest.approx(n, abs=1e-9)
    half = math.exp(0.5 * (math.log(abar[10]) + math.log(abar[11])))
    assert label(math.sqrt(1 / half - 1)) == pytest.approx(10.5, abs=1e-9)
    assert label(sigmas[0] / 2) == 0.0 and label(2 * sigmas[-1]) == 999.0
    values = [label(s) for s in grids.exponential(50, 100.0, 0.02)[:-1]]
    assert values == sorted(values, reverse=True)


def test_what_is_known_of_a_prior_travels():
    inner = Prior(lambda x, s: x, sigma_min=0.1, sigma_max=9.0, data_var=0.3)
    for wrapped in (
        as_complex(inner),
        slicewise(inner),
        chunked(inner, 2),
        flow(inner, Euler(), 2, grids.karras),
    ):
        assert (wrapped.sigma_min, wrapped.sigma_max, wrapped.data_var) == (0.1, 9.0, 0.3)
    assert not hasattr(Prior(lambda x, s: x), "sigma_max")
    assert from_eps(lambda z, t: z, math.log, sigma_max=5.0).sigma_max == 5.0


# --- wrappers ----------------------------------------------------------------------------------------------


class Watched:
    """An elementwise denoiser that remembers the shapes it was given."""

    def __init__(self):
        self.shapes = []

    def __call__(self, x, sigma):
        self.shapes.append(tuple(x.shape))
        scale = torch.arange(1.0, 1 + x.shape[1], dtype=x.dtype).view(1, -1, *[1] * (x.ndim - 2))
        return x * scale / (1 + sigma)


def test_as_complex():
    """Two channels for the network, real part first; each set of maps is an image of its own."""
    network, x = Watched(), random_complex(3, 2, 4, 5)
    clean = as_complex(network)(x, 1.0)
    assert network.shapes == [(6, 2, 4, 5)]
    assert clean.dtype == torch.complex128
    torch.testing.assert_close(clean, torch.complex(x.real / 2, x.imag), rtol=0, atol=0)
    with pytest.raises(TypeError, match="complex images"):
        as_complex(network)(x.real, 1.0)


def test_slicewise():
    network, x = Watched(), random(2, 3, 4, 5, 6)
    clean = slicewise(network)(x, 1.0)
    assert network.shapes == [(8, 3, 5, 6)]
    scale = torch.tensor([0.5, 1.0, 1.5], dtype=torch.float64).view(1, 3, 1, 1, 1)
    torch.testing.assert_close(clean, x * scale, rtol=0, atol=0)


def test_slices_keep_their_place():
    x = random(2, 1, 3, 2, 2)
    marked = slicewise(lambda s, sigma: s + torch.arange(len(s), dtype=s.dtype).view(-1, 1, 1, 1))(x, 1.0) - x
    assert marked[:, 0, :, 0, 0].round().tolist() == [[0, 1, 2], [3, 4, 5]]


def test_slicewise_of_complex_volumes():
    network, x = Watched(), random_complex(2, 1, 3, 4, 4)
    clean = slicewise(as_complex(network))(x, 1.0)
    assert network.shapes == [(6, 2, 4, 4)]
    torch.testing.assert_close(clean, torch.complex(x.real / 2, x.imag), rtol=0, atol=0)


@pytest.mark.parametrize("rows, sizes", [(2, [2, 2, 1]), (5, [5]), (9, [5]), (1, [1] * 5)])
def test_chunked(rows, sizes):
    network, x = Watched(), random(5, 3)
    assert torch.equal(chunked(network, rows)(x, 0.7), Watched()(x, 0.7))
    assert [shape[0] for shape in network.shapes] == sizes


@pytest.mark.parametrize("rows", [1, 2, 3, 7])
def test_a_chunk_is_all_that_a_gradient_keeps(rows):
    """The same gradients, asked for twice, and nothing saved by the network but a chunk's on the way back."""
    x, v = random(7, 4), random(7, 4, seed=1)

    def network(x, sigma):
        hidden = (x * sigma).sin()
        return (hidden * hidden.roll(1, dims=1)).tanh()

    def gradients(prior):
        point = x.clone().requires_grad_()
        clean = prior(point, 0.7)
        return [torch.autograd.grad(clean, point, w, retain_graph=w is v)[0] for w in (v, 2 * v)]

    whole = gradients(network)
    for mine, expected in zip(gradients(chunked(network, rows)), whole, strict=True):
        assert torch.equal(mine, expected)
    calls = []
    counting = chunked(lambda part, sigma: (calls.append(len(part)), network(part, sigma))[1], rows)
    gradients(counting)
    assert max(calls) == rows and sum(calls) == (
        7 if rows == 7 else 21
    )  # forward, and again for each gradient


@pytest.mark.parametrize(
    "solver, order", [(Euler(), 1), (Heun(), 2), (SOLVERS["dpm++2m"](), 2)], ids=["euler", "heun", "2m"]
)
def test_flow_converges_to_the_end_of_the_ode(solver, order):
    """Down to sigma_min with the solver's order; then one denoising step, exact for that level."""
    x, sigma = ANISOTROPIC.mean + 3 * random(4, 3), 3.0
    small = 0.2
    exact = ANISOTROPIC(ANISOTROPIC.flow(x, sigma, small), small)
    errors = []
    for n in (32, 64, 128):
        D = flow(ANISOTROPIC, solver, n, lambda steps, top: grids.exponential(steps, top, small))
        errors.append(float((D(x, sigma) - exact).abs().max()))
    assert math.log2(errors[-2] / errors[-1]) >= order - 0.15, errors


def test_flow_of_one_step_is_the_denoiser():
    x = random(2, 3)
    assert torch.equal(flow(ANISOTROPIC, Euler(), 1, grids.karras)(x, 2.0), ANISOTROPIC(x, 2.0))


def test_flow_refuses_a_stochastic_solver():
    with pytest.raises(ConfigError, match="adds noise"):
        flow(ANISOTROPIC, DDIM(eta=1.0), 5, grids.karras)


# --- closed forms ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", LEVELS)
def test_gaussian_real(sigma):
    x = random(5, 4)
    dense = Gaussian(CORRELATED.mean, CORRELATED.covariance)
    torch.testing.assert_close(dense(x, sigma), CORRELATED(x, sigma), rtol=1e-11, atol=1e-11)
    assert dense.data_var == pytest.approx(CORRELATED.data_var)
    x, diagonal = x[:, :3], ANISOTROPIC.covariance.diagonal()
    for covariance in (diagonal, ANISOTROPIC.covariance):
        torch.testing.assert_close(
            Gaussian(ANISOTROPIC.mean, covariance)(x, sigma), ANISOTROPIC(x, sigma), rtol=1e-11, atol=1e-11
        )
    world = isotropic((3,), 0.4)
    one = Gaussian(world.mean, 0.4)
    torch.testing.assert_close(one(x, sigma), world(x, sigma), rtol=1e-11, atol=1e-11)
    assert one.data_var == 0.4


@pytest.mark.parametrize("sigma", LEVELS)
def test_gaussian_on_images_and_complex_images(sigma):
    root = random(8, 8, seed=3)
    for is_complex, domain in ((False, (1, 2, 4)), (True, (1, 2, 2))):
        world = GaussianWorld(
            random(8, seed=4), root @ root.T + 0.1 * torch.eye(8, dtype=torch.float64), domain, is_complex
        )
        mean = unflat(world.mean[None], domain, is_complex)[0]
        x = unflat(random(3, 8, seed=5), domain, is_complex)
        clean = Gaussian(mean, world.covariance)(x, sigma)
        assert clean.shape == x.shape and clean.dtype == x.dtype
        torch.testing.assert_close(clean, world(x, sigma), rtol=1e-10, atol=1e-10)
        # a float is the variance of each real component
        torch.testing.assert_close(
            flat(Gaussian(mean, 0.5)(x, sigma)), world.mean + 0.5 / (0.5 + sigma**2) * (flat(x) - world.mean)
        )


@pytest.mark.parametrize("sigma", LEVELS)
def test_mixture_is_tweedie_of_its_own_density(sigma):
    weights, means = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64), random(3, 4, seed=1)
    world = MixtureWorld(weights, means, (0.3**2 * torch.eye(4, dtype=torch.float64)).expand(3, 4, 4))
    x = random(6, 4, seed=2) * (1 + sigma)
    prior = Mixture(means, weights, 0.3)
    torch.testing.assert_close(prior(x, sigma), world(x, sigma), rtol=1e-10, atol=1e-10)
    # images of any shape, complex ones through their real view; weights need not sum to one
    image = Mixture(means.reshape(3, 1, 2, 2), 7 * weights, 0.3)
    torch.testing.assert_close(
        image(x.reshape(6, 1, 2, 2), sigma).flatten(1), world(x, sigma), rtol=1e-10, atol=1e-10
    )
    pairs = Mixture(unflat(means, (1, 2), True), weights, 0.3)
    torch.testing.assert_close(
        flat(pairs(unflat(x, (1, 2), True), sigma)), world(x, sigma), rtol=1e-10, atol=1e-10
    )


def test_a_mixture_far_away_is_finite():
    prior = Mixture(random(3, 4), torch.ones(3, dtype=torch.float64) / 3, 0.01)
    x = 1e4 * random(2, 4, seed=9)
    assert bool(torch.isfinite(prior(x, 1e-3)).all())


def test_the_flow_of_a_mixture_keeps_quantiles():
    prior = Mixture(BIMODAL.means, BIMODAL.weights, 0.4)
    world = MixtureWorld(BIMODAL.weights, BIMODAL.means, torch.full((2, 1, 1), 0.16, dtype=torch.float64))
    x = torch.linspace(-6, 6, 7, dtype=torch.float64)[:, None]
    clean = flow(prior, Heun(), 200, lambda n, top: grids.exponential(n, top, 1e-3))(x, 4.0)
    torch.testing.assert_close(world.distribution(clean, 0.0), world.distribution(x, 4.0), rtol=0, atol=1e-3)


def test_a_row_of_the_shipped_network_does_not_depend_on_how_many_go_through():
    """The samples, their mean and their std are the same whatever the chunk: nothing is computed across rows."""
    network = recon.load_prior("brain-mri").module
    x = torch.randn(
        5, 2, 112, 120, generator=torch.Generator().manual_seed(3)
    )  # torch has convolutions of their own
    # for tensors of fewer than 20480 numbers on one thread
    with torch.no_grad():
        whole = network(x, 0.5)
        for rows in (1, 2, 3):
            parts = torch.cat([network(part, 0.5) for part in x.split(rows)])
            torch.testing.assert_close(parts, whole, rtol=0, atol=1e-7)
        torch.testing.assert_close(network(x, torch.full((5,), 0.5)), whole, rtol=0, atol=1e-5)


# --- what a prior says of itself ---------------------------------------------------------------------------


def test_what_a_prior_does_not_say_has_a_default():
    known = about(lambda x, sigma: x)
    assert known.usual == (0.002, 80.0) and known.allowed == (0.0, math.inf)
    assert (known.data_var, known.complex_images, known.card) == (1.0, False, {})
    assert (known.module, known.degraded, known.start) == (None, None, None)
    assert not known.space.latent and known.space.pose("problem") == "problem"
    known.space.refuse_size((3, 5))


def test_what_a_prior_says_is_read_through_wrappers():
    class Own:
        sigma_min, sigma_max, data_var, complex_images = 0.1, 9.0, 0.3, True

        def __call__(self, x, sigma):
            return x

    known = about(Own())
    assert known.usual == known.allowed == (0.1, 9.0) and known.data_var == 0.3 and known.complex_images
    assert about(chunked(Own(), 2)).allowed == (0.1, 9.0) and about(slicewise(Own())).data_var == 0.3
    assert about(chunked(Own(), 2)).complex_images and about(as_complex(lambda x, s: x)).complex_images


def test_a_card_says_whether_images_are_complex():
    carded = Prior(lambda x, s: x, card={"complex_images": True})
    assert about(carded).complex_images and about(chunked(carded, 2)).complex_images
    assert not about(
        Prior(lambda x, s: x, card={"complex_images": False}, complex_images=True)
    ).complex_images


def test_nobody_asks_a_prior_but_about():
    """No second place where a default stands."""
    asked = re.compile(r'(get|has)attr\((self\.)?prior, "|isinstance\((self\.)?prior, LatentPrior')
    home = Path(recon.__file__).parent
    found = {str(path.relative_to(home)) for path in home.rglob("*.py") if asked.search(path.read_text())}
    assert not found


# --- precision ---------------------------------------------------------------------------------------------


def test_bf16_is_near_float32_and_rows_stay_their_own():
    """As `Runtime` runs the prior that ships: the state keeps its dtype, and a row does not depend on the others."""
    exact, fast = (
        Runtime(device="cpu", dtype=d).prepare(load_prior("brain-mri")) for d in ("float32", "bf16")
    )
    for sigma in (0.01, 0.1, 1.0, 6.0):
        x = sigma * random_complex(3, 1, 36, 28, seed=1).to(torch.complex64)
        found, wanted = fast(x, sigma), exact(x, sigma)
        assert found.dtype == x.dtype
        assert (found - wanted).abs().square().mean().sqrt() < 0.04 * min(sigma, 0.1)
        assert torch.equal(fast(x[1:2], sigma), found[1:2])


def test_auto_is_bf16_on_processors_that_multiply_it(monkeypatch):
    for able, precision in ((True, "bf16"), (False, "float32")):
        monkeypatch.setattr("recon.runtime.runtime.multiplies_bf16", lambda able=able: able)
        assert Runtime(device="cpu", dtype="auto").precision == precision
        assert Runtime(device="cpu").precision == "float32" and Runtime(dtype="fp16").precision == "fp16"
    monkeypatch.setattr("recon.runtime.runtime.multiplies_bf16", lambda: True)
    monkeypatch.setattr(Runtime, "torch_device", lambda self: torch.device("cuda"))
    assert Runtime(dtype="auto").precision == "float32"
    with pytest.raises(ConfigError, match="float8"):
        Runtime(dtype="float8")
