"""Masks and maps that are not what they are taken for, and the residual that sees every mistake: said, or put right."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from make_kspace import coil_maps, make_fastmri_file, make_kspace

from recon.cli import main
from recon.errors import InputError
from recon.io import open_kspace, read_maps, read_mask, read_result
from recon.io.acquisition import MaskChoice, acquire
from recon.io.checks.layout import Layout, look
from recon.io.checks.maps import are_conjugated, unit_maps
from recon.io.checks.masks import as_mask
from recon.jobs.shared.guard import HIGH, LOW, doubt_of
from recon.mri import SliceResult, reconstruct_slice
from recon.priors import Prior
from recon.registry.recipe import Recipe

pytestmark = pytest.mark.usefixtures("no_pictures")

N = 32
LINES = np.arange(N) % 3 == 0
LINES[N // 2 - 4 : N // 2 + 4] = True


def reconstruct(tiny, capsys, folder, *arguments):
    """Exit code, and what was printed."""
    few = ["--prior", tiny, "--device", "cpu", "--steps", "4", "--samples", "2"]
    code = main(["reconstruct", *few, "--out", str(folder / "out"), "--overwrite", *map(str, arguments)])
    printed = capsys.readouterr()
    return code, printed.out + printed.err


def square(folder, kspace=None, **more):
    kspace = make_kspace(slices=1, H=N, W=N, noise=0.01) if kspace is None else kspace
    return make_fastmri_file(folder / "k.h5", kspace=kspace, with_header=False, **more)


# --- masks -----------------------------------------------------------------------------------------------


SHAPES = {
    "(W,)": (LINES, False),
    "(1, W)": (LINES[None], False),
    "(H, 1)": (LINES[:, None], True),
    "(H, W) of columns": (np.tile(LINES, (N, 1)), False),
    "(H, W) of rows": (np.tile(LINES[:, None], (1, N)), True),
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_mask_of_square_kspace_is_never_transposed(tmp_path, name):
    mask, rows = SHAPES[name]
    np.save(tmp_path / "m.npy", mask)
    file, found = look(square(tmp_path))
    used = acquire(file, found, MaskChoice(str(tmp_path / "m.npy"))).mask.numpy()
    assert (used == (LINES[:, None] if rows else LINES[None])).all()


@pytest.mark.parametrize("shape", [(24,), (1, 24), (1, 1, 24, 1)])
def test_a_mask_of_other_kspace_goes_by_its_length(shape):
    lines = np.arange(24) % 2 == 0
    assert as_mask(lines.reshape(shape), (32, 24), Path("m")).tolist() == lines.tolist()
    turned = (1, 24) if shape == (24,) else shape[::-1]
    if turned == (24, 1):
        assert (as_mask(lines.reshape(turned), (24, 32), Path("m")).numpy() == lines[:, None]).all()


@pytest.mark.parametrize("shape", [(24, 1), (1, 32), (24, 32)])
def test_a_transposed_mask_is_refused(shape):
    with pytest.raises(InputError) as caught:
        as_mask(np.ones(shape), (32, 24), Path("m"))
    assert "transposed" in caught.value.do


@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("shape", [(N,), (1, N, 1), (1, 1, N, 1)])
def test_the_samples_of_kspace_tell_rows_from_columns(tmp_path, rows, shape):
    kept = LINES[:, None] if rows else LINES
    file, found = look(square(tmp_path, make_kspace(slices=1, H=N, W=N) * kept))
    np.save(tmp_path / "m.npy", LINES.reshape(shape))
    used = acquire(file, found, MaskChoice(str(tmp_path / "m.npy")))
    assert (used.mask.numpy() == np.broadcast_to(kept, (N, N))).all() and used.notes == ()
    with h5py.File(tmp_path / "k.h5", "a") as stored:
        stored["mask"] = LINES.reshape(shape)
    file, found = look(tmp_path / "k.h5")
    assert (acquire(file, found, MaskChoice()).mask.numpy() == np.broadcast_to(kept, (N, N))).all()


def test_a_mask_that_could_be_either_is_refused(tmp_path):
    file, found = look(square(tmp_path))
    np.save(tmp_path / "m.npy", LINES[None, :, None])
    with pytest.raises(InputError, match="rows or of columns"):
        acquire(file, found, MaskChoice(str(tmp_path / "m.npy")))
    assert read_mask(tmp_path / "m.npy", file).tolist() == LINES.tolist()  # beside k-space: as fastMRI has it


def test_a_mask_that_only_fits_transposed_or_hardly_is_said(tmp_path):
    file, found = look(square(tmp_path, make_kspace(slices=1, H=N, W=N) * LINES))
    np.save(tmp_path / "m.npy", np.tile(LINES[:, None], (1, N)))
    with pytest.raises(InputError, match="fits this k-space when it is transposed"):
        acquire(file, found, MaskChoice(str(tmp_path / "m.npy")))
    np.save(tmp_path / "m.npy", LINES | np.roll(LINES, 1))
    assert (
        "of the mask's samples are zero" in acquire(file, found, MaskChoice(str(tmp_path / "m.npy"))).notes[0]
    )


def test_a_mask_whose_centre_lies_in_the_corner(tmp_path):
    np.save(tmp_path / "m.npy", np.fft.ifftshift(LINES))
    choice = MaskChoice(str(tmp_path / "m.npy"))
    with pytest.raises(InputError, match="not fftshifted"):
        acquire(*look(square(tmp_path)), choice)
    shifted = np.fft.ifftshift(make_kspace(slices=1, H=N, W=N, noise=1e-3), axes=(-2, -1))
    file, found = look(square(tmp_path, shifted, with_target=False), Layout(fftshift="kspace"))
    used = acquire(file, found, choice)
    assert (used.mask.numpy() == LINES).all() and "as that of k-space" in used.notes[0]


# --- maps ------------------------------------------------------------------------------------------------


MAPS = torch.from_numpy(coil_maps(4, N, N))[None]
INSIDE = torch.hypot(*torch.meshgrid(*[torch.linspace(-1, 1, N)] * 2, indexing="ij")) < 0.8


@pytest.mark.parametrize("factor", [1e-30, 1e-3, 0.1, 10, 1000])
def test_maps_of_any_scale_are_the_same(factor):
    found, said = unit_maps(factor * MAPS * INSIDE)
    torch.testing.assert_close(found, MAPS * INSIDE, atol=1e-5, rtol=1e-4)
    assert "is set to 1" in said and unit_maps(MAPS * INSIDE)[1] == ""


def test_soft_maps_and_sets_keep_their_shape():
    weights = (1.25 - torch.hypot(*torch.meshgrid(*[torch.linspace(-1, 1, N)] * 2, indexing="ij"))) / 0.3
    soft = MAPS * weights.clamp(0, 1)
    torch.testing.assert_close(unit_maps(3 * soft)[0], soft, atol=1e-5, rtol=1e-4)
    sets = torch.cat([MAPS * INSIDE, 0.3 * MAPS.flip(1)])
    torch.testing.assert_close(unit_maps(0.01 * sets)[0], sets, atol=1e-5, rtol=1e-4)


def test_maps_that_were_not_normalised_are():
    shading = 0.2 + torch.linspace(0, 1, N)
    found, said = unit_maps(MAPS * shading)
    torch.testing.assert_close(found, MAPS, atol=1e-5, rtol=1e-4)
    assert "varied over the image" in said
    with pytest.raises(InputError, match="zero everywhere"):
        unit_maps(0 * MAPS)


@pytest.mark.parametrize("lines", [4, N])
def test_conjugated_and_foreign_maps_are_told(lines):
    kspace = torch.from_numpy(make_kspace(slices=1, H=N, W=N, noise=0.005)[0])
    mask = torch.zeros(N, N, dtype=torch.bool)
    mask[:, N // 2 - lines // 2 : N // 2 + lines // 2] = True
    assert are_conjugated(MAPS, kspace, mask) == (False, "")
    turned, said = are_conjugated(MAPS.conj().resolve_conj(), kspace, mask)
    assert turned and "conjugated" in said
    turned, said = are_conjugated(MAPS.roll(2, 1), kspace, mask)
    assert not turned and "another scan's" in said
    assert are_conjugated(MAPS.roll(2, 1), kspace, torch.zeros_like(mask)) == (False, "")


def test_maps_in_another_order_are_refused_with_what_to_do(tmp_path):
    file = open_kspace(square(tmp_path))
    for maps, hint in ((np.moveaxis(MAPS[0].numpy(), 0, -1), "moveaxis(maps, -1, 0)"),):
        np.save(tmp_path / "maps.npy", maps)
        with pytest.raises(InputError) as caught:
            read_maps(tmp_path / "maps.npy", file, 0)
        assert hint in caught.value.do


@pytest.mark.parametrize("wrong", ["scaled", "conjugated", "foreign"])
def test_maps_are_put_right_or_said_on_the_command_line(tiny, tmp_path, capsys, wrong):
    maps = {"scaled": 1e-3 * MAPS, "conjugated": MAPS.conj().resolve_conj(), "foreign": MAPS.roll(2, 1)}[
        wrong
    ]
    path = square(tmp_path)
    np.save(tmp_path / "good.npy", MAPS[0].numpy())
    np.save(tmp_path / "maps.npy", maps[0].numpy())
    images = {}
    for name in ("good", "maps"):
        code, said = reconstruct(tiny, capsys, tmp_path, path, "--maps", tmp_path / f"{name}.npy")
        assert code == 0 and ("note: " in said) == (name == "maps")
        images[name] = read_result(tmp_path / "out/k.h5").reconstruction
    alike = np.allclose(images["good"], images["maps"], rtol=1e-3, atol=1e-4 * images["good"].max())
    assert alike == (wrong != "foreign")
    assert ("warning" in said) == (wrong == "foreign")


def test_maps_beside_the_kspace_are_looked_at_too(tmp_path, capsys):
    path = square(tmp_path)
    with h5py.File(path, "a") as file:
        file["sensitivity_maps"] = 10 * MAPS.conj().resolve_conj().numpy()
    assert main(["inspect", str(path)]) == 0
    said = capsys.readouterr().out
    assert "The maps are conjugated" in said and "was 10: it is set to 1" in said


def test_no_centre_at_all(tiny, tmp_path, capsys):
    """Without one there is nothing to estimate maps from; with maps there is no need of one."""
    lines = LINES.copy()
    lines[N // 2 - 4 : N // 2 + 4] = False
    path = square(tmp_path, make_kspace(slices=1, H=N, W=N, noise=0.01) * lines, with_target=False)
    np.save(tmp_path / "maps.npy", MAPS[0].numpy())
    code, said = reconstruct(tiny, capsys, tmp_path, path, "--maps", tmp_path / "maps.npy")
    assert code == 0 and "note: " not in said and "warning: " not in said


# --- the residual ----------------------------------------------------------------------------------------


def test_the_residual_of_every_slice_is_told_and_kept(tiny, tmp_path, capsys):
    path = make_fastmri_file(tmp_path / "a.h5", noise=0.02)
    code, said = reconstruct(tiny, capsys, tmp_path, path)
    assert code == 0 and said.count(", residual ") == 2 and "warning" not in said
    residual = read_result(tmp_path / "out/a.h5").residual
    assert (
        residual is not None and residual.shape == (2,) and (residual > LOW).all() and (residual < HIGH).all()
    )


def test_what_does_not_explain_the_data_is_doubted(tiny, tmp_path, capsys):
    """The centre in the corner, said to be right."""
    kspace = np.fft.ifftshift(make_kspace(slices=1, H=N, W=N, noise=0.005), axes=(-2, -1))
    code, said = reconstruct(tiny, capsys, tmp_path, square(tmp_path, kspace), "--fftshift", "none")
    assert code == 0 and "warning: slice 0: the samples are" in said and "the centre of k-space" in said


def test_the_band_of_the_residual():
    image = torch.ones(1, 1)
    good = SliceResult(image, None, None, image[None], None, image, None, 0.1, 1.0, 1.0, 1, [], 0.0)
    for residual, floor, doubted in (
        (1.0, 0.0, False), (HIGH - 0.01, 0.0, False), (HIGH + 0.01, 0.0, True), (HIGH + 0.01, 0.1, True),
        (LOW - 0.01, 0.0, True), (LOW - 0.01, 0.1, False), (float("nan"), 0.0, True),
    ):  # fmt: skip
        assert bool(doubt_of(replace(good, residual=residual), floor)) == doubted


# --- phase encoding on the other axis --------------------------------------------------------------------


def test_kspace_turned_by_90_degrees_is_reconstructed_as_well(tmp_path):
    """Lines along the rows: the same measurements, maps and noise, and so the same image but for the sampler's noise."""
    kspace = torch.from_numpy(make_kspace(slices=1, H=64, W=64, noise=0.01)[0])
    lines = torch.arange(64) % 3 == 0
    lines[24:40] = True
    truth = np.abs(
        np.fft.fftshift(
            np.fft.ifft2(np.fft.ifftshift(make_kspace(slices=1, H=64, W=64)[0], axes=(-2, -1)), norm="ortho"),
            axes=(-2, -1),
        )
    )
    truth = torch.from_numpy(np.sqrt((truth**2).sum(0)))
    prior = Prior(lambda x, sigma: x / (1 + sigma**2))
    recipe = Recipe(steps=4, samples=4)
    errors, residuals = [], []
    for turned in (False, True):
        k, mask = (kspace.mT, lines[:, None].expand(64, 64)) if turned else (kspace, lines.expand(64, 64))
        found = reconstruct_slice(k.contiguous(), mask, recipe, prior)
        mean = found.mean.abs().mT if turned else found.mean.abs()
        errors.append(float((mean - truth).norm() / truth.norm()))
        residuals.append(found.residual)
    assert errors[1] == pytest.approx(errors[0], rel=0.1)
    assert residuals[1] == pytest.approx(residuals[0], rel=0.1)
