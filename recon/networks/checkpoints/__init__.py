"""Checkpoints of other projects as priors: one file a family, `families` the table of them."""
