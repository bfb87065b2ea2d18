"""Make ``demo_brain.h5``: a synthetic scan in fastMRI's HDF5 layout, from nothing but the shipped prior.

A crude drawing of a head (ellipses) fixes the lowest spatial frequencies; the prior draws a brain with
them (DDS on the drawing's central k-space). Six receive coils by Biot-Savart and complex noise make
it a measurement. Run: ``python data/make_demo.py [OUT.h5]``.
"""

import sys
from pathlib import Path

import h5py
import numpy as np
import torch

import operators as op
import recon
from operators.coils import rss, simulate_coils
from operators.fourier import fft2c, ifft2c

SIZE, COILS, NOISE, UNITS = 192, 6, 0.01, 2e-4  # UNITS: raw scanner data is small
LOW = 10  # half-width of the drawing's k-space that the brain must agree with
ELLIPSES = [  # centre y, centre x, half-height, half-width, added intensity; in half images
    (0.00, 0.00, 0.86, 0.68, 0.75),  # scalp
    (0.00, 0.00, 0.80, 0.62, -0.60),  # skull and fluid
    (0.00, 0.00, 0.75, 0.57, 0.40),  # grey matter
    (0.00, 0.00, 0.62, 0.45, 0.15),  # white matter
    (-0.10, -0.10, 0.22, 0.06, -0.40),  # ventricles
    (-0.10, 0.10, 0.22, 0.06, -0.40),
    (0.00, 0.00, 0.74, 0.012, -0.25),  # falx
]
HEADER = """<?xml version="1.0"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">
  <studyInformation><studyDescription>synthetic: drawn from the prior brain-mri</studyDescription></studyInformation>
  <encoding>
    <encodedSpace><matrixSize><x>{n}</x><y>{n}</y><z>1</z></matrixSize>
      <fieldOfView_mm><x>220</x><y>220</y><z>5</z></fieldOfView_mm></encodedSpace>
    <reconSpace><matrixSize><x>{n}</x><y>{n}</y><z>1</z></matrixSize>
      <fieldOfView_mm><x>220</x><y>220</y><z>5</z></fieldOfView_mm></reconSpace>
    <encodingLimits><kspace_encoding_step_1><minimum>0</minimum><maximum>{last}</maximum><center>{half}</center>
      </kspace_encoding_step_1></encodingLimits>
    <trajectory>cartesian</trajectory>
  </encoding>
</ismrmrdHeader>"""


def drawing() -> torch.Tensor:
    """The ellipses, (1, 1, SIZE, SIZE) complex."""
    line = torch.linspace(-1, 1, SIZE)
    image = torch.zeros(SIZE, SIZE)
    for y, x, height, width, value in ELLIPSES:
        image += value * (((line[:, None] - y) / height) ** 2 + ((line - x) / width) ** 2 < 1)
    return image[None, None].to(torch.complex64)


def brain(seed: int = 4) -> torch.Tensor:
    """A sample of the prior whose lowest frequencies are the drawing's."""
    centre = torch.zeros(SIZE, SIZE)
    centre[SIZE // 2 - LOW : SIZE // 2 + LOW, SIZE // 2 - LOW : SIZE // 2 + LOW] = 1
    A, prior = op.MRI(centre), recon.load_prior("brain-mri")
    problem = recon.Problem(A, A(drawing()), sigma=0.05)
    return recon.sample(problem, prior, "dds", recon.SOLVERS["ddim"](eta=1.0), 60, 1, seed).samples[0, 0, 0]


def main(path: Path) -> None:
    image = brain()
    coils = image.abs() * simulate_coils(COILS, (SIZE, SIZE))
    noise = NOISE * recon.Noise(0)(coils[None], 0)[0]
    kspace = UNITS * (fft2c(coils) + noise)
    reference = rss(ifft2c(kspace))
    with h5py.File(path, "w") as file:
        file["kspace"] = kspace[None].numpy().astype(np.complex64)
        file["reconstruction_rss"] = reference[None].numpy().astype(np.float32)
        file["ismrmrd_header"] = HEADER.format(n=SIZE, last=SIZE - 1, half=SIZE // 2)
        file.attrs["acquisition"] = "SYNTHETIC"
        file.attrs["patient_id"] = "synthetic: drawn from the prior brain-mri, no patient"
        file.attrs["max"], file.attrs["norm"] = float(reference.max()), float(reference.norm())
    print(f"{path}: {tuple(kspace.shape)}, {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("demo_brain.h5"))
