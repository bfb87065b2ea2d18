"""Scans whose image is known, real or simulated, reconstructed by our default beside the tools in use."""
