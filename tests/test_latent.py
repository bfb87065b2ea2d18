"""Latent priors: walked on the operator after the decoder, decoded once; and a folder of diffusers from disk."""

from __future__ import annotations

import importlib.util
import shutil
import sys

import pytest
import torch
from measurements import world_of
from torch import Tensor
from worlds import Matrix, isotropic, random, random_complex

import operators as op
import recon
from recon import LatentPrior, Problem
from recon.errors import ConfigError
from recon.latent import Decoded
from recon.posteriors import DPS, STSL
from recon.priors import about, chunked

PIXELS, LATENTS = 6, 4
BASIS = random(PIXELS, LATENTS, seed=71)
A = Matrix(random(3, PIXELS, seed=72))
COMPOSED = Matrix(A.matrix @ BASIS)
WORLD = world_of(COMPOSED)
Y = random(2, 3, seed=73)


def encode(x: Tensor) -> Tensor:
    return x @ BASIS


def decode(z: Tensor) -> Tensor:
    return z @ BASIS.T


LATENT = LatentPrior(encode, decode, WORLD, (LATENTS,))


class Counting:
    """A map that counts the rows and the calls it saw."""

    def __init__(self, function):
        self.function, self.rows = function, []

    def __call__(self, x, *rest):
        self.rows.append(len(x))
        return self.function(x, *rest)


@pytest.mark.parametrize("solver", ["euler", "heun", "ddpm"])
@pytest.mark.parametrize(
    "posterior, options",
    [
        ("prior", {}),
        ("dds", {"steps": 8, "tol": 0.0}),
        ("dps", {}),
        ("dps", {"form": "score", "zeta": 0.1}),
        ("stsl", {"inner": 2}),
        ("stsl", {"init": "noise", "inner": 1}),
    ],
    ids=["prior", "dds", "dps", "dps, score", "stsl", "stsl, from noise"],
)
def test_a_linear_decoder_is_part_of_the_operator(posterior, options, solver):
    """Latent sampling of (A, decode) is pixel sampling of ``A decode``, decoded at the end."""
    make = recon.POSTERIORS[posterior]
    common = dict(solver=solver, steps=6, samples=2, seed=5)
    latent = recon.sample(Problem(A, Y, 0.3), LATENT, make(LATENT, **options), **common)
    plain = recon.sample(Problem(COMPOSED, Y, 0.3), WORLD, make(WORLD, **options), **common)
    assert latent.samples.shape == (2, 2, PIXELS)
    torch.testing.assert_close(latent.samples, decode(plain.samples), rtol=1e-9, atol=1e-9)
    assert latent.network_calls == plain.network_calls
    for one, other in zip(latent.trace, plain.trace, strict=True):
        assert one == pytest.approx(other, rel=1e-9)


def test_a_bent_decoder_is_followed():
    """The estimate of DPS pulls back through operator, decoder and network: against autograd through all three."""
    prior = LatentPrior(encode, lambda z: decode(z.tanh()), WORLD, (LATENTS,))
    z, sigma = random(2, LATENTS, seed=74).requires_grad_(), 0.7
    (Y - A.forward(decode(WORLD(z, sigma).tanh()))).norm(dim=1).sum().backward()
    problem = prior.pose(Problem(A, Y, 0.3))
    est = DPS(prior, problem).denoise(z.detach(), sigma)
    assert z.grad is not None
    torch.testing.assert_close(est.x0 - est.prior, -z.grad, rtol=1e-10, atol=1e-12)


def test_it_decodes_only_to_compare_and_once_for_the_answer():
    """Unconditional: once to see that shapes fit, once a step for the residual, once for the samples."""
    counted = Counting(decode)
    prior = LatentPrior(encode, counted, WORLD, (LATENTS,))
    recon.sample(Problem(A, Y, 0.3), prior, "prior", "euler", steps=4, samples=3)
    assert counted.rows == [1, *[6] * 4, 6]


def test_a_warm_start_is_an_image():
    init = random(2, PIXELS, seed=75)
    common = dict(posterior="dps", form="paper", solver="euler", steps=5, sigma_start=0.4, samples=1)
    latent = recon.sample(Problem(A, Y, 0.3), LATENT, init=init, **common)
    plain = recon.sample(Problem(COMPOSED, Y, 0.3), WORLD, init=encode(init), **common)
    torch.testing.assert_close(latent.samples, decode(plain.samples), rtol=1e-9, atol=1e-9)
    with pytest.raises(ConfigError, match="init is"):
        recon.sample(Problem(A, Y, 0.3), LATENT, init=encode(init), **common)


def test_a_latent_prior_in_chunks_is_one_still():
    """Encoder, decoder and denoiser a few rows at a time, the same samples."""
    problem, common = Problem(A, Y, 0.3), dict(solver="euler", steps=3, samples=2)
    seen = Counting(decode)
    prior = LatentPrior(encode, seen, WORLD, (LATENTS,), sigma_max=10.0, factor=2)
    known = about(chunked(prior, 3))
    assert known.space.latent and known.sigma_max == 10.0
    with pytest.raises(ConfigError, match="multiples of 2"):
        known.space.refuse_size((3, 4))
    prior = LatentPrior(encode, seen, WORLD, (LATENTS,))
    expected = recon.sample(problem, prior, "dps", **common).samples
    seen.rows.clear()
    found = recon.sample(problem, chunked(prior, 3), "dps", **common).samples
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert max(seen.rows) == 3


def test_what_is_known_of_the_denoiser_is_known_of_the_prior():
    inner = recon.priors.Prior(WORLD, sigma_min=0.01, sigma_max=20.0, data_var=2.0)
    prior = LatentPrior(encode, decode, inner, (LATENTS,), sigma_max=10.0)
    assert (prior.sigma_min, prior.sigma_max, prior.data_var) == (0.01, 10.0, 2.0)
    result = recon.sample(Problem(A, Y, 0.3), prior, "dps", "euler", steps=3, samples=1)
    assert len(result.trace) == 3


def test_complex_images_are_the_decoders_affair():
    mri = op.MRI(torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64), random_complex(2, 1, 3, seed=23))
    basis = random_complex(3, LATENTS, seed=76)
    prior = LatentPrior(
        lambda x: (x.flatten(1) @ basis.conj()).real,
        lambda z: (z.to(basis.dtype) @ basis.T).view(-1, *mri.domain),
        isotropic((LATENTS,), 1.0),
        (LATENTS,),
    )
    y = mri.forward(random_complex(1, *mri.domain, seed=77))
    for posterior in ("dps", "stsl"):
        samples = recon.sample(Problem(mri, y, 0.1), prior, posterior, "euler", steps=4, samples=2).samples
        assert samples.shape == (1, 2, *mri.domain) and samples.is_complex()


# --- refusals ----------------------------------------------------------------------------------------------


def refused(prior, match: str, posterior="dps", problem: Problem | None = None, **options):
    with pytest.raises(ConfigError, match=match):
        recon.sample(problem or Problem(A, Y, 0.3), prior, posterior, "euler", steps=4, **options)


@pytest.mark.parametrize("posterior", ["mcg", "pigdm", "mmps", "ddnm", "ddrm", "diffpir"])
def test_samplers_of_linear_operators_refuse_it(posterior):
    network = Counting(WORLD)
    refused(LatentPrior(encode, decode, network, (LATENTS,)), "not linear", posterior)
    assert not network.rows


def test_wrong_shapes_are_refused_before_the_first_call():
    network = Counting(WORLD)
    refused(LatentPrior(encode, lambda z: decode(z)[:, :-1], network, (LATENTS,)), "decoder was given")
    refused(LatentPrior(encode, lambda z: decode(z) + 0j, network, (LATENTS,)), "decoder was given")
    refused(
        LatentPrior(lambda x: encode(x)[:, 1:], decode, network, (LATENTS,)),
        "encoder was given",
        "stsl",
        form="paper",
    )
    assert not network.rows
    refused(LatentPrior(encode, decode, lambda z, s: z[:, 1:], (LATENTS,)), "The prior was given")
    for shape in ((), (4, 0), (4.0,)):
        with pytest.raises(ConfigError, match="shape of the latents"):
            LatentPrior(encode, decode, WORLD, shape)


def test_stsl_of_a_nonlinear_operator_starts_from_noise():
    class Squared(op.Operator):
        domain = (PIXELS,)

        def forward(self, x):
            return (x @ A.matrix.T.to(x.dtype)) ** 2

    problem = Problem(Squared(), Y.square(), 0.3)
    refused(LATENT, "not linear", "stsl", problem, form="paper")
    refused(LATENT, "norm of the operator", STSL(LATENT, trace_weight="bound", init="noise"))
    sampler = STSL(LATENT, init="noise", zeta=0.01, inner=1)
    assert recon.sample(problem, LATENT, sampler, "euler", steps=4).samples.isfinite().all()


def test_the_operator_after_the_decoder_is_an_operator():
    operator = Decoded(A, LATENT, (LATENTS,))
    z = random(3, LATENTS, seed=78)
    torch.testing.assert_close(operator(z), COMPOSED(z), rtol=1e-12, atol=1e-12)
    assert operator.codomain == A.codomain and operator.measured == A.measured and not operator.linear
    assert operator.to(torch.float32).A.matrix.dtype == torch.float32
    with pytest.raises(op.OperatorError, match="shape"):
        operator(random(3, PIXELS))


# --- diffusers ---------------------------------------------------------------------------------------------

needs_diffusers = pytest.mark.skipif(
    importlib.util.find_spec("diffusers") is None, reason='diffusers is not installed: the extra "latent"'
)


@pytest.fixture(scope="module")
def parts():
    import diffusers

    torch.manual_seed(0)
    vae = diffusers.AutoencoderKL(
        in_channels=1,
        out_channels=1,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(4, 8),
        norm_num_groups=2,
        latent_channels=2,
        scaling_factor=0.5,
    )
    unet = diffusers.UNet2DModel(
        sample_size=(4, 8),
        in_channels=2,
        out_channels=2,
        down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
        block_out_channels=(4, 8),
        norm_num_groups=2,
        layers_per_block=1,
    )
    return diffusers, vae.eval(), unet.eval()


@pytest.fixture(scope="module")
def folder(parts, tmp_path_factory):
    diffusers, vae, unet = parts
    path = tmp_path_factory.mktemp("latent")
    vae.save_pretrained(path / "vae")
    unet.save_pretrained(path / "unet")
    diffusers.DDPMScheduler(beta_schedule="scaled_linear").save_pretrained(path / "scheduler")
    return path


@needs_diffusers
def test_a_folder_of_diffusers_is_a_latent_prior(parts, folder):
    from recon.networks.checkpoints.diffusers import load_latent

    diffusers, vae, unet = parts
    prior = load_latent(folder)
    assert prior.shape == (2, 4, 8)
    table = diffusers.DDPMScheduler(beta_schedule="scaled_linear").alphas_cumprod.double()
    sigmas = ((1 - table) / table).sqrt()
    assert prior.sigma_min == pytest.approx(float(sigmas[0])) and prior.sigma_max == pytest.approx(
        float(sigmas[-1])
    )
    x, step = torch.randn(2, 2, 4, 8), 400
    sigma = float(sigmas[step])
    image = torch.rand(2, 1, 8, 16)
    with torch.no_grad():
        eps = unet(x * table[step].sqrt().float(), torch.tensor(step)).sample
        torch.testing.assert_close(prior(x, sigma), x - sigma * eps, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(prior.decode(x), (vae.decode(x / 0.5).sample + 1) / 2)
        torch.testing.assert_close(prior.encode(image), vae.encode(2 * image - 1).latent_dist.mean * 0.5)
    operator = op.Inpainting((torch.rand(8, 16) > 0.5).float())
    for posterior in ("dps", "stsl"):
        result = recon.sample(
            Problem(operator, operator(image), 0.05), prior, posterior, "euler", steps=2, samples=2
        )
        assert result.samples.shape == (2, 2, 1, 8, 16) and result.samples.isfinite().all()


@needs_diffusers
@pytest.mark.parametrize("kind", ["v_prediction", "sample"])
def test_its_other_parametrisations(parts, folder, kind, tmp_path):
    """Against the scheduler's own image."""
    from recon.networks.checkpoints.diffusers import load_latent

    diffusers, _, unet = parts
    for part in ("vae", "unet"):
        (tmp_path / part).symlink_to(folder / part)
    scheduler = diffusers.DDPMScheduler(prediction_type=kind, clip_sample=False)
    scheduler.save_pretrained(tmp_path / "scheduler")
    prior, step = load_latent(tmp_path), 300
    a = scheduler.alphas_cumprod[step].double()
    x = torch.randn(1, 2, 4, 8)
    with torch.no_grad():
        z = x * float(a.sqrt())
        wanted = scheduler.step(unet(z, torch.tensor(step)).sample, step, z).pred_original_sample
        torch.testing.assert_close(prior(x, float(((1 - a) / a).sqrt())), wanted, rtol=1e-4, atol=1e-4)


@needs_diffusers
def test_what_is_no_such_folder_is_refused(parts, folder, tmp_path):
    from recon.networks.checkpoints.diffusers import load_latent

    diffusers, _, _ = parts
    with pytest.raises(ConfigError, match="has no vae and no unet and no scheduler"):
        load_latent(tmp_path)
    (tmp_path / "vae").symlink_to(folder / "vae")
    (tmp_path / "unet").symlink_to(folder / "unet")
    diffusers.DDPMScheduler(prediction_type="other").save_pretrained(tmp_path / "scheduler")
    with pytest.raises(ConfigError, match="predicts 'other'"):
        load_latent(tmp_path)
    diffusers.DDPMScheduler(rescale_betas_zero_snr=True).save_pretrained(tmp_path / "scheduler")
    with pytest.raises(ConfigError, match="pure noise"):
        load_latent(tmp_path)


def bytes_cut(part):
    file = part / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])


def tensors_changed(part, change):
    from safetensors.torch import load, save_file

    file = part / "diffusion_pytorch_model.safetensors"
    tensors = load(file.read_bytes())
    change(tensors, sorted(tensors)[0])
    save_file(tensors, file, {"format": "pt"})


BAD_PARTS = {
    "cut": (bytes_cut, "cannot be read"),
    "broken card": (lambda part: (part / "config.json").write_text("{"), "cannot be read"),
    "card is a number": (lambda part: (part / "config.json").write_text("3"), "cannot be read"),
    "a tensor missing": (lambda part: tensors_changed(part, lambda t, k: t.pop(k)), "weights lack"),
    "a tensor more": (
        lambda part: tensors_changed(part, lambda t, k: t.update(x=t[k].clone())),
        "more than the network: x",
    ),
    "another shape": (
        lambda part: tensors_changed(part, lambda t, k: t.update({k: torch.ones(7)})),
        "cannot be read",
    ),
    "NaN": (lambda part: tensors_changed(part, lambda t, k: t[k].fill_(torch.nan)), "NaN or infinite"),
}


@needs_diffusers
@pytest.mark.parametrize("part", ["vae", "unet"])
@pytest.mark.parametrize("case", BAD_PARTS)
def test_a_damaged_folder_is_refused(folder, tmp_path, part, case):
    from recon.networks.checkpoints.diffusers import load_latent

    shutil.copytree(folder, tmp_path / "copy")
    damage, said = BAD_PARTS[case]
    damage(tmp_path / "copy" / part)
    with pytest.raises(ConfigError, match=said) as caught:
        load_latent(tmp_path / "copy")
    assert part in caught.value.what and len(str(caught.value).splitlines()) == 3


def test_without_the_library_it_says_how_to_get_it(tmp_path, monkeypatch):
    from recon.networks.checkpoints.diffusers import load_latent

    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ConfigError, match=r"recon-posterior\[latent\]"):
        load_latent(tmp_path)
