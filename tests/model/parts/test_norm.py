"""Frozen batch normalisation, and batches that it cannot be trained on."""

import copy

import pytest
import torch
from torch import nn

from segtrain.errors import ConfigError
from segtrain.model.deeplabv3plus import deeplabv3plus
from segtrain.model.parts.norm import (
    check_batch,
    freeze_batch_norm,
    recompute_statistics,
    set_momentum,
    statistics_of,
)
from segtrain.model.unet import unet

TINY = {
    "encoder": "test_resnet",
    "weights": "none",
    "aspp_width": 8,
    "low_level_width": 8,
    "decoder_width": 8,
}


def test_frozen_batch_norm_survives_train_and_copy():
    net = copy.deepcopy(freeze_batch_norm(deeplabv3plus(3, **TINY))).train()
    before = {name: buffer.clone() for name, buffer in net.named_buffers()}
    net(torch.randn(1, 3, 64, 64)).logits.sum().backward()
    assert net.training and net.aspp.dropout.training
    assert all(torch.equal(buffer, before[name]) for name, buffer in net.named_buffers())
    norms = [module for module in net.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    assert norms and not any(
        p.requires_grad or p.grad is not None for norm in norms for p in norm.parameters()
    )
    assert net.head.weight.grad is not None


def test_statistics_move_by_the_momentum():
    net = set_momentum(nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)), 0.0003).train()
    assert net[1].running_mean.item() == 0
    mean = net[0](torch.ones(2, 1, 4, 4)).mean().item()
    net(torch.ones(2, 1, 4, 4))
    assert net[1].running_mean.item() == pytest.approx(0.0003 * mean)


def test_single_image_through_image_pooling_is_refused_before_training():
    with pytest.raises(
        ConfigError, match=r"aspp.branches.4.project.1 gets 1x8x1x1 .*model.image_pooling=false"
    ):
        check_batch(deeplabv3plus(3, **TINY), 1, 3, 128, 128)
    check_batch(deeplabv3plus(3, **TINY), 2, 3, 128, 128)
    check_batch(deeplabv3plus(3, image_pooling=False, **TINY), 1, 3, 128, 128)
    check_batch(freeze_batch_norm(deeplabv3plus(3, **TINY)), 1, 3, 128, 128)


def test_single_crop_of_one_stride_is_refused_too():
    with pytest.raises(ConfigError, match="larger crops"):
        check_batch(unet(3), 1, 3, 16, 16)
    check_batch(unet(3), 1, 3, 32, 32)


def test_the_check_changes_nothing():
    net = deeplabv3plus(3, image_pooling=False, **TINY).eval()
    net.decoder.train()
    modes, state = [m.training for m in net.modules()], copy.deepcopy(net.state_dict())
    random = torch.get_rng_state()
    check_batch(net, 1, 3, 64, 64)
    assert modes == [m.training for m in net.modules()]
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())
    assert not any(m._forward_pre_hooks for m in net.modules())


def test_recomputed_statistics_are_the_average_over_the_batches():
    first, second = nn.BatchNorm2d(2, momentum=0.01), nn.BatchNorm2d(2)
    net = nn.Sequential(
        first, nn.Dropout(0.5), nn.Conv2d(2, 2, 1), freeze_batch_norm(second), nn.BatchNorm2d(2)
    ).train()
    second.running_mean.fill_(3.0)
    net[4].running_mean.fill_(100.0)  # what it was before does not count
    inputs = [torch.randn(3, 2, 5, 4) + shift for shift in range(3)]
    weights = {name: p.clone() for name, p in net.named_parameters()}
    random = torch.get_rng_state()
    recompute_statistics(net, iter(inputs))
    assert torch.equal(random, torch.get_rng_state())
    torch.testing.assert_close(first.running_mean, torch.stack([x.mean((0, 2, 3)) for x in inputs]).mean(0))
    torch.testing.assert_close(first.running_var, torch.stack([x.var((0, 2, 3)) for x in inputs]).mean(0))
    # Behind it come normalised values, without dropout; the frozen layer keeps what it has.
    normalised = [nn.functional.batch_norm(x, None, None, training=True) for x in inputs]
    behind = [(net[2](x) - 3.0) / (1 + second.eps) ** 0.5 for x in normalised]
    torch.testing.assert_close(
        net[4].running_mean, torch.stack([x.mean((0, 2, 3)) for x in behind]).mean(0), atol=1e-5, rtol=1e-4
    )
    assert (second.running_mean == 3.0).all() and set(statistics_of(net)) == {
        f"{layer}.{kind}"
        for layer in (0, 4)
        for kind in ("running_mean", "running_var", "num_batches_tracked")
    }
    assert first.momentum == 0.01 and net.training and net[1].training and not second.training
    assert all(torch.equal(p, weights[name]) for name, p in net.named_parameters())
