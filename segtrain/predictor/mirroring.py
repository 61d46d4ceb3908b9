"""Classes that are told apart by left and right, and the options that mirror images."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from segtrain.text import count, notice

OTHER_SIDE = {"left": "right", "right": "left", "l": "r", "r": "l"}
WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|[^A-Za-z]+")
"""The words of a name, 'upper' and 'Left' of 'upperLeft', and what is between them."""
MIRRORS = ("D4", "HorizontalFlip", "Transpose")
"""The transforms of augmentation.pixel that exchange left and right."""


def pairs_by_side(classes: Sequence[str]) -> list[tuple[str, str]]:
    """The pairs of names that differ only in a word for left or right, each in the order of the classes."""
    by_words = {_words(name): name for name in classes}
    pairs: list[tuple[str, str]] = []
    for words, name in by_words.items():
        other = by_words.get(tuple(OTHER_SIDE.get(word, word) for word in words), name)
        if other != name and (other, name) not in pairs:
            pairs.append((name, other))
    return pairs


def warn_of_mirroring(classes: Sequence[str], augmentation: Mapping, tta: Mapping) -> None:
    """Notice if images are mirrored although classes differ by side: neither the labels of a mirrored image
    nor the probabilities of a mirrored view are exchanged. augmentation, tta: sections of a config."""
    pairs = pairs_by_side(classes)
    remedies = [*_of_augmentation(augmentation), *_of_tta(tta)]
    if pairs and remedies:
        (one, other), *more = pairs
        others = f" ({count(len(more), 'further pair')})" if more else ""
        notice(
            f"warning: the classes {one!r} and {other!r}{others} differ by side, but images are mirrored "
            f"without exchanging them; set {' '.join(remedies)}"
        )


def _words(name: str) -> tuple[str, ...]:
    return tuple(word.lower() for word in WORD.findall(name))


def _of_augmentation(augmentation: Mapping) -> Iterator[str]:
    """The overrides with which no operation mirrors."""
    for name, options in augmentation.items():
        if (options or {}).get("flip"):
            yield f"augmentation.{name}.flip=0"
        for transform in (options or {}).get("transforms") or ():
            if transform in MIRRORS:
                yield f"augmentation.{name}.transforms.{transform}.p=0"


def _of_tta(tta: Mapping) -> Iterator[str]:
    options = tta.get("flip")
    if options is not None and "horizontal" in options.get("axes", ("horizontal",)):
        yield "tta.flip=null"
