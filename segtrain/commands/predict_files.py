"""Prediction of image files."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from segtrain import ranks
from segtrain.data.files.channels import Channels, suffixes_of
from segtrain.data.files.listing import list_images, tell_left_out
from segtrain.data.files.reading import MAX_PIXELS, read_image
from segtrain.errors import ConfigError, DataError, SizeError, printable
from segtrain.predictor.files import heat, predicted, write_picture, write_prediction
from segtrain.predictor.geo import write_georeferenced
from segtrain.predictor.mask import Mask
from segtrain.report.sheet import as_rgb, overlay
from segtrain.run.own import check_below
from segtrain.sample import Facts
from segtrain.task import Task
from segtrain.text import count, notice

GEOTIFF = "geotiff"
DISAGREEMENT = ("disagreement", "disagreement_colours")
FOLDERS = ("colours", "overlay", "probabilities", *DISAGREEMENT, GEOTIFF)
"""Folders of results below OUTPUT, besides that of the predictions, whose name the task gives."""


def folders(task) -> tuple[str, ...]:
    """Names of all folders of results below OUTPUT."""
    return (task.folder, *FOLDERS)


def inputs(
    path: str,
    output: str,
    results: Sequence[str] = ("classes", *FOLDERS),
    channels: Channels | None = None,
) -> Iterator[tuple[Path, Path]]:
    """(file, name without suffix relative to the folder) of every image below `path`, or of the one file.

    Results that earlier calls wrote below `output` are skipped. channels: of the images; of an image whose
    channels lie in a file each, the first file is named.
    """
    suffixes = suffixes_of(channels)
    source = Path(path)
    if source.is_dir() and os.path.realpath(source) == os.path.realpath(output):
        raise ConfigError(
            f"output={output} is the folder of the images, and results would lie among them; give another "
            f"folder"
        )
    if not source.is_dir() and not source.is_file():
        raise ConfigError(f"input={path} does not exist; give an image file or a folder of images")
    folder = source if source.is_dir() else source.parent
    if folder == source:
        found = list_images(path, [str(Path(output) / name) for name in results], suffixes)
        tell_left_out(found.left_out, path)
        files = [file for name in found.files if (file := source / name).is_file()]
    else:
        files = [source]
    if not files:
        but = f" but results of output={output}" if list_images(path, suffixes=suffixes).files else ""
        raise ConfigError(f"input={path} holds no image{but}; looked for {', '.join(sorted(suffixes))}")
    if channels is None or not channels.suffixes:
        return ((file, file.relative_to(folder).with_suffix("")) for file in files)
    named = {str(file.relative_to(folder).with_suffix("")): str(file) for file in files}
    if folder != source:  # the other files of a single image lie beside it
        named |= {
            str(Path(one).relative_to(folder).with_suffix("")): one for one in channels.files(str(source))
        }
    images = channels.by_name(named)
    if not images:
        raise ConfigError(
            f"input={path} holds no image whose name ends in {channels.suffixes[0]!r}, the first suffix of "
            f"the run's data.channels"
        )
    return ((Path(file), Path(name)) for name, file in images.items())


@dataclass(frozen=True)
class Results:
    """The results below OUTPUT: OUTPUT/classes/NAME.png (folder and file type are the task's),
    OUTPUT/colours/NAME.png, of a georeferenced TIFF OUTPUT/geotiff/NAME.tif of the same place, and if asked
    for OUTPUT/overlay/NAME.png, OUTPUT/probabilities/NAME.npy (float16 C×H×W), and of the views' disagreement
    OUTPUT/disagreement/NAME.png (uint8) and OUTPUT/disagreement_colours/NAME.png.

    OUTPUT may be a symbolic link. The folders below OUTPUT may not (CheckpointError), and a link in the place
    of a file is replaced. data: config of the run's data set.
    """

    output: str
    task: Task
    facts: Facts
    overlay: bool = False
    probabilities: bool = False
    disagreement: bool = False
    data: Mapping = field(default_factory=dict)

    @property
    def folders(self) -> list[str]:
        """Names of the folders that are written."""
        asked = {"overlay": self.overlay, "probabilities": self.probabilities}
        asked |= dict.fromkeys(DISAGREEMENT, self.disagreement)
        return [name for name in folders(self.task) if asked.get(name, True)]

    def check(self, names: Iterable[Path]) -> None:
        """CheckpointError if a folder that these results go to cannot be one of ours."""
        for parent in {name.parent for name in names}:
            for folder in self.folders:
                check_below(Path(self.output), Path(self.output, folder, parent))

    def path(self, folder: str, name: Path, suffix: str) -> Path:
        return Path(self.output, folder, f"{name}{suffix}")

    def write(self, name: Path, file: Path, image: np.ndarray, classes, differing: np.ndarray | None) -> bool:
        """Writes all but the probabilities of an image file: its H×W×3 pixels, its mask, and the disagreement
        of the views, H×W uint8, or None. Returns whether a GeoTIFF is written."""
        for part, stored in self.task.stored(classes, self.facts, self.data).items():
            place = Path(self.output, self.task.folder, part, name)
            check_below(Path(self.output), place.parent)
            write_prediction(place, stored)
        colours = self.task.picture(classes, self.facts)
        write_picture(self.path("colours", name, ".png"), colours)
        if self.overlay:
            write_picture(self.path("overlay", name, ".png"), overlay(as_rgb(image), colours))
        if differing is not None:
            for folder, pixels in zip(DISAGREEMENT, (differing, heat(differing)), strict=True):
                write_picture(self.path(folder, name, ".png"), pixels)
        return write_georeferenced(
            Path(self.output, GEOTIFF, name), classes, str(file), self.facts.ignore_index
        )


def predict(
    mask: Mask,
    results: Results,
    source: str,
    interrupt: Callable[[], None] = lambda: None,
    max_pixels: int = MAX_PIXELS,
    channels: Channels | None = None,
    by_windows: Callable[[str, Path], bool] = lambda image, path: False,
) -> dict[str, int]:
    """Writes the results of every image below `source`, or of the one file. Returns the number of images, of
    images left out, and of GeoTIFFs, and 0 for each folder that stays empty.

    An image that cannot be read, or whose size the network does not take, is named and left out. DataError if
    every image is.
    mask: with votes if the disagreement of views is asked for. interrupt: called after each image.
    max_pixels: larger images are left out. channels: how images of other than three channels are read.
    by_windows: see `segtrain.commands.predict_rasters.by_windows`; of what it predicts, the GeoTIFF is all.
    """
    files = list(inputs(source, results.output, folders(results.task), channels))
    read = read_image if channels is None else channels.read
    _refuse_same_names(files)
    results.check(name for _, name in files)
    total, files = len(files), files[ranks.rank() :: ranks.world_size()]
    bad: list[str] = []
    geotiffs = rasters = 0
    for file, name in tqdm(files, unit="image", disable=None):
        try:
            if by_windows(str(file), results.path(GEOTIFF, name, ".tif")):
                rasters, geotiffs = rasters + 1, geotiffs + 1
                continue
            image = read(str(file), max_pixels, "max_pixels")
            values = results.path("probabilities", name, ".npy") if results.probabilities else None
            classes, differing = predicted(mask, image, values, results.disagreement)
        except (DataError, SizeError) as error:
            bad.append(f"{printable(file)}: {error}" if isinstance(error, SizeError) else str(error))
            tqdm.write(f"segtrain: left out: {bad[-1]}", file=sys.stderr)
            continue
        geotiffs += results.write(name, file, image, classes, differing)
        interrupt()
    of_ranks = ranks.all_gather((bad, geotiffs, rasters), ranks.LONG_S)
    bad = [message for one in of_ranks for message in one[0]]
    geotiffs, rasters = (sum(one[place] for one in of_ranks) for place in (1, 2))
    if bad and len(bad) == total:
        raise _none_usable(bad)
    done = total - len(bad)
    _tell_of_rasters(rasters, results)
    # Of rasters alone, there is nothing in the other folders.
    others = {} if rasters < done else dict.fromkeys(results.folders, 0)
    return {**others, "images": done, "left_out": len(bad), GEOTIFF: geotiffs}


def _tell_of_rasters(rasters: int, results: Results) -> None:
    """Notice if results are asked for that images predicted window by window do not get."""
    missing = [name for name in ("probabilities", "disagreement") if getattr(results, name)]
    if rasters and missing:
        notice(
            f"no {' and no '.join(missing)} of {count(rasters, 'image')} predicted window by window: of "
            f"these only the GeoTIFF is written"
        )


def _none_usable(errors: list[str]) -> DataError:
    several = f"none of the {len(errors)} images could be used; the first"
    return DataError(f"{several if len(errors) > 1 else 'the image could not be used'}: {errors[0]}")


def _refuse_same_names(files: list[tuple[Path, Path]]) -> None:
    seen: dict[Path, Path] = {}
    for file, name in files:
        if name in seen:
            raise ConfigError(
                f"{printable(seen[name])} and {printable(file)} would be written to the same name; rename one"
            )
        seen[name] = file
