"""Encoders and their output stride."""

import copy

import pytest
import timm
import torch
from torch import nn

from segtrain.errors import ConfigError, SizeError
from segtrain.model.deeplabv3plus import DeepLabV3Plus, deeplabv3plus
from segtrain.model.encoder.timm_encoder import encoder_of
from segtrain.model.output_stride import at_output_stride
from segtrain.model.parts.norm import freeze_batch_norm
from segtrain.model.unet import unet

EXACT = [
    "resnet18",
    "resnet50",
    "mobilenetv2_100",
    "efficientnet_lite0",
    "regnetx_002",
    "mobilenetv4_conv_small",
    "repvgg_a0",
    "xception41",
    "test_resnet",
    "resnet10t",
    "resnet50d",
]
"""Encoders that compute the same function at every output stride. All but the first four are tried only by
`make slow`."""
NOT_EXACT = {
    "tf_efficientnet_lite0": "its padding is asymmetric at even sizes",
    "regnety_002": "squeeze-excitation averages over another grid",
    "mobilenetv3_small_050": "squeeze-excitation averages over another grid",
    "convnext_atto": "its padding is that of another grid",
    "resnetblur18": "anti-aliasing blurs over another grid",
}


def disturb(net: nn.Module) -> nn.Module:
    """Batch normalisation as it is after training: nothing is 0 or 1."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
    return net


def difference(name: str, output_stride: int, size: int, **options) -> float:
    """Largest difference, relative to the largest value, between features at stride 32 and those at a finer
    stride, subsampled."""
    torch.manual_seed(0)
    coarse = disturb(encoder_of(name, 3, 32)).double().eval()
    fine = encoder_of(name, 3, output_stride, **options).double().eval()
    fine.load_state_dict(coarse.state_dict())
    step, x = 32 // output_stride, torch.randn(1, 3, size, size, dtype=torch.double)
    with torch.no_grad():
        a, b = coarse(x)[-1], fine(x)[-1][..., ::step, ::step]
    return ((a - b).abs().max() / a.abs().max()).item()


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in EXACT[:4] else pytest.mark.slow) for name in EXACT]
)
def test_subsampled_features_are_those_of_stride_32(name):
    assert max(difference(name, 16, 64), difference(name, 8, 65)) < 1e-12


@pytest.mark.parametrize("name", ["test_resnet", "resnet10t"])
@pytest.mark.parametrize("size", [64, 65, 97])
def test_averaging_shortcuts_see_the_same_pixels_at_every_output_stride(name, size):
    assert max(difference(name, stride, size) for stride in (8, 16)) < 1e-12


def test_tf_networks_are_exact_at_odd_sizes():
    assert (
        max(difference("tf_efficientnet_lite0", 16, 65), difference("tf_efficientnet_lite0", 8, 65)) < 1e-12
    )


@pytest.mark.parametrize("name", NOT_EXACT)
def test_encoders_named_as_not_exact_are_not(name):
    assert difference(name, 8, 64) > 1e-3


@pytest.mark.parametrize(
    ("stride", "layer3", "layer4"),
    [(32, [1] * 6, [1, 1, 1]), (16, [1] * 6, [1, 2, 2]), (8, [1, 2, 2, 2, 2, 2], [2, 4, 4])],
)
def test_first_convolution_of_a_stage_keeps_the_dilation_before(stride, layer3, layer4):
    with torch.device("meta"):
        net = encoder_of("resnet50", 3, stride)
    assert [block.conv2.dilation[0] for block in net.layer3] == layer3
    assert [block.conv2.dilation[0] for block in net.layer4] == layer4


def dilations(name: str, stride: int, layer: str, **options) -> list[int]:
    """Of the spatial convolutions of a stage, in order; their padding must keep the size."""
    with torch.device("meta"):
        stage = encoder_of(name, 3, stride, **options).get_submodule(layer)
    convs = [
        module for module in stage.modules() if isinstance(module, nn.Conv2d) and module.kernel_size[0] > 1
    ]
    assert all(conv.padding[0] == conv.dilation[0] * (conv.kernel_size[0] // 2) for conv in convs)
    return [conv.dilation[0] for conv in convs]


@pytest.mark.parametrize(("stride", "layer3", "layer4"), [(32, 1, 1), (16, 1, 2), (8, 2, 4)])
def test_without_the_contracted_rule_a_stage_has_one_dilation(stride, layer3, layer4):
    for name in ("resnet50", "resnet18"):
        assert set(dilations(name, stride, "layer3", contract_dilation=False)) == {layer3}
        assert set(dilations(name, stride, "layer4", contract_dilation=False)) == {layer4}
    assert dilations("resnet18", 8, "layer3") == [1, 2, 2, 2] and dilations("resnet18", 8, "layer4") == [
        2,
        4,
        4,
        4,
    ]


def test_torchvisions_rule_for_mobilenets():
    assert dilations("mobilenetv3_large_100", 16, "blocks.5", contract_dilation=False) == [2, 2, 2]
    assert dilations("mobilenetv3_large_100", 16, "blocks.5") == [1, 2, 2]
    assert dilations("mobilenetv3_large_100", 16, "blocks.4", contract_dilation=False) == [1, 1]


def test_without_the_contracted_rule_subsampling_is_no_identity():
    assert difference("resnet18", 16, 64, contract_dilation=False) > 0.01
    assert difference("resnet18", 32, 64, contract_dilation=False) == 0


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "xception41", "regnetx_002", "convnext_atto"])
def test_one_dilation_a_stage_keeps_the_sizes(name):
    with torch.device("meta"):
        for size in (64, 65):
            sizes = [
                [f.shape for f in encoder_of(name, 3, 8, contract)(torch.empty(1, 3, size, size))]
                for contract in (True, False)
            ]
            assert sizes[0] == sizes[1]


@pytest.mark.parametrize(
    ("stride", "layer3", "layer4"), [(32, 1, [1, 2, 4]), (16, 1, [2, 4, 8]), (8, None, [4, 8, 16])]
)
def test_multi_grid_multiplies_the_rate_of_the_last_block(stride, layer3, layer4):
    for contract in (True, False):
        assert (
            dilations("resnet50", stride, "layer4", multi_grid=(1, 2, 4), contract_dilation=contract)
            == layer4
        )
    assert dilations("resnet50", stride, "layer3", multi_grid=(1, 2, 4)) == (
        [1, 2, 2, 2, 2, 2] if layer3 is None else [layer3] * 6
    )
    assert dilations("resnet18", stride, "layer4", multi_grid=(1, 2)) == [
        rate for rate in layer4[:2] for _ in range(2)
    ]


def test_multi_grid_of_ones_is_one_dilation_for_all_units():
    for stride in (8, 16, 32):
        ones = dilations("resnet50", stride, "layer4", multi_grid=(1, 1, 1))
        assert ones == dilations("resnet50", stride, "layer4", contract_dilation=False)


def test_dilation_rules_change_no_parameter():
    with torch.device("meta"):
        shapes = [
            {key: value.shape for key, value in encoder_of("resnet50", 3, 16, **options).state_dict().items()}
            for options in ({}, {"contract_dilation": False}, {"multi_grid": (1, 2, 4)})
        ]
    assert shapes[0] == shapes[1] == shapes[2]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mobilenetv2_100", {"multi_grid": (1, 2, 4)}, "model.multi_grid needs"),
        ("resnet50", {"multi_grid": (1, 2)}, "allowed: null or 3 integers"),
        ("resnet50", {"multi_grid": (1, 2, 0)}, "allowed: null or 3 integers"),
        ("resnetblur50", {"contract_dilation": False}, "model.contract_dilation=false is not possible"),
        ("resnet18", {"norm_eps": 0.0}, "model.norm_eps is 0.0"),
    ],
)
def test_rules_that_cannot_be_followed_are_refused(name, options, message):
    with pytest.raises(ConfigError, match=message), torch.device("meta"):
        encoder_of(name, 3, 16, **options)


def test_normalisation_takes_the_eps_that_is_asked_for():
    with torch.device("meta"):
        norms = [
            m for m in encoder_of("resnet18", 3, 32, norm_eps=1e-3).modules() if isinstance(m, nn.BatchNorm2d)
        ]
    assert norms and {norm.eps for norm in norms} == {1e-3}


@pytest.mark.parametrize(
    ("name", "parameters"), [("resnet18", 11_176_512), ("resnet50", 23_508_032), ("xception65", 37_867_312)]
)
def test_trunks_have_the_published_size(name, parameters):
    with torch.device("meta"):
        assert sum(p.numel() for p in encoder_of(name, 3, 32).parameters()) == parameters


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "convnext_atto", "regnetx_002"])
@pytest.mark.parametrize("stride", [8, 16, 32])
def test_features_have_the_channels_and_sizes_that_are_said(name, stride):
    with torch.device("meta"):
        net = encoder_of(name, 4, stride)
        features = net(torch.empty(1, 4, 64, 96))
    assert [f.shape[1] for f in features] == list(net.channels)
    assert [(64 // f.shape[2], 96 // f.shape[3]) for f in features] == [(r, r) for r in net.reductions]
    assert net.reductions[-1] == stride


@pytest.mark.parametrize(
    "name",
    ["swin_tiny_patch4_window7_224", "vit_tiny_patch16_224", "pvt_v2_b0", "densenet121", "hrnet_w18_small"],
)
def test_families_without_an_output_stride_are_refused(name):
    with pytest.raises(
        ConfigError, match=f"model.encoder={name} cannot hand out its features at output stride 16"
    ):
        encoder_of(name, 3, 16)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("resnet5O", 3, 16), "did you mean 'resnet50'"),
        (("xception", 3, 32), "model.encoder=xception does not exist"),
        (("resnet50.nothing", 3, 16), "resnet50 has the weights a1_in1k"),
        (("resnet50", 11, 16), "1 to 10"),
    ],
)
def test_what_cannot_be_had_is_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        encoder_of(*arguments)


SIDES = {
    "caformer_s18": (32, 32),
    "densenet121": (32, 32),
    "dla34": (32, 32),
    "edgenext_xx_small": (32, 32),
    "fastvit_t8": (32, 32),
    "hrnet_w18_small": (32, 32),
    "mobileone_s0": (32, 32),
    "mobilevit_xxs": (32, 32),
    "poolformerv2_s12": (32, 32),
    "pvt_v2_b0": (32, 32),
    "repvit_m1": (32, 32),
    "starnet_s1": (32, 32),
    "test_mambaout": (32, 32),
    "vgg11": (32, 32),
    "mobilevitv2_050": (64, 64),
    "maxvit_pico_rw_256": (256, 256),
    "efficientformer_l1": (224, 0),
    "efficientformerv2_s0": (224, 0),
    "swin_s3_tiny_224": (224, 0),
    "test_coatnet": (160, 0),
}
"""A small network of each family that takes no output stride, and the sides of the images that it takes."""


@pytest.mark.parametrize("name", SIDES)
def test_families_without_an_output_stride_are_encoders_of_a_unet(name):
    with torch.device("meta"):
        net = unet(3, encoder=name, weights="none").eval()
        assert {4, 8, 16, 32} <= set(net.encoder.reductions) and net.encoder.sides == SIDES[name]
        assert net(torch.empty(2, 3, 70, 90)).logits.shape == (2, 3, 70, 90)


@pytest.mark.parametrize("name", ["efficientformerv2_s0", "edgenext_xx_small", "repvit_m1", "test_mambaout"])
def test_families_without_an_output_stride_compute_and_learn(name):
    net = unet(3, encoder=name, weights="none").train()
    logits = net(torch.randn(2, 3, 64, 70)).logits
    logits.square().mean().backward()
    assert logits.isfinite().all() and logits.shape == (2, 3, 64, 70)
    assert any(p.grad is not None and p.grad.any() for p in net.encoder.parameters())


@pytest.mark.parametrize("name", ["efficientformer_l1", "repvit_m1", "test_mambaout"])
def test_families_without_an_output_stride_take_weights(name, tmp_path):
    source = timm.create_model(name).state_dict()
    torch.save(source, tmp_path / "weights.pth")
    net = unet(3, encoder=name, weights=str(tmp_path / "weights.pth"))
    values = {value.double().sum().item() for value in source.values()}
    assert all(parameter.double().sum().item() in values for parameter in net.encoder.parameters())


def test_images_larger_than_the_encoder_takes_are_refused():
    with torch.device("meta"):
        net = unet(3, encoder="efficientformerv2_s0", weights="none")
    assert net(torch.empty(2, 3, 224, 224, device="meta")).logits.shape[-2:] == (224, 224)
    with pytest.raises(SizeError, match=r"a side of 256 px; its encoder takes up to 224 px"):
        net(torch.empty(2, 3, 224, 256, device="meta"))


def test_networks_that_do_not_pad_refuse_encoders_of_certain_sides():
    with pytest.raises(ConfigError, match=r"mobilevitv2_050 takes images of certain sides .* model=unet"):
        encoder_of("mobilevitv2_050", 3, 32)
    with torch.device("meta"):
        assert encoder_of("repvit_m1", 3, 32).sides == (32, 32)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "inception_v3", "levit_128s"])
def test_encoders_without_features_of_these_strides_are_refused(name):
    with pytest.raises(ConfigError, match=f"{name} cannot hand out its features at output stride 32"):
        unet(3, encoder=name, weights="none")


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    made = deeplabv3plus(
        3, encoder="test_resnet", weights="none", aspp_width=8, low_level_width=8, decoder_width=8
    )
    return disturb(made)


def test_twin_shares_every_tensor(net):
    twin = at_output_stride(net, 8)
    mine, its = net.state_dict(keep_vars=True), twin.state_dict(keep_vars=True)
    assert all(mine[key] is its[key] for key in mine)
    assert not any(tensor.is_meta for tensor in (*twin.parameters(), *twin.buffers()))
    with torch.no_grad():
        net.head.bias.fill_(7)
    assert (twin.head.bias == 7).all()
    assert twin.normalisation == net.normalisation and twin.weights_report == net.weights_report


class WithConstant(DeepLabV3Plus):
    def __init__(self, options, out_channels, in_channels):
        super().__init__(options, out_channels, in_channels)
        self.register_buffer("constant", torch.rand(3), persistent=False)


def test_twin_shares_buffers_that_are_not_saved(net):
    net = WithConstant(net.options, 3, 3)
    twin = at_output_stride(net, 8)
    assert twin.constant is net.constant
    assert twin.load_state_dict(net.state_dict())


def test_twin_has_the_modes_and_the_frozen_parts(net):
    net.train()
    net.decoder.eval()
    freeze_batch_norm(net.encoder)
    twin = at_output_stride(net, 8)
    assert [m.training for m in twin.modules()] == [m.training for m in net.modules()]
    assert not net.encoder.bn1.weight.requires_grad, "the twin's flags must not reach the shared parameters"
    assert not twin.train().encoder.bn1.training


def test_twin_there_and_back_computes_the_same(net):
    x = torch.randn(1, 3, 64, 64)
    back = at_output_stride(at_output_stride(net.eval(), 8), 16)
    with torch.no_grad():
        assert torch.equal(back(x).logits, net(x).logits)


def test_twin_of_a_copy_shares_with_the_copy(net):
    duplicate = copy.deepcopy(net)
    assert at_output_stride(duplicate, 8).head.weight is duplicate.head.weight


def test_network_without_an_output_stride_is_refused():
    with pytest.raises(ConfigError, match="output_stride is not an option"):
        at_output_stride(unet(3), 8)
