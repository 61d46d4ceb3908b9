"""Finding the best, the last or a given checkpoint whose hashes match."""

from __future__ import annotations

import os
import re
from pathlib import Path

from segtrain.checkpoint.format import MAX_MANIFEST, REPLACED, damage_of, read_json
from segtrain.errors import CheckpointError, ConfigError, nearest
from segtrain.run.existing import check_single
from segtrain.run.layout import MANIFEST
from segtrain.run.own import stat_of_file
from segtrain.text import notice


def find(run: Path | str, which: str | int = "best", key: str = "run") -> Path:
    """The folder of the chosen checkpoint, complete and with matching hashes. Damaged checkpoints that are
    skipped are named on stderr.

    A missing state.pt is no damage: only the weights are needed. which: "best", "last" (the highest complete
    step) or a step. key: the option that `run` was given by, for error messages.
    Raises ConfigError if there is no such run or step, CheckpointError if no usable checkpoint is left.
    """
    if not str(run):
        raise ConfigError(f"{key} is empty (an unset variable of the shell?); give the folder of a run")
    folder = _checkpoints(Path(run), key)
    if which == "last":
        return newest_whole(folder)
    if which == "best":
        return _best(folder, key)
    if not re.fullmatch(r"\d{1,18}", str(which)):
        raise ConfigError(
            f"checkpoint={which}{nearest(which, ('best', 'last'))}; allowed: best, last or a step"
        )
    step, steps = int(which), sorted({number for number, _ in candidates_in(folder)})
    if step not in steps:
        raise ConfigError(
            f"checkpoint={step}: {folder} has no such step; there are {', '.join(map(str, steps)) or 'none'}"
        )
    return _whole(folder, step, f"checkpoint {step} of {run}", key)


def to_resume(run: Path | str) -> Path | None:
    """The newest complete checkpoint, state.pt included, to resume from; None if the run has none."""
    return newest_whole(Path(run) / "checkpoints", with_state=True) if has_checkpoint(run) else None


def has_checkpoint(run: Path | str) -> bool:
    """Whether the run has any checkpoint, damaged ones included."""
    folder = Path(run) / "checkpoints"
    return folder.is_dir() and bool(candidates_in(folder))


def _checkpoints(run: Path, key: str) -> Path:
    if not run.exists():
        raise ConfigError(f"{key}={run} does not exist{_siblings(run)}")
    check_single(run, key)
    if not run.is_dir():
        raise ConfigError(f"{key}={run} is not a folder; give the folder of a run")
    folder = run / "checkpoints"
    if not folder.is_dir() or not candidates_in(folder):
        raise CheckpointError(
            f"{key}={run} holds no checkpoint{_unfinished(folder, -1)}; train it first or give another run"
        )
    return folder


def _siblings(run: Path) -> str:
    try:
        names = sorted(
            path.name
            for path in run.absolute().parent.iterdir()
            if path.is_dir() and not path.name.startswith(".")
        )
    except OSError:
        return f", nor does {run.parent}" if not run.parent.exists() else ""
    shown = ", ".join(str(run.parent / name) for name in names[-8:])
    return nearest(run, [run.parent / name for name in names]) + (f"; there are {shown}" if names else "")


def candidates_in(folder: Path) -> list[tuple[int, Path]]:
    """(step, folder) of every checkpoint, damaged ones included, highest step first. Sorted by step, not by
    modification time, since clocks may be set back."""
    found = []
    for path in folder.iterdir():
        name = path.name.removesuffix(REPLACED)
        if re.fullmatch(r"\d{1,18}", name) and path.is_dir():
            found.append((int(name), path))
    return sorted(found, key=lambda pair: (-pair[0], len(pair[1].name)))


def _unfinished(folder: Path, over_step: int) -> str:
    """ " (1 unfinished save)" where a writer was killed on the way to a step over `over_step`."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    steps = [
        int(match[1])
        for name in names
        if (match := re.fullmatch(r"\.(\d{1,18})\.\d+-[0-9a-f]{6}\.tmp", name))
    ]
    count = sum(step > over_step for step in steps)
    return f" ({count} unfinished save{'s' if count > 1 else ''})" if count else ""


def newest_whole(folder: Path, with_state: bool = False) -> Path:
    while True:
        passed, removed = [], 0
        for step, path in candidates_in(folder):
            damage = damage_of(path, with_state=with_state)
            if damage is None:
                unfinished = _unfinished(folder, step)
                if passed or unfinished:
                    notice(f"using {path}; passed over {'; '.join(passed) or 'nothing complete'}{unfinished}")
                return path
            if path.exists():
                passed.append(damage)
            else:
                removed += 1
        # A concurrent training removes a checkpoint once the next one is complete.
        if not removed:
            raise CheckpointError(
                f"{folder} holds no whole checkpoint{': ' if passed else ''}{'; '.join(passed)}; train again "
                f"or restore a copy"
            )


def _best(folder: Path, key: str) -> Path:
    while True:
        step = read_link(folder / "best")
        if step is None:
            newest = newest_whole(folder)
            notice(f"{folder.parent} has no best checkpoint yet; using the last one, step {newest.name}")
            return newest
        try:
            return _whole(folder, step, f"the best checkpoint of {folder.parent}, step {step},", key)
        except CheckpointError:
            # A concurrent training may have saved a better checkpoint and removed this one just now.
            if read_link(folder / "best") == step:
                raise


def _whole(folder: Path, step: int, what: str, key: str) -> Path:
    damages = []
    for path in (path for number, path in candidates_in(folder) if number == step):
        damage = damage_of(path, with_state=False)
        if damage is None:
            return path
        damages.append(damage)
    others = (
        number
        for number, path in candidates_in(folder)
        if number != step and damage_of(path, with_state=False) is None
    )
    other = next(others, None)
    # Only commands with run= or runs= have the option checkpoint=.
    choice = f", use checkpoint={other}" if key in ("run", "runs") else ""
    hint = "" if other is None else f"; step {other} is whole{choice}"
    raise CheckpointError(f"{what} cannot be used: {'; '.join(damages) or 'its folder is missing'}{hint}")


def read_link(path: Path | str) -> int | None:
    """The step that RUN/checkpoints/best or last points at; None if there is none."""
    path = Path(path)
    try:
        if path.is_symlink():
            target = os.readlink(path)
        elif path.is_dir():
            # Copied by a program that follows links.
            target = str(read_json(path / MANIFEST, MAX_MANIFEST).get("step"))
        elif path.is_file() and stat_of_file(path).st_size < 64:
            target = path.read_text(encoding="ascii", errors="replace").strip()
        else:
            return None
    except OSError:
        return None
    if not re.fullmatch(r"\d{1,18}", target):
        raise CheckpointError(
            f"{path} points at {target!r:.80}; allowed: a step of its own folder; remove it: the newest "
            f"checkpoint then takes its place"
        )
    return int(target)
