"""Metrics agree with scikit-image, name their convention, and coverage is the level for exact samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import metrics as oracle

from recon import metrics
from recon.errors import InputError


def pair(shape: tuple[int, ...], seed: int = 0, error: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    reference = rng.random(shape) * 1e-4
    return np.abs(reference + error * 1e-4 * rng.standard_normal(shape)), reference


def test_fastmri_convention_is_scikit_image_on_volumes():
    recon, reference = pair((3, 21, 18))
    top = reference.max()
    psnr = oracle.peak_signal_noise_ratio(reference, recon, data_range=top)
    ssim = np.mean(
        [oracle.structural_similarity(r, x, data_range=top) for x, r in zip(recon, reference, strict=True)]
    )
    nmse = np.linalg.norm(reference - recon) ** 2 / np.linalg.norm(reference) ** 2
    assert float(metrics.psnr(recon, reference)) == pytest.approx(psnr, abs=1e-6)
    assert float(metrics.ssim(recon, reference)) == pytest.approx(ssim, abs=1e-6)
    assert float(metrics.nmse(recon, reference)) == pytest.approx(nmse, abs=1e-6)


def test_a_slice_can_be_given_the_range_of_its_volume():
    recon, reference = pair((2, 16, 16))
    reference[1] *= 0.3
    top = reference.max()
    wanted = oracle.peak_signal_noise_ratio(reference[1], recon[1], data_range=top)
    found = metrics.scores(recon[1], reference[1], top)
    assert float(found["fastmri_psnr"]) == pytest.approx(wanted, abs=1e-6)
    assert float(metrics.psnr(recon[1], reference[1])) < wanted


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.integers(7, 24), st.integers(7, 24), st.floats(1e-3, 1e3), st.integers(0, 99))
def test_scaled_convention_forgets_the_scale(H, W, factor, seed):
    recon, reference = pair((H, W), seed)
    reference[0] *= 1e-3
    inside = reference > 0.05 * reference.max()
    scale = (recon * reference)[inside].sum() / (recon**2)[inside].sum()
    top = reference.max()
    psnr = oracle.peak_signal_noise_ratio(reference, scale * recon, data_range=top)
    ssim = oracle.structural_similarity(reference, scale * recon, data_range=top)
    found = metrics.scaled_psnr(factor * recon * np.exp(1j), reference)
    assert float(found) == pytest.approx(psnr, abs=1e-6)
    assert found.scale == pytest.approx(scale / factor)
    assert float(metrics.scaled_ssim(factor * recon, reference)) == pytest.approx(ssim, abs=1e-6)
    assert float(metrics.scaled_nmse(factor * recon, reference)) == pytest.approx(
        ((scale * recon - reference) ** 2).sum() / (reference**2).sum(), abs=1e-9
    )


def test_every_score_says_its_convention():
    recon, reference = pair((12, 12))
    found = metrics.scores(torch.from_numpy(recon), torch.from_numpy(reference))
    assert {name: score.convention for name, score in found.items()} == metrics.CONVENTIONS
    assert "volume" in str(found["fastmri_psnr"]) and "least squares" in str(found["scaled_psnr"])


def test_limits():
    recon, reference = pair((12, 12))
    assert float(metrics.psnr(reference, reference)) == np.inf
    assert float(metrics.ssim(reference, reference)) == pytest.approx(1)
    assert metrics.scaled_psnr(0 * recon, reference).scale == 0
    assert np.isnan(float(metrics.ssim(recon[:5], reference[:5])))


@pytest.mark.parametrize(
    "recon, reference",
    [
        (np.ones((4, 4)), np.ones((4, 5))),
        (np.ones((4, 4)), np.zeros((4, 4))),
        (np.ones((2, 2)), np.full((2, 2), np.nan)),
    ],
)
def test_what_cannot_be_compared_is_refused(recon, reference):
    with pytest.raises(InputError) as caught:
        metrics.scores(recon, reference)
    assert caught.value.what and caught.value.why and caught.value.do


@pytest.mark.parametrize("k", [2, 4, 8, 18])
def test_coverage_of_exact_samples_is_the_level(k):
    """Reference and samples of one normal law: the prediction interval then holds it 90 % of the time."""
    rng = np.random.default_rng(k)
    centre = 5 + rng.random((100, 200))
    reference = centre + 0.1 * rng.standard_normal(centre.shape)
    samples = centre + 0.1 * rng.standard_normal((k, *centre.shape))
    found = metrics.coverage(reference, samples)
    assert found.samples == k and found.pixels == reference.size
    assert found.value == pytest.approx(0.90, abs=0.01)
    stated = metrics.coverage(reference, mean=samples.mean(0), std=samples.std(0, ddof=1), k=k)
    assert stated == found
    narrow = metrics.coverage(reference, mean=samples.mean(0), std=samples.std(0, ddof=1) / 2, k=k)
    assert narrow.value < 0.82


def test_coverage_from_nineteen_samples_on_is_empirical():
    rng = np.random.default_rng(0)
    reference, samples = 5 + rng.random((60, 60)), 5 + rng.random((200, 60, 60))
    found = metrics.coverage(reference, samples)
    assert found.method == "empirical quantiles"
    assert found.value == pytest.approx(0.90, abs=0.02)
    assert metrics.coverage(reference, samples[:19]).method == found.method
    assert metrics.coverage(reference, samples[:18]).method != found.method


def test_coverage_counts_magnitudes_inside_the_object():
    reference = np.zeros((10, 10))
    reference[2:6, 2:6] = 1
    samples = np.stack([reference * 0.9j, -1.1 * reference])
    assert metrics.coverage(reference, samples).pixels == 16
    assert metrics.coverage(reference, samples).value == 1
    mask = torch.ones(10, 10, dtype=torch.bool)
    assert metrics.coverage(torch.from_numpy(reference), torch.from_numpy(samples), mask=mask).pixels == 100


@pytest.mark.parametrize("given", [{}, {"samples": np.ones((1, 4, 4))}, {"mean": np.ones((4, 4))}])
def test_coverage_needs_two_samples(given):
    with pytest.raises(InputError) as caught:
        metrics.coverage(np.ones((4, 4)), **given)
    assert caught.value.what and caught.value.why and caught.value.do


def test_object_psnr_leaves_the_surroundings_out():
    reference, recon = np.zeros((32, 32)), np.zeros((32, 32))
    reference[8:24, 8:24], recon[8:24, 8:24] = 1.0, 1.0
    recon[8, 8:24], recon[0] = 0.9, 0.3  # an error inside, one outside
    inside = np.zeros((32, 32), bool)
    inside[8:24, 8:24] = True
    score = metrics.object_psnr(recon, reference)
    error = (score.scale * recon - reference)[inside]
    assert float(score) == pytest.approx(-10 * np.log10(np.mean(error**2)))
    assert float(metrics.scaled_psnr(recon, reference)) < float(score)


# --- signs -----------------------------------------------------------------------------------------------


def signed(shape: tuple[int, ...] = (24, 20), seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    reference = rng.standard_normal(shape)
    return reference + 0.3 * rng.standard_normal(shape), reference


@pytest.mark.parametrize("image", ["near", "opposite", "below zero"])
def test_real_images_are_compared_with_their_signs_as_scikit_image_does(image):
    recon, reference = signed()
    if image == "opposite":
        recon = -reference
    elif image == "below zero":
        recon, reference = -np.abs(recon), -np.abs(reference)
    top = np.abs(reference).max()
    for kind in (np.asarray, torch.from_numpy):
        x, y = kind(recon), kind(reference)
        assert float(metrics.psnr(x, y)) == pytest.approx(
            oracle.peak_signal_noise_ratio(reference, recon, data_range=top)
        )
        assert float(metrics.ssim(x, y)) == pytest.approx(
            oracle.structural_similarity(reference, recon, data_range=top)
        )
        assert float(metrics.nmse(x, y)) == pytest.approx(
            oracle.normalized_root_mse(reference, recon, normalization="euclidean") ** 2
        )
        assert float(metrics.psnr(x, y, 2.0)) == pytest.approx(
            oracle.peak_signal_noise_ratio(reference, recon, data_range=2.0)
        )


def test_the_opposite_image_is_not_the_image():
    _, reference = signed()
    for metric in (metrics.psnr, metrics.scaled_psnr, metrics.object_psnr):
        assert float(metric(-reference, reference)) < 15 and float(metric(reference, reference)) == np.inf
    assert metrics.scaled_psnr(-reference, reference).scale == 0  # no factor above 0 makes it one
    assert float(metrics.scaled_nmse(-reference, reference)) == 1
    assert float(metrics.scaled_ssim(-reference, reference)) < 0.1
    assert float(metrics.nmse(-reference, reference)) == pytest.approx(4)


def test_scaled_metrics_of_signed_images_forget_a_positive_scale():
    recon, reference = signed()
    inside = metrics.object_mask(reference)
    assert (inside == (np.abs(reference) > 0.05 * np.abs(reference).max())).all()
    scale = (recon * reference)[inside].sum() / (recon**2)[inside].sum()
    wanted = oracle.peak_signal_noise_ratio(reference, scale * recon, data_range=np.abs(reference).max())
    found = metrics.scaled_psnr(7 * recon, reference)
    assert float(found) == pytest.approx(wanted) and found.scale == pytest.approx(scale / 7)


def test_complex_images_are_compared_by_their_magnitudes():
    recon, reference = signed()
    phase = np.exp(1j * np.arange(20))
    for x, y in ((recon * phase, reference), (recon, reference * phase), (recon + 0j, -reference + 0j)):
        for metric in (metrics.psnr, metrics.ssim, metrics.nmse, metrics.scaled_psnr, metrics.object_psnr):
            wanted = float(metric(np.abs(recon), np.abs(reference)))
            assert float(metric(x, y)) == pytest.approx(wanted)


@pytest.mark.parametrize("k", [8, 40])
def test_coverage_of_signed_samples_is_that_of_their_values(k):
    rng = np.random.default_rng(k)
    centre = rng.standard_normal((100, 100))
    reference, samples = (centre + 0.1 * rng.standard_normal((*n, 100, 100)) for n in ((), (k,)))
    everywhere = np.ones((100, 100), bool)
    assert metrics.coverage(reference, samples, mask=everywhere).value == pytest.approx(0.90, abs=0.06)
    assert metrics.coverage(-reference, samples, mask=np.abs(centre) > 1).value == 0
    assert metrics.coverage(reference + 0j, -samples, mask=everywhere).value > 0.8
    mean, std = samples.mean(0), samples.std(0, ddof=1)
    stated = metrics.coverage(reference, mean=mean, std=std, k=8, mask=everywhere)
    assert stated.value == pytest.approx(0.90, abs=0.05)
    assert metrics.coverage(-reference, mean=mean, std=std, k=8, mask=np.abs(centre) > 1).value == 0
