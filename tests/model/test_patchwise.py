"""A classifier slid over the image: which window answers for which place, and what is trained."""

import importlib

import numpy as np
import pytest
import torch
from torch import nn

from segtrain.augmentation.patch import patch as patch_of
from segtrain.errors import ConfigError
from segtrain.loss import LOSS
from segtrain.model import MODEL
from segtrain.model.parts.norm import is_frozen
from segtrain.model.patchwise import Options, Patchwise, bordered, patchwise
from segtrain.sample import IGNORE, Sample, Window

module = importlib.import_module("segtrain.model.patchwise")  # the package has the factory under this name
TINY = {"encoder": "test_resnet", "weights": "none", "patch": 33}


class Centre(nn.Module):
    """Features of a window: its centre pixel. The whole network then says what the centre pixel is."""

    feature_info = ({"reduction": 1},)

    def __init__(self, patch: int):
        super().__init__()
        self.patch = patch

    def forward(self, x):
        return x[..., self.patch // 2 : self.patch // 2 + 1, self.patch // 2 : self.patch // 2 + 1]


class Valid(nn.Module):
    """A trunk without padding, of stride 4; a window of 19 px has 3×3 features."""

    feature_info = ({"reduction": 4},)

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 6, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 8, 2, stride=2),
            nn.ReLU(),
            nn.Conv2d(8, 8, 2),
        )

    def forward(self, x):
        return self.layers(x)


def picking(patch: int, stride: int, batch: int = 7) -> Patchwise:
    """Gives back the pixels that the grid asks about."""
    head = nn.Sequential(nn.Flatten(), nn.Linear(3, 3, bias=False))
    nn.init.eye_(head[1].weight)
    options = Options(patch=patch, stride=stride, batch=batch)
    return Patchwise(options, Centre(patch), (1, 1), head).eval()


@pytest.mark.parametrize(("patch", "stride"), [(5, 1), (5, 3), (9, 8), (8, 4), (3, 8), (65, 8), (1, 5)])
def test_windows_are_centred_on_the_middles_of_the_strides(patch, stride):
    x = torch.rand(2, 3, 4 * stride, 3 * stride)
    logits = picking(patch, stride)(x).logits
    assert torch.equal(logits, x[..., stride // 2 :: stride, stride // 2 :: stride])


@pytest.mark.parametrize("stride", [3, 5])
def test_upsampled_answers_lie_where_the_pixels_are(stride):
    """Of a ramp, with centres on whole pixels (odd strides), bilinear upsampling gives the ramp back, but for
    the border."""
    y, x = torch.meshgrid(torch.arange(31.0), torch.arange(47.0), indexing="ij")
    ramp = torch.stack([x, y, x + y])[None]
    output = picking(9, stride)(ramp)
    assert output.size == (31, 47) and output.window is None
    inner = (..., slice(stride, -stride), slice(stride, -stride))
    torch.testing.assert_close(output.upsampled()[inner], ramp[inner], rtol=0, atol=1e-4)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 5), (30, 41)])
def test_borders_are_reflected_as_numpy_does(height, width):
    x = torch.rand(1, 2, height, width)
    patch, stride = 33, 8
    found = bordered(x, patch, stride)
    before = patch // 2 - stride // 2
    totals = [(-(-side // stride) - 1) * stride + patch for side in (height, width)]
    pads = [
        (before, max(total - side - before, 0)) for total, side in zip(totals, (height, width), strict=True)
    ]
    expected = np.pad(x.numpy(), [(0, 0), (0, 0), *pads], mode="reflect")[..., : totals[0], : totals[1]]
    assert np.array_equal(found.numpy(), expected)


def test_the_number_of_windows_and_their_batches():
    net = patchwise(4, **TINY, stride=8, batch=10).eval()
    seen = []
    net.encoder.register_forward_pre_hook(lambda module, inputs: seen.append(tuple(inputs[0].shape)))
    with torch.no_grad():
        together = net(torch.rand(2, 3, 30, 41)).logits
    count = 2 * 4 * 6  # images, strides begun in 30 px and in 41 px
    assert [shape[0] for shape in seen] == [10] * (count // 10) + [count % 10] and {
        shape[1:] for shape in seen
    } == {(3, 33, 33)}
    assert together.shape == (2, 4, 30, 41)  # 8 divides neither: answered for at the image's size
    net.batch = 1000
    torch.manual_seed(0)
    x = torch.rand(2, 3, 32, 40)
    with torch.no_grad():
        whole = net(x).logits
        net.batch = 7
        torch.testing.assert_close(net(x).logits, whole)
    assert whole.shape == (2, 4, 4, 5)


def test_fewer_large_windows_go_through_at_a_time(monkeypatch):
    net, seen = picking(65, 8, batch=256), []
    net.encoder.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    x = torch.rand(1, 3, 24, 40)
    whole = net(x).logits
    for most, expected in ((65 * 65 * 3 * 4 * 6, [6, 6, 3]), (1, [1] * 15)):
        seen.clear()
        monkeypatch.setattr(module, "WINDOW_BYTES", most)
        assert torch.equal(net(x).logits, whole) and seen == expected


def test_dense_answers_are_those_of_the_windows_if_nothing_is_padded():
    torch.manual_seed(1)
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 7), nn.ReLU(), nn.Linear(7, 5))
    net = Patchwise(Options(patch=19, stride=4), Valid(), (3, 3), head).double().eval()
    for size in ((48, 32), (45, 31), (3, 70)):
        x = torch.randn(2, 3, *size, dtype=torch.double)
        with torch.no_grad():
            net.dense = False
            slid = net(x)
            net.dense = True
            torch.testing.assert_close(net(x).logits, slid.logits, rtol=0, atol=1e-13)


@pytest.mark.parametrize("encoder", ["test_resnet", "tf_efficientnet_lite0"])
def test_a_padding_encoder_has_a_dense_form_too(encoder):
    net = patchwise(4, **{**TINY, "encoder": encoder, "patch": 65}, dense=True).eval()
    keys = list(net.state_dict())
    with torch.no_grad():
        output = net(torch.randn(1, 3, 96, 70))
        even = net(torch.randn(1, 3, 96, 128))
    assert (
        output.logits.shape == (1, 4, 96, 70) and even.logits.shape == (1, 4, 3, 4) and even.size == (96, 128)
    )
    assert keys == list(net.state_dict()) == list(patchwise(4, **{**TINY, "encoder": encoder}).state_dict())


def test_vggs_fully_connected_layers_are_dense_on_large_windows_only():
    with torch.device("meta"):
        net = patchwise(4, **{**TINY, "encoder": "vgg11", "patch": 65}, dense=True).eval()
        with pytest.raises(ConfigError, match=r"model\.patch=224"):
            net(torch.empty(1, 3, 128, 128))
        net = patchwise(4, **{**TINY, "encoder": "vgg11", "patch": 224}, dense=True).eval()
        assert net(torch.empty(1, 3, 256, 320)).logits.shape == (1, 4, 8, 10)


# --- training


def test_a_training_window_is_answered_for_at_its_centre():
    y, x = np.mgrid[:60, :70].astype(np.uint8)
    rng = np.random.default_rng(0)
    sample = Sample(np.stack([y, x, y + x], -1), rng.choice(np.array([0, 1, 2, IGNORE], np.uint8), (60, 70)))
    cut = patch_of(size=33)
    windows = [cut(sample, np.random.default_rng(seed)) for seed in range(6)]
    net = picking(33, 8).train()
    output = net(torch.from_numpy(np.stack([one.image.transpose(2, 0, 1) for one in windows])).float())
    targets = torch.from_numpy(np.stack([one.target for one in windows]))
    assert (
        output.logits.shape == (6, 3, 1, 1)
        and output.size == (1, 1)
        and output.window == Window(16, 16, 1, 1)
    )
    for one, logits, label in zip(
        windows, output.logits, output.crop(targets).flatten().tolist(), strict=True
    ):
        row, column, _ = logits.flatten().int().tolist()
        assert label == sample.target[row, column] != IGNORE and one.image[16, 16, 0] == row
    loss = LOSS.build({"name": "cross_entropy"}, num_classes=3, ignore_index=IGNORE, class_frequency=None)
    assert loss(output, targets)[1] == 6  # one labelled pixel a sample


def test_in_evaluation_an_image_of_the_windows_size_is_an_image():
    net = patchwise(4, **TINY).eval()
    with torch.no_grad():
        assert net(torch.rand(1, 3, 33, 33)).size == (33, 33)


def test_a_frozen_trunk_keeps_its_weights_and_statistics():
    torch.manual_seed(0)
    net = patchwise(4, **TINY, hidden=(12,)).train()
    assert {name.split(".")[0] for name, p in net.named_parameters() if p.requires_grad} == {"head"}
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], 0.1)
    net(torch.randn(8, 3, 33, 33)).logits.square().sum().backward()
    optimizer.step()
    changed = {name for name, tensor in net.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {name for name in before if name.startswith("head")} and len(changed) == 4


@pytest.mark.parametrize("tuned", [0, 1, 3])
def test_the_last_layers_of_a_frozen_trunk_can_be_tuned(tuned):
    net = patchwise(4, **TINY, tuned_layers=tuned)
    layers = [m for m in net.encoder.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert [layer.weight.requires_grad for layer in layers] == [False] * (len(layers) - tuned) + [
        True
    ] * tuned
    assert all(is_frozen(m) for m in net.encoder.modules() if isinstance(m, nn.BatchNorm2d))


def test_vggs_last_layers_are_its_fully_connected_ones():
    with torch.device("meta"):
        net = patchwise(4, encoder="vgg11", weights="none", tuned_layers=2)
    tuned = {name for name, p in net.encoder.named_parameters() if p.requires_grad}
    assert tuned == {f"pre_logits.fc{i}.{kind}" for i in (1, 2) for kind in ("weight", "bias")}


def test_nothing_is_frozen_if_not_wanted():
    net = patchwise(4, **TINY, freeze="none")
    assert all(p.requires_grad for p in net.parameters()) and not any(is_frozen(m) for m in net.modules())


def test_hidden_layers_stand_before_the_classes():
    net = patchwise(4, **TINY, hidden=(12, 6))
    assert [layer.out_features for layer in net.head if isinstance(layer, nn.Linear)] == [12, 6, 4]
    assert all(net.state_dict()[key].shape[0] == 4 for key in net.head_keys)


@pytest.mark.parametrize(("options", "words"), [
    ({"patch": 0}, "model.patch is 0"),
    ({"stride": 0}, "model.stride is 0"),
    ({"batch": 0}, "model.batch is 0"),
    ({"hidden": (8, 0)}, r"model.hidden\[1\] is 0"),
    ({"tuned_layers": 999}, "model.tuned_layers is 999; allowed: 0 to"),
    ({"tuned_layers": -1}, "model.tuned_layers is -1"),
    ({"encoder": "resnet18x"}, "model.encoder=resnet18x does not exist"),
    ({"encoder": "vit_tiny_patch16_224"}, "model.encoder=vit_tiny_patch16_224"),
])  # fmt: skip
def test_impossible_options_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        MODEL.build({"name": "patchwise", **TINY, **options}, out_channels=4)


def test_the_weights_of_the_package_are_taken_with_their_normalisation():
    from segtrain.model.encoder.weights import packaged_file

    if packaged_file("tf_efficientnet_lite0") is None:
        pytest.skip("needs segtrain[offline]")
    net = patchwise(4)
    assert net.normalisation.mean == (0.5,) * 3
    assert "tensors from efficientnet-lite0" in net.weights_report
