"""What the demo claims: it learns in minutes, and what the skip connections of the U-Net are for shows."""

import json

import pytest
from conftest import run


def score(place, name, *more):
    ended = run("train", "experiment=demo", f"name={name}", "device=cpu", *more, cwd=place, limit_s=1800)
    assert ended.returncode == 0, ended.stderr
    lines = [
        json.loads(line) for line in (place / "outputs" / name / "metrics.jsonl").read_text().splitlines()
    ]
    return [line["val/miou"] for line in lines if "val/miou" in line][-1]


@pytest.mark.slow
def test_the_demo_learns_and_needs_its_skip_connections(tmp_path):
    assert score(tmp_path, "with") >= 0.85
    assert score(tmp_path, "without", "model.skips=false") <= 0.70
