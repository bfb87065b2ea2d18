"""Small ISMRMRD files for the tests, written by the package itself: readouts of given k-space, and what scanners add."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from make_kspace import coil_maps, fft2c, objects

HEADER = """<?xml version="1.0" encoding="utf-8"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">
  <experimentalConditions><H1resonanceFrequency_Hz>123200000</H1resonanceFrequency_Hz></experimentalConditions>
  <encoding>
    <encodedSpace>
      <matrixSize><x>{encoded[0]}</x><y>{encoded[1]}</y><z>{encoded[2]}</z></matrixSize>
      <fieldOfView_mm><x>{fov[0]}</x><y>{fov[1]}</y><z>{fov[2]}</z></fieldOfView_mm>
    </encodedSpace>
    <reconSpace>
      <matrixSize><x>{recon[0]}</x><y>{recon[1]}</y><z>{recon[2]}</z></matrixSize>
      <fieldOfView_mm><x>{seen[0]}</x><y>{seen[1]}</y><z>{seen[2]}</z></fieldOfView_mm>
    </reconSpace>
    <trajectory>{trajectory}</trajectory>
    <encodingLimits>
      <kspace_encoding_step_1><minimum>0</minimum><maximum>{last}</maximum><center>{center}</center></kspace_encoding_step_1>
      <kspace_encoding_step_2><minimum>0</minimum><maximum>{deep}</maximum><center>{middle}</center></kspace_encoding_step_2>
    </encodingLimits>
    {parallel}
  </encoding>
</ismrmrdHeader>
"""
PARALLEL = "<parallelImaging><calibrationMode>{}</calibrationMode></parallelImaging>"


def header(
    encoded: tuple[int, int, int],
    recon: tuple[int, int, int],
    *,
    pixel: float = 1.0,
    seen: tuple[float, float, float] | None = None,
    center: int | None = None,
    last: int | None = None,
    trajectory: str = "cartesian",
    calibration: str = "",
) -> str:
    """The XML for an encoded matrix of square pixels of ``pixel`` mm, and the field of view ``seen`` of the image."""
    fov = tuple(n * pixel for n in encoded)
    seen = seen or tuple(n * pixel for n in recon)
    return HEADER.format(
        encoded=encoded,
        recon=recon,
        fov=fov,
        seen=seen,
        trajectory=trajectory,
        last=encoded[1] - 1 if last is None else last,
        deep=encoded[2] - 1,
        center=encoded[1] // 2 if center is None else center,
        middle=encoded[2] // 2,
        parallel=PARALLEL.format(calibration) if calibration else "",
    )


def readout(data: np.ndarray, *, flags: Iterable[str] = (), idx: dict[str, int] | None = None, **head):
    """An `ismrmrd.Acquisition` of ``data`` (coils, samples), centred unless ``center_sample`` says otherwise."""
    import ismrmrd

    head = {"center_sample": data.shape[1] // 2, **head}
    made = ismrmrd.Acquisition.from_array(
        np.ascontiguousarray(data, np.complex64), **{"trajectory": head.pop("traj", None)}
    )
    for name, value in head.items():
        field = getattr(made, name)
        if hasattr(field, "__len__"):
            field[:] = value
        else:
            setattr(made, name, value)
    for name, value in (idx or {}).items():
        setattr(made.idx, name, value)
    for flag in flags:
        made.set_flag(getattr(ismrmrd, flag))
    return made


def write(path: Path, xml: str, readouts: Iterable, group: str = "dataset") -> Path:
    """The file at ``path`` with this header and these readouts."""
    import ismrmrd

    with ismrmrd.Dataset(str(path), group) as file:
        file.write_xml_header(xml.encode())
    with ismrmrd.File(str(path)) as file:
        file[group].acquisitions = list(readouts)
    return path


def lines_of(kspace: np.ndarray, lines: Iterable[int] | None = None, **more):
    """The readouts of k-space (coils, X, Y), or of some of its lines; ``more`` as in `readout`."""
    idx = more.pop("idx", {})
    for line in range(kspace.shape[-1]) if lines is None else lines:
        yield readout(kspace[..., line], idx={"kspace_encode_step_1": line, **idx}, **more)


def scan(slices: int = 1, coils: int = 3, X: int = 32, Y: int = 24, over: int = 2) -> np.ndarray:
    """k-space (slices, coils, over * X, Y): the object fills the middle X rows of the image."""
    return fft2c(objects(slices, over * X, Y, X)[:, None] * coil_maps(coils, over * X, Y)).astype(
        np.complex64
    )
