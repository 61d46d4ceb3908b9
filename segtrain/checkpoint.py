"""Checkpoints that are either complete or not there: atomic saves, hashes that find flipped bits, loads that
run no code.

A checkpoint is the folder RUN/checkpoints/STEP with model.safetensors (what evaluate and predict use),
state.pt (what an exact resume needs besides), description.json (config, facts, task, scores) and
manifest.json (sha256 of the others).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
import re
import stat
import sys
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
import safetensors
import safetensors.torch
import torch

from segtrain.errors import CheckpointError, ConfigError, nearest, printable
from segtrain.run_folder import (
    in_words,
    json_bytes,
    remove,
    remove_leftovers,
    storage,
    sync_folder,
    temporary_name,
    write_atomic,
)

FORMAT = 1
WEIGHTS, STATE, DESCRIPTION, MANIFEST = "model.safetensors", "state.pt", "description.json", "manifest.json"
FILES = (WEIGHTS, STATE, DESCRIPTION)
REPLACED = ".replaced"
"""Ending of a checkpoint that makes way for another of its step, until that one is durable."""
MAX_MANIFEST, MAX_DESCRIPTION = 1 << 20, 16 << 20
FORBIDDEN_KEYS = ("defaults", "hydra", "_target_")


# --- saving


def save(
    run: Path | str, step: int, weights: Mapping[str, torch.Tensor], state: dict, description: dict
) -> Path:
    """RUN/checkpoints/STEP, durable when this returns; whatever happens before, the older checkpoints are
    untouched.

    weights: what evaluate and predict use. state: tensors and plain Python only. description: see `describe`.
    Raises CheckpointError if the storage refuses, TypeError if the state holds what would not load again.
    """
    check_state(state)
    check_description(description, "description")
    weights = clean_names(weights)
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
    """A file that knows the sha256 of what was handed to it, so that a disk that writes something else is
    found out."""

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
    """Writes and syncs one file; its line of the manifest."""
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
    """Renames a finished folder. An older one of the same step stays readable under another name until
    then."""
    aside = final.with_name(final.name + REPLACED)
    if final.exists():
        if _damage(final) is None:
            remove(aside)
            os.rename(final, aside)
        else:
            remove(final)
    os.rename(temporary, final)
    sync_folder(final.parent)
    sync_folder(final.parent.parent)
    if aside.exists():
        remove(aside)


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


def _num_bytes(value) -> int:
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, Mapping):
        return sum(_num_bytes(one) for one in value.values())
    return sum(_num_bytes(one) for one in value) if isinstance(value, (list, tuple)) else 64


def check_state(value, where: str = "state") -> None:
    """TypeError, naming the place, unless `value` is made of tensors and plain Python that load with
    weights_only=True."""
    kind = type(value)
    if kind in (dict, OrderedDict):
        for key, one in value.items():
            if type(key) not in (str, int, float, bool):
                raise TypeError(
                    f"{where} has the key {key!r} of {kind_name(key)}; a checkpoint's keys are texts and "
                    f"numbers"
                )
            check_state(one, f"{where}[{key!r}]")
    elif kind in (list, tuple):
        for index, one in enumerate(value):
            check_state(one, f"{where}[{index}]")
    elif kind not in (torch.Tensor, torch.nn.Parameter, str, int, float, bool, type(None)):
        raise TypeError(f"{where} is {kind_name(value)}; a checkpoint holds tensors and plain Python only")


def kind_name(value) -> str:
    """'numpy.float64' of np.float64(1)."""
    return f"{type(value).__module__}.{type(value).__qualname__}"


# --- what a description may hold


def plain_config(config, where: str = "config", error: type[Exception] = ConfigError):
    """`config` if it is plain data: texts, finite numbers, true, false, null, lists and mappings; else
    ConfigError.

    What Hydra would act on (defaults, hydra, _target_, ${…}) is refused, so that no saved config can bring
    code to run.
    """
    if isinstance(config, dict):
        for key, value in config.items():
            if type(key) not in (str, int) or key in FORBIDDEN_KEYS or "${" in str(key):
                raise error(f"{where} has the key {key!r}, which a saved config may not hold; remove it")
            plain_config(value, f"{where}.{key}", error)
    elif isinstance(config, (list, tuple)):
        for index, value in enumerate(config):
            plain_config(value, f"{where}[{index}]", error)
    elif isinstance(config, str):
        if "${" in config:
            raise error(f"{where} is {config!r}; a saved config may not hold ${{; write the value itself")
    elif not (
        config is None
        or isinstance(config, (bool, int))
        or (isinstance(config, float) and math.isfinite(config))
    ):
        raise error(
            f"{where} is {config!r}; a saved config holds texts, finite numbers, true, false, null, lists "
            f"and mappings"
        )
    return config


_DESCRIPTION = {
    "config": dict,
    "facts": dict,
    "task": str,
    "step": int,
    "scores": (dict, type(None)),
    "protocol": (dict, type(None)),
}


def check_description(description, where: str) -> None:
    """CheckpointError unless the description has the parts that evaluate and predict rely on, each of its
    type."""
    if not isinstance(description, dict):
        raise CheckpointError(f"{where} is not a mapping")
    for key, kinds in _DESCRIPTION.items():
        if key not in description or not isinstance(description[key], kinds):
            raise CheckpointError(
                f"{where} has no usable {key!r} ({description.get(key)!r:.80}); it was not written by "
                f"segtrain"
            )
    plain_config(description["config"], f"{where}: config", CheckpointError)
    _check_facts(description["facts"], f"{where}: facts")


def _check_facts(facts: dict, where: str) -> None:
    def is_int(value) -> bool:
        return isinstance(value, int) and not isinstance(value, bool)

    def are(values, accepts) -> bool:
        return isinstance(values, (list, tuple)) and all(accepts(value) for value in values)

    def is_colour(value) -> bool:
        return are(value, lambda one: is_int(one) and 0 <= one <= 255) and len(value) == 3

    def is_number(value) -> bool:
        return isinstance(value, (int, float)) and math.isfinite(value)

    norm = facts.get("normalisation")
    channels = facts.get("channels")
    good = {
        "classes": are(facts.get("classes"), lambda name: isinstance(name, str)),
        "palette": are(facts.get("palette"), is_colour),
        "ignore_index": is_int(facts.get("ignore_index")),
        "channels": is_int(channels) and channels >= 1,
        "things": are(facts.get("things"), is_int),
        "normalisation": norm is None
        or (isinstance(norm, dict) and all(are(norm.get(key), is_number) for key in ("mean", "std"))),
    }
    bad = [key for key, accepted in good.items() if not accepted]
    if bad:
        raise CheckpointError(
            f"{where}: {bad[0]} is {facts.get(bad[0])!r:.80}; it was not written by segtrain"
        )


# --- finding


def find(run: Path | str, which: str | int = "best", key: str = "run") -> Path:
    """The folder of a complete checkpoint whose hashes match. Damaged ones that it passes over are named on
    stderr.

    It is for its weights: state.pt may be missing. which: best, last (the highest step that is whole) or a
    step. key: how the user gave `run`, for messages.
    Raises ConfigError if there is no such run or step, CheckpointError if nothing usable is left.
    """
    if not str(run):
        raise ConfigError(f"{key} is empty (an unset variable of the shell?); give the folder of a run")
    folder = _checkpoints(Path(run), key)
    if which == "last":
        return _newest(folder)
    if which == "best":
        return _best(folder, key)
    if not re.fullmatch(r"\d{1,18}", str(which)):
        raise ConfigError(
            f"checkpoint={which}{nearest(which, ('best', 'last'))}; allowed: best, last or a step"
        )
    step, steps = int(which), sorted({number for number, _ in _candidates(folder)})
    if step not in steps:
        raise ConfigError(
            f"checkpoint={step}: {folder} has no such step; there are {', '.join(map(str, steps)) or 'none'}"
        )
    return _whole(folder, step, f"checkpoint {step} of {run}", key)


def to_resume(run: Path | str) -> Path | None:
    """The newest checkpoint that is whole with all that an exact resume needs; None if the folder holds none
    of any kind."""
    return _newest(Path(run) / "checkpoints", with_state=True) if has_checkpoint(run) else None


def has_checkpoint(run: Path | str) -> bool:
    """Whether the folder holds anything that `find(run, "last")` and `to_resume(run)` would look at."""
    folder = Path(run) / "checkpoints"
    return folder.is_dir() and bool(_candidates(folder))


def _checkpoints(run: Path, key: str) -> Path:
    if not run.exists():
        raise ConfigError(f"{key}={run} does not exist{_siblings(run)}")
    if (run / MANIFEST).is_file():
        which = "" if key == "init" else f", and checkpoint={run.name}"
        raise ConfigError(
            f"{key}={run} is a checkpoint; give the run's folder, {run.absolute().parent.parent}{which}"
        )
    if not run.is_dir():
        raise ConfigError(f"{key}={run} is not a folder; give the folder of a run")
    folder = run / "checkpoints"
    if not folder.is_dir() or not _candidates(folder):
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


def _candidates(folder: Path) -> list[tuple[int, Path]]:
    """Step and folder of all that calls itself a checkpoint, highest step first; by number, as clocks lie."""
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


def _newest(folder: Path, with_state: bool = False) -> Path:
    passed = []
    for step, path in _candidates(folder):
        damage = _damage(path, with_state=with_state)
        if damage is None:
            unfinished = _unfinished(folder, step)
            if passed or unfinished:
                _tell(f"using {path}; passed over {'; '.join(passed) or 'nothing complete'}{unfinished}")
            return path
        if path.exists():
            passed.append(damage)
    raise CheckpointError(
        f"{folder} holds no whole checkpoint: {'; '.join(passed) or 'they were removed meanwhile'}; train "
        f"again or restore a copy"
    )


def _best(folder: Path, key: str) -> Path:
    while True:
        step = read_link(folder / "best")
        if step is None:
            newest = _newest(folder)
            _tell(f"{folder.parent} has no best checkpoint yet; using the last one, step {newest.name}")
            return newest
        try:
            return _whole(folder, step, f"the best checkpoint of {folder.parent}, step {step},", key)
        except CheckpointError:
            # A training that goes on may have found a better one and removed this one just now.
            if read_link(folder / "best") == step:
                raise


def _whole(folder: Path, step: int, what: str, key: str) -> Path:
    damages = []
    for path in (path for number, path in _candidates(folder) if number == step):
        damage = _damage(path, with_state=False)
        if damage is None:
            return path
        damages.append(damage)
    others = (
        number
        for number, path in _candidates(folder)
        if number != step and _damage(path, with_state=False) is None
    )
    other = next(others, None)
    # Only a run that is named by itself comes with a choice of its checkpoint.
    choice = f", use checkpoint={other}" if key in ("run", "runs") else ""
    hint = "" if other is None else f"; step {other} is whole{choice}"
    raise CheckpointError(f"{what} cannot be used: {'; '.join(damages) or 'its folder is missing'}{hint}")


def _tell(text: str) -> None:
    print(printable(f"segtrain: {text}"), file=sys.stderr, flush=True)


def _damage(checkpoint: Path, hashes: bool = True, with_state: bool = True) -> str | None:
    """What is wrong with a checkpoint, with its path; None if it is whole. hashes=False only looks at names
    and sizes.

    with_state=False: that state.pt is missing is nothing wrong.
    """
    try:
        manifest = _manifest(checkpoint)
        for name in FILES:
            path = checkpoint / name
            if name == STATE and not with_state and not path.exists():
                continue
            expected = manifest["files"][name]
            size = _regular(path).st_size
            if size != expected["bytes"]:
                return f"{path} has {size} bytes instead of {expected['bytes']}"
            if hashes and sha256(path) != expected["sha256"]:
                return f"{path} does not match its sha256"
    except CheckpointError as error:
        return str(error)
    except OSError as error:
        return f"{error.filename or checkpoint}: {error.strerror}"
    return None


def _regular(path: Path) -> os.stat_result:
    """Its stat; CheckpointError unless it is a plain file (opening a pipe would wait for ever)."""
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        raise CheckpointError(f"{path} is not a regular file")
    return found


def _read_json(path: Path, max_bytes: int) -> dict:
    size = _regular(path).st_size
    if size > max_bytes:
        raise CheckpointError(f"{path} has {in_words(size)}; at most {in_words(max_bytes)} are read")
    try:
        read = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from error
    if not isinstance(read, dict):
        raise CheckpointError(f"{path} holds no mapping")
    return read


def _manifest(checkpoint: Path) -> dict:
    path = checkpoint / MANIFEST
    read = _read_json(path, MAX_MANIFEST)
    if read.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} has format {read.get('format')!r:.40}; this version of segtrain reads {FORMAT}"
        )
    if str(read.get("step")) != checkpoint.name.removesuffix(REPLACED):
        raise CheckpointError(f"{path} speaks of step {read.get('step')!r:.40}, not of {checkpoint.name}")
    files = read.get("files")
    for name in FILES:
        entry = files.get(name) if isinstance(files, dict) else None
        if not isinstance(entry, dict) or not {"sha256", "bytes"} <= set(entry):
            raise CheckpointError(f"{path} does not name {name}")
    return read


def sha256(path: Path) -> str:
    """Of a file's content, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- best and last


def link(run: Path | str, which: str, step: int) -> None:
    """Lets RUN/checkpoints/`which` (best or last) point at `step`; a reader sees the old target or the new
    one."""
    folder = Path(run) / "checkpoints"
    path = folder / which
    temporary = temporary_name(path)
    with storage(path):
        try:
            os.symlink(str(int(step)), temporary)
        except OSError:
            # A file system without links: a small file that holds the step does the same.
            write_atomic(path, f"{int(step)}\n".encode())
            return
        try:
            os.replace(temporary, path)
        finally:
            remove(temporary)
        sync_folder(folder)


def read_link(path: Path | str) -> int | None:
    """The step that RUN/checkpoints/best or last points at; None if there is none."""
    path = Path(path)
    try:
        if path.is_symlink():
            target = os.readlink(path)
        elif path.is_dir():
            # Copied by a program that follows links.
            target = str(_read_json(path / MANIFEST, MAX_MANIFEST).get("step"))
        elif path.is_file() and _regular(path).st_size < 64:
            target = path.read_text(encoding="ascii", errors="replace").strip()
        else:
            return None
    except OSError:
        return None
    if not re.fullmatch(r"\d{1,18}", target):
        raise CheckpointError(
            f"{path} points at {target!r:.80}; allowed: a step of its own folder; remove it and use "
            f"checkpoint=last"
        )
    return int(target)


def prune(run: Path | str, keep: int) -> list[int]:
    """Removes all but the `keep` highest steps, best and last; returns the removed steps. Call it after
    `save` and `link`.

    Nothing goes before a whole checkpoint was found. What killed processes left half written goes too.
    """
    folder = Path(run) / "checkpoints"
    candidates = _candidates(folder)
    stay = _kept(folder, candidates, max(1, keep))
    if not stay:
        return []
    for place in (folder, Path(run)):
        remove_leftovers(place)
    for step, path in candidates:
        if step not in stay:
            # Renamed first: a removal that is cut short must not look like a damaged checkpoint.
            doomed = temporary_name(path)
            with storage(path):
                os.rename(path, doomed)
            remove(doomed)
        elif path.name.endswith(REPLACED) and _damage(folder / str(step)) is None:
            remove(path)
    return sorted({step for step, _ in candidates} - stay)


def _kept(folder: Path, candidates: list[tuple[int, Path]], keep: int) -> set[int]:
    """Steps that `prune` leaves; none if not one checkpoint is whole."""
    newest = next((step for step, path in candidates if _damage(path) is None), None)
    if newest is None:
        return set()
    # Damaged ones over the newest whole one stay until their step is saved again; no damaged one counts as
    # kept.
    over = {step for step, _ in candidates if step > newest}
    sizes_match = {
        step for step, path in candidates if step <= newest and _damage(path, hashes=False) is None
    }
    linked = {step for which in ("best", "last") if (step := read_link(folder / which)) is not None}
    return {*sorted(sizes_match, reverse=True)[:keep], newest, *over, *linked}


# --- loading


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


def describe(checkpoint: Path | str) -> dict:
    """config, facts, task, step, scores and protocol of a checkpoint, as plain data that was checked for its
    shape."""
    path = Path(checkpoint) / DESCRIPTION
    try:
        description = _read_json(path, MAX_DESCRIPTION)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
    check_description(description, str(path))
    description["config"] = _integer_keys(description["config"])
    return description


def _integer_keys(value):
    """JSON has no integer keys: a mapping whose keys are all integers (a label map) gets them back."""
    if isinstance(value, list):
        return [_integer_keys(one) for one in value]
    if not isinstance(value, dict):
        return value
    numbers = bool(value) and all(re.fullmatch(r"-?\d{1,18}", key) for key in value)
    return {int(key) if numbers else key: _integer_keys(one) for key, one in value.items()}


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
        _regular(path)
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
        _regular(path)
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
        _regular(path)
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


# --- random numbers


def random_state() -> dict:
    """The states of the random numbers of python, numpy (global) and torch, as tensors and plain Python."""
    version, internal, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    state = {
        "python": [version, torch.tensor(internal, dtype=torch.int64), gauss],
        "numpy": [
            str(name),
            torch.tensor(keys.astype(np.int64)),
            int(position),
            int(has_gauss),
            float(cached),
        ],
        "torch": torch.get_rng_state(),
        "cuda": [],
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def restore_random_state(state: dict) -> None:
    """Undoes what was drawn since `random_state()`; GPUs that are no longer there are left out."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal.tolist()), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available():
        for index, one in enumerate(state["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(one, index)
