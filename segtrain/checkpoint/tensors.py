"""The files of tensors in a checkpoint; loading runs no code."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch

from segtrain.checkpoint.format import STATE, WEIGHTS
from segtrain.errors import CheckpointError
from segtrain.run.own import stat_of_file
from segtrain.tensors import kind_name, read_safetensors, read_torch


def weights_bytes(weights: Mapping[str, torch.Tensor]) -> bytes:
    """The tensors serialised as safetensors; equal weights give equal bytes in every process."""
    seen: set[int] = set()
    plain = {}
    for name, tensor in weights.items():
        tensor = tensor.detach().to("cpu").contiguous()
        # safetensors refuses tensors that share memory (tied weights).
        plain[name] = tensor.clone() if tensor.untyped_storage().data_ptr() in seen else tensor
        seen.add(tensor.untyped_storage().data_ptr())
    # Not more than one key: the order of several differs from process to process.
    return safetensors.torch.save(plain, metadata={"format": "pt"})


def load_weights(checkpoint: Path | str) -> dict[str, torch.Tensor]:
    """The weights of a checkpoint for evaluate and predict, by tensor name, on the CPU."""
    return read_safetensors(Path(checkpoint) / WEIGHTS)


def load_state(checkpoint: Path | str) -> dict:
    """The training state of a checkpoint (optimizer, scaler, random states …), on the CPU."""
    path = Path(checkpoint) / STATE
    _check_zip(path)
    state = read_torch(path)
    if not isinstance(state, dict):
        raise CheckpointError(
            f"{path} holds {kind_name(state)} instead of a mapping; it was not written by segtrain"
        )
    return state


def _check_zip(path: Path) -> None:
    """CheckpointError unless `path` is an uncompressed zip archive, as torch.save writes it: a compressed one
    could expand to any size."""
    try:
        stat_of_file(path)
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); use another checkpoint") from error
    if (
        any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
        or sum(entry.file_size for entry in entries) > path.stat().st_size
    ):
        raise CheckpointError(f"{path} is compressed, which segtrain never writes; use another checkpoint")
