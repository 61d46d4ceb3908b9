"""From a composed config to a run: its folder and lock, then torch, then the run itself, and the record of
how it ended."""

from __future__ import annotations

import contextlib
import datetime
import errno
import importlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import NoneType
from typing import Any

from segtrain.catalogue import show
from segtrain.compose import flatten
from segtrain.errors import CheckpointError, ConfigError, SegtrainError
from segtrain.plain_yaml import check_plain, read_yaml, to_yaml
from segtrain.run_folder import Lock, Stop, check_name, create, write_atomic, write_json
from segtrain.settings import GROUPS, SECTIONS

OUTPUTS = Path("outputs")
CONFIG, RECORD, METRICS, DEBUG_LOG = "config.yaml", "run.json", "metrics.jsonl", "debug.log"
PACKAGES = (
    "segtrain",
    "torch",
    "torchvision",
    "hydra-core",
    "omegaconf",
    "timm",
    "albumentations",
    "numpy",
    "opencv-python-headless",
)

RESUMABLE = re.compile(r"name|resume|device|threads|trainer\.compile|.*\.workers|.*_every|trackers?\b.*")
"""Keys that may change while a run goes on: they change no weights."""


class Bug(SegtrainError):
    """Something that no user can have caused; the traceback is in a file."""


def assemble():
    """segtrain.assemble, imported late: it brings torch, which takes seconds, and the lock is taken
    before."""
    return importlib.import_module("segtrain.assemble")


# --- where a run goes


def run_folder_of(config: Mapping, wish: str | None) -> tuple[Path, bool]:
    """The run's folder and whether it was made just now. wish: a path that the user typed for it."""
    name, resume = config["name"], config["resume"]
    if resume not in (None, "auto"):
        return existing_run(resume, "resume"), False
    if name is not None:
        check_name(name)
    if wish is not None and name is not None:
        raise ConfigError(
            f"name={name} and hydra.run.dir={wish} both say where the run goes; give one of them"
        )
    outputs, last = (Path(wish).parent, Path(wish).name) if wish else (OUTPUTS, name)
    if resume == "auto":
        if last is None:
            raise ConfigError(
                "resume=auto needs a name to find the run by; add name=NAME, or give resume=FOLDER"
            )
        if (outputs / last).is_dir():
            return outputs / last, False
    return create(outputs, last), True


def existing_run(folder: str, key: str) -> Path:
    """The folder of a run that somebody typed. ConfigError if there is none."""
    path = Path(folder)
    if not folder:
        raise ConfigError(
            f"{key} is empty (an unset variable of the shell?); give the folder of a run{_last_runs()}"
        )
    if not path.is_dir():
        raise ConfigError(f"{key}={folder} does not exist{_last_runs()}")
    stages = sorted(str(stage.parent) for stage in path.glob(f"stage*/{CONFIG}"))
    if stages and not (path / CONFIG).is_file():
        raise ConfigError(
            f"{key}={folder} holds stages; give one of them: {', '.join(stages)}. To go on with all of "
            f"them, repeat the command "
            f"with resume=auto and name=NAME or hydra.run.dir={folder}"
        )
    if not (path / CONFIG).is_file():
        raise ConfigError(f"{key}={folder} is not the folder of a run: it holds no {CONFIG}{_last_runs()}")
    return path


def _last_runs() -> str:
    found = [
        path.parent
        for pattern in (f"*/{CONFIG}", f"*/*/{CONFIG}", f"*/*/*/{CONFIG}")
        for path in OUTPUTS.glob(pattern)
    ]
    newest = sorted(found, key=lambda path: path.stat().st_mtime)[-3:]
    return f"; the last runs are {', '.join(map(str, reversed(newest)))}" if newest else ""


def has_checkpoint(folder: Path) -> bool:
    """Whether the folder holds anything to go on with. It imports torch."""
    return importlib.import_module("segtrain.checkpoint").has_checkpoint(folder)


# --- what a run was made with


def saved_config(folder: Path) -> dict:
    """The config that the run was saved with, as plain data. A damaged one is a CheckpointError, a dangerous
    one a ConfigError."""
    path = folder / CONFIG
    try:
        config = read_yaml(path)
    except ConfigError as error:
        if "holds the key" in str(error):
            raise
        raise CheckpointError(str(error)) from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} is not a config; {_restore(folder)}")
    check_plain(config, path, ("defaults",))
    for key in {*SECTIONS["train"], *GROUPS["train"]} - {""}:
        if not isinstance(config.get(key), (Mapping, NoneType)):
            raise CheckpointError(f"{path}: {key} is {config[key]!r}, not a mapping; {_restore(folder)}")
    for key, value in flatten(config).items():
        if "${" in str(value):
            raise ConfigError(f"{path}: {key} holds '${{'; the config of a run holds plain values only")
    return config


def _restore(folder: Path) -> str:
    return f"restore it from the description in {folder}/checkpoints"


def checked_saved(folder: Path) -> dict:
    """The saved config of a training run, checked and with the defaults of keys that it does not know yet."""
    return assemble().check("train", saved_config(folder))


def check_overrides_of_saved(typed: list, saved: Mapping, run: str) -> None:
    """ConfigError if an override of evaluate or predict chooses another network. Its options are compared
    once it is built."""
    for one in typed:
        if one.key == "model":
            raise ConfigError(
                f"model={one.text} cannot change here: the weights of {run} were trained with "
                f"{(saved.get('model') or {}).get('name')}; "
                f"train a new run with `segtrain train init={run} model={one.text}`"
            )


def check_unchanged(saved: Mapping, config: Mapping, folder: Path) -> None:
    """ConfigError if a run that goes on would do so with a value that matters and that it was not started
    with."""
    old, new = flatten(_plain(saved)), flatten(_plain(config))
    for key in dict.fromkeys([*new, *old]):
        if (
            old.get(key) == new.get(key)
            or RESUMABLE.fullmatch(key)
            or _settled(key, old.get(key), new.get(key))
        ):
            continue
        raise ConfigError(
            f"{key} is {show(new.get(key))}, but {folder} was started with {show(old.get(key))}; a run "
            f"that goes on may change only "
            f"workers, device, threads, trainer.compile and *_every: choose another name, with "
            f"init={folder} to start from its weights"
        )


def _settled(key: str, old: Any, new: Any) -> bool:
    """`auto` was settled by the run itself, which saved its answer."""
    return key == "trainer.memory_format" and "auto" in (old, new)


def _plain(config: Mapping) -> dict:
    return json.loads(json.dumps(config))


# --- the run


def train(config: dict, wish: str | None, stop: Stop, words: list[str]) -> tuple[Path | None, dict]:
    """Trains as `config` says; the run's folder (None for a dry run) and the last scores. words: the command
    line, for the record."""
    if config["dry_run"]:
        return None, assemble().train(assemble().check("train", config), None, stop)
    folder, made = run_folder_of(config, wish)
    if any(folder.glob(f"stage*/{CONFIG}")):
        raise ConfigError(f"{folder} holds the stages of another run; choose another name")
    return folder, train_in(folder, made, config, stop, words)


def train_in(folder: Path, made: bool, config: dict, stop: Stop, words: list[str]) -> dict:
    """Trains in a folder, going on if it holds a checkpoint. made: it was made for this run and goes again if
    that cannot begin."""
    with Lock(folder), debug_log(folder):
        try:
            _import_torch(stop)
            stop.at_once = True  # until the loop begins
            checked = assemble().check("train", config)
            if has_checkpoint(folder):
                check_unchanged(checked_saved(folder), checked, folder)
            write_atomic(folder / CONFIG, to_yaml(_plain(checked)).encode())
            with Record(folder, checked, words) as record:
                record.scores = assemble().train(checked, folder, stop)
            return record.scores
        except SegtrainError:
            # Under the lock: another process may have found the new folder and begun in it.
            if made and not has_checkpoint(folder) and not (folder / METRICS).exists():
                remove_run(folder)
            if stop.at_once:
                stop.raise_if_requested()  # the signal came while something took every exception for its own
            raise
        finally:
            stop.at_once = False


def _import_torch(stop: Stop) -> None:
    """Imports all that a run needs. A signal waits for the end of it: an import of torch that is broken off
    leaves half a module behind, on which whatever tidies up afterwards would crash."""
    for module in ("torch", "segtrain.assemble"):
        stop.raise_if_requested()
        importlib.import_module(module)
    stop.raise_if_requested()


def remove_run(folder: Path) -> None:
    """Takes away a folder that was made for a run which then could not begin."""
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        # The folder of the day, if this was its only run.
        if re.fullmatch(r"\d{4}-\d\d-\d\d", folder.parent.name):
            folder.parent.rmdir()


@contextlib.contextmanager
def debug_log(folder: Path | None) -> Iterator[None]:
    """Turns an exception that is our own fault into one line; its traceback goes to debug.log in `folder`
    (None: a new file)."""
    try:
        yield
    except SegtrainError:
        raise
    except (MemoryError, BrokenPipeError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            raise ConfigError(
                f"{error.filename}: the name is too long; allowed: 255 bytes a folder"
            ) from error
        # torch's classes for it are not imported here: the CPU's allocator has none, the GPU's is called
        # OutOfMemoryError.
        if type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error):
            raise MemoryError from error
        path = _write_traceback(folder)
        summary = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
        raise Bug(
            f"this is a fault of segtrain ({summary}); the traceback is in {path}, please report it"
        ) from error


def _write_traceback(folder: Path | None) -> Path:
    now = datetime.datetime.now().astimezone().isoformat()
    text = f"{now}\n{' '.join(sys.argv)}\n{traceback.format_exc()}\n"
    if folder is not None:
        with (
            contextlib.suppress(OSError),
            open(folder / DEBUG_LOG, "a", encoding="utf-8", errors="backslashreplace") as file,
        ):
            file.write(text)
            return folder / DEBUG_LOG
    descriptor, path = tempfile.mkstemp(prefix="segtrain-", suffix=".debug.log")
    with open(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
    return Path(path)


class Record:
    """run.json: with what a run was made, when, and how it ended. Set `scores` before the block ends."""

    def __init__(self, folder: Path, config: Mapping, words: list[str]):
        self.path = folder / RECORD
        self.scores: dict = {}
        self._start = time.monotonic()
        earlier = read_record(folder)
        self.content = {
            "command": words,
            "started": _now(),
            "ended": None,
            "seconds": None,
            "exit_code": None,
            "error": None,
            "scores": None,
            "seed": config["seed"],
            "host": socket.gethostname(),
            "directory": os.getcwd(),
            "python": platform.python_version(),
            "versions": _versions(),
            "git": git_commit(),
            "earlier": [*earlier.pop("earlier", []), earlier] if earlier else [],
        }

    def __enter__(self) -> Record:
        write_json(self.path, self.content)
        return self

    def __exit__(self, kind, error, _trace) -> None:
        code = 0 if error is None else getattr(error, "exit_code", 130 if kind is KeyboardInterrupt else 1)
        self.content.update(ended=_now(), seconds=round(time.monotonic() - self._start, 1))
        self.content.update(
            exit_code=code, error=None if error is None else str(error), scores=self.scores or None
        )
        # A full disk must not hide what went wrong before.
        with contextlib.suppress(SegtrainError) if error is not None else contextlib.nullcontext():
            write_json(self.path, self.content)


def read_record(folder: Path) -> dict:
    """What run.json says; {} if there is none or it cannot be read. Values of another type are left out."""
    record, path = {}, folder / RECORD
    with contextlib.suppress(OSError, ValueError, RecursionError):
        record = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    kinds = {"exit_code": int, "seconds": (int, float), "scores": dict, "earlier": list}
    fields = record.items() if isinstance(record, dict) else ()
    kept = {key: value for key, value in fields if isinstance(value, kinds.get(key, object))}
    if "scores" in kept:
        number_or_text = (int, float, str)
        scores = {key: value for key, value in kept["scores"].items() if isinstance(value, number_or_text)}
        score = scores.get("score")
        whole = isinstance(score, str) and isinstance(scores.get(score, 0), (int, float))
        kept["scores"] = scores if whole else {}
    return kept


def _now() -> str:
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def git_commit() -> dict | None:
    """Commit of the repository that the command was started in, and whether tracked files differ from it;
    None outside of one."""

    def git(*words: str) -> subprocess.CompletedProcess:
        return subprocess.run(["git", *words], capture_output=True, text=True, timeout=5, check=False)

    with contextlib.suppress(OSError, subprocess.SubprocessError):
        commit = git("rev-parse", "HEAD")
        if commit.returncode == 0:
            return {
                "commit": commit.stdout.strip(),
                "changed": git("diff-index", "--quiet", "HEAD", "--").returncode != 0,
            }
    return None
