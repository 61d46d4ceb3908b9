"""The weighted sum of losses."""

import pytest
import torch
from torch import nn

from segtrain.errors import ConfigError
from segtrain.loss import LOSS
from segtrain.sample import IGNORE, Output


def build(config, num_classes=3):
    return LOSS.build(config, num_classes=num_classes, ignore_index=IGNORE, class_frequency=None)


def test_a_sum_is_the_sum_of_the_means():
    logits, target = torch.randn(2, 3, 4, 4), torch.randint(0, 3, (2, 4, 4)).to(torch.uint8)
    out = Output(logits, (8, 8))
    target = target.repeat_interleave(2, 1).repeat_interleave(2, 2)
    terms = {"cross_entropy": {"factor": 0.7, "smoothing": 0.1}, "jaccard": {"smooth": 2.0}}
    total, weight = build({"name": "weighted_sum", "terms": terms})(out, target)
    ce = build({"name": "cross_entropy", "smoothing": 0.1})(out, target)
    region = build({"name": "jaccard", "smooth": 2.0})(out, target)
    torch.testing.assert_close(total / weight, 0.7 * ce[0] / ce[1] + region[0] / region[1])
    assert weight.item() == target.numel()


def test_a_term_without_weight_adds_nothing():
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)

    class Weightless(nn.Module):
        def forward(self, out, target):
            return out.logits.sum(), torch.zeros(())

    summed = build({"name": "weighted_sum", "terms": {"cross_entropy": {}, "jaccard": {}}})
    summed.losses[1] = Weightless()
    target = torch.tensor([[[0, 1], [2, IGNORE]]], dtype=torch.uint8)
    total, weight = summed(Output(logits, (2, 2)), target)
    alone, _ = build({"name": "cross_entropy"})(Output(logits, (2, 2)), target)
    torch.testing.assert_close(total, alone)
    assert weight.item() == 3
    (grad,) = torch.autograd.grad(total, logits, retain_graph=True)
    torch.testing.assert_close(grad, torch.autograd.grad(alone, logits)[0])


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({}, "loss.terms is"),
        ({"weighted_sum": {}}, "loss.terms is"),
        ({"jacard": {}}, r"^loss\.terms\.jacard does not exist .did you mean 'jaccard'"),
        ({"jaccard": {"smoth": 1.0}}, r"^loss\.terms\.jaccard\.smoth .*did you mean 'smooth'"),
        ({"jaccard": {"smooth": -1.0}}, r"^loss\.terms\.jaccard\.smooth is -1.0"),
        (
            {"ohem": {"ramp_steps": 4}},
            r"terms\.ohem\.ramp_steps=4 needs loss\.terms\.ohem\.top_k; .*ohem\.ramp_steps",
        ),
        ({"jaccard": {"factor": "much"}}, "loss.terms.jaccard.factor is 'much'"),
        ({"jaccard": {"factor": -1.0}}, r"loss\.terms\.jaccard\.factor is -1.0; allowed: a number from 0"),
        ({"jaccard": {"factor": 0}}, "not all of them 0"),
    ],
)
def test_wrong_terms_are_refused(terms, message):
    with pytest.raises(ConfigError, match=message):
        build({"name": "weighted_sum", "terms": terms})
