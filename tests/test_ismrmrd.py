"""ISMRMRD raw data: every readout in its place, what is no image left out, what cannot be used refused."""

from __future__ import annotations

import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

pytest.importorskip(
    "ismrmrd", reason="the extra `formats` is not installed: pip install 'recon-posterior[formats]'"
)

from make_ismrmrd import header, lines_of, readout, scan, write
from make_kspace import crop, fft2c, ifft2c
from make_prior import make_prior

from recon import io, mri
from recon.errors import InputError
from recon.io.acquisition import MaskChoice, acquire, sampled_in
from recon.jobs import reconstruct as app
from recon.jobs.inspect import inspect
from recon.jobs.shared.settings import settle

X, Y, COILS = 32, 24, 3
XML = header((2 * X, Y, 1), (X, Y, 1))
SEEN = {"read_dir": (1, 0, 0), "phase_dir": (0, 1, 0), "slice_dir": (0, 0, 1)}


def image_of(path: Path, index: int = 0) -> np.ndarray:
    return ifft2c(io.open_kspace(path).read_slice(index).kspace.numpy())


def middle(kspace: np.ndarray) -> np.ndarray:
    """The image of k-space without its readout oversampling."""
    return crop(ifft2c(kspace), X, Y)


def refused(read, *words: str) -> InputError:
    with pytest.raises(InputError) as caught:
        read()
    error = caught.value
    assert str(error).splitlines() == [error.what, error.why, error.do] and all(str(error).splitlines())
    assert all(word in str(error) for word in words), str(error)
    return error


def test_slices_contrasts_and_repetitions_are_slices_in_a_stable_order(tmp_path):
    """The slice is counted fastest, in whatever order the readouts were played."""
    kspace = scan(3)
    readouts = [
        one
        for repetition in (1, 0)
        for line in range(Y)
        for contrast in (0, 1)
        for s in (2, 0, 1)
        for one in lines_of(
            kspace[s] * (1 + contrast + 2 * repetition),
            [line],
            idx={"slice": s, "contrast": contrast, "repetition": repetition},
        )
    ]
    path = write(tmp_path / "x.h5", XML, readouts)
    file = io.open_kspace(path)
    assert file.format == "ISMRMRD" and file.shape == (12, COILS, X, Y) and file.crop == (X, Y)
    for index in range(12):
        wanted = (1 + index // 3) * middle(kspace[index % 3])
        np.testing.assert_allclose(image_of(path, index), wanted, atol=1e-6)
    assert "order = 3 slices x 2 contrasts x 2 repetitions, the first counted fastest" in inspect(path)


def test_readouts_of_one_line_are_averaged(tmp_path):
    kspace = scan()[0]
    averages = [one for a in range(4) for one in lines_of(kspace * (a + 1), idx={"average": a})]
    path = write(tmp_path / "x.h5", XML, averages)
    assert io.open_kspace(path).slices == 1
    np.testing.assert_allclose(image_of(path), 2.5 * middle(kspace), atol=1e-6)


OTHERS = ("NAVIGATION_DATA", "PHASECORR_DATA", "DUMMYSCAN_DATA", "HPFEEDBACK_DATA", "RTFEEDBACK_DATA")


def test_what_is_no_image_is_left_out_and_backwards_readouts_are_turned(tmp_path):
    kspace, rng = scan()[0], np.random.default_rng(0)
    noise = rng.standard_normal((5, COILS, 40)) + 1j * rng.standard_normal((5, COILS, 40))
    others = [readout(kspace[..., 12] * 50, flags=[f"ACQ_IS_{name}"]) for name in OTHERS]
    scans = [readout(one, flags=["ACQ_IS_NOISE_MEASUREMENT"]) for one in noise]
    even, odd = (
        lines_of(kspace, range(0, Y, 2)),
        lines_of(kspace[:, ::-1], range(1, Y, 2), flags=["ACQ_IS_REVERSE"]),
    )
    path = write(tmp_path / "x.h5", XML, [*scans, *others, *even, *odd])
    np.testing.assert_allclose(image_of(path), middle(kspace), atol=1e-6)
    file = io.open_kspace(path)
    np.testing.assert_allclose(file.store.noise_scan(), np.concatenate(noise, 1).astype(np.complex64))
    assert "played backwards" in file.notes[0]
    assert "24 of images, 5 of noise, of 34" in inspect(path)


@pytest.mark.parametrize(("mode", "used"), [("embedded", True), ("", True), ("separate", False)])
def test_calibration_lines_belong_to_the_image_unless_they_were_a_scan_of_their_own(tmp_path, mode, used):
    kspace = scan()[0]
    flags = ["ACQ_IS_PARALLEL_CALIBRATION"]
    both = [*flags, "ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING"]
    lines = [
        *lines_of(kspace, range(0, Y, 4)),
        *lines_of(kspace, [8, 12], flags=both),
        *lines_of(kspace, [9, 10, 11, 13, 14], flags=flags),
    ]
    path = write(tmp_path / "x.h5", header((2 * X, Y, 1), (X, Y, 1), calibration=mode), lines)
    file = io.open_kspace(path)
    mask = acquire(file, io.survey(file), MaskChoice()).mask
    wanted = set(range(0, Y, 4)) | (set(range(8, 15)) if used else set())
    assert set(mask[0].nonzero()[:, 0].tolist()) == wanted
    found = file.read_slice(0).calibration
    assert (found is None) is used
    if not used:
        assert {n for n in range(Y) if found[..., n].abs().max() > 0} == {9, 10, 11, 13, 14}
        assert "5 of a calibration scan" in inspect(path)


def test_maps_are_those_of_a_calibration_scan_of_its_own(tmp_path, monkeypatch):
    """Every second line of the image, and 12 lines of a scan that is ten times as bright; no central lines are missed."""
    monkeypatch.setattr(app, "save_panel", lambda *a, **k: None)
    seen, real = [], mri.espirit
    monkeypatch.setattr(mri, "espirit", lambda *a, **k: seen.append(a) or real(*a, **k))
    kspace = scan()[0]
    flags = ["ACQ_IS_PARALLEL_CALIBRATION"]
    lines = [
        *lines_of(kspace, range(0, Y, 2)),
        *lines_of(10 * kspace, range(6, 18), flags=flags, idx={"repetition": 5}),
    ]
    path = write(tmp_path / "x.h5", header((2 * X, Y, 1), (X, Y, 1), calibration="separate"), lines)
    made = settle({"prior": str(make_prior(tmp_path)), "steps": 2, "samples": 1, "coils": 2}, {})
    outcome = app.reconstruct([path], made, tmp_path / "out", say=lambda line: None)
    assert not outcome.failures and len(seen) == 1
    calibration, mask = seen[0][:2]
    assert calibration.shape == (2, X, Y) and mask[0].nonzero()[:, 0].tolist() == list(range(6, 18))
    short = [*lines[: Y // 2], *lines[Y // 2 + 5 : Y // 2 + 7]]  # the lines 11 and 12
    few = write(tmp_path / "y.h5", header((2 * X, Y, 1), (X, Y, 1), calibration="separate"), short)
    outcome = app.reconstruct([few], made, tmp_path / "out", say=lambda line: None)
    assert "fully sampled centre" in str(outcome.failures[0].error)


def test_partial_fourier_of_the_phase_encoding_stands_beside_its_centre(tmp_path):
    """Line 0 is 6 lines before the middle: the rest of that side was not measured."""
    kspace = scan()[0]
    xml = header((2 * X, Y, 1), (X, Y, 1), center=6, last=17)
    lines = [one for n in range(18) for one in lines_of(kspace[..., 6:], [n])]
    file = io.open_kspace(write(tmp_path / "x.h5", xml, lines))
    mask = acquire(file, io.survey(file), MaskChoice()).mask
    assert not mask[:, :6].any() and mask[:, 6:].all() and file.acquired == (6, 24)
    kspace[..., :6] = 0
    np.testing.assert_allclose(image_of(file.path), middle(kspace), atol=1e-6)


@pytest.mark.parametrize("turned", [False, True])
def test_an_asymmetric_echo_keeps_its_centre(tmp_path, turned):
    """Of 64 samples the first 16 are missing: the rows near them are left out, the others are those of the whole echo."""
    kspace = scan()[0]
    short = kspace[:, 16:, :]
    more = {"flags": ["ACQ_IS_REVERSE"], "center_sample": 31} if turned else {"center_sample": 16}
    lines = lines_of(short[:, ::-1] if turned else short, **more)
    file = io.open_kspace(write(tmp_path / "x.h5", XML, lines))
    assert file.height == X
    found = file.read_slice(0).kspace
    mask = acquire(file, io.survey(file), MaskChoice()).mask
    assert not mask[:10].any() and mask[10:].all()  # 16 / 2, and two rows
    whole = fft2c(middle(kspace))
    error = np.abs(found.numpy() - whole)[:, 10:]
    assert error.max() < 0.02 * np.abs(whole).max()
    assert not found[:, :10].any()


def test_samples_to_be_discarded_are(tmp_path):
    kspace = scan()[0]
    padded = np.pad(kspace, ((0, 0), (3, 5), (0, 0)), constant_values=100)
    lines = lines_of(padded, discard_pre=3, discard_post=5, center_sample=3 + X)
    np.testing.assert_allclose(image_of(write(tmp_path / "x.h5", XML, lines)), middle(kspace), atol=1e-6)


def test_pixels_are_as_square_as_the_header_asks(tmp_path):
    """Half as many lines for the same field of view: zeros are added; interpolation beyond that is not followed."""
    kspace = scan()[0]
    xml = header((2 * X, Y, 1), (2 * X, 3 * Y, 1), seen=(X, Y, 1))
    file = io.open_kspace(write(tmp_path / "x.h5", xml, lines_of(kspace)))
    assert file.shape[2:] == (X, 36) and file.crop == (X, 36)
    assert "as it was measured" in file.notes[0]
    mask = acquire(file, io.survey(file), MaskChoice()).mask
    assert mask[0].nonzero()[:, 0].tolist() == list(range(6, 30))
    assert file.geometry.spacing == pytest.approx((1, Y / 36, 1))


def test_a_field_of_view_wider_than_the_image_is_cropped(tmp_path):
    kspace = scan()[0]
    file = io.open_kspace(write(tmp_path / "x.h5", header((2 * X, Y, 1), (X, 16, 1)), lines_of(kspace)))
    assert file.shape[2:] == (X, Y) and file.crop == (X, 16)


# --- volumes ---------------------------------------------------------------------------------------------

Z = 6


def volume() -> np.ndarray:
    """k-space (coils, 2 X, Y, Z) of a different object in each of Z planes."""
    planes = scan(Z)
    shifted = np.fft.fft(np.fft.ifftshift(planes, axes=0), axis=0, norm="ortho")
    return np.moveaxis(np.fft.fftshift(shifted, axes=0), 0, -1)


def lines_of_volume(kspace: np.ndarray, keep=lambda line, partition: True, **idx):
    for partition in range(kspace.shape[-1]):
        chosen = [line for line in range(Y) if keep(line, partition)]
        yield from lines_of(
            kspace[..., partition], chosen, idx={"kspace_encode_step_2": partition, **idx}, **SEEN
        )


def test_a_volume_is_its_slices(tmp_path):
    kspace, planes = volume(), scan(Z)
    readouts = [*lines_of_volume(kspace), *lines_of_volume(2 * kspace, contrast=1)]
    path = write(tmp_path / "x.h5", header((2 * X, Y, Z), (X, Y, Z)), readouts)
    file = io.open_kspace(path)
    assert file.shape == (2 * Z, COILS, X, Y)
    for index in range(2 * Z):
        np.testing.assert_allclose(
            image_of(path, index), (1 + index // Z) * middle(planes[index % Z]), atol=1e-6
        )
    assert "6 partitions x 2 contrasts" in inspect(path)
    assert file.geometry.positions[:Z, 2].tolist() == [-3, -2, -1, 0, 1, 2]
    assert file.geometry.stacks(12) == [list(range(6)), list(range(6, 12))]


def test_oversampled_partitions_are_cropped_and_missing_ends_are_zero(tmp_path):
    kspace, planes = volume(), scan(Z)
    path = write(tmp_path / "x.h5", header((2 * X, Y, Z), (X, Y, 4)), lines_of_volume(kspace))
    assert io.open_kspace(path).slices == 4
    np.testing.assert_allclose(image_of(path, 0), middle(planes[1]), atol=1e-6)
    short = write(
        tmp_path / "y.h5", header((2 * X, Y, Z), (X, Y, Z)), lines_of_volume(kspace, lambda y, z: z > 0)
    )
    assert io.open_kspace(short).slices == Z and np.isfinite(image_of(short)).all()


def test_a_volume_undersampled_along_one_phase_encoding_has_that_mask(tmp_path):
    lines = lines_of_volume(volume(), lambda y, z: y % 2 == 0 or 8 <= y < 16)
    file = io.open_kspace(write(tmp_path / "x.h5", header((2 * X, Y, Z), (X, Y, Z)), lines))
    mask = acquire(file, io.survey(file), MaskChoice()).mask
    assert mask[0].tolist() == [y % 2 == 0 or 8 <= y < 16 for y in range(Y)]


@pytest.mark.parametrize("keep", [lambda y, z: (y + z) % 2 == 0, lambda y, z: z != 2])
def test_a_volume_undersampled_along_both_is_refused(tmp_path, keep):
    path = write(tmp_path / "x.h5", header((2 * X, Y, Z), (X, Y, Z)), lines_of_volume(volume(), keep))
    refused(lambda: io.survey(io.open_kspace(path)), str(path), "two phase encodings", "partitions")


# --- slices that were sampled differently ----------------------------------------------------------------


def test_each_slice_has_its_own_mask(tmp_path):
    """Repetitions that take turns with their lines: together they are whole, and none of them is."""
    kspace = scan()[0]
    lines = [
        one
        for repetition in (0, 1)
        for one in lines_of(kspace, range(repetition, Y, 2), idx={"repetition": repetition})
    ]
    file = io.open_kspace(write(tmp_path / "x.h5", XML, lines))
    found = io.survey(file)
    together = acquire(file, found, MaskChoice()).mask
    assert together.all() and not found.always.any()
    for index in (0, 1):
        own = sampled_in(file.read_slice(index).kspace, together)
        assert own[0].tolist() == [line % 2 == index for line in range(Y)]
        together_again = ifft2c(file.read_slice(index).calibration.numpy())
        np.testing.assert_allclose(
            together_again, middle(kspace), atol=1e-6
        )  # maps are those of all repetitions
    refused(lambda: acquire(file, found, MaskChoice(accel=2)), "sampled differently")


def test_an_interrupted_repetition_is_left_out(tmp_path):
    kspace = scan()[0]
    lines = [*lines_of(kspace), *lines_of(kspace, range(5), idx={"repetition": 1})]
    file = io.open_kspace(write(tmp_path / "x.h5", XML, lines))
    assert file.slices == 1 and "1 interrupted images of 2" in file.notes[0]


# --- trajectories and geometry ---------------------------------------------------------------------------


def test_readouts_are_given_with_their_trajectory(tmp_path):
    rng = np.random.default_rng(0)
    traj = rng.uniform(-0.5, 0.5, (4, 20, 2)).astype(np.float32)
    data = (rng.standard_normal((4, COILS, 20)) + 1j).astype(np.complex64)
    spokes = [
        readout(d, traj=t, idx={"kspace_encode_step_1": n})
        for n, (d, t) in enumerate(zip(data, traj, strict=True))
    ]
    path = write(tmp_path / "x.h5", header((20, 20, 1), (20, 20, 1), trajectory="radial"), spokes)
    store = io.stores.ISMRMRDStore(path)
    assert store.stored_header.trajectory == "radial"
    read = list(store.acquisitions.read(store.acquisitions.imaging))
    assert [index for index, _ in read] == [0, 1, 2, 3]
    for (_, one), d, t in zip(read, data, traj, strict=True):
        np.testing.assert_array_equal(one.data, d)
        np.testing.assert_array_equal(one.traj, t)


def test_geometry_is_the_readouts(tmp_path):
    kspace = scan(2)
    turned = {"read_dir": (0, 1, 0), "phase_dir": (0, 0, 1), "slice_dir": (1, 0, 0)}
    lines = [
        one
        for s in (0, 1)
        for one in lines_of(kspace[s], idx={"slice": s}, position=(10 - 7 * s, 20, 30), **turned)
    ]
    xml = header((2 * X, Y, 1), (X, Y, 1), pixel=2.0)
    found = io.open_kspace(write(tmp_path / "x.h5", xml, lines)).geometry
    assert found.spacing == (2, 2, 2)
    assert found.positions.tolist() == [[10, 20, 30], [3, 20, 30]]
    assert found.axes[0].tolist() == [[0, 1, 0], [0, 0, 1], [1, 0, 0]]
    assert found.corner(0, (X, Y)).tolist() == [10, 20 - X // 2 * 2, 30 - Y // 2 * 2]
    assert found.stacks(2) == [[1, 0]]  # along the normal, which is the patient's left
    silent = io.open_kspace(write(tmp_path / "y.h5", xml, lines_of(kspace[0]))).geometry
    assert silent.spacing == (2, 2, 2) and silent.positions is None


# --- refused ---------------------------------------------------------------------------------------------


def noise_only(path: Path) -> Path:
    return write(path, XML, [readout(np.ones((COILS, 8)), flags=["ACQ_IS_NOISE_MEASUREMENT"])] * 2)


def without_acquisitions(path: Path) -> Path:
    write(path, XML, lines_of(scan()[0], [0]))
    with h5py.File(path, "a") as file:
        file["dataset/data"].resize(0, axis=0)
    return path


def linked(path: Path, what: str, how: str) -> Path:
    """A file whose readouts or header lie in another file, which is never opened."""
    write(path, XML, lines_of(scan()[0], [0]))
    name = f"dataset/{what}"
    with h5py.File(path, "a") as file:
        kind = file[name].dtype if what == "data" else np.dtype("S100")
        del file[name]
        if how == "external link":
            file[name] = h5py.ExternalLink("another.h5", name)
        elif how == "soft link":
            file["beside"] = h5py.ExternalLink("another.h5", name)
            file[name] = h5py.SoftLink("/beside")
        elif how == "external storage":
            file.create_dataset(name, (1,), kind, external=[("another.h5", 0, 2**20)])
        else:
            layout = h5py.VirtualLayout((1,), kind)
            layout[:] = h5py.VirtualSource("another.h5", name, (1,), kind)
            file.create_virtual_dataset(name, layout)
    return path


def two_measurements(path: Path) -> Path:
    write(path, XML, lines_of(scan()[0], [0]), group="first")
    return write(path, XML, lines_of(scan()[0], [0]), group="second")


def of_uneven_coils(path: Path) -> Path:
    return write(path, XML, [*lines_of(scan()[0], [0]), *lines_of(scan(coils=2)[0], [1])])


REFUSED = {
    "noise alone": (noise_only, ("has no readouts of images", "2 are noise")),
    "nothing": (without_acquisitions, ("has no readouts of images",)),
    "no header of the encoding": (
        lambda p: write(p, "<ismrmrdHeader/>", lines_of(scan()[0])),
        ("no encoded matrix",),
    ),
    "a header that is none": (lambda p: write(p, "<ismrmrd", lines_of(scan()[0])), ("not the XML",)),
    "readouts too long": (
        lambda p: write(p, header((16, Y, 1), (16, Y, 1)), lines_of(scan()[0], center_sample=40)),
        ("does not fit the encoded matrix",),
    ),
    "lines too many": (
        lambda p: write(p, header((2 * X, 8, 1), (X, 8, 1)), lines_of(scan()[0])),
        ("does not fit",),
    ),
    "coils that differ": (of_uneven_coils, ("2 to 3 coils",)),
    "radial": (
        lambda p: write(p, header((2 * X, Y, 1), (X, Y, 1), trajectory="radial"), lines_of(scan()[0])),
        ("trajectory radial",),
    ),
    "slices excited together": (
        lambda p: write(
            p,
            XML.replace(
                "</encoding>",
                "<parallelImaging><multiband><multiband_factor>2</multiband_factor></multiband></parallelImaging></encoding>",
            ),
            lines_of(scan()[0]),
        ),
        ("2 slices in each readout",),
    ),
    "two measurements": (two_measurements, ("holds 2 measurements", "first, second")),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_used_is_refused(tmp_path, kind):
    make, words = REFUSED[kind]
    path = make(tmp_path / "x.h5")
    refused(lambda: io.survey(io.open_kspace(path)), str(path), *words)


HOW = ("external link", "soft link", "external storage", "virtual")


@pytest.mark.parametrize(
    ("what", "how"), [(w, h) for w in ("data", "xml") for h in HOW if (w, h) != ("data", "external storage")]
)
def test_no_other_file_is_opened(tmp_path, what, how):
    """Readouts have no fixed length, so HDF5 itself lets them lie in no raw file."""
    path = linked(tmp_path / "x.h5", what, how)
    (tmp_path / "another.h5").write_bytes(write(tmp_path / "y.h5", XML, lines_of(scan()[0])).read_bytes())
    refused(lambda: io.survey(io.open_kspace(path)), str(path), "another.h5")


def test_without_the_package_the_error_says_how_to_install_it(tmp_path, monkeypatch):
    path = write(tmp_path / "x.h5", XML, lines_of(scan()[0]))
    monkeypatch.setitem(sys.modules, "ismrmrd", None)
    refused(lambda: io.open_kspace(path), "pip install 'recon-posterior[formats]'", "ismrmrd")


def test_kspace_that_was_made_of_readouts_goes_first(tmp_path):
    """A file may keep both; the k-space is what somebody prepared."""
    path = write(tmp_path / "x.h5", XML, lines_of(scan()[0]))
    with h5py.File(path, "a") as file:
        file["kspace"] = scan(2)
    assert io.open_kspace(path).format == "HDF5" and io.open_kspace(path).slices == 2


def test_torn_files_are_refused(tmp_path):
    whole = write(tmp_path / "x.h5", XML, lines_of(scan()[0])).read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(12):
        path = tmp_path / "torn.h5"
        path.write_bytes(whole[: int(len(whole) * rng.uniform(0.05, 0.99))])
        with pytest.raises(InputError):
            io.survey(io.open_kspace(path))
    assert torch.isfinite(io.open_kspace(tmp_path / "x.h5").read_slice(0).kspace.abs()).all()
