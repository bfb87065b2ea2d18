"""Nothing in a step waits for the device: every solver, and DDS with its conjugate gradients, on tensors without values.

``FakeTensorMode`` runs the real code on tensors that have shape, dtype and device, but no numbers: who
asks for a number (``.item()``, ``bool``, boolean indexing) raises. No GPU is needed.
"""

from __future__ import annotations

from collections import deque
from itertools import pairwise

import pytest
import torch
from fake_cuda import LEVELS, Crossing, Given, StayThere, empty, half, moved
from torch import Tensor
from torch._subclasses import FakeTensorMode

import operators as op
import recon
from recon.posteriors import DDS
from recon.posteriors.base import Posterior
from recon.state import Estimate


@pytest.mark.parametrize(
    "waiting",
    [
        lambda x: x.sum().item(),
        lambda x: bool((x > 0).all()),
        lambda x: x[x > 0],
        lambda x: torch.equal(x, x),
        lambda x: x.cpu(),
        lambda x: torch.tensor([1.0, 2.0], device=x.device),
    ],
    ids=["item", "bool", "boolean index", "equal", "to the host", "from the host"],
)
def test_who_waits_is_found(waiting):
    with FakeTensorMode(), StayThere(), pytest.raises((Crossing, RuntimeError)):
        waiting(empty(torch.float32))


@pytest.mark.parametrize("dtype", [torch.complex64, torch.float32], ids=["complex", "real"])
@pytest.mark.parametrize("name", recon.SOLVERS)
def test_no_step_waits(name, dtype):
    with FakeTensorMode(), StayThere():
        walked = Posterior(half).run(recon.SOLVERS[name](), LEVELS, empty(dtype), Given(0, (0, 1)))
        x = deque(walked, maxlen=1)[0].x
    assert x.device.type == "cuda" and x.dtype == dtype and x.shape == (2, 1, 8, 8)


def walked_bare(solver, x: Tensor) -> Tensor:
    """All steps of `LEVELS`, as `walk` takes them."""

    def see(x: Tensor, sigma: float) -> Estimate:
        return Estimate.keep_state(x, sigma, half(x, sigma))

    def draw(like: Tensor, stream: str = "step") -> Tensor:
        return torch.ones_like(like)

    past = ()
    for sigma, target in pairwise(LEVELS):
        step = solver.step(see, x, sigma, target, past, draw)
        x, past = step.mean + step.std * draw(step.mean), step.past
    return x


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("euler", {}),
        ("ddim", {"eta": 1.0}),
        ("heun", {}),
        ("dpm++2m", {}),
        ("unipc3", {}),
        ("deis-t3", {}),
        ("sde-dpm++2m", {}),
    ],
)
def test_steps_compile_into_one_graph(name, options):
    """``fullgraph`` allows no break, so no number is fetched and no branch depends on one."""
    torch.compiler.reset()
    solver, x = recon.SOLVERS[name](**options), torch.ones(2, 1, 8, 8, dtype=torch.complex64)
    compiled = torch.compile(lambda x: walked_bare(solver, x), backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), walked_bare(solver, x))


@pytest.mark.parametrize("solver", ["renoise", "heun", "unipc3"])
@pytest.mark.parametrize("keep", ["noise", "state"])
@pytest.mark.parametrize("mask", [torch.arange(8) % 2, torch.eye(8)], ids=["columns", "any mask"])
@pytest.mark.parametrize("coils", [0, 3], ids=["one coil, closed form", "conjugate gradients"])
def test_dds_does_not_wait(coils, mask, keep, solver):
    """What an operator finds out once (`MRI.whole_columns`) it finds before the walk."""
    maps = torch.ones(coils, 8, 8, dtype=torch.complex64) if coils else None
    A = op.MRI(mask.float(), maps, shape=None if coils else (8, 8))
    x = torch.ones(2, 1, 8, 8, dtype=torch.complex64)
    sampler = DDS(half, recon.Problem(A, A(x), 1.0), keep=keep)
    sampler.denoise(x, 1.0)
    with FakeTensorMode(allow_non_fake_inputs=True):
        there = DDS(half, moved(sampler.problem), keep=keep)
        with StayThere():
            walked = there.run(recon.SOLVERS[solver](), LEVELS, empty(torch.complex64), Given(0, (0, 1)))
            last = deque(walked, maxlen=1)[0]
    assert last.x.device.type == "cuda"
