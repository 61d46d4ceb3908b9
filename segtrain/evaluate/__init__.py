"""The evaluation: predictor and metrics to scores, and their tables."""
