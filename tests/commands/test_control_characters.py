"""Names of classes and files are data: no terminal obeys what they hold."""

import json
import os

import numpy as np
import pytest

QUICK = ("device=cpu", "threads=1", "loader.batch_size=2", "loader.workers=0", "evaluate.workers=0")
NAMES = ["sky\x1b]0;title\x07", "road \x9b31m\x0bside"]
SHOWN = ["sky\\x1b]0;title\\x07", "road \\x9b31m side"]


@pytest.fixture
def run(segtrain, tmp_path, write_pair):
    """A run on classes and files of such names."""
    for number in range(6):
        image, mask = np.zeros((16, 16, 3), np.uint8), np.eye(16, dtype=np.uint8)
        write_pair(tmp_path / "files", f"{number}\x1b[2J", image, mask)
    (tmp_path / "files" / "classes.txt").write_text("\n".join(NAMES))
    words = ("data=folder", "data.root=files", "data.classes=classes.txt", "name=run", "trainer.steps=1")
    return segtrain("train", "model.widths=[4,8]", "augmentation=none", *QUICK, *words)


def assert_harmless(result, code=0):
    assert result.code == code, result.err
    text = (result.out + result.err).replace("\n", "")
    assert text.isprintable(), ascii(text)
    return result


def test_nothing_that_is_printed_holds_them(run, segtrain, tmp_path):
    assert all(name in assert_harmless(run).out for name in SHOWN)
    table = assert_harmless(segtrain("evaluate", "run=outputs/run", "output=there\x1bfore", *QUICK[:2])).out
    assert all(name in table for name in SHOWN) and "there\\x1bfore" in table
    iou = json.loads((tmp_path / "there\x1bfore" / "scores.json").read_text())["iou"]
    assert list(iou) == [NAMES[0], " ".join(NAMES[1].split())]
    assert_harmless(segtrain("compare", "runs=[outputs/run]", *QUICK[:2]))
    assert_harmless(segtrain("config", "train", "data=folder", 'data.classes=["a\x1bb"]'))
    (tmp_path / "files/images/bad\x1b.png").write_bytes(b"none")
    words = ("run=outputs/run", "input=files/images", "output=masks\x1b", "device=cpu")
    left_out = assert_harmless(segtrain("predict", *words), code=3)
    assert "bad\\x1b.png" in left_out.err and "masks\\x1b" in left_out.out
    assert (tmp_path / "outputs/run/report/validation.png").is_file()


@pytest.mark.skipif(os.sep != "/", reason="names of files are text there, not bytes")
def test_a_run_on_folders_whose_names_are_not_utf_8_works_as_any_other(segtrain, tmp_path, write_pair):
    root = os.fsdecode(b"stra\xdfe")
    for number in range(4):
        image, mask = np.zeros((16, 16, 3), np.uint8), np.eye(16, dtype=np.uint8)
        write_pair(tmp_path / root, f"{root}{number}", image, mask)
    words = ("data=folder", f"data.root={root}", "name=run", "trainer.steps=1", "model.widths=[4,8]", *QUICK)
    assert_harmless(segtrain("train", "augmentation=none", *words))
    assert_harmless(segtrain("evaluate", "run=outputs/run", *QUICK[:2]))
    assert_harmless(segtrain("train", "augmentation=none", *words, "resume=auto"))
    paths = (f"input={root}/images", f"output={root}/predicted")
    assert_harmless(segtrain("predict", "run=outputs/run", *paths, "device=cpu"))
    assert len(list((tmp_path / root / "predicted" / "classes").glob("*.png"))) == 4


def test_pictures_take_names_of_several_lines():
    from segtrain.report.sheet import sheet
    from segtrain.sample import Facts
    from segtrain.task import TASK

    task = TASK.build({"name": "semantic"})
    facts = Facts(classes=("a\nb", "c\x1bd"), palette=((0, 0, 0), (255, 0, 0)))
    mask = np.zeros((8, 8), np.uint8)
    rows = [(np.zeros((8, 8, 3), np.uint8), mask, mask)]
    plain = Facts(classes=("a\\nb", "c\\x1bd"), palette=facts.palette)
    shown, wanted = (sheet(rows, one, task.picture, task.errors, "t\ni") for one in (facts, plain))
    assert np.array_equal(np.asarray(shown), np.asarray(wanted))
