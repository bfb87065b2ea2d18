"""The picture of the README: a brain slice of a CC BY set, eight simulated coils, 4x undersampled."""

import sys
from pathlib import Path

import numpy as np
import torch

import recon
from operators.coils import rss
from operators.fourier import fft2c
from operators.masks import make_mask
from recon.io import save_panel
from recon.io.simulated import coil_images
from recon.mri import reconstruct_slice
from recon.registry.recipe import Recipe

source = Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/data/mri/eval/openms_eval.npz")
out = Path(sys.argv[2] if len(sys.argv) > 2 else "examples/brain_4x.png")
with np.load(source) as archive:
    image = torch.from_numpy(archive["images"][4].astype(np.float32))
coils = coil_images(image, seed=4)
mask = make_mask("equispaced-fraction", tuple(image.shape), 4, 0.08)
kspace = fft2c(coils) + 0.01 * recon.Noise(0)(coils[None], 0)[0]
result = reconstruct_slice(kspace, mask, Recipe(), recon.load_prior("brain-mri"))
out.parent.mkdir(exist_ok=True)
save_panel(out, result.zero_filled, result.mean.abs(), result.std, rss(coils), 1.0, "4x, 8 coils")
print(f"{out}: {result.network_calls} network calls a sample, {result.seconds:.0f} s")
