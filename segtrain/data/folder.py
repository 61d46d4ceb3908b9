"""A folder of images and a folder of masks."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from segtrain.data.files.classes import Named, found_file, read_classes
from segtrain.data.files.labels import Labels
from segtrain.data.files.pairs import Pair, PairedFiles, find_images, prefix_and_number, same_names
from segtrain.data.files.reading import MAX_PIXELS
from segtrain.data.files.scan import few_hold, mask_values
from segtrain.data.files.splits import by_folder, by_fraction, by_list
from segtrain.data.parts import Data
from segtrain.errors import ConfigError, DataError
from segtrain.options import FROM_1, SEED, WITHIN_0_1, FilePath, between
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
    val_fraction: Annotated[float, WITHIN_0_1] = 0.2,
    split_seed: Annotated[int, SEED] = 0,
    mask_suffix: str = "",
    max_pixels: Annotated[int, FROM_1] = MAX_PIXELS,
    skip_bad: bool = False,
) -> Data:
    """Your own images and masks, paired by name, with classes by index, by colour or as 0 and 255.

    Masks are PNG, TIFF, BMP or WebP: class indices (grey or palette), or colours that data.classes names.
    Palette PNGs: if every palette colour in use appears in data.classes, colours decide the class. If none
    does (black aside), indices decide. A mixture is an error. With label_map, indices always decide.

    Splits: by data.train_list and data.val_list if given; else by folders train/ and val/ below images and
    masks if there are any; else a random share is kept for validation.

    Options:
        root: folder that the other paths are relative to; symbolic links must not lead out of it; null: the
            current folder
        images: folder of the images, searched recursively; null: ROOT/images
        masks: folder of the masks, with the same layout as that of the images; null: ROOT/masks
        classes: names in the order of the indices, or a file with one name a line; 'name r g b' gives the
            colour, a line 'ignore r g b' the colour of unlabelled pixels; null: all masks are read once
            and each value in them is a class
        label_map: mask value to class index (255: no label), e.g. {7: 0, 8: 1, 0: 255}; a mask value that is
            missing here is an error
        ignore_value: mask value of unlabelled pixels (in samples and scores they are 255)
        train_list: text file with one training image a line, relative to images; lines that begin with #
            are comments
        val_list: the same for the validation images
        val_fraction: share kept for validation when there are neither lists nor folders
        split_seed: seed of that random split
        mask_suffix: suffix that mask names have after the image's name, e.g. _mask
        max_pixels: images and masks with more pixels are refused
    """
    places = _places(root, images, masks)
    pairs = _pairs(places, mask_suffix)
    lists = [path and found_file(path, root) for path in (train_list, val_list)]
    splits = _splits(pairs, places, *lists, val_fraction, split_seed)
    mapping = _checked_map(label_map)
    named = read_classes(classes, root)
    masks = [pair.mask for pair in pairs]
    may_fail = {pair.mask for pair in splits["train"]} if skip_bad else frozenset()
    counted = functools.cache(lambda: mask_values(masks, max_pixels, may_fail))
    settled, mapping = _settled_map(named, mapping, ignore_value, masks, max_pixels, counted)
    if not named.names:
        named = Named(BINARY_NAMES if settled else _found_names(mapping, ignore_value, masks, counted()))
        settled = {**settled, "classes": list(named.names)}
    labels = _labels(named, mapping, ignore_value)
    facts = Facts(classes=named.names, palette=named.colours or voc_palette(len(named.names)))
    return Data(
        facts, {name: PairedFiles(found, labels, max_pixels) for name, found in splits.items()}, settled
    )


@dataclass(frozen=True)
class Places:
    """images, masks: the folders. root_of_images, root_of_masks: folders that links must not lead out of."""

    images: str
    masks: str
    root_of_images: str
    root_of_masks: str


def _places(root: str | None, images: str | None, masks: str | None) -> Places:
    if root is None and (images is None or masks is None):
        raise ConfigError(
            "data.images and data.masks are missing: data 'folder' needs both, or data.root with images/ "
            "and masks/ in it"
        )
    if root is not None and not os.path.isdir(root):
        raise ConfigError(f"data.root is {root!r}, which is not a folder; give an existing one")
    found = {}
    for key, given in (("images", images), ("masks", masks)):
        found[key] = os.path.join(root or "", given if given is not None else key)
        if not os.path.isdir(found[key]):
            raise ConfigError(
                f"data.{key} is {found[key]!r}, which is not a folder; give the folder of the {key}"
            )
    return Places(found["images"], found["masks"], root or found["images"], root or found["masks"])


def _pairs(places: Places, mask_suffix: str) -> list[Pair]:
    images = find_images(places.images, places.root_of_images)
    masks = find_images(places.masks, places.root_of_masks)
    if mask_suffix:
        masks = {
            name.removesuffix(mask_suffix): path for name, path in masks.items() if name.endswith(mask_suffix)
        }
    mask_of = same_names(images, masks)
    if not mask_of:
        raise DataError(
            f"no image in {places.images} ({len(images)} found) has a mask of the same name in "
            f"{places.masks} ({len(masks)} found); "
            "names without suffix must be equal, folders below included (see data.mask_suffix)"
        )
    _refuse_unpaired("image", "mask", [path for name, path in images.items() if name not in mask_of])
    paired = set(mask_of.values())
    _refuse_unpaired("mask", "image", [path for name, path in masks.items() if name not in paired])
    return [
        Pair(images[name], masks[mask], name, prefix_and_number(name)[0]) for name, mask in mask_of.items()
    ]


def _refuse_unpaired(kind: str, missing: str, paths: list[str]) -> None:
    if paths:
        shown = ", ".join(paths[:5]) + (f" and {len(paths) - 5} more" if len(paths) > 5 else "")
        lonely = count(len(paths), f"{kind} has", f"{kind}s have")
        raise DataError(f"{lonely} no {missing} of the same name: {shown}; add or remove them")


def _splits(pairs, places: Places, train_list, val_list, val_fraction, split_seed) -> dict[str, list[Pair]]:
    if (train_list is None) != (val_list is None):
        raise ConfigError("data.train_list and data.val_list go together; give both or neither")
    if train_list is not None:
        return by_list(pairs, {"train": train_list, "val": val_list}, places.images)
    return by_folder(pairs) or by_fraction(pairs, val_fraction, split_seed)


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
