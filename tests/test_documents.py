"""What README and CONTRIBUTING show works: every command, one by the installed console script, in an empty folder.

A command inside a sentence is run with ``--dry-run``, and so is one that takes long. Files that a
command names are made small by `MAKERS`; a name that nothing makes fails the test.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import ROOT
from forked import Forked
from make_kspace import make_fastmri_file
from make_sinogram import save_sinogram, small_sinogram
from PIL import Image

from recon.cli import main

DOCUMENTS = ("README.md", "CONTRIBUTING.md")
COMMANDS = ("recon", "make", "pip", "python")
WHOLE = (
    "inspect",
    "list",
    "check",
    "reconstruct",
    "restore",
)  # fast enough with small files and the prior that ships
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(rf"`((?:{'|'.join(COMMANDS)}) [^`]+)`")
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "RECON_SHARED_DATA"}
ENVIRONMENT |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Shown:
    """Something to run that a document shows, and where."""

    document: str
    line: int
    text: str
    inline: bool = False

    def __str__(self) -> str:
        return f"{self.document}:{self.line} {self.text.splitlines()[0]}"


def blocks(document: str) -> Iterator[tuple[str, Shown]]:
    """The fenced blocks of a document: language, and text with its first line's number."""
    text = (ROOT / document).read_text()
    for found in FENCE.finditer(text):
        yield found[1], Shown(document, text.count("\n", 0, found.start(2)) + 1, found[2])


def commands() -> list[Shown]:
    """Every line of a shell block, and every command within a sentence."""
    found = []
    for document in DOCUMENTS:
        for language, block in blocks(document):
            lines = [line for line in block.text.splitlines() if line.strip() and not line.startswith("#")]
            if language == "sh" or (not language and all(line.split()[0] in COMMANDS for line in lines)):
                rows = enumerate(block.text.splitlines(), block.line)
                found += [Shown(document, row, line) for row, line in rows if line in lines]
        for row, line in enumerate((ROOT / document).read_text().splitlines(), 1):
            found += [Shown(document, row, command, inline=True) for command in INLINE.findall(line)]
    return found


def sources(language: str) -> list[Shown]:
    """All blocks of a language."""
    return [block for document in DOCUMENTS for of, block in blocks(document) if of == language]


# --- what the documents name ---------------------------------------------------------------------------------


def optics() -> str:
    """The document's own operator."""
    return next(block.text for block in sources("python") if "class Convolve" in block.text)


def picture(path: Path) -> None:
    y, x = np.mgrid[-1:1:32j, -1:1:32j]
    Image.fromarray((255 * np.exp(-3 * (x**2 + y**2))).astype(np.uint8)).save(path)


def scan(path: Path) -> None:
    make_fastmri_file(path, slices=1, H=64, W=96, recon=(32, 96))


def sinogram(path: Path) -> None:
    save_sinogram(path, *small_sinogram(60, 40, slices=1))


def otf(path: Path, command: str) -> None:
    """Of the size that the operator is checked at, or of `picture`."""
    size = re.search(r"domain: tuple = \(1, (\d+), (\d+)\)", optics())
    assert size is not None
    np.save(path, np.ones((int(size[1]), int(size[2])) if command == "check" else (32, 32), np.float32))


def slices(path: Path) -> None:
    np.savez(path, images=np.random.default_rng(0).random((2, 32, 32)).astype(np.float32))


def folder(path: Path, *makers: tuple[str, Callable[[Path], object]]) -> None:
    path.mkdir()
    for name, make in makers:
        make(path / name)


TUNING = {
    "sampler": "daps",
    "problems": {"holes": {"operator": "inpainting", "sigma": 0.02}},
    "validation": {"inputs": ["slices.npz"], "slices": [0]},
    "held_out": {"inputs": ["slices.npz"], "slices": [1]},
}

MAKERS: dict[str, Callable[[Path, str], object]] = {
    "scan.h5": lambda path, command: scan(path),
    "FILE": lambda path, command: scan(path),
    "scans/": lambda path, command: folder(path, ("a.h5", scan), ("b.h5", scan)),
    "mask.npy": lambda path, command: np.save(path, np.arange(96) % 3 == 0),
    "sinogram.npz": lambda path, command: sinogram(path),
    "photo.png": lambda path, command: picture(path),
    "slices.npz": lambda path, command: slices(path),
    "DIR": lambda path, command: folder(path, ("slices.npz", slices), ("scan.h5", scan)),
    "grid.yaml": lambda path, command: path.write_text(sources("yaml")[0].text),
    "tune.yaml": lambda path, command: path.write_text(yaml.safe_dump(TUNING)),
    "CONFIG": lambda path, command: path.write_text(
        sources("yaml")[0].text
        if command == "benchmark"
        else "name: mine\ndata: [x.npz]\nlength: {steps: 1}\n"
    ),
    "optics.py": lambda path, command: path.write_text(optics()),
    "otf.npy": otf,
}
FILE = re.compile(
    r"(?:.*/|.*\.(?:h5|hdf5|cfl|hdr|npy|npz|png|jpe?g|tiff?|ya?ml|py|safetensors)|[A-Z][A-Z_.]+)"
)


def prepare(place: Path, words: list[str], shown: Shown) -> None:
    """Make in ``place`` what the command reads."""
    for before, word in pairwise(["", *words]):
        value = word.rpartition("=")[2]
        if re.fullmatch(r"[a-z_]+:\w+", word):  # an object in a module of the current folder
            value = f"{word.partition(':')[0]}.py"
        elif before == "--out" or not FILE.fullmatch(value):
            continue
        assert value in MAKERS, f"{shown}: nothing makes {value}; add it to MAKERS in tests/test_documents.py"
        if not (place / value).exists():
            MAKERS[value](place / value, words[0])


# --- running it ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def script() -> Path:
    """The console script that the environment has."""
    path = Path(sys.executable).with_name("recon")
    assert path.is_file(), f"there is no {path}: install the project, pip install -e ."
    return path


@pytest.mark.parametrize("shown", commands(), ids=str)
def test_command(shown, script, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    program, *words = shlex.split(shown.text, comments=True)
    if program == "recon":
        run_recon(script, words, shown, tmp_path)
    elif program == "make":
        done = subprocess.run(["make", "--dry-run", *words], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, f"{shown}: {done.stderr}"
    elif program == "python":
        assert (ROOT / words[0]).is_file(), f"{shown}: there is no {words[0]}"
    else:
        named = [word for before, word in pairwise(words) if before in ("-c", "-r")]
        assert program == "pip" and words[0] == "install", f"{shown}: an unknown command"
        assert all((ROOT / name).is_file() for name in named), f"{shown}: {named} is missing"


AS_INSTALLED = "inspect"  # this command by the console script, the others as copies of this process


def run_recon(script: Path, words: list[str], shown: Shown, place: Path) -> None:
    """Run the command in ``place``, which holds what it names and nothing else; a bare name shows its help."""
    prepare(place, words, shown)
    whole = words[0] in WHOLE and not shown.inline
    if len(words) == 1 and words[0] not in ("list", "demo"):
        words = [*words, "--help"]
    elif not whole and "--dry-run" not in words:
        words = [*words, "--dry-run"]
    if shown.inline:
        assert main(words) == 0, str(shown)
        return
    if words[0] == AS_INSTALLED:
        done = subprocess.run([script, *words], cwd=place, env=ENVIRONMENT, capture_output=True, text=True)
        code, said, errors = done.returncode, done.stdout, done.stderr
    else:
        process = Forked(main, words)
        said, errors = process.finish()
        code = process.returncode
    assert code == 0, f"{shown}:\n{said}{errors}"
    assert said, f"{shown} says nothing"
    out = dict(pairwise(words)).get("--out")
    if whole and "--dry-run" not in words and out is not None:
        assert any((place / out).iterdir()), f"{shown} wrote nothing to {out}"


@pytest.mark.parametrize("shown", sources("python"), ids=str)
def test_python(shown, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    process = Forked(exec, compile(shown.text, str(shown), "exec"), {"__name__": "__main__"})
    said, errors = process.finish()
    assert process.returncode == 0, f"{shown}:\n{errors}"
    assert said or "print(" not in shown.text


def test_what_is_shown_is_found():
    """The documents show commands of each kind, so that an empty test is not a passed one."""
    shown = [one.text for one in commands()]
    assert any(text.startswith("recon check optics:Convolve") for text in shown)
    assert {text.split()[1] for text in shown if text.startswith("recon ")} >= {
        "inspect",
        "reconstruct",
        "restore",
        "benchmark",
    }
    assert sources("python") and sources("yaml")


def test_a_name_that_stands_for_nothing_fails(tmp_path):
    with pytest.raises(AssertionError, match="nothing makes other.h5"):
        prepare(tmp_path, ["inspect", "other.h5"], Shown("README.md", 1, "recon inspect other.h5"))


def test_links_lead_somewhere():
    for document in DOCUMENTS:
        for link in re.findall(r"\]\(([^)#:]+)\)", (ROOT / document).read_text()):
            assert (ROOT / link).exists(), f"{document} links to {link}, which is not there"
