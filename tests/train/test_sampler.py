"""The section `sampler` in a training: an exact resume with each sampler."""

import signal

import pytest
import torch

from segtrain import build, checkpoint
from segtrain.commands import train as train_command
from segtrain.errors import ConfigError, Interrupted
from segtrain.run.stop import Stop
from segtrain.train import loop
from segtrain.train.step import train_step

SMALL = {
    "task": {"name": "semantic"},
    "data": {"name": "shapes", "size": 48, "num_train": 12, "num_val": 4, "objects": 2},
    "model": {"name": "unet", "widths": [4, 8]},
    "loss": {"name": "cross_entropy"},
    "optimizer": {"name": "adamw"},
    "schedule": {"name": "constant"},
    "augmentation": {"warp": {"size": 32, "max_class_share": 0.75}},
    "loader": {"batch_size": 3, "workers": 0},
    "evaluate": {"workers": 0, "pictures": 0},
    "trainer": {"steps": 5, "log_every": 5, "evaluate_every": None, "save_every": 2},
    "device": "cpu",
}


def run(folder, sampler, stop=None, workers=0):
    folder.mkdir(exist_ok=True)
    config = {**SMALL, "sampler": sampler, "loader": {"batch_size": 3, "workers": workers}}
    return train_command.train(build.check("train", config), folder, stop or Stop())


ALL = {"folds": 3, "fold": 2, "fraction": 0.8, "class_share": 0.4, "repeat_threshold": 0.9}


def test_a_resumed_run_is_bit_identical_with_any_number_of_workers(tmp_path, monkeypatch):
    run(tmp_path / "straight", ALL)
    stop, steps = Stop(), []

    def counted(*arguments):
        steps.append(1)
        if len(steps) == 3:
            stop.requested = signal.SIGTERM
        return train_step(*arguments)

    original = loop.train
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(loop, "train", lambda *args, **kw: original(*args, **kw, step=counted))
        run(tmp_path / "cut", ALL, stop, workers=1)
    run(tmp_path / "cut", ALL)
    found = [checkpoint.load_weights(tmp_path / name / "checkpoints" / "5") for name in ("straight", "cut")]
    assert all(torch.equal(tensor, found[1][name]) for name, tensor in found[0].items())


def test_folds_that_the_data_set_does_not_have(tmp_path):
    with pytest.raises(ConfigError, match=r"sampler.folds is 17"):
        run(tmp_path / "c", {"folds": 17})
