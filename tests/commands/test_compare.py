"""`segtrain compare`: the scores are those of `segtrain evaluate`, in the order of the runs; the picture has
a column for each."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from segtrain.cli import main as cli
from segtrain.evaluate.comparison import Entry, differences, lines, notes, origin_of
from segtrain.evaluate.interval import Intervals
from segtrain.evaluate.loop import Scores
from segtrain.evaluate.units import Units
from segtrain.sample import Number

TINY = [
    "data.num_train=4",
    "data.num_val=3",
    "data.size=48",
    "augmentation.warp.size=48",
    "loader.batch_size=2",
    "loader.workers=0",
]
TINY += ["evaluate.workers=0", "trainer.steps=2", "device=cpu", "threads=1"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for seed in (0, 1):
            assert cli.main(["train", *TINY, "model.widths=[4,8]", f"seed={seed}", f"name=run{seed}"]) == 0
        yield folder


def test_compare_gives_the_scores_of_evaluate(runs, capsys):
    assert (
        cli.main(
            [
                "compare",
                "runs=[outputs/run1,outputs/run0]",
                "device=cpu",
                "evaluate.workers=0",
                "evaluate.pictures=2",
            ]
        )
        == 0
    )
    printed = capsys.readouterr().out
    record = json.loads((runs / "outputs" / "compare" / "compare.json").read_text())
    assert [one["run"] for one in record["runs"]] == ["outputs/run1", "outputs/run0"] and record["protocol"][
        "images"
    ] == 3
    assert {one["origin"] for one in record["runs"]} == {"from scratch"}
    for one in record["runs"]:
        assert (
            cli.main(["evaluate", f"run={one['run']}", "device=cpu", "evaluate.workers=0", "output=scored"])
            == 0
        )
        scores = json.loads((runs / "scored" / "scores.json").read_text())
        assert one["miou"] == scores["miou"] and one["pixel_accuracy"] == scores["pixel_accuracy"]
        assert f"{one['miou']:.4f}" in printed
    picture = Image.open(runs / "outputs" / "compare" / "compare.png")
    assert picture.width > 4 * 300 and picture.height > 2 * 300  # image, truth and two runs; two images
    assert (
        cli.main(
            ["compare", "runs=[outputs/run1]", "device=cpu", "evaluate.workers=0", "evaluate.pictures=0"]
        )
        == 0
    )
    assert capsys.readouterr().out.endswith("written   outputs/compare/compare.json\n")
    assert not (runs / "outputs" / "compare" / "compare.png").exists()
    assert cli.main(["compare", "runs=[outputs/run0]", "output="]) == 2
    assert "output is empty" in capsys.readouterr().err
    assert (
        cli.main(["compare", "runs=[outputs/run0,'']", "device=cpu"]) == 2
        and "runs is empty (an unset" in capsys.readouterr().err
    )


def test_compare_refuses_other_classes_and_missing_runs(runs, capsys):
    for kind, channels in (("images", (3,)), ("masks", ())):
        (runs / kind).mkdir()
        for name in "abcd":
            pixels = np.zeros((48, 48, *channels), np.uint8)
            pixels[:20] = 1
            Image.fromarray(pixels).save(runs / kind / f"{name}.png")
    words = ["data=folder", "data.images=images", "data.masks=masks", "data.val_fraction=0.5", *TINY[3:]]
    assert cli.main(["train", *words, "model.widths=[4,8]", "name=other"]) == 0
    assert cli.main(["compare", "runs=[outputs/run0,outputs/other]", "device=cpu"]) == 2
    assert "outputs/other was trained on 2 classes and the data has 5" in capsys.readouterr().err
    assert cli.main(["compare", "device=cpu"]) == 2 and "runs is missing" in capsys.readouterr().err
    assert cli.main(["compare", "runs=[outputs/run0,outputs/nix]", "device=cpu"]) == 2
    assert "runs=outputs/nix does not exist" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("config", "origin"),
    [
        ({"model": {"name": "unet"}}, "from scratch"),
        ({"model": {"name": "unet_original"}}, "from scratch"),
        ({"model": {"name": "deeplabv3", "encoder": "resnet18"}}, "resnet18 of ImageNet"),
        (
            {"model": {"name": "unet", "encoder": "tf_efficientnet_lite0"}},
            "tf_efficientnet_lite0 of ImageNet",
        ),
        ({"model": {"name": "deeplabv3", "weights": "none"}}, "from scratch"),
        ({"model": {"name": "deeplabv3", "weights": "there/mine.pth"}}, "from mine.pth"),
        ({"model": {"name": "fcn8s", "weights": "imagenet"}}, "VGG16 of ImageNet"),
        ({"model": {"name": "fcn8s"}, "init": "outputs/fcn16"}, "from fcn16"),
    ],
)
def test_what_a_run_started_from(config, origin):
    assert origin_of(config) == origin


def test_several_splits_share_a_table(runs, capsys):
    words = ["runs=[outputs/run0,outputs/run1]", "device=cpu", "evaluate.workers=0", "evaluate.pictures=0"]
    assert cli.main(["compare", *words, "splits=[val,train]"]) == 0
    printed = capsys.readouterr().out
    head, *rows = printed.splitlines()[:3]
    assert "mIoU val mIoU train" in " ".join(head.split())
    record = json.loads((runs / "outputs" / "compare" / "compare.json").read_text())
    assert record["protocol"]["splits"] == {"val": 3, "train": 4}
    for split, values in (
        ("val", record["runs"]),
        ("train", [one["other_splits"]["train"] for one in record["runs"]]),
    ):
        assert cli.main(["compare", *words, f"split={split}", "output=one"]) == 0
        single = json.loads((runs / "one" / "compare.json").read_text())["runs"]
        assert [one["miou"] for one in values] == [one["miou"] for one in single]
        assert all(any(f"{one['miou']:.4f}" in row for row in rows) for one in single)
    assert cli.main(["compare", *words, "splits=[val,tests]"]) == 2


def test_the_difference_is_paired_and_runs_of_two_seeds_have_a_spread(runs, capsys):
    words = ["runs=[outputs/run0,outputs/run1]", "device=cpu", "evaluate.workers=0", "evaluate.pictures=0"]
    assert cli.main(["compare", *words, "output=doubt"]) == 0
    printed = capsys.readouterr().out
    record = json.loads((runs / "doubt" / "compare.json").read_text())
    ((found,),) = record["differences"].values()
    miou = {one["run"]: one["miou"] for one in record["runs"]}
    assert found["difference"] == pytest.approx(miou[found["first"]] - miou[found["second"]])
    low, high = found["interval"]
    assert found["distinguishable"] == (not low <= 0 <= high) and found["difference"] >= 0
    assert (" is better than " if found["distinguishable"] else " are not distinguishable: ") in printed
    (seeds,) = record["seeds"]
    assert seeds["runs"] == ["outputs/run0", "outputs/run1"]
    assert seeds["miou"]["mean"] == pytest.approx(sum(miou.values()) / 2)
    assert seeds["miou"]["deviation"] == pytest.approx(abs(low_high(miou)) / 2**0.5)
    assert "2 seeds of outputs/run0" in printed and f"± {seeds['miou']['deviation']:.4f}" in printed
    assert cli.main(["compare", *words, "output=doubt", "bootstrap=0"]) == 0
    assert "no interval: bootstrap=0" in capsys.readouterr().out


def low_high(values: dict[str, float]) -> float:
    first, second = values.values()
    return first - second


def test_the_table_is_ordered_by_the_score_and_a_run_without_one_is_last():
    def entry(run: str, miou: float | None) -> Entry:
        return Entry(
            run,
            "unet",
            "from scratch",
            1,
            1000,
            Scores({"miou": Number("mIoU", miou)}, {"seconds": 1.0, "images": 2}, []),
        )

    entries = [entry("none", None), entry("low", 0.2), entry("high", 0.4)]
    assert [line.split()[0] for line in lines(entries, "miou", False)[1:]] == ["high", "low", "none"]
    assert [line.split()[0] for line in lines(entries, "miou", True)[1:]] == ["low", "high", "none"]
    assert entries[0].heads("miou")[1] == "miou -" and "boundary" not in lines(entries, "miou", False)[0]
    sharp = replace(
        entries[1],
        scores=Scores(
            {"miou": Number("mIoU", 0.2), "boundary_f": Number("boundary F", 0.31)},
            {"seconds": 1.0, "images": 2},
            [],
            further=("boundary_f",),
        ),
    )
    heads, first, second = lines([entries[2], sharp], "miou", False)
    assert (
        heads.split()[3:5] == ["boundary", "F"] and first.split()[3] == "-" and second.split()[3] == "0.3100"
    )


def test_runs_of_other_protocols_are_marked_and_the_order_is_that_of_each_split():
    none = Intervals(0, Units((), "image"), reason="bootstrap=0")

    def entry(run: str, val: float, test: float, absent: str) -> Entry:
        protocol = {"absent": absent, "seconds": val, "output_stride": 8}
        val_scores, test_scores = (
            Scores({"miou": Number("mIoU", value)}, protocol, []) for value in (val, test)
        )
        return replace(
            Entry(run, "unet", "from scratch", 1, 1000, val_scores, {"test": test_scores}),
            validated={"tile": None if run == "a" else 512},
            intervals=(none, none),
        )

    entries = [entry("a", 0.4, 0.2, "union"), entry("b", 0.3, 0.3, "union"), entry("c", 0.1, 0.1, "gt")]
    made, said = differences(entries, "miou", False, ["val", "test"])
    assert [(one["first"], one["second"]) for one in made["test"]] == [("b", "a"), ("a", "c")]
    assert made["test"][0]["difference"] == pytest.approx(0.1) and made["val"][1]["difference"] is None
    assert said[0] == "a is ahead of b by mIoU on val 0.1000, without an interval"
    assert said[1] == "a and c are not compared: their protocols differ in absent (union, gt)"
    assert said[2].endswith("no interval: bootstrap=0")
    assert [line[10:17] for line in notes(entries)] == ["a and b", "a and c"]
    assert "tile (null, 512)" in notes(entries)[0]
