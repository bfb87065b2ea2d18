"""deepinv's diffusion samplers on the prior, operator and measurements of a scene.

Every peer is ``peer(scene, calls, samples, seed, **options) -> Answer``, all samples in one batch.
``calls=None`` keeps deepinv's default number of steps; else ``calls`` is the exact number of network calls
per sample, and the steps follow from it. Calls are counted at the prior; vector-Jacobian products
are not calls. Options are those of deepinv's constructors, with their defaults. deepinv is imported
when a peer is called.

Its samplers expect images in [0, 1]: pictures in colour are given as they are, with all of deepinv's defaults; for other
images each peer says what it does about that. They call the network
in float32 only, and at noise levels above the largest of its training (152 at the start of the
variance-preserving schedule), as they would for any user of deepinv.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor

from operators.base import Identity, Linear
from operators.complexify import Complexified
from operators.mri import MRI
from operators.physics import from_two_channels, to_precision, two_channels
from operators.pixels import Inpainting

from ...errors import ConfigError
from ..answer import Answer
from ..scene import Scene
from .classical import unscaled

DEMO_CALLS = 100  # in the demonstration of deepinv's PosteriorDiffusion, which has no default of its own


@dataclass
class Job:
    """A scene as deepinv sees it: real channels, float32, one row per sample."""

    physics: Any  # with GaussianNoise(sigma) as its noise model
    y: Tensor
    sigma: float
    colour: bool  # pictures with values from 0 to 1, as deepinv expects them
    denoiser: Any
    shape: tuple[int, ...]  # of the images, the batch axis included
    rng: torch.Generator

    @property
    def device(self) -> torch.device:
        """Where the measurements are."""
        return self.y.device


def dps(scene: Scene, calls: int | None, samples: int, seed: int, **options: Any) -> Answer:
    """``deepinv.sampling.DPS``: default 1000 time steps, hence 999 calls, and ``weight=1``.

    One call per step. But for pictures in colour the map to [-1, 1] is off, and the clipping of the denoised image.
    """

    def run(job: Job) -> Tensor:
        model = diffusion(job, calls, options)
        if not job.colour:
            model.data_fidelity.clip = None
        return model(job.y, job.physics, x_init=job.shape)

    return drawn(scene, calls, samples, seed, run, options)


def pigdm(scene: Scene, calls: int | None, samples: int, seed: int, **options: Any) -> Answer:
    """``PosteriorDiffusion`` with ``PiGDMDataFidelity``, on DPS's schedule and solver; default 100 calls.

    One call and one vector-Jacobian product per step. But for pictures in colour the map to [-1, 1] is off.
    """
    from deepinv.sampling import PiGDMDataFidelity

    return guided(scene, calls, samples, seed, PiGDMDataFidelity, options)


def mmps(scene: Scene, calls: int | None, samples: int, seed: int, **options: Any) -> Answer:
    """``PosteriorDiffusion`` with ``MomentMatchingDataFidelity``, as `pigdm`.

    One call per step, and at most 2 + ``cg_max_iter`` vector-Jacobian products (5 by default).
    """
    from deepinv.sampling import MomentMatchingDataFidelity

    return guided(scene, calls, samples, seed, MomentMatchingDataFidelity, options)


def guided(
    scene: Scene, calls: int | None, samples: int, seed: int, kind: Any, options: dict[str, Any]
) -> Answer:
    """``PosteriorDiffusion`` with a data fidelity of class ``kind``, which takes its own among the options."""
    of_fidelity = {k: options[k] for k in ("weight", "clip", "cg_max_iter", "cg_tol") if k in options}
    rest = {k: value for k, value in options.items() if k not in of_fidelity}

    def run(job: Job) -> Tensor:
        model = diffusion(job, DEMO_CALLS if calls is None else calls, rest)
        model.data_fidelity = kind(denoiser=job.denoiser, **of_fidelity)
        return model(job.y, job.physics, x_init=job.shape)

    return drawn(scene, calls, samples, seed, run, options)


def diffusion(job: Job, calls: int | None, options: dict[str, Any]) -> Any:
    """``DPS``, which is a ``PosteriorDiffusion`` whose schedule and solver have defaults.

    If the last noise level is 0, n time steps take n - 1 calls; else a last denoising makes them n.
    """
    from deepinv.sampling import DPS

    options = dict(options)
    if calls is not None:
        to_zero = options.get("schedule", "vp") == "vp" and options.get("solver", "ddpm") != "euler"
        options["num_steps"] = calls + 1 if to_zero else calls
    return DPS(job.denoiser, rng=job.rng, minus_one_one=job.colour, device=job.device, **options)


def ddrm(scene: Scene, calls: int | None, samples: int, seed: int, **options: Any) -> Answer:
    """``deepinv.sampling.DDRM``: levels from 1 to 0, default 100 of them, hence 99 calls (none at 0).

    It needs singular values, which inpainting, single-coil MRI and denoising have among deepinv's physics;
    raises `ConfigError` for other operators. It neither maps to [0, 1] nor clips.
    """
    core, _ = unscaled(scene.problem.A)
    if not decomposes(core):
        raise ConfigError(
            f"deepinv's DDRM was asked for {scene.problem.A!r}.",
            "It needs an operator with a singular value decomposition among deepinv's physics.",
            "Use it for inpainting, single-coil MRI or denoising, or choose another method.",
        )

    def run(job: Job) -> Tensor:
        import numpy as np
        from deepinv.sampling import DDRM

        levels = {} if calls is None else {"sigmas": np.linspace(1, 0, calls + 1)}
        return DDRM(job.denoiser, **levels | options)(job.y, job.physics)

    return drawn(scene, calls, samples, seed, run, options)


def diffpir(
    scene: Scene, calls: int | None, samples: int, seed: int, reach: float | None = None, **options: Any
) -> Answer:
    """``deepinv.sampling.DiffPIR``: one call per iteration, default 100.

    Its map from [0, 1] to [-1, 1] and its clipping cannot be switched off, so it is given images
    ``(x / reach + 1) / 2`` and their measurements ``(y / reach + A 1) / 2``, pictures in colour as they are. ``reach`` is by
    default the largest value, of either component, of the scene's start; beyond it deepinv clips.
    """
    if reach is None and not scene.colour:
        start = scene.start
        reach = float((torch.view_as_real(start) if start.is_complex() else start).abs().max())
    if reach is not None and not reach > 0:
        raise ConfigError(f"reach is {reach}.", "It is the largest value that an image may have, above 0.")

    def run(job: Job) -> Tensor:
        from deepinv.optim.data_fidelity import L2
        from deepinv.physics import GaussianNoise
        from deepinv.sampling import DiffPIR

        y, sigma, first = job.y, job.sigma, job.physics.A_adjoint(job.y)  # its default start
        if reach is not None:
            one = torch.ones(job.shape, device=job.device)
            y, sigma, first = (
                (y / reach + job.physics.A(one)) / 2,
                sigma / (2 * reach),
                (first / reach + 1) / 2,
            )
        job.physics.noise_model = GaussianNoise(sigma).to(job.device)
        job.denoiser.reach = reach
        steps = {} if calls is None else {"max_iter": calls}
        made = {"data_fidelity": L2(), "sigma": sigma, "device": job.device} | steps | options
        x = DiffPIR(job.denoiser, **made)(y, job.physics, x_init=first)
        return x if reach is None else reach * (2 * x - 1)

    return drawn(scene, calls, samples, seed, run, options if reach is None else options | {"reach": reach})


PEERS: dict[str, Callable[..., Answer]] = {
    "deepinv-dps": dps,
    "deepinv-ddrm": ddrm,
    "deepinv-diffpir": diffpir,
    "deepinv-pigdm": pigdm,
    "deepinv-mmps": mmps,
}


def drawn(
    scene: Scene,
    calls: int | None,
    samples: int,
    seed: int,
    run: Callable[[Job], Tensor],
    options: dict[str, Any],
) -> Answer:
    """The answer of ``run`` on the scene; the random numbers are a function of seed and scene alone.

    Some of deepinv's samplers draw from the global generator, others from the one they are given: both are
    seeded here, and the global state is restored.
    """
    if calls is not None and calls < 1:
        raise ConfigError(f"{calls} network calls were asked for.", do="Ask for at least one.")
    if samples < 1:
        raise ConfigError(f"samples is {samples}.", do="Ask for at least one.")
    device = scene.problem.y.device
    digest = blake2b(repr((seed, scene.index)).encode(), digest_size=8).digest()
    number = int.from_bytes(digest, "little") >> 1
    with warnings.catch_warnings(), torch.random.fork_rng([device] if device.type == "cuda" else []):
        warnings.simplefilter("ignore")
        torch.manual_seed(number)
        job = as_job(scene, samples, torch.Generator(device).manual_seed(number))
        started = time.monotonic()
        with torch.no_grad():
            channels = run(job)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
        seconds = time.monotonic() - started
    x = to_precision(from_two_channels(channels, *job.denoiser.kind), scene.start.dtype)
    notes: dict[str, float | str] = {
        name: value for name, value in options.items() if isinstance(value, (int, float, str))
    }
    return Answer(x, x.mean(0), job.denoiser.calls, seconds, notes=notes)


def as_job(scene: Scene, samples: int, rng: torch.Generator) -> Job:
    """The scene for deepinv, without the operator's scale; raises `ConfigError` without noise."""
    problem = scene.problem
    if not problem.sigma > 0:
        raise ConfigError(
            f"deepinv's samplers were asked for noise of {problem.sigma}.",
            "As they are configured here they need a noise level above 0.",
        )
    from deepinv.physics import GaussianNoise

    core, factor = unscaled(problem.A.to(torch.float32))
    y = (
        two_channels(to_precision(problem.y / factor, torch.float32))
        .repeat_interleave(samples, dim=0)
        .clone()
    )
    sigma = problem.sigma / abs(factor)
    physics = physics_of(core).to(y.device)
    physics.noise_model = GaussianNoise(sigma).to(y.device)
    kind = tuple(core.domain), core.complex_domain
    shape = tuple(two_channels(core._zeros(1, torch.float32, y.device)).shape[1:])
    return Job(physics, y, sigma, scene.colour, denoiser_class()(scene.prior, kind), (samples, *shape), rng)


def decomposes(A: Linear) -> bool:
    """Whether `physics_of` has singular values that DDRM can use."""
    core = A.inner if isinstance(A, Complexified) else A
    return isinstance(core, (Inpainting, Identity)) or (isinstance(core, MRI) and core.maps is None)


def physics_of(A: Linear) -> Any:
    """deepinv's own physics if it has this operator with singular values, as its users would choose; else ours, wrapped."""
    from deepinv import physics

    core = A.inner if isinstance(A, Complexified) else A
    shape = tuple(two_channels(A._zeros(1, torch.float32, A.device)).shape[1:])
    if isinstance(core, Inpainting):
        return physics.Inpainting(shape, mask=core.mask.float().expand(shape).clone(), device=A.device)
    if isinstance(core, MRI) and core.maps is None:
        return physics.MRI(mask=core.mask.float().expand(shape).clone(), device=A.device)
    if isinstance(core, Identity):
        return physics.Denoising()
    return A.as_deepinv()


@cache
def denoiser_class() -> type:
    """The class of the adapter, made when first needed, so that deepinv is not imported earlier."""
    from deepinv.models import Denoiser

    class PriorDenoiser(Denoiser):
        """A prior as a deepinv denoiser of real channels, which counts its calls.

        ``sigma`` is a number, or a tensor whose entries are equal; at 0 the image is returned as it is,
        without a call. With a ``reach``, images are ``(x / reach + 1) / 2``.
        """

        def __init__(self, prior: Any, kind: tuple[tuple[int, ...], bool]):
            super().__init__()
            self.prior, self.kind = prior, kind  # kind: shape of an image, and whether it is complex
            self.calls, self.reach = 0, None

        def forward(self, x: Tensor, sigma: Any, **_: Any) -> Tensor:
            levels = torch.as_tensor(sigma).detach().flatten().tolist()
            if max(levels) != min(levels):
                raise ConfigError(
                    f"deepinv asked for noise levels {levels} at once.", "A prior takes one at a time."
                )
            if levels[0] == 0:
                return x
            self.calls += 1
            if self.reach is None:
                return self.channels(x, levels[0])
            clean = self.channels(self.reach * (2 * x - 1), 2 * self.reach * levels[0])
            return (clean / self.reach + 1) / 2

        def channels(self, x: Tensor, sigma: float) -> Tensor:
            """The prior's estimate as real channels."""
            return two_channels(self.prior(from_two_channels(x, *self.kind), sigma)).to(x.dtype)

    return PriorDenoiser
