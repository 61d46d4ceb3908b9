"""Every recipe, composed and run for two steps a stage on drawn shapes, at a small size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trees
import yaml

CONF = Path(__file__).parents[1] / "conf" / "experiment"
RECIPES = sorted(path.stem for path in CONF.glob("*.yaml"))
SHAPES = ["data=shapes", "data.size=64", "data.num_train=8", "data.num_val=2", "data.objects=3"]
CITYSCAPES = [f"data.root={Path(__file__).parent / 'data' / 'cityscapes' / 'tree'}"]
DATA = {"cityscapes_coarse_to_fine": CITYSCAPES, "coco_to_voc": ["data.root=sets"]}
"""What is typed for recipes that name their own data set; all others train on shapes."""
SHORT = [
    "trainer.steps=2", "trainer.evaluate_every=null", "trainer.save_every=null", "trainer.memory_format=contiguous", "loader.workers=0", "evaluate.workers=0", "evaluate.pictures=0",
    "evaluate.batch_size=1", "device=cpu", "threads=1",
]  # fmt: skip
"""What is typed for all of them."""
NARROW = ["model.weights=none", "model.width=0.05", "loader.batch_size=2"]
LIGHT = ["model.weights=none", "loader.batch_size=2"]
CROP = ["augmentation.warp.size=64"]
SMALL = {
    "camvid_best": [*LIGHT, *CROP, "model.encoder=test_resnet", "schedule.warmup=0"],
    "camvid_lite0": [*LIGHT, *CROP, "model.encoder=test_resnet", "schedule.warmup=0"],
    "cascade_paper": [*LIGHT, *CROP, "model.encoder=resnet34", "model.blocks=5"],
    "cityscapes_coarse_to_fine": [*LIGHT, "augmentation.warp.size=32", "model.encoder=test_resnet"],
    "coco_to_voc": [*LIGHT, "augmentation.warp.size=32", "model.encoder=test_resnet"],
    "classical": ["model.trees=5", "model.textons=8", "model.num_regions=30"],
    "deck": [*CROP, "loader.batch_size=2", "schedule.warmup=0", "model.widths=[4,8]"],
    "deconvnet_paper": [
        *NARROW,
        "model.fc_width=16",
        "trainer.accumulate=2",
        "loader.batch_size=4",
        "trainer.recompute_batch_norm=2",
    ],
    "deeplabv3_paper": [*LIGHT, *CROP, "model.encoder=test_resnet", "model.multi_grid=null"],
    "deeplabv3plus_paper": [*LIGHT, *CROP, "model.encoder=test_resnet", "model.aspp_width=16"],
    "demo": ["loader.batch_size=2", "model.widths=[4,8]", "schedule.warmup=0"],
    "dilated_paper": [*NARROW, *CROP],
    "fcn8s_at_once": NARROW,
    "fcn_paper": NARROW,
    "patchwise_windows": [
        *LIGHT,
        "model.encoder=test_resnet",
        "model.patch=31",
        "augmentation.patch.size=31",
    ],
    "smp_deeplabv3plus": ["loader.batch_size=2", "model.encoder=test_resnet"],
    "sweep_camvid": [*LIGHT, *CROP, "model.encoder=test_resnet", "schedule.warmup=0", "sweep.trials=2"],
    "torchvision_deeplabv3": ["loader.batch_size=2", "model.encoder=test_resnet"],
    "unet_paper": ["model.width=0.1", "augmentation.warp.size=188"],
}
"""What is typed to make one small."""


def stages(name: str) -> list[list[str]]:
    return yaml.safe_load((CONF / f"{name}.yaml").read_text()).get("stages") or []


HEAVY = ("cascade_paper", "deconvnet_paper")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in HEAVY else []) for name in RECIPES]
)
def test_two_steps_of_each_stage(segtrain, name):
    if name == "classical":
        for package in ("skimage", "sklearn", "maxflow"):
            pytest.importorskip(package)
    if name == "coco_to_voc":
        pytest.importorskip("pycocotools")
        trees.write_voc_aug(Path("sets"))
        Path("sets/coco").symlink_to(Path(__file__).parent / "data" / "coco" / "tree")
    result = segtrain("train", f"experiment={name}", *DATA.get(name, SHAPES), *SHORT, *SMALL[name], "name=x")
    assert result.code == 0, result.err
    folders = sorted(path.parent for path in Path("outputs/x").glob("*/run.json")) or [Path("outputs/x")]
    assert len(folders) == (len(stages(name)) or (2 if name == "sweep_camvid" else 1))
    for folder in folders:
        record = json.loads((folder / "run.json").read_text())
        assert record["exit_code"] == 0
        assert record["scores"]["val/miou"] is not None
    losses = [
        json.loads(line) for folder in folders for line in (folder / "metrics.jsonl").read_text().splitlines()
    ]
    assert name == "classical" or sum("train/loss" in line for line in losses) == len(folders)


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in RECIPES
        if not name.startswith(("camvid", "cityscapes", "coco", "deck", "demo", "sweep"))
    ],
)
def test_a_recipe_of_a_paper_names_no_data_and_its_sources(name):
    text = (CONF / f"{name}.yaml").read_text()
    recipe = yaml.safe_load(text)
    assert "data" not in recipe and not any("data" in str(key) for line in recipe["defaults"] for key in line)
    assert not {"loader.workers", "device", "threads"} & set(recipe)
    assert recipe["defaults"]


def test_fcns_are_trained_with_a_thousandth_of_the_rate_before(segtrain):
    """1e-10, 1e-12 and 1e-14 of the loss summed over an image of 375x500, which is the mean times 187 500."""
    recipe = yaml.safe_load((CONF / "fcn_paper.yaml").read_text())
    rates = [
        recipe["optimizer"]["lr"],
        *(float(word.rpartition("=")[2]) for stage in recipe["stages"] for word in stage if ".lr=" in word),
    ]
    assert rates == pytest.approx([rate * 375 * 500 for rate in (1e-10, 1e-12, 1e-14)], rel=0.02)
    assert recipe["optimizer"]["weight_decay"] == pytest.approx(5e-4 / (375 * 500), rel=0.02)
