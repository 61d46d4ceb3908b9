"""The compiled training step: same tensors under the same names, an exact resume, and errors that name the
way out."""

import json
import signal

import pytest
import torch

from segtrain import build, checkpoint
from segtrain.commands import learning
from segtrain.commands import train as train_command
from segtrain.errors import ConfigError, Interrupted
from segtrain.run.stop import Stop
from segtrain.train import loop
from segtrain.train.compiled import compile_errors
from segtrain.train.step import train_step

SMALL = {
    "task": {"name": "semantic"},
    "data": {"name": "shapes", "size": 48, "num_train": 8, "num_val": 2, "objects": 3},
    "model": {"name": "unet", "widths": [4, 8]},
    "loss": {"name": "cross_entropy"},
    "optimizer": {"name": "sgd"},
    "schedule": {"name": "constant"},
    "augmentation": {"warp": {"scale": [0.7, 1.4]}},
    "tta": {},
    "trainer": {"steps": 4, "log_every": 1, "evaluate_every": 2, "ema": 0.9},
    "loader": {"batch_size": 2, "workers": 0},
    "evaluate": {"workers": 0, "pictures": 0},
    "device": "cpu",
}


def config(**trainer):
    return build.check("train", {**SMALL, "trainer": {**SMALL["trainer"], **trainer}})


def weights(folder):
    return checkpoint.load_weights(checkpoint.find(folder, "last"))


@pytest.mark.slow
def test_a_compiled_run_resumes_exactly_and_keeps_the_networks_own_names(tmp_path, monkeypatch):
    for name in ("plain", "straight", "cut"):
        (tmp_path / name).mkdir()
    shapes = []
    compiled = learning.compiled

    def counted(model, backend):
        network = compiled(model, backend)
        return lambda images: shapes.append(tuple(images.shape)) or network(images)

    train_command.train(config(), tmp_path / "plain", Stop())
    with monkeypatch.context() as patch:
        patch.setattr(learning, "compiled", counted)
        train_command.train(config(compile="aot_eager"), tmp_path / "straight", Stop())
    # One call a step; the evaluations ask the network itself.
    assert shapes == [(2, 3, 48, 48)] * 4

    stop = Stop()

    def interrupted(state, *arguments):
        stop.requested = signal.SIGTERM if state.step == 1 else None
        return train_step(state, *arguments)

    original = loop.train
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(loop, "train", lambda *args, **more: original(*args, **more, step=interrupted))
        train_command.train(config(compile="aot_eager"), tmp_path / "cut", stop)
    torch._dynamo.reset()
    train_command.train(config(compile="aot_eager"), tmp_path / "cut", Stop())

    plain, straight, cut = (weights(tmp_path / name) for name in ("plain", "straight", "cut"))
    assert straight.keys() == plain.keys()
    for name, tensor in straight.items():
        assert torch.equal(tensor, cut[name]), name
        torch.testing.assert_close(tensor, plain[name], rtol=1e-4, atol=1e-5)
    states = [
        checkpoint.load_state(tmp_path / name / "checkpoints" / "4")["raw"] for name in ("plain", "straight")
    ]
    assert states[0].keys() == states[1].keys()
    lines = [json.loads(line) for line in (tmp_path / "straight" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "val/miou" in line] == [2, 4]


def test_runs_of_many_shapes_in_one_process_are_each_compiled_for_theirs(tmp_path):
    heights = []

    def counting(graph, inputs):
        heights.extend(one.shape[2] for one in inputs if one.ndim == 4 and one.shape[:2] == (2, 3))
        return graph.forward

    if "counting" not in torch.compiler.list_backends():
        torch._dynamo.register_backend(name="counting", compiler_fn=counting)
    sides = list(range(48, 88, 4))
    for side in sides:
        (tmp_path / str(side)).mkdir()
        changed = {
            **SMALL,
            "data": {**SMALL["data"], "size": side},
            "trainer": {"steps": 1, "compile": "counting", "evaluate_every": None},
        }
        train_command.train(build.check("train", changed), tmp_path / str(side), Stop())
    assert len(sides) > torch._dynamo.config.recompile_limit
    assert heights == sides and all(type(height) is int for height in heights)


def test_an_unknown_backend_is_refused(tmp_path):
    with pytest.raises(
        ConfigError, match=r"trainer\.compile=inductr does not exist \(did you mean 'inductor'\?\)"
    ):
        train_command.train(config(compile="inductr"), tmp_path, Stop())


def test_a_network_that_cannot_be_compiled(tmp_path):
    def broken(graph, inputs):
        raise NotImplementedError("no such kernel")

    if "broken" not in torch.compiler.list_backends():
        torch._dynamo.register_backend(name="broken", compiler_fn=broken)
    with pytest.raises(
        ConfigError, match=r"trainer\.compile=broken cannot compile .*no such kernel.*trainer\.compile=null"
    ):
        train_command.train(config(compile="broken"), tmp_path, Stop())
    assert not (tmp_path / "checkpoints").exists()


def test_other_errors_pass():
    for backend in (None, "eager"):
        with pytest.raises(RuntimeError, match="mine"), compile_errors(backend):
            raise RuntimeError("mine")
