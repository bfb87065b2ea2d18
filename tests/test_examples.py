"""The examples run, stay short, and beat the simpler method that each compares itself with."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).resolve().parent.parent / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example(path, capsys):
    assert len(path.read_text().splitlines()) <= 40
    names = runpy.run_path(str(path), run_name="__main__")
    assert names["error"] < names["baseline"]
    assert "error" in capsys.readouterr().out or path.stem == "your_solver"
