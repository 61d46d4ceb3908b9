"""What is asked of a network is declared in one class, and nothing else is looked for on a network."""

import ast
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from segtrain.errors import ConfigError
from segtrain.model import MODEL
from segtrain.model.network import Network

PACKAGE = Path(__file__).parents[2] / "segtrain"
NETWORKS = {"model", "_model", "net", "network", "twin"}
"""Names that variables and attributes with a network have."""


def looked_for(source: str) -> list[str]:
    """Calls of getattr and hasattr that look for an attribute of a network."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call) and node.args]
    return [
        ast.unparse(call)
        for call in calls
        if ast.unparse(call.func) in ("getattr", "hasattr") and NETWORKS & set(_names(call.args[0]))
    ]


def _names(node: ast.AST) -> list[str]:
    parts = list(ast.walk(node))
    names = [part.id for part in parts if isinstance(part, ast.Name)]
    return names + [part.attr for part in parts if isinstance(part, ast.Attribute)]


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.stem)
def test_nothing_is_looked_for_on_a_network(path):
    assert looked_for(path.read_text("utf-8")) == []


def test_what_is_looked_for_is_seen():
    source = "getattr(net, 'a')\nhasattr(parts.model, 'b')\ngetattr(getattr(net, 'c', None), 'd')\ngetattr(op, 'e')"
    assert len(looked_for(source)) == 4


class Bare(Network):
    def forward(self, x):
        return x


def test_defaults():
    net = Bare()
    assert net.encoder is None and net.output_stride is None and net.built_with() == {}
    assert list(net.state_dict()) == [] and net.resize_for({"a": torch.zeros(1)}) is None
    with pytest.raises(NotImplementedError, match="Bare is trained by an optimizer"):
        net.fit([], np.random.default_rng(0))


def test_an_encoder_is_a_module_of_the_network():
    net = Bare()
    net.encoder = nn.Conv2d(3, 2, 1)
    assert list(net.state_dict()) == ["encoder.weight", "encoder.bias"]
    assert dict(net.named_children()) == {"encoder": net.encoder}


def test_output_stride_is_that_of_the_options():
    options = {"name": "fcn", "encoder": "test_resnet", "weights": "none", "output_stride": 16}
    net = MODEL.build(options, out_channels=2)
    assert net.output_stride == 16 and net.built_with()["output_stride"] == 16


def test_a_plug_in_that_is_no_network_is_refused(monkeypatch):
    monkeypatch.setitem(MODEL._entries, "theirs", lambda out_channels: nn.Conv2d(3, out_channels, 1))
    with pytest.raises(
        ConfigError, match=r"model=theirs makes a Conv2d, .*segtrain\.model\.network\.Network"
    ):
        MODEL.build({"name": "theirs"}, out_channels=2)
