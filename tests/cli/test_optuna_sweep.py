"""Sweeps whose trials Optuna proposes: what is proposed, what outlives an interruption, what is ended early."""

from __future__ import annotations

import csv
import json
import shlex
import sqlite3
from pathlib import Path

import pytest

from segtrain.errors import DivergedError, Interrupted
from segtrain.settings import Sweep
from segtrain.sweep.search import Interval, Proposals, distributions
from segtrain.sweep.trial import Point, Score, Trial

optuna = pytest.importorskip("optuna")

LR = "optimizer.lr=tag(log,interval(1e-4,1e-1))"
SWEEP = ["train", "trainer.steps=2", "sweep=optuna", "name=s"]


def rows(folder="outputs/s") -> list[dict]:
    with open(Path(folder) / "sweep.csv", newline="") as file:
        return list(csv.DictReader(file))


def proposed(training) -> list[tuple]:
    return [(config["optimizer"]["lr"], config["loss"]["name"]) for config in training.configs]


def study():
    return optuna.load_study(study_name="segtrain", storage="sqlite:///outputs/s/study.db")


def test_trials_are_proposed_ranked_and_kept_in_a_study(segtrain, training):
    result = segtrain(*SWEEP, "sweep.trials=5", LR, "loss=cross_entropy,dice")
    assert result.code == 0, result.err
    rates = [rate for rate, _ in proposed(training)]
    assert len(set(rates)) == 5 and all(1e-4 <= rate <= 1e-1 for rate in rates)
    assert min(rates) < 1e-2 < max(rates)  # drawn on a logarithmic scale
    assert [float(row["val/miou"]) for row in rows()] == sorted((rate / 2 for rate in rates), reverse=True)
    assert [trial.value for trial in study().trials] == [rate / 2 for rate in rates]
    assert [folder.name for folder in training.folders] == [f"trial{number:03d}" for number in range(1, 6)]


def proposals(folder, num, **settings):
    """The values that a search proposes for the score x², without any training."""
    folder.mkdir()
    space = distributions({"x": Interval(0.0, 1.0, False)})
    settings = Sweep(name="optuna", trials=num, **settings)
    search = Proposals(
        settings, space, folder, Score("val/miou", False), lambda number, swept: Trial(number, swept)
    )
    for trial in iter(search.next, None):
        trial.status, trial.best = "finished", Point(1, float(trial.swept["x"]) ** 2)
        search.tell(trial)
    return [float(trial.swept["x"]) for trial in search.trials]


def test_proposals_follow_the_seed_and_tpe_gets_better_than_random_values(tmp_path):
    tpe = proposals(tmp_path / "tpe", 20, startup=5)
    random = proposals(tmp_path / "random", 20, startup=5, sampler="random")
    assert tpe[:5] == random[:5] and tpe != random
    assert sum(tpe[14:]) / 6 > sum(random[14:]) / 6 + 0.2
    assert proposals(tmp_path / "again", 8, startup=5) == tpe[:8]
    assert not set(proposals(tmp_path / "other", 5, seed=1)) & set(tpe)


def test_integers_ranges_and_choices(segtrain, training):
    words = ["loader.batch_size=int(interval(2,5))", "seed=range(0,9,4)", "schedule=poly,cosine"]
    assert segtrain(*SWEEP, "sweep.trials=8", "sweep.sampler=random", *words).code == 0
    configs = training.configs
    assert {config["loader"]["batch_size"] for config in configs} <= {2, 3, 4, 5}
    assert {config["seed"] for config in configs} == {0, 4, 8}
    assert {config["schedule"]["name"] for config in configs} == {"poly", "cosine"}


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_no_values_are_trained_twice(segtrain, training, sampler):
    """A sweep of fewer values than sweep.trials ends when all of them are trained."""
    words = ["loss=cross_entropy,dice", "seed=range(0,3)", f"sweep.sampler={sampler}", "sweep.startup=2"]
    assert segtrain(*SWEEP, "sweep.trials=4", *words).code == 0
    assert segtrain(*SWEEP, "sweep.trials=20", *words).code == 0
    values = [(config["loss"]["name"], config["seed"]) for config in training.configs]
    assert sorted(values) == [(loss, seed) for loss in ("cross_entropy", "dice") for seed in range(3)]
    assert [row["status"] for row in rows()] == ["finished"] * 6
    assert len(study().trials) == 6


def test_a_killed_sweep_ends_as_an_undisturbed_one(segtrain, training):
    words = ["sweep.trials=6", LR, "loss=cross_entropy,dice"]
    assert segtrain(*SWEEP, "name=straight", *words).code == 0
    straight = proposed(training)
    training.configs.clear()

    def killed(config, folder, stop):
        if len(training.configs) in (3, 5):
            raise Interrupted(15, "stopped by SIGTERM")

    training.act = killed
    assert segtrain(*SWEEP, *words).code == 143
    assert {row["status"] for row in rows()} == {"finished", "stopped"}
    assert segtrain(*SWEEP, *words).code == 143
    assert segtrain(*SWEEP, *words).code == 0
    done = proposed(training)
    # The trial that was stopped is trained on in its folder; every other one is trained once.
    assert [one for place, one in enumerate(done) if place not in (2, 4)] == straight
    assert done[2] == done[3] and done[4] == done[5]
    assert training.folders[2 + 6] == training.folders[3 + 6]
    assert [row["status"] for row in rows()] == ["finished"] * 6
    training.configs.clear()
    assert segtrain(*SWEEP, *words).code == 0 and training.configs == []
    assert segtrain(*SWEEP, *words, "sweep.trials=7").code == 0 and len(training.configs) == 1


def test_a_failed_trial_is_recorded_and_repeated_by_the_next_call(segtrain, training):
    def act(config, folder, stop):
        if len(training.configs) == 2:
            raise DivergedError("loss is not finite")

    training.act = act
    words = ["sweep.trials=4", LR]
    result = segtrain(*SWEEP, *words)
    assert result.code == 1 and "trial 2 failed: loss is not finite" in result.out
    assert [trial.state.name for trial in study().trials] == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert study().trials[1].user_attrs["error"] == "loss is not finite"
    assert [row["status"] for row in rows()].count("failed") == 1

    assert segtrain(*SWEEP, *words).code == 0
    assert len(training.configs) == 5
    assert proposed(training)[4] == proposed(training)[1] and training.folders[4] == training.folders[1]
    assert [row["status"] for row in rows()] == ["finished"] * 4


@pytest.mark.slow
def test_numbers_and_proposals_do_not_depend_on_failures_and_stops(segtrain, training):
    words = ["sweep.trials=4", "sweep.sampler=random", LR]
    assert segtrain(*SWEEP, "name=straight", *words).code == 0
    straight = proposed(training)
    training.configs.clear()

    def act(config, folder, stop):
        if len(training.configs) == 2:
            raise DivergedError("loss is not finite")
        if len(training.configs) == 3:
            raise Interrupted(15, "stopped by SIGTERM")

    training.act = act
    assert segtrain(*SWEEP, *words).code == 143
    training.act = None
    assert segtrain(*SWEEP, *words).code == 0
    assert sorted(set(proposed(training))) == sorted(straight)
    assert sorted({folder.name for folder in training.folders[4:]}) == [f"trial{n:03d}" for n in range(1, 5)]


@pytest.mark.parametrize("asked", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_kill_while_values_are_proposed_is_made_good(segtrain, training, asked):
    words = ["sweep.trials=3", "sweep.sampler=random", LR, "seed=range(0,100)"]
    assert segtrain(*SWEEP, "name=straight", *words).code == 0
    straight = [(config["optimizer"]["lr"], config["seed"]) for config in training.configs]
    assert segtrain(*SWEEP, *words, "sweep.trials=2").code == 0
    unfinished = study().ask()  # as a process leaves it that is killed before the values are there
    for _ in range(asked):
        unfinished.suggest_float("optimizer.lr", 1e-4, 1e-1, log=True)
    training.configs.clear()
    assert segtrain(*SWEEP, *words).code == 0
    [config] = training.configs
    assert training.folders[-1].name == "trial003"
    assert config["seed"] == straight[2][1] or asked
    assert [row["status"] for row in rows()] == ["finished"] * 3


@pytest.mark.slow
def test_values_that_make_no_valid_config_fail_alone(segtrain, training):
    words = ["model=unet,deeplabv3plus", "model.output_stride=8", "seed=0,1,2", "sweep.trials=6"]
    assert segtrain(*SWEEP, *words).code == 1
    assert {config["model"]["name"] for config in training.configs} == {"deeplabv3plus"}
    failed = [row for row in rows() if row["status"] == "failed"]
    assert len(failed) + len(training.configs) == 6
    assert all("model.output_stride is not an option of model 'unet'" in row["error"] for row in failed)


def curves(values):
    """A training that validates each 10 steps with the score that `values` gives for its number."""

    def act(config, folder, stop):
        number = int(folder.name.removeprefix("trial"))
        for place, value in enumerate(values(number), 1):
            with open(folder / "metrics.jsonl", "a") as file:
                file.write(json.dumps({"step": 10 * place, "val/miou": value}) + "\n")
            stop.raise_if_requested()

    return act


def test_a_trial_below_the_median_of_the_others_is_ended_early(segtrain, training):
    training.act = curves(lambda number: [0.1, 0.2, 0.3] if number == 4 else [0.4, 0.5, 0.6])
    result = segtrain(*SWEEP, "sweep.trials=5", "sweep.startup=3", LR)
    assert result.code == 0, result.err
    states = [trial.state.name for trial in study().trials]
    assert states == ["COMPLETE"] * 3 + ["PRUNED"] + ["COMPLETE"]
    [pruned] = [row for row in rows() if row["status"] == "pruned"]
    assert (pruned["val/miou"], pruned["steps"], pruned["rank"]) == ("0.1", "10", "")
    assert study().trials[3].intermediate_values == {10: 0.1}
    assert "trial 4 pruned: val/miou 0.1000 (best so far 0.6000)" in result.out
    training.configs.clear()
    assert segtrain(*SWEEP, "sweep.trials=5", "sweep.startup=3", LR).code == 0
    assert training.configs == []  # a pruned trial is done


def test_nothing_is_ended_early_before_startup_or_without_pruning(segtrain, training):
    training.act = curves(lambda number: [0.1, 0.2] if number == 3 else [0.4, 0.5])
    for name, word in (("a", "sweep.startup=3"), ("b", "sweep.prune=false")):
        assert segtrain(*SWEEP, f"name={name}", "sweep.trials=5", "sweep.sampler=random", word, LR).code == 0
        assert {row["status"] for row in rows(f"outputs/{name}")} == {"finished"}


def test_the_value_of_a_trial_is_that_of_its_best_checkpoint(segtrain, training):
    training.act = curves(lambda number: [0.4, 0.7, 0.5])
    assert segtrain(*SWEEP, "sweep.trials=2", LR).code == 0
    assert [row["val/miou"] for row in rows()] == ["0.7", "0.7"]
    assert [trial.value for trial in study().trials] == [0.7, 0.7]


@pytest.mark.parametrize("word", ["optimizer.lr=interval(0,1)", "sweep.seed=1", "sweep.prune=false"])
def test_a_sweep_that_would_propose_otherwise_is_refused(segtrain, training, word):
    assert segtrain(*SWEEP, "sweep.trials=1", LR).code == 0
    key = word.partition("=")[0].replace("optimizer.lr", "sweep.over")
    segtrain(*SWEEP, "sweep.trials=3", LR, word).refused(key, "was started with")
    segtrain(*SWEEP, "sweep.trials=3", LR, "trainer.steps=3").refused("trainer.steps is 3", "started with 2")
    assert len(training.configs) == 1


def test_a_damaged_study_is_one_line(segtrain, training):
    assert segtrain(*SWEEP, "sweep.trials=2", LR).code == 0
    Path("outputs/s/study.db").write_bytes(b"no data base" * 1000)
    segtrain(*SWEEP, "sweep.trials=3", LR).refused("study.db cannot be read", "move the file away", code=4)


def test_trials_without_their_study_are_not_trained_over(segtrain, training):
    assert segtrain(*SWEEP, "sweep.trials=1", LR).code == 0
    Path("outputs/s/study.db").unlink()
    segtrain(*SWEEP, "sweep.trials=1", LR).refused("outputs/s holds trials", "study.db knows none of them")
    assert len(training.configs) == 1 and Path("outputs/s/trial001").is_dir()


def test_a_study_that_another_program_holds_is_one_line(segtrain, training, monkeypatch):
    assert segtrain(*SWEEP, "sweep.trials=2", LR).code == 0
    monkeypatch.setattr("segtrain.sweep.search.WAIT_S", 0.2)
    other = sqlite3.connect("outputs/s/study.db")
    other.execute("BEGIN EXCLUSIVE")
    segtrain(*SWEEP, "sweep.trials=3", LR).refused(
        "study.db", "locked; close the program that holds it", code=4
    )
    other.rollback()


@pytest.mark.slow
def test_an_experiment_may_be_a_sweep(segtrain, training, tmp_path):
    folder = tmp_path / "conf/experiment"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(
        "# @package _global_\ntrainer:\n  steps: 2\nsweep:\n  name: optuna\n  trials: 2\n"
        "  over:\n    optimizer.lr: tag(log,interval(1e-4,1e-2))\n    loss: dice,jaccard\n"
    )
    words = ["train", "experiment=mine", "--config-dir", "conf"]
    assert segtrain(*words, "name=s").code == 0
    assert len(training.configs) == 2
    assert {config["loss"]["name"] for config in training.configs} <= {"dice", "jaccard"}
    assert all("sweep" not in config and "launcher" not in config for config in training.configs)
    # A key on the command line takes the place of the experiment's values; sweep=null trains once.
    assert segtrain(*words, "name=fixed", "loss=focal_softmax").code == 0
    assert {config["loss"]["name"] for config in training.configs[2:]} == {"focal_softmax"}
    assert segtrain(*words, "name=once", "sweep=null").code == 0
    assert len(training.configs) == 5 and training.folders[-1] == Path("outputs/once")
    # What is printed as the best trial's command is a single run.
    shown = segtrain("sweep", "show", "sweep=outputs/s").out.splitlines()
    command = next(line for line in shown if line.startswith("train "))
    assert segtrain(*shlex.split(command)[2:]).code == 0
    assert len(training.configs) == 6 and training.folders[-1] == Path("outputs/s-best")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ([], ["sweep=optuna has nothing to choose"]),
        (["optimizer.lr=interval(1,0)"], ["optimizer.lr from 1.0 to 0.0"]),
        (["optimizer.lr=tag(log,interval(0,1))"], ["optimizer.lr from 0.0 to 1.0"]),
        (
            ["optimizer.lr=tag(lag,interval(0,1))"],
            ["the tag lag has no meaning", "tag(log,interval(LOW,HIGH))"],
        ),
        (["optimizer.lr=tag(log,range(1,9))"], ["the tag log has no meaning"]),
        (["optimizer.lr=tag(log,choice(1,9))"], ["the tag log has no meaning"]),
        (["optimizer.lr=interval(a,b)"], ["optimizer.lr is 'interval(a,b)'; allowed: a number"]),
        (["optimizer.lrr=interval(0,1)"], ["optimizer.lrr", "did you mean 'lr'"]),
        (["optimizer.lr=interval(0,1)", "loss.x=1"], ["loss.x"]),
        ([LR, "sweep.trials=0"], ["sweep.trials is 0"]),
        ([LR, "sweep.trials=1,2"], ["cannot differ"]),
        ([LR, "sweep.sampler=tpee"], ["did you mean 'tpe'"]),
        ([LR, "launcher=slurm"], ["launcher.name is 'slurm'"]),
        ([LR, "resume=outputs/x"], ["resume=FOLDER"]),
        ([LR, "sweep=optunaa"], ["did you mean 'optuna'"]),
    ],
)
def test_what_is_wrong_in_every_trial_is_refused_before_any(segtrain, training, tmp_path, words, parts):
    segtrain(*SWEEP, *words).refused(*parts)
    assert training.configs == [] and not list(tmp_path.glob("outputs/*"))


def test_missing_packages_are_named_with_the_command_that_installs_them(segtrain, training, monkeypatch):
    import sys

    for package, words in (
        ("optuna", SWEEP),
        ("joblib", ["train", "-m", "launcher=joblib", "name=j"]),
        ("submitit", ["train", "-m", "launcher=submitit", "name=m"]),
    ):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            words = [*words, LR if package == "optuna" else "seed=1,2"]
            segtrain(*words).refused(package, "pip install 'segtrain[")
    assert not list(Path("outputs").glob("*"))


def test_a_launcher_without_a_sweep_is_refused(segtrain, training):
    segtrain("train", "launcher=joblib").refused("launcher=joblib", "add --multirun")


@pytest.mark.parametrize("word", ["sweep.trials=3", "sweep.over={seed: '1,2'}", "launcher.jobs=2"])
def test_an_option_of_a_sweep_without_a_sweep_is_refused(segtrain, training, word):
    segtrain("train", word).refused(word.partition("=")[0], "add --multirun")
    assert training.configs == []
    assert segtrain("train", word, "sweep=null").code == 0  # asks for a single run


def test_a_value_that_is_given_twice_counts_once(segtrain, training):
    assert segtrain(*SWEEP, "sweep.trials=1", "loss=dice,jaccard,dice", LR).code == 0
    assert study().trials[0].distributions["loss"].choices == ("dice", "jaccard")


def test_settings_of_an_earlier_call_are_named_as_they_are_typed(segtrain, training):
    assert segtrain(*SWEEP, "sweep.trials=1", LR).code == 0
    segtrain(*SWEEP, "sweep.prune=false", LR).refused("sweep.prune is false", "started with true")
    segtrain("train", "--multirun", "seed=1,2", "name=s").refused("sweep.name is null")
