"""Computed tomography: the laws of every geometry and backend, discs of known chords, FBP, derivatives, the disk."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from skimage.data import shepp_logan_phantom
from skimage.transform import resize
from torch import Tensor

import operators as op
from operators.ct import cache, gathered
from operators.ct.filtering import redundancy

F64 = torch.float64
ANGLES = torch.linspace(-30, 330, 7)
FAN = dict(geometry="fan", source=20.0, detector=31.0)
CONE = dict(geometry="cone", source=20.0, detector=31.0, slices=3, rows=4)
PLANES = {
    "parallel": {},
    "parallel, fine detectors": dict(pitch=0.4, detectors=20),
    "parallel, coarse detectors": dict(pitch=2.3),
    "parallel, axis aside": dict(axis=2.7, detectors=12),
    "fan": FAN,
    "fan, fine detectors": dict(FAN, pitch=0.5),
    "fan, coarse detectors, axis aside": dict(FAN, pitch=3.1, axis=4.2),
    "fan in mm": dict(FAN, pixel=0.15, source=3.0, detector=5.0, pitch=0.3),
}
VOLUMES = {
    "cone": CONE,
    "cone, fine detectors": dict(CONE, pitch=0.6, rows=9),
    "cone, coarse detectors": dict(CONE, pitch=3.0, rows=2, axis=3.3),
    "cone of one slice": dict(CONE, slices=1, rows=1),
}


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(len(shape)))


@pytest.mark.parametrize("backend", ["stored", "gathered"])
@pytest.mark.parametrize("name", PLANES)
def test_every_plane_keeps_the_laws(name, backend):
    op.check(op.CT(9, ANGLES, backend=backend, **PLANES[name]), dtype=F64)


@pytest.mark.parametrize("name", VOLUMES)
def test_every_volume_keeps_the_laws(name):
    op.check(op.CT(7, ANGLES, **VOLUMES[name]), dtype=F64)
    op.check(op.CT(7, ANGLES, **VOLUMES[name]))


@pytest.mark.parametrize("name", PLANES)
def test_both_backends_have_the_same_weights(name):
    stored, free = (op.CT(16, ANGLES, backend=each, **PLANES[name]) for each in ("stored", "gathered"))
    for dtype, bound in ((torch.float32, 1e-5), (F64, 1e-7)):  # the stored ones are rounded to float32
        a, b = stored.to(dtype), free.to(dtype)
        x, y = randn(2, *a.domain).to(dtype), randn(2, *a.codomain).to(dtype)
        for ours, theirs in ((a(x), b(x)), (a.adjoint(y), b.adjoint(y))):
            assert (ours - theirs).norm() <= bound * theirs.norm()


def test_a_cone_beam_s_plane_of_the_source_is_a_fan_beam():
    fan = op.CT(12, ANGLES, **FAN, backend="gathered")
    cone = op.CT(12, ANGLES, "cone", fan.detectors, source=20.0, detector=31.0, slices=1, rows=1)
    x, y = randn(1, 1, 12, 12), randn(1, *fan.codomain)
    torch.testing.assert_close(cone(x[:, :, None])[:, :, :, 0], fan(x))
    torch.testing.assert_close(cone.adjoint(y[:, :, :, None])[:, :, 0], fan.adjoint(y))


def test_a_far_source_is_a_parallel_beam():
    x = randn(1, 1, 12, 12)
    parallel = op.CT(12, ANGLES, detectors=18)
    for source in (1e6, 1e7):
        fan = op.CT(12, ANGLES, "fan", 18, source=source, detector=1.5 * source)
        assert (fan.to(F64)(x) - parallel.to(F64)(x)).norm() < 3e2 / source * x.norm()


def disc(size: int, radius: float, u: float, v: float, fine: int = 16) -> Tensor:
    """A disc at (u, v) on a square of side 2, each pixel the share of it that is covered: (1, 1, size, size)."""
    place = (torch.arange(size * fine, dtype=F64) + 0.5) / (size * fine) * 2 - 1
    inside = (place - u) ** 2 + (-place[:, None] - v) ** 2 < radius**2
    return F.avg_pool2d(inside.double()[None, None], fine)


@pytest.mark.parametrize("name", ["parallel", "fan"])
def test_a_smooth_disc_has_its_chords_to_second_order(name):
    """A paraboloid ``1 - |p|^2 / r^2``, of which a ray at distance t has the integral ``4 / 3 (r^2 - t^2)^(3/2) / r^2``."""
    radius, centre = 0.5, torch.tensor([0.21, -0.13], dtype=F64)
    angles = torch.arange(0, 360, 23.0)
    turn = torch.deg2rad(angles.double())[:, None]
    errors = []
    for size in (64, 128):
        options = {} if name == "parallel" else dict(geometry="fan", source=4.0, detector=6.0)
        a = op.CT(size, angles, pixel=2 / size, detectors=2 * size, pitch=4 / (2 * size), **options).to(F64)
        place = (torch.arange(size, dtype=F64) + 0.5) / size * 2 - 1
        squared = (place - centre[0]) ** 2 + (-place[:, None] - centre[1]) ** 2
        image = (1 - squared / radius**2).clamp_min(0)[None, None]
        s = (torch.arange(2 * size, dtype=F64) - (2 * size - 1) / 2) * 4 / (2 * size)
        lateral = centre[0] * turn.cos() + centre[1] * turn.sin()
        if name == "parallel":
            distance = s - lateral
        else:
            depth = 4 + centre[1] * turn.cos() - centre[0] * turn.sin()
            distance = (s * depth - 6 * lateral) / torch.sqrt(s**2 + 36)
        expected = 4 / 3 * (radius**2 - distance**2).clamp_min(0) ** 1.5 / radius**2
        errors.append(float((a(image)[0, 0] - expected).norm() / expected.norm()))
    assert errors[1] < 1e-3 and errors[0] / errors[1] > 3.3, errors


def test_a_disc_has_its_chords():
    size, radius, u, v = 128, 0.4, 0.2, -0.3
    a = op.CT(size, ANGLES, pixel=2 / size).to(F64)
    s = (torch.arange(a.detectors, dtype=F64) - (a.detectors - 1) / 2) * 2 / size
    turn = torch.deg2rad(ANGLES.double())[:, None]
    distance = s - u * turn.cos() - v * turn.sin()
    chords = 2 * (radius**2 - distance**2).clamp_min(0).sqrt()
    error = (a(disc(size, radius, u, v))[0, 0] - chords).norm() / chords.norm()
    assert error < 0.01


def test_a_ball_has_its_chords_in_a_cone_beam():
    size, slices, radius, source, detector = 48, 28, 11.0, 120.0, 200.0
    a = op.CT(size, [0.0, 70.0], "cone", 90, source=source, detector=detector, slices=slices, rows=50).to(F64)
    place = torch.arange(size, dtype=F64) - (size - 1) / 2
    height = torch.arange(slices, dtype=F64) - (slices - 1) / 2
    centre = torch.tensor([3.0, -4.0, 2.0], dtype=F64)
    squared = (
        (place - centre[0]) ** 2
        + (-place[:, None] - centre[1]) ** 2
        + ((height - centre[2]) ** 2)[:, None, None]
    )
    ball = (1 - squared / radius**2).clamp_min(0)[None, None]
    s = (torch.arange(90, dtype=F64) - 44.5) * a.geometry.pitch
    h = ((torch.arange(50, dtype=F64) - 24.5) * a.geometry.pitch)[:, None]
    for view, angle in enumerate(a.angles):
        turn = torch.tensor(math.radians(angle), dtype=F64)
        w, e = torch.stack((-turn.sin(), turn.cos())), torch.stack((turn.cos(), turn.sin()))
        to = torch.cat(
            (
                detector * w + s[:, None] * e + torch.zeros(50, 1, 1),
                h[..., None] + torch.zeros(50, 90, 1),
            ),
            -1,
        )
        start = torch.cat((-source * w, torch.zeros(1)))
        distance = torch.linalg.cross(to, (centre - start).expand_as(to)).norm(dim=-1) / to.norm(dim=-1)
        expected = 4 / 3 * (radius**2 - distance**2).clamp_min(0) ** 1.5 / radius**2
        error = (a(ball)[0, 0, view] - expected).norm() / expected.norm()
        assert error < 0.01, (angle, error)


@pytest.fixture(scope="module")
def phantom() -> Tensor:
    """(1, 1, 96, 96), off the middle, so that no symmetry hides a flip."""
    smooth = resize(shepp_logan_phantom(), (96, 96), anti_aliasing=True)
    return torch.as_tensor(np.roll(smooth, (4, 3), (0, 1)))[None, None].float()


@pytest.mark.parametrize(
    ("options", "arc"),
    [
        ({}, 180),
        ({}, 360),
        (dict(axis=80.0, detectors=150, pitch=0.9), 180),
        (dict(geometry="fan", source=150.0, detector=220.0), 360),
        (dict(geometry="fan", source=150.0, detector=220.0), 250),
        (dict(geometry="fan", source=15.0, detector=22.0, pixel=0.1, pitch=0.13, axis=90.0), 360),
    ],
)
def test_filtered_back_projection_of_every_geometry(phantom, options, arc):
    a = op.CT(96, torch.arange(0, arc, 1.0), **options)
    image = a.fbp(a(phantom))
    # as good as scikit-image's of the parallel beam, which test_operator_laws compares with
    assert (image - phantom).square().mean().sqrt() < 0.04
    assert abs(image.mean() / phantom.mean() - 1) < 0.01


def test_fdk_recovers_the_middle_of_a_volume(phantom):
    slices = 9
    profile = (torch.arange(slices) - 4).abs() < 3
    volume = F.avg_pool2d(phantom, 2)[:, :, None] * profile[:, None, None]
    a = op.CT(48, torch.arange(0, 360, 6.0), "cone", source=150.0, detector=220.0, slices=slices)
    image = a.fbp(a(volume))
    assert (image - volume)[0, 0, 2:7].square().mean().sqrt() < 0.06
    assert abs(image[0, 0, 4].mean() / volume[0, 0, 4].mean() - 1) < 0.02


@pytest.mark.parametrize("arc", [200.0, 230.0, 300.0])
def test_lines_that_are_measured_twice_count_once(arc):
    """The weights of a ray and of its reverse, half a turn and twice its fan angle away, sum to 1."""
    step = 0.5
    a = op.CT(16, torch.arange(0, arc, step), "fan", 33, source=40.0, detector=60.0)
    weights, fan = redundancy(a.geometry), torch.rad2deg(a.geometry.fan)
    views = torch.arange(0, arc, step, dtype=F64)
    wide = (arc - 180) / 2
    for detector in range(33):
        if abs(float(fan[detector])) > wide:
            continue
        reverse = views + 180 - 2 * fan[detector]
        both = reverse < arc - step
        its = np.interp(reverse[both], views, weights[:, 32 - detector])
        torch.testing.assert_close(
            weights[both, detector] + torch.as_tensor(its),
            torch.ones(int(both.sum()), dtype=F64),
            atol=0.02,
            rtol=0,
        )


@pytest.mark.parametrize("backend", ["stored", "gathered"])
def test_torch_func_differentiates_it(backend):
    a = op.CT(6, [0.0, 30.0, 100.0], backend=backend).to(F64)
    x, t = randn(2, *a.domain), randn(2, 1, 6, 6).flip(0)
    y = randn(2, *a.codomain)
    out, pull = torch.func.vjp(a.forward, x)
    torch.testing.assert_close(out, a(x))
    torch.testing.assert_close(pull(y)[0], a.adjoint(y))
    torch.testing.assert_close(torch.func.jvp(a.forward, (x,), (t,))[1], a(t))
    each = torch.func.vmap(lambda one: a.forward(one[None])[0])(x)
    torch.testing.assert_close(each, a(x))
    jacobian = torch.func.jacrev(lambda one: a.forward(one[None])[0])(x[0])
    torch.testing.assert_close(torch.einsum("cvdkij,kij->cvd", jacobian, x[0]), a(x)[0])
    image = x.clone().requires_grad_()
    (first,) = torch.autograd.grad(a(image).square().sum(), image, create_graph=True)
    (second,) = torch.autograd.grad((first * t).sum(), image)
    torch.testing.assert_close(second, 2 * a.normal(t))


@pytest.mark.parametrize("options", [FAN, pytest.param(CONE, marks=pytest.mark.full)], ids=["fan", "cone"])
def test_the_compiled_products_are_the_same(monkeypatch, options):
    monkeypatch.setattr(gathered, "WORTH_COMPILING", 0)
    a = op.CT(8, ANGLES, **options, backend="gathered")
    assert a.gathered.compiled
    x, y = randn(1, *a.domain), randn(1, *a.codomain)
    plain = gathered.Gathered(a.geometry, compiled=False)
    volume, rays = x.view(1, -1, 8, 8), y.view(1, *plain.shape)
    torch.testing.assert_close(a.pixel * plain.forward(volume).view(y.shape), a(x))
    torch.testing.assert_close(a.pixel * plain.adjoint(rays).view(x.shape), a.adjoint(y))


def test_a_compiler_that_fails_is_said_and_done_without(monkeypatch):
    def fails(*_):
        raise RuntimeError("no g++ here\nand more")

    monkeypatch.setattr(torch, "compile", lambda product, **_: fails)
    either = gathered.fastest.__wrapped__(torch.add, True)
    with pytest.warns(UserWarning, match="no g\\+\\+ here"):
        assert either(torch.ones(()), 1) == 2
    assert either(torch.ones(()), 2) == 3


@pytest.fixture
def disk(monkeypatch, tmp_path) -> Path:
    monkeypatch.setenv("RECON_CACHE", str(tmp_path))
    monkeypatch.setattr(cache, "WORTH_KEEPING", 0)
    return tmp_path / "ct"


def test_weights_are_kept_on_disk(disk, monkeypatch):
    first = op.CT(8, ANGLES)
    (place,) = disk.iterdir()
    monkeypatch.setattr("operators.ct.stored.built", lambda *_: pytest.fail("computed again"))
    again = op.CT(8, ANGLES)
    assert torch.equal(first.matrix.to_dense(), again.matrix.to_dense())
    assert torch.equal(first.transpose.to_dense(), again.transpose.to_dense())
    monkeypatch.undo()
    monkeypatch.setenv("RECON_CACHE", str(disk.parent))
    (place / "2.npy").write_bytes(b"damaged")
    torch.testing.assert_close(op.CT(8, ANGLES).matrix.to_dense(), first.matrix.to_dense())


def test_the_disk_holds_so_much_and_no_more(disk, monkeypatch):
    op.CT(8, ANGLES)
    one = sum(part.stat().st_size for part in disk.rglob("*.npy"))
    monkeypatch.setattr(cache, "MOST_KEPT", int(2.5 * one))
    for axis in (3.0, 3.5, 4.0, 4.5):
        op.CT(8, ANGLES, axis=axis)
    assert len(list(disk.iterdir())) == 2


def test_a_disk_that_takes_nothing_is_done_without(disk, monkeypatch):
    disk.write_text("a file, not a folder")
    assert op.CT(8, ANGLES).matrix.shape[0] > 0
    monkeypatch.setenv("RECON_CACHE", "off")
    assert cache.weights_folder() is None


def test_angles_that_look_like_radians_are_said():
    with pytest.warns(UserWarning, match="torch.rad2deg"):
        op.CT(8, torch.linspace(0, math.pi, 30))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        op.CT(8, torch.linspace(0, 180, 30))
        op.CT(8, [0.0, 1.0, 2.0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(geometry="spiral"), "no geometry 'spiral'"),
        (dict(geometry="fan"), "no distances"),
        (dict(geometry="fan", source=5.0, detector=30.0), "lies between source and detector"),
        (dict(geometry="fan", source=50.0, detector=30.0), "lies between source and detector"),
        (dict(geometry="cone", source=20.0, detector=30.0, slices=40), "steeper than 45 degrees"),
        (dict(source=20.0), "rays have no origin"),
        (dict(slices=3), "one row of detectors"),
        (dict(pitch=0.0), "A distance is positive"),
        (dict(pixel=-1.0), "positive length"),
        (dict(backend="cuda"), "no backend 'cuda'"),
        (dict(CONE, backend="stored"), "not stored"),
        (dict(detectors=0), "at least one of each"),
        (dict(axis=float("nan")), "both are finite"),
    ],
)
def test_refused(options, message):
    with pytest.raises(op.OperatorError, match=message):
        op.CT(8, ANGLES, **options)
