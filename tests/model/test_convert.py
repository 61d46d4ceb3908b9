"""Whole networks of torchvision and segmentation_models_pytorch: taken over tensor by tensor, with the same
logits."""

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from segtrain.checkpoint.initial import start_from
from segtrain.errors import CheckpointError
from segtrain.model.convert import from_torchvision, recognised
from segtrain.model.deeplabv3 import deeplabv3
from segtrain.model.deeplabv3plus import deeplabv3plus
from segtrain.model.fcn import fcn
from segtrain.model.lraspp import lraspp
from segtrain.model.unet import unet
from segtrain.sample import Facts

CLASSES = 21
V3 = {"head": "torchvision", "output_stride": 8, "dropout": 0.5}
MOBILE = {"encoder": "mobilenetv3_large_100", "contract_dilation": False, "norm_eps": 0.001}
TORCHVISION = {
    "fcn_resnet50": (fcn, {}),
    "fcn_resnet101": (fcn, {"encoder": "resnet101"}),
    "deeplabv3_resnet50": (deeplabv3, V3),
    "deeplabv3_resnet101": (deeplabv3, {**V3, "encoder": "resnet101"}),
    "deeplabv3_mobilenet_v3_large": (deeplabv3, {**V3, **MOBILE, "output_stride": 16, "rates": (12, 24, 36)}),
    "lraspp_mobilenet_v3_large": (lraspp, MOBILE),
}
"""Our factory and the options with which it is torchvision's network."""
SMP_V3PLUS = {
    "separable": True, "separable_form": "plain", "aspp_conv": True, "decoder_convs": 1, "contract_dilation": False,
    "rates": (12, 24, 36), "dropout": 0.5, "align_corners": True,
}  # fmt: skip
SMP_V3 = {**V3, "contract_dilation": False, "align_corners": True}


def facts(classes: int = CLASSES) -> Facts:
    return Facts(tuple(f"class {i}" for i in range(classes)), ((0, 0, 0),) * classes)


def disturbed(net: nn.Module) -> nn.Module:
    """As after training: no statistic of batch normalisation is 0 or 1."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
    return net


def torchvision_net(name: str, aux: bool = True) -> nn.Module:
    from torchvision.models import segmentation

    torch.manual_seed(0)
    more = {} if name.startswith("lraspp") else {"aux_loss": aux}
    return disturbed(
        getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=CLASSES, **more)
    ).eval()


def saved(net: nn.Module, path) -> str:
    """As a .safetensors file, which holds its tensors in an order of its own."""
    save_file({key: tensor.contiguous() for key, tensor in net.state_dict().items()}, path)
    return str(path)


def started(net: nn.Module, source: str, classes: int = CLASSES) -> list[str]:
    with torch.no_grad():
        return start_from(net, facts(classes), source)


def assert_equal_logits(ours: nn.Module, theirs: nn.Module, sizes) -> None:
    """In double precision, where nothing but the order of sums can differ; theirs gives logits at the image's
    size."""
    ours, theirs = ours.eval().double(), theirs.eval().double()
    ours.training = True  # the auxiliary head answers; its parts stay as in evaluation
    for size in sizes:
        x = torch.randn(2, 3, *size, dtype=torch.double)
        with torch.no_grad():
            output, expected = ours(x), theirs(x)
        expected = expected if isinstance(expected, dict) else {"out": expected}
        for logits, key in zip((output.logits, *output.aux), expected, strict=True):
            up = F.interpolate(logits, size=size, mode="bilinear", align_corners=output.align_corners)
            assert expected[key].std() > 0.01, "constant logits prove nothing"
            torch.testing.assert_close(up, expected[key], atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name.startswith("fcn") or "101" in name else [])
        for name in TORCHVISION
    ],
)
def test_torchvisions_logits(tmp_path, name):
    theirs = torchvision_net(name)
    factory, options = TORCHVISION[name]
    ours = factory(CLASSES, weights="none", **options, **({} if factory is lraspp else {"aux": True}))
    lines = started(ours, saved(theirs, tmp_path / "net.safetensors"))
    count = len(theirs.state_dict())
    assert lines[1] == f"init: torchvision's {name}, {count} of {count} tensors under our names"
    assert lines[2:] == ["init: heads copied as they are"]
    # In the last one the features are wide enough to see the outer taps of the largest rate, 36.
    assert_equal_logits(ours, theirs, [(65, 65), (64, 96), (17, 38 * ours.options.output_stride + 1)])


@pytest.mark.parametrize(
    ("network", "encoder", "factory", "options"),
    [
        ("DeepLabV3Plus", "resnet34", deeplabv3plus, SMP_V3PLUS),
        ("DeepLabV3Plus", "resnet50", deeplabv3plus, SMP_V3PLUS),
        ("DeepLabV3Plus", "tu-resnet18", deeplabv3plus, {**SMP_V3PLUS, "contract_dilation": True}),
        ("DeepLabV3", "resnet18", deeplabv3, SMP_V3),
        ("Unet", "resnet34", unet, {}),
        ("Unet", "resnet50", unet, {}),
        ("Unet", "vgg11_bn", unet, {}),
    ],
)
def test_logits_of_segmentation_models_pytorch(tmp_path, network, encoder, factory, options):
    smp = pytest.importorskip("segmentation_models_pytorch")
    torch.manual_seed(0)
    theirs = disturbed(getattr(smp, network)(encoder, encoder_weights=None, classes=CLASSES))
    ours = factory(CLASSES, weights="none", encoder=encoder.removeprefix("tu-"), **options)
    lines = started(ours, saved(theirs, tmp_path / "net.safetensors"))
    count = len(theirs.state_dict())
    assert (
        lines[1]
        == f"init: segmentation_models_pytorch's {network}, {count} of {count} tensors under our names"
    )
    assert lines[2:] == ["init: heads copied as they are"]
    assert_equal_logits(ours, theirs, [(64, 96), (32, 38 * 16)])


@pytest.fixture(scope="module")
def file_of_fcn(tmp_path_factory):
    net = torchvision_net("fcn_resnet50")
    return saved(net, tmp_path_factory.mktemp("fcn") / "fcn.safetensors"), net.state_dict()


def test_a_head_that_only_training_needs_is_left_aside(file_of_fcn):
    lines = started(fcn(CLASSES, weights="none"), file_of_fcn[0])
    assert (
        lines[1]
        == "init: torchvision's fcn_resnet50, 326 of 334 tensors under our names; left aside: 8 of aux"
    )


def test_heads_of_other_classes_stay_fresh(file_of_fcn):
    path, tensors = file_of_fcn
    net = fcn(5, weights="none")
    before = net.head.logits.weight.clone()
    lines = started(net, path, classes=5)
    assert (
        lines[-1] == "init: fresh, for the file has none of their shape: head.logits.weight, head.logits.bias"
    )
    assert torch.equal(net.head.logits.weight, before)
    assert torch.equal(net.head.conv[0].weight, tensors["classifier.0.weight"])


def test_another_network_is_told_what_the_file_needs(file_of_fcn):
    message = (
        "it holds torchvision's fcn_resnet50, which needs model=fcn model.encoder=resnet50 "
        "model.contract_dilation=true "
        "model.output_stride=8 model.aux=true"
    )
    for net in (unet(CLASSES), fcn(CLASSES, weights="none", encoder="resnet34")):
        with pytest.raises(CheckpointError, match=message):
            started(net, file_of_fcn[0])


def test_part_of_a_file_is_an_error_that_names_the_first_tensor(file_of_fcn, tmp_path):
    tensors = {key: value for key, value in file_of_fcn[1].items() if key != "backbone.layer3.2.conv2.weight"}
    save_file(tensors, tmp_path / "part.safetensors")
    net = fcn(CLASSES, weights="none")
    before = net.encoder.conv1.weight.clone()
    with pytest.raises(
        CheckpointError,
        match=r"1 of 326 .* the first is encoder\.layer3\.2\.conv2\.weight; it holds torchvision's fcn",
    ):
        started(net, str(tmp_path / "part.safetensors"))
    assert torch.equal(net.encoder.conv1.weight, before), "nothing was copied"


def test_tensors_without_a_place_are_an_error(file_of_fcn, tmp_path):
    save_file({**file_of_fcn[1], "classifier.7.weight": torch.zeros(1)}, tmp_path / "more.safetensors")
    net = fcn(CLASSES, weights="none")
    before = net.encoder.conv1.weight.clone()
    with pytest.raises(
        CheckpointError, match=r"no place for 1 of the file's 335 tensors, the first is classifier\.7\.weight"
    ):
        started(net, str(tmp_path / "more.safetensors"))
    assert torch.equal(net.encoder.conv1.weight, before), "nothing was copied"


def test_options_that_no_tensor_shows_are_said():
    with torch.device("meta"):
        found = from_torchvision(torchvision_like("deeplabv3_mobilenet_v3_large"))
        net = deeplabv3(CLASSES, weights="none", encoder="mobilenetv3_large_100", head="torchvision")
        same = deeplabv3(CLASSES, weights="none", **TORCHVISION["deeplabv3_mobilenet_v3_large"][1])
        finer = deeplabv3(CLASSES, weights="none", **V3)
    assert found.about(net, "x")[1:] == [
        "init: this network is built otherwise than that one, which has model.contract_dilation=false "
        "model.norm_eps=0.001 "
        "model.rates=[12,24,36] model.dropout=0.5"
    ]
    assert found.about(same, "x")[1:] == []
    with torch.device("meta"):
        resnet = from_torchvision(torchvision_like("deeplabv3_resnet50"))
    assert resnet.about(finer, "x")[1:] == [], (
        "at output stride 8 the rates are 12, 24, 36 without being typed"
    )


def test_what_smp_lets_its_users_choose_is_called_a_default():
    smp = pytest.importorskip("segmentation_models_pytorch")
    with torch.device("meta"):
        found = recognised(smp.DeepLabV3("resnet18", encoder_weights=None, classes=CLASSES).state_dict())
        net = deeplabv3(
            CLASSES, weights="none", encoder="resnet18", head="torchvision", contract_dilation=False
        )
    assert found.about(net, "x")[1:] == [
        "init: this network is built otherwise than that one, which has model.align_corners=true",
        "init: this network is built otherwise than that library's default, model.output_stride=8 "
        "model.rates=[12,24,36] "
        "model.dropout=0.5; the file does not say",
    ]


@pytest.mark.parametrize(
    ("encoder", "ours", "advice"),
    [
        (
            "efficientnet-b0",
            "efficientnet_b0",
            r"; the tensors of its encoder cannot be renamed: .* only those of resnet\*, resnext\*",
        ),
        ("mobilenet_v2", "mobilenetv2_100", r"; the tensors of its encoder cannot be renamed"),
        (
            "tu-efficientnet_lite0",
            "resnet18",
            r" and, as model\.encoder, the encoder that it was trained with$",
        ),
        ("vgg11", "vgg13", r" and, as model\.encoder, the encoder that it was trained with$"),
        ("resnext50_32x4d", "resnet50", r" and, as model\.encoder, the encoder that it was trained with$"),
    ],
)
def test_an_encoder_that_cannot_be_named_is_spoken_of(tmp_path, encoder, ours, advice):
    smp = pytest.importorskip("segmentation_models_pytorch")
    theirs = smp.Unet(encoder, encoder_weights=None, classes=CLASSES)
    with pytest.raises(
        CheckpointError, match=r"which needs model=unet model\.decoder_widths=\[256,128,64,32,16\]" + advice
    ):
        started(unet(CLASSES, encoder=ours, weights="none"), saved(theirs, tmp_path / "net.safetensors"))


def torchvision_like(name: str) -> dict:
    """The names and shapes of a network of torchvision."""
    from torchvision.models import segmentation

    return getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=CLASSES).state_dict()


def test_which_resnet_it_is():
    smp = pytest.importorskip("segmentation_models_pytorch")
    with torch.device("meta"):
        for encoder in ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"):
            tensors = smp.Unet(encoder, encoder_weights=None).state_dict()
            assert recognised(tensors).options["encoder"] == encoder
        for encoder in ("resnext50_32x4d", "se_resnet50", "tu-seresnet50", "tu-resnet50d", "vgg11"):
            assert "encoder" not in recognised(smp.Unet(encoder, encoder_weights=None).state_dict()).options


def test_widths_of_a_unet_are_read_off():
    smp = pytest.importorskip("segmentation_models_pytorch")
    with torch.device("meta"):
        tensors = smp.Unet(
            "resnet18", encoder_weights=None, decoder_channels=(128, 64, 32, 16, 8)
        ).state_dict()
    assert (
        recognised(tensors)
        .needs()
        .endswith("model=unet model.encoder=resnet18 model.decoder_widths=[128,64,32,16,8]")
    )


def test_a_unet_with_attention_is_not_taken_without_it(tmp_path):
    smp = pytest.importorskip("segmentation_models_pytorch")
    theirs = smp.Unet("resnet18", encoder_weights=None, classes=CLASSES, decoder_attention_type="scse")
    with pytest.raises(CheckpointError, match=r"no place for .* the first is decoder\.blocks\.0\.attention1"):
        started(
            unet(CLASSES, encoder="resnet18", weights="none"), saved(theirs, tmp_path / "net.safetensors")
        )


def test_networks_without_a_counterpart_are_refused():
    smp = pytest.importorskip("segmentation_models_pytorch")
    with torch.device("meta"):
        tensors = smp.FPN("resnet18", encoder_weights=None).state_dict()
    with pytest.raises(
        CheckpointError, match=r"x\.pth holds a network of segmentation_models_pytorch without a counterpart"
    ):
        recognised(tensors, "x.pth")


def test_our_own_files_are_none_of_theirs():
    with torch.device("meta"):
        for net in (
            unet(3),
            fcn(3, weights="none", aux=True),
            deeplabv3plus(3, weights="none"),
            lraspp(3, weights="none"),
        ):
            assert recognised(net.state_dict()) is None
