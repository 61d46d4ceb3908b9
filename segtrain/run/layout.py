"""Names of what lies in a run folder."""

from __future__ import annotations

from pathlib import Path

OUTPUTS = Path("outputs")


MANIFEST = "manifest.json"
"""In each folder of a checkpoint, RUN/checkpoints/STEP."""


CONFIG, RECORD, METRICS, DEBUG_LOG = "config.yaml", "run.json", "metrics.jsonl", "debug.log"
