"""`segtrain sweep show`: what is printed, drawn and refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segtrain.commands.sweep_show import sweep_show
from segtrain.sweep.parameters import importance, parameters
from segtrain.sweep.results import Results, read_results
from segtrain.sweep.trial import Point, Score, Trial, curve

MIOU = Score("val/miou", False)


def trial(number, value, status="finished", **swept) -> Trial:
    best = None if value is None else Point(100, value, value - 0.02, value + 0.03)
    found = Trial(number, {key.replace("_", "."): str(one) for key, one in swept.items()})
    found.words = [f"{key}={one}" for key, one in found.swept.items()]
    found.folder, found.status, found.best = Path(f"outputs/s/trial{number:03d}"), status, best
    found.steps, found.seconds, found.error = 100, 12.5, "loss is not finite" if status == "failed" else ""
    return found


def of_rate(num=12) -> list[Trial]:
    """Trials whose score follows the learning rate and not the seed."""
    rng = np.random.default_rng(0)
    rates, seeds = 10 ** rng.uniform(-4, -1, num), rng.integers(0, 5, num)
    return [
        trial(number, 0.9 - abs(np.log10(rate) + 2) / 5, optimizer_lr=f"{rate:.6g}", seed=seed)
        for number, (rate, seed) in enumerate(zip(rates, seeds, strict=True), 1)
    ]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = Path("outputs/s")
    path.mkdir(parents=True)
    return path


def shown(folder, capsys, **options) -> str:
    sweep_show({"sweep": str(folder), "output": None, "num": 20, "json": False, **options})
    return capsys.readouterr().out


def test_the_trials_are_ranked_with_their_intervals_and_the_best_one_s_commands(folder, capsys):
    trials = [
        trial(1, 0.5, model="unet", seed=1),
        trial(2, 0.25, "pruned", model="unet", seed=2),
        trial(3, 0.75, model="fcn", seed=1),
        trial(4, None, "failed", model="fcn", seed=2),
    ]
    Results(MIOU, trials, {"name": "grid"}, ["segtrain"]).write(folder)
    lines = shown(folder, capsys).splitlines()
    assert lines[0].split() == [
        "rank",
        "model",
        "seed",
        "val/miou",
        "95",
        "%",
        "interval",
        "steps",
        "seconds",
        "status",
    ]
    assert lines[1].split() == [
        "1",
        "fcn",
        "1",
        "0.7500",
        "0.7300",
        "to",
        "0.7800",
        "100",
        "12.5",
        "finished",
    ]
    assert [line.split()[-1] for line in lines[1:5]] == ["finished", "finished", "pruned", "failed"]
    text = "\n".join(lines)
    assert "trial 4 failed: loss is not finite" in text
    assert "best        trial 3: val/miou 0.7500 at step 100, in outputs/s/trial003" in text
    assert "segtrain train model=fcn seed=1 name=s-best" in text
    assert "segtrain evaluate run=outputs/s/trial003" in text
    assert "runs=[outputs/s/trial003,outputs/s/trial001]" in text
    assert "importance  none: fewer than 4 trials" in text


def test_where_no_trial_has_an_interval_there_is_no_column_for_it(folder, capsys):
    one = trial(1, 0.5, seed=1)
    one.best = Point(100, 0.5)
    Results(MIOU, [one], {"name": "grid"}, ["segtrain"]).write(folder)
    assert shown(folder, capsys).splitlines()[0].split() == [
        *("rank", "seed", "val/miou", "steps", "seconds", "status")
    ]


def test_a_score_of_which_less_is_better_is_ranked_the_other_way(folder):
    trials = [trial(1, 0.5, seed=1), trial(2, 0.25, seed=2), trial(3, 0.1, "pruned", seed=3)]
    results = Results(Score("val/error", True), trials)
    assert [one.number for one in results.ranked()] == [2, 1, 3]
    results.write(folder)
    assert read_results(folder) == results


def test_importance_is_that_of_the_key_that_the_score_follows():
    pytest.importorskip("optuna")
    pytest.importorskip("sklearn")
    shares, reason = importance(Results(MIOU, of_rate(40)))
    assert reason == "" and list(shares) == ["optimizer.lr", "seed"]
    assert shares["optimizer.lr"] > 0.9 and sum(shares.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("trials", "reason"),
    [
        ([trial(n, 0.5, seed=n) for n in range(1, 7)], "the same score"),
        ([trial(n, n / 10, "pruned", seed=n) for n in range(1, 7)], "fewer than 4"),
    ],
)
def test_without_differences_there_is_no_importance(trials, reason):
    shares, found = importance(Results(MIOU, trials))
    assert shares == {} and reason in found


@pytest.mark.parametrize(
    "trials",
    [
        [trial(one, 0.5 + 1e-16 * one, optimizer_lr=one / 8, seed=one % 3) for one in range(1, 7)],
        [trial(one, one / 8, optimizer_lr=1e-50 * one, seed=1e-50 * (one % 3)) for one in range(1, 7)],
        [trial(one, 1e300 * one, optimizer_lr=one / 8, seed=one % 3) for one in range(1, 7)],
    ],
)
def test_differences_that_a_forest_cannot_tell_are_no_importance(trials, folder, capsys):
    """fANOVA raises for trees without variance, for instance where scores differ in their last digit."""
    Results(MIOU, trials, {"name": "grid"}, ["segtrain"]).write(folder)
    assert "importance  none: fANOVA finds no differences" in shown(folder, capsys)
    assert json.loads(shown(folder, capsys, json=True))["importance"] == {}


def test_axes_of_numbers_and_choices():
    trials = [trial(n, 0.5, optimizer_lr=lr, model=m) for n, lr, m in ((1, 1e-4, "unet"), (2, 0.1, "fcn"))]
    rate, model = parameters(trials)
    assert rate.log and rate.position("0.0001") == 0 and rate.position("0.1") == pytest.approx(1)
    assert rate.position(str(10**-2.5)) == pytest.approx(0.5)
    assert [label for _, label in rate.ticks()] == ["0.0001", "0.00316", "0.1"]
    assert [model.position(one) for one in ("unet", "fcn")] == [0.25, 0.75]
    [steps] = parameters([trial(1, 0.5, steps=10), trial(2, 0.5, steps=20)])
    assert not steps.log and steps.position("15") == 0.5
    [tagged] = parameters(
        [trial(1, 0.5, steps=10), trial(2, 0.5, steps=20)], {"steps": "tag(log,interval(1,9))"}
    )
    assert tagged.log
    [once] = parameters([trial(1, 0.5, steps=10)])
    assert once.ticks() == [(0.5, "10")]


def colours(image: Image.Image) -> set[tuple[int, int, int]]:
    return {colour for count, colour in image.getcolors(1 << 20) if count > 3}


def test_the_picture_shows_finished_and_pruned_trials_and_the_best_so_far(folder, capsys):
    trials = [*of_rate(6), trial(7, 0.1, "pruned", optimizer_lr=0.1, seed=1)]
    Results(MIOU, trials).write(folder)
    assert "picture     outputs/s/sweep.png" in shown(folder, capsys)
    found = colours(Image.open(folder / "sweep.png").convert("RGB"))
    assert {(43, 98, 168), (222, 140, 30), (178, 34, 52)} <= found
    Results(MIOU, of_rate(6)).write(folder)
    shown(folder, capsys, output="other.png")
    assert (222, 140, 30) in colours(Image.open("other.png").convert("RGB"))  # in the legend


@pytest.mark.parametrize(
    "trials", [[], [trial(1, None, "failed", seed=1)], [trial(1, 0.5)], [trial(1, 0.5, a=1)]]
)
def test_few_trials_are_shown_too(folder, capsys, trials):
    Results(MIOU, trials).write(folder)
    assert "picture" in shown(folder, capsys)


def test_more_rows_than_asked_for_are_counted_and_json_holds_all(folder, capsys):
    Results(MIOU, of_rate(6)).write(folder)
    assert "and 4 more" in shown(folder, capsys, num=2)
    assert "more" not in shown(folder, capsys, num=0)
    found = json.loads(shown(folder, capsys, json=True))
    assert [one["best"]["value"] for one in found["trials"]] == sorted(
        (one["best"]["value"] for one in found["trials"]), reverse=True
    )
    assert len(found["trials"]) == 6


def test_what_is_no_sweep_is_refused(segtrain, folder):
    segtrain("sweep", "show", "sweep=nowhere").refused("sweep=nowhere does not exist")
    segtrain("sweep", "show", f"sweep={folder}").refused("holds no sweep.json")
    Path("file").write_text("")
    segtrain("sweep", "show", "sweep=file").refused("sweep=file is not the folder of a sweep")
    for text in ("{}", "[]", "x", '{"trials": [{"number": 1}]}', "[" * 100000):
        (folder / "sweep.json").write_text(text)
        segtrain("sweep", "show", f"sweep={folder}").refused("sweep.json is not the state of a sweep")


@pytest.mark.parametrize(
    "change",
    [
        {"best": {"step": 1, "value": "abc"}},
        {"best": {"step": 1, "value": float("nan")}},
        {"best": {"step": 1, "value": 0.5, "low": [], "high": 1}},
        {"over": [1]},
    ],
)
def test_a_state_of_other_types_is_refused(segtrain, folder, change):
    Results(MIOU, [trial(1, 0.5, seed=1)], {"name": "grid", "over": {"seed": "1"}}, ["segtrain"]).write(
        folder
    )
    state = json.loads((folder / "sweep.json").read_text())
    (state["settings"] if "over" in change else state["trials"][0]).update(change)
    (folder / "sweep.json").write_text(json.dumps(state))
    segtrain("sweep", "show", f"sweep={folder}").refused("sweep.json is not the state of a sweep")


def test_a_half_written_curve_is_read_up_to_its_last_whole_line(tmp_path):
    lines = [
        '{"step": 10, "val/miou": 0.5, "val/miou/low": 0.4, "val/miou/high": 0.6}',
        '{"step": 20, "train/loss": 1}',
    ]
    lines += ['{"step": 20, "val/miou": null}', '{"step": 30, "val/miou": NaN}', '{"step": 40, "val/m']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    assert curve(tmp_path, "val/miou") == [Point(10, 0.5, 0.4, 0.6)]
    assert curve(tmp_path / "gone", "val/miou") == []
