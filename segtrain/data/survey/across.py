"""What is found by comparing samples: the same image, similar images or one group in two splits; images of
several pixel types; classes that never occur."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from segtrain.data.survey.one import Fault, Look
from segtrain.sample import Facts
from segtrain.text import count

NEAR_BITS = 4
"""Largest number of different bits in the difference hashes (64 bits) of similar images."""
AT_ONCE = 1 << 21  # comparisons of hashes held in memory
ONES = np.array([number.bit_count() for number in range(1 << 16)], np.uint8)


class Seen(NamedTuple):
    """A sample of the data set and its `Look`."""

    split: str
    index: int
    name: str
    look: Look


class Compared(NamedTuple):
    """A fault and the samples that it is about."""

    fault: Fault
    samples: tuple[Seen, ...]


def compared(seen: Sequence[Seen], facts: Facts, classes: bool) -> Iterator[Compared]:
    """All that only shows between samples. classes: whether targets hold class indices."""
    yield from _other_pixels(seen, facts)
    yield from _in_two_splits(seen)
    yield from _similar(seen)
    yield from _groups(seen)
    if classes:
        yield from _absent(seen, facts)


def _other_pixels(seen: Sequence[Seen], facts: Facts) -> Iterator[Compared]:
    types = Counter(one.look.pixels for one in seen if one.look.pixels)
    if not types:
        return
    usual = types.most_common(1)[0][0][0]
    for one in seen:
        if one.look.pixels and one.look.pixels != (usual, facts.channels):
            dtype, channels = one.look.pixels
            message = (
                f"{one.name} has {count(channels, 'channel')} of {dtype}; most images of the data set have "
                f"{facts.channels} of {usual}"
            )
            yield Compared(Fault("pixel_type", message), (one,))


def _in_two_splits(seen: Sequence[Seen]) -> Iterator[Compared]:
    by_digest: dict[bytes, list[Seen]] = {}
    for one in seen:
        if one.look.digest is not None:
            by_digest.setdefault(one.look.digest, []).append(one)
    for same in by_digest.values():
        if len({one.split for one in same}) > 1:
            yield Compared(Fault("duplicate", _listed(same)), tuple(same))


def _listed(samples: Sequence[Seen]) -> str:
    shown = " = ".join(f"{one.name} ({one.split})" for one in samples[:4])
    return shown + (f" and {len(samples) - 4} more" if len(samples) > 4 else "")


def _similar(seen: Sequence[Seen]) -> Iterator[Compared]:
    """Each sample that looks like one of an earlier split, with the most similar one."""
    by_split: dict[str, list[Seen]] = {}
    for one in seen:
        # An image without structure would be similar to every other.
        if one.look.similarity not in (None, 0):
            by_split.setdefault(one.split, []).append(one)
    names = list(by_split)
    for place, name in enumerate(names):
        earlier = [one for before in names[:place] for one in by_split[before]]
        if not earlier:
            continue
        hashes = np.array([one.look.similarity for one in earlier], np.uint64)
        digests = {one.look.digest for one in earlier}
        new = [one for one in by_split[name] if one.look.digest not in digests]  # the others are duplicates
        step = max(1, AT_ONCE // len(earlier))
        for start in range(0, len(new), step):
            some = new[start : start + step]
            differ = np.array([one.look.similarity for one in some], np.uint64)[:, None] ^ hashes
            bits = ONES[differ.view(np.uint16)].reshape(*differ.shape, 4).sum(axis=2)
            for one, row in zip(some, bits, strict=True):
                nearest = int(row.argmin())
                if row[nearest] <= NEAR_BITS:
                    other = earlier[nearest]
                    message = f"{one.name} ({one.split}) looks like {other.name} ({other.split})"
                    yield Compared(Fault("similar", message), (other, one))


def _groups(seen: Sequence[Seen]) -> Iterator[Compared]:
    groups: dict[str, list[Seen]] = {}
    for one in seen:
        if one.look.group:
            groups.setdefault(one.look.group, []).append(one)
    if len(groups) < 2:  # one name for all samples says nothing about where they come from
        return
    for group, members in groups.items():
        splits = Counter(one.split for one in members)
        if len(splits) > 1:
            numbers = ", ".join(f"{number} in {split}" for split, number in splits.items())
            yield Compared(Fault("group", f"group {group!r}: {numbers}"), tuple(members))


def _absent(seen: Sequence[Seen], facts: Facts) -> Iterator[Compared]:
    by_split: dict[str, set[int]] = {}
    for one in seen:
        by_split.setdefault(one.split, set()).update(one.look.classes)
    everywhere = set().union(*by_split.values())
    for index, name in enumerate(facts.classes):
        lacking = _lacking(index, by_split, everywhere)
        if lacking:
            hint = ""
            if index == 0 and everywhere == set(range(1, facts.num_classes)):
                hint = "; all others occur: do the masks count the classes from 1?"
            yield Compared(Fault("absent", f"class {index} {name!r}: {lacking}{hint}"), ())


def _lacking(index: int, by_split: Mapping[str, set[int]], everywhere: set[int]) -> str:
    if index not in everywhere:
        return "in no split"
    return "not in train" if index not in by_split.get("train", everywhere) else ""
