"""Segmentation before neural networks, and its parts."""
