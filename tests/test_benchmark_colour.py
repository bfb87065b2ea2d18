"""Benchmarks of pictures: in colour for a prior of such images, by their values; of the middle of each with ``crop``."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import yaml
from make_prior import make_prior
from PIL import Image

from recon import metrics
from recon.benchmark.methods.classical import tv
from recon.benchmark.sources import ImageStack
from recon.benchmark.specs import read_benchmark
from recon.cli import main
from recon.networks.load import load_prior

SIZE = (40, 36)
PRESETS = ("defaults", "restoration")
HOLES = {"operator": "inpainting", "sigma": 0.05, "options": {"keep": 0.5}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A picture in colour, one without, and priors of both kinds."""
    folder = tmp_path_factory.mktemp("pictures")
    y, x = np.mgrid[-1 : 1 : SIZE[0] * 1j, -1 : 1 : SIZE[1] * 1j]
    disk = (x**2 + y**2 < 0.5) * 0.8
    Image.fromarray((255 * np.stack([disk, 0.5 * disk, 0.9 - disk], -1)).astype(np.uint8)).save(
        folder / "a.png"
    )
    Image.fromarray((255 * disk).astype(np.uint8)).save(folder / "gray.png")
    (folder / "scan.h5").touch()
    make_prior(folder, "colours", complex_images=False, channels=3)
    make_prior(folder)
    return folder


def settings(folder, **changes):
    plan = {
        "prior": str(folder / "colours.safetensors"),
        "inputs": ["a.png"],
        "samples": 2,
        "calls": 3,
        "crop": 24,
        "problems": {"holes": HOLES},
        "methods": {"dds": {"options": {"steps": 2}}, "tv": {}, "deepinv-diffpir": {"calls": 3}},
    }
    return {**plan, **changes}


def run(folder, tmp_path, **changes) -> int:
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(settings(folder, **changes)))
    out = str(tmp_path / "out")
    return main(["benchmark", str(tmp_path / "grid.yaml"), "--data", str(folder), "--out", out])


def test_pictures_are_measured_and_shown_in_colour(folder, tmp_path, capsys):
    assert run(folder, tmp_path) == 0
    found = [json.loads(line) for line in (tmp_path / "out/rows.jsonl").read_text().splitlines()]
    assert {row["cell"]["method"] for row in found} == {"dds", "tv", "deepinv-diffpir"}
    for row in found:
        assert set(row["metrics"]) == {"psnr", "ssim", "nmse"}
        shown = {name: Image.open(tmp_path / "out" / path) for name, path in row["pictures"].items() if path}
        assert all(image.size == (24, 24) and image.mode == "RGB" for image in shown.values())
        reference = np.asarray(shown["reference"], float)
        assert not np.allclose(reference[..., 0], reference[..., 1], atol=5)
    table = (tmp_path / "out/table.md").read_text()
    assert "object PSNR" not in table and "data range 1" in table and "scaled by least squares" not in table
    capsys.readouterr()


def test_a_scene_in_colour_is_compared_by_its_values(folder):
    prior = load_prior(folder / "colours.safetensors")
    problem = read_benchmark(settings(folder)).problems["holes"]
    source = ImageStack(folder / "a.png", colour=True, crop=24)
    scene = source.scene(problem, 0, prior, 0, torch.device("cpu"))
    whole = np.moveaxis(np.asarray(Image.open(folder / "a.png")), -1, 0) / 255
    middle = torch.from_numpy(whole[:, 8:32, 6:30]).float()
    torch.testing.assert_close(scene.reference, middle)
    assert abs(float(scene.problem.residual(middle[None])) - 1) < 0.1
    image = 0.9 * middle + 0.03
    error = (image - middle).square().mean()
    scores = scene.scores(image)
    assert scores["psnr"] == pytest.approx(float(-10 * error.log10()), abs=1e-4)
    assert scores["ssim"] == pytest.approx(float(metrics.ssim(image, middle, 1.0)))
    assert scene.compared(-image).min() < 0, "signs stay"
    restored = scene.scores(tv(scene, None, 1, 0).mean)["psnr"]
    assert restored > scene.scores(scene.problem.backprojection[0])["psnr"] + 5


def test_a_picture_without_colours_has_three_equal_channels(folder):
    stack = ImageStack(folder / "gray.png", colour=True).stack
    assert stack.shape == (1, 3, *SIZE) and torch.equal(stack[:, 0], stack[:, 2])
    assert ImageStack(folder / "a.png").stack.shape == (1, 1, *SIZE)


def test_a_crop_is_another_input(folder):
    whole, middle = ImageStack(folder / "gray.png"), ImageStack(folder / "gray.png", crop=24)
    assert whole.digest(0) != middle.digest(0)
    assert middle.truth(0, True).shape == (1, 24, 24)
    torch.testing.assert_close(middle.stack, whole.stack[..., 8:32, 6:30])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"crop": 64}, "cannot be cropped to 64 x 64"),
        ({"crop": 0}, "crop"),
        ({"crop": [24, 24]}, "crop"),
        ({"problems": {"scan": {"operator": "ct", "sigma": 0.1}}}, "images of 3 channels"),
        ({"problems": {"scan": {"mask": {"accel": 2}, "inputs": ["scan.h5"]}}}, "Images alone are cropped"),
    ],
)
def test_what_cannot_be_cropped_or_measured_in_colour_is_refused(folder, tmp_path, capsys, changes, said):
    assert run(folder, tmp_path, **changes) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", PRESETS)
def test_the_presets_name_every_sampler_by_its_recipe(name):
    from recon.posteriors import POSTERIORS

    methods = read_benchmark(name).methods
    of_images = {name for name, kind in POSTERIORS.items() if not kind.of_volumes} - {"prior"}
    assert of_images <= set(methods)
    for sampler in of_images:
        of = methods[sampler]
        assert dict(of.options) == dict(of.usual.options) and of.solver == (of.usual.solver,)
