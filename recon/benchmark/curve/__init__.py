"""PSNR against network calls on a real scan, one curve per solver."""
