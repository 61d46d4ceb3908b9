"""The kinds of what a check of a data set finds, and their presentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from segtrain.text import count

SHOWN = 5
"""Findings of a kind that the text lists."""


@dataclass(frozen=True)
class Kind:
    """A kind of finding.

    one, many: what is found, in words. remedy: what to do about it. wrong: whether it makes the data set
    unfit as it is; otherwise it is worth a look and may be intended.
    """

    one: str
    many: str
    remedy: str
    wrong: bool = True

    def counted(self, number: int) -> str:
        return count(number, self.one, self.many)


KINDS = {
    "unreadable": Kind(
        "sample cannot be read",
        "samples cannot be read",
        "replace or remove the files; training goes on without them with loader.on_bad=skip",
    ),
    "size": Kind(
        "image has another size than its mask",
        "images have another size than their masks",
        "export both again at one size, or remove the pairs",
    ),
    "swapped": Kind(
        "pair has image and mask interchanged",
        "pairs have image and mask interchanged",
        "exchange the two files",
    ),
    "coloured": Kind(
        "mask is coloured, and the classes have no colours",
        "masks are coloured, and the classes have no colours",
        "save class indices, or give data.classes a file with a line 'name r g b' for each class",
    ),
    "off_by_one": Kind(
        "mask holds the value after that of the last class (off by one)",
        "masks hold the value after that of the last class (off by one)",
        "if the masks count classes from 1, map them: data.label_map='{1: 0, 2: 1, …}' (0: 255 where 0 is "
        "no label); if a class is missing, name it in data.classes",
    ),
    "value": Kind(
        "mask holds values or colours that no class has",
        "masks hold values or colours that no class has",
        "correct the masks, data.classes or data.label_map",
    ),
    "zero_255": Kind(
        "grey mask holds only 0 and 255, and 255 is read as no label",
        "grey masks hold only 0 and 255, and 255 is read as no label",
        "if 255 is a class in them, save its index",
    ),
    "pixel_type": Kind(
        "image has other pixels than most",
        "images have other pixels than most",
        "save all images with the same channels and bits per channel",
    ),
    "duplicate": Kind(
        "image is in two splits",
        "images are in two splits",
        "keep each in one split; scores on images that were trained on are too high",
    ),
    "similar": Kind(
        "image is very similar to one of another split",
        "images are very similar to one of another split",
        "if they show the same scene, keep them in one split",
        wrong=False,
    ),
    "group": Kind(
        "group of images is in several splits",
        "groups of images are in several splits",
        "if a group is one video, patient or place, keep it in one split",
        wrong=False,
    ),
    "unlabelled": Kind(
        "sample has no label at all",
        "samples have no label at all",
        "nothing is learned from them, and they are not scored",
        wrong=False,
    ),
    "background": Kind(
        "sample holds nothing but background",
        "samples hold nothing but background",
        "fine if nothing is there to label",
        wrong=False,
    ),
    "absent": Kind(
        "class has no pixel",
        "classes have no pixel",
        "a class without training pixels is not learned",
        wrong=False,
    ),
}
"""All kinds, by name, in the order of presentation: what is wrong first."""


def lines(messages: Mapping[str, Sequence[str]]) -> list[str]:
    """The findings as text: for each kind its number, what to do, and the first messages."""
    text = []
    for name, kind in KINDS.items():
        found = messages.get(name, ())
        if not found:
            continue
        text.append(f"{kind.counted(len(found))}: {kind.remedy}")
        text += [f"  {message}" for message in found[:SHOWN]]
        text += [f"  … and {len(found) - SHOWN} more (json=true lists all)"] if len(found) > SHOWN else []
    return text


def num_wrong(messages: Mapping[str, Sequence[str]]) -> int:
    """How many findings are of a kind that is wrong."""
    return sum(len(found) for name, found in messages.items() if KINDS[name].wrong)
