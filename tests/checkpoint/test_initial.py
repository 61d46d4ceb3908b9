"""A new run from the weights of another one: what is copied, what stays fresh, and that it is said."""

import pytest
import torch

from segtrain import checkpoint
from segtrain.checkpoint.initial import start_from
from segtrain.errors import CheckpointError
from segtrain.model.dilated import Dilated, Options
from segtrain.model.encoder.vgg import DropoutVGGOptions
from segtrain.model.fcn_vgg import FCN
from segtrain.sample import Facts, Normalisation

CLASSES = ("road", "car", "tree")


def facts(classes=CLASSES) -> Facts:
    return Facts(
        tuple(classes), ((0, 0, 0),) * len(classes), normalisation=Normalisation((0.5,) * 3, (0.5,) * 3)
    )


def fcn(stride, seed=0, classes=3) -> FCN:
    torch.manual_seed(seed)
    net = FCN(DropoutVGGOptions(width=0.02), classes, 3, stride=stride)
    for key in net.head_keys:
        torch.nn.init.normal_(net.state_dict()[key])
    return net


def dilated(context, seed=0, classes=3) -> Dilated:
    torch.manual_seed(seed)
    return Dilated(Options(width=0.02, context=context, context_dilations=(1, 2, 1)), classes, 3)


def run_of(net, folder, classes=CLASSES) -> str:
    config = {"data": {"name": "shapes"}, "trainer": {"steps": 1}}
    about = {
        "config": config,
        "facts": facts(classes).plain(),
        "task": "semantic",
        "step": 1,
        "scores": None,
        "protocol": None,
    }
    folder.mkdir()
    checkpoint.save(folder, 1, net.state_dict(), {}, about)
    checkpoint.link(folder, "best", 1)
    return str(folder)


def started(net, source, classes=CLASSES) -> list[str]:
    with torch.no_grad():
        return start_from(net, facts(classes), source)


def fresh_of(lines: list[str]) -> list[str]:
    """The tensors that were named as fresh."""
    return [
        name
        for line in lines
        if line.startswith("init: fresh")
        for name in line.rpartition(": ")[2].split(", ")
    ]


@pytest.mark.parametrize("kind", ["run", "file"])
def test_fcn_goes_from_32s_over_16s_to_8s(tmp_path, kind):
    source = fcn(32)
    for stride, layer in ((16, "score_pool4"), (8, "score_pool3")):
        net, path = fcn(stride, seed=stride), tmp_path / f"{stride}"
        own = {key: tensor.clone() for key, tensor in net.state_dict().items()}
        if kind == "run":
            lines = started(net, run_of(source, path))
        else:
            torch.save(source.state_dict(), path)
            lines = started(net, str(path))
        new = [f"{layer}.weight", f"{layer}.bias"]
        assert fresh_of(lines) == new
        there = source.state_dict()
        assert all(
            torch.equal(tensor, own[key] if key in new else there[key])
            for key, tensor in net.state_dict().items()
        )
        source = net


def test_rows_go_to_the_classes_of_their_name(tmp_path):
    source, net = fcn(32), fcn(32, seed=1, classes=4)
    before = net.score_fr.weight.clone()
    lines = started(net, run_of(source, tmp_path / "run"), ("tree", "sky", "road", "car"))
    assert torch.equal(net.score_fr.weight[[2, 3, 0]], source.score_fr.weight)
    assert torch.equal(net.score_fr.bias[[2, 3, 0]], source.score_fr.bias)
    assert torch.equal(net.score_fr.weight[1], before[1])
    assert "init: head rows of 3 classes copied by name; fresh: sky" in lines and not fresh_of(lines)


@pytest.mark.parametrize(
    ("before", "after", "rows"),
    [
        (("background", "crack"), ("background", "crack"), (1, 1)),
        (("background", "crack"), ("background", "road"), (1, 1)),
        (("background", "crack"), ("background", "crack"), (2, 1)),
        (("background", "crack"), ("background", "crack"), (1, 2)),
        (("crack", "road"), ("background", "crack"), (2, 1)),
    ],
)
def test_the_one_row_of_a_binary_head_is_that_of_no_class_name(tmp_path, before, after, rows):
    """It tells the second class from the first, so a row of one class has another meaning."""
    source, net = fcn(32, classes=rows[0]), fcn(32, seed=1, classes=rows[1])
    own = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    same = before == after and rows[0] == rows[1]
    lines = started(net, run_of(source, tmp_path / "run", before), after)
    assert fresh_of(lines) == ([] if same else list(net.head_keys))
    for name in net.head_keys:
        assert torch.equal(net.state_dict()[name], (source.state_dict() if same else own)[name])
    assert any("copied by name" in line for line in lines) == same


def test_a_context_module_is_fresh_behind_a_front_end(tmp_path):
    source, net = dilated("none"), dilated("basic", seed=1)
    context = {key: tensor.clone() for key, tensor in net.context.state_dict().items()}
    lines = started(net, run_of(source, tmp_path / "run"))
    assert fresh_of(lines) == list(net.mixing_keys)
    assert all(torch.equal(tensor, context[key]) for key, tensor in net.context.state_dict().items())
    assert torch.equal(net.final.weight, source.final.weight)


@pytest.mark.parametrize(
    ("classes", "copied"),
    [
        (CLASSES, True),
        (("car", "road", "tree"), False),
        (("road", "car", "sky"), False),
        ((*CLASSES, "sky"), False),
    ],
)
def test_tensors_that_mix_classes_need_the_same_classes(tmp_path, classes, copied):
    source, net = dilated("basic"), dilated("basic", seed=1, classes=len(classes))
    own = {key: net.state_dict()[key].clone() for key in net.mixing_keys}
    lines = started(net, run_of(source, tmp_path / "run"), classes)
    expected = source.state_dict() if copied else own
    assert all(torch.equal(net.state_dict()[key], expected[key]) for key in net.mixing_keys)
    assert fresh_of(lines) == ([] if copied else list(net.mixing_keys))
    for name in set(classes) & set(CLASSES):
        assert torch.equal(net.final.weight[classes.index(name)], source.final.weight[CLASSES.index(name)])


def test_another_network_is_refused(tmp_path):
    source = fcn(32)
    torch.manual_seed(0)
    with pytest.raises(
        CheckpointError,
        match=r"tensors are missing or of another shape, the first is encoder\.levels\.0\.0\.weight",
    ):
        started(FCN(DropoutVGGOptions(width=0.04), 3, 3, stride=32), run_of(source, tmp_path / "run"))


def test_weights_that_are_not_finite_are_refused(tmp_path):
    net = fcn(32)
    next(net.parameters()).data.view(-1)[3] = float("nan")
    torch.save(net.state_dict(), tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=r"weights\.pth: .*weight holds NaN or infinite values"):
        started(fcn(32), str(tmp_path / "weights.pth"))
