"""`segtrain explain`: the mIoU is that of `segtrain evaluate`, and the kinds add up."""

import json
from pathlib import Path

from PIL import Image

WORDS = ("data=shapes", "data.num_train=2", "data.num_val=3", "data.size=48", "augmentation=none")
WORDS += ("loader.batch_size=2", "loader.workers=0", "evaluate.workers=0", "trainer.steps=2", "device=cpu")


def test_explain_splits_the_miou_of_evaluate(segtrain):
    assert segtrain("train", *WORDS, "model.widths=[4,8]", "threads=1", "name=run").code == 0
    run = ("run=outputs/run", "device=cpu", "evaluate.workers=0")
    assert segtrain("evaluate", *run, "output=scored").code == 0
    result = segtrain("explain", *run, "num=2")
    assert result.code == 0, result.err
    record = json.loads(Path("outputs/run/explain/val-2/explain.json").read_text())
    scores = json.loads(Path("scored/scores.json").read_text())
    assert record["miou"] == scores["miou"] and record["labelled_pixels"] == scores["protocol"]["pixels"]
    wrong = round(record["labelled_pixels"] * (1 - scores["pixel_accuracy"]))
    assert sum(one["pixels"] for one in record["kinds"].values()) == record["wrong_pixels"] == wrong
    assert [one["miou"] for one in record["worst"]] == sorted(one["miou"] for one in record["worst"])
    assert len(record["worst"]) == 2 and f"mIoU {record['miou']:.4f}" in result.out
    picture = Image.open("outputs/run/explain/val-2/worst.png")
    assert picture.width > 4 * 200 and picture.height > 2 * 200
    assert segtrain("explain", *run, "num=0", "output=why").code == 0
    assert not Path("why/worst.png").exists()
    segtrain("explain", *run, "band_px=0").refused("band_px is 0")
