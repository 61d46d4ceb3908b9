"""Assignment of pairs to splits: by folder, by list or at random."""

from __future__ import annotations

import itertools
import os

import numpy as np

from segtrain.data.files.pairs import Pair, check_inside, composed, prefix_and_number
from segtrain.data.files.reading import SUFFIXES
from segtrain.errors import ConfigError, DataError, nearest
from segtrain.text import count, notice


def by_folder(pairs: list[Pair]) -> dict[str, list[Pair]] | None:
    """Splits by the first folder in each name; None unless there are folders `train` and `val`."""
    found: dict[str, list[Pair]] = {}
    for pair in pairs:
        found.setdefault(pair.name.split("/")[0] if "/" in pair.name else "", []).append(pair)
    if not {"train", "val"} <= set(found):
        return None
    if "" in found:
        raise DataError(
            f"{found[''][0].image} lies beside the folders train and val "
            f"({count(len(found['']), 'such file')}); move it into one of them"
        )
    return found


def by_list(pairs: list[Pair], lists: dict[str, str], folder: str) -> dict[str, list[Pair]]:
    """Splits from text files with one image per line, relative to the image folder, with or without
    suffix; lines that begin with # are comments."""
    known = {composed(pair.name): pair for pair in pairs} | {pair.name: pair for pair in pairs}
    splits = {}
    for split, path in lists.items():
        splits[split] = _listed_once(path, _lines(path, f"data.{split}_list"), known, folder)
        if not splits[split]:
            raise DataError(
                f"data.{split}_list={path} names no image; expected one name a line, relative to {folder}"
            )
    both = {pair.name for pair in splits["train"]} & {pair.name for pair in splits["val"]}
    if both:
        raise DataError(
            f"{count(len(both), 'image is', 'images are')} in both lists, {sorted(both)[0]!r} first; "
            "remove what is twice from data.train_list or data.val_list"
        )
    return splits


def _lines(path: str, key: str) -> list[tuple[int, str]]:
    if not os.path.isfile(path):
        raise ConfigError(
            f"{key} is {path!r}, which is not a file; give a text file with one image name a line"
        )
    try:
        with open(path, encoding="utf-8-sig") as file:
            lines = file.read().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as UTF-8 text ({error})") from error
    return [
        (number, line.rstrip("\r"))
        for number, line in enumerate(lines, 1)
        if line.strip() and not line.startswith("#")
    ]


def _listed_once(path: str, lines: list[tuple[int, str]], known: dict[str, Pair], folder: str) -> list[Pair]:
    places: dict[Pair, int] = {}
    for number, line in lines:
        pair = _listed(line, number, path, known, folder)
        if pair in places:
            raise DataError(
                f"{path}, line {number}: {line!r} is the image of line {places[pair]} again; name each "
                f"image once"
            )
        places[pair] = number
    return list(places)


def _listed(line: str, number: int, path: str, known: dict[str, Pair], folder: str) -> Pair:
    check_inside(os.path.join(folder, line), folder)
    name = os.path.normpath(line).replace(os.sep, "/")
    stem, suffix = os.path.splitext(name)
    for key in (name, stem) if suffix.lower() in SUFFIXES else (name,):
        if found := known.get(key) or known.get(composed(key)):
            return found
    raise DataError(
        f"{path}, line {number}: {line!r} is not the name of an image with a mask below "
        f"{folder}{nearest(line, known)}"
    )


def by_fraction(pairs: list[Pair], fraction: float, seed: int) -> dict[str, list[Pair]]:
    """Random splits train and val: a fraction (0..1) of the pairs, at least one, is val.

    DataError for fewer than two pairs. A notice on stderr if neighbouring video frames fall into different
    splits.
    """
    if len(pairs) < 2:
        raise DataError(
            f"only {len(pairs)} image has a mask ({pairs[0].image}); at least 2 are needed for training "
            f"and validation"
        )
    kept = min(max(1, round(fraction * len(pairs))), len(pairs) - 1)
    chosen = set(np.random.default_rng(seed).permutation(len(pairs))[:kept].tolist())
    splits = {
        "train": [pair for index, pair in enumerate(pairs) if index not in chosen],
        "val": [pair for index, pair in enumerate(pairs) if index in chosen],
    }
    _warn_of_neighbours(splits)
    return splits


def _warn_of_neighbours(splits: dict[str, list[Pair]]) -> None:
    """Notice if consecutive frames of a video are in different splits: validation frames then are near
    duplicates of training frames, and scores come out too high."""
    frames: dict[str, list[tuple[int, str, str]]] = {}
    for split, pairs in splits.items():
        for pair in pairs:
            prefix, number = prefix_and_number(pair.name)
            if number is not None:
                frames.setdefault(prefix, []).append((number, split, pair.name))
    apart = []
    for found in frames.values():
        found.sort()
        apart += [(one[2], other[2]) for one, other in itertools.pairwise(found) if one[1] != other[1]]
    if apart:
        one, other = apart[0]
        neighbours = f"{count(len(apart), 'pair')} of neighbouring numbers"
        notice(
            f"warning: data.val_fraction puts {neighbours} into different splits ({one!r}, {other!r}); "
            "if they are frames of one video, scores come out too high: use folders train/ and val/, or "
            "data.train_list and data.val_list"
        )
