"""Learning-rate schedules."""

from segtrain.registry import Table
from segtrain.schedule.curves import constant, cosine, poly, step

SCHEDULE = Table("schedule", {"constant": constant, "cosine": cosine, "poly": poly, "step": step})
