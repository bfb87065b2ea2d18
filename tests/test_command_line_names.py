"""Laws over the registries of the command line themselves: whatever name is added is held to what its kind promises.

Solvers, samplers, policies, resampling schemes, grids and peers have suites of their own.
"""

from __future__ import annotations

from inspect import signature

import pytest
import torch
from worlds import random, random_complex

import operators as op
from operators.masks import MASKS, make_mask
from recon.latent import LatentPrior
from recon.networks.load import PRIORS
from recon.registry.operators import OPERATORS, make_operator

SIZE = (32, 32)
IMAGES = [
    pytest.param(name, is_complex, id=f"{name}, {'complex' if is_complex else 'real'}")
    for name, entry in OPERATORS.items()
    for is_complex in (False, True)
    if not (entry.real_only if is_complex else entry.complex_images)
]


@pytest.mark.parametrize("name, complex_images", IMAGES)
def test_operators_keep_their_laws(name, complex_images):
    """As they come, without options, for images of the size and kind asked for."""
    channels = getattr(signature(OPERATORS[name].kind).parameters.get("channels"), "default", 1)
    A = make_operator(name, {}, SIZE, complex_images, channels)
    assert tuple(A.domain) == (channels, *SIZE) and A.complex_domain == complex_images
    assert op.check(A, torch.float64)


@pytest.mark.parametrize("name", MASKS)
def test_masks_sample_the_share_asked_for(name):
    """One in four samples, the centre of k-space among them; again the same from the same seed."""
    mask = make_mask(name, (96, 80), 4.0, 0.08, 3)
    assert mask.dtype == torch.bool and mask.shape == (96, 80) and mask[48, 40]
    assert float(mask.double().mean()) == pytest.approx(0.25, rel=0.25)
    assert torch.equal(mask, make_mask(name, (96, 80), 4.0, 0.08, 3))


@pytest.mark.parametrize("name", PRIORS)
def test_priors_take_noise_away(name):
    """A prior knows the name it ships under, and of images or latents that are pure noise it leaves little."""
    prior = PRIORS[name]()
    assert prior.card["name"] == name
    kind = torch.complex64 if prior.card["complex_images"] else torch.float32
    channels = 1 if prior.card["complex_images"] else prior.card["network"]["channels"]
    image = torch.zeros(2, channels, *SIZE, dtype=kind)
    like = prior.encode(image) if isinstance(prior, LatentPrior) else image
    noise = (random_complex if like.is_complex() else random)(*like.shape, seed=3).to(like.dtype)
    for sigma in (2.0, 8.0):
        clean = prior(sigma * noise, sigma)
        assert clean.shape == noise.shape and clean.dtype == noise.dtype
        assert float(clean.norm()) < 0.5 * sigma * float(noise.norm())
