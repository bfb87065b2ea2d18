"""Whether a k-space file, and the mask and maps given with it, are what they are taken for."""
