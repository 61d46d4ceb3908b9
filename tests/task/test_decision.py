"""The most probable class is that of argmax, whatever the number of classes."""

import pytest
import torch

from segtrain.task import TASK
from segtrain.task.decision import most_probable


@pytest.mark.parametrize("classes", [1, 2, 19, 255, 300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_it_is_argmax(classes, dtype):
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(2, classes, 9, 14, generator=generator).to(dtype)
    found = most_probable(values)
    assert found.dtype == torch.int64 and torch.equal(found, values.argmax(1))
    strip = values[..., 2:5, :]
    assert torch.equal(most_probable(strip), strip.argmax(1))


def test_the_first_of_equal_classes():
    values = torch.tensor([0.1, 0.3, 0.3, 0.3, 0.0]).view(1, 5, 1, 1).expand(1, 5, 2, 3)
    assert most_probable(values).unique().tolist() == [1]
    assert most_probable(torch.zeros(1, 5, 2, 3)).unique().tolist() == [0]
    assert most_probable(torch.full((1, 5, 2, 3), -torch.inf)).unique().tolist() == [0]


def test_what_is_no_number_still_has_a_valid_index():
    values = torch.rand(1, 4, 6, 6)
    values[0, 2, 3, 3] = torch.nan
    found = most_probable(values)
    assert 0 <= int(found[0, 3, 3]) < 4
    keep = torch.ones(6, 6, dtype=torch.bool)
    keep[3, 3] = False
    assert torch.equal(found[0][keep], values.argmax(1)[0][keep])


def test_semantic_decides_so():
    values = torch.rand(1, 4, 6, 6)
    assert torch.equal(TASK.build({"name": "semantic"}).decide(values), values.argmax(1))
