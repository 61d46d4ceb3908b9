"""The whole training step, from the image files to the new weights."""

from __future__ import annotations

import contextlib
import copy
import multiprocessing
import os
import random
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
import torchvision.transforms.v2.functional as TF
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torchvision.transforms import InterpolationMode

from benchmarks.loop import STEPS, prepared, run
from benchmarks.paired import Left, Result, Turns, share, version
from segtrain.augmentation import AUGMENTATION
from segtrain.commands.prepare import keep_memory
from segtrain.data import DATA, Data
from segtrain.data.shapes import shapes
from segtrain.loader import frozen
from segtrain.loader.batches import Batches
from segtrain.loader.loader import training_batches
from segtrain.model import MODEL
from segtrain.model.network import MEMORY_FORMATS
from segtrain.optimizer import OPTIMIZER
from segtrain.sample import IGNORE, Normalisation, Output
from segtrain.settings import Loader, Trainer

CAMVID = (
    Path(__file__).resolve().parents[3] / "shared" / "data" / "camvid"
)  # used where it lies beside the checkout
WORKERS = 2
RATE, MOMENTUM, DECAY = 0.01, 0.9, 1e-4
LITE_DEEPLAB = {"name": "deeplabv3plus", "encoder": "tf_efficientnet_lite0"}
CAMVID_NETWORK = {
    **LITE_DEEPLAB,
    "separable": True,
    "aspp_start": "centre",
    "middle_width": 64,
    "fine_width": 32,
}
"""The network of experiment=camvid_lite0."""
MOBILE_DEEPLAB = {"name": "deeplabv3plus", "encoder": "mobilenetv3_large_100"}
LRASPP = {"name": "lraspp", "encoder": "mobilenetv3_large_100"}


class Frames(Dataset):
    """The peer's data: float crops made image by image in the workers; scale 0.5 to 2, flip, crop,
    normalise."""

    def __init__(self, pairs: list[tuple[str, str]], side: int, normalisation: Normalisation):
        self.pairs, self.side, self.normalisation = pairs, side, normalisation

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image, mask = Image.open(self.pairs[index][0]).convert("RGB"), Image.open(self.pairs[index][1])
        short = int(random.uniform(0.5, 2.0) * min(image.size))
        image, mask = (
            TF.resize(image, [short]),
            TF.resize(mask, [short], interpolation=InterpolationMode.NEAREST),
        )
        if random.random() < 0.5:
            image, mask = TF.horizontal_flip(image), TF.horizontal_flip(mask)
        image, mask = self._crop(image, mask)
        image = TF.to_dtype(TF.pil_to_tensor(image), torch.float32, scale=True)
        image = TF.normalize(image, list(self.normalisation.mean), list(self.normalisation.std))
        return image, TF.pil_to_tensor(mask)[0].long()

    def _crop(self, image: Image.Image, mask: Image.Image) -> tuple[Image.Image, Image.Image]:
        right, below = max(self.side - image.width, 0), max(self.side - image.height, 0)
        if right or below:
            image, mask = (
                TF.pad(image, [0, 0, right, below], fill=0),
                TF.pad(mask, [0, 0, right, below], fill=IGNORE),
            )
        top, left = random.randint(0, image.height - self.side), random.randint(0, image.width - self.side)
        return TF.crop(image, top, left, self.side, self.side), TF.crop(mask, top, left, self.side, self.side)


class PlainLoop:
    """The peer's step: forward, upsample, cross-entropy, backward, update, rate of the next iteration, loss
    as a number."""

    def __init__(self, network: nn.Module, frames: Frames, batch_size: int):
        self.network = network.train()
        self.optimizer = torch.optim.SGD(network.parameters(), lr=RATE, momentum=MOMENTUM, weight_decay=DECAY)
        self.schedule = torch.optim.lr_scheduler.PolynomialLR(self.optimizer, STEPS, 0.9)
        # One endless epoch: workers that start anew with each of a small data set's epochs would count
        # against the peer.
        sampler = RandomSampler(frames, replacement=True, num_samples=STEPS)
        self.batches = iter(
            DataLoader(frames, batch_size, sampler=sampler, num_workers=WORKERS, drop_last=True)
        )

    def step(self) -> None:
        images, targets = next(self.batches)
        logits = F.interpolate(
            self.network(images).logits, size=images.shape[-2:], mode="bilinear", align_corners=False
        )
        loss = F.cross_entropy(logits, targets, ignore_index=IGNORE)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        self.last_loss = loss.item()


class Workers:
    """The worker processes of both sides. Those of the side that waits are halted: they would read ahead in
    the other's time."""

    def __init__(self):
        self.of: dict[str, list[int]] = {}

    @contextlib.contextmanager
    def started_by(self, side: str) -> Iterator[None]:
        before, handler = (
            {process.pid for process in multiprocessing.active_children()},
            signal.getsignal(signal.SIGCHLD),
        )
        yield
        signal.signal(
            signal.SIGCHLD, handler
        )  # torch's would take the end of the other side's workers for a failure
        self.of[side] = [
            process.pid for process in multiprocessing.active_children() if process.pid not in before
        ]

    def only(self, side: str) -> None:
        for other, pids in self.of.items():
            self._send(pids, signal.SIGCONT if other == side else signal.SIGSTOP)

    def all(self) -> None:
        for pids in self.of.values():
            self._send(pids, signal.SIGCONT)

    def _send(self, pids: list[int], number: int) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def step_of(recipe: dict, side: int, batch_size: int, goal: float, memory_format: str = "contiguous"):
    """The row of a network on crops of `side` pixels, `batch_size` images a step."""

    def measure(quick: bool) -> Result:
        images, pixels = (min(batch_size, 4), min(side, 192)) if quick else (batch_size, side)
        with tempfile.TemporaryDirectory(prefix="segtrain-bench-") as folder:
            root = CAMVID if CAMVID.is_dir() else written_frames(Path(folder), 4 if quick else 64)
            data = DATA.build({"name": "camvid", "root": str(root)})
            network = built(recipe, data.facts.num_classes)
            turns = _measured(
                data,
                network,
                copy.deepcopy(network),
                Trainer(memory_format=memory_format),
                {"name": "cross_entropy"},
                {"warp": {"size": pixels}, "colour": {}},
                images,
                3 if quick else 20,
            )
        return Result(
            f"plain loop, {version('torchvision')} transforms", turns.ours, turns.theirs, share(goal)
        )

    measure.__doc__ = (
        f"{recipe['name']} with {recipe['encoder']} from random weights, {batch_size} crops of {side} px of "
        f"photographs of 480x360, scale, flip and crop, 2 workers; segtrain changes the colours as well "
        f"({memory_format}). Both sides keep freed memory."
    )
    return measure


def written_frames(root: Path, count: int) -> Path:
    """Drawn scenes of 480×360 in CamVid's layout, as JPEG and PNG."""
    scenes = shapes(size=480, num_train=count).splits["train"]
    for part, number in (("train", count), ("val", 1)):
        for kind in ("images", "masks"):
            (root / kind / part).mkdir(parents=True)
        for index in range(number):
            scene, name = scenes[index], f"0001TP_{index:06d}"
            Image.fromarray(scene.image[:360]).save(root / "images" / part / f"{name}.jpg", quality=95)
            Image.fromarray(scene.target[:360]).save(root / "masks" / part / f"{name}.png")
    return root


class Adapted(nn.Module):
    """A network that gives plain logits, as one of segtrain's."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> Output:
        return Output(self.network(images), tuple(images.shape[-2:]))


def camvid_recipe(quick: bool) -> Result:
    """The network, loss, crops and memory format of experiment=camvid_lite0 against
    segmentation_models_pytorch's DeepLabV3Plus with the same encoder in a plain loop with cross-entropy;
    random weights on both sides, 2 workers. Both keep freed memory."""
    try:
        import segmentation_models_pytorch as smp
    except ImportError as error:
        raise Left("segmentation-models-pytorch is not installed") from error
    if not CAMVID.is_dir():
        raise Left(f"CamVid is not at {CAMVID}")
    data = DATA.build({"name": "camvid", "root": str(CAMVID)})
    classes = data.facts.num_classes
    network = built(CAMVID_NETWORK, classes)
    peer = Adapted(smp.DeepLabV3Plus("tu-tf_efficientnet_lite0", encoder_weights=None, classes=classes))
    loss = {
        "name": "weighted_sum",
        "terms": {"cross_entropy": {"class_weights": [1.0] * classes}, "jaccard": {}},
    }
    batch_size, side = (4, 192) if quick else (8, 256)
    crops = {"size": side, "scale": [0.5, 2.0], "class_centred": 0.75}
    settings = Trainer(memory_format="channels_last")
    turns = _measured(
        data, network, peer, settings, loss, {"warp": crops, "colour": {}}, batch_size, 3 if quick else 20
    )
    return Result(
        f"plain loop, {version('segmentation-models-pytorch')}", turns.ours, turns.theirs, share(1.0)
    )


def built(recipe: dict, classes: int) -> nn.Module:
    torch.manual_seed(0)
    return MODEL.build(
        {"weights": "none", **recipe}, out_channels=classes, num_classes=classes, in_channels=3
    )


def _measured(
    data: Data,
    network,
    peer_network,
    settings: Trainer,
    loss: dict,
    augmentation: dict,
    batch_size: int,
    pairs: int,
) -> Turns:
    """Both sides from the files to the new weights, a step at a time; the memory that `segtrain train` keeps
    is kept for both."""
    keep_memory()
    classes, side, normalisation = data.facts.num_classes, augmentation["warp"]["size"], network.normalisation
    files = [(pair.image, pair.mask) for pair in data.splits["train"].pairs]
    frozen.FROZEN_S = 3600  # the workers of the side that waits are halted on purpose
    workers = Workers()
    with workers.started_by("theirs"):
        peer = PlainLoop(peer_network, Frames(files, side, normalisation), batch_size)
    with workers.started_by("ours"):
        batches = _our_batches(data, normalisation, batch_size, augmentation)
    network.to(memory_format=MEMORY_FORMATS[settings.memory_format])
    optimizer = OPTIMIZER.build(
        {"name": "sgd", "lr": RATE, "momentum": MOMENTUM, "weight_decay": DECAY}, network=network
    )
    turns = Turns(batches, peer.step, 1, pairs, before=workers.only)
    try:
        run(*prepared(network, optimizer, normalisation, settings, classes, loss), turns)
    finally:
        workers.all()
        batches.close()
        del peer.batches
    return turns


def _our_batches(data: Data, normalisation: Normalisation, batch_size: int, augmentation: dict) -> Batches:
    facts = data.facts
    runtime = {
        "num_classes": facts.num_classes,
        "ignore_index": facts.ignore_index,
        "class_frequency": None,
        "facts": facts,
    }
    fill = tuple(round(255 * mean) for mean in normalisation.mean)
    ops = AUGMENTATION.build_each(augmentation, fill=fill, **runtime)
    return training_batches(data.splits["train"], ops, Loader(batch_size=batch_size, workers=WORKERS), seed=0)
