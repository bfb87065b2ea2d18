"""An installed wheel has everything: every subpackage, weights with their cards, presets, the demo input."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = ("operators", "recon", "configs", "data", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with the wheel's content, built from a copy (setuptools leaves its traces where it builds)."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    for name in SHIPPED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source / name)
    build = "import sys, setuptools.build_meta as b; b.build_wheel(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", build, str(source)], cwd=source, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(source.glob("*.whl"))) as wheel:
        wheel.extractall(folder)
    return folder


def test_every_module_is_inside(installed):
    for package in ("operators", "recon"):
        for path in (ROOT / package).rglob("*.py"):
            assert (installed / path.relative_to(ROOT)).is_file()


def test_weights_and_cards_are_inside(installed):
    weights = {path.name for path in (installed / "recon" / "weights").iterdir()}
    assert weights == {
        p.name for p in (ROOT / "recon" / "weights").iterdir() if p.suffix in (".safetensors", ".json")
    }
    assert {"brain-mri.safetensors", "brain-mri.json"} <= weights


def test_presets_and_demo_are_found(installed):
    code = (
        "from recon.io.resources import demo_file, preset, presets\n"
        "print(demo_file(), *(preset(name) for name in presets()), sep='\\n')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=installed, capture_output=True, text=True)
    found = [Path(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr
    assert all(path.is_relative_to(installed) for path in found)
    assert (
        {path.name for path in found[1:]}
        == {path.name for path in (ROOT / "configs").glob("*.yaml")}
        != set()
    )


def test_the_template_of_reports_is_inside(installed):
    assert (installed / "recon" / "benchmark" / "report" / "page.html.j2").is_file()


def test_the_command_is_declared(installed):
    entry = next(installed.glob("*.dist-info")) / "entry_points.txt"
    assert "recon = recon.cli:main" in entry.read_text()
