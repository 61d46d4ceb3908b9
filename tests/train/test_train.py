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

from segtrain import build, checkpoint
from segtrain.commands import train as train_command
from segtrain.commands.parts import same_classes
from segtrain.data import DATA
from segtrain.errors import ConfigError, DivergedError, Interrupted, ResourceError
from segtrain.evaluate import loop as evaluation
from segtrain.loader.batch import Batch
from segtrain.model import MODEL
from segtrain.model.network import Network
from segtrain.optimizer import OPTIMIZER
from segtrain.run.stop import Stop
from segtrain.sample import IGNORE, Output
from segtrain.settings import Trainer
from segtrain.train import loop
from segtrain.train.loop import _rates
from segtrain.train.plan import Plan, about_length, in_steps, steps_of
from segtrain.train.state import new_state
from segtrain.train.step import Learning, train_step, update_average

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
            name: {**SMALL.get(name, {}), **value} if isinstance(value, dict) else value
            for name, value in changes.items()
        },
    }
    return build.check("train", made)


def stop_after(steps, monkeypatch):
    """A Stop that somebody asks to end the run after `steps` more optimizer steps."""
    stop, count = Stop(), [0]

    def counted(*arguments):
        count[0] += 1
        if count[0] == steps:
            stop.requested = signal.SIGTERM
        return train_step(*arguments)

    # The step is an argument of the loop; this test only counts it.
    original = loop.train
    monkeypatch.setattr(loop, "train", lambda *args, **kw: original(*args, **kw, step=counted))
    return stop


def losses(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    keep = ("train/loss", "train/rate", "val/miou", "val/iou/disc")
    return [{"step": line["step"], **{key: line[key] for key in keep if key in line}} for line in lines]


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight")
    train_command.train(config(), folder, Stop())
    return folder


@pytest.mark.parametrize("cuts", [[1], [4], [3, 2, 1]], ids=str)
def test_a_resumed_run_is_bit_identical(straight, tmp_path, monkeypatch, cuts):
    for number, steps in enumerate(cuts):
        with monkeypatch.context() as patch, pytest.raises(Interrupted) as caught:
            train_command.train(config(loader={"workers": number % 2}), tmp_path, stop_after(steps, patch))
        assert caught.value.exit_code == 143
    train_command.train(config(loader={"workers": 2}), tmp_path, Stop())
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
    result = train_command.train(config(), straight, Stop())
    assert result["step"] == 10 and result["val/miou"] == losses(straight)[-1]["val/miou"]


def test_a_kill_before_the_best_checkpoint_was_linked(straight, tmp_path, monkeypatch):
    def killed(folder, which, step):
        if which == "best":
            raise KeyboardInterrupt
        original(folder, which, step)

    original = checkpoint.link
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoint, "link", killed)
        train_command.train(config(), tmp_path, Stop())
    assert checkpoint.read_link(tmp_path / "checkpoints" / "best") is None
    found = checkpoint.find(tmp_path, "last")
    with pytest.raises(Interrupted):
        train_command.train(config(), tmp_path, stop_after(1, monkeypatch))
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
    settings = build.check("train", {**SMALL, "data": folder})
    (tmp_path / "run").mkdir()
    for count, steps, told in ((9, 2, False), (9, 1, False), (10, 1, True)):
        written(count)
        with monkeypatch.context() as patch, pytest.raises(Interrupted):
            train_command.train(settings, tmp_path / "run", stop_after(steps, patch))
        assert ("6 samples then, 7 now" in capsys.readouterr().out) == told


def test_a_signal_during_the_evaluation_leaves_it_due(straight, tmp_path, monkeypatch):
    stop = Stop()
    original = evaluation.evaluate

    def interrupted(*arguments, **more):
        stop.requested = signal.SIGINT
        return original(*arguments, **more)

    with (
        monkeypatch.context() as patch,
        pytest.raises(Interrupted, match="while evaluating after step 4") as caught,
    ):
        patch.setattr(evaluation, "evaluate", interrupted)
        train_command.train(config(), tmp_path, stop)
    assert caught.value.exit_code == 130
    train_command.train(config(), tmp_path, Stop())
    assert losses(straight) == losses(tmp_path)


@pytest.mark.parametrize(
    "part",
    ["segtrain.evaluate.loop.evaluate", "segtrain.commands.run.contact_sheet"],
    ids=["while scoring", "behind the scores"],
)
def test_a_first_evaluation_that_fails_costs_no_step(tmp_path, monkeypatch, part):
    def fails(*_, **__):
        raise MemoryError

    chosen = config(trainer={"save_every": None})
    for name in ("straight", "failed"):
        (tmp_path / name).mkdir()
    train_command.train(chosen, tmp_path / "straight", Stop())
    with monkeypatch.context() as patch, pytest.raises(ResourceError):
        patch.setattr(part, fails)
        train_command.train(chosen, tmp_path / "failed", Stop())
    assert checkpoint.describe(checkpoint.find(tmp_path / "failed", 4))["scores"] is None
    train_command.train(chosen, tmp_path / "failed", Stop())
    assert losses(tmp_path / "straight") == losses(tmp_path / "failed")
    assert_equal(
        *(checkpoint.load_weights(checkpoint.find(tmp_path / name, 10)) for name in ("straight", "failed"))
    )


def test_metrics_without_the_score_of_the_task_are_refused_before_the_first_step(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "train", None)
    with pytest.raises(
        ConfigError, match=r"metric=\[boundary\] lacks confusion.*use metric=\[confusion,boundary\]"
    ):
        train_command.train(config(metric={"boundary": {}}), tmp_path, Stop())


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
        loss=CrossEntropy(weights, IGNORE, aux_weight=0.4),
        normalise=lambda images: images.float() / 255,
        schedule=lambda step: 1.0,
        settings=settings,
        device=torch.device("cpu"),
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


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("kind", ["class without weight", "any loss"])
def test_a_step_without_weight_changes_nothing(accumulate, kind):
    """Also where the loss itself is above 0, as that of a plug-in may be."""
    model, batch, settings = Tiny(), a_batch(), Trainer(accumulate=accumulate)
    batch.targets.fill_(0)
    parts = learning(model, settings, torch.tensor([0.0, 1.0, 1.0, 1.0]))
    if kind == "any loss":
        parts = replace(parts, loss=lambda output, target: (output.logits.square().sum(), torch.zeros(())))
    else:
        parts.loss.smoothing = 0.1
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    optimizer.param_groups[0]["base_lr"] = 1.0
    state = new_state(model, {"network": optimizer}, settings, torch.device("cpu"))
    total, weight = train_step(state, batch, parts)
    assert total.item() == 0 and weight.item() == 0
    for new, old in zip(model.parameters(), Tiny().parameters(), strict=True):
        assert torch.equal(new, old)


def test_a_tiny_weight_is_still_divided_by():
    settings, batch = Trainer(), a_batch()
    moved = []
    for scale in (1.0, 1e-20):
        model = Tiny()
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        optimizer.param_groups[0]["base_lr"] = 1.0
        state = new_state(model, {"network": optimizer}, settings, torch.device("cpu"))
        train_step(state, batch, learning(model, settings, torch.full((4,), scale)))
        moved.append(list(model.parameters()))
    torch.testing.assert_close(moved[0], moved[1])


def test_the_logged_rate_is_the_base_rate_and_groups_have_their_own():
    class Network(Tiny):
        def __init__(self):
            super().__init__()
            self.encoder = nn.Conv2d(3, 3, 1)

    def rates(**options):
        optimizer = OPTIMIZER.build({"name": "sgd", "lr": 0.01, **options}, network=Network())
        for group in optimizer.param_groups:  # as the step leaves them
            group["lr"] *= 0.5
        return _rates([optimizer], 0.5)

    assert rates() == {"train/rate": 0.005}
    assert rates(bias_factor=2.0) == {
        "train/rate": 0.005,
        "train/rate/rest": 0.005,
        "train/rate/bias": 0.01,
        "train/rate/encoder": 0.005,
        "train/rate/encoder_bias": 0.01,
    }
    assert rates(encoder_factor=0.1) == pytest.approx(
        {"train/rate": 0.005, "train/rate/rest": 0.005, "train/rate/encoder": 0.0005}
    )


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
    original = loop.train

    def poisoned(state, batch, tools):
        if state.step == 5:
            next(state.model.parameters()).data.fill_(float("nan"))
        return train_step(state, batch, tools)

    monkeypatch.setattr(loop, "train", lambda *args, **kw: original(*args, **kw, step=poisoned))
    with pytest.raises(DivergedError, match="not finite at step 6; images: shapes-train-") as caught:
        train_command.train(config(), tmp_path, Stop())
    assert caught.value.exit_code == 5
    kept = checkpoint.load_weights(checkpoint.find(tmp_path, "last"))
    assert all(torch.isfinite(tensor.float()).all() for tensor in kept.values())


@pytest.mark.parametrize(
    "spoil",
    [
        lambda state: next(state.model.parameters()).data.fill_(float("inf")),
        lambda state: next(b for b in state.model.buffers() if b.ndim).data[:1].fill_(float("nan")),
        lambda state: next(b for b in state.ema.buffers() if b.ndim).data[:1].fill_(float("-inf")),
        lambda state: next(iter(state.optimizers["network"].state.values()))["exp_avg"].fill_(float("nan")),
    ],
    ids=["weight", "batch-norm buffer", "average", "optimizer"],
)
@pytest.mark.parametrize("at", [4, 10], ids=["a save", "the last step"])
def test_a_step_that_spoils_the_weights_is_found_before_they_are_saved(tmp_path, monkeypatch, spoil, at):
    original = loop.train

    def spoiling(state, batch, tools):
        result = train_step(state, batch, tools)
        if state.step == at - 1:
            spoil(state)
        return result

    monkeypatch.setattr(loop, "train", lambda *args, **kw: original(*args, **kw, step=spoiling))
    with pytest.raises(DivergedError, match=f"is not finite after step {at}; lower optimizer.lr"):
        train_command.train(config(), tmp_path, Stop())
    assert checkpoint.find(tmp_path, "last").name == str(at - 2)
    assert not [line for line in losses(tmp_path) if "val/miou" in line and line["step"] == at]


@pytest.mark.parametrize("rate", [1e38, 1e30])
def test_a_rate_that_destroys_the_network_ends_in_no_score(tmp_path, rate):
    """The first leaves infinities, the second finite weights whose output is not."""
    changes = {"optimizer": {"lr": rate}, "schedule": {"warmup": 0}, "trainer": {"steps": 1, "ema": None}}
    with pytest.raises(DivergedError, match="not finite"):
        train_command.train(config(**changes), tmp_path, Stop())
    assert not (tmp_path / "checkpoints" / "best").exists()


def plan_scores(monkeypatch, values):
    """The evaluations that follow give these mIoUs."""
    planned, original = iter(values), evaluation.evaluate

    def scored(*arguments):
        scores = original(*arguments)
        miou = replace(scores.numbers["miou"], value=next(planned))
        return replace(scores, numbers={**scores.numbers, "miou": miou})

    monkeypatch.setattr(evaluation, "evaluate", scored)


def test_early_stopping_counts_evaluations_without_a_better_score(tmp_path, monkeypatch, capsys):
    """Scores 0.3, 0.5, 0.5, 0.4: two in a row are no better than the second."""
    plan_scores(monkeypatch, [0.3, 0.5, 0.5, 0.4])
    patient = config(trainer={"steps": 30, "evaluate_every": 2, "patience": 2, "save_every": None})
    # Interrupted after the third evaluation, so that the count is of a resumed run.
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        train_command.train(patient, tmp_path, stop_after(7, patch))
    result = train_command.train(patient, tmp_path, Stop())
    assert result["step"] == 8 and checkpoint.describe(checkpoint.find(tmp_path, "best"))["step"] == 4
    said = "ended after step 8 of 30: 2 evaluations in a row brought no better score than 0.5000"
    assert said in capsys.readouterr().out
    assert train_command.train(patient, tmp_path, Stop())["step"] == 8  # it stays ended


def test_evaluations_without_a_score_do_not_stop_a_run_early(tmp_path, monkeypatch, capsys):
    plan_scores(monkeypatch, [None, None, 0.3, None, 0.2, None, 0.1])
    patient = config(trainer={"steps": 30, "evaluate_every": 1, "patience": 2, "save_every": None})
    assert train_command.train(patient, tmp_path, Stop())["step"] == 7
    assert "2 evaluations in a row brought no better score than 0.3000" in capsys.readouterr().out


def test_a_checkpoint_of_an_earlier_version_counts_from_its_start(straight):
    state = new_state(
        MODEL.build(dict(SMALL["model"]), out_channels=5, num_classes=5, in_channels=3),
        {}, Trainer(ema=None), torch.device("cpu"),
    )  # fmt: skip
    plain = state.plain()
    assert plain["numbers"].pop("worse") == 0
    state.worse = 3
    state.restore(state.served.state_dict(), plain, "earlier")
    assert state.worse == 0


def test_frozen_batch_norm_stays_as_it_is(tmp_path):
    train_command.train(
        config(trainer={"freeze_batch_norm": True, "steps": 3, "ema": None}), tmp_path, Stop()
    )
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
        train_command.train(build.check("train", {**chosen, "trainer": one}), tmp_path, Stop())
    frozen = build.check("train", {**chosen, "trainer": {**one, "freeze_batch_norm": True}})
    assert train_command.train(frozen, tmp_path, Stop())["step"] == 1


@pytest.mark.parametrize("amp", ["bf16"])
def test_mixed_precision_learns(tmp_path, amp):
    train_command.train(config(trainer={"amp": amp, "steps": 3, "ema": None}), tmp_path, Stop())
    assert all(line["train/loss"] > 0 for line in losses(tmp_path) if "train/loss" in line)


def test_the_memory_format_is_probed_once_and_changes_nothing_else(tmp_path):
    short = {"steps": 3, "save_every": 1, "evaluate_every": None}
    for name in ("auto", "named"):
        (tmp_path / name).mkdir()
    train_command.train(config(trainer={**short, "memory_format": "auto"}), tmp_path / "auto", Stop())
    answer = checkpoint.describe(checkpoint.find(tmp_path / "auto", "last"))["config"]["trainer"][
        "memory_format"
    ]
    assert answer in ("contiguous", "channels_last")
    train_command.train(config(trainer={**short, "memory_format": answer}), tmp_path / "named", Stop())
    assert losses(tmp_path / "auto") == losses(tmp_path / "named")


def test_going_on_does_not_ask_for_pretrained_weights(tmp_path, monkeypatch):
    asked = []
    original = MODEL.build
    monkeypatch.setattr(
        MODEL,
        "build",
        lambda chosen, **more: asked.append(chosen["weights"]) or original(chosen, **more),
    )
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        train_command.train(config(), tmp_path, stop_after(1, patch))
    train_command.train(config(), tmp_path, Stop())
    assert asked == [None, "none"]


# --- planning


def test_steps_and_epochs():
    assert steps_of(Trainer(steps=7), 2.5) == 7 and steps_of(Trainer(epochs=3), 2.5) == 8
    assert steps_of(Trainer(steps=8, epochs=3), 2.5) == 8
    assert steps_of(Trainer(epochs=1e-9), 2.5) == 1
    with pytest.raises(ConfigError, match="give one of them"):
        steps_of(Trainer(steps=1, epochs=1), 2.5)


@pytest.mark.parametrize(
    ("steps_per_epoch", "steps", "said"), [(3, 1000, "20 epochs would be 60 steps"), (125, 2500, "")]
)
def test_a_run_of_no_stated_length_has_a_least_number_of_steps(steps_per_epoch, steps, said):
    assert steps_of(Trainer(), steps_per_epoch) == steps
    assert said in about_length(Trainer(), steps_per_epoch) and bool(said) == bool(
        about_length(Trainer(), steps_per_epoch)
    )
    for stated in (Trainer(steps=7), Trainer(epochs=2)):
        assert about_length(stated, steps_per_epoch) == ""


def test_evaluations_are_a_least_distance_apart():
    assert [in_steps("auto", steps_per_epoch, "key") for steps_per_epoch in (0.5, 3, 50, 125)] == [
        50,
        50,
        50,
        125,
    ]


def test_intervals():
    assert [in_steps(value, 37.5, "key") for value in (None, 5, "1ep", "0.5ep", "2ep")] == [
        None,
        5,
        38,
        19,
        75,
    ]
    for wrong in (0, -1, "ep", "3", "-1ep", "1e400ep", "nanep"):
        with pytest.raises(ConfigError, match=rf"key is {wrong}, which is not an interval"):
            in_steps(wrong, 10, "key")


def test_the_last_step_is_always_evaluated():
    plan = Plan(steps=10, log_every=3, evaluate_every=4, save_every=None)
    assert [step for step in range(1, 11) if plan.evaluates(step)] == [4, 8, 10]
    assert Plan(10, 3, None, None).evaluates(10) and not Plan(10, 3, None, None).evaluates(5)


def test_wrong_class_count_of_a_resumed_run(straight):
    other = config()
    other["data"] = {**other["data"], "name": "shapes"}
    data = DATA.build(other["data"])
    run = replace(data.facts, classes=("a", *data.facts.classes[1:]))
    with pytest.raises(ConfigError, match=r"differ from index 0: \['a'"):
        same_classes(run, data.facts, "outputs/x")
