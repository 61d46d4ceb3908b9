"""The keys that exist whatever network, data set or loss is chosen. `segtrain config train` prints them with
their meanings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from segtrain.errors import ConfigError
from segtrain.options import ABOVE_0, FROM_0, FROM_1, ODD, SEED, SHARE, between

THREADS = between(1, 1024)


def key(default: Any, meaning: str) -> Any:
    """A field with what it means, for `segtrain config`."""
    return field(default=default, metadata={"meaning": meaning})


@dataclass(frozen=True)
class Run:
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
    seed: Annotated[int, SEED] = key(0, "of weights, sample order and augmentation")
    device: str = key("auto", "auto, cpu, cuda, cuda:1 or mps")
    threads: Annotated[int, THREADS] | None = key(
        None, "CPU threads of torch; null leaves the choice to torch"
    )
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

    steps: int | None = key(None, "optimizer steps of the run")
    epochs: float | None = key(None, "passes over the training split; give this or steps")
    evaluate_every: int | str | None = key("1ep", "steps between evaluations; null: only after the last step")
    log_every: int = key(20, "steps between log lines (loss, rate, images/s)")
    save_every: int | str | None = key(None, "steps between checkpoints; null: with each evaluation")
    accumulate: int = key(1, "micro-batches that one optimizer step is split into, to save memory")
    clip_norm: Annotated[float, ABOVE_0] | None = key(
        None, "largest L2 norm of the gradient; null: no clipping"
    )
    ema: Annotated[float, SHARE] | None = key(
        None, "decay of the moving average of the weights, e.g. 0.999; null: off"
    )
    amp: Literal["none", "bf16", "fp16"] = key("none", "mixed precision of the forward pass")
    freeze_batch_norm: bool = key(
        False, "keep the statistics and the affine weights of batch-norm as they are"
    )
    batch_norm_momentum: Annotated[float, SHARE] | None = key(
        None,
        "how far the statistics of batch-norm move with each batch; null: 0.1 or the encoder's own; 0.0003 "
        "is DeepLab's decay of 0.9997",
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

    batch_size: int = key(8, "images per optimizer step")
    workers: int = key(2, "processes that read and augment; 0: in the main process")
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
    box_sides: tuple[int, ...] | None = key(
        None,
        "sides of the boxes in pixels, from 112; null: the image's longer side and its halves down to 112",
    )
    box_input: Annotated[int, FROM_1] = key(224, "side in pixels that boxes are resized to for the network")
    ensemble: str | None = key(
        None, "folder of a second run with the same classes whose best checkpoint is asked too"
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
        "which classes the means leave out. union: those neither labelled nor predicted; gt: those not "
        "labelled; "
        "zero, one: none, absent ones count as 0 or 1",
    )
    boundary_px: Annotated[float, ABOVE_0] | None = key(
        None,
        "also score boundaries: right within so many pixels (boundary_f), and the mIoU that near to them; "
        "null: do not",
    )
    pictures: Annotated[int, FROM_0] = key(
        4, "images of the validation split that go to TensorBoard and the contact sheet"
    )


@dataclass(frozen=True)
class Evaluate:
    """The top level of `segtrain evaluate`."""

    run: str = field(metadata={"meaning": "folder of the run"})
    checkpoint: str = key("best", "best, last or a step")
    split: str = key("val", "split of the data set to score")
    device: str = key("auto", "auto, cpu, cuda, cuda:1 or mps")
    threads: Annotated[int, THREADS] | None = key(
        None, "CPU threads of torch; null leaves the choice to torch"
    )
    output: str | None = key(
        None,
        "folder for scores.json and the contact sheet; null: RUN/evaluate/SPLIT-STEP, with the names of "
        "tta, another stride, a crf …, "
        "and six hex digits for whatever else differs from the training's own evaluations",
    )


@dataclass(frozen=True)
class Compare:
    """The top level of `segtrain compare`."""

    runs: list[str] = field(
        metadata={"meaning": "folders of the runs, in the order of the picture's columns"}
    )
    checkpoint: str = key("best", "best, last or a step, of every run")
    split: str = key("val", "split of the data set to score; the data set is that of the first run")
    device: str = key("auto", "auto, cpu, cuda, cuda:1 or mps")
    threads: Annotated[int, THREADS] | None = key(
        None, "CPU threads of torch; null leaves the choice to torch"
    )
    output: str = key("outputs/compare", "folder for compare.json and compare.png")


@dataclass(frozen=True)
class Predict:
    """The top level of `segtrain predict`."""

    run: str = field(metadata={"meaning": "folder of the run"})
    input: str = field(metadata={"meaning": "image file or folder of images"})
    output: str = field(metadata={"meaning": "folder for the results"})
    checkpoint: str = key("best", "best, last or a step")
    device: str = key("auto", "auto, cpu, cuda, cuda:1 or mps")
    threads: Annotated[int, THREADS] | None = key(
        None, "CPU threads of torch; null leaves the choice to torch"
    )
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


SECTIONS = {
    "train": {
        "": Run,
        "trainer": Trainer,
        "loader": Loader,
        "predictor": PredictorSettings,
        "evaluate": EvaluateSettings,
    },
    "evaluate": {"": Evaluate, "predictor": PredictorSettings, "evaluate": EvaluateSettings},
    "compare": {"": Compare, "predictor": PredictorSettings, "evaluate": EvaluateSettings},
    "predict": {"": Predict, "predictor": PredictorSettings},
    "describe": {"": Describe},
}
"""The fixed sections of each command; "" is the top level."""

GROUPS = {
    "train": ("task", "data", "model", "loss", "optimizer", "schedule", "augmentation", "tta"),
    "evaluate": ("data", "model", "tta"),
    "compare": ("data", "tta"),
    "predict": ("model", "tta"),
    "describe": ("model",),
}
"""The groups of each command; each is a table."""

COMPOSITES = ("augmentation", "tta")
"""Groups of which several entries apply at once: `{entry: {option: value}}` instead of `{name: …, option:
value}`."""


def in_steps(interval: int | str | None, steps_per_epoch: float, where: str) -> int | None:
    """An interval in optimizer steps: a number as it is, '2ep' as that many epochs (at least one step)."""
    if interval is None:
        return None
    given = interval
    if isinstance(interval, str):
        number = interval.removesuffix("ep")
        try:
            count = float(number) if interval.endswith("ep") else 0.0
        except ValueError:
            count = 0.0
        interval = max(1, round(count * steps_per_epoch)) if count > 0 else 0
    if interval < 1:
        raise ConfigError(
            f"{where} is {given}, which is not an interval; allowed: a number of steps from 1, epochs such "
            f"as 1ep, or null"
        )
    return interval
