"""The sections of a sweep, which belong to the sweep as a whole and to none of its trials."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from segtrain.options import ABOVE_0, FROM_0, FROM_1, SEED, key


@dataclass(frozen=True)
class Sweep:
    """How the trials of a sweep are chosen. `sweep=NAME` is short for `sweep.name=NAME`."""

    name: Literal["grid", "optuna"] | None = key(
        None,
        "grid: every combination of the swept values; optuna: trials proposed by Optuna from the results so "
        "far; null: a single run, and with --multirun grid",
    )
    over: dict[str, str] | None = key(
        None,
        "swept keys with their values in Hydra's syntax, such as {optimizer.lr: 'tag(log,interval(1e-4,"
        "1e-1))'}; a key on the command line replaces its entry",
    )
    trials: Annotated[int, FROM_1] = key(
        20,
        "optuna: number of trials, pruned and failed ones too; one that is tried again counts once; fewer "
        "where the swept keys have fewer combinations, none of which is trained twice",
    )
    sampler: Literal["tpe", "random"] = key(
        "tpe", "optuna: tree-structured Parzen estimator (Bergstra et al. 2011), or random values"
    )
    seed: Annotated[int, SEED] = key(0, "optuna: seed of the sampler")
    startup: Annotated[int, FROM_1] | None = key(
        None,
        "optuna: random trials before tpe proposes, and finished trials before any is pruned; null: a third "
        "of sweep.trials, from 2 to 10",
    )
    prune: bool = key(
        True,
        "optuna: end a trial early if its best validation score so far is worse than the median of the "
        "finished trials at the same step (median stopping rule, Golovin et al. 2017)",
    )


@dataclass(frozen=True)
class Launcher:
    """Where the trials of a sweep run. `launcher=NAME` is short for `launcher.name=NAME`."""

    name: Literal["joblib", "submitit"] | None = key(
        None,
        "joblib: several processes on this machine; submitit: jobs of Slurm; null: one after another in this "
        "process",
    )
    jobs: Annotated[int, FROM_1] | None = key(
        None,
        "trials at once; null: one for each GPU of this machine, without GPUs one; submitit with Slurm: 8. "
        "More trials than GPUs share them",
    )
    gpus: Annotated[int, FROM_0] = key(1, "submitit: GPUs of each job")
    cpus: Annotated[int, FROM_1] = key(8, "submitit: CPU cores of each job")
    memory_gb: Annotated[float, ABOVE_0] | None = key(
        None, "submitit: memory of each job in GB; null: the cluster's default"
    )
    minutes: Annotated[int, FROM_1] = key(
        240, "submitit: time limit of each job; a trial that reaches it saves and goes on in another job"
    )
    partition: str | None = key(None, "submitit: partition of Slurm; null: the cluster's default")
    account: str | None = key(None, "submitit: account of Slurm; null: yours")
    cluster: Literal["auto", "slurm", "local"] = key(
        "auto", "submitit: slurm, or local processes; auto: local where there is no Slurm"
    )
