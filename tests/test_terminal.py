"""The command line and its terminal: what is printed is printable, pipes close quietly, signals end a run in order."""

from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from forked import Forked
from make_kspace import make_fastmri_file
from make_prior import make_prior

from recon.cli import main
from recon.cli.handlers import HANDLERS
from recon.cli.terminal import CLOSED, OutputClosed, Printable, printable

ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
ESCAPE = "\x1b[31m\x07"


def started(*arguments: object, **options) -> subprocess.Popen:
    """The command in a process of its own."""
    command = [sys.executable, "-m", "recon.cli", *map(str, arguments)]
    return subprocess.Popen(command, stdout=-1, stderr=-1, text=True, env=ENVIRONMENT, **options)


# --- what is printed is printable ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31mb\x07", r"a\x1b[31mb\x07"),
        ("one\n\ttwo", "one\n\ttwo"),
        ("\x9b2J \x7f \r", r"\x9b2J \x7f \x0d"),
        ("\u202egnp.exe \u2028", r"\u202egnp.exe \u2028"),
        (os.fsdecode(b"caf\xe9.h5"), r"caf\xe9.h5"),
        ("Größe 3 × 4 ± .1", "Größe 3 × 4 ± .1"),
    ],
)
def test_control_characters_are_shown(text, shown):
    assert printable(text) == shown


def test_a_bar_begins_its_line_anew_and_nothing_else_does():
    stream = Printable(io.StringIO())
    assert stream.write("\r 50 %\r done") == 12
    assert stream.stream.getvalue() == "\r 50 %\\x0d done"
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    Printable(narrow).write("± 1\n")
    narrow.flush()
    assert narrow.buffer.getvalue() == b"\\xb1 1\n"


@pytest.mark.parametrize("debug", [[], ["--debug"]])
@pytest.mark.parametrize(
    "command",
    [
        ["inspect", "NAME.h5"],
        ["reconstruct", "NAME.h5"],
        ["reconstruct", "no.h5", "--mask", "NAME"],
        ["restore", "NAME.png", "--operator", "inpainting"],
        ["restore", "image.npy", "--operator", "NAME:A"],
        ["restore", "image.npy", "--operator", "inpainting", "--operator-args", "NAME=1"],
        ["calibrate", "NAME.h5"],
        ["benchmark", "NAME.yaml"],
        ["train", "NAME.yaml"],
        ["check", "NAME:A"],
        ["check", "A", "--plugin", "NAME.py"],
        ["list", "NAME"],
        ["bench", "NAME"],
        ["NAME"],
    ],
)
def test_no_error_sends_an_escape_to_the_terminal(tmp_path, monkeypatch, capsys, command, debug):
    monkeypatch.chdir(tmp_path)
    np.save("image.npy", np.ones((16, 16), np.float32))
    assert main([*(part.replace("NAME", f"x{ESCAPE}") for part in command), *debug]) == 2
    out, err = capsys.readouterr()
    assert r"\x1b[31m\x07" in err and not set(out + err) & set("\x1b\x07")


def test_no_report_sends_an_escape_to_the_terminal(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    prior = str(make_prior(tmp_path))
    path = make_fastmri_file(tmp_path / f"{ESCAPE}.h5", slices=1)
    np.save(tmp_path / f"image{ESCAPE}.npy", np.ones((16, 16), np.float32))
    short = ["--prior", prior, "--steps", "1", "--samples", "1", "--device", "cpu"]
    restore = ["restore", f"image{ESCAPE}.npy", "--operator", "inpainting", *short]
    reconstruct = ["reconstruct", str(path), *short]
    for command in (
        ["inspect", str(path)],
        [*restore, "--dry-run"],
        restore,
        [*reconstruct, "--dry-run"],
        reconstruct,
    ):
        assert main(command) == 0
        out, err = capsys.readouterr()
        assert r"\x1b[31m\x07" in out and not set(out + err) & set("\x1b\x07")


# --- pipes -----------------------------------------------------------------------------------------------


def test_a_closed_pipe_ends_the_command_quietly(tmp_path):
    files = [make_fastmri_file(tmp_path / f"{name}.h5", slices=1) for name in "ab"]
    with started("inspect", *files) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == CLOSED


@pytest.mark.parametrize("name", HANDLERS)
def test_every_command_ends_quietly_where_nobody_reads(monkeypatch, name):
    class Pipe(io.StringIO):
        def write(self, text):
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    def handler(args):
        try:
            print("one line")
        except Exception:  # as a job goes on with its next file
            raise AssertionError("a closed pipe is no failure of a file") from None

    needed = {
        "inspect": "f",
        "reconstruct": "f",
        "calibrate": "f",
        "benchmark": "f",
        "train": "f",
        "tune": "f",
        "check": "f",
    }
    words = ["restore", "f", "--operator", "blur"] if name == "restore" else [name, *needed.get(name, "")]
    monkeypatch.setitem(HANDLERS, name, handler)
    errors = io.StringIO()
    monkeypatch.setattr(sys, "stdout", Pipe())
    monkeypatch.setattr(sys, "stderr", errors)
    assert main(["--version"] if name == "version" else words) == CLOSED
    assert errors.getvalue() == ""


def test_a_bar_whose_pipe_is_closed_raises_the_same():
    class Pipe(io.StringIO):
        def flush(self):
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    with pytest.raises(OutputClosed):
        Printable(Pipe()).flush()


def test_a_full_disk_behind_the_output_is_an_error(monkeypatch, capsys):
    class Full(io.StringIO):
        def flush(self):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sys, "stdout", Full())
    assert main(["--version"]) == 2
    assert "No space left" in capsys.readouterr().err


def test_a_closed_output_is_no_fault():
    done = subprocess.run(
        [sys.executable, "-m", "recon.cli", "--version"],
        env=ENVIRONMENT,
        preexec_fn=lambda: os.close(1),
        stderr=-1,
    )
    assert (done.returncode, done.stderr) == (0, b"")


# --- signals -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def long_run(tmp_path_factory):
    """Arguments of a run of minutes, but for ``--out``."""
    folder = tmp_path_factory.mktemp("long")
    path, prior = make_fastmri_file(folder / "a.h5", slices=40), make_prior(folder)
    return ["reconstruct", path, "--prior", prior, "--steps", "100", "--samples", "1", "--device", "cpu"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_run_that_can_be_continued(long_run, tmp_path, number, code):
    process = Forked(main, [*map(str, long_run), "--out", str(tmp_path)])
    for _ in range(1200):
        if list(tmp_path.glob("a_*.png")) or process.poll() is not None:  # a slice is done, others are not
            break
        time.sleep(0.1)
    process.send_signal(number)
    out, err = process.finish()
    assert process.returncode == code, err
    assert "Interrupted. The same command goes on" in out and "Traceback" not in err
    assert (tmp_path / "a.h5.part").is_file() and not (tmp_path / "a.h5").exists()


def test_the_handler_is_ours_during_a_command_only(monkeypatch, capsys):
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setitem(HANDLERS, "list", lambda args: signal.raise_signal(signal.SIGTERM))
    assert main(["list"]) == 143
    assert "Interrupted." in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        monkeypatch.setitem(HANDLERS, "list", lambda args: signal.raise_signal(signal.SIGTERM) or 0)
        assert main(["list"]) == 0
    finally:
        signal.signal(signal.SIGTERM, before)


# --- folders ------------------------------------------------------------------------------------------------

COMMANDS = [
    ["inspect", "PLACE"],
    ["inspect", "PLACE.h5"],
    ["reconstruct", "PLACE"],
    ["reconstruct", "DATA", "--config", "PLACE"],
    ["reconstruct", "DATA", "--config", "PLACE.yaml"],
    ["reconstruct", "DATA", "--mask", "PLACE"],
    ["reconstruct", "DATA", "--mask", "PLACE.npy"],
    ["reconstruct", "DATA", "--maps", "PLACE.npy"],
    ["reconstruct", "DATA", "--prior", "PLACE"],
    ["reconstruct", "DATA", "--prior", "PLACE.safetensors"],
    ["reconstruct", "DATA", "--plugin", "PLACE.py"],
    ["restore", "PLACE", "--operator", "inpainting"],
    ["restore", "PLACE.png", "--operator", "inpainting"],
    ["restore", "PLACE.npy", "--operator", "inpainting", "--measured", "--size", "8", "8"],
    ["restore", "IMAGE", "--operator", "inpainting", "--operator-args", "mask=PLACE.png"],
    ["calibrate", "PLACE"],
    ["calibrate", "PLACE.npz"],
    ["benchmark", "PLACE"],
    ["benchmark", "PLACE.yaml"],
    ["train", "PLACE.yaml"],
    ["check", "A", "--plugin", "PLACE.py"],
    ["check", "A", "--args", "otf=PLACE.npy"],
    ["bench", "mri", "--data", "PLACE"],
]


def run_at(place: Path, folder: Path, command: list[str]) -> int:
    """The command with ``place`` where a file is wanted, and files that can be used elsewhere."""
    data, image = make_fastmri_file(folder / "data.h5", slices=1), folder / "image.npy"
    np.save(image, np.ones((16, 16), np.float32))
    words = {"PLACE": str(place), "DATA": str(data), "IMAGE": str(image)}
    for word, there in words.items():
        command = [part.replace(word, there) for part in command]
    out = ["--out", str(folder / "out")] if command[0] in ("reconstruct", "restore", "calibrate") else []
    return main([*command, *out, "--dry-run"] if command[0] != "bench" else command)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_folder_where_a_file_is_wanted(tmp_path, capsys, command):
    place = tmp_path / "place"
    for suffix in ("", ".h5", ".yaml", ".npy", ".npz", ".png", ".safetensors", ".py"):
        (tmp_path / f"place{suffix}").mkdir()
    assert run_at(place, tmp_path, command) == 2
    said = capsys.readouterr().err
    assert "place" in said and not any(
        word in said for word in ("fault", "Traceback", "damaged", "not exist")
    )


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_what_may_not_be_read(tmp_path, monkeypatch, capsys, command):
    """A folder without permissions, as everybody but the superuser meets it."""
    place = tmp_path / "locked" / "place"

    def guarded(function):
        def call(path, *rest, **options):
            if (
                isinstance(path, str | Path)
                and Path(path).is_relative_to(place.parent)
                and Path(path) != place.parent
            ):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return function(path, *rest, **options)

        return call

    for home, name in [
        (os, "stat"),
        (os, "lstat"),
        (os, "open"),
        (os, "listdir"),
        (os, "scandir"),
        (io, "open"),
    ]:
        monkeypatch.setattr(home, name, guarded(getattr(home, name)))
    monkeypatch.setattr("builtins.open", guarded(open))
    assert run_at(place, tmp_path, command) == 2
    said = capsys.readouterr().err
    assert "place" in said and "fault" not in said and "Traceback" not in said
