"""ISMRMRD files whose readouts carry trajectories: sorted, their units recognised, what cannot be used refused."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

pytest.importorskip(
    "ismrmrd", reason="the extra `formats` is not installed: pip install 'recon-posterior[formats]'"
)
pytest.importorskip(
    "finufft", reason="the extra `noncart` is not installed: pip install 'recon-posterior[noncart]'"
)

from make_ismrmrd import header, readout, write
from make_trajectory import measured

import operators as op
from recon.cli import main
from recon.errors import InputError
from recon.io import open_kspace, survey
from recon.io.acquisition import MaskChoice, acquire

N, COILS = 32, 4
RADIAL = op.radial_trajectory(40, 2 * N)
SPIRAL = op.spiral_trajectory(8, 256, 3)
XML = header((2 * N, N, 1), (N, N, 1), pixel=2.0, trajectory="radial")
"""Readouts twice oversampled: an encoded field of view of 128 x 64 mm, and pixels of 2 mm."""


def spokes(kspace, points, numbers=None, pad=(0, 0), **more):
    """The readouts of k-space (coils, readouts, samples) with their trajectory; ``pad`` samples on both sides to discard."""
    idx = more.pop("idx", {})
    for number in range(len(points)) if numbers is None else numbers:
        wide = np.pad(kspace[:, number], ((0, 0), pad), constant_values=100)
        traj = np.pad(np.asarray(points[number], np.float32), (pad, (0, 0)), constant_values=9)
        yield readout(
            wide,
            traj=traj,
            discard_pre=pad[0],
            discard_post=pad[1],
            idx={"kspace_encode_step_1": number, **idx},
            **more,
        )


def radial_file(path, points=RADIAL, xml=XML, scale=1.0, **more):
    """One slice along ``points``, stored times ``scale``."""
    return write(path, xml, spokes(measured(points, noise=0.01)[0], scale * points.numpy(), **more))


def refused(path, *words):
    with pytest.raises(InputError) as caught:
        survey(open_kspace(path))
    error = caught.value
    assert str(error).splitlines() == [error.what, error.why, error.do] and str(path) in error.what
    assert all(word in str(error) for word in words), str(error)


@pytest.mark.parametrize("points", [RADIAL, SPIRAL], ids=["radial", "spiral"])
def test_readouts_and_their_places_are_those_of_the_file(points, tmp_path):
    """Oversampled readouts keep their samples; the image has the field of view that the header asks for."""
    xml = XML if points is RADIAL else header((N, N, 1), (N, N, 1), pixel=2.0, trajectory="spiral")
    file = open_kspace(radial_file(tmp_path / "x.h5", points, xml))
    assert file.format == "ISMRMRD" and file.shape == (1, COILS, *points.shape[:2]) and file.crop == (N, N)
    piece = file.read_slice(0)
    np.testing.assert_array_equal(piece.kspace.numpy(), measured(points, noise=0.01)[0])
    np.testing.assert_allclose(piece.trajectory.numpy(), points.numpy(), atol=1e-7)
    assert file.notes == () and file.attrs["units of the trajectory"] == "cycles per pixel"
    assert file.geometry.spacing == (2, 2, 2)


def test_what_is_no_image_and_samples_to_be_discarded_are_left_out(tmp_path):
    kspace, rng = measured(RADIAL)[0], np.random.default_rng(0)
    noise = (rng.standard_normal((3, COILS, 50)) + 1j * rng.standard_normal((3, COILS, 50))).astype(
        np.complex64
    )
    others = [
        readout(np.full((COILS, 7), 50), flags=[f"ACQ_IS_{name}"])
        for name in ("NAVIGATION_DATA", "DUMMYSCAN_DATA", "PHASECORR_DATA")
    ]
    scans = [readout(one, flags=["ACQ_IS_NOISE_MEASUREMENT"]) for one in noise]
    played = [*scans, *others, *spokes(kspace, RADIAL.numpy(), pad=(3, 5))]
    file = open_kspace(write(tmp_path / "x.h5", XML, played))
    np.testing.assert_array_equal(file.read_slice(0).kspace.numpy(), kspace)
    np.testing.assert_allclose(file.read_slice(0).trajectory.numpy(), RADIAL.numpy(), atol=1e-7)
    np.testing.assert_array_equal(file.store.noise_scan(), np.concatenate(noise, 1))
    assert "40 of images, 3 of noise, of 46" in file.attrs["readouts"]


def test_slices_contrasts_and_repetitions_each_have_their_trajectory(tmp_path):
    """The slice is counted fastest. Repetitions of other spokes, one of which has fewer: its rest are zeros, and left out."""
    golden = op.radial_trajectory(60, 2 * N, golden=True)
    kspace = measured(golden, 2)
    rounds = {0: range(0, 30), 1: range(30, 55)}
    played = [
        one
        for repetition, numbers in rounds.items()
        for number in numbers
        for s in (1, 0)
        for one in spokes(kspace[s], golden.numpy(), [number], idx={"slice": s, "repetition": repetition})
    ]
    file = open_kspace(write(tmp_path / "x.h5", XML, played))
    assert file.shape == (4, COILS, 30, 2 * N) and file.trajectory.points.shape == (4, 30, 2 * N, 2)
    assert file.attrs["order"].startswith("2 slices x 2 repetitions")
    for index in range(4):
        numbers, piece = rounds[index // 2], file.read_slice(index)
        used = (piece.kspace != 0).any(0).any(1)
        assert int(used.sum()) == len(numbers)
        np.testing.assert_array_equal(piece.kspace[:, used].numpy(), kspace[index % 2][:, numbers])
        np.testing.assert_allclose(piece.trajectory[used].numpy(), golden[list(numbers)].numpy(), atol=1e-7)
    same = [one for s in (0, 1) for one in spokes(kspace[s], golden.numpy(), range(30), idx={"slice": s})]
    file = open_kspace(write(tmp_path / "y.h5", XML, same))
    assert file.slices == 2 and len(file.trajectory.points) == 1


def stack(path, turn=0.0, skip=(), drop=(), kz=True, xml_z=4):
    """A stack of stars of 4 partitions: the Fourier transform along them of slices (and their spokes turned by ``turn``)."""
    slices = measured(RADIAL, 4)
    kspace = np.fft.fftshift(np.fft.fft(np.fft.ifftshift(slices, 0), axis=0, norm="ortho"), 0)
    played = []
    for partition in set(range(4)) - set(drop):
        points = RADIAL.numpy() * (1 + turn * partition)
        if kz:
            points = np.concatenate((points, np.full_like(points[..., :1], (partition - 2) / 4)), -1)
        numbers = [n for n in range(40) if (partition, n) not in skip]
        idx = {"kspace_encode_step_2": partition}
        played += spokes(kspace[partition], points, numbers, idx=idx)
    xml = header((2 * N, N, xml_z), (N, N, xml_z), trajectory="radial")
    return write(path, xml, played), slices


@pytest.mark.parametrize("kz", [True, False])
def test_a_stack_of_stars_is_its_slices(tmp_path, kz):
    path, slices = stack(tmp_path / "x.h5", kz=kz)
    file = open_kspace(path)
    assert file.shape == (4, COILS, 40, 2 * N) and len(file.trajectory.points) == 1 and file.notes == ()
    for index in range(4):
        np.testing.assert_allclose(file.read_slice(index).kspace.numpy(), slices[index], atol=1e-5)


def test_a_stack_that_cannot_be_taken_apart_is_refused(tmp_path):
    refused(stack(tmp_path / "a.h5", turn=-0.1)[0], "different trajectories in different partitions")
    refused(stack(tmp_path / "b.h5", skip=[(1, 3)])[0], "not all with the same lines")
    refused(stack(tmp_path / "c.h5", drop=[1])[0], "not one after another around the middle")
    refused(stack(tmp_path / "d.h5", xml_z=1, kz=False)[0], "does not fit the encoded matrix", "partition")
    ball = np.concatenate((RADIAL.numpy(), RADIAL.numpy()[..., :1]), -1)
    refused(
        write(tmp_path / "e.h5", XML, spokes(measured(RADIAL)[0], ball)), "trajectory in three dimensions"
    )


def test_a_third_number_that_is_a_weight_is_not_used_and_said(tmp_path):
    weighted = np.concatenate((RADIAL.numpy(), np.abs(RADIAL.numpy()[..., :1])), -1)
    file = open_kspace(write(tmp_path / "x.h5", XML, spokes(measured(RADIAL)[0], weighted)))
    np.testing.assert_allclose(file.read_slice(0).trajectory.numpy(), RADIAL.numpy(), atol=1e-7)
    assert "taken for a weight" in file.notes[0]


UNITS = {
    "field of view": (N, "cycles per field of view, [-32/2, 32/2]"),
    "encoded field of view": (2 * N, "cycles per encoded field of view"),
    "radians": (2 * np.pi, "radians per pixel"),
    "per metre": (500, "cycles per metre"),
    "radians per metre": (1000 * np.pi, "radians per metre"),
    "radians per mm": (np.pi, "radians per millimetre"),
}


@pytest.mark.parametrize("name", UNITS)
def test_units_are_recognised_by_their_range_and_said(name, tmp_path):
    scale, said = UNITS[name]
    file = open_kspace(radial_file(tmp_path / "x.h5", scale=scale))
    np.testing.assert_allclose(file.read_slice(0).trajectory.numpy(), RADIAL.numpy(), atol=1e-6)
    assert (
        len(file.notes) == 1
        and said in file.notes[0]
        and file.attrs["units of the trajectory"] in file.notes[0]
    )


def test_other_units_are_refused_and_a_low_reach_is_said(tmp_path):
    refused(radial_file(tmp_path / "x.h5", scale=1.7), "trajectory reaches 0.85")
    refused(radial_file(tmp_path / "y.h5", scale=5000), "more than half of the matrix")
    file = open_kspace(radial_file(tmp_path / "z.h5", 0.4 * RADIAL))
    assert "reaches 0.2 of .5" in file.notes[0]


def silent(path):
    """Spokes of which one does not say where it lies."""
    played = list(spokes(measured(RADIAL)[0], RADIAL.numpy()))
    return write(path, XML, [*played[:-1], readout(measured(RADIAL)[0][:, -1])])


def shortened(path, what):
    """A file with one readout whose trajectory, or samples, are fewer than its header says."""
    radial_file(path)
    with h5py.File(path, "a") as file:
        row = file["dataset/data"][5]
        row[what] = row[what][:-2]
        file["dataset/data"][5] = row
    return path


def of_uneven_readouts(path):
    kspace = measured(RADIAL)[0]
    short = spokes(kspace[..., 1:], RADIAL.numpy()[:, 1:], range(20, 40))
    return write(path, XML, [*spokes(kspace, RADIAL.numpy(), range(20)), *short])


REFUSED = {
    "no trajectory": (
        lambda p: write(p, XML, [readout(one) for one in measured(RADIAL)[0].transpose(1, 0, 2)]),
        ("has the trajectory radial", "40 of its 40 readouts do not say where"),
    ),
    "one without": (silent, ("1 of its 40 readouts do not say where",)),
    "shorter trajectory": (lambda p: shortened(p, "traj"), ("of another length than its data", "readout 5")),
    "shorter data": (lambda p: shortened(p, "data"), ("readout 5 has 255 numbers",)),
    "uneven readouts": (of_uneven_readouts, ("63 to 64 samples",)),
    "all discarded": (
        lambda p: write(
            p, XML, [readout(np.ones((COILS, 8)), traj=np.zeros((8, 2), np.float32), discard_pre=8)]
        ),
        ("0 to 0 samples that are kept",),
    ),
    "noise alone": (
        lambda p: write(p, XML, [readout(np.ones((COILS, 8)), flags=["ACQ_IS_NOISE_MEASUREMENT"])]),
        ("has no readouts of images",),
    ),
    "NaN": (lambda p: radial_file(p, scale=np.nan), ("NaN",)),
    "no matrix": (lambda p: radial_file(p, xml="<ismrmrdHeader/>"), ("no encoded matrix",)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_used_is_refused(name, tmp_path):
    make, words = REFUSED[name]
    refused(make(tmp_path / "x.h5"), *words)


def test_a_cartesian_header_says_that_trajectories_are_not_used(tmp_path):
    """One that says "other", or nothing, leaves it to the readouts."""
    lines = [
        readout(np.ones((COILS, N)), traj=np.zeros((N, 2), np.float32), idx={"kspace_encode_step_1": n})
        for n in range(N)
    ]
    plain = header((N, N, 1), (N, N, 1))
    assert "are not used" in open_kspace(write(tmp_path / "x.h5", plain, lines)).notes[0]
    other = XML.replace("radial", "other")
    assert open_kspace(radial_file(tmp_path / "y.h5", xml=other)).trajectory is not None


def test_the_header_sizes_the_image(tmp_path):
    """The encoded phase counts spokes in some files; pixels are as the readout has them, or those of the image."""
    spoke_count = header((2 * N, 40, 1), (N, N, 1), pixel=2.0, trajectory="radial").replace(
        "<y>80.0</y>", "<y>64.0</y>"
    )
    assert open_kspace(radial_file(tmp_path / "x.h5", xml=spoke_count)).crop == (N, N)
    unknown = spoke_count.replace("_mm", "_")
    file = open_kspace(radial_file(tmp_path / "y.h5", xml=unknown))
    assert file.crop == (N, N) and file.geometry is None
    assert open_kspace(tmp_path / "y.h5", (24,)).crop == (24, 24)
    fine = XML.replace("<x>32</x><y>32</y>", "<x>64</x><y>64</y>")
    file = open_kspace(radial_file(tmp_path / "z.h5", xml=fine))
    assert file.crop == (N, N) and "asks for interpolation" in file.notes[0]


def test_inspect_and_reconstruct_take_them(tmp_path, capsys, tiny, no_pictures):
    path = radial_file(tmp_path / "x.h5", scale=N)
    assert main(["inspect", str(path)]) == 0
    said = capsys.readouterr().out
    assert (
        "40 readouts of 64 samples" in said and "warning    The trajectory is taken to be in cycles" in said
    )
    found = acquire(file := open_kspace(path), survey(file), MaskChoice())
    assert not found.simulated
    few = ["--prior", tiny, "--steps", "2", "--samples", "2", "--whiten", "--out", str(tmp_path / "out")]
    assert main(["reconstruct", str(path), *few]) == 0
    assert "note: The trajectory is taken to be in" in capsys.readouterr().out
    with h5py.File(tmp_path / "out" / "x.h5") as file:
        assert file["reconstruction"].shape == (1, N, N) and np.isfinite(file["std"][()]).all()
