"""ESPIRiT: true maps recovered from simulated coils, the span of real data, agreement with BART."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from operators.coils import rss, simulate_coils
from operators.errors import OperatorError
from operators.fourier import fft2c, ifft2c
from operators.maps.espirit import automatic_crop, espirit, projector, smoothstep
from operators.masks import make_mask


def head(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """A textured ellipse with a smooth phase, complex (H, W)."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    inside = (x / 0.7).square() + (y / 0.8).square() < 1
    grain = torch.rand(height, width, generator=torch.Generator().manual_seed(seed))
    return torch.polar(inside * (0.5 + grain), 2 * x + y * y)


def measured(coils: int, shape: tuple[int, int], sigma: float = 0.0, seed: int = 0):
    """k-space, maps of unit length over the coils, and the object."""
    maps, image = simulate_coils(coils, shape), head(*shape, seed)
    kspace = fft2c(maps * image)
    noise = torch.randn(kspace.shape, dtype=kspace.dtype, generator=torch.Generator().manual_seed(seed))
    return kspace + 2**0.5 * sigma * noise, maps / rss(maps), image.abs() > 0


def overlap(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """``|<a, b>|`` over the coils."""
    return (a.conj() * b).sum(0).abs()


def outside_span(maps: torch.Tensor, images: torch.Tensor, where: torch.Tensor) -> float:
    """Relative energy of coil images (coils, H, W) that the maps (sets, coils, H, W) do not explain."""
    basis = torch.linalg.qr(maps.permute(2, 3, 1, 0)[where])[0]
    pixels = images.permute(1, 2, 0)[where][..., None]
    return float((pixels - basis @ (basis.mH @ pixels)).norm() / pixels.norm())


@pytest.mark.parametrize(("coils", "shape"), [(8, (96, 80)), (4, (63, 81))])
@pytest.mark.parametrize("phase", ["coils", "image"])
def test_true_maps_are_recovered(coils, shape, phase):
    kspace, truth, inside = measured(coils, shape, sigma=1e-4)
    kspace = kspace * make_mask("equispaced-fraction", shape, 2, 0.25)
    maps, values = espirit(kspace, phase=phase)
    assert maps.shape == (1, coils, *shape) and values.shape == (1, *shape)
    assert maps.dtype == torch.complex64 and values.dtype == torch.float32
    agreement = overlap(maps[0], truth)[inside]
    assert agreement.min() > 0.99 and agreement.median() > 0.999
    assert values[0][inside].min() > 0.95 and values.max() < 1.0001
    torch.testing.assert_close(rss(maps[0])[inside], torch.ones(int(inside.sum())))


def test_noise_free_coil_images_lie_in_the_span_of_the_maps():
    kspace, _, inside = measured(6, (64, 64))
    maps, _ = espirit(kspace, threshold=1e-3, crop=0.0)
    assert outside_span(maps, ifft2c(kspace), inside) < 0.01


def test_image_phase_makes_the_image_nearly_real():
    kspace, _, inside = measured(6, (64, 64))
    turned = {}
    for phase in ("coils", "image"):
        maps, _ = espirit(kspace, phase=phase)
        turned[phase] = (maps[0].conj() * ifft2c(kspace)).sum(0)[inside]
    torch.testing.assert_close(turned["image"].abs(), turned["coils"].abs(), atol=1e-5, rtol=1e-4)
    assert (turned["image"].real > 0).all()
    assert turned["image"].imag.norm() < 0.05 * turned["image"].norm()


def test_an_object_wider_than_the_field_of_view_needs_two_sets():
    full, _, _ = measured(8, (64, 96))
    kspace = 2**0.5 * full[..., ::2]  # half the field of view: the sides fold onto each other
    images = ifft2c(kspace)
    where = rss(images) > 0.1 * rss(images).max()
    one, two = (espirit(kspace, sets=n, crop=0.0, threshold=3e-3)[0] for n in (1, 2))
    assert outside_span(two, images, where) < 0.02
    assert outside_span(one, images, where) > 5 * outside_span(two, images, where)


def test_a_batch_is_its_slices():
    slices = torch.stack([measured(4, (48, 40), seed=s)[0] for s in (0, 1)])
    maps, values = espirit(slices, sets=2)
    assert maps.shape == (2, 2, 4, 48, 40) and values.shape == (2, 2, 48, 40)
    for i in (0, 1):
        alone, value = espirit(slices[i], sets=2)
        torch.testing.assert_close(maps[i], alone, atol=1e-3, rtol=0)
        torch.testing.assert_close(values[i], value, atol=1e-4, rtol=0)


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("sigma", [0.03, 0.2, 1.0, 3.0])
@pytest.mark.parametrize("phase", ["coils", "image"])
def test_noise_leaves_no_choice_to_rounding(sigma, phase, threads):
    """From a clean slice to noise alone, where all eigenvalues are 1 and any vector would do."""
    kspace, _, _ = measured(4, (64, 64), sigma)
    threads(1)
    maps, values = espirit(kspace, crop=None, phase=phase)
    for count in (1, 2):
        threads(count)
        rounding = 1 + 1e-6 * torch.randn(kspace.shape, generator=torch.Generator().manual_seed(count))
        for given in (kspace, kspace * rounding):
            again, others = espirit(given, crop=None, phase=phase)
            torch.testing.assert_close(again, maps, atol=0.05, rtol=0)
            torch.testing.assert_close(others, values, atol=1e-4, rtol=0)


def test_noise_leaves_no_choice_of_the_second_set_to_rounding():
    kspace, _, _ = measured(4, (64, 64), 3.0)
    rounding = 1 + 1e-6 * torch.randn(kspace.shape, generator=torch.Generator().manual_seed(1))
    maps, others = (espirit(given, crop=0.0, sets=2)[0] for given in (kspace, kspace * rounding))
    for a, b in zip(maps, others, strict=True):
        assert overlap(a, b).min() > 0.99


def test_a_kernel_at_the_threshold_counts_in_part():
    """The weight of a kernel goes from 0 to 1 over a thousandth of its power on either side: rounding moves it a little."""
    data = torch.randn(1, 2, 8, 8, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    patches = data.unfold(-2, 2, 1).unfold(-2, 2, 1).permute(0, 1, 4, 5, 2, 3).flatten(1, 3).flatten(2)
    singular = torch.linalg.svdvals(patches)[0]
    at = float(singular[3] / singular[0])
    near = (1e-3, at * (1 - 1e-7), at * (1 + 1e-7), 2.0)
    none = torch.zeros(1)
    counts = [projector(data, 2, t, none).diagonal(dim1=-2, dim2=-1).sum().real.item() for t in near]
    assert counts[1] == pytest.approx(counts[2], abs=1e-3)  # a step makes it 1
    assert counts[0] == pytest.approx(8) and 1 < counts[1] < 8 and counts[3] == pytest.approx(0)


def test_units_do_not_matter():
    kspace, _, _ = measured(4, (48, 40))
    torch.testing.assert_close(espirit(1e-6 * kspace)[0], espirit(kspace)[0], atol=1e-3, rtol=0)


def test_crop_soft_and_automatic():
    kspace, _, inside = measured(6, (64, 64), sigma=1e-3)
    hard, values = espirit(kspace, crop=0.9)
    assert torch.equal(rss(hard[0]) > 0, values[0] >= 0.9)
    soft, _ = espirit(kspace, crop=0.9, soft=True)
    torch.testing.assert_close(rss(soft[0]), smoothstep((values[0] - 0.8) / 0.2), atol=1e-5, rtol=0)
    chosen, _ = espirit(kspace, crop=None)
    kept = rss(chosen[0]) > 0
    assert kept[inside].all() and not kept.all()


def test_automatic_crop_follows_the_eigenvalues_of_the_object():
    bright = torch.cat([torch.zeros(50, 40), torch.ones(50, 40)])
    for inside, chosen in ((0.999, 0.98), (0.98, 0.88), (0.8, 0.6)):
        values = torch.cat([torch.full((50, 40), 0.4), torch.full((50, 40), inside)])
        assert automatic_crop(values, bright).item() == pytest.approx(chosen, abs=1e-6)


@pytest.mark.parametrize(
    ("kspace", "options", "said"),
    [
        (torch.ones(4, 32, 32), {}, "complex"),
        (torch.zeros(4, 32, 32, dtype=torch.complex64), {}, "centre of k-space is not sampled"),
        (torch.zeros(4, 32, 32, dtype=torch.complex64), {"mask": torch.ones(32, 32)}, "is zero"),
        (torch.full((4, 32, 32), float("nan") + 0j), {}, "not finite"),
        (torch.ones(4, 32, 32) + 0j, {"mask": torch.arange(32) // 2 == 8}, "smaller than the kernel"),
        (torch.ones(4, 32, 32) + 0j, {"sets": 5}, "4 coils"),
        (torch.ones(4, 32, 32) + 0j, {"phase": "zero"}, "no phase"),
    ],
)
def test_refusals(kspace, options, said):
    with pytest.raises(OperatorError, match=said):
        espirit(kspace, **options)


def read(shared_data: Path, name: str) -> torch.Tensor:
    with h5py.File(shared_data / "mri" / "kspace" / name) as file:
        return torch.from_numpy(file["kspace"][0])


def test_two_sets_explain_real_data_that_wraps_around(shared_data):
    kspace = read(shared_data, "real_brain_8ch.h5")
    images = ifft2c(kspace)
    where = rss(images) > 0.05 * rss(images).max()
    maps, _ = espirit(kspace * make_mask("equispaced-fraction", kspace.shape[-2:]), sets=2, crop=0.0)
    one, two = (outside_span(maps[:n], images, where) for n in (1, 2))
    assert two < 0.11 and one > 1.5 * two


@pytest.mark.skipif(shutil.which("bart") is None, reason="needs BART as an oracle: install the package bart")
def test_agrees_with_bart(shared_data, tmp_path):
    kspace = read(shared_data, "real_brain_mprage_4ch.h5")
    kspace = kspace * make_mask("equispaced-fraction", kspace.shape[-2:])
    coils, height, width = kspace.shape
    (tmp_path / "k.hdr").write_text(f"# Dimensions\n{height} {width} 1 {coils}" + " 1" * 12 + "\n")
    kspace.permute(1, 2, 0).numpy().ravel(order="F").tofile(tmp_path / "k.cfl")
    # BART compares squared singular values: .02^2.
    command = ["bart", "ecalib", "-m", "1", "-r", "24", "-k", "6", "-t", "0.0004", "k", "maps"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    flat = np.fromfile(tmp_path / "maps.cfl", np.complex64)
    theirs = torch.from_numpy(flat.reshape(height, width, coils, order="F").transpose(2, 0, 1).copy())
    ours, _ = espirit(kspace, kernel=6, threshold=0.02)
    kept, kept_there = rss(ours[0]) > 0, rss(theirs) > 0
    assert (kept == kept_there).float().mean() > 0.99
    assert overlap(ours[0], theirs)[kept & kept_there].quantile(0.05) > 0.999
