"""Inference: images to class probabilities and masks."""

from segtrain.predictor.mask import Mask, load

__all__ = ["Mask", "load"]
