"""What a checkpoint folder holds, and the checks that it is whole and holds plain data only.

RUN/checkpoints/STEP has model.safetensors (the weights that evaluate and predict use), state.pt (what an
exact resume needs besides), description.json (config, facts, task, scores) and manifest.json (sha256 of the
others).
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import OrderedDict
from pathlib import Path

import torch

from segtrain.errors import CheckpointError, ConfigError
from segtrain.run.layout import MANIFEST
from segtrain.run.own import stat_of_file
from segtrain.run.plain_yaml import FORBIDDEN
from segtrain.run.storage import in_words
from segtrain.tensors import kind_name

FORMAT = 1


WEIGHTS, STATE, DESCRIPTION = "model.safetensors", "state.pt", "description.json"


FILES = (WEIGHTS, STATE, DESCRIPTION)


REPLACED = ".replaced"
"""Suffix of an older checkpoint of the same step, kept until the new one is durable."""


MAX_MANIFEST, MAX_DESCRIPTION = 1 << 20, 16 << 20


FORBIDDEN_KEYS = {*FORBIDDEN, "defaults"}


def check_state(value, where: str = "state") -> None:
    """TypeError, naming the entry, unless `value` consists of tensors and plain Python, which load with
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


def plain_config(config, where: str = "config", error: type[Exception] = ConfigError):
    """`config` if it is plain data: texts, finite numbers, true, false, null, lists and mappings; else
    ConfigError.

    What Hydra would act on (FORBIDDEN_KEYS, ${…}) is refused, so that no saved config can bring code to run.
    """
    if isinstance(config, dict):
        for key, value in config.items():
            # A key may hold dots, which Hydra takes apart.
            forbidden = FORBIDDEN_KEYS & set(str(key).split(".")) or "${" in str(key)
            if type(key) not in (str, int) or forbidden:
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
    """CheckpointError unless the description has every key that evaluate and predict read, with a value of
    the right type."""
    if not isinstance(description, dict):
        raise CheckpointError(f"{where} is not a mapping")
    for key, kinds in _DESCRIPTION.items():
        if key not in description or not isinstance(description[key], kinds):
            raise CheckpointError(
                f"{where} has no usable {key!r} ({description.get(key)!r:.80}); it was not written by "
                f"segtrain"
            )
    plain_config(description["config"], f"{where}: config", CheckpointError)
    thresholds = description.get("thresholds")  # earlier versions had none
    if thresholds is not None and not _are_probabilities(thresholds):
        raise CheckpointError(f"{where}: thresholds is {thresholds!r:.80}; it was not written by segtrain")
    _check_facts(description["facts"], f"{where}: facts")


def _are_probabilities(values) -> bool:
    return isinstance(values, list) and all(isinstance(one, float) and 0 < one < 1 for one in values)


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


def damage_of(checkpoint: Path, hashes: bool = True, with_state: bool = True) -> str | None:
    """What is damaged in a checkpoint, with its path; None if it is complete. hashes=False compares only
    names and sizes.

    with_state=False: state.pt may be missing.
    """
    try:
        manifest = _manifest(checkpoint)
        for name in FILES:
            path = checkpoint / name
            if name == STATE and not with_state and not path.exists():
                continue
            expected = manifest["files"][name]
            size = stat_of_file(path).st_size
            if size != expected["bytes"]:
                return f"{path} has {size} bytes instead of {expected['bytes']}"
            if hashes and sha256(path) != expected["sha256"]:
                return f"{path} does not match its sha256"
    except CheckpointError as error:
        return str(error)
    except OSError as error:
        return f"{error.filename or checkpoint}: {error.strerror}"
    return None


def read_json(path: Path, max_bytes: int) -> dict:
    size = stat_of_file(path).st_size
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
    read = read_json(path, MAX_MANIFEST)
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
    """SHA-256 of a file's content, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe(checkpoint: Path | str) -> dict:
    """The description of a checkpoint as plain data (config, facts, task, step, scores, protocol), with its
    types checked."""
    path = Path(checkpoint) / DESCRIPTION
    try:
        description = read_json(path, MAX_DESCRIPTION)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
    check_description(description, str(path))
    description["config"] = _integer_keys(description["config"])
    return description


def _integer_keys(value):
    """`value` with the integer keys of label maps restored, which JSON turns into strings."""
    if isinstance(value, list):
        return [_integer_keys(one) for one in value]
    if not isinstance(value, dict):
        return value
    numbers = bool(value) and all(re.fullmatch(r"-?\d{1,18}", key) for key in value)
    return {int(key) if numbers else key: _integer_keys(one) for key, one in value.items()}
