"""Several data sets as one, with their classes mapped onto a common list by name."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from segtrain.data.joined import ConcatSplit, headers_of, source_of, target_of, without_instances
from segtrain.data.parts import Data, Header, Source, Split, digest_of
from segtrain.errors import ConfigError, DataError, SegtrainError, nearest
from segtrain.options import check_options
from segtrain.registry import Table
from segtrain.sample import IGNORE, Facts, Sample, Target, voc_palette
from segtrain.text import notice

MAX_CLASSES = 255


def concat_of(factories: Mapping[str, Callable[..., Data]]) -> Callable[..., Data]:
    """The factory `concat` over these data sets and those of installed packages."""
    sets_table = Table("data", factories)

    def concat(
        sets: dict[str, dict | None],
        classes: list[str] | None = None,
        class_map: dict[str, dict[str, str | None]] | None = None,
        unmapped: Literal["error", "ignore"] = "error",
        settled: dict[str, dict] | None = None,
        target: Target | None = None,
        unread_in: Collection[str] = (),
    ) -> Data:
        """Several data sets as one: their classes are mapped onto a common list by name, their splits of a
        name are joined.

        A class goes to the common class of its own name, or to the one that class_map gives. Pixels of a
        class that goes to none have no label.

        Options:
            sets: each data set's options under a name of your own, e.g. {voc: {root: VOC}, mine: {name:
                folder, root: MINE}}; the entry's `name` is the data set, by default the same as yours; null
                leaves a set out
            classes: the common classes in the order of their indices; null: all that occur, in the order of
                the sets
            class_map: for each set, its class to the common class, or to null for no label, e.g. {mine:
                {auto: car, sky: null}}
            unmapped: a class that goes to no common class is an error, or has no label (ignore)
            settled: what the sets left open and was found in their files, such as class names of folder;
                filled in by the first run and read by those that resume or score it
        """
        parts = _built(sets_table, sets, settled or {}, target, unread_in)
        names = {label: _common_names(label, part.facts, class_map or {}) for label, part in parts.items()}
        _check_labels(class_map or {}, sets)
        common = _common(classes, names)
        facts = _facts(common, parts, names)
        tables = {
            label: _table(label, part.facts, names[label], common, unmapped) for label, part in parts.items()
        }
        splits = {
            split: ConcatSplit(
                [
                    Mapped(part.splits[split], tables[label])
                    for label, part in parts.items()
                    if split in part.splits
                ]
            )
            for split in dict.fromkeys(split for part in parts.values() for split in part.splits)
        }
        found = {label: dict(part.settled) for label, part in parts.items() if part.settled}
        return Data(facts, splits, {"classes": list(common), "settled": {**(settled or {}), **found}})

    return concat


@dataclass(frozen=True)
class Mapped:
    """A split whose targets are mapped. table: uint8[256], the common class of each target value."""

    split: Split
    table: np.ndarray

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> Sample:
        sample = self.split[index]
        sample.target = self.table[sample.target]
        return sample

    def target(self, index: int) -> np.ndarray:
        """The target of a sample; the image is not read where the split can do without."""
        return self.table[target_of(self.split, index)]

    def names_and_groups(self) -> list[tuple[str, str]] | None:
        """(name, group) of each sample; None if the split does not tell them."""
        return self.split.names_and_groups() if hasattr(self.split, "names_and_groups") else None

    def name(self, index: int) -> str:
        return self.split.name(index)

    def size(self, index: int) -> tuple[int, int]:
        return self.split.size(index)

    def source(self, index: int) -> Source | None:
        """The `Source` of a sample; None if its split has none."""
        source = source_of(self.split, index)
        return source and source._replace(reading=f"{source.reading} {self._reading}")

    def without_instances(self) -> Mapped:
        """The same samples; files of object numbers are not read."""
        return Mapped(without_instances(self.split), self.table)

    @functools.cached_property
    def _reading(self) -> str:
        return digest_of(self.table.tolist())

    def headers(self, indices: Sequence[int]) -> list[Header | DataError]:
        """The header of each image, or the DataError of a sample that cannot be used."""
        return headers_of(self.split, list(indices))


def _built(
    table: Table,
    sets: Mapping[str, dict | None],
    settled: Mapping,
    target: Target | None,
    unread_in: Collection[str],
) -> dict[str, Data]:
    """The data set of each entry of data.sets."""
    if not any(options is not None for options in sets.values()):
        raise ConfigError("data.sets is empty; give data sets, such as data.sets={voc:{root:VOC}}")
    parts = {}
    for label, options in sets.items():
        if options is None:
            continue
        if not re.fullmatch(r"[\w-]+", label):
            raise ConfigError(f"data.sets has {label!r}; allowed: letters, digits, - and _")
        typed = {key: value for key, value in options.items() if value is not None}
        options = {**(settled.get(label) or {}), **typed}
        name = options.pop("name", label)
        try:
            factory = table.factory(name)
        except ConfigError as error:
            raise ConfigError(f"data.sets.{label}: {error}; set its name to one of them") from error
        checked = check_options(options, factory, f"data.sets.{label}", f"data {name!r}")
        try:
            parts[label] = table.build({"name": name, **checked}, target=target, unread_in=unread_in)
        except SegtrainError as error:
            error.args = (f"data.sets.{label}: {error}",)
            raise
    channels = {label: part.facts.channels for label, part in parts.items()}
    if len(set(channels.values())) > 1:
        raise ConfigError(
            f"the images of data.sets have different numbers of channels: {channels}; they must be equal"
        )
    return parts


def _common_names(label: str, facts: Facts, class_map: Mapping) -> tuple[str | None, ...]:
    """For each class of a set, the name of its common class; None for no label."""
    mapping = class_map.get(label) or {}
    unknown = next((name for name in mapping if name not in facts.classes), None)
    if unknown is not None:
        raise ConfigError(
            f"data.class_map.{label} has {unknown!r}, which is no class of that set"
            f"{nearest(unknown, facts.classes)}; its classes are {', '.join(facts.classes)}"
        )
    return tuple(mapping.get(name, name) for name in facts.classes)


def _check_labels(class_map: Mapping, sets: Mapping) -> None:
    unknown = next((label for label in class_map if label not in sets), None)
    if unknown is not None:
        raise ConfigError(
            f"data.class_map has {unknown!r}, which is no set of data.sets{nearest(unknown, sets)}; there "
            f"are {', '.join(sets)}"
        )


def _common(classes: list[str] | None, names: Mapping[str, tuple]) -> tuple[str, ...]:
    """The common classes. ConfigError if a class is named twice or there are more than 255."""
    occurring = dict.fromkeys(name for some in names.values() for name in some if name is not None)
    common = tuple(occurring if classes is None else classes)
    double = next((name for name in common if common.count(name) > 1), None)
    if double is not None:
        raise ConfigError(f"data.classes has {double!r} twice; each class needs its own name")
    if not 1 <= len(common) <= MAX_CLASSES:
        raise ConfigError(f"data=concat has {len(common)} common classes; allowed: 1 to {MAX_CLASSES}")
    if missing := [name for name in common if name not in occurring]:
        notice(
            f"data.classes has {missing[0]!r}, which no set holds{nearest(missing[0], occurring)}"
            + (f", and {len(missing) - 1} more such" if len(missing) > 1 else "")
        )
    return common


def _table(
    label: str, facts: Facts, names: tuple[str | None, ...], common: tuple[str, ...], unmapped: str
) -> np.ndarray:
    """uint8[256]: common class of each target value of a set, IGNORE for the values of no class."""
    table = np.full(256, IGNORE, np.uint8)
    for index, name in enumerate(names):
        if name in common:
            table[index] = common.index(name)
        elif name is not None and unmapped == "error":
            raise ConfigError(
                f"data.sets.{label} has the class {facts.classes[index]!r}, and data.classes has no {name!r}"
                f"{nearest(name, common)}; lead it to a common class or to null in data.class_map.{label}, "
                f"or set data.unmapped=ignore"
            )
    return table


def _facts(common: tuple[str, ...], parts: Mapping[str, Data], names: Mapping[str, tuple]) -> Facts:
    """Facts of the common classes: colours of the first set that holds a class, unless two classes would have
    one colour; a class is a thing if it is one in every set that holds it."""
    colours, things = {}, {}
    for label, part in parts.items():
        for index, name in enumerate(names[label]):
            colours.setdefault(name, part.facts.palette[index])
            things[name] = things.get(name, True) and index in part.facts.things
    palette = tuple(colours.get(name) for name in common)
    first = next(iter(parts.values())).facts
    same = all(part.facts.normalisation == first.normalisation for part in parts.values())
    return Facts(
        classes=common,
        palette=palette if len({*palette, None}) == len(palette) + 1 else voc_palette(len(common)),
        channels=first.channels,
        things=tuple(index for index, name in enumerate(common) if things.get(name)),
        normalisation=first.normalisation if same else None,
    )
