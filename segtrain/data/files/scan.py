"""Which values the masks hold: one pass over all of them, remembered in the user's cache folder."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from segtrain.data.files.reading import read_mask, without_colour
from segtrain.data.parts import notice
from segtrain.errors import DataError
from segtrain.text import count

VERSION = 1  # of the cache file's content
FEW = 8  # masks that are sampled where reading all of them would take too long


def mask_values(paths: list[str], max_pixels: int) -> dict[int, int]:
    """Mask value -> its number of pixels over all masks, in ascending order of the values, from the cache if
    the files are unchanged. DataError for RGB masks, whose classes only data.classes can tell."""
    cache = _cache_file(paths)
    known = _load(cache)
    if known is not None:
        return known
    notice(f"reading {count(len(paths), 'mask')} once to find their classes …")
    counts: Counter[int] = Counter()
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        for found in pool.map(lambda path: _values(path, max_pixels), paths):
            counts.update(found)
    values = dict(sorted(counts.items()))
    _save(cache, values)
    return values


def few_hold(paths: list[str], values: set[int], max_pixels: int) -> bool:
    """Whether at most FEW masks, evenly spaced in the list, hold exactly `values` together; reading stops at
    the first other value."""
    seen: set[int] = set()
    for path in paths[:: -(-len(paths) // FEW)]:
        try:
            seen.update(_values(path, max_pixels))
        except DataError:  # it is told when the mask is used
            return False
        if not seen <= values:
            return False
    return seen == values


def _values(path: str, max_pixels: int) -> dict[int, int]:
    mask = without_colour(read_mask(path, max_pixels))
    if mask.ndim == 3:
        raise DataError(
            f"mask {path} is coloured (RGB); set data.classes to a file with a line 'name r g b' for each "
            f"class"
        )
    counts = np.bincount(mask.ravel())
    present = np.flatnonzero(counts)
    return dict(zip(present.tolist(), counts[present].tolist(), strict=True))


def _cache_file(paths: list[str]) -> Path:
    """Named by the paths, sizes and times of the masks, so that a changed file is scanned again."""
    digest = hashlib.sha256(str(VERSION).encode())
    for path in paths:
        state = os.stat(path)
        digest.update(
            f"{os.path.abspath(path)}\0{state.st_size}\0{state.st_mtime_ns}\0".encode(
                "utf-8", "surrogateescape"
            )
        )
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "segtrain" / f"masks-{digest.hexdigest()[:32]}.json"


def _load(cache: Path) -> dict[int, int] | None:
    try:
        plain = json.loads(cache.read_text())
        return {int(value): int(count) for value, count in plain["pixels"].items()}
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None


def _save(cache: Path, values: dict[int, int]) -> None:
    """A cache that cannot be written costs time, nothing else."""
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=cache.parent, delete=False) as file:
            json.dump({"pixels": values}, file)
        os.replace(file.name, cache)
    except OSError:
        pass
