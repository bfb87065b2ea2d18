"""What a training is shown and told: sets, k-space, weights to go on from, precision, processes, and its judges."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from conftest import ROOT
from make_kspace import ifft2c, make_fastmri_file, make_kspace
from make_prior import make_prior
from PIL import Image
from safetensors.torch import load_file

import recon.training.kspace
from recon.cli import main
from recon.errors import ConfigError, InputError, SamplingError
from recon.training import make_training
from recon.training.augment import random_crops, scaled_down, with_random_phase
from recon.training.denoising import judges
from recon.training.loop import compiling
from recon.training.prior import PriorTraining, draw_sigma, train_prior
from recon.training.sets import ImageSet, as_set, chosen, is_held_out
from recon.training.slices import load_sets
from recon.training.views import augmented_view

NETWORK = dict(widths=[4, 8], blocks=1, patch=2, embedding=8)


def quiet(*words: object) -> None:
    pass


def settings(folder: Path, **options):
    common = dict(
        name="tiny", data=["set.npz"], data_root=str(folder), out=str(folder / "out"), batch=2, crop=16
    )
    return (
        common | dict(network=NETWORK, length={"steps": 1}, warmup_steps=1, checkpoint_minutes=9.0) | options
    )


def stack(path: Path, count: int = 6, size: int = 32, **columns) -> Path:
    images = np.random.default_rng(0).random((count, size, size)).astype(np.float32)
    np.savez(path, images=images, **columns)
    return path


@pytest.fixture
def folder(tmp_path) -> Path:
    stack(tmp_path / "set.npz")
    return tmp_path


def same(one: Path, other: Path, **tolerance) -> bool:
    a, b = load_file(one), load_file(other)
    return all(torch.allclose(a[k].float(), b[k].float(), **tolerance) for k in a if k != "elapsed")


# --- sets --------------------------------------------------------------------------------------------------

COLUMNS = {
    "source": lambda: np.array(["a", "a", "a", "a", "b", "c"]),
    "contrast": lambda: np.array(["T1", "T1", "T1", "T1", "T1", "T2"]),
    "subject": lambda: np.array([f"subject {i}" for i in range(6)]),
}


def test_a_subject_is_held_out_by_its_name_alone():
    """The first 8 bytes of its MD5, as a fraction, are below the share: the same for ever."""
    for name in ("subject 0", "7", "é"):
        fraction = int(hashlib.md5(name.encode()).hexdigest()[:16], 16) / 2**64
        assert is_held_out(name, fraction + 1e-9) and not is_held_out(name, fraction - 1e-9)
    assert 900 < sum(is_held_out(str(i), 0.1) for i in range(10_000)) < 1100


@pytest.mark.parametrize(
    "entry, kept",
    [
        (ImageSet("x"), {i: 1 / 6 for i in range(6)}),
        (ImageSet("x", only={"source": ["b", "c"]}), {4: 0.5, 5: 0.5}),
        (ImageSet("x", without={"source": "a", "contrast": ["T2"]}), {4: 1.0}),
        (ImageSet("x", balance=("source",)), {i: 0.125 for i in range(4)} | {4: 0.25, 5: 0.25}),
    ],
)
def test_what_is_kept_and_how_often_it_is_drawn(entry, kept):
    """Each group in proportion to the root of its size: 2, 1, 1 of four, one, one."""
    indices, chance = chosen(entry, 6, COLUMNS)
    assert dict(zip(indices.tolist(), chance, strict=True)) == pytest.approx(kept)


def test_a_block_of_slices_is_left_out():
    assert chosen(ImageSet("x", skip=[1, 3]), 6, COLUMNS)[0].tolist() == [0, 3, 4, 5]
    assert ImageSet("x", skip=(1, 3)).title == "x, without slices 1 to 2"


def test_hounsfield_units_become_attenuation_over_that_of_water(folder):
    stored = np.array([[0, 24, 1024], [1074, 2024, 4095]], np.uint16)  # padding, air, water; fat, bone, metal
    np.savez(folder / "ct.npz", images=stored[None])
    (image,) = load_sets(folder, [ImageSet("ct.npz", hounsfield=1024)], 99.5).images
    expected = torch.tensor([[0.0, 0.0, 1.0], [1.05, 2.0, 4.071]])
    torch.testing.assert_close(image[0], expected)
    given = settings(folder, data=[{"file": "ct.npz", "hounsfield": 1024}], complex_images=False)
    train_prior(make_training(given), log=quiet)
    assert "1 + HU / 1000" in json.loads((folder / "out/tiny.json").read_text())["normalisation"]


def test_a_real_image_that_is_scaled_down_keeps_its_range_and_mean():
    image = torch.rand(1, 60, 80, generator=torch.Generator().manual_seed(0)) * 3
    sizes = set()
    for seed in range(20):
        small = scaled_down(image, 1.0, 24, torch.Generator().manual_seed(seed))
        sizes.add(small.shape[-1])
        assert min(small.shape[-2:]) >= 24 and image.min() <= small.min() and small.max() <= image.max()
        assert abs(small.mean() - image.mean()) < 0.03
    assert len(sizes) > 5
    assert scaled_down(image, 0.0, 24, torch.Generator()) is image


def test_held_out_subjects_are_the_rest():
    share = 0.5
    parts = [chosen(ImageSet("x", hold_out=share, held_out=held), 6, COLUMNS)[0] for held in (False, True)]
    assert sorted(np.concatenate(parts).tolist()) == list(range(6)) and all(map(len, parts))


def test_sets_of_several_sizes_are_drawn_by_weight(folder):
    stack(folder / "small.npz", 3, 20)
    (folder / "photos").mkdir()
    Image.fromarray(np.arange(48 * 40, dtype=np.uint8).reshape(48, 40)).save(folder / "photos/a.png")
    sets = [ImageSet("set.npz", weight=3), ImageSet("small.npz"), ImageSet("photos", sigma_from=0.5)]
    slices = load_sets(folder, sets, 99.5)
    assert {tuple(image.shape) for image in slices.images} == {(1, 32, 32), (1, 20, 20), (1, 48, 40)}
    assert torch.allclose(slices.chance, torch.tensor([3 / 6] * 6 + [1 / 3] * 3 + [1.0]).double())
    assert slices.sigma_from.tolist() == [0.0] * 9 + [0.5]
    assert all(abs(np.quantile(image, 0.995) - 1) < 1e-5 for image in slices.images)
    entries = ["set.npz", {"file": "small.npz", "weight": 2}, {"file": "photos", "sigma_from": 0.5}]
    train_prior(make_training(settings(folder, data=entries, crop=24, validation=entries[1:])), log=quiet)
    card = json.loads((folder / "out/tiny.json").read_text())
    assert card["data"] == entries
    curves = card["validation_psnr_of_denoising_by_set"]
    assert (
        list(curves) == ["small.npz", "photos"]
        and curves["small.npz"] == card["validation_psnr_of_denoising"]
    )
    assert list(curves["photos"]) == ["0.5", "1.0", "2.0", "5.0"]


def test_slices_are_shown_at_their_least_noise_level_or_above(folder):
    config = make_training(settings(folder))
    lowest = torch.tensor([0.0, 0.3]).repeat(500)
    sigma = draw_sigma(config, lowest, torch.Generator().manual_seed(0))
    assert (sigma >= lowest).all() and sigma[::2].median() < 0.2 and (sigma[1::2] == 0.3).sum() < 5


REFUSED = {
    "key": ({"file": "set.npz", "wieght": 2}, '"weight"'),
    "no file": ({"weight": 2}, "needs file"),
    "not a set": (3, "name of a file"),
    "weight": ({"file": "set.npz", "weight": 0}, "above 0"),
    "share": ({"file": "set.npz", "hold_out": 1}, "below 1"),
    "held": ({"file": "set.npz", "held_out": True}, "beside hold_out"),
    "list": ({"file": "set.npz", "only": ["a"]}, "maps names"),
    "block": ({"file": "set.npz", "skip": [3, 2]}, "first slice that is left out"),
    "no block": ({"file": "set.npz", "skip": 3}, "first slice that is left out"),
    "whole block": ({"file": "set.npz", "skip": [0, 6]}, "keeps no slice"),
    "water": ({"file": "set.npz", "hounsfield": "1024"}, "stored value of 0 HU"),
    "level": ({"file": "set.npz", "sigma_from": 99}, "largest noise level"),
    "array": ({"file": "set.npz", "only": {"sourec": ["a"]}}, '"source"'),
    "value": ({"file": "set.npz", "without": {"source": ["aa"]}}, "No slice"),
    "length": ({"file": "set.npz", "balance": ["short"]}, "one value a slice"),
    "subject": ({"file": "set.npz", "hold_out": 0.1}, 'no array "subject"'),
    "nothing left": (
        {"file": "set.npz", "only": {"source": "a"}, "without": {"source": "a"}},
        "keeps no slice",
    ),
    "folder": ("empty", "neither pictures nor"),
    "mixed": ("mixed", "pictures and k-space"),
    "missing": ("no.npz", "does not exist"),
}


@pytest.mark.parametrize(
    "case, where",
    [(case, where) for case in REFUSED for where in ("data", "validation")[: 1 if case == "level" else 2]],
)
def test_a_set_that_cannot_be_used_is_refused_before_anything_runs(tmp_path, case, where, monkeypatch):
    stack(tmp_path / "set.npz", source=np.array(list("aaabbb")), short=np.ones(2))
    for name in ("empty", "mixed"):
        (tmp_path / name).mkdir()
    make_fastmri_file(tmp_path / "mixed/a.h5", slices=1)
    Image.new("L", (8, 8)).save(tmp_path / "mixed/a.png")
    entry, said = REFUSED[case]
    monkeypatch.setattr("recon.training.loop.take_step", None)
    with pytest.raises(ConfigError) as caught:
        train_prior(make_training(settings(tmp_path) | {where: ["set.npz", entry]}), log=quiet)
    assert said in str(caught.value)
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.parametrize(
    "change, said",
    [
        ({"augment": {"shrnk": 0.1}}, '"shrink"'),
        ({"augment": {"shrink": 2}}, "probability"),
        ({"precision": "fp61"}, '"fp16"'),
        ({"batch": 0}, "above 0"),
        ({"length": {"steps": 0}}, "as long as"),
        ({"data": []}, "at least one"),
        ({"data": "set.npz"}, "list of sets"),
        ({"sigma_min": 3, "sigma_max": 2}, "first below the second"),
        ({"network": {"widhts": [4]}}, '"widths"'),
    ],
)
def test_settings_that_cannot_be_are_refused(folder, change, said):
    with pytest.raises(ConfigError) as caught:
        train_prior(make_training(settings(folder) | change), log=quiet)
    assert said in str(caught.value)


# --- k-space -----------------------------------------------------------------------------------------------


def scans(folder: Path) -> Path:
    (folder / "scans").mkdir()
    for name, contrast in (("a", "AXT2"), ("b", "AXT1")):
        path = make_fastmri_file(
            folder / f"scans/{name}.h5", slices=2, H=64, W=40, recon=(32, 40), seed=ord(name)
        )
        with h5py.File(path, "a") as file:
            file.attrs["acquisition"], file.attrs["patient_id"] = contrast, f"patient {name}"
    return folder / "scans"


def test_kspace_becomes_complex_images(folder):
    """Their magnitude is the root sum of squares over the coils where there is an object; oversampling is gone."""
    scans(folder)
    slices = load_sets(folder, [ImageSet("scans")], 100, folder / "kept")
    with h5py.File(folder / "scans/a.h5") as file:
        wanted = torch.from_numpy(file["reconstruction_rss"][()])  # type: ignore[index]
    assert [tuple(image.shape) for image in slices.images] == [(1, 32, 40)] * 4
    for (image,), rss in zip(slices.images, wanted, strict=False):
        bright = rss > 0.3 * rss.max()
        assert image.is_complex() and abs(float(image.abs().max()) - 1) < 1e-5
        scale = (image.abs() * rss)[bright].sum() / rss[bright].square().sum()
        assert ((image.abs() - scale * rss)[bright].abs() / (scale * rss)[bright]).mean() < 0.03
    train_prior(make_training(settings(folder, data=["scans", "set.npz"], batch=4)), log=quiet)
    assert len(list((folder / "out/kspace").iterdir())) == 2


def test_kspace_of_one_coil_is_its_image(folder):
    make_fastmri_file(folder / "one.h5", slices=1, single_coil=True, kspace=make_kspace(1, 1))
    image = load_sets(folder, [ImageSet("one.h5")], 100, folder / "kept").images[0]
    with h5py.File(folder / "one.h5") as file:
        wanted = torch.from_numpy(ifft2c(file["kspace"][0]))  # type: ignore[index]
    torch.testing.assert_close(image[0], (wanted / wanted.abs().max()).to(image.dtype), rtol=1e-4, atol=1e-5)


def test_images_of_kspace_are_made_once_and_anew_when_the_file_changes(folder, monkeypatch):
    path, made = scans(folder) / "a.h5", []
    make = recon.training.kspace.combined_images
    monkeypatch.setattr(
        recon.training.kspace, "combined_images", lambda f: made.append(f.path.stem) or make(f)
    )
    load = lambda percentile=99.5: load_sets(folder, [ImageSet("scans")], percentile, folder / "kept").images  # noqa: E731
    first = load()
    assert made == ["a", "b"]
    assert all(torch.equal(a, b) for a, b in zip(first, load(), strict=True)) and made == ["a", "b"]
    make_fastmri_file(path, slices=1, H=64, W=40, recon=(32, 40), scale=3.0)
    assert len(load()) == 3 and made == ["a", "b", "a"]
    kept = next((folder / "kept").glob("b-*"))
    kept.write_bytes(kept.read_bytes()[:100])
    assert len(load()) == 3 and made[3:] == ["b"]
    load(90)
    assert made[4:] == ["a", "b"] and len(list((folder / "kept").iterdir())) == 2


def test_what_a_scan_says_of_itself_chooses_it(folder):
    scans(folder)
    entry = {"file": "scans", "only": {"acquisition": ["AXT1"]}, "without": {"subject": "patient a"}}
    assert len(load_sets(folder, [as_set(entry)], 99.5, folder / "kept").images) == 2
    assert [path.name[0] for path in (folder / "kept").iterdir()] == ["b"]


@pytest.mark.parametrize("case", ["its mask", "its zeros", "NaN"])
def test_kspace_that_no_prior_can_learn_from_is_refused(folder, case):
    (folder / "scans").mkdir()
    make_fastmri_file(folder / "scans/a.h5", slices=1)
    lines = np.arange(24) % 2 == 0
    kspace = make_kspace(1) * lines.astype(np.float32)
    if case == "NaN":
        kspace[0, 0, 0, 0] = np.nan
    mask = {"with_mask": lines} if case == "its mask" else {"kspace": kspace}
    make_fastmri_file(folder / "scans/b.h5", slices=1, **mask)
    with pytest.raises(InputError, match="NaN" if case == "NaN" else "undersampled") as caught:
        train_prior(make_training(settings(folder, data=["scans"])), log=quiet)
    assert "b.h5" in str(caught.value)


@pytest.mark.parametrize("options", [{"resample": 0.0, "blur": 0.0}, {"resample": 1.0, "gamma": 0.0}])
def test_complex_images_are_augmented_as_magnitudes_are(options):
    """A real image seen as complex gives the same view; its phase goes with it and random phase is added to it."""
    image = 1 + torch.rand(2, 24, 24, generator=torch.Generator().manual_seed(0))
    image = torch.nn.functional.avg_pool2d(image[:, None], 5, 1, 2, count_include_pad=False)
    options = {"blur": 0.0, **options}

    def view(x: torch.Tensor) -> torch.Tensor:
        return random_crops(x, 12, torch.Generator().manual_seed(1), **options)

    plain, turned = view(image), view(image * torch.tensor(1j))
    inside = (
        plain > 0.1
    )  # beyond the edge of a turned image there is nothing, and bicubic weights are negative
    torch.testing.assert_close((turned / 1j)[inside], plain[inside] + 0j, rtol=1e-4, atol=1e-5)
    again = with_random_phase(turned, torch.Generator().manual_seed(2))
    torch.testing.assert_close(again, 1j * with_random_phase(turned.imag, torch.Generator().manual_seed(2)))


def test_views_of_any_image(folder):
    for size, seed in (((7, 9), 0), ((40, 25), 1), ((5, 5), 2)):
        for kind in (torch.float32, torch.complex64):
            for complex_images in (True, False):
                config = make_training(
                    settings(folder, complex_images=complex_images, augment={"shrink": 1.0})
                )
                view = augmented_view(
                    torch.ones(1, *size, dtype=kind), config, torch.Generator().manual_seed(seed)
                )
                assert (
                    view.shape == (config.channels, 16, 16)
                    and view.isfinite().all()
                    and not view.is_complex()
                )


# --- going on from weights ---------------------------------------------------------------------------------


def test_a_training_goes_on_from_weights(folder, capsys):
    path = make_prior(folder)
    config = folder / "config.yaml"
    config.write_text(
        "name: mine\ndata: [set.npz]\nlength: {steps: 1}\nbatch: 2\ncrop: 16\nlr: 0\nlr_vectors: 0\n"
    )
    command = ["train", str(config), "--data-root", str(folder), "--init", str(path), "--out"]
    assert main([*command, str(folder / "one")]) == 0, capsys.readouterr().err
    assert same(path, folder / "one/mine.safetensors")
    card, old = (json.loads(p.read_text()) for p in (folder / "one/mine.json", path.with_suffix(".json")))
    assert card["network"] == old["network"] and card["sigma_data"] == old["sigma_data"]
    assert card["init"] == {"name": "tiny", "sha256": old["sha256"], "data": []}
    command[5] = str(folder / "one/mine.safetensors")
    assert main([*command, str(folder / "two")]) == 0
    chain = json.loads((folder / "two/mine.json").read_text())["init"]
    assert chain["name"] == "mine" and chain["crops_seen"] == 2 and chain["init"] == card["init"]
    assert main([*command, str(folder / "one")]) == 2
    assert "would overwrite" in capsys.readouterr().err


def test_a_training_goes_on_from_a_prior_by_name(folder):
    config = make_training({k: v for k, v in settings(folder, init="brain-mri").items() if k != "network"})
    assert isinstance(config, PriorTraining) and config.sigma_data == 0.3
    assert config.network["widths"] == [48, 96, 128]


@pytest.mark.parametrize(
    "change, said",
    [
        ({"network": NETWORK | {"widths": [4, 12]}}, "widths is [4, 8], and this training [4, 12]"),
        ({"sigma_data": 0.5}, "sigma_data is 0.3, and this training 0.5"),
        ({"complex_images": False}, "complex_images is True"),
        ({"kind": "autoencoder", "network": {}}, "of kind UNet"),
        ({"init": "brain-mir"}, '"brain-mri"'),
        ({"init": "brain-mri-latent"}, "prior of latents"),
        ({"init": "no.safetensors"}, "no prior at"),
        ({"init": "old.pt"}, "pickle"),
    ],
)
def test_weights_that_do_not_fit_are_refused(folder, change, said):
    from recon.training import train

    given = settings(folder, init=str(make_prior(folder)), sigma_data=0.3) | change
    if change.get("kind") == "autoencoder":
        del given["sigma_data"], given["network"]
    with pytest.raises(ConfigError) as caught:
        train(make_training(given), log=quiet)
    assert said in str(caught.value) and not (folder / "out").exists()


# --- precision, compilation, processes ---------------------------------------------------------------------


def test_half_precision_learns_and_goes_on_as_if_it_had_not_stopped(folder):
    whole = make_training(settings(folder, precision="fp16", length={"steps": 24}, ema=0.5))
    losses: list[str] = []
    train_prior(whole, log=lambda line: losses.append(str(line)))
    parts = replace(whole, out=str(folder / "parts"), checkpoint_minutes=0.0)

    def stop(line: object) -> None:
        if str(line).startswith("step 20 "):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_prior(parts, log=stop)
    train_prior(parts, log=quiet)
    assert same(whole.checkpoint, parts.checkpoint, rtol=0, atol=0)
    assert load_file(whole.checkpoint)["scaler.scale"] > 1
    assert load_file(whole.checkpoint)["network.outlet.weight"].abs().max() > 0


def test_a_machine_that_cannot_compile_says_so():
    from torch._dynamo.exc import TorchDynamoException

    with pytest.raises(ConfigError, match=r"compile(.|\n)*no compiler(.|\n)*compile: false"), compiling(True):
        raise TorchDynamoException("no compiler\nand much more")


def test_a_training_that_diverges_stops(folder):
    config = make_training(settings(folder, lr=1e30, lr_vectors=1e30, clip=1e30, length={"steps": 3}))
    with pytest.raises(SamplingError, match="diverged"):
        train_prior(config, log=quiet)
    assert not config.weights.exists()


def test_two_processes_train_as_one_does(folder, capsys):
    """The same weights with the same batch, whoever computes which half of it."""
    one = make_training(settings(folder, batch=4, length={"steps": 2}))
    train_prior(one, log=quiet)
    config = folder / "config.yaml"
    config.write_text(json.dumps(settings(folder, batch=4, length={"steps": 2}, out=str(folder / "two"))))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*launch, "-m", "recon.cli", "train", str(config)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("step 2 ") == 1 and done.stdout.count("The prior is") == 1
    assert same(one.checkpoint, folder / "two/checkpoint.safetensors", rtol=1e-3, atol=1e-5)


# --- how well priors denoise -------------------------------------------------------------------------------


def test_bench_denoising_prints_what_the_card_says(folder, capsys):
    given = settings(folder, validation=["set.npz"])
    training = make_training(given)
    train_prior(training, log=quiet)
    config = folder / "config.yaml"
    config.write_text(json.dumps(given))
    command = [
        "bench",
        "denoising",
        "--config",
        str(config),
        "--data",
        str(folder),
        "--sigmas",
        "0.1",
        "1",
        "99",
    ]
    names = [str(training.weights), str(make_prior(folder, "other")), str(make_prior(folder, "real", False))]
    capsys.readouterr()
    assert main([*command, *(word for name in names for word in ("--prior", name))]) == 0
    lines = capsys.readouterr().out.splitlines()
    curve = json.loads(training.weights.with_suffix(".json").read_text())["validation_psnr_of_denoising"]
    assert lines[0].startswith("set.npz: 6 crops of 16 x 16") and lines[1].split() == [
        "sigma",
        "0.1",
        "1",
        "99",
    ]
    *_, low, high, beyond = lines[2].split()
    assert float(low) == pytest.approx(curve["0.1"], abs=0.02) and beyond == "–"
    assert float(high) == pytest.approx(curve["1.0"], abs=0.02)
    assert len(lines) == 7 and lines[4].split()[0] == "gain"
    assert main(["bench", "denoising", "--prior", "brain-mri-latent", *command[2:]]) == 2
    assert "latents" in capsys.readouterr().err


def test_the_judges_of_the_shipped_prior(shared_data):
    config = make_training({"name": "x", "data": ["x"], "length": {"steps": 1}, "data_root": str(shared_data),
                            "validation": ["mri/eval/openms_eval.npz"]})  # fmt: skip
    prior = recon.PRIORS["brain-mri"]()
    found = judges(config)[0].curve(prior.module, (0.1,))
    assert found["0.1"] == pytest.approx(prior.card["validation_psnr_of_denoising"]["0.1"], abs=0.05)
