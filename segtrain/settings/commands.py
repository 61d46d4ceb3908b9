"""The top level of the config of each command."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from segtrain.options import (
    ABOVE_0,
    FROM_0,
    FROM_1,
    IS_PATH,
    SEED,
    WITHIN_0_1,
    between,
    key,
)

THREADS = between(1, 1024)
RESAMPLES = between(0, 100_000)
BOOTSTRAP = (
    "resamples of the split for the 95 % interval of the mIoU and of the IoU of each class; they draw groups "
    "of images (data.group), else blocks of consecutive ones; 1000 take less than a second; 0: no interval"
)


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
        None, "auto: resume the run of this name, or start it; or the folder of the run to resume"
    )
    init: Annotated[str, IS_PATH] | None = key(
        None, "run folder or weights file to start a new run from; heads are copied by class name"
    )
    seed: Annotated[int, SEED] = key(0, "seed of weight initialisation, sample order and augmentation")
    tracker: Literal["wandb", "mlflow"] | None = key(
        None,
        "experiment tracker beside TensorBoard; offline unless its own variables (WANDB_API_KEY, "
        "MLFLOW_TRACKING_URI) are set",
    )
    dry_run: bool = key(False, "build everything, run one step and one evaluation batch, save nothing")
    stages: list[list[str]] | None = field(
        default=None,
        metadata={
            "meaning": "lists of overrides, each for a run that starts from the best weights of the one "
            "before; null: one run"
        },
    )


@dataclass(frozen=True, kw_only=True)
class Evaluate(Machine):
    """The top level of `segtrain evaluate`."""

    run: str = field(metadata={"meaning": "folder of the run"})
    checkpoint: str = key("best", "best, last or a step")
    split: str | None = key(
        None,
        "split of the data set to score: train, val, test (where there is one) or all; null: val, and of "
        "other data than the run's test, or all if there is no test",
    )
    output: str | None = key(
        None,
        "folder for scores.json and the contact sheet; null: a new RUN/evaluate/SPLIT-STEP, numbered if "
        "that is taken",
    )
    bootstrap: Annotated[int, RESAMPLES] = key(1000, BOOTSTRAP)


@dataclass(frozen=True, kw_only=True)
class Explain(Machine):
    """The top level of `segtrain explain`."""

    run: str = field(metadata={"meaning": "folder of the run"})
    checkpoint: str = key("best", "best, last or a step")
    split: str | None = key(None, "split of the data set to score, or all; null: as in evaluate")
    output: str | None = key(
        None, "folder for explain.json and worst.png; null: a new RUN/explain/SPLIT-STEP, numbered if taken"
    )
    band_px: Annotated[int, between(1, 1000)] = key(
        3, "wrong pixels within that many pixels on each side of a true boundary are lost to boundaries"
    )
    min_share: Annotated[float, WITHIN_0_1] = key(
        0.1,
        "a connected component of a class of which a smaller share is hit is a missed object if it is true, "
        "an invented one if it is predicted",
    )
    num: Annotated[int, between(0, 100)] = key(6, "worst images in the contact sheet")


@dataclass(frozen=True, kw_only=True)
class Compare(Machine):
    """The top level of `segtrain compare`."""

    runs: list[str] = field(
        metadata={"meaning": "folders of the runs, in the order of the picture's columns"}
    )
    checkpoint: str = key("best", "best, last or a step, of every run")
    split: str | None = key(
        None,
        "split of the data set to score, or all; the data set is that of the first run; null: as in evaluate",
    )
    splits: list[str] | None = key(
        None, "several splits in one table, instead of split; ordered and drawn by the first"
    )
    output: str = key("outputs/compare", "folder for compare.json and compare.png")
    bootstrap: Annotated[int, RESAMPLES] = key(
        1000, "resamples for the 95 % intervals of the differences between runs; see evaluate; 0: none"
    )


@dataclass(frozen=True, kw_only=True)
class Predict(Machine):
    """The top level of `segtrain predict`."""

    run: str = field(metadata={"meaning": "folder of the run"})
    input: str = field(metadata={"meaning": "image file or folder of images"})
    output: str = field(metadata={"meaning": "folder for the results"})
    checkpoint: str = key("best", "best, last or a step")
    overlay: bool = key(True, "also write the image with the colours over it")
    probabilities: bool = key(False, "also write the probabilities of all classes, float16 .npy")
    disagreement: bool = key(
        False,
        "also write where the views of tta disagree: the share of the views, 0 to 255, whose most probable "
        "class is not the predicted one",
    )
    max_pixels: Annotated[int, FROM_1] = key(
        64_000_000,
        "images with more pixels are left out; TIFFs with more are predicted window by window, see "
        "docs/data/folder.md",
    )


@dataclass(frozen=True, kw_only=True)
class Submit(Machine):
    """The top level of `segtrain submit`."""

    run: str = field(metadata={"meaning": "folder of the run"})
    output: str = field(metadata={"meaning": "folder for the masks and their archive"})
    format: Literal["cityscapes", "voc"] | None = key(
        None, "benchmark whose server takes the archive; null: that of the data set"
    )
    split: str = key("test", "split whose images are predicted; they need no masks")
    checkpoint: str = key("best", "best, last or a step")


@dataclass(frozen=True, kw_only=True)
class Score:
    """The top level of `segtrain score`."""

    predictions: str = field(
        metadata={"meaning": "folder of predicted masks, one for each image of the split, named as the image"}
    )
    split: str = key("val", "split of the data set that they are for, or all")
    ids: Literal["classes", "labels"] = key(
        "classes",
        "what the files hold. classes: class indices from 0, 255 for no class; labels: the values of the "
        "data set's own masks, such as Cityscapes' label ids",
    )
    protocol: Literal["default", "cityscapes", "voc", "coco_stuff", "torchvision", "all"] = key(
        "default",
        "rules of a benchmark, see evaluate.protocol; all: also a table of the mIoU by the rules of several "
        "programs",
    )
    absent: Literal["union", "gt", "zero", "one"] = key(
        "union", "which classes the means leave out, see evaluate.absent"
    )
    bootstrap: Annotated[int, RESAMPLES] = key(1000, BOOTSTRAP)
    output: str | None = key(None, "folder for scores.json; null: only printed")


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
class Plan(Machine):
    """The top level of `segtrain plan`."""

    minutes: Annotated[float, ABOVE_0] = key(30.0, "how long the training may take on this machine")
    output: str = key(
        "planned.yaml",
        "the YAML to write; it goes into a folder experiment, where segtrain train experiment=NAME looks for "
        "it: planned.yaml is experiment/planned.yaml",
    )
    overwrite: bool = key(False, "replace that file if it exists")


@dataclass(frozen=True)
class DataCheck:
    """The top level of `segtrain data check`."""

    similar: bool = key(False, "also search for images that look nearly the same in different splits")
    json: bool = key(False, "print all that is found as JSON, instead of the first of each kind as text")


@dataclass(frozen=True)
class DataStats:
    """The top level of `segtrain data stats`."""

    split: str = key("train", "split of the data set: train, val, test (where there is one) or all")
    json: bool = key(False, "print the numbers as JSON instead of tables")
    output: str | None = key(None, "folder for stats.json and stats.png; null: nothing is written")


@dataclass(frozen=True)
class DataShow:
    """The top level of `segtrain data show`."""

    split: str = key("train", "split of the data set: train, val, test (where there is one) or all")
    num: Annotated[int, between(1, 100)] = key(6, "samples, a row each")
    position: Annotated[int, FROM_0] = key(
        0, "place of the first one in the order in which a training sees them"
    )
    seed: Annotated[int, SEED] = key(0, "seed of that order and of the augmentation")
    overlay: bool = key(False, "draw the labels over their image instead of alone")
    output: str = key("sheet.png", "the picture to write")


@dataclass(frozen=True)
class DataPrepare:
    """The top level of `segtrain data prepare`."""

    archives: Annotated[str, IS_PATH] | None = key(
        None, "folder of the official archives, under their official names; null: data.root"
    )
    dry_run: bool = key(False, "print what would be unpacked and converted, and write nothing")
    max_gb: Annotated[float, ABOVE_0] = key(
        100.0, "an archive whose files take more than that many GB is refused"
    )


@dataclass(frozen=True)
class SweepShow:
    """The top level of `segtrain sweep show`."""

    sweep: str = field(metadata={"meaning": "folder of the sweep"})
    output: str | None = key(None, "picture to write; null: SWEEP/sweep.png")
    num: Annotated[int, FROM_0] = key(20, "rows of the table; 0: all")
    json: bool = key(False, "print the trials and the importance of the parameters as JSON")
