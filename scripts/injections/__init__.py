"""Campaigns of faults that are injected into whole runs. Each returns Figures: what was injected, how
often, what came of it."""
