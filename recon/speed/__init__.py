"""What ``recon bench`` measures of speed: times as ratios within one run, and memory."""
