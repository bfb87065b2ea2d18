"""``recon bench samplers``: every sampler from start to end beside its own network and operator calls, bare."""

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
class Case:
    """One sampler as it is measured: ``make(prior, full)``, ``full`` being k-space of every line."""

    make: Callable[[Prior, Tensor], Posterior]
    solver: str = "dpm++2m"
    steps: int = STEPS
    samples: int = 1
    coils: int = COILS


def active(prior: Prior, full: Tensor) -> Active:
    """From a quarter of the lines to five sixteenths."""
    return Active(DDS(prior), measure=lambda chosen: full * chosen, budget=full.shape[-1] * 5 // 16)


OWN: dict[str, Case] = {
    "ddrm": Case(lambda prior, full: make_sampler("ddrm", prior), coils=1),  # it needs singular values
    "daps": Case(lambda prior, full: make_sampler("daps", prior), steps=2),
    "smc": Case(lambda prior, full: make_sampler("smc", prior), "ddpm", samples=4),
    "stsl": Case(lambda prior, full: make_sampler("stsl", prior), "euler", steps=2),
    "ensemble of dds": Case(lambda prior, full: Ensemble(DDS(prior)), "ddpm", samples=4),
    "active dds": Case(active, samples=4),
}
CASES = {name: Case(lambda prior, full, kind=kind: kind(prior)) for name, kind in POSTERIORS.items()} | OWN


@dataclass(frozen=True)
class SamplerCost:
    """Seconds of a run, of its network calls and of its operator calls; ``asked`` names them."""

    name: str
    size: int
    run: float
    network: float
    operators: float
    noise: float
    asked: str

    @property
    def ratio(self) -> float:
        return self.run / (self.network + self.operators)

    @property
    def held(self) -> bool:
        return self.ratio <= BAR

    def __str__(self) -> str:
        return (
            f"{self.name}, {self.size} x {self.size}: {1e3 * self.run:.0f} ms against {1e3 * self.network:.0f} ms of network and "
            f"{1e3 * self.operators:.0f} ms of operators ({self.asked}), {self.ratio:.2f} x "
            f"(bar {BAR:.2f}: {'held' if self.held else 'missed'}); noise {1e3 * self.noise:.0f} ms of it"
        )


def product_cost(repetitions: int) -> list[SamplerCost]:
    """20 steps of DDS as the product takes it, on k-space of 8 coils."""
    recipe = Recipe()
    case = Case(lambda prior, full: DDS(prior, **recipe.sampler_options), recipe.solver, 20)
    return [cost("DDS, 20 steps", case, network(), max(3, repetitions // 6), 320)]


def sampler_costs(repetitions: int, size: int = SIZE) -> Iterator[SamplerCost | Growth]:
    """Every registered sampler, an ensemble and active acquisition, on k-space of 8 coils (DDRM: of one); memory."""
    prior = network()
    for name, case in CASES.items():
        yield cost(name, case, prior, max(3, repetitions // 5), size)
    yield from memory_growth(prior, coils(COILS, min(size, MEMORY_SIZE)))


def cost(name: str, case: Case, prior: Prior, repetitions: int, size: int) -> SamplerCost:
    """One sampler: its run, its network calls, its operator calls and its noise take turns."""
    mask = make_mask("equispaced-fraction", (size, size), 4).float()
    A = MRI(mask, coils(case.coils, size) if case.coils > 1 else None)
    truth = Noise(0)(torch.zeros(1, 1, size, size, dtype=torch.complex64), 0)
    full = MRI(torch.ones_like(mask), A.maps).forward(truth)

    def run(prior: Any) -> Result:
        problem = Problem(A, full * mask, 0.01)
        return sample(
            problem, prior, case.make(prior, full), make_solver(case.solver), case.steps, case.samples
        )

    counted = Recorded(prior)
    with operators_recorded(MRI) as asked, noise_recorded() as drawn:
        run(counted)
    total, calls, products, noise = interleaved(
        lambda: run(prior), counted.again, torch.no_grad()(asked.again), drawn.again, repetitions=repetitions
    )
    said = f"{len(counted.calls)} calls, {sum(counted.pulls)} backward; {asked}"
    return SamplerCost(name, size, total, calls, products, noise, said)


def network() -> Prior:
    """The prior that ships, or a network of its shape with random weights: the time is the same."""
    if "brain-mri" in shipped():
        return Runtime(device="cpu").prepare(make_prior("brain-mri"))
    card = dict(sigma_data=0.3, sigma_min=0.002, sigma_max=10.0, complex_images=True)
    plain = UNet(channels=2, widths=(48, 96, 128), blocks=2)
    made = build_prior(card | {"network": {"kind": "UNet", **plain.options}}, dict(plain.state_dict()))
    return Runtime(device="cpu").prepare(made)


def coils(count: int, size: int) -> Tensor:
    """Smooth maps (count, size, size) of unit length over the coils."""
    line = torch.linspace(-1, 1, size)
    angle = 2 * torch.pi * torch.arange(count)[:, None, None] / count
    y, x = line[:, None] - angle.sin(), line - angle.cos()
    maps = torch.polar(torch.exp(-(y.square() + x.square()) / 2), (y + x) * 2)
    return maps / rss(maps)
