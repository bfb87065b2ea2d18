"""Masks: fastMRI's own lines, budgets, distances, refusals; the calibration area."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from operators import masks
from operators.errors import OperatorError

# Columns that fastMRI 0.3.0 samples for (mask, width, acceleration, centre fraction, file name).
GOLDEN = {
    ("random", 32, 4, 0.08, "file1000001.h5"): [3, 6, 7, 11, 15, 16, 17, 31],
    ("random", 64, 8, 0.04, "file_brain_AXT2_200_2000019.h5"): [8, 29, 31, 32, 33, 37, 39, 41, 55],
    ("equispaced", 32, 4, 0.08, "file1000001.h5"): [3, 7, 11, 15, 16, 17, 19, 23, 27, 31],
    ("equispaced", 64, 8, 0.04, "file_brain_AXT2_200_2000019.h5"): [1, 9, 17, 25, 31, 32, 33, 41, 49, 57],
    ("equispaced-fraction", 63, 4, 0.08, "file1000001.h5"): [
        3,
        8,
        14,
        19,
        25,
        29,
        30,
        31,
        32,
        33,
        35,
        41,
        46,
        52,
        57,
    ],
    ("equispaced-fraction", 64, 8, 0.04, "file_brain_AXT2_200_2000019.h5"): [9, 21, 31, 32, 33, 46, 58],
}
# The same for 368 columns, 4x, .08, file1000001.h5, four columns a hexadecimal digit.
GOLDEN_368 = {
    "random": "131180011200a84000c020511008b00840000400a03ffffffe000054004804800024204000408440220600c22000",
    "equispaced": "1111111111111111111111111111111111111111113fffffff111111111111111111111111111111111111111111",
    "equispaced-fraction": "1082104210421042084208420841084108210821083ffffffe210420842084108410841082108210821042104208",
}  # fmt: skip
names = st.sampled_from(list(masks.MASKS))


@pytest.mark.parametrize("case", GOLDEN, ids=str)
def test_lines_are_fastmri_s(case):
    name, width, accel, center, seed = case
    mask = masks.make_mask(name, (3, width), accel, center, seed)
    assert mask[0].nonzero()[:, 0].tolist() == GOLDEN[case]
    assert (mask == mask[0]).all()


@pytest.mark.parametrize("name", GOLDEN_368)
def test_lines_are_fastmri_s_at_full_width(name):
    row = masks.make_mask(name, (1, 368), 4, 0.08, "file1000001.h5")[0].int().tolist()
    assert (
        "".join(f"{int(''.join(map(str, row[i : i + 4])), 2):x}" for i in range(0, 368, 4))
        == GOLDEN_368[name]
    )


def test_lines_at_the_usual_settings():
    for accel, center, lines, middle in ((4, 0.08, 64, 20), (8, 0.04, 32, 10)):
        row = masks.make_mask("equispaced-fraction", (256, 256), accel, center)[0]
        start = (256 - middle + 1) // 2
        assert row[start : start + middle].all()
        assert row.sum() == lines
        counts = [int(masks.equispaced_fraction((1, 256), accel, center, s).sum()) for s in range(20)]
        assert set(counts) <= {lines - 1, lines}  # the offset may push the last line out, as in fastMRI
        torch.testing.assert_close(row, masks.make_mask("equispaced-fraction", (1, 256), accel)[0])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(names, st.integers(24, 70), st.integers(24, 70), st.floats(1.0, 8.0), st.integers(0, 2**31))
def test_every_mask_keeps_its_budget_and_seed(name, height, width, accel, seed):
    if name == "equispaced":
        accel = round(accel)
    center = 0.25 / accel
    mask = masks.make_mask(name, (height, width), accel, center, seed)
    assert mask.dtype == torch.bool and mask.shape == (height, width)
    assert torch.equal(mask, masks.make_mask(name, (height, width), accel, center, seed))
    assert mask[height // 2, width // 2] or round(center * width) == 0
    achieved = masks.acceleration(mask)
    if name == "poisson":
        assert int(mask.sum()) == round(height * width / accel)
    elif name == "gaussian":
        assert int(mask[0].sum()) == max(round(width / accel), round(width * center))
    elif name == "radial":
        assert abs(mask.sum() - height * width / accel) <= max(height, width)
    elif name == "equispaced-fraction":
        assert abs(mask[0].sum() - width / accel) <= 2
    elif name == "equispaced":
        assert achieved <= accel * (1 + accel / width)
    if accel == 1:
        assert mask.all()


def test_random_lines_reach_the_acceleration_in_the_mean():
    counts = [masks.random((1, 256), 4, 0.08, s).sum() for s in range(200)]
    assert abs(np.mean(counts) - 64) < 1.5


def test_poisson_keeps_its_distance_and_thins_outwards():
    began = time.perf_counter()
    mask = masks.poisson((256, 256), 8, 0.06, seed=4).numpy()
    assert time.perf_counter() - began < 2
    outer = mask.copy()
    outer[64:192, 64:192] = False
    y, x = outer.nonzero()
    gap = np.hypot(y[:, None] - y, x[:, None] - x) + 1e3 * np.eye(len(y))
    assert gap.min() >= 2  # random points of this density would nearly all have a nearer neighbour
    thirds = [mask[120:136, a : a + 16].mean() for a in (96, 48, 0)]
    assert thirds[0] > thirds[1] > thirds[2]
    assert mask[121:136, 121:136].all()


def test_radial_spokes_pass_the_centre():
    mask = masks.radial((65, 65), 6, 0.0, seed=1)
    assert mask[32, 32]
    assert torch.equal(mask, mask.flip(0, 1))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(1, 20), st.integers(1, 20), st.data())
def test_calibration_area_is_sampled_and_the_largest_of_columns(height, width, data):
    row = torch.tensor(data.draw(st.lists(st.booleans(), min_size=width, max_size=width)))
    assume(row[width // 2])
    rows, columns = masks.calibration_region(row.expand(height, width))
    assert (rows.start, rows.stop) == (0, height)
    assert row[columns].all() and columns.start <= width // 2 < columns.stop
    assert columns.start == 0 or not row[columns.start - 1]
    assert columns.stop == width or not row[columns.stop]


def test_calibration_area_of_a_block():
    mask = torch.zeros(40, 50, dtype=torch.bool)
    mask[10:30, 14:37] = True
    mask[20] = True
    assert masks.calibration_region(mask) == (slice(10, 30), slice(14, 37))
    with pytest.raises(OperatorError, match="centre of k-space"):
        masks.calibration_region(torch.zeros(4, 4))


def test_given_masks():
    row = np.array([1, 0, 1, 1, 0])
    assert torch.equal(masks.given(row, (3, 5)), torch.tensor(row).bool().expand(3, 5))
    assert masks.given(row[None, None].astype(np.float32), (3, 5)).shape == (3, 5)
    full = torch.rand(3, 5) < 0.9
    assert torch.equal(masks.given(full, (3, 5)), full)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: masks.given(np.ones(4), (3, 5)), r"\(5,\) or \(3, 5\)"),
        (lambda: masks.given(np.full(5, 0.5), (3, 5)), "other than 0 and 1"),
        (lambda: masks.given(np.array([1, np.nan, 0, 1, 1]), (3, 5)), "other than 0 and 1"),
        (lambda: masks.given(np.zeros(5), (3, 5)), "empty"),
        (lambda: masks.make_mask("equispaced-fractoin", (8, 8)), "equispaced-fraction"),
        (lambda: masks.make_mask("spiral", (8, 8)), "Choose one of: random"),
        (lambda: masks.make_mask("random", (64, 64), 0.5), "at least 1"),
        (lambda: masks.make_mask("random", (64, 64), float("nan")), "at least 1"),
        (lambda: masks.make_mask("random", (64, 64), 100), "at most 64"),
        (lambda: masks.make_mask("equispaced-fraction", (64, 64), 8, 0.3), "at most 0.125"),
        (lambda: masks.make_mask("random", (64, 64), 8, 0.3), "a centre of 0.3 alone asks for 19"),
        (lambda: masks.make_mask("gaussian", (64, 64), 4, 1.5), "between 0 and 1"),
        (lambda: masks.make_mask("poisson", (64, 64), 8, 0.5), "central block"),
        (lambda: masks.make_mask("equispaced", (64, 64), 2.5), "whole number"),
    ],
)
def test_refusals(call, said):
    with pytest.raises(OperatorError, match=said):
        call()
