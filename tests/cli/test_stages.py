"""Stages of a recipe: what runs, from which weights, where, and what a second call does."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import torch
import yaml
from test_train import config

from segtrain import checkpoint
from segtrain.commands import train as train_command
from segtrain.errors import DataError, DivergedError, Interrupted
from segtrain.model import MODEL
from segtrain.run.stop import Stop
from segtrain.sample import Facts, Normalisation

RECIPE = """# @package _global_
# Two stages.
defaults:
  - override /optimizer: sgd
trainer:
  steps: 4
loader:
  workers: 0
stages:
  - []
  - [optimizer.lr=0.5, trainer.freeze_batch_norm=true]
"""


@pytest.fixture
def recipe(tmp_path, segtrain):
    """recipe(text) writes own/experiment/two.yaml; `words` begin every command."""

    def write(text: str) -> None:
        (tmp_path / "own" / "experiment").mkdir(parents=True, exist_ok=True)
        (tmp_path / "own" / "experiment" / "two.yaml").write_text(text)

    write(RECIPE)
    return write


TWO = ["train", "--config-dir", "own", "experiment=two"]


def test_each_stage_is_a_run_that_starts_from_the_one_before(segtrain, recipe, training):
    result = segtrain(*TWO, "name=x", "seed=3")
    assert result.code == 0, result.err
    assert training.folders == [Path("outputs/x/stage1"), Path("outputs/x/stage2")]
    first, second = training.configs
    assert (first["init"], second["init"]) == (None, "outputs/x/stage1")
    assert (first["optimizer"]["lr"], second["optimizer"]["lr"]) == (0.01, 0.5)
    assert (first["trainer"]["freeze_batch_norm"], second["trainer"]["freeze_batch_norm"]) == (False, True)
    assert first["seed"] == second["seed"] == 3
    assert first["stages"] is second["stages"] is None
    assert (
        "--- stage 2 of 2: optimizer.lr=0.5 trainer.freeze_batch_norm=true -> outputs/x/stage2" in result.out
    )
    assert "outputs/x/stage2: step 2, val/miou 0.2500" in result.out
    for number in (1, 2):
        assert json.loads(Path(f"outputs/x/stage{number}/run.json").read_text())["exit_code"] == 0


def test_what_is_typed_wins_in_every_stage(segtrain, recipe, training):
    assert (
        segtrain(*TWO, "name=x", "optimizer.lr=0.25", "model.widths=[4,8]", "init=elsewhere.safetensors").code
        == 0
    )
    assert [config["optimizer"]["lr"] for config in training.configs] == [0.25, 0.25]
    assert [config["model"]["widths"] for config in training.configs] == [[4, 8]] * 2 or [(4, 8)] * 2
    assert [config["init"] for config in training.configs] == ["elsewhere.safetensors", "outputs/x/stage1"]


def test_typed_length_replaces_that_of_a_stage(segtrain, recipe, training):
    recipe(RECIPE.replace("[]", "[trainer.steps=7]"))
    assert segtrain(*TWO, "name=x").code == 0
    assert [config["trainer"]["steps"] for config in training.configs] == [7, 4]
    assert segtrain(*TWO, "name=y", "trainer.epochs=2").code == 0
    assert [(c["trainer"]["steps"], c["trainer"]["epochs"]) for c in training.configs[2:]] == [(None, 2)] * 2


def test_another_network_in_a_stage_starts_from_its_own_defaults(segtrain, recipe, training):
    recipe(
        RECIPE.replace("loader:", "model:\n  widths: [4, 8]\nloader:").replace(
            "[optimizer.lr", "[model=deeplabv3plus, optimizer.lr"
        )
    )
    assert segtrain(*TWO, "name=x").code == 0
    assert [config["model"]["name"] for config in training.configs] == ["unet", "deeplabv3plus"]
    assert training.configs[1]["model"]["output_stride"] == 16


@pytest.mark.parametrize("word", ["stages=[]", "stages=null"])
def test_without_the_stages(segtrain, recipe, training, word):
    assert segtrain(*TWO, "name=x", word).code == 0
    assert training.folders == [Path("outputs/x")]
    assert yaml.safe_load(Path("outputs/x/config.yaml").read_text())["stages"] is None


def test_stages_may_be_typed(segtrain, training):
    assert segtrain("train", "name=x", 'stages=[["seed=1"],["seed=2"]]').code == 0
    assert [config["seed"] for config in training.configs] == [1, 2]


def test_cfg_job_shows_them_and_checks_each(segtrain, recipe, tmp_path):
    result = segtrain(*TWO, "--cfg", "job")
    assert yaml.safe_load(result.out)["stages"] == [
        [],
        ["optimizer.lr=0.5", "trainer.freeze_batch_norm=true"],
    ]
    recipe(RECIPE.replace("optimizer.lr=0.5", "optimizer.lrr=0.5"))
    segtrain(*TWO, "--cfg", "job").refused("stage 2 of 2: optimizer.lrr", "did you mean 'lr'")
    assert not (tmp_path / "outputs").exists()


def test_config_lists_them(segtrain, recipe):
    result = segtrain("config", *TWO)
    assert any(line.startswith("stages ") and "experiment/two" in line for line in result.out.splitlines())


WRONG = [
    ("optimizer.lrr=1", ["stage 2 of 2: optimizer.lrr", "did you mean 'lr'"]),
    ("optimizer.lr=abc", ["stage 2 of 2: optimizer.lr is 'abc'"]),
    ("model=unett", ["stage 2 of 2: model=unett does not exist", "did you mean 'unet'"]),
    ("modl.x=1", ["stage 2 of 2: modl.x"]),
    ("unet", ["stage 2 of 2: unet is not KEY=VALUE"]),
    ("name=other", ["stage 2 of 2: name=other cannot differ between stages"]),
    ("init=null", ["stage 2 of 2: init=null cannot differ"]),
    ("experiment=demo", ["stage 2 of 2: experiment=demo cannot differ"]),
    ("stages=null", ["stage 2 of 2: stages=null cannot differ"]),
    ("hydra.run.dir=x", ["stage 2 of 2: hydra.run.dir=x cannot differ"]),
]


@pytest.mark.parametrize(("word", "parts"), WRONG, ids=lambda value: str(value)[:20])
def test_a_wrong_stage_is_named_before_anything_runs(segtrain, recipe, training, tmp_path, word, parts):
    recipe(RECIPE.replace("optimizer.lr=0.5", word))
    segtrain(*TWO, "name=x").refused(*parts)
    assert training.configs == []
    assert not list((tmp_path / "outputs").glob("*"))


@pytest.mark.parametrize("value", ["5", "[a]", "[[1]]", "{a: [b]}"])
def test_stages_that_are_none(segtrain, recipe, value):
    recipe(RECIPE.partition("stages:")[0] + f"stages: {value}\n")
    segtrain(*TWO, "name=x").refused("stages is", "a list, each a list, each a text")


def test_a_second_call_skips_what_finished_and_resumes_what_did_not(segtrain, recipe, training):
    def act(config, folder, stop):
        if folder.name == "stage2":
            raise DivergedError("loss is not finite")

    training.act = act
    segtrain(*TWO, "name=x").refused("stage 2 of 2: loss is not finite", code=5)
    segtrain(*TWO, "name=x").refused("outputs/x exists already")
    training.act = None
    training.configs.clear()
    result = segtrain(*TWO, "name=x", "resume=auto", "trainer.log_every=3")
    assert result.code == 0
    assert "--- stage 1 of 2: finished before: outputs/x/stage1" in result.out
    assert [config["init"] for config in training.configs] == ["outputs/x/stage1"]
    assert len(json.loads(Path("outputs/x/stage2/run.json").read_text())["earlier"]) == 1
    training.configs.clear()
    assert "outputs/x/stage2: step 2, val/miou" in segtrain(*TWO, "name=x", "resume=auto").out
    assert training.configs == []


def test_a_second_call_with_another_config_is_refused(segtrain, recipe, training):
    segtrain(*TWO, "name=x")
    segtrain(*TWO, "name=x", "resume=auto", "seed=5").refused(
        "stage 1 of 2: seed is 5, but outputs/x/stage1 was started with 0"
    )
    recipe(RECIPE.replace("0.5", "0.125"))
    segtrain(*TWO, "name=x", "resume=auto").refused(
        "stage 2 of 2: optimizer.lr is 0.125, but outputs/x/stage2"
    )


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_stops_all_and_a_second_call_goes_on(segtrain, recipe, training, number, code):
    def act(config, folder, stop):
        os.kill(os.getpid(), number)
        stop.raise_if_requested("stopped after step 1")

    training.act = act
    segtrain(*TWO, "name=x").refused("stage 1 of 2: stopped", code=code)
    assert training.folders == [Path("outputs/x/stage1")]
    training.act = None
    assert segtrain(*TWO, "name=x", "resume=auto").code == 0
    assert [folder.name for folder in training.folders] == ["stage1", "stage1", "stage2"]


def test_a_signal_between_two_stages(segtrain, recipe, training):
    training.act = lambda config, folder, stop: setattr(stop, "requested", signal.SIGTERM)
    segtrain(*TWO, "name=x").refused("SIGTERM", code=143)
    assert len(training.configs) == 1


def test_name_is_free_again_after_stages_that_could_not_begin(segtrain, recipe, training, tmp_path):
    def act(_, folder, __):
        (folder / "checkpoints" / "2").rmdir()
        raise DataError("d")

    training.act = act
    segtrain(*TWO, "name=x").refused("stage 1 of 2: d", code=3)
    assert not (tmp_path / "outputs" / "x").exists()


def test_our_own_fault_is_named_too(segtrain, recipe, training):
    def act(*_):
        raise KeyError("lost")

    training.act = act
    segtrain(*TWO, "name=x").refused(
        "stage 1 of 2: this is a fault of segtrain", "outputs/x/stage1/debug.log", code=1
    )


def test_a_dry_run_runs_each_and_asks_for_no_weights_twice(segtrain, recipe, training, tmp_path):
    recipe(RECIPE.replace("override /optimizer: sgd", "override /model: deeplabv3plus"))
    assert segtrain(*TWO, "name=x", "dry_run=true").code == 0
    assert training.folders == [None, None]
    assert [config["model"]["weights"] for config in training.configs] == ["imagenet", "none"]
    assert not (tmp_path / "outputs").exists()


def test_stages_of_a_sweep_are_refused(segtrain, recipe, training, tmp_path):
    segtrain(*TWO, "--multirun", "seed=1,2").refused("a sweep takes no stages", "stages=null")
    assert training.configs == []
    assert segtrain(*TWO, "--multirun", "seed=1,2", "name=s", "stages=null").code == 0
    assert [config["seed"] for config in training.configs] == [1, 2]


def test_folders_of_stages_and_single_runs_do_not_mix(segtrain, recipe, training):
    segtrain("train", "name=one")
    segtrain(*TWO, "name=one", "resume=auto").refused("outputs/one is the folder of a single run")
    segtrain(*TWO, "name=x")
    segtrain("train", "name=x", "resume=auto").refused("outputs/x holds the stages of another run")
    segtrain("evaluate", "run=outputs/x").refused(
        "outputs/x holds stages", "outputs/x/stage1, outputs/x/stage2"
    )
    segtrain(*TWO, "resume=outputs/x").refused("outputs/x holds stages", "resume=auto")
    assert segtrain("train", "resume=outputs/x/stage2", "loader.workers=0").code == 0
    assert training.configs[-1]["init"] == "outputs/x/stage1"


def test_folder_by_wish(segtrain, recipe, training, tmp_path):
    words = [*TWO, f"hydra.run.dir={tmp_path}/w/y"]
    assert segtrain(*words).code == 0
    assert training.folders == [tmp_path / "w" / "y" / "stage1", tmp_path / "w" / "y" / "stage2"]
    assert "finished before" in segtrain(*words, "resume=auto").out
    assert len(training.configs) == 2


def test_stop_is_that_of_a_run(segtrain, recipe, training):
    def act(*_):
        raise Interrupted(signal.SIGINT, "stopped")

    training.act = act
    segtrain(*TWO, "name=x").refused("stage 1 of 2: stopped", code=130)


TINY = [
    "data.size=48",
    "data.num_train=8",
    "data.num_val=2",
    "model.widths=[4,8]",
    "augmentation=none",
    "evaluate.workers=0",
]
TINY += [
    "loader.batch_size=4",
    "trainer.steps=2",
    "evaluate.batch_size=2",
    "evaluate.pictures=0",
    "device=cpu",
    "optimizer.lr=0",
]


def test_weights_go_from_stage_to_stage(segtrain, recipe):
    """With a rate of 0 and frozen statistics the second stage ends with what the first one ended with, its
    heads too."""
    result = segtrain(*TWO, *TINY, "name=x")
    assert result.code == 0, result.err
    assert "init: head rows of 5 classes copied by name" in result.out
    ends = [checkpoint.load_weights(checkpoint.find(f"outputs/x/stage{number}", "last")) for number in (1, 2)]
    assert ends[0]["encoder.levels.0.0.1.running_mean"].any()
    for name, tensor in ends[0].items():
        assert torch.equal(tensor, ends[1][name]), name
    assert segtrain(*TWO, *TINY, "dry_run=true").code == 0


def test_weights_of_another_run_are_the_only_ones_and_bring_their_normalisation(tmp_path, monkeypatch):
    short = {"steps": 3, "evaluate_every": None, "save_every": None, "ema": None}
    asked, own = [], Normalisation((0.1, 0.2, 0.3), (0.9, 0.8, 0.7))
    build = MODEL.build

    def remembered(chosen, **runtime):
        asked.append(chosen["weights"])
        return build(chosen, **runtime)

    def normalised(chosen, **runtime):
        net = remembered(chosen, **runtime)
        net.normalisation = own
        return net

    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    monkeypatch.setattr(MODEL, "build", normalised)
    train_command.train(config(trainer=short), tmp_path / "first", Stop())
    monkeypatch.setattr(MODEL, "build", remembered)
    train_command.train(
        {**config(trainer=short), "init": str(tmp_path / "first")}, tmp_path / "second", Stop()
    )
    assert asked == [None, "none"]
    facts = Facts.from_plain(checkpoint.describe(checkpoint.find(tmp_path / "second", "last"))["facts"])
    assert facts.normalisation == own
