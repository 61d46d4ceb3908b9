"""Reading and writing files of tensors; loading runs no code."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch

from segtrain.checkpoint.format import STATE, WEIGHTS, kind_name, stat_of_file
from segtrain.errors import CheckpointError, ConfigError, nearest


def weights_bytes(weights: Mapping[str, torch.Tensor]) -> bytes:
    """A safetensors file of the tensors: equal weights give equal bytes, in every process."""
    seen: set[int] = set()
    plain = {}
    for name, tensor in weights.items():
        tensor = tensor.detach().to("cpu").contiguous()
        # safetensors refuses tensors that share memory (tied weights).
        plain[name] = tensor.clone() if tensor.untyped_storage().data_ptr() in seen else tensor
        seen.add(tensor.untyped_storage().data_ptr())
    # Not more than one key: the order of several differs from process to process.
    return safetensors.torch.save(plain, metadata={"format": "pt"})


def clean_names(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors under the network's own names, without what DistributedDataParallel and torch.compile put
    before them."""
    clean = {}
    for name, tensor in weights.items():
        short = re.sub(r"^(module\.)+", "", name.replace("_orig_mod.", ""))
        if short in clean:
            raise CheckpointError(
                f"two weights are called {short!r} once module. and _orig_mod. are left out"
            )
        clean[short] = tensor
    return clean


def load_weights(checkpoint: Path | str) -> dict[str, torch.Tensor]:
    """The tensors that evaluate and predict use, on the CPU, by the network's own names."""
    return _read_safetensors(Path(checkpoint) / WEIGHTS)


def load_state(checkpoint: Path | str) -> dict:
    """The rest of an exact resume, on the CPU: tensors and plain Python."""
    path = Path(checkpoint) / STATE
    _check_zip(path)
    state = _torch_load(path)
    if not isinstance(state, dict):
        raise CheckpointError(
            f"{path} holds {kind_name(state)} instead of a mapping; it was not written by segtrain"
        )
    return state


def read_weights(path: Path | str, key: str = "init") -> dict[str, torch.Tensor]:
    """Tensors of a weights file from anywhere (.safetensors, .pth, .pt), by names without module. and
    _orig_mod.; runs no code.

    The usual wrappings ({"state_dict": …}, {"model": …} …) are opened. key: how the user gave it, for
    messages.
    """
    path = Path(path)
    if not path.exists():
        raise ConfigError(f"{key}={path} does not exist{_nearest_file(path)}")
    if not path.is_file():
        raise ConfigError(
            f"{key}={path} is not a file; give a .safetensors, .pth or .pt file, or the folder of a run"
        )
    try:
        with open(path, "rb") as file:
            start = file.read(16)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
    if start[8:9] == b"{":
        return clean_names(_read_safetensors(path))
    return clean_names(_unwrapped(_torch_load(path), path))


def _nearest_file(path: Path) -> str:
    try:
        return nearest(path.name, [one.name for one in path.absolute().parent.iterdir()])
    except OSError:
        return ""


_WRAPPINGS = ("state_dict", "model_state_dict", "model_state", "model", "network", "net", "weights", "params")


def _unwrapped(loaded, path: Path) -> dict[str, torch.Tensor]:
    for _ in range(3):
        inner = next(
            (
                loaded[name]
                for name in _WRAPPINGS
                if isinstance(loaded, dict) and isinstance(loaded.get(name), dict)
            ),
            None,
        )
        if inner is None:
            break
        loaded = inner
    tensors = (
        {str(name): one for name, one in loaded.items() if isinstance(one, torch.Tensor)}
        if isinstance(loaded, dict)
        else {}
    )
    if not tensors:
        inside = (
            ", ".join(str(name) for name in list(loaded)[:8])
            if isinstance(loaded, dict)
            else kind_name(loaded)
        )
        raise CheckpointError(
            f"{path} holds no weights but {inside or 'nothing'}; save them by "
            f"torch.save(model.state_dict(), FILE)"
        )
    return tensors


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        stat_of_file(path)
        return safetensors.torch.load_file(path, device="cpu")
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    except (safetensors.SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise CheckpointError(
            f"{path} is not a safetensors file or is damaged ({error}); restore a copy"
        ) from error


def _torch_load(path: Path):
    """What torch.load gives for tensors and plain Python. Anything else that a pickle could ask for is
    refused, not run."""
    try:
        stat_of_file(path)
        with warnings.catch_warnings():
            # What torch says about unusual pickles is either refused below or harmless.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:
        # torch has no class of its own for a damaged file: EOFError, UnpicklingError, RuntimeError, KeyError
        # and others come.
        objects = re.search(r"GLOBAL ([\w.]+)", str(error))
        if objects:
            refused = f"{path} holds Python objects ({objects[1]}), which are never run"
            raise CheckpointError(
                f"{refused}; save its tensors alone by torch.save(model.state_dict(), FILE)"
            ) from error
        first = (str(error).strip().splitlines() or [""])[0][:120]
        raise CheckpointError(
            f"{path} is not a weights file or is damaged ({type(error).__name__}: {first}); restore a copy"
        ) from error


def _check_zip(path: Path) -> None:
    """CheckpointError unless `path` is a zip as torch.save writes it: nothing compressed, so nothing grows
    when it is read."""
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
