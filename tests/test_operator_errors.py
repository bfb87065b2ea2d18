"""Input that an operator cannot take is refused in words: what, why, and what to do."""

from __future__ import annotations

import pytest
import torch

import operators as op

MASK = torch.ones(4, 6)
BLUR = op.Blur(torch.ones(3, 3), (1, 4, 6))
CT = op.CT(4, [0.0, 45.0])
COMPLEX = torch.zeros(1, 1, 4, 6, dtype=torch.complex64)

REFUSED = {
    "mask of one axis": (lambda: op.Inpainting(torch.ones(4)), "mask of shape"),
    "mask of other channels": (lambda: op.Inpainting(torch.ones(2, 4, 6), channels=3), "3 channel"),
    "mask of weights": (lambda: op.Inpainting(0.5 * MASK), "not binary"),
    "mask with NaN": (lambda: op.Inpainting(MASK * float("nan")), "not binary"),
    "complex mask": (lambda: op.Inpainting(MASK.to(torch.complex64)), "not binary"),
    "indivisible size": (lambda: op.SuperResolution((3, 10, 12), 4), "must divide"),
    "no factor": (lambda: op.SuperResolution((3, 8, 8), 0), "by 0"),
    "no channels": (lambda: op.SuperResolution((8, 8), 4), "height and width"),
    "unknown filter": (lambda: op.SuperResolution((3, 8, 8), 2, filter="sinc"), "bicubic, box, gaussian"),
    "unknown padding": (lambda: op.SuperResolution((3, 8, 8), 2, padding="zero"), "circular or reflect"),
    "image below the filter": (lambda: op.SuperResolution((1, 4, 4), 4), "more than 6 pixels"),
    "kernel above the image": (lambda: op.Blur(torch.ones(5, 5), (1, 4, 6)), "no larger"),
    "complex kernel": (lambda: op.Blur(torch.ones(3, 3, dtype=torch.complex64), (1, 4, 6)), "is real"),
    "kernel of other channels": (lambda: op.Blur(torch.ones(2, 3, 3), (3, 4, 6)), "kernel of shape"),
    "unknown geometry": (lambda: op.CT(4, [0.0], geometry="helical"), "no geometry 'helical'"),
    "no angles": (lambda: op.CT(4, []), "at least one finite angle"),
    "endless angle": (lambda: op.CT(4, [float("nan")]), "finite"),
    "data of another precision": (lambda: CT(torch.zeros(1, 1, 4, 4, dtype=torch.float64)), "A.to"),
    "unknown boundary": (lambda: op.Difference((1, 4, 6), boundary="zero"), "neumann or circular"),
    "axis from the front": (lambda: op.Difference((1, 4, 6), axes=(1,)), "counts from the last"),
    "complex scale of real images": (lambda: op.Scale(1j, (1, 4, 6)), "complex_domain=True"),
    "complex factor of a real operator": (lambda: 1j * BLUR, "complex_domain=True"),
    "chain of other sizes": (lambda: CT @ BLUR, "Cannot compose"),
    "chain of real and complex": (lambda: op.Scale(1.0, (1, 4, 6), complex_domain=True) @ BLUR, "complex"),
    "sum of other sizes": (lambda: BLUR + op.Inpainting(torch.ones(6, 4)), "one domain"),
    "images of several kinds": (lambda: op.PerImage((BLUR, CT)), "2 kinds"),
    "no images": (lambda: op.PerImage(()), "at least one"),
    "images of images": (lambda: op.PerImage((op.PerImage((BLUR, BLUR)),)), "one tuple"),
    "rows that do not divide": (lambda: op.PerImage((BLUR, BLUR))(torch.zeros(3, 1, 4, 6)), "3 rows for 2"),
    "image without a batch": (lambda: BLUR(torch.zeros(1, 4, 6)), r"x\[None\]"),
    "image of another size": (lambda: BLUR(torch.zeros(1, 1, 6, 4)), r"It takes \(batch, 1, 4, 6\)"),
    "complex image": (lambda: BLUR(COMPLEX), "x.real"),
    "real image": (lambda: op.Difference((1, 4, 6), complex_domain=True)(COMPLEX.real), "torch.complex"),
    "no tensor": (lambda: BLUR([[1.0]]), "as_tensor"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    build, words = REFUSED[case]
    with pytest.raises(op.OperatorError, match=words) as caught:
        build()
    assert caught.value.why or caught.value.do
    assert "\n" in str(caught.value)


@pytest.mark.parametrize("name", ["H", "N", "adjoint", "to"])
def test_a_field_cannot_take_the_name_of_a_member(name):
    with pytest.raises(TypeError, match="Choose another name"):
        type("Mine", (op.Linear,), {"__annotations__": {name: "torch.Tensor"}})
