"""PSNR against network calls, a curve a solver, on real k-space."""
