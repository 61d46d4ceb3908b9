"""From whole images to class indices: tiles, argmax, and folders of photographs."""

from __future__ import annotations

import contextlib
import copy
import io
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from benchmarks.paired import Goal, Left, Result, alternating, faster, share, threads, version
from benchmarks.reading import PHOTOGRAPHS, tile_of
from benchmarks.step import CAMVID_NETWORK, built
from segtrain.commands import predict_files
from segtrain.commands.prepare import keep_memory
from segtrain.commands.scoring import score_split, scoring_of
from segtrain.data.files.labels import Labels
from segtrain.data.files.pairs import Pair, PairedFiles
from segtrain.predictor.inference import inference_of
from segtrain.predictor.mask import mask_of
from segtrain.predictor.tiles import assembled, sliding, starts
from segtrain.run.stop import Stop
from segtrain.sample import IGNORE, Facts, voc_palette
from segtrain.task import TASK

HEIGHT, WIDTH, NUM_CLASSES = 1024, 2048, 19
TILE, OVERLAP = 512, 0.5
NUM_LABELS = 11
"""Classes of the masks of the photographs."""
CPU = torch.device("cpu")
NEVER = Stop()
"""In place of `segtrain.run.stop.Stop`."""


def blending(quick: bool) -> Result:
    """Tiles of 512 with half overlap over 1024x2048, 19 classes, the network replaced by a tensor that is
    there, against `preds += F.pad(tile, …)` and a count, as mmsegmentation does it. One thread, CPU time, a
    process of its own, where freed memory goes back to the system on both sides, as in a script (where both
    keep it: about 4 times faster). Equal results are checked."""
    # Other rows keep memory for the rest of their process.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        sides = process.submit(_blended, quick).result()
    return Result(f"preds += F.pad ({version('torch')})", *sides, faster(8))


def _blended(quick: bool) -> tuple[list[float], list[float]]:
    """CPU seconds of both sides."""
    height, width = (HEIGHT // 2, WIDTH // 2) if quick else (HEIGHT, WIDTH)
    tile = torch.rand(1, NUM_CLASSES, TILE, TILE, generator=torch.Generator().manual_seed(0)).softmax(1)
    image = torch.zeros(1, 3, height, width, dtype=torch.uint8)
    strips = sliding(lambda images: tile, TILE, OVERLAP)

    def ours() -> None:
        for _ in strips(image):  # used strip by strip, as by `Predictor.decided`
            pass

    def theirs() -> Tensor:
        preds, count = torch.zeros(1, NUM_CLASSES, height, width), torch.zeros(1, 1, height, width)
        for top in starts(height, TILE, OVERLAP):
            for left in starts(width, TILE, OVERLAP):
                preds += F.pad(tile, (left, width - left - TILE, top, height - top - TILE))
                count[..., top : top + TILE, left : left + TILE] += 1
        return preds / count

    if not torch.allclose(assembled(strips)(image), theirs(), rtol=0, atol=1e-6):
        raise Left("both sides give different results")
    return _in_turns(ours, theirs, 3 if quick else 9)


def decisions(quick: bool) -> Result:
    """The classes of 19x1024x2048 probabilities against `argmax(1)`. One thread, CPU time; both sides keep
    freed memory. Equal results are checked."""
    side = 4 if quick else 1
    size = (1, NUM_CLASSES, HEIGHT // side, WIDTH // side)
    values = torch.rand(size, generator=torch.Generator().manual_seed(0))
    decide = TASK.build({"name": "semantic"}).decide
    if not torch.equal(decide(values), values.argmax(1)):
        raise Left("both sides give different results")
    keep_memory()
    peer = f"argmax(1) ({version('torch')})"
    sides = _in_turns(lambda: decide(values), lambda: values.argmax(1), 5 if quick else 15)
    return Result(peer, *sides, faster(3))


def _in_turns(ours: Callable, theirs: Callable, pairs: int) -> tuple[list[float], list[float]]:
    with threads(1), torch.inference_mode():
        return alternating(ours, theirs, pairs, time.process_time)


def scoring(quick: bool) -> Result:
    """A folder of 101 photographs of 480x360 with masks, by the evaluation of `segtrain evaluate` with its
    defaults (batches of 8, 2 workers) and the memory format of experiment=camvid_lite0, against a plain loop
    of the same network, one image at a time: read, forward, upsample, argmax, bincount. Equal IoUs are
    checked. Both keep freed memory."""
    with _Place(quick) as place:
        chosen = scoring_of(place.config, place.task, place.facts)
        ious: dict[str, np.ndarray] = {}

        def ours() -> None:
            scores = score_split(chosen, place.network, place.split, CPU, NEVER, "scoring")
            ious["ours"] = np.array(scores.numbers["iou"].values, float)

        def theirs() -> None:
            matrix = torch.zeros(NUM_LABELS**2, dtype=torch.int64)
            for pair in place.pairs:
                predicted = place.plain(pair.image)
                target = torch.from_numpy(np.array(Image.open(pair.mask)).astype(np.int64))
                valid = target != IGNORE
                matrix += torch.bincount(
                    NUM_LABELS * target[valid] + predicted[valid], minlength=NUM_LABELS**2
                )
            counts = matrix.view(NUM_LABELS, NUM_LABELS).numpy()
            both = counts.diagonal()
            ious["theirs"] = both / (counts.sum(0) + counts.sum(1) - both)

        result = place.compared(ours, theirs, share(0.9))
        if not np.allclose(ious["ours"], ious["theirs"], rtol=0, atol=1e-3):
            raise Left("both sides give different results")
        return result


def predicting(quick: bool) -> Result:
    """The same photographs to PNG files of class indices, by `segtrain predict overlay=false`, which also
    writes them in colours, against the plain loop: read, forward, upsample, argmax, write. Equal classes of
    999 pixels in 1000 are checked. Both keep freed memory."""
    with _Place(quick) as place:
        mask = mask_of(place.network, place.facts, place.task, inference_of(place.config), CPU)
        images, written = place.root / "images", [place.root / name for name in ("ours", "theirs")]
        written[1].mkdir()

        def ours() -> None:
            results = predict_files.Results(str(written[0]), place.task, place.facts)
            predict_files.predict(mask, results, str(images))

        def theirs() -> None:
            for pair in place.pairs:
                classes = place.plain(pair.image).numpy().astype(np.uint8)
                Image.fromarray(classes).save(written[1] / f"{pair.name}.png")

        result = place.compared(ours, theirs, share(1.0))
        for pair in place.pairs:
            files = (written[0] / "classes", written[1])
            first, second = (np.array(Image.open(file / f"{pair.name}.png")) for file in files)
            if (first != second).mean() > 1e-3:
                raise Left("both sides give different results")
        return result


class _Place:
    """A folder with photographs and masks, and a network for each side with the same weights."""

    def __init__(self, quick: bool):
        self.quick, self.task = quick, TASK.build({"name": "semantic"})
        self.network = built(CAMVID_NETWORK, NUM_LABELS).eval()
        self.peer_network = copy.deepcopy(self.network)
        self.network.to(memory_format=torch.channels_last)
        norm = self.network.normalisation
        self.mean, self.std = (torch.tensor(values).view(3, 1, 1) for values in (norm.mean, norm.std))
        names = tuple(f"class {number}" for number in range(NUM_LABELS))
        self.facts = Facts(names, voc_palette(NUM_LABELS), normalisation=norm)
        self.config = {"evaluate": {}, "predictor": {}, "tta": {}, "metric": {}, "data": {"name": "folder"}}
        self._folder = tempfile.TemporaryDirectory(prefix="segtrain-bench-")
        self.root = Path(self._folder.name)
        self.pairs = photograph_files(self.root, 6 if quick else 101)
        self.split = PairedFiles(self.pairs, Labels(NUM_LABELS))

    def __enter__(self) -> _Place:
        return self

    def __exit__(self, *_) -> None:
        self._folder.cleanup()

    def compared(self, ours: Callable, theirs: Callable, goal: Goal) -> Result:
        keep_memory()  # for both sides
        peer = f"plain loop, {version('Pillow')}"
        with contextlib.redirect_stderr(io.StringIO()):  # without progress bars
            sides = alternating(ours, theirs, 2 if self.quick else 6)
        return Result(peer, *([seconds / len(self.pairs) for seconds in side] for side in sides), goal)

    def plain(self, path: str) -> Tensor:
        """H×W class indices, as a short script makes them."""
        pixels = torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)
        with torch.inference_mode():
            logits = self.peer_network(((pixels / 255 - self.mean) / self.std)[None]).logits
            logits = F.interpolate(logits, size=pixels.shape[-2:], mode="bilinear", align_corners=False)
            return logits.argmax(1)[0]


def photograph_files(folder: Path, count: int) -> list[Pair]:
    """Windows of photographs, 480×360, as JPEG, and a class for each superpixel as PNG."""
    try:
        from skimage import data, segmentation
    except ImportError as error:
        raise Left("scikit-image is not installed; make install") from error
    photographs = [getattr(data, name)() for name in PHOTOGRAPHS]  # those that the package contains
    rng, pairs = np.random.default_rng(0), []
    for kind in ("images", "masks"):
        (folder / kind).mkdir()
    for number in range(count):
        image = tile_of(photographs[number % len(photographs)], rng)[:360, :480]
        pieces = segmentation.slic(image[::4, ::4], n_segments=50, compactness=10, start_label=0)
        classes = rng.integers(0, NUM_LABELS, pieces.max() + 1).astype(np.uint8)
        classes[rng.random(len(classes)) < 0.05] = IGNORE
        labels = cv2.resize(classes[pieces], (480, 360), interpolation=cv2.INTER_NEAREST_EXACT)
        paths = [str(folder / "images" / f"{number}.jpg"), str(folder / "masks" / f"{number}.png")]
        Image.fromarray(image).save(paths[0], quality=92)
        Image.fromarray(labels).save(paths[1])
        pairs.append(Pair(*paths, str(number)))
    return pairs
