"""Scans that tomography is judged on: simulated ones of known slices, and real ones with what they are judged by."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import binary_fill_holes
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from operators import CT, Linear, Stacked

from ...io.images import read_stack
from ...io.tomography import open_sinogram
from ...jobs.shared.scans import ScanChoice, TomographySettings, open_scan, operator_for, plan_scan
from ...jobs.shared.tomograms import as_measured, rays_of
from ...metrics import psnr, ssim
from ...problem import Problem

CHEST, VOLUME = "ct/eval/tcga_chest_eval.npz", "ct/train/lidc0314_train_256.npz"
TOOTH, HELSINKI = "ct/sinograms/tooth_parallel.npz", "ct/sinograms/htc2022_tb_limited90.npz"
WATER = 0.02  # attenuation per mm, at about 70 keV
FIELD = 360.0  # mm, of the images of a chest
HELD_OUT = (50, 82)  # slices of the volume, which the prior has not seen
BODY = 0.3  # of the attenuation of water


@dataclass(frozen=True, eq=False)
class XrayScan:
    """Rays y, std (slices, 1, views, detectors) of slices seen by ``plane``, and the images (slices, H, W) they are judged by.

    Images are attenuation over ``water``, in the unit of ``plane``. ``body`` (slices, H, W): where they are compared as well;
    ``segmentation`` (H, W) of a scan that is judged by it.
    """

    name: str
    plane: CT
    y: Tensor
    std: Tensor
    water: float
    reference: Tensor | None
    body: Tensor | None = None
    segmentation: Tensor | None = None
    hounsfield: bool = True

    @property
    def volume(self) -> bool:
        """Whether its slices lie beside one another."""
        return len(self.y) > 1

    @property
    def operator(self) -> Linear:
        """What measures the slice, or the volume."""
        return self.water * (Stacked(self.plane, len(self.y)) if self.volume else self.plane)

    @property
    def problem(self) -> Problem:
        """Its weighted least squares."""
        y, std = (self.y[None], self.std[None]) if self.volume else (self.y, self.std)
        return Problem(self.operator, y, sigma=std)

    def score(self, image: Tensor) -> dict[str, float]:
        """How good an image (slices, H, W) is: psnr, ssim, of the body (psnr), in HU (rmse), or mcc."""
        if self.segmentation is not None:
            fine = interpolate(image[None], self.segmentation.shape, mode="bilinear")[0, 0]
            return {"mcc": matthews(fine, self.segmentation)}
        reference = self.reference
        assert reference is not None
        found = {"psnr": float(psnr(image, reference)), "ssim": float(ssim(image, reference))}
        if self.body is not None:
            off = (image - reference)[self.body].square().mean()
            found["body psnr"] = float(10 * torch.log10(reference.max() ** 2 / off))
            if self.hounsfield:
                found["HU"] = float(1000 * off.sqrt())
        return found


def matthews(image: Tensor, truth: Tensor) -> float:
    """Matthews correlation of ``truth`` (H, W) with the image above Otsu's threshold, the score of the Helsinki challenge 2022."""
    from skimage.filters import threshold_otsu

    values = image.double().numpy()
    found, truth = torch.from_numpy(values > threshold_otsu(values)).double(), truth.double()
    return float(torch.corrcoef(torch.stack((found.flatten(), truth.flatten())))[0, 1])


@dataclass(frozen=True)
class XrayCase:
    """How a chest is measured: ``views`` over ``arc`` degrees, ``photons`` a ray, parallel or fan beam."""

    views: int
    arc: float = 180.0
    photons: float = 1e5
    beam: str = "parallel"

    @property
    def label(self) -> str:
        """The case in words."""
        words = [f"{self.views} views over {self.arc:g} degrees", f"{self.photons:.0e} photons"]
        return ", ".join([*words, *([] if self.beam == "parallel" else [f"{self.beam} beam"])])

    def plane(self, size: int) -> CT:
        """The scan of one slice; a fan's source is as far as in a scanner."""
        pixel = FIELD / size
        angles = [self.arc * view / self.views for view in range(self.views)]
        if self.beam == "parallel":
            return CT(size, angles, pixel=pixel, pitch=pixel)
        return CT(size, angles, "fan", source=570.0, detector=1040.0, pixel=pixel, pitch=2 * pixel)


CHEST_CASES = {
    "sparse-8": XrayCase(8),
    "sparse-23": XrayCase(23),
    "sparse-49": XrayCase(49),
    "low-dose-49": XrayCase(49, photons=1e4),
    "fan-46": XrayCase(46, 360.0, beam="fan"),
    "limited-90": XrayCase(90, 90.0),
}
VOLUME_CASES = {"volume-8": XrayCase(8), "volume-30": XrayCase(30)}


def chest_slices(path: Path, first: int, last: int, size: int) -> Tensor:
    """Slices of a stack of HU + 1024 as attenuation over that of water, averaged to ``size`` pixels: (slices, size, size)."""
    stack = read_stack(path)[first:last]
    images = (1 + (stack - 1024) / 1000).clamp_min(0)
    return avg_pool2d(images[:, None], images.shape[-1] // size)[:, 0]


def simulated(name: str, case: XrayCase, images: Tensor, seed: int = 0) -> XrayScan:
    """Photons counted behind the slices, their logarithm, and the noise that the counts tell of.

    ``I ~ Poisson(I_0 exp(-A x))``, ``y = -log(max(I, 1) / I_0)``, ``std = max(I, 1)^-1/2``.
    """
    plane = case.plane(images.shape[-1])
    generator = torch.Generator().manual_seed(seed)
    behind = case.photons * torch.exp(-WATER * plane(images[:, None]))
    counts = torch.poisson(behind.double(), generator=generator).clamp_min(1).float()
    body = torch.from_numpy(np.stack([binary_fill_holes(image > BODY) for image in images.numpy()]))
    return XrayScan(name, plane, -torch.log(counts / case.photons), counts.rsqrt(), WATER, images, body)


def chest_scans(folder: Path, case: str, slices: int, size: int) -> Iterator[XrayScan]:
    """Each of the first evaluation slices under a case."""
    for index, image in enumerate(chest_slices(folder / CHEST, 0, slices, size)):
        yield simulated(f"{CHEST_CASES[case].label}, slice {index}", CHEST_CASES[case], image[None], index)


def volume_scans(folder: Path, case: str, slices: int, size: int) -> Iterator[XrayScan]:
    """The middle of the slices that were held out of the training, as a volume."""
    middle = sum(HELD_OUT) // 2
    first = max(HELD_OUT[0], middle - slices // 2)
    images = chest_slices(folder / VOLUME, first, min(first + slices, HELD_OUT[1]), size)
    yield simulated(f"{VOLUME_CASES[case].label}, {len(images)} slices", VOLUME_CASES[case], images)


def real_scan(path: Path, scan: ScanChoice, prior: object) -> XrayScan:
    """The middle slice of a sinogram, as ``recon reconstruct`` would see it, judged by the FBP of all its views."""
    settings = TomographySettings(scan=scan)
    plan, opened = plan_scan(path, path, settings, prior), open_scan(path, settings)
    plane, index = operator_for(opened, plan.size, plan.pixel), [plan.slices // 2]
    y, std = rays_of(opened.sinogram, index), as_measured(opened.std, opened.sinogram, index)
    reference = None
    if opened.whole is not None:
        whole = operator_for(replace(opened, sinogram=opened.whole), plan.size, plan.pixel)
        reference = whole.fbp(rays_of(opened.whole, index))[0] / plan.water
    return XrayScan(path.stem, plane, y, std, plan.water, reference, hounsfield=False)


def tooth_scan(folder: Path, prior: object) -> Iterator[XrayScan]:
    """30 of the 181 views of the tooth."""
    scan = real_scan(folder / TOOTH, ScanChoice(views=30), prior)
    yield replace(scan, name="tooth, 30 of 181 views")


def helsinki_scan(folder: Path, prior: object) -> Iterator[XrayScan]:
    """The disc of the Helsinki challenge from 90 degrees, at half its pixels, judged by its segmentation."""
    path = folder / HELSINKI
    pixel = open_sinogram(path).beam.pixel
    with np.load(path, allow_pickle=False) as archive:
        truth = torch.from_numpy(archive["segmentation_gt"])
    scan = real_scan(
        path, ScanChoice(size=len(truth) // 2, pixel=None if pixel is None else 2 * pixel), prior
    )
    yield replace(scan, name="Helsinki, fan beam over 90 degrees", segmentation=truth)


REAL: dict[str, Callable[[Path, object], Iterator[XrayScan]]] = {
    "tooth": tooth_scan,
    "helsinki": helsinki_scan,
}
