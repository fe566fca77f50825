"""Robustness of the method: how values move with the number of images, the interpolation, the mask and the size."""
