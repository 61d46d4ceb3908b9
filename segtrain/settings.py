"""The settings that do not depend on the chosen network, data set or loss, and the commands. `segtrain config
train` prints them with their meanings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from segtrain.options import ABOVE_0, FROM_0, FROM_1, ODD, SEED, SHARE, Limits, at_least, between

THREADS = between(1, 1024)
EPOCHS = Limits("above 0 and at most 1000000", lambda value: 0 < value <= 1_000_000)


def key(default: Any, meaning: str) -> Any:
    """A dataclass field with a default and its meaning, which `segtrain config` prints."""
    return field(default=default, metadata={"meaning": meaning})


@dataclass(frozen=True)
class Machine:
    """Settings of the machine, shared by all commands that compute."""

    device: str = key("auto", "auto, cpu, cuda, cuda:1 or mps")
    threads: Annotated[int, THREADS] | None = key(
        None, "CPU threads of torch; null leaves the choice to torch"
    )


@dataclass(frozen=True, kw_only=True)
class Run(Machine):
    """The top level of `segtrain train`."""

    name: str | None = key(
        None, "name of the run; its folder is then outputs/NAME instead of outputs/DATE/TIME-RANDOM"
    )
    resume: str | None = key(
        None, "auto: go on with the run of this name, or start it; or the folder of a run to go on with"
    )
    init: str | None = key(
        None, "run folder or weights file to start a new run from; heads are copied by class name"
    )
    seed: Annotated[int, SEED] = key(0, "seed of weight initialisation, sample order and augmentation")
    dry_run: bool = key(False, "build everything, run one step and one evaluation batch, save nothing")
    stages: list[list[str]] | None = field(
        default=None,
        metadata={
            "meaning": "lists of overrides, each for a run that starts from the best weights of the one "
            "before; null: one run"
        },
    )


@dataclass(frozen=True)
class Trainer:
    """The loop. Intervals count optimizer steps; '1ep' means once an epoch."""

    steps: Annotated[int, FROM_1] | None = key(None, "optimizer steps of the run")
    epochs: Annotated[float, EPOCHS] | None = key(None, "passes over the training split; give this or steps")
    evaluate_every: Annotated[int, FROM_1] | str | None = key(
        "1ep", "steps between evaluations; null: only after the last step"
    )
    log_every: Annotated[int, FROM_1] = key(20, "steps between log lines (loss, rate, images/s)")
    save_every: Annotated[int, FROM_1] | str | None = key(
        None, "steps between checkpoints; null: with each evaluation"
    )
    accumulate: Annotated[int, FROM_1] = key(
        1, "gradient accumulation: micro-batches that each batch is split into, to save memory"
    )
    clip_norm: Annotated[float, ABOVE_0] | None = key(
        None, "gradient clipping: largest L2 norm; null: no clipping"
    )
    ema: Annotated[float, SHARE] | None = key(
        None, "decay of the exponential moving average (EMA) of the weights, e.g. 0.999; null: off"
    )
    amp: Literal["none", "bf16", "fp16"] = key("none", "mixed precision of the forward pass")
    freeze_batch_norm: bool = key(
        False, "keep the statistics and the affine weights of batch-norm as they are"
    )
    batch_norm_momentum: Annotated[float, SHARE] | None = key(
        None,
        "momentum of batch-norm's running statistics, in torch's convention; null: 0.1 or the encoder's own; "
        "0.0003 is DeepLab's decay of 0.9997",
    )
    recompute_batch_norm: Annotated[int, FROM_0] = key(
        0,
        "batches of the training split over which the statistics of batch-norm are averaged anew for each "
        "evaluation and checkpoint; "
        "training goes on with its own; 0: never",
    )
    memory_format: Literal["contiguous", "channels_last", "auto"] = key(
        "contiguous", "auto times both on a copy of the network and saves its choice"
    )
    compile: str | None = key(
        None, "backend of torch.compile for the training step: inductor, aot_eager …; null: not compiled"
    )
    keep_checkpoints: Annotated[int, FROM_1] = key(
        2, "how many of the newest checkpoints stay beside the best one"
    )


@dataclass(frozen=True)
class Loader:
    """Batches."""

    batch_size: Annotated[int, FROM_1] = key(8, "images per optimizer step")
    workers: Annotated[int, FROM_0] = key(2, "processes that read and augment; 0: in the main process")
    on_bad: Literal["error", "skip"] = key(
        "error", "an unreadable sample stops the run, or is replaced by another and counted"
    )
    cache: Literal["none", "memory"] = key("none", "memory: keep decoded samples in each worker's memory")


@dataclass(frozen=True)
class PredictorSettings:
    """How a network is run on whole images; one way for validation, evaluate and predict."""

    tile: Annotated[int, FROM_1] | None = key(
        None,
        "side of the sliding window in pixels; views (tta) and CRF are then computed tile by tile, so that "
        "it bounds the memory; null: the whole image at once (572 for networks without padding)",
    )
    overlap: Annotated[float, SHARE] = key(
        0.5, "share of a tile that the next one covers again; networks without padding need none"
    )
    amp: Literal["none", "bf16", "fp16"] = key("none", "mixed precision of the forward pass")
    boxes: Literal["grid"] | None = key(
        None,
        "grid: the largest score over square boxes of several sizes, each resized to box_input "
        "(DeconvNet's inference)",
    )
    box_sides: tuple[Annotated[int, at_least(112)], ...] | None = key(
        None,
        "sides of the boxes in pixels, from 112; null: the image's longer side and its halves down to 112",
    )
    box_input: Annotated[int, FROM_1] = key(224, "side in pixels that boxes are resized to for the network")
    ensemble: str | None = key(
        None, "folder of a second run with the same classes; the scores of its best checkpoint are merged in"
    )
    ensemble_merge: Literal["product", "mean"] = key(
        "product",
        "product: of the scores above 0, before the softmax (DeconvNet's code); mean: of the probabilities "
        "(its paper)",
    )
    crf: Literal["pydensecrf", "deeplab", "deconvnet"] | None = key(
        None,
        "refine the probabilities by a dense CRF with the parameters of pydensecrf's README, of DeepLab's "
        "or of DeconvNet's",
    )
    crf_solver: Literal["auto", "torch", "pydensecrf"] = key(
        "auto",
        "torch: kernels end at the border of a window; pydensecrf: they reach over the whole image (pip "
        "install 'segtrain[crf]'); "
        "auto: pydensecrf if it is installed",
    )
    crf_window: Annotated[int, ODD] = key(
        11, "side of the window that a pixel is compared with, for crf_solver=torch"
    )


@dataclass(frozen=True)
class EvaluateSettings:
    """How scores are made."""

    batch_size: Annotated[int, FROM_1] = key(8, "images per batch; only images of one size share one")
    workers: Annotated[int, FROM_0] = key(2, "processes that read")
    absent: Literal["union", "gt", "zero", "one"] = key(
        "union",
        "which classes the means (mIoU, mean Dice, mean accuracy) leave out. union: those neither labelled "
        "nor predicted, and of the mean accuracy those not labelled; gt: those not labelled; zero, one: "
        "none, and a class neither labelled nor predicted counts as 0 or 1",
    )
    pictures: Annotated[int, FROM_0] = key(
        4, "images of the validation split that go to TensorBoard and the contact sheet"
    )


@dataclass(frozen=True, kw_only=True)
class Evaluate(Machine):
    """The top level of `segtrain evaluate`."""

    run: str = field(metadata={"meaning": "folder of the run"})
    checkpoint: str = key("best", "best, last or a step")
    split: str = key("val", "split of the data set to score")
    output: str | None = key(
        None,
        "folder for scores.json and the contact sheet; null: a new RUN/evaluate/SPLIT-STEP, numbered if "
        "that is taken",
    )


@dataclass(frozen=True, kw_only=True)
class Compare(Machine):
    """The top level of `segtrain compare`."""

    runs: list[str] = field(
        metadata={"meaning": "folders of the runs, in the order of the picture's columns"}
    )
    checkpoint: str = key("best", "best, last or a step, of every run")
    split: str = key("val", "split of the data set to score; the data set is that of the first run")
    output: str = key("outputs/compare", "folder for compare.json and compare.png")


@dataclass(frozen=True, kw_only=True)
class Predict(Machine):
    """The top level of `segtrain predict`."""

    run: str = field(metadata={"meaning": "folder of the run"})
    input: str = field(metadata={"meaning": "image file or folder of images"})
    output: str = field(metadata={"meaning": "folder for the results"})
    checkpoint: str = key("best", "best, last or a step")
    overlay: bool = key(True, "also write the image with the colours over it")
    probabilities: bool = key(False, "also write the probabilities of all classes, float16 .npy")


@dataclass(frozen=True)
class Describe:
    """The top level of `segtrain describe`."""

    size: Annotated[int, FROM_1] | tuple[Annotated[int, FROM_1], Annotated[int, FROM_1]] = key(
        512, "side of the image in pixels, or [height,width]"
    )
    classes: Annotated[int, FROM_1] = key(21, "classes that the network is to tell apart")
    channels: Annotated[int, FROM_1] = key(3, "channels of the image")
    depth: Annotated[int, FROM_1] = key(2, "down to which depth parts of parts are listed")


@dataclass(frozen=True)
class Command:
    """One command: what is typed for it, what it takes, and its help.

    words: one or two. example, about: its line in the general help. sections: its fixed sections, "" is the
    top level; none for commands that compose no config. groups: each is a table. reads: the key that names
    the run, or the list of runs, whose saved config it starts from. needs_run: that key must be given.
    takes_experiment: a recipe may change its defaults. function: "module:name", None for that of its words
    below segtrain.commands.
    """

    words: tuple[str, ...]
    example: str
    about: str
    help: str
    sections: Mapping[str, type] = field(default_factory=dict)
    groups: tuple[str, ...] = ()
    reads: str | None = None
    needs_run: bool = False
    takes_experiment: bool = False
    function: str | None = None

    @property
    def name(self) -> str:
        return " ".join(self.words)

    @property
    def file_name(self) -> str:
        """Of its YAML in conf/ and of its module in segtrain/commands/."""
        return "_".join(self.words)


_COMMANDS = (
    Command(
        words=("train",),
        example="segtrain train model=unet data=folder data.images=…",
        about="trains a network",
        help="""\
segtrain train trains a network. Its run folder is outputs/DATE/TIME-RANDOM, or outputs/NAME with name=NAME.

  segtrain train                                              a small U-Net on drawn shapes
  segtrain train experiment=camvid_lite0 data.root=CAMVID name=first resume=auto     starts, or goes on
  segtrain train model=deeplabv3plus model.encoder=resnet50 optimizer.lr=0.001 trainer.epochs=20
  segtrain train tta=[flip] augmentation=[warp,colour]        several at once; null removes one
  segtrain train experiment=fcn_paper data=camvid data.root=CAMVID name=fcn     stage1, stage2, stage3
  segtrain train --multirun optimizer.lr=0.01,0.02 model=unet,deeplabv3plus     a sweep, with a ranked table
  segtrain train resume=outputs/…                             goes on with a stopped run""",
        sections={
            "": Run,
            "trainer": Trainer,
            "loader": Loader,
            "predictor": PredictorSettings,
            "evaluate": EvaluateSettings,
        },
        groups=("task", "data", "model", "loss", "optimizer", "schedule", "augmentation", "metric", "tta"),
        reads="resume",
        takes_experiment=True,
    ),
    Command(
        words=("evaluate",),
        example="segtrain evaluate run=outputs/… split=val",
        about="scores of a run",
        help="""\
segtrain evaluate scores a run with the config that it was trained with.

  segtrain evaluate run=outputs/first
  segtrain evaluate run=outputs/first split=test data.root=/new/place checkpoint=last
  segtrain evaluate run=outputs/first tta=flip predictor.tile=512 model.output_stride=8""",
        sections={"": Evaluate, "predictor": PredictorSettings, "evaluate": EvaluateSettings},
        groups=("data", "model", "metric", "tta"),
        reads="run",
        needs_run=True,
    ),
    Command(
        words=("compare",),
        example="segtrain compare runs=[outputs/…,outputs/…]",
        about="runs side by side: a table and a picture",
        help="""\
segtrain compare scores several runs on the same images, and draws their masks side by side.

  segtrain compare runs=[outputs/first,outputs/second]
  segtrain compare runs=[outputs/first,outputs/second] split=test evaluate.pictures=8 output=figure""",
        sections={"": Compare, "predictor": PredictorSettings, "evaluate": EvaluateSettings},
        groups=("data", "metric", "tta"),
        reads="runs",
        needs_run=True,
    ),
    Command(
        words=("predict",),
        example="segtrain predict run=outputs/… input=photos output=out",
        about="masks of images",
        help="""\
segtrain predict labels images with a trained network. It needs nothing but the run's folder.

  segtrain predict run=outputs/first input=photos output=out
  segtrain predict run=outputs/first input=street.jpg output=out tta=flip probabilities=true""",
        sections={"": Predict, "predictor": PredictorSettings},
        groups=("model", "tta"),
        reads="run",
        needs_run=True,
    ),
    Command(
        words=("list",),
        example="segtrain list [models|losses|data|…]",
        about="what there is to choose",
        help="""\
segtrain list shows what there is to choose.

  segtrain list                        all kinds
  segtrain list models                 the networks, with their papers, parameters and multiply-adds
  segtrain list loss cross_entropy     the options of one entry
  segtrain list encoders resnet        names for model.encoder that hold a word
  segtrain list experiments            ready-made recipes: segtrain train experiment=NAME""",
    ),
    Command(
        words=("describe",),
        example="segtrain describe model=unet [KEY=VALUE …]",
        about="a network's layers, shapes, parameters",
        help="""\
segtrain describe shows a network's layers with their shapes, parameters and multiply-adds.
Nothing is computed or downloaded.

  segtrain describe model=deeplabv3plus
  segtrain describe model=deeplabv3plus model.output_stride=8 size=[512,1024] classes=19 depth=1""",
        sections={"": Describe},
        groups=("model",),
    ),
    Command(
        words=("config",),
        example="segtrain config train [KEY=VALUE …]",
        about="every key: value, default, meaning, who set it",
        help="""\
segtrain config prints every key of a command: its value, its default, what it means and who set it.

  segtrain config train
  segtrain config train experiment=demo trainer.steps=200
  segtrain config evaluate run=outputs/first""",
    ),
)

COMMANDS = {command.name: command for command in _COMMANDS}
"""All commands, by what is typed for them."""

COMPOSITES = ("augmentation", "metric", "tta")
"""Groups of which several entries apply at once: `{entry: {option: value}}` instead of `{name: …, option:
value}`."""
