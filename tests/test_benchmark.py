"""``recon benchmark``: every cell once, rows that last, failures recorded, nothing run that the config misspells."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from filelock import FileLock, Timeout
from forked import Forked
from make_kspace import make_fastmri_file
from make_prior import make_prior

from recon import metrics
from recon.benchmark import run
from recon.benchmark.answer import Answer
from recon.benchmark.cells import cells
from recon.benchmark.rows import scored
from recon.benchmark.sharing import claimed
from recon.benchmark.sources import ImageStack, KSpace, chosen_slices
from recon.benchmark.specs import read_benchmark
from recon.cli import main
from recon.errors import ConfigError, OutputError
from recon.networks.load import load_prior

SIZE = 24
LOCKS = {".rows.jsonl.lock", ".index.html.lock"}  # these stay
MRI = {"operator": "mri", "sigma": 0.01, "options": {"mask": "random", "accel": 2, "center": 0.2, "coils": 3}}
GRID = {
    "inputs": ["slices.npz"],
    "samples": 2,
    "calls": 3,
    "problems": {"mri": MRI, "holes": {"operator": "inpainting", "sigma": 0.05, "options": {"box": [6, 8]}}},
    "methods": {"dds": {"options": {"steps": 2}}, "zero-filled": {"sampler": "adjoint"}},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two brain-like slices, a k-space file, and a tiny prior."""
    folder = tmp_path_factory.mktemp("benchmark")
    y, x = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j]
    slices = np.stack([(x**2 + y**2 < r) * (1 + 0.3 * np.cos(9 * x)) for r in (0.7, 0.5, 0.6)])
    np.savez(folder / "slices.npz", images=slices.astype(np.float32))
    make_fastmri_file(folder / "scan.h5", slices=1, H=48, W=64, noise=0.01)
    make_prior(folder)
    return folder


@pytest.fixture
def grid(folder, tmp_path):
    """Write a grid that differs from `GRID`, run it, and give its exit code."""

    def go(*arguments: str, out="out", **changes) -> int:
        settings = {**GRID, "prior": str(folder / "tiny.safetensors"), **changes}
        (tmp_path / "grid.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
        command = [
            "benchmark",
            str(tmp_path / "grid.yaml"),
            "--data",
            str(folder),
            "--out",
            str(tmp_path / out),
        ]
        go.command = command
        return main([*command, *arguments])

    return go


def rows(folder):
    return [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]


def plan(folder, **changes):
    return read_benchmark({**GRID, "prior": str(folder / "tiny.safetensors"), **changes})


def test_a_grid_is_whole_and_its_report_written(grid, tmp_path, capsys):
    assert grid() == 0
    found = rows(tmp_path / "out")
    assert {(r["cell"]["problem"], r["cell"]["method"]) for r in found} == {
        (p, m) for p in ("mri", "holes") for m in ("dds", "zero-filled")
    }
    for row in found:
        ours = row["cell"]["method"] == "dds"
        assert row["status"] == "done" and row["network_calls"] == (3 if ours else 0)
        assert (row["coverage"] is not None) == ours and row["residual"] >= 0
        assert set(row["metrics"]) == {"psnr", "object_psnr", "ssim", "nmse", "fastmri_psnr"}
        for picture in filter(None, row["pictures"].values()):
            assert (tmp_path / "out" / picture).is_file()
    assert {"table.md", "table.csv", "index.html"} <= {p.name for p in (tmp_path / "out").iterdir()}
    assert "4 cells done now, 0 before, 0 failed" in capsys.readouterr().out


def test_finished_cells_are_skipped_and_new_ones_run(grid, tmp_path, capsys):
    assert grid() == 0
    before = (tmp_path / "out/rows.jsonl").read_bytes()
    assert grid() == 0 and (tmp_path / "out/rows.jsonl").read_bytes() == before
    assert grid(seeds=[0, 1]) == 0
    found = rows(tmp_path / "out")
    assert (tmp_path / "out/rows.jsonl").read_bytes().startswith(before)
    assert len(found) == 6 and {r["cell"]["seed"] for r in found[4:]} == {1}
    assert grid(slices=2) == 0
    assert len(rows(tmp_path / "out")) == 10
    capsys.readouterr()


def test_a_cell_that_fails_is_recorded_and_tried_again(grid, tmp_path, capsys):
    methods = {"ddrm": {"options": {}}, **GRID["methods"]}
    assert grid(methods=methods) == 1
    failed = [r for r in rows(tmp_path / "out") if r["status"] == "failed"]
    assert [(r["cell"]["problem"], r["cell"]["method"]) for r in failed] == [("mri", "ddrm")]
    assert "singular value" in " ".join(failed[0]["error"].values())
    assert "5 cells done now, 0 before, 1 failed" in capsys.readouterr().out
    assert grid(methods=methods) == 1
    assert len([r for r in rows(tmp_path / "out") if r["status"] == "failed"]) == 2
    assert "ddrm" in (tmp_path / "out/table.md").read_text()
    capsys.readouterr()


def test_a_run_that_was_cut_short_is_mended(grid, tmp_path, capsys):
    assert grid() == 0
    path = tmp_path / "out/rows.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    assert grid() == 0
    found = rows(tmp_path / "out")
    assert len(found) == 4 and path.read_bytes().startswith(whole[: whole[:-1].rfind(b"\n") + 1])
    capsys.readouterr()


def test_a_row_is_done_after_its_pictures(grid, tmp_path, capsys, monkeypatch):
    """A cell whose pictures cannot be saved failed, and is tried again with the others that did."""
    save, full = run.save_pictures, OutputError("pictures cannot be written.", "No space left on device.")

    def failing(out, key, *rest):
        if len(list((tmp_path / "out").glob("pictures/*_error.png"))) == 2:
            raise full
        return save(out, key, *rest)

    monkeypatch.setattr(run, "save_pictures", failing)
    assert grid() == 1
    found = rows(tmp_path / "out")
    assert [row["status"] for row in found] == ["done", "done", "failed", "failed"]
    assert all("metrics" not in row and "pictures" not in row for row in found[2:])
    assert "No space left" in found[2]["error"]["why"]
    monkeypatch.setattr(run, "save_pictures", save)
    assert grid() == 0
    assert [row["status"] for row in rows(tmp_path / "out")[4:]] == ["done", "done"]
    assert "2 cells done now, 2 before, 0 failed" in capsys.readouterr().out


@pytest.mark.parametrize("where", ["solve", "scored", "save_pictures", "append_row", "row_in_words"])
def test_a_run_interrupted_anywhere_goes_on(grid, tmp_path, capsys, monkeypatch, where):
    function, calls = getattr(run, where), []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return function(*arguments)

    monkeypatch.setattr(run, where, interrupted)
    assert grid() == 130
    count = len(rows(tmp_path / "out"))
    assert count == (2 if where == "row_in_words" else 1)
    assert "Interrupted" in capsys.readouterr().out and (tmp_path / "out/index.html").is_file()
    monkeypatch.setattr(run, where, function)
    assert grid() == 0
    assert len({row["key"] for row in rows(tmp_path / "out")}) == len(rows(tmp_path / "out")) == 4
    assert f"{4 - count} cells done now, {count} before, 0 failed" in capsys.readouterr().out


def test_a_disk_without_room_for_a_row_is_not_announced_as_done(grid, tmp_path, capsys, monkeypatch):
    append, calls = run.append_row, []

    def full(path, row):
        calls.append(row)
        if len(calls) == 2:
            raise OutputError(f"{path} cannot be written.", "No space left on device.")
        append(path, row)

    monkeypatch.setattr(run, "append_row", full)
    assert grid() == 2
    said = capsys.readouterr()
    assert said.out.count("PSNR") == 1 and "No space left" in said.err
    assert grid() == 0 and len(rows(tmp_path / "out")) == 4


def within_a_cell(out: Path) -> bool:
    """Whether another process holds a cell whose row is not on disk yet."""
    done = (out / "rows.jsonl").read_text()
    for path in (path for path in out.glob(".*.lock") if path.name not in LOCKS):
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return path.name[1 : -len(".lock")] not in done
        lock.release()
    return False


@pytest.mark.skipif(os.name != "posix", reason="a process that is stopped on the way")
def test_the_same_command_twice_at_once_does_every_cell_once(grid, tmp_path, capsys):
    """The second leaves the cell of the first alone; that one, interrupted there, is done by the next run."""
    changes = {"seeds": [*range(6)], "methods": {**GRID["methods"], "ddrm": {"solver": "euler"}}, "calls": 60}
    assert grid("--dry-run", **changes) == 0
    first = Forked(main, grid.command)
    assert "PSNR" in first.stdout.readline()
    first.send_signal(signal.SIGSTOP)
    while not within_a_cell(tmp_path / "out"):
        first.send_signal(signal.SIGCONT)
        time.sleep(0.002)
        first.send_signal(signal.SIGSTOP)
        assert first.poll() is None, "it ended before it was caught within a cell"
    second = Forked(main, grid.command)
    said, error = second.finish()
    assert second.returncode == 1 and "Traceback" not in error  # ddrm cannot solve one of the problems
    assert "Cells that another process is measuring: 1." in said
    first.send_signal(signal.SIGINT)
    first.send_signal(signal.SIGCONT)
    said, error = first.finish()
    assert first.returncode == 130 and "Interrupted" in said, error
    assert grid(**changes) == 1
    found = rows(tmp_path / "out")
    done = [row["key"] for row in found if row["status"] == "done"]
    assert len(done) == len(set(done)) == 2 + 6 * 3
    assert sum(row["status"] == "failed" for row in found) == 2 * 6  # once by the second, once by the third
    left = {p.name for p in (tmp_path / "out").rglob("*") if p.suffix in (".part", ".lock")}
    assert left <= LOCKS
    assert (tmp_path / "out/table.csv").read_text().count("\n") == 1 + 2 + 6 * 4
    capsys.readouterr()


def test_what_another_process_is_measuring_is_left_to_it(grid, tmp_path, capsys):
    assert grid("--dry-run") == 0
    key = capsys.readouterr().out.split()[0]
    (tmp_path / "out").mkdir()
    with claimed(tmp_path / "out", key) as mine:
        assert mine and grid() == 0
    assert "Cells that another process is measuring: 1." in capsys.readouterr().out
    assert len(rows(tmp_path / "out")) == 3
    assert grid() == 0 and len(rows(tmp_path / "out")) == 4
    capsys.readouterr()


def test_parts_and_patterns_share_the_work(grid, tmp_path, capsys):
    assert grid(out="all") == 0
    assert grid("--part", "1/2") == 0 and len(rows(tmp_path / "out")) == 2
    assert grid("--part", "2/2") == 0 and len(rows(tmp_path / "out")) == 4
    one, other = ({r["key"]: r["metrics"] for r in rows(tmp_path / out)} for out in ("all", "out"))
    assert one == other
    assert grid("--only", "*/dds", out="some") == 0
    assert {r["cell"]["method"] for r in rows(tmp_path / "some")} == {"dds"}
    assert grid("--only", "*/nothing", out="none") == 2
    assert grid("--part", "3/2", out="none") == 2
    assert not (tmp_path / "none").exists()
    capsys.readouterr()


def test_a_dry_run_does_nothing(grid, tmp_path, capsys):
    assert grid("--dry-run") == 0
    assert "mri / slices.npz 1 / dds" in capsys.readouterr().out and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"methds": {}}, '"methods"'),
        ({"methods": {"dds": {"solvr": "euler"}}}, '"solver"'),
        ({"methods": {"dds": {"options": {"stps": 2}}}}, '"steps"'),
        ({"methods": {"dsd": {}}}, '"dds"'),
        ({"methods": {"dds": {"solver": "eulr"}}}, '"euler"'),
        ({"methods": {"dds": {"active": {"budgt": 3}}}}, '"budget"'),
        ({"methods": {"dds": {"ensemble": {"tempr": 0.8}}}}, '"temper"'),
        ({"methods": {"dds": {"problems": ["mir*"]}}}, "problem"),
        ({"methods": {"dds": {"start": "fit"}}}, "sigma_start"),
        ({"problems": {"a": {"operator": "mir", "sigma": 0.1}}}, '"mri"'),
        ({"problems": {"a": {"operator": "mri", "sigma": 0.1, "options": {"acel": 2}}}}, '"accel"'),
        ({"problems": {"a": {"operator": "mri"}}}, "sigma"),
        ({"problems": {"a": {"mask": {"name": "random"}, "operator": "mri", "sigma": 0.1}}}, "one of the two"),
        ({"problems": {"a": {"mask": {"nme": "random"}}}}, '"name"'),
        ({"inputs": ["nothing.npz"]}, "nothing.npz"),
        ({"inputs": []}, "inputs"),
        ({"prior": "brain-mir"}, '"brain-mri"'),
        ({"methods": {"zero-filled": {"sampler": "tv", "options": {"lambda": [1]}}}}, '"lambdas"'),
        ({"methods": {"deepinv-diffpir": {"calls": 0}}}, "at least 1"),
        ({"methods": {"tv": {"options": {"steps": -1}}}}, "at least 1"),
        ({"methods": {"tv": {"ensemble": {}}}}, "has no ensemble"),
        ({"methods": {"dds": {"options": {"steps": 1.5}}}}, "a whole number"),
        ({"methods": {"dds": {"options": {"steps": -1}}}}, "steps is -1"),
        ({"methods": {"dds": {"solver": "ddim", "solver_options": {"eta": "a"}}}}, "eta"),
        ({"methods": {"dds": {"sigma_start": 0.1, "sigma_end": 0.3}}}, "sigma_end"),
        ({"methods": {"dds": {"ensemble": {"temper": "a"}}}}, "temper"),
        ({"problems": {"a": {**MRI, "options": {"mask": "none"}}}}, "problems.a"),
        ({"problems": {"a": {**MRI, "options": {"accel": -2}}}}, "problems.a"),
        ({"problems": {"a": {"mask": {"name": "random", "accel": -2}, "inputs": ["scan.h5"]}}}, "problems.a"),
        ({"runtime": {"chunk": 1.5}}, "chunk"),
        ({"runtime": {"compile": "no"}}, "compile"),
    ],
)  # fmt: skip
def test_what_a_config_misspells_is_refused_before_anything_is_run(grid, tmp_path, capsys, changes, said):
    assert grid(**changes) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "line, said",
    [
        ("slices: -2", "slices is -2"),
        ("slices: [0, -2]", "slices[1] is -2"),
        ("slices: [1, 1]", "1 is listed twice"),
        ("seeds: [a]", "seeds[0] is 'a'"),
        ("seeds: []", "at least 1 item"),
        ("samples: 1.5", "samples is 1.5"),
        ("samples: true", "a whole number"),
        ("calls: [5, -3]", "calls[1] is -3"),
        ("calls: [5, 5]", "5 is listed twice"),
        ("level: 3", "less than 1"),
        ("level: .nan", "level is nan"),
        ("title: [1]", "title is [1]"),
        ("pictures: -1", "pictures is -1"),
        ("solver: [euler, eulr]", '"euler"'),
        ("samplse: 2", "samplse is not a setting"),
    ],
)
def test_a_wrong_value_is_named_with_its_place_in_the_file(tmp_path, line, said):
    lines = ["inputs: [a.npz]", "problems:", "  plain: {operator: denoising, sigma: 0.1}", "methods: {dds: }"]
    path = tmp_path / "grid.yaml"
    path.write_text("\n".join(lines))
    assert read_benchmark(str(path)).samples == 4
    path.write_text("\n".join([*lines, "", line]))
    with pytest.raises(ConfigError) as error:
        read_benchmark(str(path))
    assert f"{path}, line 6" in error.value.what and said in str(error.value)


def test_all_that_is_wrong_is_said_at_once_and_nothing_merges(tmp_path):
    path = tmp_path / "grid.yaml"
    text = "inputs: [a.npz]\nproblems:\n  a: {operator: mri, sigma: -1}\nmethods:\n  dds:\n    samples: 0\n"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"line 3: problems\.a\.sigma") as error:
        read_benchmark(str(path))
    assert error.value.do == "Also wrong: line 6: methods.dds.samples."
    path.write_text(text + "  dds:\n    samples: 2\n")
    with pytest.raises(ConfigError, match='"dds" is given twice') as error:
        read_benchmark(str(path))
    assert "line 5" in str(error.value)


WRONG = ("text", -1, 1.5, True, [], ["text"], [[1]], {"a": 1}, {1: 2}, None, float("nan"))
OF_METHOD = ("options", "solver", "solver_options", "calls", "samples", "grid", "start", "sigma_start",
             "sigma_end", "ensemble", "active", "problems", "limit")  # fmt: skip
OF_PROBLEM = ("operator", "options", "sigma", "mask", "inputs")
OF_ALL = ("inputs", "problems", "methods", "title", "prior", "solver", "calls", "samples", "seeds", "slices",
          "pictures", "level", "runtime")  # fmt: skip


@pytest.mark.parametrize("value", WRONG, ids=str)
def test_no_value_of_a_config_is_a_fault_of_the_program(folder, value):
    """A value gives cells with keys, or is refused as a setting: nothing else is raised."""
    settings = {**GRID, "prior": str(folder / "tiny.safetensors")}
    tried = [{**settings, name: value} for name in OF_ALL]
    tried += [{**settings, "methods": {"dds": value}}, {**settings, "problems": {"mri": value}}]
    tried += [{**settings, "methods": {"dds": {name: value}}} for name in OF_METHOD]
    tried += [{**settings, "problems": {"mri": {**MRI, name: value}}} for name in OF_PROBLEM]
    tried += [
        {**settings, "problems": {"scan": {"mask": {name: value}}}} for name in ("name", "accel", "center")
    ]
    refused = 0
    for one in tried:
        try:
            config = read_benchmark(one)
            found = cells(config, {name: {"slices.npz": [1]} for name in config.problems})
            assert all(cell.key("", "") and cell.as_row() and cell.label for cell in found)
            assert isinstance(config.title, str)
        except ConfigError:
            refused += 1
    assert refused > len(tried) / 4


def test_the_key_is_that_of_everything_a_number_depends_on(folder):
    def keys(settings, data="d", weights="w"):
        p = plan(folder, **settings)
        return {c.key(data, weights) for c in cells(p, {name: {"slices.npz": [1]} for name in p.problems})}

    base = keys({})
    assert keys({"title": "Another", "pictures": 0, "runtime": {"chunk": 1}}) == base and len(base) == 4
    for changes, alike in (
        ({"problems": {**GRID["problems"], "mri": {**MRI, "sigma": 0.02}}}, 2),
        ({"methods": {**GRID["methods"], "dds": {"options": {"steps": 3}}}}, 2),
        ({"calls": 4}, 2),  # zero-filling makes none
        ({"samples": 3}, 2),
        ({"solver": "ddim"}, 2),
        ({"seeds": [1]}, 0),
        ({"level": 0.8}, 0),
    ):
        assert len(keys(changes) & base) == alike, changes
    assert not keys({}, data="e") & base and not keys({}, weights="x") & base


def test_more_slices_only_add_to_those_before(folder):
    source = ImageStack(folder / "slices.npz")
    assert chosen_slices(source, 1) == [1] and chosen_slices(source, 5) == [1, 0, 2]
    assert chosen_slices(source, (2, 7)) == [2]


def test_the_scene_is_what_its_problem_says(folder):
    prior, p = load_prior(folder / "tiny.safetensors"), plan(folder)
    scene = ImageStack(folder / "slices.npz").scene(p.problems["mri"], 1, prior, 0, torch.device("cpu"))
    truth = ImageStack(folder / "slices.npz").truth(1, True)[None]
    assert abs(float(scene.problem.residual(truth)) - 1) < 0.1
    torch.testing.assert_close(scene.reference, truth.abs()[0, 0])
    assert float(scene.reference.flatten().quantile(0.995)) == pytest.approx(1)
    everything = scene.measure(torch.ones(1, 1, 1, SIZE, dtype=torch.bool))
    here = scene.A.masked(everything) != 0
    torch.testing.assert_close(
        (everything - scene.problem.y)[here].abs().mean(), torch.tensor(0.0), atol=0.03, rtol=0
    )
    assert int((everything != 0).sum()) == everything.numel()


def test_kspace_is_undersampled_against_all_of_itself(grid, folder, tmp_path, capsys):
    mask = {"mask": {"name": "random", "accel": 2, "center": 0.3}, "inputs": ["scan.h5"]}
    assert grid(problems={"scan": mask}, inputs=[]) == 0
    ours = next(r for r in rows(tmp_path / "out") if r["cell"]["method"] == "dds")
    assert ours["cell"]["measured"]["mask"]["accel"] == 2 and ours["metrics"]["psnr"] > 10
    assert ours["metrics"]["fastmri_psnr"] > 10 and ours["coverage"] > 0.1  # in the units of the reference
    whole = KSpace(folder / "scan.h5")
    spec = replace(plan(folder, problems={"scan": mask}).problems["scan"], mask={})
    with pytest.raises(Exception, match="no reference"):
        whole.scene(spec, 0, load_prior(folder / "tiny.safetensors"), 0, torch.device("cpu"))
    capsys.readouterr()


def test_samplers_around_samplers(grid, tmp_path, capsys):
    lines = {"operator": "mri", "sigma": 0.01, "options": {"mask": "random", "accel": 8, "center": 0.1}}
    methods = {
        "ensemble": {"sampler": "dds", "solver": "ddpm", "options": {"keep": "state"}, "ensemble": {"temper": 0.5}},
        "active": {"sampler": "dds", "active": {"budget": 8, "choose": "variance"}},
        "warm": {"sampler": "dds", "start": "fit", "sigma_start": 1.0},
    }  # fmt: skip
    assert grid(problems={"lines": lines}, methods=methods, calls=6) == 0
    found = {r["cell"]["method"]: r for r in rows(tmp_path / "out")}
    assert found["ensemble"]["ess"] >= 1 and found["ensemble"]["notes"]["ancestors"] >= 1
    assert found["active"]["notes"]["acquired"] == 8
    assert {r["network_calls"] for r in found.values()} == {6}
    capsys.readouterr()


def test_numbers_are_those_of_the_metrics(folder):
    p = plan(folder)
    cell = next(iter(cells(p, {name: {"slices.npz": [1]} for name in p.problems})))
    prior = load_prior(folder / "tiny.safetensors")
    scene = ImageStack(folder / "slices.npz").scene(p.problems["mri"], 1, prior, 0, torch.device("cpu"))
    truth = ImageStack(folder / "slices.npz").truth(1, True)
    samples = torch.stack([truth, 1.2 * truth])
    answer = Answer(samples, samples.mean(0), 3, 1.0)
    row = scored(scene, answer, cell)
    mean = samples.mean(0).abs()[0]
    assert row["metrics"]["psnr"] is None or row["metrics"]["psnr"] > 100  # the scale is not counted
    assert row["metrics"]["fastmri_psnr"] == pytest.approx(float(metrics.psnr(mean, scene.reference)))
    assert row["coverage"] == metrics.coverage(scene.reference, samples.abs()[:, 0], level=0.9).value


def test_the_coverage_of_an_ensemble_weighs_its_samples(folder):
    """The interval is that of the weighted samples: k is their effective number."""
    p = plan(folder)
    cell = next(iter(cells(p, {name: {"slices.npz": [1]} for name in p.problems})))
    prior = load_prior(folder / "tiny.safetensors")
    scene = ImageStack(folder / "slices.npz").scene(p.problems["mri"], 1, prior, 0, torch.device("cpu"))
    truth = ImageStack(folder / "slices.npz").truth(1, True)
    samples = torch.stack([(1 + 0.05 * k) * truth for k in (-2, -1, 1, 3)])
    weights = torch.tensor([0.7, 0.1, 0.1, 0.1], dtype=torch.float64)
    answer = Answer(samples, samples[0], 3, 1.0, weights=weights)
    expected = metrics.coverage(scene.reference, samples.abs()[:, 0], level=0.9, weights=weights).value
    assert scored(scene, answer, cell)["coverage"] == expected
    narrow = metrics.coverage(scene.reference, samples.abs()[:, 0], level=0.9).value
    assert expected > narrow or expected == narrow == 1


def test_a_plan_needs_problems_and_methods():
    with pytest.raises(ConfigError, match="needs problems"):
        read_benchmark({"inputs": ["a.npz"], "methods": {"dds": {}}})
    with pytest.raises(ConfigError, match="methods is {}"):
        read_benchmark({"inputs": ["a.npz"], "problems": {"mri": MRI}, "methods": {}})


def test_the_preset_that_ships_is_one(tmp_path):
    assert set(read_benchmark("samplers").methods) >= {"DDS", "TV", "zero-filled"}


def test_the_grid_in_the_readme_is_one():
    readme = (Path(__file__).resolve().parent.parent / "README.md").read_text()
    plan = read_benchmark(yaml.safe_load(readme.split("```yaml")[1].split("```")[0]))
    assert set(plan.problems) == {"holes"} and plan.calls == (20, 100)
