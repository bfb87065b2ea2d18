"""Non-Cartesian k-space from its file to its result: shapes, noise, maps, masks of readouts, what is refused."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import torch
from make_kspace import coil_maps, objects
from make_prior import make_prior
from make_trajectory import make_trajectory_file, measured

import operators as op
from operators.noncartesian import gridded_centre, trajectory_noise_level
from recon.cli import main
from recon.errors import InputError
from recon.io import open_kspace, survey
from recon.io.acquisition import MaskChoice, acquire

RADIAL = op.radial_trajectory(48, 64)


@pytest.mark.parametrize("kind", ["radial", "one readout", "spiral"])
def test_the_noise_is_found(kind):
    """At the end of readouts, and in the part of their band that the object cannot reach."""
    points = {
        "radial": RADIAL,
        "one readout": RADIAL.reshape(1, -1, 2),
        "spiral": op.spiral_trajectory(8, 256, 3),
    }[kind]
    y = torch.from_numpy(measured(points, noise=0.02))[0]
    assert trajectory_noise_level(y, points) == pytest.approx(0.02, rel=0.15)


def test_the_gridded_centre_is_that_of_cartesian_data():
    k = torch.from_numpy(measured(RADIAL))[0].flatten(1)
    weights = op.density_compensation(RADIAL, (32, 32))
    centre, mask = gridded_centre(k, RADIAL, weights, (32, 32))
    images = torch.from_numpy(objects(1, 32, 32, 32) * coil_maps(4, 32, 32))
    assert 12 <= int(mask.sum(0).max()) <= 32
    expected = op.fft2c(images) * mask
    assert float((centre - expected).norm() / expected.norm()) < 0.02


def shapes() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """name -> k-space and trajectory, all of the same two slices, or of the first."""
    k, points = measured(RADIAL, 2), RADIAL.numpy()
    return {
        "slices, coils, readouts, samples": (k, points),
        "flat samples": (k.reshape(2, 4, -1), points),
        "flat trajectory": (k.reshape(2, 4, -1), points.reshape(-1, 2)),
        "a trajectory each": (k, np.stack((points, points))),
        "one slice": (k[0], points),
        "one slice, flat": (k[0].reshape(4, -1), points.reshape(-1, 2)),
        "one coil": (k[0, 0], points),
    }


@pytest.mark.parametrize("name", shapes())
def test_every_layout_gives_the_same_slice(name, tmp_path):
    k, points = shapes()[name]
    np.savez(tmp_path / "k.npz", kspace=k, trajectory=points, matrix=[32, 32])
    file = open_kspace(tmp_path / "k.npz")
    piece = file.read_slice(0)
    whole = shapes()["slices, coils, readouts, samples"][0][0][: file.coils]
    assert file.crop == (32, 32) and file.slices == (2 if k.ndim > 2 and len(k) == 2 else 1)
    np.testing.assert_array_equal(piece.kspace.flatten(1), whole.reshape(file.coils, -1))
    torch.testing.assert_close(piece.trajectory.reshape(-1, 2), RADIAL.reshape(-1, 2).float())


def test_the_size_is_asked_for_or_said_by_the_file(tmp_path):
    path = make_trajectory_file(tmp_path / "k.npz", RADIAL, matrix=None)
    with pytest.raises(InputError, match="spaced for up to 64") as caught:
        open_kspace(path)
    assert "--matrix" in caught.value.do
    assert open_kspace(path, (40,)).crop == (40, 40) and open_kspace(path, (24, 30)).crop == (24, 30)
    maps = coil_maps(4, 32, 32)
    assert open_kspace(make_trajectory_file(tmp_path / "m.npz", RADIAL, matrix=None, maps=maps)).crop == (
        32,
        32,
    )


BAD = {
    "radians": ({"trajectory": 2 * np.pi * RADIAL.numpy()}, "radians per pixel"),
    "pixels": ({"trajectory": 32 * RADIAL.numpy()}, "cycles per field of view"),
    "per metre": ({"trajectory": 1000 * RADIAL.numpy()}, "per metre"),
    "other lengths": ({"trajectory": RADIAL.numpy()[:, :-1]}, "does not fit k-space"),
    "NaN in the trajectory": ({"trajectory": RADIAL.numpy() * np.nan}, "NaN"),
    "empty trajectory": ({"trajectory": np.zeros((0, 2))}, "empty"),
    "complex trajectory": ({"trajectory": RADIAL.numpy()[..., 0] + 1j}, "It is real"),
    "text": ({"trajectory": np.array(["a"])}, "not numbers"),
    "coordinates first": ({"trajectory": np.moveaxis(RADIAL.numpy(), -1, 0)}, "moveaxis"),
    "real k-space": ({"kspace": measured(RADIAL).real}, "not complex"),
    "NaN in k-space": ({"kspace": measured(RADIAL) * np.nan}, "NaN or infinite"),
    "zeros": ({"kspace": measured(RADIAL) * 0}, "all zeros"),
    "no size": ({"matrix": None}, "--matrix"),
    "size 0": ({"matrix": np.array([0, 32])}, "the matrix is 0 x 32"),
    "other maps": ({"maps": coil_maps(4, 24, 24)}, "do not fit"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_used_is_refused_in_three_lines(name, tmp_path):
    changes, said = BAD[name]
    path = make_trajectory_file(tmp_path / "k.npz", RADIAL, **changes)
    with pytest.raises(InputError) as caught:
        survey(open_kspace(path))
    assert said in str(caught.value) and len(str(caught.value).splitlines()) <= 3


def test_readouts_are_left_out_whole(tmp_path):
    file = open_kspace(make_trajectory_file(tmp_path / "k.npz", RADIAL))
    found = survey(file)
    for choice in (MaskChoice(accel=4), MaskChoice("random", 4)):
        acquired = acquire(file, found, choice)
        assert acquired.simulated and acquired.accel == 4 and int(acquired.mask.any(1).sum()) == 12
        assert torch.equal(acquired.mask.any(1), acquired.mask.all(1))
    for choice in (MaskChoice("poisson", 4), MaskChoice(accel=4, center=0.1), MaskChoice(accel=100)):
        with pytest.raises(InputError):
            acquire(file, found, choice)


def test_reconstruct_and_inspect_take_them(tmp_path, capsys):
    """The same command, options and result as for Cartesian k-space; a second run finds it done."""
    prior = make_prior(tmp_path)
    path = make_trajectory_file(tmp_path / "k.npz", RADIAL, slices=2)
    few = ["--prior", str(prior), "--steps", "3", "--samples", "2", "--out", str(tmp_path / "out")]
    assert main(["inspect", str(path)]) == 0
    said = capsys.readouterr().out
    assert "48 readouts of 64 samples" in said and "warnings   none" in said
    assert main(["reconstruct", str(path), "--accel", "1.5", *few]) == 0
    with h5py.File(tmp_path / "out" / "k.h5") as file:
        assert file["reconstruction"].shape == (2, 32, 32) and np.isfinite(file["std"][()]).all()
        assert file["mask"].shape == (48, 64) and set(file["scores"])
    assert main(["reconstruct", str(path), "--accel", "1.5", *few]) == 0
    assert "done already" in capsys.readouterr().out
    for more, said in ((["--accel", "12"], "fully sampled over"), (["--mask", "poisson"], "Cartesian")):
        few[-1] = str(tmp_path / said[:5])
        assert main(["reconstruct", str(path), *more, *few]) == 2
        assert said in capsys.readouterr().err
    few[-1] = str(tmp_path / "white")
    assert main(["reconstruct", str(path), "--whiten", "--coils", "3", "--matrix", "30", *few]) == 0
