"""What ``recon bench`` measures: times as ratios within one run, and memory."""
