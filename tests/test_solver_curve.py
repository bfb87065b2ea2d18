"""``recon bench curve``: points are made once, names checked, tables and figure whole."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from make_kspace import make_fastmri_file
from make_prior import make_prior

from recon.benchmark.curve import run as solver_curve
from recon.benchmark.curve.points import Point, append_point, read_points
from recon.benchmark.curve.report import curve_report, fewest, over_cases, points_within
from recon.benchmark.curve.run import CURVE_SOLVERS, read_curve, steps_within
from recon.benchmark.scans.real import CASES
from recon.cli import main
from recon.errors import SamplingError
from recon.io.reports import moved_apart
from recon.registry.recipe import Recipe
from recon.solvers import SOLVERS

NAME = "real_brain_mprage_4ch.h5"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a k-space file of the expected name, and the settings of a tiny prior."""
    folder = tmp_path_factory.mktemp("curve")
    make_fastmri_file(folder / NAME, slices=1, H=48, W=64, noise=0.01)
    prior = make_prior(folder)
    (folder / "tiny.yaml").write_text(
        f"prior: {prior}\nsampler_options: {{steps: 2}}\ncalibration: [12, 12]\nkernel: 3\nruntime: {{device: cpu}}\n"
    )
    return folder


@pytest.fixture
def bench(place, tmp_path):
    def run(*arguments: str) -> int:
        where = ["--data", place, "--config", place / "tiny.yaml", "--out", tmp_path]
        return main(["bench", "curve", *map(str, where), "--cases", "4x equispaced", "4x random", *arguments])

    return run


SMALL = ("--solvers", "euler", "heun", "ddim,eta=1", "--calls", "5", "8", "--samples", "2")


def test_the_curve_is_whole(bench, tmp_path, capsys):
    assert bench(*SMALL) == 0
    said = capsys.readouterr().out
    assert "12 points, 0 of them done" in said and str(tmp_path / "solvers.png") in said
    points = read_points(tmp_path / "solvers.csv")
    assert len(points) == 12 == len({p.key for p in points})
    assert {p.calls for p in points if p.solver == "euler"} == {5, 8}
    assert {(p.steps, p.calls) for p in points if p.solver == "heun"} == {(3, 5), (4, 7)}
    assert {p.label for p in points} == {"euler", "heun", "ddim eta=1"}
    first = points[0]
    assert (first.file, first.start, first.sigma_start, first.sampler_options) == (
        NAME, "cg-sense", 6.0, "keep=noise steps=2 variance=local",
    )  # fmt: skip
    assert first.prior.startswith("tiny@") and 0 < first.psnr < 60 and first.sample_psnr != first.psnr
    page = (tmp_path / "solvers.md").read_text()
    for words in (
        "Fewest calls that reach euler at 8 calls",
        "All cases",
        "4x random, one sample",
        "| ddim eta=1 |",
        "(7)",
    ):
        assert words in page
    assert (tmp_path / "solvers.png").read_bytes().startswith(b"\x89PNG")


def test_finished_points_are_not_made_again(bench, tmp_path, capsys, monkeypatch):
    made, measured = [], solver_curve.scored_point

    def once(point: Point, *arguments):
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(point.key)
        return measured(point, *arguments)

    monkeypatch.setattr(solver_curve, "scored_point", once)
    assert bench(*SMALL) == 130
    with (tmp_path / "solvers.csv").open("a") as file:
        file.write("half a li")  # as if the machine had stopped there
    made.clear()
    monkeypatch.setattr(solver_curve, "scored_point", lambda *a: made.append(a[0].key) or measured(*a))
    assert bench(*SMALL) == 0
    assert "12 points, 3 of them done" in capsys.readouterr().out
    assert len(made) == 9 and len(read_points(tmp_path / "solvers.csv")) == 12
    made.clear()
    assert bench(*SMALL, "--keep", "both") == 0
    assert len(made) == 12 and (tmp_path / "solvers-state.png").exists()
    assert "keep=state steps=2" in (tmp_path / "solvers.md").read_text()
    made.clear()
    assert bench("--solvers", "renoise", "--calls", "5", "--samples", "2") == 0
    assert len(made) == 2 and "| euler |" in (tmp_path / "solvers.md").read_text()


def test_a_dry_run_makes_nothing(bench, tmp_path, capsys):
    assert bench(*SMALL, "--dry-run") == 0
    assert "12 points, 0 of them done; 152 images" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_a_run_that_diverges_is_a_point_without_scores(bench, tmp_path, monkeypatch):
    def measured(point: Point, *arguments):
        if point.solver == "heun":
            raise SamplingError("DDS with Heun diverged at step 2, sigma 0.1.")
        return replace(point, calls=point.steps, psnr=30.0, object_psnr=28.0, sample_psnr=29.0)

    monkeypatch.setattr(solver_curve, "scored_point", measured)
    assert bench(*SMALL) == 0
    assert {p.note[:3] for p in read_points(tmp_path / "solvers.csv") if p.solver == "heun"} == {"DDS"}
    assert "Not shown: heun with 3 steps" in (tmp_path / "solvers.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--solvers", "eulr"], '"euler"'),
        (["--solvers", "ddim,etta=1"], '"eta"'),
        (["--solvers", "ddim,eta"], "key=value"),
        (["--keep", "stat"], '"state"'),
        (["--calls", "0"], "at least 1"),
        (["--samples", "0"], "at least 1"),
        (["--cases", "4x randm"], '"4x random"'),
        (["--data", "no_such_folder"], "--data"),
    ],
)
def test_wrong_names_are_refused(bench, tmp_path, capsys, arguments, said):
    assert bench(*SMALL, *arguments) == 2
    assert said in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_another_name_of_bench_is_offered(capsys):
    assert main(["bench", "curv"]) == 2
    assert '"curve"' in capsys.readouterr().err


def test_methods_beside_one_another_on_the_scan(place, capsys, monkeypatch):
    monkeypatch.setenv("PATH", "")  # without BART
    where = ["--data", str(place), "--config", str(place / "tiny.yaml")]
    assert main(["bench", "mri", *where, "--cases", "4x random"]) == 0
    without, name, head, _, *lines, ahead = capsys.readouterr().out.splitlines()
    assert "BART is left out" in without and name == f"{NAME}:" and "SSIM" in head and "residual" in head
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert [(cell[2].split(",")[0], cell[3]) for cell in cells] == [
        ("zero-filled", "0"),
        ("CG-SENSE", "0"),
        ("total variation", "0"),
        ("recon", "16 x 10"),
    ]
    assert all(0 < float(cell[4]) < 60 for cell in cells)
    tv, ours = (float(cell[4]) for cell in cells[2:])
    assert f"total variation by {ours - tv:+.2f} / " in ahead


def test_scans_of_your_own_and_wrong_names(place, capsys):
    where = ["bench", "mri", "--config", str(place / "tiny.yaml"), "--methods", "zero-filled"]
    assert main([*where, "--scans", str(place / NAME)]) == 0
    said = capsys.readouterr().out
    assert all(f"| {case} |" in said for case in CASES)
    assert main([*where, "--data", str(place), "--cases", "4x randm"]) == 2
    assert '"4x random"' in capsys.readouterr().err
    assert main([*where, "--data", str(place / "nothing")]) == 2
    assert "RECON_SHARED_DATA" in capsys.readouterr().err


def test_at_least_ten_solvers_are_shown():
    assert len({name.split(",")[0] for name in CURVE_SOLVERS} & SOLVERS.keys()) >= 10
    plan = read_curve(Recipe())
    assert plan.calls == (5, 8, 10, 15, 20, 30, 50, 100)
    cells = list(plan.points())
    assert len({case for case, _ in cells}) == 3 and len(cells) > 300


@pytest.mark.parametrize(("solver", "calls", "steps"), [("euler", 8, 8), ("heun", 8, 4), ("dpm++3s", 5, 0)])
def test_steps_within_a_budget(solver, calls, steps):
    assert steps_within(Recipe(solver=solver), calls) == steps


# --- the arithmetic of the tables --------------------------------------------------------------------------


def point(calls: int, psnr: float, case: str = "a", solver: str = "euler") -> Point:
    settings = ("f", "p", case, "dds", "keep=noise", "cg-sense", 3.0, 0.01, 4, 0, solver, "", calls)
    return Point(*settings, calls, psnr, psnr - 2, psnr - 1, psnr - 3)


def test_a_point_survives_the_file(tmp_path):
    points = [point(5, 30.25), replace(point(8, float("nan")), solver_options="eta=0.5", note="diverged")]
    for one in points:
        append_point(tmp_path / "new" / "x.csv", one)
    found = read_points(tmp_path / "new" / "x.csv")
    assert [p.key for p in found] == [p.key for p in points]
    assert found[0].psnr == 30.25 and found[1].note == "diverged"


def test_budgets_and_goals():
    of = [point(5, 30.0), point(7, 31.0), point(19, 31.5), point(100, 31.2)]
    assert [p and p.calls for p in points_within(of, [5, 8, 10, 20])] == [5, 7, None, 19]
    assert fewest(of, "psnr", 31.2) == 19 and fewest(of, "psnr", 32.0) is None


def test_means_are_over_all_cases_or_not_at_all():
    both = [point(5, 30.0, "a"), point(5, 34.0, "b"), point(8, 31.0, "a")]
    (mean,) = over_cases(both)
    assert (mean.case, mean.calls, mean.psnr, mean.object_psnr) == ("All cases", 5, 32.0, 30.0)
    assert not over_cases(both[:1])
    assert "| euler | 32.00 / 30.00 | - |" in curve_report(both, [5, 8])


def test_names_do_not_overlap():
    placed = moved_apart([1.0, 1.01, 1.02, 2.99, 3.0], 0.0, 3.0, 0.5)
    assert all(b - a >= 0.5 - 1e-12 for a, b in pairwise(placed))
    assert placed[-1] <= 3.0 and placed[0] >= 0.9
