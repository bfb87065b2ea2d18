"""Singular value decompositions ``A = U S V^H`` as maps: never a matrix where the operator has structure."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor
from torch.fft import fftshift, ifftshift
from torch.nn.functional import pad

from .base import Identity, Linear, LinearChain, Operator, Scale
from .complexify import Complexified, rows, together
from .degradations.colour import Colourisation
from .fft import fftn, ifftn, irfft2, rfft2
from .fourier import Blur
from .mri import MRI
from .per_image import PerImage
from .pixels import Inpainting, SuperResolution
from .whitened import Whitened

DENSE = 1024  # images of as many real numbers or fewer: decomposed as a matrix where nothing better is known
MEASURED = 2**16  # and of at most as many real measurements


@dataclass(frozen=True)
class Spectral:
    """``A = U S V^H``: a coordinate of ``V^H x`` meets its own of ``U^H y``, and ``A`` multiplies it by its s.

    ``s`` (1 or images, ...) real, >= 0, broadcasts against coordinates; zeros included, since V is square.
    ``coordinates(x) = V^H x`` (B, ...), real or complex; ``image(c) = V c``; ``measured(y) = U^H y`` in the
    layout of the coordinates, 0 where s is. White noise stays white: V keeps lengths, and ``U^H y`` has
    noise of the level of y. Coordinates of a real image may be complex (half of a spectrum): functions of
    s act on them, noise for them is made of a real image.
    """

    s: Tensor
    coordinates: Callable[[Tensor], Tensor]
    image: Callable[[Tensor], Tensor]
    measured: Callable[[Tensor], Tensor]

    def values(self, like: Tensor) -> Tensor:
        """s for the rows of ``like``, image-major, in its precision and on its device."""
        s = self.s.to(like.device, like.dtype.to_real())
        return s if len(s) == 1 else s.repeat_interleave(len(like) // len(s), 0)


def significant(s: Tensor, cutoff: float) -> Tensor:
    """Where ``s > cutoff max s``, of each row's own s: what a pseudo-inverse divides by."""
    return s > cutoff * s.flatten(1).amax(1).view(-1, *[1] * (s.ndim - 1))


def spectral(A: Operator, dense: bool = True) -> Spectral | None:
    """The decomposition of ``A``, or None where none is known.

    Known: masks, circular blur, super-resolution, colourisation, single-coil MRI, scales, any of these times a
    scale, masks with a noise of each pixel, and several such images in one batch; an operator of your own with a method ``spectral() ->
    Spectral``; with ``dense``, any linear operator on images of at most 1024 real numbers.
    """
    own = getattr(A, "spectral", None)
    if callable(own):
        return cast(Spectral, own())
    found = DECOMPOSITIONS[type(A)](A) if type(A) in DECOMPOSITIONS else None
    if found is not None or not dense:
        return found
    if isinstance(A, PerImage):
        return of_images(A, dense)
    return of_matrix(A) if isinstance(A, Linear) and is_small(A) else None


def of_inpainting(A: Inpainting) -> Spectral:
    """U = V = 1, s the mask."""
    return Spectral(A.mask[None], same, same, A.adjoint)


def of_whitened(A: Whitened) -> Spectral | None:
    """Of what acts on pixels: s the weights where it measures."""
    if not isinstance(A.inner, Inpainting | Identity):
        return None
    s = A.weights * (A.inner.mask if isinstance(A.inner, Inpainting) else 1)
    return Spectral(s[None], same, same, A.masked)


def of_colourisation(A: Colourisation) -> Spectral:
    """In every pixel one direction of colour is measured, ``s = |w|``."""
    w = A.weights.double()
    turn, _ = torch.linalg.qr(torch.stack((w, *torch.eye(3).to(w)[1:]), 1))
    turn = turn * torch.sign(w @ turn[:, 0])
    s = torch.stack((w.norm(), *w.new_zeros(2)))[None, :, None, None]

    def coordinates(x: Tensor) -> Tensor:
        return torch.einsum("ik,bihw->bkhw", turn.to(x), x)

    def image(c: Tensor) -> Tensor:
        return torch.einsum("ik,bkhw->bihw", turn.to(c), c)

    return Spectral(s, coordinates, image, lambda y: pad(y, (0, 0, 0, 0, 0, 2)))


def of_scale(A: Scale) -> Spectral:
    """All singular values ``|factor|``; U carries the phase of the factor."""
    one = Spectral(torch.ones(1, *[1] * len(A.domain), dtype=torch.float64), same, same, same)
    return scaled(one, A.factor)


def of_blur(A: Blur) -> Spectral:
    """Half of the orthonormal spectrum; ``s = |k|``, U carries the phase of k."""
    size = tuple(A.domain[-2:])
    s = A.transfer.abs()
    turn = torch.where(s > 0, A.transfer.conj() / torch.where(s > 0, s, 1), 0)

    def coordinates(x: Tensor) -> Tensor:
        return rfft2(x, norm="ortho")

    def image(c: Tensor) -> Tensor:
        return irfft2(c, s=size, norm="ortho")

    def measured(y: Tensor) -> Tensor:
        return turn.to(y.dtype.to_complex()) * coordinates(y)

    return Spectral(s[(None,) * (4 - s.ndim)], coordinates, image, measured)


def of_super_resolution(A: SuperResolution) -> Spectral:
    """The two axes have an SVD each; s are the products."""
    (u_h, s_h, v_h), (u_w, s_w, v_w) = (full_svd(matrix.double()) for matrix in A._axes)
    small, s = (len(u_h), len(u_w)), torch.outer(s_h, s_w)[None, None]

    def coordinates(x: Tensor) -> Tensor:
        return v_h.T.to(x.dtype) @ x @ v_w.to(x.dtype)

    def image(c: Tensor) -> Tensor:
        return v_h.to(c.dtype) @ c @ v_w.T.to(c.dtype)

    def measured(y: Tensor) -> Tensor:
        c = y.new_zeros(*y.shape[:-2], *s.shape[-2:])
        c[..., : small[0], : small[1]] = u_h.T.to(y.dtype) @ y @ u_w.to(y.dtype)
        return c * (s > 0)

    return Spectral(s, coordinates, image, measured)


def of_mri(A: MRI) -> Spectral | None:
    """k-space of a single coil, along the axes that ``A^H A`` transforms; s is the mask times the weights."""
    if A.maps is not None:
        return None
    axes, gain = A._axes, A._gain
    s = gain.view(1, 1, -1, gain.shape[-1])

    def coordinates(x: Tensor) -> Tensor:
        return fftn(ifftshift(x, dim=axes), dim=axes, norm="ortho")

    def image(c: Tensor) -> Tensor:
        return fftshift(ifftn(c, dim=axes, norm="ortho"), dim=axes)

    inverse = torch.where(s > 0, 1 / s, 0)

    def measured(y: Tensor) -> Tensor:  # V^H A^H y = s U^H y
        return (inverse * coordinates(A.adjoint(y))).to(y.dtype)

    return Spectral(s, coordinates, image, measured)


def of_chain(A: LinearChain) -> Spectral | None:
    """A scale on either side of an operator that has a decomposition."""
    if isinstance(A.inner, Scale):
        scale, other = A.inner, spectral(A.outer, dense=False)
    elif isinstance(A.outer, Scale):
        scale, other = A.outer, spectral(A.inner, dense=False)
    else:
        return None
    return None if other is None else scaled(other, scale.factor)


def of_images(A: PerImage, dense: bool = False) -> Spectral | None:
    """Every image's own, where all have one and lay it out alike."""
    parts = [part for part in (spectral(a, dense) for a in A.operators) if part is not None]
    if len(parts) < len(A.operators) or len({part.s.shape for part in parts}) > 1:
        return None

    def each(name: str) -> Callable[[Tensor], Tensor]:
        def call(rows: Tensor) -> Tensor:
            return torch.cat([getattr(p, name)(r) for p, r in zip(parts, A._split(rows), strict=True)])

        return call

    s = torch.cat([part.s for part in parts])
    return Spectral(s, each("coordinates"), each("image"), each("measured"))


def of_complexified(A: Complexified) -> Spectral | None:
    """The inner's, of real and imaginary part: coordinates (B, 2, ...)."""
    inner = spectral(A.inner, dense=False)
    if inner is None:
        return None

    def image(c: Tensor) -> Tensor:
        return torch.complex(*together(inner.image(c.flatten(0, 1))).unbind(1))

    return Spectral(
        inner.s[:, None],
        lambda x: together(inner.coordinates(rows(x))),
        image,
        lambda y: together(inner.measured(rows(y))),
    )


DECOMPOSITIONS: dict[type, Callable[..., Spectral | None]] = {
    Inpainting: of_inpainting,
    Scale: of_scale,
    Identity: of_scale,
    Whitened: of_whitened,
    Colourisation: of_colourisation,
    Blur: of_blur,
    SuperResolution: of_super_resolution,
    MRI: of_mri,
    LinearChain: of_chain,
    Complexified: of_complexified,
    PerImage: of_images,
}


def scaled(inner: Spectral, factor: complex) -> Spectral:
    """``c A = (U c/|c|) (|c| S) V^H``."""
    size = abs(factor)
    turn = factor.conjugate() / size if size > 0 else 0.0
    return replace(inner, s=size * inner.s, measured=lambda y: turn * inner.measured(y))


def is_small(A: Linear) -> bool:
    """Whether a dense decomposition is affordable: at most `DENSE` real unknowns and `MEASURED` real measurements."""
    n = math.prod(A.domain) * (2 if A.complex_domain else 1)
    m = math.prod(A.codomain) * (2 if A.complex_codomain else 1)
    return A.images == 1 and n <= DENSE and m <= MEASURED


def of_matrix(A: Linear) -> Spectral:
    """A as a matrix over real numbers, column by column, decomposed in float64."""
    n = math.prod(A.domain) * (2 if A.complex_domain else 1)
    kind = A._zeros(1, A.dtype if A._tensors() else torch.float64, A.device)
    basis = torch.eye(n, dtype=kind.dtype.to_real(), device=A.device)
    with torch.no_grad():
        matrix = real_view(A.forward(as_images(basis, kind))).T.double()
    u, s, v = full_svd(matrix)
    u = u[:, :n]

    def coordinates(x: Tensor) -> Tensor:
        return real_view(x) @ v.to(x.device, x.dtype.to_real())

    def image(c: Tensor) -> Tensor:
        return as_images(c @ v.T.to(c), kind)

    def measured(y: Tensor) -> Tensor:
        c = real_view(y) @ u.to(y.device, y.dtype.to_real())
        return pad(c, (0, n - c.shape[1])) * (s > 0).to(c)

    return Spectral(s[None], coordinates, image, measured)


def full_svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """U, s with as many entries as V has columns, and the square V; values that are rounding become 0."""
    m, n = matrix.shape
    u, s, vh = torch.linalg.svd(matrix, full_matrices=m < n)
    s = torch.where(s > max(m, n) * torch.finfo(s.dtype).eps * s.max(), s, 0)
    return u, pad(s, (0, n - len(s))), vh.mH


def real_view(x: Tensor) -> Tensor:
    """(B, ...) -> (B, n) real."""
    return (torch.view_as_real(x.resolve_conj()) if x.is_complex() else x).flatten(1)


def as_images(v: Tensor, kind: Tensor) -> Tensor:
    """(B, n) real -> (B, *domain), complex where ``kind`` is."""
    if not kind.is_complex():
        return v.reshape(-1, *kind.shape[1:])
    return torch.view_as_complex(v.reshape(-1, *kind.shape[1:], 2).contiguous())


def same(x: Tensor) -> Tensor:
    """The identity, for singular vectors that are the pixels themselves."""
    return x
