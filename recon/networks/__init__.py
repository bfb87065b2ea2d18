"""Networks that a prior may be made of."""
