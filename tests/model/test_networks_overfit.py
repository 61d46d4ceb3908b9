"""Every network of the table learns four images by heart."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_networks import NAMES, build
from torch import nn

from segtrain.augmentation import AUGMENTATION
from segtrain.loader.batch import Batch
from segtrain.loss.cross_entropy import CrossEntropy
from segtrain.model.parts.sides import valid_side
from segtrain.optimizer import OPTIMIZER
from segtrain.predictor.predictor import predictor
from segtrain.sample import IGNORE, Sample
from segtrain.settings import PredictorSettings, Trainer
from segtrain.task import TASK
from segtrain.train.state import new_state
from segtrain.train.step import Learning, train_step

CPU = torch.device("cpu")
CLASSES = 4
COLOURS = np.array([(80, 80, 80), (190, 90, 70), (70, 180, 90), (90, 80, 200)])
OPTIONS = {name: {"width": 0.25} for name in ("fcn16s", "fcn32s", "fcn8s")}
OPTIONS |= {name: {"width": 0.125} for name in ("unet_original", "unet_padded")}
OPTIONS["dilated"] = {"width": 0.1}
OPTIONS["deconvnet"] = {"width": 0.25, "fc_width": 128}
OPTIONS["patchwise"] = {"stride": 2, "batch": 1024}
OPTIONS["classical"] = {"num_regions": 300, "min_leaf": 1, "textons": 16, "trees": 50}
"""Less reduced than where nothing has to be learnt."""
COARSE = {"cascade", "classical", "deeplabv3", "fcn16s", "fcn32s"}
"""Their answers are coarser than 8 pixels: strides of 16 and 32, and regions."""
STEPS = 600


def four_images(side: int) -> list[Sample]:
    """A background and three large regions, each of much the same colour in all images, with noise."""
    rng = np.random.default_rng(7)
    y, x = np.mgrid[:side, :side] / side
    samples = []
    for number in range(4):
        target = np.zeros((side, side), np.uint8)
        target[(x + 0.3 * y) > rng.uniform(0.7, 0.9)] = 1
        target[(y - rng.uniform(0.6, 0.7)) ** 2 + (x - rng.uniform(0.25, 0.4)) ** 2 < 0.05] = 2
        target[(y < rng.uniform(0.25, 0.35)) & (x < rng.uniform(0.5, 0.6))] = 3
        colours = COLOURS + rng.integers(-30, 31, (CLASSES, 3))
        image = (colours[target] + rng.normal(0, 12, (side, side, 3))).clip(0, 255).astype(np.uint8)
        samples.append(Sample(image=image, target=target, name=str(number)))
    return samples


def batch_of(samples: list[Sample]) -> Batch:
    images = torch.from_numpy(np.stack([sample.image.transpose(2, 0, 1) for sample in samples]))
    targets = torch.from_numpy(np.stack([sample.target for sample in samples]))
    count = len(samples)
    return Batch(
        images=images, targets=targets, names=[""] * count, positions=list(range(count)), count=count
    )


def drawn(name: str, net, samples: list[Sample], rng: np.random.Generator) -> Batch:
    """What a step learns from: the images, with mirrored borders for a network that answers for the inner
    part only, or windows."""
    if margin := net.margin:
        sides = ((margin, margin), (margin, margin))
        image = [np.pad(sample.image, (*sides, (0, 0)), mode="reflect") for sample in samples]
        target = [np.pad(sample.target, sides, constant_values=IGNORE) for sample in samples]
        return batch_of(
            [replace(sample, image=i, target=t) for sample, i, t in zip(samples, image, target, strict=True)]
        )
    if name != "patchwise":
        return batch_of(samples)
    window = AUGMENTATION.build({"name": "patch", "size": net.patch})
    return batch_of([window(samples[i % 4], rng) for i in range(32)])


def accuracy(net, samples: list[Sample]) -> float:
    task = TASK.build({"name": "semantic"})
    predict = predictor(net, net.normalisation, task.activate, PredictorSettings())
    batch = batch_of(samples)
    return (task.decide(predict(batch.images)) == batch.targets).double().mean().item()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_four_images_are_learnt(name):
    net = build(name, classes=CLASSES, **OPTIONS.get(name, {}))
    margin = net.margin
    samples, rng = four_images(valid_side(net, 96 + 2 * margin) - 2 * margin), np.random.default_rng(0)
    wanted = 0.9 if name in COARSE else 0.98
    if net.fits_itself:
        net.fit(samples, rng)
        assert accuracy(net, samples) >= wanted
        return
    for module in net.modules():
        if isinstance(module, (nn.Dropout, nn.Dropout2d)):
            module.p = 0.0  # four images are to be remembered, not to be generalised from
    settings = Trainer()
    # Without batch normalisation, VGG and the original U-Net bear no higher rate.
    rate = 0.005 if any(isinstance(module, nn.BatchNorm2d) for module in net.modules()) else 0.001
    optimizer = OPTIMIZER.build({"name": "adamw", "lr": rate}, network=net)
    for group in optimizer.param_groups:
        group["base_lr"] = group["lr"]
    state = new_state(net.train(), {"network": optimizer}, settings, CPU)
    learning = Learning(
        loss=CrossEntropy(None, IGNORE, aux_weight=0.4),
        normalise=net.normalisation,
        schedule=lambda step: 1 - step / STEPS,
        settings=settings,
        device=CPU,
    )
    reached = []
    while state.step < STEPS:
        train_step(state, drawn(name, net, samples, rng), learning)
        state.step += 1
        if state.step % 50 == 0:
            reached.append(accuracy(net, samples))
            if reached[-1] >= wanted:
                return
    assert max(reached) >= wanted, reached
