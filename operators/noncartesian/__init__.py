"""Non-Cartesian MRI: the operator, density compensation, trajectories. finufft is imported when a transform is computed."""

from .centre import covered_centre, gridded_centre, gridded_coils, trajectory_noise, trajectory_noise_level
from .density import density_compensation, sampled_share
from .mri import NonCartesianMRI
from .nufft import nufft, nufft_adjoint
from .trajectories import radial_trajectory, spiral_trajectory, trajectory_fault

__all__ = [
    "NonCartesianMRI",
    "gridded_coils",
    "sampled_share",
    "covered_centre",
    "density_compensation",
    "gridded_centre",
    "nufft",
    "nufft_adjoint",
    "radial_trajectory",
    "spiral_trajectory",
    "trajectory_fault",
    "trajectory_noise",
    "trajectory_noise_level",
]
