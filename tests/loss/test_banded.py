"""Softmax of upsampled logits in blocks, against upsampling at once, and the losses that use it."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from segtrain.loss import LOSS, banded, heads
from segtrain.sample import IGNORE, Output, Window

CASES = [
    # images, classes, (h, w), (H, W)
    (1, 1, (3, 4), (9, 10)),
    (2, 5, (9, 17), (36, 68)),
    (3, 3, (1, 1), (7, 5)),
    (1, 150, (9, 33), (65, 257)),
    (2, 4, (21, 30), (33, 130)),
    (2, 4, (40, 300), (40, 150)),
    (2, 3, (13, 64), (100, 1)),
]


def batch(images, classes, low, size, ignored=0.2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(images, classes, *low, generator=generator)
    target = torch.randint(0, classes, (images, *size), generator=generator).to(torch.uint8)
    target[torch.rand(images, *size, generator=generator) < ignored] = IGNORE
    return logits, target


def weights(*shape, seed=1):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def plain(logits, size, align_corners, target, spread, powers):
    """The terms by the definition, from the whole of the upsampled logits."""
    up = F.interpolate(logits, size=size, mode="bilinear", align_corners=align_corners)
    log_p, valid = up.log_softmax(1), target != IGNORE
    true = log_p.gather(1, target.long().clamp(max=logits.shape[1] - 1)[:, None])[:, 0]
    spreads = -torch.tensordot(spread, log_p, ([1], [1]))
    counted = log_p.exp() * valid[:, None]
    return -true * valid, spreads * valid, {n: (counted**n).sum((0, 2, 3)) for n in powers}


def functional(terms, size, images, classes):
    """A scalar in which every element of the terms has a weight of its own, of the size of a mean."""
    nll, spread, sums = terms
    value = (nll * weights(images, *size)).sum() + (spread * weights(*spread.shape, seed=2)).sum()
    of_sums = sum((sums[n] * weights(classes, seed=2 + n).to(sums[n].dtype)).sum() for n in sums)
    return value + of_sums


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(("images", "classes", "low", "size"), CASES)
def test_terms_and_gradient_are_those_of_the_upsampled_logits(images, classes, low, size, align_corners):
    logits, target = batch(images, classes, low, size)
    spread, powers = weights(2, classes), (1, 2)
    found, expected = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    ours = banded.softmax_terms(found, size, align_corners, target, IGNORE, spread, powers)
    theirs = plain(expected, size, align_corners, target, spread, powers)
    for own, other in zip((*ours[:2], *ours.sums.values()), (*theirs[:2], *theirs[2].values()), strict=True):
        torch.testing.assert_close(own, other, rtol=3e-6, atol=1e-5)
    functional(ours, size, images, classes).backward()
    functional(theirs, size, images, classes).backward()
    # With one class the gradient is 0.
    assert (found.grad - expected.grad).abs().max() <= 1e-6 * expected.grad.abs().max().clamp_min(1)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(("images", "classes", "low", "size"), CASES)
def test_a_gradient_is_torchs_own_within_1e_6(images, classes, low, size, align_corners):
    logits, target = batch(images, classes, low, size)
    found, expected = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    pixel_weights = weights(images, *size)
    total = banded.softmax_total(found, size, align_corners, target, IGNORE, pixel_weights)
    total.backward()
    up = F.interpolate(expected, size=size, mode="bilinear", align_corners=align_corners)
    each = F.cross_entropy(up, target.long(), ignore_index=IGNORE, reduction="none")
    (each * pixel_weights).sum().backward()
    torch.testing.assert_close(total, (each * pixel_weights).sum(), rtol=1e-6, atol=1e-5)
    assert (found.grad - expected.grad).abs().max() <= 1e-6 * expected.grad.abs().max()


def test_one_pass_is_the_weighted_sum_of_the_terms():
    logits, target = batch(2, 5, (9, 17), (36, 150))
    of_nll, spread, of_spread = weights(2, 36, 150), weights(3, 5), weights(3, 2, 36, 150, seed=4)
    once, twice = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    common = ((36, 150), False, target, IGNORE)
    total = banded.softmax_total(once, *common, of_nll, spread, of_spread)
    terms = banded.softmax_terms(twice, *common, spread)
    expected = (of_nll * terms.nll).sum() + (of_spread * terms.spread).sum()
    (3 * total).backward()
    (3 * expected).backward()
    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(once.grad, twice.grad)
    with torch.no_grad():
        assert banded.softmax_total(once, *common, of_nll, spread, of_spread) == total
        assert torch.equal(banded.softmax_terms(once, *common).nll, terms.nll)


def test_derivatives_by_differences(monkeypatch):
    monkeypatch.setattr(banded, "ROWS", 3)
    monkeypatch.setattr(banded, "COLUMNS", 4)
    logits, target = batch(1, 3, (3, 2), (7, 5))
    logits, spread, of_nll = (
        logits.double().requires_grad_(),
        weights(1, 3).double(),
        weights(1, 7, 5).double(),
    )

    def terms(logits):
        nll, spreads, sums = banded.softmax_terms(logits, (7, 5), True, target, IGNORE, spread, (1, 2))
        return nll, spreads, sums[1], sums[2]

    def total(logits):
        return banded.softmax_total(logits, (7, 5), False, target, IGNORE, of_nll, spread, of_nll[None])

    assert torch.autograd.gradcheck(terms, logits)
    assert torch.autograd.gradcheck(total, logits)


def test_there_is_no_second_derivative():
    logits, target = batch(1, 3, (3, 3), (6, 6))
    logits.requires_grad_()
    for value in (
        banded.softmax_terms(logits, (6, 6), False, target, IGNORE).nll.square().sum(),
        banded.softmax_total(logits, (6, 6), False, target, IGNORE, torch.ones(1, 6, 6)).square(),
    ):
        (first,) = torch.autograd.grad(value, logits, create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            first.sum().backward()


def test_pixels_without_a_label_have_exactly_no_effect():
    logits, target = batch(2, 4, (8, 8), (64, 64), ignored=0)
    target[0, 16:] = IGNORE  # output rows 16… are those of the logits' rows 2…
    target[1] = IGNORE
    logits.requires_grad_()
    terms = banded.softmax_terms(logits, (64, 64), False, target, IGNORE, weights(1, 4), (1, 2))
    assert not terms.nll[target == IGNORE].any() and not terms.spread[:, target == IGNORE].any()
    (terms.nll.sum() + terms.spread.sum() + sum(of.square().sum() for of in terms.sums.values())).backward()
    assert logits.grad[0, :, :2].all()
    assert not logits.grad[0, :, 3:].any() and not logits.grad[1].any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_logits_are_computed_in_float32(dtype):
    logits, target = batch(2, 5, (9, 17), (36, 68))
    low, full = logits.to(dtype).requires_grad_(), logits.to(dtype).float().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        ours = banded.softmax_terms(low, (36, 68), False, target, IGNORE, weights(1, 5), (1,))
        value = functional(ours, (36, 68), 2, 5)
        value.backward()
    theirs = banded.softmax_terms(full, (36, 68), False, target, IGNORE, weights(1, 5), (1,))
    functional(theirs, (36, 68), 2, 5).backward()
    assert torch.equal(ours.nll, theirs.nll) and torch.equal(ours.sums[1], theirs.sums[1])
    assert low.grad.dtype == dtype
    assert torch.equal(low.grad, full.grad.to(dtype))


def test_memory_format_and_repetition_change_no_bit():
    logits, target = batch(3, 20, (16, 32), (64, 300))
    results = []
    for one in (logits, logits, logits.contiguous(memory_format=torch.channels_last)):
        one = one.clone().requires_grad_()
        terms = banded.softmax_terms(one, (64, 300), False, target, IGNORE, powers=(1,))
        (terms.nll.sum() + terms.sums[1].square().sum()).backward()
        results.append((*terms[:1], terms.sums[1], one.grad))
    for other in results[1:]:
        assert all(torch.equal(*pair) for pair in zip(results[0], other, strict=True))


# ---- the losses

LOSSES = [
    ("cross_entropy", {}),
    ("cross_entropy", {"class_weights": [0.0] + [0.5, 2.0] * 5}),
    ("cross_entropy", {"smoothing": 0.1}),
    ("cross_entropy", {"smoothing": 0.1, "class_weights": [0.0] + [0.5, 2.0] * 5}),
    ("cross_entropy", {"border_weight": 3.0, "smoothing": 0.1}),
    ("cross_entropy", {"border_weight": 3.0, "class_weights": [0.0] + [0.5, 2.0] * 5, "smoothing": 0.1}),
    ("focal_softmax", {}),
    ("focal_softmax", {"gamma": 0.5, "alpha": 0.25, "class_weights": [0.0] + [0.5, 2.0] * 5}),
    ("focal_softmax", {"gamma": 0.0, "class_weights": [0.5] * 11}),
    ("ohem", {}),
    ("jaccard", {}),
    ("dice", {}),
    ("dice", {"squared": True, "classes": "all"}),
    ("tversky", {}),
    ("weighted_sum", {"terms": {"cross_entropy": {}}}),
    (
        "weighted_sum",
        {"terms": {"cross_entropy": {"smoothing": 0.1}, "jaccard": {}, "dice": {"squared": True}}},
    ),
    ("weighted_sum", {"terms": {"jaccard": {"aux_weight": 0.1}, "focal_softmax": {"factor": 2.0}}}),
    ("weighted_sum", {"terms": {"cross_entropy": {}, "lovasz_softmax": {}}}),
]
CLASSES, SIZE = 11, (60, 72)


def built(name, **options):
    return LOSS.build(
        {"name": name, **options}, num_classes=CLASSES, ignore_index=IGNORE, class_frequency=None
    )


def of_network(seed=0, window=None, align_corners=False):
    """An output with one auxiliary head, and its target."""
    logits, _ = batch(2, CLASSES, (15, 18), SIZE, seed=seed)
    _, target = batch(2, CLASSES, (1, 1), (5, 6), ignored=0.1, seed=seed)
    target = target.repeat_interleave(12, 1).repeat_interleave(12, 2)
    aux, _ = batch(2, CLASSES, (8, 9), SIZE, seed=seed + 1)
    if window is not None:
        target = F.pad(target, (4, 4, 4, 4), value=1)
    heads = (logits.requires_grad_(), aux.requires_grad_())
    return Output(heads[0], SIZE, (heads[1],), window, align_corners), target, heads


def results(loss, output, target, logits):
    total, weight = loss(output, target)
    value = total / weight.clamp_min(1)
    gradients = torch.autograd.grad(value, logits) if value.requires_grad else ()
    return total.detach(), weight, gradients


@pytest.fixture
def blocks(monkeypatch):
    """`blocks(True)`: in blocks whatever the size; `blocks(False)`: never."""
    calls = []
    for name in ("softmax_terms", "softmax_total"):
        original = getattr(heads, name)
        monkeypatch.setattr(heads, name, lambda *a, f=original, n=name, **k: calls.append(n) or f(*a, **k))

    def switch(on):
        monkeypatch.setattr(banded, "LEAST_SIZE", 0 if on else float("inf"))
        calls.clear()
        return calls

    return switch


@pytest.mark.parametrize(
    ("window", "align_corners"), [(None, False), (Window(4, 4, *SIZE), False), (None, True)]
)
@pytest.mark.parametrize(("name", "options"), LOSSES)
def test_every_loss_is_the_same_in_blocks(name, options, window, align_corners, blocks):
    loss = built(name, **options)
    output, target, logits = of_network(window=window, align_corners=align_corners)
    blocks(False)
    expected = results(loss, output, target, logits)
    calls = blocks(True)
    found = results(loss, output, target, logits)
    # One function for each head, however many losses: whatever needs the logits has none.
    one_pass = name == "cross_entropy" or options.get("terms") == {"cross_entropy": {}}
    of_each = (
        []
        if "lovasz_softmax" in options.get("terms", ())
        else ["softmax_total" if one_pass else "softmax_terms"]
    )
    assert calls == of_each * 2
    torch.testing.assert_close(found[:2], expected[:2], rtol=2e-6, atol=0)
    for own, other in zip(found[2], expected[2], strict=True):
        assert (own - other).abs().max() <= 2e-6 * other.abs().max()


@pytest.mark.parametrize(("name", "options"), LOSSES)
def test_every_loss_is_exactly_zero_without_labels_and_repeats_its_bits(name, options, blocks):
    blocks(True)
    loss = built(name, **options)
    output, target, logits = of_network()
    first, second = (results(loss, output, target, logits) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert all(torch.equal(*pair) for pair in zip(first[2], second[2], strict=True))
    with torch.no_grad():
        assert torch.equal(results(loss, output, target, logits)[0], first[0])
    total, weight, gradients = results(loss, output, torch.full_like(target, IGNORE), logits)
    assert total.item() == 0 and weight.item() == 0 and not any(one.any() for one in gradients)


def test_when_blocks_are_used():
    def pays(images, classes, low, size):
        return banded.pays(torch.empty(images, classes, *low, device="meta"), size)

    assert pays(2, 19, (128, 256), (512, 1024)) and pays(2, 150, (256, 512), (512, 1024))
    assert not pays(2, 19, (512, 1024), (512, 1024)), "already at full size"
    assert not pays(2, 2, (128, 256), (512, 1024)), "few classes"
    assert not pays(1, 19, (16, 16), (64, 64)), "small"


@pytest.mark.slow
def test_in_torch_compile_the_logits_are_upsampled_at_once(blocks):
    calls = blocks(True)
    loss, (output, target, _) = built("cross_entropy"), of_network()
    expected = loss(output, target)
    assert calls
    calls.clear()
    compiled = torch.compile(lambda logits, target: loss(Output(logits, SIZE), target), backend="eager")
    total, _ = compiled(output.logits, target)
    assert not calls
    torch.testing.assert_close(total, loss(Output(output.logits, SIZE), target)[0])
    assert expected[0] > total


class Largest(TorchDispatchMode):
    """numbers: that of the largest tensor that an operation returned meanwhile."""

    numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        tensors = [
            one for one in (made if isinstance(made, (tuple, list)) else (made,)) if torch.is_tensor(one)
        ]
        self.numbers = max(
            self.numbers, *[one.untyped_storage().size() // one.itemsize for one in tensors], 0
        )
        return made


@pytest.mark.parametrize("name", ["cross_entropy", "focal_softmax", "jaccard", "weighted_sum"])
def test_the_upsampled_logits_are_never_held(name):
    terms = {"terms": {"cross_entropy": {"smoothing": 0.1}, "dice": {}}} if name == "weighted_sum" else {}
    logits, target = batch(2, CLASSES, (32, 64), (256, 512))
    full = 2 * CLASSES * 256 * 512
    with Largest() as largest:
        total, weight = built(name, **terms)(Output(logits.requires_grad_(), (256, 512)), target)
        (total / weight).backward()
    assert 0 < largest.numbers < 0.2 * full
    with Largest() as largest:
        Output(logits, (256, 512)).upsampled()
    assert largest.numbers == full
