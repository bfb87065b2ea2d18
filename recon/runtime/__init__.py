"""Where and how a prior runs, and how the process keeps its memory."""

from .runtime import Runtime

__all__ = ["Runtime"]
