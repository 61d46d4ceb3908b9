"""Tiles: what must be equal is equal, however the image is cut."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from segtrain.errors import ConfigError
from segtrain.model.network import Network
from segtrain.predictor import tiles as module
from segtrain.predictor.predictor import predictor
from segtrain.predictor.tiles import aligned_starts, assembled, mirrored, overlap_tile, sliding, starts
from segtrain.sample import Normalisation, Output, Window
from segtrain.settings import PredictorSettings
from segtrain.tta import TTA


def test_tiles_are_averaged_where_they_overlap():
    calls = iter([1.0, 3.0])
    tiled = assembled(sliding(lambda x: torch.full((1, 1, *x.shape[-2:]), next(calls)), tile=4, overlap=0.5))
    assert tiled(torch.zeros(1, 3, 4, 6))[0, 0, 0].tolist() == [1.0, 1.0, 2.0, 2.0, 3.0, 3.0]


def test_every_pixel_is_the_mean_of_the_tiles_over_it():
    """Against a canvas that holds all of it: tiles in both directions, seven times over some rows."""
    values = torch.rand(1000, generator=torch.Generator().manual_seed(0)).tolist()
    height, width, tile, overlap = 40, 23, 8, 0.85
    total, count, calls = np.zeros((height, width)), np.zeros((height, width)), iter(values)
    for value, (top, left) in zip(
        values, itertools.product(starts(height, tile, overlap), starts(width, tile, overlap)), strict=False
    ):
        total[top : top + tile, left : left + tile] += value
        count[top : top + tile, left : left + tile] += 1
    strips = list(
        sliding(lambda x: torch.full((2, 1, *x.shape[-2:]), next(calls)), tile, overlap)(
            torch.zeros(2, 3, height, width)
        )
    )
    assert len(strips) == len(starts(height, tile, overlap)) and count.max() > 40
    got = torch.cat(strips, dim=-2)
    assert got.shape == (2, 1, height, width)
    np.testing.assert_allclose(got[1, 0].numpy(), total / count, rtol=1e-6)


@pytest.mark.parametrize("length", range(1, 80))
@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.75])
def test_tiles_cover_everything_with_the_overlap(length, overlap):
    tile = 16
    begins = starts(length, tile, overlap)
    covered = {i for start in begins for i in range(start, min(start + tile, length))}
    assert covered == set(range(length)) and begins[-1] == max(0, length - tile)
    assert all(b - a <= max(1, round(tile * (1 - overlap))) for a, b in itertools.pairwise(begins))


def test_large_images_are_tiled_unasked(monkeypatch):
    monkeypatch.setattr(module, "AUTO_TILE_PIXELS", 1000)
    monkeypatch.setattr(module, "AUTO_TILE", 20)
    seen = []
    tiled = assembled(
        sliding(lambda x: seen.append(tuple(x.shape[-2:])) or torch.zeros(1, 1, *x.shape[-2:]), None, 0.0)
    )
    tiled(torch.zeros(1, 3, 30, 50))
    assert len(seen) == 6 and set(seen) == {(20, 20)}


def test_strips_hold_no_more_than_a_row_of_tiles():
    strips = sliding(lambda x: torch.zeros(1, 7, *x.shape[-2:]), 16, 0.5)(torch.zeros(1, 3, 200, 64))
    assert max(strip.untyped_storage().nbytes() for strip in strips) <= 7 * 16 * 64 * 4


def test_a_wrong_overlap_is_refused():
    with pytest.raises(ConfigError, match=r"predictor.overlap is 1.0"):
        sliding(lambda x: x, 8, 1.0)


@pytest.mark.parametrize("length", [1, 2, 3, 7, 40])
def test_mirrored_indices_are_numpys(length):
    expected = np.pad(np.arange(length), (25, 31), mode="reflect")
    assert mirrored(-25, length + 56, length).tolist() == expected.tolist()


@pytest.mark.parametrize("length", range(1, 120))
@pytest.mark.parametrize(("tile", "step"), [(20, 16), (16, 16), (36, 16), (5, 4), (388, 16)])
def test_aligned_tiles_cover_everything(length, tile, step):
    begins = aligned_starts(length, tile, step)
    assert all(begin % step == 0 for begin in begins) and begins == sorted(set(begins))
    assert (
        all(b - a <= tile for a, b in itertools.pairwise(begins))
        and begins[0] == 0
        and begins[-1] + tile >= length
    )


class Valid(Network):
    """A U-Net of two levels without padding: sides of 16 + 2i give 16 + 2i - 12, and only even places may
    start a tile."""

    margin = 6
    tile_sides = (14, 2)

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.down, self.low = nn.Conv2d(3, 6, 5), nn.Conv2d(6, 6, 3)
        self.up, self.head = nn.ConvTranspose2d(6, 6, 2, 2), nn.Conv2d(12, 4, 5)
        self.double()

    def forward(self, x):
        side = x.shape[-1]
        assert x.shape[-2] == side and side >= 14 and side % 2 == 0, x.shape
        fine = self.down(x.double()).relu()
        deep = self.up(self.low(nn.functional.max_pool2d(fine, 2)).relu())
        cut = (fine.shape[-1] - deep.shape[-1]) // 2
        logits = self.head(torch.cat([fine[..., cut:-cut, cut:-cut], deep], dim=1))
        inner = side - 2 * self.margin
        assert logits.shape[-2:] == (inner, inner)
        return Output(logits, (inner, inner), window=Window(self.margin, self.margin, inner, inner))


NORM = Normalisation((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))


def run(views=(), **settings):
    return predictor(
        Valid(), NORM, lambda logits, images: logits.softmax(1), PredictorSettings(**settings), views
    )


def image(height, width, dtype=torch.uint8):
    full = {torch.uint8: 256, torch.uint16: 65536}[dtype]
    return torch.randint(0, full, (2, 3, height, width), generator=torch.Generator().manual_seed(1)).to(dtype)


def whole(images):
    """One pass over the mirrored image, by numpy's padding."""
    height, width = images.shape[-2:]
    side = max(height, width) + max(height, width) % 2
    before, margin = (0, 0), Valid.margin
    padded = np.pad(
        images.numpy(),
        (before, before, (margin, margin + side - height), (margin, margin + side - width)),
        mode="reflect",
    )
    with torch.no_grad():
        logits = Valid()(NORM(torch.from_numpy(padded))).logits
    return logits.float().softmax(1)[..., :height, :width]


@pytest.mark.parametrize("tile", [14, 16, 22, 30, 64, None])
@pytest.mark.parametrize("size", [(37, 52), (20, 20), (1, 9), (3, 2), (31, 8)])
def test_tiles_of_a_network_without_padding_give_what_one_pass_gives(tile, size):
    got = run(tile=tile)(image(*size))
    assert got.shape == (2, 4, *size)
    torch.testing.assert_close(got, whole(image(*size)), rtol=0, atol=1e-6)


def test_tiles_at_odd_places_would_not():
    """The test above has something to find."""
    x, model = image(20, 20), Valid()

    def inner(begin):
        rows = mirrored(begin - 6, 22, 20)
        return model(NORM(x[..., rows[:, None], rows])).logits

    with torch.no_grad():
        assert (inner(0)[..., 2:, 2:] - inner(2)[..., :-2, :-2]).abs().max() < 1e-12
        assert (inner(0)[..., 1:, 1:] - inner(1)[..., :-1, :-1]).abs().max() > 1e-3


def test_16_bit_images_are_mirrored_too():
    torch.testing.assert_close(
        run(tile=16)(image(30, 21, torch.uint16)), whole(image(30, 21, torch.uint16)), rtol=0, atol=1e-6
    )


def test_views_stay_on_top():
    x = image(24, 18)
    got = run(TTA.build_each({"flip": {}}), tile=16)(x)
    torch.testing.assert_close(got, (whole(x) + whole(x.flip(-1)).flip(-1)) / 2, rtol=0, atol=1e-6)


def test_small_images_get_a_small_tile():
    seen = []
    strips = overlap_tile(
        lambda x: seen.append(x.shape[-1]) or x[..., 92:-92, 92:-92].float(), 92, (188, 16), None
    )
    assert assembled(strips)(image(30, 21)).shape == (2, 3, 30, 21) and seen == [220]
    seen.clear()
    assembled(strips)(torch.zeros(1, 1, 400, 300))
    assert seen == [572, 572]


def test_tiles_too_small_to_lie_side_by_side_are_refused():
    with pytest.raises(ConfigError, match=r"predictor.tile is 203; allowed for this network: 204, 220, 236"):
        overlap_tile(lambda x: x, 92, (188, 16), 203)


@pytest.mark.parametrize("key", [{"boxes": "grid"}])
def test_boxes_want_a_network_that_answers_for_all_it_sees(key):
    with pytest.raises(
        ConfigError, match=r"predictor.boxes needs a network that answers for all of its input"
    ):
        run(**key)


def test_a_network_of_the_inner_part_that_does_not_say_so_is_refused():
    class Silent(Valid):
        margin = 0

        def forward(self, x):
            return Valid.forward(Valid(), x)

    model = Silent()
    with pytest.raises(ConfigError, match="inner part"):
        predictor(model, NORM, lambda logits, images: logits, PredictorSettings())(image(30, 30))
