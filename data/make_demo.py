"""``python data/make_demo.py [OUT.h5]``: a synthetic scan, as fastMRI's HDF5, from a drawing and the shipped prior.

A procedural T1-weighted head fixes the low and middle spatial frequencies; the prior draws a brain that agrees with
them (DDS on the drawing's central k-space, started from the drawing plus noise). Six Biot-Savart coils measure it.
"""

import sys
from pathlib import Path

import h5py
import numpy as np
import torch
from scipy.ndimage import distance_transform_edt, map_coordinates

import operators as op
import recon
from operators.coils import rss, simulate_coils
from operators.fourier import fft2c, ifft2c

SIZE, COILS, FINE, MM = 192, 6, 4 * 192, 220 / (4 * 192)  # drawn finer, then averaged: partial volume
NOISE, UNITS = 0.003, 2e-4  # noise per real component, white matter being about 1; scale of raw data
LOW, SIGMA, START = 40, 0.05, 0.2  # the drawing as data: radius in k-space, noise; noise of the start
ORIGIN = "synthetic: a drawing made natural by the prior brain-mri, no patient"
SPACE = f"<matrixSize><x>{SIZE}</x><y>{SIZE}</y><z>1</z></matrixSize><fieldOfView_mm><x>220</x><y>220</y><z>5</z></fieldOfView_mm>"  # fmt: skip
HEADER = f"""<?xml version="1.0"?><ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><studyInformation>
<studyDescription>{ORIGIN}</studyDescription></studyInformation><encoding><encodedSpace>{SPACE}</encodedSpace>
<reconSpace>{SPACE}</reconSpace><encodingLimits><kspace_encoding_step_1><minimum>0</minimum><maximum>{SIZE - 1}</maximum>
<center>{SIZE // 2}</center></kspace_encoding_step_1></encodingLimits><trajectory>cartesian</trajectory></encoding>
</ismrmrdHeader>"""


def smooth(rng: np.random.Generator, wavelength: float, bandwidth: float = 0.4) -> np.ndarray:
    """Periodic noise of unit variance (FINE, FINE) with features of ``wavelength`` mm."""
    radius = wavelength * np.hypot(np.fft.fftfreq(FINE, MM)[:, None], np.fft.fftfreq(FINE, MM))
    band = np.exp(-0.5 * ((radius - 1) / bandwidth) ** 2) * (radius > 0)
    noise = np.fft.ifft2(band * np.fft.fft2(rng.standard_normal(radius.shape))).real
    return noise / noise.std()


def drawing(seed: int = 9) -> np.ndarray:
    """A head at the level of the lateral ventricles, (SIZE, SIZE), face up; lengths in mm."""
    rng, axis = np.random.default_rng(seed), MM * (np.arange(FINE) - FINE / 2 + 0.5)
    y0, x0 = axis[:, None] + 0.9 * smooth(rng, 90), axis + 0.9 * smooth(rng, 90)
    y, x = y0 + 0.6 * smooth(rng, 25), x0 + 0.6 * smooth(rng, 25)  # warped: no half mirrors the other
    side, wave, fold = np.abs(x), 0.6 * smooth(rng, 50), 1.5 * smooth(rng, 22)

    def oval(cy: float, cx: float, height: float, width: float, tilt: float = 0.0) -> np.ndarray:
        dy, dx, c, s = y - cy, side - cx, np.cos(tilt), np.sin(tilt)
        return np.hypot((c * dy + s * dx) / height, (c * dx - s * dy) / width) < 1

    depth = MM * distance_transform_edt(np.hypot(y0 / 90, x0 / (72 + 0.07 * y0)) < 1)
    brain = depth > 12.5 + wave
    halves = brain & ~((side < 0.6) & ((y < -34) | (y > 38)))  # without the interhemispheric fissure
    below, surface = distance_transform_edt(halves, sampling=MM, return_indices=True)
    # Sulci: zero crossings of band-pass noise, pulled towards the surface so that they run inwards.
    at = 0.45 * surface + 0.55 * np.indices(brain.shape)
    sign = map_coordinates(smooth(rng, 17, 0.22), at, order=1, mode="grid-wrap") > 0
    sulci = (sign != np.roll(sign, 1, 0)) | (sign != np.roll(sign, 1, 1))
    sulci &= (below < 20 + 5 * smooth(rng, 40)) & ~oval(2, 0, 52, 41)
    sulci |= (np.abs(side - 39 - fold) < 0.4) & (np.abs(y + 4) < 18)  # insula and lateral sulcus
    sulci |= (np.abs(y + 12 - 0.3 * (side - 39) + 2 * fold) < 0.5) & (side > 39 + fold)
    cortex = MM * distance_transform_edt(halves & ~sulci)
    shells = (0, 0.5), (1.2, 0.85), (5.2, 0.06), (7.2, 0.28), (9, 0.06), (11, 0.14)
    image = np.zeros_like(depth)
    for start, value in shells:  # skin, fat, skull, its marrow, skull, fluid
        image[depth > start + wave] = value
    image[brain] = 0.52  # grey matter
    fluid = 0.25 + 0.9 * np.exp(-below / 6)  # sulci are wider near the surface
    image[brain & (cortex > fluid + 2.6 + 0.4 * smooth(rng, 15))] = 0.80  # white matter
    image[brain & (cortex < fluid)] = 0.14
    image[oval(-7, 26, 16, 5.5, 0.22) | oval(-19, 14, 10, 4.5, -0.35)] = 0.58  # putamen, caudate nucleus
    image[oval(-3, 21, 9, 4, 0.4) | oval(8, 11, 13, 8.5, 0.4)] = 0.66  # pallidum, thalamus
    image[oval(-22, 7, 13, 4, -0.35) & (side > 0.7)] = 0.13  # frontal horns, a septum between them
    image[oval(5, 0, 10, 1.3) | oval(33, 23, 13, 4.5, -0.45)] = 0.13  # third ventricle, atria
    image *= (depth > 0) * (1 + 0.02 * smooth(rng, 5)) * np.exp(0.05 * smooth(rng, 150))  # texture, shading
    return image.reshape(SIZE, 4, SIZE, 4).mean((1, 3))


def brain(seed: int = 4) -> torch.Tensor:
    """A sample of the prior given the drawing's low frequencies, (SIZE, SIZE) complex with a smooth phase."""
    line = torch.arange(SIZE) / (SIZE / 2) - 1
    phase = 0.4 + 0.5 * line[:, None] - 0.3 * line + 0.5 * line[:, None] ** 2 * (1 + line)
    image = torch.polar(torch.tensor(drawing(), dtype=torch.float32), phase)[None, None]
    image = image / torch.quantile(image.abs(), 0.995)
    A = op.MRI((line[:, None] ** 2 + line**2 < (2 * LOW / SIZE) ** 2).float())
    problem, prior = recon.Problem(A, A(image), SIGMA), recon.load_prior("brain-mri")
    return recon.sample(problem, prior, "dds", "renoise", 40, 1, seed, None, image, START).samples[0, 0, 0]


def main(path: Path) -> None:
    """Write the scan to ``path``."""
    coils = brain() * simulate_coils(COILS, (SIZE, SIZE))
    kspace = UNITS * (fft2c(coils) + NOISE * recon.Noise(0)(coils[None], 0)[0])
    reference = rss(ifft2c(kspace))
    with h5py.File(path, "w") as file:
        file["kspace"] = kspace[None].numpy().astype(np.complex64)
        file["reconstruction_rss"] = reference[None].numpy().astype(np.float32)
        file["ismrmrd_header"] = HEADER
        about = {"max": float(reference.max()), "norm": float(reference.norm())}
        file.attrs.update(about, acquisition="SYNTHETIC", patient_id=ORIGIN)
    print(f"{path}: {tuple(kspace.shape)}, {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("demo_brain.h5"))
