"""Frozen batch normalisation, and batches that it cannot be trained on."""

import copy

import pytest
import torch
from torch import nn

from segtrain.errors import ConfigError
from segtrain.model.deeplabv3plus import deeplabv3plus
from segtrain.model.norm import check_batch, freeze_batch_norm
from segtrain.model.unet import unet

TINY = {"encoder": "test_resnet", "weights": "none", "aspp_width": 8, "low_level_width": 8, "decoder_width": 8}


def test_frozen_batch_norm_survives_train_and_copy():
    net = copy.deepcopy(freeze_batch_norm(deeplabv3plus(3, **TINY))).train()
    before = {name: buffer.clone() for name, buffer in net.named_buffers()}
    net(torch.randn(1, 3, 64, 64)).logits.sum().backward()
    assert net.training and net.aspp.dropout.training
    assert all(torch.equal(buffer, before[name]) for name, buffer in net.named_buffers())
    norms = [module for module in net.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    assert norms and not any(p.requires_grad or p.grad is not None for norm in norms for p in norm.parameters())
    assert net.head.weight.grad is not None


def test_single_image_through_image_pooling_is_refused_before_training():
    with pytest.raises(ConfigError, match=r"aspp.branches.4.project.1 gets 1x8x1x1 .*model.image_pooling=false"):
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
