"""Damaged and foreign weights are refused in one clear error each, before memory is taken."""

from __future__ import annotations

import hashlib
import json
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from make_prior import make_prior
from safetensors.torch import load, save_file

import recon
from recon.cli import main
from recon.errors import ConfigError
from recon.networks.autoencoder import Autoencoder
from recon.networks.load import PICKLES, load_autoencoder
from recon.registry.objects import make_prior as prior_by_name

Case = Callable[[Path], Path]


def make_autoencoder(folder: Path) -> Path:
    """``folder/outer.safetensors`` with its card beside it."""
    network = Autoencoder(latents=2, widths=(4, 4), encoder_blocks=(1, 1), decoder_blocks=(1, 1))
    path = folder / "outer.safetensors"
    save_file(network.state_dict(), path)
    card = {
        "network": {"kind": "Autoencoder", **network.options},
        "latent_mean": [0.0, 0.0],
        "latent_std": [1.0, 1.0],
    }
    return with_card(path, card)


def stored(path: Path) -> dict[str, torch.Tensor]:
    """Tensors that do not lie in the file, which can then be written anew."""
    return load(path.read_bytes())


def make_latent_prior(folder: Path) -> Path:
    """``folder/tiny.safetensors``: a prior of the latents of `make_autoencoder`."""
    outer, path = make_autoencoder(folder), make_prior(folder)
    tensors = stored(path) | {f"autoencoder.{key}": value for key, value in stored(outer).items()}
    save_file(tensors, path)
    return with_card(path, card_of(path) | {"autoencoder": {**card_of(outer)}})


def card_of(path: Path) -> dict[str, Any]:
    return json.loads(path.with_suffix(".json").read_text())


def with_card(path: Path, card: Any) -> Path:
    """The weights with another card beside them, which gives their sha256."""
    if isinstance(card, dict) and card.get("sha256", "") is not None:
        card["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_suffix(".json").write_text(card if isinstance(card, str) else json.dumps(card))
    return path


def card(change: Callable[[dict[str, Any]], object], make: Case = make_prior) -> Case:
    """A prior whose card is changed."""

    def case(folder: Path) -> Path:
        path = make(folder)
        found = card_of(path)
        change(found)
        return with_card(path, found)

    return case


def says(make: Case = make_prior, **values: Any) -> Case:
    return card(lambda found: found.update(values), make)


def network(**values: Any) -> Case:
    return card(lambda found: found["network"].update(values))


def without(key: str, make: Case = make_prior) -> Case:
    return card(lambda found: found.pop(key), make)


def text(content: str) -> Case:
    return lambda folder: with_card(make_prior(folder), content)


def content(change: Callable[[bytes], bytes]) -> Case:
    """A prior whose weights' bytes are changed, and whose card agrees with them."""

    def case(folder: Path) -> Path:
        path = make_prior(folder)
        path.write_bytes(change(path.read_bytes()))
        return with_card(path, card_of(path))

    return case


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Case:
    def case(folder: Path) -> Path:
        path = make_prior(folder)
        found = stored(path)
        change(found)
        save_file(found, path)
        return with_card(path, card_of(path))

    return case


def pickled(folder: Path) -> Path:
    path = make_prior(folder)
    torch.save(stored(path), path)
    return with_card(path, card_of(path))


def other_weights(folder: Path) -> Path:
    """The bytes of one weight differ: the sha256 says so."""
    path = make_prior(folder)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    return path


def alone(folder: Path) -> Path:
    path = make_prior(folder)
    path.unlink()
    return path


def header(size: int, words: bytes) -> bytes:
    return size.to_bytes(8, "little") + words


A_TENSOR = "down.0.0.conv1.weight"
BAD: dict[str, tuple[Case, str]] = {
    "cut": (content(lambda data: data[: len(data) // 2]), "cannot be read as safetensors"),
    "cut and not described": (
        lambda d: (p := make_prior(d)).write_bytes(p.read_bytes()[:5000]) and p,
        "cannot be read as safetensors",
    ),
    "empty": (content(lambda data: b""), "cannot be read as safetensors"),
    "header of zeros": (content(lambda data: bytes(4000)), "cannot be read as safetensors"),
    "header too long": (content(lambda data: header(2**62, data[8:])), "cannot be read as safetensors"),
    "header is no JSON": (content(lambda data: data[:8] + b"x" * (len(data) - 8)), "cannot be read as safetensors"),
    "header of huge shapes": (
        content(lambda data: header(len(HUGE), HUGE) + bytes(64)),
        "cannot be read as safetensors",
    ),
    "pickle": (pickled, "PyTorch checkpoint"),
    "old pickle": (content(lambda data: b"\x80\x02cos\nsystem\n."), "PyTorch checkpoint"),
    "none": (alone, "There are no weights"),
    "changed": (other_weights, "sha256 differs"),
    "a tensor missing": (tensors(lambda t: t.pop(A_TENSOR)), f"It has no tensor {A_TENSOR}"),
    "a tensor too many": (tensors(lambda t: t.update(more=torch.ones(3))), "a tensor more that"),
    "another shape": (tensors(lambda t: t.update({A_TENSOR: torch.ones(4, 4, 5, 5)})), "has the shape (4, 4, 5, 5)"),
    "whole numbers": (tensors(lambda t: t.update({A_TENSOR: t[A_TENSOR].long()})), "holds I64"),
    "NaN": (tensors(lambda t: t[A_TENSOR].fill_(np.nan)), "NaN or infinite weights"),
    "infinite": (tensors(lambda t: [v.fill_(np.inf) for v in t.values()]), "NaN or infinite weights"),
    "card of nothing": (text(""), "not the card"),
    "card cut": (text('{"network": {"kind"'), "not the card"),
    "card of binary": (lambda d: (p := make_prior(d), p.with_suffix(".json").write_bytes(b"\xff\xfe\x00"))[0], "not the card"),
    "card of brackets": (text("[" * 200_000), "not the card"),
    "card of a megabyte": (text(" " * 2**21 + "{}"), "not the card"),
    "card is a list": (text("[1, 2]"), "not the card"),
    "another JSON": (text('{"a": 1}'), "not the card"),
    "network is a word": (says(network="UNet"), '"network"'),
    "another network": (network(kind="Transformer"), "UNet or Autoencoder"),
    "network of a list": (network(kind=[1]), "UNet or Autoencoder"),
    "no sha256": (card(lambda c: c.update(sha256=None)), '"sha256"'),
    "no sigma": (without("sigma_data"), 'no "sigma_data"'),
    "no kind of images": (without("complex_images"), 'no "complex_images"'),
    "sigma is a word": (says(sigma_min="0.1"), "a number above 0"),
    "sigma of 0": (says(sigma_data=0), "a number above 0"),
    "sigma is endless": (says(sigma_max=10**400), "a number above 0"),
    "sigma is NaN": (says(sigma_max=float("nan")), "a number above 0"),
    "sigmas reversed": (says(sigma_min=10.0, sigma_max=1.0), 'below "sigma_max"'),
    "another parametrisation": (says(parametrisation="eps"), '"edm"'),
    "a setting too many": (network(heads=8), 'a network with "heads"'),
    "100 000 channels": (network(channels=100_000), "2 for what it is a prior of"),
    "a width of 100 000": (network(widths=[100_000, 100_000]), "that of the network is (100000"),
    "absurd widths": (network(widths=[2**60, 8]), "whole numbers above 0"),
    "a thousand levels": (network(widths=[4] * 1000), "up to 16"),
    "a billion blocks": (network(blocks=10**9), "from 1 to 64"),
    "negative widths": (network(widths=[-4, 8]), "above 0"),
    "widths of words": (network(widths="48"), '"widths"'),
    "an odd embedding": (network(embedding=7), "even"),
    "channels of a real prior": (says(complex_images=False, network={"kind": "UNet", "channels": 3}), "does not hold"),
    "latents of no autoencoder": (says(autoencoder=4), "a mapping"),
    "latents of a U-Net": (says(autoencoder={"network": {"kind": "UNet"}, "latent_mean": [], "latent_std": []}), "Autoencoder"),
    "an autoencoder": (make_autoencoder, "is an Autoencoder, not a prior"),
    "latents without a mean": (
        card(lambda c: c["autoencoder"].pop("latent_mean"), make_latent_prior),
        'no "latent_mean"',
    ),
    "latents of three channels": (
        card(lambda c: c["autoencoder"].update(latent_mean=[0.0] * 3), make_latent_prior),
        "each of the 2 channels",
    ),
    "an autoencoder of 100 000 latents": (
        card(lambda c: c["autoencoder"]["network"].update(latents=100_000), make_latent_prior),
        "each of the 100000",
    ),
    "an autoencoder of other widths": (
        card(lambda c: c["autoencoder"]["network"].update(widths=[100_000, 4]), make_latent_prior),
        "that of the network is (100000",
    ),
    "an autoencoder of other levels": (
        card(lambda c: c["autoencoder"]["network"].update(widths=[4, 4, 4]), make_latent_prior),
        "each of the 3 widths",
    ),
}  # fmt: skip
HUGE = json.dumps({A_TENSOR: {"dtype": "F32", "shape": [10**9, 10**9], "data_offsets": [0, 64]}}).encode()


def refused(load: Callable[[Path], object], path: Path) -> ConfigError:
    """What is raised while there is little memory to take."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**29, limits[1]))
    try:
        with pytest.raises(ConfigError) as caught:
            load(path)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    error = caught.value
    assert error.what and error.why and error.do
    assert str(error).splitlines() == [error.what, error.why, error.do]
    return error


def test_what_the_cases_change_can_be_loaded(tmp_path):
    """Otherwise they could be refused for something else."""
    assert recon.load_prior(make_latent_prior(tmp_path)).factor == 4
    assert load_autoencoder(make_autoencoder(tmp_path)).channels == 2
    assert not recon.load_prior(make_prior(tmp_path, complex_images=False)).card["complex_images"]
    assert recon.load_prior(make_prior(tmp_path)).card["name"] == "tiny"
    assert recon.load_prior(other_weights(tmp_path), verify=False).card["name"] == "tiny"


@pytest.mark.parametrize("case", BAD)
def test_bad_weights_are_refused(tmp_path, case):
    make, said = BAD[case]
    path = make(tmp_path)
    error = refused(recon.load_prior, path)
    assert said in str(error), str(error)
    if case != "an autoencoder":
        assert path.stem in error.what
        assert str(refused(recon.load_prior, path.with_suffix(".json"))) == str(error)


def cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:1000])
    return path


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda d: cut(make_autoencoder(d)), "cannot be read as safetensors"),
        (without("latent_std", make_autoencoder), 'no "latent_std"'),
        (says(make_autoencoder, latent_std=[1.0, 0.0]), "numbers above 0"),
        (says(make_autoencoder, latent_mean=["a", "b"]), "a list of numbers"),
        (make_prior, "is a UNet"),
    ],
)
def test_a_bad_autoencoder_is_refused(tmp_path, make, said):
    assert said in str(refused(load_autoencoder, make(tmp_path)))


@pytest.mark.parametrize("suffix", PICKLES)
def test_a_pickled_autoencoder_is_not_opened(tmp_path, suffix):
    path = tmp_path / f"model{suffix}"
    torch.save({"weight": torch.ones(3)}, path)
    assert "PyTorch checkpoint" in str(refused(load_autoencoder, path))
    for loader in (recon.load_prior, lambda path: prior_by_name(str(path))):
        assert "of no family of checkpoints" in str(refused(loader, path))


def test_weights_without_their_card_are_known(tmp_path):
    path = make_prior(tmp_path)
    path.with_suffix(".json").unlink()
    assert "Copy the card" in str(refused(recon.load_prior, path))


def test_unknown_names_say_how_a_prior_is_named(tmp_path):
    for name in ("brain", str(tmp_path), "x.txt"):
        error = refused(recon.load_prior, Path(name))
        assert "brain-mri" in str(error) and ".safetensors" in str(error)
    assert "with its card" in str(refused(recon.load_prior, tmp_path / "none.safetensors"))


def test_a_card_that_may_not_be_read(tmp_path, monkeypatch):
    path = make_prior(tmp_path)

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(json, "loads", refuse)
    assert "Permission denied" in str(refused(recon.load_prior, path))


def test_the_command_says_it_in_three_lines(tmp_path, capsys, monkeypatch):
    path = BAD["100 000 channels"][0](tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(["reconstruct", "k.h5", "--prior", str(path), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 3 and '"channels" is 100000' in said[0]
