"""Everything that a benchmark compares: our samplers, deepinv's, and classical methods."""
