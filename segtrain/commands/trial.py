"""A short trial of a training config: seconds a step and an image, and bytes of memory an image."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from segtrain.commands.learning import batch_shape, build_learning
from segtrain.commands.parts import Parts, build_parts
from segtrain.commands.runtime import augmentation, draws, runtime_of
from segtrain.commands.scoring import score_split, scoring_of
from segtrain.data.survey.stats import frequency_of
from segtrain.loader.loader import training_batches
from segtrain.loss import LOSS
from segtrain.settings import Loader, Trainer
from segtrain.train.step import train_step

STEPS, WARM_UP = 20, 4
"""Steps of a trial, and how many of its first are not timed."""
EVALUATED = 2
"""Batches of the validation split that are evaluated."""

try:
    import resource
except ImportError:  # Windows
    resource = None


@dataclass(frozen=True)
class Trial:
    """step_s: median seconds of a step, with what the loader makes it wait. image_s: seconds of an evaluated
    image. memory: largest bytes in use during the steps, beyond those before."""

    step_s: float
    image_s: float
    memory: int


def trial(
    config: Mapping, parts: Parts, class_pixels: np.ndarray, device, stop, num_steps: int = STEPS
) -> Trial:
    """Trains `num_steps` steps of a checked config and, after STEPS steps, evaluates some images; nothing is
    saved. class_pixels: of the training split, which is not counted again."""
    train_split, loader = parts.data.splits["train"], Loader(**config["loader"])
    runtime = {
        **runtime_of(parts.task, parts.facts, train_split, loader.skip_bad),
        "class_pixels": lambda: class_pixels,
        "class_frequency": lambda: frequency_of(class_pixels, train_split),
    }
    ops = augmentation(config["augmentation"], parts.facts, runtime)
    loss = LOSS.build(config["loss"], **runtime).to(device)
    drawn = draws(config["sampler"], runtime)
    batch_shape(parts, ops, train_split, config["trainer"]["accumulate"], loader)
    settings = Trainer(**{**config["trainer"], "steps": num_steps, "epochs": None})
    before = _memory(device)
    learning, state = build_learning(config, parts, settings, loss, device)
    state.train_mode()
    interrupt = functools.partial(stop.raise_if_requested, "stopped while planning")
    seconds = []
    with training_batches(
        train_split, ops, loader, config["seed"], interrupt=interrupt, draws=drawn
    ) as batches:
        for _ in range(num_steps):
            start = time.perf_counter()
            train_step(state, next(batches), learning)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds.append(time.perf_counter() - start)
            state.step += 1
            interrupt()
    memory = _memory(device) - before
    image_s = _evaluated(config, parts, state, device, stop) if num_steps >= STEPS else 0.0
    return Trial(statistics.median(seconds[min(WARM_UP, num_steps - 1) :]), image_s, max(1, memory))


def _evaluated(config: Mapping, parts: Parts, state, device, stop) -> float:
    """Seconds of an evaluated image."""
    scoring = scoring_of(config, parts.task, parts.facts)
    split = parts.data.splits["val"]
    scores = score_split(scoring, state.served, split, device, stop, "trying", EVALUATED)
    return scores.protocol["seconds"] / min(len(split), EVALUATED * scoring.settings.batch_size)


def without_pretrained(config: Mapping) -> dict:
    """The config with an encoder that starts from scratch."""
    return {**config, "model": {**config["model"], "weights": "none"}}


def parts_of(config: Mapping) -> Parts:
    """The parts of a trial: those of a new run."""
    return build_parts({**config, "init": None}, None)


def _memory(device: torch.device) -> int:
    """Largest number of bytes that were in use so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 if resource else 0


def available(device: torch.device) -> int:
    """Bytes that can be taken: of the GPU, else of the machine or its control group."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    found = [_number("/proc/meminfo", "MemAvailable:") * 1024]
    limit, used = (_number(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
    if limit:
        found.append(limit - used)
    known = [number for number in found if number > 0]
    return min(known) if known else 4 << 30


def _number(path: str, key: str = "") -> int:
    """The number behind `key` in a file of the system; 0 if there is none."""
    try:
        for line in Path(path).read_text().splitlines():
            words = line.removeprefix(key).split()
            if line.startswith(key) and words and words[0].isdecimal():
                return int(words[0])
    except OSError:
        pass
    return 0
