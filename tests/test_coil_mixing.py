"""``--whiten`` and ``--coils``: what is reconstructed is the same image, of coils with independent noise, or of fewer coils."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from make_kspace import coil_maps, make_fastmri_file, make_kspace

from operators.coils import coil_energy, compression, mix, noise_covariance, rss, whitening
from operators.errors import OperatorError
from operators.fourier import fft2c, ifft2c
from operators.krylov import cg
from operators.mri import MRI
from recon.cli import main
from recon.errors import ConfigError
from recon.io import open_kspace, read_result, survey
from recon.io.acquisition import MaskChoice, acquire
from recon.jobs.inspect import inspect
from recon.jobs.reconstruct import reconstruct
from recon.jobs.shared.coils import mixing
from recon.jobs.shared.settings import Settings, settle

pytestmark = pytest.mark.usefixtures("no_pictures")

COILS, SIZE = 5, 32


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    """Complex noise of variance 1 per real component."""
    real, imaginary = torch.randn(
        2, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    return torch.complex(real, imaginary)


def spread(seed: int = 1) -> torch.Tensor:
    """How independent noise becomes that of five coils of very different noise, correlated."""
    return torch.diag(torch.tensor([1.0, 2, 1, 8, 1], dtype=torch.complex128)) @ (
        torch.eye(COILS) + 0.3 * draw(COILS, COILS, seed=seed)
    )


def mixed(path: Path, found=None, **settings):
    file = open_kspace(path)
    found = survey(file)
    return mixing(file, found, acquire(file, found, MaskChoice()), Settings(**settings))


def saved(path: Path, kspace, **arrays) -> Path:
    np.savez(path, kspace=np.asarray(kspace, dtype=np.complex64), **arrays)
    return path


def noisy(sigma: float = 0.02, seed: int = 0) -> torch.Tensor:
    """(1, coils, 64, 64): an object and correlated noise."""
    clean = torch.from_numpy(make_kspace(1, COILS, 64, 64)).to(torch.complex128)
    return clean + sigma * mix(spread(), draw(1, COILS, 64, 64, seed=seed))


# --- laws ------------------------------------------------------------------------------------------------


def test_the_covariance_of_whitened_noise_is_the_identity():
    """Twice it, of complex noise of variance 1 per real component; to rounding for the samples it was found from."""
    noise = mix(spread(), draw(COILS, 20, 30))
    covariance = noise_covariance(noise, scan=True)
    matrix = whitening(covariance)
    white = noise_covariance(mix(matrix, noise), scan=True)
    torch.testing.assert_close(white, 2 * torch.eye(COILS) + 0j, atol=1e-12, rtol=0, check_dtype=False)
    assert torch.equal(matrix, matrix.tril())
    with pytest.raises(OperatorError, match="positive definite"):
        whitening(torch.zeros(3, 3))


@pytest.mark.parametrize("n", range(1, COILS + 1))
def test_compression_keeps_noise_white_and_as_much_energy_as_any(n):
    kspace = draw(2, COILS, 8, 9)
    energy = coil_energy(kspace)
    matrix = compression(energy, n)
    torch.testing.assert_close(matrix @ matrix.mH, torch.eye(n) + 0j, atol=1e-12, rtol=0, check_dtype=False)
    values = torch.linalg.svdvals(kspace.movedim(1, 0).flatten(1))
    torch.testing.assert_close(mix(matrix, kspace).norm() ** 2, values[:n].square().sum())
    if n == COILS:
        torch.testing.assert_close(rss(ifft2c(mix(matrix, kspace))), rss(ifft2c(kspace)))
    for wrong in (0, -1, COILS + 1):
        with pytest.raises(OperatorError, match=f"Cannot compress {COILS} coils to {wrong}"):
            compression(energy, wrong)


def test_whitening_before_least_squares_has_the_least_error():
    """Gauss and Markov: with the true maps and half of the lines, the weights that whitening gives."""
    maps = torch.from_numpy(coil_maps(COILS, SIZE, SIZE)).to(torch.complex128)
    mask = torch.arange(SIZE) % 2 == 0
    image = torch.from_numpy(make_kspace(1, 1, SIZE, SIZE)).to(torch.complex128)
    image = ifft2c(image)
    errors = {}
    for white in (False, True):
        matrix = whitening(2 * spread() @ spread().mH) if white else torch.eye(COILS) + 0j
        A = MRI(mask, mix(matrix.to(maps), maps))
        found = []
        for seed in range(10):
            y = (fft2c(maps * image) + 0.02 * mix(spread(), draw(1, COILS, SIZE, SIZE, seed=seed))) * mask
            found.append(cg(A.normal, A.adjoint(mix(matrix.to(y), y)), steps=100) - image)
        errors[white] = float(torch.stack(found).abs().square().mean().sqrt())
    assert errors[True] < 0.5 * errors[False]


# --- of a file -------------------------------------------------------------------------------------------


def test_noise_is_that_of_the_outer_kspace_where_there_is_no_scan(tmp_path):
    found = mixed(saved(tmp_path / "x.npz", noisy(0.1)), whiten=True)
    white = noise_covariance(
        mix(found.matrix.to(torch.complex128), mix(spread(), draw(COILS, 100, 100))), scan=True
    )
    white = white / white.diagonal().real.mean()
    assert (white - torch.eye(COILS)).abs().max() < 0.25
    assert float(torch.linalg.det(found.matrix).abs()) == pytest.approx(1, rel=1e-4)
    assert found.said == ("whitened by the noise of the outer k-space",)


def test_noise_is_that_of_the_noise_scan_where_there_is_one(tmp_path):
    pytest.importorskip(
        "ismrmrd", reason="the extra `formats` is not installed: pip install 'recon-posterior[formats]'"
    )
    from make_ismrmrd import header, lines_of, readout, write

    scan = mix(spread(), draw(COILS, 8, 64))
    readouts = [readout(scan[:, n].numpy(), flags=["ACQ_IS_NOISE_MEASUREMENT"]) for n in range(8)]
    xml = header((64, 64, 1), (64, 64, 1))
    path = write(tmp_path / "x.h5", xml, [*readouts, *lines_of(noisy()[0].numpy())])
    found = mixed(path, whiten=True)
    white = noise_covariance(mix(found.matrix.to(torch.complex128), scan), scan=True)
    white = white / white.diagonal().real.mean()
    torch.testing.assert_close(white, torch.eye(COILS) + 0j, atol=1e-4, rtol=0, check_dtype=False)
    assert found.said == ("whitened by the noise of the noise scan",)


def test_a_dead_coil_is_left_out_and_a_noisy_one_said(tmp_path):
    kspace = noisy(0.005)
    kspace[:, 1] = 0
    path = saved(tmp_path / "x.npz", kspace)
    plain = mixed(path)
    assert plain.matrix.shape == (4, 5) and torch.equal(plain.matrix, torch.eye(5)[[0, 2, 3, 4]] + 0j)
    assert plain.said[0] == "coil 1 receives nothing and is left out"
    assert plain.said[1].startswith("coil 3 has") and "--whiten" in plain.said[1]
    white = mixed(path, whiten=True)
    assert white.matrix.shape == (4, 5) and not white.matrix[:, 1].any() and len(white.said) == 2
    report = inspect(path)
    assert "coil 1 receives nothing" in report and "coil 3 has" in report


def test_coils_are_whitened_before_they_are_compressed(tmp_path):
    path = saved(tmp_path / "x.npz", noisy(1e-3))
    white, both = mixed(path, whiten=True), mixed(path, whiten=True, coils=2)
    virtual = both.matrix @ torch.linalg.inv(white.matrix)
    torch.testing.assert_close(virtual @ virtual.mH, torch.eye(2) + 0j, atol=1e-4, rtol=0)
    assert torch.equal(both.whitening, white.matrix)
    assert both.said[1].startswith("2 virtual coils of 5 keep ")


def test_more_coils_than_receive_anything_are_refused(tmp_path):
    kspace = noisy(0.005)
    kspace[:, 1] = 0
    with pytest.raises(ConfigError, match="5 virtual coils were asked for.\nIt has 4 coils that receive"):
        mixed(saved(tmp_path / "x.npz", kspace), coils=5)


@pytest.mark.parametrize(
    ("key", "value"), [("coils", 0), ("coils", -2), ("coils", 2.5), ("coils", True), ("whiten", 1)]
)
def test_settings_that_are_none_are_refused(key, value):
    with pytest.raises(ConfigError, match=key):
        settle({key: value}, {})


# --- the job ---------------------------------------------------------------------------------------------


def run(path: Path, tiny: str, out: Path, **keys):
    made = settle(
        {
            "prior": tiny,
            "steps": 2,
            "samples": 2,
            "mask": {"name": "equispaced", "accel": 2, "center": 0.3},
            **keys,
        },
        {},
    )
    outcome = reconstruct([path], made, out, say=lambda line: None)
    assert not outcome.failures, outcome.failures
    return read_result(outcome.done[0])


def test_all_virtual_coils_give_the_same_image_also_with_maps_of_the_file(tmp_path, tiny):
    kspace = make_kspace(1, COILS, 32, 32, noise=0.01)
    path = saved(tmp_path / "x.npz", kspace, maps=coil_maps(COILS, 32, 32))
    plain, virtual = (run(path, tiny, tmp_path / str(n), coils=n) for n in (None, COILS))
    np.testing.assert_allclose(
        virtual.reconstruction, plain.reconstruction, atol=2e-3 * plain.reconstruction.max()
    )
    assert virtual.config["coils"] == COILS and "coils" not in plain.config
    few = run(path, tiny, tmp_path / "few", coils=3, whiten=True)
    assert np.isfinite(few.reconstruction).all() and few.config["whiten"] is True


def test_the_command_line_has_both(tmp_path, tiny, capsys):
    path = make_fastmri_file(tmp_path / "x.h5", slices=2, coils=COILS, noise=0.01)
    words = [
        "reconstruct",
        str(path),
        "--prior",
        tiny,
        "--steps",
        "2",
        "--samples",
        "1",
        "--accel",
        "2",
        "--center",
        ".3",
    ]
    out = ["--out", str(tmp_path / "out")]
    assert main([*words, "--whiten", "--coils", "4", *out]) == 0
    said = capsys.readouterr()
    assert "4 virtual coils of 5 keep" in said.out + said.err
    assert main([*words, "--coils", "9", *out]) == 2
    assert "9 virtual coils were asked for." in capsys.readouterr().err
    assert main([*words, "--coils", "0", *out]) == 2
