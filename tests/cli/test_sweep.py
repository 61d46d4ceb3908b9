"""Sweeps: what runs, where, how it is ranked, and what a second call does."""

from __future__ import annotations

import csv
import json
import os
import signal
from pathlib import Path

import pytest

from segtrain.errors import DivergedError, Interrupted
from segtrain.sweep.trial import folder_name

SWEEP = ["train", "--multirun", "trainer.steps=2"]


def rows(folder="outputs/s") -> list[dict]:
    with open(Path(folder) / "sweep.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_every_combination_runs_and_is_ranked(segtrain, training):
    result = segtrain(*SWEEP, "name=s", "optimizer.lr=0.1,0.4", "model=unet,deeplabv3plus")
    assert result.code == 0
    assert [(c["optimizer"]["lr"], c["model"]["name"]) for c in training.configs] == [
        (0.1, "unet"), (0.1, "deeplabv3plus"), (0.4, "unet"), (0.4, "deeplabv3plus"),
    ]  # fmt: skip
    table = rows()
    assert list(table[0]) == [
        "rank",
        "optimizer.lr",
        "model",
        "val/miou",
        "low",
        "high",
        "steps",
        "seconds",
        "folder",
        "status",
        "error",
    ]
    assert [row["val/miou"] for row in table] == ["0.2", "0.2", "0.05", "0.05"]
    assert [row["rank"] for row in table] == ["1", "2", "3", "4"]
    for row in table:
        assert row["status"] == "finished"
        assert row["folder"] in result.out
        record = json.loads((Path(row["folder"]) / "run.json").read_text())
        assert record["exit_code"] == 0
    assert "outputs/s/sweep.csv" in result.out
    assert len({folder.name for folder in training.folders}) == 4


def test_folder_without_a_name_and_by_wish(segtrain, training, tmp_path):
    assert segtrain(*SWEEP, "seed=1,2").code == 0
    [table] = Path("outputs").glob("*/*-sweep/sweep.csv")
    assert {path.name for path in table.parent.iterdir() if path.is_dir()} == {"seed-1", "seed-2"}
    assert segtrain(*SWEEP, "seed=1", f"hydra.sweep.dir={tmp_path}/w").code == 0
    assert len(rows(tmp_path / "w")) == 1


@pytest.mark.parametrize(
    ("word", "count"),
    [
        ("seed=range(0,3)", 3),
        ("optimizer.lr=choice(0.1,0.2)", 2),
        ("schedule=glob(c*)", 2),
        ("tta=[flip],[]", 2),
        ("loss.class_weights=[1,2],none", 2),
        ("init=ü a,~/b", 2),
    ],
)
def test_ways_to_write_several_values(segtrain, training, word, count):
    assert segtrain(*SWEEP, "name=s", word).code == 0
    assert len(training.configs) == len(rows()) == count


@pytest.mark.parametrize("more", [[], ["sweep=optuna", "sweep.trials=3"]])
def test_trials_of_different_scores_are_refused(segtrain, training, tmp_path, more):
    words = [*SWEEP, *more, "task=semantic,binary", "loss=dice", "name=s"]
    segtrain(*words).refused(
        "task=binary has the score val/foreground_iou", "val/miou", "each task by itself"
    )
    assert training.configs == [] and not list((tmp_path / "outputs").glob("*"))


def test_a_combination_that_is_given_twice_is_one_run(segtrain, training):
    assert segtrain(*SWEEP, "name=s", "seed=1,2,1", "optimizer.lr=0.1,0.1").code == 0
    assert [(config["seed"], config["optimizer"]["lr"]) for config in training.configs] == [
        (1, 0.1),
        (2, 0.1),
    ]
    assert [row["rank"] for row in rows()] == ["1", "2"]


def test_the_command_that_shows_the_sweep_is_quoted_for_the_shell(segtrain, training):
    assert "segtrain sweep show 'sweep=a b'  # with" in segtrain(*SWEEP, "seed=1", "hydra.sweep.dir=a b").out


def test_option_that_only_one_of_the_networks_has(segtrain, training):
    result = segtrain(*SWEEP, "name=s", "model=unet,deeplabv3plus", "model.output_stride=8")
    assert result.code == 1
    [config] = training.configs
    assert (config["model"]["name"], config["model"]["output_stride"]) == ("deeplabv3plus", 8)
    assert [row["status"] for row in rows()] == ["finished", "failed"]
    assert "model.output_stride is not an option of model 'unet'" in rows()[1]["error"]


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["optimizer.lrr=1,2"], ["optimizer.lrr"]),
        (["seed=1,2", "loss.smothing=1"], ["loss.smothing", "did you mean 'smoothing'"]),
        (["model=unett,unot"], ["model=unett does not exist"]),
        (["modl=unet,deeplabv3plus"], ["modl", "did you mean 'model'"]),
        (["optimizer.lr=interval(0,1)"], ["interval"]),
        (["name=a,b"], ["name=a,b", "cannot differ"]),
        (["seed=1,2", "dry_run=true"], ["dry_run"]),
        (["seed=1,2", "resume=outputs/x"], ["resume=FOLDER"]),
        (["seed=1,2", "hydra.run.dir=x"], ["hydra.sweep.dir"]),
        (["seed=1,2", "hydra.sweep.dir=../x"], ["hydra.sweep.dir"]),
        (["seed=1,2", "hydra.sweeper._target_=x"], ["hydra.sweeper._target_"]),
        (["seed=1,2", "name=a/b"], ["name is 'a/b'"]),
        (["seed=1,2", "sweep.trials=1"], ["sweep.trials=1 is for sweep=optuna"]),
        (["seed=1,2", "sweep=grid", "sweep.seed=1"], ["sweep.seed=1 is for sweep=optuna"]),
        (["seed=1,2", "launcher.jobs=2"], ["launcher.jobs=2 needs launcher=joblib"]),
        (["seed=1,2", "launcher=joblib", "launcher.cpus=2"], ["launcher.cpus=2 is for launcher=submitit"]),
    ],
)
def test_what_is_wrong_in_every_run_is_refused_before_any(segtrain, training, tmp_path, words, parts):
    segtrain(*SWEEP, *words).refused(*parts)
    assert training.configs == []
    assert not list(tmp_path.rglob("sweep.csv"))
    assert not list((tmp_path / "outputs").glob("*"))


def test_failed_run_is_recorded_the_sweep_goes_on_and_a_second_call_does_only_what_is_missing(
    segtrain, training
):
    def act(config, folder, stop):
        if config["seed"] == 2:
            raise DivergedError("loss is not finite")
        if config["seed"] == 3:
            raise KeyError("ours")

    training.act = act
    words = [*SWEEP, "name=s", "seed=1,2,3,4"]
    result = segtrain(*words)
    assert result.code == 1
    assert "Traceback" not in result.err + result.out
    table = {row["seed"]: row for row in rows()}
    assert {seed: row["status"] for seed, row in table.items()} == {
        "1": "finished",
        "2": "failed",
        "3": "failed",
        "4": "finished",
    }
    assert "loss is not finite" in table["2"]["error"]
    assert "debug.log" in table["3"]["error"]
    assert [row["rank"] for row in rows()] == ["1", "2", "", ""]

    training.act = None
    training.configs.clear()
    assert segtrain(*words).code == 0
    assert [config["seed"] for config in training.configs] == [2, 3]
    assert {row["status"] for row in rows()} == {"finished"}

    training.configs.clear()
    assert segtrain(*words[:-1], "seed=1,2,3,4,5").code == 0
    assert [config["seed"] for config in training.configs] == [5]


def test_second_call_with_another_config_is_refused(segtrain, training):
    segtrain(*SWEEP, "name=s", "seed=1,2")
    result = segtrain("train", "-m", "trainer.steps=3", "name=s", "seed=1,2,3")
    result.refused("trainer.steps is 3", "started with 2")
    assert len(training.configs) == 2
    assert len(rows()) == 2
    assert segtrain(*SWEEP, "name=s", "seed=1,2", "loader.workers=0").code == 0


def test_signal_stops_the_sweep_and_a_second_call_goes_on(segtrain, training):
    def act(config, folder, stop):
        if config["seed"] == 2:
            os.kill(os.getpid(), signal.SIGTERM)
            stop.raise_if_requested()

    training.act = act
    result = segtrain(*SWEEP, "name=s", "seed=1,2,3")
    result.refused("SIGTERM", code=143)
    assert {row["seed"]: row["status"] for row in rows()} == {"1": "finished", "2": "stopped", "3": "waiting"}
    training.act = None
    training.configs.clear()
    assert segtrain(*SWEEP, "name=s", "seed=1,2,3").code == 0
    assert [config["seed"] for config in training.configs] == [2, 3]


def test_interrupt_is_130(segtrain, training):
    def act(*_):
        raise Interrupted(signal.SIGINT, "stopped")

    training.act = act
    segtrain(*SWEEP, "name=s", "seed=1,2").refused("stopped", code=130)


def test_sweep_and_run_do_not_share_a_folder(segtrain, training):
    segtrain("train", "name=x", "trainer.steps=2")
    segtrain(*SWEEP, "name=x", "seed=1,2").refused("outputs/x is the folder of a single run")


def test_trial_is_a_run_of_its_own(segtrain, training):
    segtrain(*SWEEP, "name=s", "seed=1,2", "model.widths=[4,8]")
    assert segtrain("train", "resume=outputs/s/seed-2").code == 0
    assert training.configs[-1]["seed"] == 2


def test_folder_names_are_short_safe_and_distinct():
    assert folder_name({"optimizer.lr": "0.01", "model": "unet"}) == "optimizer.lr-0.01_model-unet"
    assert folder_name({}) == "only"
    odd = [
        folder_name({"data.root": value})
        for value in ("../a", "..\\a", "a b", "a/b", "ü", "x" * 300, "x" * 301, "a\nb", "[1,2]", "[1;2]")
    ]
    assert len(set(odd)) == len(odd)
    for name in odd:
        assert len(name) <= 60
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ._+-")
        assert not name.startswith(".")
