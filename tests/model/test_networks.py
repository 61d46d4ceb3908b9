"""What every network of the table holds to."""

import math
import warnings
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml

from segtrain.model import MODEL
from segtrain.registry import options_of
from segtrain.sample import Normalisation, Output

CONF = Path(__file__).parents[2] / "conf" / "model"
TINY = {
    "deeplabv3plus": {"encoder": "test_resnet", "weights": "none", "aspp_width": 16, "low_level_width": 8, "decoder_width": 16},
    "unet": {"widths": (8, 8, 16)},
}
"""Options that make an entry fast to run; an entry that is not here is run with its defaults and without weights."""


def build(name: str, classes: int = 5, channels: int = 3, **options):
    torch.manual_seed(0)
    small = TINY.get(name) or ({"weights": "none"} if "weights" in options_of(MODEL.factory(name)) else {})
    return MODEL.build({"name": name, **small, **options}, out_channels=classes, in_channels=channels)


NAMES = sorted(MODEL._entries)
every_network = pytest.mark.parametrize("name", NAMES)


@every_network
def test_yaml_is_the_signatures_defaults(name):
    text = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    assert next(iter(text)) == "name" and text.pop("name") == name
    expected = {key: list(o.default) if isinstance(o.default, tuple) else o.default for key, o in options_of(MODEL.factory(name)).items()}
    assert text == expected


@every_network
def test_every_option_has_a_meaning(name):
    assert all(option.meaning for option in options_of(MODEL.factory(name)).values())


@every_network
@pytest.mark.parametrize("size", [(64, 64), (65, 65), (97, 129), (224, 224), (33, 33)])
def test_logits_of_any_size(name, size):
    net = build(name)
    for batch, training in ((1, False), (2, True)):
        output = net.train(training)(torch.randn(batch, 3, *size))
        assert isinstance(output, Output) and output.size == size
        assert output.upsampled().shape == (batch, 5, *size)
        assert output.upsampled().isfinite().all()


@every_network
@pytest.mark.parametrize("channels", [1, 4])
def test_other_numbers_of_channels(name, channels):
    net = build(name, channels=channels).eval()
    assert net(torch.randn(1, channels, 32, 32)).logits.shape[1] == 5
    assert isinstance(net.normalisation, Normalisation) and len(net.normalisation.mean) == channels


@every_network
def test_gradient_reaches_every_parameter(name):
    net = build(name).train()
    for module in net.modules():  # some encoders start the last normalisation of a block at zero, which stops the gradient once
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.ones_(module.weight)
    F.cross_entropy(net(torch.randn(2, 3, 64, 64)).upsampled(), torch.randint(0, 5, (2, 64, 64))).backward()
    assert [n for n, p in net.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())] == []


@every_network
@pytest.mark.parametrize("classes", [2, 21])
def test_first_loss_is_that_of_a_guess(name, classes):
    net = build(name, classes=classes).train()
    loss = F.cross_entropy(net(torch.randn(2, 3, 64, 64)).upsampled(), torch.randint(0, classes, (2, 64, 64)))
    assert loss.item() == pytest.approx(math.log(classes), rel=0.15)


@every_network
def test_heads_are_named(name):
    net = build(name, classes=7)
    state = net.state_dict()
    assert net.head_keys and all(state[key].shape[0] == 7 for key in net.head_keys)
    other = build(name, classes=9).state_dict()
    assert {key for key in state if state[key].shape != other[key].shape} == set(net.head_keys)


@every_network
def test_encoder_and_report(name):
    net = build(name)
    assert set(net.encoder.parameters()) < set(net.parameters())
    assert net.weights_report and "\n" not in net.weights_report


@every_network
def test_channels_last_and_bfloat16(name):
    net, x = build(name).eval(), torch.randn(2, 3, 64, 48)
    with torch.no_grad():
        plain = net(x).upsampled()
        last = build(name).eval().to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last)).upsampled()
        torch.testing.assert_close(last, plain, atol=1e-5, rtol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        output = net.train()(x)
    assert output.logits.dtype == torch.bfloat16
    output.upsampled().mean().backward()


@every_network
def test_the_same_seed_gives_the_same_network(name):
    first, second = build(name).state_dict(), build(name).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


@every_network
def test_graph_is_traced_in_one_piece(name):
    net, x = build(name).eval(), torch.randn(1, 3, 65, 64)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        traced = torch.compile(net, backend="eager", fullgraph=True)
        torch.testing.assert_close(traced(x).logits, net(x).logits)
