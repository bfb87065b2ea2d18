"""A slice from 23 views of counted photons: weighted least squares with the prior of chests, beside filtered back-projection.

python examples/tomography.py [slices.npz [picture.png]]: of HU + 1024, as the sets of data/README.md; without, of a phantom.
"""

import sys

import numpy as np
import torch
from skimage.data import shepp_logan_phantom

import operators as op
import recon
from recon.io import save_panel

size, views, photons = 128, 23, 1e5
if len(sys.argv) > 1:
    with np.load(sys.argv[1]) as archive:
        image = torch.from_numpy(archive["images"][0].astype(np.float32))
    image, size = (1 + (image - 1024) / 1000).clamp_min(0), 256  # attenuation over that of water
else:
    image = 2 * torch.from_numpy(shepp_logan_phantom()[8:392, 8:392].copy()).float()
image = torch.nn.functional.adaptive_avg_pool2d(image[None, None], size)

scan = op.CT(size, torch.arange(views) * 180 / views, pixel=360 / size, pitch=360 / size)  # mm
A = 0.02 * scan  # water attenuates by .02 per mm
generator = torch.Generator().manual_seed(0)
counts = torch.poisson(photons * torch.exp(-A(image)), generator=generator).clamp_min(1)
problem = recon.Problem(A, -torch.log(counts / photons), sigma=counts.rsqrt())  # of each ray its own noise

result = recon.sample(problem, recon.load_prior("chest-ct"), "dds", steps=20, samples=4)
fbp = scan.fbp(-torch.log(counts / photons)) / 0.02
error = (result.mean - image).square().mean().sqrt().item()
baseline = (fbp - image).square().mean().sqrt().item()
print(f"error {1000 * error:.0f} HU, of filtered back-projection {1000 * baseline:.0f} HU")
if len(sys.argv) > 2 and result.std is not None:
    panel = [tile[0, 0].clamp_min(0) for tile in (fbp, result.mean, result.std, image)]
    save_panel(sys.argv[2], *panel, caption=f"{views} views, {photons:g} photons a ray", without="FBP")
