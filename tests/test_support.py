"""Where an object may be: never a hole, never a pixel of the object left out, over the range that scans come in."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_fill_holes

from operators.coils import rss
from operators.fourier import ifft2c
from operators.maps.espirit import espirit, kernel_size
from operators.maps.support import solid
from recon.benchmark.scans.simulated import simulate_scan
from recon.io.images import read_stack

RANGE = [*product((2, 4, 8), (64, 96), (4, 8, 16, 24), (0.003, 0.02))]


def head(height: int = 72, width: int = 64) -> torch.Tensor:
    """A bright rim around darker tissue, with a large cavity of air in its middle: (H, W)."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    radius = torch.hypot(y / 0.85, x / 0.7)
    tissue = (radius < 0.8) * (0.35 + 0.1 * torch.sin(9 * x) * torch.cos(7 * y))
    return tissue * (torch.hypot(y + 0.1, x) > 0.25) + ((radius - 0.87).abs() < 0.07)


def support_of(scan) -> torch.Tensor:
    maps, _ = espirit(scan.y, scan.mask, (48, 24), crop=None, phase="image")
    return rss(maps[0]) > 0


def lit(scan) -> torch.Tensor:
    """The pixels of the object: above a tenth of the maximum."""
    return scan.reference > 0.1 * scan.reference.max()


@pytest.mark.parametrize(("coils", "matrix", "lines", "noise"), RANGE)
def test_no_pixel_of_the_object_is_outside_the_support(coils, matrix, lines, noise):
    scan = simulate_scan(head(), coils=coils, matrix=matrix, lines=lines, accel=2, noise=noise)
    support = support_of(scan)
    assert not (lit(scan) & ~support).any()
    assert np.array_equal(binary_fill_holes(support.numpy()), support.numpy())


@pytest.mark.parametrize(
    ("coils", "matrix", "lines", "accel"), [(4, 96, 8, 4), (8, 128, 4, 6), (16, 96, 8, 4)]
)
@pytest.mark.parametrize("index", [3, 12])
def test_no_pixel_of_a_brain_is_outside_the_support(shared_data, coils, matrix, lines, accel, index):
    image = read_stack(shared_data / "mri/eval/openms_eval.npz", index)
    scan = simulate_scan(image, coils=coils, matrix=matrix, lines=lines, accel=accel, noise=0.01)
    assert not (lit(scan) & ~support_of(scan)).any()


def test_an_object_fills_its_outline():
    found = torch.zeros(60, 50, dtype=torch.bool)
    found[10:50, 10:40] = True
    outline = found.clone()
    found[20:40, 18:32] = False  # a cavity
    found[10:25, 24] = False  # and a crack to it
    assert torch.equal(solid(found, (0, 0))[11:], outline[11:])  # all but the mouth of the crack
    wider = solid(found, (3, 0))
    assert wider[7, 25] and not wider[6, 25] and not wider[25, 9]


def test_where_nothing_is_found_anything_may_be():
    assert solid(torch.zeros(8, 9, dtype=torch.bool), (1, 1)).all()


def test_the_kernel_grows_with_the_centre_and_fits_it():
    assert [kernel_size(lines, 8) for lines in (3, 4, 6, 8, 13, 14, 21, 22, 48)] == [
        3,
        3,
        4,
        4,
        4,
        5,
        5,
        6,
        6,
    ]
    assert kernel_size(24, 2) == 7 and all(kernel_size(n, c) <= n for n in range(3, 40) for c in (1, 2, 4))


def test_noise_does_not_become_maps():
    """At every level of noise the maps of the true object explain its coil images."""
    for noise in (0.001, 0.01, 0.03):
        scan = simulate_scan(head(), coils=6, matrix=72, lines=24, accel=2, noise=noise)
        clean = simulate_scan(head(), coils=6, matrix=72, lines=24, accel=2, noise=0.0)
        maps, _ = espirit(scan.y, scan.mask, (48, 24), crop=0.0)
        images = ifft2c(clean.kspace)[:, scan.support]
        there = maps[0][:, scan.support]
        explained = there * (there.conj() * images).sum(0)
        assert (images - explained).norm() < 0.06 * images.norm()
