"""Comparison of what lies on a disk with the published number of samples."""

from __future__ import annotations

from collections.abc import Mapping

from segtrain.text import notice


def say_other_counts(name: str, found: Mapping[str, int], published: Mapping[str, int]) -> None:
    """A notice if a part of a data set has another number of samples than published. name: of the data
    set."""
    other = [
        f"{part} has {found[part]} of {number} images"
        for part, number in published.items()
        if part in found and found[part] != number
    ]
    if other:
        notice(f"{name} is not as published: {', '.join(other)}")
