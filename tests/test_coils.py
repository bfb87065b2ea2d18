"""Coils: compression, whitening, noise level within 15 %, simulated sensitivities."""

from __future__ import annotations

import h5py
import pytest
import torch

from operators.coils import compress, noise_covariance, noise_level, rss, simulate_coils, whiten
from operators.errors import OperatorError
from operators.fourier import fft2c, ifft2c
from operators.masks import make_mask

SHAPE = (128, 128)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    """Complex noise of unit variance per real component."""
    return 2**0.5 * torch.randn(*shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(seed))


def anatomy(coils: int, shape: tuple[int, int] = SHAPE) -> torch.Tensor:
    """k-space of a head with edges and texture at all scales; its image is at most 1."""
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in shape), indexing="ij")
    radius = ((x / 0.7).square() + (y / 0.85).square()).sqrt()
    rough = torch.randn(1, 1, *shape, generator=torch.Generator().manual_seed(9))
    texture = sum(
        torch.nn.functional.interpolate(rough[..., :n, :n], size=shape, mode="bicubic")[0, 0]
        for n in (6, 12, 24)
    )
    image = (radius < 1) * (0.4 + 0.1 * texture).clamp(0, 1) + 0.3 * ((radius > 0.9) & (radius < 1))
    return fft2c(simulate_coils(coils, shape) * image.clamp(0, 1))


@pytest.mark.parametrize("coils", [1, 4, 8])
@pytest.mark.parametrize("sigma", [0.1, 0.02, 0.005, 0.001])
@pytest.mark.parametrize("mask", ["full", "random", "equispaced-fraction", "zero-padded"])
def test_noise_level_is_right_at_any_snr(coils, sigma, mask):
    kspace = anatomy(coils) + sigma * noise(coils, *SHAPE)
    if mask == "zero-padded":
        kspace[..., :24] = kspace[..., 104:] = 0
    elif mask != "full":
        kspace = kspace * make_mask(mask, SHAPE)
    assert float(noise_level(kspace)) == pytest.approx(sigma, rel=0.15)


@pytest.mark.parametrize("mask", ["poisson", "radial"])
def test_noise_level_of_plane_masks(mask):
    kspace = (anatomy(8) + 0.02 * noise(8, *SHAPE)) * make_mask(mask, SHAPE, 6)
    assert float(noise_level(kspace)) == pytest.approx(0.02, rel=0.15)


def test_noise_level_scales_and_batches():
    kspace = anatomy(4) + 0.02 * noise(4, *SHAPE)
    both = torch.stack([kspace, 1e-6 * kspace])
    levels = noise_level(both)
    assert levels.shape == (2,)
    torch.testing.assert_close(levels[1], 1e-6 * levels[0], rtol=1e-4, atol=0)
    sampled = make_mask("random", SHAPE)
    torch.testing.assert_close(noise_level(kspace, sampled), noise_level(kspace * sampled))
    assert noise_level(kspace).shape == ()


def test_noise_level_ignores_a_filter_at_the_edge_of_the_field_of_view():
    image = ifft2c(anatomy(4) + 0.02 * noise(4, *SHAPE))
    image[:, :4] *= 0.1
    image[:, -4:] *= 0.1
    assert float(noise_level(fft2c(image))) == pytest.approx(0.02, rel=0.15)


def test_noise_level_of_nothing_is_refused():
    with pytest.raises(OperatorError, match="Only 0 samples"):
        noise_level(torch.zeros(2, 16, 16, dtype=torch.complex64))


def test_noise_of_real_data(shared_data):
    """Background of the mprage image: 2.1e-6 to 2.3e-6; of the wrapped one no pixel is empty, 4.5e-6 at the least busy."""
    for name, low, high in (("real_brain_mprage_4ch", 2.0e-6, 2.5e-6), ("real_brain_8ch", 3.8e-6, 6.2e-6)):
        with h5py.File(shared_data / "mri" / "kspace" / f"{name}.h5") as file:
            kspace = torch.from_numpy(file["kspace"][0])
        mask = make_mask("equispaced-fraction", kspace.shape[-2:])
        assert low < float(noise_level(kspace)) < high
        assert low < float(noise_level(kspace * mask)) < high


def correlated(coils: int) -> torch.Tensor:
    mixing = torch.eye(coils) * (1 + torch.arange(coils)) + 0.3 * noise(coils, coils, seed=3)
    return mixing / 10


def test_whitened_noise_has_unit_deviation_per_real_component():
    mixing = correlated(4)
    samples = torch.einsum("ij,jhw->ihw", mixing, noise(4, 64, 64))
    covariance = noise_covariance(samples, scan=True)
    torch.testing.assert_close(covariance, 2 * mixing @ mixing.mH, rtol=0.1, atol=0.02)
    white = whiten(samples, covariance)
    torch.testing.assert_close(noise_covariance(white, scan=True), 2 * torch.eye(4) + 0j, rtol=0, atol=1e-4)
    assert float(white.real.std()) == pytest.approx(1, rel=1e-3)
    with pytest.raises(OperatorError, match="positive definite"):
        whiten(samples, torch.zeros(4, 4))


def test_covariance_without_a_noise_scan():
    mixing = correlated(4) / 20
    kspace = anatomy(4) + torch.einsum("ij,jhw->ihw", mixing, noise(4, *SHAPE))
    found = noise_covariance(kspace)
    truth = 2 * mixing @ mixing.mH
    assert (found - truth).norm() < 0.15 * truth.norm()
    assert float(noise_level(whiten(kspace, found))) == pytest.approx(1, rel=0.15)


def test_compression_keeps_energy_and_white_noise():
    kspace = anatomy(8)
    small, matrix = compress(kspace, 4)
    assert small.shape == (4, *SHAPE) and matrix.shape == (4, 8)
    torch.testing.assert_close(matrix @ matrix.mH, torch.eye(4) + 0j, atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.einsum("nc,chw->nhw", matrix, kspace), small)
    singular = torch.linalg.svdvals(kspace.flatten(1))
    torch.testing.assert_close(small.norm(), singular[:4].norm(), rtol=1e-4, atol=0)
    whole, _ = compress(kspace, 8)
    torch.testing.assert_close(rss(whole), rss(kspace), rtol=1e-3, atol=1e-4)


def test_compression_by_energy_and_over_slices():
    slices = torch.stack([anatomy(6), 2 * anatomy(6)])
    small, matrix = compress(slices, energy=0.95)
    assert small.shape == (2, len(matrix), *SHAPE) and 1 <= len(matrix) < 6
    assert small.norm() ** 2 >= 0.95 * slices.norm() ** 2
    fewer = matrix[:-1]
    assert torch.einsum("nc,bchw->bnhw", fewer, slices).norm() ** 2 < 0.95 * slices.norm() ** 2
    assert compress(1e-20 * slices, energy=0.95)[0].shape == small.shape
    for options in ({}, {"n": 2, "energy": 0.5}, {"n": 9}, {"n": 0}):
        with pytest.raises(OperatorError):
            compress(slices, **options)


def test_simulated_coils_are_smooth_local_and_repeatable():
    maps = simulate_coils(8, (48, 60))
    assert maps.shape == (8, 48, 60) and maps.dtype == torch.complex64
    assert torch.equal(maps, simulate_coils(8, (48, 60)))
    assert float(rss(maps).max()) == pytest.approx(1) and rss(maps).min() > 0.05
    # From pixel to pixel a map changes by little of its own size; at the borders, next to the wires, the most.
    for axis in (1, 2):
        assert (maps.diff(dim=axis).abs() / maps.abs().narrow(axis, 1, maps.shape[axis] - 1)).max() < 0.2
    # Coil 0 stands to the right, and a quarter turn takes it to coil 2 below.
    assert maps[0, 24, 50].abs() > 2 * maps[0, 24, 10].abs()
    square = simulate_coils(8, (41, 41)).abs()
    torch.testing.assert_close(square[2].T, square[0], atol=1e-5, rtol=1e-4)
    with pytest.raises(OperatorError):
        simulate_coils(0, (4, 4))


def test_field_on_the_axis_of_a_loop():
    """On its axis the field of a loop falls as ``(a^2 + d^2)^(-3/2)`` with the distance d from its centre."""
    column = simulate_coils(1, (41, 41))[0, 20].abs().double()
    d = 1.9 - 2 * (torch.arange(41).double() - 20) / 41
    law = (0.9**2 + d.square()) ** -1.5
    torch.testing.assert_close(column / column[20], law / law[20], rtol=1e-4, atol=0)
