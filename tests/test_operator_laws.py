"""Laws of the operators, one test over the table each; then what single operators must compute."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.data import shepp_logan_phantom
from skimage.transform import iradon, radon, resize
from tables import OPERATORS
from torch import Tensor

import operators as op

ALL = pytest.mark.parametrize("make", OPERATORS.values(), ids=OPERATORS.keys())
PRECISIONS = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["fp32", "fp64"])
BOUND = {torch.float32: 1e-5, torch.float64: 1e-12}


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def image(a: op.Operator, rows: int = 2, seed: int = 0) -> Tensor:
    dtype = torch.complex128 if a.complex_domain else torch.float64
    return randn(rows * a.images, *a.domain, seed=seed, dtype=dtype)


def as_real(t: Tensor) -> Tensor:
    return (torch.view_as_real(t.resolve_conj()) if t.is_complex() else t).flatten(1)


def dense(call, shape: tuple[int, ...], is_complex: bool, images: int = 1) -> list[Tensor]:
    """The real matrix of a map (real and imaginary parts as coordinates), one for each image."""
    n = math.prod(shape)
    basis = torch.eye(n, dtype=torch.complex128 if is_complex else torch.float64)
    basis = torch.stack((basis, 1j * basis), 1).flatten(0, 1) if is_complex else basis
    out = as_real(call(basis.view(-1, *shape).repeat(images, *[1] * len(shape))))
    return [part.T for part in out.chunk(images)]


def matrix(a: op.Linear) -> Tensor:
    return torch.block_diag(*dense(a.forward, a.domain, a.complex_domain, a.images))


def adjoint_matrix(a: op.Linear) -> Tensor:
    return torch.block_diag(*dense(a.adjoint, a.codomain, a.complex_codomain, a.images))


@ALL
@PRECISIONS
def test_keeps_every_law_that_check_measures(make, dtype):
    report = op.check(make(), dtype=dtype)
    assert len(report) >= 12
    assert max(report.values()) <= BOUND[dtype]


@ALL
def test_adjoint_matrix_is_the_conjugate_transpose(make):
    a = make()
    torch.testing.assert_close(adjoint_matrix(a), matrix(a).T, rtol=1e-12, atol=1e-12)


@ALL
def test_its_norm_is_the_largest_singular_value(make):
    """Of each image's own operator where there are several."""
    a = make()
    found = op.operator_norm(a)
    matrices = dense(a.forward, a.domain, a.complex_domain, a.images)
    expected = torch.stack([torch.linalg.matrix_norm(m, 2) for m in matrices])
    assert found.shape == (a.images,)
    torch.testing.assert_close(found, expected.to(found.dtype), rtol=1e-6, atol=0)


@ALL
def test_states_its_codomain(make):
    a = make()
    y = a(image(a))
    assert tuple(y.shape[1:]) == a.codomain and y.is_complex() == a.complex_codomain
    assert a.H.codomain == tuple(a.domain) and a.H.complex_codomain == a.complex_domain


@ALL
def test_what_is_not_measured_is_zero(make):
    a = make()
    y, noise = a(image(a)), randn(2 * a.images, *a.codomain, seed=3, dtype=a(image(a)).dtype)
    kept = a.masked(noise)
    torch.testing.assert_close(a.masked(y), y, rtol=0, atol=0)
    torch.testing.assert_close(a.masked(kept), kept, rtol=0, atol=0)
    torch.testing.assert_close(a.adjoint(kept), a.adjoint(noise))
    if not isinstance(a, op.Sum):
        assert int((kept != 0).sum()) == 2 * a.images * a.measured


@ALL
def test_no_images_give_no_measurements(make):
    """A batch without rows: empty results of the right kind, with a gradient. Several images refuse it."""
    a = make()
    x, y = image(a)[:0].requires_grad_(), a(image(a))[:0].detach().requires_grad_()
    if a.images > 1:
        with pytest.raises(op.OperatorError, match="0 rows"):
            a(x)
        return
    for call, at, like in ((a, x, y), (a.adjoint, y, x), (a.normal, x, x)):
        out = call(at)
        assert out.shape == like.shape and out.dtype == like.dtype
        (gradient,) = torch.autograd.grad(as_real(out).sum(), at)
        assert gradient.shape == at.shape
    solved = a.solve_normal(x, 0.5)
    assert solved is None or solved.shape == x.shape


@ALL
def test_converts_to_another_precision_and_stays_itself(make):
    a = make()
    x = image(a)
    before = a(x)
    single = a.to(torch.float32)
    y = single(x.to(torch.complex64 if a.complex_domain else torch.float32))
    assert y.dtype.to_real() == torch.float32 and y.is_complex() == before.is_complex()
    torch.testing.assert_close(y, before.to(y.dtype), rtol=1e-5, atol=1e-5)
    back = single.to(torch.float64)
    assert back(x).dtype == before.dtype
    torch.testing.assert_close(a(x), before, rtol=0, atol=0)
    torch.testing.assert_close(a.to("cpu")(x), before, rtol=0, atol=0)


@ALL
def test_differentiates_twice(make):
    a = make()
    x = image(a, 1)
    y = a(image(a, 1, seed=1)).requires_grad_()
    x.requires_grad_()
    for call, at in ((a.forward, x), (a.adjoint, y), (a.normal, x)):
        torch.autograd.gradcheck(call, (at,), fast_mode=True)
        torch.autograd.gradgradcheck(call, (at,), fast_mode=True)
    (gradient,) = torch.autograd.grad(as_real(a(x) - y.detach()).square().sum() / 2, x, create_graph=True)
    torch.testing.assert_close(gradient, a.adjoint(a(x) - y))
    (hessian,) = torch.autograd.grad(gradient, x, v := image(a, 1, seed=2))
    torch.testing.assert_close(hessian, a.normal(v))


@ALL
def test_what_is_made_of_it_keeps_the_laws(make):
    a = make()
    for made in (a.H, a.N, 2.5 * a, -a, a + a, a - 0.5 * a, a.H @ a, a @ a.N, a.H.H, (a @ a.H).H):
        op.check(made, dtype=torch.float64, tol=1e-11)
    m = matrix(a)
    torch.testing.assert_close(matrix(a.N), m.T @ m)
    torch.testing.assert_close(matrix(a.H), m.T)
    torch.testing.assert_close(matrix(a.H @ a), m.T @ m)
    torch.testing.assert_close(matrix(a + a.to(torch.float64) * 0.5), 1.5 * m)
    torch.testing.assert_close(matrix(a @ op.Scale(3.0, tuple(a.domain), a.complex_domain)), 3 * m)


@ALL
def test_closed_form_survives_a_scale_on_either_side(make):
    a = make()
    b = image(a)
    if a.solve_normal(b, 0.3) is None:
        assert (2.0 * a).solve_normal(b, 0.3) is None
        return
    for made in (2.0 * a, a @ op.Scale(-0.5, tuple(a.domain), a.complex_domain), 0.0 * a):
        x = made.solve_normal(b, 0.3)
        torch.testing.assert_close(made.normal(x) + 0.3 * x, b)


@ALL
def test_copies_are_the_operator_itself(make):
    a = make()
    assert copy.deepcopy(a) is a


def test_complex_factors_and_products():
    a = op.Difference((1, 3, 4), complex_domain=True)
    turned = (0.6 + 0.8j) * a
    x = image(a)
    torch.testing.assert_close(turned(x), (0.6 + 0.8j) * a(x))
    torch.testing.assert_close(turned.normal(x), a.normal(x))
    op.check(turned, dtype=torch.float64)
    blur, mask = op.Blur(randn(3, 3), (1, 5, 6)), op.Inpainting(randn(5, 6) > 0).to(torch.float64)
    torch.testing.assert_close(matrix(mask @ blur), matrix(mask) @ matrix(blur))
    torch.testing.assert_close(matrix((mask @ blur).H), matrix(blur).T @ matrix(mask).T)


def test_per_image_rows_are_image_major():
    masks = [randn(5, 4, seed=i) > 0 for i in range(3)]
    a = op.PerImage(tuple(op.Inpainting(m) for m in masks))
    x = randn(6, 1, 5, 4)
    for i in range(3):
        torch.testing.assert_close(a(x)[2 * i : 2 * i + 2], x[2 * i : 2 * i + 2] * masks[i])


class Wrong(op.Linear):
    """A linear map of (1, 3, 4) with one of its parts replaced."""

    domain = (1, 3, 4)

    def __init__(self, **parts):
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return 2 * x


def mutate(x):
    return x.mul_(2)


FAULTS = {
    "<A x, y>": {"adjoint": lambda y: 2.001 * y},
    "linear": {"forward": lambda x: x * x.abs()},
    "linear (affine)": {"forward": lambda x: 2 * x + 1},
    "rows of a batch": {"forward": lambda x: 2 * x + 1e-3 * x.mean(0, keepdim=True)},
    "untouched": {"forward": mutate},
    "adjoint leaves its input": {"adjoint": mutate},
    "dtype": {"forward": lambda x: 2 * x.double() if x.dtype == torch.float32 else x.float()},
    "shape": {"adjoint": lambda y: 2 * y[..., :2]},
    "finite": {"forward": lambda x: x / 0},
    "normal": {"normal": lambda x: 3 * x},
    "solve_normal": {"solve_normal": lambda b, weight: b / (2 + weight)},
    "forward is differentiable": {"forward": lambda x: 2 * x.detach(), "adjoint": lambda y: 2 * y},
    "adjoint is differentiable": {"adjoint": lambda y: 2 * y.detach()},
}


@pytest.mark.parametrize("law", FAULTS)
def test_check_catches(law):
    with pytest.raises(op.LawBroken, match=law.split(" (")[0]) as caught:
        op.check(Wrong(**FAULTS[law]), dtype=torch.float32)
    assert not caught.value.error <= caught.value.bound


def test_check_catches_an_adjoint_without_conjugation():
    class Turn(op.Linear):
        domain, complex_domain = (1, 3, 4), True

        def forward(self, x):
            return 1j * x

        def adjoint(self, y):
            return 1j * y

    with pytest.raises(op.LawBroken, match="<A x, y>"):
        op.check(Turn())
    assert op.check(Wrong()) and op.check(Wrong(), dtype=torch.float64)


def test_check_takes_nonlinear_operators():
    class Square(op.Operator):
        domain = (1, 3, 4)

        def forward(self, x):
            return x.square()

    assert "linear" not in op.check(Square())


def test_an_operator_in_five_lines():
    class Convolve(op.Linear):
        domain = (1, 6, 5)
        otf = torch.fft.fft2(F.pad(randn(3, 3), (0, 2, 0, 3)))

        def forward(self, x):
            return torch.fft.ifft2(torch.fft.fft2(x) * self.otf.to(x.dtype.to_complex())).real

    op.check(Convolve(), dtype=torch.float64)
    torch.testing.assert_close(adjoint_matrix(Convolve()), matrix(Convolve()).T)


sizes = st.integers(1, 9)
once = settings(max_examples=20, deadline=None)


@once
@given(h=sizes, w=sizes, channels=st.integers(1, 3), seed=st.integers(0, 99))
def test_inpainting_of_any_shape(h, w, channels, seed):
    mask = randn(h, w, seed=seed) > 0
    a = op.Inpainting(mask, channels)
    op.check(a, dtype=torch.float64)
    x = image(a)
    torch.testing.assert_close(a(x)[..., mask], x[..., mask])
    assert (a(x)[..., ~mask] == 0).all()


@once
@given(
    factor=st.integers(1, 5),
    h=st.integers(2, 4),
    w=st.integers(2, 4),
    filter=st.sampled_from(["bicubic", "box", "gaussian"]),
    padding=st.sampled_from(["circular", "reflect"]),
)
def test_super_resolution_of_any_size(factor, h, w, filter, padding):
    a = op.SuperResolution((2, h * factor, w * factor), factor, filter, padding)
    op.check(a, dtype=torch.float64)
    assert a.codomain == (2, h, w)
    ones = torch.ones(1, *a.domain)
    torch.testing.assert_close(a(ones), torch.ones(1, 2, h, w))


@once
@given(h=sizes, w=sizes, kh=sizes, kw=sizes)
def test_blur_of_any_size(h, w, kh, kw):
    kernel = randn(min(h, kh), min(w, kw))
    a = op.Blur(kernel, (1, h, w))
    op.check(a, dtype=torch.float64, tol=1e-11)
    x = image(a, 1)
    (top, left), shifts = (k // 2 for k in kernel.shape), np.ndindex(*kernel.shape)
    expected = sum(kernel[i, j] * x.roll((i - top, j - left), (-2, -1)) for i, j in shifts)
    torch.testing.assert_close(a(x), expected)


@once
@given(
    size=st.integers(1, 8),
    angles=st.lists(st.floats(-400, 400), min_size=1, max_size=4),
    detectors=st.sampled_from([None, 1, 3, 12]),
)
def test_ct_of_any_geometry(size, angles, detectors):
    op.check(op.CT(size, angles, detectors=detectors), dtype=torch.float64)


@once
@given(shape=st.lists(st.integers(1, 4), min_size=1, max_size=3), data=st.data())
def test_difference_along_any_axes(shape, data):
    axes = data.draw(st.lists(st.integers(-len(shape), -1), min_size=1, max_size=3, unique=True))
    for boundary in ("neumann", "circular"):
        a = op.Difference(tuple(shape), tuple(axes), boundary)
        op.check(a, dtype=torch.float64)
        x = image(a, 1)
        for d, axis in zip(a(x).unbind(1), axes, strict=True):
            append = {"append": x.narrow(axis, 0 if boundary == "circular" else -1, 1)}
            torch.testing.assert_close(d, x.diff(dim=axis, **append))


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_bicubic_is_the_antialiased_resize(factor):
    x = randn(1, 3, 16 * factor, 12 * factor)
    expected = F.interpolate(x, scale_factor=1 / factor, mode="bicubic", antialias=True)
    inside = (..., slice(2, -2), slice(2, -2))  # borders differ: torch shortens the filter there
    for padding in ("circular", "reflect"):
        y = op.SuperResolution((3, *x.shape[2:]), factor, padding=padding)(x)
        torch.testing.assert_close(y[inside], expected[inside], rtol=0, atol=1e-6)
    box = op.SuperResolution((3, *x.shape[2:]), factor, "box")(x)
    torch.testing.assert_close(box, F.avg_pool2d(x, factor))


def test_kernels():
    for kernel in (op.gaussian_kernel(1.3), op.motion_kernel(7.0, 30.0), op.motion_kernel(4.0, 90.0)):
        torch.testing.assert_close(kernel.sum(), torch.tensor(1.0))
        torch.testing.assert_close(kernel, kernel.flip(0, 1))  # centred: blur moves nothing
    across = op.motion_kernel(7.0, 0.0)
    assert across.sum(1).argmax() == len(across) // 2 and across.sum(1).max() > 1 - 1e-6
    rising = op.motion_kernel(7.0, 45.0)
    assert rising[1, -2] + rising[2, -3] > 0 and rising[1, 1] == 0


def test_a_bent_path_is_as_long_as_a_straight_one_and_covers_less():
    straight, bent = op.motion_kernel(15.0, 0.0), op.motion_kernel(15.0, 0.0, bend=90.0, seed=3)
    assert bent.shape[0] == bent.shape[1] < len(straight) and len(bent) % 2 == 1
    torch.testing.assert_close(bent.sum(), torch.tensor(1.0))
    assert (bent > 0.01).sum(1).count_nonzero() > 3  # more than the one row of a straight one
    assert not torch.equal(bent, op.motion_kernel(15.0, 0.0, bend=90.0, seed=4))


def test_an_anisotropic_gaussian_has_its_two_widths():
    for angle in (0.0, 30.0, 90.0):
        kernel = op.anisotropic_kernel(3.0, 1.0, angle).double()
        pixels = torch.arange(len(kernel)).double() - len(kernel) // 2
        turn = math.radians(angle)
        along = pixels * math.cos(turn) - pixels[:, None] * math.sin(turn)
        across = -pixels[:, None] * math.cos(turn) - pixels * math.sin(turn)
        for place, width in ((along, 3.0), (across, 1.0)):
            assert abs(float((kernel * place**2).sum()) ** 0.5 - width) < 0.01
    torch.testing.assert_close(op.anisotropic_kernel(1.3, 1.3), op.gaussian_kernel(1.3))


def test_brush_strokes_have_their_thickness():
    one = op.brush_mask((64, 96), 1, 9.0, seed=1)
    assert not torch.equal(one, op.brush_mask((64, 96), 1, 9.0, seed=2))
    assert (one >= op.brush_mask((64, 96), 4, 9.0, seed=1)).all()  # more strokes only hide more
    assert (op.brush_mask((64, 96), 1, 5.0, seed=1) >= one).all()
    hidden = (~one).float()[None, None]
    assert (
        F.max_pool2d(-F.max_pool2d(-hidden, 7, 1), 7, 1).sum() > 0.5 * hidden.sum()
    )  # an opening by 7 x 7 stays


def test_colours_become_the_lightness_that_pictures_have():
    from PIL import Image

    rgb = np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8)
    ours = op.Colourisation((3, 6, 5))(torch.as_tensor(rgb).permute(2, 0, 1)[None].float())
    theirs = torch.as_tensor(np.asarray(Image.fromarray(rgb).convert("L")).astype(np.float32))
    torch.testing.assert_close(ours[0, 0], theirs, rtol=0, atol=1.0)


def test_fourier_transform_is_centred_and_unitary():
    x = randn(1, 1, 5, 6, dtype=torch.complex128)
    torch.testing.assert_close(op.ifft2c(op.fft2c(x)), x)
    torch.testing.assert_close(op.fft2c(x).norm(), x.norm())
    flat = op.fft2c(torch.ones(1, 1, 5, 6, dtype=torch.complex128)).abs()
    assert flat[0, 0, 2, 3] > 5 and flat.sum() < 5.5


@pytest.fixture(scope="module")
def phantom() -> np.ndarray:
    smooth = resize(shepp_logan_phantom(), (64, 64), anti_aliasing=True)
    return np.roll(smooth, (4, 3), (0, 1))  # off the middle, so that no symmetry hides a flip


def test_ct_measures_line_integrals(phantom):
    size = 64
    a = op.CT(size, [0.0, 90.0]).to(torch.float64)
    x = torch.as_tensor(phantom)[None, None]
    # At 0 degrees rays run along the columns, at 90 along the rows, the first detector at the bottom.
    margin = (a.detectors - 1) / 2 - (size - 1) / 2
    grid = np.arange(a.detectors) - margin
    for sinogram, sums in zip(a(x)[0, 0].numpy(), (phantom.sum(0), phantom.sum(1)[::-1]), strict=True):
        expected = np.interp(grid, np.arange(size), sums, left=0, right=0)
        inner = (grid >= 0) & (grid <= size - 1)
        np.testing.assert_allclose(sinogram[inner], expected[inner], rtol=1e-5, atol=1e-5)
    # A centred disc of radius r has chords 2 sqrt(r^2 - s^2) at every angle.
    fine = (torch.arange(size * 8) + 0.5) / 8 - size / 2
    disc = ((fine[:, None] ** 2 + fine**2) < 20**2).double()
    disc = F.avg_pool2d(disc[None, None], 8)
    turned = op.CT(size, [0.0, 31.0, 45.0, 200.0]).to(torch.float64)
    s = torch.arange(turned.detectors) - (turned.detectors - 1) / 2
    chords = 2 * (20**2 - s**2).clamp(min=0).sqrt()
    assert ((turned(disc)[0, 0] - chords)[:, s.abs() < 18].abs() < 0.75).all()
    assert abs(turned(disc).sum() / 4 - disc.sum()) < 0.01 * disc.sum()


def test_ct_agrees_with_scikit_image(phantom):
    angles = np.arange(0.0, 180.0, 5.0)
    theirs = radon(phantom, angles, circle=False).T
    ours = op.CT(64, angles, detectors=theirs.shape[1] + 1).to(torch.float64)(
        torch.as_tensor(phantom)[None, None]
    )
    # Their middle is a pixel, ours lies between two: compare at the detectors' own places.
    ours = ours[0, 0].numpy()
    grid, off = np.arange(theirs.shape[1]), np.deg2rad(angles)
    moved = np.stack(
        [
            np.interp(grid + 0.5 + 0.5 * (np.cos(a) - np.sin(a)), np.arange(ours.shape[1]), row)
            for a, row in zip(off, ours, strict=True)
        ]
    )
    error = np.linalg.norm(moved - theirs) / np.linalg.norm(theirs)
    assert error < 0.03, error


@pytest.mark.parametrize("arc", [180, 360])
def test_filtered_back_projection_recovers_the_image(phantom, arc):
    angles = np.arange(0.0, arc, 1.0)
    a = op.CT(64, angles).to(torch.float64)
    ours = a.fbp(a(torch.as_tensor(phantom)[None, None]))[0, 0].numpy()
    theirs = iradon(radon(phantom, angles, circle=False), angles, circle=False)

    def error(image: np.ndarray) -> float:
        return float(np.sqrt(np.mean((image - phantom) ** 2)))

    assert error(ours) <= 1.05 * error(theirs)


def test_ct_adjoint_is_cheap_to_differentiate():
    """torch's own backward of a CSR product is hundreds of times slower than the product."""
    a = op.CT(32, range(0, 180, 10))
    x = torch.randn(1, 1, 32, 32, requires_grad=True)
    y = a(x)
    assert "Product" in type(y.grad_fn).__name__


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_all_work_on_a_gpu():
    for make in OPERATORS.values():
        a = make()
        x = image(a)
        there = a.to("cuda")
        torch.testing.assert_close(there(x.cuda()).cpu(), a(x))
        op.check(there, dtype=torch.float64)
