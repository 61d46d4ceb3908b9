"""Networks that are fitted in place of the loop: one step, with the run folder, the checkpoints and the
signals of any other run."""

import json
import signal

import numpy as np
import pytest
import torch

from segtrain import build, checkpoint
from segtrain.commands import train as train_command
from segtrain.data import DATA
from segtrain.errors import ConfigError, DataError, Interrupted
from segtrain.evaluate import loop as evaluation
from segtrain.loader.fit_samples import Samples
from segtrain.model import MODEL
from segtrain.model.network import Network
from segtrain.predictor.mask import load
from segtrain.run.stop import Stop
from segtrain.sample import Normalisation, Output


class Means(Network):
    """The nearest mean colour of a class. How many classes were seen is known only after the fit."""

    head_keys = ("colours",)
    fits_itself = True

    def __init__(self, num_classes: int):
        super().__init__()
        self.num_classes, self.seen, self.draws = num_classes, [], None
        self.normalisation = Normalisation((0.0,) * 3, (1.0,) * 3)
        self.register_buffer("colours", torch.zeros(num_classes, 0))

    def fit(self, samples, rng):
        assert len(samples) > 0
        sums, counts = np.zeros((self.num_classes, 3)), np.zeros((self.num_classes, 1))
        for sample in samples:
            self.seen.append(sample.name)
            for index in range(self.num_classes):
                mask = sample.target == index
                sums[index] += sample.image[mask].sum(0)
                counts[index] += mask.sum()
        self.draws = rng.integers(1000)
        self.colours = torch.from_numpy(sums / np.maximum(counts, 1) / 255).float()

    def resize_for(self, weights):
        self.colours = torch.zeros_like(weights["colours"])

    def forward(self, x):
        distance = (x[:, None] - self.colours[None, :, :, None, None]).square().sum(2)
        return Output(-distance, tuple(x.shape[-2:]))


MADE: list[Means] = []


def means(out_channels: int) -> Means:
    """A network for these tests."""
    MADE.append(Means(out_channels))
    return MADE[-1]


@pytest.fixture(autouse=True)
def row(monkeypatch):
    monkeypatch.setitem(MODEL._entries, "means", means)
    MADE.clear()


def config(**changes) -> dict:
    base = {
        "task": {"name": "semantic"},
        "data": {"name": "shapes", "size": 48, "num_train": 6, "num_val": 3, "objects": 3},
        "model": {"name": "means"},
        "loss": {"name": "cross_entropy"},
        "optimizer": {"name": "adamw"},
        "schedule": {"name": "constant"},
        "augmentation": {"warp": {}},
        "tta": {},
        "trainer": {"epochs": 20.0, "ema": 0.9, "amp": "fp16"},
        "loader": {"workers": 0},
        "evaluate": {"workers": 0, "pictures": 1},
        "metric": {"confusion": {}, "boundary": {"tolerance_px": 2.0}},
        "device": "cpu",
    }
    return build.check("train", {**base, **changes})


def test_a_fit_is_a_run_of_one_step(tmp_path, capsys):
    scores = train_command.train(config(), tmp_path, Stop())
    assert MADE[0].seen == [f"shapes-train-{i}" for i in range(6)] and MADE[0].draws == np.random.default_rng(
        0
    ).integers(1000)
    found = checkpoint.find(tmp_path, "best")
    assert found.name == "1" and found == checkpoint.find(tmp_path, "last")
    assert torch.equal(checkpoint.load_weights(found)["colours"], MADE[0].colours)
    description = checkpoint.describe(found)
    assert scores["step"] == 1 and scores["val/miou"] == description["scores"]["miou"]
    assert (
        0 < description["scores"]["boundary_f"] < 1
        and description["protocol"]["metric"]["boundary"]["tolerance_px"] == 2
    )
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "val/miou" in line] == [1] and (
        tmp_path / "report" / "validation.png"
    ).is_file()
    out = capsys.readouterr().out
    assert "fitted on 6 images" in out and "boundary F 0." in out


def test_its_weights_load_whatever_their_size(tmp_path):
    train_command.train(config(), tmp_path, Stop())
    mask = load(tmp_path, device="cpu")
    sample = DATA.build(config()["data"]).splits["val"][0]
    colours = MADE[0].colours.numpy()
    expected = np.square(sample.image[..., None, :] / 255 - colours).sum(-1).argmin(-1)
    assert (mask(sample.image) == expected).mean() > 0.999


def test_going_on_changes_nothing(tmp_path):
    first = train_command.train(config(), tmp_path, Stop())
    before = {path: path.read_bytes() for path in (tmp_path / "checkpoints").rglob("*") if path.is_file()}
    assert train_command.train(config(), tmp_path, Stop()) == first
    assert MADE[1].seen == [] and torch.equal(MADE[1].colours, MADE[0].colours)
    assert before == {
        path: path.read_bytes() for path in (tmp_path / "checkpoints").rglob("*") if path.is_file()
    }


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_a_fit(tmp_path, monkeypatch, number, code):
    stop = Stop()
    original = DATA.build

    def build(*arguments, **runtime):
        data = original(*arguments, **runtime)
        get = type(data.splits["train"]).__getitem__

        def asked(self, index):
            if MADE[0].seen and index == 3 and self.part == "train":
                stop.requested = number
            return get(self, index)

        monkeypatch.setattr(type(data.splits["train"]), "__getitem__", asked)
        return data

    monkeypatch.setattr(DATA, "build", build)
    with pytest.raises(Interrupted) as caught:
        train_command.train(config(), tmp_path, stop)
    assert caught.value.exit_code == code and len(MADE[0].seen) == 4
    assert not checkpoint.has_checkpoint(tmp_path)


def test_a_signal_in_its_evaluation_keeps_the_fit(tmp_path, monkeypatch):
    stop = Stop()

    def interrupted(*_, **__):
        stop.requested = signal.SIGTERM
        stop.raise_if_requested()

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(evaluation, "evaluate", interrupted)
        train_command.train(config(), tmp_path, stop)
    assert checkpoint.describe(checkpoint.find(tmp_path, "last"))["scores"] is None
    scores = train_command.train(config(), tmp_path, Stop())
    assert (
        MADE[1].seen == []
        and scores["val/miou"] == checkpoint.describe(checkpoint.find(tmp_path, "best"))["scores"]["miou"]
    )


def test_a_crash_in_its_evaluation_keeps_the_fit(tmp_path, monkeypatch):
    def crash(*_, **__):
        raise ZeroDivisionError

    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(evaluation, "evaluate", crash)
        train_command.train(config(), tmp_path, Stop())
    assert "val/miou" in train_command.train(config(), tmp_path, Stop()) and MADE[1].seen == []


def test_a_dry_run_fits_on_a_few_images():
    assert train_command.train(config(), None, Stop())["step"] == 1
    assert len(MADE[0].seen) == 4


def test_a_mistake_in_its_evaluation_is_named_before_the_fit(tmp_path):
    with pytest.raises(ConfigError, match=r"predictor\.ensemble=nowhere does not exist"):
        train_command.train(config(predictor={"ensemble": "nowhere"}), tmp_path, Stop())
    assert MADE[0].seen == [] and not checkpoint.has_checkpoint(tmp_path)


def test_weights_to_start_from_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"init=somewhere.*fitted"):
        train_command.train(config(init="somewhere"), tmp_path, Stop())


class Broken:
    """A split with unreadable samples."""

    def __init__(self, bad):
        self.bad = bad

    def __len__(self):
        return 300

    def __getitem__(self, index):
        if index in self.bad:
            raise DataError(f"sample {index} is damaged")
        return index


def test_unreadable_samples_stop_a_fit_or_are_left_out_up_to_a_hundredth(capsys):
    with pytest.raises(DataError, match="sample 7"):
        list(Samples(Broken({7}), 300))
    for _ in range(2):  # as often as somebody asks
        assert list(Samples(Broken({7, 9, 200}), 300, skip_bad=True)) == [
            i for i in range(300) if i not in (7, 9, 200)
        ]
    assert "skipped: sample 7 is damaged" in capsys.readouterr().err
    with pytest.raises(DataError, match="sample 200"):
        list(Samples(Broken({1, 2, 3, 200}), 300, skip_bad=True))
