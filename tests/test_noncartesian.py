"""Non-Cartesian MRI: what the operator computes, density compensation, trajectories in other units."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
import torch

import operators as op
from operators.noncartesian import nufft, trajectory_fault


def grid(height: int, width: int) -> torch.Tensor:
    """The full Cartesian trajectory (H, W, 2) of k-space as `operators.MRI` has it."""
    axes = ((torch.arange(n, dtype=torch.float64) - n // 2) / n for n in (height, width))
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [(6, 8), (5, 7), (4, 9)])
def test_a_full_cartesian_trajectory_is_cartesian_mri(size):
    """Scale, centre and order of the axes; the density is 1 everywhere."""
    maps, x = noise(2, 3, *size), noise(2, 2, *size, seed=1)
    a, b = op.NonCartesianMRI(grid(*size), maps), op.MRI(torch.ones(size), maps)
    torch.testing.assert_close(a(x), b(x).flatten(2))
    torch.testing.assert_close(a.adjoint(a(x)), b.adjoint(b(x)))
    torch.testing.assert_close(a.normal(x), b.normal(x))
    weights = op.density_compensation(grid(*size), size)
    torch.testing.assert_close(weights, torch.ones_like(weights), rtol=1e-3, atol=0)


def test_samples_are_the_sum_that_is_written_down():
    points = op.spiral_trajectory(2, 9, 1.5).reshape(-1, 2)
    x = noise(5, 6)
    r, c = (torch.arange(n, dtype=torch.float64) - n // 2 for n in x.shape)
    angle = -2 * math.pi * (points[:, 0, None, None] * r[:, None] + points[:, 1, None, None] * c)
    expected = (torch.polar(torch.ones_like(angle), angle) * x).sum((1, 2))
    torch.testing.assert_close(nufft(x, points), expected)


def test_weights_are_those_of_weighted_data():
    points, w = op.radial_trajectory(4, 8), torch.arange(32.0, dtype=torch.float64)
    plain, weighted = (op.NonCartesianMRI(points, density=d, shape=(6, 6)) for d in (None, w))
    x = noise(1, 1, 6, 6)
    torch.testing.assert_close(weighted(x), w.sqrt() * plain(x))
    torch.testing.assert_close(weighted.normal(x), plain.adjoint(w * plain(x)))


@pytest.mark.parametrize("size", [32, 64])
def test_errors_of_the_transforms_do_not_grow_with_the_size(size):
    """Adjoint and normal operator to 1e-5 in float32 and 1e-9 in float64, and float32 near float64."""
    maps = op.simulate_coils(3, (size, size))
    a = op.NonCartesianMRI(op.radial_trajectory(size // 2, 2 * size).float(), maps)
    assert max(op.check(a, torch.float32, batch=2).values()) < 1e-5
    assert max(op.check(a, torch.float64, batch=2).values()) < 1e-9
    x = noise(1, 1, size, size)
    wide = a.to(torch.float64)(x)
    assert float((a(x.to(torch.complex64)) - wide).norm() / wide.norm()) < 1e-6


@pytest.mark.parametrize(
    "points",
    [
        op.radial_trajectory(80, 96),
        op.radial_trajectory(144, 64, golden=True),
        op.spiral_trajectory(8, 600, 5),
    ],
    ids=["radial", "golden", "spiral"],
)
def test_the_weighted_adjoint_of_full_data_is_the_image(points):
    """Of an image as smooth as what the disc of k-space holds; radial weights are the ramp."""
    size = (48, 48)
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, n, dtype=torch.float64) for n in size), indexing="ij")
    image = (torch.exp(-((y - 0.2) ** 2 + x**2) * 20) + 0.5j * torch.exp(-(y**2 + (x + 0.3) ** 2) * 40))[
        None, None
    ]
    weights = op.density_compensation(points, size)
    a = op.NonCartesianMRI(points, density=weights, shape=size)
    assert weights.shape == (points[..., 0].numel(),) and bool((weights > 0).all())
    assert float((a.normal(image) - image).norm() / image.norm()) < 0.01


def test_radial_weights_are_the_ramp():
    points = op.radial_trajectory(80, 96)
    weights = op.density_compensation(points, (48, 48)).view(80, 96)
    radius = points.norm(dim=-1)
    ring = (radius > 0.1) & (radius < 0.4)
    ramp = math.pi * radius / 80 / 96 * 48**2
    torch.testing.assert_close(weights[ring], ramp[ring], rtol=0.03, atol=0)


FAULTS = {
    "radians": (2 * math.pi, "radians per pixel", "2 * np.pi"),
    "pixels": (256.0, "cycles per field of view", "k / (256, 256)"),
    "normalised to 1": (2.0, "[-1, 1]", "k / 2"),
    "per metre": (1067.0, "per metre", "pixel size in metres"),
    "per millimetre": (1.2, "per millimetre", "pixel size in mm"),
}


@pytest.mark.parametrize("unit", FAULTS)
def test_a_trajectory_in_other_units_is_recognised(unit):
    factor, said, do = FAULTS[unit]
    fault = trajectory_fault(factor * op.radial_trajectory(4, 16), (256, 256))
    assert fault is not None and said in fault[1] and do in fault[2]
    with pytest.raises(op.OperatorError, match="cycles per pixel"):
        op.NonCartesianMRI(factor * op.radial_trajectory(4, 16), shape=(256, 256))


REFUSED = {
    "empty": (torch.zeros(0, 2), "empty"),
    "NaN": (torch.tensor([[0.1, math.nan]]), "1 numbers that are NaN"),
    "complex": (torch.zeros(4, 2, dtype=torch.complex64), "real"),
    "coordinates first": (torch.zeros(2, 9), "first axis looks like the coordinates"),
    "three dimensions": (torch.zeros(9, 3), r"k\[\.\.\., :2\]"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_trajectory_is_refused(name):
    with pytest.raises(op.OperatorError, match=REFUSED[name][1]) as caught:
        op.NonCartesianMRI(REFUSED[name][0], shape=(8, 8))
    assert len(str(caught.value).splitlines()) == 3


def test_sizes_and_weights_that_do_not_fit_are_refused():
    points = op.radial_trajectory(3, 8)
    for options, said in (
        ({}, "shape="),
        ({"shape": (8, 8), "density": torch.ones(7)}, "7 weights"),
        ({"shape": (8, 8), "density": -torch.ones(24)}, "negative"),
        ({"shape": (8, 9), "maps": noise(2, 8, 8)}, "Leave out shape"),
    ):
        with pytest.raises(op.OperatorError, match=said):
            op.NonCartesianMRI(points, **options)
    for make in (lambda: op.radial_trajectory(0, 4), lambda: op.spiral_trajectory(1, 4, -1.0)):
        with pytest.raises(op.OperatorError):
            make()


def test_without_finufft_the_pip_line_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_finufft", None)
    a = op.NonCartesianMRI(op.radial_trajectory(2, 4), shape=(4, 4))
    with pytest.raises(op.OperatorError, match=r"pip install 'recon-posterior\[noncart\]'"):
        a(torch.zeros(1, 1, 4, 4, dtype=torch.complex64))


def test_recon_check_takes_one_from_files(tmp_path, capsys):
    from recon.cli import main

    np.save(tmp_path / "k.npy", op.radial_trajectory(5, 16).float().numpy())
    given = ["--args", f"trajectory={tmp_path / 'k.npy'}", "shape=[12, 12]"]
    assert main(["check", "operators:NonCartesianMRI", *given]) == 0
    assert "All laws hold" in capsys.readouterr().out
