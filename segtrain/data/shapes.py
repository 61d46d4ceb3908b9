"""Synthetic scenes, drawn on demand: no files, no download."""

from __future__ import annotations

from typing import Annotated

import cv2
import numpy as np

from segtrain.data.parts import Data, Source
from segtrain.options import FROM_1, SEED, between
from segtrain.sample import IGNORE, Facts, Sample, voc_palette

CLASSES = ("background", "disc", "triangle", "ring", "cross")
RADII = {
    "disc": 0.85,
    "triangle": 1.3,
    "ring": 1.0,
    "cross": 1.2,
}  # relative to each other, so that all classes cover similar areas
SPLITS = {"train": 0, "val": 1}
SUB = 4  # fractional bits of cv2's coordinates
STROKE = 0.45  # width of the strokes of ring and cross, in radii
HOLE_SHARE = 0.5  # of an object's area in holes, overlaps counted twice
HOLE_PX = 2.6  # radius of a hole


def shapes(
    size: Annotated[int, between(48, 32766)] = 128,
    num_train: Annotated[int, FROM_1] = 1000,
    num_val: Annotated[int, FROM_1] = 64,
    objects: Annotated[int, between(1, 65535)] = 12,
    seed: Annotated[int, SEED] = 0,
) -> Data:
    """Drawn discs, triangles, rings and crosses in random colours and textures, full of small holes.

    Objects and ground share one distribution of colours and textures, so only outlines tell the classes
    apart, which takes context; the holes, about 6 px wide and labelled as ground, take precise localisation.
    A border of 1 px round each object is ignored. Objects carry instance ids.

    Options:
        size: height and width of the images in pixels
        num_train: images of the training split
        num_val: images of the validation split
        objects: largest number of objects in an image
        seed: of all drawings
    """
    facts = Facts(classes=CLASSES, palette=voc_palette(len(CLASSES)), things=tuple(range(1, len(CLASSES))))
    counts = {"train": num_train, "val": num_val}
    return Data(
        facts, {part: DrawnShapes(part, count, size, objects, seed) for part, count in counts.items()}
    )


class DrawnShapes:
    """One split of drawn scenes (a `Split`): sample i is a function of (seed, split, i)."""

    def __init__(self, part: str, count: int, size: int, objects: int, seed: int):
        self.part, self.count, self.side, self.objects, self.seed = part, count, size, objects, seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.count:
            raise IndexError(index)
        rng = np.random.default_rng([self.seed, SPLITS[self.part], index])
        image, target, instances = draw_scene(rng, self.side, self.objects)
        return Sample(image=image, target=target, instances=instances, name=self.name(index))

    def name(self, index: int) -> str:
        return f"shapes-{self.part}-{index}"

    def size(self, index: int) -> tuple[int, int]:
        return self.side, self.side

    def source(self, index: int) -> Source:
        return Source((), f"{type(self).__name__} {self.part} {index} {self.side} {self.objects} {self.seed}")


def draw_scene(
    rng: np.random.Generator, side: int, objects: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """image (H×W×3 uint8), target (H×W uint8) and instances (H×W uint16) of one scene; objects do not
    overlap."""
    ground = _colour(rng, None)
    image = _texture(rng, side, side, ground)
    target = np.zeros((side, side), np.uint8)
    instances = np.zeros((side, side), np.uint16)
    for _ in range(int(rng.integers((objects + 1) // 2, objects + 1))):
        _draw_object(rng, image, target, instances, ground)
    noise = rng.integers(-8, 9, (side, side, 1), dtype=np.int16)
    return np.clip(image + noise, 0, 255).astype(np.uint8), target, instances


def _draw_object(
    rng: np.random.Generator, image: np.ndarray, target: np.ndarray, instances: np.ndarray, ground: np.ndarray
) -> None:
    """Draws one object into the arrays, in place; nothing if no free position is found in a few tries."""
    side = len(target)
    index = int(rng.integers(1, len(CLASSES)))
    radius = RADII[CLASSES[index]] * rng.uniform(12.0, 18.0) * max(1.0, side / 256)
    reach = min(int(np.ceil(radius)) + 2, side // 2 - 1)
    for _ in range(8):
        left, top = rng.integers(0, side - 2 * reach, 2)
        spot = (slice(top, top + 2 * reach), slice(left, left + 2 * reach))
        if not target[spot].any():
            break
    else:
        return
    inside = outline(CLASSES[index], reach, radius, rng.uniform(0, 2 * np.pi))
    border = cv2.dilate(inside, np.ones((3, 3), np.uint8)) > inside
    inside = _with_holes(inside, rng).astype(bool)
    image[spot][inside] = _texture(rng, 2 * reach, 2 * reach, _colour(rng, ground))[inside]
    target[spot][inside] = index
    target[spot][border] = IGNORE
    instances[spot][inside] = instances.max() + 1


def outline(name: str, reach: int, radius: float, angle: float) -> np.ndarray:
    """(2·reach)×(2·reach) uint8: 1 inside the shape, which is centred and rotated by `angle` (radians)."""
    canvas = np.zeros((2 * reach, 2 * reach), np.uint8)
    line = STROKE * radius / 2
    if name in ("disc", "ring"):
        _fill(canvas, _corners(64, radius, angle), 1)
        if name == "ring":
            _fill(canvas, _corners(64, radius * (1 - STROKE), angle), 0)
    elif name == "triangle":
        _fill(canvas, _corners(3, radius, angle), 1)
    else:
        for turn in (0, np.pi / 2):
            _fill(
                canvas,
                _turned([(-radius, -line), (radius, -line), (radius, line), (-radius, line)], angle + turn),
                1,
            )
    return canvas


def _with_holes(inside: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The shape with round holes at random positions."""
    count = round(HOLE_SHARE * int(inside.sum()) / (np.pi * HOLE_PX**2))
    holed = inside.copy()
    for x, y in rng.integers(0, len(inside) << SUB, (8 * count, 2)).tolist():
        if count > 0 and inside[y >> SUB, x >> SUB]:
            cv2.circle(holed, (x, y), round(HOLE_PX * (1 << SUB)), 0, cv2.FILLED, shift=SUB)
            count -= 1
    return holed


def _corners(count: int, radius: float, angle: float) -> np.ndarray:
    turns = angle + np.arange(count) * (2 * np.pi / count)
    return radius * np.stack([np.cos(turns), np.sin(turns)], axis=1)


def _turned(points: list[tuple[float, float]], angle: float) -> np.ndarray:
    cos, sin = np.cos(angle), np.sin(angle)
    return np.asarray(points) @ np.array([[cos, sin], [-sin, cos]])


def _fill(canvas: np.ndarray, points: np.ndarray, value: int) -> None:
    centre = (len(canvas) - 1) / 2
    cv2.fillPoly(
        canvas,
        [np.round((points + centre) * (1 << SUB)).astype(np.int32)],
        value,
        lineType=cv2.LINE_8,
        shift=SUB,
    )


def _colour(rng: np.random.Generator, unlike: np.ndarray | None) -> np.ndarray:
    """A random RGB colour; well apart from `unlike` if given."""
    for _ in range(10):
        colour = rng.uniform(30, 225, 3)
        if unlike is None or np.abs(colour - unlike).sum() > 240:
            break
    return colour


def _texture(rng: np.random.Generator, height: int, width: int, colour: np.ndarray) -> np.ndarray:
    """H×W×3 int16: `colour` with stripes, checks or blotches of another brightness."""
    kind = rng.integers(4)
    other = colour + rng.uniform(-25, 25, 3)
    if kind == 3:
        coarse = rng.random((max(2, height // 8), max(2, width // 8)), dtype=np.float32)
        share = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    else:
        y, x = np.ogrid[:height, :width]
        angle, period = rng.uniform(0, np.pi), rng.uniform(4, 12)
        across = np.sin((x * np.cos(angle) + y * np.sin(angle)) * (2 * np.pi / period))
        if kind == 2:
            across = across * np.sin((y * np.cos(angle) - x * np.sin(angle)) * (2 * np.pi / period))
        share = (across > 0) if kind else 0.5 + 0.5 * across
    return (colour + share[..., None] * (other - colour)).astype(np.int16)
