"""Mean and std as NIfTI and DICOM: the values, and where they lie in the patient, survive the round trip."""

from __future__ import annotations

import gzip
import io as streams
import sys
from pathlib import Path

import numpy as np
import pytest
from make_kspace import make_fastmri_file

pytest.importorskip(
    "nibabel", reason="the extra `formats` is not installed: pip install 'recon-posterior[formats]'"
)
pytest.importorskip(
    "pydicom", reason="the extra `formats` is not installed: pip install 'recon-posterior[formats]'"
)
pytest.importorskip(
    "ismrmrd", reason="the extra `formats` is not installed: pip install 'recon-posterior[formats]'"
)

import nibabel
import pydicom
from make_ismrmrd import header, lines_of, readout, scan, write

from recon.cli import main
from recon.io import read_result
from recon.io.dicom import dicom_bytes, read_template
from recon.io.nifti import nifti_bytes
from recon.io.stores import Geometry

pytestmark = pytest.mark.usefixtures("no_pictures")

SLICES, H, W = 4, 6, 5
TURN = np.linalg.qr(np.random.default_rng(3).standard_normal((3, 3)))[0]


def images(slices: int = SLICES, scale: float = 1.0) -> np.ndarray:
    return (scale * np.random.default_rng(0).uniform(0, 1, (slices, H, W))).astype(np.float32)


def geometry(axes: np.ndarray = TURN, slices: int = SLICES, gap: float = 4.0, volumes=None) -> Geometry:
    """Slices along their normal, the first in the middle of nowhere."""
    positions = np.array([10.0, -20, 30]) + gap * np.arange(slices)[:, None] * axes[2]
    return Geometry((1.5, 2.0, 3.0), positions, np.repeat(axes[None], slices, 0), volumes)


def loaded(data: bytes):
    return nibabel.Nifti1Image.from_bytes(gzip.decompress(data))


def where(known: Geometry, index: int, row: int, column: int) -> np.ndarray:
    """The centre of a pixel in mm, LPS, from the definition."""
    rows, columns, _ = known.axes[index]
    return known.positions[index] + (row - H // 2) * 1.5 * rows + (column - W // 2) * 2.0 * columns


# --- NIfTI -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (2, 0, 3, 1)])
def test_a_stack_is_one_volume_in_nifti_s_coordinates(order):
    """RAS: left and back count negative. Slices stand in the order of the normal, whatever the file's order."""
    known, values = geometry(), images()
    order = list(order)
    shuffled = Geometry(known.spacing, known.positions[order], known.axes[order])
    (data,) = nifti_bytes(values[order], shuffled, "mean")
    image = loaded(data)
    assert image.shape == (H, W, SLICES) and image.get_data_dtype() == np.float32
    np.testing.assert_array_equal(image.get_fdata(dtype=np.float32), values.transpose(1, 2, 0))
    for row, column, index in ((0, 0, 0), (5, 4, 3), (2, 1, 2)):
        found = image.affine @ [row, column, index, 1]
        np.testing.assert_allclose(found[:3], where(known, index, row, column) * [-1, -1, 1], atol=1e-4)
    assert image.header.get_zooms() == pytest.approx((1.5, 2.0, 4.0))
    assert int(image.header["sform_code"]) == int(image.header["qform_code"]) == 1
    np.testing.assert_allclose(image.get_qform(), image.affine, atol=1e-4)


def test_an_axial_slice_reads_as_radiologists_name_it():
    """Rows to the patient's back, columns to the left, slices to the head: posterior, left, superior."""
    axes = np.array([[0.0, 1, 0], [1, 0, 0], [0, 0, 1]])
    image = loaded(nifti_bytes(images(), geometry(axes), "mean")[0])
    assert nibabel.aff2axcodes(image.affine) == ("P", "L", "S")


def test_repeated_volumes_are_a_fourth_axis():
    known = geometry()
    twice = Geometry(
        known.spacing,
        np.tile(known.positions, (2, 1)),
        np.tile(known.axes, (2, 1, 1)),
        np.repeat([0, 1], SLICES),
    )
    values = images(2 * SLICES)
    (data,) = nifti_bytes(values, twice, "mean")
    found = loaded(data).get_fdata(dtype=np.float32)
    np.testing.assert_array_equal(found, values.reshape(2, SLICES, H, W).transpose(2, 3, 1, 0))


def test_slices_that_are_no_grid_are_files_of_their_own():
    """A localizer: three planes across one another."""
    axes = np.array([np.roll(np.eye(3), n, 0) for n in range(3)])
    made = nifti_bytes(images(3), Geometry((1, 1, 5), np.zeros((3, 3)), axes), "mean")
    assert [loaded(data).shape for data in made] == [(H, W, 1)] * 3


@pytest.mark.parametrize("known", [None, Geometry((1.5, 2.0, 3.0))])
def test_without_a_place_only_pixel_sizes_are_said(known):
    image = loaded(nifti_bytes(images(), known, "mean")[0])
    assert int(image.header["sform_code"]) == int(image.header["qform_code"]) == 0
    assert image.header.get_zooms() == ((1.5, 2, 3) if known else (1, 1, 1))
    assert image.shape == (H, W, SLICES)


# --- DICOM -----------------------------------------------------------------------------------------------


@pytest.fixture
def template(tmp_path) -> Path:
    """An image of the scanner's, with a patient, a study, and something private."""
    made = pydicom.Dataset()
    made.PatientName, made.PatientID, made.PatientBirthDate, made.PatientSex = (
        "Doe^Jane",
        "17",
        "19700101",
        "F",
    )
    made.StudyInstanceUID, made.StudyID, made.StudyDate = "1.2.3.4", "S1", "20200102"
    made.SeriesInstanceUID, made.SeriesNumber, made.SOPInstanceUID = "1.2.3.4.5", 7, "1.2.3.4.5.6"
    made.SOPClassUID, made.Modality, made.FrameOfReferenceUID = "1.2.840.10008.5.1.4.1.1.4", "MR", "1.2.3.9"
    made.EchoTime, made.RepetitionTime, made.MRAcquisitionType = "90", "4000", "2D"
    made.WindowCenter, made.SliceThickness = "123", "9"
    made.add_new((0x0029, 0x1010), "OB", b"private")
    made.file_meta = pydicom.dataset.FileMetaDataset()
    made.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    pydicom.dcmwrite(tmp_path / "template.dcm", made, enforce_file_format=True)
    return tmp_path / "template.dcm"


def opened(made: list[bytes]) -> list:
    return [pydicom.dcmread(streams.BytesIO(data)) for data in made]


@pytest.mark.parametrize("scale", [3e-4, 1.0, 5e3])
def test_dicom_keeps_values_and_places(template, scale):
    """LPS, as DICOM: the formula of PS3.3 C.7.6.2.1.1 with row and column swapped nowhere."""
    known, values = geometry(), images(scale=scale)
    found = opened(dicom_bytes(values, known, read_template(template), "mean", "abc", "how"))
    for index, one in enumerate(found):
        kept = one.pixel_array * float(one.RescaleSlope) + float(one.RescaleIntercept)
        np.testing.assert_allclose(kept, values[index], atol=0.51 * values.max() / 65535)
        across, down = np.split(np.array(one.ImageOrientationPatient, float), 2)
        between_rows, between_columns = map(float, one.PixelSpacing)
        for row, column in ((0, 0), (5, 4), (3, 1)):
            place = (
                np.array(one.ImagePositionPatient, float)
                + column * between_columns * across
                + row * between_rows * down
            )
            np.testing.assert_allclose(place, where(known, index, row, column), atol=1e-4)
        assert float(one.SliceThickness) == 3 and one.InPlanePhaseEncodingDirection == "ROW"
        low = float(one.WindowCenter) - float(one.WindowWidth) / 2
        assert low == pytest.approx(0, abs=1e-6 * scale) and one.VOILUTFunction == "LINEAR_EXACT"
        assert float(one.WindowWidth) <= values.max() * (1 + 1e-6)
    assert len({one.RescaleSlope for one in found}) == 1


def test_patient_and_study_are_the_template_s_and_the_rest_is_new(template):
    parent = pydicom.dcmread(template)
    mean, std = (
        opened(dicom_bytes(images(), geometry(), read_template(template), name, "abc", "how"))
        for name in ("mean", "std")
    )
    for one in (*mean, *std):
        for name in (
            "PatientName",
            "PatientID",
            "PatientBirthDate",
            "StudyInstanceUID",
            "StudyID",
            "FrameOfReferenceUID",
        ):
            assert one[name].value == parent[name].value
        assert one.EchoTime == 90 and one.ImageType[:2] == ["DERIVED", "SECONDARY"]
        assert one.SOPClassUID == parent.SOPClassUID and (0x0029, 0x1010) not in one
        assert one.SeriesInstanceUID != parent.SeriesInstanceUID and one.DerivationDescription == "how"
    everyone = [one.SOPInstanceUID for one in (*mean, *std)]
    assert len(set(everyone)) == 2 * SLICES and parent.SOPInstanceUID not in everyone
    assert {one.SeriesInstanceUID for one in mean}.isdisjoint(one.SeriesInstanceUID for one in std)
    assert [one.InstanceNumber for one in mean] == [1, 2, 3, 4] and mean[0].SeriesNumber == 701
    again = dicom_bytes(images(), geometry(), read_template(template), "mean", "abc", "how")
    assert again == dicom_bytes(images(), geometry(), read_template(template), "mean", "abc", "how")
    other = opened(dicom_bytes(images(), geometry(), read_template(template), "mean", "another", "how"))
    assert other[0].SOPInstanceUID not in everyone


def test_images_of_no_known_place_are_secondary_captures(template):
    for known in (None, Geometry((1.5, 2.0, 3.0))):
        one = opened(dicom_bytes(images(), known, read_template(template), "std", "abc", "how"))[0]
        assert one.SOPClassUID == "1.2.840.10008.5.1.4.1.1.7" and "ImagePositionPatient" not in one
        assert ("PixelSpacing" in one) is (known is not None) and "FrameOfReferenceUID" not in one


# --- the command -----------------------------------------------------------------------------------------


def raw(path: Path) -> Path:
    """Two sagittal slices, played in the order 1, 0."""
    kspace = scan(2, X=32, Y=32)
    axes = {"read_dir": (0, 0, -1), "phase_dir": (0, 1, 0), "slice_dir": (1, 0, 0)}
    xml = header((64, 32, 1), (32, 32, 1), pixel=2.0)
    rng = np.random.default_rng(0)
    lines = [
        readout(
            one.data + 0.003 * rng.standard_normal(one.data.shape),
            idx={"slice": s, "kspace_encode_step_1": n},
            position=(5.0 * s, 7, 9),
            **axes,
        )
        for s in (1, 0)
        for n, one in enumerate(lines_of(kspace[s]))
    ]
    return write(path, xml, lines)


def words(path: Path, tiny: str, *more: str) -> list[str]:
    few = ["--prior", tiny, "--steps", "2", "--samples", "2", "--accel", "2", "--center", ".4"]
    return ["reconstruct", str(path), *few, "--out", str(path.parent / "out"), *more]


def test_the_command_writes_both_formats_with_the_geometry_of_the_scan(tmp_path, tiny, template, capsys):
    path, out = raw(tmp_path / "x.h5"), tmp_path / "out"
    more = ["--format", "nifti", "--format", "dicom", "--dicom-template", str(template)]
    assert main(words(path, tiny, *more)) == 0
    result = read_result(out / "x.h5")
    for name, values in (("mean", result.reconstruction), ("std", result.std)):
        image = nibabel.load(out / f"x_{name}.nii.gz")
        np.testing.assert_array_equal(image.get_fdata(dtype=np.float32), values.transpose(1, 2, 0))
        corner = np.array([0, 7 - 16 * 2.0, 9 + 16 * 2.0])
        np.testing.assert_allclose(image.affine @ [0, 0, 0, 1], [*corner * [-1, -1, 1], 1], atol=1e-4)
        assert nibabel.aff2axcodes(image.affine) == ("I", "P", "L")
        for index in (0, 1):
            one = pydicom.dcmread(out / f"x_{name}_{index:03d}.dcm")
            kept = one.pixel_array * float(one.RescaleSlope)
            np.testing.assert_allclose(kept, values[index], atol=0.51 * values.max() / 65535)
            np.testing.assert_allclose(
                np.array(one.ImagePositionPatient, float), corner + np.array([5 * index, 0, 0]), atol=1e-4
            )
    assert "x_mean.nii.gz" in "".join(capsys.readouterr())


def test_formats_can_be_had_later_and_replace_nothing(tmp_path, tiny, capsys):
    path, out = raw(tmp_path / "x.h5"), tmp_path / "out"
    assert main(words(path, tiny)) == 0
    assert main(words(path, tiny, "--format", "nifti")) == 0  # of the result that is there
    kept = (out / "x_mean.nii.gz").read_bytes()
    (out / "x_std.nii.gz").write_bytes(b"mine")
    assert main(words(path, tiny, "--format", "nifti")) == 0
    assert (out / "x_std.nii.gz").read_bytes() == b"mine" and (out / "x_mean.nii.gz").read_bytes() == kept
    capsys.readouterr()
    (out / "x.h5").unlink()
    assert main(words(path, tiny, "--format", "nifti")) == 2
    assert "exists already" in capsys.readouterr().err and not (out / "x.h5").exists()
    assert main(words(path, tiny, "--format", "nifti", "--overwrite")) == 0
    assert (out / "x_mean.nii.gz").read_bytes() == kept


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--format", "dicom"], "DICOM needs a template"),
        (["--dicom-template", "t.dcm"], "no DICOM is written"),
        (["--format", "dicom", "--dicom-template", "nowhere.dcm"], "There is no file of this name"),
        (["--format", "dicom", "--dicom-template", "text.dcm"], "It is not DICOM"),
        (
            ["--format", "dicom", "--dicom-template", "empty.dcm"],
            "It has no StudyInstanceUID and no PatientID",
        ),
        (["--format", "png"], 'no format named "png"'),
    ],
)
def test_what_is_missing_is_refused_before_any_work(tmp_path, tiny, monkeypatch, capsys, more, said):
    monkeypatch.chdir(tmp_path)
    Path("text.dcm").write_text("no DICOM\n" * 100)
    empty = pydicom.Dataset()
    empty.SOPClassUID, empty.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.4", "1.2.3"
    empty.file_meta = pydicom.dataset.FileMetaDataset()
    empty.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    pydicom.dcmwrite("empty.dcm", empty, enforce_file_format=True)
    path = make_fastmri_file(tmp_path / "x.h5", slices=1, with_target=False)
    assert main(words(path, tiny, *more)) == 2
    error = capsys.readouterr().err
    assert said in error and len(error.strip().splitlines()) == 3
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "more"),
    [("nibabel", ["--format", "nifti"]), ("pydicom", ["--format", "dicom", "--dicom-template", "t"])],
)
def test_without_the_packages_the_error_says_how_to_install_them(
    tmp_path, tiny, monkeypatch, capsys, name, more
):
    path = make_fastmri_file(tmp_path / "x.h5", slices=1)
    monkeypatch.setitem(sys.modules, name, None)
    assert main(words(path, tiny, *more)) == 2
    assert "pip install 'recon-posterior[formats]'" in capsys.readouterr().err
