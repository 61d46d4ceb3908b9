"""Plain config to built objects, through the tables; one function a command."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import itertools
import json
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from segtrain import checkpoint as checkpoints
from segtrain import compare as comparing
from segtrain import describe as describing
from segtrain import evaluate as evaluation
from segtrain import predict as prediction
from segtrain import train as training
from segtrain.augmentation import AUGMENTATION
from segtrain.compiled import compile_errors, compiled
from segtrain.data import DATA
from segtrain.data.parts import Data, count
from segtrain.data.stats import frequency
from segtrain.errors import ConfigError, DataError, Interrupted, ResourceError, nearest, printable
from segtrain.events import Events
from segtrain.initial import checkpoint_of, start_from
from segtrain.loader import Samples, evaluation_batches, training_batches
from segtrain.loss import LOSS
from segtrain.metric import METRIC
from segtrain.model import MODEL
from segtrain.model.norm import check_batch, freeze_batch_norm, set_momentum
from segtrain.model.sides import check_sides
from segtrain.model.unet import SMALL
from segtrain.optimizer import OPTIMIZER
from segtrain.predictor import (
    Ensemble,
    Mask,
    Predictor,
    build_from,
    choose_device,
    ensemble_of,
    predictor,
    without_weights,
)
from segtrain.predictor import protocol as protocol_of_predictor
from segtrain.report.sheet import comparison, sheet
from segtrain.run_folder import probe, storage, write_json
from segtrain.sample import Facts, Normalisation
from segtrain.schedule import SCHEDULE
from segtrain.schema import TABLES, check
from segtrain.settings import EvaluateSettings, Loader, PredictorSettings, Trainer, in_steps
from segtrain.task import TASK
from segtrain.tta import TTA

__all__ = ["TABLES", "check", "compare", "describe", "evaluate", "predict", "train"]


# --- what the commands share


def _prepare(config: Mapping) -> torch.device:
    """Threads, seeds, device."""
    if config.get("threads"):
        torch.set_num_threads(config["threads"])
    keep_memory()
    seed = config.get("seed", 0)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    return choose_device(config["device"])


def keep_memory() -> None:
    """Lets glibc keep the memory that large tensors free. Returned to the system, it has to be cleared page
    by page at every step, which costs a CPU training step about a tenth of its time. Elsewhere than on glibc
    nothing changes."""
    no_mmap, no_trim = (-4, 0), (-1, -1)  # M_MMAP_MAX, M_TRIM_THRESHOLD of malloc.h
    with contextlib.suppress(OSError, AttributeError):
        allocator = ctypes.CDLL("libc.so.6")
        for parameter, value in (no_mmap, no_trim):
            allocator.mallopt(parameter, value)


@dataclass(frozen=True)
class Parts:
    """What is built before anything runs."""

    task: object
    data: Data
    facts: Facts
    model: nn.Module
    metric: object


def _complete(facts: Facts, model: nn.Module) -> Facts:
    """The facts with a normalisation: the data set's own, else that of the encoder's weights, else to
    -1..1."""
    neutral = Normalisation((0.5,) * facts.channels, (0.5,) * facts.channels)
    return replace(facts, normalisation=facts.normalisation or model.normalisation or neutral)


def _as_settled(config: Mapping, description: Mapping) -> dict:
    """The config with what the run's data decided by looking at its files (`Data.settled`), where nothing
    else was typed."""
    saved, data = description["config"]["data"], config["data"]
    if saved["name"] != data["name"]:
        return dict(config)
    return {
        **config,
        "data": {key: saved.get(key) if value is None else value for key, value in data.items()},
    }


def _parts(config: Mapping, resumed: Path | None) -> Parts:
    """resumed: the checkpoint that will be gone on with. From a run's weights, these or those of `init`, no
    others are asked for."""
    task = TASK.build(config["task"])
    data = DATA.build(config["data"])
    facts = data.facts
    metric = METRIC.build(
        {"name": task.metric}, num_classes=facts.num_classes, ignore_index=facts.ignore_index
    )
    source = checkpoint_of(config["init"]) if resumed is None else resumed
    chosen = config["model"] if source is None else without_weights(config["model"])
    model = MODEL.build(
        chosen,
        out_channels=task.out_channels(facts),
        num_classes=facts.num_classes,
        in_channels=facts.channels,
    )
    if source is None:
        return Parts(task, data, _complete(facts, model), model, metric)
    model.weights_report = f"weights of {printable(source)}"
    saved = Facts.from_plain(checkpoints.describe(source)["facts"])
    if resumed is None:
        # The network learnt on images normalised in that way; other channels are refused when the weights are
        # copied.
        own = facts.normalisation or (saved.normalisation if saved.channels == facts.channels else None)
        return Parts(task, data, _complete(replace(facts, normalisation=own), model), model, metric)
    _same_classes(saved, facts, str(resumed.parent.parent))
    return Parts(task, data, replace(facts, normalisation=saved.normalisation), model, metric)


def _scored(
    run: _Scoring, model: nn.Module, split, device, stop, progress: str, num_batches: int | None = None
) -> evaluation.Scores:
    """The scores of a split, or of its first batches; Interrupted if a signal came in the meantime."""
    interrupt = functools.partial(stop.raise_if_requested, "stopped while evaluating")
    predict, ensemble = run.prediction(model, device, interrupt)
    bar = tqdm(total=len(split), unit="image", desc=progress, leave=False, disable=None)

    def counted(batches):
        for batch in itertools.islice(batches, num_batches):
            yield batch
            bar.update(batch.count)
            interrupt()

    batches = evaluation_batches(split, run.settings.batch_size, run.settings.workers, run.facts.ignore_index)
    start = time.perf_counter()
    try:
        shown = evaluation.spread(len(split), run.settings.pictures)
        absent, others = run.settings.absent, run.other_metrics
        scores = evaluation.evaluate(
            predict, run.task.decide, run.metric, counted(batches), device, absent, shown, others
        )
    finally:
        bar.close()
        batches.close()
    protocol = {
        **scores.protocol,
        "tta": run.tta,
        **protocol_of_predictor(model, run.predictor, ensemble),
        "ignore_index": run.facts.ignore_index,
        "boundary_px": run.settings.boundary_px,
        "seconds": round(time.perf_counter() - start, 2),
    }
    return replace(scores, protocol=protocol)


def _sheet(scores: evaluation.Scores, facts: Facts, task, title: str):
    """The contact sheet of an evaluation, with its score in the title."""
    score = scores.numbers.get(task.score)
    title += "" if score is None else f", {task.score} {score:.4f}"
    return sheet(scores.pictures, facts, task.picture, task.errors, title)


@dataclass(frozen=True)
class _Scoring:
    """How scores are made in this run."""

    task: object
    facts: Facts
    metric: object
    other_metrics: list
    settings: EvaluateSettings
    predictor: PredictorSettings
    views: list
    tta: dict

    def prediction(self, model: nn.Module, device, between=lambda: None) -> tuple[Predictor, Ensemble | None]:
        """The way from images to probabilities, and the second network on it."""
        # What that network is first filled with takes no random numbers from the training.
        with torch.random.fork_rng(devices=[]):
            ensemble = ensemble_of(self.predictor, self.facts, device)
        made = predictor(
            model, self.facts.normalisation, self.task.activate, self.predictor, self.views, between, ensemble
        )
        return made, ensemble


def _other_metrics(settings: EvaluateSettings, task, facts: Facts) -> list:
    if settings.boundary_px is None:
        return []
    if task.metric != "confusion":
        raise ConfigError(f"evaluate.boundary_px scores classes, and task={task.name} has none; use null")
    chosen = {"name": "boundary", "tolerance_px": settings.boundary_px}
    return [METRIC.build(chosen, num_classes=facts.num_classes, ignore_index=facts.ignore_index)]


def _scoring(config: Mapping, task, facts: Facts, metric) -> _Scoring:
    settings = EvaluateSettings(**config["evaluate"])
    return _Scoring(
        task,
        facts,
        metric,
        _other_metrics(settings, task, facts),
        settings,
        PredictorSettings(**config["predictor"]),
        TTA.build_each(config["tta"]),
        dict(config["tta"]),
    )


# --- train


def train(config: dict, folder: Path | None, stop) -> dict:
    """Runs or goes on with a training; the last scores, e.g. {"step": 1000, "val/miou": 0.66}.

    folder: the run's, None for a dry run. A checkpoint in it is gone on with.
    """
    device = _prepare(config)
    resumed = None if folder is None else checkpoints.to_resume(folder)
    config = config if resumed is None else _as_settled(config, checkpoints.describe(resumed))
    parts = _parts(config, resumed)
    config = {**config, "data": {**config["data"], **parts.data.settled}}
    train_split, val_split = parts.data.splits["train"], parts.data.splits["val"]
    loader = Loader(**config["loader"])
    scoring = _scoring(config, parts.task, parts.facts, parts.metric)
    scoring.prediction(
        parts.model, device
    )  # what is wrong with it is said before the first step, not after the last
    if parts.model.fits_itself:
        return _fit(config, folder, parts, scoring, resumed, device, stop)
    ops, loss = _augmentation_and_loss(config, parts, train_split)
    if config["trainer"]["freeze_batch_norm"]:
        freeze_batch_norm(parts.model)  # what is frozen can be trained on batches that the rest cannot
    shape = _batch_shape(parts, ops, train_split, config["trainer"]["accumulate"], loader)
    config = _with_memory_format(config, resumed, parts, loss.to(device), shape, device)
    settings = Trainer(**config["trainer"])
    plan = _plan(settings, loader, len(train_split))
    learning, state = _learning(config, parts, settings, plan.steps, loss, device)
    plan = plan if folder else training.Plan(1, 1, None, None)
    order = _order_of(train_split)
    started = _resume_or_init(config, resumed, state, parts) + _about_other_samples(resumed, order)
    if folder is not None:
        probe(folder, _checkpoint_bytes(state))

    events = Events(folder, state.step, plan.steps, state.evaluation_due)
    for line in [*_summary(config, parts, plan, len(train_split), len(val_split), loader, device), *started]:
        events.say(line)
    run = _Run(config, folder, parts, scoring, val_split, device, events, stop, settings, order)
    from_start = functools.partial(training_batches, train_split, ops, loader, config["seed"])
    batches = from_start(state.position)
    recomputed = settings.recompute_batch_norm if folder else min(1, settings.recompute_batch_norm)
    served_as = functools.partial(
        training.recomputed_batch_norm, state, learning, from_start, recomputed, stop
    )
    stop.at_once = False
    try:
        stop.raise_if_requested()
        with compile_errors(settings.compile):
            scores = training.train(
                state, learning, plan, batches, run.evaluate, run.save, events, stop, served_as=served_as
            )
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        # The CPU's allocator has no exception of its own.
        if type(error) is RuntimeError and "can't allocate memory" not in str(error):
            raise
        raise ResourceError(_too_large(settings, loader, device)) from error
    finally:
        batches.close()
        events.close()
    return _result(state, scores, folder, parts.task)


def _fit(
    config: dict,
    folder: Path | None,
    parts: Parts,
    scoring: _Scoring,
    resumed: Path | None,
    device: torch.device,
    stop,
) -> dict:
    """Lets a network that learns by itself (`fit(samples, rng)`) do so: one step in place of the loop's
    many."""
    model, loader = parts.model.to(device), Loader(**config["loader"])
    if config["init"]:
        raise ConfigError(
            f"init={config['init']}: model={config['model']['name']} is fitted to the data alone; leave "
            f"init out"
        )
    settings = replace(Trainer(**config["trainer"]), ema=None, amp="none")
    state = training.new_state(model, {}, settings, device)
    if resumed is not None:
        model.resize_for(checkpoints.load_weights(resumed))
    started = _resume_or_init(config, resumed, state, parts)
    if folder is not None:
        probe(folder, FITTED_BYTES)
    train_split, val_split = parts.data.splits["train"], parts.data.splits["val"]
    count = len(train_split) if folder else min(len(train_split), 4)
    samples = Samples(train_split, count, loader.on_bad == "skip", stop.raise_if_requested)
    events = Events(folder, state.step, 1, state.evaluation_due)
    run = _Run(config, folder, parts, scoring, val_split, device, events, stop, settings)
    try:
        plan = f"plan      fitted on {len(samples)} images"
        for line in [*_about(config, parts, len(train_split), len(val_split)), plan, *started]:
            events.say(line)
        if state.step == 0:
            start = time.perf_counter()
            model.fit(samples, np.random.default_rng(config["seed"]))
            stop.at_once = False  # from here on there is something to lose
            state.step, state.evaluation_due = 1, True
            run.save(state, None)
            events.say(f"fitted    in {time.perf_counter() - start:.1f} s")
            events.progress(1)
        stop.at_once = False
        # What is left of the loop is its last evaluation, with the save behind it.
        scores = training.train(
            state, None, training.Plan(1, 1, None, None), None, run.evaluate, run.save, events, stop
        )
    finally:
        events.close()
    return _result(state, scores, folder, parts.task)


FITTED_BYTES = 1 << 26
"""Room on the disk that a fit looks for beforehand; how much its outcome takes is not known then."""


def _plan(settings: Trainer, loader: Loader, num_samples: int) -> training.Plan:
    per_epoch = num_samples / loader.batch_size
    if settings.log_every < 1:
        raise ConfigError(f"trainer.log_every is {settings.log_every}; allowed: a number of steps from 1")
    return training.Plan(
        training.steps_of(settings, per_epoch),
        settings.log_every,
        in_steps(settings.evaluate_every, per_epoch, "trainer.evaluate_every"),
        in_steps(settings.save_every, per_epoch, "trainer.save_every"),
    )


def _augmentation_and_loss(config, parts: Parts, split):
    """What needs to know how often classes occur; they are counted only if somebody asks."""
    facts = parts.facts
    counted = functools.cache(lambda: frequency(split, facts.num_classes, facts.ignore_index))
    runtime = {
        "num_classes": facts.num_classes,
        "ignore_index": facts.ignore_index,
        "class_frequency": counted,
        "facts": facts,
    }
    fill = tuple(round(255 * mean) for mean in facts.normalisation.mean)
    return AUGMENTATION.build_each(config["augmentation"], fill=fill, **runtime), LOSS.build(
        config["loss"], **runtime
    )


def _with_memory_format(config: dict, resumed: Path | None, parts: Parts, loss, shape, device) -> dict:
    """The config with trainer.memory_format=auto replaced by its answer: that of the run's start if it goes
    on."""
    if config["trainer"]["memory_format"] != "auto":
        return config
    if resumed is not None:
        answer = checkpoints.describe(resumed)["config"]["trainer"]["memory_format"]
    else:
        answer = training.faster_memory_format(parts.model, parts.facts.normalisation, loss, shape, device)
    return {**config, "trainer": {**config["trainer"], "memory_format": answer}}


def _learning(config, parts: Parts, settings: Trainer, steps: int, loss, device):
    """The step's tools and the state before the first step."""
    model = parts.model
    if settings.batch_norm_momentum is not None:
        set_momentum(model, settings.batch_norm_momentum)
    model.to(device, memory_format=training.MEMORY_FORMATS[settings.memory_format])
    optimizer = OPTIMIZER.build(config["optimizer"], network=model)
    for group in optimizer.param_groups:
        group["base_lr"] = group["lr"]
    state = training.new_state(model, {"network": optimizer}, settings, device)
    learning = training.Learning(
        loss=loss,
        normalise=parts.facts.normalisation,
        schedule=SCHEDULE.build(config["schedule"], steps=steps),
        settings=settings,
        device=device,
        parameters=[p for p in model.parameters() if p.requires_grad],
        forward=compiled(model, settings.compile) if settings.compile else None,
    )
    return learning, state


def _checkpoint_bytes(state) -> int:
    """About what one checkpoint takes: the weights, twice more for an optimizer, once more beside a moving
    average."""
    weights = sum(tensor.numel() * tensor.element_size() for tensor in state.model.state_dict().values())
    return weights * (3 if state.ema is None else 4)


def _batch_shape(parts: Parts, ops, split, accumulate: int, loader: Loader) -> tuple[int, int, int, int]:
    """(B, K, H, W) of a micro-batch; refuses what would only fail in the middle of a run: crops of different
    sizes, a batch that cannot be split, batch-norm on single values."""
    if loader.batch_size < 1 or accumulate < 1 or loader.batch_size < accumulate:
        raise ConfigError(
            f"loader.batch_size={loader.batch_size} cannot be split into trainer.accumulate={accumulate} "
            f"parts of an image or more"
        )
    size = next((op.size for op in reversed(ops) if getattr(op, "size", None)), None)
    height, width = (size, size) if isinstance(size, int) else size or split.size(0)
    if size is None and loader.batch_size > 1:
        sizes = {split.size(i) for i in range(min(len(split), 64))}
        if len(sizes) > 1:
            shown = ", ".join(f"{h}x{w}" for h, w in sorted(sizes)[:3])
            raise ConfigError(
                f"the images have different sizes ({shown} …) and cannot share a batch; set "
                f"augmentation.warp.size=256"
            )
    count = loader.batch_size // accumulate
    check_sides(parts.model, height, width)
    check_batch(parts.model, count, parts.facts.channels, height, width)
    return count, parts.facts.channels, height, width


def _resume_or_init(config, resumed: Path | None, state, parts: Parts) -> list[str]:
    """Puts weights into the state; what was done, line by line."""
    if resumed is not None:
        state.restore(checkpoints.load_weights(resumed), checkpoints.load_state(resumed))
        _link_best(resumed, state.best, parts.task.score)
        return [f"going on from {resumed}"]
    if config["init"]:
        with torch.no_grad():
            lines = start_from(parts.model, parts.facts, config["init"])
        if state.ema is not None:
            state.ema.load_state_dict(parts.model.state_dict())
        return lines
    return []


def _order_of(split) -> dict:
    """How many samples a split has and a hash of their names in order: what the order of training follows
    from."""
    names = hashlib.sha256()
    for index in range(len(split)):
        names.update(split.name(index).encode("utf-8", "surrogateescape") + b"\n")
    return {"samples": len(split), "names": names.hexdigest()}


def _about_other_samples(resumed: Path | None, order: dict) -> list[str]:
    """What a run that goes on is told if files came, went or changed their names since its checkpoint; [] if
    none did."""
    before = None if resumed is None else checkpoints.describe(resumed).get("order")
    if not isinstance(before, dict) or before == order:
        return []
    counts = f"{before.get('samples')} samples then, {order['samples']} now"
    return [
        f"the training split is no longer that of the checkpoint ({counts}): from here on the run sees "
        f"images in another order"
    ]


def _link_best(resumed: Path, best: float | None, score: str) -> None:
    """A kill between the save of a better checkpoint and its link: `best` is made to point at it."""

    def scored(checkpoint: Path) -> float | None:
        return (checkpoints.describe(checkpoint)["scores"] or {}).get(score)

    if best is None or scored(resumed) != best:
        return
    linked = checkpoints.read_link(resumed.parent / "best")
    if (
        linked is None
        or not (resumed.parent / str(linked)).is_dir()
        or scored(resumed.parent / str(linked)) != best
    ):
        checkpoints.link(resumed.parent.parent, "best", checkpoints.describe(resumed)["step"])


def _summary(config, parts: Parts, plan, num_train: int, num_val: int, loader: Loader, device) -> list[str]:
    epochs = plan.steps * loader.batch_size / num_train
    threads = f", {torch.get_num_threads()} threads" if device.type == "cpu" else ""
    return [
        *_about(config, parts, num_train, num_val),
        f"plan      {plan.steps} steps of {loader.batch_size} images = {epochs:.1f} epochs on "
        f"{device}{threads}",
    ]


def _about(config, parts: Parts, num_train: int, num_val: int) -> list[str]:
    count = sum(p.numel() for p in parts.model.parameters())
    return [
        f"model     {config['model']['name']}, {count:,} parameters; {parts.model.weights_report}",
        f"data      {config['data']['name']}: {num_train} train, {num_val} val; {parts.facts.num_classes} "
        f"classes",
    ]


class _Run:
    """What the loop calls: evaluate and save, for one run folder."""

    def __init__(
        self,
        config,
        folder,
        parts: Parts,
        scoring: _Scoring,
        split,
        device,
        events: Events,
        stop,
        settings: Trainer,
        order: dict | None = None,
    ):
        self.config, self.folder, self.parts, self.scoring, self.split = config, folder, parts, scoring, split
        self.device, self.events, self.stop, self.settings = device, events, stop, settings
        self.order = order

    def evaluate(self, state) -> evaluation.Scores | None:
        """None if a signal came: the evaluation is then still to be done."""
        if self.folder is not None and not checkpoints.has_checkpoint(self.folder):
            self.save(state, None)  # a first evaluation can fail in ways that nothing foresees
        try:
            few = 1 if self.folder is None else None
            scores = _scored(
                self.scoring, state.served, self.split, self.device, self.stop, "evaluating", few
            )
        except Interrupted:
            return None
        numbers = scores.numbers
        self.events.say(f"step {state.step}, validation")
        self.events.table(evaluation.lines(numbers, self.parts.facts))
        self.events.log(state.step, _flat(numbers, self.parts.facts))
        if scores.pictures:
            title = f"{self.config['model']['name']} on {self.config['data']['name']}, step {state.step}"
            picture = _sheet(scores, self.parts.facts, self.parts.task, title)
            self.events.picture(state.step, "val/sheet", np.asarray(picture))
            if self.folder:
                with storage(self.folder):
                    (self.folder / "report").mkdir(exist_ok=True)
                    picture.save(self.folder / "report" / "validation.png")
        return scores

    def save(self, state, scores) -> None:
        """Writes a checkpoint, moves the links `last` and `best`, drops old ones."""
        if self.folder is None:
            return
        score = None if scores is None else scores.numbers.get(self.parts.task.score)
        sign = -1 if self.parts.task.lower_is_better else 1
        better = score is not None and (state.best is None or sign * score > sign * state.best)
        if better:
            state.best = score
        description = {
            "config": self.config,
            "facts": self.parts.facts.plain(),
            "task": self.parts.task.name,
            "step": state.step,
            "scores": None if scores is None else evaluation.record(scores, self.parts.facts),
            "protocol": None if scores is None else scores.protocol,
            "order": self.order,
        }
        self.events.flush()
        checkpoints.save(self.folder, state.step, state.served.state_dict(), state.plain(), description)
        checkpoints.link(self.folder, "last", state.step)
        if better:
            checkpoints.link(self.folder, "best", state.step)
        checkpoints.prune(self.folder, self.settings.keep_checkpoints)


def _flat(numbers: dict, facts: Facts) -> dict:
    """{"val/miou": …, "val/iou/sky": …} of the metric's numbers."""
    flat = {}
    for name, value in numbers.items():
        if isinstance(value, list):
            flat.update({f"val/{name}/{facts.classes[i]}": one for i, one in enumerate(value)})
        else:
            flat[f"val/{name}"] = value
    return flat


def _result(state, scores, folder: Path | None, task) -> dict:
    numbers = scores.numbers if scores is not None else {}
    if scores is None and folder is not None:
        numbers = checkpoints.describe(checkpoints.find(folder, "last"))["scores"] or {}
    plain = {f"val/{name}": value for name, value in numbers.items() if isinstance(value, (int, float))}
    return {
        "step": state.step,
        **plain,
        "score": f"val/{task.score}",
        "lower_is_better": task.lower_is_better,
    }


def _too_large(settings: Trainer, loader: Loader, device) -> str:
    parts = min(loader.batch_size, 2 * settings.accumulate)
    return (
        f"{device} has too little memory for {loader.batch_size // settings.accumulate} images at a time; "
        f"use trainer.accumulate={parts} "
        f"(then loader.batch_size={loader.batch_size} goes {loader.batch_size // parts} at a time), "
        f"smaller crops or trainer.amp=bf16"
    )


def _same_classes(run: Facts, data: Facts, where: str) -> None:
    if run.classes != data.classes:
        pairs = enumerate(itertools.zip_longest(run.classes, data.classes))
        place = next(i for i, (a, b) in pairs if a != b)
        a, b = (list(classes[place : place + 3]) for classes in (run.classes, data.classes))
        raise ConfigError(
            f"{where} was trained on {len(run.classes)} classes and the data has {len(data.classes)}; they "
            f"differ from index {place}: "
            f"{a} and {b}; use the data set of the run, or data.label_map"
        )


# --- evaluate, predict


def _data_of(config: Mapping, run: str, description: Mapping) -> Data:
    """The data set; where a path of the run leads nowhere from here, the error says from where it did."""
    try:
        return DATA.build(config["data"])
    except ConfigError as error:
        saved, started = description["config"]["data"], _started_in(run)
        kept = (
            value
            for key, value in config["data"].items()
            if value and isinstance(value, str) and value == saved.get(key)
        )
        lost = any(f"'{value}" in str(error) and not Path(value).is_absolute() for value in kept)
        if lost and started is not None and Path(started) != Path.cwd():
            error.args = (
                f"{error}; {run} was started in {started}, where its relative paths begin: go there or "
                f"give the path anew",
            )
        raise


def _started_in(run: str) -> str | None:
    """The directory that the training was started in; None if nothing says so."""
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        return str(json.loads((Path(run) / "run.json").read_text("utf-8"))["directory"])
    return None


def evaluate(config: dict, stop) -> dict:
    """Scores of a run's checkpoint on a split, printed and written to scores.json with a contact sheet."""
    device = _prepare(config)
    found = checkpoints.find(config["run"], config["checkpoint"])
    model, facts, description = build_from(found, config["model"])
    task = TASK.build(description["config"]["task"])
    config = _as_settled(config, description)
    data = _data_of(config, config["run"], description)
    _same_classes(facts, data.facts, config["run"])
    split = _split(data, config["split"])
    metric = METRIC.build(
        {"name": task.metric}, num_classes=facts.num_classes, ignore_index=facts.ignore_index
    )
    scoring = _scoring(config, task, facts, metric)
    output = Path(
        config["output"] or Path(config["run"]) / "evaluate" / _name_of_scores(config, model, description)
    )
    with storage(output):
        output.mkdir(parents=True, exist_ok=True)
    probe(output, 1 << 20)
    scores = _scored(scoring, model.to(device), split, device, stop, f"evaluating {config['split']}")
    # Rates as they are at this output stride.
    used = {key: model.built_with().get(key) or value for key, value in config["model"].items()}
    made = {
        "split": config["split"],
        "checkpoint": description["step"],
        "data": config["data"],
        "model": used,
    }
    protocol = {**scores.protocol, **made}
    record = evaluation.record(replace(scores, protocol=protocol), facts)
    title = (
        f"{config['model']['name']} on {config['data']['name']} {config['split']}, step {description['step']}"
    )
    picture = _sheet(scores, facts, task, title) if scores.pictures else None
    written = _write_scores(output / "scores.json", record, output / "sheet.png", picture)
    print("\n".join([*evaluation.lines(scores.numbers, facts), written]))
    return record


def _write_scores(path: Path, record: dict, picture_path: Path, picture) -> str:
    """Writes both, and gives the line that says so. Without a picture an earlier one goes: it shows other
    scores."""
    with storage(picture_path):
        picture_path.unlink(missing_ok=True)
        if picture is not None:
            picture.save(picture_path)
    write_json(path, record)
    return f"written   {path}" + ("" if picture is None else f", {picture_path}")


def compare(config: dict, stop) -> dict:
    """Scores of several runs on one split, in a table and compare.json, and their masks of a few images side
    by side."""
    if not config["runs"]:
        raise ConfigError("runs is empty; name the folders of the runs: runs=[outputs/first,outputs/second]")
    device = _prepare(config)
    found = {run: checkpoints.find(run, config["checkpoint"], key="runs") for run in config["runs"]}
    first = checkpoints.describe(found[config["runs"][0]])
    task = TASK.build(first["config"]["task"])
    config = _as_settled(config, first)
    data = _data_of(config, config["runs"][0], first)
    split = _split(data, config["split"])
    output = Path(config["output"])
    with storage(output):
        output.mkdir(parents=True, exist_ok=True)
    probe(output, 1 << 20)
    entries = [
        _entry(config, run, checkpoint, task, data.facts, split, device, stop)
        for run, checkpoint in found.items()
    ]
    scored = entries[0].scores
    protocol = {**scored.protocol, "split": config["split"], "data": config["data"]}
    record = {"runs": [entry.record() for entry in entries], "protocol": protocol}
    picture = None
    if scored.pictures:
        title = f"{config['data']['name']} {config['split']}, {protocol['images']} images"
        rows = [
            (image, target, *(entry.scores.pictures[i][2] for entry in entries))
            for i, (image, target, _) in enumerate(scored.pictures)
        ]
        picture = comparison(
            rows, [entry.heads(task.score) for entry in entries], data.facts, task.picture, title
        )
    written = _write_scores(output / "compare.json", record, output / "compare.png", picture)
    print("\n".join([*comparing.lines(entries, task.score, task.lower_is_better), written]))
    return record


def _entry(
    config: dict, run: str, checkpoint: Path, task, facts: Facts, split, device, stop
) -> comparing.Entry:
    """One run of a comparison, scored."""
    model, own, description = build_from(checkpoint)
    if description["config"]["task"]["name"] != task.name:
        raise ConfigError(
            f"runs: {run} was trained for task={description['config']['task']['name']}, the first one for "
            f"{task.name}"
        )
    _same_classes(own, facts, run)
    metric = METRIC.build({"name": task.metric}, num_classes=own.num_classes, ignore_index=own.ignore_index)
    scores = _scored(
        _scoring(config, task, own, metric), model.to(device), split, device, stop, f"evaluating {run}"
    )
    parameters = sum(parameter.numel() for parameter in model.parameters())
    origin = _origin(description["config"])
    return comparing.Entry(
        run, description["config"]["model"]["name"], origin, description["step"], parameters, scores
    )


def _origin(config: Mapping) -> str:
    """What a run's network started from, in a few words."""
    if config.get("init"):
        return f"from {printable(Path(config['init']).name)}"
    name, given = MODEL.check(config["model"])
    made = {**{key: option.default for key, option in MODEL.options(name).items()}, **given}
    encoder = made.get("encoder", "VGG16")
    # Null is ImageNet's wherever there are such weights.
    weights = made.get("weights", "none") or ("none" if encoder == SMALL else "imagenet")
    if weights == "none":
        return "from scratch"
    return f"{encoder} of ImageNet" if weights == "imagenet" else f"from {printable(Path(weights).name)}"


def _name_of_scores(config: Mapping, model: nn.Module, description: Mapping) -> str:
    """val-1000-flip-os8-crf-5b0a9c: the split, the step, and what makes these scores others than those of the
    training: in a word each, and a hash of what the words leave open."""
    words = [config["split"], str(description["step"]), *config["tta"]]
    stride, settings = model.output_stride, PredictorSettings(**config["predictor"])
    if stride != description["config"]["model"].get("output_stride", stride):
        words.append(f"os{stride}")
    words += [name for name in ("boxes", "ensemble", "crf") if getattr(settings, name) is not None]
    left_open = json.dumps(_left_open(config, description["config"]), sort_keys=True)
    return "-".join(
        [*words, *([] if left_open == "{}" else [hashlib.sha256(left_open.encode()).hexdigest()[:6]])]
    )


def _left_open(config: Mapping, saved: Mapping) -> dict:
    """What changes scores, is not as the training had it, and has no word of its own: {"predictor": {"tile":
    5}}."""
    own = {name: saved.get(name) or {} for name in ("data", "model", "predictor", "evaluate", "tta")}
    # Words name the views, and each of those that the training did without has its defaults.
    own["tta"] = {view: own["tta"].get(view, {}) for view in config["tta"]}
    for name in ("predictor", "evaluate"):
        own[name] = {key: value for key, value in own[name].items() if key in config[name]}
    before = check("evaluate", {"run": config["run"], **own})
    worded = {
        "model": ("output_stride",),
        "predictor": ("boxes",),
        "evaluate": ("batch_size", "workers", "pictures"),
    }
    changed = {}
    for name in own:
        # As JSON has them: a tuple is a list, and every key a text.
        here, there = (json.loads(json.dumps(one[name])) for one in (config, before))
        other = {
            key: value
            for key, value in here.items()
            if key not in worded.get(name, ()) and value != there.get(key)
        }
        changed.update({name: other} if other else {})
    return changed


def describe(config: dict, stop) -> list[str]:
    """A network's layers, printed."""
    found = describing.describe(config)
    print("\n".join(found))
    return found


def _split(data: Data, name: str):
    if name not in data.splits:
        raise ConfigError(
            f"split={name} does not exist{nearest(name, data.splits)}; there are "
            f"{', '.join(sorted(data.splits))}"
        )
    return data.splits[name]


def predict(config: dict, stop) -> dict:
    """Masks of files."""
    device = _prepare(config)
    model, facts, description = build_from(
        checkpoints.find(config["run"], config["checkpoint"]), config["model"]
    )
    task = TASK.build(description["config"]["task"])
    settings, views = PredictorSettings(**config["predictor"]), TTA.build_each(config["tta"])
    ensemble = ensemble_of(settings, facts, device)
    run = predictor(
        model.to(device),
        facts.normalisation,
        task.activate,
        settings,
        views,
        stop.raise_if_requested,
        ensemble,
    )
    mask = Mask(run, task.decide, facts, device)
    counts = prediction.predict(
        mask,
        task.picture,
        config["input"],
        config["output"],
        config["overlay"],
        config["probabilities"],
        stop.raise_if_requested,
    )
    folders = [
        f"{name}/" for name in prediction.FOLDERS if config.get(name, True)
    ]  # classes and colours need no asking
    left_out = f"; {counts['left_out']} left out" if counts["left_out"] else ""
    print(
        f"written   {count(counts['images'], 'mask')} to {config['output']} ({', '.join(folders)}){left_out}"
    )
    if counts["left_out"]:
        total, left = counts["images"] + counts["left_out"], counts["left_out"]
        raise DataError(f"{left} of {total} images {'has' if left == 1 else 'have'} no mask (reasons above)")
    return counts
