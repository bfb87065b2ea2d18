"""What cannot be used is refused in three lines, what, why and what to do, and leaves nothing on disk."""

from __future__ import annotations

import os
import resource
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from make_kspace import coil_maps, make_fastmri_file, make_kspace
from PIL import Image

from recon import io
from recon.benchmark.sources import ImageStack
from recon.errors import InputError, OutputError, ReconError
from recon.io.images import read_image, read_stack, stack_shape
from recon.training.sets import ImageSet
from recon.training.slices import load_sets


def assert_three_lines(error: ReconError, *words: str) -> None:
    assert error.what and error.why and error.do
    assert str(error).splitlines() == [error.what, error.why, error.do]
    for word in words:
        assert word in str(error), f"{word!r} is not in:\n{error}"


def read_all(path: Path) -> None:
    """What comes before any work with a file: its description, and a look at every sample."""
    io.survey(io.open_kspace(path))


def h5(path: Path, **arrays: np.ndarray) -> Path:
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return path


def changed(path: Path, **arrays: np.ndarray) -> Path:
    make_fastmri_file(path, with_target=False)
    with h5py.File(path, "a") as file:
        for name, array in arrays.items():
            if name in file:
                del file[name]
            file[name] = array
    return path


def cut(path: Path, keep: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    return path


def text(path: Path, content: str) -> Path:
    path.write_text(content)
    return path


def npy(path: Path, array: np.ndarray, pickled: bool = False) -> Path:
    with open(path, "wb") as file:
        np.save(file, array, allow_pickle=pickled)
    return path


def npz(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)
    return path


def cfl(folder: Path, array: np.ndarray, header: str | None = None, keep: float = 1.0) -> Path:
    path = io.write_cfl(folder / "x", array)
    if header is not None:
        path.with_suffix(".hdr").write_text(header)
    return cut(path, keep)


def cfl_alone(folder: Path) -> Path:
    path = io.write_cfl(folder / "x", np.ones((4, 4, 1, 2)))
    path.with_suffix(".hdr").unlink()
    return path


def corrupt_chunk(path: Path) -> Path:
    """A file whose compressed samples are damaged, while everything around them is whole."""
    with h5py.File(path, "w") as file:
        kspace = make_kspace(2, 2, 16, 16)
        file.create_dataset("kspace", data=kspace, chunks=(1, 2, 16, 16), compression="gzip")
        at = file["kspace"].id.get_chunk_info(1)
    data = bytearray(path.read_bytes())
    data[at.byte_offset + 20 : at.byte_offset + 60] = bytes(40)
    path.write_bytes(data)
    return path


def with_bad_sample(path: Path, value: complex, index: int = 1) -> Path:
    kspace = make_kspace(3)
    kspace[index, 2, 5, 7] = value
    return h5(path, kspace=kspace)


def zero_slice(path: Path) -> Path:
    kspace = make_kspace(3)
    kspace[1] = 0
    return h5(path, kspace=kspace)


K = make_kspace(2, 3, 8, 6)
BOMB = b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aa"><!ENTITY b "&a;&a;">]><x>&b;</x>'

BAD: dict[str, tuple[Callable[[Path], Path], tuple[str, ...]]] = {
    "missing": (lambda d: d / "x.h5", ("x.h5 does not exist",)),
    "folder": (lambda d: d, ("is a folder", "*.h5")),
    "empty file": (lambda d: text(d / "x.h5", ""), ("is empty", "0 bytes")),
    "not HDF5": (lambda d: text(d / "x.h5", "hello " * 99), ("is not an HDF5 file",)),
    "npy named h5": (lambda d: npy(d / "x.h5", K), ("not an HDF5", "an npy file's", "Rename", ".npy")),
    "HDF5 named npz": (lambda d: h5(d / "x.npz", kspace=K), ("not an npz", "an HDF5 file's", ".h5")),
    "text named npy": (lambda d: text(d / "x.npy", "1 2 3"), ("is not an npy file",)),
    "text named npz": (lambda d: text(d / "x.npz", "1 2 3"), ("is not an npz file",)),
    "unknown format": (lambda d: text(d / "x.jpg", "1 2 3"), ("unknown format", ".cfl")),
    "truncated HDF5": (
        lambda d: cut(make_fastmri_file(d / "x.h5"), 0.5),
        ("cannot be read as HDF5", "truncated"),
    ),
    "HDF5 head only": (lambda d: cut(make_fastmri_file(d / "x.h5"), 0.002), ("cannot be read as HDF5",)),
    "damaged samples": (lambda d: corrupt_chunk(d / "x.h5"), ("cannot be read as HDF5",)),
    "no k-space": (lambda d: h5(d / "x.h5", image=K, other=K), ('no "kspace"', "image, other")),
    "no arrays": (lambda d: h5(d / "x.h5"), ('no "kspace"', "nothing")),
    "npz without k-space": (lambda d: npz(d / "x.npz", image=K), ('no "kspace"', "image")),
    "empty k-space": (lambda d: h5(d / "x.h5", kspace=K[:0]), ("k-space is empty", "(0, 3, 8, 6)")),
    "scalar k-space": (lambda d: h5(d / "x.h5", kspace=np.complex64(1)), ("k-space is empty", "()")),
    "empty npy": (lambda d: npy(d / "x.npy", K[:, :0]), ("k-space is empty",)),
    "no coil axis": (lambda d: h5(d / "x.h5", kspace=K[0, 0]), ("2 axes", "coils is missing", "k[None]")),
    "npy without coil axis": (lambda d: npy(d / "x.npy", K[0, 0]), ("2 axes", "coils is missing")),
    "five axes": (lambda d: h5(d / "x.h5", kspace=K[None]), ("5 axes",)),
    "real pairs": (
        lambda d: h5(d / "x.h5", kspace=np.stack([K.real, K.imag], -1)),
        ("float32, not complex", "k[..., 0] + 1j * k[..., 1]"),
    ),
    "real": (lambda d: h5(d / "x.h5", kspace=np.abs(K)), ("float32, not complex",)),
    "text as k-space": (lambda d: h5(d / "x.h5", kspace="samples"), ("k-space",)),
    "NaN": (lambda d: with_bad_sample(d / "x.h5", np.nan), ("slice 1", "NaN or infinite", "1 samples")),
    "infinite": (lambda d: with_bad_sample(d / "x.h5", 1j * np.inf, 2), ("slice 2", "NaN or infinite")),
    "too large for complex64": (
        lambda d: npy(d / "x.npy", K.astype(np.complex128) * 1e300),
        ("slice 0", "NaN or infinite"),
    ),
    "slice of zeros": (lambda d: zero_slice(d / "x.h5"), ("slice 1", "all zeros")),
    "mask of another width": (
        lambda d: changed(d / "x.h5", mask=np.ones(23, bool)),
        ("mask has shape (23,)", "32 x 24", "(24,)"),
    ),
    "mask of nothing": (lambda d: changed(d / "x.h5", mask=np.zeros(24)), ("mask keeps nothing",)),
    "mask of NaN": (lambda d: changed(d / "x.h5", mask=np.full(24, np.nan)), ("not yes or no",)),
    "other maps": (
        lambda d: changed(d / "x.h5", sensitivity_maps=coil_maps(5, 32, 24)),
        ("maps of shape (5, 32, 24)", "4 coils", "another file"),
    ),
    "header is no XML": (
        lambda d: changed(d / "x.h5", ismrmrd_header=b"<ismrmrdHeader>"),
        ("ismrmrd_header cannot be read",),
    ),
    "header with entities": (lambda d: changed(d / "x.h5", ismrmrd_header=BOMB), ("entities",)),
    "truncated npy": (lambda d: cut(npy(d / "x.npy", K), 0.7), ("cannot be read as npy",)),
    "truncated npz": (lambda d: cut(npz(d / "x.npz", kspace=K), 0.7), ("cannot be read as npz",)),
    "pickled npy": (lambda d: npy(d / "x.npy", np.array([{}, 1], object), True), ("Python objects",)),
    "cfl without hdr": (cfl_alone, ("x.hdr is missing",)),
    "truncated cfl": (lambda d: cfl(d, np.ones((4, 4, 1, 2)), keep=0.5), ("128 bytes", "asks for 256")),
    "emptied cfl": (lambda d: cfl(d, np.ones((4, 4, 1, 2)), keep=0), ("0 bytes", "asks for 256")),
    "hdr without sizes": (lambda d: cfl(d, np.ones((4, 4)), "# Command\nx\n"), ("gives no dimensions",)),
    "hdr of words": (lambda d: cfl(d, np.ones((4, 4)), "# Dimensions\n4 four\n"), ("gives no dimensions",)),
    "hdr of negative sizes": (
        lambda d: cfl(d, np.ones((4, 4)), "# Dimensions\n-4 -4\n"),
        ("gives no dimensions",),
    ),
    "cfl of map sets": (lambda d: cfl(d, np.ones((4, 4, 1, 2, 2))), ("Axis 4 has 2", "bart slice")),
    "cfl of echoes": (lambda d: cfl(d, np.ones((4, 4, 1, 2, 1, 3))), ("Axis 5 has 3", "bart slice")),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_file_is_refused(tmp_path, case):
    make, words = BAD[case]
    path = make(tmp_path)
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(InputError) as caught:
        read_all(path)
    assert_three_lines(caught.value, *words)
    assert sorted(os.listdir(tmp_path)) == before


def test_pickled_member_of_npz_is_refused(tmp_path):
    npy(tmp_path / "kspace.npy", np.array([[[{}]]], object), True)
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.write(tmp_path / "kspace.npy", "kspace.npy")
    with pytest.raises(InputError) as caught:
        read_all(tmp_path / "x.npz")
    assert_three_lines(caught.value)


def test_unreadable_file_is_refused(tmp_path, monkeypatch):
    path = make_fastmri_file(tmp_path / "x.h5")

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(InputError) as caught:
        io.open_kspace(path)
    assert_three_lines(caught.value, "cannot be opened", "Permission denied")


def test_slice_that_does_not_fit_into_memory(tmp_path, monkeypatch):
    file = io.open_kspace(make_fastmri_file(tmp_path / "x.h5"))

    def full(*args, **kwargs):
        raise MemoryError

    monkeypatch.setattr(h5py.Dataset, "__getitem__", full)
    with pytest.raises(InputError) as caught:
        file.read_slice(0)
    assert_three_lines(caught.value, "does not fit into memory")


def test_slice_that_is_not_there(tmp_path):
    file = io.open_kspace(make_fastmri_file(tmp_path / "x.h5"))
    for index in (-1, 2):
        with pytest.raises(InputError) as caught:
            file.read_slice(index)
        assert_three_lines(caught.value, f"no slice {index}", "0 to 1")


def test_masks_and_maps_beside_the_file(tmp_path):
    file = io.open_kspace(make_fastmri_file(tmp_path / "x.h5"))
    cases = [
        (io.read_mask, (file,), npy(tmp_path / "a.npy", np.ones(25)), "(25,)"),
        (io.read_mask, (file,), npy(tmp_path / "b.npy", np.ones((24, 32))), "(24, 32)"),
        (io.read_mask, (file,), npy(tmp_path / "c.npy", np.zeros(24)), "keeps nothing"),
        (io.read_mask, (file,), npy(tmp_path / "d.npy", np.array(["yes"] * 24)), "not yes or no"),
        (io.read_mask, (file,), npz(tmp_path / "e.npz", lines=np.ones(24)), "lines"),
        (io.read_mask, (file,), tmp_path / "no.npy", "does not exist"),
        (io.read_maps, (file, 0), npy(tmp_path / "f.npy", coil_maps(4, 24, 32)), "(4, 24, 32)"),
        (io.read_maps, (file, 0), npy(tmp_path / "g.npy", np.abs(coil_maps(4, 32, 24))), "float32"),
        (io.read_maps, (file, 0), npy(tmp_path / "h.npy", coil_maps(4, 32, 24) * np.nan), "NaN"),
        (io.read_maps, (file, 0), npz(tmp_path / "i.npz", other=coil_maps(4, 32, 24)), 'no "maps"'),
    ]
    for read, more, path, word in cases:
        with pytest.raises(InputError) as caught:
            read(path, *more)
        assert_three_lines(caught.value, word)


# output


def begin(path: Path, **options) -> io.ResultWriter:
    return io.ResultWriter(path, **dict(slices=1, size=(4, 4), samples=1, config={}, seed=0) | options)


def test_folder_that_cannot_be_written(tmp_path, monkeypatch):
    blocked = text(tmp_path / "file", "x")
    for folder in (blocked, blocked / "below", Path("/proc/none")):
        with pytest.raises(OutputError) as caught:
            io.check_folder(folder)
        assert_three_lines(caught.value, "Nothing can be written", "--out")
    with pytest.raises(OutputError) as caught:
        begin(blocked / "x.h5")
    assert_three_lines(caught.value, "cannot be written")
    with pytest.raises(OutputError) as caught:
        io.save_panel(blocked / "x.png", torch.ones(4, 4), torch.ones(4, 4))
    assert_three_lines(caught.value, "cannot be written")
    assert io.check_folder(tmp_path / "new" / "below") == tmp_path / "new" / "below"
    assert os.listdir(tmp_path) == ["file"]


def test_disk_without_space_is_found_before_any_work(tmp_path):
    """A limit on the size of a file fails as a full disk does: in the middle of a write."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OutputError) as caught:
            begin(tmp_path / "x.h5", size=(200, 200), samples=4)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert_three_lines(caught.value, "cannot be written", "File too large", "Free space")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("content", ["", "something else"])
def test_foreign_files_are_not_replaced(tmp_path, content):
    text(tmp_path / "x.h5", content)
    with pytest.raises(OutputError) as caught:
        begin(tmp_path / "x.h5")
    assert_three_lines(caught.value, "in the way", "--overwrite")
    os.rename(tmp_path / "x.h5", tmp_path / "x.h5.part")
    with pytest.raises(OutputError) as caught:
        begin(tmp_path / "x.h5")
    assert_three_lines(caught.value, "cannot be continued", "--overwrite")
    assert (tmp_path / "x.h5.part").read_text() == content
    begin(tmp_path / "x.h5", overwrite=True).close()


def test_part_of_another_input_is_not_continued(tmp_path):
    begin(tmp_path / "x.h5").close()
    with pytest.raises(OutputError) as caught:
        begin(tmp_path / "x.h5", slices=2)
    assert_three_lines(caught.value, "(1, 1, 4, 4)", "(2, 1, 4, 4)")


def test_what_is_no_result_is_not_read_as_one(tmp_path):
    for path in (tmp_path / "no.h5", text(tmp_path / "x.h5", "x"), make_fastmri_file(tmp_path / "k.h5")):
        with pytest.raises(InputError) as caught:
            io.read_result(path)
        assert_three_lines(caught.value, "is not a result")


def test_a_result_that_leads_into_another_file_is_neither_read_nor_continued(tmp_path):
    begin(tmp_path / "x.h5").close()
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["samples"] = np.zeros((1, 1, 4, 4), np.complex64)
    with h5py.File(tmp_path / "x.h5.part", "r+") as file:
        del file["samples"]
        file["samples"] = h5py.ExternalLink("other.h5", "samples")
    before = (tmp_path / "other.h5").read_bytes()
    with pytest.raises(InputError) as caught:
        io.read_result(tmp_path / "x.h5.part")
    assert_three_lines(caught.value, "is not a result")
    with pytest.raises(OutputError) as refused:
        begin(tmp_path / "x.h5")
    assert_three_lines(refused.value, "cannot be continued")
    assert (tmp_path / "other.h5").read_bytes() == before


# what a file may not do: point elsewhere, or ask for more than it holds


def another_file(folder: Path) -> Path:
    return make_fastmri_file(folder / "another.h5", with_maps=True, with_mask=np.ones(24))


def linked(folder: Path, name: str, how: str) -> Path:
    """A k-space file whose array ``name`` lies in another file."""
    path = make_fastmri_file(folder / "x.h5", with_maps=True, with_mask=np.ones(24))
    with h5py.File(another_file(folder), "a") as other:
        other["reconstruction_rss"] = np.ones((2, 32, 24), np.float32)
        text = other.pop("ismrmrd_header")[()]
        other["ismrmrd_header"] = np.array(
            [text]
        )  # neither storage nor mapping of a single text can be elsewhere
        shape, dtype = other[name].shape, other[name].dtype
    with h5py.File(path, "a") as file:
        if name in file:
            del file[name]
        if how == "external link":
            file[name] = h5py.ExternalLink("another.h5", f"/{name}")
        elif how == "soft link":
            file["elsewhere"] = h5py.ExternalLink("another.h5", "/")
            file[name] = h5py.SoftLink(f"/elsewhere/{name}")
        elif how == "external storage":
            file.create_dataset(name, shape, dtype, external=[("another.h5", 0, 2**20)])
        else:
            layout = h5py.VirtualLayout(shape, dtype)
            layout[...] = h5py.VirtualSource("another.h5", name, shape)
            file.create_virtual_dataset("inner" if how == "virtual twice" else name, layout)
            if how == "virtual twice":
                layout = h5py.VirtualLayout(shape, dtype)
                layout[...] = h5py.VirtualSource(file["inner"])
                file.create_virtual_dataset(name, layout)
    return path


@pytest.mark.parametrize(
    "how", ["external link", "soft link", "external storage", "virtual", "virtual twice"]
)
@pytest.mark.parametrize(
    "name", ["kspace", "mask", "sensitivity_maps", "reconstruction_rss", "ismrmrd_header"]
)
def test_no_array_is_read_from_another_file(tmp_path, monkeypatch, name, how):
    path = linked(tmp_path, name, how)
    opened = []
    monkeypatch.setattr(
        h5py, "File", lambda p, *a, real=h5py.File, **k: (opened.append(str(p)), real(p, *a, **k))[1]
    )
    with pytest.raises(InputError) as caught:
        io.open_kspace(path)
    assert_three_lines(caught.value, f'"{name}" is', "another", "Only the file that was named")
    assert opened and set(opened) == {str(path)}
    os.remove(tmp_path / "another.h5")  # it is refused for what it asks, not for what is there
    with pytest.raises(InputError) as again:
        io.open_kspace(path)
    assert str(again.value) == str(caught.value)


def test_masks_and_maps_beside_the_file_are_not_read_from_another(tmp_path):
    file = io.open_kspace(make_fastmri_file(tmp_path / "k.h5"))
    for name, read in (("mask", io.read_mask), ("sensitivity_maps", lambda p, f: io.read_maps(p, f, 0))):
        with pytest.raises(InputError) as caught:
            read(linked(tmp_path, name, "external link"), file)
        assert_three_lines(caught.value, "an external link to another.h5")


def test_links_that_nobody_needs_do_no_harm(tmp_path):
    path = make_fastmri_file(tmp_path / "x.h5")
    with h5py.File(path, "a") as file:
        file["raw"] = h5py.ExternalLink("/dev/zero", "/x")
        file["round"] = h5py.SoftLink("/round")
        file["nowhere"] = h5py.SoftLink("/none/at/all")
        file["group"] = h5py.SoftLink("/")
    read_all(path)
    assert "an external link to /dev/zero" in io.open_kspace(path).store.contents()


def grouped(path: Path, *groups: str) -> Path:
    with h5py.File(path, "w") as file:
        for group in groups:
            file[f"{group}/kspace"] = K
    return path


def many(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        for i in range(500):
            file[f"image{i:03}"] = 1.0
    return path


def npy_header(path: Path, shape: str, descr: str = "<c8", data: bytes = bytes(64)) -> Path:
    """A npy file by its header's own words; an npz with the array ``kspace`` if it is named so."""
    words = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    content = b"\x93NUMPY\x01\x00" + len(words).to_bytes(2, "little") + words.encode() + data
    if path.suffix == ".npz":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("kspace.npy", content)
    else:
        path.write_bytes(content)
    return path


def without_data(path: Path, shape: tuple[int, ...], name: str = "kspace") -> Path:
    """HDF5 that declares terabytes in a few kilobytes: no chunk was ever written."""
    path = make_fastmri_file(path) if name != "kspace" else path
    with h5py.File(path, "a") as file:
        file.create_dataset(name, shape, np.complex64 if name != "mask" else bool, chunks=(1,) * len(shape))
    return path


def utf16(path: Path) -> Path:
    return changed(path, ismrmrd_header=np.bytes_(BOMB.decode().encode("utf-16")))


def fifo(path: Path) -> Path:
    os.mkfifo(path)
    return path


HUGE = 10**7
HOSTILE: dict[str, tuple[Callable[[Path], Path], tuple[str, ...]]] = {
    "k-space in two groups": (
        lambda d: grouped(d / "x.h5", "a", "b/c"),
        ('several arrays "kspace": a/kspace, b/c/kspace', "which one"),
    ),
    "other arrays in groups": (
        lambda d: h5(d / "x.h5", **{"dataset/data": K, "dataset/xml": b"<x/>"}),
        ('no "kspace"', "dataset/data, dataset/xml"),
    ),
    "five hundred arrays": (lambda d: many(d / "x.h5"), ("image000", "and 488 more")),
    "npy of a huge shape": (
        lambda d: npy_header(d / "x.npy", f"({HUGE}, 4, {HUGE}, {HUGE})"),
        ("does not fit into its",),
    ),
    "npy of a shape that overflows": (
        lambda d: npy_header(d / "x.npy", f"({2**32}, {2**32}, 1)"),
        ("does not fit",),
    ),
    "npy of a negative shape": (lambda d: npy_header(d / "x.npy", "(-1, 4, 4)"), ("(-1, 4, 4)",)),
    "npy of fifty axes": (lambda d: npy_header(d / "x.npy", str((1,) * 50)), ("cannot be read as npy",)),
    "npy of nested brackets": (lambda d: npy_header(d / "x.npy", "(" * 60), ("cannot be read as npy",)),
    "npy of nothing": (lambda d: npy_header(d / "x.npy", "(9, 9, 9)", "|V0"), ("k-space is empty",)),
    "npy of dates": (lambda d: npy_header(d / "x.npy", "(2, 2, 2)", "<M8[s]"), ("not complex",)),
    "npz of a huge shape": (
        lambda d: npy_header(d / "x.npz", f"({HUGE}, 4, {HUGE}, {HUGE})"),
        ("longer than its part",),
    ),
    "npz of a negative shape": (lambda d: npy_header(d / "x.npz", "(-1, 4, 4)"), ("(-1, 4, 4)",)),
    "npz of a negative huge shape": (
        lambda d: npy_header(d / "x.npz", f"(2, -{HUGE}, 4)"),
        ("cannot be read as npz",),
    ),
    "HDF5 without data": (
        lambda d: without_data(d / "x.h5", (2, 4, HUGE, HUGE)),
        ("does not fit into memory",),
    ),
    "mask without data": (lambda d: without_data(d / "x.h5", (HUGE, HUGE), "mask"), ("the mask has shape",)),
    "maps without data": (
        lambda d: without_data(d / "x.h5", (10**9, 4, 32, 24), "maps"),
        ("does not fit into memory",),
    ),
    "mask of densities": (
        lambda d: changed(d / "x.h5", mask=np.where(np.arange(24) % 4, 0.01, 1)),
        ("other values than 0 and 1: 0.01, 18 in all", "mask > 0.5"),
    ),
    "mask of 255": (lambda d: changed(d / "x.h5", mask=np.full(24, 255, np.uint8)), ("0 and 1: 255",)),
    "mask of infinity": (lambda d: changed(d / "x.h5", mask=np.full(24, np.inf)), ("not yes or no",)),
    "mask of negative ones": (lambda d: changed(d / "x.h5", mask=np.full(24, -1)), ("0 and 1: -1",)),
    "mask of complex numbers": (lambda d: changed(d / "x.h5", mask=np.ones(24, complex)), ("not yes or no",)),
    "header in UTF-16 with entities": (
        lambda d: utf16(d / "x.h5"),
        ("ismrmrd_header cannot be read", "entities"),
    ),
    "header of numbers": (
        lambda d: changed(d / "x.h5", ismrmrd_header=np.ones(4)),
        ("ismrmrd_header cannot be read",),
    ),
    "header of nothing": (lambda d: changed(d / "x.h5", ismrmrd_header=np.ones(0)), ("ismrmrd_header",)),
    "header of huge text": (lambda d: header_of(d / "x.h5", 2**30), ("ismrmrd_header",)),
    "hdr of absurd sizes": (
        lambda d: cfl(d, np.ones((4, 4)), "# Dimensions\n" + "99999999999 " * 16),
        ("128 bytes", "asks for"),
    ),
    "hdr of endless digits": (
        lambda d: cfl(d, np.ones((4, 4)), "# Dimensions\n" + "9" * 9999),
        ("no dimensions",),
    ),
    "hdr of a hundred axes": (
        lambda d: cfl(d, np.ones((4, 4)), "# Dimensions\n4 4" + " 1" * 98),
        ("no dimensions",),
    ),
    "a pipe": (lambda d: fifo(d / "x.h5"), ("is not a file", "pipe")),
}


def header_of(path: Path, size: int) -> Path:
    path = make_fastmri_file(path)
    with h5py.File(path, "a") as file:
        del file["ismrmrd_header"]
        kind = h5py.h5t.C_S1.copy()
        kind.set_size(size)
        h5py.h5d.create(file.id, b"ismrmrd_header", kind, h5py.h5s.create(h5py.h5s.SCALAR))
    return path


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_file_is_refused_without_taking_memory(tmp_path, case):
    make, words = HOSTILE[case]
    path = make(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**29, limits[1]))
    try:
        with pytest.raises(InputError) as caught:
            file = io.open_kspace(path)
            file.read_slice(0)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert_three_lines(caught.value, *words)


def test_an_archive_that_decompresses_without_end(tmp_path):
    """One zip member of zeros, a thousand times as long as it is stored: more than a slice may take."""
    path = tmp_path / "x.npz"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("kspace.npy", "w") as member,
    ):
        member.write(npy_header(tmp_path / "head", "(1, 1, 8192, 1024)", data=b"").read_bytes())
        for _ in range(64):
            member.write(bytes(2**20))
    with pytest.raises(InputError) as caught:
        read_all(path)
    assert_three_lines(caught.value, "all zeros")


def picture(path: Path, **options) -> Path:
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(path, **options)
    return path


def bomb(path: Path) -> Path:
    """A PNG of 100 000 x 100 000 pixels in a kilobyte."""
    head = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b""))
    chunks = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    return path


ARRAYS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda d: d / "x.npy", "does not exist"),
    "folder": (lambda d: d, "is a folder"),
    "text": (lambda d: text(d / "x.txt", "1 2"), "ends in .txt"),
    "text named png": (lambda d: text(d / "x.png", "1 2"), "cannot be read as a picture"),
    "text named tif": (lambda d: text(d / "x.tif", "II*\0" + "9" * 99), "cannot be read as a picture"),
    "cut png": (lambda d: cut(picture(d / "x.png"), 0.6), "cannot be read as a picture"),
    "bomb": (lambda d: bomb(d / "x.png"), "cannot be read as a picture"),
    "pages": (
        lambda d: picture(d / "x.tif", save_all=True, append_images=[Image.new("L", (4, 4))]),
        "holds 2 pictures",
    ),
    "text named npy": (lambda d: text(d / "x.npy", "1 2"), "cannot be read as npy"),
    "words": (lambda d: npy(d / "x.npy", np.array(["a"])), "not numbers"),
    "objects": (lambda d: npy(d / "x.npy", np.array([{}], object), True), "Python objects"),
    "huge": (lambda d: npy_header(d / "x.npy", f"({HUGE}, {HUGE})"), "does not fit"),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_bad_array_is_refused(tmp_path, case):
    make, said = ARRAYS[case]
    with pytest.raises(InputError) as caught:
        io.read_array(make(tmp_path))
    assert_three_lines(caught.value, said)


def test_bad_image_is_refused(tmp_path):
    for array in (
        np.ones((2, 3, 4)),
        np.ones((0, 4)),
        np.ones(4),
        np.full((2, 2), np.nan),
        np.full((2, 2), 1e300),
    ):
        with pytest.raises(InputError) as caught:
            read_image(npy(tmp_path / "x.npy", array))
        assert_three_lines(caught.value, "x.npy")


def test_a_gray_picture_is_no_mask(tmp_path):
    file = io.open_kspace(make_fastmri_file(tmp_path / "x.h5"))
    Image.fromarray(np.full((32, 24), 100, np.uint8)).save(tmp_path / "mask.png")
    with pytest.raises(InputError) as caught:
        io.read_mask(tmp_path / "mask.png", file)
    assert_three_lines(caught.value, "mask.png", "other values than 0 and 1", "blurred picture")


STACKS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda d: d / "x.npz", "does not exist"),
    "text": (lambda d: text(d / "x.npz", "1 2"), "cannot be read as npz"),
    "another name": (lambda d: npz(d / "x.npz", slices=np.ones((2, 4, 4))), "no array `images`"),
    "one image": (lambda d: npz(d / "x.npz", images=np.ones((4, 4))), "(slices, H, W)"),
    "no image": (lambda d: npz(d / "x.npz", images=np.ones((0, 4, 4))), "(slices, H, W)"),
    "complex": (lambda d: npz(d / "x.npz", images=np.ones((2, 4, 4), complex)), "is real"),
    "words": (lambda d: npz(d / "x.npz", images=np.full((2, 4, 4), "a")), "is real"),
    "NaN": (lambda d: npz(d / "x.npz", images=np.full((2, 4, 4), np.nan)), "NaN or infinity"),
}


@pytest.mark.parametrize("reader", ["the reader", "training", "benchmark"])
@pytest.mark.parametrize("case", STACKS)
def test_bad_stack_is_refused_by_whoever_reads_one(tmp_path, case, reader):
    make, said = STACKS[case]
    path = make(tmp_path)
    read = {
        "the reader": lambda: (stack_shape(path), read_stack(path)),
        "training": lambda: load_sets(tmp_path, [ImageSet(path.name)], 99.5),
        "benchmark": lambda: ImageStack(path),
    }[reader]
    with pytest.raises(ReconError) as caught:
        read()
    assert said in str(caught.value) and str(path) in str(caught.value)


def test_a_stack_in_either_byte_order_is_read_whole_and_by_slices(tmp_path):
    images = np.arange(24, dtype=">f8").reshape(2, 3, 4)
    path = npz(tmp_path / "x.npz", images=images)
    assert stack_shape(path) == (2, 3, 4)
    np.testing.assert_array_equal(read_stack(path).numpy(), images.astype(np.float32))
    np.testing.assert_array_equal(read_stack(path, 1).numpy(), images[1].astype(np.float32))
