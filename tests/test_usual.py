"""A sampler's name stands for its recipe: options, solver and levels; what the caller names goes first."""

from __future__ import annotations

import pytest
import torch

import operators as op
import recon
from recon.benchmark.specs import read_benchmark
from recon.errors import ConfigError
from recon.grids import karras
from recon.posteriors import DDS, POSTERIORS
from recon.posteriors.usual import PAPER, Usual
from recon.priors import Gaussian
from recon.registry.objects import make_solver, sampler_class

NAMES = [name for name in POSTERIORS if name != "prior"]


def problem(scale: float = 1.0) -> recon.Problem:
    mask = torch.tensor([[1, 0, 1], [0, 1, 1]])
    y = torch.tensor([[[[0.7, 0.0, -0.3], [0.0, 0.5, 0.1]]]], dtype=torch.float64)
    return recon.Problem(op.Inpainting(mask), scale * y, 0.1 * scale)


def prior(scale: float = 1.0) -> Gaussian:
    return Gaussian(torch.zeros(1, 2, 3, dtype=torch.float64), scale**2)


def drawn(posterior, scale: float = 1.0, **given) -> torch.Tensor:
    given = {"steps": 6, "samples": 3, **given}
    return recon.sample(problem(scale), prior(scale), posterior, **given).samples


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_its_recipe_written_out(name):
    usual = sampler_class(name).usual
    high, low = usual.levels(prior())
    written = drawn(
        POSTERIORS[name](None, problem(), **usual.options),
        solver=make_solver(usual.solver, usual.solver_options),
        grid=recon.registry.objects.make_grid(usual.grid, 6, high, low),
    )
    assert torch.equal(drawn(name), written)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_knows_no_unit(name):
    """Images, noise and prior in other units: the samples are the same in those units, but for the eps of Adam."""
    torch.testing.assert_close(drawn(name, 8.0) / 8.0, drawn(name), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["dds", "ddnm", "dps", "pigdm"])
def test_the_papers_form_is_the_constructors_own(name):
    assert torch.equal(
        drawn(name, form="paper"), drawn(POSTERIORS[name](), solver="dpm++2m", grid=karras(6, 80.0, 0.002))
    )


def test_what_the_caller_names_goes_first():
    assert torch.equal(
        drawn("dds", solver="euler", options={"steps": 2}, grid=[3.0, 1.0, 0.0]),
        drawn(DDS(steps=2), solver="euler", grid=[3.0, 1.0, 0.0]),
    )


def test_levels_stay_inside_what_a_prior_was_trained_for():
    narrow = prior()
    narrow.sigma_min, narrow.sigma_max = 0.1, 3.0
    assert Usual(highest=5.0, lowest=0.01).levels(narrow) == (3.0, 0.1)
    assert Usual(highest=5.0, lowest=0.01).levels(prior()) == (5.0, 0.01)
    assert PAPER.levels(narrow) == (3.0, 0.1)
    assert Usual(highest=5.0, lowest=0.01).levels(lambda x, sigma: x) == (80.0, 0.002)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"posterior": "dds", "form": "papers"}, "form"),
        ({"posterior": "dds", "options": {"stepz": 3}}, "stepz"),
        ({"posterior": DDS(), "options": {"steps": 3}}, "as an object"),
    ],
)
def test_wrong_forms_and_options_are_refused(given, said):
    with pytest.raises(ConfigError, match=said):
        drawn(**given)


def test_a_benchmark_takes_the_recipe_where_nothing_is_said():
    config = {"inputs": ["x.npy"], "problems": {"p": {"operator": "denoising", "sigma": 0.1}}}
    methods = {"plain": {"sampler": "dds"}, "paper": {"sampler": "dds", "form": "paper"}}
    read = read_benchmark(config | {"methods": methods})
    assert read.methods["plain"].usual == DDS.usual
    assert read.methods["paper"].usual == PAPER
