"""Noise is a function of (seed, image, sample, step, stream) and of nothing else."""

from __future__ import annotations

import math

import pytest
import torch

from recon.noise import Noise, generator_of
from recon.state import State


def zeros(rows, *shape, dtype=torch.float64):
    return torch.zeros(rows, *shape, dtype=dtype)


def test_same_key_same_draw():
    assert torch.equal(Noise(3, (0, 1), 2)(zeros(4, 5), 7), Noise(3, (0, 1), 2)(zeros(4, 5), 7))
    draw = Noise(3, (0, 1), 2).at(7)
    assert torch.equal(draw(zeros(4, 5)), draw(zeros(4, 5)))
    assert torch.equal(draw(zeros(4, 5), "probe"), Noise(3, (0, 1), 2)(zeros(4, 5), 7, "probe"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
@pytest.mark.parametrize("size", [(1,), (15,), (3, 7), (1, 33, 17)])  # rows begin anywhere in memory
def test_a_row_is_what_its_generator_gives(dtype, size):
    draw = Noise(3, (0, "b"), 2)(zeros(4, *size, dtype=dtype), 7)
    for row, (image, sample) in enumerate([(0, 0), (0, 1), ("b", 0), ("b", 1)]):
        parts = (2,) if dtype.is_complex else ()
        own = torch.randn(*size, *parts, generator=generator_of((3, image, sample, 7, "step")))
        assert torch.equal(draw[row], torch.view_as_complex(own) if parts else own)


def test_every_part_of_the_key_counts():
    base = Noise(3, (0, 1), 2)(zeros(4, 5), 7)
    others = [
        Noise(4, (0, 1), 2)(zeros(4, 5), 7),  # seed
        Noise(3, (2, 3), 2)(zeros(4, 5), 7),  # images
        Noise(3, (0, 1), 2)(zeros(4, 5), 8),  # step
        Noise(3, (0, 1), 2)(zeros(4, 5), -1),  # the start
        Noise(3, (0, 1), 2)(zeros(4, 5), 7, "probe"),  # stream
    ]
    draws = torch.cat([base, *others])  # all rows of all of them differ, slots included
    assert len(torch.unique(draws, dim=0)) == len(draws)


def test_a_row_is_its_image_and_slot_not_its_place():
    """Rows are image-major: sample s of image b is row b * samples + s."""
    whole = Noise(3, (10, 11, 12), 2)(zeros(6, 5), 0)
    assert torch.equal(Noise(3, (11,), 2)(zeros(2, 5), 0), whole[2:4])
    assert torch.equal(Noise(3, (12, 10), 2)(zeros(4, 5), 0), whole[[4, 5, 0, 1]])
    assert torch.equal(
        Noise(3, (10, 11, 12), 1)(zeros(3, 5), 0), whole[::2]
    )  # fewer samples, same first ones
    assert torch.equal(
        Noise(3, ("slice-17",))(zeros(1, 5), 0), Noise(3, ("other", "slice-17"))(zeros(2, 5), 0)[1:]
    )


@pytest.mark.parametrize(
    "single, double", [(torch.float32, torch.float64), (torch.complex64, torch.complex128)]
)
def test_precision_does_not_change_the_draw(single, double):
    low, high = (Noise(1)(zeros(1, 40, dtype=d), 0) for d in (single, double))
    assert low.dtype == single and high.dtype == double
    assert torch.equal(low.to(double), high)
    assert torch.equal(
        Noise(1)(zeros(1, 40, dtype=torch.float16), 0), Noise(1)(zeros(1, 40, dtype=torch.float32), 0).half()
    )


def test_shape_and_input():
    like = torch.full((2, 1, 3, 4), 7.0)
    draw = Noise(0, (0, 1))(like, 0)
    assert draw.shape == like.shape and bool((like == 7).all())


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_unit_variance_a_real_component(dtype):
    """50 draws of 2000: mean, variance and fourth moment within four standard errors; components uncorrelated."""
    draw = Noise(11, range(50))(zeros(50, 2000, dtype=dtype), 0)
    parts = [draw.real, draw.imag] if dtype.is_complex else [draw]
    n = 100_000
    for part in parts:
        assert abs(float(part.mean())) < 4 / math.sqrt(n)
        assert abs(float(part.var()) - 1) < 4 * math.sqrt(2 / n)
        assert abs(float((part**4).mean()) - 3) < 4 * math.sqrt(96 / n)
    if dtype.is_complex:
        assert float((draw.abs() ** 2).mean()) == pytest.approx(2, abs=8 * math.sqrt(2 / n))
        assert abs(float((draw.real * draw.imag).mean())) < 4 / math.sqrt(n)


def test_rows_are_uncorrelated():
    draw = Noise(2, range(4), 2)(zeros(8, 20_000), 3)
    correlation = draw @ draw.T / 20_000 - torch.eye(8, dtype=torch.float64)
    assert float(correlation.abs().max()) < 5 * math.sqrt(2 / 20_000)


def test_noise_stays_with_its_slot():
    """Permuting a state permutes what it carries; the next draws do not follow."""
    noise, state = Noise(5, (0,), 3), State(torch.arange(3.0)[:, None], 1.0)
    taken = state.take(torch.tensor([2, 2, 0]))
    assert taken.x.flatten().tolist() == [2.0, 2.0, 0.0]
    draw = noise(taken.x, 4)
    assert torch.equal(draw, noise(state.x, 4)) and draw[0] != draw[1]
