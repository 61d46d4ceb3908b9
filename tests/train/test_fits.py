"""A checkpoint whose files are whole but hold the state of another run, or nonsense: refused before a step."""

import hashlib
import json
import shutil

import pytest
import safetensors.torch
import torch

from segtrain import build, checkpoint
from segtrain.checkpoint.reading import read_folder
from segtrain.checkpoint.restore import build_from
from segtrain.commands import train as train_command
from segtrain.errors import CheckpointError
from segtrain.run.stop import Stop

SMALL = {
    "data": {"name": "shapes", "size": 48, "num_train": 6, "num_val": 2},
    "model": {"name": "unet", "widths": [4, 8]},
    "augmentation": {},
    "trainer": {"steps": 2, "save_every": 1, "evaluate_every": 2, "ema": 0.9, "amp": "bf16"},
    "loader": {"batch_size": 2, "workers": 0},
    "evaluate": {"workers": 0, "pictures": 0},
    "device": "cpu",
}
DEFAULTS = {
    "task": {"name": "semantic"},
    "loss": {"name": "cross_entropy"},
    "optimizer": {"name": "adamw"},
    "schedule": {"name": "poly"},
    "tta": {},
}


def config(**changes):
    return build.check("train", {**DEFAULTS, **SMALL, **changes})


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run stopped after its first step."""
    folder = tmp_path_factory.mktemp("whole")
    train_command.train(config(), folder, Stop())
    shutil.rmtree(folder / "checkpoints" / "2")
    for link in ("best", "last"):
        checkpoint.link(folder, link, 1)
    return folder


@pytest.fixture
def run(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "run", symlinks=True)


def forge(run, change_weights=None, change_state=None):
    """Changes what a checkpoint holds and makes its hashes agree again."""
    folder = run / "checkpoints" / "1"
    weights, state = checkpoint.load_weights(folder), checkpoint.load_state(folder)
    for change, value in ((change_weights, weights), (change_state, state)):
        if change:
            change(value)
    safetensors.torch.save_file(weights, folder / "model.safetensors", {"format": "pt"})
    torch.save(state, folder / "state.pt")
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in ("model.safetensors", "state.pt"):
        data = (folder / name).read_bytes()
        manifest["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def some(tensors):
    """The name of the first kernel."""
    return next(name for name, tensor in tensors.items() if tensor.ndim == 4)


def put(*path, to):
    """A change of a nested value."""

    def change(state):
        for key in path[:-1]:
            state = state[key]
        if callable(to):
            state[path[-1]] = to(state[path[-1]])
        else:
            state[path[-1]] = to

    return change


WEIGHTS = {
    "renamed": lambda w: w.update(other=w.pop(some(w))),
    "extra": lambda w: w.update(other=torch.zeros(1)),
    "other shape": lambda w: w.update({some(w): torch.zeros(2, 2)}),
    "other type": lambda w: w.update({some(w): w[some(w)].double()}),
    "not a number": lambda w: w[next(n for n in w if n.endswith("running_mean"))].fill_(float("nan")),
}
MOMENT = ("optimizers", "network", "state", 0)
STATES = {
    "no scaler": lambda s: s.pop("scaler"),
    "scaler with values": put("scaler", to={"scale": 2.0}),
    "no optimizers": lambda s: s.pop("optimizers"),
    "optimizers of another name": put("optimizers", to=lambda o: {"other": o["network"]}),
    "moment of another shape": put(*MOMENT, "exp_avg", to=torch.zeros(1, 2, 3)),
    "moment of one number": put(*MOMENT, "exp_avg_sq", to=torch.zeros(())),
    "moment that is no tensor": put(*MOMENT, "exp_avg_sq", to="text"),
    "moment missing": lambda s: s["optimizers"]["network"]["state"][0].pop("exp_avg"),
    "infinite moment": put(*MOMENT, "exp_avg", to=lambda t: torch.full_like(t, torch.inf)),
    "state of a parameter that is not there": put("optimizers", "network", "state", 999, to={}),
    "state that is a list": put("optimizers", "network", "state", to=[1, 2]),
    "fewer groups": put("optimizers", "network", "param_groups", to=lambda groups: groups[:-1]),
    "group that is a text": put("optimizers", "network", "param_groups", to=["text"]),
    "rate that is a text": put("optimizers", "network", "param_groups", 0, "betas", to=["a", "b"]),
    "step that is a text": put("numbers", "step", to="1"),
    "negative position": put("numbers", "position", to=-5),
    "number missing": lambda s: s["numbers"].pop("best"),
    "numbers that are a list": put("numbers", to=[1]),
    "average without its network": put("raw", to=None),
    "raw of another shape": lambda s: s["raw"].update({some(s["raw"]): torch.zeros(1)}),
    "raw not a number": lambda s: s["raw"][some(s["raw"])].fill_(float("nan")),
    "statistics of nothing": put("statistics", to={"nothing": torch.zeros(1)}),
    "loss of another shape": put("loss", to=[torch.zeros(3), torch.zeros(3)]),
    "random missing": lambda s: s.pop("random"),
    "random of another length": put("random", "torch", to=torch.zeros(3, dtype=torch.uint8)),
    "random that is damaged": put("random", "torch", to=torch.zeros_like),
    "python's random that is damaged": put("random", "python", 1, to=lambda t: t - 2**40),
    "random of another generator": put("random", "numpy", 0, to="other"),
    "something besides": put("besides", to=1),
}


@pytest.mark.parametrize("change", WEIGHTS.values(), ids=WEIGHTS)
def test_weights_that_do_not_fit_are_named(run, change):
    forge(run, change_weights=change)
    with pytest.raises(CheckpointError, match=r"checkpoints/1.*(other|conv|weight|running_mean)"):
        train_command.train(config(), run, Stop())
    with pytest.raises(CheckpointError, match=r"checkpoints/1.*(other|conv|weight|running_mean)"):
        build_from(read_folder(run / "checkpoints" / "1"))


@pytest.mark.parametrize("change", STATES.values(), ids=STATES)
def test_a_state_that_does_not_fit_is_refused_before_the_first_step(run, change, monkeypatch):
    forge(run, change_state=change)
    monkeypatch.setattr(train_command.training, "train", lambda *_, **__: pytest.fail("a step was taken"))
    with pytest.raises(CheckpointError, match=r"checkpoints/1: the state of the run does not fit \(.+\)"):
        train_command.train(config(), run, Stop())


def test_a_forgery_that_changes_nothing_goes_on(run):
    forge(run)
    assert train_command.train(config(), run, Stop())["step"] == 2
