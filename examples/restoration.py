"""A restoration model as a prior: IR-SDE's network with its own sampler and with MR Sampler, twenty calls each."""

import torch

import operators as op
import recon
from recon.priors import Gaussian
from recon.restoration import MeanReverting, RestorationPrior
from recon.solvers import Ancestral, MRSampler

torch.manual_seed(0)
size, eye, process = 12, torch.eye(144).double(), MeanReverting()
place = torch.cartesian_prod(torch.arange(size), torch.arange(size)).double()
smooth = 0.2 * torch.exp(-(torch.cdist(place, place) ** 2) / 8) + 1e-4 * eye
truth = (torch.linalg.cholesky(smooth) @ torch.randn(size**2).double()).reshape(1, 1, size, size)
blur = op.Blur(torch.ones(5, 5) / 25, (1, size, size)).to(torch.float64)
degraded = blur(truth) + 0.05 * torch.randn_like(truth)

# What a perfectly trained network knows: x0 given y, in closed form for smooth Gaussian images.
H = blur(eye.reshape(-1, 1, size, size)).flatten(1).T
gain = smooth @ H.T @ torch.linalg.inv(H @ smooth @ H.T + 0.05**2 * eye)
known = smooth - gain @ H @ smooth
restored = Gaussian((gain @ degraded.flatten()).view(1, size, size), (known + known.T) / 2)


def network(z, y, label):  # predicts the noise in z = a x0 + (1 - a) y + s eps
    a, s = process.scale(label[0].item()), process.std(label[0].item())
    x = (z - (1 - a) * y) / a
    return (x - restored(x, s / a)) * a / s


prior = RestorationPrior(network, process, degraded)
problem = recon.Problem(op.Identity((1, size, size)), degraded, 0.05)
off = []
for solver in (Ancestral(process=process), MRSampler()):
    result = recon.sample(problem, prior, "prior", solver, steps=20, samples=100, grid="exponential")
    off.append(float((result.std[0].flatten() / known.diag().sqrt() - 1).abs().mean()))
    rmse = [float((image - truth).square().mean().sqrt()) for image in (degraded, result.mean)]
    print(f"{type(solver).__name__}: rmse {rmse[0]:.3f} to {rmse[1]:.3f}, std off by {off[-1]:.0%}")
baseline, error = off
