"""What every network of the table holds to."""

import math
import warnings
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml

from segtrain.model import MODEL
from segtrain.model.network import Network
from segtrain.model.parts.sides import valid_side
from segtrain.options import options_of
from segtrain.sample import Normalisation, Output

CONF = Path(__file__).parents[2] / "conf" / "model"
TINY = {
    "cascade": {"encoder": "test_resnet", "weights": "none", "blocks": 5},
    # A bias in front of batch normalisation has no gradient, so it is left out.
    "deconvnet": {"width": 0.05, "fc_width": 16, "conv_bias": False, "weights": "none"},
    "deeplabv3": {"encoder": "test_resnet", "weights": "none", "aspp_width": 16},
    "deeplabv3plus": {
        "encoder": "test_resnet",
        "weights": "none",
        "aspp_width": 16,
        "low_level_width": 8,
        "decoder_width": 16,
    },
    "dilated": {"width": 0.05, "weights": "none"},
    "fcn": {"encoder": "test_resnet", "weights": "none"},
    "fcn16s": {"width": 0.05, "weights": "none"},
    "fcn32s": {"width": 0.05, "weights": "none"},
    "fcn8s": {"width": 0.05, "weights": "none"},
    "lraspp": {"encoder": "mobilenetv3_small_050", "weights": "none"},
    "patchwise": {"encoder": "test_resnet", "weights": "none", "freeze": "none", "patch": 31},
    "unet": {"widths": (8, 8, 16)},
    "unet_original": {"width": 0.1},
    "unet_padded": {"width": 0.1},
}
"""Options that make an entry fast to run; an entry that is not here is run with its defaults and without
weights."""


def build(name: str, classes: int = 5, channels: int = 3, **options):
    torch.manual_seed(0)
    small = TINY.get(name) or ({"weights": "none"} if "weights" in options_of(MODEL.factory(name)) else {})
    return MODEL.build({"name": name, **small, **options}, out_channels=classes, in_channels=channels)


def images(net, batch: int, height: int, width: int, channels: int = 3) -> torch.Tensor:
    """Noise of this size, or of the next one that the network takes."""
    return torch.randn(batch, channels, valid_side(net, height), valid_side(net, width))


def first_loss(net, classes: int) -> torch.Tensor:
    logits = net(images(net, 2, 64, 64)).upsampled()
    return F.cross_entropy(logits, torch.randint(0, classes, (2, *logits.shape[-2:])))


NAMES = sorted(MODEL._entries)
every_network = pytest.mark.parametrize("name", NAMES)
FITTED = {"classical"}
"""Networks that are not trained: they have no gradient, no encoder, and parts that torch does not know."""
every_trained_network = pytest.mark.parametrize("name", sorted(set(NAMES) - FITTED))


@every_network
def test_yaml_is_the_signatures_defaults(name):
    text = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    assert next(iter(text)) == "name" and text.pop("name") == name
    expected = {
        key: list(o.default) if isinstance(o.default, tuple) else o.default
        for key, o in options_of(MODEL.factory(name)).items()
    }
    assert text == expected


@every_network
def test_only_fitted_networks_have_a_fit(name):
    net = build(name)
    assert net.fits_itself == (name in FITTED) == (type(net).fit is not Network.fit)


@every_network
def test_every_option_has_a_meaning(name):
    assert all(option.meaning for option in options_of(MODEL.factory(name)).values())


@every_network
@pytest.mark.parametrize("size", [(64, 64), (65, 65), (97, 129), (224, 224), (33, 33)])
def test_logits_of_any_size(name, size):
    net = build(name)
    for batch, training in ((1, False), (2, True)):
        x = images(net, batch, *size)
        output = net.train(training)(x)
        answered = tuple(side - 2 * net.margin for side in x.shape[-2:])
        assert isinstance(output, Output) and output.size == answered == output.crop(x).shape[-2:]
        assert output.upsampled().shape == (batch, 5, *answered)
        assert output.upsampled().isfinite().all()


@every_network
@pytest.mark.parametrize("channels", [1, 4])
def test_other_numbers_of_channels(name, channels):
    net = build(name, channels=channels).eval()
    assert net(images(net, 1, 32, 32, channels)).logits.shape[1] == 5
    assert isinstance(net.normalisation, Normalisation) and len(net.normalisation.mean) == channels


@every_trained_network
def test_gradient_reaches_every_parameter(name):
    net = build(name).train()
    for module in (
        net.modules()
    ):  # some encoders start the last normalisation of a block at zero, which stops the gradient once
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.ones_(module.weight)
    for key, head in net.named_parameters():  # and some networks all of their scores
        if key in net.head_keys and not head.any():
            torch.nn.init.normal_(head)
    first_loss(net, 5).backward()
    assert [
        n for n, p in net.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())
    ] == []


@every_network
@pytest.mark.parametrize("classes", [2, 21])
def test_first_loss_is_that_of_a_guess(name, classes):
    net = build(name, classes=classes).train()
    assert first_loss(net, classes).item() == pytest.approx(math.log(classes), rel=0.15)


@every_network
def test_heads_are_named(name):
    net = build(name, classes=7)
    state = net.state_dict()
    assert net.head_keys and all(state[key].shape[0] == 7 for key in net.head_keys)
    other = build(name, classes=9).state_dict()
    assert {key for key in state if state[key].shape != other[key].shape} == {
        *net.head_keys,
        *net.mixing_keys,
    }


@every_trained_network
def test_encoder_and_report(name):
    net = build(name)
    assert set(net.encoder.parameters()) < set(net.parameters())
    assert net.weights_report and "\n" not in net.weights_report


@every_trained_network
def test_channels_last_and_bfloat16(name):
    net = build(name).eval()
    x = images(net, 2, 64, 48)
    with torch.no_grad():
        plain = net(x).upsampled()
        last = (
            build(name)
            .eval()
            .to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
            .upsampled()
        )
        torch.testing.assert_close(last, plain, atol=1e-5, rtol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        output = net.train()(x)
    assert output.logits.dtype == torch.bfloat16
    output.upsampled().mean().backward()


@every_network
def test_the_same_seed_gives_the_same_network(name):
    first, second = build(name).state_dict(), build(name).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


@every_trained_network
def test_graph_is_traced_in_one_piece(name):
    net = build(name).eval()
    x = images(net, 1, 65, 64)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        traced = torch.compile(net, backend="eager", fullgraph=True)
        torch.testing.assert_close(traced(x).logits, net(x).logits)


@every_trained_network
def test_biases_shift_all_logits_once(name):
    plain, shifted = build(name).eval(), build(name).eval()
    shifted.set_biases(-1.5)
    x = images(plain, 1, 64, 64)
    with torch.no_grad():
        difference = shifted(x).upsampled() - plain(x).upsampled()
    # Towards the border of FCN-8s and 16s, the weights of the upsampling add up to less than 1.
    assert difference.max() < 0 and difference.min().item() == pytest.approx(-1.5, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("deeplabv3plus", {"encoder": "resnet18", "fine_width": 4}),
        ("dilated", {"context": "none"}),
        ("dilated", {"context": "large"}),
    ],
)
def test_biases_shift_the_logits_of_networks_with_further_stages_once(name, options):
    plain, shifted = build(name, **options).eval(), build(name, **options).eval()
    shifted.set_biases(-1.5)
    with torch.no_grad():
        x = images(plain, 1, 64, 64)
        difference = shifted(x).upsampled() - plain(x).upsampled()
    torch.testing.assert_close(difference, torch.full_like(difference, -1.5), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["fcn", "deeplabv3"])
def test_biases_shift_auxiliary_logits_too(name):
    net = build(name, aux=True).train()
    net.set_biases(-1.5)
    output = net(images(net, 2, 64, 64))
    assert output.aux and all(net.state_dict()[key].eq(-1.5).all() for key in net.bias_keys)
    assert len(net.bias_keys) == 2
