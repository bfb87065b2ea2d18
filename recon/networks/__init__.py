"""Networks that priors are made of, and their weights on disk."""
