"""From the bytes of an image and its labels to an augmented crop."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torch.utils.data import default_collate

from benchmarks.paired import Goal, Left, Result, alternating, faster, threads, version
from segtrain.augmentation import AUGMENTATION
from segtrain.augmentation.warp import warp, warped
from segtrain.commands.prepare import keep_memory
from segtrain.data.files.labels import Labels
from segtrain.data.files.pairs import Pair, PairedFiles
from segtrain.loader.loader import training_batches
from segtrain.sample import IGNORE, Sample
from segtrain.settings import Loader

HEIGHT, WIDTH, SIDE = 1024, 2048, 512
NUM_CLASSES = 19
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
JITTER = 0.2
PHOTOGRAPHS = ("astronaut", "coffee", "rocket", "chelsea", "retina", "immunohistochemistry")


def frame_files(folder: Path, count: int) -> list[Pair]:
    """Frames of 1024×2048 as JPEG and label PNG: photographs side by side, a class for each superpixel."""
    try:
        from skimage import data, segmentation
    except ImportError as error:
        raise Left("scikit-image is not installed; make install") from error
    photographs = [getattr(data, name)() for name in PHOTOGRAPHS]  # those that the package contains
    rng, pairs = np.random.default_rng(0), []
    for number in range(count):
        image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        for top in range(0, HEIGHT, 512):
            for left in range(0, WIDTH, 512):
                photograph = photographs[rng.integers(len(photographs))]
                image[top : top + 512, left : left + 512] = tile_of(photograph, rng)
        half = cv2.resize(image, (WIDTH // 2, HEIGHT // 2), interpolation=cv2.INTER_AREA)
        pieces = segmentation.slic(half, n_segments=300, compactness=10, start_label=0)
        classes = rng.integers(0, NUM_CLASSES, pieces.max() + 1).astype(np.uint8)
        classes[rng.random(len(classes)) < 0.05] = IGNORE
        labels = cv2.resize(classes[pieces], (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST_EXACT)
        paths = [str(folder / f"{number}.jpg"), str(folder / f"{number}.png")]
        Image.fromarray(image).save(paths[0], quality=92)
        Image.fromarray(labels).save(paths[1])
        pairs.append(Pair(*paths, str(number)))
    return pairs


def tile_of(photograph: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """512×512 of a photograph, enlarged where it is smaller."""
    factor = max(1.0, 512 / min(photograph.shape[:2]))
    photograph = cv2.resize(photograph, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    top, left = (int(rng.integers(0, side - 511)) for side in photograph.shape[:2])
    return photograph[top : top + 512, left : left + 512]


def torchvision_preset(pairs: list[Pair]) -> Callable[[int], tuple[torch.Tensor, torch.Tensor]]:
    """Sample by index, as references/segmentation/presets.py of torchvision makes it with v2 transforms and
    its default backend, PIL: SegmentationPresetTrain(base_size=1024, crop_size=512), which changes no
    colours."""
    from torchvision import tv_tensors
    from torchvision.transforms import v2
    from torchvision.transforms.v2._utils import query_size

    class PadIfSmaller(v2.Transform):
        """Of references/segmentation/v2_extras.py."""

        def make_params(self, flat_inputs: list) -> dict:
            height, width = query_size(flat_inputs)
            padding = [0, 0, max(SIDE - width, 0), max(SIDE - height, 0)]
            return {"padding": padding, "needed": any(padding)}

        def transform(self, inpt, params: dict):
            if not params["needed"]:
                return inpt
            fill = IGNORE if isinstance(inpt, tv_tensors.Mask) else 0
            return v2.functional.pad(inpt, padding=params["padding"], fill=fill)

    dtypes = {torch.Tensor: torch.float32, tv_tensors.Mask: torch.int64, "others": None}
    transforms = v2.Compose(
        [
            v2.RandomResize(min_size=HEIGHT // 2, max_size=2 * HEIGHT),
            v2.RandomHorizontalFlip(0.5),
            PadIfSmaller(),
            v2.RandomCrop(SIDE),
            v2.PILToTensor(),
            v2.ToDtype(dtypes, scale=True),
            v2.Normalize(mean=MEAN, std=STD),
            v2.ToPureTensor(),
        ]
    )

    def sample(index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = Image.open(pairs[index].image).convert("RGB")
        return transforms(image, tv_tensors.Mask(Image.open(pairs[index].mask)))

    return sample


def albumentations_pipeline(pairs: list[Pair]) -> Callable[[int], tuple[torch.Tensor, torch.Tensor]]:
    """Sample by index: OpenCV decodes, the whole frame is scaled, then cropped, flipped and changed in its
    colours."""
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    import albumentations as A

    transforms = A.Compose(
        [
            A.RandomScale(scale_limit=(-0.5, 1.0), p=1.0),
            A.PadIfNeeded(SIDE, SIDE, border_mode=cv2.BORDER_CONSTANT, fill_mask=IGNORE),
            A.RandomCrop(SIDE, SIDE),
            A.HorizontalFlip(p=0.5),
            A.ColorJitter(brightness=JITTER, contrast=JITTER, saturation=JITTER, hue=0.03, p=1.0),
            A.Normalize(mean=MEAN, std=STD),
            A.ToTensorV2(),
        ]
    )

    def sample(index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = cv2.cvtColor(cv2.imread(pairs[index].image), cv2.COLOR_BGR2RGB)
        made = transforms(image=image, mask=cv2.imread(pairs[index].mask, cv2.IMREAD_UNCHANGED))
        return made["image"], made["mask"].long()

    return sample


PEERS = {
    "torchvision": (torchvision_preset, "references preset, v2 transforms"),
    "albumentations": (albumentations_pipeline, "OpenCV, whole frame"),
}


def from_files(peer: str, times: float) -> Callable[[bool], Result]:
    def measure(quick: bool) -> Result:
        return _compared(peer, "none", faster(times), quick)

    what = "changes no colours, " if peer == "torchvision" else ""
    measure.__doc__ = (
        f"JPEG and label PNG of 1024x2048 to a crop of 512: scale 0.5 to 2, flip, colours, collation; one "
        f"thread, CPU time. {peer} {what}normalises; segtrain's batches are uint8, normalised on the device."
    )
    return measure


def from_disk_cache(peer: str, times: float) -> Callable[[bool], Result]:
    def measure(quick: bool) -> Result:
        return _compared(peer, "disk", faster(times), quick)

    measure.__doc__ = (
        f"The same with loader.cache=disk, its folder built before, against {peer} from JPEG and label PNG."
    )
    return measure


def _compared(peer: str, cache: str, goal: Goal, quick: bool) -> Result:
    name = f"{version(peer)}, {PEERS[peer][1]}"
    keep_memory()  # for both sides
    count, per_block = (2, 4) if quick else (6, 12)
    with _one_thread(), tempfile.TemporaryDirectory(prefix="segtrain-bench-") as folder:
        pairs = frame_files(Path(folder), count)
        theirs = PEERS[peer][0](pairs)
        order = np.random.default_rng(0)
        split = PairedFiles(pairs, Labels(NUM_CLASSES))
        loader = Loader(batch_size=4, workers=0, cache=cache, cache_dir=str(Path(folder, "decoded")))
        with contextlib.closing(training_batches(split, _ops(), loader, seed=0)) as batches:

            def our_block() -> None:
                for _ in range(per_block // 4):
                    next(batches)

            def their_block() -> None:
                for _ in range(per_block // 4):
                    default_collate([theirs(int(order.integers(count))) for _ in range(4)])

            pairs_of_blocks = 3 if quick else 20
            sides = alternating(our_block, their_block, pairs_of_blocks, time.process_time)
    return Result(name, *([s / per_block for s in side] for side in sides), goal)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    before = cv2.getNumThreads()
    cv2.setNumThreads(0)
    try:
        with threads(1):
            yield
    finally:
        cv2.setNumThreads(before)


def _ops() -> list[Callable]:
    colour = {"brightness": JITTER, "contrast": JITTER, "saturation": JITTER, "hue": 10, "probability": 1.0}
    fill = tuple(round(255 * mean) for mean in MEAN)
    return AUGMENTATION.build_each(
        {"warp": {"size": SIDE}, "colour": colour}, fill=fill, ignore_index=IGNORE, class_frequency=None
    )


def geometry(quick: bool) -> Result:
    """Share of labels that differ between one warp of the crop's window and Pillow's nearest resizing of the
    whole label map (pixel-centred), then crop and flip. Scales 0.5 to 2 that give whole sizes, as others
    cannot be resized to."""
    shares = []
    with tempfile.TemporaryDirectory(prefix="segtrain-bench-") as folder:
        pairs = frame_files(Path(folder), 1 if quick else 4)
        targets = [np.array(Image.open(pair.mask)) for pair in pairs]
    for draw in range(6 if quick else 60):
        rng = np.random.default_rng([1, draw])
        shares.append(float(np.mean([_differing(target, rng) for target in targets])))
    goal = Goal("<= 0.1 % of the labels", lambda ours, theirs: 100 * ours, 0.1, False, "{:.3f} % differ")
    peer = f"resize, then crop, {version('Pillow')}"
    return Result(peer, shares, [0.0] * len(shares), goal, seconds=False)


def _differing(target: np.ndarray, rng: np.random.Generator) -> float:
    height, width = target.shape
    scaled = int(rng.integers(height // 2, 2 * height + 1))
    scale = scaled / height
    sample = Sample(np.zeros((height, width, 3), np.uint8), target)
    place = warp(size=SIDE, scale=(scale, scale)).placement(sample, rng)
    size = (scaled * width // height, scaled)
    resized = np.array(Image.fromarray(target).resize(size, Image.Resampling.NEAREST))
    left, top = (round(centre * scale - SIDE / 2) for centre in place.centre)
    crop = resized[top : top + SIDE, left : left + SIDE]
    crop = crop[:, ::-1] if place.flipped else crop
    return float((warped(sample, place).target != crop).mean())
