"""Checkpoints of other projects: the denoiser of each is that of its network's formula, written here."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path

import pytest
import torch
from make_checkpoints import adm, adm_shapes, as_score_sde, random_like, song
from safetensors.torch import save_file
from torch import Tensor

import operators as op
import recon
from recon.errors import ConfigError
from recon.networks.checkpoints.adm import cosine, linear
from recon.networks.checkpoints.families import FAMILIES
from recon.priors import about

X = torch.randn(2, 3, 16, 8, generator=torch.Generator().manual_seed(1)) * 0.3 + 0.5
CLOSE = dict(rtol=1e-4, atol=1e-4)


def saved(tensors, path: Path, options: dict | None = None) -> Path:
    if path.suffix == ".safetensors":
        save_file({name: value.contiguous().clone() for name, value in tensors.items()}, path)
    else:
        torch.save(tensors, path)
    if options:
        path.with_suffix(".json").write_text(json.dumps(options))
    return path


def from_photographs(x: Tensor, sigma: float, denoise) -> Tensor:
    """A denoiser of images from -1 to 1, of images from 0 to 1."""
    return (denoise(2 * x - 1, 2 * sigma) + 1) / 2


def by_eps(predict, abar: float):
    """``x - s e(sqrt(abar) x)`` where s is the level of abar."""
    return lambda x, s: x - s * predict(math.sqrt(abar) * x)


# --- guided-diffusion --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "layout, options",
    [
        ({}, {"num_head_channels": 32}),
        ({"outputs": 3, "film": False}, {"num_heads": 4}),
        ({"resampling": "conv"}, {"num_heads": 1, "use_new_attention_order": True}),
        ({"resampling": "none"}, {"num_head_channels": 16, "use_new_attention_order": True}),
        ({"classes": 5}, {"label": 3}),
        ({"channels": 1, "outputs": 2}, {"noise_schedule": "cosine"}),
    ],
)
def test_guided_diffusion(tmp_path, layout, options):
    weights = random_like(adm_shapes(**layout))
    prior = recon.load_prior(saved(weights, tmp_path / "model.pt"), **options)
    size = options.get("num_head_channels", 64)
    heads, split = options.get("num_heads", 64 // size), options.get("use_new_attention_order", False)
    channels = layout.get("channels", 3)
    x = X[:, :channels]
    for step in (0, 250, 999):
        abar = (cosine if "noise_schedule" in options else linear)(1000)[step]
        sigma = math.sqrt(1 / abar - 1) / 2

        def eps(z: Tensor, step: int = step) -> Tensor:
            return adm(weights, z, step, heads, split, options.get("label", -1))[:, :channels]

        wanted = from_photographs(x, sigma, by_eps(eps, abar))
        torch.testing.assert_close(prior(x, sigma) / (1 + sigma), wanted / (1 + sigma), **CLOSE)
    torch.testing.assert_close(prior(x[1:], 0.3), prior(x, 0.3)[1:], rtol=1e-5, atol=1e-5)
    assert prior(x[..., :5], 0.3).shape == (2, channels, 16, 5)
    assert prior(x.double(), 0.3).dtype == torch.float64


def test_schedules_are_the_published_ones():
    """Ho et al.: abar_1000 = 4.036e-5 of the linear betas; Nichol and Dhariwal: abar is .49 half way."""
    assert linear(1000)[0] == pytest.approx(1 - 1e-4) and linear(1000)[-1] == pytest.approx(
        4.0358e-5, rel=1e-3
    )
    assert cosine(1000)[499] == pytest.approx(
        math.cos(0.508 / 1.008 * math.pi / 2) ** 2 / math.cos(0.008 / 1.008 * math.pi / 2) ** 2, rel=1e-6
    )


def test_the_layout_and_configuration_of_dps():
    """The FFHQ network of DPS by its names and shapes alone, with its own configuration as options."""
    from recon.networks.checkpoints.adm import IGNORED, read_shape
    from recon.networks.checkpoints.building import Choices

    config = {
        "image_size": 256, "num_channels": 128, "num_res_blocks": 1, "channel_mult": "", "learn_sigma": True,
        "class_cond": False, "use_checkpoint": False, "attention_resolutions": 16, "num_heads": 4, "num_head_channels": 64,
        "num_heads_upsample": -1, "use_scale_shift_norm": True, "dropout": 0.0, "resblock_updown": True, "use_fp16": False,
        "use_new_attention_order": False, "model_path": "models/ffhq_10m.pt",
    }  # fmt: skip
    from recon.networks.checkpoints.adm_unet import AdmShape, AdmUNet

    wanted = AdmShape(3, 6, 128, (128, 128, 256, 256, 512, 512), (False,) * 4 + (True, False), 1)
    with torch.device("meta"):
        tensors = AdmUNet(wanted).state_dict()
    options = Choices(Path("ffhq_10m.pt"), "", config)
    assert read_shape(tensors, options) == wanted
    assert sum(value.numel() for value in tensors.values()) == 93_563_910  # of the published file
    options.refuse_rest((*IGNORED, "num_channels"))


@pytest.mark.parametrize("where", ["keyword", "beside"])
def test_options_are_keywords_or_beside_the_file(tmp_path, where):
    weights, options = random_like(adm_shapes(classes=4)), {"label": 2, "num_channels": 32, "values": [0, 1]}
    path = saved(weights, tmp_path / "model.safetensors", options if where == "beside" else None)
    prior = recon.load_prior(path, **(options if where == "keyword" else {}))
    abar = linear(1000)[400]
    sigma = math.sqrt(1 / abar - 1)
    wanted = by_eps(lambda z: adm(weights, z, 400, 1, label=2)[:, :3], abar)(X, sigma)
    torch.testing.assert_close(prior(X, sigma), wanted, **CLOSE)
    assert prior.card["assumed"] == {
        "num_head_channels": 64,
        "use_new_attention_order": False,
        "noise_schedule": "linear",
    }


# --- EDM ---------------------------------------------------------------------------------------------------

LEVEL = 0.35  # in our scale


def edm_formula(x: Tensor, s: float, network) -> Tensor:
    skip, out, scale = 0.25 / (s * s + 0.25), s * 0.5 / math.sqrt(s * s + 0.25), 1 / math.sqrt(s * s + 0.25)
    return skip * x + out * network(scale * x, math.log(s) / 4)


def vp_formula(x: Tensor, s: float, network) -> Tensor:
    t = (math.sqrt(0.1**2 + 2 * 19.9 * math.log(1 + s * s)) - 0.1) / 19.9
    return x - s * network(x / math.sqrt(s * s + 1), 999 * t)


def ve_formula(x: Tensor, s: float, network) -> Tensor:
    return x + s * network(x, math.log(s / 2))


@pytest.mark.parametrize(
    "kind, options",
    [("ncsn", {}), ("ddpm", {"channel_mult": (2, 1), "label_dim": 3}), ("adm", {"label_dim": 3})],
)
def test_edm(tmp_path, kind, options):
    """Against deepinv's implementation of the same networks, with the preconditioning written here."""
    model = song(kind, **options)
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    path = saved(tensors, tmp_path / "edm.safetensors")
    given = {"label": 1} if options else {}
    classes = torch.tensor([[0.0, 1.0, 0.0]]).expand(2, 3) if given else None

    def network(z: Tensor, label: float) -> Tensor:
        return model.forward_unet(z.clone(), torch.full((len(z),), label), classes)

    for precond, formula in (("edm", edm_formula), ("vp", vp_formula), ("ve", ve_formula)):
        prior = recon.load_prior(path, precond=precond, **given)
        wanted = from_photographs(X, LEVEL, lambda x, s, f=formula: f(x, s, network))
        torch.testing.assert_close(prior(X, LEVEL), wanted, **CLOSE)
    torch.testing.assert_close(prior(X[1:], LEVEL), prior(X, LEVEL)[1:], rtol=1e-5, atol=1e-5)
    assert json.loads(json.dumps(prior.card)) == prior.card
    if given:
        with pytest.raises(ConfigError, match="class-conditional: 3 classes"):
            recon.load_prior(path)


def test_edm_of_improved_ddpm(tmp_path):
    """A table of levels in the file, the nearest of which is meant; the learned variance is dropped."""
    model = song("adm", out_channels=6)
    levels = torch.tensor([9.0, 1.0, 0.5, 0.1, 0.0])
    tensors = {f"ema.model.{name}": value for name, value in model.state_dict().items()} | {"ema.u": levels}
    prior = recon.load_prior(saved(tensors, tmp_path / "iddpm.pt"))
    z = (2 * X - 1) / math.sqrt(1 + 0.7**2)
    wanted = from_photographs(
        X, LEVEL, lambda x, s: x - s * model.forward_unet(z, torch.full((2,), 1.0))[:, :3]
    )
    torch.testing.assert_close(prior(X, LEVEL), wanted, **CLOSE)
    assert (prior.sigma_min, prior.sigma_max) == (pytest.approx(0.05), 4.5)


# --- score_sde ---------------------------------------------------------------------------------------------


def training_file(tensors: dict[str, Tensor], path: Path) -> Path:
    """A training's file of score_sde: the weights of the last step, their averages as a list, the optimiser."""
    model = {"module.sigmas": torch.linspace(378.0, 0.01, 10)}
    model |= {
        f"module.{name}": value + 7 if not name.endswith(".0.W") else value for name, value in tensors.items()
    }
    shadows = [value for name, value in tensors.items() if name != "all_modules.0.W"]
    ema = {"decay": 0.999, "num_updates": 5, "shadow_params": shadows}
    torch.save({"optimizer": {"state": {}, "param_groups": []}, "model": model, "ema": ema, "step": 5}, path)
    return path


def test_score_sde_of_mr_images(tmp_path):
    """NCSN++ of two channels, VE, the averages of a training's file: complex images, each part from 0 to 1."""
    model = song("ncsn", in_channels=2, out_channels=2, augment_dim=0)
    tensors = as_score_sde(model.state_dict(), levels=2, blocks=1)
    prior = recon.load_prior(training_file(tensors, tmp_path / "checkpoint_95.pth"))
    known = about(prior)
    assert known.complex_images and known.allowed == (pytest.approx(0.01), pytest.approx(378.0))
    x = torch.complex(X[:, 0], X[:, 1])[:, None]
    pair = torch.view_as_real(x[:, 0]).movedim(-1, 1)
    h = model.forward_unet(2 * pair - 1, torch.full((2,), math.log(LEVEL)))
    wanted = torch.view_as_complex((pair + LEVEL * h).movedim(1, -1).contiguous())[:, None]
    torch.testing.assert_close(prior(x, LEVEL), wanted, **CLOSE)
    A = op.MRI(torch.ones(16, 8))
    result = recon.sample(recon.Problem(A, A(x), 0.1), prior, "dds", "euler", steps=2, samples=1)
    assert result.samples.shape == (2, 1, 1, 16, 8) and bool(result.samples.isfinite().all())


def test_score_sde_of_magnitudes_for_complex_images(tmp_path):
    """One channel: real images, or, by an option, real and imaginary part as images of their own."""
    model = song("ncsn", in_channels=1, out_channels=1, augment_dim=0)
    path = saved(as_score_sde(model.state_dict(), 2, 1), tmp_path / "magnitudes.safetensors")
    real, both = recon.load_prior(path), recon.load_prior(path, complex_images=True)
    assert not about(real).complex_images and about(both).complex_images
    x = torch.complex(X[:, :1], X[:, 1:2])
    parts = torch.complex(real(x.real, LEVEL), real(x.imag, LEVEL))
    torch.testing.assert_close(both(x, LEVEL), parts, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sde", ["vp", "subvp"])
def test_score_sde_of_photographs(tmp_path, sde):
    """DDPM++ of a VP process, continuous in time: noise at 999 t."""
    model = song("ddpm", augment_dim=0)
    prior = recon.load_prior(saved(as_score_sde(model.state_dict(), 2, 1), tmp_path / "vp.pt"), sde=sde)
    s = 2 * LEVEL
    a = 1 / math.sqrt(1 + s * s) if sde == "vp" else (math.sqrt(s * s + 4) - s) / 2
    t = (math.sqrt(0.1**2 + 2 * 19.9 * -2 * math.log(a)) - 0.1) / 19.9
    wanted = from_photographs(
        X, LEVEL, lambda x, s: x - s * model.forward_unet(a * x, torch.full((2,), 999 * t))
    )
    torch.testing.assert_close(prior(X, LEVEL), wanted, **CLOSE)


@pytest.mark.parametrize("before, after", [("input_skip", "output_skip"), ("residual", "residual")])
@pytest.mark.parametrize("biggan, convolved", [(True, True), (False, True), (False, False)])
def test_other_layouts_of_score_sde_are_read_as_they_are(before, after, biggan, convolved):
    """What a network is built from is found again in its names and shapes."""
    from recon.networks.checkpoints.building import Choices
    from recon.networks.checkpoints.ncsnpp import NcsnPP, NcsnShape
    from recon.networks.checkpoints.score_sde import read_shape

    if (not biggan and not convolved) or (not biggan and before == "residual"):
        before = after = "none"
    shape = NcsnShape(
        3, 16, (16, 32, 32), 2, (False, True, False), (True, False, False), biggan, biggan or convolved, before, after,
        rescale=biggan,
    )  # fmt: skip
    network = NcsnPP(shape)
    found = read_shape(network.state_dict(), Choices(Path("x"), "", {}))
    assert NcsnPP(found).state_dict().keys() == network.state_dict().keys()
    assert found.fir and (found.before, found.after, found.biggan) == (before, after, biggan)
    assert network(torch.randn(1, 3, 8, 12), torch.tensor([0.4])).shape == (1, 3, 8, 12)


# --- deepinv -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "modes",
    [{}, {"downsample_mode": "avgpool", "upsample_mode": "upconv"}, {"upsample_mode": "pixelshuffle"}],
)
def test_drunet(tmp_path, modes):
    from deepinv.models import DRUNet

    from recon.networks.checkpoints.deepinv import from_denoiser

    model = DRUNet(3, 3, nc=(8, 8, 12, 16), nb=2, pretrained=None, **modes)
    x = X.repeat(1, 1, 2, 4)
    wanted = model(x, 0.1)
    for prior in (recon.load_prior(saved(model.state_dict(), tmp_path / "drunet.pth")), from_denoiser(model)):
        torch.testing.assert_close(prior(x, 0.1), wanted, rtol=1e-6, atol=1e-6)
        assert prior(x.double(), 0.1).dtype == torch.float64 and (prior.sigma_min, prior.sigma_max) == (
            0.002,
            0.2,
        )


def test_denoisers_of_deepinv_as_objects():
    from deepinv.models import DnCNN, TVDenoiser

    from recon.networks.checkpoints.deepinv import from_denoiser

    model = song("ncsn", _was_trained_on_minus_one_one=True, pixel_std=0.5)
    prior = from_denoiser(model, sigma_max=20.0)
    torch.testing.assert_close(prior(X, 0.2), model(X, 0.2), rtol=1e-6, atol=1e-6)
    assert (prior.sigma_min, prior.sigma_max) == (0.001, 20.0) and prior.module is model
    assert from_denoiser(TVDenoiser())(X, 0.1).shape == X.shape
    with pytest.raises(ConfigError, match="takes no noise level"):
        from_denoiser(DnCNN(pretrained=None, depth=3))
    with pytest.raises(ConfigError, match=r"was given a function"):
        from_denoiser(from_photographs)


# --- diffusers ---------------------------------------------------------------------------------------------

needs_diffusers = pytest.mark.skipif(
    importlib.util.find_spec("diffusers") is None, reason='diffusers is not installed: the extra "latent"'
)


@pytest.fixture(scope="module")
def unet():
    """A network of images of two levels, unconditional."""
    return make_unet()


def make_unet(**options):
    import diffusers

    torch.manual_seed(0)
    settings = dict(
        sample_size=16,
        in_channels=3,
        out_channels=3,
        down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        layers_per_block=1,
    )
    return diffusers.UNet2DModel(**settings | options).eval().requires_grad_(False)


def folder_of(path: Path, unet, scheduler, flat: bool = False, pickled: bool = False) -> Path:
    unet.save_pretrained(path if flat else path / "unet", safe_serialization=not pickled)
    scheduler.save_pretrained(path if flat else path / "scheduler")
    return path


@needs_diffusers
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("flat", [False, True])
def test_a_folder_of_diffusers(tmp_path, unet, kind, flat):
    """A table of DDPM: against the scheduler's own image; in folders, and in one, as pickled tensors."""
    import diffusers

    scheduler = diffusers.DDPMScheduler(prediction_type=kind, clip_sample=False)
    prior = recon.load_prior(folder_of(tmp_path, unet, scheduler, flat, pickled=flat))
    for step in (20, 700):
        a = scheduler.alphas_cumprod[step].double()
        sigma = float(((1 - a) / a).sqrt()) / 2
        z = (2 * X - 1) * float(a.sqrt())
        image = scheduler.step(unet(z, step).sample, step, z).pred_original_sample
        torch.testing.assert_close(prior(X, sigma), (image + 1) / 2, **CLOSE)
    assert (
        prior(X[..., :15, :5], 0.2).shape == (2, 3, 15, 5)
        and prior.card["network"]["scheduler"] == "DDPMScheduler"
    )


@needs_diffusers
def test_a_folder_with_a_variance_and_classes(tmp_path):
    import diffusers

    unet = make_unet(out_channels=6, num_class_embeds=4)
    path = folder_of(tmp_path, unet, diffusers.DDIMScheduler())
    a = float(diffusers.DDIMScheduler().alphas_cumprod[300])
    sigma = math.sqrt(1 / a - 1) / 2
    eps = by_eps(lambda z: unet(z, 300, class_labels=torch.tensor([2, 2])).sample[:, :3], a)
    torch.testing.assert_close(
        recon.load_prior(path, label=2)(X, sigma), from_photographs(X, sigma, eps), **CLOSE
    )
    (tmp_path / "recon.json").write_text('{"label": 2}')
    torch.testing.assert_close(recon.load_prior(path)(X, sigma), from_photographs(X, sigma, eps), **CLOSE)
    (tmp_path / "recon.json").unlink()
    with pytest.raises(ConfigError, match="class-conditional: 4 classes"):
        recon.load_prior(path)


@needs_diffusers
def test_folders_of_other_processes(tmp_path, unet):
    """VE of images from 0 to 1, rectified flow and EDM's preconditioning of those from -1 to 1."""
    import diffusers

    ve = make_unet(time_embedding_type="fourier", center_input_sample=True)
    prior = recon.load_prior(folder_of(tmp_path / "ve", ve, diffusers.ScoreSdeVeScheduler(sigma_max=50.0)))
    wanted = X + LEVEL**2 * ve(X, torch.tensor([LEVEL, LEVEL])).sample
    torch.testing.assert_close(prior(X, LEVEL), wanted, **CLOSE)
    assert prior.sigma_max == 50.0
    prior = recon.load_prior(
        folder_of(tmp_path / "flow", unet, diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0))
    )
    t = 2 * LEVEL / (1 + 2 * LEVEL)
    wanted = from_photographs(
        X, LEVEL, lambda x, s: (1 - t) * x - t * unet((1 - t) * x, torch.tensor(1000 * t)).sample
    )
    torch.testing.assert_close(prior(X, LEVEL), wanted, **CLOSE)
    prior = recon.load_prior(folder_of(tmp_path / "edm", unet, diffusers.EDMEulerScheduler()))
    wanted = from_photographs(
        X, LEVEL, lambda x, s: edm_formula(x, s, lambda z, c: unet(z, torch.tensor(c)).sample)
    )
    torch.testing.assert_close(prior(X, LEVEL), wanted, **CLOSE)


@needs_diffusers
def test_folders_that_are_no_prior(tmp_path, unet):
    import diffusers

    path = folder_of(tmp_path, unet, diffusers.CMStochasticIterativeScheduler())
    with pytest.raises(ConfigError, match="has a clock that is not known"):
        recon.load_prior(path)
    (path / "scheduler" / "scheduler_config.json").write_text("[")
    with pytest.raises(ConfigError, match="cannot be read"):
        recon.load_prior(path)
    (path / "scheduler" / "scheduler_config.json").unlink()
    with pytest.raises(ConfigError, match="has no scheduler_config.json"):
        recon.load_prior(path)
    diffusers.DDPMScheduler().save_pretrained(path / "scheduler")
    with pytest.raises(ConfigError, match='no option "heads"'):
        recon.load_prior(path, heads=3)
    (path / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    torch.save({"a": Code()}, path / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(ConfigError, match="needs code"):
        recon.load_prior(path)


# --- torch.export ------------------------------------------------------------------------------------------


class Small(torch.nn.Module):
    """A convolution, and the label added to it."""

    def __init__(self, channels: int = 3, outputs: int = 3):
        super().__init__()
        self.conv = torch.nn.Conv2d(channels, outputs, 3, padding=1)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        """(B, channels, H, W) and (B,) to (B, outputs, H, W)."""
        return self.conv(x).tanh() + 0.01 * label[:, None, None, None]


def exported(module: torch.nn.Module, path: Path, dynamic: bool = True, rows: int = 2) -> Path:
    from torch.export import Dim

    sides = {0: Dim("rows"), 2: Dim("height"), 3: Dim("width")}
    shapes = (sides, {0: sides[0]}) if dynamic else None
    program = torch.export.export(
        module.eval(), (torch.rand(rows, 3, 16, 8), torch.rand(rows)), dynamic_shapes=shapes
    )
    torch.export.save(program, path)
    return path


def test_an_exported_module(tmp_path):
    """As a denoiser of our scale, and as networks of other parametrisations; any rows and sizes, or those exported."""
    torch.manual_seed(0)
    module = Small()
    path = exported(module, tmp_path / "small.pt2")
    x, s, abar = torch.rand(3, 3, 12, 10), 0.35, linear(1000)[400]
    level = math.sqrt(1 / abar - 1) / 2

    def at(z: Tensor, label: float) -> Tensor:
        return module(z, torch.full((len(z),), label))

    prior = recon.load_prior(path, sigma_max=5.0)
    torch.testing.assert_close(prior(x, s), at(x, s))
    assert prior.sigma_max == 5.0 and not about(prior).complex_images
    noise = from_photographs(x, level, by_eps(lambda z: at(z, 400.0), abar))
    torch.testing.assert_close(recon.load_prior(path, predicts="epsilon")(x, level), noise, **CLOSE)
    t = 2 * s / (1 + 2 * s)
    flow = from_photographs(x, s, lambda x, _: (1 - t) * x - t * at((1 - t) * x, t))
    torch.testing.assert_close(recon.load_prior(path, predicts="flow")(x, s), flow, **CLOSE)
    fixed = recon.load_prior(exported(module, tmp_path / "fixed.pt2", dynamic=False))
    torch.testing.assert_close(
        fixed(x.view(3, 3, 12, 10)[..., :8].repeat(1, 1, 2, 1)[:, :, :16], s),
        at(x[..., :8].repeat(1, 1, 2, 1)[:, :, :16], s),
    )
    with pytest.raises(ConfigError, match="was given images of 12 x 10"):
        fixed(x, s)


# --- the command line --------------------------------------------------------------------------------------


def test_the_commands_take_a_checkpoint(tmp_path, capsys):
    """``recon inspect`` says what it is and what was assumed; ``recon restore`` uses it."""
    from PIL import Image

    from recon.cli import main

    path = saved(
        random_like(adm_shapes(channels=1, outputs=2)), tmp_path / "gray.pt", {"num_head_channels": 32}
    )
    assert main(["inspect", str(path)]) == 0
    said = capsys.readouterr().out
    assert "guided-diffusion" in said and "noise_schedule = linear" in said and "-1 and 1" in said
    Image.new("L", (16, 16), 90).save(tmp_path / "photo.png")
    out = [
        "--out",
        str(tmp_path / "out"),
        "--sigma",
        "0.05",
        "--operator",
        "inpainting",
        "--operator-args",
        "keep=0.5",
    ]
    options = ["--prior", str(path), "--steps", "2", "--samples", "2"]
    assert main(["restore", str(tmp_path / "photo.png"), *out, *options]) == 0
    assert list((tmp_path / "out").iterdir())


def test_a_state_of_other_channels_is_refused(tmp_path):
    prior = recon.load_prior(saved(random_like(adm_shapes()), tmp_path / "colour.pt"))
    with pytest.raises(ConfigError, match="images of 3 channels"):
        prior(X[:, :1], 0.3)


# --- refused -----------------------------------------------------------------------------------------------


class Code:
    """Something that only its own class can restore."""


def script(path: Path) -> Path:
    torch.jit.trace(Small(), (torch.rand(2, 3, 16, 8), torch.rand(2))).save(str(path))
    return path


def raw_pickle(path: Path) -> Path:
    path.write_bytes(b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94\x8c\x06system\x94\x93\x94.")
    return path


def changed(change, **layout) -> dict[str, Tensor]:
    weights = random_like(adm_shapes(**layout))
    change(weights)
    return weights


REFUSED = {
    "code": (lambda d: saved({"ema": Code()}, d / "a.pkl"), {}, "needs code to be opened"),
    "a pickle of EDM": (lambda d: raw_pickle(d / "edm.pkl"), {}, "save_file(network.state_dict()"),
    "TorchScript": (lambda d: script(d / "a.pt"), {}, "TorchScript"),
    "TorchScript named pt2": (lambda d: script(d / "a.pt2"), {}, "TorchScript"),
    "cut": (lambda d: cut(saved({"a": X}, d / "a.pt")), {}, "damaged, cut short"),
    "nothing": (lambda d: d / "none.pt", {}, "There is no file"),
    "no weights": (lambda d: saved({"epoch": 3}, d / "a.ckpt"), {}, "holds no network's weights"),
    "no family": (lambda d: saved({"weight": X}, d / "a.pt"), {}, "of no family"),
    "latent diffusion": (lambda d: saved({"first_stage_model.a": X}, d / "a.ckpt"), {}, "latent diffusion"),
    "weights alone of diffusers": (
        lambda d: saved({"down_blocks.0.a": X}, d / "a.bin"),
        {},
        "Name the folder",
    ),
    "a blind denoiser": (lambda d: saved({"conv_list.0.weight": X}, d / "a.pth"), {}, "takes no noise level"),
    "a tensor missing": (
        lambda d: saved(changed(lambda w: w.pop("middle_block.0.in_layers.0.bias")), d / "a.pt"),
        {},
        "It lacks middle_block.0.in_layers.0.bias",
    ),
    "a tensor more": (
        lambda d: saved(changed(lambda w: w.update(more=X)), d / "a.pt"),
        {},
        "It has besides more",
    ),
    "another shape": (
        lambda d: saved(changed(lambda w: w.update({"out.0.bias": X[0, 0]})), d / "a.pt"),
        {},
        "out.0.bias is (16, 8) and not (32,)",
    ),
    "a classifier": (
        lambda d: saved(changed(lambda w: [w.pop(k) for k in list(w) if "output_blocks" in k]), d / "a.pt"),
        {},
        "a classifier of guided-diffusion",
    ),
    "an upsampler": (lambda d: saved(changed(lambda w: None, channels=6), d / "a.pt"), {}, "an upsampler"),
    "NaN": (
        lambda d: saved(changed(lambda w: w["out.2.bias"].fill_(torch.nan)), d / "a.pt"),
        {},
        "NaN or infinite",
    ),
    "no class": (
        lambda d: saved(changed(lambda w: None, classes=7), d / "a.pt"),
        {},
        "class-conditional: 7 classes",
    ),
    "another class": (
        lambda d: saved(changed(lambda w: None, classes=7), d / "a.pt"),
        {"label": 7},
        "7 classes, and label is 7",
    ),
    "a class of none": (lambda d: saved(changed(lambda w: None), d / "a.pt"), {"label": 1}, "has no classes"),
    "other heads": (
        lambda d: saved(changed(lambda w: None), d / "a.pt"),
        {"num_head_channels": 48},
        "say num_heads or num_head_channels",
    ),
    "a wrong option": (
        lambda d: saved(changed(lambda w: None), d / "a.pt"),
        {"noise_schedule": "sigmoid"},
        "one of linear, cosine",
    ),
    "an unknown option": (
        lambda d: saved(changed(lambda w: None), d / "a.pt"),
        {"head": 1},
        'has no option "head"',
    ),
    "an option that is not so": (
        lambda d: saved(changed(lambda w: None), d / "a.pt"),
        {"num_channels": 64},
        "num_channels = 32",
    ),
    "complex colours": (
        lambda d: saved(changed(lambda w: None), d / "a.pt"),
        {"complex_images": True},
        "network of 3 channels",
    ),
    "options that are no mapping": (
        lambda d: (p := saved(changed(lambda w: None), d / "a.pt"), p.with_suffix(".json").write_text("[1]"))[
            0
        ],
        {},
        "cannot be read",
    ),
    "averages of another network": (
        lambda d: saved({"model": random_like(adm_shapes()), "ema": {"shadow_params": [X]}}, d / "a.pth"),
        {},
        "1 averaged parameters",
    ),
    "no archive": (
        lambda d: (p := d / "a.pt2", p.write_bytes(b"x" * 99))[0],
        {},
        "cannot be read as a module",
    ),
    "an empty folder": (lambda d: d, {}, "There is no prior named"),
}


def cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:600])
    return path


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_used_is_refused(tmp_path, case):
    make, options, said = REFUSED[case]
    with pytest.raises(ConfigError) as caught:
        recon.load_prior(make(tmp_path), **options)
    error = caught.value
    assert said in str(error), str(error)
    assert str(error).splitlines() == [error.what, error.why, error.do]


@pytest.mark.parametrize(
    "value, said",
    [
        ({"use_pickle": True}, "a pickle"),
        ({"path_name": "custom_obj_0"}, "a pickle"),
        ({"nodes": [{"target": "torch.load", "inputs": []}]}, "a call of torch.load"),
        ({"nodes": [{"target": "torch.ops.aten.add.Tensor", "inputs": []}]}, None),
        ({"expr_str": "2*s0 + FloorDiv(s1, 2)"}, None),
        ({"expr_str": "__import__('os').system('x')"}, "the formula"),
        ({"expr_str": "preview(s0)"}, "the formula"),
    ],
)
def test_an_exported_graph_with_more_than_operations_is_not_opened(tmp_path, value, said):
    """Its archive is searched before anything in it is restored."""
    import zipfile

    path = exported(Small(), tmp_path / "small.pt2")
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    name = next(name for name in parts if "/models/" in name)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for part, data in parts.items():
            archive.writestr(part, json.dumps(json.loads(data) | {"more": value}) if part == name else data)
    if said is None:
        from recon.networks.checkpoints.exported import refuse_code

        refuse_code(path)
    else:
        with pytest.raises(ConfigError, match=said):
            recon.load_prior(path)


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_is_known_by_its_markers(family):
    """Also behind what stands before all names, and no other family has them."""
    from recon.networks.checkpoints.families import family_of

    for prefix in ("", "module.", "model_ema.model."):
        found = family_of(prefix + marker for marker in FAMILIES[family].markers)
        assert found == (FAMILIES[family], prefix)
