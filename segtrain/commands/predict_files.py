"""Masks of image files."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from segtrain.data.files.reading import SUFFIXES, read_image
from segtrain.errors import ConfigError, DataError, SizeError, printable
from segtrain.report.sheet import as_rgb, overlay
from segtrain.run.own import check_below
from segtrain.run.storage import written

RESULTS = ("colours", "overlay", "probabilities")
"""Folders of results beside that of the predictions, which the task names."""


def folders(task) -> tuple[str, ...]:
    """What lies in the folder of results."""
    return (task.folder, *RESULTS)


def inputs(
    path: str, output: str, results: Sequence[str] = ("classes", *RESULTS)
) -> Iterator[tuple[Path, Path]]:
    """(file, name without suffix relative to the folder) of every image below `path`, or of the one file.

    What earlier calls wrote below `output` is left out.
    """
    source = Path(path)
    if source.is_dir() and source.resolve() == Path(output).resolve():
        raise ConfigError(
            f"output={output} is the folder of the images, and results would lie among them; give another "
            f"folder"
        )
    if not source.is_dir() and not source.is_file():
        raise ConfigError(f"input={path} does not exist; give an image file or a folder of images")
    folder = source if source.is_dir() else source.parent
    found = (
        sorted(file for file in source.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
        if folder == source
        else [source]
    )
    places = [Path(output).resolve() / name for name in results]
    files = [
        file for file in found if not any(file.parent.resolve().is_relative_to(place) for place in places)
    ]
    if not files:
        but = f" but results of output={output}" if found else ""
        raise ConfigError(f"input={path} holds no image{but}; looked for {', '.join(sorted(SUFFIXES))}")
    return ((file, file.relative_to(folder).with_suffix("")) for file in files)


def predict(
    mask,
    task,
    source: str,
    output: str,
    with_overlay: bool,
    with_probabilities: bool,
    between=lambda: None,
) -> dict:
    """OUTPUT/classes/NAME.png (the task's folder and file type), OUTPUT/colours/NAME.png, and if wanted
    overlay/ and probabilities/ (float16 C×H×W).

    An image that cannot be read, or has a size that the network does not take, is named and left out; the
    others are done. Returns the counts.
    OUTPUT may be a link. The folders below it may not (CheckpointError), and a link in the place of a file is
    replaced.
    mask: `segtrain.predictor.Mask`. task: names the folder of the predictions and makes their pictures.
    """
    files, results = list(inputs(source, output, folders(task))), Path(output)
    _refuse_same_names(files)
    wanted = {
        task.folder: True,
        "colours": True,
        "overlay": with_overlay,
        "probabilities": with_probabilities,
    }
    below = {name.parent for _, name in files}
    for folder in (results / kind / parent for kind in wanted if wanted[kind] for parent in below):
        check_below(results, folder)
    bad: list[str] = []
    for file, name in tqdm(files, unit="image", disable=None):
        try:
            image = read_image(file)
            values = results / "probabilities" / f"{name}.npy" if with_probabilities else None
            classes = mask(image) if values is None else _with_probabilities(mask, image, values)
        except (DataError, SizeError) as error:
            bad.append(f"{printable(file)}: {error}" if isinstance(error, SizeError) else str(error))
            tqdm.write(f"segtrain: left out: {bad[-1]}", file=sys.stderr)
            continue
        colours = task.picture(classes, mask.facts)
        write_prediction(results / task.folder / name, classes)
        _write(results / "colours" / f"{name}.png", colours)
        if with_overlay:
            _write(results / "overlay" / f"{name}.png", overlay(as_rgb(image), colours))
        between()
    if bad and len(bad) == len(files):
        none = (
            f"none of the {len(files)} images could be used; the first"
            if len(files) > 1
            else "the image could not be used"
        )
        raise DataError(f"{none}: {bad[0]}")
    return {"images": len(files) - len(bad), "left_out": len(bad)}


def _refuse_same_names(files: list[tuple[Path, Path]]) -> None:
    seen: dict[Path, Path] = {}
    for file, name in files:
        if name in seen:
            raise ConfigError(
                f"{printable(seen[name])} and {printable(file)} would be written to the same name; rename one"
            )
        seen[name] = file


def write_prediction(path: Path, values: np.ndarray) -> None:
    """PATH.png for H×W uint8 or uint16 and H×W×3 uint8, PATH.tiff for H×W float32, else PATH.npy."""
    if values.dtype == np.uint8 or (values.dtype == np.uint16 and values.ndim == 2):
        _write(path.with_name(f"{path.name}.png"), values)
    elif values.dtype == np.float32 and values.ndim == 2:
        _write(path.with_name(f"{path.name}.tiff"), values)
    else:
        encoded = io.BytesIO()
        np.save(encoded, values, allow_pickle=False)
        _write_bytes(path.with_name(f"{path.name}.npy"), encoded)


def _with_probabilities(mask, image: np.ndarray, path: Path) -> np.ndarray:
    """The mask of an image. The probabilities that it follows from go to a file strip by strip: those of all
    classes would take many times the image's memory."""
    classes = []
    with contextlib.ExitStack() as stack:
        top, add = 0, None
        for strip in mask.strips(image):
            shape = (strip.shape[1], *image.shape[:2])
            add = add or stack.enter_context(_rows_written(path, shape))
            add(top, strip[0].half().cpu().numpy())
            classes.append(mask.decide(strip))
            top += strip.shape[-2]
    return np.concatenate(classes, axis=0)


@contextlib.contextmanager
def _rows_written(path: Path, shape: tuple[int, int, int]) -> Iterator[Callable[[int, np.ndarray], None]]:
    """add(top, rows): puts C×h×W float16 rows at their place in a C×H×W .npy file."""
    channels, height, width = shape
    row = width * np.dtype(np.float16).itemsize
    with written(path, channels * height * row) as file:
        header = {"descr": "<f2", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        start = file.tell()

        def add(top: int, rows: np.ndarray) -> None:
            # Not a memory map: there a full disk ends the process by a signal.
            for channel, values in enumerate(rows.astype("<f2", copy=False)):
                file.seek(start + (channel * height + top) * row)
                file.write(np.ascontiguousarray(values))

        yield add


def _write(path: Path, pixels: np.ndarray) -> None:
    """An image file, in the format of the path's suffix."""
    encoded = io.BytesIO()
    # To a file, Pillow's encoder would not say why the system refused it.
    Image.fromarray(pixels).save(encoded, "TIFF" if path.suffix == ".tiff" else "PNG")
    _write_bytes(path, encoded)


def _write_bytes(path: Path, encoded: io.BytesIO) -> None:
    with written(path, encoded.tell()) as file:
        file.write(encoded.getbuffer())
