"""Coil sensitivity maps, and where in the image there is an object at all."""
