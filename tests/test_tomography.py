"""Reconstruction of sinograms by the command line: results, resumption, formats, what is refused, real scans."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
import torch
from make_prior import make_prior
from make_sinogram import counted, projected, save_sinogram, small_sinogram
from PIL import Image

import recon
from recon.cli import main
from recon.errors import ConfigError
from recon.io import read_result
from recon.io.tomography import Beam, open_sinogram
from recon.io.tomography.field import field_of_view
from recon.io.tomography.hounsfield import CTSlices, read_ct_slices, save_ct_slices, to_hounsfield
from recon.jobs.shared.scans import TomographySettings, settle_tomography
from recon.jobs.shared.tomograms import (
    as_measured,
    bulk_attenuation,
    nonnegative_fit,
    operator_of,
    rays_of,
    reconstruct_tomograms,
)
from recon.jobs.tomography import reconstruct_sinograms


@pytest.fixture(scope="module")
def real(tmp_path_factory) -> str:
    """The weights of a tiny prior of real images."""
    return str(make_prior(tmp_path_factory.mktemp("prior"), "tiny-real", complex_images=False))


@pytest.fixture
def no_panels(monkeypatch):
    """Pictures cost half a second each."""
    monkeypatch.setattr("recon.jobs.tomography.save_panel", lambda *a, **k: None)


def run(*arguments: object) -> int:
    return main([str(a) for a in ("reconstruct", *arguments)])


def settings_for(prior: str, **more) -> TomographySettings:
    return settle_tomography({}, {"prior": prior, "steps": 3, "samples": 2, "dtype": "float32"} | more)


# --- the mathematics ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["parallel", "fan", "cone"])
def test_a_gaussian_posterior_is_what_its_formula_says(kind):
    """With a Gaussian prior the mean of the samples is that of the exact posterior of weighted rays, in every beam."""
    angles, size, water = np.arange(0, 360, 30.0 if kind == "cone" else 12.0), 12, 0.05
    beam = Beam(kind, 1.0) if kind == "parallel" else Beam(kind, 1.5, None, 40.0, 60.0)
    shape = (len(angles), 6, 24) if kind == "cone" else (len(angles), 24)
    A = operator_of(beam, 11.2, angles, shape, size, 1.0).to(torch.float64)
    draw = torch.Generator().manual_seed(0)
    x = 1 + 0.1 * torch.randn(1, *A.domain, generator=draw, dtype=torch.float64)
    std = 0.02 + 0.02 * torch.rand(1, *A.codomain, generator=draw, dtype=torch.float64)
    y = water * A(x) + std * torch.randn(1, *A.codomain, generator=draw, dtype=torch.float64)
    prior = recon.priors.Gaussian(torch.ones(A.domain[-2:], dtype=torch.float64)[None], 0.01)
    count = 4 if kind == "cone" else 16
    recipe = settle_tomography({}, {"steps": 20, "samples": count, "sampler_options": {"steps": 30}}).recipe
    levels = recon.grids.karras(20, 3.0, 0.01)
    found = reconstruct_tomograms(A, y, std, water, recipe, prior, levels)[0]

    matrix = torch.stack(
        [(water * A(e.view(1, *A.domain)) / std).flatten() for e in torch.eye(x.numel(), dtype=x.dtype)], 1
    )
    right = matrix.T @ (y / std - water * A(torch.ones_like(x)) / std).flatten()
    precision = matrix.T @ matrix + torch.eye(x.numel(), dtype=x.dtype) / 0.01
    mean = 1 + torch.linalg.solve(precision, right)
    spread = precision.inverse().diagonal().sqrt()
    off = (found.mean.flatten() / water - mean) / spread
    assert off.square().mean().sqrt() < 0.5 + count**-0.5  # the samples' own error, and the sampler's bias
    assert found.residual == pytest.approx(1, abs=0.2)
    assert found.mean.shape == found.fbp.shape == (A.domain[-3] if kind == "cone" else 1, size, size)


def test_the_bulk_is_found():
    """Of a disc of .03 with a hole and a bright inset; from all views, a few, and a short arc."""
    body = [(0, 0, 30, 30, 0, 0.03), (10, 5, 6, 6, 0, -0.03), (-10, 0, 3, 3, 0, 0.06)]
    for angles, tolerance in (
        (np.arange(0, 180, 1.0), 0.03),
        (np.arange(0, 180, 15.0), 0.05),
        (np.arange(0, 90, 2.0), 0.1),
    ):
        y = torch.from_numpy(projected(body, angles, 96, 47.5)).float()[None, None]
        A = operator_of(Beam(), 47.5, angles, (len(angles), 96), 96, 1.0)
        assert bulk_attenuation(A, y, float(np.ptp(angles) + angles[1])) == pytest.approx(0.03, rel=tolerance)


def test_the_image_holds_the_object(tmp_path):
    data, angles = small_sinogram(detectors=160, axis=70.0, views=90)
    found = open_sinogram(save_sinogram(tmp_path / "a.npz", data, angles))
    size, pixel = field_of_view(found)
    assert pixel == 1.0 and size % 8 == 0
    reach = 0.4 * 160  # of the ellipses
    assert 1.2 * reach < size < 2.4 * reach
    assert field_of_view(found, 64)[0] == 64 and field_of_view(found, None, 0.5)[0] == pytest.approx(
        2 * size, abs=8
    )
    assert field_of_view(found.arc(0, 90))[0] == 160
    short = replace(found, beam=Beam("fan", 1.0, 70.0, 60.0, 120.0, "mm"))
    with pytest.raises(ConfigError, match="reaches the source"):
        field_of_view(short, 128, 1.0)


# --- the command --------------------------------------------------------------------------------------------


def test_a_sinogram_is_reconstructed(real, tmp_path, capsys):
    """Result, pictures and other formats; noise from counts; scores against all views."""
    data, angles = small_sinogram()
    counts = counted(data, 1e5)
    counts["flat"][:, :, 30] = 90  # a dead detector: darker than the dark field
    geometry = {"geometry": "parallel", "pitch_mm": 0.5}
    path = save_sinogram(tmp_path / "scan.npz", data, angles, geometry, **counts)
    flags = f"--views 20 --steps 3 --samples 2 --format tiff --format nifti --prior {real}"
    assert run(path, *flags.split(), "--out", tmp_path / "out") == 0
    result = read_result(tmp_path / "out/scan.h5", samples=True)
    size = result.config["scan"]["size"]
    assert result.reconstruction.shape == (2, size, size) and result.samples.shape == (2, 2, size, size)
    assert result.samples.dtype == np.float32 and result.zero_filled is None
    np.testing.assert_allclose(result.reconstruction, result.samples.mean(1), rtol=1e-4, atol=1e-6)
    assert (
        np.isfinite(result.std).all() and np.isfinite(result.residual).all() and np.isfinite(result.fbp).all()
    )
    assert np.isfinite(result.scores["fastmri_psnr"]).all()
    assert result.config["scan"]["axis"] == pytest.approx(22, abs=0.3)
    assert (tmp_path / "out/scan_000.png").exists() and (tmp_path / "out/scan_001.png").exists()
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out/scan_mean.tif"), result.reconstruction)
    nibabel = pytest.importorskip("nibabel")
    volume = nibabel.load(tmp_path / "out/scan_std.nii.gz")
    np.testing.assert_allclose(volume.get_fdata().transpose(2, 0, 1), result.std, rtol=1e-6)
    assert volume.header.get_zooms()[0] == pytest.approx(result.config["scan"]["pixel"])
    said = "".join(capsys.readouterr())
    assert "Look at" in said and "2 detectors see no light" in said


def test_a_run_that_is_cut_off_goes_on(real, tmp_path, monkeypatch, no_panels):
    """Finished slices are kept, not done again, and the result is the same to the bit."""
    data, angles = small_sinogram(slices=3, views=30)
    path = save_sinogram(tmp_path / "scan.npz", data, angles)
    settings = settings_for(real, size=32)
    whole = reconstruct_sinograms([path], settings, tmp_path / "whole").done[0]
    calls = []
    original = recon.jobs.tomography.reconstruct_tomograms

    def cut(*args, **more):
        calls.append(args[7])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*args, **more)

    monkeypatch.setattr("recon.jobs.tomography.reconstruct_tomograms", cut)
    outcome = reconstruct_sinograms([path], settings, tmp_path / "parts", say=lambda text: None)
    assert outcome.interrupted and (tmp_path / "parts/scan.h5.part").exists()
    again = reconstruct_sinograms([path], settings, tmp_path / "parts").done[0]
    assert calls == [[0], [1], [2], [2]]
    with h5py.File(whole) as one, h5py.File(again) as other:
        for name in ("reconstruction", "std", "samples", "fbp", "interval", "residual"):
            np.testing.assert_array_equal(one[name][()], other[name][()])
    assert reconstruct_sinograms([path], settings, tmp_path / "parts").fresh == []
    other = replace(settings, scan=replace(settings.scan, views=10))
    assert "other settings" in str(reconstruct_sinograms([path], other, tmp_path / "parts").failures[0].error)


def test_a_volume_goes_on_at_the_next_block(real, tmp_path, monkeypatch, no_panels):
    """Neighbours are sampled in blocks that overlap; a run that was cut off makes the same volume."""
    data, angles = small_sinogram(slices=7, views=20)
    path = save_sinogram(tmp_path / "scan.npz", data, angles)
    settings = settings_for(real, size=24, slices=3, volume=True)
    whole = reconstruct_sinograms([path], settings, tmp_path / "whole").done[0]
    blocks, original = [], recon.jobs.tomography.reconstruct_tomograms

    def cut(*args):
        blocks.append(list(args[7]))
        if len(blocks) == 2:
            raise KeyboardInterrupt
        return original(*args)

    monkeypatch.setattr("recon.jobs.tomography.reconstruct_tomograms", cut)
    assert reconstruct_sinograms([path], settings, tmp_path / "parts").interrupted
    again = reconstruct_sinograms([path], settings, tmp_path / "parts").done[0]
    assert blocks == [[0, 1, 2, 3, 4], [1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6], [4, 5, 6]]
    with h5py.File(whole) as one, h5py.File(again) as other:
        for name in ("reconstruction", "std", "samples", "residual"):
            np.testing.assert_array_equal(one[name][()], other[name][()])
    assert read_result(whole).config["sampler"] == "dds-3d"
    alone = reconstruct_sinograms([path], settings_for(real, size=24), tmp_path / "alone").done[0]
    assert read_result(alone).config["sampler"] == "dds"


def test_slices_together_are_as_alone(real, tmp_path, no_panels):
    data, angles = small_sinogram(slices=3, views=30)
    path = save_sinogram(tmp_path / "scan.npz", data, angles)
    results = [
        reconstruct_sinograms([path], settings_for(real, size=32, slices=count), tmp_path / str(count)).done[
            0
        ]
        for count in (1, 3)
    ]
    with h5py.File(results[0]) as one, h5py.File(results[1]) as other:
        np.testing.assert_allclose(one["samples"][()], other["samples"][()], atol=1e-4)


@pytest.mark.parametrize("kind", ["fan", "cone"])
def test_diverging_beams(kind, real, tmp_path, no_panels):
    """A fan beam slice by slice; of a cone beam all slices together."""
    angles = np.arange(0, 360, 12.0)
    beam = Beam(kind, 1.5, None, 60.0, 90.0)
    shape = (30, 8, 40) if kind == "cone" else (30, 40)
    A = operator_of(beam, 19.5, angles, shape, 32, 1.0)
    x = torch.zeros(1, *A.domain)
    x[..., 6:26, 6:26] = 0.03
    data = A(x)[0, 0].numpy()
    geometry = {"geometry": kind, "pitch": 1.5, "source": 60, "detector": 90, "unit": "mm"}
    path = save_sinogram(
        tmp_path / "scan.npz",
        data + 1e-3 * np.random.default_rng(0).standard_normal(data.shape),
        angles,
        geometry,
    )
    outcome = reconstruct_sinograms([path], settings_for(real, size=32, pixel=1.0), tmp_path / "out")
    result = read_result(outcome.done[0])
    assert result.reconstruction.shape == (A.domain[1] if kind == "cone" else 1, 32, 32)
    inside = x[0, 0].numpy() > 0 if kind == "cone" else x[0].numpy() > 0
    assert result.fbp[inside].mean() == pytest.approx(0.03, rel=0.15)
    assert result.attrs["water"] == pytest.approx(0.03, rel=0.1)
    if kind == "cone":
        pictures = [Image.open(tmp_path / f"out/scan_{name}.png") for name in ("planes", "mosaic")]
        assert all(np.asarray(picture).std() > 10 for picture in pictures)


def test_dry_run_and_configuration(real, tmp_path, capsys):
    data, angles = small_sinogram()
    path = save_sinogram(tmp_path / "scan.npz", data, angles)
    config = tmp_path / "c.yaml"
    config.write_text(f"prior: {real}\nsteps: 2\nscan: {{views: 10, size: 40, water: 0.02}}\n")
    assert run(path, "--config", config, "--dry-run", "--out", tmp_path / "out") == 0
    said = "".join(capsys.readouterr())
    assert "10 views" in said and "40 x 40" in said and "water is 0.02" in said
    assert not (tmp_path / "out").exists()


def test_what_does_not_fit_is_refused(real, tiny, tmp_path, capsys):
    data, angles = small_sinogram()
    path = save_sinogram(tmp_path / "scan.npz", data, angles)

    def refused(words: str, *arguments) -> None:
        assert run(path, *arguments, "--out", tmp_path / "out") == 2
        assert words in "".join(capsys.readouterr())
        assert not list(tmp_path.glob("out/*"))

    refused("It is for k-space", "--prior", real, "--accel", 4)
    refused("complex images", "--prior", tiny)
    refused("61 views", "--prior", real, "--views", 61)
    refused("no view from 181", "--prior", real, "--arc", "181:181.5")
    refused("It is the number of a detector", "--prior", real, "--axis", "left")
    refused("first and a last number", "--prior", real, "--arc", "ninety")
    refused("need about", "--prior", real, "--size", 40000)
    template = dicom_template(tmp_path / "template.dcm")
    refused("--water", "--prior", real, "--format", "dicom", "--dicom-template", template)
    kspace = tmp_path / "kspace.npy"
    np.save(kspace, np.ones((4, 8, 8), np.complex64))
    assert run(kspace, "--views", 3) == 2 and "It is for sinograms" in "".join(capsys.readouterr())
    assert run(kspace, path) == 2 and "files of one kind" in "".join(capsys.readouterr())


# --- Hounsfield units ---------------------------------------------------------------------------------------


def dicom_template(path: Path) -> Path:
    """A CT image of a study."""
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    one.SOPClassUID, one.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    one.PatientID, one.PatientName, one.StudyInstanceUID = "7", "Doe", generate_uid()
    one.Modality, one.SeriesInstanceUID = "CT", generate_uid()
    one.save_as(path, enforce_file_format=True)
    assert pydicom
    return path


def test_dicom_in_hounsfield_units(real, tmp_path, no_panels):
    """What is written is HU of the reconstruction, and is read back as attenuation over that of water."""
    data, angles = small_sinogram()
    path = save_sinogram(
        tmp_path / "scan.npz", data, angles, {"geometry": "parallel", "pitch_mm": 1.0, "water": 0.02}
    )
    template = dicom_template(tmp_path / "template.dcm")
    settings = settings_for(real, size=32)
    outcome = reconstruct_sinograms(
        [path], settings, tmp_path / "out", formats=["dicom"], dicom_template=template
    )
    assert not outcome.failures
    result = read_result(outcome.done[0])
    slices = read_ct_slices(sorted((tmp_path / "out").glob("*_mean_*.dcm")))
    wanted = np.clip(to_hounsfield(result.reconstruction, 0.02), -1024, None)
    np.testing.assert_allclose(slices.hounsfield, wanted, atol=0.51)
    np.testing.assert_allclose(slices.relative, np.maximum(1 + slices.hounsfield / 1000, 0), atol=1e-6)
    assert slices.spacing[0] == pytest.approx(result.config["scan"]["pixel"], rel=1e-5)
    std = read_ct_slices(sorted((tmp_path / "out").glob("*_std_*.dcm")))
    np.testing.assert_allclose(std.hounsfield, 1000 * result.std / 0.02, atol=0.51)


def test_ct_slices_become_a_training_set(tmp_path):
    values = np.linspace(-1000, 2000, 2 * 16 * 16, dtype=np.float32).reshape(2, 16, 16)
    path = save_ct_slices(tmp_path / "set.npz", CTSlices(values, (0.7, 0.7), 2.0))
    with np.load(path) as file:
        np.testing.assert_allclose(file["images"].astype(float) - 1024, values, atol=0.51)


# --- real scans ---------------------------------------------------------------------------------------------


def test_fbp_of_the_real_sinograms(shared_data):
    """Both reconstruct: the tooth stands out of the air, and explains its rays; the disc of the challenge where its truth is."""
    tooth = open_sinogram(shared_data / "ct/sinograms/tooth_parallel.npz", axis="auto")
    tooth = tooth.views(90)
    A = operator_of(tooth.beam, tooth.axis, tooth.angles, tooth.data.shape, 320, 2.0)
    y = rays_of(tooth, [0])
    image = A.fbp(y)
    assert float((A(image) - y).norm() / y.norm()) < 0.05
    assert as_measured(tooth.std, tooth, [0]).shape == y.shape

    path = shared_data / "ct/sinograms/htc2022_tb_limited90.npz"
    disc = open_sinogram(path).views(30)
    A = operator_of(disc.beam, disc.axis, disc.angles, disc.data.shape, 256, 2 * disc.beam.pixel)
    fit = nonnegative_fit(A, rays_of(disc, [0]), 30)[0, 0].numpy()
    with np.load(path) as file:
        truth = file["segmentation_gt"]
    truth = truth.reshape(256, 2, 256, 2).mean((1, 3)) > 0.5
    assert np.corrcoef(fit.ravel(), truth.ravel())[0, 1] > 0.7
