"""Computed tomography: rays of a geometry, one formula for their weights, two ways to apply them."""

from .filtering import filtered_back_projection, view_weights
from .geometry import ScanGeometry
from .operator import CT

__all__ = ["CT", "ScanGeometry", "filtered_back_projection", "view_weights"]
