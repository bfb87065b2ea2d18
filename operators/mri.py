"""Cartesian MRI: one coil or many, one set of sensitivity maps or several (soft-SENSE)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor
from torch.fft import fftshift, ifftshift

from .base import Linear
from .errors import OperatorError
from .fft import fft, fft2, ifft, ifft2

COLUMNS: tuple[int, ...] = (-1,)
PLANE: tuple[int, ...] = (-2, -1)
GROUP_BYTES = 2**22  # a buffer that fits the processor's cache and is not returned to the system


@dataclass(frozen=True, eq=False, repr=False)
class MRI(Linear):
    """``y_c = W M F sum_s S_sc x_s``: centred orthonormal FFT, k-space of full size, zero where not sampled.

    ``mask`` is (H, W) or (W,), true where sampled; (W,) samples whole columns (phase encoding along
    the last axis) and takes the height from ``maps`` or from ``shape=(H, W)``. ``maps`` are complex,
    (coils, H, W) or (sets, coils, H, W); without them there is a single coil. Images are complex
    (B, sets, H, W), measurements complex (B, coils, H, W). ``weights``, (H, W) or (W,), real and above 0, multiply the
    samples of every coil: 1 / std where their noise differs, so that it is white afterwards; None for 1.

    A mask (and weights) of whole columns leaves a transform along the last axis only in ``A^H A``, since the other
    one is unitary. Maps and mask are kept shifted, so that only the image is ever shifted there.

    Raises `OperatorError` for shapes that do not fit, maps that are not complex or not finite,
    masks with values other than 0 and 1, and weights that are not finite and above 0.
    Source: Pruessmann et al., MRM 42:952 (1999); Uecker et al., MRM 71:990 (2014), section on soft-SENSE.
    """

    complex_domain: ClassVar[bool] = True
    normal_is_cheap: ClassVar[bool] = True

    mask: Tensor
    maps: Tensor | None = None
    shape: tuple[int, ...] | None = None
    weights: Tensor | None = None

    def __post_init__(self):
        mask, maps = torch.as_tensor(self.mask), self.maps
        if maps is not None:
            maps = checked_maps(maps)
        size = None if maps is None else tuple(maps.shape[-2:])
        if size is not None and self.shape is not None and size != tuple(self.shape):
            raise OperatorError(
                f"MRI was given maps of {size[0]} x {size[1]} and shape={tuple(self.shape)}.",
                do="Leave out shape: the maps have one.",
            )
        kind = maps.real.dtype if maps is not None else mask.dtype if mask.is_floating_point() else None
        mask = checked_mask(mask, size or self.shape).to(kind or torch.get_default_dtype())
        object.__setattr__(self, "mask", mask)
        object.__setattr__(self, "maps", maps)
        object.__setattr__(self, "shape", tuple(mask.shape))
        if self.weights is not None:
            object.__setattr__(self, "weights", checked_weights(self.weights, mask))

    @property
    def domain(self) -> tuple[int, ...]:
        return (1 if self.maps is None else self._sets.shape[0], *self.mask.shape)

    @property
    def codomain(self) -> tuple[int, ...]:
        return (1 if self.maps is None else self._sets.shape[1], *self.mask.shape)

    complex_codomain = True  # pyright: ignore[reportAssignmentType]

    @cached_property
    def measured(self) -> int:
        return int(self.mask.sum()) * self.codomain[0]

    def masked(self, y: Tensor) -> Tensor:
        return self.mask.to(y.dtype) * y

    @property
    def _sets(self) -> Tensor:
        assert self.maps is not None
        return self.maps if self.maps.ndim == 4 else self.maps[None]

    @cached_property
    def gain(self) -> Tensor:
        """(H, W): what each sample is multiplied by, the mask times the weights."""
        return self.mask if self.weights is None else self.mask * self.weights

    @cached_property
    def whole_columns(self) -> bool:
        """Whether the mask, and the weights, are the same in every row."""
        return bool((self.gain == self.gain[:1]).all())

    @cached_property
    def _axes(self) -> tuple[int, ...]:
        """The axes along which ``A^H A`` has a transform at all."""
        return COLUMNS if self.whole_columns else PLANE

    @cached_property
    def _gain(self) -> Tensor:
        """The gain with the zero frequency first."""
        return ifftshift(self.gain[0] if self.whole_columns else self.gain, dim=self._axes)

    @cached_property
    def _power(self) -> Tensor:
        """The square of `_gain`: what ``A^H A`` multiplies k-space by."""
        return self._gain if self.weights is None else self._gain.square()

    @cached_property
    def _maps(self) -> Tensor:
        return ifftshift(self._sets, dim=self._axes)

    @cached_property
    def _conjugate(self) -> Tensor:
        return self._maps.conj().resolve_conj()

    @cached_property
    def _columns(self) -> tuple[Tensor, Tensor]:
        """Sampled columns, counted with the zero frequency in the centre and with it first."""
        width = self.mask.shape[1]
        centred = self.mask[0].nonzero()[:, 0]
        return centred, (centred - width // 2) % width

    def forward(self, x: Tensor) -> Tensor:
        coils = ifftshift(x, dim=self._axes)
        if self.maps is not None:
            coils = project(self._maps, coils)
        if not self.whole_columns:
            return fftshift(fft2(coils, norm="ortho"), dim=PLANE) * self.gain
        centred, first = self._columns
        lines = fft(coils, norm="ortho").index_select(-1, first)
        lines = self._weighted(fftshift(fft(ifftshift(lines, dim=-2), dim=-2, norm="ortho"), dim=-2))
        return lines.new_zeros(coils.shape).index_copy(-1, centred, lines)

    def adjoint(self, y: Tensor) -> Tensor:
        if self.whole_columns:
            centred, first = self._columns
            lines = ifftshift(self._weighted(y.index_select(-1, centred)), dim=-2)
            lines = fftshift(ifft(lines, dim=-2, norm="ortho"), dim=-2)
            coils = ifft(lines.new_zeros(y.shape).index_copy(-1, first, lines), norm="ortho")
        else:
            coils = ifft2(ifftshift(y * self.gain, dim=PLANE), norm="ortho")
        if self.maps is not None:
            coils = combine(self._conjugate, coils)
        return fftshift(coils, dim=self._axes)

    def _weighted(self, lines: Tensor) -> Tensor:
        """The sampled columns times their weights."""
        return lines if self.weights is None else lines * self.weights[0, self._columns[0]]

    def normal(self, x: Tensor) -> Tensor:
        x = ifftshift(x, dim=self._axes)
        if self.maps is None:
            return fftshift(self._filter(x), dim=self._axes)
        total = None
        for maps, conjugate in self._groups(x):
            image = combine(conjugate, self._filter(project(maps, x)))
            total = image if total is None else total + image
        assert total is not None
        return fftshift(total, dim=self._axes)

    def solve_normal(self, b: Tensor, weight: float) -> Tensor | None:
        """``F^H (W^2 M + weight)^-1 F b`` for a single coil; None with maps."""
        if self.maps is not None:
            return None
        k = self._transform(ifftshift(b, dim=self._axes)) / (self._power + weight)
        return fftshift(self._inverse(k), dim=self._axes)

    def _filter(self, coils: Tensor) -> Tensor:
        """``F^H W^2 M F`` on shifted coil images; the product acts in place on a tensor made here."""
        return self._inverse(self._transform(coils).mul_(self._power))

    def _transform(self, x: Tensor) -> Tensor:
        return fft(x, norm="ortho") if self.whole_columns else fft2(x, norm="ortho")

    def _inverse(self, k: Tensor) -> Tensor:
        return ifft(k, norm="ortho") if self.whole_columns else ifft2(k, norm="ortho")

    def _groups(self, x: Tensor) -> list[tuple[Tensor, Tensor]]:
        """The maps and their conjugates, a few coils at a time on a processor, all at once on a GPU."""
        coil = max(1, x[:, 0].numel() * x.element_size())
        coils = max(1, GROUP_BYTES // coil) if x.device.type == "cpu" else self._maps.shape[1]
        return list(zip(self._maps.split(coils, 1), self._conjugate.split(coils, 1), strict=True))


def project(maps: Tensor, x: Tensor) -> Tensor:
    """``sum_s S_sc x_s``: (sets, coils, H, W), (B, sets, H, W) -> (B, coils, H, W)."""
    if len(maps) == 1:
        return maps[0] * x
    return (maps * x[:, :, None]).sum(1)


def combine(conjugate: Tensor, coils: Tensor) -> Tensor:
    """``sum_c conj(S_sc) z_c``: (sets, coils, H, W), (B, coils, H, W) -> (B, sets, H, W)."""
    return (conjugate * coils[:, None]).sum(2)


def checked_maps(maps: Tensor) -> Tensor:
    """``maps``, or `OperatorError` where they are not complex, not finite or of another number of axes."""
    maps = torch.as_tensor(maps)
    if maps.ndim not in (3, 4) or not maps.is_complex():
        raise OperatorError(
            f"MRI was given maps of shape {tuple(maps.shape)} and type {maps.dtype}.",
            "Sensitivity maps are complex, (coils, H, W) or (sets, coils, H, W).",
            "Estimate them with espirit(kspace), or leave out maps for a single coil.",
        )
    if not torch.isfinite(torch.view_as_real(maps.resolve_conj())).all():
        raise OperatorError(
            "MRI was given maps with NaN or infinite values.", do="Set them to 0 outside the object."
        )
    return maps


def checked_mask(mask: Tensor, size: tuple[int, ...] | None) -> Tensor:
    """A mask (W,) or (H, W) as (H, W), of the given size where there is one."""
    if mask.ndim == 1 and size is None:
        raise OperatorError(
            f"MRI was given a mask of {len(mask)} columns and no height.",
            "Without maps nothing says how many rows the image has.",
            f"Pass shape=(H, {len(mask)}), or a mask of shape (H, W).",
        )
    if mask.ndim not in (1, 2) or mask.numel() == 0:
        raise OperatorError(
            f"MRI was given a mask of shape {tuple(mask.shape)}.", "A mask is (W,) or (H, W)."
        )
    if mask.ndim == 1 and size is not None and len(mask) == size[1]:
        mask = mask.expand(tuple(size))
    if size is not None and tuple(mask.shape) != tuple(size):
        raise OperatorError(
            f"MRI was given a mask of shape {tuple(mask.shape)} for images of {size[0]} x {size[1]}.",
            f"A mask is ({size[1]},) or ({size[0]}, {size[1]}) here.",
            "Use the mask that belongs to this k-space, and maps estimated from it.",
        )
    if not ((mask == 0) | (mask == 1)).all():
        raise OperatorError(
            "MRI was given a mask with values other than 0 and 1.",
            "A mask says which samples were measured.",
            "Pass mask != 0, or compose weights with the operator.",
        )
    return mask.contiguous()


def checked_weights(weights: Tensor, mask: Tensor) -> Tensor:
    """Weights (W,) or (H, W) as (H, W), in the mask's precision; raises `OperatorError` for others."""
    weights = torch.as_tensor(weights)
    fits = weights.ndim in (1, 2) and weights.shape[-1] == mask.shape[1] and not weights.is_complex()
    if not fits or weights.shape not in (mask.shape, mask.shape[1:]):
        raise OperatorError(
            f"MRI was given weights of shape {tuple(weights.shape)} and type {weights.dtype}.",
            f"They are real, one for each sample, {tuple(mask.shape)}, or for each column, ({mask.shape[1]},).",
        )
    if not (torch.isfinite(weights) & (weights > 0)).all():
        raise OperatorError(
            "MRI was given weights that are not above 0 and finite.",
            "They are 1 / std of each sample's noise.",
            "Leave samples out with the mask.",
        )
    return weights.to(mask).expand(mask.shape)
