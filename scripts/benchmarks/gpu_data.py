"""Whether the loader keeps up with a device: images/s of the loader, and the wait for data in the loop."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.gpu_step import Case
from benchmarks.paired import Enough
from benchmarks.reading import MEAN, NUM_CLASSES, frame_files
from segtrain.augmentation import AUGMENTATION
from segtrain.data.files.labels import Labels
from segtrain.data.files.pairs import PairedFiles
from segtrain.loader.batches import Batches
from segtrain.loader.loader import training_batches
from segtrain.run.stop import Stop
from segtrain.sample import IGNORE
from segtrain.settings import Loader
from segtrain.train.loop import train
from segtrain.train.plan import Plan


@dataclass
class Logged:
    """Takes the place of the sinks of a run and keeps what the loop logs."""

    entries: list[dict] = field(default_factory=list)

    def log(self, _step: int, numbers: dict) -> None:
        self.entries.append(numbers)

    def say(self, _text: str) -> None:
        pass

    def progress(self, _steps: int, _numbers: dict | None = None) -> None:
        pass


def data_speed(case: Case) -> dict[str, float]:
    """images/s of the loader alone; images/s and share of waiting of segtrain's loop with that loader, eager
    and channels_last."""
    frames, steps = (2, 2) if case.quick else (32, 30)
    with tempfile.TemporaryDirectory(prefix="segtrain-bench-") as folder:
        split = PairedFiles(frame_files(Path(folder), frames), Labels(NUM_CLASSES))
        with _batches(split, case) as batches:
            alone = _images_per_second(batches, case, steps)
        with _batches(split, case) as batches:
            logged = _in_the_loop(batches, case, steps)
    return {
        "loader_images_per_s": alone,
        "loop_images_per_s": logged["train/images_per_s"],
        "waiting": logged["train/waiting"],
    }


@contextlib.contextmanager
def _batches(split, case: Case) -> Iterator[Batches]:
    """Crops of frames of 1024×2048 from JPEG and PNG: scale 0.5 to 2, flip, colours."""
    fill = tuple(round(255 * mean) for mean in MEAN)
    ops = AUGMENTATION.build_each(
        {"warp": {"size": list(case.size)}, "colour": {}},
        fill=fill,
        ignore_index=IGNORE,
        class_frequency=None,
    )
    loader = Loader(batch_size=case.batch, workers=case.workers)
    with contextlib.closing(training_batches(split, ops, loader, seed=0)) as batches:
        yield batches


def _images_per_second(batches: Batches, case: Case, steps: int) -> float:
    """After as many batches as the workers make ahead."""
    for _ in range(2 * case.workers + 1):
        next(batches)
    # Long enough that what lies ready now counts little.
    count = steps + 2 * case.workers
    start = time.perf_counter()
    for _ in range(count):
        next(batches)
    return count * case.batch / (time.perf_counter() - start)


def _in_the_loop(batches: Batches, case: Case, steps: int) -> dict:
    """The last entry of the log of segtrain's loop, over `steps` steps after as many and more that are not
    counted."""
    state, learning = case.learning("channels_last")
    logged, warm = Logged(), -(-(2 * case.workers + 1) // steps) * steps

    def until_enough() -> Iterator:
        yield from itertools.islice(batches, warm + steps)
        raise Enough

    with contextlib.suppress(Enough):
        plan = Plan(1_000_000, steps, None, None)
        train(state, learning, plan, until_enough(), lambda _: None, lambda *_: None, logged, Stop())
    return logged.entries[-1]
