"""The encoder stays as it is for a whole run or for its first steps."""

import pytest
import torch
from torch import nn

from segtrain import build, checkpoint
from segtrain.commands import train as train_command
from segtrain.errors import ConfigError
from segtrain.model.network import Network
from segtrain.model.parts.norm import freeze_batch_norm
from segtrain.run.stop import Stop
from segtrain.train.freezing import Freezing, freeze

CONFIG = {
    "task": {"name": "semantic"},
    "data": {"name": "shapes", "size": 48, "num_train": 4, "num_val": 1},
    "model": {"name": "unet", "widths": [4, 8]},
    "loss": {"name": "cross_entropy"},
    "optimizer": {"name": "adamw", "lr": 0.01},
    "schedule": {"name": "constant"},
    "augmentation": {},
    "loader": {"batch_size": 2, "workers": 0},
    "evaluate": {"workers": 0, "pictures": 0},
    "device": "cpu",
}


def trained(folder, **trainer) -> dict:
    """{step: weights} of all checkpoints of a run of four steps."""
    folder.mkdir(exist_ok=True)
    settings = {"steps": 4, "save_every": 1, "keep_checkpoints": 9, "evaluate_every": None, **trainer}
    train_command.train(build.check("train", {**CONFIG, "trainer": settings}), folder, Stop())
    return {step: checkpoint.load_weights(folder / "checkpoints" / str(step)) for step in (1, 2, 3, 4)}


def changed(one: dict, other: dict) -> set[str]:
    """ "encoder" and "rest", as far as a tensor of them differs."""
    names = {name for name in one if not torch.equal(one[name], other[name])}
    return {"encoder" if name.startswith("encoder.") else "rest" for name in names}


def test_the_encoder_is_frozen_for_the_whole_run(tmp_path):
    weights = trained(tmp_path, freeze="encoder")
    assert changed(weights[1], weights[4]) == {"rest"}
    state = checkpoint.load_state(tmp_path / "checkpoints" / "4")
    names = {group["name"] for group in state["optimizers"]["network"]["param_groups"]}
    assert not any(name.startswith("encoder") for name in names)


def test_the_encoder_is_frozen_for_the_first_steps(tmp_path):
    weights = trained(tmp_path, freeze="encoder", freeze_steps=2)
    assert changed(weights[1], weights[2]) == {"rest"}
    assert changed(weights[2], weights[3]) == {"encoder", "rest"}  # batch-norm statistics too
    norms = [name for name in weights[1] if name.startswith("encoder.") and name.endswith("running_mean")]
    assert norms and all(torch.equal(weights[1][name], weights[2][name]) for name in norms)
    assert all(not torch.equal(weights[3][name], weights[4][name]) for name in norms)


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_resumed_run_freezes_as_a_straight_one(tmp_path, cut):
    settings = {"freeze": "encoder", "freeze_steps": 2}
    straight = trained(tmp_path / "straight", **settings)
    trained(tmp_path / "cut", **settings)
    for step in range(cut + 1, 5):
        folder = tmp_path / "cut" / "checkpoints"
        (folder / str(step) / "manifest.json").unlink()  # no longer a complete checkpoint
    resumed = trained(tmp_path / "cut", **settings)
    assert changed(straight[4], resumed[4]) == set()


def test_what_was_frozen_before_stays_frozen():
    encoder = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
    encoder[0].requires_grad_(False)
    freeze_batch_norm(encoder[1])
    freezing = Freezing(encoder, until=1)
    freezing(0)
    encoder.train()
    assert not any(p.requires_grad for p in encoder.parameters())
    assert not encoder[1].training and not encoder[3].training
    freezing(1)
    encoder.train()
    assert [all(p.requires_grad for p in part.parameters()) for part in encoder] == [False, False, True, True]
    assert not encoder[1].training and encoder[3].training


def test_freezing_again_returns_nothing():
    encoder = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    assert [len(found) for found in freeze(encoder)] == [4, 1]
    assert [len(found) for found in freeze(encoder)] == [0, 0]


@pytest.mark.parametrize(
    ("words", "model", "message"),
    [
        ({"freeze_steps": 3}, {}, "trainer.freeze_steps=3 freezes nothing: trainer.freeze is null"),
        (
            {"freeze": "encoder"},
            {"name": "classical"},
            "trainer.freeze=encoder: model=classical has no encoder",
        ),
    ],
)
def test_a_freezing_that_cannot_be_is_refused(words, model, message):
    chosen = {**CONFIG, "model": model or CONFIG["model"], "trainer": {"steps": 1, **words}}
    with pytest.raises(ConfigError, match=message):
        train_command.train(build.check("train", chosen), None, Stop())


def test_random_weights_are_not_frozen_without_a_word(capsys):
    assert Network.weights_report == "no pretrained weights"
    chosen = {**CONFIG, "trainer": {"steps": 1, "freeze": "encoder"}}
    train_command.train(build.check("train", chosen), None, Stop())
    assert "freezes random weights" in capsys.readouterr().err
