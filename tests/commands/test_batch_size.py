"""`loader.batch_size=auto`, on a GPU whose memory is a formula."""

import pytest
import torch

from segtrain.commands import profiling
from segtrain.commands.batch_size import USED, largest_batch
from segtrain.errors import ResourceError


def memory(fixed, of_image, limit=None):
    """images -> bytes of a step; out of memory above `limit`. `asked` holds the images of each call."""
    asked = []

    def of(images):
        asked.append(images)
        needed = fixed + of_image * images
        if limit is not None and needed > limit:
            raise torch.OutOfMemoryError("out of memory")
        return needed

    of.asked = asked
    return of


@pytest.mark.parametrize(
    ("fixed", "of_image", "most", "expected"),
    [(100, 10, 1000, 72), (100, 10, 20, 20), (100, 100, 1000, 7), (0, 400, 1000, 2), (0, 700, 1000, 1), (100, 10, 3, 3)],
)  # fmt: skip
def test_the_largest_number_that_fits(fixed, of_image, most, expected):
    available = 1000
    memory_of = memory(fixed, of_image, available)
    found = largest_batch(memory_of, available, most)
    assert found == expected and memory_of(found) <= USED * available
    # Up to 8 none larger fits; beyond, none that is larger by 8.
    following = found + (8 if found > 8 else 1)
    assert following > most or fixed + of_image * following > USED * available


def test_memory_that_does_not_grow_in_proportion():
    def memory_of(images):  # a workspace of its own from 32 images on
        return 10 * images + (600 if images >= 32 else 0)

    assert largest_batch(memory_of, 1000, 1000) == 24


def test_not_even_one_image():
    with pytest.raises(ResourceError, match=r"too little for the training step of one image; use smaller"):
        largest_batch(memory(2000, 10, 1000), 1000, 100)


WORDS = (
    "train", "data=shapes", "data.num_train=40", "data.num_val=2", "model=unet", "model.widths=[4,8]", "augmentation=none", "loader.workers=0",
    "evaluate.workers=0", "threads=1", "trainer.epochs=1", "loader.batch_size=auto", "name=run", "resume=auto",
)  # fmt: skip


def test_the_run_saves_the_number(segtrain, monkeypatch):
    tried = []

    def tried_on_a_gpu(config, parts, learned, device, stop, num_steps=None):
        images = config["loader"]["batch_size"]
        tried.append((images, config["trainer"]["accumulate"]))
        return profiling.Profile(1.0, 0.0, 0.0, 100 + 50 * images)

    monkeypatch.setattr(profiling, "profile", tried_on_a_gpu)
    monkeypatch.setattr(profiling, "available", lambda device: 1000)
    segtrain(*WORDS, "device=cpu").refused("loader.batch_size=auto measures the memory of a CUDA device")
    monkeypatch.setattr(profiling, "check_device", lambda device: None)
    result = segtrain(*WORDS, "trainer.accumulate=2", "device=cpu")
    assert result.code == 0, result.err
    assert tried == [(2, 1), (4, 1), (15 // 8 * 8, 1)]
    assert "loader.batch_size=16" in result.out and "plan      3 steps of 16 images" in result.out
    again = segtrain(*WORDS, "trainer.accumulate=2", "device=cpu")
    assert again.code == 0 and len(tried) == 3
