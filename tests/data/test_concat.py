"""Several data sets as one."""

import pickle

import numpy as np
import pytest
import trees

from segtrain.data import DATA
from segtrain.errors import ConfigError, DataError
from segtrain.sample import voc_palette


def build(sets, **options):
    return DATA.build({"name": "concat", "sets": sets, **options})


@pytest.fixture
def sets(tmp_path, write_pair):
    """VOC, and a folder with the classes sky, car and dog, each a stripe, and a stripe without label."""
    trees.write_voc(tmp_path / "voc")
    mask = np.repeat(np.array([[0, 1, 2, 255]], np.uint8), 3, 0)
    for part in ("train", "val"):
        write_pair(tmp_path / "mine", f"{part}/a", np.full((3, 4, 3), 9, np.uint8), mask)
    mine = {"name": "folder", "root": str(tmp_path / "mine"), "classes": ["sky", "car", "dog"]}
    return {"voc": {"root": str(tmp_path / "voc")}, "mine": mine}


def test_equal_names_are_one_class(sets):
    data = build(sets)
    voc = DATA.build({"name": "voc", **sets["voc"]})
    assert data.facts.classes == (*voc.facts.classes, "sky")
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 4, "val": 3}
    for index in range(3):
        one, other = data.splits["train"][index], voc.splits["train"][index]
        assert np.array_equal(one.image, other.image) and np.array_equal(one.target, other.target)
        assert np.array_equal(one.instances, other.instances)
    car, dog = voc.facts.classes.index("car"), voc.facts.classes.index("dog")
    assert data.splits["train"][3].target[0].tolist() == [21, car, dog, 255]
    assert data.splits["train"].target(3)[0].tolist() == [21, car, dog, 255]
    assert data.splits["val"].size(2) == (3, 4)
    # dog is a thing of VOC only, as folders have none.
    assert data.facts.things == tuple(index for index in voc.facts.things if index not in (car, dog))
    other = build({"mine": sets["mine"], "voc": sets["voc"]}).facts
    assert {other.classes[index] for index in other.things} == {
        voc.facts.classes[i] for i in data.facts.things
    }
    # The folder's first colour is that of VOC's background.
    assert data.facts.palette == voc_palette(22)
    sets["mine"]["classes"] = ["sky 70 130 180", "car 0 0 142", "dog 1 2 3"]
    assert build(sets).facts.palette == (*voc.facts.palette, (70, 130, 180))


def test_a_common_list_and_maps_onto_it(sets):
    data = build(
        sets,
        classes=["vehicle", "animal"],
        class_map={
            "voc": {"car": "vehicle", "bus": "vehicle", "aeroplane": "vehicle", "boat": "animal"},
            "mine": {"car": "vehicle", "dog": "animal", "sky": None},
        },
        unmapped="ignore",
    )
    assert data.facts.classes == ("vehicle", "animal")
    assert data.splits["train"][3].target[0].tolist() == [255, 0, 1, 255]
    # The objects of the first image of VOC are aeroplanes, those of the fourth boats; the others' classes are
    # not in the list, nor is the background.
    found = [np.unique(data.splits["train"][index].target).tolist() for index in range(3)]
    assert found == [[0, 255], [255], [255]]
    assert np.unique(data.splits["val"][0].target).tolist() == [1, 255]


def test_what_the_sets_left_open_is_kept(sets, tmp_path):
    sets["mine"].pop("classes")
    data = build(sets)
    assert data.settled["settled"] == {"mine": {"classes": ["class_0", "class_1", "class_2"]}}
    assert data.settled["classes"] == list(data.facts.classes)
    for path in (tmp_path / "mine/masks").rglob("*.png"):
        trees.write_palette(path, np.zeros((3, 4)))
    again = build(sets, **data.settled)
    assert again.facts == data.facts and again.settled == data.settled
    assert build(sets).facts != data.facts


def test_broken_files_are_named(sets, tmp_path):
    next((tmp_path / "mine/images/val").iterdir()).write_bytes(b"no image")
    split = build(sets).splits["val"]
    headers = split.headers([2, 0])
    assert isinstance(headers[0], DataError) and headers[1].height == trees.SIZE[0]
    with pytest.raises(DataError, match=r"val/a\.png is not an image"):
        split[2]
    assert split.name(2).endswith("val/a.png")
    assert np.array_equal(pickle.loads(pickle.dumps(split))[0].target, split[0].target)


def test_options_that_cannot_be_right(sets):
    def refused(message, change=None, **options):
        with pytest.raises(ConfigError, match=message):
            build({**sets, **(change or {})}, **options)

    with pytest.raises(ConfigError, match=r"data\.sets is empty"):
        build({})
    with pytest.raises(ConfigError, match=r"data\.sets is 3; allowed: a mapping"):
        build(3)
    refused(r"data\.sets has 'a\.b'; allowed: letters, digits", {"a.b": {"name": "shapes"}})
    refused(r"data\.sets\.vox: data=vox does not exist \(did you mean 'voc'\?\)", {"vox": {}})
    refused(r"data\.sets\.both: data=concat does not exist", {"both": {"name": "concat"}})
    refused(r"data\.sets\.voc\.roott is not an option of data 'voc' \(did you mean", {"voc": {"roott": "x"}})
    refused(r"data\.sets\.voc\.root is missing", {"voc": {}})
    refused(r"data\.sets\.voc: data\.root is '/no'", {"voc": {"root": "/no"}})
    refused(r"data\.class_map has 'min', .*\(did you mean 'mine'\?\)", class_map={"min": {}})
    refused(r"data\.class_map\.mine has 'cat', which is no class", class_map={"mine": {"cat": "dog"}})
    refused(r"data\.sets\.voc has the class 'background', and data\.classes has no", classes=["car", "dog"])
    refused(r"data\.classes has 'car' twice", classes=["car", "car"], unmapped="ignore")


def test_one_set_of_several_with_the_same_classes(sets, capsys):
    both = build(sets)
    one = build({**sets, "voc": None}, classes=list(both.facts.classes), class_map={"voc": {"car": None}})
    assert one.facts.classes == both.facts.classes and len(one.splits["val"]) == 1
    assert np.array_equal(one.splits["val"][0].target, both.splits["val"][2].target)
    assert "data.classes has 'background', which no set holds, and 18 more such" in capsys.readouterr().err
    build(sets, classes=["car", "dogs"], unmapped="ignore")
    assert "data.classes has 'dogs', which no set holds (did you mean 'dog'?)" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"data\.sets is empty"):
        build({"voc": None})


def test_splits_that_some_sets_have(sets, tmp_path):
    trees.write_voc(tmp_path / "old", 2007)
    data = build({**sets, "old": {"name": "voc", "root": str(tmp_path / "old"), "year": 2007}})
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 6, "val": 4, "test": 1}
