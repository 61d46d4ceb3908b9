"""An installed package adds tasks, networks, losses, metrics and views; nothing in segtrain is changed for them.

Each is driven through the command line: trained, killed in the middle, resumed to the same bytes, scored, asked to predict.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.core.config_store import ConfigStore
from PIL import Image

from segtrain.cli import catalogue
from segtrain.commands import COMMANDS, Command
from segtrain.data import DATA
from segtrain.options import key
from segtrain.train import loop
from segtrain.train.step import train_step

PLUGIN = Path(__file__).parent / "plugin"
SMALL = (
    "model=unet", "model.widths=[4,8]", "device=cpu", "threads=1", "loader.workers=0", "loader.batch_size=4", "evaluate.workers=0",
    "schedule=constant", "optimizer.lr=0.01", "trainer.steps=6", "trainer.save_every=2", "trainer.evaluate_every=3",
)  # fmt: skip
TASKS = {
    "depth": ("task=depth", "data=ramps", "loss=absolute", "trainer.amp=bf16"),
    "restoration": (
        "task=restoration",
        "data=ramps",
        "data.kind=image",
        "loss=restored",
        "trainer.accumulate=2",
    ),
    "adversarial": (
        "task=adversarial",
        "data=ramps",
        "data.kind=image",
        "loss=restored",
        "trainer.clip_norm=1.0",
    ),
}
AUGMENTED = ("augmentation=[warp]", "augmentation.warp.size=32", "augmentation.warp.rotate=20")


@pytest.fixture
def plugin(monkeypatch):
    monkeypatch.syspath_prepend(PLUGIN)
    catalogue._entry_points.cache_clear()
    yield
    catalogue._entry_points.cache_clear()


def weights(run: str) -> bytes:
    return (Path("outputs") / run / "checkpoints" / "last" / "model.safetensors").read_bytes()


def killed_after(steps: int, monkeypatch, segtrain, *words):
    """Runs the command and kills it in the step after `steps`."""
    original = loop.train

    def train(state, learning, *args, **more):
        def step(state, batch, learning):
            if state.step == steps:
                raise KeyboardInterrupt
            return (learning.step or train_step)(state, batch, learning)

        return original(state, learning, *args, **more, step=step)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train", train)
        assert segtrain(*words).code == 130


@pytest.mark.parametrize("name", TASKS)
def test_a_task_through_the_command_line(plugin, segtrain, monkeypatch, tmp_path, name):
    words = ("train", *SMALL, *AUGMENTED, *TASKS[name])
    assert segtrain(*words, "name=straight").code == 0
    killed_after(5, monkeypatch, segtrain, *words, "name=cut")
    result = segtrain(*words, "name=cut", "resume=auto")
    assert result.code == 0, result.err
    assert weights("cut") == weights("straight")
    assert torch.equal(*(last_state(run)["random"]["torch"] for run in ("cut", "straight")))

    result = segtrain("evaluate", "run=outputs/cut", "checkpoint=last", "output=scores", "tta=flip")
    assert result.code == 0, result.err
    record = json.loads((tmp_path / "scores" / "scores.json").read_text())
    score = "mae" if name == "depth" else "psnr"
    assert (
        np.isfinite(record[score])
        and {"mae": "mean absolute error", "psnr": "PSNR in dB"}[score] in result.out
    )
    Image.fromarray(np.full((40, 32, 3), 128, np.uint8)).save("grey.png")
    result = segtrain(
        "predict", "run=outputs/cut", "input=grey.png", "output=made", "device=cpu", "probabilities=true"
    )
    assert result.code == 0, result.err
    if name == "depth":
        made = np.asarray(Image.open("made/depth/grey.tiff"))
        assert made.shape == (40, 32) and made.dtype == np.float32 and 0 <= made.min() <= made.max() <= 1
    else:
        assert np.asarray(Image.open("made/restored/grey.png")).shape == (40, 32, 3)


def last_state(run: str) -> dict:
    from segtrain import checkpoint

    return checkpoint.load_state(checkpoint.find(f"outputs/{run}", "last"))


def test_two_optimizers_are_each_scaled_unscaled_clipped_and_stepped_once(plugin, monkeypatch):
    """With a loss scale of 1024, whose gradients are unscaled, both networks end where they do without."""
    from seams.adversarial import adversarial

    from segtrain.loader.batch import Batch
    from segtrain.model import MODEL
    from segtrain.sample import Normalisation
    from segtrain.settings import Trainer
    from segtrain.train.state import new_state
    from segtrain.train.step import Learning

    ends = []
    for scale in (None, 1024.0):
        torch.manual_seed(0)
        task = adversarial()
        model = MODEL.build({"name": "unet", "widths": [4, 8]}, out_channels=3, in_channels=3, num_classes=3)
        networks = task.networks(None)
        optimizers = {
            name: torch.optim.SGD(network.parameters(), lr=0.1)
            for name, network in {"network": model, **networks}.items()
        }
        for optimizer in optimizers.values():
            optimizer.param_groups[0]["base_lr"] = 0.1
        settings = Trainer(clip_norm=0.05)
        state = new_state(model, optimizers, settings, torch.device("cpu"), networks)
        if scale:
            state.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        norm = Normalisation((0.5,) * 3, (0.5,) * 3)
        learning = Learning(None, norm, lambda step: 1.0, settings, torch.device("cpu"), step=task.step)
        generator = torch.Generator().manual_seed(1)
        images = torch.randint(0, 256, (2, 3, 16, 16), generator=generator, dtype=torch.uint8)
        batch = Batch(images, torch.rand(2, 3, 16, 16, generator=generator), ["a", "b"], [0, 1], 2)
        before = [p.detach().clone() for p in model.parameters()]
        for _ in range(3):
            task.step(state, batch, learning)
            state.step += 1
        assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
        ends.append([*model.state_dict().values(), *networks["discriminator"].state_dict().values()])
    for plain, scaled in zip(*ends, strict=True):
        torch.testing.assert_close(plain, scaled, rtol=1e-5, atol=1e-6)


def test_the_step_saves_every_network_and_optimizer(plugin, segtrain):
    assert segtrain("train", *SMALL, *TASKS["adversarial"], "name=gan", "trainer.steps=2").code == 0
    state = last_state("gan")
    assert set(state["optimizers"]) == {"network", "discriminator"} and set(state["networks"]) == {
        "discriminator"
    }
    assert state["optimizers"]["discriminator"]["param_groups"][0]["base_lr"] == 0.002


def test_a_metric_with_bins_is_printed_saved_and_sent_to_tensorboard(plugin, segtrain, tmp_path):
    words = ("data=shapes", "data.size=48", "metric=[confusion,binned]", "metric.binned.bins=4")
    result = segtrain("train", *SMALL, *words, "name=run")
    assert result.code == 0, result.err
    assert (
        "calibration error 0." in result.out
        and "confidence  accuracy" in result.out
        and "0.875" in result.out
    )
    lines = [json.loads(line) for line in (tmp_path / "outputs/run/metrics.jsonl").read_text().splitlines()]
    scored = next(line for line in lines if "val/miou" in line)
    assert {"val/calibration_error", "val/calibration/0.125", "val/calibration/0.875"} <= set(scored)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "outputs/run"))
    events.Reload()
    assert "val/calibration_error" in events.Tags()["scalars"]
    result = segtrain("evaluate", "run=outputs/run", "output=scores")
    record = json.loads((tmp_path / "scores/scores.json").read_text())
    assert record["calibration"]["x"] == [0.125, 0.375, 0.625, 0.875] and len(record["calibration"]["y"]) == 4
    assert record["protocol"]["metric"]["binned"] == {"bins": 4}


def test_what_needs_classes_is_refused_without_them(plugin, segtrain):
    words = ("train", *SMALL, *TASKS["depth"], "name=x")
    segtrain(*words, "predictor.crf=deeplab", "predictor.crf_solver=torch").refused(
        "predictor.crf works on classes"
    )
    segtrain(*words, "augmentation=[warp]", "augmentation.warp.class_centred=0.5").refused(
        "class_centred", "task has none"
    )
    terms = "loss.terms={jaccard: {smooth: 1}}"
    for name, chosen in (
        ("loss=cross_entropy", ["loss=cross_entropy"]),
        ("loss=jaccard", ["loss=jaccard"]),
        ("loss.terms.jaccard", ["loss=weighted_sum", terms]),
    ):
        of_another_loss = [word for word in words if not word.startswith("loss")]
        segtrain(*of_another_loss, *chosen).refused(f"{name} compares classes", "task has none")
    segtrain(*words, "augmentation=[object_crops]").refused("augmentation.object_crops", "task has none")
    segtrain(*words, "metric=[mae,confusion]").refused("score classes, and the data has none")


def pointwise(images):
    """B×3×H×W probabilities that follow from each pixel alone."""
    return (images.float() / 60).softmax(1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("task=depth", "data=shapes"), "data=shapes has 5 classes and task=depth needs targets of measured"),
        (
            ("task=semantic", "data=ramps"),
            "data=ramps has no classes and task=semantic needs targets of class",
        ),
    ],
)
def test_a_data_set_of_another_kind_than_the_task_is_refused(plugin, segtrain, words, message):
    result = segtrain("train", *words, *SMALL)
    assert result.code == 2 and message in result.err


def test_views_of_other_sizes_and_with_weights(plugin):
    from seams.views import back, rotate, scale

    from segtrain.predictor.views import IDENTITY, average

    images = torch.randint(
        0, 256, (2, 3, 40, 56), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    plain = pointwise(images)
    assert torch.equal(average(pointwise, [[IDENTITY]])(images), plain)
    for views in ([rotate((7.0, -7.0))], [scale((0.5, 1.5))], [rotate(), scale()], [scale(), rotate()]):
        merged = average(pointwise, views)(images)
        assert merged.shape == plain.shape and not torch.allclose(merged, plain)
        torch.testing.assert_close(merged.sum(1), torch.ones(2, 40, 56), rtol=0, atol=1e-3)
        constant = torch.full_like(images, 77)
        constant[:, 1] = 20
        torch.testing.assert_close(
            average(pointwise, views)(constant), pointwise(constant), rtol=0, atol=1e-4
        )
    _, weight = back(plain, 20.0)
    assert weight[..., 0, 0].max() == 0 and weight[..., 20, 28].min() == 1
    corner = average(pointwise, [rotate((20.0,))])(images)[..., 0, 0]
    torch.testing.assert_close(corner, plain[..., 0, 0])  # only the plain image sees the corner


def test_views_through_the_command_line(plugin, segtrain, tmp_path):
    assert segtrain("train", *SMALL, "data=shapes", "data.size=48", "name=run").code == 0
    views = ("tta=[turned,resized,flip]", "tta.turned.degrees=[-5,5]")
    result = segtrain("evaluate", "run=outputs/run", "output=turned", *views)
    assert result.code == 0, result.err
    record = json.loads((tmp_path / "turned" / "scores.json").read_text())
    assert (
        record["protocol"]["tta"]["turned"] == {"degrees": [-5.0, 5.0]} and record["protocol"]["images"] > 0
    )
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (40, 56, 3), dtype=np.uint8)).save("noise.png")
    made = []
    for words in ((), views):
        output = f"made{len(words)}"
        words = ("run=outputs/run", "input=noise.png", f"output={output}", "probabilities=true", *words)
        assert segtrain("predict", *words, "device=cpu").code == 0
        made.append(np.load(f"{output}/probabilities/noise.npy").astype(np.float32))
    plain, turned = made
    assert plain.shape == turned.shape == (5, 40, 56) and not np.allclose(plain, turned, atol=1e-2)
    assert np.allclose(turned.sum(0), 1, atol=1e-2)


@dataclass(frozen=True)
class Count:
    """The top level of the command."""

    split: str = key("val", "which split")


def count(config: dict, stop) -> None:
    """`segtrain data count`: how many samples a split has."""
    data = DATA.build(config["data"])
    print(f"{len(data.splits[config['split']])} samples in {config['split']}")


def test_a_command_of_two_words(segtrain, monkeypatch):
    row = Command(
        words=("data", "count"),
        example="segtrain data count data=folder",
        about="how many samples there are",
        help="segtrain data count counts samples.",
        sections={"": Count},
        groups=("data",),
        function=f"{__name__}:count",
    )
    option = {"default": "val", "type": "a text", "kinds": ["str"], "meaning": "which split"}
    listed = catalogue.load()
    monkeypatch.setitem(COMMANDS, row.name, row)
    monkeypatch.setitem(listed["commands"], row.name, {"": {"about": "Keys", "keys": {"split": option}}})
    monkeypatch.setitem(listed["command_groups"], row.name, ["data"])
    menu = {"defaults": ["settings/data_count", {"data": "shapes"}, "_self_"]}
    ConfigStore.instance().store(name="data_count", node=menu, provider="test")
    try:
        result = segtrain("data", "count", "data.num_train=7", "split=train")
        assert result.code == 0 and "7 samples in train" in result.out, result.err
        segtrain("data", "count", "splitt=x").refused(
            "splitt is not an option of segtrain data count", "split"
        )
        segtrain("data").refused("data needs a second word: segtrain data ", "segtrain data count")
        assert "segtrain data count data=folder" in segtrain("--help").out
        assert "split=val" in segtrain("data", "count", "--help").out
        assert "split" in segtrain("config", "data", "count").out
    finally:
        ConfigStore.instance().repo.pop("data_count.yaml")
