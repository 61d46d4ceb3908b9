"""What holds for every loss of the table, under every activation that it takes."""

import pytest
import torch
from loss_batches import batch, built

from segtrain.errors import ConfigError
from segtrain.loss import LOSS
from segtrain.sample import IGNORE, Output

SUM = {"terms": {"dice": {}, "cldice": {"factor": 0.5}}}
OPTIONS = [
    *[(name, {}) for name in LOSS.names() if name != "weighted_sum"],
    ("weighted_sum", SUM),
    ("dice", {"classes": "all", "squared": True}),
    ("dice", {"smooth": 0.0}),
    ("tversky", {"smooth": 0.0, "beta": 0.0}),
    ("focal_softmax", {"gamma": 0.5, "alpha": [0.2, 0.0, 1.0], "class_weights": [1.0, 2.0, 0.0]}),
    ("focal_sigmoid", {"gamma": 0.5, "alpha": [0.25] * 3, "class_weights": [1.0, 2.0, 0.0]}),
    ("lovasz_softmax", {"per_image": True}),
    ("ohem", {"top_k": 0.25, "class_weights": [1.0, 2.0, 0.5]}),
    ("ohem", {"min_kept": 0}),
]
ADDITIVE = {"binary_cross_entropy", "cross_entropy", "focal_sigmoid", "focal_softmax"}


def accepts(name, activation):
    try:
        built(name, activation, **(SUM if name == "weighted_sum" else {}))
    except ConfigError:
        return False
    return True


CASES = [
    pytest.param(name, options, activation, id=f"{name}-{activation}-{index}")
    for index, (name, options) in enumerate(OPTIONS)
    for activation in ("softmax", "sigmoid")
    if accepts(name, activation)
]
every_loss = pytest.mark.parametrize(("name", "options", "activation"), CASES)


def additive(name, options):
    return name in ADDITIVE or options.get("per_image", False)


@every_loss
@pytest.mark.parametrize("scale", [1.0, 50.0, 1e4])
def test_values_and_gradients_are_finite_and_ignored_pixels_have_none(name, options, activation, scale):
    logits, target = batch(scale=scale)
    total, weight = built(name, activation, **options)(Output(logits, (6, 5)), target)
    total.backward()
    assert total.dtype == weight.dtype == torch.float32 and total.shape == weight.shape == ()
    assert total.isfinite() and total >= 0 and weight > 0
    assert logits.grad.isfinite().all()
    ignored = (target == IGNORE)[:, None].expand_as(logits)
    assert not logits.grad[ignored].any()
    assert scale > 1 or logits.grad[~ignored].any()


@every_loss
def test_nothing_labelled_is_exactly_zero(name, options, activation):
    logits, target = batch()
    output = Output(logits, (6, 5), aux=(logits[..., ::2, ::2],))
    total, weight = built(name, activation, **options)(output, torch.full_like(target, IGNORE))
    total.backward()
    assert total.item() == 0 and weight.item() == 0 and not logits.grad.any()


@every_loss
def test_half_precision_logits_are_computed_in_float32(name, options, activation):
    logits, target = batch()
    low = logits.detach().bfloat16().requires_grad_()
    loss = built(name, activation, **options)
    with torch.autocast("cpu", torch.bfloat16):
        total, weight = loss(Output(low, (6, 5)), target)
    expected, expected_weight = loss(Output(low.detach().float(), (6, 5)), target)
    assert total.dtype == torch.float32
    torch.testing.assert_close((total, weight), (expected, expected_weight), rtol=0, atol=0)
    total.backward()
    assert low.grad.isfinite().all() and low.grad.any()


@every_loss
def test_a_batch_may_be_split_if_the_loss_is_additive(name, options, activation):
    logits, target = batch(images=5)
    target[3] = IGNORE
    loss = built(name, activation, **options)
    whole = loss(Output(logits, (6, 5)), target)
    if not additive(name, options):
        assert whole[1] == 5
        return
    for parts in (2, 3, 5):
        pieces = zip(logits.tensor_split(parts), target.tensor_split(parts), strict=True)
        split = [loss(Output(part, (6, 5)), labels) for part, labels in pieces]
        sums = tuple(sum(values) for values in zip(*split, strict=True))
        torch.testing.assert_close(sums, whole)


def open_ended(name, options):
    """clDice compares centre lines only; a weight of 0 leaves a class or a kind of error open."""
    zeros = [*options.get("class_weights", ()), *(options.get("alpha") or [1]), options.get("beta", 1)]
    return name == "cldice" or 0.0 in zeros


@pytest.mark.parametrize(
    ("name", "options", "activation"), [case for case in CASES if not open_ended(*case.values[:2])]
)
def test_following_the_gradient_finds_the_target(name, options, activation):
    logits, target = batch()
    loss = built(name, activation, **options)
    optimizer = torch.optim.Adam([logits], lr=0.6)
    before = loss(Output(logits, (6, 5)), target)[0].item()
    for _ in range(30):
        optimizer.zero_grad()
        total, weight = loss(Output(logits, (6, 5)), target)
        (total / weight).backward()
        optimizer.step()
    assert loss(Output(logits, (6, 5)), target)[0].item() < before / 4
    labelled = target != IGNORE
    assert (logits.max(1).indices == target)[labelled].float().mean() > 0.95


@every_loss
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (13, 2)])
def test_small_images_and_absent_classes(name, options, activation, size):
    logits, _ = batch(images=1, height=size[0], width=size[1])
    target = torch.full((1, *size), 1, dtype=torch.uint8)
    total, weight = built(name, activation, **options)(Output(logits, size), target)
    total.backward()
    assert total.isfinite() and logits.grad.isfinite().all() and weight > 0
