"""Files of tomography: every format read as it is, what is wrong with one said in a line, counts turned into rays."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
import yaml
from make_sinogram import counted, ellipses, projected, save_sinogram, small_sinogram

from recon.errors import ConfigError, InputError
from recon.io.tomography import (
    corrected,
    estimated_std,
    is_tomography,
    open_sinogram,
    rotation_centre,
    without_stripes,
)
from recon.io.tomography.field import field_of_view
from recon.jobs.inspect import inspect

FAN = {"geometry": "fan", "pitch_mm": 0.2, "source_mm": 40, "detector_mm": 60}


# --- real files ---------------------------------------------------------------------------------------------


def test_the_tooth_reads_as_it_is(shared_data):
    """A parallel beam with its axis off the middle, and raw counts that the sinogram was made of."""
    path = shared_data / "ct/sinograms/tooth_parallel.npz"
    found = open_sinogram(path)
    assert is_tomography(path) and found.data.shape == (2, 181, 640)
    assert (found.beam.kind, found.axis, found.warnings) == ("parallel", 295.0, ())
    assert open_sinogram(path, axis="auto").axis == pytest.approx(295.8, abs=0.3)
    with np.load(path) as file:
        made = corrected(file["raw"].astype(float), file["flat"].astype(float), file["dark"].astype(float))
    assert np.abs(made.data.transpose(1, 0, 2) - found.data).max() < 1e-3
    # the noise of counts is what neighbouring rays show, in air and behind the tooth
    estimate, _ = estimated_std(found.data)
    for dense in (found.data < 0.05, found.data > 1.2):
        assert np.median(found.std[dense]) == pytest.approx(np.median(estimate[dense]), rel=0.15)


def test_the_fan_beam_of_the_challenge_reads_as_it_is(shared_data):
    found = open_sinogram(shared_data / "ct/sinograms/htc2022_tb_limited90.npz")
    beam = found.beam
    assert (beam.kind, beam.pitch, beam.source, beam.detector, beam.unit) == (
        "fan",
        0.2,
        410.66,
        553.74,
        "mm",
    )
    assert found.data.shape == (1, 181, 560) and found.axis == 279.5 and not found.warnings
    assert beam.pixel == pytest.approx(0.2 * 410.66 / 553.74)
    assert found.covered == pytest.approx(90.5)


def test_kspace_is_no_sinogram(shared_data, tmp_path):
    assert not any(is_tomography(path) for path in sorted((shared_data / "mri").rglob("*.h5"))[:3])
    assert not is_tomography(tmp_path / "nothing.npz") and not is_tomography(tmp_path)


def test_inspect_says_what_sinograms_hold(shared_data):
    said = inspect(shared_data / "ct/sinograms/tooth_parallel.npz")
    for words in ("parallel", "181 views of 640 detectors", "180 degrees covered", "from counts", "295"):
        assert words in said


# --- formats ------------------------------------------------------------------------------------------------


def test_our_own_layout_in_hdf5(tmp_path):
    data, angles = small_sinogram()
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["sinogram"], file["angles_deg"] = data, angles
        file["geometry"] = json.dumps({"geometry": "parallel", "axis": 22.0})
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["sinogram"], file["angles"] = data, angles
        file.attrs["geometry"], file.attrs["axis"] = "parallel", 22.0
    for name in ("a.h5", "b.h5"):
        found = open_sinogram(tmp_path / name)
        assert np.array_equal(found.data, data) and found.axis == 22.0


def test_a_cone_beam_keeps_its_rows(tmp_path):
    data = np.random.default_rng(0).random((30, 6, 20)).astype(np.float32)
    found = open_sinogram(
        save_sinogram(tmp_path / "cone.npz", data, np.arange(30) * 12.0, FAN | {"geometry": "cone"})
    )
    assert found.volume and found.slices == 6 and found.detectors == 20
    assert found.views(10).data.shape == (10, 6, 20)


def test_observations_of_lodopab(tmp_path):
    """Geometry and scale as published: water, the width of the image, the noise of 4096 photons."""
    data = np.full((2, 1000, 513), 0.02, np.float32)
    data[:, :, 200:300] = 0.03
    with h5py.File(tmp_path / "observation_test_000.hdf5", "w") as file:
        file["data"] = data
    found = open_sinogram(tmp_path / "observation_test_000.hdf5")
    assert found.format == "LoDoPaB HDF5" and found.axis == 256.0
    assert field_of_view(found) == (362, pytest.approx(0.26 / 362))
    assert found.detectors * found.beam.pitch == pytest.approx(0.26 * np.sqrt(2))
    assert found.std[0, 0, 250] == pytest.approx(np.exp(0.5 * 81.35858 * 0.03) / 64 / 81.35858, rel=1e-4)
    assert found.water == pytest.approx(20 / 81.35858)


def test_raw_frames_of_dxchange(tmp_path):
    """Corrected, its axis found, angles from the file or over half a turn."""
    data, angles = small_sinogram(axis=25.3, views=90)
    counts = counted(data, photons=5e4)
    for name, more in (("a.h5", {"exchange/theta": angles}), ("b.h5", {})):
        with h5py.File(tmp_path / name, "w") as file:
            file["exchange/data"], file["exchange/data_white"] = counts["raw"], counts["flat"]
            file["exchange/data_dark"] = counts["dark"]
            for key, value in more.items():
                file[key] = value
    found = open_sinogram(tmp_path / "a.h5")
    assert found.axis == pytest.approx(25.3, abs=0.3)
    assert np.abs(found.data - data).mean() < 0.006
    off = (found.data - data) / found.std
    assert off.std() == pytest.approx(1, abs=0.1)
    part = open_sinogram(tmp_path / "a.h5", rows=(1, 2))
    assert np.array_equal(part.data[0], open_sinogram(tmp_path / "a.h5").data[1])
    assert "no angles" in " ".join(open_sinogram(tmp_path / "b.h5").said)


def test_tiff_stacks(tmp_path):
    """Pages as sinograms or as projections, one file or a folder, with their text beside them, counts or not."""
    data, angles = small_sinogram(axis=22.0)
    tifffile.imwrite(tmp_path / "one.tif", data)
    geometry = {"geometry": "parallel", "axis": 22.0}
    (tmp_path / "one.json").write_text(json.dumps(geometry | {"angles_deg": angles.tolist()}))
    assert np.array_equal(open_sinogram(tmp_path / "one.tif").data, data)

    folder, counts = tmp_path / "frames", counted(data)
    folder.mkdir()
    for view, frame in enumerate(counts["raw"]):
        tifffile.imwrite(folder / f"frame{view}.tif", frame)
    for part in ("flat", "dark"):
        tifffile.imwrite(tmp_path / f"{part}.tif", counts[part])
    text = geometry | {
        "pages": "projections",
        "first_angle": 0,
        "angle_step": 3.0,
        "flat": "../flat.tif",
        "dark": "../dark.tif",
    }
    (folder / "geometry.yaml").write_text(yaml.safe_dump(text))
    found = open_sinogram(folder)
    assert is_tomography(folder) and found.std is not None and np.abs(found.data - data).mean() < 0.02
    (tmp_path / "one.json").unlink()
    with pytest.raises(InputError, match="no geometry beside it"):
        open_sinogram(tmp_path / "one.tif")


# --- choosing -----------------------------------------------------------------------------------------------


def test_views_are_evenly_thinned(tmp_path):
    data, angles = small_sinogram(views=60)
    found = open_sinogram(save_sinogram(tmp_path / "a.npz", data, angles))
    assert np.array_equal(found.views(20).angles, angles[::3])
    assert np.array_equal(found.views(60).data, data)
    short = found.arc(0, 90)
    assert short.angles.max() == 90 and short.views(4).angles.tolist() == [0, 30, 60, 90]
    assert found.arc(-30, 30).angles.min() == 0 and len(found.arc(-30, 30).angles) == 21  # seen from behind
    with pytest.raises(ConfigError, match="61 views"):
        found.views(61)
    with pytest.raises(ConfigError, match="ends after it begins"):
        found.arc(90, 0)


# --- counts and noise ---------------------------------------------------------------------------------------


def test_the_noise_of_counts(tmp_path):
    """With a gain of 4 counts a photon, the std of rays is that of photons; a dead detector and a dark ray are said."""
    data, _ = small_sinogram(views=40)
    counts = {name: array.astype(np.float64) for name, array in counted(data, photons=4000).items()}
    loud = {name: 100 + 4 * (array - 100) for name, array in counts.items()}
    made = corrected(loud["raw"], loud["flat"], loud["dark"])
    off = (made.data.transpose(1, 0, 2) - data) / made.std.transpose(1, 0, 2)
    assert off.std() == pytest.approx(1, abs=0.08)
    loud["flat"][:, :, 5], loud["raw"][0, 0, 7] = 90, 60
    bad = corrected(loud["raw"], loud["flat"], loud["dark"])
    assert np.isfinite(bad.data).all() and np.isinf(bad.std[:, :, 5]).all()
    assert any("see no light" in said for said in bad.warnings)
    assert any("one photon" in said for said in (*bad.said, *bad.warnings))


@pytest.mark.parametrize("photons", [2e3, 1e5])
def test_noise_is_estimated_as_it_is(photons):
    """Within 15 %, where rays are dim and where they are not, of Poisson counts."""
    angles = np.arange(180)
    clean = 0.03 * projected(ellipses(3, 50), angles, 128, 64)
    draw = np.random.default_rng(0)
    counts = np.maximum(draw.poisson(photons * np.exp(-clean)), 1)
    std, said = estimated_std(-np.log(counts / photons)[None])
    true = np.exp(clean / 2) / np.sqrt(photons)
    for part in (clean < 0.1, clean > 1.5):
        assert np.median(std[0][part]) == pytest.approx(np.median(true[part]), rel=0.15)
    assert "estimated" in said


def test_stripes_are_taken_away():
    data, _ = small_sinogram(detectors=200, axis=99.5)
    striped = data.copy()
    striped[:, :, [71, 130]] += 0.3
    left = np.abs(without_stripes(striped) - data).mean((0, 1))
    assert left[[71, 130]].max() < 0.06 and left.mean() < 0.01


# --- the axis -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("detectors", [64, 200, 640])
@pytest.mark.parametrize("views, arc", [(45, 180), (180, 180), (120, 200), (150, 270), (90, 360)])
def test_the_axis_is_found(detectors, views, arc):
    """Within .3 detectors, over sizes, arcs of half a turn and more, noise of 1 and 3 %, and the object anywhere."""
    for seed, noise in enumerate((0.0, 0.01, 0.03)):
        draw = np.random.default_rng(seed)
        axis = (detectors - 1) / 2 + draw.uniform(-0.08, 0.08) * detectors
        angles = np.linspace(0, arc, views, endpoint=False)
        clean = projected(ellipses(seed, 0.38 * detectors), angles, detectors, axis)
        noisy = clean + noise * clean.max() * draw.standard_normal(clean.shape)
        assert abs(rotation_centre(noisy[None], angles) - axis) < 0.3


def test_the_axis_of_a_large_detector_is_found():
    """Of more rays than are looked at."""
    angles = np.linspace(0, 180, 1300, endpoint=False)
    clean = projected(ellipses(1, 700), angles, 2100, 1010.3)
    assert abs(rotation_centre(clean[None], angles) - 1010.3) < 0.3


def test_the_axis_is_not_found_in_less_than_half_a_turn(tmp_path):
    data, angles = small_sinogram()
    with pytest.raises(InputError, match="half a turn"):
        rotation_centre(data[:, :40], angles[:40])
    found = open_sinogram(save_sinogram(tmp_path / "a.npz", data[:, :40], angles[:40]))
    assert found.axis == 23.5 and any("--axis" in said for said in found.warnings)


# --- bad input ----------------------------------------------------------------------------------------------


def refused(path: Path, words: str, **options) -> None:
    with pytest.raises(InputError, match=words) as error:
        open_sinogram(path, **options)
    assert error.value.why and error.value.do


def test_what_cannot_be_used_is_refused(tmp_path):
    data, angles = small_sinogram()
    save = lambda *given, **more: save_sinogram(tmp_path / "bad.npz", *given, **more)  # noqa: E731
    refused(save(data.transpose(0, 2, 1), angles), "60 angles and 48 views")
    refused(save(data, angles[:-1]), "59 angles and 60 views")
    refused(save(np.where(data > 0.4, np.nan, data), angles), "NaN or infinite")
    refused(save(data, angles, {"geometry": "spiral"}), "spiral")
    refused(save(data, angles, {"geometry": "fan", "pitch": 1}), "has no source and no detector")
    refused(save(data, angles, FAN | {"source_mm": 70}), "70 mm from the axis")
    refused(save(data, angles, FAN | {"source_mm": 2, "detector_mm": 3}), "source is inside the object")
    refused(save(data, angles, FAN | {"source_cm": 4}), "lengths in")
    refused(save(data, angles, FAN | {"numDetectors": 50}), "48 detectors, the geometry says 50")
    refused(save(data[0, 0], angles), "shape")
    counts = counted(data)
    refused(save(data, angles, raw=counts["raw"] * -1.0, flat=counts["flat"]), "negative counts")
    whole = save(data, angles).read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    refused(tmp_path / "cut.npz", "cannot be read")
    with h5py.File(tmp_path / "whole.h5", "w") as file:
        file["sinogram"], file["angles_deg"] = data, angles
    content = (tmp_path / "whole.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(content[: len(content) // 2])
    refused(tmp_path / "cut.h5", "cannot be read|damaged")


def test_more_than_memory_is_refused(tmp_path, monkeypatch):
    data, angles = small_sinogram()
    path = save_sinogram(tmp_path / "a.npz", data, angles)
    monkeypatch.setattr("recon.io.tomography.layouts.RAY_BYTES", 2**40)
    refused(path, "does not fit into memory")


def test_what_looks_odd_is_said(tmp_path):
    data, angles = small_sinogram(axis=23.5)
    save = lambda *given: save_sinogram(tmp_path / "odd.npz", *given)  # noqa: E731
    odd = save(data, np.deg2rad(angles), {"axis": 23.5})
    assert any("radians" in said for said in open_sinogram(odd).warnings)
    assert not open_sinogram(odd, radians=True).warnings
    cut = open_sinogram(save(data[:, :, 12:-8], angles))
    assert any("cut off" in said for said in cut.warnings)
    assert not open_sinogram(save(data, angles)).warnings
