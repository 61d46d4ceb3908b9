"""`RunState`: everything that an exact resume needs."""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from segtrain.checkpoint.restore import load_exactly
from segtrain.errors import CheckpointError
from segtrain.ranks.sharded import local, whole
from segtrain.settings import Trainer
from segtrain.tensors import not_finite
from segtrain.train.fits import first, misfit, optimizer_misfit
from segtrain.train.random_state import random_state, restore_random_state

NUMBERS = ("step", "position", "best", "worse", "evaluation_due")
"""Attributes of a state that are saved as numbers."""
COUNTS = ("step", "position", "worse")


@dataclass
class RunState:
    """The state of a training between two optimizer steps.

    model: the trained network; its optimizer is named "network". ema: the EMA of `model`; None without EMA.
    networks: further networks of the task (a discriminator), each with the optimizer of the same name.
    step: optimizer steps so far. position: samples taken so far, over all epochs. best: best score so far.
    worse: evaluations with a score since then. loss_sum, loss_weight: sums since the last log line.
    evaluation_due: whether the evaluation after `step` is still to be done. statistics: running statistics of
    batch-norm for the training, while `served` has recomputed ones for an evaluation; else None.
    """

    model: nn.Module
    optimizers: dict[str, torch.optim.Optimizer]
    scaler: torch.amp.GradScaler
    loss_sum: Tensor
    loss_weight: Tensor
    ema: nn.Module | None = None
    networks: dict[str, nn.Module] = field(default_factory=dict)
    step: int = 0
    position: int = 0
    best: float | None = None
    worse: int = 0
    evaluation_due: bool = False
    statistics: dict[str, Tensor] | None = None

    def train_mode(self) -> None:
        """Sets all trained networks to training mode."""
        for network in (self.model, *self.networks.values()):
            network.train()

    @property
    def served(self) -> nn.Module:
        """The network that is evaluated and saved as model.safetensors: the EMA if there is one."""
        return self.model if self.ema is None else self.ema

    @functools.cached_property
    def average_tensors(self) -> tuple[list[Tensor], list[Tensor], list[tuple[Tensor, Tensor]]]:
        """(floating-point tensors of the EMA, those of the model in the same order, (EMA, model) pairs of all
        other tensors, which are copied)."""
        states = (map(local, network.state_dict().values()) for network in (self.ema, self.model))
        pairs = list(zip(*states, strict=True))
        floats = [(kept, new) for kept, new in pairs if kept.is_floating_point()]
        return (
            [kept for kept, _ in floats],
            [new for _, new in floats],
            [pair for pair in pairs if not pair[0].is_floating_point()],
        )

    def plain(self) -> dict:
        """The state as tensors and plain Python, without the weights of `served`. Of a sharded run, all ranks
        call it."""
        kept = {
            "raw": dict(self.model.state_dict()) if self.ema is not None else None,
            "statistics": self.statistics,
            "networks": {name: dict(network.state_dict()) for name, network in self.networks.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "scaler": self.scaler.state_dict(),
            "numbers": {name: getattr(self, name) for name in NUMBERS},
            "loss": [self.loss_sum, self.loss_weight],
            "random": random_state(),
        }
        return whole(kept)

    def weights(self) -> dict[str, Tensor]:
        """The weights of `served`. Of a sharded run, all ranks call it."""
        return whole(dict(self.served.state_dict()))

    def restore(self, weights: dict[str, Tensor], plain: dict, source: str) -> None:
        """Restores the state of a checkpoint from its `weights` and `plain`.

        CheckpointError, before any step, if they do not fit this network and its optimizer; it names `source`
        and what does not fit.
        """
        load_exactly(self.served, weights, source, "; it is not of this run's network", CheckpointError)
        if isinstance(plain.get("numbers"), dict):  # earlier versions did not count `worse`
            plain = {**plain, "numbers": {"worse": 0, **plain["numbers"]}}
        wrong = self._misfit(plain)
        if wrong is None and (bad := not_finite(plain)) is not None:
            wrong = f"{bad} holds NaN or infinite values"
        try:
            if wrong is None:
                self._load(plain)
        except (RuntimeError, ValueError, TypeError, KeyError, IndexError, OverflowError) as error:
            wrong = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
        if wrong is not None:
            raise CheckpointError(
                f"{source}: the state of the run does not fit ({wrong}); use another checkpoint, or start a "
                f"new run from its weights by init=RUN"
            )

    def _misfit(self, plain: dict) -> str | None:
        """The first place at which a saved state differs from this one in keys, types or shapes; None if
        there is none."""
        own = self.plain()
        statistics, random = plain.get("statistics"), plain.get("random")
        if not isinstance(random, dict) or not isinstance(random.get("cuda"), list):
            return "the RNG states are missing"
        if not isinstance(statistics, (dict, type(None))):
            return "statistics is not a mapping"
        served = self.served.state_dict()
        own["statistics"] = statistics and {name: served.get(name) for name in statistics}
        own["random"]["cuda"] = random["cuda"]  # of as many GPUs as the checkpoint's machine had
        own["random"].pop("ranks")
        own["random"] |= {"ranks": random["ranks"]} if "ranks" in random else {}  # of as many as the run had
        optimizers = own.pop("optimizers")
        given = {name: value for name, value in plain.items() if name != "optimizers"}
        saved = plain.get("optimizers")
        if not isinstance(saved, dict):
            return "optimizers is not a mapping"
        if saved.keys() != optimizers.keys():
            return f"optimizers of {sorted(map(str, saved))}, not of {sorted(optimizers)}"
        numbers = plain.get("numbers")
        return first(
            [
                misfit(own, given, "state"),
                *(optimizer_misfit(one, saved[name], name) for name, one in self.optimizers.items()),
            ]
        ) or ("a number is negative" if min(numbers[name] for name in COUNTS) < 0 else None)

    def _load(self, plain: dict) -> None:
        self.served.load_state_dict(plain["statistics"] or {}, strict=False)
        if self.ema is not None:
            self.model.load_state_dict(plain["raw"])
        for name, network in self.networks.items():
            network.load_state_dict(plain["networks"][name])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(plain["optimizers"][name])
        self.scaler.load_state_dict(plain["scaler"])
        for name, value in plain["numbers"].items():
            setattr(self, name, value)
        self.loss_sum.copy_(plain["loss"][0])
        self.loss_weight.copy_(plain["loss"][1])
        restore_random_state(plain["random"], self.step)


def new_state(
    model: nn.Module, optimizers: dict, settings: Trainer, device: torch.device, networks: dict | None = None
) -> RunState:
    """The state before the first step. networks: further networks that the task's step trains beside
    `model`."""
    return RunState(
        model=model,
        networks=networks or {},
        optimizers=optimizers,
        scaler=torch.amp.GradScaler(device.type, enabled=settings.amp == "fp16"),
        loss_sum=torch.zeros((), device=device),
        loss_weight=torch.zeros((), device=device),
        ema=copy.deepcopy(model).eval().requires_grad_(False) if settings.ema else None,
    )
