"""Plain config to built objects, through the tables; one function a command."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import itertools
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
from segtrain import evaluate as evaluation
from segtrain import predict as prediction
from segtrain import train as training
from segtrain.augmentation import AUGMENTATION
from segtrain.data import DATA
from segtrain.data.parts import Data
from segtrain.data.stats import frequency
from segtrain.errors import ConfigError, Interrupted, ResourceError, nearest
from segtrain.events import Events
from segtrain.initial import start_from
from segtrain.loader import evaluation_batches, training_batches
from segtrain.loss import LOSS
from segtrain.metric import METRIC
from segtrain.model import MODEL
from segtrain.model.norm import check_batch, freeze_batch_norm
from segtrain.optimizer import OPTIMIZER
from segtrain.predictor import Mask, build_from, choose_device, predictor, without_weights
from segtrain.report.sheet import sheet
from segtrain.run_folder import probe, storage, write_json
from segtrain.sample import Facts, Normalisation
from segtrain.schedule import SCHEDULE
from segtrain.schema import TABLES, check
from segtrain.settings import EvaluateSettings, Loader, PredictorSettings, Trainer, in_steps
from segtrain.task import TASK
from segtrain.tta import TTA

__all__ = ["TABLES", "check", "evaluate", "predict", "train"]


# --- what the commands share


def _prepare(config: Mapping) -> torch.device:
    """Threads, seeds, device."""
    if config.get("threads"):
        torch.set_num_threads(config["threads"])
    _keep_memory()
    seed = config.get("seed", 0)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    return choose_device(config["device"])


def _keep_memory() -> None:
    """Lets glibc keep the memory that large tensors free. Returned to the system, it has to be cleared page by page at every step,
    which costs a CPU training step about a tenth of its time. Elsewhere than on glibc nothing changes."""
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
    """The facts with a normalisation: the data set's own, else that of the encoder's weights, else to -1..1."""
    neutral = Normalisation((0.5,) * facts.channels, (0.5,) * facts.channels)
    return replace(facts, normalisation=facts.normalisation or getattr(model, "normalisation", None) or neutral)


def _as_settled(config: Mapping, description: Mapping) -> dict:
    """The config with what the run's data decided by looking at its files (`Data.settled`), where nothing else was typed."""
    saved, data = description["config"]["data"], config["data"]
    if saved["name"] != data["name"]:
        return dict(config)
    return {**config, "data": {key: saved.get(key) if value is None else value for key, value in data.items()}}


def _parts(config: Mapping, resumed: Path | None) -> Parts:
    """resumed: the checkpoint that will be gone on with; the encoder's own weights are then not asked for."""
    task = TASK.build(config["task"])
    data = DATA.build(config["data"])
    facts = data.facts
    metric = METRIC.build({"name": task.metric}, num_classes=facts.num_classes, ignore_index=facts.ignore_index)
    chosen = config["model"] if resumed is None else without_weights(config["model"])
    model = MODEL.build(chosen, out_channels=task.out_channels(facts), num_classes=facts.num_classes, in_channels=facts.channels)
    if resumed is None:
        return Parts(task, data, _complete(facts, model), model, metric)
    saved = Facts.from_plain(checkpoints.describe(resumed)["facts"])
    _same_classes(saved, facts, str(resumed.parent.parent))
    return Parts(task, data, replace(facts, normalisation=saved.normalisation), model, metric)


def _scored(run: _Scoring, model: nn.Module, split, device, stop, progress: str, num_batches: int | None = None) -> evaluation.Scores:
    """The scores of a split, or of its first batches; Interrupted if a signal came in the meantime."""
    interrupt = functools.partial(stop.raise_if_requested, "stopped while evaluating")
    predict = predictor(model, run.facts.normalisation, run.task.activate, run.predictor, run.views, interrupt)
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
        scores = evaluation.evaluate(predict, run.task.decide, run.metric, counted(batches), device, run.settings.absent, shown)
    finally:
        bar.close()
        batches.close()
    protocol = {
        **scores.protocol,
        "tta": run.tta,
        "tile": run.predictor.tile,
        "overlap": run.predictor.overlap if run.predictor.tile else None,
        "amp": run.predictor.amp,
        "ignore_index": run.facts.ignore_index,
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
    settings: EvaluateSettings
    predictor: PredictorSettings
    views: list
    tta: dict


def _scoring(config: Mapping, task, facts: Facts, metric) -> _Scoring:
    return _Scoring(
        task,
        facts,
        metric,
        EvaluateSettings(**config["evaluate"]),
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
    resumed = checkpoints.find(folder, "last") if folder is not None and checkpoints.has_checkpoint(folder) else None
    config = config if resumed is None else _as_settled(config, checkpoints.describe(resumed))
    parts = _parts(config, resumed)
    config = {**config, "data": {**config["data"], **parts.data.settled}}
    train_split, val_split = parts.data.splits["train"], parts.data.splits["val"]
    loader = Loader(**config["loader"])
    ops, loss = _augmentation_and_loss(config, parts, train_split)
    shape = _batch_shape(parts, ops, train_split, config["trainer"]["accumulate"], loader)
    config = _with_memory_format(config, resumed, parts, loss.to(device), shape, device)
    settings = Trainer(**config["trainer"])
    plan = _plan(settings, loader, len(train_split))
    learning, state = _learning(config, parts, settings, plan.steps, loss, device)
    plan = plan if folder else training.Plan(1, 1, None, None)
    started = _resume_or_init(config, resumed, state, parts)
    if folder is not None:
        probe(folder, _checkpoint_bytes(state))

    events = Events(folder, state.step, plan.steps)
    for line in [*_summary(config, parts, plan, len(train_split), len(val_split), loader, device), *started]:
        events.say(line)
    scoring = _scoring(config, parts.task, parts.facts, parts.metric)
    run = _Run(config, folder, parts, scoring, val_split, device, events, stop, settings)
    batches = training_batches(train_split, ops, loader, config["seed"], state.position)
    try:
        scores = training.train(state, learning, plan, batches, run.evaluate, run.save, events, stop)
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        # The CPU's allocator has no exception of its own.
        if type(error) is RuntimeError and "can't allocate memory" not in str(error):
            raise
        raise ResourceError(_too_large(settings, loader, device)) from error
    finally:
        batches.close()
        events.close()
    return _result(state, scores, folder, parts.task)


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
    runtime = {"num_classes": facts.num_classes, "ignore_index": facts.ignore_index, "class_frequency": counted, "facts": facts}
    fill = tuple(round(255 * mean) for mean in facts.normalisation.mean)
    return AUGMENTATION.build_each(config["augmentation"], fill=fill, **runtime), LOSS.build(config["loss"], **runtime)


def _with_memory_format(config: dict, resumed: Path | None, parts: Parts, loss, shape, device) -> dict:
    """The config with trainer.memory_format=auto replaced by its answer: that of the run's start if it goes on."""
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
    if settings.freeze_batch_norm:
        freeze_batch_norm(model)
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
    )
    return learning, state


def _checkpoint_bytes(state) -> int:
    """About what one checkpoint takes: the weights, twice more for an optimizer, once more beside a moving average."""
    weights = sum(tensor.numel() * tensor.element_size() for tensor in state.model.state_dict().values())
    return weights * (3 if state.ema is None else 4)


def _batch_shape(parts: Parts, ops, split, accumulate: int, loader: Loader) -> tuple[int, int, int, int]:
    """(B, K, H, W) of a micro-batch; refuses what would only fail in the middle of a run: crops of different sizes, a batch
    that cannot be split, batch-norm on single values."""
    if loader.batch_size < 1 or accumulate < 1 or loader.batch_size < accumulate:
        raise ConfigError(
            f"loader.batch_size={loader.batch_size} cannot be split into trainer.accumulate={accumulate} parts of an image or more"
        )
    size = next((op.size for op in reversed(ops) if getattr(op, "size", None)), None)
    height, width = (size, size) if isinstance(size, int) else size or split.size(0)
    if size is None and loader.batch_size > 1:
        sizes = {split.size(i) for i in range(min(len(split), 64))}
        if len(sizes) > 1:
            shown = ", ".join(f"{h}x{w}" for h, w in sorted(sizes)[:3])
            raise ConfigError(f"the images have different sizes ({shown} …) and cannot share a batch; set augmentation.warp.size=256")
    count = loader.batch_size // accumulate
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


def _link_best(resumed: Path, best: float | None, score: str) -> None:
    """A kill between the save of a better checkpoint and its link: `best` is made to point at it."""

    def scored(checkpoint: Path) -> float | None:
        return (checkpoints.describe(checkpoint)["scores"] or {}).get(score)

    if best is None or scored(resumed) != best:
        return
    linked = checkpoints.read_link(resumed.parent / "best")
    if linked is None or not (resumed.parent / str(linked)).is_dir() or scored(resumed.parent / str(linked)) != best:
        checkpoints.link(resumed.parent.parent, "best", checkpoints.describe(resumed)["step"])


def _summary(config, parts: Parts, plan, num_train: int, num_val: int, loader: Loader, device) -> list[str]:
    count = sum(p.numel() for p in parts.model.parameters())
    epochs = plan.steps * loader.batch_size / num_train
    threads = f", {torch.get_num_threads()} threads" if device.type == "cpu" else ""
    return [
        f"model     {config['model']['name']}, {count:,} parameters; {getattr(parts.model, 'weights_report', 'no pretrained weights')}",
        f"data      {config['data']['name']}: {num_train} train, {num_val} val; {parts.facts.num_classes} classes",
        f"plan      {plan.steps} steps of {loader.batch_size} images = {epochs:.1f} epochs on {device}{threads}",
    ]


class _Run:
    """What the loop calls: evaluate and save, for one run folder."""

    def __init__(self, config, folder, parts: Parts, scoring: _Scoring, split, device, events: Events, stop, settings: Trainer):
        self.config, self.folder, self.parts, self.scoring, self.split = config, folder, parts, scoring, split
        self.device, self.events, self.stop, self.settings = device, events, stop, settings
        self.probed = False

    def evaluate(self, state) -> evaluation.Scores | None:
        """None if a signal came: the evaluation is then still to be done."""
        try:
            few = 1 if self.folder is None else None
            scores = _scored(self.scoring, state.served, self.split, self.device, self.stop, "evaluating", few)
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
    return {"step": state.step, **plain, "score": f"val/{task.score}", "lower_is_better": task.lower_is_better}


def _too_large(settings: Trainer, loader: Loader, device) -> str:
    parts = min(loader.batch_size, 2 * settings.accumulate)
    return (
        f"{device} has too little memory for {loader.batch_size // settings.accumulate} images at a time; use trainer.accumulate={parts} "
        f"(then loader.batch_size={loader.batch_size} goes {loader.batch_size // parts} at a time), smaller crops or trainer.amp=bf16"
    )


def _same_classes(run: Facts, data: Facts, where: str) -> None:
    if run.classes != data.classes:
        pairs = enumerate(itertools.zip_longest(run.classes, data.classes))
        place = next(i for i, (a, b) in pairs if a != b)
        a, b = (list(classes[place : place + 3]) for classes in (run.classes, data.classes))
        raise ConfigError(
            f"{where} was trained on {len(run.classes)} classes and the data has {len(data.classes)}; they differ from index {place}: "
            f"{a} and {b}; use the data set of the run, or data.label_map"
        )


# --- evaluate, predict


def evaluate(config: dict, stop) -> dict:
    """Scores of a run's checkpoint on a split, printed and written to scores.json with a contact sheet."""
    device = _prepare(config)
    found = checkpoints.find(config["run"], config["checkpoint"])
    model, facts, description = build_from(found, config["model"])
    task = TASK.build(description["config"]["task"])
    config = _as_settled(config, description)
    data: Data = DATA.build(config["data"])
    _same_classes(facts, data.facts, config["run"])
    split = _split(data, config["split"])
    metric = METRIC.build({"name": task.metric}, num_classes=facts.num_classes, ignore_index=facts.ignore_index)
    scoring = _scoring(config, task, facts, metric)
    name = "-".join([config["split"], str(description["step"]), *config["tta"]])
    output = Path(config["output"] or Path(config["run"]) / "evaluate" / name)
    with storage(output):
        output.mkdir(parents=True, exist_ok=True)
    probe(output, 1 << 20)
    scores = _scored(scoring, model.to(device), split, device, stop, f"evaluating {config['split']}")
    made = {"split": config["split"], "checkpoint": description["step"], "data": config["data"], "model": config["model"]}
    protocol = {**scores.protocol, **made}
    record = evaluation.record(replace(scores, protocol=protocol), facts)
    with storage(output):
        if scores.pictures:
            title = f"{config['model']['name']} on {config['data']['name']} {config['split']}, step {description['step']}"
            _sheet(scores, facts, task, title).save(output / "sheet.png")
    write_json(output / "scores.json", record)
    for line in evaluation.lines(scores.numbers, facts):
        print(line)
    print("written   " + ", ".join(str(file) for file in (output / "scores.json", output / "sheet.png") if file.exists()))
    return record


def _split(data: Data, name: str):
    if name not in data.splits:
        raise ConfigError(f"split={name} does not exist{nearest(name, data.splits)}; there are {', '.join(sorted(data.splits))}")
    return data.splits[name]


def predict(config: dict, stop) -> dict:
    """Masks of files."""
    device = _prepare(config)
    model, facts, description = build_from(checkpoints.find(config["run"], config["checkpoint"]), config["model"])
    task = TASK.build(description["config"]["task"])
    settings, views = PredictorSettings(**config["predictor"]), TTA.build_each(config["tta"])
    run = predictor(model.to(device), facts.normalisation, task.activate, settings, views, stop.raise_if_requested)
    mask = Mask(run, task.decide, facts, device)
    counts = prediction.predict(
        mask, task.picture, config["input"], config["output"], config["overlay"], config["probabilities"], stop.raise_if_requested
    )
    folders = [
        "classes/",
        "colours/",
        *(["overlay/"] if config["overlay"] else []),
        *(["probabilities/"] if config["probabilities"] else []),
    ]
    left_out = f"; {counts['left_out']} left out" if counts["left_out"] else ""
    print(f"written   {counts['images']} masks to {config['output']} ({', '.join(folders)}){left_out}")
    return counts
