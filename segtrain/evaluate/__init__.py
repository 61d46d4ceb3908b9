"""Evaluation: metrics of a predictor on a split, and their tables."""
