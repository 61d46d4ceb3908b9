"""The warp against an independent reading of the same geometry, pixel by pixel."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from segtrain.augmentation import AUGMENTATION
from segtrain.augmentation.class_pixel import pixel_of_a_class
from segtrain.augmentation.warp import Placement, warped
from segtrain.data import DATA
from segtrain.data.survey.stats import Frequency
from segtrain.errors import ConfigError
from segtrain.sample import IGNORE, Sample


def scene(height=40, width=56, seed=0, classes=5, dtype=np.uint8):
    """Blocks of classes; the image carries the mask in its first channel (×20), so that both can be compared
    afterwards."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, classes, (height // 4 + 1, width // 4 + 1)).astype(np.uint8)
    target = np.kron(coarse, np.ones((4, 4), np.uint8))[:height, :width]
    image = np.stack([target * 20, *rng.integers(0, 256, (2, height, width))], axis=2).astype(dtype)
    return Sample(image=image, target=target, instances=(target * 3).astype(np.uint16), name="scene")


def build(**options):
    runtime = {key: options.pop(key) for key in ("fill", "class_frequency") if key in options}
    (op,) = AUGMENTATION.build_each({"warp": options}, **runtime)
    return op


def read_one_by_one(array, place, outside):
    """Rotate, scale and mirror the centre of each output pixel by hand and take the pixel that it falls
    in."""
    out = np.full((place.height, place.width, *array.shape[2:]), outside, array.dtype)
    angle = np.deg2rad(place.degrees)
    for i in range(place.height):
        for j in range(place.width):
            right, down = (
                (j + 0.5 - place.width / 2) / place.scale,
                (i + 0.5 - place.height / 2) / place.scale,
            )
            right = -right if place.flipped else right
            x = place.centre[0] + right * np.cos(angle) - down * np.sin(angle)
            y = place.centre[1] + right * np.sin(angle) + down * np.cos(angle)
            if 0 <= x < array.shape[1] and 0 <= y < array.shape[0]:
                out[i, j] = array[int(y), int(x)]
    return out


PLACES = [
    Placement(30, 30, 1.0, 0.0, False, (25.0, 20.0)),
    Placement(31, 47, 1.37, 0.0, True, (20.3, 11.9)),
    Placement(33, 20, 0.61, 0.0, False, (27.01, 20.2)),
    Placement(40, 44, 1.21, 33.0, True, (30.4, 17.7)),
    Placement(40, 40, 0.8, -121.0, False, (30.4, 17.7)),
    Placement(24, 24, 2.9, 7.0, False, (3.3, 2.2)),
]


@pytest.mark.parametrize("place", PLACES)
def test_labels_are_those_of_the_pixel_that_each_centre_falls_in(place):
    sample = scene()
    found = warped(sample, place)
    assert np.array_equal(found.target, read_one_by_one(sample.target, place, IGNORE))
    assert np.array_equal(found.instances, read_one_by_one(sample.instances, place, 0))


@pytest.mark.parametrize("place", [place for place in PLACES if place.scale >= 0.7])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_image_and_mask_stay_aligned(place, dtype):
    """The mask's own picture, warped as an image: where it is not interpolated between classes it names the
    label."""
    sample = scene(dtype=dtype)
    found = warped(sample, place)
    assert found.image.dtype == dtype
    carried = found.image[..., 0].astype(float)
    settled = (found.target != IGNORE) & (np.abs(carried / 20 - np.round(carried / 20)) < 1e-6)
    agree = np.round(carried[settled] / 20) == found.target[settled]
    assert settled.mean() > 0.1 and agree.mean() > 0.9  # in between, 0..2 may pass through 1


@pytest.mark.parametrize("place", [place for place in PLACES if place.scale >= 0.7])
def test_images_are_bilinear(place):
    """On a linear ramp bilinear interpolation is exact, so each pixel shows the coordinates it was read
    from."""
    y, x = np.mgrid[:40, :56].astype(np.float32)
    ramp = np.stack([x + 0.5, y + 0.5, x + y], axis=2)
    found = warped(Sample(ramp, np.zeros((40, 56), np.uint8)), place)
    matrix = place.matrix()
    j, i = np.meshgrid(np.arange(place.width) + 0.5, np.arange(place.height) + 0.5)
    for axis, limit in ((0, 56), (1, 40)):
        expected = matrix[axis, 0] * j + matrix[axis, 1] * i + matrix[axis, 2]
        other = matrix[1 - axis, 0] * j + matrix[1 - axis, 1] * i + matrix[1 - axis, 2]
        inner = (
            (expected > 1) & (expected < limit - 1) & (other > 1) & (other < (40 if axis == 0 else 56) - 1)
        )
        assert (
            np.abs(found.image[..., axis] - expected)[inner].max() < 0.02
        )  # cv2 interpolates in steps of 1/32 pixel


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_nothing_drawn_is_nothing_changed(dtype):
    sample = scene(dtype=dtype)
    found = build(scale=[1.0, 1.0], flip=0.0)(sample, np.random.default_rng(0))
    for name in ("image", "target", "instances"):
        assert np.array_equal(getattr(found, name), getattr(sample, name))


def test_two_flips_are_none():
    op = build(scale=[1.0, 1.0], flip=1.0)
    sample = scene()
    once = op(sample, np.random.default_rng(0))
    assert np.array_equal(once.image, sample.image[:, ::-1]) and np.array_equal(
        once.target, sample.target[:, ::-1]
    )
    twice = op(once, np.random.default_rng(1))
    assert np.array_equal(twice.image, sample.image) and np.array_equal(twice.instances, sample.instances)


@pytest.mark.parametrize("side", [40, 41])
def test_four_quarter_turns_are_none_and_one_is_counter_clockwise(side):
    sample = turned = scene(side, side)
    for turn in range(4):
        turned = warped(turned, Placement(side, side, 1.0, 90.0, False, (side / 2, side / 2)))
        assert np.array_equal(turned.target, np.rot90(sample.target, turn + 1))
        assert np.array_equal(turned.image, np.rot90(sample.image, turn + 1))


def test_the_sample_given_is_left_alone():
    sample = scene()
    kept = replace(sample, image=sample.image.copy(), target=sample.target.copy())
    for array in (sample.image, sample.target, sample.instances):
        array.flags.writeable = False
    for seed in range(10):
        build(size=64, rotate=30.0)(sample, np.random.default_rng(seed))
    assert np.array_equal(sample.image, kept.image) and np.array_equal(sample.target, kept.target)


OPTIONS = [
    {"size": 32},
    {"size": (24, 48), "scale": (0.4, 0.9), "rotate": 45.0},
    {"size": 96, "class_centred": 1.0},
    {"scale": (0.2, 5.0), "scale_law": "log"},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_labels_never_grow_and_the_size_holds(options):
    op, sample = build(**options), scene()
    for seed in range(30):
        found = op(sample, np.random.default_rng(seed))
        size = options.get("size", (40, 56))
        assert (
            found.target.shape
            == found.image.shape[:2]
            == ((size, size) if isinstance(size, int) else tuple(size))
        )
        assert set(np.unique(found.target).tolist()) <= {*np.unique(sample.target).tolist(), IGNORE}
        assert set(np.unique(found.instances).tolist()) <= {*np.unique(sample.instances).tolist(), 0}
        assert found.image.dtype == found.target.dtype == np.uint8 and found.instances.dtype == np.uint16


def test_what_is_ignored_stays_ignored():
    sample = scene()
    sample.target[10:30, 10:40] = IGNORE
    for place in PLACES:
        found, marked = (
            warped(sample, place),
            warped(replace(sample, target=np.where(sample.target == IGNORE, 1, 0).astype(np.uint8)), place),
        )
        assert np.array_equal(found.target == IGNORE, marked.target != 0)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [(np.uint8, (124, 116, 104)), (np.uint16, (31868, 29812, 26728)), (np.float32, None)],
)
def test_outside_lies_the_fill_without_a_label(dtype, expected):
    fill = (124.0, 116.0, 104.0)
    found = warped(scene(dtype=dtype), Placement(64, 64, 1.0, 0.0, False, (28.0, 20.0)), IGNORE, fill)
    outside = np.ones((64, 64), bool)
    outside[12:52, 4:60] = False
    assert np.array_equal(found.target == IGNORE, outside) and (found.instances[outside] == 0).all()
    assert np.allclose(found.image[outside], expected or np.array(fill) / 255)


@pytest.mark.parametrize("scale", [0.5, 0.75, 1.5, 2.0])
def test_crop_first_is_resize_then_crop(scale):
    """Labels of the window against the whole frame resized (pixel-centred nearest, in whole numbers) and then
    cut."""
    split = DATA.build({"name": "shapes", "size": 160}).splits["train"]
    differing = total = 0
    for seed in range(6):
        sample = split[seed]
        op = build(size=64, scale=[scale, scale], flip=0.0)
        place = op.placement(sample, np.random.default_rng(seed))
        side = round(160 * scale)
        nearest = (2 * np.arange(side) + 1) * 160 // (2 * side)
        whole = sample.target[nearest][:, nearest]
        left, top = (round(c * scale - 32) for c in place.centre)
        differing += (warped(sample, place).target != whole[top : top + 64, left : left + 64]).sum()
        total += 64 * 64
    assert differing / total <= 0.001


@pytest.mark.parametrize("scale", [0.25, 0.4, 0.6])
def test_shrinking_does_not_alias(scale):
    """Against Pillow's antialiased resize; plain bilinear is several times as far off on fine noise."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (200, 200, 3), dtype=np.uint8)
    side = round(200 * scale)
    reference = np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR)).astype(
        float
    )
    place = Placement(side, side, side / 200, 0.0, False, (100.0, 100.0))
    found = warped(Sample(image, np.zeros((200, 200), np.uint8)), place).image.astype(float)
    error, spread = (found - reference)[2:-2, 2:-2].std(), reference.std()
    plain = image[(np.arange(side) / place.scale).astype(int)][:, (np.arange(side) / place.scale).astype(int)]
    assert error < 0.6 * spread and error < 0.35 * (plain - reference).std()
    flat = warped(Sample(np.full((200, 200, 3), 77, np.uint8), np.zeros((200, 200), np.uint8)), place).image
    assert (flat == 77).all()


def test_many_channels_are_warped_like_three():
    sample = scene()
    many = replace(sample, image=np.concatenate([sample.image] * 3, axis=2)[..., :7])
    for place in PLACES:
        found, three = warped(many, place).image, warped(sample, place).image
        assert (
            found.shape[2] == 7
            and np.array_equal(found[..., :3], three)
            and np.array_equal(found[..., 3:6], three)
        )


@pytest.mark.parametrize("rotate", [0.0, 20.0])
def test_crops_lie_inside_the_image_where_they_can(rotate):
    op = build(size=24, scale=[1.0, 2.0], rotate=rotate)
    sample = scene()
    for seed in range(50):
        assert (op(sample, np.random.default_rng(seed)).target != IGNORE).mean() > (
            0.999 if rotate == 0 else 0.97
        )
    op = build(size=100, scale=[1.0, 1.0])
    for seed in range(20):  # larger than the image: all of it is there
        assert (op(sample, np.random.default_rng(seed)).target != IGNORE).sum() == 40 * 56


def rare_scene():
    target = np.zeros((200, 200), np.uint8)
    target[100:, :] = 1
    target[50:53, 60:63] = 2
    return Sample(np.zeros((200, 200, 3), np.uint8), target)


def test_class_centred_crops_hold_the_rare_class():
    sample = rare_scene()
    plain, centred = build(size=32, scale=[1.0, 1.0]), build(size=32, scale=[1.0, 1.0], class_centred=1.0)
    share = [
        np.mean([(op(sample, np.random.default_rng(s)).target == 2).any() for s in range(300)])
        for op in (plain, centred)
    ]
    assert share[0] < 0.1 and 0.25 < share[1] < 0.48  # a third of the draws, and the luck of the others


def test_the_drawn_pixel_falls_anywhere_in_the_crop():
    sample = rare_scene()
    sample.target[:] = 0
    sample.target[100, 100] = 1
    op = build(size=32, scale=[1.0, 1.0], class_centred=1.0, flip=0.0)
    places = []
    for seed in range(600):
        found = np.argwhere(op(sample, np.random.default_rng(seed)).target == 1)
        places += found.tolist()
    places = np.array(places)
    assert len(places) > 250
    assert places.min() <= 2 and places.max() >= 29 and np.abs(places.mean(0) - 15.5).max() < 2


def test_rare_classes_are_drawn_by_the_root_of_their_frequency():
    sample = rare_scene()
    frequency = Frequency(np.array([10000, 100, 100]), np.array([1, 1, 1]))
    op = build(
        size=8,
        scale=[1.0, 1.0],
        class_centred=1.0,
        class_draw="sqrt_inverse",
        class_frequency=lambda: frequency,
    )
    rng = np.random.default_rng(0)
    places = [pixel_of_a_class(sample.target, op.class_weights, op.ignore_index, rng) for _ in range(3000)]
    drawn = np.bincount([sample.target[place] for place in places])
    assert np.abs(drawn / 3000 - np.array([1, 10, 10]) / 21).max() < 0.03


def test_a_sample_without_labels_is_cropped_all_the_same():
    sample = scene()
    sample.target[:] = IGNORE
    assert build(size=16, class_centred=1.0)(sample, np.random.default_rng(0)).target.shape == (16, 16)
    assert (
        build(size=16, class_centred=1.0)(replace(sample, target=None), np.random.default_rng(0)).target
        is None
    )


@pytest.mark.parametrize(("law", "expected"), [("uniform", 1.25), ("log", 1.0)])
def test_factors_follow_their_law(law, expected):
    op, sample = build(scale=[0.5, 2.0], scale_law=law), scene()
    factors = [op.placement(sample, np.random.default_rng(seed)).scale for seed in range(800)]
    assert 0.5 <= min(factors) < 0.53 and 1.9 < max(factors) <= 2.0
    assert abs(np.median(factors) - expected) < 0.08


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"size": 0}, "size"),
        ({"scale": [2.0, 1.0]}, "scale"),
        ({"size": [0, 9]}, "size"),
        ({"scale": [0.0, 1.0]}, "scale"),
        ({"scale": [1e-9, 1.0]}, "scale"),
        ({"rotate": 200.0}, "rotate"),
        ({"flip": 2.0}, "flip"),
    ],
)
def test_options_out_of_range(options, key):
    with pytest.raises(ConfigError, match=rf"augmentation\.warp\.{key}(\[0\])? is .*; allowed"):
        build(**options)


def test_outside_the_source_a_measured_value_is_unknown():
    place = Placement(height=8, width=8, scale=1.0, degrees=0.0, flipped=False, centre=(2.0, 2.0))
    sample = Sample(np.zeros((4, 4, 3), np.uint8), np.full((4, 4), 2.5, np.float32))
    target = warped(sample, place).target
    assert (
        np.array_equal(np.isfinite(target), np.pad(np.ones((4, 4), bool), 2))
        and (target[2:6, 2:6] == 2.5).all()
    )


@pytest.mark.parametrize("share", [0.75, 1.0])
def test_a_crop_keeps_to_the_largest_share_of_a_class(share):
    target = np.zeros((120, 120), np.uint8)
    target[:, 60:] = 1
    target[:20] = IGNORE
    sample = Sample(np.zeros((120, 120, 3), np.uint8), target)
    op = build(size=24, scale=[1.0, 1.0], max_class_share=share)
    crops = [op(sample, np.random.default_rng(seed)).target for seed in range(200)]
    counts = np.array([np.bincount(crop[crop != IGNORE], minlength=2) for crop in crops])
    within = np.mean(counts.max(axis=1) <= 0.75 * counts.sum(axis=1))
    # One crop in eight keeps to it by itself, and 1 - (7/8)**10 = 0.74 of those drawn up to ten times.
    assert (0.6 < within < 0.85) if share < 1 else within < 0.25
    with pytest.raises(ConfigError, match=r"warp.max_class_share"):
        build(size=24, max_class_share=0)


def test_a_crop_is_drawn_around_the_class_that_the_image_was_drawn_for():
    sample = replace(rare_scene(), focus=2)
    op = build(size=32, scale=[1.0, 1.0])
    assert all((op(sample, np.random.default_rng(seed)).target == 2).any() for seed in range(100))
