"""Named tensors from files: the one reader of weight files, whatever they are for. Reading runs no code."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from segtrain.errors import CheckpointError, ConfigError, nearest
from segtrain.run.own import stat_of_file


def existing_file(typed: str, key: str, words: tuple[str, ...] = (), others: str = "") -> Path:
    """The weights file that the option `key` names; ConfigError if there is none.

    words: what else may be typed. others: the same and more, for the message, such as "the folder of a run".
    """
    path = Path(os.path.expanduser(typed))  # Path raises on an unknown user behind ~
    if path.is_file():
        return path
    wrong = "is not a file" if path.exists() else f"does not exist{_nearest_file(path, words)}"
    allowed = ", ".join([*words, *([others] if others else []), "a .safetensors, .pth or .pt file"])
    raise ConfigError(f"{key}={typed} {wrong}; allowed: {allowed}")


def _nearest_file(path: Path, words: tuple[str, ...]) -> str:
    try:
        beside = [one.name for one in path.absolute().parent.iterdir()]
    except OSError:
        beside = []
    return nearest(path.name, [*words, *beside])


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a weights file from anywhere, by names without module. and _orig_mod., on the CPU.

    The content tells the format, safetensors or torch.save's. The usual wrappings ({"state_dict": …},
    {"model": …} …) are opened, and what a LightningModule puts before the names of its network (model. …) is
    left out. CheckpointError if the file cannot be read, is damaged, holds Python objects (which are never
    run) other than BESIDE_WEIGHTS, no tensors, or others than dense ones of finite numbers.
    """
    try:
        stat_of_file(path)
        with open(path, "rb") as file:
            start = file.read(16)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
    if start[8:9] == b"{":
        tensors = read_safetensors(path)
    else:
        with torch.serialization.safe_globals([(_Beside, name) for name in BESIDE_WEIGHTS]):
            tensors = _unwrapped(read_torch(path), path)
    odd = next((name for name, tensor in tensors.items() if not _is_plain(tensor)), None)
    if odd is not None:
        raise CheckpointError(
            f"{path}: {odd} is {_kind_of(tensors[odd])}; allowed: dense tensors of floats (16, 32 or 64 "
            f"bits), integers or booleans; convert it and save the file anew"
        )
    # Strides of 0 let a tensor of a few bytes have any number of elements.
    size = path.stat().st_size
    large = next((name for name, tensor in tensors.items() if tensor.nbytes > size), None)
    if large is not None:
        raise CheckpointError(
            f"{path}: {large} has {tensors[large].nbytes} bytes, more than the whole file ({size}); make it "
            f"contiguous and save the file anew"
        )
    bad = not_finite(tensors)
    if bad is not None:
        raise CheckpointError(f"{path}: {bad} holds NaN or infinite values; use other weights")
    return _of_the_network(clean_names(tensors))


BESIDE_WEIGHTS = (
    "argparse.Namespace",
    *(f"{module}.{kind}Path" for module in ("pathlib", "pathlib._local") for kind in ("Posix", "Windows")),
    "numpy.dtype",
    "numpy.ndarray",
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
)
"""Python objects that training programs (torchvision's references, timm …) save beside the weights: options
and scores. None of them is made: a `_Beside` takes the place of each."""


class _Beside:
    """In place of an object that is not needed. It takes whatever a pickle would give that object and keeps
    none of it."""

    def __init__(self, *_):
        pass

    def __new__(cls, *_):
        return super().__new__(cls)

    def __setstate__(self, _) -> None:
        pass


_ATTRIBUTES = ("model.", "network.", "net.")


def _of_the_network(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without the name of the one attribute that holds them all; tensors of the object around it,
    whose names have no dot, are left out."""
    dotted = {name: tensor for name, tensor in tensors.items() if "." in name}
    for prefix in _ATTRIBUTES:
        if dotted and all(name.startswith(prefix) for name in dotted):
            return {name.removeprefix(prefix): tensor for name, tensor in dotted.items()}
    return tensors


_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def _is_plain(tensor: Tensor) -> bool:
    known = tensor.dtype in _FLOATS or not (tensor.is_floating_point() or tensor.is_complex())
    special = tensor.is_quantized or tensor.is_meta or tensor.is_nested
    return known and tensor.layout is torch.strided and not special


def _kind_of(tensor: Tensor) -> str:
    """'a torch.sparse_coo tensor of torch.float32'"""
    where = " without numbers" if tensor.is_meta else ""
    if tensor.is_nested:
        return f"a nested tensor of {tensor.dtype}"
    return f"a {tensor.layout} tensor of {tensor.dtype}{where}"


_WRAPPINGS = ("state_dict", "model_state_dict", "model_state", "model", "network", "net", "weights", "params")


def _unwrapped(loaded, path: Path) -> dict[str, Tensor]:
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
        {str(name): one for name, one in loaded.items() if isinstance(one, Tensor)}
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


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors by name, on the CPU; CheckpointError if the file is damaged or none."""
    try:
        stat_of_file(path)
        if not _is_utf8(path):
            return safetensors.torch.load(path.read_bytes())  # load_file takes names in UTF-8 only
        return safetensors.torch.load_file(path, device="cpu")
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    except (safetensors.SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise CheckpointError(
            f"{path} is not a safetensors file or is damaged ({error}); restore a copy"
        ) from error


def _is_utf8(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def read_torch(path: Path):
    """What torch.load gives for tensors and plain Python. Anything else that a pickle could ask for is
    refused, not run."""
    try:
        stat_of_file(path)
        # By its content: of a path torch.load would judge the name.
        with open(path, "rb") as file, warnings.catch_warnings():
            # What torch says about unusual pickles is either refused below or harmless.
            warnings.simplefilter("ignore")
            return torch.load(file, map_location="cpu", weights_only=True)
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


def clean_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
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


def kind_name(value) -> str:
    """'numpy.float64' of np.float64(1)."""
    return f"{type(value).__module__}.{type(value).__qualname__}"


@torch.no_grad()
def not_finite(value, where: str = "") -> str | None:
    """The name of the first tensor in nested mappings and lists that holds an infinity or a not-a-number.

    None if none does. One pass over the tensors on their device, and one answer back from it.
    """
    groups: dict[tuple, list[tuple[str, Tensor]]] = {}
    for name, tensor in _tensors(value, where):
        if tensor.is_floating_point() and tensor.numel():
            groups.setdefault((tensor.device, tensor.dtype), []).append((name, tensor))
    for pairs in groups.values():
        largest = torch.stack(torch._foreach_norm([tensor for _, tensor in pairs], torch.inf))
        good = torch.isfinite(largest).tolist()
        if not all(good):
            return pairs[good.index(False)][0]
    return None


def _tensors(value, where: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield where, value.detach()
    elif isinstance(value, (Mapping, list, tuple)):
        for key, one in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _tensors(one, f"{where}.{key}" if where else str(key))
