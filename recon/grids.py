"""Noise levels: decreasing lists of Python floats ``sigma_0 > ... > sigma_n = 0``. Nothing else is a schedule.

A grid of n steps is n levels from ``sigma_max`` to ``sigma_min``, both exactly as given, and 0, as
EDM counts (codes that count intervals between two times have one level more or less).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

from .errors import ConfigError
from .processes import VP, Discrete, Process

SPACINGS = ("trailing", "leading", "linspace")


def karras(steps: int, sigma_max: float = 80.0, sigma_min: float = 0.002, rho: float = 7.0) -> list[float]:
    """``(smax^(1/rho) + i/(n-1) (smin^(1/rho) - smax^(1/rho)))^rho``, n = steps levels, then 0.

    Karras et al. 2022, eq. 5: uniform in ``sigma^(1/rho)``. With rho 7 it is also the grid of
    rhoAB-DEIS ("rho-power"; Zhang, Chen 2023).
    """
    check_range(steps, sigma_max, sigma_min)
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return between(steps, sigma_max, sigma_min, lambda share: (high + share * (low - high)) ** rho)


def exponential(steps: int, sigma_max: float = 80.0, sigma_min: float = 0.002) -> list[float]:
    """Uniform in ``ln sigma`` (in half log-SNR), then 0."""
    return polyexponential(steps, sigma_max, sigma_min)


def polyexponential(
    steps: int, sigma_max: float = 80.0, sigma_min: float = 0.002, rho: float = 1.0
) -> list[float]:
    """``ln sigma = ln smin + (1 - i/(n-1))^rho ln(smax / smin)``, then 0: for rho > 1 denser at low noise.

    k-diffusion's; rho = 1 is `exponential`.
    """
    check_range(steps, sigma_max, sigma_min)
    low, span = math.log(sigma_min), math.log(sigma_max) - math.log(sigma_min)
    return between(steps, sigma_max, sigma_min, lambda share: math.exp(low + (1 - share) ** rho * span))


def linear(steps: int, sigma_max: float = 80.0, sigma_min: float = 0.002) -> list[float]:
    """Uniform in sigma, then 0."""
    check_range(steps, sigma_max, sigma_min)
    return between(steps, sigma_max, sigma_min, lambda share: sigma_max + share * (sigma_min - sigma_max))


def time_power(
    steps: int,
    sigma_max: float = 80.0,
    sigma_min: float = 0.002,
    power: float = 1.0,
    process: Process | None = None,
) -> list[float]:
    """Uniform in ``t^(1/power)``, t the time of ``process`` (linear VP), then 0.

    power = 1 is "time": DPM-Solver's for large images, and k-diffusion's ``vp`` ("vp" here), which are
    uniform in the time of the linear VP. power = 2 is "quadratic": DDIM's for CIFAR-10, tAB-DEIS's.
    """
    check_range(steps, sigma_max, sigma_min)
    clock = VP() if process is None else process
    high, low = (clock.time(level) ** (1 / power) for level in (sigma_max, sigma_min))
    return between(
        steps, sigma_max, sigma_min, lambda share: clock.sigma((high + share * (low - high)) ** power)
    )


def quadratic(
    steps: int,
    sigma_max: float = 80.0,
    sigma_min: float = 0.002,
    power: float = 2.0,
    process: Process | None = None,
) -> list[float]:
    """`time_power` with power 2: uniform in the root of the time. Song, Meng, Ermon 2021; Zhang, Chen 2023."""
    return time_power(steps, sigma_max, sigma_min, power, process)


def flow_shift(
    steps: int, sigma_max: float = 80.0, sigma_min: float = 0.002, shift: float = 3.0
) -> list[float]:
    """Uniform in flow time ``t = sigma / (1 + sigma)``, then ``t -> k t / (1 + (k - 1) t)``, k = shift; then 0.

    In sigma the shift is a factor k, so this is k times the flow grid from ``smax / k`` to ``smin / k``.
    Esser et al. 2024 (SD3): 3 at 1024 pixels, or the root of the ratio of the numbers of pixels.
    """
    check_range(steps, sigma_max, sigma_min)
    if not shift > 0:
        raise ConfigError(f"shift is {shift}.", "It multiplies sigma, so it is positive.")
    high, low = sigma_max / (shift + sigma_max), sigma_min / (shift + sigma_min)
    clean_high, clean_low = shift / (shift + sigma_max), shift / (shift + sigma_min)  # 1 - t, with its digits

    def level(share: float) -> float:
        noise, clean = high + share * (low - high), clean_high + share * (clean_low - clean_high)
        return shift * noise / clean

    return between(steps, sigma_max, sigma_min, level)


AYS_SD15 = (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152)
AYS_SDXL = (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113)
AYS_SVD = (700.0, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034)


def ays_sd15(steps: int, sigma_max: float = 80.0, sigma_min: float = 0.002) -> list[float]:
    """Align Your Steps, optimised for Stable Diffusion 1.5: see `tabulated`."""
    return tabulated(AYS_SD15, steps, sigma_max, sigma_min)


def ays_sdxl(steps: int, sigma_max: float = 80.0, sigma_min: float = 0.002) -> list[float]:
    """Align Your Steps, optimised for Stable Diffusion XL: see `tabulated`."""
    return tabulated(AYS_SDXL, steps, sigma_max, sigma_min)


def ays_svd(steps: int, sigma_max: float = 80.0, sigma_min: float = 0.002) -> list[float]:
    """Align Your Steps, optimised for Stable Video Diffusion: see `tabulated`."""
    return tabulated(AYS_SVD, steps, sigma_max, sigma_min)


def tabulated(table: tuple[float, ...], steps: int, sigma_max: float, sigma_min: float) -> list[float]:
    """A table of levels for its own number of steps: ``ln sigma`` linear in the index for others, then 0.

    Stretched affinely in ``ln sigma`` to ``sigma_max`` and ``sigma_min``: a prior's own range is kept,
    and with the table's own ends this is the table. Sabour, Fidler, Kreis 2024 (Align Your Steps).
    """
    check_range(steps, sigma_max, sigma_min)
    own = [math.log(level) for level in table]
    stretch = math.log(sigma_max / sigma_min) / (own[0] - own[-1])

    def level(share: float) -> float:
        place = share * (len(own) - 1)
        index = min(int(place), len(own) - 2)
        log = own[index] + (place - index) * (own[index + 1] - own[index])
        return sigma_min * math.exp(stretch * (log - own[-1]))

    return between(steps, sigma_max, sigma_min, level)


def discrete(
    steps: int, process: Discrete | None = None, spacing: str = "trailing", offset: int = 0
) -> list[float]:
    """Levels of a DDPM table (Ho et al. 2020's) at integer labels 0 to T - 1, then 0: for ``grid=``.

    "trailing": ``T - i T/n - 1``; "leading": ``(n - 1 - i) floor(T/n) + offset`` (Stable Diffusion 1
    has offset 1); "linspace": from T - 1 to 0. Rounded half to even, as diffusers does. Only
    "trailing" and "linspace" start at the table's noisiest level. Lin et al. 2024, table 2.
    """
    table = Discrete.linear() if process is None else process
    count = len(table.alphas_cumprod)
    if not 1 <= steps <= count:
        raise ConfigError(f"{steps} steps on a table of {count} labels.", f"Take 1 to {count}.")
    if spacing not in SPACINGS:
        raise ConfigError(f"spacing is {spacing!r}.", f"It is one of {', '.join(SPACINGS)}.")
    if spacing == "trailing":
        labels = [round(count - i * count / steps) - 1 for i in range(steps)]
    elif spacing == "leading":
        labels = [i * (count // steps) + offset for i in reversed(range(steps))]
    else:
        labels = [round(i * (count - 1) / max(steps - 1, 1)) for i in reversed(range(steps))]
    if labels[-1] < 0 or labels[0] >= count:
        raise ConfigError(
            f"offset {offset} leads to label {labels[0] if labels[0] >= count else labels[-1]}.",
            f"Labels are 0 to {count - 1}.",
        )
    return [*(table.sigma((label + 1) / count) for label in labels), 0.0]


GRIDS: dict[str, Callable[..., list[float]]] = {
    "karras": karras,
    "edm": karras,
    "rho-power": karras,
    "exponential": exponential,
    "logsnr": exponential,
    "polyexponential": polyexponential,
    "linear": linear,
    "time": time_power,
    "vp": time_power,
    "quadratic": quadratic,
    "flow-shift": flow_shift,
    "ays-sd15": ays_sd15,
    "ays-sdxl": ays_sdxl,
    "ays-svd": ays_svd,
}


def between(steps: int, sigma_max: float, sigma_min: float, level: Callable[[float], float]) -> list[float]:
    """``level(i / (n - 1))`` between the two ends, which are taken as given; then 0. One step starts at the top."""
    if steps == 1:
        return [float(sigma_max), 0.0]
    inner = [level(i / (steps - 1)) for i in range(1, steps - 1)]
    levels = [float(sigma_max), *inner, float(sigma_min)]
    if not all(a > b for a, b in pairwise(levels)):
        raise ConfigError(
            f"{steps} levels from {sigma_max:g} to {sigma_min:g} do not fall strictly.",
            "With this exponent neighbours round to the same number.",
            "Take fewer steps, or a smaller exponent.",
        )
    return [*levels, 0.0]


def check_range(steps: int, sigma_max: float, sigma_min: float) -> None:
    """Raise `ConfigError` for fewer than one step, or for levels that are not ``0 < sigma_min < sigma_max < inf``."""
    if steps < 1:
        raise ConfigError(f"A grid of {steps} steps.", "At least one step is needed.", "Use steps=20.")
    if not 0 < sigma_min < sigma_max < math.inf:
        raise ConfigError(
            f"A grid from sigma {sigma_max} to {sigma_min}.",
            "Noise levels fall from sigma_max to sigma_min > 0.",
            "Choose a start above the prior's smallest level.",
        )


def validated(grid) -> list[float]:
    """A user's own grid as floats; refused unless finite, strictly falling, and not negative."""
    levels = [float(sigma) for sigma in grid]
    falling = all(a > b for a, b in pairwise(levels))
    if len(levels) < 2 or not falling or levels[-1] < 0 or not math.isfinite(levels[0]):
        raise ConfigError(
            f"The grid {levels[:4]}{'...' if len(levels) > 4 else ''} cannot be walked.",
            "A grid is at least two finite levels that fall strictly and end at 0 or above.",
            "See recon.grids.karras for one that works.",
        )
    return levels
