"""Every loss trains from the command line, and a task of sigmoids from new, copied and restored heads."""

import math

import pytest
from safetensors.torch import load_file

from segtrain.cli.main import main
from segtrain.loss import LOSS

TRAIN = (
    "train",
    "device=cpu",
    "threads=1",
    "model=unet",
    "model.widths=[4,8]",
    "augmentation=none",
    "loader.batch_size=2",
    "loader.workers=0",
    "evaluate.workers=0",
    "data.size=48",
    "data.num_train=4",
    "data.num_val=2",
    "trainer.steps=2",
)
SIGMOID = "task.activation=sigmoid"
ELSEWHERE = {"cross_entropy", "binary_cross_entropy"}
"""Trained in other tests, or in the next one."""
NEEDS = {
    "focal_sigmoid": [SIGMOID],
    "weighted_sum": ["loss.terms={dice:{},cldice:{factor:0.5},ohem:{top_k:0.3,ramp_steps:2}}"],
}


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("losses"))
        yield


def head(run):
    return load_file(f"outputs/{run}/checkpoints/last/model.safetensors")["head.bias"]


@pytest.mark.parametrize("name", [name for name in LOSS.names() if name not in ELSEWHERE])
def test_each_loss_trains(name):
    assert main([*TRAIN, f"loss={name}", *NEEDS.get(name, []), "dry_run=true"]) == 0


def test_new_heads_start_from_the_prior_and_others_do_not(capsys):
    sigmoid = [*TRAIN, SIGMOID, "loss=binary_cross_entropy"]
    slow = "optimizer.lr=1e-12"
    assert main([*sigmoid, slow, "name=new"]) == 0
    bias = head("new")
    prior = -math.log(len(bias) - 1)
    assert bias.tolist() == pytest.approx([prior] * len(bias), abs=1e-4)
    assert main([*TRAIN, slow, "name=softmax"]) == 0
    assert head("softmax").abs().max() < 0.5 < -prior

    assert main([*sigmoid, "optimizer.lr=0.5", "name=moved"]) == 0
    moved = head("moved")
    assert (moved - prior).abs().max() > 1e-3
    assert main([*sigmoid, slow, "init=outputs/moved", "name=copied"]) == 0
    assert head("copied").tolist() == pytest.approx(moved.tolist(), abs=1e-5)
    views = ["tta=flip", "predictor.ensemble=outputs/new", "predictor.ensemble_merge=mean"]
    evaluate = ["evaluate", "run=outputs/moved", "device=cpu", "threads=1", "evaluate.workers=0"]
    assert main([*evaluate, *views]) == 0
    capsys.readouterr()
    assert main([*evaluate, "predictor.ensemble=outputs/softmax", "predictor.ensemble_merge=mean"]) == 2
    assert "was trained for a softmax (task.activation)" in capsys.readouterr().err
