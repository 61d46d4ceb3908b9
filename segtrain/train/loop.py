"""The training loop, in time order: step, EMA, log, evaluate, save.

Sample order and augmentation are functions of (seed, position), so the loader can start at any position. All
intervals are in optimizer steps.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import Any

import torch

from segtrain import ranks
from segtrain.checkpoint.finite import check_finite
from segtrain.errors import DivergedError, Interrupted
from segtrain.text import count
from segtrain.train.batch_norm import share_statistics
from segtrain.train.plan import Plan
from segtrain.train.state import RunState
from segtrain.train.step import Learning, train_step, update_average
from segtrain.train.watch import Clock, Finite


def train(
    state: RunState,
    learning: Learning,
    plan,
    batches,
    evaluate: Callable,
    save: Callable,
    events,
    stop,
    step: Callable | None = None,
    served_as=contextlib.nullcontext,
) -> Any:
    """Trains from `state.step` to `plan.steps`; returns the scores of the last evaluation.

    plan: `Plan`. batches: endless, from `state.position` on; a signal while waiting for a batch raises
    errors.Interrupted. evaluate(state) -> scores, which it logs, or None if a signal came. save(state,
    scores): writes a checkpoint. stop: `segtrain.run.stop.Stop`. step(state, batch, learning) -> (total,
    weight); None: that of `learning`, else `train_step`. served_as(): a context in which the network is
    evaluated and saved.
    """
    finite, clock = Finite(state.loss_sum), Clock()
    scores = _evaluate(state, plan, evaluate, save, stop, served_as) if state.evaluation_due else None
    state.train_mode()
    step = step or (learning and learning.step) or train_step
    saved = state.step  # the last step that needs no further checkpoint: the start, or saved by _evaluate
    while not plan.is_over(state.step, state.worse):
        if learning is not None:
            learning.freezing(state.step)
        try:
            batch = clock.waiting(lambda: next(batches))
        except Interrupted:
            if state.step > saved:
                _save_and_stop(state, plan, finite, save, stop)
            raise
        for text in batch.skipped:
            events.say(f"left out: {text}")
        total, weight = step(state, batch, learning)
        share_statistics(state)
        state.step += 1
        images = batch.count if ranks.world_size() == 1 else learning.batch_size
        state.position += images
        if state.ema is not None:
            update_average(state, learning.settings.ema)
        state.loss_sum += total
        state.loss_weight += weight
        finite.note(state.step, batch.names)
        clock.count(images)
        events.progress(1)
        stop.agree()

        if state.step % plan.log_every == 0 or state.step == plan.steps:
            finite.read()
            _log(state, learning, clock, events, plan)
        state.evaluation_due = plan.evaluates(state.step)
        if state.evaluation_due or plan.saves(state.step) or stop.requested is not None:
            if stop.requested is not None:
                _save_and_stop(state, plan, finite, save, stop)
            _check(state, finite)
            saved = state.step
            scores = clock.outside(lambda: _evaluate(state, plan, evaluate, save, stop, served_as)) or scores
    if state.step < plan.steps:
        events.say(
            f"ended after step {state.step} of {plan.steps}: {count(state.worse, 'evaluation')} in a row "
            f"brought no better score than {state.best:.4f} (trainer.patience={plan.patience})"
        )
    return scores


def _check(state: RunState, finite: Finite) -> None:
    """DivergedError unless losses, weights and optimizer state are finite. The weights are checked because a
    step changes them after its loss was computed."""
    finite.read()
    check_finite(state.weights(), state.plain(), state.step)


def _save_and_stop(state: RunState, plan: Plan, finite: Finite, save: Callable, stop) -> None:
    """Saves a checkpoint and raises errors.Interrupted for the signal that came."""
    _check(state, finite)
    save(state, None)
    stop.raise_if_requested(f"stopped after step {state.step} of {plan.steps}; a checkpoint is saved")


def _evaluate(state: RunState, plan: Plan, evaluate: Callable, save: Callable, stop, served_as: Callable):
    """Evaluates if an evaluation is due, and saves. If a signal interrupts the evaluation, the state is saved
    with the evaluation still due."""
    scores = None
    with served_as():
        if state.evaluation_due:
            scores = evaluate(state)
            if stop.requested is not None and scores is None:
                save(state, None)
                stop.raise_if_requested(
                    f"stopped while evaluating after step {state.step} of {plan.steps}; a checkpoint is saved"
                )
            state.evaluation_due = False
        save(state, scores)
    stop.raise_if_requested(f"stopped after step {state.step} of {plan.steps}; a checkpoint is saved")
    state.train_mode()
    return scores


def _rates(optimizers: Iterable[torch.optim.Optimizer], factor: float) -> dict[str, float]:
    """`train/rate`: the base learning rate times the schedule's factor; and, if parameter groups have
    different learning rates, `train/rate/GROUP` of each named group."""
    optimizers = list(optimizers)
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    base = max(optimizer.defaults["lr"] for optimizer in optimizers) * factor
    if len({group["lr"] for group in groups}) == 1:
        return {"train/rate": base}
    named = {f"train/rate/{group['name']}": group["lr"] for group in groups if "name" in group}
    return {"train/rate": base, **named}


def _log(state: RunState, learning: Learning, clock: Clock, events, plan: Plan) -> None:
    loss = (state.loss_sum / state.loss_weight).item() if state.loss_weight.item() > 0 else 0.0
    rates = _rates(state.optimizers.values(), learning.schedule(state.step - 1))
    rate = rates["train/rate"]
    speed, waited = clock.read()
    numbers = {
        "train/loss": loss,
        **rates,
        "train/images_per_s": round(speed, 2),
        "train/waiting": round(waited, 4),
    }
    if state.scaler.is_enabled():
        numbers["train/scale"] = state.scaler.get_scale()
        if numbers["train/scale"] < 1:
            raise DivergedError(
                f"the fp16 loss scale fell to {numbers['train/scale']} at step {state.step}; use "
                f"trainer.amp=bf16 or none"
            )
    events.log(state.step, numbers)
    events.progress(
        0, {"loss": f"{loss:.4f}", "rate": f"{rate:.2e}", "img/s": f"{speed:.1f}", "waiting": f"{waited:.0%}"}
    )
    state.loss_sum.zero_()
    state.loss_weight.zero_()
