"""What every network of the table does in the training step: frozen batch-norm, mixed precision, average,
micro-batches, channels."""

import copy

import pytest
import torch
from test_networks import build, every_network, every_trained_network, images
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from segtrain.loader.batch import Batch
from segtrain.loss.cross_entropy import CrossEntropy
from segtrain.model.parts.norm import freeze_batch_norm
from segtrain.optimizer import OPTIMIZER
from segtrain.sample import IGNORE
from segtrain.settings import Trainer
from segtrain.train.state import new_state
from segtrain.train.step import Learning, train_step, update_average

CPU = torch.device("cpu")


def a_batch(net, count: int = 4) -> Batch:
    shape = images(net, count, 64, 64).shape
    generator = torch.Generator().manual_seed(3)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    targets = torch.randint(0, 5, (count, *shape[2:]), dtype=torch.uint8, generator=generator)
    targets[0, :20] = IGNORE  # parts with different numbers of labels
    return Batch(
        images=pixels, targets=targets, names=[""] * count, positions=list(range(count)), count=count
    )


def trained(net, steps: int = 2, **settings):
    """The state after a few steps of SGD on one batch."""
    settings = Trainer(**settings)
    optimizer = OPTIMIZER.build({"name": "sgd", "lr": 0.1, "momentum": 0.0}, network=net)
    for group in optimizer.param_groups:
        group["base_lr"] = group["lr"]
    state = new_state(net.train(), {"network": optimizer}, settings, CPU)
    learning = Learning(
        loss=CrossEntropy(None, IGNORE, aux_weight=0.4),
        normalise=net.normalisation,
        schedule=lambda step: 1.0,
        settings=settings,
        device=CPU,
    )
    batch = a_batch(net)
    for _ in range(steps):
        total, weight = train_step(state, batch, learning)
        assert torch.isfinite(total / weight)
        state.step += 1
        if state.ema is not None:
            update_average(state, settings.ema)
    return state


@every_trained_network
def test_frozen_batch_norm_mixed_precision_and_average(name):
    net = build(name)
    norms = [part for part, module in net.named_modules() if isinstance(module, _BatchNorm)]
    before = copy.deepcopy(net.state_dict())
    state = trained(freeze_batch_norm(net), steps=1, amp="bf16", ema=0.9, accumulate=2)
    after, average = net.state_dict(), state.ema.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before if key.rpartition(".")[0] in norms)
    for key in net.head_keys:
        assert torch.isfinite(after[key]).all() and not torch.equal(before[key], after[key])
        # After the first step the decay is min(0.9, 2 / 11).
        torch.testing.assert_close(average[key], before[key] * 2 / 11 + after[key] * 9 / 11)


@every_trained_network
def test_batch_norm_learns_where_it_is_not_frozen(name):
    net = build(name)
    before = copy.deepcopy(net.state_dict())
    trained(net, steps=1)
    means = [key for key in before if key.endswith("running_mean")]
    assert all(not torch.equal(before[key], net.state_dict()[key]) for key in means)


@every_trained_network
def test_micro_batches_take_the_step_of_the_whole_batch(name):
    """With batch-norm frozen and nothing drawn; without that, statistics and dropout are those of the
    parts."""
    updates = []
    for accumulate in (1, 2):
        net = freeze_batch_norm(build(name))
        for module in net.modules():
            if isinstance(module, (nn.Dropout, nn.Dropout2d)):
                module.p = 0.0
        before = {key: tensor.clone() for key, tensor in net.named_parameters()}
        trained(net, steps=1, accumulate=accumulate)
        updates.append({key: tensor.detach() - before[key] for key, tensor in net.named_parameters()})
    for key, whole in updates[0].items():
        tolerance = 1e-5 * max(1.0, whole.abs().max().item())
        torch.testing.assert_close(
            updates[1][key], whole, rtol=1e-3, atol=tolerance, msg=lambda text, key=key: f"{key}: {text}"
        )


@every_network
@pytest.mark.parametrize("channels", [1, 2, 3, 5, 10])
def test_one_to_ten_channels(name, channels):
    net = build(name, channels=channels).eval()
    if name == "classical":
        assert len(net.normalisation.mean) == channels  # what it makes of them is tested where it is fitted
        return
    with torch.no_grad():
        output = net(images(net, 1, 32, 32, channels))
    assert output.logits.shape[1] == 5 and output.logits.isfinite().all()
    assert len(net.normalisation.mean) == len(net.normalisation.std) == channels
