"""Options of operators that make no sense are refused in three lines, before memory is taken."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest
import torch
from PIL import Image

from recon.errors import ReconError
from recon.io import read_array
from recon.registry.operators import OPERATORS, TYPES, make_operator

SIZE = (16, 12)
ONES = torch.ones(SIZE)

BAD = [
    ("inpainting", "mask", "mask.png", "named by the path of a .npy file or a picture"),
    ("inpainting", "mask", 3, "an array"),
    ("inpainting", "mask", [1, 2], "an array"),
    ("inpainting", "mask", ONES.T, "The image is 16 x 12"),
    ("inpainting", "mask", ONES.expand(3, *SIZE), "The image is 16 x 12"),
    ("inpainting", "mask", ONES / 2, "not binary"),
    ("inpainting", "mask", ONES * math.nan, "finite"),
    ("inpainting", "mask", ONES[:0], "an array"),
    ("inpainting", "keep", "x", "a number"),
    ("inpainting", "keep", math.nan, "a number"),
    ("inpainting", "keep", 5, "from 0 to 1"),
    ("inpainting", "keep", True, "a number"),
    ("inpainting", "seed", "a", "a whole number"),
    ("inpainting", "seed", 10**30, "a whole number"),
    ("inpainting", "box", "ab", "a list"),
    ("inpainting", "box", [1.5, 2], "a list"),
    ("inpainting", "box", [3], "inside the image of 16 x 12"),
    ("inpainting", "box", [16, 4], "inside the image of 16 x 12"),
    ("super-resolution", "factor", "4", "a whole number"),
    ("super-resolution", "factor", None, "a whole number"),
    ("super-resolution", "factor", 0, "divide"),
    ("super-resolution", "filter", 3, "a name"),
    ("blur", "width", 0, "above 0"),
    ("blur", "width", math.inf, "a number"),
    ("blur", "width", 1e9, "above 0, here up to 1.25"),
    ("blur", "kernel", "kernel.png", "an array"),
    ("blur", "kernel", ONES.expand(2, *SIZE).reshape(32, 12), "no larger than the image"),
    ("blur", "kernel", ONES[:3, :3] + 0j, "real"),
    ("blur", "kernel", ONES[:3, :3] * math.nan, "finite"),
    ("inpainting", "strokes", 0, "from 1 to 1000"),
    ("inpainting", "thickness", 2.0, "that of strokes"),
    ("motion-blur", "length", 0, "above 0"),
    ("motion-blur", "length", -3.0, "above 0"),
    ("motion-blur", "length", 12, "up to 7"),
    ("motion-blur", "bend", -1, "from 0 to 180"),
    ("motion-blur", "angle", math.inf, "a number"),
    ("anisotropic-blur", "width", -1, "above 0, here up to 1.25"),
    ("anisotropic-blur", "across", 0, "above 0, here up to 1.25"),
    ("anisotropic-blur", "across", 9, "above 0, here up to 1.25"),
    ("nonlinear-blur", "length", -1.0, "above 0"),
    ("jpeg", "quality", 0, "1 to 100"),
    ("jpeg", "quality", 101, "1 to 100"),
    ("jpeg", "quality", 9.5, "a whole number"),
    ("jpeg", "subsampling", "4:1:1", "4:2:0"),
    ("clipping", "gain", 0, "above 0"),
    ("clipping", "gain", -2.0, "above 0"),
    ("phase-retrieval", "oversampling", 0.5, "from 1 to 8"),
    ("phase-retrieval", "oversampling", 1e9, "from 1 to 8"),
    ("mri", "mask", 3, "a name or an array"),
    ("mri", "mask", ONES[0, :5], "(16, 12)"),
    ("mri", "mask", ONES / 2, "0 and 1"),
    ("mri", "accel", "four", "a number"),
    ("mri", "accel", math.nan, "a number"),
    ("mri", "coils", 0, "from 1 to 512"),
    ("mri", "coils", 10**7, "from 1 to 512"),
    ("mri", "coils", 1.5, "a whole number"),
    ("mri", "seed", [1], "a whole number"),
    ("noncartesian", "trajectory", 3, "a name or an array"),
    ("noncartesian", "trajectory", "radail", "radial"),
    ("noncartesian", "trajectory", torch.rand(9, 2) * 3, "radians per pixel"),
    ("noncartesian", "trajectory", torch.rand(2, 9), "coordinates"),
    ("noncartesian", "readouts", 0, "from 1 to 10000"),
    ("noncartesian", "samples", 0, "from 1 to 100000"),
    ("noncartesian", "coils", 0, "from 1 to 512"),
]


@pytest.mark.parametrize(("name", "key", "value", "said"), BAD)
def test_an_option_that_makes_no_sense_is_refused(name, key, value, said):
    with pytest.raises(ValueError) as caught:
        make_operator(name, {key: value}, SIZE, complex_images=OPERATORS[name].complex_images)
    assert said in str(caught.value) and len(str(caught.value).splitlines()) == 3
    assert "TypeError" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [("views", 10**9, "to 10000"), ("views", 0, "1 to"), ("arc", math.nan, "a number")],
)
def test_views_that_make_no_sense_are_refused(key, value, said):
    with pytest.raises(ReconError, match=said):
        make_operator("ct", {key: value}, (16, 16), complex_images=False)


def test_a_scan_is_described_whole():
    fan = {"beam": "fan", "source": 40.0, "detector": 60.0, "detectors": 30, "axis": 12.5, "pitch": 1.2}
    made = make_operator("ct", {**fan, "angles": [0.0, 7.5, 90.0]}, (16, 16), complex_images=False)
    assert made.codomain == (1, 3, 30) and made.angles == (0.0, 7.5, 90.0)
    assert (made.geometry.beam, made.geometry.axis, made.geometry.pitch) == ("fan", 12.5, 1.2)
    part = make_operator("ct", {"views": 3, "arc": 90.0, "start": 30.0}, (16, 16), complex_images=False)
    assert part.angles == (30.0, 60.0, 90.0)
    for options, said in (({"beam": "cone"}, "parallel or fan"), ({"beam": "fan"}, "no distances")):
        with pytest.raises(ValueError, match=said):
            make_operator("ct", options, (16, 16), complex_images=False)


def test_one_shape_of_a_mask_is_given_at_a_time():
    with pytest.raises(ReconError, match="box and strokes"):
        make_operator("inpainting", {"box": [4, 4], "strokes": 2}, SIZE, complex_images=False)
    with pytest.raises(ReconError, match="here 1 to 12"):
        make_operator("inpainting", {"strokes": 2, "thickness": 13}, SIZE, complex_images=False)


def test_colourisation_is_of_pictures_with_colours():
    assert make_operator("colourisation", {}, SIZE, False, 3).codomain == (1, *SIZE)
    for options, channels, said in (({}, 1, "three channels"), ({"weights": "red"}, 3, "luma, mean")):
        with pytest.raises(ValueError, match=said):
            make_operator("colourisation", options, SIZE, False, channels)


def test_every_option_of_an_operator_has_a_type_that_is_checked():
    for entry in OPERATORS.values():
        signature = inspect.signature(entry.kind).parameters
        for key in entry.options:
            assert set(str(signature[key].annotation).split(" | ")) - {"None"} <= set(TYPES)


def test_a_picture_is_a_mask_and_a_kernel(tmp_path):
    mask = np.random.default_rng(0).random(SIZE) < 0.5
    Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / "mask.png")
    x = torch.rand(1, 1, *SIZE)
    for name in ("inpainting", "mri"):
        is_complex = name == "mri"
        A = make_operator(name, {"mask": read_array(tmp_path / "mask.png")}, SIZE, is_complex)
        B = make_operator(name, {"mask": torch.from_numpy(mask)}, SIZE, is_complex)
        image = x + 0j if is_complex else x
        torch.testing.assert_close(A(image), B(image))
    kernel = np.array([[0, 255, 0], [255, 255, 255], [0, 255, 0]], np.uint8)
    Image.fromarray(kernel).save(tmp_path / "kernel.png")
    A = make_operator("blur", {"kernel": read_array(tmp_path / "kernel.png")}, SIZE, False)
    B = make_operator("blur", {"kernel": torch.from_numpy(kernel / 255)}, SIZE, False)
    torch.testing.assert_close(A(x), B(x))
