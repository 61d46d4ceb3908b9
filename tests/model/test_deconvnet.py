"""DeconvNet: unpooling, sizes, what of VGG16 it takes."""

import pytest
import torch
import torch.nn.functional as F

from segtrain.errors import CheckpointError, ConfigError
from segtrain.model import MODEL
from segtrain.model.deconvnet import deconvnet, unpooled
from segtrain.model.encoder.vgg import as_convolutions


def tiny(classes=3, **options):
    torch.manual_seed(0)
    return deconvnet(classes, weights="none", **{"width": 0.05, "fc_width": 16, **options})


@pytest.mark.parametrize(
    ("classes", "conv_bias", "parameters"),
    [
        (21, True, 251_805_653),
        (21, False, 251_788_949),
        (19, True, 251_805_523),
        (19, False, 251_788_949 - 2 * 65),
    ],
)
def test_parameters_are_those_of_the_published_network(classes, conv_bias, parameters):
    with torch.device("meta"):
        net = deconvnet(classes, weights="none", conv_bias=conv_bias)
    assert sum(p.numel() for p in net.parameters()) == parameters


def test_the_published_sizes():
    with torch.device("meta"):
        net, x = deconvnet(21, weights="none").eval(), torch.empty(1, 3, 224, 224)
    shapes = []
    for part in (*net.encoder.levels, net.encoder.fc6, net.encoder.fc7, net.fc, *net.levels):
        part.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.shape[1:3])))
    assert net(x).logits.shape == (1, 21, 224, 224)
    down = [(64, 224), (128, 112), (256, 56), (512, 28), (512, 14)]  # the last three before their pooling
    middle = [(4096, 1), (4096, 1), (512, 7)]
    assert shapes == [*down, *middle, (512, 14), (256, 28), (128, 56), (64, 112), (64, 224)]


def pooled(shape=(2, 3, 8, 6), seed=0):
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return x, *F.max_pool2d(x, 2, return_indices=True)


def test_unpooling_is_torchs():
    _, values, indices = pooled()
    torch.testing.assert_close(unpooled(values, indices), F.max_unpool2d(values, indices, 2), rtol=0, atol=0)
    mine, theirs = values.clone().requires_grad_(), values.clone().requires_grad_()
    weight = torch.randn(2, 3, 8, 6)
    (unpooled(mine, indices) * weight).sum().backward()
    (F.max_unpool2d(theirs, indices, 2) * weight).sum().backward()
    assert torch.equal(mine.grad, theirs.grad)


def test_every_value_goes_back_to_where_it_was():
    x, values, indices = pooled()
    assert indices.dtype == torch.int64
    found = unpooled(values, indices)
    windows = F.unfold(found.reshape(-1, 1, 8, 6), 2, stride=2)
    assert ((windows != 0).sum(1) == 1).all()
    assert torch.equal(found[found != 0], x[found != 0])
    # Pooled again, negative values lose against the zeros around them.
    assert torch.equal(F.max_pool2d(found, 2), values.clamp_min(0))
    positive = unpooled(values.abs(), indices)
    assert torch.equal(F.max_pool2d(positive, 2), values.abs())
    again = F.max_pool2d(positive, 2, return_indices=True)[1]
    assert torch.equal(again, indices)


def test_unpooling_keeps_half_precision():
    _, values, indices = pooled()
    with torch.autocast("cpu", torch.bfloat16):
        assert unpooled(values.bfloat16(), indices).dtype == torch.bfloat16


def test_a_training_step_is_the_same_each_time_and_allowed_where_only_such_steps_are():
    gradients = []
    torch.use_deterministic_algorithms(True)
    try:
        for _ in range(2):
            net = tiny().train()
            net(
                torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
            ).logits.square().mean().backward()
            gradients.append([p.grad for p in net.parameters()])
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


@pytest.mark.parametrize(
    ("size", "padded"),
    [((224, 224), (224, 224)), ((256, 225), (256, 256)), ((97, 129), (224, 224)), ((33, 33), (224, 224))],
)
def test_images_are_padded_by_their_own_size_and_cropped_again(size, padded):
    net, x = tiny().eval(), torch.randn(1, 3, *size)
    with torch.no_grad():
        output = net(x)
        whole = net(F.pad(x, (0, padded[1] - size[1], 0, padded[0] - size[0])))
    assert output.size == size and output.logits.shape == (1, 3, *size)
    assert whole.logits.shape[-2:] == padded
    assert torch.equal(output.logits, whole.logits[..., : size[0], : size[1]])


def test_deconvolutions_start_as_published():
    net = tiny(width=0.5, fc_width=64)
    for module in (*net.fc.modules(), *net.levels.modules()):
        if isinstance(module, torch.nn.ConvTranspose2d):
            assert module.weight.std().item() == pytest.approx(0.01, rel=0.05)
        elif isinstance(module, torch.nn.BatchNorm2d):
            assert (module.weight == 1).all() and (module.bias == 0.001).all()


def test_gradient_reaches_every_weight_of_larger_crops():
    net = tiny().train()
    net(torch.randn(2, 3, 288, 288)).logits.square().mean().backward()
    largest = {name: p.grad.abs().max().item() for name, p in net.named_parameters()}
    in_front_of_norm = {
        name
        for name in largest
        if name.endswith(".bias") and name.replace(".bias", ".running_mean") not in net.state_dict()
    }
    weak = [
        name
        for name, size in largest.items()
        if size < 1e-9 and (name not in in_front_of_norm or name == "head.bias")
    ]
    assert weak == []


def vgg16_tensors():
    """The names and shapes of torchvision's vgg16, without the memory."""
    from torchvision.models import vgg16

    with torch.device("meta"):
        return vgg16(weights=None).state_dict()


@pytest.mark.parametrize(
    ("options", "taken"),
    [
        ({}, 30),
        ({"fc_width": 512}, 26),
        ({"conv_bias": False}, 15),
        ({"fc_width": 512, "conv_bias": False}, 13),
    ],
)
def test_what_it_takes_of_vgg16(options, taken):
    with torch.device("meta"):
        encoder = deconvnet(3, weights="none", **options).encoder
    tensors = vgg16_tensors()
    found = as_convolutions(encoder, tensors, 3, "file")
    assert len(found) == taken
    state = encoder.state_dict()
    assert all(state[name].shape == tensor.shape for name, tensor in found.items())
    assert found.keys() == {
        f"{name}.{kind}"
        for name, module in encoder.named_modules()
        if isinstance(module, torch.nn.Conv2d) and ("levels" in name or options.get("fc_width") is None)
        for kind in ("weight", *(["bias"] if options.get("conv_bias", True) else []))
    }
    del tensors["features.5.weight"]
    with pytest.raises(CheckpointError, match=r"missing is features\.5\.weight"):
        as_convolutions(encoder, tensors, 3, "file")


def test_impossible_options_are_refused():
    with pytest.raises(ConfigError, match=r"model\.fc_width is 0"):
        MODEL.build({"name": "deconvnet", "fc_width": 0}, out_channels=3)
    with pytest.raises(ConfigError, match=r"model\.width is 0\.5 and model.weights imagenet"):
        deconvnet(3, width=0.5, fc_width=16)
