"""`segtrain plan`: choices from statistics, and a YAML that composes and trains."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from segtrain import build
from segtrain.commands import profiling, recipe
from segtrain.commands.plan import findings_of, plan
from segtrain.commands.recipe import Choice, Costs, Findings
from segtrain.data import DATA
from segtrain.errors import DataError, Interrupted
from segtrain.run.stop import Stop
from segtrain.train.step import train_step

CAMVID = Path(__file__).parents[2] / "conf" / "experiment" / "camvid_lite0.yaml"

STREETS = Findings(
    classes=("sky", "road", "bicyclist"),
    num_train=266,
    num_val=101,
    height=360,
    width=480,
    channels=3,
    class_pixels=np.tile([[6000, 7000, 100]], (266, 1)),
)
COSTS = Costs(step_s=1.0, evaluation_s=20.2, start_s=12.0)


def chosen(found: Findings, crop: int = 256, pretrained: str | None = None) -> dict:
    return {choice.key: choice.value for choice in recipe.network(found, "cpu", crop, pretrained)}


def folder(root, *names):
    for name in names:
        for kind, colour in (("images", "RGB"), ("masks", "L")):
            (root / kind / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new(colour, (6, 4)).save(root / kind / f"{name}.png")
    return {"name": "folder", "root": str(root), "classes": ["a", "b"]}


def test_a_single_image_is_too_little_to_plan_for(tmp_path):
    config = {"data": folder(tmp_path, "a"), "device": "cpu", "threads": 1, "minutes": 1}
    with pytest.raises(DataError, match=r"has no image in split val, only 1 in train"):
        plan({**config, "output": str(tmp_path / "my.yaml"), "overwrite": False}, Stop())


@pytest.mark.parametrize("names, drawn", [(("a", "b"), True), (("Training/a", "valid/b"), False)])
def test_a_split_is_drawn_or_somebody_chose_it(tmp_path, names, drawn):
    config = folder(tmp_path, *names)
    assert findings_of(DATA.build(config), config).drawn == drawn


def test_streets_on_a_cpu_get_what_was_tuned_by_hand_for_them():
    """All keys of experiment=camvid_lite0 but those of the length of the run."""
    choices = [*recipe.network(STREETS, "cpu", 256, None), *recipe.batches("cpu", 64, 2)]
    ours = build.check(
        "train", {"task": {"name": "semantic"}, "data": {"name": "shapes"}, **recipe.as_config(choices)}
    )
    tuned = yaml.safe_load(CAMVID.read_text())
    names = {
        key.removeprefix("override /"): name for one in tuned.pop("defaults") for key, name in one.items()
    }
    for key in ("model", "loss", "optimizer", "schedule"):
        assert ours[key]["name"] == names[key]
    for section in ("model", "optimizer", "loader"):
        assert tuned[section].items() <= ours[section].items()
    assert ours["loss"]["terms"] == tuned["loss"]["terms"]
    assert ours["augmentation"].keys() == tuned["augmentation"].keys()
    for operation, options in tuned["augmentation"].items():
        assert {
            key: list(v) if isinstance(v, tuple) else v for key, v in ours["augmentation"][operation].items()
        }.items() >= options.items()
    assert ours["trainer"]["memory_format"] == "channels_last" and ours["sampler"]["class_share"] == 0


def test_choices_follow_the_statistics():
    even = replace(STREETS, class_pixels=np.full((10, 3), 50))
    assert chosen(even)["loss.terms.cross_entropy.class_weights"] == "none"
    assert "augmentation.warp.max_class_share" not in chosen(STREETS)
    rare = STREETS.class_pixels.copy()
    rare[5:, 2] = 0
    assert chosen(replace(STREETS, class_pixels=rare))["sampler.class_share"] == 0.5
    ground = replace(STREETS, class_pixels=np.tile([[100, 8000, 100]], (266, 1)))
    assert chosen(ground)["augmentation.warp.max_class_share"] == 0.75
    assert chosen(replace(STREETS, channels=1))["augmentation.colour"] is None
    assert chosen(STREETS, pretrained="no internet")["model.weights"] == "none"
    assert chosen(STREETS, pretrained="no internet")["optimizer.encoder_factor"] == 1.0
    shared = replace(STREETS, groups=3, shared=2, drawn=True)
    assert chosen(shared)["sampler.folds"] == 3
    assert "sampler.folds" not in chosen(replace(shared, drawn=False))  # a split that somebody chose stays
    batches = {choice.key: choice.value for choice in recipe.batches("cpu", 3, 16)}
    assert batches["trainer.accumulate"] == 3 and batches["loader.workers"] == 8


def test_the_run_takes_the_time_that_there_is():
    length = {choice.key: choice.value for choice in recipe.length(STREETS, COSTS, 10, 8)}
    steps = length["trainer.steps"]
    assert 0.9 * 600 < steps * 1.0 + 101 * 0.2 + 12 < 600
    assert length["trainer.evaluate_every"] is None and length["schedule.warmup"] == steps // 20
    quick = {
        choice.key: choice.value
        for choice in recipe.length(STREETS, replace(COSTS, evaluation_s=1.01), 10, 8)
    }
    assert quick["trainer.evaluate_every"] == quick["trainer.steps"] // 5
    few = replace(STREETS, num_train=4)
    assert recipe.steps_in(few, COSTS, 1000, 8) == 500  # 1000 epochs, and no more
    assert recipe.affordable([256, 192, 128], STREETS, COSTS, 10, 8) == 256
    assert recipe.affordable([256, 192, 128], STREETS, COSTS, 2, 8) == 192
    assert recipe.affordable([256, 192, 128], STREETS, COSTS, 0.1, 8) == 128
    assert recipe.crop_sides(replace(STREETS, height=200), "cpu") == [192, 128]
    assert recipe.crop_sides(replace(STREETS, height=50), "cpu") == [32]


def test_reasons_of_any_text_are_comments_of_the_yaml():
    choices = [
        Choice("data", "folder", "as: given"),
        Choice("data.root", "a: b # c", 'x\n"y" # z'),
        Choice("data.classes", ["é", "null"], ""),
    ]
    text = recipe.as_yaml(choices, ["head\nline"])
    assert yaml.safe_load(text) == {
        "defaults": [{"override /data": "folder"}],
        "data": {"root": "a: b # c", "classes": ["é", "null"]},
    }
    assert text.startswith("# @package _global_\n# head") and "# as: given" in text


@pytest.fixture
def quick(monkeypatch):
    """A small encoder, and a profile of two steps."""
    monkeypatch.setattr(recipe, "SMALL", "test_resnet")
    monkeypatch.setattr(recipe, "BATCH", {"cpu": 2})
    monkeypatch.setattr(profiling, "STEPS", 2)
    monkeypatch.setattr("segtrain.commands.plan.profile", profiling.profile)


def test_the_yaml_composes_and_trains(segtrain, tmp_path, write_pair, quick):
    rng = np.random.default_rng(0)
    for name in [f"train/{i}" for i in range(6)] + ["val/6", "val/7"]:
        mask = (rng.random((48, 64)) < 0.05).astype(np.uint8)
        write_pair(tmp_path / "my data", name, np.repeat(mask[..., None] * 200, 3, axis=2), mask)
    words = ("data=folder", "data.root=my data", "device=cpu", "minutes=2", "threads=1")
    result = segtrain("plan", *words, "output=sub/my.yaml")
    assert result.code == 0, result.err
    path = tmp_path / "sub" / "experiment" / "my.yaml"
    assert "segtrain train experiment=my --config-dir sub" in result.out and path.is_file()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["my data", "sub"]  # nothing else is written
    written = yaml.safe_load(path.read_text())
    assert written["data"]["classes"] == ["class_0", "class_1"]  # settled, so that masks are not read again
    assert written["model"]["weights"] == "none" and written["augmentation"]["warp"]["size"] == 32
    segtrain("plan", *words, "output=sub/my.yaml").refused("sub/experiment/my.yaml exists", "overwrite=true")
    short = (
        "trainer.steps=2",
        "schedule.warmup=0",
        "loader.workers=0",
        "evaluate.workers=0",
        "trainer.save_every=null",
    )
    trained = segtrain("train", "experiment=my", "--config-dir", "sub", "name=run", "device=cpu", *short)
    assert trained.code == 0, trained.err
    saved = yaml.safe_load((tmp_path / "outputs" / "run" / "config.yaml").read_text())
    assert saved["trainer"]["steps"] == 2 and saved["loss"]["terms"] == written["loss"]["terms"]
    assert saved["augmentation"]["warp"]["size"] == 32


@pytest.mark.parametrize(
    ("output", "words"),
    [("my.txt", "such as my.yaml"), ("a b.yaml", "letters, digits"), ("demo.yaml", "of that name")],
)
def test_names_that_cannot_be_chosen(segtrain, output, words):
    segtrain("plan", "device=cpu", f"output={output}").refused(words)


def test_a_signal_ends_it_and_nothing_is_written(tmp_path, monkeypatch, quick):
    monkeypatch.chdir(tmp_path)
    stop, asked = Stop(), []

    def signalled(*arguments):
        asked.append(1)
        stop.requested = signal.SIGINT
        return train_step(*arguments)

    monkeypatch.setattr(profiling, "train_step", signalled)
    config = {"device": "cpu", "threads": None, "minutes": 1.0, "output": "my.yaml", "overwrite": False}
    data = build.check_groups("plan", {"data": {"name": "shapes", "size": 48, "num_train": 4, "num_val": 2}})
    with pytest.raises(Interrupted) as caught:
        plan({**config, **data}, stop)
    assert caught.value.exit_code == 130 and len(asked) == 1 and not list(tmp_path.iterdir())
