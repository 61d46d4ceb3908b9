"""trainer.recompute_batch_norm: what is evaluated and kept has statistics of its own weights, and the
training is the same."""

import signal

import pytest
import torch

from segtrain import build, checkpoint
from segtrain.commands import train as train_command
from segtrain.commands.parts import build_parts
from segtrain.commands.runtime import learned_by
from segtrain.errors import Interrupted
from segtrain.loader.loader import training_batches
from segtrain.model.parts.norm import recompute_statistics, statistics_of
from segtrain.run.stop import Stop
from segtrain.settings import Loader
from segtrain.train import batch_norm, loop
from segtrain.train.step import train_step

SMALL = {
    "task": {"name": "semantic"},
    "data": {"name": "shapes", "size": 48, "num_train": 12, "num_val": 3, "objects": 3},
    "model": {"name": "unet", "widths": [4, 8]},
    "loss": {"name": "cross_entropy"},
    "optimizer": {"name": "adamw"},
    "schedule": {"name": "constant"},
    "augmentation": {"warp": {"scale": [0.7, 1.4]}},
    "tta": {},
    "loader": {"batch_size": 4, "workers": 0},
    "evaluate": {"workers": 0, "pictures": 0},
    "device": "cpu",
}
TRAINER = {"steps": 6, "log_every": 3, "evaluate_every": 4, "save_every": 2, "accumulate": 2}


def run(folder, stop=None, **trainer):
    return train_command.train(
        build.check("train", {**SMALL, "trainer": {**TRAINER, **trainer}}), folder, stop or Stop()
    )


def stopped_after(steps, monkeypatch):
    """A Stop that somebody asks to end the run after `steps` more optimizer steps."""
    stop, count = Stop(), [0]

    def counted(*arguments):
        count[0] += 1
        if count[0] == steps:
            stop.requested = signal.SIGTERM
        return train_step(*arguments)

    original = loop.train
    monkeypatch.setattr(loop, "train", lambda *args, **kw: original(*args, **kw, step=counted))
    return stop


def last(folder):
    return checkpoint.load_weights(folder / "checkpoints" / "6"), checkpoint.load_state(
        folder / "checkpoints" / "6"
    )


@pytest.fixture(scope="module", params=[None, 0.9], ids=["plain", "ema"])
def recomputed(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("recomputed")
    run(folder, recompute_batch_norm=2, ema=request.param)
    return folder, request.param


def test_the_training_is_that_of_a_run_without_it(recomputed, tmp_path):
    folder, ema = recomputed
    run(tmp_path, ema=ema)
    (weights, state), (plain_weights, plain_state) = last(folder), last(tmp_path)
    kept = state.pop("statistics")
    assert plain_state.pop("statistics") is None and kept
    for name, tensor in plain_weights.items():
        assert torch.equal(tensor, kept.get(name, weights[name])), name
        assert name in kept or torch.equal(tensor, weights[name])
    assert any(not torch.equal(weights[name], kept[name]) for name in kept if name.endswith("running_mean"))
    assert torch.equal(state["random"]["torch"], plain_state["random"]["torch"])
    assert state["numbers"]["position"] == plain_state["numbers"]["position"]
    if ema:
        assert all(torch.equal(tensor, plain_state["raw"][name]) for name, tensor in state["raw"].items())


def test_the_kept_statistics_are_those_of_the_kept_weights(recomputed):
    folder, _ = recomputed
    config = build.check("train", {**SMALL, "trainer": TRAINER})
    parts = build_parts(config, None)
    weights, _ = last(folder)
    parts.model.load_state_dict(weights)
    ops = learned_by(config, parts, parts.data.splits["train"]).ops
    with training_batches(
        parts.data.splits["train"], ops, Loader(batch_size=4, workers=0), seed=0
    ) as batches:
        images = [part for _ in range(2) for part in next(batches).images.tensor_split(2)]
    recompute_statistics(parts.model, (parts.facts.normalisation(part) for part in images))
    for name, tensor in statistics_of(parts.model).items():
        assert torch.equal(tensor, weights[name]), name


@pytest.mark.parametrize("cuts", [[1, 2], [4, 1]], ids=str)
def test_a_resumed_run_is_bit_identical(recomputed, tmp_path, monkeypatch, cuts):
    folder, ema = recomputed
    for steps in cuts:
        with monkeypatch.context() as patch, pytest.raises(Interrupted):
            run(tmp_path, stopped_after(steps, patch), recompute_batch_norm=2, ema=ema)
    run(tmp_path, recompute_batch_norm=2, ema=ema)
    for one, other in zip(
        *(sorted((made / "checkpoints" / "6").glob("model.*")) for made in (folder, tmp_path)), strict=True
    ):
        assert one.read_bytes() == other.read_bytes()
    (_, ours), (_, theirs) = last(folder), last(tmp_path)
    assert all(torch.equal(ours["statistics"][name], tensor) for name, tensor in theirs["statistics"].items())


def test_a_signal_in_the_middle_of_it_keeps_what_the_training_has(tmp_path, monkeypatch):
    stop, asked = Stop(), []
    original = batch_norm.recompute_statistics

    def interrupted(net, inputs):
        asked.append(1)
        if len(asked) == 2:  # the evaluation after step 4
            stop.requested = signal.SIGINT
        original(net, inputs)

    with monkeypatch.context() as patch, pytest.raises(Interrupted, match="after step 4"):
        patch.setattr(batch_norm, "recompute_statistics", interrupted)
        run(tmp_path, stop, recompute_batch_norm=2)
    state = checkpoint.load_state(checkpoint.find(tmp_path, "last"))
    assert state["statistics"] is None and state["numbers"]["evaluation_due"]
