"""The units that intervals resample: images of one source look alike, so they are drawn together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from segtrain.data.files.pairs import prefix_and_number
from segtrain.data.parts import Split
from segtrain.data.selection import names_and_groups
from segtrain.text import count


class Units(NamedTuple):
    """of: number of the unit, from 0, of each sample of a split. kind: what a unit is."""

    of: tuple[int, ...]
    kind: str

    @property
    def count(self) -> int:
        return max(self.of, default=-1) + 1

    @property
    def words(self) -> str:
        """Their number in words, such as '3 groups'."""
        many = "blocks of consecutive images" if self.kind == "block of consecutive images" else None
        return count(self.count, self.kind, many or f"{self.kind}s")


def units_of(split: Split) -> Units:
    """The units of a split; no image is read."""
    return units(names_and_groups(split))


def blocks_of(split: Split) -> Units:
    """The blocks of consecutive images of a split, whatever their groups."""
    return units([(name, "") for name, _ in names_and_groups(split)])


def units(names: Sequence[tuple[str, str]]) -> Units:
    """The groups (drives, patients); a sample without a group is one by itself. Where no sample has a group:
    blocks of consecutive images.

    names: (name, group) of each sample. Names of one prefix are ordered by the number behind it and cut into
    blocks of n^(1/3) images, rounded up, where n is the number of all samples: the length at which the error
    of a block bootstrap's variance falls fastest (Hall, Horowitz & Jing 1995, "On blocking rules for the
    bootstrap with dependent data"). Names without a number are units by themselves.
    """
    if any(group for _, group in names):
        keys: list = [("group", group) if group else ("name", name) for name, group in names]
        return Units(_numbered(keys), "group")
    length = math.ceil(round(len(names) ** (1 / 3), 6))
    by_prefix: dict[str, list[tuple[int, int]]] = {}
    keys = [("name", index) for index in range(len(names))]
    for index, (name, _) in enumerate(names):
        prefix, number = prefix_and_number(name)
        if number is not None:
            by_prefix.setdefault(prefix, []).append((number, index))
    for prefix, members in by_prefix.items():
        for place, (_, index) in enumerate(sorted(members)):
            keys[index] = ("block", prefix, place // length)
    kind = "image" if len(set(keys)) == len(keys) else "block of consecutive images"
    return Units(_numbered(keys), kind)


def _numbered(keys: list) -> tuple[int, ...]:
    """The keys as numbers from 0, in the order in which they first occur."""
    number = {key: place for place, key in enumerate(dict.fromkeys(keys))}
    return tuple(number[key] for key in keys)
