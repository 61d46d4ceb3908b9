"""The tree beside this file was written by cityscapesScripts (make_tree.py)."""

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segtrain.data import DATA
from segtrain.data.cityscapes import LABELS
from segtrain.data.joined import without_instances
from segtrain.errors import ConfigError, DataError
from segtrain.sample import IGNORE

HERE = Path(__file__).parent
TREE = HERE / "tree"
OFFICIAL = json.loads((HERE / "labels.json").read_text())
"""[name, id, train id, category, has instances, colour] of each label of cityscapesScripts."""


def build(root=TREE, **options):
    return DATA.build({"name": "cityscapes", "root": str(root), **options})


def stored(part, name, kind, annotation="gtFine"):
    path = TREE / annotation / part / name.split("/")[0] / f"{name.split('/')[1]}_{annotation}_{kind}.png"
    return np.asarray(Image.open(path))


def test_the_labels_are_those_of_the_official_scripts():
    ours = [[one.name, one.id, one.category, one.objects, list(one.colour)] for one in LABELS]
    assert ours == [[*row[:2], row[3], *row[4:]] for row in OFFICIAL if row[1] >= 0]
    trained = sorted((row for row in OFFICIAL if 0 <= row[2] < 255), key=lambda row: row[2])
    facts = build().facts
    assert facts.classes == tuple(row[0] for row in trained)
    assert facts.palette == tuple(tuple(row[5]) for row in trained)
    assert facts.things == tuple(row[2] for row in trained if row[4])


@pytest.mark.parametrize("part", ["train", "val"])
def test_targets_are_the_official_train_ids(part):
    split = build().splits[part]
    seen = set()
    for sample in split:
        wanted = stored(part, sample.name, "labelTrainIds")
        assert (sample.target == wanted).all() and sample.target.dtype == np.uint8
        seen |= set(np.unique(wanted).tolist())
    assert seen == {*range(19), IGNORE}


def test_coarse_targets_are_the_official_train_ids():
    sample = build(train="coarse_extra").splits["train"][2]
    assert (sample.target == stored("train_extra", sample.name, "labelTrainIds", "gtCoarse")).all()


@pytest.mark.parametrize(
    ("classes", "number", "name_of"),
    [("30", 30, lambda row: row[0] if row[1] >= 4 else None), ("categories", 7, lambda row: row[3])],
)
def test_other_class_lists(classes, number, name_of):
    data = build(classes=classes)
    assert len(data.facts.classes) == len(data.facts.palette) == number
    sample = data.splits["val"][0]
    ids = stored("val", sample.name, "labelIds")
    for row in OFFICIAL:
        found = np.unique(sample.target[ids == row[1]]).tolist()
        name = None if row[3] == "void" and classes == "categories" else name_of(row)
        assert found in ([], [IGNORE if name is None else data.facts.classes.index(name)]), row


def test_things_of_the_categories():
    facts = build(classes="categories").facts
    assert [facts.classes[index] for index in facts.things] == ["human", "vehicle"]


def test_object_numbers_leave_out_groups_and_stuff():
    sample = build().splits["train"][0]
    official = stored("train", sample.name, "instanceIds")
    assert (official == 26).any(), "a group of cars"
    assert sample.instances.dtype == np.uint16
    assert (sample.instances == np.where(official < 1000, 0, official)).all()


def test_the_group_is_the_city():
    assert [sample.group for sample in build().splits["train"]] == ["aachen", "aachen", "bochum"]


def test_the_test_split_holds_no_label():
    assert all((sample.target == IGNORE).all() for sample in build().splits["test"])


@pytest.mark.parametrize(("share", "counts"), [(0.5, (3, 3)), (0.75, (3, 9)), (0.25, (9, 3)), (0.9, (3, 27))])
def test_a_mixture_has_its_share_of_coarse_samples(share, counts):
    split = build(train="mixed", coarse_share=share).splits["train"]
    names = Counter(split.name(index) for index in range(len(split)))
    fine = [number for name, number in names.items() if "/train/" in name]
    coarse = [number for name, number in names.items() if "/train_extra/" in name]
    assert (sum(fine), sum(coarse)) == counts and len(fine) == len(coarse) == 3
    assert max(fine) - min(fine) <= 1 and max(coarse) - min(coarse) <= 1
    assert split.headers([0, len(split) - 1])[1].height == 48


def test_a_mixture_without_train_extra_takes_the_coarse_annotations_of_the_training_images(tmp_path):
    shutil.copytree(TREE, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "leftImg8bit" / "train_extra")
    split = build(tmp_path, train="mixed").splits["train"]
    assert len(split) == 6
    assert {split[index].name for index in range(3)} == {split[index].name for index in range(3, 6)}


def test_other_numbers_than_published_are_said(capsys):
    build()
    said = capsys.readouterr().err
    assert "Cityscapes is not as published: " in said and "train has 3 of 2975 images" in said


@pytest.mark.parametrize(
    ("gone", "options", "archive"),
    [
        ("leftImg8bit", {}, "leftImg8bit_trainvaltest.zip"),
        ("gtFine/val", {}, "gtFine_trainvaltest.zip"),
        ("gtCoarse", {"train": "coarse"}, "gtCoarse.zip"),
        ("leftImg8bit/train_extra", {"train": "coarse_extra"}, "leftImg8bit_trainextra.zip"),
    ],
)
def test_a_missing_folder_is_named_with_its_archive(tmp_path, gone, options, archive):
    shutil.copytree(TREE, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / gone)
    with pytest.raises(ConfigError, match=f"has no folder {gone}.*{archive} holds; found: ") as error:
        build(tmp_path, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("pattern", ["gtFine/val/lindau/*_labelIds.png", "leftImg8bit/val/lindau/*"])
def test_an_image_or_a_mask_alone_is_named(tmp_path, pattern):
    shutil.copytree(TREE, tmp_path, dirs_exist_ok=True)
    next(tmp_path.glob(pattern)).unlink()
    with pytest.raises(
        DataError, match=r"1 (image|mask) of val is without .* lindau/lindau_000000_000019 first"
    ):
        build(tmp_path)


def test_folders_may_be_links_to_another_disk_and_files_may_not_lead_out_of_them(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    for kind in ("leftImg8bit", "gtFine"):
        shutil.copytree(TREE / kind, tmp_path / kind)
        (root / kind).symlink_to(tmp_path / kind)
    assert len(build(root).splits["train"]) == 3
    image = next((tmp_path / "leftImg8bit/val/lindau").iterdir())
    image.rename(tmp_path / "secret.png")
    image.symlink_to(tmp_path / "secret.png")
    with pytest.raises(DataError, match="outside of"):
        build(root)


def test_a_value_of_no_label_is_named_without_an_option_that_does_not_exist(tmp_path):
    shutil.copytree(TREE, tmp_path, dirs_exist_ok=True)
    path = next(tmp_path.glob("gtFine/val/lindau/*_labelIds.png"))
    Image.fromarray(np.full((48, 96), 99, np.uint8)).save(path)
    with pytest.raises(
        DataError, match=r"holds 99 \(4608 px\); allowed: 0..33 and 255 .*; correct the mask, or unpack"
    ):
        build(tmp_path).splits["val"][1]


def test_object_numbers_are_read_only_where_something_needs_them(segtrain, tmp_path):
    shutil.copytree(TREE, tmp_path / "city")
    for path in (tmp_path / "city").rglob("*_instanceIds.png"):
        path.write_bytes(b"damaged")
    small = ("device=cpu", "evaluate.workers=0")
    words = (
        f"data.root={tmp_path / 'city'}", "data=cityscapes", "model=unet", "model.widths=[4,8]", "trainer.steps=1",
        "loader.workers=0", "loader.batch_size=2", "augmentation=light", "augmentation.warp.size=32", "name=r",
    )  # fmt: skip
    assert segtrain("train", *small, *words).code == 0
    assert segtrain("evaluate", "run=outputs/r", *small).code == 0
    result = segtrain("evaluate", "run=outputs/r", *small, "metric=[confusion,cityscapes]")
    assert result.code == 3 and "_instanceIds.png" in result.err


def test_joined_and_chosen_samples_leave_object_numbers_out_too():
    split = without_instances(build(train="mixed").splits["train"])
    assert split[0].instances is None and (split[0].image == build().splits["train"][0].image).all()
    assert build(train="mixed").splits["train"][0].instances is not None
    sources = [one.splits["train"].source(0) for one in (build(), build())]
    assert sources[0] == sources[1] != without_instances(build().splits["train"]).source(0)


def test_archives_unpacked_into_folders_of_their_names_are_found(tmp_path):
    for kind in ("leftImg8bit", "gtFine"):
        shutil.copytree(TREE / kind, tmp_path / f"{kind}_trainvaltest" / kind)
    for kind in ("leftImg8bit", "gtFine"):
        with pytest.raises(ConfigError, match=rf"; move {kind}_trainvaltest/{kind} to .*/{kind}, or link it"):
            build(tmp_path)
        (tmp_path / kind).symlink_to(tmp_path / f"{kind}_trainvaltest" / kind)
    assert len(build(tmp_path).splits["train"]) == 3
