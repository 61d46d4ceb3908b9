"""Search for what is wrong in a whole data set."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

from segtrain.data.parts import Data
from segtrain.data.survey.across import Seen, compared
from segtrain.data.survey.each import of_each, stored
from segtrain.data.survey.kinds import KINDS
from segtrain.data.survey.one import look


class Problem(NamedTuple):
    """split: name of the split. index: of the sample in it. name: the sample's. message: the error, one
    line."""

    split: str
    index: int
    name: str
    message: str


class Finding(NamedTuple):
    """kind: key of `kinds.KINDS`. message: one line that names the files. samples: what it is about."""

    kind: str
    message: str
    samples: tuple[Seen, ...]


def findings(data: Data, classes: bool = True, similar: bool = False) -> list[Finding]:
    """All that is wrong or worth a look in a data set, whose samples are all read.

    classes: whether targets hold class indices. similar: whether to search for similar images in different
    splits.
    """
    seen = _seen(data, classes, similar)
    alone = [Finding(*fault, (one,)) for one in seen for fault in one.look.faults]
    return alone + [Finding(*one.fault, one.samples) for one in compared(seen, data.facts, classes)]


def problems(data: Data) -> Iterator[Problem]:
    """All samples that fail to load: damaged files, image and mask of different sizes, mask values
    outside the classes."""
    for one in _seen(data):
        for kind, message in one.look.faults:
            if KINDS[kind].wrong:
                yield Problem(one.split, one.index, one.name, message)


def _seen(data: Data, classes: bool = True, similar: bool = False) -> list[Seen]:
    """Every sample with its look; a sample that a split holds several times is looked at once."""
    places: list[tuple[str, int]] = []
    for name, split in data.splits.items():
        known = set()
        for index in range(len(split)):
            source, inside = stored(split, index)
            if (id(source), inside) not in known:
                known.add((id(source), inside))
                places.append((name, index))
    samples = [(data.splits[name], index) for name, index in places]
    read = functools.partial(look, facts=data.facts, classes=classes, similar=similar)
    looks = of_each(read, samples, "checking")
    return [
        Seen(name, index, data.splits[name].name(index), one)
        for (name, index), one in zip(places, looks, strict=True)
    ]
