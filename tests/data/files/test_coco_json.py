"""JSON files in COCO's format, read as pycocotools reads them, and each kind of damage in them."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from segtrain.data.files.coco_content import check_json, object_arrays, run_lengths
from segtrain.data.files.coco_json import CocoJson, CocoObjects, Painting
from segtrain.errors import ConfigError, DataError

SIZE = (60, 80)
CATEGORIES = [{"id": 7, "name": "train"}, {"id": 1, "name": "person"}, {"id": 90, "name": "toothbrush"}]
CLASS_OF = {1: 1, 7: 2, 90: 3}


def box(top, left, bottom, right) -> np.ndarray:
    mask = np.zeros(SIZE, np.uint8)
    mask[top:bottom, left:right] = 1
    return mask


def uncompressed(mask: np.ndarray) -> dict:
    """The RLE as a list, written by hand: column by column, background first."""
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(np.diff(np.concatenate([[0], flat]))).tolist()
    return {"size": list(mask.shape), "counts": np.diff([0, *changes, flat.size]).tolist()}


def compressed(mask: np.ndarray) -> dict:
    rle = coco_mask.encode(np.asfortranarray(mask))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def polygons(rng, count: int) -> list[list[float]]:
    found = []
    for _ in range(count):
        angle = np.sort(rng.random(int(rng.integers(3, 30)))) * 2 * np.pi
        centre, radius = rng.uniform(0, [80, 60]), rng.uniform(2, 25)
        points = centre + radius * np.stack([np.cos(angle), np.sin(angle)], 1)
        found.append(points.round(2).ravel().tolist())  # some leave the image
    return found


def annotation(number, image, category, segmentation, **more) -> dict:
    return {"id": number, "image_id": image, "category_id": category, "segmentation": segmentation, **more}


def write(folder: Path, annotations: list, **changes) -> str:
    images = [
        {"id": 9, "file_name": "b.png", "height": 60, "width": 80},
        {"id": 4, "file_name": "a.png", "height": 60, "width": 80},
    ]
    whole = {"images": images, "annotations": annotations, "categories": CATEGORIES, **changes}
    path = folder / "instances.json"
    path.write_text(json.dumps(whole))
    return str(path)


@pytest.fixture
def mixed(tmp_path) -> str:
    """Two images with 20 objects in every form that COCO has."""
    rng = np.random.default_rng(0)
    annotations = []
    for number in range(40):
        forms = [polygons(rng, int(rng.integers(1, 4))), None, None]
        top, left = rng.integers(0, 50, 2).tolist()
        mask = box(top, left, top + 9, left + 12) | box(0, left, top, left + 1)
        forms[1:] = compressed(mask), uncompressed(mask)
        crowd = int(number % 10 == 9)
        annotations.append(
            annotation(
                number + 1, (9, 4)[number % 2], (1, 7, 90)[number % 3], forms[number % 3], iscrowd=crowd
            )
        )
    return write(tmp_path, annotations)


def test_each_object_is_what_pycocotools_reads(mixed, capsys):
    coco, reference = CocoJson(mixed), COCO(mixed)
    assert [coco.file_name(index) for index in range(len(coco))] == ["a.png", "b.png"]  # by id
    assert dict(zip(coco.category_ids, coco.category_names, strict=True)) == {
        1: "person",
        7: "train",
        90: "toothbrush",
    }
    for index, image in enumerate((4, 9)):
        objects, known = coco.objects(index), reference.loadAnns(reference.getAnnIds(image))
        assert objects.categories.tolist() == [one["category_id"] for one in known]
        assert objects.crowds.tolist() == [bool(one["iscrowd"]) for one in known]
        for mask, area, one in zip(objects.masks, objects.areas, known, strict=True):
            decoded = coco_mask.decode({"size": list(SIZE), "counts": mask})
            assert np.array_equal(decoded, reference.annToMask(one))
            assert area == decoded.sum()


@pytest.mark.parametrize("overlap", ["ignore", "small_on_top"])
@pytest.mark.parametrize("crowd", ["ignore", "class"])
def test_painted_as_by_hand(mixed, overlap, crowd):
    """Against a painting of whole masks: of torchvision's references for overlap=ignore."""
    coco, reference = CocoJson(mixed), COCO(mixed)
    painting = Painting({1: 1, 90: 2}, overlap=overlap, crowd=crowd)
    target, instances = coco.painted(0, painting)
    known = [one for one in reference.loadAnns(reference.getAnnIds(4)) if one["category_id"] in (1, 90)]
    masks = np.stack([reference.annToMask(one) for one in known])
    classes = np.array(
        [255 if one["iscrowd"] and crowd == "ignore" else {1: 1, 90: 2}[one["category_id"]] for one in known]
    )
    if overlap == "ignore":
        wanted = (masks * classes[:, None, None]).max(0)
        wanted[masks.sum(0) > 1] = 255
    else:
        wanted = np.zeros(SIZE)
        groups = [place for place, one in enumerate(known) if one["iscrowd"]]
        others = sorted(set(range(len(known))) - set(groups), key=lambda place: -int(masks[place].sum()))
        for place in [*sorted(groups, key=lambda place: -int(masks[place].sum())), *others]:
            wanted[masks[place] == 1] = classes[place]
    assert target.dtype == np.uint8 and instances.dtype == np.uint16
    assert np.array_equal(target, wanted)
    assert set(np.unique(wanted)) == {0, 1, 2, 255} - ({255} if overlap[0] + crowd[0] == "sc" else set())
    # Objects are numbered in the file's order, groups and unlabelled pixels have none.
    single = [place for place, one in enumerate(known) if not one["iscrowd"]]
    for number, place in enumerate(single, 1):
        assert (masks[place][instances == number] == 1).all()
        if overlap == "ignore":
            alone = (masks[place] == 1) & (masks.sum(0) == 1)
            assert np.array_equal(instances == number, alone)
    assert instances.max() <= len(single) and not instances[target == 255].any()


def test_the_order_of_the_file_does_not_decide_what_lies_on_top(tmp_path):
    big, small = compressed(box(5, 5, 50, 60)), compressed(box(20, 20, 30, 30))
    for order in ((big, small), (small, big)):
        path = write(tmp_path, [annotation(k, 4, 1 + 6 * (one is small), one) for k, one in enumerate(order)])
        target, instances = CocoJson(path).painted(0, Painting(CLASS_OF))
        assert (target[20:30, 20:30] == 2).all() and target[10, 10] == 1 and target[0, 0] == 0
        assert instances[25, 25] == 1 + (order[1] is small)
        ignored, _ = CocoJson(path).painted(0, Painting(CLASS_OF, background=255, overlap="ignore"))
        assert (ignored[20:30, 20:30] == 255).all() and ignored[10, 10] == 1 and ignored[0, 0] == 255


def test_run_lengths_are_those_of_pycocotools():
    rng = np.random.default_rng(1)
    for share in (0.0, 0.01, 0.5, 0.99, 1.0):
        mask = (rng.random((200, 300)) < share).astype(np.uint8)
        text = coco_mask.encode(np.asfortranarray(mask))["counts"]
        assert run_lengths(text).tolist() == uncompressed(mask)["counts"] or share == 0.0
        assert run_lengths(text).sum() == mask.size
    assert run_lengths(coco_mask.encode(np.zeros((200, 300), np.uint8, order="F"))["counts"]).tolist() == [
        60000
    ]


def test_a_split_is_small_and_reads_the_same_in_another_process(mixed, tmp_path):
    for name in "ab":
        Image.fromarray(np.full((*SIZE, 3), ord(name), np.uint8)).save(tmp_path / f"{name}.png")
    split = CocoObjects(CocoJson(mixed), str(tmp_path), Painting(CLASS_OF), [1, 0])
    sent = pickle.dumps(split)
    assert len(sent) < 2000
    copy = pickle.loads(sent)
    assert [copy.name(0), copy.name(1)] == [str(tmp_path / "b.png"), str(tmp_path / "a.png")]
    sample = copy[0]
    assert sample.name == "b" and (sample.image == ord("b")).all()
    assert np.array_equal(sample.target, split.target(0))
    assert np.array_equal(sample.instances, split[0].instances) and sample.instances.max() > 5
    assert split.headers([0, 1])[1][:2] == split.size(1) == SIZE


def test_what_is_cached_goes_by_content(mixed, tmp_path, monkeypatch):
    CocoJson(mixed)
    monkeypatch.setattr("segtrain.data.files.coco_json.object_arrays", lambda path: pytest.fail("read again"))
    CocoJson(mixed)
    copy = tmp_path / "copy.json"
    copy.write_bytes(Path(mixed).read_bytes())
    assert len(CocoJson(str(copy)).objects(0).masks) == 20
    monkeypatch.undo()
    copy.write_bytes(Path(mixed).read_bytes().replace(b'"toothbrush"', b'"hair brush"'))
    assert "hair brush" in CocoJson(str(copy)).category_names


@pytest.mark.parametrize("damage", [b"", b"segtrain arrays 1\n{}", b"\0" * 4000, None])
def test_a_damaged_cache_is_made_again(mixed, tmp_path, monkeypatch, damage):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    before = CocoJson(mixed).painted(0, Painting(CLASS_OF))[0]
    (cached,) = (tmp_path / "cache/segtrain").glob("coco*.arrays")
    cached.write_bytes(cached.read_bytes()[:-700] if damage is None else damage)
    assert np.array_equal(CocoJson(mixed).painted(0, Painting(CLASS_OF))[0], before)


def test_a_cache_that_cannot_be_written_costs_time_only(mixed, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    coco = pickle.loads(pickle.dumps(CocoJson(mixed)))
    assert len(coco.objects(0).masks) == 20


def test_without_pycocotools_the_extra_is_named(mixed, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(ConfigError, match=r"pycocotools.*pip install 'segtrain\[coco\]'"):
        CocoJson(mixed)


GOOD = [10, 10, 40, 10, 40, 40]
RLE = uncompressed(box(5, 5, 20, 20))
TEXT = compressed(box(5, 5, 20, 20))["counts"]


@pytest.mark.parametrize(
    "segmentation", [None, [], [[]], [[10, 10, 40, 10]], [[10, 10, 20, 20], []], [[10.5, 10]]]
)
def test_annotations_without_area_are_left_out_and_counted(tmp_path, segmentation):
    lines = [annotation(33, 9, 1, segmentation), annotation(34, 4, 1, [GOOD, [10, 10, 40, 10]])]
    coco = CocoJson(write(tmp_path, [annotation(1, 4, 1, [GOOD]), *lines]))
    assert coco.num_left_out == 1
    first, second = coco.objects(0).masks, coco.objects(1).masks
    assert first[0] == first[1] == coco_mask.frPyObjects([GOOD], 60, 80)[0]["counts"] and not second
    with pytest.raises(
        DataError, match=r"annotation 0 \(id 33\) has a segmentation without area.*only boxes"
    ):
        CocoJson(write(tmp_path, lines[:1]))


def test_an_unused_category_may_have_the_name_of_another(tmp_path):
    categories = [*CATEGORIES, {"id": 0, "name": CATEGORIES[0]["name"], "supercategory": "none"}]
    objects = [annotation(1, 4, CATEGORIES[0]["id"], [GOOD])]
    coco = CocoJson(write(tmp_path, objects, categories=categories))
    assert coco.category_ids == sorted(one["id"] for one in CATEGORIES)
    with pytest.raises(DataError, match="one of which occurs twice"):
        CocoJson(write(tmp_path, [*objects, annotation(2, 4, 0, [GOOD])], categories=categories))


@pytest.mark.parametrize(
    ("segmentation", "words"),
    [
        ([[*GOOD, 3]], "three points"),
        ([["10", "10", "40", "10", "40", "40"]], "three points"),
        ([[[10, 10], [40, 10], [40, 40]]], "three points"),
        (GOOD, "three points"),
        ([[10, 10, 40, 10, 40, float("nan")]], "far outside"),
        ([[10, 10, 40, 10, 40, 1e300]], "far outside"),
        ([[10, 10, 40, 10, 40, 10**40]], "three points"),
        ([[10, 10, 40, 10, 40, -1000]], "far outside"),
        ("mask.png", "expected polygons"),
        ({**RLE, "size": [80, 60]}, r"size \[80, 60\]; its image is \[60, 80\]"),
        ({"counts": RLE["counts"]}, "size None"),
        ({**RLE, "counts": [4000, 799]}, "sum to 4799; its image has 4800"),
        ({**RLE, "counts": [5000, -200]}, "4800 pixels"),
        ({**RLE, "counts": [2400.0, 2400.0]}, "no integers"),
        ({**RLE, "counts": []}, "no integers"),
        ({**RLE, "counts": TEXT[:-1]}, "RLE"),
        ({**RLE, "counts": TEXT + "1"}, "4800 pixels"),
        ({**RLE, "counts": ""}, "cannot be read"),
        ({**RLE, "counts": "o" * 50}, "cannot be read"),
        ({**RLE, "counts": TEXT[:-1] + chr(ord(TEXT[-1]) | 32 + 48)}, "RLE"),
        ({**RLE, "counts": "U" + "P" * 12 + "0"}, "cannot be read"),  # more digits than a number has
        ({**RLE, "counts": "ü"}, "cannot be read"),
        ({**RLE, "counts": None}, "cannot be read"),
    ],
)
def test_damaged_segmentations_name_the_annotation(tmp_path, segmentation, words):
    path = write(tmp_path, [annotation(1, 4, 1, [GOOD]), annotation(33, 9, 1, segmentation)])
    with pytest.raises(DataError, match=rf"instances\.json: annotation 1 \(id 33\) has .*{words}"):
        CocoJson(path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"images": None}, "no list 'images'"),
        ({"categories": {}}, "no list 'categories'"),
        ({"images": []}, "lists no image"),
        ({"images": [3]}, "image 0 has no 'id'; it is 3"),
        ({"images": [{"id": 4, "file_name": "a.png", "height": 60}]}, "image 0 has no 'width'"),
        (
            {"images": [{"id": "4", "file_name": "a.png", "height": 60, "width": 80}]},
            "id '4'; expected an int",
        ),
        ({"images": [{"id": 4, "file_name": "a.png", "height": 0, "width": 80}]}, "is 0x80; allowed"),
        ({"images": [{"id": 4, "file_name": "a.png", "height": 60, "width": 10**9}]}, "60x1000000000"),
        ({"images": [{"id": 2**70, "file_name": "a.png", "height": 60, "width": 80}]}, "expected an integer"),
        ({"images": [{"id": 4, "file_name": 7, "height": 60, "width": 80}]}, "file_name 7; expected a text"),
        ({"images": [{"id": 4, "file_name": "\ud800", "height": 60, "width": 80}]}, "expected a text"),
        ({"categories": [*CATEGORIES, {"id": 1, "name": "x"}]}, "occurs twice"),
        ({"categories": [{"id": 7, "name": "x"}]}, "category_id 1, which the file does not list"),
        ({"categories": [{"id": True, "name": "x"}]}, "id True"),
    ],
)
def test_damaged_lists_are_named(tmp_path, changes, words):
    with pytest.raises(DataError, match=words) as caught:
        CocoJson(write(tmp_path, [annotation(1, 4, 1, [GOOD])], **changes))
    assert "\n" not in str(caught.value) and "instances.json" in str(caught.value)


@pytest.mark.parametrize(
    "name", ["../a.png", "x/../../a.png", "/etc/a.png", "C:\\a.png", "..\\a.png", "\\a", "a\0"]
)
def test_names_that_lead_out_of_the_folder_are_refused(tmp_path, name):
    images = [{"id": 4, "file_name": name, "height": 60, "width": 80}]
    with pytest.raises(DataError, match=r"image 0 has the file_name .*allowed: paths below"):
        CocoJson(write(tmp_path, [], images=images))


def test_two_images_of_one_name_or_id(tmp_path):
    one = {"id": 4, "file_name": "a.png", "height": 60, "width": 80}
    with pytest.raises(DataError, match=r"two images of the file_name 'a\.png'"):
        CocoJson(write(tmp_path, [], images=[one, {**one, "id": 5}]))
    with pytest.raises(DataError, match="two images of the id 4"):
        CocoJson(write(tmp_path, [], images=[one, {**one, "file_name": "b.png"}]))


@pytest.mark.parametrize("more", [{"iscrowd": 2}, {"iscrowd": "no"}, {"image_id": 5}, {"image_id": None}])
def test_other_damage_of_annotations(tmp_path, more):
    with pytest.raises(DataError, match=rf"annotation 0 \(id 1\) has (the )?{next(iter(more))}"):
        CocoJson(write(tmp_path, [annotation(1, 4, 1, [GOOD]) | more]))


@pytest.mark.parametrize(
    "content", [b"<html>404</html>", b"version https://git-lfs", b"", b"[" * 100_000, b"\xff\xfe{}"]
)
def test_what_is_not_json_is_shown(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"x\.json is not JSON .*begins with b'") as caught:
        CocoJson(str(path))
    assert len(str(caught.value)) < 400


def test_files_that_are_not_read(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="cannot be read"):
        check_json(str(tmp_path / "no"))
    with pytest.raises(DataError, match="not a regular file"):
        check_json(str(tmp_path))
    monkeypatch.setattr("segtrain.data.files.coco_content.MAX_BYTES", 100)
    with pytest.raises(DataError, match="bytes; allowed: 100"):
        CocoJson(write(tmp_path, []))


def test_images_that_do_not_fit_the_file(mixed, tmp_path):
    (tmp_path / "images").mkdir()
    split = CocoObjects(CocoJson(mixed), str(tmp_path / "images"), Painting(CLASS_OF), [0])
    with pytest.raises(DataError, match=r"a\.png does not exist"):
        split[0]
    Image.fromarray(np.zeros((80, 60, 3), np.uint8)).save(tmp_path / "images/a.png")
    with pytest.raises(DataError, match=r"a\.png is 80x60 and .*instances\.json says 60x80"):
        split[0]
    assert "says 60x80" in str(split.headers([0])[0])
    (tmp_path / "images/a.png").unlink()
    Image.fromarray(np.zeros((60, 80, 3), np.uint8)).save(tmp_path / "outside.png")
    (tmp_path / "images/a.png").symlink_to(tmp_path / "outside.png")
    with pytest.raises(DataError, match="outside of"):
        split[0]
    small = CocoObjects(CocoJson(mixed), str(tmp_path), Painting(CLASS_OF), [0], max_pixels=100)
    with pytest.raises(DataError, match=r"data\.max_pixels"):
        small.target(0)


def test_areas_are_summed_over_the_chosen_categories(tmp_path):
    masks = [compressed(box(0, 0, 10, 10 + number)) for number in range(3)]
    entries = [
        annotation(1, 9, 1, masks[0]),
        annotation(2, 9, 7, masks[1], area=500),
        annotation(3, 4, 1, masks[2], area=-1),
    ]
    coco = CocoJson(write(tmp_path, entries))
    assert coco.areas([1, 7]).tolist() == [120, 600]
    assert coco.areas([1]).tolist() == [120, 100] and coco.areas([90]).tolist() == [0, 0]


def test_no_object_at_all(tmp_path):
    coco = CocoJson(write(tmp_path, []))
    target, instances = coco.painted(0, Painting(CLASS_OF))
    assert target.shape == SIZE and not target.any() and not instances.any()
    assert object_arrays(coco.path)["object_starts"].tolist() == [0, 0, 0]
