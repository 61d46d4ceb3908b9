"""Class lists of labelling tools, as those write them."""

import json

import numpy as np
import pytest
from PIL import Image

from segtrain.data import DATA
from segtrain.data.files.classes import Named, read_classes
from segtrain.errors import ConfigError, DataError

ROAD, CAR = (128, 64, 128), (0, 0, 142)
KNOWN = {
    "roboflow/_classes.csv": ("Pixel Value, Class\n0, background\n1, car\n", ("background", "car"), (), ()),
    "values/_classes.csv": ("Pixel Value, Class\n3, car\n1, road\n255, void\n", ("road", "car"), (), (1, 3)),
    "camvid/class_dict.csv": (
        "name,r,g,b\nroad,128,64,128\ntraffic light,0,0,142\n",
        ("road", "traffic light"),
        (ROAD, CAR),
        (),
    ),
    "semicolons.csv": ("id;label\n0;road\n1;car\n", ("road", "car"), (), ()),
    "cvat/labelmap.txt": (
        "# label:color_rgb:parts:actions\nroad:128,64,128::\nfast car:0,0,142:wheel,door:\n",
        ("road", "fast car"),
        (ROAD, CAR),
        (),
    ),
    "yolo/data.yaml": ("nc: 2\nnames: [road, car]\ntrain: ../train\n", ("road", "car"), (), ()),
    "yolo/mapping.yaml": ("names:\n  0: road\n  1: car\n", ("road", "car"), (), ()),
    "label_studio/notes.json": (
        json.dumps({"categories": [{"id": 0, "name": "road"}, {"id": 1, "name": "car"}], "info": {}}),
        ("road", "car"),
        (),
        (),
    ),
    "coco.json": (
        json.dumps({"categories": [{"id": 7, "name": "car"}, {"id": 3, "name": "road"}]}),
        ("road", "car"),
        (),
        (3, 7),
    ),
    "supervisely/meta.json": (
        json.dumps(
            {
                "classes": [
                    {"title": "road", "color": "#804080", "id": 9},
                    {"title": "car", "color": "#00008E", "id": 4},
                ]
            }
        ),
        ("road", "car"),
        (ROAD, CAR),
        (),
    ),
    "id2label.json": ('{"0": "road", "1": "car"}', ("road", "car"), (), ()),
    "labelme/labels.txt": ("__ignore__\n_background_\nroad\n", ("_background_", "road"), (), ()),
    "numbered.txt": ("0: road\n1: fast car\n", ("road", "fast car"), (), ()),
    "numbered with colours.txt": ("0 road 128 64 128\n1 car 0 0 142\n", ("road", "car"), (ROAD, CAR), ()),
    "dataset.json of nnU-Net": (
        '{"labels": {"background": 0, "car": 2, "road": 1, "ignore": 3}, "file_ending": ".png"}',
        ("background", "road", "car"),
        (),
        (),
    ),
    "own.txt": ("road 128 64 128\n2 wheels 0 0 142\n", ("road", "2 wheels"), (ROAD, CAR), ()),
    "commas in own.txt": ("road, paved\ncar\n", ("road, paved", "car"), (), ()),
}


@pytest.mark.parametrize("name", KNOWN)
def test_a_list_is_read_as_its_tool_means_it(tmp_path, name):
    text, names, colours, values = KNOWN[name]
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    assert read_classes(str(path), None) == Named(names, colours, (), values)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.xml", "<annotation/>", r"a\.xml is XML; allowed: .*Roboflow.*CVAT.*YOLO"),
        ("a.pbtxt", "item {\n id: 1\n name: 'a'\n}\n", "label map of TensorFlow"),
        ("a.txt", "item {\n id: 1\n name: 'a'\n}\n", "label map of TensorFlow"),
        ("a.yaml", "train: x\n", "YAML without names"),
        ("a.json", '{"images": []}', "JSON without a list of classes"),
        ("a.json", "{", "is not JSON"),
        ("a.csv", "road,car\n", "CSV without a head"),
        ("a.csv", "name,id\nroad,0\ncar,x\n", "mask value 'x'; allowed: 0 to 65535"),
        ("a.csv", "name,id\nroad,0\ncar,0\n", "mask value 0 twice"),
        ("a.csv", "name,id\nroad\n", "lacks columns"),
        ("a.csv", "name,r,g,b\nroad,1,2,x\n", "three numbers from 0 to 255"),
        ("labelmap.txt", "road:1,2,3::\ncar:::\n", "gives colours to 1 of 2 classes, 'car' has none"),
    ],
)
def test_other_files_are_refused_by_their_format(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises((ConfigError, DataError), match=message):
        read_classes(str(tmp_path / name), None)


def test_values_of_a_list_become_the_label_map(tmp_path, write_pair):
    """A list that numbers its classes otherwise than from 0 on says which mask value is which class."""
    for number in range(4):
        mask = np.array([[1, 3], [255, 1]], np.uint8)
        write_pair(tmp_path, number, np.zeros((2, 2, 3), np.uint8), mask)
    (tmp_path / "_classes.csv").write_text("Pixel Value, Class\n1, road\n3, car\n")
    data = DATA.build({"name": "folder", "root": str(tmp_path), "classes": "_classes.csv"})
    assert data.facts.classes == ("road", "car")
    assert data.splits["train"][0].target.tolist() == [[0, 1], [255, 0]]


def test_masks_of_a_cvat_export(tmp_path):
    for kind, name in (("images", "a"), ("images", "b"), ("masks", "a"), ("masks", "b")):
        (tmp_path / kind).mkdir(exist_ok=True)
        picture = np.array([[ROAD, (0, 0, 0)], [ROAD, ROAD]], np.uint8)
        Image.fromarray(picture).save(tmp_path / kind / f"{name}.png")
    lines = "# label:color_rgb:parts:actions\nbackground:0,0,0::\nroad:128,64,128::\n"
    (tmp_path / "labelmap.txt").write_text(lines)
    data = DATA.build({"name": "folder", "root": str(tmp_path), "classes": "labelmap.txt"})
    assert data.facts.palette == ((0, 0, 0), ROAD)
    assert data.splits["train"][0].target.tolist() == [[1, 0], [1, 1]]
