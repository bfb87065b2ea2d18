"""Four coils, a quarter of k-space: maps and noise level from the data, then DDS; mean and standard deviation."""

import torch
from skimage.data import shepp_logan_phantom

import operators as op
import recon
from operators.coils import noise_level, rss, simulate_coils
from operators.maps.espirit import espirit
from operators.masks import make_mask

torch.manual_seed(0)
image = torch.tensor(shepp_logan_phantom()[::4, ::4], dtype=torch.complex64)  # (100, 100)
coils = simulate_coils(4, image.shape) * image
noise = 0.005 * torch.view_as_complex(torch.randn(*coils.shape, 2))
mask = make_mask("equispaced-fraction", image.shape, accel=4, center=0.16)
kspace = (op.fft2c(coils) + noise) * mask  # what the scanner gives

maps, _ = espirit(kspace, mask, crop=0.5)
A = op.MRI(mask, maps)
scale = A.adjoint(kspace[None]).abs().quantile(0.995)  # the prior knows images whose bright parts are 1
sigma = max(noise_level(kspace, mask), 0.005) / scale
problem = recon.Problem(A, kspace[None] / scale, float(sigma))
result = recon.sample(problem, recon.load_prior("brain-mri"), solver="renoise", steps=20, samples=4)

truth, zero_filled = rss(coils), rss(op.ifft2c(kspace))
mean = result.mean[0, 0].abs() * scale
error, baseline = (mean - truth).norm() / truth.norm(), (zero_filled - truth).norm() / truth.norm()
print(f"error {error:.3f}, zero-filled {baseline:.3f}")
print(f"standard deviation of the magnitude: {result.magnitude_std.mean() * scale:.4f} on average")
