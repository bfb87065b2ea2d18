"""A folder that processes share: lines are whole or not there, and work is claimed by one process at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from recon.benchmark.curve.points import POINT_COLUMNS, Point, append_point, read_points
from recon.benchmark.rows import append_row, read_rows
from recon.benchmark.sharing import append_line, claimed, whole_lines
from recon.errors import OutputError

ROOT = Path(__file__).resolve().parent.parent
ROW = {"key": "a", "status": "done", "cell": {}, "text": "x" * 150}
SETTINGS = ("f", "p", "case", "dds", "keep=noise", "cg-sense", 3.0, 0.01, 4, 0, "euler", "")


def child(code: str, *arguments: object, **options) -> subprocess.Popen[str]:
    """A Python process that runs ``code`` with the packages of this checkout."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def finished(process: subprocess.Popen[str]) -> str:
    said, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    return said


FILL = """
import resource, sys
from pathlib import Path
from recon.benchmark.curve.points import Point, append_point
from recon.benchmark.rows import append_row
from recon.errors import OutputError
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
path, kind, written = Path(sys.argv[1]), sys.argv[2], 0
try:
    while True:
        if kind == "rows":
            append_row(path, {"key": str(written), "status": "done", "cell": {}, "text": "x" * 150})
        else:
            settings = ("f", "p", "case", "dds", "keep=noise", "cg-sense", 3.0, 0.01, 4, 0, "euler", "")
            append_point(path, Point(*settings, written, 5, 30.0, 28.0))
        written += 1
except OutputError as error:
    print(written, path.read_bytes()[-1:] == b"\\n", error.what, error.why)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of a file's size")
@pytest.mark.parametrize("kind", ["rows", "points"])
def test_a_line_that_does_not_fit_on_the_disk_is_not_there_at_all(tmp_path, kind):
    path = tmp_path / "file"
    count, whole, *said = finished(child(FILL, path, kind)).split(" ", 2)
    assert whole == "True" and "cannot be written. File too large" in said[0]
    assert path.stat().st_size <= 1000 and int(count) > 3
    read, append, more = (
        (read_rows, append_row, ROW) if kind == "rows" else (read_points, append_point, Point(*SETTINGS, 99))
    )
    assert len(read(path)) == int(count)
    append(path, more)  # there is room again
    assert len(read(path)) == int(count) + 1


APPEND = """
import sys
from pathlib import Path
from recon.benchmark.sharing import append_line
for number in range(100):
    append_line(Path(sys.argv[1]), f"{sys.argv[2]} {number} " + "x" * 9000, "head")
"""


def test_processes_append_whole_lines(tmp_path):
    path = tmp_path / "new" / "lines"
    for process in [child(APPEND, path, name) for name in "abc"]:
        finished(process)
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


CLAIM = """
import sys, time
from pathlib import Path
from recon.benchmark.sharing import claimed
with claimed(Path(sys.argv[1]), "work") as mine:
    print(mine, flush=True)
    time.sleep(600)
"""


def test_a_claim_is_that_of_one_process_and_dies_with_it(tmp_path):
    process = child(CLAIM, tmp_path)
    assert process.stdout is not None
    try:
        assert process.stdout.readline().strip() == "True"
        with claimed(tmp_path, "work") as mine, claimed(tmp_path, "other") as another:
            assert not mine and another
    finally:
        process.send_signal(signal.SIGKILL if os.name == "posix" else signal.SIGTERM)
        process.communicate()
    with claimed(tmp_path, "work") as mine:
        assert mine
    assert os.name != "posix" or not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        append_row(tmp_path / "file" / "rows", ROW)
    with pytest.raises(OutputError, match="cannot be written"), claimed(tmp_path / "file", "work"):
        pass
