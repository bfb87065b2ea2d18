"""The operators alone, no diffusion: CG-SENSE, argmin ||A x - y||^2 + w ||x||^2, its weight relative to ||A||^2."""

import torch
from skimage.data import shepp_logan_phantom

import operators as op
from operators.coils import simulate_coils
from operators.masks import make_mask

torch.manual_seed(0)
image = torch.tensor(shepp_logan_phantom()[::4, ::4], dtype=torch.complex64)[None, None]
A = op.MRI(make_mask("equispaced", (100, 100), accel=3), simulate_coils(8, (100, 100)))
y = A(image)
y = y + 0.002 * torch.view_as_complex(torch.randn(*y.shape, 2)) * A.mask

weight = 1e-3 * op.operator_norm(A) ** 2
solution = op.cg(lambda x: A.normal(x) + weight * x, A.adjoint(y), steps=30)
error = (solution - image).norm() / image.norm()

projection = A.adjoint(y)  # the best multiple of it, to be fair to zero-filling
projection = projection * (projection.conj() * image).sum() / projection.norm() ** 2
baseline = (projection - image).norm() / image.norm()
print(f"{A!r}: error {error:.3f}, zero-filled {baseline:.3f}")
