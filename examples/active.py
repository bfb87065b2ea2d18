"""Which line of k-space to measure next: where the samples disagree most, against random lines."""

from pathlib import Path

import torch

import operators as op
import recon
from recon.io import open_kspace
from recon.io.resources import demo_file
from recon.posteriors.active.picture import draw_record

image = op.rss(op.ifft2c(open_kspace(demo_file()).read_slice(0).kspace))  # the synthetic brain that ships
image = (image / image.quantile(0.995)).to(torch.complex64)[None, None]
size = tuple(image.shape[-2:])  # 192 x 192
noise = torch.view_as_complex(torch.randn(*image.shape, 2, generator=torch.Generator().manual_seed(0)))
y_full = op.MRI(torch.ones(size))(image) + 0.01 * noise  # what the scanner could give, a line at a time

start = op.MRI(op.make_mask("gaussian", size, accel=12, center=0.08))  # 16 lines in the middle
problem = recon.Problem(start, y_full, sigma=0.01)  # reads these lines only
prior = recon.load_prior("brain-mri")
inner = recon.POSTERIORS["dds"](prior, steps=20, keep="state")


def scanned(choose: str) -> recon.Result:
    """48 lines in the end, a quarter, chosen while 4 samples are drawn in 10 steps."""
    active = recon.Active(inner, choose=choose, measure=lambda chosen: y_full * chosen, budget=48)
    return recon.sample(problem, prior, active, "sde-dpm++2m", steps=10, samples=4)


found, blind = scanned("entropy"), scanned("random")
error, baseline = ((r.mean - image).norm() / image.norm() for r in (found, blind))
print(f"error {error:.3f} with lines chosen by entropy, {baseline:.3f} with random ones")
print(f"{int(found.acquired.mask.sum())} lines; in order: {found.acquired.chosen[0]}")
Path("out").mkdir(exist_ok=True)
print(f"What was measured when, and why: {draw_record(found.acquired, 'out/active.png')}")
