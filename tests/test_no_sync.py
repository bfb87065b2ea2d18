"""Nothing in a step waits for the device: every solver, and DDS with its conjugate gradients, on tensors without values.

``FakeTensorMode`` runs the real code on tensors that have shape, dtype and device, but no numbers: who
asks for a number (``.item()``, ``bool``, boolean indexing) raises. No GPU is needed.
"""

from __future__ import annotations

import copy
from collections import deque
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

import operators as op
import recon
from recon.noise import Noise
from recon.posteriors import DDS
from recon.posteriors.base import Posterior
from recon.state import Estimate

COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
LEVELS = [3.0, 1.6, 1.0, 0.55, 0.3, 0.1, 0.0]


class Crossing(Exception):
    """A tensor went from one device to another: the host waits for that too."""


class StayThere(TorchDispatchMode):
    """Raises `Crossing` for copies between devices, which tensors without values would allow."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        devices = {t.device.type for t in tree_leaves((args, out)) if isinstance(t, Tensor)}
        if func in COPIES and len(devices) > 1:
            raise Crossing(f"{func} between {' and '.join(sorted(devices))}")
        return out


class Given(Noise):
    """Noise that is there already."""

    def __call__(self, like: Tensor, step: int, stream: str = "step") -> Tensor:
        return torch.ones_like(like)


def half(x: Tensor, sigma: float) -> Tensor:
    return 0.5 * x


def empty(dtype: torch.dtype) -> Tensor:
    return torch.empty(2, 1, 8, 8, dtype=dtype, device="cuda")


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


def moved(thing: Any) -> Any:
    """A sampler, its problem and its operator with every tensor, those computed once too, on the device."""
    if isinstance(thing, Posterior | recon.Problem | op.Operator):
        other = copy.copy(thing)
        vars(other).update({key: moved(value) for key, value in vars(thing).items()})
        return other
    return tree_map_only(Tensor, lambda t: t.to("cuda"), thing)


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
