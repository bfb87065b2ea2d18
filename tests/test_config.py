"""Names, YAML and plugins become objects, and what is misspelt is refused with the nearest name."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from recon.benchmark.specs import read_benchmark
from recon.errors import ConfigError
from recon.io.resources import preset, presets
from recon.registry import configuration, objects, plugins, recipe
from recon.registry.recipe import Recipe
from recon.solvers import SOLVERS
from recon.training.autoencoder import AutoencoderTraining
from recon.training.prior import PriorTraining


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
        ("my_plugin_c.txt", "", "no .py"),
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


def test_an_unknown_prior_names_those_that_ship():
    with pytest.raises(ConfigError, match='no prior named "brian"'):
        objects.make_prior("brian")
