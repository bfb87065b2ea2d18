"""Images as DICOM: a derived series of a study, patient and study from a template of the user's."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from operators.errors import import_extra

from ..errors import ConfigError
from .stores import Geometry
from .targets import fitting

MR, SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.7"
LOWEST_HU, HU_WINDOW = (
    -1024,
    (40.0, 400.0),
)  # the least value that is stored, and the usual window of soft tissue
TOP = 65535  # the largest stored value
SERIES = {"mean": 1, "std": 2}  # of the series, after a hundred times the template's

COPIED = [
    "SpecificCharacterSet",
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "StudyDescription",
    "AccessionNumber",
    "ReferringPhysicianName",
    "Manufacturer",
    "ManufacturerModelName",
    "InstitutionName",
    "StationName",
    "DeviceSerialNumber",
    "MagneticFieldStrength",
    "BodyPartExamined",
    "PatientPosition",
    "ProtocolName",
    "AcquisitionDate",
    "AcquisitionTime",
]
"""Of the template: patient, study, scanner and examination."""
OF_SEQUENCE = [
    "ScanOptions",
    "RepetitionTime",
    "EchoTime",
    "EchoTrainLength",
    "InversionTime",
    "FlipAngle",
    "ImagingFrequency",
    "ContrastBolusAgent",
]
"""Of the template, for images whose place in the patient is known."""
NEEDED = ("StudyInstanceUID", "PatientID")


def pydicom_library() -> Any:
    """The package ``pydicom``; raises `ConfigError` with the line that installs it where it is missing."""
    return import_extra("pydicom", "formats", "DICOM is written with", ConfigError)


def read_template(path: str | Path) -> Any:
    """The DICOM file at ``path`` without its pixels, a `pydicom.Dataset`.

    Raises `ConfigError` for a file that is missing, is not DICOM, or names no patient or study.
    """
    pydicom = pydicom_library()
    what, do = f"The DICOM template {path} cannot be used.", "Name a DICOM image of the same study."
    try:
        found = pydicom.dcmread(path, stop_before_pixels=True)
        missing = [name for name in NEEDED if name not in found]
        for name in (*COPIED, *OF_SEQUENCE):
            found.get(name)  # is decoded now: what is damaged is found before any work
    except FileNotFoundError as error:
        raise ConfigError(what, "There is no file of this name.", do) from error
    except Exception as error:  # a parser raises what it likes on a damaged file
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise ConfigError(what, f"It is not DICOM: {reason}.", do) from error
    if missing:
        raise ConfigError(what, f"It has no {' and no '.join(missing)}.", do)
    return found


def dicom_paths(target: Path, name: str, slices: int) -> list[Path]:
    """``<stem>_<name>_000.dcm`` and on, a file for each slice, beside the result ``target``."""
    return [fitting(target.parent, target.stem, f"_{name}_{index:03d}.dcm") for index in range(slices)]


def dicom_bytes(
    images: np.ndarray,
    geometry: Geometry | None,
    template: Any,
    name: str,
    source: str,
    about: str,
    hounsfield: bool = False,
) -> list[bytes]:
    """The files of images (slices, h, w) >= 0, one series: values are ``slope * stored``, stored in 16 bits, one slope.

    ``name`` (mean or std) and ``source``, which stands for what the images were made of, give the new UIDs, so that the
    same run writes the same instances. With positions they are MR images with their place in the patient, in the template's
    frame of reference; without, secondary captures. The window is from 0 to the 99.9th percentile. ``about`` says how they
    were made. With ``hounsfield`` images are of CT, in Hounsfield units, each stored to the unit; those of a std in the same
    unit. Source: DICOM PS3.3, C.7, C.8.2 and C.8.3.
    """
    pydicom = pydicom_library()
    from pydicom.uid import generate_uid

    placed = geometry is not None and geometry.positions is not None and not hounsfield
    series = series_dataset(template, name, source, about, placed)
    slope, intercept = step_of(images), 0.0
    top = max(float(np.percentile(images, 99.9)), slope)
    centre, width = top / 2, top
    if hounsfield:
        series.Modality, slope = "CT", 1.0
        intercept = LOWEST_HU if name == "mean" else 0.0
        centre, width = HU_WINDOW if name == "mean" else (top / 2, top)
    made = []
    for index, image in enumerate(images):
        one = pydicom.Dataset()
        one.update(series)
        one.SOPInstanceUID = generate_uid(entropy_srcs=[source, name, str(index)])
        one.InstanceNumber = index + 1
        one.Rows, one.Columns = image.shape
        one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
        one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 16, 15, 0
        one.RescaleIntercept, one.RescaleSlope = decimal(intercept), decimal(slope)
        one.RescaleType = "HU" if hounsfield else "US"
        one.WindowCenter, one.WindowWidth = decimal(centre), decimal(width)
        one.VOILUTFunction = "LINEAR_EXACT"  # a window narrower than 1
        if geometry is not None:
            place(one, geometry, index, image.shape)
        stored = np.clip(np.round((image - intercept) / slope), 0, TOP).astype("<u2")
        one.add_new("PixelData", "OW", stored.tobytes())
        made.append(file_of(one))
    return made


def series_dataset(template: Any, name: str, source: str, about: str, placed: bool) -> Any:
    """What all images of a series share."""
    from pydicom import Dataset
    from pydicom.uid import generate_uid

    made = Dataset()
    for keyword in (*COPIED, *(OF_SEQUENCE if placed else ())):
        if keyword in template:
            made[keyword] = template[keyword]
    for keyword in ("PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID"):
        if keyword not in made:  # required, if only empty
            setattr(made, keyword, None)
    for keyword in ("AccessionNumber", "ReferringPhysicianName", "Manufacturer"):
        if keyword not in made:
            setattr(made, keyword, None)
    made.SOPClassUID, made.Modality = (MR, "MR") if placed else (SECONDARY_CAPTURE, "MR")
    made.SeriesInstanceUID = generate_uid(entropy_srcs=[source, name])
    made.SeriesNumber = 100 * int(template.get("SeriesNumber") or 0) + SERIES[name]
    made.SeriesDescription = f"recon posterior {name}"
    made.ImageType = ["DERIVED", "SECONDARY", "OTHER", name.upper()]
    made.DerivationDescription = about
    made.ImageComments = "Research software, not a medical device."
    if placed:
        made.FrameOfReferenceUID = template.get("FrameOfReferenceUID") or generate_uid(entropy_srcs=[source])
        made.PositionReferenceIndicator = template.get("PositionReferenceIndicator") or None
        made.ScanningSequence = template.get("ScanningSequence") or "RM"
        made.SequenceVariant = template.get("SequenceVariant") or "NONE"
        made.MRAcquisitionType = template.get("MRAcquisitionType") or None
        for keyword in ("ScanOptions", "EchoTime", "EchoTrainLength", "PatientPosition"):
            if keyword not in made:
                setattr(made, keyword, None)
        made.InPlanePhaseEncodingDirection = "ROW"  # the columns count the phase
    else:
        made.ConversionType = "WSD"
    return made


def place(one: Any, geometry: Geometry, index: int, size: tuple[int, int]) -> None:
    """Write where the pixels of slice ``index`` lie, as far as it is known."""
    one.PixelSpacing = [decimal(step) for step in geometry.spacing[:2]]
    if geometry.positions is None or geometry.axes is None:
        return
    rows, columns, normal = geometry.axes[index]
    one.ImagePositionPatient = [decimal(x) for x in geometry.corner(index, size)]
    one.ImageOrientationPatient = [decimal(x) for x in (*columns, *rows)]  # of a row, then of a column
    one.SliceThickness = decimal(geometry.spacing[2])
    one.SliceLocation = decimal(float(geometry.positions[index] @ normal))
    one.AcquisitionNumber = 1 + int(0 if geometry.volumes is None else geometry.volumes[index])


def step_of(images: np.ndarray) -> float:
    """The value of one stored step: the largest value over `TOP`, as many digits as DICOM keeps."""
    largest = float(images.max())
    return float(decimal(largest / TOP)) or 1.0


def decimal(value: float) -> str:
    """A number as DICOM's decimal string, of at most 16 characters."""
    from pydicom.valuerep import format_number_as_ds

    return format_number_as_ds(float(value))


def file_of(dataset: Any) -> bytes:
    """A data set as a DICOM file."""
    from pydicom import dcmwrite
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    written = io.BytesIO()
    dcmwrite(written, dataset, enforce_file_format=True, implicit_vr=False, little_endian=True)
    return written.getvalue()
