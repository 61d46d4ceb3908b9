"""Dilated convolutions: counts, the dense front end, the context module that starts as the identity."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from segtrain.errors import ConfigError
from segtrain.model import MODEL
from segtrain.model.dilated import ContextModule, Dilated, Options, dilated, reflected
from segtrain.model.encoder.vgg import VGG16

BASIC = (1, 1, 2, 4, 8, 16, 1)
CITYSCAPES = (1, 1, 2, 4, 8, 16, 32, 64, 1)


def network(classes=3, context="none", width=0.05, noise=0.01) -> Dilated:
    torch.manual_seed(0)
    options = Options(width=width, context=context, context_dilations=BASIC, context_noise=noise)
    return Dilated(options, classes, 3).eval()


def count(module) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


# --- front end


@pytest.mark.parametrize(("classes", "expected"), [(21, 134_346_581), (19, 134_260_544 + 19 * 4097)])
def test_parameters_of_the_front_end(classes, expected):
    with torch.device("meta"):
        net = network(classes, width=1.0)
    assert count(net) == expected == sum(p.numel() for p in net.parameters())


def test_the_whole_network_at_its_defaults():
    with torch.device("meta"):
        net = dilated(21, weights="none")
    assert count(net) == 134_346_581 + 28_392


def test_900_pixels_with_the_margin_give_66_places():
    with torch.device("meta"):
        net = network()
        assert net.encoder(torch.empty(1, 3, 900, 908))[-1].shape[-2:] == (66, 67)
        assert net(torch.empty(1, 3, 900 - 372, 900 - 372)).logits.shape == (1, 3, 66, 66)


@pytest.mark.parametrize("length", [1, 2, 3, 8, 187, 500])
def test_rows_go_on_as_numpy_reflects_them(length):
    row = np.arange(length)
    assert reflected(length, 186, 193).tolist() == np.pad(row, (186, 193), mode="reflect").tolist()


@pytest.mark.parametrize("size", [(64, 40), (61, 43), (5, 1)])
def test_network_is_the_front_end_on_the_mirrored_image(size):
    net, x = network(), torch.randn(2, 3, *size)
    more = [-side % 8 for side in size]
    mirrored = np.pad(x.numpy(), ((0, 0), (0, 0), (186, 186 + more[0]), (186, 186 + more[1])), mode="reflect")
    with torch.no_grad():
        scores = net.final(net.encoder(torch.from_numpy(mirrored))[-1])
        expected = F.interpolate(scores, scale_factor=8, mode="bilinear", align_corners=False)[
            ..., : size[0], : size[1]
        ]
        output = net(x)
    assert output.logits.shape[-2:] == (size if any(more) else (size[0] // 8, size[1] // 8))
    torch.testing.assert_close(output.upsampled(), expected)


def test_every_size_is_taken():
    with torch.device("meta"):
        net = network(context="basic")
        for side in range(1, 400, 3):
            output = net(torch.empty(1, 3, side, 400 - side))
            assert output.size == (side, 400 - side)
            strided = side % 8 == 0  # then 400 - side is a multiple too
            assert output.logits.shape[-2:] == ((side // 8, 50 - side // 8) if strided else output.size)


def test_each_place_is_the_network_on_its_own_patch():
    """Nothing is padded, so a place sees its 380×380 pixels and nothing else."""
    encoder = network().encoder.double()
    x = torch.randn(1, 3, 412, 404, dtype=torch.float64)
    with torch.no_grad():
        dense = encoder(x)[-1]
        assert dense.shape[-2:] == (5, 4)
        for row, column in ((0, 0), (3, 1), (4, 3)):
            patch = encoder(x[..., 8 * row : 8 * row + 380, 8 * column : 8 * column + 380])[-1]
            torch.testing.assert_close(
                patch, dense[..., row : row + 1, column : column + 1], atol=1e-12, rtol=1e-9
            )


def test_dilation_computes_the_strided_network_on_every_place():
    """Where a pooling only took every second value, dilating what comes after gives the same values, at all
    places."""
    dense, strided = network().encoder.double(), VGG16(3, 0.05, padding=0).eval().double()
    strided.load_state_dict(dense.state_dict())
    x = torch.randn(1, 3, 436, 444, dtype=torch.float64)

    def subsampling(x):
        for level, convolutions in enumerate(strided.levels):
            x = convolutions(x)
            x = F.max_pool2d(x, 2) if level < 3 else x[..., ::2, ::2]
        return strided.fc7(strided.fc6(x))

    with torch.no_grad():
        all_places, some = dense(x)[-1], subsampling(x)
    assert all_places.shape[-2:] == (8, 9) and some.shape[-2:] == (2, 3)
    torch.testing.assert_close(all_places[..., ::4, ::4], some, atol=1e-12, rtol=1e-9)


# --- context module


@pytest.mark.parametrize(
    ("classes", "kind", "dilations", "expected"),
    [
        (21, "basic", BASIC, 28_392),
        (19, "basic", CITYSCAPES, 29_792),
        (5, "basic", BASIC, 7 * (25 * 9 + 5) + 25 + 5),
        # 3×3 layers between 1, 2, 2, 4, 8, 16, 32, 32 times 5 channels, then 1×1
        (
            5,
            "large",
            BASIC,
            25 * 9 * (2 + 4 + 8 + 32 + 128 + 512 + 1024) + 25 * 32 + 5 * (2 + 2 + 4 + 8 + 16 + 32 + 32 + 1),
        ),
    ],
)
def test_parameters_of_the_context_module(classes, kind, dilations, expected):
    module = ContextModule(classes, kind, dilations, 0.01)
    assert count(module) == expected
    assert [conv.dilation[0] for conv in module.layers] == list(dilations)


@pytest.mark.parametrize(("kind", "dilations"), [("basic", BASIC), ("basic", CITYSCAPES), ("large", BASIC)])
@pytest.mark.parametrize("classes", [1, 4])
def test_it_starts_as_the_identity_on_scores_from_zero_on(kind, dilations, classes):
    torch.manual_seed(0)
    module, scores = ContextModule(classes, kind, dilations, 0.0), torch.rand(2, classes, 20, 30)
    with torch.no_grad():
        torch.testing.assert_close(module(scores), scores, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(module(scores - 0.5), (scores - 0.5).relu(), atol=1e-6, rtol=1e-5)


def test_the_large_module_shares_a_sum_among_the_channels_of_a_class():
    """The paper's eq. 5: C / c from each channel of the class to each of its channels among c."""
    module = ContextModule(3, "large", BASIC, 0.0)
    convolutions = (*module.layers, module.last)
    assert [conv.weight.max().item() for conv in convolutions] == [
        1 / 2,
        1 / 2,
        1 / 4,
        1 / 8,
        1 / 16,
        1 / 32,
        1 / 32,
        1,
    ]
    assert [int(conv.weight.count_nonzero()) for conv in convolutions] == [
        3 * n for n in (2, 4, 8, 32, 128, 512, 1024, 32)
    ]


def test_noise_is_added_to_every_tap():
    torch.manual_seed(0)
    plain, noisy = (ContextModule(21, "basic", BASIC, noise) for noise in (0.0, 0.01))
    for conv, other in zip((*plain.layers, plain.last), (*noisy.layers, noisy.last), strict=True):
        noise = other.weight - conv.weight
        assert noise.std().item() == pytest.approx(0.01, rel=0.1) and abs(noise.mean().item()) < 0.002
        assert not other.bias.any()


@pytest.mark.parametrize(("dilations", "field"), [(BASIC, 67), (CITYSCAPES, 67 + 2 * 96)])
def test_receptive_field(dilations, field):
    module = ContextModule(1, "basic", dilations, 0.0).double()
    for conv in (*module.layers, module.last):
        nn.init.ones_(conv.weight)
    scores = torch.ones(1, 1, field + 20, field + 20, dtype=torch.float64, requires_grad=True)
    middle = (field + 20) // 2
    module(scores)[0, 0, middle, middle].backward()
    rows = scores.grad[0, 0].any(1).nonzero().flatten().tolist()
    assert (rows[0], rows[-1], len(rows)) == (middle - field // 2, middle + field // 2, field)


def test_the_module_follows_a_front_end_alone():
    alone, whole = network(), network(context="basic")
    missing, unexpected = whole.load_state_dict(alone.state_dict(), strict=False)
    assert set(missing) == set(whole.mixing_keys) and len(missing) == 16 and not unexpected
    assert alone.mixing_keys == ()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"context_dilations": ()}, "model.context_dilations"),
        ({"context_dilations": (1, 0)}, "model.context_dilations"),
        ({"context_noise": -0.1}, "model.context_noise"),
        ({"context": "large", "context_dilations": CITYSCAPES}, "model.context_dilations has 9 entries"),
    ],
)
def test_options_that_cannot_be_had(options, words):
    with pytest.raises(ConfigError, match=words):
        MODEL.build({"name": "dilated", "weights": "none", "width": 0.05, **options}, out_channels=3)
