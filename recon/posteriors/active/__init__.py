"""Active subsampling: what to measure next, chosen by the samples while they are drawn."""

from .active import Active

__all__ = ["Active"]
