"""Published data sets through the command line: prepared, trained on, scored, from another directory too."""

import json
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "data"))
import trees

TINY = ("device=cpu", "model=unet", "model.widths=[4,8]", "augmentation=none", "loader.batch_size=2")
TINY += ("loader.workers=0", "evaluate.workers=0", "trainer.steps=2", "evaluate.pictures=1")


def train(segtrain, *words) -> None:
    result = segtrain("train", *words, *TINY)
    assert result.code == 0, result.err


def scores(segtrain, run, *words) -> dict:
    result = segtrain("evaluate", f"run={run}", "device=cpu", "output=scores", *words)
    assert result.code == 0, result.err
    return json.loads(Path("scores/scores.json").read_text())


def test_voc_with_sbd_from_its_archives(segtrain, tmp_path):
    Path("downloads").mkdir()
    trees.write_voc(tmp_path / "made", more=("2008_000002",))
    mask = trees.voc_mask(3)[0]
    mask[mask == 255] = 0
    trees.write_sbd(tmp_path / "sbd", {"2008_000002": mask}, {"2007_000033": mask})
    trees.tar(tmp_path / "downloads/VOCtrainval_11-May-2012.tar", tmp_path / "made")
    trees.tar(tmp_path / "downloads/benchmark.tgz", tmp_path / "sbd", "w:gz")
    result = segtrain("data", "prepare", "data=voc_aug", "data.root=voc", "archives=downloads")
    assert result.code == 0 and "voc_aug: train 4 images, val 2 images" in result.out, result.err
    train(segtrain, "data=voc_aug", "data.root=voc", "name=aug")
    for split, num in (("val", 2), ("all", 6)):
        record = scores(segtrain, "outputs/aug", f"split={split}")
        assert record["protocol"]["images"] == num and len(record["iou"]) == 21


def test_concat_resumed_and_scored_from_another_directory(segtrain, tmp_path, monkeypatch):
    trees.write_voc(tmp_path / "voc")
    trees.write_ade20k(tmp_path / "ade")
    words = ("data=concat", "data.sets={voc:{root:voc},ade20k:{root:ade}}", "name=both", "resume=auto")
    words += ("data.class_map={voc:{aeroplane:airplane,tvmonitor:television receiver,background:null}}",)
    train(segtrain, *words)
    run = tmp_path / "outputs/both"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    record = scores(segtrain, run, "split=all")
    assert record["protocol"]["images"] == 10
    assert "aeroplane" not in record["iou"] and "airplane" in record["iou"]
    (tmp_path / "moved").mkdir()
    (tmp_path / "voc").rename(tmp_path / "moved/voc")
    lost = segtrain("evaluate", f"run={run}", "device=cpu")
    lost.refused("data.sets.voc: data.root is 'voc'", f"was started in {tmp_path}")
    moved = f"data.sets.voc.root={tmp_path}/moved/voc"
    segtrain("train", f"resume={run}", moved, "trainer.steps=3").refused("trainer.steps is 3")
    result = segtrain("train", f"resume={run}", moved)
    assert result.code == 0 and "is finished" in result.out, result.err
