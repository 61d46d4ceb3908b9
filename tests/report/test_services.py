"""Experiment trackers: what they are told, in which run of theirs, and that they cannot harm the training."""

import json
import os
import sys
import types

import numpy as np
import pytest

from segtrain.report import services

CONFIG = {"trainer": {"steps": 4}, "data": {"root": "CAMVID"}, "tracker": "wandb"}


class FakeWandb(types.ModuleType):
    """Records what is logged in each run, as wandb is called."""

    def __init__(self):
        super().__init__("wandb")
        self.inits, self.logged, self.finished, self.fails = [], [], 0, False

    def Settings(self, **options):
        return options

    def Image(self, image):
        return image.shape

    def init(self, **options):
        self.inits.append(options)
        return self

    def define_metric(self, name, step_metric):
        assert (name, step_metric) == ("*", "step")

    def log(self, numbers):
        if self.fails:
            raise ConnectionError("no route to host\nand more")
        self.logged.append(numbers)

    def finish(self):
        self.finished += 1


@pytest.fixture
def wandb(monkeypatch, tmp_path):
    module = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.setenv("HOME", str(tmp_path))  # without a .netrc
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_PROJECT", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    return module


def test_wandb_gets_numbers_and_pictures_offline_without_a_key(wandb, tmp_path):
    sink = services.service("wandb", tmp_path, CONFIG)
    sink.scalars(3, {"train/loss": 0.5})
    sink.picture(3, "val/sheet", np.zeros((4, 6, 3), np.uint8))
    sink.close()
    (options,) = wandb.inits
    assert options["mode"] == "offline" and options["dir"] == tmp_path and options["config"] == CONFIG
    assert wandb.logged == [{"train/loss": 0.5, "step": 3}, {"val/sheet": (4, 6, 3), "step": 3}]
    assert wandb.finished == 1


@pytest.mark.parametrize(
    ("name", "value", "mode"),
    [("WANDB_API_KEY", "secret", "online"), ("WANDB_MODE", "disabled", "disabled")],
)
def test_wandb_goes_where_its_variables_say(wandb, monkeypatch, tmp_path, name, value, mode):
    monkeypatch.setenv(name, value)
    services.service("wandb", tmp_path, CONFIG)
    assert wandb.inits[0]["mode"] == mode
    assert "secret" not in json.dumps(wandb.inits[0]["config"])


def test_a_resumed_run_goes_on_in_the_same_run_of_the_tracker(wandb, tmp_path):
    for _ in range(2):
        services.service("wandb", tmp_path, CONFIG).close()
    first, second = wandb.inits
    assert first["id"] == second["id"] == (tmp_path / "tracker_wandb").read_text()
    (tmp_path / "other").mkdir()
    services.service("wandb", tmp_path / "other", CONFIG)
    assert wandb.inits[2]["id"] != first["id"]


def test_a_service_that_fails_is_told_once_and_left(wandb, tmp_path, capsys):
    sink = services.service("wandb", tmp_path, CONFIG)
    wandb.fails = True
    for step in range(3):
        sink.scalars(step, {"train/loss": 0.5})
    sink.close()
    assert capsys.readouterr().err == (
        "segtrain: tracker=wandb failed (ConnectionError: no route to host); the run goes on without it\n"
    )
    assert not wandb.logged


def test_a_missing_package_is_a_config_error(monkeypatch, tmp_path, segtrain):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    result = segtrain("train", "data=shapes", "tracker=mlflow", "trainer.steps=1", "name=x", "device=cpu")
    result.refused("tracker=mlflow needs mlflow", "pip install 'segtrain[mlflow]'")
    assert not os.path.exists("outputs/x")


def test_without_a_folder_or_a_tracker_there_is_none(wandb):
    assert services.service(None, None, CONFIG) is None
    assert services.service("wandb", None, CONFIG) is None and not wandb.inits


def test_mlflow_gets_parameters_metrics_and_pictures(monkeypatch, tmp_path):
    pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / "run"
    folder.mkdir()
    for step in (3, 5):
        sink = services.service("mlflow", folder, CONFIG)
        sink.scalars(step, {"train/loss": 0.5})
        sink.picture(step, "val/sheet", np.zeros((4, 6, 3), np.uint8))
        sink.close()
    (losses,) = (tmp_path / "mlruns").glob("*/*/metrics/train/loss")
    assert [line.split()[1:] for line in losses.read_text().splitlines()] == [["0.5", "3"], ["0.5", "5"]]
    (steps,) = (tmp_path / "mlruns").glob("*/*/params/trainer.steps")
    assert steps.read_text() == "4"
