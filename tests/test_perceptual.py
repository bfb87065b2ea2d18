"""LPIPS of a benchmark: the package's own value with the weights of a file, and what is missing is said."""

from __future__ import annotations

import json
import sys

import pytest
import torch
import yaml
from make_prior import make_prior
from PIL import Image
from safetensors.torch import save_file

from recon.benchmark.answer import Answer
from recon.benchmark.perceptual import Perceptual
from recon.benchmark.scene import Scene
from recon.cli import main
from recon.errors import ConfigError

lpips = pytest.importorskip("lpips")
SHAPES = {
    0: (64, 3, 11, 11),
    3: (192, 64, 5, 5),
    6: (384, 192, 3, 3),
    8: (256, 384, 3, 3),
    10: (256, 256, 3, 3),
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """AlexNet of random numbers, laid out as torchvision's, as both kinds of file."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for place, shape in SHAPES.items():
        tensors[f"features.{place}.weight"] = 0.05 * torch.randn(shape, generator=generator)
        tensors[f"features.{place}.bias"] = 0.1 * torch.randn(shape[0], generator=generator)
    folder = tmp_path_factory.mktemp("weights")
    save_file(tensors, folder / "alex.safetensors")
    torch.save(tensors | {"classifier.1.bias": torch.zeros(4)}, folder / "alex.pth")
    return folder


def a_scene(reference):
    return Scene(None, None, reference, 0, lambda: reference)


def test_it_is_the_distance_of_the_package_with_the_weights_of_the_file(weights):
    metric = Perceptual(weights / "alex.pth")
    assert Perceptual(weights / "alex.safetensors").digest != metric.digest
    own = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False).eval()
    given = torch.load(weights / "alex.pth", weights_only=True)
    for name, value in own.net.named_parameters():
        value.data = given["features." + name.split(".", 1)[1]]
    generator = torch.Generator().manual_seed(1)
    reference = torch.rand(3, 40, 44, generator=generator)
    samples = reference + 0.2 * torch.randn(2, 3, 40, 44, generator=generator)
    with torch.no_grad():
        wanted = own(2 * samples.clamp(0, 1) - 1, (2 * reference - 1)[None].expand(2, -1, -1, -1)).mean()
    found = metric(a_scene(reference), Answer(samples, samples.mean(0), 1, 0.0))
    assert found == pytest.approx(float(wanted), rel=1e-4) and found > 0.01
    assert metric(a_scene(reference), Answer(reference[None], reference, 1, 0.0)) == pytest.approx(
        0, abs=1e-6
    )


def test_magnitudes_are_scaled_and_complex_phases_do_not_count(weights):
    metric = Perceptual(weights / "alex.pth")
    reference = 3 * torch.rand(40, 40, generator=torch.Generator().manual_seed(2))
    other = 0.1 * reference * torch.exp(torch.tensor(1j))
    assert metric(a_scene(reference), Answer(other[None, None], other[None], 1, 0.0)) == pytest.approx(
        0, abs=1e-5
    )


def test_a_benchmark_reports_it(weights, tmp_path, capsys):
    make_prior(tmp_path, "colours", complex_images=False, channels=3)
    pixels = (255 * torch.rand(40, 40, 3, generator=torch.Generator().manual_seed(3))).byte().numpy()
    Image.fromarray(pixels).save(tmp_path / "a.png")
    grid = {
        "prior": str(tmp_path / "colours.safetensors"),
        "inputs": ["a.png"],
        "metrics": {"lpips": str(weights / "alex.pth")},
        "problems": {"holes": {"operator": "inpainting", "sigma": 0.05}},
        "methods": {"adjoint": {}},
    }
    command = ["benchmark", str(tmp_path / "g.yaml"), "--data", str(tmp_path), "--out", str(tmp_path / "out")]
    keys = []
    for metrics in (grid["metrics"], {"lpips": str(weights / "alex.safetensors")}):
        (tmp_path / "g.yaml").write_text(yaml.safe_dump(grid | {"metrics": metrics}))
        assert main(command) == 0
        row = json.loads((tmp_path / "out/rows.jsonl").read_text().splitlines()[-1])
        assert row["metrics"]["lpips"] > 0
        keys.append(row["key"])
    assert keys[0] != keys[1], "other weights make another number"
    table = (tmp_path / "out/table.md").read_text()
    assert "| LPIPS |" in table and "Zhang" in table
    capsys.readouterr()


def test_what_is_missing_is_said(weights, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"alexnet-owt-7be5be79\.pth"):
        Perceptual(tmp_path / "none.pth")
    save_file({"conv.weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ConfigError, match=r"not AlexNet\.\n.*features\.0\.weight"):
        Perceptual(tmp_path / "other.safetensors")
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(ConfigError, match=r"pip install 'recon-posterior\[perceptual\]'"):
        Perceptual(weights / "alex.pth")
