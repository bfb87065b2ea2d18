"""A measurement and a prior in, samples of the image with their mean and spread out."""

import torch
from skimage.data import shepp_logan_phantom

import operators as op
import recon
from operators.masks import make_mask

torch.manual_seed(0)
image = torch.tensor(shepp_logan_phantom()[::4, ::4], dtype=torch.complex64)[None, None]  # (1, 1, 100, 100)
A = op.MRI(make_mask("poisson", (100, 100), accel=2.5))  # 40 % of k-space
y = A(image) + 0.01 * torch.view_as_complex(torch.randn(1, 1, 100, 100, 2)) * A.mask
problem = recon.Problem(A, y, sigma=0.01)
result = recon.sample(problem, recon.load_prior("brain-mri"), solver="renoise", steps=20, samples=4)

error, baseline = ((x - image).norm() / image.norm() for x in (result.mean, A.adjoint(y)))
print(f"{result.network_calls} network calls a sample: error {error:.3f}, zero-filled {baseline:.3f}")
print(f"mean {tuple(result.mean.shape)}, standard deviation up to {result.std.max():.3f}")
