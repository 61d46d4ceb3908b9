"""The counts of metrics, summed over the images of a split."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from segtrain import ranks
from segtrain.errors import ConfigError
from segtrain.sample import Number, ScoreDict


class Counts:
    """Counts of the metrics, see `segtrain.metric`.

    kept: names of the metrics whose counts of every image are kept, as sparse tensors. totals: {metric: its
    counts, summed over the images}.
    """

    def __init__(self, metrics: Mapping[str, object], kept: Collection[str] = ()):
        self.metrics, self.totals = metrics, {}
        self._rows: dict[str, list[Tensor]] = {name: [] for name in kept}

    def add(self, targets: Tensor, evidence: Mapping[str, Tensor], count: int) -> None:
        """Adds a batch. targets: B×H×W or B×T×H×W. evidence: the inputs that the metrics need. count: its
        images; those behind them, which only fill the batch up, have no label."""
        for name, metric in self.metrics.items():
            counts = metric.counts(targets, **{need: evidence[need] for need in metric.needs})
            total = counts.sum(0)
            self.totals[name] = total if name not in self.totals else self.totals[name] + total
            if name in self._rows:
                self._rows[name].append(counts[:count].cpu().to_sparse())

    def gather(self) -> None:
        """Adds the batches of the other ranks, each of which has every W-th batch. The counts of every image
        go to rank 0 alone; the others have none of them any more."""
        if ranks.world_size() == 1:
            return
        totals = ranks.all_gather({name: total.cpu() for name, total in self.totals.items()})
        for name in self.metrics:
            there = [one[name] for one in totals if name in one]
            if there:
                self.totals[name] = sum(there[1:], there[0])
        rows = ranks.gather(self._rows) or []
        self._rows = {name: ranks.interleaved([one[name] for one in rows]) for name in self._rows}

    def per_image(self) -> dict[str, Tensor]:
        """{metric: its counts, one row per image, sparse}, of those that are kept."""
        return {name: torch.cat(rows) for name, rows in self._rows.items() if rows}

    def scores(self) -> tuple[ScoreDict, tuple[str, ...]]:
        """The scores of all metrics, and the keys of the `Number`s of all metrics but the first. ConfigError
        if two metrics give scores of one key."""
        numbers: ScoreDict = {}
        further: list[str] = []
        for name, total in self.totals.items():
            scores = self.metrics[name].scores(total)
            further += [key for key, one in scores.items() if numbers and isinstance(one, Number)]
            twice = numbers.keys() & scores.keys()
            if twice:
                raise ConfigError(
                    f"metric.{name} gives {', '.join(sorted(twice))}, which another metric gives too"
                )
            numbers |= scores
        return numbers, tuple(further)
