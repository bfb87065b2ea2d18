"""One slice, or several at once: units, independence, map sets, starts; with a closed-form prior."""

from __future__ import annotations

import pytest
import torch
from make_kspace import coil_maps

import operators as op
import recon
from operators.coils import rss
from operators.fourier import fft2c, ifft2c
from operators.masks import make_mask
from recon.errors import ConfigError
from recon.io import open_kspace
from recon.metrics import scaled_psnr
from recon.mri import needed_sets, normalise, reconstruct_slice, reconstruct_slices
from recon.noise import Noise
from recon.priors import Gaussian
from recon.registry.recipe import RECIPE_STARTS, Recipe

SIZE = (48, 40)
RECIPE = Recipe(steps=4, samples=3, sigma_floor=1e-4)


def prior():
    return Gaussian(torch.zeros(1, *SIZE, dtype=torch.complex64), 0.1)


def head(shift: float = 0.0) -> torch.Tensor:
    """A smooth-edged disc with a bar in it, (H, W) complex."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, SIZE[0]), torch.linspace(-1, 1, SIZE[1]), indexing="ij")
    disc = torch.sigmoid(30 * (0.7 - (x.square() + y.square()).sqrt()))
    return torch.polar(disc * (1 + 0.5 * (x.abs() < 0.2)), 0.5 * x + shift)


def scan(seed: int = 0, units: float = 1e-4, sigma: float = 0.002):
    coils = (torch.as_tensor(coil_maps(4, *SIZE)) * head(0.3 * seed)).to(torch.complex64)
    noise = sigma * Noise(seed)(coils[None], 0)[0]
    return units * (fft2c(coils) + noise), units * coils


def test_the_image_is_recovered_in_the_units_of_the_file():
    kspace, coils = scan()
    reference = coils.abs().square().sum(0).sqrt()
    result = reconstruct_slice(kspace, torch.ones(SIZE[1]), RECIPE, prior())
    inside = result.support
    assert (result.mean.abs() - reference)[inside].norm() < 0.01 * reference[inside].norm()
    assert result.samples.shape == (3, *SIZE) and result.samples.is_complex()
    assert torch.allclose(result.std, result.samples.abs().std(0))
    assert result.network_calls == 4
    assert result.sigma_y == pytest.approx(1e-4 * 0.002, rel=0.35)


def test_a_slice_does_not_depend_on_the_others_nor_on_its_units():
    mask = make_mask("equispaced-fraction", SIZE, 2, 0.3)
    first, second = scan(1)[0], scan(2, sigma=0.01)[0]
    slices = [normalise(first, mask, RECIPE, index=5), normalise(second, mask, RECIPE, index=9)]
    together = reconstruct_slices(slices, RECIPE, prior())
    for one, result in zip(slices, together, strict=True):
        alone = reconstruct_slices([one], RECIPE, prior())[0]
        torch.testing.assert_close(result.samples, alone.samples, rtol=0, atol=1e-4 * one.scale)
    larger = reconstruct_slice(1e6 * first, mask, RECIPE, prior(), slice_index=5)
    torch.testing.assert_close(1e-6 * larger.mean, together[0].mean, rtol=0, atol=1e-3 * slices[0].scale)


@pytest.mark.parametrize("start", RECIPE_STARTS)
def test_every_start(start):
    kspace, _ = scan()
    mask = make_mask("equispaced-fraction", SIZE, 2, 0.3)
    result = reconstruct_slice(kspace, mask, Recipe(start=start, steps=3, samples=1), prior())
    assert torch.isfinite(result.mean.abs()).all() and result.std is None
    first = 80.0 if start == "noise" else Recipe().sigma_start
    assert len(result.trace) == 3 and result.trace[0]["sigma"] < first
    with pytest.raises(ConfigError, match="Here it is noise or"):
        reconstruct_slice(kspace, mask, Recipe(start="fit", steps=3, samples=1), prior())


def test_a_single_coil_needs_no_maps():
    kspace, _ = scan()
    result = reconstruct_slice(kspace[:1], make_mask("random", SIZE, 2, 0.3), RECIPE, prior())
    assert result.maps is None and result.support.all() and result.mean.shape == SIZE


def test_map_sets_follow_the_data():
    maps = torch.zeros(2, 4, *SIZE, dtype=torch.complex64)
    maps[0, :, 5:40, 5:35] = 0.5
    assert needed_sets(maps) == 1
    maps[1, :, 5:40, 5:10] = 0.5
    assert needed_sets(maps) == 2
    kspace, _ = scan()
    result = reconstruct_slice(kspace, torch.ones(SIZE[1]), RECIPE, prior(), maps=maps)
    assert result.maps.shape == (2, 4, *SIZE)
    assert result.samples.shape == (3, *SIZE) and not result.mean.is_complex()


@pytest.mark.parametrize(
    "wrong", [{"start": "nois"}, {"sampler": "dsd"}, {"solver": "eulr"}, {"steps": 0}, {"sets": 0}]
)
def test_recipes_that_cannot_be_followed(wrong):
    with pytest.raises(ConfigError):
        Recipe(**wrong)


def test_lazy_names():
    assert {"sample", "load_prior", "SOLVERS", "POSTERIORS", "PRIORS", "Problem"} <= set(dir(recon))


def test_the_shipped_prior_on_real_kspace(shared_data):
    """Half of what ``recon bench mri`` measures, in a few calls: far above zero-filled (26 dB) and CG-SENSE (32 dB)."""
    name = "real_brain_mprage_4ch.h5"
    kspace = open_kspace(shared_data / "mri" / "kspace" / name).read_slice(0).kspace
    mask = make_mask("equispaced-fraction", tuple(kspace.shape[-2:]), 4, 0.08, name)
    result = reconstruct_slice(kspace, mask, Recipe(steps=6, samples=1), recon.load_prior("brain-mri"))
    assert float(scaled_psnr(result.mean, rss(ifft2c(kspace)))) > 36.5


def test_the_cheap_residual_is_the_residual():
    kspace, _ = scan()
    one = normalise(kspace, make_mask("equispaced-fraction", SIZE, 2, 0.3), RECIPE)
    problem = recon.Problem(one.A, one.y[None], sigma=1.0)
    direct = (one.A(one.start[None]) - one.y[None]).abs().square().sum().sqrt()
    assert one.A.normal_is_cheap
    expected = direct / (2 * one.A.mask.sum() * len(kspace)) ** 0.5
    torch.testing.assert_close(problem.residual(one.start[None])[0].float(), expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("away", [0.0, 1e-2, 1.0])
def test_the_cheap_residual_keeps_its_digits_near_the_data(away):
    """||A x - y|| is a thousandth of ||y||: its square is what is left of terms a million times larger."""
    A, generator = op.MRI(torch.ones(48), op.simulate_coils(4, (32, 48))), torch.Generator().manual_seed(0)
    x, off = torch.randn(2, 2, 1, 32, 48, dtype=torch.complex64, generator=generator)
    y = A(x) + 1e-3 * torch.randn(2, 4, 32, 48, dtype=torch.complex64, generator=generator)
    x = x + away * 1e-2 * off
    double = A.to(torch.float64)
    expected = (double(x.to(torch.complex128)) - y).abs().square().sum((1, 2, 3)).sqrt()
    found = recon.Problem(A, y, sigma=1.0).residual(x) * (2 * y[0].numel()) ** 0.5
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)


def test_nothing_is_invented_where_no_coil_receives():
    kspace, _ = scan()
    mask = make_mask("equispaced-fraction", SIZE, 2, 0.3)
    maps = torch.as_tensor(coil_maps(4, *SIZE)).to(torch.complex64)[None]
    maps[..., :10] = 0
    for loud in (prior(), lambda x, sigma: x + 1):
        result = reconstruct_slice(kspace, mask, RECIPE, loud, maps=maps)
        assert not result.support[:, :10].any() and result.support[:, 10:].all()
        assert result.samples[..., :10].abs().max() < 10 * result.sigma_y
