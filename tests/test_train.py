"""The loop: an exact resume, the gradient of micro-batches, the moving average, the stop at a loss that is
not finite."""

import json
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from segtrain import assemble, checkpoint
from segtrain.errors import ConfigError, DivergedError, Interrupted, ResourceError
from segtrain.loader import Batch
from segtrain.model.network import Network
from segtrain.run_folder import Stop
from segtrain.sample import IGNORE, Output
from segtrain.settings import Trainer, in_steps
from segtrain.train import Learning, Plan, new_state, steps_of, train_step, update_average

SMALL = {
    "task": {"name": "semantic"},
    "data": {"name": "shapes", "size": 48, "num_train": 12, "num_val": 3, "objects": 3},
    "model": {"name": "unet", "widths": [4, 8]},
    "loss": {"name": "cross_entropy", "class_weights": "median", "weight_power": 0.5},
    "optimizer": {"name": "adamw"},
    "schedule": {"name": "cosine", "warmup": 2},
    "augmentation": {"warp": {"scale": [0.7, 1.4], "rotate": 10.0}, "colour": {}},
    "tta": {},
    "trainer": {
        "steps": 10,
        "log_every": 3,
        "evaluate_every": 4,
        "save_every": 2,
        "ema": 0.9,
        "accumulate": 2,
    },
    "loader": {"batch_size": 5, "workers": 0},
    "evaluate": {"workers": 0, "pictures": 1},
    "device": "cpu",
}


def config(**changes):
    made = {
        **SMALL,
        **{
            name: {**SMALL[name], **value} if isinstance(value, dict) else value
            for name, value in changes.items()
        },
    }
    return assemble.check("train", made)


def stop_after(steps, monkeypatch):
    """A Stop that somebody asks to end the run after `steps` more optimizer steps."""
    stop, count = Stop(), [0]

    def counted(*arguments):
        count[0] += 1
        if count[0] == steps:
            stop.requested = signal.SIGTERM
        return train_step(*arguments)

    # The step is an argument of the loop; this test only counts it.
    original = assemble.training.train
    monkeypatch.setattr(assemble.training, "train", lambda *args, **kw: original(*args, **kw, step=counted))
    return stop


def losses(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    keep = ("train/loss", "train/rate", "val/miou", "val/iou/disc")
    return [{"step": line["step"], **{key: line[key] for key in keep if key in line}} for line in lines]


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight")
    assemble.train(config(), folder, Stop())
    return folder


@pytest.mark.parametrize("cuts", [[1], [4], [3, 2, 1]], ids=str)
def test_a_resumed_run_is_bit_identical(straight, tmp_path, monkeypatch, cuts):
    for number, steps in enumerate(cuts):
        with monkeypatch.context() as patch, pytest.raises(Interrupted) as caught:
            assemble.train(config(loader={"workers": number % 2}), tmp_path, stop_after(steps, patch))
        assert caught.value.exit_code == 143
    assemble.train(config(loader={"workers": 2}), tmp_path, Stop())
    for one, other in zip(
        *(sorted((run / "checkpoints" / "10").glob("model.*")) for run in (straight, tmp_path)), strict=True
    ):
        assert one.read_bytes() == other.read_bytes()
    ours, theirs = (checkpoint.load_state(run / "checkpoints" / "10") for run in (straight, tmp_path))
    assert_equal(ours, theirs)
    assert losses(straight) == losses(tmp_path)


def assert_equal(one, other, where="state"):
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_equal(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), where
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_equal(a, b, f"{where}[{i}]")
    else:
        assert one == other, where


def test_a_finished_run_says_its_scores_again(straight):
    result = assemble.train(config(), straight, Stop())
    assert result["step"] == 10 and result["val/miou"] == losses(straight)[-1]["val/miou"]


def test_a_kill_before_the_best_checkpoint_was_linked(straight, tmp_path, monkeypatch):
    def killed(folder, which, step):
        if which == "best":
            raise KeyboardInterrupt
        original(folder, which, step)

    original = checkpoint.link
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(assemble.checkpoints, "link", killed)
        assemble.train(config(), tmp_path, Stop())
    assert checkpoint.read_link(tmp_path / "checkpoints" / "best") is None
    found = checkpoint.find(tmp_path, "last")
    with pytest.raises(Interrupted):
        assemble.train(config(), tmp_path, stop_after(1, monkeypatch))
    assert checkpoint.read_link(tmp_path / "checkpoints" / "best") == int(found.name)


def test_a_run_that_goes_on_says_that_files_came_in_the_meantime(tmp_path, monkeypatch, capsys):
    def written(count):
        rng = np.random.default_rng(0)
        for kind in ("images", "masks"):
            for index in range(count):
                path = tmp_path / kind / ("val" if index < 3 else "train") / f"{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.integers(0, 2, (48, 48), dtype=np.uint8)).convert(
                    "RGB" if kind == "images" else "L"
                ).save(path)

    folder = {"name": "folder", "root": str(tmp_path), "classes": ["ground", "tree"]}
    settings = assemble.check("train", {**SMALL, "data": folder})
    (tmp_path / "run").mkdir()
    for count, steps, told in ((9, 2, False), (9, 1, False), (10, 1, True)):
        written(count)
        with monkeypatch.context() as patch, pytest.raises(Interrupted):
            assemble.train(settings, tmp_path / "run", stop_after(steps, patch))
        assert ("6 samples then, 7 now" in capsys.readouterr().out) == told


def test_a_signal_during_the_evaluation_leaves_it_due(straight, tmp_path, monkeypatch):
    stop = Stop()
    original = assemble.evaluation.evaluate

    def interrupted(*arguments, **more):
        stop.requested = signal.SIGINT
        return original(*arguments, **more)

    with (
        monkeypatch.context() as patch,
        pytest.raises(Interrupted, match="while evaluating after step 4") as caught,
    ):
        patch.setattr(assemble.evaluation, "evaluate", interrupted)
        assemble.train(config(), tmp_path, stop)
    assert caught.value.exit_code == 130
    assemble.train(config(), tmp_path, Stop())
    assert losses(straight) == losses(tmp_path)


@pytest.mark.parametrize(
    "part", ["evaluation.evaluate", "_sheet"], ids=["while scoring", "behind the scores"]
)
def test_a_first_evaluation_that_fails_costs_no_step(tmp_path, monkeypatch, part):
    def fails(*_, **__):
        raise MemoryError

    chosen = config(trainer={"save_every": None})
    for name in ("straight", "failed"):
        (tmp_path / name).mkdir()
    assemble.train(chosen, tmp_path / "straight", Stop())
    with monkeypatch.context() as patch, pytest.raises(ResourceError):
        patch.setattr(f"segtrain.assemble.{part}", fails)
        assemble.train(chosen, tmp_path / "failed", Stop())
    assert checkpoint.describe(checkpoint.find(tmp_path / "failed", 4))["scores"] is None
    assemble.train(chosen, tmp_path / "failed", Stop())
    assert losses(tmp_path / "straight") == losses(tmp_path / "failed")
    assert_equal(
        *(checkpoint.load_weights(checkpoint.find(tmp_path / name, 10)) for name in ("straight", "failed"))
    )


def test_scores_that_the_task_has_not_are_refused_before_the_first_step(tmp_path, monkeypatch):
    without_classes = replace(assemble.TASK.build({"name": "semantic"}), metric="boundary")
    monkeypatch.setattr(assemble.TASK, "build", lambda chosen: without_classes)
    monkeypatch.setattr(assemble.training, "train", None)
    with pytest.raises(
        ConfigError, match=r"evaluate\.boundary_px scores classes, and task=semantic has none"
    ):
        assemble.train(config(evaluate={"boundary_px": 2.0}), tmp_path, Stop())


# --- one step


class Tiny(Network):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x):
        return Output(self.conv(x), tuple(x.shape[-2:]))


def learning(model, settings, weights=None):
    from segtrain.loss.cross_entropy import CrossEntropy

    return Learning(
        loss=CrossEntropy(weights, IGNORE, 0.0, 0.4),
        normalise=lambda images: images.float() / 255,
        schedule=lambda step: 1.0,
        settings=settings,
        device=torch.device("cpu"),
        parameters=list(model.parameters()),
    )


def a_batch(count=5):
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (count, 3, 8, 8), dtype=torch.uint8, generator=generator)
    targets = torch.randint(0, 4, (count, 8, 8), generator=generator).to(torch.uint8)
    # Images with very different numbers of labels: where a mean of means goes wrong.
    targets[0, 1:] = IGNORE
    targets[1] = IGNORE
    return Batch(
        images=images,
        targets=targets,
        names=[f"{i}.png" for i in range(count)],
        positions=list(range(count)),
        count=count,
    )


@pytest.mark.parametrize("accumulate", [1, 2, 5])
@pytest.mark.parametrize("clip", [None, 0.01])
def test_micro_batches_give_the_gradient_of_the_whole_batch(accumulate, clip):
    weights = torch.tensor([1.0, 3.0, 0.5, 2.0])
    model, batch = Tiny(), a_batch()
    reference = Tiny()
    loss = nn.functional.cross_entropy(
        reference.conv(batch.images.float() / 255), batch.targets.long(), weights, ignore_index=IGNORE
    )
    loss.backward()
    if clip:
        nn.utils.clip_grad_norm_(reference.parameters(), clip)
    settings = Trainer(accumulate=accumulate, clip_norm=clip)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    optimizer.param_groups[0]["base_lr"] = 1.0
    before = [p.detach().clone() for p in model.parameters()]
    state = new_state(model, {"network": optimizer}, settings, torch.device("cpu"))
    total, weight = train_step(state, batch, learning(model, settings, weights))
    assert (total / weight).item() == pytest.approx(loss.item(), rel=1e-6)
    for old, new, expected in zip(before, model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(old - new, expected.grad, rtol=1e-5, atol=1e-7)


def test_a_batch_without_labels_changes_nothing():
    model, batch, settings = Tiny(), a_batch(), Trainer()
    batch.targets.fill_(IGNORE)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    optimizer.param_groups[0]["base_lr"] = 1.0
    state = new_state(model, {"network": optimizer}, settings, torch.device("cpu"))
    total, weight = train_step(state, batch, learning(model, settings))
    assert total.item() == 0 and weight.item() == 0
    torch.testing.assert_close(dict(model.named_parameters()), dict(Tiny().named_parameters()))


def test_the_moving_average_by_hand():
    model = nn.BatchNorm1d(1)
    state = new_state(model, {}, Trainer(ema=0.5), torch.device("cpu"))
    with torch.no_grad():
        model.weight.fill_(3.0)
        model.running_mean.fill_(10.0)
        model.num_batches_tracked.fill_(7)
    state.step = 1
    update_average(state, 0.5)  # decay min(0.5, 2/11)
    assert state.ema.weight.item() == pytest.approx(1 * 2 / 11 + 3 * 9 / 11)
    assert state.ema.running_mean.item() == pytest.approx(10 * 9 / 11)
    assert state.ema.num_batches_tracked.item() == 7
    state.step = 100
    update_average(state, 0.5)
    assert state.ema.running_mean.item() == pytest.approx(10 * 9 / 11 * 0.5 + 5)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(tmp_path, monkeypatch):
    original = assemble.training.train

    def poisoned(state, batch, tools):
        if state.step == 5:
            next(state.model.parameters()).data.fill_(float("nan"))
        return train_step(state, batch, tools)

    monkeypatch.setattr(assemble.training, "train", lambda *args, **kw: original(*args, **kw, step=poisoned))
    with pytest.raises(DivergedError, match="not finite at step 6; images: shapes-train-") as caught:
        assemble.train(config(), tmp_path, Stop())
    assert caught.value.exit_code == 5
    kept = checkpoint.load_weights(checkpoint.find(tmp_path, "last"))
    assert all(torch.isfinite(tensor.float()).all() for tensor in kept.values())


def test_frozen_batch_norm_stays_as_it_is(tmp_path):
    assemble.train(config(trainer={"freeze_batch_norm": True, "steps": 3, "ema": None}), tmp_path, Stop())
    weights = checkpoint.load_weights(checkpoint.find(tmp_path, "last"))
    means = [tensor for name, tensor in weights.items() if name.endswith("running_mean")]
    assert means and not any(mean.any() for mean in means)


def test_frozen_batch_norm_takes_one_image_at_a_time(tmp_path):
    model = {"name": "deeplabv3", "encoder": "resnet18", "weights": "none", "aspp_width": 8}
    one = {"accumulate": 1, "steps": 1, "ema": None}
    chosen = {
        **SMALL,
        "model": model,
        "schedule": {"name": "constant"},
        "loader": {"batch_size": 1, "workers": 0},
    }
    with pytest.raises(ConfigError, match=r"trainer\.freeze_batch_norm=true"):
        assemble.train(assemble.check("train", {**chosen, "trainer": one}), tmp_path, Stop())
    frozen = assemble.check("train", {**chosen, "trainer": {**one, "freeze_batch_norm": True}})
    assert assemble.train(frozen, tmp_path, Stop())["step"] == 1


@pytest.mark.parametrize("amp", ["bf16"])
def test_mixed_precision_learns(tmp_path, amp):
    assemble.train(config(trainer={"amp": amp, "steps": 3, "ema": None}), tmp_path, Stop())
    assert all(line["train/loss"] > 0 for line in losses(tmp_path) if "train/loss" in line)


def test_the_memory_format_is_probed_once_and_changes_nothing_else(tmp_path):
    short = {"steps": 3, "save_every": 1, "evaluate_every": None}
    for name in ("auto", "named"):
        (tmp_path / name).mkdir()
    assemble.train(config(trainer={**short, "memory_format": "auto"}), tmp_path / "auto", Stop())
    answer = checkpoint.describe(checkpoint.find(tmp_path / "auto", "last"))["config"]["trainer"][
        "memory_format"
    ]
    assert answer in ("contiguous", "channels_last")
    assemble.train(config(trainer={**short, "memory_format": answer}), tmp_path / "named", Stop())
    assert losses(tmp_path / "auto") == losses(tmp_path / "named")


def test_going_on_does_not_ask_for_pretrained_weights(tmp_path, monkeypatch):
    asked = []
    original = assemble.MODEL.build
    monkeypatch.setattr(
        assemble.MODEL,
        "build",
        lambda chosen, **more: asked.append(chosen["weights"]) or original(chosen, **more),
    )
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        assemble.train(config(), tmp_path, stop_after(1, patch))
    assemble.train(config(), tmp_path, Stop())
    assert asked == [None, "none"]


# --- planning


def test_steps_and_epochs():
    assert steps_of(Trainer(steps=7), 2.5) == 7 and steps_of(Trainer(epochs=3), 2.5) == 8
    for settings in (Trainer(), Trainer(steps=1, epochs=1)):
        with pytest.raises(ConfigError, match="give one of them"):
            steps_of(settings, 2.5)
    with pytest.raises(ConfigError, match=r"trainer\.steps gives 0 steps"):
        steps_of(Trainer(steps=0), 2.5)


def test_intervals():
    assert [in_steps(value, 37.5, "key") for value in (None, 5, "1ep", "0.5ep", "2ep")] == [
        None,
        5,
        38,
        19,
        75,
    ]
    for wrong in (0, -1, "ep", "3", "-1ep"):
        with pytest.raises(ConfigError, match=rf"key is {wrong}, which is not an interval"):
            in_steps(wrong, 10, "key")


def test_the_last_step_is_always_evaluated():
    plan = Plan(steps=10, log_every=3, evaluate_every=4, save_every=None)
    assert [step for step in range(1, 11) if plan.evaluates(step)] == [4, 8, 10]
    assert Plan(10, 3, None, None).evaluates(10) and not Plan(10, 3, None, None).evaluates(5)


def test_wrong_class_count_of_a_resumed_run(straight):
    other = config()
    other["data"] = {**other["data"], "name": "shapes"}
    data = assemble.DATA.build(other["data"])
    run = replace(data.facts, classes=("a", *data.facts.classes[1:]))
    with pytest.raises(ConfigError, match=r"differ from index 0: \['a'"):
        assemble._same_classes(run, data.facts, "outputs/x")
