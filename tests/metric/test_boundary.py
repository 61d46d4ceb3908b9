"""The boundary F-score, by hand."""

import numpy as np
import pytest
import torch

from segtrain.metric import METRIC
from segtrain.metric.boundary import boundary_f, near_boundary
from segtrain.sample import IGNORE


def halves(edge: int, side: int = 20) -> np.ndarray:
    """Class 1 from column `edge` on."""
    classes = np.zeros((side, side), np.uint8)
    classes[:, edge:] = 1
    return classes


def score(prediction, target, tolerance=2.0, num_classes=3) -> float | None:
    return boundary_f(prediction, target, num_classes, IGNORE, tolerance)


@pytest.mark.parametrize(("edge", "expected"), [(10, 1.0), (12, 1.0), (8, 1.0), (13, 0.0), (7, 0.0)])
def test_a_shifted_boundary_counts_within_the_tolerance(edge, expected):
    assert score(halves(edge), halves(10)) == expected


def test_precision_and_recall_are_shares_of_boundary_pixels():
    """Half of the predicted boundary is right, half is five pixels off; of the true one, rows 0 to 9 and two
    more are met."""
    prediction = halves(10)
    prediction[10:, 10:15] = 0
    target = halves(10)
    # Class 1, predicted: rows 0-9 at column 10 (10 px); its lower border at row 9, columns 10-14; rows 10-19
    # at column 15 (10 px), of which rows 10 and 11 … are 5 columns away from the true one: wrong. True:
    # column 10, 20 px.
    ours = (
        {(row, 10) for row in range(10)}
        | {(9, column) for column in range(10, 15)}
        | {(row, 15) for row in range(10, 20)}
    )
    theirs = {(row, 10) for row in range(20)}

    def share(points, others):
        return np.mean([min((a - c) ** 2 + (b - d) ** 2 for c, d in others) <= 4 for a, b in points])

    precision, recall = share(ours, theirs), share(theirs, ours)
    one = 2 * precision * recall / (precision + recall)
    # Class 0, predicted: column 9 of rows 0-9, the row 10 of columns 10-14, column 14 of rows 10-19.
    ours = (
        {(row, 9) for row in range(10)}
        | {(10, column) for column in range(10, 15)}
        | {(row, 14) for row in range(10, 20)}
    )
    theirs = {(row, 9) for row in range(20)}
    precision, recall = share(ours, theirs), share(theirs, ours)
    zero = 2 * precision * recall / (precision + recall)
    assert 0.3 < one < 0.9 and score(prediction, target) == pytest.approx((zero + one) / 2)


def test_the_distance_is_euclidean():
    prediction, target = np.zeros((9, 9), np.uint8), np.zeros((9, 9), np.uint8)
    prediction[2, 2] = target[4, 4] = 1  # √8 apart
    assert score(prediction, target, 2.8) < score(prediction, target, 2.9) == 1.0


def test_a_class_that_only_one_of_them_has_scores_0():
    prediction = halves(10)
    prediction[prediction == 1] = 2
    assert score(prediction, halves(10)) == pytest.approx(1 / 3)  # class 0 is met, 1 is missed, 2 is made up


def test_an_unlabelled_line_between_two_classes_is_a_boundary():
    target = halves(10)
    target[:, 9:11] = IGNORE
    for edge in (9, 10, 11):
        assert score(halves(edge), target, 1.5) == 1.0
    assert score(np.zeros_like(target), target, 1.5) == 0.0
    assert score(halves(14), target, 1.5) == 0.0


def test_what_is_far_from_all_labels_does_not_count():
    target = halves(10)
    target[:, 4:] = IGNORE  # labelled: columns 0-3, all of class 0
    assert score(halves(10), target) is None  # the predicted boundary lies six pixels away from the labels
    assert score(halves(5), target) == 0.0  # and this one two


def test_an_image_without_boundary_or_without_label_has_no_score():
    assert score(halves(0), halves(0)) is None
    assert score(halves(3), np.full((20, 20), IGNORE, np.uint8)) is None


def test_the_metric_is_the_mean_over_images_and_adds_up():
    metric = METRIC.build({"name": "boundary", "tolerance_px": 2.0}, num_classes=2, ignore_index=IGNORE)
    target = torch.from_numpy(np.stack([halves(10), halves(10), np.full((20, 20), IGNORE, np.uint8)]))
    answer = torch.from_numpy(np.stack([halves(11), halves(14), halves(3)])).long()
    rows = metric.counts(target, decisions=answer)
    whole = rows.sum(0)
    # Within 2 px of the boundary lie columns 7 to 12: of class 0, 3 + 3 of 4 + 6 columns are met; of class 1,
    # 2 + 0 of 3 + 3.
    found = {key: one.value for key, one in metric.scores(whole).items()}
    assert found == {"boundary_f": 0.5, "boundary_miou": pytest.approx((0.6 + 1 / 3) / 2)}
    for i in range(3):
        assert torch.equal(rows[i : i + 1], metric.counts(target[i : i + 1], decisions=answer[i : i + 1]))
    assert [one.value for one in metric.scores(rows[2]).values()] == [None, None]


def test_pixels_near_a_boundary():
    target = np.zeros((9, 9), np.uint8)
    target[4, 4] = 1
    band = near_boundary(target, IGNORE, 1.0)
    # The pixel and its four neighbours are the boundary; what is one further is near.
    assert {(y, x) for y, x in np.argwhere(band)} == {
        (y, x) for y in range(9) for x in range(9) if abs(y - 4) + abs(x - 4) <= 2
    }
    target[4, 5] = IGNORE  # takes the nearest label, but is not scored
    assert not near_boundary(target, IGNORE, 1.0)[4, 5]
    assert not near_boundary(np.zeros((9, 9), np.uint8), IGNORE, 3.0).any()
