"""A folder that processes share: lines are whole or not there, and work is claimed by one process at a time."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest
from disks import full_disk
from forked import Forked

from recon.benchmark.curve.points import POINT_COLUMNS, Point, append_point, read_points
from recon.benchmark.rows import append_row, read_rows
from recon.benchmark.sharing import append_line, claimed, whole_lines
from recon.errors import OutputError

ROW = {"key": "a", "status": "done", "cell": {}, "text": "x" * 150}
SETTINGS = ("f", "p", "case", "dds", "keep=noise", "cg-sense", 3.0, 0.01, 4, 0, "euler", "")


def fill(path: Path, kind: str) -> tuple[int, OutputError]:
    """Append rows or points until a disk of 1000 bytes is full: how many there are, and the error."""
    written = 0
    with full_disk(1000), pytest.raises(OutputError) as caught:
        while True:
            if kind == "rows":
                append_row(path, ROW | {"key": str(written)})
            else:
                append_point(path, Point(*SETTINGS, written, 5, 30.0, 28.0))
            written += 1
    return written, caught.value


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of a file's size")
@pytest.mark.parametrize("kind", ["rows", "points"])
def test_a_line_that_does_not_fit_on_the_disk_is_not_there_at_all(tmp_path, kind):
    path = tmp_path / "file"
    count, error = fill(path, kind)
    assert path.read_bytes().endswith(b"\n") and "cannot be written" in error.what
    assert "File too large" in error.why and path.stat().st_size <= 1000 and count > 3
    read, append, more = (
        (read_rows, append_row, ROW) if kind == "rows" else (read_points, append_point, Point(*SETTINGS, 99))
    )
    assert len(read(path)) == count
    append(path, more)  # there is room again
    assert len(read(path)) == count + 1


def append_lines(path: Path, name: str) -> None:
    for number in range(100):
        append_line(path, f"{name} {number} " + "x" * 9000, "head")


def test_processes_append_whole_lines(tmp_path):
    path = tmp_path / "new" / "lines"
    for process in [Forked(append_lines, path, name) for name in "abc"]:
        assert process.finish() == ("", "") and process.returncode == 0
    head, *lines = whole_lines(path)
    assert head == "head" and len(lines) == 300
    assert {tuple(line.split(" ")[:2]) for line in lines} == {(n, str(k)) for n in "abc" for k in range(100)}
    assert {len(line.split(" ")[2]) for line in lines} == {9000}


@pytest.mark.parametrize("torn", ['{"key": "b", "sta', "\n{", "x" * 100_000])
def test_a_torn_line_is_not_read_and_cut_off_by_the_next(tmp_path, torn):
    path = tmp_path / "rows"
    append_row(path, ROW)
    whole = path.read_bytes()
    path.write_bytes(whole + torn.lstrip("\n").encode())
    assert read_rows(path) == [ROW]
    append_row(path, ROW)
    assert path.read_bytes() == 2 * whole


def test_a_torn_head_is_written_again(tmp_path):
    path = tmp_path / "points.csv"
    path.write_text("file,prior,ca")
    append_point(path, Point(*SETTINGS, 5))
    assert whole_lines(path)[0] == ",".join(POINT_COLUMNS) and len(read_points(path)) == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_a_write_that_is_interrupted_leaves_the_file_as_it_was(tmp_path, monkeypatch, error):
    path = tmp_path / "rows"
    append_row(path, ROW)
    whole = path.read_bytes()

    def stop(_: int) -> None:
        raise error

    monkeypatch.setattr("recon.benchmark.sharing.os.fsync", stop)
    with pytest.raises((KeyboardInterrupt, OutputError)):
        append_row(path, ROW)
    assert path.read_bytes() == whole


def test_a_disk_that_takes_no_bytes_is_no_success(tmp_path, monkeypatch):
    class Full:
        def write(self, data: bytes) -> int:
            return 0

    from recon.benchmark import sharing

    with pytest.raises(OSError, match="no byte"):
        sharing.write_all(Full(), b"line\n")  # type: ignore[arg-type]


@pytest.mark.parametrize("line", ["not json", "[]", '"text"', '{"key": "a"}', '{"key": 1, "status": "done", "cell": {}}'])  # fmt: skip
def test_a_line_that_is_not_a_row_is_refused(tmp_path, line):
    path = tmp_path / "rows"
    append_row(path, ROW)
    append_line(path, line)
    with pytest.raises(OutputError, match=r"Line 2 of .* is not a row"):
        read_rows(path)


def test_bytes_that_are_not_text_are_refused(tmp_path):
    (tmp_path / "rows").write_bytes(b"\xff\xfe\n")
    with pytest.raises(OutputError, match="cannot be read"):
        read_rows(tmp_path / "rows")


def claim(folder: Path) -> None:
    with claimed(folder, "work") as mine:
        print(mine, flush=True)
        time.sleep(600)


def test_a_claim_is_that_of_one_process_and_dies_with_it(tmp_path):
    process = Forked(claim, tmp_path)
    try:
        assert process.stdout.readline().strip() == "True"
        with claimed(tmp_path, "work") as mine, claimed(tmp_path, "other") as another:
            assert not mine and another
    finally:
        process.kill()
    with claimed(tmp_path, "work") as mine:
        assert mine
    assert os.name != "posix" or not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        append_row(tmp_path / "file" / "rows", ROW)
    with pytest.raises(OutputError, match="cannot be written"), claimed(tmp_path / "file", "work"):
        pass
