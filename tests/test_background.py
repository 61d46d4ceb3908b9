"""Which class is the background: one rule for scores, losses and augmentation."""

import pytest

from segtrain.augmentation.object_crops import object_crops
from segtrain.augmentation.objects import object_classes
from segtrain.errors import ConfigError
from segtrain.loss.heads import foreground
from segtrain.metric.confusion import confusion
from segtrain.sample import CLASSES, IGNORE, Facts
from segtrain.task import TASK


@pytest.mark.parametrize(
    ("names", "background"),
    [
        (("background", "a", "b"), 0),
        (("a", "Background", "b"), 1),
        (("a", "b", "c"), None),
        (("class_0", "class_1"), 0),
        (("crack", "background"), 1),
        (("a",), None),
    ],
)
def test_all_take_one_class_for_the_background(names, background):
    facts = Facts(names, ((0, 0, 0),) * len(names))
    others = tuple(index for index in range(len(names)) if index != background)
    assert facts.background == background
    assert foreground(len(names), facts) == others
    assert object_classes("copy_paste", None, facts, IGNORE, CLASSES).components == others
    crops = object_crops(facts=facts)
    assert crops.classes == others and crops.background == (IGNORE if background is None else background)
    assert confusion(len(names), IGNORE, facts=facts).background == background


def test_the_foreground_of_a_binary_task_cannot_be_the_background():
    binary = TASK.build({"name": "binary"})
    assert binary.out_channels(Facts(("class_0", "class_1"), ((0, 0, 0),) * 2)) == 1
    with pytest.raises(ConfigError, match=r"class 1 'background'; give them in the other order"):
        binary.out_channels(Facts(("crack", "background"), ((0, 0, 0),) * 2))
