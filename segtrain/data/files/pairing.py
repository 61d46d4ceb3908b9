"""Which mask belongs to which image, by their names."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from segtrain.data.files.channels import Channels, suffixes_of
from segtrain.data.files.listing import Listing, list_images, tell_left_out
from segtrain.data.files.pairs import by_name, same_names
from segtrain.data.files.reading import SUFFIXES
from segtrain.errors import ConfigError, DataError
from segtrain.text import count

SEPARATORS = "_-. "
KINDS = {"images": "images", "imgs": "images", "masks": "masks", "labels": "masks"}
"""Names of folders, in small letters, that tell images from masks where both lie below one folder, as in
train/images/."""
MAX_TRIED = 2000  # names that suffixes are looked for in


@dataclass(frozen=True)
class Places:
    """images, masks: the folders. root_of_images, root_of_masks: folders that links must not lead out of.
    by_kind: whether both are one folder, in which further folders, such as train/images and train/masks, tell
    images from masks."""

    images: str
    masks: str
    root_of_images: str
    root_of_masks: str
    by_kind: bool = False


class Suffixes(NamedTuple):
    """What the names of images and masks end in beside what they share: '_sat' and '_mask', or with the
    file's own suffix, '.jpg' and '_mask.png'."""

    image: str = ""
    mask: str = ""


@dataclass(frozen=True)
class Files:
    """Images and masks by name, and {name of an image: name of its mask} of those that have one. A name is
    the path below the folder, without data.image_suffix or data.mask_suffix and the file's own suffix. where:
    what messages call a mask, and kind: what they call all of them."""

    images: Mapping[str, str]
    masks: Mapping[str, str]
    mask_of: Mapping[str, str] = field(default_factory=dict)
    where: Callable[[str], str] = str
    kind: str = "mask"

    def without_mask(self, names: Iterable[str]) -> list[str]:
        """Paths of those images that have no mask."""
        return [self.images[name] for name in names if name not in self.mask_of]

    def masks_alone(self) -> dict[str, str]:
        """Masks that belong to no image."""
        paired = set(self.mask_of.values())
        return {name: self.where(path) for name, path in self.masks.items() if name not in paired}


def find_places(
    root: str | None, images: str | None, masks: str | None, suffixes: Suffixes, annotated: bool = False
) -> Places:
    """The folders of images and masks; ConfigError if there is none. Without images/ and masks/ below root,
    both may lie in root itself, told apart by data.mask_suffix. annotated: whether there are no masks,
    because the images have annotations."""
    if annotated:
        return _place_of_images(root, images, masks)
    if root is None and (images is None or masks is None):
        raise ConfigError(
            "data.images and data.masks are missing: data 'folder' needs both, or data.root with images/ "
            "and masks/ in it"
        )
    if root is not None and not os.path.isdir(root):
        raise ConfigError(f"data.root is {root!r}, which is not a folder; give an existing one")
    together = images is masks is None and not any(
        os.path.isdir(os.path.join(root, kind)) for kind in ("images", "masks")
    )
    if together and (files := list_images(root).files):
        kinds = {kind for file in files if (kind := _kind(file))}
        return Places(root, root, root, root, by_kind=kinds == {"images", "masks"})
    found = {}
    for key, given in (("images", images), ("masks", masks)):
        found[key] = os.path.join(root or "", given if given is not None else key)
        if not os.path.isdir(found[key]):
            raise ConfigError(
                f"data.{key} is {found[key]!r}, which is not a folder; give the folder of the {key}"
                + ("" if given else _folders_in(root))
                + (
                    _labelme_advice(found["images"]).replace("=.", f"={found['images']}")
                    if key == "masks"
                    else ""
                )
            )
    return Places(found["images"], found["masks"], root or found["images"], root or found["masks"])


def _place_of_images(root: str | None, images: str | None, masks: str | None) -> Places:
    if masks is not None:
        raise ConfigError("data.masks and data.annotations exclude each other; set one of them to null")
    if root is None and images is None:
        raise ConfigError(
            "data.images is missing: data.annotations needs it, or data.root with images/ in it"
        )
    folder = os.path.join(root or "", images if images is not None else "images")
    if images is None and not os.path.isdir(folder):
        folder = root
    if not os.path.isdir(folder):
        raise ConfigError(f"data.images is {folder!r}, which is not a folder; give the folder of the images")
    return Places(folder, folder, root or folder, root or folder)


def find_annotated(
    places: Places,
    suffixes: Suffixes,
    channels: Channels | None,
    keys: Mapping[str, str],
    where: Callable[[str], str] = str,
) -> Files:
    """All images and, as masks, the keys of their annotations. keys: by name of the image, whose folders may
    be separated as on Windows. where: what messages call an annotation. DataError if no image has one."""
    images = list_images(places.images, suffixes=suffixes_of(channels))
    named_images = _by_name(images.files, suffixes.image, places.images, places.root_of_images)
    if channels is not None:
        named_images = channels.by_name(named_images)
    keys = {name if name in named_images else name.replace("\\", "/"): key for name, key in keys.items()}
    mask_of = same_names(named_images, keys)
    if (
        not mask_of and len({name.split("/")[0] for name in keys}) == 1
    ):  # exports name the folder: images/a.jpg
        keys = {name.split("/", 1)[-1]: key for name, key in keys.items()}
        mask_of = same_names(named_images, keys)
    if not mask_of:
        examples = [next(iter(names), "none") for names in (named_images, keys)]
        raise DataError(
            f"none of the {len(named_images)} images in {places.images} (the first: {examples[0]!r}) is "
            f"among the "
            f"{len(keys)} of data.annotations (the first: {examples[1]!r}); names without suffix must be "
            f"equal, folders "
            f"below data.images included"
        )
    return Files(named_images, keys, mask_of, where, "annotation")


def _labelme_advice(folder: str) -> str:
    """What to do about labelme's files beside the images; '' if there are none."""
    stems = {os.path.splitext(file)[0] for file in list_images(folder).files} if os.path.isdir(folder) else ()
    beside = next(
        (stem for stem in sorted(stems) if os.path.isfile(os.path.join(folder, stem + ".json"))), None
    )
    return (
        ""
        if beside is None
        else f"; {beside}.json lies beside an image: for labelme's files set data.annotations=."
    )


def find_files(places: Places, suffixes: Suffixes, channels: Channels | None = None) -> Files:
    """All images and masks, and which belong together. channels: of the images. DataError if there is no
    pair at all, with the suffixes that would make some; for two files of one name; for links that lead out
    of the root."""
    images, masks = _listings(places, suffixes_of(channels))
    tell_left_out(
        images.left_out + masks.left_out, " and ".join(dict.fromkeys((places.images, places.masks)))
    )
    in_one_folder = os.path.samefile(places.images, places.masks) and not places.by_kind
    if in_one_folder and not suffixes.mask:
        otherwise = "set data.mask_suffix to the end of the masks' names, or data.images and data.masks to"
        otherwise += f" two folders{_folders_in(places.images)}"
        remedy = _advice(images, masks, suffixes, otherwise)
        raise DataError(
            f"images and masks lie in one folder, {places.images}, and nothing tells them apart"
            f"{_labelme_advice(places.images) or f'; {remedy}'}"
        )
    named_masks = _by_name(masks.files, suffixes.mask, places.masks, places.root_of_masks, places.by_kind)
    if in_one_folder:
        own = set(named_masks.values())
        others = [file for file in images.files if os.path.join(places.images, file) not in own]
        images = Listing(others, images.left_out)
    named_images = _by_name(
        images.files, suffixes.image, places.images, places.root_of_images, places.by_kind
    )
    if channels is not None:
        named_images = channels.by_name(named_images)
    mask_of = same_names(named_images, named_masks)
    if not mask_of:
        first, second = (
            f"{len(named)} found" + (f", {next(iter(named))!r} first" if named else _no_images(folder))
            for named, folder in ((named_images, places.images), (named_masks, places.masks))
        )
        remedy = "names without suffix must be equal, folders below included (see data.mask_suffix)"
        raise DataError(
            f"no image in {places.images} ({first}) has a mask of the same name in {places.masks} "
            f"({second}); {_advice(images, masks, suffixes, remedy)}"
        )
    return Files(named_images, named_masks, mask_of)


def _folders_in(folder: str | None) -> str:
    """'; mine holds the folders a, b'; '' if there are none."""
    with contextlib.suppress(OSError), os.scandir(folder or os.curdir) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
        if names:
            return f"; {folder or os.curdir} holds the folders {', '.join(names[:8])}"
    return ""


def _no_images(folder: str) -> str:
    """', among 4 .txt files': what a folder without image files holds; '' if it is empty."""
    kinds = Counter(os.path.splitext(name)[1] for *_, names in os.walk(folder) for name in names)
    kind, number = next(iter(kinds.most_common(1)), ("", 0))
    polygons = "; polygons of YOLO are not read: export masks or COCO's format" if kind == ".txt" else ""
    return f" among {count(number, f'{kind} file')}{polygons}" if kind else ""


def refuse_unpaired(images: Sequence[str], masks: Sequence[str], called: str = "mask") -> None:
    """DataError if there are paths of images without mask or of masks without image. called: what messages
    call a mask."""
    for kind, missing, paths in (("image", called, images), (called, "image", masks)):
        if paths:
            shown = ", ".join(paths[:5]) + (f" and {len(paths) - 5} more" if len(paths) > 5 else "")
            lonely = count(len(paths), f"{kind} has", f"{kind}s have")
            raise DataError(
                f"{lonely} no {missing} of the same name: {shown}; add or remove them, or name what is used "
                f"in data.train_list and data.val_list"
            )


def _listings(places: Places, of_images: Sequence[str]) -> tuple[Listing, Listing]:
    """The files of both folders; of two folders, one inside the other, the outer one without the inner."""
    if places.by_kind:
        files, left_out = list_images(places.images, suffixes=of_images)
        images, masks = ([file for file in files if _kind(file) == kind] for kind in ("images", "masks"))
        return Listing(images, left_out), Listing(masks, Counter())
    if os.path.samefile(places.images, places.masks):
        both = list_images(places.images, suffixes=of_images)
        return both, Listing(both.files, Counter())
    return list_images(places.images, [places.masks], of_images), list_images(places.masks, [places.images])


def _kind(file: str) -> str | None:
    """'images' for train/images/a.png, 'masks' for train/masks/a.png; None for a file in no such folder."""
    return next((KINDS[part.lower()] for part in file.split("/")[:-1] if part.lower() in KINDS), None)


def _without_kind(file: str) -> str:
    """train/a.png for train/images/a.png."""
    parts = file.split("/")
    place = next((i for i, part in enumerate(parts[:-1]) if part.lower() in KINDS), None)
    return file if place is None else "/".join(parts[:place] + parts[place + 1 :])


def _by_name(
    files: Iterable[str], suffix: str, folder: str, root: str, by_kind: bool = False
) -> dict[str, str]:
    """{name: path} of the files that end in `suffix`. DataError if two have one name, or if a link leads out
    of `root`."""
    named = ((without_suffix(_without_kind(file) if by_kind else file, suffix), file) for file in files)
    advice = ", or set data.image_suffix or data.mask_suffix to the end of the right one's name"
    return by_name(((name, file) for name, file in named if name is not None), folder, root, advice)


def without_suffix(file: str, suffix: str) -> str | None:
    """'a/1' of 'a/1_mask.png' with '_mask' or '_mask.png'; None if the file's name does not end so."""
    stem = os.path.splitext(file)[0]
    for whole in (file, stem):
        if suffix and whole.endswith(suffix) and len(whole) > len(suffix):
            return whole[: -len(suffix)]
    return None if suffix else stem


def _advice(images: Listing, masks: Listing, suffixes: Suffixes, otherwise: str) -> str:
    """The remedy where nothing fits: the suffixes under which images and masks would."""
    seen = suffixes_seen(*([_without_kind(file) for file in kind.files] for kind in (images, masks)))
    if seen is None or seen == suffixes:
        return otherwise
    typed = [f"data.{kind}_suffix={end}" for kind, end in seen._asdict().items() if end]
    return f"going by the names, set {' '.join(typed)}"


def suffixes_seen(images: Sequence[str], masks: Sequence[str]) -> Suffixes | None:
    """The suffixes by which most of the masks would belong to an image; None if hardly any would."""
    best, most = None, 0
    images, masks = images[:MAX_TRIED], masks[:MAX_TRIED]
    for end in dict.fromkeys(("", _common_end(images))):
        bases = {name: file for file in reversed(images) if (name := without_suffix(file, end)) is not None}
        ends: Counter[str] = Counter()
        for mask in masks:
            ends.update(_ends(mask, bases))
        if end and images != masks and not ends.keys() - set(SUFFIXES):  # the names of masks have no end
            ends = Counter({"": ends.total()})
        for suffix, number in ends.most_common(1):
            if number > most:
                best, most = Suffixes(end, suffix), number
    if best is None or 2 * most < len(images) / (2 if images == masks else 1):
        return None
    if best.mask in SUFFIXES:
        of_images = Counter(os.path.splitext(file)[1] for file in images if not file.endswith(best.mask))
        return Suffixes(of_images.most_common(1)[0][0], best.mask) if of_images else None
    return best


def _ends(mask: str, bases: Mapping[str, str]) -> list[str]:
    """What the name of a mask has after that of an image: '_mask' of a/1_mask.png and a/1.jpg; '.png' of
    a/1.png and a/1.jpg."""
    stem, own = os.path.splitext(mask)
    if bases.get(stem, mask) != mask:
        return [own]
    longest = next((stem[:end] for end in range(len(stem) - 1, 0, -1) if stem[:end] in bases), None)
    end = "" if longest is None else stem[len(longest) :]
    return [end] if end and (end[0] in SEPARATORS or not end[0].isdigit()) else []


def _common_end(files: Sequence[str]) -> str:
    """'_sat' for 10_sat.jpg and 20_sat.jpg: what all names without suffix end in, from a separator on."""
    stems = [os.path.splitext(file)[0] for file in files]
    letters = zip(*map(reversed, stems), strict=False)
    same = itertools.takewhile(lambda several: len(set(several)) == 1, letters)
    shared = "".join(several[0] for several in same)[::-1]
    place = next((i for i, letter in enumerate(shared) if letter in SEPARATORS), len(shared))
    return shared[place:] if "/" not in shared[place:] else ""
