"""Which samples of a k-space file are used: those that were measured, thinned by a mask, named or given."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from operators.maps.espirit import SMALLEST
from operators.masks import MASKS, acceleration, calibration_region, make_mask
from operators.noncartesian import covered_centre, density_compensation

from ..errors import ConfigError, InputError, unknown
from . import PICTURES, READERS, KSpaceFile, Survey, read_mask
from .checks.masks import lines_are_rows, settled_mask

ALIKE = 0.9  # slices that share this part of their samples differ by accidental zeros
READOUTS = (
    "equispaced",
    "equispaced-fraction",
    "random",
)  # masks that leave out whole readouts of a trajectory
NEARLY_FULL = 0.98  # a pattern this full within its rows and columns is a rectangle with accidental zeros


@dataclass(frozen=True)
class MaskChoice:
    """``name`` of a mask, or the path of one; ``accel`` and ``center`` as in `operators.masks.make_mask`.

    Without a name or an acceleration all measured samples are used; an acceleration alone means
    "equispaced-fraction", a name alone acceleration 4. Raises `ConfigError` for settings that contradict each other.
    """

    name: str | None = None
    accel: float | None = None
    center: float | None = None

    def __post_init__(self):
        for key in ("accel", "center"):
            value = getattr(self, key)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
                raise ConfigError(f"The {key} of the mask is {value!r}.", "It is a number.")
        if self.is_file:
            if self.accel is not None or self.center is not None:
                raise ConfigError(
                    f"The mask {self.name} was given with an acceleration or a centre.",
                    "A mask from a file has its own.",
                    "Leave out --accel and --center, or name a mask.",
                )
        elif self.name is not None and self.key not in MASKS:
            raise unknown("mask", self.name, MASKS)
        elif self.center is not None and not self.undersamples:
            raise ConfigError(
                "--center was given without --accel.",
                "Without an acceleration all lines are used.",
                "Add --accel 4.",
            )

    @property
    def key(self) -> str:
        """The name of the mask as `operators.masks.MASKS` has it."""
        return (self.name or "equispaced-fraction").lower().replace("_", "-")

    @property
    def is_file(self) -> bool:
        """Whether the name is the path of a file, not of a kind of mask."""
        if self.name is None or self.key in MASKS:
            return False
        path = Path(self.name)
        return path.suffix.lower() in (*READERS, *PICTURES) or path.parent != Path(".") or path.exists()

    @property
    def undersamples(self) -> bool:
        """Whether a mask is generated; the name of the file seeds it."""
        return not self.is_file and (self.name is not None or self.accel is not None)


@dataclass(frozen=True, eq=False)
class Acquisition:
    """``mask`` (H, W) bool, true where k-space is used; ``measured`` (H, W) bool, true where it was measured.

    ``notes`` are sentences about what is unusual.
    """

    mask: Tensor
    measured: Tensor
    notes: tuple[str, ...] = ()

    @property
    def simulated(self) -> bool:
        """Whether measured samples are left out, so that all of them together give a reference."""
        return bool((self.mask != self.measured).any())

    @property
    def whole_columns(self) -> bool:
        """Whether only whole phase lines are left out."""
        return bool((self.mask == self.mask[:1]).all())

    @property
    def whole_rows(self) -> bool:
        """Whether only whole rows are left out: phase lines, of a phase encoding along H."""
        return bool((self.mask == self.mask[:, :1]).all())

    @property
    def accel(self) -> float:
        """Measured samples over those used; if none is left out, all samples over those measured."""
        if self.simulated:
            return int(self.measured.sum()) / int(self.mask.sum())
        return acceleration(self.mask)

    def __str__(self) -> str:
        height, width = self.mask.shape
        if self.whole_rows and not self.whole_columns:
            return f"{int(self.mask[:, 0].sum())} of {height} rows, acceleration {self.accel:.3g}"
        if not self.whole_columns:
            return f"{int(self.mask.sum())} of {height} x {width} samples, acceleration {self.accel:.3g}"
        lines, measured = int(self.mask[0].sum()), int(self.measured.any(0).sum())
        padding = (
            f" ({width - measured} more are zero padding)" if self.simulated and measured < width else ""
        )
        total = measured if self.simulated else width
        return f"{lines} of {total} lines{padding}, acceleration {self.accel:.3g}"


@dataclass(frozen=True, eq=False)
class Readouts(Acquisition):
    """Those of a trajectory: ``mask`` and ``measured`` are (readouts, samples), all samples of a readout alike.

    ``accel`` is 1 where all readouts of the file are used, whatever they cover of k-space.
    """

    @property
    def whole_columns(self) -> bool:
        """Never: there are no columns."""
        return False

    def __str__(self) -> str:
        used, measured = int(self.mask.any(1).sum()), int(self.measured.any(1).sum())
        samples = self.mask.shape[1]
        said = f"{used} of {measured} readouts of {samples} samples"
        return f"{said}, acceleration {self.accel:.3g}" if self.simulated else said


def acquire_readouts(file: KSpaceFile, survey: Survey, choice: MaskChoice) -> Readouts:
    """Which readouts of a trajectory are used: with an acceleration R every R-th, or at random.

    Raises `InputError` for a mask of Cartesian k-space.
    """
    measured = survey.sampled.any(1)[:, None].expand(survey.sampled.shape).clone()
    if not choice.undersamples and not choice.is_file:
        return Readouts(measured, measured)
    if choice.is_file or choice.center is not None or choice.key not in READOUTS:
        raise InputError(
            f"{file.path}: the mask {choice.name or 'with a centre'} is one of Cartesian k-space.",
            "Of a trajectory whole readouts are left out, and its centre is what it is.",
            f"Use --accel alone, or --mask {' or '.join(READOUTS)}.",
        )
    accel = 4.0 if choice.accel is None else float(choice.accel)
    readouts = measured.any(1).nonzero()[:, 0]
    kept = int(len(readouts) / accel + 0.5) if accel >= 1 else 0
    if kept < 1:
        raise InputError(
            f"{file.path}: acceleration {accel:g} of {len(readouts)} readouts was asked for.",
            "It leaves none, or more than there are.",
            f"Use --accel 1 to {len(readouts)}.",
        )
    if choice.key == "random":
        places = torch.from_numpy(np.random.default_rng(seed_of(file)).permutation(len(readouts))[:kept])
    else:
        places = (torch.arange(kept) * (len(readouts) / kept)).long()
    mask = torch.zeros_like(measured)
    mask[readouts[places]] = True
    return Readouts(mask, measured)


def seed_of(file: KSpaceFile) -> int:
    """A number that the name of the file decides."""
    return int.from_bytes(hashlib.blake2b(file.path.name.encode(), digest_size=4).digest(), "little")


def acquire(file: KSpaceFile, survey: Survey, choice: MaskChoice) -> Acquisition:
    """Which samples of ``file`` are used. A generated mask is seeded by the file's name, as in fastMRI.

    Raises `InputError` or `operators.OperatorError` if no sample is left, if a mask is to be generated for a
    file that is undersampled already, and for an acceleration that the number of lines does not allow.
    """
    if file.trajectory is not None:
        return acquire_readouts(file, survey, choice)
    measured = measured_samples(file, survey)
    shape, notes = (file.height, file.width), []
    if choice.is_file:
        path = Path(str(choice.name))
        chosen = read_mask(path, file, pattern(survey.sampled))
        chosen, notes = settled_mask(path, chosen, pattern(survey.sampled), file.shifted)
    elif choice.undersamples:
        refuse_twice(file, measured)
        refuse_turns(file, measured, survey.always)
        accel = 4.0 if choice.accel is None else float(choice.accel)
        chosen = make_mask(choice.key, shape, accel, choice.center, seed=file.path.name)
    else:
        chosen = measured
    mask = chosen & measured
    if not mask.any():
        raise InputError(
            f"{file.path}: no sample is left.",
            "The mask and the samples that were measured have none in common.",
            "Use the mask of this acquisition, or none.",
        )
    return Acquisition(mask, measured, tuple(notes))


def measured_samples(file: KSpaceFile, survey: Survey) -> Tensor:
    """(H, W) bool: where k-space was measured, judged by its non-zero samples and the file's own mask."""
    measured, mask = pattern(survey.sampled), file.mask
    if mask is None:
        return measured
    if mask.ndim == 1 and file.height == file.width and lines_are_rows(mask.numpy(), measured):
        mask = mask[:, None]
    return measured & mask.expand(file.height, file.width)


def sampled_in(kspace: Tensor, mask: Tensor) -> Tensor:
    """(H, W) bool: the samples of ``mask`` that were measured in this slice (coils, H, W); slices may differ."""
    return mask & pattern((kspace != 0).any(0)).to(mask.device)


def pattern(sampled: Tensor) -> Tensor:
    """(H, W) bool: whole rows and columns if nearly all their samples are non-zero, else sample by sample."""
    box = sampled.any(1)[:, None] & sampled.any(0)[None]
    return box if int(sampled.sum()) >= NEARLY_FULL * int(box.sum()) else sampled


def refuse_twice(file: KSpaceFile, measured: Tensor) -> None:
    """Raises `InputError` if more than an edge of zero padding is missing, as a generated mask presumes."""
    if has_gaps(measured):
        raise InputError(
            f"{file.path} is undersampled already, by {acceleration(measured):.3g}.",
            "A further mask would give an acceleration that nobody asked for.",
            "Leave out --accel and --mask to use its own sampling.",
        )


def refuse_turns(file: KSpaceFile, measured: Tensor, always: Tensor) -> None:
    """Raises `InputError` if much of what was ``measured`` is missing in some slice (``always``: in none)."""
    if int((measured & always).sum()) < ALIKE * int(measured.sum()):
        raise InputError(
            f"The slices of {file.path} were sampled differently.",
            "Each is undersampled already, and a further mask would thin some of them more than others.",
            "Leave out --accel and --mask to use its own sampling.",
        )


def has_gaps(measured: Tensor) -> bool:
    """Whether more than an edge of zero padding was not measured (H, W)."""
    rows, columns = measured.any(1), measured.any(0)
    gaps = any(bool((~line[line.nonzero()[0] : line.nonzero()[-1] + 1]).any()) for line in (rows, columns))
    return gaps or bool((measured != (rows[:, None] & columns[None])).any())


def refuse_few_lines(file: KSpaceFile, acquisition: Acquisition, kernel: int | None) -> None:
    """Raises `InputError` if the fully sampled centre is smaller than the ``kernel`` of the map estimation, None for the smallest.

    The centre is that of the calibration scan, where the file has one.
    """
    kernel = kernel or SMALLEST
    if file.trajectory is not None:
        return refuse_sparse_centre(file, acquisition, kernel)
    calibration = file.store.calibration(0)
    mask = acquisition.mask if calibration is None else pattern(torch.from_numpy((calibration != 0).any(0)))
    rows, columns = calibration_region(mask)
    size = (rows.stop - rows.start, columns.stop - columns.start)
    if min(size) < kernel:
        raise InputError(
            f"{file.path}: the fully sampled centre is {size[0]} x {size[1]} samples at acceleration {acquisition.accel:.3g}.",
            f"Sensitivity maps of {file.coils} coils are estimated from at least {kernel} x {kernel}.",
            f"Use a lower --accel, a larger --center ({max(kernel, 12) / file.width:.2g}), or give maps with --maps.",
        )


def refuse_sparse_centre(file: KSpaceFile, acquisition: Acquisition, kernel: int) -> None:
    """Raises `InputError` if the centre that a trajectory covers is smaller than the ``kernel`` of the map estimation."""
    assert file.trajectory is not None
    points = file.trajectory.of(0)[acquisition.mask.any(1)]
    density = density_compensation(points, file.trajectory.size)
    covered = covered_centre(points, density, file.trajectory.size)
    size = int(covered.sum(0).max())
    if size < kernel:
        raise InputError(
            f"{file.path}: the centre of k-space is fully sampled over {size} x {size} cells only.",
            f"Sensitivity maps of {file.coils} coils are estimated from at least {kernel} x {kernel}.",
            "Use more readouts, a trajectory that is denser in the centre, or give maps with --maps.",
        )
