"""The commands: plain functions of a checked config."""
