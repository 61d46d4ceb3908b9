"""A short profile of a training config: seconds a step and an image, and bytes of memory an image."""

from __future__ import annotations

import copy
import functools
import math
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from segtrain.commands.batch_size import check_device, largest_batch
from segtrain.commands.learning import batch_shape, build_learning
from segtrain.commands.parts import Parts, build_parts
from segtrain.commands.runtime import Learned
from segtrain.commands.scoring import score_split, scoring_of
from segtrain.loader.loader import split_to_read, training_batches
from segtrain.loader.usable import first_usable
from segtrain.run.saved import AUTO
from segtrain.settings import Loader, Trainer
from segtrain.train.memory_format import faster_memory_format
from segtrain.train.random_state import random_state, restore_random_state
from segtrain.train.step import train_step, update_average

STEPS, WARM_UP = 20, 4
"""Steps of a profile, and how many of its first are not timed."""
EVALUATED = (1, 3)
"""Batches of the validation split that are evaluated, once each: what the second one takes longer tells the
time of an image, and the rest that of starting."""
IMPORTS_S = 5
"""Seconds that a training takes for its imports and the like."""
SPARE = 0.97
"""Share of trainer.minutes that is planned: the rest is for checkpoints."""

try:
    import resource
except ImportError:  # Windows
    resource = None


@dataclass(frozen=True)
class Profile:
    """step_s: median seconds of a step, with what the loader makes it wait. image_s: seconds of a further
    evaluated image. evaluation_s: seconds of an evaluation beside its images. memory: largest bytes in use
    during the steps, beyond those before."""

    step_s: float
    image_s: float
    evaluation_s: float
    memory: int

    def of_evaluation(self, num_images: int) -> float:
        """Seconds of an evaluation of so many images."""
        return self.evaluation_s + self.image_s * num_images


def profile(
    config: Mapping, parts: Parts, learned: Learned, device, stop, num_steps: int | None = None
) -> Profile:
    """Trains some steps of a checked config; nothing is saved, but `parts` and `learned` are changed.
    num_steps: None: STEPS, after which some images are evaluated."""
    is_whole = num_steps is None
    num_steps = num_steps or STEPS
    train_split, loader = parts.data.splits["train"], Loader(**config["loader"])
    loss = learned.loss.to(device)
    batch_shape(parts, learned.ops, train_split, config["trainer"]["accumulate"], loader)
    settings = Trainer(**{**config["trainer"], "steps": num_steps, "epochs": None})
    before = _memory_before(device)
    learning, state = build_learning(config, parts, settings, loss, device)
    state.train_mode()
    interrupt = functools.partial(stop.raise_if_requested, "stopped while trying some steps")
    seconds = []
    read_from = split_to_read(train_split, learned.ops, loader, interrupt)
    with training_batches(
        read_from, learned.ops, loader, config["seed"], interrupt=interrupt, draws=learned.draws
    ) as batches:
        for _ in range(num_steps):
            start = time.perf_counter()
            learning.freezing(state.step)
            (learning.step or train_step)(state, next(batches), learning)
            state.step += 1
            if state.ema is not None:
                update_average(state, settings.ema)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds.append(time.perf_counter() - start)
            interrupt()
    memory = max(1, _memory(device) - before)
    step_s = statistics.median(seconds[min(WARM_UP, num_steps - 1) :])
    evaluated = _evaluated(config, parts, state, device, stop) if is_whole else (0.0, 0.0)
    return Profile(step_s, *evaluated, memory)


def _evaluated(config: Mapping, parts: Parts, state, device, stop) -> tuple[float, float]:
    """Seconds of a further evaluated image, and of an evaluation beside its images."""
    scoring = scoring_of(config, parts.task, parts.facts)
    split = parts.data.splits["val"]
    timed = {}
    for num_batches in EVALUATED:
        start = time.perf_counter()
        score_split(scoring, state.served, split, device, stop, "trying", num_batches)
        timed[min(len(split), num_batches * scoring.settings.batch_size)] = time.perf_counter() - start
    (few, few_s), (more, more_s) = min(timed.items()), max(timed.items())
    if few == more:  # the whole split
        return more_s / more, 0.0
    image_s = max(0.0, (more_s - few_s) / (more - few))
    return image_s, max(0.0, few_s - few * image_s)


def steps_within(seconds: float, tried: Profile, num_val: int, evaluate_every: int | None) -> int:
    """The largest number of steps, at least 1, that takes no more than `seconds`, with an evaluation after
    each `evaluate_every` steps and after the last one."""
    evaluation_s = tried.of_evaluation(num_val)
    left = seconds - evaluation_s  # the one after the last step
    if evaluate_every is None:
        return max(1, int(left / tried.step_s))
    rounds, rest = divmod(max(0.0, left), evaluate_every * tried.step_s + evaluation_s)
    return max(1, int(rounds) * evaluate_every + min(evaluate_every, int(rest / tried.step_s)))


@dataclass(frozen=True)
class Profiler:
    """What a config leaves to the speed of this machine. Parts and random state stay as they are.

    learned: what the training learns by. start: `time.perf_counter()` when the command began. num_ranks:
    processes that share the batches; rank 0 tries its part of them alone.
    """

    parts: Parts
    learned: Learned
    device: torch.device
    stop: object
    start: float
    num_ranks: int = 1

    def memory_format(self, config: Mapping) -> str:
        """The faster memory format of the network on micro-batches of the run."""
        loader, split = Loader(**config["loader"]), self.parts.data.splits["train"]
        shape = batch_shape(self.parts, self.learned.ops, split, config["trainer"]["accumulate"], loader)
        target = first_usable(split, loader.skip_bad).target
        normalise, loss = self.parts.facts.normalisation, self.learned.loss.to(self.device)
        return faster_memory_format(self.parts.model, normalise, loss, shape, target, self.device)

    def steps(self, config: Mapping) -> int:
        """The steps of a run of trainer.minutes, evaluations included. config: with its intervals in steps
        and its memory format."""
        own = math.ceil(config["loader"]["batch_size"] / self.num_ranks)
        tried = self._tried({**config, "loader": {**config["loader"], "batch_size": own}})
        spent_s = IMPORTS_S + time.perf_counter() - self.start
        left = SPARE * 60 * config["trainer"]["minutes"] - spent_s
        every = config["trainer"]["evaluate_every"]
        num_val = math.ceil(len(self.parts.data.splits["val"]) / self.num_ranks)
        return steps_within(left, tried, num_val, every)

    def loader(self, config: Mapping) -> Loader:
        """The section `loader` of the config, with the batch size in place of auto."""
        loader = Loader(**config["loader"])
        if loader.batch_size != AUTO:
            return loader
        return replace(loader, batch_size=self.num_ranks * self._batch_size(config))

    def _batch_size(self, config: Mapping) -> int:
        """The largest batch of a rank that the GPU has memory for, at most its part of the training split:
        `trainer.accumulate` micro-batches, each as large as fits. ConfigError if the device is no GPU."""
        check_device(self.device)
        accumulate = config["trainer"]["accumulate"]
        num_train = len(self.parts.data.splits["train"]) // self.num_ranks

        def memory_of(images: int) -> int:
            loader = {**config["loader"], "batch_size": images, "workers": 0, "cache": "none"}
            known = config["trainer"]["memory_format"]
            memory_format = "contiguous" if known == AUTO else known
            trainer = {**config["trainer"], "accumulate": 1, "memory_format": memory_format}
            return self._tried({**config, "loader": loader, "trainer": trainer}, num_steps=2).memory

        return accumulate * largest_batch(memory_of, available(self.device), max(1, num_train // accumulate))

    def _tried(self, config: Mapping, num_steps: int | None = None) -> Profile:
        """The profile of a config, on copies."""
        before = random_state()
        parts = replace(self.parts, model=copy.deepcopy(self.parts.model))
        constant = {**config, "schedule": {"name": "constant"}}
        try:
            return profile(constant, parts, copy.deepcopy(self.learned), self.device, self.stop, num_steps)
        finally:  # also where the memory is too small for it
            restore_random_state(before)


def without_pretrained(config: Mapping) -> dict:
    """The config with an encoder that starts from scratch."""
    return {**config, "model": {**config["model"], "weights": "none"}}


def parts_of(config: Mapping) -> Parts:
    """The parts that are profiled: those of a new run."""
    return build_parts({**config, "init": None}, None)


def _memory_before(device: torch.device) -> int:
    """Bytes in use before a profile: on a GPU those of now, else the most so far, which the system counts."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    return _memory(device)


def _memory(device: torch.device) -> int:
    """Largest number of bytes in use since `_memory_before`, on a GPU; else of the process so far."""
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
