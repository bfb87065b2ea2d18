"""``recon bench samplers``: every sampler from start to end, beside its network and operator calls alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from operators.coils import rss
from operators.masks import make_mask
from operators.mri import MRI

from ..networks.load import build_prior, shipped
from ..networks.unet import UNet
from ..noise import Noise
from ..posteriors import DDS, POSTERIORS, Active, Ensemble, Posterior
from ..priors import Prior
from ..problem import Problem
from ..registry.objects import make_prior, make_sampler, make_solver
from ..registry.recipe import Recipe
from ..result import Result
from ..runtime.runtime import Runtime
from ..sampling import sample
from .memory import SIZE as MEMORY_SIZE
from .memory import Growth, memory_growth
from .replay import Recorded, noise_recorded, operators_recorded
from .timing import interleaved

SIZE, COILS, STEPS, BAR = 256, 8, 5, 1.10


@dataclass(frozen=True)
class Setup:
    """How one sampler is measured: built by ``make(prior, full)``, where ``full`` is k-space of every line."""

    make: Callable[[Prior, Tensor], Posterior]
    solver: str = "dpm++2m"
    steps: int = STEPS
    samples: int = 1
    coils: int = COILS


def active(prior: Prior, full: Tensor) -> Active:
    """Active DDS, from a quarter of the lines to five sixteenths."""
    return Active(DDS(prior), measure=lambda chosen: full * chosen, budget=full.shape[-1] * 5 // 16)


SPECIAL_SETUPS: dict[str, Setup] = {
    "ddrm": Setup(lambda prior, full: make_sampler("ddrm", prior), coils=1),  # it needs singular values
    "daps": Setup(lambda prior, full: make_sampler("daps", prior), steps=2),
    "smc": Setup(lambda prior, full: make_sampler("smc", prior), "ddpm", samples=4),
    "stsl": Setup(lambda prior, full: make_sampler("stsl", prior), "euler", steps=2),
    "ensemble of dds": Setup(lambda prior, full: Ensemble(DDS(prior)), "ddpm", samples=4),
    "active dds": Setup(active, samples=4),
}
SETUPS = {
    name: Setup(lambda prior, full, kind=kind: kind(prior)) for name, kind in POSTERIORS.items()
} | SPECIAL_SETUPS


@dataclass(frozen=True)
class SamplerCost:
    """Seconds of a run, of its network calls, its operator calls and its noise; ``calls`` counts them in words."""

    name: str
    size: int
    run: float
    network: float
    operators: float
    noise: float
    calls: str

    @property
    def ratio(self) -> float:
        """The run over its network and operator calls."""
        return self.run / (self.network + self.operators)

    @property
    def held(self) -> bool:
        """Whether the ratio is within the bar."""
        return self.ratio <= BAR

    def __str__(self) -> str:
        return (
            f"{self.name}, {self.size} x {self.size}: {1e3 * self.run:.0f} ms against {1e3 * self.network:.0f} ms of network and "
            f"{1e3 * self.operators:.0f} ms of operators ({self.calls}), {self.ratio:.2f} x "
            f"(bar {BAR:.2f}: {'held' if self.held else 'missed'}); noise {1e3 * self.noise:.0f} ms of it"
        )


def product_cost(repetitions: int) -> list[SamplerCost]:
    """20 steps of DDS with the default recipe, on k-space of 8 coils."""
    recipe = Recipe()
    setup = Setup(lambda prior, full: DDS(prior, **recipe.sampler_options), recipe.solver, 20)
    return [cost("DDS, 20 steps", setup, network(), max(3, repetitions // 6), 320)]


def sampler_costs(repetitions: int, size: int = SIZE) -> Iterator[SamplerCost | Growth]:
    """Every registered sampler, an ensemble and active acquisition, on k-space of 8 coils (DDRM: of one); memory."""
    prior = network()
    for name, setup in SETUPS.items():
        yield cost(name, setup, prior, max(3, repetitions // 5), size)
    yield from memory_growth(prior, coils(COILS, min(size, MEMORY_SIZE)))


def cost(name: str, setup: Setup, prior: Prior, repetitions: int, size: int) -> SamplerCost:
    """The cost of one sampler: its run, its network calls, its operator calls and its noise, measured in turns."""
    mask = make_mask("equispaced-fraction", (size, size), 4).float()
    A = MRI(mask, coils(setup.coils, size) if setup.coils > 1 else None)
    truth = Noise(0)(torch.zeros(1, 1, size, size, dtype=torch.complex64), 0)
    full = MRI(torch.ones_like(mask), A.maps).forward(truth)

    def run(prior: Any) -> Result:
        problem = Problem(A, full * mask, 0.01)
        return sample(
            problem, prior, setup.make(prior, full), make_solver(setup.solver), setup.steps, setup.samples
        )

    counted = Recorded(prior)
    with operators_recorded(MRI) as products, noise_recorded() as drawn:
        run(counted)
    total, calls, by_operators, by_noise = interleaved(
        lambda: run(prior),
        counted.replay,
        torch.no_grad()(products.replay),
        drawn.replay,
        repetitions=repetitions,
    )
    text = f"{len(counted.calls)} calls, {sum(counted.vjps)} backward; {products}"
    return SamplerCost(name, size, total, calls, by_operators, by_noise, text)


def network() -> Prior:
    """The prior that ships, or a network of its shape with random weights, which takes the same time."""
    if "brain-mri" in shipped():
        return Runtime(device="cpu").prepare(make_prior("brain-mri"))
    card = dict(sigma_data=0.3, sigma_min=0.002, sigma_max=10.0, complex_images=True)
    plain = UNet(channels=2, widths=(48, 96, 128), blocks=2)
    made = build_prior(card | {"network": {"kind": "UNet", **plain.options}}, dict(plain.state_dict()))
    return Runtime(device="cpu").prepare(made)


def coils(count: int, size: int) -> Tensor:
    """Smooth sensitivity maps (count, size, size) of unit norm over the coils."""
    line = torch.linspace(-1, 1, size)
    angle = 2 * torch.pi * torch.arange(count)[:, None, None] / count
    y, x = line[:, None] - angle.sin(), line - angle.cos()
    maps = torch.polar(torch.exp(-(y.square() + x.square()) / 2), (y + x) * 2)
    return maps / rss(maps)
