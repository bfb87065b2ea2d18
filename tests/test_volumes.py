"""Volumes: a prior of slices, the data of all of them, and total variation across slices."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import operators as op
import recon
from recon import Problem
from recon.errors import ConfigError
from recon.noise import Noise
from recon.posteriors import DDS, DDS3D, MBIR
from recon.posteriors.shared.across import Across, Duals, soft
from recon.priors import Gaussian, Prior, about, slicewise
from recon.solvers import Euler
from recon.state import Move, State, Step

F64 = torch.float64
DOMAIN = (1, 5, 4, 4)


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = F64) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def scan(slices: int = 5) -> op.Stacked:
    return op.Stacked(op.CT(4, [0.0, 50.0, 100.0]).to(F64), slices)


def maps(seed: int) -> Tensor:
    return randn(2, 4, 4, seed=seed, dtype=torch.complex128)


def slices_of_mri(slices: int = 5) -> op.Stacked:
    mask = torch.tensor([1.0, 0, 1, 1], dtype=F64)
    return op.Stacked([op.MRI(mask, maps(d)) for d in range(slices)])


def fixed(image: Tensor) -> Prior:
    """A prior that always says the same."""
    return Prior(lambda x, sigma: image.expand_as(x), data_var=1.0)


def settled(sampler: DDS3D, like: Tensor, steps: int) -> tuple[Tensor, Duals]:
    """The image and the duals after so many levels of the same noise."""
    state = State(torch.zeros_like(like), 1.0)
    for _ in range(steps):
        est = sampler.denoise(state.x, 1.0, state.memo)
        moved = State(state.x, 1.0, est.x0, memo=state.memo)
        step = Step(state.x, 0.0, est)
        state = sampler.correct(moved, Move(state, step, Euler(), 1.0, 1.0), Noise(0, range(1)).at(0))
    return state.x0, state.memo


@pytest.mark.parametrize("make", [scan, slices_of_mri])
def test_admm_ends_at_the_minimum(make):
    """``A^H (A x - y) + lambda (x - D) + lam D_z^T q = 0`` with ``|q| <= 1``, and ``q D_z x = |D_z x|``: the conditions
    of ``1/2 ||A x - y||^2 + lambda/2 ||x - D||^2 + lam ||D_z x||_1``, which is convex."""
    A = make(3)
    dtype = torch.complex128 if A.complex_domain else F64
    x, prior = randn(1, *A.domain, dtype=dtype), randn(1, *A.domain, seed=2, dtype=dtype)
    y = A(x)
    problem, lam, rho = Problem(A, y, 0.5), 0.4, 0.7
    sampler = DDS3D(fixed(prior), problem, weight=0.3, steps=40, tol=1e-12, lam=lam, rho=rho)
    image, duals = settled(sampler, x, 250)
    D = sampler.across.difference
    q = rho * duals.u / lam
    gradient = A.adjoint(A(image) - problem.y) + 0.3 * (image - prior) + lam * D.adjoint(q)
    assert gradient.abs().max() < 1e-6 and q.abs().max() < 1 + 1e-9
    torch.testing.assert_close(D(image).abs(), (q.conj() * D(image)).real, atol=1e-6, rtol=0)
    assert (D(image).abs() < 1e-6).any() and (D(image).abs() > 1e-2).any()


def test_without_a_threshold_only_the_difference_itself_is_left():
    """lam = 0: z is D_z x + u and the dual 0."""
    across = Across(op.Difference(DOMAIN, (-3,)), 2.0, 0.0)
    x = randn(2, *DOMAIN)
    duals = across.update(x, across.start(x))
    torch.testing.assert_close(duals.z, across.difference(x))
    assert not duals.u.any()


def test_slices_that_are_alike_are_not_changed():
    A = scan()
    plane = randn(1, 1, 1, 4, 4).expand(1, *DOMAIN)
    prior = fixed(randn(1, 1, 1, 4, 4, seed=3).expand(1, *DOMAIN))
    problem = Problem(A, A(plane), 0.1)
    x = randn(1, *DOMAIN)
    options = dict(steps=30, tol=0.0)
    est = DDS3D(prior, problem, **options).denoise(x, 1.0)
    torch.testing.assert_close(est.x0, DDS(prior, problem, **options).denoise(x, 1.0).x0)
    torch.testing.assert_close(settled(DDS3D(prior, problem, **options), plane, 3)[0], est.x0)


def test_of_images_it_is_dds():
    A = op.CT(4, [0.0, 50.0, 100.0]).to(F64)
    problem, prior = Problem(A, A(randn(1, 1, 4, 4)), 0.1), Gaussian(torch.zeros(1, 4, 4, dtype=F64), 1.0)
    ours, theirs = (recon.sample(problem, prior, name, steps=4, samples=2) for name in ("dds-3d", "dds"))
    torch.testing.assert_close(ours.samples, theirs.samples)


@pytest.mark.parametrize("name", ["dds-3d", "mbir"])
def test_rows_travel_with_their_duals(name):
    """The samples of two volumes together are those of each alone."""
    A = scan()
    y = A(randn(2, *DOMAIN))
    prior = Gaussian(torch.zeros(DOMAIN, dtype=F64), 1.0)
    both = recon.sample(Problem(A, y, 0.1), prior, name, steps=5, samples=2)
    alone = recon.sample(Problem(A, y[1:], 0.1), prior, name, steps=5, samples=2, images=[1])
    torch.testing.assert_close(both.samples[1:], alone.samples)
    duals = Duals(randn(3, 1, *DOMAIN), randn(3, 1, *DOMAIN, seed=1))
    taken = State(randn(3, *DOMAIN), 1.0, memo=duals).take(torch.tensor([2, 0]))
    assert torch.equal(taken.memo.z, duals.z[[2, 0]]) and torch.equal(taken.memo.u, duals.u[[2, 0]])


@pytest.mark.parametrize("make", [scan, slices_of_mri])
def test_neighbours_help_one_another(make):
    """Slices that change little: closer to the truth than slice by slice."""
    slices = 12
    A = make(slices)
    dtype = torch.complex128 if A.complex_domain else F64
    steps = torch.cat((torch.zeros(6), torch.ones(6))).double()[:, None, None]
    truth = (randn(1, 1, 1, 4, 4, dtype=dtype) + steps * randn(1, 1, 1, 4, 4, seed=1, dtype=dtype)).reshape(
        1, *A.domain
    )
    noise = A(randn(1, *A.domain, seed=5, dtype=dtype))  # of measured places alone
    problem = Problem(A, A(truth) + 0.5 * noise / noise.abs().square().mean().sqrt(), 0.5)
    prior = Gaussian(torch.zeros(A.domain, dtype=dtype), 1.0)
    errors = [
        float((recon.sample(problem, prior, name, steps=20, samples=8).mean - truth).norm())
        for name in ("dds", "dds-3d")
    ]
    assert errors[1] < 0.95 * errors[0], errors


def test_a_network_of_images_is_taken_slice_by_slice():
    seen = []

    def network(x: Tensor, sigma: float) -> Tensor:
        assert x.ndim == 4
        seen.append(len(x))
        return x / (1 + sigma**2)

    card = {"complex_images": False, "name": "toy"}
    prior = Prior(network, data_var=1.0, sigma_min=0.01, sigma_max=10.0, card=card)
    A = scan(40)
    problem = Problem(A, A(randn(1, *A.domain)), 0.1)
    result = recon.sample(problem, prior, "dds-3d", steps=3, samples=2)
    assert result.samples.shape == (1, 2, *A.domain) and result.network_calls == 3
    assert max(seen) == 32 and sum(seen) == 3 * 2 * 40
    wrapped = recon.sample(problem, slicewise(prior), "dds-3d", steps=3, samples=2)
    assert torch.equal(wrapped.samples, result.samples)
    assert about(slicewise(prior)).volumes and not about(prior).volumes
    seen.clear()
    slicewise(prior, together=7)(randn(1, *A.domain), 1.0)
    assert seen == [7] * 5 + [5]


def test_a_stack_has_so_many_slices_in_work_and_no_more():
    counted = []

    class Counting(op.Linear):
        domain = (1, 4, 4)

        def forward(self, x: Tensor) -> Tensor:
            counted.append(len(x))
            return 2 * x

    A = op.Stacked(Counting(), 50, together=8)
    counted.clear()
    A(randn(2, 1, 50, 4, 4))
    assert max(counted) == 8 and sum(counted) == 100


def test_soft_thresholding_keeps_the_phase():
    x = torch.tensor([3.0 + 4.0j, 0.3 + 0.4j, 0.0])
    torch.testing.assert_close(soft(x, 1.0), torch.tensor([2.4 + 3.2j, 0.0, 0.0]))
    torch.testing.assert_close(soft(torch.tensor([-3.0, 0.5]), 1.0), torch.tensor([-2.0, 0.0]))


def test_mbir_is_the_released_step():
    A = scan()
    problem = Problem(A, A(randn(1, *DOMAIN)), 0.1)
    sampler = MBIR(fixed(randn(1, *DOMAIN, seed=4)), problem, lam=0.3, rho=2.0)
    D = op.Difference(DOMAIN, (-3,), "circular")
    x, duals = randn(1, *DOMAIN, seed=6), Duals(randn(1, 1, *DOMAIN, seed=7), randn(1, 1, *DOMAIN, seed=8))

    def normal(v: Tensor) -> Tensor:
        return A.normal(v) + 2.0 * D.normal(v)

    r = A.adjoint(problem.y) + 2.0 * D.adjoint(duals.z - duals.u) - normal(x)
    expected = x + (r * r).sum() / (r * normal(r)).sum() * r
    v = D(expected) + duals.u
    z = v.sign() * (v.abs() - 0.15).clamp_min(0)
    est = sampler.denoise(x, 1.0)
    move = Move(State(x, 1.0), Step(x, 0.0, est), Euler(), 1.0, 0.5)
    draw = Noise(0, range(1)).at(0)
    got = sampler.correct(State(x, 0.5, est.x0, memo=duals), move, draw)
    torch.testing.assert_close(got.x, expected)
    torch.testing.assert_close(got.memo.z, z)
    torch.testing.assert_close(got.memo.u, v - z)
    last = sampler.correct(State(x, 0.0, est.x0, memo=duals), move, draw)
    ones = A.normal(torch.ones(1, *DOMAIN, dtype=F64))
    kaczmarz = expected + A.adjoint(problem.y - A(expected)) / ones
    torch.testing.assert_close(last.x, kaczmarz)
    assert last.x0 is last.x and last.past == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(lam=-1.0), "lam is -1"),
        (dict(rho=0.0), "rho is 0"),
        (dict(difference=float("nan")), "difference is nan"),
        (dict(boundary="mirror"), "boundary is 'mirror'"),
    ],
)
def test_refused_settings(options, message):
    with pytest.raises(ConfigError, match=message):
        DDS3D(**options)
    if "difference" not in options and "boundary" not in options:
        with pytest.raises(ConfigError, match=message):
            MBIR(**options)


def test_noise_free_volumes_need_weights():
    A = scan()
    problem, prior = Problem(A, A(randn(1, *DOMAIN))), Gaussian(torch.zeros(DOMAIN, dtype=F64), 1.0)
    with pytest.raises(ConfigError, match="lam and rho"):
        recon.sample(problem, prior, "dds-3d", steps=2)
    recon.sample(problem, prior, "dds-3d", steps=2, options={"lam": 0.1, "rho": 1.0})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: op.Stacked([]), "0 operators"),
        (lambda: op.Stacked([scan().operators[0]] * 2, 3), "2 operators for 3 slices"),
        (lambda: op.Stacked([op.CT(4, [0.0]), op.CT(5, [0.0])]), "2 kinds"),
        (lambda: op.Stacked(scan(), 2), "one domain"),
    ],
)
def test_refused_stacks(make, message):
    with pytest.raises(op.OperatorError, match=message):
        make()
