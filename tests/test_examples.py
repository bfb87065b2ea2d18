"""The examples run, stay short, and beat the simpler method that each compares itself with."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from make_kspace import make_fastmri_file
from make_prior import make_prior
from skimage.data import shepp_logan_phantom

from recon.cli import main
from recon.io.resources import demo_file

EXAMPLES = sorted((Path(__file__).resolve().parent.parent / "examples").glob("*.py"))
PICTURE = "picture"  # of data that do not ship: here it is drawn of a phantom instead


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_is_short(path):
    assert len(path.read_text().splitlines()) <= 40


@pytest.mark.parametrize("path", [p for p in EXAMPLES if p.stem != PICTURE], ids=lambda path: path.stem)
def test_example(path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(path)])
    names = runpy.run_path(str(path), run_name="__main__")
    assert names["error"] < names["baseline"]
    assert capsys.readouterr().out


def test_picture(tmp_path, monkeypatch):
    source, out = tmp_path / "slices.npz", tmp_path / "out" / "brain.png"
    phantom = (1000 * shepp_logan_phantom()[::8, ::8]).astype(np.uint16)
    np.savez(source, images=np.stack([phantom] * 5))
    script = next(path for path in EXAMPLES if path.stem == PICTURE)
    monkeypatch.setattr(sys, "argv", [str(script), str(source), str(out)])
    runpy.run_path(str(script), run_name="__main__")
    assert out.read_bytes().startswith(b"\x89PNG")


def test_the_solver_of_the_example_on_the_command_line(tmp_path, capsys):
    """By both of its names, in a dry run and in a run."""
    file, prior = make_fastmri_file(tmp_path / "a.h5", slices=1), make_prior(tmp_path)
    plugin = ["--plugin", str(next(path for path in EXAMPLES if path.stem == "your_solver"))]
    for name in ("your_solver:Midpoint", "Midpoint"):
        out = ["--out", str(tmp_path / name)]
        assert main(["reconstruct", str(demo_file()), *plugin, "--solver", name, *out, "--dry-run"]) == 0
        assert f"{2 * 9 + 1} network calls" in capsys.readouterr().out  # two a step, one for the last
        small = ["--prior", str(prior), "--steps", "3", "--samples", "2", "--device", "cpu"]
        assert main(["reconstruct", str(file), *plugin, "--solver", name, *small, *out]) == 0
        assert "5 network calls" in capsys.readouterr().out
