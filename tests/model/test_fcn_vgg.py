"""FCN-32s, 16s and 8s: counts, the geometry of the published networks, what a skip adds."""

import pytest
import torch
import torch.nn.functional as F

from segtrain.model.encoder.vgg import DropoutVGGOptions, bilinear_kernel
from segtrain.model.fcn_vgg import CROPS, FCN, SKIPS, fcn8s, fcn16s, fcn32s

STRIDES = (32, 16, 8)
FACTORIES = {32: fcn32s, 16: fcn16s, 8: fcn8s}


def network(stride, classes=3, width=0.05, at_once=False) -> FCN:
    torch.manual_seed(0)
    return FCN(DropoutVGGOptions(width=width), classes, 3, stride=stride, at_once=at_once)


def with_random_scores(net: FCN) -> FCN:
    for name, parameter in net.named_parameters():
        if name.startswith("score"):
            torch.nn.init.normal_(parameter)
    return net.eval()


@pytest.mark.parametrize(
    ("stride", "classes", "learned", "frozen"),
    [
        (32, 21, 134_346_581, 86_016),
        (16, 21, 134_357_354, 21_840),
        (8, 21, 134_362_751, 6_048),
        (32, 19, 134_260_544 + 19 * 4097, 19 * 64**2),
        (8, 19, 134_260_544 + 19 * (4097 + 513 + 257), 19 * (16**2 + 2 * 4**2)),
    ],
)
def test_numbers_of_parameters(stride, classes, learned, frozen):
    with torch.device("meta"):
        net = network(stride, classes, width=1.0)
    assert (
        sum(p.numel() for p in net.parameters())
        == learned
        == sum(p.numel() for p in net.parameters() if p.requires_grad)
    )
    assert sum(b.numel() for b in net.buffers()) == frozen
    assert sum(tensor.numel() for tensor in net.state_dict().values()) == learned


@pytest.mark.parametrize(("size", "scores", "upscore"), [(500, 16, 544), (375, 12, 416), (224, 8, 288)])
def test_geometry_of_fcn32s(size, scores, upscore):
    seen = {}
    with torch.device("meta"):
        net = network(32)
        for name in ("score_fr", "upscore"):
            net.get_submodule(name).register_forward_hook(
                lambda module, inputs, output, name=name: seen.update({name: output.shape[-2:]})
            )
        net(torch.empty(1, 3, size, size))
    assert seen == {"score_fr": (scores, scores), "upscore": (upscore, upscore)}


@pytest.mark.parametrize("stride", STRIDES)
def test_output_has_the_size_of_the_image_for_every_size(stride):
    with torch.device("meta"):
        net = network(stride)
        for side in range(1, 601):
            output = net(torch.empty(1, 3, side, 601 - side))
            assert output.logits.shape == (1, 3, side, 601 - side) and output.size == (side, 601 - side)


def test_crops_follow_from_where_each_feature_looks():
    """Place i of a layer looks at pixel stride·i + shift; the crops are what brings layers together."""
    stride, shift = 1, -99.0  # conv1_1: 100 zeros, a 3×3 kernel
    shifts = {}
    for level in range(5):
        shift, stride = shift + stride / 2, 2 * stride
        shifts[level] = (stride, shift)
    shift += 3 * stride  # the middle of fc6
    for _, level, crop, _ in SKIPS:
        shift, stride = shift - 1.5 * stride / 2, stride / 2  # a 4×4 kernel at stride 2
        assert stride == shifts[level][0] and (shift - shifts[level][1]) / stride == crop
    for last, crop in CROPS.items():
        stride, shift = (32, shifts[4][1] + 96)
        while stride > last:
            stride, shift = stride / 2, shift - 1.5 * stride / 2
        assert shift - (2 * last - 1) / 2 == -crop


@pytest.mark.parametrize("stride", STRIDES)
def test_against_plain_transposed_convolutions(stride):
    """The published form: dense kernels that are bilinear on the diagonal, Caffe's offsets."""
    net = with_random_scores(network(stride))
    x = torch.randn(2, 3, 70, 45)

    def up(scores, factor):
        weight = torch.zeros(3, 3, 2 * factor, 2 * factor)
        for one in range(3):
            weight[one, one] = bilinear_kernel(2 * factor)
        return F.conv_transpose2d(scores, weight, stride=factor)

    def crop(scores, offset, like):
        return scores[:, :, offset : offset + like.shape[2], offset : offset + like.shape[3]]

    with torch.no_grad():
        _, _, pool3, pool4, _, fc7 = net.encoder(x)
        scores = net.score_fr(fc7)
        if stride <= 16:
            scores = up(scores, 2)
            scores = scores + crop(net.score_pool4(pool4), 5, scores)
        if stride <= 8:
            scores = up(scores, 2)
            scores = scores + crop(net.score_pool3(pool3), 9, scores)
        expected = crop(up(scores, stride), {32: 19, 16: 27, 8: 31}[stride], x)
        torch.testing.assert_close(net(x).logits, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("stride", "level"), [(16, 3), (8, 3), (8, 2)])
def test_a_skip_of_zero_scores_adds_nothing(stride, level):
    net = network(stride).eval()
    torch.nn.init.normal_(net.score_fr.weight)
    x = torch.randn(1, 3, 40, 50)
    with torch.no_grad():
        features, before = net.encoder(x), net(x).logits
        other = [torch.randn_like(one) if i == level else one for i, one in enumerate(features)]
        net.encoder.forward = lambda x: other
        assert torch.equal(net(x).logits, before)
        torch.nn.init.normal_(net.get_submodule({3: "score_pool4", 2: "score_pool3"}[level]).weight)
        assert not torch.allclose(net(x).logits, before)


@pytest.mark.parametrize("stride", [16, 8])
def test_at_once_scales_the_features_of_the_skips(stride):
    net, scaled = with_random_scores(network(stride)), network(stride, at_once=True).eval()
    scaled.load_state_dict(net.state_dict())
    with torch.no_grad():
        net.score_pool4.weight *= 0.01
        if stride == 8:
            net.score_pool3.weight *= 0.0001
        x = torch.randn(1, 3, 40, 50)
        torch.testing.assert_close(scaled(x).logits, net(x).logits, atol=1e-5, rtol=1e-5)


def test_each_starts_from_the_one_before():
    states = {stride: network(stride).state_dict() for stride in STRIDES}
    for before, after, layer in ((32, 16, "score_pool4"), (16, 8, "score_pool3")):
        missing, unexpected = network(after).load_state_dict(states[before], strict=False)
        assert missing == [f"{layer}.weight", f"{layer}.bias"] and not unexpected


@pytest.mark.parametrize("stride", STRIDES)
def test_all_scores_start_at_zero(stride):
    net = FACTORIES[stride](5, weights="none", width=0.05).eval()
    assert not net(torch.randn(1, 3, 33, 40)).logits.any()
    assert all(not net.state_dict()[key].any() for key in net.head_keys)


def test_dropout_acts_in_training_only():
    net = with_random_scores(network(32))
    x = torch.randn(1, 3, 40, 40)
    with torch.no_grad():
        assert torch.equal(net(x).logits, net(x).logits)
        net.train()
        assert not torch.equal(net(x).logits, net(x).logits)
        still = FCN(DropoutVGGOptions(width=0.05, dropout=0.0), 3, 3, stride=32)
        torch.nn.init.normal_(still.score_fr.weight)
        assert torch.equal(still(x).logits, still(x).logits)
