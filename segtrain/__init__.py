"""Train, evaluate and run networks that label every pixel."""

__version__ = "0.1.0"
