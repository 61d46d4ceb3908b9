"""Schedules at steps whose value is known."""

import math

import pytest

from segtrain.errors import ConfigError
from segtrain.schedule import SCHEDULE


def test_poly_is_deeplabs():
    factor = SCHEDULE.build({"name": "poly"}, steps=30_000)
    assert 0.01 * factor(0) == 0.01
    assert 0.01 * factor(15_000) == pytest.approx(0.0053589, rel=1e-4)
    assert 0.01 * factor(29_999) == pytest.approx(9.3e-7, rel=1e-2)
    assert SCHEDULE.build({"name": "poly", "floor": 1e-2}, steps=100)(99) == pytest.approx(
        0.99**0 * (1 / 100) ** 0.9, rel=1e-6
    )


def test_cosine_by_hand():
    factor = SCHEDULE.build({"name": "cosine", "floor": 0.1}, steps=100)
    assert factor(0) == 1 and factor(50) == pytest.approx(0.55)
    assert factor(25) == pytest.approx(0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2)


def test_steps_by_hand():
    factor = SCHEDULE.build({"name": "step", "at": [0.45, 0.9], "factor": 0.1}, steps=20_000)
    assert [factor(step) for step in (0, 8_999, 9_000, 17_999, 18_000, 19_999)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01, 0.01]
    )
    for wrong in ([0.0], [1.0], [-1.0, 0.5]):
        with pytest.raises(ConfigError, match=r"schedule\.at\[0\] is .*; allowed: above 0 and below 1"):
            SCHEDULE.build({"name": "step", "at": wrong}, steps=10)


@pytest.mark.parametrize("name", SCHEDULE.names())
def test_warmup_rises_to_the_base_rate_and_never_falls_to_zero(name):
    factor = SCHEDULE.build({"name": name, "warmup": 4}, steps=20)
    assert [factor(step) for step in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert all(factor(step) > 0 for step in range(20))
    assert all(factor(step) >= factor(step + 1) for step in range(4, 19))


def test_a_warmup_longer_than_the_run_is_refused():
    with pytest.raises(
        ConfigError, match=r"schedule\.warmup is 20 steps; allowed: from 0 to below the run's 20"
    ):
        SCHEDULE.build({"name": "poly", "warmup": 20}, steps=20)
