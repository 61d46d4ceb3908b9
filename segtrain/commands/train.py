"""`segtrain train`: builds the parts of a run and calls the loop."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from segtrain import ranks
from segtrain.commands.fit import fit
from segtrain.commands.learning import batch_shape, build_learning, shard_if_asked, step_errors
from segtrain.commands.parts import Parts, build_parts
from segtrain.commands.prepare import prepare
from segtrain.commands.profiling import Profiler
from segtrain.commands.resume import resume_or_init, to_resume
from segtrain.commands.run import RunOutput, about, check_room, events_of, result_of
from segtrain.commands.runtime import learned_by
from segtrain.commands.scoring import check_score, scoring_of
from segtrain.commands.settle import Settled, settle
from segtrain.loader.loader import check_evaluation, split_to_read, training_batches
from segtrain.settings import Loader, Trainer
from segtrain.train import loop as training
from segtrain.train.batch_norm import recomputed_batch_norm


def train(config: dict, folder: Path | None, stop) -> dict:
    """Starts or resumes a training; returns its last scores, e.g. {"step": 1000, "val/miou": 0.66}.

    config: checked. folder: of the run; None for a dry run. If the folder holds a checkpoint, the run resumes
    from it.
    """
    with stop.at_once():
        learn = _prepared(config, folder, stop)
    return learn()


def _prepared(config: dict, folder: Path | None, stop) -> Callable[[], dict]:
    """Builds everything that the loop needs, which may be interrupted at any point without loss. Returns the
    function that runs the loop and returns the scores."""
    start = time.perf_counter()
    device = prepare(config)
    resumed, description, config = to_resume(folder, config)
    parts = build_parts(config, resumed, description)
    train_split, val_split = parts.data.splits["train"], parts.data.splits["val"]
    scoring = scoring_of(config, parts.task, parts.facts)
    check_score(scoring)
    # Settings of the predictor and validation images that would fail in the first evaluation fail here.
    scoring.predictor(parts.model, device)
    check_evaluation(val_split, train_split)
    if parts.model.fits_itself:
        ranks.refuse(f"model={config['model']['name']} is fitted in one process")
        return functools.partial(fit, config, folder, parts, scoring, resumed, device, stop)
    learned = learned_by(config, parts, train_split)
    ops, loss = learned.ops, learned.loss
    profiler = Profiler(parts, learned, device, stop, start, ranks.world_size())
    batch_size = ranks.from_main(lambda: profiler.loader(config).batch_size)
    loader = replace(Loader(**config["loader"]), batch_size=batch_size)
    batch_shape(parts, ops, train_split, config["trainer"]["accumulate"], loader)
    settled = Settled(
        **ranks.from_main(lambda: vars(settle(config, folder, parts, description, profiler, batch_size)))
    )
    config, plan = settled.config, settled.loop_plan
    settings = Trainer(**config["trainer"])
    learning, state = build_learning(config, parts, settings, loss.to(device), device)
    started = resume_or_init(config, resumed, state, parts)
    shard_if_asked(config, parts, settings, state, device)
    if folder is not None and ranks.is_main():
        check_room(folder, state)

    events = events_of(config, folder, state, plan.steps)
    summary = _summary(config, parts, settled, len(train_split), len(val_split), loader, device)
    for line in [*summary, *settled.lines, *started]:
        events.say(line)
    run = RunOutput(
        config, folder, parts, scoring, val_split, device, events, stop, settings, settled.samples
    )
    if folder is None:
        loader = replace(loader, cache="none")  # a dry run saves nothing
    # Here, so that the batches of the run and of the statistics of batch-norm share one check of the cache.
    read_from = ranks.main_first(lambda: split_to_read(train_split, ops, loader, stop.raise_if_requested))
    from_start = functools.partial(training_batches, read_from, ops, loader, config["seed"])
    from_start = functools.partial(from_start, interrupt=stop.raise_if_requested, draws=learned.draws)
    batches = from_start(state.position)
    recomputed = settings.recompute_batch_norm if folder else min(1, settings.recompute_batch_norm)
    served_as = functools.partial(recomputed_batch_norm, state, learning, from_start, recomputed, stop)

    def learn() -> dict:
        try:
            with step_errors(settings, loader, device):
                scores = training.train(
                    state, learning, plan, batches, run.evaluate, run.save, events, stop, served_as=served_as
                )
            bad = sum(ranks.all_gather(batches.bad))
            if bad:
                events.say(f"unreadable samples replaced by others: {bad} (loader.on_bad=skip)")
        finally:
            batches.close()
            events.close()
        return result_of(state, scores, folder, parts)

    return learn


def _summary(
    config, parts: Parts, settled, num_train: int, num_val: int, loader: Loader, device
) -> list[str]:
    plan = settled.plan
    epochs = plan.steps * loader.batch_size / num_train
    threads = f", {torch.get_num_threads()} threads" if device.type == "cpu" else ""
    often = bool(plan.evaluate_every) and plan.evaluate_every < plan.steps
    evaluated = f"every {plan.evaluate_every} steps" if often else "at the end"
    dry_run = "; dry run: one step" if config["dry_run"] else ""
    on_ranks = f"{ranks.world_size()} ranks, each on " if ranks.world_size() > 1 else ""
    return [
        *about(config, parts, num_train, num_val),
        f"plan      {plan.steps} steps of {loader.batch_size} images = {epochs:.1f} epochs{settled.length} "
        f"on {on_ranks}{device}{threads}; evaluated {evaluated}{dry_run}",
    ]
