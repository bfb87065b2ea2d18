"""Nothing is lost: whole files, names that fit, one writer at a time, full disks, and inputs that stay as they are."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from disks import ROOT, full_disk, names
from forked import Forked

from recon import io
from recon.errors import OutputError
from recon.io.lock import lock_file, refuse_busy
from recon.io.results import part_of
from recon.io.whole import write_together, write_whole

# --- inputs stay as they are -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["same", "relative", "symlink", "folder link", "hard link", "link to come"])
def test_no_input_is_written_over(tmp_path, monkeypatch, kind):
    source = tmp_path / "in" / "a.npy"
    source.parent.mkdir()
    np.save(source, np.ones(3))
    target = tmp_path / "b.npy"
    if kind == "same":
        target = source
    elif kind == "relative":
        monkeypatch.chdir(tmp_path)
        target = "in/../in/a.npy"
    elif kind == "symlink":
        target.symlink_to(source)
    elif kind == "folder link":
        (tmp_path / "out").symlink_to(source.parent)
        target = tmp_path / "out/a.npy"
    elif kind == "hard link":
        os.link(source, target)
    else:  # the input is a link to where the result will be
        source.unlink()
        source.symlink_to(target)
    other = tmp_path / "in" / "other.npy"
    with pytest.raises(OutputError, match="would overwrite"):
        io.refuse_overwriting([tmp_path / "free.npy", target], [other, source])
    io.refuse_overwriting([tmp_path / "free.npy"], [other, source, "random"])


# --- whole files -------------------------------------------------------------------------------------------


def write_often(path: Path, letter: str) -> None:
    for _ in range(150):
        write_whole(path, lambda file: file.write(letter.encode() * 20000))


def test_two_processes_write_the_same_file(tmp_path):
    path = tmp_path / "x.png"
    both = [Forked(write_often, path, letter) for letter in "ab"]
    while any(process.poll() is None for process in both):
        if path.exists():
            content = path.read_bytes()
            assert len(content) == 20000 and len(set(content)) == 1
    assert [process.finish() for process in both] == [("", "")] * 2
    assert [process.returncode for process in both] == [0, 0]
    assert names(tmp_path) == ["x.png"]


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), KeyboardInterrupt(), ValueError("x")]
)
def test_nothing_is_left_of_a_file_that_failed(tmp_path, error):
    (tmp_path / "a").write_text("old")

    def fails(file):
        file.write(b"half")
        raise error

    with pytest.raises(OutputError if isinstance(error, OSError) else type(error)):
        write_together({tmp_path / "a": lambda file: file.write(b"new"), tmp_path / "b": fails})
    assert names(tmp_path) == ["a"] and (tmp_path / "a").read_text() == "old"


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_permissions_follow_the_umask(tmp_path, mask):
    before = os.umask(mask)
    try:
        write_whole(tmp_path / "a", lambda file: file.write(b"x"))
        io.write_cfl(tmp_path / "b", np.ones((2, 2)))
        io.save_panel(tmp_path / "c.png", np.ones((4, 4)), np.ones((4, 4)))
    finally:
        os.umask(before)
    for name in ("a", "b.cfl", "b.hdr", "c.png"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o666 & ~mask, name


@pytest.mark.parametrize("size", [0, 100, 790, 4096])
def test_a_short_write_is_an_error(tmp_path, size):
    """The last bytes of an array that numpy writes are lost in silence where the disk is full."""
    values = np.ones(max(size // 8 + 1, 100))
    with full_disk(size):
        for write in (
            lambda: io.write_cfl(tmp_path / "a", values),
            lambda: write_whole(tmp_path / "b", values.astype(np.complex64).tofile),
            lambda: write_whole(tmp_path / "c", lambda file: file.write(b"x" * (size + 1))),
            lambda: io.save_panel(tmp_path / "d.png", np.ones((99, 99)), np.ones((99, 99))),
        ):
            if size == 4096 and write.__code__.co_consts[-1] == "d.png":
                continue  # it may fit
            with pytest.raises(OutputError, match="cannot be written"):
                write()
    assert names(tmp_path) == []


def test_one_mechanism_writes_beside_and_renames():
    """Whoever renames a file, or names one that is not finished, does it in these places.

    The cache of CT's weights renames a folder: `operators` knows nothing of `recon`.
    """
    renames = re.compile(r"os\.replace|os\.rename|\.rename\(|mkstemp|NamedTemporaryFile|[\"']\.part[\"']")
    found = {
        str(path.relative_to(ROOT))
        for folder in ("recon", "operators")
        for path in (ROOT / folder).rglob("*.py")
        if renames.search(path.read_text())
    }
    assert found == {"recon/io/whole.py", "recon/io/results.py", "operators/ct/cache.py"}


# --- names that fit ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("letter", ["x", "ü", "\udcff"])
@pytest.mark.parametrize("length", [200, 240, 249, 252])
def test_long_names_fit(tmp_path, letter, length):
    stem = letter * (length // len(os.fsencode(letter)))
    (target,) = io.result_paths([f"{stem}.h5"], tmp_path)
    other = io.result_paths([f"{stem[:-1]}y.h5"], tmp_path)[0]
    made = [target, other, part_of(target), part_of(other), lock_file(target), lock_file(other)]
    made += [io.picture_path(target, i) for i in (0, 1, 1000)] + [io.picture_path(other, 0)]
    assert len(set(made)) == len(made)
    for path in made:
        path.write_text(str(path).encode(errors="replace").decode())  # the system takes the name
    if length == 200:
        assert target.stem == stem and io.picture_path(target, 0).name == f"{stem}_000.png"
        assert part_of(target).name == f"{stem}.h5.part"


# --- one writer --------------------------------------------------------------------------------------------

GIVEN = dict(slices=3, size=(4, 3), samples=2, config={"steps": 1}, seed=0)
IMAGE = torch.ones(4, 3, dtype=torch.complex64)
SLICE = dict(mean=IMAGE, samples=torch.stack([IMAGE] * 2), zero_filled=IMAGE, std=IMAGE.real)


def write_all(writer: io.ResultWriter) -> None:
    for index in writer.todo:
        writer.write(index, **SLICE)
    writer.finish()


def hold(path: Path) -> None:
    """Begin a result, and finish it when told so."""
    writer = io.ResultWriter(path, **GIVEN)
    writer.write(1, **SLICE)
    print("ready", flush=True)
    if sys.stdin.readline().strip() == "finish":
        write_all(writer)


@pytest.mark.parametrize("overwrite", [False, True])
def test_the_second_writer_is_refused_and_the_first_finishes(tmp_path, overwrite):
    path = tmp_path / "x.h5"
    first = Forked(hold, path)
    assert first.stdout.readline() == "ready\n"
    for check in (
        lambda: io.ResultWriter(path, **GIVEN, overwrite=overwrite),
        lambda: refuse_busy(path),
    ):
        with pytest.raises(OutputError, match="another run is writing it") as caught:
            check()
        assert "overwrite" not in str(caught.value) and "--out" in caught.value.do
    assert first.finish("finish\n") == ("", "") and first.returncode == 0
    assert names(tmp_path) == ["x.h5"] and io.is_done(path, GIVEN["config"])


def test_a_killed_writer_blocks_nobody(tmp_path):
    path = tmp_path / "x.h5"
    first = Forked(hold, path)
    assert first.stdout.readline() == "ready\n"
    first.kill()
    refuse_busy(path)
    with io.ResultWriter(path, **GIVEN) as writer:
        assert writer.todo == [0, 2]
        write_all(writer)
    assert names(tmp_path) == ["x.h5"]


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_only_the_own_file_is_renamed(tmp_path, how):
    """As where locks do not hold: another machine started again under this run."""
    path = tmp_path / "x.h5"
    with io.ResultWriter(path, **GIVEN) as writer:
        for index in writer.todo:
            writer.write(index, **SLICE)
        writer.part.unlink()
        if how == "replaced":
            writer.part.write_text("of another run")
        with pytest.raises(OutputError, match="no longer the file"):
            writer.finish()
        writer.discard()
    assert not path.exists()
    assert names(tmp_path) == (["x.h5.part"] if how == "replaced" else [])


def test_what_was_renamed_half_finished_is_not_done(tmp_path):
    path = tmp_path / "x.h5"
    with io.ResultWriter(path, **GIVEN) as writer:
        writer.write(0, **SLICE)
    writer.part.rename(path)
    assert not io.is_done(path, GIVEN["config"])
    with io.ResultWriter(path, **GIVEN) as writer:
        write_all(writer)
    assert io.is_done(path, GIVEN["config"]) and np.isfinite(io.read_result(path).reconstruction).all()


def test_an_interrupted_overwriting_goes_on_without_overwrite(tmp_path):
    path = tmp_path / "x.h5"
    with io.ResultWriter(path, **GIVEN) as writer:
        write_all(writer)
    other = GIVEN | {"config": {"steps": 2}}
    with io.ResultWriter(path, **other, overwrite=True) as writer:
        writer.write(0, **SLICE)
    with io.ResultWriter(path, **other) as writer:
        assert writer.todo == [1, 2]
        write_all(writer)
    assert io.is_done(path, other["config"])


@pytest.mark.parametrize("size", [0, 800, 4000, 8000, 66000])
def test_a_result_on_a_full_disk_is_not_done(tmp_path, size):
    """Wherever it fills up: one clear error, and the same command does it when there is space."""
    path = tmp_path / "x.h5"
    with (
        full_disk(size),
        pytest.raises(OutputError, match="cannot be written"),
        io.ResultWriter(path, **GIVEN) as writer,
    ):
        write_all(writer)
    assert names(tmp_path) == []
    with io.ResultWriter(path, **GIVEN) as writer:
        write_all(writer)
    assert names(tmp_path) == ["x.h5"] and path.stat().st_size < 66000
    assert np.isfinite(io.read_result(path, samples=True).samples).all()
