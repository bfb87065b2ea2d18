"""The latent prior that `recon train` makes and the package ships: autoencoder, denoiser, and their use everywhere."""

from __future__ import annotations

import hashlib
import math
import os
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from disks import full_disk
from make_kspace import make_fastmri_file
from safetensors.torch import load_file
from worlds import random_complex

import operators as op
import recon
import recon.grids
import recon.jobs.list
from recon.cli import main
from recon.errors import ConfigError, InputError, OutputError
from recon.io.lock import WriteLock
from recon.mri import UNWEIGHED, normalise, reconstruct_slices
from recon.networks.load import WEIGHTS, load_autoencoder
from recon.posteriors import DPS
from recon.registry.recipe import Recipe
from recon.training import train
from recon.training.autoencoder import AutoencoderTraining, round_trip, train_autoencoder
from recon.training.prior import PriorTraining, train_prior
from recon.training.sets import ImageSet
from recon.training.slices import load_sets

SHIPPED = "brain-mri-latent"


def quiet(*words: object) -> None:
    pass


def training_set(folder: Path) -> Path:
    images = np.random.default_rng(0).random((6, 32, 32)).astype(np.float32)
    np.savez(folder / "set.npz", images=images)
    return folder


def images_of(folder: Path, name: str) -> torch.Tensor:
    return torch.stack(load_sets(folder, [ImageSet(name)], 99.5).images)


def configs(folder: Path, steps: int = 2, **options):
    """Of a tiny autoencoder, and of a prior of its latents."""
    common = dict(data=("set.npz",), data_root=str(folder), length={"steps": steps}, batch=2, crop=16)
    common |= dict(checkpoint_minutes=0.0, warmup_steps=1, **options)
    sizes = dict(widths=(4, 8), encoder_blocks=(1, 1), decoder_blocks=(1, 1))
    outer = AutoencoderTraining(name="outer", out=str(folder / "outer"), network=sizes, kl=1e-5, **common)
    inner = PriorTraining(
        name="tiny",
        out=str(folder / "tiny"),
        network=dict(widths=(4, 8), blocks=1, patch=1, embedding=8),
        autoencoder=str(folder / "outer/outer.safetensors"),
        sigma_data=1.0,
        sigma_min=0.01,
        **common,
    )
    return outer, inner


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    """The weights of a tiny latent prior of complex images."""
    folder = training_set(tmp_path_factory.mktemp("latent"))
    outer, inner = configs(folder)
    train_autoencoder(outer, log=quiet)
    return train_prior(inner, log=quiet) / "tiny.safetensors"


# --- training ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["autoencoder", "latent", "pixel", "autoencoder, bf16"])
def test_a_training_goes_on_as_if_it_had_not_stopped(tmp_path, kind):
    outer, inner = configs(training_set(tmp_path), steps=4, precision="bf16" if "bf16" in kind else "float32")
    if kind == "latent":
        train_autoencoder(outer, log=quiet)
    run, config = {
        "latent": (train_prior, inner),
        "pixel": (train_prior, replace(inner, autoencoder=None, sigma_data=0.3)),
    }.get(kind, (train_autoencoder, outer))
    whole = run(replace(config, out=str(tmp_path / "whole")), log=quiet)

    def stop(line) -> None:
        if str(line).startswith("step 2 "):
            raise KeyboardInterrupt

    broken = replace(config, out=str(tmp_path / "broken"))
    with pytest.raises(KeyboardInterrupt):
        run(broken, log=stop)
    lines: list[str] = []
    run(broken, log=lambda line: lines.append(str(line)))
    assert lines[0].startswith("going on from step 2")
    for name in ("checkpoint.safetensors", f"{config.name}.safetensors"):
        one, other = load_file(whole / name), load_file(tmp_path / "broken" / name)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one if key != "elapsed")


def test_an_interrupted_training_says_how_to_go_on(tmp_path):
    outer = replace(configs(training_set(tmp_path), steps=4)[0], checkpoint_minutes=9.0)
    lines: list[str] = []

    def stop(network, inputs) -> None:
        raise KeyboardInterrupt

    def run() -> str:
        with pytest.raises(KeyboardInterrupt), forward_hook(stop):
            train_autoencoder(outer, log=lambda line: lines.append(str(line)))
        return lines[-1]

    assert run().startswith("Interrupted.") and "starts again: nothing was written" in lines[-1]
    assert list((tmp_path / "outer").iterdir()) == []
    train_autoencoder(replace(outer, length={"steps": 2}), log=quiet)
    assert f"goes on from {outer.checkpoint}" in run()
    assert sorted(os.listdir(outer.out)) == ["checkpoint.safetensors", "outer.json", "outer.safetensors"]


@contextmanager
def forward_hook(hook):
    """``hook`` before each call of an encoder."""
    handle = torch.nn.modules.module.register_module_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def test_one_training_at_a_time_writes_a_folder(tmp_path):
    outer, _ = configs(training_set(tmp_path))
    Path(outer.out).mkdir()
    lock = WriteLock(outer.checkpoint)
    with pytest.raises(OutputError, match="another run is writing it"):
        train_autoencoder(outer, log=quiet)
    lock.release()
    train_autoencoder(outer, log=quiet)


@pytest.mark.parametrize("broken", ["another network", "cut", "no checkpoint", "empty"])
def test_a_checkpoint_that_is_none_of_this_training(tmp_path, broken):
    outer, _ = configs(training_set(tmp_path))
    train_autoencoder(outer, log=quiet)
    path, before = outer.checkpoint, outer.checkpoint.read_bytes()
    if broken == "another network":
        outer = replace(outer, network=outer.network | {"widths": (4, 12)})
    else:
        path.write_bytes({"cut": before[:-99], "no checkpoint": b"text" * 9, "empty": b""}[broken])
    with pytest.raises(InputError, match="cannot go on from") as caught:
        train_autoencoder(replace(outer, length={"steps": 9}), log=quiet)
    assert "--out" in caught.value.do


def test_a_training_writes_over_nothing_that_it_reads(tmp_path):
    outer, inner = configs(training_set(tmp_path))
    train_autoencoder(outer, log=quiet)
    before = outer.weights.read_bytes()
    with pytest.raises(OutputError, match="would overwrite"):
        train_prior(replace(inner, out=outer.out, name="outer"), log=quiet)
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny/tiny.json").write_text("{}")
    with pytest.raises(OutputError, match="would overwrite"):
        train(inner, reads=[tmp_path / "tiny/tiny.json"], log=quiet)
    assert outer.weights.read_bytes() == before


def test_a_full_disk_leaves_the_weights_as_they_were(tmp_path):
    outer, _ = configs(training_set(tmp_path))
    train_autoencoder(outer, log=quiet)
    before = {path.name: path.read_bytes() for path in Path(outer.out).iterdir()}
    with full_disk(2000), pytest.raises(OutputError, match="cannot be written"):
        train_autoencoder(replace(outer, length={"steps": 3}), log=quiet)
    assert {path.name: path.read_bytes() for path in Path(outer.out).iterdir()} == before


def test_an_autoencoder_learns(tmp_path):
    """A few dozen steps on one image halve its error, and the card's statistics make its latents unit ones."""
    np.savez(tmp_path / "set.npz", images=np.tile(smooth_brain(32).abs().numpy(), (4, 1, 1)))
    plain = dict(resample=0.0, blur=0.0, gamma=0.0, scale=0.0, shading=0.0, shrink=0.0)
    config = replace(configs(tmp_path, steps=40)[0], augment=plain, crop=32, lr=0.02, complex_images=False)
    config = replace(config, validation=("set.npz",), checkpoint_minutes=10.0, ema=0.5)
    after = load_autoencoder(train_autoencoder(config, log=quiet) / "outer.safetensors")
    first = replace(config, length={"steps": 1}, out=str(tmp_path / "first"))
    before = load_autoencoder(train_autoencoder(first, log=quiet) / "outer.safetensors")
    name = "validation_psnr_of_round_trip"
    assert after.card[name] > before.card[name] + 3
    z = after.encode(images_of(tmp_path, "set.npz"))
    assert z.mean((0, 2, 3)).abs().max() < 0.5 and (z.std((0, 2, 3)) - 1).abs().max() < 0.5


def test_commands_of_both_trainings(tmp_path, capsys):
    training_set(tmp_path)
    common = "data: [set.npz]\nlength: {steps: 1}\nbatch: 2\ncrop: 16\n"
    widths = "{widths: [4, 8], encoder_blocks: [1, 1], decoder_blocks: [1, 1]}"
    (tmp_path / "a.yaml").write_text(f"kind: autoencoder\nname: a\nnetwork: {widths}\n{common}")
    network = "{widths: [4, 8], blocks: 1, patch: 1, embedding: 8}"
    (tmp_path / "b.yaml").write_text(
        f"name: b\nautoencoder: {tmp_path}/a/a.safetensors\nnetwork: {network}\n{common}"
    )
    for name in ("a", "b"):
        command = ["train", str(tmp_path / f"{name}.yaml"), "--data-root", str(tmp_path), "--out"]
        assert main([*command, str(tmp_path / name)]) == 0
    assert "--sampler dps" in capsys.readouterr().out
    assert isinstance(recon.load_prior(tmp_path / "b/b.safetensors"), recon.LatentPrior)
    with pytest.raises(ConfigError, match="is an Autoencoder"):
        recon.load_prior(tmp_path / "a/a.safetensors")
    with pytest.raises(ConfigError, match="is a UNet"):
        load_autoencoder(tmp_path / "b/b.safetensors")
    (tmp_path / "a.yaml").write_text(f"kind: autoencodr\nname: a\n{common}")
    assert main(["train", str(tmp_path / "a.yaml")]) == 2
    assert "autoencoder" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["brain-mri-autoencoder", "brain-mri-latent"])
def test_presets_of_the_shipped_weights(name, capsys):
    assert main(["train", name, "--dry-run"]) == 0
    assert name in capsys.readouterr().out


# --- use ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sets, size", [(1, (16, 24)), (2, (12, 8))])
def test_images_of_any_fitting_size(tiny, sets, size):
    prior = recon.load_prior(tiny)
    image = random_complex(3, sets, *size, seed=1).to(torch.complex64)
    z = prior.encode(image)
    assert z.shape == (3, sets, 4, size[0] // 4, size[1] // 4) and z.dtype == torch.float32
    back = prior.decode(z)
    assert back.shape == image.shape and back.dtype == torch.complex64
    assert prior(z, 0.5).shape == z.shape
    torch.testing.assert_close(back[1:2], prior.decode(z[1:2]), rtol=1e-4, atol=1e-5)  # rows by themselves
    A = op.MRI(torch.ones(size), torch.ones(sets, 2, *size, dtype=torch.complex64))
    result = recon.sample(
        recon.Problem(A, A(image), 0.1), prior, "dps", "euler", 2, samples=2, init=image, sigma_start=1.0
    )
    assert result.samples.shape == (3, 2, sets, *size)


def test_a_size_that_does_not_fit_is_refused(tiny):
    prior, A = recon.load_prior(tiny), op.MRI(torch.ones(18, 16))
    prior.function = prior.encode = None  # type: ignore[assignment]  # nothing is called
    with pytest.raises(ConfigError, match=r"18 x 16(.|\n)*multiples of 4(.|\n)*20 x 16"):
        recon.sample(recon.Problem(A, torch.ones(1, 1, 18, 16, dtype=torch.complex64), 0.1), prior, "dps")


@pytest.mark.parametrize("dtype, bound", [("float32", 1e-5), ("bf16", 0.05)])
def test_runtime_keeps_it_latent(tiny, dtype, bound):
    """Encoder, decoder and denoiser run a few rows at a time and in the precision, with the same result."""
    plain = recon.load_prior(tiny)
    rows: list[int] = []
    prior = recon.load_prior(tiny)
    for part in (
        prior.module["network"],
        prior.module["latents"].network.encoder,
        prior.module["latents"].network.decoder,
    ):
        part.register_forward_pre_hook(lambda module, inputs: rows.append(len(inputs[0])))
    prior = recon.Runtime(device="cpu", dtype=dtype, chunk=2).prepare(prior)
    assert isinstance(prior, recon.LatentPrior) and prior.factor == 4 and prior.card["name"] == "tiny"
    image = random_complex(5, 1, 16, 16, seed=2).to(torch.complex64)
    z = plain.encode(image)
    for found, wanted in (
        (prior.encode(image), z),
        (prior.decode(z), plain.decode(z)),
        (prior(z, 0.5), plain(z, 0.5)),
    ):
        assert found.dtype == wanted.dtype
        assert (found - wanted).norm() <= bound * wanted.norm()
    assert rows == 3 * [2, 2, 1]


def smooth_brain(size: int) -> torch.Tensor:
    """(size, size) complex64: an ellipse with darker ventricles and a smooth phase."""
    y, x = torch.meshgrid(*2 * [torch.linspace(-1, 1, size)], indexing="ij")
    head = torch.sigmoid(30 * (0.75 - (x**2 * 1.3 + y**2).sqrt()))
    ventricles = torch.exp(-30 * ((x.abs() - 0.2) ** 2 + 0.3 * y**2))
    return torch.polar(head * (0.8 - 0.5 * ventricles), x * y + 0.5)


def test_nothing_is_decoded_where_no_coil_receives(tiny):
    image = smooth_brain(32)
    maps = torch.ones(1, 2, 32, 32, dtype=torch.complex64)
    maps[..., :8, :] = 0
    recipe = Recipe(sampler="dps", solver="euler", steps=2, samples=2)
    one = normalise(torch.fft.fftshift(torch.fft.fft2(maps[0] * image)), torch.ones(32), recipe, maps=maps)
    two = replace(one, index=1)
    for result in reconstruct_slices([one, two], recipe, recon.load_prior(tiny)):
        assert result.samples.shape == (2, 32, 32)
        assert (result.samples[:, :8] == 0).all() and (result.samples[:, 8:] != 0).all()


def test_gradient_steps_are_in_units_of_the_image(tiny):
    """The same image, measurement and step, whatever the units of the file."""
    k = torch.fft.fftshift(torch.fft.fft2(smooth_brain(32), norm="ortho"))[None]
    recipe = Recipe(sampler="dps", sampler_options={"zeta": 3.0}, solver="euler", steps=4, samples=1)
    prior, mask = recon.load_prior(tiny), torch.ones(32)
    (one,), (other,) = (
        reconstruct_slices([normalise(c * k, mask, replace(recipe, sigma_y=c * 1e-4))], recipe, prior)
        for c in (1.0, 1e-5)
    )
    A, y = op.MRI(torch.ones(32, 32)), k[None] / one.scale
    grid = recon.grids.GRIDS["karras"](4, recipe.sigma_start, recipe.last_level(prior))
    plain = recon.sample(
        recon.Problem(A, y, UNWEIGHED),
        prior,
        DPS(prior, zeta=3.0),
        "euler",
        4,
        1,
        grid=grid,
        init=normalise(k, mask, recipe).start[None],
    )
    torch.testing.assert_close(other.samples / other.scale, one.samples / one.scale, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(plain.samples[0, :, 0], one.samples / one.scale, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("sampler", ["dps", "stsl", "dds"])
def test_reconstruct(tiny, tmp_path, capsys, sampler):
    file = make_fastmri_file(tmp_path / "a.h5", slices=1)
    command = ["reconstruct", str(file), "--prior", str(tiny), "--sampler", sampler, "--solver", "euler"]
    command += [
        "--steps",
        "2",
        "--samples",
        "2",
        "--accel",
        "2",
        "--center",
        "0.4",
        "--out",
        str(tmp_path / "out"),
    ]
    assert main([*command, "--dry-run"]) == 0
    assert "GiB" in capsys.readouterr().out
    assert main(command) == 0, capsys.readouterr().err
    with h5py.File(tmp_path / "out/a.h5") as found:
        assert np.isfinite(found["reconstruction"][()]).all()  # type: ignore[index]


def test_refused_before_anything_is_done(tiny, tmp_path, capsys):
    file = make_fastmri_file(tmp_path / "a.h5", slices=1)
    command = ["reconstruct", str(file), "--prior", str(tiny), "--out", str(tmp_path / "out")]
    assert main([*command, "--sampler", "ddnm"]) == 2
    assert "latent prior" in capsys.readouterr().err
    odd = make_fastmri_file(tmp_path / "odd.h5", slices=1, W=26)
    assert main(["reconstruct", str(odd), *command[2:], "--sampler", "dps", "--dry-run"]) == 2
    assert "multiples of 4" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_restore(tiny, tmp_path, capsys):
    np.save(tmp_path / "image.npy", smooth_brain(32).numpy())
    command = ["restore", str(tmp_path / "image.npy"), "--operator", "mri", "--prior", str(tiny)]
    command += ["--solver", "euler", "--steps", "2", "--samples", "2", "--out", str(tmp_path / "out")]
    for sampler in ("dps", "stsl"):
        assert main([*command, "--sampler", sampler, "--overwrite"]) == 0, capsys.readouterr().err
    assert main([*command, "--sampler", "ddnm", "--overwrite"]) == 2
    assert "latent prior" in capsys.readouterr().err


# --- what ships --------------------------------------------------------------------------------------------


def test_the_shipped_card():
    prior = recon.PRIORS[SHIPPED]()
    weights, card = Path(str(WEIGHTS)) / f"{SHIPPED}.safetensors", prior.card
    assert isinstance(prior, recon.LatentPrior) and prior.factor == 4
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == card["sha256"]
    assert weights.stat().st_size <= 6e6
    assert card["complex_images"] and card["data"] and card["citation"] and card["parametrisation"] == "edm"
    assert card["parameters"] == sum(t.numel() for t in load_file(weights).values())
    assert card["autoencoder"]["validation_psnr_of_round_trip"] >= 30
    assert SHIPPED in recon.jobs.list.listing(["priors"])


@pytest.mark.parametrize("size", [64, 96])
def test_round_trip_of_a_drawing(size):
    prior, image = recon.load_prior(SHIPPED), smooth_brain(size)[None, None]
    with torch.no_grad():
        back = prior.decode(prior.encode(image))
    assert -10 * math.log10((back.abs() - image.abs()).square().mean()) > 28
    assert -10 * math.log10((back - image).abs().square().mean()) > 26


def test_round_trip_of_slices_it_never_saw(shared_data):
    prior = recon.load_prior(SHIPPED)
    images = images_of(shared_data, "mri/eval/openms_eval.npz")[::5]
    assert round_trip(prior.module["latents"].network, images, complex_images=True) > 29
