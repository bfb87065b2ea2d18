"""Pictures with colours are restored in colour, by the prior that fits, and it is said which and why."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from recon.cli import main

SIZE = (16, 24)


def picture(path, colours: bool):
    ramp = np.linspace(0.1, 0.9, SIZE[0] * SIZE[1]).reshape(SIZE)
    channels = [ramp, 0.5 * ramp, 1 - ramp] if colours else [ramp] * 3
    Image.fromarray((255 * np.stack(channels, -1)).astype(np.uint8)).save(path)
    return str(path)


def restored(path: str, folder, *more: str) -> int:
    operator = ["--operator", "denoising", "--steps", "2", "--samples", "2", "--device", "cpu"]
    return main(["restore", path, "--out", str(folder), *operator, *more])


@pytest.mark.parametrize(
    ("colours", "prior", "shape"), [(True, "natural", (3, *SIZE)), (False, "brain-mri", SIZE)]
)
def test_the_prior_fits_the_picture(tmp_path, capsys, colours, prior, shape):
    path = picture(tmp_path / "a.png", colours)
    assert restored(path, tmp_path / "out") == 0
    said = capsys.readouterr()
    assert f"prior {prior}: the image has" in said.out + said.err
    with np.load(tmp_path / "out/a.npz") as found:
        for name in ("mean", "std", "low", "high"):
            assert found[name].shape == shape
        assert found["samples"].shape == (2, *shape)
        truth = np.asarray(Image.open(path), float) / 255
        truth = np.moveaxis(truth, -1, 0) if colours else truth[..., 0]
        assert np.corrcoef(np.abs(found["mean"]).ravel(), truth.ravel())[0, 1] > 0.95
    assert Image.open(tmp_path / "out/a.png").mode == ("RGB" if colours else "L")


def test_what_has_no_colours_is_said(tmp_path, capsys):
    path = picture(tmp_path / "a.png", True)
    assert main(["restore", path, "--out", str(tmp_path / "out"), "--operator", "ct"]) == 2
    assert "images of 3 channels" in capsys.readouterr().err
    assert restored(path, tmp_path / "gray", "--prior", "brain-mri") == 0
    with np.load(tmp_path / "gray/a.npz") as found:
        assert found["mean"].shape == SIZE
