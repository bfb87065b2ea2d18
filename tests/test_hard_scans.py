"""Scans that lack what a reconstruction needs: each is reconstructed, and what was done said, or refused in three lines."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from make_kspace import make_kspace

from recon.cli import main
from recon.errors import InputError
from recon.mri import scale_of

pytestmark = pytest.mark.usefixtures("no_pictures")

N = 48
EVERY = set(range(0, N, 3))
WELL = EVERY | set(range(18, 30))
BESIDE = set(range(1, N, 3))  # the zero frequency is not among them


def scan(lines=WELL, axis: int = -1, coils: int = 4) -> np.ndarray:
    kept = np.zeros(N, bool)
    kept[list(lines)] = True
    return make_kspace(1, coils, N, N, noise=0.01)[0] * (kept if axis == -1 else kept[:, None])


def with_noise(coil: int, sigma: float) -> np.ndarray:
    """The noise of one coil, elsewhere .01, is ``sigma``."""
    kspace, rng = scan(), np.random.default_rng(1)
    noise = rng.standard_normal((2, N, N)) * (kspace[coil] != 0)
    kspace[coil] += sigma * (noise[0] + 1j * noise[1])
    return kspace


def without(*coils: int) -> np.ndarray:
    kspace = scan()
    kspace[list(coils)] = 0
    return kspace


def file_of(folder: Path, kspace: np.ndarray, **arrays: np.ndarray) -> Path:
    np.savez(folder / "x.npz", kspace=kspace, **arrays)  # pyright: ignore[reportArgumentType]
    return folder / "x.npz"


def reconstructed(path: Path, tiny: str, *words: str) -> int:
    few = ["--prior", tiny, "--steps", "2", "--samples", "1", "--out", str(path.parent / "out")]
    return main(["reconstruct", str(path), *few, *words])


HANDLED = {
    "three central lines": (scan(EVERY | {23, 24, 25}), "18 of 48 lines"),
    "one coil, no centre": (scan(BESIDE, coils=1), "16 of 48 lines, acceleration 3"),
    "phase encoding along the rows": (scan(WELL, -2), "24 of 48 rows, acceleration 2"),
    "a dead coil": (without(2), "coil 2 receives nothing and is left out"),
    "two dead coils": (without(0, 2), "coils 0, 2 receive nothing and are left out"),
    "all coils dead but one": (without(0, 1, 3), "coils 0, 1, 3 receive nothing"),
    "a noisy coil": (with_noise(1, 0.06), "times the noise of most others: --whiten weighs it"),
    "a coil that drowns": (with_noise(1, 30), "coil 1 receives more noise than signal and is left out"),
}


@pytest.mark.parametrize("name", HANDLED)
def test_it_is_reconstructed_and_said(name, tmp_path, tiny, capsys):
    kspace, said = HANDLED[name]
    assert reconstructed(file_of(tmp_path, kspace), tiny) == 0
    assert said in capsys.readouterr().out
    with h5py.File(tmp_path / "out" / "x.h5") as file:
        image = file["reconstruction"][()]
    whole = np.sqrt((np.abs(np.fft.ifft2(make_kspace(1, 4, N, N), norm="ortho")) ** 2).sum())
    assert np.isfinite(image).all() and 0.3 < np.linalg.norm(image) / whole < 1.5


REFUSED = {
    "two central lines": (scan(EVERY | {23}), [], "the fully sampled centre is 48 x 2 samples"),
    "the central line alone": (scan(EVERY), [], "the fully sampled centre is 48 x 1 samples"),
    "no centre": (scan(BESIDE), [], "The centre of k-space is not sampled"),
    "no central row": (scan(BESIDE, -2), [], "The centre of k-space is not sampled"),
    "too many virtual coils": (with_noise(1, 30), ["--coils", "4"], "It has 3 coils that receive anything"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_in_three_lines(name, tmp_path, tiny, capsys):
    kspace, words, said = REFUSED[name]
    assert reconstructed(file_of(tmp_path, kspace), tiny, *words) == 2
    error = capsys.readouterr().err
    assert said in error and len(error.strip().splitlines()) == 3 and not (tmp_path / "out").exists()


def test_a_coil_that_drowns_the_others_is_as_good_as_none(tmp_path, tiny):
    """What is reconstructed without --whiten is that of the other coils; with it the coil takes part."""
    images = []
    for n, kspace in enumerate((with_noise(1, 30), without(1))):
        folder = tmp_path / str(n)
        folder.mkdir()
        assert reconstructed(file_of(folder, kspace), tiny) == 0
        with h5py.File(folder / "out" / "x.h5") as file:
            images.append(file["reconstruction"][()])
    np.testing.assert_array_equal(*images)


def test_an_image_of_nothing_is_refused():
    with pytest.raises(InputError, match="Slice 3 shows no object"):
        scale_of(torch.zeros(1, 1, 8, 8, dtype=torch.complex64), 3)
