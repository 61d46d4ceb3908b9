"""The run folder of a command: a new one, or that of an existing run."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from segtrain.errors import ConfigError
from segtrain.run.folder import check_name, create
from segtrain.run.layout import CONFIG, MANIFEST, OUTPUTS


def run_folder_of(config: Mapping, run_dir: str | None) -> tuple[Path, bool]:
    """The run folder, and whether it was created now. run_dir: path given by hydra.run.dir."""
    name, resume = config["name"], config["resume"]
    if resume not in (None, "auto"):
        return existing_run(resume, "resume"), False
    if name is not None:
        check_name(name)
    if run_dir is not None and name is not None:
        raise ConfigError(
            f"name={name} and hydra.run.dir={run_dir} both say where the run goes; give one of them"
        )
    outputs, last = (Path(run_dir).parent, Path(run_dir).name) if run_dir else (OUTPUTS, name)
    if resume == "auto":
        if last is None:
            raise ConfigError(
                "resume=auto needs a name to find the run by; add name=NAME, or give resume=FOLDER"
            )
        if (outputs / last).is_dir():
            return outputs / last, False
    return create(outputs, last), True


def existing_run(folder: str, key: str) -> Path:
    """The folder of an existing run that the user named. ConfigError if it is none."""
    path = Path(folder)
    if not folder:
        raise ConfigError(
            f"{key} is empty (an unset variable of the shell?); give the folder of a run{_last_runs()}"
        )
    if not path.is_dir():
        raise ConfigError(f"{key}={folder} does not exist{_last_runs()}")
    check_single(path, key)
    if not (path / CONFIG).is_file():
        raise ConfigError(f"{key}={folder} is not the folder of a run: it holds no {CONFIG}{_last_runs()}")
    return path


def check_single(path: Path, key: str) -> None:
    """ConfigError if the folder is not a run but one of its checkpoints, or the parent folder of stages."""
    if (path / MANIFEST).is_file():
        which = f", and checkpoint={path.name}" if key in ("run", "runs") else ""
        raise ConfigError(f"{key}={path} is a checkpoint; give the run's folder, {path.parent.parent}{which}")
    stages = sorted(str(stage.parent) for stage in path.glob(f"stage*/{CONFIG}"))
    if stages and not (path / CONFIG).is_file():
        whole = (
            f". To go on with all of them, repeat the command with resume=auto and name=NAME or "
            f"hydra.run.dir={path}"
        )
        raise ConfigError(
            f"{key}={path} holds stages; give one of them: {', '.join(stages)}{whole * (key == 'resume')}"
        )


def _last_runs() -> str:
    found = [
        path.parent
        for pattern in (f"*/{CONFIG}", f"*/*/{CONFIG}", f"*/*/*/{CONFIG}")
        for path in OUTPUTS.glob(pattern)
    ]
    newest = sorted(found, key=lambda path: path.stat().st_mtime)[-3:]
    return f"; the last runs are {', '.join(map(str, reversed(newest)))}" if newest else ""


def remove_run(folder: Path) -> None:
    """Removes the folder of a run that could not start."""
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        # The folder of the day, if this was its only run.
        if re.fullmatch(r"\d{4}-\d\d-\d\d", folder.parent.name):
            folder.parent.rmdir()
