"""The study's statistics, and that every recipe and view of it is a valid command."""

import argparse
import json
import re
from pathlib import Path

import numpy as np
import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture(scope="module")
def study():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS))
        import study

        yield study


@pytest.mark.parametrize(("seeds", "quantile"), [(2, 12.706), (5, 2.776), (10, 2.262)])
def test_the_interval_is_that_of_student(study, seeds, quantile):
    rng = np.random.default_rng(seeds)
    base = rng.normal(0.4, 0.02, seeds)
    scores = base + rng.normal(0.01, 0.005, seeds)
    found = list(map(float, re.findall(r"[+-]\d\.\d+", study.difference(scores.tolist(), base.tolist()))))
    mean, half = np.mean(scores - base), quantile * np.std(scores - base, ddof=1) / seeds**0.5
    assert found == pytest.approx([mean, mean - half, mean + half], abs=1e-4)


def test_a_difference_within_its_interval_is_said_to_be_none(study):
    assert study.difference([0.5, 0.4], [0.4, 0.5]).endswith("not distinguishable")
    assert "not" not in study.difference([0.5, 0.4, 0.6], [0.4, 0.3001, 0.5])


def test_the_table_pairs_the_seeds(study, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in range(len(study.TRAINED)):
        for seed in (0, 1):
            run = tmp_path / "outputs" / f"study-{number}-{seed}"
            run.mkdir(parents=True)
            scores = {"val/miou": 0.4 + 0.1 * seed + 0.01 * number, "val/iou/pole": 0.1}
            lines = ({"step": 20, "train/loss": 1.0}, {"step": 40, **scores})
            (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
            for views in range(len(study.VIEWS)):
                folder = run / "study" / f"views-{views}"
                folder.mkdir(parents=True)
                (folder / "scores.json").write_text(json.dumps({"miou": 0.5 + 0.1 * seed}))
    asked = argparse.Namespace(
        name="study", seeds=[0, 1], recipes=range(len(study.TRAINED)), views=range(len(study.VIEWS))
    )
    lines = study.table(asked)
    assert len(lines) == 2 + len(study.TRAINED) + len(study.VIEWS)
    assert "| 0.4500 | 0.0707 |" in lines[2] and "+0.0200 [+0.0200, +0.0200]" in lines[4]
    assert "+0.1000 [+0.1000, +0.1000]" in lines[-1]


@pytest.mark.slow
def test_every_recipe_and_view_composes(study, segtrain):
    fixed = ("experiment=camvid_lite0", "data.root=nowhere", "data.split=drive", "--cfg=job")
    for words in study.TRAINED.values():
        assert segtrain("train", *words, *fixed).code == 0
    for words in study.VIEWS.values():
        assert segtrain("train", *words, *fixed).code == 0
