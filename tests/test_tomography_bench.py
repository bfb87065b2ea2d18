"""``recon bench tomography``: what is simulated, how it is judged, and that every method runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from make_prior import make_prior

from recon.benchmark.tomography.methods import XRAY_METHODS, Budget
from recon.benchmark.tomography.scans import CHEST_CASES, XrayCase, matthews, simulated
from recon.benchmark.tomography.table import run_tomography
from recon.cli import main
from recon.errors import ConfigError
from recon.priors import Gaussian


@pytest.fixture(autouse=True)
def one_lambda(monkeypatch):
    """The search for the best takes a minute."""
    monkeypatch.setattr("recon.benchmark.tomography.methods.TV_LAMBDAS", (1e-4,))


@pytest.fixture(scope="module")
def chest() -> torch.Tensor:
    """A body with lungs and bone, (1, 32, 32)."""
    place = torch.arange(32) - 15.5
    radius = (place[:, None] ** 2 + place**2).sqrt()
    image = 1.0 * (radius < 13)
    image[12:20, 6:12] = image[12:20, 20:26] = 0.25
    image[24:27, 14:18] = 1.8
    return image[None]


def test_the_noise_is_that_of_the_counts(chest):
    """``y`` is the line integrals and ``std`` the noise that they have, in so many photons."""
    scans = [simulated("x", XrayCase(12, photons=1e4), chest, seed) for seed in range(40)]
    clean = scans[0].water * scans[0].plane(chest[:, None])
    y, std = torch.stack([scan.y for scan in scans]), torch.stack([scan.std for scan in scans])
    assert abs((y - clean).mean()) < 3e-3 * clean.max()
    assert abs(((y - clean) / std).square().mean() - 1) < 0.05
    assert abs(float(scans[0].problem.residual(chest[None])[0]) - 1) < 0.1
    assert scans[0].body.sum() > 500 and scans[0].body[0, 15, 8]  # lungs belong to the body


def test_photons_that_do_not_come_are_one(chest):
    scan = simulated("x", XrayCase(6, photons=3.0), 8 * chest)
    assert scan.y.isfinite().all() and (scan.std <= 1).all() and (scan.std == 1).any()


def test_the_score_of_the_challenge():
    truth = torch.zeros(8, 8, dtype=torch.bool)
    truth[2:6, 2:6] = True
    image = truth.float() + 0.01 * torch.rand(8, 8, generator=torch.Generator().manual_seed(0))
    assert matthews(image, truth) == pytest.approx(1.0)
    image[:2] = 1.0
    tp, fp, fn, tn = 16, 16, 0, 32
    expected = (tp * tn - fp * fn) / np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    assert matthews(image, truth) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("method", ["fbp", "sirt", "cgls", "tv", "dds", "pigdm"])
def test_every_method_reconstructs_a_slice(chest, method):
    scan = simulated("x", CHEST_CASES["sparse-49"], chest)
    budget = Budget(Gaussian(torch.full((1, 32, 32), 0.6), 0.2), steps=6, samples=2)
    done = XRAY_METHODS[method](scan, budget)
    found = scan.score(done.image)
    assert done.image.shape == (1, 32, 32) and found["psnr"] > 18 and found["HU"] < 300
    assert (done.coverage is None) == (method in ("fbp", "sirt", "cgls", "tv"))


@pytest.mark.parametrize("method", ["fbp", "sirt", "tv", "tv-3d", "dds", "dds-3d"])
def test_every_method_reconstructs_a_volume(chest, method):
    scan = simulated("x", XrayCase(20), chest.expand(3, 32, 32))
    budget = Budget(Gaussian(torch.full((1, 3, 32, 32), 0.6), 0.2), steps=6, samples=2)
    done = XRAY_METHODS[method](scan, budget)
    assert done.image.shape == (3, 32, 32) and scan.score(done.image)["psnr"] > 18


def test_the_command_prints_a_table(tmp_path, chest, capsys):
    (tmp_path / "ct/eval").mkdir(parents=True)
    stack = (1024 + 1000 * (chest.repeat_interleave(8, 1).repeat_interleave(8, 2) - 1)).to(torch.int32)
    np.savez(tmp_path / "ct/eval/tcga_chest_eval.npz", images=stack.numpy().astype(np.uint16))
    prior = str(make_prior(tmp_path, "tiny", complex_images=False))
    command = [
        "bench",
        "tomography",
        "--data",
        str(tmp_path),
        "--prior",
        prior,
        "--size",
        "32",
        "--slices",
        "1",
    ]
    command += ["--steps", "2", "--samples", "2", "--cases", "sparse-8", "--methods", "fbp", "dds"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "sparse-8-dds.png",
        "sparse-8-fbp.png",
    ]
    said = capsys.readouterr().out
    assert (
        "| fbp |" in said and "| dds |" in said and "RMSE (HU)" in said and "8 views over 180 degrees" in said
    )
    assert main([*command[:-2], "dds-3d"]) == 0 and "are of volumes" in capsys.readouterr().out
    assert main([*command[:3], str(tmp_path), "--cases", "spiral"]) == 2
    assert "spiral" in capsys.readouterr().err
    assert main(["bench", "tomography", "--dry-run"]) == 0


def test_refused_before_anything_is_read():
    for options, said in (
        (dict(size=100), "128"),
        (dict(methods=["fpb"]), "fpb"),
        (dict(slices=0), "slices is 0"),
    ):
        with pytest.raises(ConfigError, match=said):
            run_tomography("nowhere", **options)


def test_a_real_sinogram_is_judged(shared_data: Path):
    (row,) = run_tomography(shared_data, cases=["helsinki"], methods=["fbp"], say=lambda text: None)
    assert 0.5 < row.scores["mcc"] < 0.8
