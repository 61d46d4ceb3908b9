"""A run of trainer.minutes: the length that a profile finds, which changes nothing else."""

import pytest
import torch

from segtrain import build, checkpoint
from segtrain.commands import profiling
from segtrain.commands import train as train_command
from segtrain.commands.profiling import Profile, steps_within
from segtrain.errors import ConfigError
from segtrain.run.saved import saved_config
from segtrain.run.stop import Stop

CONFIG = {
    "task": {"name": "semantic"},
    "data": {"name": "shapes", "size": 48, "num_train": 6, "num_val": 2},
    "model": {"name": "unet", "widths": [4, 8]},
    "loss": {"name": "cross_entropy", "class_weights": "median"},
    "optimizer": {"name": "adamw"},
    "schedule": {"name": "poly", "warmup": 2},
    "augmentation": {"colour": {}},
    "loader": {"batch_size": 2, "workers": 0},
    "evaluate": {"workers": 0, "pictures": 0},
    "device": "cpu",
}


def train(folder, **trainer):
    if folder is not None:
        folder.mkdir(exist_ok=True)
    return train_command.train(build.check("train", {**CONFIG, "trainer": trainer}), folder, Stop())


@pytest.mark.parametrize(
    ("seconds", "evaluate_every", "steps"),
    [
        (110, None, 100),  # 100 steps of a second, 10 of an evaluation
        (110, 25, 75),  # 3 · 25 + 3 · 10 = 105; another step would need an evaluation of its own
        (116, 25, 76),  # 76 + 4 · 10
        (140, 25, 100),  # 4 · 35
        (5, None, 1),
        (5, 25, 1),
    ],
)
def test_the_steps_of_a_time_by_hand(seconds, evaluate_every, steps):
    tried = Profile(step_s=1.0, image_s=0.25, evaluation_s=5.0, memory=1)
    assert steps_within(seconds, tried, 20, evaluate_every) == steps


def test_the_time_is_kept():
    tried = Profile(step_s=0.37, image_s=0.2, evaluation_s=1.1, memory=1)
    for seconds in range(20, 400, 7):
        for every in (None, 1, 10, 33):
            steps = steps_within(seconds, tried, 13, every)
            evaluations = 1 if every is None else -(-steps // every)
            assert steps == 1 or steps * 0.37 + evaluations * tried.of_evaluation(13) <= seconds


def test_the_trial_settles_the_steps_and_changes_nothing_else(tmp_path, monkeypatch):
    """The run is that of the same number of steps, to the bit."""
    monkeypatch.setattr(profiling, "STEPS", 3)
    monkeypatch.setattr(profiling, "steps_within", lambda *arguments: 5)
    train(tmp_path / "timed", minutes=1)
    settled = saved_config(tmp_path / "timed")["trainer"]
    assert (settled["steps"], settled["minutes"]) == (5, 1)
    monkeypatch.setattr(profiling, "steps_within", None)
    train(tmp_path / "timed", minutes=1)  # resumed: not tried again
    train(tmp_path / "counted", steps=5)
    timed, counted = (
        checkpoint.load_weights(tmp_path / name / "checkpoints" / "5") for name in ("timed", "counted")
    )
    assert all(torch.equal(timed[name], counted[name]) for name in counted)


@pytest.mark.parametrize("length", [{"steps": 3}, {"epochs": 2}])
def test_two_lengths_are_refused(length):
    with pytest.raises(ConfigError, match=r"trainer\.minutes is 2.0 and trainer"):
        train(None, minutes=2, **length)
