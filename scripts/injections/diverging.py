"""NaN and infinity that come up in the middle of a training."""

from __future__ import annotations

import dataclasses
import functools
import math
import random
from collections.abc import Callable
from pathlib import Path

from injections import programs
from injections.figure import Figure

STEPS = 12
WORDS = (
    *("train", *programs.SMALL, f"trainer.steps={STEPS}", "trainer.save_every=2", "trainer.ema=0.9"),
    *("trainer.evaluate_every=4", "name=run", "resume=auto"),
)


def not_finite(quick: bool, folder: Path) -> list[Figure]:
    """NaN or infinity in a weight, the input, the loss, a gradient, a batch-norm buffer, the EMA or the
    optimizer's state, at a random step; the run is then resumed without it."""
    rng, failures, count = random.Random(0), [], 0
    straight = folder / "straight"
    whole = programs.run(WORDS, straight)
    assert whole.code == 0, whole.err
    for name, spoil in SPOILED.items() if not quick else [*SPOILED.items()][::3]:
        for value in (math.nan,) if quick else (math.nan, math.inf, -math.inf):
            step, place = rng.randint(2, STEPS), programs.fresh(folder / "spoiled")
            change = functools.partial(_spoil_at, step, functools.partial(spoil, value=value))
            if wrong := _spoiled(place, change, step, straight):
                failures.append(f"{value} in {name} at step {step}: {wrong}")
            count += 1
    programs.progress(f"NaN: {count}, {len(failures)} wrong")
    return [
        Figure(
            1,
            "NaN or infinity in input, loss, gradient, weight, batch-norm, EMA or optimizer",
            count,
            f"exit 5 in one line; {len(failures)} of {count} saved a number that is not finite or did not "
            f"resume bit for bit from the checkpoint before",
            failures,
        )
    ]


def _spoiled(place: Path, change: Callable, step: int, straight: Path) -> str | None:
    from segtrain import checkpoint
    from segtrain.tensors import not_finite as not_finite_in

    ended, run = programs.run(WORDS, place, change=change), place / "outputs" / "run"
    if wrong := ended.wrong(5):
        return wrong
    kept = checkpoint.to_resume(run)
    saved = 0 if kept is None else int(kept.name)
    if saved >= step:
        return f"step {saved} was saved"
    if kept is not None:
        for content in (checkpoint.load_weights(kept), checkpoint.load_state(kept)):
            if bad := not_finite_in(content):
                return f"{bad} of the checkpoint is not finite"
    # Without a checkpoint the folder of the run, begun by the steps before, is started in anew.
    return programs.run(WORDS, place).wrong(0) or programs.difference(
        run, straight / "outputs" / "run", STEPS
    )


def _spoil_at(step: int, spoil: Callable) -> None:
    """In the process of a run: its step number `step` is taken with what `spoil(state, learning)` returns
    in place of the Learning."""

    def spoiling(train_step):
        def spoiled(state, batch, learning):
            return train_step(state, batch, spoil(state, learning) if state.step + 1 == step else learning)

        return spoiled

    programs.change_step(spoiling)


def _first(tensors, value: float) -> None:
    tensor = next(one for one in tensors if one.ndim and one.is_floating_point())
    tensor.data.view(-1)[:1].fill_(value)


def _in_weight(state, learning, value):
    _first(state.model.parameters(), value)
    return learning


def _in_input(state, learning, value):
    return dataclasses.replace(learning, normalise=lambda images: learning.normalise(images) + value)


def _in_loss(state, learning, value):
    def loss(output, targets):
        total, weight = learning.loss(output, targets)
        return total + value, weight

    return dataclasses.replace(learning, loss=loss)


def _in_gradient(state, learning, value):
    next(state.model.parameters()).register_hook(lambda gradient: gradient + value)
    return learning


def _in_batch_norm(state, learning, value):
    _first(state.model.buffers(), value)
    return learning


def _in_average(state, learning, value):
    _first(state.ema.buffers(), value)
    return learning


def _in_optimizer(state, learning, value):
    _first((one["exp_avg"] for one in state.optimizers["network"].state.values()), value)
    return learning


SPOILED = {
    "a weight": _in_weight,
    "the input": _in_input,
    "the loss": _in_loss,
    "a gradient": _in_gradient,
    "a batch-norm buffer": _in_batch_norm,
    "the EMA": _in_average,
    "the optimizer's state": _in_optimizer,
}
