"""Atomic saves: a checkpoint is complete or not there."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

import torch

from segtrain.checkpoint.finite import check_finite
from segtrain.checkpoint.format import (
    DESCRIPTION,
    FORMAT,
    REPLACED,
    STATE,
    WEIGHTS,
    check_description,
    check_state,
    damage_of,
)
from segtrain.checkpoint.tensors import weights_bytes
from segtrain.run.layout import MANIFEST
from segtrain.run.storage import json_bytes, remove, storage, sync_folder, temporary_name
from segtrain.tensors import clean_names


def save(
    run: Path | str, step: int, weights: Mapping[str, torch.Tensor], state: dict, description: dict
) -> Path:
    """Writes RUN/checkpoints/STEP atomically and durably (fsync); returns the folder. A failure leaves older
    checkpoints untouched.

    weights: for evaluate and predict (EMA weights if EMA is on). state: the rest of an exact resume, tensors
    and plain Python only. description: see `describe`.
    Raises CheckpointError if the storage refuses, DivergedError if a number is not finite, TypeError if the
    state would not load with weights_only=True.
    """
    check_state(state)
    check_description(description, "description")
    weights = clean_names(weights)
    check_finite(weights, state, int(step))
    folder = Path(run) / "checkpoints"
    needed = _num_bytes(weights) + _num_bytes(state)
    temporary = temporary_name(folder / str(int(step)))
    try:
        with storage(folder, needed):
            folder.mkdir(exist_ok=True)
            temporary.mkdir()
            _write_files(temporary, int(step), weights, state, description)
            _put_in_place(temporary, folder / str(int(step)))
    finally:
        remove(temporary)
    return folder / str(int(step))


def _write_files(folder: Path, step: int, weights, state, description) -> None:
    writers: dict[str, Callable[[_Hashed], object]] = {
        WEIGHTS: lambda file: file.write(weights_bytes(weights)),
        STATE: lambda file: torch.save(state, file),
        DESCRIPTION: lambda file: file.write(json_bytes(description)),
    }
    files = {name: _write(folder / name, write) for name, write in writers.items()}
    # Last: a folder with a manifest holds all that the manifest names.
    manifest = json_bytes({"format": FORMAT, "step": step, "files": files})
    _write(folder / MANIFEST, lambda file: file.write(manifest))
    sync_folder(folder)


class _Hashed:
    """A file wrapper that hashes what is written to it. The hash is of the data in memory, so a disk that
    stores something else is detected."""

    def __init__(self, file: BinaryIO):
        self.file, self.hash, self.bytes = file, hashlib.sha256(), 0
        self.error: OSError | None = None

    def write(self, data) -> int:
        view = memoryview(data).cast("B")
        self.hash.update(view)
        self.bytes += len(view)
        try:
            self.file.write(view)
        except OSError as error:
            self.error = error
            raise
        return len(view)

    def flush(self) -> None:
        self.file.flush()


def _write(path: Path, write: Callable[[_Hashed], object]) -> dict:
    """Writes and fsyncs one file; returns its entry of the manifest."""
    with open(path, "xb") as file:
        hashed = _Hashed(file)
        try:
            write(hashed)
        except RuntimeError as error:
            # torch.save reports a refused write as an error of its own.
            if hashed.error is None:
                raise
            raise hashed.error from error
        file.flush()
        os.fsync(file.fileno())
    return {"sha256": hashed.hash.hexdigest(), "bytes": hashed.bytes}


def _put_in_place(temporary: Path, final: Path) -> None:
    """Renames the temporary folder to its final name. An older checkpoint of the same step stays readable
    under another name until then."""
    aside = final.with_name(final.name + REPLACED)
    if final.exists():
        if damage_of(final) is None:
            remove(aside)
            os.rename(final, aside)
        else:
            remove(final)
    os.rename(temporary, final)
    sync_folder(final.parent)
    sync_folder(final.parent.parent)
    if aside.exists():
        remove(aside)


def _num_bytes(value) -> int:
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, Mapping):
        return sum(_num_bytes(one) for one in value.values())
    return sum(_num_bytes(one) for one in value) if isinstance(value, (list, tuple)) else 64
