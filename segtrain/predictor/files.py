"""Writing predictions to files, atomically."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

from segtrain.predictor.views import disagreement
from segtrain.run.storage import written


def write_prediction(path: Path, values: np.ndarray) -> None:
    """PATH.png for H×W uint8 or uint16 and H×W×3 uint8, PATH.tiff for H×W float32, else PATH.npy."""
    if values.dtype == np.uint8 or (values.dtype == np.uint16 and values.ndim == 2):
        write_picture(path.with_name(f"{path.name}.png"), values)
    elif values.dtype == np.float32 and values.ndim == 2:
        write_picture(path.with_name(f"{path.name}.tiff"), values)
    else:
        encoded = io.BytesIO()
        np.save(encoded, values, allow_pickle=False)
        _write_bytes(path.with_name(f"{path.name}.npy"), encoded)


def predicted(
    mask, image: np.ndarray, values: Path | None, compared: bool = False
) -> tuple[np.ndarray, np.ndarray | None]:
    """The mask of an image, H×W, and if `compared` the disagreement of the views, H×W uint8; 255: every view
    but none of the decision's weight.

    The probabilities, C×H×W float16, are written to `values` if given, strip by strip: in memory, those of
    all classes would take many times what the image takes. mask: `segtrain.predictor.Mask`, with votes if
    `compared`.
    """
    if values is None and not compared:
        return mask(image), None
    classes, differing = [], []
    strips = mask.voted(image) if compared else ((strip, None) for strip in mask.strips(image))
    with contextlib.ExitStack() as stack:
        top, add = 0, None
        for strip, votes in strips:
            if values is not None:
                shape = (strip.shape[1], *image.shape[:2])
                add = add or stack.enter_context(_rows_written(values, shape))
                add(top, strip[0].half().cpu().numpy())
            classes.append(mask.decide(strip))
            if compared:
                decided = torch.from_numpy(classes[-1])[None].to(votes.device)
                differing.append(disagreement(decided, votes)[0].mul(255).round_().byte().cpu().numpy())
            top += strip.shape[-2]
    return np.concatenate(classes, axis=0), np.concatenate(differing, axis=0) if compared else None


def heat(values: np.ndarray) -> np.ndarray:
    """H×W×3 uint8 colours of H×W uint8 values, from black over red to pale yellow."""
    return np.ascontiguousarray(cv2.applyColorMap(values, cv2.COLORMAP_INFERNO)[..., ::-1])


@contextlib.contextmanager
def _rows_written(path: Path, shape: tuple[int, int, int]) -> Iterator[Callable[[int, np.ndarray], None]]:
    """Yields add(top, rows), which writes C×h×W float16 rows into a C×H×W .npy file."""
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


def write_picture(path: Path, pixels: np.ndarray) -> None:
    """Writes an image file in the format of the path's suffix (TIFF or PNG)."""
    encoded = io.BytesIO()
    # To a file, Pillow's encoder would not say why the system refused it. Photographs take a quarter of the
    # time at level 1, and a tenth more space.
    options = {"compress_level": 1} if pixels.ndim == 3 else {}
    form = "TIFF" if path.suffix == ".tiff" else "PNG"
    Image.fromarray(pixels).save(encoded, form, **(options if form == "PNG" else {}))
    _write_bytes(path, encoded)


def _write_bytes(path: Path, encoded: io.BytesIO) -> None:
    with written(path, encoded.tell()) as file:
        file.write(encoded.getbuffer())
