"""Sinograms: read from several formats, corrected, chosen from, and written.

The layout of our own, in ``.npz`` or HDF5, is what a user stores::

    sinogram     (slices, angles, detectors) or (angles, detectors), of a cone beam (angles, rows, detectors): line
                 integrals, that is minus the logarithm of the transmission
    angles_deg   (angles,)
    geometry     a text of JSON: {"geometry": "fan", "pitch_mm": 0.2, "source_mm": 410.66, "detector_mm": 553.74}

``geometry`` is parallel, fan or cone. ``pitch`` is the distance of detectors; ``source`` that from the source to the rotation
axis, ``detector`` that from the source to the flat detector; ``axis`` the number of the detector, from 0, that the rotation
axis falls on: where it is missing it is found, in a parallel beam over half a turn or more, else it is the middle.
``water`` is the attenuation of water per unit of length, where it is known. All lengths are in one unit. With ``raw``
(angles, rows, detectors), ``flat`` and ``dark`` (frames, rows, detectors) beside it, or in its place, the noise of each ray is
known from its counts; ``std``, of the sinogram's shape, says it itself.

Also read: observations of LoDoPaB-CT, DXchange's raw frames, and TIFF stacks (`from_stack`).
"""

from __future__ import annotations

from .centre import rotation_centre
from .counts import Corrected, corrected, without_stripes
from .noise import estimated_std
from .opening import AUTO, is_tomography, open_sinogram
from .sinogram import Beam, Sinogram

__all__ = [
    "AUTO",
    "Beam",
    "Corrected",
    "Sinogram",
    "corrected",
    "estimated_std",
    "is_tomography",
    "open_sinogram",
    "rotation_centre",
    "without_stripes",
]
