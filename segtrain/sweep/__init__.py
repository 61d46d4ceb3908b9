"""Sweeps: several trainings that differ in chosen keys. What a trial is, how trials are chosen and started,
and what is known of them afterwards."""
