"""Receive coils: compression, noise (level, covariance, whitening), simulated sensitivities."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .errors import OperatorError
from .masks import acceleration  # noqa: F401
