"""The links best and last, and the removal of old checkpoints."""

from __future__ import annotations

import os
from pathlib import Path

from segtrain.checkpoint.finding import candidates_in, read_link
from segtrain.checkpoint.format import REPLACED, damage_of
from segtrain.run.layout import MANIFEST
from segtrain.run.storage import remove, remove_leftovers, storage, sync_folder, temporary_name, write_atomic


def link(run: Path | str, which: str, step: int) -> None:
    """Points the link RUN/checkpoints/best or last (`which`) at `step`, atomically."""
    folder = Path(run) / "checkpoints"
    path = folder / which
    temporary = temporary_name(path)
    if path.is_dir() and not path.is_symlink() and (path / MANIFEST).is_file():
        remove(path)  # a copy that a program which follows links made of the run
    with storage(path):
        try:
            os.symlink(str(int(step)), temporary)
        except OSError:
            # On a file system without symbolic links, a small text file holds the step.
            write_atomic(path, f"{int(step)}\n".encode())
            return
        try:
            os.replace(temporary, path)
        finally:
            remove(temporary)
        sync_folder(folder)


def prune(run: Path | str, keep: int) -> list[int]:
    """Removes all checkpoints except the `keep` newest, best and last; returns the removed steps. Call it
    after `save` and `link`.

    Removes nothing unless at least one checkpoint is complete. Temporary files of killed processes go
    too.
    """
    folder = Path(run) / "checkpoints"
    candidates = candidates_in(folder)
    stay = _kept(folder, candidates, max(1, keep))
    if not stay:
        return []
    for place in (folder, Path(run)):
        remove_leftovers(place)
    for step, path in candidates:
        if step not in stay:
            # Renamed first, so that an interrupted removal does not look like a damaged checkpoint.
            doomed = temporary_name(path)
            with storage(path):
                os.rename(path, doomed)
            remove(doomed)
        elif path.name.endswith(REPLACED) and damage_of(folder / str(step)) is None:
            remove(path)
    return sorted({step for step, _ in candidates} - stay)


def _kept(folder: Path, candidates: list[tuple[int, Path]], keep: int) -> set[int]:
    """Steps that `prune` keeps; empty if no checkpoint is complete."""
    newest = next((step for step, path in candidates if damage_of(path) is None), None)
    if newest is None:
        return set()
    # Damaged ones over the newest whole one stay until their step is saved again; no damaged one counts as
    # kept.
    over = {step for step, _ in candidates if step > newest}
    sizes_match = {
        step for step, path in candidates if step <= newest and damage_of(path, hashes=False) is None
    }
    linked = {step for which in ("best", "last") if (step := read_link(folder / which)) is not None}
    return {*sorted(sizes_match, reverse=True)[:keep], newest, *over, *linked}
