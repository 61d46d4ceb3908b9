"""Targets drawn from labelme's, CVAT's and COCO's files, held against shapes painted by other programs."""

import base64
import io
import itertools
import json
import pickle

import numpy as np
import pytest
from PIL import Image
from skimage.draw import polygon2mask

from segtrain.data import DATA
from segtrain.data.files.outlines import Shape, area
from segtrain.errors import ConfigError, DataError

SIZE = (30, 40)


def painted(shape, size=SIZE):
    found = np.zeros(size, bool)
    window, inside = area(shape, size)
    found[window] = inside
    return found


def test_polygons_are_those_of_another_program():
    """skimage's pixels have their centres at whole numbers, those of drawing tools at halves."""
    rng = np.random.default_rng(0)
    for corners in rng.integers(3, 9, 60):
        points = rng.uniform(-10, 50, (corners, 2))  # also beyond the image, and crossing itself
        second = polygon2mask(SIZE, points[:, ::-1] - 0.5)
        assert np.array_equal(painted(Shape("a", "polygon", points)), second)


def test_neighbouring_polygons_leave_no_gap_and_share_no_pixel():
    cut = np.array([(13.0, 0), (20.5, 9.5), (17.0, 30)])
    left = Shape("a", "polygon", np.concatenate([[(0, 0)], cut, [(0, 30)]]))
    right = Shape("b", "polygon", np.concatenate([[(40, 0)], cut, [(40, 30)]]))
    assert np.array_equal(painted(left) ^ painted(right), np.ones(SIZE, bool))
    assert not (painted(left) & painted(right)).any()


def test_circles_and_ellipses_are_those_of_their_equations():
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    circle = Shape("a", "circle", np.array([(35.3, 12.0), (38.3, 16.0)]))
    assert np.array_equal(painted(circle), (columns - 35.3) ** 2 + (rows - 12) ** 2 <= 25)
    ellipse = Shape("a", "ellipse", np.array([(10.0, 20.0), (6.0, 3.0)]))
    assert np.array_equal(painted(ellipse), ((columns - 10) / 6) ** 2 + ((rows - 20) / 3) ** 2 <= 1)


MASK = np.array([[0, 1, 1], [1, 1, 0]], bool)


def encoded(mask):
    file = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


SHAPES = [
    {"label": "road", "shape_type": "rectangle", "points": [[30, 20], [10, 10]]},
    {"label": "car", "shape_type": "polygon", "points": [[12, 12], [18, 12], [18, 18], [12, 18]]},
    {"label": "tree", "shape_type": "circle", "points": [[35, 5], [35, 8]]},
    {"label": "sign", "shape_type": "mask", "points": [[2, 3], [4, 4]], "mask": encoded(MASK)},
    {"label": "lane", "shape_type": "linestrip", "points": [[0, 0], [5, 5]]},
]
NAMES = ["background", "car", "road", "sign", "tree"]


def expected():
    """The target of SHAPES, by slices."""
    target = np.zeros(SIZE, np.uint8)
    target[10:20, 10:30] = 2
    target[12:18, 12:18] = 1
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    target[(columns - 35) ** 2 + (rows - 5) ** 2 <= 9] = 4
    target[3:5, 2:5][MASK] = 3
    return target


def images(root, number=5):
    root.mkdir(parents=True, exist_ok=True)
    for place in range(number):
        Image.fromarray(np.full((*SIZE, 3), place, np.uint8)).save(root / f"p{place}.jpg")
    return root


def labelme(root, shapes=SHAPES, size=SIZE, number=5):
    for place in range(number):
        content = {"imageHeight": size[0], "imageWidth": size[1], "shapes": shapes, "imageData": None}
        (root / f"p{place}.json").write_text(json.dumps({"version": "5.2.1", **content}), encoding="utf-8")
    return root


def cvat(root, shapes=None, extra=""):
    """As CVAT writes it. The car lies below the road in the file, and above by its z_order."""
    shapes = shapes or (
        '<polygon label="car" points="12.0,12.0;18.0,12.0;18.0,18.0;12.0,18.0" z_order="1"/>'
        '<box label="road" xtl="10.0" ytl="10.0" xbr="30.0" ybr="20.0" z_order="0"/>'
        '<ellipse label="tree" cx="35.0" cy="5.0" rx="3.0" ry="3.0" z_order="0"/>'
        '<mask label="sign" rle="1, 4, 1" left="2" top="3" width="3" height="2" z_order="0"/>'
        '<polyline label="lane" points="0.0,0.0;5.0,5.0" z_order="0"/>'
    )
    each = "".join(
        f'<image id="{place}" name="p{place}.jpg" width="{SIZE[1]}" height="{SIZE[0]}">{shapes}</image>'
        for place in range(5)
    )
    text = f"<annotations><version>1.1</version>{extra}{each}</annotations>"
    (root / "a.xml").write_text(f'<?xml version="1.0" encoding="utf-8"?>{text}', encoding="utf-8")
    return root


def coco(root):
    polygons = {"road": [[10, 10, 30, 10, 30, 20, 10, 20]], "car": [[12, 12, 18, 12, 18, 18, 12, 18]]}
    names = dict(enumerate(("car", "road"), 7))
    objects = [
        {
            "image_id": place, "category_id": key, "segmentation": polygons[name], "iscrowd": 0,
            "area": 200 if name == "road" else 36, "bbox": [10, 10, 20, 10],
        }
        for place, (key, name) in itertools.product(range(5), names.items())
    ]  # fmt: skip
    content = {
        "images": [
            {"id": place, "file_name": f"p{place}.jpg", "height": SIZE[0], "width": SIZE[1]}
            for place in range(5)
        ],
        "annotations": [{"id": number, **one} for number, one in enumerate(objects, 1)],
        "categories": [{"id": key, "name": name} for key, name in names.items()],
    }
    (root / "a.json").write_text(json.dumps(content))
    return root


def build(root, **options):
    return DATA.build({"name": "folder", "root": str(root), **options})


def samples(data):
    return [sample for split in data.splits.values() for sample in split]


@pytest.mark.parametrize(("write", "annotations"), [(labelme, "."), (cvat, "a.xml")])
def test_drawn_shapes_become_targets(tmp_path, write, annotations, capsys):
    write(images(tmp_path))
    data = build(tmp_path, annotations=annotations)
    assert list(data.facts.classes) == NAMES == data.settled["classes"]
    assert len(samples(data)) == 5
    for sample in samples(data):
        assert np.array_equal(sample.target, expected())
    said = capsys.readouterr().err
    assert "found 4 labels in 5 annotations: car (5), road (5), sign (5), tree (5)" in said
    assert "5 shapes without area (boxes, points, lines) left out" in said
    assert "overlap in 5 of 5 annotations" in said
    split = pickle.loads(pickle.dumps(data.splits["train"]))  # as it is sent to workers
    assert np.array_equal(split.target(0), expected())
    assert split.headers([0]) == [(*SIZE, "uint8")]


def test_objects_of_coco_become_targets(tmp_path):
    pytest.importorskip("pycocotools")
    coco(images(tmp_path))
    data = build(tmp_path, annotations="a.json")
    assert list(data.facts.classes) == ["background", "car", "road"]
    target = np.zeros(SIZE, np.uint8)
    target[10:20, 10:30] = 2
    target[12:18, 12:18] = 1  # the smaller one is on top, whatever the order
    for sample in samples(data):
        assert np.array_equal(sample.target, target)


def test_names_of_a_file_may_begin_with_a_folder(tmp_path):
    cvat(images(tmp_path / "photos"))
    path = tmp_path / "photos" / "a.xml"
    path.write_text(path.read_text().replace('name="', 'name="images/'))
    data = build(tmp_path, images="photos", annotations="photos/a.xml")
    assert len(samples(data)) == 5 and np.array_equal(samples(data)[0].target, expected())


def test_labels_go_to_classes_by_name_and_by_map(tmp_path, capsys):
    labelme(images(tmp_path))
    known = {"classes": ["vehicle", "road"], "annotations": "."}
    with pytest.raises(
        DataError, match=r"no class: 'car' \(5 shapes\), 'tree'.*classes are vehicle, road.*label_map"
    ):
        build(tmp_path, **known)
    data = build(tmp_path, **known, label_map={"car": 0, "tree": 255, "sign": 255})
    shown = expected()
    target = np.array([255, 0, 1, 255, 255], np.uint8)[shown]  # no background among the classes: no label
    assert np.array_equal(samples(data)[0].target, target)
    assert "outside of all shapes have no label" in capsys.readouterr().err
    data = build(
        tmp_path, annotations=".", classes=["road", "background"], label_map={"car": 0, "tree": 1, "sign": 0}
    )
    assert np.array_equal(samples(data)[0].target, np.array([1, 0, 0, 0, 1], np.uint8)[shown])
    with pytest.raises(ConfigError, match=r"data\.label_map leads to 9 for 'car'; allowed: 0\.\.1 and 255"):
        build(tmp_path, **known, label_map={"car": 9})


def test_labels_that_say_ignore_are_pixels_without_label(tmp_path):
    labelme(images(tmp_path), [{**SHAPES[0], "label": "__ignore__"}, SHAPES[1]])
    data = build(tmp_path, annotations=".")
    assert list(data.facts.classes) == ["background", "car"]
    target = np.where(expected() == 2, 255, np.where(expected() == 1, 1, 0))
    assert np.array_equal(samples(data)[0].target, target)


def test_the_images_may_lie_in_a_folder_of_their_own(tmp_path):
    images(tmp_path / "images" / "day")
    (tmp_path / "json" / "day").mkdir(parents=True)
    labelme(tmp_path / "json" / "day")
    assert len(samples(build(tmp_path, annotations="json"))) == 5


def test_an_annotation_of_another_size_is_named(tmp_path):
    labelme(images(tmp_path), size=(SIZE[0], SIZE[1] + 1))
    data = build(tmp_path, annotations=".")
    (header,) = data.splits["val"].headers([0])
    assert "and its mask" in str(header) and ".json is 30x41" in str(header)
    with pytest.raises(DataError, match=r"\.json is 30x41"):
        data.splits["val"][0]


TWO_POINTS = [
    {"label": "car", "points": [[1, 1], [9, 9]]},
    {"label": "car", "points": []},
    {"label": "car", "shape_type": "rectangle", "points": [[1, 1]]},
]


def test_shapes_of_too_few_points_are_left_out_and_counted(tmp_path, capsys):
    labelme(images(tmp_path / "a"), [*SHAPES, *TWO_POINTS])
    cvat(images(tmp_path / "b"))
    text = (
        (tmp_path / "b/a.xml")
        .read_text()
        .replace("</image>", '<polygon label="car" points="1,1;9,9"/></image>')
    )
    (tmp_path / "b/a.xml").write_text(text)
    for folder, annotations, number in (("a", ".", 20), ("b", "a.xml", 10)):
        data = build(tmp_path / folder, annotations=annotations)
        assert all(np.array_equal(sample.target, expected()) for sample in samples(data))
        assert f"{number} shapes without area" in capsys.readouterr().err


@pytest.mark.parametrize("write", [coco, cvat])
def test_names_of_images_may_have_the_separators_of_windows(tmp_path, write):
    file = write(images(tmp_path)) / ("a.json" if write is coco else "a.xml")
    typed = "photos\\\\day\\\\p" if write is coco else "photos\\day\\p"
    file.write_text(file.read_text().replace('"p', f'"{typed}'))
    (tmp_path / "images").mkdir()
    images(tmp_path / "images/day")
    data = build(tmp_path, annotations=file.name)
    assert sorted(sample.name for sample in samples(data)) == [f"day/p{number}" for number in range(5)]


def test_annotations_without_image_are_named_by_their_image(tmp_path):
    coco(images(tmp_path, 4))
    with pytest.raises(
        DataError, match=r"1 annotation has no image of the same name: p4\.jpg in .*a\.json; "
    ):
        build(tmp_path, annotations="a.json")
    labelme(images(tmp_path / "b", 6))
    with pytest.raises(DataError, match=r"1 image has no annotation of the same name: .*p5\.jpg; "):
        build(tmp_path / "b", annotations=".")


@pytest.mark.parametrize(("write", "annotations"), [(labelme, "."), (cvat, "a.xml")])
def test_samples_tell_what_they_are_made_of(tmp_path, write, annotations):
    write(images(tmp_path))
    options = {"annotations": annotations, "classes": NAMES}
    first, second = (build(tmp_path, **options, label_map=given) for given in ({"car": 1}, {"car": 2}))
    again = build(tmp_path, **options, label_map={"car": 1})
    one, other, same = (data.splits["train"].source(0) for data in (first, second, again))
    assert one == same != other and one.files == other.files
    assert {path.rsplit(".")[-1] for path in one.files} == {"jpg", "json" if write is labelme else "xml"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no annotation of labelme"),
        ("[]", "no annotation of labelme"),
        ('{"imageHeight": null, "imageWidth": 3, "shapes": []}', "no annotation of labelme"),
        (
            '{"imageHeight": 3, "imageWidth": 3, "shapes": [{"label": "a", "points": [[0, 0], [2, 0], [2, NaN]]}]}',
            "of 3 points",
        ),
        ('{"imageHeight": 3, "imageWidth": 3, "shapes": [{"points": [[0, 0], [2, 0], [2, 2]]}]}', "'label'"),
        ("[" * 5000, "no annotation of labelme"),
    ],
)
def test_damaged_files_of_labelme_are_named(tmp_path, text, message):
    labelme(images(tmp_path))
    (tmp_path / "p2.json").write_text(text)
    data = build(tmp_path, annotations=".")
    errors = [
        header
        for split in data.splits.values()
        for header in split.headers(range(len(split)))
        if isinstance(header, DataError)
    ]
    assert len(errors) == 1 and "p2.json" in str(errors[0]) and message in str(errors[0])


@pytest.mark.parametrize(
    ("shapes", "extra", "message"),
    [
        ("", "<track id='0'/>", "CVAT for images 1.1"),
        ('<mask label="a" rle="1, 4" left="2" top="3" width="3" height="2"/>', "", "whose runs have 5"),
        ('<polygon label="a" points="nan,1;2,2;3,1"/>', "", "no numbers"),
        ('<ellipse label="a" cx="1" cy="1" rx="2" ry="2" rotation="30"/>', "", "make it a polygon"),
        ("<<", "", "no annotation of CVAT"),
        ("", '<!DOCTYPE a [<!ENTITY b "c">]>', "it defines entities"),
    ],
)
def test_damaged_files_of_cvat_are_named(tmp_path, shapes, extra, message):
    cvat(images(tmp_path), shapes or " ", extra)
    with pytest.raises(DataError, match=rf"a\.xml .*{message}"):
        build(tmp_path, annotations="a.xml")


def test_a_turned_box_is_turned_about_its_centre(tmp_path):
    box = '<box label="a" xtl="10" ytl="12" xbr="20" ybr="16" rotation="90"/>'
    cvat(images(tmp_path), box)
    target = np.zeros(SIZE, np.uint8)
    target[9:19, 13:17] = 1
    assert np.array_equal(samples(build(tmp_path, annotations="a.xml"))[0].target, target)


def test_what_does_not_fit_is_told(tmp_path):
    labelme(images(tmp_path))
    with pytest.raises(ConfigError, match=r"data\.annotations is 'nothing'; allowed: a folder of labelme"):
        build(tmp_path, annotations="nothing")
    with pytest.raises(ConfigError, match=r"data\.masks and data\.annotations exclude each other"):
        build(tmp_path, annotations=".", masks="m")
    with pytest.raises(DataError, match=r"p0\.json lies beside an image.*data\.annotations=\."):
        build(tmp_path)
    (tmp_path / "p5.json").write_text((tmp_path / "p0.json").read_text())
    with pytest.raises(DataError, match=r"p5\.json"):
        build(tmp_path, annotations=".")
