"""Names of what lies in a run folder."""

from __future__ import annotations

from pathlib import Path

OUTPUTS = Path("outputs")


CONFIG, RECORD, METRICS, DEBUG_LOG = "config.yaml", "run.json", "metrics.jsonl", "debug.log"
