"""U-Net on encoders."""

import pytest
import torch
import torch.nn.functional as F

from segtrain.errors import ConfigError
from segtrain.model import MODEL
from segtrain.model.unet import unet


def count(**options) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in unet(weights="none", **options).parameters())


@pytest.mark.parametrize(
    ("encoder", "parameters"),
    [
        ("resnet34", 24_439_269),
        ("resnet50", 32_524_005),
        ("vgg16", 23_751_141),
        ("vgg16_bn", 23_759_589),
        ("mobilenetv2_100", 4_007_845),
    ],
)
def test_parameters_are_those_of_the_published_form(encoder, parameters):
    assert count(encoder=encoder, out_channels=21) == parameters
    assert count(encoder=encoder, out_channels=19) == parameters - 2 * (16 * 9 + 1)


def test_logits_equal_those_of_an_independent_implementation():
    smp = pytest.importorskip("segmentation_models_pytorch")
    theirs = smp.Unet("tu-resnet18", encoder_weights=None, classes=5).eval()
    ours = unet(5, encoder="resnet18", weights="none").eval()
    parts = [
        (theirs.encoder, ours.encoder),
        (theirs.decoder, ours.decoder),
        (theirs.segmentation_head, ours.head),
    ]
    for source, target in parts:
        tensors = list(source.state_dict().values())
        names = target.state_dict()
        assert [t.shape for t in tensors] == [t.shape for t in names.values()]
        target.load_state_dict(dict(zip(names, tensors, strict=True)))
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(ours(x).logits, theirs(x), atol=1e-5, rtol=1e-4)


def test_without_skips_only_the_inputs_of_the_decoder_shrink():
    with_skips, without = unet(4), unet(4, skips=False)
    assert [block[0][0].in_channels for block in with_skips.decoder] == [128 + 64, 64 + 32, 32 + 16]
    assert [block[0][0].in_channels for block in without.decoder] == [128, 64, 32]
    assert sum(p.numel() for p in with_skips.encoder.parameters()) == sum(
        p.numel() for p in without.encoder.parameters()
    )
    with pytest.raises(RuntimeError, match="size mismatch"):
        without.load_state_dict(with_skips.state_dict())


@pytest.mark.parametrize("stem_stride", [1, 2])
@pytest.mark.parametrize("size", [(33, 50), (64, 48), (1, 1)])
def test_padding_is_by_the_images_own_size_and_cropped_again(size, stem_stride):
    net = unet(4, stem_stride=stem_stride).eval()
    x = torch.randn(1, 3, *size)
    padded = F.pad(x, (0, -size[1] % net.encoder_stride, 0, -size[0] % net.encoder_stride))
    with torch.no_grad():
        alone, whole = net(x), net(padded)
    assert alone.size == size
    assert alone.upsampled().shape[-2:] == size
    if size == (64, 48):
        torch.testing.assert_close(alone.logits, whole.logits)
        assert alone.logits.shape[-2:] == (64 // stem_stride, 48 // stem_stride)
    torch.testing.assert_close(
        alone.upsampled(), whole.upsampled()[..., : size[0], : size[1]], atol=1e-5, rtol=1e-4
    )


def test_the_small_encoder_starts_from_scratch_and_says_so():
    net = unet(4)
    assert net.weights_report == "small encoder: starts from scratch (it has no published weights)"
    with pytest.raises(ConfigError, match="no published weights"):
        unet(4, weights="imagenet")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decoder_widths": (8,)}, "needs 3 numbers of channels"),
        ({"widths": (8,)}, r"model\.widths is \[8\]; allowed: 2 to 10 entries"),
        ({"widths": (8, 0)}, r"model\.widths\[1\] is 0; allowed: from 1 to 1024"),
    ],
)
def test_impossible_widths_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        MODEL.build({"name": "unet", **options}, out_channels=4)


def test_learns_four_images_by_heart():
    torch.manual_seed(0)
    squares = torch.zeros(4, 64, 64, dtype=torch.long)
    for i in range(4):
        squares[i, 8 * i : 8 * i + 24, 20:44] = 1 + i % 3
    x = torch.nn.functional.one_hot(squares, 4)[..., 1:].permute(0, 3, 1, 2) + 0.3 * torch.randn(4, 3, 64, 64)
    net = unet(4).train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=5e-3)
    for _ in range(120):
        loss = F.cross_entropy(net(x).upsampled(), squares)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss < 0.05:
            break
    assert loss < 0.05
