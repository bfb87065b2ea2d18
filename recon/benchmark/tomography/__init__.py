"""``recon bench tomography``: chest slices and a volume measured by simulated X-rays, and real sinograms."""
