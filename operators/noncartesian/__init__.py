"""Non-Cartesian MRI: the operator, density compensation, trajectories. finufft is imported when a transform is computed."""

from .density import density_compensation
from .mri import NonCartesianMRI
from .nufft import nufft, nufft_adjoint
from .trajectories import radial_trajectory, spiral_trajectory, trajectory_fault

__all__ = [
    "NonCartesianMRI",
    "density_compensation",
    "nufft",
    "nufft_adjoint",
    "radial_trajectory",
    "spiral_trajectory",
    "trajectory_fault",
]
