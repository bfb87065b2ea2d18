"""``recon tune``: a search that goes on and is shared, an objective in one formula, presets that other commands take."""

from __future__ import annotations

import inspect
import json
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
import yaml
from make_prior import make_prior

from recon import load_prior
from recon.benchmark.specs import read_benchmark
from recon.cli import main
from recon.errors import ConfigError, OutputError, SamplingError
from recon.metrics import scaled_psnr
from recon.posteriors.usual import Usual
from recon.registry.objects import make_sampler, sampler_class, usual_of
from recon.sampling import sample
from recon.tuning.run import Objective, tune
from recon.tuning.settings import method_of, read_tuning, recipe_values
from recon.tuning.spaces import SPACES, Range, Search
from recon.tuning.study import JOURNAL, Trials, internal, mean

optuna = pytest.importorskip(
    "optuna", reason="the extra `tune` is not installed: pip install 'recon-posterior[tune]'"
)

HOLES = {"operator": "inpainting", "sigma": 0.05, "options": {"keep": 0.5}}
MRI = {"operator": "mri", "sigma": 0.01, "options": {"mask": "random", "accel": 2, "center": 0.2, "coils": 2}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four brain-like slices of 20 x 20, and a tiny prior."""
    folder = tmp_path_factory.mktemp("tune")
    y, x = np.mgrid[-1:1:20j, -1:1:20j]
    slices = np.stack([(x**2 + y**2 < r) * (1 + 0.3 * np.cos(9 * x)) for r in (0.7, 0.5, 0.6, 0.4)])
    np.savez(folder / "slices.npz", images=slices.astype(np.float32))
    make_prior(folder)
    return folder


@pytest.fixture
def settings(folder):
    """The settings of a small search, with changes."""

    def made(**changes):
        return {
            "sampler": "daps",
            "prior": str(folder / "tiny.safetensors"),
            "problems": {"holes": HOLES, "mri": MRI},
            "validation": {"inputs": ["slices.npz"], "slices": [0, 1]},
            "held_out": {"inputs": ["slices.npz"], "slices": [2]},
            "calls": 2,
            "samples": 2,
            "trials": 3,
            "crop": 16,
            "search": {"options": {"spread": {"low": 0.1, "high": 2.0, "log": True}}},
        } | changes

    return made


def quiet(line: str) -> None:
    """Say nothing."""


# --- the spaces --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SPACES)
def test_a_space_fits_its_sampler(name):
    """Options of the constructor; a sampler is made of every end and choice; the levels fall."""
    space, recipe = SPACES[name], usual_of(name)
    known = inspect.signature(sampler_class(name)).parameters
    assert space.options.keys() <= known.keys()
    for option, axis in space.options.items():
        for value in axis.ends if isinstance(axis, Range) else axis:
            make_sampler(name, None, options={**recipe.options, option: value})
    for solver in space.solver:
        found = space.found({"recipe.solver": solver}, recipe)
        make_sampler(name, None, options=found.options).pair(method_solver(found))
    assert space.highest and space.lowest and space.lowest.high < space.highest.low


def method_solver(usual: Usual):
    from recon.registry.objects import make_solver

    return make_solver(usual.solver, usual.solver_options)


@pytest.mark.parametrize(
    "name", sorted(set(SPACES) - {"dps"})
)  # whose recipe leaves its step to the operator
def test_the_recipe_lies_in_its_space_and_is_found_there(name, settings, tmp_path):
    made = read_tuning(settings(sampler=name, search=None))
    values = recipe_values(made)
    axes = Trials(tmp_path, "study", made.space, 0).axes
    assert all(axis._contains(internal(axis, values[key])) for key, axis in axes.items()), values
    found, recipe = made.space.found(values, made.recipe), made.recipe
    assert (found.solver, found.highest, found.lowest) == (recipe.solver, recipe.highest, recipe.lowest)
    assert dict(found.solver_options) == dict(recipe.solver_options)
    assert found.options.items() >= recipe.options.items()


def test_values_take_the_place_of_the_recipes_own():
    search = Search({"spread": Range(0.1, 2.0)}, ("euler", "heun"), Range(2.0, 9.0))
    found = search.found(
        {"spread": 0.123456, "recipe.solver": "heun", "recipe.highest": 3.0}, usual_of("daps")
    )
    assert found == Usual(usual_of("daps").options | {"spread": 0.123}, "heun", highest=3.0, lowest=0.065)


# --- the objective -----------------------------------------------------------------------------------------


def test_the_objective_is_the_mean_psnr_of_problems(settings, folder):
    """``1/P sum_p 1/n_p sum_i PSNR``, written out with `recon.sample`."""
    made = read_tuning(settings())
    prior = load_prior(made.prior)
    objective = Objective(made, folder, prior)
    usual = replace(made.recipe, highest=4.0)
    scores = objective.scores(usual)
    expected = {}
    for name in made.problems:
        values = []
        for index in (0, 1):
            scene = objective.scene(name, "slices.npz", index)
            result = sample(
                scene.problem, prior, "daps", "euler", 2, 2, 0, options=dict(usual.options), images=(index,),
                grid=karras_levels(usual.levels(prior)),
            )  # fmt: skip
            values.append(float(scaled_psnr(scene.compared(result.mean[0]), scene.reference)))
        expected[name] = sum(values) / len(values)
    assert scores == pytest.approx(expected, abs=1e-2)  # levels are rounded to four digits
    assert mean(scores) == pytest.approx(sum(expected.values()) / 2, abs=1e-2)


def karras_levels(levels):
    from recon.registry.objects import make_grid

    return make_grid("karras", 2, *levels)


# --- the whole run -----------------------------------------------------------------------------------------


@pytest.fixture
def better(monkeypatch):
    """Scores without a network, the better the larger the spread, which is .5 in the recipe; what was asked for."""
    calls = []

    def scores(self, usual):
        calls.append(usual)
        return {name: 30 + usual.options["spread"] for name in self.settings.problems}

    monkeypatch.setattr(Objective, "scores", scores)
    monkeypatch.setattr("recon.benchmark.run.write_report", lambda *args, **more: [])
    return calls


def test_the_command_searches_compares_and_writes_presets(settings, folder, tmp_path, capsys, better):
    (tmp_path / "tune.yaml").write_text(yaml.safe_dump(settings(trials=4)))
    out = tmp_path / "out"
    words = ["tune", str(tmp_path / "tune.yaml"), "--data", str(folder), "--out", str(out)]
    assert main(words) == 0
    said = capsys.readouterr()
    assert "held out, holes" in said.out and "validation, mean" in said.out and "Found: euler" in said.out
    assert len(better) == 5  # the recipe and four trials
    lines = [json.loads(line) for line in (out / JOURNAL).read_text().splitlines()]
    assert lines and "pickle" not in (out / JOURNAL).read_text()
    # what was found is what the preset's method is, and another benchmark takes it
    best = max(better, key=lambda usual: usual.options["spread"])
    preset = read_benchmark(str(out / "tuned.yaml"))
    found = preset.methods["tuned"]
    assert found == method_of("daps", best, load_prior(str(folder / "tiny.safetensors")))
    assert preset.slices == (2,) and preset.crop == 16
    assert main(["benchmark", str(out / "tuned.yaml"), "--data", str(folder), "--dry-run"]) == 0
    assert capsys.readouterr().out.count("tuned") == 2
    assert main(["reconstruct", str(folder), "--config", str(out / "settings.yaml"), "--dry-run"]) == 2
    assert "sampler: daps" in capsys.readouterr().out
    # once more: nothing is measured again, nothing is written again
    kept = {path: path.read_bytes() for path in (*out.glob("*.yaml"), out / "held_out" / "rows.jsonl")}
    assert main(words) == 0 and len(better) == 5
    assert len(kept) == 3 and {path: path.read_bytes() for path in kept} == kept
    # more trials would write other presets in the place of these
    assert main([*words, "--trials", "5"]) == 2 and len(better) == 5
    assert "tuned.yaml exists already" in capsys.readouterr().err


def test_a_run_goes_on_where_it_stopped_and_ends_as_one_that_did_not(settings, folder, tmp_path, monkeypatch, better):  # fmt: skip
    made = read_tuning(settings(trials=12))
    whole = tune(made, tmp_path / "whole", folder, say=quiet)
    tried, better[:] = list(better), []
    scores, stop = Objective.scores, 6

    def interrupted(self, usual):
        if len(better) == stop:
            raise KeyboardInterrupt
        return scores(self, usual)

    monkeypatch.setattr(Objective, "scores", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tune(made, tmp_path / "parts", folder, say=quiet)
    with open(tmp_path / "parts" / JOURNAL, "a") as file:
        file.write('{"op_code": 4, "tor')  # as a process that was killed leaves it
    stop = -1
    parts = tune(made, tmp_path / "parts", folder, say=quiet)
    assert better == tried
    assert parts.found == whole.found and parts.held_out == whole.held_out
    texts = [(tmp_path / name / "tuned.yaml").read_text().replace(name, "") for name in ("whole", "parts")]
    assert texts[0] == texts[1]


def test_two_runs_share_a_folder(settings, folder, tmp_path, better, monkeypatch):
    """The second takes the trials that the first is not at; what the first holds it leaves."""
    made = read_tuning(settings(trials=4))
    scores, held, ready = Objective.scores, threading.Event(), threading.Event()

    def waiting(self, usual):
        if threading.current_thread() is not threading.main_thread() and len(better) > 0:
            ready.set()
            assert held.wait(20)
        return scores(self, usual)

    monkeypatch.setattr(Objective, "scores", waiting)
    first = threading.Thread(target=tune, args=(made, tmp_path / "out", folder), kwargs={"say": quiet})
    first.start()
    try:
        assert ready.wait(20)
        second = tune(made, tmp_path / "out", folder, say=quiet)
        assert second.elsewhere == 1 and second.found is None and len(better) == 4
    finally:
        held.set()
        first.join(30)
    assert len(better) == 5 and (tmp_path / "out" / "tuned.yaml").exists()


def test_a_trial_that_diverges_is_kept_without_a_score(settings, folder, tmp_path, monkeypatch):
    said = []

    def scores(self, usual):
        if usual != self.settings.recipe:
            raise SamplingError("DAPS diverged.")
        return {name: 30.0 for name in self.settings.problems}

    monkeypatch.setattr(Objective, "scores", scores)
    made = read_tuning(settings())
    result = tune(made, tmp_path / "out", folder, say=said.append)
    assert result.found is None and not result.written and not (tmp_path / "out" / "tuned.yaml").exists()
    assert "DAPS diverged." in said[1] and "No trial of 3 was better" in said[-1]


# --- what is refused before any work -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sampler": "deepinv-dps"}, "no sampler of this project"),
        ({"sampler": "prior", "search": None}, "Nothing is known to be searched of the sampler prior"),
        ({"search": {}}, "Nothing is searched"),
        ({"search": {"options": {"sprad": [1, 2]}}}, 'no setting "sprad"'),
        ({"search": {"options": {"spread": {"low": -1.0, "high": 1.0}}}}, "spread is -1.0"),
        ({"search": {"options": {"kernel": ["gaussian", "box"]}}}, "box"),
        ({"search": {"options": {"spread": {"low": 2, "high": 1}}}}, "not below"),
        ({"search": {"solver": ["euler", "eular"]}}, "eular"),
        ({"search": {"highest": {"low": 1, "high": 9}, "lowest": {"low": 1, "high": 2}}}, "Separate"),
        ({"trials": 0}, "trials is 0"),
        ({"problems": {"a": {**HOLES, "inputs": ["x.npz"]}}}, "A problem has inputs"),
        ({"sampler": "stsl"}, 'no setting "spread"'),
    ],
)
def test_settings_that_cannot_be_used_are_refused(settings, changes, said):
    with pytest.raises(ConfigError, match=said):
        read_tuning(settings(**changes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"held_out": {"inputs": ["slices.npz"], "slices": [1]}}, "held out as slices.npz, slice 1"),
        ({"crop": 21}, "cannot be cropped"),
        ({"held_out": {"inputs": ["slices.npz"], "slices": [9]}}, "no such slices"),
        ({"problems": {"a": {**HOLES, "sigma": 0.0}}}, "DAPS was given measurements with sigma 0"),
        ({"sampler": "stsl", "calls": 1, "search": None}, "was given 1 network calls"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_the_first_network_call(settings, folder, tmp_path, changes, said, better):  # fmt: skip
    with pytest.raises(ConfigError, match=said):
        tune(read_tuning(settings(**changes)), tmp_path / "out", folder, say=quiet)
    assert not better and not (tmp_path / "out").exists()


def test_a_journal_of_others_is_refused(settings, folder, tmp_path):
    (tmp_path / JOURNAL).write_text("no trial\nat all\n")
    with pytest.raises(OutputError, match="no journal of trials"):
        tune(read_tuning(settings()), tmp_path, folder, say=quiet)


def test_without_optuna_the_line_that_installs_it_is_said(settings, folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"pip install 'recon-posterior\[tune\]'"):
        tune(read_tuning(settings()), tmp_path / "out", folder, say=quiet)


def test_a_dry_run_shows_what_is_searched(settings, folder, tmp_path, capsys):
    (tmp_path / "tune.yaml").write_text(yaml.safe_dump(settings()))
    words = ["tune", str(tmp_path / "tune.yaml"), "--data", str(folder), "--out", str(tmp_path / "out")]
    assert main([*words, "--dry-run"]) == 0
    assert "spread: 0.1 to 2, log" in capsys.readouterr().out and not (tmp_path / "out").exists()
