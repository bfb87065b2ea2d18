"""k-space as people have it: in another order, in the corner, as a volume. Recognised, said, or put right by a flag."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from make_kspace import coil_maps, fft2c, make_fastmri_file, objects

from recon.errors import ConfigError, InputError
from recon.io import open_kspace, survey, write_cfl
from recon.io.checks.layout import SHIFTS, Layout, look
from recon.io.stores import axes_of
from recon.io.stores.energy import centre_of, is_encoded, wraps

H, W, COILS, Z = 48, 40, 4, 16
PLANE = (-2, -1)


def images(slices: int = 1) -> np.ndarray:
    """(slices, coils, H, W): an object with sharp edges in the middle of the image."""
    return objects(slices, H, W, H)[:, None] * coil_maps(COILS, H, W)


def volume() -> tuple[np.ndarray, np.ndarray]:
    """k-space (Z, coils, H, W) of slices, and of their volume, which fills most of its length."""
    z = np.linspace(-1, 1, Z)[:, None, None, None]
    slices = np.where(np.abs(z) < 0.9, 1 - 0.3 * z**2 + 0.2 * z, 0) * images(1)
    noise = np.random.default_rng(0).standard_normal((2, Z, COILS, H, W))
    planes = fft2c(slices) + 1e-3 * (noise[0] + 1j * noise[1])
    stack = np.fft.ifftshift(planes, axes=0)
    return planes, np.fft.fftshift(np.fft.fft(stack, axis=0, norm="ortho"), axes=0)


def saved(folder, kspace, **more):
    np.savez(folder / "k.npz", kspace=np.asarray(kspace, dtype=np.complex64), **more)
    return folder / "k.npz"


def read(path, **layout) -> np.ndarray:
    file, _ = look(path, Layout(**layout))
    return np.stack([file.read_slice(i).kspace.numpy() for i in range(file.slices)])


# --- where the energy is ---------------------------------------------------------------------------------


def test_a_profile_tells_the_middle_from_the_corner():
    for n in (8, 33, 40, 256):
        profile = 1 / (1 + 2 * (np.arange(n) - n // 2) ** 4.0)
        assert centre_of(profile) == "middle" and is_encoded(profile)
        assert centre_of(np.fft.ifftshift(profile)) == "corner"
        assert centre_of(np.ones(n)) is None and not is_encoded(np.ones(n))


def test_coils_and_slices_are_no_phase_encoding():
    loud = np.ones(32)
    loud[16] = 1e4
    compressed = 2.0 ** -np.arange(16)
    head = np.clip(1 - (np.arange(64) - 31.5) ** 2 / 20**2, 0, None)
    for profile in (loud, compressed, head, head[20:44]):
        assert not is_encoded(profile)


def test_an_image_around_its_border_is_told():
    power = np.clip(1 - (np.arange(40) - 20) ** 2 / 16**2, 0, None)
    assert not wraps(power) and wraps(np.fft.fftshift(power)) and not wraps(np.ones(40))


# --- the centre ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axes", [(-1,), (-2,), PLANE])
@pytest.mark.parametrize("kept", [slice(None), slice(1, None, 2)])
def test_a_centre_in_the_corner_is_refused_and_moved_by_a_flag(tmp_path, axes, kept):
    lines = np.zeros(W, bool)
    lines[kept] = True
    lines[W // 2 - 4 : W // 2 + 4] = True
    kspace = fft2c(images(2)) * lines
    path = saved(tmp_path, np.fft.ifftshift(kspace, axes=axes))
    with pytest.raises(InputError, match="lies in the corner") as caught:
        look(path)
    assert "--fftshift" in caught.value.do
    np.testing.assert_allclose(read(path, fftshift="kspace"), kspace, atol=1e-6)
    file, found = look(path, Layout(fftshift="kspace"))
    assert "moved from the corner" in file.notes[-1] and file.shifted == axes
    assert found.sampled.any(0).tolist() == lines.tolist()
    untouched = read(path, fftshift="none")
    np.testing.assert_allclose(untouched, np.fft.ifftshift(kspace, axes=axes), atol=1e-6)


def test_a_good_file_is_as_it_was(tmp_path):
    kspace = fft2c(images(2))
    path = saved(tmp_path, kspace)
    for shift in (None, "kspace", "both", "image"):
        np.testing.assert_allclose(read(path, fftshift=shift), kspace, atol=1e-6)
    assert look(path)[0].notes == ()
    assert "was not moved" in look(path, Layout(fftshift="kspace"))[0].notes[-1]


@pytest.mark.parametrize(("height", "width"), [(48, 40), (47, 41)])
def test_a_plain_fft2_is_put_right(tmp_path, height, width):
    image = objects(1, height, width, height)[:, None] * coil_maps(COILS, height, width)
    plain = np.fft.fft2(image, norm="ortho")
    path = saved(tmp_path, plain)
    file, _ = look(path, Layout(fftshift="kspace"))
    assert "--fftshift both" in file.notes[-1]
    np.testing.assert_allclose(read(path, fftshift="both"), fft2c(image), atol=1e-5)
    half = saved(tmp_path, np.fft.fftshift(plain, axes=PLANE))
    assert "--fftshift image" in look(half)[0].notes[-1]
    np.testing.assert_allclose(read(half, fftshift="image"), fft2c(image), atol=1e-5)


def test_the_mask_in_the_file_moves_with_its_kspace(tmp_path):
    lines = np.arange(W) % 3 == 0
    lines[W // 2 - 4 : W // 2 + 4] = True
    kspace = np.fft.ifftshift(fft2c(images(1)) * lines, axes=PLANE)
    for mask in (lines, np.fft.ifftshift(lines)):
        file, _ = look(saved(tmp_path, kspace, mask=mask), Layout(fftshift="kspace"))
        assert file.mask is not None and file.mask.tolist() == lines.tolist()


# --- the axes --------------------------------------------------------------------------------------------


ORDERS = {
    "h,w,coils": (0, 2, 3, 1),
    "h,w,slices,coils": (2, 3, 0, 1),
    "slices,h,w,coils": (0, 2, 3, 1),
}


@pytest.mark.parametrize("axes", ORDERS)
def test_coils_in_the_last_axis_are_said_and_read_by_a_flag(tmp_path, axes):
    kspace = fft2c(images(3 if "slices" in axes else 1))
    stored = np.transpose(kspace, ORDERS[axes])
    path = saved(tmp_path, stored if "slices" in axes else stored[0])
    with pytest.raises(InputError) as caught:
        look(path)
    assert f"--axes {axes}" in caught.value.do
    np.testing.assert_allclose(read(path, axes=axes), kspace, atol=1e-6)


@pytest.mark.parametrize("axes", ["h,w", "h,w,c", "h,h,w", "coils,h", "slices,kz,h,w", ""])
def test_axes_that_are_no_kspace_are_refused(axes):
    if axes == "h,w":
        assert axes_of(axes) == ("h", "w")
    else:
        with pytest.raises(ConfigError, match="axes"):
            Layout(axes=axes)
    with pytest.raises(ConfigError, match="fftshift"):
        Layout(fftshift="yes")
    assert SHIFTS[0] == "kspace"


def test_axes_that_do_not_fit_the_array_are_refused(tmp_path):
    with pytest.raises(InputError, match="4 axes"):
        look(saved(tmp_path, fft2c(images(2))), Layout(axes="h,w,coils"))


# --- volumes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (1, 0, 2, 3)])
def test_a_volume_becomes_its_slices(tmp_path, order):
    planes, kspace = volume()
    path = saved(tmp_path, np.transpose(kspace, order))
    np.testing.assert_allclose(read(path), planes, atol=1e-5)
    file, _ = look(path)
    assert f"A volume of {Z} partitions" in file.notes[-1]
    np.testing.assert_allclose(
        read(path, axes="slices,coils,h,w" if order[0] == 0 else "coils,slices,h,w"), kspace, atol=1e-5
    )


def test_slices_are_no_volume(tmp_path):
    planes, _ = volume()
    path = saved(tmp_path, planes)
    assert look(path)[0].notes == ()
    np.testing.assert_allclose(read(path), planes, atol=1e-5)


@pytest.mark.parametrize("padded", [False, True])
def test_a_volume_in_cfl(tmp_path, padded):
    planes, kspace = volume()
    if padded:
        kspace[:2] = kspace[-2:] = 0
    bart = np.transpose(kspace, (2, 3, 0, 1)).astype(np.complex64)
    path = write_cfl(tmp_path / "vol", bart)
    found = read(path)
    assert found.shape == planes.shape
    if not padded:
        np.testing.assert_allclose(found, planes, atol=1e-5)
    stack = write_cfl(tmp_path / "stack", np.transpose(planes, (2, 3, 0, 1)).astype(np.complex64))
    assert "dimension 2 is taken for slices" in look(stack)[0].notes[-1]
    np.testing.assert_allclose(read(stack), planes, atol=1e-5)


def test_a_volume_that_is_undersampled_in_both_directions_is_refused(tmp_path):
    _, kspace = volume()
    lines = np.random.default_rng(0).random((Z, 1, 1, W)) < 0.5
    lines[Z // 2 - 2 : Z // 2 + 3, ..., W // 2 - 4 : W // 2 + 4] = True
    path = write_cfl(tmp_path / "vol", np.transpose(kspace * lines, (2, 3, 0, 1)).astype(np.complex64))
    with pytest.raises(InputError, match="two phase encodings"):
        look(path)
    alike = write_cfl(
        tmp_path / "alike", np.transpose(kspace * lines[Z // 2], (2, 3, 0, 1)).astype(np.complex64)
    )
    file, found = look(alike)
    assert file.slices == Z and found.sampled.any(0).tolist() == lines[Z // 2, 0, 0].tolist()


# --- references ------------------------------------------------------------------------------------------


def test_a_reference_that_is_not_finite_is_refused(tmp_path):
    import h5py

    path = make_fastmri_file(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        file["reconstruction_rss"][1, 3, 4] = np.nan
    with pytest.raises(InputError, match="slice 1 of reconstruction_rss has NaN"):
        survey(open_kspace(path))
    assert torch.isfinite(look(make_fastmri_file(tmp_path / "b.h5"))[1].sampled).all()
