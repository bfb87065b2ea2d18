"""The job behind ``recon inspect``: what k-space or sinograms a file holds, how sampled, how noisy; what weights are."""

from __future__ import annotations

from pathlib import Path

import torch

from operators.coils import noise_level
from operators.masks import calibration_region
from operators.noncartesian import covered_centre, density_compensation, sampled_share, trajectory_noise_level

from ..errors import ReconError
from ..io import KSpaceFile, Survey, open_kspace, survey
from ..io.acquisition import Acquisition, MaskChoice, acquire
from ..io.checks.layout import Layout, look
from ..io.tomography import is_tomography
from ..io.tomography.report import inspected
from ..networks.checkpoints.families import is_checkpoint
from ..networks.load import load_prior
from ..priors import about
from .shared.coils import mixing
from .shared.planning import settled_maps
from .shared.settings import Settings


def inspect(path: str | Path, layout: Layout | None = None) -> str:
    """A report of one file; what is wrong with it is a warning in it. Raises `ReconError` for what is not k-space.

    Weights of a prior, and folders of them, are reported as `weights` does, sinograms as `inspected` does.
    """
    if is_tomography(path):
        return inspected(path)
    if is_checkpoint(Path(path)):
        return weights(path)
    file, found, wrong = looked_at(path, layout)
    lines = [f"{file.path}: {file.format}", *contents(file), *geometry(file)]
    warnings = [*file.notes, *wrong]
    try:
        found = found or survey(file)
        acquisition = acquire(file, found, MaskChoice())
        lines += [*sampling(file, acquisition), *levels(file, acquisition, found.peak)]
        warnings += [*acquisition.notes, *mixing(file, found, acquisition, Settings()).said]
        if file.maps is not None:
            warnings += settled_maps(file, found, acquisition.mask, None)[1]
    except ReconError as error:
        warnings += [said for said in [one_line(error)] if said not in warnings]
    lines += [f"  warning    {warning}" for warning in warnings] or ["  warnings   none"]
    return "\n".join(lines)


def weights(path: str | Path) -> str:
    """A report of a prior's weights: of which family, of which images, what was assumed. Raises `ConfigError`."""
    known = about(load_prior(path))
    card, latent = known.card or {}, known.space.latent
    kind = "complex" if known.complex_images else "latents of real" if latent else "real"
    channels = card.get("channels") or card.get("network", {}).get("channels")
    low, high = known.allowed
    lines = [f"{path}: {card.get('family') or ('a latent prior' if latent else 'a prior of recon train')}"]
    if "network" in card:
        lines.append(
            f"  network    {card['network']['kind']}, {card.get('parameters', 0) / 1e6:.3g} M parameters"
        )
    lines.append(f"  images     {kind}{'' if channels is None else f', {channels} channels in the network'}")
    if "values" in card:
        lines.append("  values     0 and 1 are {:g} and {:g} for the network".format(*card["values"]))
    lines.append(f"  sigma      {low:.3g} to {high:.3g}")
    return "\n".join(
        lines + [f"  assumed    {key} = {value}" for key, value in card.get("assumed", {}).items()]
    )


def looked_at(path: str | Path, layout: Layout | None) -> tuple[KSpaceFile, Survey | None, list[str]]:
    """The file as `look` finds it; where `look` refuses it, as it is, and why."""
    try:
        return *look(path, layout), []
    except ReconError as error:
        return open_kspace(path), None, [one_line(error)]


def one_line(error: ReconError) -> str:
    """What happened, why, and what to do, in one line."""
    return f"{error.what} {error.why} {error.do}"


def contents(file: KSpaceFile) -> list[str]:
    """The arrays and attributes in the file."""
    lines = [
        f"  array      {name} {entry.shape} {entry.dtype}" for name, entry in file.store.entries().items()
    ]
    return lines + [f"  attribute  {name} = {str(value)[:100]}" for name, value in file.attrs.items()]


def geometry(file: KSpaceFile) -> list[str]:
    """Slices, coils, sizes, oversampling, header and reference."""
    if file.trajectory is not None:
        return [
            f"  k-space    {file.counts}, {file.height} readouts of {file.width} samples, {file.dtype}",
            f"  image      {file.crop[0]} x {file.crop[1]}",
            f"  reference  {file.reference or 'none'}",
            *([f"  maps       {file.maps}"] if file.maps else []),
        ]
    first, last = file.acquired
    lines = [
        f"  k-space    {file.counts}, {file.height} x {file.width} (readout x phase), {file.dtype}",
        f"  image      {file.crop[0]} x {file.crop[1]}, readout oversampling {file.oversampling:.3g}",
        f"  header     {'ISMRMRD' if file.store.header().present else 'none'}"
        + (
            f", phase lines {first} to {last - 1} of {file.width} acquired"
            if last - first < file.width
            else ""
        ),
        f"  reference  {file.reference or 'none'}",
    ]
    return lines + ([f"  maps       {file.maps}"] if file.maps else [])


def sampling(file: KSpaceFile, acquisition: Acquisition) -> list[str]:
    """The mask, where it is known from, and the region in the centre that is fully sampled."""
    if file.trajectory is not None:
        points, size = file.trajectory.of(0)[acquisition.mask.any(1)], file.trajectory.size
        density = density_compensation(points, size)
        width = int(covered_centre(points, density, size).sum(0).max())
        share = float(sampled_share(points, density, size).clamp(0, 1).mean())
        return [
            f"  trajectory {acquisition}, |k| up to {float(points.norm(dim=-1).max()):.3g} cycles per pixel",
            f"  centre     {width} x {width} fully sampled, {100 * share:.0f} % of k-space covered",
        ]
    said = "in the file" if file.mask is not None else "found, from the samples that are zero"
    whole = bool(acquisition.mask.all())
    lines = [f"  mask       {'none: ' if whole else ''}{acquisition}{'' if whole else f' ({said})'}"]
    height, width = acquisition.mask.shape
    if bool(acquisition.mask[height // 2, width // 2]):
        rows, columns = calibration_region(acquisition.mask)
        size = f"{rows.stop - rows.start} x {columns.stop - columns.start}"
        return [*lines, f"  centre     {size} fully sampled"]
    return [*lines, "  centre     not sampled: sensitivity maps cannot be estimated"]


def levels(file: KSpaceFile, acquisition: Acquisition, peak: float) -> list[str]:
    """Noise of the middle slice per real component, its strength, and the largest sample of all."""
    piece = file.read_slice(file.slices // 2)
    kspace = piece.kspace
    if piece.trajectory is None:
        sigma = float(noise_level(kspace, acquisition.mask))
    else:
        used = acquisition.mask.any(1)
        sigma = trajectory_noise_level(kspace[:, used], piece.trajectory[used])
    strength = float(torch.view_as_real(kspace[:, acquisition.mask]).square().mean().sqrt())
    return [
        f"  noise      {sigma:.3g} per real component (slice {file.slices // 2}); signal and noise rms {strength:.3g}",
        f"  largest    |k| = {peak:.3g}",
    ]
