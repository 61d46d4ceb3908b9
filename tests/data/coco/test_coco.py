"""The tree beside this file was written by make_tree.py, with pycocotools."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from segtrain.data import DATA
from segtrain.data.coco_classes import STUFF, VOC
from segtrain.errors import ConfigError, DataError
from segtrain.sample import IGNORE

TREE = Path(__file__).parent / "tree"
VOC_IDS = (5, 2, 16, 9, 44, 6, 3, 17, 62, 21, 67, 18, 19, 4, 1, 64, 20, 63, 7, 72)
"""The categories of torchvision's references, after the background."""
MISSING = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}


def build(root=TREE, **options):
    return DATA.build({"name": "coco", "root": str(root), **options})


def names(split) -> list[str]:
    return [split[index].name for index in range(len(split))]


@pytest.fixture
def copy(tmp_path) -> Path:
    shutil.copytree(TREE, tmp_path / "coco")
    return tmp_path / "coco"


def change(path: Path, edit) -> None:
    """Writes the JSON file again after `edit(content)`."""
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def test_classes_are_the_categories_by_ascending_id():
    api = COCO(str(TREE / "annotations/instances_val2017.json"))
    ids = sorted(api.cats)
    assert ids == sorted({*range(1, 91)} - MISSING)
    facts = build().facts
    assert facts.classes == ("background", *(api.cats[key]["name"] for key in ids))
    assert facts.num_classes == 81 and facts.things == tuple(range(1, 81))


def test_targets_against_the_api_of_coco():
    """Small objects on top, groups without label; the objects in the file's order."""
    for part in ("train", "val"):
        api = COCO(str(TREE / f"annotations/instances_{part}2017.json"))
        class_of = {key: index for index, key in enumerate(sorted(api.cats), 1)}
        split = build(min_area=0).splits[part]
        assert names(split) == [f"{key:012d}" for key in sorted(api.imgs)]
        for index, key in enumerate(sorted(api.imgs)):
            target, instances = np.zeros((2, 96, 128), int)
            known = api.loadAnns(api.getAnnIds(key))
            for one in sorted(known, key=lambda one: (-one["iscrowd"], -one["area"])):
                target[api.annToMask(one) == 1] = 255 if one["iscrowd"] else class_of[one["category_id"]]
                single = [other["id"] for other in known if not other["iscrowd"]]
                instances[api.annToMask(one) == 1] = 0 if one["iscrowd"] else 1 + single.index(one["id"])
            sample = split[index]
            assert np.array_equal(sample.target, target) and np.array_equal(sample.instances, instances)
            assert np.array_equal(split.target(index), target)
            pixels = Image.open(TREE / f"{part}2017" / api.imgs[key]["file_name"])
            assert np.array_equal(sample.image, np.asarray(pixels))


@pytest.mark.parametrize("labels", ["instances", "stuff", "panoptic"])
def test_splits_tell_names_and_know_their_images_again(copy, labels):
    """So that a run can count the images that it was trained on, wherever they lie."""
    here, there = (build(root, labels=labels).splits["val"] for root in (TREE, copy))
    samples = [here[index] for index in range(len(here))]
    assert here.names_and_groups() == [(sample.name, sample.group) for sample in samples]
    assert here.image_hashes() == there.image_hashes()
    assert len(set(here.image_hashes())) == len(here) > 1


def test_voc_classes_as_in_the_references_of_torchvision():
    """The steps of references/segmentation/coco_utils.py, with masks of pycocotools' COCO."""
    api = COCO(str(TREE / "annotations/instances_val2017.json"))
    data = build(classes="voc", overlap="ignore", crowd="class")
    assert data.facts.classes == ("background", *VOC) and len(VOC) == 20
    assert [api.cats[key]["name"] for key in VOC_IDS] == list(VOC.values())
    assert data.facts.palette[15] == (192, 128, 128)  # person, as Pascal VOC draws it
    for index, key in enumerate(sorted(api.imgs)):
        known = [one for one in api.loadAnns(api.getAnnIds(key)) if one["category_id"] in VOC_IDS]
        masks = np.stack([api.annToMask(one) for one in known])
        classes = np.array([1 + VOC_IDS.index(one["category_id"]) for one in known])
        wanted = (masks * classes[:, None, None]).max(0)
        wanted[masks.sum(0) > 1] = 255
        assert np.array_equal(data.splits["val"].target(index), wanted)
        assert (wanted == 255).any() and (wanted == 15).any()


def test_training_images_with_little_in_them_are_left_out():
    assert names(build(classes="voc").splits["train"]) == [f"{key:012d}" for key in (9, 25, 30)]
    assert names(build().splits["train"]) == [f"{key:012d}" for key in (9, 25, 30, 34)]
    assert names(build(min_area=100).splits["train"]) == [f"{key:012d}" for key in (9, 25, 30, 34, 42)]
    assert len(build(min_area=0).splits["train"]) == 6
    assert len(build(classes=["giraffe"]).splits["val"]) == 2  # all of val, whatever is in it
    with pytest.raises(
        DataError, match=r"no image with more than 1000 px of the classes kite; set data\.min"
    ):
        build(classes=["kite"])


def test_a_list_of_classes():
    data = build(classes=["dog", "person"])
    assert (
        data.facts.classes
        == ("background", "dog", "person")
        == build(classes=["background", "dog", "person"]).facts.classes
    )
    target = data.splits["val"].target(1)
    assert set(np.unique(target)) == {0, 1, 255}
    with pytest.raises(ConfigError, match=r"data\.classes has 'persn', .*did you mean 'person'"):
        build(classes=["persn"])
    with pytest.raises(ConfigError, match="'dog' twice"):
        build(classes=["dog", "dog"])
    with pytest.raises(ConfigError, match="names no class"):
        build(classes=["background"])
    with pytest.raises(ConfigError, match=r"data\.classes is 'voc'; allowed with data\.labels=stuff: all"):
        build(labels="stuff", classes="voc")


def test_stuff_is_the_category_less_one():
    data = build(labels="stuff")
    assert data.facts.num_classes == 171 and sorted(STUFF) == sorted({*range(1, 183)} - MISSING - {91})
    assert data.facts.things == tuple(range(80))
    assert [data.facts.classes[index] for index in (0, 79, 80, 170)] == [
        "person",
        "toothbrush",
        "banner",
        "wood",
    ]
    for part in ("train", "val"):
        split = data.splits[part]
        assert len(split) == len(list((TREE / f"{part}2017").iterdir()))
        for index in range(len(split)):
            stored = np.asarray(Image.open(TREE / f"stuffthingmaps/{part}2017/{split[index].name}.png"))
            target = split.target(index)
            assert np.array_equal(target == IGNORE, stored == 255)
            for value in set(np.unique(stored).tolist()) - {255}:
                index_of_class = set(np.unique(target[stored == value]).tolist())
                assert [data.facts.classes[one] for one in index_of_class] == [STUFF[value + 1]]


def test_the_things_of_stuff_are_those_of_the_instances():
    """Where nothing overlaps and nothing is a group."""
    instances, stuff = build(min_area=0), build(labels="stuff")
    assert instances.facts.classes[1:] == stuff.facts.classes[:80]
    for index in (0, 3, 4):
        of_objects, of_all = (
            instances.splits["train"].target(index)[:-3],
            stuff.splits["train"].target(index)[:-3],
        )
        assert np.array_equal(np.where(of_all < 80, of_all + 1, 0), of_objects)


def test_panoptic_segments():
    data = build(labels="panoptic")
    assert data.facts.num_classes == 133 and data.facts.things == tuple(range(80))
    assert data.facts.palette[0] == (0, 255, 0)  # as the file says
    for part in ("train", "val"):
        whole = json.loads((TREE / f"annotations/panoptic_{part}2017.json").read_text())
        ids = sorted(one["id"] for one in whole["categories"])
        name_of = {one["id"]: one["name"] for one in whole["categories"]}
        is_thing = {one["id"]: one["isthing"] for one in whole["categories"]}
        assert data.facts.classes == tuple(name_of[key] for key in ids)
        listed = sorted(whole["annotations"], key=lambda one: one["image_id"])
        for index, annotation in enumerate(listed):
            sample = data.splits[part][index]
            png = Image.open(TREE / f"annotations/panoptic_{part}2017" / annotation["file_name"])
            red, green, blue = np.asarray(png).astype(int).transpose(2, 0, 1)
            target, instances, number = np.full(red.shape, 255), np.zeros(red.shape), 0
            for segment in annotation["segments_info"]:
                inside = red + 256 * green + 256**2 * blue == segment["id"]
                assert inside.any()
                if not segment["iscrowd"]:
                    target[inside] = ids.index(segment["category_id"])
                    number += is_thing[segment["category_id"]]
                    instances[inside] = number * is_thing[segment["category_id"]]
            assert np.array_equal(sample.target, target) and np.array_equal(sample.instances, instances)
            assert sample.name == annotation["file_name"].removesuffix(".png") and sample.image.shape == (
                96,
                128,
                3,
            )
            assert np.array_equal(data.splits[part].target(index), target)
    assert (build(labels="panoptic", crowd="class").splits["val"].target(1) == 0).any()
    assert not (data.splits["val"].target(1) == 0).any()


@pytest.mark.parametrize("labels", ["instances", "panoptic"])
def test_a_split_that_is_sent_to_workers_has_no_annotations_in_it(labels):
    split = build(labels=labels, min_area=0).splits["train"]
    assert len(pickle.dumps(split.coco if labels == "instances" else split.panoptic)) < 500
    sent = pickle.loads(pickle.dumps(split))
    assert np.array_equal(sent[1].target, split[1].target) and sent.headers([0, 1]) == split.headers([0, 1])


def test_pngs_of_panoptic_annotations_may_lie_below_root(copy):
    for part in ("train", "val"):
        (copy / f"annotations/panoptic_{part}2017").rename(copy / f"panoptic_{part}2017")
    assert build(copy, labels="panoptic").splits["val"][0].target.max() <= 255


def test_root_may_be_the_folder_above(copy):
    assert copy.name == "coco"
    of_parent = build(copy.parent)
    assert of_parent.splits["val"].name(0) == str(copy / "val2017/000000000139.jpg")
    assert np.array_equal(of_parent.splits["val"][0].target, build(copy).splits["val"][0].target)


def test_folders_may_be_links_to_another_disk(copy, tmp_path):
    for name in ("train2017", "val2017", "annotations", "stuffthingmaps"):
        (copy / name).rename(tmp_path / name)
        (copy / name).symlink_to(tmp_path / name)
    for labels in ("instances", "stuff", "panoptic"):
        assert build(copy, labels=labels).splits["val"][0].image.shape == (96, 128, 3)


@pytest.mark.parametrize("labels", ["instances", "stuff", "panoptic"])
def test_other_numbers_of_images_than_published_are_said(labels, capsys):
    build(labels=labels)
    said = "COCO is not as published: train has 6 of 118287 images, val has 2 of 5000 images"
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("labels", "path"),
    [
        ("instances", "train2017"),
        ("instances", "annotations/instances_val2017.json"),
        ("stuff", "stuffthingmaps/val2017"),
        ("panoptic", "annotations/panoptic_train2017.json"),
        ("panoptic", "annotations/panoptic_val2017"),
    ],
)
def test_what_is_missing_is_named_with_the_tree(copy, labels, path):
    gone = copy / path
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    with pytest.raises(
        ConfigError, match=rf"has no {path}; expected for data\.labels={labels}: train2017.*found in"
    ):
        build(copy, labels=labels)


def test_other_roots():
    with pytest.raises(
        ConfigError, match=r"data\.root is '/no/such', which is not a folder; it holds train2017"
    ):
        build("/no/such")
    with pytest.raises(ConfigError, match=r"data\.root is missing"):
        DATA.build({"name": "coco", "root": None})


@pytest.mark.parametrize("labels", ["instances", "panoptic"])
def test_training_and_validation_of_different_categories(copy, labels):
    change(
        copy / f"annotations/{labels}_val2017.json", lambda whole: whole["categories"][0].update(name="man")
    )
    with pytest.raises(DataError, match=r"differ in 2 categories, 'man' \(id 1\) first"):
        build(copy, labels=labels)


def test_a_file_without_a_class_of_voc(copy):
    for part in ("train", "val"):
        path = copy / f"annotations/instances_{part}2017.json"
        change(path, lambda whole: whole["categories"][4].update(name="aeroplane"))
    with pytest.raises(DataError, match=r"has no category 'airplane', which data\.classes=voc needs"):
        build(copy, classes="voc")


def test_stuff_masks_that_cannot_be_used(copy):
    masks = copy / "stuffthingmaps/val2017"
    Image.open(masks / "000000000139.png").save(masks / "000000000139_labelTrainIds.png")
    assert len(build(copy, labels="stuff").splits["val"]) == 2
    Image.fromarray(np.full((96, 128), 11, np.uint8)).save(masks / "000000000139.png")  # street sign
    with pytest.raises(
        DataError, match=r"139\.png holds 11 \(12288 px\); allowed: 0..10, 12.* and 255 \(no label\); correct"
    ):
        build(copy, labels="stuff").splits["val"][0]
    (masks / "000000000139.png").unlink()
    with pytest.raises(DataError, match="1 image of val has a photo or a mask only: 000000000139"):
        build(copy, labels="stuff")


def first(whole):
    return whole["annotations"][0]


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda whole: first(whole).pop("segments_info"), "no list segments_info"),
        (lambda whole: first(whole).update(file_name="../x.png"), "file_name '../x.png'; allowed"),
        (lambda whole: first(whole).update(image_id=5), "image_id 5, which the file does not list"),
        (lambda whole: first(whole)["segments_info"][0].update(category_id=12), "category_id 12, which"),
        (lambda whole: first(whole)["segments_info"][0].update(id=0), "id 0; allowed: 1 to"),
        (lambda whole: first(whole)["segments_info"][0].update(id=1 << 24), "id 16777216; allowed: 1 to"),
        (lambda whole: first(whole)["segments_info"][0].update(iscrowd=7), "iscrowd 7; allowed: 0, 1"),
        (lambda whole: first(whole).update(segments_info=[5]), "segment 0 has no 'id'; it is 5"),
        (
            lambda whole: first(whole)["segments_info"].append(first(whole)["segments_info"][0]),
            "two segments",
        ),
        (lambda whole: whole["annotations"].append(first(whole)), "second one of its image"),
        (lambda whole: whole["annotations"].pop(), "no annotation of 1 images, 000000000285.jpg first"),
        (lambda whole: whole.pop("annotations"), "no list 'annotations'"),
    ],
)
def test_damage_of_panoptic_files(copy, edit, words):
    change(copy / "annotations/panoptic_val2017.json", edit)
    with pytest.raises(DataError, match=words) as caught:
        build(copy, labels="panoptic")
    assert "panoptic_val2017.json" in str(caught.value) and "\n" not in str(caught.value)


def test_pngs_that_do_not_fit_the_panoptic_file(copy):
    path = copy / "annotations/panoptic_val2017/000000000139.png"
    stored = np.array(Image.open(path))
    stored[0, :5] = (1, 0, 2)
    Image.fromarray(stored).save(path)
    split = build(copy, labels="panoptic").splits["val"]
    with pytest.raises(
        DataError, match=r"139\.png holds the segments 131073 \(5 px\), which .*json does not list"
    ):
        split[0]
    Image.fromarray(stored[..., 0]).save(path)
    with pytest.raises(DataError, match="is not an RGB image of 8 bits"):
        split.target(0)
    Image.fromarray(stored[50:]).save(path)
    with pytest.raises(DataError, match="they must be equal"):
        split[0]
    assert "they must be equal" in str(build(copy, labels="panoptic").splits["val"].headers([0, 1])[0])
