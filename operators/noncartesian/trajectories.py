"""Trajectories of k-space: radial, spiral, and what a trajectory in other units seems to be."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import OperatorError

FARTHEST = 0.5  # cycles per pixel
ROUNDING = 1e-3  # by which a trajectory may be over the edge
GOLDEN = math.pi * (math.sqrt(5) - 1) / 2  # 111.25 degrees


def radial_trajectory(spokes: int, samples: int, golden: bool = False) -> Tensor:
    """``k = t (cos a, sin a)``, t = -.5 ... .5 - 1/samples: (spokes, samples, 2) float64 in cycles per pixel.

    Angles are ``pi i / spokes``, or multiples of the golden angle, 111.25 degrees. Source: Winkelmann et al.,
    IEEE TMI 26:68 (2007).
    """
    refuse_few(spokes=spokes, samples=samples)
    step = GOLDEN if golden else math.pi / spokes
    angle = step * torch.arange(spokes, dtype=torch.float64)
    t = torch.arange(samples, dtype=torch.float64) / samples - 0.5
    return t[None, :, None] * torch.stack((angle.cos(), angle.sin()), -1)[:, None]


def spiral_trajectory(interleaves: int, samples: int, turns: float, power: float = 1.0) -> Tensor:
    """``k = .5 t^power (cos a, sin a)``, ``a = 2 pi (turns t + i / interleaves)``: (interleaves, samples, 2) float64.

    ``power`` 1 is the spiral of Archimedes, whose ``turns x interleaves`` rings of equal distance up to
    the edge are fully sampled from half the matrix size on; above 1 it is denser in the centre. t is spaced
    so that samples lie equally far apart along the curve. Source: Glover, MRM 42:412 (1999).
    """
    refuse_few(interleaves=interleaves, samples=samples)
    if not (turns > 0 and power > 0):
        raise OperatorError(
            f"A spiral of {turns:g} turns and power {power:g} was asked for.", do="Use positive numbers."
        )
    fine = torch.linspace(0, 1, 64 * samples + 1, dtype=torch.float64)
    curve = torch.polar(0.5 * fine**power, 2 * math.pi * turns * fine)
    length = torch.cat((fine[:1], curve.diff().abs().cumsum(0)))
    wanted = length[-1] * torch.arange(samples, dtype=torch.float64) / max(samples - 1, 1)
    one = curve[torch.searchsorted(length, wanted).clamp(max=len(fine) - 1)]
    turn = 2 * math.pi / interleaves * torch.arange(interleaves, dtype=torch.float64)
    every = one * torch.polar(torch.ones_like(turn), turn)[:, None]
    return torch.view_as_real(every)


def refuse_few(**counts: int) -> None:
    """Raises `OperatorError` for a count below 1."""
    for name, count in counts.items():
        if count < 1:
            raise OperatorError(f"{count} {name} were asked for.", do="Use 1 or more.")


def trajectory_fault(trajectory: Tensor, shape: tuple[int, int] | None = None) -> tuple[str, str, str] | None:
    """What is wrong with a trajectory (..., 2), why, and what to do; None if it is in cycles per pixel, [-.5, .5].

    ``shape`` (H, W) of the image tells units per field of view from units per metre.
    """
    found = trajectory.shape
    if trajectory.is_complex():
        return (
            f"The trajectory is {trajectory.dtype}.",
            "It is real: two numbers for each sample, along H and along W.",
            "Store np.stack((k.real, k.imag), -1).",
        )
    if 0 in found or not found:
        return (
            f"The trajectory is empty, its shape is {tuple(found)}.",
            "It has no samples.",
            "Write the file again.",
        )
    if len(found) < 2 or found[-1] != 2:
        turned = len(found) > 1 and found[0] in (2, 3)
        return (
            f"The trajectory has the shape {tuple(found)}.",
            "It is (samples, 2) or (readouts, samples, 2), along H and W; an image has two dimensions.",
            "Its first axis looks like the coordinates: store np.moveaxis(k, 0, -1)[..., :2]."
            if turned
            else "Store k[..., :2] if the third coordinate is zero."
            if found[-1] == 3
            else "Store it in that shape.",
        )
    if not torch.isfinite(trajectory).all():
        bad = int((~torch.isfinite(trajectory)).sum())
        return (
            f"The trajectory has {bad} numbers that are NaN or infinite.",
            "Such a sample has no place.",
            "Compute it again.",
        )
    most = float(trajectory.abs().max())
    if most <= FARTHEST + ROUNDING:
        return None
    unit, do = seeming_unit(most, shape)
    return f"The trajectory reaches {most:.4g}.", f"It is in cycles per pixel, from -.5 to .5; {unit}.", do


def seeming_unit(most: float, shape: tuple[int, int] | None) -> tuple[str, str]:
    """What unit a trajectory whose largest number is ``most`` > .5 seems to have, and how it becomes cycles per pixel."""
    if most <= 1.5:
        return (
            "this may be normalised to [-1, 1], or be cycles per millimetre",
            "Store k / 2 if it ends at 1, or k times the pixel size in mm.",
        )
    if most <= 1.1 * math.pi and (shape is None or max(shape) > 8):
        return "this looks like radians per pixel, [-pi, pi]", "Store k / (2 * np.pi)."
    if shape is None:
        return (
            "this looks like cycles per field of view, [-N/2, N/2], or cycles per metre",
            "Store k / N, or k times the pixel size in metres.",
        )
    if most <= 1.1 * max(shape) / 2:
        return "this looks like cycles per field of view, [-N/2, N/2]", f"Store k / ({shape[0]}, {shape[1]})."
    return (
        f"this is more than half of the matrix of {shape[0]} x {shape[1]}, as cycles (or radians) per metre are",
        "Store k times the pixel size in metres (radians: / (2 * np.pi) as well), or give the matrix it belongs to.",
    )
