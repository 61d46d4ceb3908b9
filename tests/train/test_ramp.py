"""A loss that changes with the optimizer step, in training and after a resume."""

import pytest
from test_train import config, losses, stop_after

from segtrain.commands import train as train_command
from segtrain.errors import Interrupted
from segtrain.run.stop import Stop


def ramped(ramp_steps=6, accumulate=2):
    loss = {"name": "ohem", "top_k": 0.1, "ramp_steps": ramp_steps}
    steps = {"steps": 6, "log_every": 1, "evaluate_every": None, "save_every": None, "ema": None}
    made = config(trainer={**steps, "accumulate": accumulate}, data={"num_train": 8, "num_val": 1})
    return {**made, "loss": loss}


def weights(folder):
    return (folder / "checkpoints" / "6" / "model.safetensors").read_bytes()


def test_a_ramp_goes_on_where_a_resumed_run_goes_on(tmp_path, monkeypatch):
    straight, resumed, unramped = (tmp_path / name for name in ("straight", "resumed", "unramped"))
    for folder in (straight, resumed, unramped):
        folder.mkdir()
    train_command.train(ramped(), straight, Stop())
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        train_command.train(ramped(), resumed, stop_after(3, patch))
    train_command.train(ramped(), resumed, Stop())
    assert weights(straight) == weights(resumed) and losses(straight) == losses(resumed)
    train_command.train(ramped(ramp_steps=0), unramped, Stop())
    # At step 0 all pixels count with the ramp, a tenth without; hard pixels have the larger loss.
    first, other = (losses(run)[0]["train/loss"] for run in (straight, unramped))
    assert first < other - 0.02 and weights(straight) != weights(unramped)


def test_the_ramp_counts_optimizer_steps_and_not_micro_batches(tmp_path, monkeypatch):
    steps = []
    original = train_command.learned_by

    def spied(*arguments):
        learned = original(*arguments)
        learned.loss.register_forward_pre_hook(lambda module, inputs: steps.append(inputs[0].step))
        return learned

    monkeypatch.setattr(train_command, "learned_by", spied)
    train_command.train(ramped(), tmp_path, Stop())
    assert steps == [step for step in range(6) for _ in range(2)]
