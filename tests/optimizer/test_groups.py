"""Every parameter learns in exactly one group, at the rate and decay that it should."""

import pytest
import torch
from torch import nn

from segtrain.errors import ConfigError
from segtrain.model.network import Network as BaseNetwork
from segtrain.optimizer import OPTIMIZER


class Network(BaseNetwork):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.head = nn.Conv2d(4, 2, 1)


@pytest.mark.parametrize("name", OPTIMIZER.names())
def test_groups_part_the_parameters(name):
    network = Network()
    optimizer = OPTIMIZER.build(
        {"name": name, "lr": 0.5, "weight_decay": 0.25, "encoder_factor": 0.1}, network=network
    )
    where = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    listed = [p for group in optimizer.param_groups for p in group["params"]]
    assert len(listed) == len(where) == len(list(network.parameters()))
    expected = {
        "encoder.0.weight": (0.05, 0.25),
        "encoder.0.bias": (0.05, 0.0),
        "encoder.1.weight": (0.05, 0.0),
        "encoder.1.bias": (0.05, 0.0),
        "head.weight": (0.5, 0.25),
        "head.bias": (0.5, 0.0),
    }
    for key, parameter in network.named_parameters():
        group = where[id(parameter)]
        assert (group["lr"], group["weight_decay"]) == pytest.approx(expected[key]), key


def test_biases_at_a_rate_of_their_own():
    network = Network()
    options = {"name": "sgd", "lr": 0.5, "weight_decay": 0.25, "encoder_factor": 0.1, "bias_factor": 2.0}
    where = {
        id(p): group
        for group in OPTIMIZER.build(options, network=network).param_groups
        for p in group["params"]
    }
    expected = {
        "encoder.0.weight": (0.05, 0.25),
        "encoder.0.bias": (0.1, 0.0),
        "encoder.1.weight": (0.05, 0.0),
        "encoder.1.bias": (0.05, 0.0),
        "head.weight": (0.5, 0.25),
        "head.bias": (1.0, 0.0),
    }
    assert len(where) == len(expected)
    for key, parameter in network.named_parameters():
        group = where[id(parameter)]
        assert (group["lr"], group["weight_decay"]) == pytest.approx(expected[key]), key
    with pytest.raises(ConfigError, match=r"optimizer\.bias_factor is -1"):
        OPTIMIZER.build({**options, "bias_factor": -1.0}, network=network)


def test_without_a_factor_the_groups_are_as_before():
    """The groups are saved by their number: a run from before the option must still resume."""
    groups = OPTIMIZER.build({"name": "sgd", "encoder_factor": 0.1}, network=Network()).param_groups
    assert [len(group["params"]) for group in groups] == [1, 3, 1, 1]


@pytest.mark.parametrize("name", OPTIMIZER.names())
def test_layer_decay_slows_early_stages(name):
    """Stages: stem with its norm, two of a list, one more; the last one has the encoder's rate."""
    network = Network()
    blocks = nn.Sequential(*(nn.Sequential(nn.Conv2d(4, 4, 1)) for _ in range(2)))
    last = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU())
    network.encoder = nn.Module()
    for key, part in (
        ("stem", nn.Conv2d(3, 4, 3)),
        ("norm", nn.BatchNorm2d(4)),
        ("blocks", blocks),
        ("last", last),
    ):
        network.encoder.add_module(key, part)
    options = {"name": name, "lr": 0.5, "encoder_factor": 0.5, "layer_decay": 0.5}
    groups = OPTIMIZER.build(options, network=network).param_groups
    rates = {id(p): (group["lr"], group["name"]) for group in groups for p in group["params"]}
    expected = {"stem": 0, "norm": 0, "blocks.0.0": 1, "blocks.1.0": 2, "last.0": 3}
    for key, parameter in network.encoder.named_parameters():
        stage = expected[key.rpartition(".")[0]]
        assert rates[id(parameter)] == (0.25 * 0.5 ** (3 - stage), f"encoder_{stage}")
    assert rates[id(network.head.weight)] == (0.5, "rest")
    assert len(rates) == len(list(network.parameters()))


def test_decay_all_and_frozen_parameters():
    network = Network()
    network.encoder.requires_grad_(False)
    optimizer = OPTIMIZER.build({"name": "sgd", "decay_all": True, "weight_decay": 0.25}, network=network)
    assert [(len(group["params"]), group["weight_decay"]) for group in optimizer.param_groups] == [(2, 0.25)]


def test_sgd_steps_as_torch_does():
    torch.manual_seed(0)
    network, twin = Network(), Network()
    twin.load_state_dict(network.state_dict())
    ours = OPTIMIZER.build(
        {"name": "sgd", "lr": 0.1, "encoder_factor": 1.0, "weight_decay": 0.01, "decay_all": True},
        network=network,
    )
    theirs = torch.optim.SGD(twin.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    x = torch.randn(2, 3, 8, 8)
    for _ in range(3):
        for one, optimizer in ((network, ours), (twin, theirs)):
            optimizer.zero_grad()
            one.head(one.encoder(x)).square().mean().backward()
            optimizer.step()
    for a, b in zip(network.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    "options",
    [
        {"name": "sgd", "momentum": -0.1},
        {"name": "sgd", "momentum": 1.0},
        {"name": "sgd", "momentum": 0.0, "nesterov": True},
        {"name": "adamw", "betas": [1.0, 0.9]},
    ],
    ids=str,
)
def test_options_that_torch_would_refuse_later(options):
    with pytest.raises(ConfigError, match=r"optimizer\."):
        OPTIMIZER.build(options, network=Network())
