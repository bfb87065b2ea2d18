"""Whatever is wrong with the input: one clear error each, the right exit code, and nothing half-written."""

from __future__ import annotations

import shutil

import h5py
import numpy as np
import pytest
from make_kspace import coil_maps, make_fastmri_file, make_kspace

from recon.cli import main

pytestmark = pytest.mark.usefixtures("no_pictures")


def run(tiny, capsys, out, *arguments):
    """Exit code, and the error's lines."""
    command = [
        "reconstruct",
        "--prior",
        tiny,
        "--device",
        "cpu",
        "--steps",
        "1",
        "--samples",
        "1",
        "--out",
        str(out),
    ]
    code = main([*command, *map(str, arguments)])
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return code, said


def not_hdf5(path):
    path.write_text("no k-space at all\n" * 100)


def empty(path):
    path.write_bytes(b"")


def truncated(path):
    make_fastmri_file(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def no_kspace(path):
    with h5py.File(path, "w") as file:
        file["image"] = np.ones(3)


def empty_kspace(path):
    with h5py.File(path, "w") as file:
        file["kspace"] = np.zeros((0, 4, 32, 24), np.complex64)


def no_coil_axis(path):
    with h5py.File(path, "w") as file:
        file["kspace"] = make_kspace()[0, 0]


def nan(path):
    kspace = make_kspace()
    kspace[1, 2, 3, 4] = np.nan
    make_fastmri_file(path, kspace=kspace)


def zero_slice(path):
    kspace = make_kspace()
    kspace[1] = 0
    make_fastmri_file(path, kspace=kspace)


def own_mask_of_other_width(path):
    make_fastmri_file(path)
    with h5py.File(path, "a") as file:
        file["mask"] = np.ones(23, np.float32)


FILES = {
    "not HDF5": (not_hdf5, "HDF5"),
    "empty file": (empty, "0 bytes"),
    "truncated HDF5": (truncated, "damaged"),
    "missing k-space": (no_kspace, 'no "kspace"'),
    "empty k-space": (empty_kspace, "empty"),
    "k-space without a coil axis": (no_coil_axis, "coils is missing"),
    "NaN": (nan, "NaN"),
    "all-zero slice": (zero_slice, "slice 1 of k-space is all zeros"),
    "mask in the file of another width": (own_mask_of_other_width, "mask has shape"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_cannot_be_used(tiny, tmp_path, capsys, name):
    make, said = FILES[name]
    bad = tmp_path / "bad.h5"
    make(bad)
    code, error = run(tiny, capsys, tmp_path / "out", bad)
    assert code == 2 and said in error and "bad.h5" in error
    assert len(error.strip().splitlines()) == 3
    assert not (tmp_path / "out").exists()
    make_fastmri_file(tmp_path / "good.h5", slices=1)
    code, error = run(tiny, capsys, tmp_path / "out", bad, tmp_path / "good.h5")
    assert code == 1 and said in error
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["good.h5"]


def wide_mask(folder):
    np.save(folder / "mask.npy", np.ones(25, bool))
    return ["--mask", folder / "mask.npy"]


def empty_mask(folder):
    np.save(folder / "mask.npy", np.zeros(24, bool))
    return ["--mask", folder / "mask.npy"]


def other_maps(folder):
    np.save(folder / "maps.npy", coil_maps(4, 32, 30))
    return ["--maps", folder / "maps.npy"]


def other_coils(folder):
    np.save(folder / "maps.npy", coil_maps(3, 32, 24))
    return ["--maps", folder / "maps.npy"]


def file_as_folder(folder):
    (folder / "taken").write_text("a file")
    return ["--out", folder / "taken"]


ARGUMENTS = {
    "mask of the wrong width": (wide_mask, "(25,)"),
    "mask that keeps nothing": (empty_mask, "keeps nothing"),
    "mask that is not there": (lambda f: ["--mask", f / "none.npy"], "does not exist"),
    "acceleration beyond the lines": (lambda f: ["--accel", "30"], "Acceleration 30 leaves no line of 24"),
    "acceleration beyond the centre": (lambda f: ["--accel", "8", "--center", ".5"], "central lines"),
    "acceleration that leaves no maps": (lambda f: ["--accel", "8"], "fully sampled centre"),
    "acceleration below one": (lambda f: ["--accel", ".5"], "at least 1"),
    "acceleration that is no number": (lambda f: ["--accel", "four"], "invalid float value"),
    "maps of another file": (other_maps, "another file's maps"),
    "maps of other coils": (other_coils, "another file's maps"),
    "maps that are not there": (lambda f: ["--maps", f / "none.npy"], "does not exist"),
    "unknown mask": (lambda f: ["--mask", "equispaced-fracton"], '"equispaced-fraction"'),
    "unknown solver": (lambda f: ["--solver", "dpm+2m"], '"dpm++2m"'),
    "unknown sampler": (lambda f: ["--sampler", "ddss"], '"dds"'),
    "unknown prior": (lambda f: ["--prior", "brain-mir"], 'no prior named "brain-mir"'),
    "unknown device": (lambda f: ["--device", "gpu0"], "gpu0"),
    "unknown precision": (lambda f: ["--dtype", "float8"], "bf16"),
    "unknown preset": (lambda f: ["--config", "quik"], '"quick"'),
    "unknown flag": (lambda f: ["--stesp", "4"], "--stesp"),
    "no steps": (lambda f: ["--steps", "0"], "steps"),
    "no samples": (lambda f: ["--samples", "0"], "samples"),
    "more map sets than coils": (lambda f: ["--sets", "5"], "4 coils"),
    "a file for a folder": (file_as_folder, "is a file"),
    "a folder under a file": (lambda f: [*file_as_folder(f)[:1], f / "taken/below"], "taken"),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments_that_cannot_be_used(tiny, tmp_path, capsys, name):
    make, said = ARGUMENTS[name]
    file = make_fastmri_file(tmp_path / "a.h5", slices=1)
    out = tmp_path / "out"
    code, error = run(tiny, capsys, out, *make(tmp_path), file)
    assert code == 2 and said in error
    assert 2 <= len(error.strip().splitlines()) <= 3
    assert not out.exists()
    assert sorted(p.name for p in tmp_path.iterdir() if p.suffix == ".part") == []


def test_a_folder_that_cannot_be_written(tiny, tmp_path, capsys, monkeypatch):
    import tempfile

    def refused(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", refused)
    code, error = run(tiny, capsys, tmp_path / "out", make_fastmri_file(tmp_path / "a.h5"))
    assert code == 2 and "Permission denied" in error and "--out" in error
    assert not (tmp_path / "out").exists()


def test_files_and_folders_without_anything(tiny, tmp_path, capsys):
    code, error = run(tiny, capsys, tmp_path / "out", tmp_path / "none.h5")
    assert code == 2 and "does not exist" in error
    (tmp_path / "empty").mkdir()
    code, error = run(tiny, capsys, tmp_path / "out", tmp_path / "empty")
    assert code == 2 and "holds no k-space" in error
    assert not (tmp_path / "out").exists()


def test_the_output_folder_of_the_inputs_themselves(tiny, tmp_path, capsys):
    file = make_fastmri_file(tmp_path / "a.h5")
    before = file.read_bytes()
    code, error = run(tiny, capsys, tmp_path, file)
    assert code == 2 and "overwrite" in error and file.read_bytes() == before


def test_no_memory(tiny, tmp_path, capsys, monkeypatch):
    from recon.jobs.shared import slices

    def full(*arguments, **options):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes")

    monkeypatch.setattr(slices, "reconstruct_slices", full)
    code, error = run(tiny, capsys, tmp_path / "out", make_fastmri_file(tmp_path / "a.h5"))
    assert code == 2 and "not enough memory" in error and "--chunk 1" in error
    assert list((tmp_path / "out").glob("*")) == []


def test_a_disk_that_fills_up(tiny, tmp_path, capsys, monkeypatch):
    from recon.io import ResultWriter

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ResultWriter, "write", full)
    code, error = run(tiny, capsys, tmp_path / "out", make_fastmri_file(tmp_path / "a.h5"))
    assert code == 2 and "No space left on device" in error
    assert list((tmp_path / "out").glob("*.h5*")) == []


def test_a_prior_that_is_damaged(tiny, tmp_path, capsys):
    for suffix in (".safetensors", ".json"):
        shutil.copy(tiny.replace(".safetensors", suffix), tmp_path / f"p{suffix}")
    file, weights = make_fastmri_file(tmp_path / "a.h5"), (tmp_path / "p.safetensors").read_bytes()
    changed = weights[:-1] + bytes([weights[-1] ^ 1])
    for content, said in ((changed, "sha256"), (weights[:100], "cannot be read as safetensors")):
        (tmp_path / "p.safetensors").write_bytes(content)
        code, error = run(tiny, capsys, tmp_path / "out", "--prior", tmp_path / "p.safetensors", file)
        assert code == 2 and said in error and "Copy both files again" in error


def test_the_traceback_is_shown_only_when_asked_for(tiny, tmp_path, capsys):
    assert main(["reconstruct", str(tmp_path / "none.h5"), "--prior", tiny, "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("name", FILES)
def test_inspect_says_what_is_wrong(tmp_path, capsys, name):
    make, said = FILES[name]
    make(tmp_path / "bad.h5")
    code = main(["inspect", str(tmp_path / "bad.h5")])
    out, err = capsys.readouterr()
    assert said in out + err and "Traceback" not in err
    assert code == (0 if name in ("NaN", "all-zero slice") else 2)
