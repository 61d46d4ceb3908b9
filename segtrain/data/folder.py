"""A folder of images and a folder of masks."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated

from segtrain.data.files.annotations import drawn_classes, read_annotations
from segtrain.data.files.channels import Channels
from segtrain.data.files.classes import found_file, read_classes
from segtrain.data.files.label_masks import check_labels, find_label_masks, label_masks
from segtrain.data.files.pairing import Suffixes, find_annotated, find_files, find_places
from segtrain.data.files.pairs import MAX_PIXELS, Pair
from segtrain.data.files.splits import (
    Drawing,
    chosen_names,
    drawn_splits,
    refuse_one_group,
    warn_of_groups_apart,
    with_masks,
)
from segtrain.data.files.statistics import measured_normalisation
from segtrain.data.files.values import of_masks
from segtrain.data.files.whole import Whole
from segtrain.data.files.windows import Rasters
from segtrain.data.parts import Data
from segtrain.errors import ConfigError
from segtrain.options import ABOVE_0, FROM_1, PROBABILITY, SEED, SHARE, WITHIN_0_1, FilePath, between
from segtrain.sample import IGNORE, Facts, Target, voc_palette


def folder(
    root: FilePath | None = None,
    images: FilePath | None = None,
    masks: FilePath | None = None,
    classes: list[str] | FilePath | None = None,
    label_map: dict[int | str, Annotated[int, between(0, 255)]] | None = None,
    ignore_value: Annotated[int, between(0, 65535)] = IGNORE,
    train_list: FilePath | None = None,
    val_list: FilePath | None = None,
    test_list: FilePath | None = None,
    val_fraction: Annotated[float, WITHIN_0_1] = 0.2,
    test_fraction: Annotated[float, SHARE] = 0.0,
    split_seed: Annotated[int, SEED] = 0,
    split_bounds: tuple[Annotated[float, PROBABILITY], ...] | None = None,
    group: str | None = None,
    image_suffix: str = "",
    mask_suffix: str = "",
    max_pixels: Annotated[int, FROM_1] = MAX_PIXELS,
    annotations: FilePath | None = None,
    lossy_masks: bool = False,
    channels: Annotated[int, between(1, 1024)] | list[Annotated[int, FROM_1]] | list[str] | None = None,
    mean: list[Annotated[float, between(-1e9, 1e9)]] | None = None,
    std: list[Annotated[float, ABOVE_0]] | None = None,
    window: Annotated[int, between(16, 16384)] | None = None,
    labels: list[str] | None = None,
    target: Target | None = None,
    unread_in: Collection[str] = (),
) -> Data:
    """Your own images and masks, paired by name, with classes by index, by colour or as 0 and 255.

    Masks are PNG, TIFF, BMP or WebP: class indices (grey or palette), or colours that data.classes names.
    Palette PNGs: if every palette colour in use appears in data.classes, colours decide the class. If none
    does (black aside), indices decide. A mixture is an error. With label_map, indices always decide.

    Splits: by data.train_list and data.val_list if given; else by folders train/, val/ and test/ below images
    and masks if there are any; else at random, by a hash of each name or group, so that added files leave the
    others where they are. With train/ and test/ alone, val is drawn at random from train/. Images outside the
    lists, and a test split, need no masks.

    Options:
        root: folder that the other paths are relative to; symbolic links must not lead out of it; null: the
            current folder
        images: folder of the images, searched recursively; null: ROOT/images
        masks: folder of the masks, with the same layout as that of the images; null: ROOT/masks. Without
            ROOT/images and ROOT/masks, both are looked for in ROOT
        classes: names in the order of the indices, or a file with one name a line; 'name r g b' gives the
            colour, a line 'ignore r g b' the colour of unlabelled pixels; or a file of Roboflow, CVAT, YOLO,
            Label Studio, COCO or Supervisely; null: all masks are read once and each value in them is a
            class
        label_map: mask value to class index (255: no label), e.g. {7: 0, 8: 1, 0: 255}; a mask value that is
            missing here is an error
        ignore_value: mask value of unlabelled pixels (in samples and scores they are 255)
        train_list: text file with one training image a line: its name, its path relative to images, to root
            or to the list, or an absolute path; lines that begin with # are comments
        val_list: the same for the validation images
        test_list: the same for test images
        val_fraction: share kept for validation when there are neither lists nor folders
        test_fraction: share kept for the split test, in the same way
        split_seed: seed of that random split
        split_bounds: settled by the run: images whose hash is below the first number are validation, below
            the second test; []: the random split of earlier versions
        group: images of one group (a patient, a video) stay in one split: a regular expression whose first
            brackets hold the group in the image's name, or 'FILE.csv:COLUMN'
        image_suffix: end of the images' names that those of the masks lack, e.g. _sat; other images are left
            out
        mask_suffix: end of the masks' names that those of the images lack, e.g. _mask; images and masks may
            then lie in one folder
        max_pixels: images and masks with more pixels are refused
        annotations: in place of masks, shapes drawn on the images: a folder of labelme's JSON files ("." for
            root), a JSON file in COCO's format, or an XML file of CVAT for images. Without data.classes each
            label is a class, after the background; data.label_map then maps labels
        lossy_masks: read masks of lossy compression (JPEG, WebP) too: each pixel takes the nearest key of
            label_map, or the nearest colour of classes; edges move by a pixel or two
        channels: number of channels of the images, which may then be TIFFs of as many bands or pages, or
            .npy files; or a list of band numbers from 1; or a list of suffixes, e.g. [_r,_g,_nir], of the
            names of the files of an image, one for each channel; null: RGB
        mean: of each channel, as a share of 255 (8 bits) or 65535 (16 bits); null: measured on the
            training split if the images are no RGB of 8 or 16 bits
        std: standard deviation of each channel, in the same way
        window: side in pixels of the windows that TIFFs of any size are cut into; each is a sample and is
            read alone, by rasterio (pip install 'segtrain[geo]'); null: images are read whole
        labels: for task=multilabel, names of the labels, each of which has a folder of masks below masks:
            MASKS/LABEL/NAME.png, of 0 and 1 or 0 and 255
    """
    _check_window(window, max_pixels, annotations)
    suffixes = Suffixes(image_suffix, mask_suffix)
    places = find_places(root, images, masks, suffixes, annotations is not None)
    source = Channels.of(channels)
    shapes = None if annotations is None else read_annotations(annotations, root)
    check_labels(labels, target, {"classes": classes, "annotations": annotations, "window": window})
    found = None if labels is None else find_label_masks(labels, places, suffixes, source)
    if found is not None:
        files = found.files
    elif shapes is None:
        files = find_files(places, suffixes, source)
    else:
        files = find_annotated(places, suffixes, source, shapes.keys, shapes.where)
    if (train_list is None) != (val_list is None):
        raise ConfigError("data.train_list and data.val_list go together; give both or neither")
    if window is None:
        source_files = Whole(files, source, max_pixels)
    else:
        source_files = Rasters(files, window, source, lossy_masks, unread_in)
    files = source_files.files
    lists = {"train": train_list, "val": val_list, "test": test_list}
    listed = {split: found_file(path, root) for split, path in lists.items() if path is not None}
    chosen, at_random = chosen_names(files, listed, places.images, root)
    chosen = with_masks(files, chosen)
    if test_fraction and (at_random is None or "test" in chosen):
        raise ConfigError(
            f"data.test_fraction is {test_fraction}, and lists or folders set the split test or all splits; "
            f"set it to 0"
        )
    drawing = Drawing(val_fraction, test_fraction, split_seed, split_bounds)
    splits, settled = _splits(source_files, chosen, at_random, group, root, drawing)
    warn_of_groups_apart(splits)
    targets = values = None
    used = list(dict.fromkeys(pair.mask for pairs in splits.values() for pair in pairs))
    may_fail = {pair.mask for split in unread_in for pair in splits.get(split, ())}
    reading = (label_map, ignore_value, lossy_masks, used, source_files, may_fail)
    if found is not None:
        named, targets, decided = label_masks(found, *reading, max_pixels)
    elif shapes is None:
        named, values, decided = of_masks(read_classes(classes, root), *reading)
    else:
        named, targets = drawn_classes(shapes, read_classes(classes, root), label_map)
        decided = {} if classes else {"classes": list(named.names)}
    settled |= decided
    # The bounds of a run may leave no image of another folder to train.
    measured = splits.get("train") or [*itertools.chain(*splits.values())]
    normalisation = measured_normalisation(source, measured, mean, std, source_files, "train" in unread_in)
    if normalisation is not None:
        settled |= {"mean": list(normalisation.mean), "std": list(normalisation.std)}
    facts = Facts(
        named.names,
        named.colours or voc_palette(len(named.names)),
        channels=3 if source is None else source.number,
        normalisation=normalisation,
    )
    return Data(
        facts, source_files.splits(splits, values, targets, normalisation), settled, labels is not None
    )


def _splits(
    source: Whole | Rasters,
    chosen: Mapping[str, Sequence[str]],
    at_random: Sequence[str] | None,
    group: str | None,
    root: str | None,
    drawing: Drawing,
) -> tuple[dict[str, list[Pair]], dict]:
    """{split: pairs}, and the options that a random split settles.

    chosen: {split: names of its images}, by lists or folders. at_random: names whose split is drawn, or None.
    """
    files = source.files
    group_of = source.groups(group, [*itertools.chain(*chosen.values()), *(at_random or [])], root)

    def pairs(names: Sequence[str]) -> list[Pair]:
        return [
            Pair(files.images[name], files.masks[files.mask_of[name]], name, group_of.get(name, ""))
            for name in names
        ]

    splits = {split: pairs(names) for split, names in chosen.items()}
    if at_random is None:
        return splits, {}
    to_draw = pairs(at_random)
    if group is not None and drawing.bounds is None:
        refuse_one_group(to_draw)
    drawn, settled = drawn_splits(to_draw, drawing)
    return {**drawn, **splits}, settled


def _check_window(window: int | None, max_pixels: int, annotations: str | None) -> None:
    if window is not None and annotations is not None:
        raise ConfigError("data.window cuts images and their masks, not annotations; set data.window=null")
    if window is not None and window**2 > max_pixels:
        raise ConfigError(
            f"data.window={window} has {window**2} pixels; allowed: {max_pixels} (data.max_pixels); make it "
            f"smaller or raise the limit"
        )


def refuse_other_split(options: Mapping, saved: Mapping) -> None:
    """ConfigError for options of a random split that differ from those of a run whose split is kept.

    options: of this data set, for a command on a run. saved: those in the config of the run.
    """
    bounds = options.get("split_bounds")
    if not bounds or list(bounds) != saved.get("split_bounds"):
        return
    for key in ("val_fraction", "test_fraction", "split_seed"):
        if options.get(key) != saved.get(key):
            raise ConfigError(
                f"data.{key}={options.get(key)} changes nothing: the run keeps the random split that it was "
                f"trained with (data.{key}={saved.get(key)}); leave it out, or add data.split_bounds=null "
                f"for another split, whose validation images may be some that the run was trained on"
            )
