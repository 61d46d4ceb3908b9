"""A folder of images and a folder of masks."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping
from typing import Annotated

from segtrain.data.files.classes import Named, found_file, read_classes
from segtrain.data.files.groups import groups_of
from segtrain.data.files.labels import Labels
from segtrain.data.files.pairing import Files, Suffixes, find_files, find_places, refuse_unpaired
from segtrain.data.files.pairs import Pair, PairedFiles
from segtrain.data.files.reading import MAX_PIXELS
from segtrain.data.files.scan import few_hold, mask_values
from segtrain.data.files.splits import (
    FOLDERS,
    by_folder,
    by_hash,
    by_list,
    by_order,
    key_of,
    split_bounds,
    warn_of_groups_apart,
    warn_of_neighbours,
)
from segtrain.data.parts import Data
from segtrain.errors import ConfigError, DataError
from segtrain.options import FROM_1, PROBABILITY, SEED, SHARE, WITHIN_0_1, FilePath, between
from segtrain.sample import IGNORE, Facts, voc_palette
from segtrain.text import count, notice

BINARY = {0: 0, 255: 1}
BINARY_NAMES = ("background", "foreground")
# ratio of pixels of 255 to pixels of values between 0 and 255, above which those are smoothed edges
MUCH_MORE = 4


def folder(
    root: FilePath | None = None,
    images: FilePath | None = None,
    masks: FilePath | None = None,
    classes: list[str] | FilePath | None = None,
    label_map: dict[int | str, Annotated[int, between(0, 255)]] | None = None,
    ignore_value: Annotated[int, between(0, 65535)] = IGNORE,
    train_list: FilePath | None = None,
    val_list: FilePath | None = None,
    test_list: FilePath | None = None,
    val_fraction: Annotated[float, WITHIN_0_1] = 0.2,
    test_fraction: Annotated[float, SHARE] = 0.0,
    split_seed: Annotated[int, SEED] = 0,
    split_bounds: tuple[Annotated[float, PROBABILITY], ...] | None = None,
    group: str | None = None,
    image_suffix: str = "",
    mask_suffix: str = "",
    max_pixels: Annotated[int, FROM_1] = MAX_PIXELS,
    skip_bad: bool = False,
) -> Data:
    """Your own images and masks, paired by name, with classes by index, by colour or as 0 and 255.

    Masks are PNG, TIFF, BMP or WebP: class indices (grey or palette), or colours that data.classes names.
    Palette PNGs: if every palette colour in use appears in data.classes, colours decide the class. If none
    does (black aside), indices decide. A mixture is an error. With label_map, indices always decide.

    Splits: by data.train_list and data.val_list if given; else by folders train/, val/ and test/ below images
    and masks if there are any; else at random, by a hash of each name or group, so that added files leave the
    others where they are. Images outside the lists, and a test split, need no masks.

    Options:
        root: folder that the other paths are relative to; symbolic links must not lead out of it; null: the
            current folder
        images: folder of the images, searched recursively; null: ROOT/images
        masks: folder of the masks, with the same layout as that of the images; null: ROOT/masks. Without
            ROOT/images and ROOT/masks, both are looked for in ROOT
        classes: names in the order of the indices, or a file with one name a line; 'name r g b' gives the
            colour, a line 'ignore r g b' the colour of unlabelled pixels; or a file of Roboflow, CVAT, YOLO,
            Label Studio, COCO or Supervisely; null: all masks are read once and each value in them is a
            class
        label_map: mask value to class index (255: no label), e.g. {7: 0, 8: 1, 0: 255}; a mask value that is
            missing here is an error
        ignore_value: mask value of unlabelled pixels (in samples and scores they are 255)
        train_list: text file with one training image a line: its name, its path relative to images, to root
            or to the list, or an absolute path; lines that begin with # are comments
        val_list: the same for the validation images
        test_list: the same for test images
        val_fraction: share kept for validation when there are neither lists nor folders
        test_fraction: share kept for the split test, in the same way
        split_seed: seed of that random split
        split_bounds: settled by the run: images whose hash is below the first number are validation, below
            the second test; []: the random split of earlier versions
        group: images of one group (a patient, a video) stay in one split: a regular expression whose first
            brackets hold the group in the image's name, or 'FILE.csv:COLUMN'
        image_suffix: end of the images' names that those of the masks lack, e.g. _sat; other images are left
            out
        mask_suffix: end of the masks' names that those of the images lack, e.g. _mask; images and masks may
            then lie in one folder
        max_pixels: images and masks with more pixels are refused
    """
    suffixes = Suffixes(image_suffix, mask_suffix)
    places = find_places(root, images, masks, suffixes)
    files = find_files(places, suffixes)
    if (train_list is None) != (val_list is None):
        raise ConfigError("data.train_list and data.val_list go together; give both or neither")
    lists = {"train": train_list, "val": val_list, "test": test_list}
    lists = {split: found_file(path, root) for split, path in lists.items() if path is not None}
    chosen, at_random = _chosen(files, lists, places.images, root)
    chosen = _with_masks(files, chosen)
    used = [*itertools.chain(*chosen.values()), *(at_random or [])]
    group_of = groups_of(group, used, root)

    def pair(name: str) -> Pair:
        return Pair(files.images[name], files.masks[files.mask_of[name]], name, group_of.get(name, ""))

    splits, settled = {split: list(map(pair, names)) for split, names in chosen.items()}, {}
    if at_random is not None:
        fractions = (val_fraction, test_fraction)
        drawn, settled = _drawn(list(map(pair, at_random)), fractions, split_seed, split_bounds)
        splits = {**drawn, **splits}
    warn_of_groups_apart(splits)
    mapping = _checked_map(label_map)
    named = read_classes(classes, root)
    if named.values and not mapping:
        mapping = {value: index for index, value in enumerate(named.values)}
    masks = [pair.mask for pairs in splits.values() for pair in pairs]
    may_fail = {pair.mask for pair in splits.get("train", ())} if skip_bad else frozenset()
    counted = functools.cache(lambda: mask_values(masks, max_pixels, may_fail))
    settled_map, mapping = _settled_map(named, mapping, ignore_value, masks, max_pixels, counted)
    settled |= settled_map
    if not named.names:
        named = Named(BINARY_NAMES if settled_map else _found_names(mapping, ignore_value, masks, counted()))
        settled["classes"] = list(named.names)
    labels = _labels(named, mapping, ignore_value)
    facts = Facts(classes=named.names, palette=named.colours or voc_palette(len(named.names)))
    return Data(
        facts, {name: PairedFiles(found, labels, max_pixels) for name, found in splits.items()}, settled
    )


def _chosen(
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
        refuse_unpaired(files.without_mask(others), list(alone.values()))
        return listed, list(others)
    in_use = tuple(f"{name}/" for name, split in FOLDERS.items() if split != "test")
    refuse_unpaired([], [path for name, path in alone.items() if name.startswith(in_use)])
    return {**by_folders, **listed}, None


def _with_masks(files: Files, splits: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """The splits whose images have masks; others than train and val may be without any, and are left out."""
    kept = {}
    for split, names in splits.items():
        lonely = files.without_mask(names)
        if lonely and split not in ("train", "val") and len(lonely) == len(names):
            notice(f"split {split} is left out: its {count(len(names), 'image has', 'images have')} no mask")
            continue
        refuse_unpaired(lonely, [])
        kept[split] = names
    return kept


def _drawn(
    pairs: list[Pair], fractions: tuple[float, float], seed: int, bounds: tuple[float, ...] | None
) -> tuple[dict[str, list[Pair]], dict]:
    """Random splits, and the settled option split_bounds."""
    val, test = fractions
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


def _checked_map(label_map: dict | None) -> dict[int, int]:
    mapping = {}
    for value, index in (label_map or {}).items():
        if not str(value).isdecimal() or int(value) > 65535:
            raise ConfigError(
                f"data.label_map has {value!r}: {index!r}; allowed: mask values from 0 to 65535, each with a "
                f"class index from 0 to 254, or 255 for no label"
            )
        mapping[int(value)] = index
    return mapping


def _settled_map(
    named: Named,
    mapping: dict[int, int],
    ignore_value: int,
    masks: list[str],
    max_pixels: int,
    counted: Callable[[], dict[int, int]],
):
    """Decides what mask value 255 means if the options leave it open: the second class if masks hold 0
    and 255 only, else unlabelled. Returns the settled options ({} or a label_map), and the label_map
    to use.

    counted: returns {mask value: pixels}; reads all masks.
    """
    if mapping or named.colours or ignore_value != IGNORE:
        return {}, mapping
    if len(named.names) not in (0, 2):
        if few_hold(masks, set(BINARY), max_pixels):
            notice(_binary_warning(len(named.names)))
        return {}, mapping
    values = set(counted())
    if values == {IGNORE}:
        raise _unlabelled(masks, IGNORE)
    if values == {0, 255}:
        names = named.names or BINARY_NAMES
        notice(f"masks hold 0 and 255 only: 0 is read as {names[0]!r}, 255 as {names[1]!r}")
        return {"label_map": BINARY}, BINARY
    # Only known values go into the map, so that an unknown one is reported when the mask is read.
    return (
        {"label_map": {0: 0, 1: 1, IGNORE: IGNORE}} if named.names and values <= {0, 1, IGNORE} else {}
    ), mapping


def _binary_warning(num_classes: int) -> str:
    remedy = "set data.label_map='{0: 0, 255: 1}'" if num_classes > 2 else "give data.classes two names"
    classes = count(num_classes, "class", "classes")
    return (
        f"warning: masks hold only 0 and 255, and with {classes} 255 is read as no label; if it is a "
        f"class, {remedy}"
    )


def _unlabelled(masks: list[str], ignore_value: int) -> DataError:
    images = count(len(masks), "image")
    return DataError(
        f"the masks of {images} hold no value but {ignore_value} (no label), {masks[0]} first; "
        f"expected class indices"
    )


def _labels(named: Named, mapping: dict[int, int], ignore_value: int) -> Labels:
    """The `Labels` of these options. ConfigError if they contradict each other."""
    num = len(named.names)
    if not mapping and ignore_value < num:
        raise ConfigError(
            f"data.ignore_value is {ignore_value}, which is a class index; allowed: {num}..65535 (classes "
            f"are 0..{num - 1}); where the masks number the classes around it, set "
            f"data.label_map='{_around(ignore_value, num)}'"
        )
    beyond = sorted(index for index in mapping.values() if num <= index != IGNORE)
    if beyond:
        classes = count(num, "class", "classes")
        raise ConfigError(
            f"data.label_map leads to {beyond[0]}; allowed: 0..{num - 1} and {IGNORE} (no label), with "
            f"{classes}"
        )
    return Labels(num, ignore_value, mapping, named.colours, named.ignored)


def _around(ignore_value: int, num: int) -> str:
    """'{1: 0, 2: 1}' for two classes with 0 for no label: a label map of the values from 0 on without it."""
    values = [value for value in range(num + 1) if value != ignore_value]
    return "{" + ", ".join(f"{value}: {index}" for index, value in enumerate(values)) + "}"


def _found_names(
    mapping: dict[int, int], ignore_value: int, masks: list[str], values: dict[int, int]
) -> tuple[str, ...]:
    """Class names class_0, class_1 … for the indices that occur. DataError if the indices have gaps, with
    the label_map that closes them."""
    labelled = [value for value in values if value != ignore_value or value in mapping]
    if mapping:
        indices = sorted({index for index in mapping.values() if index != IGNORE})
    else:
        indices = labelled
    shown = ", ".join(f"{value} ({values[value]} px)" for value in labelled[:20]) + (
        " …" if len(labelled) > 20 else ""
    )
    shown += (
        f", {ignore_value} ({values[ignore_value]} px, no label)"
        if ignore_value in values and ignore_value not in mapping
        else ""
    )
    if not indices:
        raise _unlabelled(masks, ignore_value)
    if indices != list(range(len(indices))):
        raise DataError(
            f"class indices must run from 0 without gaps; the masks hold {shown}; "
            f"{_without_gaps(values, labelled)}"
        )
    if len(indices) > 255:
        raise DataError(
            f"the masks hold {len(indices)} values; allowed: at most 255 classes; set data.label_map"
        )
    found = f"{count(len(indices), 'class', 'classes')} in {count(len(masks), 'mask')}"
    notice(f"found {found}: {shown}; name them with data.classes")
    return tuple(f"class_{index}" for index in indices)


def _without_gaps(values: dict[int, int], labelled: list[int]) -> str:
    """The remedy for values with gaps."""
    between = sum(values[value] for value in labelled if value != 0)
    if 0 in labelled and 255 not in labelled and values.get(255, 0) > MUCH_MORE * between:
        return (
            "they look like masks of 0 and 255 with stray values, as smoothed edges have: make each pixel "
            "0 or 255; "
            "if the values are classes, set data.label_map or data.classes"
        )
    proposal = "{" + ", ".join(f"{value}: {index}" for index, value in enumerate(labelled)) + "}"
    return f"set data.label_map='{proposal}', or data.classes"
