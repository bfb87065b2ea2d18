"""Jobs lose nothing: two runs at once, full disks, long names, interruptions, and the same bytes every time."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from disks import full_disk, names
from forked import Forked
from make_kspace import make_fastmri_file, objects

from recon.cli import main
from recon.errors import OutputError
from recon.io import picture_path, read_result
from recon.io.acquisition import MaskChoice
from recon.jobs.calibrate import calibrate
from recon.jobs.reconstruct import reconstruct
from recon.jobs.shared import slices
from recon.jobs.shared.settings import Settings
from recon.registry.recipe import Recipe
from recon.runtime.runtime import Runtime

CPU = Runtime(device="cpu")


def settings(tiny, **recipe):
    recipe = {"steps": 2, "samples": 2, **recipe}
    return Settings(Recipe(prior=tiny, **recipe), MaskChoice(accel=2, center=0.3), runtime=CPU)


def command(tiny, *arguments):
    options = ["--prior", tiny, "--steps", "2", "--samples", "2", "--device", "cpu"]
    return [*map(str, arguments), *options, "--accel", "2", "--center", ".3"]


def interrupt_after(monkeypatch, count):
    """Ctrl-C, or a scheduler's SIGTERM, when ``count`` slices are done."""
    real, calls = slices.reconstruct_slices, []

    def interrupted(*arguments, **options):
        calls.append(1)
        if len(calls) > count:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(slices, "reconstruct_slices", interrupted)
    return lambda: monkeypatch.setattr(slices, "reconstruct_slices", real)


# --- two runs at once --------------------------------------------------------------------------------------


def wait_at_the_second_slice(words: list[str]) -> int:
    """The command, which goes on with its second slice when told so."""
    real, calls = slices.reconstruct_slices, []

    def slow(*arguments, **options):
        calls.append(1)
        if len(calls) == 2:
            print("ready", flush=True)
            sys.stdin.readline()
        return real(*arguments, **options)

    slices.reconstruct_slices = slow
    return main(words)


def test_two_runs_of_one_command_at_once(tiny, tmp_path, capsys):
    file = make_fastmri_file(tmp_path / "a.h5", slices=3, noise=0.01)
    out = tmp_path / "out"
    given = command(tiny, "reconstruct", file, "--out", out, "--overwrite")
    first = Forked(wait_at_the_second_slice, given)
    while (line := first.stdout.readline()) != "ready\n":
        assert line, "the first run ended"
    for again in (given, [word for word in given if word != "--overwrite"]):
        assert main(again) == 2
        said = capsys.readouterr().err
        assert "another run is writing it" in said and "overwrite" not in said and "--out" in said
    first.finish("\n")
    assert first.returncode == 0
    assert names(out) == ["a.h5", "a_000.png", "a_001.png", "a_002.png"]
    assert np.isfinite(read_result(out / "a.h5", samples=True).samples).all()
    capsys.readouterr()


# --- interruptions -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_interruption_says_how_to_go_on(tiny, tmp_path, monkeypatch, no_pictures, overwrite):
    file, out, said = make_fastmri_file(tmp_path / "a.h5", slices=3, noise=0.01), tmp_path / "out", []
    if overwrite:
        reconstruct([file], settings(tiny, seed=7), out, say=said.append)
    given = settings(tiny)
    mend = interrupt_after(monkeypatch, 1)
    outcome = reconstruct([file], given, out, overwrite=overwrite, say=said.append)
    assert outcome.exit_code == 130 and ("without --overwrite" in said[-1]) == overwrite
    assert "a.h5.part" in names(out) and not [name for name in names(out) if name.endswith(".lock")]
    mend()
    seen = interrupt_after(monkeypatch, 2)  # the two slices that are missing, and no third
    assert reconstruct([file], given, out, say=said.append).exit_code == 0
    seen()
    assert names(out) == ["a.h5"]
    assert read_result(out / "a.h5").seed == 0


def test_the_summary_of_a_resumed_run_is_of_all_slices(tiny, tmp_path, monkeypatch, no_pictures):
    file, given = make_fastmri_file(tmp_path / "a.h5", slices=3, noise=0.01), settings(tiny)
    whole, resumed = [], []
    reconstruct([file], given, tmp_path / "whole", say=whole.append)
    mend = interrupt_after(monkeypatch, 2)
    reconstruct([file], given, tmp_path / "out", say=resumed.append)
    mend()
    reconstruct([file], given, tmp_path / "out", say=resumed.append)
    assert "mean of 3 slices: PSNR" in whole[-1] and resumed[-1] == whole[-1]


def test_an_interrupted_calibration_says_that_nothing_was_written(tiny, tmp_path, monkeypatch):
    file, said = make_fastmri_file(tmp_path / "a.h5", slices=3), []
    interrupt_after(monkeypatch, 1)
    with pytest.raises(KeyboardInterrupt):
        calibrate([file], settings(tiny), out=tmp_path / "out", say=said.append)
    assert said[-1].startswith("Interrupted.") and "starts again" in said[-1]
    assert not (tmp_path / "out").exists()


# --- the same bytes ----------------------------------------------------------------------------------------


def test_two_runs_write_the_same_bytes(tiny, tmp_path, capsys):
    file = make_fastmri_file(tmp_path / "a.h5", slices=2, noise=0.01)
    np.save(tmp_path / "image.npy", np.abs(objects(1, 32, 24, 32)[0]))
    for folder in ("one", "two"):
        out = ["--out", tmp_path / folder]
        assert main(command(tiny, "reconstruct", file, *out)) == 0
        assert main(command(tiny, "calibrate", file, *out)) == 0
        restored = command(tiny, "restore", tmp_path / "image.npy", "--operator", "mri", *out)
        assert main(restored[:-4]) == 0
    one, two = tmp_path / "one", tmp_path / "two"
    assert names(one) == names(two) and len(names(one)) == 8
    different = [name for name in names(one) if (one / name).read_bytes() != (two / name).read_bytes()]
    assert not different
    capsys.readouterr()


@pytest.mark.parametrize("chunk", [1, 2, 3])
def test_the_chunk_changes_no_std(tiny, tmp_path, no_pictures, chunk):
    file = make_fastmri_file(tmp_path / "a.h5", slices=2, noise=0.01)
    base = settings(tiny, samples=5, steps=4)
    found = []
    for name, runtime in (("all", CPU), ("some", replace(CPU, chunk=chunk))):
        reconstruct([file], replace(base, runtime=runtime), tmp_path / name, say=lambda line: None)
        found.append(read_result(tmp_path / name / "a.h5"))
    top = found[0].reconstruction.max()
    for name in ("reconstruction", "std", "zero_filled", "interval"):
        a, b = (getattr(result, name) for result in found)
        assert np.abs(a - b).max() <= 1e-6 * top, name


# --- full disks, long names, hidden files ------------------------------------------------------------------


def test_a_full_disk_leaves_nothing_that_looks_done(tiny, tmp_path, capsys):
    file = make_fastmri_file(tmp_path / "a.h5", slices=2, noise=0.01)
    given = command(tiny, "reconstruct", file, "--out", tmp_path / "out")
    for size in (0, 3000, 40_000):  # none of the result, some of it, and pictures but no result
        with full_disk(size):
            assert main(given) == 2
        said = capsys.readouterr().err
        assert "cannot be written" in said and "fault of the program" not in said
        assert not (tmp_path / "out/a.h5").exists()
    assert main(given) == 0
    assert np.isfinite(read_result(tmp_path / "out/a.h5").reconstruction).all()
    capsys.readouterr()


@pytest.mark.parametrize("length", [200, 249, 252])
def test_a_long_name_is_reconstructed(tiny, tmp_path, capsys, length):
    file = make_fastmri_file(tmp_path / ("x" * length + ".h5"), slices=1, noise=0.01)
    assert main(command(tiny, "reconstruct", file, "--out", tmp_path / "out")) == 0, capsys.readouterr().err
    (result, picture) = sorted((tmp_path / "out").iterdir(), key=lambda path: path.suffix)
    assert read_result(result).reconstruction.shape[0] == 1 and picture == picture_path(result, 0)
    assert str(picture) in capsys.readouterr().out


def test_side_files_of_other_systems_are_left_out(tiny, tmp_path, no_pictures):
    (tmp_path / "in").mkdir()
    make_fastmri_file(tmp_path / "in/a.h5", slices=1)
    (tmp_path / "in/._a.h5").write_bytes(b"\0\5\26\7 of another system")
    outcome = reconstruct([tmp_path / "in"], settings(tiny), tmp_path / "out", say=lambda line: None)
    assert outcome.exit_code == 0 and outcome.done == [tmp_path / "out/a.h5"]


def test_a_folder_that_may_not_be_read(tiny, tmp_path, capsys, monkeypatch):
    (tmp_path / "in").mkdir()
    good = make_fastmri_file(tmp_path / "a.h5", slices=1)
    real = Path.iterdir

    def iterdir(self):
        if self == tmp_path / "in":
            raise PermissionError(13, "Permission denied", str(self))
        return real(self)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    assert main(command(tiny, "reconstruct", tmp_path / "in", "--out", tmp_path / "out")) == 2
    said = capsys.readouterr().err
    assert "cannot be read" in said and "Permission denied" in said and "fault" not in said
    assert main(command(tiny, "reconstruct", tmp_path / "in", good, "--out", tmp_path / "out")) == 1
    assert main(command(tiny, "calibrate", tmp_path / "in", "--out", tmp_path / "out")) == 2
    assert "Permission denied" in capsys.readouterr().err


# --- inputs stay as they are -------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["maps", "linked maps", "mask", "configuration", "hard link"])
def test_a_reconstruction_writes_over_nothing_that_it_reads(tiny, tmp_path, no_pictures, role):
    (tmp_path / "out").mkdir()
    file = make_fastmri_file(tmp_path / "a.h5", slices=1, with_maps=True)
    taken = tmp_path / "out/a.h5"
    base, reads = settings(tiny), []
    if "maps" in role:
        shutil.copy(file, taken)
        (tmp_path / "link.h5").symlink_to(taken)
        base = replace(base, maps=str(tmp_path / "link.h5" if "linked" in role else taken))
    elif role == "mask":
        np.save(tmp_path / "m.npy", np.ones(24, bool))
        taken = tmp_path / "out/a_000.png"
        taken.symlink_to(tmp_path / "m.npy")
        base = replace(base, mask=MaskChoice(str(tmp_path / "m.npy")))
    elif role == "configuration":
        taken.write_text("steps: 2")
        reads = [taken]
    else:
        os.link(file, taken)
    before = taken.read_bytes()

    def run():
        outcome = reconstruct([file], base, tmp_path / "out", overwrite=True, reads=reads, say=lambda x: None)
        for failure in outcome.failures:
            raise failure.error

    with pytest.raises(OutputError, match="would overwrite"):
        run()
    assert taken.read_bytes() == before and names(tmp_path / "out") == [taken.name]


@pytest.mark.parametrize("role", ["mask", "configuration"])
def test_a_calibration_writes_over_nothing_that_it_reads(tiny, tmp_path, role):
    file = make_fastmri_file(tmp_path / "a.h5", slices=2)
    (tmp_path / "out").mkdir()
    taken, base, reads = tmp_path / "out/calibration.json", settings(tiny), []
    np.save(tmp_path / "m.npy", np.arange(24) % 2 == 0)
    if role == "mask":
        taken.symlink_to(tmp_path / "m.npy")
        base = replace(base, mask=MaskChoice(str(tmp_path / "m.npy")))
    else:
        taken.write_text("steps: 2")
        reads = [taken]
    before = taken.read_bytes()
    with pytest.raises(OutputError, match="would overwrite"):
        calibrate([file], base, out=tmp_path / "out", overwrite=True, reads=reads)
    assert taken.read_bytes() == before
