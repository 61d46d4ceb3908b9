"""Settles a training config: decides, once and before config.yaml is written, what it leaves to the machine
or to the files (unset values: null or auto).

`device=auto` and `threads=null` stay open: a run may be resumed on another machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from segtrain.commands.parts import Parts
from segtrain.commands.profiling import Profiler
from segtrain.commands.resume import check_samples, fingerprints
from segtrain.predictor.crf import chosen_solver
from segtrain.run.saved import AUTO, write_config
from segtrain.settings import Loader, Trainer
from segtrain.text import flatten, show
from segtrain.train.plan import ONE_STEP, Plan, about_length, check_length, in_steps, plan_of, steps_of

MAX_SHOWN = 100
"""Longest value on the `settled` line, in characters."""


@dataclass(frozen=True)
class Settled:
    """A settled config.

    config: with every unset value settled, as saved in config.yaml. samples: `fingerprints` of the data,
    saved in checkpoints for the check of a resumed run; None for a dry run. lines: to print, about the
    settled values and the data of a resumed run. length: to print with the plan, about a length that nobody
    has set.
    """

    config: dict
    samples: dict | None
    lines: list[str]
    length: str = ""

    @property
    def plan(self) -> Plan:
        """When the loop logs, evaluates and saves; a dry run takes `loop_plan`."""
        return plan_of(Trainer(**self.config["trainer"]))

    @property
    def loop_plan(self) -> Plan:
        """The plan that the loop follows: one step in a dry run, which saves nothing."""
        return ONE_STEP if self.samples is None else self.plan


def settle(
    config: Mapping,
    folder: Path | None,
    parts: Parts,
    description: Mapping | None,
    profiler: Profiler | None,
    batch_size: int | None = None,
) -> Settled:
    """Settles the config and writes config.yaml.

    folder: of the run, None for a dry run. description: of the checkpoint to resume from; None for a new run.
    profiler: of the speed of this machine; None for a network that fits itself, which has no loop.
    batch_size: in place of loader.batch_size=auto.
    ConfigError if paths of a resumed run's data changed and the samples there are others.
    """
    saved = None if description is None else description["config"]
    of_batches = config if batch_size is None else _with_batches(config, batch_size)
    settled = _settled_config(of_batches, saved, parts, profiler)
    lines = _about_settled(config, settled)
    new = saved is None and profiler is not None
    length = about_length(Trainer(**config["trainer"]), _epoch(of_batches, parts)) if new else ""
    if folder is None:
        return Settled(settled, None, lines, length)
    samples = fingerprints(parts.data)
    lines += check_samples(settled, description, samples)
    write_config(folder, settled)
    return Settled(settled, samples, lines, length)


def _with_batches(config: Mapping, batch_size: int) -> dict:
    return {**config, "loader": {**config["loader"], "batch_size": batch_size}}


def _settled_config(config: Mapping, saved: Mapping | None, parts: Parts, profiler: Profiler | None) -> dict:
    """The config with the class names and label_map found in the masks, the solver of the CRF, and, for the
    loop, its intervals in optimizer steps, its length and its memory format."""
    predictor = dict(config["predictor"])
    if predictor["crf"] is not None:
        predictor["crf_solver"] = chosen_solver(predictor["crf_solver"])
    settled = {**config, "data": {**config["data"], **parts.data.settled}, "predictor": predictor}
    if profiler is None:
        return settled
    settings, steps_per_epoch = Trainer(**config["trainer"]), _epoch(config, parts)
    trainer = settled["trainer"] = _in_steps(config["trainer"], steps_per_epoch)
    # A resumed run keeps its number of steps, even if the number of samples has changed.
    is_new = saved is None or saved["trainer"].get("steps") is None
    if is_new and settings.minutes is None:
        trainer["steps"] = steps_of(settings, steps_per_epoch)
    elif is_new:
        check_length(settings)
    if settings.memory_format == AUTO:
        trainer["memory_format"] = profiler.memory_format(settled)
    if is_new and settings.minutes is not None:
        trainer["steps"] = profiler.steps(settled)
    return settled


def _epoch(config: Mapping, parts: Parts) -> float:
    """Optimizer steps in one pass over the training split."""
    return len(parts.data.splits["train"]) / Loader(**config["loader"]).batch_size


def _in_steps(trainer: Mapping, steps_per_epoch: float) -> dict:
    """The section `trainer` with its intervals in optimizer steps."""
    intervals = {
        key: in_steps(trainer[key], steps_per_epoch, f"trainer.{key}")
        for key in ("evaluate_every", "save_every")
    }
    return {**trainer, **intervals}


def _about_settled(config: Mapping, settled: Mapping) -> list[str]:
    """One line with the settled keys: those whose values differ from the composed config."""
    before = flatten(config)
    changed = {key: show(value) for key, value in flatten(settled).items() if before.get(key) != value}
    words = [
        f"{key}={text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + '…'}" for key, text in changed.items()
    ]
    return [f"settled   {' '.join(words)}"] if words else []
