"""What pictures are degraded by, beyond blur, masks and decimation: camera paths, brushes, lost colours, nonlinear maps."""
