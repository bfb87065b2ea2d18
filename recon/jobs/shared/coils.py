"""The coils that are reconstructed: those of the file, whitened and compressed where that was asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from operators.coils import coil_energy, compression, mix, noise_covariance, whitening
from operators.errors import OperatorError
from operators.noncartesian import trajectory_noise

from ...errors import ConfigError
from ...io import KSpaceFile, Survey
from ...io.acquisition import Acquisition, sampled_in
from .settings import Settings

LOOKED_AT = 8  # looked at, of a file with more: noise and coils are the same in all
NOISIER = 3.0  # times the median noise, from where on a coil spoils what is not whitened
TRIFLE = 1e-4  # of the mean square of k-space
DROWNED = 2.0  # mean square of k-space over that of the noise: of a coil with less, the noise is louder than the signal
PER_COIL = 8  # samples of a noise scan, at least


@dataclass(frozen=True, eq=False)
class Mixing:
    """``matrix`` (n, coils) complex64 makes the coils that are reconstructed, ``whitening`` (alive, coils) all there are.

    Both leave out coils that receive nothing, or, where they are not whitened, mostly noise. ``said``: what was done, and
    what a user should know of it, a sentence each.
    """

    matrix: Tensor
    whitening: Tensor
    said: tuple[str, ...] = ()

    def __call__(self, kspace: Tensor) -> Tensor:
        """k-space or maps (..., coils, H, W) -> (..., n, H, W)."""
        return mix(self.matrix.to(kspace), kspace)


def mixing(file: KSpaceFile, found: Survey, acquisition: Acquisition, settings: Settings) -> Mixing:
    """How the coils of ``file`` are mixed: ``C W``, W `whitening`, C `compression` of what W makes; else the identity.

    The noise covariance is that of the noise scan; where the file has none, of the outer k-space. W is scaled to
    determinant 1, so that noise keeps its geometric mean level over the coils, and images their units. Raises `ConfigError`
    for more virtual coils than coils that receive anything.
    """
    alive = found.alive.nonzero()[:, 0]
    said = left_out([i for i in range(file.coils) if not found.alive[i]], "nothing")
    if settings.whiten:
        covariance, source = noise_of(file, acquisition, alive)
        select = torch.eye(file.coils, dtype=torch.complex128)[alive]
        white = unit_determinant(whitening(covariance)) @ select
        said.append(f"whitened by the noise of {source}")
    else:
        if len(alive) > 1:
            with suppress(OperatorError):  # too few samples to tell
                alive, noisy = without_drowned(file, acquisition, alive)
                said += noisy
        white = torch.eye(file.coils, dtype=torch.complex128)[alive]
    if settings.coils is not None and settings.coils > len(alive):
        raise ConfigError(
            f"{file.path}: {settings.coils} virtual coils were asked for.",
            f"It has {len(alive)} coils that receive anything.",
            f"Use --coils 1 to {len(alive)}, or leave it out.",
        )
    matrix = white
    if settings.coils is not None:
        energy = torch.stack(
            [coil_energy(mix(white.to(k), k)) for k, _ in some_slices(file, acquisition)]
        ).sum(0)
        virtual = compression(energy, settings.coils)
        matrix = virtual @ white
        kept = float((virtual @ energy @ virtual.mH).trace().real / energy.trace().real)
        said.append(f"{settings.coils} virtual coils of {len(alive)} keep {100 * kept:.4g} % of the energy")
    return Mixing(matrix.to(torch.complex64), white.to(torch.complex64), tuple(said))


def unit_determinant(matrix: Tensor) -> Tensor:
    """A triangular matrix over the geometric mean of its diagonal: it keeps volumes."""
    return matrix / matrix.diagonal().abs().log().mean().exp()


def some_slices(
    file: KSpaceFile, acquisition: Acquisition, most: int = LOOKED_AT
) -> Iterator[tuple[Tensor, Tensor]]:
    """(k-space (coils, H, W) of the samples that are used, their mask) of at most ``most`` slices, evenly spread."""
    count = min(most, file.slices)
    for part in range(count):
        kspace = file.read_slice(int((part + 0.5) * file.slices / count)).kspace
        mask = sampled_in(kspace, acquisition.mask)
        yield kspace * mask, mask


def some_readouts(file: KSpaceFile, acquisition: Acquisition, most: int) -> Iterator[tuple[Tensor, Tensor]]:
    """(k-space (coils, readouts, samples), trajectory) of the readouts that are used of at most ``most`` slices."""
    assert file.trajectory is not None
    count, used = min(most, file.slices), acquisition.mask.any(1)
    for index in (int((part + 0.5) * file.slices / count) for part in range(count)):
        yield file._kspace(index)[:, used], file.trajectory.of(index)[used]


def noise_of(
    file: KSpaceFile, acquisition: Acquisition, alive: Tensor, most: int = LOOKED_AT
) -> tuple[Tensor, str]:
    """The noise covariance of the coils ``alive``, and where it was found; of slices without a noise scan their mean."""
    scan = file.store.noise_scan()
    if scan is not None and scan.shape[1] >= PER_COIL * len(scan):
        samples = torch.from_numpy(scan)[alive, None].to(torch.complex128)
        return noise_covariance(samples, scan=True), "the noise scan"
    if file.trajectory is not None:
        found = [
            noise_covariance(
                trajectory_noise(kspace[alive].to(torch.complex128), points)[..., None], scan=True
            )
            for kspace, points in some_readouts(file, acquisition, most)
        ]
        return torch.stack(found).mean(0), "the end of the readouts or of their band"
    found = [
        noise_covariance(kspace[alive].to(torch.complex128), mask)
        for kspace, mask in some_slices(file, acquisition, most)
    ]
    return torch.stack(found).mean(0), "the outer k-space"


def without_drowned(file: KSpaceFile, acquisition: Acquisition, alive: Tensor) -> tuple[Tensor, list[str]]:
    """The coils ``alive`` without those whose signal drowns in noise, far more than the others', and what is to be said of both.

    Raises `OperatorError` where too few samples tell of the noise.
    """
    covariance = noise_of(file, acquisition, alive, 1)[0]
    kspace, mask = next(some_slices(file, acquisition, 1))
    signal = kspace[alive].abs().square().sum((1, 2)) / mask.sum()
    power = covariance.diagonal().real
    loud = noisier(power, signal)
    drowned = loud & (signal < DROWNED * power)
    said = left_out(alive[drowned].tolist(), "more noise than signal")
    said = [f"{sentence}: --whiten weighs what there is" for sentence in said]
    rest = loud & ~drowned
    if rest.any():
        names, several = named(alive[rest].tolist())
        ratio = float((power / power.median()).sqrt()[rest].max())
        said.append(
            f"{names} {'have up to' if several else 'has'} {ratio:.2g} times the noise of most others: --whiten weighs "
            f"{'them' if several else 'it'}"
        )
    return alive[~drowned], said


def noisier(power: Tensor, signal: Tensor) -> Tensor:
    """(coils,) bool: whose noise ``power`` is far above that of most, and no trifle beside their ``signal`` (mean square)."""
    return ((power / power.median()).sqrt() > NOISIER) & (power > TRIFLE * signal)


def left_out(coils: list[int], what: str) -> list[str]:
    """A sentence on the coils that receive ``what``; none where there are none."""
    if not coils:
        return []
    names, several = named(coils)
    return [f"{names} receive{'' if several else 's'} {what} and {'are' if several else 'is'} left out"]


def named(coils: list[int]) -> tuple[str, bool]:
    """ "coil 3" or "coils 1, 2", and whether there are several."""
    several = len(coils) > 1
    return f"coil{'s' if several else ''} {', '.join(map(str, coils))}", several
