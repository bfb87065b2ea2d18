"""MRI along any trajectory: radial, spiral, one coil or many, one set of sensitivity maps or several."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor
from torch.fft import ifftshift

from ..base import Linear
from ..errors import OperatorError
from ..fft import fft, fft2, ifft
from ..mri import GROUP_BYTES, checked_maps, combine, project
from .nufft import nufft, nufft_adjoint
from .trajectories import trajectory_fault


@dataclass(frozen=True, eq=False, repr=False)
class NonCartesianMRI(Linear):
    """``y_cm = sqrt(w_m / (H W)) sum_r e^{-2 pi i k_m . r} sum_s S_sc(r) x_s(r)``, r counted from (H//2, W//2).

    ``trajectory`` is (samples, 2) or (readouts, samples, 2), real, in cycles per pixel, [-.5, .5]: its first
    number belongs to the axis H, the second to W. ``maps`` are complex, (coils, H, W) or (sets, coils, H, W);
    without them there is a single coil and ``shape=(H, W)`` says the size. ``density`` w, as many numbers >= 0
    as samples, makes the operator the one of *weighted* data, ``sqrt(w) y``: multiply y by it too, its noise is
    then no longer white. Without it w = 1. Images are complex (B, sets, H, W), measurements complex (B, coils,
    samples), all readouts in a row. On a full Cartesian trajectory it is `MRI`.

    Transforms are computed in float64, to 1e-7 for float32 data and to 1e-14 for float64. ``A^H A`` is a convolution
    with the point spread function, done by an FFT of twice the size and exact to the same errors.

    Raises `OperatorError` for a trajectory in other units, shapes that do not fit, what is not finite, and where
    finufft is not installed. Source: Fessler and Sutton, IEEE TSP 51:560 (2003); Pruessmann et al., MRM 46:638
    (2001); the convolution: Wajer and Pruessmann, Proc. ISMRM 2001, p. 767.
    """

    complex_domain: ClassVar[bool] = True
    normal_is_cheap: ClassVar[bool] = True

    trajectory: Tensor
    maps: Tensor | None = None
    density: Tensor | None = None
    shape: tuple[int, ...] | None = None

    def __post_init__(self):
        trajectory = torch.as_tensor(self.trajectory)
        maps = None if self.maps is None else checked_maps(self.maps)
        shape = checked_shape(self.shape, maps)
        if fault := trajectory_fault(trajectory, shape):
            raise OperatorError(*fault)
        kind = maps.real.dtype if maps is not None else trajectory.dtype
        trajectory = trajectory.reshape(-1, 2).to(
            kind if kind.is_floating_point else torch.get_default_dtype()
        )
        object.__setattr__(self, "trajectory", trajectory)
        object.__setattr__(self, "maps", maps)
        object.__setattr__(self, "shape", shape)
        if self.density is not None:
            object.__setattr__(self, "density", checked_density(self.density, len(trajectory)).to(trajectory))

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        assert self.shape is not None
        return self.shape[0], self.shape[1]

    @property
    def domain(self) -> tuple[int, ...]:
        return (1 if self.maps is None else len(self._sets), *self.size)

    @property
    def codomain(self) -> tuple[int, ...]:
        return (1 if self.maps is None else self._sets.shape[1], len(self.trajectory))

    complex_codomain = True  # pyright: ignore[reportAssignmentType]

    @property
    def _sets(self) -> Tensor:
        assert self.maps is not None
        return self.maps if self.maps.ndim == 4 else self.maps[None]

    @cached_property
    def _conjugate(self) -> Tensor:
        return self._sets.conj().resolve_conj()

    @cached_property
    def _weight(self) -> Tensor | float:
        """``sqrt(w / (H W))``."""
        scale = 1 / math.sqrt(math.prod(self.size))
        return scale if self.density is None else scale * self.density.sqrt()

    @cached_property
    def _response(self) -> Tensor:
        """Eigenvalues (2 H, 2 W), real, of the convolution that `normal` is."""
        with torch.no_grad():
            weights = torch.ones_like(self.trajectory[:, 0]) if self.density is None else self.density
            twice = (2 * self.size[0], 2 * self.size[1])
            spread = nufft_adjoint(weights.to(weights.dtype.to_complex()), self.trajectory, twice)
            spread[0], spread[:, 0] = 0, 0  # a distance that no two pixels have
            return (fft2(ifftshift(spread)) / math.prod(self.size)).real.contiguous()

    def forward(self, x: Tensor) -> Tensor:
        coils = x if self.maps is None else project(self._sets, x)
        return self._weight * nufft(coils, self.trajectory)

    def adjoint(self, y: Tensor) -> Tensor:
        coils = nufft_adjoint(self._weight * y, self.trajectory, self.size)
        return coils if self.maps is None else combine(self._conjugate, coils)

    def normal(self, x: Tensor) -> Tensor:
        if not len(x):
            return x * 1
        return torch.cat([self._normal(rows) for rows in x.split(1 if x.device.type == "cpu" else len(x))])

    def _normal(self, x: Tensor) -> Tensor:
        """``A^H A x`` of a few images; on a processor a few coils at a time, which stay in its cache."""
        if self.maps is None:
            return self._convolved(x)
        coil = 4 * x[:, 0].numel() * x.element_size()
        coils = max(1, GROUP_BYTES // coil) if x.device.type == "cpu" else self._sets.shape[1]
        parts = zip(self._sets.split(coils, 1), self._conjugate.split(coils, 1), strict=True)
        images = [combine(conjugate, self._convolved(project(maps, x))) for maps, conjugate in parts]
        return torch.stack(images).sum(0)

    def _convolved(self, coils: Tensor) -> Tensor:
        """Coil images with the point spread function; lines that are zero, or cut away, are not transformed."""
        height, width = self.size
        k = fft(fft(coils, n=2 * width), n=2 * height, dim=-2) * self._response
        return ifft(ifft(k, dim=-2)[..., :height, :])[..., :width]


def checked_shape(shape: tuple[int, ...] | None, maps: Tensor | None) -> tuple[int, int]:
    """(H, W) of the maps, or the one given; raises `OperatorError` where they differ or there is none."""
    if maps is None and (shape is None or len(shape) != 2 or min(shape) < 1):
        raise OperatorError(
            f"NonCartesianMRI was given shape={shape} and no maps.",
            "A trajectory does not say how many pixels the image has.",
            "Pass shape=(H, W).",
        )
    height, width = tuple(shape or ())[:2] if maps is None else maps.shape[-2:]
    if shape is not None and (height, width) != tuple(shape):
        raise OperatorError(
            f"NonCartesianMRI was given maps of {height} x {width} and shape={tuple(shape)}.",
            do="Leave out shape: the maps have one.",
        )
    return int(height), int(width)


def checked_density(density: Tensor, samples: int) -> Tensor:
    """Weights (samples,), or `OperatorError` where they are too few or many, negative, complex or not finite."""
    density = torch.as_tensor(density)
    if density.numel() != samples or density.is_complex():
        raise OperatorError(
            f"NonCartesianMRI was given {density.numel()} weights ({density.dtype}) for {samples} samples.",
            "The density has one real number for each sample.",
            "Compute it of this trajectory: density_compensation(trajectory, shape).",
        )
    if not (torch.isfinite(density) & (density >= 0)).all():
        raise OperatorError(
            "NonCartesianMRI was given weights that are negative, NaN or infinite.",
            "Each is the area of k-space that a sample stands for.",
            "Compute them again, or leave out density.",
        )
    return density.reshape(-1)
