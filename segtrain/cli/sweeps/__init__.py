"""Sweeps on the command line: `--multirun` and `sweep=NAME`."""
