"""The gold standard: random walks whose posterior is known, and how far each sampler is from it."""
