"""Run by torchrun: scores of every length and batch size on all ranks, beside those of one process."""

import itertools
import sys

import numpy as np
import torch

from segtrain import ranks
from segtrain.data.parts import Header
from segtrain.evaluate.loop import evaluate
from segtrain.loader.loader import evaluation_batches
from segtrain.metric import METRIC
from segtrain.sample import IGNORE, Sample

CLASSES = 4


class Numbered:
    """Images of two sizes whose pixels are the answers, some of them wrong; uneven numbers of pixels are
    ignored."""

    def __init__(self, length):
        self.samples = []
        for index in range(length):
            rng = np.random.default_rng(index)
            side = 6 + index % 2
            image = rng.integers(0, CLASSES, (side, side, 3), dtype=np.uint8)
            target = rng.integers(0, CLASSES, (side, side), dtype=np.uint8)
            target[rng.random((side, side)) < index / 10] = IGNORE
            self.samples.append(Sample(image=image, target=target, name=str(index)))

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]

    def name(self, index):
        return str(index)

    def headers(self, indices):
        return [Header(*self.samples[index].target.shape, "uint8") for index in indices]


class Identity:
    def decided(self, decide, images):
        return decide(images)


def scored(split, batch_size):
    metric = METRIC.build({"name": "confusion"}, num_classes=CLASSES, ignore_index=IGNORE)
    with evaluation_batches(split, batch_size, 0) as batches:
        return evaluate(
            Identity(),
            lambda images: images[:, 0].long(),
            {"confusion": metric},
            ranks.in_step(batches, lambda: None),
            torch.device("cpu"),
            shown={0, len(split) - 1},
            kept=["confusion"],
        )


with ranks.process_group("cpu"):
    assert ranks.world_size() == int(sys.argv[1])
    for length, batch_size in itertools.product(range(1, 10), range(1, 4)):
        split = Numbered(length)
        found = scored(split, batch_size)
        with ranks.alone():
            expected = scored(split, batch_size)
        assert found.totals["confusion"].dtype == torch.int64
        assert torch.equal(found.totals["confusion"], expected.totals["confusion"]), (length, batch_size)
        assert found.positions == expected.positions and len(found.positions) == length
        assert found.numbers == expected.numbers
        assert bool(found.per_image) == ranks.is_main()
        if ranks.is_main():
            rows = (one.per_image["confusion"].to_dense() for one in (found, expected))
            assert torch.equal(*rows)
        for one, other in zip(found.pictures, expected.pictures, strict=True):
            assert all(map(np.array_equal, one, other))
    if ranks.is_main():
        print("all equal")
