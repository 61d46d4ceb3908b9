"""VGG16: its geometry, the published weights as convolutions, the frozen bilinear kernels."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from segtrain.errors import CheckpointError, ConfigError
from segtrain.model.encoder import weights as weights_module
from segtrain.model.encoder.vgg import (
    CONVOLUTIONS,
    VGG16,
    BilinearUpsampling,
    as_convolutions,
    bilinear_kernel,
    load_vgg16_weights,
    scaled,
)
from segtrain.model.encoder.weights import IMAGENET, adapted


class Classifier(nn.Module):
    """VGG16 as torchvision builds it, with narrow levels: the same names, the same flattening, 10 classes."""

    def __init__(self):
        super().__init__()
        layers, before = [], 3
        for channels, depth in zip((3, 6, 13, 26, 26), (2, 2, 3, 3, 3), strict=True):
            for _ in range(depth):
                layers += [nn.Conv2d(before, channels, 3, padding=1), nn.ReLU()]
                before = channels
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        full = [
            nn.Linear(26 * 49, 4096),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(4096, 4096),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(4096, 10),
        ]
        self.classifier = nn.Sequential(*full)

    def forward(self, x):
        return self.classifier(self.features(x).flatten(1))


@pytest.fixture(scope="module")
def classifier():
    torch.manual_seed(0)
    net = Classifier().eval()
    assert [f"features.{place}.weight" for place in CONVOLUTIONS] == [
        name for name, tensor in net.named_parameters() if tensor.ndim == 4
    ]  # fmt: skip
    for bias in (part.bias for part in net.modules() if isinstance(part, nn.Linear | nn.Conv2d)):
        nn.init.normal_(bias, std=0.1)
    return net


def narrow(in_channels=3) -> VGG16:
    return VGG16(in_channels, 0.05, fc_channels=4096)


def logits(classifier, fc7):
    """The classifier's last layer on fc7's one place."""
    return classifier.classifier[-1](fc7.flatten(1))


def test_fully_connected_layers_become_convolutions_of_the_same_numbers(classifier):
    net, x = narrow().eval(), torch.randn(2, 3, 224, 224)
    net.load_state_dict(as_convolutions(net, classifier.state_dict(), 3, "a file"))
    with torch.no_grad():
        fc7 = net(x)[-1]
        assert fc7.shape == (2, 4096, 1, 1)
        torch.testing.assert_close(logits(classifier, fc7), classifier(x), atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_the_whole_vgg16_of_torchvision():
    from torchvision.models import vgg16

    torch.manual_seed(0)
    theirs, x = vgg16(weights=None).eval(), torch.randn(1, 3, 224, 224)
    with torch.device("meta"):
        net = VGG16(3).eval()
    net.load_state_dict(as_convolutions(net, theirs.state_dict(), 3, "torchvision"), assign=True)
    with torch.no_grad():
        torch.testing.assert_close(logits(theirs, net(x)[-1]), theirs(x), atol=1e-6, rtol=1e-4)


def test_timms_names_give_the_same_tensors(classifier):
    tensors = classifier.state_dict()
    renamed = {name: tensor for name, tensor in tensors.items() if name.startswith("features")}
    for ours, theirs, shape in (
        ("0", "fc1", (4096, 26, 7, 7)),
        ("3", "fc2", (4096, 4096, 1, 1)),
        ("6", None, None),
    ):
        theirs = f"pre_logits.{theirs}" if theirs else "head.fc"
        weight = tensors[f"classifier.{ours}.weight"]
        renamed |= {
            f"{theirs}.weight": weight.reshape(shape) if shape else weight,
            f"{theirs}.bias": tensors[f"classifier.{ours}.bias"],
        }
    plain, timms = (as_convolutions(narrow(), one, 3, "a file") for one in (tensors, renamed))
    assert plain.keys() == timms.keys() and all(torch.equal(plain[name], timms[name]) for name in plain)


def test_the_names_are_timms():
    import timm

    with torch.device("meta"):
        tensors, net = timm.create_model("vgg16").state_dict(), VGG16(3)
    assert len(as_convolutions(net, tensors, 3, "timm")) == 30


@pytest.mark.parametrize("channels", [1, 4])
def test_other_channels_take_the_first_convolution_as_timm_adapts_it(classifier, channels):
    weight = classifier.features[0].weight
    made = as_convolutions(narrow(channels), classifier.state_dict(), channels, "a file")["levels.0.0.weight"]
    torch.testing.assert_close(
        made, weight.sum(1, keepdim=True) if channels == 1 else weight[:, [0, 1, 2, 0]] * 3 / 4
    )


def test_a_file_fills_every_tensor_and_the_report_says_how_many(classifier, tmp_path):
    torch.save({"state_dict": classifier.state_dict()}, tmp_path / "vgg16.pth")
    net = narrow()
    normalisation, report = load_vgg16_weights(net, str(tmp_path / "vgg16.pth"), 1.0, 3)
    assert (
        normalisation == IMAGENET
        and f"30 of 30 tensors from {tmp_path / 'vgg16.pth'} (which holds 32)" in report
    )
    expected = as_convolutions(net, classifier.state_dict(), 3, "a file")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in net.state_dict().items())


def test_part_of_the_weights_is_an_error(classifier):
    tensors = {
        name: tensor
        for name, tensor in classifier.state_dict().items()
        if name not in ("features.5.bias", "classifier.3.weight")
    }
    with pytest.raises(
        CheckpointError,
        match=r"28 of 30 tensors found with the right shape, missing is features\.5\.bias and 1 more",
    ):
        as_convolutions(narrow(), tensors, 3, "a file")


def test_vgg16_with_batch_normalisation_is_not_taken_for_one_without():
    from torchvision.models import vgg16_bn

    with torch.device("meta"):
        tensors, net = vgg16_bn(weights=None).state_dict(), VGG16(3)
    with pytest.raises(CheckpointError, match="without batch normalisation"):
        as_convolutions(net, tensors, 3, "a file")


def test_published_weights_have_one_width():
    with pytest.raises(
        ConfigError, match=r"model\.width is 0\.5 and model\.weights imagenet: .* set model\.weights=none"
    ):
        load_vgg16_weights(VGG16(3, 0.05), "imagenet", 0.5, 3)
    normalisation, report = load_vgg16_weights(VGG16(1, 0.05), "none", 0.5, 1)
    assert normalisation == adapted(IMAGENET, 1) and "from scratch" in report


def test_an_unreachable_hub_is_one_line_with_two_ways_out(monkeypatch):
    monkeypatch.setattr(weights_module, "_cached", lambda repository: None)
    monkeypatch.setattr(weights_module, "reachable", lambda url, within_s: False)
    with pytest.raises(
        CheckpointError, match=r"VGG16 \(timm/vgg16\.\w+\) .* model\.weights=none .*, or the path of"
    ) as caught:
        load_vgg16_weights(VGG16(3, 0.05), "imagenet", 1.0, 3)
    assert (
        caught.value.exit_code == 4
        and "\n" not in str(caught.value)
        and "model.encoder" not in str(caught.value)
    )


def test_the_hubs_file_is_used(monkeypatch, classifier, tmp_path):
    path = tmp_path / "model.safetensors"
    from safetensors.torch import save_file

    save_file(classifier.state_dict(), path)
    monkeypatch.setattr(weights_module, "_cached", lambda repository: path)
    net = narrow()
    _, report = load_vgg16_weights(net, "imagenet", 1.0, 3)
    assert "30 of 30 tensors from timm/vgg16" in report
    assert torch.equal(net.levels[0][0].weight, classifier.features[0].weight)


# --- shape


def test_widths():
    assert [scaled(64, width) for width in (1.0, 0.5, 0.05, 1e-6)] == [64, 32, 3, 1]
    assert VGG16(3, 0.05).channels == (3, 6, 13, 26, 26, 205)
    with pytest.raises(ConfigError, match="11 channels"):
        VGG16(11, 0.05)


@pytest.mark.parametrize(
    ("poolings", "conv4", "conv5", "fc6"),
    [(5, 1, 1, 1), (4, 1, 1, 2), (3, 1, 2, 4)],
)
def test_every_pooling_left_out_doubles_the_dilation_after_it(poolings, conv4, conv5, fc6):
    net = VGG16(3, 0.05, poolings=poolings)
    found = [{part.dilation for part in net.levels[level] if isinstance(part, nn.Conv2d)} for level in (3, 4)]
    assert found == [{(conv4, conv4)}, {(conv5, conv5)}] and net.fc6[0].dilation == (fc6, fc6)


def test_strides_with_padding():
    """Padded, and large enough for fc6, only the poolings change H and W."""
    with torch.device("meta"):
        sizes = [tuple(feature.shape[-2:]) for feature in VGG16(3, 0.05)(torch.empty(1, 3, 224, 288))]
    assert sizes == [(112, 144), (56, 72), (28, 36), (14, 18), (7, 9), (1, 3)]


# --- frozen kernels


def test_the_kernel_by_hand():
    assert bilinear_kernel(3)[1].tolist() == [0.5, 1, 0.5]
    assert bilinear_kernel(4)[0].tolist() == [0.0625, 0.1875, 0.1875, 0.0625]


@pytest.mark.parametrize("stride", [2, 8, 16, 32])
def test_upsampling_is_bilinear_interpolation_but_at_the_border(stride):
    torch.manual_seed(0)
    x, margin = torch.randn(2, 3, 5, 6), stride // 2
    made = BilinearUpsampling(3, stride)(x)
    assert made.shape == (2, 3, 6 * stride, 7 * stride)
    made = made[..., margin:-margin, margin:-margin]
    expected = F.interpolate(x, scale_factor=stride, mode="bilinear", align_corners=False)
    inner = (..., slice(stride, -stride), slice(stride, -stride))
    torch.testing.assert_close(made[inner], expected[inner], atol=1e-6, rtol=1e-5)
    assert (made - expected).abs().max() > 0.1, "zeros count at the border, which an interpolation has not"


def test_the_kernel_is_frozen_and_not_saved():
    part = BilinearUpsampling(21, 32)
    assert part.kernel.shape == (21, 1, 64, 64) and not list(part.parameters()) and not part.state_dict()


def test_initial_signal_keeps_its_scale():
    """He's law by fan in: without normalisation the last features of noise are neither gone nor huge."""
    torch.manual_seed(0)
    with torch.no_grad():
        features = VGG16(3, 0.25).eval()(torch.randn(1, 3, 224, 224))
    assert 0.05 < features[-1].square().mean().sqrt() < 20
