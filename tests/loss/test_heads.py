"""Auxiliary heads, and the activation of the task, for every loss of the table."""

import pytest
import torch

from segtrain.errors import ConfigError
from segtrain.loss import LOSS
from segtrain.sample import IGNORE, Output
from segtrain.task import TASK

RUNTIME = {"num_classes": 3, "ignore_index": IGNORE, "class_frequency": None}
SUM = {"terms": {"cross_entropy": {}, "jaccard": {"aux_weight": 0.25, "factor": 2.0}}}


def built(name, **runtime):
    options = SUM if name == "weighted_sum" else {}
    return LOSS.build({"name": name, **options}, **RUNTIME, **runtime)


def logits(seed):
    return torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", [name for name in LOSS.names() if name != "weighted_sum"])
def test_auxiliary_heads_add_their_weighted_loss(name):
    loss = built(name)
    target = torch.randint(0, 3, (2, 8, 10), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    target[0, :3] = IGNORE
    main, aux = (loss(Output(logits(seed), (8, 10)), target) for seed in (0, 1))
    both = loss(Output(logits(0), (8, 10), aux=(logits(1),)), target)
    torch.testing.assert_close(both[0], main[0] + 0.4 * aux[0])
    assert both[1] == main[1] == aux[1]


def test_a_sum_counts_auxiliary_heads_by_the_weight_of_each_loss():
    target = torch.randint(0, 3, (2, 8, 10), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    output = Output(logits(0), (8, 10), aux=(logits(1),))
    crossed = built("cross_entropy")(output, target)
    soft = built("jaccard")
    soft.aux_weight = 0.25
    soft = soft(output, target)
    total, weight = built("weighted_sum")(output, target)
    torch.testing.assert_close(total / weight, crossed[0] / crossed[1] + 2 * soft[0] / soft[1])


@pytest.mark.parametrize("name", LOSS.names())
def test_a_loss_of_another_activation_is_refused(name):
    accepted = [kind for kind in ("softmax", "sigmoid") if _builds(name, kind)]
    assert accepted
    for kind in {"softmax", "sigmoid"} - set(accepted):
        with pytest.raises(
            ConfigError, match=rf"choose task\.activation={accepted[0]} or a loss for a {kind}"
        ):
            built(name, task_activation=kind)


def _builds(name, kind):
    try:
        built(name, task_activation=kind)
    except ConfigError:
        return False
    return True


def test_the_probabilities_are_those_of_the_activation():
    for kind, expected in (("softmax", logits(0).softmax(1)), ("sigmoid", logits(0).sigmoid())):
        task = TASK.build({"name": "semantic", "activation": kind})
        torch.testing.assert_close(task.activate(logits(0), None), expected)
        assert task.activation == kind


def test_null_removes_a_loss_from_a_sum():
    terms = {"cross_entropy": {}, "jaccard": None}
    summed = LOSS.build({"name": "weighted_sum", "terms": terms}, **RUNTIME)
    output, target = Output(logits(0), (8, 10)), torch.zeros(2, 8, 10, dtype=torch.uint8)
    torch.testing.assert_close(summed(output, target), built("cross_entropy")(output, target))
    with pytest.raises(ConfigError, match=r"loss\.terms is \[\]; allowed: one or more of"):
        LOSS.build({"name": "weighted_sum", "terms": {"jaccard": None}}, **RUNTIME)
