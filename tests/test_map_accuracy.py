"""The error of sensitivity maps: told from what they explain, and counted as noise where it matters."""

from __future__ import annotations

import pytest
import torch
from make_kspace import head

import recon
from operators.coils import rss
from operators.errors import OperatorError
from operators.maps.accuracy import error_noise, map_error
from operators.mri import MRI
from recon.benchmark.scans.simulated import simulate_scan
from recon.mri import cg_sense, estimated_maps, normalise
from recon.priors import Prior
from recon.registry.recipe import Recipe


@pytest.mark.parametrize("coils, lines, noise", [(4, 4, 0.01), (8, 5, 0.002), (16, 8, 0.02), (8, 16, 0.002)])
def test_the_error_of_maps_is_told_from_what_they_explain(coils: int, lines: int, noise: float):
    scan = simulate_scan(head(), coils, 64, lines, 2, noise, seed=3)
    assert scan.maps is not None
    maps, values = estimated_maps(scan.y, scan.mask, Recipe(sets=1), noise * scan.scale)
    image = cg_sense(MRI(scan.mask, maps), scan.y[None])[0]
    alike = (maps[0].conj() * scan.maps).sum(0).abs()  # their phase is free
    energy = scan.reference.square() * (rss(maps[0]) > 0)
    true = float(((2 - 2 * alike.clamp(max=1)) * energy).sum() / energy.sum()) ** 0.5
    assert 0.25 * map_error(values, image) < true < 1.5 * map_error(values, image)


def test_noise_of_the_error_follows_the_measurements():
    y = torch.randn(3, 6, 8, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    columns = torch.zeros(6, 8, dtype=torch.bool)
    columns[:, ::2] = True
    noise = error_noise(y * columns, columns, 0.1)
    torch.testing.assert_close(noise[:, 4], (0.1**2 * y[..., 4].abs().square().mean() / 2).sqrt().expand(6))
    points = columns.clone()
    points[0, 0] = False
    noise = error_noise(y * points, points, 0.1)
    near = (y * points)[:, 1:6, 2:7]
    torch.testing.assert_close(
        noise[3, 4], (0.01 * near.abs().square().mean(0).sum() / points[1:6, 2:7].sum() / 2).sqrt()
    )
    assert (noise[~points] == 0).all()


def test_maps_of_few_lines_weigh_the_centre_less():
    weights = []
    for lines in (4, 16):
        scan = simulate_scan(head(), 8, 64, lines, 2, 0.002, seed=3)
        one = normalise(scan.y, scan.mask, Recipe(sets=1))
        assert isinstance(one.A, MRI) and one.A.weights is not None
        assert one.A.whole_columns  # one transform an axis, as without weights
        weights.append(float(one.A.weights[0, 32]))
        measured = scan.mask & (one.A.weights < 1)
        torch.testing.assert_close(
            one.y[:, measured], (one.A.weights * scan.y / (one.scale * one.noise))[:, measured]
        )
    assert weights[0] < 0.7 * weights[1] < 0.7


@pytest.mark.parametrize("bad", [torch.ones(5), torch.ones(3, 3), torch.ones(6) * 1j, torch.zeros(6)])
def test_weights_that_are_none_are_refused(bad: torch.Tensor):
    with pytest.raises(OperatorError, match="weights"):
        MRI(torch.ones(4, 6), weights=bad)


def test_levels_end_at_the_noise_of_the_slice():
    prior = recon.load_prior("brain-mri")
    ends = [Recipe().last_level(prior, noise) for noise in (0.02, 0.0067, 0.0066, 0.004, 0.002, 0.0001)]
    assert ends == [0.01, 0.01, 0.005, 0.005, 0.0025, 0.0025]
    assert Recipe(sigma_end=0.02).last_level(prior, 0.001) == 0.02
    assert Recipe().last_level(Prior(prior, sigma_min=0.05, sigma_max=3.0), 0.001) == 0.05
