"""deepinv's physics as operators, and operators as deepinv's physics."""

from __future__ import annotations

import subprocess
import sys
import warnings
from functools import cache
from typing import Any

import pytest
import torch
from conftest import ROOT
from tables import OPERATORS
from torch import Tensor

import operators as op

pytestmark = pytest.mark.filterwarnings("ignore")


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


MASK = (randn(8, 6) > 0).float()
FRAMES = (randn(1, 1, 3, 8, 6) > 0).float().expand(1, 2, 3, 8, 6)
MAPS = randn(1, 3, 8, 6, dtype=torch.complex64)
KERNEL = randn(1, 1, 3, 3).abs()

# name -> (physics from the module deepinv.physics, domain as deepinv has it, domain and codomain here)
PHYSICS = {
    "Inpainting": (lambda p: p.Inpainting((1, 8, 6), mask=MASK[None]), (1, 8, 6), (1, 8, 6), (1, 8, 6)),
    "Blur": (lambda p: p.Blur(filter=KERNEL, padding="valid"), (2, 8, 6), (2, 8, 6), (2, 6, 4)),
    "BlurFFT": (lambda p: p.BlurFFT((1, 8, 6), filter=KERNEL), (1, 8, 6), (1, 8, 6), (1, 8, 6)),
    "Downsampling": (lambda p: p.Downsampling((1, 16, 16), "bicubic", 2), (1, 16, 16), (1, 16, 16), (1, 8, 8)),
    "Tomography": (lambda p: p.Tomography(5, 8, normalize=True), (1, 8, 8), (1, 8, 8), (1, 12, 5)),
    "MRI": (lambda p: p.MRI(mask=MASK), (2, 8, 6), (1, 8, 6), (1, 8, 6)),
    "MultiCoilMRI": (lambda p: p.MultiCoilMRI(mask=MASK, coil_maps=MAPS), (2, 8, 6), (1, 8, 6), (3, 8, 6)),
    "DynamicMRI": (lambda p: p.DynamicMRI(mask=FRAMES), (2, 3, 8, 6), (1, 3, 8, 6), (1, 3, 8, 6)),
    "SequentialMRI": (lambda p: p.SequentialMRI(mask=FRAMES), (2, 8, 6), (1, 8, 6), (1, 3, 8, 6)),
    "Decolorize": (lambda p: p.Decolorize(), (3, 8, 6), (3, 8, 6), (1, 8, 6)),
    "CompressedSensing": (lambda p: p.CompressedSensing(10, (1, 8, 6)), (1, 8, 6), (1, 8, 6), (10,)),
    "Denoising": (lambda p: p.Denoising(), (1, 8, 6), (1, 8, 6), (1, 8, 6)),
    "composed": (
        lambda p: p.compose(p.Blur(filter=KERNEL, padding="circular"), p.Inpainting((1, 8, 6), mask=MASK[None])),
        (1, 8, 6), (1, 8, 6), (1, 8, 6),
    ),
    "stacked": (
        lambda p: p.stack(p.Inpainting((1, 8, 6), mask=MASK[None]), p.Blur(filter=KERNEL, padding="valid")),
        (1, 8, 6), (1, 8, 6), (72,),
    ),
}  # fmt: skip


@cache
def physics(name: str) -> Any:
    import deepinv.physics

    torch.manual_seed(0)
    return PHYSICS[name][0](deepinv.physics)


@cache
def wrapped(name: str) -> op.Linear:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return op.from_deepinv(physics(name), PHYSICS[name][1])


def probe(a: op.Linear, rows: int = 2, seed: int = 0) -> Tensor:
    return randn(
        rows * a.images, *a.domain, seed=seed, dtype=torch.complex128 if a.complex_domain else torch.float64
    )


def real(t: Tensor) -> Tensor:
    return torch.view_as_real(t) if t.is_complex() else t


@pytest.mark.parametrize("name", PHYSICS)
def test_their_physics_keep_our_laws(name):
    a, (_, _, domain, codomain) = wrapped(name), PHYSICS[name]
    assert (a.domain, a.codomain) == (domain, codomain)
    assert a.complex_domain == a.complex_codomain == name.endswith("MRI")
    assert max(op.check(a).values()) < 1e-5


@pytest.mark.parametrize("name", PHYSICS)
def test_their_physics_are_never_changed(name):
    before = {k: v.clone() for k, v in physics(name).state_dict().items()}
    settings = {k: getattr(physics(name), k) for k in ("solver", "max_iter", "tol")}
    a = wrapped(name)
    x = probe(a, 1).to(a._kind(a.complex_domain))
    y = a(x)
    op.cg(a.normal, a.adjoint(y), steps=3)
    a.to(torch.float64), a.to("cpu")(x)
    after = physics(name).state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[k], after[k]) for k in before)
    assert settings == {k: getattr(physics(name), k) for k in settings}


@pytest.mark.parametrize("name", PHYSICS)
def test_their_physics_take_and_give_back_double_precision(name):
    a = wrapped(name)
    y = a(probe(a))
    assert y.dtype == (torch.complex128 if a.complex_codomain else torch.float64)
    assert a.adjoint(y).dtype == probe(a).dtype


def test_the_adjoint_they_get_wrong_is_replaced():
    assert wrapped("MRI").own_adjoint and wrapped("MRI").batched
    assert not wrapped("SequentialMRI").own_adjoint and not wrapped("SequentialMRI").batched


def test_their_mri_is_our_mri():
    ours = op.MRI(MASK.bool(), MAPS[0])
    x = probe(ours).to(torch.complex64)
    theirs = wrapped("MultiCoilMRI")
    torch.testing.assert_close(theirs(x), ours(x))
    torch.testing.assert_close(theirs.adjoint(ours(x)), ours.adjoint(ours(x)))
    torch.testing.assert_close(wrapped("MRI")(x), op.MRI(MASK.bool())(x))


def test_their_downsampling_is_ours_one_pixel_away():
    import deepinv.physics

    x = randn(1, 3, 32, 24)
    theirs = deepinv.physics.Downsampling((3, 32, 24), "bicubic", 4, padding="circular").A(x)
    ours = op.SuperResolution((3, 32, 24), 4)(x.roll((1, 1), (-2, -1)))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_a_later_change_of_the_original_does_not_show():
    import deepinv.physics

    original = deepinv.physics.Inpainting((1, 8, 6), mask=MASK[None])
    a = op.from_deepinv(original, (1, 8, 6))
    x = randn(1, 1, 8, 6)
    before = a(x)
    original.update(mask=torch.zeros(1, 1, 8, 6))
    assert torch.equal(a(x), before) and before.any()


REFUSED = {
    "no physics": (lambda p: torch.nn.Identity(), (1, 8, 6), "LinearPhysics"),
    "nonlinear": (lambda p: p.Haze(), (1, 8, 6), "nonlinear"),
    "another size": (lambda p: p.MRI(mask=MASK), (1, 7, 5), "domain of its images"),
    "approximate derivative": (
        lambda p: p.Tomography(5, 8, normalize=False, adjoint_via_backprop=False), (1, 8, 8), "adjoint_via_backprop=True",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    import deepinv.physics

    make, domain, words = REFUSED[case]
    with pytest.raises(op.OperatorError, match=words):
        op.from_deepinv(make(deepinv.physics), domain)


@pytest.mark.parametrize("name", OPERATORS)
def test_ours_are_their_linear_physics(name):
    from deepinv.physics import LinearPhysics

    a = OPERATORS[name]()
    p = a.as_deepinv()
    assert isinstance(p, LinearPhysics) and op.from_deepinv(p, a.domain) is a
    x = probe(a)
    x2, y = op.physics.two_channels(x), a(x)
    assert not p(x2).is_complex()
    torch.testing.assert_close(p(x2), op.physics.two_channels(y))
    torch.testing.assert_close(p.A_adjoint(p.A(x2)), op.physics.two_channels(a.normal(x)))
    torch.testing.assert_close(p.A_adjoint_A(x2), op.physics.two_channels(a.normal(x)))
    if x.shape[1] == 1 and a.complex_domain:
        assert x2.shape == (len(x), 2, *x.shape[2:])
    v = torch.randn_like(p.A(x2))
    torch.testing.assert_close((p.A(x2) * v).sum(), (x2 * p.A_adjoint(v)).sum())


@pytest.mark.parametrize("name", OPERATORS)
def test_ours_move_clone_save_and_differentiate_as_their_modules_do(name):
    a = OPERATORS[name]()
    p = a.as_deepinv()
    x = op.physics.two_channels(probe(a, 1))
    y = p.A(x)
    clone = p.clone().to(torch.float32)
    torch.testing.assert_close(clone.A(x.float()), y.float(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(p.A(x), y, rtol=0, atol=0)
    torch.testing.assert_close(clone.double().to("cpu").A(x), y, rtol=1e-4, atol=1e-4)
    held = [*p.buffers(), *p.parameters(), *p.state_dict().values()]
    assert not any(t.is_complex() or t.layout != torch.strided for t in held)
    p.load_state_dict(clone.state_dict())
    x.requires_grad_()
    torch.autograd.gradcheck(p.A, (x,), fast_mode=True)
    torch.autograd.gradgradcheck(p.A, (x,), fast_mode=True)


def test_their_solver_works_on_ours():
    a = op.MRI(MASK.bool(), MAPS[0]).to(torch.float64)
    p = a.as_deepinv()
    y = p.A(op.physics.two_channels(probe(a, 1)))
    z = torch.zeros_like(p.A_adjoint(y))
    x = p.prox_l2(z, y, 10.0, solver="CG", max_iter=200, tol=1e-10)
    torch.testing.assert_close(p.A_adjoint_A(x) + x / 10, p.A_adjoint(y), rtol=1e-5, atol=1e-5)


def test_multicoil_data_have_their_shapes():
    p = op.MRI(MASK.bool(), MAPS[0]).as_deepinv()
    assert p.A(randn(5, 2, 8, 6)).shape == (5, 2, 3, 8, 6)
    assert op.MRI(MASK.bool()).as_deepinv().A(randn(5, 2, 8, 6)).shape == (5, 2, 8, 6)


def test_our_parameters_cannot_be_updated_through_theirs():
    with pytest.raises(op.OperatorError, match="mask"):
        op.Inpainting(MASK).as_deepinv().A(randn(1, 1, 8, 6), mask=MASK)


def test_deepinv_is_not_imported_before_it_is_asked_for():
    code = "import sys, operators; sys.exit('deepinv' in sys.modules or 'recon' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


# --- one physics for several images -------------------------------------------------------------------------

BATCHED = {
    "Inpainting": (lambda p, n: p.Inpainting((1, 8, 6), mask=(randn(n, 1, 8, 6) > 0).float()), (1, 8, 6)),
    "MRI": (lambda p, n: p.MRI(mask=(randn(n, 1, 8, 6) > 0).float(), img_size=(2, 8, 6)), (2, 8, 6)),
    "MultiCoilMRI": (
        lambda p, n: p.MultiCoilMRI(mask=MASK, coil_maps=randn(n, 3, 8, 6, dtype=torch.complex64)),
        (2, 8, 6),
    ),
    "BlurFFT": (lambda p, n: p.BlurFFT((1, 8, 6), filter=randn(n, 1, 3, 3).abs()), (1, 8, 6)),
    "Blur": (lambda p, n: p.Blur(filter=randn(n, 1, 3, 3).abs(), padding="valid"), (2, 8, 6)),
}


@pytest.mark.parametrize("images", [2, 3])
@pytest.mark.parametrize("name", BATCHED)
def test_one_mask_or_filter_for_each_image_is_an_operator_for_each(name, images):
    """Against the physics itself, on as many images as it is for; each has rows of its own, its adjoint too."""
    import deepinv.physics

    make, domain = BATCHED[name]
    whole = make(deepinv.physics, images)
    A = op.from_deepinv(whole, domain)
    assert isinstance(A, op.PerImage) and A.images == images
    x = randn(images, *domain, seed=3)
    theirs = whole.A(x)
    ours = A(torch.complex(x[:, 0], x[:, 1])[:, None] if A.complex_domain else x)
    if A.complex_domain:
        ours = torch.view_as_real(ours).movedim(-1, 1)
        ours = ours if name == "MultiCoilMRI" else ours[:, :, 0]
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    image = torch.randn(2 * images, *A.domain, dtype=torch.complex64 if A.complex_domain else torch.float32)
    y = torch.randn_like(A(image))
    left, right = ((a.conj() * b).real.sum() for a, b in ((A(image), y), (image, A.adjoint(y))))
    torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-4)


def test_a_physics_for_several_images_that_cannot_be_taken_apart_is_refused():
    import deepinv.physics as p

    masked = [p.Inpainting((1, 8, 6), mask=(randn(3, 1, 8, 6, seed=s) > 0).float()) for s in (1, 2)]
    with pytest.raises(op.OperatorError, match="PerImage"):
        op.from_deepinv(p.stack(*masked), (1, 8, 6))

    class Mixed(p.LinearPhysics):
        """Each row is multiplied by the sum of all weights so far."""

        def __init__(self):
            super().__init__()
            self.register_buffer("weights", torch.arange(1.0, 4.0)[:, None])

        def A(self, x, **_):
            return x * self.weights.cumsum(0)[:, :, None, None]

        def A_adjoint(self, y, **_):
            return self.A(y)

    with pytest.raises(op.OperatorError, match="do not give the same measurements"):
        op.from_deepinv(Mixed(), (1, 8, 6))
