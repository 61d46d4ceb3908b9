"""Kappa, foreground, trimap, boundary IoU, Dice per image and calibration: by hand and against other
programs."""

import numpy as np
import pytest
import torch

from segtrain.errors import ConfigError
from segtrain.metric import METRIC
from segtrain.metric.boundary import near_boundary
from segtrain.metric.boundary_iou import boundary_region
from segtrain.metric.trimap import rings
from segtrain.sample import IGNORE, Facts


def built(name: str, num_classes: int, names: tuple[str, ...] | None = None, **options):
    names = tuple("abcdefghijk"[:num_classes]) if names is None else names
    facts = Facts(names, ((0, 0, 0),) * num_classes)
    runtime = {"num_classes": num_classes, "ignore_index": IGNORE, "facts": facts}
    return METRIC.build({"name": name, **options}, **runtime)


def scored(metric, target, **evidence) -> dict:
    return metric.scores(metric.counts(target, **evidence).sum(0))


def random_pair(num_classes: int, shape=(3, 40, 50), seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Targets with unlabelled pixels, in blocks of 5×5, and predictions that are right on most of them."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, num_classes, (shape[0], shape[1] // 5, shape[2] // 5), generator=generator)
    target = coarse.repeat_interleave(5, 1).repeat_interleave(5, 2)
    other = torch.randint(0, num_classes, shape, generator=generator)
    decisions = torch.where(torch.rand(shape, generator=generator) < 0.3, other, target)
    target = torch.where(torch.rand(shape, generator=generator) < 0.1, IGNORE, target)
    return target.to(torch.uint8), decisions


@pytest.mark.parametrize("num_classes", [2, 5])
def test_kappa_equals_torchmetrics(num_classes):
    torchmetrics = pytest.importorskip("torchmetrics")
    target, decisions = random_pair(num_classes)
    oracle = torchmetrics.CohenKappa(task="multiclass", num_classes=num_classes, ignore_index=IGNORE)
    found = scored(built("confusion", num_classes), target, decisions=decisions)["kappa"].value
    assert found == pytest.approx(oracle(decisions, target).item(), abs=1e-6)


def test_kappa_by_hand_and_without_a_chance_to_be_wrong():
    """Cohen's example: 45 and 25 agreed of 100; chance 0.6 · 0.7 + 0.4 · 0.3 = 0.54; (0.7 - 0.54) / 0.46."""
    metric = built("confusion", 2)
    numbers = metric.scores(torch.tensor([[50, 10], [20, 20]]))
    assert numbers["kappa"].value == pytest.approx((0.7 - 0.54) / 0.46)
    assert metric.scores(torch.tensor([[9, 0], [0, 0]]))["kappa"].value is None


@pytest.mark.parametrize(
    ("names", "background"),
    [(("background", "x"), 0), (("x", "Background"), 1), (("x", "y"), 0), (("x", "background", "y"), 1)],
)
def test_the_foreground_is_all_but_the_background(names, background):
    torchmetrics = pytest.importorskip("torchmetrics")
    target, decisions = random_pair(len(names))
    numbers = scored(built("confusion", len(names), names), target, decisions=decisions)
    labelled = target != IGNORE
    truth, answer = target[labelled] != background, decisions[labelled] != background
    oracle = torchmetrics.functional.classification
    iou = oracle.binary_jaccard_index(answer.int(), truth.int()).item()
    assert numbers["foreground_iou"].value == pytest.approx(iou, abs=1e-6)
    assert numbers["foreground_dice"].value == pytest.approx(
        oracle.binary_f1_score(answer.int(), truth.int()).item(), abs=1e-6
    )


def test_without_a_background_there_is_no_foreground():
    target, decisions = random_pair(3)
    assert "foreground_iou" not in scored(built("confusion", 3), target, decisions=decisions)


def halves(edge: int, height: int = 8, width: int = 16) -> torch.Tensor:
    """1×H×W, class 1 from column `edge` on."""
    classes = torch.zeros(1, height, width, dtype=torch.uint8)
    classes[..., edge:] = 1
    return classes


def test_trimap_by_hand():
    """The boundary lies between columns 7 and 8, the predicted one between 9 and 10: columns 8 and 9 are
    wrong. Within 1 px: columns 7 and 8; each class has IoU 1/2 and 0."""
    curve = scored(built("trimap", 2, widths_px=[1, 2, 3, 8]), halves(8), decisions=halves(10).long())[
        "trimap"
    ]
    assert curve.x == (1.0, 2.0, 3.0, 8.0)
    # Within w columns on each side: class 0 has w right of w + 2 (or w + w) predicted, class 1 w - 2 of w.
    expected = [(w / (w + min(w, 2)) + max(w - 2, 0) / w) / 2 for w in (1, 2, 3, 8)]
    assert curve.y == pytest.approx(expected)


def test_the_last_point_of_a_wide_trimap_is_the_miou_of_the_whole_image():
    target, decisions = random_pair(4)
    curve = scored(built("trimap", 4, widths_px=[3, 1000]), target, decisions=decisions)["trimap"]
    whole = scored(built("confusion", 4), target, decisions=decisions)["miou"].value
    assert curve.y[1] == pytest.approx(whole) and curve.y[0] != pytest.approx(whole)


def test_rings_are_the_bands_of_the_boundary_metric():
    target = random_pair(3)[0][0].numpy()
    target[3:9, 10:30] = IGNORE
    ring = rings(target, IGNORE, (1, 3, 5))
    for place, width in enumerate((1, 3, 5)):
        assert np.array_equal(ring <= place, near_boundary(target, IGNORE, width - 1))
    assert (rings(np.full((4, 4), IGNORE, np.uint8), IGNORE, (1, 3)) == 2).all()
    with pytest.raises(ConfigError, match=r"widths_px is \[3, 2\]; give different widths, increasing"):
        built("trimap", 2, widths_px=[3, 2])


@pytest.mark.parametrize("d", [1, 2, 5])
def test_boundary_regions_equal_repeated_erosion(d):
    """As in the paper's code: pad by zeros, erode d times by 3×3, subtract."""
    ndimage = pytest.importorskip("scipy.ndimage")
    mask = random_pair(2, (1, 40, 50))[1][0].numpy() > 0
    mask[10:30, 10:40] = True
    eroded = ndimage.binary_erosion(mask, np.ones((3, 3)), iterations=d, border_value=0)
    assert np.array_equal(boundary_region(mask, d), mask & ~eroded)


def test_boundary_iou_by_hand():
    """8×16 pixels, d = 1. Class 1 is a square of 4×4 in rows 2-5, columns 4-7, predicted one column to the
    right. Its boundary regions are rings of 12 pixels; the two share rows 2 and 5 of columns 5-7 and no
    more: 6 of 18."""
    target, decisions = torch.zeros(2, 1, 8, 16, dtype=torch.uint8)
    target[0, 2:6, 4:8], decisions[0, 2:6, 5:9] = 1, 1
    numbers = scored(built("boundary_iou", 3, width=0.05), target, decisions=decisions.long())
    assert numbers["boundary_iou"].values[1] == pytest.approx(6 / 18)
    assert numbers["boundary_iou"].values[2] is None
    assert numbers["mean_boundary_iou"].value == pytest.approx(sum(numbers["boundary_iou"].values[:2]) / 2)
    perfect = scored(built("boundary_iou", 3), target, decisions=target.long())
    assert perfect["mean_boundary_iou"].value == 1.0
    ignored = torch.full_like(target, IGNORE)
    assert (
        scored(built("boundary_iou", 3), ignored, decisions=target.long())["mean_boundary_iou"].value is None
    )


def test_dice_per_image_equals_torchmetrics():
    segmentation = pytest.importorskip("torchmetrics.functional.segmentation")
    target, decisions = random_pair(4)
    target[target == IGNORE] = 0
    target[0][target[0] == 3] = 0
    decisions[0][decisions[0] == 3] = 1  # neither labelled nor predicted in the first image
    numbers = scored(built("dice_per_image", 4), target, decisions=decisions)
    oracle = segmentation.dice_score(
        decisions, target.long(), num_classes=4, average="none", input_format="index"
    )
    oracle[0, 3] = 1.0  # empty and empty, which torchmetrics leaves out
    assert numbers["class_dice_per_image"].values == pytest.approx(oracle.mean(0).tolist(), abs=1e-6)
    assert numbers["dice_per_image"].value == pytest.approx(oracle.mean().item(), abs=1e-6)


def test_images_without_labels_are_no_images():
    """Such as the copies that fill the last batch."""
    target, decisions = random_pair(3)
    metric = built("dice_per_image", 3)
    more = torch.cat([target, torch.full_like(target[:1], IGNORE)])
    both = torch.cat([decisions, decisions[:1]])
    assert scored(metric, more, decisions=both) == scored(metric, target, decisions=decisions)
    nothing = metric.scores(torch.zeros(4, dtype=torch.float64))
    assert nothing["dice_per_image"].value is None


def test_calibration_equals_torchmetrics():
    classification = pytest.importorskip("torchmetrics.functional.classification")
    target, _ = random_pair(5)
    generator = torch.Generator().manual_seed(4)
    probabilities = (3 * torch.randn(3, 5, 40, 50, generator=generator)).softmax(1)
    numbers = scored(built("calibration", 5), target, probabilities=probabilities)
    oracle = classification.multiclass_calibration_error(
        probabilities, target.long(), num_classes=5, n_bins=15, norm="l1", ignore_index=IGNORE
    )
    assert numbers["ece"].value == pytest.approx(oracle.item(), abs=1e-5)
    assert len(numbers["calibration"].x) == 15 and numbers["calibration"].x[0] == pytest.approx(1 / 30)


def test_calibration_by_hand():
    """Confidences 0.9, 0.9, 0.6, 0.6; right are the first and the third. Bins of 1/5: 0.9 is in the last
    (accuracy 1/2, confidence 0.9), 0.6 in the third, whose upper end it is (1/2, 0.6)."""
    target = torch.tensor([[[0, 1, 0, 1, IGNORE]]])
    first = torch.tensor([0.9, 0.9, 0.6, 0.6, 0.7])
    probabilities = torch.stack([first, 1 - first])[None, :, None]  # 1×2×1×5
    numbers = scored(built("calibration", 2, num_bins=5), target, probabilities=probabilities)
    assert numbers["ece"].value == pytest.approx((2 * 0.4 + 2 * 0.1) / 4)
    assert numbers["confidence"].value == pytest.approx(0.75)
    assert numbers["calibration"].y == (None, None, 0.5, None, 0.5)
