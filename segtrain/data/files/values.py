"""What the values of masks mean: classes by index, and 0 and 255."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection

from segtrain.data.files.classes import Named
from segtrain.data.files.labels import Labels
from segtrain.data.files.scan import MaskReader, few_hold, mask_values
from segtrain.errors import ConfigError, DataError
from segtrain.sample import IGNORE
from segtrain.text import count, notice

BINARY = {0: 0, 255: 1}
BINARY_NAMES = ("background", "foreground")
MUCH_MORE = 4
"""Ratio of pixels of 255 to pixels of all values between, above which those are strays in masks of 0, 255."""
SHADES = 8
"""Number of values between 0 and 255, above which they may be smoothed edges of masks of 0 and 255."""
NEAR_255 = 200
"""Smoothed edges reach beyond this value; class indices seldom do."""


def of_masks(
    named: Named,
    label_map: dict | None,
    ignore_value: int,
    lossy_masks: bool,
    masks: list[str],
    reader: MaskReader,
    may_fail: Collection[str],
) -> tuple[Named, Labels, dict]:
    """The classes, how masks are read, and the settled options, of a folder's options.

    named: the given classes; without any, all masks are read for them. may_fail: masks that need not be
    readable.
    """
    mapping = checked_map(label_map)
    if named.values and not mapping:
        mapping = {value: index for index, value in enumerate(named.values)}
    if lossy_masks:
        _check_lossy(named, mapping)
    counted = functools.cache(lambda: mask_values(masks, reader, may_fail, same_colours=not mapping))
    settled, mapping = settled_map(named, mapping, ignore_value, masks, reader, counted)
    if not named.names:
        named = Named(BINARY_NAMES if settled else found_names(mapping, ignore_value, masks, counted()))
        settled = {**settled, "classes": list(named.names)}
    return named, labels_of(named, mapping, ignore_value, lossy_masks), settled


def checked_map(label_map: dict | None) -> dict[int, int]:
    mapping = {}
    for value, index in (label_map or {}).items():
        if not str(value).isdecimal() or int(value) > 65535:
            raise ConfigError(
                f"data.label_map has {value!r}: {index!r}; allowed: mask values from 0 to 65535, each with a "
                f"class index from 0 to 254, or 255 for no label"
            )
        mapping[int(value)] = index
    return mapping


def settled_map(
    named: Named,
    mapping: dict[int, int],
    ignore_value: int,
    masks: list[str],
    reader: MaskReader,
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
        if few_hold(masks, set(BINARY), reader):
            notice(_binary_warning(len(named.names)))
        return {}, mapping
    if named.names and _are_shades(counted()):
        raise _smoothed(counted(), named.names)
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


def _check_lossy(named: Named, mapping: dict[int, int]) -> None:
    """ConfigError unless the options give the values or colours of which a pixel takes the nearest; the masks
    themselves do not tell them."""
    if not named.names:
        raise ConfigError(
            "data.lossy_masks takes the nearest of given values or colours, and without data.classes there "
            "are none; for masks of 0 and 255 set data.classes=[background,foreground] "
            "data.label_map='{0: 0, 255: 1}'"
        )
    if not (mapping or named.colours):
        raise ConfigError(
            "data.lossy_masks takes the nearest of given values or colours, and none are given; set "
            "data.label_map, for masks of 0 and 255 data.label_map='{0: 0, 255: 1}'"
        )


def labels_of(named: Named, mapping: dict[int, int], ignore_value: int, lossy_masks: bool) -> Labels:
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
    return Labels(num, ignore_value, mapping, named.colours, named.ignored, nearest=lossy_masks)


def _around(ignore_value: int, num: int) -> str:
    """'{1: 0, 2: 1}' for two classes with 0 for no label: a label map of the values from 0 on without it."""
    values = [value for value in range(num + 1) if value != ignore_value]
    return "{" + ", ".join(f"{value}: {index}" for index, value in enumerate(values)) + "}"


def found_names(
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
    if not mapping and ignore_value == IGNORE and (_are_shades(values) or _are_strays(values)):
        raise _smoothed(values)
    if indices != list(range(len(indices))):
        if mapping:
            raise ConfigError(
                f"data.label_map leads to the class indices {', '.join(map(str, indices))}; they must run "
                f"from 0 without gaps where data.classes is not given; correct it, or name all classes in "
                f"data.classes"
            )
        raise DataError(
            f"class indices must run from 0 without gaps; the masks hold {shown}; "
            f"set data.label_map='{_without_gaps(labelled)}', or data.classes"
        )
    if len(indices) > 255:
        raise DataError(
            f"the masks hold {len(indices)} values; allowed: at most 255 classes; set data.label_map"
        )
    found = f"{count(len(indices), 'class', 'classes')} in {count(len(masks), 'mask')}"
    notice(f"found {found}: {shown}; name them with data.classes")
    if len(indices) == 1:
        notice(
            "warning: with a single class there is nothing to tell apart, and every network scores 1; if the "
            "pixels without a label are its background, name it in data.classes and map their value in "
            "data.label_map"
        )
    return tuple(f"class_{index}" for index in indices)


def _are_strays(values: dict[int, int]) -> bool:
    """Whether the values between 0 and 255 have gaps, and few pixels beside those of 255."""
    between = _between(values)
    has_gaps = bool(between) and max(between) > len(between)
    return has_gaps and values[IGNORE] > MUCH_MORE * sum(between.values())


def _are_shades(values: dict[int, int]) -> bool:
    """Whether there are many values between 0 and 255, all of them rarer than both."""
    between = _between(values)
    is_wide = len(between) > SHADES and max(between) > NEAR_255
    return is_wide and max(between.values()) < min(values[0], values[IGNORE])


def _between(values: dict[int, int]) -> dict[int, int]:
    """{value: pixels} of the values between 0 and 255; none unless the masks hold both and nothing above."""
    if not {0, IGNORE} <= values.keys() or max(values) > IGNORE:
        return {}
    return {value: pixels for value, pixels in values.items() if 0 < value < IGNORE}


def _smoothed(values: dict[int, int], names: tuple[str, ...] = ()) -> DataError:
    """names: of the two classes, where the options give them."""
    classes = "" if names else "data.classes=[background,foreground] "
    or_classes = "; if the values are classes, name them in data.classes or set data.label_map"
    return DataError(
        f"the masks hold {count(len(values), 'value')}, and look like masks of 0 ({values[0]} px) and 255 "
        f"({values[IGNORE]} px) with stray values, as smoothed edges have: make each pixel 0 or 255, or set "
        f"data.lossy_masks=true {classes}data.label_map='{{0: 0, 255: 1}}', which takes the nearer one"
        f"{'' if names else or_classes}"
    )


def _without_gaps(labelled: list[int]) -> str:
    """A label map that closes the gaps."""
    return "{" + ", ".join(f"{value}: {index}" for index, value in enumerate(labelled)) + "}"
