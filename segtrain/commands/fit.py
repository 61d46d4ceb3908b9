"""Training of networks that fit themselves (`Network.fits_itself`), without the loop."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from segtrain import checkpoint as checkpoints
from segtrain.checkpoint.restore import resize
from segtrain.commands.parts import Parts
from segtrain.commands.resume import resume_or_init
from segtrain.commands.run import RunOutput, about, events_of, result_of
from segtrain.commands.scoring import Scoring
from segtrain.commands.settle import settle
from segtrain.errors import ConfigError
from segtrain.loader.fit_samples import Samples
from segtrain.run.storage import probe
from segtrain.settings import Loader, Trainer
from segtrain.train import loop as training
from segtrain.train.plan import ONE_STEP
from segtrain.train.state import new_state


def fit(
    config: dict,
    folder: Path | None,
    parts: Parts,
    scoring: Scoring,
    resumed: Path | None,
    device: torch.device,
    stop,
) -> dict:
    """Trains a network by its own `fit(samples, rng)`, which counts as one step; returns the scores."""
    model, loader = parts.model.to(device), Loader(**config["loader"])
    if config["init"]:
        raise ConfigError(
            f"init={config['init']}: model={config['model']['name']} is fitted to the data alone; leave "
            f"init out"
        )
    with stop.at_once():
        settings = replace(Trainer(**config["trainer"]), ema=None, amp="none")
        state = new_state(model, {}, settings, device)
        if resumed is not None:
            resize(model, checkpoints.load_weights(resumed), str(resumed))
        started = resume_or_init(config, resumed, state, parts)
        settled = settle(config, folder, parts, None if resumed is None else parts.saved, None)
        if folder is not None:
            probe(folder, FITTED_BYTES)
        train_split, val_split = parts.data.splits["train"], parts.data.splits["val"]
        count = len(train_split) if folder else min(len(train_split), 4)
        samples = Samples(train_split, count, loader.skip_bad, stop.raise_if_requested)
        events = events_of(settled.config, folder, state, 1)
        run = RunOutput(
            settled.config, folder, parts, scoring, val_split, device, events, stop, settings, settled.samples
        )
    try:
        with stop.at_once():
            plan = f"plan      fitted on {len(samples)} images"
            summary = about(config, parts, len(train_split), len(val_split))
            for line in [*summary, plan, *settled.lines, *started]:
                events.say(line)
            start = time.perf_counter()
            if state.step == 0:
                model.fit(samples, np.random.default_rng(config["seed"]))
        if state.step == 0:
            state.step, state.evaluation_due = 1, True
            run.save(state, None)
            events.say(f"fitted    in {time.perf_counter() - start:.1f} s")
            events.progress(1)
        # The loop has no step left: it evaluates and saves.
        scores = training.train(state, None, ONE_STEP, None, run.evaluate, run.save, events, stop)
    finally:
        events.close()
    return result_of(state, scores, folder, parts)


FITTED_BYTES = 1 << 26
"""Bytes of free disk space required before a fit, whose result has no size known in advance."""
