"""``recon bench trajectory``: the scans it simulates are those of the slice, and every method reconstructs them."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from make_kspace import objects

pytest.importorskip(
    "finufft", reason="the extra `noncart` is not installed: pip install 'recon-posterior[noncart]'"
)

from operators.coils import rss
from operators.noncartesian import (
    NonCartesianMRI,
    density_compensation,
    gridded_coils,
    radial_trajectory,
    spiral_trajectory,
)
from recon.benchmark.methods.bart import bart_maps_along, bart_wavelets_along
from recon.benchmark.scans import trajectories
from recon.benchmark.scans.trajectories import gains_in_words, simulate_along
from recon.cli import main
from recon.metrics import scaled_psnr

N = 32


def slice_of(size: int = 48) -> torch.Tensor:
    return torch.from_numpy(np.abs(objects(1, size, size, size)[0]).astype(np.float32))


def test_a_simulated_scan_is_that_of_the_slice_at_the_matrix():
    """Fully sampled and without noise its gridded image is the reference, whatever grid the slice has."""
    points = radial_trajectory(64, 2 * N)
    kspace, reference = simulate_along(slice_of(), points, N, noise=0.0)
    assert kspace.shape == (8, 64, 2 * N) and reference.shape == (N, N)
    weights = density_compensation(points, (N, N))
    found = rss(gridded_coils(kspace.flatten(1), points, weights, (N, N)))
    assert float(scaled_psnr(found, reference)) > 30
    noisy, _ = simulate_along(slice_of(), points, N, noise=0.1)
    sigma = float(torch.view_as_real(noisy - kspace).std())
    assert sigma == pytest.approx(0.1 * float(torch.quantile(reference, 0.995)), rel=0.02)


@pytest.mark.skipif(shutil.which("bart") is None, reason="there is no program bart on this machine")
def test_bart_has_our_conventions():
    """Its image lies where ours does, neither turned nor mirrored, along a radial trajectory as along a spiral."""
    image = slice_of(N).clone()
    image[4:10, 20:28] = 1.5
    for points in (radial_trajectory(64, 2 * N), spiral_trajectory(4, 512, 8)):
        kspace, reference = simulate_along(image, points, N, noise=1e-3)
        maps = bart_maps_along(kspace, points, N)
        found = bart_wavelets_along(kspace, points, 1e-3, maps)
        assert maps.shape == (1, 8, N, N) and float(scaled_psnr(found, reference)) > 22
        two = bart_wavelets_along(kspace, points, 1e-3, torch.cat((maps, 0 * maps)))  # a second set of none
        assert float(scaled_psnr(two, found)) > 40
        A = NonCartesianMRI(points.float(), maps, shape=(N, N))
        assert A.codomain == (8, points[..., 0].numel())


def test_the_command_prints_a_table(tmp_path, monkeypatch, capsys, tiny):
    small = {
        "radial": lambda: radial_trajectory(24, 2 * N),
        "spiral": lambda: spiral_trajectory(6, 256, 5, power=2),
    }
    monkeypatch.setattr(trajectories, "TRAJECTORY_CASES", small)
    monkeypatch.setattr(trajectories, "MATRIX", N)
    np.savez(tmp_path / "slices.npz", images=slice_of().numpy()[None].repeat(2, 0))
    (tmp_path / "config.yaml").write_text(f"prior: {tiny}\nsteps: 2\nsamples: 1\n")
    command = ["bench", "trajectory", "--images", str(tmp_path / "slices.npz")]
    command += ["--config", str(tmp_path / "config.yaml"), "--methods", "zero-filled", "cg-sense", "recon"]
    assert main([*command, "--dry-run"]) == 0 and "psnr" not in capsys.readouterr().out.lower()
    assert main([*command, "--slices", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith(("| radial", "| spiral")) for line in lines) == 6
    assert sum("ahead of cg-sense by" in line for line in lines) == 2
    assert main([*command, "--cases", "circles"]) == 2
    assert "circles" in capsys.readouterr().err


def test_ours_is_compared_in_the_mean_over_slices():
    rows = [
        {"case": "c", "method": m, "psnr": p, "object_psnr": p, "ssim": 0.9, "nmse": e}
        for m, p, e in (("recon", 31, 1), ("recon", 33, 3), ("bart", 30, 8), ("bart", 30, 8))
    ]
    (said,) = gains_in_words("c", rows)
    assert "ahead of bart by +2.00 dB" in said and "0.25 of its squared error" in said
