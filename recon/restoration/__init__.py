"""Restoration models as priors: IR-SDE, ResShift, RDDM and Resfusion under any solver and any posterior."""

from .base import Restoration
from .prior import RestorationPrior
from .processes import RDDM, MeanReverting, Resfusion, ResShift

__all__ = ["RDDM", "MeanReverting", "Resfusion", "RestorationPrior", "ResShift", "Restoration"]
