"""What `segtrain describe` and `segtrain list models` say of a network, beside counts from elsewhere."""

from __future__ import annotations

import pytest
import torch

from segtrain.cli.catalogue import load
from segtrain.commands.describe import build
from segtrain.errors import ConfigError
from segtrain.model import MODEL
from segtrain.model.description import described, lines
from segtrain.model.network import Network
from segtrain.text import amount

TINY = {"name": "unet", "widths": (4, 8)}


def test_totals_are_the_sums_of_the_parts():
    for config in (
        TINY,
        {"name": "deeplabv3plus", "encoder": "resnet18"},
        {"name": "unet_original", "width": 0.125},
    ):
        net = build(config, 7, 4)
        found = described(net, 4, 188, 188)
        assert found.parameters == sum(parameter.numel() for parameter in net.parameters())
        first = [layer for layer in found.layers if layer.depth == 1]
        assert found.parameters == sum(layer.parameters for layer in first)
        assert found.multiply_adds == sum(layer.multiply_adds for layer in first)
        assert all(parameter.is_meta for parameter in net.parameters())


def test_multiply_adds_by_hand():
    """Taps x inputs x outputs x positions of the five convolutions that the tiny network has at 64x64, at
    half of the image's sides."""
    found = described(build(TINY, 5, 3), 3, 64, 64)
    assert (
        found.multiply_adds
        == 9 * (3 * 4 + 4 * 4 + 12 * 4 + 4 * 4 + 4 * 5) * 32**2 + 9 * (4 * 8 + 8 * 8) * 16**2
    )


def test_multiply_adds_as_torchvision_publishes_them():
    """Of FCN on ResNet-50 with its auxiliary head, 520x520, in units of 10^9."""
    from torchvision.models.segmentation import FCN_ResNet50_Weights

    published = FCN_ResNet50_Weights.DEFAULT.meta["_ops"]
    main = described(build({"name": "fcn", "output_stride": 8}, 21, 3), 3, 520, 520).multiply_adds
    auxiliary = 65 * 65 * (9 * 1024 * 256 + 256 * 21)  # runs in training only
    assert (main + auxiliary) / 1e9 == pytest.approx(published, abs=1e-3)


SNAPSHOT = """\
layer     type          output   parameters  multiply-adds
encoder   SmallEncoder  8x16x16       1,164          479 k
  levels  ModuleList                  1,164          479 k
centre    Identity      8x16x16           0              0
decoder   ModuleList                    592          590 k
  0       Sequential    4x32x32         592          590 k
head      Conv2d        5x32x32         185          184 k
total                   5x32x32       1,941         1.25 M

an image of 3x64x64 gives logits of 5x32x32 at stride 2, interpolated to 64x64
"""


def test_what_is_printed(segtrain):
    result = segtrain("describe", "model.widths=[4,8]", "size=64", "classes=5")
    assert (result.code, result.out) == (0, SNAPSHOT)
    deeper = segtrain("describe", "model.widths=[4,8]", "size=64,96", "depth=4", "channels=1").out
    assert "      0   Conv2d" in deeper
    assert "1x64x96 gives logits of 21x32x48 at stride 2" in deeper
    odd = segtrain("describe", "model=deeplabv3plus", "model.encoder=resnet18", "size=513,65", "depth=1").out
    assert "3x513x65 gives logits of 21x129x17 at stride 4, interpolated to 513x65" in odd


def test_the_inner_part_of_an_image():
    found = described(build({"name": "unet_original", "width": 0.125}, 2, 1), 1, 572, 572)
    assert lines(found, 1)[-1] == "an image of 1x572x572 gives logits of 2x388x388, for the inner 388x388 px"


def test_no_weights_are_asked_for(segtrain, monkeypatch):
    monkeypatch.setattr("segtrain.model.encoder.weights.hub_tensors", lambda *_: pytest.fail("asked the hub"))
    result = segtrain("describe", "model=deeplabv3plus", "model.encoder=resnet18", "depth=1")
    assert result.code == 0 and "FeatureListNet" in result.out


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["model.widhts=[4]"], ["model.widhts", "did you mean 'widths'"]),
        (["model=unett"], ["model=unett does not exist", "did you mean 'unet'"]),
        (["sise=3"], ["sise", "did you mean 'size'"]),
        (["size=0"], ["size is 0", "from 1"]),
        (["size=[0,4]"], ["size[0] is 0", "an integer from 1"]),
        (["size=[1,2,3]"], ["size is"]),
        (["depth=0"], ["depth is 0"]),
        (["optimizer.lr=1"], ["optimizer.lr is not an option of segtrain describe"]),
        (["model=unet_original"], ["508", "524"]),
        (["model=unet_original", "model.width=0.1", "size=100"], ["188"]),
        (
            ["model=deeplabv3plus", "model.encoder=resnet18", "model.output_stride=7"],
            ["model.output_stride is 7"],
        ),
        (["model.widths=[4,8]", "channels=11", "model.encoder=resnet18"], ["11 channels"]),
    ],
)
def test_what_is_refused(segtrain, words, parts):
    segtrain("describe", *words).refused(*parts)


def test_a_network_that_is_fitted_has_no_layers(segtrain):
    if "classical" in MODEL.names():
        segtrain("describe", "model=classical").refused("classical")


def test_help_and_config(segtrain):
    result = segtrain("describe", "--help")
    for word in ("segtrain describe model=deeplabv3plus", "size=512", "classes=21", "depth=2"):
        assert word in result.out
    assert "describe" in segtrain("--help").out
    assert "model.widths" in segtrain("config", "describe").out
    assert "output_stride: 16" in segtrain("describe", "model=deeplabv3plus", "--cfg", "job").out


# --- segtrain list models


def test_the_list_of_networks_has_their_numbers(segtrain):
    text = segtrain("list", "models").out
    row = next(line for line in text.splitlines() if line.startswith("deeplabv3plus"))
    for word in ("Chen et al. 2018", "40.4 M", "resnet50", "8, 16, 32"):
        assert word in row
    assert "unet_original: 508x508" in text
    assert "DeepLabv3+: atrous spatial pyramid pooling" in text


def test_every_network_says_its_paper_and_its_size():
    for name, network in load()["groups"]["model"].items():
        numbers = network["numbers"]
        assert numbers["paper"], name
        if name != "classical":
            assert numbers["parameters"] > 0 and numbers["multiply_adds"] > 10**8, name
            assert abs(numbers["size"] - 512) < 16


def test_amounts_keep_three_digits():
    numbers = (None, 7, 999, 1234, 56789, 491029, 3221538, 40352181, 251805653, 1974665088, 750321937152)
    shown = ["-", "7", "999", "1.23 k", "56.8 k", "491 k", "3.22 M", "40.4 M", "252 M", "1.97 G", "750 G"]
    assert [amount(number) for number in numbers] == shown


def test_a_size_that_breaks_a_network_is_refused():
    class Picky(Network):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 2, 5)

        def forward(self, x):
            return self.conv(x)

    with pytest.raises(
        ConfigError, match="size=3x3 is not possible with this network: Calculated padded input size"
    ):
        described(Picky().to("meta"), 3, 3, 3)
