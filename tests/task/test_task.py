"""Nothing in the loop, the evaluation or the checkpoints assumes classes: a task with one measured value a
pixel runs."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from segtrain import build
from segtrain.commands import train as train_command
from segtrain.data.parts import Data
from segtrain.data.shapes import shapes
from segtrain.predictor.mask import load
from segtrain.report.sheet import sheet
from segtrain.run.stop import Stop
from segtrain.sample import Facts, Number, Sample, Target
from segtrain.task import TASK
from segtrain.task.task import Task


class Ramp:
    """Grey images; the target is their value from 0 to 1, unknown (NaN) in one corner."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        image = np.random.default_rng(index).integers(0, 256, (16, 16, 1), dtype=np.uint8).repeat(3, axis=2)
        target = (image[..., 0] / 255).astype(np.float32)
        target[:4, :4] = np.nan
        return Sample(image=image, target=target, name=self.name(index))

    def name(self, index):
        return f"ramp-{index}"

    def size(self, index):
        return 16, 16


class AbsoluteError:
    needs = frozenset({"decisions"})

    def counts(self, target, *, decisions):
        valid = torch.isfinite(target)
        errors = torch.where(valid, decisions - target, 0.0).abs().double()
        return torch.stack([errors.sum((1, 2)), valid.sum((1, 2)).double()], dim=1)  # B×2

    def scores(self, counts):
        return {"mae": Number("mean absolute error", (counts[0] / counts[1]).item())}


class L1(nn.Module):
    def forward(self, output, target):
        valid = torch.isfinite(target)
        difference = output.upsampled()[:, 0] - torch.where(valid, target, 0.0)
        return (difference.abs() * valid).sum(), valid.sum().float()


def grey(values, facts):
    return np.repeat((np.nan_to_num(values) * 255).clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


def value() -> Task:
    """One number a pixel."""
    return Task(
        name="value", out_channels=lambda facts: 1, activate=lambda logits, images: logits, decide=lambda values: values[:, 0], metrics={"mae": {}},
        score="mae", lower_is_better=True, target=Target(classes=False, interpolation="linear"), picture=grey,
    )  # fmt: skip


def ramp() -> Data:
    """Grey ramps."""
    return Data(Facts(classes=(), palette=()), {"train": Ramp(24), "val": Ramp(5)})


@pytest.fixture
def tables(monkeypatch):
    for kind, name, factory in (
        ("task", "value", value),
        ("data", "ramp", ramp),
        ("metric", "mae", AbsoluteError),
        ("loss", "l1", L1),
    ):
        monkeypatch.setitem(build.TABLES[kind]._entries, name, factory)


def test_a_task_of_one_measured_value(tables, tmp_path):
    config = {
        "task": {"name": "value"}, "data": {"name": "ramp"}, "loss": {"name": "l1"}, "model": {"name": "unet", "widths": [4, 8]},
        "optimizer": {"name": "adamw", "lr": 0.01}, "schedule": {"name": "constant"}, "tta": {"flip": {}}, "metric": {},
        "augmentation": {"warp": {"flip": 0.5, "scale": [1.0, 1.0]}}, "trainer": {"steps": 30, "evaluate_every": 10},
        "loader": {"workers": 0}, "evaluate": {"workers": 0, "batch_size": 2}, "device": "cpu",
    }  # fmt: skip
    result = train_command.train(build.check("train", config), tmp_path, Stop())
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    errors = [line["val/mae"] for line in lines if "val/mae" in line]
    assert len(errors) == 3 and errors[-1] < errors[0] and result["val/mae"] == errors[-1]
    assert (tmp_path / "checkpoints" / "best").resolve().name == str(10 * (1 + int(np.argmin(errors))))
    prediction = load(tmp_path, device="cpu")(Ramp(1)[0].image)
    assert prediction.shape == (16, 16) and prediction.dtype == np.float32


def test_the_semantic_tasks_pictures():
    data = shapes(size=48, num_val=1)
    task = TASK.build({"name": "semantic"})
    sample = data.splits["val"][0]
    assert task.out_channels(data.facts) == data.facts.num_classes
    colours = task.picture(sample.target, data.facts)
    for index, colour in enumerate(data.facts.palette):
        assert (colours[sample.target == index] == colour).all()
    wrong = task.errors(sample.target, np.zeros_like(sample.target), data.facts)
    assert (wrong[sample.target == data.facts.ignore_index] == 255).all()
    labelled = sample.target != data.facts.ignore_index
    assert ((wrong[..., 1] == 30) == (labelled & (sample.target != 0))).all()


@pytest.mark.parametrize("size", [(2, 4000), (4000, 2), (1, 1)], ids=str)
def test_a_sheet_of_very_long_pictures_stays_small(size):
    facts, task = shapes(size=48, num_val=1).facts, TASK.build({"name": "semantic"})
    target = np.zeros(size, np.uint8)
    made = sheet([(np.zeros((*size, 3), np.uint8), target, target)], facts, task.picture, task.errors, "x")
    assert max(made.size) < 3000
