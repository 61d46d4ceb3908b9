"""A user's own folders: pairing, splits, classes, and what is said when they do not fit."""

import itertools
import re
import unicodedata

import cv2
import numpy as np
import pytest
from PIL import Image

from segtrain.data import DATA
from segtrain.data.files import per_file
from segtrain.data.survey.check import problems
from segtrain.errors import ConfigError, DataError


def write(root, name, mask, suffix="png", size=None):
    """images/NAME and masks/NAME.png with the given mask; the image's red channel is the mask."""
    mask = np.asarray(mask, np.uint8)
    image = np.zeros((*(size or mask.shape[:2]), 3), np.uint8)
    if size is None and mask.ndim == 2:
        image[..., 0] = mask
    for kind, array, end in (("images", image, suffix), ("masks", mask, "png")):
        path = root / kind / f"{name}.{end}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)


def some(root, count=10, name="a{}", classes=3):
    for number in range(count):
        write(root, name.format(number), np.full((4, 6), number % classes))
    return root


def build(place, **options):
    return DATA.build({"name": "folder", "root": str(place), **options})


def names(data):
    return {split: [sample.name for sample in data.splits[split]] for split in data.splits}


def test_pairs_are_made_by_name_and_not_by_order(tmp_path):
    for number in range(6):
        write(tmp_path, f"x/{number}", np.full((3, 5), number % 3), suffix="bmp")
    data = build(tmp_path)
    samples = [sample for split in data.splits.values() for sample in split]
    assert len(samples) == 6
    for sample in samples:
        assert (
            np.array_equal(sample.image[..., 0], sample.target)
            and sample.target[0, 0] == int(sample.name[-1]) % 3
        )


@pytest.mark.parametrize(("image_form", "mask_form"), [("NFC", "NFD"), ("NFD", "NFC"), ("NFD", "NFD")])
def test_names_are_equal_however_a_system_writes_its_accented_letters(tmp_path, image_form, mask_form):
    for letter in "abcd":
        for kind, form in (("images", image_form), ("masks", mask_form)):
            path = tmp_path / kind / (unicodedata.normalize(form, f"Gebäude é {letter}") + ".png")
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(np.full((4, 6), ord(letter) - ord("a"), np.uint8)).convert(
                "RGB" if kind == "images" else "L"
            ).save(path)
    for split, letters in (("train", "abc"), ("val", "d")):
        lines = [unicodedata.normalize("NFC", f"Gebäude é {letter}.png") for letter in letters]
        (tmp_path / f"{split}.txt").write_text("\n".join(lines), encoding="utf-8")
    lists = {f"{split}_list": str(tmp_path / f"{split}.txt") for split in ("train", "val")}
    for data, sizes in ((build(tmp_path), (3, 1)), (build(tmp_path, **lists), (3, 1))):
        assert (len(data.splits["train"]), len(data.splits["val"])) == sizes
        for sample in (sample for split in data.splits.values() for sample in split):
            assert sample.name.endswith("abcd"[sample.target[0, 0]]), sample.name
            assert np.array_equal(sample.image[..., 0], sample.target)
            assert sample.name == unicodedata.normalize(image_form, sample.name)  # as the file is called


def test_names_that_differ_in_their_accents_alone_are_two_names(tmp_path):
    both = [unicodedata.normalize(form, "é") for form in ("NFC", "NFD")]
    for index, name in enumerate(both):
        write(tmp_path, name, np.full((4, 6), index))
    data = build(tmp_path)
    samples = [sample for split in data.splits.values() for sample in split]
    assert sorted(sample.name for sample in samples) == sorted(both)
    assert all(np.array_equal(sample.image[..., 0], sample.target) for sample in samples)


def test_splits_by_folder(tmp_path):
    for split in ("train", "val", "test"):
        some(tmp_path, 3, split + "/{}")
    data = build(tmp_path)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 3, "val": 3, "test": 3}
    assert names(data)["val"] == ["val/0", "val/1", "val/2"]


def test_a_file_beside_the_split_folders_is_refused(tmp_path):
    for name in ("train/{}", "val/{}", "stray{}"):
        some(tmp_path, 3, name)
    with pytest.raises(
        DataError, match=r"stray0\.png lies beside the folders of the splits \(3 such files\)"
    ):
        build(tmp_path)


def test_random_splits_are_seeded_complete_and_of_about_the_shares(tmp_path):
    some(tmp_path, 200, "{}x")
    options = {"classes": ["a", "b", "c"], "test_fraction": 0.1}
    first, again, other = (names(build(tmp_path, split_seed=seed, **options)) for seed in (0, 0, 1))
    assert first == again != other
    assert sorted(itertools.chain(*first.values())) == sorted(f"{n}x" for n in range(200))
    assert 25 <= len(first["val"]) <= 55 and 10 <= len(first["test"]) <= 32


@pytest.mark.parametrize("fractions", [(0.2, 0.0), (0.01, 0.01), (0.9, 0.09), (0.5, 0.4)])
@pytest.mark.parametrize("count", [3, 4, 7])
def test_each_random_split_holds_an_image_and_keeps_its_images_when_files_are_added(
    tmp_path, count, fractions
):
    some(tmp_path, count, "{}x")
    val, test = fractions
    options = {"classes": ["a", "b", "c"], "val_fraction": val, "test_fraction": test}
    data = build(tmp_path, **options)
    before = names(data)
    assert set(before) == {"train", "val", *(["test"] if test else [])} and all(before.values())
    some(tmp_path, 40, "{}y")
    after = names(build(tmp_path, **options, **{"split_bounds": data.settled["split_bounds"]}))
    assert {split: [name for name in after[split] if "x" in name] for split in before} == before


def test_splits_do_not_depend_on_other_images(tmp_path):
    some(tmp_path, 60, "{}x")
    options = {"classes": ["a", "b", "c"]}
    before = names(build(tmp_path, **options))
    some(tmp_path, 60, "{}y")
    after = names(build(tmp_path, **options))
    assert {split: [name for name in after[split] if "x" in name] for split in after} == before


def test_the_random_split_of_earlier_versions_is_kept(tmp_path):
    """Its images, written down from that version: a permutation of numpy's default_rng(0)."""
    some(tmp_path, 10, "{}x")
    data = build(tmp_path, split_bounds=[], classes=["a", "b", "c"])
    assert names(data)["val"] == ["4x", "6x"] and "split_bounds" not in data.settled


def test_neighbouring_frames_that_are_split_apart_are_told(tmp_path, capsys):
    some(tmp_path, 10, "drive_{:04d}")
    build(tmp_path, classes=["a", "b", "c"])
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "neighbouring numbers" in error and "'drive_000" in error


def test_unrelated_names_give_no_warning(tmp_path, capsys):
    for word in ("cat", "dog", "cow", "hen", "bee"):
        write(tmp_path, word, np.zeros((3, 3)))
    build(tmp_path, classes=["a", "b", "c"])
    assert capsys.readouterr().err == ""


def test_splits_by_lists(tmp_path):
    some(tmp_path, 5)
    (tmp_path / "train.txt").write_text("a0\na1.png\r\n\nsub/../a2\n")
    (tmp_path / "val.txt").write_text("a4")
    lists = {"train_list": str(tmp_path / "train.txt"), "val_list": str(tmp_path / "val.txt")}
    assert names(build(tmp_path, **lists)) == {"train": ["a0", "a1", "a2"], "val": ["a4"]}
    (tmp_path / "val.txt").write_text("a1")
    with pytest.raises(
        DataError,
        match=r"1 image is in both lists, 'a1' first; remove what is twice from data\.train_list or",
    ):
        build(tmp_path, **lists)
    (tmp_path / "val.txt").write_text("a4\na44")
    with pytest.raises(
        DataError, match=r"val\.txt, line 2: 'a44' is not the name of an image.*did you mean 'a4'"
    ):
        build(tmp_path, **lists)
    with pytest.raises(ConfigError, match="go together"):
        build(tmp_path, train_list=lists["train_list"])
    with pytest.raises(ConfigError, match=r"data\.val_list is '.*no\.txt', which is not a file"):
        build(tmp_path, train_list=lists["train_list"], val_list=str(tmp_path / "no.txt"))


def test_lists_begin_below_the_root_or_in_the_current_folder(tmp_path, monkeypatch):
    some(tmp_path / "root", 3)
    (tmp_path / "root" / "train.txt").write_text("a0")
    (tmp_path / "train.txt").write_text("a2")
    (tmp_path / "val.txt").write_text("a1")
    monkeypatch.chdir(tmp_path)
    found = names(build(tmp_path / "root", train_list="train.txt", val_list="val.txt"))
    assert found == {"train": ["a0"], "val": ["a1"]}


def test_lists_have_comments_and_name_no_image_twice(tmp_path):
    some(tmp_path, 5)
    write(tmp_path, "#a", np.zeros((4, 6)))
    (tmp_path / "train.txt").write_text("# by hand\na0\n\na1\n./#a\n")
    (tmp_path / "val.txt").write_text("a4\n#a3\n")
    lists = {"train_list": str(tmp_path / "train.txt"), "val_list": str(tmp_path / "val.txt")}
    assert names(build(tmp_path, **lists)) == {"train": ["a0", "a1", "#a"], "val": ["a4"]}
    (tmp_path / "train.txt").write_text("# by hand\na0\n\na1\n./a0.png\n")
    with pytest.raises(
        DataError,
        match=r"train\.txt, line 5: '\./a0\.png' is the image of line 2 again; name each image once",
    ):
        build(tmp_path, **lists)


@pytest.mark.parametrize("line", ["../outside", "/etc/passwd", "images/../../outside"])
def test_lists_do_not_lead_out_of_the_folder(tmp_path, line):
    some(tmp_path / "data", 5)
    (tmp_path / "train.txt").write_text(line)
    (tmp_path / "val.txt").write_text("a4")
    with pytest.raises(DataError, match=r"leads to .* outside of|is not the name of"):
        build(tmp_path / "data", train_list=str(tmp_path / "train.txt"), val_list=str(tmp_path / "val.txt"))


def test_links_out_of_the_root_are_refused_and_links_inside_work(tmp_path):
    some(tmp_path / "data", 3)
    Image.fromarray(np.zeros((4, 6), np.uint8)).save(tmp_path / "secret.png")
    (tmp_path / "data/images/b.png").symlink_to(tmp_path / "data/images/a0.png")
    (tmp_path / "data/masks/b.png").symlink_to(tmp_path / "data/masks/a0.png")
    assert sum(map(len, build(tmp_path / "data").splits.values())) == 4
    (tmp_path / "data/images/c.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(DataError, match=r"c\.png leads to .*secret\.png, outside of"):
        build(tmp_path / "data")


def test_a_link_to_a_folder_above_does_not_hang(tmp_path):
    some(tmp_path, 3)
    (tmp_path / "images/loop").symlink_to(tmp_path / "images")
    assert sum(map(len, build(tmp_path).splits.values())) == 3


def test_unpaired_files_are_listed(tmp_path):
    some(tmp_path, 9)
    for number in range(7):
        (tmp_path / f"masks/a{number}.png").unlink()
    with pytest.raises(
        DataError, match=r"7 images have no mask of the same name: .*a0\.png, .*a4\.png and 2 more"
    ):
        build(tmp_path)
    some(tmp_path, 9)
    (tmp_path / "images/a3.png").unlink()
    with pytest.raises(DataError, match=r"1 mask has no image of the same name: .*a3\.png"):
        build(tmp_path)


def test_no_pair_at_all_names_both_folders(tmp_path):
    some(tmp_path, 3)
    for path in list((tmp_path / "masks").iterdir()):
        path.rename(path.with_name("label_" + path.name))
    with pytest.raises(
        DataError,
        match=r"no image in .*images \(3 found, .a0. first\) has a mask .* in .*masks \(3 found, .label_a0. first\)",
    ):
        build(tmp_path)


def test_mask_suffix(tmp_path):
    some(tmp_path, 4)
    for path in list((tmp_path / "masks").iterdir()):
        path.rename(path.with_name(path.stem + "_mask.png"))
    assert sum(map(len, build(tmp_path, mask_suffix="_mask").splits.values())) == 4


def test_masks_of_photographs_that_were_labelled_unturned(tmp_path):
    some(tmp_path, 4)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn
    for name, size in (("a1", (9, 5)), ("a2", (9, 6))):
        Image.new("RGB", size).save(tmp_path / f"images/{name}.png", exif=exif)
        Image.new("L", (9, 5)).save(tmp_path / f"masks/{name}.png")
    splits = build(tmp_path).splits.values()
    headers = itertools.chain(*(split.headers(range(len(split))) for split in splits))
    first, second = (str(one) for one in headers if isinstance(one, DataError))
    if "a2" in first:
        first, second = second, first
    assert "is 9x5 and its mask" in first and "unturned, remove that entry (exiftool" in first
    assert "is 9x6 and its mask" in second and "exiftool" not in second


def test_two_files_of_one_name(tmp_path):
    some(tmp_path, 3)
    write(tmp_path, "a1", np.zeros((4, 6)), suffix="bmp")
    with pytest.raises(DataError, match=r"a1\.(png|bmp) and .*a1\.(png|bmp) share one name"):
        build(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"root": "/no/such"}, r"data\.root is '/no/such', which is not a folder"),
        ({"root": None, "images": "/tmp"}, r"data\.images and data\.masks are missing"),
        ({"images": "nothere"}, r"data\.images is '.*nothere', which is not a folder"),
        ({"masks": "nothere"}, r"data\.masks is '.*nothere', which is not a folder"),
        ({"classes": "none.txt"}, r"data\.classes is 'none\.txt', which is not a file"),
        ({"classes": ["a", "a"]}, r"the name 'a' twice"),
        ({"classes": ["a 0 0 0", "b"]}, r"gives colours to 1 of 2 classes, 'b' has none"),
        ({"classes": ["a 0 0 0", "b 0 0 0"]}, r"the colour \(0, 0, 0\) twice"),
        ({"classes": ["a 0 0 256"]}, "three numbers from 0 to 255"),
        ({"classes": []}, "names 0 classes"),
        ({"classes": [f"c{n}" for n in range(256)]}, "names 256 classes; allowed: 1 to 255"),
        (
            {"classes": ["a", "b", "c"], "ignore_value": 2},
            r"data\.ignore_value is 2, which is a class index; allowed: 3\.\.65535",
        ),
        ({"ignore_value": 0}, r"data\.label_map|ignore_value"),
        ({"classes": ["a", "b"], "label_map": {0: 0, 1: 2}}, r"data\.label_map leads to 2; allowed: 0\.\.1"),
        ({"label_map": {"x": 0}}, r"data\.label_map has 'x'"),
        ({"label_map": {7: 256}}, r"data\.label_map\.7 is 256; allowed: from 0 to 255"),
        (
            {"label_map": {0: 0, 1: 2, 2: 2}},
            r"data\.label_map leads to the class indices 0, 2; they must run",
        ),
        ({"val_fraction": 1.0}, r"data\.val_fraction is 1\.0; allowed: above 0 and below 1"),
    ],
)
def test_wrong_options(tmp_path, options, message):
    some(tmp_path, 6)
    with pytest.raises((ConfigError, DataError), match=message) as caught:
        build(tmp_path, **options)
    if "ignore_value" not in options:
        assert caught.type is ConfigError


def test_classes_are_found_once_and_remembered(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(per_file, "CLOCK_S", 0)
    some(tmp_path, 6)
    write(tmp_path, "b", [[255, 255], [0, 1]])
    data = build(tmp_path)
    assert data.facts.classes == ("class_0", "class_1", "class_2")
    assert (
        "reading 7 masks once" in (first := capsys.readouterr().err)
        and "0 (49 px), 1 (49 px), 2 (48 px)" in first
    )
    build(tmp_path)
    assert "reading" not in capsys.readouterr().err
    write(tmp_path, "b", [[0, 0], [0, 3]])
    assert len(build(tmp_path).facts.classes) == 4


def test_gaps_are_refused_with_the_map_that_closes_them(tmp_path):
    for number in range(6):
        write(tmp_path, f"{number}", np.full((2, 2), [7, 11, 255][number % 3]))
    with pytest.raises(
        DataError,
        match=r"masks hold 7 \(8 px\), 11 \(8 px\), 255 \(8 px, no label\); set data\.label_map='\{7: 0, 11: 1\}'",
    ):
        build(tmp_path)
    data = build(tmp_path, label_map={7: 0, 11: 1, 255: 255})
    assert {int(sample.target[0, 0]) for split in data.splits.values() for sample in split} == {0, 1, 255}


def test_strays_in_masks_of_0_and_255_are_no_class(tmp_path):
    mask = np.full((8, 8), 255)
    mask[:4], mask[5, 5] = 0, 254
    for number in range(6):
        write(tmp_path, f"{number}", mask)
    with pytest.raises(
        DataError,
        match=r"look like masks of 0 \(192 px\) and 255 \(186 px\) .* each pixel 0 or 255",
    ) as caught:
        build(tmp_path)
    assert "254: 1" not in str(caught.value)


def test_a_few_shades_at_the_edges_of_masks_of_0_and_255_are_no_classes(tmp_path):
    mask = np.zeros((64, 64), np.uint8)
    mask[16:40, 20:50] = 255
    for number in range(4):
        write(tmp_path, f"{number}", cv2.GaussianBlur(mask, (0, 0), 1))
    with pytest.raises(DataError, match=r"values, and look like masks of 0 .* smoothed edges"):
        build(tmp_path)


@pytest.mark.parametrize(
    ("options", "missing"),
    [
        ({}, r"set data\.classes=\[background,foreground\] data\.label_map"),
        ({"label_map": {0: 0, 255: 1}}, r"without data\.classes there are none"),
        ({"classes": ["a", "b"]}, r"none are given; set data\.label_map"),
    ],
)
def test_lossy_masks_say_what_else_they_need(tmp_path, options, missing):
    """Nothing is read for it: what reads the masks would refuse them, and propose the option that is set."""
    for number in range(4):
        write(tmp_path, f"{number}", np.zeros((8, 8)))
        Image.new("L", (8, 8)).save(tmp_path / "masks" / f"{number}.jpg")
        (tmp_path / "masks" / f"{number}.png").unlink()
    with pytest.raises(ConfigError, match=missing):
        build(tmp_path, lossy_masks=True, **options)


def test_smoothed_edges_of_masks_of_0_and_255_are_no_classes(tmp_path):
    mask = np.zeros((64, 64), np.uint8)
    mask[16:, 20:] = 255
    mask[:4] = np.arange(256).reshape(4, 64)
    for number in range(4):
        write(tmp_path, f"{number}", mask)
    with pytest.raises(DataError, match=r"hold 256 values, and look like masks of 0 \(") as caught:
        build(tmp_path)
    with pytest.raises(DataError, match="smoothed edges") as of_named:
        build(tmp_path, classes=["a", "b"])
    assert "set data.lossy_masks=true data.label_map='{0: 0, 255: 1}', which takes" in str(of_named.value)
    typed = re.search(r"set (data\.lossy_masks.*?), which", str(caught.value))[1]
    assert typed == (
        "data.lossy_masks=true data.classes=[background,foreground] data.label_map='{0: 0, 255: 1}'"
    )
    options = {"lossy_masks": True, "classes": ["background", "foreground"], "label_map": {0: 0, 255: 1}}
    splits = build(tmp_path, **options).splits.values()
    for sample in itertools.chain(*splits):
        assert np.array_equal(sample.target, mask > 127)
    assert len(build(tmp_path, classes=[f"class {index}" for index in range(255)]).facts.classes) == 255


def test_many_classes_with_pixels_of_no_label_are_classes(tmp_path):
    mask = np.arange(4096, dtype=np.uint32).reshape(64, 64) % 150  # as in ADE20K
    mask[:20] = 255
    mask[20:50] = 3
    for number in range(4):
        write(tmp_path, f"{number}", mask.astype(np.uint8))
    assert len(build(tmp_path).facts.classes) == 150


def test_palettes_that_number_the_colours_of_each_file_anew_are_refused(tmp_path):
    colours = np.array([[0, 0, 0], [200, 0, 0], [0, 200, 0]], np.uint8)
    mask = np.array([[0, 1], [2, 2]])
    for number, order in enumerate([[0, 1, 2], [1, 2, 0], [0, 1, 2], [0, 1, 2]]):
        write(tmp_path, f"{number}", mask)
        image = Image.fromarray(np.argsort(order)[mask].astype(np.uint8), mode="P")
        image.putpalette(colours[order].tobytes())
        image.save(tmp_path / f"masks/{number}.png")
    with pytest.raises(
        DataError, match=r"index 0 is the colour \[0, 0, 0\] .*masks.0\.png, and \[200, 0, 0\]"
    ):
        build(tmp_path)
    (tmp_path / "c.txt").write_text("a 0 0 0\nb 200 0 0\nc 0 200 0\n")
    splits = build(tmp_path, classes="c.txt").splits.values()
    assert all(np.array_equal(sample.target, mask) for split in splits for sample in split)
    assert len(build(tmp_path, label_map={0: 0, 1: 1, 2: 2}).facts.classes) == 3


def test_pixels_without_label_are_counted_with_the_classes(tmp_path, capsys):
    for number in range(6):
        write(tmp_path, f"{number}", [[0, 1 if number % 2 else 255]])
    assert len(build(tmp_path).facts.classes) == 2
    assert "found 2 classes in 6 masks: 0 (6 px), 1 (3 px), 255 (3 px, no label);" in capsys.readouterr().err


@pytest.mark.parametrize("options", [{}, {"classes": ["a", "b"]}])
def test_masks_without_any_label_are_refused(tmp_path, options):
    for number in range(6):
        write(tmp_path, f"{number}", np.full((2, 2), 255))
    with pytest.raises(
        DataError, match=r"masks of 6 images hold no value but 255 \(no label\), .*0\.png first"
    ):
        build(tmp_path, **options)


@pytest.mark.parametrize(
    ("classes", "remedy"),
    [
        (["a", "b", "c"], r"set data\.label_map='\{0: 0, 255: 1\}'"),
        (["crack"], r"give data\.classes two names"),
    ],
)
def test_masks_of_0_and_255_for_other_than_two_classes_are_told(tmp_path, capsys, classes, remedy):
    for number in range(10):
        for split in ("train", "val"):
            write(tmp_path, f"{split}/{number}", [[0, 255], [255, 0]])
    build(tmp_path, classes=classes)
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and re.search(
        rf"masks hold only 0 and 255, .* 255 is read as no label; .*, {remedy}", error
    )
    for options in (
        {"label_map": {0: 0, 255: 255}},
        {"ignore_value": 254},
        {"classes": ["a 0 0 0", "b 1 1 1", "c 2 2 2"]},
    ):
        build(tmp_path, **{"classes": classes, **options})
    write(tmp_path, "train/0", [[0, 255], [0, 2]])
    build(tmp_path, classes=classes)
    assert capsys.readouterr().err == ""


def test_a_damaged_mask_is_told_when_it_is_read(tmp_path):
    some(tmp_path, 6)
    (tmp_path / "masks/a0.png").write_bytes(b"no image")
    (problem,) = problems(build(tmp_path, classes=["a", "b", "c"]))
    assert "a0.png is not an image" in problem.message


def test_masks_of_0_and_255_as_rgb_are_two_classes(tmp_path):
    for number in range(6):
        write(tmp_path, f"{number}", np.repeat([[[0], [255]], [[255], [0]]], 3, axis=2))
    data = build(tmp_path)
    assert data.facts.classes == ("background", "foreground") and data.splits["train"][0].target.tolist() == [
        [0, 1],
        [1, 0],
    ]


def test_palette_masks_out_of_coloured_ones_are_read_by_colour(tmp_path):
    colours = np.array([(10, 20, 30), (200, 0, 0), (0, 0, 200)], np.uint8)
    (tmp_path / "classes.txt").write_text("sky 10 20 30\nroad 200 0 0\ncar 0 0 200\n")
    mask = np.array([[1, 1, 1], [0, 0, 1], [2, 2, 0]])
    for number in range(4):
        write(tmp_path, f"{number}", mask)
        quantised = Image.fromarray(colours[mask]).convert("P", palette=Image.Palette.ADAPTIVE, colors=3)
        assert not np.array_equal(
            np.asarray(quantised), mask
        )  # its palette has another order than the classes
        quantised.save(tmp_path / f"masks/{number}.png")
    data = build(tmp_path, classes="classes.txt")
    assert all(np.array_equal(sample.target, mask) for split in data.splits.values() for sample in split)


def test_masks_of_0_and_255_are_two_classes(tmp_path, capsys):
    for number in range(6):
        write(tmp_path, f"{number}", [[0, 255], [255, 0]])
    for options, expected in (
        ({}, ("background", "foreground")),
        ({"classes": ["sky", "bird"]}, ("sky", "bird")),
    ):
        data = build(tmp_path, **options)
        assert data.facts.classes == expected
        assert data.splits["train"][0].target.tolist() == [[0, 1], [1, 0]]
    assert "0 and 255 only" in capsys.readouterr().err


def test_named_classes_are_not_scanned(tmp_path, capsys):
    some(tmp_path, 6, "x{}y")
    build(tmp_path, classes=["a", "b", "c"])
    assert "masks once" not in capsys.readouterr().err


def test_class_file_with_colours(tmp_path):
    colours = {"sky": (1, 2, 3), "traffic light": (250, 170, 30)}
    lines = "".join(f"{name} {' '.join(map(str, colour))}\n" for name, colour in colours.items())
    (tmp_path / "classes.txt").write_text("# what we label\n" + lines + "ignore 0 0 0\n")
    for number in range(4):
        write(tmp_path, f"{number}", [[(1, 2, 3), (250, 170, 30)], [(0, 0, 0), (1, 2, 3)]])
    data = build(tmp_path, classes="classes.txt")
    assert data.facts.classes == ("sky", "traffic light") and data.facts.palette == tuple(colours.values())
    assert data.splits["val"][0].target.tolist() == [[0, 1], [255, 0]]


def test_coloured_masks_without_colours(tmp_path):
    for number in range(4):
        write(tmp_path, f"{number}", np.eye(3)[[[0, 1], [2, 0]]])
    with pytest.raises(DataError, match=r"\.png is coloured \(RGB\); set data\.classes"):
        build(tmp_path)
    with pytest.raises(DataError, match="is coloured"):
        build(tmp_path, classes=["a", "b", "c"]).splits["train"][0]


def test_sizes_must_agree_and_check_lists_every_bad_sample(tmp_path):
    some(tmp_path, 6)
    write(tmp_path, "b", np.zeros((4, 6)), size=(5, 6))
    write(tmp_path, "c", np.full((4, 6), 9))
    (tmp_path / "images/a2.png").write_bytes((tmp_path / "images/a2.png").read_bytes()[:40])
    data = build(tmp_path, classes=["x", "y", "z"])
    found = {problem.name.rsplit("/")[-1]: problem.message for problem in problems(data)}
    assert set(found) == {"a2.png", "b.png", "c.png"}
    assert "b.png is 5x6 and its mask" in found["b.png"] and "b.png is 4x6 (height x width)" in found["b.png"]
    assert "holds 9 (24 px); allowed: 0..2 and 255" in found["c.png"]


@pytest.mark.parametrize("name", ["straße ü", "two words", "new\nline", "日本", "quote'\"", "-dash"])
def test_odd_names_work_and_are_printed_escaped(tmp_path, name):
    some(tmp_path, 3)
    write(tmp_path, name, np.full((4, 6), 9))
    data = build(tmp_path, classes=["a", "b", "c"])
    (problem,) = problems(data)
    assert "\n" not in problem.message and "holds 9" in problem.message
    write(tmp_path, name, np.full((4, 6), 2))
    assert list(problems(build(tmp_path, classes=["a", "b", "c"]))) == []


def test_names_that_are_no_utf8_work(tmp_path):
    some(tmp_path, 3)
    write(tmp_path, "odd", np.full((4, 6), 9))
    for kind in ("images", "masks"):
        (tmp_path / kind / "odd.png").rename((tmp_path / kind).as_posix() + "/\udcff.png")
    (problem,) = problems(build(tmp_path, classes=["a", "b", "c"]))
    assert "\\udcff" in problem.message and problem.message.isascii()
    build(tmp_path, label_map={0: 0, 1: 1, 2: 2, 9: 2})


def test_byte_order_marks_of_windows_editors_are_passed_over(tmp_path):
    some(tmp_path, 4)
    (tmp_path / "classes.txt").write_text("\ufeffsky\nroad\ncar\n", encoding="utf-8")
    for name, lines in (("train.txt", "a0\na1\n"), ("val.txt", "a2\na3\n")):
        (tmp_path / name).write_text("\ufeff" + lines, encoding="utf-8")
    lists = {"train_list": str(tmp_path / "train.txt"), "val_list": str(tmp_path / "val.txt")}
    data = build(tmp_path, classes="classes.txt", **lists)
    assert data.facts.classes == ("sky", "road", "car")
    assert names(data) == {"train": ["a0", "a1"], "val": ["a2", "a3"]}


def test_lossy_masks_take_the_nearest_class(tmp_path):
    rng = np.random.default_rng(0)
    mask = np.kron(rng.integers(0, 2, (6, 8)), np.ones((5, 5))).astype(np.uint8) * 200
    for number in range(4):
        write(tmp_path, f"{number}", mask)
        Image.fromarray(mask).save(tmp_path / f"masks/{number}.jpg", quality=90)
        (tmp_path / f"masks/{number}.png").unlink()
    assert len(np.unique(np.asarray(Image.open(tmp_path / "masks/0.jpg")))) > 2
    options = {"classes": ["a", "b"], "label_map": {0: 0, 200: 1}}
    with pytest.raises(DataError, match=r"0\.jpg is a JPEG"):
        build(tmp_path, **options).splits["train"].target(0)
    data = build(tmp_path, lossy_masks=True, **options)
    assert np.array_equal(data.splits["train"].target(0), mask // 200)
