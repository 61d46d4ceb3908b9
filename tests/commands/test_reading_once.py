"""A command reads each file of a checkpoint as often as it has to: once to hash it, once for what it holds."""

import os
import sys
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from segtrain.cli.main import main

DATA = ("data.size=48", "data.num_train=4", "data.num_val=2", "augmentation.warp.size=48")
QUICK = ("loader.batch_size=2", "loader.workers=0", "evaluate.workers=0", "device=cpu", "threads=1")
TRAIN = ("train", "model.widths=[4,8]", *DATA, *QUICK)

opened: Counter | None = None


def count(event: str, words: tuple) -> None:
    """An audit hook: it stays for the whole process, so it counts only while `opened` is there."""
    if opened is not None and event == "open" and isinstance(words[0], (str, os.PathLike)):
        opened[str(words[0])] += 1


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with outputs/first and outputs/second, and photos/a.png and b.png."""
    folder = tmp_path_factory.mktemp("once")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("first", "second"):
            assert main([*TRAIN, "trainer.steps=1", f"name={name}"]) == 0
    (folder / "photos").mkdir()
    for name in "ab":
        Image.fromarray(np.zeros((48, 48, 3), np.uint8)).save(folder / "photos" / f"{name}.png")
    sys.addaudithook(count)
    return folder


@pytest.fixture
def reads(place, monkeypatch):
    """reads(words) -> {"second/description.json": 2, …}: how often files of checkpoints were opened."""
    monkeypatch.chdir(place)

    def call(*words: str) -> dict[str, int]:
        global opened
        opened = Counter()
        try:
            assert main(list(words)) == 0
        finally:
            found, opened = opened, None
        assert found
        return {
            f"{path.split('/')[-4]}/{path.split('/')[-1]}": number
            for path, number in found.items()
            if "/checkpoints/1/" in path and path.endswith((".json", ".safetensors"))
        }

    return call


ONCE = {"description.json": 2, "manifest.json": 1}


def of(run: str, found: dict[str, int]) -> dict[str, int]:
    return {key.split("/")[1]: number for key, number in found.items() if key.startswith(run)}


@pytest.mark.parametrize(
    "words",
    [
        ("evaluate", "run=outputs/second", "evaluate.workers=0"),
        ("predict", "run=outputs/second", "input=photos", "output=masks"),
        ("compare", "runs=[outputs/second]", "evaluate.workers=0"),
    ],
)
def test_a_checkpoint_and_a_second_network_are_read_once(reads, words):
    # safetensors opens its file out of Python's sight, so what is counted is the hash.
    found = reads(*words, "device=cpu", "predictor.ensemble=outputs/first")
    assert of("second", found) == of("first", found) == {**ONCE, "model.safetensors": 1}


def test_a_second_network_is_read_once_by_a_training_and_all_its_evaluations(reads):
    words = ("trainer.steps=3", "trainer.evaluate_every=1", "name=third")
    found = of("first", reads(*TRAIN, *words, "predictor.ensemble=outputs/first"))
    assert found == {**ONCE, "model.safetensors": 1}


def test_a_second_network_is_read_once_for_all_runs_of_a_comparison(reads):
    runs = "runs=[outputs/second,outputs/second/../second,./outputs/second]"
    found = reads("compare", runs, "evaluate.workers=0", "device=cpu", "predictor.ensemble=outputs/first")
    assert of("first", found) == {**ONCE, "model.safetensors": 1}


def test_a_run_to_start_from_is_read_once(reads):
    found = of("first", reads(*TRAIN, "trainer.steps=1", "name=fourth", "init=outputs/first"))
    assert found == {**ONCE, "model.safetensors": 1}


def test_a_run_that_goes_on_reads_its_description_once(reads):
    """And nothing is hashed again where nothing was left to do."""
    found = of("second", reads("train", "resume=outputs/second", "device=cpu"))
    assert found == {**ONCE, "description.json": 1, "model.safetensors": 1}
