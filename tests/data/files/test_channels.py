"""Images of K channels, from bands, pages, arrays and several files; their mean and standard deviation."""

import io

import numpy as np
import pytest
import tifffile
from PIL import Image

from segtrain.data import DATA
from segtrain.data.files.channels import Channels
from segtrain.errors import ConfigError, DataError

K = 5


def noise(*shape, dtype=np.uint16, seed=0):
    return np.random.default_rng(seed).integers(0, 4000, shape).astype(dtype)


def write_bands(path, image):
    tifffile.imwrite(
        f"{path}.tif", image.transpose(2, 0, 1), photometric="minisblack", planarconfig="separate"
    )


def write_pages(path, image):
    tifffile.imwrite(f"{path}.tif", image.transpose(2, 0, 1), photometric="minisblack")


def write_array(path, image):
    np.save(f"{path}.npy", image)


def write_planes(path, image):
    np.save(f"{path}.npy", image.transpose(2, 0, 1))


def write_files(path, image):
    for channel, end in enumerate("abcde"):
        Image.fromarray(image[..., channel]).save(f"{path}_{end}.png")


KINDS = [
    (write_bands, K, "tif"),
    (write_pages, K, "tif"),
    (write_array, K, "npy"),
    (write_planes, K, "npy"),
    (write_files, ["_a", "_b", "_c", "_d", "_e"], "png"),
]


@pytest.fixture(params=KINDS, ids=lambda kind: kind[0].__name__)
def kind(request):
    return request.param


def some(root, write, number=6):
    images = []
    for place in range(number):
        for folder in ("images", "masks"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        images.append(noise(12, 10, K, seed=place))
        write(root / "images" / f"x{place}", images[-1])
        Image.fromarray(np.full((12, 10), place % 2, np.uint8)).save(root / "masks" / f"x{place}.png")
    return images


def test_all_kinds_give_one_image(tmp_path, kind):
    write, channels, suffix = kind
    (image,) = some(tmp_path, write, 1)
    path = str(tmp_path / "images" / ("x0_a.png" if suffix == "png" else f"x0.{suffix}"))
    source = Channels.of(channels)
    found = source.read(path)
    assert found.dtype == np.uint16 and np.array_equal(found, image)
    assert source.header(path) == (12, 10, "uint16") == source.headers([path])[0]


def test_a_folder_is_measured_on_its_training_split(tmp_path, kind, capsys):
    write, channels, _ = kind
    images = some(tmp_path, write)
    options = {"name": "folder", "root": str(tmp_path), "classes": ["a", "b"], "channels": channels}
    data = DATA.build(options)
    train = [int(data.splits["train"][place].name[1:]) for place in range(len(data.splits["train"]))]
    assert len(train) < len(images) and data.facts.channels == K
    pixels = np.stack([images[number] for number in train]).reshape(-1, K) / 65535
    assert np.allclose(data.facts.normalisation.mean, pixels.mean(0), rtol=1e-12)
    assert np.allclose(data.facts.normalisation.std, pixels.std(0), rtol=1e-9)
    sample = data.splits["train"][0]
    assert np.array_equal(sample.image, images[train[0]]) and sample.image.dtype == np.uint16
    assert "mean and std of 5 channels" in capsys.readouterr().err
    again = DATA.build({**options, **data.settled})  # what the run saves is not measured again
    assert again.facts == data.facts and "mean and std" not in capsys.readouterr().err


def test_bands_are_picked_by_number(tmp_path):
    (image,) = some(tmp_path, write_bands, 1)
    source = Channels.of([4, 2, 1])
    assert np.array_equal(source.read(str(tmp_path / "images/x0.tif")), image[..., [3, 1, 0]])
    with pytest.raises(DataError, match=r"x0\.tif has 5 bands, and data\.channels=\[1,6\] needs 6"):
        Channels.of([1, 6]).read(str(tmp_path / "images/x0.tif"))


def test_another_number_of_bands_is_found_in_the_header(tmp_path):
    some(tmp_path, write_bands)
    given = {"classes": ["a", "b"], "mean": [0.0] * K, "std": [1.0] * K}
    data = DATA.build({"name": "folder", "root": str(tmp_path), "channels": K, **given})
    write_bands(tmp_path / "images/x3", noise(12, 10, 4))
    split = next(split for split in data.splits.values() for pair in split.pairs if pair.name == "x3")
    errors = [header for header in split.headers(range(len(split))) if isinstance(header, DataError)]
    assert len(errors) == 1 and "x3.tif has 4 bands, and data.channels=5 needs 5" in str(errors[0])


def test_a_missing_file_of_a_channel_is_named(tmp_path):
    some(tmp_path, write_files)
    (tmp_path / "images/x2_d.png").unlink()
    with pytest.raises(DataError, match=r"x2_a\.png has no file x2_d beside it"):
        DATA.build({"name": "folder", "root": str(tmp_path), "channels": ["_a", "_b", "_c", "_d", "_e"]})


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([[None, {}]] * 4), r"a\.npy"),
        (np.zeros((4, 4, 3), np.complex64), "holds complex64; allowed: bool, integers and floats"),
        (np.zeros((4,)), "has the shape"),
        (np.zeros((0, 4, 3)), "has the shape"),
        (np.full((4, 4, 3), np.nan, np.float32), "48 values that are NaN or infinite"),
        (np.full((4, 4, 3), 1 << 30), "up to 16777216, which float32 holds exactly"),
        (np.zeros((4, 4, 2), np.uint8), r"a\.npy has 2 bands, and data\.channels=3 needs 3"),
    ],
)
def test_arrays_that_are_no_image_are_named(tmp_path, array, message):
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(DataError, match=message):
        Channels.of(3).read(str(tmp_path / "a.npy"))


def test_pickles_are_not_loaded(tmp_path):
    """An object array whose loading would write a file."""

    class Trap:
        def __reduce__(self):
            return open, (str(tmp_path / "trapped"), "w")

    np.save(tmp_path / "a.npy", np.array([Trap()], object), allow_pickle=True)
    with pytest.raises(DataError, match=r"a\.npy holds object"):
        Channels.of(3).read(str(tmp_path / "a.npy"))
    assert not (tmp_path / "trapped").exists()


def test_cut_arrays_and_huge_claims_are_named_before_they_are_read(tmp_path):
    np.save(tmp_path / "a.npy", noise(9, 8, K))
    data = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(data[:-1])
    with pytest.raises(DataError, match=r"a\.npy is truncated"):
        Channels.of(K).read(str(tmp_path / "a.npy"))
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<u2", "fortran_order": False, "shape": (10**9, 10**9, K)}
    )
    (tmp_path / "a.npy").write_bytes(header.getvalue())
    with pytest.raises(DataError, match=r"a\.npy is truncated"):
        Channels.of(K).read(str(tmp_path / "a.npy"))


@pytest.mark.parametrize("dtype", ["<f8", ">f4", ">u2", "<i2", "|u1", "?"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_every_type(tmp_path, dtype, order):
    array = noise(6, 7, K, dtype=np.uint8).astype(dtype, order=order)
    np.save(tmp_path / "a.npy", array)
    found = Channels.of(K).read(str(tmp_path / "a.npy"))
    kept = {"u2": np.uint16, "u1": np.uint8, "?": np.uint8}.get(dtype[-2:].lstrip("|"), np.float32)
    kept = np.uint8 if dtype == "?" else kept
    assert found.dtype == kept
    assert np.array_equal(found, array.astype(np.uint8) * 255 if dtype == "?" else array)


@pytest.mark.parametrize(("mode", "bands"), [("L", 1), ("LA", 2), ("RGB", 3), ("P", 3), ("RGBA", 4)])
def test_pngs_have_the_bands_of_their_mode(tmp_path, mode, bands):
    image = (
        Image.fromarray(noise(6, 7, 4, dtype=np.uint8), "RGBA")
        .convert("RGB" if mode == "P" else "RGBA")
        .convert(mode)
    )
    image.save(tmp_path / "a.png")
    expected = np.asarray(image.convert("RGB") if mode == "P" else image).reshape(6, 7, bands)
    assert np.array_equal(Channels.of(bands).read(str(tmp_path / "a.png")), expected)
    with pytest.raises(DataError, match=rf"a\.png has {bands} bands?, and data\.channels=7"):
        Channels.of(7).header(str(tmp_path / "a.png"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": []}, r"data\.channels is \[\]"),
        ({"channels": [1, 1]}, r"data\.channels is \[1, 1\]"),
        ({"channels": ["_a", 1]}, r"data\.channels is"),
        ({"channels": 2, "mean": [0.1, 0.2]}, r"data\.mean and data\.std go together"),
        (
            {"channels": 2, "mean": [0.1], "std": [0.1]},
            r"data\.mean has 1 and data\.std 1 numbers; allowed: 2",
        ),
    ],
)
def test_options_that_contradict_each_other(tmp_path, options, message):
    some(tmp_path, lambda path, image: write_bands(path, image[..., :2]))
    with pytest.raises(ConfigError, match=message):
        DATA.build({"name": "folder", "root": str(tmp_path), "classes": ["a", "b"], **options})


def test_lossy_masks_take_the_nearest_class(tmp_path):
    mask = np.zeros((48, 48), np.uint8)
    mask[8:32, 16:40] = 255
    colours = np.array([[0, 0, 0], [200, 30, 60]], np.uint8)[mask // 255]
    for folder in ("images", "grey", "coloured"):
        (tmp_path / folder).mkdir()
    for place in range(2):
        Image.fromarray(colours).save(tmp_path / f"images/{place}.png")
        Image.fromarray(mask).save(tmp_path / f"grey/{place}.jpg", quality=70)
        Image.fromarray(colours).save(tmp_path / f"coloured/{place}.jpg", quality=90)
    options = {"name": "folder", "root": str(tmp_path), "lossy_masks": True}
    ways = {
        "grey": {"classes": ["a", "b"], "label_map": {0: 0, 255: 1}},
        "coloured": {"classes": ["a 0 0 0", "b 200 30 60"]},
    }
    for masks, way in ways.items():
        target = DATA.build({**options, "masks": masks, **way}).splits["train"][0].target
        wrong = target != mask // 255
        assert wrong.mean() < 0.06 and not wrong[12:28, 20:36].any() and not wrong[:4].any()
    with pytest.raises(ConfigError, match=r"data\.lossy_masks takes the nearest of given values"):
        DATA.build({**options, "masks": "grey", "classes": ["a", "b", "c"]})
