"""`segtrain data check` from the command line: what it prints and its exit code."""

import json
import os
import signal
import threading
import time

import numpy as np
import pytest

from segtrain.data.shapes import DrawnShapes

NAMES = "data.classes=[background,road,car]"


@pytest.fixture
def folder(tmp_path, write_pair):
    """files/ with 4 training and 2 validation pairs of 8×9 pixels; the path to a mask of a given name."""
    rng = np.random.default_rng(0)
    mask = np.arange(9, dtype=np.uint8)[None].repeat(8, 0) // 3
    for name in [*(f"train/{letter}" for letter in "abcd"), "val/a", "val/b"]:
        write_pair(tmp_path / "files", name, rng.integers(0, 256, (8, 9, 3), np.uint8), mask)
    return lambda name: tmp_path / "files" / "masks" / f"{name}.png"


def test_nothing_wrong_is_exit_code_0(segtrain, folder):
    result = segtrain("data", "check", "data=folder", "data.root=files", NAMES)
    assert (result.code, result.err) == (0, "")
    assert result.out == "nothing found in 6 samples (4 train, 2 val)\n"


def test_everything_wrong_is_listed_with_exit_code_3(segtrain, folder):
    for name in ("train/a", "val/b"):
        folder(name).write_bytes(folder(name).read_bytes()[:50])
    result = segtrain("data", "check", "data=folder", "data.root=files", NAMES)
    result.refused("2 things are wrong in 6 samples (4 train, 2 val)", code=3)
    assert result.out.startswith("2 samples cannot be read: replace or remove the files;")
    assert "files/masks/train/a.png" in result.out and "files/masks/val/b.png" in result.out


def test_json_holds_all(segtrain, folder, write_pair):
    for number in range(9):
        write_pair(
            folder("a").parents[1],
            f"train/ü{'y' * number}",
            np.full((8, 9, 3), 20 * number, np.uint8),
            np.full((8, 9), 3, np.uint8),
        )
    result = segtrain("data", "check", "data=folder", "data.root=files", NAMES, "json=true")
    assert result.code == 3
    record = json.loads(result.out)
    assert record["samples"] == {"train": 13, "val": 2} and record["wrong"] == 9
    off = record["kinds"]["off_by_one"]
    assert off["wrong"] and off["count"] == len(off["found"]) == 9
    assert off["found"][8]["samples"][0]["name"].endswith("images/train/üyyyyyyyy.png")
    assert result.out.isascii()


def test_what_is_only_worth_a_look_is_exit_code_0(segtrain, folder, write_pair):
    write_pair(
        folder("a").parents[1], "train/empty", np.zeros((8, 9, 3), np.uint8), np.zeros((8, 9), np.uint8)
    )
    result = segtrain("data", "check", "data=folder", "data.root=files", NAMES)
    assert result.code == 0
    assert result.out.splitlines()[0] == (
        "1 sample holds nothing but background: fine if nothing is there to label"
    )
    assert result.out.splitlines()[-1] == (
        "nothing wrong in 7 samples (5 train, 2 val); 1 thing is worth a look"
    )


def test_a_data_set_that_cannot_be_built_is_one_line(segtrain, folder):
    segtrain("data", "check", "data=folder", "data.root=nowhere").refused("data.root is 'nowhere'")
    folder("train/a").unlink()
    segtrain("data", "check", "data=folder", "data.root=files", NAMES).refused(
        "1 image has no mask of the same name", code=3
    )


def test_help(segtrain):
    result = segtrain("data", "check", "--help")
    for word in ("segtrain data check data=camvid", "similar=false", "json=false", "Exit code 3"):
        assert word in result.out
    segtrain("data").refused("segtrain data check", "segtrain data stats", "segtrain data show")


def test_ctrl_c_ends_it_with_one_line(segtrain, monkeypatch):
    """While the samples of a large data set are read: what is not begun is not read."""
    seen = []
    drawn = DrawnShapes.__getitem__

    def interrupted(self, index):
        seen.append(index)
        if len(seen) == 20:
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        return drawn(self, index)

    monkeypatch.setattr(DrawnShapes, "__getitem__", interrupted)
    before = threading.active_count()
    result = segtrain("data", "check", "data.size=48", "data.num_train=5000")
    result.refused("stopped by SIGINT", code=130)
    assert result.out == "" and 20 <= len(seen) < 1000
    assert threading.active_count() <= before + 1  # the watcher of signals may still be ending
