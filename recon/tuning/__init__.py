"""Searching a sampler's options on a validation split: ``recon tune``."""
