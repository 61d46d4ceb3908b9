"""Which of a user's own images are in which split: lists, folders, groups, and what needs no mask."""

import pytest
from PIL import Image

from segtrain.data import DATA
from segtrain.data.files.splits import hashed
from segtrain.errors import ConfigError, DataError


def pairs(root, *names, masks=True):
    for name in names:
        for kind in ("images", *(["masks"] if masks else [])):
            path = root / kind / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (6, 4)).save(path)


def build(root, **options):
    return DATA.build({"name": "folder", "root": str(root), "classes": ["a", "b", "c"], **options})


def names(data):
    return {split: [sample.name for sample in data.splits[split]] for split in data.splits}


def lists(root, **lines):
    for split, text in lines.items():
        (root / f"{split}.txt").write_text(text)
    return {f"{split}_list": f"{split}.txt" for split in lines}


def test_a_hash_is_the_same_for_ever():
    """Numbers written down: another hash would move images from training to validation."""
    keys = (("a", 0), ("a", 1), ("straße", 0))
    assert [round(hashed(key, seed), 6) for key, seed in keys] == [0.3715, 0.014303, 0.473148]
    assert hashed("stra\u00dfe\u0301", 0) == hashed("stra\u00df\u00e9", 0)
    spread = [hashed(f"{number}.x", 3) for number in range(2000)]
    assert all(150 < sum(low <= one < low + 0.1 for one in spread) < 250 for low in (0, 0.3, 0.9))


def test_files_outside_the_lists_do_not_matter(tmp_path):
    pairs(tmp_path, "a", "b", "c")
    pairs(tmp_path, "lonely", masks=False)
    Image.new("L", (6, 4)).save(tmp_path / "masks/nobody.png")
    options = lists(tmp_path, train="a\nb\n", val="c\n")
    assert names(build(tmp_path, **options)) == {"train": ["a", "b"], "val": ["c"]}
    with pytest.raises(DataError, match=r"1 image has no mask .*lonely\.png; .*data\.train_list"):
        build(tmp_path)
    options = lists(tmp_path, train="a\nlonely\n", val="c\n")
    with pytest.raises(DataError, match=r"1 image has no mask of the same name: .*lonely\.png"):
        build(tmp_path, **options)


LINES = {
    "name": "x/a",
    "with suffix": "x/a.png",
    "relative to the root": "images/x/a.png",
    "blanks": "  x/a.png\t \r",
    "of Windows": "x\\a.png",
    "from here": "./images/../images/x/a",
    "absolute": "{root}/images/x/a.png",
}


@pytest.mark.parametrize("line", LINES)
def test_lines_of_a_list(tmp_path, line):
    pairs(tmp_path, "x/a", "b")
    options = lists(tmp_path, train=LINES[line].format(root=tmp_path) + "\n", val="b  \n")
    assert names(build(tmp_path, **options)) == {"train": ["x/a"], "val": ["b"]}


def test_a_list_has_the_names_with_their_suffix_or_without(tmp_path):
    for number in range(3):
        for path in (tmp_path / f"images/{number}_sat.png", tmp_path / f"masks/{number}_mask.png"):
            path.parent.mkdir(exist_ok=True)
            Image.new("L", (6, 4)).save(path)
    suffixes = {"image_suffix": "_sat", "mask_suffix": "_mask"}
    options = lists(tmp_path, train="0\n1_sat.png\n", val="2_sat\n")
    assert names(build(tmp_path, **options, **suffixes)) == {"train": ["0", "1"], "val": ["2"]}


def test_a_test_list_and_what_is_left(tmp_path):
    pairs(tmp_path, *"abcdefgh")
    options = lists(tmp_path, test="a\nb\n")
    data = build(tmp_path, **options)
    assert names(data)["test"] == ["a", "b"] and set(data.splits) == {"train", "val", "test"}
    assert sorted(names(data)["train"] + names(data)["val"]) == list("cdefgh")
    options |= lists(tmp_path, train="c\n", val="a\n")
    with pytest.raises(DataError, match=r"'a' first; remove what is twice from data\.val_list or data\.test"):
        build(tmp_path, **options)


@pytest.mark.parametrize("words", [("train", "val", "test"), ("training", "valid", "testing")])
def test_a_test_folder_is_a_split_where_it_has_masks(tmp_path, words, capsys):
    train, val, test = words
    pairs(tmp_path, f"{train}/a", f"{val}/b")
    pairs(tmp_path, f"{test}/c", f"{test}/d", masks=False)
    assert names(build(tmp_path)) == {"train": [f"{train}/a"], "val": [f"{val}/b"]}
    assert "split test is left out: its 2 images have no mask" in capsys.readouterr().err
    pairs(tmp_path, f"{test}/c")
    with pytest.raises(DataError, match=r"1 image has no mask of the same name: .*d\.png"):
        build(tmp_path)
    pairs(tmp_path, f"{test}/d")
    assert names(build(tmp_path))["test"] == [f"{test}/c", f"{test}/d"]
    (tmp_path / f"images/{val}/b.png").unlink()
    pairs(tmp_path, f"{val}/e")
    with pytest.raises(DataError, match=r"1 mask has no image of the same name: .*b\.png"):
        build(tmp_path)


def test_folders_without_val_leave_test_alone(tmp_path):
    pairs(tmp_path, *(f"train/{letter}" for letter in "abcdefgh"), "test/x", "test/y")
    found = names(build(tmp_path))
    assert found["test"] == ["test/x", "test/y"]
    assert len(found["val"]) >= 1 and len(found["train"] + found["val"]) == 8
    assert all(name.startswith("train/") for name in found["train"] + found["val"])


def test_folders_of_splits_in_upper_case(tmp_path):
    pairs(tmp_path, "Train/a", "Train/b", "VAL/c")
    assert names(build(tmp_path)) == {"train": ["Train/a", "Train/b"], "val": ["VAL/c"]}


def test_a_folder_cannot_be_called_all(tmp_path):
    pairs(tmp_path, "train/a", "val/b", "all/c")
    with pytest.raises(DataError, match=r"folder 'all'.*split=all is all of them together; rename"):
        build(tmp_path)


@pytest.mark.parametrize("folders, splits", [(("train", "val"), {}), (("", ""), {"test": "b\n"})])
def test_a_test_fraction_beside_lists_and_folders_is_refused(tmp_path, folders, splits):
    """It would draw images for a split that others are in already, and drop them."""
    pairs(tmp_path, *(f"{folder}/{name}".lstrip("/") for folder, name in zip(folders, "ab", strict=True)))
    with pytest.raises(ConfigError, match=r"data\.test_fraction is 0\.3, .*set it to 0"):
        build(tmp_path, test_fraction=0.3, **lists(tmp_path, **splits))


def test_few_images_leave_train_one_whatever_their_hashes(tmp_path):
    low = [f"q{number}" for number in range(200) if hashed(f"q{number}", 0) < 0.19][:3]
    for number, splits in ((1, ("train",)), (2, ("train", "val")), (3, ("train", "val", "test"))):
        root = tmp_path / str(number)
        pairs(root, *low[:number])
        data = build(root, test_fraction=0.2)
        assert {split: len(found) for split, found in data.splits.items()} == dict.fromkeys(splits, 1)
        assert list(build(root, split_bounds=[0.2, 0.2]).splits) == ["val"]  # bounds of a run


def test_one_group_of_all_images_is_refused(tmp_path):
    pairs(tmp_path, "im1", "im2")
    with pytest.raises(ConfigError, match=r"data\.group gives all 2 images the group 'im'"):
        build(tmp_path, group="(im)")


def test_fractions_leave_something_to_train_on(tmp_path):
    pairs(tmp_path, *"abcd")
    with pytest.raises(ConfigError, match=r"val_fraction=0\.6 and data\.test_fraction=0\.5 leave nothing"):
        build(tmp_path, val_fraction=0.6, test_fraction=0.5)
    for bounds in ([0.3], [0.5, 0.2]):
        with pytest.raises(ConfigError, match=r"data\.split_bounds is .*; allowed: two ascending numbers"):
            build(tmp_path, split_bounds=bounds)


# --- groups


def groups(data):
    return {split: {sample.group for sample in data.splits[split]} for split in data.splits}


def test_groups_stay_together(tmp_path, capsys):
    pairs(tmp_path, *(f"patient{p}_{number}" for p in range(12) for number in range(4)))
    data = build(tmp_path, group=r"(patient\d+)_", test_fraction=0.2)
    found = groups(data)
    assert set(found) == {"train", "val", "test"} and sum(map(len, found.values())) == 12
    assert found["train"].isdisjoint(found["val"]) and found["test"].isdisjoint(found["val"])
    assert capsys.readouterr().err == ""  # frames of one group are never split apart
    assert groups(build(tmp_path))["train"] == {""}


@pytest.mark.parametrize(
    "table",
    ["image,patient\na_0.png,x\nsub/b.png,y\nc,x\n", "patient,note,file\nx,1,a_0\ny,2,b.png\nx,3,./c.png\n"],
)
def test_groups_of_a_table(tmp_path, table):
    pairs(tmp_path, "a_0", "sub/b", "c")
    (tmp_path / "groups.csv").write_text(table)
    data = build(tmp_path, group="groups.csv:patient")
    found = {sample.name: sample.group for split in data.splits.values() for sample in split}
    assert found == {"a_0": "x", "sub/b": "y", "c": "x"}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("image,patient\na,x\nb,y\na.png,y\n", r"gives 'a' two groups, 'x' and 'y'; each image has one"),
        ("image,patient\na,x\n1/b,y\n2/b,x\n", r"gives no group to 1 of 2 images, 'b' first"),
    ],
)
def test_a_table_that_contradicts_itself(tmp_path, table, message):
    pairs(tmp_path, "a", "b")
    (tmp_path / "groups.csv").write_text(table)
    with pytest.raises(DataError, match=message):
        build(tmp_path, group="groups.csv:patient")


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ("(patient", r"data\.group=\(patient is no regular expression"),
        (r"(\d+)", r"gives no group to 2 of 3 images, 'a' first"),
        ("no.csv:x", r"names the table 'no\.csv', which is not a file"),
        ("g.csv:patiant", r"g\.csv has no column patiant \(did you mean 'patient'\?\)"),
        ("g.csv:patient", r"gives no group to 1 of 3 images, 'b' first"),
    ],
)
def test_groups_that_cannot_be(tmp_path, group, message):
    pairs(tmp_path, "a", "b", "1")
    (tmp_path / "g.csv").write_text("image,patient\na,x\n1,y\n")
    with pytest.raises((ConfigError, DataError), match=message):
        build(tmp_path, group=group)


def test_lists_that_split_a_group_are_told(tmp_path, capsys):
    pairs(tmp_path, "x1", "x2", "y1")
    options = lists(tmp_path, train="x1\ny1", val="x2")
    build(tmp_path, **options, group=r"[xy]")
    assert "1 group is in several splits, 'x' in train, val" in capsys.readouterr().err


# --- frames of a video


@pytest.mark.parametrize(
    ("numbers", "told"),
    [
        (range(100, 130), True),
        (range(6690, 6690 + 30 * 30, 30), True),
        ([139, 285, 632, 724, 776, 785, 802, 872, 885, 1000, 1268, 1296, 1353, 1425, 1490, 1503], False),
        ([142238, 439180, 2, 90000, 200000, 700001], False),
    ],
)
def test_numbers_that_are_no_neighbours_give_no_warning(tmp_path, capsys, numbers, told):
    pairs(tmp_path, *(f"{number:012d}" for number in numbers))
    data = build(tmp_path)
    assert ("neighbouring numbers" in capsys.readouterr().err) == told
    build(tmp_path, split_bounds=data.settled["split_bounds"])
    assert capsys.readouterr().err == ""  # a run has been told when it started
