"""Forward operators on torch tensors: linear maps that know their domain, adjoint and normal operator.

Usable alone: ``A = Inpainting(mask); y = A(x); A.adjoint(y); check(A)``.
"""

from .base import Adjoint, Identity, Linear, Normal, Operator, Scale, Sum
from .check import check
from .coils import compress, noise_covariance, noise_level, rss, simulate_coils, whiten
from .complexify import Complexified, complexified
from .ct import CT
from .degradations.brushes import brush_mask
from .degradations.clipping import Clipping
from .degradations.colour import Colourisation
from .degradations.counts import PoissonDeviance, impulse_deviation, poisson_deviation
from .degradations.exposure import NonlinearBlur
from .degradations.jpeg import JPEG
from .degradations.kernels import anisotropic_kernel, motion_kernel
from .degradations.phase import PhaseRetrieval
from .differences import Difference
from .errors import LawBroken, OperatorError
from .fourier import Blur, fft2c, gaussian_kernel, ifft2c
from .interop import from_deepinv
from .krylov import cg, operator_norm, power_norm
from .maps.espirit import espirit
from .masks import make_mask
from .mri import MRI
from .noncartesian import NonCartesianMRI, density_compensation, radial_trajectory, spiral_trajectory
from .per_image import PerImage
from .physics import to_deepinv
from .pixels import Inpainting, SuperResolution
from .stacked import Stacked
from .whitened import Whitened, whitened

__all__ = [
    "CT",
    "JPEG",
    "MRI",
    "NonCartesianMRI",
    "Adjoint",
    "Blur",
    "Clipping",
    "Colourisation",
    "Complexified",
    "Difference",
    "Identity",
    "Inpainting",
    "LawBroken",
    "Linear",
    "Normal",
    "Operator",
    "OperatorError",
    "NonlinearBlur",
    "PerImage",
    "PhaseRetrieval",
    "PoissonDeviance",
    "Stacked",
    "Whitened",
    "whitened",
    "Scale",
    "Sum",
    "SuperResolution",
    "anisotropic_kernel",
    "brush_mask",
    "cg",
    "check",
    "complexified",
    "compress",
    "density_compensation",
    "espirit",
    "fft2c",
    "from_deepinv",
    "gaussian_kernel",
    "ifft2c",
    "impulse_deviation",
    "make_mask",
    "masks",
    "motion_kernel",
    "noise_covariance",
    "noise_level",
    "operator_norm",
    "poisson_deviation",
    "power_norm",
    "radial_trajectory",
    "rss",
    "simulate_coils",
    "spiral_trajectory",
    "to_deepinv",
    "whiten",
]
