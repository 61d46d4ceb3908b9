"""The Lovász-softmax loss against segmentation_models_pytorch and its definition."""

import itertools

import numpy as np
import pytest
import torch
from loss_batches import batch, built, mean_and_gradient

from segtrain.loss.lovasz_softmax import slopes_of
from segtrain.sample import IGNORE, Output


@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_equals_smp(per_image, scale):
    smp = pytest.importorskip("segmentation_models_pytorch")
    logits, target = batch(scale=scale)
    target[0][target[0] == 2] = 0  # a class that is absent from one of the images
    expected = smp.losses.LovaszLoss("multiclass", per_image=per_image, ignore_index=IGNORE)(logits, target)
    loss = built("lovasz_softmax", per_image=per_image)(Output(logits, (6, 5)), target)
    torch.testing.assert_close(mean_and_gradient(loss, logits), mean_and_gradient(expected, logits))


def test_sure_answers_give_one_minus_iou():
    # The extension equals the set function on its corners: the Jaccard loss of every answer.
    for target, answer in itertools.product(itertools.product((0, 1), repeat=3), repeat=2):
        logits = torch.tensor([[100.0 * (1 - one), 100.0 * one, -1e4] for one in answer])
        loss = built("lovasz_softmax")(
            Output(logits.T.reshape(1, 3, 1, 3), (1, 3)),
            torch.tensor(target, dtype=torch.uint8).view(1, 1, 3),
        )
        target, answer = np.array(target), np.array(answer)
        ious = [
            ((target == i) & (answer == i)).sum() / ((target == i) | (answer == i)).sum()
            for i in np.unique(target)
        ]
        assert loss[0].item() == pytest.approx(1 - np.mean(ious), abs=1e-6)


def test_slopes_keep_their_digits_for_many_pixels():
    generator = torch.Generator().manual_seed(0)
    probability = torch.rand(200_000, generator=generator)
    target = (torch.rand(200_000, generator=generator) < 0.3).long()
    slopes, _ = slopes_of(torch.stack([1 - probability, probability]), target, IGNORE)
    error = np.abs(target.numpy() - probability.numpy().astype(np.float64))
    order = np.argsort(-error, kind="stable")
    own = target.numpy()[order] == 1
    jaccard = 1 - (own.sum() - own.cumsum()) / (own.sum() + (~own).cumsum())
    expected = np.diff(jaccard, prepend=0.0)
    np.testing.assert_allclose(slopes[1].numpy()[order], expected, rtol=1e-5, atol=1e-12)


def test_per_image_weighs_images_with_a_label():
    logits, target = batch(images=3)
    target[1] = IGNORE
    assert built("lovasz_softmax", per_image=True)(Output(logits, (6, 5)), target)[1] == 2
    assert built("lovasz_softmax")(Output(logits, (6, 5)), target)[1] == 3
