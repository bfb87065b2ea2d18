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


@pytest.mark.parametrize(("colours", "measured"), [(True, False), (False, False), (False, True)])
def test_a_grey_picture_gets_colours(tmp_path, capsys, colours, measured):
    """Its lightness is what was measured: of a picture with colours, or the grey picture itself."""
    path = picture(tmp_path / "a.png", colours)
    more = ["--measured", "--size", *map(str, SIZE)] if measured else []
    command = ["restore", path, "--out", str(tmp_path / "out"), "--operator", "colourisation", "--steps", "2"]
    assert main([*command, "--samples", "2", "--device", "cpu", "--sigma", "0.001", *more]) == 0
    assert "prior natural: the image has colours" in "".join(capsys.readouterr())
    with np.load(tmp_path / "out/a.npz") as found:
        assert found["mean"].shape == (3, *SIZE) and found["measurement"].shape == (1, *SIZE)
        lightness = np.tensordot([0.299, 0.587, 0.114], found["mean"], 1)
        gray = np.asarray(Image.open(path).convert("L"), float) / 255
        assert np.abs(lightness - gray).max() < 0.01


def test_a_prior_of_grey_pictures_has_no_colours_to_give(tmp_path, capsys):
    command = ["restore", picture(tmp_path / "a.png", True), "--out", str(tmp_path / "out")]
    assert main([*command, "--operator", "colourisation", "--prior", "brain-mri"]) == 2
    assert "acts on real ones" in capsys.readouterr().err


def test_operators_of_real_images_restore_grey_pictures_too(tmp_path, capsys):
    """With the prior of colour pictures; and a file of a grey picture is a measurement of it."""
    path = picture(tmp_path / "a.png", False)
    for more in ([], ["--measured", "--size", *map(str, SIZE)]):
        command = [
            "restore",
            path,
            "--out",
            str(tmp_path / "out"),
            "--operator",
            "jpeg",
            "--steps",
            "2",
            *more,
        ]
        assert main([*command, "--samples", "2", "--device", "cpu", "--overwrite"]) == 0
        with np.load(tmp_path / "out/a.npz") as found:
            assert found["mean"].shape == found["measurement"].shape == (3, *SIZE)
    capsys.readouterr()
