"""``recon bench simulated``: scans whose image is known, the cells that cover the range, rows that are kept."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict

import numpy as np
import pytest
import torch
from make_kspace import HEAD, head
from make_prior import make_prior

from operators.coils import rss
from operators.fourier import fft2c, ifft2c
from recon.benchmark.methods.classical import climb
from recon.benchmark.rows import read_rows
from recon.benchmark.scans.design import RANGE, SimulatedCell, design
from recon.benchmark.scans.report import lines_of, summarised
from recon.benchmark.scans.simulated import resized_kspace, simulate_scan
from recon.cli import main
from recon.errors import ConfigError

# --- one scan ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("matrix", [32, 48, 64])
@pytest.mark.parametrize("coils", [1, 4])
def test_a_simulated_scan_is_what_it_says(coils: int, matrix: int):
    settings = dict(coils=coils, matrix=matrix, lines=6, accel=2, noise=0.01, dtype=torch.complex128)
    scan, clean = (simulate_scan(head(), **settings | {"noise": noise}) for noise in (0.01, 0.0))
    assert scan.kspace.shape == (coils, matrix, matrix) and scan.kspace.dtype == torch.complex128
    torch.testing.assert_close(rss(ifft2c(clean.kspace)), scan.reference)  # the reference has no noise
    noise = torch.view_as_real(scan.kspace - clean.kspace).std() / scan.scale
    assert noise == pytest.approx(0.01, rel=0.05)
    torch.testing.assert_close(rss(scan.maps), torch.ones(matrix, matrix, dtype=torch.float64))
    assert scan.mask[:, matrix // 2 - 3 : matrix // 2 + 3].all() and scan.mask.float().mean() < 0.6
    assert scan.support[scan.reference > 0.1 * scan.reference.max()].all() and not scan.support.all()
    assert scan.support[matrix // 2, round(matrix * 0.58)]  # the air inside the head is seen by the coils


def test_the_true_maps_explain_the_coil_images():
    """On the slice's own grid exactly, on a coarser one but for what lies between its pixels."""
    for matrix, error in ((HEAD, 1e-5), (64, 1e-5), (40, 0.05)):
        scan = simulate_scan(head(), coils=6, matrix=matrix, lines=4, noise=0.0)
        coils = ifft2c(scan.kspace)
        image = (scan.maps.conj() * coils).sum(0)
        assert rss(coils - scan.maps * image).norm() < error * scan.reference.norm()
        assert image.angle()[scan.support].std() > 0.1  # a phase that is not constant


def test_a_seed_is_one_scan():
    one, same, other = (simulate_scan(head(), matrix=32, lines=4, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(one.kspace, same.kspace) and torch.equal(one.mask, same.mask)
    assert not torch.allclose(one.maps, other.maps)


def test_another_matrix_keeps_the_values():
    smooth = torch.exp(-(torch.linspace(-4, 4, 64)[:, None] ** 2) - torch.linspace(-4, 4, 64) ** 2)
    for size in (32, 64, 96, 128):
        image = ifft2c(resized_kspace(fft2c(smooth.to(torch.complex64)), size)).real
        assert image.shape == (size, size)
        assert image.max() == pytest.approx(1, abs=0.02) and image[0].abs().max() < 1e-3


# --- the cells ---------------------------------------------------------------------------------------------


def test_a_few_cells_cover_the_range():
    cells = design({}, slices=18, count=70, seed=1)
    assert len(set(cells)) == 70 and all(cell.possible for cell in cells)
    for axis, values in RANGE.items():
        often = Counter(getattr(cell, axis) for cell in cells)
        assert set(often) == set(values)
        assert max(often.values()) <= 2 * min(often.values()) + 3, (axis, often)
    assert len({cell.slice for cell in cells}) > 12 and len({cell.seed for cell in cells}) == 70
    assert design({}, slices=18, count=30, seed=1) == cells[:30]
    assert design({}, slices=18, count=30, seed=2) != cells[:30]


def test_a_grid_has_what_was_asked_for():
    cells = design({"coils": [4, 8], "matrix": [64], "lines": [4, 24], "accel": [4], "noise": [0.01]}, 1)
    assert {(cell.coils, cell.lines, cell.accel) for cell in cells} == {(4, 4, 4.0), (8, 4, 4.0)}
    assert len(cells) == 4  # two kinds of mask; 24 central lines of 16 are impossible
    with pytest.raises(ConfigError, match="No scan"):
        design({"matrix": [64], "lines": [40], "accel": [4]}, 1)
    with pytest.raises(ConfigError, match="axis"):
        design({"coil": [4]}, 1)


def test_climbing_finds_the_peak_wherever_it_is():
    values = [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0]
    for peak in (0.01, 0.1, 0.4, 2.0, 20.0):
        best, image, tried = climb(
            values, torch.tensor, lambda v, peak=peak: -abs(float(v.log()) - np.log(peak))
        )
        assert best == min(values, key=lambda v: abs(np.log(v / peak))) == pytest.approx(float(image))
        assert tried <= 6


# --- the report --------------------------------------------------------------------------------------------


def row(method: str, psnr: float, slice: int = 0, **more) -> dict:
    cell = asdict(SimulatedCell(4, 64, 8, 4.0, 0.01, "random", slice))
    scores = {"psnr": psnr, "object_psnr": psnr - 2}
    return {"status": "done", "cell": cell | {"method": method}, "metrics": scores, "coverage": None} | more


def test_the_summary_counts_what_is_below():
    rows = [
        row("recon", 30.0, outside=0, coverage=0.9),
        row("tv", 29.0),
        row("bart", 28.0),
        row("oracle", 30.4),
    ]
    rows += [row("recon", 25.0, 1, outside=7, coverage=0.7), row("tv", 25.3, 1), row("oracle", 25.6, 1)]
    rows += [
        row("recon", 0.0, 2) | {"status": "failed", "error": {"what": "no", "why": ""}},
        row("tv", 25.3, 2),
    ]
    said = summarised(lines_of(rows))
    assert (
        "0.35 dB in the median of 2 scans, worst -0.30 dB" in said[0]
        and "1 below by more than 0.2" in said[0]
    )
    assert "-0.50 dB in the median, worst -0.60 dB; 1 below by more than 0.5 dB" in said[2]
    assert "outside the support: 1, at most 7" in said[3]
    assert "80.0 %" in said[4] and "70.0 % to 90.0 %" in said[4] and said[5] == "failed: recon 1"


# --- the command -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a stack of slices and the settings of a tiny prior."""
    folder = tmp_path_factory.mktemp("simulated")
    np.savez(folder / "slices.npz", images=np.stack([head().numpy(), head().flip(0).numpy()]))
    (folder / "tiny.yaml").write_text(
        f"prior: {make_prior(folder)}\nsampler_options: {{steps: 2}}\nsamples: 3\nsteps: 3\n"
        "kernel: 3\nruntime: {device: cpu}\n"
    )
    return folder


@pytest.fixture
def bench(place, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")  # without BART

    def run(*arguments: str) -> int:
        where = ["--images", place / "slices.npz", "--config", place / "tiny.yaml", "--out", tmp_path]
        small = ["--coils", "4", "--matrix", "40", "--lines", "8", "--accel", "3", "--noise", ".01"]
        return main(["bench", "simulated", *map(str, where), *small, *arguments])

    return run


def test_the_command_measures_once_and_reports_all(bench, tmp_path, capsys):
    assert bench("--dry-run") == 0
    assert not list(tmp_path.iterdir()) and "4 coils, 40, 8 lines, 3x" in capsys.readouterr().out
    assert bench("--methods", "tv", "cg-sense", "--mask", "random") == 0
    assert bench("--mask", "random") == 0
    said = capsys.readouterr()
    assert "BART is left out" in said.err + said.out and "2 of them done" in said.err + said.out
    rows = {row["cell"]["method"]: row for row in read_rows(tmp_path / "rows.jsonl")}
    assert set(rows) == {"zero-filled", "cg-sense", "tv", "oracle", "recon"} and len(rows) == 5
    assert all(row["status"] == "done" and 0 < row["metrics"]["psnr"] < 60 for row in rows.values())
    ours = rows["recon"]
    assert ours["network_calls"] == 3 and ours["notes"]["samples"] == 3 and 0 <= ours["coverage"] <= 1
    assert ours["outside"] >= 0 and ours["residual"] > 0 and rows["tv"]["notes"]["lambda"] > 0
    page = (tmp_path / "simulated.md").read_text()
    assert (
        "ahead of the best of cg-sense, bart, tv" in page and "| 4 | 40 | 8 | 3.0 | 0.01 | random |" in page
    )
    assert "| coils | 4 | 1 |" in page and "| noise | 0.01 | 1 |" in page  # each value with its scans
    assert (tmp_path / "simulated.csv").read_text().count("\n") == 6
    assert bench("--mask", "random", "--again", "recon") == 0
    again = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert len(again) == 6 and again[-1]["metrics"] == ours["metrics"]


def test_a_failure_is_a_row_that_says_why(bench, tmp_path, monkeypatch):
    def broken(*arguments, **more):
        raise ConfigError("It broke.", "For a test.")

    monkeypatch.setattr("recon.benchmark.scans.scan.reconstruct_slice", broken)
    assert bench("--mask", "random", "--methods", "recon", "zero-filled") == 1
    page = (tmp_path / "simulated.md").read_text()
    assert (
        "| failed |" in page and "| recon | It broke. | For a test. |" in page and "- failed: recon 1" in page
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--methods", "recn"], '"recon"'),
        (["--again", "tvv"], '"tv"'),
        (["--mask", "randm"], '"random"'),
        (["--cells", "0"], "at least 1"),
        (["--coils", "0"], "at least 1"),
        (["--accel", "-2"], "at least 1"),
        (["--noise", "-1"], "at least 0"),
    ],
)
def test_what_cannot_be_is_refused(bench, tmp_path, capsys, arguments, said):
    assert bench(*arguments) == 2
    assert said in capsys.readouterr().err and not list(tmp_path.iterdir())
