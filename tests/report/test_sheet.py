"""Pictures of predictions."""

import numpy as np
import pytest

from segtrain.report.sheet import _labelled, overlay, samples
from segtrain.sample import Facts, Sample, colourise


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_overlay_is_the_mean_of_both_pictures(strength):
    rng = np.random.default_rng(0)
    image, colours = (rng.integers(0, 256, (31, 40, 3), dtype=np.uint8) for _ in range(2))
    expected = (image * (1 - strength) + colours * strength).round()
    assert overlay(image, colours, strength).dtype == np.uint8
    assert np.array_equal(overlay(image, colours, strength), expected)
    assert np.array_equal(
        overlay(image[:, ::-1], colours, strength)[:, 0],
        (image[:, -1] * (1 - strength) + colours[:, 0] * strength).round(),
    )


def test_pictures_of_other_proportions_keep_them():
    facts = Facts(("a", "b"), ((1, 2, 3), (200, 0, 0)))
    wide, high = (
        Sample(np.full((*size, 3), 90, np.uint8), np.ones(size, np.uint8)) for size in ((30, 60), (60, 30))
    )
    picture = np.asarray(
        samples(
            [(wide,), (high,)],
            ["image", "labels"],
            ["first", "second"],
            facts,
            lambda target, facts: colourise(target, facts.palette),
            "title",
            over=True,
        )
    )
    grey = (picture == 90).all(axis=-1)
    rows, columns = np.flatnonzero(grey.any(axis=1)), np.flatnonzero(grey.any(axis=0))
    gap = np.flatnonzero(np.diff(rows) > 1)[0]
    assert (rows[gap] - rows[0] + 1, columns[-1] - columns[0] + 1) == (150, 300)
    second = grey[rows[gap + 1] :]
    assert (second.any(axis=1).sum(), second.any(axis=0).sum()) == (150, 75)


def test_touching_objects_are_told_apart_by_a_line():
    facts = Facts(("a", "b"), ((0, 0, 0), (200, 0, 0)))
    instances = np.zeros((4, 6), np.uint16)
    instances[1:3, 1:3], instances[1:3, 3:5] = 7, 9
    sample = Sample(np.zeros((4, 6, 3), np.uint8), (instances > 0).astype(np.uint8), instances)
    for over, red in ((True, 120), (False, 200)):
        drawn = _labelled(sample, facts, lambda target, facts: colourise(target, facts.palette), over)
        white = (drawn == 255).all(axis=-1)
        assert np.argwhere(white).tolist() == [[1, 3], [2, 3]]
        assert drawn[1, 1].tolist() == [red, 0, 0] and drawn[0, 0].tolist() == [0, 0, 0]
