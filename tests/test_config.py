"""Names, YAML and plugins become objects, and what is misspelt is refused with the nearest name."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

import operators as op
from recon import Problem, sample
from recon.benchmark.specs import read_benchmark
from recon.errors import ConfigError
from recon.io.resources import preset, presets
from recon.jobs.list import samplers, solvers
from recon.posteriors import POSTERIORS
from recon.registry import configuration, objects, plugins, recipe
from recon.registry.recipe import Recipe
from recon.runtime.runtime import Runtime
from recon.solvers import SOLVERS, Euler, Solver
from recon.training.autoencoder import AutoencoderTraining
from recon.training.prior import PriorTraining
from recon.tuning.settings import read_tuning


@dataclass(frozen=True)
class Settings:
    steps: int = 5
    widths: tuple[int, ...] = (1,)
    more: dict = field(default_factory=dict)


def test_keys_are_keyword_arguments():
    made = configuration.construct(Settings, {"steps": 7, "widths": [2, 3], "more": {"a": [1]}})
    assert made == Settings(7, (2, 3), {"a": [1]})


def test_a_misspelt_key_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match='no setting "stesp"') as caught:
        configuration.construct(Settings, {"stesp": 7})
    assert '"steps"' in caught.value.do


def test_a_missing_key_is_named():
    with pytest.raises(ConfigError, match="needs name"):
        configuration.construct(PriorTraining, {"data": [], "length": {"steps": 1}})


def test_yaml_is_read_and_numbers_are_numbers(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("sigma_y: 1e-6\nsolver_options: {eta: 5E-1}\nprior: x1e3\n")
    assert configuration.read_config(file) == {
        "sigma_y": 1e-6,
        "solver_options": {"eta": 0.5},
        "prior": "x1e3",
    }


@pytest.mark.parametrize("text", ["a: [1", "- 1\n- 2\n", "just words"])
def test_what_is_no_mapping_is_refused(tmp_path, text):
    file = tmp_path / "a.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"a\.yaml"):
        configuration.read_config(file)


def test_presets_that_ship_are_valid():
    assert {"demo", "quick", "thorough", "brain-mri"} <= set(presets())
    for name in presets():
        settings = configuration.read_config(name)
        if "length" in settings:
            kind = AutoencoderTraining if settings.pop("kind", "") == "autoencoder" else PriorTraining
            configuration.construct(kind, settings)
        elif "validation" in settings and "trials" in settings:
            read_tuning(settings)
        elif "problems" in settings:
            read_benchmark(settings)
        else:
            settings.pop("mask", None)
            recipe.make_recipe(settings)
    assert configuration.read_config("quick") == configuration.read_config(preset("quick"))


def test_an_unknown_preset_answers_with_the_nearest():
    with pytest.raises(ConfigError) as caught:
        configuration.read_config("quik")
    assert '"quick"' in caught.value.do


def test_a_recipe_is_checked_before_anything_runs():
    assert recipe.make_recipe({"solver": "ddim", "solver_options": {"eta": 0.5}}).solver_options == {
        "eta": 0.5
    }
    for settings, said in [
        ({"solver": "dimm"}, "ddim"),
        ({"sampler": "dsd"}, "dds"),
        ({"solver_options": {"etta": 1}}, "eta"),
        ({"sampler_options": {"weigth": 1}}, "weight"),
        ({"step": 3}, "steps"),
        ({"steps": "many"}, "whole number"),
        ({"steps": 0}, "at least 1"),
        ({"start": "nois"}, "noise"),
    ]:
        with pytest.raises(ConfigError, match=said):
            recipe.make_recipe(settings)


def test_options_of_the_command_line(tmp_path):
    np.save(tmp_path / "k.npy", np.ones((2, 3), np.float32))
    found = configuration.parse_options(["a=1", "b.c=x", "d=[1, 2]", "e=1e-3", f"k={tmp_path}/k.npy"])
    assert {key: value for key, value in found.items() if key != "k"} == {
        "a": 1,
        "b": {"c": "x"},
        "d": [1, 2],
        "e": 1e-3,
    }
    assert torch.equal(found["k"], torch.ones(2, 3))
    with pytest.raises(ConfigError, match="key=value"):
        configuration.parse_options(["a"])
    with pytest.raises(ConfigError, match=r"none\.npy"):
        configuration.parse_options(["a=none.npy"])


def test_an_option_that_names_a_picture_is_the_array_in_it(tmp_path):
    pixels = np.array([[0, 255, 255], [255, 0, 0]], np.uint8)
    for name in ("mask.png", "mask.TIF"):
        Image.fromarray(pixels).save(tmp_path / name)
        found = configuration.parse_options([f"mask={tmp_path}/{name}"])["mask"]
        assert found.shape == (2, 3) and torch.equal(found.bool(), torch.from_numpy(pixels > 0))
    for name in ("none.png", "none.jpg"):
        with pytest.raises(ConfigError, match=rf"mask=.*{name}.* does not exist"):
            configuration.parse_options([f"mask={tmp_path}/{name}"])
    assert configuration.files_of_options(["a=1", "mask=m.PNG", "k=k.npy"]) == ["m.PNG", "k.npy"]


@pytest.mark.parametrize(
    "pairs", [["a=1", "a=2"], ["a=1", "a.b=2"], ["a.b=1", "a=2"], [".".join("a" * 99) + "=1"]]
)
def test_an_option_is_given_once_and_at_one_depth(pairs):
    with pytest.raises(ConfigError, match="cannot be set"):
        configuration.parse_options(pairs)


BOMB = "".join(f"{name}: &{name} [{', '.join([f'*{last}'] * 9)}]\n" for last, name in pairwise("abcdefghijk"))
HOSTILE = {
    "aliases that stand for a billion values": ("a: &a [x, x]\n" + BOMB, "alias"),
    "an alias inside itself": ("a: &a {b: *a}\n", "alias"),
    "20 000 brackets": ("a: " + "[" * 20_000 + "]" * 20_000, "levels inside"),
    "20 000 braces": ("a: " + "{b: " * 20_000, "levels inside"),
    "indented deeply": ("".join(" " * depth + "a:\n" for depth in range(500)), "levels inside"),
    "a key given twice": ("steps: 3\nsamples: 1\nsteps: 4\n", '"steps" is given twice'),
    "a key given twice further in": ("a: {b: 1, b: 2}\n", '"b" is given twice'),
    "a megabyte": ("a: " + "x" * 2**20, "characters"),
    "an object of Python": ("a: !!python/object/apply:os.getcwd []\n", "constructor"),
    "a number of 10 000 digits": ("a: " + "1" * 10_000, "digits"),
    "an impossible date": ("a: 2020-13-45\n", "month"),
}


@pytest.mark.parametrize("text, said", HOSTILE.values(), ids=HOSTILE)
def test_yaml_that_would_harm_is_refused_at_once(tmp_path, text, said):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    started = time.perf_counter()
    with pytest.raises(ConfigError) as caught:
        configuration.read_config(path)
    assert said in caught.value.why and "\n" not in caught.value.why
    value = text.removeprefix("a: ")
    if "\n" not in value or value.startswith("!!"):  # what can stand on a command line
        with pytest.raises(ConfigError) as caught:
            configuration.parse_options([f"a={value}"])
        assert said in caught.value.why
    assert time.perf_counter() - started < 2


def test_text_that_is_not_utf_8_is_no_configuration(tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"name: caf\xe9\n")
    with pytest.raises(ConfigError, match="cannot be read as a configuration"):
        configuration.read_config(tmp_path / "a.yaml")


def test_a_plugin_is_imported_under_its_name(tmp_path):
    (tmp_path / "my_plugin_a.py").write_text("class Thing:\n    pass\n")
    assert plugins.load_plugin(tmp_path / "my_plugin_a.py") == "my_plugin_a"
    assert plugins.find_object("my_plugin_a:Thing").__name__ == "Thing"
    with pytest.raises(ConfigError) as caught:
        plugins.find_object("my_plugin_a:Thin")
    assert '"Thing"' in caught.value.do or "Thing" in caught.value.why


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("my_plugin_b.py", "1 +", "failed"),
        ("torch.py", "", "name of a module"),
        ("my_plugin_c.txt", "", "not a .py"),
    ],
)
def test_a_plugin_that_cannot_be_imported_is_refused(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=said):
        plugins.load_plugin(tmp_path / name)


@pytest.fixture
def own_solvers():
    """What a test adds to the solvers is taken out again."""
    before = dict(SOLVERS)
    yield
    SOLVERS.clear()
    SOLVERS.update(before)


def test_a_solver_of_the_users_own(tmp_path, own_solvers):
    (tmp_path / "my_plugin_d.py").write_text(
        "from recon.solvers import Euler\n\nclass Mine(Euler):\n    pass\n"
    )
    plugins.load_plugin(tmp_path / "my_plugin_d.py")
    assert isinstance(recipe.make_recipe({"solver": "my_plugin_d:Mine"}), Recipe)
    with pytest.raises(ConfigError, match="cannot be imported"):
        recipe.make_recipe({"solver": "no_such_module:Mine"})


# --- what a user's own object lacks has a default ------------------------------------------------------

OWN = """
from recon import Step

class Step1:
    def step(self, denoise, x, sigma, target, past, draw):
        est = denoise(x, sigma)
        return Step(est.x0 + target * est.eps if target else est.x0, 0.0, est)

class Slotted(Step1):
    __slots__ = ("gain",)
    def __init__(self, gain=2.0):
        self.gain = gain

class Shrunk:
    calls = 2
    def denoise(self, x, sigma, memo=None):
        from recon.state import Estimate
        return Estimate.keep_state(x, sigma, 0.5 * (self.prior(x, sigma) + self.prior(x, sigma)))

class Nothing:
    pass

def smooth(x, sigma):
    return x / (1 + sigma**2)

def make_smooth():
    return smooth

thing = 3
"""


@pytest.fixture
def own(tmp_path, own_solvers):
    before = dict(POSTERIORS)
    path = tmp_path / "my_own.py"
    path.write_text(OWN)
    plugins.load_plugin(path)
    yield
    plugins.PLUGINS.clear()
    sys.modules.pop("my_own")
    POSTERIORS.clear()
    POSTERIORS.update(before)


def problem() -> Problem:
    return Problem(op.Inpainting(torch.eye(4), channels=1), torch.eye(4)[None, None], 0.1)


@pytest.mark.parametrize("qualified", ["", "my_own:"])
@pytest.mark.parametrize("solver", ["Step1", "Slotted"])
def test_a_solver_needs_a_step_only(own, solver, qualified):
    made = objects.make_solver(qualified + solver, {"gain": 3.0} if solver == "Slotted" else {})
    assert (
        isinstance(made, Solver) and type(made).__name__ == solver and (made.calls(5), made.order) == (5, 1)
    )
    assert getattr(made, "gain", 3.0) == 3.0
    bare = plugins.find_object(solver)()
    for given in (made, bare):
        result = sample(
            problem(), plugins.find_object("smooth"), "prior", given, steps=5, samples=2, grid="karras"
        )
        assert result.network_calls == 5
    assert isinstance(recipe.make_recipe({"solver": qualified + solver}), Recipe)
    assert solver in solvers()[1][-1][0]
    with pytest.raises(ConfigError, match="not a solver"):
        objects.make_solver("my_own:Nothing")


@pytest.mark.parametrize("name", ["Shrunk", "my_own:Shrunk"])
def test_a_sampler_needs_one_seam_only(own, name):
    settings = recipe.make_recipe({"sampler": name, "solver": "Step1", "steps": 4})
    prior = objects.make_prior("smooth")
    sampler, solver = recipe.build(settings, prior)
    assert sampler.network_calls(solver, 4) == 8
    result = sample(problem(), prior, sampler, solver, 4, samples=2)
    assert result.network_calls == 8
    assert next(row for row in samplers()[1] if row[0] == name)[1] == "2"
    with pytest.raises(ConfigError, match="not a sampler"):
        objects.make_sampler("my_own:Nothing", prior)
    with pytest.raises(ConfigError, match="no sampler named"):
        objects.make_sampler("Shrink", prior)


@pytest.mark.parametrize("name", ["smooth", "my_own:smooth", "make_smooth", "my_own:make_smooth"])
def test_a_prior_needs_to_be_called_only(own, name):
    prior = objects.make_prior(name)
    assert prior is plugins.find_object("my_own:smooth")
    for runtime in (Runtime(device="cpu"), Runtime(device="cpu", chunk=1)):
        ready = runtime.prepare(prior)
        assert torch.equal(ready(torch.ones(2, 1, 4, 4), 1.0), torch.full((2, 1, 4, 4), 0.5))
    with pytest.raises(ConfigError, match="not a prior"):
        objects.make_prior("my_own:thing")


def test_a_name_that_ships_goes_before_a_plugins(own):
    sys.modules["my_own"].euler = plugins.find_object("Step1")
    assert type(objects.make_solver("euler")) is Euler


def test_a_module_in_the_current_folder_is_found_and_shadows_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [part for part in sys.path if part])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here_only.py").write_text("import beside_it\nthing = beside_it.thing\n")
    (tmp_path / "beside_it.py").write_text("thing = 5\n")
    (tmp_path / "colorsys.py").write_text("raise RuntimeError('the wrong one')\n")
    assert plugins.find_object("here_only:thing") == 5
    assert plugins.find_object("colorsys:rgb_to_hls") and sys.path[-1] == str(tmp_path)
    with pytest.raises(ConfigError, match="cannot be imported") as caught:
        plugins.find_object("not_here:thing")
    assert "--plugin" in caught.value.do
    with pytest.raises(ConfigError, match="does not say where"):
        plugins.find_object("thing")


def test_an_unknown_prior_names_those_that_ship():
    with pytest.raises(ConfigError, match='no prior named "brian"'):
        objects.make_prior("brian")
