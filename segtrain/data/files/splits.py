"""Assignment of images to splits: by folder, by list or at random."""

from __future__ import annotations

import bisect
import hashlib
import itertools
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from segtrain.data.files.pairing import Files, refuse_unpaired
from segtrain.data.files.pairs import Pair, composed, prefix_and_number
from segtrain.data.files.reading import SUFFIXES
from segtrain.errors import ConfigError, DataError, nearest
from segtrain.text import count, notice

REGULAR = 3  # equal distances of numbers from which they are taken for the frames of a video


FOLDERS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""Names of folders, in lower case, and the splits that they hold."""


def by_folder(images: Mapping[str, str]) -> dict[str, list[str]] | None:
    """Names of images by split, from the first folder in each name; None unless there are folders `train` and
    `val`, or `train` and `test`. images: {name: path}."""
    found: dict[str, list[str]] = {}
    for name in images:
        first = name.split("/")[0] if "/" in name else ""
        found.setdefault(FOLDERS.get(first.lower(), first), []).append(name)
    if "train" not in found or not {"val", "test"} & set(found):
        return None
    if "all" in found:
        raise DataError(
            f"{images[found['all'][0]]} lies in a folder 'all' beside those of the splits; split=all is all "
            f"of them together; rename that folder"
        )
    if "" in found:
        raise DataError(
            f"{images[found[''][0]]} lies beside the folders of the splits "
            f"({count(len(found['']), 'such file')}); move it into one of them"
        )
    return found


def by_list(
    images: Mapping[str, str], lists: Mapping[str, str], folder: str, roots: Sequence[str]
) -> dict[str, list[str]]:
    """Names of images by split, from text files with one image per line, with or without suffix; lines that
    begin with # are comments.

    images: {name: path}. lists: {split: path of its list}. folder: of the images. roots: folders that a line
    may be relative to; a line may also be an absolute path.
    """
    known = _known(images, folder)
    splits = {}
    for split, path in lists.items():
        lines = _lines(path, f"data.{split}_list")
        splits[split] = _listed_once(path, lines, known, folder, [*roots, os.path.dirname(path)])
        if not splits[split]:
            raise DataError(
                f"data.{split}_list={path} names no image; expected one name a line, relative to {folder}"
            )
    for one, other in itertools.combinations(splits, 2):
        both = set(splits[one]) & set(splits[other])
        if both:
            raise DataError(
                f"{count(len(both), 'image is', 'images are')} in both lists, {sorted(both)[0]!r} first; "
                f"remove what is twice from data.{one}_list or data.{other}_list"
            )
    return splits


def _known(images: Mapping[str, str], folder: str) -> dict[str, list[str]]:
    """{what a list may call an image: its name}: the name, the path below the folder with the file's suffix
    and without; each also `composed`. A file that is cut into windows stands for the names of all of them."""
    known = {name: [name] for name in images}
    of_file: dict[str, list[str]] = {}
    for name, path in images.items():
        of_file.setdefault(path, []).append(name)
    for path, names in of_file.items():
        file = os.path.relpath(path, folder).replace(os.sep, "/")
        for called in (file, os.path.splitext(file)[0]):
            known.setdefault(called, names)
    for called, names in list(known.items()):
        known.setdefault(composed(called), names)
    return known


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


def _listed_once(
    path: str, lines: list[tuple[int, str]], known: Mapping[str, list[str]], folder: str, roots: Sequence[str]
) -> list[str]:
    places: dict[str, int] = {}
    for number, line in lines:
        names = next((known[called] for called in _called(line, folder, roots) if called in known), None)
        if names is None:
            raise DataError(
                f"{path}, line {number}: {line!r} is not the name of an image below "
                f"{folder}{_two_columns(line, known, folder, roots) or nearest(line.strip(), known)}"
            )
        again = next((places[name] for name in names if name in places), None)
        if again is not None:
            raise DataError(
                f"{path}, line {number}: {line!r} is the image of line {again} again; name each image once"
            )
        places.update(dict.fromkeys(names, number))
    return list(places)


def _two_columns(line: str, known: Mapping[str, str], folder: str, roots: Sequence[str]) -> str:
    """What to do about a line that names an image and its mask; '' for another line."""
    image, *others = re.split(r"[\s,;|]+", line.strip())
    if not others or not any(called in known for called in _called(image, folder, roots)):
        return ""
    return (
        f", and {image!r} is: lists name the images alone, masks are found by the same names below "
        f"data.masks; remove {' '.join(others)!r} and its like"
    )


def _called(line: str, folder: str, roots: Sequence[str]) -> Iterator[str]:
    """What a line may call an image in `_known`: the line as it is, without blanks around it, and with the
    separators of Windows turned; relative to the folder of the images or to one of `roots`, or absolute."""
    for text in dict.fromkeys((line, line.strip(), line.strip().replace("\\", "/"))):
        for root in (folder, *roots):
            path = os.path.relpath(os.path.join(root, text), folder).replace(os.sep, "/")
            stem, suffix = os.path.splitext(path)
            for called in (path, stem) if suffix.lower() in SUFFIXES else (path,):
                yield called
                yield composed(called)


def hashed(key: str, seed: int) -> float:
    """A number from 0 to below 1 that depends on the key (a name or group) and the seed alone, evenly
    distributed over keys. Splits and folds cut by it keep their members when files are added."""
    digest = hashlib.sha256(f"{seed}\0{composed(key)}".encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def key_of(pair: Pair) -> str:
    """What a pair is assigned to a split by: its group, or its name if it has none."""
    return pair.group or pair.name


def split_bounds(keys: Iterable[str], val_fraction: float, test_fraction: float, seed: int) -> list[float]:
    """[v, t]: keys `hashed` below v are in split val, those from v to below t in test, the others in train.

    They are val_fraction and val_fraction + test_fraction, or as close to them as leaves each split a key:
    train first, then val, then test.
    """
    places = sorted({hashed(key, seed) for key in keys})
    if len(places) < 2:
        return [0.0, 0.0]
    num_test = 1 if test_fraction and len(places) > 2 else 0

    def bound(wanted: float, least: int, most: int) -> tuple[float, int]:
        """The bound closest to `wanted` with least..most places below it, and their number."""
        below = min(max(bisect.bisect_left(places, wanted), least), most)
        if below == bisect.bisect_left(places, wanted):
            return wanted, below
        return (places[below - 1] + places[below]) / 2, below

    end_of_val, num_val = bound(val_fraction, 1, len(places) - 1 - num_test)
    if not num_test:
        return [end_of_val, end_of_val]
    return [end_of_val, bound(end_of_val + test_fraction, num_val + 1, len(places) - 1)[0]]


def by_hash(pairs: Sequence[Pair], bounds: Sequence[float], seed: int) -> dict[str, list[Pair]]:
    """Those of the splits train, val and test that have a pair, by the `hashed` keys of the pairs, see
    `split_bounds`."""
    splits: dict[str, list[Pair]] = {"train": [], "val": [], "test": []}
    for pair in pairs:
        place = hashed(key_of(pair), seed)
        splits["val" if place < bounds[0] else "test" if place < bounds[1] else "train"].append(pair)
    return {split: found for split, found in splits.items() if found}


def by_order(pairs: list[Pair], fraction: float, seed: int) -> dict[str, list[Pair]]:
    """The random splits train and val that earlier versions drew: they depend on the number of pairs, so
    that each added file changes them."""
    if len(pairs) < 2:
        return {"train": list(pairs)}
    kept = min(max(1, round(fraction * len(pairs))), len(pairs) - 1)
    chosen = set(np.random.default_rng(seed).permutation(len(pairs))[:kept].tolist())
    return {
        "train": [pair for index, pair in enumerate(pairs) if index not in chosen],
        "val": [pair for index, pair in enumerate(pairs) if index in chosen],
    }


def warn_of_neighbours(splits: Mapping[str, Sequence[Pair]]) -> None:
    """Notice if consecutive frames of a video are in different splits: validation frames then are near
    duplicates of training frames, and scores come out too high. Pairs with a group are left out: a group is
    never split."""
    frames: dict[str, list[tuple[int, str, str]]] = {}
    for split, pairs in splits.items():
        for pair in pairs:
            prefix, number = prefix_and_number(pair.name)
            if number is not None and not pair.group:
                frames.setdefault(prefix, []).append((number, split, pair.name))
    apart = []
    for found in frames.values():
        found.sort()
        step = _frame_step([one[0] for one in found])
        apart += [
            (one[2], other[2])
            for one, other in itertools.pairwise(found)
            if one[1] != other[1] and other[0] - one[0] in (1, step)
        ]
    if apart:
        one, other = apart[0]
        neighbours = f"{count(len(apart), 'pair')} of neighbouring numbers"
        notice(
            f"warning: the random split puts {neighbours} into different splits ({one!r}, {other!r}); "
            "if they are frames of one video, scores come out too high: set data.group, use folders train/ "
            "and val/, or data.train_list and data.val_list"
        )


def warn_of_groups_apart(splits: Mapping[str, Sequence[Pair]]) -> None:
    """Notice if images of one group are in different splits, as lists or folders may have them."""
    of_group: dict[str, set[str]] = {}
    for split, pairs in splits.items():
        for pair in pairs:
            if pair.group:
                of_group.setdefault(pair.group, set()).add(split)
    apart = [group for group, found in of_group.items() if len(found) > 1]
    if apart:
        groups = count(len(apart), "group is", "groups are")
        notice(
            f"warning: {groups} in several splits, {apart[0]!r} in {', '.join(sorted(of_group[apart[0]]))}: "
            f"scores come out too high; the lists or folders set the splits, not data.group"
        )


def _frame_step(numbers: Sequence[int]) -> int:
    """The distance of consecutive frames: 30 for numbers such as 6690, 6720, 6750, where every 30th frame of
    a video was taken; 1 for numbers without a common distance."""
    distances = Counter(other - one for one, other in itertools.pairwise(numbers))
    step, times = distances.most_common(1)[0] if distances else (1, 0)
    return step if times >= REGULAR and 2 * times >= distances.total() else 1


def chosen_names(
    files: Files, lists: Mapping[str, str], folder: str, root: str | None
) -> tuple[dict[str, list[str]], list[str] | None]:
    """Names of images by split, by lists or folders; and the names to be split at random, None if there are
    none. DataError for files that a split uses and that lack a partner."""
    listed = by_list(files.images, lists, folder, [root] if root else []) if lists else {}
    if {"train", "val"} <= set(lists):
        return listed, None
    taken = {name for names in listed.values() for name in names}
    others = {name: path for name, path in files.images.items() if name not in taken}
    alone, by_folders = files.masks_alone(), by_folder(others)
    if by_folders is None:
        refuse_unpaired(files.without_mask(others), list(alone.values()), files.kind)
        return listed, list(others)
    split_of = {name: FOLDERS.get(name.split("/")[0].lower()) for name in alone if "/" in name}
    in_use = [path for name, path in alone.items() if split_of.get(name) in ("train", "val")]
    refuse_unpaired([], in_use, files.kind)
    at_random = None if "val" in by_folders else by_folders.pop("train")
    refuse_unpaired(files.without_mask(at_random or []), [], files.kind)
    return {**by_folders, **listed}, at_random


def with_masks(files: Files, splits: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """The splits whose images have masks; others than train and val may be without any, and are left out."""
    kept = {}
    for split, names in splits.items():
        lonely = files.without_mask(names)
        if lonely and split not in ("train", "val") and len(lonely) == len(names):
            have = count(len(names), "image has", "images have")
            notice(f"split {split} is left out: its {have} no {files.kind}")
            continue
        refuse_unpaired(lonely, [], files.kind)
        kept[split] = names
    return kept


def refuse_one_group(pairs: Sequence[Pair]) -> None:
    """ConfigError if data.group puts all images into one group, which no split can divide."""
    if len(pairs) > 1 and len({key_of(pair) for pair in pairs}) == 1:
        raise ConfigError(
            f"data.group gives all {len(pairs)} images the group {pairs[0].group!r}, and a group is not "
            f"split; correct it, or leave it null"
        )


class Drawing(NamedTuple):
    """How random splits are drawn: shares of val and test, and bounds that a run has settled (see the options
    of `segtrain.data.folder`)."""

    val: float
    test: float
    seed: int
    bounds: tuple[float, ...] | None


def drawn_splits(pairs: list[Pair], drawing: Drawing) -> tuple[dict[str, list[Pair]], dict]:
    """Random splits, and the settled option split_bounds."""
    val, test, seed, bounds = drawing
    if bounds is None:
        if val + test >= 1:
            raise ConfigError(
                f"data.val_fraction={val} and data.test_fraction={test} leave nothing to train on; allowed: "
                f"a sum below 1"
            )
        bounds = split_bounds(map(key_of, pairs), val, test, seed)
        splits = by_hash(pairs, bounds, seed)
        warn_of_neighbours(splits)  # once: saved bounds come with the config of a run
        return splits, {"split_bounds": list(bounds)}
    if not bounds:
        return by_order(pairs, val, seed), {}
    if len(bounds) != 2 or bounds[0] > bounds[1]:
        raise ConfigError(
            f"data.split_bounds is {list(bounds)}; allowed: two ascending numbers, or [] for the splits of "
            f"earlier versions; leave it to segtrain (null)"
        )
    return by_hash(pairs, bounds, seed), {}
