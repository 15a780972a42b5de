"""Keras's ops on tfn, in the layout of upstream's backend plug-ins."""

from . import core, image, linalg, math, nn, numpy

__all__ = ["core", "image", "linalg", "math", "nn", "numpy"]
