"""Soft Jaccard by hand."""

import pytest
import torch

from segtrain.loss import LOSS
from segtrain.sample import IGNORE, Output


def build(config, num_classes=3):
    return LOSS.build(config, num_classes=num_classes, ignore_index=IGNORE, class_frequency=None)


def output(*pixels):
    """Logits whose softmax is the given probabilities, one column a pixel."""
    logits = torch.tensor(pixels).log().T.reshape(1, -1, 1, len(pixels))
    return Output(logits, (1, len(pixels)))


def test_two_pixels_by_hand():
    out = output((0.6, 0.3, 0.1), (0.2, 0.7, 0.1), (0.1, 0.1, 0.8))
    target = torch.tensor([[[0, 1, IGNORE]]], dtype=torch.uint8)
    total, weight = build({"name": "jaccard", "smooth": 0.0})(out, target)
    # Class 0: 0.6 of (0.6 + 0.2 + 1 - 0.6); class 1: 0.7 of (0.3 + 0.7 + 1 - 0.7); class 2 is not in the
    # batch.
    assert (total / weight).item() == pytest.approx(1 - (0.6 / 1.2 + 0.7 / 1.3) / 2, rel=1e-6)
    assert weight.item() == 1


def test_sure_answers_give_one_minus_miou():
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, 3, (2, 8, 8), generator=generator)
    answer = torch.randint(0, 3, (2, 8, 8), generator=generator)
    logits = torch.nn.functional.one_hot(answer, 3).permute(0, 3, 1, 2).float() * 100
    total, weight = build({"name": "jaccard", "smooth": 0.0})(Output(logits, (8, 8)), target.to(torch.uint8))
    torchmetrics = pytest.importorskip("torchmetrics")
    miou = torchmetrics.JaccardIndex(task="multiclass", num_classes=3)(answer, target)
    assert (total / weight).item() == pytest.approx(1 - miou.item(), abs=1e-6)


def test_ignored_pixels_have_no_gradient_and_nothing_labelled_is_zero():
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    target = torch.tensor([[[0, 1], [2, IGNORE]]], dtype=torch.uint8)
    loss = build({"name": "jaccard"})
    loss(Output(logits, (2, 2)), target)[0].backward()
    assert not logits.grad[..., 1, 1].any() and logits.grad[..., 0, 0].any()
    total, weight = loss(Output(logits, (2, 2)), torch.full_like(target, IGNORE))
    assert total.item() == 0 and weight.item() == 0
