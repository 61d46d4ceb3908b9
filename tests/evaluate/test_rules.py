"""The rules of benchmarks: `evaluate.protocol`."""

import typing

import numpy as np
import pytest
import torch
from PIL import Image

from segtrain.commands.scoring import score_split, scoring_of
from segtrain.data.resized import Resized, nearest, resized_size
from segtrain.errors import ConfigError
from segtrain.evaluate.rules import RULES, rules_of
from segtrain.model.network import Network
from segtrain.run.stop import Stop
from segtrain.sample import Facts, Normalisation, Output, Sample
from segtrain.settings import EvaluateSettings
from segtrain.task import TASK

FACTS = Facts(
    classes=("ground", "tree", "snow"),
    palette=((0, 0, 0),) * 3,
    normalisation=Normalisation((0.0,) * 3, (1.0,) * 3),
)


class Fixed(Network):
    """Every pixel is the class that its red channel holds."""

    def __init__(self):
        super().__init__()
        self.register_buffer("place", torch.zeros(1))

    def forward(self, x):
        index = (255 * x[:, 0]).round().long().clamp(max=2)
        logits = torch.nn.functional.one_hot(index, 3).permute(0, 3, 1, 2).float()
        return Output(logits, tuple(x.shape[-2:]))


class Split:
    """Two images whose red channel is the prediction; class 1 is predicted and never labelled."""

    def __init__(self, height=4, width=6):
        predicted = np.zeros((height, width), np.uint8)
        predicted[:, : width // 2] = 1
        self.image = np.stack([predicted] * 3, axis=2)
        self.target = np.zeros((height, width), np.uint8)

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return Sample(self.image, self.target, name=self.name(index))

    def name(self, index):
        return f"image {index}"

    def size(self, index):
        return self.target.shape


def scored(**evaluate):
    config = {
        "evaluate": {"batch_size": 2, "workers": 0, "pictures": 0, **evaluate},
        "metric": {},
        "predictor": {},
        "tta": {},
        "data": {"name": "shapes"},
    }
    scoring = scoring_of(config, TASK.build({"name": "semantic"}), FACTS)
    return score_split(scoring, Fixed(), Split(), torch.device("cpu"), Stop(), "")


def test_the_option_offers_the_rules_that_there_are():
    offered = typing.get_args(typing.get_type_hints(EvaluateSettings)["protocol"])
    assert offered == tuple(RULES)


@pytest.mark.parametrize(("protocol", "miou"), [("default", 0.25), ("voc", 0.25), ("coco_stuff", 0.5)])
def test_classes_that_are_predicted_and_never_labelled(protocol, miou):
    scores = scored(protocol=protocol)
    assert scores.value("miou") == miou
    assert scores.protocol["protocol"] == protocol
    assert scores.protocol["absent"] == ("gt" if protocol == "coco_stuff" else "union")
    assert scores.protocol["resolution"] == "native"


def test_torchvision_scores_resized_labels():
    scores = scored(protocol="torchvision")
    assert scores.protocol["resolution"] == "shorter side 520"
    split = Resized(Split(), 520)
    assert split.size(0) == split[0].target.shape == split[0].image.shape[:2] == (520, 780)
    # The boundary is blurred by the enlargement of the image; each half still counts 520 * 390 pixels.
    assert scores.value("pixel_accuracy") == pytest.approx(0.5, abs=1 / 780)


def test_cityscapes_adds_its_metric():
    with pytest.raises(ConfigError, match="19 classes of Cityscapes"):
        scored(protocol="cityscapes")


def test_contradictions_are_refused():
    with pytest.raises(ConfigError, match=r"evaluate.absent=zero contradicts evaluate.protocol=coco_stuff"):
        rules_of(EvaluateSettings(protocol="coco_stuff", absent="zero"), {})
    assert rules_of(EvaluateSettings(protocol="coco_stuff", absent="gt"), {}).absent == "gt"
    overlapping = {"name": "coco", "overlap": "small_on_top"}
    with pytest.raises(
        ConfigError, match=r"data.overlap=small_on_top contradicts .*; set data.overlap=ignore"
    ):
        rules_of(EvaluateSettings(protocol="torchvision"), overlapping)
    assert rules_of(EvaluateSettings(protocol="torchvision"), {**overlapping, "overlap": "ignore"}).short_side


@pytest.mark.parametrize("size", [(37, 53), (64, 31), (20, 20)])
def test_images_and_labels_are_resized_as_torchvision_does(size):
    functional = pytest.importorskip("torchvision.transforms.functional")
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    target = rng.integers(0, 9, size, dtype=np.uint8)
    for side in (13, 70):
        sample = Resized([Sample(image, target, target.astype(np.uint16) * 1000)], side)[0]
        theirs = np.asarray(functional.resize(Image.fromarray(image), side))
        assert sample.image.shape == theirs.shape and sample.image.dtype == np.uint8
        assert np.abs(sample.image.astype(int) - theirs).max() <= 1
        nearest_mode = functional.InterpolationMode.NEAREST
        labels = np.asarray(functional.resize(Image.fromarray(target), side, nearest_mode))
        assert np.array_equal(sample.target, labels)
        assert np.array_equal(sample.instances, 1000 * labels.astype(np.uint16))
    assert resized_size((480, 640), 520) == (520, 693)  # int(693.3)


def test_targets_of_several_values_are_resized_too():
    values = np.arange(2 * 2 * 3, dtype=np.float32).reshape(2, 2, 3)
    assert np.array_equal(nearest(values, (4, 4))[::2, ::2], values)
