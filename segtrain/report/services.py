"""Experiment trackers beside TensorBoard: Weights & Biases and MLflow, offline unless their own environment
variables say where to.

Their keys and addresses come from the environment (WANDB_API_KEY, MLFLOW_TRACKING_URI …) and never from the
config, which is saved.
"""

from __future__ import annotations

import contextlib
import importlib
import netrc
import os
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from segtrain.errors import ConfigError
from segtrain.run.own import read_own
from segtrain.run.storage import write_atomic
from segtrain.text import flatten, notice, show

ID = "tracker_{}"
"""File in the run folder with the tracker's id of the run, by which a resumed run goes on in it."""
MAX_PARAMETER = 500
"""Longest value of a config key that MLflow takes, in characters."""
BATCH = 100
"""Parameters and metrics that MLflow takes in one call."""


class Service:
    """A tracker of one run, which may fail without harm: an error of the service is told once, and the run
    goes on without it."""

    def __init__(self, name: str, folder: Path, config: Mapping, start: Callable):
        """start(folder, config) -> (scalars, picture, close) of the service."""
        self._name, self._failed = name, False
        self._functions: tuple[Callable, ...] = ()
        with self._harmless():
            self._functions = start(folder, config)

    def scalars(self, step: int, numbers: Mapping[str, float]) -> None:
        self._call(0, step, numbers)

    def picture(self, step: int, name: str, image: np.ndarray) -> None:
        """image: H×W×3 uint8."""
        self._call(1, step, name, image)

    def close(self) -> None:
        self._call(2)

    def _call(self, place: int, *given) -> None:
        if not self._failed:
            with self._harmless():
                self._functions[place](*given)

    @contextlib.contextmanager
    def _harmless(self):
        try:
            yield
        except Exception as error:  # what these libraries raise has no common class
            self._failed = True
            reason = (str(error).strip().splitlines() or [""])[0][:200]
            notice(
                f"tracker={self._name} failed ({type(error).__name__}: {reason}); the run goes on without it"
            )


def service(name: str | None, folder: Path | None, config: Mapping) -> Service | None:
    """The tracker `wandb` or `mlflow` of the run in `folder`; None for none, or without a folder. ConfigError
    if its package is not installed."""
    if name is None:
        return None
    check_installed(name)
    return Service(name, folder, config, STARTS[name]) if folder is not None else None


def check_installed(name: str) -> None:
    """ConfigError if the package of a tracker is not installed."""
    try:
        importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"tracker={name} needs {name}, which is not installed; pip install 'segtrain[{name}]', or use "
            f"tracker=null"
        ) from error


def _id_of(folder: Path, name: str, make: Callable[[], str]) -> str:
    """The tracker's id of the run: the one in the run folder, or a new one that is written there."""
    path = folder / ID.format(name)
    with contextlib.suppress(OSError):
        known = read_own(path, 200).decode(errors="replace").strip()
        if known.isalnum():
            return known
    made = make()
    write_atomic(path, made.encode())
    return made


def _wandb(folder: Path, config: Mapping) -> tuple[Callable, ...]:
    wandb = importlib.import_module("wandb")
    run = wandb.init(
        dir=folder,
        id=_id_of(folder, "wandb", lambda: secrets.token_hex(4)),
        name=folder.name,
        project=os.environ.get("WANDB_PROJECT", "segtrain"),
        config=dict(config),
        resume="allow",
        mode=os.environ.get("WANDB_MODE") or ("online" if _has_wandb_key() else "offline"),
        settings=wandb.Settings(silent=True, console="off"),
    )
    run.define_metric("*", step_metric="step")  # wandb's own steps may not go back, as a resumed run does

    def scalars(step: int, numbers: Mapping[str, float]) -> None:
        run.log({**numbers, "step": step})

    def picture(step: int, name: str, image: np.ndarray) -> None:
        run.log({name: wandb.Image(image), "step": step})

    return scalars, picture, run.finish


def _has_wandb_key() -> bool:
    """Whether wandb would find a key to log in by; without one it asks on the terminal."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    with contextlib.suppress(OSError, netrc.NetrcParseError):
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    return False


def _mlflow(folder: Path, config: Mapping) -> tuple[Callable, ...]:
    address = os.environ.get("MLFLOW_TRACKING_URI")
    if not address:
        # MLflow 3 asks for this before it writes files.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        address = (folder.absolute().parent / "mlruns").as_uri()
    mlflow = importlib.import_module("mlflow")
    client = mlflow.MlflowClient(tracking_uri=address)
    entities = importlib.import_module("mlflow.entities")
    experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", "segtrain")

    def new_run() -> str:
        known = client.get_experiment_by_name(experiment)
        of_experiment = client.create_experiment(experiment) if known is None else known.experiment_id
        made = client.create_run(of_experiment, run_name=folder.name).info.run_id
        settings = [
            entities.Param(key, show(value)[:MAX_PARAMETER]) for key, value in flatten(config).items()
        ]
        for first in range(0, len(settings), BATCH):
            client.log_batch(made, params=settings[first : first + BATCH])
        return made

    run = _id_of(folder, "mlflow", new_run)
    client.update_run(run, status="RUNNING")

    def scalars(step: int, numbers: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        metrics = [entities.Metric(key, float(value), now, step) for key, value in numbers.items()]
        for first in range(0, len(metrics), BATCH):
            client.log_batch(run, metrics=metrics[first : first + BATCH])

    def picture(step: int, name: str, image: np.ndarray) -> None:
        client.log_image(run, image, key=name, step=step)

    return scalars, picture, lambda: client.set_terminated(run)


STARTS: dict[str, Callable] = {"wandb": _wandb, "mlflow": _mlflow}
