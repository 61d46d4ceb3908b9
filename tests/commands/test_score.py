"""`segtrain score`: masks of any program against a data set."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segtrain.cli import main as cli

PAIRS = Path(__file__).parents[1] / "metric" / "cityscapes"
OFFICIAL = json.loads((PAIRS / "scores.json").read_text())
NAMES = sorted(set(OFFICIAL) - {"all"})


@pytest.fixture(scope="module")
def city(tmp_path_factory):
    """The pairs of the benchmark's own scores as a Cityscapes tree, and their predictions."""
    root = tmp_path_factory.mktemp("cityscapes")
    for part in ("train", "val"):
        for kind in ("leftImg8bit", "gtFine"):
            (root / kind / part / "a").mkdir(parents=True)
        for name in NAMES:
            blank = Image.new("RGB", (128, 64))
            blank.save(root / "leftImg8bit" / part / "a" / f"{name}_leftImg8bit.png")
            for kind in ("labelIds", "instanceIds"):
                file = f"{name}_gtFine_{kind}.png"
                shutil.copy(PAIRS / file, root / "gtFine" / part / "a" / file)
    (root / "predicted").mkdir()
    for name in NAMES:
        shutil.copy(PAIRS / f"{name}_pred.png", root / "predicted")
    return root


def words(city, *more, predictions="predicted"):
    return ["score", f"predictions={city / predictions}", "data=cityscapes", f"data.root={city}", *more]


def test_scores_of_label_ids_are_those_of_the_benchmark(city, tmp_path, capsys):
    output = f"output={tmp_path}"
    assert cli.main(words(city, "ids=labels", "protocol=cityscapes", output)) == 0
    record = json.loads((tmp_path / "scores.json").read_text())
    keys = {
        "miou": "averageScoreClasses",
        "miiou": "averageScoreInstClasses",
        "category_miou": "averageScoreCategories",
        "category_miiou": "averageScoreInstCategories",
    }
    for ours, theirs in keys.items():
        assert record[ours] == pytest.approx(OFFICIAL["all"][theirs], abs=1e-12), ours
    assert record["iou"]["bus"] == pytest.approx(OFFICIAL["all"]["classScores"]["bus"], abs=1e-12)
    assert record["category_iou"]["human"] == pytest.approx(
        OFFICIAL["all"]["categoryScores"]["human"], abs=1e-12
    )
    assert record["protocol"]["protocol"] == "cityscapes" and record["protocol"]["images"] == 3
    assert "miou" not in record["interval"] and "of one group" in record["interval"]["reason"]  # of one city
    printed = capsys.readouterr().out
    assert "iIoU" in printed and "vehicle" in printed and "3 images of val" in printed


def test_all_conventions_are_printed(city, tmp_path, capsys):
    assert cli.main(words(city, "ids=labels", "protocol=all", f"output={tmp_path}")) == 0
    record = json.loads((tmp_path / "scores.json").read_text())
    assert record["conventions"][0]["miou"] == record["miou"]
    printed = capsys.readouterr().out
    assert "smp, macro-imagewise" in printed and "most moved by" in printed


def test_the_size_of_the_labels_is_that_of_the_protocol(city, tmp_path):
    assert cli.main(words(city, "ids=labels", "protocol=torchvision", f"output={tmp_path}")) == 0
    resized = json.loads((tmp_path / "scores.json").read_text())
    assert resized["protocol"]["resolution"] == "shorter side 520"
    assert resized["miou"] != OFFICIAL["all"]["averageScoreClasses"]  # 520 / 64 is no integer
    assert resized["miou"] == pytest.approx(OFFICIAL["all"]["averageScoreClasses"], abs=0.02)


def test_class_indices_and_pixels_of_no_class(tmp_path, capsys):
    for part in ("train", "val"):
        for kind in ("images", "masks"):
            (tmp_path / kind / part).mkdir(parents=True)
        Image.new("RGB", (4, 1)).save(tmp_path / "images" / part / "x.png")
        Image.fromarray(np.array([[0, 0, 1, 255]], np.uint8)).save(tmp_path / "masks" / part / "x.png")
    (tmp_path / "out").mkdir()
    Image.fromarray(np.array([[0, 255, 1, 0]], np.uint8)).save(tmp_path / "out" / "x.png")
    line = [
        "score",
        f"predictions={tmp_path}/out",
        "data=folder",
        f"data.root={tmp_path}",
        "data.classes=[a,b]",
    ]
    assert cli.main([*line, "metric=[confusion,boundary]", f"output={tmp_path}"]) == 0
    record = json.loads((tmp_path / "scores.json").read_text())
    assert record["iou"] == {"a": 0.5, "b": 1.0} and record["pixel_accuracy"] == pytest.approx(2 / 3)


def test_predictions_of_the_other_numbering_are_noticed(city, tmp_path, capsys):
    """As where class indices are scored or sent in as label ids, and the other way round."""
    perfect = tmp_path / "perfect"
    perfect.mkdir()
    for name in NAMES:
        shutil.copy(city / "gtFine/val/a" / f"{name}_gtFine_labelIds.png", perfect / f"{name}.png")
    line = ["score", f"predictions={perfect}", "data=cityscapes", f"data.root={city}"]
    lines = {ids: [*line, f"ids={ids}"] for ids in ("labels", "classes")}
    assert cli.main(lines["labels"]) == 0
    assert "warning" not in capsys.readouterr().err
    index_of = np.full(256, 255, np.uint8)
    for _, label, train_id, *_ in json.loads((PAIRS.parents[1] / "data/cityscapes/labels.json").read_text()):
        if 0 <= train_id < 19:
            index_of[label] = train_id
    for name in NAMES:
        values = np.array(Image.open(perfect / f"{name}.png"))
        Image.fromarray(index_of[values]).save(perfect / f"{name}.png")
    assert cli.main(lines["classes"]) == 0
    assert "warning" not in capsys.readouterr().err
    assert cli.main(lines["labels"]) == 0
    assert "with ids=classes 100.0%: the predictions seem to hold class indices; set ids=classes" in (
        capsys.readouterr().err
    )


def test_masks_of_0_and_255_are_not_scored_as_no_class_in_silence(tmp_path, capsys):
    """Most pixels are background and right either way, so the pixel accuracy differs by little."""
    mask = np.zeros((8, 8), np.uint8)
    mask[:2, :5] = 255
    for folder in ("images/train", "masks/train", "images/val", "masks/val", "out"):
        (tmp_path / folder).mkdir(parents=True)
        Image.fromarray(mask).save(tmp_path / folder / f"{folder[-3:]}.png")
    (tmp_path / "out/out.png").rename(tmp_path / "out/val.png")
    line = ["score", f"predictions={tmp_path}/out", "data=folder", f"data.root={tmp_path}"]
    assert cli.main(line) == 0
    told = "with ids=classes 84.4% of the labelled pixels are right, with ids=labels 100.0%"
    assert told in capsys.readouterr().err
    assert cli.main([*line, "ids=labels"]) == 0
    assert "warning" not in capsys.readouterr().err


def test_masks_without_any_label_are_not_scored_in_silence(city, tmp_path, capsys):
    shutil.copytree(city, tmp_path / "city")
    for path in (tmp_path / "city/gtFine/val/a").glob("*_labelIds.png"):
        Image.new("L", (128, 64)).save(path)  # as those of the test split
    assert cli.main(words(tmp_path / "city", "ids=labels")) == 0
    told = capsys.readouterr()
    assert "warning: no pixel of 3 images has a label" in told.err and "segtrain submit" in told.err
    assert "scored    3 images of val, 0 labelled pixels" in told.out


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (["protocol=cityscapes"], 3, "set ids=labels"),
        (["ids=labels", "split=test"], 2, "split=test does not exist"),
        (["ids=labels", "protocol=coco_stuff", "absent=one"], 2, "contradicts"),
        (["ids=labels", "split=all"], 3, "no prediction"),
    ],
)
def test_what_cannot_be_scored(city, capsys, more, code, said):
    if "split=all" in more:  # the same names in train and in val
        more, said = [*more], "6 images have no prediction"
    assert cli.main(words(city, *more)) == code
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("segtrain: error: ") and said in error


def test_a_missing_and_a_superfluous_file_are_named(city, tmp_path, capsys):
    shutil.copytree(city / "predicted", tmp_path / "other")
    (tmp_path / "other" / f"{NAMES[0]}_pred.png").rename(tmp_path / "other" / "b_000000_000000_pred.png")
    line = words(city, "ids=labels")
    line[1] = f"predictions={tmp_path / 'other'}"
    assert cli.main(line) == 3
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"{NAMES[0]}_leftImg8bit.png" in error and "b_000000_000000_pred" in error


def test_shapes_have_no_label_ids(tmp_path, capsys):
    assert cli.main(["score", f"predictions={tmp_path}", "data=shapes", "ids=labels"]) == 2
    assert "use ids=classes" in capsys.readouterr().err


def test_the_interval_of_masks(tmp_path, capsys):
    rng = np.random.default_rng(0)
    ious = []
    for index in range(8):
        target = rng.integers(0, 2, (16, 16)).astype(np.uint8)
        made = np.where(rng.random((16, 16)) < 0.1 * index, 1 - target, target).astype(np.uint8)
        for folder, values in (
            ("images", np.zeros((16, 16, 3), np.uint8)),
            ("masks", target),
            ("made", made),
        ):
            path = tmp_path / folder / "val" / f"{'abcdefgh'[index]}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(path)
        for folder in ("images", "masks"):
            (tmp_path / folder / "train").mkdir(exist_ok=True)
            shutil.copy(tmp_path / folder / "val" / "a.png", tmp_path / folder / "train" / "t.png")
        ious.append(((target == 1) & (made == 1)).sum() / ((target == 1) | (made == 1)).sum())
    typed = ["score", f"predictions={tmp_path / 'made'}", "data=folder", f"data.root={tmp_path}"]
    typed += ["data.classes=[off,on]", f"output={tmp_path / 'out'}"]
    assert cli.main(typed) == 0
    record = json.loads((tmp_path / "out" / "scores.json").read_text())
    low, high = record["interval"]["iou"]["on"]
    assert low < record["iou"]["on"] < high
    # The standard error of a mean of 8 images, which the IoU of all pixels nearly is.
    assert high - low == pytest.approx(2 * 1.96 * np.std(ious) / 8**0.5, rel=0.25)
    assert record["interval"]["unit"] == "image" and "1000 resamples of 8 images" in capsys.readouterr().out
    assert cli.main([*typed, "bootstrap=0"]) == 0
    assert "95 %" not in capsys.readouterr().out
